//! The robustness battery: malformed and hostile input, each with the reaction that the specification requires.
//!
//! The cases are data: lines of `cases/*.txt` ([`table`]), and the matrix of which property may stand in which packet
//! ([`properties`]). One broker takes all cases of a file, one after the other. After each case a bystander, who was there
//! before all of them, publishes and receives, and a new client comes in: a fault harms nobody but its sender.

#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "all of this file is tests"
)]

mod case;
mod properties;
mod table;

use integration_tests::{Broker, Client, Version};

use case::Case;

/// Fewer cases than this, and something was lost.
const CASES_MIN: usize = 800;

/// Runs cases against one broker.
fn run(name: &str, cases: &[Case]) {
    let broker = Broker::builder().limit("topic_alias_maximum", "8").limit("receive_maximum", "4").start();
    let mut bystanders = Version::BOTH.map(|version| {
        let mut client = Client::connect(&broker, version, &format!("bystander {version:?}"));
        client.subscribe("bystander/#", 1);
        client
    });
    for (number, case) in cases.iter().enumerate() {
        case.run(&broker);
        let text = format!("{number}");
        let [publisher, _] = &mut bystanders;
        publisher.publish("bystander/x", &text);
        for bystander in &mut bystanders {
            assert_eq!(bystander.delivery().text(), text, "a bystander after {case}");
        }
        let mut newcomer = Client::connect(&broker, case.version, "newcomer");
        newcomer.ping();
        newcomer.leave();
    }
    println!("battery, {name}: {} cases", cases.len());
}

#[test]
fn fixed_headers() {
    run("fixed headers", &table::read(table::FRAMING));
}

#[test]
fn connect() {
    run("CONNECT", &table::read(table::CONNECT));
}

#[test]
fn publish_and_its_acknowledgements() {
    run("PUBLISH and its acknowledgements", &table::read(table::PUBLISH));
}

#[test]
fn subscribe_unsubscribe_disconnect_and_auth() {
    run("SUBSCRIBE, UNSUBSCRIBE, DISCONNECT, AUTH", &table::read(table::SUBSCRIBE));
}

#[test]
fn other_protocols() {
    run("other protocols", &table::read(table::FOREIGN));
}

#[test]
fn properties_where_they_do_not_belong() {
    run("properties that don't belong", &properties::misplaced());
}

#[test]
fn properties_that_may_stand_once() {
    run("properties twice", &properties::repeated());
}

#[test]
fn properties_that_are_cut() {
    run("properties cut short", &properties::cut());
}

#[test]
fn the_battery_is_complete() {
    let tables = [table::FRAMING, table::CONNECT, table::PUBLISH, table::SUBSCRIBE, table::FOREIGN];
    let of_tables: usize = tables.iter().map(|text| table::read(text).len()).sum();
    let of_properties =
        properties::misplaced().len() + properties::repeated().len() + properties::cut().len();
    println!(
        "battery: {} cases, {of_tables} of tables and {of_properties} of properties",
        of_tables + of_properties
    );
    assert!(of_tables + of_properties >= CASES_MIN, "{of_tables} + {of_properties}");
}
