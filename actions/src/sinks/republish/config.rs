//! The keys of `type = "republish"`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A number or truth value, written as itself or as a template.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected a number, true, false, or a template such as \"${qos()}\"")]
pub enum Scalar {
    /// A whole number.
    Integer(i64),
    /// A truth value.
    Boolean(bool),
    /// A template.
    Template(String),
}

/// `type = "republish"`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RepublishConfig {
    /// The action's name, unique in its rule.
    #[serde(default)]
    pub name: String,
    /// Template of the Topic Name. A leading `$$` stands for `$`.
    pub topic: String,
    /// Template of the payload. Default: the rule's output.
    pub payload: Option<String>,
    /// Quality of service, 0 to 2, or a template. Default 0.
    #[serde(default = "zero")]
    pub qos: Scalar,
    /// Whether the message is retained, or a template. Default false.
    #[serde(default = "no")]
    pub retain: Scalar,
    /// User properties: names are literal, values are templates.
    #[serde(default)]
    pub user_properties: BTreeMap<String, String>,
    /// Template of the Content Type.
    pub content_type: Option<String>,
    /// Template of the Response Topic.
    pub response_topic: Option<String>,
    /// Template of the Correlation Data, in base64.
    pub correlation_data: Option<String>,
    /// Payload Format Indicator: true promises UTF-8, and other payloads then fail; or a template. Default: not sent.
    pub payload_format_indicator: Option<Scalar>,
    /// Message Expiry Interval in seconds, 0 to 4,294,967,295, or a template. Default: none.
    pub message_expiry_interval: Option<Scalar>,
}

const fn zero() -> Scalar {
    Scalar::Integer(0)
}

const fn no() -> Scalar {
    Scalar::Boolean(false)
}
