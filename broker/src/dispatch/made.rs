//! What rules make of a message, before anything of it is copied.

use std::sync::Arc;

use store::MessageId;

use crate::broker::Shared;
use crate::clock::Now;
use crate::hook::Republish;
use crate::message::{Publication, Trail};
use crate::subscriptions::route::Route;

/// Messages that rules may make of one publish, chains included.
const REPUBLISHED_MAX: usize = 10_000;

/// A message that a rule made, checked, with its way.
pub(super) struct Made {
    republish: Republish,
    id: MessageId,
    namespace: u32,
    trail: Trail,
    expires_at_ms: Option<u64>,
    received_at_ms: i64,
    pub(super) route: Arc<Route>,
}

impl Made {
    /// Checks what a rule makes of `source`, and gives it an identity and a way. `None` when it may not be; that is
    /// counted. `before`: so many were made of the same publish.
    pub(super) fn new(
        shared: &Shared,
        source: &Publication<'_>,
        republish: Republish,
        before: usize,
        now: Now,
    ) -> Option<Self> {
        if before >= REPUBLISHED_MAX {
            shared.metrics.dropped_rule_output.add(1);
            return None;
        }
        let Republish { run_as, topic, qos, retain, .. } = &republish;
        if !shared.may_run_as(run_as.as_ref(), topic, *qos, *retain) {
            return None;
        }
        if !may_make(shared, source, &republish) {
            shared.metrics.dropped_rule_output.add(1);
            return None;
        }
        shared.metrics.messages_republished.add(1);
        Some(Self {
            id: shared.next_message_id(),
            namespace: source.namespace,
            trail: source.trail.with(republish.rule),
            expires_at_ms: now.expiry(republish.message_expiry_interval_s),
            received_at_ms: now.wall_ms,
            route: shared.route(&republish.topic),
            republish,
        })
    }

    /// The message.
    pub(super) fn publication(&self) -> Publication<'_> {
        let Republish { topic, payload, qos, retain, properties, trace, .. } = &self.republish;
        Publication {
            id: self.id,
            namespace: self.namespace,
            topic,
            payload,
            qos: *qos,
            retain: *retain,
            properties,
            expires_at_ms: self.expires_at_ms,
            received_at_ms: self.received_at_ms,
            publisher: None,
            trail: &self.trail,
            trace: trace.as_ref(),
        }
    }
}

/// Whether a rule's message is within the limits, and the rule doesn't see its own again.
fn may_make(shared: &Shared, source: &Publication<'_>, republish: &Republish) -> bool {
    let hops = source.trail.rules();
    let Republish { rule, topic, payload, properties, .. } = republish;
    hops.len() < usize::from(shared.config.limits.max_rule_hops)
        && !hops.contains(rule)
        && shared.check_topic_name(topic).is_ok()
        && shared.check_size(topic, payload, properties).is_ok()
}
