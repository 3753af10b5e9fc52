//! Properties of MQTT 5.0 §2.2.2: one table says identifier, type, which packets allow it, and which may repeat it.
//!
//! To add one: a line in the table, then a field in the packets that it names. Types check their own value ranges
//! (Boolean 0 or 1, "must not be zero"); `Section` checks permission and repetition.

use std::num::{NonZeroU16, NonZeroU32};

use crate::{
    VARIABLE_BYTE_INTEGER_MAX,
    error::{DecodeError, EncodeError},
    qos::QoS,
    user_properties::UserProperties,
    wire::{self, Reader},
};

/// Where a property section stands: a packet type, or the Will Properties in a CONNECT payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place(u16);

impl Place {
    const NONE: Self = Self(0);
    pub(crate) const CONNECT: Self = Self(1);
    pub(crate) const CONNACK: Self = Self(1 << 1);
    pub(crate) const PUBLISH: Self = Self(1 << 2);
    pub(crate) const WILL: Self = Self(1 << 3);
    /// PUBACK, PUBREC, PUBREL and PUBCOMP, which allow the same.
    pub(crate) const ACK: Self = Self(1 << 4);
    pub(crate) const SUBSCRIBE: Self = Self(1 << 5);
    pub(crate) const SUBACK: Self = Self(1 << 6);
    pub(crate) const UNSUBSCRIBE: Self = Self(1 << 7);
    pub(crate) const UNSUBACK: Self = Self(1 << 8);
    pub(crate) const DISCONNECT: Self = Self(1 << 9);
    pub(crate) const AUTH: Self = Self(1 << 10);
    const ANY: Self = Self((1 << 11) - 1);

    const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    const fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// How the value of a property is written.
pub(crate) trait Kind {
    type Value<'a>: Copy;

    fn read<'a>(reader: &mut Reader<'a>) -> Result<Self::Value<'a>, DecodeError>;
    fn put(value: Self::Value<'_>, out: &mut Vec<u8>) -> Result<(), EncodeError>;
}

macro_rules! properties {
    ($( $id:literal $name:ident $kind:ident [$($place:ident)*] [$($repeat:ident)*]; )*) => {
        /// One property with its value.
        #[expect(clippy::enum_variant_names, reason = "one of the specification's names is User Property")]
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Property<'a> {
            $( $name(<$kind as Kind>::Value<'a>), )*
        }

        impl<'a> Property<'a> {
            /// Reads the value of the property `id` as it may stand at `place`; `seen` has a bit for each that went before.
            #[inline]
            fn read(id: u8, place: Place, seen: &mut u64, reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
                match id {
                    $( $id => {
                        const ALLOWED: Place = Place::NONE$(.or(Place::$place))*;
                        const REPEATABLE: Place = Place::NONE$(.or(Place::$repeat))*;
                        if !ALLOWED.meets(place) {
                            return Err(DecodeError::Malformed(concat!(stringify!($name), " is no property of this packet")));
                        }
                        if *seen & (1 << $id) != 0 && !REPEATABLE.meets(place) {
                            return Err(DecodeError::Protocol(concat!("property ", stringify!($name), " appears more than once")));
                        }
                        *seen |= 1 << $id;
                        Ok(Self::$name(<$kind>::read(reader)?))
                    } )*
                    _ => Err(UNKNOWN),
                }
            }

            /// Appends identifier and value.
            pub(crate) fn put(self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
                match self {
                    $( Self::$name(value) => {
                        out.push($id);
                        <$kind>::put(value, out)
                    } )*
                }
            }
        }

        /// Reads one property of an already checked section, wherever it stands.
        #[inline]
        pub(crate) fn read_any<'a>(reader: &mut Reader<'a>) -> Result<Property<'a>, DecodeError> {
            match reader.u8()? {
                $( $id => Ok(Property::$name(<$kind>::read(reader)?)), )*
                _ => Err(UNKNOWN),
            }
        }
    };
}

// MQTT 5.0, table 2-4. First list: the packets that allow it; second: those that may hold it more than once.
properties! {
    0x01 PayloadFormatIndicator Flag [PUBLISH WILL] [];
    0x02 MessageExpiryInterval FourBytes [PUBLISH WILL] [];
    0x03 ContentType Text [PUBLISH WILL] [];
    0x08 ResponseTopic ResponseTopicText [PUBLISH WILL] [];
    0x09 CorrelationData Binary [PUBLISH WILL] [];
    0x0B SubscriptionIdentifier NonZeroVarInt [PUBLISH SUBSCRIBE] [PUBLISH];
    0x11 SessionExpiryInterval FourBytes [CONNECT CONNACK DISCONNECT] [];
    0x12 AssignedClientIdentifier Text [CONNACK] [];
    0x13 ServerKeepAlive TwoBytes [CONNACK] [];
    0x15 AuthenticationMethod Text [CONNECT CONNACK AUTH] [];
    0x16 AuthenticationData Binary [CONNECT CONNACK AUTH] [];
    0x17 RequestProblemInformation Flag [CONNECT] [];
    0x18 WillDelayInterval FourBytes [WILL] [];
    0x19 RequestResponseInformation Flag [CONNECT] [];
    0x1A ResponseInformation Text [CONNACK] [];
    0x1C ServerReference Text [CONNACK DISCONNECT] [];
    0x1F ReasonString Text [CONNACK ACK SUBACK UNSUBACK DISCONNECT AUTH] [];
    0x21 ReceiveMaximum NonZeroTwoBytes [CONNECT CONNACK] [];
    0x22 TopicAliasMaximum TwoBytes [CONNECT CONNACK] [];
    0x23 TopicAlias Alias [PUBLISH] [];
    0x24 MaximumQoS QoSByte [CONNACK] [];
    0x25 RetainAvailable Flag [CONNACK] [];
    0x26 UserProperty TextPair [ANY] [ANY];
    0x27 MaximumPacketSize NonZeroFourBytes [CONNECT CONNACK] [];
    0x28 WildcardSubscriptionAvailable Flag [CONNACK] [];
    0x29 SubscriptionIdentifiersAvailable Flag [CONNACK] [];
    0x2A SharedSubscriptionAvailable Flag [CONNACK] [];
}

const UNKNOWN: DecodeError = DecodeError::Malformed("property identifier is unknown");

pub(crate) const USER_PROPERTY_ID: u8 = 0x26;

/// Walks over one property section, checking each property; User Properties are counted and left for later.
#[derive(Debug)]
pub(crate) struct Section<'a> {
    whole: &'a [u8],
    rest: Reader<'a>,
    place: Place,
    seen: u64,
    user_properties: UserProperties<'a>,
    /// Offset of the first User Property in `whole`.
    user_properties_at: Option<usize>,
}

impl<'a> Section<'a> {
    /// Reads the Property Length and takes the section from the packet.
    #[inline]
    pub(crate) fn read(packet: &mut Reader<'a>, place: Place) -> Result<Self, DecodeError> {
        let len = usize::try_from(packet.var_int()?).unwrap_or(usize::MAX);
        let whole = packet
            .bytes(len)
            .map_err(|_| DecodeError::Malformed("property length goes past the end of the packet"))?;
        Ok(Self::new(whole, place))
    }

    /// Walks over a section without its length.
    pub(crate) const fn new(whole: &'a [u8], place: Place) -> Self {
        Self {
            whole,
            rest: Reader::new(whole),
            place,
            seen: 0,
            user_properties: UserProperties::NONE,
            user_properties_at: None,
        }
    }

    /// Returns the next property that is no User Property.
    #[inline]
    pub(crate) fn next(&mut self) -> Result<Option<Property<'a>>, DecodeError> {
        while !self.rest.is_empty() {
            let before = self.rest.rest().len();
            let id = self.rest.u8()?;
            if id != USER_PROPERTY_ID {
                return Property::read(id, self.place, &mut self.seen, &mut self.rest).map(Some);
            }
            // By far the most frequent property; every packet allows it, any number of times.
            TextPair::read(&mut self.rest)?;
            self.note_user_property(before);
        }
        Ok(None)
    }

    /// Widens the stretch of User Properties to the one just read; `before` bytes were left when it began.
    #[inline]
    fn note_user_property(&mut self, before: usize) {
        let after = self.rest.rest().len();
        let start = *self.user_properties_at.get_or_insert(self.whole.len() - before);
        let stretch = self.whole.get(start..self.whole.len() - after).unwrap_or_default();
        self.user_properties.widen(stretch, before - after);
    }

    /// Returns the User Properties, once [`Section::next`] has come to the end.
    pub(crate) const fn user_properties(&self) -> UserProperties<'a> {
        self.user_properties
    }

    /// Returns the bytes of the section, without its length.
    pub(crate) const fn whole(&self) -> &'a [u8] {
        self.whole
    }
}

/// Appends a property section with its length: the ones given that are there, then the User Properties.
pub(crate) fn put_properties<'a>(
    out: &mut Vec<u8>,
    properties: impl IntoIterator<Item = Option<Property<'a>>>,
    user_properties: &UserProperties<'_>,
) -> Result<(), EncodeError> {
    wire::put_section(out, |out| {
        for property in properties.into_iter().flatten() {
            property.put(out)?;
        }
        user_properties.append_to(out);
        Ok(())
    })
}

macro_rules! kind {
    ($(#[$doc:meta])* $name:ident: $value:ty, $read:expr, $put:expr) => {
        $(#[$doc])*
        pub(crate) struct $name;

        impl Kind for $name {
            type Value<'a> = $value;

            #[inline]
            fn read<'a>(reader: &mut Reader<'a>) -> Result<$value, DecodeError> {
                let read: fn(&mut Reader<'a>) -> Result<$value, DecodeError> = $read;
                read(reader)
            }

            fn put(value: Self::Value<'_>, out: &mut Vec<u8>) -> Result<(), EncodeError> {
                let put: fn(Self::Value<'_>, &mut Vec<u8>) -> Result<(), EncodeError> = $put;
                put(value, out)
            }
        }
    };
}

kind!(
    /// A byte that must be 0 or 1.
    Flag: bool,
    |reader| match reader.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(DecodeError::Protocol("property of a Boolean kind is neither 0 nor 1")),
    },
    |value, out| {
        out.push(u8::from(value));
        Ok(())
    }
);
kind!(
    /// Maximum QoS: 0 or 1; 2 is said by leaving the property out (§3.2.2.3.4).
    QoSByte: QoS,
    |reader| match reader.u8()? {
        0 => Ok(QoS::AtMostOnce),
        1 => Ok(QoS::AtLeastOnce),
        _ => Err(DecodeError::Protocol("maximum qos is neither 0 nor 1")),
    },
    |value, out| match value {
        QoS::AtMostOnce | QoS::AtLeastOnce => {
            out.push(value.level());
            Ok(())
        }
        QoS::ExactlyOnce => Err(EncodeError::Forbidden("maximum qos 2 is said by leaving the property out")),
    }
);
kind!(TwoBytes: u16, Reader::u16, |value, out| {
    wire::put_u16(out, value);
    Ok(())
});
kind!(
    /// Receive Maximum: zero is a Protocol Error (§3.1.2.11.3, §3.2.2.3.3).
    NonZeroTwoBytes: NonZeroU16,
    |reader| NonZeroU16::new(reader.u16()?).ok_or(DecodeError::Protocol("receive maximum is 0")),
    |value, out| {
        wire::put_u16(out, value.get());
        Ok(())
    }
);
kind!(
    /// Topic Alias: zero has a Reason Code of its own [MQTT-3.3.2-8, v5].
    Alias: NonZeroU16,
    |reader| NonZeroU16::new(reader.u16()?).ok_or(DecodeError::TopicAliasInvalid),
    |value, out| {
        wire::put_u16(out, value.get());
        Ok(())
    }
);
kind!(FourBytes: u32, Reader::u32, |value, out| {
    out.extend_from_slice(&value.to_be_bytes());
    Ok(())
});
kind!(
    /// Maximum Packet Size: zero is a Protocol Error (§3.1.2.11.4, §3.2.2.3.6).
    NonZeroFourBytes: NonZeroU32,
    |reader| NonZeroU32::new(reader.u32()?).ok_or(DecodeError::Protocol("maximum packet size is 0")),
    |value, out| {
        out.extend_from_slice(&value.get().to_be_bytes());
        Ok(())
    }
);
kind!(
    /// Subscription Identifier: 1 to 268,435,455 (§3.3.2.3.8, §3.8.2.1.2).
    NonZeroVarInt: u32,
    |reader| match reader.var_int()? {
        0 => Err(DecodeError::Protocol("subscription identifier is 0")),
        value => Ok(value),
    },
    |value, out| {
        if value == 0 || value > VARIABLE_BYTE_INTEGER_MAX {
            return Err(EncodeError::Forbidden("subscription identifier is outside 1..=268435455"));
        }
        wire::put_var_int(out, value);
        Ok(())
    }
);
kind!(Binary: &'a [u8], Reader::binary, |value, out| wire::put_binary(out, value));
kind!(Text: &'a str, Reader::text, |value, out| wire::put_text(out, value));
kind!(
    /// A Response Topic is a Topic Name without wildcards [MQTT-3.3.2-14, v5].
    ResponseTopicText: &'a str,
    |reader| {
        let topic = reader.text()?;
        if wire::has_wildcard(topic.as_bytes()) {
            return Err(DecodeError::Protocol("response topic holds a wildcard character"));
        }
        Ok(topic)
    },
    |value, out| {
        if wire::has_wildcard(value.as_bytes()) {
            return Err(EncodeError::TopicInvalid(crate::TopicError::Wildcard));
        }
        wire::put_text(out, value)
    }
);
kind!(TextPair: (&'a str, &'a str), |reader| Ok((reader.text()?, reader.text()?)), |(name, value), out| {
    wire::put_text(out, name)?;
    wire::put_text(out, value)
});
