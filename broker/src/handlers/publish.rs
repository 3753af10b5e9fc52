//! PUBLISH from a client, and PUBREL, which releases one at QoS 2.

use std::task::Context;

use mqtt_protocol::{Ack, Publish, QoS, ReasonCode};
use store::Record;

use super::connect::BRIDGE_STATE;
use super::{Answer, Client, Flow, Owed, Position};
use crate::clock::Now;
use crate::connection::Close;
use crate::dispatch::{self, Admission, Received};
use crate::message::{Publication, Trail};
use crate::metrics::tally;
use crate::session::state::Received as FirstCopy;
use crate::traced::{Traced, tell_refused};

impl Client {
    pub(super) fn publish(
        &mut self,
        publish: &Publish<'_>,
        position: &Position,
        cx: &mut Context<'_>,
        now: Now,
    ) -> Result<Flow, Close> {
        if !publish.properties.subscription_identifiers.is_empty() {
            // [MQTT-3.3.4-6, v5]
            return Err(
                self.violation(ReasonCode::ProtocolError, "a Subscription Identifier in a client's PUBLISH")
            );
        }
        let aliased = self.resolve_alias(publish)?;
        let topic = aliased.as_deref().unwrap_or(publish.topic);
        tally(|tally| tally.received(publish.qos, publish.payload.len() as u64));

        let answer = publish.packet_id.map(|id| match publish.qos {
            QoS::ExactlyOnce => Answer::Pubrec(id),
            QoS::AtLeastOnce | QoS::AtMostOnce => Answer::Puback(id),
        });
        if let Some(answer) = answer
            && self.version.has_properties()
        {
            self.check_receive_maximum(answer)
                .inspect_err(|_| self.shared.metrics.messages_refused.add(1))?;
        }
        let mut received = None;
        if let Some(Answer::Pubrec(id)) = answer {
            let mine = self.mine().inspect_err(|_| self.shared.metrics.messages_refused.add(1));
            let is_first = mine?.state.receive(id);
            if !is_first {
                self.shared.metrics.messages_repeated.add(1);
                return Ok(self.duplicate(id, cx));
            }
            received = Some(Received { session: std::sync::Arc::clone(&self.session), id });
        }
        let sampled = self.sampled.take().map(|sampled| *sampled).or_else(|| {
            let properties = &publish.properties.user_properties;
            Traced::sample(&self.shared, topic, &self.publisher, properties)
        });
        if let Some(reason) = self.refusal(publish, topic) {
            self.shared.metrics.messages_refused.add(1);
            tell_refused(&self.shared, sampled, topic, &self.publisher, reason);
            return self.refuse(answer, reason, cx);
        }
        if sampled.is_none() && self.begin_run(publish, position) {
            return Ok(Flow::GoOn);
        }
        let mut traced = sampled.map(|sampled| {
            Traced::begin(&self.shared, sampled, topic, Some(&self.publisher)).spoken(self.version)
        });
        let context = traced.as_ref().map(|traced| *traced.context());
        let properties = publish.properties.forward_bytes();
        let publication = Publication {
            id: self.shared.next_message_id(),
            namespace: 0,
            topic,
            payload: publish.payload,
            qos: publish.qos,
            retain: publish.retain,
            properties: &properties,
            expires_at_ms: now.expiry(publish.properties.message_expiry_interval_s),
            received_at_ms: now.wall_ms,
            publisher: Some(&self.publisher),
            trail: &Trail::default(),
            trace: context.as_ref(),
        };
        if let Some(traced) = &mut traced {
            traced.describe(&publication);
        }
        if self.owed.iter().any(|owed| matches!(owed, Owed::Dispatch(..))) {
            // One before it is still on its way, and order is kept.
            let dispatch = dispatch::Dispatch::behind(&self.shared, &publication, received, traced);
            return self.owe(Box::new(dispatch), answer, cx, now);
        }
        match dispatch::publish(&self.shared, &publication, received.as_ref(), now, &mut traced) {
            Admission::Done(outcome) => {
                if let Some(traced) = traced {
                    traced.done(outcome.matched);
                }
                if let Some(answer) = answer {
                    let reason =
                        if outcome.matched { ReasonCode::Success } else { ReasonCode::NoMatchingSubscribers };
                    self.answer(outcome.token, answer, reason, cx);
                }
                match outcome.slow {
                    Some(slow) => {
                        self.pause_for(slow);
                        Ok(if self.pause.is_some() { Flow::Wait } else { Flow::GoOn })
                    }
                    None => Ok(Flow::GoOn),
                }
            }
            Admission::Suspended(dispatch) => self.owe(dispatch, answer, cx, now),
            Admission::Refused(reason) => {
                match traced {
                    Some(traced) => traced.refused(reason),
                    None => tell_refused(&self.shared, None, topic, &self.publisher, reason),
                }
                self.shared.metrics.publishes_refused.add(1);
                self.shared.metrics.messages_refused.add(1);
                self.refuse(answer, reason, cx)
            }
        }
    }

    /// Notes a message that is on its way, and moves it on.
    fn owe(
        &mut self,
        dispatch: Box<dispatch::Dispatch>,
        answer: Option<Answer>,
        cx: &mut Context<'_>,
        now: Now,
    ) -> Result<Flow, Close> {
        self.owed.push_back(Owed::Dispatch(dispatch, answer));
        self.settle_owed(cx, now)?;
        Ok(if self.takes_input(cx) { Flow::GoOn } else { Flow::Wait })
    }

    /// Notes or looks up the topic of a Topic Alias (MQTT 5.0 §3.3.2.3.4). `None`: no alias, the packet's own topic.
    fn resolve_alias(&mut self, publish: &Publish<'_>) -> Result<Option<Box<str>>, Close> {
        let Some(alias) = publish.properties.topic_alias else { return Ok(None) };
        let place = usize::from(alias.get()) - 1;
        if alias.get() > self.shared.config.limits.topic_alias_maximum {
            self.shared.metrics.limit_topic_alias.add(1);
            return Err(
                self.violation(ReasonCode::TopicAliasInvalid, "Topic Alias above the Topic Alias Maximum")
            );
        }
        if self.aliases.len() <= place {
            self.aliases.resize(place + 1, None);
        }
        let slot = self.aliases.get_mut(place);
        if publish.topic.is_empty() {
            return match slot.and_then(|slot| slot.clone()) {
                Some(topic) => Ok(Some(topic)),
                None => {
                    Err(self.violation(ReasonCode::ProtocolError, "Topic Alias without a topic known for it"))
                }
            };
        }
        if let Some(slot) = slot
            && slot.as_deref() != Some(publish.topic)
        {
            *slot = Some(publish.topic.into());
        }
        Ok(None)
    }

    /// QoS 1 and 2 publishes that aren't answered, and those at QoS 2 that aren't released, count against our Receive
    /// Maximum [MQTT-3.3.4-7, v5].
    fn check_receive_maximum(&self, answer: Answer) -> Result<(), Close> {
        let limit = usize::from(self.shared.config.limits.receive_maximum);
        let unanswered_at_qos1 = self
            .owed
            .iter()
            .filter(|owed| {
                matches!(
                    owed,
                    Owed::Dispatch(_, Some(Answer::Puback(_))) | Owed::Answer(_, Answer::Puback(_), _)
                )
            })
            .count();
        let inner = self.session.lock();
        let is_again = matches!(answer, Answer::Pubrec(id) if inner.state.has_received(id));
        if unanswered_at_qos1 + inner.state.received_len() >= limit && !is_again {
            drop(inner);
            self.shared.metrics.limit_receive_maximum.add(1);
            return Err(self.violation(
                ReasonCode::ReceiveMaximumExceeded,
                "more unacknowledged publishes than the Receive Maximum",
            ));
        }
        Ok(())
    }

    /// Why a publish is refused, by itself.
    fn refusal(&mut self, publish: &Publish<'_>, topic: &str) -> Option<ReasonCode> {
        if self.shared.check_levels(topic).is_err() {
            return Some(ReasonCode::TopicNameInvalid);
        }
        if !self.shared.config.limits.allow(&publish.properties.user_properties) {
            self.shared.metrics.limit_user_properties.add(1);
            return Some(ReasonCode::QuotaExceeded);
        }
        // $SYS and its like are the broker's own, but for what a bridge tells about itself.
        let is_allowed = !topic.starts_with('$') || (self.is_bridge && topic.starts_with(BRIDGE_STATE));
        if !is_allowed {
            return Some(ReasonCode::NotAuthorized);
        }
        let may = self.rights.allow(&self.shared, &self.publisher, topic, publish.qos, publish.retain);
        self.shared.metrics.publishes_denied.add(u64::from(!may));
        (!may).then_some(ReasonCode::NotAuthorized)
    }

    /// Tells the publisher that nobody got it: MQTT 5 by code; older ones can't be told and get their acknowledgement,
    /// as the specification leaves open [MQTT-3.3.5-2, v3.1.1]. At QoS 0 nothing is said.
    fn refuse(
        &mut self,
        answer: Option<Answer>,
        reason: ReasonCode,
        cx: &mut Context<'_>,
    ) -> Result<Flow, Close> {
        tracing::debug!(client_id = %self.publisher.client_id, ?reason, "publish refused");
        if let Some(answer) = answer {
            let is_for_now = reason == ReasonCode::QuotaExceeded;
            if self.version.has_reason_codes() || is_for_now {
                super::forget_refused(&self.session, answer);
            } else if let Answer::Pubrec(id) = answer {
                // MQTT 3 is told yes, and so it is again when it asks again: there is nothing to wait for.
                self.session.lock().state.admit_received(id, store::CommitToken::NOTHING_OWED);
            }
            if is_for_now && !self.version.has_reason_codes() {
                return Err(Close::quietly(super::CANNOT_BE_TOLD));
            }
            self.answer(store::CommitToken::NOTHING_OWED, answer, reason, cx);
        }
        Ok(Flow::GoOn)
    }

    /// A QoS 2 publish whose first copy is here already: it joins that copy, and is answered with it or again.
    fn duplicate(&mut self, id: mqtt_protocol::PacketId, cx: &mut Context<'_>) -> Flow {
        let pending = self.owed.iter().any(|owed| {
            matches!(owed, Owed::Dispatch(_, Some(Answer::Pubrec(other))) | Owed::Answer(_, Answer::Pubrec(other), _) if *other == id)
        });
        let first = self.session.lock().state.received_token(id);
        match first {
            _ if pending => {}
            FirstCopy::SafeAt(token) => self.answer(token, Answer::Pubrec(id), ReasonCode::Success, cx),
            // It came on an earlier connection and is on its way still.
            FirstCopy::NotAdmitted | FirstCopy::No => self.owed.push_back(Owed::Copy(id)),
        }
        Flow::GoOn
    }

    /// PUBREL: the message is released, its identifier free [MQTT-4.3.3-11, v5].
    pub(super) fn pubrel(&mut self, ack: &Ack<'_>, cx: &mut Context<'_>) -> Result<Flow, Close> {
        let found = self.mine()?.state.release_received(ack.packet_id);
        let (token, reason) = if found && !self.session.is_on_record() {
            (store::CommitToken::NOTHING_OWED, ReasonCode::Success)
        } else if found {
            let record = Record::Released { session: self.session.key(), packet_id: ack.packet_id.get() };
            let token = self.shared.append(&[record]).map_err(super::cannot_record)?;
            (token, ReasonCode::Success)
        } else {
            (store::CommitToken::NOTHING_OWED, ReasonCode::PacketIdentifierNotFound)
        };
        self.answer(token, Answer::Pubcomp(ack.packet_id), reason, cx);
        Ok(self.watch_output())
    }
}
