//! Quality of Service levels.

use std::fmt;

/// Quality of Service of a PUBLISH, a Will Message or a Subscription; ordered from weakest to strongest.
///
/// Source: MQTT 5.0 §4.3, MQTT 3.1.1 §4.3.
#[repr(u8)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum QoS {
    /// At most once; no acknowledgement.
    #[default]
    AtMostOnce = 0,
    /// At least once; PUBACK.
    AtLeastOnce = 1,
    /// Exactly once; PUBREC, PUBREL, PUBCOMP.
    ExactlyOnce = 2,
}

/// A Quality of Service level outside 0..=2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("quality of service {0} is none of 0, 1, 2")]
pub struct InvalidQoS(pub u8);

impl QoS {
    /// Every level, weakest first.
    pub const ALL: [Self; 3] = [Self::AtMostOnce, Self::AtLeastOnce, Self::ExactlyOnce];

    /// Returns the level as the two bits of the wire format.
    pub const fn level(self) -> u8 {
        self as u8
    }

    /// Says whether a PUBLISH of this level carries a Packet Identifier.
    pub const fn has_packet_id(self) -> bool {
        !matches!(self, Self::AtMostOnce)
    }

    /// Reads a level from the low two bits of `bits`; `None` for the forbidden value 3.
    pub(crate) const fn from_bits(bits: u8) -> Option<Self> {
        match bits & 0b11 {
            0 => Some(Self::AtMostOnce),
            1 => Some(Self::AtLeastOnce),
            2 => Some(Self::ExactlyOnce),
            _ => None,
        }
    }
}

impl TryFrom<u8> for QoS {
    type Error = InvalidQoS;

    fn try_from(level: u8) -> Result<Self, InvalidQoS> {
        match level {
            0 => Ok(Self::AtMostOnce),
            1 => Ok(Self::AtLeastOnce),
            2 => Ok(Self::ExactlyOnce),
            _ => Err(InvalidQoS(level)),
        }
    }
}

impl From<QoS> for u8 {
    fn from(qos: QoS) -> Self {
        qos.level()
    }
}

impl fmt::Display for QoS {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "QoS {}", self.level())
    }
}
