//! Kafka: a record of a topic per message.
//!
//! A batch is one request per broker that leads one of its partitions, and every partition has an answer of its own. A
//! broker refuses a partition's records all together, so what one of them may be to blame for is taken apart until that
//! one is refused alone. Which record goes to which partition is decided as Kafka's own clients do it, by a hash of the
//! key; without a key by what messages keep their order with, so that the order of a publisher is the order in which a
//! consumer sees them.
//!
//! The library is taken for the bytes on the wire alone. Left to itself it connects to whatever address a cluster names,
//! tries again without end, hashes a password as often as a broker asks for, and leaves a task behind for every write
//! that stands still. So the parts around it are here: `cluster` (which broker leads what, and connections to them),
//! `broker` (one connection), `stream` (what makes its end final), `sasl` (sign-in), `produce` (records to requests),
//! `pending` (answers to results), `producer` and `init_producer` (what makes a record that is sent again be written once).
//!
//! Limits: an answer of `broker::ANSWER_BYTES_MAX`, `cluster::TOPICS_MAX` topics remembered, `cluster::BROKERS_MAX`
//! brokers known, `pending::CHUNK_BYTES_MAX` of records for one partition in one request, `producer::LINES_MAX` partitions and
//! `producer::RECORDS_MAX` records remembered for the sake of what is sent again.

#[cfg(feature = "kafka")]
mod answer;
#[cfg(feature = "kafka")]
mod broker;
#[cfg(feature = "kafka")]
mod cluster;
mod config;
mod connector;
#[cfg(feature = "kafka")]
mod init_producer;
#[cfg(feature = "kafka")]
mod partition;
#[cfg(feature = "kafka")]
mod pending;
mod probe;
#[cfg(feature = "kafka")]
mod produce;
#[cfg(feature = "kafka")]
mod producer;
#[cfg(feature = "kafka")]
mod sasl;
#[cfg(feature = "kafka")]
mod sink;
#[cfg(feature = "kafka")]
mod stream;
#[cfg(test)]
#[cfg(feature = "kafka")]
mod tests;

pub use config::{KafkaCompression, KafkaConfig};
pub use connector::{KafkaConnector, KafkaConnectorConfig, SaslConfig, SaslMechanism};
#[cfg(feature = "kafka")]
pub use sink::KafkaSink;
