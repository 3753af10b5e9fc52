//! The client against a scripted server that speaks through the codec, packet by packet.

use mqtt_protocol::{
    Ack, ConnAck, ConnAckProperties, Disconnect, FrameStatus, Packet, PacketId, ProtocolVersion, Publish,
    PublishProperties, QoS, ReasonCode, SubAck, SubscriptionOptions, frame,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;

/// One connection of the server's side.
struct Peer {
    stream: TcpStream,
    input: Vec<u8>,
    version: ProtocolVersion,
}

impl Peer {
    /// Receives one packet and hands it to `look`.
    async fn receive<T>(&mut self, look: impl FnOnce(Packet<'_>) -> T) -> T {
        loop {
            if let FrameStatus::Complete(frame) = frame(&self.input, u32::MAX).unwrap() {
                let result = look(Packet::decode(&frame, self.version).unwrap());
                let len = frame.len;
                self.input.drain(..len);
                return result;
            }
            assert_ne!(
                self.stream.read_buf(&mut self.input).await.unwrap(),
                0,
                "the client closed the connection"
            );
        }
    }

    async fn send(&mut self, packet: Packet<'_>) {
        let mut bytes = Vec::new();
        packet.encode(self.version, &mut bytes).unwrap();
        self.stream.write_all(&bytes).await.unwrap();
    }

    async fn publish(&mut self, qos: QoS, id: Option<PacketId>, dup: bool) {
        self.send(Packet::Publish(Publish {
            dup,
            qos,
            retain: false,
            topic: "t",
            packet_id: id,
            properties: PublishProperties::default(),
            payload: b"p",
        }))
        .await;
    }
}

fn local(listener: &TcpListener) -> Endpoint {
    Endpoint::Tcp { host: "127.0.0.1".into(), port: listener.local_addr().unwrap().port() }
}

/// Connects a client; the server's side answers with `connack`.
async fn connected(version: ProtocolVersion, connack: ConnAck<'_>) -> (Result<Client, ClientError>, Peer) {
    connected_with(Options { version, ..Options::default() }, connack).await
}

async fn connected_with(options: Options, connack: ConnAck<'_>) -> (Result<Client, ClientError>, Peer) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let options = Options { endpoint: local(&listener), ..options };
    let accept = async {
        let (stream, _) = listener.accept().await.unwrap();
        let mut peer = Peer { stream, input: Vec::new(), version: options.version };
        peer.receive(|packet| assert!(matches!(packet, Packet::Connect(_)), "{packet:?}")).await;
        peer.send(Packet::ConnAck(connack)).await;
        peer
    };
    tokio::join!(Client::connect(&options), accept)
}

fn id(value: u16) -> PacketId {
    PacketId::new(value).unwrap()
}

#[tokio::test]
async fn what_the_server_says_at_the_start_is_kept() {
    let connack = ConnAck {
        session_present: false,
        reason_code: ReasonCode::Success,
        properties: ConnAckProperties {
            receive_maximum: Some(2),
            maximum_packet_size: Some(100),
            maximum_qos: Some(QoS::AtLeastOnce),
            assigned_client_identifier: Some("chosen"),
            server_keep_alive_s: Some(7),
            ..ConnAckProperties::default()
        },
    };
    let (client, _peer) = connected(ProtocolVersion::V5, connack).await;
    let mut client = client.unwrap();
    let accepted = client.accepted();
    assert_eq!(accepted.client_id, "chosen");
    assert_eq!(accepted.keep_alive, Duration::from_secs(7));
    assert_eq!(client.window(), 2);

    let message = Message::new("t", "p").with_qos(QoS::AtLeastOnce);
    assert_eq!(client.publish(&message).unwrap(), PacketId::new(1));
    assert_eq!(client.publish(&message).unwrap(), PacketId::new(2));
    assert!(matches!(client.publish(&message), Err(ClientError::WindowFull { limit: 2 })));
    let exactly_once = Message::new("t", "p").with_qos(QoS::ExactlyOnce);
    assert!(matches!(client.publish(&exactly_once), Err(ClientError::QosNotSupported { .. })));
    let large = Message::new("t", vec![0; 100]);
    assert!(matches!(client.publish(&large), Err(ClientError::PacketTooLarge { limit: 100, .. })));
}

#[tokio::test]
async fn a_refusal_names_its_reason() {
    let (client, _peer) = connected(
        ProtocolVersion::V5,
        ConnAck {
            properties: ConnAckProperties {
                reason_string: Some("go\u{7} away"),
                ..ConnAckProperties::default()
            },
            ..ConnAck::new(ReasonCode::Banned)
        },
    )
    .await;
    let error = client.unwrap_err();
    assert_eq!(error.to_string(), "the server refused the connection: Banned (0x8a): go\\u{7} away");
    assert!(!error.is_retriable());
    let (client, _peer) =
        connected(ProtocolVersion::V3_1_1, ConnAck::new(ReasonCode::ServerUnavailable)).await;
    let error = client.unwrap_err();
    assert!(
        matches!(error, ClientError::Refused { reason_code: ReasonCode::ServerUnavailable, .. }),
        "{error}"
    );
    assert!(error.is_retriable());
}

#[tokio::test]
async fn publishes_are_settled_step_by_step() {
    for version in [ProtocolVersion::V3_1_1, ProtocolVersion::V5] {
        let (client, mut peer) = connected(version, ConnAck::new(ReasonCode::Success)).await;
        let mut client = client.unwrap();
        client.publish(&Message::new("a", "1").with_qos(QoS::AtLeastOnce)).unwrap();
        client.publish(&Message::new("a", "2").with_qos(QoS::ExactlyOnce)).unwrap();
        assert_eq!(client.unsettled(), 2);
        let server = async {
            for expected in [1, 2] {
                peer.receive(|packet| match packet {
                    Packet::Publish(publish) => assert_eq!(publish.packet_id, PacketId::new(expected)),
                    other => panic!("{other:?}"),
                })
                .await;
            }
            peer.send(Packet::PubRec(Ack::new(id(2), ReasonCode::Success))).await;
            peer.receive(|packet| assert!(matches!(packet, Packet::PubRel(_)), "{packet:?}")).await;
            // A repeated PUBREC is answered again.
            peer.send(Packet::PubRec(Ack::new(id(2), ReasonCode::Success))).await;
            peer.receive(|packet| assert!(matches!(packet, Packet::PubRel(_)), "{packet:?}")).await;
            peer.send(Packet::PubAck(Ack::new(id(1), ReasonCode::Success))).await;
            peer.send(Packet::PubComp(Ack::new(id(2), ReasonCode::Success))).await;
        };
        let events = async { [client.next().await.unwrap(), client.next().await.unwrap()] };
        let (events, ()) = tokio::join!(events, server);
        let settled = |id| Event::Published { packet_id: id, reason_code: ReasonCode::Success };
        assert_eq!(events, [settled(id(1)), settled(id(2))]);
        assert_eq!(client.unsettled(), 0);
    }
}

#[tokio::test]
async fn a_refused_qos_2_publish_ends_at_pubrec() {
    let (client, mut peer) = connected(ProtocolVersion::V5, ConnAck::new(ReasonCode::Success)).await;
    let mut client = client.unwrap();
    client.publish(&Message::new("a", "").with_qos(QoS::ExactlyOnce)).unwrap();
    let server = async {
        peer.receive(|_| ()).await;
        peer.send(Packet::PubRec(Ack::new(id(1), ReasonCode::QuotaExceeded))).await;
    };
    let (event, ()) = tokio::join!(client.next(), server);
    let refused = Event::Published { packet_id: id(1), reason_code: ReasonCode::QuotaExceeded };
    assert_eq!(event.unwrap(), refused);
    assert_eq!(client.unsettled(), 0);
}

#[tokio::test]
async fn a_qos_2_message_is_delivered_once() {
    let (client, mut peer) = connected(ProtocolVersion::V5, ConnAck::new(ReasonCode::Success)).await;
    let mut client = client.unwrap();
    peer.publish(QoS::ExactlyOnce, PacketId::new(9), false).await;
    peer.publish(QoS::ExactlyOnce, PacketId::new(9), true).await;
    peer.publish(QoS::AtMostOnce, None, false).await;
    let qos_of = |event| match event {
        Event::Message(received) => received.message.qos,
        other => panic!("{other:?}"),
    };
    assert_eq!(qos_of(client.next().await.unwrap()), QoS::ExactlyOnce);
    assert_eq!(qos_of(client.next().await.unwrap()), QoS::AtMostOnce, "the repetition is no message");
    let server = async {
        for _ in 0..2 {
            peer.receive(|packet| assert!(matches!(packet, Packet::PubRec(_)), "{packet:?}")).await;
        }
        peer.send(Packet::PubRel(Ack::new(id(9), ReasonCode::Success))).await;
        peer.receive(|packet| assert!(matches!(packet, Packet::PubComp(_)), "{packet:?}")).await;
        // The identifier is free again: this is another message.
        peer.publish(QoS::ExactlyOnce, PacketId::new(9), false).await;
    };
    let (event, ()) = tokio::join!(client.next(), server);
    assert_eq!(qos_of(event.unwrap()), QoS::ExactlyOnce);
}

#[tokio::test]
async fn subscriptions_are_answered_filter_by_filter() {
    let (client, mut peer) = connected(ProtocolVersion::V5, ConnAck::new(ReasonCode::Success)).await;
    let mut client = client.unwrap();
    let options = SubscriptionOptions::from_qos(QoS::AtLeastOnce);
    let packet_id = client.subscribe([("a/#", options), ("secret", options)]).unwrap();
    let server = async {
        let count = peer.receive(|packet| match packet {
            Packet::Subscribe(subscribe) => subscribe.filters.count(),
            other => panic!("{other:?}"),
        });
        assert_eq!(count.await, 2);
        peer.send(Packet::SubAck(SubAck::new(packet_id, &[1, 0x87]))).await;
    };
    let (event, ()) = tokio::join!(client.next(), server);
    let reason_codes = vec![ReasonCode::GrantedQos1, ReasonCode::NotAuthorized];
    assert_eq!(event.unwrap(), Event::Subscribed { packet_id, reason_codes });
}

#[tokio::test]
async fn what_a_server_must_not_send_ends_the_connection() {
    let nothing_sent = [
        Packet::PubAck(Ack::new(id(1), ReasonCode::Success)),
        Packet::PubComp(Ack::new(id(1), ReasonCode::Success)),
        Packet::SubAck(SubAck::new(id(1), &[0])),
        Packet::PingReq,
        Packet::ConnAck(ConnAck::new(ReasonCode::Success)),
    ];
    for packet in nothing_sent {
        let (client, mut peer) = connected(ProtocolVersion::V5, ConnAck::new(ReasonCode::Success)).await;
        peer.send(packet.clone()).await;
        let error = client.unwrap().next().await.unwrap_err();
        assert!(matches!(error, ClientError::Decode(_)), "{packet:?}: {error}");
    }
    let (client, mut peer) = connected(ProtocolVersion::V5, ConnAck::new(ReasonCode::Success)).await;
    peer.stream.write_all(&[0x30, 0xff, 0xff, 0xff, 0xff, 0x01]).await.unwrap();
    assert!(matches!(client.unwrap().next().await, Err(ClientError::Decode(_))));
}

#[tokio::test]
async fn the_end_of_the_connection_is_told_apart() {
    let (client, mut peer) = connected(ProtocolVersion::V5, ConnAck::new(ReasonCode::Success)).await;
    peer.send(Packet::Disconnect(Disconnect::new(ReasonCode::SessionTakenOver))).await;
    let error = client.unwrap().next().await.unwrap_err();
    assert_eq!(error.to_string(), "the server closed the connection: Session taken over (0x8e)");
    assert!(!error.is_retriable());

    let (client, peer) = connected(ProtocolVersion::V5, ConnAck::new(ReasonCode::Success)).await;
    drop(peer);
    let error = client.unwrap().next().await.unwrap_err();
    assert!(error.is_retriable(), "{error}");
}

#[tokio::test]
async fn silence_is_broken_by_a_ping_and_an_unanswered_ping_ends_it() {
    let options = Options { keep_alive: Duration::from_secs(30), ..Options::default() };
    // Before the CONNECT, from whose sending the first silence counts.
    let started = tokio::time::Instant::now();
    let (client, mut peer) = connected_with(options, ConnAck::new(ReasonCode::Success)).await;
    let mut client = client.unwrap();
    // From here on time passes only when nothing else is left to do.
    tokio::time::pause();
    let server = async {
        peer.receive(|packet| assert_eq!(packet, Packet::PingReq)).await;
        peer.send(Packet::PingResp).await;
        peer.receive(|packet| assert_eq!(packet, Packet::PingReq)).await;
    };
    let (error, ()) = tokio::join!(client.next(), server);
    assert!(matches!(error, Err(ClientError::PingTimeout { .. })), "{error:?}");
    assert!(started.elapsed() >= Duration::from_secs(70), "two silences of 30 s and a wait of 10 s");
}

#[tokio::test]
async fn a_server_that_says_nothing_is_not_waited_for() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let options = Options { endpoint: local(&listener), ..Options::default() };
    let port = listener.local_addr().unwrap().port();
    tokio::time::pause();
    let error = Client::connect(&options).await.unwrap_err();
    assert_eq!(error.to_string(), format!("no answer from 127.0.0.1:{port} within 10 s"));
}

#[tokio::test]
async fn a_goodbye_sends_everything_first() {
    let (client, mut peer) = connected(ProtocolVersion::V5, ConnAck::new(ReasonCode::Success)).await;
    let mut client = client.unwrap();
    let large = Message::new("t", vec![7; 300_000]);
    client.publish(&large).unwrap();
    let server = async {
        peer.receive(|packet| match packet {
            Packet::Publish(publish) => assert_eq!(publish.payload.len(), 300_000),
            other => panic!("{other:?}"),
        })
        .await;
        peer.receive(|packet| assert!(matches!(packet, Packet::Disconnect(_)), "{packet:?}")).await;
    };
    let (goodbye, ()) = tokio::join!(client.disconnect(), server);
    goodbye.unwrap();
}

#[test]
fn passwords_are_not_printed() {
    let options = Options { password: Some(Password::new("hunter2")), ..Options::default() };
    assert!(!format!("{options:?}").contains("hunter2"));
}
