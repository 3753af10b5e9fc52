//! Plan and request of a republish.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mqtt_protocol::{QoS, STRING_BYTES_MAX, validate_topic_name};

use super::config::{RepublishConfig, Scalar};
use crate::error::{ActionConfigError, RenderError};
use crate::plan::{Renderer, Slot, TemplateHandle, Templates, is_literal};
use crate::text::excerpt;

/// Most user properties that one republish may add.
const USER_PROPERTIES_MAX: usize = 64;
/// Characters of a rendered topic that an error shows.
const TOPIC_EXCERPT_CHARS: usize = 80;

/// A message to be routed by this broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepublishRequest {
    /// Topic Name: valid, without wildcards.
    pub topic: String,
    /// Payload.
    pub payload: Vec<u8>,
    /// Quality of service.
    pub qos: QoS,
    /// Whether it is to be retained.
    pub retain: bool,
    /// User properties in order; names and values at most 65,535 bytes.
    pub user_properties: Vec<(String, String)>,
    /// Content Type.
    pub content_type: Option<String>,
    /// Response Topic: valid, without wildcards.
    pub response_topic: Option<String>,
    /// Correlation Data, decoded, at most 65,535 bytes.
    pub correlation_data: Option<Vec<u8>>,
    /// Payload Format Indicator; `Some(true)` only if the payload is UTF-8.
    pub payload_format_indicator: Option<bool>,
    /// Message Expiry Interval in seconds.
    pub message_expiry_interval_s: Option<u32>,
}

#[derive(Debug)]
pub(crate) struct RepublishPlan {
    topic: TopicSlot,
    payload: Option<TemplateHandle>,
    qos: Value<QoS>,
    retain: Value<bool>,
    user_properties: Vec<(String, TemplateHandle)>,
    content_type: Option<TemplateHandle>,
    response_topic: Option<TopicSlot>,
    correlation_data: Option<TemplateHandle>,
    payload_format_indicator: Option<Value<bool>>,
    message_expiry_interval_s: Option<Value<u32>>,
}

impl RepublishPlan {
    pub(crate) fn new(
        config: &RepublishConfig,
        templates: &mut Templates,
    ) -> Result<Self, ActionConfigError> {
        let maker = Maker { action: &config.name };
        let topic = maker.topic("topic", &config.topic, templates)?;
        let payload = config.payload.as_ref().map(|text| templates.add("payload", text, Slot::Text));
        let qos = maker.qos(&config.qos, templates)?;
        let retain = maker.boolean("retain", &config.retain, templates)?;
        if config.user_properties.len() > USER_PROPERTIES_MAX {
            return Err(maker.fault(
                "user_properties",
                format!(
                    "{} given, more than the limit of {USER_PROPERTIES_MAX}",
                    config.user_properties.len()
                ),
            ));
        }
        let mut user_properties = Vec::with_capacity(config.user_properties.len());
        for (name, text) in &config.user_properties {
            let field = format!("user_properties.{}", excerpt(name.as_bytes(), 64));
            if name.is_empty() || name.len() > STRING_BYTES_MAX || name.contains('\0') {
                return Err(maker.fault(&field, "expected a name of 1 to 65535 bytes without U+0000"));
            }
            if name.contains("${") {
                return Err(maker.fault(&field, "a name is literal; only values are templates"));
            }
            user_properties.push((name.clone(), templates.add(field, text, Slot::PlainText)));
        }
        let content_type =
            config.content_type.as_ref().map(|text| templates.add("content_type", text, Slot::PlainText));
        let response_topic = match &config.response_topic {
            Some(text) => Some(maker.topic("response_topic", text, templates)?),
            None => None,
        };
        let correlation_data = match &config.correlation_data {
            Some(text) if is_literal(text) && STANDARD.decode(text).is_err() => {
                return Err(maker.fault("correlation_data", "expected base64 text (RFC 4648, with padding)"));
            }
            Some(text) => Some(templates.add("correlation_data", text, Slot::PlainText)),
            None => None,
        };
        let payload_format_indicator = match &config.payload_format_indicator {
            Some(scalar) => Some(maker.boolean("payload_format_indicator", scalar, templates)?),
            None => None,
        };
        let message_expiry_interval_s = match &config.message_expiry_interval {
            Some(scalar) => Some(maker.seconds("message_expiry_interval", scalar, templates)?),
            None => None,
        };
        Ok(Self {
            topic,
            payload,
            qos,
            retain,
            user_properties,
            content_type,
            response_topic,
            correlation_data,
            payload_format_indicator,
            message_expiry_interval_s,
        })
    }

    pub(crate) fn render(&self, renderer: &mut dyn Renderer) -> Result<RepublishRequest, RenderError> {
        let topic = self.topic.render(renderer)?;
        let payload = match &self.payload {
            Some(template) => template.bytes(renderer)?,
            None => renderer.output().bytes.to_vec(),
        };
        let qos = match &self.qos {
            Value::Fixed(qos) => *qos,
            Value::Template(template) => {
                const EXPECTED: &str = "expected 0, 1 or 2";
                let number: u8 = template.parsed(renderer, EXPECTED)?;
                QoS::try_from(number).map_err(|_| template.misfit(EXPECTED))?
            }
        };
        let retain = self.retain.boolean(renderer)?;
        let mut user_properties = Vec::with_capacity(self.user_properties.len());
        for (name, template) in &self.user_properties {
            user_properties.push((name.clone(), mqtt_string(template, renderer)?));
        }
        let content_type = match &self.content_type {
            Some(template) => Some(mqtt_string(template, renderer)?),
            None => None,
        };
        let response_topic = match &self.response_topic {
            Some(slot) => Some(slot.render(renderer)?),
            None => None,
        };
        let correlation_data = match &self.correlation_data {
            Some(template) => {
                let bytes = STANDARD
                    .decode(template.bytes(renderer)?)
                    .map_err(|_| template.misfit("expected base64 text (RFC 4648, with padding)"))?;
                check_len(template.field(), bytes.len())?;
                Some(bytes)
            }
            None => None,
        };
        let payload_format_indicator = match &self.payload_format_indicator {
            Some(value) => Some(value.boolean(renderer)?),
            None => None,
        };
        if payload_format_indicator == Some(true) && std::str::from_utf8(&payload).is_err() {
            return Err(RenderError::NotUtf8 { field: "payload".to_owned() });
        }
        let message_expiry_interval_s = match &self.message_expiry_interval_s {
            Some(Value::Fixed(seconds)) => Some(*seconds),
            Some(Value::Template(template)) => {
                Some(template.parsed(renderer, "expected whole seconds from 0 to 4294967295")?)
            }
            None => None,
        };
        Ok(RepublishRequest {
            topic,
            payload,
            qos,
            retain,
            user_properties,
            content_type,
            response_topic,
            correlation_data,
            payload_format_indicator,
            message_expiry_interval_s,
        })
    }
}

/// A value that is fixed by the configuration, or rendered.
#[derive(Debug)]
enum Value<T> {
    Fixed(T),
    Template(TemplateHandle),
}

impl Value<bool> {
    fn boolean(&self, renderer: &mut dyn Renderer) -> Result<bool, RenderError> {
        match self {
            Self::Fixed(value) => Ok(*value),
            Self::Template(template) => template.parsed(renderer, "expected true or false"),
        }
    }
}

/// A topic template, and whether its own text begins with `$`.
#[derive(Debug)]
struct TopicSlot {
    template: TemplateHandle,
    may_begin_with_dollar: bool,
}

impl TopicSlot {
    fn render(&self, renderer: &mut dyn Renderer) -> Result<String, RenderError> {
        let field = self.template.field();
        let topic = self.template.text(renderer)?;
        if let Err(source) = validate_topic_name(&topic) {
            let topic = excerpt(topic.as_bytes(), TOPIC_EXCERPT_CHARS);
            return Err(RenderError::Topic { field: field.to_owned(), topic, source });
        }
        if topic.starts_with('$') && !self.may_begin_with_dollar {
            let topic = excerpt(topic.as_bytes(), TOPIC_EXCERPT_CHARS);
            return Err(RenderError::ReservedTopic { field: field.to_owned(), topic });
        }
        Ok(topic)
    }
}

/// Turns keys into templates and values, with the action's name at hand for errors.
struct Maker<'a> {
    action: &'a str,
}

impl Maker<'_> {
    fn fault(&self, field: &str, problem: impl Into<String>) -> ActionConfigError {
        ActionConfigError::field_error(self.action, field, problem)
    }

    fn topic(
        &self,
        field: &str,
        text: &str,
        templates: &mut Templates,
    ) -> Result<TopicSlot, ActionConfigError> {
        // `$${` is the template language's own escape for a literal `${`, so it stays.
        let text = if text.starts_with("$$") && !text.starts_with("$${") {
            text.strip_prefix('$').unwrap_or(text)
        } else {
            text
        };
        if is_literal(text) {
            validate_topic_name(text).map_err(|source| {
                self.fault(field, format!("\"{}\" {source}", excerpt(text.as_bytes(), TOPIC_EXCERPT_CHARS)))
            })?;
        }
        let may_begin_with_dollar = text.starts_with('$') && !text.starts_with("${");
        Ok(TopicSlot { template: templates.add(field, text, Slot::Topic), may_begin_with_dollar })
    }

    fn qos(&self, scalar: &Scalar, templates: &mut Templates) -> Result<Value<QoS>, ActionConfigError> {
        let fault = || self.fault("qos", "expected 0, 1, 2 or a template");
        let number = match scalar {
            Scalar::Integer(number) => *number,
            Scalar::Boolean(_) => return Err(fault()),
            Scalar::Template(text) if is_literal(text) => text.trim().parse().map_err(|_| fault())?,
            Scalar::Template(text) => {
                return Ok(Value::Template(templates.add("qos", text, Slot::Integer { min: 0, max: 2 })));
            }
        };
        u8::try_from(number).ok().and_then(|n| QoS::try_from(n).ok()).map(Value::Fixed).ok_or_else(fault)
    }

    fn boolean(
        &self,
        field: &str,
        scalar: &Scalar,
        templates: &mut Templates,
    ) -> Result<Value<bool>, ActionConfigError> {
        let fault = || self.fault(field, "expected true, false or a template");
        match scalar {
            Scalar::Boolean(value) => Ok(Value::Fixed(*value)),
            Scalar::Integer(_) => Err(fault()),
            Scalar::Template(text) if is_literal(text) => {
                text.trim().parse().map(Value::Fixed).map_err(|_| fault())
            }
            Scalar::Template(text) => Ok(Value::Template(templates.add(field, text, Slot::Boolean))),
        }
    }

    fn seconds(
        &self,
        field: &str,
        scalar: &Scalar,
        templates: &mut Templates,
    ) -> Result<Value<u32>, ActionConfigError> {
        let fault = || self.fault(field, "expected whole seconds from 0 to 4294967295, or a template");
        match scalar {
            Scalar::Integer(seconds) => u32::try_from(*seconds).map(Value::Fixed).map_err(|_| fault()),
            Scalar::Boolean(_) => Err(fault()),
            Scalar::Template(text) if is_literal(text) => {
                text.trim().parse().map(Value::Fixed).map_err(|_| fault())
            }
            Scalar::Template(text) => {
                let slot = Slot::Integer { min: 0, max: i64::from(u32::MAX) };
                Ok(Value::Template(templates.add(field, text, slot)))
            }
        }
    }
}

/// Renders a UTF-8 Encoded String: at most 65,535 bytes, without U+0000 [MQTT-1.5.4-2, v5].
fn mqtt_string(template: &TemplateHandle, renderer: &mut dyn Renderer) -> Result<String, RenderError> {
    let text = template.text(renderer)?;
    check_len(template.field(), text.len())?;
    if text.contains('\0') {
        return Err(template.misfit("expected text without U+0000"));
    }
    Ok(text)
}

fn check_len(field: &str, bytes: usize) -> Result<(), RenderError> {
    if bytes > STRING_BYTES_MAX {
        return Err(RenderError::TooLarge { field: field.to_owned(), bytes, limit: STRING_BYTES_MAX });
    }
    Ok(())
}
