//! Tidegate: an MQTT broker with SQL rules, in one process.
//!
//! This crate is the only one that sees all the others: it reads the configuration ([`config`]), opens the store
//! ([`storage`]), wires broker, store and rules together ([`server`]) and holds the command line ([`cli`]). `main.rs` only calls [`cli::run`].
//! It owns no protocol, no SQL and no delivery: those are `broker`, `rules-sql` and `actions`.

pub mod access;
pub mod admin;
mod alarms;
pub mod api;
pub mod backup;
pub mod cli;
pub mod client;
pub mod config;
mod confine;
mod demo;
#[cfg(feature = "power-cut")]
mod fault;
pub mod listeners;
pub mod log;
mod memory;
mod metrics;
pub mod otlp;
pub mod reload;
pub mod rules;
pub mod server;
mod service;
mod stamp;
pub mod storage;
pub mod tls;
