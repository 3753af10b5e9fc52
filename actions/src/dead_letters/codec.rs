//! The body of a dead letter in bytes.
//!
//! ```text
//! u8      version, 1
//! u64     store    ┐
//! u32     epoch    ├ identity of the item
//! u64     sequence ┘
//! i64     received at    ┐
//! i64     first attempt  ├ milliseconds since 1970; i64::MIN where there was no attempt
//! i64     ended at       ┘
//! u32     attempts
//! bytes   cause
//! bytes   error
//! bytes   request
//! ```
//!
//! Numbers are big-endian and `bytes` are a `u32` length and so many bytes, as in an outbox. Nothing follows. Reading never
//! panics and allocates no more than it was given.

use crate::delivery::outbox::{Body, put_bytes, take_bytes, take_chunk};
use crate::delivery::{DropReason, ItemId};
use crate::outlet::QueuedRequest as _;
use crate::plan::Request;
use crate::record::Record;
use crate::sinks::http::HttpRequest;

/// Format of a body.
const VERSION: u8 = 1;
/// Stands for no first attempt.
const NEVER: i64 = i64::MIN;
/// Longest cause in bytes.
pub const CAUSE_BYTES_MAX: usize = 64;
/// Longest error text in bytes; what is longer is cut.
pub const ERROR_BYTES_MAX: usize = 1024;

/// What became of a request.
#[derive(Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Identity of the item: what its idempotency key is made from, and keeps being made from when it is sent again.
    pub item: ItemId,
    /// Why it ended, [`DropReason::as_str`]. A text, so that a letter of another version's reason can be read.
    pub cause: String,
    /// The last error in words, at most [`ERROR_BYTES_MAX`] bytes.
    pub error: String,
    /// Attempts that may have reached the far side.
    pub attempts: u32,
    /// Wall clock when the message was admitted, milliseconds since the epoch.
    pub received_at_ms: i64,
    /// Wall clock of the first attempt; `None` where there was none, or nobody remembers it after a restart.
    pub first_attempt_at_ms: Option<i64>,
    /// Wall clock when it ended.
    pub ended_at_ms: i64,
    /// The body that the outbox kept; empty where no request could be made.
    pub request: Vec<u8>,
}

impl std::fmt::Debug for DeadLetter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeadLetter")
            .field("item", &self.item)
            .field("cause", &self.cause)
            .field("attempts", &self.attempts)
            .field("ended_at_ms", &self.ended_at_ms)
            .field("request_bytes", &self.request.len())
            .finish_non_exhaustive()
    }
}

/// Why bytes are no dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeadLetterError {
    /// Another version of the program has written it.
    #[error("dead letter of format {found}, expected {VERSION}")]
    Version {
        /// The format that it says it has.
        found: u8,
    },
    /// They aren't what any version has written.
    #[error("malformed dead letter")]
    Malformed,
}

impl DeadLetter {
    /// Appends the letter as the store keeps it. A cause or an error that is too long is cut.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(VERSION);
        out.extend_from_slice(&self.item.store.to_be_bytes());
        out.extend_from_slice(&self.item.epoch.to_be_bytes());
        out.extend_from_slice(&self.item.sequence.to_be_bytes());
        for time in [self.received_at_ms, self.first_attempt_at_ms.unwrap_or(NEVER), self.ended_at_ms] {
            out.extend_from_slice(&time.to_be_bytes());
        }
        out.extend_from_slice(&self.attempts.to_be_bytes());
        put_bytes(out, head(&self.cause, CAUSE_BYTES_MAX).as_bytes());
        put_bytes(out, head(&self.error, ERROR_BYTES_MAX).as_bytes());
        put_bytes(out, &self.request);
    }

    /// Reads what [`DeadLetter::encode`] has written.
    ///
    /// # Errors
    /// [`DeadLetterError`] for anything else.
    pub fn decode(bytes: &[u8]) -> Result<Self, DeadLetterError> {
        match bytes.first() {
            Some(&VERSION) => read(bytes).ok_or(DeadLetterError::Malformed),
            Some(&found) => Err(DeadLetterError::Version { found }),
            None => Err(DeadLetterError::Malformed),
        }
    }

    /// The request, if there is one that can be read.
    #[must_use]
    pub fn kept_request(&self) -> Option<Request> {
        let request = Body::decode(&self.request)?.request;
        let record = || Record::decode(request).map(Request::Record);
        HttpRequest::decode(request).map(Request::Http).or_else(record)
    }

    /// The body of an outbox's item that sends the request again under the same identity, its age counting from `at_ms`;
    /// `None` where there is no request.
    #[must_use]
    pub fn request_again(&self, at_ms: i64) -> Option<Vec<u8>> {
        let body = Body::decode(&self.request)?;
        Some(Body { identity: Some(self.item), redriven_at_ms: Some(at_ms), ..body }.encode())
    }

    /// Why it ended, if this version knows the reason.
    #[must_use]
    pub fn reason(&self) -> Option<DropReason> {
        DropReason::ALL.into_iter().find(|reason| reason.as_str() == self.cause)
    }
}

fn read(bytes: &[u8]) -> Option<DeadLetter> {
    let (_, mut bytes) = bytes.split_first()?;
    let from = &mut bytes;
    let item = ItemId {
        store: u64::from_be_bytes(take_chunk(from)?),
        epoch: u32::from_be_bytes(take_chunk(from)?),
        sequence: u64::from_be_bytes(take_chunk(from)?),
    };
    let received_at_ms = i64::from_be_bytes(take_chunk(from)?);
    let first_attempt_at_ms = Some(i64::from_be_bytes(take_chunk(from)?)).filter(|time| *time != NEVER);
    let ended_at_ms = i64::from_be_bytes(take_chunk(from)?);
    let attempts = u32::from_be_bytes(take_chunk(from)?);
    let cause = text(from, CAUSE_BYTES_MAX)?;
    let error = text(from, ERROR_BYTES_MAX)?;
    let request = take_bytes(from)?.to_vec();
    from.is_empty().then_some(DeadLetter {
        item,
        cause,
        error,
        attempts,
        received_at_ms,
        first_attempt_at_ms,
        ended_at_ms,
        request,
    })
}

fn text(from: &mut &[u8], max: usize) -> Option<String> {
    let bytes = take_bytes(from).filter(|bytes| bytes.len() <= max)?;
    std::str::from_utf8(bytes).ok().map(str::to_owned)
}

/// The beginning of a text, whole characters only.
fn head(text: &str, max: usize) -> &str {
    text.get(..text.floor_char_boundary(max)).unwrap_or_default()
}
