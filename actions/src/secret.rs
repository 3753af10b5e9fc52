//! A text that no message, log line or printed configuration may repeat.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize, Serializer};

/// What stands in its place wherever it is shown.
const HIDDEN: &str = "(secret)";
/// What is shown of a foreign text that repeats a secret.
pub(crate) const HIDDEN_ANSWER: &str = "(it repeats a secret)";
/// Characters of a secret by which a text that repeats it is recognised: the text may be cut in the middle of it.
const RECOGNISED_BY_CHARS: usize = 12;

/// A password, token or key. It is read like a text, shown as `(secret)`, and used only through [`Secret::expose`].
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The text itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// Whether a foreign text repeats a secret.
pub(crate) fn repeats(text: &str, secret: &str) -> bool {
    let beginning = secret.char_indices().nth(RECOGNISED_BY_CHARS).map_or(secret.len(), |(at, _)| at);
    secret.get(..beginning).is_some_and(|beginning| !beginning.is_empty() && text.contains(beginning))
}

impl JsonSchema for Secret {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Secret".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string" })
    }
}

impl<T: Into<String>> From<T> for Secret {
    fn from(text: T) -> Self {
        Self(text.into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(HIDDEN)
    }
}
