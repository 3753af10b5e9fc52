//! Faults on the way to Kafka.
#![expect(clippy::unwrap_used, reason = "a failure is a failed test")]

use std::net::SocketAddr;

use integration_tests::fault_proxy::Fault;
use integration_tests::servers::Kafka;
use integration_tests::sinks::{self, Arrived, FarSide, Outcome, Waits};

#[test]
fn every_fault_on_the_way_to_kafka() {
    sinks::hold::<Kafka>(env!("CARGO_TARGET_TMPDIR"));
}

/// The broker, with an action that says more.
struct With(Kafka, &'static str);

impl FarSide for With {
    const KIND: &'static str = "kafka";

    fn start() -> Self {
        Self(Kafka::start(), "")
    }

    fn address(&self) -> SocketAddr {
        self.0.address()
    }

    fn clear(&self) {
        self.0.clear();
    }

    fn connector(&self, address: SocketAddr) -> String {
        self.0.connector(address)
    }

    fn wrong_connector(&self, address: SocketAddr) -> String {
        self.0.wrong_connector(address)
    }

    fn tls_connector(&self, address: SocketAddr) -> String {
        self.0.tls_connector(address)
    }

    fn action(&self) -> String {
        format!("{}\n{}", self.0.action(), self.1)
    }

    fn huge_answer(&self) -> Vec<u8> {
        self.0.huge_answer()
    }

    fn arrived(&self) -> Vec<Arrived> {
        self.0.arrived()
    }
}

/// What is written while no answer comes back.
fn lost_answers(more: &'static str, may_repeat: bool) -> Outcome {
    let far = With(Kafka::start(), more);
    sinks::play(&far, may_repeat, Waits::Short, |stage| {
        stage.publish(20);
        stage.wait("a delivery", |action| action["delivered"].as_u64().unwrap() > 0);
        stage.fault(Fault::HalfOpen);
        let before = far.0.written().len();
        stage.publish(20);
        stage.wait("a time-out", |action| !action["failure"].is_null());
        stage.wait_until("a record that nobody hears of", |_| far.0.written().len() > before);
        stage.fault(Fault::None);
    })
}

#[test]
fn what_was_written_without_an_answer_is_there_once() {
    let outcome = lost_answers("", false);
    assert_eq!(outcome.copies, 0);
}

#[test]
fn without_idempotence_it_is_there_twice() {
    let outcome = lost_answers("idempotence = false", true);
    assert!(outcome.copies > 0, "{outcome:?}");
}
