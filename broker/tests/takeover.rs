//! One client's publishes go out in its order, over a takeover of its session too.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use broker::{BrokerConfig, HookEffects, MessageHandler, MessageHook, Progress, Publication};
use common::{Got, durable, start_with};
use mqtt_protocol::{Packet, ProtocolVersion, QoS};
use store::MemoryStore;

/// A rule that isn't through with a message of the topic `slow` before it is told so.
#[derive(Debug, Clone, Default)]
struct Slow(Arc<AtomicBool>);

impl MessageHook for Slow {
    fn generation(&self) -> u64 {
        1
    }

    fn candidates(&self, topic: &str) -> Option<Arc<dyn MessageHandler>> {
        (topic == "slow").then(|| Arc::new(self.clone()) as Arc<dyn MessageHandler>)
    }
}

impl MessageHandler for Slow {
    fn handle(&self, _: &Publication<'_>, _: &mut usize, _: &mut HookEffects) -> Progress {
        if self.0.load(Ordering::Acquire) { Progress::Done } else { Progress::Yield }
    }
}

#[tokio::test]
async fn what_a_client_published_before_a_takeover_goes_out_before_what_it_publishes_after_v5_4_6_0_6() {
    let rule = Slow::default();
    let hook: Arc<dyn MessageHook> = Arc::new(rule.clone());
    let harness = start_with(BrokerConfig::default(), Arc::new(MemoryStore::new(1)), Some(hook)).await;
    let mut subscriber = harness.client("subscriber").await;
    subscriber.subscribe_with("#", mqtt_protocol::SubscriptionOptions::from_qos(QoS::AtMostOnce), None).await;
    assert_eq!(subscriber.receive().await, Got::SubAck(vec![0]));

    let (mut before, _) = harness.durable("publisher").await;
    before.publish("slow", b"1", QoS::AtLeastOnce, false, 1).await;
    let mut after = harness.raw(ProtocolVersion::V5).await;
    after.send(&Packet::Connect(Box::new(durable("publisher")))).await;
    // The connection of before is told, and the rule is at it still: the new one has to wait.
    assert!(matches!(before.receive().await, Got::Disconnect(_)));
    let mut other = harness.client("other").await;
    other.publish("other", b"meanwhile", QoS::AtLeastOnce, false, 1).await;
    let payload = |got: Got| match got {
        Got::Publish { payload, .. } => payload,
        other => panic!("no PUBLISH but {other:?}"),
    };
    assert_eq!(payload(subscriber.receive().await), b"meanwhile");
    // What had left by now would be in the socket.
    assert!(tokio::time::timeout(Duration::ZERO, after.receive()).await.is_err(), "CONNACK too early");

    rule.0.store(true, Ordering::Release);
    assert!(matches!(after.receive().await, Got::ConnAck { session_present: true, .. }));
    after.publish("fast", b"2", QoS::AtLeastOnce, false, 2).await;
    assert_eq!(payload(subscriber.receive().await), b"1");
    assert_eq!(payload(subscriber.receive().await), b"2");
}
