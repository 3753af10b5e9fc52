//! Why rules aren't changed.

use std::io;
use std::path::PathBuf;

use crate::rules::error::RuleFileError;
use crate::rules::pipeline::PipelineError;

/// Why rules stay as they are.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BookError {
    /// No rule has the name.
    #[error("no rule is named \"{rule}\"")]
    Unknown {
        /// The name.
        rule: String,
    },
    /// A file owns the rule.
    #[error(
        "rule \"{rule}\" belongs to the file {}: change it there; here it can only be suspended",
        file.display()
    )]
    OfFile {
        /// The rule.
        rule: String,
        /// Its file.
        file: PathBuf,
    },
    /// The store owns the rule, and only rules of files are suspended.
    #[error("rule \"{rule}\" belongs to the store: disable it instead of suspending it")]
    OfStore {
        /// The rule.
        rule: String,
    },
    /// Two rules have one name.
    #[error("rule \"{rule}\" is in {} and in {}: rename one, or take one out", first.display(), second.display())]
    Twice {
        /// The name.
        rule: String,
        /// The file with the one.
        first: PathBuf,
        /// Where the other is kept.
        second: PathBuf,
    },
    /// There is a rule of the name already.
    #[error("a rule named \"{rule}\" is there already, version {version}")]
    Exists {
        /// The name.
        rule: String,
        /// Its version.
        version: u32,
    },
    /// Somebody else has changed the rule.
    #[error("rule \"{rule}\" is at version {version}, not {expected}: somebody has changed it meanwhile")]
    Changed {
        /// The rule.
        rule: String,
        /// Its version.
        version: u32,
        /// The version that the change was made for.
        expected: u32,
    },
    /// The history has no such version, or the rule was gone then.
    #[error("rule \"{rule}\" has no version {version} to go back to")]
    NoVersion {
        /// The rule.
        rule: String,
        /// The version.
        version: u32,
    },
    /// No action has the name.
    #[error("no action is named \"{action}\"")]
    NoAction {
        /// As `rule/action`.
        action: String,
    },
    /// The action sends nothing from a queue.
    #[error("action \"{action}\" has no queue that could be paused, sent or emptied")]
    NoQueue {
        /// As `rule/action`.
        action: String,
    },
    /// The rules have faults.
    #[error("{} rules are refused", .0.len())]
    Refused(Vec<RuleFileError>),
    /// The rules can't be run, or would leave something behind.
    #[error("the rules can't be put in place")]
    Pipeline(#[from] PipelineError),
    /// There would be too many.
    #[error("{count} rules in the store, more than the limit of {limit}")]
    TooMany {
        /// How many.
        count: usize,
        /// The limit.
        limit: usize,
    },
    /// What was decided can't be kept.
    #[error("the file of rules {} can't be read or written", path.display())]
    Journal {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// What was kept can't be trusted.
    #[error("the file of rules {} is damaged in line {line}: {problem}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        problem: String,
    },
}

impl BookError {
    /// Every fault, one text each.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        match self {
            Self::Refused(faults) => faults.iter().map(ToString::to_string).collect(),
            other => vec![crate::cli::chain(other)],
        }
    }
}
