//! Actions: what a rule does with its output, and the one delivery machine that queued actions share.
//!
//! What it owns: the configuration of every action ([`config`]), which of its strings are templates and how a request
//! is built from them ([`plan`]), the drivers of outside systems ([`sinks`]), and the queue, order, retry, circuit and
//! counters in front of them ([`delivery`]). A driver sends one batch and says what happened; the worker decides what
//! that means. So a retry loop, a queue or a second set of counters has no place under `sinks/`.
//!
//! What it leaves out: SQL (templates are rendered by the caller through [`Renderer`]), the broker (a republish is
//! rendered here and routed by the caller, inside the source message's admission), and files on disk but for a connector's
//! certificates and what the store does for an outbox.
//!
//! Invariants:
//! - Rendering never sends. What a driver gets has been checked: topics without wildcards, header values without
//!   CR, LF or NUL, URLs whose host is written in the configuration.
//! - Enqueueing never waits, so no publisher ever waits for a sink.
//! - At every instant `received = delivered + queued + in flight + dead-lettered{reason} + dropped{reason}`, per action.
//! - Secrets come from connectors alone. They, header values, bodies and query strings appear in no `Debug` text and in no
//!   log line of this crate; only the log action writes what it is told to write.

#![cfg_attr(
    not(all(feature = "amqp", feature = "kafka", feature = "nats", feature = "redis")),
    allow(dead_code, unused_imports, reason = "what drivers that are left out would use")
)]

pub mod config;
pub mod connectors;
pub mod dead_letters;
pub mod delivery;
mod error;
mod outlet;
pub mod plan;
mod record;
mod secret;
pub mod sinks;
mod targets;
#[cfg(test)]
mod testing;
mod text;
pub mod units;

pub use config::ActionConfig;
pub use connectors::{Connector, ConnectorError, Connectors};
pub use dead_letters::{DeadLetter, DeadLetterError};
pub use delivery::{
    Aftermath, Control, Delivery, DeliveryError, DropReason, Ended, Endings, Enqueued, Failure, Fate, Heard,
    ItemId, LastError, OnFailure, Outbox, Purge, Sink, Snapshot, Start,
};
pub use error::{ActionConfigError, RenderError};
pub use outlet::{Early, KeepError, Outlet, OutletItem, OutletSettings, Owing, QueuedRequest};
pub use plan::{ActionPlan, OutputRef, Renderer, Request, Slot, TemplateSpec};
pub use record::{Record, RecordKind, messaging_system};
pub use secret::Secret;
pub use sinks::http::{HttpRequest, RequestUrl};
pub use sinks::log::LogLine;
pub use sinks::republish::RepublishRequest;
pub use targets::{AddressRange, AddressRangeError, TargetError, TargetPolicy};
