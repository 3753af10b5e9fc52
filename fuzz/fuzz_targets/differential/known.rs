//! What the other codecs are known to do otherwise, each with the specification's word for our side.
//!
//! Section and statement numbers without a version are those of MQTT 5.0.

use mqtt_protocol::{DecodeError, Packet, PacketType, ProtocolVersion};

/// One leniency: who has it, how our error begins, and why we refuse.
struct Leniency {
    codec: &'static str,
    error: &'static str,
    #[allow(dead_code, reason = "for the reader")]
    reason: &'static str,
}

const fn both(error: &'static str, reason: &'static str) -> Leniency {
    Leniency { codec: "r", error, reason }
}

const fn rmqtt(error: &'static str, reason: &'static str) -> Leniency {
    Leniency { codec: "rmqtt", error, reason }
}

const fn rumqttc(error: &'static str, reason: &'static str) -> Leniency {
    Leniency { codec: "rumqttc", error, reason }
}

const LENIENCIES: &[Leniency] = &[
    both(
        "malformed packet: remaining length is longer than its value needs",
        "[MQTT-1.5.5-1]: a Variable Byte Integer has the fewest bytes that its value needs",
    ),
    both(
        "malformed packet: variable byte integer is longer than its value needs",
        "[MQTT-1.5.5-1]: a Variable Byte Integer has the fewest bytes that its value needs",
    ),
    both("malformed packet: string holds the character U+0000", "[MQTT-1.5.4-2]; [MQTT-1.5.3-2, v3.1.1]"),
    both(
        "malformed packet: remaining length covers more than the packet's fields",
        "§2.1.4: the Remaining Length covers the Variable Header and the Payload, and these have no further fields",
    ),
    both(
        "malformed packet: remaining length is not 0",
        "§3.12, §3.13: PINGREQ and PINGRESP have neither header nor payload",
    ),
    both(
        "malformed packet: requested qos is none of 0, 1, 2",
        "[MQTT-3-8.3-4, v3.1.1]: the other bits are reserved",
    ),
    both(
        "malformed packet: suback has no payload",
        "§3.9.3: one Reason Code for each Topic Filter, of which there is one or more",
    ),
    both(
        "malformed packet: unsuback has no payload",
        "§3.11.3: one Reason Code for each Topic Filter, of which there is one or more",
    ),
    both(
        "malformed packet: will qos or will retain is set without a will",
        "[MQTT-3.1.2-11], [MQTT-3.1.2-13]; [MQTT-3.1.2-13], [MQTT-3.1.2-15, v3.1.1]",
    ),
    both("protocol error: session present is set in a refusal", "[MQTT-3.2.2-6]; [MQTT-3.2.2-4, v3.1.1]"),
    both(
        "protocol error: topic filter is empty",
        "[MQTT-4.7.3-1]: Topic Names and Topic Filters have a character or more",
    ),
    both(
        "protocol error: topic name is empty and there is no topic alias",
        "§3.3.2.1: it is a Protocol Error",
    ),
    both("topic name: is empty", "[MQTT-4.7.3-1]: Topic Names and Topic Filters have a character or more"),
    both(
        "topic name: holds a wildcard character",
        "[MQTT-3.3.2-2]: the Topic Name of a PUBLISH has no wildcards",
    ),
    both("protocol error: response topic holds a wildcard character", "[MQTT-3.3.2-14]"),
    both(
        "protocol error: reason code is not one of this packet",
        "§2.4, table 2-6, and [MQTT-3.4.2-1] and its likes",
    ),
    both(
        "protocol error: no local is set on a shared subscription",
        "[MQTT-3.8.3-4]: it is a Protocol Error",
    ),
    both(
        "malformed packet: packet ends inside a field",
        "§3.15.2.1: an AUTH leaves out both Reason Code and properties, or none; for others a field must be there whole",
    ),
    both(
        "protocol error: authentication method is missing",
        "§3.15.2.2.2: it is a Protocol Error to leave it out",
    ),
    both(
        "protocol error: authentication data comes without an authentication method",
        "§3.1.2.11.10: it is a Protocol Error",
    ),
    both("protocol error: maximum packet size is 0", "§3.1.2.11.4, §3.2.2.3.6: it is a Protocol Error"),
    both("protocol error: maximum qos", "§3.2.2.3.4: a value other than 0 and 1 is a Protocol Error"),
    rmqtt("protocol level ", "[MQTT-3.1.2-2]; level 3 goes with the Protocol Name MQIsdp"),
    rmqtt("protocol error: connect return code is above 5", "§3.2.2.3, v3.1.1: 6 to 255 are reserved"),
    rmqtt("protocol error: subscribe has no topic filter", "[MQTT-3.8.3-2]: it is a Protocol Error"),
    rmqtt("protocol error: unsubscribe has no topic filter", "[MQTT-3.10.3-2]: it is a Protocol Error"),
    // rumqttc is a client's codec: it checks little of what a Server never sends.
    rumqttc(
        "malformed packet: property length goes past the end of the packet",
        "§2.2.2.1: it is the length of the properties",
    ),
    rumqttc(
        "malformed packet: variable byte integer has more than four bytes",
        "§1.5.5; it stops before the end of the properties when they hold Subscription Identifiers, see `differs`",
    ),
    rumqttc("malformed packet: property identifier is unknown", "§2.2.2.2: it is a Malformed Packet"),
    rumqttc("malformed packet: reserved bits of the connect acknowledge flags are set", "[MQTT-3.2.2-1]"),
    rumqttc("malformed packet: reserved bits of the subscription options are set", "[MQTT-3.8.3-5]"),
    rumqttc("malformed packet: reserved connect flag is set", "[MQTT-3.1.2-3]"),
    rumqttc(
        "malformed packet: reserved flags of the fixed header are wrong",
        "[MQTT-2.1.3-1]; [MQTT-2.2.2-2, v3.1.1]",
    ),
    rumqttc("malformed packet: string is not well-formed UTF-8", "[MQTT-1.5.4-1]: it keeps topics as bytes"),
    both(
        "malformed packet: password flag is set without the user name flag",
        "[MQTT-3.1.2-22, v3.1.1]; MQTT 3.1 §3.1",
    ),
    rumqttc("malformed packet: will qos is 3", "[MQTT-3.1.2-12]; [MQTT-3.1.2-14, v3.1.1]"),
    rumqttc("protocol error: receive maximum is 0", "§3.1.2.11.3, §3.2.2.3.3: it is a Protocol Error"),
    rumqttc("protocol error: subscription identifier is 0", "§3.8.2.1.2: it is a Protocol Error"),
    rumqttc("protocol error: packet identifier is 0", "[MQTT-2.2.1-3]; [MQTT-2.3.1-1, v3.1.1]"),
    rumqttc(
        "protocol error: property of a Boolean kind is neither 0 nor 1",
        "§3.1.2.11.6 and its likes: it is a Protocol Error",
    ),
    rumqttc(
        "protocol error: property ",
        "§2.2.2.2: … appears more than once, which only some properties may",
    ),
    rumqttc("protocol error: subscribe has no topic filter", "[MQTT-3.8.3-2]: it is a Protocol Error"),
    rumqttc("protocol error: unsubscribe has no topic filter", "[MQTT-3.10.3-2]: it is a Protocol Error"),
    rumqttc("topic alias 0 is not permitted", "[MQTT-3.3.2-8]"),
];

/// Says whether the codec is known to accept what we refuse with this error.
pub(crate) fn accepts(codec: &str, packet_type: PacketType, error: &DecodeError) -> bool {
    let error = error.to_string();
    // rumqttc does not check every property against its packet (§2.2.2.2: it is a Malformed Packet).
    if codec == "rumqttc" && error.ends_with("is no property of this packet") {
        return matches!(packet_type, PacketType::Connect | PacketType::Publish | PacketType::Subscribe);
    }
    LENIENCIES.iter().any(|known| codec.starts_with(known.codec) && error.starts_with(known.error))
}

/// Says whether the codec is known to refuse this packet, which the specification allows.
pub(crate) fn refuses(codec: &str, version: ProtocolVersion, packet: &Packet<'_>, error: &str) -> bool {
    let is_v5 = version == ProtocolVersion::V5;
    match (codec, packet) {
        // A CONNECT without Client Identifier and with a session to keep is answered with 0x85 or 2 in a CONNACK
        // [MQTT-3.1.3-8, v3.1.1], so it must be decoded first.
        ("rmqtt", Packet::Connect(connect)) if connect.client_id.is_empty() && !connect.clean_start => true,
        // A Message Expiry Interval of 0 is not forbidden (§3.3.2.3.3); rmqtt has it as a number that is not zero.
        ("rmqtt", Packet::Publish(publish)) => publish.properties.message_expiry_interval_s == Some(0),
        ("rmqtt", Packet::Connect(connect)) => {
            connect.will.is_some_and(|will| will.publish.message_expiry_interval_s == Some(0))
        }
        // A Password is binary data (§3.1.3.6); rumqttc takes it for text.
        ("rumqttc", Packet::Connect(connect)) => connect.password.is_some() && error == "TopicNotUtf8",
        // The short forms of §3.14.2.1 and §3.15.2.1. And 0x8C, which table 2-6 names for DISCONNECT and §3.14.2.1 doesn't.
        ("rumqttc", Packet::Disconnect(_)) => {
            is_v5
                && matches!(error, "PayloadRequired" | "InsufficientBytes(1)" | "InvalidConnectReturnCode(140)")
        }
        ("rumqttc", Packet::Auth(_)) => is_v5,
        // See `differs`.
        ("rumqttc", Packet::Publish(publish)) => !publish.properties.subscription_identifiers.is_empty(),
        _ => false,
    }
}

/// Says whether the codec is known to read this packet otherwise.
pub(crate) fn differs(codec: &str, packet: &Packet<'_>) -> bool {
    match packet {
        // rumqttc miscounts the bytes of Subscription Identifiers (§3.3.2.3.8) and so misses where the payload begins.
        Packet::Publish(publish) => {
            codec == "rumqttc" && !publish.properties.subscription_identifiers.is_empty()
        }
        _ => false,
    }
}
