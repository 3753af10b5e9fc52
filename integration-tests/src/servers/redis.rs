//! Debian's Redis, and `redis-cli` to look at it from outside.

use std::net::SocketAddr;
use std::process::Command;

use super::{Process, free_port, is_open, run};

/// A Redis server with a password.
#[derive(Debug)]
pub struct Redis {
    address: SocketAddr,
    // Ends with it.
    _process: Process,
}

impl Redis {
    /// The password that it wants.
    pub const PASSWORD: &str = "only for tests: redis";

    /// Starts one and waits until it answers.
    #[track_caller]
    #[must_use]
    pub fn start() -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let folder = Process::new_folder();
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--port", &address.port().to_string()]);
        command
            .args(["--save", "", "--appendonly", "no", "--requirepass", Self::PASSWORD])
            .arg("--dir")
            .arg(&folder);
        let process = Process::start(&mut command, folder, || is_open(address));
        Self { address, _process: process }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Runs one command by `redis-cli` and returns the lines of its answer.
    #[track_caller]
    #[must_use]
    pub fn ask(&self, words: &[&str]) -> Vec<String> {
        let mut command = Command::new("redis-cli");
        command.args(["-p", &self.address.port().to_string(), "--raw"]).args(words);
        command.env("REDISCLI_AUTH", Self::PASSWORD);
        run(&mut command).unwrap().lines().map(str::to_owned).collect()
    }
}
