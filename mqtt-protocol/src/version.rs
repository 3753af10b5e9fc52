//! Protocol versions and their differences, as methods rather than comparisons strewn over the code.

use std::fmt;

/// Version of the protocol that a Network Connection speaks, by its Protocol Level byte.
#[repr(u8)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProtocolVersion {
    /// MQTT 3.1, whose protocol name is `MQIsdp`.
    V3_1 = 3,
    /// MQTT 3.1.1.
    V3_1_1 = 4,
    /// MQTT 5.0.
    V5 = 5,
}

impl ProtocolVersion {
    /// Every version, oldest first.
    pub const ALL: [Self; 3] = [Self::V3_1, Self::V3_1_1, Self::V5];

    /// Returns the Protocol Level byte of the CONNECT packet (5.0: Protocol Version).
    pub const fn level(self) -> u8 {
        self as u8
    }

    /// Returns the Protocol Name of the CONNECT packet.
    pub const fn protocol_name(self) -> &'static str {
        match self {
            Self::V3_1 => "MQIsdp",
            Self::V3_1_1 | Self::V5 => "MQTT",
        }
    }

    /// Says whether packets carry properties.
    pub const fn has_properties(self) -> bool {
        matches!(self, Self::V5)
    }

    /// Says whether acknowledgements and DISCONNECT carry Reason Codes.
    pub const fn has_reason_codes(self) -> bool {
        matches!(self, Self::V5)
    }
}

impl fmt::Display for ProtocolVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V3_1 => "3.1",
            Self::V3_1_1 => "3.1.1",
            Self::V5 => "5.0",
        })
    }
}
