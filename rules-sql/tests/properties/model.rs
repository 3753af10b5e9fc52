//! JSON values as the properties draw them, what a number is, and several spellings of one value.

use std::num::NonZeroU64;

use bigdecimal::{BigDecimal, RoundingMode, Zero};
use proptest::prelude::*;

/// Significant digits of a Decimal.
const DIGITS: NonZeroU64 = NonZeroU64::new(34).unwrap();

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Json {
    Null,
    Bool(bool),
    /// By its text.
    Number(String),
    String(String),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
}

/// A number as the dialect has it: 34 digits, half to even, exponent within 999. `None`: out of range.
pub(crate) fn decimal(exact: &BigDecimal) -> Option<BigDecimal> {
    let rounded = exact.with_precision_round(DIGITS, RoundingMode::HalfEven).normalized();
    if rounded.is_zero() {
        return Some(rounded);
    }
    let (digits, scale) = rounded.as_bigint_and_scale();
    let exponent = i64::try_from(digits.magnitude().to_string().len()).unwrap() - 1 - scale;
    (-999..=999).contains(&exponent).then_some(rounded)
}

/// Number text of JSON, which is in range or not.
pub(crate) fn number(text: &str) -> Option<BigDecimal> {
    decimal(&text.parse().unwrap())
}

/// What `<` and arithmetic make of a value: numbers, and Strings that are number text as the dialect defines it.
pub(crate) fn to_number(value: &Json) -> Option<BigDecimal> {
    match value {
        Json::Number(text) => number(text),
        Json::String(text) if is_number_text(text) => number(text),
        _ => None,
    }
}

/// `^-?\d+(\.\d+)?((?i)E-?\d+)?$`, by hand.
fn is_number_text(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let signed = |text: &str| digits(text.strip_prefix('-').unwrap_or(text));
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (text, None),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    signed(whole) && fraction.is_none_or(digits) && exponent.is_none_or(signed)
}

/// `=` of the dialect, for numbers that are in range.
pub(crate) fn equal(a: &Json, b: &Json) -> bool {
    match (a, b) {
        (Json::Number(a), Json::Number(b)) => number(a).unwrap() == number(b).unwrap(),
        (Json::Array(a), Json::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b)),
        (Json::Object(a), Json::Object(b)) => {
            a.len() == b.len()
                && a.iter().all(|(key, a)| b.iter().any(|(other, b)| key == other && equal(a, b)))
        }
        _ => a == b,
    }
}

/// Choices drawn once and taken one after the other.
#[derive(Clone, Debug)]
pub(crate) struct Choices(pub(crate) Vec<u8>);

impl Choices {
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::from(self.0.pop().unwrap_or(1)) % bound
    }
}

pub(crate) fn choices() -> impl Strategy<Value = Choices> {
    prop::collection::vec(any::<u8>(), 0..48).prop_map(Choices)
}

impl Json {
    /// JSON text; the choices spell Strings, numbers and the order of keys in other ways, the value is the same.
    pub(crate) fn spell(&self, choices: &mut Choices, out: &mut String) {
        match self {
            Json::Null => out.push_str("null"),
            Json::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
            Json::Number(text) => spell_number(text, choices, out),
            Json::String(text) => spell_string(text, choices, out),
            Json::Array(items) => {
                out.push('[');
                for (place, item) in items.iter().enumerate() {
                    out.push_str(if place > 0 { "," } else { "" });
                    space(choices, out);
                    item.spell(choices, out);
                }
                out.push(']');
            }
            Json::Object(members) => {
                out.push('{');
                let mut members: Vec<_> = members.iter().collect();
                if !members.is_empty() {
                    let by = choices.below(members.len());
                    members.rotate_left(by);
                }
                for (place, (key, value)) in members.into_iter().enumerate() {
                    out.push_str(if place > 0 { "," } else { "" });
                    space(choices, out);
                    spell_string(key, choices, out);
                    space(choices, out);
                    out.push(':');
                    value.spell(choices, out);
                }
                space(choices, out);
                out.push('}');
            }
        }
    }

    /// Compact and plain.
    pub(crate) fn text(&self) -> String {
        let mut out = String::new();
        self.spell(&mut Choices(Vec::new()), &mut out);
        out
    }

    /// The same value with, by the choices, perhaps one small thing changed.
    pub(crate) fn vary(&self, choices: &mut Choices) -> Json {
        match self {
            Json::Array(items) if !items.is_empty() && choices.below(4) > 0 => {
                let mut items = items.clone();
                let place = choices.below(items.len());
                items[place] = items[place].vary(choices);
                Json::Array(items)
            }
            Json::Object(members) if !members.is_empty() && choices.below(4) > 0 => {
                let mut members = members.clone();
                let place = choices.below(members.len());
                members[place].1 = members[place].1.vary(choices);
                Json::Object(members)
            }
            other => match choices.below(8) {
                0 => Json::Null,
                1 => Json::Number("1".to_owned()),
                2 => Json::String("1".to_owned()),
                3 => Json::Array(vec![other.clone()]),
                4 => Json::Object(Vec::new()),
                _ => other.clone(),
            },
        }
    }
}

fn space(choices: &mut Choices, out: &mut String) {
    out.push_str(["", "", " ", "\n\t"][choices.below(4)]);
}

fn spell_number(text: &str, choices: &mut Choices, out: &mut String) {
    let has_exponent = text.contains(['e', 'E']);
    let has_point = text.contains('.');
    let is_zero = matches!(text, "0" | "-0");
    match choices.below(6) {
        0 if !has_exponent && !has_point => out.push_str(&format!("{text}.0")),
        2 if !has_exponent && has_point => out.push_str(&format!("{text}00")),
        3 if !has_exponent => out.push_str(&format!("{text}E+0")),
        4 if !has_exponent && !has_point && !is_zero => out.push_str(&format!("{text}0e-1")),
        _ => out.push_str(text),
    }
}

fn spell_string(text: &str, choices: &mut Choices, out: &mut String) {
    out.push('"');
    for char in text.chars() {
        match char {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            char if char < ' ' || choices.below(5) == 0 => {
                for unit in char.encode_utf16(&mut [0; 2]) {
                    out.push_str(&format!("\\u{unit:04x}"));
                }
            }
            char => out.push(char),
        }
    }
    out.push('"');
}

/// Number text with up to 42 digits and exponents to ±1,000.
pub(crate) fn number_text() -> impl Strategy<Value = String> {
    let exponent = prop_oneof![
        4 => Just(String::new()),
        2 => (-40_i32..40).prop_map(|e| format!("E{e}")),
        1 => (-1000_i32..1000).prop_map(|e| format!("e{e}")),
    ];
    let whole = prop_oneof![
        Just("0".to_owned()),
        "[1-9][0-9]{0,5}",
        "[1-9][0-9]{10,22}",
        "[1-9][0-9]{30,42}",
        "9{1,36}"
    ];
    let fraction =
        prop_oneof![Just(String::new()), "\\.[0-9]{1,6}", "\\.[0-9]{20,40}", "\\.0{1,5}", "\\.50{0,3}"];
    ("-?", whole, fraction, exponent)
        .prop_map(|(sign, whole, fraction, exponent)| sign + &whole + &fraction + &exponent)
}

/// Numbers that are often neighbours or equal.
pub(crate) fn near_number() -> impl Strategy<Value = String> {
    prop_oneof![
        (-3_i32..4).prop_map(|n| n.to_string()),
        (-30_i32..40).prop_map(|n| format!(
            "{}{}.{}",
            if n < 0 { "-" } else { "" },
            n.abs() / 10,
            n.abs() % 10
        )),
        (-3_i32..4, -2_i32..3).prop_map(|(n, e)| format!("{n}e{e}")),
        prop::sample::select(vec![
            "9223372036854775807",
            "9223372036854775808",
            "-9223372036854775808",
            "9223372036854775807.5",
            "9007199254740993",
            "0.1",
            "0.1000000000000000055511151231257827",
            "1e999",
            "1e-999",
            "1e1000",
            "-1e1000",
            "1e-1000",
        ])
        .prop_map(str::to_owned),
    ]
}

pub(crate) fn scalar() -> impl Strategy<Value = Json> {
    prop_oneof![
        1 => Just(Json::Null),
        2 => any::<bool>().prop_map(Json::Bool),
        4 => near_number().prop_map(Json::Number),
        3 => near_number().prop_map(Json::String),
        2 => prop::sample::select(vec![
            "", " 1", "1 ", "+1", ".5", "5.", "1e+5", "1E5", "0x1", "1e", "e1", "-", "--1", "1.2.3", "007", "-0",
            "1_0", "٣", "NaN", "true", "False", "a", "b",
        ]).prop_map(|text| Json::String(text.to_owned())),
    ]
}

pub(crate) fn json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        4 => scalar(),
        1 => "[ab\"\\\\\u{0}-\u{1f}é😀]{0,4}".prop_map(Json::String),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Json::Array),
            prop::collection::btree_map("[a-c\"é]{0,2}", inner, 0..4)
                .prop_map(|members| Json::Object(members.into_iter().collect())),
        ]
    })
}
