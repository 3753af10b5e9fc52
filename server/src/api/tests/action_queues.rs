//! Actions through the interface: how they do, and what an operator does to their queues.

use serde_json::{Value, json};

use super::running::{Running, start};
use super::*;
use crate::config::{Config, Durability, Environment};

const NONE: Value = Value::Null;

/// Rules whose actions send to this machine, where nobody is allowed to be reached: every request is refused for good; those with
/// `limit` wait for their rate.
const RULES: &str = "[rules.one]\nsql = \"SELECT v FROM 'in'\"\n\
    [[rules.one.actions]]\nname = 'far'\ntype = 'http'\nurl = 'http://closed.invalid/secret/path?token=canary'\n\
    [[rules.one.actions]]\nname = 'note'\ntype = 'log'\n\
    [[rules.one.actions]]\nname = 'pub'\ntype = 'republish'\ntopic = 'out'\n\
    [rules.one.error_action]\ntype = 'republish'\ntopic = 'errors'\n\
    [rules.off]\nsql = \"SELECT * FROM 'x'\"\nenabled = false\n\
    [[rules.off.actions]]\nname = 'log'\ntype = 'log'\n";

fn rules() -> RuleSet {
    RuleSet::from_texts([(Path::new("r.toml"), RULES)], &rules_sql::Limits::default()).unwrap()
}

/// A store on disk that outlives the gateway.
fn on_disk(folder: &Path) -> Storage {
    let config = Config {
        data_dir: Some(folder.to_owned()),
        store: crate::config::Store { durability: Durability::Commit, ..crate::config::Store::default() },
        ..Config::default()
    };
    Storage::open(&config, &Environment::default()).unwrap()
}

impl Running {
    async fn publish(&self, topic: &str, count: u32) {
        for v in 0..count {
            let body = json!({ "topic": topic, "payload": format!("{{\"v\":{v}}}"), "qos": 1 });
            assert_eq!(self.change("POST", "/api/v1/publish", body).await.status, 204);
        }
    }

    async fn post(&self, action: &str, verb: &str) -> Answer {
        self.change("POST", &format!("/api/v1/actions/{action}/{verb}"), NONE).await
    }

    async fn purge(&self, action: &str, query: &str, body: Value) -> Answer {
        self.change("POST", &format!("/api/v1/actions/{action}/purge{query}"), body).await
    }

    async fn action(&self, name: &str) -> Value {
        self.get(&format!("/api/v1/actions/{name}")).await
    }

    async fn last_noted(&self) -> Value {
        let page = self.ask("admin", "GET", "/api/v1/audit?limit=1", &NONE).await.json();
        page["entries"][0].clone()
    }
}

#[tokio::test]
async fn actions_are_listed_by_rule_and_name_without_what_may_be_secret() {
    let running = Running::of(&rules(), Storage::memory()).await;
    let listed = running.get("/api/v1/actions").await;
    let of = |action: &Value, member: &str| action[member].as_str().unwrap_or("-").to_owned();
    let found: Vec<[String; 4]> = listed["actions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|action| ["rule", "name", "kind", "state"].map(|member| of(action, member)))
        .collect();
    let expected = [
        ["off", "log", "log", "stopped"],
        ["one", "error_action", "republish", "running"],
        ["one", "far", "http", "running"],
        ["one", "note", "log", "running"],
        ["one", "pub", "republish", "running"],
    ];
    assert_eq!(found, expected.map(|row| row.map(str::to_owned)));
    assert!(!listed.to_string().contains("canary") && !listed.to_string().contains("secret"), "{listed}");
    assert_eq!(listed["actions"][0]["cause"], "its rule doesn't run");
    assert_eq!(
        (&listed["actions"][1]["queue"], &listed["actions"][1]["is_error_action"]),
        (&NONE, &json!(true))
    );
    for (query, count) in [
        ("rule=one", 4),
        ("state=stopped", 1),
        ("state=running&rule=off", 0),
        ("connector=none", 0),
        ("rule=one&state=running&limit=1000", 4),
    ] {
        let page = running.get(&format!("/api/v1/actions?{query}")).await;
        assert_eq!(page["actions"].as_array().unwrap().len(), count, "{query}");
    }
    for query in ["state=gone", "state=", "limit=0", "limit=1001", "after=x", "rules=one"] {
        let answer = running.ask("viewer", "GET", &format!("/api/v1/actions?{query}"), &NONE).await;
        assert_eq!(answer.problem(), (422, "invalid".to_owned()), "{query}");
    }
    let mut seen = Vec::new();
    let mut after = String::new();
    loop {
        let page = running.get(&format!("/api/v1/actions?limit=2{after}")).await;
        seen.extend(page["actions"].as_array().unwrap().iter().map(|action| of(action, "name")));
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    assert_eq!(seen, ["log", "error_action", "far", "note", "pub"]);
}

#[tokio::test]
async fn what_is_no_action_or_has_no_queue_is_told_apart() {
    let running = Running::of(&rules(), Storage::memory()).await;
    for verb in ["pause", "resume", "drain"] {
        for name in ["one/none", "none/far", "none/none", "one/..%2Ffar"] {
            let answer = running.post(name, verb).await;
            assert_eq!(answer.problem(), (404, "missing".to_owned()), "{name} {verb}");
        }
    }
    for verb in ["pause", "drain"] {
        for name in ["one/pub", "one/error_action"] {
            assert_eq!(
                running.post(name, verb).await.problem(),
                (409, "conflict".to_owned()),
                "{name} {verb}"
            );
        }
    }
    let missing = running.ask("viewer", "GET", "/api/v1/actions/one/none", &NONE).await;
    assert_eq!(missing.problem(), (404, "missing".to_owned()));
    for (name, kind) in [("one/none", 404), ("one/pub", 409), ("off/log", 409)] {
        let confirmed = running.purge(name, "", json!({ "confirm": name })).await;
        assert_eq!(confirmed.problem().0, kind, "{name}");
        assert_eq!(running.purge(name, "?dry_run=true", json!({})).await.problem().0, kind, "{name}");
    }
    for verb in ["pause", "resume", "drain", "purge"] {
        let path = format!("/api/v1/actions/one/note/{verb}");
        let answer = running.ask("viewer", "POST", &path, &json!({ "confirm": "one/note" })).await;
        assert_eq!(answer.problem(), (403, "forbidden".to_owned()), "{verb}");
    }
}

#[tokio::test]
async fn a_paused_action_waits_and_is_told_of_everywhere() {
    let running = Running::of(&rules(), Storage::memory()).await;
    let paused = running.post("one/note", "pause").await.json();
    assert_eq!((&paused["changed"], &paused["action"]["state"]), (&json!(true), &json!("paused")));
    let noted = running.last_noted().await;
    assert_eq!((&noted["operation"], &noted["target"]), (&json!("pauseAction"), &json!("one/note")));
    assert_eq!((&noted["who"], &noted["after"]["state"]), (&json!("token operator"), &json!("paused")));
    running.publish("in", 3).await;
    let shown = running.action("one/note").await;
    assert_eq!(shown["cause"], "paused by token operator");
    assert_eq!(shown["paused"]["by"], "token operator");
    assert!(shown["paused"]["at_ms"].as_i64().unwrap() > 1_700_000_000_000);
    assert_eq!((&shown["queue"]["queued"], &shown["outcomes"]["received"]), (&json!(3), &json!(3)));
    assert_eq!((&shown["outcomes"]["attempts"], &shown["queue"]["is_durable"]), (&json!(0), &json!(false)));
    let listed = running.get("/api/v1/actions?state=paused").await;
    let listed = listed["actions"].as_array().unwrap();
    assert_eq!(
        (listed.len(), &listed[0]["name"], &listed[0]["paused"]),
        (1, &json!("note"), &shown["paused"])
    );

    assert_eq!(running.post("one/note", "pause").await.json()["changed"], false);
    assert_eq!(running.post("one/note", "drain").await.problem(), (409, "conflict".to_owned()));
    let resumed = running.post("one/note", "resume").await.json();
    assert_eq!((&resumed["changed"], &resumed["action"]["paused"]), (&json!(true), &NONE));
    while running.action("one/note").await["outcomes"]["delivered"] != 3 {
        tokio::task::yield_now().await;
    }
    let shown = running.action("one/note").await;
    assert_eq!(
        (&shown["state"], &shown["cause"], &shown["queue"]["queued"]),
        (&json!("running"), &NONE, &json!(0))
    );
    assert!(shown["last_delivered_at_ms"].is_i64());
    assert_eq!(running.post("one/note", "resume").await.json()["changed"], false);
    assert_eq!(running.post("one/note", "drain").await.json()["items"], 0);
}

#[tokio::test]
async fn a_purge_needs_the_name_and_drops_what_waits() {
    let running = Running::of(&rules(), Storage::memory()).await;
    running.post("one/note", "pause").await;
    running.publish("in", 4).await;
    for body in
        [json!({}), json!({ "confirm": "note" }), json!({ "confirm": "one/far" }), json!({ "confirm": null })]
    {
        let refused = running.purge("one/note", "", body.clone()).await;
        assert_eq!(refused.problem(), (422, "invalid".to_owned()), "{body}");
    }
    let tried = running.purge("one/note", "?dry_run=true", json!({})).await.json();
    assert_eq!(tried, json!({ "items": 4, "is_done": false }));
    assert_eq!(running.action("one/note").await["queue"]["queued"], 4, "nothing is gone");
    let purged = running.purge("one/note", "", json!({ "confirm": "one/note" })).await.json();
    assert_eq!(purged, json!({ "items": 4, "is_done": true }));
    let noted = running.last_noted().await;
    assert_eq!((&noted["operation"], &noted["before"]), (&json!("purgeAction"), &json!({ "items": 4 })));
    let shown = running.action("one/note").await;
    assert_eq!(
        (&shown["queue"]["queued"], &shown["outcomes"]["dropped"]),
        (&json!(0), &json!({ "purged": 4 }))
    );
    assert_eq!(shown["state"], "paused", "it stays as it was");
}

/// What a folder holds, in another one: as the next process finds it.
fn copied(from: &Path) -> tempfile::TempDir {
    let to = tempfile::tempdir().unwrap();
    std::fs::create_dir(to.path().join("store")).unwrap();
    for part in ["", "store"] {
        for entry in std::fs::read_dir(from.join(part)).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                std::fs::copy(&path, to.path().join(part).join(path.file_name().unwrap())).unwrap();
            }
        }
    }
    to
}

#[tokio::test]
async fn a_pause_outlives_the_process_and_a_purge_does_too() {
    let folder = tempfile::tempdir().unwrap();
    {
        let running = Running::of(&rules(), on_disk(folder.path())).await;
        assert_eq!(running.post("one/far", "pause").await.status, 200);
        running.publish("in", 5).await;
        let shown = running.action("one/far").await;
        assert_eq!((&shown["queue"]["queued"], &shown["queue"]["is_durable"]), (&json!(5), &json!(true)));
        running.stop().await;
    }
    let folder = copied(folder.path());
    {
        let running = Running::of(&rules(), on_disk(folder.path())).await;
        let shown = running.action("one/far").await;
        assert_eq!((&shown["state"], &shown["paused"]["by"]), (&json!("paused"), &json!("token operator")));
        assert_eq!(
            (&shown["queue"]["queued"], &shown["outcomes"]["queued_at_start"]),
            (&json!(5), &json!(5))
        );
        assert_eq!(shown["outcomes"]["attempts"], 0);
        let purged = running.purge("one/far", "", json!({ "confirm": "one/far" })).await.json();
        assert_eq!(purged, json!({ "items": 5, "is_done": true }));
        assert_eq!(running.post("one/far", "resume").await.json()["changed"], true);
        running.stop().await;
    }
    let folder = copied(folder.path());
    let running = Running::of(&rules(), on_disk(folder.path())).await;
    let shown = running.action("one/far").await;
    assert_eq!((&shown["queue"]["queued"], &shown["paused"]), (&json!(0), &NONE));
}

#[tokio::test]
async fn an_action_that_is_gone_is_listed_while_it_owes_something() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::of(&rules(), on_disk(folder.path())).await;
    let definition = json!({ "sql": "SELECT v FROM 'gone'", "on_remove": "drain",
        "actions": [{ "name": "far", "type": "http", "url": "http://closed.invalid/" }] });
    assert_eq!(running.change("PUT", "/api/v1/rules/mine", definition).await.status, 200);
    running.post("mine/far", "pause").await;
    running.publish("gone", 2).await;
    assert_eq!(running.change("DELETE", "/api/v1/rules/mine", NONE).await.status, 200);
    let shown = running.action("mine/far").await;
    assert_eq!(
        (&shown["kind"], &shown["state"], &shown["queue"]["queued"]),
        (&NONE, &json!("paused"), &json!(2))
    );
    let purged = running.purge("mine/far", "", json!({ "confirm": "mine/far" })).await.json();
    assert_eq!(purged, json!({ "items": 2, "is_done": true }));
    let resumed = running.post("mine/far", "resume").await;
    assert_eq!(resumed.json()["changed"], true);
    while running.ask("viewer", "GET", "/api/v1/actions/mine/far", &NONE).await.status == 200 {
        tokio::task::yield_now().await;
    }
    assert_eq!(running.post("mine/far", "resume").await.problem(), (404, "missing".to_owned()));
}

#[tokio::test]
async fn every_list_of_a_fresh_gateway_has_the_rules_it_began_with() {
    let running = start().await;
    let names = running.get("/api/v1/actions").await;
    let names: Vec<_> =
        names["actions"].as_array().unwrap().iter().map(|action| action["name"].clone()).collect();
    assert_eq!(names, ["alarm", "log"]);
}

#[tokio::test]
async fn connectors_that_there_are_not_are_told_so() {
    let running = start().await;
    assert_eq!(running.get("/api/v1/connectors").await, json!({ "connectors": [], "next": null }));
    let shown = running.ask("viewer", "GET", "/api/v1/connectors/ops", &NONE).await;
    assert_eq!(shown.problem(), (404, "missing".to_owned()));
    let tested = running.change("POST", "/api/v1/connectors/ops/test", NONE).await;
    assert_eq!(tested.problem(), (404, "missing".to_owned()));
    let viewer = running.ask("viewer", "POST", "/api/v1/connectors/ops/test", &NONE).await;
    assert_eq!(viewer.problem(), (403, "forbidden".to_owned()));
}
