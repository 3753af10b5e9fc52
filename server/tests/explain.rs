//! `tidegate rules explain` and `rules new` from outside.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that can't go on fails")]

mod common;

use std::process::Output;

use common::tidegate;
use serde_json::Value;

const RULES: &str = r#"
[rules.hot]
dialect = "aws"
sql = '''
SET @f = temperature * 9 / 5 + 32
SELECT deviceId, @f AS f, 12345678901234567890123 AS n FROM 'sensors/+/temp'
WHERE (temperature > 60 OR force = true) AND clientid() = 'dev-1'
'''

[[rules.hot.actions]]
name = "out"
type = "republish"
topic = "hot/${topic(2)}/${missing}"
payload = '{"f": ${@f}, "n": ${output().n}}'

[[rules.hot.actions]]
name = "call"
type = "http"
url = "http://127.0.0.1:9/x/${deviceId}"
headers = { Authorization = "Bearer hunter2", "X-Site" = "${topic(2)}" }
strict = true
body = "${nothing.here}"

[rules.asleep]
sql = "SELECT VALUE x FROM '#'"
enabled = false

[[rules.asleep.actions]]
name = "out"
type = "log"
message = "x"
"#;

fn explain(arguments: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hot.toml");
    std::fs::write(&file, RULES).unwrap();
    let rules = file.to_str().unwrap();
    tidegate(&[&["rules", "explain", "--rules", rules], arguments].concat())
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

const FIRES: [&str; 6] = [
    "--topic",
    "sensors/hall/temp",
    "--payload",
    r#"{"deviceId": "d/1", "temperature": 71.5}"#,
    "--client-id",
    "dev-1",
];

#[test]
fn a_rule_that_fires_shows_values_and_what_would_be_sent() {
    let output = explain(&[&["hot"], &FIRES[..]].concat());
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = text(&output);
    for line in [
        "hot.toml): fires 2 actions",
        "  FROM 'sensors/+/temp' matches",
        "  SET @f = temperature * 9 / 5 + 32  =>  160.7",
        "  WHERE (temperature > 60 OR force = true) AND clientid() = 'dev-1'  =>  true",
        "      temperature > 60  =>  true",
        "      force = true  =>  not evaluated",
        "    clientid() = 'dev-1'  =>  true",
        "  SELECT n = 12345678901234567890123  =>  12345678901234567890123",
        "  action out (republish) would send",
        "    topic = hot/${topic(2)}/${missing}  =>  hot/hall/",
        "      missing  =>  Undefined: the payload has no field missing",
        "  SET @f = temperature * 9 / 5 + 32  =>  160.7\n    temperature  =>  71.5\n",
        "=>  {\"f\": 160.7, \"n\": 12345678901234567890123}",
        "  action call (http) would fail: template of body failed: nothing.here is Undefined",
        "    url = http://127.0.0.1:9/x/${deviceId}  =>  http://127.0.0.1:9/x/d%2F1",
        "    headers.X-Site = ${topic(2)}  =>  hall",
        "nothing.here  =>  Undefined: the payload has no field nothing",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    assert!(!text.contains("hunter2"), "{text}");
}

#[test]
fn a_rule_that_does_not_fire_marks_what_decided() {
    let output =
        explain(&["hot", "-t", "sensors/hall/temp", "-m", r#"{"temperature": "warm"}"#, "-i", "dev-1"]);
    let shown = text(&output);
    for line in [
        "WHERE does not let the message pass",
        "=>  Undefined   <-- decides",
        "      temperature > 60  =>  Undefined: > compares numbers and number text, not the String \"warm\"   <-- decides",
        "        temperature  =>  \"warm\"\n",
        "      force = true  =>  Undefined\n        force  =>  Undefined: the payload has no field force",
    ] {
        assert!(shown.contains(line), "{line}\n{shown}");
    }
    assert!(!shown.contains("action"), "{shown}");
    let other = text(&explain(&["hot", "-t", "elsewhere", "-m", "{}"]));
    assert!(other.contains("no filter matches the topic"), "{other}");
    assert!(other.contains("FROM 'sensors/+/temp' does not match"), "{other}");
}

#[test]
fn every_rule_is_explained_as_a_line_of_json() {
    let output = explain(&[&["--json"], &FIRES[..]].concat());
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = text(&output);
    assert!(text.contains(r#""value":12345678901234567890123"#), "{text}");
    assert!(!text.contains("hunter2"), "{text}");
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let [asleep, hot] = lines.as_slice() else { panic!("{text}") };
    assert_eq!(
        (&asleep["rule"], &asleep["enabled"], &asleep["outcome"]),
        (&"asleep".into(), &false.into(), &"no_output".into())
    );
    assert_eq!(hot["outcome"], "output");
    assert_eq!(hot["where"]["result"], "value");
    assert_eq!(hot["where"]["steps"][0]["steps"][1]["result"], "not_evaluated");
    assert_eq!(hot["set"][0]["expression"]["value"], 160.7);
    assert_eq!(hot["select"][1]["name"], "f");
    assert_eq!(hot["actions"][0]["would_send"]["topic"]["text"], "hot/hall/");
    assert_eq!(hot["actions"][0]["error"], Value::Null);
    assert_eq!(hot["actions"][1]["would_send"], Value::Null);
    assert_eq!(hot["actions"][1]["error"], "template of body failed: nothing.here is Undefined");
}

#[test]
fn a_variable_shows_its_steps_once() {
    let sql = "SET @a = x + 1, @b = @a * 2, @c = 1 / x SELECT @b AS b, @a AS a FROM 'a' WHERE @a > 1";
    let output = tidegate(&["rules", "explain", "--sql", sql, "-t", "a", "-m", "{\"x\": 3}"]);
    let shown = text(&output);
    for line in [
        "  SET @a = x + 1  =>  4\n    x  =>  3\n  SET @b = @a * 2  =>  8\n    @a  =>  4\n  SET @c = 1 / x  =>  not evaluated\n",
        "  WHERE @a > 1  =>  true\n    @a  =>  4\n  SELECT b = @b  =>  8\n  SELECT a = @a  =>  4\n",
    ] {
        assert!(shown.contains(line), "{line}\n{shown}");
    }
}

#[test]
fn a_statement_is_explained_without_any_rule() {
    let sql = "SELECT VALUE v FROM 'a' WHERE v IN (1, 2)";
    let output = tidegate(&["rules", "explain", "--sql", sql, "-t", "a", "-m", "{\"v\": 3}"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(
        text(&output).contains("WHERE v IN (1, 2)  =>  false   <-- decides\n    v  =>  3"),
        "{}",
        text(&output)
    );
    let output = tidegate(&["rules", "explain", "--sql", "SELECT", "-t", "a"]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
}

#[test]
fn an_unknown_rule_and_a_bad_file_are_refused_with_a_remedy() {
    let output = explain(&["hat", "-t", "a"]);
    assert_eq!(output.status.code(), Some(3));
    let words = String::from_utf8(output.stderr).unwrap();
    assert!(words.contains("there is no rule \"hat\"") && words.contains("hot"), "{words}");
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("bad.toml"), "[rules.x]\nsql = 'SELECT'\n").unwrap();
    let output = tidegate(&["rules", "explain", "--rules", folder.path().to_str().unwrap(), "-t", "a"]);
    assert_eq!(output.status.code(), Some(3));
    let words = String::from_utf8(output.stderr).unwrap();
    assert!(words.contains("bad.toml:2") && words.contains("R0101"), "{words}");
}

#[test]
fn a_new_rule_names_its_dialect_and_is_a_rule_file() {
    let statements = [
        "SELECT * FROM 'a'",
        "SELECT 'it''s' AS x\nFROM 'a' WHERE y = '''q'''",
        "SELECT * FROM 'a' WHERE x = 'y'",
    ];
    for statement in statements {
        let output = tidegate(&["rules", "new", "fresh", statement]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let file: toml::Value = toml::from_str(&text(&output)).unwrap();
        assert_eq!(file["rules"]["fresh"]["dialect"].as_str(), Some("aws"));
        assert_eq!(file["rules"]["fresh"]["sql"].as_str().map(str::trim), Some(statement));
    }
    for (name, statement) in [("no good", "SELECT * FROM 'a'"), ("x", "SELECT * FROM a")] {
        let output = tidegate(&["rules", "new", name, statement]);
        assert_eq!(output.status.code(), Some(3), "{output:?}");
        assert!(output.stdout.is_empty());
    }
}
