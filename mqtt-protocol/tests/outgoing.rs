//! What a Server sends: the layout for fan-out, and packets made receiver by receiver, against the plain encoder.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use std::num::NonZeroU16;

use mqtt_protocol::{
    AliasUse, EncodeError, FrameStatus, Outgoing, Packet, PacketId, ProtocolVersion, Publish, PublishLayout,
    PublishProperties, QoS, UserPropertiesBuf, encode_publish, frame,
};
use proptest::{collection::vec, option, prelude::*, sample::select};

/// The plain encoder's bytes for the same packet, put together by decoding the forwarded properties.
fn plain(version: ProtocolVersion, packet: &Sent<'_>) -> Vec<u8> {
    let mut properties = PublishProperties::from_encoded(packet.message.forward).unwrap();
    properties.message_expiry_interval_s = packet.message.message_expiry_interval_s;
    properties.topic_alias = packet.alias.map(|(alias, _)| alias);
    properties.subscription_identifiers = packet.identifiers.into();
    let replaced = version.has_properties() && matches!(packet.alias, Some((_, AliasUse::Replace)));
    let publish = Publish {
        dup: packet.dup,
        qos: packet.qos,
        retain: packet.retain,
        topic: if replaced { "" } else { packet.message.topic },
        packet_id: packet.id,
        properties: if version.has_properties() { properties } else { PublishProperties::default() },
        payload: packet.message.payload,
    };
    let mut out = Vec::new();
    Packet::Publish(publish).encode(version, &mut out).unwrap();
    out
}

struct Sent<'a> {
    message: Outgoing<'a>,
    qos: QoS,
    retain: bool,
    dup: bool,
    id: Option<PacketId>,
    alias: Option<(NonZeroU16, AliasUse)>,
    identifiers: &'a [u32],
}

impl Sent<'_> {
    fn encode(
        &self,
        version: ProtocolVersion,
        out: &mut Vec<u8>,
        with_payload: bool,
    ) -> Result<usize, EncodeError> {
        let Self { message, qos, retain, dup, id, alias, identifiers } = self;
        encode_publish(out, version, message, *qos, *retain, *dup, *id, *alias, identifiers, with_payload)
    }
}

fn decode(bytes: &[u8], version: ProtocolVersion) -> Publish<'_> {
    let Ok(FrameStatus::Complete(frame)) = frame(bytes, u32::MAX) else { panic!("a whole packet") };
    assert_eq!(frame.len, bytes.len());
    Publish::decode(&frame, version).unwrap()
}

proptest! {
    #[test]
    fn encode_publish_equals_the_plain_encoder(
        version in select(ProtocolVersion::ALL.to_vec()),
        (qos, retain, dup) in (select(QoS::ALL.to_vec()), any::<bool>(), any::<bool>()),
        id in 1..=u16::MAX,
        topic in "[^\u{0}+#]{1,140}",
        payload in prop_oneof![vec(any::<u8>(), 0..150), vec(any::<u8>(), 16_300..16_500)],
        content_type in option::of("[a-z/]{0,150}"),
        user in vec(("[a-z]{0,8}", "[a-z]{0,8}"), 0..3),
        expiry in option::of(any::<u32>()),
        alias in option::of((1..=u16::MAX, select(vec![AliasUse::Establish, AliasUse::Replace]))),
        identifiers in vec(1..=268_435_455u32, 0..4),
    ) {
        let mut buf = UserPropertiesBuf::new();
        for (name, value) in &user {
            buf.push(name, value).unwrap();
        }
        let properties = PublishProperties { content_type: content_type.as_deref(), user_properties: buf.as_properties(), ..Default::default() };
        let forward = properties.forward_bytes();
        let sent = Sent {
            message: Outgoing { topic: &topic, payload: &payload, forward: &forward, message_expiry_interval_s: expiry },
            qos,
            retain,
            dup: dup && qos != QoS::AtMostOnce,
            id: if qos == QoS::AtMostOnce { None } else { PacketId::new(id) },
            alias: alias.map(|(alias, how)| (NonZeroU16::new(alias).unwrap(), how)),
            identifiers: &identifiers,
        };
        let mut bytes = Vec::new();
        let len = sent.encode(version, &mut bytes, true).unwrap();
        prop_assert_eq!(len, bytes.len());
        let expected = plain(version, &sent);
        prop_assert_eq!(decode(&bytes, version), decode(&expected, version));
        prop_assert_eq!(bytes.len(), expected.len());
        let mut header = b"x".to_vec();
        prop_assert_eq!(sent.encode(version, &mut header, false).unwrap(), len);
        header.extend(&payload);
        prop_assert_eq!(header.strip_prefix(b"x").unwrap(), bytes.as_slice());

        let bare = Sent { alias: None, identifiers: &[], ..sent };
        let mut expected = Vec::new();
        bare.encode(version, &mut expected, true).unwrap();
        let scratch = vec![0xEE; 7];
        let layout = PublishLayout::new(version, bare.id.is_some(), &bare.message, scratch).unwrap();
        prop_assert_eq!(layout.packet_len(), expected.len());
        prop_assert_eq!(layout.payload_len(), payload.len());
        let mut copied = b"x".to_vec();
        layout.append_header(&mut copied, bare.qos, bare.retain, bare.dup, bare.id);
        copied.extend(&payload);
        prop_assert_eq!(copied.strip_prefix(b"x").unwrap(), expected.as_slice());
        // A second receiver finds nothing of the first.
        let (next_qos, next_id) = match bare.id {
            Some(id) => (QoS::ExactlyOnce, Some(id.next())),
            None => (QoS::AtMostOnce, None),
        };
        let next = Sent { qos: next_qos, id: next_id, retain: !bare.retain, dup: false, ..bare };
        let mut expected = Vec::new();
        next.encode(version, &mut expected, false).unwrap();
        let mut copied = Vec::new();
        layout.append_header(&mut copied, next.qos, next.retain, next.dup, next.id);
        prop_assert_eq!(copied, expected);
    }
}

const MESSAGE: Outgoing<'_> =
    Outgoing { topic: "a/b", payload: b"hi", forward: &[], message_expiry_interval_s: None };

fn sent(qos: QoS) -> Sent<'static> {
    let id = qos.has_packet_id().then_some(PacketId::MIN);
    Sent { message: MESSAGE, qos, retain: false, dup: false, id, alias: None, identifiers: &[] }
}

#[test]
fn what_no_receiver_accepts_is_not_sent_and_the_output_is_unchanged() {
    let long = "t".repeat(65_536);
    let forbidden = [
        Sent { id: None, ..sent(QoS::AtLeastOnce) },
        Sent { id: Some(PacketId::MIN), ..sent(QoS::AtMostOnce) },
        Sent { dup: true, ..sent(QoS::AtMostOnce) },
        Sent { identifiers: &[0], ..sent(QoS::AtMostOnce) },
        Sent { identifiers: &[268_435_456], ..sent(QoS::AtMostOnce) },
        Sent { message: Outgoing { topic: &long, ..MESSAGE }, ..sent(QoS::AtMostOnce) },
    ];
    for (index, packet) in forbidden.iter().enumerate() {
        let mut out = b"x".to_vec();
        assert!(packet.encode(ProtocolVersion::V5, &mut out, true).is_err(), "case {index}");
        assert_eq!(out, b"x", "case {index}");
    }
}

#[test]
fn the_largest_packet_of_the_format_is_encoded_and_one_byte_more_is_not() {
    // Remaining Length = 2 + 3 (topic) + 1 (Property Length) + payload.
    let payload = vec![0; 268_435_455 - 6];
    let largest = Outgoing { payload: &payload, ..MESSAGE };
    let packet = Sent { message: largest, ..sent(QoS::AtMostOnce) };
    let mut out = Vec::new();
    assert_eq!(packet.encode(ProtocolVersion::V5, &mut out, false), Ok(268_435_460));
    assert_eq!(out.get(..5), Some([0x30, 0xFF, 0xFF, 0xFF, 0x7F].as_slice()));
    let layout = PublishLayout::new(ProtocolVersion::V5, false, &largest, Vec::new()).unwrap();
    assert_eq!(layout.packet_len(), 268_435_460);
    let with_id = Sent { qos: QoS::AtLeastOnce, id: Some(PacketId::MIN), ..packet };
    let error = with_id.encode(ProtocolVersion::V5, &mut Vec::new(), false);
    assert_eq!(error, Err(EncodeError::PacketTooLarge { len: 268_435_457 }));
    assert!(PublishLayout::new(ProtocolVersion::V5, true, &largest, Vec::new()).is_err());
}
