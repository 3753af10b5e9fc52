//! Bytes in answers: as text or in hexadecimal, and never more than [`SHOWN_BYTES_MAX`] of them.

use serde::Serialize;
use utoipa::ToSchema;

/// Most bytes that are shown of one payload, body or other value.
const SHOWN_BYTES_MAX: usize = 64 << 10;

/// Bytes as text when they are that, else in hexadecimal; with their number, and cut when they are many.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Shown {
    /// How many there are.
    bytes: usize,
    /// As text.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    text: Option<String>,
    /// In hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    hex: Option<String>,
    /// Whether only the first 64 KiB are shown.
    cut: bool,
}

impl Shown {
    pub(super) fn of(bytes: &[u8]) -> Self {
        let (text, hex) = match std::str::from_utf8(bytes) {
            Ok(text) => {
                let head = text.get(..text.floor_char_boundary(SHOWN_BYTES_MAX)).unwrap_or_default();
                (Some(head.to_owned()), None)
            }
            Err(_) => {
                let head = bytes.get(..SHOWN_BYTES_MAX).unwrap_or(bytes);
                (None, Some(head.iter().map(|byte| format!("{byte:02x}")).collect()))
            }
        };
        Self { bytes: bytes.len(), text, hex, cut: bytes.len() > SHOWN_BYTES_MAX }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn bytes(bytes: impl AsRef<[u8]>) -> Value {
        serde_json::to_value(Shown::of(bytes.as_ref())).unwrap()
    }

    #[test]
    fn bytes_are_text_or_hexadecimal_and_bounded() {
        assert_eq!(bytes("grün\n".as_bytes()), json!({ "bytes": 6, "text": "grün\n", "cut": false }));
        assert_eq!(bytes(b"\x00\xff"), json!({ "bytes": 2, "hex": "00ff", "cut": false }));
        assert_eq!(bytes(b""), json!({ "bytes": 0, "text": "", "cut": false }));
        for (length, is_cut) in [(SHOWN_BYTES_MAX, false), (SHOWN_BYTES_MAX + 1, true)] {
            let text = bytes(vec![b'a'; length]);
            assert_eq!(
                (text["text"].as_str().unwrap().len(), text["cut"].as_bool()),
                (SHOWN_BYTES_MAX, Some(is_cut))
            );
            let hex = bytes(vec![0xff; length]);
            assert_eq!(
                (hex["hex"].as_str().unwrap().len(), hex["cut"].as_bool()),
                (2 * SHOWN_BYTES_MAX, Some(is_cut))
            );
        }
        let umlauts = bytes("ä".repeat(SHOWN_BYTES_MAX).as_bytes());
        assert_eq!(umlauts["text"].as_str().unwrap().len(), SHOWN_BYTES_MAX);
        let shifted = bytes(format!("a{}", "ä".repeat(SHOWN_BYTES_MAX)).as_bytes());
        assert_eq!(shifted["text"].as_str().unwrap().len(), SHOWN_BYTES_MAX - 1, "no half a character");
    }
}
