//! Republish: the message goes on to another topic of this broker.
//!
//! There is no driver and no queue: the request is rendered here and routed by the caller inside the source message's
//! admission, so that it is as durable as the source and in order with it. What comes out of templates is checked here:
//! a topic has no wildcard, is not empty nor too long, and begins with `$` only if the template's own text does, so
//! that no device can name `$SYS` in a payload and reach it.

mod config;
mod sink;
#[cfg(test)]
mod tests;

pub use config::{RepublishConfig, Scalar};
pub(crate) use sink::RepublishPlan;
pub use sink::RepublishRequest;
