//! Reads the packet tables in `tests/testdata`; also used to make the fuzzers' seeds.

use mqtt_protocol::ProtocolVersion;

pub(crate) const GOLDEN: &str = include_str!("../testdata/golden.txt");
pub(crate) const REFUSALS: &str = include_str!("../testdata/refusals.txt");

/// One line of a table: the words before the bytes, then the bytes.
pub(crate) struct Row {
    pub(crate) versions: Vec<ProtocolVersion>,
    pub(crate) words: Vec<String>,
    pub(crate) bytes: Vec<u8>,
}

/// Reads a table whose lines have `words` words between the version and the bytes.
pub(crate) fn rows(table: &str, words: usize) -> Vec<Row> {
    table
        .lines()
        .filter(|line| !line.trim().is_empty() && !line.starts_with('#'))
        .map(|line| row(line, words))
        .collect()
}

#[track_caller]
fn row(line: &str, words: usize) -> Row {
    let mut rest = line;
    let mut head: Vec<String> = (0..=words)
        .map(|_| {
            let (word, after) =
                rest.trim_start().split_once(' ').unwrap_or_else(|| panic!("too few words: {line}"));
            rest = after;
            word.to_owned()
        })
        .collect();
    let version = head.remove(0);
    let versions = match version.as_str() {
        "all" => ProtocolVersion::ALL.to_vec(),
        text => vec![
            ProtocolVersion::ALL
                .into_iter()
                .find(|version| version.to_string() == text)
                .unwrap_or_else(|| panic!("unknown version: {line}")),
        ],
    };
    Row { versions, words: head, bytes: bytes(rest) }
}

/// Reads the notation of bytes that the head of `golden.txt` explains.
#[track_caller]
pub(crate) fn bytes(mut text: &str) -> Vec<u8> {
    let mut open: Vec<Vec<u8>> = vec![Vec::new()];
    loop {
        text = text.trim_start();
        let Some(first) = text.chars().next() else { break };
        match first {
            '(' => {
                open.push(Vec::new());
                text = &text[1..];
            }
            ')' => {
                let inside = open.pop().expect("a ( before");
                let outside = open.last_mut().expect("a ( before");
                put_length(outside, inside.len());
                outside.extend(inside);
                text = &text[1..];
            }
            quote @ ('"' | '\'') => {
                let (inside, after) = text[1..].split_once(quote).expect("a closing quote");
                let out = open.last_mut().expect("never empty");
                if quote == '"' {
                    out.extend(u16::try_from(inside.len()).expect("a short string").to_be_bytes());
                }
                out.extend(inside.as_bytes());
                text = after;
            }
            _ => {
                let byte =
                    u8::from_str_radix(&text[..2], 16).unwrap_or_else(|_| panic!("no hex pair: {text}"));
                open.last_mut().expect("never empty").push(byte);
                text = &text[2..];
            }
        }
    }
    assert_eq!(open.len(), 1, "a ( is not closed");
    open.remove(0)
}

fn put_length(out: &mut Vec<u8>, mut len: usize) {
    while len >= 128 {
        out.push((len % 128) as u8 | 0x80);
        len /= 128;
    }
    out.push(len as u8);
}
