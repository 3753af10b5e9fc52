//! The queue of one action: a state machine without I/O, given the time with every call.
//!
//! Items of a key stand in line behind each other; a key is *ready* (its first item may leave), *busy* (items of it are
//! in flight) or *delayed* (its first item waits to be retried). Ready keys are served by the age of their first item,
//! so across keys the order is nearly that of arrival. Three indices make every step logarithmic in the number of
//! items: waiting items by age, ready keys by age, delayed keys by time.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::batch::{BatchPolicy, Held, LINES_LOOKED_AT_MAX};
use super::burial::{Buried, Ending, Fate};
use super::circuit::{Circuit, Permit};
use super::counters::{Counters, DropReason, Snapshot};
use super::error::DeliveryError;
use super::outbox::{
    Backlog, HEAD_BYTES_MAX, HEAD_ITEMS_MAX, READ_PAUSE, Read, STRETCHED_BYTES_MAX, STRETCHED_ITEMS_MAX,
};
use super::rate::RateCap;
use super::{Enqueued, Envelope, Failure, OnFailure, Outgoing, retry};
use crate::config::{DeadLettersConfig, DeliveryConfig, Drain, Kept, Overflow, QueueBounds};
use crate::outlet::QueuedRequest;

/// Whom an item stands in line with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Key {
    /// The items of one key.
    Shared(u64),
    /// Those of them that were read from the outbox, where they don't go before what comes now.
    Later(u64),
    /// Nobody; the number is the item's own.
    Own(u64),
}

struct Item<R> {
    envelope: Arc<Envelope<R>>,
    key: Key,
    /// Place in the order of arrival.
    number: u64,
    arrived_at: Instant,
    bytes: usize,
    /// Attempts that may have reached the far side.
    attempts: u32,
    /// When the first attempt of this run began.
    first_attempt: Option<Instant>,
    /// Failures of any kind that may pass.
    failures: u32,
    on_failure: Option<OnFailure>,
    /// Most items of a batch that it may go in; halved when a batch with it was refused.
    batch_items_max: usize,
    /// Its place in the outbox; `None`: it is in memory alone.
    position: Option<u64>,
}

impl<R> Item<R> {
    fn was_tried(&self) -> bool {
        self.failures > 0 || self.batch_items_max < usize::MAX
    }

    fn settle(self, reason: DropReason, error: String, settled: &mut Settled) {
        if let Some(tell) = self.on_failure {
            settled.failed.push((tell, Failure { reason, error, attempts: self.attempts }));
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    Ready,
    Busy,
    Delayed(Instant),
}

/// The items of one key that wait. Present while it has any, or is busy.
struct Line<R> {
    items: VecDeque<Item<R>>,
    turn: Turn,
}

/// Items that ended, with those who want to know. To be told with no lock held.
#[derive(Default)]
#[must_use]
pub(super) struct Settled {
    failed: Vec<(OnFailure, Failure)>,
    /// Dropped untold, but not under the lock: what they hold may do anything when it goes.
    delivered: Vec<OnFailure>,
    /// Places in the outbox that are settled.
    pub(super) positions: Vec<u64>,
}

impl Settled {
    pub(super) fn tell(self) {
        for (tell, failure) in self.failed {
            tell(failure);
        }
        drop(self.delivered);
    }
}

pub(super) struct Admission {
    pub(super) outcome: Enqueued,
    pub(super) settled: Settled,
}

/// Items that left together.
pub(super) struct Batch<R> {
    items: Vec<Item<R>>,
    /// Whether its items share one fate.
    is_whole: bool,
}

impl<R> Batch<R> {
    pub(super) fn envelopes(&self) -> Vec<Arc<Envelope<R>>> {
        self.items.iter().map(|item| Arc::clone(&item.envelope)).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    /// The one error that all of its items have, where they share one fate and there are several.
    fn shared_fate<'r>(&self, results: &'r [Result<(), DeliveryError>]) -> Option<&'r DeliveryError> {
        let error = results.first()?.as_ref().err()?;
        let is_shared = self.is_whole
            && self.items.len() > 1
            && results.len() == self.items.len()
            && results.iter().all(|result| result.as_ref() == Err(error));
        is_shared.then_some(error)
    }

    /// When the oldest item came.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.items.iter().map(|item| item.arrived_at).min()
    }
}

/// What the worker does next.
pub(super) enum Step<R> {
    /// Send this.
    Send(Batch<R>),
    /// Read what follows this place of the outbox, then call [`Queue::loaded`].
    Load(u64),
    /// Put these away, keep the dead letters within their bounds, then call [`Queue::buried`].
    Bury(Vec<Ending>, DeadLettersConfig),
    /// Wait for a call, a result, or this moment.
    Wait(Option<Instant>),
    /// Nothing is left and nothing will come.
    Finished,
    /// The grace is over: abort what is in flight, then call [`Queue::give_up`].
    GraceOver,
}

/// Where the numbers of items begin that go behind those that come now.
const LATER: u64 = 1 << 63;

/// Most items that are put away at once.
const BURY_MAX: usize = 256;
/// How often dead letters are looked through for those that are too old.
const LETTERS_PAUSE: Duration = Duration::from_secs(600);

pub(super) struct Queue<R> {
    config: DeliveryConfig,
    /// Those of `config`, defaults filled in.
    bounds: QueueBounds,
    policy: BatchPolicy,
    random: fastrand::Rng,
    circuit: Circuit,
    lines: HashMap<Key, Line<R>>,
    /// Waiting items by number.
    waiting: BTreeMap<u64, Key>,
    /// Ready lines by the number of their first item.
    ready: BTreeMap<u64, Key>,
    /// Delayed lines by the time when they become ready.
    delayed: BTreeSet<(Instant, Key)>,
    /// Batches that are to be sent again as they are; their lines are busy.
    held: Held<R>,
    rate: RateCap,
    next_number: u64,
    /// Bytes of items waiting or in flight.
    bytes: usize,
    in_flight: usize,
    in_flight_batches: usize,
    counters: Counters,
    closes_at: Option<Instant>,
    /// Nothing new is expected: it ends once nothing is left.
    is_retired: bool,
    is_finished: bool,
    /// The part on disk, where the queue is kept there.
    backlog: Option<Backlog>,
    /// Items of the outbox that ended without being delivered and are still in it.
    ending: VecDeque<Ending>,
    /// How many more are being put away; `None`: nothing is done about them or dead letters just now.
    burying: Option<usize>,
    /// When something is put away next, if there is something then.
    bury_at: Instant,
    /// When dead letters are looked through next.
    letters_at: Instant,
}

impl<R: QueuedRequest> Queue<R> {
    /// A queue that begins with `backlog` on disk.
    pub(super) fn durable(mut self, backlog: u64) -> Self {
        self.counters.received = backlog;
        self.backlog = Some(Backlog::new(backlog));
        self.bounds = self.config.queue.bounds(Kept::OnDisk);
        self
    }

    pub(super) fn new(config: DeliveryConfig, policy: BatchPolicy, seed: u64, now: Instant) -> Self {
        Self {
            backlog: None,
            ending: VecDeque::new(),
            burying: None,
            bury_at: now,
            letters_at: now,
            bounds: config.queue.bounds(Kept::InMemory),
            config,
            policy,
            random: fastrand::Rng::with_seed(seed),
            circuit: Circuit::new(now),
            lines: HashMap::new(),
            waiting: BTreeMap::new(),
            ready: BTreeMap::new(),
            delayed: BTreeSet::new(),
            held: Held::default(),
            rate: RateCap::default(),
            next_number: 0,
            bytes: 0,
            in_flight: 0,
            in_flight_batches: 0,
            counters: Counters::default(),
            closes_at: None,
            is_retired: false,
            is_finished: false,
        }
    }

    fn item(
        &mut self,
        outgoing: Outgoing<R>,
        arrived_at: Instant,
        position: Option<u64>,
        replayed: Option<i64>,
    ) -> Item<R> {
        let number = self.next_number;
        self.next_number += 1;
        Item {
            bytes: outgoing.request.bytes().saturating_add(outgoing.extra_bytes),
            envelope: Arc::new(Envelope { id: outgoing.id, request: outgoing.request, replayed }),
            key: outgoing.key.map_or(Key::Own(number), Key::Shared),
            number,
            arrived_at,
            attempts: 0,
            first_attempt: None,
            failures: 0,
            on_failure: outgoing.on_failure,
            batch_items_max: usize::MAX,
            position,
        }
    }

    /// Takes an item that has this place in the outbox, or leaves it there. Returns it if it was left, to be dropped where
    /// no lock is held.
    pub(super) fn placed(
        &mut self,
        position: u64,
        outgoing: Outgoing<R>,
        now: Instant,
    ) -> Option<Outgoing<R>> {
        self.counters.received += 1;
        let has_room = self.has_room_in_head() && self.closes_at.is_none() && !self.is_finished;
        let drain = self.config.queue.drain;
        if self.backlog.as_mut().is_some_and(|backlog| !backlog.told(position, has_room, drain)) {
            return Some(outgoing);
        }
        let item = self.item(outgoing, now, Some(position), None);
        self.bytes += item.bytes;
        self.push_back(item);
        None
    }

    /// Hears of an item that is to be read from the outbox.
    pub(super) fn arrived(&mut self, position: u64) {
        self.counters.received += 1;
        if let Some(backlog) = &mut self.backlog {
            // Without room it is left on disk.
            backlog.told(position, false, self.config.queue.drain);
        }
    }

    /// Takes what was read from the outbox.
    pub(super) fn loaded(&mut self, read: Vec<Read<R>>, now: Instant) {
        let found_any = !read.is_empty();
        for Read { position, id, age, replayed, decoded } in read {
            if self.backlog.as_mut().is_some_and(|backlog| !backlog.found(position)) {
                continue;
            }
            let Some((key, request)) = decoded else {
                self.ending.push_back(Ending {
                    position,
                    id,
                    reason: DropReason::Unreadable,
                    error: "what the outbox kept of it can't be read".to_owned(),
                    attempts: 0,
                    first_attempt: None,
                    fate: Fate::DeadLetter,
                });
                continue;
            };
            let arrived_at = now.checked_sub(age).unwrap_or(now);
            let mut item = self.item(Outgoing::new(id, key, request), arrived_at, Some(position), replayed);
            if self.config.queue.drain == Drain::LiveFirst {
                item.number += LATER;
                item.key = key.map_or(Key::Own(item.number), Key::Later);
            }
            self.bytes += item.bytes;
            self.push_back(item);
        }
        if let Some(backlog) = &mut self.backlog {
            backlog.end_read(found_any);
        }
    }

    /// Takes back what was to be put away, with what became of it, and how many dead letters gave way.
    pub(super) fn buried(&mut self, buried: Vec<Buried>, letters_dropped: u64, now: Instant) {
        self.burying = None;
        self.counters.letters_dropped += letters_dropped;
        for buried in buried.into_iter().rev() {
            match buried {
                Buried::DeadLetter(reason) => self.counters.dead_letter_one(reason),
                Buried::Dropped(reason) => self.counters.drop_one(reason),
                Buried::Again(ending) => {
                    self.bury_at = now + READ_PAUSE;
                    self.ending.push_front(ending);
                }
            }
        }
    }

    /// What was to be put away is left to the disk and the next start.
    pub(super) fn burial_failed(&mut self) {
        let burying = self.burying.take().unwrap_or(0);
        if let Some(backlog) = &mut self.backlog {
            (0..burying).for_each(|_| backlog.leave());
        }
    }

    /// An item was put among the dead letters, or dropped, before it had a place in the outbox.
    pub(super) fn ended_early(&mut self, reason: DropReason, fate: Fate) {
        self.counters.received += 1;
        match fate {
            Fate::DeadLetter => self.counters.dead_letter_one(reason),
            Fate::Drop => self.counters.drop_one(reason),
        }
    }

    /// Whether something waits to be put away and may not be just now.
    #[cfg(test)]
    pub(super) fn bury_is_put_off(&self, now: Instant) -> bool {
        !self.ending.is_empty() && self.bury_at > now
    }

    /// Whether something is being put away, or dead letters are looked through or about to be.
    #[cfg(test)]
    pub(super) fn is_burying(&self) -> bool {
        self.burying.is_some() || self.letters_at <= Instant::now()
    }

    pub(super) fn bounds(&self) -> &QueueBounds {
        &self.bounds
    }

    /// Drops the oldest items of an outbox that has so many items and bytes, as far as its policy and its bounds say so
    /// and they are in memory. Returns whether there was any.
    pub(super) fn trim(&mut self, items: u64, bytes: u64) -> bool {
        if self.bounds.overflow != Overflow::DropOldest {
            return false;
        }
        let ended = count(self.ended());
        let average = bytes / items.max(1);
        let items = items.saturating_sub(ended);
        let bytes = bytes.saturating_sub(ended.saturating_mul(average));
        let too_many = items.saturating_sub(count(self.bounds.max_items));
        let too_large = bytes.saturating_sub(self.bounds.max_bytes).div_ceil(average.max(1));
        let mut trimmed = false;
        for _ in 0..too_many.max(too_large) {
            let Some(item) = self.pop_oldest() else { break };
            trimmed = true;
            let text = self.full_text();
            // Whatever is told is told when it is put away.
            self.end(item, DropReason::QueueFull, text, Fate::Drop, &mut Settled::default());
        }
        trimmed
    }

    /// The outbox could not be read.
    pub(super) fn load_failed(&mut self, until: Instant) {
        if let Some(backlog) = &mut self.backlog {
            backlog.fail_read(until);
        }
    }

    /// Counts what the store has lost, given how many items it still has.
    pub(super) fn count_lost(&mut self, on_disk: u64) {
        let in_memory = count(self.in_memory());
        let lost = self.backlog.as_mut().map_or(0, |backlog| backlog.lost(on_disk, in_memory));
        (0..lost).for_each(|_| self.counters.drop_one(DropReason::Lost));
    }

    fn has_room_in_head(&self) -> bool {
        let heads = match self.config.queue.drain {
            Drain::OldestFirst => 1,
            Drain::LiveFirst => 2,
        };
        self.in_memory() < HEAD_ITEMS_MAX * heads && self.bytes < HEAD_BYTES_MAX * heads
    }

    /// Items that wait, are in flight, or ended and are to be put away.
    fn in_memory(&self) -> usize {
        self.waiting.len() + self.held.items() + self.in_flight + self.ended()
    }

    /// Items that ended and are still in the outbox.
    fn ended(&self) -> usize {
        self.ending.len() + self.burying.unwrap_or(0)
    }

    pub(super) fn admit(&mut self, outgoing: Outgoing<R>, now: Instant) -> Admission {
        self.counters.received += 1;
        let item = self.item(outgoing, now, None, None);
        let mut settled = Settled::default();
        let refusal = if self.closes_at.is_some() {
            Some((DropReason::Shutdown, "the action is stopping".to_owned()))
        } else if item.bytes > self.bytes_max() {
            let text = format!("{} bytes, more than the queue's limit of {}", item.bytes, self.bytes_max());
            Some((DropReason::TooLarge, text))
        } else {
            if self.bounds.overflow == Overflow::DropOldest {
                self.make_room(1, item.bytes, &mut settled);
            }
            let is_full = !self.has_room(1, item.bytes);
            is_full.then(|| (DropReason::QueueFull, self.full_text()))
        };
        let outcome = match refusal {
            Some((reason, error)) => {
                self.counters.drop_one(reason);
                item.settle(reason, error, &mut settled);
                Enqueued::Dropped(reason)
            }
            None => {
                self.bytes += item.bytes;
                self.push_back(item);
                Enqueued::Queued
            }
        };
        Admission { outcome, settled }
    }

    /// Takes over new settings; items that don't fit any more give way by the new policy.
    pub(super) fn reconfigure(
        &mut self,
        config: DeliveryConfig,
        policy: BatchPolicy,
        now: Instant,
    ) -> Settled {
        self.config = config;
        self.policy = policy;
        let kept = if self.backlog.is_some() { Kept::OnDisk } else { Kept::InMemory };
        self.bounds = config.queue.bounds(kept);
        self.circuit.reconfigured(now);
        let mut settled = Settled::default();
        if self.backlog.is_some() {
            return settled;
        }
        match self.bounds.overflow {
            Overflow::DropOldest => self.make_room(0, 0, &mut settled),
            Overflow::DropNewest | Overflow::DeadLetter | Overflow::Backpressure => {
                while !self.has_room(0, 0) {
                    let Some(item) = self.pop_newest() else {
                        if !self.take_apart_any() {
                            break;
                        }
                        continue;
                    };
                    self.drop_item(item, DropReason::QueueFull, self.full_text(), &mut settled);
                }
            }
        }
        settled
    }

    /// Ends once nothing is left.
    pub(super) fn retire(&mut self) {
        self.is_retired = true;
    }

    pub(super) fn is_finished(&self) -> bool {
        self.is_finished
    }

    /// Goes on after all; `false` when it has ended.
    pub(super) fn revive(&mut self) -> bool {
        self.is_retired &= self.is_finished;
        !self.is_finished
    }

    pub(super) fn close(&mut self, at: Instant) {
        self.closes_at = Some(self.closes_at.map_or(at, |other| other.min(at)));
    }

    /// Says what the worker does next; items that grew too old are settled on the way.
    pub(super) fn next(&mut self, now: Instant) -> (Step<R>, Settled) {
        let mut settled = Settled::default();
        let expires_at = self.expire(now, &mut settled);
        if let Some(step) = self.begin_burial(now) {
            return (step, settled);
        }
        if let Some(closes_at) = self.closes_at {
            if self.waiting.is_empty()
                && self.held.is_empty()
                && self.in_flight_batches == 0
                && self.ending.is_empty()
                && self.burying.is_none()
            {
                self.is_finished = true;
                return (Step::Finished, settled);
            }
            if closes_at <= now {
                return (Step::GraceOver, settled);
            }
        }
        if self.is_retired && self.in_memory() == 0 && self.backlog.as_ref().is_none_or(Backlog::is_empty) {
            self.is_finished = true;
            return (Step::Finished, settled);
        }
        self.end_delays(now);
        let is_low = self.in_memory() <= HEAD_ITEMS_MAX / 2 && self.bytes < HEAD_BYTES_MAX / 2;
        // Those that are there may all wait for one slow far end while there is more for others.
        let is_stuck = self.ready.is_empty()
            && self.in_flight_batches < self.config.concurrency
            && self.in_memory() < STRETCHED_ITEMS_MAX
            && self.bytes < STRETCHED_BYTES_MAX;
        if let Some(backlog) = &mut self.backlog
            && (is_low || is_stuck)
            && self.closes_at.is_none()
            && let Some(after) = backlog.begin_read(now)
        {
            return (Step::Load(after), settled);
        }
        let mut wait_until = earliest(expires_at, self.closes_at);
        wait_until = earliest(wait_until, self.backlog.as_ref().and_then(|backlog| backlog.paused_until));
        wait_until = earliest(wait_until, self.delayed.first().map(|(at, _)| *at));
        if self.backlog.is_some() && self.burying.is_none() {
            let bury_at = if self.ending.is_empty() { self.letters_at } else { self.bury_at };
            wait_until = earliest(wait_until, Some(bury_at));
        }
        let held_due = self.held.next_due();
        wait_until = earliest(wait_until, held_due.filter(|due| *due > now));
        let is_held_due = held_due.is_some_and(|due| due <= now);
        if self.in_flight_batches < self.config.concurrency && (is_held_due || !self.ready.is_empty()) {
            match self.circuit.permit(now, self.in_flight_batches) {
                Permit::Send => match self.stays_until(is_held_due, now) {
                    None => return (Step::Send(self.leave(now)), settled),
                    Some(until) => wait_until = earliest(wait_until, Some(until)),
                },
                Permit::WaitForProbe => {}
                Permit::WaitUntil(until) => wait_until = earliest(wait_until, Some(until)),
            }
        }
        (Step::Wait(wait_until), settled)
    }

    /// Takes back a batch with one result per item.
    pub(super) fn complete(
        &mut self,
        batch: Batch<R>,
        results: Vec<Result<(), DeliveryError>>,
        now: Instant,
    ) -> Settled {
        let mut settled = Settled::default();
        let mut verdict = Verdict::Inconclusive;
        let mut back: Vec<(Item<R>, Option<Instant>)> = Vec::new();
        let mut keys: Vec<Key> = Vec::new();
        self.in_flight_batches = self.in_flight_batches.saturating_sub(1);
        self.in_flight -= batch.len();
        let shared_fate = batch.shared_fate(&results).cloned();
        if shared_fate.as_ref().is_some_and(DeliveryError::may_be_one_items_fault) {
            self.circuit.succeeded(now);
            self.halve(batch);
            return settled;
        }
        let items_before = batch.len();
        let mut results = results.into_iter();
        for mut item in batch.items {
            if keys.last() != Some(&item.key) {
                keys.push(item.key);
            }
            let result = results.next().unwrap_or_else(|| {
                Err(DeliveryError::Driver { cause: "it gave no result for this item".to_owned() })
            });
            verdict.see(&result);
            let Err(error) = result else {
                self.bytes -= item.bytes;
                self.counters.delivered += 1;
                settled.delivered.extend(item.on_failure);
                settled.positions.extend(item.position);
                continue;
            };
            if error.is_attempt() {
                item.attempts = item.attempts.saturating_add(1);
            }
            if !error.is_retriable() {
                self.drop_item(item, error.drop_reason(), error.to_string(), &mut settled);
            } else if error.is_attempt() && item.attempts >= self.config.retry.max_attempts {
                let text =
                    format!("{error} (attempt {} of {})", item.attempts, self.config.retry.max_attempts);
                self.drop_item(item, DropReason::RetriesExhausted, text, &mut settled);
            } else if error == DeliveryError::NotAttempted {
                back.push((item, None));
            } else {
                item.failures = item.failures.saturating_add(1);
                let asked = error.retry_after().unwrap_or_default().min(self.config.retry.max_backoff);
                let pause = retry::backoff(&self.config.retry, item.failures, &mut self.random).max(asked);
                back.push((item, Some(now + pause)));
            }
        }
        if shared_fate.is_some_and(|error| error != DeliveryError::NotAttempted)
            && back.len() == items_before
            && let Some(until) = back.iter().filter_map(|(_, until)| *until).max()
        {
            let items = std::mem::take(&mut back).into_iter().map(|(item, _)| item).collect();
            self.held.hold(Batch { items, is_whole: true }, until);
            keys.clear();
        }
        // Last first, so that the first ends up in front; its pause holds for the line.
        let mut delays: HashMap<Key, Option<Instant>> = HashMap::new();
        while let Some((item, delay)) = back.pop() {
            delays.insert(item.key, delay);
            self.push_front(item);
        }
        for key in keys {
            self.release(key, delays.get(&key).copied().flatten());
        }
        match verdict {
            Verdict::There => self.circuit.succeeded(now),
            Verdict::Failed(error) => self.circuit.failed(&error, &self.config.retry, &mut self.random, now),
            Verdict::Inconclusive => self.circuit.inconclusive(now),
        }
        settled
    }

    /// Drops everything that waits; the batches in flight have been completed or aborted by now.
    pub(super) fn give_up(&mut self, aborted: Vec<Batch<R>>) -> Settled {
        let mut settled = Settled::default();
        for item in aborted.into_iter().flat_map(|batch| batch.items) {
            self.in_flight -= 1;
            self.leave_or_drop(item, "given up in flight", &mut settled);
        }
        self.in_flight_batches = 0;
        while self.take_apart_any() {}
        while let Some(item) = self.pop_oldest() {
            self.leave_or_drop(item, "the grace was over", &mut settled);
        }
        if let Some(backlog) = &mut self.backlog {
            self.ending.drain(..).for_each(|_| backlog.leave());
        }
        self.lines.clear();
        settled
    }

    /// What is in the outbox stays there for the next start.
    fn leave_or_drop(&mut self, item: Item<R>, error: &str, settled: &mut Settled) {
        match &mut self.backlog {
            Some(backlog) => {
                self.bytes -= item.bytes;
                backlog.leave();
                settled.delivered.extend(item.on_failure);
            }
            None => self.drop_item(item, DropReason::Shutdown, error.to_owned(), settled),
        }
    }

    pub(super) fn snapshot(&self, now: Instant) -> Snapshot {
        let oldest = self.waiting.first_key_value().and_then(|(_, key)| self.lines.get(key)?.items.front());
        let oldest = earliest(oldest.map(|item| item.arrived_at), self.held.oldest());
        let (on_disk, untold) = self.backlog.as_ref().map_or((0, 0), Backlog::counts);
        Snapshot {
            received: self.counters.received + untold,
            delivered: self.counters.delivered,
            retried: self.counters.retried,
            queued: count(self.waiting.len() + self.held.items() + self.ended()) + on_disk,
            bytes: count(self.bytes),
            in_flight: count(self.in_flight),
            oldest_age: oldest.map(|arrived_at| now.duration_since(arrived_at)),
            dropped: self.counters.dropped(),
            dead_lettered: self.counters.dead_lettered(),
            letters_dropped: self.counters.letters_dropped,
            health: self.circuit.health(now),
        }
    }

    /// What is to be put away now, if anything.
    fn begin_burial(&mut self, now: Instant) -> Option<Step<R>> {
        let has_endings = !self.ending.is_empty() && self.bury_at <= now;
        let looks_through = self.letters_at <= now && self.closes_at.is_none();
        if self.backlog.is_none() || self.burying.is_some() || !(has_endings || looks_through) {
            return None;
        }
        let endings: Vec<Ending> = if has_endings {
            self.ending.drain(..self.ending.len().min(BURY_MAX)).collect()
        } else {
            Vec::new()
        };
        self.letters_at = now + LETTERS_PAUSE;
        self.burying = Some(endings.len());
        Some(Step::Bury(endings, self.bounds.dead_letters))
    }

    /// Drops items past their age, and returns when the next one will be.
    fn expire(&mut self, now: Instant, settled: &mut Settled) -> Option<Instant> {
        let max_age = self.bounds.max_age;
        if let Some(oldest) = now.checked_sub(max_age) {
            // What is left of such a batch is another batch.
            while let Some(batch) = self.held.take_older(oldest) {
                self.take_apart(batch);
            }
        }
        let held_until = self.held.oldest().map(|arrived_at| arrived_at + max_age);
        loop {
            let Some((number, key)) = self.oldest() else { return held_until };
            let expires_at = self.lines.get(&key)?.items.front()?.arrived_at + max_age;
            if expires_at > now {
                return earliest(Some(expires_at), held_until);
            }
            let item = self.pop_front(number, key)?;
            self.drop_item(item, DropReason::Expired, format!("older than {max_age:?}"), settled);
        }
    }

    fn end_delays(&mut self, now: Instant) {
        while let Some((at, key)) = self.delayed.first().copied() {
            if at > now {
                break;
            }
            self.delayed.remove(&(at, key));
            if let Some(line) = self.lines.get_mut(&key) {
                line.turn = Turn::Ready;
                if let Some(front) = line.items.front() {
                    self.ready.insert(front.number, key);
                }
            }
        }
    }

    /// Until when what could leave now has to stay: for the rate, or for company.
    fn stays_until(&self, is_held_due: bool, now: Instant) -> Option<Instant> {
        let per_second = self.config.max_per_second;
        let rate = per_second.and_then(|per_second| self.rate.blocked_until(per_second, now));
        if rate.is_some() || is_held_due { rate } else { self.lingers_until(now) }
    }

    /// Until when the first ready item waits for company, if it still does.
    fn lingers_until(&self, now: Instant) -> Option<Instant> {
        if self.policy.linger.is_zero() || self.closes_at.is_some() {
            return None;
        }
        let (_, key) = self.ready.first_key_value()?;
        let front = self.lines.get(key)?.items.front()?;
        let until = front.arrived_at + self.policy.linger;
        if front.failures > 0 || front.batch_items_max < usize::MAX || until <= now {
            return None;
        }
        let may_be_full = self.waiting.len() >= self.policy.max_items || self.bytes >= self.policy.max_bytes;
        (!may_be_full || !self.gather().is_full).then_some(until)
    }

    /// Which items would leave together now: those that go with the first ready one.
    fn gather(&self) -> Gathered {
        let mut gathered = Gathered { parts: Vec::new(), is_full: false };
        let mut items_max = self.policy.max_items;
        let (mut items, mut bytes) = (0_usize, 0_usize);
        let mut first: Option<&R> = None;
        for (number, key) in self.ready.iter().take(LINES_LOOKED_AT_MAX) {
            let Some(line) = self.lines.get(key) else { continue };
            let mut from_line = 0;
            for item in &line.items {
                let request = &item.envelope.request;
                // Those behind it in the line may not overtake it.
                if first.is_some_and(|first| !request.goes_with(first)) {
                    break;
                }
                first.get_or_insert(request);
                let with_it = items_max.min(item.batch_items_max);
                if !self.policy.has_room(with_it, items, bytes, request.batch_bytes()) {
                    gathered.is_full = true;
                    break;
                }
                items_max = with_it;
                items += 1;
                bytes = bytes.saturating_add(request.batch_bytes());
                from_line += 1;
            }
            if from_line > 0 {
                gathered.parts.push((*number, *key, from_line));
            }
            if gathered.is_full {
                break;
            }
        }
        gathered.is_full |= items >= items_max;
        gathered
    }

    /// Takes what is to be sent next: a batch that is to be sent again, or a new one.
    fn leave(&mut self, now: Instant) -> Batch<R> {
        let mut batch = self.held.take_due(now).unwrap_or_else(|| self.take());
        for item in &mut batch.items {
            item.first_attempt.get_or_insert(now);
        }
        self.counters.retried += count(batch.items.iter().filter(|item| item.was_tried()).count());
        self.in_flight += batch.len();
        self.in_flight_batches += 1;
        self.circuit.sent(now);
        if let Some(per_second) = self.config.max_per_second {
            self.rate.spend(per_second, now);
        }
        batch
    }

    fn take(&mut self) -> Batch<R> {
        let mut items: Vec<Item<R>> = Vec::new();
        for (number, key, from_line) in self.gather().parts {
            let Some(line) = self.lines.get_mut(&key) else { continue };
            for item in line.items.drain(..from_line) {
                self.waiting.remove(&item.number);
                items.push(item);
            }
            line.turn = Turn::Busy;
            self.ready.remove(&number);
        }
        Batch { items, is_whole: self.policy.is_whole }
    }

    /// Puts the items of a batch back in front of their lines; they may go in batches of half its size at most.
    fn halve(&mut self, mut batch: Batch<R>) {
        let half = batch.len().div_ceil(2);
        for item in &mut batch.items {
            item.batch_items_max = half;
        }
        self.take_apart(batch);
    }

    /// Puts the items of a batch back in front of their lines.
    fn take_apart(&mut self, batch: Batch<R>) {
        let keys: Vec<Key> = batch.items.iter().map(|item| item.key).collect();
        for item in batch.items.into_iter().rev() {
            self.push_front(item);
        }
        for key in keys {
            self.release(key, None);
        }
    }

    /// Takes a batch apart that was to be sent again as it is, if there is any.
    fn take_apart_any(&mut self) -> bool {
        let batch = self.held.take_any();
        let found = batch.is_some();
        if let Some(batch) = batch {
            self.take_apart(batch);
        }
        found
    }

    fn push_back(&mut self, item: Item<R>) {
        let (number, key) = (item.number, item.key);
        self.waiting.insert(number, key);
        let line =
            self.lines.entry(key).or_insert_with(|| Line { items: VecDeque::new(), turn: Turn::Ready });
        if line.items.is_empty() && line.turn == Turn::Ready {
            self.ready.insert(number, key);
        }
        line.items.push_back(item);
    }

    /// Puts an item that was in flight back; its line is busy until [`Self::release`].
    fn push_front(&mut self, item: Item<R>) {
        self.waiting.insert(item.number, item.key);
        let line =
            self.lines.entry(item.key).or_insert_with(|| Line { items: VecDeque::new(), turn: Turn::Busy });
        line.items.push_front(item);
    }

    fn release(&mut self, key: Key, delay: Option<Instant>) {
        let Some(line) = self.lines.get_mut(&key) else { return };
        if line.turn != Turn::Busy {
            return;
        }
        match (line.items.front(), delay) {
            (None, _) => {
                self.lines.remove(&key);
            }
            (Some(_), Some(at)) => {
                line.turn = Turn::Delayed(at);
                self.delayed.insert((at, key));
            }
            (Some(front), None) => {
                line.turn = Turn::Ready;
                self.ready.insert(front.number, key);
            }
        }
    }

    /// The number and the key of the item that has waited longest: what was read from the outbox has waited longer than what
    /// came meanwhile.
    fn oldest(&self) -> Option<(u64, Key)> {
        let later = self.waiting.range(LATER..).next();
        later.or_else(|| self.waiting.first_key_value()).map(|(number, key)| (*number, *key))
    }

    fn pop_oldest(&mut self) -> Option<Item<R>> {
        let (number, key) = self.oldest()?;
        self.pop_front(number, key)
    }

    /// Takes out the item of this number, which stands first in the line of this key.
    fn pop_front(&mut self, number: u64, key: Key) -> Option<Item<R>> {
        self.waiting.remove(&number)?;
        let item = self.lines.get_mut(&key)?.items.pop_front()?;
        debug_assert_eq!(item.number, number, "the oldest item stands first in its line");
        self.front_left(number, key);
        Some(item)
    }

    fn pop_newest(&mut self) -> Option<Item<R>> {
        let (number, key) = self.waiting.pop_last()?;
        let item = self.lines.get_mut(&key)?.items.pop_back()?;
        debug_assert_eq!(item.number, number, "the newest item stands last in its line");
        self.front_left(number, key);
        Some(item)
    }

    /// Brings the indices in line after the item with `number` left the line other than by being sent.
    fn front_left(&mut self, number: u64, key: Key) {
        let Some(line) = self.lines.get(&key) else { return };
        match (line.turn, line.items.front()) {
            (Turn::Ready, front) => {
                let front = front.map(|front| front.number);
                if self.ready.remove(&number).is_some()
                    && let Some(front) = front
                {
                    self.ready.insert(front, key);
                }
                if front.is_none() {
                    self.lines.remove(&key);
                }
            }
            (Turn::Delayed(at), None) => {
                self.delayed.remove(&(at, key));
                self.lines.remove(&key);
            }
            (Turn::Delayed(_), Some(_)) | (Turn::Busy, _) => {}
        }
    }

    fn make_room(&mut self, items: usize, bytes: usize, settled: &mut Settled) {
        while !self.has_room(items, bytes) {
            let Some(item) = self.pop_oldest() else {
                if !self.take_apart_any() {
                    break;
                }
                continue;
            };
            self.drop_item(item, DropReason::QueueFull, self.full_text(), settled);
        }
    }

    fn has_room(&self, items: usize, bytes: usize) -> bool {
        self.in_memory() + items <= self.bounds.max_items
            && self.bytes.saturating_add(bytes) <= self.bytes_max()
    }

    fn bytes_max(&self) -> usize {
        usize::try_from(self.bounds.max_bytes).unwrap_or(usize::MAX)
    }

    pub(super) fn full_text(&self) -> String {
        let QueueBounds { max_items, max_bytes, overflow, .. } = self.bounds;
        format!("the queue is full ({max_items} items or {max_bytes} bytes; {})", overflow.as_str())
    }

    fn drop_item(&mut self, item: Item<R>, reason: DropReason, error: String, settled: &mut Settled) {
        self.end(item, reason, error, Fate::DeadLetter, settled);
    }

    /// Ends an item that isn't delivered. One that is in the outbox counts as queued until it is put away.
    fn end(&mut self, item: Item<R>, reason: DropReason, error: String, fate: Fate, settled: &mut Settled) {
        self.bytes -= item.bytes;
        let Some(position) = item.position else {
            self.counters.drop_one(reason);
            item.settle(reason, error, settled);
            return;
        };
        let Item { envelope, attempts, first_attempt, .. } = item;
        let id = envelope.id;
        self.ending.push_back(Ending { position, id, reason, error, attempts, first_attempt, fate });
    }
}

/// The items that would leave together.
struct Gathered {
    /// Lines by the number of their first item, with how many of their items go.
    parts: Vec<(u64, Key, usize)>,
    /// Whether no more would fit.
    is_full: bool,
}

/// What a batch's results say about the far side.
enum Verdict {
    Inconclusive,
    Failed(DeliveryError),
    There,
}

impl Verdict {
    fn see(&mut self, result: &Result<(), DeliveryError>) {
        match (result, &self) {
            (Ok(()), _) => *self = Self::There,
            (Err(DeliveryError::Answered { .. }), Self::Inconclusive) if !is_passing(result) => {
                *self = Self::There
            }
            (Err(error), Self::Inconclusive)
                if error.is_retriable() && *error != DeliveryError::NotAttempted =>
            {
                *self = Self::Failed(error.clone());
            }
            _ => {}
        }
    }
}

fn is_passing(result: &Result<(), DeliveryError>) -> bool {
    result.as_ref().is_err_and(DeliveryError::is_retriable)
}

fn earliest(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

fn count(value: usize) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

/// Longest pause for which a timer is set at all; tokio's timers end some years out.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(86_400);
