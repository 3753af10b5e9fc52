//! TLS with an authority of the test's own, and a forward proxy.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::RootCertStore;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ServerConfig, WebPkiClientVerifier};
use tokio::io::copy_bidirectional;
use tokio::net::TcpStream;

use super::connectors::{BY_OPS, connectors, sink_by};
use super::*;

/// Makes certificates that whoever trusts it accepts.
pub(super) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, in PEM.
struct Identity {
    cert: String,
    key: String,
}

impl Authority {
    pub(super) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(super) fn pem(&self) -> String {
        self.0.pem()
    }

    fn issue(&self, name: &str) -> Identity {
        let key = KeyPair::generate().unwrap();
        let cert = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &self.0).unwrap();
        Identity { cert: cert.pem(), key: key.serialize_pem() }
    }
}

/// A server's side of TLS; with `clients` it demands a certificate of theirs.
fn acceptor(identity: &Identity, clients: Option<&Authority>) -> TlsAcceptor {
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            roots.add(authority.0.der().clone()).unwrap();
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
            builder.with_client_cert_verifier(verifier)
        }
    };
    let chain = vec![CertificateDer::from_pem_slice(identity.cert.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap();
    TlsAcceptor::from(Arc::new(builder.with_single_cert(chain, key).unwrap()))
}

fn file(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

async fn attempt_by(text: &str) -> Result<(), DeliveryError> {
    let (sink, request) = sink_by(BY_OPS, &connectors(text));
    one(&sink, request).await
}

#[tokio::test]
async fn trusts_the_configured_authority_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let server =
        Server::start_on(vec![status("200 OK", "", "")], Some(acceptor(&authority.issue("localhost"), None)))
            .await;
    let ours = file(folder.path(), "ours.pem", &authority.pem());
    let other = file(folder.path(), "other.pem", &Authority::new().pem());
    let port = server.address.port();
    let text = |host: &str, tls: &str| format!("[ops]\ntype = 'http'\nurl = 'https://{host}:{port}'\n{tls}");
    let ca = |path: &Path, more: &str| format!("tls = {{ ca_file = '{}'{more} }}", path.display());

    attempt_by(&text("localhost", &ca(&ours, ""))).await.unwrap();
    assert_eq!(server.seen().len(), 1);
    for (host, tls) in [
        ("localhost", ca(&other, "")),
        ("localhost", String::new()),
        // The certificate is for another name.
        ("127.0.0.1", ca(&ours, "")),
        ("localhost", ca(&ours, ", server_name = 'mes.example'")),
    ] {
        let error = attempt_by(&text(host, &tls)).await.expect_err(host);
        assert!(error.to_string().contains("certificate"), "{host} {tls}: {error}");
        assert!(error.is_retriable() && !error.is_attempt(), "{error:?}");
    }
    attempt_by(&text("127.0.0.1", &ca(&ours, ", server_name = 'localhost'"))).await.unwrap();
    assert_eq!(server.seen().len(), 2);
}

#[tokio::test]
async fn shows_its_own_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let (servers, clients) = (Authority::new(), Authority::new());
    let tls = acceptor(&servers.issue("localhost"), Some(&clients));
    let server = Server::start_on(vec![status("200 OK", "", "")], Some(tls)).await;
    let ca = file(folder.path(), "ca.pem", &servers.pem());
    let text = |identity: Option<&Identity>| {
        let shown = identity.map(|identity| {
            let cert = file(folder.path(), "cert.pem", &identity.cert);
            let key = file(folder.path(), "key.pem", &identity.key);
            format!(", client_cert_file = '{}', client_key_file = '{}'", cert.display(), key.display())
        });
        format!(
            "[ops]\ntype = 'http'\nurl = 'https://localhost:{}'\ntls = {{ ca_file = '{}'{} }}",
            server.address.port(),
            ca.display(),
            shown.unwrap_or_default()
        )
    };
    attempt_by(&text(Some(&clients.issue("gateway")))).await.unwrap();
    assert_eq!(server.seen().len(), 1);
    assert!(attempt_by(&text(None)).await.is_err());
    assert!(attempt_by(&text(Some(&servers.issue("gateway")))).await.is_err());
    assert_eq!(server.seen().len(), 1);
}

#[test]
fn refuses_files_that_hold_no_certificate_or_key() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (Authority::new().issue("a"), Authority::new().issue("b"));
    let good_cert = file(folder.path(), "cert.pem", &one.cert);
    let good_key = file(folder.path(), "key.pem", &one.key);
    let other_key = file(folder.path(), "other.pem", &two.key);
    let no_pem = file(folder.path(), "none.pem", "s3cret, but no PEM");
    let huge = file(folder.path(), "huge.pem", &"x".repeat((1 << 20) + 1));
    for (tls, expected) in [
        (format!("ca_file = '{}'", no_pem.display()), "tls.ca_file: holds no certificate"),
        (format!("ca_file = '{}'", huge.display()), "larger than the limit of 1048576"),
        (
            format!("client_cert_file = '{}', client_key_file = '{}'", good_cert.display(), no_pem.display()),
            "tls.client_key_file: holds no private key",
        ),
        (
            format!("client_cert_file = '{}', client_key_file = '{}'", no_pem.display(), good_key.display()),
            "tls.client_cert_file: holds no certificate",
        ),
        (
            format!(
                "client_cert_file = '{}', client_key_file = '{}'",
                good_cert.display(),
                other_key.display()
            ),
            "tls.client_cert_file: TLS can't be set up",
        ),
    ] {
        let text = format!("[ops]\ntype = 'http'\nurl = 'https://h'\ntls = {{ {tls} }}");
        let errors = super::connectors::connectors_with(&text, &neighbours()).expect_err(&tls);
        let error = errors[0].to_string();
        assert!(error.contains(expected) && !error.contains("s3cret"), "{tls}: {error}");
    }
}

/// A forward proxy that takes every name for `server`, and keeps the heads of what it was asked.
struct ForwardProxy {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Drop for ForwardProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl ForwardProxy {
    async fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let kept = Arc::clone(&asked);
        let task = tokio::spawn(async move {
            loop {
                let (mut client, _) = listener.accept().await.unwrap();
                let kept = Arc::clone(&kept);
                tokio::spawn(async move {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        let Ok(byte) = client.read_u8().await else { return };
                        head.push(byte);
                    }
                    let text = String::from_utf8(head.clone()).unwrap();
                    let tunnels = text.starts_with("CONNECT ");
                    kept.lock().push(text);
                    let mut server = TcpStream::connect(server).await.unwrap();
                    if tunnels {
                        client.write_all(b"HTTP/1.1 200 Connected\r\n\r\n").await.unwrap();
                    } else {
                        server.write_all(&head).await.unwrap();
                    }
                    // Either side may end it as it likes.
                    copy_bidirectional(&mut client, &mut server).await.ok();
                });
            }
        });
        Self { address, asked, task }
    }
}

#[tokio::test]
async fn a_proxy_is_asked_for_every_request_and_resolves_the_name() {
    let server = Server::start(vec![status("200 OK", "", "")]).await;
    let proxy = ForwardProxy::start(server.address).await;
    // Neither the proxy's own address nor the name, which nobody can resolve, is judged here.
    let text = format!(
        "[ops]\ntype = 'http'\nurl = 'http://ops.invalid'\nproxy = 'http://{}'\nproxy_username = 'gate'\nproxy_password = 'pw'",
        proxy.address
    );
    let connectors = super::connectors::connectors_with(&text, &TargetPolicy::default()).unwrap();
    let (sink, request) = sink_by(BY_OPS, &connectors);
    one(&sink, request).await.unwrap();
    let [head] = proxy.asked.lock().clone().try_into().unwrap();
    assert!(head.starts_with("POST http://ops.invalid/in?x=1 HTTP/1.1\r\n"), "{head}");
    let expected = format!("proxy-authorization: Basic {}\r\n", STANDARD.encode("gate:pw"));
    assert!(head.to_ascii_lowercase().contains(&expected.to_ascii_lowercase()), "{head}");
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn https_goes_through_a_proxy_by_connect() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let server = Server::start_on(
        vec![status("200 OK", "", "")],
        Some(acceptor(&authority.issue("ops.invalid"), None)),
    )
    .await;
    let proxy = ForwardProxy::start(server.address).await;
    let ca = file(folder.path(), "ca.pem", &authority.pem());
    attempt_by(&format!("[ops]\ntype = 'http'\nurl = 'https://ops.invalid'\nproxy = 'http://{}'\nauth = {{ type = 'bearer', token = 'tok' }}\ntls = {{ ca_file = '{}' }}", proxy.address, ca.display())).await.unwrap();
    let [head] = proxy.asked.lock().clone().try_into().unwrap();
    assert!(head.starts_with("CONNECT ops.invalid:443 HTTP/1.1\r\n"), "{head}");
    assert!(!head.contains("tok"), "{head}");
    assert_eq!(server.seen()[0].header("authorization"), Some("Bearer tok"));
}

#[tokio::test]
async fn a_proxy_opens_no_way_to_addresses_that_are_forbidden() {
    let server = Server::start(vec![status("200 OK", "", "")]).await;
    let proxy = ForwardProxy::start(server.address).await;
    for host in [
        "169.254.169.254",
        "2852039166",
        "[::ffff:a9fe:a9fe]",
        "10.0.0.1",
        "127.0.0.1",
        "localhost",
        "a.localhost",
        "LOCALHOST.",
    ] {
        let text = format!("[ops]\ntype = 'http'\nurl = 'http://{host}'\nproxy = 'http://{}'", proxy.address);
        let connectors = super::connectors::connectors_with(&text, &TargetPolicy::default()).unwrap();
        let (sink, request) = sink_by(BY_OPS, &connectors);
        let error = one(&sink, request).await.expect_err(host);
        assert!(matches!(error, DeliveryError::Forbidden(_)), "{host}: {error:?}");
    }
    assert_eq!(proxy.asked.lock().len(), 0);
}

#[tokio::test]
async fn tokens_are_fetched_through_the_proxy_too() {
    let tokens = Server::start(vec![status("200 OK", "", r#"{"access_token":"t1"}"#)]).await;
    let proxy = ForwardProxy::start(tokens.address).await;
    attempt_by(&format!("[ops]\ntype = 'http'\nurl = 'http://ops.invalid'\nproxy = 'http://{}'\nauth = {{ type = 'oauth2', token_url = 'http://tokens.invalid/t', client_id = 'c', client_secret = 's' }}", proxy.address)).await.unwrap();
    let asked = proxy.asked.lock().clone();
    assert!(asked[0].starts_with("POST http://tokens.invalid/t "), "{asked:?}");
    assert!(asked[1].starts_with("POST http://ops.invalid/in"), "{asked:?}");
}

#[tokio::test]
async fn an_unreachable_proxy_is_no_attempt() {
    let (closed, _socket) = closed();
    let error =
        attempt_by(&format!("[ops]\ntype = 'http'\nurl = 'http://ops.invalid'\nproxy = 'http://{closed}'"))
            .await
            .unwrap_err();
    assert!(matches!(error, DeliveryError::Unreachable { .. }), "{error:?}");
}
