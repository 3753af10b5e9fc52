//! `/metrics`: who may ask, in which format, and that every family comes.

use serde_json::json;

use super::running::Running;
use super::security::{ask, bearer, with_tokens};
use super::*;
use crate::metrics::families::ALL;

async fn scrape(api: &ApiServer, token: &str, accept: &str) -> Answer {
    let headers = [("Authorization", &*bearer(token)), ("Accept", accept)];
    ask(api, "GET", "/metrics", &headers, "").await
}

#[tokio::test]
async fn prometheus_gets_its_text_and_openmetrics_what_it_asks_for() {
    let api = listening(&with_tokens(), None).await;
    let plain = scrape(&api, "viewer", "*/*").await;
    assert_eq!(plain.status, 200, "{plain:?}");
    assert!(plain.head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{plain:?}");
    assert!(plain.body.contains("# TYPE tidegate_messages_received_total counter\n"), "{plain:?}");
    let open = scrape(&api, "viewer", "application/openmetrics-text; version=1.0.0").await;
    assert!(open.head.contains("application/openmetrics-text; version=1.0.0"), "{open:?}");
    assert!(open.body.ends_with("# EOF\n"), "{open:?}");
    api.close().await;
}

#[tokio::test]
async fn a_token_for_metrics_is_good_for_nothing_else() {
    let api = listening(&with_tokens(), None).await;
    assert_eq!(get(api.address().unwrap(), "/metrics").await.problem().0, 401);
    assert_eq!(scrape(&api, "nobody", "").await.problem().0, 401);
    assert_eq!(scrape(&api, "narrow", "").await.problem(), (403, "forbidden".to_owned()));
    assert_eq!(scrape(&api, "scraper", "").await.status, 200);
    let headers = [("Authorization", &*bearer("scraper"))];
    for path in
        ["/api/v1/stats", "/api/v1/rules", "/api/v1/clients", "/api/v1/config", "/api/v1/metrics/topics"]
    {
        assert_eq!(ask(&api, "GET", path, &headers, "").await.problem().0, 403, "{path}");
    }
    api.close().await;
}

#[tokio::test]
async fn every_family_comes_when_there_is_something_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let config = crate::config::Config { data_dir: Some(folder.path().to_owned()), ..Default::default() };
    let storage = Storage::open(&config, &crate::config::Environment::default()).unwrap();
    let text =
        "[rules.all]\nsql = \"SELECT * FROM 'in'\"\n[[rules.all.actions]]\nname = 'log'\ntype = 'log'\n";
    let rules = RuleSet::from_texts([(Path::new("r.toml"), text)], &rules_sql::Limits::default()).unwrap();
    let running = Running::of(&rules, storage).await;
    let publish = json!({ "topic": "in", "payload": "{}" });
    assert_eq!(running.ask("operator", "POST", "/api/v1/publish", &publish).await.status, 204);
    let text = running.ask("viewer", "GET", "/metrics", &json!({})).await.body;
    // Those whose parts this gateway hasn't got, or that nothing happened to.
    let absent = [
        "tidegate_auth_accepted",
        "tidegate_tls_certificate_expiry_timestamp_seconds",
        "tidegate_deadletter_messages",
    ];
    for family in ALL {
        let is_there = text.contains(&format!("# TYPE {} ", family.shown()));
        assert_eq!(is_there, !absent.contains(&family.name), "{}", family.name);
    }
    running.stop().await;
}

#[tokio::test]
async fn rules_have_labels_of_their_own_up_to_a_limit_and_share_one_past_it() {
    let rule = |name: &str| {
        format!(
            "[rules.{name}]\nsql = \"SELECT * FROM 'in'\"\n[[rules.{name}.actions]]\nname = 'log'\ntype = 'log'\n"
        )
    };
    let text = ["first", "second", "third"].map(rule).concat();
    let rules = RuleSet::from_texts([(Path::new("r.toml"), &*text)], &rules_sql::Limits::default()).unwrap();
    let shown = |rules_max: u32| {
        let gateway = gateway_of(&rules, &Storage::memory());
        let metrics = crate::config::Metrics { max_rules: rules_max, ..Default::default() };
        gateway.with_metrics(metrics).sources().collect().text(crate::metrics::Format::Prometheus)
    };
    let (all, capped) = (shown(3), shown(2));
    assert!(
        all.contains("tidegate_rule_matched_total{rule=\"third\"} 0\n") && !all.contains("_other"),
        "{all}"
    );
    for line in [
        "tidegate_rule_matched_total{rule=\"first\"} 0",
        "tidegate_rule_matched_total{rule=\"second\"} 0",
        "tidegate_rule_matched_total{rule=\"_other\"} 0",
        "tidegate_action_requests_total{rule=\"_other\",action=\"_other\"} 0",
        "tidegate_queue_messages{owner=\"_other\"} 0",
    ] {
        assert!(capped.contains(&format!("{line}\n")), "{line} is missing in {capped}");
    }
    assert!(!capped.contains("third"), "{capped}");
}

#[tokio::test]
async fn topics_are_counted_from_the_moment_that_they_are_asked_for() {
    let running = super::running::start().await;
    let publish = |topic: &str| json!({ "topic": topic, "payload": "abc" });
    running.change("POST", "/api/v1/publish", publish("hall/1")).await;
    let added = running.change("POST", "/api/v1/metrics/topics", json!({ "filter": "hall/+" })).await.json();
    assert_eq!(added["topics"][0]["filter"], "hall/+");
    for topic in ["hall/1", "hall/2", "yard/1"] {
        running.change("POST", "/api/v1/publish", publish(topic)).await;
    }
    let counted = running.get("/api/v1/metrics/topics").await;
    let [topic] = counted["topics"].as_array().unwrap().as_slice() else { panic!("{counted}") };
    let figures =
        ["received", "received_bytes", "delivered", "dropped"].map(|name| topic[name].as_u64().unwrap());
    assert_eq!(figures, [2, 6, 0, 0]);
    // Once more it is the same one.
    let again = running.change("POST", "/api/v1/metrics/topics", json!({ "filter": "hall/+" })).await.json();
    assert_eq!(again["topics"][0]["received"], 2);
    let removed = running.change("DELETE", "/api/v1/metrics/topics/hall%2F%2B", json!(null)).await;
    assert_eq!(removed.status, 204);
    let missing = running.change("DELETE", "/api/v1/metrics/topics/hall%2F%2B", json!(null)).await;
    assert_eq!(missing.problem(), (404, "missing".to_owned()));
    running.stop().await;
}

#[tokio::test]
async fn filters_that_are_counted_have_a_number_and_a_form() {
    let running = super::running::start().await;
    for number in 0..broker::METERS_MAX {
        let added = running
            .change("POST", "/api/v1/metrics/topics", json!({ "filter": format!("f/{number}") }))
            .await;
        assert_eq!(added.status, 200, "{added:?}");
    }
    let past = running.change("POST", "/api/v1/metrics/topics", json!({ "filter": "one/more" })).await;
    assert_eq!(past.problem(), (409, "conflict".to_owned()));
    for body in
        [json!({ "filter": "a/#/b" }), json!({ "filter": "" }), json!({}), json!({ "filter": "a", "x": 1 })]
    {
        let refused = running.change("POST", "/api/v1/metrics/topics", body.clone()).await;
        assert_eq!(refused.problem(), (422, "invalid".to_owned()), "{body}");
    }
    let by_viewer = running.ask("viewer", "POST", "/api/v1/metrics/topics", &json!({ "filter": "x" })).await;
    assert_eq!(by_viewer.problem().0, 403);
    running.stop().await;
}

#[tokio::test]
async fn what_nobody_looks_for_is_told_as_such() {
    let running = super::running::start().await;
    let heavy = running.get("/api/v1/metrics/heavy-hitters").await;
    assert_eq!(heavy, json!({ "is_on": false, "window_ms": 0, "topics": [], "clients": [] }));
    assert_eq!(running.get("/api/v1/metrics/slow-subscribers").await, json!({ "subscribers": [] }));
    let history = running.get("/api/v1/metrics/history").await;
    assert_eq!(history["at_ms"], json!([]));
    assert_eq!(history["series"].as_array().unwrap().len(), crate::metrics::SERIES.len());
    running.stop().await;
}

#[tokio::test]
async fn the_history_is_filled_by_itself_and_shows_what_is_asked_for() {
    let gateway = gateway();
    let mut api = ApiServer::open(&with_tokens(), None, gateway.clone()).unwrap();
    api.listen(anywhere().address, None).await.unwrap();
    let observer = gateway.observe(None).unwrap();
    let headers = [("Authorization", &*bearer("scraper"))];
    let history = loop {
        let path = "/api/v1/metrics/history?series=sessions,messages_received&resolution=fine&from=1";
        let history = ask(&api, "GET", path, &headers, "").await.json();
        if history["at_ms"] != json!([]) {
            break history;
        }
        tokio::task::yield_now().await;
    };
    let [received, sessions] = history["series"].as_array().unwrap().as_slice() else { panic!("{history}") };
    assert_eq!((&received["name"], &received["is_counter"]), (&json!("messages_received"), &json!(true)));
    assert_eq!((&sessions["name"], &sessions["values"]), (&json!("sessions"), &json!([0])));
    for (query, status) in
        [("series=nonsense", 422), ("series=", 422), ("resolution=week", 422), ("x=1", 422)]
    {
        let refused = ask(&api, "GET", &format!("/api/v1/metrics/history?{query}"), &headers, "").await;
        assert_eq!(refused.problem().0, status, "{query}");
    }
    drop(observer);
    api.close().await;
}

#[tokio::test]
async fn the_history_goes_on_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let mut before = Vec::new();
    for minutes in 1..=2 {
        let gateway = gateway();
        let observer = gateway.observe(Some(folder.path())).unwrap();
        let times = loop {
            let samples = gateway.seen().history.lock().since(i64::MIN, crate::metrics::Resolution::Minute);
            let times: Vec<i64> = samples.iter().map(|sample| sample.at_ms).collect();
            let file =
                std::fs::read_to_string(folder.path().join("metrics-history.jsonl")).unwrap_or_default();
            if times.len() == minutes && file.lines().count() == minutes && file.ends_with('\n') {
                break times;
            }
            tokio::task::yield_now().await;
        };
        assert!(times.starts_with(&before), "{before:?}, then {times:?}");
        before = times;
        drop(observer);
    }
}

#[test]
fn nothing_is_looked_at_when_nothing_is_wanted() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let metrics = crate::config::Metrics { history: false, slow_subscribers: 0, ..Default::default() };
        assert!(gateway().with_metrics(metrics).observe(None).is_none());
    });
}
