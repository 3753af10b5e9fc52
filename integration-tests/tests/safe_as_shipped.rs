//! What holds before anybody has configured anything: who can reach it, and who can read what it keeps.

#![allow(clippy::unwrap_used, reason = "a helper of tests panics where it can't go on")]

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use integration_tests::tools;
use integration_tests::{Broker, Client, HttpReceiver, Version, new_folder};

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777
}

/// Everything in a folder, itself included.
fn everything(folder: &Path) -> Vec<PathBuf> {
    let mut found = vec![folder.to_owned()];
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(everything(&path)) } else { found.push(path) }
    }
    found
}

#[test]
fn what_it_keeps_is_for_its_owner_alone_whatever_the_umask() {
    for umask in ["000", "022", "077"] {
        let receiver = HttpReceiver::start();
        let rule = format!(
            "[rules.r]\nsql = \"SELECT * FROM 'in'\"\n[[rules.r.actions]]\nname = 'a'\ntype = 'http'\nurl = 'http://{}/'\n",
            receiver.address()
        );
        let broker = Broker::builder().umask(umask).rule_file("r", &rule).start();
        // A session, a retained message, an outbox and a dead letter are there.
        let mut client = Client::open(&broker, Version::V5);
        client.send("10 ['MQTT' 05 02 003c [11 00000e10] 'stays']");
        assert_eq!(client.connack().code, 0);
        client.subscribe("elsewhere", 1);
        client.publish_acknowledged("in", "{}");
        receiver.next_request().answer("400 Bad Request", &[]);
        let data = broker.folder().join("data");
        broker.logged("administration socket open");
        let all = everything(&data);
        assert!(all.len() > 4, "{all:?}");
        let mut sockets = 0;
        for path in all {
            let expected = if path.is_dir() { 0o700 } else { 0o600 };
            assert_eq!(mode(&path), expected, "umask {umask}: {}", path.display());
            sockets += usize::from(fs::symlink_metadata(&path).unwrap().file_type().is_socket());
        }
        assert_eq!(sockets, 1, "the administration socket");
        assert!(!broker.log().contains("others may look into the data directory"), "{}", broker.log());
    }
}

#[test]
fn a_data_directory_that_others_may_look_into_is_warned_about() {
    let folder = Folder(new_folder());
    let data = folder.0.join("data");
    for (given, warns) in [(0o700, false), (0o750, true), (0o705, true)] {
        fs::create_dir_all(&data).unwrap();
        fs::set_permissions(&data, fs::Permissions::from_mode(given)).unwrap();
        let broker = Broker::builder().in_folder(&folder.0).start();
        assert_eq!(
            broker.log().contains("others may look into the data directory"),
            warns,
            "{given:o}: {}",
            broker.log()
        );
        // It is the owner's to change.
        assert_eq!(mode(&data), given);
        broker.stop();
    }
}

#[test]
fn running_as_root_is_warned_about() {
    let broker = Broker::start();
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let is_root =
        status.lines().any(|line| line.starts_with("Uid:") && line.split_whitespace().nth(2) == Some("0"));
    assert_eq!(broker.log().contains("running as root"), is_root, "{}", broker.log());
}

#[test]
fn its_memory_is_not_written_to_disk_when_it_dies() {
    let broker = Broker::start();
    let limits = fs::read_to_string(format!("/proc/{}/limits", broker.id())).unwrap();
    let cores = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(cores.split_whitespace().nth(4), Some("0"), "{cores}");
}

#[test]
fn without_a_configuration_it_is_reached_from_this_machine_only() {
    let output = tools::tidegate().args(["check", "--effective"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let addresses: Vec<SocketAddr> = text
        .lines()
        .filter_map(|line| line.strip_prefix("address = \"")?.split('"').next()?.parse().ok())
        .collect();
    assert_eq!(addresses.len(), 2, "a listener and the administration interface:\n{text}");
    assert!(addresses.iter().all(|address| address.ip().is_loopback()), "{text}");
}

/// A file of users: "password", of the reference implementation's test suite.
const USERS: &str =
    "carl:$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc\n";

/// What `check` says about a configuration, with its exit code.
fn checked(config: &str, environment: &[(&str, &str)]) -> (Option<i32>, String) {
    let folder = Folder(new_folder());
    let path = folder.0.join("tidegate.toml");
    fs::write(&path, config).unwrap();
    let users = folder.0.join("users");
    fs::write(&users, USERS).unwrap();
    fs::set_permissions(&users, fs::Permissions::from_mode(0o600)).unwrap();
    let mut command = tools::tidegate();
    command.arg("check").arg("--config").arg(path).envs(environment.iter().copied());
    let output = command.output().unwrap();
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code(), text)
}

#[test]
fn whoever_opens_it_to_a_network_says_for_whom() {
    let listener =
        |address: &str, more: &str| format!("[[listeners]]\nname = 'a'\naddress = '{address}'\n{more}\n");
    let users = "[authentication.users]\ntype = 'password_file'\nfile = 'users'\n";
    let asks = "nothing says who may come in";
    let warns = "lets everybody in who can reach";
    for address in ["0.0.0.0:1883", "[::]:1883", "192.0.2.1:1883", "[2001:db8::1]:1883"] {
        let (code, text) = checked(&listener(address, ""), &[]);
        assert!(code == Some(3) && text.contains(asks), "{address}: {text}");
        let (code, text) = checked(&listener(address, "allow_anonymous = true"), &[]);
        assert!(code == Some(0) && text.contains(warns), "{address}: {text}");
        let (code, text) = checked(&listener(address, users), &[]);
        assert!(code == Some(0) && !text.contains(asks) && !text.contains(warns), "{address}: {text}");
    }
    for address in ["127.0.0.1:1883", "127.8.8.8:1883", "[::1]:1883"] {
        let (code, text) = checked(&listener(address, ""), &[]);
        assert!(code == Some(0) && !text.contains(asks), "{address}: {text}");
    }
    // The listener that is there by itself lets everybody on this machine in; moved to a network, it has to be told.
    let moved = ("TIDEGATE_LISTENERS__TCP__ADDRESS", "0.0.0.0:1883");
    let (code, text) = checked("", &[moved]);
    assert!(code == Some(3) && text.contains(asks), "{text}");
    let (code, text) = checked("", &[moved, ("TIDEGATE_LISTENERS__TCP__ALLOW_ANONYMOUS", "true")]);
    assert!(code == Some(0) && text.contains(warns), "{text}");
    let (code, text) = checked(users, &[moved]);
    assert!(code == Some(0) && !text.contains(warns), "{text}");
    let (code, text) = checked("", &[("TIDEGATE_LISTENERS__TCP__ADDRESS", "127.0.0.1:2883")]);
    assert!(code == Some(0) && !text.contains("lets"), "{text}");
}
