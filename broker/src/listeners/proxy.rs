//! The PROXY protocol, version 2: a proxy says, before anything else, whose connection it passes on.
//!
//! Only its address is taken over; what else a proxy tells (TLVs) is passed over. A header is read to its exact end, so
//! that what follows stays in the socket. Who may send one is the listener's matter: whoever may could claim any address.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Bytes before the addresses.
pub const PREFIX_BYTES: usize = 16;
/// Most bytes of addresses and TLVs that are read.
pub(super) const REST_BYTES_MAX: usize = 4 * 1024;

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
const VERSION_1: &[u8] = b"PROXY ";
const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;
const TCP_4: u8 = 0x11;
const TCP_6: u8 = 0x21;

/// Why a header isn't accepted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProxyError {
    /// The connection broke before its end.
    #[error("the connection broke inside its PROXY header")]
    Io(#[from] io::Error),
    /// There is none.
    #[error("no PROXY header came first")]
    Missing,
    /// It is of version 1.
    #[error("the proxy speaks version 1 of the PROXY protocol; let it speak version 2")]
    Version1,
    /// A version or command that doesn't exist.
    #[error("a PROXY header with the unknown version and command {0:#04x}")]
    Command(u8),
    /// Too few bytes for the addresses that it announces.
    #[error("a PROXY header with {0} bytes, too few for its addresses")]
    Short(usize),
    /// It is larger than the limit.
    #[error("a PROXY header with {size} bytes, more than the limit of {REST_BYTES_MAX}")]
    TooLarge {
        /// Bytes behind the first 16.
        size: usize,
    },
}

/// What the first 16 bytes of a header say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    command: u8,
    family: u8,
    /// Bytes that follow.
    pub rest: usize,
}

impl Prefix {
    /// Reads the first 16 bytes.
    ///
    /// # Errors
    /// [`ProxyError`] where they are not the beginning of a header of version 2 that is within the limit.
    pub fn read(bytes: &[u8; PREFIX_BYTES]) -> Result<Self, ProxyError> {
        if bytes.starts_with(VERSION_1) {
            return Err(ProxyError::Version1);
        }
        let Some([command, family, high, low]) = bytes.strip_prefix(&SIGNATURE) else {
            return Err(ProxyError::Missing);
        };
        if ![LOCAL, PROXY].contains(command) {
            return Err(ProxyError::Command(*command));
        }
        let rest = usize::from(u16::from_be_bytes([*high, *low]));
        if rest > REST_BYTES_MAX {
            return Err(ProxyError::TooLarge { size: rest });
        }
        Ok(Self { command: *command, family: *family, rest })
    }

    /// The client's address, from the bytes that follow. `None`: the proxy speaks for itself, or for somebody without an IP
    /// address.
    ///
    /// # Errors
    /// [`ProxyError::Short`].
    pub fn client(&self, rest: &[u8]) -> Result<Option<SocketAddr>, ProxyError> {
        let short = || ProxyError::Short(rest.len());
        if self.command == LOCAL {
            return Ok(None);
        }
        match self.family {
            TCP_4 => {
                let addresses = rest.first_chunk::<12>().ok_or_else(short)?;
                let [a, b, c, d, .., high, low, _, _] = *addresses;
                let port = u16::from_be_bytes([high, low]);
                Ok(Some(SocketAddr::new(Ipv4Addr::new(a, b, c, d).into(), port)))
            }
            TCP_6 => {
                let (addresses, ports) = rest.split_at_checked(32).ok_or_else(short)?;
                let client = addresses.first_chunk::<16>().ok_or_else(short)?;
                let [high, low, _, _] = *ports.first_chunk::<4>().ok_or_else(short)?;
                let port = u16::from_be_bytes([high, low]);
                Ok(Some(SocketAddr::new(Ipv6Addr::from(*client).into(), port)))
            }
            _ => Ok(None),
        }
    }
}

/// Reads a header from a stream; returns the client's address, if it is said.
pub(super) async fn read_header(io: &mut (impl AsyncRead + Unpin)) -> Result<Option<SocketAddr>, ProxyError> {
    let mut prefix = [0; PREFIX_BYTES];
    let mut filled = 0;
    while let Some(rest) = prefix.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match io.read(rest).await? {
            0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            count => filled += count,
        }
        // A client of MQTT waits for an answer to fewer bytes than these.
        let seen = prefix.get(..filled).unwrap_or_default();
        if !SIGNATURE.starts_with(seen) && !seen.starts_with(&SIGNATURE) {
            let is_first = VERSION_1.starts_with(seen) || seen.starts_with(VERSION_1);
            return Err(if is_first { ProxyError::Version1 } else { ProxyError::Missing });
        }
    }
    let prefix = Prefix::read(&prefix)?;
    let mut rest = vec![0; prefix.rest];
    io.read_exact(&mut rest).await?;
    prefix.client(&rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend([command, family]);
        bytes.extend(u16::try_from(rest.len()).unwrap().to_be_bytes());
        bytes.extend(rest);
        bytes
    }

    async fn read(bytes: &[u8]) -> (Result<Option<SocketAddr>, ProxyError>, usize) {
        let mut rest = bytes;
        let outcome = read_header(&mut rest).await;
        (outcome, rest.len())
    }

    const V4: [u8; 12] = [10, 1, 2, 3, 127, 0, 0, 1, 0xc0, 0, 7, 0x5b];

    #[tokio::test]
    async fn the_clients_address_is_taken_over_and_what_follows_stays() {
        let mut v6 = [0; 36];
        v6[15] = 1;
        v6[32..34].copy_from_slice(&[0, 80]);
        let with_tlvs = [&V4[..], &[0x20, 0, 2, 1, 1]].concat();
        for (bytes, expected) in [
            (header(PROXY, TCP_4, &V4), Some("10.1.2.3:49152")),
            (header(PROXY, TCP_4, &with_tlvs), Some("10.1.2.3:49152")),
            (header(PROXY, TCP_6, &v6), Some("[::1]:80")),
            (header(LOCAL, TCP_4, &V4), None),
            (header(LOCAL, 0, &[]), None),
            (header(PROXY, 0, &[]), None),
            (header(PROXY, 0x31, &[0; 216]), None),
        ] {
            let stream = [&bytes[..], &[0x10, 0]].concat();
            let (client, left) = read(&stream).await;
            assert_eq!(client.unwrap(), expected.map(|text| text.parse().unwrap()));
            assert_eq!(left, 2);
        }
    }

    #[tokio::test]
    async fn what_is_no_header_is_refused() {
        for (bytes, expected) in [
            (&b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n"[..], "version 1"),
            (b"PROX", "version 1"),
            (b"\x10\x0c\x00\x04MQTT", "no PROXY header"),
            (b"\x16\x03\x01", "no PROXY header"),
            (b"\r\n\r\n\0\r\nQUIX", "no PROXY header"),
            (b"\r\n\r\n\0\r\nQUIT", "broke"),
            (b"", "broke"),
            (&header(0x11, TCP_4, &V4), "unknown version and command 0x11"),
            (&header(0x22, TCP_4, &V4), "unknown version and command 0x22"),
            (&header(PROXY, TCP_4, &V4[..11]), "11 bytes, too few"),
            (&header(PROXY, TCP_6, &[0; 35]), "35 bytes, too few"),
            (&header(PROXY, TCP_4, &V4)[..20], "broke"),
        ] {
            let error = read(bytes).await.0.unwrap_err().to_string();
            assert!(error.contains(expected), "{bytes:02x?}: {error}");
        }
    }

    #[tokio::test]
    async fn a_header_may_be_as_large_as_the_limit() {
        let (client, left) = read(&header(LOCAL, 0, &[0; REST_BYTES_MAX])).await;
        assert_eq!((client.unwrap(), left), (None, 0));
        let error = read(&header(LOCAL, 0, &[0; REST_BYTES_MAX + 1])).await.0.unwrap_err();
        assert!(matches!(error, ProxyError::TooLarge { size } if size == REST_BYTES_MAX + 1));
    }
}
