//! The configuration: what holds, and reading it again.
//!
//! What is secret is hidden where a configuration takes stock of itself, so that nothing here could show it. A reload takes what the files
//! say and nothing from the request: whoever asks for one changes no more than whoever wrote them.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::audit::{Change, VALUE_BYTES_MAX};
use super::extract::{Json, Query};
use super::problem::{Kind, Problem};
use crate::config::Setting;
use crate::reload::{KeyChange, ReloadError, Reloaded};
use crate::rules::RuleDifference;

/// The configuration that holds.
#[derive(Serialize, ToSchema)]
pub(super) struct EffectiveConfig {
    /// The file; null: defaults, variables and flags alone.
    config: Option<String>,
    /// Every value, in the order of the keys in config/tidegate.toml. One that waits for a restart isn't here yet.
    effective: Vec<EffectiveValue>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct EffectiveValue {
    /// As in `limits.max_packet_size`; entries of lists by their names.
    key: String,
    /// Of what was taken from outside, where from, as in `${env:NAME}`; of a secret, `(secret)`.
    #[schema(value_type = Value)]
    value: toml::Value,
    /// `FILE:LINE`, the name of a variable, a flag, or `default`.
    origin: String,
}

/// How the configuration is read again.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ReloadQuery {
    /// Only say what would change.
    #[serde(default)]
    dry_run: bool,
}

/// What a reload changed, or would change.
#[derive(Serialize, ToSchema)]
pub(super) struct ReloadOutcome {
    /// Keys of the configuration whose values differ.
    changes: Vec<ChangedKey>,
    rules: ChangedRuleNames,
    /// What is allowed but hardly meant.
    warnings: Vec<String>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct ChangedKey {
    key: String,
    /// Null: there was none.
    #[schema(value_type = Value)]
    before: Option<toml::Value>,
    /// Null: there is none.
    #[schema(value_type = Value)]
    after: Option<toml::Value>,
    /// Where the value after comes from.
    origin: Option<String>,
    /// Whether it counts only from the next start.
    needs_restart: bool,
}

/// Names of rules of files.
#[derive(Serialize, ToSchema)]
pub(super) struct ChangedRuleNames {
    added: Vec<String>,
    changed: Vec<String>,
    removed: Vec<String>,
}

impl From<&Setting> for EffectiveValue {
    fn from(setting: &Setting) -> Self {
        Self {
            key: setting.key().to_owned(),
            value: setting.value().clone(),
            origin: setting.origin().to_owned(),
        }
    }
}

impl From<Reloaded> for ReloadOutcome {
    fn from(told: Reloaded) -> Self {
        let Reloaded { changes, rules, warnings } = told;
        let changes = changes.into_iter().map(|KeyChange { change, needs_restart }| ChangedKey {
            key: change.key,
            before: change.before,
            after: change.after,
            origin: change.origin,
            needs_restart,
        });
        let RuleDifference { added, changed, removed } = rules;
        let rules = ChangedRuleNames { added, changed, removed };
        Self { changes: changes.collect(), rules, warnings }
    }
}

impl From<ReloadError> for Problem {
    fn from(error: ReloadError) -> Self {
        Self::new(Kind::Refused, "").with_errors(error.faults())
    }
}

impl ReloadOutcome {
    /// What is put on record: every key with its values and every rule, or, where that is too much, how many.
    fn on_record(&self) -> Change {
        let change = Change::of("configuration");
        let values = |of: fn(&ChangedKey) -> &Option<toml::Value>| {
            self.changes.iter().map(|changed| (changed.key.as_str(), of(changed))).collect::<BTreeMap<_, _>>()
        };
        let before = json!({ "changes": values(|changed| &changed.before) });
        let after = json!({ "changes": values(|changed| &changed.after), "rules": self.rules });
        let is_short = |value: &Value| value.to_string().len() <= VALUE_BYTES_MAX;
        if is_short(&before) && is_short(&after) {
            return change.before(before).after(after);
        }
        let ChangedRuleNames { added, changed, removed } = &self.rules;
        change.after(json!({
            "changes": self.changes.len(),
            "rules": { "added": added.len(), "changed": changed.len(), "removed": removed.len() },
        }))
    }
}

fn no_reload() -> Problem {
    Problem::new(Kind::Conflict, "this gateway can't read its configuration again")
}

/// Shows the configuration that holds, with the origin of every value; secrets are hidden.
#[utoipa::path(get, path = "/api/v1/config", operation_id = "getConfig", tag = "server",
    responses((status = 200, description = "The configuration", body = EffectiveConfig)))]
pub(super) async fn get_config(State(api): State<Arc<Api>>) -> Result<Json<EffectiveConfig>, Problem> {
    api.blocking(|api| {
        let reloader = api.gateway.reload.get().ok_or_else(no_reload)?;
        let config = reloader.path().map(|path| path.display().to_string());
        let effective = reloader.settings().iter().map(EffectiveValue::from).collect();
        Ok::<_, Problem>(Json(EffectiveConfig { config, effective }))
    })
    .await
}

/// Reads the configuration and the rules of files again, and puts all of it in place, or nothing.
#[utoipa::path(post, path = "/api/v1/reload", operation_id = "reload", tag = "server", params(ReloadQuery),
    responses((status = 200, description = "What differs", body = ReloadOutcome)))]
pub(super) async fn reload(
    State(api): State<Arc<Api>>,
    Query(ReloadQuery { dry_run }): Query<ReloadQuery>,
) -> Result<Response, Problem> {
    let told = api
        .blocking(move |api| {
            let reloader = api.gateway.reload.get().ok_or_else(no_reload)?;
            let told = if dry_run { reloader.check() } else { reloader.apply_and_log() };
            told.map_err(Problem::from)
        })
        .await?;
    let outcome = ReloadOutcome::from(told);
    let change = match dry_run {
        true => Change::of("configuration").after(json!({ "dry_run": true })),
        false => outcome.on_record(),
    };
    Ok((change, Json(outcome)).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(rules: usize) -> ReloadOutcome {
        let changes = vec![ChangedKey {
            key: "log.level".to_owned(),
            before: Some("info".into()),
            after: Some("debug".into()),
            origin: None,
            needs_restart: false,
        }];
        let added = (0..rules).map(|number| format!("rule-{number:05}")).collect();
        let rules = ChangedRuleNames { added, changed: Vec::new(), removed: vec!["r".to_owned()] };
        ReloadOutcome { changes, rules, warnings: Vec::new() }
    }

    #[test]
    fn the_record_has_every_value_or_else_how_many_there_were() {
        let few = format!("{:?}", outcome(2).on_record());
        assert!(few.contains("info") && few.contains("debug") && few.contains("rule-00001"), "{few}");
        let many = format!("{:?}", outcome(1_000).on_record());
        assert!(many.contains("Number(1000)") && !many.contains("debug"), "{many}");
    }
}
