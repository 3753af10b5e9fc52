//! The rules that cases may call by name: whole folders and files of them, each looked through in its turn.
//!
//! A rule that is not enabled is there like any other. A file with a fault gives none of its rules; the case that asks for
//! one of them is told the fault, so that nothing passes because its rule went missing.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use rules_sql::Limits;

use super::super::error::RuleFileError;
use super::super::file::{LoadedRule, RuleSet, read_text};
use super::read::is_rule_file;
use crate::config::suggest;

/// The rules of one folder or file.
#[derive(Debug, Default)]
pub(crate) struct Shelf {
    rules: Vec<Arc<LoadedRule>>,
    faults: Vec<RuleFileError>,
}

impl Shelf {
    /// Reads a rule file, or every one of a folder. The error says that there is nothing that can be read.
    pub(crate) fn read(path: &Path, limits: &Limits) -> Result<Self, String> {
        let unreadable = |error: std::io::Error| format!("{} can't be read: {error}", path.display());
        let mut shelf = Self::default();
        if fs::metadata(path).map_err(unreadable)?.is_file() {
            shelf.add(path, limits);
            return Ok(shelf);
        }
        let mut files = Vec::new();
        for entry in fs::read_dir(path).map_err(unreadable)? {
            let file = entry.map_err(unreadable)?.path();
            let is_hidden = file.file_name().is_none_or(|name| name.to_string_lossy().starts_with('.'));
            if !is_hidden && is_rule_file(&file) && file.is_file() {
                files.push(file);
            }
        }
        files.sort();
        for file in files {
            shelf.add(&file, limits);
        }
        Ok(shelf)
    }

    /// Adds the rules of one file.
    fn add(&mut self, file: &Path, limits: &Limits) {
        let text = match read_text(file) {
            Ok(text) => text,
            Err(message) => return self.faults.push(RuleFileError::of_file(file, message)),
        };
        match RuleSet::from_texts([(file, text.as_str())], limits) {
            Ok(rules) => self.rules.extend(rules.rules),
            Err(mut faults) => self.faults.append(&mut faults),
        }
    }

    /// Adds rules that were read elsewhere.
    pub(crate) fn of(rules: RuleSet) -> Self {
        Self { rules: rules.rules, faults: Vec::new() }
    }

    /// Those of a gateway that runs.
    pub(crate) fn running(rules: Vec<Arc<LoadedRule>>) -> Self {
        Self { rules, faults: Vec::new() }
    }

    /// Puts the rules of another shelf behind the own ones.
    pub(crate) fn append(&mut self, mut other: Self) {
        self.rules.append(&mut other.rules);
        self.faults.append(&mut other.faults);
    }

    /// Its rules, in the order in which they were read.
    pub(crate) fn rules(&self) -> impl Iterator<Item = &LoadedRule> {
        self.rules.iter().map(AsRef::as_ref)
    }

    /// What is wrong with its files.
    pub(crate) fn faults(&self) -> &[RuleFileError] {
        &self.faults
    }
}

/// Shelves in the order in which they are looked through.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Book<'s>(pub(crate) &'s [&'s Shelf]);

/// Why a rule can't be had by its name.
#[derive(Debug)]
pub(super) enum Missing {
    /// No rule of that name, or several.
    Unknown(String),
    /// Its file says something that is refused.
    Refused(Box<RuleFileError>),
}

impl<'s> Book<'s> {
    /// Finds a rule on the first shelf that has its name.
    pub(super) fn find(&self, name: &str) -> Result<&'s Arc<LoadedRule>, Missing> {
        for shelf in self.0 {
            let mut found = shelf.rules.iter().filter(|rule| rule.name == name);
            match (found.next(), found.next()) {
                (Some(first), Some(second)) => {
                    let files = format!("{} and {}", first.file.display(), second.file.display());
                    return Err(Missing::Unknown(format!("rule \"{name}\" is in {files}")));
                }
                (Some(rule), None) => return Ok(rule),
                _ => {}
            }
            let own = shelf.faults.iter().find(|fault| fault.rule.as_deref() == Some(name));
            if let Some(fault) = own {
                return Err(Missing::Refused(Box::new(fault.clone())));
            }
        }
        let names = self.0.iter().flat_map(|shelf| &shelf.rules).map(|rule| rule.name.as_str());
        let mut why = format!("no rule is named \"{name}\"");
        if let Some(hint) = suggest(name, names) {
            why.push_str(&format!(": {hint}"));
        }
        if let Some(fault) = self.0.iter().find_map(|shelf| shelf.faults.first()) {
            why.push_str(&format!("; a rule file is refused: {fault}"));
        }
        Err(Missing::Unknown(why))
    }
}
