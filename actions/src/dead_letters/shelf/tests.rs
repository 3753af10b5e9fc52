//! Dead letters on a real store.

use std::collections::BTreeSet;

use store::{FaultDisk, MessageId, MessageRecord, StoreOptions};

use super::*;
use crate::config::OrderBy;
use crate::delivery::ItemId;
use crate::delivery::outbox::Body;

fn open(disk: &FaultDisk) -> Arc<DurableStore> {
    let options = StoreOptions { segment_bytes: 128 * 1024, ..StoreOptions::default() };
    Arc::new(DurableStore::open_on(Arc::new(disk.clone()), options).unwrap().0)
}

fn body() -> Body<'static> {
    Body {
        order: OrderBy::Topic,
        identity: None,
        redriven_at_ms: None,
        trace: None,
        origin: b"o",
        request: b"r",
    }
}

fn letter(number: u64, cause: DropReason) -> DeadLetter {
    DeadLetter {
        item: ItemId { store: 5, epoch: 6, sequence: number },
        cause: cause.as_str().to_owned(),
        error: "no".to_owned(),
        attempts: 1,
        received_at_ms: 500,
        first_attempt_at_ms: None,
        ended_at_ms: 1_000 + i64::try_from(number).unwrap(),
        request: body().encode(),
    }
}

/// Keeps bytes as a letter, as the delivery machine does, in one frame with its message.
fn keep(store: &DurableStore, outbox: &str, number: u64, body: &[u8]) -> LetterName {
    let payload = number.to_string();
    let id = MessageId { store: 5, epoch: 6, sequence: number };
    let message = MessageRecord {
        id,
        topic: "a/b",
        payload: payload.as_bytes(),
        properties: &[1, 2],
        qos: 1,
        received_at_ms: 500,
        expires_after_ms: Some(9),
        publisher: Some("p"),
        author: &[],
    };
    let queued = Record::Queued { queue: key(outbox), id: Some(id), body };
    let mut positions = Vec::new();
    while let Err(error) = store.append_debts(&[Record::Message(message), queued], &mut positions) {
        assert!(matches!(error, StoreError::Busy { .. }), "{error}");
        std::thread::yield_now();
    }
    LetterName::new(outbox, positions[0].0)
}

fn keep_letter(store: &DurableStore, outbox: &str, letter: &DeadLetter) -> LetterName {
    let mut body = Vec::new();
    letter.encode(&mut body);
    keep(store, outbox, letter.item.sequence, &body)
}

/// Every letter that is meant, in as many scans of `max` letters as it takes.
fn names(letters: &DeadLetters, filter: &Filter, max: usize) -> Vec<String> {
    let mut names = Vec::new();
    let mut after = None;
    loop {
        let mut count = 0;
        after = letters
            .scan(filter, after.as_ref(), |found| {
                names.push(found.name.to_string());
                count += 1;
                if count < max { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })
            .unwrap();
        assert!(count <= max);
        if after.is_none() {
            return names;
        }
    }
}

#[test]
fn letters_come_by_action_and_age_and_with_their_message() {
    let store = open(&FaultDisk::default());
    let letters = DeadLetters::new(Arc::clone(&store));
    assert_eq!(names(&letters, &Filter::default(), 1), [""; 0]);
    let first = letter(1, DropReason::Refused);
    for outbox in ["b/x", "a/y", "a/x"] {
        keep_letter(&store, outbox, &first);
        keep_letter(&store, outbox, &letter(2, DropReason::Expired));
    }
    let all = ["a/x:1", "a/x:2", "a/y:1", "a/y:2", "b/x:1", "b/x:2"];
    for max in 1..=7 {
        assert_eq!(names(&letters, &Filter::default(), max), all, "in scans of {max}");
    }
    let counts: Vec<_> = letters.counts();
    assert_eq!(counts, [("a/x".to_owned(), 2), ("a/y".to_owned(), 2), ("b/x".to_owned(), 2)]);
    let found = letters.find(&"a/y:1".parse().unwrap()).unwrap().unwrap();
    assert_eq!(found.letter, Ok(first));
    let message = found.message.unwrap();
    assert_eq!((message.topic.as_str(), &message.payload[..], message.qos), ("a/b", &b"1"[..], 1));
    assert_eq!((message.publisher.as_deref(), &message.properties[..]), (Some("p"), &[1, 2][..]));
    for missing in ["a/x:3", "a/z:1", "a/x:18446744073709551615"] {
        assert_eq!(letters.find(&missing.parse().unwrap()).unwrap(), None, "{missing}");
    }
}

#[test]
fn a_filter_means_what_every_part_of_it_means() {
    let store = open(&FaultDisk::default());
    let letters = DeadLetters::new(Arc::clone(&store));
    keep_letter(&store, "a/x", &letter(1, DropReason::Refused));
    keep_letter(&store, "a/y", &letter(2, DropReason::Expired));
    keep_letter(&store, "b/x", &letter(3, DropReason::Refused));
    keep(&store, "b/x", 4, b"no letter");
    let meant = |filter: Filter| names(&letters, &filter, 2);
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(meant(Filter { rule: text("a"), ..Filter::default() }), ["a/x:1", "a/y:1"]);
    assert_eq!(meant(Filter { action: text("x"), ..Filter::default() }), ["a/x:1", "b/x:1", "b/x:2"]);
    assert_eq!(meant(Filter { rule: text("a"), action: text("x"), ..Filter::default() }), ["a/x:1"]);
    assert_eq!(meant(Filter { rule: text("c"), ..Filter::default() }), [""; 0]);
    assert_eq!(meant(Filter { cause: Some(DropReason::Refused), ..Filter::default() }), ["a/x:1", "b/x:1"]);
    // What can't be read has a cause and a time too: when its message came.
    assert_eq!(meant(Filter { cause: Some(DropReason::Unreadable), ..Filter::default() }), ["b/x:2"]);
    assert_eq!(meant(Filter { since_ms: Some(1_002), ..Filter::default() }), ["a/y:1", "b/x:1"]);
    assert_eq!(meant(Filter { until_ms: Some(1_002), ..Filter::default() }), ["a/x:1", "b/x:2"]);
    assert_eq!(
        meant(Filter { since_ms: Some(1_002), until_ms: Some(1_003), ..Filter::default() }),
        ["a/y:1"]
    );
}

#[test]
fn what_is_dropped_is_gone_and_the_others_keep_their_names() {
    let disk = FaultDisk::default();
    let store = open(&disk);
    let letters = DeadLetters::new(Arc::clone(&store));
    for number in 1..=3 {
        keep_letter(&store, "a/x", &letter(number, DropReason::Refused));
    }
    let second = "a/x:2".parse().unwrap();
    letters.drop_letter(&second).unwrap();
    assert!(matches!(letters.drop_letter(&second), Err(RedriveError::Missing { name }) if name == second));
    assert_eq!(names(&letters, &Filter::default(), 9), ["a/x:1", "a/x:3"]);
    drop((letters, store));
    // Also after a restart, and a new letter gets a new name.
    let store = open(&disk);
    let letters = DeadLetters::new(Arc::clone(&store));
    assert_eq!(keep_letter(&store, "a/x", &letter(4, DropReason::Refused)).to_string(), "a/x:4");
    assert_eq!(names(&letters, &Filter::default(), 9), ["a/x:1", "a/x:3", "a/x:4"]);
}

#[test]
fn many_are_dropped_in_bounded_steps() {
    let store = open(&FaultDisk::default());
    let letters = DeadLetters::new(Arc::clone(&store));
    let count = 2 * STEP_CHANGES_MAX as u64 + 10;
    for number in 1..=count {
        keep_letter(&store, "a/x", &letter(number, DropReason::Refused));
        keep_letter(&store, "a/y", &letter(number, DropReason::Refused));
    }
    let filter = Filter { action: Some("y".to_owned()), ..Filter::default() };
    let (mut after, mut done) = (None, Vec::new());
    loop {
        let step = letters.drop_step(&filter, after.as_ref()).unwrap();
        done.push(step.done);
        after = step.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(done, [STEP_CHANGES_MAX as u64, STEP_CHANGES_MAX as u64, 10]);
    assert_eq!(letters.counts(), [("a/x".to_owned(), count)]);
}

#[test]
fn a_scan_reads_no_more_than_a_step_may() {
    let store = open(&FaultDisk::default());
    let letters = DeadLetters::new(Arc::clone(&store));
    for number in 1..=STEP_READ_MAX as u64 + 1 {
        keep_letter(&store, "a/x", &letter(number, DropReason::Refused));
    }
    let nobody = Filter { cause: Some(DropReason::Driver), ..Filter::default() };
    let next = letters.scan(&nobody, None, |found| panic!("{found:?} isn't meant")).unwrap();
    assert_eq!(next, Some(LetterName::new("a/x", STEP_READ_MAX as u64)));
    assert_eq!(letters.scan(&nobody, next.as_ref(), |_| ControlFlow::Continue(())).unwrap(), None);
    // Few that are long end a step too.
    let long = DeadLetter { request: vec![0; STEP_BYTES_MAX / 4], ..letter(1, DropReason::Refused) };
    for _ in 0..5 {
        keep_letter(&store, "b/x", &long);
    }
    let filter = Filter { rule: Some("b".to_owned()), ..Filter::default() };
    let mut seen = BTreeSet::new();
    let next = letters.scan(&filter, None, |found| {
        seen.insert(found.name.to_string());
        ControlFlow::Continue(())
    });
    assert_eq!((next.unwrap().unwrap().position(), seen.len()), (4, 4));
}

/// Actions that are told of what arrives.
#[derive(Default)]
struct Actions {
    running: Vec<&'static str>,
    arrived: Mutex<Vec<(String, Position)>>,
}

impl Outlets for Actions {
    fn has(&self, outbox: &str) -> bool {
        self.running.contains(&outbox)
    }

    fn arrived(&self, outbox: &str, position: Position) {
        self.arrived.lock().push((outbox.to_owned(), position));
    }
}

fn actions(running: &[&'static str]) -> Actions {
    Actions { running: running.to_vec(), ..Actions::default() }
}

fn outbox(store: &DurableStore, name: &str) -> Vec<StoredDebt> {
    let mut reader = store.reader(QueueKey::Outbox { namespace: 0, name });
    let mut debts: Vec<StoredDebt> = Vec::new();
    loop {
        // A read may end before the queue does; only nothing means that nothing is left.
        let after = debts.last().map_or(Position::NOWHERE, |last| last.position);
        let more = reader.read(after, 1_000, usize::MAX).unwrap();
        if more.is_empty() {
            return debts;
        }
        debts.extend(more);
    }
}

#[test]
fn a_letter_moves_to_the_outbox_as_a_whole() {
    for seed in 0..20 {
        let disk = FaultDisk::default();
        let store = open(&disk);
        let letters = DeadLetters::new(Arc::clone(&store));
        let first = letter(1, DropReason::Refused);
        let name = keep_letter(&store, "a/x", &first);
        let kept = letters.find(&name).unwrap().unwrap().message;
        let running = actions(&["a/x"]);
        letters.redrive(&name, &running, 7_000).unwrap();
        assert_eq!(letters.find(&name).unwrap(), None);
        let items = outbox(&store, "a/x");
        assert_eq!(items.len(), 1);
        assert_eq!(*running.arrived.lock(), [("a/x".to_owned(), items[0].position)]);
        let expected = Body { identity: Some(first.item), redriven_at_ms: Some(7_000), ..body() };
        assert_eq!(Body::decode(&items[0].body), Some(expected));
        assert_eq!(items[0].message, kept, "the message goes with it");
        // The same wish once more finds nothing, and sends nothing.
        let again = letters.redrive(&name, &running, 7_000);
        assert!(matches!(again, Err(RedriveError::Missing { .. })));
        assert_eq!(outbox(&store, "a/x").len(), 1);
        // Whenever the power goes, it is in one place.
        let after = disk.power_cut(seed);
        drop((letters, store));
        let store = open(&after);
        let there = DeadLetters::new(Arc::clone(&store)).find(&name).unwrap().is_some();
        let moved = !outbox(&store, "a/x").is_empty();
        assert!(!(there && moved), "seed {seed}");
    }
}

#[test]
fn a_letter_that_cannot_be_sent_stays() {
    let store = open(&FaultDisk::default());
    let letters = DeadLetters::new(Arc::clone(&store));
    let running = actions(&["a/x"]);
    let orphan = keep_letter(&store, "a/gone", &letter(1, DropReason::Refused));
    let empty =
        keep_letter(&store, "a/x", &DeadLetter { request: Vec::new(), ..letter(2, DropReason::Refused) });
    let unreadable = keep(&store, "a/x", 3, b"no letter");
    let missing: LetterName = "a/x:9".parse().unwrap();
    let redrive = |name: &LetterName| letters.redrive(name, &running, 1);
    assert!(matches!(redrive(&orphan), Err(RedriveError::NoAction { outbox, .. }) if outbox == "a/gone"));
    assert!(matches!(redrive(&empty), Err(RedriveError::NoRequest { .. })));
    assert!(matches!(redrive(&unreadable), Err(RedriveError::NoRequest { .. })));
    assert!(matches!(redrive(&missing), Err(RedriveError::Missing { .. })));
    let good = keep_letter(&store, "a/x", &letter(4, DropReason::Refused));
    let step = letters.redrive_step(&Filter::default(), None, &running, 1).unwrap();
    assert_eq!((step.done, step.next.clone()), (1, None));
    let refused: Vec<_> = step.refused.iter().map(|(name, _)| name.clone()).collect();
    assert_eq!(refused, [orphan.clone(), empty, unreadable.clone()]);
    assert_eq!(letters.find(&good).unwrap(), None);
    assert_eq!(names(&letters, &Filter::default(), 9).len(), 3);
    assert_eq!(running.arrived.lock().len(), 1);
    // Dropping needs neither action nor request.
    letters.drop_letter(&orphan).unwrap();
    letters.drop_letter(&unreadable).unwrap();
    assert_eq!(names(&letters, &Filter::default(), 9), ["a/x:1"]);
}

#[test]
fn many_are_sent_again_in_bounded_steps_and_each_once() {
    let store = open(&FaultDisk::default());
    let letters = DeadLetters::new(Arc::clone(&store));
    let count = STEP_CHANGES_MAX as u64 + 44;
    for number in 1..=count {
        keep_letter(&store, "a/x", &letter(number, DropReason::Refused));
    }
    let running = actions(&["a/x"]);
    let before = Filter { until_ms: Some(1_000_000), ..Filter::default() };
    let step = letters.redrive_step(&before, None, &running, 1_000_000).unwrap();
    assert_eq!((step.done, step.refused.len()), (STEP_CHANGES_MAX as u64, 0));
    // One fails again at once: it isn't meant by this wish.
    keep_letter(&store, "a/x", &DeadLetter { ended_at_ms: 1_000_000, ..letter(1, DropReason::Refused) });
    let step = letters.redrive_step(&before, step.next.as_ref(), &running, 1_000_000).unwrap();
    assert_eq!((step.done, step.next), (44, None));
    assert_eq!(letters.counts(), [("a/x".to_owned(), 1)]);
    let sent: BTreeSet<u64> = outbox(&store, "a/x")
        .iter()
        .map(|item| Body::decode(&item.body).unwrap().identity.unwrap().sequence)
        .collect();
    assert_eq!(sent.len() as u64, count);
}

#[test]
fn a_full_store_sends_nothing_keeps_the_letters_and_lets_them_be_dropped() {
    let options = StoreOptions { log_bytes_max: 400_000, segment_bytes: 8192, ..StoreOptions::default() };
    let store = Arc::new(DurableStore::open_on(Arc::new(FaultDisk::default()), options).unwrap().0);
    let letters = DeadLetters::new(Arc::clone(&store));
    let request = Body { request: &[7; 4_000], ..body() }.encode();
    let mut bytes = Vec::new();
    DeadLetter { request, ..letter(1, DropReason::Refused) }.encode(&mut bytes);
    let mut count = 0;
    loop {
        let queued = Record::Queued { queue: key("a/x"), id: None, body: &bytes };
        match store.append(&[queued]) {
            Ok(_) => count += 1,
            Err(StoreError::Full { .. }) => break,
            Err(StoreError::Busy { .. }) => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    }
    let running = actions(&["a/x"]);
    let is_full = |error: &RedriveError| matches!(error, RedriveError::Store(StoreError::Full { .. }));
    assert!(is_full(&letters.redrive(&LetterName::new("a/x", 1), &running, 1).unwrap_err()));
    assert!(is_full(&letters.redrive_step(&Filter::default(), None, &running, 1).unwrap_err()));
    assert!(running.arrived.lock().is_empty());
    assert_eq!(letters.counts(), [("a/x".to_owned(), count)]);
    let (mut after, mut done) = (None, 0);
    loop {
        let step = letters.drop_step(&Filter::default(), after.as_ref()).unwrap();
        done += step.done;
        after = step.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!((done, letters.counts()), (count, Vec::new()));
}

#[test]
fn what_is_sent_instead_of_a_letter_is_there_when_the_letter_is_not_whenever_the_power_goes() {
    for seed in 0..20 {
        let disk = FaultDisk::default();
        let store = open(&disk);
        let letters = DeadLetters::new(Arc::clone(&store));
        let name = keep_letter(&store, "a/x", &letter(1, DropReason::Refused));
        assert!(store.wait_for_all());
        let id = MessageId { store: 5, epoch: 7, sequence: 9 };
        let running = actions(&["a/x"]);
        let mended = |found: &FoundLetter| {
            let old = found.message.clone().unwrap();
            let message = StoredMessage { id, payload: b"mended".to_vec(), ..old };
            Ok(Replacement { message, body: body().encode() })
        };
        letters.replace(&name, &running, mended).unwrap();
        assert_eq!(letters.find(&name).unwrap(), None);
        let owed = outbox(&store, "a/x");
        assert_eq!(*running.arrived.lock(), [("a/x".to_owned(), owed[0].position)]);
        assert_eq!((owed.len(), &owed[0].body), (1, &body().encode()));
        assert_eq!(
            owed[0].message.as_ref().map(|message| (message.id, &*message.payload)),
            Some((id, &b"mended"[..]))
        );
        let again = letters.replace(&name, &running, mended);
        assert!(matches!(again, Err(RedriveError::Missing { .. })), "once alone");
        let after = disk.power_cut(seed);
        drop((letters, store));
        let store = open(&after);
        let there = DeadLetters::new(Arc::clone(&store)).find(&name).unwrap().is_some();
        let owed = outbox(&store, "a/x");
        assert_eq!(usize::from(there) + owed.len(), 1, "seed {seed}: one of the two");
        assert!(owed.iter().all(|debt| debt.message.as_ref().unwrap().payload == b"mended"), "seed {seed}");
    }
}

#[test]
fn a_letter_for_which_nothing_else_can_be_sent_stays() {
    let store = open(&FaultDisk::default());
    let letters = DeadLetters::new(Arc::clone(&store));
    let running = actions(&["a/x"]);
    let name = keep_letter(&store, "a/x", &letter(1, DropReason::Refused));
    let orphan = keep_letter(&store, "a/gone", &letter(2, DropReason::Refused));
    let refused = letters.replace(&name, &running, |_| Err("the rule doesn't match".to_owned()));
    assert_eq!(refused.unwrap_err().to_string(), "\"a/x:1\" can't be sent again so: the rule doesn't match");
    let made = |_: &FoundLetter| panic!("nobody would send it");
    assert!(matches!(letters.replace(&orphan, &running, made), Err(RedriveError::NoAction { .. })));
    assert_eq!(names(&letters, &Filter::default(), 9), ["a/gone:1", "a/x:1"]);
    assert!(outbox(&store, "a/x").is_empty() && running.arrived.lock().is_empty());
}
