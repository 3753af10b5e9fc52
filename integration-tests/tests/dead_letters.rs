//! What an HTTP server refuses: kept, looked at, sent again, dropped; also over a crash.

use std::time::Instant;

use integration_tests::{Broker, BrokerBuilder, Client, HttpReceiver, PATIENCE, ReceivedRequest, Version};

fn broker(receiver: &HttpReceiver) -> BrokerBuilder {
    let rule = format!(
        r#"
[rules.overheat]
sql = "SELECT temperature AS t FROM 'sensors/#'"

[[rules.overheat.actions]]
name = "ops"
type = "http"
url = "http://{}/alarms/${{topic(2)}}"
body = "${{output()}}"
headers = {{ authorization = "Bearer hush", "x-site" = "north" }}
"#,
        receiver.address()
    );
    Broker::builder().section("[store]\ndurability = \"commit\"\n").rule_file("overheat", &rule)
}

#[track_caller]
fn letters(broker: &Broker, arguments: &[&str], exit: i32) -> String {
    let (code, text) = broker.command(&[&["dead-letters"], arguments].concat());
    assert_eq!(code, Some(exit), "{arguments:?}: {text}");
    text
}

/// Waits until so many letters are listed, and returns the list.
#[track_caller]
fn listed(broker: &Broker, count: usize) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let text = letters(broker, &["list"], 0);
        let found = text.lines().filter(|line| line.starts_with("overheat/ops:")).count();
        if found == count {
            return text;
        }
        assert!(Instant::now() < deadline, "{count} dead letters never came: {text}");
    }
}

#[expect(clippy::unwrap_used, reason = "a test may fail where it stands")]
#[track_caller]
fn key(request: &ReceivedRequest) -> String {
    request.header("idempotency-key").unwrap().to_owned()
}

#[test]
fn a_refused_request_is_kept_shown_and_sent_again_under_its_key() {
    let receiver = HttpReceiver::start();
    let broker = broker(&receiver).start();
    let mut publisher = Client::connect(&broker, Version::V5, "sensor-1");
    publisher.publish_acknowledged("sensors/hall", r#"{"temperature":71}"#);
    let first = receiver.next_request();
    let (first_key, body) = (key(&first), first.text().to_owned());
    first.answer("400 Bad Request", &[]);
    let list = listed(&broker, 1);
    let line = list.lines().last().unwrap();
    assert!(line.contains("overheat/ops:1  refused  1 ") && line.contains("  sensors/hall  "), "{list}");
    let page = letters(&broker, &["show", "overheat/ops:1"], 0);
    for shown in ["sensor-1", r#"{"temperature":71}"#, r#"{"t":71}"#, "/alarms/hall", "north", "***"] {
        assert!(page.contains(shown), "{shown}: {page}");
    }
    assert!(!page.contains("hush"), "{page}");
    // The far side refuses it once more: another letter, the same key.
    assert!(letters(&broker, &["redrive", "overheat/ops:1"], 0).contains("1 dead letter sent again"));
    let second = receiver.next_request();
    assert_eq!((key(&second), second.text()), (first_key.clone(), body.as_str()));
    second.answer("400 Bad Request", &[]);
    assert!(listed(&broker, 1).contains("overheat/ops:2  refused"));
    // Then it is repaired.
    assert!(letters(&broker, &["redrive", "--rule", "overheat"], 0).contains("1 dead letter sent again"));
    let third = receiver.next_request();
    assert_eq!((key(&third), third.text()), (first_key, body.as_str()));
    assert_eq!(
        third.header("authorization"),
        Some("Bearer hush"),
        "hidden from readers, not from the far side"
    );
    third.answer("204 No Content", &[]);
    assert!(letters(&broker, &["list"], 0).contains("no dead letters"));
    letters(&broker, &["redrive", "overheat/ops:2"], 5);
    broker.stop();
}

#[test]
fn letters_outlive_a_crash_and_are_dropped_when_told() {
    let receiver = HttpReceiver::start();
    let folder = std::env::temp_dir().join(format!("tidegate-letters-{}", std::process::id()));
    drop(std::fs::remove_dir_all(&folder));
    std::fs::create_dir(&folder).unwrap();
    let first = broker(&receiver).in_folder(&folder).start();
    let mut publisher = Client::connect(&first, Version::V5, "sensor-1");
    let mut keys = Vec::new();
    for temperature in 71..=73 {
        publisher.publish_acknowledged("sensors/hall", &format!(r#"{{"temperature":{temperature}}}"#));
        let request = receiver.next_request();
        keys.push(key(&request));
        request.answer("422 Unprocessable Content", &[]);
    }
    listed(&first, 3);
    // What was answered to an administrator is on disk, even when the end comes at once.
    assert!(letters(&first, &["drop", "overheat/ops:2"], 0).contains("1 dead letter dropped"));
    first.kill_9().unwrap();
    assert!(folder.join("data/admin.sock").exists(), "left over, and no hindrance");
    let second = broker(&receiver).in_folder(&folder).start();
    let list = listed(&second, 2);
    assert!(list.contains("overheat/ops:1 ") && list.contains("overheat/ops:3 "), "{list}");
    letters(&second, &["redrive", "overheat/ops:3"], 0);
    let again = receiver.next_request();
    assert_eq!(key(&again), keys[2], "the key of before the crash");
    again.answer("200 OK", &[]);
    assert!(letters(&second, &["drop", "--all"], 0).contains("1 dead letter dropped"));
    assert!(letters(&second, &["list"], 0).contains("no dead letters"));
    second.adds_up();
    second.stop();
    assert!(!folder.join("data/admin.sock").exists());
    std::fs::remove_dir_all(&folder).unwrap();
}
