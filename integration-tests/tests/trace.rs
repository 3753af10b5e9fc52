//! The way of single messages, as `tidegate trace` and the interface tell it.

#![expect(clippy::unwrap_used, reason = "a test may fail where it stands")]

use std::net::SocketAddr;
use std::time::Instant;

use integration_tests::{
    Broker, BrokerBuilder, Client, ClosedPort, HttpReceiver, PATIENCE, Version, new_folder,
};
use serde_json::Value;

fn broker(receiver: &HttpReceiver, trace: &str) -> BrokerBuilder {
    broker_towards(receiver.address(), trace)
}

fn broker_towards(far_side: SocketAddr, trace: &str) -> BrokerBuilder {
    let rules = format!(
        r#"
[rules.hot]
sql = "SELECT t, traceid() AS trace FROM 'plant/+' WHERE t > 50"

[[rules.hot.actions]]
name = "ops"
type = "http"
url = "http://{}/alarms"
retry = {{ initial_backoff = "10ms", max_backoff = "20ms" }}

[[rules.hot.actions]]
name = "again"
type = "republish"
topic = "hot/${{topic(2)}}"

[rules.cold]
sql = "SELECT * FROM 'plant/#' WHERE t < 0"

[[rules.cold.actions]]
name = "log"
type = "log"
"#,
        far_side
    );
    let section = format!("[store]\ndurability = \"commit\"\n\n[trace]\n{trace}");
    Broker::builder().section(&section).rule_file("rules", &rules)
}

#[track_caller]
fn ran(broker: &Broker, arguments: &[&str]) -> String {
    let (code, text) = broker.command(arguments);
    assert_eq!(code, Some(0), "{arguments:?}: {text}");
    text
}

/// Traces that are listed with these arguments.
#[track_caller]
fn listed(broker: &Broker, arguments: &[&str]) -> Vec<Value> {
    let text = ran(broker, &[&["trace", "list", "--json"], arguments].concat());
    text.lines()
        .filter(|line| line.starts_with('{'))
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Waits for the one trace that is listed with these arguments, until it has what is asked for.
#[track_caller]
fn trace(broker: &Broker, arguments: &[&str], is_whole: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = listed(broker, arguments);
        if let [one] = found.as_slice() {
            let id = one["trace_id"].as_str().unwrap();
            let whole: Value = serde_json::from_str(&ran(broker, &["trace", "show", id, "--json"])).unwrap();
            if is_whole(&whole) {
                return whole;
            }
        }
        assert!(Instant::now() < deadline, "{arguments:?}: {found:#?}");
    }
}

fn steps<'t>(trace: &'t Value, kind: &str) -> Vec<&'t Value> {
    trace["steps"].as_array().unwrap().iter().filter(|step| step["kind"] == kind).collect()
}

#[test]
fn a_message_is_followed_through_rules_and_retries_to_the_far_side() {
    let receiver = HttpReceiver::start();
    let broker = broker(&receiver, "topics = [\"plant/#\"]\n").start();
    let mut watcher = Client::connect(&broker, Version::V5, "watcher");
    watcher.subscribe("#", 0);
    let mut press = Client::connect(&broker, Version::V5, "press");
    press.publish_acknowledged("plant/hall", r#"{"t":71}"#);
    press.publish_acknowledged("other/hall", r#"{"t":71}"#);
    let first = receiver.next_request();
    let first_parent = first.header("traceparent").unwrap().to_owned();
    let body: Value = serde_json::from_str(first.text()).unwrap();
    first.answer("503 Service Unavailable", &[]);
    let second = receiver.next_request();
    let second_parent = second.header("traceparent").unwrap().to_owned();
    second.answer("200 OK", &[]);

    let is_delivered = |trace: &Value| steps(trace, "attempt").len() == 2;
    let trace = trace(&broker, &["--client", "press"], is_delivered);
    let id = trace["trace_id"].as_str().unwrap();
    // What the rule and the far side know it by.
    let known_by = body["trace"].as_str().unwrap();
    assert_eq!(known_by.replace('-', ""), id);
    let attempts = steps(&trace, "attempt");
    for (attempt, parent) in attempts.iter().zip([&first_parent, &second_parent]) {
        assert_eq!(*parent, format!("00-{id}-{}-01", attempt["span_id"].as_str().unwrap()));
    }
    assert_eq!(attempts[1]["links"][0], first_parent);
    assert_eq!(attempts[0]["attributes"]["tidegate.outcome"], "failed");
    assert_eq!(attempts[1]["attributes"]["tidegate.outcome"], "delivered");
    let [publish] = steps(&trace, "publish")[..] else { panic!("{trace:#}") };
    assert_eq!(publish["attributes"]["messaging.destination.name"], "plant/hall");
    assert_eq!(publish["parent_span_id"], Value::Null);
    let rules = steps(&trace, "rule");
    let outcome = |name: &str| {
        let rule = rules.iter().find(|rule| rule["attributes"]["tidegate.rule.id"] == name);
        rule.unwrap()["attributes"]["tidegate.rule.outcome"].clone()
    };
    assert_eq!((outcome("hot"), outcome("cold")), ("output".into(), "no_match".into()));
    let cold = rules.iter().find(|rule| rule["attributes"]["tidegate.rule.id"] == "cold").unwrap();
    let why = cold["attributes"]["tidegate.rule.explanation"].as_str().unwrap();
    assert!(why.contains("WHERE t < 0  =>  false") && why.contains("t  =>  71"), "{why}");
    // What was published, and what the rule made of it.
    let routes: Vec<_> = steps(&trace, "route")
        .iter()
        .map(|route| route["attributes"]["tidegate.receivers.client_ids"].clone())
        .collect();
    assert_eq!(routes, ["watcher", "watcher"]);
    let republished = steps(&trace, "republish");
    assert_eq!(republished[0]["attributes"]["messaging.destination.name"], "hot/hall");
    let deliveries = [watcher.delivery(), watcher.delivery(), watcher.delivery()];
    let made = deliveries.iter().find(|delivery| delivery.topic == "hot/hall").unwrap();
    let parent = format!("00-{id}-{}-01", republished[0]["span_id"].as_str().unwrap());
    assert_eq!(
        made.properties
            .all(0x26)
            .map(|pair| String::from_utf8_lossy(pair).into_owned())
            .collect::<Vec<_>>()
            .join(""),
        format!("\0\u{b}traceparent\0{}{parent}", char::from(u8::try_from(parent.len()).unwrap()))
    );

    let page = ran(&broker, &["trace", "show", known_by]);
    for text in ["publish on plant/hall by press", "rule hot: output", "attempt 2", "WHERE t > 50  =>  true"]
    {
        assert!(page.contains(text), "{text}: {page}");
    }
    broker.stop();
}

#[test]
fn a_trace_goes_on_after_a_restart() {
    let folder = new_folder();
    let far_side = ClosedPort::new();
    let start = || broker_towards(far_side.address(), "topics = [\"plant/#\"]\n").in_folder(&folder).start();
    let broker = start();
    let mut press = Client::connect(&broker, Version::V5, "press");
    press.publish_acknowledged("plant/hall", r#"{"t":71}"#);
    let before = trace(&broker, &["--client", "press"], |trace| !steps(trace, "attempt").is_empty());
    drop(press);
    broker.stop();
    let broker = start();
    let receiver = far_side.open();
    let request = receiver.next_request();
    let parent = request.header("traceparent").unwrap().to_owned();
    request.answer("200 OK", &[]);
    let id = before["trace_id"].as_str().unwrap();
    assert!(parent.starts_with(&format!("00-{id}-")), "{parent} of {id}");
    // There may be one more that failed, from before the far side listened.
    let after = trace(&broker, &[], |trace| {
        let attempts = steps(trace, "attempt");
        attempts.last().is_some_and(|last| last["attributes"]["tidegate.outcome"] == "delivered")
    });
    assert_eq!(after["trace_id"], id);
    let publish = &steps(&before, "publish")[0]["span_id"];
    let last = steps(&after, "attempt").pop().unwrap();
    let kept = steps(&before, "attempt")[0];
    assert_eq!(last["parent_span_id"], kept["parent_span_id"], "beneath {publish}");
    broker.stop();
}

#[test]
fn what_fails_is_traced_though_nobody_asked() {
    let receiver = HttpReceiver::start();
    let broker = broker(&receiver, "").start();
    let mut press = Client::connect(&broker, Version::V5, "press");
    press.publish_acknowledged("plant/hall", r#"{"t":71}"#);
    let first = receiver.next_request();
    assert_eq!(first.header("traceparent"), None);
    first.answer("500 Internal Server Error", &[]);
    let second = receiver.next_request();
    assert!(second.header("traceparent").is_some());
    second.answer("400 Bad Request", &[]);
    let trace = trace(&broker, &["--failed"], |trace| steps(trace, "settle").len() == 1);
    assert_eq!(trace["why"], "error");
    assert_eq!(steps(&trace, "attempt").len(), 2);
    assert_eq!(steps(&trace, "settle")[0]["attributes"]["tidegate.reason"], "refused");
    broker.stop();
}

#[test]
fn a_refused_publish_says_who_and_where() {
    let receiver = HttpReceiver::start();
    let broker =
        broker(&receiver, "\n[sys]\ninterval = \"0s\"\n").limit("max_retained_messages", "1").start();
    let mut press = Client::connect(&broker, Version::V5, "press");
    assert_eq!(press.publish_acknowledged("$SYS/mine", "x"), 0x87);
    let by_rights = trace(&broker, &["--failed"], |_| true);
    let [publish] = steps(&by_rights, "publish")[..] else { panic!("{by_rights:#}") };
    assert_eq!(publish["attributes"]["messaging.client.id"], "press");
    assert_eq!(publish["attributes"]["messaging.destination.name"], "$SYS/mine");
    assert!(publish["error"].as_str().unwrap().contains("Not authorized"), "{publish}");
    // What a limit refuses, too: here once it was looked at by rules.
    for (topic, is_refused) in [("plant/one", false), ("plant/two", true)] {
        press.send(&format!("33 ['{topic}' 0001 [] `{{\"t\":1}}`]"));
        assert_eq!(press.ack(0x40).codes[0] >= 0x80, is_refused);
    }
    let by_limit = trace(&broker, &["--failed", "--topic", "plant/#"], |_| true);
    assert_eq!(steps(&by_limit, "publish")[0]["attributes"]["messaging.destination.name"], "plant/two");
    broker.stop();
}

#[test]
fn a_capture_traces_what_comes_to_a_rule_and_nothing_after_it() {
    let receiver = HttpReceiver::start();
    let broker = broker(&receiver, "errors = false\n").start();
    let mut press = Client::connect(&broker, Version::V311, "press");
    press.publish_acknowledged("plant/before", r#"{"t":1}"#);
    let shown = std::thread::scope(|scope| {
        let broker = &broker;
        let watch = scope
            .spawn(move || ran(broker, &["trace", "watch", "--rule", "cold", "--count", "1", "--for", "60"]));
        // It is begun when it is listed; a message of before isn't traced.
        let deadline = Instant::now() + PATIENCE;
        while listed(broker, &[]).is_empty() {
            press.publish_acknowledged("plant/hall", r#"{"t":-3}"#);
            assert!(Instant::now() < deadline, "nothing was traced");
        }
        watch.join().unwrap()
    });
    assert!(
        shown.contains("rule cold: output") && shown.contains("publish on plant/hall by press"),
        "{shown}"
    );
    let traced = listed(&broker, &[]).len();
    press.publish_acknowledged("plant/after", r#"{"t":-3}"#);
    assert_eq!(listed(&broker, &[]).len(), traced);
    assert!(
        listed(&broker, &[]).iter().all(|trace| trace["topic"] == "plant/hall" && trace["why"] == "rule")
    );
    broker.stop();
}

#[test]
fn a_publishers_context_counts_only_where_it_is_trusted() {
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    for (settings, is_traced) in [("trust_context = true\n", true), ("", false)] {
        let receiver = HttpReceiver::start();
        let broker = broker(&receiver, settings).start();
        let mut press = Client::connect(&broker, Version::V5, "press");
        let mut property = b"\x26\0\x0btraceparent\0".to_vec();
        property.push(u8::try_from(parent.len()).unwrap());
        property.extend_from_slice(parent.as_bytes());
        let payload = br#"{"t":71}"#;
        let mut body = b"\0\x0aplant/hall\0\x07".to_vec();
        body.push(u8::try_from(property.len()).unwrap());
        body.extend(property);
        body.extend_from_slice(payload);
        let mut packet = vec![0x32, u8::try_from(body.len()).unwrap()];
        packet.extend(body);
        press.send_bytes(&packet);
        let request = receiver.next_request();
        let sent = request.header("traceparent").map(str::to_owned);
        request.answer("200 OK", &[]);
        assert_eq!(sent.is_some(), is_traced);
        if let Some(sent) = sent {
            assert!(sent.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-"), "{sent}");
            let trace = trace(&broker, &[], |trace| steps(trace, "attempt").len() == 1);
            assert_eq!(steps(&trace, "publish")[0]["parent_span_id"], "00f067aa0ba902b7");
            assert_eq!(trace["why"], "context");
        }
        broker.stop();
    }
}
