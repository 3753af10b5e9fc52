//! A broker on a free port, and a client that speaks packet by packet.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "each test file uses its own part; a helper of tests panics where it can't go on"
)]

use std::sync::Arc;
use std::time::Duration;

use broker::{Broker, BrokerConfig, ListenerConfig, ListenerLimits, MessageHook};
use mqtt_protocol::{
    Ack, ConnAck, Connect, FrameStatus, Outgoing, Packet, PacketId, ProtocolVersion, QoS, ReasonCode,
    Subscribe, SubscribeFiltersBuf, SubscriptionOptions, UserProperties, encode_publish,
};
use store::{MemoryStore, Store};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Nothing here takes this long unless it never happens.
pub const FOR_EVER: Duration = Duration::from_secs(20);

pub struct Harness {
    pub broker: Broker,
    pub port: u16,
}

pub async fn start(config: BrokerConfig) -> Harness {
    start_with(config, Arc::new(MemoryStore::new(1)), None).await
}

pub async fn start_with(
    config: BrokerConfig,
    store: Arc<dyn Store>,
    hook: Option<Arc<dyn MessageHook>>,
) -> Harness {
    listen(Broker::new(config, store, hook)).await
}

/// Opens a broker's listener.
pub async fn listen(broker: Broker) -> Harness {
    listen_for(broker, true).await
}

/// The same, for anonymous clients or not.
pub async fn listen_for(broker: Broker, allow_anonymous: bool) -> Harness {
    listen_within(broker, allow_anonymous, ListenerLimits::default()).await
}

/// The same, with limits of the listener's own.
pub async fn listen_within(broker: Broker, allow_anonymous: bool, limits: ListenerLimits) -> Harness {
    let listener = broker
        .listen(ListenerConfig {
            allow_anonymous,
            limits,
            ..ListenerConfig::tcp("tcp", ([127, 0, 0, 1], 0).into())
        })
        .await
        .unwrap();
    Harness { broker, port: listener.address().unwrap().port() }
}

pub struct Client {
    stream: TcpStream,
    version: ProtocolVersion,
    unread: Vec<u8>,
}

/// A packet that was received, as far as the tests look at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Got {
    Publish {
        topic: String,
        payload: Vec<u8>,
        qos: QoS,
        retain: bool,
        dup: bool,
        id: Option<PacketId>,
        identifiers: Vec<u32>,
        alias: Option<u16>,
    },
    ConnAck {
        session_present: bool,
        reason: ReasonCode,
    },
    Ack(&'static str, PacketId, ReasonCode),
    SubAck(Vec<u8>),
    UnsubAck(Vec<u8>),
    PingResp,
    Disconnect(ReasonCode),
    Auth {
        reason: ReasonCode,
        method: Option<String>,
        data: Option<Vec<u8>>,
    },
    Closed,
}

impl Harness {
    pub async fn raw(&self, version: ProtocolVersion) -> Client {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Client { stream, version, unread: Vec::new() }
    }

    /// Connects with MQTT 5, Clean Start, no Keep Alive.
    pub async fn client(&self, client_id: &str) -> Client {
        self.connect(&Connect::new(ProtocolVersion::V5, client_id)).await.0
    }

    /// Connects; returns whether a session was present.
    pub async fn connect(&self, connect: &Connect<'_>) -> (Client, bool) {
        let mut client = self.raw(connect.version).await;
        client.send(&Packet::Connect(Box::new(*connect))).await;
        match client.receive().await {
            Got::ConnAck { session_present, reason: ReasonCode::Success } => (client, session_present),
            other => panic!("no CONNACK but {other:?}"),
        }
    }

    /// A session that outlives its connections.
    pub async fn durable(&self, client_id: &str) -> (Client, bool) {
        self.connect(&durable(client_id)).await
    }
}

pub fn durable(client_id: &str) -> Connect<'_> {
    let mut connect = Connect::new(ProtocolVersion::V5, client_id);
    connect.clean_start = false;
    connect.properties.session_expiry_interval_s = 3600;
    connect
}

impl Client {
    pub async fn send(&mut self, packet: &Packet<'_>) {
        let mut bytes = Vec::new();
        packet.encode(self.version, &mut bytes).unwrap();
        self.send_bytes(&bytes).await;
    }

    pub async fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// The same to a broker that may have closed the connection.
    pub async fn try_send_bytes(&mut self, bytes: &[u8]) {
        drop(self.stream.write_all(bytes).await);
    }

    pub async fn publish(&mut self, topic: &str, payload: &[u8], qos: QoS, retain: bool, id: u16) {
        let mut bytes = Vec::new();
        let outgoing = Outgoing { topic, payload, forward: &[], message_expiry_interval_s: None };
        encode_publish(
            &mut bytes,
            self.version,
            &outgoing,
            qos,
            retain,
            false,
            PacketId::new(id),
            None,
            &[],
            true,
        )
        .unwrap();
        self.send_bytes(&bytes).await;
    }

    pub async fn subscribe(&mut self, filter: &str, qos: QoS) -> Vec<u8> {
        self.subscribe_with(filter, SubscriptionOptions::from_qos(qos), None).await;
        match self.receive().await {
            Got::SubAck(codes) => codes,
            other => panic!("no SUBACK but {other:?}"),
        }
    }

    pub async fn subscribe_with(
        &mut self,
        filter: &str,
        options: SubscriptionOptions,
        identifier: Option<u32>,
    ) {
        let mut filters = SubscribeFiltersBuf::new();
        filters.push(filter, options).unwrap();
        self.send(&Packet::Subscribe(Subscribe {
            packet_id: PacketId::MIN,
            subscription_identifier: identifier,
            user_properties: UserProperties::NONE,
            filters: filters.as_filters(),
        }))
        .await;
    }

    pub async fn puback(&mut self, id: PacketId) {
        self.send(&Packet::PubAck(Ack::new(id, ReasonCode::Success))).await;
    }

    /// The next packet, or that the connection is closed.
    #[track_caller]
    pub fn receive(&mut self) -> impl Future<Output = Got> {
        let caller = std::panic::Location::caller();
        async move {
            tokio::time::timeout(FOR_EVER, self.receive_whenever())
                .await
                .unwrap_or_else(|_| panic!("nothing came; asked at {caller}"))
        }
    }

    /// The payload of the next packet, which is a PUBLISH.
    pub async fn payload(&mut self) -> Vec<u8> {
        match self.receive().await {
            Got::Publish { payload, .. } => payload,
            other => panic!("no PUBLISH but {other:?}"),
        }
    }

    /// Nothing but the answer to a ping is on its way: whatever the broker had to send before is here.
    pub async fn expect_nothing(&mut self) {
        self.send(&Packet::PingReq).await;
        assert_eq!(self.receive().await, Got::PingResp);
    }

    async fn receive_whenever(&mut self) -> Got {
        loop {
            if let Ok(FrameStatus::Complete(frame)) = mqtt_protocol::frame(&self.unread, u32::MAX) {
                let got = seen(&Packet::decode(&frame, self.version).unwrap());
                let len = frame.len;
                self.unread.drain(..len);
                return got;
            }
            let mut buffer = [0; 16 * 1024];
            match self.stream.read(&mut buffer).await {
                Ok(0) | Err(_) => return Got::Closed,
                Ok(count) => self.unread.extend_from_slice(&buffer[..count]),
            }
        }
    }
}

fn seen(packet: &Packet<'_>) -> Got {
    match packet {
        Packet::Publish(publish) => Got::Publish {
            topic: publish.topic.to_owned(),
            payload: publish.payload.to_vec(),
            qos: publish.qos,
            retain: publish.retain,
            dup: publish.dup,
            id: publish.packet_id,
            identifiers: publish.properties.subscription_identifiers.iter().collect(),
            alias: publish.properties.topic_alias.map(std::num::NonZeroU16::get),
        },
        Packet::ConnAck(ConnAck { session_present, reason_code, .. }) => {
            Got::ConnAck { session_present: *session_present, reason: *reason_code }
        }
        Packet::PubAck(ack) => Got::Ack("PUBACK", ack.packet_id, ack.reason_code),
        Packet::PubRec(ack) => Got::Ack("PUBREC", ack.packet_id, ack.reason_code),
        Packet::PubRel(ack) => Got::Ack("PUBREL", ack.packet_id, ack.reason_code),
        Packet::PubComp(ack) => Got::Ack("PUBCOMP", ack.packet_id, ack.reason_code),
        Packet::SubAck(suback) => Got::SubAck(suback.codes.to_vec()),
        Packet::UnsubAck(unsuback) => Got::UnsubAck(unsuback.codes.to_vec()),
        Packet::PingResp => Got::PingResp,
        Packet::Disconnect(disconnect) => Got::Disconnect(disconnect.reason_code),
        Packet::Auth(auth) => Got::Auth {
            reason: auth.reason_code,
            method: auth.authentication_method.map(str::to_owned),
            data: auth.authentication_data.map(<[u8]>::to_vec),
        },
        other => panic!("a broker sends no {other:?}"),
    }
}

pub fn id(value: u16) -> PacketId {
    PacketId::new(value).unwrap()
}
