//! MQTT over a WebSocket of the interface: who may, as whom, and for how long.

use serde_json::{Value, json};

use super::config::Started;
use super::running::{Running, start};
use super::security::{ask, bearer, set_up, with_tokens};
use super::*;
use crate::api::mqtt::MQTT_MAX;

/// What a request for WebSocket says, but for who asks.
const UPGRADE: [(&str, &str); 5] = [
    ("Upgrade", "websocket"),
    ("Connection", "keep-alive, Upgrade"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ("Sec-WebSocket-Protocol", "mqtt"),
];

/// A client of MQTT inside WebSocket, byte by byte.
struct Client(TcpStream);

impl Client {
    /// Asks for one; an answer that isn't 101 comes back.
    async fn open(address: SocketAddr, headers: &[(&str, &str)]) -> Result<Self, Answer> {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let request = format!("GET /api/v1/mqtt HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let mut text = String::from_utf8(head).unwrap();
        if text.starts_with("HTTP/1.1 101 ") {
            let lower = text.to_lowercase();
            for header in [
                "\r\nupgrade: websocket\r\n",
                "\r\nconnection: upgrade\r\n",
                "\r\nsec-websocket-protocol: mqtt\r\n",
            ] {
                assert!(lower.contains(header), "{text}");
            }
            // The example of RFC 6455 §1.3.
            assert!(text.contains(": s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{text}");
            return Ok(Self(stream));
        }
        let length = text.to_lowercase();
        let length = length.split("content-length: ").nth(1).unwrap().split('\r').next().unwrap();
        let mut body = vec![0; length.parse().unwrap()];
        stream.read_exact(&mut body).await.unwrap();
        text.push_str(std::str::from_utf8(&body).unwrap());
        Err(Answer::read(&text))
    }

    /// The same, and a CONNECT of MQTT 5 that names somebody else; returns what answers it.
    async fn connect(address: SocketAddr, headers: &[(&str, &str)], client_id: &str) -> (Self, Vec<u8>) {
        let mut client = Self::open(address, &[&UPGRADE, headers].concat()).await.unwrap();
        let mut connect = mqtt_protocol::Connect::new(mqtt_protocol::ProtocolVersion::V5, client_id);
        connect.username = Some("root");
        connect.password = Some(b"nonsense");
        let mut bytes = Vec::new();
        let packet = mqtt_protocol::Packet::Connect(Box::new(connect));
        packet.encode(mqtt_protocol::ProtocolVersion::V5, &mut bytes).unwrap();
        client.send(&bytes).await;
        let answer = client.frame().await.expect("a CONNACK");
        (client, answer)
    }

    async fn send(&mut self, packet: &[u8]) {
        let length = u8::try_from(packet.len()).unwrap();
        assert!(length < 126);
        // A mask of zeros leaves the payload as it is.
        self.0.write_all(&[&[0x82, 0x80 | length, 0, 0, 0, 0], packet].concat()).await.unwrap();
    }

    /// The payload of the next frame; `None`: the connection has ended, or was closed.
    async fn frame(&mut self) -> Option<Vec<u8>> {
        let mut head = [0; 2];
        self.0.read_exact(&mut head).await.ok()?;
        let length = match head[1] {
            126 => usize::from(self.0.read_u16().await.unwrap()),
            short => usize::from(short),
        };
        let mut payload = vec![0; length];
        self.0.read_exact(&mut payload).await.ok()?;
        (head[0] == 0x82).then_some(payload)
    }

    async fn is_closed(&mut self) {
        while self.frame().await.is_some() {}
    }
}

fn address(running: &Running) -> SocketAddr {
    running.api.address().unwrap()
}

/// The Reason Code of a CONNACK.
fn reason(connack: &[u8]) -> u8 {
    assert_eq!(connack[0], 0x20, "{connack:?}");
    connack[3]
}

#[tokio::test]
async fn a_client_is_who_is_signed_in_whatever_its_connect_says() {
    let running = start().await;
    let (cookie, csrf) = set_up(&running.api).await;
    let session = [("Cookie", cookie.as_str()), ("Origin", "http://localhost")];
    let (mut client, connack) = Client::connect(address(&running), &session, "c-1").await;
    assert_eq!(reason(&connack), 0);
    let shown = running.get("/api/v1/clients/c-1").await;
    let connection = &shown["connection"];
    assert_eq!((&connection["username"], &connection["listener"]), (&json!("ada"), &json!("console")));
    // SUBSCRIBE to a/#, and what comes to it.
    client.send(&[0x82, 9, 0, 1, 0, 0, 3, b'a', b'/', b'#', 0]).await;
    assert_eq!(client.frame().await.unwrap(), [0x90, 4, 0, 1, 0, 0]);
    running.change("POST", "/api/v1/publish", json!({ "topic": "a/b", "payload": "hi" })).await;
    assert_eq!(client.frame().await.unwrap(), [0x30, 8, 0, 3, b'a', b'/', b'b', 0, b'h', b'i']);
    // What it publishes goes to rules.
    client.send(&[&[0x30, 14, 0, 3, b's', b'/', b'1', 0][..], b"{\"t\":61}"].concat()).await;
    while running.get("/api/v1/rules/hot").await["passed"] == json!(0) {
        tokio::task::yield_now().await;
    }
    // It is on the record of changes.
    let record = running.ask("admin", "GET", "/api/v1/audit", &Value::Null).await.json();
    let entries = record["entries"].as_array().unwrap();
    let opened = entries.iter().find(|entry| entry["operation"] == "openMqtt");
    assert_eq!(opened.map(|entry| &entry["who"]), Some(&json!("ada")), "{record}");
    // Signed out: within a second it is over.
    let bye = [("Cookie", cookie.as_str()), ("X-CSRF-Token", csrf.as_str())];
    assert_eq!(ask(&running.api, "DELETE", "/api/v1/session", &bye, "").await.status, 204);
    client.is_closed().await;
    let refused = Client::open(address(&running), &[&UPGRADE[..], &session].concat()).await.err().unwrap();
    assert_eq!(refused.problem().0, 401);
    running.stop().await;
}

#[tokio::test]
async fn who_loses_the_role_or_the_token_loses_the_connection() {
    let running = start().await;
    let password = "correct horse battery";
    let user = json!({ "name": "bob", "role": "operator", "password": password });
    assert_eq!(running.ask("admin", "POST", "/api/v1/users", &user).await.status, 204);
    let body = json!({ "name": "bob", "password": password }).to_string();
    let signed_in = ask(&running.api, "POST", "/api/v1/session", &[], &body).await;
    let cookie = signed_in.cookie.unwrap();
    let cookie = cookie.split(';').next().unwrap();
    let (mut client, connack) = Client::connect(address(&running), &[("Cookie", cookie)], "c").await;
    assert_eq!(reason(&connack), 0);
    let less = json!({ "role": "viewer" });
    assert_eq!(running.ask("admin", "PATCH", "/api/v1/users/bob", &less).await.status, 204);
    client.is_closed().await;

    let made =
        running.ask("admin", "POST", "/api/v1/tokens", &json!({ "name": "ci", "role": "operator" })).await;
    let token = bearer(made.json()["token"].as_str().unwrap());
    let (mut client, _) = Client::connect(address(&running), &[("Authorization", &token)], "d").await;
    assert_eq!(running.get("/api/v1/clients/d").await["connection"]["username"], "token ci");
    assert_eq!(running.ask("admin", "DELETE", "/api/v1/tokens/ci", &Value::Null).await.status, 204);
    client.is_closed().await;
    running.stop().await;
}

#[tokio::test]
async fn nobody_else_gets_in() {
    let running = start().await;
    let operator = bearer("operator");
    let open = async |headers: &[(&str, &str)]| {
        let headers = [&UPGRADE[..], headers].concat();
        Client::open(address(&running), &headers).await.err().expect("a refusal").problem()
    };
    assert_eq!(open(&[]).await, (401, "unauthenticated".to_owned()));
    assert_eq!(open(&[("Cookie", "tidegate_session=x")]).await, (401, "unauthenticated".to_owned()));
    let viewer = bearer("viewer");
    assert_eq!(open(&[("Authorization", &viewer)]).await, (403, "forbidden".to_owned()));
    let narrow = bearer("narrow");
    assert_eq!(open(&[("Authorization", &narrow)]).await, (403, "forbidden".to_owned()));
    let (cookie, _) = set_up(&running.api).await;
    for origin in ["http://evil.example", "null", "http://localhost:1"] {
        let asked = open(&[("Cookie", &cookie), ("Origin", origin)]).await;
        assert_eq!(asked, (403, "origin".to_owned()), "{origin}");
    }
    // A request for something else, or without what it takes.
    for (index, value) in [
        (0, "h2c"),
        (1, "keep-alive"),
        (2, "12"),
        (3, "dGhlIHNhbXBsZQ=="),
        (3, "not base64 at all!!!!!!!"),
        (4, "chat"),
    ] {
        let mut headers = UPGRADE.to_vec();
        headers[index].1 = value;
        headers.push(("Authorization", &operator));
        let refused = Client::open(address(&running), &headers).await.err().expect(value);
        assert_eq!(refused.problem(), (400, "malformed".to_owned()), "{value}");
    }
    assert_eq!(running.api.api.mqtt.open_now(), 0);
    running.stop().await;
    let read_only = listening(&Admin { read_only: true, ..with_tokens() }, None).await;
    let headers = [&UPGRADE[..], &[("Authorization", operator.as_str())]].concat();
    let refused = Client::open(read_only.address().unwrap(), &headers).await.err().unwrap();
    assert_eq!(refused.problem(), (403, "read_only".to_owned()));
    read_only.close().await;
}

#[tokio::test]
async fn there_are_so_many_at_a_time_and_a_place_is_free_again() {
    let running = start().await;
    let operator = bearer("operator");
    let headers = [&UPGRADE[..], &[("Authorization", operator.as_str())]].concat();
    let mut open = Vec::new();
    for _ in 0..MQTT_MAX {
        open.push(Client::open(address(&running), &headers).await.unwrap());
    }
    let refused = Client::open(address(&running), &headers).await.err().unwrap();
    assert_eq!(refused.problem(), (503, "unavailable".to_owned()));
    open.pop();
    while running.api.api.mqtt.open_now() >= MQTT_MAX {
        tokio::task::yield_now().await;
    }
    Client::open(address(&running), &headers).await.unwrap();
    running.stop().await;
}

#[tokio::test]
async fn enhanced_authentication_is_refused_here() {
    let running = start().await;
    let operator = bearer("operator");
    let headers = [&UPGRADE[..], &[("Authorization", operator.as_str())]].concat();
    let mut client = Client::open(address(&running), &headers).await.unwrap();
    // CONNECT with the Authentication Method x.
    client.send(&[0x10, 18, 0, 4, b'M', b'Q', b'T', b'T', 5, 2, 0, 0, 4, 0x15, 0, 1, b'x', 0, 1, b'c']).await;
    assert_eq!(reason(&client.frame().await.unwrap()), 0x8C);
    client.is_closed().await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn access_rules_hold_for_it_as_for_any_client_of_that_name() {
    let rules = "[acl]\nrules = ['deny publish user \"token operator\" \"a/no\"', 'allow all user \"token operator\" \"a/#\"']\n";
    let started = Started::new("", rules).await;
    let operator = bearer("operator");
    let at = started.server.admin_address().unwrap();
    let (mut client, connack) = Client::connect(at, &[("Authorization", &operator)], "c").await;
    assert_eq!(reason(&connack), 0);
    client
        .send(&[0x82, 18, 0, 1, 0, 0, 3, b'a', b'/', b'#', 0, 0, 6, b's', b'e', b'c', b'r', b'e', b't', 0])
        .await;
    let suback = client.frame().await.unwrap();
    assert!(suback[0] == 0x90 && suback.ends_with(&[0, 0x87]), "a/# granted, secret not: {suback:?}");
    // PUBLISH at QoS 1 to a/no and a/ok.
    client.send(&[0x32, 9, 0, 4, b'a', b'/', b'n', b'o', 0, 2, 0]).await;
    let puback = client.frame().await.unwrap();
    assert_eq!((puback[0], puback[3], puback[4]), (0x40, 2, 0x87), "{puback:?}");
    client.send(&[0x32, 9, 0, 4, b'a', b'/', b'o', b'k', 0, 3, 0]).await;
    let mut frames = client.frame().await.unwrap();
    while !frames.windows(6).any(|bytes| bytes == *b"\0\x04a/ok") {
        frames.extend(client.frame().await.unwrap());
    }
    started.stop().await;
}
