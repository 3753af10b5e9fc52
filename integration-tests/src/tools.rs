//! Foreign MQTT clients. `cargo xtask test` installs them; where one is missing the test fails and says so.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Instant;

use crate::{Broker, PATIENCE};

/// A running program whose lines of output are awaited one by one.
#[derive(Debug)]
pub struct Program {
    name: String,
    process: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
}

/// Runs `mosquitto_pub` against the broker and asserts that it succeeds.
#[track_caller]
pub fn mosquitto_pub(broker: &Broker, arguments: &[&str]) {
    Program::start(mosquitto("mosquitto_pub", broker, arguments)).succeed();
}

/// Starts `mosquitto_sub` and waits until the broker has granted its subscriptions.
///
/// A message that it receives is the line `MSG topic qos retain payload`.
#[track_caller]
#[must_use]
pub fn mosquitto_sub(broker: &Broker, arguments: &[&str]) -> Program {
    let mut command = mosquitto("mosquitto_sub", broker, arguments);
    command.args(["-d", "-F", "MSG %t %q %r %p"]);
    let mut program = Program::start(command);
    program.wait_for("Subscribed (mid");
    program
}

fn mosquitto(program: &str, broker: &Broker, arguments: &[&str]) -> Command {
    // Debian's build fills its output buffer before it writes to a pipe.
    let mut command = Command::new("stdbuf");
    command.args(["-oL", program, "-h", "127.0.0.1", "-p", &broker.address().port().to_string()]);
    command.args(arguments);
    command
}

/// Runs `clients/<script>` with Python and the Paho client installed in `target/clients/<library>`.
#[must_use]
pub fn python(script: &str, library: &str) -> Command {
    let mut command = Command::new("python3");
    command.env("PYTHONPATH", installed(library)).env("PYTHONDONTWRITEBYTECODE", "1");
    command.env("PYTHONUNBUFFERED", "1");
    command.arg(scripts().join(script));
    command
}

/// Runs `clients/<script>` with Node and MQTT.js.
#[must_use]
pub fn node(script: &str) -> Command {
    let mut command = Command::new("node");
    command.arg(scripts().join(script)).arg(installed("mqttjs").join("node_modules/mqtt/build/index.js"));
    command
}

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients")
}

#[track_caller]
fn installed(library: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/clients").join(library);
    assert!(
        path.join("installed.txt").exists(),
        "{} is missing: `cargo xtask test` installs the clients that the tests run",
        path.display()
    );
    path
}

impl Program {
    /// Starts a program; its stdout and stderr are read as one.
    #[track_caller]
    #[must_use]
    pub fn start(mut command: Command) -> Self {
        let name = command.get_program().to_string_lossy().into_owned();
        let mut process = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("cannot start {name} ({error}): `cargo xtask test` installs what the tests run")
            });
        let (sender, lines) = mpsc::channel();
        let stdout = process.stdout.take().unwrap();
        let stderr = process.stderr.take().unwrap();
        let second = sender.clone();
        thread::spawn(move || {
            BufReader::new(stdout).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        thread::spawn(move || {
            BufReader::new(stderr).lines().map_while(Result::ok).try_for_each(|line| second.send(line))
        });
        Self { name, process, lines, seen: Vec::new() }
    }

    /// Waits for a line that contains `text` and returns it; lines before it are passed over.
    #[track_caller]
    pub fn wait_for(&mut self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if line.contains(text) {
                        return line;
                    }
                }
                Err(_) => panic!("{} did not print \"{text}\", only:\n{}", self.name, self.seen.join("\n")),
            }
        }
    }

    /// Waits for the next message of `mosquitto_sub`: `topic qos retain payload`.
    #[track_caller]
    pub fn message(&mut self) -> String {
        let line = self.wait_for("MSG ");
        line.split_once("MSG ").unwrap().1.to_owned()
    }

    /// Waits until the program ends, asserts that it succeeded, and returns its output.
    #[track_caller]
    pub fn succeed(mut self) -> String {
        let deadline = Instant::now() + 3 * PATIENCE;
        // The channel closes when the program has closed its output.
        while let Ok(line) = self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            self.seen.push(line);
        }
        assert!(
            Instant::now() < deadline,
            "{} did not end. It printed:\n{}",
            self.name,
            self.seen.join("\n")
        );
        let status = self.process.wait().unwrap();
        let output = self.seen.join("\n");
        assert!(status.success(), "{} ended with {status}. It printed:\n{output}", self.name);
        output
    }

    /// Ends the program at once (SIGKILL), so that it sends no DISCONNECT.
    pub fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
