//! What stands before a Kafka broker that somebody else wrote, so that tests can do with it what they do with others.
//!
//! It understands as much of what passes as it needs to:
//! - The broker says where it is, and a client connects to that, past every fault on the way. Here it says the port that the
//!   client's name ends with (`at-4711`), as the broker of our own does.
//! - librdkafka's mock cluster checks the sequences of transactions only. Requests of a producer without one can be given a
//!   name of a transaction on the way, and are checked.
//! - The answer to a request that was carried out can be lost.

use std::collections::HashMap;
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

const PRODUCE: i16 = 0;
const METADATA: i16 = 3;
const INIT_PRODUCER_ID: i16 = 22;

/// The version of the answer with the brokers that is understood.
const METADATA_VERSION: i16 = 4;
/// Longest request or answer in bytes.
const FRAME_BYTES_MAX: usize = 64 << 20;

/// The relay. It ends with the process.
#[derive(Debug)]
pub struct KafkaRelay {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    to_lose: AtomicU32,
    is_transactional: AtomicBool,
}

impl KafkaRelay {
    /// The name of the transaction that requests are given.
    pub const TRANSACTION: &str = "relayed";

    /// Listens on a free port of loopback and forwards to a broker.
    #[must_use]
    pub fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::<Shared>::default();
        let serving = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let shared = Arc::clone(&serving);
                // Who goes away, or says what is no Kafka, is nothing to tell of.
                thread::spawn(move || serve(&client, target, &shared));
            }
        });
        Self { address, shared }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From here on requests of producers get the name of a transaction.
    pub fn as_transaction(&self) {
        self.shared.is_transactional.store(true, Ordering::SeqCst);
    }

    /// The next answers to what was written are lost, with their connections.
    pub fn lose_answers(&self, count: u32) {
        self.shared.to_lose.store(count, Ordering::SeqCst);
    }

    /// How many answers are still to be lost.
    #[must_use]
    pub fn to_lose(&self) -> u32 {
        self.shared.to_lose.load(Ordering::SeqCst)
    }
}

/// What was asked, by correlation id.
type Asked = Mutex<HashMap<i32, Question>>;

enum Question {
    Produce,
    Metadata { port: i32 },
}

fn serve(client: &TcpStream, target: SocketAddr, shared: &Shared) -> io::Result<()> {
    let server = TcpStream::connect(target)?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let asked = Asked::default();
    thread::scope(|scope| {
        scope.spawn(|| {
            drop(forward(client, &server, |request| up(request, &asked, shared)));
            drop(server.shutdown(Shutdown::Both));
        });
        drop(forward(&server, client, |answer| down(answer, &asked, shared)));
        client.shutdown(Shutdown::Both)
    })
}

/// Forwards message by message what `change` makes of them, until it makes nothing of one.
fn forward(
    mut from: &TcpStream,
    mut to: &TcpStream,
    change: impl Fn(Vec<u8>) -> Option<Vec<u8>>,
) -> io::Result<()> {
    loop {
        let mut bytes = [0; 4];
        from.read_exact(&mut bytes)?;
        let bytes = usize::try_from(i32::from_be_bytes(bytes)).map_err(io::Error::other)?;
        if bytes > FRAME_BYTES_MAX {
            return Err(io::Error::other("no message of Kafka's"));
        }
        let mut frame = vec![0; bytes];
        from.read_exact(&mut frame)?;
        let frame = change(frame).ok_or_else(|| io::Error::other("lost, or not understood"))?;
        let mut out = i32::try_from(frame.len()).map_err(io::Error::other)?.to_be_bytes().to_vec();
        out.extend(frame);
        to.write_all(&out)?;
    }
}

fn up(mut request: Vec<u8>, asked: &Asked, shared: &Shared) -> Option<Vec<u8>> {
    let (api, version) = (i16_at(&request, 0)?, i16_at(&request, 2)?);
    let correlation = i32_at(&request, 4)?;
    let name_bytes = usize::try_from(i16_at(&request, 8)?).ok()?;
    let body = 10 + name_bytes;
    let question = match api {
        METADATA => {
            assert_eq!(version, METADATA_VERSION);
            let name = std::str::from_utf8(request.get(10..body)?).ok()?;
            Some(Question::Metadata { port: name.rsplit_once("at-")?.1.parse().ok()? })
        }
        PRODUCE => Some(Question::Produce),
        _ => None,
    };
    if matches!(api, PRODUCE | INIT_PRODUCER_ID) && shared.is_transactional.load(Ordering::SeqCst) {
        // Both begin with the transaction's name, which is none so far.
        assert_eq!(i16_at(&request, body)?, -1, "a transaction of its own");
        let name = KafkaRelay::TRANSACTION;
        let mut text = i16::try_from(name.len()).ok()?.to_be_bytes().to_vec();
        text.extend(name.as_bytes());
        request.splice(body..body + 2, text);
    }
    if let Some(question) = question {
        asked.lock().unwrap().insert(correlation, question);
    }
    Some(request)
}

fn down(mut answer: Vec<u8>, asked: &Asked, shared: &Shared) -> Option<Vec<u8>> {
    let question = asked.lock().unwrap().remove(&i32_at(&answer, 0)?);
    match question {
        Some(Question::Produce) => {
            let fewer = |left: u32| left.checked_sub(1);
            let is_lost = shared.to_lose.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fewer).is_ok();
            (!is_lost).then_some(answer)
        }
        Some(Question::Metadata { port }) => {
            // Correlation, throttle time, and the number of brokers, then each: number, host, port, rack.
            assert_eq!(i32_at(&answer, 8)?, 1, "a cluster of one broker");
            let host_bytes = usize::try_from(i16_at(&answer, 16)?).ok()?;
            let at = 18 + host_bytes;
            answer.get_mut(at..at + 4)?.copy_from_slice(&port.to_be_bytes());
            Some(answer)
        }
        None => Some(answer),
    }
}

fn i16_at(bytes: &[u8], at: usize) -> Option<i16> {
    Some(i16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn i32_at(bytes: &[u8], at: usize) -> Option<i32> {
    Some(i32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}
