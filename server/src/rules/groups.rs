//! Rules by what they select FROM: which of them a message on a topic concerns, and how many messages they saw.
//!
//! A group is the rules that have the same Topic Filters. Topics lead to groups, not to rules, so what is kept for a
//! topic doesn't grow with the rules on it. A group of more than a few rules has an index over what their WHERE asks, and
//! one counter of messages for all of them: counting, too, costs nothing for the rules that the index leaves out.

use std::collections::HashMap;
use std::sync::Arc;

use rules_sql::{Evaluation, PredicateIndex};

use super::counters::Counter;
use super::rule::Rule;

/// So many rules on the same filters are asked one by one: that takes no longer than asking an index.
const RULES_ONE_BY_ONE: usize = 3;
/// Candidates that are lined up at a time. A turn rarely gets further, and what is left is looked up again in the next.
const LINE_MAX: usize = 512;
/// Candidates that a buffer is kept for between messages.
const BUFFER_KEPT: usize = 16_384;

/// The Topic Filters of a FROM, ascending, each once.
pub(super) type Filters = Box<[String]>;

/// The key of the group that a rule with these filters belongs to.
pub(super) fn key(filters: &[String]) -> Filters {
    let mut key = filters.to_vec();
    key.sort_unstable();
    key.dedup();
    key.into()
}

/// A rule and its place among all.
type Placed = (u32, Arc<Rule>);

/// The rules that share their Topic Filters.
#[derive(Debug)]
pub(super) struct Group {
    /// By their places, ascending.
    rules: Box<[Placed]>,
    index: Option<PredicateIndex>,
    matched: Arc<Counter>,
}

impl Group {
    /// Makes the groups of rules that are numbered by their places, with their keys, in the order of their first rules.
    /// `counters` are those of groups that were there before; it gets the new ones and keeps none but the groups'.
    pub(super) fn all(
        rules: &[Arc<Rule>],
        counters: &mut HashMap<Filters, Arc<Counter>>,
    ) -> Vec<(Filters, Arc<Group>)> {
        let mut places: HashMap<Filters, usize> = HashMap::new();
        let mut members: Vec<(Filters, Vec<Placed>)> = Vec::new();
        for (place, rule) in (0..).zip(rules) {
            let key = key(rule.filters());
            let group = *places.entry(key.clone()).or_insert_with(|| {
                members.push((key, Vec::new()));
                members.len() - 1
            });
            if let Some((_, rules)) = members.get_mut(group) {
                rules.push((place, Arc::clone(rule)));
            }
        }
        counters.retain(|key, _| places.contains_key(key));
        let group = |(key, rules): (Filters, Vec<Placed>)| {
            let index = (rules.len() > RULES_ONE_BY_ONE)
                .then(|| PredicateIndex::new(rules.iter().map(|(_, rule)| rule.compiled())));
            let matched = Arc::clone(counters.entry(key.clone()).or_default());
            (key, Arc::new(Group { rules: rules.into(), index, matched }))
        };
        members.into_iter().map(group).collect()
    }

    pub(super) fn rules(&self) -> impl Iterator<Item = &Arc<Rule>> {
        self.rules.iter().map(|(_, rule)| rule)
    }

    /// Counts the messages that came to the rules of this group.
    pub(super) fn matched(&self) -> &Arc<Counter> {
        &self.matched
    }

    /// Lines up the rules that may want a message, from a place on.
    fn line_up(&self, group: usize, from: u32, evaluation: &mut Evaluation<'_>, line: &mut Line) {
        let first = self.rules.partition_point(|(place, _)| *place < from);
        line.numbers.clear();
        match (&self.index, u32::try_from(first)) {
            (Some(index), Ok(first)) => index.candidates(evaluation, first, &mut line.numbers),
            (Some(_), Err(_)) => {}
            (None, _) => line.numbers.extend((0..).take(self.rules.len()).skip(first)),
        }
        let candidates = line.numbers.iter().filter_map(|number| {
            let number = usize::try_from(*number).ok()?;
            let (place, _) = self.rules.get(number)?;
            Some(Candidate { place: *place, group, number })
        });
        line.candidates.extend(candidates);
    }
}

/// A rule that may want the message.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    place: u32,
    /// Place of its group among the topic's.
    group: usize,
    /// Its place in the group.
    number: usize,
}

/// The groups of one topic.
#[derive(Debug)]
pub(super) struct Candidates {
    groups: Box<[Arc<Group>]>,
}

impl Candidates {
    pub(super) fn new(groups: Box<[Arc<Group>]>) -> Self {
        Self { groups }
    }

    /// Counts a message that comes to all rules of the topic.
    pub(super) fn count(&self) {
        self.groups.iter().for_each(|group| group.matched.raise());
    }

    /// Lines up the next rules that may want a message, from a place on, in the order in which they run.
    pub(super) fn line_up(&self, from: u32, evaluation: &mut Evaluation<'_>, line: &mut Line) {
        line.candidates.clear();
        for (place, group) in self.groups.iter().enumerate() {
            group.line_up(place, from, evaluation, line);
        }
        line.cut = line.candidates.len() > LINE_MAX;
        if line.cut {
            line.candidates.select_nth_unstable_by_key(LINE_MAX, |candidate| candidate.place);
            line.candidates.truncate(LINE_MAX);
        }
        line.candidates.sort_unstable_by_key(|candidate| candidate.place);
    }

    /// Every rule of the topic with its place, group by group.
    pub(super) fn all(&self) -> impl Iterator<Item = (u32, &Arc<Rule>)> {
        self.groups.iter().flat_map(|group| group.rules.iter().map(|(place, rule)| (*place, rule)))
    }

    /// The rules of a line, each with its place.
    pub(super) fn rules<'c>(&'c self, line: &'c Line) -> impl Iterator<Item = (u32, &'c Arc<Rule>)> {
        line.candidates.iter().filter_map(|candidate| {
            let (_, rule) = self.groups.get(candidate.group)?.rules.get(candidate.number)?;
            Some((candidate.place, rule))
        })
    }
}

/// Rules that wait for their turn with one message. Kept from message to message for its buffers.
#[derive(Debug, Default)]
pub(super) struct Line {
    candidates: Vec<Candidate>,
    /// Scratch: numbers within one group.
    numbers: Vec<u32>,
    cut: bool,
}

impl Line {
    /// Whether more rules come behind this line.
    pub(super) fn is_cut(&self) -> bool {
        self.cut
    }

    /// How many rules it holds.
    pub(super) fn len(&self) -> usize {
        self.candidates.len()
    }

    /// Gives back what only an uncommon message needs.
    pub(super) fn trim(&mut self) {
        self.candidates.clear();
        self.candidates.shrink_to(BUFFER_KEPT);
        self.numbers.clear();
        self.numbers.shrink_to(BUFFER_KEPT);
    }
}
