//! The far side of an HTTP action, which is rarely well: it stalls, refuses connections, resets them, has had enough, fails.
//!
//! A message counts as delivered once the answer that confirms it is on its way, whoever reads it. While the run drains the
//! far side is well.

use std::collections::BTreeMap;
use std::io::{self, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Mutex;
use std::thread::{self, Scope};
use std::time::Duration;

use super::history::{Event, Label, Lane, Wrong};
use super::message::label;
use super::stage::{Phase, Stage};
use crate::ReservedPort;
use crate::http::read_request;

/// The receiver's name.
pub(super) const SINK: &str = "sink";

/// How long an attempt may take.
const TIMEOUT: Duration = Duration::from_millis(300);

/// For this long it refuses connections, at most.
const AWAY_MAX: Duration = Duration::from_millis(150);

/// How often it looks whether somebody connects, or whether the run is over.
const LOOK: Duration = Duration::from_millis(2);

pub(super) struct Sink<'a> {
    stage: &'a Stage,
    /// Nobody else gets it while nobody listens.
    port: ReservedPort,
    random: Mutex<fastrand::Rng>,
    keys: Mutex<Keys>,
}

/// Idempotency keys that have come.
#[derive(Default)]
struct Keys {
    of_label: BTreeMap<Label, String>,
    of_key: BTreeMap<String, Label>,
}

/// What becomes of a request.
enum Fate {
    Answer(&'static str),
    Reject,
    Reset,
    Stall,
}

impl<'a> Sink<'a> {
    /// A far side on an address of its own, and the listener for it.
    pub(super) fn new(stage: &'a Stage, seed: u64) -> io::Result<(Self, TcpListener)> {
        let port = ReservedPort::new();
        let listener = TcpListener::bind(port.address())?;
        let sink =
            Self { stage, port, random: Mutex::new(fastrand::Rng::with_seed(seed)), keys: Mutex::default() };
        Ok((sink, listener))
    }

    /// The file of the rule that sends everything there.
    pub(super) fn rule(&self) -> String {
        format!(
            r#"
[rules.chaos]
sql = "SELECT * FROM 'chaos/#'"

[[rules.chaos.actions]]
name = "far"
type = "http"
url = "http://{}/chaos/${{topic(2)}}/${{topic(3)}}"
timeout = "{}ms"
retry = {{ max_attempts = 1000000, initial_backoff = "1ms", max_backoff = "20ms" }}
"#,
            self.port.address(),
            TIMEOUT.as_millis()
        )
    }

    /// Listens until the run is over, with pauses in which nobody does.
    pub(super) fn run<'scope>(&'scope self, listener: TcpListener, scope: &'scope Scope<'scope, '_>) {
        let mut listener = Some(listener);
        while self.stage.lock().phase < Phase::Over {
            let Some(open) = &listener else {
                listener = TcpListener::bind(self.port.address()).ok();
                self.stage.pause(LOOK, Phase::Over);
                continue;
            };
            match open.set_nonblocking(true).and_then(|()| open.accept()) {
                Ok((connection, _)) => {
                    scope.spawn(|| self.serve(connection));
                    if self.is_unwell() && self.random.lock().expect("nobody panics").u8(..12) == 0 {
                        listener = None;
                        let away = AWAY_MAX.mul_f64(self.random.lock().expect("nobody panics").f64());
                        self.stage.pause(away, Phase::Draining);
                    }
                }
                Err(_) => self.stage.pause(LOOK, Phase::Over),
            }
        }
    }

    fn is_unwell(&self) -> bool {
        self.stage.lock().phase == Phase::Running
    }

    /// Serves a connection until it ends, by either side.
    fn serve(&self, connection: TcpStream) {
        if connection.set_nonblocking(false).is_err() {
            return;
        }
        // Ended by the broker, or by the end of the run.
        drop(connection.set_read_timeout(Some(TIMEOUT)));
        let mut input = BufReader::new(&connection);
        let mut output = &connection;
        while let Some((_, target, headers, body)) = read_request(&mut input) {
            let Some(label) = label(target.trim_start_matches('/'), &body) else {
                return self.stage.note(Event::Wrong(SINK, Wrong::Garbled));
            };
            let key = headers.iter().find(|(name, _)| name == "idempotency-key");
            self.look_at_key(label, key.map_or("", |(_, key)| key));
            let answer = match self.fate() {
                Fate::Answer(answer) => answer,
                Fate::Reject => {
                    self.stage.note(Event::Rejected(SINK, label));
                    "400 Bad Request"
                }
                Fate::Reset => return,
                Fate::Stall => return self.stage.pause(TIMEOUT * 2, Phase::Draining),
            };
            if answer.starts_with('2') {
                self.stage.note(Event::Delivered(SINK, label, 1));
            }
            let answer = format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\nretry-after: 0\r\n\r\n");
            if output.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    }

    fn fate(&self) -> Fate {
        if !self.is_unwell() {
            return Fate::Answer("204 No Content");
        }
        match self.random.lock().expect("nobody panics").u8(..100) {
            0..4 => Fate::Answer("500 Internal Server Error"),
            4..8 => Fate::Answer("429 Too Many Requests"),
            8..11 => Fate::Reject,
            11..14 => Fate::Reset,
            14 => Fate::Stall,
            _ => Fate::Answer("204 No Content"),
        }
    }

    /// A key belongs to one message. One of QoS 2 has one key, however often it is tried and by which process; one of QoS 1
    /// may have been admitted twice.
    fn look_at_key(&self, label: Label, key: &str) {
        let mut keys = self.keys.lock().expect("nobody panics");
        let first = keys.of_key.entry(key.to_owned()).or_insert(label);
        let is_reused = *first != label;
        let known = keys.of_label.entry(label).or_insert_with(|| key.to_owned());
        let is_other = label.lane == Lane::ExactlyOnce && *known != key;
        drop(keys);
        if is_reused || is_other {
            self.stage.note(Event::Wrong(SINK, Wrong::Key(label)));
        }
    }
}

/// Runs a far side in a scope.
pub(super) fn spawn<'scope>(
    sink: &'scope Sink<'scope>,
    listener: TcpListener,
    scope: &'scope Scope<'scope, '_>,
) -> thread::ScopedJoinHandle<'scope, ()> {
    scope.spawn(move || sink.run(listener, scope))
}
