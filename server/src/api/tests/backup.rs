//! Backups through the interface: made, looked at, taken up elsewhere, refused.

use serde_json::{Value, json};

use super::running::{Running, start, start_with};
use super::security::{ask, bearer, with_tokens};
use super::*;
use crate::backup::{
    CasesRecord, Entry, FORMAT, Header, Part, RetainedRecord, RuleRecord, SuspensionRecord, UserRecord,
    Writer,
};
use crate::config::Durability;

const NONE: Value = Value::Null;
const HASH: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTI";

impl Running {
    /// A backup, as the token may have it.
    async fn backup(&self, token: &str, query: &str) -> Answer {
        let request = format!(
            "POST /api/v1/backup{query} HTTP/1.0\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nContent-Length: 0\r\n\r\n"
        );
        send(self.api.address().unwrap(), &request).await
    }

    async fn restore(&self, token: &str, query: &str, backup: &str) -> Answer {
        let length = backup.len();
        let request = format!(
            "POST /api/v1/restore{query} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\
             Content-Type: application/octet-stream\r\nContent-Length: {length}\r\n\r\n{backup}"
        );
        send(self.api.address().unwrap(), &request).await
    }

    async fn make_rule(&self, name: &str, rule: &Value) {
        let path = format!("/api/v1/rules/{name}");
        assert_eq!(self.change("PUT", &path, rule.clone()).await.status, 200);
    }

    async fn retain(&self, topic: &str, payload: &str) {
        let body = json!({ "topic": topic, "payload": payload, "retain": true, "qos": 1, "content_type": "text/x",
                           "user_properties": [{ "name": "a", "value": "b" }] });
        assert_eq!(self.change("POST", "/api/v1/publish", body).await.status, 204);
    }

    async fn keep_cases(&self, rule: &str, payload: &str) {
        let case = json!({ "id": "a", "rule": rule, "topic": "w/1", "payload": payload, "no_match": true });
        let path = format!("/api/v1/rules/{rule}/cases");
        assert_eq!(self.change("PUT", &path, json!({ "cases": [case] })).await.status, 204);
    }

    /// The payloads of the cases of a rule.
    async fn payloads(&self, rule: &str) -> Vec<String> {
        let kept = self.ask("admin", "GET", &format!("/api/v1/rules/{rule}/cases"), &NONE).await.json();
        let cases = kept["cases"].as_array().unwrap().iter();
        cases.map(|case| case["payload"].as_str().unwrap().to_owned()).collect()
    }

    async fn make_user(&self, name: &str) {
        let body = json!({ "name": name, "role": "admin", "password": "correct horse battery" });
        assert_eq!(self.ask("admin", "POST", "/api/v1/users", &body).await.status, 204);
    }

    /// What the gateway owns, but for the times and versions, which differ from one to another.
    async fn all(&self) -> Vec<Value> {
        let backup = self.backup("admin", "?users=true").await;
        let lines = backup.body.lines().skip(1).map(|line| serde_json::from_str::<Value>(line).unwrap());
        let mut lines: Vec<Value> = lines.filter(|line| line.get("end").is_none()).collect();
        for line in &mut lines {
            for part in line.as_object_mut().unwrap().values_mut() {
                let members = part.as_object_mut().unwrap();
                members.retain(|name, _| {
                    !["version", "author", "changed_at_ms", "at_ms", "by"].contains(&name.as_str())
                });
            }
        }
        lines.sort_by_key(Value::to_string);
        lines
    }
}

fn rule(topic: &str) -> Value {
    json!({ "sql": "SELECT t FROM 'w/+'", "actions": [{ "name": "a", "type": "republish", "topic": topic }] })
}

/// A backup of these entries.
fn backup_of(parts: &[Part], entries: &[Entry]) -> String {
    let header = Header {
        format: FORMAT,
        product: "0.0.1".into(),
        store: "ff".into(),
        made_at_ms: 1,
        parts: parts.to_vec(),
    };
    let (mut writer, mut bytes) = Writer::begin(&header).unwrap();
    entries.iter().for_each(|entry| bytes.extend(writer.entry(entry).unwrap()));
    bytes.extend(writer.end());
    String::from_utf8(bytes).unwrap()
}

fn rule_entry(name: &str, definition: Value) -> Entry {
    let (name, version, author, changed_at_ms) = (name.to_owned(), None, None, None);
    Entry::Rule(RuleRecord { name, definition, version, author, changed_at_ms })
}

fn retained(topic: &str) -> RetainedRecord {
    RetainedRecord { topic: topic.into(), payload: b"x".to_vec(), qos: 1, ..Default::default() }
}

fn part<'a>(answer: &'a Value, name: &str) -> &'a Value {
    answer["parts"].as_array().unwrap().iter().find(|part| part["part"] == name).unwrap()
}

fn counts(answer: &Value, name: &str) -> [u64; 3] {
    ["added", "changed", "removed"].map(|member| part(answer, name)[member].as_u64().unwrap())
}

#[tokio::test]
async fn what_one_gateway_owns_another_one_takes_up() {
    let from = start().await;
    from.make_rule("warm", &rule("warm")).await;
    from.retain("hall/1", "on").await;
    from.retain("hall/2", "off").await;
    from.make_user("ada").await;
    let token = json!({ "name": "ci", "role": "viewer", "scopes": ["rules:read"] });
    let made = from.ask("admin", "POST", "/api/v1/tokens", &token).await.json();
    assert_eq!(from.change("POST", "/api/v1/rules/hot/suspend", NONE).await.status, 200);
    let backup = from.backup("admin", "?users=true").await;
    assert_eq!(backup.status, 200);
    assert!(backup.head.contains("content-type: application/octet-stream"), "{backup:?}");

    let to = start().await;
    let told = to.restore("admin", "?dry_run=true", &backup.body).await.json();
    assert_eq!(counts(&told, "rules"), [1, 1, 0]);
    assert_eq!(
        part(&told, "rules")["changes"],
        json!([{ "name": "warm", "change": "added" }, { "name": "hot", "change": "suspended" }])
    );
    assert_eq!((counts(&told, "users"), counts(&told, "tokens")), ([1, 0, 0], [1, 0, 0]));
    assert_eq!(counts(&told, "retained"), [2, 0, 0]);
    assert!(to.all().await.is_empty(), "a dry run changes nothing");

    let done = to.restore("admin", "", &backup.body).await;
    assert_eq!(
        (done.status, done.json()),
        (200, {
            let mut told = told.clone();
            told["parts"][0]["changes"] = done.json()["parts"][0]["changes"].clone();
            told
        })
    );
    assert_eq!(to.all().await, from.all().await);
    let shown = to.get("/api/v1/rules/hot").await;
    assert_eq!(shown["summary"]["runs"], false);
    let secret = bearer(made["token"].as_str().unwrap());
    assert_eq!(ask(&to.api, "GET", "/api/v1/rules", &[("Authorization", &secret)], "").await.status, 200);
    let publish = json!({ "topic": "w/1", "payload": "{\"t\":50}" });
    assert_eq!(to.change("POST", "/api/v1/publish", publish).await.status, 204);
    assert_eq!(to.gateway.rules().stats_of("warm").unwrap().passed, 1, "the rule runs");

    let again = to.restore("admin", "?prune=true", &backup.body).await.json();
    for name in ["rules", "users", "tokens", "retained"] {
        assert_eq!(counts(&again, name), [0, 0, 0], "{name}: everything is so already");
    }
    let record = to.ask("admin", "GET", "/api/v1/audit", &NONE).await.json();
    let operations: Vec<&Value> = record["entries"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|entry| entry["operation"] == "restoreBackup")
        .collect();
    assert_eq!(operations.len(), 3);
    assert_eq!(operations[0]["who"], "token admin");
    assert_eq!(
        operations[1]["after"]["parts"][0],
        json!({ "part": "rules", "added": 1, "changed": 1, "removed": 0 })
    );
    assert!(!record.to_string().contains("argon2"));
}

#[tokio::test]
async fn a_backup_has_no_users_unless_they_are_asked_for_and_is_put_on_record() {
    let running = start().await;
    running.make_user("ada").await;
    let plain = running.backup("admin", "").await.body;
    assert!(!plain.contains("argon2") && !plain.contains("\"user\""), "{plain}");
    assert!(running.backup("admin", "?users=true").await.body.contains("argon2"));
    let record = running.ask("admin", "GET", "/api/v1/audit", &NONE).await.json();
    let parts: Vec<&Value> = record["entries"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|entry| entry["operation"] == "makeBackup")
        .map(|entry| &entry["after"]["parts"])
        .collect();
    assert_eq!(
        parts,
        [&json!(["rules", "cases", "retained", "users"]), &json!(["rules", "cases", "retained"])]
    );
    for token in ["viewer", "operator", "narrow"] {
        assert_eq!(running.backup(token, "").await.problem(), (403, "forbidden".to_owned()), "{token}");
        assert_eq!(
            running.restore(token, "", &plain).await.problem(),
            (403, "forbidden".to_owned()),
            "{token}"
        );
    }
}

#[tokio::test]
async fn a_token_for_backups_gets_no_hashes_and_gives_no_users() {
    let running = start().await;
    let new = json!({ "name": "nightly", "role": "admin", "scopes": ["backup:write"] });
    let made = running.ask("admin", "POST", "/api/v1/tokens", &new).await.json();
    let nightly = made["token"].as_str().unwrap();
    let backup = running.backup(nightly, "").await;
    assert_eq!(running.restore(nightly, "", &backup.body).await.status, 200);
    assert_eq!(running.backup(nightly, "?users=true").await.problem(), (403, "forbidden".to_owned()));
    let with_users = running.backup("admin", "?users=true").await.body;
    assert_eq!(running.restore(nightly, "", &with_users).await.problem(), (403, "forbidden".to_owned()));
}

#[tokio::test]
async fn pruning_removes_what_is_not_in_the_backup_of_the_parts_that_it_has() {
    let running = start().await;
    running.make_rule("kept", &rule("kept")).await;
    running.retain("kept", "1").await;
    let backup = running.backup("admin", "").await.body;
    running.make_rule("kept", &rule("other")).await;
    running.make_rule("new", &rule("new")).await;
    running.retain("kept", "2").await;
    running.retain("new", "1").await;
    running.make_user("ada").await;
    let without = running.restore("admin", "?dry_run=true", &backup).await.json();
    assert_eq!((counts(&without, "rules"), counts(&without, "retained")), ([0, 1, 0], [0, 1, 0]));
    let done = running.restore("admin", "?prune=true", &backup).await.json();
    assert_eq!((counts(&done, "rules"), counts(&done, "retained")), ([0, 1, 1], [0, 1, 1]));
    assert_eq!(
        part(&done, "retained")["changes"],
        json!([{ "name": "kept", "change": "changed" }, { "name": "new", "change": "removed" }])
    );
    let all = running.all().await;
    assert_eq!(all.len(), 3, "a rule, a message, and the user whom the backup says nothing of: {all:?}");
    assert_eq!(running.gateway.broker.retained_message("kept").unwrap().payload(), b"1");
}

#[tokio::test]
async fn cases_of_rules_go_with_the_rules() {
    let from = start().await;
    from.make_rule("warm", &rule("warm")).await;
    from.make_rule("cool", &rule("cool")).await;
    from.keep_cases("warm", "1").await;
    from.keep_cases("cool", "2").await;
    // Of a rule that a file owns.
    from.keep_cases("hot", "3").await;
    let backup = from.backup("admin", "").await.body;

    let to = start().await;
    let told = to.restore("admin", "?dry_run=true", &backup).await.json();
    assert_eq!((counts(&told, "rules"), counts(&told, "cases")), ([2, 0, 0], [3, 0, 0]));
    assert!(to.payloads("hot").await.is_empty(), "a dry run changes nothing");
    assert_eq!(to.restore("admin", "", &backup).await.status, 200);
    for (rule, payload) in [("warm", "1"), ("cool", "2"), ("hot", "3")] {
        assert_eq!(to.payloads(rule).await, [payload], "{rule}");
    }
    let again = to.restore("admin", "?prune=true", &backup).await.json();
    assert_eq!(counts(&again, "cases"), [0, 0, 0]);

    // Others since: of one that was, of one that had none in the backup, and of a rule that goes.
    to.keep_cases("hot", "4").await;
    to.make_rule("new", &rule("new")).await;
    to.keep_cases("new", "5").await;
    let done = to.restore("admin", "?prune=true", &backup).await.json();
    assert_eq!((counts(&done, "rules"), counts(&done, "cases")), ([0, 0, 1], [0, 1, 0]));
    assert_eq!(to.payloads("hot").await, ["3"]);
    to.make_rule("new", &rule("new")).await;
    assert!(to.payloads("new").await.is_empty(), "they went with their rule");

    let only = |name: &str, payload: &str| {
        let case = json!({ "id": "a", "rule": name, "topic": "w/1", "payload": payload, "no_match": true });
        Entry::Cases(CasesRecord { rule: name.to_owned(), cases: vec![case] })
    };
    let other = backup_of(&[Part::Cases], &[only("hot", "6"), only("nobody", "7")]);
    let done = to.restore("admin", "?prune=true", &other).await.json();
    assert_eq!(
        part(&done, "cases")["changes"],
        json!([{ "name": "hot", "change": "changed" }, { "name": "cool", "change": "removed" },
               { "name": "warm", "change": "removed" }])
    );
    assert!(done["warnings"].to_string().contains("nobody"), "{done}");
    assert_eq!(to.payloads("hot").await, ["6"]);
    assert!(to.payloads("warm").await.is_empty());
    let foreign = CasesRecord { rule: "hot".into(), cases: vec![json!({ "id": "a", "rule": "warm" })] };
    for (entry, why) in [
        (Entry::Cases(foreign), "cases[0].rule"),
        (Entry::Cases(CasesRecord { rule: "../x".into(), cases: Vec::new() }), "no rule has such a name"),
    ] {
        let answer = to.restore("admin", "", &backup_of(&[Part::Cases], &[entry])).await;
        assert!(answer.problem().0 == 422 && answer.body.contains(why), "{answer:?}");
    }
    assert_eq!(to.payloads("hot").await, ["6"]);
}

#[tokio::test]
async fn nobody_hears_of_what_is_restored() {
    let running = start().await;
    running
        .make_rule("all", &json!({ "sql": "SELECT * FROM '#'", "actions": [{ "name": "a", "type": "log" }] }))
        .await;
    let backup = backup_of(&[Part::Retained], &[Entry::Retained(retained("s/1"))]);
    let mut watch = running.gateway.broker.watch("#", 1_000);
    assert_eq!(running.restore("admin", "", &backup).await.status, 200);
    assert_eq!(running.gateway.rules().stats_of("all").unwrap().passed, 0);
    running.retain("last", "x").await;
    assert_eq!(watch.next().await.unwrap().topic(), "last");
}

#[tokio::test]
async fn what_is_refused_changes_nothing() {
    let running = start().await;
    running.make_rule("warm", &rule("warm")).await;
    running.make_user("ada").await;
    let before = running.all().await;
    let good = Entry::Retained(retained("new"));
    let user = |name: &str, password_hash: &str| {
        let (name, password_hash) = (name.to_owned(), password_hash.to_owned());
        Entry::User(UserRecord { name, role: Role::Viewer, password_hash, created_at_ms: 0 })
    };
    let message = |change: fn(&mut RetainedRecord)| {
        let mut message = retained("m");
        change(&mut message);
        Entry::Retained(message)
    };
    let expected: [(&[Entry], u16, &str); 16] = [
        (&[rule_entry("new", json!({ "sql": "SELEKT" }))], 422, "new"),
        (&[rule_entry("new", json!(7))], 422, "new"),
        (&[rule_entry("a b", rule("x"))], 422, "a b"),
        (&[rule_entry("hot", rule("x"))], 409, "r.toml"),
        (&[rule_entry("new", rule("x")), rule_entry("new", rule("y"))], 422, "twice"),
        (&[user("bob", "canary")], 422, "no Argon2id hash"),
        (&[user("../x/y", HASH)], 422, "no name of a user"),
        (&[user("bob", HASH), user("bob", HASH)], 422, "twice"),
        (&[message(|m| m.topic = "a/#".into())], 422, "a/#"),
        (&[message(|m| m.topic = "$SYS/x".into())], 422, "$SYS/x"),
        (&[message(|m| m.payload.clear())], 422, "\"m\""),
        (&[message(|m| m.qos = 3)], 422, "qos: expected 0, 1 or 2"),
        (&[message(|m| m.payload = vec![0; 4 << 20])], 413, "longer than the limit"),
        (&[message(|m| m.payload = vec![0; (1 << 20) + 1])], 422, "\"m\""),
        (&[message(|m| m.content_type = Some("\0".into()))], 422, "\"m\""),
        (&[message(|_| ()), message(|_| ())], 422, "twice"),
    ];
    let parts = [Part::Rules, Part::Users, Part::Retained];
    for (entries, status, why) in expected {
        let backup = backup_of(&parts, &[std::slice::from_ref(&good), entries].concat());
        for query in ["?dry_run=true", "", "?prune=true"] {
            let answer = running.restore("admin", query, &backup).await;
            let (got, _) = answer.problem();
            let said = answer.body.replace("\\\"", "\"");
            assert!(got == status && said.contains(why), "{why} {query}: {answer:?}");
            assert!(!answer.body.contains("canary"), "{answer:?}");
        }
    }
    let whole = backup_of(&parts, &[good]);
    let cut = whole.lines().next().unwrap().to_owned() + "\n";
    let newer = whole.replace("\"tidegate_backup\":1", "\"tidegate_backup\":2");
    let damaged = whole.replace("new", "old");
    for (backup, why) in
        [("", "no backup"), (&*cut, "cut off"), (&*newer, "format 2"), (&*damaged, "damaged")]
    {
        let answer = running.restore("admin", "", backup).await;
        assert!(answer.problem().0 == 422 && answer.body.contains(why), "{answer:?}");
    }
    let as_json = running.ask("admin", "POST", "/api/v1/restore", &json!({})).await;
    assert_eq!(as_json.problem(), (415, "media_type".to_owned()));
    let unknown = running.restore("admin", "?dryrun=true", &whole).await;
    assert_eq!(unknown.problem(), (422, "invalid".to_owned()));
    assert_eq!(running.all().await, before);
}

#[tokio::test]
async fn it_is_there_after_a_restart_and_nothing_of_the_upload_is() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = crate::config::Config {
        data_dir: Some(folder.path().join("data")),
        store: crate::config::Store { durability: Durability::Commit, ..Default::default() },
        ..Default::default()
    };
    let backup = backup_of(
        &[Part::Rules, Part::Retained],
        &[
            rule_entry("warm", rule("warm")),
            Entry::Suspended(SuspensionRecord { rule: "gone".into(), by: "ada".into(), at_ms: 1 }),
            Entry::Retained(retained("hall/1")),
            Entry::Retained(RetainedRecord { expires_at_ms: Some(1), ..retained("old") }),
        ],
    );
    let running =
        start_with(with_tokens(), Storage::open(&config, &crate::config::Environment::default()).unwrap())
            .await;
    let done = running.restore("admin", "", &backup).await.json();
    assert_eq!(counts(&done, "retained"), [1, 0, 0]);
    let warnings = done["warnings"].to_string();
    assert!(warnings.contains("gone") && warnings.contains("1 Retained Messages have expired"), "{warnings}");
    let left = std::fs::read_dir(running.folder()).unwrap();
    assert!(!left.flatten().any(|entry| entry.file_name().to_string_lossy().ends_with(".part")));
    // As the power would leave it now.
    let (was, is) = (folder.path().join("data"), folder.path().join("is"));
    copy_folder(&was, &is);
    config.data_dir = Some(is);
    let storage = Storage::open(&config, &crate::config::Environment::default()).unwrap();
    let running = start_with(with_tokens(), storage.clone()).await;
    running.gateway.broker.restore(Arc::clone(storage.durable().unwrap())).await.unwrap();
    assert_eq!(running.gateway.broker.retained_message("hall/1").unwrap().payload(), b"x");
    assert!(running.gateway.rules().stats_of("warm").is_some());
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

#[tokio::test]
async fn one_backup_at_a_time() {
    let running = start().await;
    let mut held = TcpStream::connect(running.api.address().unwrap()).await.unwrap();
    let request = "POST /api/v1/restore HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer admin\r\n\
                   Content-Type: application/octet-stream\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n";
    held.write_all(request.as_bytes()).await.unwrap();
    let mut first = [0; 12];
    // The body is asked for once the turn is taken.
    held.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 100");
    assert_eq!(running.backup("admin", "").await.problem(), (503, "unavailable".to_owned()));
    held.write_all(b"no backup").await.unwrap();
    let mut rest = [0; 64];
    held.read_exact(&mut rest).await.unwrap();
    drop(held);
    assert_eq!(running.backup("admin", "").await.status, 200);
}
