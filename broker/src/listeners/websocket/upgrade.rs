//! The opening request of WebSocket (RFC 6455 §4.2).
//!
//! Strict and bounded: whatever isn't a request for exactly what is offered here gets an answer of HTTP that says what is
//! wanted, and the connection closes. How long it may take is the caller's matter.

use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::WebSocketConfig;

/// Largest request, in bytes.
const REQUEST_BYTES_MAX: usize = 8 * 1024;
/// Most headers of a request.
const HEADERS_MAX: usize = 64;
/// Sub-protocols that are spoken (MQTT 5.0 §6; the second is what MQTT 3.1 was called).
const PROTOCOLS: [&str; 2] = ["mqtt", "mqttv3.1"];
/// What a key is hashed with (RFC 6455 §1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Why a request was refused.
#[derive(Debug, thiserror::Error)]
pub(in crate::listeners) enum UpgradeError {
    /// The connection broke.
    #[error("the connection broke")]
    Io(#[from] io::Error),
    /// It is no request for what is offered here.
    #[error("{status}: {why}")]
    Refused {
        /// Status of HTTP.
        status: &'static str,
        /// What was wanted.
        why: &'static str,
    },
}

fn refused<T>(status: &'static str, why: &'static str) -> Result<T, UpgradeError> {
    Err(UpgradeError::Refused { status, why })
}

/// Reads a request and answers it; returns what came behind it.
pub(super) async fn answer_request<IO: AsyncRead + AsyncWrite + Unpin>(
    io: &mut IO,
    config: &WebSocketConfig,
) -> Result<Vec<u8>, UpgradeError> {
    let outcome = match read_request(io).await {
        Ok((mut request, len)) => {
            let early = request.split_off(len);
            check(&request, config).map(|answer| (answer, early))
        }
        Err(error) => Err(error),
    };
    match outcome {
        Ok((answer, early)) => {
            io.write_all(answer.as_bytes()).await?;
            io.flush().await?;
            Ok(early)
        }
        Err(error) => {
            if let UpgradeError::Refused { status, why } = error {
                // What they answer to a refusal is no matter of ours.
                drop(io.write_all(refusal(status, why).as_bytes()).await);
                drop(io.shutdown().await);
            }
            Err(error)
        }
    }
}

fn refusal(status: &str, why: &str) -> String {
    let more = if status.starts_with("426") {
        "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    } else if status.starts_with("405") {
        "Allow: GET\r\n"
    } else {
        ""
    };
    format!(
        "HTTP/1.1 {status}\r\nConnection: close\r\n{more}Content-Type: text/plain\r\nContent-Length: {}\r\n\r\n{why}\n",
        why.len() + 1
    )
}

/// Reads up to the end of the headers; returns the bytes and how many of them are the request.
async fn read_request<IO: AsyncRead + Unpin>(io: &mut IO) -> Result<(Vec<u8>, usize), UpgradeError> {
    const END: &[u8] = b"\r\n\r\n";
    let mut bytes = Vec::with_capacity(1024);
    loop {
        let seen = bytes.len();
        if seen >= REQUEST_BYTES_MAX {
            return refused("431 Request Header Fields Too Large", "the request is larger than 8 KiB");
        }
        let room = u64::try_from(REQUEST_BYTES_MAX - seen).unwrap_or(0);
        if (&mut *io).take(room).read_buf(&mut bytes).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        let from = seen.saturating_sub(END.len() - 1);
        let fresh = bytes.get(from..).unwrap_or_default();
        if let Some(at) = fresh.windows(END.len()).position(|window| window == END) {
            return Ok((bytes, from + at + END.len()));
        }
    }
}

/// Judges a request; returns the answer that accepts it.
fn check(request: &[u8], config: &WebSocketConfig) -> Result<String, UpgradeError> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut headers);
    match parsed.parse(request) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return refused("400 Bad Request", "this is no request of HTTP/1.1"),
        Err(httparse::Error::TooManyHeaders) => {
            return refused("431 Request Header Fields Too Large", "the request has more than 64 headers");
        }
        Err(_) => return refused("400 Bad Request", "this is no request of HTTP/1.1"),
    }
    if parsed.method != Some("GET") {
        return refused("405 Method Not Allowed", "only GET is answered here");
    }
    if parsed.version != Some(1) {
        return refused("505 HTTP Version Not Supported", "WebSocket needs HTTP/1.1");
    }
    let path = parsed.path.and_then(|path| path.split('?').next());
    if path != Some(config.path.as_str()) {
        return refused("404 Not Found", "MQTT is to be found under another path");
    }
    let headers = Headers(parsed.headers);
    if headers.one("host").is_none() {
        return refused("400 Bad Request", "a request needs one Host");
    }
    if !headers.lists("upgrade", "websocket") || !headers.lists("connection", "upgrade") {
        return refused("426 Upgrade Required", "MQTT is spoken here over WebSocket");
    }
    if headers.one("sec-websocket-version") != Some("13") {
        return refused("426 Upgrade Required", "version 13 of WebSocket is spoken here");
    }
    let key =
        headers.one("sec-websocket-key").filter(|key| STANDARD.decode(key).is_ok_and(|key| key.len() == 16));
    let Some(key) = key else {
        return refused("400 Bad Request", "Sec-WebSocket-Key is no key of 16 bytes");
    };
    if let Some(origin) = headers.all("origin").next()
        && !config.origins.is_empty()
        && !config.origins.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin))
    {
        return refused("403 Forbidden", "pages of this origin may not connect");
    }
    let protocol = headers.items("sec-websocket-protocol").find(|offered| PROTOCOLS.contains(offered));
    let Some(protocol) = protocol else {
        return refused("400 Bad Request", "Sec-WebSocket-Protocol has to offer mqtt");
    };
    Ok(format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\nSec-WebSocket-Protocol: {protocol}\r\n\r\n",
        accept_key(key)
    ))
}

/// The `Sec-WebSocket-Accept` that proves that a request with this key was read (RFC 6455 §4.2.2).
#[must_use]
pub fn accept_key(key: &str) -> String {
    let mut hash = ring::digest::Context::new(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY);
    hash.update(key.as_bytes());
    hash.update(GUID);
    STANDARD.encode(hash.finish())
}

struct Headers<'h, 'b>(&'h [httparse::Header<'b>]);

impl<'b> Headers<'_, 'b> {
    /// The values of every header of this name that are text.
    fn all(&self, name: &'static str) -> impl Iterator<Item = &'b str> {
        self.0
            .iter()
            .filter(move |header| header.name.eq_ignore_ascii_case(name))
            .filter_map(|header| std::str::from_utf8(header.value).ok().map(str::trim))
    }

    /// The value of a header that is there once.
    fn one(&self, name: &'static str) -> Option<&'b str> {
        let mut all = self.all(name);
        all.next().filter(|_| all.next().is_none())
    }

    /// The items of a header that is a list.
    fn items(&self, name: &'static str) -> impl Iterator<Item = &'b str> {
        self.all(name).flat_map(|value| value.split(',')).map(str::trim)
    }

    fn lists(&self, name: &'static str, item: &str) -> bool {
        self.items(name).any(|found| found.eq_ignore_ascii_case(item))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "GET /mqtt HTTP/1.1\r\nHost: broker\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\
                        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
                        Sec-WebSocket-Protocol: mqtt\r\n\r\n";

    #[track_caller]
    fn status(request: &str, config: &WebSocketConfig) -> String {
        match check(request.as_bytes(), config) {
            Ok(answer) => answer.split("\r\n").next().unwrap().to_owned(),
            Err(UpgradeError::Refused { status, .. }) => status.to_owned(),
            Err(UpgradeError::Io(error)) => panic!("{error}"),
        }
    }

    #[test]
    fn the_example_of_the_rfc_is_answered() {
        let answer = check(GOOD.as_bytes(), &WebSocketConfig::default()).unwrap();
        assert!(answer.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{answer}");
        assert!(answer.contains("Sec-WebSocket-Protocol: mqtt\r\n"), "{answer}");
        assert!(answer.ends_with("\r\n\r\n"), "{answer}");
    }

    #[test]
    fn the_first_protocol_that_is_spoken_is_chosen() {
        for (offered, chosen) in [
            ("mqttv3.1", "mqttv3.1"),
            ("mqttv3.1, mqtt", "mqttv3.1"),
            ("chat, mqtt", "mqtt"),
            ("chat\r\nSec-WebSocket-Protocol: mqtt", "mqtt"),
        ] {
            let request = GOOD.replace("Protocol: mqtt", &format!("Protocol: {offered}"));
            let answer = check(request.as_bytes(), &WebSocketConfig::default()).unwrap();
            assert!(answer.contains(&format!("Sec-WebSocket-Protocol: {chosen}\r\n")), "{offered}: {answer}");
        }
    }

    #[test]
    fn what_is_no_request_for_mqtt_is_refused() {
        let config = WebSocketConfig::default();
        for (from, to, expected) in [
            ("GET", "POST", "405"),
            ("GET", "G\u{e4}T", "400"),
            ("/mqtt", "/", "404"),
            ("/mqtt", "/mqtt/", "404"),
            ("/mqtt", "http://broker/mqtt", "404"),
            ("HTTP/1.1", "HTTP/1.0", "505"),
            ("HTTP/1.1", "HTTP/2", "400"),
            ("Host: broker\r\n", "", "400"),
            ("Host: broker", "Host: broker\r\nHost: other", "400"),
            ("Upgrade: websocket", "Upgrade: h2c", "426"),
            ("Upgrade: websocket\r\n", "", "426"),
            ("Connection: keep-alive, Upgrade", "Connection: keep-alive", "426"),
            ("Version: 13", "Version: 8", "426"),
            ("Sec-WebSocket-Version: 13\r\n", "", "426"),
            ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQ", "400"),
            ("dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ=", "400"),
            ("dGhlIHNhbXBsZSBub25jZQ==", "", "400"),
            ("Sec-WebSocket-Protocol: mqtt\r\n", "", "400"),
            ("Protocol: mqtt", "Protocol: MQTT", "400"),
            ("Protocol: mqtt", "Protocol: mqtt5", "400"),
            ("Host", "Host\0", "400"),
            ("\r\nHost", "\r\n Host", "400"),
        ] {
            let request = GOOD.replacen(from, to, 1);
            assert_ne!(request, GOOD, "{from}");
            let status = status(&request, &config);
            assert!(status.starts_with(expected), "{from} -> {to}: {status}, expected {expected}");
        }
        for (from, to) in [
            ("websocket", "WebSocket"),
            ("Upgrade: ", "upgrade:"),
            ("/mqtt", "/mqtt?token=1"),
            ("Host", "Origin: https://anywhere\r\nHost"),
        ] {
            assert_eq!(
                status(&GOOD.replacen(from, to, 1), &config),
                "HTTP/1.1 101 Switching Protocols",
                "{to}"
            );
        }
    }

    #[test]
    fn headers_up_to_the_limit_are_read() {
        let with = |count: usize| GOOD.replacen("\r\n", &format!("\r\n{}", "X: y\r\n".repeat(count)), 1);
        let own = GOOD.matches("\r\n").count() - 2;
        let config = WebSocketConfig::default();
        assert!(status(&with(HEADERS_MAX - own), &config).contains("101"));
        assert!(status(&with(HEADERS_MAX - own + 1), &config).contains("431"));
    }

    #[test]
    fn pages_of_other_origins_are_refused_where_some_are_named() {
        let config = WebSocketConfig {
            origins: vec!["https://console.example".to_owned()],
            ..WebSocketConfig::default()
        };
        let of = |origin: &str| GOOD.replace("Host", &format!("Origin: {origin}\r\nHost"));
        assert!(status(&of("https://console.example"), &config).contains("101"));
        // Programs name no origin.
        assert!(status(GOOD, &config).contains("101"));
        for origin in ["https://evil.example", "http://console.example", "null", ""] {
            assert!(status(&of(origin), &config).starts_with("403"), "{origin}");
        }
    }

    #[tokio::test]
    async fn a_request_may_come_in_pieces_up_to_the_limit() {
        let config = WebSocketConfig::default();
        let (mut far, mut near) = tokio::io::duplex(64 * 1024);
        let fill = |count: usize| GOOD.replacen("Host: broker", &format!("Host: {}", "b".repeat(count)), 1);
        let own = fill(0).len();
        let send = async {
            for byte in fill(REQUEST_BYTES_MAX - own).as_bytes() {
                far.write_all(&[*byte]).await.unwrap();
            }
            far.write_all(b"rest").await.unwrap();
        };
        let (early, ()) = tokio::join!(answer_request(&mut near, &config), send);
        let mut early = early.unwrap();
        if early.is_empty() {
            near.read_buf(&mut early).await.unwrap();
        }
        assert!(b"rest".starts_with(&early));

        let (mut far, mut near) = tokio::io::duplex(64 * 1024);
        far.write_all(fill(REQUEST_BYTES_MAX - own + 1).as_bytes()).await.unwrap();
        let refused = answer_request(&mut near, &config).await.unwrap_err();
        assert!(refused.to_string().starts_with("431"), "{refused}");
        let mut answer = String::new();
        drop(near);
        far.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 431 ") && answer.contains("Connection: close\r\n"), "{answer}");
    }
}
