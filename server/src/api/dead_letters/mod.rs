//! Dead letters: looking at what could not be delivered, sending it again, as it was or mended, dropping it. `letters` is what is done, `view` what is shown.

mod letters;
#[cfg(test)]
pub(super) mod tests;
mod view;

use std::sync::Arc;

use actions::DropReason;
use actions::dead_letters::{Filter, LetterName, LetterNameError, Step};
use axum::extract::State;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use mqtt_protocol::topic::validate_topic_name;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::audit::Change;
use super::extract::{Json, OptionalJson, Path, Query, object, object_or_null};
use super::paging::{cursor, limit, place};
use super::problem::{Kind, Problem};
use letters::{Meant, Mended, Verb};
use view::{Letter, WholeLetter};

pub(super) use letters::Letters;

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
    /// How many the rule and the action have that are wanted, all of them where none is named; null: a cause or a time is wanted, too, and
    /// nobody has counted.
    total: Option<u64>,
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
#[derive(Serialize, ToSchema)]
pub(super) struct LettersDone {
    done: u64,
    refused: Vec<RefusedLetter>,
    next: Option<String>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct RefusedLetter {
    name: String,
    message: String,
}

impl LetterFilter {
    fn read(self) -> Result<Filter, Problem> {
        let Self { rule, action, cause, since_ms, until_ms } = self;
        let cause = cause.map(|cause| read_cause(&cause)).transpose()?;
        Ok(Filter { rule, action, cause, since_ms, until_ms })
    }
}

fn read_cause(text: &str) -> Result<DropReason, Problem> {
    DropReason::ALL.into_iter().find(|reason| reason.as_str() == text).ok_or_else(|| {
        let all: Vec<_> = DropReason::ALL.iter().map(|reason| reason.as_str()).collect();
        Problem::new(Kind::Invalid, format!("cause: expected one of {}", all.join(", ")))
    })
}

fn read_name(text: &str) -> Result<LetterName, Problem> {
    text.parse().map_err(|error: LetterNameError| Problem::new(Kind::Invalid, error.to_string()))
}

/// The letter behind which a list, or a change, goes on.
fn behind(after: Option<&str>) -> Result<Option<LetterName>, Problem> {
    place::<String>(after)?.as_deref().map(read_name).transpose()
}

fn cursor_of(next: Option<&LetterName>) -> Option<String> {
    next.map(|name| cursor(&name.to_string()))
}

impl From<Step> for LettersDone {
    fn from(step: Step) -> Self {
        let refused =
            step.refused.into_iter().map(|(name, message)| RefusedLetter { name: name.to_string(), message });
        Self { done: step.done, refused: refused.collect(), next: cursor_of(step.next.as_ref()) }
    }
}

/// Lists dead letters.
#[utoipa::path(get, path = "/api/v1/dead-letters", operation_id = "listDeadLetters", tag = "dead letters",
    params(LettersQuery), responses((status = 200, description = "A page of letters", body = LetterPage)))]
pub(super) async fn list_letters(
    State(api): State<Arc<Api>>,
    Query(query): Query<LettersQuery>,
) -> Result<Json<LetterPage>, Problem> {
    let LettersQuery { rule, action, cause, since_ms, until_ms, .. } = query;
    let filter = LetterFilter { rule, action, cause, since_ms, until_ms }.read()?;
    let (after, limit) = (behind(query.after.as_deref())?, limit(query.limit)?);
    api.blocking(move |api| {
        let kept = api.gateway.letters()?;
        let (letters, next) = kept.list(&filter, after.as_ref(), limit)?;
        Ok::<_, Problem>(Json(LetterPage {
            letters,
            next: cursor_of(next.as_ref()),
            total: kept.count(&filter),
        }))
    })
    .await
}

/// Where a letter is: rule, action and position.
type Place = Path<(String, String, String)>;

fn name(Path((rule, action, position)): Place) -> Result<LetterName, Problem> {
    read_name(&format!("{rule}/{action}:{position}"))
}

/// Shows a dead letter.
#[utoipa::path(get, path = "/api/v1/dead-letters/{rule}/{action}/{position}", operation_id = "getDeadLetter",
    tag = "dead letters", params(("rule" = String, Path), ("action" = String, Path), ("position" = u64, Path)),
    responses((status = 200, description = "The letter", body = WholeLetter)))]
pub(super) async fn get_letter(
    State(api): State<Arc<Api>>,
    place: Place,
) -> Result<Json<WholeLetter>, Problem> {
    let name = name(place)?;
    api.blocking(move |api| api.gateway.letters()?.show(&name).map(Json)).await
}

/// How a letter is sent again.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LetterAgain {
    /// The message as it should have been; absent: the request is sent as it was.
    #[serde(default, deserialize_with = "object_or_null")]
    message: Option<MendedMessage>,
}

/// A message that somebody has mended. What isn't given stays as it was.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct MendedMessage {
    /// As text.
    #[serde(default)]
    payload: Option<String>,
    /// In base64, where it is no text.
    #[serde(default)]
    payload_base64: Option<String>,
    #[serde(default)]
    topic: Option<String>,
}

impl MendedMessage {
    fn read(self) -> Result<Mended, Problem> {
        let Self { payload, payload_base64, topic } = self;
        let payload =
            match (payload, payload_base64) {
                (Some(text), None) => Some(text.into_bytes()),
                (None, Some(base64)) => Some(BASE64_STANDARD.decode(base64).map_err(|error| {
                    Problem::new(Kind::Invalid, format!("message.payload_base64: {error}"))
                })?),
                (None, None) => None,
                (Some(_), Some(_)) => {
                    let detail = "message: expected payload or payload_base64, given both";
                    return Err(Problem::new(Kind::Invalid, detail));
                }
            };
        if let Some(topic) = &topic
            && let Err(error) = validate_topic_name(topic)
        {
            return Err(Problem::new(Kind::Invalid, format!("message.topic: {error}")));
        }
        Ok(Mended { payload, topic })
    }
}

/// Sends a dead letter again; or, where a message is given, what its rule makes of that now. Then the rule has to match it, and the letter
/// is gone when the request is owed, not before.
#[utoipa::path(post, path = "/api/v1/dead-letters/{rule}/{action}/{position}/redrive", operation_id = "redriveDeadLetter",
    tag = "dead letters", params(("rule" = String, Path), ("action" = String, Path), ("position" = u64, Path)),
    request_body = Option<LetterAgain>, responses((status = 200, description = "It is owed again", body = LettersDone)))]
pub(super) async fn redrive_letter(
    State(api): State<Arc<Api>>,
    place: Place,
    OptionalJson(body): OptionalJson<LetterAgain>,
) -> Result<(Change, Json<LettersDone>), Problem> {
    let name = name(place)?;
    let Some(message) = body.unwrap_or_default().message else {
        return change_one(&api, Verb::Redrive, name).await;
    };
    let mended = message.read()?;
    // A record of changes holds no payloads.
    let record = Change::of(name.to_string()).after(json!({ "mended": true }));
    let token = api
        .blocking(move |api| {
            let gateway = &api.gateway;
            gateway.letters()?.redrive_mended(&name, mended, gateway.broker.new_message_id(), gateway.rules())
        })
        .await?;
    api.gateway.letters()?.safe(token).await?;
    Ok((record, Json(LettersDone { done: 1, refused: Vec::new(), next: None })))
}

/// Drops a dead letter.
#[utoipa::path(delete, path = "/api/v1/dead-letters/{rule}/{action}/{position}", operation_id = "dropDeadLetter",
    tag = "dead letters", params(("rule" = String, Path), ("action" = String, Path), ("position" = u64, Path)),
    responses((status = 200, description = "It is gone", body = LettersDone)))]
pub(super) async fn drop_letter(
    State(api): State<Arc<Api>>,
    place: Place,
) -> Result<(Change, Json<LettersDone>), Problem> {
    change_one(&api, Verb::Drop, name(place)?).await
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

async fn change_one(
    api: &Arc<Api>,
    verb: Verb,
    name: LetterName,
) -> Result<(Change, Json<LettersDone>), Problem> {
    let record = Change::of(name.to_string());
    Ok((record, Json(change(api, verb, Meant::Named(name)).await?)))
}

async fn change_many(
    api: &Arc<Api>,
    verb: Verb,
    body: LetterChange,
) -> Result<(Change, Json<LettersDone>), Problem> {
    let record = Change::of(json!(body.filter).to_string());
    let meant = Meant::Of(body.filter.read()?, behind(body.after.as_deref())?);
    let done = change(api, verb, meant).await?;
    Ok((record.after(json!({ "done": done.done, "refused": done.refused.len() })), Json(done)))
}

/// Changes letters. What is answered is safe on disk.
async fn change(api: &Arc<Api>, verb: Verb, meant: Meant) -> Result<LettersDone, Problem> {
    let step = api.blocking(move |api| api.gateway.letters()?.step(verb, &meant)).await?;
    api.gateway.letters()?.safe(step.token).await?;
    Ok(step.into())
}
