//! The task that moves batches from the queue to the sink.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};
use tracing::Instrument as _;

use super::burial::Buried;
use super::circuit::CircuitState;
use super::item::Batch;
use super::outbox::{READ_PAUSE, Read};
use super::queue::{Step, WAIT_MAX};
use super::traced::Departed;
use super::{DeliveryError, Shared, Sink};

type Results = Vec<Result<(), DeliveryError>>;

/// Batches under way, by their tasks.
type Batches<R> = HashMap<Id, (Batch<R>, Departed)>;

/// Runs until the queue is closed and empty, or its grace is over.
pub(super) async fn run<S: Sink>(shared: Arc<Shared<S>>) {
    let mut tasks: JoinSet<Results> = JoinSet::new();
    let mut batches: Batches<S::Request> = HashMap::new();
    let mut announced = Announced::default();
    // At most one: reads of the outbox, where blocking is allowed.
    let mut reads: JoinSet<io::Result<Vec<Read<S::Request>>>> = JoinSet::new();
    // At most one as well.
    let mut burials: JoinSet<(Vec<Buried>, u64)> = JoinSet::new();
    loop {
        let (step, settled) = shared.queue.lock().next(Instant::now());
        shared.finish(settled);
        match step {
            Step::Send(batch) => {
                let sink = Arc::clone(&shared.sink.lock());
                let departed = shared.teller.depart(&*sink, &batch, Instant::now());
                let envelopes = batch.envelopes();
                let span = tracing::debug_span!("delivery", action = shared.label, items = envelopes.len());
                let task = tasks.spawn(async move { sink.deliver(&envelopes).await }.instrument(span));
                batches.insert(task.id(), (batch, departed));
            }
            Step::Load(after) => {
                if let Some(outbox) = shared.outbox.clone() {
                    reads.spawn_blocking(move || outbox.read(after));
                }
            }
            Step::Bury(endings, bounds) => {
                if let Some(outbox) = shared.outbox.clone() {
                    burials.spawn_blocking(move || {
                        let buried = outbox.bury(endings);
                        let trimmed = outbox.trim_letters(&bounds).unwrap_or_else(|error| {
                            tracing::error!(action = &**outbox.name(), %error, "dead letters can't be read");
                            0
                        });
                        (buried, trimmed)
                    });
                }
            }
            Step::Wait(until) => {
                let until = until.unwrap_or_else(|| Instant::now() + WAIT_MAX);
                tokio::select! {
                    Some(finished) = tasks.join_next_with_id(), if !tasks.is_empty() => {
                        complete(&shared, &mut batches, finished);
                        announce(&shared, &mut announced);
                    }
                    Some(read) = reads.join_next(), if !reads.is_empty() => loaded(&shared, read),
                    Some(done) = burials.join_next(), if !burials.is_empty() => buried(&shared, done),
                    () = shared.wake.notified() => {}
                    () = sleep_until(until) => {}
                }
            }
            Step::GraceOver => {
                tasks.abort_all();
                // A batch that ended just now counts by its result; only what was really cut off is given up.
                while let Some(finished) = tasks.join_next_with_id().await {
                    if finished.as_ref().is_err_and(JoinError::is_cancelled) {
                        continue;
                    }
                    complete(&shared, &mut batches, finished);
                }
                while let Some(done) = burials.join_next().await {
                    buried(&shared, done);
                }
                let aborted = batches.drain().map(|(_, (batch, _))| batch).collect();
                let settled = shared.queue.lock().give_up(aborted);
                shared.finish(settled);
                return;
            }
            Step::Finished => return,
        }
    }
}

fn loaded<S: Sink>(shared: &Shared<S>, read: Result<io::Result<Vec<Read<S::Request>>>, JoinError>) {
    match read.map_err(io::Error::other).flatten() {
        Ok(read) => {
            let is_end = read.is_empty();
            shared.queue.lock().loaded(read, Instant::now());
            shared.trim();
            if is_end && let Some(outbox) = &shared.outbox {
                shared.queue.lock().count_lost(outbox.len());
            }
        }
        Err(error) => {
            if error.kind() == io::ErrorKind::StorageFull {
                tracing::debug!(action = shared.label, %error, "what the outbox has next waits for room on the disk");
            } else {
                tracing::error!(action = shared.label, %error, "the outbox can't be read");
            }
            shared.queue.lock().load_failed(Instant::now() + READ_PAUSE);
        }
    }
}

fn buried<S: Sink>(shared: &Shared<S>, done: Result<(Vec<Buried>, u64), JoinError>) {
    match done {
        Ok((buried, letters_dropped)) => {
            shared.queue.lock().buried(buried, letters_dropped, Instant::now());
        }
        Err(error) => {
            tracing::error!(action = shared.label, %error, "putting away what ended has panicked");
            shared.queue.lock().burial_failed();
        }
    }
}

fn complete<S: Sink>(
    shared: &Shared<S>,
    batches: &mut Batches<S::Request>,
    finished: Result<(Id, Results), JoinError>,
) {
    let (id, results) = match finished {
        Ok((id, results)) => (id, Ok(results)),
        Err(error) => (error.id(), Err(DeliveryError::Driver { cause: error.to_string() })),
    };
    let Some((batch, departed)) = batches.remove(&id) else { return };
    let results = results.unwrap_or_else(|error| {
        tracing::error!(action = shared.label, %error, "a delivery task panicked");
        vec![Err(error); batch.envelopes().len()]
    });
    let sink = Arc::clone(&shared.sink.lock());
    shared.teller.arrive(&*sink, &batch, departed, &results);
    let settled = shared.queue.lock().complete(batch, results, Instant::now());
    shared.finish(settled);
}

/// What the log knows of a sink.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Announced {
    #[default]
    Available,
    Unavailable,
    /// It refuses everything from us as we are.
    Disabled,
}

/// Logs when a sink goes away, when somebody must act, and when it is back, once each.
fn announce<S: Sink>(shared: &Shared<S>, announced: &mut Announced) {
    let snapshot = shared.queue.lock().snapshot(Instant::now());
    let health = snapshot.health;
    let is_open = health.circuit == CircuitState::Open;
    match *announced {
        Announced::Available | Announced::Unavailable if is_open && health.is_disabled => {
            let cause = health.cause.unwrap_or_default();
            tracing::error!(
                action = shared.label,
                queued = snapshot.queued,
                cause,
                "sink refuses the action as it is configured, pausing for long"
            );
            *announced = Announced::Disabled;
        }
        Announced::Available if is_open => {
            let cause = health.cause.unwrap_or_default();
            tracing::warn!(
                action = shared.label,
                queued = snapshot.queued,
                cause,
                "sink unavailable, pausing"
            );
            *announced = Announced::Unavailable;
        }
        Announced::Unavailable | Announced::Disabled if health.circuit == CircuitState::Closed => {
            tracing::info!(action = shared.label, queued = snapshot.queued, "sink available again");
            *announced = Announced::Available;
        }
        _ => {}
    }
}
