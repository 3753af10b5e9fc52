//! Debian's RabbitMQ, and its management interface to look at it from outside.
//!
//! A node finds its own port through epmd, of which each has one for itself, so that nothing is shared with a node of the machine.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;

use serde_json::{Value, json};

use super::{Process, free_port, is_open};
use crate::PATIENCE;

/// What a node needs beside what is written here.
const CONFIG: &str = "default_user = tidegate\ndefault_pass = only for tests\n";
/// The user and the password in base64, as the management interface wants them.
const BASIC: &str = "dGlkZWdhdGU6b25seSBmb3IgdGVzdHM=";

/// A RabbitMQ node of its own.
#[derive(Debug)]
pub struct RabbitMq {
    address: SocketAddr,
    management: SocketAddr,
    // Ends with it.
    _node: Process,
    _epmd: Process,
}

impl RabbitMq {
    /// The user that it knows.
    pub const USERNAME: &str = "tidegate";
    /// The user's password.
    pub const PASSWORD: &str = "only for tests";

    /// Starts one and waits until it answers.
    #[track_caller]
    #[must_use]
    pub fn start() -> Self {
        let [address, management, epmd_address, distribution] =
            [(); 4].map(|()| SocketAddr::from(([127, 0, 0, 1], free_port())));
        let mut epmd = Command::new("epmd");
        epmd.args(["-address", "127.0.0.1", "-port", &epmd_address.port().to_string()]);
        let epmd = Process::start(&mut epmd, Process::new_folder(), || is_open(epmd_address));
        let folder = Process::new_folder();
        let file = |name: &str, text: &str| {
            let path = folder.join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let config = format!(
            "{CONFIG}listeners.tcp.1 = {address}\nmanagement.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {}\n\
             distribution.listener.interface = 127.0.0.1\ndistribution.listener.port_range.min = {distribution}\n\
             distribution.listener.port_range.max = {distribution}\n",
            management.port(),
            distribution = distribution.port()
        );
        let config = file("rabbitmq.conf", &config);
        let plugins = file("enabled_plugins", "[rabbitmq_management].\n");
        let mut command = Command::new("/usr/lib/rabbitmq/bin/rabbitmq-server");
        command
            .env("HOME", &folder)
            .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
            .env("RABBITMQ_NODENAME", format!("tidegate-{}@localhost", address.port()))
            .env("RABBITMQ_CONFIG_FILE", config)
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", plugins)
            .env("RABBITMQ_MNESIA_BASE", folder.join("mnesia"))
            .env("RABBITMQ_LOG_BASE", folder.join("log"))
            .env("RABBITMQ_PID_FILE", folder.join("pid"))
            .env("ERL_EPMD_PORT", epmd_address.port().to_string())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            // The script becomes the node then, instead of staying its parent.
            .env("RUNNING_UNDER_SYSTEMD", "true");
        let node = Process::start(&mut command, folder, || is_open(address) && is_open(management));
        let server = Self { address, management, _node: node, _epmd: epmd };
        server.ask("GET", "/api/overview", &Value::Null);
        server
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Makes a durable queue, empty, that the exchange `amq.direct` sends messages with these routing keys to.
    #[track_caller]
    pub fn make_queue(&self, name: &str, keys: &[String]) {
        self.ask("PUT", &format!("/api/queues/%2F/{name}"), &json!({ "durable": true }));
        self.ask("DELETE", &format!("/api/queues/%2F/{name}/contents"), &Value::Null);
        for key in keys {
            let binding = format!("/api/bindings/%2F/e/amq.direct/q/{name}");
            self.ask("POST", &binding, &json!({ "routing_key": key }));
        }
    }

    /// Takes what is in a queue out of it: bodies with their properties, as the management interface tells them.
    #[track_caller]
    #[must_use]
    pub fn take(&self, queue: &str) -> Vec<Value> {
        let get = json!({ "count": 10_000, "ackmode": "ack_requeue_false", "encoding": "auto" });
        let mut taken = Vec::new();
        loop {
            let page = self.ask("POST", &format!("/api/queues/%2F/{queue}/get"), &get);
            match page {
                Value::Array(page) if !page.is_empty() => taken.extend(page),
                _ => return taken,
            }
        }
    }

    /// Asks the management interface.
    #[track_caller]
    fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let mut connection = TcpStream::connect(self.management).unwrap();
        connection.set_read_timeout(Some(PATIENCE)).unwrap();
        let head = format!(
            "{method} {path} HTTP/1.0\r\nAuthorization: Basic {BASIC}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        connection.write_all([head, body].concat().as_bytes()).unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let status = head.split(' ').nth(1).unwrap_or_default();
        assert!(status.starts_with('2'), "{method} {path}: {answer}");
        serde_json::from_str(body).unwrap_or(Value::Null)
    }
}
