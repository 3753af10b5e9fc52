//! Watching messages as they go by: for people who want to see what is going on.
//!
//! A watch is no Subscription: it is owed nothing, it slows nobody down, and it misses what comes faster than its rate or
//! than it is read. With nobody watching it costs one load for each message.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use mqtt_protocol::topic::matches;
use parking_lot::{Mutex, RwLock};
use tokio::sync::mpsc;

use crate::broker::{Broker, Shared};
use crate::dispatch::Fanout;
use crate::message::Message;

/// Messages that wait to be read from a watch.
const WAITING_MAX: usize = 256;

/// All who watch.
#[derive(Debug, Default)]
pub(crate) struct Watchers {
    /// How many there are.
    count: AtomicUsize,
    watchers: RwLock<Vec<Arc<Watcher>>>,
}

#[derive(Debug)]
struct Watcher {
    filter: Box<str>,
    per_second: u32,
    /// The second that is counted, on the broker's clock, and how many were shown in it.
    shown: Mutex<(u64, u32)>,
    missed: AtomicU64,
    sender: mpsc::Sender<Arc<Message>>,
}

impl Watchers {
    /// Shows a message that is admitted to whoever watches its topic.
    pub(crate) fn show(&self, fanout: &mut Fanout<'_>) {
        if self.count.load(Ordering::Relaxed) == 0 {
            return;
        }
        for watcher in self.watchers.read().iter() {
            if matches(&watcher.filter, fanout.topic()) {
                watcher.show(fanout);
            }
        }
    }
}

impl Watcher {
    fn show(&self, fanout: &mut Fanout<'_>) {
        let second = fanout.now_ms() / 1_000;
        let is_within = {
            let mut shown = self.shown.lock();
            if shown.0 != second {
                *shown = (second, 0);
            }
            shown.1 = shown.1.saturating_add(1);
            shown.1 <= self.per_second
        };
        // A copy is made for those alone that are taken.
        let is_taken = is_within && self.sender.capacity() > 0 && {
            let message = Arc::clone(fanout.message());
            self.sender.try_send(message).is_ok()
        };
        if !is_taken {
            self.missed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Somebody who watches, until it is dropped.
#[derive(Debug)]
pub struct Watch {
    watcher: Arc<Watcher>,
    receiver: mpsc::Receiver<Arc<Message>>,
    shared: Arc<Shared>,
}

impl Watch {
    /// The next message.
    pub async fn next(&mut self) -> Option<Arc<Message>> {
        self.receiver.recv().await
    }

    /// How many were missed since this was asked last: they came too fast.
    pub fn take_missed(&self) -> u64 {
        self.watcher.missed.swap(0, Ordering::Relaxed)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let watchers = &self.shared.watchers;
        let mut list = watchers.watchers.write();
        list.retain(|other| !Arc::ptr_eq(other, &self.watcher));
        watchers.count.store(list.len(), Ordering::Relaxed);
    }
}

impl Broker {
    /// Watches messages whose topic a valid Topic Filter matches, at most so many a second. Those that rules make and those
    /// that the broker publishes itself are among them.
    #[must_use]
    pub fn watch(&self, filter: &str, per_second: u32) -> Watch {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        let watcher = Arc::new(Watcher {
            filter: filter.into(),
            per_second,
            shown: Mutex::default(),
            missed: AtomicU64::new(0),
            sender,
        });
        let watchers = &self.shared.watchers;
        let mut list = watchers.watchers.write();
        list.push(Arc::clone(&watcher));
        watchers.count.store(list.len(), Ordering::Relaxed);
        drop(list);
        Watch { watcher, receiver, shared: Arc::clone(&self.shared) }
    }
}
