//! Changing rules: what the rule book does, behind routes.
//!
//! A rule of a file can only be suspended here. A rule of the store has versions; its version is the ETag, and a change may ask for it
//! by `If-Match`, so that of two people who edit one rule the second is told.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::response::{AppendHeaders, IntoResponse as _, Response};
use hyper::HeaderMap;
use hyper::header::{CONTENT_TYPE, ETAG, HeaderName, HeaderValue, IF_MATCH, IF_NONE_MATCH};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::audit::Change;
use super::auth::Caller;
use super::extract::{Json, Path, Query, RulesJson};
use super::problem::{Kind, Problem};
use crate::reload::Fault;
use crate::rules::{
    BookError, Changed, Expected, MemberChange, Prune, RuleBook, RuleChange, Version, member_changes,
};

/// How a change is made.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ChangeQuery {
    /// Only say what it would come to.
    #[serde(default)]
    dry_run: bool,
}

/// What a change came to, or would come to.
#[derive(Serialize, ToSchema)]
pub(super) struct RulesChanged {
    /// One for each rule that differs: none, where everything is so already.
    rules: Vec<ChangedRule>,
    /// What is allowed in them but hardly meant.
    warnings: Vec<String>,
}

/// What differs about one rule.
#[derive(Serialize, ToSchema)]
pub(super) struct ChangedRule {
    name: String,
    /// `added`, `changed`, `removed`, `suspended` or `resumed`.
    change: &'static str,
    /// The version that this makes; null: rules of files have none.
    version: Option<u32>,
    members: Vec<ChangedMember>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct ChangedMember {
    /// As in `sql` or `actions.alarm.topic`.
    member: String,
    /// Null: there was none.
    #[schema(value_type = Value)]
    before: Option<Value>,
    /// Null: there is none.
    #[schema(value_type = Value)]
    after: Option<Value>,
}

/// The versions of a rule that are kept, the oldest first.
#[derive(Serialize, ToSchema)]
pub(super) struct RuleVersions {
    versions: Vec<RuleVersion>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct RuleVersion {
    number: u32,
    /// Milliseconds since 1970.
    at_ms: i64,
    author: String,
    /// What the rule said; null: it was gone from then on.
    #[schema(value_type = Option<Object>)]
    definition: Option<Value>,
    /// What it says otherwise than the one before; null: that one isn't kept any more.
    members: Option<Vec<ChangedMember>>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RollBack {
    /// Number of the version to go back to.
    #[schema(value_type = i64, minimum = 0, maximum = 4294967295_i64)]
    version: u32,
}

/// The rules that the store is to have.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ApplyRules {
    /// Definitions by names: each as the keys of `[rules.<name>]` in a rule file.
    #[schema(value_type = BTreeMap<String, Object>)]
    rules: BTreeMap<String, Value>,
    /// Whether every other rule of the store is removed.
    #[serde(default)]
    prune: bool,
}

impl From<MemberChange> for ChangedMember {
    fn from(MemberChange { member, before, after }: MemberChange) -> Self {
        Self { member, before, after }
    }
}

impl From<Changed> for RulesChanged {
    fn from(changed: Changed) -> Self {
        let rules = changed.rules.into_iter().map(|delta| ChangedRule {
            name: delta.rule,
            change: delta.change,
            version: delta.version,
            members: delta.members.into_iter().map(ChangedMember::from).collect(),
        });
        Self { rules: rules.collect(), warnings: changed.warnings }
    }
}

impl From<BookError> for Problem {
    fn from(error: BookError) -> Self {
        let kind = match &error {
            BookError::Unknown { .. } | BookError::NoVersion { .. } | BookError::NoAction { .. } => {
                Kind::Missing
            }
            BookError::Changed { .. } | BookError::Exists { .. } => Kind::Precondition,
            BookError::Refused(_) => Kind::Invalid,
            BookError::Journal { .. } | BookError::Damaged { .. } => {
                tracing::error!(error = crate::cli::chain(&error), "rules can't be kept");
                return Self::new(Kind::Internal, error.to_string());
            }
            BookError::OfFile { .. }
            | BookError::OfStore { .. }
            | BookError::Twice { .. }
            | BookError::NoQueue { .. }
            | BookError::Pipeline(_)
            | BookError::TooMany { .. } => Kind::Conflict,
        };
        match &error {
            BookError::Refused(faults) => {
                Self::new(kind, "").with_errors(faults.iter().map(Fault::from).collect())
            }
            other => Self::new(kind, crate::cli::chain(other)),
        }
    }
}

/// What `If-Match` and `If-None-Match` ask for.
fn expected(headers: &HeaderMap) -> Result<Expected, Problem> {
    let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    match (text(IF_MATCH), text(IF_NONE_MATCH)) {
        (None, None) => Ok(Expected::Any),
        (None, Some("*")) => Ok(Expected::Absent),
        (Some(tag), None) => {
            let number = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"'));
            let number = number.and_then(|number| number.parse().ok());
            number.map(Expected::Version).ok_or_else(|| {
                Problem::new(Kind::Invalid, "If-Match: expected the ETag of the rule, as in \"3\"")
            })
        }
        _ => Err(Problem::new(Kind::Invalid, "expected an If-Match with an ETag, or If-None-Match: *")),
    }
}

/// The ETag of a version.
pub(super) fn etag(version: Option<u32>) -> AppendHeaders<Option<(HeaderName, HeaderValue)>> {
    let tag = version.and_then(|version| HeaderValue::from_str(&format!("\"{version}\"")).ok());
    AppendHeaders(tag.map(|tag| (ETAG, tag)))
}

/// Makes changes, or says what they would come to.
async fn change(
    api: &Arc<Api>,
    target: String,
    author: String,
    dry_run: bool,
    work: impl FnOnce(&RuleBook, &str) -> Result<Changed, BookError> + Send + 'static,
) -> Result<Response, Problem> {
    let changed = api
        .blocking(move |api| {
            let changed = RulesChanged::from(work(&api.gateway.book, &author)?);
            let removed = changed.rules.iter().filter(|rule| !dry_run && rule.change == "removed");
            removed.for_each(|rule| api.cases.rule_is_gone(&rule.name));
            Ok::<_, BookError>(changed)
        })
        .await?;
    let tag = etag(changed.rules.first().and_then(|rule| rule.version).filter(|_| changed.rules.len() == 1));
    let on_record = if dry_run {
        json!({ "dry_run": true })
    } else {
        // What a definition says may be long, or secret: the versions have it.
        let rules = changed.rules.iter().map(|rule| {
            json!({ "name": rule.name, "change": rule.change, "version": rule.version,
                    "members": rule.members.iter().map(|member| &member.member).collect::<Vec<_>>() })
        });
        json!({ "rules": rules.collect::<Value>() })
    };
    Ok((tag, Change::of(target).after(on_record), Json(changed)).into_response())
}

/// Runs changes of the book, dry or not.
fn book_change(
    changes: Vec<RuleChange>,
    dry_run: bool,
) -> impl FnOnce(&RuleBook, &str) -> Result<Changed, BookError> {
    move |book, author| match dry_run {
        true => book.try_change(&changes, author),
        false => book.change(&changes, author),
    }
}

/// Makes a rule of the store, or has it say something else.
#[utoipa::path(put, path = "/api/v1/rules/{name}", operation_id = "putRule", tag = "rules",
    params(("name" = String, Path, description = "Name of the rule", pattern = "^[A-Za-z0-9_-]{1,64}$"), ChangeQuery,
        ("If-Match" = Option<String>, Header, description = "ETag of the version that is to be replaced"),
        ("If-None-Match" = Option<String>, Header, description = "`*`: no rule of the name is to be there")),
    request_body(content = Object, description = "The keys of `[rules.<name>]` in a rule file"),
    responses((status = 200, description = "What it comes to", body = RulesChanged)))]
pub(super) async fn put_rule(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    Query(query): Query<ChangeQuery>,
    headers: HeaderMap,
    Json(definition): Json<Map<String, Value>>,
) -> Result<Response, Problem> {
    let expected = expected(&headers)?;
    let put = RuleChange::Put { name: name.clone(), definition: Value::Object(definition), expected };
    change(&api, name, caller.name, query.dry_run, book_change(vec![put], query.dry_run)).await
}

/// Removes a rule of the store; its versions stay for a while.
#[utoipa::path(delete, path = "/api/v1/rules/{name}", operation_id = "removeRule", tag = "rules",
    params(("name" = String, Path, description = "Name of the rule", pattern = "^[A-Za-z0-9_-]{1,64}$"), ChangeQuery,
        ("If-Match" = Option<String>, Header, description = "ETag of the version that is to be removed")),
    responses((status = 200, description = "What it comes to", body = RulesChanged)))]
pub(super) async fn remove_rule(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    Query(query): Query<ChangeQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let expected = expected(&headers)?;
    let remove = RuleChange::Remove { name: name.clone(), expected };
    change(&api, name, caller.name, query.dry_run, book_change(vec![remove], query.dry_run)).await
}

/// Has a rule of a file run no more, whatever its file says, until it is resumed.
#[utoipa::path(post, path = "/api/v1/rules/{name}/suspend", operation_id = "suspendRule", tag = "rules",
    params(("name" = String, Path, description = "Name of the rule", pattern = "^[A-Za-z0-9_-]{1,64}$")),
    responses((status = 200, description = "What it comes to", body = RulesChanged)))]
pub(super) async fn suspend_rule(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    let suspend = RuleChange::Suspend { name: name.clone() };
    change(&api, name, caller.name, false, book_change(vec![suspend], false)).await
}

/// Has a suspended rule run again, if its file says so.
#[utoipa::path(post, path = "/api/v1/rules/{name}/resume", operation_id = "resumeRule", tag = "rules",
    params(("name" = String, Path, description = "Name of the rule", pattern = "^[A-Za-z0-9_-]{1,64}$")),
    responses((status = 200, description = "What it comes to", body = RulesChanged)))]
pub(super) async fn resume_rule(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    let resume = RuleChange::Resume { name: name.clone() };
    change(&api, name, caller.name, false, book_change(vec![resume], false)).await
}

/// Switches a rule of the store on, which makes a version.
#[utoipa::path(post, path = "/api/v1/rules/{name}/enable", operation_id = "enableRule", tag = "rules",
    params(("name" = String, Path, description = "Name of the rule", pattern = "^[A-Za-z0-9_-]{1,64}$")),
    responses((status = 200, description = "What it comes to", body = RulesChanged)))]
pub(super) async fn enable_rule(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    let target = name.clone();
    let work = move |book: &RuleBook, author: &str| book.set_enabled(&name, true, author);
    change(&api, target, caller.name, false, work).await
}

/// Switches a rule of the store off, which makes a version. It still pays what it owes.
#[utoipa::path(post, path = "/api/v1/rules/{name}/disable", operation_id = "disableRule", tag = "rules",
    params(("name" = String, Path, description = "Name of the rule", pattern = "^[A-Za-z0-9_-]{1,64}$")),
    responses((status = 200, description = "What it comes to", body = RulesChanged)))]
pub(super) async fn disable_rule(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    let target = name.clone();
    let work = move |book: &RuleBook, author: &str| book.set_enabled(&name, false, author);
    change(&api, target, caller.name, false, work).await
}

/// Shows the versions of a rule of the store, of one that is gone too.
#[utoipa::path(get, path = "/api/v1/rules/{name}/versions", operation_id = "listRuleVersions", tag = "rules",
    params(("name" = String, Path, description = "Name of the rule", pattern = "^[A-Za-z0-9_-]{1,64}$")),
    responses((status = 200, description = "The versions", body = RuleVersions)))]
pub(super) async fn list_versions(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
) -> Result<Json<RuleVersions>, Problem> {
    let versions = api.blocking(move |api| api.gateway.book.versions(&name)).await?;
    let mut before: Option<&Version> = None;
    let mut shown = Vec::with_capacity(versions.len());
    for version in &versions {
        // What was before the first one that is kept isn't known.
        let is_known = before.is_some() || version.number == 1;
        let old = before.and_then(|before| before.definition.as_ref());
        let changes = is_known.then(|| member_changes(old, version.definition.as_ref()));
        shown.push(RuleVersion {
            number: version.number,
            at_ms: version.at_ms,
            author: version.author.clone(),
            definition: version.definition.clone(),
            members: changes.map(|changes| changes.into_iter().map(ChangedMember::from).collect()),
        });
        before = Some(version);
    }
    Ok(Json(RuleVersions { versions: shown }))
}

/// Has a rule say again what it said in an earlier version, which makes a new one; brings back one that is gone.
#[utoipa::path(post, path = "/api/v1/rules/{name}/roll-back", operation_id = "rollBackRule", tag = "rules",
    params(("name" = String, Path, description = "Name of the rule", pattern = "^[A-Za-z0-9_-]{1,64}$")), request_body = RollBack,
    responses((status = 200, description = "What it comes to", body = RulesChanged)))]
pub(super) async fn roll_back_rule(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    Json(body): Json<RollBack>,
) -> Result<Response, Problem> {
    let target = name.clone();
    let work = move |book: &RuleBook, author: &str| book.roll_back(&name, body.version, author);
    change(&api, target, caller.name, false, work).await
}

/// Makes the rules of the store these, all or none.
#[utoipa::path(post, path = "/api/v1/rules/apply", operation_id = "applyRules", tag = "rules", params(ChangeQuery),
    request_body = ApplyRules, responses((status = 200, description = "What it comes to", body = RulesChanged)))]
pub(super) async fn apply_rules(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Query(query): Query<ChangeQuery>,
    RulesJson(body): RulesJson<ApplyRules>,
) -> Result<Response, Problem> {
    let prune = if body.prune { Prune::Others } else { Prune::Nothing };
    let work = move |book: &RuleBook, author: &str| {
        book_change(book.changes_to(&body.rules, prune), query.dry_run)(book, author)
    };
    change(&api, "rules of the store".to_owned(), caller.name, query.dry_run, work).await
}

/// Returns the rules of the store as a rule file.
#[utoipa::path(get, path = "/api/v1/export/rules", operation_id = "exportRules", tag = "rules",
    responses((status = 200, description = "The rule file", content_type = "application/toml", body = String)))]
pub(super) async fn export_rules(State(api): State<Arc<Api>>) -> Result<Response, Problem> {
    let text = api
        .blocking(|api| {
            api.gateway.book.export().map_err(|error| {
                tracing::error!(%error, "the rules of the store can't be exported");
                Problem::new(Kind::Internal, "the rules can't be written as TOML")
            })
        })
        .await?;
    Ok(([(CONTENT_TYPE, HeaderValue::from_static("application/toml"))], text).into_response())
}
