//! What a change of rules would change, told by names.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use super::file::{LoadedAction, LoadedRule};

/// Names of rules, each list in order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct RuleDifference {
    /// Rules that weren't there.
    pub added: Vec<String>,
    /// Rules that say something else now.
    pub changed: Vec<String>,
    /// Rules that are gone.
    pub removed: Vec<String>,
}

impl RuleDifference {
    /// Whether nothing differs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.changed.is_empty() && self.removed.is_empty()
    }

    pub(super) fn between(before: &[Arc<LoadedRule>], after: &[Arc<LoadedRule>]) -> Self {
        let mut gone: BTreeMap<&str, &LoadedRule> =
            before.iter().map(|rule| (rule.name.as_str(), rule.as_ref())).collect();
        let mut difference = Self::default();
        for rule in after {
            match gone.remove(rule.name.as_str()) {
                None => difference.added.push(rule.name.clone()),
                Some(old) if !is_same(old, rule) => difference.changed.push(rule.name.clone()),
                Some(_) => {}
            }
        }
        difference.added.sort();
        difference.changed.sort();
        difference.removed = gone.into_keys().map(str::to_owned).collect();
        difference
    }
}

/// Whether two rules were read from the same settings, wherever they stood.
fn is_same(one: &LoadedRule, other: &LoadedRule) -> bool {
    let action = |one: &LoadedAction, other: &LoadedAction| {
        one.config == other.config && one.on_remove == other.on_remove
    };
    one.sql == other.sql
        && one.enabled == other.enabled
        && one.description == other.description
        && one.tags == other.tags
        && one.skip_empty == other.skip_empty
        && one.on_remove == other.on_remove
        && one.actions.len() == other.actions.len()
        && one.actions.iter().zip(&other.actions).all(|(one, other)| action(one, other))
        && match (&one.error_action, &other.error_action) {
            (None, None) => true,
            (Some(one), Some(other)) => action(one, other),
            _ => false,
        }
}
