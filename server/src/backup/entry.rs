//! What the lines of a backup say.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::api::Role;

/// What a backup may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = BackupPart)]
pub enum Part {
    /// Rules that the store owns, and which rules of files are suspended.
    Rules,
    /// Cases that are kept of rules.
    Cases,
    /// Users and tokens of the administration.
    Users,
    /// Retained Messages.
    Retained,
    /// Files of the configuration.
    Files,
}

/// The first line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// [`FORMAT`](super::FORMAT).
    #[serde(rename = "tidegate_backup")]
    pub format: u32,
    /// Version of the gateway that made it.
    pub product: String,
    /// Identity of that gateway's store, in hexadecimal.
    pub store: String,
    /// When it was made, in milliseconds since 1970.
    pub made_at_ms: i64,
    /// What it holds: a part that isn't named says nothing about what there was.
    pub parts: Vec<Part>,
}

/// Every line between the first and the last.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    /// A rule of the store.
    Rule(RuleRecord),
    /// A rule of a file that doesn't run though its file says so.
    Suspended(SuspensionRecord),
    /// Cases of a rule.
    Cases(CasesRecord),
    /// A user of the administration.
    User(UserRecord),
    /// A token of the administration.
    Token(TokenRecord),
    /// A Retained Message.
    Retained(RetainedRecord),
    /// A file of the configuration.
    File(FileRecord),
}

/// A file of the configuration, as it is written: references to secrets stay references.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileRecord {
    /// As in `tidegate.toml`, `conf.d/tls.toml` or `rules.d/alarms.toml`.
    pub name: String,
    /// What is in it.
    pub text: String,
}

/// A rule of the store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleRecord {
    /// Its name.
    pub name: String,
    /// What it says: the keys of `[rules.<name>]`.
    pub definition: Value,
    /// Its version where it comes from; where it is restored it gets a new one.
    pub version: Option<u32>,
    /// Who changed it last there.
    pub author: Option<String>,
    /// When that was, in milliseconds since 1970.
    pub changed_at_ms: Option<i64>,
}

/// A suspended rule of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SuspensionRecord {
    /// Its name.
    pub rule: String,
    /// Who said so.
    pub by: String,
    /// When, in milliseconds since 1970.
    pub at_ms: i64,
}

/// The cases that are kept of a rule, whoever owns it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CasesRecord {
    /// Name of the rule.
    pub rule: String,
    /// As a case file has them.
    pub cases: Vec<Value>,
}

/// A user of the administration.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserRecord {
    /// Its name.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// Argon2id hash of the password.
    pub password_hash: String,
    /// When it was made, in milliseconds since 1970.
    pub created_at_ms: i64,
}

/// A token of the administration.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenRecord {
    /// Its name.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// What it is held to; `None`: whatever its role may.
    pub scopes: Option<Vec<String>>,
    /// SHA-256 of the token, in hexadecimal.
    pub sha256: String,
    /// When it ends, in milliseconds since 1970; `None`: never.
    pub expires_at_ms: Option<i64>,
    /// When it was made.
    pub created_at_ms: i64,
    /// Who made it.
    pub created_by: String,
}

/// A Retained Message.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetainedRecord {
    /// Topic Name.
    pub topic: String,
    /// Payload, in base64.
    #[serde(with = "base64_text")]
    pub payload: Vec<u8>,
    /// 0, 1 or 2.
    pub qos: u8,
    /// When it came, in milliseconds since 1970.
    pub received_at_ms: i64,
    /// When it expires; absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at_ms: Option<i64>,
    /// Client Identifier of whoever left it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publisher: Option<String>,
    /// Who that was, as the store keeps it, in base64.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "base64_text")]
    pub author: Vec<u8>,
    /// Content Type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// Response Topic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_topic: Option<String>,
    /// Correlation Data, in base64.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "base64_option")]
    pub correlation_data: Option<Vec<u8>>,
    /// Whether the payload is said to be UTF-8 text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload_is_text: Option<bool>,
    /// User Properties in order, repeats included.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub user_properties: Vec<(String, String)>,
}

// What proves somebody gets into no log.
impl std::fmt::Debug for UserRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UserRecord").field("name", &self.name).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for FileRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileRecord").field("name", &self.name).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for TokenRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenRecord").field("name", &self.name).finish_non_exhaustive()
    }
}

mod base64_text {
    use base64::Engine as _;
    use base64::prelude::BASE64_STANDARD;
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64_STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        BASE64_STANDARD.decode(text).map_err(|_| D::Error::custom("expected base64"))
    }
}

mod base64_option {
    use serde::{Deserializer, Serializer};

    use super::base64_text;

    pub(super) fn serialize<S: Serializer>(
        bytes: &Option<Vec<u8>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match bytes {
            Some(bytes) => base64_text::serialize(bytes, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Vec<u8>>, D::Error> {
        base64_text::deserialize(deserializer).map(Some)
    }
}

/// The last line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct End {
    /// Lines between the first and this one.
    pub(super) entries: u64,
    /// SHA-256 of every byte before this line, in hexadecimal.
    pub(super) sha256: String,
}

/// Any line but the first.
#[derive(Debug, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
pub(super) enum Line {
    /// The last.
    End {
        /// What it says.
        end: End,
    },
    /// Another.
    Entry(Entry),
}
