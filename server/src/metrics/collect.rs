//! From the counters of the parts to the families of the page.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use actions::Snapshot;
use actions::dead_letters::DeadLetters;
use actions::delivery::CircuitState;
use broker::{Broker, Stats};
use store::{DurableStore, Health};

use super::families as f;
use super::page::Page;
use super::process;
use crate::access::Access;
use crate::alarms::Alarms;
use crate::otlp::Exporter;
use crate::rules::{ActionStats, RuleBook, RuleStats};

/// Label of the rules, and of the actions of rules, that have none of their own.
pub(crate) const OTHER: &str = "_other";

/// Where counters are.
#[derive(Clone)]
pub(crate) struct Sources {
    pub(crate) broker: Broker,
    pub(crate) book: RuleBook,
    pub(crate) store: Option<Arc<DurableStore>>,
    pub(crate) access: Option<Arc<Access>>,
    pub(crate) alarms: Arc<Alarms>,
    pub(crate) exporter: Arc<Exporter>,
    pub(crate) started_at_ms: i64,
    /// Rules that have labels of their own.
    pub(crate) rules_max: usize,
}

impl Sources {
    /// Reads all counters. Looks at every session and asks the disk, so it belongs where blocking is allowed.
    pub(crate) fn collect(&self) -> Page {
        let started = Instant::now();
        let mut page = Page::default();
        page.add(&f::BUILD, &[env!("CARGO_PKG_VERSION")], 1);
        page.add(&f::START, &[], seconds(self.started_at_ms));
        process::add(&mut page);
        let stats = self.broker.stats();
        self.connections(&mut page, &stats);
        messages(&mut page, &stats);
        self.sessions(&mut page, &stats);
        self.rules(&mut page);
        self.access(&mut page, &stats);
        self.traces(&mut page);
        if let Some(store) = &self.store {
            store_figures(&mut page, store);
        }
        for (kind, standing, raised) in self.alarms.board.lock().counts() {
            page.add(&f::ALARMS, &[kind.as_str()], standing);
            page.add(&f::ALARMS_RAISED, &[kind.as_str()], raised);
        }
        page.add(&f::COLLECT, &[], started.elapsed().as_secs_f64());
        page
    }

    fn connections(&self, page: &mut Page, stats: &Stats) {
        page.add(&f::CONNECTIONS, &[], stats.connections);
        page.add(&f::CONNECTIONS_OPENED, &[], stats.connections_opened);
        for (reason, count) in [
            ("connect", stats.connects_refused),
            ("connect_timeout", stats.limit_connect_timeout),
            ("handshake_timeout", stats.handshake_timeouts),
            ("handshakes", stats.handshakes_refused),
            ("max_connections", stats.connections_refused),
            ("proxy", stats.proxied_refused),
            ("tls", stats.tls_failed),
            ("websocket", stats.websocket_failed),
        ] {
            page.add(&f::CONNECTIONS_REFUSED, &[reason], count);
        }
        for (reason, count) in [
            ("identity_expired", stats.identities_expired),
            ("keep_alive", stats.keep_alive_timeouts),
            ("panic", stats.connection_panics),
            ("protocol_error", stats.protocol_errors),
            ("takeover", stats.takeovers),
        ] {
            page.add(&f::CONNECTIONS_CLOSED, &[reason], count);
        }
        for count in self.broker.packets() {
            let kind = count.kind.name().to_ascii_lowercase();
            page.add(&f::PACKETS, &[&kind, "in"], count.received);
            page.add(&f::PACKETS, &[&kind, "out"], count.sent);
        }
        page.add(&f::SOCKET_BYTES, &["in"], stats.bytes_received);
        page.add(&f::SOCKET_BYTES, &["out"], stats.bytes_sent);
        for (name, count) in stats.named() {
            if let Some(limit) = name.strip_prefix("limit_") {
                page.add(&f::LIMITS, &[limit], count);
            }
        }
    }

    fn sessions(&self, page: &mut Page, stats: &Stats) {
        let connected = stats.connections.min(stats.sessions);
        page.add(&f::SESSIONS, &["connected"], connected);
        page.add(&f::SESSIONS, &["disconnected"], stats.sessions - connected);
        page.add(&f::SUBSCRIPTIONS, &[], stats.subscriptions);
        page.add(&f::RETAINED, &[], stats.retained_messages);
        page.add(&f::RETAINED_BYTES, &[], stats.retained_bytes);
        page.add(&f::QUEUE_MEMORY, &[], stats.queued_memory_bytes);
        let queues = self.broker.session_queues(0);
        page.add(&f::INFLIGHT, &[], queues.inflight);
        page.add(&f::QUEUE, &["sessions"], queues.messages);
        page.add(&f::QUEUE_BYTES, &["sessions"], queues.bytes + queues.disk_bytes);
        page.add(&f::QUEUE_AGE, &["sessions"], thousandths(queues.oldest_age_ms.unwrap_or(0)));
    }

    fn rules(&self, page: &mut Page) {
        let mut rules = self.book.pipeline().stats();
        // Those that were loaded first keep their labels, whatever comes later.
        rules.sort_unstable_by_key(|rule| rule.number);
        let named: HashSet<&str> = rules.iter().take(self.rules_max).map(|rule| rule.name.as_str()).collect();
        let names = Names { named, rules_max: self.rules_max };
        for rule in &rules {
            let label = names.of(&rule.name);
            rule_figures(page, label, rule);
            for action in &rule.actions {
                let action_label = if label == OTHER { OTHER } else { &action.name };
                action_figures(page, [label, action_label], action);
            }
        }
        let (entries, _) = self.book.actions(None, usize::MAX, |entry| entry.delivery.is_some());
        for entry in &entries {
            let label = names.of(&entry.rule);
            let labels = if label == OTHER { [OTHER, OTHER] } else { [label, &entry.name] };
            if let Some(delivery) = &entry.delivery {
                delivery_figures(page, labels, delivery, entry.disk_bytes);
            }
        }
        if let Some(store) = &self.store {
            for (outbox, letters) in DeadLetters::new(Arc::clone(store)).counts() {
                let (rule, action) = outbox.split_once('/').unwrap_or((&outbox, ""));
                let label = names.of(rule);
                let action = if label == OTHER { OTHER } else { action };
                page.add(&f::LETTERS, &[label, action], letters);
            }
        }
    }

    fn traces(&self, page: &mut Page) {
        let counts = self.broker.tracer().counts();
        page.add(&f::TRACES_BEGUN, &[], counts.begun);
        page.add(&f::TRACE_SPANS, &[], counts.spans);
        page.add(&f::TRACE_ERRORS_UNTOLD, &[], counts.errors_untold);
        page.add(&f::TRACES, &[], u64::try_from(counts.kept).unwrap_or(u64::MAX));
        page.add(&f::TRACE_BYTES, &[], u64::try_from(counts.kept_bytes).unwrap_or(u64::MAX));
        let exported = self.exporter.counts();
        for (outcome, count) in [
            ("exported", exported.exported),
            ("failed", exported.dropped_failed),
            ("queue_full", exported.dropped_full),
            ("rejected", exported.rejected),
        ] {
            page.add(&f::EXPORT_SPANS, &[outcome], count);
        }
        page.add(&f::EXPORT_REQUESTS, &[], exported.requests);
        page.add(&f::EXPORT_QUEUE, &[], u64::try_from(exported.waiting).unwrap_or(u64::MAX));
    }

    fn access(&self, page: &mut Page, stats: &Stats) {
        let figures = self.broker.access_figures();
        for (figure, kind) in
            [("authentication/accepted", "proven"), ("authentication/anonymous", "anonymous")]
        {
            if let Some((_, count)) = figures.iter().find(|(name, _)| *name == figure) {
                page.add(&f::AUTH_ACCEPTED, &[kind], *count);
            }
        }
        for (method, reason, count) in self.access.iter().flat_map(|access| access.refusals()) {
            page.add(&f::AUTH_FAILURES, &[&method, reason], count);
        }
        page.add(&f::AUTH_FAILURES, &["none", "timeout"], stats.authentication_timeouts);
        for (op, count) in [
            ("client_id", stats.client_ids_refused),
            ("publish", stats.publishes_denied),
            ("receive", stats.dropped_not_authorized),
            ("rule_output", stats.rule_output_denied),
            ("session", stats.takeovers_refused),
            ("subscribe", stats.subscriptions_denied),
            ("will", stats.wills_denied),
        ] {
            page.add(&f::ACL_DENIED, &[op], count);
        }
        for (listener, expires_at_s) in self.broker.certificates() {
            #[expect(clippy::cast_precision_loss, reason = "seconds since 1970")]
            page.add(&f::CERTIFICATES, &[&listener], expires_at_s as f64);
        }
    }
}

/// Which rules have labels of their own.
struct Names<'r> {
    named: HashSet<&'r str>,
    rules_max: usize,
}

impl Names<'_> {
    /// The label of a rule. What is still sent for one that doesn't run is named while there is room.
    fn of<'n>(&self, rule: &'n str) -> &'n str {
        if self.named.contains(rule) || self.named.len() < self.rules_max { rule } else { OTHER }
    }
}

fn messages(page: &mut Page, stats: &Stats) {
    for (qos, (received, delivered)) in
        ["0", "1", "2"].into_iter().zip(stats.received_by_qos().into_iter().zip(stats.delivered_by_qos()))
    {
        page.add(&f::RECEIVED, &[qos], received);
        page.add(&f::DELIVERED, &[qos], delivered);
    }
    page.add(&f::REPEATED, &[], stats.messages_repeated);
    page.add(&f::MADE, &["rule"], stats.messages_republished);
    page.add(&f::MADE, &["gateway"], stats.messages_own);
    page.add(&f::ROUTED, &["matched"], stats.messages_matched);
    page.add(&f::ROUTED, &["unmatched"], stats.messages_unmatched);
    page.add(&f::REFUSED, &[], stats.messages_refused);
    for (reason, count) in stats.dropped_by_reason() {
        page.add(&f::DROPPED, &[reason], count);
    }
    page.add(&f::PAYLOAD_BYTES, &["in"], stats.payload_bytes_received);
    page.add(&f::PAYLOAD_BYTES, &["out"], stats.payload_bytes_delivered);
}

fn rule_figures(page: &mut Page, rule: &str, stats: &RuleStats) {
    page.add(&f::RULE_MATCHED, &[rule], stats.matched);
    page.add(&f::RULE_PASSED, &[rule], stats.passed);
    for (reason, count) in [("loop", stats.looped), ("no_output", stats.no_output), ("where", stats.no_match)]
    {
        page.add(&f::RULE_SKIPPED, &[rule, reason], count);
    }
    let of_actions = |count: fn(&ActionStats) -> u64| stats.actions.iter().map(count).sum::<u64>();
    for (stage, count) in [
        ("action", of_actions(|action| action.hop_limited + action.refused + action.backpressure)),
        ("error_action", stats.error_actions_failed),
        ("evaluation", stats.failed_evaluation),
        ("template", of_actions(|action| action.failed_render)),
    ] {
        page.add(&f::RULE_FAILED, &[rule, stage], count);
    }
    page.add(&f::RULE_EVAL, &[rule], stats.evaluation.clone());
    if let Some(at_ms) = stats.last_match_at_ms {
        page.add(&f::RULE_LAST_MATCH, &[rule], seconds(at_ms));
    }
}

fn action_figures(page: &mut Page, labels: [&str; 2], stats: &ActionStats) {
    let [rule, action] = labels;
    page.add(&f::ACTION_REQUESTS, &labels, stats.requests);
    for (stage, count) in [
        ("hop_limit", stats.hop_limited),
        ("queue_full", stats.backpressure),
        ("refused", stats.refused),
        ("template", stats.failed_render),
    ] {
        page.add(&f::ACTION_REFUSED, &[rule, action, stage], count);
    }
}

fn delivery_figures(page: &mut Page, labels: [&str; 2], delivery: &Snapshot, disk_bytes: Option<u64>) {
    let [rule, action] = labels;
    let owner = if rule == OTHER { OTHER.to_owned() } else { format!("{rule}/{action}") };
    page.add(&f::QUEUE, &[&owner], delivery.queued);
    page.add(&f::QUEUE_BYTES, &[&owner], disk_bytes.unwrap_or(0).max(delivery.bytes));
    page.add(&f::QUEUE_AGE, &[&owner], delivery.oldest_age.unwrap_or_default().as_secs_f64());
    page.add(&f::ACTION_AT_START, &labels, delivery.queued_at_start);
    page.add(&f::ACTION_RECEIVED, &labels, delivery.received);
    page.add(&f::ACTION_DELIVERED, &labels, delivery.delivered);
    let failed = delivery.attempts.saturating_sub(delivery.delivered + delivery.in_flight);
    page.add(&f::ACTION_ATTEMPTS, &[rule, action, "delivered"], delivery.delivered);
    page.add(&f::ACTION_ATTEMPTS, &[rule, action, "failed"], failed);
    page.add(&f::ACTION_RETRIES, &labels, delivery.retried);
    for (reason, count) in delivery.dead_lettered {
        page.add(&f::ACTION_DEAD, &[rule, action, reason.as_str()], count);
    }
    for (reason, count) in delivery.dropped {
        page.add(&f::ACTION_DROPPED, &[rule, action, reason.as_str()], count);
    }
    page.add(&f::ACTION_INFLIGHT, &labels, delivery.in_flight);
    let circuit = match delivery.health.circuit {
        CircuitState::Closed => 0,
        CircuitState::HalfOpen => 1,
        CircuitState::Open => 2,
    };
    page.add(&f::ACTION_CIRCUIT, &labels, circuit);
    page.add(&f::ACTION_PAUSED, &labels, u64::from(delivery.is_paused));
    page.add(&f::ACTION_LATENCY, &labels, delivery.latency.clone());
    page.add(&f::LETTERS_DROPPED, &labels, delivery.letters_dropped);
}

fn store_figures(page: &mut Page, store: &DurableStore) {
    let counters = store.counters();
    page.add(&f::FSYNC, &[], store.sync_times());
    page.add(&f::STORE_COMMITS, &[], counters.commits);
    page.add(&f::STORE_FRAMES, &["appended"], counters.frames_appended);
    page.add(&f::STORE_FRAMES, &["spared"], counters.frames_spared);
    page.add(&f::STORE_WRITTEN, &["log"], counters.log_bytes);
    page.add(&f::STORE_WRITTEN, &["moved"], counters.moved_bytes);
    page.add(&f::STORE_WRITTEN, &["index"], counters.index_bytes);
    let (log, live) = store.log_bytes();
    page.add(&f::STORE_BYTES, &["live"], live.min(log));
    page.add(&f::STORE_BYTES, &["dead"], log.saturating_sub(live));
    for (kind, count) in [
        ("debts", counters.debts_lost),
        ("retained", counters.retained_lost),
        ("segments", counters.segments_damaged),
    ] {
        page.add(&f::STORE_LOST, &[kind], count);
    }
    let state = match store.health() {
        Health::Sound => 0,
        Health::Full { .. } => 1,
        Health::Failed => 2,
    };
    page.add(&f::STORE_HEALTH, &[], state);
    match store.free_bytes() {
        Ok(free) => page.add(&f::DISK_FREE, &[], free),
        Err(error) => tracing::debug!(%error, "the disk doesn't tell how much is free"),
    }
}

/// Milliseconds since the epoch as seconds.
#[expect(clippy::cast_precision_loss, reason = "a time of our age has millisecond precision as a float")]
fn seconds(ms: i64) -> f64 {
    ms as f64 / 1_000.0
}

#[expect(clippy::cast_precision_loss, reason = "an age")]
fn thousandths(ms: u64) -> f64 {
    ms as f64 / 1_000.0
}
