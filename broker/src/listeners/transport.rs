//! What carries a Network Connection's bytes.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use super::door::Known;
use super::tls::TlsStream;
use super::websocket::WebSocket;
use crate::access::Identity;

/// A stream of bytes in both directions, as the specification asks of a Network Connection (MQTT 5.0 §4.2).
///
/// What was accepted by a write may wait in the transport until it is flushed.
pub(crate) trait Transport: AsyncRead + AsyncWrite + Unpin {
    /// The certificate that the client showed, DER, if the listener's authority signed it.
    fn certificate(&self) -> Option<Arc<[u8]>> {
        None
    }

    /// Who the client is, where that is known before its CONNECT.
    fn identity(&self) -> Option<Arc<Identity>> {
        None
    }
}

/// Plain TCP, the hot path, is a type of its own: a connection of it carries nothing of the others.
impl Transport for TcpStream {}

/// Any other transport.
pub(crate) enum Carrier {
    Unix(UnixStream),
    Tls(Box<TlsStream<TcpStream>>),
    WebSocket(Box<WebSocket<TcpStream>>),
    SecureWebSocket(Box<WebSocket<TlsStream<TcpStream>>>),
    Known(Box<WebSocket<Known>>),
}

/// Calls the same method of whichever it is.
macro_rules! whichever {
    ($carrier:expr, $io:ident => $call:expr) => {
        match $carrier.get_mut() {
            Carrier::Unix($io) => $call,
            Carrier::Tls($io) => {
                let $io = &mut **$io;
                $call
            }
            Carrier::WebSocket($io) => {
                let $io = &mut **$io;
                $call
            }
            Carrier::SecureWebSocket($io) => {
                let $io = &mut **$io;
                $call
            }
            Carrier::Known($io) => {
                let $io = &mut **$io;
                $call
            }
        }
    };
}

impl Transport for Carrier {
    fn certificate(&self) -> Option<Arc<[u8]>> {
        match self {
            Self::Unix(_) | Self::WebSocket(_) | Self::Known(_) => None,
            Self::Tls(stream) => stream.certificate(),
            Self::SecureWebSocket(stream) => stream.inner().certificate(),
        }
    }

    fn identity(&self) -> Option<Arc<Identity>> {
        match self {
            Self::Known(stream) => Some(stream.inner().identity()),
            Self::Unix(_) | Self::Tls(_) | Self::WebSocket(_) | Self::SecureWebSocket(_) => None,
        }
    }
}

impl AsyncRead for Carrier {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        whichever!(self, io => Pin::new(io).poll_read(cx, buf))
    }
}

impl AsyncWrite for Carrier {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        whichever!(self, io => Pin::new(io).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        whichever!(self, io => Pin::new(io).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        whichever!(self, io => Pin::new(io).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        whichever!(self, io => Pin::new(io).poll_shutdown(cx))
    }
}
