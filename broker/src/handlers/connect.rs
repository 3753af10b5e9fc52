//! CONNECT: who may come in, which session they get, and what the CONNACK says.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::time::Duration;

use mqtt_protocol::{
    ConnAck, ConnAckProperties, Connect, DecodeError, Frame, Packet, PacketType, ProtocolVersion, ReasonCode,
    Will,
};
use store::{CommitToken, Record};

use super::authenticate::{Authentication, Known, Method};
use super::{Client, ownership};
use crate::author;
use crate::authorise::PublishRights;
use crate::broker::Shared;
use crate::clock::Now;
use crate::config::Limits;
use crate::limits::UserPlace;
use crate::listeners::{Listener, Takeover};
use crate::message::{Publication, Publisher, Trail};
use crate::metrics::sent;
use crate::restore::settled_for_group;
use crate::session::{AtWork, ClientLimits, Session, WillMessage};
use crate::timers::Deadline;

/// Where Mosquitto's bridges tell the broker at the other end about themselves, by will and by publish.
pub(super) const BRIDGE_STATE: &str = "$SYS/broker/connection/";

/// A CONNECT that is refused.
#[derive(Debug)]
pub(crate) struct Refusal {
    reason: ReasonCode,
    why: &'static str,
}

impl Refusal {
    pub(crate) fn new(reason: ReasonCode, why: &'static str) -> Self {
        Self { reason, why }
    }

    /// The CONNACK that says so.
    pub(crate) fn encode(&self, connect: &Connect<'_>, out: &mut Vec<u8>) {
        self.encode_for(connect.version, connect.properties.maximum_packet_size.unwrap_or(u32::MAX), out);
    }

    fn encode_for(&self, version: ProtocolVersion, limit: u32, out: &mut Vec<u8>) {
        let plain = ConnAck::new(self.reason);
        let mut explained = plain;
        if version.has_properties() {
            explained.properties.reason_string = Some(self.why);
        }
        encode_fitting(&[explained, plain], version, limit, out);
    }
}

/// Encodes the first of these that the client takes [MQTT-3.2.2-19, MQTT-3.2.2-20, v5]. Returns whether there is one.
fn encode_fitting(connacks: &[ConnAck<'_>], version: ProtocolVersion, limit: u32, out: &mut Vec<u8>) -> bool {
    let start = out.len();
    for connack in connacks {
        let encoded = Packet::ConnAck(*connack).encode(version, out);
        if encoded.is_ok() && out.len() - start <= limit as usize {
            sent(PacketType::ConnAck, 1);
            return true;
        }
        out.truncate(start);
    }
    false
}

/// The CONNACK for a CONNECT that doesn't decode, where its version can be told; nothing otherwise.
pub(crate) fn refuse_undecodable(frame: &Frame<'_>, error: &DecodeError, out: &mut Vec<u8>) {
    let version = match (frame.body.get(..6), frame.body.get(6), error) {
        (Some(b"\0\x04MQTT"), Some(5), _) => ProtocolVersion::V5,
        // Any other level of MQTT: in the form of 3.1.1, as the specification of 5.0 wishes (§3.1.2.2).
        (Some(b"\0\x04MQTT"), Some(_), DecodeError::UnsupportedVersion { .. }) => ProtocolVersion::V3_1_1,
        _ => return,
    };
    let refused = Packet::ConnAck(ConnAck::new(error.reason_code())).encode(version, out);
    match refused {
        Ok(_) => sent(PacketType::ConnAck, 1),
        Err(error) => tracing::error!(%error, "a CONNACK could not be encoded"),
    }
}

/// An accepted CONNECT whose record isn't safe yet.
#[derive(Debug)]
pub(crate) struct Connecting {
    session: Arc<Session>,
    generation: u32,
    session_present: bool,
    token: CommitToken,
    publisher: Arc<Publisher>,
    client: ClientLimits,
    assigned_client_id: bool,
    /// As the client asked for it, and as it is.
    requested_expiry_s: u32,
    expiry_s: u32,
    requested_keep_alive_s: u16,
    keep_alive_s: u16,
    wants_problem_information: bool,
    is_bridge: bool,
    /// Its place among the clients of its user.
    user: Option<UserPlace>,
    method: Option<Box<Method>>,
    /// Last Authentication Data, for the CONNACK.
    data: Option<Box<[u8]>>,
}

impl Connecting {
    /// Attaches the session of a client that is known.
    pub(crate) fn begin(
        shared: &Arc<Shared>,
        listener: &Listener,
        known: Known,
        user: Option<UserPlace>,
        connect: &Connect<'_>,
        now: Now,
    ) -> Result<Self, Refusal> {
        let limits = &shared.config.limits;
        let Known { publisher, assigned_client_id, method, data } = known;
        let will = connect
            .will
            .as_ref()
            .map(|will| will_message(shared, will, connect.is_bridge, &publisher, now))
            .transpose()?;
        let (requested_expiry_s, expiry_s) = session_expiry(connect, limits);
        if expiry_s < requested_expiry_s {
            shared.metrics.limit_session_expiry.add(1);
        }
        let mut attached =
            attach(shared, &publisher, listener.takeover, connect.clean_start, expiry_s, will)?;
        let token = record_session(shared, &mut attached, expiry_s, now);
        if let Some(ended) = attached.ended {
            shared.retire(&ended);
        }
        if let Some(will) = attached.will_of_old_connection {
            shared.publish_will(*will);
        }
        let keep_alive_s = keep_alive(connect.keep_alive_s, limits);
        if keep_alive_s != connect.keep_alive_s {
            shared.metrics.limit_keep_alive.add(1);
        }
        let mut connecting = Self {
            session: attached.session,
            generation: attached.generation,
            session_present: attached.present,
            token: CommitToken::NOTHING_OWED,
            publisher,
            client: ClientLimits {
                version: connect.version,
                receive_maximum: connect.properties.receive_maximum,
                maximum_packet_size: connect.properties.maximum_packet_size.unwrap_or(u32::MAX),
                topic_alias_maximum: connect.properties.topic_alias_maximum,
            },
            assigned_client_id,
            requested_expiry_s,
            expiry_s,
            requested_keep_alive_s: connect.keep_alive_s,
            keep_alive_s,
            wants_problem_information: connect.properties.request_problem_information,
            is_bridge: connect.is_bridge,
            user,
            method,
            data,
        };
        match token {
            Ok(token) => connecting.token = token,
            Err(reason) => {
                connecting.abandon(shared);
                return Err(Refusal { reason, why: "the session could not be recorded" });
            }
        }
        Ok(connecting)
    }

    /// Whether the CONNACK may be sent. `None`: never, and `out` has one that says so.
    pub(crate) fn is_safe(
        &mut self,
        shared: &Shared,
        cx: &mut Context<'_>,
        out: &mut Vec<u8>,
    ) -> Option<bool> {
        match super::is_safe(shared, self.token, cx) {
            Ok(true) => {}
            Ok(false) => return Some(false),
            Err(reason) => {
                let refusal = Refusal::new(reason, super::STORE_HAS_FAILED);
                refusal.encode_for(self.client.version, self.client.maximum_packet_size, out);
                return None;
            }
        }
        let mut inner = self.session.lock();
        let is_ready = inner.is_free() || inner.generation != self.generation;
        if !is_ready {
            inner.wait_until_free(cx.waker());
        }
        Some(is_ready)
    }

    /// Takes the session online: CONNACK first, then what it was owed.
    pub(crate) fn finish(
        self,
        shared: &Arc<Shared>,
        listener: &Listener,
        now: Now,
    ) -> Result<Client, &'static str> {
        let limits = &shared.config.limits;
        let (groups, at_work, retained): (Vec<_>, _, VecDeque<_>) = {
            let mut inner = self.session.lock();
            if inner.generation != self.generation {
                return Err("another connection took the session over before the CONNACK");
            }
            inner.state.connect(self.client, limits);
            inner.client = Some(Arc::clone(&self.publisher));
            shared.watch_receiver(&mut inner);
            if !self.encode_connack(limits, listener, inner.state.out.buffer()) {
                drop(inner);
                self.abandon(shared);
                return Err("the CONNACK is larger than the client's Maximum Packet Size");
            }
            let dropped = shared.pump(&self.session, &mut inner, now.mono_ms);
            shared.metrics.dropped_expired.add(dropped);
            let at_work = AtWork::begin(&self.session, &mut inner);
            (
                inner.subscriptions.iter().filter_map(|subscription| subscription.group.clone()).collect(),
                at_work,
                std::mem::take(&mut inner.retained).into_iter().collect(),
            )
        };
        self.session.last_heard_ms.store(now.mono_ms, Ordering::Relaxed);
        if self.keep_alive_s > 0 {
            // One and a half times the Keep Alive [MQTT-3.1.2-22, v5] [MQTT-3.1.2-24, v3.1.1].
            let silence_ms = u32::from(self.keep_alive_s) * 1500;
            let deadline = Deadline::KeepAlive { silence_ms };
            shared.timers.insert(now.mono_ms, &self.session, self.generation, deadline);
        }
        for group in &groups {
            group.reclaim_from_offline();
        }
        let clients = shared.clients.fetch_add(1, Ordering::Relaxed) + 1;
        shared.clients_maximum.fetch_max(clients, Ordering::Relaxed);
        tracing::debug!(
            client_id = %self.publisher.client_id, peer = %self.publisher.address, listener = %self.publisher.listener,
            version = ?self.client.version, session_present = self.session_present, "client connected"
        );
        let authentication = Authentication::new(self.method, &self.publisher.identity, now);
        let client = Client {
            shared: Arc::clone(shared),
            authentication,
            session: self.session,
            at_work,
            generation: self.generation,
            version: self.client.version,
            publisher: self.publisher,
            rights: PublishRights::default(),
            wants_problem_information: self.wants_problem_information,
            maximum_packet_size: self.client.maximum_packet_size,
            is_bridge: self.is_bridge,
            flow: listener.flow(limits),
            _user: self.user,
            output_is_full: false,
            began_with_expiry: self.requested_expiry_s > 0,
            replies: Vec::new(),
            owed: VecDeque::new(),
            aliases: Vec::new(),
            pause: None,
            run: None,
            sampled: None,
            retained,
            groups,
        };
        client.pump_groups(now);
        Ok(client)
    }

    /// The connection is gone before its CONNACK.
    pub(crate) fn abandon(&self, shared: &Arc<Shared>) {
        shared.connection_lost(&self.session, self.generation, false);
    }

    /// Encodes the CONNACK; `false` if the client doesn't take one of this size. Nothing in it can be left out: without
    /// its limits the client would go beyond them.
    fn encode_connack(&self, limits: &Limits, listener: &Listener, out: &mut Vec<u8>) -> bool {
        let mut plain = ConnAck::new(ReasonCode::Success);
        plain.session_present = self.session_present && self.client.version != ProtocolVersion::V3_1;
        let mut full = plain;
        if self.client.version.has_properties() {
            full.properties = ConnAckProperties {
                session_expiry_interval_s: (self.expiry_s != self.requested_expiry_s)
                    .then_some(self.expiry_s),
                receive_maximum: Some(limits.receive_maximum),
                maximum_packet_size: Some(listener.max_packet_size(limits)),
                topic_alias_maximum: Some(limits.topic_alias_maximum),
                assigned_client_identifier: self.assigned_client_id.then_some(&self.session.client_id),
                server_keep_alive_s: (self.keep_alive_s != self.requested_keep_alive_s)
                    .then_some(self.keep_alive_s),
                authentication_method: self.method.as_deref().map(Method::name),
                authentication_data: self.data.as_deref(),
                ..plain.properties
            };
        }
        encode_fitting(&[full], self.client.version, self.client.maximum_packet_size, out)
    }
}

/// Tells the store, in one frame, of the end of the session that was there, of this one, and of its will. A session that
/// doesn't outlive its connection is told of only where the store has to forget it.
fn record_session(
    shared: &Arc<Shared>,
    attached: &mut Attached,
    expiry_interval_s: u32,
    now: Now,
) -> Result<CommitToken, ReasonCode> {
    if !shared.store.keeps_records() {
        return Ok(CommitToken::NOTHING_OWED);
    }
    let session = Arc::clone(&attached.session);
    let session = &session;
    let kept = session.lock().will.as_ref().map(|will| (Arc::clone(&will.message), Arc::clone(&will.author)));
    let mut cold = Box::default();
    let mut records: Vec<Record<'_>> = Vec::new();
    // The will of the connection or session that was there and is due now: with the end of its own record it gets a place
    // among those that are published whatever comes.
    let mut due = attached.will_of_old_connection.take();
    if let Some(ended) = &attached.ended {
        let mut inner = ended.lock();
        inner.state.settle_shared();
        shared.record(ended, &mut inner);
        cold = inner.cold.take().unwrap_or_default();
        due = inner.will.take();
        if ended.take_off_record(&mut inner) {
            records.push(Record::SessionEnded { session: ended.key() });
        }
    }
    records.extend(cold.iter().filter_map(settled_for_group));
    let mut inner = session.lock();
    shared.record(session, &mut inner);
    let is_kept = expiry_interval_s > 0 || inner.is_recorded;
    let owner = inner.owner.clone();
    // The store knows of it what it was told, and nothing of a session that it didn't know.
    let tells_owner = if inner.is_recorded { attached.has_new_owner } else { owner.is_some() };
    if is_kept {
        session.put_on_record(&mut inner, shared.can_stream);
        // Ends the will that was there, too.
        records.push(Record::SessionStarted { session: session.key(), expiry_interval_s });
        if tells_owner {
            let owner = owner.as_deref().unwrap_or_default();
            records.push(Record::SessionOwner { session: session.key(), owner });
        }
        if let (Some(will), Some((message, author))) = (&inner.will, &kept) {
            records.push(will.record(session.key(), message, author, now.mono_ms));
        }
    }
    shared.load_window(session, &mut inner);
    // That of a session that outlives its connection is in its own record.
    let own = inner.will.as_deref_mut().filter(|_| !is_kept);
    let token = shared.append_with_wills(records, due.as_deref_mut().into_iter().chain(own));
    drop(inner);
    attached.will_of_old_connection = due;
    token
}

/// Everything about a CONNECT that can be refused before anybody is asked whose it is.
pub(super) fn check(shared: &Shared, connect: &Connect<'_>) -> Result<(), Refusal> {
    let limits = &shared.config.limits;
    let refuse = |reason, why| Err(Refusal { reason, why });
    if shared.shutting_down.load(Ordering::Acquire) {
        return refuse(ReasonCode::ServerUnavailable, "the server is shutting down");
    }
    if connect.client_id.len() > usize::from(limits.max_client_id_bytes) {
        shared.metrics.limit_client_id.add(1);
        return refuse(
            ReasonCode::ClientIdentifierNotValid,
            "the Client Identifier is longer than the limit",
        );
    }
    let may_assign = match connect.version {
        ProtocolVersion::V3_1 => false,
        // Without an identifier nobody could ever come back for the session [MQTT-3.1.3-8, v3.1.1].
        ProtocolVersion::V3_1_1 => connect.clean_start,
        ProtocolVersion::V5 => true,
    };
    if connect.client_id.is_empty() && !may_assign {
        return refuse(ReasonCode::ClientIdentifierNotValid, "the Client Identifier is empty");
    }
    let of_will = connect.will.as_ref().map(|will| &will.publish.user_properties);
    if !limits.allow(&connect.properties.user_properties)
        || of_will.is_some_and(|properties| !limits.allow(properties))
    {
        shared.metrics.limit_user_properties.add(1);
        return refuse(ReasonCode::QuotaExceeded, "more User Properties than the limit");
    }
    Ok(())
}

/// An identifier that nobody else has: random enough not to be guessed, and checked.
pub(super) fn assign_client_id(shared: &Shared) -> String {
    use std::hash::BuildHasher;
    loop {
        let state = std::collections::hash_map::RandomState::new();
        let client_id =
            format!("auto-{:016x}{:016x}", state.hash_one(1u8), state.hash_one(shared.next_message_id()));
        if shared.sessions.find(&client_id).is_none() {
            return client_id;
        }
    }
}

fn will_message(
    shared: &Shared,
    will: &Will<'_>,
    is_bridge: bool,
    publisher: &Arc<Publisher>,
    now: Now,
) -> Result<Box<WillMessage>, Refusal> {
    if shared.check_topic_name(will.topic).is_err() {
        return Err(Refusal { reason: ReasonCode::TopicNameInvalid, why: "the Will Topic is not accepted" });
    }
    if will.topic.starts_with('$') && !(is_bridge && will.topic.starts_with(BRIDGE_STATE)) {
        return Err(Refusal { reason: ReasonCode::NotAuthorized, why: "the Will Topic begins with $" });
    }
    if !shared.access.is_open(publisher) && !shared.may_publish(publisher, will.topic, will.qos, will.retain)
    {
        shared.metrics.wills_denied.add(1);
        return Err(Refusal {
            reason: ReasonCode::NotAuthorized,
            why: "the client may not publish its will",
        });
    }
    let properties = will.publish.forward_bytes();
    let message = Publication {
        id: shared.next_message_id(),
        namespace: 0,
        topic: will.topic,
        payload: will.payload,
        qos: will.qos,
        retain: will.retain,
        properties: &properties,
        expires_at_ms: None,
        received_at_ms: now.wall_ms,
        publisher: Some(publisher),
        trail: &Trail::default(),
        trace: None,
    }
    .to_message();
    Ok(Box::new(WillMessage {
        message,
        delay_s: will.delay_interval_s,
        expiry_interval_s: will.publish.message_expiry_interval_s,
        place: 0,
        author: author::encode(publisher).into(),
    }))
}

/// The Session Expiry Interval as asked for and as it is, in seconds.
fn session_expiry(connect: &Connect<'_>, limits: &Limits) -> (u32, u32) {
    let longest = u32::try_from(limits.max_session_expiry.as_secs()).unwrap_or(u32::MAX);
    if connect.version.has_properties() {
        let requested = connect.properties.session_expiry_interval_s;
        (requested, requested.min(longest))
    } else {
        let expiry = if connect.clean_start { 0 } else { longest };
        (expiry, expiry)
    }
}

fn keep_alive(requested_s: u16, limits: &Limits) -> u16 {
    if limits.max_keep_alive == Duration::ZERO {
        return requested_s;
    }
    let longest = u16::try_from(limits.max_keep_alive.as_secs()).unwrap_or(u16::MAX).max(1);
    if requested_s == 0 { longest } else { requested_s.min(longest) }
}

/// What attaching a connection to a session did.
struct Attached {
    session: Arc<Session>,
    generation: u32,
    present: bool,
    /// The session of the same identifier that Clean Start ended.
    ended: Option<Arc<Session>>,
    /// It was another user's, or nobody's.
    has_new_owner: bool,
    /// The will of the connection or session that was there, if it is due now.
    will_of_old_connection: Option<Box<WillMessage>>,
}

/// Attaches a connection to the session of its client, old or new. Of a session that is another user's nothing is touched.
fn attach(
    shared: &Shared,
    publisher: &Publisher,
    takeover: Takeover,
    clean_start: bool,
    expiry_s: u32,
    will: Option<Box<WillMessage>>,
) -> Result<Attached, Refusal> {
    let client_id = &*publisher.client_id;
    let user = ownership::owner(&publisher.identity);
    shared.sessions.change(client_id, |found| {
        let old = found.cloned();
        if let Some(session) = &old {
            let inner = session.lock();
            let owner = inner.owner.as_deref().filter(|_| !inner.ended);
            if let Err(refusal) = ownership::check_owner(takeover, owner, user, &shared.metrics) {
                drop(inner);
                return (old, Err(refusal));
            }
        }
        if let Some(session) = old.as_ref().filter(|_| !clean_start) {
            let mut inner = session.lock();
            if !inner.ended && inner.is_durable() {
                let taken_over = inner.link.is_some();
                let generation = inner.attach(ReasonCode::SessionTakenOver);
                inner.state.disconnect();
                let old_will = std::mem::replace(&mut inner.will, will);
                inner.expiry_interval_s = expiry_s;
                let has_new_owner = inner.owner.as_deref() != user;
                inner.owner = user.map(Into::into);
                drop(inner);
                return (
                    Some(Arc::clone(session)),
                    Ok(Attached {
                        session: Arc::clone(session),
                        generation,
                        present: true,
                        ended: None,
                        has_new_owner,
                        // A delayed will is cancelled by the session being taken on [MQTT-3.1.3-9, v5]; one without
                        // delay is due when its connection closes without DISCONNECT.
                        will_of_old_connection: old_will.filter(|will| taken_over && will.delay_s == 0),
                    }),
                );
            }
        }
        if let Some(old) = &old {
            let mut inner = old.lock();
            inner.attach(ReasonCode::SessionTakenOver);
            inner.link = None;
            inner.ended = true;
        }
        let session = Session::new(client_id, expiry_s, &shared.queued_memory);
        let generation = {
            let mut inner = session.lock();
            inner.will = will;
            inner.owner = user.map(Into::into);
            inner.attach(ReasonCode::SessionTakenOver)
        };
        let attached = Attached {
            session: Arc::clone(&session),
            generation,
            present: false,
            ended: old,
            has_new_owner: true,
            will_of_old_connection: None,
        };
        (Some(session), Ok(attached))
    })
}
