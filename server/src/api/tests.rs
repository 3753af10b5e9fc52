//! The interface as a whole, over its socket.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use broker::{Broker, BrokerConfig};

use super::*;
use crate::rules::{PipelineSettings, RuleBook, RuleSet};
use crate::storage::Storage;

mod acl;
mod action_queues;
mod backup;
mod config;
mod connectors;
mod console;
mod doors;
mod live;
mod mended_letters;
mod metrics;
mod mqtt;
mod overview;
mod rule_cases;
mod rule_changes;
mod running;
mod security;

/// An answer, taken apart.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: String,
    /// What is set as a cookie.
    pub(super) cookie: Option<String>,
}

impl Answer {
    fn read(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        let cookie = head.lines().find_map(|line| line.strip_prefix("set-cookie: ")).map(str::to_owned);
        Self { status, head: head.to_lowercase(), body: body.to_owned(), cookie }
    }

    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Status and code of a problem, which has the form that every problem has.
    #[track_caller]
    pub(super) fn problem(&self) -> (u16, String) {
        assert!(self.head.contains("content-type: application/problem+json"), "{self:?}");
        let problem = self.json();
        assert_eq!(problem["status"], self.status, "{self:?}");
        assert_eq!(problem["type"], "about:blank");
        assert!(problem["detail"].is_string() && problem["title"].is_string());
        (self.status, problem["code"].as_str().unwrap().to_owned())
    }
}

async fn send(address: SocketAddr, request: &str) -> Answer {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = Vec::new();
    stream.read_to_end(&mut text).await.unwrap();
    Answer::read(std::str::from_utf8(&text).unwrap())
}

async fn get(address: SocketAddr, path: &str) -> Answer {
    send(address, &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")).await
}

fn anywhere() -> Admin {
    Admin { address: "127.0.0.1:0".parse().unwrap(), ..Admin::default() }
}

/// A broker without listeners and without rules, in memory.
pub(crate) fn gateway() -> Gateway {
    gateway_of(&RuleSet::default(), &Storage::memory())
}

pub(super) fn gateway_of(rules: &RuleSet, storage: &Storage) -> Gateway {
    let settings = PipelineSettings { store: storage.durable().cloned(), ..PipelineSettings::default() };
    let limits = rules_sql::Limits::default();
    let book = RuleBook::start(rules.clone(), storage.data_dir(), &limits, &settings).unwrap();
    let pipeline = book.pipeline().clone();
    let config = BrokerConfig { sys_interval: std::time::Duration::ZERO, ..BrokerConfig::default() };
    let broker = Broker::new(config, storage.store(), Some(Arc::new(pipeline.clone())));
    pipeline.attach(Arc::new(broker.clone()));
    Gateway::new(broker, book, limits, storage.durable())
}

/// An interface that listens nowhere.
fn opened(config: &Admin, data_dir: Option<&Path>) -> Result<ApiServer, ApiError> {
    ApiServer::open(config, data_dir, gateway())
}

/// An interface that listens.
async fn listening(config: &Admin, data_dir: Option<&Path>) -> ApiServer {
    let mut api = opened(config, data_dir).unwrap();
    api.listen(config.address, None).await.unwrap();
    api
}

async fn open() -> ApiServer {
    listening(&anywhere(), None).await
}

#[tokio::test]
async fn health_is_open_and_readiness_follows_the_gateway() {
    let api = open().await;
    let alive = get(api.address().unwrap(), "/healthz").await;
    assert_eq!((alive.status, &*alive.body), (200, r#"{"status":"ok"}"#));
    assert_eq!(get(api.address().unwrap(), "/readyz").await.problem(), (503, "unavailable".to_owned()));
    api.ready(&[]);
    assert_eq!(get(api.address().unwrap(), "/readyz").await.status, 200);
    api.not_ready();
    assert_eq!(get(api.address().unwrap(), "/readyz").await.status, 503);
    api.close().await;
}

#[tokio::test]
async fn every_answer_has_the_headers_that_protect_its_reader() {
    let api = open().await;
    for path in ["/healthz", "/no/such/path", "/api/v1/openapi.json"] {
        let answer = get(api.address().unwrap(), path).await;
        for header in [
            "content-security-policy: default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            "x-content-type-options: nosniff",
            "x-frame-options: deny",
            "referrer-policy: no-referrer",
            "cross-origin-resource-policy: same-origin",
            "cross-origin-opener-policy: same-origin",
            "cache-control: no-store",
        ] {
            assert!(answer.head.contains(header), "{path}: {header} is missing in {answer:?}");
        }
        assert!(!answer.head.contains("access-control-"), "{answer:?}");
    }
    let refused = send(
        api.address().unwrap(),
        "GET /healthz HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n",
    );
    let refused = refused.await;
    assert_eq!(refused.problem(), (421, "host".to_owned()));
    assert!(refused.head.contains("content-security-policy"), "{refused:?}");
}

#[tokio::test]
async fn paths_and_methods_that_there_are_not_are_problems() {
    let api = open().await;
    for path in [
        "/api",
        "/api/v1",
        "/console",
        "/console/",
        "/console/none.js",
        "/console/%2e%2e",
        "/index.html",
        "/api/v1/",
        "/healthz/",
        "/HEALTHZ",
        "/api/v1/%2e%2e/healthz",
        "//healthz",
    ] {
        assert_eq!(get(api.address().unwrap(), path).await.problem(), (404, "no_path".to_owned()), "{path}");
    }
    let post = "POST /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let post = send(api.address().unwrap(), post).await;
    assert_eq!(post.problem(), (405, "method".to_owned()));
    assert!(post.head.contains("allow: get,head"), "{post:?}");
}

#[tokio::test]
async fn a_head_may_have_its_limit_and_no_more() {
    let api = open().await;
    let request = |filling: usize| {
        format!(
            "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX: {}\r\n\r\n",
            "x".repeat(filling)
        )
    };
    let rest = request(0).len();
    // hyper counts what it has read, and takes a head that it has whole.
    assert_eq!(send(api.address().unwrap(), &request(HEAD_BYTES_MAX - rest)).await.status, 200);
    let mut stream = TcpStream::connect(api.address().unwrap()).await.unwrap();
    stream.write_all(request(2 * HEAD_BYTES_MAX).as_bytes()).await.unwrap();
    let mut text = Vec::new();
    // The peer may reset the connection, since it leaves what it didn't read.
    drop(stream.read_to_end(&mut text).await);
    assert!(text.is_empty() || text.starts_with(b"HTTP/1.1 431 "), "{}", String::from_utf8_lossy(&text));
}

#[tokio::test]
async fn one_connection_more_than_the_limit_waits_for_its_turn() {
    let api = open().await;
    let mut held = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        let mut stream = TcpStream::connect(api.address().unwrap()).await.unwrap();
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        let mut first = [0; 12];
        stream.read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"HTTP/1.1 200");
        held.push(stream);
    }
    let address = api.address().unwrap();
    let mut waiting = tokio::spawn(async move { get(address, "/healthz").await });
    let early = tokio::time::timeout(std::time::Duration::from_millis(50), &mut waiting).await;
    assert!(early.is_err(), "it was answered beside {CONNECTIONS_MAX} others");
    held.pop();
    assert_eq!(waiting.await.unwrap().status, 200);
}

#[tokio::test]
async fn closing_ends_connections_that_are_idle_and_frees_the_address() {
    // Where nobody else listens, so that nobody else is given the port once it is free.
    let own = Admin { address: "127.0.0.2:0".parse().unwrap(), ..anywhere() };
    let api = listening(&own, None).await;
    let address = api.address().unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut first = [0; 12];
    stream.read_exact(&mut first).await.unwrap();
    api.close().await;
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    assert!(TcpStream::connect(address).await.is_err());
    listening(&Admin { address, ..anywhere() }, None).await.close().await;
}

#[test]
fn the_document_describes_every_route_and_its_problems() {
    let document: serde_json::Value = serde_json::from_str(document()).unwrap();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1."));
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let id = operation["operationId"].as_str().unwrap();
            assert!(!operations.contains(&id), "{id} stands for two operations");
            operations.push(id);
            let problem = &operation["responses"]["default"]["content"]["application/problem+json"];
            assert_eq!(problem["schema"]["$ref"], "#/components/schemas/Problem", "{method} {path}");
        }
    }
    assert_eq!(route_page().matches("\n| ").count(), operations.len() + 2, "a line for each operation");
}

#[test]
fn the_page_of_routes_is_that_of_the_table() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/api-routes.md");
    if std::env::var_os("API_REWRITE").is_some() {
        std::fs::write(path, route_page()).unwrap();
    }
    let page = std::fs::read_to_string(path).unwrap();
    assert_eq!(page, route_page(), "API_REWRITE=1 cargo test -p tidegate routes writes it");
}

#[test]
fn codes_of_problems_are_unique() {
    let mut codes: Vec<_> = problem::Kind::ALL.iter().map(|kind| kind.code()).collect();
    codes.sort_unstable();
    let count = codes.len();
    codes.dedup();
    assert_eq!(codes.len(), count);
}
