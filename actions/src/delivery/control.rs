//! What an operator does to a queue: stop the sending and let it go on, have all that waits tried at once, drop it.
//!
//! A queue that is paused goes on taking items, and items still grow too old. What was in flight ends as it ends. A stop of the
//! process doesn't wait for one: what is in the outbox stays there, what is in memory alone is given up.
//!
//! A purge means what is there at its moment. What waits in memory is dropped at once, what is on disk as it is read, what
//! is in flight if it fails. Nobody is told: whoever asked for it knows, so no error action runs and no dead letter is kept.

use std::io;
use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::item::Item;
use super::lines::LATER;
use super::{Delivery, Sink};

/// A queue as an operator sees it, whatever its items are.
pub trait Control {
    /// Sends nothing more. What is in flight goes on.
    fn pause(&self);

    /// Sends again.
    fn resume(&self);

    /// Tries at once what waits to be retried, and a far side that isn't tried just now. A queue that is paused stays so.
    fn send_now(&self);

    /// How many items a purge would drop, those in flight aside.
    fn waiting(&self) -> u64;

    /// Drops what waits.
    fn purge(&self) -> Purge;

    /// Bytes that the queue takes on disk; `None`: it is in memory alone.
    fn disk_bytes(&self) -> Option<u64>;
}

/// A purge on its way.
#[derive(Debug)]
pub struct Purge {
    /// How many items waited.
    pub items: u64,
    gone: oneshot::Receiver<()>,
    store: Option<Arc<store::DurableStore>>,
}

impl Purge {
    /// Waits until they are out of the queue, and safely off the disk.
    ///
    /// # Errors
    /// When the queue or the store ends before that: what is still on disk is there at the next start.
    pub async fn done(self) -> io::Result<()> {
        self.gone.await.map_err(|_| io::Error::other("the queue has ended"))?;
        let Some(store) = self.store else { return Ok(()) };
        match tokio::task::spawn_blocking(move || store.wait_for_all()).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(io::Error::other("the store takes nothing any more")),
            Err(error) => Err(io::Error::other(error)),
        }
    }
}

impl<S: Sink> Control for Delivery<S> {
    fn pause(&self) {
        self.shared.queue.lock().pause();
    }

    fn resume(&self) {
        self.shared.queue.lock().resume();
        self.shared.wake.notify_one();
    }

    fn send_now(&self) {
        self.shared.queue.lock().send_now(Instant::now());
        self.shared.wake.notify_one();
    }

    fn waiting(&self) -> u64 {
        self.shared.queue.lock().waiting()
    }

    fn purge(&self) -> Purge {
        let (tell, gone) = oneshot::channel();
        let outbox = self.shared.outbox.as_ref();
        let end = outbox.map_or(0, super::Outbox::end);
        let (items, settled) = self.shared.queue.lock().purge(end, tell);
        self.shared.finish(settled);
        self.shared.wake.notify_one();
        Purge { items, gone, store: outbox.map(|outbox| Arc::clone(&outbox.store)) }
    }

    fn disk_bytes(&self) -> Option<u64> {
        self.shared.outbox.as_ref().map(|outbox| outbox.size().1)
    }
}

/// What an operator wants of a queue.
#[derive(Debug, Default)]
pub(super) struct Stops {
    pub(super) is_paused: bool,
    /// Items in memory with a lower number were there at the last purge.
    purged_below: u64,
    /// Places of the outbox up to here were given by then.
    purged_to: u64,
    /// Items in memory with a lower number are to leave without waiting for company.
    hurried_below: u64,
    /// Told once nothing is left of what is to be purged.
    purges: Vec<oneshot::Sender<()>>,
}

/// When it came into memory, among the others.
const fn ordinal<R>(item: &Item<R>) -> u64 {
    item.number & !LATER
}

impl Stops {
    /// A purge, when the next item gets this number and the outbox has given places up to `end`.
    pub(super) fn purge(&mut self, next_number: u64, end: u64, tell: oneshot::Sender<()>) {
        self.purged_below = next_number;
        self.purged_to = self.purged_to.max(end);
        self.purges.push(tell);
    }

    pub(super) const fn hurry(&mut self, next_number: u64) {
        self.hurried_below = next_number;
    }

    pub(super) const fn has_purged<R>(&self, item: &Item<R>) -> bool {
        ordinal(item) < self.purged_below
    }

    pub(super) const fn has_purged_place(&self, position: u64) -> bool {
        position <= self.purged_to
    }

    pub(super) const fn purged_to(&self) -> u64 {
        self.purged_to
    }

    pub(super) const fn hurries<R>(&self, item: &Item<R>) -> bool {
        ordinal(item) < self.hurried_below
    }

    pub(super) const fn is_purging(&self) -> bool {
        !self.purges.is_empty()
    }

    /// Nothing is left.
    pub(super) fn purged(&mut self) {
        for tell in self.purges.drain(..) {
            let _whoever_asked_may_have_gone = tell.send(());
        }
    }

    /// What is left is left to the next start.
    pub(super) fn forget_purges(&mut self) {
        self.purges.clear();
    }
}
