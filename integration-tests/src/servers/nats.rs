//! Debian's nats-server with JetStream, and a client of a few lines to look at it from outside.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use serde_json::{Value, json};

use super::{Certificates, Process, is_open};
use crate::{PATIENCE, ReservedPort};

/// A NATS server with a password. Whoever speaks TLS with it must show a certificate; nobody has to.
#[derive(Debug)]
pub struct Nats {
    port: ReservedPort,
    certificates: Certificates,
    process: Process,
}

/// A message of a stream.
#[derive(Debug)]
pub struct Stored {
    /// What it was published to.
    pub subject: String,
    /// Its headers, a line each.
    pub headers: String,
    /// What was sent.
    pub payload: Vec<u8>,
}

impl Stored {
    /// The value of a header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

impl Nats {
    /// The user that it knows.
    pub const USER: &str = "gateway";
    /// The password that it wants.
    pub const PASSWORD: &str = "only for tests: nats";

    /// Starts one and waits until it answers.
    #[track_caller]
    #[must_use]
    pub fn start() -> Self {
        Self::with("")
    }

    /// The same, with lines of its configuration.
    #[track_caller]
    #[must_use]
    pub fn with(lines: &str) -> Self {
        let port = ReservedPort::new();
        let address = port.address();
        let folder = Process::new_folder();
        let certificates = Certificates::new(&folder);
        let config = format!(
            "tls {{\n  cert_file: \"{}\"\n  key_file: \"{}\"\n  ca_file: \"{}\"\n  verify: true\n}}\n\
             allow_non_tls: true\n{lines}\n",
            certificates.server.certificate.display(),
            certificates.server.key.display(),
            certificates.ca_file().display()
        );
        std::fs::write(folder.join("nats.conf"), config).unwrap();
        let mut command = command(address, &folder);
        let process = Process::start(&mut command, folder, || is_open(address));
        Self { port, certificates, process }
    }

    /// Ends it as `kill -9` does.
    pub fn kill(&self) {
        self.process.kill();
    }

    /// Starts it again with what it has kept.
    #[track_caller]
    pub fn start_again(&self) {
        let mut command = command(self.address(), self.process.folder());
        self.process.start_again(&mut command, || is_open(self.address()));
    }

    /// What it shows and trusts in TLS.
    #[must_use]
    pub fn certificates(&self) -> &Certificates {
        &self.certificates
    }

    /// Hands on everything that is published to a subject from here on, as long as the server lives.
    #[track_caller]
    pub fn listen(&self, subject: &str, mut heard: impl FnMut(Stored) + Send + 'static) {
        let mut wire = Wire::connect(self.address());
        wire.say(&format!("SUB {subject} 1"));
        // Answered once the subscription is there.
        wire.say("PING");
        while wire.line() != "PONG\r\n" {}
        wire.input.get_ref().set_read_timeout(None).unwrap();
        thread::spawn(move || {
            while let Some(message) = wire.try_next() {
                heard(message);
            }
        });
    }

    /// Publishes something, and waits until the server has handed it on to whoever listens.
    #[track_caller]
    pub fn publish(&self, subject: &str, body: &Value) {
        let mut wire = Wire::connect(self.address());
        wire.publish(subject, body);
        wire.say("PING");
        while wire.line() != "PONG\r\n" {}
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Asks JetStream for something.
    ///
    /// # Panics
    /// When it refuses.
    #[track_caller]
    pub fn ask(&self, what: &str, body: &Value) -> Value {
        let answer = self.try_ask(what, body);
        assert!(answer["error"].is_null(), "{what}: {answer}");
        answer
    }

    /// The same, whatever it answers.
    #[track_caller]
    #[must_use]
    pub fn try_ask(&self, what: &str, body: &Value) -> Value {
        let mut wire = Wire::connect(self.address());
        wire.say("SUB answer 1");
        wire.publish(&format!("$JS.API.{what} answer"), body);
        serde_json::from_slice(&wire.next().payload).unwrap()
    }

    /// Everything that a stream has, in its order.
    #[track_caller]
    #[must_use]
    pub fn stored(&self, stream: &str) -> Vec<Stored> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let count =
            self.ask(&format!("STREAM.INFO.{stream}"), &json!({}))["state"]["messages"].as_u64().unwrap();
        let mut wire = Wire::connect(self.address());
        // Whoever asked before is still delivered to for a while, on a subject of its own.
        let subject = format!("delivery.{}", NEXT.fetch_add(1, Ordering::Relaxed));
        wire.say(&format!("SUB {subject} 1"));
        let config = json!({ "deliver_subject": subject, "deliver_policy": "all", "ack_policy": "none" });
        wire.publish(
            &format!("$JS.API.CONSUMER.CREATE.{stream} answer"),
            &json!({ "stream_name": stream, "config": config }),
        );
        (0..count).map(|_| wire.next()).collect()
    }
}

/// A connection that is signed in.
struct Wire {
    input: BufReader<TcpStream>,
}

impl Wire {
    #[track_caller]
    fn connect(address: SocketAddr) -> Self {
        let tcp = TcpStream::connect(address).unwrap();
        tcp.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut wire = Self { input: BufReader::new(tcp) };
        assert!(wire.line().starts_with("INFO "));
        let connect =
            json!({ "verbose": false, "headers": true, "user": Nats::USER, "pass": Nats::PASSWORD });
        wire.say(&format!("CONNECT {connect}"));
        wire
    }

    #[track_caller]
    fn say(&mut self, line: &str) {
        self.input.get_mut().write_all(format!("{line}\r\n").as_bytes()).unwrap();
    }

    #[track_caller]
    fn publish(&mut self, to: &str, body: &Value) {
        let body = body.to_string();
        self.say(&format!("PUB {to} {}\r\n{body}", body.len()));
    }

    #[track_caller]
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.input.read_line(&mut line).unwrap();
        line
    }

    /// The next message.
    #[track_caller]
    fn next(&mut self) -> Stored {
        self.try_next().expect("the server ended it")
    }

    /// The same; `None` when the server has ended it.
    #[track_caller]
    fn try_next(&mut self) -> Option<Stored> {
        loop {
            let mut line = String::new();
            self.input.read_line(&mut line).ok()?;
            let words: Vec<&str> = line.split_whitespace().collect();
            let size = |word: &str| word.parse::<usize>().unwrap();
            let (headers, all) = match words.first().copied() {
                Some("MSG") => (0, size(words[words.len() - 1])),
                Some("HMSG") => (size(words[words.len() - 2]), size(words[words.len() - 1])),
                Some("PING") => {
                    self.say("PONG");
                    continue;
                }
                Some("INFO") => continue,
                None => return None,
                _ => panic!("the server said {line:?}"),
            };
            let mut bytes = vec![0; all + 2];
            self.input.read_exact(&mut bytes).unwrap();
            return Some(Stored {
                subject: words[1].to_owned(),
                headers: String::from_utf8(bytes[..headers].to_vec()).unwrap(),
                payload: bytes[headers..all].to_vec(),
            });
        }
    }
}

fn command(address: SocketAddr, folder: &Path) -> Command {
    let mut command = Command::new("/usr/sbin/nats-server");
    command.args(["--addr", "127.0.0.1", "--port", &address.port().to_string()]);
    command.args(["--user", Nats::USER, "--pass", Nats::PASSWORD]);
    command.arg("--config").arg(folder.join("nats.conf"));
    command.arg("--jetstream").arg("--store_dir").arg(folder);
    command
}
