//! Changes of rules: what is asked for, what it comes to, and how it is put in place.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rules_sql::Limits;
use serde::Serialize;
use serde_json::Value;

use super::delta::{MemberChange, member_changes};
use super::error::BookError;
use super::history::{Kept, Version, record};
use super::journal::{Line, SuspensionRecord};
use super::pauses::pause_line;
use super::{
    AUTHOR_CHARS_MAX, DEFINITION_BYTES_MAX, RuleBook, STORED_RULES_MAX, State, Suspension, without_place,
};
use crate::rules::error::RuleFileError;
use crate::rules::file::{LoadedRule, RuleSet};

/// What a change expects to find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// Whatever is there.
    Any,
    /// No rule of the name.
    Absent,
    /// The rule, at this version.
    Version(u32),
}

/// One change of one rule.
#[derive(Debug, Clone, PartialEq)]
pub enum RuleChange {
    /// Makes a rule of the store, or has it say something else.
    Put {
        /// Its name.
        name: String,
        /// What it says: the keys of `[rules.<name>]`.
        definition: Value,
        /// What is to be there.
        expected: Expected,
    },
    /// Takes out a rule of the store.
    Remove {
        /// Its name.
        name: String,
        /// What is to be there.
        expected: Expected,
    },
    /// Lets a rule of a file run no more.
    Suspend {
        /// Its name.
        name: String,
    },
    /// Lets it run again.
    Resume {
        /// Its name.
        name: String,
    },
}

/// What a change came to, or would come to.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Changed {
    /// One for each rule that differs.
    pub rules: Vec<RuleDelta>,
    /// What is allowed in them but hardly meant.
    pub warnings: Vec<String>,
}

/// What differs about one rule.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RuleDelta {
    /// Its name.
    pub rule: String,
    /// `added`, `changed`, `removed`, `suspended` or `resumed`.
    pub change: &'static str,
    /// Of a rule of the store, the version that this makes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// What it says otherwise; values of secret names aren't shown.
    pub members: Vec<MemberChange>,
}

/// What is to be put in place.
struct Plan {
    stored: BTreeMap<String, Arc<LoadedRule>>,
    suspended: BTreeMap<String, Suspension>,
    versions: Vec<(String, Kept)>,
    line: Line,
    changed: Changed,
}

impl RuleBook {
    /// Makes changes, all or none. What is as it should be already makes no version.
    ///
    /// # Errors
    /// [`BookError`]; then everything is as it was.
    pub fn change(&self, changes: &[RuleChange], author: &str) -> Result<Changed, BookError> {
        let mut state = self.state.lock();
        let plan = state.plan(changes, author)?;
        if plan.changed.rules.is_empty() {
            return Ok(plan.changed);
        }
        let rules = state.with_plan(&plan);
        self.pipeline.check_rules(&rules)?;
        let before = state.journal.as_mut().map(|journal| journal.append(&plan.line)).transpose()?;
        if let Err(error) = self.pipeline.replace(&rules) {
            if let (Some(journal), Some(before)) = (&mut state.journal, before) {
                journal.take_back(before);
            }
            return Err(error.into());
        }
        for delta in &plan.changed.rules {
            tracing::info!(rule = delta.rule, version = delta.version, author, "rule {}", delta.change);
        }
        Ok(state.take(plan))
    }

    /// Says what changes would come to, without making them.
    ///
    /// # Errors
    /// As [`RuleBook::change`].
    pub fn try_change(&self, changes: &[RuleChange], author: &str) -> Result<Changed, BookError> {
        let state = self.state.lock();
        let plan = state.plan(changes, author)?;
        self.pipeline.check_rules(&state.with_plan(&plan))?;
        Ok(plan.changed)
    }

    /// The changes that lead from the rules of the store to these: each is put, and where `prune` says so, every other one is
    /// removed.
    #[must_use]
    pub fn changes_to(&self, wanted: &BTreeMap<String, Value>, prune: Prune) -> Vec<RuleChange> {
        let put = wanted.iter().map(|(name, definition)| RuleChange::Put {
            name: name.clone(),
            definition: definition.clone(),
            expected: Expected::Any,
        });
        let state = self.state.lock();
        let others = state.stored.keys().filter(|name| prune == Prune::Others && !wanted.contains_key(*name));
        let removed = others.map(|name| RuleChange::Remove { name: name.clone(), expected: Expected::Any });
        put.chain(removed).collect()
    }

    /// Switches a rule of the store on or off, which makes a version.
    ///
    /// # Errors
    /// [`BookError`].
    pub fn set_enabled(&self, name: &str, enabled: bool, author: &str) -> Result<Changed, BookError> {
        let (mut definition, number) = {
            let state = self.state.lock();
            let rule = state.stored_rule(name)?;
            (rule.definition_value(), state.histories.last(name).map(|version| version.number))
        };
        if let Value::Object(members) = &mut definition {
            members.insert("enabled".to_owned(), Value::Bool(enabled));
        }
        let expected = number.map_or(Expected::Any, Expected::Version);
        self.change(&[RuleChange::Put { name: name.to_owned(), definition, expected }], author)
    }

    /// The versions of a rule of the store that are kept, the oldest first; of one that is gone too.
    ///
    /// # Errors
    /// [`BookError::Unknown`] and [`BookError::OfFile`].
    pub fn versions(&self, name: &str) -> Result<Vec<Version>, BookError> {
        let state = self.state.lock();
        match state.histories.of(name) {
            Some(versions) => Ok(versions.iter().map(Kept::show).collect()),
            None => state.stored_rule(name).map(|_| Vec::new()),
        }
    }

    /// Has a rule say again what it said in an earlier version, which makes a new one; brings back one that is gone.
    ///
    /// # Errors
    /// [`BookError`].
    pub fn roll_back(&self, name: &str, number: u32, author: &str) -> Result<Changed, BookError> {
        let versions = self.versions(name)?;
        let version = versions.into_iter().find(|version| version.number == number);
        let Some(definition) = version.and_then(|version| version.definition) else {
            return Err(BookError::NoVersion { rule: name.to_owned(), version: number });
        };
        let put = RuleChange::Put { name: name.to_owned(), definition, expected: Expected::Any };
        self.change(&[put], author)
    }
}

/// What becomes of rules of the store that aren't among those wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prune {
    /// They stay.
    Nothing,
    /// They go.
    Others,
}

impl State {
    /// Takes up what a journal says.
    pub(super) fn take_up(&mut self, line: Line) {
        for version in line.versions {
            let rule = version.rule.clone();
            self.histories.add(&rule, version.into());
        }
        for SuspensionRecord { rule, by, at_ms, suspended } in line.suspensions {
            if suspended {
                self.suspended.insert(rule, Suspension { by, at_ms });
            } else {
                self.suspended.remove(&rule);
            }
        }
        line.pauses.into_iter().for_each(|pause| self.take_up_pause(pause));
    }

    /// A rule that is to be of the store.
    fn stored_rule(&self, name: &str) -> Result<&Arc<LoadedRule>, BookError> {
        match (self.stored.get(name), self.find(name)) {
            (Some(rule), _) => Ok(rule),
            (None, Some(rule)) => Err(BookError::OfFile { rule: name.to_owned(), file: rule.file.clone() }),
            (None, None) => Err(BookError::Unknown { rule: name.to_owned() }),
        }
    }

    /// Finds out what changes come to.
    fn plan(&self, changes: &[RuleChange], author: &str) -> Result<Plan, BookError> {
        let author: String = author.chars().filter(|c| !c.is_control()).take(AUTHOR_CHARS_MAX).collect();
        let at_ms = now_ms();
        let mut texts = Vec::new();
        for change in changes {
            if let RuleChange::Put { name, definition, .. } = change {
                texts.push((name.as_str(), definition.to_string()));
            }
        }
        let texts = texts.iter().map(|(name, text)| (*name, text.as_str()));
        let mut loaded = load(texts, self.place(), &self.limits).map_err(BookError::Refused)?;
        let mut plan = Plan {
            stored: self.stored.clone(),
            suspended: self.suspended.clone(),
            versions: Vec::new(),
            line: Line::default(),
            changed: Changed::default(),
        };
        for change in changes {
            match change {
                RuleChange::Put { name, expected, .. } => {
                    // Loaded once for each name: a name that comes twice was refused there.
                    let Some(rule) = loaded.remove(name) else { continue };
                    self.put(&mut plan, rule, *expected, (&author, at_ms))?;
                }
                RuleChange::Remove { name, expected } => {
                    let rule = Arc::clone(self.stored_rule(name)?);
                    self.refuse_unexpected(name, *expected)?;
                    if plan.stored.remove(name).is_some() {
                        let before = rule.definition_value();
                        plan.version(self, name, None, (&author, at_ms));
                        plan.tell(name, "removed", Some(&before), None);
                    }
                }
                RuleChange::Suspend { name } | RuleChange::Resume { name } => {
                    let is_suspend = matches!(change, RuleChange::Suspend { .. });
                    self.suspend(&mut plan, name, is_suspend, (&author, at_ms))?;
                }
            }
        }
        if plan.stored.len() > STORED_RULES_MAX {
            return Err(BookError::TooMany { count: plan.stored.len(), limit: STORED_RULES_MAX });
        }
        Ok(plan)
    }

    fn put(
        &self,
        plan: &mut Plan,
        rule: Arc<LoadedRule>,
        expected: Expected,
        by: (&str, i64),
    ) -> Result<(), BookError> {
        let name = rule.name.clone();
        if let (Expected::Version(_), Some(of_file)) = (expected, self.file_rule(&name)) {
            return Err(BookError::OfFile { rule: name, file: of_file.file.clone() });
        }
        self.refuse_twice(&self.files, [&name].into_iter())?;
        self.refuse_unexpected(&name, expected)?;
        plan.changed.warnings.extend(rule.warnings.iter().cloned().map(|w| without_place(w).to_string()));
        let before = plan.stored.get(&name).map(Arc::clone);
        if before.as_ref().is_some_and(|before| before.definition == rule.definition) {
            return Ok(());
        }
        plan.version(self, &name, Some(&rule.definition), by);
        let (old, new) = (before.map(|before| before.definition_value()), rule.definition_value());
        plan.tell(&name, if old.is_some() { "changed" } else { "added" }, old.as_ref(), Some(&new));
        plan.stored.insert(name, rule);
        Ok(())
    }

    fn suspend(
        &self,
        plan: &mut Plan,
        name: &str,
        suspended: bool,
        (by, at_ms): (&str, i64),
    ) -> Result<(), BookError> {
        if self.stored.contains_key(name) {
            return Err(BookError::OfStore { rule: name.to_owned() });
        }
        // What was suspended and has lost its file can be let go all the same.
        if self.find(name).is_none() && (suspended || !self.suspended.contains_key(name)) {
            return Err(BookError::Unknown { rule: name.to_owned() });
        }
        if plan.suspended.contains_key(name) == suspended {
            return Ok(());
        }
        if suspended {
            plan.suspended.insert(name.to_owned(), Suspension { by: by.to_owned(), at_ms });
        } else {
            plan.suspended.remove(name);
        }
        let record = SuspensionRecord { rule: name.to_owned(), by: by.to_owned(), at_ms, suspended };
        plan.line.suspensions.push(record);
        plan.tell(name, if suspended { "suspended" } else { "resumed" }, None, None);
        Ok(())
    }

    fn refuse_unexpected(&self, name: &str, expected: Expected) -> Result<(), BookError> {
        let version =
            self.stored.get(name).map(|_| self.histories.last(name).map_or(0, |version| version.number));
        let rule = name.to_owned();
        match (expected, version) {
            (Expected::Absent, Some(version)) => Err(BookError::Exists { rule, version }),
            (Expected::Version(expected), Some(version)) if version != expected => {
                Err(BookError::Changed { rule, version, expected })
            }
            (Expected::Version(_), None) => Err(BookError::Unknown { rule }),
            _ => Ok(()),
        }
    }

    fn with_plan(&self, plan: &Plan) -> RuleSet {
        let rules = self.files.rules.iter().chain(plan.stored.values()).cloned().collect();
        let suspended = Arc::new(plan.suspended.keys().cloned().collect());
        RuleSet { rules, suspended, paused: self.paused_names() }
    }

    /// Remembers what was put in place.
    fn take(&mut self, plan: Plan) -> Changed {
        self.stored = plan.stored;
        self.suspended = plan.suspended;
        for (rule, version) in plan.versions {
            self.histories.add(&rule, version);
        }
        self.compact();
        plan.changed
    }

    /// Writes the journal anew where that is worth it.
    pub(super) fn compact(&mut self) {
        let Some(journal) = self.journal.as_mut().filter(|journal| journal.is_worth_compacting()) else {
            return;
        };
        let suspensions = self.suspended.iter().map(|(rule, suspension)| Line {
            suspensions: vec![SuspensionRecord {
                rule: rule.clone(),
                by: suspension.by.clone(),
                at_ms: suspension.at_ms,
                suspended: true,
            }],
            ..Line::default()
        });
        let pauses = self.paused.iter().map(|(action, pause)| pause_line(action, pause, true));
        if let Err(error) = journal.compact(self.histories.lines().chain(suspensions).chain(pauses)) {
            let error = crate::cli::chain(&error);
            tracing::warn!(error, "the file of rules stays longer than it needs to be");
        }
    }
}

impl Plan {
    fn version(&mut self, state: &State, name: &str, definition: Option<&str>, (author, at_ms): (&str, i64)) {
        // One change may concern a rule twice: removed and put.
        let planned = self.versions.iter().rev().find(|(rule, _)| rule == name);
        let number = planned.map_or_else(|| state.histories.next_number(name), |(_, last)| last.number + 1);
        let definition = definition.map(Into::into);
        let version = Kept { number, at_ms, author: author.to_owned(), definition };
        self.line.versions.push(record(name, &version));
        self.versions.push((name.to_owned(), version));
    }

    fn tell(&mut self, name: &str, change: &'static str, before: Option<&Value>, after: Option<&Value>) {
        let version = self.versions.iter().rev().find(|(rule, _)| rule == name);
        let members = member_changes(before, after);
        let version = version.map(|(_, version)| version.number);
        self.changed.rules.push(RuleDelta { rule: name.to_owned(), change, version, members });
    }
}

/// Reads rules from their definitions, each from a text of its own.
pub(super) fn load<'d>(
    definitions: impl Iterator<Item = (&'d str, &'d str)>,
    place: &Path,
    limits: &Limits,
) -> Result<BTreeMap<String, Arc<LoadedRule>>, Vec<RuleFileError>> {
    let mut faults = Vec::new();
    let mut texts = Vec::new();
    for (name, definition) in definitions {
        match to_toml(name, definition) {
            Ok(text) => texts.push(text),
            Err(message) => faults.push(RuleFileError::of_file(place, message).in_rule(name)),
        }
    }
    let rules = match RuleSet::from_texts(texts.iter().map(|text| (place, text.as_str())), limits) {
        Ok(rules) if faults.is_empty() => rules.rules,
        Ok(_) => return Err(faults),
        Err(more) => {
            faults.extend(more.into_iter().map(without_place));
            return Err(faults);
        }
    };
    Ok(rules.into_iter().map(|rule| (rule.name.clone(), rule)).collect())
}

/// A rule file with one rule.
fn to_toml(name: &str, definition: &str) -> Result<String, String> {
    if definition.len() > DEFINITION_BYTES_MAX {
        return Err(format!(
            "{} bytes, more than the limit of {DEFINITION_BYTES_MAX} for one rule",
            definition.len()
        ));
    }
    let definition: Value = serde_json::from_str(definition).map_err(|error| error.to_string())?;
    let definition =
        toml::Value::try_from(definition).map_err(|error| format!("not what TOML can say: {error}"))?;
    let mut rules = toml::Table::new();
    rules.insert(name.to_owned(), definition);
    let mut file = toml::Table::new();
    file.insert("rules".to_owned(), toml::Value::Table(rules));
    toml::to_string(&file).map_err(|error| format!("not what TOML can say: {error}"))
}

/// Milliseconds since 1970.
pub(super) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
