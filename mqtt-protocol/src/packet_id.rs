//! Packet Identifiers.

use std::{fmt, num::NonZeroU16};

/// Packet Identifier, 1..=65535; zero is none [MQTT-2.2.1-3, v5] [MQTT-2.3.1-1, v3.1.1].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PacketId(NonZeroU16);

impl PacketId {
    /// The first Packet Identifier, 1.
    pub const MIN: Self = Self(NonZeroU16::MIN);
    /// The last Packet Identifier, 65535.
    pub const MAX: Self = Self(NonZeroU16::MAX);

    /// Makes a Packet Identifier; `None` for zero.
    pub const fn new(value: u16) -> Option<Self> {
        match NonZeroU16::new(value) {
            Some(value) => Some(Self(value)),
            None => None,
        }
    }

    /// Returns the number, never zero.
    pub const fn get(self) -> u16 {
        self.0.get()
    }

    /// Returns the Packet Identifier that follows; 1 after 65535.
    pub const fn next(self) -> Self {
        match self.0.checked_add(1) {
            Some(value) => Self(value),
            None => Self::MIN,
        }
    }
}

impl fmt::Display for PacketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
