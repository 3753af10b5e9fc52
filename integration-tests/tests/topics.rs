//! Topic Names against Topic Filters: §4.7 of both versions.

use integration_tests::{Broker, Client, Version};

/// Filter, topic, whether they match. Those of the specifications first, in their order.
const CASES: &[(&str, &str, bool)] = &[
    ("sport/tennis/player1/#", "sport/tennis/player1", true),
    ("sport/tennis/player1/#", "sport/tennis/player1/ranking", true),
    ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true),
    ("sport/#", "sport", true),
    ("#", "sport", true),
    ("sport/tennis/+", "sport/tennis/player1", true),
    ("sport/tennis/+", "sport/tennis/player2", true),
    ("sport/tennis/+", "sport/tennis/player1/ranking", false),
    ("sport/+", "sport", false),
    ("sport/+", "sport/", true),
    ("+", "sport", true),
    ("+/tennis/#", "sport/tennis/x", true),
    ("sport/+/player1", "sport/tennis/player1", true),
    ("+/+", "/finance", true),
    ("/+", "/finance", true),
    ("+", "/finance", false),
    ("sport", "sport/", false),
    ("sport", "Sport", false),
    ("/", "/", true),
    ("+/+", "/", true),
    ("/#", "/", true),
    ("#", "/", true),
    ("a//b", "a//b", true),
    ("a/+/b", "a//b", true),
    ("a/b", "a//b", false),
    ("a/#", "ab", false),
    ("a/+/#", "a", false),
    ("a/+/#", "a/b", true),
    ("+/+/+", "a/b", false),
    ("a b", "a b", true),
    ("\u{e9}/+", "\u{e9}/\u{1f600}", true),
];

/// Topics that begin with `$`: a leading wildcard does not match them [MQTT-4.7.2-1, both versions].
const DOLLAR: &[(&str, &str, bool)] = &[
    ("#", "$local/x", false),
    ("+/x", "$local/x", false),
    ("+/#", "$local/x", false),
    ("$local/#", "$local/x", true),
    ("$local/+", "$local/x", true),
    ("$local/x", "$local/x", true),
    ("a/#", "a/$local", true),
    ("a/+", "a/$local", true),
];

fn check(cases: &[(&str, &str, bool)]) {
    let broker = Broker::start();
    for version in Version::BOTH {
        let properties = version.no_properties();
        let mut client = Client::connect(&broker, version, "match");
        client.subscribe("the/end", 0);
        for &(filter, topic, matches) in cases {
            client.subscribe(filter, 0);
            client.publish(topic, "m");
            client.publish("the/end", "end");
            let mut topics = Vec::new();
            loop {
                let delivery = client.delivery();
                if delivery.text() == "end" {
                    break;
                }
                topics.push(delivery.topic);
            }
            let expected = if matches { vec![topic.to_owned()] } else { Vec::new() };
            assert_eq!(topics, expected, "filter {filter}, topic {topic}");
            client.send(&format!("a2 [0001 {properties} '{filter}']"));
            // A wildcard that matches the end itself delivers it a second time in some brokers.
            while client.packet().first() != Some(&0xb0) {}
        }
    }
}

#[test]
fn filters_match_as_specified_v311_4_7_1_2_v5_4_7_1_1() {
    check(CASES);
}

#[test]
fn leading_wildcards_do_not_match_dollar_topics_v311_4_7_2_1_v5_4_7_2_1() {
    check(DOLLAR);
}

#[test]
fn all_wildcards_together_deliver_once_v311_3_3_2_3_v5_3_3_2_3() {
    let broker = Broker::start();
    for version in Version::BOTH {
        let mut subscriber = Client::connect(&broker, version, "all");
        for filter in ["w/+/c", "w/b/+", "w/#", "+/b/c", "+/+/+", "w/b/c/#", "w/b/c", "x/#", "w/+"] {
            subscriber.subscribe(filter, 0);
        }
        let mut publisher = Client::connect(&broker, version, "publisher");
        publisher.publish("w/b/c", "one");
        publisher.publish("x/y/z", "end");
        assert_eq!(subscriber.delivery().text(), "one");
        assert_eq!(subscriber.delivery().text(), "end");
    }
}
