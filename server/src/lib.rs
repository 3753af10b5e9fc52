//! Tidegate: an MQTT broker with SQL rules, in one process.
//!
//! This crate is the only one that sees all the others: it reads the configuration, wires broker, rules and actions
//! together and holds the command line. `main.rs` only calls [`cli::run`].

pub mod config;
