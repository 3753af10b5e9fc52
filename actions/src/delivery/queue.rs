//! The queue of one action: a state machine without I/O, given the time with every call.
//!
//! What waits stands in [`Lines`]; here it is decided what is let in and read from the outbox, when something is sent, and
//! what every result means.

mod control;
mod disk;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use store::Histogram;
use tokio::time::Instant;

use super::batch::{BatchPolicy, Held};
use super::burial::{Ending, Fate};
use super::circuit::{Circuit, Permit, Verdict};
use super::control::Stops;
use super::counters::{Counters, DropReason, LATENCY_BOUNDS, LastError, Snapshot};
use super::error::DeliveryError;
use super::item::{Batch, Item, Key, Settled};
use super::lines::Lines;
use super::outbox::{Backlog, HEAD_BYTES_MAX, HEAD_ITEMS_MAX, STRETCHED_BYTES_MAX, STRETCHED_ITEMS_MAX};
use super::rate::RateCap;
use super::traced::{GivenUp, Traced};
use super::{Enqueued, Envelope, Outgoing, retry};
use crate::config::{DeadLettersConfig, DeliveryConfig, Kept, Overflow, QueueBounds};
use crate::outlet::QueuedRequest;

pub(super) struct Admission {
    pub(super) outcome: Enqueued,
    pub(super) settled: Settled,
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
    /// The grace is over, or of no use: abort what is in flight, then call [`Queue::give_up`].
    GraceOver,
}

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
    /// Items that wait.
    lines: Lines<R>,
    /// Batches that are to be sent again as they are; their lines are busy.
    held: Held<R>,
    rate: RateCap,
    next_number: u64,
    /// Bytes of items waiting or in flight.
    bytes: usize,
    in_flight: usize,
    in_flight_batches: usize,
    counters: Counters,
    latency: Histogram,
    closes_at: Option<Instant>,
    /// Nothing new is expected: it ends once nothing is left.
    is_retired: bool,
    is_finished: bool,
    /// What an operator wants.
    stops: Stops,
    /// The last attempt that failed, and the last item that was confirmed.
    last_error: Option<(String, Instant)>,
    last_delivered: Option<Instant>,
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
            lines: Lines::default(),
            held: Held::default(),
            rate: RateCap::default(),
            next_number: 0,
            bytes: 0,
            in_flight: 0,
            in_flight_batches: 0,
            counters: Counters::default(),
            latency: Histogram::new(LATENCY_BOUNDS),
            closes_at: None,
            is_retired: false,
            is_finished: false,
            stops: Stops::default(),
            last_error: None,
            last_delivered: None,
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
            envelope: Arc::new(Envelope {
                id: outgoing.id,
                request: outgoing.request,
                replayed,
                trace: Traced::new(outgoing.trace),
            }),
            key: outgoing.key.map_or(Key::Own(number), Key::Shared),
            number,
            arrived_at,
            attempts: 0,
            was_attempted: false,
            first_attempt: None,
            failures: 0,
            on_failure: outgoing.on_failure,
            batch_items_max: usize::MAX,
            position,
        }
    }

    pub(super) fn bounds(&self) -> &QueueBounds {
        &self.bounds
    }

    /// Items that wait, are in flight, or ended and are to be put away.
    fn in_memory(&self) -> usize {
        self.lines.len() + self.held.len() + self.in_flight + self.ended()
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
                self.lines.push_back(item);
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
                    let Some(item) = self.lines.pop_newest() else {
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
        // Before anything that may be the last step.
        self.end_purges();
        if let Some(step) = self.begin_burial(now) {
            return (step, settled);
        }
        if let Some(closes_at) = self.closes_at {
            if self.lines.is_empty()
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
        self.lines.end_delays(now);
        let is_low = self.in_memory() <= HEAD_ITEMS_MAX / 2 && self.bytes < HEAD_BYTES_MAX / 2;
        // Those that are there may all wait for one slow far end while there is more for others.
        let is_stuck = self.lines.none_is_ready()
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
        wait_until = earliest(wait_until, self.lines.delayed_until());
        if self.backlog.is_some() && self.burying.is_none() {
            let bury_at = if self.ending.is_empty() { self.letters_at } else { self.bury_at };
            wait_until = earliest(wait_until, Some(bury_at));
        }
        let held_due = self.held.next_due();
        wait_until = earliest(wait_until, held_due.filter(|due| *due > now));
        let is_held_due = held_due.is_some_and(|due| due <= now);
        let may_send = !self.stops.is_paused && self.in_flight_batches < self.config.concurrency;
        if may_send && (is_held_due || !self.lines.none_is_ready()) {
            match self.circuit.permit(now, self.in_flight_batches) {
                Permit::Send => match self.stays_until(is_held_due, now) {
                    None => return (Step::Send(self.leave(now)), settled),
                    Some(until) => wait_until = earliest(wait_until, Some(until)),
                },
                Permit::WaitForProbe => {}
                Permit::WaitUntil(until) => wait_until = earliest(wait_until, Some(until)),
            }
        }
        // To wait for the far side, or for an operator, would only hold up the stop: the next start goes on from the disk.
        let is_idle = self.in_flight_batches == 0 && self.burying.is_none();
        if self.closes_at.is_some() && is_idle && (self.stops.is_paused || self.rests_on_disk()) {
            return (Step::GraceOver, settled);
        }
        (Step::Wait(wait_until), settled)
    }

    /// Whether everything that waits is in the outbox.
    fn rests_on_disk(&self) -> bool {
        let has_place = |item: &Item<R>| item.position.is_some();
        self.backlog.is_some() && self.lines.items().all(has_place) && self.held.iter().all(has_place)
    }

    /// Takes back a batch with one result per item.
    pub(super) fn complete(
        &mut self,
        mut batch: Batch<R>,
        results: Vec<Result<(), DeliveryError>>,
        now: Instant,
    ) -> Settled {
        let mut settled = Settled::default();
        let mut verdict = Verdict::Inconclusive;
        let mut back: Vec<(Item<R>, Option<Instant>)> = Vec::new();
        let mut keys: Vec<Key> = Vec::new();
        self.in_flight_batches = self.in_flight_batches.saturating_sub(1);
        self.in_flight -= batch.len();
        self.count_attempts(&mut batch, &results);
        let shared_fate = batch.shared_fate(&results).cloned();
        let is_purged = batch.items.iter().any(|item| self.stops.has_purged(item));
        if !is_purged && shared_fate.as_ref().is_some_and(DeliveryError::may_be_one_items_fault) {
            self.circuit.succeeded(now);
            self.halve(batch);
            return settled;
        }
        let items_before = batch.len();
        let delivered_before = self.counters.delivered;
        let took = batch.sent_at.map(|sent_at| now.duration_since(sent_at)).unwrap_or_default();
        let mut results = results.into_iter();
        // Lines of which an item is sent again.
        let mut again: HashSet<Key> = HashSet::new();
        for mut item in batch.items {
            if keys.last() != Some(&item.key) {
                keys.push(item.key);
            }
            let mut result = results.next().unwrap_or_else(|| {
                Err(DeliveryError::Driver { cause: "it gave no result for this item".to_owned() })
            });
            verdict.see(&result);
            // It went out behind one that didn't arrive. Once more, so that the far side has it behind that one too.
            if result.is_ok() && again.contains(&item.key) {
                result = Err(DeliveryError::NotAttempted);
            }
            let Err(error) = result else {
                self.bytes -= item.bytes;
                self.counters.delivered += 1;
                settled.delivered.extend(item.on_failure);
                settled.positions.extend(item.position);
                self.last_delivered = Some(now);
                continue;
            };
            if error != DeliveryError::NotAttempted {
                self.last_error = Some((error.to_string(), now));
            }
            if self.stops.has_purged(&item) {
                self.purge_item(item, &mut settled);
                continue;
            }
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
                again.insert(item.key);
                item.failures = item.failures.saturating_add(1);
                let asked = error.retry_after().unwrap_or_default().min(self.config.retry.max_backoff);
                let pause = retry::backoff(&self.config.retry, item.failures, &mut self.random).max(asked);
                back.push((item, Some(now + pause)));
            }
        }
        self.latency.observe_many(took, self.counters.delivered - delivered_before);
        if shared_fate.is_some_and(|error| error != DeliveryError::NotAttempted)
            && back.len() == items_before
            && let Some(until) = back.iter().filter_map(|(_, until)| *until).max()
        {
            let items = std::mem::take(&mut back).into_iter().map(|(item, _)| item).collect();
            self.held.hold(Batch { items, is_whole: true, sent_at: None }, until);
            keys.clear();
        }
        // Last first, so that the first ends up in front; its pause holds for the line.
        let mut delays: HashMap<Key, Option<Instant>> = HashMap::new();
        while let Some((item, delay)) = back.pop() {
            delays.insert(item.key, delay);
            self.lines.push_front(item);
        }
        for key in keys {
            self.lines.release(key, delays.get(&key).copied().flatten());
        }
        self.circuit.judge(verdict, &self.config.retry, &mut self.random, now);
        settled
    }

    /// Counts what may have reached the far side: whatever was answered, or was cut off.
    fn count_attempts(&mut self, batch: &mut Batch<R>, results: &[Result<(), DeliveryError>]) {
        for (at, item) in batch.items.iter_mut().enumerate() {
            // Without a result there is no saying that it didn't.
            if results.get(at).and_then(|result| result.as_ref().err()).is_none_or(DeliveryError::is_attempt)
            {
                self.counters.attempts += 1;
                self.counters.retried += u64::from(item.was_attempted);
                item.was_attempted = true;
            } else if !item.was_attempted {
                item.first_attempt = None;
            }
        }
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
        while let Some(item) = self.lines.pop_oldest() {
            self.leave_or_drop(item, "the grace was over", &mut settled);
        }
        if let Some(backlog) = &mut self.backlog {
            self.ending.drain(..).for_each(|_| backlog.leave());
        }
        self.lines = Lines::default();
        self.stops.forget_purges();
        settled
    }

    /// What is in the outbox stays there for the next start.
    fn leave_or_drop(&mut self, item: Item<R>, error: &str, settled: &mut Settled) {
        match (&mut self.backlog, item.position) {
            (Some(backlog), Some(_)) => {
                self.bytes -= item.bytes;
                backlog.leave();
                settled.delivered.extend(item.on_failure);
            }
            _ => self.drop_item(item, DropReason::Shutdown, error.to_owned(), settled),
        }
    }

    pub(super) fn snapshot(&self, now: Instant) -> Snapshot {
        let oldest = self.lines.first();
        let oldest = earliest(oldest.map(|item| item.arrived_at), self.held.oldest());
        let (on_disk, untold) = self.backlog.as_ref().map_or((0, 0), Backlog::counts);
        Snapshot {
            queued_at_start: self.counters.queued_at_start,
            received: self.counters.received + untold,
            delivered: self.counters.delivered,
            attempts: self.counters.attempts,
            retried: self.counters.retried,
            queued: count(self.lines.len() + self.held.len() + self.ended()) + on_disk,
            bytes: count(self.bytes),
            in_flight: count(self.in_flight),
            max_items: count(self.bounds.max_items),
            max_bytes: self.bounds.max_bytes,
            oldest_age: oldest.map(|arrived_at| now.duration_since(arrived_at)),
            is_paused: self.stops.is_paused,
            next_attempt: self.next_attempt(now),
            last_delivered: self.last_delivered.map(|at| now.duration_since(at)),
            last_error: self
                .last_error
                .as_ref()
                .map(|(error, at)| LastError { error: error.clone(), age: now.duration_since(*at) }),
            dropped: self.counters.dropped(),
            dead_lettered: self.counters.dead_lettered(),
            letters_dropped: self.counters.letters_dropped,
            health: self.circuit.health(now),
            latency: self.latency.snapshot(),
        }
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
            let Some(oldest) = self.lines.oldest() else { return held_until };
            let expires_at = oldest.arrived_at + max_age;
            if expires_at > now {
                return earliest(Some(expires_at), held_until);
            }
            let item = self.lines.pop_oldest()?;
            self.drop_item(item, DropReason::Expired, format!("older than {max_age:?}"), settled);
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
        let front = self.lines.first_ready()?;
        let until = front.arrived_at + self.policy.linger;
        let is_hurried = self.stops.hurries(front);
        if is_hurried || front.failures > 0 || front.batch_items_max < usize::MAX || until <= now {
            return None;
        }
        let may_be_full = self.lines.len() >= self.policy.max_items || self.bytes >= self.policy.max_bytes;
        (!may_be_full || !self.lines.gather(&self.policy).is_full).then_some(until)
    }

    /// Takes what is to be sent next: a batch that is to be sent again, or a new one.
    fn leave(&mut self, now: Instant) -> Batch<R> {
        let mut batch = self.held.take_due(now).unwrap_or_else(|| self.lines.take(&self.policy));
        batch.sent_at = Some(now);
        for item in &mut batch.items {
            item.first_attempt.get_or_insert(now);
        }
        self.in_flight += batch.len();
        self.in_flight_batches += 1;
        self.circuit.sent(now);
        if let Some(per_second) = self.config.max_per_second {
            self.rate.spend(per_second, now);
        }
        batch
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
            self.lines.push_front(item);
        }
        for key in keys {
            self.lines.release(key, None);
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

    fn make_room(&mut self, items: usize, bytes: usize, settled: &mut Settled) {
        while !self.has_room(items, bytes) {
            let Some(item) = self.lines.pop_oldest() else {
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
        GivenUp::note(&mut settled.ended, &item, reason, &error);
        let Item { envelope, attempts, first_attempt, .. } = item;
        let id = envelope.id;
        self.ending.push_back(Ending {
            position,
            id,
            reason,
            error,
            attempts,
            first_attempt,
            fate,
            is_heard: false,
        });
    }
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
