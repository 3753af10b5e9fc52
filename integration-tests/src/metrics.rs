//! What a broker tells about itself at `/metrics`, and the law that it obeys: what came in went somewhere.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use crate::{Broker, PATIENCE};

/// The values of one moment.
#[derive(Debug, Default)]
pub struct Metrics {
    /// By name and labels, as in `tidegate_rule_matched_total{rule="hot"}`.
    values: BTreeMap<String, f64>,
    text: String,
}

impl Metrics {
    /// Asks by the administration socket, as the broker's owner.
    #[track_caller]
    #[must_use]
    pub fn of(broker: &Broker) -> Self {
        let path = broker.folder().join("data/admin.sock");
        let mut stream =
            UnixStream::connect(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        Self::read(body)
    }

    /// Reads the text format of Prometheus.
    #[track_caller]
    #[must_use]
    pub fn read(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let value = |line: &str| {
            let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no value in {line:?}"));
            (name.to_owned(), value.parse().unwrap_or_else(|_| panic!("no number in {line:?}")))
        };
        Self { values: lines.map(value).collect(), text: text.to_owned() }
    }

    /// The text that it was read from.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The value of this name with these labels, as in `tidegate_rule_matched_total{rule="hot"}`.
    #[track_caller]
    #[must_use]
    pub fn value(&self, name: &str) -> f64 {
        *self.values.get(name).unwrap_or_else(|| panic!("{name} isn't there:\n{}", self.text))
    }

    /// The sum of a family's values whose labels hold all of these, as in `rule="hot"`.
    #[must_use]
    pub fn sum(&self, family: &str, labels: &[&str]) -> f64 {
        let of_family = |name: &str| {
            let (base, rest) = name.split_once('{').unwrap_or((name, ""));
            base == family && labels.iter().all(|label| rest.contains(label))
        };
        self.values.iter().filter(|(name, _)| of_family(name)).map(|(_, value)| value).sum()
    }

    /// The labels that a family's values have.
    fn labels(&self, family: &str) -> Vec<&str> {
        let prefix = format!("{family}{{");
        self.values.keys().filter_map(|name| name.strip_prefix(&*prefix)?.strip_suffix('}')).collect()
    }

    /// What doesn't add up; empty: everything does.
    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut equal = |what: &str, left: f64, right: f64| {
            #[expect(clippy::float_cmp, reason = "whole numbers far below 2^53")]
            if left != right {
                faults.push(format!("{what}: {left} came, {right} are accounted for"));
            }
        };
        let all = |family: &str| self.sum(family, &[]);
        equal(
            "messages",
            all("tidegate_messages_received_total") + all("tidegate_messages_made_total"),
            all("tidegate_messages_routed_total")
                + all("tidegate_messages_refused_total")
                + all("tidegate_messages_repeated_total"),
        );
        for rule in self.labels("tidegate_rule_matched_total") {
            let of = |family: &str, more: &str| {
                let labels: Vec<&str> = [rule, more].into_iter().filter(|label| !label.is_empty()).collect();
                self.sum(family, &labels)
            };
            equal(
                rule,
                of("tidegate_rule_matched_total", ""),
                of("tidegate_rule_passed_total", "")
                    + of("tidegate_rule_skipped_total", "")
                    + of("tidegate_rule_failed_total", "stage=\"evaluation\""),
            );
        }
        for action in self.labels("tidegate_action_received_total") {
            let of = |family: &str| self.sum(family, &action.split(',').collect::<Vec<_>>());
            let name = action.replace("rule=\"", "").replace("\",action=\"", "/");
            equal(
                action,
                of("tidegate_action_queued_at_start_total") + of("tidegate_action_received_total"),
                of("tidegate_action_delivered_total")
                    + of("tidegate_action_dead_lettered_total")
                    + of("tidegate_action_dropped_total")
                    + of("tidegate_action_inflight")
                    + self.sum("tidegate_queue_messages", &[&format!("owner=\"{name}")]),
            );
        }
        let handed = all("tidegate_messages_delivered_total");
        let written = self.sum("tidegate_mqtt_packets_total", &["type=\"publish\"", "direction=\"out\""]);
        let waiting = self.sum("tidegate_queue_messages", &["owner=\"sessions\""])
            + all("tidegate_sessions_inflight_messages");
        if written + all("tidegate_messages_dropped_total") + waiting < handed {
            faults.push(format!(
                "{handed} messages were handed to receivers, and {written} PUBLISH packets written"
            ));
        }
        faults
    }

    /// How much waits: for clients, and for actions.
    fn waiting(&self) -> f64 {
        ["tidegate_queue_messages", "tidegate_action_inflight", "tidegate_sessions_inflight_messages"]
            .into_iter()
            .map(|family| self.sum(family, &[]))
            .sum()
    }
}

impl Broker {
    /// Waits until nothing waits for a client or an action any more, and asserts that everything that came in is accounted for:
    /// messages, those of each rule, requests of each action.
    ///
    /// Another broker than ours tells nothing, and is taken at its word.
    #[track_caller]
    pub fn adds_up(&self) -> Metrics {
        if Self::is_foreign() {
            return Metrics::default();
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            let metrics = Metrics::of(self);
            let (faults, waiting) = (metrics.faults(), metrics.waiting());
            if faults.is_empty() && waiting == 0.0 {
                return metrics;
            }
            assert!(
                Instant::now() < deadline,
                "{waiting} messages and requests still wait; {}\n{}",
                faults.join("; "),
                metrics.text
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOUND: &str = "\
tidegate_messages_received_total{qos=\"0\"} 3
tidegate_messages_made_total{by=\"rule\"} 1
tidegate_messages_routed_total{outcome=\"matched\"} 3
tidegate_messages_refused_total 1
tidegate_rule_matched_total{rule=\"r\"} 2
tidegate_rule_passed_total{rule=\"r\"} 1
tidegate_rule_skipped_total{rule=\"r\",reason=\"where\"} 1
tidegate_action_received_total{rule=\"r\",action=\"a\"} 1
tidegate_action_delivered_total{rule=\"r\",action=\"a\"} 1
";

    #[test]
    fn every_number_that_is_off_is_a_fault() {
        assert_eq!(Metrics::read(SOUND).faults(), [""; 0]);
        for line in SOUND.lines() {
            let (name, value) = line.rsplit_once(' ').unwrap();
            let more = value.parse::<u64>().unwrap() + 1;
            let off = SOUND.replace(line, &format!("{name} {more}"));
            assert_eq!(Metrics::read(&off).faults().len(), 1, "{name}");
        }
        let lost = format!("{SOUND}tidegate_messages_delivered_total{{qos=\"0\"}} 1\n");
        assert_eq!(Metrics::read(&lost).faults().len(), 1);
    }
}
