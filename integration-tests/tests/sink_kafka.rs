//! Faults on the way to Kafka.

use integration_tests::servers::Kafka;
use integration_tests::sinks;

#[test]
fn every_fault_on_the_way_to_kafka() {
    sinks::hold::<Kafka>(env!("CARGO_TARGET_TMPDIR"));
}
