//! A plain model of the store, and a store on a faulty disk to compare it with.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test may fail where it stands, in its helpers too"
)]
#![allow(dead_code, reason = "each test binary uses its part")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use store::{
    CommitToken, DurableStore, FaultDisk, Health, MessageId, MessageRecord, Position, QueueKey, Record,
    RecoveryReport, SessionKey, Store, StoreError, StoreOptions, StoredQueue,
};

pub(crate) fn options() -> StoreOptions {
    StoreOptions {
        segment_bytes: 8192,
        checkpoint_bytes: 16 * 1024,
        reserve_bytes: 0,
        wall_clock_ms: || 1_000_000,
        ..StoreOptions::default()
    }
}

#[track_caller]
pub(crate) fn open(disk: &FaultDisk) -> (DurableStore, RecoveryReport) {
    open_with(disk, options())
}

#[track_caller]
pub(crate) fn open_with(disk: &FaultDisk, options: StoreOptions) -> (DurableStore, RecoveryReport) {
    DurableStore::open_on(Arc::new(disk.clone()), options).unwrap()
}

/// Waits, without a clock, until a token is safe.
pub(crate) fn wait_for(store: &DurableStore, token: CommitToken) {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let poll = |cx: &mut Context<'_>| {
        store.wake_when_committed(token, cx.waker());
        if store.committed() >= token { Poll::Ready(()) } else { Poll::Pending }
    };
    while poll(&mut Context::from_waker(&waker)).is_pending() {
        std::thread::park();
    }
}

/// Waits until something about the store is so.
pub(crate) fn until(store: &DurableStore, what: &str, mut so: impl FnMut(&DurableStore) -> bool) {
    let start = std::time::Instant::now();
    while !so(store) {
        assert!(start.elapsed().as_secs() < 60, "never: {what} {:?}", store.counters());
        std::thread::park_timeout(std::time::Duration::from_millis(1));
    }
}

pub(crate) fn session(client_id: &str) -> SessionKey<'_> {
    SessionKey { namespace: 0, client_id }
}

pub(crate) fn queue(client_id: &str) -> QueueKey<'_> {
    QueueKey::Session(session(client_id))
}

pub(crate) fn start(store: &DurableStore, client_id: &str) -> CommitToken {
    store.append(&[Record::SessionStarted { session: session(client_id), expiry_interval_s: 60 }]).unwrap()
}

pub(crate) fn message(number: u64, payload: &[u8]) -> MessageRecord<'_> {
    MessageRecord {
        id: MessageId { store: 1, epoch: 1, sequence: number },
        topic: "t",
        payload,
        qos: 1,
        ..MessageRecord::default()
    }
}

pub(crate) fn owed(number: u64, client_id: &str) -> Record<'_> {
    Record::Owed {
        id: MessageId { store: 1, epoch: 1, sequence: number },
        session: session(client_id),
        qos: 1,
        retain: false,
        identifiers: &[],
    }
}

/// Owes a message to sessions; returns its places.
pub(crate) fn publish(
    store: &DurableStore,
    number: u64,
    payload: &[u8],
    to: &[&str],
) -> Result<(CommitToken, Vec<Position>), StoreError> {
    let mut records = vec![Record::Message(message(number, payload))];
    records.extend(to.iter().map(|client_id| owed(number, client_id)));
    let mut positions = Vec::new();
    let token = store.append_debts(&records, &mut positions)?;
    Ok((token, positions))
}

/// Numbers of the messages owed to a queue, read in small pieces, and their places.
pub(crate) fn read(store: &DurableStore, queue: QueueKey<'_>) -> Vec<(u64, Position)> {
    let mut reader = store.reader(queue);
    let mut after = Position(0);
    let mut found = Vec::new();
    loop {
        let debts = reader.read(after, 7, 4096).unwrap();
        let Some(last) = debts.last() else { return found };
        after = last.position;
        for debt in &debts {
            let number = match &debt.message {
                Some(message) => message.id.sequence,
                None => u64::from_le_bytes(debt.body[..8].try_into().unwrap()),
            };
            found.push((number, debt.position));
        }
    }
}

/// What a store holds, in a form that can be compared.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Model {
    pub(crate) sessions: BTreeMap<String, ModelSession>,
    /// Message by place.
    pub(crate) queues: BTreeMap<StoredQueue, BTreeMap<u64, u64>>,
    pub(crate) retained: BTreeMap<String, u64>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ModelSession {
    pub(crate) expiry_interval_s: u32,
    pub(crate) detached_at_ms: Option<i64>,
    pub(crate) owner: String,
    pub(crate) will: Option<u64>,
    pub(crate) subscriptions: BTreeMap<String, (u8, u32)>,
    pub(crate) received: BTreeSet<u16>,
    /// Queue, place and whether PUBREC has come.
    pub(crate) inflight: BTreeMap<u16, (Option<StoredQueue>, u64, bool)>,
}

impl Model {
    /// What a store holds.
    pub(crate) fn of(store: &DurableStore) -> Self {
        let mut model = Self::default();
        store.for_each_session(|found| {
            let session = ModelSession {
                expiry_interval_s: found.expiry_interval_s,
                detached_at_ms: found.detached_at_ms,
                owner: found.owner,
                will: found.will.map(|will| will.message.id.sequence),
                subscriptions: found
                    .subscriptions
                    .into_iter()
                    .map(|found| (found.filter, (found.options, found.identifier)))
                    .collect(),
                received: found.received.into_iter().collect(),
                inflight: found
                    .inflight
                    .into_iter()
                    .map(|found| {
                        let awaits = found.stage == store::Stage::AwaitsCompletion;
                        (found.packet_id, (found.queue, found.position.0, awaits))
                    })
                    .collect(),
            };
            model.sessions.insert(found.client_id, session);
        });
        let mut queues = Vec::new();
        store.for_each_queue(|queue, len| queues.push((queue, len)));
        let mut of_actions = BTreeSet::new();
        store.for_each_queue_of_actions(|queue, len| assert!(of_actions.insert((queue, len))));
        let is_of_actions = |queue: &StoredQueue| {
            matches!(queue, StoredQueue::Outbox { .. } | StoredQueue::DeadLetters { .. })
        };
        assert_eq!(of_actions, queues.iter().filter(|(queue, _)| is_of_actions(queue)).cloned().collect());
        for (queue, len) in queues {
            let debts = read(store, queue.key());
            assert_eq!(debts.len() as u64, len, "length of {queue:?}");
            assert!(debts.is_sorted_by_key(|(_, position)| *position));
            model
                .queues
                .insert(queue, debts.into_iter().map(|(number, position)| (position.0, number)).collect());
        }
        store
            .for_each_retained(|message| {
                model.retained.insert(message.topic, message.id.sequence);
            })
            .unwrap();
        model
    }

    /// What of this is in `other` in all but debts, and which debts there are less in `other`.
    pub(crate) fn without_debts(&self) -> Self {
        let mut model = self.clone();
        model.queues.values_mut().for_each(BTreeMap::clear);
        model
    }
}

/// Leaves no room on a disk for another byte.
pub(crate) fn fill(disk: &FaultDisk) {
    use store::Disk as _;
    disk.set_capacity(u64::MAX);
    disk.set_capacity(u64::MAX - disk.free_bytes().unwrap());
    assert_eq!(disk.free_bytes().unwrap(), 0);
}

/// The files of a kind, in order.
pub(crate) fn names(disk: &FaultDisk, extension: &str) -> Vec<String> {
    use store::Disk as _;
    let mut names = disk.names().unwrap();
    names.retain(|name| name.ends_with(extension));
    names.sort_unstable();
    names
}

pub(crate) fn is_full(store: &DurableStore) -> bool {
    matches!(store.health(), Health::Full { .. })
}

pub(crate) fn is_sound(store: &DurableStore) -> bool {
    store.health() == Health::Sound
}
