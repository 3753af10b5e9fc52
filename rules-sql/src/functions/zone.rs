//! Time zones: UTC and fixed offsets, IANA names, abbreviations.
//!
//! The IANA database has abbreviations but no long names; those, and which abbreviation may be read, are in a table here.

use super::iana::Named;

/// Seconds an offset may be away from UTC, as the JDK has it.
const OFFSET_MAX: i64 = 18 * 3_600;

/// A zone, found by its name.
#[derive(Debug)]
pub(super) enum Zone {
    /// So many seconds east of UTC.
    Fixed(i64),
    Named(Named),
}

/// What a zone says of one instant.
#[derive(Debug)]
pub(super) struct Moment {
    /// Seconds east of UTC.
    pub(super) offset: i64,
    /// `CST`, or the offset where the database has no letters.
    pub(super) short: String,
}

impl Zone {
    /// By `UTC`, `Z`, `+08:00`, `UTC+01:00`, `GMT-3`, or an IANA name exactly as IANA writes it.
    pub(super) fn find(name: &str) -> Option<Zone> {
        offset(name).map(Zone::Fixed).or_else(|| Named::find(name).map(Zone::Named))
    }

    /// `None`: beyond what the database reaches.
    pub(super) fn at(&self, seconds: i64) -> Option<Moment> {
        match self {
            Zone::Fixed(0) => Some(Moment { offset: 0, short: "UTC".to_owned() }),
            Zone::Fixed(offset) => Some(Moment { offset: *offset, short: offset_text(*offset, ":") }),
            Zone::Named(zone) => {
                let (offset, short) = zone.at(seconds)?;
                let has_letters = short.starts_with(|c: char| c.is_ascii_alphabetic());
                Some(Moment { offset, short: if has_letters { short } else { offset_text(offset, ":") } })
            }
        }
    }

    /// The name of the zone itself.
    pub(super) fn id(&self) -> String {
        match self {
            Zone::Fixed(0) => "UTC".to_owned(),
            Zone::Fixed(offset) => offset_text(*offset, ":"),
            Zone::Named(zone) => zone.id().to_owned(),
        }
    }

    /// The instant at which a clock in the zone shows so many seconds since 1970.
    ///
    /// As java.time resolves it: a time that is skipped moves on by the length of the gap, of a time that comes twice
    /// the first is taken.
    pub(super) fn instant(&self, local: i64) -> Option<i64> {
        match self {
            Zone::Fixed(offset) => local.checked_sub(*offset),
            Zone::Named(zone) => zone.instant(local),
        }
    }
}

/// Seconds east of UTC of `UTC`, `Z`, `+08:00`, `+0800`, `UTC+01:00`, `GMT-3`.
pub(super) fn offset(zone: &str) -> Option<i64> {
    if zone == "Z" {
        return Some(0);
    }
    let rest = ["UTC", "GMT", "UT"].iter().find_map(|name| zone.strip_prefix(name)).unwrap_or(zone);
    if rest.is_empty() {
        return if zone.is_empty() { None } else { Some(0) };
    }
    let (sign, digits) = match rest.split_at_checked(1)? {
        ("+", digits) => (1, digits),
        ("-", digits) => (-1, digits),
        _ => return None,
    };
    let (hours, minutes) = match (digits.split_once(':'), digits.len()) {
        (Some((hours, minutes)), _) if minutes.len() == 2 => (hours, minutes),
        (None, 1 | 2) => (digits, "0"),
        (None, 4) => digits.split_at_checked(2)?,
        _ => return None,
    };
    let number = |text: &str, high: i64| {
        let plain = !text.is_empty() && text.len() <= 2 && text.bytes().all(|b| b.is_ascii_digit());
        text.parse::<i64>().ok().filter(|value| plain && *value <= high)
    };
    let seconds = number(hours, 18)? * 3_600 + number(minutes, 59)? * 60;
    (seconds <= OFFSET_MAX).then_some(sign * seconds)
}

/// `+08:00`; seconds, which only offsets of the nineteenth century have, are left out.
pub(super) fn offset_text(seconds: i64, colon: &str) -> String {
    let sign = if seconds < 0 { '-' } else { '+' };
    let minutes = seconds.abs() / 60;
    format!("{sign}{:02}{colon}{:02}", minutes / 60, minutes % 60)
}

/// The long name of what an abbreviation stands for at an offset; the abbreviation itself when there is none.
pub(super) fn long_name(moment: &Moment) -> &str {
    NAMES
        .iter()
        .find(|name| name.short == moment.short && name.minutes * 60 == moment.offset)
        .map_or(&moment.short, |name| name.long)
}

/// The offset that an abbreviation says, in summer as in winter.
pub(super) fn by_short_name(short: &str) -> Option<Zone> {
    let name = NAMES.iter().find(|name| name.short == short && name.is_clear)?;
    Some(Zone::Fixed(name.minutes * 60))
}

/// The offset of the long name that a text begins with, and the text after it.
pub(super) fn by_long_name(text: &str) -> Option<(Zone, &str)> {
    let (name, rest) = NAMES.iter().find_map(|name| Some((name, text.strip_prefix(name.long)?)))?;
    Some((Zone::Fixed(name.minutes * 60), rest))
}

struct Name {
    short: &'static str,
    minutes: i64,
    long: &'static str,
    /// Whether the abbreviation alone says the offset.
    is_clear: bool,
}

const fn clear(short: &'static str, minutes: i64, long: &'static str) -> Name {
    Name { short, minutes, long, is_clear: true }
}

/// The JDK knows the abbreviation of other zones as well.
const fn vague(short: &'static str, minutes: i64, long: &'static str) -> Name {
    Name { short, minutes, long, is_clear: false }
}

/// Abbreviations of the database that are in use, with the JDK's long names in US English. `CST`, `MST` and `PST` are
/// read as American.
const NAMES: [Name; 54] = [
    clear("UTC", 0, "Coordinated Universal Time"),
    clear("GMT", 0, "Greenwich Mean Time"),
    vague("ACDT", 630, "Australian Central Daylight Time"),
    vague("ACST", 570, "Australian Central Standard Time"),
    vague("ADT", -180, "Atlantic Daylight Time"),
    clear("AEDT", 660, "Australian Eastern Daylight Time"),
    clear("AEST", 600, "Australian Eastern Standard Time"),
    clear("AKDT", -480, "Alaska Daylight Time"),
    clear("AKST", -540, "Alaska Standard Time"),
    vague("AST", -240, "Atlantic Standard Time"),
    clear("AWST", 480, "Australian Western Standard Time"),
    vague("BST", 60, "British Summer Time"),
    clear("CAT", 120, "Central Africa Time"),
    clear("CDT", -300, "Central Daylight Time"),
    vague("CDT", -240, "Cuba Daylight Time"),
    clear("CEST", 120, "Central European Summer Time"),
    clear("CET", 60, "Central European Standard Time"),
    clear("CST", -360, "Central Standard Time"),
    vague("CST", -300, "Cuba Standard Time"),
    vague("CST", 480, "China Standard Time"),
    clear("ChST", 600, "Chamorro Standard Time"),
    clear("EAT", 180, "East Africa Time"),
    clear("EDT", -240, "Eastern Daylight Time"),
    clear("EEST", 180, "Eastern European Summer Time"),
    clear("EET", 120, "Eastern European Standard Time"),
    clear("EST", -300, "Eastern Standard Time"),
    clear("HDT", -540, "Hawaii-Aleutian Daylight Time"),
    clear("HKT", 480, "Hong Kong Standard Time"),
    clear("HST", -600, "Hawaii-Aleutian Standard Time"),
    clear("IDT", 180, "Israel Daylight Time"),
    vague("IST", 330, "India Standard Time"),
    vague("IST", 60, "Irish Standard Time"),
    vague("IST", 120, "Israel Standard Time"),
    clear("JST", 540, "Japan Standard Time"),
    clear("KST", 540, "Korean Standard Time"),
    clear("MDT", -360, "Mountain Daylight Time"),
    clear("MSK", 180, "Moscow Standard Time"),
    clear("MST", -420, "Mountain Standard Time"),
    clear("NDT", -150, "Newfoundland Daylight Time"),
    clear("NST", -210, "Newfoundland Standard Time"),
    clear("NZDT", 780, "New Zealand Daylight Time"),
    clear("NZST", 720, "New Zealand Standard Time"),
    clear("PDT", -420, "Pacific Daylight Time"),
    clear("PKT", 300, "Pakistan Standard Time"),
    clear("PST", -480, "Pacific Standard Time"),
    vague("PST", 480, "Philippine Standard Time"),
    clear("SAST", 120, "South Africa Standard Time"),
    vague("SST", -660, "Samoa Standard Time"),
    clear("WAT", 60, "West Africa Standard Time"),
    clear("WEST", 60, "Western European Summer Time"),
    clear("WET", 0, "Western European Standard Time"),
    clear("WIB", 420, "Western Indonesia Time"),
    clear("WIT", 540, "Eastern Indonesia Time"),
    clear("WITA", 480, "Central Indonesia Time"),
];
