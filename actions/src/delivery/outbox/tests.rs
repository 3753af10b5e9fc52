//! The outbox on a real store, with power cuts, and what is known of a queue on disk against random histories.

use std::collections::{BTreeSet, HashMap};

use proptest::prelude::*;
use store::{FaultDisk, MessageId, MessageRecord, StoreOptions, StoredMessage};

use super::super::burial::{Aftermath, Buried, Ended, Ending, Endings, Fate, Heard};
use super::super::{
    AnswerClass, BatchPolicy, Control, Delivery, DeliveryError, DropReason, Envelope, Outgoing, Place, Sink,
    Snapshot, Start,
};
use super::*;
use crate::config::{DeadLettersConfig, DeliveryConfig, Overflow, QueueConfig, RetryConfig};
use crate::dead_letters::DeadLetter;

mod control;

const NAME: &str = "rule/action";

/// Requests that are under way at a time.
const CONCURRENCY: usize = 4;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Note {
    publisher: u64,
    number: u64,
}

impl QueuedRequest for Note {
    fn bytes(&self) -> usize {
        100
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.publisher.to_be_bytes());
        out.extend_from_slice(&self.number.to_be_bytes());
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let ([publisher, number], []) = bytes.as_chunks::<8>() else { return None };
        Some(Self { publisher: u64::from_be_bytes(*publisher), number: u64::from_be_bytes(*number) })
    }
}

/// A far side that is there or isn't, and keeps what it was sent.
#[derive(Debug, Default)]
struct FarSide {
    is_there: std::sync::atomic::AtomicBool,
    refuses: std::sync::atomic::AtomicBool,
    seen: Mutex<Vec<(ItemId, Note)>>,
    /// Whether each of them was marked as replayed.
    replayed: Mutex<Vec<bool>>,
    /// A publisher whose notes are answered "try again".
    stuck: Mutex<Option<u64>>,
}

struct NoteSink(Arc<FarSide>);

impl Sink for NoteSink {
    type Request = Note;

    fn batch_policy(&self) -> BatchPolicy {
        BatchPolicy::SINGLE
    }

    async fn deliver(&self, batch: &[Arc<Envelope<Note>>]) -> Vec<Result<(), DeliveryError>> {
        tokio::task::yield_now().await;
        if !self.0.is_there.load(std::sync::atomic::Ordering::SeqCst) {
            return batch
                .iter()
                .map(|_| Err(DeliveryError::Unreachable { cause: "off".to_owned() }))
                .collect();
        }
        if self.0.refuses.load(std::sync::atomic::Ordering::SeqCst) {
            let no = || DeliveryError::Answered {
                status: 400,
                class: AnswerClass::Reject,
                retry_after: None,
                excerpt: "no".to_owned(),
            };
            return batch.iter().map(|_| Err(no())).collect();
        }
        let stuck = *self.0.stuck.lock();
        if batch.iter().any(|item| Some(item.request.publisher) == stuck) {
            return batch.iter().map(|_| Err(DeliveryError::TimedOut { after: Duration::ZERO })).collect();
        }
        self.0.replayed.lock().extend(batch.iter().map(|item| item.replayed.is_some()));
        self.0.seen.lock().extend(batch.iter().map(|item| (item.id, item.request.clone())));
        batch.iter().map(|_| Ok(())).collect()
    }
}

impl FarSide {
    fn new(is_there: bool) -> Arc<Self> {
        Arc::new(Self { is_there: is_there.into(), ..Self::default() })
    }

    fn appear(&self) {
        self.is_there.store(true, std::sync::atomic::Ordering::SeqCst);
    }

    /// Fails unless each publisher's notes arrived in order, a repetition aside, and all of `expected` did.
    #[track_caller]
    fn assert_seen(&self, expected: impl IntoIterator<Item = (u64, u64)>) {
        let mut numbers: HashMap<u64, Vec<u64>> = HashMap::new();
        for (_, note) in self.seen.lock().iter() {
            numbers.entry(note.publisher).or_default().push(note.number);
        }
        for (publisher, number) in expected {
            assert!(
                numbers.get(&publisher).is_some_and(|seen| seen.contains(&number)),
                "{number} of {publisher} is lost: {numbers:?}"
            );
        }
        for (publisher, seen) in numbers {
            assert!(seen.is_sorted(), "{publisher}: {seen:?}");
        }
    }
}

fn open(disk: &FaultDisk) -> Arc<DurableStore> {
    let options = StoreOptions { segment_bytes: 128 * 1024, ..StoreOptions::default() };
    Arc::new(DurableStore::open_on(Arc::new(disk.clone()), options).unwrap().0)
}

fn start(store: &Arc<DurableStore>, far: &Arc<FarSide>) -> (Delivery<NoteSink>, RandomState) {
    start_draining(store, far, Drain::OldestFirst)
}

fn start_draining(
    store: &Arc<DurableStore>,
    far: &Arc<FarSide>,
    drain: Drain,
) -> (Delivery<NoteSink>, RandomState) {
    let hasher = RandomState::new();
    let config = DeliveryConfig {
        queue: QueueConfig { drain, ..QueueConfig::default() },
        retry: RetryConfig {
            initial_backoff: Duration::from_millis(1),
            max_backoff: Duration::from_millis(2),
            ..RetryConfig::default()
        },
        concurrency: CONCURRENCY,
        max_per_second: None,
    };
    let outbox = Outbox::new(Arc::clone(store), NAME, hasher.clone());
    (Delivery::spawn_on(NAME, NoteSink(Arc::clone(far)), config, 1, Some(outbox), Start::Sending), hasher)
}

/// Appends an item as the broker does: in one frame with its message.
fn append(store: &DurableStore, publisher: u64, number: u64, body: &[u8]) -> (Position, store::CommitToken) {
    let id = MessageId { store: 1, epoch: 1, sequence: number };
    let client = publisher.to_string();
    let message = MessageRecord {
        id,
        topic: "t",
        payload: b"p",
        received_at_ms: wall_clock_ms(),
        publisher: Some(&client),
        ..MessageRecord::default()
    };
    let queue = QueueKey::Outbox { namespace: 0, name: NAME };
    let mut positions = Vec::new();
    let token = store
        .append_debts(
            &[Record::Message(message), Record::Queued { queue, id: Some(id), body }],
            &mut positions,
        )
        .unwrap();
    (positions[0], token)
}

/// The same, and tells the queue of it.
fn publish(
    store: &DurableStore,
    (delivery, hasher): &(Delivery<NoteSink>, RandomState),
    publisher: u64,
    number: u64,
) -> store::CommitToken {
    let note = Note { publisher, number };
    let (position, token) =
        append(store, publisher, number, &encode(OrderBy::Publisher, b"origin", &note, None));
    let id = ItemId { store: 0, epoch: 0, sequence: 0 };
    let key = hasher.hash_one(publisher.to_string().as_str());
    delivery.placed(position, Outgoing::new(id, Some(key), note));
    token
}

async fn settle(delivery: &Delivery<NoteSink>) -> Snapshot {
    loop {
        let snapshot = delivery.snapshot();
        assert!(snapshot.is_conserved(), "{snapshot:?}");
        if snapshot.queued == 0 && snapshot.in_flight == 0 {
            return snapshot;
        }
        tokio::task::yield_now().await;
    }
}

async fn committed(store: &DurableStore, token: store::CommitToken) {
    while store.committed() < token {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_backlog_stays_on_disk_and_drains_in_order() {
    let (disk, far) = (FaultDisk::default(), FarSide::new(false));
    let store = open(&disk);
    let running = start(&store, &far);
    let notes: Vec<(u64, u64)> = (0..5_000).map(|number| (number % 7, number)).collect();
    for (publisher, number) in &notes {
        publish(&store, &running, *publisher, *number);
        let snapshot = running.0.snapshot();
        assert!(snapshot.is_conserved(), "{snapshot:?}");
        assert!(snapshot.bytes <= (HEAD_ITEMS_MAX + READ_ITEMS_MAX) as u64 * 100, "{snapshot:?}");
        if number % 64 == 0 {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(running.0.snapshot().queued + running.0.snapshot().in_flight, 5_000);
    far.appear();
    let snapshot = settle(&running.0).await;
    assert_eq!((snapshot.received, snapshot.delivered), (5_000, 5_000));
    far.assert_seen(notes);
    assert_eq!(far.seen.lock().len(), 5_000, "each once");
    assert_eq!(store.queue_len(QueueKey::Outbox { namespace: 0, name: NAME }), 0);
}

#[tokio::test]
async fn what_comes_now_goes_first_if_it_is_to() {
    let (disk, far) = (FaultDisk::default(), FarSide::new(false));
    let store = open(&disk);
    let running = start(&store, &far);
    let old: Vec<(u64, u64)> = (0..5_000).map(|number| (number % 7, number)).collect();
    for (publisher, number) in &old {
        publish(&store, &running, *publisher, *number);
        if number % 64 == 0 {
            tokio::task::yield_now().await;
        }
    }
    drop(running);
    let running = start_draining(&store, &far, Drain::LiveFirst);
    // The head is there first; nobody takes it yet.
    while running.0.snapshot().bytes == 0 {
        tokio::task::yield_now().await;
    }
    let live: Vec<(u64, u64)> = (0..500).map(|number| (100 + number % 5, number)).collect();
    for (publisher, number) in &live {
        publish(&store, &running, *publisher, *number);
        assert!(running.0.snapshot().is_conserved());
    }
    far.appear();
    let snapshot = settle(&running.0).await;
    assert_eq!((snapshot.queued_at_start, snapshot.received, snapshot.delivered), (5_000, 500, 5_500));
    let seen: Vec<u64> = far.seen.lock().iter().map(|(_, note)| note.publisher).collect();
    assert_eq!(seen.len(), 5_500, "each once");
    // What was tried while nobody was there may be in front.
    assert!(seen.iter().take(510).filter(|publisher| **publisher >= 100).count() >= 500);
    far.assert_seen(old.into_iter().chain(live));
}

#[tokio::test]
async fn what_comes_at_the_end_of_an_outage_goes_before_what_came_in_it() {
    let (disk, far) = (FaultDisk::default(), FarSide::new(false));
    let store = open(&disk);
    let running = start_draining(&store, &far, Drain::LiveFirst);
    let old: Vec<(u64, u64)> = (0..6_000).map(|number| (number % 7, number)).collect();
    let live: Vec<(u64, u64)> = (0..500).map(|number| (100 + number % 5, number)).collect();
    for (publisher, number) in old.iter().chain(&live) {
        publish(&store, &running, *publisher, *number);
        let snapshot = running.0.snapshot();
        assert!(snapshot.is_conserved(), "{snapshot:?}");
        if number % 64 == 0 {
            tokio::task::yield_now().await;
        }
    }
    far.appear();
    let snapshot = settle(&running.0).await;
    assert_eq!((snapshot.received, snapshot.delivered), (6_500, 6_500));
    let seen: Vec<(u64, u64)> =
        far.seen.lock().iter().map(|(_, note)| (note.publisher, note.number)).collect();
    let each: BTreeSet<_> = seen.iter().copied().collect();
    assert_eq!((seen.len(), each.len()), (6_500, 6_500), "each once");
    let last = seen.iter().rposition(|(publisher, _)| *publisher >= 100).unwrap();
    // What was being tried when it came can't give way.
    assert!(last < 2 * super::HEAD_ITEMS_MAX + CONCURRENCY, "{last}: behind what came in the outage");
    // Each publisher's notes come in order: first those that stayed in memory, then those from the disk.
    for publisher in (0..7).chain(100..105) {
        let numbers: Vec<u64> =
            seen.iter().filter(|(of, _)| *of == publisher).map(|(_, number)| *number).collect();
        let starts_over = numbers.windows(2).filter(|pair| pair[0] > pair[1]).count();
        assert_eq!(starts_over, usize::from(publisher < 100), "{publisher}: {numbers:?}");
    }
}

#[tokio::test]
async fn what_was_acknowledged_outlives_a_power_cut_with_its_identity() {
    for seed in 0..20 {
        let (disk, far) = (FaultDisk::default(), FarSide::new(seed % 2 == 0));
        let store = open(&disk);
        let running = start(&store, &far);
        let mut safe = Vec::new();
        for number in 0..200 {
            let token = publish(&store, &running, number % 3, number);
            if number == 150 {
                committed(&store, token).await;
                safe = (0..=150).map(|number| (number % 3, number)).collect();
            }
            if number % 16 == 0 {
                tokio::task::yield_now().await;
            }
        }
        // The power goes between a confirmation and the record of it, among other places.
        let before: Vec<_> = far.seen.lock().clone();
        let after = disk.power_cut(seed);
        drop(running);
        drop(store);
        let far = FarSide::new(true);
        let store = open(&after);
        let running = start(&store, &far);
        let snapshot = settle(&running.0).await;
        assert_eq!((snapshot.received, snapshot.queued_at_start), (0, snapshot.delivered));
        let again = far.seen.lock().clone();
        for (id, note) in &again {
            assert_eq!(id.epoch, 1, "the epoch that it was written in");
            let same = before.iter().find(|(_, other)| other == note);
            assert!(same.is_none_or(|(other, _)| other == id), "{note:?} has another identity");
        }
        // Together both far sides have it all, each in order.
        far.assert_seen([]);
        let all = FarSide::new(true);
        all.seen.lock().extend(before.into_iter().chain(again));
        for note in safe {
            assert!(
                all.seen.lock().iter().any(|(_, seen)| (seen.publisher, seen.number) == note),
                "{note:?} is lost, seed {seed}"
            );
        }
    }
}

#[tokio::test]
async fn new_items_stand_in_line_behind_those_of_the_last_run() {
    let disk = FaultDisk::default();
    {
        let store = open(&disk);
        for number in 0..2_000 {
            append(&store, 1, number, &encode(OrderBy::Publisher, &[], &Note { publisher: 1, number }, None));
        }
    }
    let (store, far) = (open(&disk), FarSide::new(true));
    let running = start(&store, &far);
    for number in 2_000..2_500 {
        publish(&store, &running, 1, number);
    }
    let snapshot = settle(&running.0).await;
    let Snapshot { queued_at_start, received, delivered, attempts, .. } = snapshot;
    assert_eq!((queued_at_start, received, delivered, attempts), (2_000, 500, 2_500, 2_500));
    far.assert_seen((0..2_500).map(|number| (1, number)));
    let replayed = far.replayed.lock().clone();
    let marked: Vec<bool> = far.seen.lock().iter().map(|(id, _)| id.epoch == 1).collect();
    assert_eq!(replayed, marked, "those of the last run, and no others");
    let epochs: Vec<u32> = far.seen.lock().iter().map(|(id, _)| id.epoch).collect();
    assert_eq!(epochs.iter().filter(|epoch| **epoch == 1).count(), 2_000);
}

#[tokio::test]
async fn an_orderly_stop_leaves_the_rest_where_it_is() {
    let (disk, far) = (FaultDisk::default(), FarSide::new(false));
    let store = open(&disk);
    let running = start(&store, &far);
    for number in 0..10 {
        publish(&store, &running, 1, number);
    }
    running.0.shutdown(Duration::ZERO).await;
    publish(&store, &running, 1, 10);
    let snapshot = running.0.snapshot();
    assert!(snapshot.is_conserved());
    assert_eq!((snapshot.queued, snapshot.dropped_total()), (11, 0));
    assert_eq!(store.queue_len(QueueKey::Outbox { namespace: 0, name: NAME }), 11);
}

/// A stop with an hour's grace that nobody has to wait for.
async fn stop_with_time_left(delivery: &Delivery<NoteSink>) -> Snapshot {
    let stopped =
        tokio::time::timeout(Duration::from_secs(60), delivery.shutdown(Duration::from_secs(3_600)));
    stopped.await.expect("it waits for nobody");
    let snapshot = delivery.snapshot();
    assert!(snapshot.is_conserved(), "{snapshot:?}");
    snapshot
}

#[tokio::test]
async fn an_orderly_stop_does_not_wait_for_a_far_side_that_is_away() {
    let (disk, far) = (FaultDisk::default(), FarSide::new(false));
    let store = open(&disk);
    let running = start(&store, &far);
    for number in 0..5_000 {
        publish(&store, &running, number % 7, number);
    }
    let snapshot = stop_with_time_left(&running.0).await;
    assert_eq!((snapshot.queued, snapshot.delivered, snapshot.dropped_total()), (5_000, 0, 0));
    assert_eq!(store.queue_len(QueueKey::Outbox { namespace: 0, name: NAME }), 5_000);
    far.appear();
    let snapshot = settle(&start(&store, &far).0).await;
    assert_eq!(snapshot.delivered, 5_000, "the next start goes on from there");
    far.assert_seen((0..5_000).map(|number| (number % 7, number)));
}

#[tokio::test]
async fn an_orderly_stop_sends_what_is_at_hand_to_a_far_side_that_is_there() {
    let (disk, far) = (FaultDisk::default(), FarSide::new(true));
    let store = open(&disk);
    let running = start(&store, &far);
    // None of them has left: the worker has had no turn yet.
    for number in 0..100 {
        publish(&store, &running, number % 7, number);
    }
    let snapshot = stop_with_time_left(&running.0).await;
    assert_eq!((snapshot.queued, snapshot.delivered), (0, 100));
    // One publisher's trouble is no reason to wait either.
    *far.stuck.lock() = Some(0);
    let running = start(&store, &far);
    for number in 100..200 {
        publish(&store, &running, number % 7, number);
    }
    let snapshot = stop_with_time_left(&running.0).await;
    let of_stuck = (100..200).filter(|number| number % 7 == 0).count() as u64;
    assert_eq!(snapshot.queued, of_stuck);
    assert_eq!(snapshot.delivered, 100 - of_stuck);
}

#[tokio::test]
async fn a_body_that_is_no_request_ends_alone() {
    let disk = FaultDisk::default();
    {
        let store = open(&disk);
        let good = encode(OrderBy::Publisher, &[], &Note { publisher: 1, number: 1 }, None);
        for body in
            [&[][..], &[VERSION], &[VERSION, 9], &[VERSION + 1, 1], &[VERSION, 1, 0, 0, 0, 0, 7], &good]
        {
            append(&store, 1, 1, body);
        }
    }
    let (store, far) = (open(&disk), FarSide::new(true));
    let running = start(&store, &far);
    let snapshot = settle(&running.0).await;
    assert_eq!((snapshot.delivered, snapshot.dead_lettered_for(DropReason::Unreadable)), (1, 5));
    assert_eq!(store.queue_len(QueueKey::Outbox { namespace: 0, name: NAME }), 0);
    let letters = letters(&store);
    assert_eq!(letters.len(), 5);
    for (letter, message) in letters {
        assert_eq!((letter.cause.as_str(), message.topic.as_str()), ("unreadable", "t"));
    }
}

#[tokio::test]
async fn a_key_that_is_held_up_does_not_starve_the_others() {
    let (disk, far) = (FaultDisk::default(), FarSide::new(true));
    *far.stuck.lock() = Some(0);
    let store = open(&disk);
    for number in 0..3_000 {
        append(&store, 0, number, &encode(OrderBy::Publisher, &[], &Note { publisher: 0, number }, None));
    }
    for number in 0..10 {
        append(&store, 1, number, &encode(OrderBy::Publisher, &[], &Note { publisher: 1, number }, None));
    }
    let hasher = RandomState::new();
    let mut config = bounded(QueueConfig::default());
    config.retry.max_attempts = 1_000_000;
    let outbox = Outbox::new(Arc::clone(&store), NAME, hasher.clone());
    let delivery =
        Delivery::spawn_on(NAME, NoteSink(Arc::clone(&far)), config, 1, Some(outbox), Start::Sending);
    while far.seen.lock().len() < 10 {
        tokio::task::yield_now().await;
    }
    let snapshot = delivery.snapshot();
    assert!(snapshot.is_conserved());
    assert_eq!(snapshot.queued + snapshot.in_flight, 3_000);
    far.assert_seen((0..10).map(|number| (1, number)));
    *far.stuck.lock() = None;
    settle(&delivery).await;
    far.assert_seen((0..3_000).map(|number| (0, number)));
}

/// Every dead letter with its message, in order.
fn letters(store: &DurableStore) -> Vec<(DeadLetter, StoredMessage)> {
    let mut reader = store.reader(QueueKey::DeadLetters { namespace: 0, name: NAME });
    let mut debts: Vec<StoredDebt> = Vec::new();
    loop {
        let after = debts.last().map_or(Position::NOWHERE, |last| last.position);
        let more = reader.read(after, 10_000, usize::MAX).unwrap();
        if more.is_empty() {
            break;
        }
        debts.extend(more);
    }
    let letter = |debt: StoredDebt| (DeadLetter::decode(&debt.body).unwrap(), debt.message.unwrap());
    debts.into_iter().map(letter).collect()
}

fn bounded(queue: QueueConfig) -> DeliveryConfig {
    DeliveryConfig {
        queue,
        retry: RetryConfig {
            max_attempts: 2,
            initial_backoff: Duration::from_millis(1),
            max_backoff: Duration::from_millis(2),
            ..RetryConfig::default()
        },
        concurrency: 4,
        max_per_second: None,
    }
}

/// Hears of every end, and has something owed to another outbox for it.
#[derive(Debug, Default)]
struct Listener {
    heard: Mutex<Vec<(DropReason, Vec<u8>)>>,
    placed: Arc<Mutex<Vec<Position>>>,
    /// What it says instead, the first ones first.
    says: Mutex<Vec<Heard>>,
}

impl Endings for Listener {
    fn wants(&self, _: &str) -> bool {
        true
    }

    fn ended(&self, ended: &Ended<'_>) -> Heard {
        assert_eq!((ended.outbox, ended.message.unwrap().topic.as_str()), (NAME, "t"));
        self.heard.lock().push((ended.reason, ended.origin.to_vec()));
        if let Some(says) = self.says.lock().pop() {
            return says;
        }
        let placed = Arc::clone(&self.placed);
        Heard::Owed(Aftermath {
            debt: Some(("rule/error_action".into(), b"debt".to_vec())),
            then: Box::new(move |position| placed.lock().push(position)),
        })
    }
}

#[tokio::test]
async fn what_an_end_sets_off_comes_before_it_and_once() {
    let (disk, listener) = (FaultDisk::default(), Arc::new(Listener::default()));
    let options =
        StoreOptions { segment_bytes: 64 * 1024, log_bytes_max: 200 * 1024, ..StoreOptions::default() };
    let store = Arc::new(DurableStore::open_on(Arc::new(disk.clone()), options).unwrap().0);
    let outbox = Outbox::new(Arc::clone(&store), NAME, RandomState::new())
        .heard_by(Some(Arc::<Listener>::clone(&listener)));
    let (position, token) =
        append(&store, 1, 1, &encode(OrderBy::None, b"origin", &Note { publisher: 1, number: 1 }, None));
    committed(&store, token).await;
    let ending = Ending {
        position: position.0,
        id: outbox.id(position.0),
        reason: DropReason::Refused,
        error: "no".to_owned(),
        attempts: 1,
        first_attempt: None,
        fate: Fate::DeadLetter,
        is_heard: false,
    };
    let queued = |name| store.queue_len(QueueKey::Outbox { namespace: 0, name });
    let bury = |ending| match outbox.bury(vec![ending]).remove(0) {
        Buried::Again(ending) => Some(ending),
        _ => None,
    };
    // It can't be done: nothing happens to the item, and it is asked again.
    listener.says.lock().extend([Heard::Done, Heard::Later]);
    let ending = bury(ending).expect("it stays");
    assert_eq!((queued(NAME), letters(&store).len(), ending.is_heard), (1, 0, false));
    // It is done, and then the store refuses: it is not done again.
    let filler = QueueKey::Outbox { namespace: 0, name: "filler" };
    for size in [4096, 256, 0] {
        let body = vec![0; size];
        while store.append(&[Record::Queued { queue: filler, id: None, body: &body }]).is_ok() {}
    }
    let ending = bury(ending).expect("the store is full");
    assert_eq!((queued(NAME), letters(&store).len(), ending.is_heard), (1, 0, true));
    assert!(bury(ending).is_some(), "it still is");
    assert_eq!(listener.heard.lock().len(), 2, "asked twice, of which one was no");
    assert_eq!(queued("rule/error_action"), 0);
}

#[tokio::test]
async fn what_is_refused_becomes_a_dead_letter_in_one_frame() {
    let (disk, far, listener) = (FaultDisk::default(), FarSide::new(true), Arc::new(Listener::default()));
    far.refuses.store(true, std::sync::atomic::Ordering::SeqCst);
    let store = open(&disk);
    let hasher = RandomState::new();
    let outbox = Outbox::new(Arc::clone(&store), NAME, hasher.clone())
        .heard_by(Some(Arc::<Listener>::clone(&listener)));
    let config = bounded(QueueConfig::default());
    let delivery =
        Delivery::spawn_on(NAME, NoteSink(Arc::clone(&far)), config, 1, Some(outbox), Start::Sending);
    let running = (delivery, hasher);
    for number in 0..300 {
        publish(&store, &running, number % 3, number);
    }
    let snapshot = settle(&running.0).await;
    assert_eq!((snapshot.received, snapshot.dead_lettered_for(DropReason::Refused)), (300, 300));
    assert_eq!(snapshot.dropped_total(), 0);
    assert_eq!(store.queue_len(QueueKey::Outbox { namespace: 0, name: NAME }), 0);
    let letters = letters(&store);
    let mut sequences: Vec<u64> = letters.iter().map(|(letter, _)| letter.item.sequence).collect();
    sequences.sort_unstable();
    assert_eq!(sequences, (1..=300).collect::<Vec<_>>(), "each with its identity");
    for (letter, message) in &letters {
        assert_eq!((letter.cause.as_str(), letter.attempts), ("refused", 1));
        assert_eq!(letter.error, "the far side answered 400: \"no\"");
        assert!(letter.first_attempt_at_ms.is_some_and(|at| at <= letter.ended_at_ms));
        assert_eq!(letter.received_at_ms, message.received_at_ms);
        let note: Note = QueuedRequest::decode(Body::decode(&letter.request).unwrap().request).unwrap();
        assert_eq!(message.publisher, Some(note.publisher.to_string()));
    }
    assert_eq!(listener.heard.lock().len(), 300);
    assert!(listener.heard.lock().iter().all(|(_, origin)| origin == b"origin"));
    let mut placed = listener.placed.lock().clone();
    placed.sort_unstable();
    assert_eq!(placed, (1..=300).map(Position).collect::<Vec<_>>());
    assert_eq!(store.queue_len(QueueKey::Outbox { namespace: 0, name: "rule/error_action" }), 300);
}

#[tokio::test]
async fn a_power_cut_finds_an_item_in_its_outbox_or_among_the_dead_letters() {
    for seed in 0..20 {
        let (disk, far) = (FaultDisk::default(), FarSide::new(true));
        far.refuses.store(true, std::sync::atomic::Ordering::SeqCst);
        let store = open(&disk);
        let running = start(&store, &far);
        let mut token = store::CommitToken::NOTHING_OWED;
        for number in 0..100 {
            token = publish(&store, &running, number % 3, number);
            if number % 8 == seed % 8 {
                tokio::task::yield_now().await;
            }
        }
        committed(&store, token).await;
        let after = disk.power_cut(seed);
        let store = open(&after);
        let mut found: Vec<u64> = letters(&store).iter().map(|(letter, _)| letter.item.sequence).collect();
        let mut reader = store.reader(QueueKey::Outbox { namespace: 0, name: NAME });
        let owed = reader.read(Position::NOWHERE, 1_000, usize::MAX).unwrap();
        found.extend(owed.iter().map(|debt| debt.position.0));
        found.sort_unstable();
        assert_eq!(found, (1..=100).collect::<Vec<_>>(), "seed {seed}");
    }
}

#[tokio::test]
async fn a_full_store_keeps_what_ended_until_there_is_room() {
    let (disk, far) = (FaultDisk::default(), FarSide::new(false));
    let (store, running) = {
        let options =
            StoreOptions { segment_bytes: 64 * 1024, log_bytes_max: 200 * 1024, ..StoreOptions::default() };
        let store = Arc::new(DurableStore::open_on(Arc::new(disk.clone()), options).unwrap().0);
        let running = start(&store, &far);
        (store, running)
    };
    let queue = QueueKey::Outbox { namespace: 0, name: "filler" };
    let mut token = store::CommitToken::NOTHING_OWED;
    for number in 0..10 {
        token = publish(&store, &running, 1, number);
    }
    committed(&store, token).await;
    for size in [4096, 256, 0] {
        let filler = vec![0; size];
        while store.append(&[Record::Queued { queue, id: None, body: &filler }]).is_ok() {}
    }
    far.refuses.store(true, std::sync::atomic::Ordering::SeqCst);
    far.appear();
    // Refused, and there is no room for a letter: it counts as queued, and is in the outbox.
    while !running.0.shared.queue.lock().bury_is_put_off(Instant::now()) {
        tokio::task::yield_now().await;
    }
    let snapshot = running.0.snapshot();
    assert!(snapshot.is_conserved());
    assert_eq!((snapshot.dead_lettered_total(), snapshot.dropped_total()), (0, 0));
    assert_eq!(store.queue_len(QueueKey::Outbox { namespace: 0, name: NAME }), 10);
}

#[tokio::test]
async fn letters_stay_within_their_bounds() {
    let (disk, far) = (FaultDisk::default(), FarSide::new(true));
    far.refuses.store(true, std::sync::atomic::Ordering::SeqCst);
    let store = open(&disk);
    let hasher = RandomState::new();
    let outbox = Outbox::new(Arc::clone(&store), NAME, hasher.clone());
    let queue = QueueConfig {
        dead_letters: DeadLettersConfig { max_items: 10, ..DeadLettersConfig::default() },
        ..QueueConfig::default()
    };
    let delivery = Delivery::spawn_on(
        NAME,
        NoteSink(Arc::clone(&far)),
        bounded(queue),
        1,
        Some(outbox.clone()),
        Start::Sending,
    );
    let running = (delivery, hasher);
    for number in 0..50 {
        publish(&store, &running, 1, number);
    }
    let mut snapshot = settle(&running.0).await;
    // The oldest give way after the youngest are there.
    while snapshot.letters_dropped < 40 {
        tokio::task::yield_now().await;
        snapshot = running.0.snapshot();
    }
    assert_eq!((snapshot.dead_lettered_total(), snapshot.letters_dropped), (50, 40));
    let kept = letters(&store);
    let sequences: Vec<u64> = kept.iter().map(|(letter, _)| letter.item.sequence).collect();
    assert_eq!(sequences, (41..=50).collect::<Vec<_>>(), "the youngest");

    let bounds = DeadLettersConfig::default();
    assert_eq!(outbox.trim_letters(&bounds).unwrap(), 0);
    let bytes = store.queue_size(QueueKey::DeadLetters { namespace: 0, name: NAME }).1;
    // Between what five and six of the ten take: what each of them takes is an average.
    let half = DeadLettersConfig { max_bytes: bytes * 11 / 20, ..bounds };
    assert_eq!(outbox.trim_letters(&half).unwrap(), 5);
    let no_time = DeadLettersConfig { max_age: Duration::ZERO, ..bounds };
    assert_eq!(outbox.trim_letters(&no_time).unwrap(), 5);
    assert_eq!(letters(&store), []);
}

/// An outbox of at most three items, and what its policy makes of a fourth and a fifth.
async fn overflowed(overflow: Overflow) -> (Arc<DurableStore>, Delivery<NoteSink>) {
    let (disk, far) = (FaultDisk::default(), FarSide::new(false));
    let store = open(&disk);
    let hasher = RandomState::new();
    let outbox = Outbox::new(Arc::clone(&store), NAME, hasher.clone());
    let queue = QueueConfig { max_items: Some(3), overflow: Some(overflow), ..QueueConfig::default() };
    let mut config = bounded(queue);
    config.concurrency = 1;
    let delivery =
        Delivery::spawn_on(NAME, NoteSink(Arc::clone(&far)), config, 1, Some(outbox), Start::Sending);
    let running = (delivery, hasher);
    for number in 0..5 {
        let place = running.0.ask(100).unwrap();
        let expected = match overflow {
            _ if number < 3 => Place::Outbox,
            Overflow::DropOldest => Place::Outbox,
            Overflow::Backpressure => Place::Refused(full(overflow)),
            Overflow::DeadLetter => Place::None(DropReason::QueueFull, full(overflow), Fate::DeadLetter),
            Overflow::DropNewest => Place::None(DropReason::QueueFull, full(overflow), Fate::Drop),
        };
        assert_eq!(place, expected, "{number}");
        if place == Place::Outbox {
            publish(&store, &running, number, number);
        }
    }
    assert!(running.0.snapshot().is_conserved());
    (store, running.0)
}

fn full(overflow: Overflow) -> String {
    format!("the queue is full (3 items or 1073741824 bytes; {})", overflow.as_str())
}

#[tokio::test]
async fn a_full_outbox_does_what_its_policy_says() {
    for overflow in [Overflow::DeadLetter, Overflow::Backpressure, Overflow::DropNewest] {
        let (store, delivery) = overflowed(overflow).await;
        assert_eq!(store.queue_len(QueueKey::Outbox { namespace: 0, name: NAME }), 3);
        assert_eq!(delivery.snapshot().received, 3);
        let too_large = delivery.ask(2 << 30).unwrap();
        assert!(matches!(too_large, Place::None(DropReason::TooLarge, ..)), "{too_large:?}");
    }
    let (store, delivery) = overflowed(Overflow::DropOldest).await;
    while delivery.snapshot().dropped_for(DropReason::QueueFull) < 2 {
        tokio::task::yield_now().await;
    }
    let snapshot = delivery.snapshot();
    assert!(snapshot.is_conserved());
    assert_eq!((snapshot.received, snapshot.queued + snapshot.in_flight), (5, 3));
    assert_eq!(store.queue_len(QueueKey::Outbox { namespace: 0, name: NAME }), 3);
    assert_eq!(letters(&store), []);
}

#[tokio::test]
async fn bytes_on_disk_count() {
    let disk = FaultDisk::default();
    let (store, far) = (open(&disk), FarSide::new(false));
    let hasher = RandomState::new();
    let outbox = Outbox::new(Arc::clone(&store), NAME, hasher.clone());
    let queue = QueueConfig { max_bytes: Some(4096), ..QueueConfig::default() };
    let delivery = Delivery::spawn_on(NAME, NoteSink(far), bounded(queue), 1, Some(outbox), Start::Sending);
    let running = (delivery, hasher);
    let size = || store.queue_size(QueueKey::Outbox { namespace: 0, name: NAME });
    for number in 0.. {
        let used = size().1;
        let room = usize::try_from(4096 - used).unwrap();
        assert_eq!(running.0.ask(room), Some(Place::Outbox), "at the limit");
        assert!(matches!(running.0.ask(room + 1), Some(Place::None(..))), "one past it");
        if room < 500 {
            break;
        }
        let token = publish(&store, &running, number, number);
        committed(&store, token).await;
        assert!(size().1 > used);
    }
}

/// As after a redrive: the item stands at a new place, with the identity that it had before.
#[tokio::test]
async fn an_item_that_is_sent_again_keeps_its_identity_and_is_as_old_as_the_wish() {
    let (disk, far) = (FaultDisk::default(), FarSide::new(true));
    let store = open(&disk);
    let running = start(&store, &far);
    let id = ItemId { store: 7, epoch: 8, sequence: 9 };
    let note = Note { publisher: 1, number: 5 };
    let first = encode(OrderBy::Publisher, &[], &note, None);
    let received_long_ago = MessageRecord { received_at_ms: 1, topic: "t", ..MessageRecord::default() };
    let queue = QueueKey::Outbox { namespace: 0, name: NAME };
    for redriven_at_ms in [None, Some(wall_clock_ms())] {
        let body = Body { identity: Some(id), redriven_at_ms, ..Body::decode(&first).unwrap() }.encode();
        let queued = Record::Queued { queue, id: Some(received_long_ago.id), body: &body };
        let mut positions = Vec::new();
        store.append_debts(&[Record::Message(received_long_ago), queued], &mut positions).unwrap();
        running.0.arrived(positions[0]);
    }
    let snapshot = settle(&running.0).await;
    assert_eq!((snapshot.delivered, snapshot.dead_lettered_for(DropReason::Expired)), (1, 1));
    assert_eq!(*far.seen.lock(), [(id, note)]);
}

proptest! {
    // Each case opens stores.
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Whatever the far side does, over restarts with a power cut in between: at every instant each item counts once, and
    /// what an outbox and its dead letters hold is what the counters say.
    #[test]
    fn counters_add_up_over_restarts(
        steps in prop::collection::vec((0..10_u8, 0..12_u64), 1..24),
        overflow in prop::sample::select(vec![Overflow::DeadLetter, Overflow::DropOldest, Overflow::DropNewest]),
        seed: u64,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(count_up(steps, overflow, seed))?;
    }
}

proptest! {
    /// However late an item is told of, and whatever is read or put out of memory meanwhile: each comes into memory once more
    /// than it is put out, and nothing is left out. `early` are items that reach the store before they are told of.
    #[test]
    fn every_item_comes_into_memory_once(
        steps in prop::collection::vec((any::<bool>(), any::<bool>(), any::<bool>(), 0..4_usize), 1..200),
        drain in prop::sample::select(vec![Drain::OldestFirst, Drain::LiveFirst]),
    ) {
        let now = Instant::now();
        let mut backlog = Backlog::new(0);
        let (mut stored, mut untold): (Vec<u64>, Vec<u64>) = Default::default();
        let mut taken = BTreeSet::new();
        let mut reading = None;
        let mut received = 0;
        for (has_room, is_told, gives_way, which) in steps {
            let position = stored.len() as u64 + 1;
            stored.push(position);
            untold.push(position);
            if is_told {
                let position = untold.remove(which % untold.len());
                received += 1;
                if backlog.told(position, has_room, drain) {
                    prop_assert!(taken.insert(position), "{} twice", position);
                }
            }
            let place = taken.iter().nth(which).copied();
            if gives_way && let Some(place) = place && backlog.can_forget() {
                taken.remove(&place);
                backlog.forget(place);
            }
            if let Some((after, count)) = reading.take() {
                read(&mut backlog, &stored, after, count, &mut taken)?;
            } else {
                reading = backlog.begin_read(now).map(|after| (after, which));
            }
            let (on_disk, early) = backlog.counts();
            prop_assert_eq!(received + early, taken.len() as u64 + on_disk);
        }
        for position in untold {
            if backlog.told(position, false, drain) {
                prop_assert!(taken.insert(position));
            }
        }
        if let Some((after, count)) = reading {
            read(&mut backlog, &stored, after, count, &mut taken)?;
        }
        while let Some(after) = backlog.begin_read(now) {
            read(&mut backlog, &stored, after, 3, &mut taken)?;
        }
        prop_assert_eq!(taken.len(), stored.len());
        prop_assert_eq!(backlog.counts(), (0, 0));
    }

    /// A body comes back as it was.
    #[test]
    fn bodies_come_back(
        order in prop::sample::select(vec![OrderBy::None, OrderBy::Publisher, OrderBy::Topic]),
        id in prop::option::of(any::<(u64, u32, u64)>()),
        redriven_at_ms: Option<i64>,
        trace in prop::option::of((1..=u128::MAX, 1..=u64::MAX)),
        origin in prop::collection::vec(any::<u8>(), 0..20),
        request in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        let identity = id.map(|(store, epoch, sequence)| ItemId { store, epoch, sequence });
        let trace = trace.map(|(trace_id, span_id)| Context { trace_id, span_id });
        let body = Body { order, identity, redriven_at_ms, trace, origin: &origin, request: &request };
        let bytes = body.encode();
        prop_assert_eq!(Body::decode(&bytes), Some(body));
    }

    /// Any bytes are a request or none.
    #[test]
    fn hostile_bodies_are_refused(body in prop::collection::vec(any::<u8>(), 0..200)) {
        let Some(read) = Body::decode(&body) else { return Ok(()) };
        prop_assert_eq!(read.encode(), body.clone());
        if let Some(request) = crate::HttpRequest::decode(read.request) {
            let again = encode(read.order, read.origin, &request, None);
            prop_assert_eq!(Body::decode(&again).and_then(|body| QueuedRequest::decode(body.request)), Some(request));
        }
    }
}

/// The counters once nothing is put away or looked through any more.
async fn settled_letters(delivery: &Delivery<NoteSink>) -> Snapshot {
    while delivery.shared.queue.lock().is_burying() {
        tokio::task::yield_now().await;
    }
    delivery.snapshot()
}

async fn count_up(steps: Vec<(u8, u64)>, overflow: Overflow, seed: u64) -> Result<(), TestCaseError> {
    let queue = QueueConfig {
        max_items: Some(20),
        overflow: Some(overflow),
        dead_letters: DeadLettersConfig { max_items: 15, ..DeadLettersConfig::default() },
        ..QueueConfig::default()
    };
    let mut disk = FaultDisk::default();
    let mut number = 0;
    for (round, steps) in steps.chunks(8).enumerate() {
        let far = FarSide::new(seed.is_multiple_of(2));
        let store = open(&disk);
        let length = |queue| store.queue_len(queue);
        let outbox_key = QueueKey::Outbox { namespace: 0, name: NAME };
        let letters_key = QueueKey::DeadLetters { namespace: 0, name: NAME };
        let (found, letters_found) = (length(outbox_key), length(letters_key));
        let hasher = RandomState::new();
        let outbox = Outbox::new(Arc::clone(&store), NAME, hasher.clone());
        let sink = NoteSink(Arc::clone(&far));
        let delivery = Delivery::spawn_on(NAME, sink, bounded(queue), seed, Some(outbox), Start::Sending);
        prop_assert_eq!(delivery.snapshot().queued_at_start, found);
        let running = (delivery, hasher);
        let mut published = 0;
        for (step, argument) in steps {
            match step {
                0..=2 => {
                    for _ in 0..*argument {
                        number += 1;
                        published += 1;
                        match running.0.ask(50) {
                            Some(Place::Outbox) => {
                                publish(&store, &running, number % 3, number);
                            }
                            Some(Place::None(reason, _, fate)) => running.0.ended_early(reason, fate),
                            other => prop_assert!(false, "{:?}", other),
                        }
                        prop_assert!(running.0.snapshot().is_conserved(), "{:?}", running.0.snapshot());
                    }
                }
                3 => far.appear(),
                4 => Control::pause(&running.0),
                5 => running.0.resume(),
                6 => running.0.send_now(),
                7 => drop(running.0.purge()),
                8 => far.refuses.store(argument.is_multiple_of(2), std::sync::atomic::Ordering::SeqCst),
                _ => {
                    for _ in 0..argument * 4 {
                        tokio::task::yield_now().await;
                        prop_assert!(running.0.snapshot().is_conserved(), "{:?}", running.0.snapshot());
                    }
                }
            }
        }
        far.appear();
        running.0.resume();
        let snapshot = settle(&running.0).await;
        prop_assert_eq!((snapshot.queued_at_start, snapshot.received), (found, published));
        prop_assert_eq!(length(outbox_key), 0);
        // Dead letters of the last run are looked through at the start, on the side.
        while length(letters_key) > 15 {
            tokio::task::yield_now().await;
        }
        let snapshot = settled_letters(&running.0).await;
        // Those that found no place have their letters in frames that this test doesn't write.
        let written = snapshot.dead_lettered_total() - snapshot.dead_lettered_for(DropReason::QueueFull);
        prop_assert_eq!(letters_found + written, length(letters_key) + snapshot.letters_dropped);
        disk = disk.power_cut(seed.wrapping_add(round as u64));
    }
    Ok(())
}

fn read(
    backlog: &mut Backlog,
    stored: &[u64],
    after: u64,
    count: usize,
    taken: &mut BTreeSet<u64>,
) -> Result<(), TestCaseError> {
    let found: Vec<u64> =
        stored.iter().copied().filter(|position| *position > after).take(count.max(1)).collect();
    for position in &found {
        if backlog.found(*position) {
            prop_assert!(taken.insert(*position), "{} twice", position);
        }
    }
    backlog.end_read(!found.is_empty());
    Ok(())
}
