//! Our packets as summaries.

use mqtt_protocol::{Packet, PublishProperties, SubscriptionOptions, UserProperties};

use super::{Summary, put};

pub(crate) fn summary(packet: &Packet<'_>) -> Summary {
    let mut out = Summary::new();
    put!(out, "type": packet.packet_type());
    match packet {
        Packet::Connect(connect) => {
            put!(out, "clean": connect.clean_start, "keep_alive": connect.keep_alive_s, "client_id": connect.client_id,
                "username": connect.username, "password": connect.password);
            let properties = &connect.properties;
            put!(out, "session_expiry": properties.session_expiry_interval_s, "receive_maximum": properties.receive_maximum,
                "maximum_packet_size": properties.maximum_packet_size, "alias_maximum": properties.topic_alias_maximum,
                "request_response": properties.request_response_information,
                "request_problem": properties.request_problem_information,
                "auth_method": properties.authentication_method, "auth_data": properties.authentication_data,
                "user": user(&properties.user_properties));
            put!(out, "has_will": connect.will.is_some());
            if let Some(will) = &connect.will {
                put!(out, "will_qos": will.qos.level(), "will_retain": will.retain, "will_topic": will.topic,
                    "will_payload": will.payload, "will_delay": will.delay_interval_s);
                publish(&mut out, &will.publish);
                put!(out, "will_user": user(&will.publish.user_properties));
            }
        }
        Packet::ConnAck(connack) => {
            let properties = &connack.properties;
            put!(out, "session_present": connack.session_present, "code": connack.reason_code.code(),
                "return_code": connack.reason_code.connect_return_code().code(),
                "session_expiry": properties.session_expiry_interval_s,
                "receive_maximum": properties.receive_maximum.unwrap_or(u16::MAX),
                "maximum_packet_size": properties.maximum_packet_size, "client_id": properties.assigned_client_identifier,
                "alias_maximum": properties.topic_alias_maximum.unwrap_or(0), "reason": properties.reason_string,
                "user": user(&properties.user_properties), "keep_alive": properties.server_keep_alive_s,
                "response_information": properties.response_information, "reference": properties.server_reference,
                "auth_method": properties.authentication_method, "auth_data": properties.authentication_data,
                "retain_available": properties.retain_available.unwrap_or(true),
                "wildcards": properties.wildcard_subscription_available.unwrap_or(true),
                "identifiers": properties.subscription_identifiers_available.unwrap_or(true),
                "shared": properties.shared_subscription_available.unwrap_or(true),
                "maximum_qos": properties.maximum_qos.map_or(2, |qos| qos.level()));
        }
        Packet::Publish(packet) => {
            put!(out, "dup": packet.dup, "qos": packet.qos.level(), "retain": packet.retain, "topic": packet.topic,
                "id": packet.packet_id.map_or(0, |id| id.get()), "payload": packet.payload,
                "alias": packet.properties.topic_alias.map(|alias| alias.get()),
                "identifiers": packet.properties.subscription_identifiers.iter().collect::<Vec<_>>(),
                "user": user(&packet.properties.user_properties));
            publish(&mut out, &packet.properties);
        }
        Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubRel(ack) | Packet::PubComp(ack) => {
            put!(out, "id": ack.packet_id.get(), "code": ack.reason_code.code(), "reason": ack.reason_string,
                "user": user(&ack.user_properties));
        }
        Packet::Subscribe(subscribe) => {
            let filters: Vec<_> =
                subscribe.filters.iter().map(|item| (item.filter, options(item.options))).collect();
            put!(out, "id": subscribe.packet_id.get(), "identifier": subscribe.subscription_identifier, "filters": filters,
                "user": user(&subscribe.user_properties));
        }
        Packet::SubAck(suback) => {
            put!(out, "id": suback.packet_id.get(), "codes": suback.codes, "reason": suback.reason_string,
                "user": user(&suback.user_properties));
        }
        Packet::Unsubscribe(unsubscribe) => {
            put!(out, "id": unsubscribe.packet_id.get(), "filters": unsubscribe.filters.iter().collect::<Vec<_>>(),
                "user": user(&unsubscribe.user_properties));
        }
        Packet::UnsubAck(unsuback) => {
            put!(out, "id": unsuback.packet_id.get(), "codes": unsuback.codes, "reason": unsuback.reason_string,
                "user": user(&unsuback.user_properties));
        }
        Packet::PingReq | Packet::PingResp => {}
        Packet::Disconnect(disconnect) => {
            put!(out, "code": disconnect.reason_code.code(), "session_expiry": disconnect.session_expiry_interval_s,
                "reason": disconnect.reason_string, "reference": disconnect.server_reference,
                "user": user(&disconnect.user_properties));
        }
        Packet::Auth(auth) => {
            put!(out, "code": auth.reason_code.code(), "auth_method": auth.authentication_method,
                "auth_data": auth.authentication_data, "reason": auth.reason_string, "user": user(&auth.user_properties));
        }
    }
    out
}

/// The properties that a PUBLISH and a Will Message share.
fn publish(out: &mut Summary, properties: &PublishProperties<'_>) {
    put!(out, "is_text": properties.payload_format_indicator.unwrap_or(false),
        "expiry": properties.message_expiry_interval_s, "response_topic": properties.response_topic,
        "correlation": properties.correlation_data, "content_type": properties.content_type);
}

fn user<'a>(properties: &UserProperties<'a>) -> Vec<(&'a str, &'a str)> {
    properties.iter().collect()
}

fn options(options: SubscriptionOptions) -> (u8, bool, bool, u8) {
    (options.qos.level(), options.no_local, options.retain_as_published, options.retain_handling as u8)
}
