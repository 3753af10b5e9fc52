//! Where a client comes from.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// Address of the far side of a Network Connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PeerAddress {
    /// An IP address and a port. Behind a proxy that says so (PROXY protocol) they are the client's own.
    Ip(SocketAddr),
    /// A program on this machine, by a Unix socket.
    Unix,
}

impl PeerAddress {
    /// The IP address, an IPv4 address that came as IPv6 in its own form; `None`: the client came by a Unix socket.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Ip(address) => Some(address.ip().to_canonical()),
            Self::Unix => None,
        }
    }
}

impl From<SocketAddr> for PeerAddress {
    fn from(address: SocketAddr) -> Self {
        Self::Ip(address)
    }
}

/// `127.0.0.1:40123`, `[::1]:40123` or `unix`.
impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Unix => f.write_str(UNIX),
        }
    }
}

/// How a Unix socket's far side is written.
const UNIX: &str = "unix";

impl FromStr for PeerAddress {
    type Err = std::net::AddrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == UNIX { Ok(Self::Unix) } else { text.parse().map(Self::Ip) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        for text in ["127.0.0.1:40123", "[::1]:1", "unix"] {
            assert_eq!(text.parse::<PeerAddress>().unwrap().to_string(), text);
        }
        for text in ["", "Unix", "127.0.0.1", "localhost:1"] {
            assert!(text.parse::<PeerAddress>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_ipv4_address_has_one_form() {
        let mapped: PeerAddress = "[::ffff:10.0.0.1]:7".parse().unwrap();
        assert_eq!(mapped.ip(), Some(IpAddr::from([10, 0, 0, 1])));
        assert_eq!(PeerAddress::Unix.ip(), None);
    }
}
