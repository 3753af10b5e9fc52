//! What a NATS server says, from bytes that nobody vouches for.
//!
//! The protocol is lines; two of them, `MSG` and `HMSG`, are followed by as many bytes as they say. A line and a message
//! have a limit each, checked before there is room for them, so that no server makes us keep more than both together.
//! Whatever isn't understood ends the connection: behind it nothing can be told apart any more.

use bytes::{Bytes, BytesMut};
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::text::excerpt;

/// Longest line in bytes. The longest that servers send, `INFO`, names all servers of a cluster.
pub(super) const LINE_BYTES_MAX: usize = 64 << 10;
/// Largest message in bytes: all that come are acknowledgements.
pub(super) const MESSAGE_BYTES_MAX: usize = 64 << 10;
/// How much is read at a time.
const READ_BYTES: usize = 16 << 10;
/// Characters of nonsense that are quoted.
const QUOTED_CHARS: usize = 200;
/// Characters of an error that are kept: more than a subject may have.
const ERROR_CHARS: usize = 500;
/// What a server takes that doesn't say how much.
const PAYLOAD_BYTES_DEFAULT: usize = 1 << 20;

/// What a server may say.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    Info(Box<Info>),
    Message(Message),
    Ping,
    Pong,
    Ok,
    /// Why it doesn't do something, or hangs up; shortened and escaped.
    Error(String),
}

/// What a server says of itself, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub(super) struct Info {
    max_payload: Option<i64>,
    pub(super) headers: bool,
    pub(super) tls_required: bool,
    pub(super) tls_available: bool,
    pub(super) nonce: Option<String>,
}

impl Info {
    /// Most bytes of a message, headers included.
    pub(super) fn payload_bytes_max(&self) -> usize {
        let given = self.max_payload.filter(|given| *given > 0).and_then(|given| usize::try_from(given).ok());
        given.unwrap_or(PAYLOAD_BYTES_DEFAULT)
    }
}

/// A message for our inbox.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) subject: Bytes,
    /// The status of its headers, such as 503 when nobody listens to a request.
    pub(super) status: Option<u16>,
    pub(super) payload: Bytes,
}

/// Why a server can't be listened to any further.
#[derive(Debug, thiserror::Error)]
pub(super) enum WireError {
    #[error("the server sent a line longer than the limit of {LINE_BYTES_MAX} bytes")]
    Line,
    #[error("the server sent a message of {size} bytes, more than the limit of {MESSAGE_BYTES_MAX}")]
    Message { size: usize },
    #[error("the server sent what isn't NATS: \"{0}\"")]
    Nonsense(String),
    #[error("the server closed the connection")]
    Closed,
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

/// Cuts what comes into what was said.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    buffer: BytesMut,
    /// How much of the buffer is known to hold no end of a line.
    searched: usize,
    /// The message whose line was read, but not yet all of its bytes.
    head: Option<Head>,
}

/// What the line before a message says.
#[derive(Debug)]
struct Head {
    subject: Bytes,
    header_bytes: usize,
    bytes: usize,
}

impl Decoder {
    /// Reads until something was said.
    pub(super) async fn next(&mut self, from: &mut (impl AsyncRead + Unpin)) -> Result<Said, WireError> {
        loop {
            if let Some(said) = self.take()? {
                return Ok(said);
            }
            self.buffer.reserve(READ_BYTES);
            if from.read_buf(&mut self.buffer).await? == 0 {
                return Err(WireError::Closed);
            }
        }
    }

    /// Whether there is more than what was said so far.
    pub(super) fn has_rest(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// What is said by the bytes at hand; `None` when more are needed.
    fn take(&mut self) -> Result<Option<Said>, WireError> {
        if self.head.is_none() {
            let Some(line) = self.line()? else { return Ok(None) };
            match said(&line)? {
                Line::Said(said) => return Ok(Some(said)),
                Line::Head(head) => self.head = Some(head),
            }
        }
        let whole = self.head.take_if(|head| self.buffer.len() >= head.bytes + b"\r\n".len());
        let Some(head) = whole else { return Ok(None) };
        let mut header = self.buffer.split_to(head.bytes).freeze();
        let payload = header.split_off(head.header_bytes);
        let end = self.buffer.split_to(b"\r\n".len());
        if &end[..] != b"\r\n" {
            return Err(WireError::Nonsense("a message that doesn't end where it should".to_owned()));
        }
        Ok(Some(Said::Message(Message { subject: head.subject, status: status(&header), payload })))
    }

    /// The next line, without its end.
    fn line(&mut self) -> Result<Option<Bytes>, WireError> {
        let fresh = self.buffer.get(self.searched..).unwrap_or_default();
        let Some(end) = fresh.iter().position(|b| *b == b'\n') else {
            self.searched = self.buffer.len();
            return if self.searched > LINE_BYTES_MAX { Err(WireError::Line) } else { Ok(None) };
        };
        let end = self.searched + end;
        if end > LINE_BYTES_MAX {
            return Err(WireError::Line);
        }
        self.searched = 0;
        let mut line = self.buffer.split_to(end + 1).freeze();
        line.truncate(end);
        if line.ends_with(b"\r") {
            line.truncate(end - 1);
        }
        Ok(Some(line))
    }
}

enum Line {
    Said(Said),
    Head(Head),
}

fn said(line: &Bytes) -> Result<Line, WireError> {
    let nonsense = || WireError::Nonsense(excerpt(line, QUOTED_CHARS));
    let end = line.iter().position(u8::is_ascii_whitespace).unwrap_or(line.len());
    let mut rest = line.clone();
    let word = rest.split_to(end);
    Ok(Line::Said(match &word.to_ascii_uppercase()[..] {
        b"PING" => Said::Ping,
        b"PONG" => Said::Pong,
        b"+OK" => Said::Ok,
        b"-ERR" => {
            let text = rest.trim_ascii();
            let text = text.strip_prefix(b"'").unwrap_or(text);
            Said::Error(excerpt(text.strip_suffix(b"'").unwrap_or(text), ERROR_CHARS))
        }
        // Without the brace a list would do for serde.
        b"INFO" if rest.trim_ascii_start().starts_with(b"{") => {
            Said::Info(serde_json::from_slice(&rest).map_err(|_| nonsense())?)
        }
        b"MSG" | b"HMSG" => {
            let head = head(&rest, word.len() > b"MSG".len()).ok_or_else(nonsense)?;
            let size = head.bytes;
            return if size > MESSAGE_BYTES_MAX {
                Err(WireError::Message { size })
            } else {
                Ok(Line::Head(head))
            };
        }
        _ => return Err(nonsense()),
    }))
}

/// `subject sid [reply] [header-bytes] bytes`.
fn head(rest: &Bytes, has_header: bool) -> Option<Head> {
    let words: Vec<&[u8]> = rest.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).collect();
    let sizes = if has_header { 2 } else { 1 };
    let (names, sizes) = words.split_at_checked(words.len().checked_sub(sizes)?)?;
    let (2 | 3) = names.len() else { return None };
    let bytes = number(sizes.last()?)?;
    let header_bytes = if has_header { number(sizes.first()?)? } else { 0 };
    let subject = rest.slice_ref(names.first()?);
    (header_bytes <= bytes).then_some(Head { subject, header_bytes, bytes })
}

fn number(word: &[u8]) -> Option<usize> {
    std::str::from_utf8(word).ok().filter(|word| word.bytes().all(|b| b.is_ascii_digit()))?.parse().ok()
}

/// The status in `NATS/1.0 503 …`.
fn status(header: &[u8]) -> Option<u16> {
    let rest = header.strip_prefix(b"NATS/1.0 ")?;
    std::str::from_utf8(rest.get(..3)?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// All that is said by these bytes, read in pieces of this size, and what ends it.
    fn all(bytes: &[u8], piece: usize) -> (Vec<Said>, Option<WireError>) {
        let mut decoder = Decoder::default();
        let mut said = Vec::new();
        for piece in bytes.chunks(piece) {
            decoder.buffer.extend_from_slice(piece);
            loop {
                match decoder.take() {
                    Ok(Some(next)) => said.push(next),
                    Ok(None) => break,
                    Err(error) => return (said, Some(error)),
                }
            }
        }
        (said, None)
    }

    fn message(subject: &'static str, status: Option<u16>, payload: &'static str) -> Said {
        Said::Message(Message { subject: subject.into(), status, payload: payload.into() })
    }

    #[test]
    fn what_is_said_is_understood_however_it_is_cut() {
        let bytes =
            b"INFO {\"max_payload\":9,\"headers\":true,\"nonce\":\"n\",\"new\":{}} \r\nping\r\n+OK\r\nPONG\n\
            -ERR 'Stale Connection'\r\n-ERR\r\n-ERR '\r\nMSG _INBOX.a.1 1 2\r\nok\r\nMSG a 1 reply 0\r\n\r\n\
            HMSG\tb  1 16 18\r\nNATS/1.0 503\r\n\r\nxy\r\nHMSG b 1 r 12 12\r\nNATS/1.0\r\n\r\n\r\n";
        let info =
            Info { max_payload: Some(9), headers: true, nonce: Some("n".to_owned()), ..Info::default() };
        let expected = [
            Said::Info(Box::new(info)),
            Said::Ping,
            Said::Ok,
            Said::Pong,
            Said::Error("Stale Connection".to_owned()),
            Said::Error(String::new()),
            Said::Error(String::new()),
            message("_INBOX.a.1", None, "ok"),
            message("a", None, ""),
            message("b", Some(503), "xy"),
            message("b", None, ""),
        ];
        for piece in [1, 2, 3, 7, 1000] {
            let (said, error) = all(bytes, piece);
            assert!(error.is_none(), "{error:?}");
            assert_eq!(said, expected, "{piece}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "HELLO\r\n",
            "\r\n",
            " PING\r\n",
            "INFO\r\n",
            "INFO {\r\n",
            "INFO []\r\n",
            "MSG\r\n",
            "MSG a 1\r\n",
            "MSG a 1 r s 2\r\n",
            "MSG a 1 -2\r\n",
            "MSG a 1 +2\r\n",
            "MSG a 1 99999999999999999999999\r\n",
            "HMSG a 1 2\r\n",
            "HMSG a 1 3 2\r\n",
            "MSG a 1 2\r\nabcd",
            "HTTP/1.1 400 Bad Request\r\n",
        ] {
            let (said, error) = all(text.as_bytes(), 100);
            assert!(matches!(error, Some(WireError::Nonsense(_))), "{text}: {error:?}");
            assert_eq!(said, []);
        }
    }

    #[test]
    fn lines_and_messages_have_a_limit() {
        let line = |bytes: usize| format!("-ERR {}\n", "x".repeat(bytes - 5));
        assert!(all(line(LINE_BYTES_MAX).as_bytes(), 1000).1.is_none());
        assert!(matches!(all(line(LINE_BYTES_MAX + 1).as_bytes(), 1000).1, Some(WireError::Line)));
        assert!(matches!(all(line(LINE_BYTES_MAX + 1).as_bytes(), 1 << 20).1, Some(WireError::Line)));
        let mut decoder = Decoder::default();
        decoder.buffer.extend_from_slice(&vec![b'x'; LINE_BYTES_MAX + 1]);
        assert!(matches!(decoder.take(), Err(WireError::Line)));

        let message = |bytes: usize| format!("MSG a 1 {bytes}\r\n{}\r\n", "x".repeat(bytes));
        let (said, error) = all(message(MESSAGE_BYTES_MAX).as_bytes(), 1000);
        assert!(said.len() == 1 && error.is_none());
        for size in [MESSAGE_BYTES_MAX + 1, usize::MAX] {
            let (said, error) = all(format!("MSG a 1 {size}\r\n").as_bytes(), 1000);
            assert!(matches!(error, Some(WireError::Message { size: found }) if found == size));
            assert_eq!(said, []);
        }
    }

    #[test]
    fn a_server_that_does_not_say_how_much_it_takes_takes_the_usual() {
        for (given, expected) in [(None, 1 << 20), (Some(0), 1 << 20), (Some(-1), 1 << 20), (Some(7), 7)] {
            assert_eq!(Info { max_payload: given, ..Info::default() }.payload_bytes_max(), expected);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_harm(
            lines in prop::collection::vec(("(MSG|HMSG|INFO|-ERR|PING|[a-z]{0,3})[ 0-9a{}']{0,20}", any::<bool>()), 0..8),
            piece in 1_usize..20,
        ) {
            let text: String =
                lines.iter().map(|(line, ends)| format!("{line}{}", if *ends { "\r\n" } else { "" })).collect();
            let (whole, in_pieces) = (all(text.as_bytes(), 1000), all(text.as_bytes(), piece));
            prop_assert_eq!(whole.0, in_pieces.0);
            prop_assert_eq!(whole.1.map(|e| e.to_string()), in_pieces.1.map(|e| e.to_string()));
        }
    }
}
