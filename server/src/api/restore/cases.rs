//! Cases of rules out of a backup.
//!
//! They may be more than fits into memory together, so the backup is read twice: once to see what differs, and once more, when the
//! rules are in place, to keep them.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::File;
use std::sync::Arc;

use super::{PartChanges, Plan, reader};
use crate::api::Api;
use crate::api::problem::{Kind, Problem};
use crate::api::rule_cases::{RULES_WITH_CASES_MAX, checked, is_rule_name};
use crate::backup::{CasesRecord, Entry, Part};
use crate::rules::Changed;

/// The rules that a backup has cases of, and how theirs differ from those here; `None`: not at all.
pub(super) type Differences = BTreeMap<String, Option<&'static str>>;

/// What is to be done about cases.
#[derive(Debug, Default)]
pub(super) struct CaseChanges {
    /// What is told of it.
    pub(super) changes: PartChanges,
    pub(super) warnings: Vec<String>,
    /// Rules whose cases are put in place of those here.
    put: BTreeSet<String>,
    /// Rules that have none any more.
    gone: Vec<String>,
}

/// Checks one entry, and says how it differs. An error is in words.
pub(super) fn difference(api: &Api, record: &CasesRecord) -> Result<Option<&'static str>, String> {
    let CasesRecord { rule, cases } = record;
    if !is_rule_name(rule) {
        return Err("no rule has such a name".to_owned());
    }
    let text = checked(rule, cases).map_err(|problem| problem.detail().to_owned())?;
    Ok(match api.cases.get(rule) {
        Ok(None) => Some("added"),
        Ok(Some(before)) if before == text => None,
        // What is damaged is replaced.
        Ok(Some(_)) | Err(_) => Some("changed"),
    })
}

/// What is to be done when the rules are changed like this.
pub(super) fn changes(api: &Api, plan: &Plan, rules: &Changed, prune: bool) -> Result<CaseChanges, Problem> {
    let mut changes = CaseChanges { changes: PartChanges::of("cases"), ..CaseChanges::default() };
    let removed = rules.rules.iter().filter(|delta| delta.change == "removed");
    // Cases go with their rule.
    changes.gone.extend(removed.map(|delta| delta.rule.clone()));
    if !plan.has(Part::Cases) {
        return Ok(changes);
    }
    let removed: HashSet<&str> = changes.gone.iter().map(String::as_str).collect();
    let is_there = |rule: &str| {
        plan.rules.contains_key(rule) || (api.gateway.book.rule(rule).is_some() && !removed.contains(rule))
    };
    let mut here = api.cases.rules().map_err(|error| {
        Problem::new(Kind::Unavailable, format!("the cases that are kept can't be read: {error}"))
    })?;
    here.retain(|rule| !removed.contains(rule.as_str()));
    let others: Vec<String> = if prune {
        here.iter().filter(|rule| !plan.cases.contains_key(*rule)).cloned().collect()
    } else {
        Vec::new()
    };
    for (rule, difference) in &plan.cases {
        let Some(difference) = *difference else { continue };
        if is_there(rule) {
            changes.changes.add(rule, difference);
            changes.put.insert(rule.clone());
        } else {
            changes.warnings.push(format!("cases of the rule {rule:?} stay out: there is no such rule"));
        }
    }
    for rule in others {
        changes.changes.add(&rule, "removed");
        here.remove(&rule);
        changes.gone.push(rule);
    }
    let together = here.union(&changes.put).count();
    if together > RULES_WITH_CASES_MAX {
        let detail = format!("{together} rules would have cases, and {RULES_WITH_CASES_MAX} may");
        return Err(Problem::new(Kind::Conflict, detail));
    }
    Ok(changes)
}

/// Puts cases in place. An error says how far it came.
pub(super) fn take_up(api: &Api, file: &Arc<File>, changes: &CaseChanges) -> Result<(), Problem> {
    for rule in &changes.gone {
        api.cases.rule_is_gone(rule);
    }
    if changes.put.is_empty() {
        return Ok(());
    }
    let mut reader = reader(api, file)?;
    let mut done = 0;
    // It was read to its end before, and nobody else can write to it.
    while let Some(entry) = reader.next_entry()? {
        let Entry::Cases(CasesRecord { rule, cases }) = entry else { continue };
        if !changes.put.contains(&rule) {
            continue;
        }
        api.cases.put(&rule, checked(&rule, &cases)?).map_err(|error| {
            let why = crate::cli::chain(&error);
            Problem::new(
                Kind::Unavailable,
                format!("{why}: the cases of {done} rules were restored before, and all that isn't cases. Restore again when they can be kept"),
            )
        })?;
        done += 1;
    }
    Ok(())
}
