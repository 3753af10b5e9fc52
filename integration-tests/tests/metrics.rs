//! What is told in numbers, read by a Prometheus that somebody else wrote.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "helpers of tests panic where they can't go on"
)]

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use integration_tests::servers::{Process, Prometheus};
use integration_tests::tools::{mosquitto_pub, mosquitto_sub};
use integration_tests::{Authority, Broker, HttpReceiver};
use serde_json::Value;

/// A token that is good for nothing but `/metrics`.
const TOKEN: &str = "scraper-token";
/// What `sha256sum` prints of it.
const TOKEN_SHA256: &str = "3723f39b17c164cc37f6e4f653c6893d6581f44b23f70687ed3afae7f5267152";

fn config(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../config").join(name)
}

/// Runs promtool; returns what it printed.
#[track_caller]
fn promtool(arguments: &[&str], input: &str) -> String {
    let mut child = Command::new("promtool")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("promtool can't be started ({error}): run `cargo xtask test`"));
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {text}");
    text
}

/// A gateway with something of everything: rules, an action with a queue, a listener with a certificate.
fn gateway() -> Broker {
    let folder = Process::new_folder();
    let receiver = HttpReceiver::start();
    let authority = Authority::new(&folder);
    let server = authority.issue("server", "localhost", 2);
    let address = receiver.address();
    receiver.answer_all(|_| ("200 OK", String::new()));
    Broker::builder()
        .section(&format!(
            "[metrics]\nrule_sample = 1\n\
             [[admin.tokens]]\nname = \"prometheus\"\nrole = \"viewer\"\nscopes = [\"metrics:read\"]\nsha256 = \"{TOKEN_SHA256}\"\n\
             [[listeners]]\nname = \"tls\"\nkind = \"tls\"\naddress = \"127.0.0.1:0\"\n\
             [listeners.tls]\ncertificate = {:?}\nkey = {:?}\n",
            server.certificate, server.key
        ))
        .rule_file(
            "overheat",
            &format!(
                "[rules.overheat]\nsql = \"SELECT temperature AS t FROM 'hall/+' WHERE temperature > 60\"\n\
                 [[rules.overheat.actions]]\nname = 'ops'\ntype = 'http'\nurl = 'http://{address}/alarms'\n\
                 [[rules.overheat.actions]]\nname = 'alarm'\ntype = 'republish'\ntopic = 'alarm/${{topic(2)}}'\n"
            ),
        )
        .start()
}

/// Some messages, of which some set the rule off.
fn traffic(broker: &Broker) {
    let mut watching = mosquitto_sub(broker, &["-q", "1", "-t", "alarm/#"]);
    for temperature in [20, 61, 62, 30] {
        let payload = format!("{{\"temperature\":{temperature}}}");
        mosquitto_pub(broker, &["-q", "1", "-t", "hall/oven", "-m", &payload]);
    }
    watching.wait_for("MSG alarm/oven 0 0");
}

#[test]
fn what_came_in_is_accounted_for_and_promtool_finds_no_fault_in_the_text() {
    let broker = gateway();
    traffic(&broker);
    let metrics = broker.adds_up();
    for (name, value) in [
        ("tidegate_messages_received_total{qos=\"1\"}", 4.0),
        ("tidegate_messages_made_total{by=\"rule\"}", 2.0),
        ("tidegate_rule_matched_total{rule=\"overheat\"}", 4.0),
        ("tidegate_rule_passed_total{rule=\"overheat\"}", 2.0),
        ("tidegate_rule_skipped_total{rule=\"overheat\",reason=\"where\"}", 2.0),
        ("tidegate_rule_eval_seconds_count{rule=\"overheat\"}", 4.0),
        ("tidegate_action_requests_total{rule=\"overheat\",action=\"alarm\"}", 2.0),
        ("tidegate_action_delivered_total{rule=\"overheat\",action=\"ops\"}", 2.0),
        ("tidegate_action_attempts_total{rule=\"overheat\",action=\"ops\",outcome=\"delivered\"}", 2.0),
        ("tidegate_action_latency_seconds_count{rule=\"overheat\",action=\"ops\"}", 2.0),
        ("tidegate_mqtt_packets_total{type=\"publish\",direction=\"in\"}", 4.0),
        ("tidegate_mqtt_packets_total{type=\"puback\",direction=\"out\"}", 4.0),
    ] {
        assert_eq!(metrics.value(name), value, "{name}");
    }
    assert!(metrics.value("tidegate_store_fsync_seconds_count") > 0.0);
    let found = promtool(&["check", "metrics"], metrics.text());
    assert_eq!(found.trim(), "", "promtool has something to say");
}

#[test]
fn prometheus_reads_the_gateway_and_every_query_of_the_dashboard_gives_a_series() {
    let broker = gateway();
    let prometheus = Prometheus::start(broker.admin_address(), TOKEN);
    let up = prometheus.answer("up{job=\"tidegate\"} == 1");
    assert_eq!(up.len(), 1);
    traffic(&broker);
    let queries = dashboard();
    assert!(queries.len() > 30, "{queries:?}");
    for query in queries {
        let series = prometheus.answer(&query);
        assert!(series.iter().all(|one| one["metric"].is_object()), "{query}: {series:?}");
    }
    let matched = "tidegate_rule_matched_total{rule=\"overheat\"} == 4";
    assert_eq!(prometheus.answer(matched).len(), 1);
    let strangers = Prometheus::start(broker.admin_address(), "another-token");
    assert_eq!(strangers.answer("up{job=\"tidegate\"} == 0").len(), 1);
}

/// The queries of the example dashboard, as Grafana asks them for all gateways and rules.
fn dashboard() -> Vec<String> {
    let text = fs::read_to_string(config("grafana/tidegate.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.filter_map(|panel| panel["targets"].as_array()).flatten();
    let query = |target: &Value| {
        let query = target["expr"].as_str().unwrap();
        query.replace("$__rate_interval", "1m").replace("$instance", ".*").replace("$rule", ".*")
    };
    targets.map(query).collect()
}

#[test]
fn alerts_are_sound_and_go_off_when_they_should() {
    let rules = config("prometheus/alerts.yml");
    let checked = promtool(&["check", "rules", rules.to_str().unwrap()], "");
    assert!(checked.contains("SUCCESS"), "{checked}");
    let tests = config("prometheus/alerts_test.yml");
    let tested = promtool(&["test", "rules", tests.to_str().unwrap()], "");
    assert!(tested.contains("SUCCESS"), "{tested}");
    // What an alert asks for is something that there is.
    let (broker, text) = (gateway(), fs::read_to_string(&rules).unwrap());
    let shown = broker.adds_up();
    let words = text.split(|c: char| !(c.is_ascii_lowercase() || c == '_'));
    for family in words.filter(|word| word.starts_with("tidegate_")) {
        // Nobody was kept outside yet but by time, and that is there.
        assert!(shown.text().contains(&format!("\n{family}")), "{family} isn't there");
    }
}
