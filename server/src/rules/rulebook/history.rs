//! Versions of the rules that the store owns, also of those that are gone.
//!
//! Of each rule the last [`VERSIONS_MAX`] are kept, and of all rules together as many as fit into [`VERSION_BYTES_MAX`]: the
//! oldest go first. The version that holds stays, whatever its size.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::journal::{Line, VersionRecord};

/// Most versions that are kept of one rule.
pub const VERSIONS_MAX: usize = 20;
/// Bytes of all versions together that no longer hold.
pub const VERSION_BYTES_MAX: usize = 32 << 20;
/// What a version takes beside its text, in bytes.
const OVERHEAD_BYTES: usize = 128;

/// What a rule said at one time.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Version {
    /// Its number, counted from 1.
    pub number: u32,
    /// When it was made, in milliseconds since 1970.
    pub at_ms: i64,
    /// Who made it.
    pub author: String,
    /// What the rule said; `None`: it was gone from then on.
    pub definition: Option<Value>,
}

/// The same as it is kept.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    pub(super) number: u32,
    pub(super) at_ms: i64,
    pub(super) author: String,
    pub(super) definition: Option<Arc<str>>,
}

impl Kept {
    fn bytes(&self) -> usize {
        OVERHEAD_BYTES + self.author.len() + self.definition.as_ref().map_or(0, |text| text.len())
    }

    pub(super) fn show(&self) -> Version {
        Version {
            number: self.number,
            at_ms: self.at_ms,
            author: self.author.clone(),
            definition: self.definition.as_deref().and_then(|text| serde_json::from_str(text).ok()),
        }
    }
}

/// The versions of every rule.
#[derive(Debug, Default)]
pub(super) struct Histories {
    by_rule: BTreeMap<String, VecDeque<Kept>>,
    /// In which order versions were overtaken, with those among them that are gone already.
    overtaken: VecDeque<(String, u32)>,
    overtaken_bytes: usize,
}

impl Histories {
    /// The versions of a rule, the oldest first.
    pub(super) fn of(&self, rule: &str) -> Option<&VecDeque<Kept>> {
        self.by_rule.get(rule)
    }

    /// The last version of a rule, whether it is there or gone.
    pub(super) fn last(&self, rule: &str) -> Option<&Kept> {
        self.by_rule.get(rule)?.back()
    }

    /// What every rule that is there says.
    pub(super) fn current(&self) -> impl Iterator<Item = (&str, &str)> {
        self.by_rule
            .iter()
            .filter_map(|(rule, versions)| Some((rule.as_str(), versions.back()?.definition.as_deref()?)))
    }

    /// The number that the next version of a rule gets.
    pub(super) fn next_number(&self, rule: &str) -> u32 {
        self.last(rule).map_or(1, |last| last.number.saturating_add(1))
    }

    /// Adds a version and forgets the oldest where there are too many.
    pub(super) fn add(&mut self, rule: &str, version: Kept) {
        let is_gone = version.definition.is_none();
        let versions = self.by_rule.entry(rule.to_owned()).or_default();
        // A version that says the rule is gone has counted as overtaken from the beginning.
        if let Some(before) = versions.back().filter(|before| before.definition.is_some()) {
            self.overtaken_bytes += before.bytes();
            self.overtaken.push_back((rule.to_owned(), before.number));
        }
        let number = version.number;
        if is_gone {
            self.overtaken_bytes += version.bytes();
            self.overtaken.push_back((rule.to_owned(), number));
        }
        versions.push_back(version);
        if versions.len() > VERSIONS_MAX {
            self.forget_oldest_of(rule);
        }
        while self.overtaken_bytes > VERSION_BYTES_MAX {
            let Some((rule, number)) = self.overtaken.pop_front() else { return };
            let oldest = self.by_rule.get(&rule).and_then(VecDeque::front);
            if oldest.is_some_and(|oldest| oldest.number <= number) {
                self.forget_oldest_of(&rule);
            }
        }
        // What was forgotten by number leaves its place in the order behind.
        let kept: usize = self.overtaken.len();
        if kept > 1_024 && kept / 2 > self.by_rule.values().map(VecDeque::len).sum::<usize>() {
            let by_rule = &self.by_rule;
            self.overtaken.retain(|(rule, number)| {
                let oldest = by_rule.get(rule).and_then(VecDeque::front);
                oldest.is_some_and(|oldest| oldest.number <= *number)
            });
        }
    }

    fn forget_oldest_of(&mut self, rule: &str) {
        let Some(versions) = self.by_rule.get_mut(rule) else { return };
        if let Some(gone) = versions.pop_front() {
            self.overtaken_bytes = self.overtaken_bytes.saturating_sub(gone.bytes());
        }
        if versions.is_empty() {
            self.by_rule.remove(rule);
        }
    }

    /// Everything that is kept, as changes.
    pub(super) fn lines(&self) -> impl Iterator<Item = Line> {
        self.by_rule.iter().flat_map(|(rule, versions)| {
            versions.iter().map(|version| Line { versions: vec![record(rule, version)], ..Line::default() })
        })
    }
}

/// A version as it is written.
pub(super) fn record(rule: &str, version: &Kept) -> VersionRecord {
    let raw = |text: &Arc<str>| RawValue::from_string(text.to_string()).ok();
    VersionRecord {
        rule: rule.to_owned(),
        number: version.number,
        at_ms: version.at_ms,
        author: version.author.clone(),
        definition: version.definition.as_ref().and_then(raw),
    }
}

impl From<VersionRecord> for Kept {
    fn from(record: VersionRecord) -> Self {
        Self {
            number: record.number,
            at_ms: record.at_ms,
            author: record.author,
            definition: record.definition.map(|raw| raw.get().into()),
        }
    }
}
