//! Who may come in, and what they may do: authentication methods and access rules.
//!
//! It knows MQTT's topics and nothing of the broker: what a client shows comes in as plain values, decisions go out as plain
//! values. `server` puts it behind the questions that the broker asks (`broker::AccessControl`).
//!
//! Whatever is broken, missing or can't be reached denies.

pub mod acl;
pub mod authentication;
