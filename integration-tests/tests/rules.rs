//! Rules end to end: a published message, a rule, and what comes out at a subscriber or at an HTTP server.

use integration_tests::tools::{mosquitto_pub, mosquitto_sub};
use integration_tests::{Broker, Client, HttpReceiver, Version};

const ALARMS: &str = r#"
[rules.overheat]
sql = '''
SELECT deviceId, temperature AS t, topic(2) AS site FROM 'sensors/+/temp' WHERE temperature > 60
'''

[[rules.overheat.actions]]
name = "alarm"
type = "republish"
topic = "alarms/${topic(2)}"
qos = 1
"#;

#[test]
fn a_rule_republishes_what_matches() {
    let broker = Broker::builder().rule_file("overheat", ALARMS).start();
    for version in Version::BOTH {
        let mut subscriber = Client::connect(&broker, version, "operator");
        subscriber.subscribe("alarms/#", 1);
        let mut publisher = Client::connect(&broker, version, "sensor");
        for (site, temperature) in [("a", "60"), ("b", "60.5"), ("c", "\"hot\""), ("d", "1e3")] {
            let payload = format!(r#"{{"deviceId":"dev-{site}","temperature":{temperature},"other":[1,2]}}"#);
            publisher.publish_acknowledged(&format!("sensors/{site}/temp"), &payload);
        }
        publisher.publish_acknowledged("sensors/e/humidity", r#"{"temperature":99}"#);
        publisher.publish_acknowledged("sensors/f/temp", "no JSON at all");
        publisher.publish_acknowledged("sensors/g/temp", r#"{"temperature":61}"#);
        for (site, payload) in [
            ("b", r#"{"deviceId":"dev-b","t":60.5,"site":"b"}"#),
            ("d", r#"{"deviceId":"dev-d","t":1e3,"site":"d"}"#),
            ("g", r#"{"t":61,"site":"g"}"#),
        ] {
            let alarm = subscriber.delivery();
            assert_eq!((alarm.topic.as_str(), alarm.text()), (format!("alarms/{site}").as_str(), payload));
            assert_eq!((alarm.qos, alarm.retain), (1, false));
        }
        subscriber.ping();
    }
    broker.adds_up();
}

#[test]
fn foreign_clients_see_the_outcome_of_a_rule() {
    let broker = Broker::builder().rule_file("overheat", ALARMS).start();
    let mut subscriber = mosquitto_sub(&broker, &["-q", "1", "-t", "alarms/+"]);
    mosquitto_pub(&broker, &["-t", "sensors/hall/temp", "-m", r#"{"deviceId":"x","temperature":71}"#]);
    assert_eq!(subscriber.message(), r#"alarms/hall 1 0 {"deviceId":"x","t":71,"site":"hall"}"#);
}

fn to_http(receiver: &HttpReceiver) -> String {
    format!(
        r#"
[rules.report]
sql = "SELECT temperature AS t, topic() AS topic FROM 'sensors/#' WHERE temperature > 60"

[[rules.report.actions]]
name = "ops"
type = "http"
url = "http://{}/alarms/${{topic(2)}}?by=rule"
body = "${{output()}}"
headers = {{ "content-type" = "application/json", "x-client" = "${{clientid()}}" }}
"#,
        receiver.address()
    )
}

#[test]
fn a_rule_posts_to_an_http_server() {
    let receiver = HttpReceiver::start();
    let broker = Broker::builder().rule_file("report", &to_http(&receiver)).start();
    let mut publisher = Client::connect(&broker, Version::V5, "sensor-1");
    publisher.publish_acknowledged("sensors/hall", r#"{"temperature":20}"#);
    publisher.publish_acknowledged("sensors/a b\u{e9}", r#"{"temperature":70.10}"#);
    let request = receiver.next_request();
    assert_eq!((request.method.as_str(), request.target.as_str()), ("POST", "/alarms/a%20b%C3%A9?by=rule"));
    assert_eq!(request.header("content-type"), Some("application/json"));
    assert_eq!(request.header("x-client"), Some("sensor-1"));
    assert_eq!(request.text(), "{\"t\":70.10,\"topic\":\"sensors/a b\u{e9}\"}");
    request.answer("204 No Content", &[]);
    broker.adds_up();
}

#[test]
fn an_http_server_that_is_unwell_is_tried_again() {
    let receiver = HttpReceiver::start();
    let broker = Broker::builder().rule_file("report", &to_http(&receiver)).start();
    let mut publisher = Client::connect(&broker, Version::V5, "sensor-1");
    // The publisher is acknowledged while the far side is down.
    for temperature in ["61", "62"] {
        publisher.publish_acknowledged("sensors/hall", &format!(r#"{{"temperature":{temperature}}}"#));
    }
    let first = receiver.next_request();
    let body = first.text().to_owned();
    assert!(body.contains("61"), "{body}");
    first.answer("503 Service Unavailable", &["retry-after: 0"]);
    let again = receiver.next_request();
    assert_eq!(again.text(), body, "the same request again, before the one after it");
    again.answer("200 OK", &[]);
    let second = receiver.next_request();
    assert!(second.text().contains("62"), "{}", second.text());
    second.answer("200 OK", &[]);
    broker.adds_up();
}

#[test]
fn a_batch_goes_where_its_connector_says_with_a_token_out_of_a_file() {
    let receiver = HttpReceiver::start();
    let folder = std::env::temp_dir().join(format!("tidegate-connector-{}", std::process::id()));
    drop(std::fs::remove_dir_all(&folder));
    std::fs::create_dir(&folder).unwrap();
    let token = folder.join("token");
    std::fs::write(&token, "s3cret\n").unwrap();
    let connector = format!(
        "[connectors.ops]\ntype = \"http\"\nurl = \"http://{}/v1\"\nauth = {{ type = \"bearer\", token = \"${{file:{}}}\" }}\n",
        receiver.address(),
        token.display()
    );
    let rule = r#"
[rules.readings]
sql = "SELECT n FROM 'in/#'"

[[rules.readings.actions]]
name = "ops"
type = "http"
connector = "ops"
url = "/readings"
batch = { max_items = 3, linger = "1m" }
retry = { initial_backoff = "1ms", max_backoff = "2ms" }
"#;
    let broker = Broker::builder().in_folder(&folder).section(&connector).rule_file("readings", rule).start();
    let mut publisher = Client::connect(&broker, Version::V5, "sensor-1");
    for n in 1..=6 {
        publisher.publish_acknowledged("in/x", &format!(r#"{{"n":{n}}}"#));
    }
    let first = receiver.next_request();
    assert_eq!((first.method.as_str(), first.target.as_str()), ("POST", "/v1/readings"));
    assert_eq!(first.header("authorization"), Some("Bearer s3cret"));
    assert_eq!(first.header("content-type"), Some("application/json"));
    assert_eq!(first.text(), r#"[{"n":1},{"n":2},{"n":3}]"#);
    let key = first.header("idempotency-key").unwrap().to_owned();
    first.answer("503 Service Unavailable", &["retry-after: 0"]);
    let again = receiver.next_request();
    assert_eq!(again.text(), r#"[{"n":1},{"n":2},{"n":3}]"#, "as it was, before what came later");
    assert_eq!(again.header("idempotency-key"), Some(key.as_str()));
    again.answer("204 No Content", &[]);
    let second = receiver.next_request();
    assert_eq!(second.text(), r#"[{"n":4},{"n":5},{"n":6}]"#);
    assert_ne!(second.header("idempotency-key"), Some(key.as_str()));
    second.answer("204 No Content", &[]);
    let (code, text) = broker.command(&["check", "--effective"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("[connectors.ops]") && !text.contains("s3cret"), "{text}");
    broker.stop();
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn rules_that_feed_each_other_come_to_an_end() {
    let broker = Broker::builder()
        .rule_file(
            "loop",
            r#"
[rules.ping]
sql = "SELECT * FROM 'ping'"
[[rules.ping.actions]]
name = "out"
type = "republish"
topic = "pong"

[rules.pong]
sql = "SELECT * FROM 'pong'"
[[rules.pong.actions]]
name = "out"
type = "republish"
topic = "ping"

[rules.self]
sql = "SELECT * FROM 'self'"
[[rules.self.actions]]
name = "out"
type = "republish"
topic = "self"
"#,
        )
        .start();
    let mut subscriber = Client::connect(&broker, Version::V5, "watcher");
    for filter in ["ping", "pong", "self", "end"] {
        subscriber.subscribe(filter, 0);
    }
    let mut publisher = Client::connect(&broker, Version::V5, "publisher");
    publisher.publish_acknowledged("ping", r#"{"a":1}"#);
    publisher.publish_acknowledged("self", r#"{"a":1}"#);
    publisher.publish_acknowledged("end", "");
    let mut topics = Vec::new();
    loop {
        let delivery = subscriber.delivery();
        if delivery.topic == "end" {
            break;
        }
        topics.push(delivery.topic);
    }
    // Each rule once: ping -> pong -> ping, self -> self.
    assert_eq!(topics, ["ping", "pong", "ping", "self", "self"]);
    broker.adds_up();
}

#[test]
fn a_rule_that_does_not_compile_stops_the_start_with_its_place() {
    let faulty = "[rules.bad]\nsql = \"SELECT temperatur( FROM 'a'\"\n[[rules.bad.actions]]\nname = \"o\"\ntype = \"republish\"\ntopic = \"b\"\n";
    let output = Broker::builder().rule_file("bad", faulty).fails_to_start();
    assert!(output.contains("bad.toml") && output.contains("bad"), "{output}");
}
