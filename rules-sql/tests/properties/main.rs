//! Properties: values against models of their own (one file each), the JSON scanner against serde_json, printing and
//! reading back, no panics.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends at the first fault"
)]

mod copy;
mod logic;
mod model;
mod numbers;
mod strings;
mod values;

use std::cell::RefCell;
use std::collections::HashMap;

use proptest::prelude::*;
use rules_sql::{CompiledRule, Dialect, Evaluation, Event, Limits, Outcome, Template, TemplateKind, compile};

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

thread_local! {
    /// Most properties ask the same statements of other payloads.
    static RULES: RefCell<HashMap<String, CompiledRule>> = RefCell::new(HashMap::new());
}

fn outcome(sql: &str, payload: &[u8]) -> Outcome {
    let rule = RULES.with_borrow_mut(|rules| {
        let rule = rules.entry(sql.to_owned()).or_insert_with(|| {
            compile(sql, Dialect::Aws, &Limits::default())
                .unwrap_or_else(|error| panic!("{}", error.render(sql)))
        });
        rule.clone()
    });
    rule.evaluate(&mut Evaluation::new(&Event::new("a/b", payload), 1))
}

/// The output of a statement as text; `None` for no output.
fn output(sql: &str, payload: &[u8]) -> Option<String> {
    match outcome(sql, payload) {
        Outcome::Output(output) => Some(String::from_utf8(output.into_bytes()).unwrap()),
        Outcome::NoOutput => None,
        other => panic!("{sql}: {other:?}"),
    }
}

/// The output of `SELECT VALUE expr` as text; `None` for Undefined.
fn value(expr: &str, payload: &[u8]) -> Option<String> {
    output(&format!("SELECT VALUE ({expr}) FROM '#'"), payload)
}

/// As [`value`], for what is a Boolean or Undefined.
fn truth(expr: &str, payload: &[u8]) -> Option<bool> {
    value(expr, payload).map(|text| text.parse().unwrap())
}

fn json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        (-5_i64..5).prop_map(Into::into),
        any::<f64>().prop_filter("finite", |f| f.is_finite()).prop_map(Into::into),
        ".{0,6}".prop_map(Into::into),
        "[ab\"\\\\\u{0}-\u{1f}é]{0,4}".prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 32, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Into::into),
            prop::collection::btree_map("[a-c\"é]{0,2}", inner, 0..5)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Expressions as text, over a payload with the fields a to d.
fn expression() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("a".to_owned()),
        Just("b.c".to_owned()),
        Just("d[0]".to_owned()),
        Just("`my key`".to_owned()),
        Just("value".to_owned()),
        Just("NULL".to_owned()),
        Just("true".to_owned()),
        Just("'it''s'".to_owned()),
        Just("\"x\"".to_owned()),
        Just("topic()".to_owned()),
        (0_u32..100).prop_map(|n| n.to_string()),
        "[0-9]{1,3}\\.[0-9]{1,3}",
    ];
    leaf.prop_recursive(5, 40, 3, |inner| {
        let binary = prop_oneof![
            Just("+"),
            Just("-"),
            Just("*"),
            Just("/"),
            Just("%"),
            Just("||"),
            Just(" mod "),
            Just(" div "),
        ];
        let logic = prop_oneof![Just("AND"), Just("OR")];
        let compare = prop_oneof![Just("="), Just("<>"), Just("<"), Just(">="), Just("LIKE"), Just("IN")];
        prop_oneof![
            (inner.clone(), binary, inner.clone()).prop_map(|(a, op, b)| format!("{a}{op}{b}")),
            (inner.clone(), logic, inner.clone()).prop_map(|(a, op, b)| format!("{a} {op} {b}")),
            (inner.clone(), compare, inner.clone()).prop_map(|(a, op, b)| format!("({a}) {op} ({b})")),
            inner.clone().prop_map(|a| format!("({a})")),
            inner.clone().prop_map(|a| format!("NOT {a}")),
            inner.clone().prop_map(|a| format!("- {a}")),
            inner.clone().prop_map(|a| format!("({a}).x[1]")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("[{a}, {b}]")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("{{'k': {a}, \"l\": {b},}}")),
            (inner.clone(), inner.clone(), inner.clone())
                .prop_map(|(a, b, c)| format!("CASE {a} WHEN {b} THEN {c} END")),
            (inner.clone(), inner.clone(), inner.clone())
                .prop_map(|(a, b, c)| format!("CASE WHEN {a} THEN {b} ELSE {c} END")),
            (inner.clone(), inner.clone(), inner.clone())
                .prop_map(|(a, b, c)| format!("({a}) BETWEEN ({b}) AND ({c})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a}) NOT IN ({b}, 1)")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("concat({a}, {b})")),
            inner.clone().prop_map(|a| format!("CAST({a} AS String)")),
            inner.prop_map(|a| format!("(SELECT VALUE ({a}) FROM d AS e WHERE e > 1)")),
        ]
    })
}

const PAYLOAD: &[u8] = br#"{"a": 5, "b": {"c": "7"}, "d": [1, 2, 3], "my key": 2.50, "value": true}"#;

fn token() -> impl Strategy<Value = String> {
    let words = [
        "SELECT", "VALUE", "FROM", "WHERE", "AS", "SET", "AND", "OR", "NOT", "IN", "LIKE", "BETWEEN", "CASE",
        "WHEN", "THEN", "ELSE", "END", "CAST", "EXISTS", "ESCAPE", "IS", "NULL", "true", "mod", "div", "a",
        "b.c", "@v", "'t/#'", "\"x\"", "1", "1.5", "1e5", ".5", "5.", "(", ")", "[", "]", "{", "}", ",", ".",
        ":", ";", "+", "-", "*", "/", "%", "||", "=", "<", ">", "<=", ">=", "<>", "!=", "==", "=~", "~",
        "->", "::", "--", "/*", "'", "`", "?", "$1", "#", "&", "^", "!", "@", "\\", "é", "COLLATE", "AT",
        "x'00'", "N'a'", "round(", "topic(", "get(", "ANY", "ALL", "INTERVAL", "ARRAY", "DISTINCT", "*",
        "\n",
    ];
    prop::sample::select(words.to_vec()).prop_map(str::to_owned)
}

/// Strings and digits are passed over in words of eight bytes: each byte is tried at each place of more than two words.
#[test]
fn every_byte_at_every_place_of_a_string_and_of_a_number_is_judged_as_serde_json_does() {
    let rule = compile("SELECT * FROM '#'", Dialect::Aws, &Limits::default()).unwrap();
    for (before, inside, after) in [("\"", "abcdefghijklmnopqrs", "\""), ("[", "1234567890123456789", "]")] {
        for len in 1..=inside.len() {
            let text = format!("{before}{}{after}", inside.get(..len).unwrap());
            for place in before.len()..before.len() + len {
                for byte in 0..=u8::MAX {
                    let mut bytes = text.clone().into_bytes();
                    bytes[place] = byte;
                    let event = Event::new("a", &bytes);
                    let outcome = rule.evaluate(&mut Evaluation::new(&event, 1));
                    let Outcome::Output(output) = outcome else { panic!("no output") };
                    // What is ignored is not checked to be UTF-8.
                    let reference = std::str::from_utf8(&bytes)
                        .is_ok_and(|text| serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok());
                    assert_eq!(output.is_json(), reference, "{:?}", String::from_utf8_lossy(&bytes));
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(config(400))]

    #[test]
    fn the_scanner_accepts_what_serde_json_accepts(a in json(), at in any::<prop::sample::Index>(), with in any::<u8>(), how in 0..4) {
        let mut bytes = a.to_string().into_bytes();
        let place = at.index(bytes.len());
        match how {
            0 => bytes[place] = with,
            1 => drop(bytes.remove(place)),
            2 => bytes.insert(place, b"{}[],:\"\\0-e.u"[usize::from(with) % 13]),
            _ => {}
        }
        prop_assume!(!bytes.is_empty());
        let rule = compile("SELECT * FROM '#'", Dialect::Aws, &Limits::default()).unwrap();
        let event = Event::new("a", &bytes);
        let Outcome::Output(output) = rule.evaluate(&mut Evaluation::new(&event, 1)) else { panic!("no output") };
        let reference = match serde_json::from_slice::<serde_json::Value>(&bytes) {
            Ok(_) => true,
            // A limit of theirs, unless the rest of the text is at fault.
            Err(error) if error.to_string().contains("out of range") => {
                serde_json::from_slice::<serde::de::IgnoredAny>(&bytes).is_ok()
            }
            Err(_) => false,
        };
        prop_assert_eq!(output.is_json(), reference, "{:?}", String::from_utf8_lossy(&bytes));
        prop_assert_eq!(output.bytes(), &bytes[..]);
    }

    #[test]
    fn printed_sql_means_the_same(expr in expression()) {
        let sql = format!("SELECT {expr} AS x FROM 'a/#' WHERE ({expr}) = ({expr}) OR true");
        let limits = Limits::default();
        match compile(&sql, Dialect::Aws, &limits) {
            // Comparisons may chain and depth may run out; that is refused, not misread.
            Err(error) => prop_assert!(["R0105", "R0002", "R0214", "R0005", "R0101"].contains(&error.code), "{}", error.render(&sql)),
            Ok(rule) => {
                let printed = rule.to_sql();
                let again = compile(printed, Dialect::Aws, &limits)
                    .unwrap_or_else(|error| panic!("{sql}\n{}", error.render(printed)));
                prop_assert_eq!(again.to_sql(), printed);
                let event = Event::new("a/b", PAYLOAD);
                let first = rule.evaluate(&mut Evaluation::new(&event, 1));
                prop_assert_eq!(again.evaluate(&mut Evaluation::new(&event, 1)), first);
            }
        }
    }

    #[test]
    fn no_statement_panics(tokens in prop::collection::vec(token(), 0..40), payload in prop::collection::vec(any::<u8>(), 0..40), glue in any::<bool>()) {
        let text = tokens.join(if glue { " " } else { "" });
        for sql in [text.clone(), format!("SELECT {text}"), format!("SELECT VALUE {text} FROM '#'"), format!("SELECT * FROM '#' WHERE {text}")] {
            match compile(&sql, Dialect::Aws, &Limits::default()) {
                Ok(rule) => {
                    let event = Event::new("a/b", &payload);
                    let _outcome = rule.evaluate(&mut Evaluation::new(&event, 1));
                }
                Err(error) => {
                    prop_assert!(sql.is_char_boundary(error.span.start) && error.span.end <= sql.len());
                    prop_assert!(error.render(&sql).contains(error.code));
                }
            }
        }
        let template = format!("${{{text}}} {{\"a\": \"${{a}}\"}}");
        if let Ok(template) = Template::compile(&template, TemplateKind::Text, Dialect::Aws, &Limits::default()) {
            let event = Event::new("a/b", PAYLOAD);
            let _rendered = template.render(&mut Evaluation::new(&event, 1), None, &mut Vec::new());
        }
    }

    #[test]
    fn a_template_may_match_whatever_its_renderings_match(
        pieces in prop::collection::vec(prop::sample::select(vec!["a", "b", "/", "${x}", "${topic(1)}", "${y}", "$$"]), 1..6),
        filter in prop::collection::vec(prop::sample::select(vec!["a", "b", "+", "", "$"]), 1..4),
        rest in any::<bool>(),
        x in "[ab/]{0,4}",
        y in "[ab/$]{0,3}",
    ) {
        let mut filter = filter.join("/");
        if rest {
            filter.push_str("/#");
        }
        prop_assume!(mqtt_protocol::validate_topic_filter(&filter).is_ok());
        let text = pieces.concat();
        let Ok(template) = Template::compile(&text, TemplateKind::Topic, Dialect::Aws, &Limits::default()) else {
            return Ok(());
        };
        let payload = serde_json::json!({"x": x, "y": y}).to_string();
        let event = Event::new("b/a", payload.as_bytes());
        let mut out = Vec::new();
        if template.render(&mut Evaluation::new(&event, 1), None, &mut out).is_ok() {
            let topic = String::from_utf8(out).unwrap();
            prop_assert!(!mqtt_protocol::matches(&filter, &topic) || template.may_match(&filter), "{text} as {topic}, {filter}");
        }
    }
}
