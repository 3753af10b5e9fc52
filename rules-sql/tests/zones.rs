//! Time zones: against a table made with another implementation, and what is left without the database.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends at the first fault"
)]

use rules_sql::{Dialect, Evaluation, Event, Limits, Outcome, compile};

/// The output of an expression as text; `None` for Undefined.
fn value(expr: &str, payload: &str) -> Option<String> {
    let sql = format!("SELECT VALUE {expr} FROM '#'");
    let rule = compile(&sql, Dialect::Aws, &Limits::default())
        .unwrap_or_else(|error| panic!("{}", error.render(&sql)));
    let event = Event::new("a", payload.as_bytes());
    match rule.evaluate(&mut Evaluation::new(&event, 1)) {
        Outcome::Output(output) => Some(String::from_utf8(output.into_bytes()).unwrap()),
        Outcome::NoOutput => None,
        other => panic!("{other:?}"),
    }
}

#[test]
fn utc_and_offsets_need_no_database() {
    for (expr, expected) in [
        ("parse_time('HH:mm z', 0, 'UTC')", "\"00:00 UTC\""),
        ("parse_time('HH:mm zzzz', 0, 'Z')", "\"00:00 Coordinated Universal Time\""),
        ("parse_time('HH:mm z Z ZZ ZZZ', 0, '-03:30')", "\"20:30 -03:30 -0330 -03:30 -03:30\""),
        ("parse_time('HH:mm z', 0, 'UTC+18:00')", "\"18:00 +18:00\""),
        ("time_to_epoch('1970-01-01 01:00 +01:00', 'yyyy-MM-dd HH:mm VV')", "0"),
        ("time_to_epoch('1970-01-01 01:00 +0100', 'yyyy-MM-dd HH:mm Z')", "0"),
        ("time_to_epoch('1970-01-01 00:00 Z', 'yyyy-MM-dd HH:mm z')", "0"),
        ("time_to_epoch('1970-01-01 02:00 CEST', 'yyyy-MM-dd HH:mm z')", "0"),
        // The abbreviation counts, whatever the season: five hours.
        ("time_to_epoch('2020-07-15 12:00 EST', 'yyyy-MM-dd HH:mm z')", "1594832400000"),
        ("time_to_epoch('2020-07-15 12:00 EDT', 'yyyy-MM-dd HH:mm z')", "1594828800000"),
        ("time_to_epoch('2020-01-15 12:00 CST', 'yyyy-MM-dd HH:mm z')", "1579111200000"),
        ("time_to_epoch('Pacific Standard Time 2020-01-15', 'zzzz yyyy-MM-dd')", "1579075200000"),
    ] {
        assert_eq!(value(expr, "{}").as_deref(), Some(expected), "{expr}");
    }
}

#[test]
fn what_is_no_zone_is_undefined() {
    for zone in [
        "",
        " ",
        "+",
        "+18:01",
        "+19",
        "-19:00",
        "+1:2",
        "+01:60",
        "UTC+",
        "Z+01:00",
        "utc",
        "Mars/Phobos",
        "Etc/Unknown",
        "europe/berlin",
        "Europe/Berlin ",
        "Europe",
        "../../etc/passwd",
        "Europe/Berlin\\u0000",
        "CEST",
    ] {
        let payload = format!("{{\"z\":\"{zone}\",\"t\":\"1970-01-01 {zone}\"}}");
        assert_eq!(value("parse_time('HH', 0, z)", &payload), None, "{zone:?}");
        assert_eq!(value("time_to_epoch(t, 'yyyy-MM-dd VV')", &payload), None, "{zone:?}");
    }
    assert_eq!(value("parse_time('HH', 0, z)", &format!("{{\"z\":\"{}\"}}", "Europe/".repeat(10_000))), None);
    for expr in [
        // An abbreviation of several zones.
        "time_to_epoch('1970-01-01 IST', 'yyyy-MM-dd z')",
        "time_to_epoch('1970-01-01 BST', 'yyyy-MM-dd z')",
        "time_to_epoch('1970-01-01 XYZ', 'yyyy-MM-dd z')",
        // These letters take offsets only, and V stands twice.
        "time_to_epoch('1970-01-01 CET', 'yyyy-MM-dd X')",
        "time_to_epoch('1970-01-01 Europe/Berlin', 'yyyy-MM-dd Z')",
        "time_to_epoch('1970-01-01 UTC', 'yyyy-MM-dd V')",
        "parse_time('HH', 0, NULL)",
        "parse_time('HH', 0, missing)",
    ] {
        assert_eq!(value(expr, "{}"), None, "{expr}");
    }
}

#[cfg(not(feature = "tzdb"))]
#[test]
fn names_need_the_database() {
    assert_eq!(value("parse_time('HH', 0, 'Europe/Berlin')", "{}"), None);
    assert_eq!(value("time_to_epoch('1970-01-01 Europe/Berlin', 'yyyy-MM-dd VV')", "{}"), None);
    assert_eq!(value("time_to_epoch('1970-01-01 Europe/Berlin', 'yyyy-MM-dd z')", "{}"), None);
}

#[cfg(feature = "tzdb")]
mod with_names {
    use super::value;

    /// Made by table.py beside it.
    const TABLE: &str = include_str!("testdata/zones/table.csv");

    fn rows(kind: &str) -> Vec<Vec<&'static str>> {
        let rows = TABLE.lines().map(|line| line.split(',').collect::<Vec<_>>());
        rows.filter(|row| row[0] == kind).collect()
    }

    #[test]
    fn offsets_and_abbreviations_are_those_of_the_table() {
        let rows = rows("at");
        assert!(rows.len() > 300, "{}", rows.len());
        for row in rows {
            let [_, zone, instant, offset, abbreviation] = row[..] else { panic!("{row:?}") };
            let payload = format!("{{\"z\":\"{zone}\",\"t\":{instant}000}}");
            let clock = "time_to_epoch(parse_time('yyyy-MM-dd HH:mm:ss', t, z), 'yyyy-MM-dd HH:mm:ss') - t";
            assert_eq!(
                value(clock, &payload),
                Some((offset.parse::<i64>().unwrap() * 1_000).to_string()),
                "{row:?}"
            );
            // Where the database has no letters it is the offset, always with minutes.
            let expected = match abbreviation.strip_prefix(['+', '-']).map(str::len) {
                None => abbreviation.to_owned(),
                // `-00` says that nobody lived there.
                Some(_) if offset == "0" => "+00:00".to_owned(),
                Some(2) => format!("{abbreviation}:00"),
                Some(_) => {
                    let (hours, minutes) = abbreviation.split_at(3);
                    format!("{hours}:{minutes}")
                }
            };
            assert_eq!(value("parse_time('z', t, z)", &payload), Some(format!("\"{expected}\"")), "{row:?}");
            assert_eq!(value("parse_time('V', t, z)", &payload), Some(format!("\"{zone}\"")), "{row:?}");
        }
    }

    #[test]
    fn clock_times_are_the_instants_of_the_table() {
        let rows = rows("is");
        assert!(rows.len() > 300, "{}", rows.len());
        for row in rows {
            let [_, zone, clock, instant] = row[..] else { panic!("{row:?}") };
            let payload = format!("{{\"z\":\"{zone}\",\"t\":{clock}000}}");
            // CET is an abbreviation before it is a zone when `z` reads it.
            for letters in if zone == "CET" { &["VV"][..] } else { &["VV", "z"] } {
                let expr = format!(
                    "time_to_epoch(parse_time('yyyy-MM-dd HH:mm:ss ', t) + z, 'yyyy-MM-dd HH:mm:ss {letters}')"
                );
                assert_eq!(value(&expr, &payload), Some(format!("{instant}000")), "{row:?}");
            }
        }
    }

    #[test]
    fn an_offset_goes_before_the_zone() {
        let both =
            "time_to_epoch('2020-07-01 12:00:00+05:00[Europe/Berlin]', \"yyyy-MM-dd HH:mm:ssXXX'['VV']'\")";
        assert_eq!(value(both, "{}").as_deref(), Some("1593586800000"));
    }

    #[test]
    fn the_ends_of_time_are_undefined_not_wrong() {
        for (time, zone, expected) in [
            ("253402300799999", "UTC", Some("\"9999\"")),
            ("253402300799999", "Europe/Berlin", None),
            ("-62135596800000", "Asia/Tokyo", Some("\"0001\"")),
            // There it is still the year before.
            ("-62135596800000", "America/New_York", None),
            ("9223372036854775807", "Europe/Berlin", None),
            ("-9223372036854775808", "Europe/Berlin", None),
        ] {
            let payload = format!("{{\"z\":\"{zone}\",\"t\":{time}}}");
            assert_eq!(value("parse_time('yyyy', t, z)", &payload).as_deref(), expected, "{time} {zone}");
        }
        let read = |text: &str| value(&format!("time_to_epoch('{text}', 'yyyy-MM-dd HH:mm VV')"), "{}");
        assert_eq!(read("9999-12-31 23:59 America/New_York"), None);
        // Local mean time, 53 minutes and 28 seconds ahead.
        assert_eq!(read("0001-01-01 00:00 Europe/Berlin").as_deref(), Some("-62135600008000"));
    }
}
