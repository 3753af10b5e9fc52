//! A backup of one gateway, taken up by another one: by the command line, with clients of somebody else's.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests panic where they can't go on"
)]

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use integration_tests::tools::{mosquitto_pub, mosquitto_pub_lines, mosquitto_sub};
use integration_tests::{Broker, Client, Version, new_folder};

const RULE: &str = "[rules.overheat]\nsql = \"SELECT t FROM 'sensors/+' WHERE t > 60\"\n\
    [[rules.overheat.actions]]\nname = 'alarm'\ntype = 'republish'\ntopic = 'alarms/${topic(2)}'\n";
const FILE_RULE: &str = "[rules.quiet]\nsql = \"SELECT * FROM 'quiet'\"\n\
    [[rules.quiet.actions]]\nname = 'log'\ntype = 'log'\n";
const PASSWORD: &str = "correct horse battery";

fn start() -> Broker {
    Broker::builder().rule_file("quiet", FILE_RULE).start()
}

#[track_caller]
fn run(broker: &Broker, arguments: &[&str]) -> String {
    let (code, text) = broker.command(arguments);
    assert_eq!(code, Some(0), "{arguments:?}: {text}");
    text
}

/// A gateway with a rule of its own, a suspended one, two Retained Messages and an administrator.
fn full() -> Broker {
    let broker = start();
    let folder = broker.folder().join("to-apply");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("overheat.toml"), RULE).unwrap();
    run(&broker, &["rules", "apply", folder.to_str().unwrap()]);
    run(&broker, &["rules", "suspend", "quiet"]);
    let password = broker.folder().join("password");
    fs::write(&password, PASSWORD).unwrap();
    run(&broker, &["users", "add", "ada", "--role", "admin", "--password-file", password.to_str().unwrap()]);
    mosquitto_pub(&broker, &["-q", "1", "-r", "-t", "hall/1", "-m", "on"]);
    mosquitto_pub(
        &broker,
        &[
            "-V",
            "5",
            "-q",
            "2",
            "-r",
            "-t",
            "hall/2",
            "-m",
            "off",
            "-D",
            "publish",
            "user-property",
            "a",
            "b",
        ],
    );
    broker
}

/// Signs in over HTTP; returns the status line.
fn sign_in(broker: &Broker, name: &str, password: &str) -> String {
    let mut stream = TcpStream::connect(broker.admin_address()).unwrap();
    let body = format!("{{\"name\":\"{name}\",\"password\":\"{password}\"}}");
    write!(
        stream,
        "POST /api/v1/session HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.lines().next().unwrap().to_owned()
}

fn retained(broker: &Broker) -> String {
    let mut topics: Vec<String> =
        run(broker, &["retained", "list"]).lines().skip(1).map(str::to_owned).collect();
    topics.sort();
    topics.iter().map(|line| line.split_whitespace().next().unwrap().to_owned() + " ").collect()
}

fn write_backup(broker: &Broker, arguments: &[&str]) -> String {
    let file = broker.folder().join("gateway.backup");
    let file = file.to_str().unwrap();
    run(broker, &[&["backup", file], arguments].concat());
    file.to_owned()
}

#[test]
fn a_fresh_gateway_goes_on_as_the_one_that_was_backed_up() {
    let from = full();
    let file = write_backup(&from, &["--with-users"]);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!Path::new(&format!("{file}.part")).exists());
    let (code, text) = from.command(&["backup", &file]);
    assert!(code == Some(1) && text.contains("--force"), "{text}");
    assert!(!fs::read_to_string(&file).unwrap().contains(PASSWORD));

    let to = start();
    let mut greeted = mosquitto_sub(&to, &["-t", "hall/#", "-t", "alarms/#"]);
    let told = run(&to, &["restore", &file, "--dry-run"]);
    for line in [
        "+ rule overheat\n",
        "~ rule quiet: suspended\n",
        "+ user ada\n",
        "+ retained hall/1\n",
        "+ retained hall/2\n",
    ] {
        assert!(told.contains(line), "{line}: {told}");
    }
    assert!(told.contains("nothing was changed"), "{told}");
    assert_eq!(retained(&to), "");
    let (code, text) = to.command(&["restore", &file]);
    assert!(code == Some(2) && text.contains("--yes"), "nobody can be asked: {text}");
    assert_eq!(retained(&to), "");

    let told = run(&to, &["restore", &file, "--yes"]);
    assert!(told.contains("restored: 4 added, 1 changed, 0 removed"), "{told}");
    assert_eq!(retained(&to), "hall/1 hall/2 ");
    // The first that comes is the alarm: nobody was sent what was restored.
    mosquitto_pub(&to, &["-q", "1", "-t", "sensors/7", "-m", "{\"t\":61}"]);
    assert_eq!(greeted.message(), "alarms/7 0 0 {\"t\":61}");
    let mut late = mosquitto_sub(&to, &["-q", "1", "-t", "hall/1"]);
    assert_eq!(late.message(), "hall/1 1 1 on");
    assert!(sign_in(&to, "ada", PASSWORD).starts_with("HTTP/1.1 200 "));
    assert!(
        run(&to, &["rules", "list"]).lines().any(|line| line.contains("quiet") && line.contains("suspended"))
    );
    let again = run(&to, &["restore", &file, "--yes", "--prune"]);
    assert!(again.contains("nothing differs"), "{again}");

    drop((greeted, late));
    let lines = |file: &str| fs::read_to_string(file).unwrap().lines().count();
    assert_eq!(lines(&write_backup(&to, &["--with-users"])), lines(&file));
}

#[test]
fn a_backup_through_a_pipe_is_the_same_and_one_that_is_no_backup_is_refused() {
    let from = full();
    let (code, text) = from.command(&["backup"]);
    assert_eq!(code, Some(0));
    assert!(!text.contains("argon2"), "no users unless they are asked for: {text}");
    let folder = new_folder();
    let (whole, cut) = (folder.join("whole"), folder.join("cut"));
    fs::write(&whole, &text).unwrap();
    fs::write(&cut, text.get(..text.len() - 30).unwrap()).unwrap();
    let to = start();
    for (file, why) in
        [(cut, "it is cut off"), (folder.join("missing"), "can't be read"), (folder.clone(), "can't be read")]
    {
        let (code, text) = to.command(&["restore", file.to_str().unwrap(), "--yes"]);
        assert!(code != Some(0) && text.contains(why), "{file:?}: {code:?} {text}");
    }
    let (code, text) = to.command(&["restore", to.folder().join("tidegate.toml").to_str().unwrap(), "--yes"]);
    assert!(code == Some(3) && text.contains("it is no backup"), "{text}");
    assert_eq!(retained(&to), "");
    run(&to, &["restore", whole.to_str().unwrap(), "--yes"]);
    assert_eq!(retained(&to), "hall/1 hall/2 ");
    drop(fs::remove_dir_all(&folder));
}

#[test]
fn clients_stay_and_miss_nothing_while_backups_are_made_and_restored() {
    const MESSAGES: usize = 1_000;
    let broker = full();
    let lines: Vec<String> = (0..500).map(|number| number.to_string()).collect();
    for topic in 0..20 {
        mosquitto_pub_lines(&broker, &["-q", "1", "-r", "-t", &format!("many/{topic}")], &lines[..5]);
    }
    let file = write_backup(&broker, &[]);
    let mut subscriber = Client::connect(&broker, Version::V5, "subscriber");
    subscriber.subscribe("load", 1);
    let published = std::thread::scope(|scope| {
        let publishing = scope.spawn(|| {
            let mut publisher = Client::connect(&broker, Version::V5, "publisher");
            for number in 0..MESSAGES {
                publisher.publish_acknowledged("load", &number.to_string());
            }
            publisher.ping();
        });
        let working = scope.spawn(|| {
            for round in 0..5 {
                mosquitto_pub(&broker, &["-q", "1", "-r", "-t", "many/3", "-m", &format!("round {round}")]);
                run(&broker, &["backup"]);
                let told = run(&broker, &["restore", &file, "--yes", "--prune"]);
                assert!(told.contains("~ retained many/3"), "{told}");
            }
        });
        for number in 0..MESSAGES {
            let delivery = subscriber.delivery();
            assert_eq!(delivery.text(), number.to_string());
            subscriber.send(&format!("40 [{:04x}]", delivery.packet_id.unwrap()));
        }
        subscriber.ping();
        (publishing.join(), working.join())
    });
    assert!(published.0.is_ok() && published.1.is_ok());
}

#[test]
fn configuration_files_are_written_into_a_folder_that_a_gateway_starts_from() {
    let from = full();
    let file = write_backup(&from, &["--with-config"]);
    let (code, text) = from.command(&["backup", "--with-config"]);
    assert!(code == Some(2) && text.contains("name one"), "{text}");
    let folder = new_folder();
    let into = folder.join("new");
    let into = into.to_str().unwrap();
    let told = run(&from, &["restore", &file, "--files-into", into]);
    assert!(told.contains("+ file tidegate.toml\n+ file rules.d/quiet.toml\n"), "{told}");
    for name in ["tidegate.toml", "rules.d/quiet.toml"] {
        let (was, is) = (from.folder().join(name), folder.join("new").join(name));
        assert_eq!(fs::read(was).unwrap(), fs::read(is).unwrap(), "{name}");
    }
    let (code, text) = from.command(&["restore", &file, "--files-into", into]);
    assert!(
        code == Some(1) && text.contains("can't be written"),
        "a folder that is there stays as it is: {text}"
    );
    let to = start();
    let told = run(&to, &["restore", &file, "--yes"]);
    assert!(told.contains("configuration files aren't restored by a gateway that runs"), "{told}");
    assert_eq!(retained(&to), "hall/1 hall/2 ");
    let without = write_backup(&to, &[]);
    let (code, text) =
        to.command(&["restore", &without, "--files-into", folder.join("other").to_str().unwrap()]);
    assert!(code == Some(1) && text.contains("--with-config"), "{text}");
    assert!(!folder.join("other").exists());
    drop(fs::remove_dir_all(&folder));
}
