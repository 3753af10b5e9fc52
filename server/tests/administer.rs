//! The commands that administer a gateway: against a server that runs, with clients that are there.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that can't go on fails, in its helpers too"
)]

mod common;

use std::net::SocketAddr;
use std::path::Path;
use std::process::Output;

use common::tidegate;
use serde_json::Value;
use tempfile::TempDir;
use tidegate::config::{self, Config, Durability, Environment, Listener};
use tidegate::rules::RuleSet;
use tidegate::server::Server;
use tidegate::storage::Storage;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

struct Gateway {
    folder: TempDir,
    server: Server,
}

impl Gateway {
    async fn start() -> Self {
        Self::with_rules("").await
    }

    async fn with_rules(rules: &str) -> Self {
        let rules = [(Path::new("rules.d/a.toml"), rules)];
        let rules = RuleSet::from_texts(rules, &rules_sql::Limits::default()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let listener =
            Listener { address: "127.0.0.1:0".parse().ok(), ..Config::default().listeners[0].clone() };
        let config = Config {
            data_dir: Some(folder.path().join("data")),
            store: config::Store { durability: Durability::Commit, ..config::Store::default() },
            admin: config::Admin { enabled: false, ..config::Admin::default() },
            listeners: vec![listener],
            ..Config::default()
        };
        let storage = Storage::open(&config, &Environment::default()).unwrap();
        let server = Server::start(&config, &rules, &storage).await.unwrap();
        Self { folder, server }
    }

    fn address(&self) -> SocketAddr {
        self.server.address().unwrap()
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let data_dir = self.folder.path().join("data");
        tidegate(&[arguments, &["--data-dir", data_dir.to_str().unwrap()]].concat())
    }

    #[track_caller]
    fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", err(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// What the command says when the gateway refuses.
    #[track_caller]
    fn refused(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(5), "{arguments:?}: {}", err(&output));
        err(&output)
    }

    #[track_caller]
    fn lines(&self, arguments: &[&str]) -> Vec<Value> {
        let text = self.ok(&[arguments, &["--json"]].concat());
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Connects a client of MQTT 3.1.1 whose session stays, with a Subscription.
async fn connect(address: SocketAddr, client_id: &str, filter: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let id = client_id.as_bytes();
    let mut connect = vec![0x10, u8::try_from(12 + id.len()).unwrap(), 0, 4];
    connect.extend_from_slice(b"MQTT\x04\x00\x00\x3c\x00");
    connect.push(u8::try_from(id.len()).unwrap());
    connect.extend_from_slice(id);
    let filter = filter.as_bytes();
    connect.extend_from_slice(&[0x82, u8::try_from(5 + filter.len()).unwrap(), 0, 1, 0]);
    connect.push(u8::try_from(filter.len()).unwrap());
    connect.extend_from_slice(filter);
    connect.push(1);
    stream.write_all(&connect).await.unwrap();
    let mut answer = [0; 9];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!((answer[0], answer[3], answer[4], answer[8]), (0x20, 0, 0x90, 1));
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_are_listed_shown_disconnected_and_forgotten() {
    let gateway = Gateway::start().await;
    let odd = "a/b c?";
    let mut press = connect(gateway.address(), "press-1", "line/+/temp").await;
    let hall = connect(gateway.address(), odd, "hall/#").await;
    drop(hall);
    let gateway = &gateway;
    tokio::task::block_in_place(|| {
        let table = gateway.ok(&["clients", "list", "press"]);
        assert!(table.starts_with("CLIENT") && table.contains("press-1") && !table.contains(odd), "{table}");
        let all = gateway.lines(&["clients", "list"]);
        let ids: Vec<_> = all.iter().map(|client| client["client_id"].as_str().unwrap()).collect();
        assert_eq!(ids, [odd, "press-1"]);
        assert_eq!(gateway.lines(&["clients", "list", "--limit", "1"]).len(), 1);
        let shown = &gateway.lines(&["clients", "show", "press-1"])[0];
        assert_eq!(shown["subscription_list"][0]["filter"], "line/+/temp");
        assert_eq!(shown["connection"]["protocol"], "3.1.1");
        let page = gateway.ok(&["clients", "show", odd]);
        assert!(page.contains("hall/#"), "{page}");
        assert!(gateway.refused(&["clients", "show", "nobody"]).contains("nobody"));
        gateway.ok(&["clients", "disconnect", "press-1"]);
    });
    // The gateway closes it: nothing else ends this read.
    let mut rest = Vec::new();
    press.read_to_end(&mut rest).await.unwrap();
    tokio::task::block_in_place(|| {
        let left = gateway.lines(&["clients", "list", "--offline"]);
        assert!(left.iter().any(|client| client["client_id"] == "press-1"), "its session stays");
        gateway.ok(&["clients", "end-session", "press-1"]);
        gateway.ok(&["clients", "end-session", odd]);
        gateway.refused(&["clients", "end-session", odd]);
        let output = gateway.run(&["clients", "list"]);
        assert!(output.stdout.is_empty() && err(&output).contains("no clients"), "{output:?}");
    });
    gateway.server.stop(std::time::Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_retained_is_listed_shown_and_cleared() {
    let gateway = Gateway::start().await;
    let port = gateway.address().port().to_string();
    tokio::task::block_in_place(|| {
        for (topic, message) in [("hall/temp", "21"), ("hall/sign", "on"), ("yard", "\u{1b}[2J")] {
            let publish = tidegate(&["pub", "-p", &port, "-t", topic, "-m", message, "-r", "-q", "1"]);
            assert_eq!(publish.status.code(), Some(0), "{}", err(&publish));
        }
        let table = gateway.ok(&["retained", "list", "hall/+"]);
        let topics: Vec<_> = table.lines().skip(1).filter_map(|line| line.split(' ').next()).collect();
        assert_eq!(topics, ["hall/sign", "hall/temp"]);
        assert_eq!(gateway.lines(&["retained", "list"]).len(), 3);
        assert!(gateway.ok(&["retained", "show", "hall/temp"]).ends_with("\n21\n"));
        let page = gateway.ok(&["retained", "show", "yard"]);
        assert!(!page.contains('\u{1b}'), "{page}");
        gateway.ok(&["retained", "clear", "hall/temp", "yard"]);
        assert!(gateway.refused(&["retained", "show", "hall/temp"]).contains("hall/temp"));
        assert!(gateway.refused(&["retained", "list", "a/#/b"]).contains("filter"));
        assert_eq!(gateway.lines(&["retained", "list"]).len(), 1);
    });
    gateway.server.stop(std::time::Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_and_tokens_are_made_changed_and_removed() {
    let gateway = Gateway::start().await;
    let password = gateway.folder.path().join("password");
    tokio::task::block_in_place(|| {
        let file = password.to_str().unwrap();
        let add =
            |name: &str| gateway.run(&["users", "add", name, "--role", "admin", "--password-file", file]);
        std::fs::write(&password, "short\n").unwrap();
        let output = add("ada");
        assert_eq!(output.status.code(), Some(5));
        assert!(err(&output).contains("12 to 1024 bytes"), "{}", err(&output));
        std::fs::write(&password, "correct horse battery\n").unwrap();
        assert_eq!(add("ada").status.code(), Some(0));
        assert!(err(&add("ada")).contains("already"));
        gateway.ok(&["users", "add", "bob", "--role", "viewer", "--password-file", file]);
        gateway.ok(&["users", "change", "bob", "--role", "operator"]);
        gateway.ok(&["users", "change", "bob", "--password-file", file]);
        let users = gateway.lines(&["users", "list"]);
        assert_eq!((&users[1]["name"], &users[1]["role"]), (&"bob".into(), &"operator".into()));
        assert!(gateway.refused(&["users", "remove", "ada"]).contains("last administrator"));
        gateway.ok(&["users", "remove", "bob"]);
        assert_eq!(gateway.ok(&["users", "list"]), "USER  ROLE   OWNER\nada   admin  store\n");
        let secret = gateway.ok(&[
            "tokens",
            "add",
            "ci",
            "--role",
            "viewer",
            "--scope",
            "clients:read",
            "--days",
            "30",
        ]);
        assert!(secret.starts_with("tdt_") && secret.trim_end().len() > 40, "{secret}");
        let tokens = gateway.ok(&["tokens", "list"]);
        assert!(tokens.contains("clients:read") && tokens.contains("uid:"), "{tokens}");
        assert!(!tokens.contains(secret.trim_end()));
        gateway.ok(&["tokens", "remove", "ci"]);
        gateway.refused(&["tokens", "remove", "ci"]);
    });
    gateway.server.stop(std::time::Duration::ZERO).await;
}

const RULES: &str = "[rules.warm]
sql = \"SELECT t FROM 'hall'\"
[[rules.warm.actions]]
name = 'note'
type = 'log'
[[rules.warm.actions]]
name = 'on'
type = 'republish'
topic = 'warm'
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn actions_are_listed_paused_emptied_and_resumed() {
    let gateway = Gateway::with_rules(RULES).await;
    let port = gateway.address().port().to_string();
    tokio::task::block_in_place(|| {
        let note = "warm/note";
        assert_eq!(gateway.ok(&["actions", "pause", note]), "warm/note: paused\n");
        assert_eq!(gateway.ok(&["actions", "pause", note]), "warm/note: it was paused already\n");
        for t in ["1", "2"] {
            let publish = tidegate(&["pub", "-p", &port, "-t", "hall", "-m", t, "-q", "1"]);
            assert_eq!(publish.status.code(), Some(0), "{}", err(&publish));
        }
        let table = gateway.ok(&["actions", "list"]);
        assert!(table.starts_with("ACTION") && table.contains("paused by uid"), "{table}");
        let listed = gateway.lines(&["actions", "list", "--state", "paused"]);
        assert_eq!((listed.len(), &listed[0]["queue"]["queued"]), (1, &2.into()));
        assert!(gateway.ok(&["actions", "show", note]).contains("queued            2\n"));
        assert!(gateway.refused(&["actions", "drain", note]).contains("resume it"));
        let dry = gateway.ok(&["actions", "purge", note, "--dry-run"]);
        assert_eq!(dry, "warm/note: 2 requests would be dropped\n");
        let other = gateway.refused(&["actions", "purge", note, "--confirm", "warm/on"]);
        assert!(other.contains("warm/note"), "{other}");
        let purged = gateway.ok(&["actions", "purge", note, "--confirm", note]);
        assert_eq!(purged, "warm/note: 2 requests dropped\n");
        let shown = &gateway.lines(&["actions", "show", note])[0];
        assert_eq!(shown["outcomes"]["dropped"]["purged"], 2);
        assert_eq!(gateway.ok(&["actions", "resume", note]), "warm/note: resumed\n");
        assert_eq!(gateway.ok(&["actions", "resume", note]), "warm/note: it wasn't paused\n");
        assert_eq!(gateway.ok(&["actions", "drain", note]), "warm/note: 0 requests are tried now\n");
        assert!(gateway.refused(&["actions", "pause", "warm/on"]).contains("no queue"));
        gateway.refused(&["actions", "show", "warm/none"]);
        for wrong in
            [&["purge", note][..], &["purge", note, "--dry-run", "--confirm", note], &["show", "warm"]]
        {
            let output = gateway.run(&[&["actions"], wrong].concat());
            assert_eq!(output.status.code(), Some(2), "{wrong:?}");
        }
    });
    gateway.server.stop(std::time::Duration::ZERO).await;
}

#[test]
fn without_a_gateway_there_is_a_word_and_a_code() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().to_str().unwrap();
    for command in [
        &["actions", "list"][..],
        &["clients", "list"],
        &["dead-letters", "list"],
        &["rules", "list"],
        &["rules", "counters"],
        &["retained", "list"],
        &["users", "list"],
        &["tokens", "list"],
    ] {
        let output = tidegate(&[command, &["--data-dir", data_dir]].concat());
        assert_eq!(output.status.code(), Some(4), "{command:?}");
        assert!(err(&output).contains("no gateway runs"), "{}", err(&output));
    }
}

#[test]
fn shells_get_a_script_that_they_understand() {
    for (shell, checks) in [("bash", true), ("zsh", false), ("fish", false)] {
        let output = tidegate(&["completions", shell]);
        assert_eq!(output.status.code(), Some(0));
        let script = String::from_utf8(output.stdout).unwrap();
        assert!(script.contains("dead-letters") && script.contains("end-session"), "{shell}");
        if checks && Path::new("/bin/bash").exists() {
            let checked =
                std::process::Command::new("/bin/bash").args(["-n", "-c", &script]).output().unwrap();
            assert!(checked.status.success(), "{checked:?}");
        }
    }
    assert_eq!(tidegate(&["completions", "tcsh"]).status.code(), Some(2));
}
