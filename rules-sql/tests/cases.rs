//! The sample of rule cases: what AWS documents, run against the dialect `aws`.
//!
//! Every case of another dialect is skipped because that dialect is refused by name; every skipped case of `aws` is
//! named below with its reason, and a case that could run but is listed fails the test.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends at the first fault"
)]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rules_sql::{Dialect, Evaluation, Event, Limits, Outcome, TemplateKind, compile};
use serde_json::Value;

/// Cases of dialect `aws`, which eKuiper's are read as, that cannot run yet, with the reason.
const SKIPPED: [(&str, &str); 2] = [
    ("ekp-array-09", "level second: array_last_position is not there yet"),
    ("ekp-json-14", "level second: the operator -> is not there yet"),
];

#[test]
fn sample_of_rule_cases() {
    let cases: Value = serde_json::from_str(include_str!("testdata/rule-cases-sample.json")).unwrap();
    let mut passed = 0;
    let mut other_dialects = 0;
    for case in cases.as_array().unwrap() {
        let id = case["id"].as_str().unwrap();
        let dialect = case["dialect"].as_str().unwrap_or("aws");
        if !matches!(dialect, "aws" | "ekuiper") {
            let sql = case["sql"].as_str().unwrap();
            let error = compile(sql, Dialect::Emqx, &Limits::default()).unwrap_err();
            assert_eq!(error.code, "R0010", "{id}");
            other_dialects += 1;
            continue;
        }
        let result = run(case);
        match SKIPPED.iter().find(|(skipped, _)| *skipped == id) {
            Some((_, reason)) => assert!(result.is_err(), "{id} passes, though it is skipped: {reason}"),
            None => {
                if let Err(why) = result {
                    panic!("{id}: {why}\n{}", case["sql"]);
                }
                passed += 1;
            }
        }
    }
    assert_eq!((passed, SKIPPED.len(), other_dialects), (27, 2, 12));
}

fn run(case: &Value) -> Result<(), String> {
    let sql = case["sql"].as_str().unwrap();
    let rule = compile(sql, Dialect::Aws, &Limits::default()).map_err(|error| error.render(sql))?;
    let topic = case["topic"].as_str().unwrap();
    let payload = match (&case["payload_base64"], &case["payload_text"], &case["payload"]) {
        (Value::String(text), _, _) => STANDARD.decode(text).unwrap(),
        (_, Value::String(text), _) | (_, _, Value::String(text)) => text.clone().into_bytes(),
        (_, _, json) => json.to_string().into_bytes(),
    };
    let mut event = Event::new(topic, &payload);
    event.client_id = case["clientid"].as_str();
    let matched = rule.filters().iter().any(|filter| mqtt_protocol::matches(filter, topic));
    let mut ev = Evaluation::new(&event, 1);
    let outcome = if matched { rule.evaluate(&mut ev) } else { Outcome::NoMatch };
    if let Some(text) = case["template"].as_str() {
        let template = rule
            .template(text, TemplateKind::PlainText, &Limits::default())
            .map_err(|error| error.render(text))?;
        let mut out = Vec::new();
        template.render(&mut ev, None, &mut out).map_err(|error| error.to_string())?;
        let expected = case["expect_text"].as_str().unwrap();
        return if out == expected.as_bytes() { Ok(()) } else { Err(format!("rendered {out:?}")) };
    }
    if case["no_match"] == true {
        return if outcome == Outcome::NoMatch { Ok(()) } else { Err(format!("{outcome:?}")) };
    }
    let Outcome::Output(output) = outcome else { return Err(format!("{outcome:?}")) };
    if let Some(expected) = case["expect_raw_base64"].as_str() {
        let same = !output.is_json() && output.bytes() == STANDARD.decode(expected).unwrap();
        return if same { Ok(()) } else { Err(format!("{output:?}")) };
    }
    let actual: Value = serde_json::from_slice(output.bytes()).unwrap();
    for key in case["expect_undefined_absent"].as_array().into_iter().flatten() {
        if actual.get(key.as_str().unwrap()).is_some() {
            return Err(format!("{key} is there: {actual}"));
        }
    }
    if let Some(patterns) = case["expect_regex"].as_object() {
        for (key, pattern) in patterns {
            let text = actual[key].as_str().map_or_else(|| actual[key].to_string(), str::to_owned);
            if !regex::Regex::new(pattern.as_str().unwrap()).unwrap().is_match(&text) {
                return Err(format!("{key} is {text}"));
            }
        }
        return Ok(());
    }
    let tolerance = case["tolerance"].as_f64().unwrap_or(0.0);
    if same(&actual, &case["expect"], tolerance) { Ok(()) } else { Err(format!("{actual}")) }
}

fn same(actual: &Value, expected: &Value, tolerance: f64) -> bool {
    match (actual, expected) {
        (Value::Number(a), Value::Number(b)) => {
            (a.as_f64().unwrap() - b.as_f64().unwrap()).abs() <= tolerance
        }
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b, tolerance))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b, tolerance)))
        }
        _ => actual == expected,
    }
}
