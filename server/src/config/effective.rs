//! The configuration that results, value by value: what it is, and who said so.
//!
//! Made of the configuration itself and of the tree that it was read from. What was taken from outside is shown as it was
//! written, `${env:NAME}`, and what is a secret by its type not at all; both are kept for telling whether they have changed.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;

use serde::ser::Error as _;
use toml::de::{DeTable, DeValue};

use super::secrets::Secret;
use super::source::{Origin, Sources};
use super::tree::{self, Node, Path, Step};
use super::{Config, Environment};

/// One value of a configuration that holds.
#[derive(Clone, PartialEq)]
pub struct Setting {
    path: Path,
    key: String,
    shown: toml::Value,
    hidden: Option<Hidden>,
    origin: String,
}

/// What isn't shown, and only compared.
#[derive(Clone, PartialEq)]
struct Hidden(Vec<String>);

impl fmt::Debug for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {} # {}", self.key, self.shown, self.origin)
    }
}

impl Setting {
    /// Its sections and its key, joined by dots; entries of lists by their names.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The value. Of what was taken from outside, where from; of a secret, that it is one.
    pub fn value(&self) -> &toml::Value {
        &self.shown
    }

    /// `FILE:LINE`, the name of a variable, a flag, or `default`.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Whether the value is the same, what isn't shown included.
    pub fn is_as(&self, other: &Self) -> bool {
        self.shown == other.shown && self.hidden == other.hidden
    }

    /// As one object.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({ "key": self.key, "value": self.shown, "origin": self.origin })
    }
}

/// A configuration's values in the order in which they are described.
#[derive(Debug, Clone, PartialEq)]
pub struct Effective {
    settings: Vec<Setting>,
    text: String,
}

impl Effective {
    /// The values.
    pub fn settings(&self) -> &[Setting] {
        &self.settings
    }

    /// As TOML, with each value's origin behind it.
    pub fn to_toml(&self) -> &str {
        &self.text
    }

    /// Takes stock. `config` was read from `tree`; paths in it may have been completed since.
    pub(super) fn of(
        config: &Config,
        tree: &DeTable<'_>,
        sources: &Sources,
        secrets: &[Secret],
        environment: &Environment,
    ) -> Result<Self, toml::ser::Error> {
        let values = toml::Value::try_from(config)?;
        let printed = toml::to_string(config)?;
        let lines = DeTable::parse(&printed).map_err(toml::ser::Error::custom)?;
        let mut stock = Stock { values, tree, sources, secrets, environment, settings: Vec::new() };
        stock.table(lines.get_ref(), &Path::default(), &mut Vec::new());
        let mut settings = stock.settings;
        settings.sort_by_key(|(span, _)| span.start);
        let text = with_origins(&printed, &settings);
        Ok(Self { settings: settings.into_iter().map(|(_, setting)| setting).collect(), text })
    }
}

struct Stock<'s, 'i> {
    values: toml::Value,
    tree: &'s DeTable<'i>,
    sources: &'s Sources,
    secrets: &'s [Secret],
    environment: &'s Environment,
    /// With the places of the values in the printed text.
    settings: Vec<(Range<usize>, Setting)>,
}

impl Stock<'_, '_> {
    fn table(&mut self, table: &DeTable<'_>, at: &Path, names: &mut Vec<String>) {
        for (key, node) in table {
            names.push(key.get_ref().to_string());
            self.node(node, &at.clone().key(key.get_ref()), names);
            names.pop();
        }
    }

    fn node(&mut self, node: &Node<'_>, at: &Path, names: &mut Vec<String>) {
        match node.get_ref() {
            DeValue::Table(table) => self.table(table, at, names),
            DeValue::Array(items) if items.iter().any(|item| item.get_ref().is_table()) => {
                for (number, item) in items.iter().enumerate() {
                    names.push(tree::name_of(item).unwrap_or_else(|| number.to_string()));
                    self.node(item, &at.clone().index(number), names);
                    names.pop();
                }
            }
            _ => self.value(node.span(), at, names.join(".")),
        }
    }

    fn value(&mut self, span: Range<usize>, path: &Path, key: String) {
        let Some(value) = value_at(&self.values, path).cloned() else { return };
        let written = tree::get(self.tree, path);
        let is_secret = |node: &Node<'_>| self.secrets.iter().find(|secret| secret.span == node.span());
        let text_of = |node: &Node<'_>| node.get_ref().as_str().map(str::to_owned);
        let (shown, hidden) = match written.map(|node| (node, node.get_ref())) {
            Some((_, DeValue::Array(items))) if items.iter().any(|item| is_secret(item).is_some()) => {
                let shown = items.iter().map(|item| match is_secret(item) {
                    Some(secret) => secret.reference.clone().into(),
                    None => text_of(item).unwrap_or_default().into(),
                });
                let hidden = items.iter().filter_map(text_of).collect();
                (toml::Value::Array(shown.collect()), Some(Hidden(hidden)))
            }
            Some((node, DeValue::String(text))) => match is_secret(node) {
                Some(secret) => (secret.reference.clone().into(), Some(Hidden(vec![text.to_string()]))),
                None if value.as_str() == Some(UNSHOWN) => (value, Some(Hidden(vec![text.to_string()]))),
                None => (value, None),
            },
            _ => (value, None),
        };
        let mut origin =
            written.map_or_else(|| DEFAULT.to_owned(), |node| origin_of(self.sources, &node.span()));
        if key == "log.level" && self.environment.get("TIDEGATE_LOG").is_some() {
            origin.push_str("; TIDEGATE_LOG wins over it");
        }
        self.settings.push((span, Setting { path: path.clone(), key, shown, hidden, origin }));
    }
}

/// What the type of secrets shows of every value.
const UNSHOWN: &str = "(secret)";
/// The origin of what nobody said.
const DEFAULT: &str = "default";

fn origin_of(sources: &Sources, span: &Range<usize>) -> String {
    let Some(place) = sources.place(span) else { return DEFAULT.to_owned() };
    match place.origin {
        Origin::File(path) => format!("{}:{}", path.display(), place.line),
        Origin::Variable(name) => name,
        Origin::Flag(key) => format!("--set {key}"),
        Origin::Defaults => DEFAULT.to_owned(),
    }
}

fn value_at<'v>(values: &'v toml::Value, path: &Path) -> Option<&'v toml::Value> {
    path.0.iter().try_fold(values, |value, step| match step {
        Step::Key(key) => value.get(key.as_str()),
        Step::Index(index) => value.get(*index),
    })
}

/// The printed text with the values that are shown, and their origins at the ends of their lines.
fn with_origins(printed: &str, settings: &[(Range<usize>, Setting)]) -> String {
    let mut out = String::with_capacity(printed.len() * 2);
    let mut from = 0;
    for (span, setting) in settings {
        out.push_str(printed.get(from..span.start).unwrap_or_default());
        out.push_str(&setting.shown.to_string());
        // A name with a control character in it would end the comment.
        let origin: String = setting.origin.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
        out.push_str("  # ");
        out.push_str(&origin);
        from = span.end;
    }
    out.push_str(printed.get(from..).unwrap_or_default());
    out
}

/// One key whose value differs between two configurations.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// The key, as in [`Setting::key`].
    pub key: String,
    /// The value before; `None`: there was none.
    pub before: Option<toml::Value>,
    /// The value after; `None`: there is none.
    pub after: Option<toml::Value>,
    /// Where the value after comes from.
    pub origin: Option<String>,
}

/// What differs between two configurations, by key.
pub fn changes(before: &[Setting], after: &[Setting]) -> Vec<Change> {
    let keys: BTreeSet<&str> = before.iter().chain(after).map(Setting::key).collect();
    let find =
        |settings: &'_ [Setting], key: &str| settings.iter().find(|setting| setting.key == key).cloned();
    let changes = keys.into_iter().filter_map(|key| {
        let (before, after) = (find(before, key), find(after, key));
        let is_same = match (&before, &after) {
            (Some(before), Some(after)) => before.is_as(after),
            _ => false,
        };
        (!is_same).then(|| Change {
            key: key.to_owned(),
            before: before.map(|setting| setting.shown),
            origin: after.as_ref().map(|setting| setting.origin.clone()),
            after: after.map(|setting| setting.shown),
        })
    });
    changes.collect()
}
