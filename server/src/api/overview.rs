//! How the gateway is, on one page: whether somebody has to act, and the main figures.
//!
//! What streams show is put together once a second for all of them together, and not at all when nobody looks. Health is
//! judged from the alarms that stand, which have been held and cleared with care, not from figures of a moment.

use std::cmp::Reverse;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use parking_lot::Mutex;
use serde::Serialize;
use utoipa::ToSchema;

use super::Api;
use super::alarms::AlarmInfo;
use super::auth::now_ms;
use super::problem::{Kind, Problem};
use crate::alarms::{Alarm, Board};
use crate::metrics::{Figures, SessionsSeen};

/// Most reasons that are named.
const REASONS_MAX: usize = 20;
/// Alarms that are shown.
const ALARMS_SHOWN: usize = 10;
/// How long what was put together for one stream is good for the others. Ticks are never exact to the millisecond.
const GOOD_FOR: Duration = Duration::from_millis(950);

/// How the gateway is.
#[derive(Serialize, ToSchema)]
pub(super) struct Overview {
    /// Milliseconds since 1970.
    at_ms: i64,
    /// Milliseconds since 1970.
    started_at_ms: i64,
    health: HealthInfo,
    #[serde(flatten)]
    figures: Figures,
    /// The last 10: those that stand first, the last first.
    alarms: Vec<AlarmInfo>,
}

/// Whether somebody has to act.
#[derive(Serialize, ToSchema)]
pub(super) struct HealthInfo {
    /// `ok`; `degraded`: something isn't as it should be; `action_needed`: something is being lost, or will be soon.
    status: &'static str,
    /// Why, the most urgent first; at most 20.
    reasons: Vec<ReasonInfo>,
    /// How many more there are.
    left_out: usize,
}

#[derive(Serialize, ToSchema)]
pub(super) struct ReasonInfo {
    /// Kind of an alarm, as listAlarms names it, or `not_ready`: clients aren't let in.
    kind: &'static str,
    /// Whom it concerns, as listAlarms has it; `gateway` for `not_ready`.
    subject: String,
    /// In words, with the figures.
    text: String,
}

/// What was put together last.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// One puts it together, the others wait for that.
    last: tokio::sync::Mutex<Option<(Instant, Arc<str>)>>,
    sessions: Mutex<SessionsSeen>,
}

/// Shows how the gateway is.
#[utoipa::path(get, path = "/api/v1/overview", operation_id = "getOverview", tag = "server",
    responses((status = 200, description = "How it is", body = Overview, content_type = "application/json")))]
pub(super) async fn get_overview(State(api): State<Arc<Api>>) -> Result<Response, Problem> {
    let json = at_most(&api, Duration::ZERO).await?;
    Ok(([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], json.to_string()).into_response())
}

/// How the gateway is, as one event for all streams.
pub(super) async fn shared(api: &Arc<Api>) -> Result<Arc<str>, Problem> {
    at_most(api, GOOD_FOR).await
}

/// How the gateway is, or was so long ago at most.
async fn at_most(api: &Arc<Api>, age: Duration) -> Result<Arc<str>, Problem> {
    let mut last = api.overview.last.lock().await;
    if let Some((made, json)) = &*last
        && made.elapsed() < age
    {
        return Ok(Arc::clone(json));
    }
    let json: Arc<str> = api.blocking(put_together).await?.into();
    *last = Some((Instant::now(), Arc::clone(&json)));
    Ok(json)
}

fn put_together(api: &Api) -> Result<String, Problem> {
    let figures = api.gateway.sources().figures(&mut api.overview.sessions.lock());
    let is_ready = api.is_ready.load(Ordering::Acquire);
    let (health, alarms) = {
        let board = api.gateway.alarms().board.lock();
        (health(is_ready, board.standing().collect()), last_alarms(&board))
    };
    let overview =
        Overview { at_ms: now_ms(), started_at_ms: api.gateway.started_at_ms, health, figures, alarms };
    serde_json::to_string(&overview).map_err(|error| {
        tracing::error!(%error, "an overview can't be written");
        Problem::new(Kind::Internal, "the overview can't be written")
    })
}

fn health(is_ready: bool, mut alarms: Vec<Alarm>) -> HealthInfo {
    alarms.sort_by_key(|alarm| (!alarm.kind.is_critical(), Reverse(alarm.raised_at_ms)));
    let status = match alarms.first() {
        Some(worst) if worst.kind.is_critical() => "action_needed",
        None if is_ready => "ok",
        Some(_) | None => "degraded",
    };
    let not_ready = (!is_ready).then(|| ReasonInfo {
        kind: "not_ready",
        subject: "gateway".to_owned(),
        text: "clients aren't let in: the gateway starts or stops".to_owned(),
    });
    let told = alarms.into_iter().map(|Alarm { kind, subject, detail, .. }| ReasonInfo {
        kind: kind.as_str(),
        subject,
        text: detail,
    });
    let mut reasons: Vec<_> = not_ready.into_iter().chain(told).collect();
    let left_out = reasons.len().saturating_sub(REASONS_MAX);
    reasons.truncate(REASONS_MAX);
    HealthInfo { status, reasons, left_out }
}

fn last_alarms(board: &Board) -> Vec<AlarmInfo> {
    let mut standing: Vec<_> = board.standing().collect();
    standing.sort_by_key(|alarm| Reverse(alarm.raised_at_ms));
    let standing = standing.into_iter().map(|alarm| AlarmInfo::of(alarm, None));
    let ended = board.ended().map(|ended| AlarmInfo::of(ended.alarm.clone(), Some(ended.cleared_at_ms)));
    standing.chain(ended).take(ALARMS_SHOWN).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alarms::Kind as AlarmKind;

    fn alarm(kind: AlarmKind, number: usize) -> Alarm {
        let subject = format!("r/{number}");
        let raised_at_ms = i64::try_from(number).unwrap();
        Alarm { kind, subject, detail: format!("fault {number}"), raised_at_ms }
    }

    #[test]
    fn health_is_as_bad_as_the_worst_alarm_and_names_that_first() {
        let told = |is_ready, alarms| {
            let HealthInfo { status, reasons, left_out } = health(is_ready, alarms);
            let texts: Vec<_> = reasons.into_iter().map(|reason| (reason.kind, reason.text)).collect();
            (status, texts, left_out)
        };
        assert_eq!(told(true, vec![]), ("ok", vec![], 0));
        let (status, reasons, _) = told(false, vec![]);
        assert_eq!((status, reasons[0].0), ("degraded", "not_ready"));
        let (status, reasons, _) =
            told(true, vec![alarm(AlarmKind::SinkDown, 1), alarm(AlarmKind::RuleSilent, 2)]);
        let expected = [("rule_silent", "fault 2".to_owned()), ("sink_down", "fault 1".to_owned())];
        assert_eq!((status, reasons), ("degraded", expected.to_vec()));
        let (status, reasons, _) =
            told(true, vec![alarm(AlarmKind::SinkDown, 3), alarm(AlarmKind::StoreFull, 1)]);
        assert_eq!((status, reasons[0].0), ("action_needed", "store_full"));
        for (count, expected) in [(REASONS_MAX, 0), (REASONS_MAX + 1, 1)] {
            let alarms = (0..count).map(|number| alarm(AlarmKind::SinkDown, number)).collect();
            let (_, reasons, left_out) = told(true, alarms);
            assert_eq!((reasons.len(), left_out), (REASONS_MAX, expected));
        }
    }
}
