//! Credentials: what is sent, how tokens are had and kept, and that no secret is shown.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::*;
use crate::config::ConnectorConfig;
use crate::connectors::ConnectorError;
use crate::delivery::DeliveryError;

/// Connectors as a configuration has them: tables named by `[name]`.
pub(super) fn connectors_with(text: &str, targets: &TargetPolicy) -> Result<Connectors, Vec<ConnectorError>> {
    let configs: BTreeMap<String, ConnectorConfig> = toml::from_str(text).unwrap();
    Connectors::load(&configs, targets, &Connectors::default())
}

pub(super) fn connectors(text: &str) -> Connectors {
    connectors_with(text, &neighbours()).unwrap()
}

#[track_caller]
fn connector_refusal(text: &str) -> String {
    let text = format!("[ops]\ntype = 'http'\n{text}");
    match toml::from_str::<BTreeMap<String, ConnectorConfig>>(&text) {
        Err(error) => error.message().to_owned(),
        Ok(configs) => {
            Connectors::load(&configs, &neighbours(), &Connectors::default()).expect_err(&text)[0].to_string()
        }
    }
}

/// A driver for an action of this text, and the request that it makes.
pub(super) fn sink_by(text: &str, connectors: &Connectors) -> (HttpSink, HttpRequest) {
    let ActionConfig::Http(settings) = config(text) else { panic!() };
    let sink = HttpSink::new("rule", &settings, Arc::new(neighbours()), connectors).unwrap();
    (sink, http(&plan(text), &[]).unwrap())
}

/// The text of an action that names the connector `ops`.
pub(super) const BY_OPS: &str = "type = 'http'\nname = 'a'\nconnector = 'ops'\nurl = '/in?x=1'\n";

fn to_server(server: &Server, auth: &str) -> (HttpSink, HttpRequest) {
    let text = format!("[ops]\ntype = 'http'\nurl = 'http://{}/base/'\n{auth}", server.address);
    sink_by(BY_OPS, &connectors(&text))
}

#[tokio::test]
async fn a_path_goes_behind_the_connectors_url_with_its_credentials() {
    for (auth, expected) in [
        (
            "auth = { type = 'basic', username = 'gate', password = 'p:w' }",
            format!("Basic {}", STANDARD.encode("gate:p:w")),
        ),
        ("auth = { type = 'bearer', token = 'tok' }", "Bearer tok".to_owned()),
    ] {
        let server = Server::start(vec![status("200 OK", "", "")]).await;
        let (sink, request) = to_server(&server, auth);
        one(&sink, request).await.unwrap();
        let [seen] = server.seen().try_into().unwrap();
        assert!(seen.head.starts_with("POST /base/in?x=1 HTTP/1.1\r\n"), "{}", seen.head);
        assert_eq!(seen.header("authorization"), Some(expected.as_str()));
    }
}

#[tokio::test]
async fn a_queued_path_goes_to_the_connectors_url_of_the_moment() {
    let (old, new) = (
        Server::start(vec![status("200 OK", "", "")]).await,
        Server::start(vec![status("200 OK", "", "")]).await,
    );
    let (_, request) = to_server(&old, "");
    let (sink, _) = to_server(&new, "");
    one(&sink, request).await.unwrap();
    assert_eq!((old.seen().len(), new.seen().len()), (0, 1));
}

#[tokio::test]
async fn signs_what_is_sent() {
    let server = Server::start(vec![status("200 OK", "", "")]).await;
    let (sink, request) = to_server(&server, "auth = { type = 'hmac', secret = 'whsec_c2VjcmV0' }");
    one(&sink, request.clone()).await.unwrap();
    let (sink, _) = to_server(
        &server,
        "auth = { type = 'hmac', secret = 'secret', format = 'body', algorithm = 'sha512', header = 'X-Sig' }",
    );
    one(&sink, request).await.unwrap();
    let [webhook, body] = server.seen().try_into().unwrap();
    assert_eq!(webhook.header("webhook-id"), Some("00000000000000ab.3-7.rule.a"));
    assert_eq!(webhook.header("webhook-id"), webhook.header("idempotency-key"));
    let signed =
        format!("00000000000000ab.3-7.rule.a.{}.{{\"t\":61}}", webhook.header("webhook-timestamp").unwrap());
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, b"secret");
    let signature = webhook.header("webhook-signature").unwrap().strip_prefix("v1,").unwrap();
    ring::hmac::verify(&key, signed.as_bytes(), &STANDARD.decode(signature).unwrap()).unwrap();
    assert!(body.header("x-sig").unwrap().starts_with("sha512="));
    assert_eq!(body.header("webhook-id"), None);
}

fn token(text: &str) -> Reply {
    status("200 OK", "Content-Type: application/json\r\n", text)
}

fn oauth(tokens: &Server, more: &str) -> String {
    format!(
        "[ops.auth]\ntype = 'oauth2'\ntoken_url = 'http://{}/token'\nclient_id = 'gate way'\nclient_secret = 's&cret'\n{more}",
        tokens.address
    )
}

#[tokio::test]
async fn a_token_is_fetched_once_and_kept() {
    let tokens =
        Server::start(vec![token(r#"{"access_token":"t1","token_type":"bearer","expires_in":3600}"#)]).await;
    let server = Server::start(vec![status("200 OK", "", "")]).await;
    let more = "scopes = ['a', 'b']\nparams = { audience = 'x y' }";
    let (sink, request) = to_server(&server, &oauth(&tokens, more));
    let (first, second) = tokio::join!(one(&sink, request.clone()), one(&sink, request.clone()));
    assert_eq!((first, second), (Ok(()), Ok(())));
    one(&sink, request).await.unwrap();
    assert!(server.seen().iter().all(|seen| seen.header("authorization") == Some("Bearer t1")));
    let [fetch] = tokens.seen().try_into().unwrap();
    assert!(fetch.head.starts_with("POST /token "), "{}", fetch.head);
    assert_eq!(
        fetch.header("authorization"),
        Some(&*format!("Basic {}", STANDARD.encode("gate+way:s%26cret")))
    );
    assert_eq!(fetch.body, b"grant_type=client_credentials&scope=a+b&audience=x+y");
}

#[tokio::test]
async fn a_client_may_show_its_secret_in_the_body() {
    let tokens = Server::start(vec![token(r#"{"access_token":"t1"}"#)]).await;
    let server = Server::start(vec![status("200 OK", "", "")]).await;
    let (sink, request) = to_server(&server, &oauth(&tokens, "client_auth = 'body'"));
    one(&sink, request).await.unwrap();
    let [fetch] = tokens.seen().try_into().unwrap();
    assert_eq!(fetch.header("authorization"), None);
    assert_eq!(fetch.body, b"grant_type=client_credentials&client_id=gate+way&client_secret=s%26cret");
}

#[tokio::test]
async fn an_expired_token_is_fetched_anew() {
    let tokens = Server::start(vec![
        token(r#"{"access_token":"t1","expires_in":0}"#),
        token(r#"{"access_token":"t2","expires_in":"3600"}"#),
    ])
    .await;
    let server = Server::start(vec![status("200 OK", "", "")]).await;
    let (sink, request) = to_server(&server, &oauth(&tokens, ""));
    for _ in 0..3 {
        one(&sink, request.clone()).await.unwrap();
    }
    let sent: Vec<_> =
        server.seen().iter().map(|seen| seen.header("authorization").unwrap().to_owned()).collect();
    assert_eq!(sent, ["Bearer t1", "Bearer t2", "Bearer t2"]);
}

#[tokio::test]
async fn a_refused_token_is_replaced_once() {
    let tokens = Server::start(vec![
        token(r#"{"access_token":"t1"}"#),
        token(r#"{"access_token":"t2"}"#),
        token(r#"{"access_token":"t3"}"#),
    ])
    .await;
    let server = Server::start(vec![
        status("401 Unauthorized", "", ""),
        status("200 OK", "", ""),
        status("401 Unauthorized", "", ""),
    ])
    .await;
    let (sink, request) = to_server(&server, &oauth(&tokens, ""));
    one(&sink, request.clone()).await.unwrap();
    // Two refusals in a row: it isn't the token.
    let error = one(&sink, request).await.unwrap_err();
    assert!(error.is_disabling(), "{error:?}");
    let sent: Vec<_> =
        server.seen().iter().map(|seen| seen.header("authorization").unwrap().to_owned()).collect();
    assert_eq!(sent, ["Bearer t1", "Bearer t2", "Bearer t2", "Bearer t3"]);
    let keys: Vec<_> =
        server.seen().iter().map(|seen| seen.header("idempotency-key").unwrap().to_owned()).collect();
    assert_eq!(keys[0], keys[1]);
}

#[tokio::test]
async fn without_a_token_nothing_is_sent() {
    let server = Server::start(vec![status("200 OK", "", "")]).await;
    for (reply, disables, text) in [
        (
            status("400 Bad", "", r#"{"error":"invalid_client","x":"s&cret"}"#),
            true,
            "answered 400 (invalid_client)",
        ),
        (status("401 No", "", ""), true, "answered 401"),
        (status("500 Oops", "", "s&cret"), false, "answered 500"),
        (status("429 Slow", "", ""), false, "answered 429"),
        (status("302 Found", "Location: http://169.254.169.254/\r\n", ""), false, "answered 302"),
        (token("not json"), false, "holds no access token"),
        (token("{}"), false, "holds no access token"),
        (token(r#"{"access_token":"t","token_type":"mac"}"#), false, "isn't Bearer"),
        (token(r#"{"access_token":"a\nb"}"#), false, "doesn't fit a header"),
        (Reply::Reset, false, "token endpoint:"),
        (Reply::EndlessBody, false, "larger than the limit of 65536"),
    ] {
        let tokens = Server::start(vec![reply.clone()]).await;
        let (sink, request) = to_server(&server, &oauth(&tokens, ""));
        let error = one(&sink, request).await.unwrap_err();
        assert_eq!(error.is_disabling(), disables, "{reply:?}: {error:?}");
        assert!(error.is_retriable() && !error.is_attempt(), "{error:?}");
        assert!(error.to_string().contains(text) && !error.to_string().contains("s&cret"), "{error}");
    }
    let stalled = Server::start(vec![Reply::Stall(String::new())]).await;
    let text = format!("[ops]\ntype = 'http'\nurl = 'http://{}'\n{}", server.address, oauth(&stalled, ""));
    let (sink, request) = sink_by(&format!("{BY_OPS}timeout = '50ms'"), &connectors(&text));
    let error = one(&sink, request).await.unwrap_err();
    assert!(matches!(&error, DeliveryError::Unreachable { .. }), "{error:?}");
    assert_eq!(server.seen().len(), 0);
}

#[tokio::test]
async fn an_answer_with_a_token_may_be_as_large_as_its_limit() {
    let server = Server::start(vec![status("200 OK", "", "")]).await;
    for (bytes, fits) in [(64 << 10, true), ((64 << 10) + 1, false)] {
        let head = r#"{"access_token":"t1","x":""#;
        let text = format!("{head}{}\"}}", "x".repeat(bytes - head.len() - 2));
        assert_eq!(text.len(), bytes);
        let tokens = Server::start(vec![token(&text)]).await;
        let (sink, request) = to_server(&server, &oauth(&tokens, ""));
        assert_eq!(one(&sink, request).await.is_ok(), fits, "{bytes}");
    }
}

#[tokio::test]
async fn the_token_endpoint_is_guarded_as_every_target_is() {
    let tokens = Server::start(vec![token(r#"{"access_token":"t1"}"#)]).await;
    let text = |host: &str| {
        format!(
            "[ops]\ntype = 'http'\nurl = 'http://ops.example'\n[ops.auth]\ntype = 'oauth2'\nclient_id = 'c'\nclient_secret = 's'\ntoken_url = 'http://{host}/'"
        )
    };
    let port = tokens.address.port();
    for host in ["169.254.169.254", "2852039166", &format!("127.0.0.1:{port}"), &format!("localhost:{port}")]
    {
        let connectors = connectors_with(&text(host), &TargetPolicy::default()).unwrap();
        let (sink, request) = sink_by(BY_OPS, &connectors);
        let error = one(&sink, request).await.unwrap_err();
        assert!(matches!(error, DeliveryError::Forbidden(_)), "{host}: {error:?}");
    }
    assert_eq!(tokens.seen().len(), 0);
}

#[tokio::test]
async fn a_connector_may_reach_private_addresses_of_its_own() {
    let server = Server::start(vec![status("200 OK", "", "")]).await;
    let text = |more: &str| format!("[ops]\ntype = 'http'\nurl = 'http://{}'\n{more}", server.address);
    for (more, reaches) in
        [("", false), ("allow_private = ['127.0.0.1']", true), ("allow_private = ['10.0.0.0/8']", false)]
    {
        let connectors = connectors_with(&text(more), &TargetPolicy::default()).unwrap();
        let ActionConfig::Http(settings) = config(BY_OPS) else { panic!() };
        let sink = HttpSink::new("rule", &settings, Arc::default(), &connectors).unwrap();
        let (_, request) = sink_by(BY_OPS, &connectors);
        assert_eq!(one(&sink, request).await.is_ok(), reaches, "{more}");
    }
}

#[tokio::test]
async fn unchanged_connectors_stay_the_same_with_their_tokens() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    let authority = transport::Authority::new();
    std::fs::write(&file, authority.pem()).unwrap();
    let text = |token: &str| {
        format!(
            "[ops]\ntype = 'http'\nurl = 'https://h'\nauth = {{ type = 'bearer', token = '{token}' }}\n[plant]\ntype = 'http'\nurl = 'https://h'\ntls = {{ ca_file = '{}' }}",
            file.display()
        )
    };
    let load = |token: &str, targets: &TargetPolicy, before: &Connectors| {
        let configs: BTreeMap<String, ConnectorConfig> = toml::from_str(&text(token)).unwrap();
        Connectors::load(&configs, targets, before).unwrap()
    };
    let first = load("one", &neighbours(), &Connectors::default());
    assert!(load("one", &neighbours(), &first).is_same(&first));
    let same = |now: &Connectors, name: &str| now.agree_on(&first, name);
    let other_token = load("two", &neighbours(), &first);
    assert_eq!((same(&other_token, "ops"), same(&other_token, "plant")), (false, true));
    let other_targets = load("one", &TargetPolicy::default(), &first);
    assert_eq!((same(&other_targets, "ops"), same(&other_targets, "plant")), (false, false));
    std::fs::write(&file, transport::Authority::new().pem()).unwrap();
    let other_file = load("one", &neighbours(), &first);
    assert_eq!((same(&other_file, "ops"), same(&other_file, "plant")), (true, false));
}

#[test]
fn no_debug_text_and_no_printed_configuration_shows_a_secret() {
    let text = "[ops]
type = 'http'
url = 'https://h'
proxy = 'http://proxy:3128'
proxy_username = 'gate'
proxy_password = 's3cret-1'
[ops.auth]
type = 'oauth2'
token_url = 'https://t/'
client_id = 'c'
client_secret = 's3cret-2'
params = { assertion = 's3cret-3' }
[basic]
type = 'http'
url = 'https://h'
auth = { type = 'basic', username = 'u', password = 's3cret-4' }
[bearer]
type = 'http'
url = 'https://h'
auth = { type = 'bearer', token = 's3cret-5' }
[hmac]
type = 'http'
url = 'https://h'
auth = { type = 'hmac', secret = 's3cret-6' }
";
    let configs: BTreeMap<String, ConnectorConfig> = toml::from_str(text).unwrap();
    let connectors = connectors(text);
    for shown in [
        format!("{configs:?}"),
        format!("{configs:#?}"),
        format!("{connectors:?}"),
        toml::to_string(&configs).unwrap(),
    ] {
        assert!(!shown.contains("s3cret"), "{shown}");
        assert!(shown.contains("(secret)"), "{shown}");
    }
}

#[test]
fn refuses_connectors_that_cannot_work_and_says_no_secret() {
    for (text, expected) in [
        ("url = 'ftp://h'", "url: expected http or https"),
        ("url = 'https://h/?x=s3cret'", "url: expected a URL without query"),
        ("url = 'https://${x}/'", "url: expected http:// or https:// and a literal host"),
        ("url = 'https://u:s3cret@h/'", "url: a URL can't hold a user name"),
        ("url = '/x'", "url: expected http:// or https:// and a literal host"),
        ("url = 'https://h'\nallowed_hosts = ['h']", "allowed_hosts: url says already"),
        ("allowed_hosts = ['https://h']", "is no host"),
        ("allow_private = ['10.0.0.1/8']", "is no range of addresses"),
        ("auth = { type = 'bearer', token = 's3cret' }", "auth: credentials need url or allowed_hosts"),
        (
            "tls = { client_cert_file = 'a', client_key_file = 'b' }",
            "tls: credentials need url or allowed_hosts",
        ),
        ("url = 'https://h'\nauth = { type = 'digest' }", "unknown variant `digest`"),
        ("url = 'https://h'\nauth = { token = 's3cret' }", "missing field `type`"),
        ("url = 'https://h'\nauth = { type = 'bearer' }", "auth.token: is missing"),
        ("url = 'https://h'\nauth = { type = 'bearer', token = '' }", "auth.token: is empty"),
        (
            "url = 'https://h'\nauth = { type = 'bearer', token = \"s3cret\\n\" }",
            "auth.token: holds characters that a header can't hold",
        ),
        (
            "url = 'https://h'\nauth = { type = 'bearer', token = 's3cret', password = 's3cret' }",
            "auth.password: belongs to type = \"basic\"",
        ),
        (
            "url = 'https://h'\nauth = { type = 'basic', username = 'a:b', password = 's3cret' }",
            "auth.username: a user name can't hold a colon",
        ),
        ("url = 'https://h'\nauth = { type = 'basic', username = 'a' }", "auth.password: is missing"),
        (
            "url = 'https://h'\nauth = { type = 'oauth2', client_id = 'c', client_secret = 's3cret' }",
            "auth.token_url: is missing",
        ),
        (
            "url = 'https://h'\nauth = { type = 'oauth2', token_url = 'https://${x}/', client_id = 'c', client_secret = 's3cret' }",
            "auth.token_url: expected http",
        ),
        (
            "url = 'https://h'\nauth = { type = 'oauth2', token_url = 'https://t/', client_id = 'c' }",
            "auth.client_secret: is missing",
        ),
        (
            "url = 'https://h'\nauth = { type = 'oauth2', token_url = 'https://t/', client_id = 'c', client_secret = 's3cret', scopes = ['a b'] }",
            "auth.scopes: expected words",
        ),
        (
            "url = 'https://h'\nauth = { type = 'oauth2', token_url = 'https://t/', client_id = 'c', client_secret = 's3cret', params = { scope = 'a' } }",
            "auth.params: scope has a key of its own",
        ),
        ("url = 'https://h'\nauth = { type = 'hmac' }", "auth.secret: is missing"),
        (
            "url = 'https://h'\nauth = { type = 'hmac', secret = 'whsec_s3cret!' }",
            "auth.secret: expected base64",
        ),
        ("url = 'https://h'\nauth = { type = 'hmac', secret = 'whsec_' }", "auth.secret: is empty"),
        (
            "url = 'https://h'\nauth = { type = 'hmac', secret = 's3cret', algorithm = 'sha512' }",
            "auth.algorithm: Standard Webhooks signs with sha256",
        ),
        (
            "url = 'https://h'\nauth = { type = 'hmac', secret = 's3cret', header = 'X' }",
            "auth.header: belongs to format",
        ),
        (
            "url = 'https://h'\nauth = { type = 'hmac', secret = 's3cret', format = 'body', header = 'Host' }",
            "auth.header: expected the name of a header",
        ),
        ("url = 'https://h'\nproxy = 'https://p:1'", "proxy: expected http://host:port"),
        ("url = 'https://h'\nproxy = 'socks5://p:1'", "proxy: expected http or https"),
        ("url = 'https://h'\nproxy = 'http://u:s3cret@p:1'", "proxy: a URL can't hold a user name"),
        (
            "url = 'https://h'\nproxy = 'http://p:1/x'",
            "proxy: expected http://host:port and nothing behind it",
        ),
        ("url = 'https://h'\nproxy_password = 's3cret'", "proxy_password: there is no proxy"),
        (
            "url = 'https://h'\nproxy = 'http://p:1'\nproxy_password = 's3cret'",
            "proxy_password: needs proxy_username too",
        ),
        (
            "url = 'https://h'\ntls = { client_key_file = 'k' }",
            "tls.client_key_file: a key needs client_cert_file",
        ),
        (
            "url = 'https://h'\ntls = { ca_file = '/nowhere/ca.pem' }",
            "tls.ca_file: \"/nowhere/ca.pem\" can't be read",
        ),
        ("url = 'https://h'\ntls = { server_name = 'a b' }", "tls.server_name: expected a host name"),
        ("tokens = 1", "unknown field `tokens`"),
    ] {
        let refusal = connector_refusal(text);
        assert!(refusal.contains(expected), "{text}: {refusal}");
        assert!(!refusal.contains("s3cret"), "{text}: {refusal}");
    }
}

#[test]
fn an_action_must_fit_its_connector() {
    let connectors = connectors(
        "[based]\ntype = 'http'\nurl = 'https://h'\nauth = { type = 'bearer', token = 't' }\n[listed]\ntype = 'http'\nallowed_hosts = ['*.example.com']\n[free]\ntype = 'http'\n",
    );
    let check = |text: &str| {
        let ActionConfig::Http(settings) = config(&format!("type = 'http'\nname = 'a'\n{text}")) else {
            panic!()
        };
        HttpSink::check(&settings, &connectors).map_err(|error| error.to_string())
    };
    for text in [
        "connector = 'based'\nurl = '/${x}'",
        "connector = 'listed'\nurl = 'https://a.example.com/'",
        "connector = 'listed'\nurl = 'https://${x}.example.com/'",
        "connector = 'free'\nurl = 'https://other.example/'",
    ] {
        assert_eq!(check(text), Ok(()), "{text}");
    }
    for (text, expected) in [
        (
            "connector = 'other'\nurl = '/'",
            "connector: the configuration has no [connectors.other]; expected one of based, free, listed",
        ),
        ("connector = 'based'\nurl = 'https://h/'", "url: the connector has a url of its own"),
        ("connector = 'listed'\nurl = '/x'", "url: the connector has no url that a path"),
        (
            "connector = 'listed'\nurl = 'https://other.example/'",
            "url: \"other.example\" is none of the connector's allowed hosts",
        ),
        ("connector = 'free'\nurl = 'https://${x}.example.com/'", "url: the connector has no allowed_hosts"),
        (
            "connector = 'based'\nurl = '/'\nheaders = { authorization = 'mine' }",
            "headers: authorization is set by the connector",
        ),
    ] {
        let refusal = check(text).unwrap_err();
        assert!(refusal.contains(expected), "{text}: {refusal}");
    }
}

#[tokio::test]
async fn an_answer_that_repeats_a_secret_is_not_shown() {
    for (auth, echo) in [
        ("auth = { type = 'bearer', token = 'hush-hush-hush' }", "no such token: hush-hush-hush"),
        // Cut off behind the twelfth character, as a long answer is.
        ("auth = { type = 'bearer', token = 'hush-hush-hush' }", "no such token: hush-hush-hu"),
        ("auth = { type = 'basic', username = 'u', password = 'hush-hush' }", "dTpodXNoLWh1c2g="),
        ("auth = { type = 'basic', username = 'u', password = 'hush-hush' }", "wrong: hush-hush"),
        ("auth = { type = 'hmac', secret = '0123456789abcdef0123456789abcdef' }", "is it 0123456789abcdef?"),
    ] {
        let server = Server::start(vec![status("400 Bad Request", "", echo)]).await;
        let (sink, request) = to_server(&server, auth);
        let error = one(&sink, request).await.unwrap_err().to_string();
        assert!(error.contains("(it repeats a secret)"), "{echo}: {error}");
    }
    let auth = "auth = { type = 'bearer', token = 'hush-hush-hush' }";
    let server = Server::start(vec![status("400 Bad Request", "", "hush-hush: not today")]).await;
    let (sink, request) = to_server(&server, auth);
    let error = one(&sink, request).await.unwrap_err().to_string();
    assert!(error.contains("hush-hush: not today"), "{error}");
}
