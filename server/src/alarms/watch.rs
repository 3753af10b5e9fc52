//! Looks from time to time, and tells what has changed: as a message, and in the log.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use broker::{InternalPublish, Trail};
use mqtt_protocol::QoS;
use parking_lot::{Mutex, RwLock};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::board::{Alarm, Board, Change};
use super::judge::Judge;
use super::reading::read;
use crate::config;
use crate::metrics::Sources;

/// Where alarms are told: the kind and the subject follow.
const TOPIC: &str = "$SYS/broker/alarms";

/// The alarms of a gateway, and what is an alarm.
#[derive(Debug, Default)]
pub(crate) struct Alarms {
    pub(crate) board: Mutex<Board>,
    limits: RwLock<config::Alarms>,
}

impl Alarms {
    pub(crate) fn new(limits: &config::Alarms) -> Arc<Self> {
        Arc::new(Self { board: Mutex::default(), limits: RwLock::new(limits.clone()) })
    }

    /// Other limits hold from now on.
    pub(crate) fn configure(&self, limits: &config::Alarms) {
        self.limits.write().clone_from(limits);
    }
}

/// Ends the looking when it is dropped.
#[derive(Debug)]
pub(crate) struct Watch(JoinHandle<()>);

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Watch {
    /// Begins to look, on the current tokio runtime.
    pub(crate) fn start(sources: Sources, alarms: Arc<Alarms>) -> Self {
        Self(tokio::spawn(run(sources, alarms)))
    }
}

async fn run(sources: Sources, alarms: Arc<Alarms>) {
    let begin = Instant::now();
    let mut judge = Judge::default();
    loop {
        let limits = alarms.limits.read().clone();
        tokio::time::sleep(limits.interval.as_duration()).await;
        let conditions = if limits.enabled {
            let (sources, now_s) = (sources.clone(), now_ms() / 1_000);
            let reading = tokio::task::spawn_blocking(move || read(&sources, begin.elapsed(), now_s)).await;
            match reading {
                Ok(reading) => judge.judge(&reading, &limits),
                Err(error) => {
                    tracing::error!(%error, "a look for alarms broke off");
                    continue;
                }
            }
        } else {
            Vec::new()
        };
        let changes = alarms.board.lock().take(conditions, begin.elapsed(), now_ms());
        for change in changes {
            tell(&sources, change).await;
        }
    }
}

async fn tell(sources: &Sources, change: Change) {
    let (alarm, cleared_at_ms) = match change {
        Change::Raised(alarm) => {
            tracing::warn!(
                alarm = alarm.kind.as_str(),
                subject = alarm.subject,
                detail = alarm.detail,
                "alarm raised"
            );
            (alarm, None)
        }
        Change::Cleared(ended) => {
            let alarm = &ended.alarm;
            tracing::info!(alarm = alarm.kind.as_str(), subject = alarm.subject, "alarm cleared");
            (ended.alarm, Some(ended.cleared_at_ms))
        }
    };
    let publish = InternalPublish {
        topic: format!("{TOPIC}/{}/{}", alarm.kind.as_str(), alarm.subject),
        payload: shown(&alarm, cleared_at_ms).to_string().into_bytes(),
        qos: QoS::AtLeastOnce,
        // Whoever comes later finds how it stands.
        retain: true,
        properties: Vec::new(),
        message_expiry_interval_s: None,
        trail: Trail::default(),
        run_as: None,
    };
    if let Err(error) = sources.broker.publish(publish).await {
        tracing::warn!(alarm = alarm.kind.as_str(), subject = alarm.subject, %error, "an alarm could not be published");
    }
}

/// An alarm as it is told.
fn shown(alarm: &Alarm, cleared_at_ms: Option<i64>) -> Value {
    json!({
        "alarm": alarm.kind.as_str(),
        "subject": alarm.subject,
        "state": if cleared_at_ms.is_some() { "cleared" } else { "raised" },
        "severity": severity(alarm),
        "detail": alarm.detail,
        "raised_at_ms": alarm.raised_at_ms,
        "cleared_at_ms": cleared_at_ms,
    })
}

/// How bad it is, in one word.
pub(crate) const fn severity(alarm: &Alarm) -> &'static str {
    if alarm.kind.is_critical() { "critical" } else { "warning" }
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
