//! The rules that there are, who owns each, and how they change while clients stay connected.
//!
//! A rule belongs to a file of the rules folder or to the store, and to one of them alone. What a file says is changed in the
//! file; here such a rule can only be suspended, which outlives restarts and reloads. What the store owns is changed here: every
//! change makes a version, with its author and time, and earlier ones can be brought back. The same name in both is refused,
//! with both places named.
//!
//! A change is checked whole, written to the journal ([`journal`]), and put in place by one swap of the pipeline, in this
//! order: what was acknowledged is there after a crash, and what is refused leaves everything as it was. A change that would
//! strand what an action owes is refused as a reload is, unless the rule says `on_remove`.
//!
//! Whoever calls decides who may; the author is what the caller says. Calls block on the disk: not for a thread that serves
//! connections.
//!
//! - `journal.rs`: the file; `error.rs`: refusals; `change.rs`: changes; `copy.rs`: what backups hold; `history.rs`: versions;
//!   `delta.rs`: what differs between two definitions; `pauses.rs`: actions that send nothing until an operator says so.

mod change;
mod copy;
mod delta;
mod error;
mod history;
mod journal;
mod pauses;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use actions::{Connectors, TargetPolicy};
use parking_lot::Mutex;
use rules_sql::Limits;
use serde::Serialize;
use serde_json::Value;

use super::difference::RuleDifference;
use super::error::RuleFileError;
use super::file::{LoadedRule, RuleSet};
use super::pipeline::{PipelineSettings, RulePipeline};

pub use self::change::{Changed, Expected, Prune, RuleChange, RuleDelta};
pub use self::copy::StoredRule;
pub use self::delta::{MemberChange, member_changes};
pub use self::error::BookError;
pub use self::history::{VERSION_BYTES_MAX, VERSIONS_MAX, Version};

use self::history::Histories;
use self::journal::Journal;

/// Most rules that the store owns.
pub const STORED_RULES_MAX: usize = 100_000;
/// Largest definition of one rule as JSON, in bytes.
pub const DEFINITION_BYTES_MAX: usize = 1 << 20;
/// Most characters of an author's name.
const AUTHOR_CHARS_MAX: usize = 256;

/// Who owns a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = RuleOwner)]
pub enum Owner {
    /// A file of the rules folder.
    File,
    /// The store: the rule came through the administration.
    Store,
}

/// That a rule of a file doesn't run though its file says so, or that an action sends nothing though its rule runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Suspension {
    /// Who said so.
    pub by: String,
    /// When, in milliseconds since 1970.
    pub at_ms: i64,
}

/// One rule as it is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RuleEntry {
    /// Its name.
    pub name: String,
    /// Who owns it.
    pub owner: Owner,
    /// The file that it stands in.
    pub file: PathBuf,
    /// Of a rule of the store: its version, counted from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// Of a rule of the store: who changed it last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// Of a rule of the store: when it was changed last, in milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changed_at_ms: Option<i64>,
    /// Whether its definition says that it is to run.
    pub enabled: bool,
    /// Of a rule of a file: that it was suspended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suspended: Option<Suspension>,
    /// Whether it runs.
    pub runs: bool,
    /// What it is for, in its author's words.
    pub description: String,
    /// Words to find it by.
    pub tags: Vec<String>,
    /// What it says.
    pub definition: Value,
    /// What is allowed in it but hardly meant.
    pub warnings: Vec<String>,
}

/// The rules that run, and who owns them. Cheap to clone; every clone is the same.
#[derive(Debug, Clone)]
pub struct RuleBook {
    pipeline: RulePipeline,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    /// The rules of files, whether they are suspended or not.
    files: RuleSet,
    /// The rules of the store, by name.
    stored: BTreeMap<String, Arc<LoadedRule>>,
    histories: Histories,
    suspended: BTreeMap<String, Suspension>,
    /// Actions that send nothing, as `rule/action`.
    paused: BTreeMap<String, Suspension>,
    /// `None`: nothing outlives the process.
    journal: Option<Journal>,
    limits: Limits,
}

impl RuleBook {
    /// Starts the rules of files and those that the store of `data_dir` owns. Without a data directory those of the store live
    /// as long as the process.
    ///
    /// # Errors
    /// [`BookError`]; nothing runs then.
    pub fn start(
        files: RuleSet,
        data_dir: Option<&Path>,
        limits: &Limits,
        settings: &PipelineSettings,
    ) -> Result<Self, BookError> {
        let state = State::read(files, data_dir, limits)?;
        let pipeline = RulePipeline::new(&state.rules(), settings)?;
        Ok(Self { pipeline, state: Arc::new(Mutex::new(state)) })
    }

    /// What runs them.
    #[must_use]
    pub fn pipeline(&self) -> &RulePipeline {
        &self.pipeline
    }

    /// Rules in the order of their names, from behind `after` on, at most `limit`. The name is that of the last one, where there
    /// are more.
    #[must_use]
    pub fn list(&self, after: Option<&str>, limit: usize) -> (Vec<RuleEntry>, Option<String>) {
        let state = self.state.lock();
        let mut rules: Vec<&Arc<LoadedRule>> =
            state.files.rules.iter().chain(state.stored.values()).collect();
        rules.retain(|rule| after.is_none_or(|after| rule.name.as_str() > after));
        rules.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        let is_more = rules.len() > limit;
        let entries: Vec<RuleEntry> = rules.into_iter().take(limit).map(|rule| state.entry(rule)).collect();
        let next = entries.last().filter(|_| is_more).map(|entry| entry.name.clone());
        (entries, next)
    }

    /// How many rules there are.
    #[must_use]
    pub fn count(&self) -> usize {
        let state = self.state.lock();
        state.files.rules.len() + state.stored.len()
    }

    /// One rule.
    #[must_use]
    pub fn rule(&self, name: &str) -> Option<RuleEntry> {
        let state = self.state.lock();
        state.find(name).map(|rule| state.entry(rule))
    }

    /// The rules of the store as a rule file.
    ///
    /// # Errors
    /// Never as far as we know: a definition was made from TOML.
    pub fn export(&self) -> Result<String, toml::ser::Error> {
        let state = self.state.lock();
        let mut rules = toml::Table::new();
        for (name, rule) in &state.stored {
            rules.insert(name.clone(), toml::Value::try_from(rule.definition_value())?);
        }
        let mut file = toml::Table::new();
        file.insert("rules".to_owned(), toml::Value::Table(rules));
        toml::to_string(&file)
    }

    /// Says what it would change if these were the rules of files, with these limits, addresses and connectors; changes
    /// nothing.
    ///
    /// # Errors
    /// [`BookError`] where [`RuleBook::replace_files`] would say so.
    pub fn check_files(
        &self,
        files: &RuleSet,
        limits: &Limits,
        targets: &TargetPolicy,
        connectors: &Connectors,
    ) -> Result<RuleDifference, BookError> {
        let state = self.state.lock();
        let rules = state.with_files(files, limits)?.0;
        self.pipeline.check(&rules, targets, connectors)?;
        Ok(self.pipeline.difference(&rules))
    }

    /// Puts other rules of files in place, all or none; rules of the store stay, and suspensions do.
    ///
    /// # Errors
    /// [`BookError`]; then everything goes on as it was.
    pub fn replace_files(
        &self,
        files: &RuleSet,
        limits: &Limits,
        targets: &TargetPolicy,
        connectors: &Connectors,
    ) -> Result<(), BookError> {
        let mut state = self.state.lock();
        let (rules, stored) = state.with_files(files, limits)?;
        self.pipeline.replace_all(&rules, targets, connectors)?;
        state.files = files.clone();
        state.stored = stored;
        state.limits = limits.clone();
        Ok(())
    }
}

impl State {
    /// Reads what the store owns and puts it beside the rules of files.
    fn read(files: RuleSet, data_dir: Option<&Path>, limits: &Limits) -> Result<Self, BookError> {
        let mut state = Self {
            files,
            stored: BTreeMap::new(),
            histories: Histories::default(),
            suspended: BTreeMap::new(),
            paused: BTreeMap::new(),
            journal: None,
            limits: limits.clone(),
        };
        if let Some(data_dir) = data_dir {
            let path = Journal::path_in(data_dir);
            let (lines, bytes) = Journal::read(&path)?;
            for line in lines {
                state.take_up(line);
            }
            state.journal = Some(Journal::new(path, bytes));
        }
        let current = state.histories.current();
        state.stored = change::load(current, state.place(), limits).map_err(BookError::Refused)?;
        state.refuse_twice(&state.files, state.stored.keys())?;
        Ok(state)
    }

    /// Where rules of the store are kept, for messages.
    fn place(&self) -> &Path {
        self.journal.as_ref().map_or(Path::new("the store in memory"), Journal::path)
    }

    /// Refuses names that files have too.
    fn refuse_twice<'n>(
        &self,
        files: &RuleSet,
        names: impl Iterator<Item = &'n String>,
    ) -> Result<(), BookError> {
        let of_files: BTreeMap<&str, &Path> =
            files.rules.iter().map(|rule| (rule.name.as_str(), rule.file.as_path())).collect();
        for name in names {
            if let Some(file) = of_files.get(name.as_str()) {
                return Err(BookError::Twice {
                    rule: name.clone(),
                    first: (*file).to_owned(),
                    second: self.place().to_owned(),
                });
            }
        }
        Ok(())
    }

    /// All rules: those of files in their order, then those of the store in the order of their names.
    fn rules(&self) -> RuleSet {
        self.beside(&self.files, &self.stored)
    }

    fn beside(&self, files: &RuleSet, stored: &BTreeMap<String, Arc<LoadedRule>>) -> RuleSet {
        let rules = files.rules.iter().chain(stored.values()).cloned().collect();
        let suspended: HashSet<String> = self.suspended.keys().cloned().collect();
        RuleSet { rules, suspended: Arc::new(suspended), paused: self.paused_names() }
    }

    /// All rules if these were those of files, and the rules of the store among them.
    fn with_files(
        &self,
        files: &RuleSet,
        limits: &Limits,
    ) -> Result<(RuleSet, BTreeMap<String, Arc<LoadedRule>>), BookError> {
        self.refuse_twice(files, self.stored.keys())?;
        let stored = if *limits == self.limits {
            self.stored.clone()
        } else {
            // They may be too large now.
            change::load(self.histories.current(), self.place(), limits).map_err(BookError::Refused)?
        };
        Ok((self.beside(files, &stored), stored))
    }

    fn find(&self, name: &str) -> Option<&Arc<LoadedRule>> {
        self.stored.get(name).or_else(|| self.file_rule(name))
    }

    fn file_rule(&self, name: &str) -> Option<&Arc<LoadedRule>> {
        self.files.rules.iter().find(|rule| rule.name == name)
    }

    fn entry(&self, rule: &Arc<LoadedRule>) -> RuleEntry {
        let is_stored = self.stored.contains_key(&rule.name);
        let version = self.histories.last(&rule.name).filter(|_| is_stored);
        let suspended = self.suspended.get(&rule.name).filter(|_| !is_stored).cloned();
        RuleEntry {
            name: rule.name.clone(),
            owner: if is_stored { Owner::Store } else { Owner::File },
            file: rule.file.clone(),
            version: version.map(|version| version.number),
            author: version.map(|version| version.author.clone()),
            changed_at_ms: version.map(|version| version.at_ms),
            enabled: rule.enabled,
            runs: rule.enabled && suspended.is_none(),
            suspended,
            description: rule.description.clone(),
            tags: rule.tags.clone(),
            definition: rule.definition_value(),
            warnings: rule.warnings.iter().map(|warning| warning.message.clone()).collect(),
        }
    }
}

/// Whose fault is told without a place: nobody has seen the text that it was read from.
fn without_place(mut fault: RuleFileError) -> RuleFileError {
    fault.line = None;
    fault.column = None;
    fault
}
