//! What makes a record that is sent again be written once: the producer's number, and the sequence numbers of what it sends
//! to each partition.
//!
//! A broker remembers the sequences of the last batches of each producer in each partition, and takes a batch that it has
//! already for written. For that a batch must come again as it was: the same records, in the same order, under the same
//! sequence. The delivery machine gives what failed in another company, so what was sent and not answered is kept here, as
//! the partition's *doubt*, and goes out again before anything else for the partition, whether or not all of its records are
//! wanted at the moment. Those that aren't are remembered as written once they are, and aren't sent when their turn comes.
//!
//! One request is under way for a partition at a time: its [`Line`] is locked from the begin of a batch to its end. Whoever
//! needs several locks them in the order of topic and number, so that two batches can't wait for each other.
//!
//! A record in doubt stays with its partition, even if others would take it by now.
//!
//! Limits: [`LINES_MAX`] partitions and [`RECORDS_MAX`] records remembered, and in doubt no more for a partition than one
//! request holds. Past one of them everything is forgotten but what is in use, and a record in doubt may be written twice.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rskafka::protocol::error::Error;
use tokio::sync::OwnedMutexGuard;
use tokio::time::{Instant, timeout_at};

use super::answer::{Verdict, name, verdict};
use super::broker::{Broker, unreachable};
use super::init_producer::InitProducerIdRequest;
use super::pending::Item;
use crate::delivery::{AnswerClass, DeliveryError, Envelope, ItemId};
use crate::record::Record;

/// Most partitions whose sequences are remembered.
pub(super) const LINES_MAX: usize = 10_000;
/// Most records in doubt, or written unasked, that are remembered beside the batches themselves.
pub(super) const RECORDS_MAX: usize = 100_000;

/// The number under which a broker knows a producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) id: i64,
    pub(super) epoch: i16,
}

/// A place in a partition's sequence, as it stands in a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sequence {
    pub(super) identity: Identity,
    pub(super) first: i32,
}

/// What one action has sent to one partition.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// Under which number; `None` before the first batch.
    pub(super) identity: Option<Identity>,
    /// The sequence of the next record: of the first in doubt, if there are any.
    pub(super) next: i32,
    /// The batch that was sent last, if it isn't known whether it was written.
    pub(super) doubt: Vec<Arc<Envelope<Record>>>,
}

impl Line {
    /// Where a batch begins. One that begins anew does so under the number of the moment; what is in doubt stays under its
    /// own, since that is the one that the broker would know it by.
    pub(super) fn sequence(&mut self, is_in_doubt: bool, current: Identity) -> Sequence {
        if !is_in_doubt && self.identity != Some(current) {
            (self.identity, self.next) = (Some(current), 0);
        }
        Sequence { identity: *self.identity.get_or_insert(current), first: self.next }
    }

    /// So many records were written.
    pub(super) fn advance(&mut self, records: usize) {
        // Behind the largest number comes zero.
        let next = (i64::from(self.next) + i64::try_from(records).unwrap_or(0)) & i64::from(i32::MAX);
        self.next = i32::try_from(next).unwrap_or(0);
    }
}

/// A locked line.
pub(super) type LineGuard = OwnedMutexGuard<Line>;

/// What is remembered of a record beside its batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    /// It is in doubt in this partition.
    InDoubt(i32),
    /// It was written to this partition while nobody waited for it.
    Written(i32),
}

type Lines = BTreeMap<(String, i32), Arc<tokio::sync::Mutex<Line>>>;

/// One action as brokers know it.
#[derive(Debug, Default)]
pub(super) struct Producer {
    identity: tokio::sync::Mutex<Option<Identity>>,
    lines: Mutex<Lines>,
    known: Mutex<HashMap<ItemId, Known>>,
}

impl Producer {
    /// The partition that a record was sent to already.
    pub(super) fn partition_of(&self, id: ItemId) -> Option<i32> {
        match self.known.lock().get(&id)? {
            Known::InDoubt(partition) | Known::Written(partition) => Some(*partition),
        }
    }

    /// Waits for a partition until `deadline`.
    pub(super) async fn line(
        &self,
        topic: &str,
        partition: i32,
        deadline: Instant,
    ) -> Result<LineGuard, DeliveryError> {
        let line = {
            let mut lines = self.lines.lock();
            let key = (topic.to_owned(), partition);
            if lines.len() >= LINES_MAX && !lines.contains_key(&key) {
                tracing::warn!(
                    limit = LINES_MAX,
                    "too many partitions: what is in doubt may be written to Kafka twice"
                );
                // Who has a line keeps it; under the number that it has, nobody else would go on with its sequence.
                lines.clear();
                self.known.lock().retain(|_, known| matches!(known, Known::Written(_)));
                if let Ok(mut identity) = self.identity.try_lock() {
                    *identity = None;
                }
            }
            Arc::clone(lines.entry(key).or_default())
        };
        timeout_at(deadline, line.lock_owned()).await.map_err(|_| DeliveryError::NotAttempted)
    }

    /// The number of the moment. A broker is asked for it when there is none.
    pub(super) async fn identity(
        &self,
        broker: &Broker,
        deadline: Instant,
        after: Duration,
    ) -> Result<Identity, DeliveryError> {
        let current = timeout_at(deadline, self.identity.lock()).await;
        let mut current = current.map_err(|_| DeliveryError::NotAttempted)?;
        if let Some(identity) = *current {
            return Ok(identity);
        }
        let answer =
            broker.ask(InitProducerIdRequest, deadline, after).await.map_err(|error| match error {
                DeliveryError::Refused { class, cause } => refused(class, &cause),
                // Nothing was sent so far.
                error => unreachable(format!("asked for a producer's number: {error}")),
            })?;
        broker.keep_quiet(Some(answer.throttle_time_ms));
        if let Some(error) = answer.error {
            return Err(match verdict(error) {
                Verdict::All(error) if error.is_disabling() => hinted(error),
                _ => {
                    unreachable(format!("asked for a producer's number: the broker answered {}", name(error)))
                }
            });
        }
        if answer.id < 0 || answer.epoch < 0 {
            return Err(unreachable("asked for a producer's number, the broker gives none"));
        }
        let identity = Identity { id: answer.id, epoch: answer.epoch };
        *current = Some(identity);
        Ok(identity)
    }

    /// Gives up a number that a broker doesn't know any more.
    pub(super) async fn renew(&self, old: Option<Identity>) {
        let mut current = self.identity.lock().await;
        if *current == old {
            *current = None;
        }
    }

    /// These are in doubt in this partition.
    pub(super) fn doubt(&self, items: &[Arc<Envelope<Record>>], partition: i32) {
        let mut known = self.known.lock();
        make_room(&mut known, items.len());
        known.extend(items.iter().map(|item| (item.id, Known::InDoubt(partition))));
    }

    /// Takes note that these are no longer in doubt. Of what was written while nobody waited for it is remembered that it was.
    pub(super) fn settle(&self, items: &[Item], partition: i32, is_written: bool) {
        let mut known = self.known.lock();
        for (place, item) in items {
            if place.is_none() && is_written {
                known.insert(item.id, Known::Written(partition));
            } else if !known.is_empty() {
                known.remove(&item.id);
            }
        }
    }

    /// Remembers what of a batch will be sent again though it was written: it stands behind another record of its publisher
    /// that is sent again. Each partition has its own order, so nothing is won by a second copy.
    pub(super) fn keep_written(&self, written: impl Iterator<Item = (ItemId, i32)>) {
        let mut known = self.known.lock();
        for (id, partition) in written {
            make_room(&mut known, 1);
            known.insert(id, Known::Written(partition));
        }
    }

    /// Whether a record was written while nobody waited for it. It is asked for once.
    pub(super) fn take_written(&self, id: ItemId) -> bool {
        let mut known = self.known.lock();
        let is_written = matches!(known.get(&id), Some(Known::Written(_)));
        if is_written {
            known.remove(&id);
        }
        is_written
    }
}

fn make_room(known: &mut HashMap<ItemId, Known>, records: usize) {
    if known.len() + records > RECORDS_MAX {
        tracing::warn!(limit = RECORDS_MAX, "too many records in doubt: some may be written to Kafka twice");
        known.clear();
    }
}

/// Whether a broker says with this that its memory of the producer isn't ours: nothing was written.
pub(super) const fn is_forgotten(error: Error) -> bool {
    matches!(
        error,
        Error::OutOfOrderSequenceNumber
            | Error::UnknownProducerId
            | Error::InvalidProducerEpoch
            | Error::InvalidProducerIdMapping
            | Error::ProducerFenced
    )
}

/// Whether a broker refuses with this that records come with a producer's number.
pub(super) const fn is_about_idempotence(error: Error) -> bool {
    matches!(error, Error::ClusterAuthorizationFailed | Error::UnsupportedForMessageFormat)
}

/// The same refusal, with what can be done about it.
pub(super) fn hinted(error: DeliveryError) -> DeliveryError {
    match error {
        DeliveryError::Refused { class, cause } => refused(class, &cause),
        error => error,
    }
}

fn refused(class: AnswerClass, cause: &str) -> DeliveryError {
    let cause = format!("{cause}; the idempotent producer needs it, idempotence = false turns that off");
    DeliveryError::Refused { class, cause }
}
