//! What one evaluation costs: `cargo bench -p rules-sql`. Prints nanoseconds per operation, best of several rounds.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a bench prints, and ends at the first fault"
)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use rules_sql::{CompiledRule, Dialect, Evaluation, Event, Limits, Outcome, Template, TemplateKind, compile};

const READING: &[u8] = br#"{"id":"dev-1","ts":1700000000000,"s":1,"p":3,"temperature":31.0,"humidity":40.5,"loc":{"lat":1.5,"lon":2.5},"tags":["a","b"],"ok":true}"#;
const TOPIC: &str = "sensors/room-1/temp";
const ROUND: Duration = Duration::from_millis(150);

fn measure(name: &str, mut run: impl FnMut()) {
    let mut best = f64::INFINITY;
    for _ in 0..4 {
        let start = Instant::now();
        let mut count = 0_u32;
        while start.elapsed() < ROUND {
            for _ in 0..100 {
                run();
            }
            count += 100;
        }
        best = best.min(start.elapsed().as_secs_f64() * 1e9 / f64::from(count));
    }
    println!("{name:<58} {best:>9.0} ns");
}

fn rule(sql: &str) -> CompiledRule {
    compile(sql, Dialect::Aws, &Limits::default()).unwrap_or_else(|error| panic!("{}", error.render(sql)))
}

fn evaluate(name: &str, sql: &str) {
    let rule = rule(sql);
    measure(name, || {
        let event = Event::new(TOPIC, black_box(READING));
        let mut ev = Evaluation::new(&event, 1);
        assert!(!matches!(black_box(rule.evaluate(&mut ev)), Outcome::Failed(_)));
    });
}

fn main() {
    const SELECT: &str =
        "SELECT temperature AS t, ts, s, p, topic() AS topic FROM 'sensors/#' WHERE temperature";
    evaluate("five items, WHERE true", &format!("{SELECT} > 30"));
    evaluate("five items, WHERE false", &format!("{SELECT} > 40"));
    evaluate(
        "WHERE false by topic, payload unread",
        "SELECT * FROM 'sensors/#' WHERE topic(2) = 'x' AND temperature > 30",
    );
    evaluate("SELECT *", "SELECT * FROM 'sensors/#'");
    evaluate("SELECT *, topic(2) AS room", "SELECT *, topic(2) AS room FROM 'sensors/#'");
    evaluate(
        "arithmetic and CASE",
        "SELECT temperature * 1.8 + 32 AS f, CASE WHEN humidity > 40 THEN 'wet' ELSE 'dry' END AS h FROM 'sensors/#'",
    );
    evaluate("division to 34 digits", "SELECT temperature / 7 AS f FROM 'sensors/#'");
    evaluate(
        "LIKE and regexp",
        "SELECT id FROM 'sensors/#' WHERE id LIKE 'dev-%' AND regexp_matches(id, '^dev-[0-9]+$')",
    );
    evaluate(
        "regexp whose pattern is no literal",
        "SELECT id FROM 'sensors/#' WHERE regexp_matches(id, '^dev-' || '[0-9]+$')",
    );
    evaluate(
        "time in a zone",
        "SELECT parse_time('yyyy-MM-dd HH:mm:ss z', ts, 'Europe/Berlin') AS t FROM 'sensors/#'",
    );

    let thousand: Vec<CompiledRule> =
        (0..1000).map(|n| rule(&format!("SELECT id FROM 'sensors/#' WHERE id = 'dev-{}'", n + 5))).collect();
    measure("1,000 rules on one message, none matches, each", || {
        let event = Event::new(TOPIC, black_box(READING));
        let mut ev = Evaluation::new(&event, 1);
        for rule in &thousand {
            assert_eq!(rule.evaluate(&mut ev), Outcome::NoMatch);
        }
    });

    let template =
        Template::compile("alarms/${topic(2)}/${id}", TemplateKind::Topic, Dialect::Aws, &Limits::default())
            .unwrap();
    measure("template of a topic with two values", || {
        let event = Event::new(TOPIC, black_box(READING));
        let mut ev = Evaluation::new(&event, 1);
        let mut out = Vec::new();
        template.render(&mut ev, None, &mut out).unwrap();
        black_box(out);
    });

    measure("compile", || {
        black_box(compile(black_box(&format!("{SELECT} > 30")), Dialect::Aws, &Limits::default()).unwrap());
    });
    measure("for comparison: serde_json::Value of the payload", || {
        black_box(serde_json::from_slice::<serde_json::Value>(black_box(READING)).unwrap());
    });
}
