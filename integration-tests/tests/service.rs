//! The gateway as a service: what systemd is told, and what the unit leaves open.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests panic where they can't go on"
)]

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;

use integration_tests::{Broker, PATIENCE, new_folder};

/// How exposed `systemd-analyze security` of Debian 12 finds the service, from 0 to 100: what is left of it is the network, sockets
/// of this machine, and the machine's file system, which is read-only. A smaller figure belongs here, a greater one is a fault.
const EXPOSURE: u32 = 11;

/// Plays systemd.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Manager {
    fn new() -> Self {
        let path = new_folder().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket, path }
    }

    fn path(&self) -> &str {
        self.path.to_str().unwrap()
    }

    /// The next state.
    #[track_caller]
    fn hears(&self) -> String {
        let mut buffer = [0; 4096];
        let length = self.socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    /// The next state that is no ping.
    #[track_caller]
    fn hears_more_than_pings(&self) -> String {
        loop {
            let state = self.hears();
            if state != "WATCHDOG=1" {
                return state;
            }
        }
    }
}

#[test]
fn systemd_hears_every_state_in_its_order() {
    let manager = Manager::new();
    let broker = Broker::builder()
        .variable("NOTIFY_SOCKET", manager.path())
        .variable("WATCHDOG_USEC", "1500000")
        // Where the machine has much else to do.
        .expect_error("watchdog isn't fed")
        .expect_error("refused")
        .expect_error("go on")
        .start();
    assert_eq!(manager.hears(), "STATUS=reading what the store has kept");
    let ready = manager.hears();
    assert_eq!(ready, format!("READY=1\nSTATUS=clients are let in on {}", broker.address()));
    for _ in 0..3 {
        assert_eq!(manager.hears(), "WATCHDOG=1");
    }
    broker.reload();
    let reloading = manager.hears_more_than_pings();
    let micros = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap().lines().next().unwrap();
    assert!(micros.parse::<u64>().unwrap() > 0, "{reloading}");
    assert_eq!(
        manager.hears_more_than_pings(),
        "READY=1\nSTATUS=clients are let in; the configuration was read again"
    );
    // By the command line, and refused.
    fs::write(broker.folder().join("rules.d/broken.toml"), "[rules.x]\nsql = 'SELEC'\n").unwrap();
    let (code, _) = broker.command(&["reload"]);
    assert_eq!(code, Some(3));
    assert!(manager.hears_more_than_pings().starts_with("RELOADING=1\n"));
    assert!(
        manager.hears_more_than_pings().starts_with("READY=1\nSTATUS=the configuration that ran goes on")
    );
    broker.stop();
    assert!(manager.hears_more_than_pings().starts_with("STOPPING=1\n"));
    manager.socket.set_nonblocking(true).unwrap();
    assert!(manager.socket.recv(&mut [0; 16]).is_err(), "nothing is told after it");
}

#[test]
fn a_watchdog_of_another_process_gets_nothing() {
    let manager = Manager::new();
    let broker = Broker::builder()
        .variable("NOTIFY_SOCKET", manager.path())
        .variable("WATCHDOG_USEC", "1000")
        .variable("WATCHDOG_PID", "1")
        .start();
    assert!(manager.hears().starts_with("STATUS="));
    assert!(manager.hears().starts_with("READY=1\n"));
    // A reload takes far longer than the watchdog would have waited.
    broker.reload();
    assert!(manager.hears().starts_with("RELOADING=1\n"));
    assert!(manager.hears().starts_with("READY=1\n"));
    broker.stop();
    assert!(manager.hears().starts_with("STOPPING=1\n"));
}

#[test]
fn health_is_asked_by_the_command_line() {
    let broker = Broker::start();
    assert_eq!(broker.command(&["health"]), (Some(0), "ready\n".to_owned()));
    let data = broker.folder().join("data");
    let named = ["health", "--data-dir", data.to_str().unwrap()];
    assert_eq!(broker.command(&named).0, Some(0));
    let elsewhere = new_folder();
    let (code, text) = broker.command(&["health", "--data-dir", elsewhere.to_str().unwrap()]);
    assert_eq!(code, Some(4), "{text}");
}

fn unit() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/tidegate.service")
}

/// What a program says, and whether it is content.
fn say(command: &mut Command) -> (bool, String) {
    let output = command.output().unwrap_or_else(|error| {
        panic!("cannot start {command:?} ({error}): `cargo xtask test` installs what the tests run")
    });
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), text)
}

#[test]
fn the_unit_is_well_formed() {
    // The binary isn't installed here: another program that is takes its place.
    let text = fs::read_to_string(unit()).unwrap();
    let path = new_folder().join("tidegate.service");
    fs::write(&path, text.replace("/usr/bin/tidegate", "/bin/true")).unwrap();
    let (is_content, said) = say(Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&path));
    assert!(is_content && !said.contains("tidegate"), "{said}");
    // It would say so.
    fs::write(&path, text.replace("NoNewPrivileges=yes", "NoNewPrivilege=yes")).unwrap();
    let (is_content, said) = say(Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&path));
    assert!(!is_content || said.contains("NoNewPrivilege"), "{said}");
}

#[test]
fn the_service_is_exposed_as_little_as_it_was() {
    let analyze = |threshold: u32| {
        let threshold = format!("--threshold={threshold}");
        say(Command::new("systemd-analyze")
            .args(["security", "--offline=true", "--no-pager", &threshold])
            .arg(unit()))
    };
    let (is_content, said) = analyze(EXPOSURE);
    assert!(is_content, "{said}");
    let (is_content, said) = analyze(EXPOSURE - 1);
    assert!(!is_content, "EXPOSURE can be smaller: {said}");
}
