//! Which groups of rules a topic concerns: an immutable trie over the Topic Filters of every FROM.
//!
//! Built when rules are loaded and never changed, so that readers need no lock. A look-up costs the topic's levels times
//! the filters' branches that fit, not the number of rules. It agrees with `mqtt_protocol::matches` (a property test
//! holds them together): a leading wildcard doesn't match a topic that begins with `$`, and `a/#` matches `a`.

use std::collections::HashMap;

/// Place of a node in the index.
type NodeIndex = usize;

/// A trie from Topic Filters to numbers.
#[derive(Debug, Default)]
pub struct TopicIndex {
    /// The root is the first; empty when there is no filter at all.
    nodes: Vec<Node>,
}

#[derive(Debug, Default)]
struct Node {
    children: HashMap<Box<str>, NodeIndex>,
    /// The child for `+`.
    any_level: Option<NodeIndex>,
    /// Numbers of filters that end here.
    ends: Vec<u32>,
    /// Numbers of filters that end here with one `#` more.
    rest: Vec<u32>,
}

impl TopicIndex {
    /// Builds the index from valid Topic Filters, each with the number that [`TopicIndex::matches`] answers. A number
    /// may have any number of filters.
    pub fn new<'a>(filters: impl IntoIterator<Item = (&'a str, u32)>) -> Self {
        let mut nodes = Vec::new();
        for (filter, number) in filters {
            if nodes.is_empty() {
                nodes.push(Node::default());
            }
            insert(&mut nodes, filter, number);
        }
        Self { nodes }
    }

    /// Returns the numbers of the filters that match a Topic Name, in ascending order, each once.
    #[must_use]
    pub fn matches(&self, topic: &str) -> Vec<u32> {
        let mut found = Vec::new();
        let Some(root) = self.nodes.first() else { return found };
        // Positions still to be looked at: a node, and the topic's text behind it (`None`: the topic ends there).
        let mut open: Vec<(&Node, Option<&str>)> = vec![(root, Some(topic))];
        // [MQTT-4.7.2-1, v3.1.1 and v5]: the root's wildcards don't match a topic that begins with `$`.
        let mut wildcards_apply = !topic.starts_with('$');
        while let Some((node, rest)) = open.pop() {
            if wildcards_apply {
                found.extend_from_slice(&node.rest);
            }
            match rest {
                None => found.extend_from_slice(&node.ends),
                Some(rest) => {
                    let (level, rest) = match rest.split_once('/') {
                        Some((level, rest)) => (level, Some(rest)),
                        None => (rest, None),
                    };
                    let any_level = node.any_level.filter(|_| wildcards_apply);
                    for index in [node.children.get(level).copied(), any_level].into_iter().flatten() {
                        if let Some(node) = self.nodes.get(index) {
                            open.push((node, rest));
                        }
                    }
                }
            }
            wildcards_apply = true;
        }
        found.sort_unstable();
        found.dedup();
        found
    }
}

fn insert(nodes: &mut Vec<Node>, filter: &str, number: u32) {
    let mut at: NodeIndex = 0;
    for level in filter.split('/') {
        let next = nodes.len();
        let Some(node) = nodes.get_mut(at) else { return };
        let child = match level {
            "#" => {
                node.rest.push(number);
                return;
            }
            "+" => *node.any_level.get_or_insert(next),
            level => *node.children.entry(level.into()).or_insert(next),
        };
        if child == next {
            nodes.push(Node::default());
        }
        at = child;
    }
    if let Some(node) = nodes.get_mut(at) {
        node.ends.push(number);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn answers_every_filter_that_matches_once_and_in_order() {
        let filters = ["a/b", "a/+", "a/#", "#", "+/b", "$SYS/#", "a/b/c", "+/+", "a", "/", "+/+/#"];
        let index =
            TopicIndex::new((0..).zip(filters).map(|(number, filter)| (filter, number)).chain([("a/b", 2)]));
        assert_eq!(index.matches("a/b"), [0, 1, 2, 3, 4, 7, 10]);
        assert_eq!(index.matches("a"), [2, 3, 8]);
        assert_eq!(index.matches("$SYS/b"), [5]);
        assert_eq!(index.matches("/"), [3, 7, 9, 10]);
        assert_eq!(index.matches("x"), [3]);
        assert!(TopicIndex::new([]).matches("a").is_empty());
    }

    #[test]
    fn a_very_deep_topic_costs_no_stack() {
        let deep = "a/".repeat(32_000);
        let index = TopicIndex::new([("#", 1), (deep.as_str(), 2)]);
        assert_eq!(index.matches(&deep), [1, 2]);
    }

    fn level() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec!["", "a", "b", "$s", "é"])
    }

    fn topic() -> impl Strategy<Value = String> {
        prop::collection::vec(level(), 1..5).prop_map(|levels| levels.join("/"))
    }

    fn filter() -> impl Strategy<Value = String> {
        let level = prop_oneof![3 => level(), 2 => Just("+")];
        (prop::collection::vec(level, 1..5), any::<bool>()).prop_map(|(mut levels, rest)| {
            if rest {
                levels.push("#");
            }
            levels.join("/")
        })
    }

    proptest! {
        #[test]
        fn agrees_with_matching_one_filter_at_a_time(
            filters in prop::collection::vec(prop_oneof![9 => filter(), 1 => Just("#".to_owned())], 0..30),
            topics in prop::collection::vec(topic(), 1..10),
        ) {
            let filters: Vec<String> =
                filters.into_iter().filter(|filter| mqtt_protocol::validate_topic_filter(filter).is_ok()).collect();
            let numbered: Vec<(&str, u32)> = filters.iter().map(String::as_str).zip(0..).collect();
            let index = TopicIndex::new(numbered.iter().copied());
            for topic in topics {
                let expected: Vec<u32> = numbered
                    .iter()
                    .filter(|(filter, _)| mqtt_protocol::matches(filter, &topic))
                    .map(|(_, number)| *number)
                    .collect();
                prop_assert_eq!(index.matches(&topic), expected, "{}", topic);
            }
        }
    }
}
