//! The Rust client rumqttc against the broker, in both versions.

use std::time::Duration;

use integration_tests::{Broker, PATIENCE};
use tokio::time::timeout;

const MESSAGES: u32 = 500;

#[tokio::test]
async fn rumqttc_with_mqtt_3_1_1() {
    use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};

    let broker = Broker::start();
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let mut options = MqttOptions::new("rumqttc", "127.0.0.1", broker.address().port());
        options.set_keep_alive(Duration::from_secs(5));
        let (client, mut events) = AsyncClient::new(options, 1_000);
        client.subscribe("rumqttc/+", qos).await.unwrap();
        for number in 0..MESSAGES {
            client.publish("rumqttc/x", qos, false, number.to_string()).await.unwrap();
        }
        for number in 0..MESSAGES {
            let publish = loop {
                let event = timeout(PATIENCE, events.poll()).await.expect("an event").unwrap();
                if let Event::Incoming(Packet::Publish(publish)) = event {
                    break publish;
                }
            };
            assert_eq!((publish.qos, publish.topic.as_str()), (qos, "rumqttc/x"));
            assert_eq!(publish.payload, number.to_string());
        }
        client.disconnect().await.unwrap();
        while timeout(PATIENCE, events.poll()).await.expect("an end").is_ok() {}
    }
}

#[tokio::test]
async fn rumqttc_with_mqtt_5() {
    use rumqttc::v5::mqttbytes::QoS;
    use rumqttc::v5::mqttbytes::v5::{Packet, PublishProperties};
    use rumqttc::v5::{AsyncClient, Event, MqttOptions};

    let broker = Broker::start();
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let mut options = MqttOptions::new("rumqttc", "127.0.0.1", broker.address().port());
        options.set_keep_alive(Duration::from_secs(5)).set_topic_alias_max(Some(10));
        let (client, mut events) = AsyncClient::new(options, 1_000);
        client.subscribe("rumqttc/+", qos).await.unwrap();
        let properties = PublishProperties {
            content_type: Some("text/plain".to_owned()),
            user_properties: vec![("a".to_owned(), "1".to_owned()), ("a".to_owned(), "2".to_owned())],
            ..PublishProperties::default()
        };
        for number in 0..MESSAGES {
            let payload = number.to_string();
            client
                .publish_with_properties("rumqttc/x", qos, false, payload, properties.clone())
                .await
                .unwrap();
        }
        for number in 0..MESSAGES {
            let publish = loop {
                let event = timeout(PATIENCE, events.poll()).await.expect("an event").unwrap();
                if let Event::Incoming(Packet::Publish(publish)) = event {
                    break publish;
                }
            };
            assert_eq!((publish.qos, &publish.payload[..]), (qos, number.to_string().as_bytes()));
            let received = publish.properties.expect("properties");
            assert_eq!(received.content_type, properties.content_type);
            assert_eq!(received.user_properties, properties.user_properties);
        }
        client.disconnect().await.unwrap();
        while timeout(PATIENCE, events.poll()).await.expect("an end").is_ok() {}
    }
}
