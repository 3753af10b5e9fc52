//! Greetings, credentials and TLS.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{ED25519, UnparsedPublicKey};

use super::*;

const SEED: &str = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY";
const PUBLIC: &str = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4";
/// The bytes of the public key.
const PUBLIC_BYTES: [u8; 32] = [
    0xef, 0x4e, 0x44, 0x52, 0x4b, 0x72, 0xe4, 0x40, 0xf9, 0x6d, 0xae, 0x7b, 0xba, 0x23, 0x7c, 0x66, 0x66,
    0xa4, 0x07, 0x01, 0xcb, 0x13, 0x65, 0xa4, 0x22, 0x44, 0xf8, 0x4e, 0x7a, 0x67, 0xda, 0xb1,
];

async fn one(connectors: &Connectors) -> Result<(), DeliveryError> {
    sink(CORE, connectors).deliver(&some(CORE, 1)).await.pop().unwrap()
}

/// What the server was told by a connector with these keys.
async fn hello(more: &str) -> serde_json::Value {
    let server = Server::start(&[]).await;
    assert_eq!(one(&server.connectors(more)).await, Ok(()), "{more}");
    let line = server.hellos().remove(0);
    serde_json::from_str(line.strip_prefix("CONNECT ").unwrap()).unwrap()
}

#[tokio::test]
async fn the_server_is_told_what_it_needs_to_know() {
    let server = Server::start(&[]).await;
    assert_eq!(one(&server.connectors("inbox_prefix = 'own.box'")).await, Ok(()));
    let hellos = server.hellos();
    let connect: serde_json::Value =
        serde_json::from_str(hellos[0].strip_prefix("CONNECT ").unwrap()).unwrap();
    for (key, value) in
        [("verbose", false), ("headers", true), ("no_responders", true), ("tls_required", false)]
    {
        assert_eq!(connect[key], value, "{key}");
    }
    assert_eq!(connect["protocol"], 1);
    let inbox = hellos[1].strip_prefix("SUB own.box.").and_then(|rest| rest.strip_suffix(".* 1")).unwrap();
    assert_eq!(inbox.len(), 22);
    let secret = ["user", "pass", "auth_token", "nkey", "jwt", "sig"];
    assert!(secret.iter().all(|key| connect.get(key).is_none()), "{connect}");
}

#[tokio::test]
async fn credentials_are_shown_as_the_server_wants_them() {
    let connect = hello("username = 'u'\npassword = 'p\"q'").await;
    assert_eq!((&connect["user"], &connect["pass"]), (&"u".into(), &"p\"q".into()));
    assert_eq!(hello("token = 't'").await["auth_token"], "t");

    let is_signed = |connect: &serde_json::Value| {
        let signature = URL_SAFE_NO_PAD.decode(connect["sig"].as_str().unwrap()).unwrap();
        UnparsedPublicKey::new(&ED25519, PUBLIC_BYTES).verify(b"once", &signature).is_ok()
    };
    let connect = hello(&format!("nkey_seed = '{SEED}'")).await;
    assert_eq!(connect["nkey"], PUBLIC);
    assert!(is_signed(&connect) && connect.get("jwt").is_none());

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("user.creds");
    let text = format!(
        "-----BEGIN NATS USER JWT-----\nhead.body.sig\n------END NATS USER JWT------\n\n*** IMPORTANT ***\n\n\
         -----BEGIN USER NKEY SEED-----\n{SEED}\n------END USER NKEY SEED------\n\n***\n"
    );
    std::fs::write(&path, text).unwrap();
    let connect = hello(&format!("credentials_file = '{}'", path.display())).await;
    assert_eq!(connect["jwt"], "head.body.sig");
    assert!(is_signed(&connect) && connect.get("nkey").is_none());
}

#[tokio::test]
async fn refused_credentials_are_no_fault_of_the_message() {
    for answer in [
        "-ERR 'Authorization Violation'\r\n",
        "-ERR 'User Authentication Expired'\r\n",
        "-ERR 'User Authentication Revoked'\r\n",
    ] {
        let server = Server::greet(Greeting { answer, ..Greeting::default() }, &[]).await;
        let connectors = server.connectors("username = 'u'\npassword = 'hunter2'");
        let error = one(&connectors).await.unwrap_err();
        assert!(matches!(error, DeliveryError::NoCredentials { .. }), "{answer}: {error:?}");
        assert!(!format!("{error:?} {connectors:?}").contains("hunter2"));
    }
    // There is nothing to sign.
    let info = INFO.replace(r#","nonce":"once""#, "");
    let server = Server::greet(Greeting { info, ..Greeting::default() }, &[]).await;
    let error = one(&server.connectors(&format!("nkey_seed = '{SEED}'"))).await.unwrap_err();
    assert!(matches!(error, DeliveryError::NoCredentials { .. }), "{error:?}");
}

#[tokio::test]
async fn a_server_that_will_not_have_us_is_unreachable() {
    let with_info = |info: &str| Greeting { info: info.to_owned(), ..Greeting::default() };
    for (greeting, expected) in [
        (with_info("-ERR 'maximum connections exceeded'"), "it said \"maximum connections exceeded\""),
        (with_info("PING"), "it didn't greet first"),
        (with_info(r#"INFO {"headers":false}"#), "it takes no headers"),
        (
            with_info(r#"INFO {"headers":true,"tls_required":true}"#),
            "it requires TLS, and the connector has no tls",
        ),
        (Greeting { answer: "", ..Greeting::default() }, "no sign-in within 1s"),
        (
            Greeting { answer: "-ERR 'Authentication Timeout'\r\n", ..Greeting::default() },
            "Authentication Timeout",
        ),
    ] {
        let server = Server::greet(greeting, &[]).await;
        // Only silence takes as long as it may.
        let hasty = if expected.contains("within") { "connect_timeout = '1s'" } else { "" };
        let error = one(&server.connectors(hasty)).await.unwrap_err();
        assert!(matches!(error, DeliveryError::Unreachable { .. }), "{expected}: {error:?}");
        assert!(error.to_string().contains(expected), "{error}");
        assert!(error.to_string().contains(&server.address.to_string()), "{error}");
    }
}

/// Who may not hear acknowledgements can send without them.
#[tokio::test]
async fn without_an_inbox_nothing_is_sent_to_streams() {
    let answer = "-ERR 'Permissions Violation for Subscription to \"_INBOX.x.*\"'\r\nPONG\r\n";
    let server = Server::greet(Greeting { answer, ..Greeting::default() }, &[]).await;
    let connectors = server.connectors("");
    let text = "subject = 's'";
    let results = sink(text, &connectors).deliver(&some(text, 2)).await;
    assert_eq!(fates(&results), ["disabled"; 2]);
    let cause = results[0].as_ref().unwrap_err().to_string();
    assert!(cause.contains("acknowledgements can't be heard"), "{cause}");
    assert_eq!(server.sent(), []);
    assert_eq!(one(&connectors).await, Ok(()));
}

#[tokio::test]
async fn servers_are_tried_in_order_and_what_needs_somebody_is_told() {
    let (closed, _socket) = closed();
    let greeting = Greeting { answer: "-ERR 'Authorization Violation'\r\n", ..Greeting::default() };
    let strict = Server::greet(greeting, &[]).await;
    let open = Server::start(&[]).await;
    let list = |servers: &[SocketAddr]| {
        let servers: Vec<String> = servers.iter().map(|address| format!("'{address}'")).collect();
        connectors(&format!("[n]\ntype = 'nats'\nservers = [{}]\n", servers.join(", ")))
    };
    assert_eq!(one(&list(&[closed, strict.address, open.address])).await, Ok(()));
    assert_eq!(strict.signed_in(), 1);
    let error = one(&list(&[strict.address, closed])).await.unwrap_err();
    assert!(matches!(error, DeliveryError::NoCredentials { .. }), "{error:?}");
}

#[tokio::test]
async fn addresses_are_judged() {
    let server = Server::start(&[]).await;
    let text = format!("[n]\ntype = 'nats'\nservers = ['{}']\n", server.address);
    let configs: BTreeMap<String, ConnectorConfig> = toml::from_str(&text).unwrap();
    let connectors = Connectors::load(&configs, &TargetPolicy::default(), &Connectors::default()).unwrap();
    let error = one(&connectors).await.unwrap_err();
    assert!(matches!(error, DeliveryError::Forbidden(_)), "{error:?}");
    // What a server tells of others is not followed.
    let info = INFO.replace("\"headers\"", "\"connect_urls\":[\"127.0.0.1:1\"],\"headers\"");
    let server = Server::greet(Greeting { info, ..Greeting::default() }, &[Act::Close]).await;
    let sink = sink(CORE, &server.connectors(""));
    assert_eq!(fates(&sink.deliver(&some(CORE, 1)).await), ["again"]);
    assert_eq!(sink.deliver(&some(CORE, 1)).await, [Ok(())]);
    assert_eq!(server.signed_in(), 2);
}

/// A server's side of TLS, with the file of who vouches for it.
fn acceptor(folder: &std::path::Path) -> (TlsAcceptor, String) {
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(vec!["nats.example".to_owned()]).unwrap();
    let path = folder.join("ca.pem");
    std::fs::write(&path, cert.pem()).unwrap();
    let chain = vec![CertificateDer::from_pem_slice(cert.pem().as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(signing_key.serialize_pem().as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    (TlsAcceptor::from(Arc::new(config)), path.display().to_string())
}

#[tokio::test]
async fn tls_follows_the_greeting_or_comes_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let (tls, ca) = acceptor(folder.path());
    let available = INFO.replace("\"headers\"", "\"tls_available\":true,\"headers\"");
    let required = INFO.replace("\"headers\"", "\"tls_required\":true,\"headers\"");
    let trusts = format!("tls = {{ ca_file = '{ca}', server_name = 'nats.example' }}");
    for (info, is_tls_first) in [(&available, false), (&required, false), (&required, true)] {
        let greeting =
            Greeting { info: info.clone(), tls: Some(tls.clone()), is_tls_first, ..Greeting::default() };
        let server = Server::greet(greeting, &[]).await;
        let more = format!("{trusts}\ntls_first = {is_tls_first}\ntoken = 't'");
        assert_eq!(one(&server.connectors(&more)).await, Ok(()), "{info}");
        assert!(server.hellos()[0].contains("\"tls_required\":true"));
        // The certificate is for another name.
        let other = more.replace("nats.example", "other.example");
        let error = one(&server.connectors(&other)).await.unwrap_err();
        assert!(error.to_string().contains("TLS"), "{error}");
        assert_eq!(server.signed_in(), 1);
    }
}

#[tokio::test]
async fn a_test_signs_in_and_sends_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (tls, ca) = acceptor(folder.path());
    let info = INFO.replace("\"headers\"", "\"tls_required\":true,\"headers\"");
    let trusts = format!("tls = {{ ca_file = '{ca}', server_name = 'nats.example' }}\n");
    let way = ["name", "address", "connect"];
    for (is_tls, is_tls_first, answer, passes) in [
        (false, false, "PONG\r\n", true),
        (false, false, "-ERR 'Authorization Violation'\r\n", false),
        (true, false, "PONG\r\n", true),
        (true, true, "PONG\r\n", true),
    ] {
        let info = if is_tls { info.clone() } else { INFO.to_owned() };
        let greeting = Greeting { info, answer, tls: is_tls.then(|| tls.clone()), is_tls_first };
        let server = Server::greet(greeting, &[]).await;
        let tls = if is_tls { &*trusts } else { "" };
        let known = server.connectors(&format!("{tls}tls_first = {is_tls_first}\ntoken = 'hunter2'"));
        let connector = known.get("n").unwrap();
        assert_eq!(connector.addresses(), [server.address.to_string()]);
        let test = connector.test().await;
        assert_eq!(test.passed, passes, "{test:?}");
        let stages: Vec<&str> = test.steps.iter().map(|step| step.stage.as_str()).collect();
        let of_tls: &[&str] = if is_tls_first { &["tls"] } else { &[] };
        assert_eq!(stages, [&way, of_tls, &["authentication"]].concat(), "{test:?}");
        assert!(!format!("{test:?}").contains("hunter2"), "{test:?}");
        assert_eq!((server.signed_in(), server.sent().len()), (1, 0));
    }
}

/// Whoever stands in between can't talk us out of TLS, nor into taking its words for the server's.
#[tokio::test]
async fn tls_is_never_given_up() {
    let available = INFO.replace("\"headers\"", "\"tls_available\":true,\"headers\"");
    for (info, expected) in [
        (INFO.to_owned(), "it offers no TLS"),
        (format!("{available}\r\nPONG"), "it said more than its greeting before TLS"),
    ] {
        let server = Server::greet(Greeting { info, ..Greeting::default() }, &[]).await;
        let error = one(&server.connectors("tls = {}\ntoken = 't'")).await.unwrap_err();
        assert!(matches!(error, DeliveryError::Unreachable { .. }), "{error:?}");
        assert!(error.to_string().contains(expected), "{error}");
        assert_eq!(server.hellos(), [] as [String; 0]);
    }
}
