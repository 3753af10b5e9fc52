//! The configuration and its reload, against a whole server that was started with files.

use std::fs;

use serde_json::{Value, json};

use super::running::start;
use super::security::bearer;
use super::*;
use crate::admin::{AdminClientError, ApiClient};
use crate::config::{self, Environment};
use crate::reload::Reloader;
use crate::server::{Server, load_rules};

const RULE: &str = "[rules.r]\nsql = \"SELECT * FROM 'in'\"\n\
    [[rules.r.actions]]\nname = 'a'\ntype = 'republish'\ntopic = 'out'\n";

/// A server that was started with files.
pub(super) struct Started {
    folder: tempfile::TempDir,
    pub(super) server: Server,
}

impl Started {
    /// `text` is what the configuration has beside its listener and its tokens; `admin` what `[admin]` has besides.
    pub(super) async fn new(admin: &str, text: &str) -> Self {
        Self::in_folder(tempfile::tempdir().unwrap(), admin, text).await
    }

    /// The same with a file beside the configuration.
    pub(super) async fn with_file(name: &str, contents: &str, text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(name), contents).unwrap();
        Self::in_folder(folder, "", text).await
    }

    async fn in_folder(folder: tempfile::TempDir, admin: &str, text: &str) -> Self {
        fs::create_dir(folder.path().join("rules.d")).unwrap();
        fs::write(folder.path().join("rules.d/r.toml"), RULE).unwrap();
        let path = folder.path().join("tidegate.toml");
        fs::write(&path, Self::text(admin, text)).unwrap();
        let environment = Environment::from_iter([("TOKEN", "canary-env")]);
        let loaded = config::load(Some(&path), &environment).unwrap();
        let rules = load_rules(&loaded.config, folder.path()).unwrap();
        let storage = Storage::open(&loaded.config, &environment).unwrap();
        let server = Server::start(&loaded.config, &rules, &storage).await.unwrap();
        server.set_reload(Arc::new(Reloader::new(&server, &loaded, &[], &environment)));
        Self { folder, server }
    }

    fn text(admin: &str, text: &str) -> String {
        let mut whole = format!(
            "data_dir = 'data'\n{text}\n[[listeners]]\nname = 'tcp'\naddress = '127.0.0.1:0'\nallow_anonymous = true\n\
             [admin]\naddress = '127.0.0.1:0'\n{admin}\n"
        );
        for (name, role, scopes) in [
            ("viewer", "viewer", ""),
            ("operator", "operator", ""),
            ("admin", "admin", ""),
            ("looks", "admin", "scopes = ['config:read']"),
        ] {
            let digest = auth::Digest::of(name).to_hex();
            whole.push_str(&format!(
                "[[admin.tokens]]\nname = '{name}'\nrole = '{role}'\nsha256 = '{digest}'\n{scopes}\n"
            ));
        }
        whole
    }

    fn configure(&self, text: &str) {
        self.write("tidegate.toml", &Self::text("", text));
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.folder.path().join(name), text).unwrap();
    }

    pub(super) async fn ask(&self, token: &str, method: &str, path: &str, body: &str) -> Answer {
        let (bearer, length) = (bearer(token), body.len());
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Authorization: {bearer}\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        send(self.server.admin_address().unwrap(), &request).await
    }

    async fn reload(&self, query: &str) -> Answer {
        self.ask("admin", "POST", &format!("/api/v1/reload{query}"), "").await
    }

    /// A value that holds, with its origin.
    async fn setting(&self, key: &str) -> (Value, String) {
        let shown = self.ask("looks", "GET", "/api/v1/config", "").await.json();
        let found = shown["effective"].as_array().unwrap().iter().find(|setting| setting["key"] == key);
        let found = found.unwrap_or_else(|| panic!("{key} is not in {shown}"));
        (found["value"].clone(), found["origin"].as_str().unwrap().to_owned())
    }

    /// What its owner is answered, by the socket.
    async fn by_owner(&self, path: &'static str) -> Result<Value, AdminClientError> {
        let data_dir = self.folder.path().join("data");
        let ask = move || ApiClient::connect(&data_dir).unwrap().post(path, &Value::Null);
        tokio::task::spawn_blocking(ask).await.unwrap()
    }

    pub(super) async fn stop(self) {
        self.server.stop(std::time::Duration::ZERO).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_configuration_that_holds_is_shown_with_origins_and_without_secrets() {
    let connectors = "[connectors.a]\ntype = 'http'\nurl = 'https://a.example'\nauth = { type = 'bearer', token = 'canary-1' }\n\
        [connectors.b]\ntype = 'http'\nurl = 'https://b.example'\nauth = { type = 'bearer', token = '${env:TOKEN}' }\n";
    let started = Started::new("", connectors).await;
    let answer = started.ask("admin", "GET", "/api/v1/config", "").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(!answer.body.contains("canary"), "{answer:?}");
    for name in ["viewer", "operator", "admin", "looks"] {
        assert!(!answer.body.contains(&auth::Digest::of(name).to_hex()), "{answer:?}");
    }
    let file = answer.json()["config"].as_str().unwrap().to_owned();
    assert!(file.ends_with("/tidegate.toml"), "{file}");
    assert_eq!(started.setting("limits.max_inflight").await, (json!(1024), "default".to_owned()));
    assert_eq!(started.setting("connectors.a.url").await, (json!("https://a.example"), format!("{file}:4")));
    assert_eq!(started.setting("connectors.a.auth.token").await.0, "(secret)");
    assert_eq!(started.setting("connectors.b.auth.token").await.0, "${env:TOKEN}");
    assert_eq!(started.setting("listeners.tcp.allow_anonymous").await.0, true);
    started.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_tells_what_differs_puts_it_in_place_and_is_on_record() {
    let started = Started::new("", "log.level = 'info'\n").await;
    let file = started.ask("admin", "GET", "/api/v1/config", "").await.json()["config"].clone();
    started.configure("log.level = 'debug'\nlimits.max_inflight = 5\n");
    started.write("rules.d/s.toml", &RULE.replace("rules.r", "rules.s"));

    let dry = started.reload("?dry_run=true").await;
    assert_eq!(dry.status, 200, "{dry:?}");
    let told = dry.json();
    let at = |line: u32| format!("{}:{line}", file.as_str().unwrap());
    assert_eq!(
        told,
        json!({
            "changes": [
                { "key": "limits.max_inflight", "before": 1024, "after": 5, "origin": at(3), "needs_restart": true },
                { "key": "log.level", "before": "info", "after": "debug", "origin": at(2), "needs_restart": false },
            ],
            "rules": { "added": ["s"], "changed": [], "removed": [] },
            "warnings": [],
        })
    );
    assert_eq!(started.setting("log.level").await.0, "info");
    assert_eq!(started.server.rules().stats().len(), 1);

    assert_eq!(started.reload("").await.json(), told);
    assert_eq!(started.setting("log.level").await, (json!("debug"), at(2)));
    assert_eq!(started.setting("limits.max_inflight").await, (json!(1024), "default".to_owned()));
    assert_eq!(started.server.rules().stats().len(), 2);
    // What waits for a restart is told as long as it differs.
    let again = started.reload("?dry_run=false").await.json();
    assert_eq!(again["changes"].as_array().unwrap().len(), 1, "{again}");
    assert_eq!(again["changes"][0]["key"], "limits.max_inflight");

    let audit = started.ask("admin", "GET", "/api/v1/audit", "").await.json();
    let entries = audit["entries"].as_array().unwrap();
    assert_eq!(entries.len(), 3, "{audit}");
    let (dry, done) = (&entries[2], &entries[1]);
    assert_eq!(dry["after"], json!({ "dry_run": true }));
    assert_eq!(
        (&done["operation"], &done["target"], &done["who"], &done["status"]),
        (&json!("reload"), &json!("configuration"), &json!("token admin"), &json!(200))
    );
    assert_eq!(done["before"], json!({ "changes": { "limits.max_inflight": 1024, "log.level": "info" } }));
    assert_eq!(
        done["after"],
        json!({
            "changes": { "limits.max_inflight": 5, "log.level": "debug" },
            "rules": { "added": ["s"], "changed": [], "removed": [] },
        })
    );
    started.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_reload_names_each_fault_with_its_place_and_changes_nothing() {
    let started = Started::new("", "").await;
    started.write("rules.d/s.toml", &RULE.replace("rules.r", "rules.s"));
    started.configure("limits.max_inflihgt = 5\nlimits.receive_maximum = 0\n");
    for query in ["", "?dry_run=true"] {
        let refused = started.reload(query).await;
        assert_eq!(refused.problem(), (409, "refused".to_owned()));
        let errors = refused.json()["errors"].clone();
        assert_eq!(errors.as_array().unwrap().len(), 2, "{errors}");
        let first = &errors[0];
        assert!(first["origin"].as_str().unwrap().ends_with("/tidegate.toml"), "{first}");
        assert_eq!((&first["line"], &first["column"]), (&json!(2), &json!(8)));
        assert_eq!(first["message"], "unknown key `max_inflihgt` in [limits]");
        assert_eq!(first["help"], "did you mean `max_inflight`?");
        assert_eq!(errors[1]["line"], 3);
        assert!(errors[1]["message"].as_str().unwrap().contains("between 1 and 65535"), "{errors}");
    }
    started.configure("");
    started.write("rules.d/s.toml", "[rules.s]\nsql = 'SELEC'\n[[rules.s.actions]]\nname='a'\ntype='log'\n");
    let refused = started.reload("").await;
    assert_eq!(refused.problem(), (409, "refused".to_owned()));
    let fault = &refused.json()["errors"][0];
    assert!(fault["origin"].as_str().unwrap().ends_with("rules.d/s.toml"), "{fault}");
    assert_eq!((&fault["rule"], &fault["line"]), (&json!("s"), &json!(2)));
    assert!(fault["code"].as_str().is_some_and(|code| code.starts_with('R')), "{fault}");
    assert_eq!(started.server.rules().stats().len(), 1);
    let audit = started.ask("admin", "GET", "/api/v1/audit", "").await.json();
    assert_eq!(audit["entries"][0]["status"], 409);
    started.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_administrators_see_it_and_have_it_read_again() {
    let started = Started::new("", "").await;
    for token in ["viewer", "operator"] {
        assert_eq!(started.ask(token, "GET", "/api/v1/config", "").await.problem().0, 403);
        assert_eq!(started.ask(token, "POST", "/api/v1/reload", "").await.problem().0, 403);
    }
    assert_eq!(started.ask("looks", "GET", "/api/v1/config", "").await.status, 200);
    assert_eq!(started.ask("looks", "POST", "/api/v1/reload", "").await.problem().0, 403);
    for query in ["?dry_run=maybe", "?dryrun=true"] {
        assert_eq!(started.reload(query).await.problem().0, 422, "{query}");
    }
    started.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_nothing_may_be_changed_its_owner_may_have_the_files_read_again() {
    let started = Started::new("read_only = true", "").await;
    for path in ["/api/v1/reload", "/api/v1/reload?dry_run=true"] {
        assert_eq!(
            started.ask("admin", "POST", path, "").await.problem(),
            (403, "read_only".to_owned()),
            "{path}"
        );
    }
    assert_eq!(started.by_owner("/api/v1/reload").await.unwrap()["changes"], json!([]));
    let other = started.by_owner("/api/v1/setup-tokens").await;
    assert!(
        matches!(&other, Err(AdminClientError::Refused { code, .. }) if code == "read_only"),
        "{other:?}"
    );
    started.stop().await;
}

#[tokio::test]
async fn a_gateway_that_has_no_files_says_so() {
    let running = start().await;
    for (method, path) in [("GET", "/api/v1/config"), ("POST", "/api/v1/reload")] {
        let answer = running.ask("admin", method, path, &Value::Null).await;
        assert_eq!(answer.problem(), (409, "conflict".to_owned()), "{path}");
    }
}
