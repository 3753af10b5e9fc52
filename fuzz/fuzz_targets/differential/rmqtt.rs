//! rmqtt-codec's packets as summaries.

use bytes::BytesMut;
use mqtt_protocol::{PacketType, ProtocolVersion};
use rmqtt_codec::{v3, v5};
use tokio_util::codec::Decoder;

use super::{Summary, Verdict, put};

pub(crate) fn decode(bytes: &[u8], version: ProtocolVersion) -> Verdict {
    let mut input = BytesMut::from(bytes);
    if version == ProtocolVersion::V5 {
        match v5::Codec::new(0, 0).decode(&mut input) {
            Ok(Some((packet, _))) => Ok(summary_v5(&packet)),
            Ok(None) => Err("incomplete".to_owned()),
            Err(error) => Err(format!("{error:?}")),
        }
    } else {
        match v3::Codec::new(0).decode(&mut input) {
            Ok(Some((packet, _))) => Ok(summary_v3(&packet)),
            Ok(None) => Err("incomplete".to_owned()),
            Err(error) => Err(format!("{error:?}")),
        }
    }
}

fn summary_v3(packet: &v3::Packet) -> Summary {
    let mut out = Summary::new();
    let packet_type = match packet {
        v3::Packet::Connect(connect) => {
            put!(out, "clean": connect.clean_session, "keep_alive": connect.keep_alive, "client_id": &*connect.client_id,
                "username": connect.username.as_deref(), "password": connect.password.as_deref(),
                "has_will": connect.last_will.is_some());
            if let Some(will) = &connect.last_will {
                put!(out, "will_qos": u8::from(will.qos), "will_retain": will.retain, "will_topic": &*will.topic,
                    "will_payload": &*will.message);
            }
            PacketType::Connect
        }
        v3::Packet::ConnectAck(ack) => {
            put!(out, "session_present": ack.session_present, "return_code": u8::from(ack.return_code));
            PacketType::ConnAck
        }
        v3::Packet::Publish(packet) => {
            publish(&mut out, packet);
            PacketType::Publish
        }
        v3::Packet::PublishAck { packet_id } => id(&mut out, packet_id.get(), PacketType::PubAck),
        v3::Packet::PublishReceived { packet_id } => id(&mut out, packet_id.get(), PacketType::PubRec),
        v3::Packet::PublishRelease { packet_id } => id(&mut out, packet_id.get(), PacketType::PubRel),
        v3::Packet::PublishComplete { packet_id } => id(&mut out, packet_id.get(), PacketType::PubComp),
        v3::Packet::Subscribe { packet_id, topic_filters } => {
            let filters: Vec<_> = topic_filters
                .iter()
                .map(|(filter, qos)| (&**filter, (u8::from(*qos), false, false, 0u8)))
                .collect();
            put!(out, "filters": filters);
            id(&mut out, packet_id.get(), PacketType::Subscribe)
        }
        v3::Packet::SubscribeAck { packet_id, status } => {
            let codes: Vec<u8> = status
                .iter()
                .map(|status| match status {
                    v3::SubscribeReturnCode::Success(qos) => u8::from(*qos),
                    v3::SubscribeReturnCode::Failure => 0x80,
                })
                .collect();
            put!(out, "codes": codes);
            id(&mut out, packet_id.get(), PacketType::SubAck)
        }
        v3::Packet::Unsubscribe { packet_id, topic_filters } => {
            put!(out, "filters": topic_filters.iter().map(|filter| &**filter).collect::<Vec<&str>>());
            id(&mut out, packet_id.get(), PacketType::Unsubscribe)
        }
        v3::Packet::UnsubscribeAck { packet_id } => id(&mut out, packet_id.get(), PacketType::UnsubAck),
        v3::Packet::PingRequest => PacketType::PingReq,
        v3::Packet::PingResponse => PacketType::PingResp,
        v3::Packet::Disconnect => PacketType::Disconnect,
    };
    put!(out, "type": packet_type);
    out
}

fn id(out: &mut Summary, packet_id: u16, packet_type: PacketType) -> PacketType {
    put!(out, "id": packet_id);
    packet_type
}

fn publish(out: &mut Summary, packet: &rmqtt_codec::types::Publish) {
    put!(out, "dup": packet.dup, "qos": u8::from(packet.qos), "retain": packet.retain, "topic": &*packet.topic,
        "id": packet.packet_id.map_or(0, |id| id.get()), "payload": &*packet.payload);
    if let Some(properties) = &packet.properties {
        put!(out, "alias": properties.topic_alias.map(|alias| alias.get()),
            "identifiers": properties.subscription_ids.iter().map(|id| id.get()).collect::<Vec<u32>>(),
            "user": user(&properties.user_properties), "is_text": properties.is_utf8_payload,
            "expiry": properties.message_expiry_interval.map(|value| value.get()),
            "response_topic": properties.response_topic.as_deref(),
            "correlation": properties.correlation_data.as_deref(),
            "content_type": properties.content_type.as_deref());
    }
}

fn user(properties: &v5::UserProperties) -> Vec<(&str, &str)> {
    properties.iter().map(|(name, value)| (&**name, &**value)).collect()
}

fn connect(out: &mut Summary, connect: &v5::Connect) {
    put!(out, "clean": connect.clean_start, "keep_alive": connect.keep_alive, "client_id": &*connect.client_id,
        "username": connect.username.as_deref(), "password": connect.password.as_deref(),
        "session_expiry": connect.session_expiry_interval_secs,
        "receive_maximum": connect.receive_max.map_or(u16::MAX, |value| value.get()),
        "maximum_packet_size": connect.max_packet_size.map(|value| value.get()), "alias_maximum": connect.topic_alias_max,
        "request_response": connect.request_response_info, "request_problem": connect.request_problem_info,
        "auth_method": connect.auth_method.as_deref(), "auth_data": connect.auth_data.as_deref(),
        "user": user(&connect.user_properties), "has_will": connect.last_will.is_some());
    if let Some(will) = &connect.last_will {
        put!(out, "will_qos": u8::from(will.qos), "will_retain": will.retain, "will_topic": &*will.topic,
            "will_payload": &*will.message, "will_delay": will.will_delay_interval_sec.unwrap_or(0),
            "is_text": will.is_utf8_payload.unwrap_or(false),
            "expiry": will.message_expiry_interval.map(|value| value.get()),
            "response_topic": will.response_topic.as_deref(), "correlation": will.correlation_data.as_deref(),
            "content_type": will.content_type.as_deref(), "will_user": user(&will.user_properties));
    }
}

fn connack(out: &mut Summary, ack: &v5::ConnectAck) {
    put!(out, "session_present": ack.session_present, "code": ack.reason_code as u8,
        "session_expiry": ack.session_expiry_interval_secs, "receive_maximum": ack.receive_max.get(),
        "maximum_packet_size": ack.max_packet_size, "client_id": ack.assigned_client_id.as_deref(),
        "alias_maximum": ack.topic_alias_max, "reason": ack.reason_string.as_deref(),
        "user": user(&ack.user_properties), "keep_alive": ack.server_keepalive_sec,
        "response_information": ack.response_info.as_deref(), "reference": ack.server_reference.as_deref(),
        "auth_method": ack.auth_method.as_deref(), "auth_data": ack.auth_data.as_deref(),
        "retain_available": ack.retain_available, "wildcards": ack.wildcard_subscription_available,
        "identifiers": ack.subscription_identifiers_available, "shared": ack.shared_subscription_available,
        "maximum_qos": u8::from(ack.max_qos));
}

fn summary_v5(packet: &v5::Packet) -> Summary {
    let mut out = Summary::new();
    let packet_type = match packet {
        v5::Packet::Connect(packet) => {
            connect(&mut out, packet);
            PacketType::Connect
        }
        v5::Packet::ConnectAck(ack) => {
            connack(&mut out, ack);
            PacketType::ConnAck
        }
        v5::Packet::Publish(packet) => {
            publish(&mut out, packet);
            PacketType::Publish
        }
        v5::Packet::PublishAck(ack) => acknowledgement(&mut out, ack, PacketType::PubAck),
        v5::Packet::PublishReceived(ack) => acknowledgement(&mut out, ack, PacketType::PubRec),
        v5::Packet::PublishRelease(ack) => acknowledgement_2(&mut out, ack, PacketType::PubRel),
        v5::Packet::PublishComplete(ack) => acknowledgement_2(&mut out, ack, PacketType::PubComp),
        v5::Packet::Subscribe(subscribe) => {
            let filters: Vec<_> = subscribe
                .topic_filters
                .iter()
                .map(|(filter, options)| {
                    let handling = options.retain_handling as u8;
                    (
                        &**filter,
                        (u8::from(options.qos), options.no_local, options.retain_as_published, handling),
                    )
                })
                .collect();
            put!(out, "filters": filters, "identifier": subscribe.id.map(|id| id.get()),
                "user": user(&subscribe.user_properties));
            id(&mut out, subscribe.packet_id.get(), PacketType::Subscribe)
        }
        v5::Packet::SubscribeAck(ack) => {
            put!(out, "codes": ack.status.iter().map(|code| *code as u8).collect::<Vec<_>>(),
                "reason": ack.reason_string.as_deref(), "user": user(&ack.properties));
            id(&mut out, ack.packet_id.get(), PacketType::SubAck)
        }
        v5::Packet::Unsubscribe(unsubscribe) => {
            put!(out, "filters": unsubscribe.topic_filters.iter().map(|filter| &**filter).collect::<Vec<&str>>(),
                "user": user(&unsubscribe.user_properties));
            id(&mut out, unsubscribe.packet_id.get(), PacketType::Unsubscribe)
        }
        v5::Packet::UnsubscribeAck(ack) => {
            put!(out, "codes": ack.status.iter().map(|code| *code as u8).collect::<Vec<_>>(),
                "reason": ack.reason_string.as_deref(), "user": user(&ack.properties));
            id(&mut out, ack.packet_id.get(), PacketType::UnsubAck)
        }
        v5::Packet::PingRequest => PacketType::PingReq,
        v5::Packet::PingResponse => PacketType::PingResp,
        v5::Packet::Disconnect(disconnect) => {
            put!(out, "code": disconnect.reason_code as u8, "session_expiry": disconnect.session_expiry_interval_secs,
                "reason": disconnect.reason_string.as_deref(), "reference": disconnect.server_reference.as_deref(),
                "user": user(&disconnect.user_properties));
            PacketType::Disconnect
        }
        v5::Packet::Auth(auth) => {
            put!(out, "code": auth.reason_code as u8, "auth_method": auth.auth_method.as_deref(),
                "auth_data": auth.auth_data.as_deref(), "reason": auth.reason_string.as_deref(),
                "user": user(&auth.user_properties));
            PacketType::Auth
        }
    };
    put!(out, "type": packet_type);
    out
}

fn acknowledgement(out: &mut Summary, ack: &v5::PublishAck, packet_type: PacketType) -> PacketType {
    put!(out, "code": ack.reason_code as u8, "reason": ack.reason_string.as_deref(), "user": user(&ack.properties));
    id(out, ack.packet_id.get(), packet_type)
}

fn acknowledgement_2(out: &mut Summary, ack: &v5::PublishAck2, packet_type: PacketType) -> PacketType {
    put!(out, "code": ack.reason_code as u8, "reason": ack.reason_string.as_deref(), "user": user(&ack.properties));
    id(out, ack.packet_id.get(), packet_type)
}
