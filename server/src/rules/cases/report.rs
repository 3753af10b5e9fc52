//! A verdict as a line of JSON. Outputs are written by their own text, so that no number changes on the way.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::value::RawValue;

use super::run::{Answer, Row, Verdict};

#[derive(Debug, Serialize)]
struct Line<'v> {
    id: &'v str,
    pass: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rows: Option<Vec<RowLine>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    messages: Option<Vec<MessageLine>>,
    rendered: Option<String>,
    error: Option<ErrorLine<'v>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'v str>,
}

#[derive(Debug, Serialize)]
struct MessageLine {
    outcome: &'static str,
    rows: Vec<RowLine>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "lowercase")]
enum RowLine {
    Json(Box<RawValue>),
    Base64(String),
}

#[derive(Debug, Serialize)]
struct ErrorLine<'v> {
    stage: &'static str,
    code: Option<&'static str>,
    message: &'v str,
    line: Option<usize>,
    column: Option<usize>,
}

/// One line, without its end.
pub(crate) fn line(verdict: &Verdict) -> Result<String, serde_json::Error> {
    let ran = &verdict.ran;
    let rows = |answers: &[Answer]| -> Vec<RowLine> {
        answers.iter().filter_map(|answer| answer.row.as_ref()).map(row).collect()
    };
    let messages = ran.is_sequence.then(|| {
        let answers = ran.answers.chunks(1);
        answers
            .flat_map(|one| one.iter().map(|answer| MessageLine { outcome: answer.outcome, rows: rows(one) }))
            .collect()
    });
    let outcome = match (&ran.error, ran.answers.first()) {
        (Some(_), _) | (None, None) => "error",
        (None, Some(answer)) => answer.outcome,
    };
    let line = Line {
        id: &verdict.id,
        pass: verdict.pass,
        outcome: (!ran.is_sequence).then_some(outcome),
        rows: (!ran.is_sequence).then(|| rows(&ran.answers)),
        messages,
        rendered: ran.rendered.as_deref().map(|text| String::from_utf8_lossy(text).into_owned()),
        error: ran.error.as_ref().map(|fault| ErrorLine {
            stage: fault.stage(),
            code: fault.code,
            message: &fault.message,
            line: fault.line,
            column: fault.column,
        }),
        why: verdict.why.as_deref(),
    };
    serde_json::to_string(&line)
}

fn row(row: &Row) -> RowLine {
    match row.json.as_ref().and_then(|json| RawValue::from_string(json.text()).ok()) {
        Some(text) => RowLine::Json(text),
        None => RowLine::Base64(STANDARD.encode(&row.bytes)),
    }
}
