//! What the broker owes, and when it is safe.
//!
//! No packet that lets the other side forget something may leave before the store knows it. A handler describes its
//! debts and state changes as [`Record`]s, appends them in **one frame** with [`Store::append`] and gets a
//! [`CommitToken`]; whatever depends on the frame (an acknowledgement, an onward QoS 2 delivery) waits until
//! [`Store::committed`] has reached that token. The interface is the same for a store that keeps nothing
//! ([`MemoryStore`], whose tokens are committed at once) and for one that waits for a disk.
//!
//! [`DurableStore`] is that one. From an append to the disk and back:
//!
//! - `front` turns records into frames, gives debts their places and keeps the `state`; `writer` makes what waits one commit,
//!   and `notify` wakes who waits for it.
//! - `maintenance` writes directories and checkpoints and makes room; `recovery` puts a state together at a start.
//! - `read` hands back sessions, retained messages, and queues as a stream.
//! - `format`, `entry`, `checkpoint` and `directory` are the bytes, described in docs/store-format.md; `disk` is what is
//!   asked of a disk, and [`FaultDisk`] one that fails on cue. With the feature `power-cut` there is a third one, for a
//!   process that is killed: a folder whose unsynced part dies with it.
//! - `histogram` counts how long things take, here and in the crates that see this one.
//!
//! The crate knows no MQTT packets and no sockets: identities are numbers and byte strings.

mod bytes;
mod checkpoint;
mod directory;
mod disk;
mod durable;
mod entry;
mod fault;
mod format;
mod front;
mod histogram;
mod maintenance;
mod manual;
mod memory;
mod notify;
mod options;
#[cfg(feature = "power-cut")]
mod power_cut;
mod queue;
mod ranges;
mod read;
mod record;
mod recovery;
mod scan;
mod shards;
mod state;
mod writer;

pub use disk::{Disk, DiskFile, Folder};
pub use durable::DurableStore;
pub use fault::FaultDisk;
pub use front::{Counters, Health};
pub use histogram::{Histogram, HistogramSnapshot};
pub use manual::ManualStore;
pub use memory::MemoryStore;
pub use options::{Durability, OpenError, RecoveryReport, StoreOptions};
#[cfg(feature = "power-cut")]
pub use power_cut::PowerCutFolder;
pub use read::{
    QueueReader, Stage, StoredDebt, StoredInflight, StoredMessage, StoredQueue, StoredSession,
    StoredSubscription, StoredWill,
};
pub use record::{MessageId, MessageRecord, Position, QueueKey, Record, SessionKey};

use std::task::Waker;

/// A position in the store's commit order. Tokens compare by age: a later frame has the greater token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct CommitToken(pub u64);

impl CommitToken {
    /// The token of an effect that owes nothing: committed since ever.
    pub const NOTHING_OWED: Self = Self(0);
}

/// Who the store is: part of every message's identity, so that identities stay unique over restarts and copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreIdentity {
    /// Random, chosen when the store is created.
    pub id: u64,
    /// Raised at every start, restore and quarantine.
    pub epoch: u32,
}

/// Why a frame was not accepted. Nothing of a refused frame is kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The reserve of disk space is reached: no new debts until there is room.
    #[error("the store is full: {used} bytes used of {limit}")]
    Full {
        /// Bytes in use.
        used: u64,
        /// Bytes allowed.
        limit: u64,
    },
    /// More waits for the disk than may: the disk doesn't keep up. It is over as soon as the disk has caught up.
    #[error("{waiting} bytes wait for the disk of {limit} allowed")]
    Busy {
        /// Bytes that wait.
        waiting: usize,
        /// Bytes that may.
        limit: usize,
    },
    /// An earlier write failed with an unknown outcome; this store acknowledges nothing any more.
    #[error("the store has failed and accepts no more debts")]
    Failed,
    /// The frame is too long.
    #[error("a frame of {size} bytes exceeds the limit of {limit}")]
    TooLarge {
        /// Its size in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// A debt refers to a message that isn't before it in its frame.
    #[error("a debt refers to a message that isn't in its frame")]
    Dangling,
}

/// The durable side of the broker. Implementations do their waiting on threads of their own: no call here blocks on I/O.
pub trait Store: Send + Sync + 'static {
    /// The identity that messages admitted now carry.
    fn identity(&self) -> StoreIdentity;

    /// Whether records are worth building. A store that keeps nothing says no, and callers skip the work.
    fn keeps_records(&self) -> bool;

    /// Appends all debts and transitions of one message, or of one packet, as one frame: after a crash all of it is
    /// there or none.
    ///
    /// The place of each debt in its queue is added to `positions`, in the order of the records.
    ///
    /// # Errors
    /// [`StoreError`] when the frame was refused; then nobody may be told that it was accepted.
    fn append_debts(
        &self,
        records: &[Record<'_>],
        positions: &mut Vec<Position>,
    ) -> Result<CommitToken, StoreError>;

    /// The same for records without debts, or whose places nobody wants to know.
    ///
    /// # Errors
    /// As [`Store::append_debts`].
    fn append(&self, records: &[Record<'_>]) -> Result<CommitToken, StoreError> {
        self.append_debts(records, &mut Vec::new())
    }

    /// The newest token that is safe; every older one is safe too.
    fn committed(&self) -> CommitToken;

    /// Whether a write has failed with an unknown outcome: no token beyond [`Store::committed`] becomes safe any more, and
    /// nothing more is accepted.
    fn has_failed(&self) -> bool {
        false
    }

    /// A reader of a queue, where queues can be read back.
    fn queue_reader(&self, _queue: QueueKey<'_>) -> Option<QueueReader> {
        None
    }

    /// Wakes `waker` once `token` is safe (at once if it is already), or when the store fails. A waker may be woken more than
    /// once. Who has registered looks at [`Store::committed`] and [`Store::has_failed`] after that: a store that had failed
    /// before wakes nobody.
    fn wake_when_committed(&self, token: CommitToken, waker: &Waker);
}
