//! What is wrong with a configuration, said so that it can be mended: place, fault, what was expected, a suggestion.

use std::fmt;
use std::path::PathBuf;

use super::source::{Origin, Place};

/// How many faults are reported in one go.
pub const MAX_ERRORS: usize = 20;

/// Why a configuration is refused: one fault or several.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigErrors {
    /// The file can't be read.
    #[error("{} can't be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file was read and has faults.
    #[error("{}", first_line(faults))]
    Faults {
        /// The faults, in the order of their places in the file; never empty.
        faults: Vec<ConfigError>,
    },
}

impl ConfigErrors {
    /// All faults as text of several lines, each with the line it is about.
    pub fn render(&self) -> String {
        match self {
            Self::Read { source, .. } => format!("error: {self}: {source}\n"),
            Self::Faults { faults } => faults.iter().map(ConfigError::render).collect::<Vec<_>>().join("\n"),
        }
    }

    /// The faults that have a place; none if the file couldn't be read.
    pub fn faults(&self) -> &[ConfigError] {
        match self {
            Self::Read { .. } => &[],
            Self::Faults { faults } => faults,
        }
    }
}

fn first_line(faults: &[ConfigError]) -> String {
    match faults {
        [] => "the configuration is refused".to_owned(),
        [only] => only.to_string(),
        [first, rest @ ..] => format!("{first} (and {} more)", rest.len()),
    }
}

/// One fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    pub(super) place: Option<Box<Place>>,
    pub(super) message: String,
    pub(super) help: Option<String>,
}

impl ConfigError {
    /// What is wrong: lower case, without place.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What to do about it.
    pub fn help(&self) -> Option<&str> {
        self.help.as_deref()
    }

    /// Line and column in a file, from 1; `None` when a variable or a flag is to blame.
    pub fn line_column(&self) -> Option<(usize, usize)> {
        let place = self.place.as_ref()?;
        matches!(place.origin, Origin::File(_)).then_some((place.line, place.column))
    }

    /// The file, variable or flag, as it is printed.
    pub fn origin(&self) -> Option<String> {
        self.place.as_ref().map(|place| match &place.origin {
            Origin::File(path) => path.display().to_string(),
            Origin::Variable(name) => format!("environment variable {name}"),
            Origin::Flag(key) => format!("flag --set {key}"),
            Origin::Defaults => "built-in defaults".to_owned(),
        })
    }

    /// Several lines: the fault, the line of the file with a mark under the place, the suggestion. Ends with a newline.
    pub fn render(&self) -> String {
        let mut out = format!("error: {}\n", self.head());
        if let Some(place) = self.place.as_ref().filter(|place| !place.text.is_empty()) {
            let number = place.line.to_string();
            let gutter = " ".repeat(number.len());
            let indent = indent_of(&place.text, place.column);
            let mark = "^".repeat(place.width);
            out.push_str(&format!("{gutter} |\n{number} | {}\n{gutter} | {indent}{mark}\n", place.text));
        }
        if let Some(help) = &self.help {
            out.push_str(&format!("  help: {help}\n"));
        }
        out
    }

    fn head(&self) -> String {
        match (self.origin(), self.line_column()) {
            (Some(origin), Some((line, column))) => format!("{origin}:{line}:{column}: {}", self.message),
            (Some(origin), None) => format!("{origin}: {}", self.message),
            (None, _) => self.message.clone(),
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.head())?;
        match &self.help {
            Some(help) => write!(f, "; {help}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for ConfigError {}

/// What stands before the mark: tabs stay tabs, so that the mark lines up.
fn indent_of(line: &str, column: usize) -> String {
    line.chars().take(column - 1).map(|c| if c == '\t' { '\t' } else { ' ' }).collect()
}
