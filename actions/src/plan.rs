//! From an action's configuration to a request for one message.
//!
//! [`ActionPlan::new`] checks the configuration and lists the strings that are templates; the caller compiles them and
//! renders them by their index. [`ActionPlan::render`] asks for what it needs, checks every value that came out, and
//! returns a request that owns its bytes.

use std::fmt;

use crate::config::{ActionConfig, OrderBy, check_name};
use crate::error::{ActionConfigError, RenderError};
use crate::outlet::QueuedRequest;
use crate::record::{Record, RecordPlan};
use crate::sinks::http::{HttpPlan, HttpRequest};
use crate::sinks::log::{LogLine, LogPlan};
use crate::sinks::republish::{RepublishPlan, RepublishRequest};

/// What a template is rendered into, which decides how its values are escaped and checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Slot {
    /// A body or payload: a JSON template when the text parses as JSON with its placeholders, otherwise text.
    Text,
    /// Text, values pasted as they are.
    PlainText,
    /// A topic, or a part of one.
    Topic,
    /// A URL: values are percent-encoded, the text around them is not.
    UrlPart,
    /// A header value: CR, LF and NUL are refused.
    HeaderValue,
    /// A whole number within bounds, rendered as decimal digits.
    Integer {
        /// Smallest value.
        min: i64,
        /// Largest value.
        max: i64,
    },
    /// `true` or `false`.
    Boolean,
}

/// A string of the configuration that is a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateSpec {
    /// The key, as in the configuration: `url`, `headers.X-Site`.
    pub field: String,
    /// The template's text. May be without any placeholder.
    pub text: String,
    /// What it is rendered into.
    pub slot: Slot,
}

/// Renders the templates of one plan for one message. Implemented by whoever knows the template language.
pub trait Renderer {
    /// Appends the value of the template at `index` of [`ActionPlan::templates`] to `out`.
    ///
    /// # Errors
    /// [`RenderError::Template`], or [`RenderError::Value`] where the value doesn't fit the slot.
    fn render(&mut self, index: usize, out: &mut Vec<u8>) -> Result<(), RenderError>;

    /// Returns the result of the rule's SELECT for this message.
    fn output(&mut self) -> OutputRef<'_>;

    /// Returns what requests of this message have in common with those that they keep their order with: the publisher's
    /// Client ID, or the topic. Empty where there is no order.
    fn line(&self, order_by: OrderBy) -> &str;
}

/// The result of a rule's SELECT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutputRef<'a> {
    /// The bytes: compact JSON text, or raw.
    pub bytes: &'a [u8],
    /// Whether the bytes are JSON text.
    pub is_json: bool,
}

/// What an action asks for, for one message.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Request {
    /// To be routed by the caller, within the source message's admission. Never queued here.
    Republish(RepublishRequest),
    /// To be queued for its sink.
    Http(HttpRequest),
    /// To be queued for its sink.
    Log(LogLine),
    /// To be queued for its sink, one of those that send records.
    Record(Record),
}

/// A kind of queued request among all.
pub(crate) trait OneOf: QueuedRequest + Sized {
    /// The request, if it is of this kind.
    fn among(request: &Request) -> Option<&Self>;

    /// The same, taken; handed back when it is of another kind.
    fn take(request: Request) -> Result<Self, Box<Request>>;
}

macro_rules! one_of {
    ($kind:ident, $request:ty) => {
        impl OneOf for $request {
            fn among(request: &Request) -> Option<&Self> {
                if let Request::$kind(request) = request { Some(request) } else { None }
            }

            fn take(request: Request) -> Result<Self, Box<Request>> {
                if let Request::$kind(request) = request { Ok(request) } else { Err(Box::new(request)) }
            }
        }
    };
}

one_of!(Http, HttpRequest);
one_of!(Log, LogLine);
one_of!(Record, Record);

/// A checked action with the list of its templates.
#[derive(Debug)]
pub struct ActionPlan {
    rule: String,
    name: String,
    kind: &'static str,
    order_by: OrderBy,
    templates: Vec<TemplateSpec>,
    builder: Builder,
}

#[derive(Debug)]
enum Builder {
    Republish(RepublishPlan),
    Http(HttpPlan),
    Log(LogPlan),
    Record(RecordPlan),
}

impl ActionPlan {
    /// Checks `config`, including every literal that a template without placeholders amounts to.
    ///
    /// # Errors
    /// [`ActionConfigError`] with the key that is at fault.
    pub fn new(rule: &str, config: &ActionConfig) -> Result<Self, ActionConfigError> {
        check_name(config.name())?;
        let mut templates = Templates::default();
        let all = &mut templates;
        let builder = match config {
            ActionConfig::Republish(config) => Builder::Republish(RepublishPlan::new(config, all)?),
            ActionConfig::Http(config) => Builder::Http(HttpPlan::new(config, all)?),
            ActionConfig::Log(config) => Builder::Log(LogPlan::new(rule, config, all)?),
            ActionConfig::Nats(config) => Builder::Record(config.plan(all)?),
            ActionConfig::Amqp(config) => Builder::Record(config.plan(all)?),
            ActionConfig::Kafka(config) => Builder::Record(config.plan(all)?),
            ActionConfig::Redis(config) => Builder::Record(config.plan(all)?),
        };
        Ok(Self {
            rule: rule.to_owned(),
            name: config.name().to_owned(),
            kind: config.kind(),
            order_by: config.order_by(),
            templates: templates.0,
            builder,
        })
    }

    /// Returns the name of the rule that the action belongs to.
    #[must_use]
    pub fn rule(&self) -> &str {
        &self.rule
    }

    /// Returns the action's name, unique in its rule.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the value of `type`.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        self.kind
    }

    /// Returns which requests of this action keep their order.
    #[must_use]
    pub const fn order_by(&self) -> OrderBy {
        self.order_by
    }

    /// Returns the templates, in the order of the indices that [`Renderer::render`] is called with.
    #[must_use]
    pub fn templates(&self) -> &[TemplateSpec] {
        &self.templates
    }

    /// Builds the request for one message.
    ///
    /// # Errors
    /// [`RenderError`] when a template fails or a value doesn't fit where it goes.
    pub fn render(&self, renderer: &mut dyn Renderer) -> Result<Request, RenderError> {
        match &self.builder {
            Builder::Republish(plan) => plan.render(renderer).map(Request::Republish),
            Builder::Http(plan) => plan.render(renderer).map(Request::Http),
            Builder::Log(plan) => plan.render(renderer).map(Request::Log),
            Builder::Record(plan) => plan.render(renderer).map(Request::Record),
        }
    }
}

/// The templates of a plan while it is being made.
#[derive(Debug, Default)]
pub(crate) struct Templates(Vec<TemplateSpec>);

impl Templates {
    /// Adds one and returns its handle.
    pub(crate) fn add(&mut self, field: impl Into<String>, text: &str, slot: Slot) -> TemplateHandle {
        let field = field.into();
        let index = self.0.len();
        self.0.push(TemplateSpec { field: field.clone(), text: text.to_owned(), slot });
        TemplateHandle { index, field: field.into_boxed_str() }
    }
}

/// A template of a plan: its index, and its field for error texts.
pub(crate) struct TemplateHandle {
    index: usize,
    field: Box<str>,
}

impl fmt::Debug for TemplateHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.field, self.index)
    }
}

impl TemplateHandle {
    pub(crate) fn field(&self) -> &str {
        &self.field
    }

    pub(crate) fn bytes(&self, renderer: &mut dyn Renderer) -> Result<Vec<u8>, RenderError> {
        let mut out = Vec::new();
        renderer.render(self.index, &mut out)?;
        Ok(out)
    }

    pub(crate) fn text(&self, renderer: &mut dyn Renderer) -> Result<String, RenderError> {
        String::from_utf8(self.bytes(renderer)?)
            .map_err(|_| RenderError::NotUtf8 { field: self.field.to_string() })
    }

    pub(crate) fn parsed<T: std::str::FromStr>(
        &self,
        renderer: &mut dyn Renderer,
        expected: &str,
    ) -> Result<T, RenderError> {
        let text = self.text(renderer)?;
        text.trim().parse().map_err(|_| self.misfit(expected))
    }

    pub(crate) fn misfit(&self, problem: impl Into<String>) -> RenderError {
        RenderError::Value { field: self.field.to_string(), problem: problem.into() }
    }
}

/// Whether a template's text holds no placeholder and no escape, so that it is its own value.
pub(crate) fn is_literal(text: &str) -> bool {
    !text.contains("${")
}
