//! Where a client connects, and what carries MQTT there.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use rustls::pki_types::ServerName;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use super::ClientError;
use super::stream::Stream;
use super::tls::TlsOptions;
use super::websocket::WebSocket;

/// A place where a Server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// A host and a TCP port.
    Tcp {
        /// Host name or IP address.
        host: String,
        /// TCP port.
        port: u16,
    },
    /// A Unix socket's file.
    Unix(PathBuf),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') && !host.starts_with('[') => {
                write!(f, "[{host}]:{port}")
            }
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

/// What is below MQTT at an [`Endpoint`].
#[derive(Debug, Clone, Default)]
pub struct Transport {
    /// TLS.
    pub tls: Option<TlsOptions>,
    /// WebSocket, with the path of the request.
    pub websocket: Option<String>,
}

/// Opens a connection up to where MQTT begins.
pub(super) async fn open(endpoint: &Endpoint, transport: &Transport) -> Result<Stream, ClientError> {
    let unreachable = |source| ClientError::Unreachable { endpoint: endpoint.clone(), source };
    let (host, port) = match endpoint {
        Endpoint::Tcp { host, port } => (host.trim_start_matches('[').trim_end_matches(']'), *port),
        Endpoint::Unix(path) => {
            return Ok(Stream::Unix(UnixStream::connect(path).await.map_err(unreachable)?));
        }
    };
    let tcp = connect(host, port).await.map_err(unreachable)?;
    tcp.set_nodelay(true)?;
    let Some(options) = &transport.tls else {
        return Ok(match &transport.websocket {
            Some(path) => Stream::WebSocket(Box::new(WebSocket::request(tcp, endpoint, path).await?)),
            None => Stream::Tcp(tcp),
        });
    };
    let name = options.server_name.as_deref().unwrap_or(host);
    let name = ServerName::try_from(name.to_owned())
        .map_err(|_| ClientError::TlsSetup(format!("\"{name}\" is neither a host name nor an IP address")))?;
    let connector = TlsConnector::from(options.config(transport.websocket.is_some())?);
    let tls = connector.connect(name, tcp).await?;
    Ok(match &transport.websocket {
        Some(path) => Stream::SecureWebSocket(Box::new(WebSocket::request(tls, endpoint, path).await?)),
        None => Stream::Tls(Box::new(tls)),
    })
}

/// Connects to the first address of the host that answers.
async fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let addresses: Vec<SocketAddr> = tokio::net::lookup_host((host, port)).await?.collect();
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}
