//! A connection that reads no more than it was promised, for libraries that would read an answer without end into memory.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Link;

/// How many bytes the far side may still send.
#[derive(Debug, Clone)]
pub(crate) struct Allowance {
    left: Arc<AtomicUsize>,
    bytes_max: usize,
}

impl Allowance {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { left: Arc::new(AtomicUsize::new(bytes_max)), bytes_max }
    }

    /// Something was asked for: an answer may come, of the whole size again.
    pub(crate) fn refill(&self) {
        self.left.store(self.bytes_max, Ordering::Relaxed);
    }
}

/// A link that breaks when more comes than is allowed.
#[derive(Debug)]
pub(crate) struct Bounded {
    link: Link,
    allowance: Allowance,
}

impl Bounded {
    pub(crate) const fn new(link: Link, allowance: Allowance) -> Self {
        Self { link, allowance }
    }
}

impl AsyncRead for Bounded {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let polled = Pin::new(&mut this.link).poll_read(cx, buf);
        let read = buf.filled().len() - before;
        let left = this.allowance.left.load(Ordering::Relaxed);
        if read > left {
            let limit = this.allowance.bytes_max;
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("the far side sent more than the limit of {limit} bytes"),
            )));
        }
        // A refill in between is lost at worst to one read, which is less than what it allows.
        this.allowance.left.store(left - read, Ordering::Relaxed);
        polled
    }
}

impl AsyncWrite for Bounded {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().link).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().link).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().link).poll_shutdown(cx)
    }
}
