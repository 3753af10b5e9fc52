//! Which subscribers a Topic Name concerns: filters without wildcards by hash, wildcard filters by shape.
//!
//! A filter's *shape* is its number of levels, the positions of its `+` and whether it ends in `#`. The filters of one
//! shape that match a topic can only be one text: the topic's own levels with `+` at those positions. So a publish
//! costs one hash probe for the exact filters and one for each shape in use at its depth, however many filters there
//! are. Real installations have a handful of shapes (docs/decisions/0004-subscription-index.md has the figures against
//! a trie). Probes compare the filter text, so hash collisions cost time and nothing else.
//!
//! Both tables are cut into shards with a lock each; a change locks one shard for well under a microsecond. Every
//! change raises a generation (per shard for exact filters, one for all wildcard filters) *after* it is visible, which
//! is what cached routes are checked against.
//!
//! The index is generic over what is stored at a filter (`Subscribers` in the broker).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use parking_lot::RwLock;
use smallvec::SmallVec;

use super::compact_set::hash_of;

const SHARDS: usize = 256;

/// Stands for a `+` in the hash of a wildcard filter.
const PLUS: u64 = 0x9e37_79b9_7f4a_7c15;

/// What a filter's place in the index holds.
pub(crate) trait Place: Default {
    /// Nothing is stored here any more: the filter can be forgotten.
    fn is_vacant(&self) -> bool;
}

/// See the module.
#[derive(Debug)]
pub(crate) struct FilterIndex<P> {
    exact: Box<[Shard<P>]>,
    wildcard: Box<[Shard<P>]>,
    shapes: RwLock<Vec<ShapeUse>>,
    wildcard_generation: AtomicU64,
}

#[derive(Debug)]
struct Shard<P> {
    nodes: RwLock<HashTable<Box<Node<P>>>>,
    generation: AtomicU64,
}

#[derive(Debug)]
struct Node<P> {
    filter: Arc<str>,
    place: P,
}

/// Levels before a trailing `#`, a bit for each `+`, and whether there is a `#`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shape {
    depth: u16,
    plus: u128,
    tail: bool,
}

#[derive(Debug)]
struct ShapeUse {
    shape: Shape,
    filters: usize,
}

/// State of the index that an answer was computed from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IndexStamp {
    exact: u64,
    wildcard: u64,
}

impl<P: Place> FilterIndex<P> {
    pub(crate) fn new() -> Self {
        let shards = || {
            (0..SHARDS)
                .map(|_| Shard { nodes: RwLock::new(HashTable::new()), generation: AtomicU64::new(0) })
                .collect()
        };
        Self {
            exact: shards(),
            wildcard: shards(),
            shapes: RwLock::default(),
            wildcard_generation: AtomicU64::new(0),
        }
    }

    /// Changes what is stored at `filter` (a valid Topic Filter without `$share`). The closure gets the one stored
    /// copy of the filter's text to share. A place that is vacant afterwards is forgotten.
    pub(crate) fn change<R>(&self, filter: &str, change: impl FnOnce(&Arc<str>, &mut P) -> R) -> R {
        let shape = shape_of(filter);
        let (hash, shards) = match shape {
            None => (hash_of(filter), &self.exact),
            Some(shape) => (shape_hash(shape, &level_hashes(filter)), &self.wildcard),
        };
        let shard = shard_of(shards, hash);
        let mut nodes = shard.nodes.write();
        let (result, difference) =
            match nodes.entry(hash, |node| &*node.filter == filter, |node| rehash(&node.filter)) {
                Entry::Occupied(mut slot) => {
                    let node = slot.get_mut();
                    let result = change(&node.filter, &mut node.place);
                    let vacant = node.place.is_vacant();
                    if vacant {
                        slot.remove();
                    }
                    (result, if vacant { -1 } else { 0 })
                }
                Entry::Vacant(slot) => {
                    let mut node = Box::new(Node { filter: Arc::from(filter), place: P::default() });
                    let result = change(&node.filter, &mut node.place);
                    let vacant = node.place.is_vacant();
                    if !vacant {
                        slot.insert(node);
                    }
                    (result, i8::from(!vacant))
                }
            };
        if let Some(shape) = shape {
            if difference != 0 {
                self.count_shape(shape, difference > 0);
            }
            drop(nodes);
            self.wildcard_generation.fetch_add(1, Ordering::Release);
        } else {
            drop(nodes);
            shard.generation.fetch_add(1, Ordering::Release);
        }
        result
    }

    /// Looks at what is stored at `filter`, if anything is.
    pub(crate) fn find<R>(&self, filter: &str, look: impl FnOnce(&P) -> R) -> Option<R> {
        let (hash, shards) = match shape_of(filter) {
            None => (hash_of(filter), &self.exact),
            Some(shape) => (shape_hash(shape, &level_hashes(filter)), &self.wildcard),
        };
        let nodes = shard_of(shards, hash).nodes.read();
        nodes.find(hash, |node| &*node.filter == filter).map(|node| look(&node.place))
    }

    /// The state that [`FilterIndex::matching`] would answer from now. Take it before asking.
    pub(crate) fn stamp(&self, topic_hash: u64) -> IndexStamp {
        IndexStamp {
            exact: shard_of(&self.exact, topic_hash).generation.load(Ordering::Acquire),
            wildcard: self.wildcard_generation.load(Ordering::Acquire),
        }
    }

    /// Calls `found` with every stored place whose filter matches `topic`; `topic_hash` is its `hash_of`.
    pub(crate) fn matching(&self, topic: &str, topic_hash: u64, mut found: impl FnMut(&Arc<str>, &P)) {
        {
            let nodes = shard_of(&self.exact, topic_hash).nodes.read();
            if let Some(node) = nodes.find(topic_hash, |node| &*node.filter == topic) {
                found(&node.filter, &node.place);
            }
        }
        let levels = level_hashes(topic);
        for shape in self.fitting_shapes(&levels, topic.starts_with('$')) {
            let hash = shape_hash(shape, &levels);
            let nodes = shard_of(&self.wildcard, hash).nodes.read();
            if let Some(node) = nodes.find(hash, |node| {
                mqtt_protocol::topic::matches(&node.filter, topic) && shape_of(&node.filter) == Some(shape)
            }) {
                found(&node.filter, &node.place);
            }
        }
    }

    /// The shapes in use that can match a topic of these levels. Copied out: a change holds a shard while it counts its
    /// shape, so nobody may hold the shapes while waiting for a shard.
    fn fitting_shapes(&self, levels: &[u64], is_internal: bool) -> SmallVec<[Shape; 16]> {
        let fits = |shape: &Shape| {
            let depth = usize::from(shape.depth);
            let fits = if shape.tail { depth <= levels.len() } else { depth == levels.len() };
            // A filter that begins with a wildcard doesn't see topics that begin with $ [MQTT-4.7.2-1].
            fits && !(is_internal && (shape.plus & 1 == 1 || depth == 0))
        };
        self.shapes.read().iter().map(|entry| entry.shape).filter(fits).collect()
    }

    /// Number of filters stored.
    #[cfg(test)]
    pub(crate) fn filters(&self) -> usize {
        self.exact.iter().chain(self.wildcard.iter()).map(|shard| shard.nodes.read().len()).sum()
    }

    fn count_shape(&self, shape: Shape, added: bool) {
        let mut shapes = self.shapes.write();
        let position = shapes.iter().position(|entry| entry.shape == shape);
        match (position.and_then(|p| shapes.get_mut(p)), added) {
            (Some(entry), true) => entry.filters += 1,
            (None, true) => shapes.push(ShapeUse { shape, filters: 1 }),
            (Some(entry), false) => {
                entry.filters -= 1;
                shapes.retain(|entry| entry.filters > 0);
            }
            (None, false) => {}
        }
    }
}

#[expect(clippy::expect_used, reason = "the place is taken modulo the number of shards")]
fn shard_of<P>(shards: &[Shard<P>], hash: u64) -> &Shard<P> {
    // The table inside uses the low bits for its buckets and the top seven for its tags.
    let position = (hash >> 40) as usize % SHARDS;
    shards.get(position).expect("taken modulo the number of shards")
}

/// The shape of a wildcard filter, `None` without wildcards.
fn shape_of(filter: &str) -> Option<Shape> {
    if !filter.bytes().any(|byte| byte == b'+' || byte == b'#') {
        return None;
    }
    let mut shape = Shape { depth: 0, plus: 0, tail: false };
    for level in filter.split('/') {
        match level {
            "#" => shape.tail = true,
            _ => {
                if level == "+" {
                    // Filters are limited to 128 levels before they come here.
                    shape.plus |= 1u128.checked_shl(u32::from(shape.depth)).unwrap_or(0);
                }
                shape.depth += 1;
            }
        }
    }
    Some(shape)
}

fn level_hashes(text: &str) -> SmallVec<[u64; 16]> {
    text.split('/').map(|level| if level == "+" { PLUS } else { hash_of(level) }).collect()
}

/// Hash of the filter of this shape whose literal levels are these. `levels` may hold more than the shape has.
fn shape_hash(shape: Shape, levels: &[u64]) -> u64 {
    let mut hash = u64::from(shape.depth) << 1 | u64::from(shape.tail);
    for (position, level) in levels.iter().take(usize::from(shape.depth)).enumerate() {
        let level =
            if shape.plus.checked_shr(u32::try_from(position).unwrap_or(u32::MAX)).unwrap_or(0) & 1 == 1 {
                PLUS
            } else {
                *level
            };
        hash = (hash.rotate_left(23) ^ level).wrapping_mul(0xff51_afd7_ed55_8ccd);
    }
    hash ^ (hash >> 32)
}

fn rehash(filter: &str) -> u64 {
    match shape_of(filter) {
        None => hash_of(filter),
        Some(shape) => shape_hash(shape, &level_hashes(filter)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::compact_set::hash_of;
    use super::{FilterIndex, Place};

    #[derive(Debug, Default)]
    struct Count(u32);

    impl Place for Count {
        fn is_vacant(&self) -> bool {
            self.0 == 0
        }
    }

    fn level() -> impl Strategy<Value = String> {
        prop_oneof![4 => "[ab]{0,2}", 1 => Just("$x".to_owned()), 1 => Just("é".to_owned())]
    }

    fn topic() -> impl Strategy<Value = String> {
        prop::collection::vec(level(), 1..5)
            .prop_map(|levels| levels.join("/"))
            .prop_filter("empty", |t| !t.is_empty())
    }

    fn filter() -> impl Strategy<Value = String> {
        let level = prop_oneof![3 => level(), 2 => Just("+".to_owned())];
        (prop::collection::vec(level, 0..5), any::<bool>())
            .prop_map(|(mut levels, tail)| {
                if tail || levels.is_empty() {
                    levels.push("#".to_owned());
                }
                levels.join("/")
            })
            .prop_filter("empty", |filter| !filter.is_empty())
    }

    proptest! {
        #[test]
        fn finds_what_a_naive_matcher_finds(
            changes in prop::collection::vec((filter(), any::<bool>()), 1..60),
            topics in prop::collection::vec(topic(), 1..20),
        ) {
            let index = FilterIndex::<Count>::new();
            let mut model = std::collections::BTreeMap::new();
            for (filter, add) in changes {
                index.change(&filter, |_, count| count.0 = if add { count.0 + 1 } else { 0 });
                if add { *model.entry(filter).or_insert(0) += 1 } else { model.remove(&filter); }
                prop_assert_eq!(index.filters(), model.len());
            }
            for topic in topics {
                let mut found = Vec::new();
                index.matching(&topic, hash_of(topic.as_str()), |filter, count| found.push((filter.to_string(), count.0)));
                found.sort();
                let expected: Vec<_> = model
                    .iter()
                    .filter(|(filter, _)| mqtt_protocol::topic::matches(filter, &topic))
                    .map(|(filter, count)| (filter.clone(), *count))
                    .collect();
                prop_assert_eq!(found, expected, "topic {}", topic);
            }
        }
    }

    #[test]
    fn a_change_raises_the_generation_of_what_it_concerns() {
        let index = FilterIndex::<Count>::new();
        let hash = hash_of("a/b");
        let before = index.stamp(hash);
        index.change("a/b", |_, count| count.0 = 1);
        let exact = index.stamp(hash);
        assert_ne!(before, exact);
        index.change("x/+", |_, count| count.0 = 1);
        assert_ne!(exact, index.stamp(hash));
    }

    /// A change holds a shard and counts its shape; a match looks at shapes and then at shards. Neither may wait for the
    /// other while it holds something.
    #[test]
    fn changes_and_matches_of_the_same_filter_do_not_block_each_other() {
        let index = FilterIndex::<Count>::new();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for number in 0..20_000u32 {
                        index.change("cmd/+/x", |_, count| count.0 = number % 2);
                    }
                });
                scope.spawn(|| {
                    for _ in 0..20_000 {
                        index.matching("cmd/7/x", hash_of("cmd/7/x"), |_, _| {});
                    }
                });
            }
        });
    }
}
