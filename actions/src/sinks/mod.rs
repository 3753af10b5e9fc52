//! The drivers. Each has the same files: `mod.rs` (what it does), `config.rs` (its keys), `sink.rs` (plan and driver),
//! `tests.rs`.

pub mod http;
pub mod log;
pub mod republish;
