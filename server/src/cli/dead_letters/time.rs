//! Times as they are written on a command line: an instant, a day, or how long ago.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::config::Period;

/// Milliseconds since the epoch; 0 before it.
pub(super) fn since_epoch_ms(at: SystemTime) -> i64 {
    i64::try_from(at.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis()).unwrap_or(i64::MAX)
}

/// Reads `90m` (ago), `2026-03-01` (its beginning, UTC) or an instant of RFC 3339, `2026-03-01T08:00:00+01:00`.
pub(super) fn parse(text: &str, now_ms: i64) -> Result<i64, String> {
    if let Ok(ago) = text.parse::<Period>() {
        let ago = i64::try_from(ago.as_duration().as_millis()).unwrap_or(i64::MAX);
        return Ok(now_ms.saturating_sub(ago));
    }
    instant(text).ok_or_else(|| {
        format!(
            "expected how long ago (90m, 2h, 7d), a day (2026-03-01) or a time (2026-03-01T08:00:00Z), given \"{text}\""
        )
    })
}

fn instant(text: &str) -> Option<i64> {
    if !text.is_ascii() {
        return None;
    }
    let (date, time) = match text.split_once(['T', 't', ' ']) {
        Some((date, time)) => (date, Some(time)),
        None => (text, None),
    };
    let days = days(date)?;
    let (of_day_ms, offset_ms) = match time {
        Some(time) => of_day(time)?,
        None => (0, 0),
    };
    Some(days * 86_400_000 + of_day_ms - offset_ms)
}

/// Days since 1970-01-01. Day number from a civil date after Howard Hinnant, "chrono-compatible low-level date algorithms".
fn days(date: &str) -> Option<i64> {
    let mut parts = date.split('-');
    let (year, month, day) =
        (number(parts.next()?, 4)?, number(parts.next()?, 2)?, number(parts.next()?, 2)?);
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        2 => 28 + i64::from(is_leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    if parts.next().is_some() || !(1..=12).contains(&month) || !(1..=length).contains(&day) {
        return None;
    }
    let year = year - i64::from(month <= 2);
    let shifted_month = (month + 9) % 12;
    let day_of_year = (153 * shifted_month + 2) / 5 + day - 1;
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    Some(era * 146_097 + day_of_era - 719_468)
}

/// Milliseconds of the day, and those that its zone is ahead of UTC.
fn of_day(time: &str) -> Option<(i64, i64)> {
    let zone_begins = time.find(['Z', 'z', '+', '-'])?;
    let (clock, zone) = time.split_at_checked(zone_begins)?;
    let (clock, fraction) = match clock.split_once('.') {
        Some((clock, fraction)) => (clock, Some(fraction)),
        None => (clock, None),
    };
    let mut parts = clock.split(':');
    let (hour, minute) = (number(parts.next()?, 2)?, number(parts.next()?, 2)?);
    let second = parts.next().map_or(Some(0), |second| number(second, 2))?;
    if parts.next().is_some() || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let fraction_ms = match fraction {
        Some(digits) if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => {
            format!("{digits:0<3}").get(..3)?.parse().ok()?
        }
        Some(_) => return None,
        None => 0,
    };
    let of_day_ms = ((hour * 60 + minute) * 60 + second) * 1_000 + fraction_ms;
    if zone.eq_ignore_ascii_case("z") {
        return Some((of_day_ms, 0));
    }
    let (sign, zone) = zone.split_at_checked(1)?;
    let (hours, minutes) = zone.split_once(':')?;
    let (hours, minutes) = (number(hours, 2)?, number(minutes, 2)?);
    if hours > 23 || minutes > 59 {
        return None;
    }
    let ahead_ms = (hours * 60 + minutes) * 60_000;
    Some((of_day_ms, if sign == "-" { -ahead_ms } else { ahead_ms }))
}

/// Exactly so many digits.
fn number(text: &str, digits: usize) -> Option<i64> {
    let fits = text.len() == digits && text.bytes().all(|b| b.is_ascii_digit());
    fits.then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cli::format::iso_8601;

    const NOW_MS: i64 = 1_800_000_000_000;

    #[test]
    fn times_are_read() {
        for (text, at_ms) in [
            ("90m", NOW_MS - 5_400_000),
            ("2h", NOW_MS - 7_200_000),
            ("7d", NOW_MS - 604_800_000),
            ("0s", NOW_MS),
            ("1970-01-01", 0),
            ("1970-01-02", 86_400_000),
            ("2000-02-29", 951_782_400_000),
            ("2026-03-01T08:00:00Z", 1_772_352_000_000),
            ("2026-03-01T08:00:00.5Z", 1_772_352_000_500),
            ("2026-03-01t08:00:00.123456z", 1_772_352_000_123),
            ("2026-03-01 08:00Z", 1_772_352_000_000),
            ("2026-03-01T09:00:00+01:00", 1_772_352_000_000),
            ("2026-03-01T02:30:00-05:30", 1_772_352_000_000),
            ("1969-12-31T23:59:59Z", -1_000),
        ] {
            assert_eq!(parse(text, NOW_MS), Ok(at_ms), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "yesterday",
            "2h ago",
            "2026",
            "2026-3-1",
            "2026-02-29",
            "2100-02-29",
            "2026-13-01",
            "2026-00-01",
            "2026-04-31",
            "2026-03-01-01",
            "2026-03-01T",
            "2026-03-01T08",
            "2026-03-01T08:00:00",
            "2026-03-01T24:00:00Z",
            "2026-03-01T08:60:00Z",
            "2026-03-01T08:00:00.Z",
            "2026-03-01T08:00:00.xZ",
            "2026-03-01T08:00:00+1",
            "2026-03-01T08:00:00+01",
            "2026-03-01T08:00:00+24:00",
            "2026-03-01T08:00:00ZZ",
            "2026-03-01T08:00:00Z ",
            "２026-03-01",
            "1700000000000",
        ] {
            let error = parse(text, NOW_MS).unwrap_err();
            assert!(error.contains("expected how long ago"), "{text}: {error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_printed_is_read_again(at_ms in 0_u64..253_402_300_800_000) {
            let printed = iso_8601(UNIX_EPOCH + Duration::from_millis(at_ms));
            proptest::prop_assert_eq!(parse(&printed, NOW_MS), Ok(i64::try_from(at_ms).unwrap()));
        }

        #[test]
        fn no_text_brings_it_down(text in "[0-9TtZz:.+ -]{0,30}|\\PC{0,20}", now_ms: i64) {
            drop(parse(&text, now_ms));
        }
    }
}
