//! What the book owns, as it is carried elsewhere: for backups.

use std::sync::Arc;

use super::{RuleBook, Suspension};
use crate::rules::file::LoadedRule;

/// A rule of the store, as it is now.
#[derive(Debug, Clone)]
pub struct StoredRule {
    /// What it says.
    pub rule: Arc<LoadedRule>,
    /// Its version, counted from 1.
    pub version: Option<u32>,
    /// Who changed it last.
    pub author: Option<String>,
    /// When it was changed last, in milliseconds since 1970.
    pub changed_at_ms: Option<i64>,
}

impl RuleBook {
    /// The rules of the store and the suspensions at one moment, in the order of their names. Definitions are shared, not copied.
    #[must_use]
    pub fn copy(&self) -> (Vec<StoredRule>, Vec<(String, Suspension)>) {
        let state = self.state.lock();
        let stored = state.stored.iter().map(|(name, rule)| {
            let last = state.histories.last(name);
            StoredRule {
                rule: Arc::clone(rule),
                version: last.map(|last| last.number),
                author: last.map(|last| last.author.clone()),
                changed_at_ms: last.map(|last| last.at_ms),
            }
        });
        let suspended = state.suspended.iter().map(|(name, suspension)| (name.clone(), suspension.clone()));
        (stored.collect(), suspended.collect())
    }
}
