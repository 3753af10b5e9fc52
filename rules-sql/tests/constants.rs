//! Warnings about constants hold: what is said to be always Undefined is, and what is Undefined by its types is said to
//! be. Every function and operator is tried with constants of every type.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends at the first fault"
)]

use regex::Regex;
use rules_sql::reference::functions;
use rules_sql::{Dialect, Evaluation, Event, Limits, Outcome, compile};

/// One of each type, `'x'` that is no number text, a missing field; calls whose type is certain, their value not.
const SAMPLES: [&str; 13] = [
    "7",
    "2.5",
    "'-3.5'",
    "'x'",
    "'true'",
    "true",
    "[1, 2]",
    "{'k': 1}",
    "NULL",
    "missing",
    "qos()",
    "topic()",
    "split(topic(), '/')",
];

/// Of a type that numbers, text and Booleans cannot be taken for.
const TYPED: [&str; 4] = ["true", "[1, 2]", "{'k': 1}", "NULL"];

struct Tried {
    undefined: bool,
    /// The warnings that say so.
    always: Vec<String>,
}

/// `None`: the expression is refused.
fn attempt(expression: &str) -> Option<Tried> {
    let sql = format!("SELECT VALUE ({expression}) FROM '#'");
    let rule = match compile(&sql, Dialect::Aws, &Limits::default()) {
        Ok(rule) => rule,
        Err(error) => {
            assert!(["R0213", "R0208"].contains(&error.code), "{}", error.render(&sql));
            return None;
        }
    };
    let event = Event::new("a/b", b"{}");
    let undefined = match rule.evaluate(&mut Evaluation::new(&event, 1)) {
        Outcome::Output(_) => false,
        Outcome::NoOutput => true,
        other => panic!("{expression}: {other:?}"),
    };
    let always = rule.warnings().iter().map(|warning| warning.details().message.clone());
    let always = always.filter(|message| message.contains("is always Undefined")).collect();
    Some(Tried { undefined, always })
}

#[test]
fn a_call_that_is_said_to_be_undefined_is() {
    let quoted = Regex::new("'[a-zA-Z0-9_]+'").unwrap();
    let (mut calls, mut told) = (0, 0);
    for function in functions().iter().flat_map(|group| &group.functions) {
        let mut choices: Vec<Vec<&str>> = Vec::new();
        for parameter in &function.parameters {
            let words = quoted.find_iter(&parameter.takes).map(|word| word.as_str());
            choices.push(words.chain(SAMPLES).collect());
        }
        for given in 0..=choices.len() {
            let tuples = choices[..given].iter().map(Vec::len).product::<usize>();
            // Every tuple of up to two arguments, some of the more.
            let step = if given <= 2 { 1 } else { 7 };
            for tuple in (0..tuples).step_by(step) {
                let mut rest = tuple;
                let mut arguments = Vec::new();
                for choice in &choices[..given] {
                    arguments.push(choice[rest % choice.len()]);
                    rest /= choice.len();
                }
                let call = format!("{}({})", function.name, arguments.join(", "));
                let sql = format!("SELECT VALUE {call} FROM '#'");
                if matches!(compile(&sql, Dialect::Aws, &Limits::default()), Err(e) if e.code == "R0203") {
                    continue;
                }
                let Some(tried) = attempt(&call) else { continue };
                calls += 1;
                if tried.always.iter().any(|message| message.starts_with(&format!("{}()", function.name))) {
                    told += 1;
                    assert!(tried.undefined, "{call}: {:?}", tried.always);
                }
            }
        }
    }
    assert!(calls > 10_000 && told > 1_000, "{calls} calls, {told} told");
}

#[test]
fn a_call_that_is_undefined_by_its_type_is_said_to_be() {
    let mut told = 0;
    for function in functions().iter().flat_map(|group| &group.functions) {
        let [parameter] = function.parameters.as_slice() else { continue };
        if function.bad_types.is_none() {
            continue;
        }
        for sample in TYPED {
            let call = format!("{}({sample})", function.name);
            let Some(tried) = attempt(&call) else { continue };
            assert_eq!(
                tried.undefined,
                tried.always.len() == 1,
                "{call}, {}: {:?}",
                parameter.takes,
                tried.always
            );
            told += usize::from(tried.undefined);
        }
    }
    assert!(told > 80, "{told}");
}

#[test]
fn an_operation_on_constants_is_undefined_exactly_when_it_is_said_to_be() {
    let constants = SAMPLES.iter().filter(|sample| !sample.contains(['(', 'm']));
    let (mut undefined, mut tried) = (0, 0);
    let mut check = |expression: String| {
        let found = attempt(&expression).unwrap();
        assert_eq!(found.undefined, !found.always.is_empty(), "{expression}: {:?}", found.always);
        undefined += usize::from(found.undefined);
        tried += 1;
    };
    for left in constants.clone() {
        for prefix in ["NOT", "- ", "+ "] {
            check(format!("{prefix} ({left})"));
        }
        for target in ["Int", "Decimal", "String", "Boolean"] {
            check(format!("cast({left} AS {target})"));
        }
        for right in constants.clone() {
            for op in ["=", "<>", "<", "<=", ">", ">=", "=~", "LIKE", "+", "-", "*", "/", "%", "div", "||"] {
                check(format!("({left}) {op} ({right})"));
            }
            check(format!("({left}) IN {right}"));
            check(format!("nanvl({left}, {right}) || ({right})"));
        }
    }
    check("5 / 0".to_owned());
    check("5 % '0'".to_owned());
    check("'a' =~ 'a/#/b'".to_owned());
    check("[1, 2][0]".to_owned());
    check("'abc'.x".to_owned());
    check("topic().x".to_owned());
    check("qos()[0]".to_owned());
    assert!(tried > 1_400 && undefined > 900, "{tried} tried, {undefined} undefined");
}

/// A part that was told about is not told again by what stands around it.
#[test]
fn one_fault_is_told_once() {
    for expression in [
        "abs(abs(abs('x')))",
        "1 + abs('x') * 2 - 3",
        "lower(NULL) || 'a' || 'b'",
        "cast(cast(NULL AS Int) AS String)",
        "(abs('x') > 5) AND true",
        "CASE WHEN abs(startswith('a', 'b')) > 1 THEN 2 END",
    ] {
        let sql = format!("SELECT VALUE {expression} FROM '#' WHERE t = 1");
        let rule = compile(&sql, Dialect::Aws, &Limits::default()).unwrap();
        assert_eq!(rule.warnings().len(), 1, "{expression}: {:?}", rule.warnings());
    }
}

/// What depends on the message is never told about.
#[test]
fn what_a_message_can_make_good_is_not_told() {
    for expression in [
        "abs(x)",
        "abs('5')",
        "abs(x + 1)",
        "lower([1, 2])",
        "abs('1' || x)",
        "NOT x",
        "NOT 'TRUE'",
        "x > '5'",
        "x BETWEEN '1' AND 5",
        "get(decode(x, 'base64'), 'k')",
        "json_decode(payload()).a[0].b",
        "(SELECT VALUE n FROM x)[0].k",
        "substring(x, indexof(x, '-') + 1)",
        "nanvl(NULL, 5) + 1",
        "coalesce(NULL, x)",
        "isNull(NULL)",
        "CASE x WHEN NULL THEN 1 ELSE NULL END",
        "regexp_matches(x, y)",
        "encode(*, 'base64')",
        "concat(x)",
        "split(x, ',', y)",
    ] {
        let sql = format!("SELECT VALUE {expression} FROM '#'");
        let rule = compile(&sql, Dialect::Aws, &Limits::default()).unwrap();
        let told: Vec<String> = rule.warnings().iter().map(|warning| warning.render(&sql)).collect();
        assert!(told.is_empty(), "{told:?}");
    }
}
