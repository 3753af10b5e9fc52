//! The figures that an operator sees first, all of one moment.
//!
//! They are sums of what `collect` shows one by one, read from the same counters, so that no two pages tell two stories.
//! What a rule or an action has counted goes with it when it is removed, here as there.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::Serialize;
use utoipa::ToSchema;

use super::collect::Sources;
use super::process;

/// Sessions are looked at again after so many times what the last look took: those of a large gateway mustn't cost more than a
/// twentieth of one processor's time.
const SESSIONS_PAUSE: u32 = 20;

/// Figures of one moment.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
pub(crate) struct Figures {
    pub(crate) clients: Clients,
    pub(crate) counters: Counters,
    /// What was dropped since the start, by reason: messages that a receiver should have had, requests of actions, and, as
    /// `dead_letters`, dead letters that gave way. Reasons for which nothing was dropped are left out.
    pub(crate) dropped: BTreeMap<&'static str, u64>,
    pub(crate) queue: Queue,
    /// Null: there is no store on disk.
    pub(crate) disk: Option<Disk>,
    /// Memory of the process that is in use; 0: the system doesn't tell.
    pub(crate) memory_bytes: u64,
}

#[derive(Debug, Clone, Default, Serialize, ToSchema)]
pub(crate) struct Clients {
    /// Network Connections with an accepted CONNECT.
    pub(crate) connected: u64,
    /// Sessions, those without a connection included.
    pub(crate) sessions: u64,
}

/// What was counted since the start. A counter that falls has lost a rule, or the gateway was restarted.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
pub(crate) struct Counters {
    /// PUBLISH packets of clients.
    pub(crate) messages_received: u64,
    /// Messages handed to receivers, one for each.
    pub(crate) messages_sent: u64,
    /// Bytes read from sockets.
    pub(crate) bytes_received: u64,
    /// Bytes written to sockets.
    pub(crate) bytes_sent: u64,
    /// Messages that came to rules.
    pub(crate) rules_matched: u64,
    /// Messages that WHERE let pass and that gave an output.
    pub(crate) rules_passed: u64,
    /// Failed evaluations, and messages for which an action got no request.
    pub(crate) rules_failed: u64,
    /// Requests that far sides confirmed.
    pub(crate) actions_delivered: u64,
    /// Requests that became dead letters or were dropped.
    pub(crate) actions_failed: u64,
    /// Times that a request was handed to a far side after its first.
    pub(crate) actions_retried: u64,
}

/// What waits: for clients that are behind or away, and for the far sides of actions.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
pub(crate) struct Queue {
    /// Messages and requests that wait. Of those of sessions, the ones that are in memory.
    pub(crate) items: u64,
    /// Their bytes in memory.
    pub(crate) memory_bytes: u64,
    /// Their bytes on disk.
    pub(crate) disk_bytes: u64,
    /// Age of what has waited longest, as far as it is in memory; null: nothing waits.
    pub(crate) oldest_age_ms: Option<u64>,
}

#[derive(Debug, Clone, Default, Serialize, ToSchema)]
pub(crate) struct Disk {
    /// Bytes free on the disk of the store; null: the system doesn't tell.
    pub(crate) free_bytes: Option<u64>,
    /// Bytes of the store's log.
    pub(crate) store_bytes: u64,
}

/// What sessions were found to hold, and when they are worth a look again.
#[derive(Debug, Default)]
pub(crate) struct SessionsSeen {
    queue: Queue,
    due: Option<Instant>,
}

impl SessionsSeen {
    fn look(&mut self, sources: &Sources) -> Queue {
        let begin = Instant::now();
        if self.due.is_none_or(|due| begin >= due) {
            let found = sources.broker.session_queues(0);
            self.queue = Queue {
                items: found.messages,
                memory_bytes: found.bytes,
                disk_bytes: found.disk_bytes,
                oldest_age_ms: found.oldest_age_ms,
            };
            self.due = Some(Instant::now() + begin.elapsed() * SESSIONS_PAUSE);
        }
        self.queue.clone()
    }
}

impl Sources {
    /// The figures of this moment. Looks at every rule and asks the disk, so it belongs where blocking is allowed.
    pub(crate) fn figures(&self, sessions: &mut SessionsSeen) -> Figures {
        let stats = self.broker.stats();
        let rules = self.book.pipeline().totals();
        let mut figures = Figures {
            clients: Clients { connected: stats.connections.min(stats.sessions), sessions: stats.sessions },
            counters: Counters {
                messages_received: stats.messages_received,
                messages_sent: stats.messages_delivered,
                bytes_received: stats.bytes_received,
                bytes_sent: stats.bytes_sent,
                rules_matched: rules.matched,
                rules_passed: rules.passed,
                rules_failed: rules.failed,
                ..Counters::default()
            },
            dropped: stats.dropped_by_reason().into_iter().collect(),
            queue: sessions.look(self),
            disk: self
                .store
                .as_ref()
                .map(|store| Disk { free_bytes: store.free_bytes().ok(), store_bytes: store.log_bytes().0 }),
            memory_bytes: process::resident_bytes().unwrap_or(0),
        };
        // None of them is kept.
        drop(self.book.actions(None, 0, |entry| {
            if let Some(delivery) = &entry.delivery {
                figures.add(delivery, entry.disk_bytes);
            }
            false
        }));
        figures.dropped.retain(|_, count| *count > 0);
        figures
    }
}

impl Figures {
    /// Adds what an action has done, and what it owes.
    fn add(&mut self, delivery: &actions::Snapshot, disk_bytes: Option<u64>) {
        let counters = &mut self.counters;
        counters.actions_delivered += delivery.delivered;
        counters.actions_failed += delivery.dead_lettered_total() + delivery.dropped_total();
        counters.actions_retried += delivery.retried;
        let dropped = delivery.dropped.iter().map(|(reason, count)| (reason.as_str(), *count));
        for (reason, count) in dropped.chain([("dead_letters", delivery.letters_dropped)]) {
            *self.dropped.entry(reason).or_default() += count;
        }
        let queue = &mut self.queue;
        queue.items += delivery.queued;
        match disk_bytes {
            Some(disk_bytes) => queue.disk_bytes += disk_bytes.max(delivery.bytes),
            None => queue.memory_bytes += delivery.bytes,
        }
        queue.oldest_age_ms = queue.oldest_age_ms.max(delivery.oldest_age.map(millis));
    }
}

fn millis(age: Duration) -> u64 {
    u64::try_from(age.as_millis()).unwrap_or(u64::MAX)
}
