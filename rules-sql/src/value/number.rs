//! The three kinds of numbers and what arithmetic does with them.
//!
//! Int is an i64; what leaves it, and every fraction, is a [`Decimal`]; a Double comes only from transcendental
//! functions and makes what it touches a Double. A whole Decimal that fits is an Int, so `10.0` counts as `10`.

use std::cmp::Ordering;

use super::decimal::{Decimal, Rounding};

/// Bytes of number text, without its sign, that are read the short way.
const SHORT_DIGITS: usize = 18;

/// A number that was computed, or is about to be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Num {
    Int(i64),
    /// Not whole, or beyond an i64.
    Decimal(Decimal),
    /// Finite.
    Double(f64),
}

impl Num {
    /// Reads JSON number text. `None`: out of the range of a Decimal.
    pub(crate) fn parse(text: &str) -> Option<Num> {
        match Num::parse_short(text) {
            Some(num) => Some(num),
            None => Decimal::parse(text).map(Num::from_decimal),
        }
    }

    /// Reads what sensors send: a few digits, perhaps with a point among them. `None`: to be read with more care.
    fn parse_short(text: &str) -> Option<Num> {
        let (negative, digits) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        if digits.len() > SHORT_DIGITS {
            return None;
        }
        let mut value = 0_u64;
        let mut places = None;
        for byte in digits.bytes() {
            let digit = byte.wrapping_sub(b'0');
            if digit <= 9 {
                // At most 18 digits: no overflow.
                value = value * 10 + u64::from(digit);
                places = places.map(|places| places + 1);
            } else if byte == b'.' && places.is_none() && !digits.starts_with('.') {
                places = Some(0_i16);
            } else {
                return None;
            }
        }
        let mut places = match places {
            None if !digits.is_empty() => 0,
            Some(places) if places > 0 => places,
            _ => return None,
        };
        while places > 0 && value.is_multiple_of(10) {
            value /= 10;
            places -= 1;
        }
        if places > 0 {
            return Some(Num::Decimal(Decimal::with_places(negative, value, places)));
        }
        let value = i64::try_from(value).ok()?;
        Some(Num::Int(if negative { -value } else { value }))
    }

    /// Reads a String that is number text as the dialect has it: no spaces, no leading `+`, no `.5`, no `5.`, no `E+5`.
    pub(crate) fn parse_text(text: &str) -> Option<Num> {
        if text.bytes().any(|b| b == b'+') { None } else { Num::parse(text) }
    }

    pub(crate) fn from_decimal(value: Decimal) -> Num {
        match value.to_i64() {
            Some(whole) => Num::Int(whole),
            None => Num::Decimal(value),
        }
    }

    /// `None` for what is not finite.
    pub(crate) fn from_f64(value: f64) -> Option<Num> {
        value.is_finite().then_some(Num::Double(value))
    }

    /// As a Decimal: exact for Int, by its shortest text for Double. `None`: a Double out of range.
    pub(crate) fn decimal(self) -> Option<Decimal> {
        match self {
            Num::Int(value) => Some(Decimal::from_i64(value)),
            Num::Decimal(value) => Some(value),
            Num::Double(value) => Decimal::from_f64(value),
        }
    }

    /// The nearest double.
    #[expect(clippy::cast_precision_loss, reason = "the nearest double is what is asked for")]
    pub(crate) fn to_f64(self) -> f64 {
        match self {
            Num::Int(value) => value as f64,
            Num::Decimal(value) => value.to_f64(),
            Num::Double(value) => value,
        }
    }

    pub(crate) fn is_zero(self) -> bool {
        match self {
            Num::Int(value) => value == 0,
            Num::Decimal(value) => value.is_zero(),
            Num::Double(value) => value == 0.0,
        }
    }

    pub(crate) fn is_negative(self) -> bool {
        match self {
            Num::Int(value) => value < 0,
            Num::Decimal(value) => value.is_negative(),
            Num::Double(value) => value < 0.0,
        }
    }

    /// Whether the number is whole.
    pub(crate) fn is_whole(self) -> bool {
        match self {
            Num::Int(_) => true,
            Num::Decimal(value) => value.round_to(0, Rounding::Truncate) == Some(value),
            Num::Double(value) => value.fract() == 0.0,
        }
    }

    /// Exact, whatever the two kinds are.
    pub(crate) fn compare(self, other: Num) -> Ordering {
        match (self, other) {
            (Num::Int(a), Num::Int(b)) => a.cmp(&b),
            (Num::Double(a), Num::Double(b)) => a.partial_cmp(&b).unwrap_or(Ordering::Equal),
            (Num::Double(a), b) => compare_exact(b, a).reverse(),
            (a, Num::Double(b)) => compare_exact(a, b),
            (Num::Int(a), Num::Decimal(b)) => b.cmp_i64(a).reverse(),
            (Num::Decimal(a), Num::Int(b)) => a.cmp_i64(b),
            (Num::Decimal(a), Num::Decimal(b)) => a.cmp(&b),
        }
    }

    pub(crate) fn add(self, other: Num) -> Option<Num> {
        self.combine(other, i64::checked_add, Decimal::add, |a, b| a + b)
    }

    pub(crate) fn subtract(self, other: Num) -> Option<Num> {
        self.combine(other, i64::checked_sub, Decimal::subtract, |a, b| a - b)
    }

    pub(crate) fn multiply(self, other: Num) -> Option<Num> {
        self.combine(other, i64::checked_mul, Decimal::multiply, |a, b| a * b)
    }

    /// Two Ints give an Int when the division leaves no remainder, otherwise a Decimal. By zero: `None`.
    pub(crate) fn divide(self, other: Num) -> Option<Num> {
        if other.is_zero() {
            return None;
        }
        let whole = |a: i64, b: i64| if a.checked_rem(b)? == 0 { a.checked_div(b) } else { None };
        self.combine(other, whole, Decimal::divide, |a, b| a / b)
    }

    /// The whole part of the quotient, towards zero; operands are floored to whole numbers first. By zero: `None`.
    pub(crate) fn divide_whole(self, other: Num) -> Option<Num> {
        let (a, b) = (self.round(0, Rounding::Floor)?, other.round(0, Rounding::Floor)?);
        if let (Num::Int(a), Num::Int(b)) = (a, b)
            && let Some(quotient) = a.checked_div(b)
        {
            return Some(Num::Int(quotient));
        }
        // Without what is left over the quotient is whole, so that rounding to 34 digits can't lift it to the next.
        a.subtract(a.remainder(b)?)?.divide(b)?.round(0, Rounding::Truncate)
    }

    /// The remainder with the sign of `self`. By zero: `None`.
    pub(crate) fn remainder(self, other: Num) -> Option<Num> {
        if other.is_zero() {
            return None;
        }
        self.combine(other, |a, b| Some(a.checked_rem(b).unwrap_or(0)), Decimal::remainder, |a, b| a % b)
    }

    pub(crate) fn negate(self) -> Option<Num> {
        Num::Int(0).subtract(self)
    }

    pub(crate) fn absolute(self) -> Option<Num> {
        if self.is_negative() { self.negate() } else { Some(self) }
    }

    /// Keeps `places` digits after the point. `None`: a Double out of the range of a Decimal.
    pub(crate) fn round(self, places: i32, rounding: Rounding) -> Option<Num> {
        if let Num::Int(_) = self {
            return Some(self);
        }
        self.decimal()?.round_to(places, rounding).map(Num::from_decimal)
    }

    /// Floored to a whole number. `None`: it does not fit an i64.
    pub(crate) fn floor_to_i64(self) -> Option<i64> {
        match self.round(0, Rounding::Floor)? {
            Num::Int(value) => Some(value),
            _ => None,
        }
    }

    /// Floored to a whole number that fits an i64; clamped to its bounds beyond.
    pub(crate) fn floor_i64(self) -> i64 {
        match self.round(0, Rounding::Floor) {
            Some(Num::Int(value)) => value,
            _ if self.is_negative() => i64::MIN,
            _ => i64::MAX,
        }
    }

    /// The text of a computed number: a whole one has no point.
    pub(crate) fn text(self) -> String {
        match self {
            Num::Int(value) => value.to_string(),
            Num::Decimal(value) => value.text(),
            Num::Double(value) => {
                Decimal::from_f64(value).map_or_else(|| "0".to_owned(), |d| Num::from_decimal(d).text_exact())
            }
        }
    }

    fn text_exact(self) -> String {
        match self {
            Num::Decimal(value) => value.text(),
            Num::Int(_) | Num::Double(_) => self.floor_i64().to_string(),
        }
    }

    fn combine(
        self,
        other: Num,
        ints: impl Fn(i64, i64) -> Option<i64>,
        decimals: impl Fn(Decimal, Decimal) -> Option<Decimal>,
        doubles: impl Fn(f64, f64) -> f64,
    ) -> Option<Num> {
        if let (Num::Int(a), Num::Int(b)) = (self, other)
            && let Some(result) = ints(a, b)
        {
            return Some(Num::Int(result));
        }
        if matches!(self, Num::Double(_)) || matches!(other, Num::Double(_)) {
            return Num::from_f64(doubles(self.to_f64(), other.to_f64()));
        }
        decimals(self.decimal()?, other.decimal()?).map(Num::from_decimal)
    }
}

/// Int or Decimal against a finite double.
fn compare_exact(a: Num, b: f64) -> Ordering {
    let a = match a {
        Num::Int(value) => Decimal::from_i64(value),
        Num::Decimal(value) => value,
        Num::Double(value) => return value.partial_cmp(&b).unwrap_or(Ordering::Equal),
    };
    a.compare_f64(b).unwrap_or(Ordering::Equal)
}
