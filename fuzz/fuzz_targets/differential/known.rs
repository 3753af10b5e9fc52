//! Known disagreements.

use mqtt_protocol::{DecodeError, Packet, PacketType, ProtocolVersion};

pub(crate) fn differs(_codec: &str, _packet_type: PacketType, _field: &str) -> bool {
    false
}

pub(crate) fn accepts(_codec: &str, _packet_type: PacketType, _error: &DecodeError) -> bool {
    false
}

pub(crate) fn refuses(_codec: &str, _packet_type: PacketType, _version: ProtocolVersion, _packet: &Packet<'_>, _error: &str) -> bool {
    false
}
