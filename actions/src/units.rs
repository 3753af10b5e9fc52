//! Durations and sizes as people write them: `"500ms"`, `"10s"`, `"7d"`; `"64KiB"`, `"1MiB"`.
//!
//! A number always carries its unit; `0` alone is refused, so that no reader has to guess. Each function pair fits
//! `#[serde(with = "…")]`.

use std::borrow::Cow;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

/// Units of a duration: suffix and length in milliseconds, longest suffix first where one ends in another.
const DURATION_UNITS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// Units of a size: suffix and length in bytes, longest suffix first where one ends in another.
const SIZE_UNITS: [(&str, u64); 7] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("B", 1),
];

/// A text that is no duration or no size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnitError {
    /// No whole number followed by a unit of time.
    #[error("\"{text}\" is no duration; expected a whole number and ms, s, m, h or d, as in \"10s\"")]
    Duration {
        /// What was given.
        text: String,
    },
    /// No whole number followed by a unit of size.
    #[error(
        "\"{text}\" is no size; expected a whole number and B, kB, KiB, MB, MiB, GB or GiB, as in \"64KiB\""
    )]
    Size {
        /// What was given.
        text: String,
    },
}

/// How a duration is written, for the schema of what holds one.
#[derive(Debug, Clone, Copy)]
pub struct Period;

impl JsonSchema for Period {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Period".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": pattern(&DURATION_UNITS) })
    }
}

/// How a size is written, for the schema of what holds one.
#[derive(Debug, Clone, Copy)]
pub struct Size;

impl JsonSchema for Size {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": pattern(&SIZE_UNITS) })
    }
}

fn pattern(units: &[(&str, u64)]) -> String {
    let names: Vec<&str> = units.iter().map(|(name, _)| *name).collect();
    format!(r"^[0-9]+\s*({})$", names.join("|"))
}

/// Reads a duration such as `"500ms"` or `"7d"`.
///
/// # Errors
/// [`UnitError::Duration`] when the number or the unit is missing, or the value doesn't fit 64 bits of milliseconds.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    scaled(text, &DURATION_UNITS)
        .map(Duration::from_millis)
        .ok_or_else(|| UnitError::Duration { text: text.to_owned() })
}

/// Reads a size in bytes such as `"64KiB"`.
///
/// # Errors
/// [`UnitError::Size`] when the number or the unit is missing, or the value doesn't fit 64 bits.
pub fn parse_size(text: &str) -> Result<u64, UnitError> {
    scaled(text, &SIZE_UNITS).ok_or_else(|| UnitError::Size { text: text.to_owned() })
}

/// A value in the largest unit that keeps it exact; zero in the unit that is given.
fn shortest(value: u64, units: &[(&str, u64)], of_zero: &str) -> String {
    let exact = units.iter().filter(|(_, scale)| value != 0 && value.is_multiple_of(*scale));
    match exact.max_by_key(|(_, scale)| *scale) {
        Some((unit, scale)) => format!("{}{unit}", value / scale),
        None => format!("0{of_zero}"),
    }
}

fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let (number, scale) =
        units.iter().find_map(|(suffix, scale)| Some((text.strip_suffix(suffix)?, *scale)))?;
    let number = number.trim_end();
    if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    number.parse::<u64>().ok()?.checked_mul(scale)
}

/// `#[serde(with = "units::optional_duration")]` for a [`Duration`] that may be missing.
pub mod optional_duration {
    use std::time::Duration;

    use serde::Deserializer;

    /// Reads the text form.
    ///
    /// # Errors
    /// As [`super::duration::deserialize`].
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        super::duration::deserialize(deserializer).map(Some)
    }
}

/// `#[serde(with = "units::optional_size")]` for a size that may be missing.
pub mod optional_size {
    use serde::Deserializer;

    /// Reads the text form.
    ///
    /// # Errors
    /// As [`super::size::deserialize`].
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
        super::size::deserialize(deserializer).map(Some)
    }
}

/// `#[serde(with = "units::duration")]` for a [`Duration`] written as text with a unit.
pub mod duration {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    /// Reads the text form.
    ///
    /// # Errors
    /// The deserializer's own error, with [`super::UnitError`]'s text.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        super::parse_duration(&text).map_err(D::Error::custom)
    }

    /// Writes it in the largest unit that keeps it exact.
    ///
    /// # Errors
    /// The serializer's own.
    pub fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        let ms = u64::try_from(value.as_millis()).unwrap_or(u64::MAX);
        serializer.collect_str(&super::shortest(ms, &super::DURATION_UNITS, "s"))
    }
}

/// `#[serde(with = "units::size")]` for a number of bytes written as text with a unit.
pub mod size {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    /// Reads the text form.
    ///
    /// # Errors
    /// The deserializer's own error, with [`super::UnitError`]'s text.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        let text = String::deserialize(deserializer)?;
        super::parse_size(&text).map_err(D::Error::custom)
    }

    /// Writes it in the largest unit that keeps it exact.
    ///
    /// # Errors
    /// The serializer's own.
    pub fn serialize<S: Serializer>(value: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&super::shortest(*value, &super::SIZE_UNITS, "B"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_numbers_with_units() {
        for (text, ms) in [
            ("0s", 0),
            ("500ms", 500),
            ("10s", 10_000),
            ("2m", 120_000),
            ("1h", 3_600_000),
            ("7d", 604_800_000),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for (text, bytes) in
            [("0B", 0), ("1B", 1), ("64KiB", 65_536), ("1 MiB", 1_048_576), ("3GB", 3_000_000_000)]
        {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn writes_the_largest_unit_that_keeps_it_exact() {
        for (ms, text) in [(0, "0s"), (1, "1ms"), (1_500, "1500ms"), (10_000, "10s"), (604_800_000, "7d")] {
            assert_eq!(shortest(ms, &DURATION_UNITS, "s"), text);
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)));
        }
        for (bytes, text) in
            [(0, "0B"), (1, "1B"), (1_000, "1kB"), (65_536, "64KiB"), (1_000_001, "1000001B")]
        {
            assert_eq!(shortest(bytes, &SIZE_UNITS, "B"), text);
            assert_eq!(parse_size(text), Ok(bytes));
        }
    }

    #[test]
    fn refuses_what_lacks_a_number_or_a_unit() {
        for text in ["", "s", "10", "-1s", "1.5s", "+1s", "10 sec", "1e3s", "18446744073709551615d"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        for text in ["", "KiB", "10", "1.5MiB", "-1B", "10kib", "18446744073709551615KiB"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }
}
