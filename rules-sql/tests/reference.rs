//! Pages of the manual that are made from the library's own tables, and compared with what is checked in.
//!
//! `RULES_SQL_REWRITE=1 cargo test -p rules-sql --test reference` writes them; read the difference.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends at the first fault"
)]

mod pages;

use std::fmt::Write as _;

use pages::{GENERATED, check};
use rules_sql::reference::{Function, Keyword, Origin, Severity, codes, functions, keywords};
use rules_sql::{Dialect, Evaluation, Event, EventProperties, Limits, Outcome, compile};

#[test]
fn page_of_codes() {
    let mut page = format!(
        "# Error codes of rules SQL\n\n{GENERATED}\n\n\
         Codes are stable and never reused. An error refuses the statement or the template; a warning, from R0900 on, \
         lets it pass.\nEach comes with line, column, a caret under the place and, where it is known, a remedy.\n\n\
         | Code | |\n| --- | --- |\n"
    );
    for code in codes() {
        let anchor = code.code.to_lowercase();
        writeln!(page, "| [{}](#{anchor}) | {} |", code.code, code.title).unwrap();
    }
    for code in codes() {
        let condition = code.condition.map(|words| format!(", {words}")).unwrap_or_default();
        let word = match code.severity {
            Severity::Error => "Error",
            Severity::Warning => "Warning",
        };
        write!(
            page,
            "\n## {}\n\n{word}: {}. {}\n\nExample{condition}:\n\n```text\n{}```\n\n{}\n",
            code.code, code.title, code.meaning, code.rendered, code.remedy
        )
        .unwrap();
    }
    check("rules-sql-errors.md", &page);
}

/// The properties of the message that the examples of functions are about.
#[derive(Debug)]
struct Properties;

impl EventProperties for Properties {
    fn content_type(&self) -> Option<&str> {
        Some("application/json")
    }
    fn correlation_data(&self) -> Option<&[u8]> {
        Some(&[1, 2])
    }
    fn payload_is_utf8(&self) -> Option<bool> {
        Some(true)
    }
    fn for_each_user_property(&self, visit: &mut dyn FnMut(&str, &str)) {
        visit("site", "north");
        visit("unit", "C");
        visit("site", "east");
    }
}

/// The message that the examples of functions are about; the page describes it.
fn sample() -> Event<'static> {
    let mut event = Event::new("sensors/room-1/temp", b"{\"t\": 21.5}");
    event.client_id = Some("dev-1");
    event.username = Some("anna");
    event.principal = Some("anna");
    event.source_ip = Some("192.0.2.7".parse().unwrap());
    event.listener = Some("tcp");
    event.qos = 1;
    event.trace_id = Some(0x4000_8000_0000_0000_00ff);
    event.account_id = Some("main");
    event.now_ms = 1_700_000_000_123;
    event.properties = &Properties;
    event
}

const SAMPLE: &str = "Examples are about a message of QoS 1 with the payload `{\"t\": 21.5}` on the topic \
    `sensors/room-1/temp`, which the client `dev-1`\nof user `anna` sent from 192.0.2.7 over MQTT 5 with Content Type, \
    Correlation Data, Payload Format Indicator and three User Properties.\nA field named `missing` is not in it.";

#[test]
fn examples_of_functions() {
    for function in functions().iter().flat_map(|group| &group.functions) {
        for example in &function.examples {
            let sql = format!("SELECT VALUE ({}) FROM '#'", example.expression);
            let rule = compile(&sql, Dialect::Aws, &Limits::default())
                .unwrap_or_else(|error| panic!("{}", error.render(&sql)));
            let event = sample();
            let result = match rule.evaluate(&mut Evaluation::new(&event, 1)) {
                Outcome::Output(output) => Some(String::from_utf8(output.into_bytes()).unwrap()),
                Outcome::NoOutput => None,
                other => panic!("{sql}: {other:?}"),
            };
            assert_eq!(result.as_deref(), example.result, "{}", example.expression);
            let called = example.expression.contains(&format!("{}(", function.name));
            assert!(called, "an example of {} does not call it", function.name);
        }
    }
}

fn about(function: &Function) -> String {
    let mut text = format!("\n### {}\n\n`{}` gives {}.", function.name, function.signature, function.result);
    for alias in function.aliases {
        write!(text, " Also named `{alias}`.").unwrap();
    }
    if !function.note.is_empty() {
        write!(text, " {}", function.note).unwrap();
    }
    text.push_str(match function.origin {
        Origin::Aws => " From AWS IoT SQL.\n",
        Origin::Emqx => " From EMQX.\n",
        _ => " Of Tidegate.\n",
    });
    if !function.parameters.is_empty() {
        text.push('\n');
    }
    for parameter in &function.parameters {
        let often = match (parameter.repeated, parameter.optional) {
            (true, _) => ", any number of times",
            (_, true) => ", optional",
            _ => "",
        };
        let star = if parameter.star { ", or `*`" } else { "" };
        writeln!(text, "- `{}`{often}: {}{star}", parameter.name, parameter.takes).unwrap();
    }
    if let Some(result) = function.bad_types {
        writeln!(text, "- other types: {result}").unwrap();
    }
    text.push_str("\n| Example | Result |\n| --- | --- |\n");
    for example in &function.examples {
        let result = example.result.map_or("undefined".to_owned(), |result| format!("`{result}`"));
        writeln!(text, "| `{}` | {result} |", example.expression).unwrap();
    }
    text
}

#[test]
fn page_of_functions() {
    let mut page = format!(
        "# Functions of rules SQL\n\n{GENERATED}\n\n\
         The language is described in [rules-sql.md](rules-sql.md). Names are found in any case. An unknown name and a \
         wrong number of\narguments are errors when the rule is created; an argument of a wrong type gives Undefined, \
         and a warning when it is a constant.\n\n{SAMPLE}\n\n\
         | In the lists of arguments | means |\n| --- | --- |\n\
         | a number | Int, Decimal, or a String of number text such as `'-1.5'` |\n\
         | a whole number | a number; a fraction is floored |\n\
         | text | what converts to a String: all but Null and Undefined; arrays and objects become JSON text |\n\
         | a String, an Array, an Object | that type alone |\n\
         | a pattern | text that is a regular expression |\n\
         | a time zone | text that is an offset such as `+08:00`, or a name that IANA gives a zone, such as `Europe/Berlin` |\n\n"
    );
    for group in functions() {
        let names: Vec<String> = group
            .functions
            .iter()
            .map(|function| format!("[{}](#{})", function.name, function.name.to_lowercase()))
            .collect();
        writeln!(page, "- {}: {}", group.title, names.join(", ")).unwrap();
    }
    for group in functions() {
        write!(page, "\n## {}\n\n{}\n", group.title, group.intro).unwrap();
        for function in &group.functions {
            page.push_str(&about(function));
        }
    }
    check("rules-functions.md", &page);
}

/// Words that begin or join parts of a statement, as the parser's own lists have them.
const KNOWN: &str = "AND AS BETWEEN CASE CAST DIV ELSE END ESCAPE EXISTS FALSE FROM IN LIKE MOD NOT NULL OR SELECT SET THEN TRUE \
                     VALUE WHEN WHERE";

#[test]
fn each_keyword_stands_in_a_statement_that_compiles_and_means_something_there() {
    let words: Vec<_> = keywords().iter().map(|keyword| keyword.word).collect();
    assert_eq!(words.join(" "), KNOWN);
    for Keyword { word, example, .. } in keywords() {
        compile(example, Dialect::Aws, &Limits::default())
            .unwrap_or_else(|error| panic!("{word}: {}", error.render(example)));
        let is_word = |at: usize| {
            let inside = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
            let (before, after) = example.split_at(at);
            !inside(before.as_bytes().last()) && !inside(after.as_bytes().get(word.len()))
        };
        let upper = example.to_ascii_uppercase();
        let (at, _) = upper.match_indices(word).find(|(at, _)| is_word(*at)).expect(word);
        // A name in its place makes no statement, but where a literal becomes a field.
        let (before, from) = example.split_at(at);
        let renamed = format!("{before}nonsense{}", from.split_at(word.len()).1);
        let is_literal = ["FALSE", "NULL", "TRUE"].contains(&word);
        assert_eq!(compile(&renamed, Dialect::Aws, &Limits::default()).is_ok(), is_literal, "{renamed}");
    }
}
