//! One Network Connection of a client: bytes in, events out.
//!
//! Everything that waits is cancel-safe: bytes already read stay in `input`, bytes to be sent stay in `output`, so
//! [`Client::next`] may be one branch of a `select!`.

use std::collections::{HashMap, HashSet};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use mqtt_protocol::{
    Ack, ConnAck, Connect, ConnectProperties, Disconnect, EncodeError, FrameStatus, Packet, PacketId,
    ProtocolVersion, Publish, PublishProperties, QoS, ReasonCode, Subscribe, SubscribeFiltersBuf,
    SubscriptionOptions, TopicFiltersBuf, Unsubscribe, UserProperties, UserPropertiesBuf, Will, frame,
};
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::time::Instant;

use super::endpoint::open;
use super::stream::Stream;
use super::{Accepted, ClientError, Event, Message, Options, Password, Properties, Received};

/// Bytes asked of the socket at a time.
const READ_BYTES: usize = 16 * 1024;

/// Longest wait for a PINGRESP before the connection counts as dead.
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// What a publish waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Awaiting {
    /// PUBACK.
    Ack,
    /// PUBREC.
    Rec,
    /// PUBCOMP.
    Comp,
}

/// A connected client.
#[derive(Debug)]
pub struct Client {
    stream: Stream,
    version: ProtocolVersion,
    accepted: Accepted,
    packet_limit: u32,
    /// Bytes read; those before `consumed` are done with.
    input: Vec<u8>,
    consumed: usize,
    /// Bytes to send; those before `sent` are gone.
    output: Vec<u8>,
    sent: usize,
    /// Whether everything that the stream took has left it.
    is_flushed: bool,
    last_sent: Instant,
    ping_sent: Option<Instant>,
    next_id: PacketId,
    publishes: HashMap<PacketId, Awaiting>,
    /// Packet Identifiers of SUBSCRIBE and UNSUBSCRIBE under way.
    requests: HashSet<PacketId>,
    /// QoS 2 messages delivered whose PUBREL hasn't come: their repetition isn't another message.
    received: HashSet<PacketId>,
}

impl Client {
    /// Connects and waits for the Server's answer.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`], [`ClientError::ConnectTimeout`], [`ClientError::Refused`], and what reading and
    /// writing may bring.
    pub async fn connect(options: &Options) -> Result<Self, ClientError> {
        let timeout = options.connect_timeout;
        match tokio::time::timeout(timeout, Self::connect_unhurried(options)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(ClientError::ConnectTimeout { endpoint: options.endpoint.clone(), timeout }),
        }
    }

    async fn connect_unhurried(options: &Options) -> Result<Self, ClientError> {
        let stream = open(&options.endpoint, &options.transport).await?;
        let keep_alive_s = u16::try_from(options.keep_alive.as_secs()).unwrap_or(u16::MAX);
        let mut client = Self {
            stream,
            version: options.version,
            accepted: Accepted {
                session_present: false,
                client_id: options.client_id.clone(),
                receive_maximum: u16::MAX,
                maximum_packet_size: u32::MAX,
                maximum_qos: QoS::ExactlyOnce,
                keep_alive: Duration::from_secs(u64::from(keep_alive_s)),
            },
            packet_limit: options.maximum_packet_size,
            input: Vec::new(),
            consumed: 0,
            output: Vec::new(),
            sent: 0,
            is_flushed: true,
            last_sent: Instant::now(),
            ping_sent: None,
            next_id: PacketId::MIN,
            publishes: HashMap::new(),
            requests: HashSet::new(),
            received: HashSet::new(),
        };
        encode_connect(options, keep_alive_s, &mut client.output)?;
        loop {
            client.flush().await?;
            if client.accept()? {
                return Ok(client);
            }
            client.wait(None).await?;
        }
    }

    /// What the Server said when it accepted the connection.
    pub fn accepted(&self) -> &Accepted {
        &self.accepted
    }

    /// How many more publishes at QoS 1 or 2 may be under way now.
    pub fn window(&self) -> usize {
        usize::from(self.accepted.receive_maximum).saturating_sub(self.publishes.len())
    }

    /// How many publishes at QoS 1 or 2 wait to be settled.
    pub fn unsettled(&self) -> usize {
        self.publishes.len()
    }

    /// Queues a message; at QoS 1 and 2, [`Event::Published`] with the returned identifier tells how it went.
    ///
    /// # Errors
    /// [`ClientError::WindowFull`] at QoS 1 and 2, [`ClientError::QosNotSupported`], [`ClientError::PacketTooLarge`], a
    /// topic or property that can't be sent; nothing was queued then.
    pub fn publish(&mut self, message: &Message) -> Result<Option<PacketId>, ClientError> {
        let limit = self.accepted.maximum_qos;
        if message.qos > limit {
            return Err(ClientError::QosNotSupported { qos: message.qos, limit });
        }
        let packet_id = match message.qos {
            QoS::AtMostOnce => None,
            QoS::AtLeastOnce | QoS::ExactlyOnce if self.window() == 0 => {
                return Err(ClientError::WindowFull { limit: self.accepted.receive_maximum });
            }
            QoS::AtLeastOnce | QoS::ExactlyOnce => Some(self.free_id()),
        };
        let user = user_properties(&message.properties)?;
        self.send(&Packet::Publish(Publish {
            dup: false,
            qos: message.qos,
            retain: message.retain,
            topic: &message.topic,
            packet_id,
            properties: borrowed(&message.properties, user.as_properties()),
            payload: &message.payload,
        }))?;
        if let Some(id) = packet_id {
            let awaiting = if message.qos == QoS::ExactlyOnce { Awaiting::Rec } else { Awaiting::Ack };
            self.publishes.insert(id, awaiting);
        }
        Ok(packet_id)
    }

    /// Queues a SUBSCRIBE; [`Event::Subscribed`] with the returned identifier tells how it went.
    ///
    /// # Errors
    /// A filter that can't be sent; nothing was queued then.
    pub fn subscribe<'f>(
        &mut self,
        filters: impl IntoIterator<Item = (&'f str, SubscriptionOptions)>,
    ) -> Result<PacketId, ClientError> {
        let mut list = SubscribeFiltersBuf::new();
        for (filter, options) in filters {
            list.push(filter, options)?;
        }
        let packet_id = self.free_id();
        self.send(&Packet::Subscribe(Subscribe {
            packet_id,
            subscription_identifier: None,
            user_properties: UserProperties::NONE,
            filters: list.as_filters(),
        }))?;
        self.requests.insert(packet_id);
        Ok(packet_id)
    }

    /// Queues an UNSUBSCRIBE; [`Event::Unsubscribed`] with the returned identifier tells how it went.
    ///
    /// # Errors
    /// A filter that can't be sent; nothing was queued then.
    pub fn unsubscribe<'f>(
        &mut self,
        filters: impl IntoIterator<Item = &'f str>,
    ) -> Result<PacketId, ClientError> {
        let mut list = TopicFiltersBuf::new();
        for filter in filters {
            list.push(filter)?;
        }
        let packet_id = self.free_id();
        self.send(&Packet::Unsubscribe(Unsubscribe {
            packet_id,
            user_properties: UserProperties::NONE,
            filters: list.as_filters(),
        }))?;
        self.requests.insert(packet_id);
        Ok(packet_id)
    }

    /// Sends what is queued, keeps the connection alive and returns what happens next. Cancel-safe.
    ///
    /// # Errors
    /// The end of the connection, whoever caused it; the client is of no use afterwards.
    pub async fn next(&mut self) -> Result<Event, ClientError> {
        loop {
            if let Some(event) = self.read_packets()? {
                return Ok(event);
            }
            let deadline = self.keep_alive()?;
            self.wait(deadline).await?;
        }
    }

    /// Sends everything that is queued. Cancel-safe.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn flush(&mut self) -> Result<(), ClientError> {
        poll_fn(|cx| self.poll_send(cx)).await?;
        Ok(())
    }

    /// Sends what is queued and a DISCONNECT, so that no Will Message is published, and closes the connection.
    ///
    /// # Errors
    /// The connection broke before.
    pub async fn disconnect(mut self) -> Result<(), ClientError> {
        self.send(&Packet::Disconnect(Disconnect::new(ReasonCode::NormalDisconnection)))?;
        self.flush().await?;
        tokio::io::AsyncWriteExt::shutdown(&mut self.stream).await?;
        Ok(())
    }

    /// Queues a packet unless it is larger than the Server takes.
    fn send(&mut self, packet: &Packet<'_>) -> Result<(), ClientError> {
        let before = self.output.len();
        packet.encode(self.version, &mut self.output)?;
        let size = self.output.len() - before;
        let limit = self.accepted.maximum_packet_size;
        if size > usize::try_from(limit).unwrap_or(usize::MAX) {
            self.output.truncate(before);
            return Err(ClientError::PacketTooLarge { size, limit });
        }
        Ok(())
    }

    /// A Packet Identifier that nothing under way uses; there is one, since fewer than 65,535 are.
    fn free_id(&mut self) -> PacketId {
        loop {
            let id = self.next_id;
            self.next_id = id.next();
            if !self.publishes.contains_key(&id) && !self.requests.contains(&id) {
                return id;
            }
        }
    }

    /// Reads the CONNACK, if it is there.
    fn accept(&mut self) -> Result<bool, ClientError> {
        let FrameStatus::Complete(frame) = frame(&self.input, self.packet_limit)? else { return Ok(false) };
        self.consumed = frame.len;
        let Packet::ConnAck(connack) = Packet::decode(&frame, self.version)? else {
            return Err(unexpected("a packet before CONNACK"));
        };
        if connack.reason_code.is_error() {
            return Err(ClientError::Refused {
                reason_code: connack.reason_code,
                reason: connack.properties.reason_string.map(str::to_owned),
            });
        }
        self.accepted = agreed(&self.accepted, &connack);
        Ok(true)
    }

    /// Handles whole packets in the input until one of them is an event.
    fn read_packets(&mut self) -> Result<Option<Event>, ClientError> {
        // Taken out so that packets can borrow from it while they change the rest.
        let input = std::mem::take(&mut self.input);
        let outcome = self.read_from(&input);
        self.input = input;
        if self.consumed == self.input.len() {
            self.input.clear();
            self.consumed = 0;
        }
        outcome
    }

    fn read_from(&mut self, input: &[u8]) -> Result<Option<Event>, ClientError> {
        while let FrameStatus::Complete(frame) =
            frame(input.get(self.consumed..).unwrap_or_default(), self.packet_limit)?
        {
            self.consumed += frame.len;
            if let Some(event) = self.handle(Packet::decode(&frame, self.version)?)? {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    fn handle(&mut self, packet: Packet<'_>) -> Result<Option<Event>, ClientError> {
        Ok(match packet {
            Packet::Publish(publish) => self.handle_publish(&publish)?,
            Packet::PubAck(ack) => self.settle(&ack, Awaiting::Ack)?,
            Packet::PubRec(ack) => self.handle_pubrec(&ack)?,
            Packet::PubRel(ack) => {
                let known = self.received.remove(&ack.packet_id);
                let code = if known { ReasonCode::Success } else { ReasonCode::PacketIdentifierNotFound };
                self.send(&Packet::PubComp(Ack::new(ack.packet_id, code)))?;
                None
            }
            Packet::PubComp(ack) => self.settle(&ack, Awaiting::Comp)?,
            Packet::SubAck(ack) if self.requests.remove(&ack.packet_id) => Some(Event::Subscribed {
                packet_id: ack.packet_id,
                reason_codes: ack.reason_codes().collect(),
            }),
            Packet::UnsubAck(ack) if self.requests.remove(&ack.packet_id) => Some(Event::Unsubscribed {
                packet_id: ack.packet_id,
                reason_codes: ack.reason_codes().collect(),
            }),
            Packet::PingResp => {
                self.ping_sent = None;
                None
            }
            Packet::Disconnect(disconnect) => {
                return Err(ClientError::Disconnected {
                    reason_code: disconnect.reason_code,
                    reason: disconnect.reason_string.map(str::to_owned),
                });
            }
            _ => return Err(unexpected("a packet that a server doesn't send, or that nothing asked for")),
        })
    }

    fn handle_publish(&mut self, publish: &Publish<'_>) -> Result<Option<Event>, ClientError> {
        if publish.topic.is_empty() {
            return Err(unexpected("a topic alias, though none is allowed"));
        }
        match (publish.qos, publish.packet_id) {
            (QoS::AtLeastOnce, Some(id)) => self.send(&Packet::PubAck(Ack::new(id, ReasonCode::Success)))?,
            (QoS::ExactlyOnce, Some(id)) => {
                self.send(&Packet::PubRec(Ack::new(id, ReasonCode::Success)))?;
                if !self.received.insert(id) {
                    return Ok(None);
                }
            }
            _ => {}
        }
        Ok(Some(Event::Message(Received {
            message: Message {
                topic: publish.topic.to_owned(),
                payload: publish.payload.to_vec(),
                qos: publish.qos,
                retain: publish.retain,
                properties: owned(&publish.properties),
            },
            dup: publish.dup,
            packet_id: publish.packet_id,
            subscription_identifiers: publish.properties.subscription_identifiers.iter().collect(),
        })))
    }

    fn handle_pubrec(&mut self, ack: &Ack<'_>) -> Result<Option<Event>, ClientError> {
        if ack.reason_code.is_error() {
            return self.settle(ack, Awaiting::Rec);
        }
        let known = match self.publishes.get_mut(&ack.packet_id) {
            // A repeated PUBREC is answered again [MQTT-4.3.3-5, v5].
            Some(awaiting @ (Awaiting::Rec | Awaiting::Comp)) => {
                *awaiting = Awaiting::Comp;
                true
            }
            _ => false,
        };
        let code = if known { ReasonCode::Success } else { ReasonCode::PacketIdentifierNotFound };
        self.send(&Packet::PubRel(Ack::new(ack.packet_id, code)))?;
        Ok(None)
    }

    fn settle(&mut self, ack: &Ack<'_>, expected: Awaiting) -> Result<Option<Event>, ClientError> {
        if self.publishes.get(&ack.packet_id) != Some(&expected) {
            return Err(unexpected("an acknowledgement of something that was not sent"));
        }
        self.publishes.remove(&ack.packet_id);
        Ok(Some(Event::Published { packet_id: ack.packet_id, reason_code: ack.reason_code }))
    }

    /// Queues a PINGREQ when it is time; returns when to look again.
    fn keep_alive(&mut self) -> Result<Option<Instant>, ClientError> {
        let interval = self.accepted.keep_alive;
        if interval.is_zero() {
            return Ok(None);
        }
        let now = Instant::now();
        if let Some(sent) = self.ping_sent {
            let timeout = interval.min(PING_TIMEOUT);
            if now >= sent + timeout {
                return Err(ClientError::PingTimeout { timeout });
            }
            return Ok(Some(sent + timeout));
        }
        if now >= self.last_sent + interval {
            self.send(&Packet::PingReq)?;
            self.ping_sent = Some(now);
            return Ok(Some(now + interval.min(PING_TIMEOUT)));
        }
        Ok(Some(self.last_sent + interval))
    }

    /// Waits until bytes came, or until the deadline; sends meanwhile. Cancel-safe.
    async fn wait(&mut self, deadline: Option<Instant>) -> Result<(), ClientError> {
        let moved = poll_fn(|cx| self.poll_move(cx));
        match deadline {
            Some(deadline) => tokio::time::timeout_at(deadline, moved).await.unwrap_or(Ok(())),
            None => moved.await,
        }
    }

    /// Sends what it can, and is ready when something was read.
    fn poll_move(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ClientError>> {
        let sent = self.poll_send(cx);
        match (self.poll_read(cx), sent) {
            // What was read may be the reason why nothing can be sent any more: it comes first.
            (Poll::Ready(outcome), _) => Poll::Ready(outcome),
            (Poll::Pending, Poll::Ready(Err(error))) => Poll::Ready(Err(error)),
            (Poll::Pending, _) => Poll::Pending,
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ClientError>> {
        if self.consumed > 0 {
            self.input.drain(..self.consumed);
            self.consumed = 0;
        }
        let start = self.input.len();
        self.input.resize(start + READ_BYTES, 0);
        let mut buf = ReadBuf::new(self.input.get_mut(start..).unwrap_or_default());
        let outcome = Pin::new(&mut self.stream).poll_read(cx, &mut buf);
        let count = buf.filled().len();
        self.input.truncate(start + count);
        match outcome {
            Poll::Ready(Ok(())) if count == 0 => Poll::Ready(Err(ClientError::Closed)),
            Poll::Ready(Ok(())) => Poll::Ready(Ok(())),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error.into())),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Sends everything that is queued, through whatever the stream holds back.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ClientError>> {
        while let Some(rest) = self.output.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match Pin::new(&mut self.stream).poll_write(cx, rest) {
                Poll::Ready(Ok(0)) => {
                    return Poll::Ready(Err(io::Error::from(io::ErrorKind::WriteZero).into()));
                }
                Poll::Ready(Ok(count)) => {
                    self.sent += count;
                    self.is_flushed = false;
                    self.last_sent = Instant::now();
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error.into())),
                Poll::Pending => return Poll::Pending,
            }
        }
        self.output.clear();
        self.sent = 0;
        if !self.is_flushed {
            match Pin::new(&mut self.stream).poll_flush(cx) {
                Poll::Ready(outcome) => outcome?,
                Poll::Pending => return Poll::Pending,
            }
            self.is_flushed = true;
        }
        Poll::Ready(Ok(()))
    }
}

fn encode_connect(options: &Options, keep_alive_s: u16, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let will_user = match &options.will {
        Some(will) => user_properties(&will.properties)?,
        None => UserPropertiesBuf::new(),
    };
    let is_v5 = options.version.has_properties();
    let connect = Connect {
        clean_start: options.clean_start,
        keep_alive_s,
        username: options.username.as_deref(),
        password: options.password.as_ref().map(Password::bytes),
        will: options.will.as_ref().map(|will| Will {
            qos: will.qos,
            retain: will.retain,
            topic: &will.topic,
            payload: &will.payload,
            delay_interval_s: 0,
            publish: if is_v5 {
                borrowed(&will.properties, will_user.as_properties())
            } else {
                PublishProperties::default()
            },
        }),
        properties: if is_v5 {
            ConnectProperties {
                session_expiry_interval_s: options.session_expiry_interval_s,
                receive_maximum: options.receive_maximum,
                maximum_packet_size: Some(options.maximum_packet_size),
                ..ConnectProperties::default()
            }
        } else {
            ConnectProperties::default()
        },
        ..Connect::new(options.version, &options.client_id)
    };
    Packet::Connect(Box::new(connect)).encode(options.version, out)
}

/// What both sides agreed on.
fn agreed(asked: &Accepted, connack: &ConnAck<'_>) -> Accepted {
    let said = &connack.properties;
    Accepted {
        session_present: connack.session_present,
        client_id: said.assigned_client_identifier.map_or_else(|| asked.client_id.clone(), str::to_owned),
        receive_maximum: said.receive_maximum.unwrap_or(asked.receive_maximum),
        maximum_packet_size: said.maximum_packet_size.unwrap_or(asked.maximum_packet_size),
        maximum_qos: said.maximum_qos.unwrap_or(asked.maximum_qos),
        keep_alive: said.server_keep_alive_s.map_or(asked.keep_alive, |s| Duration::from_secs(u64::from(s))),
    }
}

fn user_properties(properties: &Properties) -> Result<UserPropertiesBuf, EncodeError> {
    let mut encoded = UserPropertiesBuf::new();
    for (name, value) in &properties.user_properties {
        encoded.push(name, value)?;
    }
    Ok(encoded)
}

fn borrowed<'a>(properties: &'a Properties, user_properties: UserProperties<'a>) -> PublishProperties<'a> {
    PublishProperties {
        payload_format_indicator: properties.payload_format_indicator,
        message_expiry_interval_s: properties.message_expiry_interval_s,
        response_topic: properties.response_topic.as_deref(),
        correlation_data: properties.correlation_data.as_deref(),
        content_type: properties.content_type.as_deref(),
        user_properties,
        ..PublishProperties::default()
    }
}

fn owned(properties: &PublishProperties<'_>) -> Properties {
    Properties {
        payload_format_indicator: properties.payload_format_indicator,
        message_expiry_interval_s: properties.message_expiry_interval_s,
        content_type: properties.content_type.map(str::to_owned),
        response_topic: properties.response_topic.map(str::to_owned),
        correlation_data: properties.correlation_data.map(<[u8]>::to_vec),
        user_properties: properties
            .user_properties
            .iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
    }
}

fn unexpected(what: &'static str) -> ClientError {
    ClientError::Decode(mqtt_protocol::DecodeError::Protocol(what))
}
