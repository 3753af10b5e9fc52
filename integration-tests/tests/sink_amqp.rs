//! Faults on the way to RabbitMQ.

use integration_tests::sinks::{self, AmqpFarSide};

#[test]
fn every_fault_on_the_way_to_rabbitmq() {
    sinks::hold::<AmqpFarSide>(env!("CARGO_TARGET_TMPDIR"));
}
