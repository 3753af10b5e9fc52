//! The table of what is shown at `/metrics`: name, kind, labels and meaning of every family.
//!
//! docs/metrics.md is made from it, and nothing can be shown that isn't in it.

/// What the values of a family are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Only grows, from 0 at the start of the process.
    Counter,
    /// How much there is.
    Gauge,
    /// Durations by upper bounds, in seconds.
    Histogram,
    /// What stands in its labels; the value is 1.
    Info,
}

/// What becomes of the values of things that share the label `_other`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Together {
    /// They add up.
    Sum,
    /// The largest stands for all.
    Max,
}

/// All values of one name.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Family {
    /// Without `_total`, `_info`, `_bucket`.
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    /// Names of its labels.
    pub(crate) labels: &'static [&'static str],
    pub(crate) together: Together,
    /// One sentence, without a full stop.
    pub(crate) help: &'static str,
}

impl Family {
    /// Its unit, as names say it.
    pub(crate) fn unit(&self) -> Option<&'static str> {
        ["seconds", "bytes"]
            .into_iter()
            .find(|unit| self.name.strip_suffix(unit).is_some_and(|before| before.ends_with('_')))
    }

    /// The name that its values have.
    pub(crate) fn shown(&self) -> String {
        match self.kind {
            Kind::Counter => format!("{}_total", self.name),
            Kind::Info => format!("{}_info", self.name),
            Kind::Gauge | Kind::Histogram => self.name.to_owned(),
        }
    }
}

macro_rules! families {
    ($($name:ident: $kind:ident $together:ident $text:literal [$($label:literal),*] $help:literal;)*) => {
        $(pub(crate) static $name: Family = Family {
            name: $text,
            kind: Kind::$kind,
            labels: &[$($label),*],
            together: Together::$together,
            help: $help,
        };)*

        /// All of them, in the order in which they are shown.
        pub(crate) static ALL: &[&Family] = &[$(&$name),*];
    };
}

families! {
    BUILD: Info Sum "tidegate_build" ["version"]
        "Version of the program";
    START: Gauge Sum "tidegate_start_time_seconds" []
        "When the gateway was started, seconds since 1970";
    COLLECT: Gauge Sum "tidegate_collect_duration_seconds" []
        "How long it took to put these values together";

    ALARMS: Gauge Sum "tidegate_alarms" ["alarm"]
        "Alarms that stand";
    ALARMS_RAISED: Counter Sum "tidegate_alarms_raised" ["alarm"]
        "Alarms that were raised";

    CONNECTIONS: Gauge Sum "tidegate_mqtt_connections" []
        "Network Connections with an accepted CONNECT";
    CONNECTIONS_OPENED: Counter Sum "tidegate_mqtt_connections_opened" []
        "Network Connections that listeners accepted";
    CONNECTIONS_REFUSED: Counter Sum "tidegate_mqtt_connections_refused" ["reason"]
        "Network Connections closed before a CONNECT was accepted";
    CONNECTIONS_CLOSED: Counter Sum "tidegate_mqtt_connections_closed" ["reason"]
        "Open Network Connections that the gateway closed, by those reasons that are counted";
    PACKETS: Counter Sum "tidegate_mqtt_packets" ["type", "direction"]
        "Control Packets read from clients (in) and written for them (out)";
    SOCKET_BYTES: Counter Sum "tidegate_mqtt_socket_bytes" ["direction"]
        "Bytes read from sockets (in) and written to them (out)";
    LIMITS: Counter Sum "tidegate_limit_reached" ["limit"]
        "Times that a limit of the broker was reached";

    RECEIVED: Counter Sum "tidegate_messages_received" ["qos"]
        "PUBLISH packets of clients, whatever became of them";
    REPEATED: Counter Sum "tidegate_messages_repeated" []
        "PUBLISH packets at QoS 2 whose first copy was here already";
    MADE: Counter Sum "tidegate_messages_made" ["by"]
        "Messages made here: by rules, and by the gateway itself ($SYS, wills, administrators, error actions)";
    ROUTED: Counter Sum "tidegate_messages_routed" ["outcome"]
        "Messages that matched a Subscription, or none";
    REFUSED: Counter Sum "tidegate_messages_refused" []
        "Messages that nobody received because something was against it: rights, a limit, a full queue";
    DELIVERED: Counter Sum "tidegate_messages_delivered" ["qos"]
        "Messages handed to receivers, sent or queued; one for each receiver";
    DROPPED: Counter Sum "tidegate_messages_dropped" ["reason"]
        "Messages that a receiver should have had and didn't get";
    PAYLOAD_BYTES: Counter Sum "tidegate_messages_payload_bytes" ["direction"]
        "Payload bytes of messages received (in) and handed to receivers (out)";

    SESSIONS: Gauge Sum "tidegate_sessions" ["state"]
        "Sessions, connected and not";
    SUBSCRIPTIONS: Gauge Sum "tidegate_subscriptions" []
        "Subscriptions";
    INFLIGHT: Gauge Sum "tidegate_sessions_inflight_messages" []
        "Messages of sessions that were sent and aren't acknowledged, and those that stand before them";
    RETAINED: Gauge Sum "tidegate_retained_messages" []
        "Retained Messages";
    RETAINED_BYTES: Gauge Sum "tidegate_retained_bytes" []
        "Bytes of all Retained Messages";
    QUEUE_MEMORY: Gauge Sum "tidegate_sessions_queue_memory_bytes" []
        "Bytes of messages in the queues of sessions and Shared Subscriptions that are in memory, counted in each queue";

    QUEUE: Gauge Sum "tidegate_queue_messages" ["owner"]
        "Messages that wait: in the queues of sessions that are in memory (owner sessions), and for an action (owner rule/action)";
    QUEUE_BYTES: Gauge Sum "tidegate_queue_bytes" ["owner"]
        "Bytes of what waits, on disk where the queue is kept there";
    QUEUE_AGE: Gauge Max "tidegate_queue_oldest_age_seconds" ["owner"]
        "Age of what has waited longest, as far as it is in memory";

    RULE_MATCHED: Counter Sum "tidegate_rule_matched" ["rule"]
        "Messages on a topic that FROM matches";
    RULE_PASSED: Counter Sum "tidegate_rule_passed" ["rule"]
        "Messages that WHERE let pass and that gave an output";
    RULE_SKIPPED: Counter Sum "tidegate_rule_skipped" ["rule", "reason"]
        "Messages without an output: WHERE held them back (where), nothing was selected (no_output), or the rule had made them (loop)";
    RULE_FAILED: Counter Sum "tidegate_rule_failed" ["rule", "stage"]
        "Failures: of evaluations, of templates, of actions that took no request, of error actions";
    RULE_EVAL: Histogram Sum "tidegate_rule_eval_seconds" ["rule"]
        "How long evaluations took, of those that were timed (one in metrics.rule_sample)";
    RULE_LAST_MATCH: Gauge Max "tidegate_rule_last_match_timestamp_seconds" ["rule"]
        "When a message passed last, seconds since 1970";

    ACTION_REQUESTS: Counter Sum "tidegate_action_requests" ["rule", "action"]
        "Requests handed to the action's queue; of a republish, those handed to the broker";
    ACTION_REFUSED: Counter Sum "tidegate_action_failed" ["rule", "action", "stage"]
        "Messages for which no request came about: template, hop_limit, refused, queue_full (its publisher has to wait)";
    ACTION_AT_START: Counter Sum "tidegate_action_queued_at_start" ["rule", "action"]
        "Requests that the queue found on disk when it began";
    ACTION_RECEIVED: Counter Sum "tidegate_action_received" ["rule", "action"]
        "Requests given to the queue since, those that it refused included";
    ACTION_ATTEMPTS: Counter Sum "tidegate_action_attempts" ["rule", "action", "outcome"]
        "Times that a request was handed to the sink and came back: delivered, or failed";
    ACTION_RETRIES: Counter Sum "tidegate_action_retries" ["rule", "action"]
        "Times that a request was handed to the sink after its first";
    ACTION_DELIVERED: Counter Sum "tidegate_action_delivered" ["rule", "action"]
        "Requests that the far side confirmed";
    ACTION_DEAD: Counter Sum "tidegate_action_dead_lettered" ["rule", "action", "reason"]
        "Requests that became dead letters";
    ACTION_DROPPED: Counter Sum "tidegate_action_dropped" ["rule", "action", "reason"]
        "Requests that were dropped";
    ACTION_INFLIGHT: Gauge Sum "tidegate_action_inflight" ["rule", "action"]
        "Requests handed to the sink and not come back";
    ACTION_CIRCUIT: Gauge Max "tidegate_action_circuit_state" ["rule", "action"]
        "Whether the far side takes requests: 0 closed (it does), 1 half open (it is tried), 2 open (a pause)";
    ACTION_PAUSED: Gauge Max "tidegate_action_paused" ["rule", "action"]
        "Whether an operator has stopped the sending: 1 if so";
    ACTION_LATENCY: Histogram Sum "tidegate_action_latency_seconds" ["rule", "action"]
        "How long confirmed requests took from being handed to the sink";
    LETTERS: Gauge Sum "tidegate_deadletter_messages" ["rule", "action"]
        "Dead letters that are kept";
    LETTERS_DROPPED: Counter Sum "tidegate_deadletter_dropped" ["rule", "action"]
        "Dead letters that gave way to younger ones, or to age";

    AUTH_ACCEPTED: Counter Sum "tidegate_auth_accepted" ["kind"]
        "Clients let in: with proof of who they are (proven), or without (anonymous)";
    AUTH_FAILURES: Counter Sum "tidegate_auth_failures" ["method", "reason"]
        "Clients kept outside, by the method that decided (none: none did)";
    ACL_DENIED: Counter Sum "tidegate_acl_denied" ["op"]
        "What was denied: publish, subscribe, receive, will, rule_output, session (of another user), client_id";
    CERTIFICATES: Gauge Max "tidegate_tls_certificate_expiry_timestamp_seconds" ["listener"]
        "When the first certificate of a listener expires, seconds since 1970";

    TRACES_BEGUN: Counter Sum "tidegate_traces_begun" []
        "Traces that were begun here";
    TRACE_SPANS: Counter Sum "tidegate_trace_spans" []
        "Spans of all traces";
    TRACE_ERRORS_UNTOLD: Counter Sum "tidegate_trace_errors_untold" []
        "Errors of messages that weren't traced and got no trace of their own, because there were too many in that second";
    TRACES: Gauge Sum "tidegate_traces" []
        "Traces that are kept";
    TRACE_BYTES: Gauge Sum "tidegate_trace_bytes" []
        "Bytes of the traces that are kept";
    EXPORT_SPANS: Counter Sum "tidegate_trace_export_spans" ["outcome"]
        "Spans for the collector: those that it took (exported) and refused (rejected), and those it didn't get: no room (queue_full), no success in time (failed)";
    EXPORT_REQUESTS: Counter Sum "tidegate_trace_export_requests" []
        "Requests to the collector, repetitions included";
    EXPORT_QUEUE: Gauge Sum "tidegate_trace_export_queue_spans" []
        "Spans that wait to be sent to the collector";

    FSYNC: Histogram Sum "tidegate_store_fsync_seconds" []
        "How long the syncs of group commits took";
    STORE_COMMITS: Counter Sum "tidegate_store_commits" []
        "Group commits";
    STORE_FRAMES: Counter Sum "tidegate_store_frames" ["outcome"]
        "Frames accepted (appended), and those that needn't be written because all in them was paid in time (spared)";
    STORE_WRITTEN: Counter Sum "tidegate_store_written_bytes" ["class"]
        "Bytes written to the log, those of them that were moved, and bytes written to checkpoints and directories (index)";
    STORE_BYTES: Gauge Sum "tidegate_store_bytes" ["class"]
        "Bytes of the log on disk: those that somebody needs (live), and those that nobody does (dead)";
    STORE_LOST: Counter Sum "tidegate_store_lost" ["kind"]
        "What turned out to be unreadable: segments, queued messages and requests (debts), Retained Messages";
    STORE_HEALTH: Gauge Max "tidegate_store_state" []
        "How the store is: 0 sound, 1 full, 2 failed";
    DISK_FREE: Gauge Sum "tidegate_disk_free_bytes" []
        "Bytes free on the disk of the store";

    CPU: Counter Sum "process_cpu_seconds" []
        "Processor time of the process";
    MEMORY: Gauge Sum "process_resident_memory_bytes" []
        "Memory of the process that is in use";
    FILES: Gauge Sum "process_open_fds" []
        "Open files and sockets of the process";
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    /// The lines of docs/metrics.md that are made from the table.
    fn lines() -> String {
        let mut lines = String::new();
        for family in ALL {
            let kind = format!("{:?}", family.kind).to_lowercase();
            let labels: Vec<_> = family.labels.iter().map(|label| format!("`{label}`")).collect();
            writeln!(lines, "| `{}` | {kind} | {} | {} |", family.shown(), labels.join(", "), family.help)
                .unwrap();
        }
        lines
    }

    #[test]
    fn the_page_describes_every_family() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");
        let heading = "| name | kind | labels | what |\n| --- | --- | --- | --- |\n";
        let page = std::fs::read_to_string(path).unwrap();
        let (before, rest) = page.split_once(heading).unwrap();
        let (table, after) = rest.split_once("\n\n").map_or(("", rest), |(table, after)| (table, after));
        if std::env::var_os("METRICS_REWRITE").is_some() {
            std::fs::write(path, format!("{before}{heading}{}\n{after}", lines())).unwrap();
            return;
        }
        assert_eq!(
            format!("{table}\n"),
            lines(),
            "METRICS_REWRITE=1 cargo test -p tidegate the_page_describes writes it"
        );
    }

    #[test]
    fn names_are_those_of_the_conventions() {
        let mut names: Vec<_> = ALL.iter().map(|family| family.name).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "a name stands there twice");
        for family in ALL {
            let name = family.name;
            assert!(name.starts_with("tidegate_") || name.starts_with("process_"), "{name}");
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
            assert!(
                !["_total", "_info", "_count", "_sum", "_bucket"].iter().any(|end| name.ends_with(end)),
                "{name}"
            );
            assert!(!family.help.ends_with('.'), "{name}");
            assert!(family.kind != Kind::Histogram || family.unit() == Some("seconds"), "{name}");
        }
    }

    #[test]
    fn labels_name_nothing_that_clients_choose() {
        let known = [
            "action",
            "alarm",
            "by",
            "class",
            "direction",
            "kind",
            "limit",
            "listener",
            "method",
            "op",
            "outcome",
            "owner",
            "qos",
            "reason",
            "rule",
            "stage",
            "state",
            "type",
            "version",
        ];
        for family in ALL {
            assert!(family.labels.iter().all(|label| known.contains(label)), "{}", family.name);
        }
    }
}
