//! Foreign MQTT clients. `cargo xtask test` installs them; where one is missing the test fails and says so.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Instant;

use serde_json::Value;

use crate::broker::new_folder;
use crate::{Broker, PATIENCE, ReservedPort};

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
    mosquitto_pub_at(broker.address().port(), arguments);
}

/// Runs `mosquitto_pub` against the broker on this port of loopback and asserts that it succeeds.
#[track_caller]
pub fn mosquitto_pub_at(port: u16, arguments: &[&str]) {
    Program::start(mosquitto("mosquitto_pub", port, arguments)).succeed();
}

/// Runs `mosquitto_pub -l`: every line is a message, over one connection.
#[track_caller]
pub fn mosquitto_pub_lines(broker: &Broker, arguments: &[&str], lines: &[String]) {
    let mut command = mosquitto("mosquitto_pub", broker.address().port(), arguments);
    command.arg("-l");
    Program::start_with_input(command, Some(lines.join("\n") + "\n")).succeed();
}

/// Starts `mosquitto_sub` and waits until the broker has granted its subscriptions.
///
/// A message that it receives is the line `MSG topic qos retain payload`.
#[track_caller]
#[must_use]
pub fn mosquitto_sub(broker: &Broker, arguments: &[&str]) -> Program {
    mosquitto_sub_at(broker.address().port(), arguments)
}

/// Starts `mosquitto_sub` against the broker on this port of loopback, as [`mosquitto_sub`] does.
#[track_caller]
#[must_use]
pub fn mosquitto_sub_at(port: u16, arguments: &[&str]) -> Program {
    let mut program = Program::start(subscriber(port, arguments));
    program.wait_for("Subscribed (mid");
    program
}

/// Starts `mosquitto_sub` and waits for nothing: the messages of a session that it resumes may come before SUBACK.
#[track_caller]
#[must_use]
pub fn mosquitto_sub_running(broker: &Broker, arguments: &[&str]) -> Program {
    Program::start(subscriber(broker.address().port(), arguments))
}

fn subscriber(port: u16, arguments: &[&str]) -> Command {
    let mut command = mosquitto("mosquitto_sub", port, arguments);
    command.args(["-d", "-F", "MSG %t %q %r %p"]);
    command
}

fn mosquitto(program: &str, port: u16, arguments: &[&str]) -> Command {
    // Debian's build fills its output buffer before it writes to a pipe.
    let mut command = Command::new("stdbuf");
    command.args(["-oL", program, "-h", "127.0.0.1", "-p", &port.to_string()]).args(arguments);
    command
}

/// Starts a Mosquitto broker that bridges `up/#` to the broker under test and `down/#` from it. Also returns its port,
/// which is its own as long as that is kept.
///
/// `version` as its configuration names it: `mqttv311`, `mqttv50`. It tells its state to its own clients only: with its
/// default it asks for a will below `$SYS` of the far side, and nobody but our broker writes there.
#[track_caller]
#[must_use]
pub fn mosquitto_bridge(broker: &Broker, version: &str) -> (Program, ReservedPort) {
    // Mosquitto cannot be told to choose a port.
    let port = ReservedPort::new();
    let config = new_folder().join("bridge.conf");
    fs::write(
        &config,
        format!(
            "listener {} 127.0.0.1\nallow_anonymous true\npersistence false\nlog_dest stderr\nlog_type all\n\
             connection ours\naddress {}\nbridge_protocol_version {version}\ntopic up/# out 1\ntopic down/# in 1\n\
             notifications_local_only true\n",
            port.address().port(),
            broker.address()
        ),
    )
    .unwrap();
    let mut command = Command::new("/usr/sbin/mosquitto");
    command.arg("-c").arg(config);
    let mut program = Program::start(command);
    // The bridge's subscription to down/# has been granted.
    program.wait_for("Received SUBACK");
    (program, port)
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

/// Our own program, for another command than `serve`; nothing of the machine that runs the tests is in its environment.
#[must_use]
pub fn tidegate() -> Command {
    let mut command = Command::new(crate::broker::binary());
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TIDEGATE_")) {
        command.env_remove(name);
    }
    command.stdin(Stdio::null());
    command
}

/// Runs `clients/<script>` with Node and MQTT.js.
#[must_use]
pub fn node(script: &str) -> Command {
    let mut command = Command::new("node");
    command.arg(scripts().join(script)).arg(installed("mqttjs").join("node_modules/mqtt/build/index.js"));
    command
}

/// What came of a run of Schemathesis. An operation is method and path, as in `GET /healthz`.
#[derive(Debug)]
pub struct Schemathesis {
    /// What it says.
    pub report: String,
    /// Operations that it asked for.
    pub tested: BTreeSet<String>,
    /// Those of them that were carried out at least once.
    pub carried_out: BTreeSet<String>,
}

/// Lets Schemathesis ask an HTTP interface what its OpenAPI document promises, and other things, `examples` requests for each operation.
#[track_caller]
#[must_use]
pub fn schemathesis(url: &str, token: &str, examples: &str) -> Schemathesis {
    let mut command = Command::new("python3");
    command.env("PYTHONPATH", installed("schemathesis")).env("PYTHONDONTWRITEBYTECODE", "1");
    // What it makes from sets is the same in every run then, as its seed promises.
    command.env("PYTHONHASHSEED", "0");
    command.args(["-c", "from schemathesis.cli import schemathesis; schemathesis()", "run"]);
    command
        .arg(format!("{url}/api/v1/openapi.json"))
        .args(["--header", &format!("Authorization: Bearer {token}")]);
    command.args([
        "--phases",
        "examples,coverage,fuzzing",
        "--max-examples",
        examples,
        "--seed",
        "7",
        "--no-color",
    ]);
    // The interface itself may try a far side for longer than Schemathesis would wait.
    command.args(["--request-timeout", "60"]);
    // A schema can't say what a Topic Name or a statement is, so what fits it may be refused.
    command.args(["--exclude-checks", "positive_data_acceptance"]);
    // Streams of what goes on have no end to wait for.
    command.args(["--exclude-path-regex", "/live/"]);
    command.args(["--report", "ndjson", "--report-ndjson-path", "events.ndjson"]);
    // It keeps its examples in the folder that it runs in.
    let folder = new_folder();
    let output = command.current_dir(&folder).output().unwrap();
    let report =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{report}");
    let events = fs::read_to_string(folder.join("events.ndjson")).unwrap();
    let (mut tested, mut carried_out) = (BTreeSet::new(), BTreeSet::new());
    for event in events.lines() {
        let event: Value = serde_json::from_str(event).unwrap();
        let recorder = &event["ScenarioFinished"]["recorder"];
        let Some(operation) = recorder["label"].as_str() else { continue };
        for exchange in recorder["interactions"].as_object().into_iter().flat_map(|all| all.values()) {
            // It also tries methods that there are not.
            let method = exchange["request"]["method"].as_str().unwrap_or_default();
            if operation.split(' ').next() != Some(method) {
                continue;
            }
            tested.insert(operation.to_owned());
            if matches!(exchange["response"]["status_code"].as_u64(), Some(200..=299)) {
                carried_out.insert(operation.to_owned());
            }
        }
    }
    Schemathesis { report, tested, carried_out }
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
    pub fn start(command: Command) -> Self {
        Self::start_with_input(command, None)
    }

    #[track_caller]
    fn start_with_input(mut command: Command, input: Option<String>) -> Self {
        let name = command.get_program().to_string_lossy().into_owned();
        let mut process = command
            .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("cannot start {name} ({error}): `cargo xtask test` installs what the tests run")
            });
        if let (Some(input), Some(mut stdin)) = (input, process.stdin.take()) {
            // A program that stops reading fails by itself.
            thread::spawn(move || stdin.write_all(input.as_bytes()));
        }
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
