//! A fault that panics harms nobody else: in a connection, in the evaluation of a rule, in a delivery.
//!
//! The binary of the tests can be asked for one (feature `power-cut`, variable `TIDEGATE_PANIC`).

#![allow(clippy::unwrap_used, reason = "a helper of tests panics where it can't go on")]

use std::time::Instant;

use integration_tests::{Broker, Client, HttpReceiver, PATIENCE, Version};

#[test]
fn a_connection_that_panics_is_closed_alone() {
    let broker = Broker::builder()
        .variable("TIDEGATE_PANIC", "1")
        .section(
            "[acl]\nrules = ['allow all all \"#\"', 'allow all all \"$SYS/#\"']\n[sys]\ninterval = \"1s\"\n",
        )
        .expect_error("panicked")
        .start();
    let mut bystander = Client::connect(&broker, Version::V5, "bystander");
    bystander.subscribe("will", 1);
    bystander.subscribe("alive", 1);
    for version in Version::BOTH {
        let mut victim = Client::open(&broker, version);
        let properties = version.no_properties();
        let level = if version == Version::V5 { "05" } else { "04" };
        victim.send(&format!("10 ['MQTT' {level} 06 003c {properties} 'victim' {properties} 'will' 'gone']"));
        assert_eq!(victim.connack().code, 0);
        victim.publish("panic in connection", "x");
        victim.expect_closed();
        // Its session ends as with a lost connection: the will is sent.
        assert_eq!(bystander.delivery().text(), "gone");
        bystander.publish("alive", "yes");
        assert_eq!(bystander.delivery().text(), "yes");
        // And the client may come again.
        let mut again = Client::connect(&broker, version, "victim");
        again.ping();
        again.leave();
    }
    broker.logged_times("a connection's task panicked", 2);
    broker.logged_times("\"message\":\"panicked\"", 2);
    // What it was about is nobody's business.
    assert!(!broker.log().contains("a test asked for it"), "{}", broker.log());
    bystander.subscribe("$SYS/broker/connections/panicked", 0);
    let deadline = Instant::now() + PATIENCE;
    while bystander.delivery().text() != "2" {
        assert!(Instant::now() < deadline, "the panics are not counted");
    }
}

#[test]
fn a_rule_that_panics_costs_that_rule_that_message() {
    let rule = |name: &str| {
        format!(
            "[rules.{name}]\nsql = \"SELECT v FROM 'in'\"\n[[rules.{name}.actions]]\nname = 'a'\ntype = 'republish'\ntopic = 'out/{name}'\n"
        )
    };
    let broker = Broker::builder()
        .variable("TIDEGATE_PANIC", "1")
        .rule_file("one", &rule("one"))
        .expect_error("panicked")
        .start();
    let mut client = Client::connect(&broker, Version::V5, "client");
    client.subscribe("in", 1);
    client.subscribe("out/#", 1);
    // The message itself is delivered and acknowledged, and its publisher stays connected.
    client.publish("in", "panic in rule");
    assert_eq!(client.delivery().text(), "panic in rule");
    client.publish("in", r#"{"v":1,"w":2}"#);
    let mut got = [client.delivery().text().to_owned(), client.delivery().text().to_owned()];
    got.sort();
    assert_eq!(got, [r#"{"v":1,"w":2}"#, r#"{"v":1}"#]);
    let (code, counters) = broker.command(&["rules", "counters", "--json"]);
    assert_eq!(code, Some(0), "{counters}");
    for part in ["\"matched\":2", "\"passed\":1", "\"failed_evaluation\":1"] {
        assert!(counters.contains(part), "{part}: {counters}");
    }
    broker.logged_times("evaluating a rule panicked", 1);
}

#[test]
fn a_delivery_that_panics_ends_as_a_dead_letter_and_the_next_goes_on() {
    let receiver = HttpReceiver::start();
    let rule = format!(
        "[rules.r]\nsql = \"SELECT v FROM 'in/+'\"\n[[rules.r.actions]]\nname = 'a'\ntype = 'http'\n\
         url = 'http://{}/'\nbody = '${{topic(2)}}'\nbody_format = 'text'\n",
        receiver.address()
    );
    let broker = Broker::builder()
        .variable("TIDEGATE_PANIC", "1")
        .rule_file("r", &rule)
        .expect_error("panicked")
        .start();
    let mut client = Client::connect(&broker, Version::V5, "client");
    client.publish_acknowledged("in/panic in connector", "{}");
    client.publish_acknowledged("in/good", "{}");
    let request = receiver.next_request();
    assert_eq!(request.text(), "good");
    request.answer("204 No Content", &[]);
    let deadline = Instant::now() + PATIENCE;
    let letters = loop {
        let (code, text) = broker.command(&["dead-letters", "list"]);
        assert_eq!(code, Some(0), "{text}");
        if text.contains("r/a:1") {
            break text;
        }
        assert!(Instant::now() < deadline, "no dead letter: {text}");
    };
    assert!(letters.contains("driver"), "{letters}");
    broker.logged_times("a delivery task panicked", 1);
    client.ping();
}
