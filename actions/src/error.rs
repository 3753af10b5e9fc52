//! What can be wrong with an action: when it is made, and when one message is rendered for it.

use mqtt_protocol::TopicError;

/// An action that can't be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ActionConfigError {
    /// The action's name is missing or has characters that don't fit metrics, keys and file names.
    #[error("action name \"{name}\": expected 1 to {max} letters, digits, \"-\" or \"_\"")]
    Name {
        /// The name as given.
        name: String,
        /// Most characters of a name.
        max: usize,
    },
    /// One setting has a value that can't work.
    #[error("action \"{action}\", {field}: {problem}")]
    Field {
        /// Name of the action.
        action: String,
        /// The key, as in the configuration; `headers.X-Site` for one header.
        field: String,
        /// What is wrong and what was expected.
        problem: String,
    },
}

impl ActionConfigError {
    /// Returns the key that is at fault.
    #[must_use]
    pub fn field(&self) -> &str {
        match self {
            Self::Name { .. } => "name",
            Self::Field { field, .. } => field,
        }
    }

    pub(crate) fn field_error(action: &str, field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Field { action: action.to_owned(), field: field.into(), problem: problem.into() }
    }
}

/// A message for which an action's request can't be built. It is never sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RenderError {
    /// The template itself failed.
    #[error("template of {field} failed: {problem}")]
    Template {
        /// The key whose template failed.
        field: String,
        /// The evaluator's words.
        problem: String,
    },
    /// A rendered topic is no Topic Name.
    #[error("{field} was rendered to \"{topic}\", which is no topic name")]
    Topic {
        /// The key that holds the topic.
        field: String,
        /// What came out, shortened and escaped.
        topic: String,
        /// Why it is none.
        source: TopicError,
    },
    /// A rendered topic begins with `$` though the template's own text doesn't.
    #[error(
        "{field} was rendered to \"{topic}\"; a topic that begins with \"$\" must do so in the template's own text (\"$$…\")"
    )]
    ReservedTopic {
        /// The key that holds the topic.
        field: String,
        /// What came out, shortened and escaped.
        topic: String,
    },
    /// A rendered text isn't UTF-8 where it must be.
    #[error("{field} was rendered to bytes that are not UTF-8")]
    NotUtf8 {
        /// The key.
        field: String,
    },
    /// A rendered text can't be a header value, method, number, truth value or base64 text.
    #[error("{field} was rendered to a value that does not fit: {problem}")]
    Value {
        /// The key.
        field: String,
        /// What was expected. Holds no rendered text, which may be secret.
        problem: String,
    },
    /// A rendered URL can't be used.
    #[error("url was rendered to something that does not fit: {problem}")]
    Url {
        /// What was expected. Holds no rendered text, which may be secret.
        problem: String,
    },
    /// A rendered value is larger than its limit.
    #[error("{field} was rendered to {bytes} bytes, more than the limit of {limit}")]
    TooLarge {
        /// The key.
        field: String,
        /// Size that came out.
        bytes: usize,
        /// Limit in bytes.
        limit: usize,
    },
}
