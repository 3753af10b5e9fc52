//! Asking whether a client may: before it publishes, subscribes or leaves a will, and before it receives.
//!
//! Publishing is asked about for each topic, and the last answers are kept. Receiving is asked about only where it has to be: a
//! Subscription that is allowed as a whole receives everything that it matches, so most sessions have no [`Guard`]. One gets
//! one when a Subscription is allowed in part, when rules changed and a Subscription of before isn't allowed any more, and
//! for as long as messages wait that were queued for it, or sent to it, before its client came back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mqtt_protocol::QoS;
use mqtt_protocol::topic::{ParsedFilter, parse_filter};

use crate::access::{AccessControl, Action, Decision};
use crate::author;
use crate::broker::Shared;
use crate::message::{Message, Publisher};
use crate::session::{SessionInner, SessionSubscription};

/// Answers about publishing that are kept for one client.
const RECENT_MAX: usize = 8;

/// Denials that are told in one second; those beyond it are counted only.
const TOLD_PER_SECOND: u64 = 10;

/// The last answers about what one client may publish.
#[derive(Debug, Default)]
pub(crate) struct PublishRights {
    recent: Vec<Recent>,
    next: usize,
}

#[derive(Debug)]
struct Recent {
    topic: String,
    qos: QoS,
    retain: bool,
    version: u64,
    is_allowed: bool,
}

impl PublishRights {
    /// Whether the client may publish this.
    pub(crate) fn allow(
        &mut self,
        shared: &Shared,
        who: &Publisher,
        topic: &str,
        qos: QoS,
        retain: bool,
    ) -> bool {
        if shared.access.is_open(who) {
            return true;
        }
        // Read before the question: an answer of before the change counts as one.
        let version = shared.access.version();
        let known = self.recent.iter().find(|recent| {
            recent.version == version && recent.qos == qos && recent.retain == retain && recent.topic == topic
        });
        if let Some(known) = known {
            return known.is_allowed;
        }
        let is_allowed = shared.may_publish(who, topic, qos, retain);
        if self.recent.len() < RECENT_MAX {
            self.recent.push(Recent { topic: topic.to_owned(), qos, retain, version, is_allowed });
        } else if let Some(oldest) = self.recent.get_mut(self.next) {
            self.next = (self.next + 1) % RECENT_MAX;
            topic.clone_into(&mut oldest.topic);
            *oldest = Recent { topic: std::mem::take(&mut oldest.topic), qos, retain, version, is_allowed };
        }
        is_allowed
    }

    /// The client is somebody else now.
    pub(crate) fn forget(&mut self) {
        *self = Self::default();
    }
}

/// Asks about each message before its client gets it.
#[derive(Debug)]
pub(crate) struct Guard {
    access: Arc<dyn AccessControl>,
    who: Arc<Publisher>,
    last: Option<(String, u64, bool)>,
    /// Nothing but what waits has to be asked about.
    is_for_waiting: bool,
}

impl Guard {
    /// Whether it is needed no longer than messages of before wait.
    pub(crate) fn is_for_waiting(&self) -> bool {
        self.is_for_waiting
    }

    /// Whether the client may have a message of this topic.
    pub(crate) fn permits(&mut self, topic: &str) -> bool {
        let version = self.access.version();
        if let Some((last, of_version, answer)) = &self.last
            && *of_version == version
            && last == topic
        {
            return *answer;
        }
        let answer = match self.access.decide(&self.who, Action::Receive { topic }) {
            Decision::Allow | Decision::AllowInPart => true,
            Decision::Deny(by) => {
                tracing::debug!(client_id = %self.who.client_id, topic, %by, "a message isn't for this client");
                false
            }
        };
        let mut text = self.last.take().map(|(last, ..)| last).unwrap_or_default();
        topic.clone_into(&mut text);
        self.last = Some((text, version, answer));
        answer
    }
}

/// How many denials were told lately.
#[derive(Debug, Default)]
pub(crate) struct Denials {
    second: AtomicU64,
    told: AtomicU64,
    untold: AtomicU64,
}

impl Denials {
    /// Whether one more may be told now, and how many weren't since the last one that was.
    fn tell(&self, now_ms: u64) -> Option<u64> {
        let second = now_ms / 1000;
        if self.second.swap(second, Ordering::Relaxed) != second {
            self.told.store(0, Ordering::Relaxed);
        }
        if self.told.fetch_add(1, Ordering::Relaxed) < TOLD_PER_SECOND {
            return Some(self.untold.swap(0, Ordering::Relaxed));
        }
        self.untold.fetch_add(1, Ordering::Relaxed);
        None
    }
}

/// The filter of a Subscription without its share.
fn inner_filter(text: &str) -> &str {
    match parse_filter(text) {
        Ok(ParsedFilter::Shared(shared)) => shared.filter,
        Ok(ParsedFilter::Plain(filter)) => filter,
        Err(_) => text,
    }
}

impl Shared {
    /// Whether somebody may publish this; told and not counted.
    pub(crate) fn may_publish(&self, who: &Publisher, topic: &str, qos: QoS, retain: bool) -> bool {
        match self.access.decide(who, Action::Publish { topic, qos, retain }) {
            Decision::Allow | Decision::AllowInPart => true,
            Decision::Deny(by) => {
                self.tell_denial(who, "publish", topic, &by);
                false
            }
        }
    }

    /// Whether a client may subscribe. `None`: no; else whether each message has to be asked about.
    pub(crate) fn may_subscribe(&self, who: &Publisher, filter: &str, qos: QoS) -> Option<bool> {
        match self.access.decide(who, Action::Subscribe { filter, qos }) {
            Decision::Allow => Some(false),
            Decision::AllowInPart => Some(true),
            Decision::Deny(by) => {
                self.metrics.subscriptions_denied.add(1);
                self.tell_denial(who, "subscribe", filter, &by);
                None
            }
        }
    }

    /// Whether the author of a Retained Message or a will may still publish it. What the broker or a rule made has none.
    pub(crate) fn author_may(&self, message: &Message) -> bool {
        let publication = message.publication();
        publication.publisher.is_none_or(|author| {
            self.access.is_open(author)
                || author::is_forgotten(author)
                || self.may_publish(author, publication.topic, publication.qos, publication.retain)
        })
    }

    /// Whether a rule, or the program, may publish this with a user's rights. What clients never write, it doesn't either.
    pub(crate) fn may_run_as(
        &self,
        username: Option<&Arc<str>>,
        topic: &str,
        qos: QoS,
        retain: bool,
    ) -> bool {
        let Some(username) = username else { return true };
        let who = Publisher::running_as(username);
        let may = !topic.starts_with('$')
            && (self.access.is_open(&who) || self.may_publish(&who, topic, qos, retain));
        self.metrics.rule_output_denied.add(u64::from(!may));
        may
    }

    fn tell_denial(&self, who: &Publisher, action: &str, topic: &str, by: &str) {
        let Some(untold) = self.denials.tell(self.clock.now().mono_ms) else { return };
        tracing::info!(
            client_id = %who.client_id, username = who.username(), peer = %who.address, listener = %who.listener,
            action, topic, by, untold, "denied"
        );
    }

    pub(crate) fn guard(&self, who: &Arc<Publisher>) -> Box<Guard> {
        let (access, who) = (Arc::clone(&self.access), Arc::clone(who));
        Box::new(Guard { access, who, last: None, is_for_waiting: false })
    }

    /// Gives a session that is connected a guard if it needs one, or takes it away.
    pub(crate) fn watch_receiver(&self, inner: &mut SessionInner) {
        let Some(who) = inner.client.clone() else { return };
        let is_open = self.access.is_open(&who);
        let is_partial =
            !is_open && inner.subscriptions.iter().any(|subscription| self.is_partial(&who, subscription));
        let needs = is_partial || (!is_open && inner.state.has_waiting());
        inner.state.guard = needs.then(|| {
            let mut guard = self.guard(&who);
            guard.is_for_waiting = !is_partial;
            guard
        });
    }

    /// Whether a Subscription doesn't receive everything that it matches.
    fn is_partial(&self, who: &Publisher, subscription: &SessionSubscription) -> bool {
        let filter = inner_filter(&subscription.filter);
        let decision = self.access.decide(who, Action::Subscribe { filter, qos: QoS::AtMostOnce });
        !matches!(decision, Decision::Allow)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn denials_are_told_up_to_a_limit_and_then_counted() {
        let denials = Denials::default();
        for _ in 0..TOLD_PER_SECOND {
            assert_eq!(denials.tell(5_000), Some(0));
        }
        assert_eq!(denials.tell(5_999), None);
        assert_eq!(denials.tell(5_999), None);
        assert_eq!(denials.tell(6_000), Some(2));
        assert_eq!(denials.tell(6_001), Some(0));
    }
}
