//! One case: every field of it is known, of the right type, and sensible beside the others, or the case is refused.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mqtt_protocol::QoS;
use regex::Regex;
use rules_sql::{Dialect, Evaluation, Event, Limits, Template, TemplateKind};

use super::super::sample::{SampleMessage, SampleProperties};
use super::json::Json;
use crate::config::suggest;

/// Most messages of one case.
pub(super) const MESSAGES_MAX: usize = 10_000;

/// Fields for the reader alone.
const IGNORED: [&str; 5] = ["level", "source", "confidence", "conflict", "note"];
/// Every other field of a case.
const KNOWN: [&str; 39] = [
    "id",
    "group",
    "dialect",
    "sql",
    "rule",
    "topic",
    "payload",
    "payload_text",
    "payload_base64",
    "clientid",
    "username",
    "qos",
    "retain",
    "source_ip",
    "listener",
    "properties",
    "event",
    "event_fields",
    "messages",
    "template",
    "template_field",
    "now",
    "expect",
    "subset",
    "tolerance",
    "expect_rows",
    "expect_seq",
    "omit_empty",
    "expect_undefined_absent",
    "expect_regex",
    "expect_payload_text",
    "expect_raw_base64",
    "expect_text",
    "expect_text_regex",
    "expect_actions",
    "no_match",
    "error",
    "error_stage",
    "error_code",
];
/// Fields that each of `messages` may have.
const KNOWN_OF_MESSAGE: [&str; 12] = [
    "topic",
    "payload",
    "payload_text",
    "payload_base64",
    "clientid",
    "username",
    "qos",
    "retain",
    "source_ip",
    "listener",
    "properties",
    "now",
];
const KNOWN_OF_PROPERTIES: [&str; 6] = [
    "content_type",
    "response_topic",
    "correlation_data_base64",
    "payload_format_indicator",
    "message_expiry_interval",
    "user_properties",
];

/// A case as it stands in a file.
#[derive(Debug)]
pub(crate) struct Case {
    /// Its unique name; its place in the file, `#3`, when it gives none.
    pub(crate) id: String,
    /// What it is about.
    pub(crate) group: Option<String>,
    /// What to do and what to expect, or what is wrong with the case.
    pub(super) test: Result<Test, String>,
}

impl Case {
    /// What the case gets wrong about itself.
    pub(crate) fn fault(&self) -> Option<&str> {
        self.test.as_ref().err().map(String::as_str)
    }
}

/// What to do and what to expect.
#[derive(Debug)]
pub(super) struct Test {
    pub(super) rule: RuleOf,
    /// One, or those of `messages` in order.
    pub(super) messages: Vec<Timed>,
    /// Whether `messages` was given.
    pub(super) is_sequence: bool,
    pub(super) template: Option<(String, TemplateKind)>,
    pub(super) expected: Expected,
}

#[derive(Debug)]
pub(super) enum RuleOf {
    Sql(String, Dialect),
    Name(String),
}

/// A message and the time at which it comes; `None`: whatever time it is.
#[derive(Debug, Clone, Default)]
pub(super) struct Timed {
    pub(super) message: SampleMessage,
    pub(super) now_ms: Option<i64>,
}

/// Where a rule fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Create,
    Run,
    Template,
}

impl Stage {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Run => "run",
            Self::Template => "template",
        }
    }
}

/// Parameters of an action and what they are to be rendered to.
type Parameters = Vec<(String, Json)>;

/// The outcome fields. What is `None` was not given.
#[derive(Debug, Default)]
pub(super) struct Expected {
    pub(super) output: Option<Json>,
    pub(super) subset: bool,
    pub(super) tolerance: Option<f64>,
    pub(super) rows: Option<Vec<Json>>,
    pub(super) sequence: Option<Vec<Json>>,
    pub(super) omit_empty: bool,
    pub(super) absent: Option<Vec<String>>,
    pub(super) patterns: Option<Vec<(String, Regex)>>,
    pub(super) payload_text: Option<String>,
    pub(super) raw: Option<Vec<u8>>,
    pub(super) text: Option<String>,
    pub(super) text_pattern: Option<Regex>,
    /// By action, then by parameter.
    pub(super) actions: Option<Vec<(String, Parameters)>>,
    pub(super) no_match: bool,
    pub(super) error: bool,
    pub(super) error_stage: Option<Stage>,
    pub(super) error_code: Option<String>,
}

impl Expected {
    /// Whether anything is expected at all.
    pub(super) fn is_some(&self) -> bool {
        self.output.is_some()
            || self.rows.is_some()
            || self.sequence.is_some()
            || self.absent.is_some()
            || self.patterns.is_some()
            || self.payload_text.is_some()
            || self.raw.is_some()
            || self.text.is_some()
            || self.text_pattern.is_some()
            || self.actions.is_some()
            || self.no_match
            || self.error
    }
}

impl Case {
    /// Takes a case apart; `place` is its place in the file, from 1.
    pub(super) fn new(json: Json, place: usize) -> Self {
        let text_of = |key| match json.member(key) {
            Some(Json::String(text)) if !text.is_empty() => Some(text.clone()),
            _ => None,
        };
        let (id, group) = (text_of("id"), text_of("group"));
        let test = match (json, &id) {
            (Json::Object(members), Some(_)) => Fields::new(members).and_then(test),
            (Json::Object(_), None) => Err("has no id, a string".to_owned()),
            (other, _) => Err(format!("a case is an object, not {}", other.kind())),
        };
        Self { id: id.unwrap_or_else(|| format!("#{place}")), group, test }
    }

    /// A case that can't even be read.
    pub(super) fn unreadable(place: usize, why: String) -> Self {
        Self { id: format!("#{place}"), group: None, test: Err(why) }
    }
}

fn test(mut fields: Fields) -> Result<Test, String> {
    for name in ["id", "group"].into_iter().chain(IGNORED) {
        fields.take(name);
    }
    if fields.take("event").is_some() || fields.take("event_fields").is_some() {
        return Err("event: events are no source of rules, only messages are".to_owned());
    }
    let rule = rule_of(&mut fields)?;
    let first = timed(&mut fields, Timed::default())?;
    let (messages, is_sequence) = match fields.array("messages")? {
        None => (vec![first], false),
        Some(messages) if messages.len() > MESSAGES_MAX => {
            return Err(format!("{} messages, more than the limit of {MESSAGES_MAX}", messages.len()));
        }
        Some(messages) if messages.is_empty() => return Err("messages is empty".to_owned()),
        Some(messages) => {
            let read = |(place, json)| {
                let named = |why| format!("messages[{place}]: {why}");
                message_of(json, first.clone()).map_err(named)
            };
            (messages.into_iter().enumerate().map(read).collect::<Result<_, _>>()?, true)
        }
    };
    let field = fields.text("template_field")?;
    let template = match fields.text("template")? {
        None if field.is_some() => return Err("template_field without template".to_owned()),
        None => None,
        Some(text) => Some((text, template_kind(field.as_deref())?)),
    };
    let expected = expected(&mut fields)?;
    fields.end(&KNOWN)?;
    let test = Test { rule, messages, is_sequence, template, expected };
    test.check()?;
    Ok(test)
}

impl Test {
    /// Refuses fields that make no sense beside one another: they would never be looked at.
    fn check(&self) -> Result<(), String> {
        let expected = &self.expected;
        let has_text = expected.text.is_some() || expected.text_pattern.is_some();
        if has_text && self.template.is_none() {
            return Err("expect_text and expect_text_regex need a template".to_owned());
        }
        if expected.sequence.is_some() && !self.is_sequence {
            return Err("expect_seq needs messages".to_owned());
        }
        if expected.actions.is_some() && matches!(self.rule, RuleOf::Sql(..)) {
            return Err("expect_actions needs a rule by name: SQL alone has no actions".to_owned());
        }
        if !expected.error && expected.error_stage.is_some() {
            return Err("error_stage needs error".to_owned());
        }
        if !expected.error && expected.error_code.is_some() {
            return Err("error_code needs error".to_owned());
        }
        if expected.omit_empty && expected.sequence.is_none() {
            return Err("omit_empty needs expect_seq".to_owned());
        }
        let outputs = expected.output.is_some() || expected.rows.is_some() || expected.sequence.is_some();
        if (expected.subset || expected.tolerance.is_some()) && !outputs && expected.actions.is_none() {
            return Err(
                "subset and tolerance need expect, expect_rows, expect_seq or expect_actions".to_owned()
            );
        }
        Ok(())
    }
}

fn rule_of(fields: &mut Fields) -> Result<RuleOf, String> {
    let dialect = match fields.text("dialect")?.as_deref() {
        None => None,
        Some("aws" | "ekuiper") => Some(Dialect::Aws),
        Some("emqx" | "nanomq") => Some(Dialect::Emqx),
        Some(other) => {
            return Err(format!("dialect \"{other}\": expected aws, emqx, nanomq or ekuiper"));
        }
    };
    match (fields.text("sql")?, fields.text("rule")?) {
        (Some(sql), None) => Ok(RuleOf::Sql(sql, dialect.unwrap_or_default())),
        (None, Some(_)) if dialect.is_some() => {
            Err("dialect: the rule that is named says its own".to_owned())
        }
        (None, Some(name)) => Ok(RuleOf::Name(name)),
        (Some(_), Some(_)) => Err("has both sql and rule".to_owned()),
        (None, None) => Err("has neither sql nor rule".to_owned()),
    }
}

fn message_of(json: Json, defaults: Timed) -> Result<Timed, String> {
    let Json::Object(members) = json else {
        return Err(format!("expected an object, not {}", json.kind()));
    };
    let mut fields = Fields::new(members)?;
    let message = timed(&mut fields, defaults)?;
    fields.end(&KNOWN_OF_MESSAGE)?;
    Ok(message)
}

/// A message with what is not said taken from `defaults`.
fn timed(fields: &mut Fields, defaults: Timed) -> Result<Timed, String> {
    let Timed { mut message, mut now_ms } = defaults;
    if let Some(topic) = fields.text("topic")? {
        message.topic = topic;
        message.check_topic()?;
    }
    if let Some(payload) = payload(fields)? {
        message.payload = payload;
    }
    let text = |name: &str, field: &mut Option<String>, fields: &mut Fields| {
        fields.text(name).map(|given| {
            if given.is_some() {
                *field = given
            }
        })
    };
    text("clientid", &mut message.client_id, fields)?;
    text("username", &mut message.username, fields)?;
    text("listener", &mut message.listener, fields)?;
    if let Some(qos) = fields.whole("qos", 2)? {
        let level = u8::try_from(qos).ok().and_then(|level| QoS::try_from(level).ok());
        message.qos = level.ok_or("qos: expected 0, 1 or 2")?;
    }
    if let Some(retain) = fields.flag("retain")? {
        message.retain = retain;
    }
    if let Some(address) = fields.text("source_ip")? {
        let read: Result<IpAddr, _> = address.parse();
        message.source_ip = Some(read.map_err(|_| format!("source_ip: \"{address}\" is no IP address"))?);
    }
    if let Some(members) = fields.object("properties")? {
        message.properties = properties(members).map_err(|why| format!("properties: {why}"))?;
    }
    if let Some(now) = fields.text("now")? {
        let read = instant_ms(&now);
        now_ms = Some(read.ok_or_else(|| format!("now: \"{now}\" is no time by RFC 3339"))?);
    }
    Ok(Timed { message, now_ms })
}

fn payload(fields: &mut Fields) -> Result<Option<Vec<u8>>, String> {
    // A payload may well be `null`.
    let json = fields.take("payload");
    let (text, base64) = (fields.text("payload_text")?, fields.bytes("payload_base64")?);
    match (json, text, base64) {
        (None, None, None) => Ok(None),
        (Some(Json::String(text)), None, None) | (None, Some(text), None) => Ok(Some(text.into_bytes())),
        (Some(json), None, None) => Ok(Some(json.text().into_bytes())),
        (None, None, Some(bytes)) => Ok(Some(bytes)),
        _ => Err("expected one of payload, payload_text and payload_base64".to_owned()),
    }
}

fn properties(members: Vec<(String, Json)>) -> Result<Vec<u8>, String> {
    let mut fields = Fields::new(members)?;
    let mut properties = SampleProperties {
        content_type: fields.text("content_type")?,
        response_topic: fields.text("response_topic")?,
        correlation_data: fields.bytes("correlation_data_base64")?,
        payload_format_indicator: match fields.take("payload_format_indicator") {
            None | Some(Json::Null) => None,
            Some(Json::Bool(is_text)) => Some(is_text),
            Some(Json::Number(number)) if number == "0" => Some(false),
            Some(Json::Number(number)) if number == "1" => Some(true),
            Some(_) => return Err("payload_format_indicator: expected 0 or 1".to_owned()),
        },
        message_expiry_interval_s: match fields.whole("message_expiry_interval", u64::from(u32::MAX))? {
            Some(seconds) => u32::try_from(seconds).ok(),
            None => None,
        },
        user_properties: Vec::new(),
    };
    for pair in fields.array("user_properties")?.unwrap_or_default() {
        let Json::Array(pair) = pair else {
            return Err("user_properties: expected a list of pairs".to_owned());
        };
        let [Json::String(name), Json::String(value)] = pair.as_slice() else {
            return Err("user_properties: a pair is two strings".to_owned());
        };
        properties.user_properties.push((name.clone(), value.clone()));
    }
    fields.end(&KNOWN_OF_PROPERTIES)?;
    properties.encode()
}

/// What kind of parameter a template is for, by the parameter's name. A name that is none of ours but looks like one is
/// refused; any other is text, as a parameter of an action that is not there yet.
fn template_kind(field: Option<&str>) -> Result<TemplateKind, String> {
    const NAMES: [&str; 13] = [
        "topic",
        "response_topic",
        "body",
        "payload",
        "message",
        "url",
        "header",
        "headers",
        "content_type",
        "qos",
        "retain",
        "payload_format_indicator",
        "message_expiry_interval",
    ];
    let Some(field) = field else { return Ok(TemplateKind::PlainText) };
    // `headers.X-Site` is a header, `user_properties.site` a text.
    let name = field.split('.').next().unwrap_or(field);
    Ok(match name {
        "topic" | "response_topic" => TemplateKind::Topic,
        "body" | "payload" | "message" => TemplateKind::Text,
        "url" => TemplateKind::UrlPart,
        "header" | "headers" => TemplateKind::HeaderValue,
        "qos" => TemplateKind::Integer { min: 0, max: 2 },
        "message_expiry_interval" => TemplateKind::Integer { min: 0, max: i64::from(u32::MAX) },
        "retain" | "payload_format_indicator" => TemplateKind::Boolean,
        "content_type" => TemplateKind::PlainText,
        other => match suggest(other, NAMES.into_iter()) {
            Some(hint) if hint.starts_with("did you mean") => {
                return Err(format!("template_field \"{field}\": {hint}"));
            }
            _ => TemplateKind::PlainText,
        },
    })
}

fn expected(fields: &mut Fields) -> Result<Expected, String> {
    // An output may well be `null`.
    let output = fields.take("expect");
    let tolerance = match fields.take("tolerance") {
        None | Some(Json::Null) => None,
        Some(Json::Number(text)) => {
            let bound: f64 = text.parse().map_err(|_| format!("tolerance: {text} is out of range"))?;
            if !bound.is_finite() || bound < 0.0 {
                return Err(format!("tolerance: {text} is no bound"));
            }
            Some(bound)
        }
        Some(other) => return Err(format!("tolerance: expected a number, not {}", other.kind())),
    };
    let absent = match fields.array("expect_undefined_absent")? {
        None => None,
        Some(keys) => Some(
            keys.into_iter()
                .map(|key| match key {
                    Json::String(key) => Ok(key),
                    other => Err(format!("expect_undefined_absent: expected strings, not {}", other.kind())),
                })
                .collect::<Result<_, _>>()?,
        ),
    };
    let patterns = match fields.object("expect_regex")? {
        None => None,
        Some(members) => Some(
            members
                .into_iter()
                .map(|(key, pattern)| match pattern {
                    Json::String(text) => Ok((key, pattern_of("expect_regex", &text)?)),
                    other => Err(format!("expect_regex: a pattern is a string, not {}", other.kind())),
                })
                .collect::<Result<_, _>>()?,
        ),
    };
    let text_pattern = match fields.text("expect_text_regex")? {
        None => None,
        Some(text) => Some(pattern_of("expect_text_regex", &text)?),
    };
    let actions = match fields.object("expect_actions")? {
        None => None,
        Some(members) => Some(
            members
                .into_iter()
                .map(|(action, parameters)| match parameters {
                    Json::Object(parameters) => Ok((action, parameters)),
                    other => {
                        Err(format!("expect_actions.{action}: expected an object, not {}", other.kind()))
                    }
                })
                .collect::<Result<_, _>>()?,
        ),
    };
    let error_stage = match fields.text("error_stage")?.as_deref() {
        None => None,
        Some("create") => Some(Stage::Create),
        Some("run") => Some(Stage::Run),
        Some("template") => Some(Stage::Template),
        Some(other) => return Err(format!("error_stage \"{other}\": expected create, run or template")),
    };
    Ok(Expected {
        output,
        subset: fields.flag("subset")?.unwrap_or_default(),
        tolerance,
        rows: fields.array("expect_rows")?,
        sequence: fields.array("expect_seq")?,
        omit_empty: fields.flag("omit_empty")?.unwrap_or_default(),
        absent,
        patterns,
        payload_text: fields.text("expect_payload_text")?,
        raw: fields.bytes("expect_raw_base64")?,
        text: fields.text("expect_text")?,
        text_pattern,
        actions,
        no_match: fields.only_true("no_match")?,
        error: fields.only_true("error")?,
        error_stage,
        error_code: fields.text("error_code")?,
    })
}

fn pattern_of(field: &str, text: &str) -> Result<Regex, String> {
    Regex::new(text).map_err(|_| format!("{field}: \"{text}\" is no regular expression"))
}

/// Milliseconds since 1970 of an RFC 3339 time, as the engine itself reads such a text.
fn instant_ms(text: &str) -> Option<i64> {
    let payload = Json::Object(vec![("now".to_owned(), Json::String(text.to_owned()))]).text();
    let expression = "${rfc3339_to_unix_ts(now, 'millisecond')}";
    let template =
        Template::compile(expression, TemplateKind::PlainText, Dialect::Aws, &Limits::default()).ok()?;
    let mut milliseconds = Vec::new();
    let event = Event::new("now", payload.as_bytes());
    template.render(&mut Evaluation::new(&event, 0), None, &mut milliseconds).ok()?;
    std::str::from_utf8(&milliseconds).ok()?.parse().ok()
}

/// The members of an object, taken out one by one; what is left at the end nobody knows.
struct Fields(Vec<(String, Json)>);

impl Fields {
    fn new(members: Vec<(String, Json)>) -> Result<Self, String> {
        let mut names: Vec<&str> = members.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        match names.windows(2).find(|pair| pair.first() == pair.last()) {
            Some(pair) => Err(format!("has the field `{}` twice", pair.first().copied().unwrap_or_default())),
            None => Ok(Self(members)),
        }
    }

    fn take(&mut self, name: &str) -> Option<Json> {
        let place = self.0.iter().position(|(key, _)| key == name)?;
        Some(self.0.swap_remove(place).1)
    }

    /// As [`Self::take`]; `null` counts as not there.
    fn given(&mut self, name: &str) -> Option<Json> {
        self.take(name).filter(|value| *value != Json::Null)
    }

    fn text(&mut self, name: &str) -> Result<Option<String>, String> {
        match self.given(name) {
            None => Ok(None),
            Some(Json::String(text)) => Ok(Some(text)),
            Some(other) => Err(format!("{name}: expected a string, not {}", other.kind())),
        }
    }

    fn bytes(&mut self, name: &str) -> Result<Option<Vec<u8>>, String> {
        match self.text(name)? {
            None => Ok(None),
            Some(text) => match STANDARD.decode(&text) {
                Ok(bytes) => Ok(Some(bytes)),
                Err(_) => Err(format!("{name}: expected base64 text with padding")),
            },
        }
    }

    fn flag(&mut self, name: &str) -> Result<Option<bool>, String> {
        match self.given(name) {
            None => Ok(None),
            Some(Json::Bool(value)) => Ok(Some(value)),
            Some(other) => Err(format!("{name}: expected true or false, not {}", other.kind())),
        }
    }

    /// A field that is either true or left out: `false` would look as if it demanded something.
    fn only_true(&mut self, name: &str) -> Result<bool, String> {
        match self.flag(name)? {
            Some(false) => Err(format!("{name}: expected true; leave it out otherwise")),
            given => Ok(given.is_some()),
        }
    }

    fn whole(&mut self, name: &str, max: u64) -> Result<Option<u64>, String> {
        match self.given(name) {
            None => Ok(None),
            Some(Json::Number(text)) => match text.parse() {
                Ok(number) if number <= max => Ok(Some(number)),
                _ => Err(format!("{name}: expected a whole number from 0 to {max}, not {text}")),
            },
            Some(other) => Err(format!("{name}: expected a number, not {}", other.kind())),
        }
    }

    fn array(&mut self, name: &str) -> Result<Option<Vec<Json>>, String> {
        match self.given(name) {
            None => Ok(None),
            Some(Json::Array(elements)) => Ok(Some(elements)),
            Some(other) => Err(format!("{name}: expected an array, not {}", other.kind())),
        }
    }

    fn object(&mut self, name: &str) -> Result<Option<Vec<(String, Json)>>, String> {
        match self.given(name) {
            None => Ok(None),
            Some(Json::Object(members)) => Ok(Some(members)),
            Some(other) => Err(format!("{name}: expected an object, not {}", other.kind())),
        }
    }

    /// Refuses what is left.
    fn end(self, known: &[&str]) -> Result<(), String> {
        let Some((name, _)) = self.0.into_iter().next() else { return Ok(()) };
        let hint = suggest(&name, known.iter().copied()).unwrap_or_default();
        Err(format!("unknown field `{name}`: {hint}"))
    }
}
