//! `tidegate check` from outside: what is allowed in rules but hardly meant.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that can't go on fails")]

mod common;

use std::path::Path;
use std::process::Output;

use common::tidegate;
use serde_json::{Value, json};

const RULES: &str = r#"
[rules.hot]
sql = '''
SELECT payload.temperature AS t
FROM 'sensors/#' WHERE clientid = 'dev-1' AND t > 60
'''
dialect = "aws"

[[rules.hot.actions]]
name = "again"
type = "republish"
topic = "sensors/${topic(2)}/${t}"

[rules.fine]
sql = "SELECT * FROM 'a'"

[[rules.fine.actions]]
name = "elsewhere"
type = "republish"
topic = "b/${topic()}"
strict = true
"#;

fn check(folder: &Path, arguments: &[&str]) -> Output {
    let config = folder.join("tidegate.toml");
    tidegate(&[&["check", "--config", config.to_str().unwrap()], arguments].concat())
}

fn folder(rules: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("rules.d")).unwrap();
    std::fs::write(folder.path().join("rules.d/hot.toml"), rules).unwrap();
    let listener = "[[listeners]]\nname = 'tcp'\naddress = '127.0.0.1:0'\nallow_anonymous = true\n";
    std::fs::write(folder.path().join("tidegate.toml"), listener).unwrap();
    folder
}

#[test]
fn warnings_are_told_with_place_code_and_remedy_and_let_the_rules_pass() {
    let folder = folder(RULES);
    let output = check(folder.path(), &[]);
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stderr).unwrap();
    for part in [
        "hot.toml:4:8: rule \"hot\": [R0900] payload.temperature is the field temperature of a field named payload",
        "hot.toml:5:24: rule \"hot\": [R0901] clientid is a field of the payload, which its author controls",
        "write clientid()",
        "hot.toml:5:47: rule \"hot\": [R0903] t is the name of an item of SELECT",
        "hot.toml:12:32: rule \"hot\", action \"again\": topic: [R0904] t is the name of an item",
        "output().t",
        "hot.toml:12:10: rule \"hot\", action \"again\": topic: [R0907] this topic may be one that FROM 'sensors/#' selects",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    assert_eq!(text.matches("warning: ").count(), 5, "{text}");
    assert!(!text.contains("\"fine\""), "{text}");
}

#[test]
fn deny_warnings_refuses_them() {
    let folder = folder(RULES);
    let output = check(folder.path(), &["--deny-warnings"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8(output.stderr).unwrap().contains("5 warnings"));

    let output = check(folder.path(), &["--deny-warnings", "--json"]);
    assert_eq!(output.status.code(), Some(3));
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["ok"], false);
    let codes: Vec<&str> = answer["warnings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|warning| warning["code"].as_str().unwrap())
        .collect();
    assert_eq!(codes, ["R0900", "R0901", "R0903", "R0904", "R0907"]);
    assert_eq!(answer["warnings"][3]["action"], "again");
}

#[test]
fn nothing_doubtful_passes_deny_warnings() {
    let (_, fine) = RULES.split_once("[rules.fine]").unwrap();
    let folder = folder(&format!("[rules.fine]{fine}"));
    let output = check(folder.path(), &["--deny-warnings"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
}

#[test]
fn what_becomes_of_undefined_is_refused_when_it_makes_no_sense() {
    for (keys, expected) in [
        ("strict = \"yes\"", "strict: expected true or false"),
        ("undefined = \"drop\"", "undefined: expected \"null\" or \"omit\""),
        ("undefined = 1", "undefined: expected \"null\" or \"omit\""),
        ("strict = true\nundefined = \"omit\"", "undefined: strict = true lets nothing be undefined"),
    ] {
        let folder = folder(&RULES.replace("strict = true", keys));
        let output = check(folder.path(), &[]);
        assert_eq!(output.status.code(), Some(3));
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.contains(expected), "{expected}\n{text}");
        assert!(text.contains("rule \"fine\", action \"elsewhere\""), "{text}");
    }
}

#[test]
fn sql_tells_warnings_and_keeps_the_text_of_numbers() {
    let statement = "SELECT n AS t, big, a FROM 'a' WHERE payload.n = 1 OR n = 1.50";
    let message = r#"{"n":1.50,"big":123456789012345678901234567890.10,"a":0}"#;
    let output = tidegate(&["sql", statement, "-t", "a", "-m", message]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(String::from_utf8(output.stderr).unwrap().contains("warning[R0900]"));

    let output = tidegate(&["sql", statement, "-t", "a", "-m", message, "--json"]);
    let line = String::from_utf8(output.stdout).unwrap();
    assert!(line.contains(r#""output":{"t":1.50,"big":123456789012345678901234567890.10,"a":0}"#), "{line}");
    let answer: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(answer["warnings"][0]["code"], "R0900");
    assert!(output.stderr.is_empty());

    let output = tidegate(&["sql", statement, "-t", "a", "-m", message, "--deny-warnings"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(output.stdout.is_empty());
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("warning[R0900]"), "{text}");
    assert!(text.ends_with("1 warning, and --deny-warnings lets none pass\n"), "{text}");
    let output = tidegate(&["sql", statement, "-t", "a", "-m", message, "--deny-warnings", "--json"]);
    assert_eq!(output.status.code(), Some(3));
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&answer["outcome"], &answer["warnings"][0]["code"]), (&json!("refused"), &json!("R0900")));
    let sound = tidegate(&["sql", "SELECT n FROM 'a'", "-t", "a", "-m", message, "--deny-warnings"]);
    assert_eq!(sound.status.code(), Some(0));
}

#[test]
fn rules_test_fails_a_case_whose_rule_is_doubtful_when_it_is_told_to() {
    let folder = tempfile::tempdir().unwrap();
    let cases = folder.path().join("x.cases.json");
    let case = r#"[{"id": "a", "sql": "SELECT * FROM 'a' WHERE clientid = 'x'", "topic": "a", "payload": {"clientid": "x"},
                   "expect": {"clientid": "x"}}]"#;
    std::fs::write(&cases, case).unwrap();
    let cases = cases.to_str().unwrap();
    assert_eq!(tidegate(&["rules", "test", cases]).status.code(), Some(0));
    let output = tidegate(&["rules", "test", cases, "-v"]);
    assert!(String::from_utf8(output.stderr).unwrap().contains("R0901"));
    let output = tidegate(&["rules", "test", cases, "--deny-warnings"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stdout).unwrap().contains("R0901"));
}

#[test]
fn an_action_must_fit_its_connector_and_no_secret_is_printed() {
    let rule = "[rules.r]\nsql = \"SELECT * FROM 'a'\"\n[[rules.r.actions]]\nname = 'x'\ntype = 'http'\nconnector = 'ops'\nurl = '/x'\n";
    let folder = folder(rule);
    let output = check(folder.path(), &[]);
    assert_eq!(output.status.code(), Some(3));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        text.contains(
            "hot.toml:6:13: rule \"r\", action \"x\": connector: the configuration has no [connectors.ops]"
        ),
        "{text}"
    );
    let output = check(folder.path(), &["--json"]);
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&answer["ok"], &answer["errors"][0]["line"]), (&Value::Bool(false), &Value::from(6)));

    let config = folder.path().join("tidegate.toml");
    let add = |text: &str| {
        let before = std::fs::read_to_string(&config).unwrap();
        std::fs::write(&config, format!("{before}{text}")).unwrap();
    };
    add(
        "[connectors.ops]\ntype = 'http'\nurl = 'https://ops.example'\nauth = { type = 'bearer', token = 's3cret' }\n",
    );
    let output = check(folder.path(), &["--effective"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("[connectors.ops.auth]") && text.contains("(secret)") && !text.contains("s3cret"),
        "{text}"
    );

    add("tls = { ca_file = 'nowhere.pem' }\n");
    let output = check(folder.path(), &[]);
    assert_eq!(output.status.code(), Some(3));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("connector \"ops\", tls.ca_file") && text.contains("nowhere.pem"), "{text}");
}
