//! The message as rules see it: borrowed, cheap to build, free of any broker type.

use std::fmt;
use std::net::IpAddr;

/// One Application Message, as `topic()`, `clientid()` and the payload's fields see it. What is not there is `None`.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    /// Topic Name of the PUBLISH.
    pub topic: &'a str,
    /// Application payload, exactly as received.
    pub payload: &'a [u8],
    /// Client Identifier of the publisher; `None`: the message did not come over MQTT.
    pub client_id: Option<&'a str>,
    /// User name the publisher connected with.
    pub username: Option<&'a str>,
    /// How the publisher proved who it is: certificate fingerprint, else user name.
    pub principal: Option<&'a str>,
    /// Remote address without the port.
    pub source_ip: Option<IpAddr>,
    /// Name of the listener the publisher came through.
    pub listener: Option<&'a str>,
    /// QoS of the PUBLISH, 0 to 2.
    pub qos: u8,
    /// RETAIN of the PUBLISH.
    pub retain: bool,
    /// Identifies the message in traces; the same for every rule.
    pub trace_id: Option<u128>,
    /// What `accountid()` answers.
    pub account_id: Option<&'a str>,
    /// Milliseconds since the Unix epoch; the same throughout one message.
    pub now_ms: i64,
    /// MQTT 5 properties of the PUBLISH.
    pub properties: &'a dyn EventProperties,
}

impl<'a> Event<'a> {
    /// A message at QoS 0 at the epoch of which only the Topic Name and the payload are known. Set the other fields afterwards.
    #[must_use]
    pub fn new(topic: &'a str, payload: &'a [u8]) -> Self {
        Event {
            topic,
            payload,
            client_id: None,
            username: None,
            principal: None,
            source_ip: None,
            listener: None,
            qos: 0,
            retain: false,
            trace_id: None,
            account_id: None,
            now_ms: 0,
            properties: &NoProperties,
        }
    }
}

/// The MQTT 5 properties of a PUBLISH that rules can read [MQTT 5.0 §3.3.2.3].
pub trait EventProperties: fmt::Debug {
    /// Content Type.
    fn content_type(&self) -> Option<&str> {
        None
    }
    /// Response Topic.
    fn response_topic(&self) -> Option<&str> {
        None
    }
    /// Correlation Data.
    fn correlation_data(&self) -> Option<&[u8]> {
        None
    }
    /// Payload Format Indicator: `Some(true)` is UTF-8 text, `Some(false)` unspecified bytes.
    fn payload_is_utf8(&self) -> Option<bool> {
        None
    }
    /// Calls `visit` with name and value of each User Property, in order, repeats included.
    fn for_each_user_property(&self, _visit: &mut dyn FnMut(&str, &str)) {}
}

/// A message without properties: MQTT 3.1.1, or an internal one.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoProperties;

impl EventProperties for NoProperties {}
