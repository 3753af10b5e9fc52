//! Small helpers for text that people read: excerpts of foreign bytes, chains of errors.

use std::error::Error;
use std::fmt::Write as _;

/// Returns at most `max_chars` characters of `bytes` on one line: control characters, bidirectional controls and line
/// separators are escaped, bytes that are no UTF-8 become U+FFFD, and a cut is marked with `…`.
pub(crate) fn excerpt(bytes: &[u8], max_chars: usize) -> String {
    // Four bytes per character at most; the rest can't matter and may be large.
    let head = bytes.get(..max_chars.saturating_mul(4).saturating_add(4)).unwrap_or(bytes);
    let text = String::from_utf8_lossy(head);
    let mut out = String::with_capacity(text.len().min(max_chars));
    let mut chars = text.chars();
    for c in chars.by_ref().take(max_chars) {
        if is_plain(c) {
            out.push(c);
        } else {
            out.extend(c.escape_default());
        }
    }
    if chars.next().is_some() || head.len() < bytes.len() {
        out.push('…');
    }
    out
}

fn is_plain(c: char) -> bool {
    !c.is_control()
        && !matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Returns `error` and its sources on one line, each said once.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut out = error.to_string();
    let mut source = error.source();
    let mut last = out.clone();
    while let Some(error) = source {
        let text = error.to_string();
        // Some libraries repeat their source's text in their own.
        if !last.contains(&text) {
            // Writing to a String never fails.
            if write!(out, ": {text}").is_err() {
                break;
            }
        }
        last = text;
        source = error.source();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excerpt_is_one_short_harmless_line() {
        assert_eq!(excerpt(b"plain", 10), "plain");
        assert_eq!(excerpt(b"a\r\nb\0", 10), "a\\r\\nb\\u{0}");
        assert_eq!(excerpt("x\u{202e}y\u{2028}".as_bytes(), 10), "x\\u{202e}y\\u{2028}");
        assert_eq!(excerpt("äöü".as_bytes(), 2), "äö…");
        assert_eq!(excerpt(b"\xff", 4), "\u{fffd}");
        assert_eq!(excerpt(&[b'a'; 1_000_000], 3), "aaa…");
    }
}
