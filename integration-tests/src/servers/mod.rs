//! Real servers as far sides of actions: each a process of its own with a folder and ports of its own, ended by its process id.
//! None of them tells which port it would choose, so each is given one that is kept for it ([`crate::ReservedPort`]).
//!
//! `cargo xtask test` installs them; where one is missing the test fails and says so.

mod kafka;
mod kafka_relay;
mod nats;
mod prometheus;
mod rabbitmq;
mod redis;
mod secure;

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

pub use self::kafka::Kafka;
pub use self::kafka_relay::KafkaRelay;
pub use self::nats::{Nats, Stored};
pub use self::prometheus::Prometheus;
pub use self::rabbitmq::RabbitMq;
pub use self::redis::Redis;
pub use self::secure::{CLIENT_NAME, Certificates};
use crate::broker::new_folder;

/// How long a server may take to start: RabbitMQ takes its time.
const START_PATIENCE: Duration = Duration::from_secs(90);
/// Between two looks at a server that starts.
const LOOK: Duration = Duration::from_millis(20);

/// A server's process, with its folder. Dropping it ends both.
#[derive(Debug)]
pub struct Process {
    child: Mutex<Child>,
    folder: PathBuf,
}

impl Process {
    /// Starts a program that keeps everything in `folder`, and waits until `is_ready`.
    #[track_caller]
    pub fn start(command: &mut Command, folder: PathBuf, is_ready: impl FnMut() -> bool) -> Self {
        let process = Self { child: Mutex::new(spawn(command, &folder)), folder };
        process.wait_until(command, is_ready);
        process
    }

    /// Ends it as `kill -9` does.
    pub fn kill(&self) {
        let mut child = self.child.lock().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Starts a program again in the same folder, after [`Process::kill`].
    #[track_caller]
    pub fn start_again(&self, command: &mut Command, is_ready: impl FnMut() -> bool) {
        *self.child.lock().unwrap() = spawn(command, &self.folder);
        self.wait_until(command, is_ready);
    }

    #[track_caller]
    fn wait_until(&self, command: &Command, mut is_ready: impl FnMut() -> bool) {
        let deadline = Instant::now() + START_PATIENCE;
        while !is_ready() {
            let ended = self.child.lock().unwrap().try_wait().unwrap();
            if ended.is_some() || Instant::now() > deadline {
                let output = std::fs::read_to_string(self.folder.join("output.log")).unwrap_or_default();
                panic!("{command:?} didn't start ({ended:?}):\n{output}");
            }
            #[expect(clippy::disallowed_methods, reason = "a foreign server tells nobody when it is ready")]
            thread::sleep(LOOK);
        }
    }

    /// A folder for a server that is to be started.
    #[must_use]
    pub fn new_folder() -> PathBuf {
        new_folder()
    }

    /// Its folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

#[track_caller]
fn spawn(command: &mut Command, folder: &Path) -> Child {
    let log = std::fs::File::create(folder.join("output.log")).unwrap();
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?} can't be started ({error}): run `cargo xtask test`"))
}

impl Drop for Process {
    fn drop(&mut self) {
        let child = self.child.get_mut().unwrap();
        drop(child.kill());
        drop(child.wait());
        drop(std::fs::remove_dir_all(&self.folder));
    }
}

/// Whether somebody listens there.
#[must_use]
pub fn is_open(address: SocketAddr) -> bool {
    TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok()
}

/// Runs a program to its end and returns what it printed.
///
/// # Errors
/// What it printed, when it fails.
pub fn run(command: &mut Command) -> io::Result<String> {
    let output = command.stdin(Stdio::null()).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(text);
    }
    Err(io::Error::other(format!("{command:?}: {text}{}", String::from_utf8_lossy(&output.stderr))))
}
