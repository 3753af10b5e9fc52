//! The broker under test: a process of its own, started on a free port and stopped by its process id.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use crate::PATIENCE;

/// Set to `mosquitto` to run a raw test against Mosquitto: shows whether a surprise is the broker's or the test's.
/// Configuration and rules of the test are left out then.
const OTHER_BROKER: &str = "TIDEGATE_TEST_BROKER";

/// Set to the path of another binary of ours, for instance a release build.
const BINARY: &str = "TIDEGATE_BIN";

/// A running broker. Dropping it stops it, and fails the test when its log holds a panic or an unexpected error.
#[derive(Debug)]
pub struct Broker {
    process: Child,
    address: SocketAddr,
    folder: PathBuf,
    log: Arc<Log>,
    readers: Vec<JoinHandle<()>>,
    expected_errors: Vec<String>,
    environment: Vec<(String, String)>,
    stopped: bool,
    /// The folder is somebody else's and stays.
    folder_stays: bool,
}

/// What a test changes about the broker before it starts.
#[derive(Clone, Debug, Default)]
pub struct BrokerBuilder {
    folder: Option<PathBuf>,
    limits: Vec<String>,
    sections: Vec<String>,
    rules: Vec<(String, String)>,
    expected_errors: Vec<String>,
    environment: Vec<(String, String)>,
    umask: Option<&'static str>,
}

#[derive(Debug, Default)]
struct Log {
    lines: Mutex<Vec<String>>,
    grown: Condvar,
}

impl Log {
    fn push(&self, line: String) {
        self.lines.lock().unwrap().push(line);
        self.grown.notify_all();
    }

    /// Waits for a line for which `wanted` gives an answer. Err: all that was logged until the deadline.
    fn wait_for<T>(&self, mut wanted: impl FnMut(&str) -> Option<T>) -> Result<T, String> {
        let deadline = Instant::now() + PATIENCE;
        let mut lines = self.lines.lock().unwrap();
        let mut seen = 0;
        loop {
            if let Some(found) = lines[seen..].iter().find_map(|line| wanted(line)) {
                return Ok(found);
            }
            seen = lines.len();
            let left = deadline.saturating_duration_since(Instant::now());
            let ended = lines.last().is_some_and(|line| line == END_OF_OUTPUT);
            if left.is_zero() || ended {
                return Err(lines.join("\n"));
            }
            lines = self.grown.wait_timeout(lines, left).unwrap().0;
        }
    }
}

/// Stands in the log where the process closed its stderr.
const END_OF_OUTPUT: &str = "(end of output)";

impl BrokerBuilder {
    /// Sets a key of `[limits]`; `value` as it stands in TOML.
    #[must_use]
    pub fn limit(mut self, key: &str, value: &str) -> Self {
        self.limits.push(format!("{key} = {value}\n"));
        self
    }

    /// Adds a section of the configuration as text.
    #[must_use]
    pub fn section(mut self, toml: &str) -> Self {
        self.sections.push(toml.to_owned());
        self
    }

    /// Adds a rule file `rules.d/<name>.toml`.
    #[must_use]
    pub fn rule_file(mut self, name: &str, toml: &str) -> Self {
        self.rules.push((name.to_owned(), toml.to_owned()));
        self
    }

    /// Sets a variable of the broker's environment.
    #[must_use]
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts the broker as a shell with this umask would.
    #[must_use]
    pub fn umask(mut self, umask: &'static str) -> Self {
        self.umask = Some(umask);
        self
    }

    /// Keeps configuration and data in a folder that is there and stays: a broker that is started there again finds what
    /// the one before left.
    #[must_use]
    pub fn in_folder(mut self, folder: &Path) -> Self {
        self.folder = Some(folder.to_owned());
        self
    }

    /// Says that the log may hold errors and warnings with this text.
    #[must_use]
    pub fn expect_error(mut self, text: &str) -> Self {
        self.expected_errors.push(text.to_owned());
        self
    }

    /// Starts the broker and waits until it listens.
    #[track_caller]
    #[must_use]
    pub fn start(self) -> Broker {
        let mut broker = self.spawn();
        if let Err(log) = broker.wait_until_it_listens().and_then(|()| broker.wait_until_it_is_ready()) {
            broker.kill();
            panic!("the broker did not start to listen. Its log:\n{log}");
        }
        broker
    }

    /// Starts the broker and doesn't wait for anything: it has no address before [`Broker::wait_until_it_listens`].
    #[track_caller]
    #[must_use]
    pub fn spawn(self) -> Broker {
        let folder = self.folder.clone().unwrap_or_else(new_folder);
        let (mut command, address) = match std::env::var(OTHER_BROKER) {
            Ok(name) if name == "mosquitto" => mosquitto(&folder),
            Ok(other) => panic!("{OTHER_BROKER} is \"{other}\"; known: mosquitto"),
            Err(_) => (self.tidegate(&folder), None),
        };
        let mut process = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let log = Arc::new(Log::default());
        let readers = vec![
            collect(process.stdout.take().unwrap(), Arc::clone(&log), None),
            collect(process.stderr.take().unwrap(), Arc::clone(&log), Some(END_OF_OUTPUT)),
        ];
        Broker {
            process,
            address: address.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0))),
            folder,
            log,
            readers,
            expected_errors: self.expected_errors,
            environment: self.environment,
            stopped: false,
            folder_stays: self.folder.is_some(),
        }
    }

    /// Starts the broker where it must refuse to: asserts that it ends with an error, and returns what it printed.
    #[track_caller]
    #[must_use]
    pub fn fails_to_start(self) -> String {
        let folder = new_folder();
        let variables = self.environment.iter().map(|(name, value)| (name, value));
        let output = self.tidegate(&folder).envs(variables).stdin(Stdio::null()).output().unwrap();
        drop(fs::remove_dir_all(&folder));
        let text =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "the broker started and ended well:\n{text}");
        assert!(!text.contains("panicked at"), "{text}");
        text
    }

    fn tidegate(&self, folder: &Path) -> Command {
        let rules = folder.join("rules.d");
        fs::create_dir_all(&rules).unwrap();
        for (name, toml) in &self.rules {
            fs::write(rules.join(format!("{name}.toml")), toml).unwrap();
        }
        let config = format!(
            r#"data_dir = "data"
rules_dir = "rules.d"

[[listeners]]
name = "tcp"
kind = "tcp"
address = "127.0.0.1:0"
allow_anonymous = true

[admin]
address = "127.0.0.1:0"

[actions]
allow_private = ["127.0.0.1"]

[log]
format = "json"

[limits]
{}
{}
"#,
            self.limits.concat(),
            self.sections.join("\n")
        );
        let path = folder.join("tidegate.toml");
        fs::write(&path, config).unwrap();
        let mut command = match self.umask {
            None => Command::new(binary()),
            Some(umask) => {
                let mut shell = Command::new("sh");
                shell.args(["-c", &format!("umask {umask}; exec \"$0\" \"$@\"")]).arg(binary());
                shell
            }
        };
        command.arg("serve").arg("--config").arg(path);
        command
    }
}

/// The binary under test: built by `cargo xtask test`, beside the folder that the tests run from.
#[track_caller]
pub(crate) fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os(BINARY) {
        return path.into();
    }
    let tests = std::env::current_exe().unwrap();
    let path = tests.ancestors().nth(2).unwrap().join("tidegate");
    assert!(
        path.exists(),
        "{} is missing: run `cargo xtask test`, or `cargo build --package tidegate` first",
        path.display()
    );
    path
}

fn mosquitto(folder: &Path) -> (Command, Option<SocketAddr>) {
    // Mosquitto cannot be told to choose a port, so one is chosen that was free a moment ago.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config = folder.join("mosquitto.conf");
    fs::write(
        &config,
        format!(
            "listener {} 127.0.0.1\nallow_anonymous true\npersistence false\nlog_dest stderr\nsys_interval 0\n",
            address.port()
        ),
    )
    .unwrap();
    let mut command = Command::new("/usr/sbin/mosquitto");
    command.arg("-c").arg(config);
    (command, Some(address))
}

/// Reads the address out of the line that says that the listener is open.
fn listening_address(line: &str) -> Option<SocketAddr> {
    if !line.contains("listening") || line.contains("\"admin\"") {
        return None;
    }
    let start = line.find("127.0.0.1:")?;
    let rest = &line[start..];
    let end = rest.find(|character: char| !(character.is_ascii_digit() || ".:".contains(character)));
    rest[..end.unwrap_or(rest.len())].parse().ok()
}

fn collect(pipe: impl Read + Send + 'static, log: Arc<Log>, closing: Option<&'static str>) -> JoinHandle<()> {
    thread::spawn(move || {
        for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
            log.push(String::from_utf8_lossy(&line).into_owned());
        }
        if let Some(closing) = closing {
            log.push(closing.to_owned());
        }
    })
}

/// A new folder of this test alone.
#[must_use]
pub fn new_folder() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("tidegate-test-{}-{number}", std::process::id()));
    if folder.exists() {
        fs::remove_dir_all(&folder).unwrap();
    }
    fs::create_dir(&folder).unwrap();
    folder
}

impl Broker {
    /// Starts the broker as it is configured by default.
    #[track_caller]
    #[must_use]
    pub fn start() -> Self {
        BrokerBuilder::default().start()
    }

    /// Changes something before the broker starts.
    #[must_use]
    pub fn builder() -> BrokerBuilder {
        BrokerBuilder::default()
    }

    /// True when the variable `TIDEGATE_TEST_BROKER` chose another broker than ours.
    #[must_use]
    pub fn is_foreign() -> bool {
        std::env::var_os(OTHER_BROKER).is_some()
    }

    /// Waits until all listeners are open: the one that a test asks for first may be open before others are.
    fn wait_until_it_is_ready(&self) -> Result<(), String> {
        if Self::is_foreign() {
            return Ok(());
        }
        self.log.wait_for(|line| (line.contains("\"ready\"") || line.contains(" ready")).then_some(()))
    }

    /// Waits until it listens.
    ///
    /// # Errors
    /// Its log, when it ends instead or takes too long.
    pub fn wait_until_it_listens(&mut self) -> Result<(), String> {
        self.address = if Self::is_foreign() {
            let address = self.address;
            self.log.wait_for(|line| line.contains(" running").then_some(address))?
        } else {
            self.log.wait_for(listening_address)?
        };
        Ok(())
    }

    /// Ends the process as `kill -9` does.
    ///
    /// # Errors
    /// A line of its log that no test expected, and the whole log.
    pub fn kill_9(mut self) -> Result<(), String> {
        self.kill();
        for reader in self.readers.drain(..) {
            reader.join().unwrap();
        }
        let text = self.text();
        match text.lines().find(|line| self.is_unexpected(line)) {
            Some(line) => Err(format!("the broker logged {line}\nThe whole log:\n{text}")),
            None => Ok(()),
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where a listener of the test's own configuration listens.
    #[track_caller]
    #[must_use]
    pub fn listener(&self, name: &str) -> SocketAddr {
        let line = self.logged(&format!("\"listener\":\"{name}\""));
        listening_address(&line).unwrap_or_else(|| panic!("{line} is not about a listener that is open"))
    }

    /// Asks the broker to read its files again (SIGHUP).
    #[track_caller]
    pub fn reload(&self) {
        let id = self.process.id().to_string();
        let signalled = Command::new("sh").args(["-c", "kill -HUP \"$0\"", &id]).status().unwrap();
        assert!(signalled.success(), "the broker (process {id}) is gone");
    }

    /// Waits for a line of the log that contains `text` and returns it.
    #[track_caller]
    pub fn logged(&self, text: &str) -> String {
        match self.log.wait_for(|line| line.contains(text).then(|| line.to_owned())) {
            Ok(line) => line,
            Err(log) => panic!("\"{text}\" was not logged. The log:\n{log}"),
        }
    }

    /// Waits until so many lines of the log contain `text`; asserts that no more of them do.
    #[track_caller]
    pub fn logged_times(&self, text: &str, count: usize) {
        let mut seen = 0;
        let waited = self.log.wait_for(|line| {
            seen += usize::from(line.contains(text));
            (seen >= count).then_some(())
        });
        let log = self.text();
        let found = log.lines().filter(|line| line.contains(text)).count();
        assert!(
            waited.is_ok() && found == count,
            "\"{text}\" was logged {found} times, not {count}. The log:\n{log}"
        );
    }

    /// Its folder: the configuration, the rules, and the data directory `data`.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where the administration interface listens.
    #[track_caller]
    #[must_use]
    pub fn admin_address(&self) -> SocketAddr {
        let line = self.logged("administration interface open");
        let (_, rest) = line.split_once("\"admin\":\"").expect("the line names the address");
        rest.split('"').next().and_then(|address| address.parse().ok()).expect("an address")
    }

    /// All that was logged until now.
    #[must_use]
    pub fn log(&self) -> String {
        self.text()
    }

    /// Runs another command of the program with this broker's configuration and environment; returns its exit code and what it printed.
    #[track_caller]
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let mut command = Command::new(binary());
        command.args(arguments).arg("--config").arg(self.folder.join("tidegate.toml")).stdin(Stdio::null());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        let output = command.output().unwrap();
        let text =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.code(), text)
    }

    /// Its process.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Resident memory of the process in bytes.
    #[must_use]
    pub fn resident_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
        let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kib * 1024
    }

    /// Number of open file descriptors of the process.
    #[must_use]
    pub fn open_files(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.process.id())).unwrap().count()
    }

    /// Asks the broker to stop (SIGTERM), waits until it has, and checks its exit status and log.
    #[track_caller]
    pub fn stop(mut self) {
        self.stop_and_check();
    }

    /// The same; returns all that it has logged.
    #[track_caller]
    #[must_use]
    pub fn stop_and_read(mut self) -> String {
        self.stop_and_check();
        self.text()
    }

    #[track_caller]
    fn stop_and_check(&mut self) {
        self.stopped = true;
        let id = self.process.id().to_string();
        let signalled = Command::new("sh").args(["-c", "kill -TERM \"$0\"", &id]).status().unwrap();
        assert!(signalled.success(), "the broker (process {id}) was gone before it was stopped");
        if self.log.wait_for(|line| (line == END_OF_OUTPUT).then_some(())).is_err() {
            self.kill();
            panic!("the broker did not stop within {PATIENCE:?} of SIGTERM. Its log:\n{}", self.text());
        }
        let status = self.process.wait().unwrap();
        for reader in self.readers.drain(..) {
            reader.join().unwrap();
        }
        assert!(status.success(), "the broker ended with {status}. Its log:\n{}", self.text());
        let text = self.text();
        if let Some(line) = text.lines().find(|line| self.is_unexpected(line)) {
            panic!("the broker logged what no test expected: {line}\nThe whole log:\n{text}");
        }
    }

    fn is_unexpected(&self, line: &str) -> bool {
        let is_error = line.contains("panicked at") || line.contains("\"level\":\"ERROR\"");
        is_error && !self.expected_errors.iter().any(|expected| line.contains(expected))
    }

    fn text(&self) -> String {
        self.log.lines.lock().unwrap().join("\n")
    }

    fn kill(&mut self) {
        self.stopped = true;
        drop(self.process.kill());
        drop(self.process.wait());
    }

    /// True while a TCP connection is accepted.
    #[must_use]
    pub fn accepts_connections(&self) -> bool {
        TcpStream::connect(self.address).is_ok()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if thread::panicking() {
            self.kill();
            eprintln!("log of the broker:\n{}", self.text());
        } else if !self.stopped {
            self.stop_and_check();
        }
        if !self.folder_stays {
            drop(fs::remove_dir_all(&self.folder));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_read_from_the_log() {
        let line = r#"{"level":"INFO","message":"listening","listener":"tcp","address":"127.0.0.1:40123"}"#;
        assert_eq!(listening_address(line), Some(SocketAddr::from(([127, 0, 0, 1], 40_123))));
        assert_eq!(listening_address(r#"{"message":"started","address":"127.0.0.1:40123"}"#), None);
    }
}
