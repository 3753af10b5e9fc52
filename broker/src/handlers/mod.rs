//! What each kind of packet from a client means: one file for each.
//!
//! A [`Client`] is the accepted side of a connection: its session, what it is owed, what it said it can take. It knows
//! packets, not sockets.

mod acks;
mod authenticate;
mod connect;
mod ownership;
mod publish;
mod run;
mod subscribe;

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Context;

use mqtt_protocol::{
    Ack, Disconnect, Frame, Packet, PacketId, PacketType, ProtocolVersion, ReasonCode, encode_pingresp,
};
use parking_lot::MutexGuard;
use store::{CommitToken, Record};
use tokio::time::Sleep;

use crate::authorise::PublishRights;
use crate::broker::Shared;
use crate::clock::Now;
use crate::connection::Close;
use crate::dispatch::{Dispatch, Turn};
use crate::limits::UserPlace;
use crate::message::Publisher;
use crate::metrics::sent;
use crate::outbound::Writing;
use crate::session::state::{CONGESTED_BYTES, Received};
use crate::session::{AtWork, Session, SessionInner, wake_after_this_turn};
use crate::subscriptions::Group;
use crate::traced::Sampled;
use authenticate::Authentication;

pub(crate) use authenticate::{Authenticating, Decided, Known};
pub(crate) use connect::{Connecting, Refusal, refuse_undecodable};
pub(crate) use run::Position;
pub(crate) use subscribe::{OWES_RETAINED, RetainedDelivery};

/// Subscriptions whose Retained Messages are still to be sent; further packets are handled when there are fewer.
const RETAINED_PENDING_MAX: usize = 1024;

/// Messages that were held up and are fanned out in one turn.
const FINISHED_PER_TURN: usize = 64;

/// Publishes of one client that wait for a commit at most; further packets are handled when one is through.
const OWED_MAX: usize = 4096;

/// A client of MQTT 3 knows no refusal: it gets no acknowledgement, so that it sends the message again later.
const CANNOT_BE_TOLD: &str = "a publish was refused for now, which MQTT 3 can't say";

/// What was promised to a client can't be kept, and can't be taken back: whether it is on disk nobody knows. It hears no answer,
/// and asks again once the broker has started anew.
const STORE_HAS_FAILED: &str = "the store has failed: nothing is acknowledged until the broker is restarted";

/// Whether the packets that follow may be handled now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flow {
    GoOn,
    Wait,
}

/// An accepted client.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) shared: Arc<Shared>,
    pub(crate) session: Arc<Session>,
    at_work: AtWork,
    generation: u32,
    pub(crate) version: ProtocolVersion,
    publisher: Arc<Publisher>,
    /// What it may publish.
    rights: PublishRights,
    authentication: Authentication,
    /// Whether Reason Strings and User Properties may be sent with every packet [MQTT-3.1.2-29, v5].
    wants_problem_information: bool,
    /// Largest packet it takes.
    maximum_packet_size: u32,
    /// It said so in its Protocol Level, as Mosquitto's bridges do: it wants no own messages back, and RETAIN as published.
    is_bridge: bool,
    /// How fast it may publish, where there is a limit.
    flow: Option<Box<crate::limits::Flow>>,
    /// Its place among the clients of its user; given back with the connection.
    _user: Option<UserPlace>,
    /// The client doesn't read its answers: it is read again when they are written.
    output_is_full: bool,
    /// What the client asked at CONNECT; an expiry of 0 may not be raised at DISCONNECT [MQTT-3.1.2.11.2, v5].
    began_with_expiry: bool,
    /// Packets to send with the next write.
    replies: Vec<u8>,
    /// Answers in the order of what they answer, from the first that can't be given yet.
    owed: VecDeque<Owed>,
    /// Topics that the client's Topic Aliases stand for; the alias is the place plus one.
    aliases: Vec<Option<Box<str>>>,
    pause: Option<Box<Pause>>,
    /// QoS 0 publishes in the buffer that is being handled, to be handed on together.
    run: Option<run::Run>,
    /// What sampling found for the frame that ended a run: it is the next to be handled.
    sampled: Option<Box<Sampled>>,
    retained: VecDeque<RetainedDelivery>,
    /// Shared Subscriptions that the session is a member of.
    groups: Vec<Arc<Group>>,
}

/// An answer that is owed to the client.
#[derive(Debug)]
enum Owed {
    /// The message is on its way; the acknowledgement follows from how it ends. `None`: QoS 0.
    Dispatch(Box<Dispatch>, Option<Answer>),
    /// To be sent when the token is safe.
    Answer(CommitToken, Answer, ReasonCode),
    /// An encoded packet to be sent when the token is safe.
    Packet(CommitToken, Vec<u8>),
    /// PUBREC for a copy of a publish that came on an earlier connection and is on its way still.
    Copy(PacketId),
}

/// Which acknowledgement.
#[derive(Debug, Clone, Copy)]
enum Answer {
    Puback(PacketId),
    Pubrec(PacketId),
    Pubcomp(PacketId),
}

/// A publisher's break while one of its receivers catches up.
#[derive(Debug)]
struct Pause {
    until: Pin<Box<Sleep>>,
    receiver: Arc<Session>,
}

impl Client {
    /// Handles one packet.
    pub(crate) fn handle(
        &mut self,
        packet: &Packet<'_>,
        position: &Position,
        cx: &mut Context<'_>,
        now: Now,
    ) -> Result<Flow, Close> {
        match packet {
            Packet::Publish(publish) => self.publish(publish, position, cx, now),
            Packet::PubAck(ack) => self.puback(ack, now),
            Packet::PubRec(ack) => self.pubrec(ack, now),
            Packet::PubRel(ack) => self.pubrel(ack, cx),
            Packet::PubComp(ack) => self.pubcomp(ack, now),
            Packet::Subscribe(subscribe) => self.subscribe(subscribe, cx, now),
            Packet::Unsubscribe(unsubscribe) => self.unsubscribe(unsubscribe),
            Packet::PingReq => {
                sent(PacketType::PingResp, 1);
                encode_pingresp(&mut self.replies);
                Ok(self.watch_output())
            }
            Packet::Disconnect(disconnect) => Err(self.disconnect(disconnect)),
            Packet::Auth(auth) => self.auth(auth, cx),
            Packet::Connect(_) => Err(self.violation(ReasonCode::ProtocolError, "a second CONNECT")),
            Packet::ConnAck(_) | Packet::SubAck(_) | Packet::UnsubAck(_) | Packet::PingResp => {
                Err(self.violation(ReasonCode::ProtocolError, "a packet that only a Server sends"))
            }
        }
    }

    /// The session's state, while it is still this connection's.
    fn mine(&self) -> Result<MutexGuard<'_, SessionInner>, Close> {
        let inner = self.session.lock();
        self.check(&inner)?;
        Ok(inner)
    }

    /// Whether the session is still this connection's, and nobody wants the connection closed.
    fn check(&self, inner: &SessionInner) -> Result<(), Close> {
        if inner.generation != self.generation {
            return Err(Close::because(
                ReasonCode::SessionTakenOver,
                "another connection took the session over",
            ));
        }
        match inner.link.as_ref().and_then(|link| link.close) {
            Some(reason) => Err(Close::because(reason, "closed by the server")),
            None => Ok(()),
        }
    }

    /// The same, looked up.
    pub(crate) fn check_link(&self) -> Result<(), Close> {
        drop(self.mine()?);
        Ok(())
    }

    fn violation(&self, reason: ReasonCode, why: &'static str) -> Close {
        self.shared.metrics.protocol_errors.add(1);
        Close::because(reason, why)
    }

    fn disconnect(&mut self, disconnect: &Disconnect<'_>) -> Close {
        if let Some(expiry_s) = disconnect.session_expiry_interval_s {
            if expiry_s > 0 && !self.began_with_expiry {
                return self.violation(ReasonCode::ProtocolError, "Session Expiry Interval raised from zero");
            }
            let limit =
                u32::try_from(self.shared.config.limits.max_session_expiry.as_secs()).unwrap_or(u32::MAX);
            let expiry_interval_s = expiry_s.min(limit);
            let mut inner = match self.mine() {
                Ok(inner) => inner,
                Err(close) => return close,
            };
            inner.expiry_interval_s = expiry_interval_s;
            if inner.is_recorded {
                let session = self.session.key();
                let mut records = vec![Record::SessionStarted { session, expiry_interval_s }];
                // It ended the will that was there.
                if let Some(will) = &inner.will {
                    records.push(will.record(
                        session,
                        &will.message,
                        &will.author,
                        self.shared.clock.now().mono_ms,
                    ));
                }
                if let Err(reason) = self.shared.append(&records) {
                    tracing::warn!(?reason, "a session's new expiry could not be recorded");
                }
            }
        }
        let discard_will = disconnect.reason_code == ReasonCode::NormalDisconnection;
        Close { reason: None, why: "DISCONNECT".into(), discard_will }
    }

    /// Notes that the client is alive.
    pub(crate) fn heard(&self, now: Now) {
        self.session.last_heard_ms.store(now.mono_ms, Ordering::Relaxed);
    }

    /// Counts a publish against the client's rates. Beyond them the client isn't read for a while, which is no silence.
    pub(crate) fn count_publish(&mut self, frame: &Frame<'_>, now: Now) {
        let Some(flow) = &mut self.flow else { return };
        if frame.first_byte >> 4 != PacketType::Publish as u8 {
            return;
        }
        if let Some(throttled) = flow.count(frame.len, now) {
            self.session.last_heard_ms.store(throttled.until_ms, Ordering::Relaxed);
            let metrics = &self.shared.metrics;
            let counter = if throttled.for_bytes {
                &metrics.limit_publish_bytes_rate
            } else {
                &metrics.limit_publish_rate
            };
            counter.add(1);
        }
    }

    /// Whether the client isn't read because it published too fast.
    pub(crate) fn is_throttled(&self) -> bool {
        self.flow.as_ref().is_some_and(|flow| flow.is_paused())
    }

    /// Whether further packets may be handled; if not, the waker is registered with what holds them up.
    pub(crate) fn takes_input(&mut self, cx: &mut Context<'_>) -> bool {
        if let Some(pause) = &mut self.pause {
            let is_over = pause.until.as_mut().poll(cx).is_ready();
            let mut receiver = pause.receiver.lock();
            if receiver.state.is_backlogged(&self.shared.config.limits) {
                if !is_over {
                    receiver.wait_for_drain(cx.waker());
                    return false;
                }
                // One client that doesn't read holds nobody up for longer than that, and not again.
                receiver.state.give_up_waiting();
            }
            drop(receiver);
            self.pause = None;
            // What wasn't read meanwhile doesn't count as silence.
            if !self.is_throttled() {
                self.heard(self.shared.clock.now());
            }
        }
        if let Some(flow) = &mut self.flow
            && !flow.is_open(cx)
        {
            return false;
        }
        if self.output_is_full && self.waits_with_too_much() {
            return false;
        }
        self.output_is_full = false;
        // Whoever asks for something after its SUBACK finds that the Retained Messages came before the answer, though one of them
        // was just being changed.
        !self.retained.front().is_some_and(RetainedDelivery::waits_for_turn)
            && self.retained.len() <= RETAINED_PENDING_MAX
            && self.owed.len() < OWED_MAX
            && !self
                .owed
                .iter()
                .any(|owed| matches!(owed, Owed::Dispatch(dispatch, _) if !dispatch.is_admitted()))
    }

    /// Whether the client has so many answers to read that it may ask nothing more for now.
    fn waits_with_too_much(&self) -> bool {
        let waiting = self.replies.len() + self.session.lock().state.out.len();
        waiting > self.shared.config.limits.max_outbound_bytes as usize
    }

    /// Whether reading has stopped until output is written.
    pub(crate) fn waits_for_output(&self) -> bool {
        self.output_is_full
    }

    /// Moves on what waits: messages on their way, answers whose debts are safe, Retained Messages.
    pub(crate) fn settle(&mut self, cx: &mut Context<'_>, now: Now) -> Result<(), Close> {
        self.settle_authentication(cx, now)?;
        if !self.owed.is_empty() {
            self.settle_owed(cx, now)?;
        }
        if !self.retained.is_empty() {
            self.deliver_retained(cx, now);
        }
        Ok(())
    }

    fn settle_owed(&mut self, cx: &mut Context<'_>, now: Now) -> Result<(), Close> {
        let mut first = true;
        let mut slow = None;
        let mut finished = 0;
        for owed in &mut self.owed {
            if finished >= FINISHED_PER_TURN {
                wake_after_this_turn(cx.waker());
                break;
            }
            let Owed::Dispatch(dispatch, answer) = owed else { continue };
            match dispatch.turn(&self.shared, cx, now, first) {
                Turn::Again => {
                    wake_after_this_turn(cx.waker());
                    break;
                }
                // Those behind may be admitted meanwhile, but in order, and they go out in order.
                Turn::Waiting if dispatch.is_admitted() => first = false,
                Turn::Waiting => break,
                Turn::Failed => return Err(cannot_record(ReasonCode::ImplementationSpecificError)),
                Turn::Done(result) => {
                    finished += 1;
                    let (token, reason) = match result {
                        Ok(outcome) => {
                            slow = slow.or(outcome.slow);
                            (
                                outcome.token,
                                if outcome.matched {
                                    ReasonCode::Success
                                } else {
                                    ReasonCode::NoMatchingSubscribers
                                },
                            )
                        }
                        Err(reason) => {
                            self.shared.metrics.publishes_refused.add(1);
                            (CommitToken::NOTHING_OWED, reason)
                        }
                    };
                    if let Some(answer) = answer
                        && reason.is_error()
                    {
                        forget_refused(&self.session, *answer);
                        if !self.version.has_reason_codes() {
                            // Not to be tried again when the connection is left.
                            *owed = Owed::Packet(CommitToken::NOTHING_OWED, Vec::new());
                            return Err(Close::quietly(CANNOT_BE_TOLD));
                        }
                    }
                    *owed = match *answer {
                        Some(answer) => Owed::Answer(token, answer, reason),
                        None => Owed::Packet(CommitToken::NOTHING_OWED, Vec::new()),
                    };
                }
            }
        }
        while let Some(owed) = self.owed.front() {
            let token = match owed {
                Owed::Dispatch(..) => break,
                Owed::Answer(token, ..) | Owed::Packet(token, _) => *token,
                Owed::Copy(id) => match self.session.lock().state.received_token(*id) {
                    Received::NotAdmitted => break,
                    Received::SafeAt(token) => token,
                    // Refused meanwhile: it shall come again as a new one.
                    Received::No => return Err(Close::because(ReasonCode::QuotaExceeded, CANNOT_BE_TOLD)),
                },
            };
            if !is_safe(&self.shared, token, cx).map_err(cannot_record)? {
                break;
            }
            match self.owed.pop_front() {
                Some(Owed::Answer(_, answer, reason)) => {
                    self.encode_answer(answer, reason);
                }
                Some(Owed::Packet(_, bytes)) => self.replies.extend_from_slice(&bytes),
                Some(Owed::Copy(id)) => self.encode_answer(Answer::Pubrec(id), ReasonCode::Success),
                Some(Owed::Dispatch(..)) | None => {}
            }
        }
        if let Some(slow) = slow {
            self.pause_for(slow);
        }
        Ok(())
    }

    /// Sends an answer as soon as `token` is safe and everything before it is answered.
    fn answer(&mut self, token: CommitToken, answer: Answer, reason: ReasonCode, cx: &mut Context<'_>) {
        let is_safe = is_safe(&self.shared, token, cx);
        if self.owed.is_empty() && is_safe == Ok(true) {
            self.encode_answer(answer, reason);
        } else {
            self.owed.push_back(Owed::Answer(token, answer, reason));
            if is_safe.is_err() {
                // The next turn finds it, and closes the connection.
                cx.waker().wake_by_ref();
            }
        }
    }

    fn encode_answer(&mut self, answer: Answer, reason: ReasonCode) {
        use mqtt_protocol::{encode_puback, encode_pubcomp, encode_pubrec};
        let version = self.version;
        let kind = match answer {
            Answer::Puback(_) => PacketType::PubAck,
            Answer::Pubrec(_) => PacketType::PubRec,
            Answer::Pubcomp(_) => PacketType::PubComp,
        };
        sent(kind, 1);
        if reason.is_error() && version.has_reason_codes() && self.encode_explained(answer, reason) {
            return;
        }
        let out = &mut self.replies;
        match answer {
            Answer::Puback(id) => encode_puback(out, version, id, reason),
            Answer::Pubrec(id) => encode_pubrec(out, version, id, reason),
            Answer::Pubcomp(id) => encode_pubcomp(out, version, id, reason),
        }
    }

    /// Encodes a refusal with a Reason String, where the client wants one and can take it.
    fn encode_explained(&mut self, answer: Answer, reason: ReasonCode) -> bool {
        if !self.wants_problem_information {
            return false;
        }
        let explained = |id| Ack { reason_string: Some(explanation(reason)), ..Ack::new(id, reason) };
        let packet = match answer {
            Answer::Puback(id) => Packet::PubAck(explained(id)),
            Answer::Pubrec(id) => Packet::PubRec(explained(id)),
            Answer::Pubcomp(id) => Packet::PubComp(explained(id)),
        };
        let start = self.replies.len();
        let encoded = packet.encode(self.version, &mut self.replies).is_ok()
            && self.replies.len() - start <= self.maximum_packet_size as usize;
        if !encoded {
            self.replies.truncate(start);
        }
        encoded
    }

    /// Notes that an answer was added; stops reading from a client that doesn't read its answers.
    fn watch_output(&mut self) -> Flow {
        // Looked at closely only once there is a lot.
        if self.replies.len() > CONGESTED_BYTES {
            self.output_is_full = self.waits_with_too_much();
        }
        if self.output_is_full { Flow::Wait } else { Flow::GoOn }
    }

    /// Stops handling publishes for a moment, so that `receiver` can catch up instead of losing messages.
    fn pause_for(&mut self, receiver: Arc<Session>) {
        let limit = self.shared.config.limits.max_publish_pause;
        if self.pause.is_none() && !limit.is_zero() {
            self.shared.metrics.limit_publish_pause.add(1);
            self.pause = Some(Box::new(Pause { until: Box::pin(tokio::time::sleep(limit)), receiver }));
        }
    }

    /// Takes what there is to write. `None`: nothing; the connection is registered to be woken.
    pub(crate) fn take_output(&mut self, cx: &mut Context<'_>, now: Now) -> Result<Option<Writing>, Close> {
        let limits = &self.shared.config.limits;
        let mut inner = self.session.lock();
        self.check(&inner)?;
        let dropped = self.shared.pump(&self.session, &mut inner, now.mono_ms);
        self.shared.metrics.dropped_expired.add(dropped);
        inner.state.out.append(&mut self.replies);
        // What was dropped as expired has left room that somebody else may have something for.
        if inner.state.out.is_empty() && dropped == 0 {
            inner.drained(limits);
            inner.wait_for_commit(&*self.shared.store, cx.waker());
            inner.sleep(cx.waker());
            return Ok(None);
        }
        let writing = inner.state.out.take();
        inner.drained(limits);
        drop(inner);
        self.pump_groups(now);
        if !self.retained.is_empty() {
            wake_after_this_turn(cx.waker());
        }
        Ok(Some(writing))
    }

    /// Takes what was meant to be written before the connection closes.
    pub(crate) fn take_rest(&mut self) -> Writing {
        let mut inner = self.session.lock();
        let mut rest =
            if inner.generation == self.generation { inner.state.out.take() } else { Writing::default() };
        rest.tail().append(&mut self.replies);
        rest
    }

    /// The socket is full: only its readiness, or a wish to close, wakes the connection.
    pub(crate) fn wait_for_socket(&self, cx: &mut Context<'_>) {
        self.session.lock().wait_for_socket(self.generation, cx.waker());
    }

    /// This session has room again: its groups may have something for it.
    fn pump_groups(&self, now: Now) {
        for group in &self.groups {
            let expired = group.pump(&self.shared, now.mono_ms);
            self.shared.metrics.dropped_expired.add(expired);
        }
    }

    /// Encodes a DISCONNECT, without Reason String where the client doesn't want it or can't take it.
    pub(crate) fn encode_disconnect(&self, reason: ReasonCode, why: &str, out: &mut Vec<u8>) {
        // Some faults have a code for a CONNACK only.
        let reason =
            if reason.is_valid_in(PacketType::Disconnect) { reason } else { ReasonCode::ProtocolError };
        let plain = Disconnect::new(reason);
        let explained = Disconnect { reason_string: self.wants_problem_information.then_some(why), ..plain };
        let start = out.len();
        for disconnect in [explained, plain] {
            out.truncate(start);
            let encoded = Packet::Disconnect(disconnect).encode(self.version, out).is_ok();
            if encoded && out.len() - start <= self.maximum_packet_size as usize {
                sent(PacketType::Disconnect, 1);
                return;
            }
        }
        out.truncate(start);
    }

    /// The connection is over.
    pub(crate) fn leave(self, discard_will: bool) {
        self.shared.clients.fetch_sub(1, Ordering::Relaxed);
        // What is still on its way goes on without its publisher: it was admitted, or will be, as a whole.
        let unfinished: Vec<_> = self
            .owed
            .into_iter()
            .filter_map(|owed| match owed {
                Owed::Dispatch(dispatch, _) => Some(*dispatch),
                Owed::Answer(..) | Owed::Packet(..) | Owed::Copy(_) => None,
            })
            .collect();
        let (shared, at_work) = (Arc::clone(&self.shared), self.at_work);
        if !self.retained.is_empty() {
            // The next connection of the session goes on with them; if there is none, they go with the session.
            let mut retained = self.retained;
            retained.iter_mut().for_each(RetainedDelivery::pause);
            self.session.lock().retained = retained.into_iter().collect();
        }
        self.shared.connection_lost(&self.session, self.generation, !discard_will);
        if !unfinished.is_empty() {
            tokio::spawn(async move {
                crate::dispatch::finish(shared, unfinished).await;
                drop(at_work);
            });
        }
    }
}

/// A publish was refused as a whole: when it comes again it is a new one.
fn forget_refused(session: &Session, answer: Answer) {
    if let Answer::Pubrec(id) = answer {
        session.lock().state.release_received(id);
    }
}

/// What a client is told of a refusal, beside its code.
fn explanation(reason: ReasonCode) -> &'static str {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the other codes speak for themselves")]
    match reason {
        ReasonCode::NotAuthorized => "the client may not publish this",
        ReasonCode::TopicNameInvalid => "the topic has more levels than the limit",
        ReasonCode::QuotaExceeded => "a limit is reached; nobody received the message",
        ReasonCode::PacketIdentifierNotFound => {
            "no QoS 2 publish of this Packet Identifier waits to be released"
        }
        other => other.name(),
    }
}

/// Whether `token` is safe; if not, the waker is registered. An error: it never will be.
fn is_safe(shared: &Shared, token: CommitToken, cx: &mut Context<'_>) -> Result<bool, ReasonCode> {
    if shared.store.committed() >= token {
        return Ok(true);
    }
    shared.store.wake_when_committed(token, cx.waker());
    if shared.store.committed() >= token {
        return Ok(true);
    }
    if shared.store.has_failed() { Err(ReasonCode::ImplementationSpecificError) } else { Ok(false) }
}

/// Closes a connection that asked for something that can't go on record.
fn cannot_record(reason: ReasonCode) -> Close {
    let has_failed = reason == ReasonCode::ImplementationSpecificError;
    Close::because(reason, if has_failed { STORE_HAS_FAILED } else { "the store is full" })
}
