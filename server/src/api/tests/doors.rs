//! The other ways in: TLS, and the administration socket.

use std::sync::Arc;

use broker::TlsSetup;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio_rustls::TlsConnector;

use super::security::{ask, set_up, with_tokens};
use super::*;
use crate::config::ListenerTls;

async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> Answer {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = Vec::new();
    stream.read_to_end(&mut text).await.unwrap();
    Answer::read(std::str::from_utf8(&text).unwrap())
}

/// A request from the owner, whose uid is 7.
async fn by_socket(api: &ApiServer, method: &str, path: &str, headers: &str, body: &str) -> Answer {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let served = tokio::spawn(api.owners_door().serve(theirs, 7));
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: anything\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n{headers}\r\n{body}"
    );
    let answer = exchange(ours, &request).await;
    served.await.unwrap();
    answer
}

#[tokio::test]
async fn the_owner_needs_no_proof_and_no_address_to_listen_on() {
    let api = opened(&Admin { enabled: false, ..anywhere() }, None).unwrap();
    assert_eq!(api.address(), None);
    let me = by_socket(&api, "GET", "/api/v1/session", "", "").await.json();
    assert_eq!(me, json!({ "name": "uid:7", "role": "admin", "scopes": null, "csrf_token": null }));
    let made = by_socket(&api, "POST", "/api/v1/setup-tokens", "", "").await;
    assert_eq!(made.status, 201, "{made:?}");
    let body = json!({
        "setup_token": made.json()["setup_token"], "name": "ada", "password": "correct horse battery",
    });
    assert_eq!(by_socket(&api, "POST", "/api/v1/setup", "", &body.to_string()).await.status, 204);
    let users = by_socket(&api, "GET", "/api/v1/users", "", "").await.json();
    assert_eq!(users["users"][0]["name"], "ada");
}

#[tokio::test]
async fn what_is_forbidden_to_everybody_is_forbidden_to_the_owner() {
    let api = opened(&Admin { read_only: true, ..anywhere() }, None).unwrap();
    let answer = by_socket(&api, "POST", "/api/v1/setup-tokens", "", "").await;
    assert_eq!(answer.problem(), (403, "read_only".to_owned()));
}

#[tokio::test]
async fn nobody_becomes_the_owner_over_the_network() {
    let api = listening(&with_tokens(), None).await;
    for headers in [vec![], vec![("Authorization", "uid:0")], vec![("X-Forwarded-For", "unix:")]] {
        let answer = ask(&api, "POST", "/api/v1/setup-tokens", &headers, "").await;
        assert_eq!(answer.problem().0, 401);
    }
    let operator = [("Authorization", "Bearer operator")];
    assert_eq!(ask(&api, "POST", "/api/v1/setup-tokens", &operator, "").await.problem().0, 403);
    let narrow = [("Authorization", "Bearer narrow")];
    assert_eq!(ask(&api, "POST", "/api/v1/setup-tokens", &narrow, "").await.problem().0, 403);
}

/// A certificate for localhost, and a client that trusts it.
fn certificate() -> (TlsSetup, TlsConnector) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let certificate: CertificateDer<'static> = made.cert.der().clone();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (TlsSetup::new(Arc::new(server), None), TlsConnector::from(Arc::new(client)))
}

#[tokio::test]
async fn with_a_certificate_it_speaks_tls_alone_and_cookies_stay_inside() {
    let files = ListenerTls {
        certificate: "a.pem".into(),
        key: "a.key".into(),
        client_certificates: crate::config::ClientCertificates::None,
        client_ca: None,
        crl: Vec::new(),
        min_version: crate::config::TlsVersion::V1_2,
        sni: Vec::new(),
    };
    let config = Admin { tls: Some(files), ..anywhere() };
    let (setup, connector) = certificate();
    let mut api = opened(&config, None).unwrap();
    let address = api.listen(config.address, Some(setup)).await.unwrap();
    // Whoever speaks HTTP gets no HTTP, and holds nobody up.
    let mut plain = TcpStream::connect(address).await.unwrap();
    plain.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut bytes = Vec::new();
    drop(plain.read_to_end(&mut bytes).await);
    assert!(!bytes.starts_with(b"HTTP"), "{bytes:?}");
    let inside = async |request: &str| {
        let stream = TcpStream::connect(address).await.unwrap();
        let stream = connector.connect(ServerName::try_from("localhost").unwrap(), stream).await.unwrap();
        exchange(stream, request).await
    };
    let setup_token = api.make_setup_token().unwrap();
    let post = |path: &str, body: serde_json::Value| {
        let body = body.to_string();
        let length = body.len();
        format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        )
    };
    let who = json!({ "name": "ada", "password": "correct horse battery" });
    let mut first = who.clone();
    first["setup_token"] = setup_token.into();
    assert_eq!(inside(&post("/api/v1/setup", first)).await.status, 204);
    let answer = inside(&post("/api/v1/session", who)).await;
    assert!(answer.cookie.as_deref().is_some_and(|cookie| cookie.ends_with("; Secure")), "{answer:?}");
    api.close().await;
}

#[tokio::test]
async fn without_a_certificate_the_cookie_works_over_http() {
    let api = open().await;
    set_up(&api).await;
    let body = json!({ "name": "ada", "password": "correct horse battery" }).to_string();
    let answer = ask(&api, "POST", "/api/v1/session", &[], &body).await;
    assert!(answer.cookie.is_some_and(|cookie| !cookie.contains("Secure")));
}
