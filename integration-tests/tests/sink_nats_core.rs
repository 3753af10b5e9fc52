//! Faults on the way to NATS without a stream.

use integration_tests::sinks::{self, NatsCore};

#[test]
fn every_fault_on_the_way_to_nats_core() {
    sinks::hold::<NatsCore>(env!("CARGO_TARGET_TMPDIR"));
}
