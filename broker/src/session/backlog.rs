//! Which debts of a queue in the store are in memory, and which are on disk alone.
//!
//! Debts get their places when they are appended, and come to the queue's receiver when they are fanned out; of two
//! publishers the one that appended first may fan out last. As long as the receiver keeps up it takes every debt as it
//! is fanned out. Once it is behind, debts are left to the disk, whatever their place, and are read back in the order of
//! places. A debt that has its place and isn't fanned out yet may be read first; it is known when it comes. One that was
//! taken before the queue fell behind is read too, and passed over. So each comes once.

use std::collections::BTreeSet;

/// See the module. Places are those of [`store::Position`]; 0 stands for no debt.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    /// Every debt up to here is or was in memory, or is paid.
    read: u64,
    /// The last debt that was left to the disk. Beyond `read`: the queue is behind.
    left: u64,
    /// While the queue is behind: debts beyond `read` that are in memory already.
    ahead: BTreeSet<u64>,
    /// A read is under way.
    is_reading: bool,
}

/// A read that was begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BacklogRead {
    /// Debts after this place are wanted.
    pub(crate) after: u64,
    /// The last that was left to the disk when the read began.
    left: u64,
}

impl Backlog {
    /// The backlog of a queue whose debts up to `last` are all on disk, except for those `ahead`.
    pub(crate) fn on_disk(last: u64, ahead: BTreeSet<u64>) -> Self {
        Self { read: 0, left: last, ahead, is_reading: false }
    }

    /// Whether there are debts on disk that have to be read before newer ones may be taken.
    pub(crate) fn is_behind(&self) -> bool {
        self.left > self.read
    }

    /// Whether a debt that is fanned out now was read from the disk already.
    pub(crate) fn knows(&self, place: u64) -> bool {
        place != 0 && place <= self.read
    }

    /// Leaves a debt to the disk. `in_memory` are the places of all debts that are in memory.
    pub(crate) fn leave(&mut self, place: u64, in_memory: impl Iterator<Item = u64>) {
        if !self.is_behind() {
            let read = self.read;
            self.ahead = in_memory.filter(|place| *place > read).collect();
        }
        self.left = self.left.max(place);
    }

    /// Begins a read, unless one is under way or nothing is on disk.
    pub(crate) fn begin_read(&mut self) -> Option<BacklogRead> {
        if self.is_reading || !self.is_behind() {
            return None;
        }
        self.is_reading = true;
        Some(BacklogRead { after: self.read, left: self.left })
    }

    /// A debt was read, the next one in order. `false`: it is in memory already.
    pub(crate) fn take(&mut self, place: u64) -> bool {
        self.read = self.read.max(place);
        !self.ahead.remove(&place)
    }

    /// The read is over. `found_nothing`: there is no unpaid debt where it began.
    pub(crate) fn end_read(&mut self, read: BacklogRead, found_nothing: bool) {
        self.is_reading = false;
        if found_nothing {
            self.read = self.read.max(read.left);
        }
        if !self.is_behind() {
            self.ahead = BTreeSet::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::Backlog;

    #[derive(Debug, Clone)]
    enum Step {
        /// A publisher appends a debt.
        Append(usize),
        /// A publisher fans its oldest out.
        FanOut(usize),
        /// Up to so many are read.
        Read(usize),
        /// The receiver pays its oldest.
        Pay,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0usize..3).prop_map(Step::Append),
            4 => (0usize..3).prop_map(Step::FanOut),
            2 => (1usize..5).prop_map(Step::Read),
            3 => Just(Step::Pay),
        ]
    }

    proptest! {
        #[test]
        fn each_debt_comes_once_and_in_its_publishers_order(
            steps in prop::collection::vec(step(), 1..200),
            head in 1usize..6,
            restored in 0u64..4,
        ) {
            let mut backlog = Backlog::on_disk(restored, BTreeSet::new());
            let mut unpaid: BTreeMap<u64, usize> = (1..=restored).map(|place| (place, 9)).collect();
            let mut pending: Vec<Vec<u64>> = vec![Vec::new(); 3];
            let mut memory: Vec<u64> = Vec::new();
            let mut came: Vec<(usize, u64)> = Vec::new();
            let mut next = restored + 1;
            let read = |backlog: &mut Backlog, memory: &mut Vec<u64>, came: &mut Vec<(usize, u64)>,
                            unpaid: &BTreeMap<u64, usize>, max: usize| {
                let Some(read) = backlog.begin_read() else { return };
                assert!(backlog.begin_read().is_none(), "one at a time");
                let found: Vec<_> =
                    unpaid.range(read.after + 1..).take(max).map(|(place, by)| (*place, *by)).collect();
                for (place, by) in &found {
                    if backlog.take(*place) {
                        memory.push(*place);
                        came.push((*by, *place));
                    }
                }
                backlog.end_read(read, found.is_empty());
            };
            for step in steps {
                match step {
                    Step::Append(by) => {
                        unpaid.insert(next, by);
                        pending[by].push(next);
                        next += 1;
                    }
                    Step::FanOut(by) if !pending[by].is_empty() => {
                        let place = pending[by].remove(0);
                        if backlog.knows(place) {
                            continue;
                        }
                        if backlog.is_behind() || memory.len() >= head {
                            backlog.leave(place, memory.iter().copied());
                        } else {
                            memory.push(place);
                            came.push((by, place));
                        }
                    }
                    Step::FanOut(_) => {}
                    Step::Read(max) => read(&mut backlog, &mut memory, &mut came, &unpaid, max),
                    Step::Pay if !memory.is_empty() => {
                        let place = memory.remove(0);
                        unpaid.remove(&place);
                    }
                    Step::Pay => {}
                }
            }
            for (by, pending) in pending.into_iter().enumerate() {
                for place in pending {
                    if !backlog.knows(place) {
                        if backlog.is_behind() {
                            backlog.leave(place, memory.iter().copied());
                        } else {
                            memory.push(place);
                            came.push((by, place));
                        }
                    }
                }
            }
            let mut rounds = 0;
            while backlog.is_behind() {
                read(&mut backlog, &mut memory, &mut came, &unpaid, 3);
                rounds += 1;
                prop_assert!(rounds < 1000, "{backlog:?}");
            }
            let all: BTreeSet<u64> = came.iter().map(|(_, place)| *place).collect();
            prop_assert_eq!(all.len(), came.len(), "none came twice: {:?}", came);
            prop_assert_eq!(all, (1..next).collect::<BTreeSet<_>>());
            for by in 0..3 {
                prop_assert!(came.iter().filter(|(other, _)| *other == by).is_sorted(), "{:?}", came);
            }
        }
    }
}
