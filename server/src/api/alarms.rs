//! Alarms: those that stand, and those that are over.

use std::sync::Arc;

use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::extract::{Json, Query};
use super::problem::Problem;
use crate::alarms::{Alarm, severity};

/// There is nothing to choose.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct AlarmsQuery {}

/// Alarms.
#[derive(Serialize, ToSchema)]
pub(super) struct AlarmList {
    /// Those that stand, by kind and subject.
    standing: Vec<AlarmInfo>,
    /// The last 200 that are over, the last first.
    ended: Vec<AlarmInfo>,
    /// How often something was worth an alarm and found no room among the 1,000 that may stand.
    left_out: u64,
}

/// An alarm.
#[derive(Serialize, ToSchema)]
pub(super) struct AlarmInfo {
    /// `certificate_expiry`, `disk_space`, `queue_age`, `queue_filling`, `rule_errors`, `rule_silent`, `sink_down`, `store_full` or
    /// `store_failed`.
    alarm: &'static str,
    /// Whom it concerns: `rule/action`, a rule, a listener, or `store`.
    subject: String,
    /// `warning`, or `critical`: something is being lost, or will be soon.
    severity: &'static str,
    /// In words, with the figures, as it was at the last look.
    detail: String,
    /// Milliseconds since 1970.
    raised_at_ms: i64,
    /// Milliseconds since 1970; null: it stands.
    cleared_at_ms: Option<i64>,
}

impl AlarmInfo {
    pub(super) fn of(alarm: Alarm, cleared_at_ms: Option<i64>) -> Self {
        Self {
            alarm: alarm.kind.as_str(),
            severity: severity(&alarm),
            subject: alarm.subject,
            detail: alarm.detail,
            raised_at_ms: alarm.raised_at_ms,
            cleared_at_ms,
        }
    }
}

/// Lists alarms.
#[utoipa::path(get, path = "/api/v1/alarms", operation_id = "listAlarms", tag = "alarms", params(AlarmsQuery),
    responses((status = 200, description = "The alarms", body = AlarmList)))]
pub(super) async fn list_alarms(
    State(api): State<Arc<Api>>,
    Query(AlarmsQuery {}): Query<AlarmsQuery>,
) -> Result<Json<AlarmList>, Problem> {
    let board = api.gateway.alarms().board.lock();
    let standing = board.standing().map(|alarm| AlarmInfo::of(alarm, None)).collect();
    let ended = board.ended().map(|ended| AlarmInfo::of(ended.alarm.clone(), Some(ended.cleared_at_ms)));
    Ok(Json(AlarmList { standing, ended: ended.collect(), left_out: board.left_out }))
}
