//! NATS: one message per message, stored by a stream (JetStream) or handed to a server (core).
//!
//! A batch goes out as one piece over the connection that all actions of a connector share; each message has an answer of
//! its own, and only what was refused is tried again or given up. The driver speaks the protocol itself, in four files:
//! what a server says (`wire`), the sign-in (`hello`, `auth`), which answer belongs to which message (`client`), what an
//! answer means (`answer`).
//!
//! Safety: a subject made from a message holds no space and no line break, so it can't become another command, no wildcard,
//! and reaches neither the server's own subjects nor anybody's inbox. Everything that a server sends has a limit.

#[cfg(feature = "nats")]
mod answer;
mod auth;
#[cfg(feature = "nats")]
mod client;
mod config;
mod connector;
#[cfg(feature = "nats")]
mod hello;
mod probe;
#[cfg(feature = "nats")]
mod sink;
#[cfg(test)]
#[cfg(feature = "nats")]
mod tests;
#[cfg(feature = "nats")]
mod wire;

pub use config::NatsConfig;
pub use connector::{NatsConnector, NatsConnectorConfig};
#[cfg(feature = "nats")]
pub use sink::NatsSink;
