//! What the service manager is told: systemd, or whatever else names a socket in `NOTIFY_SOCKET`.
//!
//! One datagram for each change of state, as sd_notify(3) describes them: `READY=1` when clients are let in, `RELOADING=1`
//! and `READY=1` around each reload, however it was asked for, `STOPPING=1`, and `WATCHDOG=1` as often as [`Watchdog`] finds
//! it earned. Without the variable nothing is sent; a message that can't be sent is logged, and everything goes on.
//! The protocol is a few lines of text over a Unix socket, so it is spoken here and not by a library.

mod watchdog;

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::time::Duration;
use std::{io, process};

use rustix::time::{ClockId, clock_gettime};
use tracing::warn;

pub(crate) use self::watchdog::Watchdog;
use crate::config::Environment;

/// Longest time that a message waits for room in the manager's socket.
const SEND_TIMEOUT: Duration = Duration::from_secs(1);

/// The service manager, if there is one. Cheap to clone; every clone is the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct ServiceManager(Option<Arc<Door>>);

#[derive(Debug)]
struct Door {
    socket: UnixDatagram,
    address: SocketAddr,
}

impl ServiceManager {
    /// The one that the environment names.
    pub(crate) fn of(environment: &Environment) -> Self {
        let Some(name) = environment.get("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
            return Self(None);
        };
        match Door::open(name) {
            Ok(door) => Self(Some(Arc::new(door))),
            Err(error) => {
                warn!(%error, NOTIFY_SOCKET = name, "the service manager can't be told anything");
                Self(None)
            }
        }
    }

    /// Clients are let in.
    pub(crate) fn ready(&self, status: &str) {
        self.tell(&format!("READY=1\nSTATUS={}", line(status)));
    }

    /// What goes on, in words.
    pub(crate) fn status(&self, status: &str) {
        self.tell(&format!("STATUS={}", line(status)));
    }

    /// The configuration is read again, until what is returned is dropped.
    pub(crate) fn reloading(&self) -> Reloading<'_> {
        let now = clock_gettime(ClockId::Monotonic);
        // Both are positive, and the clock starts with the machine.
        let micros = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1_000;
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={micros}\nSTATUS=reading the configuration again"));
        Reloading { manager: self, status: "the configuration that ran goes on: reading it again failed" }
    }

    /// No more clients are let in.
    pub(crate) fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=stopping: clients are told, queues run empty");
    }

    /// The watchdog's answer: everything is alive.
    pub(crate) fn alive(&self) {
        self.tell("WATCHDOG=1");
    }

    fn tell(&self, state: &str) {
        let Some(door) = &self.0 else { return };
        if let Err(error) = door.socket.send_to_addr(state.as_bytes(), &door.address) {
            warn!(%error, state, "the service manager could not be told");
        }
    }
}

impl Door {
    /// A path, or `@` and an abstract name. Other families (`vsock:`) are for virtual machines as a whole.
    fn open(name: &str) -> io::Result<Self> {
        let address = match name.strip_prefix('@') {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None if name.starts_with('/') => SocketAddr::from_pathname(name)?,
            None => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "neither a path nor an abstract name",
                ));
            }
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(SEND_TIMEOUT))?;
        Ok(Self { socket, address })
    }
}

/// A reload that is under way. When it is dropped the manager is told that it is over, whatever became of it.
#[derive(Debug)]
pub(crate) struct Reloading<'m> {
    manager: &'m ServiceManager,
    status: &'static str,
}

impl Reloading<'_> {
    /// It has succeeded.
    pub(crate) fn succeeded(mut self) {
        self.status = "clients are let in; the configuration was read again";
    }
}

impl Drop for Reloading<'_> {
    fn drop(&mut self) {
        self.manager.ready(self.status);
    }
}

/// How often the manager wants to hear that this process is alive; `None`: it doesn't.
fn watchdog_interval(environment: &Environment) -> Option<Duration> {
    let is_ours = environment.get("WATCHDOG_PID").is_none_or(|pid| pid.parse() == Ok(process::id()));
    let micros = environment.get("WATCHDOG_USEC")?.parse().ok().filter(|micros| *micros > 0)?;
    is_ours.then(|| Duration::from_micros(micros))
}

/// A state is lines of text: one value has one.
fn line(text: &str) -> String {
    text.replace(char::is_control, " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A manager that listens, and what it is named in the environment.
    fn manager(name: &str, address: &SocketAddr) -> (UnixDatagram, ServiceManager) {
        let socket = UnixDatagram::bind_addr(address).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let environment: Environment = [("NOTIFY_SOCKET", name)].into_iter().collect();
        (socket, ServiceManager::of(&environment))
    }

    fn heard(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 4096];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    #[test]
    fn states_come_in_their_order_by_path_and_by_abstract_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let name = format!("tidegate-test-{}-{}", process::id(), crate::server::random());
        let doors = [
            (path.display().to_string(), SocketAddr::from_pathname(&path).unwrap()),
            (format!("@{name}"), SocketAddr::from_abstract_name(&name).unwrap()),
        ];
        for (name, address) in doors {
            let (socket, told) = manager(&name, &address);
            told.status("opening\nthe store");
            assert_eq!(heard(&socket), "STATUS=opening the store");
            told.ready("1 listener");
            assert_eq!(heard(&socket), "READY=1\nSTATUS=1 listener");
            let reloading = told.reloading();
            let text = heard(&socket);
            let micros =
                text.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap().split('\n').next().unwrap();
            assert!(micros.parse::<u64>().unwrap() > 0);
            reloading.succeeded();
            assert!(heard(&socket).starts_with("READY=1\nSTATUS=clients are let in"));
            drop(told.reloading());
            assert!(heard(&socket).starts_with("RELOADING=1\n"));
            assert!(heard(&socket).starts_with("READY=1\nSTATUS=the configuration that ran goes on"));
            told.alive();
            assert_eq!(heard(&socket), "WATCHDOG=1");
            told.stopping();
            assert!(heard(&socket).starts_with("STOPPING=1\n"));
        }
    }

    #[test]
    fn without_a_socket_or_with_one_that_is_none_nothing_happens() {
        for name in [None, Some(""), Some("relative"), Some("vsock:2:1234"), Some("/no/such/socket")] {
            let told = ServiceManager::of(&name.map(|name| ("NOTIFY_SOCKET", name)).into_iter().collect());
            assert_eq!(told.0.is_some(), name == Some("/no/such/socket"), "{name:?}");
            told.ready("ready");
            told.alive();
        }
        let long = format!("/{}", "x".repeat(200));
        assert!(ServiceManager::of(&[("NOTIFY_SOCKET", long)].into_iter().collect()).0.is_none());
    }

    #[test]
    fn the_watchdog_is_for_the_process_that_it_names() {
        let interval = |variables: &[(&str, &str)]| watchdog_interval(&variables.iter().copied().collect());
        let own = process::id().to_string();
        assert_eq!(interval(&[("WATCHDOG_USEC", "3000000")]), Some(Duration::from_secs(3)));
        assert_eq!(
            interval(&[("WATCHDOG_USEC", "3000000"), ("WATCHDOG_PID", &own)]),
            Some(Duration::from_secs(3))
        );
        for (usec, pid) in [("3000000", "1"), ("3000000", "x"), ("0", &*own), ("-1", &*own), ("soon", &*own)]
        {
            assert_eq!(interval(&[("WATCHDOG_USEC", usec), ("WATCHDOG_PID", pid)]), None, "{usec} {pid}");
        }
        assert_eq!(interval(&[("WATCHDOG_PID", &own)]), None);
    }
}
