//! What was decided about credentials a moment ago, without the credentials.
//!
//! The key of an entry is an HMAC under a key that no other process has. Entries are in two generations, each of half the size:
//! the older one goes when the younger is full, so that the whole stays bounded and a look costs the same always.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use ring::hmac;
use tokio::time::Instant;

use super::verifier::{HashError, copy, random};

/// Stands for what was decided about.
pub(crate) type Tag = [u8; 32];

/// See the module.
pub(crate) struct Cache<V> {
    key: hmac::Key,
    /// Entries at most.
    limit: usize,
    generations: Mutex<Generations<V>>,
}

struct Generations<V> {
    young: HashMap<Tag, (V, Instant)>,
    old: HashMap<Tag, (V, Instant)>,
}

impl<V: Clone> Cache<V> {
    pub(crate) fn new(limit: usize) -> Result<Self, HashError> {
        Ok(Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, &random::<32>()?),
            limit,
            generations: Mutex::new(Generations { young: HashMap::new(), old: HashMap::new() }),
        })
    }

    /// The tag of some parts: each counts with its length, so that no two lists of parts have the same.
    pub(crate) fn tag(&self, parts: &[&[u8]]) -> Tag {
        let mut context = hmac::Context::with_key(&self.key);
        for part in parts {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let mut tag = Tag::default();
        copy(&mut tag, context.sign().as_ref());
        tag
    }

    pub(crate) fn find(&self, tag: &Tag) -> Option<V> {
        let generations = self.generations.lock();
        let (value, until) = generations.young.get(tag).or_else(|| generations.old.get(tag))?;
        (Instant::now() < *until).then(|| value.clone())
    }

    /// Keeps something for a time; nothing where the limit is 0.
    pub(crate) fn keep(&self, tag: Tag, value: V, time: Duration) {
        if self.limit < 2 || time.is_zero() {
            return;
        }
        let mut generations = self.generations.lock();
        if generations.young.len() >= self.limit / 2 {
            generations.old = std::mem::take(&mut generations.young);
        }
        generations.young.insert(tag, (value, Instant::now() + time));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_kept_is_there_for_its_time() {
        let cache = Cache::new(10).unwrap();
        cache.keep([1; 32], "x", Duration::from_secs(10));
        cache.keep([2; 32], "y", Duration::ZERO);
        tokio::time::advance(Duration::from_millis(9_999)).await;
        assert_eq!(cache.find(&[1; 32]), Some("x"));
        assert_eq!(cache.find(&[2; 32]), None);
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(cache.find(&[1; 32]), None);
    }

    #[tokio::test]
    async fn no_more_is_kept_than_the_limit() {
        let (cache, time) = (Cache::new(10).unwrap(), Duration::from_secs(10));
        for number in 0..100 {
            cache.keep([number; 32], (), time);
            let generations = cache.generations.lock();
            assert!(generations.young.len() + generations.old.len() <= 10);
        }
        assert!(cache.find(&[99; 32]).is_some() && cache.find(&[95; 32]).is_some());
        assert!(cache.find(&[0; 32]).is_none());
        let none = Cache::new(0).unwrap();
        none.keep([1; 32], (), time);
        assert!(none.find(&[1; 32]).is_none());
    }

    #[test]
    fn no_two_lists_of_parts_have_one_tag() {
        let cache = Cache::<()>::new(10).unwrap();
        let lists: [&[&[u8]]; 6] = [&[], &[b""], &[b"ab"], &[b"a", b"b"], &[b"", b"ab"], &[b"ab", b""]];
        for (number, list) in lists.iter().enumerate() {
            for other in &lists[number + 1..] {
                assert_ne!(cache.tag(list), cache.tag(other));
            }
            assert_eq!(cache.tag(list), cache.tag(list));
            assert_ne!(cache.tag(list), Cache::<()>::new(10).unwrap().tag(list));
        }
    }
}
