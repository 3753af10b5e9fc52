//! JSON as case files and outputs hold it: numbers keep their text, members their order and their repeats.
//!
//! A number that went through a double on its way would make two outputs equal that are not, and could not put a number
//! of forty digits into a payload. So the text of each value is taken apart level by level, and numbers stay text.

use std::cmp::Ordering;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Deepest nesting of arrays and objects in a case or an output: more than any output has.
pub(super) const NESTING_MAX: usize = 512;

/// A JSON value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Json {
    Null,
    Bool(bool),
    /// The number's text.
    Number(String),
    String(String),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl Json {
    /// Reads one document. The error says what is wrong, with line and column where the text is no JSON.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let raw: &RawValue = serde_json::from_str(text).map_err(|error| error.to_string())?;
        Self::read(raw, 0)
    }

    fn read(raw: &RawValue, depth: usize) -> Result<Self, String> {
        let text = raw.get();
        if depth > NESTING_MAX {
            return Err(format!("nested deeper than the limit of {NESTING_MAX}"));
        }
        let failed = |error: serde_json::Error| error.to_string();
        Ok(match text.as_bytes().first() {
            Some(b'{') => {
                let Members(members) = serde_json::from_str(text).map_err(failed)?;
                let read = |(key, value)| Ok((key, Self::read(value, depth + 1)?));
                Self::Object(members.into_iter().map(read).collect::<Result<_, String>>()?)
            }
            Some(b'[') => {
                let elements: Vec<&RawValue> = serde_json::from_str(text).map_err(failed)?;
                Self::Array(elements.into_iter().map(|e| Self::read(e, depth + 1)).collect::<Result<_, _>>()?)
            }
            Some(b'"') => Self::String(serde_json::from_str(text).map_err(failed)?),
            Some(b't') => Self::Bool(true),
            Some(b'f') => Self::Bool(false),
            Some(b'n') => Self::Null,
            _ => Self::Number(text.to_owned()),
        })
    }

    /// Compact JSON text.
    pub(super) fn text(&self) -> String {
        let mut out = String::new();
        self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) {
        match self {
            Self::Null => out.push_str("null"),
            Self::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
            Self::Number(text) => out.push_str(text),
            Self::String(text) => write_string(text, out),
            Self::Array(elements) => {
                out.push('[');
                for (place, element) in elements.iter().enumerate() {
                    if place > 0 {
                        out.push(',');
                    }
                    element.write(out);
                }
                out.push(']');
            }
            Self::Object(members) => {
                out.push('{');
                for (place, (key, value)) in members.iter().enumerate() {
                    if place > 0 {
                        out.push(',');
                    }
                    write_string(key, out);
                    out.push(':');
                    value.write(out);
                }
                out.push('}');
            }
        }
    }

    /// The member of that key; of several, the last.
    pub(super) fn member(&self, key: &str) -> Option<&Json> {
        match self {
            Self::Object(members) => {
                members.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value)
            }
            _ => None,
        }
    }

    /// The kind of value, in words.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Number(_) => "a number",
            Self::String(_) => "a string",
            Self::Array(_) => "an array",
            Self::Object(_) => "an object",
        }
    }
}

/// A JSON string, quoted and escaped.
fn write_string(text: &str, out: &mut String) {
    out.push_str(&serde_json::Value::from(text).to_string());
}

/// An object's members in order.
struct Members<'d>(Vec<(String, &'d RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

/// Whether two JSON numbers have the same value, exactly. Where an exponent is beyond all reckoning, the texts decide.
pub(super) fn same_number(a: &str, b: &str) -> bool {
    match (Decimal::of(a), Decimal::of(b)) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    }
}

/// Whether two numbers differ by no more than `tolerance`, in double precision.
pub(super) fn near_number(a: &str, b: &str, tolerance: f64) -> bool {
    match (a.parse::<f64>(), b.parse::<f64>()) {
        (Ok(a), Ok(b)) => (a - b).abs().partial_cmp(&tolerance).is_some_and(Ordering::is_le),
        _ => false,
    }
}

/// A number by sign, digits without zeros at either end, and the power of ten of its last digit. Zero has no digits.
#[derive(Debug, PartialEq, Eq)]
struct Decimal {
    negative: bool,
    digits: String,
    exponent: i64,
}

impl Decimal {
    fn of(text: &str) -> Option<Self> {
        let (negative, text) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits = format!("{whole}{fraction}");
        let kept = digits.trim_end_matches('0');
        let zeros = i64::try_from(digits.len() - kept.len()).ok()?;
        let digits = kept.trim_start_matches('0').to_owned();
        if digits.is_empty() {
            return Some(Self { negative: false, digits, exponent: 0 });
        }
        let exponent: i64 = exponent.parse().ok()?;
        let exponent = exponent.checked_sub(i64::try_from(fraction.len()).ok()?)?.checked_add(zeros)?;
        Some(Self { negative, digits, exponent })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_compared_exactly() {
        let equal = [
            ("2", "2.0"),
            ("100", "1e2"),
            ("1E+2", "1.00e2"),
            ("-0", "0.000"),
            ("0e99999999999999999999", "0"),
            ("0.10", "1e-1"),
            ("9007199254740993", "9007199254740993.0"),
            ("1e99999999999999999999", "1e99999999999999999999"),
        ];
        for (a, b) in equal {
            assert!(same_number(a, b), "{a} {b}");
        }
        let different = [
            ("9007199254740992", "9007199254740993"),
            ("0.1", "0.1000000000000000055511151231257827"),
            ("1", "-1"),
            ("1e2", "1e3"),
            ("10", "1"),
            ("1e99999999999999999999", "1e99999999999999999998"),
        ];
        for (a, b) in different {
            assert!(!same_number(a, b), "{a} {b}");
        }
    }

    #[test]
    fn a_tolerance_is_an_absolute_bound() {
        assert!(near_number("3.0000000001", "3", 1e-9));
        assert!(near_number("2", "3", 1.0));
        assert!(!near_number("2", "3.5", 1.0));
        assert!(!near_number("1e999", "1e999", 1.0), "not finite: no bound holds");
    }

    #[test]
    fn text_comes_out_as_it_went_in_but_compact() {
        let text = r#"{ "b" : [ 1.50, 1E+2, "a\"é\u0041" ] , "a" : null, "a": {} }"#;
        assert_eq!(Json::parse(text).unwrap().text(), r#"{"b":[1.50,1E+2,"a\"éA"],"a":null,"a":{}}"#);
    }

    #[test]
    fn what_is_no_json_is_refused_with_its_place() {
        assert!(Json::parse("{\"a\":\n 01}").unwrap_err().contains("line 2"));
        assert!(Json::parse("{} x").is_err());
        assert!(Json::parse("").is_err());
        assert!(Json::parse(r#""\ud800""#).is_err());
    }

    #[test]
    fn nesting_has_a_limit() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(Json::parse(&nested(NESTING_MAX + 1)).is_ok());
        assert!(Json::parse(&nested(NESTING_MAX + 2)).unwrap_err().contains("512"));
        assert!(Json::parse(&nested(2_000)).unwrap_err().contains("512"));
    }
}
