//! A set of numbers that mostly lie side by side: which places of a queue are paid.

use std::collections::BTreeMap;

/// Numbers from 1 on, as ranges that never touch each other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ranges {
    /// First to last, both in the set.
    ranges: BTreeMap<u64, u64>,
}

impl Ranges {
    /// Adds a range. An empty one changes nothing.
    pub(crate) fn insert(&mut self, first: u64, last: u64) {
        if first > last {
            return;
        }
        let (mut first, mut last) = (first, last);
        // Everything that overlaps or touches becomes one.
        while let Some((&start, &end)) = self.ranges.range(..=last.saturating_add(1)).next_back() {
            if end.saturating_add(1) < first {
                break;
            }
            first = first.min(start);
            last = last.max(end);
            self.ranges.remove(&start);
        }
        self.ranges.insert(first, last);
    }

    pub(crate) fn contains(&self, number: u64) -> bool {
        self.ranges.range(..=number).next_back().is_some_and(|(_, end)| *end >= number)
    }

    /// How many numbers of `first..=last` are in the set.
    pub(crate) fn count_in(&self, first: u64, last: u64) -> u64 {
        let before = self.ranges.range(..first).next_back();
        before
            .into_iter()
            .chain(self.ranges.range(first..=last.max(first)))
            .map(|(start, end)| {
                let (start, end) = ((*start).max(first), (*end).min(last));
                (end + 1).saturating_sub(start)
            })
            .sum()
    }

    /// The first number from `from` on that isn't in the set.
    pub(crate) fn first_missing(&self, from: u64) -> u64 {
        match self.ranges.range(..=from).next_back() {
            Some((_, end)) if *end >= from => end + 1,
            _ => from,
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, u64)> {
        self.ranges.iter().map(|(first, last)| (*first, *last))
    }

    /// How many ranges there are: what the set costs.
    pub(crate) fn len(&self) -> usize {
        self.ranges.len()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_set(inserted in prop::collection::vec((1..60u64, 0..8u64), 0..40), asked in (1..70u64, 0..70u64)) {
            let mut ranges = Ranges::default();
            let mut model = BTreeSet::new();
            for (first, length) in inserted {
                ranges.insert(first, first + length - 1);
                model.extend(first..first + length);
            }
            for number in 0..80 {
                prop_assert_eq!(ranges.contains(number), model.contains(&number));
                let missing = (number..).find(|number| !model.contains(number));
                prop_assert_eq!(Some(ranges.first_missing(number)), missing);
            }
            let (first, length) = asked;
            let counted = model.range(first..first + length).count() as u64;
            prop_assert_eq!(ranges.count_in(first, (first + length).saturating_sub(1)), counted);
            let mut end = 0;
            for (first, last) in ranges.iter() {
                prop_assert!(first <= last && first > end + u64::from(end > 0), "ranges touch");
                end = last;
            }
            prop_assert!(ranges.len() <= 40);
        }
    }
}
