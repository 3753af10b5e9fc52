//! Access rules, shown and explained.

use serde_json::{Value, json};

use super::config::Started;
use super::running::start;
use super::*;
use crate::client::{Client, Endpoint, Options};

const RULES: &str = "[acl]\nrules = ['deny subscribe all \"a/secret\"', 'allow all listener tcp address 127.0.0.1 \"a/#\"',\n\
    'allow publish user ada group ops \"ops/${clientid}\"']\nfile = 'more.acl'\n";

async fn with_rules() -> Started {
    Started::with_file("more.acl", "# more\nallow publish all \"open\"\n", RULES).await
}

impl Started {
    async fn explain(&self, question: Value) -> Value {
        let answer = self.ask("operator", "POST", "/api/v1/acl/explain", &question.to_string()).await;
        assert_eq!(answer.status, 200, "{question}: {answer:?}");
        answer.json()
    }

    async fn connect(&self, client_id: &str) -> Client {
        let address = self.server.address().unwrap();
        let endpoint = Endpoint::Tcp { host: address.ip().to_string(), port: address.port() };
        let options = Options { endpoint, client_id: client_id.to_owned(), ..Options::default() };
        Client::connect(&options).await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_are_listed_in_the_order_in_which_they_are_asked() {
    let started = with_rules().await;
    let shown = started.ask("operator", "GET", "/api/v1/acl", "").await.json();
    assert_eq!((&shown["default"], &shown["asks_server"]), (&json!("deny"), &json!(false)));
    let rules = shown["rules"].as_array().unwrap();
    assert_eq!(rules.len(), 4, "{shown}");
    assert_eq!(
        rules[0],
        json!({ "origin": "acl.rules", "line": 1, "rule": "deny subscribe all \"a/secret\"" })
    );
    let last = &rules[3];
    assert!(last["origin"].as_str().unwrap().ends_with("/more.acl"), "{last}");
    assert_eq!((&last["line"], &last["rule"]), (&json!(2), &json!("allow publish all \"open\"")));

    let mut seen = Vec::new();
    let mut path = "/api/v1/acl?limit=3".to_owned();
    loop {
        let page = started.ask("operator", "GET", &path, "").await.json();
        seen.extend(page["rules"].as_array().unwrap().clone());
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/api/v1/acl?limit=3&after={next}");
    }
    assert_eq!(&seen, rules);
    let far = paging::cursor(&usize::MAX);
    let beyond = started.ask("operator", "GET", &format!("/api/v1/acl?after={far}"), "").await.json();
    assert_eq!((&beyond["rules"], &beyond["next"]), (&json!([]), &Value::Null));
    assert_eq!(started.ask("viewer", "GET", "/api/v1/acl", "").await.problem().0, 403);
    started.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_said_of_a_client_decides_and_each_part_of_it_counts() {
    let started = with_rules().await;
    let ada =
        json!({ "client_id": "c", "username": "ada", "groups": ["x", "ops"], "publish": "ops/c", "qos": 1 });
    let explained = started.explain(ada.clone()).await;
    assert_eq!(
        explained,
        json!({
            "decision": "allow",
            "by": "acl.rules:3: allow publish user ada group ops \"ops/${clientid}\"",
            "is_connected": false,
            "client": { "client_id": "c", "username": "ada", "groups": ["x", "ops"], "address": null, "listener": null },
            "warnings": [],
        })
    );
    for (member, value) in [("client_id", json!("d")), ("username", json!("eve")), ("groups", json!([]))] {
        let mut other = ada.clone();
        other[member] = value;
        let explained = started.explain(other).await;
        assert_eq!((&explained["decision"], &explained["by"]), (&json!("deny"), &json!("no rule allows it")));
    }
    let from = |address: &str, listener: &str| json!({ "address": address, "listener": listener, "subscribe": "$share/g/a/+" });
    assert_eq!(started.explain(from("127.0.0.1", "tcp")).await["decision"], "allow_in_part");
    assert_eq!(started.explain(from("192.0.2.1", "tcp")).await["decision"], "deny");
    assert_eq!(started.explain(from("127.0.0.1", "tls")).await["decision"], "deny");
    assert_eq!(started.explain(json!({ "receive": "a/secret" })).await["decision"], "deny");
    let own = started.explain(json!({ "publish": "$SYS/x" })).await;
    assert_eq!(own["by"], "topics that begin with $ are the broker's own");
    started.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_is_connected_is_asked_for_as_what_it_is() {
    let started = with_rules().await;
    let question = json!({ "client_id": "pump", "publish": "a/x" });
    let before = started.explain(question.clone()).await;
    assert_eq!((&before["decision"], &before["is_connected"]), (&json!("deny"), &json!(false)));
    let warning = before["warnings"][0].as_str().unwrap();
    assert!(warning.contains("\"pump\" is connected"), "{before}");

    let client = started.connect("pump").await;
    let now = started.explain(question).await;
    assert_eq!((&now["decision"], &now["is_connected"]), (&json!("allow"), &json!(true)));
    assert_eq!(
        now["client"],
        json!({ "client_id": "pump", "username": null, "groups": [], "address": "127.0.0.1", "listener": "tcp" })
    );
    assert_eq!(now["warnings"], json!([]));
    // Whoever says more asks about somebody else.
    let supposed = started.explain(json!({ "client_id": "pump", "groups": [], "publish": "a/x" })).await;
    assert_eq!((&supposed["decision"], &supposed["is_connected"]), (&json!("deny"), &json!(false)));
    drop(client);
    started.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn questions_that_make_no_sense_are_problems() {
    let started = with_rules().await;
    for question in [
        json!({}),
        json!({ "client_id": "c" }),
        json!({ "publish": "a", "receive": "a" }),
        json!({ "publish": "a/#" }),
        json!({ "publish": "" }),
        json!({ "receive": "+" }),
        json!({ "subscribe": "a/#/b" }),
        json!({ "subscribe": "$share/a" }),
        json!({ "publish": "a", "qos": 3 }),
        json!({ "publish": "a", "qos": -1 }),
        json!({ "subscribe": "a", "retain": true }),
        json!({ "publish": "a", "address": "localhost" }),
        json!({ "publish": "a", "user": "ada" }),
    ] {
        let answer = started.ask("operator", "POST", "/api/v1/acl/explain", &question.to_string()).await;
        assert_eq!(answer.problem(), (422, "invalid".to_owned()), "{question}");
    }
    started.stop().await;
}

#[tokio::test]
async fn without_access_rules_everything_is_allowed() {
    let running = start().await;
    let shown = running.ask("operator", "GET", "/api/v1/acl", &Value::Null).await.json();
    assert_eq!(shown, json!({ "default": "allow", "asks_server": false, "rules": [], "next": null }));
    let question = json!({ "client_id": "c", "publish": "a" });
    let explained = running.change("POST", "/api/v1/acl/explain", question).await.json();
    assert_eq!(
        (&explained["decision"], &explained["by"]),
        (&json!("allow"), &json!("there are no access rules, so everything is allowed"))
    );
}
