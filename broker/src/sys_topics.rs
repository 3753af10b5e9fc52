//! `$SYS/broker/…`: the broker's figures as messages, under the names that Mosquitto's dashboards read.

use std::collections::VecDeque;
use std::sync::Weak;

use mqtt_protocol::{PacketType, QoS};

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
    let mut memory = Memory::default();
    loop {
        ticks.tick().await;
        let Some(shared) = shared.upgrade() else { return };
        let stats = shared.stats();
        let uptime_ms = shared.clock.now().mono_ms;
        let packets = Packets::of(&shared);
        let mut topics = totals(&stats, packets, &shared.config.version, uptime_ms);
        topics.extend(memory.figures());
        history.push(uptime_ms, Sample { stats, packets });
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

/// Packets of all types.
#[derive(Debug, Clone, Copy, Default)]
struct Packets {
    received: u64,
    sent: u64,
    /// CONNECT packets.
    connects: u64,
}

impl Packets {
    fn of(shared: &Shared) -> Self {
        shared.metrics.packets().iter().fold(Self::default(), |sum, of_type| Self {
            received: sum.received + of_type.received,
            sent: sum.sent + of_type.sent,
            connects: sum.connects + if of_type.kind == PacketType::Connect { of_type.received } else { 0 },
        })
    }
}

/// What didn't reach a receiver though it might have: as Mosquitto counts it.
fn dropped(stats: &Stats) -> u64 {
    stats.dropped_slow_consumer
        + stats.dropped_queue_full
        + stats.dropped_memory_full
        + stats.dropped_too_large
        + stats.dropped_expired
}

/// Memory of the process. Mosquitto counts what it has allocated; here it is what the system says is in use.
#[derive(Debug, Default)]
struct Memory {
    most: u64,
}

impl Memory {
    fn figures(&mut self) -> Vec<(String, String)> {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let Some(used) = resident_bytes(&status) else { return Vec::new() };
        self.most = self.most.max(used);
        vec![
            ("heap/current".to_owned(), used.to_string()),
            ("heap/maximum".to_owned(), self.most.to_string()),
        ]
    }
}

/// Reads VmRSS of /proc/PID/status.
fn resident_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

fn totals(stats: &Stats, packets: Packets, version: &str, uptime_ms: u64) -> Vec<(String, String)> {
    let offline = stats.sessions.saturating_sub(stats.connections);
    [
        ("version", format!("tidegate version {version}")),
        ("uptime", format!("{} seconds", uptime_ms / 1000)),
        ("clients/total", stats.sessions.to_string()),
        ("clients/connected", stats.connections.to_string()),
        ("clients/active", stats.connections.to_string()),
        ("clients/disconnected", offline.to_string()),
        ("clients/inactive", offline.to_string()),
        ("clients/maximum", stats.connections_maximum.to_string()),
        ("clients/expired", stats.sessions_expired.to_string()),
        ("connections/panicked", stats.connection_panics.to_string()),
        ("subscriptions/count", stats.subscriptions.to_string()),
        ("retained messages/count", stats.retained_messages.to_string()),
        ("store/messages/count", stats.retained_messages.to_string()),
        ("store/messages/bytes", stats.retained_bytes.to_string()),
        ("messages/stored", stats.retained_messages.to_string()),
        ("messages/received", packets.received.to_string()),
        ("messages/sent", packets.sent.to_string()),
        ("publish/messages/received", stats.messages_received.to_string()),
        ("publish/messages/sent", stats.messages_delivered.to_string()),
        ("publish/messages/dropped", dropped(stats).to_string()),
        ("publish/bytes/received", stats.payload_bytes_received.to_string()),
        ("publish/bytes/sent", stats.payload_bytes_delivered.to_string()),
        ("bytes/received", stats.bytes_received.to_string()),
        ("bytes/sent", stats.bytes_sent.to_string()),
    ]
    .map(|(topic, value)| (topic.to_owned(), value))
    .into()
}

/// One of the counters.
type Figure = fn(&Sample) -> u64;

/// The counters at one moment.
#[derive(Debug, Clone, Copy)]
struct Sample {
    stats: Stats,
    packets: Packets,
}

/// Samples of the last fifteen minutes.
#[derive(Debug, Default)]
struct History {
    samples: VecDeque<(u64, Sample)>,
}

impl History {
    const KEPT_MS: u64 = 15 * 60 * 1000;

    fn push(&mut self, at_ms: u64, sample: Sample) {
        self.samples.push_back((at_ms, sample));
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
            let figures: [(&str, Figure); 9] = [
                ("messages/received", |at| at.packets.received),
                ("messages/sent", |at| at.packets.sent),
                ("publish/received", |at| at.stats.messages_received),
                ("publish/sent", |at| at.stats.messages_delivered),
                ("publish/dropped", |at| dropped(&at.stats)),
                ("bytes/received", |at| at.stats.bytes_received),
                ("bytes/sent", |at| at.stats.bytes_sent),
                // CONNECT packets, whatever came of them, and sockets that were opened.
                ("connections", |at| at.packets.connects),
                ("sockets", |at| at.stats.connections_opened),
            ];
            for (name, count) in figures {
                loads.push((format!("load/{name}/{minutes}min"), rate(count)));
            }
        }
        loads
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_that_dashboards_read_is_there() {
        let stats = Stats { connections_maximum: 4, sessions_expired: 2, ..Stats::default() };
        let packets = Packets { received: 9, sent: 7, connects: 1 };
        let topics = totals(&stats, packets, "tidegate 1", 61_000);
        let value = |name: &str| {
            let found = topics.iter().find(|(topic, _)| topic == name);
            found.unwrap_or_else(|| panic!("{name} isn't there")).1.clone()
        };
        for (name, expected) in [
            ("clients/maximum", "4"),
            ("clients/expired", "2"),
            ("messages/received", "9"),
            ("messages/sent", "7"),
            ("uptime", "61 seconds"),
        ] {
            assert_eq!(value(name), expected, "{name}");
        }
        for name in [
            "bytes/received",
            "bytes/sent",
            "clients/active",
            "clients/connected",
            "clients/disconnected",
            "clients/inactive",
            "clients/total",
            "messages/stored",
            "publish/bytes/received",
            "publish/bytes/sent",
            "publish/messages/dropped",
            "publish/messages/received",
            "publish/messages/sent",
            "retained messages/count",
            "store/messages/bytes",
            "store/messages/count",
            "subscriptions/count",
            "version",
        ] {
            value(name);
        }
    }

    #[test]
    fn loads_are_averages_of_a_minute() {
        let mut history = History::default();
        let packets = |received| Packets { received, sent: 0, connects: 0 };
        history.push(0, Sample { stats: Stats::default(), packets: packets(10) });
        history.push(
            30_000,
            Sample { stats: Stats { connections_opened: 3, ..Stats::default() }, packets: packets(20) },
        );
        let loads = history.loads();
        let value =
            |name: &str| loads.iter().find(|(topic, _)| topic == name).map(|(_, value)| value.as_str());
        assert_eq!(value("load/messages/received/1min"), Some("20.00"));
        assert_eq!(value("load/sockets/5min"), Some("6.00"));
        assert_eq!(value("load/publish/dropped/15min"), Some("0.00"));
        assert_eq!(loads.len(), 27);
    }

    #[test]
    fn memory_is_what_the_system_says() {
        assert_eq!(resident_bytes("Name:\tx\nVmRSS:\t   12 kB\n"), Some(12 * 1024));
        for broken in ["", "VmRSS: x kB", "VmRSS: 12"] {
            assert_eq!(resident_bytes(broken), None, "{broken}");
        }
        assert_eq!(Memory::default().figures().len(), 2);
    }
}
