//! Our side against rustls' own client with its buffers.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio_rustls::TlsConnector;

use super::*;

const VERSIONS: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS12, &rustls::version::TLS13];

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        Arc::new(roots)
    }

    fn issue(&self, name: &str) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new([name.to_owned()]).unwrap().signed_by(&key, &self.0).unwrap();
        (vec![certificate.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
    }

    fn server(&self, asks_client: bool) -> Arc<ServerConfig> {
        let provider = Arc::new(ring::default_provider());
        let (chain, key) = self.issue("localhost");
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = if asks_client {
            let verifier =
                WebPkiClientVerifier::builder_with_provider(self.roots(), provider).build().unwrap();
            builder.with_client_cert_verifier(verifier)
        } else {
            builder.with_no_client_auth()
        };
        Arc::new(builder.with_single_cert(chain, key).unwrap())
    }

    fn client(&self, version: &'static SupportedProtocolVersion, shows: Option<&str>) -> TlsConnector {
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(self.roots());
        let config = match shows {
            Some(name) => {
                let (chain, key) = self.issue(name);
                builder.with_client_auth_cert(chain, key).unwrap()
            }
            None => builder.with_no_client_auth(),
        };
        TlsConnector::from(Arc::new(config))
    }
}

async fn connected(
    version: &'static SupportedProtocolVersion,
    shows: Option<&str>,
    pipe: usize,
) -> (tokio_rustls::client::TlsStream<DuplexStream>, TlsStream<DuplexStream>) {
    let authority = Authority::new();
    let (far, near) = tokio::io::duplex(pipe);
    let client = authority.client(version, shows);
    let name = ServerName::try_from("localhost").unwrap();
    let (client, server) =
        tokio::join!(client.connect(name, far), TlsStream::accept(near, authority.server(shows.is_some())));
    (client.unwrap(), server.unwrap())
}

fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|number| u8::try_from(number * 7 % 251).unwrap()).collect()
}

#[tokio::test]
async fn everything_arrives_in_both_directions_through_a_narrow_pipe() {
    for version in VERSIONS {
        // In TLS 1.3 the client isn't read from until it has connected: its tickets have to fit.
        let narrow = if version.version == rustls::ProtocolVersion::TLSv1_2 { 3 } else { 700 };
        for pipe in [narrow, 1_000, 1 << 20] {
            let (mut client, mut server) = connected(version, None, pipe).await;
            let sent = bytes(if pipe == 3 { 5_000 } else { 300_000 });
            let client_side = async {
                client.write_all(&sent).await.unwrap();
                client.flush().await.unwrap();
                let mut back = vec![0; sent.len()];
                client.read_exact(&mut back).await.unwrap();
                back
            };
            let server_side = async {
                let mut got = vec![0; sent.len()];
                // A small buffer: what doesn't fit has to wait.
                for part in got.chunks_mut(777) {
                    server.read_exact(part).await.unwrap();
                }
                server.write_all(&got).await.unwrap();
                server.flush().await.unwrap();
                got
            };
            let (back, got) = tokio::join!(client_side, server_side);
            assert!(got == sent && back == sent, "{version:?} {pipe}");
            // Idle again, it holds nothing but the session.
            assert_eq!(
                (server.incomplete.capacity(), server.plain.capacity(), server.outgoing.capacity()),
                (0, 0, 0)
            );
        }
    }
}

#[tokio::test]
async fn small_slices_share_a_record() {
    let (mut client, mut server) = connected(&rustls::version::TLS13, None, 1 << 20).await;
    let slices = [IoSlice::new(b"one "), IoSlice::new(b""), IoSlice::new(b"two "), IoSlice::new(b"three")];
    let count =
        std::future::poll_fn(|cx| Pin::new(&mut server).poll_write_vectored(cx, &slices)).await.unwrap();
    assert_eq!(count, 13);
    let mut got = [0; 64];
    // One record is one read.
    assert_eq!(client.read(&mut got).await.unwrap(), 13);
    assert_eq!(&got[..13], b"one two three");
}

#[tokio::test]
async fn the_end_is_said_and_heard() {
    for version in VERSIONS {
        let (mut client, mut server) = connected(version, None, 1 << 20).await;
        client.write_all(b"last").await.unwrap();
        client.shutdown().await.unwrap();
        let mut got = Vec::new();
        server.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"last");
        // The other direction stays open until we end it.
        server.write_all(b"bye").await.unwrap();
        server.shutdown().await.unwrap();
        let mut got = Vec::new();
        client.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"bye");
    }
}

#[tokio::test]
async fn the_clients_certificate_is_known() {
    for version in VERSIONS {
        let (_client, server) = connected(version, Some("device-1"), 1 << 20).await;
        assert!(server.certificate().is_some_and(|der| der.windows(8).any(|part| part == b"device-1")));
        let (_client, server) = connected(version, None, 1 << 20).await;
        assert_eq!(server.certificate(), None);
    }
}

#[tokio::test]
async fn a_client_without_the_certificate_asked_for_is_told_so() {
    for version in VERSIONS {
        let (authority, other) = (Authority::new(), Authority::new());
        // None at all, and one of another authority.
        for shows in [None, Some("device-1")] {
            let (far, near) = tokio::io::duplex(1 << 16);
            let client = match shows {
                None => authority.client(version, None),
                Some(name) => {
                    let (chain, key) = other.issue(name);
                    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
                        .with_protocol_versions(&[version])
                        .unwrap()
                        .with_root_certificates(authority.roots())
                        .with_client_auth_cert(chain, key)
                        .unwrap();
                    TlsConnector::from(Arc::new(config))
                }
            };
            let name = ServerName::try_from("localhost").unwrap();
            let client = async {
                // In TLS 1.3 the client learns it from its first read.
                let mut stream = client.connect(name, far).await?;
                stream.read_u8().await
            };
            let (client, server) = tokio::join!(client, TlsStream::accept(near, authority.server(true)));
            assert!(server.is_err());
            let told = client.unwrap_err().to_string();
            assert!(told.contains("alert"), "{version:?} {shows:?}: {told}");
        }
    }
}

#[tokio::test]
async fn bytes_that_are_no_tls_are_answered_with_an_alert() {
    for junk in [
        &b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00"[..],
        b"GET / HTTP/1.1\r\n\r\n",
        &[0x16; 200],
        &[0; 64],
    ] {
        let (mut far, near) = tokio::io::duplex(1 << 16);
        far.write_all(junk).await.unwrap();
        let error = TlsStream::accept(near, Authority::new().server(false)).await.err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
        let mut answer = Vec::new();
        far.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer.first(), Some(&0x15), "{answer:02x?}");
    }
}

#[tokio::test]
async fn a_handshake_may_not_keep_more_than_the_limit() {
    // A message of the handshake that announces 60,000 bytes and comes in records that are themselves fine.
    let (mut far, near) = tokio::io::duplex(1 << 17);
    let mut message = vec![1, 0, 0xea, 0x60];
    message.resize(16_000, 0);
    for part in [&message[..], &message[..], &message[..]] {
        far.write_all(&[0x16, 3, 1]).await.unwrap();
        far.write_all(&u16::try_from(part.len()).unwrap().to_be_bytes()).await.unwrap();
        far.write_all(part).await.unwrap();
    }
    let error = TlsStream::accept(near, Authority::new().server(false)).await.err().unwrap();
    assert!(error.to_string().contains(&format!("more than the limit of {INCOMPLETE_BYTES_MAX}")), "{error}");
}

#[tokio::test]
async fn a_client_that_goes_in_the_middle_is_noticed() {
    let (mut far, near) = tokio::io::duplex(1 << 16);
    far.write_all(&[0x16, 3, 1, 2]).await.unwrap();
    drop(far);
    let error = TlsStream::accept(near, Authority::new().server(false)).await.err().unwrap();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn keys_are_changed_on_the_way() {
    let (mut client, mut server) = connected(&rustls::version::TLS13, None, 1 << 20).await;
    for round in 0..20 {
        client.get_mut().1.refresh_traffic_keys().unwrap();
        let sent = bytes(100 + round);
        client.write_all(&sent).await.unwrap();
        let mut got = vec![0; sent.len()];
        server.read_exact(&mut got).await.unwrap();
        assert_eq!(got, sent);
        server.write_all(&got).await.unwrap();
        client.read_exact(&mut got).await.unwrap();
        assert_eq!(got, sent);
    }
}

#[tokio::test]
async fn the_first_byte_stays_to_be_read() {
    let (mut client, mut server) = connected(&rustls::version::TLS13, None, 1 << 20).await;
    client.write_all(b"GET").await.unwrap();
    assert_eq!(server.first_byte().await.unwrap(), Some(b'G'));
    let mut got = [0; 3];
    server.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"GET");
    client.shutdown().await.unwrap();
    assert_eq!(server.first_byte().await.unwrap(), None);
}

#[tokio::test]
async fn a_client_that_offers_no_protocol_of_ours_is_told_so() {
    let authority = Authority::new();
    for version in VERSIONS {
        let mut server = ServerConfig::clone(&authority.server(false));
        server.alpn_protocols = vec![b"mqtt".to_vec()];
        let mut client = ClientConfig::clone(authority.client(version, None).config());
        client.alpn_protocols = vec![b"h2".to_vec()];
        let (far, near) = tokio::io::duplex(1 << 16);
        let name = ServerName::try_from("localhost").unwrap();
        let (client, server) = tokio::join!(
            TlsConnector::from(Arc::new(client)).connect(name, far),
            TlsStream::accept(near, Arc::new(server))
        );
        assert!(server.is_err());
        let error = client.expect_err("refused").to_string();
        assert!(error.contains("NoApplicationProtocol"), "{version:?}: {error}");
    }
}
