//! Rules: from files to what happens to a message.
//!
//! - `file.rs`: rule files into a [`RuleSet`], everything checked and compiled; `source.rs`: where a fault stands;
//! - `difference.rs`: what a change of rules changes;
//! - `rulebook/`: [`RuleBook`], who owns which rule, versions, suspension;
//! - `topic_index.rs`: which Topic Filters a topic fits;
//! - `groups.rs`: the rules behind the same filters, and which of them a message is worth showing to;
//! - `pipeline.rs`: [`RulePipeline`], the broker's hook: which rules a message is shown to, and how rules change;
//! - `rule.rs`: a rule that runs: evaluate, render, republish or enqueue;
//! - `queues.rs`: the actions that there are, and what an operator does to their queues;
//! - `outboxes.rs`: the life of outboxes through starts and changes of the rules;
//! - `render.rs`: an action's templates for one message;
//! - `explain.rs`: why a rule does what it does with a message;
//! - `explain_json.rs`: the same for programs;
//! - `parameters.rs`: what an action would send, parameter by parameter;
//! - `sample.rs`: a message that nobody sent;
//! - `message.rs`: a message as rules and error documents see it;
//! - `origin.rs`: what an outbox keeps of a message for that;
//! - `error_action.rs`: what happens when actions fail;
//! - `counters.rs`: what is counted, per rule and per action;
//! - `cases/`: tests of rules as data, run through the same code.
//!
//! A change of rules swaps one pointer: no client notices, and a message in flight ends on the version it began with.
//! Queues live on through a change of their action's settings.

mod again;
pub(crate) mod cases;
mod counters;
mod difference;
mod error;
mod error_action;
mod explain;
mod explain_json;
mod explain_text;
mod file;
mod groups;
mod message;
mod origin;
mod outboxes;
mod parameters;
mod pipeline;
mod queues;
mod render;
mod rule;
mod rulebook;
mod sample;
mod schema;
mod source;
#[cfg(test)]
mod tests;
mod told;
mod topic_index;

pub use counters::{
    ActionStats, ERROR_TEXT_BYTES_MAX, ERROR_TOPIC_BYTES_MAX, ErrorSample, RuleStats, RuleTotals, Stage,
};
pub use difference::RuleDifference;
pub use error::RuleFileError;
pub use error_action::Publisher;
pub(crate) use explain::{HIDDEN, RuleExplanation, is_secret_name};
pub(crate) use explain_json::explanation_line;
pub(crate) use explain_text::explanation_page;
pub(crate) use file::files_in;
pub use file::{ERROR_ACTION, LoadedRule, RuleSet, load_rules};
pub(crate) use parameters::parameters;
pub use pipeline::{PipelineError, PipelineSettings, RulePipeline};
pub use queues::{ActionEntry, ActionState};
pub use rulebook::{
    BookError, Changed, DEFINITION_BYTES_MAX, Expected, MemberChange, Owner, Prune, RuleBook, RuleChange,
    RuleDelta, RuleEntry, STORED_RULES_MAX, StoredRule, Suspension, VERSION_BYTES_MAX, VERSIONS_MAX, Version,
    member_changes,
};
pub(crate) use sample::{SampleMessage, SampleProperties};
pub use schema::rule_schema;
pub use topic_index::TopicIndex;
