//! Actions: how each does, and what an operator does to their queues.
//!
//! A pause is kept by the rule book and outlives restarts. To drain and to purge concern what waits at that moment. A purge can't be
//! taken back, so its body names the action once more.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::timeout;
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::audit::Change;
use super::auth::{Caller, now_ms};
use super::extract::{Json, Path, Query};
use super::paging::{cursor, limit, place};
use super::problem::{Kind, Problem};
use super::rules::SuspensionInfo;
use crate::rules::{ActionEntry, ActionState, BookError, ERROR_ACTION, Suspension};
use actions::{DropReason, Snapshot};

/// How long an answer waits for a purge to be safe on disk.
pub const PURGE_WAIT_MAX: Duration = Duration::from_secs(30);

/// Which actions are wanted.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ActionsQuery {
    /// Of this rule.
    rule: Option<String>,
    /// Those that name this connector.
    connector: Option<String>,
    /// Those that are like this.
    state: Option<ActionState>,
    /// Most entries, 1 to 1,000; 100 where nothing is said.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// `next` of the page before.
    after: Option<String>,
}

/// A page of actions, by rule and name.
#[derive(Serialize, ToSchema)]
pub(super) struct ActionPage {
    actions: Vec<ActionInfo>,
    /// Where the next page begins; null: there is none.
    next: Option<String>,
}

/// An action of a rule, or what is left of one.
#[derive(Serialize, ToSchema)]
#[schema(as = Action)]
pub(super) struct ActionInfo {
    rule: String,
    name: String,
    /// Its `type`; null: the action is gone, and what it owes is still being sent.
    kind: Option<&'static str>,
    /// Whether it is the rule's error action.
    is_error_action: bool,
    /// What it acts upon: a topic, a connector, or the origin of a URL.
    resource: Option<String>,
    /// The connector that it names.
    connector: Option<String>,
    state: ActionState,
    /// Why it isn't running, in words; null: it is, or nothing is to be said.
    cause: Option<String>,
    /// Who paused it; null: nobody has.
    paused: Option<SuspensionInfo>,
    /// Its queue; null: nothing sends from one just now, or it has none.
    queue: Option<QueueInfo>,
    /// What became of requests since the rule was first loaded, or the queue began; null: neither is there.
    outcomes: Option<OutcomeInfo>,
    /// The last attempt that failed since the queue began; null: none has.
    last_error: Option<ActionError>,
    /// When the far side confirmed a request last, milliseconds since 1970; null: it hasn't since the queue began.
    last_delivered_at_ms: Option<i64>,
}

/// What waits.
#[derive(Serialize, ToSchema)]
#[schema(as = ActionQueue)]
pub(super) struct QueueInfo {
    /// Whether it outlives the process.
    is_durable: bool,
    /// Requests that wait.
    queued: u64,
    /// Requests that are being sent.
    in_flight: u64,
    /// Bytes of those in memory.
    memory_bytes: u64,
    /// Bytes that it takes on disk; null: it is in memory alone.
    disk_bytes: Option<u64>,
    /// Age of the request that has waited longest, as far as it has been read from disk.
    oldest_age_ms: Option<u64>,
    /// How long until something is tried again; null: nothing waits for a time.
    next_attempt_in_ms: Option<u64>,
    /// Failures since the last success.
    failures_in_a_row: u32,
}

/// What became of requests.
#[derive(Serialize, ToSchema)]
#[schema(as = ActionOutcomes)]
pub(super) struct OutcomeInfo {
    /// Requests that the queue found on disk when it began.
    queued_at_start: u64,
    /// Requests since; of a republish, those handed to the broker.
    received: u64,
    /// Requests that the far side confirmed; null: a republish is as safe as its message.
    delivered: Option<u64>,
    /// Times that a request was sent.
    attempts: u64,
    /// Those of them after the request's first.
    retried: u64,
    /// Requests that became dead letters, by reason.
    dead_lettered: BTreeMap<&'static str, u64>,
    /// Requests that were dropped, by reason.
    dropped: BTreeMap<&'static str, u64>,
    /// Messages for which no request could be made.
    failed_render: u64,
    /// Messages that were refused because the queue was full.
    backpressure: u64,
}

/// An attempt that failed.
#[derive(Serialize, ToSchema)]
pub(super) struct ActionError {
    pub(super) error: String,
    /// Milliseconds since 1970.
    pub(super) at_ms: i64,
}

/// What came of a change.
#[derive(Serialize, ToSchema)]
pub(super) struct ActionChanged {
    /// Whether it was otherwise before.
    changed: bool,
    /// How it is; null: the action is gone, and what it owed has been sent.
    action: Option<ActionInfo>,
}

/// Requests that are tried at once.
#[derive(Serialize, ToSchema)]
pub(super) struct ActionDrained {
    /// How many waited.
    items: u64,
}

/// How a purge is made.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct PurgeQuery {
    /// Only say how many requests it would drop.
    #[serde(default)]
    dry_run: bool,
}

/// That a purge is meant.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PurgeWish {
    /// The action once more, as `rule/action`; without it only a dry run is made.
    #[serde(default)]
    confirm: Option<String>,
}

/// What a purge drops.
#[derive(Serialize, ToSchema)]
pub(super) struct ActionPurged {
    /// How many requests waited.
    items: u64,
    /// Whether they are gone, from the disk too. False: it takes longer, or was a dry run.
    is_done: bool,
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// When that was, milliseconds since 1970.
pub(super) fn ago(age: Duration) -> i64 {
    now_ms().saturating_sub(i64::try_from(age.as_millis()).unwrap_or(i64::MAX))
}

fn by_reason(counts: &[(DropReason, u64)]) -> BTreeMap<&'static str, u64> {
    let counted = counts.iter().filter(|(_, count)| *count > 0);
    counted.map(|(reason, count)| (reason.as_str(), *count)).collect()
}

impl QueueInfo {
    fn of(snapshot: &Snapshot, disk_bytes: Option<u64>) -> Self {
        Self {
            is_durable: disk_bytes.is_some(),
            queued: snapshot.queued,
            in_flight: snapshot.in_flight,
            memory_bytes: snapshot.bytes,
            disk_bytes,
            oldest_age_ms: snapshot.oldest_age.map(millis),
            next_attempt_in_ms: snapshot.next_attempt.map(millis),
            failures_in_a_row: snapshot.health.failures_in_a_row,
        }
    }
}

impl OutcomeInfo {
    fn of(entry: &ActionEntry) -> Option<Self> {
        let (stats, delivery) = (entry.stats.as_ref(), entry.delivery.as_ref());
        if stats.is_none() && delivery.is_none() {
            return None;
        }
        let of_stats = |count: fn(&crate::rules::ActionStats) -> u64| stats.map_or(0, count);
        Some(Self {
            queued_at_start: delivery.map_or(0, |delivery| delivery.queued_at_start),
            received: delivery.map_or_else(|| of_stats(|stats| stats.requests), |delivery| delivery.received),
            delivered: delivery.map(|delivery| delivery.delivered),
            attempts: delivery.map_or(0, |delivery| delivery.attempts),
            retried: delivery.map_or(0, |delivery| delivery.retried),
            dead_lettered: delivery.map(|delivery| by_reason(&delivery.dead_lettered)).unwrap_or_default(),
            dropped: delivery.map(|delivery| by_reason(&delivery.dropped)).unwrap_or_default(),
            failed_render: of_stats(|stats| stats.failed_render),
            backpressure: of_stats(|stats| stats.backpressure),
        })
    }
}

impl From<ActionEntry> for ActionInfo {
    fn from(entry: ActionEntry) -> Self {
        let delivery = entry.delivery.as_ref();
        let failure = delivery.and_then(|delivery| delivery.health.cause.clone());
        let cause = match entry.state {
            ActionState::Waiting | ActionState::Refused => failure,
            ActionState::Paused => entry.paused.as_ref().map(|pause| format!("paused by {}", pause.by)),
            ActionState::Draining if entry.kind.is_none() => Some("the action is gone".to_owned()),
            ActionState::Draining | ActionState::Stopped => Some("its rule doesn't run".to_owned()),
            ActionState::Running => None,
        };
        let last_error = delivery.and_then(|delivery| delivery.last_error.as_ref());
        Self {
            cause,
            queue: delivery.map(|delivery| QueueInfo::of(delivery, entry.disk_bytes)),
            outcomes: OutcomeInfo::of(&entry),
            last_error: last_error
                .map(|last| ActionError { error: last.error.clone(), at_ms: ago(last.age) }),
            last_delivered_at_ms: delivery.and_then(|delivery| delivery.last_delivered).map(ago),
            is_error_action: entry.name == ERROR_ACTION,
            paused: entry.paused.map(|Suspension { by, at_ms }| SuspensionInfo { by, at_ms }),
            rule: entry.rule,
            name: entry.name,
            kind: entry.kind,
            resource: entry.resource,
            connector: entry.connector,
            state: entry.state,
        }
    }
}

/// Lists actions.
#[utoipa::path(get, path = "/api/v1/actions", operation_id = "listActions", tag = "actions", params(ActionsQuery),
    responses((status = 200, description = "A page of actions", body = ActionPage)))]
pub(super) async fn list_actions(
    State(api): State<Arc<Api>>,
    Query(query): Query<ActionsQuery>,
) -> Result<Json<ActionPage>, Problem> {
    let limit = limit(query.limit)?;
    let after: Option<(String, String)> = place(query.after.as_deref())?;
    api.blocking(move |api| {
        let after = after.as_ref().map(|(rule, action)| (rule.as_str(), action.as_str()));
        let (found, has_more) = api.gateway.book.actions(after, limit, |entry| {
            query.rule.as_ref().is_none_or(|rule| entry.rule == *rule)
                && query.connector.as_deref().is_none_or(|name| entry.connector.as_deref() == Some(name))
                && query.state.is_none_or(|state| entry.state == state)
        });
        let last = found.last().filter(|_| has_more);
        let next = last.map(|last| cursor(&(&last.rule, &last.name)));
        let actions = found.into_iter().map(ActionInfo::from).collect();
        Ok::<_, Problem>(Json(ActionPage { actions, next }))
    })
    .await
}

/// Rule and action.
type Place = Path<(String, String)>;

/// Shows an action.
#[utoipa::path(get, path = "/api/v1/actions/{rule}/{action}", operation_id = "getAction", tag = "actions",
    params(("rule" = String, Path), ("action" = String, Path)),
    responses((status = 200, description = "The action", body = ActionInfo)))]
pub(super) async fn get_action(
    State(api): State<Arc<Api>>,
    Path((rule, action)): Place,
) -> Result<Json<ActionInfo>, Problem> {
    let entry = api.blocking(move |api| api.gateway.book.action(&rule, &action)).await?;
    Ok(Json(entry.into()))
}

/// Has an action send nothing more until it is resumed, over restarts too. Its queue goes on taking requests.
#[utoipa::path(post, path = "/api/v1/actions/{rule}/{action}/pause", operation_id = "pauseAction", tag = "actions",
    params(("rule" = String, Path), ("action" = String, Path)),
    responses((status = 200, description = "How it is", body = ActionChanged)))]
pub(super) async fn pause_action(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Path((rule, action)): Place,
) -> Result<(Change, Json<ActionChanged>), Problem> {
    api.blocking(move |api| {
        let changed = api.gateway.book.pause_action(&rule, &action, &caller.name)?;
        after_change(api, &rule, &action, changed)
    })
    .await
}

/// Has a paused action send again.
#[utoipa::path(post, path = "/api/v1/actions/{rule}/{action}/resume", operation_id = "resumeAction", tag = "actions",
    params(("rule" = String, Path), ("action" = String, Path)),
    responses((status = 200, description = "How it is", body = ActionChanged)))]
pub(super) async fn resume_action(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Path((rule, action)): Place,
) -> Result<(Change, Json<ActionChanged>), Problem> {
    api.blocking(move |api| {
        let changed = api.gateway.book.resume_action(&rule, &action, &caller.name)?;
        after_change(api, &rule, &action, changed)
    })
    .await
}

fn after_change(
    api: &Api,
    rule: &str,
    action: &str,
    changed: bool,
) -> Result<(Change, Json<ActionChanged>), Problem> {
    let info = api.gateway.book.action(rule, action).ok().map(ActionInfo::from);
    let state = info.as_ref().map(|info| info.state);
    let change = Change::of(format!("{rule}/{action}")).after(json!({ "state": state, "changed": changed }));
    Ok((change, Json(ActionChanged { changed, action: info })))
}

fn nothing_sends(api: &Api, rule: &str, action: &str) -> Problem {
    let name = format!("{rule}/{action}");
    match api.gateway.book.action(rule, action) {
        Ok(entry) if entry.has_queue => {
            Problem::new(Kind::Conflict, format!("action \"{name}\" owes nothing, and its rule doesn't run"))
        }
        Ok(_) => BookError::NoQueue { action: name }.into(),
        Err(error) => error.into(),
    }
}

/// Tries at once what an action has waiting: ends the pauses between attempts, and that of a far side that didn't take anything.
#[utoipa::path(post, path = "/api/v1/actions/{rule}/{action}/drain", operation_id = "drainAction", tag = "actions",
    params(("rule" = String, Path), ("action" = String, Path)),
    responses((status = 200, description = "What is tried", body = ActionDrained)))]
pub(super) async fn drain_action(
    State(api): State<Arc<Api>>,
    Path((rule, action)): Place,
) -> Result<(Change, Json<ActionDrained>), Problem> {
    api.blocking(move |api| {
        let name = format!("{rule}/{action}");
        if api.gateway.book.action(&rule, &action)?.state == ActionState::Paused {
            return Err(Problem::new(Kind::Conflict, format!("action \"{name}\" is paused: resume it")));
        }
        let items = api.gateway.rules().send_now(&rule, &action);
        let items = items.ok_or_else(|| nothing_sends(api, &rule, &action))?;
        Ok((Change::of(name).after(json!({ "items": items })), Json(ActionDrained { items })))
    })
    .await
}

/// Drops what an action has waiting, without dead letters. What is being sent at that moment isn't tried again.
#[utoipa::path(post, path = "/api/v1/actions/{rule}/{action}/purge", operation_id = "purgeAction", tag = "actions",
    params(("rule" = String, Path), ("action" = String, Path), PurgeQuery), request_body = PurgeWish,
    responses((status = 200, description = "What is dropped", body = ActionPurged)))]
pub(super) async fn purge_action(
    State(api): State<Arc<Api>>,
    Path((rule, action)): Place,
    Query(query): Query<PurgeQuery>,
    Json(wish): Json<PurgeWish>,
) -> Result<(Change, Json<ActionPurged>), Problem> {
    let name = format!("{rule}/{action}");
    let change = Change::of(name.as_str());
    if query.dry_run {
        let items = api.gateway.rules().waiting(&rule, &action);
        let items = items.ok_or_else(|| nothing_sends(&api, &rule, &action))?;
        return Ok((change.after(json!({ "dry_run": true })), Json(ActionPurged { items, is_done: false })));
    }
    if wish.confirm.as_ref() != Some(&name) {
        return Err(Problem::new(Kind::Invalid, format!("confirm: expected the action's name, \"{name}\"")));
    }
    let purge = api.gateway.rules().purge(&rule, &action);
    let purge = purge.ok_or_else(|| nothing_sends(&api, &rule, &action))?;
    let items = purge.items;
    let is_done = match timeout(PURGE_WAIT_MAX, purge.done()).await {
        Ok(Ok(())) => true,
        Ok(Err(error)) => {
            tracing::warn!(action = name, %error, "what was purged may come back with the next start");
            false
        }
        Err(_) => false,
    };
    tracing::info!(action = name, items, "queue emptied");
    Ok((change.before(json!({ "items": items })), Json(ActionPurged { items, is_done })))
}
