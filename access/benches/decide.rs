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

/// Decisions in a round: few, so that some round isn't interrupted.
const DECISIONS: u32 = 500;
const ROUNDS: u32 = 200;

fn main() {
    println!("{:>8}  {:<34} {:>12} {:>12}", "rules", "for", "ns/publish", "ns/subscribe");
    for count in [0, 10, 1_000, 10_000] {
        measure(count, "a user each", |number| format!("allow all user u{number} \"plant/${{username}}/#\""));
        measure(count, "everybody, each its own topic", |number| {
            format!("allow all all \"plant/u{number}/#\"")
        });
        measure(count, "everybody, denials among them", |number| {
            let (effect, rest) = if number % 2 == 0 { ("deny", "secret") } else { ("allow", "#") };
            format!("{effect} all all \"plant/u{number}/{rest}\"")
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
    let username = format!("u{}", count.saturating_sub(1));
    let topic = format!("plant/{username}/line/temperature");
    let filter = format!("plant/{username}/line/#");
    let subject = Subject {
        client_id: Some("client"),
        username: Some(&username),
        groups: &[],
        address: None,
        listener: Some("tcp"),
    };
    let qos = QoS::AtMostOnce;
    let publish = best(|| {
        rules.decide(black_box(&subject), Request::Publish { topic: black_box(&topic), qos, retain: false })
    });
    let subscribe =
        best(|| rules.decide(black_box(&subject), Request::Subscribe { filter: black_box(&filter), qos }));
    println!("{count:>8}  {what:<34} {publish:>12.0} {subscribe:>12.0}");
}

/// Nanoseconds for each, in the best of all rounds.
fn best<T>(decide: impl Fn() -> T) -> f64 {
    let mut best = f64::MAX;
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        for _ in 0..DECISIONS {
            black_box(decide());
        }
        best = best.min(begun.elapsed().as_nanos() as f64 / f64::from(DECISIONS));
    }
    best
}
