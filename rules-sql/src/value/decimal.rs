//! Decimal arithmetic: 34 significant digits, adjusted exponent within ±999, results rounded half to even once.
//!
//! Why of our own: no well-kept crate meets the range, the precision and the reading of longer text at once
//! (`docs/decisions/0006-decimals.md`). A value is `coefficient × 10^exponent`; the coefficient is below 10^34, so two
//! of them multiply into 256 bits. Invariants: trailing zeros are stripped, zero is `0 × 10^0` and never negative, so
//! two equal numbers have equal fields. What leaves the range is `None`, never a silent zero.

use std::cmp::Ordering;

/// Significant digits of every result.
pub(crate) const DIGITS: u32 = 34;
/// The adjusted exponent (that of the first digit) lies within plus and minus this.
const EXPONENT_MAX: i32 = 999;

/// Largest difference of exponents that is compared in 128 bits without a second thought.
const SMALL_SHIFT: i32 = 18;

/// A finite decimal number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Decimal {
    high: u64,
    low: u64,
    exponent: i16,
    negative: bool,
}

/// How digits are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rounding {
    /// Towards minus infinity.
    Floor,
    /// Towards plus infinity.
    Ceiling,
    /// Towards zero.
    Truncate,
    /// To the nearest, a half away from zero.
    HalfAway,
}

impl Decimal {
    pub(crate) const ZERO: Decimal = Decimal { high: 0, low: 0, exponent: 0, negative: false };

    fn coefficient(self) -> u128 {
        (u128::from(self.high) << 64) | u128::from(self.low)
    }

    fn exponent(self) -> i32 {
        i32::from(self.exponent)
    }

    pub(crate) fn is_zero(self) -> bool {
        self.high == 0 && self.low == 0
    }

    pub(crate) fn is_negative(self) -> bool {
        self.negative
    }

    /// Exponent of the first digit.
    fn adjusted(self) -> i32 {
        self.exponent() + digits(self.coefficient()) - 1
    }

    /// Builds from parts of any size: rounds to 34 digits half to even, strips zeros, checks the range.
    fn from_parts(negative: bool, coefficient: u128, exponent: i32) -> Option<Decimal> {
        Self::rounded(negative, coefficient, exponent, false)
    }

    /// As [`Self::from_parts`]; `sticky`: digits that are not all zero follow below the coefficient.
    fn rounded(negative: bool, mut coefficient: u128, mut exponent: i32, sticky: bool) -> Option<Decimal> {
        let excess = digits(coefficient) - 34;
        if excess > 0 {
            let unit = pow10(excess);
            let rest = coefficient % unit;
            coefficient /= unit;
            exponent += excess;
            let half = unit / 2;
            if rest > half || (rest == half && (sticky || coefficient % 2 == 1)) {
                coefficient += 1;
            }
        }
        Self::exact(negative, coefficient, exponent)
    }

    /// Strips zeros and checks the range; the coefficient is at most 10^34.
    fn exact(negative: bool, mut coefficient: u128, mut exponent: i32) -> Option<Decimal> {
        if coefficient == 0 {
            return Some(Self::ZERO);
        }
        if let Ok(mut small) = u64::try_from(coefficient) {
            while small.is_multiple_of(10) {
                small /= 10;
                exponent += 1;
            }
            coefficient = u128::from(small);
        } else {
            while coefficient.is_multiple_of(10) {
                coefficient /= 10;
                exponent += 1;
            }
        }
        let adjusted = exponent.checked_add(digits(coefficient) - 1)?;
        if !(-EXPONENT_MAX..=EXPONENT_MAX).contains(&adjusted) {
            return None;
        }
        #[expect(clippy::cast_possible_truncation, reason = "the two halves of the coefficient")]
        let (high, low) = ((coefficient >> 64) as u64, coefficient as u64);
        Some(Decimal { high, low, exponent: i16::try_from(exponent).ok()?, negative })
    }

    /// Reads `-?digits[.digits][(e|E)[+-]digits]`; text longer than 34 digits is rounded half to even.
    ///
    /// `None`: not of that form, or out of range.
    pub(crate) fn parse(text: &str) -> Option<Decimal> {
        let (negative, unsigned) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let mut reader = DigitReader::default();
        let mut bytes = unsigned.bytes().peekable();
        let mut count = 0_usize;
        while let Some(digit) = bytes.next_if(u8::is_ascii_digit) {
            reader.integer_digit(digit - b'0');
            count += 1;
        }
        if count == 0 {
            return None;
        }
        if bytes.next_if_eq(&b'.').is_some() {
            count = 0;
            while let Some(digit) = bytes.next_if(u8::is_ascii_digit) {
                reader.fraction_digit(digit - b'0');
                count += 1;
            }
            if count == 0 {
                return None;
            }
        }
        let mut exponent = 0_i32;
        if bytes.next_if(|b| matches!(b, b'e' | b'E')).is_some() {
            let below = bytes.next_if(|b| matches!(b, b'+' | b'-')) == Some(b'-');
            count = 0;
            while let Some(digit) = bytes.next_if(u8::is_ascii_digit) {
                exponent = exponent.saturating_mul(10).saturating_add(i32::from(digit - b'0'));
                count += 1;
            }
            if count == 0 {
                return None;
            }
            if below {
                exponent = -exponent;
            }
        }
        if bytes.next().is_some() {
            return None;
        }
        // Far outside the range on either side, and far enough from overflow for what follows.
        let exponent = exponent.saturating_add(reader.exponent).clamp(-1_000_000_000, 1_000_000_000);
        Self::rounded(negative, reader.coefficient, exponent, reader.sticky)
    }

    /// The value `coefficient × 10^-places` for a coefficient that no zero ends and at most 18 places.
    pub(crate) fn with_places(negative: bool, coefficient: u64, places: i16) -> Decimal {
        Decimal { high: 0, low: coefficient, exponent: -places, negative }
    }

    pub(crate) fn from_i64(value: i64) -> Decimal {
        // An i64 has 19 digits at most, well within the range.
        Self::exact(value < 0, u128::from(value.unsigned_abs()), 0).unwrap_or(Self::ZERO)
    }

    /// The decimal that the shortest text of `value` names; `None` for what is not finite.
    pub(crate) fn from_f64(value: f64) -> Option<Decimal> {
        if !value.is_finite() {
            return None;
        }
        Self::parse(&format!("{value:e}"))
    }

    /// The same value as an i64, when it is whole and fits.
    pub(crate) fn to_i64(self) -> Option<i64> {
        if !(0..=18).contains(&self.exponent) {
            return None;
        }
        let magnitude = self.coefficient().checked_mul(pow10(self.exponent()))?;
        let magnitude = i128::try_from(magnitude).ok()?;
        i64::try_from(if self.negative { -magnitude } else { magnitude }).ok()
    }

    /// The nearest double.
    pub(crate) fn to_f64(self) -> f64 {
        let coefficient = self.coefficient();
        let exponent = self.exponent();
        let magnitude = if coefficient < (1 << 53) && (-22..=22).contains(&exponent) {
            // Both factors are exact doubles, so one operation rounds once.
            let power = 10_f64.powi(exponent.abs());
            let small = u64::try_from(coefficient).unwrap_or(0);
            #[expect(clippy::cast_precision_loss, reason = "below 2^53, so exact")]
            let small = small as f64;
            if exponent < 0 { small / power } else { small * power }
        } else {
            format!("{coefficient}e{exponent}").parse().unwrap_or(f64::NAN)
        };
        if self.negative { -magnitude } else { magnitude }
    }

    pub(crate) fn negate(self) -> Decimal {
        Decimal { negative: !self.negative && !self.is_zero(), ..self }
    }

    pub(crate) fn add(self, other: Decimal) -> Option<Decimal> {
        if self.is_zero() {
            return Some(other);
        }
        if other.is_zero() {
            return Some(self);
        }
        let (upper, lower) = if self.exponent >= other.exponent { (self, other) } else { (other, self) };
        let shift = upper.exponent() - lower.exponent();
        if digits(upper.coefficient()) + shift > 76 {
            // `lower` lies at least eight digits below the last digit that is kept.
            return Some(upper);
        }
        let exponent = lower.exponent();
        if digits(upper.coefficient()) + shift <= 37 {
            let scaled = upper.coefficient() * pow10(shift);
            let below = lower.coefficient();
            let (negative, magnitude) = if upper.negative == lower.negative {
                (upper.negative, scaled + below)
            } else if scaled >= below {
                (upper.negative, scaled - below)
            } else {
                (lower.negative, below - scaled)
            };
            return Self::from_parts(negative, magnitude, exponent);
        }
        let scaled = U256::from_u128(upper.coefficient()).scale(shift);
        let below = U256::from_u128(lower.coefficient());
        // More than 37 digits against at most 34: `scaled` is the larger one.
        let magnitude =
            if upper.negative == lower.negative { scaled.plus(below) } else { scaled.minus(below) };
        magnitude.round(upper.negative, exponent, false)
    }

    pub(crate) fn subtract(self, other: Decimal) -> Option<Decimal> {
        self.add(other.negate())
    }

    pub(crate) fn multiply(self, other: Decimal) -> Option<Decimal> {
        let negative = self.negative != other.negative;
        let exponent = self.exponent() + other.exponent();
        match self.coefficient().checked_mul(other.coefficient()) {
            Some(product) => Self::from_parts(negative, product, exponent),
            None => U256::product(self.coefficient(), other.coefficient()).round(negative, exponent, false),
        }
    }

    /// `None` for a zero divisor too.
    pub(crate) fn divide(self, other: Decimal) -> Option<Decimal> {
        if other.is_zero() {
            return None;
        }
        if self.is_zero() {
            return Some(Self::ZERO);
        }
        let (dividend, divisor) = (self.coefficient(), other.coefficient());
        // So many zeros that the quotient has at least 35 digits and the dividend at most 69.
        let shift = (35 + digits(divisor) - digits(dividend)).max(0);
        let (quotient, rest) = U256::from_u128(dividend).scale(shift).divide(divisor);
        let exponent = self.exponent() - other.exponent() - shift;
        quotient.round(self.negative != other.negative, exponent, rest != 0)
    }

    /// The remainder of the division towards zero: it has the sign of `self`. `None` for a zero divisor.
    pub(crate) fn remainder(self, other: Decimal) -> Option<Decimal> {
        if other.is_zero() {
            return None;
        }
        let (dividend, divisor) = (self.coefficient(), other.coefficient());
        let shift = self.exponent() - other.exponent();
        if shift >= 0 {
            let mut rest = dividend % divisor;
            let mut left = shift;
            while left > 0 && rest != 0 {
                // rest < 10^34, so four more digits fit.
                let step = left.min(4);
                rest = rest * pow10(step) % divisor;
                left -= step;
            }
            return Self::from_parts(self.negative, rest, other.exponent());
        }
        if digits(divisor) - shift > 38 {
            // The divisor is larger than any dividend.
            return Some(self);
        }
        Self::from_parts(self.negative, dividend % (divisor * pow10(-shift)), self.exponent())
    }

    /// Keeps `places` digits after the point.
    pub(crate) fn round_to(self, places: i32, rounding: Rounding) -> Option<Decimal> {
        let drop = -self.exponent() - places;
        if drop <= 0 {
            return Some(self);
        }
        let coefficient = self.coefficient();
        let (kept, half) = if drop > 35 {
            (0, Ordering::Less)
        } else {
            let unit = pow10(drop);
            (coefficient / unit, (coefficient % unit).cmp(&(unit / 2)))
        };
        // Trailing zeros are stripped, so the dropped part is not zero.
        let up = match rounding {
            Rounding::Truncate => false,
            Rounding::Floor => self.negative,
            Rounding::Ceiling => !self.negative,
            Rounding::HalfAway => half != Ordering::Less,
        };
        Self::from_parts(self.negative, kept + u128::from(up), -places)
    }

    /// The text that reads back as the same value: plain where that takes few zeros, else with an exponent.
    pub(crate) fn text(self) -> String {
        let mut text = String::with_capacity(40);
        if self.negative {
            text.push('-');
        }
        let digits = self.coefficient().to_string();
        let exponent = self.exponent();
        let count = i32::try_from(digits.len()).unwrap_or(0);
        let adjusted = exponent + count - 1;
        if exponent >= 0 && adjusted < 34 {
            text.push_str(&digits);
            text.extend(std::iter::repeat_n('0', usize::try_from(exponent).unwrap_or(0)));
        } else if exponent < 0 && adjusted >= 0 {
            let (whole, fraction) =
                digits.split_at_checked(usize::try_from(adjusted + 1).unwrap_or(0)).unwrap_or((&digits, ""));
            text.push_str(whole);
            text.push('.');
            text.push_str(fraction);
        } else if exponent < 0 && adjusted >= -7 {
            text.push_str("0.");
            text.extend(std::iter::repeat_n('0', usize::try_from(-adjusted - 1).unwrap_or(0)));
            text.push_str(&digits);
        } else {
            let (first, rest) = digits.split_at_checked(1).unwrap_or((&digits, ""));
            text.push_str(first);
            if !rest.is_empty() {
                text.push('.');
                text.push_str(rest);
            }
            text.push('E');
            text.push_str(&adjusted.to_string());
        }
        text
    }

    /// Compares with a double exactly: no rounding decides.
    ///
    /// `None` for NaN.
    pub(crate) fn compare_f64(self, other: f64) -> Option<Ordering> {
        let rounded = self.to_f64();
        match rounded.partial_cmp(&other)? {
            // Rounding is monotonic, so a strict order of the rounded value is that of the value.
            Ordering::Equal => {}
            strict => return Some(strict),
        }
        if other == 0.0 {
            return Some(if self.is_zero() {
                Ordering::Equal
            } else if self.negative {
                Ordering::Less
            } else {
                Ordering::Greater
            });
        }
        // A double has at most 767 significant digits and this form writes them all.
        let text = format!("{:.766e}", other.abs());
        let (mantissa, exponent) = text.split_once('e')?;
        let exponent: i32 = exponent.parse().ok()?;
        let theirs: String = mantissa.chars().filter(char::is_ascii_digit).collect();
        let ours = self.coefficient().to_string();
        let magnitude = self
            .adjusted()
            .cmp(&exponent)
            .then_with(|| ours.trim_end_matches('0').cmp(theirs.trim_end_matches('0')));
        Some(if self.negative { magnitude.reverse() } else { magnitude })
    }
}

/// Compares where neither side needs more than 64 bits and their exponents are close; `None` elsewhere.
fn compare_small(left: (i128, i16), right: (i128, i16)) -> Option<Ordering> {
    let shift = i32::from(left.1) - i32::from(right.1);
    if !(-SMALL_SHIFT..=SMALL_SHIFT).contains(&shift) {
        return None;
    }
    // 2^64 × 10^18 fits: it is below 2^124.
    let scale = |value: i128, shift: i32| value * i128::try_from(pow10(shift.max(0))).unwrap_or(0);
    Some(scale(left.0, shift).cmp(&scale(right.0, -shift)))
}

impl Decimal {
    /// The signed coefficient and the exponent, if the coefficient fits 64 bits.
    fn small(self) -> Option<(i128, i16)> {
        let coefficient = i128::from(self.low);
        (self.high == 0).then_some((if self.negative { -coefficient } else { coefficient }, self.exponent))
    }

    pub(crate) fn cmp_i64(self, other: i64) -> Ordering {
        let small = self.small().and_then(|own| compare_small(own, (i128::from(other), 0)));
        small.unwrap_or_else(|| self.cmp(&Decimal::from_i64(other)))
    }
}

impl Ord for Decimal {
    fn cmp(&self, other: &Self) -> Ordering {
        if let (Some(left), Some(right)) = (self.small(), other.small())
            && let Some(order) = compare_small(left, right)
        {
            return order;
        }
        match (self.negative, other.negative) {
            (false, true) => return Ordering::Greater,
            (true, false) => return Ordering::Less,
            _ => {}
        }
        let magnitude = match (self.is_zero(), other.is_zero()) {
            (true, true) => return Ordering::Equal,
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
            (false, false) => self.adjusted().cmp(&other.adjusted()).then_with(|| {
                // The first digits stand at the same place, so scaling keeps within 34 digits.
                let shift = self.exponent() - other.exponent();
                let ours = self.coefficient() * pow10(shift.max(0));
                let theirs = other.coefficient() * pow10((-shift).max(0));
                ours.cmp(&theirs)
            }),
        };
        if self.negative { magnitude.reverse() } else { magnitude }
    }
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Collects digits: 38 of them exactly, the rest as a count and a flag.
#[derive(Default)]
struct DigitReader {
    coefficient: u128,
    count: u32,
    exponent: i32,
    sticky: bool,
}

impl DigitReader {
    fn integer_digit(&mut self, digit: u8) {
        if !self.push(digit) {
            self.exponent = self.exponent.saturating_add(1);
        }
    }

    fn fraction_digit(&mut self, digit: u8) {
        if self.push(digit) {
            self.exponent = self.exponent.saturating_sub(1);
        }
    }

    /// False when the digit no longer fits and only its being zero or not was kept.
    fn push(&mut self, digit: u8) -> bool {
        if self.count == 38 {
            self.sticky |= digit != 0;
            return false;
        }
        self.coefficient = self.coefficient * 10 + u128::from(digit);
        self.count += u32::from(self.coefficient != 0);
        true
    }
}

/// 256 bits, least significant limb first: room for a product of two coefficients, or a scaled dividend.
#[derive(Clone, Copy)]
struct U256([u64; 4]);

impl U256 {
    #[expect(clippy::cast_possible_truncation, reason = "the two halves of the number")]
    fn from_u128(value: u128) -> U256 {
        U256([value as u64, (value >> 64) as u64, 0, 0])
    }

    fn product(left: u128, right: u128) -> U256 {
        let [l0, l1, ..] = Self::from_u128(left).0;
        let [r0, r1, ..] = Self::from_u128(right).0;
        let low = Self::from_u128(u128::from(l0) * u128::from(r0));
        let mut result = low;
        for cross in [u128::from(l0) * u128::from(r1), u128::from(l1) * u128::from(r0)] {
            let [c0, c1, ..] = Self::from_u128(cross).0;
            result = result.plus(U256([0, c0, c1, 0]));
        }
        let [h0, h1, ..] = Self::from_u128(u128::from(l1) * u128::from(r1)).0;
        result.plus(U256([0, 0, h0, h1]))
    }

    /// Callers keep sums below 10^77, so nothing is carried out of the top.
    fn plus(self, other: U256) -> U256 {
        let mut carry = 0_u128;
        let mut result = [0; 4];
        for ((out, a), b) in result.iter_mut().zip(self.0).zip(other.0) {
            let sum = u128::from(a) + u128::from(b) + carry;
            #[expect(clippy::cast_possible_truncation, reason = "the low half; the high half is carried")]
            let low = sum as u64;
            *out = low;
            carry = sum >> 64;
        }
        U256(result)
    }

    /// `self` is at least `other`.
    fn minus(self, other: U256) -> U256 {
        let mut borrow = false;
        let mut result = [0; 4];
        for ((out, a), b) in result.iter_mut().zip(self.0).zip(other.0) {
            let (first, under) = a.overflowing_sub(b);
            let (second, under_again) = first.overflowing_sub(u64::from(borrow));
            *out = second;
            borrow = under || under_again;
        }
        U256(result)
    }

    /// Multiplies by 10^`power`; callers keep the result below 10^77.
    fn scale(self, mut power: i32) -> U256 {
        let mut value = self;
        while power > 0 {
            let step = power.min(19);
            let factor = u64::try_from(pow10(step)).unwrap_or(u64::MAX);
            let mut carry = 0_u128;
            for limb in &mut value.0 {
                let product = u128::from(*limb) * u128::from(factor) + carry;
                #[expect(clippy::cast_possible_truncation, reason = "the low half; the high half is carried")]
                let low = product as u64;
                *limb = low;
                carry = product >> 64;
            }
            power -= step;
        }
        value
    }

    /// Divides by `divisor`, which is below 10^34, and gives the remainder.
    fn divide(self, divisor: u128) -> (U256, u128) {
        let mut quotient = [0_u64; 4];
        let mut rest = 0_u128;
        for (limb, out) in self.0.into_iter().zip(&mut quotient).rev() {
            for bit in (0..64).rev() {
                rest = (rest << 1) | u128::from((limb >> bit) & 1);
                *out <<= 1;
                if rest >= divisor {
                    rest -= divisor;
                    *out |= 1;
                }
            }
        }
        (U256(quotient), rest)
    }

    fn divide_small(&mut self, divisor: u64) -> u64 {
        let mut rest = 0_u128;
        for limb in self.0.iter_mut().rev() {
            let part = (rest << 64) | u128::from(*limb);
            #[expect(
                clippy::cast_possible_truncation,
                reason = "rest < divisor, so the quotient is one limb"
            )]
            let digit = (part / u128::from(divisor)) as u64;
            *limb = digit;
            rest = part % u128::from(divisor);
        }
        u64::try_from(rest).unwrap_or(0)
    }

    /// Rounds to 34 digits.
    fn round(mut self, negative: bool, mut exponent: i32, mut sticky: bool) -> Option<Decimal> {
        loop {
            let [l0, l1, l2, l3] = self.0;
            if l2 == 0 && l3 == 0 {
                let value = (u128::from(l1) << 64) | u128::from(l0);
                // A full u128 has 39 digits at most, so the digits below the 34th are still there.
                return Decimal::rounded(negative, value, exponent, sticky);
            }
            sticky |= self.divide_small(10) != 0;
            exponent += 1;
        }
    }
}

/// Decimal digits of a number; 0 has one.
fn digits(value: u128) -> i32 {
    i32::try_from(value.checked_ilog10().unwrap_or(0)).unwrap_or(0) + 1
}

/// The powers of ten that fit.
#[expect(clippy::indexing_slicing, reason = "in a constant, where a fault ends the build")]
const POWERS_OF_TEN: [u128; 39] = {
    let mut powers = [1; 39];
    let mut power = 1;
    while power < powers.len() {
        powers[power] = powers[power - 1] * 10;
        power += 1;
    }
    powers
};

/// 10^`power` for 0 to 38, clamped to that.
fn pow10(power: i32) -> u128 {
    let [.., largest] = POWERS_OF_TEN;
    POWERS_OF_TEN.get(usize::try_from(power).unwrap_or(0)).copied().unwrap_or(largest)
}
