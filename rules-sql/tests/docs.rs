//! The pages of the manual hold: every example of `docs/rules-sql.md` is run.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends at the first fault"
)]

use std::fs;
use std::path::Path;

use rules_sql::{Dialect, Evaluation, Event, Limits, Outcome, Template, TemplateKind, compile};

fn page(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
    fs::read_to_string(path).unwrap()
}

fn run(line: &str, topic: &str, payload: &str) -> String {
    let mut event = Event::new(topic, payload.as_bytes());
    event.now_ms = 1_700_000_000_123;
    let mut ev = Evaluation::new(&event, 1);
    for (word, kind) in [("body ", TemplateKind::Text), ("url ", TemplateKind::UrlPart)] {
        if let Some(text) = line.strip_prefix(word) {
            let template = Template::compile(text, kind, Dialect::Aws, &Limits::default()).unwrap();
            let mut out = Vec::new();
            template.render(&mut ev, None, &mut out).unwrap();
            return String::from_utf8(out).unwrap();
        }
    }
    let rule = compile(line, Dialect::Aws, &Limits::default())
        .unwrap_or_else(|error| panic!("{}", error.render(line)));
    match rule.evaluate(&mut ev) {
        Outcome::NoMatch => "no match".to_owned(),
        Outcome::NoOutput => "no output".to_owned(),
        Outcome::Output(output) => String::from_utf8(output.into_bytes()).unwrap(),
        Outcome::Failed(error) => panic!("{line}: {error}"),
    }
}

#[test]
fn examples_of_rules() {
    let page = page("rules-sql.md");
    let mut count = 0;
    for block in page.split("```rule\n").skip(1) {
        let block = block.split("```").next().unwrap();
        let (mut topic, mut payload, mut result) = ("", "", None);
        for line in block.lines() {
            if let Some(text) = line.strip_prefix("topic ") {
                topic = text;
            } else if let Some(text) = line.strip_prefix("payload ") {
                payload = text;
            } else if let Some(expected) = line.strip_prefix("=> ") {
                let (sql, actual): (&str, String) = result.take().expect("a statement before its result");
                assert_eq!(actual, expected, "{sql}");
                count += 1;
            } else {
                result = Some((line, run(line, topic, payload)));
            }
        }
        assert!(result.is_none(), "a statement without its result: {result:?}");
    }
    assert!(count >= 12, "only {count} examples");
}

/// The page is that of a program with all features.
#[cfg(feature = "tzdb")]
#[test]
fn examples_of_expressions() {
    let page = page("rules-sql.md");
    let row = regex::Regex::new(r"(?m)^\| `(.+?)` \| (?:`(.+?)`|undefined) \|").unwrap();
    let (mut count, mut rows) = (0, 0);
    let tables = page.split("| Example | Result |").skip(1);
    for table in tables.map(|text| text.split("\n\n").next().unwrap()) {
        rows += table.lines().filter(|line| line.starts_with("| `")).count();
        for example in row.captures_iter(table) {
            let actual = run(&format!("SELECT VALUE ({}) FROM '#'", &example[1]), "a/b", "{}");
            let expected = example.get(2).map_or("no output", |text| text.as_str());
            assert_eq!(actual, expected, "{}", &example[1]);
            count += 1;
        }
    }
    assert!(count == rows && rows >= 25, "{count} examples in {rows} rows");
}
