//! One fault of what was read: for people in a line, for programs member by member.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::config::{ConfigError, ConfigErrors};
use crate::rules::RuleFileError;

/// What is wrong, and where.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Fault {
    /// The file, variable or flag.
    pub origin: Option<String>,
    /// Line in the file, from 1.
    pub line: Option<usize>,
    /// Column in characters, from 1.
    pub column: Option<usize>,
    /// The rule that it lies in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// The action that it lies in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// The code of SQL's faults.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// What is wrong, and what was expected.
    pub message: String,
    /// What to do about it; of a rule's statement, the text with the fault marked.
    pub help: Option<String>,
}

impl Fault {
    /// A fault without a place of its own.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), ..Self::default() }
    }

    /// The faults of a configuration, of one that can't be read too.
    pub fn of_config(errors: &ConfigErrors) -> Vec<Self> {
        match errors {
            ConfigErrors::Faults { faults } => faults.iter().map(Self::from).collect(),
            unread @ ConfigErrors::Read { .. } => vec![Self::new(crate::cli::chain(unread))],
        }
    }
}

impl From<&ConfigError> for Fault {
    fn from(error: &ConfigError) -> Self {
        Self {
            origin: error.origin(),
            line: error.line_column().map(|(line, _)| line),
            column: error.line_column().map(|(_, column)| column),
            message: error.message().to_owned(),
            help: error.help().map(str::to_owned),
            ..Self::default()
        }
    }
}

impl From<&RuleFileError> for Fault {
    fn from(error: &RuleFileError) -> Self {
        Self {
            origin: Some(error.file.display().to_string()),
            line: error.line,
            column: error.column,
            rule: error.rule.clone(),
            action: error.action.clone(),
            code: error.code.map(str::to_owned),
            message: error.message.clone(),
            help: error.detail.clone(),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(origin) = &self.origin {
            f.write_str(origin)?;
            if let Some(line) = self.line {
                write!(f, ":{line}")?;
                if let Some(column) = self.column {
                    write!(f, ":{column}")?;
                }
            }
            f.write_str(": ")?;
        }
        if let Some(rule) = &self.rule {
            write!(f, "rule \"{rule}\"")?;
            if let Some(action) = &self.action {
                write!(f, ", action \"{action}\"")?;
            }
            f.write_str(": ")?;
        }
        f.write_str(&self.message)?;
        // What is for a terminal has several lines.
        match self.help.as_deref().filter(|help| !help.contains('\n')) {
            Some(help) => write!(f, "; {help}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Environment, load_text};
    use crate::rules::RuleSet;

    #[test]
    fn a_fault_reads_as_what_it_was_made_from() {
        let path = Path::new("t.toml");
        let text = "[limits]\nrecieve_maximum = 3\nmax_inflight = 0\n";
        let errors = load_text(text, Some(path), &Environment::default()).unwrap_err();
        let faults = Fault::of_config(&errors);
        let said: Vec<String> = errors.faults().iter().map(ToString::to_string).collect();
        assert_eq!(faults.iter().map(ToString::to_string).collect::<Vec<_>>(), said);
        assert_eq!((faults[0].line, faults[0].column), (Some(2), Some(1)));
        assert!(faults[0].help.as_deref().is_some_and(|help| help.contains("receive_maximum")));

        let rules = "[rules.x]\nsql = 'SELEC'\n[[rules.x.actions]]\nname = 'a'\ntype = 'log'\n";
        let limits = rules_sql::Limits::default();
        let errors = RuleSet::from_texts([(path, rules)], &limits).unwrap_err();
        let fault = Fault::from(&errors[0]);
        assert_eq!(fault.to_string(), errors[0].to_string());
        assert_eq!((fault.rule.as_deref(), fault.code.as_deref()), (Some("x"), errors[0].code));
    }

    #[test]
    fn a_file_that_cannot_be_read_is_one_fault() {
        let missing = Path::new("/nowhere/tidegate.toml");
        let errors = crate::config::load(Some(missing), &Environment::default()).unwrap_err();
        let faults = Fault::of_config(&errors);
        assert_eq!((faults.len(), &faults[0].origin), (1, &None));
        assert!(faults[0].message.contains("/nowhere/tidegate.toml can't be read: "), "{}", faults[0]);
    }
}
