//! Dead letters: looking at what could not be delivered, sending it again, dropping it. `letters` is what is done, `view` what is shown.

mod letters;
#[cfg(test)]
pub(super) mod tests;
mod view;

use std::sync::Arc;

use actions::DropReason;
use actions::dead_letters::{Filter, LetterName, LetterNameError, Step};
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::audit::Change;
use super::extract::{Json, Path, Query, object};
use super::paging::{cursor, limit, place};
use super::problem::{Kind, Problem};
use letters::{Meant, Verb};
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
        let (letters, next) = api.gateway.letters()?.list(&filter, after.as_ref(), limit)?;
        Ok::<_, Problem>(Json(LetterPage { letters, next: cursor_of(next.as_ref()) }))
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

/// Sends a dead letter again.
#[utoipa::path(post, path = "/api/v1/dead-letters/{rule}/{action}/{position}/redrive", operation_id = "redriveDeadLetter",
    tag = "dead letters", params(("rule" = String, Path), ("action" = String, Path), ("position" = u64, Path)),
    responses((status = 200, description = "It is owed again", body = LettersDone)))]
pub(super) async fn redrive_letter(
    State(api): State<Arc<Api>>,
    place: Place,
) -> Result<(Change, Json<LettersDone>), Problem> {
    change_one(&api, Verb::Redrive, name(place)?).await
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
