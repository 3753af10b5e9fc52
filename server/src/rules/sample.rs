//! A message that nobody sent, with everything that a rule may ask about.
//!
//! Its properties are encoded and read back as those of a live message are, so what MQTT does not allow is refused here too.

use std::net::IpAddr;

use mqtt_protocol::{PublishProperties, QoS, UserPropertiesBuf, validate_topic_name};
use rules_sql::Event;

use super::message::Properties;

/// MQTT 5 properties of a message.
#[derive(Debug, Clone, Default)]
pub(crate) struct SampleProperties {
    /// Content Type.
    pub(crate) content_type: Option<String>,
    /// Response Topic.
    pub(crate) response_topic: Option<String>,
    /// Correlation Data.
    pub(crate) correlation_data: Option<Vec<u8>>,
    /// Payload Format Indicator; true: UTF-8 text.
    pub(crate) payload_format_indicator: Option<bool>,
    /// Message Expiry Interval in seconds. No rule can read it.
    pub(crate) message_expiry_interval_s: Option<u32>,
    /// User Properties in order, repeats included.
    pub(crate) user_properties: Vec<(String, String)>,
}

impl SampleProperties {
    /// Encodes what a broker hands on.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, String> {
        let mut user_properties = UserPropertiesBuf::new();
        for (name, value) in &self.user_properties {
            user_properties
                .push(name, value)
                .map_err(|error| format!("user property \"{name}\": {error}"))?;
        }
        let properties = PublishProperties {
            content_type: self.content_type.as_deref(),
            response_topic: self.response_topic.as_deref(),
            correlation_data: self.correlation_data.as_deref(),
            payload_format_indicator: self.payload_format_indicator,
            message_expiry_interval_s: self.message_expiry_interval_s,
            user_properties: user_properties.as_properties(),
            ..PublishProperties::default()
        };
        let mut encoded = Vec::new();
        properties.append_forward(&mut encoded).map_err(|error| error.to_string())?;
        PublishProperties::from_encoded(&encoded).map_err(|error| error.to_string())?;
        Ok(encoded)
    }
}

/// A message for rules to be tried on.
#[derive(Debug, Clone, Default)]
pub(crate) struct SampleMessage {
    /// Topic Name of the PUBLISH.
    pub(crate) topic: String,
    /// Application payload.
    pub(crate) payload: Vec<u8>,
    /// Client Identifier of the publisher.
    pub(crate) client_id: Option<String>,
    /// User name of the publisher.
    pub(crate) username: Option<String>,
    /// Address of the publisher.
    pub(crate) source_ip: Option<IpAddr>,
    /// Name of the listener it came through.
    pub(crate) listener: Option<String>,
    /// QoS of the PUBLISH.
    pub(crate) qos: QoS,
    /// RETAIN of the PUBLISH.
    pub(crate) retain: bool,
    /// What [`SampleProperties::encode`] gave.
    pub(crate) properties: Vec<u8>,
}

impl SampleMessage {
    /// Says why the topic is no Topic Name, if it is none.
    pub(crate) fn check_topic(&self) -> Result<(), String> {
        validate_topic_name(&self.topic).map_err(|error| format!("topic \"{}\": {error}", self.topic))
    }

    /// Returns the encoded properties in the form that [`Self::event`] takes.
    pub(crate) fn properties(&self) -> impl rules_sql::EventProperties + '_ {
        Properties(&self.properties)
    }

    /// The message as the SQL engine takes it, received at that time.
    pub(crate) fn event<'a>(
        &'a self,
        properties: &'a dyn rules_sql::EventProperties,
        now_ms: i64,
        trace_id: u128,
    ) -> Event<'a> {
        Event {
            client_id: self.client_id.as_deref(),
            username: self.username.as_deref(),
            principal: self.username.as_deref(),
            source_ip: self.source_ip.map(|address| address.to_canonical()),
            listener: self.listener.as_deref(),
            qos: self.qos.level(),
            retain: self.retain,
            trace_id: Some(trace_id),
            now_ms,
            properties,
            ..Event::new(&self.topic, &self.payload)
        }
    }
}
