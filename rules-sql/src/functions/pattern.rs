//! `parse_time` and `time_to_epoch`: time by letter patterns, Joda's for writing, the JDK's for reading.
//!
//! Texts are English; an unknown zone is Undefined.

use super::time::{SECONDS, civil, days};
use super::zone::{self, Zone};
use super::{Function, Gives, Takes, function, param, text, whole};
use crate::eval::Scope;
use crate::plan::Expr;
use crate::value::Value;

/// Letters of one run in a pattern; more would only pad.
const RUN_MAX: usize = 64;

/// Bytes of work that finding a zone by name counts as.
const ZONE_BYTES: usize = 512;

pub(super) const FUNCTIONS: &[Function] = &[
    function(
        "parse_time",
        &[text("pattern"), whole("milliseconds"), param("zone", Takes::Zone).optional()],
        Gives::String,
        &[
            ("parse_time('yyyy-MM-dd HH:mm:ss z', 1709188300000)", "\"2024-02-29 06:31:40 UTC\""),
            ("parse_time('HH:mm', 1709188300000, '+08:00')", "\"14:31\""),
        ],
        parse_time,
    )
    .note("Writes a time, in UTC unless a zone is given, in Joda's letters: `G C y Y D M d E e a H k K h m s S z Z`."),
    function(
        "time_to_epoch",
        &[text("text"), text("pattern")],
        Gives::Int,
        &[("time_to_epoch('18 December 2015', 'dd MMMM yyyy')", "1450396800000")],
        time_to_epoch,
    )
    .note("Reads a time into milliseconds, in UTC unless the text says otherwise, in the JDK's letters; `u L V X x O` too."),
];

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEKDAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

/// A piece of a pattern.
enum Piece {
    /// A letter and how often it stands.
    Field(char, usize),
    Text(String),
}

/// Cuts a pattern; text in single quotes is itself, two quotes are one. `None`: an open quote, or a run too long.
fn pieces(pattern: &str) -> Option<Vec<Piece>> {
    let mut result = Vec::new();
    let mut chars = pattern.chars().peekable();
    while let Some(char) = chars.next() {
        if char == '\'' {
            let mut text = String::new();
            if chars.next_if_eq(&'\'').is_some() {
                text.push('\'');
            } else {
                loop {
                    match chars.next()? {
                        '\'' if chars.next_if_eq(&'\'').is_some() => text.push('\''),
                        '\'' => break,
                        other => text.push(other),
                    }
                }
            }
            result.push(Piece::Text(text));
        } else if char.is_ascii_alphabetic() {
            let mut count = 1;
            while chars.next_if_eq(&char).is_some() {
                count += 1;
            }
            if count > RUN_MAX {
                return None;
            }
            result.push(Piece::Field(char, count));
        } else {
            result.push(Piece::Text(char.to_string()));
        }
    }
    Some(result)
}

// ---- writing ----

fn parse_time<'v>(scope: &Scope<'_, 'v>, args: &'v [Expr]) -> Value<'v> {
    let (Some(pattern), Some(time)) =
        (args.first().and_then(|e| scope.text(e)), args.get(1).and_then(|e| scope.num(e)))
    else {
        return Value::Undefined;
    };
    if !scope.meter.build(pattern.len()) || !scope.meter.bytes(ZONE_BYTES) {
        return Value::Undefined;
    }
    let zone = match args.get(2).map(|e| scope.text(e)) {
        None => Some(Zone::Fixed(0)),
        Some(zone) => zone.and_then(|zone| Zone::find(&zone)),
    };
    let (Some(zone), Some(pieces)) = (zone, pieces(&pattern)) else { return Value::Undefined };
    format(&pieces, time.floor_i64(), &zone).map_or(Value::Undefined, Value::string)
}

fn format(pieces: &[Piece], milliseconds: i64, zone: &Zone) -> Option<String> {
    let instant = milliseconds.div_euclid(1_000);
    let moment = zone.at(instant)?;
    let seconds = instant.checked_add(moment.offset)?;
    if !SECONDS.contains(&seconds) {
        return None;
    }
    let day_number = seconds.div_euclid(86_400);
    let (year, month, day) = civil(day_number);
    let time = seconds.rem_euclid(86_400);
    let (hour, minute, second) = (time / 3_600, time / 60 % 60, time % 60);
    // 1970-01-01 was a Thursday; Monday is 0.
    let weekday = (day_number + 3).rem_euclid(7);
    let mut out = String::new();
    for piece in pieces {
        let (letter, count) = match piece {
            Piece::Text(text) => {
                out.push_str(text);
                continue;
            }
            Piece::Field(letter, count) => (*letter, *count),
        };
        let number = |value: i64| format!("{value:0count$}");
        out.push_str(&match letter {
            'G' => "AD".to_owned(),
            'y' | 'Y' | 'u' if count == 2 => format!("{:02}", year % 100),
            'y' | 'Y' | 'u' => number(year),
            'C' => number(year / 100),
            'M' | 'L' if count >= 3 => name(&MONTHS, month - 1, count)?,
            'M' | 'L' => number(month),
            'd' => number(day),
            'D' => number(day_number - days(year, 1, 1) + 1),
            'E' => name(&WEEKDAYS, weekday, count)?,
            'e' => number(weekday + 1),
            'a' => if hour < 12 { "AM" } else { "PM" }.to_owned(),
            'H' => number(hour),
            'k' => number(if hour == 0 { 24 } else { hour }),
            'K' => number(hour % 12),
            'h' => number((hour + 11) % 12 + 1),
            'm' => number(minute),
            's' => number(second),
            'S' => {
                let digits = format!("{:03}", milliseconds.rem_euclid(1_000));
                digits.chars().chain(std::iter::repeat('0')).take(count).collect()
            }
            'z' if count >= 4 => zone::long_name(&moment).to_owned(),
            'z' => moment.short.clone(),
            'Z' if count == 1 => zone::offset_text(moment.offset, ""),
            'Z' if count == 2 => zone::offset_text(moment.offset, ":"),
            'Z' | 'V' => zone.id(),
            _ => return None,
        });
    }
    Some(out)
}

/// Three letters, or the whole word from four letters on.
fn name(names: &[&str], place: i64, count: usize) -> Option<String> {
    let name = names.get(usize::try_from(place).ok()?)?;
    Some(if count >= 4 { (*name).to_owned() } else { name.chars().take(3).collect() })
}

// ---- reading ----

fn time_to_epoch<'v>(scope: &Scope<'_, 'v>, args: &'v [Expr]) -> Value<'v> {
    let (Some(text), Some(pattern)) =
        (args.first().and_then(|e| scope.text(e)), args.get(1).and_then(|e| scope.text(e)))
    else {
        return Value::Undefined;
    };
    if !scope.meter.build(text.len() + pattern.len()) || !scope.meter.bytes(ZONE_BYTES) {
        return Value::Undefined;
    }
    pieces(&pattern).and_then(|pieces| read(&pieces, &text)).map_or(Value::Undefined, Value::Int)
}

/// What was read so far.
#[derive(Default)]
struct Fields {
    year: Option<i64>,
    month: Option<i64>,
    day: Option<i64>,
    day_of_year: Option<i64>,
    hour: Option<i64>,
    half_hour: Option<i64>,
    afternoon: Option<bool>,
    minute: i64,
    second: i64,
    nanosecond: i64,
    /// Seconds east of UTC; goes before the zone.
    offset: Option<i64>,
    zone: Option<Zone>,
}

/// The text must be used up. A number in one letter takes what digits there are, in more letters so many.
fn read(pieces: &[Piece], text: &str) -> Option<i64> {
    let mut fields = Fields::default();
    let mut rest = text;
    for piece in pieces {
        let (letter, count) = match piece {
            Piece::Text(text) => {
                rest = rest.strip_prefix(text.as_str())?;
                continue;
            }
            Piece::Field(letter, count) => (*letter, *count),
        };
        match letter {
            'y' | 'u' | 'Y' if count == 2 => fields.year = Some(2000 + number(&mut rest, 2, 2)?),
            'y' | 'u' | 'Y' => fields.year = Some(number(&mut rest, count, 9)?),
            'M' | 'L' if count >= 3 => fields.month = Some(word(&mut rest, &MONTHS, count)? + 1),
            'M' | 'L' => fields.month = Some(counted(&mut rest, count)?),
            'd' => fields.day = Some(counted(&mut rest, count)?),
            'D' => fields.day_of_year = Some(number(&mut rest, count, 3)?),
            'E' => drop(word(&mut rest, &WEEKDAYS, count)?),
            'G' => rest = rest.strip_prefix("AD")?,
            'H' => fields.hour = Some(counted(&mut rest, count)?),
            'k' => fields.hour = Some(counted(&mut rest, count)? % 24),
            'h' | 'K' => fields.half_hour = Some(counted(&mut rest, count)? % 12),
            'a' => fields.afternoon = Some(word(&mut rest, &["AM", "PM"], 4)? == 1),
            'm' => fields.minute = counted(&mut rest, count)?,
            's' => fields.second = counted(&mut rest, count)?,
            'S' if count <= 9 => {
                let value = number(&mut rest, count, count)?;
                fields.nanosecond = value * 10_i64.pow(u32::try_from(9 - count).ok()?);
            }
            'Z' | 'X' | 'x' | 'O' => fields.offset = Some(zone::offset(zone_text(&mut rest)?)?),
            'V' if count == 2 => fields.zone = Some(Zone::find(zone_text(&mut rest)?)?),
            'z' | 'v' => {
                let long = if count >= 4 { zone::by_long_name(rest) } else { None };
                fields.zone = Some(match long {
                    Some((zone, after)) => {
                        rest = after;
                        zone
                    }
                    None => {
                        let name = zone_text(&mut rest)?;
                        zone::by_short_name(name).or_else(|| Zone::find(name))?
                    }
                });
            }
            _ => return None,
        }
    }
    if rest.is_empty() { fields.milliseconds() } else { None }
}

impl Fields {
    fn milliseconds(&self) -> Option<i64> {
        let year = self.year.filter(|year| (1..=9999).contains(year))?;
        let hour = match (self.hour, self.half_hour) {
            (Some(hour), _) => hour,
            (None, Some(half)) => half + if self.afternoon? { 12 } else { 0 },
            (None, None) => 0,
        };
        if hour > 23 || self.minute > 59 || self.second > 59 {
            return None;
        }
        let date = match (self.month, self.day, self.day_of_year) {
            (Some(month), Some(day), _) if (1..=12).contains(&month) && (1..=31).contains(&day) => {
                // As the JDK has it: the 31st of a shorter month is its last day.
                let next = if month == 12 { days(year + 1, 1, 1) } else { days(year, month + 1, 1) };
                (days(year, month, 1) + day - 1).min(next - 1)
            }
            (None, None, Some(day)) if (1..=366).contains(&day) => {
                let date = days(year, 1, 1) + day - 1;
                if date >= days(year + 1, 1, 1) {
                    return None;
                }
                date
            }
            _ => return None,
        };
        let local = date * 86_400 + hour * 3_600 + self.minute * 60 + self.second;
        let seconds = match (self.offset, &self.zone) {
            (Some(offset), _) => local - offset,
            (None, Some(zone)) => zone.instant(local)?,
            (None, None) => local,
        };
        Some(seconds * 1_000 + self.nanosecond / 1_000_000)
    }
}

/// One letter takes one or two digits, two letters take two.
fn counted(rest: &mut &str, count: usize) -> Option<i64> {
    number(rest, count, count.max(2))
}

fn number(rest: &mut &str, min: usize, max: usize) -> Option<i64> {
    let digits = rest.bytes().take(max.max(min)).take_while(u8::is_ascii_digit).count();
    if digits < min || digits == 0 {
        return None;
    }
    let (number, after) = rest.split_at_checked(digits)?;
    *rest = after;
    number.parse().ok()
}

/// The name of a zone or an offset that a text begins with; may be empty.
fn zone_text<'t>(rest: &mut &'t str) -> Option<&'t str> {
    let length = rest.find(|c: char| !(c.is_ascii_alphanumeric() || "+-:_/".contains(c)));
    let (zone, after) = rest.split_at_checked(length.unwrap_or(rest.len()))?;
    *rest = after;
    Some(zone)
}

fn word(rest: &mut &str, names: &[&str], count: usize) -> Option<i64> {
    for (place, name) in names.iter().enumerate() {
        let name = if count >= 4 { name } else { name.get(..3)? };
        if let Some(after) = rest.strip_prefix(name) {
            *rest = after;
            return i64::try_from(place).ok();
        }
    }
    None
}
