//! Who may come in, and what they may do: the questions that the broker asks.
//!
//! The broker asks on every path that moves a message and answers nothing itself: what a password is, or which rule denies,
//! is known to the implementation that the embedding program hands in. Without one ([`OpenAccess`]) a client comes in where
//! its listener allows anonymous clients, under the user name that it gives, and may do everything that clients may.

use std::any::Any;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use mqtt_protocol::{ProtocolVersion, QoS, ReasonCode};

use crate::listeners::PeerAddress;
use crate::message::Publisher;

/// Who a client turned out to be: fixed from its CONNECT on, unless it authenticates again.
#[derive(Debug, Clone, Default)]
pub struct Identity {
    /// The user name: proven if `authenticator` is there, else as the client gave it.
    pub username: Option<Box<str>>,
    /// Name of the authenticator that let the client in; `None`: it came in as an anonymous client.
    pub authenticator: Option<Arc<str>>,
    /// Groups that it belongs to.
    pub groups: Box<[Arc<str>]>,
    /// When its right to be here ends, in milliseconds of wall time since the epoch: then the connection is closed.
    pub expires_at_ms: Option<i64>,
    /// What the authenticator grants it, for [`AccessControl::decide`] alone to understand.
    pub grants: Option<Arc<dyn Grants>>,
}

/// What an authenticator grants; opaque to the broker.
pub trait Grants: Any + Send + Sync + fmt::Debug {}

/// What a client shows when it connects or authenticates again.
#[derive(Clone)]
pub struct Attempt {
    /// Client Identifier; assigned by the broker if the client gave none.
    pub client_id: Box<str>,
    /// User Name of the CONNECT.
    pub username: Option<Box<str>>,
    /// Password of the CONNECT.
    pub password: Option<Box<[u8]>>,
    /// Authentication Method and data of MQTT 5 enhanced authentication (MQTT 5.0 §4.12).
    pub enhanced: Option<(Box<str>, Box<[u8]>)>,
    /// The client's certificate, DER, if it showed one that the listener's CA signed.
    pub certificate: Option<Arc<[u8]>>,
    /// Address of the client.
    pub address: PeerAddress,
    /// Listener that it came by.
    pub listener: Arc<str>,
    /// Version of the protocol.
    pub version: ProtocolVersion,
}

impl fmt::Debug for Attempt {
    /// Says nothing of what is secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attempt")
            .field("client_id", &self.client_id)
            .field("username", &self.username)
            .field("address", &self.address)
            .field("listener", &self.listener)
            .finish_non_exhaustive()
    }
}

/// The answer to an [`Attempt`].
#[derive(Debug)]
pub enum Verdict {
    /// The client is who it says; the bytes are the last Authentication Data for it, if any.
    Accept(Arc<Identity>, Option<Box<[u8]>>),
    /// It has to answer this first (MQTT 5.0 §4.12): AUTH with 0x18.
    Continue(Box<dyn Exchange>, Box<[u8]>),
    /// It may not come in. The reason code is for the client, and says no more than it may know; the text is for the log.
    Refuse(ReasonCode, Box<str>),
}

/// An enhanced authentication that is under way.
pub trait Exchange: Send + fmt::Debug {
    /// Goes on with the Authentication Data that the client answered.
    fn answer(self: Box<Self>, data: &[u8]) -> Answer;
}

/// A verdict to come. Dropping it gives the attempt up.
pub type Answer = Pin<Box<dyn Future<Output = Verdict> + Send>>;

/// What a client, or a rule for it, wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action<'a> {
    /// Publish to a topic, set it as the topic of a will, or send that will.
    Publish {
        /// Topic Name.
        topic: &'a str,
        /// Quality of service.
        qos: QoS,
        /// Whether it is to be retained.
        retain: bool,
    },
    /// Subscribe to a filter; of a Shared Subscription the filter inside.
    Subscribe {
        /// Topic Filter.
        filter: &'a str,
        /// Quality of service asked for.
        qos: QoS,
    },
    /// Receive a message of a topic through a Subscription that was granted before.
    Receive {
        /// Topic Name.
        topic: &'a str,
    },
}

/// The answer to "may it?".
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Yes.
    Allow,
    /// Of a Subscription: yes, but not everything that it matches; each message has to be asked about
    /// ([`Action::Receive`]).
    AllowInPart,
    /// No; the text names what denied, for the log.
    Deny(Box<str>),
}

/// Decides who may come in and what they may do. Whatever is broken or can't be reached has to deny.
pub trait AccessControl: Send + Sync + fmt::Debug {
    /// Decides about a client that connects, or authenticates again. Long work belongs off the calling thread.
    fn authenticate(&self, attempt: Attempt) -> Answer;

    /// Whether this client may do everything, so that there is nothing to ask. Asked for each message.
    fn is_open(&self, who: &Publisher) -> bool;

    /// Decides about one action. A Subscription that is allowed as a whole may receive everything that it matches.
    fn decide(&self, who: &Publisher, action: Action<'_>) -> Decision;

    /// Changes whenever a decision may have changed: answers may be kept as long as it stays.
    fn version(&self) -> u64;

    /// Counters of its own, by their names below `$SYS/broker/`.
    fn figures(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }
}

/// Lets everybody do everything, as far as the listener lets them in.
#[derive(Debug, Clone, Copy, Default)]
pub struct OpenAccess;

impl AccessControl for OpenAccess {
    fn authenticate(&self, attempt: Attempt) -> Answer {
        let verdict = if attempt.enhanced.is_some() {
            Verdict::Refuse(
                ReasonCode::BadAuthenticationMethod,
                "no authentication method is offered here".into(),
            )
        } else {
            Verdict::Accept(Arc::new(Identity { username: attempt.username, ..Identity::default() }), None)
        };
        Box::pin(std::future::ready(verdict))
    }

    fn is_open(&self, _who: &Publisher) -> bool {
        true
    }

    fn decide(&self, _who: &Publisher, _action: Action<'_>) -> Decision {
        Decision::Allow
    }

    fn version(&self) -> u64 {
        0
    }
}
