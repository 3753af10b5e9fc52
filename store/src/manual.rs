//! A store for tests: it remembers what was appended and commits when it is told to.

use std::task::Waker;

use parking_lot::Mutex;

use crate::{CommitToken, Position, Record, Store, StoreError, StoreIdentity};

/// Holds every frame back until [`ManualStore::commit_all`], so that a test sees what leaves too early.
#[derive(Debug, Default)]
pub struct ManualStore {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    frames: Vec<String>,
    /// Places are counted over all queues: greater from debt to debt, which is all that is promised.
    debts: u64,
    committed: u64,
    full: bool,
    waiting: Vec<(CommitToken, Waker)>,
}

impl ManualStore {
    /// Every frame so far, its records in their debug form.
    #[must_use]
    pub fn frames(&self) -> Vec<String> {
        self.inner.lock().frames.clone()
    }

    /// Makes everything appended so far safe and wakes who waited for it.
    pub fn commit_all(&self) {
        let woken = {
            let mut inner = self.inner.lock();
            inner.committed = inner.frames.len() as u64;
            std::mem::take(&mut inner.waiting)
        };
        for (_, waker) in woken {
            waker.wake();
        }
    }

    /// Refuses every further frame as a full disk would, until called with `false`.
    pub fn set_full(&self, full: bool) {
        self.inner.lock().full = full;
    }
}

impl Store for ManualStore {
    fn identity(&self) -> StoreIdentity {
        StoreIdentity { id: 1, epoch: 1 }
    }

    fn keeps_records(&self) -> bool {
        true
    }

    fn append_debts(
        &self,
        records: &[Record<'_>],
        positions: &mut Vec<Position>,
    ) -> Result<CommitToken, StoreError> {
        let mut inner = self.inner.lock();
        if inner.full {
            return Err(StoreError::Full { used: 0, limit: 0 });
        }
        inner.frames.push(format!("{records:?}"));
        for record in records {
            if matches!(record, Record::Owed { .. } | Record::OwedToGroup { .. } | Record::Queued { .. }) {
                inner.debts += 1;
                positions.push(Position(inner.debts));
            }
        }
        Ok(CommitToken(inner.frames.len() as u64))
    }

    fn committed(&self) -> CommitToken {
        CommitToken(self.inner.lock().committed)
    }

    fn wake_when_committed(&self, token: CommitToken, waker: &Waker) {
        let mut inner = self.inner.lock();
        if token.0 <= inner.committed {
            drop(inner);
            waker.wake_by_ref();
        } else {
            inner.waiting.push((token, waker.clone()));
        }
    }
}
