//! Each limit at its value and one past it; and that data can exhaust a budget, never the process.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends at the first fault"
)]

use std::fmt::Write as _;

use rules_sql::{Dialect, EvalError, Evaluation, Event, Limits, Outcome, Template, TemplateKind, compile};

#[track_caller]
fn refused(sql: &str, limits: &Limits, code: &str) {
    let error = compile(sql, Dialect::Aws, limits).expect_err("accepted");
    assert_eq!(error.code, code, "{}", error.message);
}

#[track_caller]
fn accepted(sql: &str, limits: &Limits) -> rules_sql::CompiledRule {
    compile(sql, Dialect::Aws, limits).unwrap_or_else(|error| panic!("{}", error.render(sql)))
}

fn run(sql: &str, payload: &[u8], limits: &Limits) -> Outcome {
    let rule = accepted(sql, limits);
    let event = Event::new("a/b", payload);
    rule.evaluate(&mut Evaluation::new(&event, 1))
}

#[test]
fn statement_bytes() {
    let base = "SELECT a FROM 't' WHERE a = '";
    let limits = Limits { statement_bytes: 100, ..Limits::default() };
    let fill = |n: usize| format!("{base}{}'", "x".repeat(n - base.len() - 1));
    accepted(&fill(100), &limits);
    refused(&fill(101), &limits, "R0001");
}

#[test]
fn depth() {
    let limits = Limits::default();
    let nested = |n: usize| format!("SELECT {}a{} AS x FROM 't'", "(".repeat(n), ")".repeat(n));
    accepted(&nested(63), &limits);
    // What is accepted at the limit can be evaluated, on a test thread's 2 MiB too.
    for deepest in [
        nested(63),
        format!("SELECT {}1{} AS x FROM 't'", "abs(".repeat(63), ")".repeat(63)),
        format!("SELECT {}1{} AS x FROM 't'", "[".repeat(63), "]".repeat(63)),
    ] {
        assert!(matches!(run(&deepest, b"{}", &limits), Outcome::Output(_)));
    }
    refused(&nested(64), &limits, "R0002");
    for (open, close) in [
        ("NOT ", ""),
        ("- ", ""),
        ("[", "]"),
        ("abs(", ")"),
        ("{'k':", "}"),
        ("CASE WHEN ", " THEN 1 END"),
        ("a + (", ")"),
        ("a[", "]"),
    ] {
        let deep = |n: usize| format!("SELECT {}a{} AS x FROM 't'", open.repeat(n), close.repeat(n));
        accepted(&deep(20), &limits);
        refused(&deep(200), &limits, "R0002");
    }
}

#[test]
fn variables_do_not_hide_depth() {
    let nested = |n: usize, deep: usize| {
        let mut sql = "SET @v0 = 1".to_owned();
        for place in 1..n {
            let (open, close) = ("[".repeat(deep), "]".repeat(deep));
            write!(sql, ", @v{place} = {open}@v{}{close}", place - 1).unwrap();
        }
        write!(sql, " SELECT @v{} AS v, @v{0} = @v{0} AS same FROM 't'", n - 1).unwrap();
        sql
    };
    let limits = Limits { depth: 1_000, ..Limits::default() };
    for sql in [nested(40, 2), nested(3, 60)] {
        assert!(matches!(run(&sql, b"", &limits), Outcome::Output(_)), "{sql}");
    }
    refused(&nested(60, 2), &limits, "R0002");
    refused(&nested(60, 60), &limits, "R0002");
    refused(&nested(200, 1), &limits, "R0002");
    // A limit beyond what a stack holds counts as 64.
    refused(&format!("SELECT {}a{} AS x FROM 't'", "(".repeat(500), ")".repeat(500)), &limits, "R0002");
}

#[test]
fn chains_are_flat_and_counted() {
    let limits = Limits::default();
    for op in [" AND ", " OR ", " + ", " || "] {
        let chain = |n: usize| format!("SELECT * FROM 't' WHERE {}", vec!["a"; n].join(op));
        accepted(&chain(4_000), &limits);
        refused(&chain(5_000), &limits, "R0003");
    }
    let list = (0..9_000).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
    accepted(&format!("SELECT * FROM 't' WHERE a IN ({list})"), &limits);
}

#[test]
fn items() {
    let limits = Limits { items: 3, ..Limits::default() };
    accepted("SELECT a, b, c FROM 't'", &limits);
    refused("SELECT a, b, c, d FROM 't'", &limits, "R0004");
    refused("SET @a = 1, @b = 2, @c = 3, @d = 4 SELECT a FROM 't'", &limits, "R0004");
}

#[test]
fn subqueries() {
    let nested = |n: usize| (0..n).fold("x".to_owned(), |inner, _| format!("(SELECT VALUE {inner} FROM y)"));
    accepted(&format!("SELECT {} AS z FROM 't'", nested(4)), &Limits::default());
    refused(&format!("SELECT {} AS z FROM 't'", nested(5)), &Limits::default(), "R0005");
}

#[test]
fn steps_and_array_steps() {
    let array = |n: usize| format!("{{\"a\":[{}]}}", vec!["1"; n].join(","));
    let limits = Limits { array_steps: 100, ..Limits::default() };
    let sql = "SELECT VALUE (SELECT VALUE x FROM a AS x) FROM 't'";
    assert!(matches!(run(sql, array(100).as_bytes(), &limits), Outcome::Output(_)));
    assert_eq!(
        run(sql, array(101).as_bytes(), &limits),
        Outcome::Failed(EvalError::ArraySteps { limit: 100 })
    );
    let limits = Limits { steps: 100, ..Limits::default() };
    assert_eq!(run(sql, array(101).as_bytes(), &limits), Outcome::Failed(EvalError::Steps { limit: 100 }));
    // In WHERE too.
    let sql = "SELECT * FROM 't' WHERE 2 IN a";
    assert_eq!(run(sql, array(101).as_bytes(), &limits), Outcome::Failed(EvalError::Steps { limit: 100 }));
}

#[test]
fn output_bytes() {
    let limits = Limits { output_bytes: 100, ..Limits::default() };
    let payload = |n: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(n - 8));
    for sql in ["SELECT * FROM 't'", "SELECT a FROM 't'", "SELECT *, a FROM 't'"] {
        assert!(matches!(run(sql, payload(100).as_bytes(), &limits), Outcome::Output(_)), "{sql}");
        let past = run(sql, payload(101).as_bytes(), &limits);
        assert_eq!(past, Outcome::Failed(EvalError::OutputBytes { limit: 100 }), "{sql}");
    }
}

#[test]
fn growing_values_end_by_a_budget() {
    // Each variable doubles the one before.
    let mut sql = "SET @v0 = 'xxxxxxxxxxxxxxxx'".to_owned();
    for n in 1..60 {
        write!(sql, ", @v{n} = @v{0} || @v{0}", n - 1).unwrap();
    }
    sql.push_str(" SELECT @v59 AS v FROM 't'");
    assert!(matches!(run(&sql, b"", &Limits::default()), Outcome::Failed(_)));
    let mut arrays = "SET @v0 = [1, 2, 3, 4]".to_owned();
    for n in 1..60 {
        write!(arrays, ", @v{n} = concat(@v{0}, @v{0})", n - 1).unwrap();
    }
    arrays.push_str(" SELECT @v59 AS v FROM 't'");
    assert!(matches!(run(&arrays, b"", &Limits::default()), Outcome::Failed(_)));
    // Nesting without copying: the tree shares its branches, the text would not.
    let mut nested = "SET @v0 = [1]".to_owned();
    for n in 1..40 {
        write!(nested, ", @v{n} = [@v{0}, @v{0}]", n - 1).unwrap();
    }
    for end in [
        " SELECT @v39 AS v FROM 't'",
        " SELECT @v39 = @v39 AS v FROM 't'",
        " SELECT length(@v39) AS v FROM 't'",
    ] {
        assert!(
            matches!(run(&format!("{nested}{end}"), b"", &Limits::default()), Outcome::Failed(_)),
            "{end}"
        );
    }
    let replace =
        "SELECT replace(replace(replace(replace(a, 'x', a), 'x', a), 'x', a), 'x', a) AS v FROM 't'";
    let payload = format!("{{\"a\":\"{}\"}}", "x".repeat(200));
    assert!(matches!(run(replace, payload.as_bytes(), &Limits::default()), Outcome::Failed(_)));
}

#[test]
fn regular_expressions() {
    let limits = Limits::default();
    refused("SELECT regexp_matches(a, '(((\\w{200}){100}){10})') AS x FROM 't'", &limits, "R0208");
    // At run time an oversized or invalid pattern is Undefined, and many of them end by the budget.
    let sql = "SELECT isUndefined(regexp_matches(a, p)) AS x FROM 't'";
    let payload = br#"{"a": "b", "p": "(((\\w{200}){100}){10})"}"#;
    let Outcome::Output(output) = run(sql, payload, &limits) else { panic!("no output") };
    assert_eq!(output.bytes(), br#"{"x":true}"#);
    let many = format!("{{\"p\":[{}]}}", vec!["\"a{50}\""; 9_000].join(","));
    let sql = "SELECT VALUE (SELECT VALUE regexp_matches('b', x) FROM p AS x) FROM 't'";
    assert!(matches!(run(sql, many.as_bytes(), &limits), Outcome::Failed(EvalError::Steps { .. })));
    // A replacement that comes to nothing is read at each match all the same.
    let limits = Limits { steps: 100_000, ..Limits::default() };
    let sql = "SELECT regexp_replace(a, 'x', r) AS v FROM 't'";
    for empty in ["${none}", "$9"] {
        let (text, replacement) = ("x".repeat(30_000), empty.repeat(10_000));
        let payload = format!("{{\"a\":\"{text}\",\"r\":\"{replacement}\"}}");
        assert!(matches!(run(sql, payload.as_bytes(), &limits), Outcome::Failed(EvalError::Steps { .. })));
    }
    // Braces without an end are not searched for one again and again.
    let payload = format!("{{\"a\":\"x\",\"r\":\"{}\"}}", "${".repeat(50_000));
    assert!(matches!(run(sql, payload.as_bytes(), &limits), Outcome::Output(_)));
}

#[test]
fn a_pattern_seen_before_changes_no_outcome() {
    let sql = "SELECT regexp_matches(a, p) AS m, regexp_substr(a, p) AS s, regexp_replace(a, p, '<$1>') AS r FROM 't'";
    let patterns = [
        "[0-9]+",
        "(b+)",
        "",
        "(",
        "(?=a)",
        "\\\\w{200}{100}{10}",
        "^a|c$",
        "a{50}",
        "é",
        "(?i)B",
        "\\u0000",
    ];
    // Enough others in between to drive each of them out.
    let others: Vec<String> = (0..100).map(|n| format!("x{n}")).collect();
    let payload = |pattern: &str| format!("{{\"a\":\"abbc 12é\",\"p\":\"{pattern}\"}}");
    // The budget runs out at the same place, cold or warm: from none to enough.
    for steps in (0..40_000).step_by(613).chain([1_000_000]) {
        let limits = Limits { steps, ..Limits::default() };
        for pattern in patterns {
            let cold = run(sql, payload(pattern).as_bytes(), &limits);
            let warm = run(sql, payload(pattern).as_bytes(), &limits);
            assert_eq!(cold, warm, "{pattern} with {steps} steps");
        }
    }
    let outcomes = || patterns.map(|pattern| run(sql, payload(pattern).as_bytes(), &Limits::default()));
    let warm = outcomes();
    for other in &others {
        run(sql, payload(other).as_bytes(), &Limits::default());
    }
    assert_eq!(outcomes(), warm);
    let other_thread = std::thread::scope(|scope| scope.spawn(outcomes).join().unwrap());
    assert_eq!(other_thread, warm);
    assert!(warm.iter().any(|outcome| *outcome != warm[3]), "{warm:?}");
}

#[test]
fn deep_payloads_are_text() {
    let json = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
    let is_json = |n: usize| match run("SELECT * FROM 't'", json(n).as_bytes(), &Limits::default()) {
        Outcome::Output(output) => output.is_json(),
        other => panic!("{other:?}"),
    };
    assert!(is_json(64));
    assert!(!is_json(65));
    assert!(!is_json(1_000_000 / 2));
}

#[test]
fn template_bytes() {
    let limits = Limits { template_bytes: 20, ..Limits::default() };
    let compile = |n: usize| Template::compile(&"x".repeat(n), TemplateKind::Text, Dialect::Aws, &limits);
    assert!(compile(20).is_ok());
    assert_eq!(compile(21).unwrap_err().code, "R0304");
}

#[test]
fn dialect_emqx_has_a_code_of_its_own() {
    let error = compile("SELECT * FROM \"t\"", Dialect::Emqx, &Limits::default()).unwrap_err();
    assert_eq!(error.code, "R0010");
}
