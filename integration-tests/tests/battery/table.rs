//! The notation of the tables.
//!
//! A line is `version | moment | bytes | reactions | statements | name`. The version is `3`, `5` or `both`: a line for both
//! is two cases, and its bytes write `{p}` for empty properties (nothing in 3.1.1), `{level}` for the Protocol Level and
//! `{a*100}` for a hundred times the text `a`. The moment is `first` or `open`. Reactions, parted by `,`, are `close`,
//! `connack XX`, `end XX`, `live`, `wait`, `codes` with the first byte of an acknowledgement and its Reason Codes, or `= ` and a packet; `3:` or `5:` before one says in which version it comes.
//! Statements of the versions are parted by `/`.

use integration_tests::Version;

use crate::case::{Case, Moment, Reaction};

pub(crate) const FRAMING: &str = include_str!("cases/framing.txt");
pub(crate) const CONNECT: &str = include_str!("cases/connect.txt");
pub(crate) const PUBLISH: &str = include_str!("cases/publish.txt");
pub(crate) const SUBSCRIBE: &str = include_str!("cases/subscribe.txt");
pub(crate) const FOREIGN: &str = include_str!("cases/foreign.txt");

/// Reads a table.
pub(crate) fn read(text: &str) -> Vec<Case> {
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.flat_map(line).collect()
}

fn line(line: &str) -> Vec<Case> {
    let fields: Vec<&str> = line.split('|').map(str::trim).collect();
    let [version, moment, bytes, reactions, statements, name] = fields[..] else {
        panic!("six fields in {line}")
    };
    let versions = match version {
        "3" => vec![Version::V311],
        "5" => vec![Version::V5],
        "both" => Version::BOTH.to_vec(),
        other => panic!("no version {other} in {line}"),
    };
    let moment = match moment {
        "first" => Moment::First,
        "open" => Moment::Open,
        other => panic!("no moment {other} in {line}"),
    };
    let (of_v311, of_v5) = statements.split_once('/').unwrap_or((statements, statements));
    versions
        .into_iter()
        .map(|version| Case {
            name: name.to_owned(),
            version,
            statement: if version == Version::V5 { of_v5 } else { of_v311 }.trim().to_owned(),
            moment,
            bytes: filled_in(bytes, version),
            reactions: reactions
                .split(',')
                .filter_map(|reaction| reaction_of(reaction.trim(), version))
                .collect(),
        })
        .inspect(|case| {
            assert!(
                !case.statement.is_empty() && !case.reactions.is_empty(),
                "nothing is required by {line}"
            );
        })
        .collect()
}

/// Puts in what braces stand for.
fn filled_in(notation: &str, version: Version) -> String {
    let (head, tail) = match notation.split_once('{') {
        None => return notation.to_owned(),
        Some((head, rest)) => (head, rest.split_once('}').expect("a closing brace")),
    };
    let (name, rest) = tail;
    let stands_for = match (name, version) {
        ("p", _) => version.no_properties().to_owned(),
        ("level", Version::V311) => "04".to_owned(),
        ("level", Version::V5) => "05".to_owned(),
        (repeated, _) => {
            let (text, count) = repeated.rsplit_once('*').expect("a text and how many times");
            text.repeat(count.parse().expect("a number"))
        }
    };
    format!("{head}{stands_for}{}", filled_in(rest, version))
}

/// `None`: doesn't come in this version.
fn reaction_of(text: &str, version: Version) -> Option<Reaction> {
    let text = match (text.split_once(':'), version) {
        (Some(("3", rest)), Version::V311) | (Some(("5", rest)), Version::V5) => rest.trim(),
        (Some(("3" | "5", _)), _) => return None,
        _ => text,
    };
    let code = |hex: &str| u8::from_str_radix(hex, 16).expect("a code");
    Some(match text.split_once(' ') {
        Some(("connack", hex)) => Reaction::Connack(code(hex)),
        Some(("end", hex)) => Reaction::End(code(hex)),
        Some(("codes", bytes)) => Reaction::Codes(bytes.split(' ').map(code).collect()),
        Some(("=", packet)) => Reaction::Packet(filled_in(packet, version)),
        None if text == "close" => Reaction::Close,
        None if text == "live" => Reaction::Live,
        None if text == "wait" => Reaction::Wait,
        _ => panic!("no reaction {text}"),
    })
}
