//! `$SYS/broker/…`: the broker's figures as messages, under the names that Mosquitto's dashboards read.

use std::collections::VecDeque;
use std::sync::Weak;

use mqtt_protocol::QoS;

use crate::broker::{InternalPublish, Shared, publish_message};
use crate::dispatch::Dispatch;
use crate::message::Trail;
use crate::metrics::Stats;

/// Publishes the figures at every interval, for as long as the broker lives.
pub(crate) async fn publish_regularly(shared: Weak<Shared>) {
    let Some(interval) = shared.upgrade().map(|shared| shared.config.sys_interval) else { return };
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut history = History::default();
    loop {
        ticks.tick().await;
        let Some(shared) = shared.upgrade() else { return };
        let stats = shared.stats();
        let uptime_ms = shared.clock.now().mono_ms;
        let mut topics = totals(&stats, &shared.config.version, uptime_ms);
        history.push(uptime_ms, stats);
        topics.extend(history.loads());
        let limits = shared.metrics.limits().into_iter();
        topics.extend(limits.map(|(name, count)| (format!("limits/{name}"), count.to_string())));
        topics.extend(certificates(&shared));
        let figures = denials(&stats).into_iter().chain(shared.access.figures());
        topics.extend(figures.map(|(name, count)| (name.to_owned(), count.to_string())));
        for (topic, value) in topics {
            let publish = InternalPublish {
                topic: format!("$SYS/broker/{topic}"),
                payload: value.into_bytes(),
                qos: QoS::AtMostOnce,
                retain: true,
                properties: Vec::new(),
                message_expiry_interval_s: None,
                trail: Trail::default(),
                run_as: None,
            };
            let message = shared.internal_message(&publish);
            if let Err(reason) = publish_message(&shared, Dispatch::internal(&shared, message)).await {
                tracing::debug!(?reason, topic, "a $SYS topic could not be published");
            }
        }
    }
}

/// What was denied, by kind.
fn denials(stats: &Stats) -> [(&'static str, u64); 8] {
    [
        ("authorisation/denied/publish", stats.publishes_denied),
        ("authorisation/denied/subscribe", stats.subscriptions_denied),
        ("authorisation/denied/receive", stats.dropped_not_authorized),
        ("authorisation/denied/will", stats.wills_denied),
        ("authorisation/denied/rule_output", stats.rule_output_denied),
        ("authorisation/denied/session", stats.takeovers_refused),
        ("authorisation/denied/client_id", stats.client_ids_refused),
        ("authentication/timeouts", stats.authentication_timeouts),
    ]
}

/// Seconds until the certificates of listeners expire; negative: since they have.
fn certificates(shared: &Shared) -> Vec<(String, String)> {
    let now_s = shared.clock.now().wall_ms / 1000;
    let listeners = shared.listeners.lock();
    let expiries = listeners.iter().filter_map(|listener| {
        let left_s = listener.certificate_expires_at_s()?.saturating_sub(now_s);
        Some((format!("listeners/{}/certificate_expires_s", listener.name), left_s.to_string()))
    });
    expiries.collect()
}

fn totals(stats: &Stats, version: &str, uptime_ms: u64) -> Vec<(String, String)> {
    let offline = stats.sessions.saturating_sub(stats.connections);
    let dropped = stats.dropped_slow_consumer
        + stats.dropped_queue_full
        + stats.dropped_memory_full
        + stats.dropped_too_large
        + stats.dropped_expired;
    [
        ("version", format!("tidegate version {version}")),
        ("uptime", format!("{} seconds", uptime_ms / 1000)),
        ("clients/total", stats.sessions.to_string()),
        ("clients/connected", stats.connections.to_string()),
        ("clients/active", stats.connections.to_string()),
        ("clients/disconnected", offline.to_string()),
        ("clients/inactive", offline.to_string()),
        ("connections/panicked", stats.connection_panics.to_string()),
        ("subscriptions/count", stats.subscriptions.to_string()),
        ("retained messages/count", stats.retained_messages.to_string()),
        ("store/messages/count", stats.retained_messages.to_string()),
        ("store/messages/bytes", stats.retained_bytes.to_string()),
        ("messages/stored", stats.retained_messages.to_string()),
        ("messages/received", stats.messages_received.to_string()),
        ("messages/sent", stats.messages_delivered.to_string()),
        ("publish/messages/received", stats.messages_received.to_string()),
        ("publish/messages/sent", stats.messages_delivered.to_string()),
        ("publish/messages/dropped", dropped.to_string()),
        ("publish/bytes/received", stats.payload_bytes_received.to_string()),
        ("publish/bytes/sent", stats.payload_bytes_delivered.to_string()),
        ("bytes/received", stats.bytes_received.to_string()),
        ("bytes/sent", stats.bytes_sent.to_string()),
    ]
    .map(|(topic, value)| (topic.to_owned(), value))
    .into()
}

/// One of the counters.
type Figure = fn(&Stats) -> u64;

/// Samples of the last fifteen minutes.
#[derive(Debug, Default)]
struct History {
    samples: VecDeque<(u64, Stats)>,
}

impl History {
    const KEPT_MS: u64 = 15 * 60 * 1000;

    fn push(&mut self, at_ms: u64, stats: Stats) {
        self.samples.push_back((at_ms, stats));
        while self.samples.len() > 2
            && self.samples.front().is_some_and(|(first, _)| at_ms - first > Self::KEPT_MS)
        {
            self.samples.pop_front();
        }
    }

    /// Averages per minute over the last 1, 5 and 15 minutes.
    fn loads(&self) -> Vec<(String, String)> {
        let Some((now_ms, now)) = self.samples.back() else { return Vec::new() };
        let mut loads = Vec::new();
        for minutes in [1u64, 5, 15] {
            let since = now_ms.saturating_sub(minutes * 60_000);
            let Some((then_ms, then)) = self.samples.iter().find(|(at, _)| *at >= since) else { continue };
            let elapsed_ms = now_ms - then_ms;
            let rate = |count: Figure| {
                let difference = count(now).saturating_sub(count(then));
                // A rate for people to look at: the rounding of large counts doesn't matter.
                #[expect(clippy::cast_precision_loss, reason = "shown with two decimals")]
                let per_minute =
                    if elapsed_ms == 0 { 0.0 } else { difference as f64 * 60_000.0 / elapsed_ms as f64 };
                format!("{per_minute:.2}")
            };
            let figures: [(&str, Figure); 7] = [
                ("messages/received", |stats| stats.messages_received),
                ("messages/sent", |stats| stats.messages_delivered),
                ("publish/received", |stats| stats.messages_received),
                ("publish/sent", |stats| stats.messages_delivered),
                ("bytes/received", |stats| stats.bytes_received),
                ("bytes/sent", |stats| stats.bytes_sent),
                ("connections", |stats| stats.connections_opened),
            ];
            for (name, count) in figures {
                loads.push((format!("load/{name}/{minutes}min"), rate(count)));
            }
        }
        loads
    }
}
