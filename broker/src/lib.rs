//! The broker core: listeners, connections, sessions, subscriptions, retained messages, routing.
//!
//! It knows MQTT and nothing of SQL, sinks or configuration files: rules see messages through [`MessageHook`], debts go
//! to a [`store::Store`].
//!
//! Where to look: `connection` turns bytes into packets and back; `handlers` has one file for each kind of packet a
//! client sends; `session` is the state machine that outlives connections; `subscriptions` says whom a topic concerns;
//! `dispatch` takes one message from admission to its receivers; `records` tells the store
//! what sessions owe and reads it back, `restore` does so at a start; `inspect` shows what there is, `administer` does what an administrator asks for, `watch` shows messages as they go by, `metrics` counts, `meters` by Topic Filter, `heavy` whoever publishes most, `transfer` carries Retained Messages out and in.
//!
//! Invariants: no lock is held across an await; a publisher's thread never waits for a receiver's socket; an
//! acknowledgement is written after the store has said that its debts are safe; every buffer and queue has a limit in
//! [`Limits`].

mod access;
mod administer;
mod author;
mod authorise;
mod broker;
mod clock;
mod config;
mod connection;
mod dispatch;
mod handlers;
mod heavy;
mod hook;
mod inspect;
mod limits;
mod listeners;
mod message;
mod meters;
mod metrics;
mod outbound;
mod records;
mod restore;
mod session;
mod subscriptions;
mod sys_topics;
mod timers;
mod traced;
mod transfer;
mod watch;

pub use access::{
    AccessControl, Action, Answer, Attempt, Decision, Exchange, Grants, Identity, OpenAccess, Verdict,
};
pub use broker::{BoundListener, Broker, InternalPublish, PublishError, TopicRefused};
pub use config::{BrokerConfig, Limits, QueuePolicy};
pub use heavy::{HeavyHitter, HeavyHitters, HeavyHittersConfig};
pub use hook::{
    ActionQueue, Admitted, HookEffects, MessageHandler, MessageHook, OwedToAction, Placed, Progress,
    Republish,
};
pub use inspect::{
    ClientFilter, ClientInfo, ConnectionInfo, RetainedPlace, SessionQueues, SubscriptionInfo, WaitingClient,
};
pub use limits::ListenerLimits;
pub use listeners::{
    ClientIds, Door, Endpoint, GivenStream, ListenerConfig, PROXY_PREFIX_BYTES, PeerAddress, Proxies,
    ProxyError, ProxyPrefix, Speaks, Takeover, TlsSetup, WebSocketClientFrame, WebSocketConfig,
    WebSocketControl, WebSocketFrameError, WebSocketFrameReader, websocket_accept_key,
};
pub use message::{Message, Publication, Publisher, Trail};
pub use meters::{METERS_MAX, MeterError, MeterReading};
pub use metrics::{PacketCount, Stats};
pub use restore::Restored;
pub use transfer::RetainedCopy;
pub use watch::Watch;
