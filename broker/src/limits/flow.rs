//! How fast one client publishes: by messages and by bytes.
//!
//! A client that is faster isn't read until its debt is paid. Its messages wait in the socket, so that it notices in time and
//! loses nothing; its Keep Alive stands still meanwhile, since it can't be heard.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Sleep;

use super::bucket::Bucket;
use crate::clock::Now;

/// See the module.
#[derive(Debug)]
pub(crate) struct Flow {
    messages: Option<Bucket>,
    bytes: Option<Bucket>,
    /// The client isn't read until then.
    pause: Option<Pin<Box<Sleep>>>,
}

/// A client has to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Throttled {
    /// Until when, on the broker's clock.
    pub(crate) until_ms: u64,
    /// For its bytes, not for the number of its messages.
    pub(crate) for_bytes: bool,
}

impl Flow {
    /// `None`: there is nothing to watch.
    pub(crate) fn new(messages_per_second: u32, bytes_per_second: u64) -> Option<Box<Self>> {
        let messages = Bucket::new(u64::from(messages_per_second));
        let bytes = Bucket::new(bytes_per_second);
        (messages.is_some() || bytes.is_some()).then(|| Box::new(Self { messages, bytes, pause: None }))
    }

    /// Counts a publish whose packet has so many bytes. Returns whether the client has to wait now.
    pub(crate) fn count(&mut self, packet_bytes: usize, now: Now) -> Option<Throttled> {
        let take = |bucket: &mut Option<Bucket>, tokens| {
            bucket.as_mut().map_or(0, |bucket| {
                bucket.take(tokens, now.mono_ms);
                bucket.paid_at_ms()
            })
        };
        let by_messages = take(&mut self.messages, 1);
        let by_bytes = take(&mut self.bytes, packet_bytes as u64);
        let until_ms = by_messages.max(by_bytes);
        if until_ms <= now.mono_ms {
            return None;
        }
        self.pause =
            Some(Box::pin(tokio::time::sleep(Duration::from_millis(until_ms.saturating_sub(now.mono_ms)))));
        Some(Throttled { until_ms, for_bytes: by_bytes > by_messages })
    }

    /// Whether the client has to wait, without asking to be woken.
    pub(crate) fn is_paused(&self) -> bool {
        self.pause.is_some()
    }

    /// Whether the client may be read; if not, the waker is registered.
    pub(crate) fn is_open(&mut self, cx: &mut Context<'_>) -> bool {
        if let Some(pause) = &mut self.pause {
            if pause.as_mut().poll(cx) == Poll::Pending {
                return false;
            }
            self.pause = None;
        }
        true
    }
}
