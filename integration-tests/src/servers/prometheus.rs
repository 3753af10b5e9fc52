//! Debian's Prometheus, which reads a gateway's numbers and answers queries about them.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Instant;

use serde_json::Value;

use super::{Process, is_open};
use crate::{PATIENCE, ReservedPort};

/// A Prometheus with a configuration of the test's.
#[derive(Debug)]
pub struct Prometheus {
    port: ReservedPort,
    // Ends with it.
    _process: Process,
}

impl Prometheus {
    /// Starts one that reads `target` under the job `tidegate` with the token of a file, and waits until it answers.
    #[track_caller]
    #[must_use]
    pub fn start(target: SocketAddr, token: &str) -> Self {
        let folder = Process::new_folder();
        let token_file = folder.join("token");
        fs::write(&token_file, token).unwrap();
        let config = folder.join("prometheus.yml");
        let text = format!(
            "scrape_configs:\n  - job_name: tidegate\n    scrape_interval: 1s\n    scrape_timeout: 1s\n    authorization:\n      credentials_file: {}\n    \
             static_configs:\n      - targets: [\"{target}\"]\n",
            token_file.display()
        );
        fs::write(&config, text).unwrap();
        let port = ReservedPort::new();
        let address = port.address();
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
            .arg(format!("--web.listen-address={address}"));
        let process = Process::start(&mut command, folder, || is_open(address));
        Self { port, _process: process }
    }

    /// Asks once; what an instant query gives.
    #[track_caller]
    #[must_use]
    pub fn ask(&self, query: &str) -> Vec<Value> {
        let mut command = Command::new("promtool");
        command
            .args(["query", "instant", "-o", "json"])
            .arg(format!("http://{}", self.port.address()))
            .arg(query);
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let faults = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() || faults.contains("server"), "{query}: {faults}");
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// Asks until the query gives something.
    #[track_caller]
    #[must_use]
    pub fn answer(&self, query: &str) -> Vec<Value> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let series = self.ask(query);
            if !series.is_empty() {
                return series;
            }
            assert!(Instant::now() < deadline, "{query} gives no series");
        }
    }
}
