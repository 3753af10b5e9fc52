//! Reason Codes of MQTT 5.0 and the return codes of MQTT 3.x CONNACK packets.

use std::fmt;

use crate::packet::PacketType;

/// A byte that is no Reason Code of MQTT 5.0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("0x{0:02x} is no reason code")]
pub struct InvalidReasonCode(pub u8);

macro_rules! reason_codes {
    ($( $code:literal $name:ident $text:literal [$($packet:ident)*], $doc:literal; )*) => {
        /// Reason Code of MQTT 5.0 §2.4; below 0x80 is success, from 0x80 on failure.
        ///
        /// The code 0x00 has three names in the specification: Success, Normal disconnection and Granted QoS 0. They
        /// are one value here; see [`ReasonCode::NormalDisconnection`] and [`ReasonCode::GrantedQos0`].
        #[repr(u8)]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum ReasonCode {
            $( #[doc = $doc] $name = $code, )*
        }

        impl ReasonCode {
            /// Every Reason Code, ascending.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// Says whether the specification lists this code for packets of this type (MQTT 5.0 §2.4, table 2-6).
            pub const fn is_valid_in(self, packet: PacketType) -> bool {
                match self {
                    $( Self::$name => matches!(packet, $(PacketType::$packet)|*), )*
                }
            }

            /// Returns the specification's name of the code.
            pub const fn name(self) -> &'static str {
                match self {
                    $( Self::$name => $text, )*
                }
            }
        }

        impl TryFrom<u8> for ReasonCode {
            type Error = InvalidReasonCode;

            fn try_from(code: u8) -> Result<Self, InvalidReasonCode> {
                match code {
                    $( $code => Ok(Self::$name), )*
                    _ => Err(InvalidReasonCode(code)),
                }
            }
        }
    };
}

reason_codes! {
    0x00 Success "Success" [ConnAck PubAck PubRec PubRel PubComp SubAck UnsubAck Disconnect Auth],
        "Success; in a SUBACK Granted QoS 0, in a DISCONNECT Normal disconnection.";
    0x01 GrantedQos1 "Granted QoS 1" [SubAck], "The Subscription is accepted with a maximum QoS of 1.";
    0x02 GrantedQos2 "Granted QoS 2" [SubAck], "The Subscription is accepted with a maximum QoS of 2.";
    0x04 DisconnectWithWillMessage "Disconnect with Will Message" [Disconnect],
        "The Client leaves but wants its Will Message published.";
    0x10 NoMatchingSubscribers "No matching subscribers" [PubAck PubRec],
        "The message is accepted but nobody subscribes to it.";
    0x11 NoSubscriptionExisted "No subscription existed" [UnsubAck], "No such Topic Filter was subscribed.";
    0x18 ContinueAuthentication "Continue authentication" [Auth], "Another step of the authentication follows.";
    0x19 ReAuthenticate "Re-authenticate" [Auth], "The Client starts a re-authentication.";
    0x80 UnspecifiedError "Unspecified error" [ConnAck PubAck PubRec SubAck UnsubAck Disconnect],
        "The sender does not want to say why, or no other code fits.";
    0x81 MalformedPacket "Malformed Packet" [ConnAck Disconnect], "The packet could not be parsed.";
    0x82 ProtocolError "Protocol Error" [ConnAck Disconnect],
        "The packet parsed but its contents or its moment break the protocol.";
    0x83 ImplementationSpecificError "Implementation specific error" [ConnAck PubAck PubRec SubAck UnsubAck Disconnect],
        "The packet is valid but this implementation does not accept it.";
    0x84 UnsupportedProtocolVersion "Unsupported Protocol Version" [ConnAck],
        "The Server does not speak the version that the Client asked for.";
    0x85 ClientIdentifierNotValid "Client Identifier not valid" [ConnAck],
        "The Client Identifier is a valid string but not allowed.";
    0x86 BadUserNameOrPassword "Bad User Name or Password" [ConnAck],
        "The Server does not accept this User Name or Password.";
    0x87 NotAuthorized "Not authorized" [ConnAck PubAck PubRec SubAck UnsubAck Disconnect],
        "The Client may not do this.";
    0x88 ServerUnavailable "Server unavailable" [ConnAck], "The Server is not available.";
    0x89 ServerBusy "Server busy" [ConnAck Disconnect], "The Server is busy; try again later.";
    0x8A Banned "Banned" [ConnAck], "The Client has been banned by an administrator.";
    0x8B ServerShuttingDown "Server shutting down" [Disconnect], "The Server is shutting down.";
    0x8C BadAuthenticationMethod "Bad authentication method" [ConnAck Disconnect],
        "The authentication method is unknown or not the one in use.";
    0x8D KeepAliveTimeout "Keep Alive timeout" [Disconnect], "Nothing came for 1.5 times the Keep Alive.";
    0x8E SessionTakenOver "Session taken over" [Disconnect],
        "Another Network Connection uses the same Client Identifier now.";
    0x8F TopicFilterInvalid "Topic Filter invalid" [SubAck UnsubAck Disconnect],
        "The Topic Filter is a valid string but not accepted.";
    0x90 TopicNameInvalid "Topic Name invalid" [ConnAck PubAck PubRec Disconnect],
        "The Topic Name is a valid string but not accepted.";
    0x91 PacketIdentifierInUse "Packet Identifier in use" [PubAck PubRec SubAck UnsubAck],
        "The Packet Identifier is in use already.";
    0x92 PacketIdentifierNotFound "Packet Identifier not found" [PubRel PubComp],
        "The Packet Identifier is not known.";
    0x93 ReceiveMaximumExceeded "Receive Maximum exceeded" [Disconnect],
        "More unacknowledged messages were sent than the receiver allows.";
    0x94 TopicAliasInvalid "Topic Alias invalid" [Disconnect],
        "The Topic Alias is zero or above the maximum.";
    0x95 PacketTooLarge "Packet too large" [ConnAck Disconnect],
        "The packet is larger than the receiver's Maximum Packet Size.";
    0x96 MessageRateTooHigh "Message rate too high" [Disconnect], "Data comes too fast.";
    0x97 QuotaExceeded "Quota exceeded" [ConnAck PubAck PubRec SubAck Disconnect],
        "A limit of the implementation or of an administrator is reached.";
    0x98 AdministrativeAction "Administrative action" [Disconnect], "An administrator closed the connection.";
    0x99 PayloadFormatInvalid "Payload format invalid" [ConnAck PubAck PubRec Disconnect],
        "The payload is not what the Payload Format Indicator says.";
    0x9A RetainNotSupported "Retain not supported" [ConnAck Disconnect], "The Server does not keep Retained Messages.";
    0x9B QosNotSupported "QoS not supported" [ConnAck Disconnect],
        "The QoS is above the Server's Maximum QoS.";
    0x9C UseAnotherServer "Use another server" [ConnAck Disconnect], "Use another Server for now.";
    0x9D ServerMoved "Server moved" [ConnAck Disconnect], "Use another Server from now on.";
    0x9E SharedSubscriptionsNotSupported "Shared Subscriptions not supported" [SubAck Disconnect],
        "The Server has no Shared Subscriptions.";
    0x9F ConnectionRateExceeded "Connection rate exceeded" [ConnAck Disconnect], "Connections come too fast.";
    0xA0 MaximumConnectTime "Maximum connect time" [Disconnect],
        "The connection has lasted as long as it may.";
    0xA1 SubscriptionIdentifiersNotSupported "Subscription Identifiers not supported" [SubAck Disconnect],
        "The Server has no Subscription Identifiers.";
    0xA2 WildcardSubscriptionsNotSupported "Wildcard Subscriptions not supported" [SubAck Disconnect],
        "The Server has no wildcards in Topic Filters.";
}

#[expect(non_upper_case_globals, reason = "further names of the variant Success, spelt as the variants are")]
impl ReasonCode {
    /// The name of 0x00 in a DISCONNECT.
    pub const NormalDisconnection: Self = Self::Success;
    /// The name of 0x00 in a SUBACK.
    pub const GrantedQos0: Self = Self::Success;
}

impl ReasonCode {
    /// Returns the byte on the wire.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// Says whether the code reports a failure (0x80 and above).
    pub const fn is_error(self) -> bool {
        self.code() >= 0x80
    }

    /// Returns the MQTT 3.x CONNACK return code that comes nearest.
    ///
    /// The five refusals of 3.x have an exact counterpart; faults of the client's request map to "not authorized", all
    /// else that fails to "server unavailable". Source: MQTT 3.1.1 §3.2.2.3.
    pub const fn connect_return_code(self) -> ConnectReturnCode {
        match self {
            code if !code.is_error() => ConnectReturnCode::Accepted,
            Self::UnsupportedProtocolVersion => ConnectReturnCode::UnacceptableProtocolVersion,
            Self::ClientIdentifierNotValid => ConnectReturnCode::IdentifierRejected,
            Self::BadUserNameOrPassword => ConnectReturnCode::BadUserNameOrPassword,
            Self::NotAuthorized
            | Self::Banned
            | Self::BadAuthenticationMethod
            | Self::TopicNameInvalid
            | Self::RetainNotSupported
            | Self::QosNotSupported
            | Self::PayloadFormatInvalid => ConnectReturnCode::NotAuthorized,
            _ => ConnectReturnCode::ServerUnavailable,
        }
    }
}

impl fmt::Display for ReasonCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Return code of an MQTT 3.x CONNACK. Source: MQTT 3.1.1 §3.2.2.3.
#[repr(u8)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConnectReturnCode {
    /// Connection accepted.
    Accepted = 0,
    /// The Server does not support the level of the protocol that the Client asked for.
    UnacceptableProtocolVersion = 1,
    /// The Client Identifier is correct UTF-8 but not allowed.
    IdentifierRejected = 2,
    /// The MQTT service is unavailable.
    ServerUnavailable = 3,
    /// The data in the user name or password is malformed (or wrong).
    BadUserNameOrPassword = 4,
    /// The Client is not authorized to connect.
    NotAuthorized = 5,
}

impl ConnectReturnCode {
    /// Every return code, ascending.
    pub const ALL: [Self; 6] = [
        Self::Accepted,
        Self::UnacceptableProtocolVersion,
        Self::IdentifierRejected,
        Self::ServerUnavailable,
        Self::BadUserNameOrPassword,
        Self::NotAuthorized,
    ];

    /// Returns the byte on the wire.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// Returns the Reason Code of MQTT 5.0 that means the same.
    pub const fn reason_code(self) -> ReasonCode {
        match self {
            Self::Accepted => ReasonCode::Success,
            Self::UnacceptableProtocolVersion => ReasonCode::UnsupportedProtocolVersion,
            Self::IdentifierRejected => ReasonCode::ClientIdentifierNotValid,
            Self::ServerUnavailable => ReasonCode::ServerUnavailable,
            Self::BadUserNameOrPassword => ReasonCode::BadUserNameOrPassword,
            Self::NotAuthorized => ReasonCode::NotAuthorized,
        }
    }
}

impl From<ReasonCode> for ConnectReturnCode {
    fn from(code: ReasonCode) -> Self {
        code.connect_return_code()
    }
}

impl TryFrom<u8> for ConnectReturnCode {
    type Error = InvalidReasonCode;

    fn try_from(code: u8) -> Result<Self, InvalidReasonCode> {
        Self::ALL.into_iter().find(|known| known.code() == code).ok_or(InvalidReasonCode(code))
    }
}
