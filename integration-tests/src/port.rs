//! Ports of loopback that are kept for somebody.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use rustix::net::{self, AddressFamily, SocketFlags, SocketType, sockopt};

/// A port that nobody is given as long as this lives but a server that asks for it, and where everybody is refused unless one listens.
///
/// Linux gives nobody a port of its own choice that is bound. Who asks for one by its number gets it although it is bound, if both
/// sides have said `SO_REUSEADDR` and nobody listens there: the standard library says it before it listens, and so do the
/// servers of the tests.
#[derive(Debug)]
pub struct ReservedPort(OwnedFd);

impl ReservedPort {
    /// Takes a free one.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "it takes something of the system's")]
    pub fn new() -> Self {
        let socket = socket();
        sockopt::set_socket_reuseaddr(&socket, true).unwrap();
        net::bind(&socket, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        Self(socket)
    }

    /// Which one.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        local_address(&self.0)
    }
}

/// A TCP socket that no process inherits.
pub(crate) fn socket() -> OwnedFd {
    net::socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap()
}

pub(crate) fn local_address(socket: &OwnedFd) -> SocketAddr {
    net::getsockname(socket).unwrap().try_into().unwrap()
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_server_comes_and_goes_and_nobody_else_gets_the_port() {
        let port = ReservedPort::new();
        for _ in 0..3 {
            let refused = TcpStream::connect(port.address()).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
            assert!(net::bind(socket(), &port.address()).is_err(), "bound by who doesn't share");
            let listener = TcpListener::bind(port.address()).unwrap();
            let client = TcpStream::connect(port.address()).unwrap();
            assert!(TcpListener::bind(port.address()).is_err(), "bound twice");
            // With a connection that is still open, too.
            drop(listener);
            drop(client);
        }
    }
}
