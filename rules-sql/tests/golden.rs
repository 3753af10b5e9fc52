//! Golden files under `tests/testdata`: cases of input, `----`, expected output, separated by blank lines.
//!
//! `RULES_SQL_REWRITE=1 cargo test -p rules-sql --test golden` writes what comes out; read the difference.
//! Lines `@topic`, `@payload` and `@clientid` before the SQL set the message for this case and those after it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends at the first fault"
)]

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use rules_sql::{Dialect, Evaluation, Event, Limits, Outcome, Template, TemplateKind, compile};

struct Message {
    topic: String,
    payload: Vec<u8>,
    client_id: Option<String>,
}

#[track_caller]
fn check(folder: &str, run: impl Fn(&str, &mut Message) -> String) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/testdata").join(folder);
    let rewrite = std::env::var_os("RULES_SQL_REWRITE").is_some();
    let mut count = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let mut message =
            Message { topic: "a/b".to_owned(), payload: b"{}".to_vec(), client_id: Some("dev-1".to_owned()) };
        let mut written = String::new();
        for case in text.split("\n\n").map(str::trim).filter(|case| !case.is_empty()) {
            if case.starts_with('#') {
                writeln!(written, "{case}\n").unwrap();
                continue;
            }
            let (input, expected) = case.split_once("----").unwrap_or((case, ""));
            let (input, expected) = (input.trim_end(), expected.trim());
            let actual = run(input, &mut message);
            let actual = actual.trim();
            writeln!(written, "{input}\n----\n{actual}\n").unwrap();
            assert!(
                rewrite || actual == expected,
                "{}:\n{input}\n---- expected\n{expected}\n---- actual\n{actual}",
                path.display()
            );
            count += 1;
        }
        if rewrite {
            fs::write(&path, written.trim_end().to_owned() + "\n").unwrap();
        }
    }
    assert!(count > 0, "no case in {}", folder.display());
}

fn settings<'c>(input: &'c str, message: &mut Message) -> &'c str {
    let mut sql = input;
    while let Some(rest) = sql.strip_prefix('@') {
        let (line, after) = rest.split_once('\n').unwrap_or((rest, ""));
        let (name, value) = line.split_once(' ').unwrap_or((line, ""));
        match name {
            "topic" => message.topic = value.to_owned(),
            "payload" => message.payload = value.as_bytes().to_vec(),
            "clientid" => message.client_id = Some(value.to_owned()),
            other => panic!("unknown setting @{other}"),
        }
        sql = after;
    }
    sql
}

#[test]
fn parse() {
    check("parse", |input, _| {
        let rule = compile(input, Dialect::Aws, &Limits::default())
            .unwrap_or_else(|error| panic!("{}", error.render(input)));
        let printed = rule.to_sql().to_owned();
        let again = compile(&printed, Dialect::Aws, &Limits::default())
            .unwrap_or_else(|error| panic!("printed: {}", error.render(&printed)));
        assert_eq!(again.to_sql(), printed);
        printed
    });
}

#[test]
fn error() {
    check("error", |input, _| match compile(input, Dialect::Aws, &Limits::default()) {
        Ok(rule) => panic!("accepted: {}", rule.to_sql()),
        Err(error) => error.render(input),
    });
}

/// Lines after the statement are templates of the rule's actions.
#[test]
fn warn() {
    check("warn", |input, _| {
        let (sql, templates) = input.split_once("\n${}").unwrap_or((input, ""));
        let rule = compile(sql, Dialect::Aws, &Limits::default())
            .unwrap_or_else(|error| panic!("{}", error.render(sql)));
        let mut found: Vec<String> = rule.warnings().iter().map(|warning| warning.render(sql)).collect();
        for text in templates.lines().filter(|line| !line.is_empty()) {
            let template = rule
                .template(text, TemplateKind::PlainText, &Limits::default())
                .unwrap_or_else(|error| panic!("{}", error.render(text)));
            found.extend(template.warnings().iter().map(|warning| warning.render(text)));
        }
        if found.is_empty() { "none".to_owned() } else { found.concat() }
    });
}

#[test]
fn eval() {
    check_eval("eval");
}

/// What needs the database of time zones.
#[cfg(feature = "tzdb")]
#[test]
fn eval_tzdb() {
    check_eval("eval_tzdb");
}

#[track_caller]
fn check_eval(folder: &str) {
    check(folder, |input, message| {
        let sql = settings(input, message);
        let mut event = Event::new(&message.topic, &message.payload);
        event.client_id = message.client_id.as_deref();
        event.now_ms = 1_700_000_000_123;
        let mut ev = Evaluation::new(&event, 7);
        let mut results = Vec::new();
        for line in sql.lines() {
            results.push(if let Some(template) = line.strip_prefix("text ") {
                render(template, TemplateKind::Text, &mut ev)
            } else if let Some(template) = line.strip_prefix("plain ") {
                render(template, TemplateKind::PlainText, &mut ev)
            } else if let Some(template) = line.strip_prefix("url ") {
                render(template, TemplateKind::UrlPart, &mut ev)
            } else if let Some(template) = line.strip_prefix("topic ") {
                render(template, TemplateKind::Topic, &mut ev)
            } else if let Some(template) = line.strip_prefix("int ") {
                render(template, TemplateKind::Integer { min: 0, max: 2 }, &mut ev)
            } else if let Some(template) = line.strip_prefix("bool ") {
                render(template, TemplateKind::Boolean, &mut ev)
            } else {
                evaluate(line, &mut ev)
            });
        }
        results.join("\n")
    });
}

fn render(template: &str, kind: TemplateKind, ev: &mut Evaluation<'_>) -> String {
    let template = match Template::compile(template, kind, Dialect::Aws, &Limits::default()) {
        Ok(template) => template,
        Err(error) => return error.to_string(),
    };
    let mut out = Vec::new();
    match template.render(ev, None, &mut out) {
        Ok(()) => format!("<{}>", String::from_utf8_lossy(&out)),
        Err(error) => format!("error: {error}"),
    }
}

/// A line is a whole statement, or only the expression of one.
fn evaluate(line: &str, ev: &mut Evaluation<'_>) -> String {
    let whole = ["SELECT ", "SET "].iter().any(|w| line.to_ascii_uppercase().starts_with(w));
    let sql = if whole { line.to_owned() } else { format!("SELECT VALUE ({line}) FROM '#'") };
    let rule = compile(&sql, Dialect::Aws, &Limits::default())
        .unwrap_or_else(|error| panic!("{}", error.render(&sql)));
    match rule.evaluate(ev) {
        Outcome::NoMatch => "no match".to_owned(),
        Outcome::NoOutput => "undefined".to_owned(),
        Outcome::Failed(error) => format!("failed: {error}"),
        Outcome::Output(output) if output.is_json() => String::from_utf8(output.into_bytes()).unwrap(),
        Outcome::Output(output) => format!("raw: {:?}", String::from_utf8_lossy(output.bytes())),
    }
}
