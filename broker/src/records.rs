//! What the store is told of sessions while they run, and how their queues come back from it.
//!
//! A session's state machine notes what becomes of debts; here the notes become records, and the token of their frame
//! says when what waits for them may leave. When a queue's head in memory runs low, the next piece is read from disk: off
//! the async workers, one read at a time for each queue and [`READS_MAX`] at a time for all.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use mqtt_protocol::{QoS, ReasonCode};
use smallvec::SmallVec;
use store::{
    CommitToken, Position, QueueKey, QueueReader, Record, SessionKey, StoreError, StoredDebt, StoredMessage,
};

use crate::broker::Shared;
use crate::message::{Message, Publication, Publisher, Trail};
use crate::session::{BacklogRead, Debt, Note, Session, SessionInner, WILLS, WillMessage};
use crate::subscriptions::Group;

/// Reads of queues at one time.
pub(crate) const READS_MAX: usize = 16;

/// Debts in one read.
const READ_MESSAGES: usize = 512;

/// Bytes in one read, but for a single larger debt.
const READ_BYTES: usize = 512 * 1024;

/// How long a read that failed is let be.
const READ_AGAIN: Duration = Duration::from_secs(1);

/// Longest time that the broker is taken to have been off: a clock that was set wrong expires no more than that.
const TIME_OFF_MAX_MS: i64 = 30 * 86_400_000;

impl Note {
    fn record<'a>(&'a self, session: SessionKey<'a>) -> Record<'a> {
        let queue = |group: &'a Option<Arc<Group>>| match group {
            Some(group) => group.key(),
            None => QueueKey::Session(session),
        };
        match self {
            Self::Settled { group, place } => {
                Record::Settled { queue: queue(group), position: Position(*place) }
            }
            Self::Sent { group, place, id } => {
                // A debt that came through a group and isn't on record there has no place anywhere.
                let position = Position(*place);
                Record::Sent { session, queue: queue(group), position, packet_id: id.get() }
            }
            Self::AwaitsCompletion(id) => Record::AwaitsCompletion { session, packet_id: id.get() },
            Self::Completed(id) => Record::Completed { session, packet_id: id.get() },
        }
    }
}

impl Shared {
    /// Puts records into the store as one frame.
    pub(crate) fn append(&self, records: &[Record<'_>]) -> Result<CommitToken, ReasonCode> {
        if !self.store.keeps_records() || records.is_empty() {
            return Ok(CommitToken::NOTHING_OWED);
        }
        self.store.append(records).map_err(|error| self.store_refused(&error))
    }

    /// The same, with wills that go to the queue of those that are published whatever becomes of their sessions. They are
    /// told their places there. A store that has no room for them takes the rest alone: then they are in memory only.
    pub(crate) fn append_with_wills<'w>(
        &self,
        records: Vec<Record<'_>>,
        wills: impl IntoIterator<Item = &'w mut WillMessage>,
    ) -> Result<CommitToken, ReasonCode> {
        let wills: SmallVec<[&mut WillMessage; 2]> =
            wills.into_iter().filter(|will| will.place == 0).collect();
        if wills.is_empty() || !self.store.keeps_records() {
            return self.append(&records);
        }
        let kept: SmallVec<[_; 2]> =
            wills.iter().map(|will| (Arc::clone(&will.message), Arc::clone(&will.author))).collect();
        let now_ms = self.clock.now().mono_ms;
        let without = records.len();
        let mut records: Vec<Record<'_>> = records;
        for (will, (message, author)) in wills.iter().zip(&kept) {
            records.extend(will.queued(message, author, now_ms));
        }
        let mut positions = Vec::new();
        match self.store.append_debts(&records, &mut positions) {
            Ok(token) => {
                for (will, position) in wills.into_iter().zip(positions) {
                    will.place = position.0;
                }
                Ok(token)
            }
            Err(error) => {
                tracing::debug!(%error, "a will could not be recorded");
                records.truncate(without);
                self.append(&records)
            }
        }
    }

    /// Strikes a will that isn't going to be published off the record.
    pub(crate) fn forget_will(&self, will: &WillMessage) {
        if will.place != 0
            && let Err(reason) =
                self.append(&[Record::Settled { queue: WILLS, position: Position(will.place) }])
        {
            tracing::debug!(?reason, "a will could not be struck off the record");
        }
    }

    /// What a client is told when the store refused a frame.
    pub(crate) fn store_refused(&self, error: &StoreError) -> ReasonCode {
        if matches!(error, StoreError::Failed) {
            // The store has raised its alarm, once.
            tracing::debug!(%error, "the store did not accept a frame");
            return ReasonCode::ImplementationSpecificError;
        }
        tracing::warn!(%error, "the store did not accept a frame");
        ReasonCode::QuotaExceeded
    }

    /// Tells the store what became of a session's debts.
    pub(crate) fn record(&self, session: &Session, inner: &mut SessionInner) {
        if !inner.state.has_notes() {
            return;
        }
        let notes = inner.state.take_notes();
        let records: SmallVec<[Record<'_>; 8]> =
            notes.iter().map(|note| note.record(session.key())).collect();
        match self.store.append(&records) {
            Ok(token) => inner.state.noted(&notes, token),
            Err(StoreError::Busy { .. }) => {
                drop(records);
                inner.state.put_notes_back(notes);
            }
            Err(error) => {
                // Nothing more becomes safe: what waits for these stays where it is.
                tracing::debug!(%error, client_id = %session.client_id, "the store takes no more of a session's records");
            }
        }
    }

    /// Sends what may leave, tells the store, and sees to what comes next. Returns how many messages were dropped.
    pub(crate) fn pump(&self, session: &Arc<Session>, inner: &mut SessionInner, now_ms: u64) -> u64 {
        let mut dropped = inner.state.pump(now_ms, self.store.committed());
        if inner.state.has_notes() {
            self.record(session, inner);
            // Some stores have made it safe by now.
            dropped += inner.state.pump(now_ms, self.store.committed());
        }
        self.read_backlog(session, inner);
        dropped
    }

    /// Begins to read a session's next debts, if it is time.
    pub(crate) fn read_backlog(&self, session: &Arc<Session>, inner: &mut SessionInner) {
        let Some(read) = inner.state.begin_read(&self.config.limits) else { return };
        let key = QueueKey::Session(session.key());
        let reader = inner.reader.take().or_else(|| self.store.queue_reader(key).map(Box::new));
        let Some(reader) = reader else { return };
        let session = Arc::clone(session);
        self.read(reader, read, move |shared, reader, found| {
            let mut inner = session.lock();
            if inner.ended {
                return;
            }
            let found_nothing = found.as_ref().is_some_and(Vec::is_empty);
            for debt in found.into_iter().flatten().filter_map(|debt| shared.debt(debt)) {
                inner.state.arrive(debt);
            }
            let dropped = inner.state.end_read(read, found_nothing, &shared.config.limits);
            shared.metrics.dropped_queue_full.add(dropped);
            inner.reader = reader.filter(|_| inner.state.is_behind_on_disk());
            shared.record(&session, &mut inner);
            shared.read_backlog(&session, &mut inner);
            inner.nudge();
        });
    }

    /// Begins to read a group's next debts.
    pub(crate) fn read_group(&self, group: &Arc<Group>, read: BacklogRead) {
        let Some(reader) = self.store.queue_reader(group.key()) else { return };
        let group = Arc::clone(group);
        self.read(Box::new(reader), read, move |shared, _, found| {
            let found_nothing = found.as_ref().is_some_and(Vec::is_empty);
            let debts = found.into_iter().flatten().filter_map(|debt| shared.debt(debt));
            group.arrive(&shared, read, debts.collect(), found_nothing);
        });
    }

    /// Reads in the background, then hands over what was found: `None` when the disk failed.
    fn read(
        &self,
        mut reader: Box<QueueReader>,
        read: BacklogRead,
        done: impl FnOnce(Arc<Self>, Option<Box<QueueReader>>, Option<Vec<StoredDebt>>) + Send + 'static,
    ) {
        let Some(shared) = self.this.upgrade() else { return };
        tokio::spawn(async move {
            let Ok(permit) = Arc::clone(&shared.reads).acquire_owned().await else { return };
            let ended = tokio::task::spawn_blocking(move || {
                let found = reader.read(Position(read.after), READ_MESSAGES, READ_BYTES);
                drop(permit);
                (reader, found)
            })
            .await;
            match ended {
                Ok((reader, Ok(found))) => done(shared, Some(reader), Some(found)),
                Ok((_, Err(error))) => {
                    if error.kind() == io::ErrorKind::StorageFull {
                        // The store has raised its alarm; this is one of many queues.
                        tracing::debug!(%error, "what a queue has next waits for room on the disk");
                    } else {
                        tracing::error!(%error, "a queue could not be read back from disk: it is tried again");
                    }
                    tokio::time::sleep(READ_AGAIN).await;
                    done(shared, None, None);
                }
                Err(error) => tracing::error!(%error, "reading a queue back from disk failed"),
            }
        });
    }

    /// A debt as a session takes it; `None` if it can't be one.
    pub(crate) fn debt(&self, stored: StoredDebt) -> Option<Debt> {
        let place = stored.position.0;
        let Some(message) = stored.message else {
            tracing::error!(place, "a debt to a session has no message");
            return None;
        };
        let qos = QoS::try_from(stored.qos).unwrap_or(QoS::AtLeastOnce);
        Some(Debt {
            message: self.revive(&message, stored.retain, None),
            qos,
            retain: stored.retain,
            identifiers: stored.identifiers,
            place,
        })
    }

    /// A message as it was before it was stored. Who published it is wanted of a Retained Message only: of others, rules and
    /// No Local were decided when they were admitted.
    pub(crate) fn revive(
        &self,
        stored: &StoredMessage,
        retain: bool,
        publisher: Option<&Arc<Publisher>>,
    ) -> Arc<Message> {
        let now = self.clock.now();
        let age_ms = self.age_ms(stored);
        Publication {
            id: stored.id,
            namespace: 0,
            topic: &stored.topic,
            payload: &stored.payload,
            qos: QoS::try_from(stored.qos).unwrap_or(QoS::AtLeastOnce),
            retain,
            properties: &stored.properties,
            expires_at_ms: stored
                .expires_after_ms
                .map(|after_ms| now.mono_ms + after_ms.saturating_sub(age_ms)),
            received_at_ms: stored.received_at_ms,
            publisher,
            trail: &Trail::default(),
            trace: None,
        }
        .to_message()
    }

    /// How long ago a message was admitted, as far as the clocks can be trusted.
    fn age_ms(&self, stored: &StoredMessage) -> u64 {
        let now = self.clock.now();
        let is_of_now = (stored.id.store, stored.id.epoch) == (self.store_id, self.store_epoch);
        match self.before.get().filter(|_| !is_of_now) {
            Some(before) => before.since(stored.received_at_ms, now),
            None => u64::try_from(now.wall_ms - stored.received_at_ms).unwrap_or(0),
        }
    }
}

/// When the broker ran last, and when it began to run now.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Before {
    /// The store's last stamp of the wall clock.
    pub(crate) stamp_ms: i64,
    pub(crate) start: crate::clock::Now,
}

impl Before {
    /// Milliseconds from a moment on the wall clock of then to now. The time between is what the wall clock says, within
    /// reason; before and after it each clock is compared with itself.
    pub(crate) fn since(&self, then_ms: i64, now: crate::clock::Now) -> u64 {
        let ran_ms = u64::try_from(self.stamp_ms - then_ms).unwrap_or(0);
        let off_ms = (self.start.wall_ms - self.stamp_ms).clamp(0, TIME_OFF_MAX_MS).unsigned_abs();
        ran_ms + off_ms + (now.mono_ms - self.start.mono_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::{Before, TIME_OFF_MAX_MS};
    use crate::clock::Now;

    #[test]
    fn time_off_is_what_the_clock_says_within_reason() {
        let start = |wall_ms| Before { stamp_ms: 10_000, start: Now { mono_ms: 1_000, wall_ms } };
        let now = Now { mono_ms: 1_500, wall_ms: 0 };
        assert_eq!(start(12_000).since(4_000, now), 6_000 + 2_000 + 500);
        assert_eq!(start(9_000).since(4_000, now), 6_000 + 500, "a clock that went back counts as no time");
        let far = TIME_OFF_MAX_MS * 5;
        assert_eq!(start(far).since(4_000, now), 6_000 + TIME_OFF_MAX_MS.unsigned_abs() + 500);
        assert_eq!(start(12_000).since(11_000, now), 2_500, "stamped a little late");
    }
}
