//! A store that keeps nothing: everything is "safe" at once, and lost when the process ends.

use std::task::Waker;

use crate::{CommitToken, Position, Record, Store, StoreError, StoreIdentity};

/// Durability `memory`: sessions and retained messages live as long as the process.
#[derive(Debug)]
pub struct MemoryStore {
    identity: StoreIdentity,
}

impl MemoryStore {
    /// A store with this random identity. There is no epoch to raise: nothing survives a start.
    #[must_use]
    pub fn new(id: u64) -> Self {
        Self { identity: StoreIdentity { id, epoch: 1 } }
    }
}

impl Store for MemoryStore {
    fn identity(&self) -> StoreIdentity {
        self.identity
    }

    fn keeps_records(&self) -> bool {
        false
    }

    fn append_debts(
        &self,
        _records: &[Record<'_>],
        _positions: &mut Vec<Position>,
    ) -> Result<CommitToken, StoreError> {
        Ok(CommitToken::NOTHING_OWED)
    }

    fn committed(&self) -> CommitToken {
        CommitToken(u64::MAX)
    }

    fn wake_when_committed(&self, _token: CommitToken, waker: &Waker) {
        waker.wake_by_ref();
    }
}
