//! Well-formed rules against messages: what the grammar writes compiles, nothing panics, a failure is a budget, JSON output is
//! JSON, what was evaluated before changes nothing, printed SQL means the same, the index leaves out no rule that matches,
//! an explanation comes to what the evaluation came to, templates render or fail cleanly.
//!
//! The input is choices of the grammar (`grammar.rs`), not text: the target `rule` reads text.
#![no_main]

mod functions;
mod grammar;

use std::net::{IpAddr, Ipv4Addr};

use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use mqtt_protocol::topic::validate_topic_name;
use rules_sql::{
    CompiledRule, Dialect, Evaluation, Event, EventProperties, Limits, Outcome, Output, PredicateIndex,
    TemplateKind, compile,
};

use grammar::Grammar;

fuzz_target!(|data: &[u8]| {
    // The bytes never fail to give a choice; a payload of raw bytes is as long as there are some.
    run(data).expect("choices do not run out");
});

/// What a well-formed text may still be refused for: limits, and literals that are judged when they are compiled.
const REFUSALS: [&str; 8] = ["R0001", "R0002", "R0003", "R0004", "R0005", "R0208", "R0213", "R0214"];

#[derive(Debug)]
struct Properties;

impl EventProperties for Properties {
    fn content_type(&self) -> Option<&str> {
        Some("application/json")
    }

    fn correlation_data(&self) -> Option<&[u8]> {
        Some(b"\x00\xff")
    }

    fn for_each_user_property(&self, visit: &mut dyn FnMut(&str, &str)) {
        visit("a", "1");
        visit("b", "\"");
        visit("a", "");
    }
}

fn run(data: &[u8]) -> Result<()> {
    let mut bytes = Unstructured::new(data);
    let limits = Limits {
        // A tenth of the usual budgets keeps each run short; less lets each of them run out in every place.
        steps: *bytes.choose(&[100_000, 100_000, 10_000, 1_000, 200, 50])?,
        array_steps: *bytes.choose(&[1_000, 1_000, 20, 5])?,
        output_bytes: *bytes.choose(&[64 << 10, 64 << 10, 1_000, 40])?,
        ..Limits::default()
    };
    let now_ms = *bytes.choose(&[
        0,
        1_700_000_000_123,
        253_402_300_799_999,
        -62_135_596_800_000,
        i64::MAX,
        i64::MIN,
    ])?;
    let is_full = bytes.arbitrary::<bool>()?;
    let mut grammar = Grammar::new(&mut bytes);
    let payload = grammar.payload()?;
    let sql = grammar.statement()?;

    let mut event = Event::new("sensors/room-1/temp", &payload);
    event.now_ms = now_ms;
    if is_full {
        event.client_id = Some("dev-1");
        event.username = Some("u");
        event.principal = Some("p");
        event.source_ip = Some(IpAddr::V4(Ipv4Addr::LOCALHOST));
        event.listener = Some("tcp");
        event.qos = 2;
        event.retain = true;
        event.trace_id = Some(1);
        event.account_id = Some("acc");
        event.properties = &Properties;
    }

    let rule = match compile(&sql, Dialect::Aws, &limits) {
        Ok(rule) => rule,
        Err(error) => {
            assert!(REFUSALS.contains(&error.code), "{}", error.render(&sql));
            return Ok(());
        }
    };
    let outcome = rule.evaluate(&mut Evaluation::new(&event, 1));
    check_outcome(&outcome, &limits, &sql);
    check_again(&rule, &outcome, &event, &limits, &sql);

    let output = match &outcome {
        Outcome::Output(output) => Some(output),
        _ => None,
    };
    for kind in [
        TemplateKind::Text,
        TemplateKind::PlainText,
        TemplateKind::Topic,
        TemplateKind::UrlPart,
        TemplateKind::HeaderValue,
        TemplateKind::Integer { min: 0, max: 2 },
        TemplateKind::Boolean,
    ] {
        if !grammar.is_empty() {
            check_template(&rule, kind, &grammar.template()?, output, &event, &limits);
        }
    }
    Ok(())
}

fn check_outcome(outcome: &Outcome, limits: &Limits, sql: &str) {
    let Outcome::Output(output) = outcome else { return };
    assert!(output.bytes().len() <= limits.output_bytes, "{sql}");
    if output.is_json() {
        check_json(output.bytes(), sql);
    }
}

fn check_json(bytes: &[u8], sql: &str) {
    let text = std::str::from_utf8(bytes).expect("JSON is UTF-8");
    // A number out of serde_json's range is JSON all the same.
    if let Err(error) = serde_json::from_str::<serde_json::Value>(text) {
        let error = error.to_string();
        assert!(error.contains("out of range") || error.contains("recursion"), "{error}: {text}\n{sql}");
    }
}

fn check_again(rule: &CompiledRule, first: &Outcome, event: &Event<'_>, limits: &Limits, sql: &str) {
    assert_eq!(rule.evaluate(&mut Evaluation::new(event, 1)), *first, "{sql}");
    // After a rule that read the payload, in the same evaluation.
    let all = compile("SELECT * FROM '#'", Dialect::Aws, limits).expect("it compiles");
    let mut shared = Evaluation::new(event, 1);
    let whole = all.evaluate(&mut shared);
    assert!(!matches!(whole, Outcome::NoMatch | Outcome::NoOutput));
    assert_eq!(rule.evaluate(&mut shared), *first, "{sql}");
    if rule.filters().iter().any(|filter| mqtt_protocol::matches(filter, event.topic)) {
        assert_eq!(rule.explain(&mut Evaluation::new(event, 1)).outcome, *first, "{sql}");
    }
    if matches!(first, Outcome::Output(_) | Outcome::NoOutput) {
        let mut found = Vec::new();
        PredicateIndex::new([rule]).candidates(&mut Evaluation::new(event, 1), 0, &mut found);
        assert_eq!(found, [0], "{sql}");
    }
    let printed = rule.to_sql();
    match compile(printed, Dialect::Aws, limits) {
        Ok(again) => {
            assert_eq!(again.to_sql(), printed, "{sql}");
            assert_eq!(again.filters(), rule.filters(), "{sql}");
            assert_eq!(again.needs_payload(), rule.needs_payload(), "{sql}");
            assert_eq!(again.evaluate(&mut Evaluation::new(event, 1)), *first, "{sql}\n{printed}");
        }
        // Canonical parentheses may take a statement past a limit, never past the grammar.
        Err(error) => assert!(error.code.starts_with("R000"), "{}", error.render(printed)),
    }
}

fn check_template(
    rule: &CompiledRule,
    kind: TemplateKind,
    text: &str,
    output: Option<&Output>,
    event: &Event<'_>,
    limits: &Limits,
) {
    let template = match rule.template(text, kind, limits) {
        Ok(template) => template,
        Err(error) => {
            let is_constant = error.code == "R0303";
            assert!(is_constant || REFUSALS.contains(&error.code), "{}", error.render(text));
            return;
        }
    };
    let render = || {
        let mut out = b"kept".to_vec();
        let result = template.render(&mut Evaluation::new(event, 1), output, &mut out);
        let rendered = out.strip_prefix(b"kept").expect("what was there stays").to_vec();
        assert!(result.is_ok() || rendered.is_empty(), "{text}");
        result.map(|()| rendered)
    };
    let first = render();
    assert_eq!(render(), first, "{text}");
    assert_eq!(template.explain(&mut Evaluation::new(event, 1), output).rendered, first, "{text}");
    let Ok(rendered) = first else { return };
    let as_text = || std::str::from_utf8(&rendered).expect("this kind is text");
    match kind {
        TemplateKind::Topic => assert!(validate_topic_name(as_text()).is_ok()),
        TemplateKind::HeaderValue => assert!(!rendered.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0))),
        TemplateKind::Integer { .. } => assert!(matches!(&*rendered, b"0" | b"1" | b"2")),
        TemplateKind::Boolean => assert!(matches!(&*rendered, b"true" | b"false")),
        _ => {}
    }
}
