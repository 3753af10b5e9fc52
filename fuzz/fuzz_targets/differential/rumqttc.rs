//! rumqttc's packets as summaries: what a broker receives, and PUBLISH.

use bytes::BytesMut;
use mqtt_protocol::{PacketType, ProtocolVersion};
use rumqttc::{
    mqttbytes::v4,
    v5::mqttbytes::v5::{self, RetainForwardRule},
};

use super::{Summary, Verdict, put};

pub(crate) fn decode(bytes: &[u8], version: ProtocolVersion) -> Verdict {
    let mut input = BytesMut::from(bytes);
    if version == ProtocolVersion::V5 {
        v5::Packet::read(&mut input, None)
            .map(|packet| summary_v5(&packet))
            .map_err(|error| format!("{error:?}"))
    } else {
        v4::Packet::read(&mut input, usize::MAX)
            .map(|packet| summary_v4(&packet))
            .map_err(|error| format!("{error:?}"))
    }
}

fn summary_v4(packet: &v4::Packet) -> Summary {
    let mut out = Summary::new();
    match packet {
        v4::Packet::Connect(connect) => {
            put!(out, "type": PacketType::Connect, "clean": connect.clean_session, "keep_alive": connect.keep_alive,
                "client_id": connect.client_id, "has_will": connect.last_will.is_some());
            if let Some(will) = &connect.last_will {
                put!(out, "will_qos": will.qos as u8, "will_retain": will.retain, "will_topic": will.topic,
                    "will_payload": &*will.message);
            }
            if let Some(login) = &connect.login
                && !login.username.is_empty()
            {
                put!(out, "username": Some(&login.username));
            }
        }
        v4::Packet::Publish(packet) => {
            put!(out, "type": PacketType::Publish, "dup": packet.dup, "qos": packet.qos as u8, "retain": packet.retain,
                "topic": packet.topic, "id": packet.pkid, "payload": &*packet.payload);
        }
        v4::Packet::PubAck(ack) => put!(out, "type": PacketType::PubAck, "id": ack.pkid),
        v4::Packet::PubRec(ack) => put!(out, "type": PacketType::PubRec, "id": ack.pkid),
        v4::Packet::PubRel(ack) => put!(out, "type": PacketType::PubRel, "id": ack.pkid),
        v4::Packet::PubComp(ack) => put!(out, "type": PacketType::PubComp, "id": ack.pkid),
        v4::Packet::Subscribe(subscribe) => {
            let filters: Vec<_> = subscribe
                .filters
                .iter()
                .map(|item| (&*item.path, (item.qos as u8, false, false, 0u8)))
                .collect();
            put!(out, "type": PacketType::Subscribe, "id": subscribe.pkid, "filters": filters);
        }
        v4::Packet::Unsubscribe(unsubscribe) => {
            put!(out, "type": PacketType::Unsubscribe, "id": unsubscribe.pkid, "filters": unsubscribe.topics);
        }
        v4::Packet::SubAck(ack) => put!(out, "type": PacketType::SubAck, "id": ack.pkid),
        v4::Packet::UnsubAck(ack) => put!(out, "type": PacketType::UnsubAck, "id": ack.pkid),
        v4::Packet::ConnAck(ack) => {
            put!(out, "type": PacketType::ConnAck, "session_present": ack.session_present)
        }
        v4::Packet::PingReq => put!(out, "type": PacketType::PingReq),
        v4::Packet::PingResp => put!(out, "type": PacketType::PingResp),
        v4::Packet::Disconnect => put!(out, "type": PacketType::Disconnect),
    }
    out
}

fn summary_v5(packet: &v5::Packet) -> Summary {
    let mut out = Summary::new();
    match packet {
        v5::Packet::Connect(connect, will, login) => {
            put!(out, "type": PacketType::Connect, "clean": connect.clean_start, "keep_alive": connect.keep_alive,
                "client_id": connect.client_id, "has_will": will.is_some());
            if let Some(properties) = &connect.properties {
                put!(out, "session_expiry": properties.session_expiry_interval.unwrap_or(0),
                    "receive_maximum": properties.receive_maximum.unwrap_or(u16::MAX),
                    "maximum_packet_size": properties.max_packet_size,
                    "alias_maximum": properties.topic_alias_max.unwrap_or(0),
                    "auth_method": properties.authentication_method.as_deref(),
                    "auth_data": properties.authentication_data.as_deref(), "user": properties.user_properties);
            }
            if let Some(will) = will {
                put!(out, "will_qos": will.qos as u8, "will_retain": will.retain,
                    "will_topic": String::from_utf8_lossy(&will.topic), "will_payload": &*will.message);
            }
            if let Some(login) = login
                && !login.username.is_empty()
            {
                put!(out, "username": Some(&login.username));
            }
        }
        v5::Packet::Publish(packet) => {
            put!(out, "type": PacketType::Publish, "dup": packet.dup, "qos": packet.qos as u8, "retain": packet.retain,
                "topic": String::from_utf8_lossy(&packet.topic), "id": packet.pkid, "payload": &*packet.payload);
            if let Some(properties) = &packet.properties {
                put!(out, "alias": properties.topic_alias, "identifiers": properties.subscription_identifiers,
                    "user": properties.user_properties, "is_text": properties.payload_format_indicator == Some(1),
                    "expiry": properties.message_expiry_interval, "response_topic": properties.response_topic,
                    "correlation": properties.correlation_data.as_deref(), "content_type": properties.content_type);
            }
        }
        v5::Packet::PubAck(ack) => put!(out, "type": PacketType::PubAck, "id": ack.pkid),
        v5::Packet::PubRec(ack) => put!(out, "type": PacketType::PubRec, "id": ack.pkid),
        v5::Packet::PubRel(ack) => put!(out, "type": PacketType::PubRel, "id": ack.pkid),
        v5::Packet::PubComp(ack) => put!(out, "type": PacketType::PubComp, "id": ack.pkid),
        v5::Packet::Subscribe(subscribe) => {
            let filters: Vec<_> = subscribe
                .filters
                .iter()
                .map(|item| {
                    let handling: u8 = match item.retain_forward_rule {
                        RetainForwardRule::OnEverySubscribe => 0,
                        RetainForwardRule::OnNewSubscribe => 1,
                        RetainForwardRule::Never => 2,
                    };
                    (&*item.path, (item.qos as u8, item.nolocal, item.preserve_retain, handling))
                })
                .collect();
            put!(out, "type": PacketType::Subscribe, "id": subscribe.pkid, "filters": filters);
            if let Some(properties) = &subscribe.properties {
                put!(out, "identifier": properties.id, "user": properties.user_properties);
            }
        }
        v5::Packet::Unsubscribe(unsubscribe) => {
            put!(out, "type": PacketType::Unsubscribe, "id": unsubscribe.pkid, "filters": unsubscribe.filters);
        }
        v5::Packet::SubAck(ack) => put!(out, "type": PacketType::SubAck, "id": ack.pkid),
        v5::Packet::UnsubAck(ack) => put!(out, "type": PacketType::UnsubAck, "id": ack.pkid),
        v5::Packet::ConnAck(ack) => {
            put!(out, "type": PacketType::ConnAck, "session_present": ack.session_present)
        }
        v5::Packet::Disconnect(disconnect) => {
            put!(out, "type": PacketType::Disconnect);
            if let Some(properties) = &disconnect.properties {
                put!(out, "session_expiry": properties.session_expiry_interval, "reason": properties.reason_string,
                    "reference": properties.server_reference, "user": properties.user_properties);
            }
        }
        v5::Packet::PingReq(_) => put!(out, "type": PacketType::PingReq),
        v5::Packet::PingResp(_) => put!(out, "type": PacketType::PingResp),
        v5::Packet::Auth(_) => put!(out, "type": PacketType::Auth),
    }
    out
}
