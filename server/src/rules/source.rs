//! Where in a rule file something stands, for faults and doubts.

use std::ops::Range;
use std::path::Path;

use rules_sql::CompileError;

use super::error::RuleFileError;

/// A text with its path, to say where something stands.
pub(super) struct Source<'a> {
    pub(super) file: &'a Path,
    pub(super) text: &'a str,
}

impl Source<'_> {
    pub(super) fn fault(&self, span: &Range<usize>, message: impl Into<String>) -> RuleFileError {
        RuleFileError::of_file(self.file, message).at(self.place(span.start))
    }

    pub(super) fn toml(&self, error: &toml::de::Error) -> RuleFileError {
        self.toml_in(error, &(0..0))
    }

    pub(super) fn toml_in(&self, error: &toml::de::Error, within: &Range<usize>) -> RuleFileError {
        self.fault(&error.span().unwrap_or_else(|| within.clone()), error.message())
    }

    /// A fault, or a doubt, of SQL that is the string value at `span`; `prefix` says which.
    pub(super) fn compile_fault(
        &self,
        span: &Range<usize>,
        prefix: &str,
        error: &CompileError,
        rendered: String,
    ) -> RuleFileError {
        let mut fault = self.fault(span, format!("{prefix}{}", compile_message(error)));
        fault = fault.at(self.inside(span, error.line, error.column));
        fault.code = Some(error.code);
        // Its first line says what the message says.
        fault.detail = rendered.split_once('\n').map(|(_, marked)| marked.to_owned());
        fault
    }

    /// Line and column, from 1, of a byte offset.
    pub(super) fn place(&self, offset: usize) -> (usize, usize) {
        let before = self.text.get(..offset).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let column = before.get(line_start..).map_or(0, |line| line.chars().count());
        (before.matches('\n').count() + 1, column + 1)
    }

    /// Line and column in the file of a byte offset into the string value at `span`; exact where [`Self::inside`] is.
    pub(super) fn inside_at(&self, span: &Range<usize>, value: &str, offset: usize) -> (usize, usize) {
        let (line, column) = Source { file: self.file, text: value }.place(offset);
        self.inside(span, line, column)
    }

    /// Line and column in the file of a line and column inside the string value at `span`.
    ///
    /// Exact for literal strings and for those without escapes. Escapes shorten what they stand for, so that the column
    /// can be too small by some characters on their line.
    fn inside(&self, span: &Range<usize>, line: usize, column: usize) -> (usize, usize) {
        let raw = self.text.get(span.clone()).unwrap_or_default();
        let (first_line, first_column) = self.place(span.start);
        let quotes = if raw.starts_with("'''") || raw.starts_with("\"\"\"") { 3 } else { 1 };
        let body = raw.get(quotes..).unwrap_or_default();
        // A line break right behind the opening quotes isn't part of the value.
        if quotes == 3 && (body.starts_with('\n') || body.starts_with("\r\n")) {
            return (first_line + line, column);
        }
        match line {
            0 | 1 => (first_line, first_column + quotes + column.saturating_sub(1)),
            _ => (first_line + line - 1, column),
        }
    }
}

fn compile_message(error: &CompileError) -> String {
    let hint = error.hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default();
    format!("[{}] {}{hint}", error.code, error.message)
}
