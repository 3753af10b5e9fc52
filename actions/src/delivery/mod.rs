//! The delivery machine that every queued action has of its own: queue, order, batch, retry, circuit, counters.
//!
//! A [`Sink`] sends one batch and says per item what happened; everything else is decided here. One worker task per
//! action takes batches from the queue and runs up to `concurrency` of them at a time, each in a task of its own, so
//! that a driver that panics costs its batch and nothing else.
//!
//! Order: items with the same key leave in the order in which they came, one batch in flight at a time. An item that
//! fails and is retried holds back its key and no other. Across keys there is no order.
//!
//! Retry: exponential back-off with full jitter from a seeded generator, `Retry-After` respected up to the same
//! ceiling. Attempts that can't have reached the far side aren't counted, so an outage costs nothing but age.
//!
//! Rate: where a cap is set, calls of the sink leave evenly spaced, whatever waits.
//!
//! Circuit: after five failures in a row, and at once when the far side can't be reached or names a
//! time, nothing more is sent until the pause is over; then one batch tries. Its success closes the circuit. An answer that says that nothing will be taken from us as we are
//! (credentials refused) opens it for long, and costs the item neither an attempt nor its place.
//!
//! Control: an operator may stop the sending ([`Control`]), have all that waits tried at once, or drop it.
//!
//! Accounting: `queued at the start + received = delivered + queued + in flight + dead-lettered{reason} + dropped{reason}`
//! under one lock, hence at every instant.
//! A queue lives in an [`Outbox`], and then survives everything, or in memory: what that holds when the process ends
//! without a drain is lost, and what a drain's grace leaves over is counted under `shutdown`.

mod batch;
pub(crate) mod burial;
mod circuit;
mod control;
mod counters;
mod error;
mod item;
mod lines;
pub mod outbox;
mod queue;
mod rate;
mod retry;
#[cfg(test)]
mod tests;
mod traced;
mod worker;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;

pub use batch::BatchPolicy;
pub use burial::{Aftermath, Ended, Endings, Fate, Heard};
pub use circuit::{CircuitState, Health};
pub use control::{Control, Purge};
pub use counters::{DropReason, LastError, Snapshot};
pub use error::{AnswerClass, DeliveryError};
use item::Settled;
pub use outbox::Outbox;
use queue::{Admission, Queue};
use store::Position;
use trace::{Context, Span, Tracer};
use traced::Teller;
pub use traced::Traced;
pub(crate) use traced::traceparent;

use crate::config::{DeliveryConfig, Overflow};
use crate::outlet::QueuedRequest;

/// Sends requests to one outside system.
pub trait Sink: Send + Sync + 'static {
    /// What it sends.
    type Request: QueuedRequest;

    /// How much goes into one call of [`Sink::deliver`].
    fn batch_policy(&self) -> BatchPolicy;

    /// Says on the span of an attempt where a request goes. Cheap, and without secrets.
    fn describe(&self, request: &Self::Request, span: &mut Span) {
        let _nothing_known = (request, span);
    }

    /// Sends a batch once, without retrying, in bounded time. Returns one result per item, in the batch's order.
    ///
    /// Where the far side takes items one by one, the sink stops at the first one of a key that may be retried, and
    /// answers [`DeliveryError::NotAttempted`] for those of the same key behind it: otherwise they'd overtake it. A sink that
    /// sends them all before it hears of any tells what became of each; those of a key behind one that is to be sent again
    /// are sent again too, confirmed or not.
    fn deliver(
        &self,
        batch: &[Arc<Envelope<Self::Request>>],
    ) -> impl Future<Output = Vec<Result<(), DeliveryError>>> + Send;
}

/// A message's identity, stable over retries: what idempotency keys are made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ItemId {
    /// The store that the message was admitted by.
    pub store: u64,
    /// Raised at every start of the store.
    pub epoch: u32,
    /// Sequence number within the epoch.
    pub sequence: u64,
}

impl fmt::Display for ItemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}.{}-{}", self.store, self.epoch, self.sequence)
    }
}

/// A request on its way.
#[derive(Debug)]
pub struct Envelope<R> {
    /// The message that it was made from.
    pub id: ItemId,
    /// The request.
    pub request: R,
    /// When its message was received, milliseconds since the epoch, if an earlier run of the process left the item or it was
    /// a dead letter; `None` for one that is on its way for the first time.
    pub replayed: Option<i64>,
    /// Its trace, if it has one.
    pub trace: Traced,
}

impl<R> Envelope<R> {
    /// A request without a trace.
    pub fn new(id: ItemId, request: R, replayed: Option<i64>) -> Self {
        Self { id, request, replayed, trace: Traced::default() }
    }
}

/// An item that ended without being delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Why it was given up.
    pub reason: DropReason,
    /// The last error in words, or what made it give way.
    pub error: String,
    /// Attempts that may have reached the far side.
    pub attempts: u32,
}

/// Told once if the item ends without being delivered; dropped untold if it is delivered. It runs on the thread that
/// settles the item, with no lock held, and must not block.
pub type OnFailure = Box<dyn FnOnce(Failure) + Send>;

/// What goes into [`Delivery::enqueue`].
pub struct Outgoing<R> {
    /// The message that the request was made from.
    pub id: ItemId,
    /// Items with the same key keep their order; `None` for an item without order.
    pub key: Option<u64>,
    /// The request.
    pub request: R,
    /// Told if it is given up.
    pub on_failure: Option<OnFailure>,
    /// Bytes that live as long as the item does, beside the request's own.
    pub extra_bytes: usize,
    /// What its attempts are told beneath, if the message is traced.
    pub trace: Option<Context>,
}

impl<R> Outgoing<R> {
    /// Makes an item without anybody to be told.
    pub const fn new(id: ItemId, key: Option<u64>, request: R) -> Self {
        Self { id, key, request, on_failure: None, extra_bytes: 0, trace: None }
    }
}

impl<R: fmt::Debug> fmt::Debug for Outgoing<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outgoing")
            .field("id", &self.id)
            .field("key", &self.key)
            .field("request", &self.request)
            .finish_non_exhaustive()
    }
}

/// Where an item of an outbox is to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// Into the outbox.
    Outbox,
    /// Nowhere, and this becomes of it.
    None(DropReason, String, Fate),
    /// The message is to be refused.
    Refused(String),
}

fn count(value: usize) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

/// Whether an item got a place in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Enqueued {
    /// It did; others may have given way.
    Queued,
    /// It did not, is counted, and whoever asked to be told has been.
    Dropped(DropReason),
}

/// How a queue begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// It sends what it has.
    Sending,
    /// It sends nothing before a [`Control::resume`].
    Paused,
}

/// The queue and worker of one action.
#[derive(Debug)]
pub struct Delivery<S: Sink> {
    shared: Arc<Shared<S>>,
    worker: Mutex<Option<JoinHandle<()>>>,
}

/// What the handle and the worker share.
struct Shared<S: Sink> {
    /// `rule/action`, for log lines.
    label: String,
    /// Taken for short, computed moments only: never held while a sink or a callback runs.
    queue: Mutex<Queue<S::Request>>,
    sink: Mutex<Arc<S>>,
    wake: Notify,
    /// Where the queue is kept, if it is.
    outbox: Option<Outbox>,
    teller: Teller,
}

impl<S: Sink> Shared<S> {
    /// Settles what has ended and tells who wants to know. With no lock held.
    fn finish(&self, settled: Settled) {
        if let Some(outbox) = &self.outbox {
            outbox.settle(&settled.positions);
        }
        self.teller.ended(settled.tell());
    }

    /// Drops the oldest items of an outbox that has more than its bounds allow, where its policy is that.
    fn trim(&self) {
        let Some(outbox) = &self.outbox else { return };
        if self.queue.lock().bounds().overflow != Overflow::DropOldest {
            return;
        }
        let (items, bytes) = outbox.size();
        if self.queue.lock().trim(items, bytes) {
            self.wake.notify_one();
        }
    }
}

impl<S: Sink> fmt::Debug for Shared<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("label", &self.label).finish_non_exhaustive()
    }
}

impl<S: Sink> Delivery<S> {
    /// Starts the worker of one action on the current tokio runtime. `label` is `rule/action`; `seed` seeds the jitter.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[must_use]
    pub fn spawn(label: &str, sink: S, config: DeliveryConfig, seed: u64) -> Self {
        Self::spawn_on(label, sink, config, seed, None, Start::Sending)
    }

    /// The same with a queue that is kept in an outbox, and goes on with what it holds already, or waits for a [`Control::resume`].
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[must_use]
    pub fn spawn_on(
        label: &str,
        sink: S,
        config: DeliveryConfig,
        seed: u64,
        outbox: Option<Outbox>,
        start: Start,
    ) -> Self {
        Self::spawn_traced(label, sink, config, seed, outbox, start, Arc::default())
    }

    /// The same with somebody who is told of single items.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[must_use]
    pub fn spawn_traced(
        label: &str,
        sink: S,
        config: DeliveryConfig,
        seed: u64,
        outbox: Option<Outbox>,
        start: Start,
        tracer: Arc<Tracer>,
    ) -> Self {
        let mut queue = Queue::new(config, sink.batch_policy(), seed, Instant::now());
        if start == Start::Paused {
            queue.pause();
        }
        let queue = match &outbox {
            Some(outbox) => queue.durable(outbox.len()),
            None => queue,
        };
        let shared = Arc::new(Shared {
            label: label.to_owned(),
            queue: Mutex::new(queue),
            sink: Mutex::new(Arc::new(sink)),
            wake: Notify::new(),
            outbox,
            teller: Teller::new(tracer, label),
        });
        let worker = tokio::spawn(worker::run(Arc::clone(&shared)));
        Self { shared, worker: Mutex::new(Some(worker)) }
    }

    /// Puts an item into the queue, or drops it, or drops others for it. Never waits.
    pub fn enqueue(&self, item: Outgoing<S::Request>) -> Enqueued {
        let Admission { outcome, settled } = self.shared.queue.lock().admit(item, Instant::now());
        self.shared.finish(settled);
        if outcome == Enqueued::Queued {
            self.shared.wake.notify_one();
        }
        outcome
    }

    /// Where the queue is kept; `None`: in memory alone.
    #[must_use]
    pub fn outbox(&self) -> Option<&Outbox> {
        self.shared.outbox.as_ref()
    }

    /// Tells of an item that the outbox has at this place. Never waits. Its identity becomes that of the place.
    pub fn placed(&self, position: Position, mut item: Outgoing<S::Request>) {
        let Some(outbox) = &self.shared.outbox else { return };
        item.id = outbox.id(position.0);
        let left = self.shared.queue.lock().placed(position.0, item, Instant::now());
        drop(left);
        self.shared.trim();
        self.shared.wake.notify_one();
    }

    /// Asks for a place in the outbox for a body of so many bytes, before the message is admitted. What is admitted at the
    /// same moment may exceed the bounds by itself. `None`: the queue is in memory.
    pub(crate) fn ask(&self, bytes: usize) -> Option<Place> {
        let outbox = self.shared.outbox.as_ref()?;
        let (items, used) = outbox.size();
        let queue = self.shared.queue.lock();
        let bounds = queue.bounds();
        let (items_max, bytes) = (count(bounds.max_items), count(bytes));
        if bytes > bounds.max_bytes {
            let text = format!("{bytes} bytes, more than the queue's limit of {}", bounds.max_bytes);
            let fate = if bounds.overflow == Overflow::DeadLetter { Fate::DeadLetter } else { Fate::Drop };
            return Some(Place::None(DropReason::TooLarge, text, fate));
        }
        if items < items_max && used.saturating_add(bytes) <= bounds.max_bytes {
            return Some(Place::Outbox);
        }
        let none = |fate| Place::None(DropReason::QueueFull, queue.full_text(), fate);
        Some(match bounds.overflow {
            // The oldest give way once it is there.
            Overflow::DropOldest => Place::Outbox,
            Overflow::Backpressure => Place::Refused(queue.full_text()),
            Overflow::DeadLetter => none(Fate::DeadLetter),
            Overflow::DropNewest => none(Fate::Drop),
        })
    }

    /// Counts an item for which [`Self::ask`] found no place, once its message is admitted.
    pub(crate) fn ended_early(&self, reason: DropReason, fate: Fate) {
        self.shared.queue.lock().ended_early(reason, fate);
    }

    /// Tells of an item that the outbox has at this place, to be read from there. Never waits.
    pub fn arrived(&self, position: Position) {
        self.shared.queue.lock().arrived(position.0);
        self.shared.wake.notify_one();
    }

    /// Replaces driver and settings. What is queued goes out through the new driver; what is in flight ends on the
    /// old one.
    pub fn reconfigure(&self, sink: S, config: DeliveryConfig) {
        let settled = {
            let mut queue = self.shared.queue.lock();
            let settled = queue.reconfigure(config, sink.batch_policy(), Instant::now());
            *self.shared.sink.lock() = Arc::new(sink);
            settled
        };
        self.shared.finish(settled);
        self.shared.wake.notify_one();
    }

    /// Returns the counters and the health of this moment.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.shared.queue.lock().snapshot(Instant::now())
    }

    /// Goes on until nothing is left, and then ends.
    pub fn retire(&self) {
        self.shared.queue.lock().retire();
        self.shared.wake.notify_one();
    }

    /// Whether it has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.shared.queue.lock().is_finished()
    }

    /// Takes back [`Self::retire`]; `false` when it has ended.
    #[must_use]
    pub fn revive(&self) -> bool {
        self.shared.queue.lock().revive()
    }

    /// Takes nothing more, sends what is queued for at most `grace`, then gives up the rest and counts it.
    pub async fn shutdown(&self, grace: Duration) {
        self.shared.queue.lock().close(Instant::now() + grace);
        self.shared.wake.notify_one();
        let worker = self.worker.lock().take();
        if let Some(worker) = worker
            && let Err(error) = worker.await
        {
            tracing::error!(action = self.shared.label, %error, "delivery worker ended early");
        }
    }
}

impl<S: Sink> Drop for Delivery<S> {
    fn drop(&mut self) {
        self.shared.queue.lock().close(Instant::now());
        self.shared.wake.notify_one();
    }
}
