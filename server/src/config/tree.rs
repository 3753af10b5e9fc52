//! A parsed TOML document as a tree that can be searched by place and changed by path.

use std::fmt;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::overrides::canonical;

/// A node with its place.
pub(super) type Node<'i> = Spanned<DeValue<'i>>;

/// One step from a table or an array to a node in it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    /// A key of a table.
    Key(String),
    /// An item of an array, from 0.
    Index(usize),
}

/// The way from the root to a node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Path(pub(super) Vec<Step>);

impl Path {
    /// The path made of keys.
    pub(super) fn keys(keys: &[&str]) -> Self {
        Self(keys.iter().map(|key| Step::Key((*key).to_owned())).collect())
    }

    /// The path of one more key.
    pub(super) fn key(mut self, key: &str) -> Self {
        self.0.push(Step::Key(key.to_owned()));
        self
    }

    /// The path of an array's item.
    pub(super) fn index(mut self, index: usize) -> Self {
        self.0.push(Step::Index(index));
        self
    }

    /// The path without its last step; `None` for the root.
    pub(super) fn parent(&self) -> Option<Self> {
        self.0.split_last().map(|(_, rest)| Self(rest.to_vec()))
    }

    /// Whether `other` is this node or one above it.
    pub(super) fn starts_with(&self, other: &Self) -> bool {
        self.0.starts_with(&other.0)
    }

    /// Adapts the path of a node after another one was taken out: later items of an array move up.
    pub(super) fn after_removal_of(&mut self, gone: &Self) {
        if let Some((Step::Index(removed), above)) = gone.0.split_last()
            && self.0.starts_with(above)
            && let Some(Step::Index(own)) = self.0.get_mut(above.len())
            && *own > *removed
        {
            *own -= 1;
        }
    }

    fn names(&self) -> Vec<&str> {
        let keys =
            self.0.iter().map(|step| if let Step::Key(key) = step { Some(key.as_str()) } else { None });
        keys.flatten().collect()
    }

    /// How a table is written in a file: `[limits]`, `[[listeners]]`, or `the top level`.
    pub(super) fn as_section(&self) -> String {
        let name = self.names().join(".");
        match self.0.last() {
            None => "the top level".to_owned(),
            Some(Step::Key(_)) => format!("[{name}]"),
            Some(Step::Index(_)) => format!("[[{name}]]"),
        }
    }
}

/// Keys joined by dots; items of an array aren't counted out, since the place in the file says which one it is.
impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.names().join("."))
    }
}

/// The node that a parser's message is about: the key of that name with exactly this place, or, where the message
/// names no key, the deepest value around the place.
pub(super) fn locate(root: &DeTable<'_>, span: &Range<usize>, key: Option<&str>) -> Option<Path> {
    fn in_table(table: &DeTable<'_>, span: &Range<usize>, wanted: Option<&str>, at: &Path) -> Option<Path> {
        table.iter().find_map(|(key, value)| {
            let path = at.clone().key(key.get_ref());
            if wanted == Some(key.get_ref()) && key.span() == *span {
                return Some(path);
            }
            in_value(value, span, wanted, path)
        })
    }
    fn in_value(node: &Node<'_>, span: &Range<usize>, wanted: Option<&str>, path: Path) -> Option<Path> {
        let deeper = match node.get_ref() {
            DeValue::Table(table) => in_table(table, span, wanted, &path),
            DeValue::Array(items) => items
                .iter()
                .enumerate()
                .find_map(|(i, item)| in_value(item, span, wanted, path.clone().index(i))),
            _ => None,
        };
        // A table's place may be its header alone, so children are looked at in any case.
        let own = node.span();
        let around = wanted.is_none() && own.start <= span.start && span.end <= own.end;
        deeper.or_else(|| around.then_some(path))
    }
    in_table(root, span, key, &Path::default())
}

/// The place of the value at `path`; of the nearest node above it when that is missing.
pub(super) fn span_of(root: &DeTable<'_>, path: &Path) -> Option<Range<usize>> {
    let mut found = None;
    let mut steps = path.0.iter();
    let Some(Step::Key(first)) = steps.next() else { return None };
    let mut node = root.get(first.as_str());
    while let Some(current) = node {
        found = Some(current.span());
        node = match (steps.next(), current.get_ref()) {
            (Some(Step::Key(key)), DeValue::Table(table)) => table.get(key.as_str()),
            (Some(Step::Index(index)), DeValue::Array(items)) => items.get(*index),
            _ => None,
        };
    }
    found
}

/// Takes the node at `path` out; false if there is none.
pub(super) fn remove(root: &mut DeTable<'_>, path: &Path) -> bool {
    let Some((last, above)) = path.0.split_last() else { return false };
    let Some((Step::Key(first), above)) = above.split_first() else {
        return matches!(last, Step::Key(key) if root.remove(key.as_str()).is_some());
    };
    let Some(mut node) = root.get_mut(first.as_str()) else { return false };
    for step in above {
        let next = match (step, node.get_mut()) {
            (Step::Key(key), DeValue::Table(table)) => table.get_mut(key.as_str()),
            (Step::Index(index), DeValue::Array(items)) => items.get_mut(*index),
            _ => None,
        };
        match next {
            Some(next) => node = next,
            None => return false,
        }
    }
    match (last, node.get_mut()) {
        (Step::Key(key), DeValue::Table(table)) => table.remove(key.as_str()).is_some(),
        (Step::Index(index), DeValue::Array(items)) => {
            let before = items.len();
            *items =
                items.iter().enumerate().filter(|(i, _)| i != index).map(|(_, item)| item.clone()).collect();
            items.len() < before
        }
        _ => false,
    }
}

/// Calls `visit` with every value that is no table and no array.
pub(super) fn for_each_leaf<'i>(table: &mut DeTable<'i>, visit: &mut impl FnMut(&mut Node<'i>)) {
    fn walk<'i>(node: &mut Node<'i>, visit: &mut impl FnMut(&mut Node<'i>)) {
        match node.get_mut() {
            DeValue::Table(table) => for_each_leaf(table, visit),
            DeValue::Array(items) => items.iter_mut().for_each(|item| walk(item, visit)),
            _ => visit(node),
        }
    }
    table.iter_mut().for_each(|(_, node)| walk(node, visit));
}

/// The value at `path`, if it is there.
pub(super) fn get<'t, 'i>(root: &'t DeTable<'i>, path: &Path) -> Option<&'t Node<'i>> {
    let (first, rest) = path.0.split_first()?;
    let Step::Key(first) = first else { return None };
    rest.iter().try_fold(root.get(first.as_str())?, |node, step| match (step, node.get_ref()) {
        (Step::Key(key), DeValue::Table(table)) => table.get(key.as_str()),
        (Step::Index(index), DeValue::Array(items)) => items.get(*index),
        _ => None,
    })
}

/// The value of `name` in an entry of a list.
pub(super) fn name_of(item: &Node<'_>) -> Option<String> {
    item.get_ref().as_table()?.get("name")?.get_ref().as_str().map(str::to_owned)
}

/// The names of tables in the table `section` that have no text as their `type`.
pub(super) fn without_type(root: &DeTable<'_>, section: &str) -> Vec<String> {
    let Some(DeValue::Table(tables)) = root.get(section).map(Spanned::get_ref) else { return Vec::new() };
    let has_type = |node: &Node<'_>| match node.get_ref() {
        DeValue::Table(table) => table.get("type").is_some_and(|kind| kind.get_ref().is_str()),
        // What is no table is told as that.
        _ => true,
    };
    tables.iter().filter(|(_, node)| !has_type(node)).map(|(name, _)| name.get_ref().to_string()).collect()
}

/// Puts every table in `tables` into one whose only key is its `type`: what a reader of enums can take without
/// losing the places of what is in it.
pub(super) fn wrap_by_type(tables: &mut DeValue<'_>) {
    let DeValue::Table(tables) = tables else { return };
    for (_, node) in tables.iter_mut() {
        let DeValue::Table(table) = node.get_mut() else { continue };
        let Some(kind) = table.remove("type") else { continue };
        let (place, whole) = (kind.span(), node.span());
        let DeValue::String(kind) = kind.into_inner() else { continue };
        let inner = std::mem::replace(node.get_mut(), DeValue::Table(DeTable::new()));
        if let DeValue::Table(outer) = node.get_mut() {
            outer.insert(Spanned::new(place, kind), Spanned::new(whole, inner));
        }
    }
}

/// The same table with every place in it moved by `offset`.
pub(super) fn shifted<'i>(table: DeTable<'i>, offset: usize) -> DeTable<'i> {
    let moved = |span: Range<usize>| span.start + offset..span.end + offset;
    let mut shifted_table = DeTable::new();
    for (key, node) in table {
        let key = Spanned::new(moved(key.span()), key.into_inner());
        shifted_table.insert(key, shifted_node(node, offset));
    }
    shifted_table
}

fn shifted_node<'i>(node: Node<'i>, offset: usize) -> Node<'i> {
    let span = node.span().start + offset..node.span().end + offset;
    let value = match node.into_inner() {
        DeValue::Array(items) => {
            DeValue::Array(items.into_iter().map(|item| shifted_node(item, offset)).collect())
        }
        DeValue::Table(table) => DeValue::Table(shifted(table, offset)),
        scalar => scalar,
    };
    Spanned::new(span, value)
}

/// Lays a table over another: tables are merged, and so are lists whose entries all have names, by name and with new entries
/// behind those that are there; any other value takes the place of the one below.
pub(super) fn lay_over<'i>(below: &mut DeTable<'i>, above: DeTable<'i>) {
    for (key, mut node) in above {
        match (below.get_mut(key.get_ref().as_ref()).map(Spanned::get_mut), node.get_mut()) {
            (Some(DeValue::Table(below)), DeValue::Table(above)) => {
                lay_over(below, std::mem::take(above));
                continue;
            }
            (Some(DeValue::Array(below)), DeValue::Array(above)) if all_named(below) && all_named(above) => {
                lay_list_over(below, std::mem::replace(above, DeArray::new()));
                continue;
            }
            _ => {}
        }
        // The key goes too: a fault of it is one of the text that wrote it last.
        below.remove(key.get_ref().as_ref());
        below.insert(key, node);
    }
}

fn all_named(items: &DeArray<'_>) -> bool {
    !items.is_empty() && items.iter().all(|item| name_of(item).is_some())
}

/// Each entry below is met once at most, so that two of one name in the text above stay two, which is a fault.
fn lay_list_over<'i>(below: &mut DeArray<'i>, above: DeArray<'i>) {
    let mut merged: Vec<Node<'i>> = std::mem::replace(below, DeArray::new()).into_iter().collect();
    let mut is_met = vec![false; merged.len()];
    for mut entry in above {
        let name = name_of(&entry).map(|name| canonical(&name));
        let found = merged
            .iter_mut()
            .zip(&mut is_met)
            .find(|(other, is_met)| !**is_met && name_of(other).map(|name| canonical(&name)) == name);
        if let Some((other, is_met)) = found
            && let DeValue::Table(other) = other.get_mut()
            && let DeValue::Table(entry) = entry.get_mut()
        {
            lay_over(other, std::mem::take(entry));
            *is_met = true;
        } else {
            merged.push(entry);
        }
    }
    *below = merged.into_iter().collect();
}

/// The same value with every place in it set to `span`.
pub(super) fn with_span<'i>(value: DeValue<'i>, span: &Range<usize>) -> Node<'i> {
    let value = match value {
        DeValue::Array(items) => {
            DeValue::Array(items.into_iter().map(|item| with_span(item.into_inner(), span)).collect())
        }
        DeValue::Table(table) => {
            let mut moved = DeTable::new();
            for (key, item) in table {
                let key = Spanned::new(span.clone(), key.into_inner());
                moved.insert(key, with_span(item.into_inner(), span));
            }
            DeValue::Table(moved)
        }
        scalar => scalar,
    };
    Spanned::new(span.clone(), value)
}
