//! Equality, order, and Null, Undefined and missing kept apart.

use std::cmp::Ordering;

use proptest::prelude::*;

use super::model::{Choices, Json, choices, equal, json, number, scalar, to_number};
use super::{config, truth, value};

/// Three values that are likely equal, and a payload that spells each in its own way.
fn alike() -> impl Strategy<Value = ([Json; 3], String)> {
    (json(), choices(), choices(), choices()).prop_map(|(first, mut vary, mut again, mut spell)| {
        let second = if vary.below(2) == 0 { first.clone() } else { first.vary(&mut vary) };
        let third = if again.below(2) == 0 { second.clone() } else { second.vary(&mut again) };
        let values = [first, second, third];
        let payload = spelled(&values, &mut spell);
        (values, payload)
    })
}

fn spelled(values: &[Json], choices: &mut Choices) -> String {
    let mut payload = "{".to_owned();
    for (name, value) in ["\"a\":", ",\"b\":", ",\"c\":"].iter().zip(values) {
        payload.push_str(name);
        value.spell(choices, &mut payload);
    }
    payload + "}"
}

fn is_number_in_range(value: &Json) -> bool {
    match value {
        Json::Number(text) => number(text).is_some(),
        Json::Array(items) => items.iter().all(is_number_in_range),
        Json::Object(members) => members.iter().all(|(_, value)| is_number_in_range(value)),
        _ => true,
    }
}

proptest! {
    #![proptest_config(config(600))]

    #[test]
    fn equality_is_an_equivalence(([a, b, c], payload) in alike()) {
        let payload = payload.as_bytes();
        let equal_to = |left: &str, right: &str| truth(&format!("{left} = {right}"), payload);
        prop_assert_eq!(truth("a = a AND b = b AND c = c", payload), Some(true));
        for (left, right) in [("a", "b"), ("b", "c"), ("a", "c")] {
            prop_assert_eq!(equal_to(left, right), equal_to(right, left));
            let differs = truth(&format!("{left} <> {right}"), payload);
            prop_assert_eq!(differs, equal_to(left, right).map(|equal| !equal));
        }
        match (equal_to("a", "b"), equal_to("b", "c")) {
            (Some(true), second) => prop_assert_eq!(equal_to("a", "c"), second),
            (first, Some(true)) => prop_assert_eq!(equal_to("a", "c"), first),
            _ => {}
        }
        // What is built is equal to what came in, and a member of a list of itself.
        prop_assert_eq!(truth("[a, {'k': b}] = [a, {'k': b}]", payload), Some(true));
        prop_assert_eq!(truth("[a] = [b]", payload), equal_to("a", "b"));
        prop_assert_eq!(truth("{'k': a} = {'k': b}", payload), equal_to("a", "b"));
        prop_assert_eq!(truth("json_decode(json_encode(a)) = a", payload), Some(true));
        prop_assert_eq!(truth("a IN [c, b]", payload), Some(equal_to("a", "b") == Some(true) || equal_to("a", "c") == Some(true)));
        prop_assert_eq!(truth("CASE a WHEN b THEN true ELSE false END", payload), Some(equal_to("a", "b") == Some(true)));
        for (left, right, (x, y)) in [("a", "b", (&a, &b)), ("b", "c", (&b, &c)), ("a", "c", (&a, &c))] {
            if is_number_in_range(x) && is_number_in_range(y) {
                prop_assert_eq!(equal_to(left, right), Some(equal(x, y)), "{:?} = {:?}", x, y);
            }
        }
    }

    #[test]
    fn order_is_that_of_numbers_and_number_text(values in prop::array::uniform3(scalar()), mut spell in choices()) {
        let payload = spelled(&values, &mut spell);
        let payload = payload.as_bytes();
        for (left, x) in ["a", "b", "c"].iter().zip(&values) {
            for (right, y) in ["a", "b", "c"].iter().zip(&values) {
                let order = to_number(x).zip(to_number(y)).map(|(x, y)| x.cmp(&y));
                for (op, holds) in [
                    ("<", Ordering::is_lt as fn(Ordering) -> bool),
                    ("<=", Ordering::is_le),
                    (">", Ordering::is_gt),
                    (">=", Ordering::is_ge),
                ] {
                    let expr = format!("{left} {op} {right}");
                    prop_assert_eq!(truth(&expr, payload), order.map(holds), "{:?} {} {:?}", x, op, y);
                }
                // `=` converts nothing, so it agrees with the order where both are numbers.
                if order.is_some() && matches!((x, y), (Json::Number(_), Json::Number(_))) {
                    let equal = truth(&format!("{left} = {right}"), payload);
                    prop_assert_eq!(equal, order.map(Ordering::is_eq), "{:?} = {:?}", x, y);
                }
                prop_assert_eq!(truth(&format!("{left} < missing"), payload), None);
            }
        }
    }

    #[test]
    fn order_is_transitive_antisymmetric_and_total(values in prop::array::uniform3(scalar())) {
        let payload = spelled(&values, &mut Choices(Vec::new()));
        let holds = |expr: &str| truth(expr, payload.as_bytes());
        let numbers = values.iter().filter(|value| to_number(value).is_some()).count();
        if holds("a <= b") == Some(true) && holds("b <= c") == Some(true) {
            prop_assert_eq!(holds("a <= c"), Some(true));
            if holds("a < b") == Some(true) || holds("b < c") == Some(true) {
                prop_assert_eq!(holds("a < c"), Some(true));
            }
        }
        if holds("a <= b") == Some(true) && holds("b <= a") == Some(true) {
            prop_assert_eq!(holds("a - b = 0"), Some(true));
        }
        if numbers == 3 {
            prop_assert_eq!(holds("a < b OR a >= b"), Some(true));
            prop_assert_eq!(holds("a BETWEEN b AND c"), holds("a >= b AND a <= c"));
            prop_assert_eq!(holds("a NOT BETWEEN b AND c"), holds("a < b OR a > c"));
        }
    }

    #[test]
    fn null_undefined_and_missing_are_kept_apart(a in json()) {
        let payload = Json::Object(vec![("a".to_owned(), a.clone()), ("o".to_owned(), Json::Object(vec![("a".to_owned(), a.clone())]))]).text();
        let payload = payload.as_bytes();
        let is_null = a == Json::Null;
        for path in ["a", "o.a", "{'k': a}.k", "[a][0]", "get(o, 'a')", "o['a']", "(SELECT VALUE a FROM o)"] {
            for (test, expected) in [
                ("isNull", is_null),
                ("isUndefined", false),
                ("is_null", false),
                ("is_not_null", true),
                ("is_null_var", is_null),
                ("is_not_null_var", !is_null),
            ] {
                prop_assert_eq!(truth(&format!("{test}({path})"), payload), Some(expected), "{}({})", test, path);
            }
            prop_assert_eq!(value(&format!("isUndefined(nanvl({path}, missing))"), payload), Some(is_null.to_string()));
            prop_assert_eq!(value(&format!("isUndefined(get_or_default({path}))"), payload), Some(is_null.to_string()));
        }
        for path in ["missing", "a.missing.b", "o.missing", "o.a.missing.b", "get(o, 'b')", "[a][1]", "o[0]", "cast(NULL AS Int)"] {
            for (test, expected) in [
                ("isNull", false),
                ("isUndefined", true),
                ("is_null", true),
                ("is_not_null", false),
                ("is_null_var", true),
                ("is_not_null_var", false),
                ("is_str", false),
                ("is_num", false),
                ("is_map", false),
                ("is_array", false),
                ("is_bool", false),
            ] {
                // A step may find something in what was drawn.
                if test == "isNull" && value(path, payload).is_some() {
                    break;
                }
                prop_assert_eq!(truth(&format!("{test}({path})"), payload), Some(expected), "{}({})", test, path);
            }
            prop_assert_eq!(value("coalesce(missing, NULL, 3)", payload), Some("3".to_owned()));
        }
        // Undefined leaves no trace in what is built, Null does.
        prop_assert_eq!(value("{'m': missing, 'n': NULL}", payload), Some("{\"n\":null}".to_owned()));
        prop_assert_eq!(value("[missing, NULL, a] = [NULL, a]", payload), Some("true".to_owned()));
        let kinds = ["is_str(a)", "is_num(a)", "is_map(a)", "is_array(a)", "is_bool(a)", "isNull(a)"];
        let kinds = kinds.map(|kind| truth(kind, payload).unwrap());
        let expected = match a {
            Json::String(_) => 0,
            Json::Number(_) => 1,
            Json::Object(_) => 2,
            Json::Array(_) => 3,
            Json::Bool(_) => 4,
            Json::Null => 5,
        };
        for (place, kind) in kinds.into_iter().enumerate() {
            prop_assert_eq!(kind, place == expected);
        }
    }
}
