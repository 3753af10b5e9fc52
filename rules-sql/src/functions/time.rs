//! Time: the message's clock, and RFC 3339 text both ways. UTC and fixed offsets; zones are in `zone`.

use super::{Function, Gives, Origin, Param, Takes, function, param, whole};
use crate::eval::Scope;
use crate::plan::Expr;
use crate::value::Value;

/// Seconds of 0001-01-01 and 9999-12-31T23:59:59, what RFC 3339 can write.
pub(super) const SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

const UNIT: Param =
    param("unit", Takes::Word(&["second", "millisecond", "microsecond", "nanosecond"])).optional();

pub(super) const FUNCTIONS: &[Function] = &[
    function(
        "now_rfc3339",
        &[UNIT],
        Gives::String,
        &[
            ("now_rfc3339()", "\"2023-11-14T22:13:20Z\""),
            ("now_rfc3339('millisecond')", "\"2023-11-14T22:13:20.123Z\""),
        ],
        |s, a| {
            unit(s, a, 0)
                .map_or(Value::Undefined, |unit| format(i128::from(s.event.now_ms) * 1_000_000, unit))
        },
    )
    .from(Origin::Emqx),
    function("now_timestamp", &[UNIT], Gives::Int, &[("now_timestamp()", "1700000000")], |s, a| {
        let unit = unit(s, a, 0);
        unit.map_or(Value::Undefined, |unit| count(i128::from(s.event.now_ms) * 1_000_000, unit))
    })
    .from(Origin::Emqx),
    function(
        "rfc3339_to_unix_ts",
        &[param("text", Takes::String), UNIT],
        Gives::Int,
        &[("rfc3339_to_unix_ts('2024-02-29T14:31:40+08:00')", "1709188300")],
        parse,
    )
    .from(Origin::Emqx),
    function("timestamp", &[], Gives::Int, &[("timestamp()", "1700000000123")], |s, _| {
        Value::Int(s.event.now_ms)
    })
    .note("Milliseconds since 1970."),
    function(
        "unix_ts_to_rfc3339",
        &[whole("time"), UNIT],
        Gives::String,
        &[("unix_ts_to_rfc3339(1709188300)", "\"2024-02-29T06:31:40Z\"")],
        |s, a| {
            let time = a.first().and_then(|e| s.num(e)).map(|time| i128::from(time.floor_i64()));
            match (time, unit(s, a, 1)) {
                (Some(time), Some(unit)) => format(time * unit.nanoseconds(), unit),
                _ => Value::Undefined,
            }
        },
    )
    .from(Origin::Emqx),
];

#[derive(Clone, Copy)]
enum Unit {
    Second,
    Millisecond,
    Microsecond,
    Nanosecond,
}

impl Unit {
    fn nanoseconds(self) -> i128 {
        match self {
            Unit::Second => 1_000_000_000,
            Unit::Millisecond => 1_000_000,
            Unit::Microsecond => 1_000,
            Unit::Nanosecond => 1,
        }
    }

    fn digits(self) -> usize {
        match self {
            Unit::Second => 0,
            Unit::Millisecond => 3,
            Unit::Microsecond => 6,
            Unit::Nanosecond => 9,
        }
    }
}

/// The unit argument; seconds when it is not given.
fn unit<'v>(scope: &Scope<'_, 'v>, args: &'v [Expr], place: usize) -> Option<Unit> {
    let Some(arg) = args.get(place) else { return Some(Unit::Second) };
    let Value::String(word) = scope.eval(arg) else { return None };
    match &*word {
        "second" => Some(Unit::Second),
        "millisecond" => Some(Unit::Millisecond),
        "microsecond" => Some(Unit::Microsecond),
        "nanosecond" => Some(Unit::Nanosecond),
        _ => None,
    }
}

fn count(nanoseconds: i128, unit: Unit) -> Value<'static> {
    i64::try_from(nanoseconds.div_euclid(unit.nanoseconds())).map_or(Value::Undefined, Value::Int)
}

/// Days since 1970-01-01 to year, month, day (Howard Hinnant, "chrono-compatible low-level date algorithms").
pub(super) fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_shifted + 2) / 5 + 1;
    let month = if month_shifted < 10 { month_shifted + 3 } else { month_shifted - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// The inverse of [`civil`].
pub(super) fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_shifted = (month + 9) % 12;
    let day_of_year = (153 * month_shifted + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

fn format(nanoseconds: i128, unit: Unit) -> Value<'static> {
    let Ok(seconds) = i64::try_from(nanoseconds.div_euclid(1_000_000_000)) else { return Value::Undefined };
    if !SECONDS.contains(&seconds) {
        return Value::Undefined;
    }
    let (year, month, day) = civil(seconds.div_euclid(86_400));
    let time = seconds.rem_euclid(86_400);
    let (hour, minute, second) = (time / 3_600, time / 60 % 60, time % 60);
    let mut text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
    if unit.digits() > 0 {
        let fraction = nanoseconds.rem_euclid(1_000_000_000) / unit.nanoseconds();
        text.push_str(&format!(".{fraction:0width$}", width = unit.digits()));
    }
    text.push('Z');
    Value::string(text)
}

fn parse<'v>(scope: &Scope<'_, 'v>, args: &'v [Expr]) -> Value<'v> {
    let (Some(Value::String(text)), Some(unit)) = (args.first().map(|e| scope.eval(e)), unit(scope, args, 1))
    else {
        return Value::Undefined;
    };
    instant(&text).map_or(Value::Undefined, |nanoseconds| count(nanoseconds, unit))
}

/// Reads `YYYY-MM-DD(T| )HH:MM:SS[.digits](Z|±HH:MM)` into nanoseconds since the epoch.
fn instant(text: &str) -> Option<i128> {
    let number = |from: usize, to: usize, low: i64, high: i64| {
        let digits = text.get(from..to)?;
        let all = digits.bytes().all(|b| b.is_ascii_digit());
        digits.parse().ok().filter(|value| all && (low..=high).contains(value))
    };
    let sign =
        |place: usize, wanted: &[u8]| text.as_bytes().get(place).filter(|b| wanted.contains(b)).copied();
    let (year, month) = (number(0, 4, 1, 9999)?, number(5, 7, 1, 12)?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let month_days = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    let day = number(8, 10, 1, month_days)?;
    let (hour, minute, second) = (number(11, 13, 0, 23)?, number(14, 16, 0, 59)?, number(17, 19, 0, 60)?);
    sign(4, b"-")?;
    sign(7, b"-")?;
    sign(10, b"Tt ")?;
    sign(13, b":")?;
    sign(16, b":")?;
    let mut at = 19;
    let mut fraction = 0_i128;
    if sign(at, b".").is_some() {
        at += 1;
        let digits = text.get(at..)?.bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 {
            return None;
        }
        let kept = text.get(at..at + digits.min(9))?;
        fraction = kept.parse::<i128>().ok()? * 10_i128.pow(u32::try_from(9 - kept.len()).ok()?);
        at += digits;
    }
    let offset = match sign(at, b"Zz+-")? {
        b'Z' | b'z' => {
            at += 1;
            0
        }
        direction => {
            sign(at + 3, b":")?;
            let offset = number(at + 1, at + 3, 0, 23)? * 3_600 + number(at + 4, at + 6, 0, 59)? * 60;
            at += 6;
            if direction == b'-' { -offset } else { offset }
        }
    };
    if at != text.len() {
        return None;
    }
    let seconds = days(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second - offset;
    Some(i128::from(seconds) * 1_000_000_000 + fraction)
}
