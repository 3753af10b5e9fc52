//! A TCP proxy that misbehaves when told to: what stands between a broker and the far side of its actions.
//!
//! It forwards bytes both ways. A [`Fault`] applies to the connections that are open and to those that come, at once. Nothing
//! here knows a protocol.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

/// How long a read waits before the fault of the moment is looked at again.
const LOOK: Duration = Duration::from_millis(10);
/// Most bytes of a made-up answer, should nobody hang up.
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// What is wrong with the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// Connections are reset, those that are open and those that come.
    Down,
    /// Connections are made, nothing passes, nothing ends.
    Stall,
    /// What the client sends arrives, and no answer comes back.
    HalfOpen,
    /// Every piece waits so long before it passes.
    Slow(Duration),
    /// So many bytes pass in a second, either way.
    Bandwidth(u32),
    /// A connection is reset once the client has sent so many bytes.
    ResetAfter(u64),
    /// The far side isn't asked: this is sent as soon as the client has said something, or after a moment if it waits, and then
    /// `x` without end.
    Answer(Vec<u8>),
}

/// The proxy. It ends with the process.
#[derive(Debug)]
pub struct FaultProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    target: Mutex<SocketAddr>,
    fault: Mutex<Fault>,
    changed: Condvar,
    resets: AtomicU64,
    connections: AtomicU64,
    held_up: AtomicU64,
}

impl FaultProxy {
    /// Listens on a free port of loopback and forwards to `target`, which needn't be there yet.
    #[must_use]
    pub fn start(target: SocketAddr, fault: Fault) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            target: Mutex::new(target),
            fault: Mutex::new(fault),
            changed: Condvar::new(),
            resets: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            held_up: AtomicU64::new(0),
        });
        let serving = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let shared = Arc::clone(&serving);
                thread::spawn(move || shared.serve(client));
            }
        });
        Self { address, shared }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From here on this is wrong.
    pub fn set(&self, fault: Fault) {
        *self.shared.fault.lock().unwrap() = fault;
        self.shared.changed.notify_all();
    }

    /// Connections that come from here on are forwarded to this address.
    pub fn lead_to(&self, target: SocketAddr) {
        *self.shared.target.lock().unwrap() = target;
    }

    /// How many pieces were held up by a slow or narrow way.
    #[must_use]
    pub fn held_up(&self) -> u64 {
        self.shared.held_up.load(Ordering::Relaxed)
    }

    /// How many connections were reset.
    #[must_use]
    pub fn resets(&self) -> u64 {
        self.shared.resets.load(Ordering::Relaxed)
    }

    /// How many connections came.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Relaxed)
    }
}

impl Shared {
    fn fault(&self) -> Fault {
        self.fault.lock().unwrap().clone()
    }

    fn serve(&self, client: TcpStream) {
        self.connections.fetch_add(1, Ordering::Relaxed);
        match self.fault() {
            Fault::Down => return self.reset(&[&client]),
            Fault::Answer(answer) => return drop(self.make_up(client, &answer)),
            _ => {}
        }
        let target = *self.target.lock().unwrap();
        let Ok(server) = TcpStream::connect(target) else { return self.reset(&[&client]) };
        drop(client.set_nodelay(true));
        drop(server.set_nodelay(true));
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| self.forward(&client, &server, true, &is_over));
            self.forward(&server, &client, false, &is_over);
        });
        if self.must_reset(0) || is_over.load(Ordering::Relaxed) {
            self.reset(&[&client, &server]);
        }
    }

    /// Forwards one way until either side ends, or the fault ends both.
    fn forward(&self, from: &TcpStream, to: &TcpStream, is_upward: bool, is_over: &AtomicBool) {
        drop(from.set_read_timeout(Some(LOOK)));
        let mut buffer = vec![0; 16 << 10];
        let mut sent: u64 = 0;
        let mut input = from;
        let mut output = to;
        loop {
            let fault = self.fault();
            if is_over.load(Ordering::Relaxed) {
                return;
            }
            if self.must_reset(if is_upward { sent } else { 0 }) || matches!(fault, Fault::Answer(_)) {
                is_over.store(true, Ordering::Relaxed);
                return;
            }
            if fault == Fault::Stall {
                self.wait_for_change(&fault, LOOK);
                continue;
            }
            let size = match input.read(&mut buffer) {
                Ok(0) => {
                    drop(to.shutdown(Shutdown::Write));
                    return;
                }
                Ok(size) => size,
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    continue;
                }
                Err(_) => {
                    is_over.store(true, Ordering::Relaxed);
                    return;
                }
            };
            let mut piece = &buffer[..size];
            // The fault may be another one than before the read.
            match self.fault() {
                Fault::HalfOpen if !is_upward => continue,
                Fault::Slow(pause) => self.hold_up(&Fault::Slow(pause), pause),
                Fault::Bandwidth(per_second) => {
                    let seconds = size as f64 / f64::from(per_second.max(1));
                    self.hold_up(&Fault::Bandwidth(per_second), Duration::from_secs_f64(seconds));
                }
                Fault::ResetAfter(bytes) if is_upward => {
                    let left = usize::try_from(bytes.saturating_sub(sent)).unwrap_or(usize::MAX);
                    piece = &piece[..left.min(size)];
                }
                _ => {}
            }
            sent += size as u64;
            if output.write_all(piece).is_err() {
                is_over.store(true, Ordering::Relaxed);
                return;
            }
        }
    }

    fn must_reset(&self, sent: u64) -> bool {
        match self.fault() {
            Fault::Down => true,
            Fault::ResetAfter(bytes) => sent >= bytes,
            _ => false,
        }
    }

    fn hold_up(&self, fault: &Fault, pause: Duration) {
        self.held_up.fetch_add(1, Ordering::Relaxed);
        self.wait_for_change(fault, pause);
    }

    /// Waits as long, or until the fault is another one.
    fn wait_for_change(&self, fault: &Fault, longest: Duration) {
        let held = self.fault.lock().unwrap();
        drop(self.changed.wait_timeout_while(held, longest, |now| now == fault).unwrap());
    }

    /// Ends connections as a machine does that knows nothing of them.
    fn reset(&self, connections: &[&TcpStream]) {
        for connection in connections {
            // One that is gone already needs no reset.
            let _gone = rustix::net::sockopt::set_socket_linger(connection, Some(Duration::ZERO));
        }
        self.resets.fetch_add(1, Ordering::Relaxed);
    }

    fn make_up(&self, mut client: TcpStream, answer: &[u8]) -> io::Result<()> {
        let mut heard = [0; 4096];
        client.set_read_timeout(Some(LOOK * 20))?;
        // Some protocols wait for the far side to speak first.
        drop(client.read(&mut heard));
        client.write_all(answer)?;
        let noise = vec![b'x'; 64 << 10];
        let mut sent = 0;
        while sent < ANSWER_BYTES_MAX && matches!(self.fault(), Fault::Answer(_)) {
            client.write_all(&noise)?;
            sent += noise.len();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that sends back what it hears.
    fn echo() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                thread::spawn(move || io::copy(&mut &client, &mut &client));
            }
        });
        address
    }

    fn connect(proxy: &FaultProxy) -> TcpStream {
        let client = TcpStream::connect(proxy.address()).unwrap();
        client.set_read_timeout(Some(crate::PATIENCE)).unwrap();
        client
    }

    fn heard(client: &mut TcpStream) -> io::Result<Vec<u8>> {
        let mut buffer = vec![0; 100];
        let size = client.read(&mut buffer)?;
        buffer.truncate(size);
        Ok(buffer)
    }

    #[test]
    fn it_forwards_and_ends_with_either_side() {
        let proxy = FaultProxy::start(echo(), Fault::None);
        let mut client = connect(&proxy);
        client.write_all(b"hello").unwrap();
        assert_eq!(heard(&mut client).unwrap(), b"hello");
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(heard(&mut client).unwrap(), b"");
        assert_eq!((proxy.resets(), proxy.held_up()), (0, 0));
        // Who comes later may be led elsewhere.
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        proxy.lead_to(other.local_addr().unwrap());
        let mut client = connect(&proxy);
        let (mut server, _) = other.accept().unwrap();
        server.write_all(b"elsewhere").unwrap();
        assert_eq!(heard(&mut client).unwrap(), b"elsewhere");
    }

    #[test]
    fn it_resets_what_is_open_and_what_comes() {
        let proxy = FaultProxy::start(echo(), Fault::None);
        let mut client = connect(&proxy);
        client.write_all(b"hello").unwrap();
        assert_eq!(heard(&mut client).unwrap(), b"hello");
        proxy.set(Fault::Down);
        assert_eq!(heard(&mut client).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        assert!(heard(&mut connect(&proxy)).is_err());
        proxy.set(Fault::ResetAfter(3));
        let mut client = connect(&proxy);
        client.write_all(b"hello").unwrap();
        // What was echoed before the reset may be lost to it.
        while heard(&mut client).is_ok() {}
        assert!(proxy.resets() >= 3);
    }

    #[test]
    fn it_holds_answers_back() {
        let proxy = FaultProxy::start(echo(), Fault::Stall);
        let mut client = connect(&proxy);
        client.write_all(b"hello").unwrap();
        client.set_read_timeout(Some(LOOK * 5)).unwrap();
        assert!(heard(&mut client).is_err());
        client.set_read_timeout(Some(crate::PATIENCE)).unwrap();
        proxy.set(Fault::Slow(LOOK));
        assert_eq!(heard(&mut client).unwrap(), b"hello");
        assert!(proxy.held_up() > 0);
        proxy.set(Fault::HalfOpen);
        client.set_read_timeout(Some(LOOK * 5)).unwrap();
        client.write_all(b"more").unwrap();
        assert!(heard(&mut client).is_err());
    }

    #[test]
    fn it_makes_answers_up() {
        let proxy = FaultProxy::start(echo(), Fault::Answer(b"$100\r\n".to_vec()));
        let mut client = connect(&proxy);
        client.write_all(b"hello").unwrap();
        let answer = heard(&mut client).unwrap();
        assert!(answer.starts_with(b"$100\r\n"), "{answer:?}");
    }
}
