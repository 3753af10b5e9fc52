//! Cases of every kind through the runner: what holds passes, what does not fails with the reason.

use std::path::Path;

use rules_sql::Limits;
use serde_json::{Value, json};

use super::read::parse;
use super::*;

const RULES: &str = r#"
[rules.hot]
enabled = false
sql = "SELECT id, t FROM 'in/+' WHERE t > 10"

[[rules.hot.actions]]
name = "alarm"
type = "republish"
topic = "alarms/${topic(2)}"
qos = 1
content_type = "text/${kind}"
user_properties = { site = "${topic(2)}" }

[[rules.hot.actions]]
name = "ops"
type = "http"
url = "http://127.0.0.1/${id}?t=${t}"
headers = { X-Device = "${id}" }
body = '{"id": "${id}", "t": ${t}}'

[[rules.hot.actions]]
name = "note"
type = "log"
message = "hot: ${t}"
"#;

fn run_with(book: Book<'_>, case: &Value) -> Value {
    let cases = parse(&case.to_string()).unwrap();
    let runner = Runner { limits: &Limits::default(), now_ms: 1_000, deny_warnings: false };
    serde_json::from_str(&line(&runner.run(&cases[0], book)).unwrap()).unwrap()
}

/// Runs a case that is given but for its id.
fn run(mut case: Value) -> Value {
    case["id"] = json!("a");
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("rules.toml"), RULES).unwrap();
    let shelf = Shelf::read(folder.path(), &Limits::default()).unwrap();
    assert!(shelf.faults().is_empty(), "{:?}", shelf.faults());
    run_with(Book(&[&shelf]), &case)
}

/// A case of one statement.
fn sql(sql: &str, more: Value) -> Value {
    let mut case = json!({ "sql": sql, "topic": "a/b" });
    if more.get("payload_text").is_none() && more.get("payload_base64").is_none() {
        case["payload"] = json!({});
    }
    for (key, value) in more.as_object().unwrap() {
        case[key] = value.clone();
    }
    case
}

#[track_caller]
fn passes(case: Value) -> Value {
    let answer = run(case);
    assert_eq!(answer["pass"], json!(true), "{answer}");
    assert!(answer.get("why").is_none(), "{answer}");
    answer
}

#[track_caller]
fn fails(case: Value, why: &str) -> Value {
    let answer = run(case);
    assert_eq!(answer["pass"], json!(false), "{answer}");
    assert!(answer["why"].as_str().unwrap().contains(why), "{answer}");
    answer
}

/// A case that is refused for what it says itself.
#[track_caller]
fn refused(case: Value, why: &str) {
    let answer = fails(case, why);
    assert_eq!(
        (&answer["error"]["stage"], &answer["outcome"]),
        (&json!("case"), &json!("error")),
        "{answer}"
    );
}

#[test]
fn a_line_has_its_fields_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let shelf = Shelf::read(folder.path(), &Limits::default()).unwrap();
    let text = r#"{"id": "x", "sql": "SELECT * FROM 't'", "topic": "t", "payload": {"t": 21.50}, "expect": {"t": 21.5}}
        {"id": "y", "sql": "SELECT nosuch(a) AS v FROM 't'", "expect": 1}
        {"id": "z", "sql": "SELECT 1 AS v FROM 't'", "messages": [{"topic": "t"}, {"topic": "u"}]}"#;
    let runner = Runner { limits: &Limits::default(), now_ms: 0, deny_warnings: false };
    let cases = parse(text).unwrap();
    let lines: Vec<String> =
        cases.iter().map(|case| line(&runner.run(case, Book(&[&shelf]))).unwrap()).collect();
    assert_eq!(
        lines,
        [
            r#"{"id":"x","pass":true,"outcome":"output","rows":[{"json":{"t":21.50}}],"rendered":null,"error":null}"#,
            concat!(
                r#"{"id":"y","pass":false,"outcome":"error","rows":[],"rendered":null,"#,
                r#""error":{"stage":"create","code":"R0202","message":"unknown function nosuch","line":1,"column":8},"#,
                r#""why":"expected no error, one of stage create came: unknown function nosuch"}"#
            ),
            concat!(
                r#"{"id":"z","pass":null,"messages":[{"outcome":"output","rows":[{"json":{"v":1}}]},"#,
                r#"{"outcome":"no_match","rows":[]}],"rendered":null,"error":null}"#
            ),
        ]
    );
}

#[test]
fn numbers_never_go_through_a_double() {
    let big = r#"{"id": "a", "sql": "SELECT *, n + 1 AS m FROM 't'", "topic": "t",
        "payload": {"n": 9007199254740993}, "expect": {"n": 9007199254740993, "m": 9007199254740994}}"#;
    let cases = parse(big).unwrap();
    let runner = Runner { limits: &Limits::default(), now_ms: 0, deny_warnings: false };
    let verdict = runner.run(&cases[0], Book(&[]));
    assert_eq!(verdict.pass, Some(true), "{verdict:?}");
    let off_by_one = big.replace("\"m\": 9007199254740994", "\"m\": 9007199254740993");
    let verdict = runner.run(&parse(&off_by_one).unwrap()[0], Book(&[]));
    assert_eq!(verdict.pass, Some(false), "{verdict:?}");
}

#[test]
fn an_output_is_compared_whole() {
    let case = |more| sql("SELECT 1 AS a, 2 AS b FROM 'a/b'", more);
    passes(case(json!({ "expect": { "b": 2.0, "a": 1 } })));
    fails(case(json!({ "expect": { "a": 1 } })), "`b`: expected nothing, 2 came");
    passes(case(json!({ "expect": { "a": 1 }, "subset": true })));
    passes(case(json!({ "expect": { "a": 1.4, "b": 2 }, "tolerance": 0.5 })));
    fails(case(json!({ "expect": { "a": 1.6, "b": 2 }, "tolerance": 0.5 })), "`a`");
    passes(sql("SELECT VALUE NULL FROM 'a/b'", json!({ "expect": null })));
    fails(sql("SELECT VALUE missing FROM 'a/b'", json!({ "expect": null })), "no output came");
    fails(sql("SELECT 1 AS a FROM 'a/c'", json!({ "expect": { "a": 1 } })), "no match came");
    let raw = json!({ "payload_base64": "AP8=", "expect": {} });
    fails(sql("SELECT * FROM 'a/b'", raw), "the bytes AP8= came");
}

#[test]
fn rows_are_counted_and_compared() {
    passes(sql("SELECT 1 AS a FROM 'a/b'", json!({ "expect_rows": [{ "a": 1 }] })));
    fails(sql("SELECT 1 AS a FROM 'a/b'", json!({ "expect_rows": [] })), "expected 0 outputs");
    fails(sql("SELECT 1 AS a FROM 'a/b'", json!({ "expect_rows": [{ "a": 2 }] })), "output 1: `a`");
    passes(sql("SELECT VALUE missing FROM 'a/b'", json!({ "expect_rows": [] })));
    passes(sql("SELECT 1 AS a FROM 'a/c'", json!({ "expect_rows": [] })));
    let run_error = sql(
        "SELECT (SELECT VALUE 1 FROM a) AS v FROM 'a/b'",
        json!({ "payload": { "a": vec![0; 10_001] }, "expect_rows": [] }),
    );
    fails(run_error, "stage run");
}

#[test]
fn messages_go_through_the_same_rule_in_order() {
    let case = |more: Value| {
        let mut case = sql("SELECT t, clientid() AS c, username() AS u FROM 'a/b' WHERE t > 1", more);
        case["clientid"] = json!("one");
        case["username"] = json!("user");
        case["messages"] = json!([{ "payload": { "t": 1 } }, { "payload": { "t": 2 } }, { "payload": { "t": 3 }, "clientid": "two" }]);
        case
    };
    let rows = json!([null, { "t": 2, "c": "one", "u": "user" }, { "t": 3, "c": "two", "u": "user" }]);
    let answer = passes(case(json!({ "expect_seq": rows })));
    assert_eq!(answer["messages"][0], json!({ "outcome": "no_match", "rows": [] }));
    fails(case(json!({ "expect_seq": [null, null, { "t": 3, "c": "two", "u": "user" }] })), "message 2");
    fails(case(json!({ "expect_seq": [null] })), "expect_seq has 1 entries, there are 3 messages");
    passes(case(json!({ "expect_rows": [rows[1], rows[2]] })));
    fails(case(json!({ "expect": rows[1] })), "2 outputs of 3 messages came");
    let empty = |more: Value| {
        let mut case = sql("SELECT t FROM 'a/b'", more);
        case["messages"] = json!([{ "payload": {} }, { "payload": { "t": 1 } }]);
        case
    };
    passes(empty(json!({ "expect_seq": [{}, { "t": 1 }] })));
    fails(empty(json!({ "expect_seq": [null, { "t": 1 }] })), "message 1: expected no output, {} came");
    passes(empty(json!({ "expect_seq": [null, { "t": 1 }], "omit_empty": true })));
}

#[test]
fn keys_are_looked_for_by_pattern_and_by_absence() {
    let case = |more| sql("SELECT 'x1' AS s, 12 AS n, NULL AS z, missing AS m FROM 'a/b'", more);
    passes(case(json!({ "expect_undefined_absent": ["m"] })));
    fails(case(json!({ "expect_undefined_absent": ["m", "z"] })), "expected no `z`");
    fails(
        sql("SELECT 1 AS a FROM 'a/c'", json!({ "expect_undefined_absent": ["m"] })),
        "expected an object without some keys, no match came",
    );
    passes(case(json!({ "expect_regex": { "s": "^x\\d$", "n": "^12$", "z": "null" } })));
    fails(case(json!({ "expect_regex": { "s": "^y" } })), "`s`: expected to match ^y, x1 came");
    fails(case(json!({ "expect_regex": { "m": "" } })), "it is missing");
}

#[test]
fn outputs_are_compared_as_text_and_as_bytes() {
    let spaced = json!({ "payload_text": "{ \"a\": 1 }", "expect_payload_text": "{ \"a\": 1 }" });
    passes(sql("SELECT * FROM 'a/b'", spaced));
    fails(
        sql("SELECT a FROM 'a/b'", json!({ "payload": { "a": 1 }, "expect_payload_text": "{ \"a\": 1 }" })),
        "text",
    );
    let bytes =
        passes(sql("SELECT * FROM 'a/b'", json!({ "payload_base64": "AP8=", "expect_raw_base64": "AP8=" })));
    assert_eq!(bytes["rows"], json!([{ "base64": "AP8=" }]));
    fails(
        sql("SELECT * FROM 'a/b'", json!({ "payload_base64": "AP8=", "expect_raw_base64": "AP4=" })),
        "AP8= came",
    );
}

#[test]
fn payloads_are_sent_as_they_are_said() {
    let case = |more| sql("SELECT VALUE payload() FROM 'a/b'", more);
    for (payload, text) in [
        (json!({ "b": [1, "x"], "a": null }), r#"{"a":null,"b":[1,"x"]}"#),
        (json!("not \"json\""), "not \"json\""),
        (json!(1.5), "1.5"),
        (json!(true), "true"),
        (json!(null), "null"),
    ] {
        passes(case(json!({ "payload": payload, "expect": text })));
    }
    let without =
        json!({ "id": "a", "sql": "SELECT VALUE payload() FROM 'a/b'", "topic": "a/b", "expect": "" });
    passes(without);
    refused(case(json!({ "payload_text": "x", "payload": "x" })), "expected one of payload, payload_text");
    refused(sql("SELECT 1 AS a FROM 'a/b'", json!({ "payload_base64": "?" })), "base64");
}

#[test]
fn a_message_has_everything_that_rules_ask_for() {
    let statement = "SELECT clientid() AS c, username() AS u, qos() AS q, retain() AS r, sourceip() AS ip, listener() AS l, \
         traceid() AS trace, timestamp() AS now, get_mqtt_property('content_type') AS ct, \
         get_mqtt_property('response_topic') AS rt, get_mqtt_property('correlation_data') AS cd, \
         get_mqtt_property('format_indicator') AS f, get_user_properties('k') AS k FROM 'a/b'";
    passes(sql(
        statement,
        json!({
            "clientid": "dev", "username": "u", "qos": 2, "retain": true, "source_ip": "::ffff:192.0.2.1",
            "listener": "tls", "now": "2015-12-18T01:00:00.250+01:00",
            "properties": {
                "content_type": "text/plain", "response_topic": "r/1", "correlation_data_base64": "AP8=",
                "payload_format_indicator": 1, "message_expiry_interval": 60,
                "user_properties": [["k", "1"], ["x", "2"], ["k", "3"]]
            },
            "expect": {
                "c": "dev", "u": "u", "q": 2, "r": true, "ip": "192.0.2.1", "l": "tls", "now": 1_450_396_800_250_i64,
                "ct": "text/plain", "rt": "r/1", "cd": "AP8=", "f": "UTF8_DATA", "k": ["1", "3"],
                "trace": "74696465-6761-4e65-8000-000000000001"
            }
        }),
    ));
    let plain =
        json!({ "expect": { "c": "n/a", "q": 0, "r": false, "now": 1000, "f": "UNSPECIFIED_BYTES" } });
    let mut plain = sql(statement, plain);
    plain["expect"]["trace"] = json!("74696465-6761-4e65-8000-000000000001");
    passes(plain);
    refused(
        sql("SELECT 1 AS a FROM 'a'", json!({ "properties": { "response_topic": "a/#" } })),
        "properties",
    );
    refused(sql("SELECT 1 AS a FROM 'a'", json!({ "now": "yesterday" })), "RFC 3339");
    refused(sql("SELECT 1 AS a FROM 'a'", json!({ "qos": 3 })), "from 0 to 2");
    refused(sql("SELECT 1 AS a FROM 'a'", json!({ "topic": "a/#" })), "topic \"a/#\"");
    refused(sql("SELECT 1 AS a FROM 'a'", json!({ "source_ip": "here" })), "no IP address");
}

#[test]
fn two_runs_give_the_same() {
    let case = || sql("SELECT rand() AS r, newuuid() AS u, traceid() AS t FROM 'a/b'", json!({}));
    assert_eq!(run(case()), run(case()));
    let mut several = case();
    several["messages"] = json!([{}, {}]);
    let answer = run(several);
    for key in ["r", "u", "t"] {
        let value = |message: usize| &answer["messages"][message]["rows"][0]["json"][key];
        assert_ne!(value(0), value(1), "{key}");
    }
}

#[test]
fn templates_are_rendered_for_what_they_are_for() {
    let case = |template: &str, field: Value, more: Value| {
        let mut case = sql("SELECT x AS y FROM 'a/b'", more);
        case["template"] = json!(template);
        case["template_field"] = field;
        case["payload"] = json!({ "x": "a\"#" });
        case
    };
    passes(case("v=${x}${missing}", json!(null), json!({ "expect_text": "v=a\"#" })));
    passes(case("{\"v\": \"${x}\"}", json!("body"), json!({ "expect_text": "{\"v\": \"a\\\"#\"}" })));
    passes(case("http://h/${x}", json!("url"), json!({ "expect_text_regex": "^http://h/a%22%23$" })));
    passes(case("${output().y}", json!("user_properties.k"), json!({ "expect_text": "a\"#" })));
    passes(case("t/${x}", json!("topic"), json!({ "error": true, "error_stage": "template" })));
    let answer = fails(case("t/${x}", json!("topic"), json!({ "expect_text": "t" })), "stage template");
    assert_eq!((&answer["outcome"], &answer["rendered"]), (&json!("error"), &json!(null)));
    fails(case("v=${x}", json!(null), json!({ "expect_text": "v" })), "template: expected the text");
    fails(
        case("v=${x}", json!(null), json!({ "expect_text_regex": "^w" })),
        "template: expected to match ^w",
    );
    refused(case("t", json!("topci"), json!({})), "did you mean `topic`?");
    passes(case("t", json!("partition_key"), json!({ "expect_text": "t" })));
    // One that does not compile is refused with its rule.
    for stage in ["template", "create"] {
        passes(case("${x", json!("body"), json!({ "error": true, "error_stage": stage })));
    }
    fails(
        case("${x", json!("body"), json!({ "error": true, "error_stage": "run" })),
        "one of stage template came",
    );
}

#[test]
fn errors_are_expected_by_their_stage() {
    let create = |more| json_with(json!({ "sql": "SELECT a FROM" }), more);
    passes(create(json!({ "error": true })));
    passes(create(json!({ "error": true, "error_stage": "create" })));
    passes(create(json!({ "error": true, "error_code": "R0101" })));
    fails(create(json!({ "error": true, "error_code": "R0102" })), "expected the error R0102, R0101 came");
    fails(create(json!({ "error": true, "error_stage": "run" })), "expected an error of stage run");
    fails(create(json!({ "no_match": true })), "expected no error");
    let run = |more| {
        let statement = "SELECT (SELECT VALUE 1 FROM a) AS v FROM 'a/b'";
        json_with(sql(statement, json!({ "payload": { "a": vec![0; 10_001] } })), more)
    };
    let answer = passes(run(json!({ "error": true, "error_stage": "run" })));
    assert_eq!(answer["outcome"], json!("error"));
    fails(run(json!({ "error": true, "error_stage": "create" })), "one of stage run came");
    fails(run(json!({ "error": true, "error_code": "R0101" })), "expected the error R0101, no code came");
    fails(sql("SELECT 1 AS a FROM 'a/b'", json!({ "error": true, "error_stage": "run" })), "{\"a\":1} came");
}

#[test]
fn emqx_is_refused_where_rules_are_created() {
    for dialect in ["emqx", "nanomq"] {
        let answer = passes(sql(
            "SELECT 1 AS a FROM 'a/b'",
            json!({ "dialect": dialect, "error": true, "error_stage": "create" }),
        ));
        assert_eq!(answer["error"]["code"], json!("R0010"));
    }
    for dialect in ["aws", "ekuiper"] {
        passes(sql("SELECT 1 AS a FROM 'a/b'", json!({ "dialect": dialect, "expect": { "a": 1 } })));
    }
    refused(
        sql("SELECT 1 AS a FROM 'a/b'", json!({ "dialect": "asw" })),
        "expected aws, emqx, nanomq or ekuiper",
    );
}

#[test]
fn no_match_is_of_from_and_where_alone() {
    passes(sql("SELECT 1 AS a FROM 'a/b' WHERE false", json!({ "no_match": true })));
    passes(sql("SELECT 1 AS a FROM 'a/c'", json!({ "no_match": true })));
    fails(sql("SELECT 1 AS a FROM 'a/b'", json!({ "no_match": true })), "expected no match, {\"a\":1} came");
    fails(
        sql("SELECT VALUE missing FROM 'a/b'", json!({ "no_match": true })),
        "expected no match, no output came",
    );
}

#[test]
fn a_case_never_tests_less_than_it_says() {
    let case = |more| sql("SELECT 1 AS a FROM 'a/b'", more);
    refused(case(json!({ "expct": { "a": 1 } })), "unknown field `expct`: did you mean `expect`?");
    refused(
        case(json!({ "messages": [{ "paylod": 1 }] })),
        "messages[0]: unknown field `paylod`: did you mean `payload`?",
    );
    refused(case(json!({ "properties": { "content-type": "x" } })), "did you mean `content_type`?");
    refused(case(json!({ "error": false })), "error: expected true");
    refused(case(json!({ "no_match": false })), "no_match: expected true");
    refused(case(json!({ "no_match": "yes" })), "expected true or false");
    refused(case(json!({ "error_stage": "run" })), "error_stage needs error");
    refused(case(json!({ "error_code": "R0101" })), "error_code needs error");
    refused(case(json!({ "error": true, "error_stage": "runtime" })), "expected create, run or template");
    refused(case(json!({ "expect_text": "x" })), "need a template");
    refused(case(json!({ "template_field": "topic" })), "template_field without template");
    refused(case(json!({ "expect_seq": [] })), "expect_seq needs messages");
    refused(case(json!({ "omit_empty": true, "expect": {} })), "omit_empty needs expect_seq");
    refused(case(json!({ "subset": true })), "subset and tolerance need");
    refused(case(json!({ "tolerance": -1, "expect": {} })), "no bound");
    refused(case(json!({ "messages": [] })), "messages is empty");
    refused(case(json!({ "expect_regex": { "a": "(" } })), "no regular expression");
    refused(case(json!({ "expect_actions": { "x": {} } })), "expect_actions needs a rule by name");
    refused(case(json!({ "rule": "hot" })), "both sql and rule");
    refused(json!({ "topic": "a" }), "neither sql nor rule");
    refused(json!({ "sql": "SELECT 1 AS a FROM 'a'", "expect": { "a": 1 } }), "has no topic");
    refused(
        case(json!({ "event": "$events/client/connected", "event_fields": {} })),
        "events are no source of rules",
    );
    // What is for the reader is left alone, whatever it is.
    passes(case(
        json!({ "level": 1, "source": [], "confidence": {}, "conflict": null, "note": "n", "expect": { "a": 1 } }),
    ));
}

#[test]
fn cases_without_expectations_only_run() {
    assert_eq!(run(sql("SELECT 1 AS a FROM 'a/b'", json!({})))["pass"], json!(null));
    assert_eq!(run(sql("SELECT", json!({})))["pass"], json!(null));
}

#[test]
fn rules_are_found_by_name_even_if_they_are_not_enabled() {
    let case = |more| {
        json_with(json!({ "rule": "hot", "topic": "in/hall", "payload": { "id": "d 1", "t": 20 } }), more)
    };
    passes(case(json!({ "expect": { "id": "d 1", "t": 20 } })));
    refused(json!({ "rule": "hott", "topic": "a" }), "no rule is named \"hott\": did you mean `hot`?");
    refused(case(json!({ "dialect": "aws" })), "says its own");
}

#[test]
fn what_actions_would_send_is_seen_parameter_by_parameter() {
    let case = |more| {
        json_with(
            json!({ "rule": "hot", "topic": "in/hall", "payload": { "id": "d 1", "t": 20.50, "kind": "x" } }),
            more,
        )
    };
    passes(case(json!({ "expect_actions": {
        "alarm": {
            "topic": "alarms/hall", "qos": 1, "retain": false, "payload": { "t": 20.5, "id": "d 1" },
            "user_properties.site": "hall", "content_type": "text/x"
        },
        "ops": {
            "url": "http://127.0.0.1/d%201?t=20.5", "method": "POST", "headers.X-Device": "d 1",
            "body": "{\"id\": \"d 1\", \"t\": 20.5}"
        },
        "note": { "message": "hot: 20.5" }
    } })));
    fails(
        case(json!({ "expect_actions": { "alarm": { "topic": "alarms" } } })),
        "action \"alarm\", topic: expected the text",
    );
    fails(
        case(json!({ "expect_actions": { "alarm": { "payload": { "t": 20.5 } } } })),
        "`id`: expected nothing",
    );
    passes(case(json!({ "expect_actions": { "alarm": { "payload": { "t": 20.5 } } }, "subset": true })));
    fails(case(json!({ "expect_actions": { "alarm": { "topc": "x" } } })), "did you mean `topic`?");
    fails(case(json!({ "expect_actions": { "alarm": { "response_topic": "x" } } })), "no such parameter");
    refused(case(json!({ "expect_actions": { "alram": {} } })), "no action \"alram\": did you mean `alarm`?");
    fails(
        case(json!({ "payload": { "t": 1 }, "expect_actions": { "alarm": {} } })),
        "action \"alarm\" sends nothing: no match came",
    );
    let wild = json!({ "topic": "in/hall", "payload": { "t": 20, "kind": "\u{0}" } });
    let answer = passes(case(json_with(wild.clone(), json!({ "error": true, "error_stage": "template" }))));
    assert!(answer["error"]["message"].as_str().unwrap().starts_with("action \"alarm\": "), "{answer}");
    fails(case(json_with(wild, json!({ "expect_actions": { "alarm": {} } }))), "stage template");
}

#[test]
fn a_rule_that_is_refused_fails_the_cases_that_name_it() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.toml"), "[rules.bad]\nsql = \"SELECT a FROM\"\n").unwrap();
    std::fs::write(folder.path().join("b.toml"), RULES).unwrap();
    std::fs::write(folder.path().join("c.toml"), RULES).unwrap();
    let shelf = Shelf::read(folder.path(), &Limits::default()).unwrap();
    let book = [&shelf];
    let answer = run_with(Book(&book), &json!({ "id": "a", "rule": "bad", "expect": {} }));
    assert_eq!((&answer["pass"], &answer["error"]["stage"]), (&json!(false), &json!("create")), "{answer}");
    assert_eq!(answer["error"]["line"], json!(2), "{answer}");
    let answer =
        run_with(Book(&book), &json!({ "id": "a", "rule": "bad", "error": true, "error_stage": "create" }));
    assert_eq!(answer["pass"], json!(true), "{answer}");
    let answer = run_with(Book(&book), &json!({ "id": "a", "rule": "hot", "topic": "in/x" }));
    assert!(answer["why"].as_str().unwrap().contains("rule \"hot\" is in "), "{answer}");
    let answer = run_with(Book(&book), &json!({ "id": "a", "rule": "other", "topic": "in/x" }));
    assert!(answer["why"].as_str().unwrap().contains("a rule file is refused: "), "{answer}");
}

#[test]
fn files_are_arrays_or_lines() {
    let case = r#"{"id": "a", "sql": "SELECT 1 AS a FROM 't'", "topic": "t"}"#;
    let other = case.replace("\"a\"", "\"b\"");
    assert_eq!(parse(&format!(" [{case}, {other}]")).unwrap().len(), 2);
    assert_eq!(parse(&format!("{case}\n\n{other}\n")).unwrap().len(), 2);
    for text in ["", " \n", "[]", "[1", "{\"id\": }", "x"] {
        assert!(parse(text).is_err(), "{text:?}");
    }
    let why = |text: &str| parse(text).unwrap().pop().unwrap().test.unwrap_err();
    assert!(why(&format!("[{case},{case}]")).contains("has the id \"a\" too"));
    assert_eq!(why("[{}]"), "has no id, a string");
    assert_eq!(parse("[{}, 3]").unwrap()[1].id, "#2");
    assert_eq!(why("[3]"), "a case is an object, not a number");
    assert!(why(r#"{"id": "a", "id": "b"}"#).contains("`id` twice"));
    assert!(why(&format!("[{}{}]", "[".repeat(1000), "]".repeat(1000))).contains("512"));
}

#[test]
fn arguments_stand_for_case_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    assert!(case_files(folder.path()).unwrap_err().contains("has no case file"));
    for name in
        ["b.cases.jsonl", "a.cases.json", "a.cases.jsonl", ".c.cases.json", "d.json", "a.toml", "e.toml"]
    {
        std::fs::write(path(name), "").unwrap();
    }
    assert_eq!(
        case_files(folder.path()).unwrap(),
        [path("a.cases.json"), path("a.cases.jsonl"), path("b.cases.jsonl")]
    );
    assert_eq!(case_files(&path("a.toml")).unwrap(), [path("a.cases.json"), path("a.cases.jsonl")]);
    assert!(case_files(&path("e.toml")).unwrap_err().contains("e.cases.json"));
    assert!(case_files(&path("none.toml")).unwrap_err().contains("can't be read"));
    assert_eq!(case_files(Path::new("any")).unwrap(), [Path::new("any")]);
    assert!(read_cases(&path("none.json")).unwrap_err().contains("can't be read"));
    assert!(read_cases(&path("d.json")).unwrap_err().contains("holds no case"));
}

/// One object with the members of another added, or put in place of its own.
fn json_with(mut object: Value, more: Value) -> Value {
    for (key, value) in more.as_object().unwrap() {
        object[key] = value.clone();
    }
    object
}
