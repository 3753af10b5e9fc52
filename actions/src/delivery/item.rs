//! What stands in a queue, and what leaves it together.

use std::sync::Arc;

use tokio::time::Instant;

use super::counters::DropReason;
use super::error::DeliveryError;
use super::traced::GivenUp;
use super::{Envelope, Failure, OnFailure};

/// Whom an item stands in line with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Key {
    /// The items of one key.
    Shared(u64),
    /// Those of them that were read from the outbox, where they don't go before what comes now.
    Later(u64),
    /// Nobody; the number is the item's own.
    Own(u64),
}

pub(super) struct Item<R> {
    pub(super) envelope: Arc<Envelope<R>>,
    pub(super) key: Key,
    /// Place in the order of arrival.
    pub(super) number: u64,
    pub(super) arrived_at: Instant,
    pub(super) bytes: usize,
    /// Attempts that failed: those that may have reached the far side.
    pub(super) attempts: u32,
    /// Whether there was an attempt, failed or not.
    pub(super) was_attempted: bool,
    /// When the first attempt of this run began.
    pub(super) first_attempt: Option<Instant>,
    /// Failures of any kind that may pass.
    pub(super) failures: u32,
    pub(super) on_failure: Option<OnFailure>,
    /// Most items of a batch that it may go in; halved when a batch with it was refused.
    pub(super) batch_items_max: usize,
    /// Its place in the outbox; `None`: it is in memory alone.
    pub(super) position: Option<u64>,
}

impl<R> Item<R> {
    /// Ends it, untold as yet.
    pub(super) fn settle(self, reason: DropReason, error: String, settled: &mut Settled) {
        GivenUp::note(&mut settled.ended, &self, reason, &error);
        if let Some(tell) = self.on_failure {
            settled.failed.push((tell, Failure { reason, error, attempts: self.attempts }));
        }
    }
}

/// Items that ended, with those who want to know. To be told with no lock held.
#[derive(Default)]
#[must_use]
pub(super) struct Settled {
    pub(super) failed: Vec<(OnFailure, Failure)>,
    /// Dropped untold, but not under the lock: what they hold may do anything when it goes.
    pub(super) delivered: Vec<OnFailure>,
    /// Places in the outbox that are settled.
    pub(super) positions: Vec<u64>,
    /// Those that weren't delivered, for the tracer.
    pub(super) ended: Vec<GivenUp>,
}

impl Settled {
    /// Returns what is left for the tracer.
    pub(super) fn tell(self) -> Vec<GivenUp> {
        for (tell, failure) in self.failed {
            tell(failure);
        }
        drop(self.delivered);
        self.ended
    }
}

/// Items that left together.
pub(super) struct Batch<R> {
    pub(super) items: Vec<Item<R>>,
    /// Whether its items share one fate.
    pub(super) is_whole: bool,
    /// When it left last; `None`: it hasn't yet.
    pub(super) sent_at: Option<Instant>,
}

impl<R> Batch<R> {
    pub(super) fn envelopes(&self) -> Vec<Arc<Envelope<R>>> {
        self.items.iter().map(|item| Arc::clone(&item.envelope)).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    /// The one error that all of its items have, where they share one fate and there are several.
    pub(super) fn shared_fate<'r>(
        &self,
        results: &'r [Result<(), DeliveryError>],
    ) -> Option<&'r DeliveryError> {
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
