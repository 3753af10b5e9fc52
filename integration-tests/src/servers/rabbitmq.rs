//! Debian's RabbitMQ, and its management interface to look at it from outside.
//!
//! A node finds its own port through epmd, of which each has one for itself, so that nothing is shared with a node of the machine.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::{CLIENT_NAME, Certificates, Process, is_open};
use crate::{PATIENCE, ReservedPort};

/// What a node needs beside what is written here. It asks for certificates, and wants none.
const CONFIG: &str = "default_user = tidegate
default_pass = only for tests
auth_mechanisms.1 = PLAIN
auth_mechanisms.2 = EXTERNAL
ssl_cert_login_from = common_name
ssl_options.verify = verify_peer
ssl_options.fail_if_no_peer_cert = false
";
const PLUGINS: &str = "[rabbitmq_management, rabbitmq_auth_mechanism_ssl].\n";
/// The user and the password in base64, as the management interface wants them.
const BASIC: &str = "dGlkZWdhdGU6b25seSBmb3IgdGVzdHM=";

/// A RabbitMQ node of its own.
#[derive(Debug)]
pub struct RabbitMq {
    ports: Ports,
    certificates: Certificates,
    node: Process,
    // End with it.
    _epmd: Process,
    _reserved: [ReservedPort; 5],
}

/// Where everything of a node listens.
#[derive(Debug, Clone, Copy)]
struct Ports {
    amqp: SocketAddr,
    secure: SocketAddr,
    management: SocketAddr,
    epmd: SocketAddr,
    distribution: SocketAddr,
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
        let reserved = [(); 5].map(|()| ReservedPort::new());
        let [amqp, secure, management, epmd, distribution] = reserved.each_ref().map(ReservedPort::address);
        let ports = Ports { amqp, secure, management, epmd, distribution };
        let mut command = Command::new("epmd");
        command.args(["-address", "127.0.0.1", "-port", &epmd.port().to_string()]);
        let epmd = Process::start(&mut command, Process::new_folder(), || is_open(epmd));
        let folder = Process::new_folder();
        let certificates = Certificates::new(&folder);
        std::fs::write(folder.join("rabbitmq.conf"), ports.config(&certificates)).unwrap();
        std::fs::write(folder.join("enabled_plugins"), PLUGINS).unwrap();
        let mut command = ports.command(&folder);
        let node = Process::start(&mut command, folder, || ports.are_open());
        let server = Self { ports, certificates, node, _epmd: epmd, _reserved: reserved };
        server.ask("GET", "/api/overview", &Value::Null);
        // Known by its certificate alone.
        server.ask("PUT", &format!("/api/users/{CLIENT_NAME}"), &json!({ "password_hash": "", "tags": "" }));
        let permissions = json!({ "configure": "", "write": ".*", "read": "" });
        server.ask("PUT", &format!("/api/permissions/%2F/{CLIENT_NAME}"), &permissions);
        server
    }

    /// Ends the node as `kill -9` does.
    pub fn kill(&self) {
        self.node.kill();
    }

    /// Starts it again with what it has kept.
    #[track_caller]
    pub fn start_again(&self) {
        let mut command = self.ports.command(self.node.folder());
        self.node.start_again(&mut command, || self.ports.are_open());
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.ports.amqp
    }

    /// Where it speaks TLS.
    #[must_use]
    pub fn secure_address(&self) -> SocketAddr {
        self.ports.secure
    }

    /// What it shows and trusts there.
    #[must_use]
    pub fn certificates(&self) -> &Certificates {
        &self.certificates
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
        let mut connection = TcpStream::connect(self.ports.management).unwrap();
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

impl Ports {
    fn config(&self, certificates: &Certificates) -> String {
        format!(
            "{CONFIG}listeners.tcp.1 = {}\nlisteners.ssl.1 = {}\n\
             ssl_options.cacertfile = {}\nssl_options.certfile = {}\nssl_options.keyfile = {}\n\
             management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {}\n\
             distribution.listener.interface = 127.0.0.1\ndistribution.listener.port_range.min = {distribution}\n\
             distribution.listener.port_range.max = {distribution}\n",
            self.amqp,
            self.secure,
            certificates.ca_file().display(),
            certificates.server.certificate.display(),
            certificates.server.key.display(),
            self.management.port(),
            distribution = self.distribution.port()
        )
    }

    fn command(&self, folder: &Path) -> Command {
        let mut command = Command::new("/usr/lib/rabbitmq/bin/rabbitmq-server");
        command
            .env("HOME", folder)
            .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
            .env("RABBITMQ_NODENAME", format!("tidegate-{}@localhost", self.amqp.port()))
            .env("RABBITMQ_CONFIG_FILE", folder.join("rabbitmq.conf"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", folder.join("enabled_plugins"))
            .env("RABBITMQ_MNESIA_BASE", folder.join("mnesia"))
            .env("RABBITMQ_LOG_BASE", folder.join("log"))
            .env("RABBITMQ_PID_FILE", folder.join("pid"))
            .env("ERL_EPMD_PORT", self.epmd.port().to_string())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            // The script becomes the node then, instead of staying its parent.
            .env("RUNNING_UNDER_SYSTEMD", "true");
        command
    }

    fn are_open(&self) -> bool {
        [self.amqp, self.secure, self.management].into_iter().all(is_open)
    }
}
