//! The commands about rules: which there are, who owns them, and changes of those that the store owns.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use super::Services;
use super::protocol::{Code, Refusal};
use super::socket::Peer;
use crate::rules::{
    BookError, Changed, Expected, Prune, RuleBook, RuleChange, RuleEntry, Version, member_changes,
};

/// Most rules in one answer; their definitions aren't among it.
const RULES_MAX: usize = 1_000;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ListParams {
    /// Rules behind this one.
    after: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NameParams {
    name: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ApplyParams {
    /// What each rule is to say.
    rules: BTreeMap<String, Value>,
    /// Whether every other rule of the store goes.
    #[serde(default)]
    prune: bool,
    /// Change nothing.
    #[serde(default)]
    dry_run: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RollbackParams {
    name: String,
    version: u32,
}

/// What is done to one rule.
#[derive(Debug, Clone, Copy)]
pub(super) enum Deed {
    Suspend,
    Resume,
    Enable,
    Disable,
    Remove,
}

impl Services {
    fn book(&self) -> Result<&RuleBook, Refusal> {
        self.book.as_ref().ok_or_else(|| Refusal::new(Code::Refused, "this gateway's rules can't be changed"))
    }

    pub(super) fn list_rules(&self, params: &ListParams) -> Result<Value, Refusal> {
        let (rules, next) = self.book()?.list(params.after.as_deref(), RULES_MAX);
        let rules: Vec<Value> = rules.iter().map(without_definition).collect();
        Ok(json!({ "rules": rules, "next": next }))
    }

    pub(super) fn show_rule(&self, params: &NameParams) -> Result<Value, Refusal> {
        let unknown = || BookError::Unknown { rule: params.name.clone() };
        Ok(json!(self.book()?.rule(&params.name).ok_or_else(unknown)?))
    }

    pub(super) fn apply_rules(&self, params: &ApplyParams, peer: Peer) -> Result<Value, Refusal> {
        let book = self.book()?;
        let prune = if params.prune { Prune::Others } else { Prune::Nothing };
        let changes = book.changes_to(&params.rules, prune);
        let author = peer.to_string();
        let changed = match params.dry_run {
            true => book.try_change(&changes, &author),
            false => book.change(&changes, &author),
        };
        Ok(json!(changed?))
    }

    pub(super) fn change_rule(&self, params: NameParams, deed: Deed, peer: Peer) -> Result<Value, Refusal> {
        let (book, name, author) = (self.book()?, params.name, peer.to_string());
        let change = |change| book.change(&[change], &author);
        let changed: Result<Changed, BookError> = match deed {
            Deed::Suspend => change(RuleChange::Suspend { name }),
            Deed::Resume => change(RuleChange::Resume { name }),
            Deed::Enable => book.set_enabled(&name, true, &author),
            Deed::Disable => book.set_enabled(&name, false, &author),
            Deed::Remove => change(RuleChange::Remove { name, expected: Expected::Any }),
        };
        Ok(json!(changed?))
    }

    pub(super) fn rule_versions(&self, params: &NameParams) -> Result<Value, Refusal> {
        let versions = self.book()?.versions(&params.name)?;
        let mut before: Option<&Version> = None;
        let mut shown = Vec::new();
        for version in &versions {
            // What was before the first one that is kept isn't known.
            let is_known = before.is_some() || version.number == 1;
            let old = before.and_then(|before| before.definition.as_ref());
            let members = is_known.then(|| member_changes(old, version.definition.as_ref()));
            shown.push(json!({
                "number": version.number,
                "at_ms": version.at_ms,
                "author": version.author,
                "definition": version.definition,
                "members": members,
            }));
            before = Some(version);
        }
        Ok(json!({ "versions": shown }))
    }

    pub(super) fn roll_rule_back(&self, params: &RollbackParams, peer: Peer) -> Result<Value, Refusal> {
        Ok(json!(self.book()?.roll_back(&params.name, params.version, &peer.to_string())?))
    }

    pub(super) fn export_rules(&self) -> Result<Value, Refusal> {
        let text = self.book()?.export().map_err(|error| Refusal::new(Code::Internal, error.to_string()))?;
        Ok(json!({ "toml": text }))
    }
}

fn without_definition(entry: &RuleEntry) -> Value {
    let mut shown = json!(entry);
    if let Some(shown) = shown.as_object_mut() {
        shown.remove("definition");
    }
    shown
}

impl From<BookError> for Refusal {
    fn from(error: BookError) -> Self {
        let code = match &error {
            BookError::Unknown { .. } | BookError::NoVersion { .. } => Code::Missing,
            BookError::Journal { .. } => Code::Store,
            _ => Code::Refused,
        };
        Self::new(code, error.faults().join("\n"))
    }
}
