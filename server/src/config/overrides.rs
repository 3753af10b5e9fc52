//! `TIDEGATE_SECTION__KEY` and `--set SECTION.KEY=VALUE`: variables and flags that replace or add single values.
//!
//! In a variable two underscores part the names. A variable without them counts only when it names a key of the top level
//! (`TIDEGATE_DATA_DIR`): others are somebody else's, such as `TIDEGATE_PORT`, which Kubernetes sets in every container
//! beside a service of that name. With them, a name that leads nowhere is an error, since it was meant for us.
//!
//! Entries of a list are matched by their `name`, whatever the case and with `_` for `-`.
//! The text is taken as it is where a string is expected, otherwise as a TOML value (`true`, `2048`).

use std::borrow::Cow;
use std::ops::Range;
use std::str::FromStr;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::source::{Origin, Sources};
use super::tree::{Node, name_of, with_span};
use super::{ConfigError, Environment};

/// One `--set KEY=VALUE` of the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    key: String,
    value: String,
}

/// A text that sets nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("write SECTION.KEY=VALUE")]
pub struct AssignmentError;

impl FromStr for Assignment {
    type Err = AssignmentError;

    fn from_str(text: &str) -> Result<Self, AssignmentError> {
        let (key, value) = text.split_once('=').ok_or(AssignmentError)?;
        if key.split('.').any(str::is_empty) {
            return Err(AssignmentError);
        }
        Ok(Self { key: key.to_owned(), value: value.to_owned() })
    }
}

/// What all our variables begin with.
pub(super) const PREFIX: &str = "TIDEGATE_";

/// Keys of the top level that a variable without two underscores may set.
const TOP_LEVEL: [&str; 2] = ["data_dir", "rules_dir"];

/// One variable or flag that sets a value.
#[derive(Debug, Clone)]
pub(super) struct Override<'i> {
    /// The names of the sections and of the key; of a variable in lower case.
    keys: Vec<String>,
    text: &'i str,
    /// Its place among the sources.
    pub(super) span: Range<usize>,
    /// Whether the text is a TOML value rather than the string itself.
    typed: bool,
}

impl<'i> Override<'i> {
    /// Takes the text as a TOML value from now on; false if it is none, if a string would come of it, or if it was so
    /// already.
    pub(super) fn retype(&mut self) -> bool {
        let parsed = DeValue::parse(self.text);
        let other = !self.typed && parsed.is_ok_and(|value| !value.get_ref().is_str());
        self.typed |= other;
        other
    }

    /// Whether it is about this key, of whatever listener.
    pub(super) fn sets(&self, key: &str) -> bool {
        matches!(self.keys.as_slice(), [section, _, last] if section == "listeners" && last == key)
    }

    fn value(&self) -> Node<'i> {
        match DeValue::parse(self.text) {
            Ok(value) if self.typed => with_span(value.into_inner(), &self.span),
            _ => Spanned::new(self.span.clone(), DeValue::String(Cow::Borrowed(self.text))),
        }
    }
}

/// The overrides in the environment and then those of flags, each added to the sources.
pub(super) fn collect<'i>(
    environment: &'i Environment,
    flags: &'i [Assignment],
    sources: &mut Sources,
) -> Vec<Override<'i>> {
    let ours = environment.iter().filter_map(|(name, text)| {
        let rest = name.strip_prefix(PREFIX)?.to_ascii_lowercase();
        let keys: Vec<String> = rest.split("__").map(str::to_owned).collect();
        (keys.len() > 1 || TOP_LEVEL.contains(&rest.as_str())).then_some((name, text, keys))
    });
    let variables = ours.map(|(name, text, keys)| (Origin::Variable(name.to_owned()), text, keys));
    let flags = flags.iter().map(|Assignment { key, value }| {
        (Origin::Flag(key.clone()), value.as_str(), key.split('.').map(str::to_owned).collect())
    });
    variables
        .chain(flags)
        .map(|(origin, text, keys)| {
            let span = sources.add(origin, text);
            Override { keys, text, span, typed: false }
        })
        .collect()
}

/// Puts one override into the tree.
pub(super) fn apply<'i>(
    root: &mut DeTable<'i>,
    over: &Override<'i>,
    sources: &Sources,
) -> Result<(), ConfigError> {
    let fault = |message: String, help: Option<String>| ConfigError {
        place: sources.place(&over.span),
        message,
        help,
    };
    let Some((last, sections)) =
        over.keys.split_last().filter(|_| over.keys.iter().all(|key| !key.is_empty()))
    else {
        return Err(fault(
            "a name between two double underscores is empty".to_owned(),
            Some(format!("write {PREFIX}SECTION__KEY")),
        ));
    };
    let mut table = root;
    let mut names = sections.iter();
    while let Some(section) = names.next() {
        // Tables that are named by whoever wrote the file are found as entries of a list are.
        let written = table.keys().find(|key| canonical(key.get_ref()) == canonical(section));
        let name = written.map_or_else(|| section.clone(), |key| key.get_ref().to_string());
        let node = table
            .entry(Spanned::new(over.span.clone(), Cow::Owned(name)))
            .or_insert_with(|| Spanned::new(over.span.clone(), DeValue::Table(DeTable::new())));
        table = match node.get_mut() {
            DeValue::Table(inner) => inner,
            DeValue::Array(items) => {
                let known: Vec<String> = items.iter().filter_map(name_of).collect();
                let Some(wanted) = names.next() else {
                    return Err(fault(
                        format!("an entry of [[{section}]] must be named"),
                        Some(format!(
                            "write {PREFIX}{}__NAME__KEY, or --set {section}.NAME.KEY=VALUE",
                            section.to_ascii_uppercase()
                        )),
                    ));
                };
                let found = items
                    .iter_mut()
                    .find(|item| name_of(item).is_some_and(|n| canonical(&n) == canonical(wanted)));
                match found.map(Spanned::get_mut) {
                    Some(DeValue::Table(inner)) => inner,
                    _ => {
                        return Err(fault(
                            format!("no entry of [[{section}]] is named \"{wanted}\""),
                            super::load::suggest(wanted, known.iter().map(String::as_str)),
                        ));
                    }
                }
            }
            other => {
                return Err(fault(format!("`{section}` is a {}, not a section", other.type_str()), None));
            }
        };
    }
    // The key goes too, so that an unknown one is reported with the variable's name.
    table.remove(last.as_str());
    table.insert(Spanned::new(over.span.clone(), Cow::Owned(last.clone())), over.value());
    Ok(())
}

/// A name as a variable can spell it: lower case, `_` for `-`.
pub(super) fn canonical(name: &str) -> String {
    name.to_ascii_lowercase().replace('-', "_")
}
