//! Heavy hitters: the topics and the clients that publish most, in bounded memory.
//!
//! One publish in so many is looked at and counts for all of them. Of the names that were seen the most frequent are kept
//! (space-saving): a new name takes the place, and the count, of the least frequent one, so a count is never too low by what was looked at, and
//! too high by at most what the place had before. Counts are of one window of time; what is shown is the last whole one.

use std::cell::Cell;
use std::collections::HashMap;

use parking_lot::Mutex;

use crate::broker::Broker;

/// Length of a window.
const WINDOW_MS: u64 = 60_000;
/// Names that are kept for each that is shown: the more, the better its count.
const KEPT_PER_SHOWN: usize = 4;
/// Most bytes of a name.
const NAME_BYTES_MAX: usize = 256;

/// Which heavy hitters are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HeavyHittersConfig {
    /// How many topics are shown, and how many clients; 0: none is looked for.
    pub shown: usize,
    /// One publish in so many is looked at; 0 stands for 1.
    pub one_in: u32,
}

/// A topic or a client, and how much it published.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HeavyHitter {
    /// Topic Name or Client Identifier, cut to 256 bytes.
    pub name: String,
    /// Messages in the window, about.
    pub messages: u64,
    /// By how many of them that may be too much, beside what looking at a part only makes uncertain.
    pub too_many_at_most: u64,
}

/// Who published most in a window of time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct HeavyHitters {
    /// How long the window is, in milliseconds; the first one is shown before it is whole.
    pub window_ms: u64,
    /// Topics, the most frequent first.
    pub topics: Vec<HeavyHitter>,
    /// Clients, the most frequent first.
    pub clients: Vec<HeavyHitter>,
}

/// The most frequent names.
#[derive(Debug, Default)]
struct Names {
    /// Counts, and what they may be too high by.
    counts: HashMap<Box<str>, (u64, u64), foldhash::fast::RandomState>,
}

impl Names {
    fn count(&mut self, name: &str, weight: u64, kept: usize) {
        let name = name.get(..name.floor_char_boundary(NAME_BYTES_MAX)).unwrap_or(name);
        if let Some((count, _)) = self.counts.get_mut(name) {
            *count += weight;
            return;
        }
        let mut surplus = 0;
        if self.counts.len() >= kept {
            let least = self.counts.iter().min_by_key(|(_, (count, _))| *count);
            let Some((least, count)) = least.map(|(least, (count, _))| (least.clone(), *count)) else {
                return;
            };
            self.counts.remove(&least);
            surplus = count;
        }
        self.counts.insert(name.into(), (surplus + weight, surplus));
    }

    fn top(&self, shown: usize) -> Vec<HeavyHitter> {
        let mut all: Vec<_> = self
            .counts
            .iter()
            .map(|(name, (messages, surplus))| HeavyHitter {
                name: name.to_string(),
                messages: *messages,
                too_many_at_most: *surplus,
            })
            .collect();
        all.sort_unstable_by(|one, other| other.messages.cmp(&one.messages).then(one.name.cmp(&other.name)));
        all.truncate(shown);
        all
    }
}

#[derive(Debug, Default)]
struct Windows {
    /// When the one that is being counted began.
    began_ms: u64,
    topics: Names,
    clients: Names,
    last: Option<HeavyHitters>,
}

impl Windows {
    fn turn(&mut self, now_ms: u64, shown: usize) {
        let length = now_ms.saturating_sub(self.began_ms);
        if length < WINDOW_MS {
            return;
        }
        // After a silence nothing is heavy.
        let last = if length < 2 * WINDOW_MS {
            self.read(WINDOW_MS, shown)
        } else {
            HeavyHitters { window_ms: WINDOW_MS, ..HeavyHitters::default() }
        };
        *self = Self { began_ms: now_ms - length % WINDOW_MS, last: Some(last), ..Self::default() };
    }

    fn read(&self, window_ms: u64, shown: usize) -> HeavyHitters {
        HeavyHitters { window_ms, topics: self.topics.top(shown), clients: self.clients.top(shown) }
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Heavy {
    shown: usize,
    one_in: u64,
    windows: Mutex<Windows>,
}

thread_local! {
    /// Publishes of this thread since the last that was looked at.
    static SINCE: Cell<u64> = const { Cell::new(0) };
}

impl Heavy {
    pub(crate) fn new(config: HeavyHittersConfig, now_ms: u64) -> Self {
        let windows = Mutex::new(Windows { began_ms: now_ms, ..Windows::default() });
        Self { shown: config.shown, one_in: u64::from(config.one_in.max(1)), windows }
    }

    /// Messages of a topic were admitted.
    pub(crate) fn see(&self, topic: &[u8], client_id: Option<&str>, messages: u64, now_ms: u64) {
        if self.shown == 0 {
            return;
        }
        let since = SINCE.get() + messages;
        SINCE.set(since % self.one_in);
        let weight = since - since % self.one_in;
        if weight > 0 {
            self.look(&String::from_utf8_lossy(topic), client_id, weight, now_ms);
        }
    }

    #[cold]
    fn look(&self, topic: &str, client_id: Option<&str>, weight: u64, now_ms: u64) {
        // Nobody waits for this: one that is missed is one of many.
        let Some(mut windows) = self.windows.try_lock() else { return };
        windows.turn(now_ms, self.shown);
        let kept = self.shown * KEPT_PER_SHOWN;
        windows.topics.count(topic, weight, kept);
        if let Some(client_id) = client_id {
            windows.clients.count(client_id, weight, kept);
        }
    }

    fn read(&self, now_ms: u64) -> Option<HeavyHitters> {
        if self.shown == 0 {
            return None;
        }
        let mut windows = self.windows.lock();
        windows.turn(now_ms, self.shown);
        let length = now_ms.saturating_sub(windows.began_ms);
        Some(windows.last.clone().unwrap_or_else(|| windows.read(length, self.shown)))
    }
}

impl Broker {
    /// Who publishes most; `None`: nobody looks for that.
    #[must_use]
    pub fn heavy_hitters(&self) -> Option<HeavyHitters> {
        self.shared.heavy.read(self.shared.clock.now().mono_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heavy(shown: usize, one_in: u32) -> Heavy {
        SINCE.set(0);
        Heavy::new(HeavyHittersConfig { shown, one_in }, 0)
    }

    fn names(hitters: &[HeavyHitter]) -> Vec<(&str, u64)> {
        hitters.iter().map(|hitter| (hitter.name.as_str(), hitter.messages)).collect()
    }

    #[test]
    fn the_most_frequent_are_found_among_many_and_in_bounded_memory() {
        let heavy = heavy(2, 1);
        for number in 0..10_000 {
            heavy.see(format!("rare/{number}").as_bytes(), Some("rare"), 1, 10);
            if number % 2 == 0 {
                heavy.see(b"busy", Some("busy"), 1, 10);
            }
            if number % 4 == 0 {
                heavy.see(b"less", None, 1, 10);
            }
        }
        assert!(heavy.windows.lock().topics.counts.len() <= 2 * KEPT_PER_SHOWN);
        let read = heavy.read(20).unwrap();
        assert_eq!(names(&read.clients), [("rare", 10_000), ("busy", 5_000)]);
        let [first, second] = &read.topics[..] else { panic!("{read:?}") };
        assert_eq!((&*first.name, &*second.name), ("busy", "less"));
        for (hitter, really) in [(first, 5_000), (second, 2_500)] {
            assert!(
                hitter.messages >= really && hitter.messages - hitter.too_many_at_most <= really,
                "{hitter:?}"
            );
        }
    }

    #[test]
    fn a_part_of_all_stands_for_the_rest() {
        let heavy = heavy(4, 64);
        for _ in 0..63 {
            heavy.see(b"a", None, 1, 10);
        }
        assert!(heavy.read(10).unwrap().topics.is_empty());
        heavy.see(b"a", None, 1, 10);
        // Many that come together count by their number.
        heavy.see(b"b", None, 640, 10);
        assert_eq!(names(&heavy.read(10).unwrap().topics), [("b", 640), ("a", 64)]);
    }

    #[test]
    fn the_last_whole_window_is_shown_and_a_silence_ends_it() {
        let heavy = heavy(4, 1);
        heavy.see(b"a", None, 3, 10);
        assert_eq!(heavy.read(1_000).unwrap().window_ms, 1_000);
        heavy.see(b"b", None, 1, WINDOW_MS + 10);
        let read = heavy.read(WINDOW_MS + 20).unwrap();
        assert_eq!((read.window_ms, names(&read.topics)), (WINDOW_MS, vec![("a", 3)]));
        assert_eq!(names(&heavy.read(2 * WINDOW_MS + 20).unwrap().topics), [("b", 1)]);
        assert!(heavy.read(9 * WINDOW_MS).unwrap().topics.is_empty());
    }

    #[test]
    fn long_names_are_cut_and_none_is_looked_at_when_it_is_off() {
        let cut = heavy(1, 1);
        cut.see("ä".repeat(200).as_bytes(), None, 1, 10);
        assert_eq!(cut.read(10).unwrap().topics[0].name.len(), 256);
        let off = heavy(0, 1);
        off.see(b"a", Some("c"), 1, 10);
        assert_eq!(off.read(10), None);
        assert!(off.windows.lock().topics.counts.is_empty());
    }
}
