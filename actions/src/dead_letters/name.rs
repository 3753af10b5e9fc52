//! What a dead letter is called: `rule/action:position`.

use std::fmt;
use std::str::FromStr;

/// A dead letter's name. It is the letter's for as long as it is there, and no other letter of the store ever gets it.
/// Names are ordered by action, and by age within one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LetterName {
    outbox: String,
    position: u64,
}

/// A text is no dead letter's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected the name of a dead letter, rule/action:number")]
pub struct LetterNameError;

impl LetterName {
    /// The letter that has this place among those of `outbox`, `rule/action`.
    pub(crate) fn new(outbox: &str, position: u64) -> Self {
        Self { outbox: outbox.to_owned(), position }
    }

    /// The outbox of its action, `rule/action`.
    #[must_use]
    pub fn outbox(&self) -> &str {
        &self.outbox
    }

    /// Its place among the letters of its action, from 1.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Its rule.
    #[must_use]
    pub fn rule(&self) -> &str {
        rule_and_action(&self.outbox).0
    }

    /// Its action's name in the rule.
    #[must_use]
    pub fn action(&self) -> &str {
        rule_and_action(&self.outbox).1
    }
}

/// The two parts of an outbox's name.
pub(crate) fn rule_and_action(outbox: &str) -> (&str, &str) {
    outbox.split_once('/').unwrap_or((outbox, ""))
}

impl fmt::Display for LetterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.outbox, self.position)
    }
}

impl FromStr for LetterName {
    type Err = LetterNameError;

    fn from_str(text: &str) -> Result<Self, LetterNameError> {
        let (outbox, position) = text.rsplit_once(':').ok_or(LetterNameError)?;
        let (rule, action) = outbox.split_once('/').ok_or(LetterNameError)?;
        let is_plain = |part: &str| {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
        };
        // As it is printed and in no other way, so that no sign and no leading zero.
        let is_number = position.bytes().all(|b| b.is_ascii_digit()) && !position.starts_with('0');
        if !is_plain(rule) || !is_plain(action) || !is_number {
            return Err(LetterNameError);
        }
        Ok(Self::new(outbox, position.parse().map_err(|_| LetterNameError)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_as_it_is_printed() {
        for text in ["overheat/ops:1", "a/b:18446744073709551615", "A-1/b_2:20"] {
            let name: LetterName = text.parse().unwrap();
            assert_eq!(name.to_string(), text);
        }
        let name: LetterName = "overheat/ops:12".parse().unwrap();
        assert_eq!(
            (name.outbox(), name.rule(), name.action(), name.position()),
            ("overheat/ops", "overheat", "ops", 12)
        );
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in [
            "",
            "overheat",
            "overheat/ops",
            "overheat/ops:",
            "overheat/ops:0",
            "overheat/ops:01",
            "overheat/ops:+1",
            "overheat/ops:-1",
            "overheat/ops:18446744073709551616",
            "overheat:1",
            "/ops:1",
            "overheat/:1",
            "a/b/c:1",
            "a b/c:1",
            "a/b:1:2",
            "ä/b:1",
        ] {
            assert_eq!(text.parse::<LetterName>(), Err(LetterNameError), "{text}");
        }
    }

    #[test]
    fn names_are_ordered_by_action_and_number() {
        let name = |text: &str| text.parse::<LetterName>().unwrap();
        assert!(name("a/b:9") < name("a/b:10"));
        assert!(name("a/b:10") < name("a/c:1"));
    }
}
