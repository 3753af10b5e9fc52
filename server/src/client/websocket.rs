//! WebSocket below MQTT, on the client's side (RFC 6455, MQTT 5.0 §6): a request, its answer, then frames.
//!
//! Frames are read by the reader that the broker has, and written into a buffer under their mask. A frame holds at most
//! [`FRAME_BYTES_MAX`], so that the buffer is bounded and no limit of a server is met.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use broker::{WebSocketClientFrame, WebSocketControl, WebSocketFrameReader, websocket_accept_key};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};

use super::{ClientError, Endpoint};
use crate::server::random;

/// Largest answer to the request, in bytes.
const ANSWER_BYTES_MAX: usize = 16 * 1024;
/// Most headers of an answer.
const HEADERS_MAX: usize = 64;
/// Largest frame that is written, in bytes of its payload.
const FRAME_BYTES_MAX: usize = 16 * 1024;
/// Largest frame that is read: what is read is bounded by packets, not by frames.
const READ_FRAME_BYTES_MAX: u64 = i64::MAX as u64;
/// Status code of an end without a fault (RFC 6455 §7.4.1).
const NORMAL: u16 = 1000;

/// A stream inside WebSocket.
#[derive(Debug)]
pub(super) struct WebSocket<IO> {
    io: IO,
    reader: WebSocketFrameReader,
    /// What came behind the answer.
    early: Vec<u8>,
    /// Frames on their way out; those bytes before `sent` are gone.
    output: Vec<u8>,
    sent: usize,
    is_at_end: bool,
    /// Our Close is in the output.
    is_shut: bool,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> WebSocket<IO> {
    /// Asks the server for WebSocket.
    pub(super) async fn request(mut io: IO, endpoint: &Endpoint, path: &str) -> Result<Self, ClientError> {
        let key = STANDARD.encode((u128::from(random()) << 64 | u128::from(random())).to_ne_bytes());
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {endpoint}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n"
        );
        io.write_all(request.as_bytes()).await?;
        io.flush().await?;
        let mut answer = Vec::new();
        let len = loop {
            if let Some(len) = read_answer(&answer, &key)? {
                break len;
            }
            if answer.len() >= ANSWER_BYTES_MAX {
                return Err(ClientError::WebSocket("its answer is too long"));
            }
            if io.read_buf(&mut answer).await? == 0 {
                return Err(ClientError::Closed);
            }
        };
        let early = answer.split_off(len);
        Ok(Self {
            io,
            reader: WebSocketFrameReader::of_server(READ_FRAME_BYTES_MAX),
            early,
            output: Vec::new(),
            sent: 0,
            is_at_end: false,
            is_shut: false,
        })
    }

    fn read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
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
            }
            let fresh = buf.filled_mut().get_mut(start..).unwrap_or_default();
            if fresh.is_empty() {
                self.is_at_end = true;
                return Poll::Ready(Ok(()));
            }
            let (output, is_at_end) = (&mut self.output, &mut self.is_at_end);
            let (count, outcome) = self.reader.read(fresh, &mut |control| match control {
                WebSocketControl::Ping(payload) => {
                    WebSocketClientFrame::Pong(&payload).append(mask(), output);
                }
                WebSocketControl::Close(_) => *is_at_end = true,
            });
            buf.set_filled(start + count);
            outcome.map_err(|fault| io::Error::new(io::ErrorKind::InvalidData, fault))?;
            // A Pong goes now; a socket that is full takes it later.
            if let Poll::Ready(Err(error)) = self.send(cx) {
                return Poll::Ready(Err(error));
            }
            if count > 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Sends the frames that wait.
    fn send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.output.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match ready!(Pin::new(&mut self.io).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.sent += count,
            }
        }
        self.output.clear();
        self.sent = 0;
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for WebSocket<IO> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.get_mut().read(cx, buf)
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WebSocket<IO> {
    /// Takes a frame's worth when what was taken before is gone.
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.send(cx))?;
        let part = buf.get(..FRAME_BYTES_MAX).unwrap_or(buf);
        if !part.is_empty() {
            WebSocketClientFrame::Binary(part).append(mask(), &mut this.output);
        }
        Poll::Ready(Ok(part.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.send(cx))?;
        Pin::new(&mut this.io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.is_shut {
            this.is_shut = true;
            WebSocketClientFrame::Close(NORMAL).append(mask(), &mut this.output);
        }
        ready!(this.send(cx))?;
        Pin::new(&mut this.io).poll_shutdown(cx)
    }
}

/// A mask that nobody can guess.
fn mask() -> [u8; 4] {
    let [a, b, c, d, ..] = random().to_ne_bytes();
    [a, b, c, d]
}

/// Judges the answer to a request with this key; returns its length when it is whole.
fn read_answer(bytes: &[u8], key: &str) -> Result<Option<usize>, ClientError> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut answer = httparse::Response::new(&mut headers);
    let len = match answer.parse(bytes) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(ClientError::WebSocket("it doesn't speak HTTP there")),
    };
    let status = answer.code.unwrap_or_default();
    if status != 101 {
        return Err(ClientError::WebSocketRefused {
            status,
            reason: answer.reason.unwrap_or_default().to_owned(),
        });
    }
    let header = |name: &str| {
        let mut found = answer.headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name));
        found.next().and_then(|header| std::str::from_utf8(header.value).ok()).map(str::trim)
    };
    if header("upgrade").is_none_or(|value| !value.eq_ignore_ascii_case("websocket"))
        || header("sec-websocket-accept") != Some(websocket_accept_key(key).as_str())
    {
        return Err(ClientError::WebSocket("its answer is none of WebSocket"));
    }
    if header("sec-websocket-protocol") != Some("mqtt") {
        return Err(ClientError::WebSocket("it doesn't speak MQTT under this path"));
    }
    Ok(Some(len))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
    const GOOD: &str = "HTTP/1.1 101 Switching Protocols\r\nupgrade: WebSocket\r\nConnection: Upgrade\r\n\
                        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n";

    #[test]
    fn only_the_answer_to_the_request_is_taken() {
        let read = |text: &str| read_answer(text.as_bytes(), KEY);
        assert_eq!(read(&format!("{GOOD}more")).unwrap(), Some(GOOD.len()));
        for end in 0..GOOD.len() {
            assert_eq!(read(GOOD.get(..end).unwrap()).unwrap(), None);
        }
        for (from, to, error) in [
            ("101", "200", "the server refused WebSocket: 200 Switching Protocols"),
            ("101 Switching Protocols", "401 Unauthorized", "the server refused WebSocket: 401 Unauthorized"),
            ("s3p", "S3p", "the server doesn't agree on WebSocket: its answer is none of WebSocket"),
            (
                "upgrade: WebSocket",
                "upgrade: h2c",
                "the server doesn't agree on WebSocket: its answer is none of WebSocket",
            ),
            (
                "upgrade: WebSocket\r\n",
                "",
                "the server doesn't agree on WebSocket: its answer is none of WebSocket",
            ),
            (
                "Protocol: mqtt",
                "Protocol: chat",
                "the server doesn't agree on WebSocket: it doesn't speak MQTT under this path",
            ),
            (
                "HTTP/1.1",
                "\x20\x02\x00",
                "the server doesn't agree on WebSocket: it doesn't speak HTTP there",
            ),
        ] {
            assert_eq!(read(&GOOD.replace(from, to)).unwrap_err().to_string(), error);
        }
    }

    #[tokio::test]
    async fn frames_go_through_a_narrow_pipe_and_pings_are_answered() {
        let (mut near, mut far) = tokio::io::duplex(11);
        let answering = async {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(far.read_u8().await.unwrap());
            }
            let request = String::from_utf8(request).unwrap();
            assert!(request.starts_with("GET /mqtt?a HTTP/1.1\r\nHost: b:1\r\n"), "{request}");
            let key = request.split("Key: ").nth(1).unwrap().split("\r\n").next().unwrap();
            let answer = GOOD.replace("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", &websocket_accept_key(key));
            // A ping in front of what the stream holds.
            far.write_all(&[answer.as_bytes(), b"\x89\x01p\x82\x05hello"].concat()).await.unwrap();
        };
        let endpoint = Endpoint::Tcp { host: "b".into(), port: 1 };
        let (socket, ()) = tokio::join!(WebSocket::request(&mut near, &endpoint, "/mqtt?a"), answering);
        let mut socket = socket.unwrap();

        let payload: Vec<u8> = (0..40_000usize).map(|at| u8::try_from(at % 251).unwrap()).collect();
        let ours = async {
            let mut got = [0; 5];
            socket.read_exact(&mut got).await.unwrap();
            assert_eq!(&got, b"hello");
            socket.write_all(&payload).await.unwrap();
            socket.shutdown().await.unwrap();
        };
        let theirs = async {
            let mut reader = WebSocketFrameReader::new(FRAME_BYTES_MAX as u64);
            let (mut got, mut controls) = (Vec::new(), Vec::new());
            while !matches!(controls.last(), Some(WebSocketControl::Close(_))) {
                let mut piece = vec![0; 64];
                let count = far.read(&mut piece).await.unwrap();
                assert!(count > 0);
                let (count, outcome) =
                    reader.read(&mut piece[..count], &mut |control| controls.push(control));
                outcome.unwrap();
                got.extend_from_slice(&piece[..count]);
            }
            assert!(got == payload);
            assert_eq!(controls, [WebSocketControl::Close(Some(NORMAL))]);
        };
        tokio::join!(ours, theirs);
    }
}
