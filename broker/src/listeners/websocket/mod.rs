//! WebSocket below MQTT (MQTT 5.0 §6): the opening request, then a stream of binary frames.
//!
//! Our own and small, because MQTT needs so little of it: no message is ever gathered, what is read is unmasked where it
//! lies, what is written isn't copied, and an idle connection holds no buffer. docs/decisions/0014 has the reasons.

mod frame;
#[cfg(test)]
mod tests;
mod upgrade;

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use smallvec::SmallVec;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use self::frame::Head;
pub use self::frame::{ClientFrame, Control, FrameError, FrameReader};
pub(super) use self::upgrade::UpgradeError;
pub use self::upgrade::accept_key;
use super::config::WebSocketConfig;

/// Status code of an end without a fault (RFC 6455 §7.4.1).
const NORMAL: u16 = 1000;

/// A stream inside WebSocket, on the server's side.
pub(crate) struct WebSocket<IO> {
    io: IO,
    reader: FrameReader,
    /// What came behind the request.
    early: Vec<u8>,
    /// Head of the frame that is being written, and how much of its payload is still to come.
    head: Head,
    left: usize,
    /// Control frames on their way out.
    control: Vec<u8>,
    control_sent: usize,
    /// The last Ping that waits for its answer; those before it need none (RFC 6455 §5.5.3).
    ping: Option<Box<[u8]>>,
    fault: Option<FrameError>,
    /// Status code for our Close.
    status: u16,
    /// The client has sent its last frame.
    is_at_end: bool,
    /// Our Close is written, or on its way.
    is_shut: bool,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> WebSocket<IO> {
    /// Reads the request and answers it.
    pub(super) async fn accept(mut io: IO, config: &WebSocketConfig) -> Result<Self, UpgradeError> {
        let early = upgrade::answer_request(&mut io, config).await?;
        Ok(Self { early, ..Self::answered(io, config.max_frame_size) })
    }

    /// A stream whose request somebody else has answered.
    pub(super) fn answered(io: IO, max_frame_size: u64) -> Self {
        Self {
            io,
            reader: FrameReader::new(max_frame_size),
            early: Vec::new(),
            head: Head::default(),
            left: 0,
            control: Vec::new(),
            control_sent: 0,
            ping: None,
            fault: None,
            status: NORMAL,
            is_at_end: false,
            is_shut: false,
        }
    }

    /// What it runs over.
    pub(super) fn inner(&self) -> &IO {
        &self.io
    }

    /// Reads frames until some bytes of the stream are there.
    fn read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            if let Some(fault) = self.fault {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, fault)));
            }
            if self.is_at_end || buf.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            let start = buf.filled().len();
            if self.early.is_empty() {
                ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
            } else {
                let count = buf.remaining().min(self.early.len());
                buf.put_slice(self.early.get(..count).unwrap_or_default());
                self.early.drain(..count);
                self.early.shrink_to_fit();
            }
            let fresh = buf.filled_mut().get_mut(start..).unwrap_or_default();
            if fresh.is_empty() {
                self.is_at_end = true;
                return Poll::Ready(Ok(()));
            }
            let (ping, status, is_at_end) = (&mut self.ping, &mut self.status, &mut self.is_at_end);
            let (count, outcome) = self.reader.read(fresh, &mut |control| match control {
                Control::Ping(payload) => *ping = Some(payload),
                Control::Close(given) => {
                    *status = given.unwrap_or(NORMAL);
                    *is_at_end = true;
                }
            });
            buf.set_filled(start + count);
            if let Err(fault) = outcome {
                self.status = fault.status();
                self.fault = Some(fault);
            }
            // A socket that is full takes the Pong later.
            if let Poll::Ready(Err(error)) = self.send_control(cx) {
                return Poll::Ready(Err(error));
            }
            if count > 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Gets out control frames; not inside a frame that is being written.
    fn send_control(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.left > 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            while let Some(rest) = self.control.get(self.control_sent..).filter(|rest| !rest.is_empty()) {
                match ready!(Pin::new(&mut self.io).poll_write(cx, rest))? {
                    0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    count => self.control_sent += count,
                }
            }
            self.control = Vec::new();
            self.control_sent = 0;
            match self.ping.take().filter(|_| !self.is_shut) {
                Some(payload) => frame::append_pong(&payload, &mut self.control),
                None => return Poll::Ready(Ok(())),
            }
        }
    }

    /// Writes what of `bufs` the socket takes, in a frame that is long enough for all of them.
    fn write(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if self.left == 0 {
            ready!(self.send_control(cx))?;
            self.left = bufs.iter().map(|slice| slice.len()).sum();
            if self.left == 0 {
                return Poll::Ready(Ok(0));
            }
            self.head = Head::binary(self.left);
        }
        loop {
            let written = {
                let mut slices: SmallVec<[IoSlice<'_>; 8]> = SmallVec::new();
                slices.push(IoSlice::new(self.head.rest()));
                let mut left = self.left;
                for slice in bufs {
                    let part = slice.get(..left).unwrap_or(slice);
                    left -= part.len();
                    slices.push(IoSlice::new(part));
                }
                ready!(Pin::new(&mut self.io).poll_write_vectored(cx, &slices))?
            };
            if written == 0 {
                return Poll::Ready(Ok(0));
            }
            let count = self.head.advance(written);
            if count > 0 {
                self.left -= count;
                return Poll::Ready(Ok(count));
            }
        }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for WebSocket<IO> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.get_mut().read(cx, buf)
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WebSocket<IO> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().write(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().write(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.send_control(cx))?;
        Pin::new(&mut this.io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.send_control(cx))?;
        // Inside a frame that was cut short no other can be written.
        if !this.is_shut && this.left == 0 {
            this.is_shut = true;
            frame::append_close(this.status, &mut this.control);
            ready!(this.send_control(cx))?;
        }
        Pin::new(&mut this.io).poll_shutdown(cx)
    }
}
