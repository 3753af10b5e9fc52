//! Cases: tests of rules kept as data, one rule and one message in, one outcome out.
//!
//! - `json.rs`: JSON whose numbers keep their text;
//! - `model.rs`: one case, every field of it known and judged;
//! - `read.rs`: case files, and which of them an argument stands for;
//! - `book.rs`: the rules that a case may call by name;
//! - `run.rs`: a case through the compiler, the evaluation and the templates that live messages go through;
//! - `compare.rs`, `verdict.rs`: what came against what was expected;
//! - `report.rs`: a verdict as a line of JSON.
//!
//! Nothing here decides what a rule means: that is the engine's, and a case that passes here passes for a live message.
//! What a case gets wrong about itself, a field that nobody knows above all, fails that case: it never tests less than
//! it says. docs/testing-rules.md describes the format.

mod book;
mod compare;
mod json;
mod model;
mod read;
mod report;
mod run;
#[cfg(test)]
mod tests;
mod verdict;

pub(crate) use book::{Book, Shelf};
pub(crate) use read::{CaseFile, case_files, parse as parse_cases, read_cases};
pub(crate) use report::line;
pub(crate) use run::{Runner, Verdict};
