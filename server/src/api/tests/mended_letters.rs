//! Dead letters whose message somebody mends before it is sent again.

use actions::delivery::outbox::Body;
use serde_json::{Value, json};
use store::{Position, QueueKey, StoredDebt};

use super::running::Running;
use super::*;
use crate::api::dead_letters::tests::{keep_letter, plain_request};

const RULES: &str = "[rules.hot]\nsql = \"SELECT t FROM 's/+' WHERE t > 60\"\n\
    [[rules.hot.actions]]\nname = 'ops'\ntype = 'http'\nurl = 'http://closed.invalid/${t}'\nbody = 'seen ${t} at ${topic()}'\n\
    queue = { max_items = 2, overflow = 'drop_newest' }\n\
    [[rules.hot.actions]]\nname = 'pub'\ntype = 'republish'\ntopic = 'out'\n";

/// A gateway on a store, whose action stands still.
async fn start() -> (tempfile::TempDir, Storage, Running) {
    let folder = tempfile::tempdir().unwrap();
    let config = crate::config::Config { data_dir: Some(folder.path().to_owned()), ..Default::default() };
    let storage = Storage::open(&config, &crate::config::Environment::default()).unwrap();
    let rules = RuleSet::from_texts([(Path::new("r.toml"), RULES)], &rules_sql::Limits::default()).unwrap();
    let running = Running::of(&rules, storage.clone()).await;
    let paused = running.change("POST", "/api/v1/actions/hot/ops/pause", Value::Null).await;
    assert_eq!(paused.status, 200, "{paused:?}");
    (folder, storage, running)
}

fn keep(storage: &Storage, outbox: &str) {
    let store = storage.durable().unwrap();
    keep_letter(store, "s/1", outbox, 1, &plain_request());
    assert!(store.wait_for_all());
}

fn owed(storage: &Storage) -> Vec<StoredDebt> {
    let queue = QueueKey::Outbox { namespace: 0, name: "hot/ops" };
    storage.durable().unwrap().reader(queue).read(Position::NOWHERE, 100, usize::MAX).unwrap()
}

async fn redrive(running: &Running, letter: &str, body: Value) -> Answer {
    running.change("POST", &format!("/api/v1/dead-letters/{letter}/redrive"), body).await
}

#[tokio::test]
async fn what_its_rule_makes_of_the_mended_message_is_owed_and_the_letter_is_gone() {
    let (_folder, storage, running) = start().await;
    keep(&storage, "hot/ops");
    let mended = json!({ "message": { "payload": "{\"t\":77,\"by\":\"hand\"}", "topic": "s/9" } });
    let done = redrive(&running, "hot/ops/1", mended.clone()).await;
    assert_eq!(done.json(), json!({ "done": 1, "refused": [], "next": null }));
    let debts = owed(&storage);
    let [debt] = debts.as_slice() else { panic!("{debts:?}") };
    let message = debt.message.as_ref().unwrap();
    assert_eq!((&*message.topic, &*message.payload), ("s/9", &b"{\"t\":77,\"by\":\"hand\"}"[..]));
    assert_eq!(message.publisher.as_deref(), Some("sensor-1"), "whose it was stays");
    assert_ne!((message.id.epoch, message.id.sequence), (6, 1), "it is another message");
    let body = Body::decode(&debt.body).unwrap();
    assert!(body.redriven_at_ms.is_some() && body.identity.is_none(), "{body:?}");
    let request = String::from_utf8_lossy(body.request);
    assert!(request.contains("seen 77 at s/9") && request.contains("closed.invalid/77"), "{request}");
    // Never twice.
    assert_eq!(redrive(&running, "hot/ops/1", mended).await.problem(), (404, "missing".to_owned()));
    let action = running.gateway.book.action("hot", "ops").unwrap();
    let delivery = action.delivery.unwrap();
    assert!(delivery.is_conserved(), "{delivery:?}");
    assert_eq!((delivery.received, delivery.queued), (1, 1));
    let record = running.ask("admin", "GET", "/api/v1/audit", &Value::Null).await.body;
    assert!(
        record.contains("redriveDeadLetter") && !record.contains("hand"),
        "no payload is noted: {record}"
    );
    running.stop().await;
}

#[tokio::test]
async fn a_payload_may_be_bytes_and_what_is_not_given_stays() {
    let (_folder, storage, running) = start().await;
    keep(&storage, "hot/ops");
    // {"t":61}
    let bytes = json!({ "message": { "payload_base64": "eyJ0Ijo2MX0=" } });
    assert_eq!(redrive(&running, "hot/ops/1", bytes).await.status, 200);
    keep(&storage, "hot/ops");
    let topic = json!({ "message": { "topic": "s/8" } });
    assert_eq!(redrive(&running, "hot/ops/2", topic).await.status, 200);
    let debts = owed(&storage);
    let said: Vec<_> = debts.iter().map(|debt| String::from_utf8_lossy(&debt.body).into_owned()).collect();
    assert!(said[0].contains("seen 61 at s/1") && said[1].contains("seen 99 at s/8"), "{said:?}");
    // The queue takes two, and one more is told so.
    keep(&storage, "hot/ops");
    let full = redrive(&running, "hot/ops/3", json!({ "message": {} })).await;
    assert_eq!(full.problem(), (409, "conflict".to_owned()), "{full:?}");
    // As it was: no body, an empty one.
    for body in [Value::Null, json!({})] {
        keep(&storage, "hot/ops");
        let letters = running.get("/api/v1/dead-letters").await;
        let name = letters["letters"][0]["name"].as_str().unwrap().replace(':', "/");
        assert_eq!(redrive(&running, &name, body).await.status, 200);
    }
    assert_eq!(owed(&storage).len(), 4);
    running.stop().await;
}

#[tokio::test]
async fn what_cannot_be_sent_so_stays_a_letter() {
    let (_folder, storage, running) = start().await;
    for outbox in ["hot/ops", "hot/pub", "gone/ops"] {
        keep(&storage, outbox);
    }
    for (letter, message, status) in [
        ("hot/ops/1", json!({ "payload": "{\"t\":1}" }), 409),
        ("hot/ops/1", json!({ "payload": "no json" }), 409),
        ("hot/ops/1", json!({ "payload": "{\"t\":77}", "topic": "elsewhere" }), 409),
        ("hot/pub/1", json!({ "payload": "{\"t\":77}" }), 409),
        ("gone/ops/1", json!({ "payload": "{\"t\":77}" }), 409),
        ("hot/ops/9", json!({ "payload": "{\"t\":77}" }), 404),
        ("hot/ops/1", json!({ "payload": "x", "payload_base64": "eA==" }), 422),
        ("hot/ops/1", json!({ "payload_base64": "?" }), 422),
        ("hot/ops/1", json!({ "topic": "s/#" }), 422),
        ("hot/ops/1", json!({ "topic": "" }), 422),
        ("hot/ops/1", json!({ "payload": 1 }), 422),
        ("hot/ops/1", json!({ "qos": 1 }), 422),
        ("hot/ops/1", json!([]), 422),
    ] {
        let refused = redrive(&running, letter, json!({ "message": message.clone() })).await;
        assert_eq!(refused.problem().0, status, "{letter} {message}: {refused:?}");
    }
    let told = redrive(&running, "hot/ops/1", json!({ "message": { "payload": "{\"t\":1}" } })).await;
    assert!(told.body.contains("the rule \\\"hot\\\" doesn't match the message"), "{told:?}");
    let viewer = running.ask("viewer", "POST", "/api/v1/dead-letters/hot/ops/1/redrive", &Value::Null).await;
    assert_eq!(viewer.problem().0, 403);
    assert_eq!(running.get("/api/v1/dead-letters").await["letters"].as_array().unwrap().len(), 3);
    assert!(owed(&storage).is_empty());
    running.stop().await;
}
