//! `tidegate reload` and `tidegate rules` against a server that runs, with clients that stay connected all the while.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that can't go on fails, in its helpers too"
)]

mod common;

use std::path::PathBuf;
use std::process::Output;
use std::sync::Arc;

use common::tidegate;
use mqtt_protocol::{QoS, SubscriptionOptions};
use serde_json::{Value, json};
use tempfile::TempDir;
use tidegate::client::{Client, Endpoint, Event, Message, Options};
use tidegate::config::{Environment, load};
use tidegate::reload::Reloader;
use tidegate::server::{Server, load_rules};
use tidegate::storage::Storage;

const CONFIG: &str = "
data_dir = 'data'
actions.allow_private = ['127.0.0.1']
[admin]
enabled = false
[[listeners]]
name = 'tcp'
address = '127.0.0.1:0'
allow_anonymous = true
";

const RULE: &str = "
[rules.double]
sql = \"SELECT a * 2 AS b FROM 'in'\"
[[rules.double.actions]]
name = 'x'
type = 'republish'
topic = 'out'
";

struct Gateway {
    folder: TempDir,
    server: Server,
}

impl Gateway {
    async fn start(rules: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("rules.d")).unwrap();
        std::fs::write(folder.path().join("tidegate.toml"), CONFIG).unwrap();
        std::fs::write(folder.path().join("rules.d/r.toml"), rules).unwrap();
        let environment = Environment::default();
        let loaded = load(Some(&folder.path().join("tidegate.toml")), &environment).unwrap();
        let rules = load_rules(&loaded.config, folder.path()).unwrap();
        let storage = Storage::open(&loaded.config, &environment).unwrap();
        let server = Server::start(&loaded.config, &rules, &storage).await.unwrap();
        server.set_reload(Arc::new(Reloader::new(&server, &loaded, &[], &environment)));
        Self { folder, server }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    async fn run(&self, arguments: &[&str]) -> Output {
        let data_dir = self.path("data").to_str().unwrap().to_owned();
        let mut all: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        all.extend(["--data-dir".to_owned(), data_dir]);
        let run = move || tidegate(&all.iter().map(String::as_str).collect::<Vec<_>>());
        tokio::task::spawn_blocking(run).await.unwrap()
    }

    /// What a command prints, which has to end with this exit code.
    #[track_caller]
    fn ends(&self, code: i32, arguments: &[&str]) -> impl Future<Output = String> {
        let place = std::panic::Location::caller();
        async move {
            let output = self.run(arguments).await;
            let (out, err) = (text(&output.stdout), text(&output.stderr));
            assert_eq!(output.status.code(), Some(code), "{place}: {arguments:?}: {out}{err}");
            if code < 2 { out } else { err }
        }
    }

    async fn client(&self) -> Client {
        self.client_named("").await
    }

    async fn client_named(&self, client_id: &str) -> Client {
        let address = self.server.address().unwrap();
        let endpoint = Endpoint::Tcp { host: address.ip().to_string(), port: address.port() };
        let options = Options { endpoint, client_id: client_id.to_owned(), ..Options::default() };
        let mut client = Client::connect(&options).await.unwrap();
        client.subscribe([("out", SubscriptionOptions::from_qos(QoS::AtMostOnce))]).unwrap();
        assert!(matches!(client.next().await.unwrap(), Event::Subscribed { .. }));
        client
    }
}

/// What the rules make of a message.
async fn through(client: &mut Client, payload: &str) -> String {
    client.publish(&Message::new("in", payload)).unwrap();
    loop {
        if let Event::Message(received) = client.next().await.unwrap() {
            return String::from_utf8(received.message.payload).unwrap();
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_shows_what_it_changes_and_keeps_clients() {
    let gateway = Gateway::start(RULE).await;
    let mut client = gateway.client().await;
    assert_eq!(through(&mut client, r#"{"a":21}"#).await, r#"{"b":42}"#);
    gateway.write("rules.d/r.toml", &RULE.replace("a * 2", "a * 3"));
    gateway.write("rules.d/s.toml", &RULE.replace("double", "more").replace("'in'", "'elsewhere'"));
    gateway.write(
        "tidegate.toml",
        &format!("{CONFIG}[limits]\nmax_inflight = 5\n[acl]\nrules = ['allow all all \"#\"']\n"),
    );

    let dry = gateway.run(&["reload", "--dry-run", "--json"]).await;
    assert_eq!(dry.status.code(), Some(0), "{}", text(&dry.stderr));
    let told: Value = serde_json::from_slice(&dry.stdout).unwrap();
    assert_eq!(told["rules"], json!({ "added": ["more"], "changed": ["double"], "removed": [] }));
    let keys: Vec<(&str, bool)> = told["changes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|change| (change["key"].as_str().unwrap(), change["needs_restart"].as_bool().unwrap()))
        .collect();
    assert_eq!(keys, [("acl.rules", false), ("limits.max_inflight", true)]);
    assert_eq!(through(&mut client, r#"{"a":21}"#).await, r#"{"b":42}"#);

    let done = gateway.run(&["reload"]).await;
    assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
    assert_eq!(
        text(&done.stdout),
        "+ acl.rules: [\"allow all all \\\"#\\\"\"]\n\
         ~ limits.max_inflight: 1024 -> 5, needs a restart\n\
         + rule more\n\
         ~ rule double\n"
    );
    // The same client, on the same connection.
    assert_eq!(through(&mut client, r#"{"a":21}"#).await, r#"{"b":63}"#);
    gateway.server.stop(std::time::Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_reload_names_every_fault_and_changes_nothing() {
    let gateway = Gateway::start(RULE).await;
    let mut client = gateway.client().await;
    gateway.write("tidegate.toml", &format!("{CONFIG}[limits]\nmax_inflihgt = 5\nmax_retaned_bytes = 1\n"));
    gateway.write("rules.d/r.toml", &RULE.replace("a * 2", "a * 3"));
    for arguments in [&["reload", "--dry-run"][..], &["reload"]] {
        let refused = gateway.run(arguments).await;
        assert_eq!(refused.status.code(), Some(3), "{}", text(&refused.stderr));
        let said = text(&refused.stderr);
        assert!(
            said.contains("did you mean `max_inflight`?") && said.contains("`max_retaned_bytes`"),
            "{said}"
        );
        assert!(said.ends_with("nothing was changed\n"), "{said}");
        assert_eq!(through(&mut client, r#"{"a":21}"#).await, r#"{"b":42}"#);
    }
    gateway.server.stop(std::time::Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_gateway_that_runs_explains_its_access_rules_and_knows_its_clients() {
    let gateway = Gateway::start(RULE).await;
    gateway.write(
        "tidegate.toml",
        &format!("{CONFIG}[acl]\nrules = ['allow all listener tcp \"out\"', 'deny publish all \"x/#\"']\n"),
    );
    // The file says it, the gateway doesn't know yet.
    let config = gateway.path("tidegate.toml").to_str().unwrap().to_owned();
    let by_file = ["acl", "explain", "--config", &config, "--publish", "x/1"].map(str::to_owned);
    let offline = tokio::task::spawn_blocking(move || tidegate(&by_file.each_ref().map(String::as_str)));
    let offline = offline.await.unwrap();
    assert_eq!(offline.status.code(), Some(5), "{}", text(&offline.stderr));
    assert_eq!(text(&offline.stdout), "deny: acl.rules:2: deny publish all \"x/#\"\n");
    let open = gateway.ends(0, &["acl", "explain", "--publish", "x/1"]).await;
    assert_eq!(open, "allow: there are no access rules, so everything is allowed\n");

    gateway.ends(0, &["reload"]).await;
    let denied = gateway.run(&["acl", "explain", "--publish", "x/1"]).await;
    assert_eq!(denied.status.code(), Some(5), "{}", text(&denied.stderr));
    assert_eq!(text(&denied.stdout), "deny: acl.rules:2: deny publish all \"x/#\"\n");
    let client = gateway.client_named("pump").await;
    let known = gateway.ends(0, &["acl", "explain", "--client", "pump", "--receive", "out", "--json"]).await;
    let known: Value = serde_json::from_str(&known).unwrap();
    assert_eq!((&known["decision"], &known["is_connected"]), (&json!("allow"), &json!(true)));
    assert_eq!(known["client"]["listener"], "tcp");
    drop(client);
    let absent = gateway.run(&["acl", "explain", "--client", "absent", "--receive", "out"]).await;
    assert_eq!(absent.status.code(), Some(5));
    assert!(text(&absent.stderr).contains("no client \"absent\" is connected"), "{}", text(&absent.stderr));
    gateway.server.stop(std::time::Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_that_would_strand_what_is_owed_says_how_much_and_is_refused() {
    // Nobody listens there.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let rule = format!(
        "[rules.owes]\nsql = \"SELECT a FROM 'in'\"\n\
         [[rules.owes.actions]]\nname = 'ops'\ntype = 'http'\nurl = 'http://{free}/'\n"
    );
    let gateway = Gateway::start(&rule).await;
    let mut client = gateway.client().await;
    for _ in 0..3 {
        client.publish(&Message::new("in", r#"{"a":1}"#).with_qos(QoS::AtLeastOnce)).unwrap();
    }
    while client.unsettled() > 0 {
        client.next().await.unwrap();
    }
    gateway.write("rules.d/r.toml", "");
    for arguments in [&["reload", "--dry-run"][..], &["reload"]] {
        let refused = gateway.run(arguments).await;
        assert_eq!(refused.status.code(), Some(3), "{}", text(&refused.stderr));
        let said = text(&refused.stderr);
        assert!(
            said.contains("owes/ops") && said.contains("3 requests wait") && said.contains("on_remove"),
            "{said}"
        );
        assert_eq!(gateway.server.rules().stats().len(), 1);
    }
    gateway.write("rules.d/r.toml", &rule.replace("sql =", "on_remove = 'purge'\nsql ="));
    assert_eq!(gateway.run(&["reload"]).await.status.code(), Some(0));
    gateway.write("rules.d/r.toml", "");
    let done = gateway.run(&["reload"]).await;
    assert_eq!((done.status.code(), text(&done.stdout)), (Some(0), "- rule owes\n".to_owned()));
    gateway.server.stop(std::time::Duration::ZERO).await;
}

/// The way of a team that keeps rules in git: apply, look, diff, stop one in a hurry, go back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_from_a_folder_are_applied_compared_suspended_and_rolled_back() {
    let gateway = Gateway::start(RULE).await;
    let mut client = gateway.client().await;
    std::fs::create_dir(gateway.path("git")).unwrap();
    let more = RULE.replace("double", "more").replace("'in'", "'elsewhere'");
    gateway.write("git/more.toml", &more);
    let folder = gateway.path("git").to_str().unwrap().to_owned();

    assert_eq!(gateway.ends(1, &["rules", "diff", &folder]).await, "+ rule more\n");
    assert_eq!(gateway.ends(0, &["rules", "apply", "--dry-run", &folder]).await, "+ rule more\n");
    assert_eq!(gateway.server.rules().stats().len(), 1);
    assert_eq!(gateway.ends(0, &["rules", "apply", &folder]).await, "+ rule more\n");
    assert_eq!(gateway.ends(0, &["rules", "diff", &folder]).await, "");
    assert_eq!(gateway.server.rules().stats().len(), 2);

    gateway.write("git/more.toml", &more.replace("a * 2", "a * 5"));
    let changed = "~ rule more\n    sql: \"SELECT a * 2 AS b FROM 'elsewhere'\" -> \"SELECT a * 5 AS b FROM 'elsewhere'\"\n";
    assert_eq!(gateway.ends(1, &["rules", "diff", &folder]).await, changed);
    assert_eq!(gateway.ends(0, &["rules", "apply", &folder]).await, changed);

    let listed = gateway.ends(0, &["rules", "list"]).await;
    let rows: Vec<Vec<&str>> = listed.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["RULE", "OWNER", "VERSION", "STATE", "DESCRIPTION"]);
    assert_eq!(rows[1..], [["double", "file", "-", "runs"], ["more", "store", "2", "runs"]]);
    let shown = gateway.ends(0, &["rules", "show", "more"]).await;
    assert!(shown.starts_with("# of the store, version 2, by uid:") && shown.contains("a * 5"), "{shown}");

    // A rule of a file is suspended, and nothing else is done to it here.
    assert_eq!(through(&mut client, r#"{"a":21}"#).await, r#"{"b":42}"#);
    assert_eq!(gateway.ends(0, &["rules", "suspend", "double"]).await, "~ rule double: suspended\n");
    assert!(gateway.ends(0, &["rules", "list"]).await.contains("suspended"));
    assert_eq!(gateway.ends(0, &["reload"]).await, "");
    assert_eq!(gateway.server.rules().stats().len(), 1, "a reload doesn't bring it back");
    assert_eq!(gateway.ends(0, &["rules", "resume", "double"]).await, "~ rule double: resumed\n");
    assert_eq!(through(&mut client, r#"{"a":21}"#).await, r#"{"b":42}"#);
    for command in ["remove", "disable"] {
        let said = gateway.ends(3, &["rules", command, "double"]).await;
        assert!(said.contains("belongs to the file") && said.contains("r.toml"), "{said}");
    }
    assert!(gateway.ends(3, &["rules", "suspend", "more"]).await.contains("belongs to the store"));

    // What programs are told is flat, and no member is there without a value.
    let lines = async |arguments: &[&str]| {
        let told = gateway.ends(0, &[arguments, &["--json"]].concat()).await;
        told.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>()
    };
    let members = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let of_file =
        ["description", "enabled", "file", "last_match_at_ms", "name", "owner", "runs", "tags", "warnings"];
    let of_store =
        ["author", "changed_at_ms", "description", "enabled", "file", "name", "owner", "runs", "tags"];
    let of_store = [&of_store[..], &["version", "warnings"]].concat();
    let listed = lines(&["rules", "list"]).await;
    assert_eq!(listed.iter().map(members).collect::<Vec<_>>(), [of_file.to_vec(), of_store.clone()]);
    assert!(listed[0]["warnings"].is_array());
    let mut shown = lines(&["rules", "show", "more"]).await.remove(0);
    assert!(
        shown.as_object_mut().unwrap().remove("definition").is_some_and(|definition| definition.is_object())
    );
    assert_eq!(shown, listed[1]);
    let told = lines(&["rules", "suspend", "double"]).await;
    let delta = json!({ "rule": "double", "change": "suspended", "members": [] });
    assert_eq!(told, [json!({ "rules": [delta], "warnings": [] })]);
    assert!(members(&lines(&["rules", "list"]).await[0]).iter().any(|member| member == "suspended"));
    gateway.ends(0, &["rules", "resume", "double"]).await;
    let versions = lines(&["rules", "versions", "more"]).await;
    assert_eq!(members(&versions[1]), ["at_ms", "author", "definition", "members", "number"]);
    assert_eq!(versions[1]["members"][0]["member"], "sql");
    let counted = lines(&["rules", "counters"]).await;
    assert_eq!(counted.iter().map(|rule| &rule["name"]).collect::<Vec<_>>(), ["double", "more"]);
    assert_eq!(
        counted,
        [lines(&["rules", "counters", "double"]).await, lines(&["rules", "counters", "more"]).await].concat()
    );

    let back = gateway.ends(0, &["rules", "rollback", "more", "1"]).await;
    assert!(back.contains("a * 5 AS b FROM 'elsewhere'\" -> \"SELECT a * 2"), "{back}");
    let versions = gateway.ends(0, &["rules", "versions", "more"]).await;
    assert_eq!(versions.matches("version ").count(), 3, "{versions}");
    assert!(gateway.ends(1, &["rules", "diff", &folder]).await.contains("~ rule more"));
    assert!(gateway.ends(5, &["rules", "rollback", "more", "9"]).await.contains("no version 9"));

    // What the folder has no more goes when it is said so.
    std::fs::remove_file(gateway.path("git/more.toml")).unwrap();
    gateway.write("git/third.toml", &RULE.replace("double", "third"));
    assert_eq!(gateway.ends(0, &["rules", "apply", &folder]).await, "+ rule third\n");
    assert_eq!(gateway.ends(0, &["rules", "apply", "--prune", &folder]).await, "- rule more\n");
    let export = gateway.ends(0, &["rules", "export"]).await;
    assert!(export.contains("[rules.third]") && !export.contains("rules.more"), "{export}");
    gateway.server.stop(std::time::Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_with_a_fault_or_a_taken_name_is_refused_whole() {
    let gateway = Gateway::start(RULE).await;
    std::fs::create_dir(gateway.path("git")).unwrap();
    let folder = gateway.path("git").to_str().unwrap().to_owned();
    gateway.write("git/a.toml", &RULE.replace("double", "good"));
    gateway.write("git/b.toml", &RULE.replace("double", "bad").replace("a * 2", "nosuch(a)"));
    let said = gateway.ends(3, &["rules", "apply", &folder]).await;
    assert!(said.contains("git/b.toml:3:") && said.contains("nosuch"), "{said}");
    // The name is a file's already.
    gateway.write("git/b.toml", RULE);
    let said = gateway.ends(3, &["rules", "apply", &folder]).await;
    assert!(
        said.contains("\"double\"") && said.contains("r.toml") && said.contains("rules.journal"),
        "{said}"
    );
    assert_eq!(gateway.server.rules().stats().len(), 1);
    assert!(
        gateway
            .ends(3, &["rules", "diff", &gateway.path("none").display().to_string()])
            .await
            .contains("can't be read")
    );
    assert!(gateway.ends(5, &["rules", "show", "nobody"]).await.contains("no rule is named"));
    gateway.server.stop(std::time::Duration::ZERO).await;
}
