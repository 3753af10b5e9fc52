//! What configurations are refused, and who is not let in.

use super::*;
use crate::testing::refusal;

#[tokio::test]
async fn refused_credentials_are_no_fault_of_the_record() {
    let text = "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN";
    for (bytes, expected) in [
        (close(0, 403, text), "no credentials: the server answered 403 ACCESS_REFUSED"),
        (
            close(0, 530, "NOT_ALLOWED - vhost x not found"),
            "no credentials: the server answered 530 NOT_ALLOWED",
        ),
        (
            close(0, 403, "who is hunter2-and-more"),
            "no credentials: the server answered 403, in words that repeat a secret",
        ),
    ] {
        let manner = Manner { tune: bytes, leaves: true, ..Manner::default() };
        let server = Server::with(manner, acked).await;
        let [Err(error)] = &sink(KEYED, &server.connectors).deliver(&bodies(&["1"])).await[..] else {
            panic!()
        };
        assert!(error.is_disabling() && !error.is_attempt(), "{error:?}");
        assert!(error.to_string().starts_with(expected), "{error}");
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}

#[tokio::test]
async fn a_server_that_lets_nobody_in_as_we_come_is_told_apart() {
    let manner = Manner { start: start(&[], "AMQPLAIN EXTERNAL"), ..Manner::default() };
    let server = Server::with(manner, acked).await;
    let [Err(error)] = &sink(KEYED, &server.connectors).deliver(&bodies(&["1"])).await[..] else { panic!() };
    assert_eq!(error.to_string(), "no credentials: the server doesn't offer PLAIN, but AMQPLAIN EXTERNAL");
    assert!(server.sign_ins().is_empty());
}

#[tokio::test]
async fn a_server_that_leaves_or_is_silent_in_the_sign_in_is_unreachable() {
    for (bytes, leaves) in [(vec![], true), (close(0, 541, "INTERNAL_ERROR"), true), (vec![], false)] {
        let server = Server::with(Manner { tune: bytes, leaves, ..Manner::default() }, acked).await;
        let connectors = connectors(&format!(
            "[q]\ntype = 'amqp'\nservers = ['{}']\nusername = 'u'\npassword = 'p'\nconnect_timeout = '200ms'",
            server.address
        ));
        let [Err(error)] = &sink(KEYED, &connectors).deliver(&bodies(&["1"])).await[..] else { panic!() };
        assert!(matches!(error, DeliveryError::Unreachable { .. }), "{error}");
    }
}

#[test]
fn refuses_settings_that_cannot_work() {
    let long = "x".repeat(256);
    for (text, expected) in [
        ("", "missing field `routing_key`"),
        (&*format!("routing_key = '{long}'"), "routing_key: 256 bytes, more than the limit of 255"),
        (
            &*format!("routing_key = 'k'\nexchange = '{long}'"),
            "exchange: 256 bytes, more than the limit of 255",
        ),
        (
            &*format!("routing_key = 'k'\ncontent_type = '{long}'"),
            "content_type: expected 1 to 255 bytes, given 256",
        ),
        ("routing_key = 'k'\ncontent_type = ''", "content_type: expected 1 to 255 bytes, given 0"),
        ("routing_key = 'k'\nheaders = { '' = '1' }", "expected a name of 1 to 255 bytes"),
        ("routing_key = 'k'\nheaders = { CC = '1' }", "headers.CC: the server would route by it"),
        ("routing_key = 'k'\nheaders = { BCC = '1' }", "headers.BCC: the server would route by it"),
        ("routing_key = 'k'\nexpiration = '0ms'", "expiration: expected 1ms to 4294967295ms"),
        ("routing_key = 'k'\nexpiration = '50d'", "expiration: expected 1ms to 4294967295ms"),
        ("routing_key = 'k'\npriority = 256", "expected u8"),
        (
            "routing_key = 'k'\nmandatory = false\nunroutable = 'retry'",
            "unroutable: belongs to mandatory = true",
        ),
        ("routing_key = 'k'\nunroutable = 'drop'", "unknown variant `drop`"),
        ("routing_key = 'k'\ntimeout = '1ms'", "timeout: expected 10ms to 10m"),
        ("routing_key = 'k'\nbatch = { max_items = 0 }", "batch.max_items: expected 1 to 10000"),
        ("routing_key = 'k'\nconcurrency = 0", "concurrency: expected 1 to 256"),
        ("routing_key = 'k'\nimmediate = true", "unknown field `immediate`"),
    ] {
        let refusal = refusal(&format!("{ACTION}{text}"));
        assert!(refusal.contains(expected), "{text}: {refusal}");
    }
    let fits = "x".repeat(255);
    let text = format!(
        "exchange = '{fits}'\nrouting_key = '{fits}'\ncontent_type = '{fits}'\nexpiration = '4294967295ms'"
    );
    plan(&format!("{ACTION}{text}"));
    plan(&format!("{ACTION}routing_key = ''\nexpiration = '1ms'\npriority = 255"));
}

#[test]
fn refuses_connectors_that_cannot_work() {
    let known = "servers = ['h:1']\nusername = 'u'\npassword = 'p'\n";
    let with = |text: &str| format!("{known}{text}");
    for (text, expected) in [
        (
            "servers = []\nusername = 'u'\npassword = 'p'".to_owned(),
            "servers: expected 1 to 16 servers, given 0",
        ),
        ("servers = ['h:1']".to_owned(), "username: auth_mechanism = \"plain\" needs it"),
        ("servers = ['h:1']\nusername = 'u'".to_owned(), "password: auth_mechanism = \"plain\" needs it"),
        ("servers = ['h:1']\nusername = \"u\\u0000x\"\npassword = 'p'".to_owned(), "username: holds a NUL"),
        ("servers = ['h:1']\nusername = 'u'\npassword = \"u\\u0000x\"".to_owned(), "password: holds a NUL"),
        (with("auth_mechanism = 'external'"), "username: belongs to auth_mechanism = \"plain\""),
        (
            "servers = ['h:1']\nauth_mechanism = 'external'\ntls = {}".to_owned(),
            "auth_mechanism: \"external\" needs a certificate: tls.client_cert_file",
        ),
        (with("auth_mechanism = 'amqplain'"), "unknown variant `amqplain`"),
        (with(&format!("vhost = '{}'", "x".repeat(256))), "vhost: expected at most 255 bytes, given 256"),
        (with("heartbeat = '0s'"), "heartbeat: expected 1s to 1h in whole seconds"),
        (with("heartbeat = '1500ms'"), "heartbeat: expected 1s to 1h in whole seconds"),
        (with("heartbeat = '3601s'"), "heartbeat: expected 1s to 1h in whole seconds"),
        (with("connect_timeout = '1ms'"), "connect_timeout: expected 10ms to 10m"),
        (with("url = 'amqp://h'"), "unknown field `url`"),
        (with("tls = { ca_file = '/none' }"), "tls.ca_file: \"/none\" can't be read"),
    ] {
        let text = format!("[q]\ntype = 'amqp'\n{text}");
        let refusal = match toml::from_str::<BTreeMap<String, ConnectorConfig>>(&text) {
            Err(error) => error.message().to_owned(),
            Ok(configs) => {
                let refused = Connectors::load(&configs, &TargetPolicy::default(), &Connectors::default());
                refused.expect_err(&text)[0].to_string()
            }
        };
        assert!(refusal.contains(expected), "{text}: {refusal}");
    }
    connectors(&format!("[q]\ntype = 'amqp'\n{}", with("heartbeat = '1h'")));
}

#[test]
fn an_action_needs_a_connector_of_its_own_type() {
    let known = connectors("[q]\ntype = 'http'\n");
    let ActionConfig::Amqp(settings) = config(&format!("{ACTION}routing_key = 'k'")) else { panic!() };
    let error = AmqpSink::new("rule", &settings, &known).unwrap_err().to_string();
    assert!(error.contains("[connectors.q] is of type \"http\", not \"amqp\""), "{error}");
}

#[test]
fn what_comes_from_messages_is_bounded() {
    let text = "exchange = '${e}'\nrouting_key = '${k}'\nheaders = { h = '${h}' }";
    let plan = plan(&format!("{ACTION}{text}"));
    let with = |field: &'static str, bytes: usize| {
        let value = vec![b'x'; bytes];
        render(&plan, &[(field, &value)]).is_ok()
    };
    for (field, limit) in [("exchange", 255), ("routing_key", 255), ("headers.h", 64 << 10)] {
        assert!(with(field, limit) && !with(field, limit + 1), "{field}");
    }
}

#[test]
fn shows_no_secret() {
    let text = "[q]\ntype = 'amqp'\nservers = ['h:1']\nusername = 'u'\npassword = 'hunter2'";
    let connectors = connectors(text);
    let sink = sink(KEYED, &connectors);
    let shown = format!("{connectors:?} {sink:?}");
    assert!(shown.contains("h:1") || shown.contains("Endpoint"), "{shown}");
    assert!(!shown.contains("hunter2"), "{shown}");
}
