//! Dead letters: the services of the administration socket, behind routes.

use std::sync::Arc;

use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::audit::Change;
use super::extract::{Json, Path, Query, object};
use super::paging::{cursor, limit, place};
use super::problem::{Kind, Problem};
use crate::admin::{ChangeParams, Code, ListParams, Refusal, ShowParams, Verb};

/// Which letters are wanted.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct LettersQuery {
    /// Of this rule.
    rule: Option<String>,
    /// Of this action.
    action: Option<String>,
    /// Those that died of this.
    cause: Option<String>,
    /// Those that died at this time or later, milliseconds since 1970.
    since_ms: Option<i64>,
    /// Those that died before this time.
    until_ms: Option<i64>,
    /// Most entries, 1 to 1,000; 100 where nothing is said.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// `next` of the page before.
    after: Option<String>,
}

/// A page of dead letters, by action, the oldest first.
#[derive(Serialize, ToSchema)]
pub(super) struct LetterPage {
    letters: Vec<Letter>,
    /// Where the next page begins; null: there is none.
    next: Option<String>,
}

/// A dead letter: what an action owed and could not deliver.
#[derive(Serialize, Deserialize, ToSchema)]
pub(super) struct Letter {
    /// `rule/action:position`.
    name: String,
    rule: String,
    action: String,
    /// What it died of, as in docs/dead-letters.md.
    cause: String,
    error: String,
    attempts: Option<u64>,
    /// Milliseconds since 1970, as all times here.
    received_at_ms: Option<i64>,
    first_attempt_at_ms: Option<i64>,
    ended_at_ms: Option<i64>,
    item: Option<String>,
    topic: Option<String>,
    publisher: Option<String>,
    payload_bytes: Option<u64>,
}

/// A dead letter, its message and what would have been sent.
#[derive(Serialize, ToSchema)]
pub(super) struct WholeLetter {
    letter: Letter,
    /// The message; null: it is unreadable.
    #[schema(value_type = Option<Object>)]
    message: Value,
    /// The request's parameters, without secrets.
    #[schema(value_type = Option<Vec<Object>>)]
    request: Value,
}

/// Which letters are meant: an empty one means all.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LetterChange {
    #[serde(deserialize_with = "object")]
    filter: LetterFilter,
    /// `next` of the answer before.
    #[serde(default)]
    after: Option<String>,
}

#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LetterFilter {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rule: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    action: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cause: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    since_ms: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    until_ms: Option<i64>,
}

/// What was done; it is safe on disk. While `next` isn't null there are more.
#[derive(Serialize, Deserialize, ToSchema)]
pub(super) struct LettersDone {
    done: u64,
    refused: Vec<RefusedLetter>,
    next: Option<String>,
}

#[derive(Serialize, Deserialize, ToSchema)]
pub(super) struct RefusedLetter {
    name: String,
    message: String,
}

impl LetterFilter {
    fn into_object(self) -> Map<String, Value> {
        match serde_json::to_value(self) {
            Ok(Value::Object(object)) => object,
            _ => Map::new(),
        }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let kind = match refusal.code() {
            Code::Params | Code::Malformed | Code::Version | Code::TooLong | Code::UnknownCommand => {
                Kind::Invalid
            }
            Code::Missing => Kind::Missing,
            Code::Refused => Kind::Conflict,
            Code::Store | Code::Busy | Code::Idle => Kind::Unavailable,
            Code::Read | Code::Internal | Code::Peer => Kind::Internal,
        };
        Self::new(kind, refusal.message())
    }
}

fn read<T: serde::de::DeserializeOwned>(value: Value) -> Result<T, Problem> {
    serde_json::from_value(value).map_err(|error| {
        tracing::error!(%error, "a dead letter is shown in a form that isn't expected");
        Problem::new(Kind::Internal, "the letter can't be shown")
    })
}

fn take(object: &mut Value, member: &str) -> Value {
    object.get_mut(member).map(Value::take).unwrap_or_default()
}

/// Lists dead letters.
#[utoipa::path(get, path = "/api/v1/dead-letters", operation_id = "listDeadLetters", tag = "dead letters",
    params(LettersQuery), responses((status = 200, description = "A page of letters", body = LetterPage)))]
pub(super) async fn list_letters(
    State(api): State<Arc<Api>>,
    Query(query): Query<LettersQuery>,
) -> Result<Json<LetterPage>, Problem> {
    let letters = Arc::clone(api.gateway.letters()?);
    let LettersQuery { rule, action, cause, since_ms, until_ms, .. } = query;
    let filter = LetterFilter { rule, action, cause, since_ms, until_ms }.into_object();
    let after = place(query.after.as_deref())?;
    let params = ListParams { filter, after, limit: Some(limit(query.limit)?) };
    let mut page = letters.list(params).await?;
    let next: Option<String> = read(take(&mut page, "next"))?;
    Ok(Json(LetterPage { letters: read(take(&mut page, "letters"))?, next: next.as_ref().map(cursor) }))
}

/// Where a letter is: rule, action and position.
type Place = Path<(String, String, String)>;

fn name(Path((rule, action, position)): Place) -> String {
    format!("{rule}/{action}:{position}")
}

/// Shows a dead letter.
#[utoipa::path(get, path = "/api/v1/dead-letters/{rule}/{action}/{position}", operation_id = "getDeadLetter",
    tag = "dead letters", params(("rule" = String, Path), ("action" = String, Path), ("position" = u64, Path)),
    responses((status = 200, description = "The letter", body = WholeLetter)))]
pub(super) async fn get_letter(
    State(api): State<Arc<Api>>,
    place: Place,
) -> Result<Json<WholeLetter>, Problem> {
    let letters = Arc::clone(api.gateway.letters()?);
    let mut letter = letters.show(ShowParams { name: name(place) }).await?;
    let (message, request) = (take(&mut letter, "message"), take(&mut letter, "request"));
    Ok(Json(WholeLetter { letter: read(letter)?, message, request }))
}

/// Sends a dead letter again.
#[utoipa::path(post, path = "/api/v1/dead-letters/{rule}/{action}/{position}/redrive", operation_id = "redriveDeadLetter",
    tag = "dead letters", params(("rule" = String, Path), ("action" = String, Path), ("position" = u64, Path)),
    responses((status = 200, description = "It is owed again", body = LettersDone)))]
pub(super) async fn redrive_letter(
    State(api): State<Arc<Api>>,
    place: Place,
) -> Result<(Change, Json<LettersDone>), Problem> {
    change_one(&api, Verb::Redrive, name(place)).await
}

/// Drops a dead letter.
#[utoipa::path(delete, path = "/api/v1/dead-letters/{rule}/{action}/{position}", operation_id = "dropDeadLetter",
    tag = "dead letters", params(("rule" = String, Path), ("action" = String, Path), ("position" = u64, Path)),
    responses((status = 200, description = "It is gone", body = LettersDone)))]
pub(super) async fn drop_letter(
    State(api): State<Arc<Api>>,
    place: Place,
) -> Result<(Change, Json<LettersDone>), Problem> {
    change_one(&api, Verb::Drop, name(place)).await
}

/// Sends dead letters again, a bounded number in one request: go on with `next` until it is null.
#[utoipa::path(post, path = "/api/v1/dead-letters/redrive", operation_id = "redriveDeadLetters", tag = "dead letters",
    request_body = LetterChange, responses((status = 200, description = "What was done", body = LettersDone)))]
pub(super) async fn redrive_letters(
    State(api): State<Arc<Api>>,
    Json(body): Json<LetterChange>,
) -> Result<(Change, Json<LettersDone>), Problem> {
    change_many(&api, Verb::Redrive, body).await
}

/// Drops dead letters, a bounded number in one request: go on with `next` until it is null.
#[utoipa::path(post, path = "/api/v1/dead-letters/drop", operation_id = "dropDeadLetters", tag = "dead letters",
    request_body = LetterChange, responses((status = 200, description = "What was done", body = LettersDone)))]
pub(super) async fn drop_letters(
    State(api): State<Arc<Api>>,
    Json(body): Json<LetterChange>,
) -> Result<(Change, Json<LettersDone>), Problem> {
    change_many(&api, Verb::Drop, body).await
}

async fn change_one(api: &Api, verb: Verb, name: String) -> Result<(Change, Json<LettersDone>), Problem> {
    let change = Change::of(name.clone());
    let params = ChangeParams { name: Some(name), filter: None, after: None };
    let done = api.gateway.letters()?.change_letters(verb, params).await?;
    Ok((change, Json(read(done)?)))
}

async fn change_many(
    api: &Api,
    verb: Verb,
    body: LetterChange,
) -> Result<(Change, Json<LettersDone>), Problem> {
    let filter = body.filter.into_object();
    let change = Change::of(Value::Object(filter.clone()).to_string());
    let params = ChangeParams { name: None, filter: Some(filter), after: place(body.after.as_deref())? };
    let mut done: LettersDone = read(api.gateway.letters()?.change_letters(verb, params).await?)?;
    done.next = done.next.as_ref().map(cursor);
    Ok((change.after(json!({ "done": done.done, "refused": done.refused.len() })), Json(done)))
}
