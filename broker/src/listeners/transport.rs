//! What carries a Network Connection's bytes.

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// A stream of bytes in both directions, as the specification asks of a Network Connection (MQTT 5.0 §4.2).
///
/// What was accepted by a write may wait in the transport until it is flushed.
pub(crate) trait Transport: AsyncRead + AsyncWrite + Unpin {}

impl Transport for TcpStream {}
