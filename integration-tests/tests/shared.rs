//! Shared Subscriptions: MQTT 5.0 §4.8.2. MQTT 3.1.1 clients may use them, too.

use integration_tests::{Broker, Client, Version};

#[test]
fn each_message_goes_to_one_member_v5_s4_8_2() {
    let broker = Broker::start();
    for version in Version::BOTH {
        let mut members: Vec<_> = (0..3)
            .map(|number| {
                let mut member = Client::connect(&broker, version, &format!("member {number}"));
                member.subscribe("$share/group/jobs/#", 0);
                member.subscribe("end", 0);
                member
            })
            .collect();
        // A subscription of its own and another group each get every message.
        let mut alone = Client::connect(&broker, version, "alone");
        alone.subscribe("jobs/#", 0);
        let mut other = Client::connect(&broker, version, "other");
        other.subscribe("$share/other/jobs/+", 0);
        let mut publisher = Client::connect(&broker, version, "publisher");
        let sent: Vec<String> = (0..60).map(|number| number.to_string()).collect();
        for payload in &sent {
            publisher.publish("jobs/x", payload);
        }
        publisher.publish("end", "");
        let mut received: Vec<String> = Vec::new();
        for member in &mut members {
            let before = received.len();
            loop {
                let delivery = member.delivery();
                if delivery.topic == "end" {
                    break;
                }
                received.push(delivery.text().to_owned());
            }
            assert!(received.len() > before, "every member has its share");
        }
        received.sort_by_key(|payload| payload.parse::<u32>().unwrap());
        assert_eq!(received, sent);
        for payload in &sent {
            assert_eq!(alone.delivery().text(), payload);
            assert_eq!(other.delivery().text(), payload);
        }
    }
}

#[test]
fn malformed_shared_filters_are_refused_v5_4_8_2_1() {
    let broker = Broker::start();
    // No name, wildcards in the name, no filter [MQTT-4.8.2-1, -2, v5].
    for filter in
        ["$share//x", "$share/a+/x", "$share/#/x", "$share/name", "$share/name/", "$share/", "$share"]
    {
        let mut client = Client::connect(&broker, Version::V5, "filters");
        client.send(&format!("82 [0001 [] '{filter}' 00]"));
        if let Some(codes) = client.refusal_of_filters() {
            assert_eq!(codes, [0x8f], "{filter}");
        }
    }
}

#[test]
fn no_local_on_a_shared_subscription_is_a_protocol_error_v5_3_8_3_4() {
    let broker = Broker::start();
    let mut client = Client::connect(&broker, Version::V5, "local");
    client.send("82 [0001 [] '$share/group/x' 04]");
    client.expect_end(0x82);
}

#[test]
fn a_shared_subscription_gets_no_retained_messages_v5_s4_8_2() {
    let broker = Broker::start();
    let mut publisher = Client::connect(&broker, Version::V5, "publisher");
    publisher.send("33 ['kept/x' 0001 [] `r`]");
    assert_eq!(publisher.ack(0x40).packet_id, 1);
    let mut member = Client::connect(&broker, Version::V5, "member");
    member.subscribe("$share/group/kept/#", 0);
    member.ping();
}

#[test]
fn the_granted_qos_of_the_member_holds_v5_4_8_2_3() {
    let broker = Broker::start();
    let mut member = Client::connect(&broker, Version::V5, "member");
    member.subscribe("$share/group/q/#", 0);
    let mut publisher = Client::connect(&broker, Version::V5, "publisher");
    publisher.publish_acknowledged("q/x", "1");
    assert_eq!(member.delivery().qos, 0);
}

#[test]
fn a_member_that_leaves_gives_its_place_up_v5_s4_8_2() {
    let broker = Broker::start();
    let mut stays = Client::connect(&broker, Version::V5, "stays");
    stays.subscribe("$share/group/jobs", 1);
    let mut goes = Client::connect(&broker, Version::V5, "goes");
    goes.subscribe("$share/group/jobs", 1);
    goes.send("a2 [0001 [] '$share/group/jobs']");
    assert_eq!(goes.ack(0xb0).codes, [0]);
    let mut publisher = Client::connect(&broker, Version::V5, "publisher");
    for number in 0..4 {
        publisher.publish_acknowledged("jobs", &number.to_string());
        let delivery = stays.delivery();
        assert_eq!(delivery.text(), number.to_string());
        stays.send(&format!("40 [{:04x}]", delivery.packet_id.unwrap_or(0)));
    }
    goes.ping();
    broker.adds_up();
}
