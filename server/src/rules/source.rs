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

    /// Line and column in the file of a byte offset into the string value at `span`.
    pub(super) fn inside_at(&self, span: &Range<usize>, value: &str, offset: usize) -> (usize, usize) {
        let (line, column) = Source { file: self.file, text: value }.place(offset);
        self.inside(span, line, column)
    }

    /// Line and column in the file of a line and column inside the string value at `span`, whatever its quotes and escapes.
    fn inside(&self, span: &Range<usize>, line: usize, column: usize) -> (usize, usize) {
        let raw = self.text.get(span.clone()).unwrap_or_default();
        let quotes = if raw.starts_with("'''") || raw.starts_with("\"\"\"") { 3 } else { 1 };
        let has_escapes = raw.starts_with('"');
        let mut rest = raw.get(quotes..).unwrap_or_default();
        // A line break right behind the opening quotes isn't part of the value.
        if quotes == 3 {
            rest = rest.strip_prefix("\r\n").or_else(|| rest.strip_prefix('\n')).unwrap_or(rest);
        }
        let mut at = (1, 1);
        while at < (line, column) {
            let (written, char) = match if has_escapes { escape(rest) } else { None } {
                Some(escape) => escape,
                None => match rest.chars().next() {
                    Some(char) => (char.len_utf8(), Some(char)),
                    None => break,
                },
            };
            // The place may be a line's end that the fault counts and the value doesn't have.
            if char == Some('\n') && at.0 == line {
                break;
            }
            at = match char {
                Some('\n') => (at.0 + 1, 1),
                Some(_) => (at.0, at.1 + 1),
                None => at,
            };
            rest = rest.get(written..).unwrap_or_default();
        }
        // What is escaped to nothing stands before the place, not behind it.
        while let Some((written, None)) = if has_escapes { escape(rest) } else { None } {
            rest = rest.get(written..).unwrap_or_default();
        }
        self.place(span.start + raw.len() - rest.len())
    }
}

/// An escape of a basic string that `text` begins with: its bytes and the character it stands for, none for a line break
/// that is escaped away with the white space behind it.
fn escape(text: &str) -> Option<(usize, Option<char>)> {
    let after = text.strip_prefix('\\')?;
    let kind = after.chars().next()?;
    let digits = match kind {
        'x' => 2,
        'u' => 4,
        'U' => 8,
        'n' => return Some((2, Some('\n'))),
        kind if kind.is_ascii_whitespace() => return Some((text.len() - after.trim_start().len(), None)),
        // Which character it is makes no difference to the places behind it.
        kind => return Some((1 + kind.len_utf8(), Some(kind))),
    };
    let code = after.get(1..1 + digits).and_then(|digits| u32::from_str_radix(digits, 16).ok());
    Some((2 + digits, Some(code.and_then(char::from_u32).unwrap_or(char::REPLACEMENT_CHARACTER))))
}

fn compile_message(error: &CompileError) -> String {
    let hint = error.hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default();
    format!("[{}] {}{hint}", error.code, error.message)
}
