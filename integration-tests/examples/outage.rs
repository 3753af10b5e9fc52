//! `cargo xtask outage KIND [--messages N] [--live-first]`: a long outage of one far side, and what it took.
#![expect(
    clippy::print_stdout,
    clippy::expect_used,
    reason = "a tool that is run by hand; what fails shall end it"
)]

use integration_tests::servers::{Kafka, Nats, Redis};
use integration_tests::sinks::{AmqpFarSide, HttpFarSide, outage};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let kind = arguments.first().expect("usage: outage KIND [--messages N] [--live-first]").as_str();
    let messages =
        arguments.iter().position(|word| word == "--messages").and_then(|at| arguments.get(at + 1));
    let messages: u64 = messages.map_or(1_000_000, |text| text.parse().expect("a number behind --messages"));
    let live_first = arguments.iter().any(|word| word == "--live-first");
    let report = match kind {
        "amqp" => outage::<AmqpFarSide>(messages, live_first),
        "http" => outage::<HttpFarSide>(messages, live_first),
        "kafka" => outage::<Kafka>(messages, live_first),
        "nats" => outage::<Nats>(messages, live_first),
        "redis" => outage::<Redis>(messages, live_first),
        other => panic!("no far side of type \"{other}\""),
    };
    println!("{kind}: {report:#?}");
}
