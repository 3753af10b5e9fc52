//! Sizes and durations as people write them: `"256KiB"`, `"10s"`.
//!
//! A size is a whole number of bytes with a unit (`B`, `KiB`, `MiB`, `GiB`, `TiB`; `kB`, `MB`, `GB`, `TB` are powers
//! of 1,000) or a bare integer of bytes. A duration is a whole number with a unit (`us`, `ms`, `s`, `m`, `h`, `d`); a
//! bare number is refused, since half the readers would take it for milliseconds. Both print back in the largest
//! unit that keeps them exact, so that a printed configuration reads like a written one.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::ser::{Serialize, Serializer};

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(u64);

/// Binary units first: they are what [`ByteSize`] prints.
const SIZE_UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

/// How many of [`SIZE_UNITS`] are powers of 1,024.
const BINARY_UNITS: usize = 4;

impl ByteSize {
    /// A size of `bytes` bytes.
    pub const fn bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// A size of `n` times 1,024 bytes.
    pub const fn kib(n: u64) -> Self {
        Self(n << 10)
    }

    /// A size of `n` times 1,048,576 bytes.
    pub const fn mib(n: u64) -> Self {
        Self(n << 20)
    }

    /// A size of `n` times 1,073,741,824 bytes.
    pub const fn gib(n: u64) -> Self {
        Self(n << 30)
    }

    /// The units that it may be written in.
    pub(super) fn units() -> impl Iterator<Item = &'static str> {
        SIZE_UNITS.iter().map(|(name, _)| *name)
    }

    /// The number of bytes.
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// The number of bytes, at most `u32::MAX`.
    pub fn as_u32_saturating(self) -> u32 {
        u32::try_from(self.0).unwrap_or(u32::MAX)
    }

    /// The number of bytes, at most `usize::MAX`.
    pub fn as_usize_saturating(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = SIZE_UNITS
            .iter()
            .take(BINARY_UNITS)
            .find(|(_, factor)| self.0 != 0 && self.0.is_multiple_of(*factor))
            .unwrap_or(&("B", 1));
        write!(f, "{}{}", self.0 / unit.1, unit.0)
    }
}

impl FromStr for ByteSize {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let fault = || UnitError::Size { text: text.to_owned() };
        let (number, unit) = split_number(text).ok_or_else(fault)?;
        let (_, factor) = SIZE_UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(fault)?;
        number.checked_mul(*factor).map(Self).ok_or_else(fault)
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SizeVisitor;
        impl Visitor<'_> for SizeVisitor {
            type Value = ByteSize;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size such as \"256KiB\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<ByteSize, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<ByteSize, E> {
                u64::try_from(number)
                    .map(ByteSize)
                    .map_err(|_| E::invalid_value(de::Unexpected::Signed(number), &self))
            }
        }
        deserializer.deserialize_any(SizeVisitor)
    }
}

/// A span of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Period(Duration);

const PERIOD_UNITS: [(&str, u64); 6] = [
    ("d", 86_400_000_000),
    ("h", 3_600_000_000),
    ("m", 60_000_000),
    ("s", 1_000_000),
    ("ms", 1_000),
    ("us", 1),
];

impl Period {
    /// No time at all; where a key says so, it switches something off.
    pub const ZERO: Self = Self(Duration::ZERO);

    /// A period of `n` microseconds.
    pub const fn micros(n: u64) -> Self {
        Self(Duration::from_micros(n))
    }

    /// A period of `n` milliseconds.
    pub const fn millis(n: u64) -> Self {
        Self(Duration::from_millis(n))
    }

    /// A period of `n` seconds.
    pub const fn secs(n: u64) -> Self {
        Self(Duration::from_secs(n))
    }

    /// A period of `n` days of 24 hours.
    pub const fn days(n: u64) -> Self {
        Self(Duration::from_secs(n * 86_400))
    }

    /// The units that it may be written in.
    pub(super) fn units() -> impl Iterator<Item = &'static str> {
        PERIOD_UNITS.iter().map(|(name, _)| *name)
    }

    /// The same as a [`Duration`].
    pub const fn as_duration(self) -> Duration {
        self.0
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.0.as_micros();
        if micros == 0 {
            return f.write_str("0s");
        }
        let unit = PERIOD_UNITS
            .iter()
            .find(|(_, factor)| micros.is_multiple_of(u128::from(*factor)))
            .unwrap_or(&("us", 1));
        write!(f, "{}{}", micros / u128::from(unit.1), unit.0)
    }
}

impl FromStr for Period {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let fault = || UnitError::Duration { text: text.to_owned() };
        let (number, unit) = split_number(text).ok_or_else(fault)?;
        let (_, factor) = PERIOD_UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(fault)?;
        number.checked_mul(*factor).map(|micros| Self(Duration::from_micros(micros))).ok_or_else(fault)
    }
}

impl Serialize for Period {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PeriodVisitor;
        impl Visitor<'_> for PeriodVisitor {
            type Value = Period;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration such as \"10s\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Period, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(PeriodVisitor)
    }
}

/// A text that is no size or no duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnitError {
    /// Not a size, or more bytes than 64 bits count.
    #[error(
        "\"{text}\" is no size: write a whole number and a unit (B, KiB, MiB, GiB, TiB), for example \"256KiB\""
    )]
    Size {
        /// The text as given.
        text: String,
    },
    /// Not a duration, or longer than 64 bits of microseconds.
    #[error(
        "\"{text}\" is no duration: write a whole number and a unit (us, ms, s, m, h, d), for example \"10s\""
    )]
    Duration {
        /// The text as given.
        text: String,
    },
}

/// Cuts `"256KiB"` into 256 and `"KiB"`; blanks between the two are fine. `None`: no digits, or too many.
fn split_number(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    let (digits, unit) = text.split_at_checked(end)?;
    Some((digits.parse().ok()?, unit.trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_exactly() {
        for (text, bytes) in [
            ("0B", 0),
            ("1B", 1),
            ("256KiB", 256 << 10),
            ("1 MiB", 1 << 20),
            ("1GiB", 1 << 30),
            ("16TiB", 16 << 40),
            ("1kB", 1_000),
            ("5MB", 5_000_000),
        ] {
            assert_eq!(text.parse::<ByteSize>().map(ByteSize::as_u64), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in
            ["", "KiB", "10", "1.5MiB", "-1B", "1kib", "1 M", "99999999999TiB", "99999999999999999999B"]
        {
            let error = text.parse::<ByteSize>().expect_err(text);
            assert!(error.to_string().contains(&format!("\"{text}\" is no size")), "{error}");
        }
    }

    #[test]
    fn durations_are_read_exactly() {
        for (text, expected) in [
            ("0s", Duration::ZERO),
            ("50us", Duration::from_micros(50)),
            ("250ms", Duration::from_millis(250)),
            ("10s", Duration::from_secs(10)),
            ("5m", Duration::from_secs(300)),
            ("2h", Duration::from_secs(7_200)),
            ("7d", Duration::from_secs(604_800)),
        ] {
            assert_eq!(text.parse::<Period>().map(Period::as_duration), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in ["", "s", "10", "0", "1.5s", "-1s", "1 week", "1h30m", "999999999999999d"] {
            let error = text.parse::<Period>().expect_err(text);
            assert!(error.to_string().contains(&format!("\"{text}\" is no duration")), "{error}");
        }
    }

    #[test]
    fn what_is_printed_reads_back() {
        for bytes in [0, 1, 1_000, 1_023, 1_024, 1_025, 1 << 20, (1 << 20) + 1, 1 << 30, 5 << 40, u64::MAX] {
            let size = ByteSize::bytes(bytes);
            assert_eq!(size.to_string().parse(), Ok(size), "{size}");
        }
        for micros in [0, 1, 999, 1_000, 1_500, 1_000_000, 60_000_000, 90_000_000, 86_400_000_000] {
            let period = Period::micros(micros);
            assert_eq!(period.to_string().parse(), Ok(period), "{period}");
        }
        assert_eq!(ByteSize::mib(1).to_string(), "1MiB");
        assert_eq!(Period::days(7).to_string(), "7d");
    }
}
