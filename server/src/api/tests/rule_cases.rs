//! Cases of rules that the gateway keeps.

use serde_json::{Value, json};

use super::running::{Running, start};
use super::security::{ask, bearer, with_tokens};
use super::*;
use crate::api::rule_cases::RULE_CASES_MAX;

const HOT: &str = "/api/v1/rules/hot/cases";

fn case(id: &str) -> Value {
    json!({ "id": id, "rule": "hot", "topic": "s/7", "payload": { "t": 61 }, "expect": { "t": 61 } })
}

async fn shown(running: &Running, path: &str) -> Value {
    running.ask("operator", "GET", path, &Value::Null).await.json()
}

async fn put(running: &Running, path: &str, cases: &Value) -> Answer {
    running.change("PUT", path, json!({ "cases": cases })).await
}

#[tokio::test]
async fn cases_are_kept_shown_run_and_given_up() {
    let running = start().await;
    assert_eq!(shown(&running, HOT).await, json!({ "cases": [] }));
    let cases = json!([case("warm"), { "id": "cold", "rule": "hot", "topic": "s/7", "payload": "{\"t\":1}", "no_match": true }]);
    assert_eq!(put(&running, HOT, &cases).await.status, 204);
    let kept = shown(&running, HOT).await;
    assert_eq!(kept, json!({ "cases": cases }));
    let ran = running
        .change("POST", "/api/v1/rules/test", json!({ "cases": kept["cases"].to_string() }))
        .await
        .json();
    assert_eq!((&ran["passed"], &ran["failed"]), (&json!(2), &json!(0)), "{ran}");
    // A restart.
    let folder = running.folder().to_owned();
    let again = ApiServer::open(&with_tokens(), Some(&folder), running.gateway.clone());
    let mut again = again.unwrap();
    again.listen("127.0.0.1:0".parse().unwrap(), None).await.unwrap();
    let operator = bearer("operator");
    let found = ask(&again, "GET", HOT, &[("Authorization", &operator)], "").await.json();
    assert_eq!(found, json!({ "cases": cases }));
    again.close().await;
    let record = running.ask("admin", "GET", "/api/v1/audit", &Value::Null).await.body;
    assert!(record.contains("putRuleCases") && !record.contains("no_match"), "{record}");
    assert_eq!(running.change("DELETE", HOT, Value::Null).await.status, 204);
    assert_eq!(shown(&running, HOT).await, json!({ "cases": [] }));
    running.stop().await;
}

#[tokio::test]
async fn they_go_with_their_rule() {
    let running = start().await;
    let rule = json!({ "sql": "SELECT * FROM 'x'", "actions": [{ "name": "log", "type": "log" }] });
    let (path, cases) = ("/api/v1/rules/comfort", "/api/v1/rules/comfort/cases");
    assert_eq!(running.change("PUT", path, rule.clone()).await.status, 200);
    let own = json!([{ "id": "a", "rule": "comfort", "topic": "x", "payload": 1 }]);
    assert_eq!(put(&running, cases, &own).await.status, 204);
    assert_eq!(running.change("DELETE", &format!("{path}?dry_run=true"), Value::Null).await.status, 200);
    assert_eq!(shown(&running, cases).await, json!({ "cases": own }), "it would be removed");
    assert_eq!(running.change("DELETE", path, Value::Null).await.status, 200);
    let missing = running.ask("operator", "GET", cases, &Value::Null).await;
    assert_eq!(missing.problem(), (404, "missing".to_owned()));
    assert_eq!(running.change("PUT", path, rule).await.status, 200);
    assert_eq!(shown(&running, cases).await, json!({ "cases": [] }));
    // As many rules as go at once.
    assert_eq!(put(&running, cases, &own).await.status, 204);
    let none = json!({ "rules": {}, "prune": true });
    assert_eq!(running.change("POST", "/api/v1/rules/apply", none).await.status, 200);
    assert!(!running.folder().join("rule-cases/comfort.json").exists());
    running.stop().await;
}

#[tokio::test]
async fn what_is_no_case_of_the_rule_is_refused_and_what_was_there_stays() {
    let running = start().await;
    let before = json!([case("before")]);
    assert_eq!(put(&running, HOT, &before).await.status, 204);
    let with = |member: &str, value: Value| {
        let mut case = case("x");
        case[member] = value;
        json!([case])
    };
    for wrong in [
        with("id", json!("")),
        with("id", json!(7)),
        with("id", Value::Null),
        with("rule", json!("off")),
        with("rule", Value::Null),
        with("nonsense", json!(1)),
        with("topic", json!(1)),
        with("sql", json!("SELECT * FROM 'x'")),
        json!([case("twice"), case("twice")]),
        json!([1]),
        json!({}),
        Value::Null,
    ] {
        assert_eq!(put(&running, HOT, &wrong).await.problem().0, 422, "{wrong}");
    }
    let many = |count: usize| (0..count).map(|number| case(&number.to_string())).collect::<Value>();
    assert_eq!(put(&running, HOT, &many(RULE_CASES_MAX + 1)).await.problem().0, 422);
    let mut long = case("long");
    long["payload"] = "x".repeat(BODY_BYTES_MAX).into();
    assert_eq!(put(&running, HOT, &json!([long])).await.problem(), (413, "too_large".to_owned()));
    // Numbers that are longer when they are written out.
    let grown = format!(
        "{{\"cases\":[{{\"id\":\"g\",\"rule\":\"hot\",\"payload\":[{}1]}}]}}",
        "1e15,".repeat(100_000)
    );
    let operator = bearer("operator");
    let grown = ask(&running.api, "PUT", HOT, &[("Authorization", &operator)], &grown).await;
    assert_eq!(grown.problem(), (413, "too_large".to_owned()));
    for path in ["/api/v1/rules/none/cases", "/api/v1/rules/..%2Fhot/cases", "/api/v1/rules/%2e%2e/cases"] {
        for (method, body) in [("GET", Value::Null), ("PUT", json!({ "cases": [] })), ("DELETE", Value::Null)]
        {
            let answer = running.change(method, path, body).await;
            assert_eq!(answer.problem().0, 404, "{method} {path}");
        }
    }
    assert_eq!(running.ask("viewer", "GET", HOT, &Value::Null).await.problem().0, 403);
    assert_eq!(shown(&running, HOT).await, json!({ "cases": before }));
    assert_eq!(put(&running, HOT, &many(RULE_CASES_MAX)).await.status, 204);
    running.stop().await;
}

#[tokio::test]
async fn a_damaged_file_is_told_until_it_is_replaced() {
    let running = start().await;
    assert_eq!(put(&running, HOT, &json!([case("a")])).await.status, 204);
    let path = running.folder().join("rule-cases/hot.json");
    let text = std::fs::read_to_string(&path).unwrap();
    for damaged in [text.replace("61", "62"), text.split_at(text.len() / 2).0.to_owned(), String::new()] {
        std::fs::write(&path, damaged).unwrap();
        let told = running.ask("operator", "GET", HOT, &Value::Null).await;
        assert_eq!(told.problem(), (409, "conflict".to_owned()), "{told:?}");
        assert!(told.body.contains("are damaged"), "{told:?}");
    }
    assert_eq!(put(&running, HOT, &json!([case("b")])).await.status, 204);
    assert_eq!(shown(&running, HOT).await["cases"][0]["id"], "b");
    std::fs::write(&path, b"\xff").unwrap();
    assert_eq!(running.change("DELETE", HOT, Value::Null).await.status, 204);
    assert_eq!(shown(&running, HOT).await, json!({ "cases": [] }));
    running.stop().await;
}
