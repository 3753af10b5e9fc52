//! A connection that can be ended by whoever knows it.
//!
//! The library finishes a write in a task of its own when its caller is gone, so that no half of a request stays on the
//! wire. Where the far side doesn't read, that task would hold socket and request for ever; ending the stream ends it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::connectors::Bounded;

/// Ends a stream, and knows whether it has ended.
#[derive(Debug, Clone, Default)]
pub(super) struct Cut(Arc<State>);

#[derive(Debug, Default)]
struct State {
    is_cut: AtomicBool,
    reader: Mutex<Option<Waker>>,
    writer: Mutex<Option<Waker>>,
}

impl Cut {
    /// Ends the stream: whoever reads or writes gets an error, now and from now on.
    pub(super) fn cut(&self) {
        self.0.is_cut.store(true, Ordering::SeqCst);
        for waiting in [&self.0.reader, &self.0.writer] {
            let waker = waiting.lock().take();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    /// Whether it was ended, or broke.
    pub(super) fn is_cut(&self) -> bool {
        self.0.is_cut.load(Ordering::SeqCst)
    }

    /// Polls, unless the stream has ended; wakes `cx` when it does.
    fn poll<T>(
        &self,
        waiting: &Mutex<Option<Waker>>,
        cx: &mut Context<'_>,
        poll: impl FnOnce(&mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        *waiting.lock() = Some(cx.waker().clone());
        // Looked at behind the waker's registration: an end that this misses wakes.
        if self.is_cut() {
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "the connection was given up",
            )));
        }
        let polled = poll(cx);
        if matches!(polled, Poll::Ready(Err(_))) {
            self.cut();
        }
        polled
    }
}

/// A stream that a [`Cut`] ends.
#[derive(Debug)]
pub(super) struct Severable<S = Bounded> {
    stream: S,
    cut: Cut,
}

impl<S> Severable<S> {
    pub(super) const fn new(stream: S, cut: Cut) -> Self {
        Self { stream, cut }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Severable<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { stream, cut } = self.get_mut();
        let before = buf.filled().len();
        let polled = cut.poll(&cut.0.reader, cx, |cx| Pin::new(stream).poll_read(cx, buf));
        if matches!(polled, Poll::Ready(Ok(()))) && buf.filled().len() == before && buf.remaining() > 0 {
            // The far side has closed it: nothing that is sent from now on would be answered.
            cut.cut();
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Severable<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let Self { stream, cut } = self.get_mut();
        cut.poll(&cut.0.writer, cx, |cx| Pin::new(stream).poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { stream, cut } = self.get_mut();
        cut.poll(&cut.0.writer, cx, |cx| Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    #[tokio::test]
    async fn an_end_reaches_whoever_waits() {
        let (near, _far) = duplex(4);
        let cut = Cut::default();
        let (mut reader, mut writer) = tokio::io::split(Severable::new(near, cut.clone()));
        let reading = tokio::spawn(async move { reader.read_u8().await });
        let writing = tokio::spawn(async move { writer.write_all(b"more than there is room for").await });
        tokio::task::yield_now().await;
        assert!(!cut.is_cut());
        cut.cut();
        for error in [reading.await.unwrap().unwrap_err(), writing.await.unwrap().unwrap_err()] {
            assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
        }
    }

    #[tokio::test]
    async fn what_the_far_side_closed_is_known_to_be_closed() {
        let (near, far) = duplex(4);
        let cut = Cut::default();
        let mut stream = Severable::new(near, cut.clone());
        drop(far);
        assert_eq!(stream.read(&mut [0; 4]).await.unwrap(), 0);
        assert!(cut.is_cut());
        assert!(stream.write_all(b"x").await.is_err());
    }
}
