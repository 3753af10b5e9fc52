//! Rules found by the levels of their filters.
//!
//! A tree has a node for each text, or `+`, that a filter begins with. A rule stands at the node where its filter ends, goes on
//! with `#` or a placeholder, or has more levels than [`INDEXED_LEVELS`]. Following a topic down the tree meets every rule that
//! can match it, and few others; each of them is asked, so that the tree decides nothing.
//!
//! A Subscription follows its own wildcards as well: below a `+` or `#` there can be no rule that covers it, but there can be
//! some that deny a part of it. Nodes know the earliest rule below them and the earliest of those, so a branch that can't
//! change the answer any more is left alone.
//!
//! A list of few rules is read through instead: that is quicker, and costs no tree for each client that brings its own.

use std::collections::HashMap;

use super::pattern::Step;
use super::rules::{Effect, Request, Rule, Subject};

/// Rules that are read through; more of them are looked up.
pub(super) const READ_THROUGH_MAX: usize = 8;

/// Levels of a filter that the tree knows.
const INDEXED_LEVELS: usize = 16;

/// No place of a rule.
const NOWHERE: u32 = u32::MAX;

/// Places of rules, ascending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum List {
    /// To be read through.
    Short(Box<[u32]>),
    /// To be looked up. The first node is the root.
    Tree(Vec<Node>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    /// Earliest rule here or below.
    first: u32,
    /// Earliest of those that can deny a part of a Subscription.
    first_denial: u32,
    /// Rules that stand here.
    here: Vec<u32>,
    /// Where the next level is this text.
    texts: HashMap<Box<str>, usize>,
    /// Where the next level is `+`.
    one: Option<usize>,
    /// Nodes below that have such a denial, in the order of their earliest.
    denying: Vec<usize>,
}

impl Node {
    fn new() -> Self {
        Self {
            first: NOWHERE,
            first_denial: NOWHERE,
            here: Vec::new(),
            texts: HashMap::new(),
            one: None,
            denying: Vec::new(),
        }
    }
}

impl List {
    /// Makes a list of the rules at these places, a tree if there are more than `read_through_max`.
    pub(super) fn new(rules: &[Rule], places: Vec<u32>, read_through_max: usize) -> Self {
        if places.len() <= read_through_max {
            return Self::Short(places.into());
        }
        let mut nodes = vec![Node::new()];
        for place in places {
            if let Some(rule) = rule(rules, place) {
                insert(&mut nodes, place, rule);
            }
        }
        Self::Tree(nodes)
    }
}

fn rule(rules: &[Rule], place: u32) -> Option<&Rule> {
    rules.get(usize::try_from(place).ok()?)
}

/// Puts a rule into the tree; places come in their order.
fn insert(nodes: &mut Vec<Node>, place: u32, rule: &Rule) {
    let denies_a_part = rule.can_deny_a_part();
    let mut at = 0;
    for step in rule.pattern.steps().take(INDEXED_LEVELS) {
        note(nodes, at, place, denies_a_part);
        let next = nodes.len();
        let Some(node) = nodes.get_mut(at) else { return };
        let child = match step {
            Step::Text(text) => *node.texts.entry(text.into()).or_insert(next),
            Step::One => *node.one.get_or_insert(next),
        };
        if child == next {
            nodes.push(Node::new());
        }
        let is_first_denial = nodes.get(child).is_some_and(|child| child.first_denial == NOWHERE);
        if denies_a_part
            && is_first_denial
            && let Some(node) = nodes.get_mut(at)
        {
            node.denying.push(child);
        }
        at = child;
    }
    note(nodes, at, place, denies_a_part);
    if let Some(node) = nodes.get_mut(at) {
        node.here.push(place);
    }
}

fn note(nodes: &mut [Node], at: usize, place: u32, denies_a_part: bool) {
    let Some(node) = nodes.get_mut(at) else { return };
    node.first = node.first.min(place);
    if denies_a_part {
        node.first_denial = node.first_denial.min(place);
    }
}

/// What is left of a filter.
#[derive(Clone, Copy)]
enum Rest<'a> {
    /// Nothing.
    End,
    /// These levels.
    Levels(&'a str),
    /// Whatever may follow.
    Anything,
}

impl<'a> Rest<'a> {
    /// The next level, and what is left then.
    fn next(text: &'a str) -> (&'a str, Self) {
        match text.split_once('/') {
            Some((level, rest)) => (level, Self::Levels(rest)),
            None => (text, Self::End),
        }
    }
}

/// A search for the first rule that applies to a request.
pub(super) struct Search<'r, 's> {
    rules: &'r [Rule],
    subject: &'s Subject<'s>,
    request: Request<'s>,
    /// The first that applies, of those seen.
    first: u32,
    /// The first that denies a part, of those seen.
    denied_in_part: u32,
    #[cfg(test)]
    asked: usize,
}

impl<'r, 's> Search<'r, 's> {
    pub(super) fn new(rules: &'r [Rule], subject: &'s Subject<'s>, request: Request<'s>) -> Self {
        Self {
            rules,
            subject,
            request,
            first: NOWHERE,
            denied_in_part: NOWHERE,
            #[cfg(test)]
            asked: 0,
        }
    }

    /// Searches one list.
    pub(super) fn search(&mut self, list: &List) {
        let nodes = match list {
            List::Short(places) => return self.read(places),
            List::Tree(nodes) => nodes,
        };
        match self.request {
            Request::Publish { topic, .. } | Request::Receive { topic } => {
                self.follow_topic(nodes, 0, Rest::Levels(topic));
            }
            Request::Subscribe { filter, .. } => self.follow_filter(nodes, 0, Rest::Levels(filter)),
        }
    }

    /// The first rule that applies, and whether an earlier one denies a part.
    pub(super) fn found(&self) -> (Option<&'r Rule>, bool) {
        (rule(self.rules, self.first), self.denied_in_part < self.first)
    }

    fn read(&mut self, places: &[u32]) {
        for place in places {
            if *place >= self.first {
                return;
            }
            let Some(rule) = rule(self.rules, *place) else { return };
            #[cfg(test)]
            {
                self.asked += 1;
            }
            let (applies, denies_a_part) = rule.answer(self.subject, self.request);
            if applies {
                self.first = *place;
            } else if denies_a_part {
                self.denied_in_part = self.denied_in_part.min(*place);
            }
        }
    }

    fn follow_topic(&mut self, nodes: &[Node], at: usize, rest: Rest<'_>) {
        let Some(node) = nodes.get(at).filter(|node| node.first < self.first) else { return };
        self.read(&node.here);
        let Rest::Levels(text) = rest else { return };
        let (level, rest) = Rest::next(text);
        for child in node.texts.get(level).copied().into_iter().chain(node.one) {
            self.follow_topic(nodes, child, rest);
        }
    }

    /// Meets what may cover the filter, and what may deny a part of it.
    fn follow_filter(&mut self, nodes: &[Node], at: usize, rest: Rest<'_>) {
        let Some(node) = nodes.get(at).filter(|node| node.first < self.first) else { return };
        self.read(&node.here);
        let Rest::Levels(text) = rest else { return };
        match Rest::next(text) {
            ("#", _) => {
                // `+/#`, which is `#` over again, stands there.
                if let Some(one) = node.one {
                    self.follow_filter(nodes, one, Rest::End);
                }
                self.follow_denials(nodes, node, Rest::Anything);
            }
            ("+", rest) => {
                if let Some(one) = node.one {
                    self.follow_filter(nodes, one, rest);
                }
                self.follow_denials(nodes, node, rest);
            }
            (level, rest) => {
                for child in node.texts.get(level).copied().into_iter().chain(node.one) {
                    self.follow_filter(nodes, child, rest);
                }
            }
        }
    }

    /// Meets the denials below a node, whatever its next level is.
    fn follow_denials(&mut self, nodes: &[Node], node: &Node, rest: Rest<'_>) {
        for child in node.denying.iter().filter_map(|child| nodes.get(*child)) {
            if child.first_denial >= self.first.min(self.denied_in_part) {
                return;
            }
            self.meet_denials(nodes, child, rest);
        }
    }

    fn meet_denials(&mut self, nodes: &[Node], node: &Node, rest: Rest<'_>) {
        if node.first_denial >= self.first.min(self.denied_in_part) {
            return;
        }
        for place in &node.here {
            if *place >= self.first.min(self.denied_in_part) {
                break;
            }
            if rule(self.rules, *place).is_some_and(|rule| rule.effect == Effect::Deny) {
                self.read(std::slice::from_ref(place));
            }
        }
        let Rest::Levels(text) = rest else {
            if matches!(rest, Rest::Anything) {
                self.follow_denials(nodes, node, rest);
            }
            return;
        };
        match Rest::next(text) {
            ("#", _) => self.follow_denials(nodes, node, Rest::Anything),
            ("+", rest) => self.follow_denials(nodes, node, rest),
            (level, rest) => {
                for child in node.texts.get(level).copied().into_iter().chain(node.one) {
                    if let Some(child) = nodes.get(child) {
                        self.meet_denials(nodes, child, rest);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use mqtt_protocol::QoS;
    use proptest::prelude::*;

    use super::super::{Rules, Verdict, parse_text};
    use super::*;

    /// What reading every rule in its order says: the model.
    fn read_all<'a>(rules: &'a Rules, subject: &Subject<'_>, request: Request<'_>) -> Verdict<'a> {
        let mut in_part = false;
        for rule in rules.iter() {
            match rule.answer(subject, request) {
                (true, _) if rule.effect == Effect::Allow => return Verdict::Allow { by: rule, in_part },
                (true, _) => return Verdict::Deny { by: rule },
                (false, denies_a_part) => in_part |= denies_a_part,
            }
        }
        Verdict::Unmatched { in_part }
    }

    fn levels(of: &'static [&'static str], last: &'static [&'static str]) -> impl Strategy<Value = String> {
        let level = prop::sample::select(of);
        (prop::collection::vec(level, 0..4), prop::sample::select(last)).prop_map(|(mut levels, last)| {
            levels.push(last);
            // A single empty level would be no text at all.
            Some(levels.join("/")).filter(|text| !text.is_empty()).unwrap_or_else(|| "/".to_owned())
        })
    }

    fn filter_of_a_rule() -> impl Strategy<Value = String> {
        levels(
            &["a", "b", "", "+", "$x", "${clientid}", "a${username}"],
            &["a", "b", "c", "", "+", "#", "${clientid}", "${username}"],
        )
    }

    fn wanted_filter() -> impl Strategy<Value = String> {
        levels(&["a", "b", "", "+", "$x", "au"], &["a", "b", "c", "+", "#", "u"])
    }

    fn topic() -> impl Strategy<Value = String> {
        levels(&["a", "b", "", "$x", "au"], &["a", "b", "c", "", "u"])
    }

    fn line() -> impl Strategy<Value = String> {
        (
            prop::sample::select(&["allow", "deny"][..]),
            prop::sample::select(&["publish", "subscribe", "all"][..]),
            prop::sample::select(
                &["all", "all", "all", "user u", "user v", "client a", "group g", "anonymous"][..],
            ),
            prop::sample::select(&["", "", "", "qos 0-1 "][..]),
            filter_of_a_rule(),
        )
            .prop_map(|(effect, action, who, qos, filter)| {
                format!("{effect} {action} {who} {qos}\"{filter}\"\n")
            })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn what_is_looked_up_is_what_reading_all_rules_says(
            lines in prop::collection::vec(line(), 0..40),
            read_through_max in prop::sample::select(&[0, 3, READ_THROUGH_MAX][..]),
            client_id in prop::sample::select(&["a", "b", "a/b", "+", "$x", "c"][..]),
            username in prop::sample::select(&[None, Some("u"), Some("v"), Some("b/u"), Some("#")][..]),
            topic in topic(),
            filter in wanted_filter(),
            qos in 0u8..3,
        ) {
            let rules = parse_text(&lines.concat(), "acl").unwrap();
            let rules = Rules::indexed(rules, read_through_max);
            let groups = [Arc::from("g")];
            let qos = QoS::try_from(qos).unwrap();
            for groups in [&[][..], &groups[..]] {
                let subject =
                    Subject { client_id: Some(client_id), username, groups, address: None, listener: None };
                for request in [
                    Request::Publish { topic: &topic, qos, retain: false },
                    Request::Receive { topic: &topic },
                    Request::Subscribe { filter: &filter, qos },
                ] {
                    prop_assert_eq!(
                        rules.decide(&subject, request),
                        read_all(&rules, &subject, request),
                        "{:?} {:?}\n{}", subject, request, lines.concat()
                    );
                }
            }
        }
    }

    const ANYBODY: Subject<'_> =
        Subject { client_id: Some("c"), username: None, groups: &[], address: None, listener: None };

    #[test]
    fn rules_deeper_than_the_tree_are_found_in_their_order() {
        for levels in [INDEXED_LEVELS - 1, INDEXED_LEVELS, INDEXED_LEVELS + 1, INDEXED_LEVELS * 2] {
            let deep = vec!["a"; levels].join("/");
            let text = format!(
                "deny all all \"{deep}/x\"\nallow all all \"{deep}/+\"\ndeny all all \"{deep}/#\"\nallow all all \"#\"\n"
            );
            let rules = Rules::indexed(parse_text(&text, "acl").unwrap(), 0);
            let says = |topic: String, expected: bool| {
                let request = Request::Publish { topic: &topic, qos: QoS::AtMostOnce, retain: false };
                let verdict = rules.decide(&ANYBODY, request);
                assert_eq!(matches!(verdict, Verdict::Allow { .. }), expected, "{levels} {topic}");
                assert_eq!(verdict, read_all(&rules, &ANYBODY, request));
            };
            says(format!("{deep}/x"), false);
            says(format!("{deep}/y"), true);
            says(format!("{deep}/y/z"), false);
            says(deep, false);
            says("a".to_owned(), true);
        }
    }

    #[test]
    fn few_of_many_rules_are_asked() {
        let text: String = (0..5_000)
            .map(|number| {
                format!("deny all all \"plant/u{number}/secret\"\nallow all all \"plant/u{number}/#\"\n")
            })
            .collect();
        let rules = parse_text(&text, "acl").unwrap();
        let list = List::new(&rules, (0..10_000).collect(), READ_THROUGH_MAX);
        let qos = QoS::AtMostOnce;
        let topic = "plant/u4999/line/x";
        for (request, asked, decides) in [
            (Request::Publish { topic, qos, retain: false }, 1, Some(9_999)),
            (Request::Receive { topic }, 1, Some(9_999)),
            (Request::Subscribe { filter: "plant/u4999/#", qos }, 2, Some(9_999)),
            (Request::Subscribe { filter: "plant/u4999/secret", qos }, 2, Some(9_998)),
            (Request::Subscribe { filter: "plant/#", qos }, 1, None),
            (Request::Subscribe { filter: "other/#", qos }, 0, None),
        ] {
            let mut search = Search::new(&rules, &ANYBODY, request);
            search.search(&list);
            assert_eq!(search.found().0, decides.map(|place: usize| &rules[place]), "{request:?}");
            assert_eq!(search.asked, asked, "{request:?}");
        }
    }
}
