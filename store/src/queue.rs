//! What is owed to one receiver, without the debts themselves: which places are paid, and in which segments the others lie.
//!
//! A queue of ten million debts costs what one of a hundred costs: its places are given in order, so paid ones make a few
//! ranges ([`Ranges`]), and a segment holds the queue's debts as *runs*, stretches of places that were written to it one
//! after the other. A run knows how many of its debts are unpaid and the bytes they account for, so that the bytes that are
//! alive in a segment can be told without looking into it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::ranges::Ranges;

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct Queue {
    /// The encoded [`crate::QueueKey`].
    pub(crate) key: Box<[u8]>,
    /// The place that the next debt gets.
    pub(crate) next: u64,
    /// Paid places.
    pub(crate) settled: Ranges,
    /// In the order of places; they don't overlap.
    pub(crate) runs: VecDeque<Run>,
    /// What a session has besides debts.
    pub(crate) session: Option<Box<Session>>,
}

/// Debts of one queue that lie in one segment, written in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) segment: u64,
    /// Unpaid ones.
    pub(crate) count: u64,
    /// Bytes that they account for.
    pub(crate) bytes: u64,
}

impl Run {
    /// Takes some debts out; returns the bytes that went with them.
    fn take(&mut self, count: u64) -> u64 {
        let count = count.min(self.count);
        let bytes = if count == self.count { self.bytes } else { self.bytes / self.count * count };
        self.count -= count;
        self.bytes -= bytes;
        bytes
    }
}

/// What a session has besides debts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Session {
    pub(crate) expiry_interval_s: u32,
    /// Wall clock when its connection went; `None` while it has one.
    pub(crate) detached_at_ms: Option<i64>,
    /// User name of whose it is; empty: nobody's.
    pub(crate) owner: Box<str>,
    /// As in its record, from the delay on.
    pub(crate) will: Option<Box<[u8]>>,
    /// Options byte and Subscription Identifier by Topic Filter.
    pub(crate) subscriptions: BTreeMap<Box<str>, (u8, u32)>,
    pub(crate) received: BTreeSet<u16>,
    pub(crate) inflight: BTreeMap<u16, Inflight>,
}

/// What a session was sent under a Packet Identifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Inflight {
    pub(crate) owner: u64,
    pub(crate) position: u64,
    /// PUBREC has come: the debt is paid and PUBCOMP is awaited.
    pub(crate) awaits_completion: bool,
}

impl Queue {
    pub(crate) fn new(key: &[u8]) -> Self {
        Self { key: key.into(), next: 1, settled: Ranges::default(), runs: VecDeque::new(), session: None }
    }

    /// Whether the place was given and isn't paid.
    pub(crate) fn owes(&self, position: u64) -> bool {
        position > 0 && position < self.next && !self.settled.contains(position)
    }

    /// How many debts there are.
    pub(crate) fn len(&self) -> u64 {
        self.next - 1 - self.settled.count_in(1, self.next - 1)
    }

    /// The run that has this place, as its index.
    fn run_of(&self, position: u64) -> Option<usize> {
        let index = self.runs.partition_point(|run| run.first <= position).checked_sub(1)?;
        self.runs.get(index).filter(|run| position <= run.last).map(|_| index)
    }

    /// The segment that has this debt.
    pub(crate) fn segment_of(&self, position: u64) -> Option<u64> {
        self.runs.get(self.run_of(position)?).map(|run| run.segment)
    }

    /// Pays a debt; returns the segment that it lay in and the bytes that died there.
    pub(crate) fn settle(&mut self, position: u64) -> Option<(u64, u64)> {
        if !self.owes(position) {
            return None;
        }
        self.settled.insert(position, position);
        let index = self.run_of(position)?;
        let run = self.runs.get_mut(index)?;
        let died = (run.segment, run.take(1));
        if run.count == 0 {
            self.runs.remove(index);
        }
        Some(died)
    }

    /// A debt was written to a segment for the first time.
    pub(crate) fn place(&mut self, position: u64, segment: u64, bytes: u64) {
        self.next = self.next.max(position + 1);
        let after = self.runs.partition_point(|run| run.first <= position);
        if let Some(run) = after.checked_sub(1).and_then(|index| self.runs.get_mut(index))
            && run.segment == segment
            && run.last < position
            && self.settled.first_missing(run.last + 1) >= position
        {
            run.last = position;
            run.count += 1;
            run.bytes += bytes;
            return;
        }
        self.runs.insert(after, Run { first: position, last: position, segment, count: 1, bytes });
    }

    /// A debt was written again to another segment; returns the segment that it lay in and the bytes that died there.
    pub(crate) fn relocate(&mut self, position: u64, segment: u64, bytes: u64) -> Option<(u64, u64)> {
        let Some(index) = self.run_of(position) else {
            self.place(position, segment, bytes);
            return None;
        };
        let mut upper = self.runs.remove(index)?;
        let (first, died_in) = (upper.first, upper.segment);
        // Normally nothing unpaid is left before it: debts are moved in their order.
        let before = position - first - self.settled.count_in(first, position.saturating_sub(1));
        let lower_bytes = upper.take(before);
        let died = upper.take(1);
        if upper.count > 0 {
            upper.first = position + 1;
            self.runs.insert(index, upper);
        }
        if before > 0 {
            let lower =
                Run { first, last: position - 1, segment: died_in, count: before, bytes: lower_bytes };
            self.runs.insert(index, lower);
        }
        self.place(position, segment, bytes);
        Some((died_in, died))
    }

    /// Gives up all debts that lie in a segment; returns how many.
    pub(crate) fn lose(&mut self, segment: u64) -> u64 {
        let mut lost = 0;
        let settled = &mut self.settled;
        self.runs.retain(|run| {
            if run.segment == segment {
                settled.insert(run.first, run.last);
                lost += run.count;
            }
            run.segment != segment
        });
        lost
    }

    /// Pays every place that no segment has, once the log is read: those debts were paid before they were written, or they
    /// are lost. Returns how many there were.
    pub(crate) fn close_gaps(&mut self) -> u64 {
        let before = self.len();
        let mut next = 1;
        for run in &self.runs {
            self.settled.insert(next, run.first - 1);
            next = run.last + 1;
        }
        self.settled.insert(next, self.next - 1);
        let mut merged: VecDeque<Run> = VecDeque::with_capacity(self.runs.len());
        for run in self.runs.drain(..) {
            match merged.back_mut().filter(|last| last.segment == run.segment) {
                Some(last) => {
                    last.last = run.last;
                    last.count += run.count;
                    last.bytes += run.bytes;
                }
                None => merged.push_back(run),
            }
        }
        self.runs = merged;
        before - self.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(count: u64, segment: u64) -> Queue {
        let mut queue = Queue::new(b"");
        for position in 1..=count {
            queue.place(position, segment, 10);
        }
        queue
    }

    #[test]
    fn a_long_queue_is_one_run() {
        let mut queue = queue(1000, 1);
        assert_eq!((queue.runs.len(), queue.len()), (1, 1000));
        for position in 2..=1000 {
            assert_eq!(queue.settle(position), Some((1, 10)));
            assert_eq!(queue.settle(position), None, "paid once");
        }
        assert_eq!((queue.runs.len(), queue.len(), queue.settled.len()), (1, 1, 1));
        assert_eq!(queue.settle(1), Some((1, 10)));
        assert_eq!((queue.runs.len(), queue.len()), (0, 0));
        assert_eq!(queue.settle(1001), None, "never given");
        assert_eq!(queue.settle(0), None);
    }

    #[test]
    fn moved_debts_keep_their_places() {
        let mut queue = queue(100, 1);
        for position in 101..=110 {
            queue.place(position, 2, 10);
        }
        for position in (1..=100).filter(|position| position % 30 != 0) {
            queue.settle(position);
        }
        for position in [30, 60, 90] {
            assert_eq!(queue.segment_of(position), Some(1));
            assert_eq!(queue.relocate(position, 3, 20), Some((1, 10)));
            assert_eq!(queue.segment_of(position), Some(3));
        }
        let runs: Vec<_> =
            queue.runs.iter().map(|run| (run.first, run.last, run.segment, run.count)).collect();
        assert_eq!(runs, [(30, 90, 3, 3), (101, 110, 2, 10)]);
        assert_eq!(queue.settle(60), Some((3, 20)));
        assert_eq!(queue.len(), 12);
    }

    #[test]
    fn a_debt_moved_out_of_turn_leaves_both_sides() {
        let mut queue = queue(10, 1);
        queue.settle(1);
        assert_eq!(queue.relocate(5, 2, 10), Some((1, 10)));
        let runs: Vec<_> =
            queue.runs.iter().map(|run| (run.first, run.last, run.segment, run.count)).collect();
        assert_eq!(runs, [(1, 4, 1, 3), (5, 5, 2, 1), (6, 10, 1, 5)]);
        assert_eq!(queue.runs.iter().map(|run| run.bytes).sum::<u64>(), 90);
        assert_eq!(queue.lose(1), 8);
        assert_eq!((queue.len(), queue.owes(5), queue.owes(6)), (1, true, false));
    }

    #[test]
    fn gaps_are_paid() {
        let mut queue = queue(2, 1);
        queue.place(5, 1, 10);
        queue.next = 8;
        assert_eq!(queue.runs.len(), 2, "what is between may turn up elsewhere");
        assert_eq!(queue.close_gaps(), 4);
        assert_eq!((queue.len(), queue.owes(5), queue.owes(4)), (3, true, false));
        assert_eq!(queue.runs.len(), 1);
    }
}
