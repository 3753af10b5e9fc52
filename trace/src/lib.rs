//! The way of single messages through the gateway, step by step: what somebody asks for who wants to know what became of one.
//!
//! A message that is *sampled* gets a [`Context`] when it comes in, and takes it along: through authorisation, rules and
//! routing, into the queues of actions, and to the far side. Whoever does something for it makes a [`Span`] and gives it to
//! the [`Tracer`], which keeps the last traces in memory ([`ring`]) and hands spans to an exporter, if there is one.
//!
//! What isn't sampled carries nothing: a message costs one look at a flag then. Errors make a trace of their own where the
//! message has none, so that the last ones can be looked at though nobody asked before they happened.
//!
//! Names of spans and attributes are those of OpenTelemetry's conventions for messaging where there is one.

mod context;
pub mod ring;
mod sampling;
mod span;
mod tracer;

pub use context::{Context, TRACEPARENT};
pub use ring::{Summary, Trace};
pub use sampling::{
    CAPTURE_TIME_MAX, CAPTURES_MAX, Capture, CaptureError, CaptureId, NAMES_MAX, Sampling, Why,
};
pub use span::{ATTRIBUTE_BYTES_MAX, Kind, Span, Value};
pub use tracer::{Counts, Export, Settings, Tracer};
