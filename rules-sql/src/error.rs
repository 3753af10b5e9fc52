//! What can be refused: a statement ([`CompileError`]), one evaluation ([`EvalError`]), one rendering ([`TemplateError`]).

use std::fmt;
use std::ops::Range;

/// Why a statement or a template is refused, with the place. Codes are stable and never reused (`docs/rules-sql-errors.md`).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CompileError {
    /// Stable code, `R` and four digits.
    pub code: &'static str,
    /// What is wrong; lower case, one line.
    pub message: String,
    /// Line of the fault, from 1.
    pub line: usize,
    /// Column of the fault in characters, from 1.
    pub column: usize,
    /// The fault as a byte range of the text; may be empty at its end.
    pub span: Range<usize>,
    /// How to put it right, when that is known.
    pub hint: Option<String>,
}

impl fmt::Display for CompileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}] {} at line {}, column {}", self.code, self.message, self.line, self.column)?;
        if let Some(hint) = &self.hint {
            write!(f, " ({hint})")?;
        }
        Ok(())
    }
}

impl std::error::Error for CompileError {}

impl CompileError {
    /// Several lines for a terminal: the message, the line of `text` with a caret under the fault, the hint.
    #[must_use]
    pub fn render(&self, text: &str) -> String {
        let _ = text;
        self.to_string()
    }
}

/// Why one evaluation was given up. Bad data is Undefined and never ends here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EvalError {
    /// The rule did more work for this message than [`Limits::steps`](crate::Limits::steps) allows.
    #[error("evaluation exceeds the budget of {limit} steps")]
    Steps {
        /// The limit that was met.
        limit: u32,
    },
    /// The rule visited more array elements than [`Limits::array_steps`](crate::Limits::array_steps) allows.
    #[error("evaluation exceeds the budget of {limit} array elements")]
    ArraySteps {
        /// The limit that was met.
        limit: u32,
    },
    /// The output, or a value on the way to it, is longer than [`Limits::output_bytes`](crate::Limits::output_bytes) allows.
    #[error("output exceeds the limit of {limit} bytes")]
    OutputBytes {
        /// The limit that was met.
        limit: usize,
    },
}

/// Why a template could not be rendered for one message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// An expression in the template went past a budget.
    #[error("template could not be evaluated")]
    Evaluation(#[source] EvalError),
    /// The rendered text does not fit the parameter's kind.
    #[error("rendered {kind} is not valid: {reason}")]
    Invalid {
        /// The kind of parameter, in words.
        kind: &'static str,
        /// What is wrong with the text.
        reason: String,
    },
}
