//! The index over predicates: whom it names, and that nobody is missing. The reference is asking every rule.

use proptest::prelude::*;
use rules_sql::{
    CompiledRule, Dialect, Evaluation, Event, Limits, Outcome, PredicateIndex, Template, TemplateKind,
    compile,
};

fn rule(sql: &str) -> CompiledRule {
    compile(sql, Dialect::Aws, &Limits::default()).unwrap_or_else(|error| panic!("{}", error.render(sql)))
}

fn rules(conditions: &[&str]) -> Vec<CompiledRule> {
    conditions.iter().map(|condition| rule(&format!("SELECT * FROM '#' WHERE {condition}"))).collect()
}

fn event<'a>(payload: &'a [u8]) -> Event<'a> {
    Event { client_id: Some("c1"), qos: 1, ..Event::new("in/7", payload) }
}

/// The rules that the index names for a payload.
fn named(rules: &[CompiledRule], payload: &str) -> Vec<u32> {
    let event = event(payload.as_bytes());
    let mut found = Vec::new();
    PredicateIndex::new(rules).candidates(&mut Evaluation::new(&event, 1), 0, &mut found);
    found
}

/// The rules whose WHERE holds.
fn matching(rules: &[CompiledRule], payload: &str) -> Vec<u32> {
    let event = event(payload.as_bytes());
    let mut ev = Evaluation::new(&event, 1);
    (0..).zip(rules).filter(|(_, rule)| rule.evaluate(&mut ev) != Outcome::NoMatch).map(|(n, _)| n).collect()
}

/// Conditions of which the index names exactly those that hold.
#[track_caller]
fn exact(conditions: &[&str], cases: &[(&str, &[u32])]) {
    let rules = rules(conditions);
    for (payload, expected) in cases {
        assert_eq!(matching(&rules, payload), *expected, "scan of {payload}");
        assert_eq!(named(&rules, payload), *expected, "index on {payload}");
    }
}

#[test]
fn equality_goes_by_value_and_converts_nothing() {
    exact(
        &["a = 1", "a = 1.0", "1e0 = a", "a = '1'", "a = true", "a = false", "a = NULL", "a = ''", "a = 0"],
        &[
            (r#"{"a":1}"#, &[0, 1, 2]),
            (r#"{"a":1.00}"#, &[0, 1, 2]),
            (r#"{"a":10e-1}"#, &[0, 1, 2]),
            (r#"{"a":"1"}"#, &[3]),
            (r#"{"a":"\u0031"}"#, &[3]),
            (r#"{"a":true}"#, &[4]),
            (r#"{"a":"true"}"#, &[]),
            (r#"{"a":false}"#, &[5]),
            (r#"{"a":null}"#, &[6]),
            (r#"{"a":""}"#, &[7]),
            (r#"{"a":-0}"#, &[8]),
            (r#"{"a":-0.0e7}"#, &[8]),
            (r#"{"a":[1]}"#, &[]),
            (r#"{"a":{"a":1}}"#, &[]),
            (r#"{"A":1}"#, &[]),
            (r"{}", &[]),
            (r"[1]", &[]),
            (r"1", &[]),
            ("", &[]),
            (r#"{"a":1"#, &[]),
        ],
    );
}

#[test]
fn numbers_beyond_an_int_and_beyond_a_decimal() {
    exact(
        &[
            "a = 9223372036854775807",
            "a = 9223372036854775808",
            "a = 1e999",
            "a > 9.99e998",
            "a < -1e999",
            "a = 12345678901234567890123456789012345",
            "a >= 1e-999",
        ],
        &[
            (r#"{"a":9223372036854775807}"#, &[0, 6]),
            (r#"{"a":9223372036854775807.0}"#, &[0, 6]),
            (r#"{"a":9223372036854775808}"#, &[1, 6]),
            (r#"{"a":1e999}"#, &[2, 3, 6]),
            // Out of range: no number that compares, and equal to nothing but its own text.
            (r#"{"a":1e1000}"#, &[]),
            (r#"{"a":-1e1000}"#, &[]),
            (r#"{"a":1e-1100}"#, &[]),
            (r#"{"a":-2e999}"#, &[4]),
            // Both sides are rounded to 34 digits.
            (r#"{"a":12345678901234567890123456789012344.9}"#, &[5, 6]),
            (r#"{"a":1E-999}"#, &[6]),
            (r#"{"a":0}"#, &[]),
        ],
    );
}

#[test]
fn ranges_at_their_bounds() {
    exact(
        &[
            "a < 5",
            "a <= 5",
            "a > 5",
            "a >= 5",
            "5 < a",
            "5 >= a",
            "a BETWEEN 5 AND 6",
            "a BETWEEN 6 AND 5",
            "a > 5 AND a < 6",
            "a >= 5 AND a <= 5",
            "a > '5'",
        ],
        &[
            (r#"{"a":5}"#, &[1, 3, 5, 6, 9]),
            (r#"{"a":5.0}"#, &[1, 3, 5, 6, 9]),
            (r#"{"a":"5"}"#, &[1, 3, 5, 6, 9]),
            (r#"{"a":4.999999999999999999999}"#, &[0, 1, 5]),
            (r#"{"a":5.000000000000000000001}"#, &[2, 3, 4, 6, 8, 10]),
            (r#"{"a":"5.5"}"#, &[2, 3, 4, 6, 8, 10]),
            (r#"{"a":6}"#, &[2, 3, 4, 6, 10]),
            (r#"{"a":"6 "}"#, &[]),
            (r#"{"a":"+6"}"#, &[]),
            (r#"{"a":true}"#, &[]),
            (r#"{"a":null}"#, &[]),
            (r#"{"a":[5]}"#, &[]),
            (r"{}", &[]),
        ],
    );
}

#[test]
fn lists_name_a_rule_once() {
    exact(
        &["a IN (1, 2, 1.0)", "a IN [2, '2', NULL]", "a IN ([2, 3])", "a IN (3)", "a IN (true, 'x')"],
        &[
            (r#"{"a":1}"#, &[0]),
            (r#"{"a":2}"#, &[0, 1, 2]),
            (r#"{"a":"2"}"#, &[1]),
            (r#"{"a":3}"#, &[2, 3]),
            (r#"{"a":null}"#, &[1]),
            (r#"{"a":"x"}"#, &[4]),
            (r"{}", &[]),
        ],
    );
}

#[test]
fn paths_walk_objects_alone_and_the_last_of_a_repeated_key_counts() {
    // Both ways of looking names up: few of them, and more than a handful.
    for more in
        [&[][..], &["f1 = 1", "f2 = 1", "f3 = 1", "f4 = 1", "f5 = 1", "a.f1 = 1", "a.f2 = 1", "a.f3 = 1"]]
    {
        let mut conditions = vec!["a.b = 1", "a.b.c = 1", "a = 1", "`my key` = 1"];
        conditions.extend_from_slice(more);
        exact(
            &conditions,
            &[
                (r#"{"a":{"b":1}}"#, &[0]),
                (r#"{"a":{"b":{"c":1}}}"#, &[1]),
                (r#"{"a":1}"#, &[2]),
                (r#"{"a":1,"a":{"b":1,"b":2,"b":1}}"#, &[0]),
                (r#"{"a":{"b":1},"a":1}"#, &[2]),
                (r#"{"a":{"b":1},"a":null}"#, &[]),
                (r#"{"a":[{"b":1}]}"#, &[]),
                (r#"{"my\u0020key":1,"\u0061":{"b":1}}"#, &[0, 3]),
                (r#"[{"a":1}]"#, &[]),
            ],
        );
    }
}

#[test]
fn facts_of_the_message() {
    exact(
        &[
            "topic() = 'in/7'",
            "topic(1) = 'in'",
            "topic(2) = '7'",
            "topic(2) = 7",
            "topic(2) > 6",
            "topic(3) = ''",
            "clientid() = 'c1'",
            "clientid() IN ('c2', 'c3')",
            "username() = 'u'",
            "qos() = 1",
            "qos() >= 2",
            "topic('2.9') = '7'",
        ],
        &[("", &[0, 1, 2, 4, 6, 9, 11]), ("{}", &[0, 1, 2, 4, 6, 9, 11])],
    );
    let rules = rules(&["clientid() = 'n/a'", "username() = 'u'", "topic(2) = ''"]);
    let event = Event { username: Some("u"), ..Event::new("in/", b"") };
    let mut found = Vec::new();
    PredicateIndex::new(&rules).candidates(&mut Evaluation::new(&event, 1), 0, &mut found);
    assert_eq!(found, [0, 1, 2]);
}

#[test]
fn variables_that_only_name_a_value_are_looked_through() {
    let rules = vec![
        rule("SET @v = a SELECT * FROM '#' WHERE @v = 1"),
        rule("SET @v = a, @w = @v SELECT * FROM '#' WHERE @w > 5"),
        rule("SET @limit = 5 SELECT * FROM '#' WHERE a > @limit"),
        rule("SET @v = a + 0 SELECT * FROM '#' WHERE @v = 1"),
    ];
    assert_eq!(named(&rules, r#"{"a":1}"#), [0, 3]);
    assert_eq!(named(&rules, r#"{"a":6}"#), [1, 2, 3]);
}

#[test]
fn what_says_nothing_for_certain_keeps_a_rule_in() {
    let conditions = [
        "a = 1 OR b = 1",
        "NOT a = 1",
        "a <> 1",
        "a NOT IN (1, 2)",
        "a NOT BETWEEN 1 AND 2",
        "a = b",
        "a IN (1, b)",
        "a IN b",
        "a LIKE 'x%'",
        "a + 0 = 1",
        "a > b",
        "a > 'x'",
        "a > NULL",
        "a[0] = 1",
        "a =~ 'x'",
        "(CASE WHEN a = 1 THEN true END)",
        "topic(a) = 'x'",
    ];
    assert_eq!(named(&rules(&conditions), r#"{"a":77}"#), (0..17).collect::<Vec<u32>>());
}

#[test]
fn of_many_conjuncts_the_one_that_fewest_rules_share_is_taken() {
    let mut conditions: Vec<String> = (0..200).map(|n| format!("kind = 'r' AND id = 'd{n}'")).collect();
    conditions.extend((0..200).map(|n| format!("x AND (kind = 'r' AND t BETWEEN {n}.25 AND {n}.75)")));
    conditions.extend((0..200).map(|n| format!("id IN ('e{n}', 'd7') AND qos() < 2 AND t > {n}")));
    let conditions: Vec<&str> = conditions.iter().map(String::as_str).collect();
    let rules = rules(&conditions);
    assert_eq!(named(&rules, r#"{"kind":"r","id":"d8","t":3.5}"#), [8, 203, 400, 401, 402, 403]);
    assert_eq!(named(&rules, r#"{"kind":"r","id":"e9","t":3}"#), [400, 401, 402]);
    assert_eq!(named(&rules, r#"{"kind":"s"}"#), []);
}

#[test]
fn goes_on_from_a_number_and_leaves_what_was_found_before() {
    let conditions = ["a = 1", "b > 0", "true", "a = 1", "b > 0", "true"];
    let rules = rules(&conditions);
    let index = PredicateIndex::new(&rules);
    let event = event(br#"{"a":1,"b":1}"#);
    let mut found = vec![99];
    index.candidates(&mut Evaluation::new(&event, 1), 2, &mut found);
    assert_eq!(found, [99, 2, 3, 4, 5]);
    index.candidates(&mut Evaluation::new(&event, 1), 6, &mut found);
    assert_eq!(found, [99, 2, 3, 4, 5]);
}

#[test]
fn an_index_over_nothing_names_nobody() {
    assert_eq!(named(&[], "{}"), []);
}

#[test]
fn a_rule_has_a_stream_of_random_numbers_of_its_own() {
    let rule = rule("SELECT VALUE newuuid() FROM '#'");
    let template =
        Template::compile("${newuuid()}", TemplateKind::Text, Dialect::Aws, &Limits::default()).unwrap();
    let event = event(b"{}");
    let run = |seed, before: &[u32], number| {
        let mut ev = Evaluation::new(&event, seed);
        for other in before {
            ev.begin_rule(*other);
            assert_ne!(rule.evaluate(&mut ev), Outcome::NoMatch);
        }
        ev.begin_rule(number);
        let outcome = rule.evaluate(&mut ev);
        let mut text = Vec::new();
        template.render(&mut ev, None, &mut text).unwrap();
        (outcome, text)
    };
    let alone = run(1, &[], 3);
    assert_eq!(run(1, &[0, 1, 2], 3), alone);
    assert_eq!(run(1, &[2], 3), alone);
    for other in [run(1, &[], 2), run(2, &[], 3)] {
        assert_ne!(other.0, alone.0);
        assert_ne!(other.1, alone.1);
    }
    let Outcome::Output(output) = &alone.0 else { panic!("no output") };
    assert_ne!(output.bytes()[1..37], alone.1[..], "a template goes on where the rule was");
}

fn subject() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "a",
        "a",
        "a",
        "b",
        "b.c",
        "a.b.c",
        "d",
        "e",
        "f",
        "g",
        "h",
        "@v",
        "@w",
        "topic()",
        "topic(1)",
        "topic(2)",
        "topic(9)",
        "clientid()",
        "username()",
        "qos()",
    ])
}

fn constant() -> impl Strategy<Value = String> {
    let odd = prop::sample::select(vec![
        "0",
        "-0",
        "0.0",
        "1",
        "1.0",
        "1e0",
        "-1",
        "2",
        "2.5",
        "3",
        "1e999",
        "-1e999",
        "1e-999",
        "100e-2",
        "9223372036854775807",
        "9223372036854775808",
        "-9223372036854775808",
        "0.1",
        "1.000000000000000000000000000000000049",
        "'1'",
        "'1.0'",
        "'01'",
        "'x'",
        "''",
        "'true'",
        "'in'",
        "'7'",
        "'in/7'",
        "'c1'",
        "'é'",
        "true",
        "false",
        "NULL",
        "@k",
    ]);
    prop_oneof![3 => odd.prop_map(str::to_owned), 1 => (-4_i32..8).prop_map(|n| n.to_string())]
}

fn atom() -> impl Strategy<Value = String> {
    let op = prop::sample::select(vec!["=", "=", "=", "<", "<=", ">", ">=", "<>"]);
    let not = prop::sample::select(vec!["", "", "", "NOT "]);
    let list = || prop::collection::vec(constant(), 1..4).prop_map(|items| items.join(", "));
    prop_oneof![
        6 => (subject(), op.clone(), constant()).prop_map(|(a, op, c)| format!("{a} {op} {c}")),
        2 => (subject(), op.clone(), constant()).prop_map(|(a, op, c)| format!("{c} {op} {a}")),
        1 => (subject(), op, subject()).prop_map(|(a, op, b)| format!("{a} {op} {b}")),
        2 => (subject(), not.clone(), list()).prop_map(|(a, not, l)| format!("{a} {not}IN ({l})")),
        1 => (subject(), not.clone(), list()).prop_map(|(a, not, l)| format!("{a} {not}IN [{l}]")),
        3 => (subject(), not, constant(), constant())
            .prop_map(|(a, not, l, h)| format!("{a} {not}BETWEEN {l} AND {h}")),
        1 => prop::sample::select(vec!["a", "rand() < 0.7", "length(a) > 1", "is_null(b)", "NOT e", "true"])
            .prop_map(str::to_owned),
    ]
}

fn condition() -> impl Strategy<Value = String> {
    atom().prop_recursive(3, 8, 3, |inner| {
        prop_oneof![
            4 => prop::collection::vec(inner.clone(), 1..4)
                .prop_map(|all| all.iter().map(|c| format!("({c})")).collect::<Vec<_>>().join(" AND ")),
            1 => (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a}) OR ({b})")),
            1 => inner.prop_map(|a| format!("NOT ({a})")),
        ]
    })
}

fn json_text() -> impl Strategy<Value = String> {
    let leaf = prop::sample::select(vec![
        "0",
        "-0",
        "-0.0",
        "1",
        "1.0",
        "10e-1",
        "1e0",
        "2",
        "2.5",
        "3",
        "-1",
        "7",
        "1e999",
        "1e1000",
        "-1e1000",
        "1e-1100",
        "9223372036854775807",
        "9223372036854775808",
        "-9223372036854775809",
        "0.1",
        "1.00000000000000000000000000000000004900001",
        "\"1\"",
        "\"1.0\"",
        "\"01\"",
        "\"+1\"",
        "\"\\u0031\"",
        "\"x\"",
        "\"\"",
        "\"true\"",
        "\"\\u00e9\"",
        "\"é\"",
        "true",
        "false",
        "null",
        "[]",
        "{}",
        "[1]",
    ])
    .prop_map(str::to_owned);
    leaf.prop_recursive(3, 24, 8, |inner| {
        let key = prop::sample::select(vec!["a", "a", "b", "c", "d", "e", "f", "g", "h", "\\u0061", "é"]);
        prop::collection::vec((key, inner), 0..9).prop_map(|members| {
            let members: Vec<String> =
                members.iter().map(|(key, value)| format!("\"{key}\": {value}")).collect();
            format!("{{{}}}", members.join(","))
        })
    })
}

fn payload() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => prop::collection::vec(("[a-h]", json_text()), 0..10).prop_map(|members| {
            let members: Vec<String> = members.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
            format!("{{{}}}", members.join(","))
        }),
        1 => json_text(),
        1 => prop::sample::select(vec!["", "{", "x", "[{\"a\":1}]", "\u{feff}{}"]).prop_map(str::to_owned),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn outcomes_are_those_of_asking_every_rule(
        conditions in prop::collection::vec(condition(), 0..40),
        payloads in prop::collection::vec(payload(), 1..6),
        username in prop::sample::select(vec![None, Some("x"), Some("1")]),
        from in 0..40_u32,
        seed in any::<u64>(),
    ) {
        let rules: Vec<CompiledRule> = conditions
            .iter()
            .map(|condition| {
                rule(&format!(
                    "SET @v = a, @w = @v.b, @k = 1 SELECT a, newuuid() AS id FROM '#' WHERE {condition}"
                ))
            })
            .collect();
        let index = PredicateIndex::new(&rules);
        for payload in &payloads {
            let event = Event { username, ..event(payload.as_bytes()) };
            let mut ev = Evaluation::new(&event, seed);
            let scan: Vec<Outcome> = (0..)
                .zip(&rules)
                .map(|(number, rule)| {
                    ev.begin_rule(number);
                    rule.evaluate(&mut ev)
                })
                .collect();
            let mut ev = Evaluation::new(&event, seed);
            let mut found = Vec::new();
            index.candidates(&mut ev, 0, &mut found);
            prop_assert!(found.is_sorted_by(|a, b| a < b), "{:?}", found);
            let mut outcomes = vec![Outcome::NoMatch; rules.len()];
            for number in &found {
                ev.begin_rule(*number);
                outcomes[*number as usize] = rules[*number as usize].evaluate(&mut ev);
            }
            for ((with, without), condition) in outcomes.iter().zip(&scan).zip(&conditions) {
                prop_assert_eq!(with, without, "{} on {}", condition, payload);
            }
            let mut rest = Vec::new();
            index.candidates(&mut Evaluation::new(&event, seed), from, &mut rest);
            found.retain(|number| *number >= from);
            prop_assert_eq!(rest, found);
        }
    }
}
