//! decode(encode(p)) == p for every packet and version, with generated contents.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "test code")]

use std::num::NonZeroU16;

use mqtt_protocol::{
    Ack, Auth, ConnAck, ConnAckProperties, Connect, ConnectProperties, Disconnect, FrameStatus, Packet,
    PacketId, PacketType, ProtocolVersion, Publish, PublishProperties, QoS, ReasonCode, RetainHandling,
    SubAck, Subscribe, SubscribeFiltersBuf, SubscriptionOptions, TopicFiltersBuf, UnsubAck, Unsubscribe,
    UserPropertiesBuf, Will, frame,
};
use proptest::{collection::vec, option, prelude::*, sample::select};

fn version() -> impl Strategy<Value = ProtocolVersion> {
    select(ProtocolVersion::ALL.to_vec())
}

fn qos() -> impl Strategy<Value = QoS> {
    select(QoS::ALL.to_vec())
}

fn packet_id() -> impl Strategy<Value = PacketId> {
    (1..=u16::MAX).prop_map(|value| PacketId::new(value).unwrap())
}

fn code(packet: PacketType) -> impl Strategy<Value = ReasonCode> {
    select(ReasonCode::ALL.iter().copied().filter(|code| code.is_valid_in(packet)).collect::<Vec<_>>())
}

/// Text without U+0000, of any script, sometimes long enough for lengths of several bytes.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![8 => "[^\u{0}]{0,12}", 1 => "[a-z]{120,140}"]
}

fn topic() -> impl Strategy<Value = String> {
    "[^\u{0}+#]{1,20}"
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![8 => vec(any::<u8>(), 0..20), 1 => vec(any::<u8>(), 16_380..16_390)]
}

fn small_bytes() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..20)
}

fn user_properties() -> impl Strategy<Value = UserPropertiesBuf> {
    vec((text(), text()), 0..4).prop_map(|pairs| {
        let mut buf = UserPropertiesBuf::new();
        for (name, value) in &pairs {
            buf.push(name, value).unwrap();
        }
        buf
    })
}

#[derive(Debug, Clone)]
struct Properties {
    format: Option<bool>,
    expiry_s: Option<u32>,
    response_topic: Option<String>,
    correlation: Option<Vec<u8>>,
    content_type: Option<String>,
    user: UserPropertiesBuf,
}

impl Properties {
    fn view(&self) -> PublishProperties<'_> {
        PublishProperties {
            payload_format_indicator: self.format,
            message_expiry_interval_s: self.expiry_s,
            response_topic: self.response_topic.as_deref(),
            correlation_data: self.correlation.as_deref(),
            content_type: self.content_type.as_deref(),
            user_properties: self.user.as_properties(),
            ..PublishProperties::default()
        }
    }
}

fn publish_properties() -> impl Strategy<Value = Properties> {
    (
        option::of(any::<bool>()),
        option::of(any::<u32>()),
        option::of(topic()),
        option::of(small_bytes()),
        option::of(text()),
        user_properties(),
    )
        .prop_map(|(format, expiry_s, response_topic, correlation, content_type, user)| Properties {
            format,
            expiry_s,
            response_topic,
            correlation,
            content_type,
            user,
        })
}

/// Encodes after some other bytes, decodes, compares; every shorter input must ask for more.
fn check(packet: &Packet<'_>, version: ProtocolVersion) -> Result<(), TestCaseError> {
    let mut out = b"before".to_vec();
    packet.encode(version, &mut out).map_err(|error| TestCaseError::fail(error.to_string()))?;
    let encoded = out.strip_prefix(b"before").expect("encode appends");
    let FrameStatus::Complete(whole) = frame(encoded, u32::MAX).expect("a valid header") else {
        return Err(TestCaseError::fail("incomplete"));
    };
    prop_assert_eq!(whole.len, encoded.len());
    for cut in [0, 1, encoded.len() / 2, encoded.len() - 1] {
        let status = frame(encoded.get(..cut).unwrap(), u32::MAX).expect("a valid header so far");
        let FrameStatus::Incomplete { needed } = status else {
            return Err(TestCaseError::fail("complete too early"));
        };
        prop_assert!(needed > cut && needed <= encoded.len());
    }
    let decoded = Packet::decode(&whole, version).map_err(|error| TestCaseError::fail(error.to_string()))?;
    prop_assert_eq!(&decoded, packet);
    let mut again = Vec::new();
    decoded.encode(version, &mut again).expect("what decodes encodes");
    prop_assert_eq!(again.as_slice(), encoded, "a second encoding is the same");
    Ok(())
}

/// Drops what a version has no place for.
fn only_v5<T: Default>(version: ProtocolVersion, value: T) -> T {
    if version.has_properties() { value } else { T::default() }
}

proptest! {
    #[test]
    fn connect(
        version in version(),
        (clean_start, is_bridge, keep_alive_s) in any::<(bool, bool, u16)>(),
        (client_id, username, password) in (text(), option::of(text()), option::of(bytes())),
        will in option::of((qos(), any::<bool>(), topic(), bytes(), any::<u32>(), publish_properties())),
        (expiry, receive_maximum, packet_size, aliases) in (any::<u32>(), 1..=u16::MAX, option::of(1..=u32::MAX), any::<u16>()),
        (response, problem) in any::<(bool, bool)>(),
        user in user_properties(),
        auth in option::of((text(), option::of(small_bytes()))),
    ) {
        let v5 = version.has_properties();
        let properties = ConnectProperties {
            session_expiry_interval_s: expiry,
            receive_maximum,
            maximum_packet_size: packet_size,
            topic_alias_maximum: aliases,
            request_response_information: response,
            request_problem_information: problem,
            user_properties: user.as_properties(),
            authentication_method: auth.as_ref().map(|(method, _)| method.as_str()),
            authentication_data: auth.as_ref().and_then(|(_, data)| data.as_deref()),
        };
        // A password needs a user name before 5.0, and 3.1 takes an empty rest of the payload for missing fields.
        let username = username.as_deref().or((!v5 && password.is_some()).then_some("u"));
        let connect = Connect {
            version,
            clean_start,
            keep_alive_s,
            client_id: &client_id,
            username,
            password: password.as_deref(),
            will: will.as_ref().map(|(qos, retain, topic, payload, delay, properties)| Will {
                qos: *qos,
                retain: *retain,
                topic,
                payload,
                delay_interval_s: only_v5(version, *delay),
                publish: only_v5(version, properties.view()),
            }),
            properties: only_v5(version, properties),
            is_bridge,
        };
        check(&Packet::Connect(Box::new(connect)), version)?;
    }

    #[test]
    fn connack(
        version in version(),
        session_present in any::<bool>(),
        reason_code in code(PacketType::ConnAck),
        flags in any::<[Option<bool>; 4]>(),
        numbers in (option::of(any::<u32>()), option::of(1..=u16::MAX), option::of(1..=u32::MAX), option::of(any::<u16>()), option::of(any::<u16>())),
        texts in vec(option::of(text()), 5),
        low_qos in option::of(select(vec![QoS::AtMostOnce, QoS::AtLeastOnce])),
        data in option::of(small_bytes()),
        user in user_properties(),
    ) {
        let [retain, wildcard, identifiers, shared] = flags;
        let properties = ConnAckProperties {
            session_expiry_interval_s: numbers.0,
            receive_maximum: numbers.1,
            maximum_qos: low_qos,
            retain_available: retain,
            maximum_packet_size: numbers.2,
            assigned_client_identifier: texts[0].as_deref(),
            topic_alias_maximum: numbers.3,
            reason_string: texts[1].as_deref(),
            user_properties: user.as_properties(),
            wildcard_subscription_available: wildcard,
            subscription_identifiers_available: identifiers,
            shared_subscription_available: shared,
            server_keep_alive_s: numbers.4,
            response_information: texts[2].as_deref(),
            server_reference: texts[3].as_deref(),
            authentication_method: texts[4].as_deref(),
            authentication_data: data.as_deref(),
        };
        // 3.x has six codes; the others come back as the one they were mapped to.
        let reason_code = if version.has_reason_codes() { reason_code } else { reason_code.connect_return_code().reason_code() };
        let connack = ConnAck {
            session_present: session_present && reason_code == ReasonCode::Success && version != ProtocolVersion::V3_1,
            reason_code,
            properties: only_v5(version, properties),
        };
        check(&Packet::ConnAck(connack), version)?;
    }

    #[test]
    fn publish(
        version in version(),
        (dup, retain, qos) in (any::<bool>(), any::<bool>(), qos()),
        id in packet_id(),
        (topic, use_alias_alone) in (topic(), any::<bool>()),
        properties in publish_properties(),
        alias in option::of(1..=u16::MAX),
        identifiers in vec(1..=268_435_455u32, 0..4),
        payload in bytes(),
    ) {
        let alias = alias.and_then(NonZeroU16::new);
        let topic = if use_alias_alone && alias.is_some() && version.has_properties() { "" } else { &topic };
        let properties = PublishProperties {
            topic_alias: alias,
            subscription_identifiers: identifiers.as_slice().into(),
            ..properties.view()
        };
        let publish = Publish {
            dup: dup && qos != QoS::AtMostOnce,
            qos,
            retain,
            topic,
            packet_id: qos.has_packet_id().then_some(id),
            properties: only_v5(version, properties),
            payload: &payload,
        };
        check(&Packet::Publish(publish), version)?;
    }

    #[test]
    fn acknowledgements(
        version in version(),
        id in packet_id(),
        codes in (code(PacketType::PubAck), code(PacketType::PubRec), code(PacketType::PubRel), code(PacketType::PubComp)),
        reason in option::of(text()),
        user in user_properties(),
    ) {
        let ack = |code| Ack {
            packet_id: id,
            reason_code: if version.has_reason_codes() { code } else { ReasonCode::Success },
            reason_string: only_v5(version, reason.as_deref()),
            user_properties: only_v5(version, user.as_properties()),
        };
        check(&Packet::PubAck(ack(codes.0)), version)?;
        check(&Packet::PubRec(ack(codes.1)), version)?;
        check(&Packet::PubRel(ack(codes.2)), version)?;
        check(&Packet::PubComp(ack(codes.3)), version)?;
    }

    #[test]
    fn subscriptions(
        version in version(),
        id in packet_id(),
        identifier in option::of(1..=268_435_455u32),
        filters in vec(("[^\u{0}]{1,20}", qos(), any::<(bool, bool)>(), 0..3u8), 1..5),
        user in user_properties(),
    ) {
        let mut list = SubscribeFiltersBuf::new();
        let mut topics = TopicFiltersBuf::new();
        for (filter, qos, (no_local, retain_as_published), handling) in &filters {
            let options = SubscriptionOptions {
                qos: *qos,
                no_local: *no_local && !filter.starts_with("$share/"),
                retain_as_published: *retain_as_published,
                retain_handling: match handling {
                    0 => RetainHandling::SendAtSubscribe,
                    1 => RetainHandling::SendAtNewSubscribe,
                    _ => RetainHandling::DoNotSend,
                },
            };
            prop_assert_eq!(SubscriptionOptions::from_byte(options.to_byte()), Ok(options));
            list.push(filter, if version.has_properties() { options } else { SubscriptionOptions::from_qos(*qos) }).unwrap();
            topics.push(filter).unwrap();
        }
        let user_properties = only_v5(version, user.as_properties());
        let subscribe = Subscribe {
            packet_id: id,
            subscription_identifier: only_v5(version, identifier),
            user_properties,
            filters: list.as_filters(),
        };
        prop_assert!(subscribe.filters.iter().map(|item| item.filter).eq(filters.iter().map(|item| item.0.as_str())));
        check(&Packet::Subscribe(subscribe), version)?;
        let unsubscribe = Unsubscribe { packet_id: id, user_properties, filters: topics.as_filters() };
        prop_assert_eq!(unsubscribe.filters.count(), filters.len());
        check(&Packet::Unsubscribe(unsubscribe), version)?;
    }

    #[test]
    fn subscription_answers(
        version in version(),
        id in packet_id(),
        granted in vec(code(PacketType::SubAck), 1..5),
        ended in vec(code(PacketType::UnsubAck), 1..5),
        reason in option::of(text()),
        user in user_properties(),
    ) {
        let granted: Vec<u8> = granted.iter()
            .map(|code| if version.has_reason_codes() { code.code() } else { code.code().min(0x80) })
            .collect();
        let ended: Vec<u8> = ended.iter().map(|code| code.code()).collect();
        let user_properties = only_v5(version, user.as_properties());
        let reason_string = only_v5(version, reason.as_deref());
        let suback = SubAck { packet_id: id, codes: &granted, reason_string, user_properties };
        check(&Packet::SubAck(suback), version)?;
        let unsuback = UnsubAck { packet_id: id, codes: only_v5(version, &ended), reason_string, user_properties };
        check(&Packet::UnsubAck(unsuback), version)?;
    }

    #[test]
    fn endings(
        version in version(),
        (disconnect_code, auth_code) in (code(PacketType::Disconnect), code(PacketType::Auth)),
        expiry in option::of(any::<u32>()),
        (reason, reference, method) in (option::of(text()), option::of(text()), text()),
        data in option::of(small_bytes()),
        user in user_properties(),
    ) {
        let disconnect = Disconnect {
            reason_code: disconnect_code,
            session_expiry_interval_s: expiry,
            reason_string: reason.as_deref(),
            server_reference: reference.as_deref(),
            user_properties: user.as_properties(),
        };
        let bare = Disconnect::new(ReasonCode::NormalDisconnection);
        let disconnect = if version.has_reason_codes() { disconnect } else { bare };
        check(&Packet::Disconnect(disconnect), version)?;
        let auth = Auth {
            reason_code: auth_code,
            authentication_method: Some(&method),
            authentication_data: data.as_deref(),
            reason_string: reason.as_deref(),
            user_properties: user.as_properties(),
        };
        check(&Packet::Auth(auth), ProtocolVersion::V5)?;
        check(&Packet::PingReq, version)?;
        check(&Packet::PingResp, version)?;
    }

    #[test]
    fn forwarded_properties_keep_all_that_is_forwarded(
        properties in publish_properties(),
        alias in option::of(1..=u16::MAX),
        identifiers in vec(1..=268_435_455u32, 0..3),
    ) {
        let made = PublishProperties {
            topic_alias: alias.and_then(NonZeroU16::new),
            subscription_identifiers: identifiers.as_slice().into(),
            ..properties.view()
        };
        let publish = Publish { dup: false, qos: QoS::AtMostOnce, retain: false, topic: "t", packet_id: None, properties: made, payload: b"" };
        let mut bytes = Vec::new();
        Packet::Publish(publish).encode(ProtocolVersion::V5, &mut bytes).unwrap();
        let Ok(FrameStatus::Complete(whole)) = frame(&bytes, u32::MAX) else { return Err(TestCaseError::fail("no frame")) };
        let received = Publish::decode(&whole, ProtocolVersion::V5).unwrap().properties;
        let expected = PublishProperties {
            topic_alias: None,
            message_expiry_interval_s: None,
            subscription_identifiers: Default::default(),
            ..made
        };
        for from in [made, received] {
            let forward = from.forward_bytes();
            prop_assert_eq!(forward.len(), from.forward_len());
            prop_assert_eq!(PublishProperties::from_encoded(&forward).unwrap(), expected);
            let mut appended = b"x".to_vec();
            from.append_forward(&mut appended).unwrap();
            prop_assert_eq!(appended.strip_prefix(b"x").unwrap(), &*forward);
        }
        let nothing_taken_out = received == expected;
        let is_borrowed = matches!(received.forward_bytes(), std::borrow::Cow::Borrowed(_));
        prop_assert_eq!(is_borrowed, nothing_taken_out);
    }
}
