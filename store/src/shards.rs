//! A map that can be kept as it is at a moment, at once, whatever its size.
//!
//! A checkpoint is the whole state after one frame, and nobody may wait while it is written. So the map is in parts that are
//! shared with the copy; who changes a part that a copy still has gets a part of their own first. What waiting there is is
//! bounded by the size of a part, not of the map.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

use foldhash::fast::RandomState;

/// Parts of a map: one of a million keys is copied by four thousand.
const SHARDS: usize = 256;

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct Shards<K, V> {
    shards: Vec<Arc<HashMap<K, V, RandomState>>>,
    /// Not that of the parts: there it would put all keys of a part side by side. And one whose every bit is good: of numbers in
    /// a row the fast one makes parts of very different sizes, with a seed in ten.
    hasher: foldhash::quality::RandomState,
}

impl<K, V> Default for Shards<K, V> {
    fn default() -> Self {
        // All empty ones are the same one.
        Self { shards: vec![Arc::default(); SHARDS], hasher: foldhash::quality::RandomState::default() }
    }
}

impl<K: Hash + Eq + Clone, V: Clone> Shards<K, V> {
    fn index<Q: Hash + ?Sized>(&self, key: &Q) -> usize {
        usize::try_from(self.hasher.hash_one(key) % SHARDS as u64).unwrap_or(0)
    }

    /// The part that a key is in, to be changed.
    fn part<Q: Hash + ?Sized>(&mut self, key: &Q) -> Option<&mut HashMap<K, V, RandomState>> {
        let index = self.index(key);
        self.shards.get_mut(index).map(Arc::make_mut)
    }

    pub(crate) fn get<Q>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.shards.get(self.index(key))?.get(key)
    }

    pub(crate) fn get_mut<Q>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.part(key)?.get_mut(key)
    }

    pub(crate) fn get_or_insert_with(&mut self, key: K, value: impl FnOnce() -> V) -> Option<&mut V> {
        Some(self.part(&key)?.entry(key).or_insert_with(value))
    }

    /// Puts a value there and returns the one before it.
    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<V> {
        self.part(&key)?.insert(key, value)
    }

    pub(crate) fn remove<Q>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.part(key)?.remove(key)
    }

    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|part| part.len()).sum()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.shards.iter().flat_map(|part| part.iter())
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &V> {
        self.shards.iter().flat_map(|part| part.values())
    }

    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.shards.iter_mut().flat_map(|part| Arc::make_mut(part).values_mut())
    }

    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&K, &mut V) -> bool) {
        for part in &mut self.shards {
            Arc::make_mut(part).retain(&mut keep);
        }
    }

    /// The parts, so that each can be let go when it has been looked at.
    pub(crate) fn into_parts(self) -> impl Iterator<Item = Arc<HashMap<K, V, RandomState>>> {
        self.shards.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_stays_as_it_was() {
        let mut map = Shards::default();
        for key in 0..10_000u32 {
            assert_eq!(map.insert(key, key), None);
        }
        let copy = map.clone();
        for key in 0..10_000u32 {
            match key % 4 {
                0 => assert_eq!(map.remove(&key), Some(key)),
                1 => *map.get_mut(&key).unwrap() += 1,
                2 => assert_eq!(map.insert(key, 7), Some(key)),
                _ => {}
            }
        }
        *map.get_or_insert_with(20_000, || 1).unwrap() += 1;
        assert_eq!(map.get_or_insert_with(20_000, || 1), Some(&mut 2));
        assert_eq!((copy.len(), map.len()), (10_000, 7501));
        assert!(copy.iter().all(|(key, value)| key == value));
        assert_eq!(copy.get(&20_000), None);
        assert_eq!(
            (map.get(&0), map.get(&1), map.get(&2), map.get(&3)),
            (None, Some(&2), Some(&7), Some(&3))
        );
        map.retain(|key, _| *key < 100);
        map.values_mut().for_each(|value| *value = 0);
        assert_eq!((map.len(), map.values().sum::<u32>()), (75, 0));
        assert_eq!(copy.into_parts().map(|part| part.len()).sum::<usize>(), 10_000);
    }

    #[test]
    fn parts_are_about_the_same_size() {
        for _ in 0..20 {
            let mut map = Shards::default();
            for key in 0..20_000u64 {
                map.insert(key, ());
            }
            let sizes: Vec<_> = map.into_parts().map(|part| part.len()).collect();
            let (least, most) = (sizes.iter().min().unwrap(), sizes.iter().max().unwrap());
            // 78 on average, with a deviation of 9.
            assert!(*least > 20 && *most < 160, "{least} to {most}");
        }
    }
}
