//! What became of every item.

use std::time::Duration;

use store::HistogramSnapshot;

use super::circuit::Health;

/// Why an item ended without being delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum DropReason {
    /// The queue was full, and its policy chose this item.
    QueueFull,
    /// Larger than the whole queue may be.
    TooLarge,
    /// Older than the retry policy allows.
    Expired,
    /// The far side, or the policy for addresses, refused it for good.
    Refused,
    /// As many attempts as the retry policy allows.
    RetriesExhausted,
    /// More per second than allowed.
    RateLimited,
    /// The driver panicked or broke its contract.
    Driver,
    /// The action was stopped, and the grace was over.
    Shutdown,
    /// What was kept of it can't be read as a request.
    Unreadable,
    /// The store has lost it to damage of its files.
    Lost,
    /// Its action was removed, and whoever removed it wanted that.
    Removed,
    /// An operator has emptied the queue.
    Purged,
}

impl DropReason {
    /// Every reason, in the order of [`Snapshot::dropped`].
    pub const ALL: [Self; 12] = [
        Self::QueueFull,
        Self::TooLarge,
        Self::Expired,
        Self::Refused,
        Self::RetriesExhausted,
        Self::RateLimited,
        Self::Driver,
        Self::Shutdown,
        Self::Unreadable,
        Self::Lost,
        Self::Removed,
        Self::Purged,
    ];

    /// The value of the metric's `reason` label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::TooLarge => "too_large",
            Self::Expired => "expired",
            Self::Refused => "refused",
            Self::RetriesExhausted => "retries_exhausted",
            Self::RateLimited => "rate_limited",
            Self::Driver => "driver",
            Self::Shutdown => "shutdown",
            Self::Unreadable => "unreadable",
            Self::Lost => "lost",
            Self::Removed => "removed",
            Self::Purged => "purged",
        }
    }
}

/// Bounds for the time from sending to confirmation, in nanoseconds: from a neighbour on this machine to the longest timeouts.
pub(crate) const LATENCY_BOUNDS: &[u64] = &[
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
    30_000_000_000,
];

/// Counts of items by fate. Monotonic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counters {
    pub(crate) queued_at_start: u64,
    pub(crate) received: u64,
    pub(crate) delivered: u64,
    pub(crate) attempts: u64,
    pub(crate) retried: u64,
    dropped: PerReason,
    dead_lettered: PerReason,
    pub(crate) letters_dropped: u64,
}

/// A count for each of [`DropReason::ALL`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct PerReason([u64; DropReason::ALL.len()]);

impl PerReason {
    fn raise(&mut self, reason: DropReason) {
        for (count, other) in self.0.iter_mut().zip(DropReason::ALL) {
            if other == reason {
                *count += 1;
            }
        }
    }

    fn listed(&self) -> [(DropReason, u64); DropReason::ALL.len()] {
        let mut out = DropReason::ALL.map(|reason| (reason, 0));
        for ((_, count), counted) in out.iter_mut().zip(self.0) {
            *count = counted;
        }
        out
    }
}

impl Counters {
    pub(crate) fn drop_one(&mut self, reason: DropReason) {
        self.dropped.raise(reason);
    }

    pub(crate) fn dead_letter_one(&mut self, reason: DropReason) {
        self.dead_lettered.raise(reason);
    }

    pub(crate) fn dropped(&self) -> [(DropReason, u64); DropReason::ALL.len()] {
        self.dropped.listed()
    }

    pub(crate) fn dead_lettered(&self) -> [(DropReason, u64); DropReason::ALL.len()] {
        self.dead_lettered.listed()
    }
}

/// An attempt that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastError {
    /// How, in words.
    pub error: String,
    /// How long ago.
    pub age: Duration,
}

/// Counters, levels and health of one action at one instant.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// Items that the queue found in its outbox when it began.
    pub queued_at_start: u64,
    /// Items given to the queue since, those that it refused included.
    pub received: u64,
    /// Items that the far side confirmed.
    pub delivered: u64,
    /// Times that an item was sent so that it may have reached the far side, which is what the retry policy counts too. A batch
    /// in flight isn't counted yet.
    pub attempts: u64,
    /// Those of them after the item's first.
    pub retried: u64,
    /// Items waiting, in memory or on disk, to be delivered or to be put away.
    pub queued: u64,
    /// Bytes of items waiting in memory or in flight.
    pub bytes: u64,
    /// Items handed to the sink.
    pub in_flight: u64,
    /// Most items that the queue may hold.
    pub max_items: u64,
    /// Most bytes of them.
    pub max_bytes: u64,
    /// Age of the item that has waited longest.
    pub oldest_age: Option<Duration>,
    /// Whether an operator has stopped the sending.
    pub is_paused: bool,
    /// How long until something is tried again; `None`: nothing waits for a time.
    pub next_attempt: Option<Duration>,
    /// How long ago the far side confirmed an item last, in this process.
    pub last_delivered: Option<Duration>,
    /// The last attempt that failed, in this process.
    pub last_error: Option<LastError>,
    /// Items by the reason for which they were dropped; every reason is listed.
    pub dropped: [(DropReason, u64); DropReason::ALL.len()],
    /// Items that became dead letters, by the reason; every reason is listed.
    pub dead_lettered: [(DropReason, u64); DropReason::ALL.len()],
    /// Dead letters that gave way to younger ones, or to age.
    pub letters_dropped: u64,
    /// Whether the far side takes items.
    pub health: Health,
    /// How long items took from being handed to the sink to being confirmed.
    pub latency: HistogramSnapshot,
}

impl Snapshot {
    /// Returns how many items were dropped for one reason.
    #[must_use]
    pub fn dropped_for(&self, reason: DropReason) -> u64 {
        self.dropped.iter().filter(|(other, _)| *other == reason).map(|(_, count)| count).sum()
    }

    /// Returns how many items were dropped for any reason.
    #[must_use]
    pub fn dropped_total(&self) -> u64 {
        self.dropped.iter().map(|(_, count)| count).sum()
    }

    /// Returns how many items became dead letters for one reason.
    #[must_use]
    pub fn dead_lettered_for(&self, reason: DropReason) -> u64 {
        self.dead_lettered.iter().filter(|(other, _)| *other == reason).map(|(_, count)| count).sum()
    }

    /// Returns how many items became dead letters for any reason.
    #[must_use]
    pub fn dead_lettered_total(&self) -> u64 {
        self.dead_lettered.iter().map(|(_, count)| count).sum()
    }

    /// Whether every item found or received is accounted for: delivered, queued, in flight, a dead letter or dropped.
    #[must_use]
    pub fn is_conserved(&self) -> bool {
        let ended = self.delivered + self.dead_lettered_total() + self.dropped_total();
        self.queued_at_start + self.received == ended + self.queued + self.in_flight
    }
}
