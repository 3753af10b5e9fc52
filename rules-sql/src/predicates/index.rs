//! The index over the predicates of many rules: which of them a message is worth evaluating for.
//!
//! Each rule stands in it by one predicate at most, the one that promises to narrow best; rules without any are always
//! named. Per subject there are hash tables for equality and [`Intervals`] for ranges. The payload's paths form a
//! tree that is walked along with the document, so that a message is looked through once however many paths there are.
//!
//! The index only narrows, so it holds no rule and decides nothing: who it names still runs its whole WHERE. Nothing
//! is allocated for a question, unless a string with escapes is asked about.

use std::collections::HashMap;

use smallvec::SmallVec;

use super::intervals::Intervals;
use super::{Fact, Interval, Key, Predicate, Subject, Test};
use crate::evaluation::Evaluation;
use crate::json::{Kind, Node};
use crate::rule::CompiledRule;
use crate::value::Value;
use crate::value::decimal::Decimal;

/// A range is taken for as good as an equality that so many rules share: `kind = 'reading' AND temperature > 60` is found
/// by its range when every other rule says `kind = 'reading'` too.
const RANGE_WEIGHT: usize = 64;
/// Up to so many names below one object are looked up one by one; for more its members are gone through once.
const NAMES_ONE_BY_ONE: usize = 4;

/// Which of many rules can match a message, by what their WHERE asks of single values.
///
/// A conjunct at the top of WHERE counts if it compares a field of the payload, `topic()`, `topic(n)`, `clientid()`,
/// `username()` or `qos()` with constants, by `=`, IN, BETWEEN or `<` and its kin. The rules that are left out would
/// answer [`Outcome::NoMatch`](crate::Outcome::NoMatch), or have gone past a budget on the way there.
#[derive(Debug, Default)]
pub struct PredicateIndex {
    /// Rules without a predicate, ascending.
    always: Vec<u32>,
    facts: Vec<(Fact, Table)>,
    /// Paths into the payload; empty when no rule asks about one.
    paths: Vec<PathNode>,
    tables: Vec<Table>,
    json_depth: usize,
}

/// A name on the way to a subject; the first node is the payload itself.
#[derive(Debug, Default)]
struct PathNode {
    /// The next names, ascending, and their nodes.
    names: Vec<(Box<str>, usize)>,
    /// Place of the subject that ends here.
    table: Option<usize>,
}

/// The rules that ask about one subject.
#[derive(Debug, Default)]
struct Table {
    strings: HashMap<Box<str>, Rules>,
    /// Bytes of the longest string; a longer one needs no hash.
    longest: usize,
    numbers: HashMap<Decimal, Rules>,
    falsehood: Rules,
    truth: Rules,
    null: Rules,
    ranges: Intervals,
}

/// Numbers of rules, ascending.
type Rules = SmallVec<[u32; 4]>;

/// Where the answer goes.
struct Answer<'f> {
    from: u32,
    found: &'f mut Vec<u32>,
}

impl PredicateIndex {
    /// Builds an index over rules that were compiled with the same limits. They are numbered by their position.
    #[must_use]
    pub fn new<'r>(rules: impl IntoIterator<Item = &'r CompiledRule>) -> PredicateIndex {
        let rules: Vec<&CompiledRule> = rules.into_iter().collect();
        let sharers = Sharers::of(&rules);
        let mut index = PredicateIndex::default();
        let mut by_subject: HashMap<&Subject, Vec<(&Test, u32)>> = HashMap::new();
        let mut subjects: Vec<&Subject> = Vec::new();
        for (rule, number) in rules.iter().zip(0..) {
            let best = rule.predicates().iter().min_by_key(|predicate| sharers.weight(predicate));
            let Some(Predicate { subject, test }) = best else {
                index.always.push(number);
                continue;
            };
            by_subject
                .entry(subject)
                .or_insert_with(|| {
                    subjects.push(subject);
                    Vec::new()
                })
                .push((test, number));
        }
        index.json_depth = rules.first().map_or(0, |rule| rule.json_depth());
        for subject in subjects {
            let table = Table::new(by_subject.remove(subject).unwrap_or_default());
            match subject {
                Subject::Message(fact) => index.facts.push((*fact, table)),
                Subject::Field(path) => index.insert(path, table),
            }
        }
        index
    }

    fn insert(&mut self, path: &[Box<str>], table: Table) {
        if self.paths.is_empty() {
            self.paths.push(PathNode::default());
        }
        let mut at = 0;
        for name in path {
            let next = self.paths.len();
            let Some(node) = self.paths.get_mut(at) else { return };
            match node.names.binary_search_by(|(known, _)| known.cmp(name)) {
                Ok(place) => at = node.names.get(place).map_or(next, |(_, node)| *node),
                Err(place) => {
                    node.names.insert(place, (name.clone(), next));
                    self.paths.push(PathNode::default());
                    at = next;
                }
            }
        }
        if let Some(node) = self.paths.get_mut(at) {
            node.table = Some(self.tables.len());
            self.tables.push(table);
        }
    }

    /// Appends the numbers of the rules, from `from` on, that can match the message: ascending, each once.
    pub fn candidates(&self, ev: &mut Evaluation<'_>, from: u32, found: &mut Vec<u32>) {
        let start = found.len();
        let mut answer = Answer { from, found };
        answer.add(&self.always);
        for (fact, table) in &self.facts {
            table.ask(&fact.value(ev.event()), &mut answer);
        }
        if let Some(root) = self.paths.first() {
            ev.read_payload(self.json_depth);
            if let Some(payload) = ev.document().and_then(|document| document.root()) {
                self.walk(root, payload, &mut answer);
            }
        }
        if let Some(found) = found.get_mut(start..) {
            found.sort_unstable();
        }
    }

    /// Asks about everything in `value` that lies below `node`. As deep as the shorter of path and document.
    fn walk(&self, node: &PathNode, value: Node<'_>, answer: &mut Answer<'_>) {
        if let Some(table) = node.table.and_then(|table| self.tables.get(table)) {
            table.ask(&Value::from_node(value), answer);
        }
        if node.names.len() <= NAMES_ONE_BY_ONE {
            for (name, next) in &node.names {
                if let Some(value) = value.member(name, &mut 0)
                    && let Some(next) = self.paths.get(*next)
                {
                    self.walk(next, value, answer);
                }
            }
            return;
        }
        // Elements have no names.
        if value.kind() != Kind::Object {
            return;
        }
        let mut members: SmallVec<[(usize, Node<'_>); 16]> = SmallVec::new();
        for member in value.children() {
            let key = member.key();
            if let Ok(place) = node.names.binary_search_by(|(name, _)| (**name).cmp(&*key)) {
                members.push((place, member));
            }
        }
        // The same key twice: the last wins. Members of one place keep their order.
        members.sort_unstable_by_key(|(place, member)| (*place, member.index()));
        let mut rest = members.as_slice();
        while let Some(((place, member), after)) = rest.split_first() {
            rest = after;
            if rest.first().is_none_or(|(next, _)| next != place)
                && let Some((_, next)) = node.names.get(*place)
                && let Some(next) = self.paths.get(*next)
            {
                self.walk(next, *member, answer);
            }
        }
    }
}

/// How often each test of each subject occurs among the rules.
#[derive(Default)]
struct Sharers<'r> {
    equal: HashMap<(&'r Subject, &'r Key), usize>,
    within: HashMap<(&'r Subject, &'r Interval), usize>,
}

impl<'r> Sharers<'r> {
    fn of(rules: &[&'r CompiledRule]) -> Sharers<'r> {
        let mut sharers = Sharers::default();
        for Predicate { subject, test } in rules.iter().flat_map(|rule| rule.predicates()) {
            match test {
                Test::OneOf(keys) => {
                    for key in keys {
                        *sharers.equal.entry((subject, key)).or_default() += 1;
                    }
                }
                Test::Within(interval) => *sharers.within.entry((subject, interval)).or_default() += 1,
            }
        }
        sharers
    }

    /// What a predicate is chosen by, the least being the best: how many rules it is found with, and by how many
    /// constants.
    fn weight(&self, Predicate { subject, test }: &Predicate) -> (usize, usize) {
        match test {
            Test::OneOf(keys) => {
                let shared = keys.iter().filter_map(|key| self.equal.get(&(subject, key))).max();
                (shared.copied().unwrap_or(0), keys.len())
            }
            Test::Within(interval) => {
                let shared = self.within.get(&(subject, interval)).copied().unwrap_or(0);
                (shared.max(RANGE_WEIGHT), usize::MAX)
            }
        }
    }
}

impl Table {
    fn new(tests: Vec<(&Test, u32)>) -> Table {
        let mut table = Table::default();
        let mut ranges: Vec<(Interval, u32)> = Vec::new();
        for (test, rule) in tests {
            match test {
                Test::OneOf(keys) => {
                    for key in keys {
                        table.rules_of(key).push(rule);
                    }
                }
                Test::Within(interval) => ranges.push((*interval, rule)),
            }
        }
        table.ranges = Intervals::new(&ranges);
        table
    }

    fn rules_of(&mut self, key: &Key) -> &mut Rules {
        match key {
            Key::Null => &mut self.null,
            Key::Bool(false) => &mut self.falsehood,
            Key::Bool(true) => &mut self.truth,
            Key::Number(number) => self.numbers.entry(*number).or_default(),
            Key::String(text) => {
                self.longest = self.longest.max(text.len());
                self.strings.entry(text.clone()).or_default()
            }
        }
    }

    /// Answers the rules that this value can satisfy. Equality converts nothing; ranges read number text too.
    fn ask(&self, value: &Value<'_>, answer: &mut Answer<'_>) {
        match value {
            Value::Null => answer.add(&self.null),
            Value::Bool(false) => answer.add(&self.falsehood),
            Value::Bool(true) => answer.add(&self.truth),
            Value::String(text) if text.len() <= self.longest => {
                if let Some(rules) = self.strings.get(&**text) {
                    answer.add(rules);
                }
            }
            _ => {}
        }
        if self.numbers.is_empty() && self.ranges.is_empty() {
            return;
        }
        let Some(number) = value.to_num().and_then(|number| number.decimal()) else { return };
        if !matches!(value, Value::String(_))
            && let Some(rules) = self.numbers.get(&number)
        {
            answer.add(rules);
        }
        self.ranges.holding(number, &mut |rule| answer.add_one(rule));
    }
}

impl Answer<'_> {
    fn add(&mut self, rules: &[u32]) {
        let before = rules.partition_point(|rule| *rule < self.from);
        self.found.extend_from_slice(rules.get(before..).unwrap_or_default());
    }

    fn add_one(&mut self, rule: u32) {
        if rule >= self.from {
            self.found.push(rule);
        }
    }
}
