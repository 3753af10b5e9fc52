//! Numbers against `bigdecimal`: arithmetic to 34 digits, exact comparison with doubles, casts there and back.

use std::cmp::Ordering;

use bigdecimal::{BigDecimal, RoundingMode, Zero};
use proptest::prelude::*;

use super::model::{decimal, near_number, number, number_text};
use super::{config, truth, value};

/// The operators of the dialect on exact numbers, rounded once. A quotient has a hundred digits before that: no quotient
/// of two numbers of 34 digits comes so close to a half without being one.
fn compute(op: char, a: &BigDecimal, b: &BigDecimal) -> Option<BigDecimal> {
    match op {
        '+' => decimal(&(a + b)),
        '-' => decimal(&(a - b)),
        '*' => decimal(&(a * b)),
        _ if b.is_zero() => None,
        '/' => decimal(&(a / b)),
        _ => decimal(&(a % b)),
    }
}

fn exact(text: Option<String>) -> Option<BigDecimal> {
    text.map(|text| text.parse().unwrap())
}

fn orders(order: Ordering) -> [(&'static str, bool); 6] {
    [
        ("<", order.is_lt()),
        ("<=", order.is_le()),
        (">", order.is_gt()),
        (">=", order.is_ge()),
        ("=", order.is_eq()),
        ("<>", order.is_ne()),
    ]
}

/// A double and a number text near it.
fn double_and_number() -> impl Strategy<Value = (f64, String)> {
    let double = prop_oneof![
        any::<f64>().prop_filter("finite", |double| double.is_finite()),
        (0_u32..400).prop_map(f64::from).prop_map(|n| n / 16.0),
        (0_u32..400).prop_map(f64::from).prop_map(f64::sqrt),
        (0_u32..400).prop_map(f64::from).prop_map(|n| n / 10.0),
        (1_u32..99).prop_map(|n| 9_007_199_254_740_992.0 * f64::from(n)),
    ];
    double.prop_flat_map(|double| {
        let exact = BigDecimal::try_from(double).unwrap();
        let near = decimal(&exact).map_or_else(|| "0".to_owned(), |near| near.to_scientific_notation());
        let scientific = format!("{double:e}");
        (
            Just(double),
            prop_oneof![
                number_text(),
                near_number(),
                Just(scientific),
                // All digits a Decimal has: often the double itself, else a little beside it.
                Just(near.replace("e+", "e").replace("E+", "E")),
            ],
        )
    })
}

proptest! {
    #![proptest_config(config(600))]

    #[test]
    fn arithmetic_is_exact_to_34_digits(a in number_text(), b in number_text()) {
        let payload = format!("{{\"a\":{a},\"b\":{b}}}");
        let (x, y) = (number(&a), number(&b));
        for op in ['+', '-', '*', '/', '%'] {
            let expected = x.as_ref().zip(y.as_ref()).and_then(|(x, y)| compute(op, x, y));
            let actual = exact(value(&format!("a {op} b"), payload.as_bytes()));
            prop_assert_eq!(actual, expected, "{} {} {}", a, op, b);
        }
        if let (Some(x), Some(y)) = (&x, &y) {
            for (op, expected) in orders(x.cmp(y)) {
                prop_assert_eq!(truth(&format!("a {op} b"), payload.as_bytes()), Some(expected), "{} {} {}", a, op, b);
            }
        }
    }

    #[test]
    fn ints_do_not_wrap(a in any::<i64>(), b in any::<i64>(), small in -9_i64..10) {
        for (a, b) in [(a, b), (a, small), (small, a), (i64::MIN, small), (i64::MAX, small)] {
            let payload = format!("{{\"a\":{a},\"b\":{b}}}");
            for op in ['+', '-', '*', '/', '%'] {
                let expected = compute(op, &BigDecimal::from(a), &BigDecimal::from(b));
                let actual = exact(value(&format!("a {op} b"), payload.as_bytes()));
                prop_assert_eq!(actual, expected, "{} {} {}", a, op, b);
            }
        }
    }

    #[test]
    fn a_computed_number_reads_back_as_itself(a in number_text()) {
        let payload = format!("{{\"a\":{a}}}");
        if let Some(text) = value("a + 0", payload.as_bytes()) {
            let again = format!("{{\"a\":{a},\"t\":{text},\"s\":\"{text}\"}}");
            prop_assert_eq!(value("t + 0", again.as_bytes()), Some(text.clone()));
            prop_assert_eq!(value("s - 0", again.as_bytes()), Some(text));
        }
    }

    #[test]
    fn doubles_compare_with_numbers_exactly((double, b) in double_and_number()) {
        // The first power of a double is itself, and the double nearest to its shortest text is too.
        let payload = format!("{{\"d\":{double:e},\"b\":{b}}}");
        let shown = number(&format!("{double:e}"));
        let (Some(_), Some(y)) = (shown, number(&b)) else { return Ok(()) };
        let x = BigDecimal::try_from(double).unwrap();
        for (op, expected) in orders(x.cmp(&y)) {
            let actual = truth(&format!("power(d, 1) {op} b"), payload.as_bytes());
            prop_assert_eq!(actual, Some(expected), "{:e} {} {}", double, op, b);
        }
        for (op, expected) in orders(y.cmp(&x)) {
            let actual = truth(&format!("b {op} power(d, 1)"), payload.as_bytes());
            prop_assert_eq!(actual, Some(expected), "{} {} {:e}", b, op, double);
        }
    }

    #[test]
    fn roots_compare_exactly(n in 0_u32..100_000, b in near_number()) {
        let root = BigDecimal::try_from(f64::from(n).sqrt()).unwrap();
        let near = decimal(&root).unwrap().to_plain_string();
        for b in [b, near] {
            let Some(y) = number(&b) else { continue };
            let payload = format!("{{\"n\":{n},\"b\":{b}}}");
            for (op, expected) in orders(root.cmp(&y)) {
                prop_assert_eq!(truth(&format!("sqrt(n) {op} b"), payload.as_bytes()), Some(expected), "sqrt({}) {} {}", n, op, b);
            }
        }
    }

    #[test]
    fn rounding_is_that_of_the_tables(a in prop_oneof![near_number(), number_text()], places in -2_i64..40) {
        let payload = format!("{{\"a\":{a},\"s\":\"{}\",\"n\":{places}}}", a.replace('+', ""));
        let x = number(&a);
        let round = |places: i64, mode: RoundingMode| x.as_ref().and_then(|x| decimal(&x.with_scale_round(places, mode)));
        for (expr, expected) in [
            ("floor(a)", round(0, RoundingMode::Floor)),
            ("floor(s)", round(0, RoundingMode::Floor)),
            ("cast(a AS Int)", round(0, RoundingMode::Floor)),
            ("cast(s AS Int)", round(0, RoundingMode::Floor)),
            ("ceil(a)", round(0, RoundingMode::Ceiling)),
            ("round(a)", round(0, RoundingMode::HalfUp)),
            ("trunc(a, n)", round(places.clamp(0, 34), RoundingMode::Down)),
            ("abs(a)", x.as_ref().map(BigDecimal::abs)),
            ("-a", x.as_ref().map(|x| -x)),
            ("cast(a AS Decimal)", x.clone()),
            ("cast(s AS Decimal)", x.clone()),
        ] {
            prop_assert_eq!(exact(value(expr, payload.as_bytes())), expected, "{} of {}, {}", expr, a, places);
        }
    }

    #[test]
    fn casts_lead_there_and_back(a in number_text(), n in any::<i64>(), b in any::<bool>()) {
        let payload = format!("{{\"a\":{a},\"n\":{n},\"b\":{b}}}");
        let payload = payload.as_bytes();
        prop_assert_eq!(value("cast(n AS String)", payload), Some(format!("\"{n}\"")));
        prop_assert_eq!(value("cast(cast(n AS String) AS Int)", payload), Some(n.to_string()));
        prop_assert_eq!(value("cast(a AS String)", payload), Some(format!("\"{a}\"")));
        if number(&a).is_some() {
            prop_assert_eq!(truth("cast(cast(a AS String) AS Decimal) = a", payload), Some(true));
            prop_assert_eq!(truth("cast(cast(a + 0 AS String) AS Decimal) = a", payload), Some(true));
            prop_assert_eq!(truth("cast(a AS Boolean) = (a <> 0)", payload), Some(true));
        }
        prop_assert_eq!(value("cast(cast(b AS String) AS Boolean)", payload), Some(b.to_string()));
        prop_assert_eq!(value("cast(upper(b) AS Boolean)", payload), Some(b.to_string()));
        prop_assert_eq!(value("cast(cast(b AS Int) AS Boolean)", payload), Some(b.to_string()));
    }
}
