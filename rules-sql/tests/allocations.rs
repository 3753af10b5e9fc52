//! What is allocated for messages that match nothing: nothing.

use allocation_counter::measure;
use rules_sql::{CompiledRule, Dialect, Evaluation, Event, Limits, Outcome, PredicateIndex, compile};

const READING: &[u8] = br#"{"id":"dev-1","ts":1700000000000,"temperature":31.5,"loc":{"lat":1.5,"lon":2.5},"tags":["a","b"],"ok":true,"none":null,"text":"17.25"}"#;

fn rule(condition: &str) -> CompiledRule {
    let sql = format!("SELECT *, temperature * 2 AS t, newuuid() AS id FROM 'sensors/#' WHERE {condition}");
    compile(&sql, Dialect::Aws, &Limits::default()).unwrap_or_else(|error| panic!("{}", error.render(&sql)))
}

/// Conditions that hold for no message of this test, of every kind that is meant to be free.
fn conditions() -> Vec<String> {
    let fixed = [
        "temperature > 60",
        "temperature BETWEEN 32 AND 33",
        "text > 60.5",
        "temperature = 31",
        "id = 'dev-2'",
        "id IN ('dev-2', 'dev-3', 7)",
        "id LIKE 'dav%'",
        "loc.lat < 1.5 AND loc.lon > 2",
        "loc.lat = '1.5' OR NOT ok",
        "missing = 1",
        "topic(2) = 'room-2'",
        "topic(2) = 'room-2' AND temperature > 30",
        "clientid() = 'x' AND qos() = 0",
        "ok = false",
        "none = 0",
        "temperature + 1 > 60",
        "startswith(id, 'x')",
    ];
    let many = (0..500).flat_map(|n| [format!("id = 'dev-{}'", n + 5), format!("temperature > {}", n + 40)]);
    fixed.into_iter().map(str::to_owned).chain(many).collect()
}

#[test]
fn a_rule_that_does_not_match_allocates_nothing_and_neither_does_reading_the_payload() {
    for condition in conditions() {
        let rule = rule(&condition);
        let event = Event::new("sensors/room-1/temp", READING);
        let counted = measure(|| {
            let outcome = rule.evaluate(&mut Evaluation::new(&event, 1));
            assert_eq!(outcome, Outcome::NoMatch, "{condition}");
        });
        assert_eq!((counted.count_total, counted.bytes_total), (0, 0), "{condition}");
    }
}

#[test]
fn asking_the_index_allocates_nothing() {
    let rules: Vec<CompiledRule> = conditions().iter().map(|condition| rule(condition)).collect();
    let index = PredicateIndex::new(&rules);
    let event = Event::new("sensors/room-1/temp", READING);
    let mut found = Vec::with_capacity(rules.len());
    let counted = measure(|| {
        let mut ev = Evaluation::new(&event, 1);
        index.candidates(&mut ev, 0, &mut found);
        for number in &found {
            ev.begin_rule(*number);
            assert_eq!(rules[*number as usize].evaluate(&mut ev), Outcome::NoMatch);
        }
    });
    assert_eq!(counted.count_total, 0);
    assert!(!found.is_empty() && found.len() < 20, "{found:?}");
}

#[test]
fn the_counter_counts() {
    let rule = rule("temperature > 30");
    let event = Event::new("sensors/room-1/temp", READING);
    let counted = measure(|| {
        assert_ne!(rule.evaluate(&mut Evaluation::new(&event, 1)), Outcome::NoMatch);
    });
    assert!(counted.count_total > 0);
}
