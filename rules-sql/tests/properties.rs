//! Properties: arithmetic against big integers, the JSON scanner against serde_json, printing and reading back, no panics.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends at the first fault"
)]

use num_bigint::{BigInt, Sign};
use proptest::prelude::*;
use rules_sql::{Dialect, Evaluation, Event, Limits, Outcome, Template, TemplateKind, compile};

/// The output of `SELECT VALUE expr` as text; `None` for Undefined.
fn value(expr: &str, payload: &[u8]) -> Option<String> {
    let sql = format!("SELECT VALUE ({expr}) FROM '#'");
    let rule = compile(&sql, Dialect::Aws, &Limits::default())
        .unwrap_or_else(|error| panic!("{}", error.render(&sql)));
    let event = Event::new("a/b", payload);
    match rule.evaluate(&mut Evaluation::new(&event, 1)) {
        Outcome::Output(output) => Some(String::from_utf8(output.into_bytes()).unwrap()),
        Outcome::NoOutput => None,
        other => panic!("{other:?}"),
    }
}

// ---- a reference for decimals: integer × 10^exponent ----

#[derive(Clone, Debug)]
struct Reference {
    coefficient: BigInt,
    exponent: i64,
}

fn ten(power: i64) -> BigInt {
    BigInt::from(10).pow(u32::try_from(power).unwrap())
}

fn digits(value: &BigInt) -> i64 {
    i64::try_from(value.magnitude().to_string().len()).unwrap()
}

fn is_zero(value: &BigInt) -> bool {
    value.sign() == Sign::NoSign
}

fn absolute(value: &BigInt) -> BigInt {
    BigInt::from(value.magnitude().clone())
}

impl Reference {
    fn parse(text: &str) -> Reference {
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        Reference {
            coefficient: format!("{whole}{fraction}").parse().unwrap(),
            exponent: exponent.parse::<i64>().unwrap() - i64::try_from(fraction.len()).unwrap(),
        }
    }

    /// Rounds the quotient `numerator / denominator × 10^exponent` to 34 digits, half to even. `None`: out of range.
    fn round(numerator: &BigInt, denominator: &BigInt, exponent: i64) -> Option<Reference> {
        if is_zero(numerator) {
            return Some(Reference { coefficient: BigInt::from(0), exponent: 0 });
        }
        let shift = 40 + digits(denominator);
        let scaled = absolute(numerator) * ten(shift);
        let (quotient, rest) = (&scaled / denominator, &scaled % denominator);
        let drop = digits(&quotient) - 34;
        let unit = ten(drop);
        let (mut kept, tail) = (&quotient / &unit, &quotient % &unit);
        let twice = tail * 2;
        let odd = &kept % 2 == BigInt::from(1);
        if twice > unit || (twice == unit && (odd || !is_zero(&rest))) {
            kept += 1;
        }
        let negative = numerator.sign() == Sign::Minus;
        let mut result =
            Reference { coefficient: if negative { -kept } else { kept }, exponent: exponent - shift + drop };
        while &result.coefficient % 10 == BigInt::from(0) {
            result.coefficient /= 10;
            result.exponent += 1;
        }
        let adjusted = result.exponent + digits(&result.coefficient) - 1;
        (-999..=999).contains(&adjusted).then_some(result)
    }

    fn operand(text: &str) -> Option<Reference> {
        let exact = Self::parse(text);
        Self::round(&exact.coefficient, &BigInt::from(1), exact.exponent)
    }

    /// Both as integers over one exponent.
    fn align(&self, other: &Reference) -> (BigInt, BigInt, i64) {
        let exponent = self.exponent.min(other.exponent);
        (
            &self.coefficient * ten(self.exponent - exponent),
            &other.coefficient * ten(other.exponent - exponent),
            exponent,
        )
    }

    fn compute(&self, op: char, other: &Reference) -> Option<Reference> {
        let one = BigInt::from(1);
        let (a, b, exponent) = self.align(other);
        match op {
            '+' => Self::round(&(a + b), &one, exponent),
            '-' => Self::round(&(a - b), &one, exponent),
            '*' => {
                Self::round(&(&self.coefficient * &other.coefficient), &one, self.exponent + other.exponent)
            }
            _ if is_zero(&b) => None,
            '/' => {
                let sign = if b.sign() == Sign::Minus { -a } else { a };
                Self::round(&sign, &absolute(&b), 0)
            }
            _ => Self::round(&(a % b), &one, exponent),
        }
    }
}

fn number_text() -> impl Strategy<Value = String> {
    let exponent = prop_oneof![
        4 => Just(String::new()),
        2 => (-40_i32..40).prop_map(|e| format!("E{e}")),
        1 => (-1000_i32..1000).prop_map(|e| format!("e{e}")),
    ];
    let whole = prop_oneof![
        Just("0".to_owned()),
        "[1-9][0-9]{0,5}",
        "[1-9][0-9]{10,22}",
        "[1-9][0-9]{30,42}",
        "9{1,36}"
    ];
    let fraction =
        prop_oneof![Just(String::new()), "\\.[0-9]{1,6}", "\\.[0-9]{20,40}", "\\.0{1,5}", "\\.50{0,3}"];
    ("-?", whole, fraction, exponent)
        .prop_map(|(sign, whole, fraction, exponent)| sign + &whole + &fraction + &exponent)
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
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arithmetic_is_that_of_big_integers(a in number_text(), b in number_text()) {
        let payload = format!("{{\"a\":{a},\"b\":{b}}}");
        let (x, y) = (Reference::operand(&a), Reference::operand(&b));
        for op in ['+', '-', '*', '/', '%'] {
            let expected = match (&x, &y) {
                (Some(x), Some(y)) => x.compute(op, y),
                _ => None,
            };
            let actual = value(&format!("a {op} b"), payload.as_bytes()).map(|text| Reference::parse(&text));
            let same = match (&actual, &expected) {
                (Some(actual), Some(expected)) => {
                    let (left, right, _) = actual.align(expected);
                    left == right
                }
                (None, None) => true,
                _ => false,
            };
            prop_assert!(same, "{a} {op} {b}: {actual:?} instead of {expected:?}");
        }
        if let (Some(x), Some(y)) = (&x, &y) {
            let (left, right, _) = x.align(y);
            for (op, expected) in [("<", left < right), ("<=", left <= right), ("=", left == right), ("<>", left != right)] {
                prop_assert_eq!(value(&format!("a {op} b"), payload.as_bytes()), Some(expected.to_string()));
            }
        }
    }

    #[test]
    fn a_computed_number_reads_back_as_itself(a in number_text()) {
        let payload = format!("{{\"a\":{a}}}");
        if let Some(text) = value("a + 0", payload.as_bytes()) {
            let again = format!("{{\"a\":{a},\"t\":{text},\"s\":\"{text}\"}}");
            prop_assert_eq!(value("t + 0", again.as_bytes()), Some(text.clone()));
            prop_assert_eq!(value("s - 0", again.as_bytes()), Some(text));
        }
    }

    #[test]
    fn equality_is_symmetric_and_reflexive(a in json(), b in json()) {
        let payload = serde_json::json!({"a": a, "b": b}).to_string();
        let payload = payload.as_bytes();
        prop_assert_eq!(value("a = b", payload), value("b = a", payload));
        prop_assert_eq!(value("a = a AND b = b", payload), Some("true".to_owned()));
        prop_assert_eq!(value("a = b", payload), value("NOT a <> b", payload));
        prop_assert_eq!(value("a < b", payload), value("b > a", payload));
        prop_assert_eq!(value("a <= b", payload), value("b >= a", payload));
        prop_assert_eq!(value("a < b", payload), value("NOT a >= b", payload));
    }

    #[test]
    fn what_is_copied_is_the_same_json(a in json()) {
        let payload = serde_json::json!({"a": a});
        let pretty = serde_json::to_string_pretty(&payload).unwrap();
        // Read back once, so that both sides went through the same reading of floats.
        let payload: serde_json::Value = serde_json::from_str(&pretty).unwrap();
        for expr in ["a", "{'x': a}.x", "json_decode(json_encode(a))", "[a][0]"] {
            let copied = value(expr, pretty.as_bytes()).unwrap();
            prop_assert_eq!(&serde_json::from_str::<serde_json::Value>(&copied).unwrap(), &payload["a"], "{}", expr);
        }
    }

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
