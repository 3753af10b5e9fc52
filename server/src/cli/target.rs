//! Where `pub` and `sub` connect: a host and a port, or a URL, with what TLS needs.
//!
//! A URL is read by hand, because of what stands behind the host: for `mqtt` and `mqtts` it is a topic as in mosquitto_sub,
//! `+`, `#` and all, and for `ws` and `wss` it is the path of a request.

use std::path::PathBuf;

use clap::Args;

use super::Failure;
use super::mqtt_flags::usage;
use crate::client::{Endpoint, TlsOptions, Transport};

/// Where to connect, and through what.
#[derive(Debug, Args)]
pub(super) struct TargetFlags {
    /// Where to connect, instead of -h and -p: mqtt, mqtts, ws, wss or unix, as in mqtts://name@host:port/topic,
    /// wss://host/path or unix:///path/to/socket.
    #[arg(short = 'L', long, value_name = "URL", conflicts_with_all = ["host", "port"])]
    pub(super) url: Option<String>,
    /// Host to connect to; default: localhost.
    #[arg(short = 'h', long, value_name = "HOST")]
    host: Option<String>,
    /// Port to connect to; default: 1883, with TLS 8883.
    #[arg(short = 'p', long, value_name = "PORT")]
    port: Option<u16>,
    /// TLS, trusting the authorities in this file (PEM) instead of the system's.
    #[arg(long, value_name = "FILE")]
    cafile: Option<PathBuf>,
    /// TLS, showing the certificate in this file (PEM).
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// Key of the certificate (PEM).
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// TLS with whoever answers: the server's certificate is not checked, and anybody in between can read and change
    /// everything. For experiments.
    #[arg(long, conflicts_with = "cafile")]
    pub(super) insecure: bool,
    /// TLS, offering this protocol by ALPN; may be repeated.
    #[arg(long, alias = "tls-alpn", value_name = "NAME")]
    alpn: Vec<String>,
    /// TLS, asking for this name instead of the host's; the server's certificate has to be for it.
    #[arg(long, value_name = "NAME")]
    sni: Option<String>,
}

/// What the flags say.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) endpoint: Endpoint,
    pub(super) transport: Transport,
    /// From the URL.
    pub(super) username: Option<String>,
    /// From the URL.
    pub(super) password: Option<String>,
    /// Topic or filter, from the URL.
    pub(super) topic: Option<String>,
}

impl TargetFlags {
    pub(super) fn target(&self) -> Result<Target, Failure> {
        let mut target = match &self.url {
            Some(url) => read_url(url).map_err(|why| usage(&format!("--url: {why}")))?,
            None => {
                let is_tls = self.wants_tls();
                let host = self.host.clone().unwrap_or_else(|| "localhost".to_owned());
                let port = self.port.unwrap_or(if is_tls { 8883 } else { 1883 });
                Target {
                    endpoint: Endpoint::Tcp { host, port },
                    transport: Transport { tls: is_tls.then(TlsOptions::default), websocket: None },
                    username: None,
                    password: None,
                    topic: None,
                }
            }
        };
        match &mut target.transport.tls {
            Some(tls) => {
                *tls = TlsOptions {
                    ca_file: self.cafile.clone(),
                    identity: self.cert.clone().zip(self.key.clone()),
                    trust_anybody: self.insecure,
                    alpn: self.alpn.clone(),
                    server_name: self.sni.clone(),
                };
            }
            None if self.wants_tls() => {
                return Err(usage("--cafile, --cert, --insecure, --alpn and --sni need mqtts:// or wss://"));
            }
            None => {}
        }
        Ok(target)
    }

    fn wants_tls(&self) -> bool {
        self.cafile.is_some()
            || self.cert.is_some()
            || self.insecure
            || !self.alpn.is_empty()
            || self.sni.is_some()
    }
}

/// Reads a URL. No message repeats it: it may hold a password.
fn read_url(url: &str) -> Result<Target, &'static str> {
    let (scheme, rest) = url.split_once("://").ok_or("a URL has a scheme, as in mqtts://host")?;
    let (is_tls, is_websocket, usual_port) = match scheme {
        "mqtt" => (false, false, 1883),
        "mqtts" => (true, false, 8883),
        "ws" => (false, true, 80),
        "wss" => (true, true, 443),
        "unix" if rest.starts_with('/') => {
            return Ok(Target {
                endpoint: Endpoint::Unix(PathBuf::from(rest)),
                transport: Transport::default(),
                username: None,
                password: None,
                topic: None,
            });
        }
        "unix" => return Err("a Unix socket is named by its whole path, as in unix:///run/mqtt.sock"),
        _ => return Err("the scheme is mqtt, mqtts, ws, wss or unix"),
    };
    let (authority, path) = match rest.find('/') {
        Some(at) => rest.split_at_checked(at).unwrap_or((rest, "")),
        None => (rest, ""),
    };
    let (user, place) = match authority.rsplit_once('@') {
        Some((user, place)) => (Some(user), place),
        None => (None, authority),
    };
    let (username, password) = match user.map(|user| user.split_once(':').unwrap_or((user, ""))) {
        None => (None, None),
        Some((name, "")) => (Some(decode(name)?), None),
        Some((name, password)) => (Some(decode(name)?), Some(decode(password)?)),
    };
    let (host, port) = match place.rsplit_once(':') {
        // The colons of an address of IPv6 stand in brackets.
        Some((host, port)) if !port.contains(']') => {
            (host, port.parse().map_err(|_| "a port is a number up to 65535")?)
        }
        _ => (place, usual_port),
    };
    let is_host = !host.is_empty()
        && host.starts_with('[') == host.ends_with(']')
        && (host.starts_with('[') || !host.contains(':'))
        && !host.contains(|c: char| c.is_whitespace() || c.is_control());
    if !is_host {
        return Err("the host is missing, or is none");
    }
    let topic = path.strip_prefix('/').filter(|topic| !is_websocket && !topic.is_empty());
    if is_websocket && !path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
        return Err("a path holds no blanks, no '#' and nothing but ASCII");
    }
    let path = if path.len() > 1 { path } else { "/mqtt" };
    Ok(Target {
        endpoint: Endpoint::Tcp { host: host.to_owned(), port },
        transport: Transport {
            tls: is_tls.then(TlsOptions::default),
            websocket: is_websocket.then(|| path.to_owned()),
        },
        username,
        password,
        topic: topic.map(str::to_owned),
    })
}

/// Resolves `%` and two hexadecimal digits.
fn decode(text: &str) -> Result<String, &'static str> {
    const WRONG: &str = "behind '%' two hexadecimal digits are expected, and UTF-8 as a whole";
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|byte| char::from(byte).to_digit(16));
        let (Some(high), Some(low)) = (digit(), digit()) else { return Err(WRONG) };
        bytes.push(u8::try_from(high * 16 + low).map_err(|_| WRONG)?);
    }
    String::from_utf8(bytes).map_err(|_| WRONG)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A target in short: scheme's parts, place, path, user, password, topic.
    fn short(url: &str) -> String {
        let target = read_url(url).unwrap();
        format!(
            "{}{} {} {}:{} {}",
            if target.transport.tls.is_some() { "tls " } else { "" },
            target.transport.websocket.as_deref().unwrap_or("-"),
            target.endpoint,
            target.username.as_deref().unwrap_or("-"),
            target.password.as_deref().unwrap_or("-"),
            target.topic.as_deref().unwrap_or("-")
        )
    }

    #[test]
    fn urls_are_read() {
        for (url, expected) in [
            ("mqtt://h", "- h:1883 -:- -"),
            ("mqtt://h/", "- h:1883 -:- -"),
            ("mqtts://h:1", "tls - h:1 -:- -"),
            ("mqtts://h", "tls - h:8883 -:- -"),
            ("ws://h", "/mqtt h:80 -:- -"),
            ("ws://h/", "/mqtt h:80 -:- -"),
            ("wss://h/a/b?c=d", "tls /a/b?c=d h:443 -:- -"),
            ("mqtt://[::1]:7/a/+/#", "- [::1]:7 -:- a/+/#"),
            ("mqtt://[::1]", "- [::1]:1883 -:- -"),
            ("mqtt://u@h/t", "- h:1883 u:- t"),
            ("mqtt://u:@h", "- h:1883 u:- -"),
            ("mqtt://u%40x:p%3a%25@h:9/t", "- h:9 u@x:p:% t"),
            ("mqtt://u:a@b@h//t", "- h:1883 u:a@b /t"),
            ("unix:///run/mqtt.sock", "- /run/mqtt.sock -:- -"),
        ] {
            assert_eq!(short(url), expected, "{url}");
        }
    }

    #[test]
    fn what_is_no_url_of_ours_is_refused_without_being_repeated() {
        for url in [
            "h:1883",
            "http://h",
            "MQTT://h",
            "mqtt://",
            "mqtt:///t",
            "mqtt://:1",
            "mqtt://h:",
            "mqtt://h:65536",
            "mqtt://h:x",
            "mqtt://::1",
            "mqtt://[::1",
            "mqtt://::1]",
            "mqtt://a b",
            "mqtt://u%4@h",
            "mqtt://u%ff@h",
            "mqtt://u%4g@h",
            "ws://h/a b",
            "ws://h/#",
            "ws://h/a\r\nX: y",
            "unix://run/x",
            "unix://",
            "mqtt://user:secret@",
        ] {
            let why = read_url(url).expect_err(url);
            assert!(!why.contains("secret"), "{why}");
        }
    }
}
