//! The outbox on a real store, with power cuts, and what is known of a queue on disk against random histories.

use std::collections::HashMap;

use proptest::prelude::*;
use store::{FaultDisk, MessageId, MessageRecord, StoreOptions};

use super::super::{BatchPolicy, Delivery, DeliveryError, DropReason, Envelope, Outgoing, Sink, Snapshot};
use super::*;
use crate::config::{DeliveryConfig, QueueConfig, RetryConfig};

const NAME: &str = "rule/action";

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
    seen: Mutex<Vec<(ItemId, Note)>>,
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
        self.0.seen.lock().extend(batch.iter().map(|item| (item.id, item.request.clone())));
        batch.iter().map(|_| Ok(())).collect()
    }
}

impl FarSide {
    fn new(is_there: bool) -> Arc<Self> {
        Arc::new(Self { is_there: is_there.into(), seen: Mutex::default() })
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
    let hasher = RandomState::new();
    let config = DeliveryConfig {
        queue: QueueConfig::default(),
        retry: RetryConfig {
            initial_backoff: Duration::from_millis(1),
            max_backoff: Duration::from_millis(2),
            ..RetryConfig::default()
        },
        concurrency: 4,
        max_per_second: None,
    };
    let outbox = Outbox::new(Arc::clone(store), NAME, hasher.clone());
    (Delivery::spawn_on(NAME, NoteSink(Arc::clone(far)), config, 1, Some(outbox)), hasher)
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
    let (position, token) = append(store, publisher, number, &encode(OrderBy::Publisher, &note));
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
        assert_eq!(snapshot.received, snapshot.delivered);
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
            append(&store, 1, number, &encode(OrderBy::Publisher, &Note { publisher: 1, number }));
        }
    }
    let (store, far) = (open(&disk), FarSide::new(true));
    let running = start(&store, &far);
    for number in 2_000..2_500 {
        publish(&store, &running, 1, number);
    }
    let snapshot = settle(&running.0).await;
    assert_eq!((snapshot.received, snapshot.delivered), (2_500, 2_500));
    far.assert_seen((0..2_500).map(|number| (1, number)));
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

#[tokio::test]
async fn a_body_that_is_no_request_ends_alone() {
    let disk = FaultDisk::default();
    {
        let store = open(&disk);
        let good = encode(OrderBy::Publisher, &Note { publisher: 1, number: 1 });
        for body in [&[][..], &[VERSION], &[VERSION, 9], &[VERSION + 1, 1], &[VERSION, 1, 7], &good] {
            append(&store, 1, 1, body);
        }
    }
    let (store, far) = (open(&disk), FarSide::new(true));
    let running = start(&store, &far);
    let snapshot = settle(&running.0).await;
    assert_eq!((snapshot.delivered, snapshot.dropped_for(DropReason::Unreadable)), (1, 5));
    assert_eq!(store.queue_len(QueueKey::Outbox { namespace: 0, name: NAME }), 0);
}

proptest! {
    /// However late an item is told of, and whatever is read meanwhile: each comes into memory once, and nothing is left
    /// out. `early` are items that reach the store before they are told of.
    #[test]
    fn every_item_comes_into_memory_once(
        steps in prop::collection::vec((any::<bool>(), any::<bool>(), 0..4_usize), 1..200),
    ) {
        let now = Instant::now();
        let mut backlog = Backlog::new(0);
        let (mut stored, mut untold): (Vec<u64>, Vec<u64>) = Default::default();
        let mut taken = BTreeSet::new();
        let mut reading = None;
        let mut received = 0;
        for (has_room, is_told, which) in steps {
            let position = stored.len() as u64 + 1;
            stored.push(position);
            untold.push(position);
            if is_told {
                let position = untold.remove(which % untold.len());
                received += 1;
                if backlog.told(position, has_room) {
                    prop_assert!(taken.insert(position), "{} twice", position);
                }
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
            if backlog.told(position, false) {
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

    /// Any bytes are a request or none.
    #[test]
    fn hostile_bodies_are_refused(body in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Some((order, request)) = decode::<crate::HttpRequest>(&body) {
            prop_assert_eq!(decode(&encode(order, &request)), Some((order, request)));
        }
    }
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
