//! Streams of what goes on.

use serde_json::{Value, json};

use super::running::{Running, start};
use super::*;
use crate::api::live::STREAMS_MAX;

/// A stream that is read event by event.
pub(super) struct Stream {
    stream: TcpStream,
    rest: String,
}

impl Stream {
    pub(super) async fn open(running: &Running, token: &str, path: &str) -> Self {
        let mut stream = TcpStream::connect(running.api.address().unwrap()).await.unwrap();
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut opened = Self { stream, rest: String::new() };
        let head = opened.until("\r\n\r\n").await.expect("a head").to_lowercase();
        assert!(
            head.starts_with("http/1.1 200") && head.contains("content-type: text/event-stream"),
            "{head}"
        );
        opened
    }

    /// What comes up to this; `None`: the stream ended before.
    async fn until(&mut self, end: &str) -> Option<String> {
        loop {
            if let Some((before, after)) = self.rest.split_once(end) {
                let (before, after) = (before.to_owned(), after.to_owned());
                self.rest = after;
                return Some(before);
            }
            let mut bytes = [0; 4096];
            let count = self.stream.read(&mut bytes).await.unwrap();
            if count == 0 {
                return None;
            }
            self.rest.push_str(std::str::from_utf8(&bytes[..count]).unwrap());
        }
    }

    /// The next event of this name, past those of others.
    pub(super) async fn event(&mut self, name: &str) -> Option<Value> {
        loop {
            let event = self.until("\n\n").await?;
            if let Some((_, data)) = event.split_once("\ndata: ")
                && event.contains(&format!("event: {name}\n"))
            {
                return Some(serde_json::from_str(data).unwrap());
            }
        }
    }
}

async fn publish(running: &Running, topic: &str, payload: &str) {
    let body = json!({ "topic": topic, "payload": payload, "user_properties": [{ "name": "token", "value": "hush" }] });
    assert_eq!(running.change("POST", "/api/v1/publish", body).await.status, 204);
}

#[tokio::test]
async fn messages_are_shown_as_they_go_by_those_of_rules_too() {
    let running = start().await;
    let mut all = Stream::open(&running, "operator", "/api/v1/live/messages?rate=1000").await;
    let mut alarms = Stream::open(&running, "operator", "/api/v1/live/messages?filter=alarm/%2B").await;
    publish(&running, "s/7", "{\"t\":61}").await;
    publish(&running, "quiet\nevent: forged", "x").await;
    let first = all.event("message").await.unwrap();
    assert_eq!((&first["topic"], &first["payload"]["text"]), (&json!("s/7"), &json!("{\"t\":61}")));
    assert_eq!(first["user_properties"], json!([{ "name": "token", "value": "***" }]));
    assert_eq!(all.event("message").await.unwrap()["topic"], "alarm/7");
    assert_eq!(all.event("message").await.unwrap()["topic"], "quiet\nevent: forged");
    assert_eq!(alarms.event("message").await.unwrap()["topic"], "alarm/7");
    let last = alarms.rest.clone();
    assert!(!last.contains("event: message"), "{last}");
}

#[tokio::test]
async fn what_comes_too_fast_is_missed_and_counted() {
    let running = start().await;
    let mut slow = Stream::open(&running, "operator", "/api/v1/live/messages?rate=1").await;
    for _ in 0..5 {
        publish(&running, "t", "x").await;
    }
    let missed = slow.event("missed").await.unwrap();
    assert!((1..5).contains(&missed["messages"].as_u64().unwrap()), "{missed}");
}

#[tokio::test]
async fn rules_are_shown_when_they_work() {
    let running = start().await;
    let mut rules = Stream::open(&running, "viewer", "/api/v1/live/rules").await;
    let first = rules.event("rule").await.unwrap();
    assert_eq!((&first["name"], &first["matched"]), (&json!("hot"), &json!(0)));
    publish(&running, "s/7", "{\"t\":61}").await;
    let now = rules.event("rule").await.unwrap();
    assert_eq!((&now["name"], &now["matched"], &now["passed"]), (&json!("hot"), &json!(1), &json!(1)));
}

#[tokio::test]
async fn faults_and_one_stream_too_many_are_refused_and_a_place_is_free_again() {
    let running = start().await;
    let refused = async |path: &str| running.ask("operator", "GET", path, &Value::Null).await.problem();
    for query in ["filter=a/%23/b", "filter=%24share/g/a", "rate=0", "rate=1001", "rte=1"] {
        assert_eq!(
            refused(&format!("/api/v1/live/messages?{query}")).await,
            (422, "invalid".to_owned()),
            "{query}"
        );
    }
    let mut open = Vec::new();
    for _ in 0..STREAMS_MAX {
        open.push(Stream::open(&running, "viewer", "/api/v1/live/rules").await);
    }
    assert_eq!(refused("/api/v1/live/messages").await, (503, "unavailable".to_owned()));
    open.pop();
    // Its end is seen at its next event.
    publish(&running, "s/7", "{\"t\":61}").await;
    while running.api.api.streams.load(Ordering::Relaxed) >= STREAMS_MAX {
        publish(&running, "s/7", "{\"t\":61}").await;
        tokio::task::yield_now().await;
    }
    Stream::open(&running, "operator", "/api/v1/live/messages").await;
}

#[tokio::test]
async fn closing_ends_streams_at_once() {
    let running = start().await;
    let mut stream = Stream::open(&running, "operator", "/api/v1/live/messages").await;
    let closed = tokio::spawn(running.api.close());
    assert_eq!(stream.event("message").await, None);
    closed.await.unwrap();
}
