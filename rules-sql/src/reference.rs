//! What the library knows about itself, as plain data: the codes of its faults and the functions.
//!
//! The pages of the manual are made from it, and whatever helps someone write a rule can be. It reads the tables that
//! the checker uses, so it cannot say anything else than the checker does.

use crate::codes;

pub use crate::codes::Severity;

/// One code of errors or warnings.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Code {
    /// `R` and four digits; stable.
    pub code: &'static str,
    /// Whether the text is refused.
    pub severity: Severity,
    /// A few words.
    pub title: &'static str,
    /// What is wrong, in a sentence or two.
    pub meaning: &'static str,
    /// What to do about it.
    pub remedy: &'static str,
    /// A statement or template with this fault.
    pub example: &'static str,
    /// What differs from the defaults in the example: a lowered limit, another dialect.
    pub condition: Option<&'static str>,
    /// The example's fault as it is shown on a terminal.
    pub rendered: String,
}

/// Every code, in order.
#[must_use]
pub fn codes() -> Vec<Code> {
    codes::ALL
        .iter()
        .map(|code| Code {
            code: code.code,
            severity: code.severity,
            title: code.title,
            meaning: code.meaning,
            remedy: code.remedy,
            example: code.text(),
            condition: code.condition(),
            rendered: match code.provoke() {
                Ok(warnings) => warnings.iter().map(|warning| warning.render(code.text())).collect(),
                Err(error) => error.render(code.text()),
            },
        })
        .collect()
}
