//! How many Retained Messages come to a new Subscription, over connections that break too.

mod common;

use broker::{BrokerConfig, InternalPublish};
use common::{Got, durable, start};
use mqtt_protocol::{Connect, ProtocolVersion, QoS};

/// Retains so many messages below `r/`.
async fn retain_many(harness: &common::Harness, messages: usize) {
    for number in 0..messages {
        let publish = InternalPublish {
            topic: format!("r/{}/{}", number % 70, number),
            payload: vec![b'x'; 300],
            qos: QoS::AtLeastOnce,
            retain: true,
            properties: Vec::new(),
            message_expiry_interval_s: None,
            run_as: None,
            trail: broker::Trail::default(),
        };
        harness.broker.publish(publish).await.unwrap();
    }
}

#[tokio::test]
async fn a_subscription_to_many_retained_messages_gets_each_once() {
    let harness = start(BrokerConfig::default()).await;
    retain_many(&harness, 3000).await;
    let mut connect = Connect::new(ProtocolVersion::V5, "c");
    connect.properties.receive_maximum = 10;
    let (mut client, _) = harness.connect(&connect).await;
    client.subscribe("r/#", QoS::AtLeastOnce).await;
    let mut topics = std::collections::HashSet::new();
    for _ in 0..3000 {
        let Got::Publish { topic, id: Some(id), .. } = client.receive().await else {
            panic!("a message at QoS 1")
        };
        assert!(topics.insert(topic));
        client.puback(id).await;
    }
    client.expect_nothing().await;
}

#[tokio::test]
async fn retained_messages_that_a_new_subscription_still_waits_for_come_on_the_next_connection() {
    const MESSAGES: usize = 3000;
    let harness = start(BrokerConfig::default()).await;
    retain_many(&harness, MESSAGES).await;
    let mut connect = durable("c");
    connect.properties.receive_maximum = 10;
    let (mut client, _) = harness.connect(&connect).await;
    client.subscribe("r/#", QoS::AtLeastOnce).await;
    let mut topics = std::collections::HashSet::new();
    let mut received = 0;
    while topics.len() < MESSAGES {
        if received == 500 {
            // The connection breaks.
            drop(client);
            client = harness.connect(&connect).await.0;
        } else if received == 1000 {
            // Another one takes its place, while there is still much to come.
            client = harness.connect(&connect).await.0;
        }
        let Got::Publish { topic, dup, retain: true, id: Some(id), .. } = client.receive().await else {
            panic!("a Retained Message")
        };
        assert!(topics.insert(topic) || dup, "each comes once, or again because it wasn't acknowledged");
        client.puback(id).await;
        received += 1;
    }
    client.expect_nothing().await;
    // With the session they are forgotten.
    client.subscribe("r/#", QoS::AtLeastOnce).await;
    client.receive().await;
    connect.clean_start = true;
    harness.connect(&connect).await.0.expect_nothing().await;
}
