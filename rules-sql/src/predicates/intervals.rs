//! Which intervals a number lies in, without looking at the others.
//!
//! Every bound that occurs is given a rank once, so that an interval is two integers and a number is compared with
//! Decimals only on the way to its own rank. The intervals stand in an array by their lower end, read as a balanced
//! tree whose nodes know the highest upper end below them: a question costs O(log n) and what it finds.

use std::ops::Bound;

use super::Interval;
use crate::value::decimal::Decimal;

/// Rules by the interval that they ask for.
#[derive(Debug, Default)]
pub(super) struct Intervals {
    /// The bounds, ascending. The number at place i has the rank 2i + 1; what lies below it, 2i; above the last, 2n.
    bounds: Vec<Decimal>,
    /// By `low`.
    entries: Vec<Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// Lowest and highest rank inside.
    low: usize,
    high: usize,
    /// Highest `high` of the slice whose middle this is.
    highest: usize,
    rule: u32,
}

impl Intervals {
    pub(super) fn new(intervals: &[(Interval, u32)]) -> Intervals {
        let mut bounds: Vec<Decimal> = intervals
            .iter()
            .flat_map(|(interval, _)| [interval.low, interval.high])
            .filter_map(|bound| match bound {
                Bound::Included(value) | Bound::Excluded(value) => Some(value),
                Bound::Unbounded => None,
            })
            .collect();
        bounds.sort_unstable();
        bounds.dedup();
        let place = |value: &Decimal| bounds.partition_point(|bound| bound < value);
        let mut entries: Vec<Entry> = intervals
            .iter()
            .map(|(interval, rule)| Entry {
                low: match &interval.low {
                    Bound::Included(value) => 2 * place(value) + 1,
                    Bound::Excluded(value) => 2 * place(value) + 2,
                    Bound::Unbounded => 0,
                },
                high: match &interval.high {
                    Bound::Included(value) => 2 * place(value) + 1,
                    Bound::Excluded(value) => 2 * place(value),
                    Bound::Unbounded => usize::MAX,
                },
                highest: 0,
                rule: *rule,
            })
            // Bounds that cross leave no number inside.
            .filter(|entry| entry.low <= entry.high)
            .collect();
        entries.sort_unstable_by_key(|entry| (entry.low, entry.rule));
        settle(&mut entries);
        Intervals { bounds, entries }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Calls `found` with the rule of every interval that holds the number.
    pub(super) fn holding(&self, number: Decimal, found: &mut impl FnMut(u32)) {
        let rank = match self.bounds.binary_search(&number) {
            Ok(place) => 2 * place + 1,
            Err(place) => 2 * place,
        };
        visit(&self.entries, rank, found);
    }
}

/// Fills in `highest`, and returns that of the whole.
fn settle(entries: &mut [Entry]) -> usize {
    let middle = entries.len() / 2;
    let (before, rest) = entries.split_at_mut(middle);
    let Some((entry, after)) = rest.split_first_mut() else { return 0 };
    entry.highest = entry.high.max(settle(before)).max(settle(after));
    entry.highest
}

fn visit(mut entries: &[Entry], rank: usize, found: &mut impl FnMut(u32)) {
    loop {
        let (before, rest) = entries.split_at(entries.len() / 2);
        let Some((entry, after)) = rest.split_first() else { return };
        if entry.highest < rank {
            return;
        }
        visit(before, rank, found);
        if entry.low > rank {
            return;
        }
        if entry.high >= rank {
            found(entry.rule);
        }
        entries = after;
    }
}

#[cfg(test)]
mod tests {
    use std::ops::RangeBounds as _;

    use proptest::prelude::*;

    use super::*;

    fn bound() -> impl Strategy<Value = Bound<Decimal>> {
        let value = (-6_i64..6).prop_map(Decimal::from_i64);
        prop_oneof![
            1 => Just(Bound::Unbounded),
            3 => value.clone().prop_map(Bound::Included),
            3 => value.prop_map(Bound::Excluded),
        ]
    }

    proptest! {
        #[test]
        fn answers_what_asking_each_interval_does(
            intervals in prop::collection::vec((bound(), bound()), 0..40),
            halves in prop::collection::vec(-15_i64..15, 1..10),
        ) {
            let intervals: Vec<(Interval, u32)> =
                intervals.into_iter().map(|(low, high)| Interval { low, high }).zip(0..).collect();
            let tree = Intervals::new(&intervals);
            for half in halves {
                let number = Decimal::from_i64(half * 5).multiply(Decimal::parse("0.1").unwrap()).unwrap();
                let mut found = Vec::new();
                tree.holding(number, &mut |rule| found.push(rule));
                found.sort_unstable();
                let expected: Vec<u32> = intervals
                    .iter()
                    .filter(|(interval, _)| (interval.low, interval.high).contains(&number))
                    .map(|(_, rule)| *rule)
                    .collect();
                prop_assert_eq!(found, expected);
            }
        }
    }
}
