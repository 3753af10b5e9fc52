//! How the gateway is: the same figures as elsewhere, for those who look.

use serde_json::{Value, json};

use super::live::Stream;
use super::running::{Running, start};
use super::*;

/// The sum of a family's values at `/metrics`, of those whose labels have all of this in them.
fn metric(page: &str, name: &str, labels: &[&str]) -> f64 {
    let lines = page.lines().filter(|line| line.split(['{', ' ']).next() == Some(name));
    let lines = lines.filter(|line| labels.iter().all(|label| line.contains(label)));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}

const RULES: &str = "[rules.hot]\nsql = \"SELECT * FROM 'in' WHERE t > 60\"\n\
    [[rules.hot.actions]]\nname = 'log'\ntype = 'log'\n\
    [[rules.hot.actions]]\nname = 'away'\ntype = 'http'\nurl = 'http://closed.invalid/'\nqueue = { max_items = 2, overflow = 'drop_newest' }\n";

#[tokio::test]
async fn its_figures_are_those_of_the_metrics() {
    let folder = tempfile::tempdir().unwrap();
    let config = crate::config::Config { data_dir: Some(folder.path().to_owned()), ..Default::default() };
    let storage = Storage::open(&config, &crate::config::Environment::default()).unwrap();
    let rules = RuleSet::from_texts([(Path::new("r.toml"), RULES)], &rules_sql::Limits::default()).unwrap();
    let running = Running::of(&rules, storage).await;
    // Its queue stands still, and is full after two.
    let paused = running.change("POST", "/api/v1/actions/hot/away/pause", Value::Null).await;
    assert_eq!(paused.status, 200, "{paused:?}");
    let mut client = running.client("c").await;
    for payload in ["{\"t\":61}", "{\"t\":1}", "{\"t\":62}", "{\"t\":63}", "not json"] {
        running.change("POST", "/api/v1/publish", json!({ "topic": "in", "payload": payload })).await;
        running.change("POST", "/api/v1/publish", json!({ "topic": "a/b", "payload": payload })).await;
    }
    // What goes on behind the answers is done when the figures stand still.
    let (page, shown) = loop {
        let before = running.get("/api/v1/overview").await;
        let page = running.ask("viewer", "GET", "/metrics", &Value::Null).await.body;
        let after = running.get("/api/v1/overview").await;
        let log = after["counters"]["actions_delivered"] == json!(3);
        if log && ["clients", "counters", "dropped"].iter().all(|part| before[part] == after[part]) {
            break (page, after);
        }
        tokio::task::yield_now().await;
    };
    let sum = |name: &str, labels: &[&str]| metric(&page, name, labels);
    let whole = |value: &Value| value.as_u64().unwrap_or_else(|| panic!("{shown}"));
    #[expect(clippy::cast_precision_loss, reason = "small figures")]
    let same = |value: &Value, expected: f64| {
        assert!((whole(value) as f64 - expected).abs() < 0.5, "{value} and {expected}: {shown}");
    };
    let counters = &shown["counters"];
    for (name, family, labels) in [
        ("messages_received", "tidegate_messages_received_total", &[][..]),
        ("messages_sent", "tidegate_messages_delivered_total", &[]),
        ("bytes_received", "tidegate_mqtt_socket_bytes_total", &["\"in\""]),
        ("bytes_sent", "tidegate_mqtt_socket_bytes_total", &["\"out\""]),
        ("rules_matched", "tidegate_rule_matched_total", &[]),
        ("rules_passed", "tidegate_rule_passed_total", &[]),
        ("actions_delivered", "tidegate_action_delivered_total", &[]),
        ("actions_retried", "tidegate_action_retries_total", &[]),
    ] {
        same(&counters[name], sum(family, labels));
    }
    let failed = sum("tidegate_rule_failed_total", &[]);
    same(&counters["rules_failed"], failed - sum("tidegate_rule_failed_total", &["\"error_action\""]));
    let lost = sum("tidegate_action_dead_lettered_total", &[]) + sum("tidegate_action_dropped_total", &[]);
    same(&counters["actions_failed"], lost);
    assert!(lost > 0.0 && whole(&counters["rules_passed"]) == 3, "{shown}");
    let dropped = shown["dropped"].as_object().unwrap();
    for (reason, count) in dropped {
        let label = format!("reason=\"{reason}\"");
        let families = ["tidegate_messages_dropped_total", "tidegate_action_dropped_total"];
        same(count, families.iter().map(|family| sum(family, &[&label])).sum());
    }
    let all = sum("tidegate_messages_dropped_total", &[]) + sum("tidegate_action_dropped_total", &[]);
    same(&json!(dropped.values().map(whole).sum::<u64>()), all);
    same(&shown["clients"]["connected"], sum("tidegate_sessions", &["\"connected\""]));
    same(&shown["clients"]["sessions"], sum("tidegate_sessions", &[]));
    assert_eq!(shown["clients"]["connected"], 1);
    let queue = &shown["queue"];
    same(&queue["items"], sum("tidegate_queue_messages", &[]));
    assert_eq!(queue["items"], 2);
    same(
        &json!(whole(&queue["memory_bytes"]) + whole(&queue["disk_bytes"])),
        sum("tidegate_queue_bytes", &[]),
    );
    assert!(whole(&queue["disk_bytes"]) > 0 && queue["oldest_age_ms"].is_u64(), "{shown}");
    same(&shown["disk"]["store_bytes"], sum("tidegate_store_bytes", &[]));
    assert!(whole(&shown["disk"]["free_bytes"]) > 0 && whole(&shown["memory_bytes"]) > 0, "{shown}");
    client.write_all(&[0xE0, 0]).await.unwrap();
    running.stop().await;
}

#[tokio::test]
async fn without_a_store_there_is_no_disk_and_without_clients_the_gateway_is_not_well() {
    let running = start().await;
    let shown = running.get("/api/v1/overview").await;
    assert_eq!(
        (&shown["disk"], &shown["queue"]["oldest_age_ms"], &shown["dropped"]),
        (&Value::Null, &Value::Null, &json!({}))
    );
    assert_eq!((&shown["health"]["status"], &shown["alarms"]), (&json!("degraded"), &json!([])));
    assert_eq!(shown["health"]["reasons"][0]["kind"], "not_ready");
    running.api.ready(&[]);
    let shown = running.get("/api/v1/overview").await;
    assert_eq!(shown["health"], json!({ "status": "ok", "reasons": [], "left_out": 0 }));
    running.stop().await;
}

#[tokio::test]
async fn a_stream_shows_it_at_once_and_again_and_two_see_the_same() {
    let running = start().await;
    let mut first = Stream::open(&running, "viewer", "/api/v1/live/overview").await;
    let mut second = Stream::open(&running, "viewer", "/api/v1/live/overview").await;
    let begun = first.event("overview").await.unwrap();
    assert_eq!(begun["counters"]["rules_matched"], 0);
    // It is put together once for both; what one begins with may be what the other sees next.
    let (mut of_first, mut of_second) = (vec![begun["at_ms"].clone()], Vec::new());
    loop {
        of_second.push(second.event("overview").await.unwrap()["at_ms"].clone());
        if of_first.iter().any(|at| of_second.contains(at)) {
            break;
        }
        of_first.push(first.event("overview").await.unwrap()["at_ms"].clone());
    }
    let before = of_first.last().unwrap().as_i64();
    running.change("POST", "/api/v1/publish", json!({ "topic": "s/7", "payload": "{\"t\":61}" })).await;
    // One that was put together before the message may still be on its way.
    let later = loop {
        let next = first.event("overview").await.unwrap();
        if next["counters"]["rules_matched"] != 0 {
            break next;
        }
    };
    assert_eq!(later["counters"]["rules_matched"], 1);
    assert!(later["at_ms"].as_i64() > before, "{later}");
    let refused = running.ask("viewer", "GET", "/api/v1/live/overview?rate=1", &Value::Null).await;
    assert_eq!(refused.problem(), (422, "invalid".to_owned()));
    running.stop().await;
}
