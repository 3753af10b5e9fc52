//! Which sessions there are, by Client Identifier.

use std::sync::Arc;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use parking_lot::Mutex;

use super::Session;
use crate::subscriptions::compact_set::hash_of;

const SHARDS: usize = 64;

/// Which session is meant, without holding it. One that has ended, or was replaced by another of its Client Identifier, is
/// found no more.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SessionName {
    hash: u64,
    number: u64,
}

impl SessionName {
    pub(crate) fn of(session: &Session) -> Self {
        Self { hash: hash_of(&*session.client_id), number: session.number }
    }
}

/// All sessions of a broker.
#[derive(Debug)]
pub(crate) struct Registry {
    shards: Box<[Mutex<HashTable<Arc<Session>>>]>,
}

impl Registry {
    pub(crate) fn new() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::new(HashTable::new())).collect() }
    }

    /// Runs `change` on the place of a Client Identifier: it sees the session there and returns what shall be there.
    /// The place is locked meanwhile, so that of two CONNECTs with one identifier one comes first.
    pub(crate) fn change<R>(
        &self,
        client_id: &str,
        change: impl FnOnce(Option<&Arc<Session>>) -> (Option<Arc<Session>>, R),
    ) -> R {
        let hash = hash_of(client_id);
        let mut table = self.shard(hash).lock();
        match table.entry(
            hash,
            |session| &*session.client_id == client_id,
            |session| hash_of(&*session.client_id),
        ) {
            Entry::Occupied(mut slot) => {
                let (new, result) = change(Some(slot.get()));
                match new {
                    Some(session) => *slot.get_mut() = session,
                    None => drop(slot.remove()),
                }
                result
            }
            Entry::Vacant(slot) => {
                let (new, result) = change(None);
                if let Some(session) = new {
                    slot.insert(session);
                }
                result
            }
        }
    }

    pub(crate) fn find(&self, client_id: &str) -> Option<Arc<Session>> {
        let hash = hash_of(client_id);
        self.shard(hash).lock().find(hash, |session| &*session.client_id == client_id).cloned()
    }

    /// The session of that name, while it is there.
    pub(crate) fn named(&self, name: SessionName) -> Option<Arc<Session>> {
        let shard = self.shard(name.hash).lock();
        shard.find(name.hash, |session| session.number == name.number).cloned()
    }

    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    /// Every session, one shard at a time.
    pub(crate) fn all(&self) -> impl Iterator<Item = Arc<Session>> {
        self.shards.iter().flat_map(|shard| shard.lock().iter().cloned().collect::<Vec<_>>())
    }

    #[expect(clippy::expect_used, reason = "the place is taken modulo the number of shards")]
    fn shard(&self, hash: u64) -> &Mutex<HashTable<Arc<Session>>> {
        self.shards.get((hash >> 40) as usize % SHARDS).expect("taken modulo the number of shards")
    }
}
