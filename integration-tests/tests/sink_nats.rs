//! Faults on the way to NATS.

use integration_tests::servers::Nats;
use integration_tests::sinks;

#[test]
fn every_fault_on_the_way_to_nats() {
    sinks::hold::<Nats>(env!("CARGO_TARGET_TMPDIR"));
}
