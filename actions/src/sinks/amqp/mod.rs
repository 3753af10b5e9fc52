//! AMQP 0-9-1, RabbitMQ first of all: a message to an exchange, per message.
//!
//! A batch is published in one go on a channel that it has for itself, of the one connection that all actions of a
//! connector share, and each message is done when the server has confirmed it. A confirmed message can still have been
//! taken by no queue: then it came back before, and is not delivered. The server refuses a message for good by closing
//! the channel, without saying which one it was; then those that aren't confirmed go out one by one until it is found, so
//! that it suffers alone.
//!
//! Safety: names and values are counted texts, so none of them can become a frame. What the server says is judged before
//! the library reads it (`guard`), and what the library starts ends with the connection (`link`).

mod config;
#[cfg(feature = "amqp")]
mod connection;
mod connector;
#[cfg(feature = "amqp")]
mod guard;
#[cfg(feature = "amqp")]
mod link;
mod probe;
#[cfg(feature = "amqp")]
mod sink;
#[cfg(test)]
#[cfg(feature = "amqp")]
mod tests;

pub use config::{AmqpConfig, Unroutable};
pub use connector::{AmqpConnector, AmqpConnectorConfig, AuthMechanism};
#[cfg(feature = "amqp")]
pub use sink::AmqpSink;
