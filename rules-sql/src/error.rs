//! What can be refused: a statement ([`CompileError`]), one evaluation ([`EvalError`]), one rendering ([`TemplateError`]).

use std::fmt;
use std::ops::Range;

use crate::codes::Code;
use crate::syntax::ast::Span;

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
    ///
    /// `text` is what was compiled.
    #[must_use]
    pub fn render(&self, text: &str) -> String {
        self.render_as("error", text)
    }

    fn render_as(&self, word: &str, text: &str) -> String {
        let mut out = format!("{word}[{}]: {}\n", self.code, self.message);
        let line = text.split('\n').nth(self.line - 1).unwrap_or("").trim_end_matches('\r');
        let before: String = line.chars().take(self.column - 1).collect();
        let fault = text.get(self.span.clone()).unwrap_or("");
        // The caret stays on the first line of a fault that goes on.
        let width = fault.split('\n').next().unwrap_or("").trim_end_matches('\r').chars().count().max(1);
        let indent: String = before.chars().map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        out.push_str(&format!("  {line}\n  {indent}{}", "^".repeat(width)));
        if let Some(hint) = &self.hint {
            out.push_str(&format!(" help: {hint}"));
        }
        out.push('\n');
        out
    }

    /// Places a fault in the text it was found in.
    pub(crate) fn new(fault: Fault, text: &str) -> CompileError {
        let start =
            (0..=fault.span.start.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        let before = text.get(..start).unwrap_or("");
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
        CompileError {
            code: fault.code,
            message: fault.message,
            line,
            column,
            span: start..fault.span.end.clamp(start, text.len()),
            hint: fault.hint,
        }
    }
}

/// What is allowed in a statement or a template but hardly meant, with the place. Its code is one of those that
/// [`CompileError::code`] is of, from `R0900` on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning(CompileError);

impl Warning {
    /// Places a doubt in the text that it was found in.
    pub(crate) fn new(fault: Fault, text: &str) -> Warning {
        Warning(CompileError::new(fault, text))
    }

    /// As [`CompileError::render`], with `warning` for `error`.
    #[must_use]
    pub fn render(&self, text: &str) -> String {
        self.0.render_as("warning", text)
    }

    /// Stable code, words, place and hint.
    #[must_use]
    pub fn details(&self) -> &CompileError {
        &self.0
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A fault whose place is known by bytes alone.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(crate) code: &'static str,
    pub(crate) span: Span,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

impl Fault {
    pub(crate) fn new(code: &'static Code, span: Span, message: impl Into<String>) -> Fault {
        Fault { code: code.code, span, message: message.into(), hint: None }
    }

    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Fault {
        self.hint = Some(hint.into());
        self
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
    /// An expression is Undefined where the template says that it may not be.
    #[error("{expression} is Undefined")]
    Undefined {
        /// The expression as written.
        expression: String,
    },
    /// The rendered text does not fit the parameter's kind.
    #[error("rendered {kind} is not valid: {reason}")]
    Invalid {
        /// The kind of parameter, in words.
        kind: &'static str,
        /// What is wrong with the text.
        reason: String,
    },
}
