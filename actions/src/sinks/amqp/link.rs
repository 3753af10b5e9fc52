//! What the library runs on: a connection of ours with the [`Guard`] in it, and the tasks that it starts.
//!
//! The library drives a connection from a thread of its own, which ends when the connection does, and asks the far side
//! for leave before it closes, which may never come. So that nothing of it stays when we are done, the [`Gate`] shuts the
//! connection from our side and ends its tasks: at once, or a moment after the library has asked for leave.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use async_rs::traits::{Executor, Reactor, RuntimeKit};
use async_rs::util::{Task, TaskImpl};
use futures_core::Stream;
use futures_io::{AsyncRead, AsyncWrite};
use parking_lot::Mutex;
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinHandle};

use super::guard::{Guard, Notice, Violation};
use crate::connectors::Link;

/// Bytes that are read at a time.
const READ_BYTES: usize = 16 << 10;

/// Why the server closed something: its code and its words.
pub(super) type Closing = (u16, String);

/// What is known of a connection beside what the library says, and its end.
#[derive(Debug, Default)]
pub(super) struct Gate {
    state: watch::Sender<State>,
    inner: Mutex<Inner>,
}

/// How a connection stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum State {
    #[default]
    Open,
    /// The server takes no messages, and says why.
    Blocked(String),
    /// Nobody drives it any more.
    Gone,
}

#[derive(Debug, Default)]
struct Inner {
    is_shut: bool,
    wakers: [Option<Waker>; 2],
    tasks: Vec<AbortHandle>,
    closings: HashMap<u16, Closing>,
    violation: Option<Violation>,
    lost: Option<String>,
}

impl Gate {
    /// Ends the connection and every task of it, now.
    pub(super) fn shut(&self) {
        let (wakers, tasks) = {
            let mut inner = self.inner.lock();
            inner.is_shut = true;
            (std::mem::take(&mut inner.wakers), std::mem::take(&mut inner.tasks))
        };
        wakers.into_iter().flatten().for_each(Waker::wake);
        tasks.into_iter().for_each(|task| task.abort());
        self.state.send_replace(State::Gone);
    }

    pub(super) fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// Waits until it is no longer open.
    pub(super) async fn stopped(&self) -> State {
        let mut state = self.state.subscribe();
        match state.wait_for(|state| *state != State::Open).await {
            Ok(state) => state.clone(),
            Err(_) => State::Gone,
        }
    }

    /// Waits until nobody drives it any more.
    pub(super) async fn gone(&self) {
        let mut state = self.state.subscribe();
        // A gate that is dropped is gone too.
        drop(state.wait_for(|state| *state == State::Gone).await);
    }

    /// Why the server closed this channel, told once.
    pub(super) fn closing(&self, channel: u16) -> Option<Closing> {
        self.inner.lock().closings.remove(&channel)
    }

    /// How the connection was lost.
    pub(super) fn lost(&self) -> Option<String> {
        self.inner.lock().lost.clone()
    }

    /// What the server said that it mustn't have.
    pub(super) fn violation(&self) -> Option<Violation> {
        self.inner.lock().violation.clone()
    }

    fn note_lost(&self, text: impl Into<String>) {
        self.inner.lock().lost.get_or_insert(text.into());
    }

    fn note(&self, notice: Notice) {
        match notice {
            Notice::Closed { channel, code, text } => {
                self.inner.lock().closings.insert(channel, (code, text));
            }
            Notice::Blocked { reason } => self.change(State::Blocked(reason)),
            Notice::Unblocked => self.change(State::Open),
        }
    }

    fn change(&self, to: State) {
        self.state.send_if_modified(|state| {
            let is_other = *state != State::Gone && *state != to;
            if is_other {
                *state = to;
            }
            is_other
        });
    }

    /// Whether it is open; who asks is woken when it no longer is.
    fn is_open(&self, side: usize, waker: &Waker) -> bool {
        let mut inner = self.inner.lock();
        if let Some(slot) = inner.wakers.get_mut(side)
            && slot.as_ref().is_none_or(|known| !known.will_wake(waker))
        {
            *slot = Some(waker.clone());
        }
        !inner.is_shut
    }

    fn register(&self, task: AbortHandle) {
        let mut inner = self.inner.lock();
        if inner.is_shut {
            task.abort();
            return;
        }
        inner.tasks.retain(|task| !task.is_finished());
        inner.tasks.push(task);
    }
}

/// The connection as the library sees it.
pub(super) struct Guarded {
    link: Link,
    guard: Guard,
    gate: Arc<Gate>,
    /// What has passed and isn't read yet, from `taken` on.
    passed: Vec<u8>,
    taken: usize,
}

impl Guarded {
    pub(super) fn new(link: Link, guard: Guard, gate: Arc<Gate>) -> Self {
        Self { link, guard, gate, passed: Vec::new(), taken: 0 }
    }

    fn shut_error() -> io::Error {
        io::Error::new(io::ErrorKind::ConnectionAborted, "it was given up")
    }
}

/// Whoever drove it has ended, in whatever way. Its tasks may still have something to tell.
impl Drop for Guarded {
    fn drop(&mut self) {
        self.gate.change(State::Gone);
    }
}

impl AsyncRead for Guarded {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if !this.gate.is_open(0, cx.waker()) {
            return Poll::Ready(Err(Self::shut_error()));
        }
        loop {
            let waiting = this.passed.get(this.taken..).unwrap_or_default();
            let taken = waiting.len().min(buf.len());
            if taken > 0 {
                if let (Some(to), Some(from)) = (buf.get_mut(..taken), waiting.get(..taken)) {
                    to.copy_from_slice(from);
                }
                this.taken += taken;
                return Poll::Ready(Ok(taken));
            }
            this.passed.clear();
            this.taken = 0;
            let mut bytes = [0; READ_BYTES];
            let mut read = ReadBuf::new(&mut bytes);
            match Pin::new(&mut this.link).poll_read(cx, &mut read) {
                Poll::Ready(Ok(())) if read.filled().is_empty() => {
                    this.gate.note_lost("the server closed it");
                    return Poll::Ready(Ok(0));
                }
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => {
                    this.gate.note_lost(error.to_string());
                    return Poll::Ready(Err(error));
                }
                Poll::Pending => return Poll::Pending,
            }
            let mut notices = Vec::new();
            let judged = this.guard.received(read.filled(), &mut this.passed, &mut notices);
            notices.into_iter().for_each(|notice| this.gate.note(notice));
            if let Err(violation) = judged {
                let (Violation::Protocol(text) | Violation::Mechanism(text)) = &violation;
                let error = io::Error::new(io::ErrorKind::InvalidData, text.clone());
                this.gate.inner.lock().violation.get_or_insert(violation);
                return Poll::Ready(Err(error));
            }
        }
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if !this.gate.is_open(1, cx.waker()) {
            return Poll::Ready(Err(Self::shut_error()));
        }
        let polled = Pin::new(&mut this.link).poll_write(cx, bytes);
        match &polled {
            Poll::Ready(Ok(written)) => this.guard.sent(bytes.get(..*written).unwrap_or_default()),
            Poll::Ready(Err(error)) => this.gate.note_lost(error.to_string()),
            Poll::Pending => {}
        }
        polled
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().link).poll_flush(cx)
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // It closes when it is dropped, and waits for nobody.
        Poll::Ready(Ok(()))
    }
}

/// The runtime that the library starts its tasks on: ours, with an account of them.
#[derive(Debug, Clone)]
pub(super) struct Kit {
    handle: Handle,
    gate: Arc<Gate>,
}

impl Kit {
    /// On the current runtime.
    pub(super) fn new(gate: Arc<Gate>) -> Self {
        Self { handle: Handle::current(), gate }
    }
}

impl RuntimeKit for Kit {}

impl Executor for Kit {
    type Task<T: Send + 'static> = Running<T>;

    fn block_on<T, F: Future<Output = T>>(&self, f: F) -> T {
        self.handle.block_on(f)
    }

    fn spawn<T: Send + 'static, F: Future<Output = T> + Send + 'static>(&self, f: F) -> Task<Running<T>> {
        let task = self.handle.spawn(f);
        self.gate.register(task.abort_handle());
        Running(task).into()
    }

    fn spawn_blocking<T: Send + 'static, F: FnOnce() -> T + Send + 'static>(&self, f: F) -> Task<Running<T>> {
        Running(self.handle.spawn_blocking(f)).into()
    }
}

/// A task of the library.
pub(super) struct Running<T>(JoinHandle<T>);

impl<T: Send + 'static> TaskImpl for Running<T> {}

impl<T: Send + 'static> Future for Running<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        match Pin::new(&mut self.0).poll(cx) {
            Poll::Ready(Ok(output)) => Poll::Ready(output),
            // Nothing can be said of a task that was ended; nobody waits for one.
            Poll::Ready(Err(_)) | Poll::Pending => Poll::Pending,
        }
    }
}

impl Reactor for Kit {
    type TcpStream = Guarded;
    type Sleep = tokio::time::Sleep;

    fn register<H: io::Read + io::Write + std::os::fd::AsFd + std::os::fd::AsRawFd + Send + 'static>(
        &self,
        _: H,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
        Err::<Guarded, _>(io::ErrorKind::Unsupported.into())
    }

    fn sleep(&self, duration: Duration) -> Self::Sleep {
        let _entered = self.handle.enter();
        tokio::time::sleep(duration)
    }

    fn interval(&self, _: Duration) -> impl Stream<Item = Instant> + Send + 'static {
        Never
    }

    /// The library never connects by itself.
    fn tcp_connect_addr(&self, _: SocketAddr) -> impl Future<Output = io::Result<Guarded>> + Send + 'static {
        std::future::ready(Err(io::ErrorKind::Unsupported.into()))
    }
}

/// The library wants no intervals.
struct Never;

impl Stream for Never {
    type Item = Instant;

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Instant>> {
        Poll::Ready(None)
    }
}
