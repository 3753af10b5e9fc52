//! From an address in the configuration to a connection.
//!
//! Every address is judged after its name was resolved and connected to as it was judged, so there is nothing to rebind in
//! between; where a library connects by itself it is given the judged addresses.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::Fault;
use crate::delivery::DeliveryError;
use crate::targets::TargetPolicy;
use crate::text::excerpt;

/// Most servers of one connector.
const SERVERS_MAX: usize = 16;
/// Longest name of a host (RFC 1035 section 2.3.4).
const HOST_BYTES_MAX: usize = 253;

/// A server as the configuration names it: `host:port`, an IPv6 address in brackets.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Endpoint {
    /// Name or address, without brackets.
    pub(crate) host: String,
    /// Port, never 0.
    pub(crate) port: u16,
}

impl Endpoint {
    fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let port: u16 = port.parse().ok().filter(|port| *port != 0)?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let is_host = match bare {
            Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
            None => {
                (1..=HOST_BYTES_MAX).contains(&host.len())
                    && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
            }
        };
        is_host.then(|| Self { host: bare.unwrap_or(host).to_owned(), port })
    }
}

impl Endpoint {
    /// A server as a far side names it; `None` if that can't be one.
    pub(crate) fn named(host: &str, port: u16) -> Option<Self> {
        let text = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        Self::parse(&text)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// `servers = ["host:port", …]`: 1 to 16, tried in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressList(Vec<Endpoint>);

impl AddressList {
    pub(crate) fn check(&self) -> Result<(), Fault> {
        if (1..=SERVERS_MAX).contains(&self.0.len()) {
            return Ok(());
        }
        Err(Fault::new("servers", format!("expected 1 to {SERVERS_MAX} servers, given {}", self.0.len())))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Endpoint> {
        self.0.iter()
    }
}

impl From<Endpoint> for AddressList {
    fn from(server: Endpoint) -> Self {
        Self(vec![server])
    }
}

impl<'de> Deserialize<'de> for AddressList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        let endpoint = |text: &String| {
            Endpoint::parse(text).ok_or_else(|| {
                let text = excerpt(text.as_bytes(), 80);
                de::Error::custom(format!("\"{text}\" is no server: expected \"host:port\""))
            })
        };
        texts.iter().map(endpoint).collect::<Result<_, _>>().map(Self)
    }
}

impl JsonSchema for AddressList {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "AddressList".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let server = json_schema!({ "type": "string", "pattern": r"^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]{1,253}):[0-9]{1,5}$" });
        json_schema!({ "type": "array", "items": server, "minItems": 1, "maxItems": SERVERS_MAX })
    }
}

impl Serialize for AddressList {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(ToString::to_string))
    }
}

/// Makes the connections of one connector.
#[derive(Clone)]
pub(crate) struct Dialer {
    pub(crate) targets: Arc<TargetPolicy>,
    /// Speaks TLS with this, if it is there.
    pub(crate) tls: Option<Arc<ClientConfig>>,
    /// Longest time for name, connection and TLS together, of all servers together.
    pub(crate) timeout: Duration,
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialer").field("has_tls", &self.tls.is_some()).finish_non_exhaustive()
    }
}

impl Dialer {
    /// Connects to the first server that takes it.
    pub(crate) async fn connect(&self, servers: &AddressList) -> Result<Link, DeliveryError> {
        let deadline = Instant::now() + self.timeout;
        let mut last = None;
        for server in servers.iter() {
            match self.connect_to(server, deadline).await {
                Ok(link) => return Ok(link),
                // The one that somebody must act upon is told rather than the last.
                Err(error) => match last {
                    Some(DeliveryError::Forbidden(_)) => {}
                    _ => last = Some(error),
                },
            }
        }
        Err(last.unwrap_or_else(|| unreachable("no server is given")))
    }

    async fn connect_to(&self, server: &Endpoint, deadline: Instant) -> Result<Link, DeliveryError> {
        let tcp = self.tcp(server, deadline).await?;
        self.secure(server, tcp, deadline).await
    }

    /// Connects to a server, without TLS as yet.
    pub(crate) async fn tcp(&self, server: &Endpoint, deadline: Instant) -> Result<TcpStream, DeliveryError> {
        let tcp = async {
            let addresses = self.addresses(server).await?;
            let tcp = TcpStream::connect(&*addresses).await;
            tcp.map_err(|error| unreachable(format!("{server}: {error}")))
        };
        let tcp = timeout_at(deadline, tcp).await.map_err(|_| self.late(server))??;
        // What is sent is whole; a pause for more would only cost time. A socket that can't be told so works all the same.
        drop(tcp.set_nodelay(true));
        Ok(tcp)
    }

    /// Speaks TLS over a connection, where the connector does.
    pub(crate) async fn secure(
        &self,
        server: &Endpoint,
        tcp: TcpStream,
        deadline: Instant,
    ) -> Result<Link, DeliveryError> {
        let Some(tls) = &self.tls else { return Ok(Link::Plain(tcp)) };
        let name = ServerName::try_from(server.host.clone())
            .map_err(|_| unreachable(format!("{server}: no name that a certificate could be for")))?;
        let hello = TlsConnector::from(Arc::clone(tls)).connect(name, tcp);
        let stream = timeout_at(deadline, hello).await.map_err(|_| self.late(server))?;
        let stream = stream.map_err(|error| unreachable(format!("{server}: TLS: {error}")))?;
        Ok(Link::Tls(Box::new(stream)))
    }

    fn late(&self, server: &Endpoint) -> DeliveryError {
        unreachable(format!("{server}: no connection within {:?}", self.timeout))
    }

    /// The addresses of a server that may be connected to.
    pub(crate) async fn addresses(&self, server: &Endpoint) -> Result<Vec<SocketAddr>, DeliveryError> {
        let found = lookup_host((server.host.as_str(), server.port)).await;
        let found = found.map_err(|error| unreachable(format!("{server}: {error}")))?;
        let mut refused = None;
        let allowed: Vec<SocketAddr> = found
            .filter(|address| match self.targets.check(&server.host, *address) {
                Ok(()) => true,
                Err(error) => {
                    refused = Some(error);
                    false
                }
            })
            .collect();
        match refused {
            Some(error) if allowed.is_empty() => Err(error.into()),
            None if allowed.is_empty() => Err(unreachable(format!("{server}: the name has no address"))),
            _ => Ok(allowed),
        }
    }
}

fn unreachable(cause: impl Into<String>) -> DeliveryError {
    DeliveryError::Unreachable { cause: cause.into() }
}

/// A connection.
#[derive(Debug)]
pub(crate) enum Link {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Link {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Link {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(cx, bytes),
            Self::Tls(tls) => Pin::new(tls).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::closed;

    #[test]
    fn a_server_is_a_host_and_a_port() {
        for (text, host, port) in [
            ("redis.example:6379", "redis.example", 6379),
            ("10.0.0.7:1", "10.0.0.7", 1),
            ("[fd00::7]:6379", "fd00::7", 6379),
            ("my_host:65535", "my_host", 65535),
        ] {
            let endpoint = Endpoint::parse(text).unwrap();
            assert_eq!((endpoint.host.as_str(), endpoint.port), (host, port));
            assert_eq!(endpoint.to_string(), text);
        }
        for text in [
            "",
            "redis",
            "redis:",
            ":6379",
            "redis:0",
            "redis:65536",
            "redis:6379/0",
            "fd00::7:6379",
            "u@h:1",
            "[h]:1",
            "a b:1",
        ] {
            assert_eq!(Endpoint::parse(text), None, "{text}");
        }
    }

    #[tokio::test]
    async fn only_allowed_addresses_are_connected_to() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let servers =
            AddressList(vec![Endpoint::parse(&listener.local_addr().unwrap().to_string()).unwrap()]);
        let mut dialer = Dialer { targets: Arc::default(), tls: None, timeout: Duration::from_secs(5) };
        assert!(matches!(dialer.connect(&servers).await, Err(DeliveryError::Forbidden(_))));
        let allow_private = vec!["127.0.0.1".parse().unwrap()];
        dialer.targets = Arc::new(TargetPolicy { allow_private, ..TargetPolicy::default() });
        assert!(matches!(dialer.connect(&servers).await, Ok(Link::Plain(_))));
    }

    #[tokio::test]
    async fn the_next_server_is_tried() {
        let (closed, _socket) = closed();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let open = listener.local_addr().unwrap();
        let endpoint = |address: SocketAddr| Endpoint::parse(&address.to_string()).unwrap();
        let allow_private = vec!["127.0.0.1".parse().unwrap()];
        let targets = Arc::new(TargetPolicy { allow_private, ..TargetPolicy::default() });
        let dialer = Dialer { targets, tls: None, timeout: Duration::from_secs(5) };
        let both = AddressList(vec![endpoint(closed), endpoint(open)]);
        assert!(dialer.connect(&both).await.is_ok());
        let gone = AddressList(vec![endpoint(closed)]);
        let error = dialer.connect(&gone).await.unwrap_err();
        assert!(
            matches!(&error, DeliveryError::Unreachable { cause } if cause.contains(&closed.to_string()))
        );
    }
}
