//! A set keyed by a field of its items, small while it is small.
//!
//! Nearly every Topic Filter has one subscriber and nearly every session a handful of Subscriptions, while a few have
//! a hundred thousand: one item is stored in place, a few in an exactly sized vector, many in a hash table.

use std::hash::{BuildHasher, Hash};
use std::sync::LazyLock;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

/// Above this many items a hash table takes over from the vector.
const FEW: usize = 16;

static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::default);

/// The process's hash of a key, for every table of the broker.
pub(crate) fn hash_of<K: Hash + ?Sized>(key: &K) -> u64 {
    HASHER.hash_one(key)
}

/// An item that knows its key.
pub(crate) trait Keyed {
    /// What identifies an item within its set.
    type Key: ?Sized + Eq + Hash;
    /// The item's key.
    fn key(&self) -> &Self::Key;
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) enum CompactSet<T> {
    #[default]
    Empty,
    One(T),
    Few(Vec<T>),
    Many(Box<HashTable<T>>),
}

impl<T: Keyed> CompactSet<T> {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Empty => 0,
            Self::One(_) => 1,
            Self::Few(items) => items.len(),
            Self::Many(table) => table.len(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Self::Empty)
    }

    pub(crate) fn find(&self, key: &T::Key) -> Option<&T> {
        match self {
            Self::Empty => None,
            Self::One(item) => (item.key() == key).then_some(item),
            Self::Few(items) => items.iter().find(|item| item.key() == key),
            Self::Many(table) => table.find(hash_of(key), |item| item.key() == key),
        }
    }

    /// Puts the item in and returns the one of the same key that it replaces.
    pub(crate) fn insert(&mut self, item: T) -> Option<T> {
        match std::mem::take(self) {
            Self::Empty => *self = Self::One(item),
            Self::One(old) if old.key() == item.key() => {
                *self = Self::One(item);
                return Some(old);
            }
            Self::One(old) => *self = Self::Few(vec![old, item]),
            Self::Few(mut items) => {
                if let Some(old) = items.iter_mut().find(|old| old.key() == item.key()) {
                    let old = std::mem::replace(old, item);
                    *self = Self::Few(items);
                    return Some(old);
                }
                items.push(item);
                *self = if items.len() > FEW {
                    let mut table = Box::new(HashTable::with_capacity(items.len()));
                    for item in items {
                        table.insert_unique(hash_of(item.key()), item, |item| hash_of(item.key()));
                    }
                    Self::Many(table)
                } else {
                    Self::Few(items)
                };
            }
            Self::Many(mut table) => {
                let hash = hash_of(item.key());
                let old = match table.entry(hash, |old| old.key() == item.key(), |item| hash_of(item.key())) {
                    hashbrown::hash_table::Entry::Occupied(mut slot) => {
                        Some(std::mem::replace(slot.get_mut(), item))
                    }
                    hashbrown::hash_table::Entry::Vacant(slot) => {
                        slot.insert(item);
                        None
                    }
                };
                *self = Self::Many(table);
                return old;
            }
        }
        None
    }

    pub(crate) fn remove(&mut self, key: &T::Key) -> Option<T> {
        match std::mem::take(self) {
            Self::Empty => None,
            Self::One(item) if item.key() == key => Some(item),
            Self::One(item) => {
                *self = Self::One(item);
                None
            }
            Self::Few(mut items) => {
                let removed = items
                    .iter()
                    .position(|item| item.key() == key)
                    .map(|position| items.swap_remove(position));
                *self = match items.len() {
                    0 => Self::Empty,
                    1 => items.pop().map_or(Self::Empty, Self::One),
                    _ => Self::Few(items),
                };
                removed
            }
            Self::Many(mut table) => {
                let removed = table
                    .find_entry(hash_of(key), |item| item.key() == key)
                    .ok()
                    .map(|entry| entry.remove().0);
                // Half of FEW, so that a set at the edge doesn't change its form with every change.
                *self = if table.len() <= FEW / 2 {
                    Self::Few(table.into_iter().collect())
                } else {
                    if table.capacity() > 4 * table.len() {
                        table.shrink_to_fit(|item| hash_of(item.key()));
                    }
                    Self::Many(table)
                };
                removed
            }
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        let (one, few, many) = match self {
            Self::Empty => (None, None, None),
            Self::One(item) => (Some(item), None, None),
            Self::Few(items) => (None, Some(items.iter()), None),
            Self::Many(table) => (None, None, Some(table.iter())),
        };
        one.into_iter().chain(few.into_iter().flatten()).chain(many.into_iter().flatten())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::{CompactSet, Keyed};

    #[derive(Debug, Clone, PartialEq)]
    struct Item(u8, u32);

    impl Keyed for Item {
        type Key = u8;
        fn key(&self) -> &u8 {
            &self.0
        }
    }

    proptest! {
        #[test]
        fn behaves_like_a_hash_map(operations in prop::collection::vec((any::<bool>(), 0u8..40, any::<u32>()), 0..300)) {
            let mut set = CompactSet::default();
            let mut model: HashMap<u8, u32> = HashMap::new();
            for (insert, key, value) in operations {
                if insert {
                    prop_assert_eq!(set.insert(Item(key, value)).map(|i| i.1), model.insert(key, value));
                } else {
                    prop_assert_eq!(set.remove(&key).map(|i| i.1), model.remove(&key));
                }
                prop_assert_eq!(set.len(), model.len());
                prop_assert_eq!(set.is_empty(), model.is_empty());
                prop_assert_eq!(set.find(&key).map(|i| i.1), model.get(&key).copied());
            }
            let mut all: Vec<_> = set.iter().map(|i| (i.0, i.1)).collect();
            all.sort_unstable();
            let mut expected: Vec<_> = model.into_iter().collect();
            expected.sort_unstable();
            prop_assert_eq!(all, expected);
        }
    }
}
