//! The packets of `testdata/golden.txt` mean what is written here, and this meaning encodes to those bytes.
#![allow(
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::string_slice,
    reason = "test code"
)]
#![allow(clippy::expect_used, clippy::unwrap_used, dead_code, reason = "test code")]

mod common;

use std::num::NonZeroU16;

use mqtt_protocol::{
    Ack, Auth, ConnAck, ConnAckProperties, Connect, ConnectProperties, Disconnect, FrameStatus, Packet,
    PacketId, ProtocolVersion, Publish, PublishProperties, QoS, ReasonCode, RetainHandling, SubAck,
    Subscribe, SubscribeFiltersBuf, SubscriptionOptions, TopicFiltersBuf, UnsubAck, Unsubscribe,
    UserPropertiesBuf, Will, frame,
};

/// Lists that packets borrow.
struct Lists {
    kv: UserPropertiesBuf,
    kv_kw: UserPropertiesBuf,
    ab: UserPropertiesBuf,
    long: UserPropertiesBuf,
}

impl Lists {
    fn new() -> Self {
        let long: String = "0123456789".chars().cycle().take(130).collect();
        Self {
            kv: pairs(&[("k", "v")]),
            kv_kw: pairs(&[("k", "v"), ("k", "w")]),
            ab: pairs(&[("a", "b")]),
            long: pairs(&[("k", &long)]),
        }
    }
}

fn pairs(list: &[(&str, &str)]) -> UserPropertiesBuf {
    let mut buf = UserPropertiesBuf::new();
    for (name, value) in list {
        buf.push(name, value).unwrap();
    }
    buf
}

fn filters(list: &[(&str, SubscriptionOptions)]) -> &'static SubscribeFiltersBuf {
    let mut buf = SubscribeFiltersBuf::new();
    for (filter, options) in list {
        buf.push(filter, *options).unwrap();
    }
    Box::leak(Box::new(buf))
}

fn topic_filters(list: &[&str]) -> &'static TopicFiltersBuf {
    let mut buf = TopicFiltersBuf::new();
    for filter in list {
        buf.push(filter).unwrap();
    }
    Box::leak(Box::new(buf))
}

fn id(value: u16) -> PacketId {
    PacketId::new(value).unwrap()
}

fn publish(topic: &'static str, payload: &'static [u8]) -> Publish<'static> {
    Publish {
        dup: false,
        qos: QoS::AtMostOnce,
        retain: false,
        topic,
        packet_id: None,
        properties: PublishProperties::default(),
        payload,
    }
}

fn connect(version: ProtocolVersion, name: &str, lists: &'static Lists) -> Connect<'static> {
    let base = Connect { keep_alive_s: 60, ..Connect::new(version, "c1") };
    let will = Will {
        qos: QoS::ExactlyOnce,
        retain: true,
        topic: "will/t",
        payload: &[1, 2, 3],
        delay_interval_s: 0,
        publish: PublishProperties::default(),
    };
    let full = Connect { keep_alive_s: 10, username: Some("joe"), password: Some(b"secret"), ..base };
    match (version, name) {
        (ProtocolVersion::V5, "minimal") => Connect { client_id: "", ..base },
        (_, "minimal" | "user_missing" | "unused_will_bits" | "padded_length") => base,
        (_, "password_missing") => Connect { username: Some("joe"), ..base },
        (_, "bridge") => Connect { is_bridge: true, ..base },
        (_, "password_alone") => Connect { password: Some(b"secret"), ..base },
        (_, "defaults_said") => Connect { client_id: "", ..base },
        (_, "empty_client_id") => Connect { client_id: "", clean_start: false, keep_alive_s: 65_535, ..base },
        (ProtocolVersion::V3_1, "full") => {
            Connect { clean_start: false, will: Some(Will { qos: QoS::AtLeastOnce, ..will }), ..full }
        }
        (ProtocolVersion::V3_1_1, "full") => Connect { will: Some(will), ..full },
        (ProtocolVersion::V5, "full") => Connect {
            will: Some(Will {
                qos: QoS::AtLeastOnce,
                delay_interval_s: 5,
                publish: PublishProperties {
                    user_properties: lists.ab.as_properties(),
                    ..publish_properties()
                },
                ..will
            }),
            properties: ConnectProperties {
                session_expiry_interval_s: 10,
                receive_maximum: 20,
                maximum_packet_size: Some(256),
                topic_alias_maximum: 7,
                request_response_information: true,
                request_problem_information: false,
                user_properties: lists.kv_kw.as_properties(),
                authentication_method: Some("SCRAM"),
                authentication_data: Some(&[0xAB, 0xCD]),
            },
            ..full
        },
        _ => panic!("no meaning for connect_{name} {version}"),
    }
}

fn publish_properties() -> PublishProperties<'static> {
    PublishProperties {
        payload_format_indicator: Some(true),
        message_expiry_interval_s: Some(60),
        response_topic: Some("answer/to"),
        correlation_data: Some(&[1, 2]),
        content_type: Some("text/plain"),
        ..PublishProperties::default()
    }
}

fn connack(name: &str, lists: &'static Lists) -> ConnAck<'static> {
    let code = match name {
        "bad_version" => ReasonCode::UnsupportedProtocolVersion,
        "bad_identifier" => ReasonCode::ClientIdentifierNotValid,
        "unavailable" => ReasonCode::ServerUnavailable,
        "bad_credentials" => ReasonCode::BadUserNameOrPassword,
        "not_authorized" => ReasonCode::NotAuthorized,
        "banned" => ReasonCode::Banned,
        _ => ReasonCode::Success,
    };
    let properties = ConnAckProperties {
        session_expiry_interval_s: Some(3600),
        receive_maximum: Some(10),
        maximum_qos: Some(QoS::AtLeastOnce),
        retain_available: Some(false),
        maximum_packet_size: Some(1_048_576),
        assigned_client_identifier: Some("auto-1"),
        topic_alias_maximum: Some(16),
        reason_string: Some("fine"),
        user_properties: lists.kv.as_properties(),
        wildcard_subscription_available: Some(false),
        subscription_identifiers_available: Some(true),
        shared_subscription_available: Some(false),
        server_keep_alive_s: Some(30),
        response_information: Some("resp/"),
        server_reference: Some("other:1883"),
        authentication_method: Some("SCRAM"),
        authentication_data: Some(&[0xFF]),
    };
    let properties = if name == "full" { properties } else { ConnAckProperties::default() };
    ConnAck { session_present: name == "session_present", reason_code: code, properties }
}

fn publish_packet(name: &str, lists: &'static Lists) -> Publish<'static> {
    let base = publish("a/b", b"hi");
    match name {
        "qos0" => base,
        "empty_payload" => Publish { retain: true, payload: b"", ..base },
        "qos1_dup_retain" => {
            Publish { dup: true, qos: QoS::AtLeastOnce, retain: true, packet_id: Some(id(10)), ..base }
        }
        "qos2" => Publish { qos: QoS::ExactlyOnce, packet_id: Some(PacketId::MAX), ..base },
        "qos2_dup" => Publish { dup: true, qos: QoS::ExactlyOnce, packet_id: Some(id(10)), ..base },
        "non_ascii" => publish("A\u{2A6D4}", b"hi"),
        "byte_order_mark" => publish("\u{FEFF}a", b""),
        "dollar" => publish("$SYS/x", b""),
        "alias_alone" => Publish {
            topic: "",
            properties: PublishProperties { topic_alias: NonZeroU16::new(7), ..PublishProperties::default() },
            ..base
        },
        "full" => Publish {
            qos: QoS::AtLeastOnce,
            packet_id: Some(id(10)),
            properties: PublishProperties {
                topic_alias: NonZeroU16::new(7),
                subscription_identifiers: [1, 268_435_455].as_slice().into(),
                user_properties: lists.kv_kw.as_properties(),
                ..publish_properties()
            },
            ..base
        },
        "mixed_order" => Publish {
            properties: PublishProperties {
                payload_format_indicator: Some(false),
                content_type: Some("text/plain"),
                subscription_identifiers: [128, 1].as_slice().into(),
                user_properties: lists.kv_kw.as_properties(),
                ..PublishProperties::default()
            },
            ..base
        },
        "long_properties" => Publish {
            properties: PublishProperties {
                user_properties: lists.long.as_properties(),
                ..PublishProperties::default()
            },
            ..base
        },
        _ => panic!("no meaning for publish_{name}"),
    }
}

fn ack(name: &str, lists: &'static Lists) -> Option<Packet<'static>> {
    let (kind, rest) = name.split_once('_').unwrap_or((name, ""));
    let reason_code = match (kind, rest) {
        (_, "not_found") | ("pubrel", "full") => ReasonCode::PacketIdentifierNotFound,
        (_, "no_subscribers") => ReasonCode::NoMatchingSubscribers,
        ("puback", "full") => ReasonCode::QuotaExceeded,
        _ => ReasonCode::Success,
    };
    let mut ack = Ack::new(id(10), reason_code);
    if rest == "full" {
        ack.reason_string = match kind {
            "puback" => Some("no room"),
            "pubrec" => Some("fine"),
            _ => None,
        };
        if kind != "pubrec" {
            ack.user_properties = lists.kv.as_properties();
        }
    }
    Some(match kind {
        "puback" => Packet::PubAck(ack),
        "pubrec" => Packet::PubRec(ack),
        "pubrel" => Packet::PubRel(ack),
        "pubcomp" => Packet::PubComp(ack),
        _ => return None,
    })
}

fn subscription(version: ProtocolVersion, name: &str, lists: &'static Lists) -> Option<Packet<'static>> {
    let qos1 = SubscriptionOptions::from_qos(QoS::AtLeastOnce);
    let qos2 = SubscriptionOptions::from_qos(QoS::ExactlyOnce);
    let subscribe = |buf: &'static SubscribeFiltersBuf| Subscribe {
        packet_id: id(10),
        subscription_identifier: None,
        user_properties: Default::default(),
        filters: buf.as_filters(),
    };
    let unsubscribe = |list: &[&str]| Unsubscribe {
        packet_id: id(10),
        user_properties: Default::default(),
        filters: topic_filters(list).as_filters(),
    };
    let options =
        SubscriptionOptions { retain_as_published: true, retain_handling: RetainHandling::DoNotSend, ..qos1 };
    let v5 = version == ProtocolVersion::V5;
    Some(match name {
        "subscribe" if !v5 => Packet::Subscribe(subscribe(filters(&[("a/b", qos1), ("c/d", qos2)]))),
        "subscribe" | "subscribe_dup" => Packet::Subscribe(subscribe(filters(&[("a/b", qos1)]))),
        "subscribe_bad_filter" => {
            Packet::Subscribe(subscribe(filters(&[("a/#/b", SubscriptionOptions::default())])))
        }
        "subscribe_full" => Packet::Subscribe(Subscribe {
            subscription_identifier: Some(268_435_455),
            user_properties: lists.kv.as_properties(),
            ..subscribe(filters(&[
                ("a/+", SubscriptionOptions { no_local: true, ..options }),
                (
                    "$share/g/#",
                    SubscriptionOptions {
                        qos: QoS::ExactlyOnce,
                        retain_handling: RetainHandling::SendAtNewSubscribe,
                        ..options
                    },
                ),
            ]))
        }),
        "suback" if !v5 => Packet::SubAck(SubAck::new(id(10), &[0, 1, 2, 0x80])),
        "suback" => Packet::SubAck(SubAck::new(id(10), &[0, 1, 2, 0x8F])),
        "suback_full" => Packet::SubAck(SubAck {
            reason_string: Some("half"),
            user_properties: lists.kv.as_properties(),
            ..SubAck::new(id(10), &[1, 0xA2])
        }),
        "unsubscribe" if !v5 => Packet::Unsubscribe(unsubscribe(&["a/b", "c/d"])),
        "unsubscribe" | "unsubscribe_dup" => Packet::Unsubscribe(unsubscribe(&["a/b"])),
        "unsubscribe_full" => Packet::Unsubscribe(Unsubscribe {
            user_properties: lists.kv.as_properties(),
            ..unsubscribe(&["a/b", "c/d"])
        }),
        "unsuback" if !v5 => Packet::UnsubAck(UnsubAck::new(id(10), &[])),
        "unsuback" => Packet::UnsubAck(UnsubAck::new(id(10), &[0, 0x11])),
        "unsuback_full" => Packet::UnsubAck(UnsubAck {
            reason_string: Some("half"),
            user_properties: lists.kv.as_properties(),
            ..UnsubAck::new(id(10), &[0x87])
        }),
        _ => return None,
    })
}

fn ending(name: &str, lists: &'static Lists) -> Option<Packet<'static>> {
    let normal = Disconnect::new(ReasonCode::NormalDisconnection);
    Some(match name {
        "pingreq" => Packet::PingReq,
        "pingresp" => Packet::PingResp,
        "disconnect" | "disconnect_normal_said" | "disconnect_no_properties" => Packet::Disconnect(normal),
        "disconnect_with_will" => Packet::Disconnect(Disconnect::new(ReasonCode::DisconnectWithWillMessage)),
        "disconnect_expiry" => {
            Packet::Disconnect(Disconnect { session_expiry_interval_s: Some(10), ..normal })
        }
        "disconnect_full" => Packet::Disconnect(Disconnect {
            reason_string: Some("moved"),
            server_reference: Some("other:1883"),
            user_properties: lists.kv.as_properties(),
            ..Disconnect::new(ReasonCode::UseAnotherServer)
        }),
        "auth_success" => Packet::Auth(Auth::new(ReasonCode::Success, None)),
        "auth_continue" => Packet::Auth(Auth {
            authentication_data: Some(&[1, 2]),
            reason_string: Some("go on"),
            user_properties: lists.kv.as_properties(),
            ..Auth::new(ReasonCode::ContinueAuthentication, Some("SCRAM"))
        }),
        "auth_again" => Packet::Auth(Auth::new(ReasonCode::ReAuthenticate, Some("SCRAM"))),
        _ => return None,
    })
}

fn meaning(version: ProtocolVersion, name: &str, lists: &'static Lists) -> Packet<'static> {
    if let Some(rest) = name.strip_prefix("connect_") {
        return Packet::Connect(Box::new(connect(version, rest, lists)));
    }
    if let Some(rest) = name.strip_prefix("connack_") {
        return Packet::ConnAck(connack(rest, lists));
    }
    if let Some(rest) = name.strip_prefix("publish_") {
        return Packet::Publish(publish_packet(rest, lists));
    }
    ack(name, lists)
        .or_else(|| subscription(version, name, lists))
        .or_else(|| ending(name, lists))
        .unwrap_or_else(|| panic!("no meaning for {name}"))
}

#[test]
fn golden_packets_decode_to_their_meaning_and_back() {
    let lists: &'static Lists = Box::leak(Box::new(Lists::new()));
    let rows = common::rows(common::GOLDEN, 2);
    assert!(rows.len() > 70, "the table was read");
    for row in rows {
        let [name, mark] = row.words.as_slice() else { panic!("two words") };
        let version = row.versions[0];
        let Ok(FrameStatus::Complete(frame)) = frame(&row.bytes, 1024) else {
            panic!("{name} {version}: no frame")
        };
        assert_eq!(frame.len, row.bytes.len(), "{name} {version}: one packet");
        let meaning = meaning(version, name, lists);
        let decoded =
            Packet::decode(&frame, version).unwrap_or_else(|error| panic!("{name} {version}: {error}"));
        assert_eq!(decoded, meaning, "{name} {version}");
        let mut encoded = vec![0xEE];
        meaning.encode(version, &mut encoded).unwrap_or_else(|error| panic!("{name} {version}: {error}"));
        match mark.as_str() {
            "=" => assert_eq!(encoded[1..], row.bytes, "{name} {version}"),
            "~" => assert_ne!(encoded[1..], row.bytes, "{name} {version} should be marked ="),
            _ => panic!("{name} {version}: mark"),
        }
    }
}

#[test]
fn every_packet_type_and_version_has_a_golden_packet() {
    let rows = common::rows(common::GOLDEN, 2);
    for version in ProtocolVersion::ALL {
        for packet_type in mqtt_protocol::PacketType::ALL {
            let is_there =
                rows.iter().any(|row| row.versions[0] == version && row.bytes[0] >> 4 == packet_type as u8);
            let exists = version == ProtocolVersion::V5 || packet_type != mqtt_protocol::PacketType::Auth;
            // 3.1 shares the format of these with 3.1.1.
            let shared =
                version == ProtocolVersion::V3_1 && !(matches!(packet_type as u8, 1..=4 | 6 | 8 | 10 | 12));
            assert!(is_there || !exists || shared, "{packet_type} {version}");
        }
    }
}
