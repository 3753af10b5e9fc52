//! Alarms, and what else helps whoever looks for a fault.

use std::time::Instant;

use integration_tests::{Broker, Client, ClosedPort, PATIENCE, Version};
use serde_json::Value;

fn rule(port: u16) -> String {
    format!(
        r#"
[rules.hot]
sql = "SELECT * FROM 'plant/#' WHERE t > 50"

[[rules.hot.actions]]
name = "ops"
type = "http"
url = "http://127.0.0.1:{port}/alarms"
retry = {{ initial_backoff = "10ms", max_backoff = "100ms" }}

[rules.told]
sql = "SELECT alarm, state FROM '$SYS/broker/alarms/#'"

[[rules.told.actions]]
name = "on"
type = "republish"
topic = "told/${{topic(4)}}"
"#
    )
}

#[test]
fn a_far_side_that_is_down_is_told_of_and_so_is_its_return() {
    let closed = ClosedPort::new();
    let port = closed.address().port();
    let broker = Broker::builder()
        .section("[store]\ndurability = \"commit\"\n\n[alarms]\ninterval = \"1s\"\nsink_down = \"1s\"\n")
        .rule_file("rules", &rule(port))
        .start();
    let mut watcher = Client::connect(&broker, Version::V5, "watcher");
    watcher.subscribe("$SYS/broker/alarms/#", 0);
    watcher.subscribe("told/#", 0);
    assert_eq!(broker.command(&["alarms"]).0, Some(0));
    let mut press = Client::connect(&broker, Version::V5, "press");
    press.publish_acknowledged("plant/hall", r#"{"t":71}"#);
    let mut told = |state: &str| {
        let (mut alarm, mut by_rule) = (None, None);
        while alarm.is_none() || by_rule.is_none() {
            // An alarm is cleared once there was no reason for it for a quarter of a minute.
            let delivery = watcher.delivery_within(3 * PATIENCE);
            let payload: Value = serde_json::from_slice(&delivery.payload).unwrap();
            assert_eq!(payload["state"], state, "{payload}");
            match delivery.topic.as_str() {
                "$SYS/broker/alarms/sink_down/hot/ops" => alarm = Some(payload),
                "told/sink_down" => by_rule = Some(payload),
                other => panic!("{other}: {payload}"),
            }
        }
        alarm.unwrap()
    };
    let raised = told("raised");
    assert_eq!((&raised["subject"], &raised["severity"]), (&"hot/ops".into(), &"warning".into()));
    assert!(raised["detail"].as_str().unwrap().contains("1 items wait"), "{raised}");
    let (code, listed) = broker.command(&["alarms"]);
    assert_eq!(code, Some(1), "{listed}");
    assert!(listed.contains("sink_down") && listed.contains("hot/ops"), "{listed}");
    // It comes back on the same port.
    let receiver = closed.open();
    receiver.next_request().answer("200 OK", &[]);
    let cleared = told("cleared");
    assert_eq!(cleared["raised_at_ms"], raised["raised_at_ms"]);
    let (code, listed) = broker.command(&["alarms", "--all"]);
    assert_eq!(code, Some(0), "{listed}");
    assert!(listed.contains("sink_down"), "{listed}");
    broker.stop();
}

#[test]
fn messages_are_seen_as_they_go_by_without_a_subscription() {
    let broker = Broker::builder().section("[store]\ndurability = \"commit\"\n").start();
    let mut press = Client::connect(&broker, Version::V5, "press");
    let seen = std::thread::scope(|scope| {
        let broker = &broker;
        let tail = scope.spawn(move || broker.command(&["tail", "--topic", "plant/#", "--count", "2"]));
        let deadline = Instant::now() + PATIENCE;
        while !tail.is_finished() {
            press.publish_acknowledged("plant/hall", "{\"t\":71}");
            press.publish_acknowledged("other", "not this");
            assert!(Instant::now() < deadline, "nothing was seen");
        }
        tail.join().unwrap()
    });
    assert_eq!(seen.0, Some(0), "{}", seen.1);
    assert_eq!(
        seen.1.lines().filter(|line| line.ends_with(" plant/hall q1 from press: {\"t\":71}")).count(),
        2
    );
    assert!(!seen.1.contains("not this"), "{}", seen.1);
    broker.stop();
}

#[test]
fn what_finds_a_fault_is_one_file_without_secrets_and_payloads() {
    let broker = Broker::builder()
        .section(
            "[store]\ndurability = \"commit\"\n\n[connectors.far]\ntype = \"http\"\nurl = \"https://far.example\"\n\
             auth = { type = \"bearer\", token = \"canary-token\" }\n",
        )
        .rule_file("rules", &rule(9))
        .start();
    let mut press = Client::connect(&broker, Version::V5, "press");
    press.publish_acknowledged("plant/hall", r#"{"t":71,"x":"canary-payload"}"#);
    press.publish_acknowledged("$SYS/canary", "x");
    let (code, text) = broker.command(&["diag", "-"]);
    assert_eq!(code, Some(0), "{text}");
    let whole: Value = serde_json::from_str(&text).unwrap();
    for part in ["server", "alarms", "config", "actions", "connectors", "rules", "clients", "failed_traces"] {
        assert!(whole[part].is_object() && whole[part].get("refused").is_none(), "{part}: {}", whole[part]);
    }
    assert!(whole["metrics"].as_str().unwrap().contains("tidegate_mqtt_connections 1"));
    for secret in ["canary-token", "canary-payload"] {
        assert!(!text.contains(secret), "{secret}");
    }
    // Whoever asks for what came out of messages gets it, and no secret with it.
    let (code, text) = broker.command(&["diag", "-", "--with-payloads"]);
    assert_eq!(code, Some(0), "{text}");
    let with: Value = serde_json::from_str(&text).unwrap();
    let errors = |whole: &Value| whole["failed_traces"].to_string();
    assert!(errors(&with).contains("Not authorized"), "{}", errors(&with));
    assert!(!errors(&whole).contains("Not authorized"), "{}", errors(&whole));
    assert!(!text.contains("canary-token"));
    let file = broker.folder().join("diag.json");
    let name = file.to_str().unwrap();
    assert_eq!(broker.command(&["diag", name]).0, Some(0));
    let (code, refused) = broker.command(&["diag", name]);
    assert_eq!(code, Some(1), "{refused}");
    assert_eq!(broker.command(&["diag", name, "--force"]).0, Some(0));
    broker.stop();
}
