//! Black-box tests: the real binary, real clients, bytes on real sockets.
//!
//! - [`Broker`] starts `tidegate` (or, to check a test itself, Mosquitto) on a free port and fails the test when the
//!   log holds a panic or an unexpected error.
//! - [`Client`] is a raw MQTT client: packets go in as hexadecimal notation ([`wire::bytes`]) and come out as bytes, so
//!   that no codec of ours stands between the test and the specification.
//! - [`tools`] runs the foreign clients: mosquitto_pub and mosquitto_sub, Paho for Python, MQTT.js.
//! - [`HttpReceiver`] is the far side of an HTTP action.
//! - [`Metrics`] is what a broker tells in numbers, and [`Broker::adds_up`] asserts that they add up.
//! - [`servers`] are real servers that actions send to, [`fault_proxy`] is what may be wrong on the way, and [`sinks`] puts every
//!   sink through every fault.
//! - [`chaos`] kills the broker again and again while clients use it, and says whether it has kept its promises.
//!
//! Nothing here sleeps: every wait is for an event, with [`PATIENCE`] as its deadline.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::string_slice,
    clippy::unwrap_used,
    reason = "helpers of tests: a failure is a failed test, at the caller's line"
)]

mod broker;
mod certificates;
pub mod chaos;
pub mod fault_proxy;
mod http;
mod metrics;
mod port;
mod raw;
pub mod servers;
pub mod sinks;
pub mod tools;
pub mod wire;

use std::time::Duration;

pub use broker::{Broker, BrokerBuilder, new_folder};
pub use certificates::{Authority, Identity};
pub use http::{ClosedPort, HttpReceiver, ReceivedRequest};
pub use metrics::Metrics;
pub use port::ReservedPort;
pub use raw::{Ack, Client, Connack, Delivery, Version};
pub use wire::Properties;

/// How long an awaited event may take before the test fails. Generous: the machine may be busy with other tests.
pub const PATIENCE: Duration = Duration::from_secs(20);
