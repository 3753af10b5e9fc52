//! Explanations: what they show, and that they say what the evaluation did.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends at the first fault"
)]

use std::fmt::Write as _;

use rules_sql::{Dialect, Evaluation, Event, Explanation, Limits, Outcome, Step, StepResult, compile};

fn explain(sql: &str, payload: &str) -> Explanation {
    let rule = compile(sql, Dialect::Aws, &Limits::default())
        .unwrap_or_else(|error| panic!("{}", error.render(sql)));
    let mut event = Event::new("sensors/hall/temp", payload.as_bytes());
    event.client_id = Some("dev-1");
    event.now_ms = 1_700_000_000_123;
    let explanation = rule.explain(&mut Evaluation::new(&event, 7));
    if rule.filters().iter().any(|filter| mqtt_protocol::matches(filter, event.topic)) {
        assert_eq!(explanation.outcome, rule.evaluate(&mut Evaluation::new(&event, 7)), "{sql}");
    }
    explanation
}

fn write(step: &Step, depth: usize, out: &mut String) {
    let result = match &step.result {
        StepResult::Value { type_name, json, .. } => format!("{type_name} {json}"),
        StepResult::Undefined => "Undefined".to_owned(),
        StepResult::NotEvaluated => "not evaluated".to_owned(),
        other => format!("{other:?}"),
    };
    let because = step.because.as_ref().map(|text| format!(" ({text})")).unwrap_or_default();
    let mark = if step.decides { " <" } else { "" };
    writeln!(out, "{}{} = {result}{because}{mark}", "  ".repeat(depth), step.sql).unwrap();
    step.steps.iter().for_each(|step| write(step, depth + 1, out));
}

/// WHERE, variables and items as text.
fn text(explanation: &Explanation) -> String {
    let mut out = String::new();
    for variable in &explanation.variables {
        write!(out, "SET {} := ", variable.name).unwrap();
        write(&variable.step, 0, &mut out);
    }
    if let Some(condition) = &explanation.condition {
        write(condition, 0, &mut out);
    }
    for item in &explanation.items {
        write!(out, "SELECT {} := ", item.name).unwrap();
        write(&item.step, 0, &mut out);
    }
    out
}

#[track_caller]
fn shows(sql: &str, payload: &str, expected: &str) {
    assert_eq!(text(&explain(sql, payload)), expected);
}

#[test]
fn what_passes() {
    shows(
        "SELECT temperature AS t, missing, 'x' AS k, topic(2) AS site FROM 'sensors/#' WHERE temperature > 20 AND ok",
        r#"{"temperature": 21.5, "ok": true}"#,
        "temperature > 20 AND ok = Boolean true\n  temperature > 20 = Boolean true\n    temperature = Decimal 21.5\n  ok = Boolean true\n\
         SELECT t := temperature = Decimal 21.5\n\
         SELECT missing := missing = Undefined (the payload has no field missing)\n\
         SELECT k := 'x' = String \"x\"\n\
         SELECT site := topic(2) = String \"hall\"\n",
    );
}

#[test]
fn the_part_that_decided_is_marked() {
    shows(
        "SELECT * FROM '#' WHERE a = 1 AND (b = 2 OR NOT c) AND d > 3",
        r#"{"a": 1, "b": 3, "c": true, "d": 9}"#,
        "a = 1 AND (b = 2 OR NOT c) AND d > 3 = Boolean false <\n  a = 1 = Boolean true\n    a = Int 1\n  (b = 2 OR NOT c) = Boolean false <\n    \
         b = 2 = Boolean false\n      b = Int 3\n    NOT c = Boolean false\n      c = Boolean true\n  d > 3 = not evaluated\n",
    );
    shows(
        "SELECT * FROM '#' WHERE NOT (a = 1 OR b = 2)",
        r#"{"a": 1}"#,
        "NOT (a = 1 OR b = 2) = Boolean false <\n  (a = 1 OR b = 2) = Boolean true <\n    a = 1 = Boolean true <\n      a = Int 1\n    b = 2 = not evaluated\n",
    );
}

#[test]
fn what_needs_no_payload_comes_first_but_stands_where_it_was_written() {
    shows(
        "SELECT * FROM '#' WHERE temperature > 3 AND clientid() = 'dev-2'",
        r#"{"temperature": 9}"#,
        "temperature > 3 AND clientid() = 'dev-2' = Boolean false <\n  temperature > 3 = not evaluated\n  \
         clientid() = 'dev-2' = Boolean false <\n    clientid() = String \"dev-1\"\n",
    );
}

#[test]
fn undefined_says_why() {
    let because = |condition: &str, payload: &str| {
        fn deepest(step: &Step) -> Option<String> {
            step.because.clone().or_else(|| step.steps.iter().find_map(deepest))
        }
        let explanation = explain(&format!("SELECT * FROM '#' WHERE {condition}"), payload);
        let condition = explanation.condition.unwrap();
        assert_eq!(condition.result, StepResult::Undefined, "{condition:?}");
        assert!(condition.decides);
        deepest(&condition).unwrap_or_default()
    };
    let object = r#"{"s": "abc", "n": null, "i": 5, "b": true, "o": {"k": [1, 2]}, "l": []}"#;
    for (condition, payload, expected) in [
        ("x > 1", "not json", "the payload is not JSON, so it has no fields"),
        ("x > 1", "", "the payload is empty, so it has no fields"),
        ("x > 1", "[1]", "the payload is an Array, which has no fields"),
        ("o.x = 1", object, "o has no field x"),
        ("s.x = 1", object, "s is a String, which has no fields"),
        ("o.k[5] = 1", object, "there is no such element in the Array [1,2]"),
        ("s > 1", object, "> compares numbers and number text, not the String \"abc\""),
        ("1 < n", object, "< compares numbers and number text, not Null"),
        ("s BETWEEN 1 AND 2", object, "BETWEEN compares numbers and number text, not the String \"abc\""),
        ("NOT i", object, "AND, OR and NOT take Booleans, not the Int 5"),
        ("b AND i", object, "WHERE takes a Boolean, not the Int 5"),
        ("b AND (i OR s)", object, "AND, OR and NOT take Booleans, not the Int 5"),
        ("i / 0 = 1", object, "the divisor is zero, or the result is out of range"),
        ("i - b = 1", object, "- takes numbers and number text, not the Boolean true"),
        ("i + n = 1", object, "+ takes numbers, or a String to join, not Null"),
        ("-s = 1", object, "a sign takes a number or number text, not the String \"abc\""),
        ("i LIKE 'a%'", object, "LIKE takes Strings, not the Int 5"),
        ("1 IN s", object, "IN takes an Array on its right, not the String \"abc\""),
        (
            "topic() =~ 'a/#/b'",
            object,
            "=~ takes a topic and a topic filter, not the String \"sensors/hall/temp\", the String \"a/#/b\"",
        ),
        ("cast(s AS Int) = 1", object, "the String \"abc\" cannot be cast to Int"),
        ("abs(s) = 1", object, "abs() has no result for the String \"abc\""),
        ("username() = 'a'", object, "the message has no username"),
        ("CASE i WHEN 6 THEN true END", object, "no branch fits, and there is no ELSE"),
        (
            "CASE x WHEN 6 THEN true ELSE false END",
            object,
            "the value after CASE is Undefined, so no branch is taken",
        ),
        ("CASE WHEN i > 6 THEN true END", object, "no condition holds, and there is no ELSE"),
        ("(SELECT VALUE a FROM i) = 1", object, "FROM names the Int 5, neither an Array nor an Object"),
        ("regexp_substr(s, '[0-9]') = 'x'", object, "the pattern has no result for the String \"abc\""),
        ("s = missing", object, "the payload has no field missing"),
    ] {
        // The value after CASE is missing itself, and says so first.
        let actual = match condition.starts_with("CASE x") {
            true => explain(&format!("SELECT * FROM '#' WHERE {condition}"), payload)
                .condition
                .unwrap()
                .because
                .unwrap(),
            false => because(condition, payload),
        };
        assert_eq!(actual, expected, "{condition}");
    }
}

#[test]
fn a_nested_select_shows_each_element() {
    shows(
        "SELECT (SELECT VALUE v * 2 FROM e WHERE v > 1) AS twice FROM '#'",
        r#"{"e": [{"v": 1}, {"v": 2}]}"#,
        "SELECT twice := (SELECT VALUE v * 2 FROM e WHERE v > 1) = Array [4]\n  e = Array [{\"v\": 1}, {\"v\": 2}]\n  \
         element 0 = Object {\"v\":1}\n    v > 1 = Boolean false\n      v = Int 1\n  \
         element 1 = Object {\"v\":2}\n    v > 1 = Boolean true\n      v = Int 2\n    v * 2 = Int 4\n      v = Int 2\n"
            .replace("[{\"v\": 1}, {\"v\": 2}]", "[{\"v\":1},{\"v\":2}]")
            .as_str(),
    );
}

#[test]
fn variables_are_shown_where_they_were_needed_and_those_that_were_not_say_so() {
    shows(
        "SET @f = t * 2, @never = t + 1 SELECT @f AS f FROM '#' WHERE @f > 10",
        r#"{"t": 21}"#,
        "SET @f := t * 2 = Int 42\n  t = Int 21\n\
         SET @never := t + 1 = not evaluated\n\
         @f > 10 = Boolean true\n  @f = Int 42\n    t * 2 = Int 42\n      t = Int 21\n\
         SELECT f := @f = Int 42\n",
    );
}

#[test]
fn another_topic_evaluates_nothing() {
    let explanation = explain("SELECT a FROM 'other/+', 'x' WHERE b = 1 AND c", r#"{"b": 1}"#);
    assert!(explanation.filters.iter().all(|filter| !filter.is_match));
    assert_eq!(explanation.outcome, Outcome::NoMatch);
    assert_eq!(
        text(&explanation),
        "b = 1 AND c = not evaluated\n  b = 1 = not evaluated\n  c = not evaluated\nSELECT a := a = not evaluated\n"
    );
}

#[test]
fn random_values_are_those_of_the_evaluation() {
    let sql = "SET @r = rand() SELECT @r AS r, rand() AS s, newuuid() AS u FROM '#' WHERE rand() >= 0 AND @r >= 0 AND t = 1";
    let explanation = explain(sql, r#"{"t": 1}"#);
    let Outcome::Output(output) = explanation.outcome else { panic!("no output") };
    let output: serde_json::Value = serde_json::from_slice(output.bytes()).unwrap();
    for item in &explanation.items {
        let StepResult::Value { json, .. } = &item.step.result else { panic!("{item:?}") };
        assert_eq!(serde_json::from_str::<serde_json::Value>(json).unwrap(), output[&item.name]);
    }
}

#[test]
fn what_is_copied_keeps_its_escapes() {
    // The helper compares with the evaluation.
    let explanation = explain("SELECT a, b.c FROM '#'", r#"{"a": "\u0041\/", "b": {"c": 1.50}}"#);
    let Outcome::Output(output) = explanation.outcome else { panic!("no output") };
    assert_eq!(output.bytes(), br#"{"a":"\u0041\/","b":{"c":1.50}}"#);
}

#[test]
fn explanations_are_bounded() {
    let payload = format!("{{\"e\": [{}], \"s\": \"{}\"}}", vec!["1"; 9_000].join(","), "é".repeat(5_000));
    let long = vec!["s = 'x'"; 2_500].join(" OR ");
    let sql = format!(
        "SELECT (SELECT VALUE v FROM e AS v WHERE v > 0) AS x, s, {long} AS l, 1 + 1 AS two FROM '#'"
    );
    let explanation = explain(&sql, &payload);
    // The array itself, and its first elements.
    assert_eq!(explanation.items[0].step.steps.len(), 17);
    assert!(explanation.items[2].step.steps.len() <= 4_096);
    let StepResult::Value { json, .. } = &explanation.items[3].step.result else { panic!("{explanation:?}") };
    assert_eq!(json, "2");
    let StepResult::Value { json, is_cut: true, .. } = &explanation.items[1].step.result else {
        panic!("{:?}", explanation.items[1])
    };
    assert!(json.len() <= 1_024);
}
