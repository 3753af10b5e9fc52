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
    let broker = Broker::builder().section("[sys]\ninterval = \"1s\"").start();
    for version in Version::BOTH {
        // Both wait for topics of the broker that are published again and again.
        let mut wildcards = Client::connect(&broker, version, "wildcards");
        for filter in ["#", "+/#", "+/broker/#", "+/+/uptime"] {
            wildcards.subscribe(filter, 0);
        }
        let mut exact = Client::connect(&broker, version, "exact");
        exact.subscribe("$SYS/+/uptime", 0);
        // The first is retained, the second came while both were subscribed.
        let (retained, live) = (exact.delivery(), exact.delivery());
        assert_eq!((retained.topic.as_str(), retained.retain), ("$SYS/broker/uptime", true));
        assert_eq!((live.topic.as_str(), live.retain), ("$SYS/broker/uptime", false));
        wildcards.ping();
    }
}

#[test]
fn clients_do_not_write_to_topics_of_the_broker() {
    let broker = Broker::start();
    for version in Version::BOTH {
        let mut watcher = Client::connect(&broker, version, "watcher");
        for filter in ["$local/#", "end"] {
            watcher.subscribe(filter, 0);
        }
        // At QoS 0 and from MQTT 5 the message is refused and the connection stays; MQTT 3.1.1 has no way to refuse.
        let mut publisher = Client::connect(&broker, Version::V5, "publisher");
        publisher.publish("$local/x", "refused");
        assert_eq!(publisher.publish_acknowledged("$local/x", "refused"), 0x87);
        publisher.publish("end", "");
        assert_eq!(watcher.delivery().topic, "end");
        // Nor by a will.
        let mut client = Client::open(&broker, version);
        match version {
            Version::V311 => client.send("10 ['MQTT' 04 06 003c 'will' '$local/x' 'refused']"),
            Version::V5 => client.send("10 ['MQTT' 05 06 003c [] 'will' [] '$local/x' 'refused']"),
        }
        assert!(matches!(client.end_of_refusal(), Some(0x05 | 0x87)));
    }
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
