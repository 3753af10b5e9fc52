//! What a change of rules would change, told by names.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::file::LoadedRule;

/// Names of rules, each list in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
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
                Some(old) if old.definition != rule.definition => difference.changed.push(rule.name.clone()),
                Some(_) => {}
            }
        }
        difference.added.sort();
        difference.changed.sort();
        difference.removed = gone.into_keys().map(str::to_owned).collect();
        difference
    }
}
