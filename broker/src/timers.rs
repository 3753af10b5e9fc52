//! Deadlines of sessions: Keep Alive, delayed wills, Session Expiry.
//!
//! A wheel of coarse slots. Inserting is a push; nothing is ever removed: an entry carries the session's generation,
//! and one that no longer fits is dropped when its slot comes round. A Keep Alive isn't moved with every packet either:
//! when its slot comes round the session's last-heard stamp tells whether it is due, and it is put in again.
//!
//! An entry is looked at every [`LOOK_MS`] at least, however far its deadline is: what a client that comes and goes
//! leaves behind is gone after that time, whatever it asked for. Until then it is only the entry: that names its session and
//! doesn't hold it, not even its place in memory.

use std::sync::atomic::Ordering;

use parking_lot::Mutex;

use crate::session::Session;
use crate::session::registry::SessionName;

/// Width of a slot, in milliseconds: deadlines are this late at most, never early.
pub(crate) const SLOT_MS: u64 = 256;
const SLOTS: u64 = 512;
/// Longest time between two looks at an entry, in milliseconds. Less than a turn of the wheel.
const LOOK_MS: u64 = 60_000;

/// What a deadline is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deadline {
    /// The client is silent for 1.5 times its Keep Alive, which is this many milliseconds, if it sends nothing.
    KeepAlive { silence_ms: u32 },
    /// The Will Delay Interval is over, on the broker's clock.
    Will { at_ms: u64 },
    /// The Session Expiry Interval is over, on the broker's clock.
    Expiry { at_ms: u64 },
}

impl Deadline {
    /// When it is due, on the broker's clock.
    pub(crate) fn at_ms(self, session: &Session) -> u64 {
        match self {
            Self::KeepAlive { silence_ms } => {
                session.last_heard_ms.load(Ordering::Relaxed) + u64::from(silence_ms)
            }
            Self::Will { at_ms } | Self::Expiry { at_ms } => at_ms,
        }
    }
}

/// An entry whose time has come.
#[derive(Debug)]
pub(crate) struct Due {
    pub(crate) session: SessionName,
    pub(crate) generation: u32,
    pub(crate) deadline: Deadline,
}

#[derive(Debug)]
struct Entry {
    at_ms: u64,
    due: Due,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Timers {
    wheel: Mutex<Wheel>,
}

#[derive(Debug)]
struct Wheel {
    slots: Vec<Vec<Entry>>,
    /// Number of the next slot to look at, counted from time zero.
    next: u64,
}

impl Timers {
    pub(crate) fn new() -> Self {
        let slots = (0..SLOTS).map(|_| Vec::new()).collect();
        Self { wheel: Mutex::new(Wheel { slots, next: 0 }) }
    }

    pub(crate) fn insert(&self, now_ms: u64, session: &Session, generation: u32, deadline: Deadline) {
        let at_ms = deadline.at_ms(session).min(now_ms + LOOK_MS);
        let session = SessionName::of(session);
        let mut wheel = self.wheel.lock();
        // Rounded up, so that it is never early; never into a slot that was looked at already.
        let slot = at_ms.div_ceil(SLOT_MS).max(wheel.next);
        if let Some(slot) = wheel.slots.get_mut((slot % SLOTS) as usize) {
            slot.push(Entry { at_ms, due: Due { session, generation, deadline } });
        }
    }

    /// Takes out everything that is to be looked at by `now_ms`: what isn't due yet is to be inserted again.
    pub(crate) fn due(&self, now_ms: u64) -> Vec<Due> {
        let mut wheel = self.wheel.lock();
        let last = now_ms / SLOT_MS;
        let first = wheel.next.max((last + 1).saturating_sub(SLOTS));
        let mut due = Vec::new();
        for number in first..=last {
            let Some(slot) = wheel.slots.get_mut((number % SLOTS) as usize) else { continue };
            let mut later = Vec::new();
            for entry in slot.drain(..) {
                if entry.at_ms <= now_ms { due.push(entry.due) } else { later.push(entry) }
            }
            *slot = later;
        }
        wheel.next = wheel.next.max(last + 1);
        due
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Deadline, SLOT_MS, SLOTS, Timers};
    use crate::session::Session;

    proptest! {
        #[test]
        fn every_deadline_comes_once_never_early_and_within_a_slot(
            deadlines in prop::collection::vec(0u64..SLOT_MS * SLOTS * 3, 1..50),
            step in 1u64..3000,
        ) {
            let timers = Timers::new();
            let session = Session::new("c", 0, &crate::session::memory::QueuedMemory::new(u64::MAX));
            for (number, at_ms) in (0u32..).zip(&deadlines) {
                timers.insert(0, &session, number, Deadline::Will { at_ms: *at_ms });
            }
            let mut seen = vec![false; deadlines.len()];
            let mut now = 0;
            while now <= SLOT_MS * SLOTS * 3 + step + SLOT_MS {
                for due in timers.due(now) {
                    let at = deadlines[due.generation as usize];
                    if due.deadline.at_ms(&session) > now {
                        timers.insert(now, &session, due.generation, due.deadline);
                        continue;
                    }
                    prop_assert!(!std::mem::replace(&mut seen[due.generation as usize], true));
                    prop_assert!(at <= now && now < at + step + SLOT_MS, "due at {} came at {}", at, now);
                }
                now += step;
            }
            prop_assert!(seen.into_iter().all(|seen| seen));
        }
    }
}
