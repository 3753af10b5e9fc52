//! Debian's Redis, and `redis-cli` to look at it from outside.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use super::{Certificates, Process, is_open, run};
use crate::ReservedPort;

/// A Redis server with a password, that keeps everything on disk at once. It asks for certificates, and wants none.
#[derive(Debug)]
pub struct Redis {
    port: ReservedPort,
    secure_port: ReservedPort,
    certificates: Certificates,
    process: Process,
}

impl Redis {
    /// The password that it wants.
    pub const PASSWORD: &str = "only for tests: redis";

    /// Starts one and waits until it answers.
    #[track_caller]
    #[must_use]
    pub fn start() -> Self {
        let [port, secure_port] = [(); 2].map(|()| ReservedPort::new());
        let (address, secure_address) = (port.address(), secure_port.address());
        let folder = Process::new_folder();
        let certificates = Certificates::new(&folder);
        let mut command = command(address, secure_address, &folder, &certificates);
        let process = Process::start(&mut command, folder, || is_ready(address));
        Self { port, secure_port, certificates, process }
    }

    /// Ends it as `kill -9` does.
    pub fn kill(&self) {
        self.process.kill();
    }

    /// Starts it again with what it has kept.
    #[track_caller]
    pub fn start_again(&self) {
        let mut command =
            command(self.address(), self.secure_address(), self.process.folder(), &self.certificates);
        self.process.start_again(&mut command, || is_ready(self.address()));
    }

    /// Where it speaks TLS.
    #[must_use]
    pub fn secure_address(&self) -> SocketAddr {
        self.secure_port.address()
    }

    /// What it shows and trusts there.
    #[must_use]
    pub fn certificates(&self) -> &Certificates {
        &self.certificates
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Runs one command by `redis-cli` and returns the lines of its answer.
    #[track_caller]
    #[must_use]
    pub fn ask(&self, words: &[&str]) -> Vec<String> {
        run(&mut question(self.address(), words)).unwrap().lines().map(str::to_owned).collect()
    }
}

fn command(
    address: SocketAddr,
    secure_address: SocketAddr,
    folder: &Path,
    certificates: &Certificates,
) -> Command {
    let mut command = Command::new("redis-server");
    command.args(["--bind", "127.0.0.1", "--port", &address.port().to_string()]);
    command.args(["--save", "", "--appendonly", "yes", "--appendfsync", "always"]);
    command.args(["--requirepass", Redis::PASSWORD]).arg("--dir").arg(folder);
    command.args(["--tls-port", &secure_address.port().to_string(), "--tls-auth-clients", "optional"]);
    command.arg("--tls-cert-file").arg(&certificates.server.certificate);
    command.arg("--tls-key-file").arg(&certificates.server.key);
    command.arg("--tls-ca-cert-file").arg(certificates.ca_file());
    command
}

fn question(address: SocketAddr, words: &[&str]) -> Command {
    let mut command = Command::new("redis-cli");
    command.args(["-p", &address.port().to_string(), "--raw"]).args(words);
    command.env("REDISCLI_AUTH", Redis::PASSWORD);
    command
}

/// Whether it answers, which it doesn't while it still reads what it has kept.
fn is_ready(address: SocketAddr) -> bool {
    is_open(address) && run(&mut question(address, &["PING"])).is_ok_and(|answer| answer.trim() == "PONG")
}
