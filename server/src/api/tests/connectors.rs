//! Connectors through the interface, with far sides that answer.

use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::mpsc;

use super::config::Started;
use super::*;

/// Answers, and requests, that wait for their turn at most.
const WAITING_MAX: usize = 8;

/// An HTTP server that answers each request with the next of its statuses, and the lines of the requests that it was sent.
struct FarSide {
    address: SocketAddr,
    statuses: mpsc::Sender<&'static str>,
    heads: mpsc::Receiver<String>,
}

impl FarSide {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (statuses, mut next_status) = mpsc::channel(WAITING_MAX);
        let (head_sender, heads) = mpsc::channel(WAITING_MAX);
        tokio::spawn(async move {
            // A connection test connects once only to see whether that can be done.
            while let Ok((mut stream, _)) = listener.accept().await {
                let Some(head) = head(&mut stream).await else { continue };
                let Some(status) = next_status.recv().await else { return };
                let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                drop(stream.write_all(answer.as_bytes()).await);
                drop(head_sender.send(head).await);
            }
        });
        Self { address, statuses, heads }
    }

    /// What the next request is answered with.
    fn answer(&self, status: &'static str) {
        self.statuses.try_send(status).unwrap();
    }

    async fn asked(&mut self) -> String {
        self.heads.recv().await.unwrap()
    }
}

/// Reads a request; its head, in lower case. `None`: there was none.
async fn head(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
        let text = String::from_utf8_lossy(&bytes);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let head = head.to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        if body.len() >= length.unwrap_or(0) {
            return Some(head);
        }
    }
}

/// A connector of HTTP, with a secret in its path and one beside it.
fn connector(name: &str, address: SocketAddr) -> String {
    format!(
        "[connectors.{name}]\ntype = 'http'\nurl = 'http://{address}/canary-path'\nallow_private = ['127.0.0.1']\n\
         auth = {{ type = 'bearer', token = 'canary-token' }}\n"
    )
}

/// Where nobody listens, nor can as long as the socket is there.
fn closed() -> (SocketAddr, TcpSocket) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    (socket.local_addr().unwrap(), socket)
}

impl Started {
    /// Makes a rule whose actions, of these names, send what comes to `in` by the connector.
    async fn make_rule(&self, name: &str, actions: &[&str], connector: &str) {
        let action = |name: &&str| {
            json!({ "name": name, "type": "http", "connector": connector, "url": "/x",
                    "retry": { "initial_backoff": "10m", "max_backoff": "10m" } })
        };
        let actions: Vec<_> = actions.iter().map(action).collect();
        let rule = json!({ "sql": "SELECT * FROM 'in'", "actions": actions }).to_string();
        let put = self.ask("operator", "PUT", &format!("/api/v1/rules/{name}"), &rule).await;
        assert_eq!(put.status, 200, "{put:?}");
    }

    async fn publish(&self) {
        let body = json!({ "topic": "in", "payload": "{}" }).to_string();
        assert_eq!(self.ask("operator", "POST", "/api/v1/publish", &body).await.status, 204);
    }

    async fn connector(&self, name: &str) -> Value {
        let answer = self.ask("viewer", "GET", &format!("/api/v1/connectors/{name}"), "").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(!answer.body.contains("canary"), "{answer:?}");
        answer.json()
    }

    /// The connector as soon as it is of this health.
    async fn connector_of_health(&self, name: &str, health: &str) -> Value {
        loop {
            let shown = self.connector(name).await;
            if shown["health"] == health {
                return shown;
            }
            tokio::task::yield_now().await;
        }
    }

    async fn test_connector(&self, name: &str) -> Value {
        let answer = self.ask("operator", "POST", &format!("/api/v1/connectors/{name}/test"), "").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(!answer.body.contains("canary"), "{answer:?}");
        answer.json()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connectors_are_listed_by_name_with_their_uses_and_without_paths_and_secrets() {
    let (address, _socket) = closed();
    let text = connector("b", address)
        + &connector("a", address)
        + "[connectors.c]\ntype = 'redis'\nservers = ['one.example:6379', 'two.example:6380']\npassword = 'canary-redis'\n\
           tls = {}\n[connectors.d]\ntype = 'http'\nallowed_hosts = ['*.tenants.example']\n";
    let started = Started::new("", &text).await;
    started.make_rule("two", &["y", "x"], "a").await;
    started.make_rule("one", &["z"], "a").await;

    let whole = started.ask("viewer", "GET", "/api/v1/connectors", "").await;
    assert!(!whole.body.contains("canary"), "{whole:?}");
    let whole = whole.json();
    assert_eq!(whole["next"], Value::Null);
    let connectors = whole["connectors"].as_array().unwrap();
    let unused = |name: &str, kind: &str, addresses: Value| {
        json!({ "name": name, "kind": kind, "addresses": addresses, "used_by": [], "uses": 0, "health": "unknown",
                "cause": null, "last_delivered_at_ms": null, "last_error": null })
    };
    let origin = json!([format!("http://{address}")]);
    let mut used = unused("a", "http", origin.clone());
    used["uses"] = json!(3);
    used["used_by"] = json!(["one/z", "two/x", "two/y"]);
    assert_eq!(
        *connectors,
        [
            used,
            unused("b", "http", origin),
            unused("c", "redis", json!(["one.example:6379", "two.example:6380"])),
            unused("d", "http", json!(["*.tenants.example"])),
        ]
    );
    for listed in connectors {
        assert_eq!(started.connector(listed["name"].as_str().unwrap()).await, *listed);
    }

    // Page by page it is the same.
    let (mut paged, mut path) = (Vec::new(), "/api/v1/connectors?limit=3".to_owned());
    loop {
        let page = started.ask("viewer", "GET", &path, "").await.json();
        paged.extend(page["connectors"].as_array().unwrap().clone());
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/api/v1/connectors?limit=3&after={next}");
    }
    assert_eq!(paged, *connectors);
    for query in ["limit=0", "limit=1001", "after=x", "search=a"] {
        let refused = started.ask("viewer", "GET", &format!("/api/v1/connectors?{query}"), "").await;
        assert_eq!(refused.problem(), (422, "invalid".to_owned()), "{query}");
    }
    started.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_is_that_of_the_last_attempt_of_its_actions() {
    let mut far_side = FarSide::start().await;
    let started =
        Started::new("", &(connector("far", far_side.address) + &connector("other", far_side.address))).await;
    started.make_rule("sent", &["up"], "far").await;
    assert_eq!(started.connector("far").await["health"], "unknown");

    far_side.answer("200 OK");
    started.publish().await;
    let asked = far_side.asked().await;
    assert!(asked.starts_with("post /canary-path/x ") && asked.contains("bearer canary-token"), "{asked}");
    let well = started.connector_of_health("far", "ok").await;
    assert!(well["last_delivered_at_ms"].as_i64().unwrap() > 1_700_000_000_000, "{well}");
    assert_eq!((&well["cause"], &well["last_error"]), (&Value::Null, &Value::Null));

    far_side.answer("503 Service Unavailable");
    started.publish().await;
    far_side.asked().await;
    let failing = started.connector_of_health("far", "failing").await;
    assert!(failing["cause"].as_str().unwrap().contains("503"), "{failing}");
    assert!(failing["last_error"]["error"].as_str().unwrap().contains("503"), "{failing}");
    assert!(failing["last_error"]["at_ms"].as_i64().unwrap() > 1_700_000_000_000, "{failing}");
    assert_eq!(failing["uses"], 1);
    assert_eq!(started.connector("other").await["health"], "unknown", "nothing uses it");

    // It is well again once it takes what waits; what was wrong stays to be seen.
    far_side.answer("200 OK");
    let drained = started.ask("operator", "POST", "/api/v1/actions/sent/up/drain", "").await;
    assert_eq!(drained.json()["items"], 1);
    far_side.asked().await;
    let well = started.connector_of_health("far", "ok").await;
    assert_eq!(well["cause"], Value::Null, "{well}");
    assert!(well["last_error"]["error"].as_str().unwrap().contains("503"), "{well}");
    started.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_test_tells_each_stage_of_the_way_and_is_on_record() {
    let mut far_side = FarSide::start().await;
    let (closed, _socket) = closed();
    let text = connector("far", far_side.address)
        + &connector("closed", closed)
        + "[connectors.anywhere]\ntype = 'http'\nallowed_hosts = ['*.tenants.example']\n";
    let started = Started::new("", &text).await;
    for (status, passed) in [
        ("200 OK", true),
        ("404 Not Found", true),
        ("401 Unauthorized", false),
        ("500 Internal Server Error", false),
    ] {
        far_side.answer(status);
        let tested = started.test_connector("far").await;
        let asked = far_side.asked().await;
        assert!(asked.starts_with("head /canary-path") && asked.contains("bearer canary-token"), "{asked}");
        assert_eq!(
            (&tested["passed"], &tested["note"]),
            (&json!(passed), &Value::Null),
            "{status}: {tested}"
        );
        let steps = tested["steps"].as_array().unwrap();
        let stages: Vec<_> =
            steps.iter().map(|step| (step["stage"].as_str().unwrap(), step["passed"] == true)).collect();
        let way = [("name", true), ("address", true), ("connect", true), ("authentication", passed)];
        assert_eq!(stages, way, "{status}");
        let code = status.split(' ').next().unwrap();
        assert!(steps[3]["detail"].as_str().unwrap().contains(code), "{tested}");
        for step in steps {
            assert_eq!(step["server"], far_side.address.to_string());
            assert!(step["took_ms"].is_u64(), "{step}");
        }
        let audit = started.ask("admin", "GET", "/api/v1/audit?limit=1", "").await.json();
        let noted = &audit["entries"][0];
        assert_eq!(
            (&noted["operation"], &noted["target"], &noted["who"], &noted["after"]),
            (&json!("testConnector"), &json!("far"), &json!("token operator"), &json!({ "passed": passed }))
        );
    }
    let tested = started.test_connector("closed").await;
    assert_eq!(tested["passed"], false);
    assert_eq!(tested["steps"][2]["stage"], "connect");
    assert_eq!(tested["steps"].as_array().unwrap().len(), 3, "{tested}");
    let tested = started.test_connector("anywhere").await;
    assert_eq!((&tested["passed"], &tested["steps"]), (&json!(false), &json!([])));
    assert!(tested["note"].as_str().unwrap().contains("no url"), "{tested}");
    // Nothing of it counts as a delivery.
    assert_eq!(started.connector("far").await["health"], "unknown");
    started.stop().await;
}
