//! What compiling and evaluating cost: `cargo bench -p rules-sql`, with the name of a bench behind `--` for that one alone.
//!
//! Times are medians of many samples; the allocator is counted, so that a bench without a line for allocations made none.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a bench ends at the first fault"
)]

use std::fmt::{self, Write as _};
use std::hint::black_box;

use divan::{AllocProfiler, Bencher};
use rules_sql::{
    CompiledRule, Dialect, Evaluation, Event, Limits, Outcome, PredicateIndex, Template, TemplateKind,
    compile as compile_sql,
};

#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

fn main() {
    divan::main();
}

const TOPIC: &str = "sensors/room-1/temp";
const SELECT: &str = "SELECT temperature AS t, ts, s, p, topic() AS topic FROM 'sensors/#' WHERE temperature";

/// Bytes of a payload.
#[derive(Clone, Copy)]
enum Size {
    B200 = 200,
    KiB2 = 2 << 10,
    KiB64 = 64 << 10,
}

const SIZES: [Size; 3] = [Size::B200, Size::KiB2, Size::KiB64];

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Size::B200 => "200 B",
            Size::KiB2 => "2 KiB",
            Size::KiB64 => "64 KiB",
        })
    }
}

/// A reading of so many bytes: ten members, and more readings behind them.
fn payload(size: Size) -> Vec<u8> {
    let size = size as usize;
    let mut text = r#"{"id":"dev-1","ts":1700000000000,"s":1,"p":3,"temperature":31.5,"humidity":40.5,"loc":{"lat":1.5,"lon":2.5},"tags":["a","b"],"ok":true"#.to_owned();
    if text.len() + 64 < size {
        text.push_str(r#","more":["#);
        let mut number = 0;
        while text.len() + 100 < size {
            let comma = if number == 0 { "" } else { "," };
            write!(
                text,
                r#"{comma}{{"ts":{},"temperature":{}.25}}"#,
                1_700_000_000_000_u64 + number,
                number % 80
            )
            .unwrap();
            number += 1;
        }
        text.push(']');
    }
    let filler = size - text.len() - r#","note":""}"#.len();
    write!(text, r#","note":"{}"}}"#, "all is well ".repeat(filler / 12 + 1).get(..filler).unwrap()).unwrap();
    assert_eq!(text.len(), size);
    text.into_bytes()
}

fn rule(sql: &str) -> CompiledRule {
    compile_sql(sql, Dialect::Aws, &Limits::default()).unwrap_or_else(|error| panic!("{}", error.render(sql)))
}

/// Evaluates one rule for one message.
fn evaluate(bencher: Bencher<'_, '_>, payload: &[u8], sql: &str, matches: bool) {
    let rule = rule(sql);
    bencher.bench_local(|| {
        let event = Event::new(TOPIC, black_box(payload));
        let outcome = rule.evaluate(&mut Evaluation::new(&event, 1));
        assert_eq!(matches!(outcome, Outcome::Output(_)), matches);
        outcome
    });
}

mod compile {
    use super::*;

    #[divan::bench]
    fn five_items() {
        black_box(rule(black_box(&format!("{SELECT} > 30"))));
    }

    #[divan::bench]
    fn template() -> Template {
        Template::compile(
            black_box("alarms/${topic(2)}/${id}"),
            TemplateKind::Topic,
            Dialect::Aws,
            &Limits::default(),
        )
        .unwrap()
    }
}

mod one_rule {
    use super::*;

    #[divan::bench(args = SIZES)]
    fn no_match(bencher: Bencher<'_, '_>, size: Size) {
        let sql = "SELECT temperature AS t, ts, topic(2) AS room FROM 'sensors/#' WHERE temperature > 60";
        evaluate(bencher, &payload(size), sql, false);
    }

    #[divan::bench(args = SIZES)]
    fn match_with_three_items(bencher: Bencher<'_, '_>, size: Size) {
        let sql = "SELECT temperature AS t, ts, topic(2) AS room FROM 'sensors/#' WHERE temperature > 30";
        evaluate(bencher, &payload(size), sql, true);
    }

    #[divan::bench(args = SIZES)]
    fn no_match_by_topic(bencher: Bencher<'_, '_>, size: Size) {
        let sql = "SELECT * FROM 'sensors/#' WHERE topic(2) = 'x' AND temperature > 30";
        evaluate(bencher, &payload(size), sql, false);
    }

    #[divan::bench(args = SIZES)]
    fn select_star(bencher: Bencher<'_, '_>, size: Size) {
        evaluate(bencher, &payload(size), "SELECT * FROM 'sensors/#'", true);
    }

    #[divan::bench(args = SIZES)]
    fn select_star_and_an_item(bencher: Bencher<'_, '_>, size: Size) {
        evaluate(bencher, &payload(size), "SELECT *, topic(2) AS room FROM 'sensors/#'", true);
    }

    #[divan::bench]
    fn five_items(bencher: Bencher<'_, '_>) {
        evaluate(bencher, &payload(Size::B200), &format!("{SELECT} > 30"), true);
    }

    #[divan::bench]
    fn arithmetic_and_case(bencher: Bencher<'_, '_>) {
        let sql = "SELECT temperature * 1.8 + 32 AS f, CASE WHEN humidity > 40 THEN 'wet' ELSE 'dry' END AS h FROM 'sensors/#'";
        evaluate(bencher, &payload(Size::B200), sql, true);
    }

    #[divan::bench]
    fn division_to_34_digits(bencher: Bencher<'_, '_>) {
        evaluate(bencher, &payload(Size::B200), "SELECT temperature / 7 AS f FROM 'sensors/#'", true);
    }

    #[divan::bench]
    fn like_and_regexp(bencher: Bencher<'_, '_>) {
        let sql = "SELECT id FROM 'sensors/#' WHERE id LIKE 'dev-%' AND regexp_matches(id, '^dev-[0-9]+$')";
        evaluate(bencher, &payload(Size::B200), sql, true);
    }

    #[divan::bench]
    fn regexp_whose_pattern_is_no_literal(bencher: Bencher<'_, '_>) {
        let sql = "SELECT id FROM 'sensors/#' WHERE regexp_matches(id, '^dev-' || '[0-9]+$')";
        evaluate(bencher, &payload(Size::B200), sql, true);
    }

    #[divan::bench]
    fn time_in_a_zone(bencher: Bencher<'_, '_>) {
        let sql = "SELECT parse_time('yyyy-MM-dd HH:mm:ss z', ts, 'Europe/Berlin') AS t FROM 'sensors/#'";
        evaluate(bencher, &payload(Size::B200), sql, true);
    }

    #[divan::bench]
    fn template_of_a_topic(bencher: Bencher<'_, '_>) {
        let payload = payload(Size::B200);
        let template = Template::compile(
            "alarms/${topic(2)}/${id}",
            TemplateKind::Topic,
            Dialect::Aws,
            &Limits::default(),
        )
        .unwrap();
        bencher.bench_local(|| {
            let event = Event::new(TOPIC, black_box(&payload));
            let mut out = Vec::new();
            template.render(&mut Evaluation::new(&event, 1), None, &mut out).unwrap();
            out
        });
    }
}

/// The payload alone, by a library's tree: what a rule's whole evaluation is held against.
mod for_comparison {
    use super::*;

    #[divan::bench(args = SIZES)]
    fn serde_json_value(bencher: Bencher<'_, '_>, size: Size) {
        let payload = payload(size);
        bencher.bench_local(|| serde_json::from_slice::<serde_json::Value>(black_box(&payload)).unwrap());
    }
}

/// All rules of one topic for one message, with the index and by asking each.
mod many_rules {
    use super::*;

    const COUNTS: [usize; 2] = [100, 10_000];

    /// Rules that differ in the constant of an equality; that with the number `matching` says what the payload does.
    fn equal(count: usize, matching: Option<usize>) -> Vec<CompiledRule> {
        let device = |n| if Some(n) == matching { 1 } else { n + 5 };
        (0..count)
            .map(|n| rule(&format!("SELECT id FROM 'sensors/#' WHERE id = 'dev-{}'", device(n))))
            .collect()
    }

    /// Rules that differ in the bounds of a range.
    fn between(count: usize, matching: Option<usize>) -> Vec<CompiledRule> {
        let low = |n| if Some(n) == matching { 31 } else { n + 40 };
        (0..count)
            .map(|n| {
                rule(&format!("SELECT id FROM 'sensors/#' WHERE temperature BETWEEN {0} AND {0}.9", low(n)))
            })
            .collect()
    }

    /// Rules with thresholds of their own, all above the reading but that of one.
    fn above(count: usize, matching: Option<usize>) -> Vec<CompiledRule> {
        let limit = |n| if Some(n) == matching { 30 } else { n + 40 };
        (0..count)
            .map(|n| rule(&format!("SELECT id FROM 'sensors/#' WHERE temperature > {}", limit(n))))
            .collect()
    }

    fn indexed(bencher: Bencher<'_, '_>, rules: &[CompiledRule], matches: usize) {
        let payload = payload(Size::B200);
        let index = PredicateIndex::new(rules);
        let mut found = Vec::with_capacity(rules.len());
        bencher.bench_local(|| {
            let event = Event::new(TOPIC, black_box(&payload));
            let mut ev = Evaluation::new(&event, 1);
            found.clear();
            index.candidates(&mut ev, 0, &mut found);
            let mut outputs = 0;
            for number in &found {
                ev.begin_rule(*number);
                outputs += usize::from(rules[*number as usize].evaluate(&mut ev) != Outcome::NoMatch);
            }
            assert_eq!(outputs, matches);
        });
    }

    fn scanned(bencher: Bencher<'_, '_>, rules: &[CompiledRule], matches: usize) {
        let payload = payload(Size::B200);
        bencher.bench_local(|| {
            let event = Event::new(TOPIC, black_box(&payload));
            let mut ev = Evaluation::new(&event, 1);
            let mut outputs = 0;
            for (number, rule) in (0..).zip(rules) {
                ev.begin_rule(number);
                outputs += usize::from(rule.evaluate(&mut ev) != Outcome::NoMatch);
            }
            assert_eq!(outputs, matches);
        });
    }

    #[divan::bench(args = COUNTS)]
    fn equality_one_matches_indexed(bencher: Bencher<'_, '_>, count: usize) {
        indexed(bencher, &equal(count, Some(count / 2)), 1);
    }

    #[divan::bench(args = COUNTS)]
    fn equality_one_matches_scanned(bencher: Bencher<'_, '_>, count: usize) {
        scanned(bencher, &equal(count, Some(count / 2)), 1);
    }

    #[divan::bench(args = COUNTS)]
    fn equality_none_matches_indexed(bencher: Bencher<'_, '_>, count: usize) {
        indexed(bencher, &equal(count, None), 0);
    }

    #[divan::bench(args = COUNTS)]
    fn equality_none_matches_scanned(bencher: Bencher<'_, '_>, count: usize) {
        scanned(bencher, &equal(count, None), 0);
    }

    #[divan::bench(args = COUNTS)]
    fn between_one_matches_indexed(bencher: Bencher<'_, '_>, count: usize) {
        indexed(bencher, &between(count, Some(count / 2)), 1);
    }

    #[divan::bench(args = COUNTS)]
    fn between_one_matches_scanned(bencher: Bencher<'_, '_>, count: usize) {
        scanned(bencher, &between(count, Some(count / 2)), 1);
    }

    #[divan::bench(args = COUNTS)]
    fn threshold_one_matches_indexed(bencher: Bencher<'_, '_>, count: usize) {
        indexed(bencher, &above(count, Some(count / 2)), 1);
    }

    #[divan::bench(args = COUNTS)]
    fn threshold_one_matches_scanned(bencher: Bencher<'_, '_>, count: usize) {
        scanned(bencher, &above(count, Some(count / 2)), 1);
    }

    #[divan::bench(args = COUNTS)]
    fn threshold_none_matches_indexed(bencher: Bencher<'_, '_>, count: usize) {
        indexed(bencher, &above(count, None), 0);
    }

    #[divan::bench(args = COUNTS)]
    fn threshold_none_matches_scanned(bencher: Bencher<'_, '_>, count: usize) {
        scanned(bencher, &above(count, None), 0);
    }

    #[divan::bench]
    fn building_the_index_of_10000(bencher: Bencher<'_, '_>) {
        let rules = equal(10_000, None);
        bencher.bench_local(|| PredicateIndex::new(black_box(&rules)));
    }
}
