//! Faults on the way to an HTTP server.

use integration_tests::sinks::{self, HttpFarSide};

#[test]
fn every_fault_on_the_way_to_an_http_server() {
    sinks::hold::<HttpFarSide>(env!("CARGO_TARGET_TMPDIR"));
}
