//! A far side that stays away for long: millions of requests queued for it, a restart, and the way back.
//!
//! As the run for a session that stays away, but through a rule and an HTTP action that sends batches. What is looked at is that
//! nothing is lost, nothing comes twice, the order is kept, the broker's account adds up, and that memory stays within
//! [`RESIDENT_BYTES_MAX`] however long the queue is.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex};
use std::thread::{self, Scope};
use std::time::{Duration, Instant};

use super::accounts::Account;
use super::queue::{PUBLISHERS, QueueSummary, fill, in_words, live, per_second, size_of, watched};
use crate::broker::new_folder;
use crate::http::read_request;
use crate::{Broker, PATIENCE, ReservedPort};

/// Resident memory that the broker may have at any time.
const RESIDENT_BYTES_MAX: u64 = 256 << 20;

/// Messages in one request.
const BATCH: u64 = 1000;

/// How often it is looked whether the drain is over.
const LOOK: Duration = Duration::from_millis(20);

/// Queues `messages` of about `payload` bytes for a far side that is away, kills the broker, and lets the far side come back.
///
/// # Errors
/// What went wrong, in words.
pub fn run_sink_queue(messages: u64, payload: usize) -> Result<QueueSummary, String> {
    let folder = new_folder();
    let done = run(&folder, messages / PUBLISHERS * PUBLISHERS, payload);
    drop(fs::remove_dir_all(&folder));
    done
}

fn run(folder: &Path, messages: u64, payload: usize) -> Result<QueueSummary, String> {
    let mut summary = QueueSummary { messages, ..QueueSummary::default() };
    let port = ReservedPort::new();
    let address = port.address();
    let (broker, _) = start(folder, address)?;
    summary.resident_bytes[0] = broker.resident_bytes();
    let began = Instant::now();
    summary.resident_bytes[1] = watched(&broker, || {
        thread::scope(|scope| {
            let (to, part) = (broker.address(), messages / PUBLISHERS);
            let threads: Vec<_> = (0..PUBLISHERS)
                .map(|publisher| {
                    scope.spawn(move || fill(to, publisher, part, |number| body(publisher, number, payload)))
                })
                .collect();
            threads.into_iter().try_for_each(|thread| thread.join().expect("a publisher doesn't panic"))
        })
    })?;
    summary.filled_per_s = per_second(messages, began.elapsed());
    summary.disk_bytes = size_of(&folder.join("data/store"));
    broker.kill_9()?;
    let (broker, took) = start(folder, address)?;
    summary.restart = took;
    let far = Far::default();
    let began = Instant::now();
    summary.resident_bytes[2] = watched(&broker, || {
        let is_drained = AtomicBool::new(false);
        thread::scope(|scope| {
            let listener = TcpListener::bind(address).map_err(in_words)?;
            let far = &far;
            scope.spawn(move || far.listen(&listener, scope));
            let live = scope.spawn(|| live(&broker, &is_drained));
            let arrived = far.wait_for(messages);
            summary.drained_per_s = per_second(messages, began.elapsed());
            let settled = arrived.and_then(|()| settled(&broker, messages));
            is_drained.store(true, Ordering::Release);
            far.is_over.store(true, Ordering::Release);
            summary.live = live.join().expect("it doesn't panic")?;
            settled
        })
    })?;
    broker.stop();
    match summary.resident_bytes.into_iter().max() {
        Some(most) if most > RESIDENT_BYTES_MAX => {
            Err(format!("{most} resident bytes, more than {RESIDENT_BYTES_MAX}: {summary}"))
        }
        _ => Ok(summary),
    }
}

fn start(folder: &Path, far: SocketAddr) -> Result<(Broker, Duration), String> {
    let rule = format!(
        r#"
[rules.queue]
sql = "SELECT * FROM 'queue/#'"

[[rules.queue.actions]]
name = "far"
type = "http"
url = "http://{far}/queue"
queue = {{ max_items = 10000000, max_bytes = "1000GiB" }}
retry = {{ max_attempts = 1000000, initial_backoff = "100ms", max_backoff = "1s" }}
batch = {{ max_items = {BATCH}, linger = "0s", format = "json_lines" }}
"#
    );
    let start = Instant::now();
    let mut broker = Broker::builder()
        .in_folder(folder)
        .section("[store]\ndurability = \"commit\"\nreserve = 0\n")
        .rule_file("queue", &rule)
        .spawn();
    broker.wait_until_it_listens()?;
    Ok((broker, start.elapsed()))
}

fn body(publisher: u64, number: u64, bytes: usize) -> Vec<u8> {
    let mut body = format!(r#"{{"publisher":{publisher},"number":{number},"padding":""#).into_bytes();
    body.resize(bytes.saturating_sub(2).max(body.len()), b'.');
    body.extend_from_slice(b"\"}");
    body
}

/// Waits until the broker has heard every answer, and looks whether its account adds up.
fn settled(broker: &Broker, messages: u64) -> Result<(), String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (_, text) = broker.command(&["rules", "counters", "queue", "--json"]);
        let account = Account::read(&text).ok_or_else(|| format!("no account: {text}"))?;
        account.check()?;
        if account.has_delivered(messages) {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(format!("everything has arrived, and the broker says {account:?}"));
        }
        thread::park_timeout(LOOK);
    }
}

/// The far side, once it is back.
#[derive(Debug, Default)]
struct Far {
    state: Mutex<Arrived>,
    changed: Condvar,
    is_over: AtomicBool,
}

#[derive(Debug, Default)]
struct Arrived {
    /// The number that is next, of each publisher.
    next: BTreeMap<u64, u64>,
    wrong: Option<String>,
}

impl Far {
    fn listen<'scope>(&'scope self, listener: &TcpListener, scope: &'scope Scope<'scope, '_>) {
        drop(listener.set_nonblocking(true));
        while !self.is_over.load(Ordering::Acquire) {
            match listener.accept() {
                Ok((connection, _)) => drop(scope.spawn(move || self.serve(&connection))),
                Err(_) => thread::park_timeout(LOOK),
            }
        }
    }

    fn serve(&self, connection: &TcpStream) {
        drop(connection.set_nonblocking(false));
        // A connection that is kept open without a use ends with the run.
        drop(connection.set_read_timeout(Some(LOOK * 50)));
        let mut input = BufReader::with_capacity(1 << 16, connection);
        let mut output = connection;
        while let Some((.., body)) = read_request(&mut input) {
            self.take(&body);
            if output.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").is_err() {
                return;
            }
        }
    }

    fn take(&self, body: &[u8]) {
        let mut state = self.state.lock().expect("nobody panics");
        for line in body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let read = read(line);
            let known = read.filter(|(publisher, _)| *publisher < PUBLISHERS);
            let expected = known.map(|(publisher, _)| state.next.entry(publisher).or_insert(0));
            match (expected, read) {
                (Some(expected), Some((_, number))) if *expected == number => *expected += 1,
                (expected, _) => {
                    let expected = expected.copied();
                    let line = String::from_utf8_lossy(line).into_owned();
                    state.wrong.get_or_insert(format!("{line} came, and {expected:?} was next"));
                }
            }
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Waits until so many have come, in order and once each.
    fn wait_for(&self, messages: u64) -> Result<(), String> {
        let mut state = self.state.lock().expect("nobody panics");
        loop {
            let before: u64 = state.next.values().sum();
            if let Some(wrong) = state.wrong.take() {
                return Err(wrong);
            }
            if before == messages {
                return Ok(());
            }
            let (next, timeout) = self.changed.wait_timeout(state, PATIENCE).expect("nobody panics");
            state = next;
            if timeout.timed_out() {
                return Err(format!("nothing more came after {before} of {messages}"));
            }
        }
    }
}

fn read(line: &[u8]) -> Option<(u64, u64)> {
    let text = std::str::from_utf8(line).ok()?;
    let (publisher, rest) = text.strip_prefix("{\"publisher\":")?.split_once(",\"number\":")?;
    let (number, _) = rest.split_once(',')?;
    Some((publisher.parse().ok()?, number.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_far_side_notices_what_is_lost_doubled_or_out_of_order() {
        let lines = |numbers: &[(u64, u64)]| -> Vec<u8> {
            numbers
                .iter()
                .flat_map(|(publisher, number)| [body(*publisher, *number, 60), b"\n".to_vec()].concat())
                .collect()
        };
        let far = Far::default();
        far.take(&lines(&[(0, 0), (1, 0), (0, 1)]));
        assert_eq!(far.wait_for(3), Ok(()));
        for wrong in [(0, 1), (0, 3), (9, 0)] {
            far.take(&lines(&[wrong]));
            assert!(far.wait_for(3).is_err(), "{wrong:?}");
        }
        far.take(b"no line of ours\n");
        assert!(far.wait_for(3).is_err());
    }
}
