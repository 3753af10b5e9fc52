//! An explanation for programs: one JSON object a line. docs/cli.md lists its members.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rules_sql::{NamedStep, Outcome, Step, StepResult};
use serde::Serialize;
use serde_json::value::RawValue;

use super::explain::{ActionExplanation, RuleExplanation};
use super::render::Parameter;

/// Everything about one rule, as one line.
pub(crate) fn explanation_line(explanation: &RuleExplanation<'_>) -> serde_json::Result<String> {
    serde_json::to_string(&RuleLine::of(explanation))
}

#[derive(Serialize)]
struct RuleLine<'e> {
    rule: &'e str,
    file: Option<String>,
    enabled: bool,
    outcome: &'static str,
    error: Option<String>,
    from: Vec<FilterLine<'e>>,
    set: Vec<NamedLine<'e>>,
    r#where: Option<StepLine<'e>>,
    select: Vec<NamedLine<'e>>,
    output: Option<Bytes>,
    actions: Vec<ActionLine<'e>>,
}

#[derive(Serialize)]
struct FilterLine<'e> {
    filter: &'e str,
    matches: bool,
}

#[derive(Serialize)]
struct NamedLine<'e> {
    name: &'e str,
    expression: StepLine<'e>,
}

#[derive(Serialize)]
struct StepLine<'e> {
    sql: &'e str,
    /// `value`, `undefined` or `not_evaluated`.
    result: &'static str,
    r#type: Option<&'static str>,
    value: Option<Box<RawValue>>,
    /// Whether `value` is only the beginning of the value's text.
    cut: bool,
    because: Option<&'e str>,
    decides: bool,
    steps: Vec<StepLine<'e>>,
}

#[derive(Serialize)]
struct ActionLine<'e> {
    name: &'e str,
    r#type: &'static str,
    parameters: Vec<ParameterLine<'e>>,
    would_send: Option<BTreeMap<String, Bytes>>,
    error: Option<&'e str>,
}

#[derive(Serialize)]
struct ParameterLine<'e> {
    name: &'e str,
    template: &'e str,
    rendered: Option<Bytes>,
    error: Option<&'e str>,
    steps: Vec<StepLine<'e>>,
}

/// Text, or bytes that are none.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Bytes {
    Json(Box<RawValue>),
    Text(String),
    Base64(String),
}

impl<'e> RuleLine<'e> {
    fn of(explanation: &'e RuleExplanation<'_>) -> Self {
        let sql = &explanation.sql;
        let is_match = sql.filters.iter().any(|filter| filter.is_match);
        let (outcome, error, output) = match &sql.outcome {
            _ if !is_match => ("other_topic", None, None),
            Outcome::NoMatch => ("no_match", None, None),
            Outcome::NoOutput => ("no_output", None, None),
            Outcome::Failed(error) => ("failed", Some(error.to_string()), None),
            Outcome::Output(output) => {
                let outcome = if explanation.is_skipped { "no_output" } else { "output" };
                let bytes =
                    if output.is_json() { Bytes::json(output.bytes()) } else { Bytes::of(output.bytes()) };
                (outcome, None, Some(bytes))
            }
        };
        let named = |steps: &'e [NamedStep]| steps.iter().map(NamedLine::of).collect();
        Self {
            rule: explanation.name,
            file: explanation.file.map(|file| file.display().to_string()),
            enabled: explanation.is_enabled,
            outcome,
            error,
            from: sql
                .filters
                .iter()
                .map(|step| FilterLine { filter: &step.filter, matches: step.is_match })
                .collect(),
            set: named(&sql.variables),
            r#where: sql.condition.as_ref().map(StepLine::of),
            select: named(&sql.items),
            output,
            actions: explanation.actions.iter().map(ActionLine::of).collect(),
        }
    }
}

impl<'e> NamedLine<'e> {
    fn of(step: &'e NamedStep) -> Self {
        Self { name: &step.name, expression: StepLine::of(&step.step) }
    }
}

impl<'e> StepLine<'e> {
    fn of(step: &'e Step) -> Self {
        let (result, type_name, value, cut) = match &step.result {
            StepResult::Value { type_name, json, is_cut } => {
                // What was cut is no JSON any more, so it goes out as text.
                let value = if *is_cut { serde_json::value::to_raw_value(json).ok() } else { raw(json) };
                ("value", Some(*type_name), value, *is_cut)
            }
            StepResult::Undefined => ("undefined", None, None, false),
            _ => ("not_evaluated", None, None, false),
        };
        Self {
            sql: &step.sql,
            result,
            r#type: type_name,
            value,
            cut,
            because: step.because.as_deref(),
            decides: step.decides,
            steps: step.steps.iter().map(Self::of).collect(),
        }
    }
}

impl<'e> ActionLine<'e> {
    fn of(action: &'e ActionExplanation<'_>) -> Self {
        let parameter = |parameter: &'e Parameter<'_>| ParameterLine {
            name: parameter.field,
            template: parameter.template,
            rendered: parameter.rendered.as_ref().ok().map(|bytes| Bytes::of(bytes)),
            error: parameter.rendered.as_ref().err().map(String::as_str),
            steps: parameter.steps.iter().map(StepLine::of).collect(),
        };
        let would_send = action.request.as_ref().ok().map(|request| {
            action.sent(request).into_iter().map(|(name, value)| (name, Bytes::of(&value))).collect()
        });
        Self {
            name: action.name,
            r#type: action.kind,
            parameters: action.parameters.iter().map(parameter).collect(),
            would_send,
            error: action.request.as_ref().err().map(String::as_str),
        }
    }
}

impl Bytes {
    fn json(bytes: &[u8]) -> Self {
        let json = std::str::from_utf8(bytes).ok().and_then(raw);
        json.map_or_else(|| Self::of(bytes), Self::Json)
    }

    fn of(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => Self::Base64(STANDARD.encode(bytes)),
        }
    }
}

/// JSON text as it is, so that numbers keep theirs.
fn raw(text: &str) -> Option<Box<RawValue>> {
    RawValue::from_string(text.to_owned()).ok()
}
