//! PUBLISH as a Server sends it: one Application Message, many receivers.
//!
//! [`encode_publish`] writes one packet with everything that may differ between receivers. [`PublishLayout`] is for fan-out:
//! the header is encoded once and copied for each receiver with its flags and Packet Identifier patched in.
//!
//! Topic, properties and payload come from packets that were decoded, or were checked when they were made. Their text is
//! not checked again here; lengths are.

use std::num::NonZeroU16;

use super::{
    PacketType,
    publish::{DUP, QOS_SHIFT, RETAIN},
};
use crate::{
    VARIABLE_BYTE_INTEGER_MAX, error::EncodeError, packet_id::PacketId, qos::QoS, version::ProtocolVersion,
    wire,
};

const MESSAGE_EXPIRY_INTERVAL: u8 = 0x02;
const SUBSCRIPTION_IDENTIFIER: u8 = 0x0B;
const TOPIC_ALIAS: u8 = 0x23;

/// One Application Message to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outgoing<'a> {
    /// Topic Name, valid.
    pub topic: &'a str,
    /// Payload.
    pub payload: &'a [u8],
    /// Encoded properties, from [`PublishProperties::forward_bytes`](super::PublishProperties::forward_bytes).
    pub forward: &'a [u8],
    /// What is left of the Message Expiry Interval, in seconds [MQTT-3.3.2-6, v5].
    pub message_expiry_interval_s: Option<u32>,
}

/// What a Topic Alias in a packet does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AliasUse {
    /// The packet carries both, and the receiver learns that the alias stands for the topic.
    Establish,
    /// The packet carries the alias alone, with an empty Topic Name.
    Replace,
}

/// The encoded header of a PUBLISH, for one class of receivers: same version, all with or all without a Packet Identifier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishLayout {
    /// All bytes before the payload; DUP, QoS, RETAIN and Packet Identifier are zero.
    header: Vec<u8>,
    packet_id_at: Option<usize>,
    payload_len: usize,
}

impl PublishLayout {
    /// Encodes the header once; `header` is memory to use again, its contents are dropped.
    ///
    /// 3.x has no properties, so it leaves them out.
    ///
    /// # Errors
    /// A topic longer than 65,535 bytes or a packet beyond the limit of the format.
    pub fn new(
        version: ProtocolVersion,
        qos_has_id: bool,
        message: &Outgoing<'_>,
        mut header: Vec<u8>,
    ) -> Result<Self, EncodeError> {
        header.clear();
        let parts = Parts::new(version, message, qos_has_id, None, &[])?;
        header.reserve(parts.header_len());
        parts.put(&mut header, 0, PacketType::Publish.first_byte());
        let packet_id_at = qos_has_id.then(|| parts.packet_id_at());
        Ok(Self { header, packet_id_at, payload_len: message.payload.len() })
    }

    /// Returns the length of the whole packet, fixed header and payload included, in bytes.
    pub const fn packet_len(&self) -> usize {
        self.header.len() + self.payload_len
    }

    /// Returns the length of the payload, in bytes.
    pub const fn payload_len(&self) -> usize {
        self.payload_len
    }

    /// Appends everything before the payload, for one receiver. The caller appends the payload.
    ///
    /// A layout without Packet Identifier is for QoS 0; one with it is for QoS 1 and 2 and needs `id`.
    #[inline]
    pub fn append_header(&self, out: &mut Vec<u8>, qos: QoS, retain: bool, dup: bool, id: Option<PacketId>) {
        debug_assert_eq!(self.packet_id_at.is_some(), qos.has_packet_id(), "layout and qos belong together");
        debug_assert_eq!(id.is_some(), qos.has_packet_id(), "packet identifier and qos belong together");
        let start = out.len();
        out.extend_from_slice(&self.header);
        let Some(header) = out.get_mut(start..) else { return };
        if let Some(first) = header.first_mut() {
            *first |= flags(qos, retain, dup);
        }
        if let (Some(at), Some(id)) = (self.packet_id_at, id)
            && let Some(slot) = header.get_mut(at..at + 2)
        {
            slot.copy_from_slice(&id.get().to_be_bytes());
        }
    }

    /// Gives the memory back, for the next [`PublishLayout::new`].
    pub fn into_scratch(self) -> Vec<u8> {
        self.header
    }
}

/// Appends one whole PUBLISH, or all of it but the payload, and returns the length of the whole packet in bytes.
///
/// `id` goes with QoS 1 and 2; `alias` and `subscription_identifiers` are left out before 5.0, where the Topic Name is sent
/// in any case.
///
/// # Errors
/// A topic longer than 65,535 bytes, a Subscription Identifier outside 1..=268,435,455, a QoS that does not fit `id`, DUP at
/// QoS 0, a packet beyond the limit of the format; `out` is unchanged then.
#[expect(clippy::too_many_arguments, reason = "the hot path takes what differs per receiver one by one")]
#[inline]
pub fn encode_publish(
    out: &mut Vec<u8>,
    version: ProtocolVersion,
    message: &Outgoing<'_>,
    qos: QoS,
    retain: bool,
    dup: bool,
    id: Option<PacketId>,
    alias: Option<(NonZeroU16, AliasUse)>,
    subscription_identifiers: &[u32],
    with_payload: bool,
) -> Result<usize, EncodeError> {
    if qos.has_packet_id() != id.is_some() {
        return Err(EncodeError::Forbidden("packet identifier goes with qos 1 and 2, not with qos 0"));
    }
    if dup && qos == QoS::AtMostOnce {
        return Err(EncodeError::Forbidden("dup is set at qos 0"));
    }
    let parts = Parts::new(version, message, id.is_some(), alias, subscription_identifiers)?;
    let header_len = parts.header_len();
    out.reserve(header_len + if with_payload { message.payload.len() } else { 0 });
    parts.put(out, id.map_or(0, PacketId::get), PacketType::Publish.first_byte() | flags(qos, retain, dup));
    if with_payload {
        out.extend_from_slice(message.payload);
    }
    Ok(header_len + message.payload.len())
}

const fn flags(qos: QoS, retain: bool, dup: bool) -> u8 {
    let mut flags = qos.level() << QOS_SHIFT;
    if retain {
        flags |= RETAIN;
    }
    if dup {
        flags |= DUP;
    }
    flags
}

/// The fields of one header with their lengths worked out.
struct Parts<'a> {
    topic: &'a str,
    topic_len: u16,
    has_packet_id: bool,
    /// Property Length; `None` before 5.0.
    properties_len: Option<u32>,
    forward: &'a [u8],
    message_expiry_interval_s: Option<u32>,
    alias: Option<NonZeroU16>,
    subscription_identifiers: &'a [u32],
    remaining_len: u32,
    payload_len: usize,
}

impl<'a> Parts<'a> {
    #[inline]
    fn new(
        version: ProtocolVersion,
        message: &Outgoing<'a>,
        has_packet_id: bool,
        alias: Option<(NonZeroU16, AliasUse)>,
        subscription_identifiers: &'a [u32],
    ) -> Result<Self, EncodeError> {
        let has_properties = version.has_properties();
        let topic = match alias {
            Some((_, AliasUse::Replace)) if has_properties => "",
            _ => message.topic,
        };
        let mut parts = Self {
            topic,
            topic_len: wire::field_len(topic.as_bytes())?,
            has_packet_id,
            properties_len: None,
            forward: message.forward,
            message_expiry_interval_s: message.message_expiry_interval_s,
            alias: alias.map(|(alias, _)| alias),
            subscription_identifiers,
            remaining_len: 0,
            payload_len: message.payload.len(),
        };
        let mut len = 2 + topic.len() + if has_packet_id { 2 } else { 0 };
        if has_properties {
            let properties_len = parts.count_properties()?;
            let short = wire::section_len(properties_len)?;
            parts.properties_len = Some(short);
            len += wire::var_int_len(short) + properties_len;
        }
        parts.remaining_len = wire::section_len(len + parts.payload_len)?;
        Ok(parts)
    }

    #[inline]
    fn count_properties(&self) -> Result<usize, EncodeError> {
        let mut len = self.forward.len();
        if self.message_expiry_interval_s.is_some() {
            len += 5;
        }
        if self.alias.is_some() {
            len += 3;
        }
        for &id in self.subscription_identifiers {
            if id == 0 || id > VARIABLE_BYTE_INTEGER_MAX {
                return Err(EncodeError::Forbidden("subscription identifier is outside 1..=268435455"));
            }
            len += 1 + wire::var_int_len(id);
        }
        Ok(len)
    }

    fn header_len(&self) -> usize {
        let remaining_len = usize::try_from(self.remaining_len).unwrap_or(usize::MAX);
        1 + wire::var_int_len(self.remaining_len) + remaining_len - self.payload_len
    }

    fn packet_id_at(&self) -> usize {
        1 + wire::var_int_len(self.remaining_len) + 2 + self.topic.len()
    }

    #[inline]
    fn put(&self, out: &mut Vec<u8>, packet_id: u16, first_byte: u8) {
        out.push(first_byte);
        wire::put_var_int(out, self.remaining_len);
        wire::put_u16(out, self.topic_len);
        out.extend_from_slice(self.topic.as_bytes());
        if self.has_packet_id {
            wire::put_u16(out, packet_id);
        }
        let Some(properties_len) = self.properties_len else { return };
        wire::put_var_int(out, properties_len);
        if let Some(seconds) = self.message_expiry_interval_s {
            out.push(MESSAGE_EXPIRY_INTERVAL);
            out.extend_from_slice(&seconds.to_be_bytes());
        }
        if let Some(alias) = self.alias {
            out.push(TOPIC_ALIAS);
            wire::put_u16(out, alias.get());
        }
        for &id in self.subscription_identifiers {
            out.push(SUBSCRIPTION_IDENTIFIER);
            wire::put_var_int(out, id);
        }
        out.extend_from_slice(self.forward);
    }
}
