//! Rules tested as data: every case file of the tree holds, and `tidegate rules test` says so, or why not.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that can't go on fails, in its helpers too"
)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

/// Cases of the sample whose dialect is there but that can't pass yet, with the reason.
const WAITING: [(&str, &str); 2] = [
    ("ekp-array-09", "level second: array_last_position is not there yet"),
    ("ekp-json-14", "level second: the operator -> is not there yet"),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// Runs `tidegate rules test` in a folder.
fn test_in(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.args(["rules", "test"]).args(arguments).current_dir(folder);
    command.env_remove("TIDEGATE_CONFIG").output().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[track_caller]
fn assert_exit(output: &Output, code: i32) {
    assert_eq!(output.status.code(), Some(code), "{}\n{}", out(output), err(output));
}

/// The lines of `--json`; standard error must be empty.
#[track_caller]
fn lines(output: &Output) -> Vec<Value> {
    assert_eq!(err(output), "");
    out(output).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A folder with files.
fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    folder
}

const RULE: &str = "[rules.double]\nenabled = false\nsql = \"SELECT a * 2 AS b FROM 'in'\"\n\
    [[rules.double.actions]]\nname = 'x'\ntype = 'republish'\ntopic = 'out'\n";

fn case(id: &str, expected: i64) -> String {
    json!({ "id": id, "rule": "double", "topic": "in", "payload": { "a": 1 }, "expect": { "b": expected } })
        .to_string()
}

/// Case files below a folder; build output and hidden folders aside.
fn find_case_files(folder: &Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if name != "target" && !name.starts_with('.') {
                find_case_files(&path, found);
            }
        } else if name.ends_with(".cases.json") || name.ends_with(".cases.jsonl") {
            found.push(path.to_str().unwrap().to_owned());
        }
    }
}

#[test]
fn the_example_rules_hold() {
    let output = test_in(&root(), &["config/rules.d"]);
    assert_exit(&output, 0);
    let rules = std::fs::read_dir(root().join("config/rules.d")).unwrap().map(|entry| entry.unwrap().path());
    for rule in rules.filter(|path| path.extension().is_some_and(|extension| extension == "toml")) {
        assert_exit(&test_in(&root(), &[rule.to_str().unwrap()]), 0);
    }
}

#[test]
fn every_case_file_of_the_tree_holds() {
    let mut files = Vec::new();
    find_case_files(&root(), &mut files);
    let arguments: Vec<&str> = ["--json"].into_iter().chain(files.iter().map(String::as_str)).collect();
    let output = test_in(&root(), &arguments);
    let lines = lines(&output);
    let failed: Vec<&Value> = lines.iter().filter(|line| line["pass"] != json!(true)).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    assert_exit(&output, 0);
    // That they were all found and read, too.
    assert!(files.len() >= 11, "{files:?}");
    assert!(lines.len() >= 1_021, "only {} cases", lines.len());
}

#[test]
fn the_sample_holds_but_for_what_is_not_there_yet() {
    let path = root().join("rules-sql/tests/testdata/rule-cases-sample.json");
    let output = test_in(&root(), &["--json", path.to_str().unwrap()]);
    assert_exit(&output, 1);
    let cases: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    let lines = lines(&output);
    assert_eq!(lines.len(), cases.len());
    let (mut passed, mut waiting, mut other_dialects) = (0, 0, 0);
    for (case, line) in cases.iter().zip(&lines) {
        let id = case["id"].as_str().unwrap();
        assert_eq!(line["id"], json!(id));
        if !matches!(case["dialect"].as_str().unwrap_or("aws"), "aws" | "ekuiper") {
            assert_eq!(line["pass"], json!(false), "{line}");
            assert_eq!(line["error"]["stage"], json!("create"), "{line}");
            assert_eq!(line["error"]["code"], json!("R0010"), "{line}");
            other_dialects += 1;
        } else if let Some((_, reason)) = WAITING.iter().find(|(other, _)| *other == id) {
            assert_eq!(line["pass"], json!(false), "{id} passes, though it waits: {reason}");
            waiting += 1;
        } else {
            assert_eq!(line["pass"], json!(true), "{line}");
            passed += 1;
        }
    }
    assert_eq!((passed, waiting, other_dialects), (27, WAITING.len(), 12));
}

#[test]
fn the_example_of_the_documentation_comes_out_as_printed() {
    let page = std::fs::read_to_string(root().join("docs/testing-rules.md")).unwrap();
    let block = |language: &str| {
        let text = page.split(&format!("```{language}\n")).nth(1).unwrap();
        text.split("```").next().unwrap().to_owned()
    };
    let (rule, cases, console) = (block("toml"), block("json"), block("console"));
    let folder = folder(&[("rules.d/overheat.toml", &rule), ("rules.d/overheat.cases.json", &cases)]);
    let (command, printed) = console.split_once('\n').unwrap();
    let arguments: Vec<&str> =
        command.strip_prefix("$ tidegate rules test ").unwrap().split_whitespace().collect();
    let output = test_in(folder.path(), &arguments);
    assert_exit(&output, 1);
    assert_eq!(out(&output), printed);
    let line = page.rsplit("```json\n").next().unwrap().lines().next().unwrap();
    let output = test_in(folder.path(), &["--json", "rules.d"]);
    assert_eq!(out(&output).lines().next().unwrap(), line);
}

#[test]
fn the_exit_code_says_whether_everything_holds() {
    let folder = folder(&[
        ("double.toml", RULE),
        ("good.cases.json", &format!("[{}]", case("a", 2))),
        ("bad.json", &case("a", 3)),
        ("broken.json", "[{"),
        ("empty/x.toml", RULE),
    ]);
    let run = |arguments: &[&str]| test_in(folder.path(), arguments);
    let output = run(&["good.cases.json"]);
    assert_exit(&output, 0);
    assert_eq!((out(&output).as_str(), err(&output).as_str()), ("1 cases: 1 passed, 0 failed\n", ""));
    assert_exit(&run(&["."]), 0);
    let output = run(&["bad.json", "good.cases.json"]);
    assert_exit(&output, 1);
    assert_eq!(out(&output), "FAIL bad.json: a\n     `b`: expected 3, 2 came\n2 cases: 1 passed, 1 failed\n");
    for unreadable in ["broken.json", "missing.json", "missing.toml", "empty", "double.toml"] {
        let output = run(&["good.cases.json", unreadable, "bad.json"]);
        assert_exit(&output, 2);
        assert!(err(&output).contains(unreadable), "{}", err(&output));
        // What can be read is run all the same.
        assert!(out(&output).ends_with("2 cases: 1 passed, 1 failed\n"), "{}", out(&output));
    }
    assert_exit(&run(&["good.cases.json", "--rules", "missing"]), 2);
    assert_exit(&run(&[]), 2);
}

#[test]
fn passing_cases_are_named_when_asked_for() {
    let open = r#"{"id": "open", "sql": "SELECT 1 AS a FROM 't'", "topic": "t"}"#;
    let folder = folder(&[("double.toml", RULE), ("x.json", &format!("{}\n{open}", case("a", 2)))]);
    let output = test_in(folder.path(), &["-v", "x.json"]);
    assert_exit(&output, 0);
    assert_eq!(
        out(&output),
        "ok   x.json: a\nran  x.json: open\n2 cases: 1 passed, 0 failed, 1 without expectation\n"
    );
}

#[test]
fn rules_are_looked_for_in_their_order() {
    let other = RULE.replace("a * 2", "a * 3");
    let configured = RULE.replace("a * 2", "a * 4");
    let folder = folder(&[
        ("beside/double.toml", RULE),
        ("beside/x.json", &case("a", 2)),
        ("alone/x.json", &case("a", 4)),
        ("other/double.toml", &other),
        ("configured/double.toml", &configured),
        ("tidegate.toml", "rules_dir = \"configured\"\n"),
    ]);
    let run = |arguments: &[&str]| test_in(folder.path(), arguments);
    assert_exit(&run(&["beside/x.json"]), 0);
    let output = run(&["beside/x.json", "--rules", "other"]);
    assert!(out(&output).contains("expected 2, 3 came"), "{}", out(&output));
    assert!(out(&run(&["beside/x.json", "--rules", "other/double.toml"])).contains("expected 2, 3 came"));
    // Beside the cases comes before the configuration.
    assert_exit(&run(&["beside/x.json", "--config", "tidegate.toml"]), 0);
    assert_exit(&run(&["alone/x.json", "--config", "tidegate.toml"]), 0);
    let output = run(&["alone/x.json"]);
    assert_exit(&output, 1);
    assert!(out(&output).contains("no rule is named \"double\""), "{}", out(&output));
}

#[test]
fn limits_of_the_configuration_hold_for_cases() {
    let folder = folder(&[
        (
            "x.json",
            r#"{"id": "a", "sql": "SELECT 1 AS a, 2 AS b FROM 't'", "topic": "t", "expect": {"a": 1, "b": 2}}"#,
        ),
        ("tidegate.toml", "[limits.rules]\nitems = 1\n"),
    ]);
    assert_exit(&test_in(folder.path(), &["x.json"]), 0);
    let output = test_in(folder.path(), &["x.json", "--config", "tidegate.toml"]);
    assert_exit(&output, 1);
    assert!(out(&output).contains("SELECT holds more than 1 items"), "{}", out(&output));
}

#[test]
fn a_refused_rule_file_never_goes_unnoticed() {
    let good = r#"{"id": "a", "sql": "SELECT 1 AS a FROM 't'", "topic": "t", "expect": {"a": 1}}"#;
    let folder = folder(&[
        ("bad.toml", "[rules.bad]\nsql = \"SELECT a FROM\"\n"),
        ("bad.cases.json", good),
        ("named.json", r#"{"id": "a", "rule": "bad", "topic": "t", "expect": {}}"#),
    ]);
    let output = test_in(folder.path(), &["bad.toml"]);
    assert_exit(&output, 1);
    assert!(err(&output).contains("bad.toml:2"), "{}", err(&output));
    let output = test_in(folder.path(), &["--json", "named.json"]);
    assert_exit(&output, 1);
    let line = &lines(&output)[0];
    assert_eq!((&line["error"]["stage"], &line["error"]["line"]), (&json!("create"), &json!(2)), "{line}");
    // Whoever has cases of their own isn't bothered with a file that they don't use.
    assert_exit(&test_in(folder.path(), &["bad.cases.json"]), 0);
}

#[test]
fn a_report_for_ci_servers_is_written() {
    let cases = format!(
        "{}\n{}\n{}",
        r#"{"id": "<a> & \"b\"", "group": "g", "sql": "SELECT 'x<y' AS a FROM 't'", "topic": "t", "expect": {"a": "z"}}"#,
        r#"{"id": "good", "sql": "SELECT 1 AS a FROM 't'", "topic": "t", "expect": {"a": 1}}"#,
        r#"{"id": "open", "sql": "SELECT 1 AS a FROM 't'", "topic": "t"}"#,
    );
    let folder = folder(&[("x.json", &cases)]);
    assert_exit(&test_in(folder.path(), &["x.json", "--junit", "report.xml"]), 1);
    assert_eq!(
        std::fs::read_to_string(folder.path().join("report.xml")).unwrap(),
        concat!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n",
            "<testsuites tests=\"3\" failures=\"1\" skipped=\"1\">\n",
            "  <testsuite name=\"x.json\" tests=\"3\" failures=\"1\" skipped=\"1\">\n",
            "    <testcase classname=\"g\" name=\"&lt;a&gt; &amp; &quot;b&quot;\">",
            "<failure message=\"`a`: expected &quot;z&quot;, &quot;x&lt;y&quot; came\"/></testcase>\n",
            "    <testcase classname=\"cases\" name=\"good\"/>\n",
            "    <testcase classname=\"cases\" name=\"open\"><skipped message=\"nothing is expected\"/></testcase>\n",
            "  </testsuite>\n",
            "</testsuites>\n",
        )
    );
    assert_exit(&test_in(folder.path(), &["x.json", "--junit", "no/such/folder.xml"]), 1);
}
