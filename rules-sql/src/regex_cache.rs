//! Compiled patterns that came with messages, kept for the next message.
//!
//! Compiling costs a thousand times what a search in a short text does. Each thread keeps what it compiled last: no lock
//! is shared, and the memory in which the engine searches stays with the pattern. Evaluation charges the same steps
//! whether a pattern is here or not, so that an outcome never depends on what was evaluated before.

use std::cell::RefCell;
use std::rc::Rc;

use regex::Regex;

use crate::check;

/// Patterns one thread keeps, invalid ones included.
const PATTERNS: usize = 64;

/// Bytes one thread's patterns may take: 8 MiB. Counted, not measured, since the engine does not say what a pattern
/// takes: nearly all take far less than they count.
const BYTES: usize = 8 << 20;

/// A pattern counts as so many times the size allowed: it is compiled for both directions, and each has a table of
/// states that grows while it searches, all four held to that size.
const PARTS: usize = 4;

thread_local! {
    static CACHE: RefCell<Cache> = const { RefCell::new(Cache::new(PATTERNS, BYTES)) };
}

/// Compiles a pattern within a size, or finds it compiled. `None`: it is invalid or too large.
pub(crate) fn compiled(pattern: &str, size: usize) -> Option<Rc<Regex>> {
    CACHE.with_borrow_mut(|cache| cache.get(pattern, size))
}

/// What was used last comes first.
#[derive(Debug)]
struct Cache {
    entries: Vec<Entry>,
    /// Sum of the entries' weights.
    weight: usize,
    max_entries: usize,
    max_weight: usize,
}

#[derive(Debug)]
struct Entry {
    pattern: Box<str>,
    size: usize,
    weight: usize,
    /// Shared, not cloned: a clone of a [`Regex`] has no memory to search in yet.
    regex: Option<Rc<Regex>>,
}

impl Cache {
    const fn new(max_entries: usize, max_weight: usize) -> Cache {
        Cache { entries: Vec::new(), weight: 0, max_entries, max_weight }
    }

    fn get(&mut self, pattern: &str, size: usize) -> Option<Rc<Regex>> {
        let found = self.entries.iter().position(|entry| *entry.pattern == *pattern && entry.size == size);
        if let Some(place) = found {
            if let Some(used) = self.entries.get_mut(..=place) {
                used.rotate_right(1);
            }
            return self.entries.first().and_then(|entry| entry.regex.clone());
        }
        let regex = check::regex(pattern, size).ok().map(Rc::new);
        let grows_to = if regex.is_some() { size.saturating_mul(PARTS) } else { 0 };
        let weight = grows_to.saturating_add(pattern.len()).saturating_add(size_of::<Entry>());
        if weight <= self.max_weight {
            while self.entries.len() >= self.max_entries || self.weight + weight > self.max_weight {
                let Some(oldest) = self.entries.pop() else { break };
                self.weight -= oldest.weight;
            }
            self.weight += weight;
            self.entries.insert(0, Entry { pattern: pattern.into(), size, weight, regex: regex.clone() });
        }
        regex
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(cache: &Cache) -> Vec<&str> {
        cache.entries.iter().map(|entry| &*entry.pattern).collect()
    }

    /// Weight of a pattern of one character.
    fn weight(size: usize) -> usize {
        size * PARTS + 1 + size_of::<Entry>()
    }

    #[test]
    fn a_pattern_is_compiled_once() {
        let mut cache = Cache::new(4, usize::MAX);
        let first = cache.get("a+", 1 << 16).unwrap();
        assert!(Rc::ptr_eq(&first, &cache.get("a+", 1 << 16).unwrap()));
        assert!(!Rc::ptr_eq(&first, &cache.get("a+", 1 << 17).unwrap()));
        assert!(first.is_match("baa"));
    }

    #[test]
    fn the_count_is_held_and_what_was_used_last_stays() {
        let mut cache = Cache::new(3, usize::MAX);
        for pattern in ["a", "b", "c"] {
            cache.get(pattern, 1 << 16).unwrap();
        }
        assert_eq!(kept(&cache), ["c", "b", "a"]);
        cache.get("a", 1 << 16).unwrap();
        cache.get("d", 1 << 16).unwrap();
        assert_eq!(kept(&cache), ["d", "a", "c"]);
    }

    #[test]
    fn the_bytes_are_held() {
        let size = 1 << 16;
        let mut cache = Cache::new(100, 2 * weight(size));
        cache.get("a", size).unwrap();
        cache.get("b", size).unwrap();
        assert_eq!((kept(&cache), cache.weight), (vec!["b", "a"], 2 * weight(size)));
        // One byte more than two of one character.
        cache.get("cd", size).unwrap();
        assert_eq!((kept(&cache), cache.weight), (vec!["cd"], weight(size) + 1));
        // Too heavy for any place: compiled, not kept, and nothing makes room for it.
        assert!(cache.get("e", 3 * size).is_some());
        assert_eq!(kept(&cache), ["cd"]);
    }

    #[test]
    fn refusals_are_kept_as_well() {
        let mut cache = Cache::new(2, usize::MAX);
        for _ in 0..2 {
            assert!(cache.get("(", 1 << 16).is_none());
            assert!(cache.get("\\w{200}", 1 << 10).is_none());
        }
        assert_eq!(kept(&cache), ["\\w{200}", "("]);
        assert!(cache.weight < 1 << 10, "{}", cache.weight);
        // Too large there, not everywhere.
        assert!(cache.get("\\w{200}", 1 << 24).is_some());
    }
}
