//! What is done with dead letters, with a real store behind it: what is shown, what is refused, and what the disk doesn't take.

use std::sync::{Arc, Barrier};

use actions::config::OrderBy;
use actions::dead_letters::Outlets;
use actions::delivery::outbox::Body;
use actions::{DeadLetter, DropReason, ItemId};
use parking_lot::Mutex;
use serde_json::{Value, json};
use store::{
    DurableStore, FaultDisk, MessageId, MessageRecord, Position, QueueKey, Record, Store as _, StoreOptions,
};

use super::letters::LIST_BYTES_MAX;
use super::*;

/// Actions that are told of what arrives.
#[derive(Default)]
struct Actions {
    arrived: Mutex<Vec<(String, Position)>>,
}

impl Outlets for Actions {
    fn has(&self, outbox: &str) -> bool {
        outbox == "hot/ops"
    }

    fn arrived(&self, outbox: &str, position: Position) {
        self.arrived.lock().push((outbox.to_owned(), position));
    }
}

struct Shelf {
    store: Arc<DurableStore>,
    actions: Arc<Actions>,
    letters: Arc<Letters>,
}

impl Shelf {
    fn new() -> Self {
        Self::on(&FaultDisk::default())
    }

    fn on(disk: &FaultDisk) -> Self {
        let store = DurableStore::open_on(Arc::new(disk.clone()), StoreOptions::default()).unwrap().0;
        let (store, actions) = (Arc::new(store), Arc::new(Actions::default()));
        let letters = Arc::new(Letters::new(&store, Arc::<Actions>::clone(&actions)));
        Self { store, actions, letters }
    }

    fn keep(&self, outbox: &str, number: u64, request: &[u8]) {
        keep_letter(&self.store, "sensors/1/temp", outbox, number, request);
    }

    /// Names of letters, and behind which to go on.
    fn list(&self, filter: &Filter, after: Option<&str>, limit: usize) -> (Vec<String>, Option<String>) {
        let after = after.map(|after| read_name(after).unwrap());
        let (letters, next) = self.letters.list(filter, after.as_ref(), limit).unwrap();
        let names = letters.into_iter().map(|letter| letter.name).collect();
        (names, next.map(|next| next.to_string()))
    }

    fn all(&self) -> Vec<String> {
        self.list(&Filter::default(), None, 1_000).0
    }

    fn show(&self, letter: &str) -> Value {
        json!(self.letters.show(&read_name(letter).unwrap()).unwrap())
    }

    async fn change(&self, verb: Verb, meant: Meant) -> Result<LettersDone, Problem> {
        let step = self.letters.step(verb, &meant)?;
        self.letters.safe(step.token).await?;
        Ok(step.into())
    }
}

fn named(letter: &str) -> Meant {
    Meant::Named(read_name(letter).unwrap())
}

fn of(filter: Filter) -> Meant {
    Meant::Of(filter, None)
}

/// Keeps a letter, as the delivery machine does.
pub(in crate::api) fn keep_letter(
    store: &DurableStore,
    topic: &str,
    outbox: &str,
    number: u64,
    request: &[u8],
) {
    let letter = DeadLetter {
        item: ItemId { store: 5, epoch: 6, sequence: number },
        cause: DropReason::Refused.as_str().to_owned(),
        error: "the answer was 400 Bad Request".to_owned(),
        attempts: 1,
        received_at_ms: 1_000,
        first_attempt_at_ms: Some(1_500),
        ended_at_ms: 2_000,
        request: Body {
            order: OrderBy::Publisher,
            identity: None,
            redriven_at_ms: None,
            trace: None,
            origin: &[],
            request,
        }
        .encode(),
    };
    let mut body = Vec::new();
    letter.encode(&mut body);
    let id = MessageId { store: 5, epoch: 6, sequence: number };
    // Content Type "text/plain", and the User Properties site = a and token = hush.
    let properties = b"\x03\x00\x0atext/plain\x26\x00\x04site\x00\x01a\x26\x00\x05token\x00\x04hush";
    let message = MessageRecord {
        id,
        topic,
        properties,
        payload: b"{\"t\":99}",
        qos: 1,
        received_at_ms: 1_000,
        expires_after_ms: None,
        publisher: Some("sensor-1"),
        author: &[],
    };
    let queue = QueueKey::DeadLetters { namespace: 0, name: outbox };
    store.append(&[Record::Message(message), Record::Queued { queue, id: Some(id), body: &body }]).unwrap();
}

/// A request to an HTTP server as an outbox keeps it.
fn http_request(url: &str, headers: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut put = |text: &str| {
        out.extend_from_slice(&u32::try_from(text.len()).unwrap().to_be_bytes());
        out.extend_from_slice(text.as_bytes());
    };
    // It is no part of a batch.
    for part in ["\0", "POST", url, "{\"hot\":true}"] {
        put(part);
    }
    for (name, value) in headers {
        put(name);
        put(value);
    }
    out
}

pub(in crate::api) fn plain_request() -> Vec<u8> {
    http_request("https://ops.example/alarms", &[])
}

#[tokio::test]
async fn letters_are_listed_in_pages_shown_sent_again_and_dropped() {
    let shelf = Shelf::new();
    for number in 1..=3 {
        shelf.keep("hot/ops", number, &plain_request());
    }
    shelf.keep("cold/log", 4, &plain_request());
    let everything = Filter::default();
    let all = (["cold/log:1", "hot/ops:1", "hot/ops:2", "hot/ops:3"].map(str::to_owned).to_vec(), None);
    assert_eq!(shelf.list(&everything, None, 100), all);
    let page = shelf.list(&everything, None, 3);
    assert_eq!((page.0.len(), page.1.as_deref()), (3, Some("hot/ops:2")));
    assert_eq!(shelf.list(&everything, Some("hot/ops:2"), 3), (vec!["hot/ops:3".to_owned()], None));
    let filter = Filter {
        rule: Some("hot".to_owned()),
        cause: Some(DropReason::Refused),
        since_ms: Some(2_000),
        until_ms: Some(2_001),
        ..Filter::default()
    };
    assert_eq!(shelf.list(&filter, None, 100).0.len(), 3);

    let shown = shelf.show("hot/ops:1");
    let expected = json!({
        "name": "hot/ops:1", "rule": "hot", "action": "ops", "cause": "refused",
        "error": "the answer was 400 Bad Request", "attempts": 1, "received_at_ms": 1_000,
        "first_attempt_at_ms": 1_500, "ended_at_ms": 2_000, "item": "0000000000000005.6-1",
        "topic": "sensors/1/temp", "publisher": "sensor-1", "payload_bytes": 8,
    });
    assert_eq!(shown["letter"], expected);
    assert_eq!(shown["message"]["payload"], json!({ "bytes": 8, "text": "{\"t\":99}", "cut": false }));
    assert_eq!(
        shown["request"][2],
        json!({ "name": "body", "value": { "bytes": 12, "text": "{\"hot\":true}", "cut": false } })
    );

    let one = shelf.change(Verb::Redrive, named("hot/ops:2")).await.unwrap();
    assert_eq!(json!(one), json!({ "done": 1, "refused": [], "next": null }));
    assert_eq!(shelf.actions.arrived.lock().len(), 1);
    let many = shelf.change(Verb::Redrive, of(everything)).await.unwrap();
    assert_eq!((many.done, many.refused[0].name.as_str()), (2, "cold/log:1"));
    assert!(many.refused[0].message.contains("no action \"cold/log\" runs"));
    assert_eq!(shelf.store.queue_len(QueueKey::Outbox { namespace: 0, name: "hot/ops" }), 3);
    let of_log = Filter { action: Some("log".to_owned()), ..Filter::default() };
    assert_eq!(shelf.change(Verb::Drop, of(of_log)).await.unwrap().done, 1);
    assert_eq!(shelf.all(), [""; 0]);
}

#[tokio::test]
async fn a_store_that_fails_is_told_of_at_once() {
    for verb in [Verb::Drop, Verb::Redrive] {
        let disk = FaultDisk::default();
        let shelf = Shelf::on(&disk);
        for number in 1..=2 {
            shelf.keep("hot/ops", number, &plain_request());
        }
        assert!(shelf.store.wait_for_all());
        disk.fail_sync_after(0);
        // What is done to the first is on its way when the store fails, to the second it comes after.
        for number in 1..=2 {
            let refused = shelf.change(verb, named(&format!("hot/ops:{number}"))).await.err().unwrap();
            assert_eq!(refused.kind(), Kind::Unavailable);
            assert!(!format!("{refused:?}").contains("seconds"), "it waited for the whole time: {refused:?}");
        }
        assert!(shelf.store.has_failed());
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_disk_does_not_confirm_is_not_said_to_be_done() {
    let disk = FaultDisk::default();
    let shelf = Shelf::on(&disk);
    shelf.keep("hot/ops", 1, &plain_request());
    assert_eq!(shelf.all(), ["hot/ops:1"]);
    disk.fail_sync_after(0);
    let refused = shelf.change(Verb::Drop, named("hot/ops:1")).await.err().unwrap();
    assert_eq!(refused.kind(), Kind::Unavailable);
    match shelf.change(Verb::Redrive, of(Filter::default())).await {
        Ok(done) => assert_eq!(done.done, 0),
        Err(refused) => assert_eq!(refused.kind(), Kind::Unavailable),
    }
}

#[test]
fn secrets_are_not_shown() {
    let shelf = Shelf::new();
    let headers = [
        ("authorization", "Bearer hush"),
        ("cookie", "hush"),
        ("x-api-key", "hush"),
        ("idempotency-key", "seen"),
        ("x-site", "a"),
    ];
    shelf.keep("hot/ops", 1, &http_request("https://ops.example/a?token=hush&x=1", &headers));
    let shown = shelf.show("hot/ops:1");
    assert!(!shown.to_string().contains("hush"), "{shown}");
    let values: Vec<(&str, &str)> = shown["request"]
        .as_array()
        .unwrap()
        .iter()
        .map(|part| (part["name"].as_str().unwrap(), part["value"]["text"].as_str().unwrap()))
        .collect();
    assert_eq!(
        values,
        [
            ("method", "POST"),
            ("url", "https://ops.example/a?token=***&x=1"),
            ("headers.authorization", "***"),
            ("headers.cookie", "***"),
            ("headers.x-api-key", "***"),
            ("headers.idempotency-key", "seen"),
            ("headers.x-site", "a"),
            ("body", "{\"hot\":true}"),
        ]
    );
    assert_eq!(shown["message"]["user_properties"], json!([["site", "a"], ["token", "***"]]));
    assert_eq!(shown["message"]["content_type"], "text/plain");
}

#[tokio::test]
async fn a_letter_that_cannot_be_read_is_shown_as_far_as_it_can() {
    let shelf = Shelf::new();
    shelf.keep("hot/ops", 1, b"no request");
    let queue = QueueKey::DeadLetters { namespace: 0, name: "hot/ops" };
    shelf.store.append(&[Record::Queued { queue, id: None, body: b"\xff" }]).unwrap();
    let shown = shelf.show("hot/ops:1");
    assert_eq!((&shown["request"], &shown["letter"]["cause"]), (&Value::Null, &json!("refused")));
    let shown = shelf.show("hot/ops:2");
    assert_eq!((&shown["letter"]["cause"], &shown["message"]), (&json!("unreadable"), &Value::Null));
    assert_eq!(shown["letter"]["error"], "dead letter of format 255, expected 1");
    let refused = shelf.change(Verb::Redrive, named("hot/ops:2")).await.err().unwrap();
    assert_eq!(refused.kind(), Kind::Conflict);
}

#[test]
fn a_page_is_bounded_whatever_the_letters_hold() {
    let shelf = Shelf::new();
    let topic = "t".repeat(65_535);
    for number in 1..=40 {
        keep_letter(&shelf.store, &topic, "hot/ops", number, &plain_request());
    }
    let (mut after, mut seen) = (None, 0);
    loop {
        let (letters, next) = shelf.letters.list(&Filter::default(), after.as_ref(), 1_000).unwrap();
        let bytes: usize = letters.iter().map(Letter::bytes).sum();
        assert!(bytes < LIST_BYTES_MAX + 70_000, "{bytes}");
        seen += letters.len();
        after = next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(seen, 40);
}

#[test]
fn a_letter_that_two_want_is_changed_once() {
    const LETTERS: u64 = 50;
    for verb in [Verb::Redrive, Verb::Drop] {
        let shelf = Shelf::new();
        for number in 1..=LETTERS {
            shelf.keep("hot/ops", number, &plain_request());
        }
        let together = Barrier::new(2);
        let want = || {
            let change = |number| {
                together.wait();
                match shelf.letters.step(verb, &named(&format!("hot/ops:{number}"))) {
                    Ok(step) => step.done,
                    Err(problem) => {
                        assert_eq!(problem.kind(), Kind::Missing);
                        0
                    }
                }
            };
            (1..=LETTERS).map(change).sum::<u64>()
        };
        let done: u64 = std::thread::scope(|scope| {
            let both = [scope.spawn(want), scope.spawn(want)];
            both.into_iter().map(|one| one.join().unwrap()).sum()
        });
        assert_eq!(done, LETTERS, "each letter once");
        let sent = if matches!(verb, Verb::Redrive) { LETTERS } else { 0 };
        assert_eq!(shelf.store.queue_len(QueueKey::Outbox { namespace: 0, name: "hot/ops" }), sent);
    }
}
