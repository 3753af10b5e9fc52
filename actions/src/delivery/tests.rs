//! The machine under paused time with a sink that follows a script, and the queue alone against random histories.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use proptest::prelude::*;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::Instant;

mod control;
mod traced;

use super::item::Batch;
use super::queue::{Queue, Step};
use super::*;
use crate::config::{Overflow, QueueConfig, RetryConfig};

#[derive(Debug, Clone, PartialEq, Eq)]
struct Message {
    key: u64,
    number: u64,
    bytes: usize,
}

impl QueuedRequest for Message {
    fn bytes(&self) -> usize {
        self.bytes
    }

    fn encode(&self, out: &mut Vec<u8>) {
        for value in [self.key, self.number, self.bytes as u64] {
            out.extend_from_slice(&value.to_be_bytes());
        }
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (values, []) = bytes.as_chunks::<8>() else { return None };
        let [key, number, bytes] = values else { return None };
        let [key, number, bytes] = [key, number, bytes].map(|value| u64::from_be_bytes(*value));
        Some(Self { key, number, bytes: usize::try_from(bytes).ok()? })
    }
}

/// What the far side does with the next attempts of a key.
type Script = HashMap<u64, VecDeque<Result<(), DeliveryError>>>;

#[derive(Debug, Default)]
struct World {
    script: Mutex<Script>,
    /// (key, number, when) of every attempt.
    attempts: Mutex<Vec<(u64, u64, Instant)>>,
    delivered: Mutex<Vec<(u64, u64)>>,
    failures: Mutex<Vec<(u64, Failure)>>,
    at_once: AtomicUsize,
    at_once_max: AtomicUsize,
}

#[derive(Debug, Clone)]
struct FakeSink {
    world: Arc<World>,
    /// One permit per attempt that may end; `None`: all end at once.
    gate: Option<Arc<Semaphore>>,
    policy: BatchPolicy,
}

impl FakeSink {
    fn new(world: &Arc<World>) -> Self {
        Self { world: Arc::clone(world), gate: None, policy: BatchPolicy::SINGLE }
    }

    fn gated(world: &Arc<World>) -> (Self, Arc<Semaphore>) {
        let gate = Arc::new(Semaphore::new(0));
        (Self { gate: Some(Arc::clone(&gate)), ..Self::new(world) }, gate)
    }
}

impl Sink for FakeSink {
    type Request = Message;

    fn batch_policy(&self) -> BatchPolicy {
        self.policy
    }

    async fn deliver(&self, batch: &[Arc<Envelope<Message>>]) -> Vec<Result<(), DeliveryError>> {
        let now = self.world.at_once.fetch_add(1, Ordering::SeqCst) + 1;
        self.world.at_once_max.fetch_max(now, Ordering::SeqCst);
        let mut results = Vec::new();
        let mut held_back: Vec<u64> = Vec::new();
        for item in batch {
            let Message { key, number, .. } = item.request;
            if held_back.contains(&key) {
                results.push(Err(DeliveryError::NotAttempted));
                continue;
            }
            if let Some(gate) = &self.gate {
                gate.acquire().await.unwrap().forget();
            }
            self.world.attempts.lock().push((key, number, Instant::now()));
            let result =
                self.world.script.lock().get_mut(&key).and_then(VecDeque::pop_front).unwrap_or(Ok(()));
            if let Err(DeliveryError::Driver { cause }) = &result {
                self.world.at_once.fetch_sub(1, Ordering::SeqCst);
                panic!("{cause}");
            }
            match &result {
                Ok(()) => self.world.delivered.lock().push((key, number)),
                Err(error) if error.is_retriable() => held_back.push(key),
                Err(_) => {}
            }
            results.push(result);
        }
        self.world.at_once.fetch_sub(1, Ordering::SeqCst);
        results
    }
}

fn answered(status: u16) -> DeliveryError {
    DeliveryError::Answered {
        status,
        class: AnswerClass::of(status),
        retry_after: None,
        excerpt: String::new(),
    }
}

fn busy_for(seconds: u64) -> DeliveryError {
    DeliveryError::Answered {
        status: 503,
        class: AnswerClass::Retry,
        retry_after: Some(Duration::from_secs(seconds)),
        excerpt: String::new(),
    }
}

fn unreachable() -> DeliveryError {
    DeliveryError::Unreachable { cause: "connection refused".to_owned() }
}

fn bounded(max_items: usize, max_bytes: u64, overflow: Overflow) -> QueueConfig {
    QueueConfig {
        max_items: Some(max_items),
        max_bytes: Some(max_bytes),
        overflow: Some(overflow),
        ..QueueConfig::default()
    }
}

fn config() -> DeliveryConfig {
    DeliveryConfig {
        queue: QueueConfig::default(),
        retry: RetryConfig::default(),
        concurrency: 4,
        max_per_second: None,
    }
}

fn item(world: &Arc<World>, key: u64, number: u64) -> Outgoing<Message> {
    let told = Arc::clone(world);
    Outgoing {
        id: ItemId { store: 1, epoch: 1, sequence: number },
        key: Some(key),
        request: Message { key, number, bytes: 10 },
        on_failure: Some(Box::new(move |failure| told.failures.lock().push((number, failure)))),
        extra_bytes: 0,
        trace: None,
    }
}

/// Enqueues where the outcome is seen in the counters.
fn put(delivery: &Delivery<FakeSink>, item: Outgoing<Message>) {
    let received = delivery.snapshot().received;
    let outcome = delivery.enqueue(item);
    assert_eq!(delivery.snapshot().received, received + 1, "{outcome:?}");
}

fn script(world: &World, key: u64, results: impl IntoIterator<Item = Result<(), DeliveryError>>) {
    world.script.lock().insert(key, results.into_iter().collect());
}

/// Lets paused time run until nothing waits and nothing is in flight.
async fn settle<S: Sink>(delivery: &Delivery<S>) -> Snapshot {
    loop {
        let snapshot = delivery.snapshot();
        assert!(snapshot.is_conserved(), "{snapshot:?}");
        if snapshot.queued == 0 && snapshot.in_flight == 0 {
            return snapshot;
        }
        tokio::time::advance(Duration::from_millis(5)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn keeps_order_within_a_key_and_works_on_several_keys_at_once() {
    let world = Arc::new(World::default());
    let (sink, gate) = FakeSink::gated(&world);
    let delivery = Delivery::spawn("r/a", sink, config(), 1);
    for number in 0..40 {
        assert_eq!(delivery.enqueue(item(&world, number % 8, number)), Enqueued::Queued);
    }
    while world.at_once.load(Ordering::SeqCst) < 4 {
        tokio::task::yield_now().await;
    }
    assert_eq!(delivery.snapshot().in_flight, 4, "four lanes, one item each");
    gate.add_permits(40);
    let snapshot = settle(&delivery).await;
    assert_eq!((snapshot.received, snapshot.delivered), (40, 40));
    assert_eq!(world.at_once_max.load(Ordering::SeqCst), 4);
    for key in 0..8 {
        let numbers: Vec<u64> =
            world.delivered.lock().iter().filter(|(k, _)| *k == key).map(|(_, number)| *number).collect();
        assert_eq!(numbers, (0..5).map(|i| key + i * 8).collect::<Vec<_>>());
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_item_holds_back_its_own_key_and_no_other() {
    let world = Arc::new(World::default());
    script(&world, 1, [Err(answered(500)), Err(answered(500)), Ok(())]);
    let delivery = Delivery::spawn("r/a", FakeSink::new(&world), config(), 1);
    for (key, number) in [(1, 0), (1, 1), (2, 2), (2, 3)] {
        assert_eq!(delivery.enqueue(item(&world, key, number)), Enqueued::Queued);
    }
    let snapshot = settle(&delivery).await;
    assert_eq!((snapshot.delivered, snapshot.retried), (4, 2));
    assert_eq!(*world.delivered.lock(), [(2, 2), (2, 3), (1, 0), (1, 1)]);
    assert!(world.failures.lock().is_empty());
}

#[tokio::test(start_paused = true)]
async fn gives_up_after_the_last_attempt_and_says_why() {
    let world = Arc::new(World::default());
    script(&world, 1, (0..3).map(|_| Err(answered(500))));
    let mut config = config();
    config.retry.max_attempts = 3;
    let delivery = Delivery::spawn("r/a", FakeSink::new(&world), config, 1);
    assert_eq!(delivery.enqueue(item(&world, 1, 0)), Enqueued::Queued);
    assert_eq!(delivery.enqueue(item(&world, 1, 1)), Enqueued::Queued);
    let snapshot = settle(&delivery).await;
    assert_eq!((snapshot.delivered, snapshot.dropped_for(DropReason::RetriesExhausted)), (1, 1));
    let failures = world.failures.lock();
    let [(0, failure)] = failures.as_slice() else { panic!("{failures:?}") };
    assert_eq!(failure.attempts, 3);
    assert_eq!(failure.error, "the far side answered 500: \"\" (attempt 3 of 3)");
}

#[tokio::test(start_paused = true)]
async fn a_final_refusal_is_not_retried() {
    let world = Arc::new(World::default());
    script(&world, 1, [Err(answered(400))]);
    let delivery = Delivery::spawn("r/a", FakeSink::new(&world), config(), 1);
    assert_eq!(delivery.enqueue(item(&world, 1, 0)), Enqueued::Queued);
    let snapshot = settle(&delivery).await;
    assert_eq!(snapshot.dropped_for(DropReason::Refused), 1);
    assert_eq!(world.attempts.lock().len(), 1);
    assert_eq!(snapshot.health.circuit, CircuitState::Closed, "who refuses is there");
}

#[tokio::test(start_paused = true)]
async fn respects_retry_after_for_the_whole_action() {
    let world = Arc::new(World::default());
    script(&world, 1, [Err(busy_for(30))]);
    let delivery = Delivery::spawn("r/a", FakeSink::new(&world), config(), 1);
    let began = Instant::now();
    assert_eq!(delivery.enqueue(item(&world, 1, 0)), Enqueued::Queued);
    while delivery.snapshot().health.circuit != CircuitState::Open {
        tokio::task::yield_now().await;
    }
    assert_eq!(delivery.enqueue(item(&world, 2, 1)), Enqueued::Queued);
    settle(&delivery).await;
    let attempts = world.attempts.lock();
    assert_eq!(attempts.len(), 3);
    assert!(attempts.iter().skip(1).all(|(_, _, at)| at.duration_since(began) >= Duration::from_secs(30)));
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_cut_to_the_longest_pause() {
    let world = Arc::new(World::default());
    script(&world, 1, [Err(busy_for(u64::MAX))]);
    let delivery = Delivery::spawn("r/a", FakeSink::new(&world), config(), 1);
    let began = Instant::now();
    assert_eq!(delivery.enqueue(item(&world, 1, 0)), Enqueued::Queued);
    let snapshot = settle(&delivery).await;
    assert_eq!(snapshot.delivered, 1);
    let waited = Instant::now().duration_since(began);
    assert!((60..=61).contains(&waited.as_secs()), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn an_outage_costs_no_attempts_but_ends_with_age() {
    let world = Arc::new(World::default());
    script(&world, 1, (0..10_000).map(|_| Err(unreachable())));
    let mut config = config();
    config.retry = RetryConfig {
        max_attempts: 2,
        initial_backoff: Duration::from_millis(100),
        max_backoff: Duration::from_secs(5),
        ..RetryConfig::default()
    };
    config.queue.max_age = Some(Duration::from_secs(600));
    let delivery = Delivery::spawn("r/a", FakeSink::new(&world), config, 1);
    assert_eq!(delivery.enqueue(item(&world, 1, 0)), Enqueued::Queued);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(delivery.enqueue(item(&world, 2, 1)), Enqueued::Queued);
    // Key 2 is fine, but the circuit is open whenever key 1 has just tried; it gets through as a probe.
    let snapshot = settle(&delivery).await;
    assert_eq!((snapshot.delivered, snapshot.dropped_for(DropReason::Expired)), (1, 1));
    assert!(world.attempts.lock().len() > 20);
    assert_eq!(world.failures.lock()[0].1.attempts, 0);
    assert_eq!(world.failures.lock()[0].1.error, "older than 600s");
    assert_eq!((snapshot.attempts, snapshot.retried), (1, 0), "that of key 2 alone");
}

#[tokio::test(start_paused = true)]
async fn an_attempt_is_what_may_have_reached_the_far_side() {
    let world = Arc::new(World::default());
    let refused = || DeliveryError::NoCredentials { cause: "no".to_owned() };
    script(
        &world,
        1,
        [
            Err(unreachable()),
            Err(refused()),
            Err(answered(503)),
            Err(unreachable()),
            Err(answered(500)),
            Ok(()),
        ],
    );
    let delivery = Delivery::spawn("r/a", FakeSink::new(&world), config(), 1);
    assert_eq!(delivery.enqueue(item(&world, 1, 0)), Enqueued::Queued);
    let snapshot = settle(&delivery).await;
    assert_eq!(world.attempts.lock().len(), 6);
    assert_eq!((snapshot.delivered, snapshot.attempts, snapshot.retried), (1, 3, 2));
}

#[tokio::test(start_paused = true)]
async fn opens_after_five_failures_and_lets_one_batch_try() {
    let world = Arc::new(World::default());
    for key in 0..10 {
        script(&world, key, [Err(answered(500))]);
    }
    let (sink, gate) = FakeSink::gated(&world);
    let delivery = Delivery::spawn("r/a", sink, config(), 1);
    for key in 0..10 {
        assert_eq!(delivery.enqueue(item(&world, key, key)), Enqueued::Queued);
    }
    for done in 1..=5_u32 {
        gate.add_permits(1);
        while delivery.snapshot().health.failures_in_a_row < done {
            tokio::task::yield_now().await;
        }
    }
    let health = delivery.snapshot().health;
    assert_eq!(health.circuit, CircuitState::Open);
    assert_eq!(health.cause.as_deref(), Some("the far side answered 500: \"\""));
    // The stragglers fail too; then, pause over, one at a time.
    gate.add_permits(3);
    while delivery.snapshot().in_flight > 0 {
        tokio::task::yield_now().await;
    }
    world.at_once_max.store(0, Ordering::SeqCst);
    while delivery.snapshot().in_flight == 0 {
        tokio::time::advance(Duration::from_millis(50)).await;
    }
    let snapshot = delivery.snapshot();
    assert_eq!((snapshot.in_flight, snapshot.health.circuit), (1, CircuitState::HalfOpen));
    world.script.lock().clear();
    gate.add_permits(100);
    let snapshot = settle(&delivery).await;
    assert_eq!(snapshot.delivered, 10);
    assert_eq!(snapshot.health.circuit, CircuitState::Closed);
    assert_eq!(snapshot.health.cause, None);
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_drops_by_its_policy() {
    for (overflow, kept) in [(Overflow::DropOldest, [0, 3, 4]), (Overflow::DropNewest, [0, 1, 2])] {
        let world = Arc::new(World::default());
        let (sink, gate) = FakeSink::gated(&world);
        let config = DeliveryConfig { queue: bounded(3, 1_024, overflow), concurrency: 1, ..config() };
        let delivery = Delivery::spawn("r/a", sink, config, 1);
        put(&delivery, item(&world, 7, 0));
        while delivery.snapshot().in_flight == 0 {
            tokio::task::yield_now().await;
        }
        for number in 1..5 {
            put(&delivery, item(&world, 7, number));
            assert!(delivery.snapshot().is_conserved());
        }
        gate.add_permits(10);
        let snapshot = settle(&delivery).await;
        assert_eq!(snapshot.dropped_for(DropReason::QueueFull), 2);
        assert_eq!(
            *world.delivered.lock(),
            kept.map(|number| (7, number)),
            "{overflow:?}: what is in flight stays"
        );
        assert_eq!(world.failures.lock().len(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn bytes_bound_the_queue_too_and_one_huge_item_evicts_nobody() {
    let world = Arc::new(World::default());
    let (sink, gate) = FakeSink::gated(&world);
    let queue = bounded(100, 1_024, Overflow::DropOldest);
    let delivery = Delivery::spawn("r/a", sink, DeliveryConfig { queue, concurrency: 1, ..config() }, 1);
    let sized = |number, bytes| {
        let mut item = item(&world, 1, number);
        item.request.bytes = bytes;
        item
    };
    put(&delivery, sized(0, 24));
    while delivery.snapshot().in_flight == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(delivery.enqueue(sized(1, 500)), Enqueued::Queued);
    assert_eq!(delivery.enqueue(sized(2, 500)), Enqueued::Queued);
    assert_eq!(delivery.snapshot().bytes, 1_024);
    assert_eq!(delivery.enqueue(sized(3, 1_025)), Enqueued::Dropped(DropReason::TooLarge));
    assert_eq!(delivery.snapshot().queued, 2);
    assert_eq!(delivery.enqueue(sized(4, 600)), Enqueued::Queued);
    let snapshot = delivery.snapshot();
    assert_eq!((snapshot.queued, snapshot.bytes, snapshot.dropped_for(DropReason::QueueFull)), (1, 624, 2));
    gate.add_permits(10);
    assert_eq!(settle(&delivery).await.bytes, 0);
}

#[tokio::test(start_paused = true)]
async fn a_panicking_driver_costs_its_batch_only() {
    let world = Arc::new(World::default());
    script(&world, 1, [Err(DeliveryError::Driver { cause: "test panic".to_owned() })]);
    let delivery = Delivery::spawn("r/a", FakeSink::new(&world), config(), 1);
    for number in 0..3 {
        put(&delivery, item(&world, 1, number));
    }
    let snapshot = settle(&delivery).await;
    assert_eq!((snapshot.delivered, snapshot.dropped_for(DropReason::Driver)), (2, 1));
    assert_eq!(*world.delivered.lock(), [(1, 1), (1, 2)]);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_sends_what_it_can_and_counts_the_rest() {
    let world = Arc::new(World::default());
    let (sink, gate) = FakeSink::gated(&world);
    let delivery = Arc::new(Delivery::spawn("r/a", sink, DeliveryConfig { concurrency: 1, ..config() }, 1));
    for number in 0..5 {
        put(&delivery, item(&world, number, number));
    }
    gate.add_permits(2);
    delivery.shutdown(Duration::from_secs(3)).await;
    let snapshot = delivery.snapshot();
    assert!(snapshot.is_conserved(), "{snapshot:?}");
    assert_eq!((snapshot.delivered, snapshot.dropped_for(DropReason::Shutdown)), (2, 3));
    assert_eq!(delivery.enqueue(item(&world, 1, 9)), Enqueued::Dropped(DropReason::Shutdown));
    assert_eq!(world.failures.lock().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_with_time_left_ends_when_all_is_sent() {
    let world = Arc::new(World::default());
    script(&world, 3, [Err(answered(500))]);
    let delivery = Delivery::spawn("r/a", FakeSink::new(&world), config(), 1);
    for number in 0..5 {
        put(&delivery, item(&world, number, number));
    }
    let began = Instant::now();
    delivery.shutdown(Duration::from_secs(3_600)).await;
    assert_eq!(delivery.snapshot().delivered, 5);
    assert!(began.elapsed() < Duration::from_secs(60));
}

#[tokio::test(start_paused = true)]
async fn queued_items_go_out_through_the_new_driver() {
    let (old, new) = (Arc::new(World::default()), Arc::new(World::default()));
    script(&old, 1, (0..100).map(|_| Err(unreachable())));
    let delivery = Delivery::spawn("r/a", FakeSink::new(&old), config(), 1);
    for number in 0..3 {
        put(&delivery, item(&old, 1, number));
    }
    while delivery.snapshot().health.circuit != CircuitState::Open {
        tokio::task::yield_now().await;
    }
    delivery.reconfigure(FakeSink::new(&new), config());
    let snapshot = settle(&delivery).await;
    assert_eq!((snapshot.received, snapshot.delivered), (3, 3), "counters go on");
    assert_eq!(*new.delivered.lock(), [(1, 0), (1, 1), (1, 2)]);
}

#[tokio::test(start_paused = true)]
async fn a_batch_waits_for_company_but_not_for_ever() {
    let world = Arc::new(World::default());
    let policy =
        BatchPolicy { max_items: 3, max_bytes: 1_000, linger: Duration::from_millis(200), is_whole: false };
    let sink = FakeSink { policy, ..FakeSink::new(&world) };
    let delivery = Delivery::spawn("r/a", sink, config(), 1);
    let began = Instant::now();
    for number in 0..4 {
        put(&delivery, item(&world, 1, number));
    }
    settle(&delivery).await;
    let times: Vec<u128> =
        world.attempts.lock().iter().map(|(_, _, at)| at.duration_since(began).as_millis()).collect();
    // Time moves in steps of 5 ms here.
    assert!(times[..3].iter().all(|ms| *ms <= 5), "{times:?}");
    assert!((200..=210).contains(&times[3]), "{times:?}");
}

/// One step of a random history.
#[derive(Debug, Clone)]
enum Op {
    Enqueue { key: Option<u64>, bytes: usize },
    Next,
    Complete { which: usize, results: Vec<u8> },
    Advance { ms: u64 },
    Resize { max_items: usize, max_bytes: u64, drop_newest: bool },
    Pause,
    Resume,
    SendNow,
    Purge,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        6 => (prop::option::weighted(0.8, 0..4_u64), 0..300_usize).prop_map(|(key, bytes)| Op::Enqueue { key, bytes }),
        6 => Just(Op::Next),
        5 => (any::<usize>(), prop::collection::vec(any::<u8>(), 4)).prop_map(|(which, results)| Op::Complete { which, results }),
        3 => (0..3_000_u64).prop_map(|ms| Op::Advance { ms }),
        1 => (1..10_usize, 1_024..2_048_u64, any::<bool>())
            .prop_map(|(max_items, max_bytes, drop_newest)| Op::Resize { max_items, max_bytes, drop_newest }),
        1 => prop_oneof![Just(Op::Pause), Just(Op::Resume), Just(Op::Resume), Just(Op::SendNow), Just(Op::Purge)],
    ];
    prop::collection::vec(op, 1..120)
}

fn result_of(byte: u8) -> Result<(), DeliveryError> {
    match byte % 9 {
        0..=2 => Ok(()),
        3 => Err(answered(500)),
        4 => Err(answered(400)),
        5 => Err(unreachable()),
        6 => Err(busy_for(u64::from(byte) / 16)),
        7 => Err(answered(401)),
        _ => Err(DeliveryError::RateLimited { per_second: 1 }),
    }
}

fn small_config(max_items: usize, max_bytes: u64, overflow: Overflow) -> DeliveryConfig {
    DeliveryConfig {
        queue: QueueConfig {
            max_age: Some(Duration::from_secs(8)),
            ..bounded(max_items, max_bytes, overflow)
        },
        retry: RetryConfig {
            max_attempts: 3,
            initial_backoff: Duration::from_millis(50),
            max_backoff: Duration::from_secs(1),
            ..RetryConfig::default()
        },
        concurrency: 2,
        max_per_second: None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// Whatever happens: every item is accounted for at every step, the bounds hold for what was admitted, items of a
    /// key are delivered in order, and whoever wants to know is told exactly once about every item that was dropped.
    #[test]
    fn no_item_is_lost_or_told_twice(ops in ops(), seed: u64, batch_items in 1..4_usize, is_whole: bool) {
        let mut now = Instant::now();
        let policy = BatchPolicy { max_items: batch_items, max_bytes: 500, linger: Duration::from_millis(20), is_whole };
        let mut config = small_config(6, 1_200, Overflow::DropOldest);
        let mut queue: Queue<Message> = Queue::new(config, policy, seed, now);
        let told: Arc<Mutex<HashMap<u64, Failure>>> = Arc::default();
        let mut in_flight: Vec<Batch<Message>> = Vec::new();
        let mut delivered: Vec<Message> = Vec::new();
        let mut number = 0;
        for op in ops {
            match op {
                Op::Enqueue { key, bytes } => {
                    let told = Arc::clone(&told);
                    let mine = number;
                    let item = Outgoing {
                        id: ItemId { store: 0, epoch: 0, sequence: number },
                        key,
                        request: Message { key: key.unwrap_or(u64::MAX), number, bytes },
                        on_failure: Some(Box::new(move |failure| {
                            assert!(told.lock().insert(mine, failure).is_none(), "told twice about {mine}");
                        })),
                        extra_bytes: 0,
                        trace: None,
                    };
                    number += 1;
                    let admission = queue.admit(item, now);
                    admission.settled.tell();
                    let snapshot = queue.snapshot(now);
                    if admission.outcome == Enqueued::Queued {
                        let bounds = queue.bounds();
                        prop_assert!(snapshot.queued + snapshot.in_flight <= bounds.max_items as u64);
                        prop_assert!(snapshot.bytes <= bounds.max_bytes);
                    }
                }
                Op::Next => {
                    let (step, settled) = queue.next(now);
                    settled.tell();
                    if let Step::Send(batch) = step {
                        let envelopes = batch.envelopes();
                        prop_assert!(!envelopes.is_empty() && envelopes.len() <= batch_items);
                        in_flight.push(batch);
                        prop_assert!(in_flight.len() <= config.concurrency);
                        prop_assert!(!queue.snapshot(now).is_paused);
                    }
                }
                Op::Complete { which, results } => {
                    if in_flight.is_empty() {
                        continue;
                    }
                    let batch = in_flight.swap_remove(which % in_flight.len());
                    let mut held_back = Vec::new();
                    let results = if is_whole { vec![results[0]; results.len()] } else { results };
                    let results: Vec<_> = batch.envelopes().iter().zip(results).map(|(envelope, byte)| {
                        if !is_whole && held_back.contains(&envelope.request.key) && envelope.request.key != u64::MAX {
                            return Err(DeliveryError::NotAttempted);
                        }
                        let result = result_of(byte);
                        match &result {
                            Ok(()) => delivered.push(envelope.request.clone()),
                            Err(error) if error.is_retriable() => held_back.push(envelope.request.key),
                            Err(_) => {}
                        }
                        result
                    }).collect();
                    queue.complete(batch, results, now).tell();
                }
                Op::Advance { ms } => now += Duration::from_millis(ms),
                Op::Resize { max_items, max_bytes, drop_newest } => {
                    let overflow = if drop_newest { Overflow::DropNewest } else { Overflow::DropOldest };
                    config = small_config(max_items, max_bytes, overflow);
                    queue.reconfigure(config, policy, now).tell();
                }
                Op::Pause => queue.pause(),
                Op::Resume => queue.resume(),
                Op::SendNow => queue.send_now(now),
                Op::Purge => {
                    let (tell, mut told) = oneshot::channel();
                    let waiting = queue.snapshot(now).queued;
                    let (items, settled) = queue.purge(0, tell);
                    settled.tell();
                    prop_assert_eq!((items, queue.snapshot(now).queued), (waiting, 0));
                    prop_assert_eq!(told.try_recv(), Ok(()), "nothing of a queue in memory is left to wait for");
                }
            }
            let snapshot = queue.snapshot(now);
            prop_assert!(snapshot.is_conserved(), "{:?}", snapshot);
            prop_assert_eq!(snapshot.received, number);
            prop_assert_eq!(snapshot.delivered, delivered.len() as u64);
            let untold = snapshot.dropped_for(DropReason::Purged);
            prop_assert_eq!(snapshot.dropped_total(), told.lock().len() as u64 + untold);
        }
        queue.close(now);
        queue.give_up(in_flight).tell();
        let end = queue.snapshot(now);
        prop_assert_eq!((end.queued, end.in_flight, end.bytes), (0, 0, 0));
        prop_assert_eq!(end.received, end.delivered + end.dropped_total());
        let told = told.lock();
        for key in 0..4 {
            let numbers: Vec<u64> = delivered.iter().filter(|m| m.key == key).map(|m| m.number).collect();
            prop_assert!(numbers.is_sorted_by(|a, b| a < b), "key {} out of order: {:?}", key, numbers);
        }
        for message in &delivered {
            prop_assert!(!told.contains_key(&message.number));
        }
    }

    /// The same law with the real worker, in paused time, against a far side with random faults.
    #[test]
    fn the_worker_conserves_items_under_faults(
        faults in prop::collection::vec((0..3_u64, any::<u8>()), 0..60),
        keys in prop::collection::vec(0..3_u64, 1..60),
        seed: u64,
        grace_s in prop_oneof![Just(0_u64), Just(3_600)],
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let world = Arc::new(World::default());
            for (key, byte) in faults {
                world.script.lock().entry(key).or_default().push_back(result_of(byte));
            }
            let config = small_config(20, 1_024, Overflow::DropOldest);
            let delivery = Delivery::spawn("r/a", FakeSink::new(&world), config, seed);
            let sent = keys.len();
            for (number, key) in keys.into_iter().enumerate() {
                put(&delivery, item(&world, key, number as u64));
                if number % 7 == 0 {
                    tokio::task::yield_now().await;
                }
                assert!(delivery.snapshot().is_conserved());
            }
            delivery.shutdown(Duration::from_secs(grace_s)).await;
            let end = delivery.snapshot();
            assert_eq!((end.received, end.queued, end.in_flight), (sent as u64, 0, 0));
            assert!(end.is_conserved());
            assert_eq!(end.delivered, world.delivered.lock().len() as u64);
            assert_eq!(end.dropped_total(), world.failures.lock().len() as u64);
            for key in 0..3 {
                let delivered = world.delivered.lock();
                assert!(delivered.iter().filter(|(k, _)| *k == key).map(|(_, n)| n).is_sorted());
            }
        });
    }
}
