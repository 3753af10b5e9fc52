//! What a decision costs, by how many rules there are and whom they are for. The broker asks once for each topic that a client
//! publishes to, and keeps the answer.
//!
//! `cargo bench -p access --bench decide` prints nanoseconds per decision.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a bench prints, and panics where it can't go on"
)]

use std::fmt::Write as _;
use std::hint::black_box;
use std::time::Instant;

use access::acl::{Request, Rules, Subject, parse_text};
use mqtt_protocol::QoS;

const DECISIONS: u32 = 200_000;

fn main() {
    println!("{:>8}  {:<34} {:>12}", "rules", "for", "ns/decision");
    for count in [1, 10, 1_000, 10_000] {
        measure(count, "a user each", |number| format!("allow all user u{number} \"plant/${{username}}/#\""));
        measure(count, "everybody, each its own topic", |number| {
            format!("allow all all \"plant/u{number}/#\"")
        });
    }
}

/// The rule that applies is the last.
fn measure(count: usize, what: &str, line: impl Fn(usize) -> String) {
    let mut text = String::new();
    for number in 0..count {
        writeln!(text, "{}", line(number)).unwrap();
    }
    let rules = Rules::new(parse_text(&text, "bench").unwrap());
    let username = format!("u{}", count - 1);
    let topic = format!("plant/{username}/line/temperature");
    let subject = Subject {
        client_id: Some("client"),
        username: Some(&username),
        groups: &[],
        address: None,
        listener: Some("tcp"),
    };
    let decisions = DECISIONS / u32::try_from(count.min(1_000)).unwrap().max(10) * 10;
    let mut best = f64::MAX;
    for _ in 0..5 {
        let begun = Instant::now();
        for _ in 0..decisions {
            let request = Request::Publish { topic: black_box(&topic), qos: QoS::AtMostOnce, retain: false };
            black_box(rules.decide(black_box(&subject), request));
        }
        best = best.min(begun.elapsed().as_nanos() as f64 / f64::from(decisions));
    }
    println!("{count:>8}  {what:<34} {best:>12.0}");
}
