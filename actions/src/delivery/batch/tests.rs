//! Batches that share one fate, the rate cap and the long pause, in paused time against a far side that follows a script.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::*;
use crate::config::{DeliveryConfig, Overflow, QueueConfig, RetryConfig};
use crate::delivery::{
    AnswerClass, CircuitState, Delivery, DeliveryError, DropReason, Enqueued, Envelope, ItemId, Outgoing,
    Sink,
};
use crate::outlet::QueuedRequest;

/// A note for one address; only notes for the same address go together. Ten bytes each in a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Note {
    address: &'static str,
    text: u64,
}

impl QueuedRequest for Note {
    fn bytes(&self) -> usize {
        100
    }

    fn batch_bytes(&self) -> usize {
        10
    }

    fn goes_with(&self, first: &Self) -> bool {
        self.address == first.address
    }

    fn encode(&self, _: &mut Vec<u8>) {}

    fn decode(_: &[u8]) -> Option<Self> {
        None
    }
}

/// A call as the far side saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Call {
    texts: Vec<u64>,
    after: Duration,
}

struct FarSide {
    began: Instant,
    calls: Mutex<Vec<Call>>,
    /// What it says to the next calls; afterwards it takes everything but `poison`.
    script: Mutex<VecDeque<Result<(), DeliveryError>>>,
    poison: Option<u64>,
    /// A permit for every call.
    called: Semaphore,
}

struct WholeSink {
    far: Arc<FarSide>,
    policy: BatchPolicy,
}

impl Sink for WholeSink {
    type Request = Note;

    fn batch_policy(&self) -> BatchPolicy {
        self.policy
    }

    async fn deliver(&self, batch: &[Arc<Envelope<Note>>]) -> Vec<Result<(), DeliveryError>> {
        assert!(batch.iter().all(|item| item.request.goes_with(&batch[0].request)));
        let texts: Vec<u64> = batch.iter().map(|item| item.request.text).collect();
        let spoilt = self.far.poison.is_some_and(|poison| texts.contains(&poison));
        self.far.calls.lock().push(Call { texts, after: self.far.began.elapsed() });
        self.far.called.add_permits(1);
        let fine = if spoilt { Err(answer(400)) } else { Ok(()) };
        let result = self.far.script.lock().pop_front().unwrap_or(fine);
        vec![result; batch.len()]
    }
}

fn answer(status: u16) -> DeliveryError {
    DeliveryError::Answered {
        status,
        class: AnswerClass::of(status),
        retry_after: None,
        excerpt: String::new(),
    }
}

const POLICY: BatchPolicy =
    BatchPolicy { max_items: 4, max_bytes: 1_000, linger: Duration::from_millis(100), is_whole: true };

fn config() -> DeliveryConfig {
    DeliveryConfig {
        queue: QueueConfig::default(),
        retry: RetryConfig {
            initial_backoff: Duration::from_millis(10),
            max_backoff: Duration::from_millis(20),
            ..RetryConfig::default()
        },
        concurrency: 2,
        max_per_second: None,
    }
}

struct Bench {
    far: Arc<FarSide>,
    delivery: Delivery<WholeSink>,
    next: u64,
}

impl Bench {
    fn start(
        policy: BatchPolicy,
        config: DeliveryConfig,
        script: Vec<Result<(), DeliveryError>>,
        poison: Option<u64>,
    ) -> Self {
        let far = Arc::new(FarSide {
            began: Instant::now(),
            calls: Mutex::default(),
            script: Mutex::new(script.into()),
            poison,
            called: Semaphore::new(0),
        });
        let delivery = Delivery::spawn("r/a", WholeSink { far: Arc::clone(&far), policy }, config, 1);
        Self { far, delivery, next: 0 }
    }

    fn put(&mut self, key: Option<u64>, address: &'static str) {
        let id = ItemId { store: 1, epoch: 1, sequence: self.next };
        let note = Note { address, text: self.next };
        self.next += 1;
        assert_eq!(self.delivery.enqueue(Outgoing::new(id, key, note)), Enqueued::Queued);
    }

    fn put_many(&mut self, count: u64, key: Option<u64>) {
        for _ in 0..count {
            self.put(key, "one");
        }
    }

    /// Waits for so many more calls.
    async fn calls(&self, count: u32) {
        self.far.called.acquire_many(count).await.unwrap().forget();
    }

    async fn end(self) -> (Vec<Vec<u64>>, crate::delivery::Snapshot) {
        self.delivery.shutdown(Duration::from_secs(3_600)).await;
        let snapshot = self.delivery.snapshot();
        assert!(snapshot.is_conserved(), "{snapshot:?}");
        let calls = self.far.calls.lock().iter().map(|call| call.texts.clone()).collect();
        (calls, snapshot)
    }

    fn after(&self, call: usize) -> Duration {
        self.far.calls.lock()[call].after
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_batch_leaves_at_once_and_the_rest_when_it_has_lingered() {
    let mut bench = Bench::start(POLICY, config(), Vec::new(), None);
    bench.put_many(6, None);
    bench.calls(2).await;
    assert_eq!((bench.after(0), bench.after(1)), (Duration::ZERO, Duration::from_millis(100)));
    let (calls, _) = bench.end().await;
    assert_eq!(calls, [vec![0, 1, 2, 3], vec![4, 5]]);
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_full_by_its_bytes_and_a_larger_item_goes_alone() {
    let exact = BatchPolicy { max_items: 100, max_bytes: 30, ..POLICY };
    let mut bench = Bench::start(exact, config(), Vec::new(), None);
    bench.put_many(4, None);
    bench.calls(1).await;
    assert_eq!(bench.after(0), Duration::ZERO);
    assert_eq!(bench.end().await.0, [vec![0, 1, 2], vec![3]]);

    let one_less = BatchPolicy { max_bytes: 29, ..exact };
    let mut bench = Bench::start(one_less, config(), Vec::new(), None);
    bench.put_many(4, None);
    assert_eq!(bench.end().await.0, [vec![0, 1], vec![2, 3]]);

    let tiny = BatchPolicy { max_bytes: 5, ..exact };
    let mut bench = Bench::start(tiny, config(), Vec::new(), None);
    bench.put_many(2, None);
    assert_eq!(bench.end().await.0, [[0], [1]]);
}

#[tokio::test(start_paused = true)]
async fn only_items_that_go_together_share_a_batch() {
    let mut bench = Bench::start(POLICY, DeliveryConfig { concurrency: 1, ..config() }, Vec::new(), None);
    for address in ["one", "two", "one", "two", "one"] {
        bench.put(None, address);
    }
    assert_eq!(bench.end().await.0, [vec![0, 2, 4], vec![1, 3]]);
}

#[tokio::test(start_paused = true)]
async fn an_item_never_overtakes_one_of_its_key_that_goes_elsewhere() {
    let mut bench = Bench::start(POLICY, config(), Vec::new(), None);
    for address in ["one", "two", "one"] {
        bench.put(Some(7), address);
    }
    bench.put(Some(8), "one");
    let (calls, _) = bench.end().await;
    assert_eq!(calls, [vec![0, 3], vec![1], vec![2]]);
}

#[tokio::test(start_paused = true)]
async fn a_batch_whose_fate_is_unknown_is_sent_again_as_it_was() {
    let lost = DeliveryError::TimedOut { after: Duration::from_secs(1) };
    let mut bench = Bench::start(POLICY, config(), vec![Err(lost)], None);
    bench.put_many(2, Some(1));
    bench.put_many(1, Some(2));
    bench.calls(1).await;
    // More of the same keys, and of another, that would fit beside them.
    bench.put_many(1, Some(1));
    bench.put_many(1, Some(3));
    let (calls, snapshot) = bench.end().await;
    assert_eq!(calls.iter().filter(|call| **call == [0, 1, 2]).count(), 2, "{calls:?}");
    let same_key: Vec<u64> =
        calls.iter().flatten().copied().filter(|text| [0, 1, 3].contains(text)).collect();
    assert_eq!(same_key, [0, 1, 0, 1, 3], "the line waits for its batch");
    assert_eq!((snapshot.delivered, snapshot.retried), (5, 3));
}

#[tokio::test(start_paused = true)]
async fn a_poisonous_item_is_given_up_alone() {
    let policy = BatchPolicy { max_items: 16, ..POLICY };
    let mut bench = Bench::start(policy, config(), Vec::new(), Some(5));
    for text in 0..16 {
        bench.put(Some(text % 3), "one");
    }
    let far = Arc::clone(&bench.far);
    bench.calls(1).await;
    let (calls, snapshot) = bench.end().await;
    assert_eq!((snapshot.delivered, snapshot.dropped_for(DropReason::Refused)), (15, 1));
    assert!(calls.contains(&vec![5]), "{calls:?}");
    assert!(calls.len() <= 16, "{calls:?}");
    // What was taken went in order.
    for key in 0..3 {
        let calls = far.calls.lock().clone();
        let taken = calls.iter().filter(|call| !call.texts.contains(&5)).flat_map(|call| &call.texts);
        let of_key: Vec<u64> = taken.copied().filter(|text| text % 3 == key).collect();
        assert!(of_key.is_sorted(), "{of_key:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_unknown_address_costs_a_batch_one_call() {
    let mut bench = Bench::start(POLICY, config(), vec![Err(answer(404))], None);
    bench.put_many(4, None);
    let (calls, snapshot) = bench.end().await;
    assert_eq!(calls.len(), 1);
    assert_eq!(snapshot.dropped_for(DropReason::Refused), 4);
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_given_up_when_its_attempts_are_used_up() {
    let retry = RetryConfig { max_attempts: 3, ..config().retry };
    let busy = || Err(answer(500));
    let mut bench =
        Bench::start(POLICY, DeliveryConfig { retry, ..config() }, vec![busy(), busy(), busy()], None);
    bench.put_many(4, None);
    let (calls, snapshot) = bench.end().await;
    assert_eq!(calls.len(), 3);
    assert_eq!(snapshot.dropped_for(DropReason::RetriesExhausted), 4);
}

#[tokio::test(start_paused = true)]
async fn items_of_a_batch_that_waits_to_be_sent_again_grow_old() {
    let retry = RetryConfig {
        initial_backoff: Duration::from_secs(60),
        max_backoff: Duration::from_secs(60),
        ..RetryConfig::default()
    };
    let busy = DeliveryError::Answered {
        status: 503,
        class: AnswerClass::Retry,
        retry_after: Some(Duration::from_secs(60)),
        excerpt: String::new(),
    };
    let queue = QueueConfig { max_age: Some(Duration::from_secs(10)), ..QueueConfig::default() };
    let mut bench = Bench::start(POLICY, DeliveryConfig { queue, retry, ..config() }, vec![Err(busy)], None);
    bench.put_many(4, None);
    bench.calls(1).await;
    tokio::time::sleep(Duration::from_secs(9)).await;
    let snapshot = bench.delivery.snapshot();
    assert_eq!((snapshot.queued, snapshot.in_flight), (4, 0));
    assert_eq!(snapshot.oldest_age, Some(Duration::from_secs(9)));
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(bench.delivery.snapshot().dropped_for(DropReason::Expired), 4);
    assert_eq!(bench.end().await.0.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_waits_to_be_sent_again_gives_way_to_new_items() {
    let queue =
        QueueConfig { max_items: Some(4), overflow: Some(Overflow::DropOldest), ..QueueConfig::default() };
    let down = || Err(DeliveryError::Unreachable { cause: String::new() });
    let retry = RetryConfig {
        initial_backoff: Duration::from_secs(60),
        max_backoff: Duration::from_secs(60),
        ..RetryConfig::default()
    };
    let mut bench = Bench::start(POLICY, DeliveryConfig { queue, retry, ..config() }, vec![down()], None);
    bench.put_many(4, None);
    bench.calls(1).await;
    // The result is in when the worker waits.
    tokio::time::sleep(Duration::from_millis(1)).await;
    bench.put_many(1, None);
    let snapshot = bench.delivery.snapshot();
    assert_eq!((snapshot.queued, snapshot.dropped_for(DropReason::QueueFull)), (4, 1));
    assert_eq!(bench.end().await.0.last().unwrap(), &[1, 2, 3, 4]);
}

#[tokio::test(start_paused = true)]
async fn a_rate_cap_spaces_calls_evenly() {
    let policy = BatchPolicy { max_items: 2, linger: Duration::ZERO, ..POLICY };
    let capped = DeliveryConfig { max_per_second: Some(4), ..config() };
    let mut bench = Bench::start(policy, capped, Vec::new(), None);
    bench.put_many(10, None);
    bench.calls(5).await;
    let after: Vec<u128> = (0..5).map(|call| bench.after(call).as_millis()).collect();
    assert_eq!(after, [0, 250, 500, 750, 1_000]);
}

#[tokio::test(start_paused = true)]
async fn refused_credentials_pause_the_action_and_cost_no_item() {
    let retry = RetryConfig { max_attempts: 1, ..config().retry };
    let refused = || Err(answer(401));
    let mut bench = Bench::start(
        BatchPolicy::SINGLE,
        DeliveryConfig { retry, concurrency: 1, ..config() },
        vec![refused(), refused()],
        None,
    );
    bench.put_many(3, Some(1));
    bench.calls(1).await;
    tokio::time::sleep(Duration::from_secs(200)).await;
    let health = bench.delivery.snapshot().health;
    assert_eq!((health.circuit, health.is_disabled), (CircuitState::Open, true));
    // One call asks again after each pause.
    bench.calls(2).await;
    assert_eq!((bench.after(1).as_secs(), bench.after(2).as_secs()), (300, 600));
    let health = bench.delivery.snapshot().health;
    assert!(!health.is_disabled || health.circuit == CircuitState::HalfOpen);
    let (_, snapshot) = bench.end().await;
    assert_eq!((snapshot.delivered, snapshot.dropped_total()), (3, 0));
}

#[tokio::test(start_paused = true)]
async fn new_settings_end_the_pause_for_refused_credentials() {
    let mut bench = Bench::start(BatchPolicy::SINGLE, config(), vec![Err(answer(403))], None);
    bench.put_many(1, None);
    bench.calls(1).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    bench
        .delivery
        .reconfigure(WholeSink { far: Arc::clone(&bench.far), policy: BatchPolicy::SINGLE }, config());
    bench.calls(1).await;
    assert_eq!(bench.after(1).as_secs(), 1);
}
