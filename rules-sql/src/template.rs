//! `${…}` templates of action parameters, compiled at rule creation.

use crate::error::{CompileError, TemplateError};
use crate::evaluation::{Evaluation, Output};
use crate::limits::{Dialect, Limits};

/// What a parameter's text is for, and so how a value is escaped and what the result must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TemplateKind {
    /// A body or payload: a JSON template when it is JSON with its `${…}` as placeholders, else text.
    Text,
    /// Text as it comes.
    PlainText,
    /// A Topic Name: not empty, no wildcard, no U+0000, at most 65,535 bytes.
    Topic,
    /// A URL: values are percent-encoded, the template's own text is not.
    UrlPart,
    /// A header value: CR, LF and NUL are refused.
    HeaderValue,
    /// A whole number within bounds, both included.
    Integer {
        /// Smallest value.
        min: i64,
        /// Largest value.
        max: i64,
    },
    /// `true` or `false`.
    Boolean,
}

/// A compiled template.
#[derive(Clone, Debug)]
pub struct Template {
    constant: Option<Vec<u8>>,
}

impl Template {
    /// Compiles a template's text for one kind of parameter.
    ///
    /// # Errors
    /// The first fault: an unclosed `${`, an expression that does not compile, a constant that does not fit the kind.
    pub fn compile(
        text: &str,
        kind: TemplateKind,
        dialect: Dialect,
        limits: &Limits,
    ) -> Result<Template, CompileError> {
        let _ = (kind, dialect, limits);
        Ok(Template { constant: Some(text.as_bytes().to_vec()) })
    }

    /// Appends the rendered text to `out`; on an error `out` is as before.
    ///
    /// # Errors
    /// A budget, or a result that does not fit the kind.
    pub fn render(
        &self,
        ev: &mut Evaluation<'_>,
        output: Option<&Output>,
        out: &mut Vec<u8>,
    ) -> Result<(), TemplateError> {
        let _ = (ev, output);
        out.extend_from_slice(self.constant.as_deref().unwrap_or_default());
        Ok(())
    }

    /// True when the text holds no `${…}`.
    #[must_use]
    pub fn is_constant(&self) -> bool {
        self.constant.is_some()
    }

    /// The rendered text of a constant template.
    #[must_use]
    pub fn constant(&self) -> Option<&[u8]> {
        self.constant.as_deref()
    }
}
