//! What the interface shows of a running gateway and does to it.

use serde_json::{Value, json};

use super::security::{ask, bearer, with_tokens};
use super::*;
use crate::api::dead_letters::tests::{keep_letter, plain_request};

/// An interface of its own, and the gateway behind it.
pub(super) struct Running {
    pub(super) api: ApiServer,
    pub(super) gateway: Gateway,
    folder: tempfile::TempDir,
}

const RULES: &str = "[rules.hot]\nsql = \"SELECT t FROM 's/+' WHERE t > 60\"\ntags = ['heat']\n\
    [[rules.hot.actions]]\nname = 'alarm'\ntype = 'republish'\ntopic = 'alarm/${topic(2)}'\n\
    [rules.off]\nsql = \"SELECT * FROM 'x'\"\nenabled = false\n\
    [[rules.off.actions]]\nname = 'log'\ntype = 'log'\n";

pub(super) async fn start() -> Running {
    start_with(with_tokens(), Storage::memory()).await
}

pub(super) async fn start_with(config: Admin, storage: Storage) -> Running {
    let limits = rules_sql::Limits::default();
    let rules = RuleSet::from_texts([(Path::new("r.toml"), RULES)], &limits).unwrap();
    Running::with(config, &rules, storage).await
}

impl Running {
    /// One with these rules.
    pub(super) async fn of(rules: &RuleSet, storage: Storage) -> Self {
        Self::with(with_tokens(), rules, storage).await
    }

    async fn with(config: Admin, rules: &RuleSet, storage: Storage) -> Self {
        let gateway = gateway_of(rules, &storage);
        let folder = tempfile::tempdir().unwrap();
        let mut api = ApiServer::open(&config, Some(folder.path()), gateway.clone()).unwrap();
        api.listen(config.address, None).await.unwrap();
        Self { api, gateway, folder }
    }

    /// Where the interface keeps its files.
    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Ends it in order.
    pub(super) async fn stop(self) {
        self.gateway.rules().shutdown(std::time::Duration::ZERO).await;
        self.api.close().await;
    }

    pub(super) async fn ask(&self, token: &str, method: &str, path: &str, body: &Value) -> Answer {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        ask(&self.api, method, path, &[("Authorization", &bearer(token))], &body).await
    }

    pub(super) async fn get(&self, path: &str) -> Value {
        let answer = self.ask("viewer", "GET", path, &Value::Null).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answer.json()
    }

    pub(super) async fn change(&self, method: &str, path: &str, body: Value) -> Answer {
        self.ask("operator", method, path, &body).await
    }

    /// Opens a listener and connects a client whose session stays.
    pub(super) async fn client(&self, client_id: &str) -> TcpStream {
        let listener = broker::ListenerConfig {
            allow_anonymous: true,
            ..broker::ListenerConfig::tcp("tcp", "127.0.0.1:0".parse().unwrap())
        };
        let bound = self.gateway.broker.listen(listener).await.unwrap();
        let mut stream = TcpStream::connect(bound.address().unwrap()).await.unwrap();
        let mut connect = mqtt_protocol::Connect::new(mqtt_protocol::ProtocolVersion::V5, client_id);
        connect.properties.session_expiry_interval_s = 3600;
        connect.username = Some("<b>ada</b>");
        let mut bytes = Vec::new();
        let packet = mqtt_protocol::Packet::Connect(Box::new(connect));
        packet.encode(mqtt_protocol::ProtocolVersion::V5, &mut bytes).unwrap();
        // SUBSCRIBE to a/# at QoS 1, Packet Identifier 1.
        bytes.extend([0x82, 9, 0, 1, 0, 0, 3, b'a', b'/', b'#', 1]);
        stream.write_all(&bytes).await.unwrap();
        let mut got = [0; 1024];
        let mut seen = Vec::new();
        // SUBACK with its code.
        while !seen.ends_with(&[0x90, 4, 0, 1, 0, 1]) {
            let count = stream.read(&mut got).await.unwrap();
            assert!(count > 0);
            seen.extend_from_slice(&got[..count]);
        }
        stream
    }
}

async fn closes(stream: &mut TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    rest
}

#[tokio::test]
async fn a_client_is_listed_shown_disconnected_and_its_session_ended() {
    let running = start().await;
    let mut stream = running.client("a/b %ü").await;
    let listed = running.get("/api/v1/clients?search=b&connected=true").await;
    assert_eq!(listed["clients"].as_array().unwrap().len(), 1);
    assert_eq!(listed["next"], Value::Null);
    let path = "/api/v1/clients/a%2Fb%20%25%C3%BC";
    let shown = running.get(path).await;
    // Two clocks tell when it was heard, and the last digit may differ.
    let but_the_time = |client: &Value| {
        let mut client = client.clone();
        assert!(client["connection"]["last_heard_at_ms"].take().is_i64(), "{client}");
        client
    };
    assert_eq!(but_the_time(&shown), but_the_time(&listed["clients"][0]));
    assert_eq!(shown["client_id"], "a/b %ü");
    assert_eq!(shown["connection"]["username"], "<b>ada</b>");
    assert_eq!((&shown["connection"]["protocol"], &shown["subscriptions"]), (&json!("5.0"), &json!(1)));
    let subscriptions = running.get("/api/v1/subscriptions?topic=a/x").await;
    assert_eq!(
        subscriptions["subscriptions"][0],
        json!({ "client_id": "a/b %ü", "filter": "a/#", "qos": 1, "no_local": false, "retain_as_published": false,
                "retain_handling": "send", "identifier": null })
    );

    let none = Value::Null;
    assert_eq!(running.change("POST", &format!("{path}/disconnect"), none.clone()).await.status, 204);
    let told = closes(&mut stream).await;
    assert_eq!((told.first(), told.get(2)), (Some(&0xE0), Some(&0x98)), "DISCONNECT, Administrative action");
    while running.gateway.broker.client("a/b %ü").unwrap().connection.is_some() {
        tokio::task::yield_now().await;
    }
    let again = running.change("POST", &format!("{path}/disconnect"), none.clone()).await;
    assert_eq!(again.problem(), (409, "conflict".to_owned()));
    assert_eq!(running.change("DELETE", path, none.clone()).await.status, 204);
    assert_eq!(running.change("DELETE", path, none.clone()).await.problem(), (404, "missing".to_owned()));
    let gone = running.ask("viewer", "GET", path, &none).await;
    assert_eq!(gone.problem(), (404, "missing".to_owned()));
}

#[tokio::test]
async fn what_is_published_goes_to_rules_and_is_retained_shown_and_cleared() {
    let running = start().await;
    let body = json!({ "topic": "s/1", "payload": "{\"t\":61}", "qos": 1, "retain": true, "content_type": "application/json",
                       "user_properties": [{ "name": "api-key", "value": "canary" }, { "name": "site", "value": "x" }] });
    assert_eq!(running.change("POST", "/api/v1/publish", body).await.status, 204);
    assert_eq!(running.gateway.rules().stats_of("hot").unwrap().passed, 1, "the rule saw it");
    let binary =
        json!({ "topic": "b", "payload_base64": "AP8=", "retain": true, "message_expiry_interval_s": 100 });
    assert_eq!(running.change("POST", "/api/v1/publish", binary).await.status, 204);

    let listed = running.get("/api/v1/retained?filter=s/%2B").await;
    assert_eq!(listed["messages"].as_array().unwrap().len(), 1);
    assert_eq!(
        (&listed["messages"][0]["topic"], &listed["messages"][0]["payload_bytes"]),
        (&json!("s/1"), &json!(8))
    );
    assert!(!listed.to_string().contains(r#"t\":61"#), "a list shows no payloads: {listed}");
    let none = Value::Null;
    let refused = running.ask("viewer", "GET", "/api/v1/retained/s%2F1", &none).await;
    assert_eq!(refused.problem(), (403, "forbidden".to_owned()), "a viewer sees no payloads");
    let shown = running.ask("operator", "GET", "/api/v1/retained/s%2F1", &none).await;
    assert!(!shown.body.contains("canary"), "{shown:?}");
    let shown = shown.json();
    assert_eq!(shown["payload"], json!({ "bytes": 8, "text": "{\"t\":61}", "cut": false }));
    assert_eq!(shown["user_properties"][1], json!({ "name": "site", "value": "x" }));
    let shown = running.ask("operator", "GET", "/api/v1/retained/b", &none).await.json();
    assert_eq!(shown["payload"], json!({ "bytes": 2, "hex": "00ff", "cut": false }));
    assert!((1..=100).contains(&shown["summary"]["expires_in_s"].as_u64().unwrap()));

    assert_eq!(running.change("DELETE", "/api/v1/retained/s%2F1", none.clone()).await.status, 204);
    let gone = running.change("DELETE", "/api/v1/retained/s%2F1", none).await;
    assert_eq!(gone.problem(), (404, "missing".to_owned()));
}

#[tokio::test]
async fn publishes_that_do_not_fit_are_refused() {
    let running = start().await;
    for (body, status) in [
        (json!({ "topic": "a" }), 422),
        (json!({ "topic": "a", "payload": "", "payload_base64": "" }), 422),
        (json!({ "topic": "a", "payload_base64": "%" }), 422),
        (json!({ "topic": "a", "payload": "", "qos": 3 }), 422),
        (json!({ "topic": "a", "payload": "", "user_properties": [["a", "b"]] }), 422),
        (json!({ "topic": "", "payload": "" }), 422),
        (json!({ "topic": "a/#", "payload": "" }), 422),
        (json!({ "topic": "a\u{0}", "payload": "" }), 422),
        (json!({ "topic": "$SYS/x", "payload": "" }), 422),
        (json!({ "topic": "$share/g/x", "payload": "" }), 422),
        (json!({ "topic": "a", "payload": "", "content_type": "x".repeat(70_000) }), 422),
        (json!({ "topic": "a/".repeat(200), "payload": "" }), 422),
        (json!({ "topic": "a", "payload": "", "retained": true }), 422),
    ] {
        let answer = running.change("POST", "/api/v1/publish", body.clone()).await;
        assert_eq!(answer.problem().0, status, "{body}: {answer:?}");
    }
    let viewer =
        running.ask("viewer", "POST", "/api/v1/publish", &json!({ "topic": "a", "payload": "" })).await;
    assert_eq!(viewer.problem(), (403, "forbidden".to_owned()));
    assert_eq!(running.gateway.broker.stats().retained_messages, 0);
}

#[tokio::test]
async fn queries_that_do_not_fit_are_refused() {
    let running = start().await;
    for path in [
        "/api/v1/clients?limit=0",
        "/api/v1/clients?limit=1001",
        "/api/v1/clients?limit=x",
        "/api/v1/clients?after=x",
        "/api/v1/clients?conected=true",
        "/api/v1/subscriptions?topic=a/%23",
        "/api/v1/subscriptions?after=WzFd",
        "/api/v1/retained?filter=a%23",
        "/api/v1/retained?filter=%24share/g/a",
        "/api/v1/rules?runs=1",
        "/api/v1/audit?limit=0",
    ] {
        let answer = running.ask("admin", "GET", path, &Value::Null).await;
        assert_eq!(answer.problem(), (422, "invalid".to_owned()), "{path}");
    }
    let raw = running.ask("viewer", "GET", "/api/v1/clients/%ff", &Value::Null).await;
    assert_eq!(raw.problem(), (400, "malformed".to_owned()));
}

#[tokio::test]
async fn pages_of_every_list_are_followed_to_their_end() {
    let running = start().await;
    for number in 0..12 {
        let body = json!({ "topic": format!("t/{number}"), "payload": "x", "retain": true });
        assert_eq!(running.change("POST", "/api/v1/publish", body).await.status, 204);
    }
    for (list, of, expected) in [
        ("/api/v1/retained", "messages", 12),
        ("/api/v1/rules", "rules", 2),
        ("/api/v1/audit", "entries", 12),
    ] {
        let mut seen = 0;
        let mut after = String::new();
        loop {
            let path = format!("{list}?limit=1{after}");
            let page = running.ask("admin", "GET", &path, &Value::Null).await.json();
            let count = page[of].as_array().unwrap().len();
            assert!(count <= 1, "{page}");
            seen += count;
            match page["next"].as_str() {
                Some(next) => after = format!("&after={next}"),
                None => break,
            }
        }
        assert_eq!(seen, expected, "{list}");
    }
}

#[tokio::test]
async fn the_gateway_says_what_it_is_and_what_it_counts() {
    let running = start().await;
    running.api.ready(&[]);
    let info = running.get("/api/v1/server").await;
    assert_eq!((&info["is_ready"], &info["is_durable"]), (&json!(true), &json!(false)));
    assert_eq!(info["version"], env!("CARGO_PKG_VERSION"));
    let before = running.get("/api/v1/stats").await;
    running.change("POST", "/api/v1/publish", json!({ "topic": "r", "payload": "x", "retain": true })).await;
    let after = running.get("/api/v1/stats").await;
    assert_eq!(
        (&before["stats"]["retained_messages"], &after["stats"]["retained_messages"]),
        (&json!(0), &json!(1))
    );
}

#[tokio::test]
async fn rules_are_found_by_parts_of_their_names_descriptions_and_tags() {
    let text = "[rules.plant-7]\ndescription = \"What the Ähre sends\"\ntags = [\"Heat\"]\nsql = \"SELECT * FROM 'a'\"\n\
        [[rules.plant-7.actions]]\nname = 'a'\ntype = 'log'\n\
        [rules.other]\nsql = \"SELECT 1 AS x FROM 'b'\"\n[[rules.other.actions]]\nname = 'a'\ntype = 'log'\n";
    let rules = RuleSet::from_texts([(Path::new("r.toml"), text)], &rules_sql::Limits::default()).unwrap();
    let running = Running::of(&rules, Storage::memory()).await;
    for (search, expected) in [
        ("", vec!["other", "plant-7"]),
        ("lant-", vec!["plant-7"]),
        ("PLANT", vec!["plant-7"]),
        ("%C3%A4hre", vec!["plant-7"]),
        ("heat", vec!["plant-7"]),
        ("select", vec![]),
    ] {
        let page = running.get(&format!("/api/v1/rules?search={search}")).await;
        let names: Vec<_> = page["rules"].as_array().unwrap().iter().map(|rule| &rule["name"]).collect();
        assert_eq!(names, expected, "{search}");
        assert_eq!(page["total"], 2, "the total is that of all rules");
    }
    let page = running.get("/api/v1/rules?details=true&limit=1").await;
    assert_eq!(page["rules"][0]["details"]["sql"], "SELECT 1 AS x FROM 'b'");
}

#[tokio::test]
async fn rules_are_listed_shown_checked_and_explained_and_nothing_is_sent() {
    let running = start().await;
    let listed = running.get("/api/v1/rules?runs=true&tag=heat").await;
    assert_eq!(listed["rules"][0]["name"], "hot");
    assert_eq!(listed["rules"].as_array().unwrap().len(), 1);
    let shown = running.get("/api/v1/rules/hot").await;
    assert_eq!(shown["summary"], listed["rules"][0]);
    assert_eq!(shown["counters"]["passed"], 0);
    assert_eq!(running.get("/api/v1/rules/off").await["counters"], Value::Null);
    let missing = running.ask("viewer", "GET", "/api/v1/rules/none", &Value::Null).await;
    assert_eq!(missing.problem(), (404, "missing".to_owned()));

    let good = running.change("POST", "/api/v1/rules/validate", json!({ "text": RULES })).await.json();
    assert_eq!((&good["is_valid"], &good["rules"]), (&json!(true), &json!(["hot", "off"])));
    let text = "[rules.bad]\nsql = \"SELECT nofunction(1) FROM 'a'\"\n";
    let bad = running.change("POST", "/api/v1/rules/validate", json!({ "text": text })).await.json();
    assert_eq!(bad["is_valid"], false);
    assert_eq!((&bad["faults"][0]["rule"], &bad["faults"][0]["line"]), (&json!("bad"), &json!(2)));
    let secret = "[rules.x]\nsql = \"SELECT * FROM 'a'\"\n[[rules.x.actions]]\nname = 'a'\ntype = 'republish'\ntopic = '${env:HOME}'\n";
    let bad = running.change("POST", "/api/v1/rules/validate", json!({ "text": secret })).await.json();
    assert_eq!(bad["is_valid"], false, "what comes through the interface reads no secrets");

    let explain = async |what: Value| running.change("POST", "/api/v1/rules/explain", what).await;
    let message = json!({ "topic": "s/7", "payload": "{\"t\":61}" });
    let explained = explain(json!({ "rule": "hot", "message": message })).await.json();
    assert_eq!(explained["explanations"][0]["outcome"], "output");
    assert_eq!(explained["explanations"][0]["actions"][0]["would_send"]["topic"]["text"], "alarm/7");
    let explained = explain(json!({ "text": RULES, "message": message })).await.json();
    assert_eq!(explained["explanations"].as_array().unwrap().len(), 2);
    let sql = json!({ "sql": "SELECT t + 1 AS u FROM 's/#'", "message": message });
    assert_eq!(explain(sql).await.json()["explanations"][0]["output"]["json"], json!({ "u": 62 }));
    for refused in [
        json!({ "message": message }),
        json!({ "rule": "hot", "sql": "SELECT 1", "message": message }),
        json!({ "sql": "SELEC", "message": message }),
        json!({ "text": "[rules", "message": message }),
        json!({ "rule": "hot", "message": { "topic": "a/#" } }),
        json!({ "rule": "hot", "message": ["a"] }),
    ] {
        assert_eq!(explain(refused.clone()).await.problem().0, 422, "{refused}");
    }
    assert_eq!(explain(json!({ "rule": "none", "message": message })).await.problem().0, 404);
    let stats = running.gateway.rules().stats_of("hot").unwrap();
    assert_eq!((stats.matched, stats.passed), (0, 0), "nothing was counted");
}

#[tokio::test]
async fn as_many_rules_are_explained_as_the_limit_says_and_no_more() {
    let running = start().await;
    let text = |count: usize| -> String {
        (0..count)
            .map(|number| format!("[rules.r{number}]\nsql = \"SELECT * FROM 'a'\"\n[[rules.r{number}.actions]]\nname = 'l'\ntype = 'log'\n"))
            .collect()
    };
    for (count, status) in [(EXPLAINED_MAX, 200), (EXPLAINED_MAX + 1, 422)] {
        let body = json!({ "text": text(count), "message": { "topic": "a" } });
        let answer = running.change("POST", "/api/v1/rules/explain", body).await;
        assert_eq!(answer.status, status, "{answer:?}");
    }
}

#[tokio::test]
async fn cases_are_run_against_rules_of_the_request_and_those_that_are_there() {
    let running = start().await;
    let test = async |what: Value| running.change("POST", "/api/v1/rules/test", what).await;
    let cases = r#"[
        {"id":"hot","rule":"hot","topic":"s/7","payload":{"t":61},"expect":{"t":61}},
        {"id":"cold","rule":"hot","topic":"s/7","payload":{"t":1},"expect":{"t":1}},
        {"id":"open","rule":"hot","topic":"s/7","payload":{"t":61}}
    ]"#;
    let tested = test(json!({ "cases": cases })).await.json();
    assert_eq!(
        (&tested["passed"], &tested["failed"], &tested["open"]),
        (&json!(1), &json!(1), &json!(1)),
        "{tested}"
    );
    assert_eq!(tested["verdicts"][0]["id"], "hot");
    // Lines do as well as an array, and a rule of the request comes before one that is there.
    let lines = r#"{"id":"own","rule":"hot","topic":"s/7","payload":{"t":1},"expect":{"u":2}}"#;
    let text = RULES.replace("SELECT t FROM 's/+' WHERE t > 60", "SELECT t + 1 AS u FROM 's/+'");
    let tested = test(json!({ "cases": lines, "text": text })).await.json();
    assert_eq!((&tested["passed"], &tested["failed"]), (&json!(1), &json!(0)), "{tested}");
    for refused in [
        json!({ "cases": "" }),
        json!({ "cases": "[]" }),
        json!({ "cases": "no case" }),
        json!({ "cases": lines, "text": "[rules" }),
        json!({ "text": RULES }),
    ] {
        assert_eq!(test(refused.clone()).await.problem().0, 422, "{refused}");
    }
    let many = |count: usize| {
        (0..count)
            .map(|n| format!("{{\"id\":\"{n}\",\"rule\":\"hot\",\"topic\":\"s/7\",\"payload\":1}}\n"))
            .collect::<String>()
    };
    for (count, status) in [(TESTED_MAX, 200), (TESTED_MAX + 1, 422)] {
        assert_eq!(test(json!({ "cases": many(count) })).await.status, status);
    }
    let stats = running.gateway.rules().stats_of("hot").unwrap();
    assert_eq!((stats.matched, stats.passed), (0, 0), "nothing was counted");
}

#[tokio::test]
async fn trying_rules_out_is_no_change() {
    let running = start_with(Admin { read_only: true, ..with_tokens() }, Storage::memory()).await;
    let checked = running.change("POST", "/api/v1/rules/validate", json!({ "text": RULES })).await;
    assert_eq!(checked.status, 200, "{checked:?}");
    let refused = running.change("POST", "/api/v1/publish", json!({ "topic": "a", "payload": "" })).await;
    assert_eq!(refused.problem(), (403, "read_only".to_owned()));
    let audit = running.ask("admin", "GET", "/api/v1/audit", &Value::Null).await.json();
    let operations: Vec<_> =
        audit["entries"].as_array().unwrap().iter().map(|entry| &entry["operation"]).collect();
    assert_eq!(operations, ["publish"], "an attempt of somebody known is on record");
    assert_eq!(audit["entries"][0]["status"], 403);
}

#[tokio::test]
async fn every_change_is_on_record_with_who_and_without_secrets() {
    let running = start().await;
    let admin = async |method: &str, path: &str, body: Value| running.ask("admin", method, path, &body).await;
    let password = "canary-password";
    let user = json!({ "name": "bob", "role": "viewer", "password": password });
    assert_eq!(admin("POST", "/api/v1/users", user).await.status, 204);
    let change = json!({ "role": "operator", "password": "canary-password-2" });
    assert_eq!(admin("PATCH", "/api/v1/users/bob", change).await.status, 204);
    let token = admin("POST", "/api/v1/tokens", json!({ "name": "t", "role": "viewer" })).await.json();
    let signed_in = ask(
        &running.api,
        "POST",
        "/api/v1/session",
        &[],
        &json!({ "name": "bob", "password": "canary-password-2" }).to_string(),
    )
    .await;
    assert_eq!(signed_in.status, 200);
    ask(&running.api, "POST", "/api/v1/session", &[], &json!({ "name": "eve", "password": "x" }).to_string())
        .await;
    assert_eq!(admin("DELETE", "/api/v1/tokens/t", Value::Null).await.status, 204);
    assert_eq!(admin("DELETE", "/api/v1/users/bob", Value::Null).await.status, 204);
    assert_eq!(admin("DELETE", "/api/v1/users/bob", Value::Null).await.status, 404);
    let audit = admin("GET", "/api/v1/audit", Value::Null).await;
    let page = audit.json();
    let entries: Vec<String> = page["entries"]
        .as_array()
        .unwrap()
        .iter()
        .rev()
        .map(|entry| {
            let text = |name: &str| entry[name].as_str().unwrap().to_owned();
            assert_eq!(entry["from"], "127.0.0.1");
            format!("{} {} {} {}", text("who"), text("operation"), text("target"), entry["status"])
        })
        .collect();
    assert_eq!(
        entries,
        [
            "token admin createUser bob 204",
            "token admin changeUser bob 204",
            "token admin createToken t 201",
            "bob signIn bob 200",
            "token admin deleteToken t 204",
            "token admin deleteUser bob 204",
            "token admin deleteUser /api/v1/users/bob 404",
        ]
    );
    let changed = &page["entries"][5];
    assert_eq!(changed["before"], json!({ "role": "viewer" }));
    assert_eq!(changed["after"], json!({ "role": "operator", "is_password_new": true }));
    let file = std::fs::read_to_string(running.folder.path().join("admin-audit.jsonl")).unwrap();
    for text in [&audit.body, &file] {
        for secret in ["canary", token["token"].as_str().unwrap(), "argon2"] {
            assert!(!text.contains(secret), "{secret} is on record: {text}");
        }
    }
    let viewer = running.ask("viewer", "GET", "/api/v1/audit", &Value::Null).await;
    assert_eq!(viewer.problem().0, 403);
}

#[tokio::test]
async fn dead_letters_are_listed_shown_sent_again_and_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let config = crate::config::Config { data_dir: Some(folder.path().to_owned()), ..Default::default() };
    let storage = Storage::open(&config, &crate::config::Environment::default()).unwrap();
    let running = start_with(with_tokens(), storage.clone()).await;
    let store = storage.durable().unwrap();
    for number in 1..=3 {
        keep_letter(store, "s/1", "hot/ops", number, &plain_request());
    }
    keep_letter(store, "s/1", "cold/log", 4, &plain_request());
    assert!(store.wait_for_all());
    let page = running.get("/api/v1/dead-letters?rule=hot&limit=2").await;
    let names: Vec<_> = page["letters"].as_array().unwrap().iter().map(|letter| &letter["name"]).collect();
    assert_eq!(names, ["hot/ops:1", "hot/ops:2"]);
    let path = format!("/api/v1/dead-letters?rule=hot&limit=2&after={}", page["next"].as_str().unwrap());
    let rest = running.get(&path).await;
    assert_eq!((&rest["letters"][0]["name"], &rest["next"]), (&json!("hot/ops:3"), &Value::Null));
    for (query, total) in [
        ("", json!(4)),
        ("rule=hot", json!(3)),
        ("rule=hot&action=ops&limit=1", json!(3)),
        ("action=log", json!(1)),
        ("rule=none", json!(0)),
        ("cause=refused", Value::Null),
        ("since_ms=1", Value::Null),
        ("until_ms=1", Value::Null),
    ] {
        assert_eq!(running.get(&format!("/api/v1/dead-letters?{query}")).await["total"], total, "{query}");
    }
    assert!(!page.to_string().contains("99"), "a list shows no payloads: {page}");

    let none = Value::Null;
    let one = "/api/v1/dead-letters/hot/ops/1";
    assert_eq!(running.ask("viewer", "GET", one, &none).await.problem().0, 403);
    let shown = running.ask("operator", "GET", one, &none).await;
    assert!(!shown.body.contains("hush"), "secrets aren't shown: {shown:?}");
    assert_eq!(shown.json()["letter"], page["letters"][0]);
    assert_eq!(shown.json()["message"]["payload"]["text"], "{\"t\":99}");
    for wrong in ["hot/ops/0", "hot/ops/x", "hot/op s/1"] {
        let path = format!("/api/v1/dead-letters/{}", wrong.replace(' ', "%20"));
        assert_eq!(running.ask("operator", "GET", &path, &none).await.problem().0, 422, "{wrong}");
    }
    let again = running.change("POST", &format!("{one}/redrive"), none.clone()).await;
    assert_eq!(again.problem(), (409, "conflict".to_owned()), "the rule has no such action now");

    let dropped = running.change("DELETE", one, none.clone()).await.json();
    assert_eq!(dropped, json!({ "done": 1, "refused": [], "next": null }));
    assert_eq!(running.change("DELETE", one, none.clone()).await.problem().0, 404);
    let nothing = running.change("POST", "/api/v1/dead-letters/drop", json!({})).await;
    assert_eq!(nothing.problem().0, 422, "what isn't said doesn't mean everything");
    for wrong in [
        json!({ "filter": { "rules": "hot" } }),
        json!({ "filter": [] }),
        json!({ "filter": [null, null] }),
        json!({ "filter": null }),
    ] {
        let answer = running.change("POST", "/api/v1/dead-letters/drop", wrong.clone()).await;
        assert_eq!(answer.problem().0, 422, "{wrong}");
    }
    let many = json!({ "filter": { "rule": "hot" } });
    let dropped = running.change("POST", "/api/v1/dead-letters/drop", many).await.json();
    assert_eq!((&dropped["done"], &dropped["next"]), (&json!(2), &none));
    let left = running.get("/api/v1/dead-letters").await;
    assert_eq!(left["letters"].as_array().unwrap().len(), 1);
    let redriven =
        running.change("POST", "/api/v1/dead-letters/redrive", json!({ "filter": {} })).await.json();
    assert_eq!((&redriven["done"], redriven["refused"].as_array().unwrap().len()), (&json!(0), 1));
}

#[tokio::test]
async fn without_a_store_on_disk_there_are_no_dead_letters() {
    let running = start().await;
    let answer = running.ask("viewer", "GET", "/api/v1/dead-letters", &Value::Null).await;
    assert_eq!(answer.problem(), (409, "conflict".to_owned()));
}
