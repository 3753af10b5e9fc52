//! Faults on the way to Redis.

use integration_tests::servers::Redis;
use integration_tests::sinks;

#[test]
fn every_fault_on_the_way_to_redis() {
    sinks::hold::<Redis>(env!("CARGO_TARGET_TMPDIR"));
}
