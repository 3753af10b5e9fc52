//! Redis: an entry of a stream, a message of a channel, an element of a list, a field of a hash or a value, per message.
//!
//! A batch is one pipeline over the connection that all actions of a connector share; every command has an answer of its
//! own, and only what was refused is tried again or given up. What an answer means is said by its code: the server is
//! unwell (`LOADING`, `OOM`, `READONLY` …), it doesn't want this command (`WRONGTYPE`, `ERR`), or it wants nothing from us
//! as we are (`NOAUTH`, `NOPERM` …).
//!
//! Safety: commands are built of counted arguments, so no value can become another command. The command itself is one of
//! six and no template. An answer is read up to a limit.

mod config;
mod connector;
mod probe;
#[cfg(feature = "redis")]
mod sink;
#[cfg(test)]
#[cfg(feature = "redis")]
mod tests;

pub use config::{RedisCommand, RedisConfig};
pub use connector::{RedisConnector, RedisConnectorConfig};
#[cfg(feature = "redis")]
pub use sink::RedisSink;
