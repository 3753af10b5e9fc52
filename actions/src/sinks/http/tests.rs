//! The driver against a server on loopback that can stall, refuse, cut and half-answer.

mod batches;
mod connectors;
mod hosts;
mod transport;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use proptest::prelude::*;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::{HttpRequest, HttpSink, RequestUrl};
use crate::config::ActionConfig;
use crate::connectors::Connectors;
use crate::delivery::{
    AnswerClass, Delivery, DeliveryError, DropReason, Enqueued, Envelope, ItemId, Outgoing, Sink as _,
};
use crate::error::RenderError;
use crate::plan::{ActionPlan, Request};
use crate::targets::TargetPolicy;
use crate::testing::{FakeRenderer, closed, config, plan, refusal, render};

/// What the server does with one request.
#[derive(Debug, Clone)]
enum Reply {
    /// Writes these bytes and keeps the connection.
    Bytes(String),
    /// Writes these bytes and then nothing more, for as long as the client holds on.
    Stall(String),
    /// Closes with a reset.
    Reset,
    /// Writes the head, then body chunks for as long as the client takes them.
    EndlessBody,
    /// Writes header lines for as long as the client takes them.
    EndlessHead,
}

fn status(status: &str, headers: &str, body: &str) -> Reply {
    Reply::Bytes(format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n{headers}\r\n{body}", body.len()))
}

/// A request as it came over the wire: head and body.
#[derive(Debug, Clone)]
struct Seen {
    head: String,
    body: Vec<u8>,
    connection: usize,
}

impl Seen {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

struct Server {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    /// A permit for every connection whose far end went away during an endless answer.
    hung_up: Arc<Semaphore>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    /// Answers the requests one after the other with `replies`; the last one stands for all that follow.
    async fn start(replies: Vec<Reply>) -> Self {
        Self::start_on(replies, None).await
    }

    /// The same, over TLS where an acceptor is given.
    async fn start_on(replies: Vec<Reply>, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let hung_up = Arc::new(Semaphore::new(0));
        let (recorded, released) = (Arc::clone(&seen), Arc::clone(&hung_up));
        let task = tokio::spawn(async move {
            let replies = Arc::new(replies);
            for connection in 0.. {
                let (mut stream, _) = listener.accept().await.unwrap();
                let (replies, recorded, released) =
                    (Arc::clone(&replies), Arc::clone(&recorded), Arc::clone(&released));
                let tls = tls.clone();
                tokio::spawn(async move {
                    match tls {
                        // A client may break off during the handshake.
                        Some(tls) => {
                            if let Ok(mut stream) = tls.accept(stream).await {
                                serve(&mut stream, connection, replies, recorded, released).await;
                            }
                        }
                        None => {
                            if serve(&mut stream, connection, replies, recorded, released).await {
                                stream.set_zero_linger().unwrap();
                            }
                        }
                    }
                });
            }
        });
        Self { address, seen, hung_up, task }
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().clone()
    }
}

/// Returns whether the connection is to end with a reset.
async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    connection: usize,
    replies: Arc<Vec<Reply>>,
    seen: Arc<Mutex<Vec<Seen>>>,
    hung_up: Arc<Semaphore>,
) -> bool {
    let mut buffer = Vec::new();
    while let Some(request) = read_request(stream, &mut buffer, connection).await {
        let reply = {
            let mut seen = seen.lock();
            seen.push(request);
            replies.get(seen.len() - 1).or(replies.last()).unwrap().clone()
        };
        match reply {
            Reply::Bytes(text) => {
                if stream.write_all(text.as_bytes()).await.is_err() {
                    return false;
                }
            }
            Reply::Stall(text) => {
                stream.write_all(text.as_bytes()).await.unwrap();
                let mut rest = [0; 64];
                while stream.read(&mut rest).await.is_ok_and(|n| n > 0) {}
                hung_up.add_permits(1);
                return false;
            }
            Reply::Reset => return true,
            Reply::EndlessBody => {
                stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await.unwrap();
                while stream.write_all(b"5\r\nhello\r\n").await.is_ok() {}
                hung_up.add_permits(1);
                return false;
            }
            Reply::EndlessHead => {
                stream.write_all(b"HTTP/1.1 200 OK\r\n").await.unwrap();
                while stream.write_all(b"X-More: and more\r\n").await.is_ok() {}
                hung_up.add_permits(1);
                return false;
            }
        }
    }
    false
}

async fn read_request<S: AsyncRead + Unpin>(
    stream: &mut S,
    buffer: &mut Vec<u8>,
    connection: usize,
) -> Option<Seen> {
    let head_ends = loop {
        if let Some(at) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(buffer.drain(..head_ends).collect()).unwrap();
    let mut seen = Seen { head, body: Vec::new(), connection };
    let length: usize = seen.header("content-length").map_or(0, |text| text.parse().unwrap());
    while buffer.len() < length {
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
    seen.body = buffer.drain(..length).collect();
    Some(seen)
}

/// This machine, where the servers of the tests are.
fn neighbours() -> TargetPolicy {
    let allow_private = vec!["127.0.0.0/8".parse().unwrap(), "::1".parse().unwrap()];
    TargetPolicy { allow_private, ..TargetPolicy::default() }
}

fn http(plan: &ActionPlan, values: &[(&str, &[u8])]) -> Result<HttpRequest, RenderError> {
    match render(plan, values)? {
        Request::Http(request) => Ok(request),
        other => panic!("{other:?}"),
    }
}

fn sink_with(text: &str, targets: TargetPolicy) -> (HttpSink, HttpRequest) {
    let ActionConfig::Http(settings) = config(text) else { panic!() };
    (
        HttpSink::new("rule", &settings, Arc::new(targets), &Connectors::default()).unwrap(),
        http(&plan(text), &[]).unwrap(),
    )
}

async fn attempt(text: &str, targets: TargetPolicy) -> Result<(), DeliveryError> {
    let (sink, request) = sink_with(text, targets);
    one(&sink, request).await
}

async fn one(sink: &HttpSink, request: HttpRequest) -> Result<(), DeliveryError> {
    let id = ItemId { store: 0xab, epoch: 3, sequence: 7 };
    let results = sink.deliver(&[Arc::new(Envelope::new(id, request, None))]).await;
    assert_eq!(results.len(), 1);
    results.into_iter().next().unwrap()
}

#[tokio::test]
async fn a_request_of_an_earlier_run_says_so_and_when_its_message_came() {
    let server = Server::start(vec![status("200 OK", "", "")]).await;
    let id = ItemId { store: 0xab, epoch: 3, sequence: 7 };
    for (more, replayed, expected) in [
        ("", None, [None, None]),
        ("", Some(1_700_000_000_123), [Some("true"), Some("1700000000123")]),
        ("headers = { Tidegate-Received-At = 'mine' }", Some(5), [Some("true"), Some("mine")]),
    ] {
        let (sink, request) = sink_with(&to(&server, more), neighbours());
        assert_eq!(sink.deliver(&[Arc::new(Envelope::new(id, request, replayed))]).await, [Ok(())]);
        let seen = server.seen().pop().unwrap();
        assert_eq!(["tidegate-replayed", "tidegate-received-at"].map(|name| seen.header(name)), expected);
    }
}

fn to(server: &Server, more: &str) -> String {
    format!("type = 'http'\nname = 'a'\nurl = 'http://{}/in'\n{more}", server.address)
}

async fn answer_to(reply: Reply) -> Result<(), DeliveryError> {
    let server = Server::start(vec![reply]).await;
    attempt(&to(&server, ""), neighbours()).await
}

#[tokio::test]
async fn posts_the_output_as_json_with_an_idempotency_key() {
    let server = Server::start(vec![status("204 No Content", "", "")]).await;
    attempt(&to(&server, ""), neighbours()).await.unwrap();
    let [seen] = server.seen().try_into().unwrap();
    assert!(seen.head.starts_with("POST /in HTTP/1.1\r\n"), "{}", seen.head);
    assert_eq!(seen.body, br#"{"t":61}"#);
    assert_eq!(seen.header("content-type"), Some("application/json"));
    assert_eq!(seen.header("idempotency-key"), Some("00000000000000ab.3-7.rule.a"));
    assert!(seen.header("user-agent").unwrap().starts_with("tidegate/"));
}

#[tokio::test]
async fn sends_what_is_configured() {
    let server = Server::start(vec![status("200 OK", "", "fine")]).await;
    let text = to(
        &server,
        "method = 'PUT'\nbody = 'plain ${x}'\n[headers]\nAuthorization = 'Bearer ${x}'\nIdempotency-Key = 'mine'",
    )
    .replace("/in'", "/in/${topic(2)}?q=${x}'");
    let (sink, _) = sink_with(&text, neighbours());
    let plan = plan(&text);
    let url = format!("http://{}/in/a%2Fb?q=%26", server.address);
    let values = [
        ("url", url.as_bytes()),
        ("body", b"plain text"),
        ("headers.Authorization", b"Bearer s3cret"),
        ("headers.Idempotency-Key", b"mine"),
    ];
    one(&sink, http(&plan, &values).unwrap()).await.unwrap();
    let [seen] = server.seen().try_into().unwrap();
    assert!(seen.head.starts_with("PUT /in/a%2Fb?q=%26 HTTP/1.1\r\n"), "{}", seen.head);
    assert_eq!(seen.header("authorization"), Some("Bearer s3cret"));
    assert_eq!(seen.header("idempotency-key"), Some("mine"));
    assert_eq!(seen.header("content-type"), Some("application/octet-stream"));
    assert_eq!(seen.body, b"plain text");
}

#[tokio::test]
async fn uses_one_connection_for_requests_one_after_the_other() {
    let server = Server::start(vec![
        status("200 OK", "", "fine"),
        status("500 Oops", "", "no"),
        status("200 OK", "", ""),
    ])
    .await;
    let (sink, request) = sink_with(&to(&server, ""), neighbours());
    for expected in [true, false, true] {
        assert_eq!(one(&sink, request.clone()).await.is_ok(), expected);
    }
    assert_eq!(server.seen().iter().map(|seen| seen.connection).collect::<Vec<_>>(), [0, 0, 0]);
}

#[tokio::test]
async fn says_what_an_answer_means() {
    use AnswerClass::{Disable, Reject, Retry};
    for (line, expected) in [
        ("400 Bad Request", Reject),
        ("401 Unauthorized", Disable),
        ("403 Forbidden", Disable),
        ("407 Proxy Authentication Required", Disable),
        ("404 Not Found", Reject),
        ("408 Request Timeout", Retry),
        ("409 Conflict", Reject),
        ("410 Gone", Reject),
        ("425 Too Early", Retry),
        ("429 Too Many Requests", Retry),
        ("500 Oops", Retry),
        ("501 Not Implemented", Retry),
        ("503 Service Unavailable", Retry),
        ("302 Found", Reject),
        ("304 Not Modified", Reject),
    ] {
        let error = answer_to(status(line, "Location: /other\r\n", "")).await.expect_err(line);
        assert_eq!(error.is_retriable(), expected != Reject, "{line}: {error}");
        assert_eq!(error.is_attempt(), expected != Disable, "{line}: {error}");
        let DeliveryError::Answered { status, class, retry_after: None, .. } = error else {
            panic!("{line}: {error:?}")
        };
        assert_eq!(class, expected, "{line}");
        assert!(line.starts_with(&status.to_string()), "{line}: {status}");
    }
}

#[tokio::test]
async fn quotes_the_beginning_of_a_refusal_on_one_line() {
    let body = format!("{{\"error\":\r\n\"no {}\"}}", "x".repeat(100_000));
    let error = answer_to(status("400 Bad Request", "", &body)).await.unwrap_err().to_string();
    assert!(error.starts_with("the far side answered 400: \"{\"error\":\\r\\n\"no xxx"), "{error}");
    assert!(error.len() < 300, "{}", error.len());
}

#[tokio::test]
async fn reads_retry_after_where_it_means_something() {
    let seconds = answer_to(status("503 Busy", "Retry-After: 30\r\n", "")).await.unwrap_err();
    assert_eq!(seconds.retry_after(), Some(Duration::from_secs(30)));

    let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(1_000));
    let date = answer_to(status("429 Slow down", &format!("Retry-After: {date}\r\n"), "")).await.unwrap_err();
    let asked = date.retry_after().unwrap();
    assert!(asked > Duration::from_secs(900) && asked <= Duration::from_secs(1_000), "{asked:?}");

    let past = answer_to(status("503 Busy", "Retry-After: Fri, 31 Dec 1999 23:59:59 GMT\r\n", ""))
        .await
        .unwrap_err();
    assert_eq!(past.retry_after(), Some(Duration::ZERO));

    for (line, value) in [("503 Busy", "soon"), ("503 Busy", "-1"), ("400 Bad", "30")] {
        let error = answer_to(status(line, &format!("Retry-After: {value}\r\n"), "")).await.unwrap_err();
        assert_eq!(error.retry_after(), None, "{line} {value}");
    }
}

#[tokio::test]
async fn tells_a_refused_connection_from_a_broken_one() {
    let (closed, _socket) = closed();
    let text = format!("type = 'http'\nname = 'a'\nurl = 'http://{closed}/secret?token=1'");
    let refused = attempt(&text, neighbours()).await.unwrap_err();
    assert!(matches!(refused, DeliveryError::Unreachable { .. }), "{refused:?}");
    assert!(refused.is_retriable() && !refused.is_attempt());
    assert!(!refused.to_string().contains("token"), "{refused}");

    let broken = answer_to(Reply::Reset).await.unwrap_err();
    assert!(matches!(broken, DeliveryError::Interrupted { .. }), "{broken:?}");
    assert!(broken.is_retriable() && broken.is_attempt());

    let garbage = answer_to(Reply::Bytes("not http at all\r\n\r\n".to_owned())).await.unwrap_err();
    assert!(matches!(garbage, DeliveryError::Interrupted { .. }), "{garbage:?}");
}

#[tokio::test]
async fn gives_up_on_a_server_that_stalls() {
    let server = Server::start(vec![Reply::Stall(String::new())]).await;
    // The time includes that of connecting: it may be over before the server has the request.
    while server.seen().is_empty() {
        let error = attempt(&to(&server, "timeout = '500ms'"), neighbours()).await.unwrap_err();
        assert_eq!(error, DeliveryError::TimedOut { after: Duration::from_millis(500) });
        assert!(error.is_retriable() && error.is_attempt());
    }
    // The connection isn't kept for the next request.
    server.hung_up.acquire().await.unwrap().forget();
}

#[tokio::test]
async fn a_success_counts_even_if_its_body_never_ends() {
    let stalled =
        Server::start(vec![Reply::Stall("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf".to_owned())])
            .await;
    assert_eq!(attempt(&to(&stalled, "timeout = '2s'"), neighbours()).await, Ok(()));

    let endless = Server::start(vec![Reply::EndlessBody]).await;
    let (sink, request) = sink_with(&to(&endless, "max_answer = '1KiB'\ntimeout = '10m'"), neighbours());
    assert_eq!(one(&sink, request).await, Ok(()));
    endless.hung_up.acquire().await.unwrap().forget();
}

#[tokio::test]
async fn an_endless_head_is_a_broken_answer() {
    let server = Server::start(vec![Reply::EndlessHead]).await;
    let error = attempt(&to(&server, "timeout = '10m'"), neighbours()).await.unwrap_err();
    assert!(matches!(error, DeliveryError::Interrupted { .. }), "{error:?}");
    server.hung_up.acquire().await.unwrap().forget();
}

#[tokio::test]
async fn follows_no_redirect_by_default() {
    for line in ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"] {
        let server =
            Server::start(vec![status(line, "Location: /other\r\n", ""), status("200 OK", "", "")]).await;
        let error = attempt(&to(&server, ""), neighbours()).await.expect_err(line);
        assert!(!error.is_retriable(), "{line}");
        assert_eq!(server.seen().len(), 1, "{line}");
    }
}

#[tokio::test]
async fn follows_redirects_within_the_origin_if_asked_to() {
    let other = Server::start(vec![status("200 OK", "", "")]).await;
    let elsewhere = format!("Location: http://{}/x\r\n", other.address);
    let same = "Location: /moved\r\n";
    for (reply, follows) in [
        (status("307 Temporary", same, ""), true),
        (status("308 Permanent", same, ""), true),
        (status("302 Found", same, ""), false),
        (status("303 See Other", same, ""), false),
        (status("307 Temporary", &elsewhere, ""), false),
        (status("307 Temporary", "Location: http://169.254.169.254/x\r\n", ""), false),
    ] {
        let server = Server::start(vec![reply.clone(), status("200 OK", "", "")]).await;
        let text = to(&server, "redirect = 'same_origin'\n[headers]\nAuthorization = 'Bearer x'");
        assert_eq!(attempt(&text, neighbours()).await.is_ok(), follows, "{reply:?}");
        let seen = server.seen();
        assert_eq!(seen.len(), if follows { 2 } else { 1 }, "{reply:?}");
        if follows {
            assert!(seen[1].head.starts_with("POST /moved "));
            assert_eq!(seen[1].body, br#"{"t":61}"#);
        }
    }
    assert_eq!(other.seen().len(), 0);

    let ring = Server::start(vec![status("307 Temporary", same, "")]).await;
    let error = attempt(&to(&ring, "redirect = 'same_origin'"), neighbours()).await.unwrap_err();
    assert!(matches!(error, DeliveryError::Answered { status: 307, .. }), "{error:?}");
    assert_eq!(ring.seen().len(), 4);
}

#[tokio::test]
async fn connects_nowhere_that_the_policy_forbids() {
    for host in [
        "169.254.169.254",
        "[fe80::1]",
        "[::ffff:169.254.169.254]",
        "0.0.0.0",
        "[::]",
        "2852039166",
        "0xa9fea9fe",
        "0251.0376.0251.0376",
        "169.254.43518",
    ] {
        let text = format!("type = 'http'\nname = 'a'\nurl = 'http://{host}/latest/meta-data'");
        let error = attempt(&text, neighbours()).await.expect_err(host);
        assert!(matches!(error, DeliveryError::Forbidden(_)), "{host}: {error:?}");
        assert!(!error.is_retriable());
    }
}

#[tokio::test]
async fn judges_the_address_that_a_name_resolves_to() {
    let server = Server::start(vec![status("200 OK", "", "")]).await;
    let port = server.address.port();
    let text = format!("type = 'http'\nname = 'a'\nurl = 'http://localhost:{port}/'");
    let error = attempt(&text, TargetPolicy::default()).await.unwrap_err();
    let DeliveryError::Forbidden(target) = &error else { panic!("{error:?}") };
    assert_eq!((target.host.as_str(), target.reason), ("localhost", "a loopback address"));

    let policy = TargetPolicy { admin: vec![server.address], ..neighbours() };
    let error = attempt(&text, policy).await.unwrap_err();
    assert!(error.to_string().contains("admin interface"), "{error}");
    assert_eq!(server.seen().len(), 0);

    attempt(&text, neighbours()).await.unwrap();
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn delivers_in_order_through_refusals_and_pauses() {
    let server = Server::start(vec![
        status("503 Busy", "Retry-After: 0\r\n", ""),
        Reply::Reset,
        status("200 OK", "", ""),
        status("400 Bad Request", "", "no"),
        status("200 OK", "", ""),
    ])
    .await;
    let text = to(&server, "retry = { initial_backoff = '1ms', max_backoff = '2ms' }");
    let ActionConfig::Http(settings) = config(&text) else { panic!() };
    let sink = HttpSink::new("rule", &settings, Arc::new(neighbours()), &Connectors::default()).unwrap();
    let plan = plan(&text);
    let delivery = Delivery::spawn("rule/a", sink, settings.delivery(), 1);
    for body in ["1", "2", "3"] {
        let mut renderer = FakeRenderer::new(&plan, &[]).with_output(body.as_bytes());
        let Ok(Request::Http(request)) = plan.render(&mut renderer) else { panic!() };
        let id = ItemId { store: 0, epoch: 0, sequence: body.parse().unwrap() };
        assert_eq!(delivery.enqueue(Outgoing::new(id, Some(1), request)), Enqueued::Queued);
    }
    delivery.shutdown(Duration::from_secs(60)).await;
    let snapshot = delivery.snapshot();
    assert!(snapshot.is_conserved());
    assert_eq!((snapshot.delivered, snapshot.dropped_for(DropReason::Refused), snapshot.retried), (2, 1, 2));
    let bodies: Vec<String> =
        server.seen().iter().map(|seen| String::from_utf8(seen.body.clone()).unwrap()).collect();
    assert_eq!(bodies, ["1", "1", "1", "2", "3"]);
    let keys: Vec<_> =
        server.seen().iter().map(|seen| seen.header("idempotency-key").unwrap().to_owned()).collect();
    assert_eq!(keys[0], keys[2]);
    assert_ne!(keys[2], keys[3]);
}

#[test]
fn a_rendered_url_stays_with_its_origin_and_path() {
    let plan = plan("type = 'http'\nname = 'a'\nurl = 'https://ops.example/alarms/${x}?site=${y}'");
    let url =
        |text: &str| http(&plan, &[("url", text.as_bytes())]).map(|request| request.url.as_str().to_owned());
    assert_eq!(
        url("https://ops.example/alarms/a%2F..%2Fb?site=1").unwrap(),
        "https://ops.example/alarms/a%2F..%2Fb?site=1"
    );
    for text in [
        "https://ops.example/alarms/..?site=1",
        "https://ops.example/alarms/%2e%2E/x",
        "https://ops.example/alarms/./x",
        "https://ops.example/alarms/a b",
        "https://ops.example/alarms/a\r\nHost: evil",
        "https://ops.example/alarms/a\tb",
        "https://ops.example\\@evil.example/",
        "https://evil.example/alarms/1",
        "https://ops.example@evil.example/alarms/1",
        "https://ops.example:8443/alarms/1",
        "http://ops.example/alarms/1",
        "",
    ] {
        assert!(matches!(url(text), Err(RenderError::Url { .. })), "{text}: {:?}", url(text));
    }
    let long = format!("https://ops.example/alarms/{}", "x".repeat(8_192));
    assert!(matches!(url(&long), Err(RenderError::TooLarge { .. })));
}

#[test]
fn a_rendered_header_cannot_begin_another() {
    let plan = plan("type = 'http'\nname = 'a'\nurl = 'http://h/'\nheaders = { X-Site = '${x}' }");
    for value in [&b"a\r\nX-Evil: 1"[..], b"a\nb", b"a\rb", b"a\0b", b"\x1b[31m"] {
        let error = http(&plan, &[("headers.X-Site", value)]).unwrap_err();
        assert!(error.to_string().starts_with("headers.X-Site was rendered"), "{error}");
        assert!(!error.to_string().contains("Evil"), "values may be secret: {error}");
    }
    let long = vec![b'x'; 8_193];
    assert!(matches!(http(&plan, &[("headers.X-Site", &long)]), Err(RenderError::TooLarge { .. })));
    let fine = http(&plan, &[("headers.X-Site", "süd".as_bytes())]).unwrap();
    assert_eq!(fine.headers.get("x-site").unwrap().as_bytes(), "süd".as_bytes());
}

#[test]
fn a_rendered_method_is_one_of_the_known_ones() {
    let plan = plan("type = 'http'\nname = 'a'\nurl = 'http://h/'\nmethod = '${m}'");
    assert_eq!(http(&plan, &[("method", b"PATCH")]).unwrap().method.as_str(), "PATCH");
    for method in [&b"CONNECT"[..], b"TRACE", b"post", b"", b"GET /evil HTTP/1.1\r\n"] {
        assert!(matches!(http(&plan, &[("method", method)]), Err(RenderError::Value { .. })));
    }
}

#[test]
fn the_content_type_follows_the_body() {
    let template = "type = 'http'\nname = 'a'\nurl = 'http://h/'\nbody = '${b}'";
    let content_type = |text: &str, body: &[u8]| {
        let request = http(&plan(text), &[("body", body)]).unwrap();
        request.headers.get("content-type").map(|value| value.to_str().unwrap().to_owned())
    };
    assert_eq!(content_type(template, b"{\"a\":1}").as_deref(), Some("application/json"));
    assert_eq!(content_type(template, b"a=1").as_deref(), Some("application/octet-stream"));
    assert_eq!(content_type(template, b""), None);
    let own = format!("{template}\nheaders = {{ content-type = 'text/csv' }}");
    assert_eq!(content_type(&own, b"1").as_deref(), Some("text/csv"));
    let raw = plan("type = 'http'\nname = 'a'\nurl = 'http://h/'");
    let Ok(Request::Http(request)) = raw.render(&mut FakeRenderer::new(&raw, &[]).with_output(b"\xff"))
    else {
        panic!()
    };
    assert_eq!(request.headers.get("content-type").unwrap(), "application/octet-stream");
}

proptest! {
    /// Whatever a template gives, a request goes to the configured origin or nowhere.
    #[test]
    fn no_rendered_url_leaves_its_origin(prefix in prop::sample::select(vec!["", "https://ops.example", "https://ops.example/a/"]), rest: String) {
        let plan = plan("type = 'http'\nname = 'a'\nurl = 'https://ops.example/${x}'");
        if let Ok(request) = http(&plan, &[("url", format!("{prefix}{rest}").as_bytes())]) {
            let RequestUrl::Absolute(url) = request.url else { panic!() };
            prop_assert_eq!(url.origin().ascii_serialization(), "https://ops.example");
            prop_assert_eq!(url.username(), "");
            if prefix.ends_with("/a/") {
                prop_assert!(url.path().starts_with("/a/"), "{}", url);
            }
        }
    }

    /// Whatever a template gives, a header stays one header.
    #[test]
    fn no_rendered_header_holds_a_control_character(value: Vec<u8>) {
        let plan = plan("type = 'http'\nname = 'a'\nurl = 'http://h/'\nheaders = { X-A = '${x}' }");
        if let Ok(request) = http(&plan, &[("headers.X-A", &value)]) {
            let bytes = request.headers.get("x-a").unwrap().as_bytes();
            prop_assert!(bytes.iter().all(|byte| *byte == b'\t' || (*byte >= 0x20 && *byte != 0x7f)));
            prop_assert_eq!(bytes, value);
        }
    }
}

#[test]
fn debug_texts_hold_no_secret() {
    let text = "type = 'http'\nname = 'a'\nurl = 'https://h/p?token=s3cret'\nbody = 's3cret'\nheaders = { Authorization = 'Bearer s3cret' }";
    let config = config(text);
    let request = http(&plan(text), &[]).unwrap();
    for debug in [format!("{config:?}"), format!("{request:?}"), format!("{config:#?}")] {
        assert!(!debug.contains("s3cret"), "{debug}");
        assert!(debug.to_lowercase().contains("authorization"), "{debug}");
    }
}

#[test]
fn refuses_settings_that_cannot_work() {
    for (text, expected) in [
        ("url = 'https://${x}/a'", "url: the host must be literal"),
        ("url = 'https://h${x}/a'", "url: the host must be literal"),
        ("url = 'https://h:${p}/a'", "url: the port must be literal"),
        ("url = '${x}'", "url: expected http:// or https://"),
        ("url = 'ftp://h/'", "url: expected http or https"),
        ("url = 'unix:///run/docker.sock'", "url: expected http or https"),
        ("url = 'https:///a'", "url: expected a URL"),
        ("url = 'http://user:pw@h/'", "url: a URL can't hold a user name"),
        ("url = 'http://h@${x}/'", "url: a URL can't hold a user name"),
        ("url = 'http://h\\${x}'", "url: a URL can't hold spaces, control characters or backslashes"),
        ("url = 'http://h/a b'", "url: a URL can't hold spaces"),
        ("url = 'http://h/../a'", "url: a URL can't hold \".\" or \"..\""),
        ("url = 'http://h/'\nmethod = 'TRACE'", "method: expected GET"),
        ("url = 'http://h/'\nheaders = { 'A:B' = '1' }", "headers.A:B: expected a header name"),
        ("url = 'http://h/'\nheaders = { Host = 'x' }", "headers.Host: this header is set by"),
        (
            "url = 'http://h/'\nheaders = { Transfer-Encoding = 'x' }",
            "headers.Transfer-Encoding: this header",
        ),
        ("url = 'http://h/'\nheaders = { X-A = '1', x-a = '2' }", "given twice"),
        ("url = 'http://h/'\nheaders = { X-A = \"a\\r\\nb\" }", "headers.X-A: expected a header value"),
        ("url = 'http://h/'\ntimeout = '0s'", "timeout: expected 10ms to 10m"),
        ("url = 'http://h/'\ntimeout = 10", "invalid type: integer `10`"),
        ("url = 'http://h/'\ntimeout = '10 sec'", "\"10 sec\" is no duration"),
        ("url = 'http://h/'\nmax_answer = '17MiB'", "max_answer: expected 0B to 16MiB"),
        ("url = 'http://h/'\nconcurrency = 0", "concurrency: expected 1 to 256"),
        ("url = 'http://h/'\nretry = { max_attempts = 0 }", "retry.max_attempts: expected 1"),
        (
            "url = 'http://h/'\nretry = { initial_backoff = '2m' }",
            "retry.initial_backoff: expected 1ms to max_backoff",
        ),
        ("url = 'http://h/'\nqueue = { overflow = 'block' }", "unknown variant `block`"),
        ("url = 'http://h/'\nredirect = 'all'", "unknown variant `all`"),
        ("url = 'http://h/'\ntimeOut = '1s'", "unknown field `timeOut`"),
        ("", "missing field `url`"),
    ] {
        let refusal = refusal(&format!("type = 'http'\nname = 'a'\n{text}"));
        assert!(refusal.contains(expected), "{text}: {refusal}");
    }
}
