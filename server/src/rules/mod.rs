//! Rules: from files to what happens to a message.
//!
//! - `file.rs`: rule files into a [`RuleSet`], everything checked and compiled;
//! - `topic_index.rs`: which Topic Filters a topic fits;
//! - `groups.rs`: the rules behind the same filters, and which of them a message is worth showing to;
//! - `pipeline.rs`: [`RulePipeline`], the broker's hook: evaluate, render, republish or enqueue;
//! - `message.rs`: a message as rules and error documents see it;
//! - `error_action.rs`: what happens when actions fail;
//! - `counters.rs`: what is counted, per rule and per action.
//!
//! A change of rules swaps one pointer: no client notices, and a message in flight ends on the version it began with.
//! Queues live on through a change of their action's settings.

mod counters;
mod error;
mod error_action;
mod file;
mod groups;
mod message;
mod pipeline;
#[cfg(test)]
mod tests;
mod topic_index;

pub use counters::{ActionStats, RuleStats};
pub use error::RuleFileError;
pub use error_action::Publisher;
pub use file::{ERROR_ACTION, LoadedRule, RuleSet, load_rules};
pub use pipeline::{PipelineError, PipelineSettings, RulePipeline};
pub use topic_index::TopicIndex;
