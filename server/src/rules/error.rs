//! What is wrong with a rule file, or doubtful in it, and where.

use std::fmt;
use std::path::{Path, PathBuf};

/// One fault in a rule file, in words that name the place and what was expected; as a warning, what is allowed there but
/// hardly meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleFileError {
    /// The file, or the folder when it can't be read.
    pub file: PathBuf,
    /// Line of the fault, from 1, when it has one.
    pub line: Option<usize>,
    /// Column of the fault in characters, from 1, when it has one.
    pub column: Option<usize>,
    /// Name of the rule, when the fault lies in one.
    pub rule: Option<String>,
    /// Name of the action, when the fault lies in one.
    pub action: Option<String>,
    /// The code of SQL's faults and doubts, which the message begins with.
    pub code: Option<&'static str>,
    /// What is wrong and what was expected.
    pub message: String,
    /// The text with the fault marked, when it helps: several lines, for a terminal.
    pub detail: Option<String>,
}

impl RuleFileError {
    pub(super) fn of_file(file: &Path, message: impl Into<String>) -> Self {
        Self {
            file: file.to_owned(),
            line: None,
            column: None,
            rule: None,
            action: None,
            code: None,
            message: message.into(),
            detail: None,
        }
    }

    pub(super) fn at(mut self, (line, column): (usize, usize)) -> Self {
        self.line = Some(line);
        self.column = Some(column);
        self
    }

    pub(super) fn in_rule(mut self, rule: &str) -> Self {
        self.rule = Some(rule.to_owned());
        self
    }

    pub(super) fn in_action(mut self, action: &str) -> Self {
        if !action.is_empty() {
            self.action = Some(action.to_owned());
        }
        self
    }
}

impl fmt::Display for RuleFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
            if let Some(column) = self.column {
                write!(f, ":{column}")?;
            }
        }
        f.write_str(": ")?;
        if let Some(rule) = &self.rule {
            write!(f, "rule \"{rule}\"")?;
            if let Some(action) = &self.action {
                write!(f, ", action \"{action}\"")?;
            }
            f.write_str(": ")?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for RuleFileError {}
