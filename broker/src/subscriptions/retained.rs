//! Retained Messages, found by Topic Filter.
//!
//! Messages are kept in topic order, so that a filter's literal beginning narrows the search to a range and a mismatch
//! in the middle is jumped over: `+/status` over a thousand devices looks at each device once, not at all their topics.
//! A search goes in short steps from a [`Cursor`], so that 50,000 hits stall nobody.
//!
//! Topics are spread over shards by hash. Each shard has a *turn*: whoever changes a Retained Message holds it until
//! the message is in every receiver's queue, and so does a search while it looks at the shard. Without it, of two
//! messages published at once the one that subscribers see last might not be the one retained.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;
use tokio::sync::{Mutex as Turn, OwnedMutexGuard};

use super::compact_set::hash_of;
use crate::config::Limits;
use crate::message::Message;

const SHARDS: usize = 16;

/// The right to change the Retained Messages of a shard, and to fan out what changed.
pub(crate) type TurnGuard = OwnedMutexGuard<()>;

/// All Retained Messages.
#[derive(Debug)]
pub(crate) struct Retained {
    shards: Box<[Shard]>,
    messages: AtomicU64,
    bytes: AtomicU64,
}

#[derive(Debug)]
struct Shard {
    turn: Arc<Turn<()>>,
    topics: RwLock<BTreeSet<ByTopic>>,
}

/// A message ordered by its topic's bytes.
#[derive(Debug)]
struct ByTopic(Arc<Message>);

impl PartialEq for ByTopic {
    fn eq(&self, other: &Self) -> bool {
        self.0.topic_bytes() == other.0.topic_bytes()
    }
}
impl Eq for ByTopic {}
impl PartialOrd for ByTopic {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for ByTopic {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.topic_bytes().cmp(other.0.topic_bytes())
    }
}
impl std::borrow::Borrow<[u8]> for ByTopic {
    fn borrow(&self) -> &[u8] {
        self.0.topic_bytes()
    }
}

/// A limit on Retained Messages is reached; nothing was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RetainedFull;

/// Where a search goes on.
#[derive(Debug, Default)]
pub(crate) struct Cursor {
    shard: usize,
    /// Topics before this one are done; empty at the beginning of a shard.
    from: Vec<u8>,
}

impl Cursor {
    /// One that goes on where another one was.
    pub(crate) fn at(shard: usize, from: Vec<u8>) -> Self {
        Self { shard, from }
    }

    /// Where it is: the shard's number, and the topics in it that are done.
    pub(crate) fn place(self) -> (usize, Vec<u8>) {
        (self.shard, self.from)
    }
}

/// How a step of a search ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Every shard is searched.
    Finished,
    /// The step's budget is used up.
    More,
    /// The shard's turn is taken: await [`Retained::turn_at`] and go on.
    Busy,
}

impl Retained {
    pub(crate) fn new() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Shard { turn: Arc::default(), topics: RwLock::default() }).collect(),
            messages: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        }
    }

    /// Retained Messages and their bytes (topic, properties, payload).
    pub(crate) fn totals(&self) -> (u64, u64) {
        (self.messages.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }

    /// The turn of a topic's shard, if it is free.
    pub(crate) fn try_turn(&self, topic: &str) -> Option<TurnGuard> {
        Arc::clone(&self.shard(topic).turn).try_lock_owned().ok()
    }

    /// The turn of a shard by its number, when it is free.
    pub(crate) fn turn(&self, number: usize) -> impl Future<Output = TurnGuard> + Send + 'static {
        Arc::clone(&self.shard_at(number).turn).lock_owned()
    }

    /// The turn of the shard that a search is at, when it is free. Give it back before going on.
    pub(crate) fn turn_at(&self, cursor: &Cursor) -> impl Future<Output = TurnGuard> + Send + 'static {
        Arc::clone(&self.shard_at(cursor.shard).turn).lock_owned()
    }

    /// Whether one more message of this size may be retained at `topic`.
    pub(crate) fn has_room(&self, topic: &str, bytes: usize, limits: &Limits) -> Result<(), RetainedFull> {
        let replaced = self.find(topic).map(|old| old.size() as u64);
        let (messages, used) = self.totals();
        let messages = if replaced.is_some() { messages } else { messages + 1 };
        let used = used.saturating_sub(replaced.unwrap_or(0)) + bytes as u64;
        if messages > limits.max_retained_messages || used > limits.max_retained_bytes {
            return Err(RetainedFull);
        }
        Ok(())
    }

    /// Makes this message the retained one of its topic. The caller holds the turn.
    pub(crate) fn set(&self, message: Arc<Message>) {
        let size = message.size() as u64;
        let shard = self.shard(message.topic());
        let old = shard.topics.write().replace(ByTopic(message));
        self.bytes.fetch_add(size, Ordering::Relaxed);
        match old {
            Some(old) => self.bytes.fetch_sub(old.0.size() as u64, Ordering::Relaxed),
            None => self.messages.fetch_add(1, Ordering::Relaxed),
        };
    }

    /// Forgets the topic's Retained Message [MQTT-3.3.1-6, v5]. The caller holds the turn. Returns whether there was one.
    pub(crate) fn clear(&self, topic: &str) -> bool {
        let old = self.shard(topic).topics.write().take(topic.as_bytes());
        if let Some(old) = &old {
            self.bytes.fetch_sub(old.0.size() as u64, Ordering::Relaxed);
            self.messages.fetch_sub(1, Ordering::Relaxed);
        }
        old.is_some()
    }

    pub(crate) fn find(&self, topic: &str) -> Option<Arc<Message>> {
        self.shard(topic).topics.read().get(topic.as_bytes()).map(|entry| Arc::clone(&entry.0))
    }

    /// Goes on with a search: `hit` gets what matches and is alive, until it says `false` or `budget` topics were
    /// looked at.
    pub(crate) fn search(
        &self,
        filter: &str,
        cursor: &mut Cursor,
        mut budget: usize,
        now_ms: u64,
        mut hit: impl FnMut(&Arc<Message>) -> bool,
    ) -> Step {
        let exact = !filter.contains(['+', '#']);
        if exact {
            cursor.shard = cursor.shard.max(self.number(filter));
        }
        while let Some(shard) = self.shards.get(cursor.shard) {
            let Ok(_turn) = shard.turn.try_lock() else { return Step::Busy };
            if exact {
                cursor.shard = SHARDS;
                let found = shard.topics.read().get(filter.as_bytes()).map(|entry| Arc::clone(&entry.0));
                if let Some(message) = found.filter(|message| !message.is_expired(now_ms)) {
                    hit(&message);
                }
                return Step::Finished;
            }
            let topics = shard.topics.read();
            let mut from = std::mem::take(&mut cursor.from);
            if from.is_empty() {
                from.extend_from_slice(literal_prefix(filter).as_bytes());
            }
            let below = |from: &[u8]| {
                let first = topics.range::<[u8], _>((Bound::Included(from), Bound::Unbounded)).next();
                first
                    .is_some_and(|first| first.0.topic_bytes().starts_with(literal_prefix(filter).as_bytes()))
            };
            while below(&from) {
                // Walk on while topics match; a mismatch gives a place to jump to.
                let mut jump = None;
                for entry in topics.range::<[u8], _>((Bound::Included(&*from), Bound::Unbounded)) {
                    if budget == 0 {
                        cursor.from = entry.0.topic_bytes().to_vec();
                        return Step::More;
                    }
                    budget -= 1;
                    match compare(filter, entry.0.topic()) {
                        Comparison::Matches => {
                            if !entry.0.is_expired(now_ms) && !hit(&entry.0) {
                                cursor.from = after(entry.0.topic_bytes());
                                return Step::More;
                            }
                        }
                        Comparison::Next => {}
                        Comparison::JumpTo(place) => {
                            jump = Some(place);
                            break;
                        }
                    }
                }
                match jump {
                    Some(place) => from = place,
                    None => break,
                }
            }
            cursor.shard += 1;
        }
        Step::Finished
    }

    /// Drops up to `budget` expired messages of one shard, unless somebody has its turn; returns how many. `gone` is told the
    /// topic of each. For a slow sweep in the background.
    pub(crate) fn sweep(
        &self,
        shard: usize,
        budget: usize,
        now_ms: u64,
        mut gone: impl FnMut(&str),
    ) -> usize {
        let Some(shard) = self.shards.get(shard % SHARDS) else { return 0 };
        let Ok(_turn) = shard.turn.try_lock() else { return 0 };
        let expired: Vec<_> = shard
            .topics
            .read()
            .iter()
            .filter(|entry| entry.0.is_expired(now_ms))
            .take(budget)
            .map(|entry| Arc::clone(&entry.0))
            .collect();
        let mut dropped = 0;
        for message in expired {
            let mut topics = shard.topics.write();
            // It may have been replaced meanwhile.
            if topics.get(message.topic_bytes()).is_some_and(|entry| Arc::ptr_eq(&entry.0, &message)) {
                topics.take(message.topic_bytes());
                drop(topics);
                self.bytes.fetch_sub(message.size() as u64, Ordering::Relaxed);
                self.messages.fetch_sub(1, Ordering::Relaxed);
                gone(message.topic());
                dropped += 1;
            }
        }
        dropped
    }

    /// The number of a topic's shard.
    pub(crate) fn number(&self, topic: &str) -> usize {
        (hash_of(topic) >> 40) as usize % SHARDS
    }

    fn shard(&self, topic: &str) -> &Shard {
        self.shard_at(self.number(topic))
    }

    #[expect(clippy::expect_used, reason = "the place is taken modulo the number of shards")]
    fn shard_at(&self, number: usize) -> &Shard {
        self.shards.get(number % SHARDS).expect("taken modulo the number of shards")
    }
}

/// The part of a filter before its first wildcard level, with the separator; of `a/#` only `a`, which it matches too.
fn literal_prefix(filter: &str) -> &str {
    let end = filter.find(['+', '#']).unwrap_or(filter.len());
    let prefix = filter.get(..end).unwrap_or_default();
    if filter.get(end..) == Some("#") { prefix.strip_suffix('/').unwrap_or(prefix) } else { prefix }
}

#[derive(Debug, PartialEq, Eq)]
enum Comparison {
    Matches,
    /// No match; the next topic may.
    Next,
    /// No match, and none before this place either.
    JumpTo(Vec<u8>),
}

/// Compares level by level. Topics are in byte order, in which all topics below one prefix stand together, between
/// `prefix/` and `prefix0` (`0` follows `/`).
fn compare(filter: &str, topic: &str) -> Comparison {
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return Comparison::JumpTo(b"%".to_vec());
    }
    let mut levels = topic.split('/');
    let mut wanted = filter.split('/');
    let mut passed = 0usize;
    loop {
        match (wanted.next(), levels.next()) {
            (Some("#"), _) | (None, None) => return Comparison::Matches,
            // `a/#` matches `a`.
            (Some(_), None) if wanted.next().is_none() && filter.ends_with("/#") => {
                return if filter.split('/').count() == topic.split('/').count() + 1 {
                    Comparison::Matches
                } else {
                    Comparison::Next
                };
            }
            (Some(_), None) => return Comparison::Next,
            (None, Some(_)) => {
                // Longer than the filter: so is everything below this prefix.
                let prefix = topic.get(..passed.saturating_sub(1)).unwrap_or_default();
                return Comparison::JumpTo(below_end(prefix));
            }
            (Some("+"), Some(level)) => passed += level.len() + 1,
            (Some(literal), Some(level)) if literal == level => passed += level.len() + 1,
            (Some(literal), Some(level)) => {
                let prefix = topic.get(..passed).unwrap_or_default();
                if level < literal {
                    let place = [prefix.as_bytes(), literal.as_bytes()].concat();
                    // `a!` comes before `a/…` though `a` comes before `a!`: then there is no way but forward.
                    return if *place > *topic.as_bytes() {
                        Comparison::JumpTo(place)
                    } else {
                        Comparison::Next
                    };
                }
                // Beyond the literal: nothing more below this prefix, unless a name that begins with the literal and
                // goes on with a byte below `/` stands between (`ab` against `ab!`): those come one by one.
                if level.starts_with(literal) {
                    return Comparison::Next;
                }
                return match prefix.strip_suffix('/') {
                    Some(parent) => Comparison::JumpTo(below_end(parent)),
                    None => Comparison::JumpTo(vec![0xff]),
                };
            }
        }
    }
}

/// The first place after everything below `prefix/`.
fn below_end(prefix: &str) -> Vec<u8> {
    let mut place = prefix.as_bytes().to_vec();
    place.push(b'/' + 1);
    place
}

/// The first place after this topic.
fn after(topic: &[u8]) -> Vec<u8> {
    let mut place = topic.to_vec();
    place.push(0);
    place
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use mqtt_protocol::QoS;
    use proptest::prelude::*;

    use super::{Cursor, Retained, Step};
    use crate::config::Limits;
    use crate::message::{Message, Publication, Trail};

    fn message(topic: &str, expires_at_ms: Option<u64>) -> Arc<Message> {
        Publication {
            id: store::MessageId::default(),
            namespace: 0,
            topic,
            payload: b"x",
            qos: QoS::AtMostOnce,
            retain: true,
            properties: &[],
            expires_at_ms,
            received_at_ms: 0,
            publisher: None,
            trail: &Trail::default(),
            trace: None,
        }
        .to_message()
    }

    fn search(retained: &Retained, filter: &str, budget: usize) -> Vec<String> {
        let mut cursor = Cursor::default();
        let mut found = Vec::new();
        loop {
            let step = retained.search(filter, &mut cursor, budget, 0, |message| {
                found.push(message.topic().to_owned());
                true
            });
            match step {
                Step::Finished => break,
                Step::More => {}
                Step::Busy => panic!("nobody holds a turn"),
            }
        }
        found.sort();
        found
    }

    fn level() -> impl Strategy<Value = String> {
        prop_oneof![6 => "[ab!0~]{0,2}", 1 => Just("$s".to_owned()), 1 => Just("é".to_owned())]
    }

    proptest! {
        #[test]
        fn a_search_finds_what_a_scan_finds(
            topics in prop::collection::btree_set(
                prop::collection::vec(level(), 1..5).prop_map(|l| l.join("/")).prop_filter("empty", |t| !t.is_empty()), 0..60),
            filters in prop::collection::vec(
                (prop::collection::vec(prop_oneof![2 => level(), 1 => Just("+".to_owned())], 0..4), any::<bool>())
                    .prop_map(|(mut l, tail)| { if tail || l.is_empty() { l.push("#".into()) } l.join("/") })
                    .prop_filter("empty", |f| !f.is_empty()), 1..20),
            budget in 1usize..20,
        ) {
            let retained = Retained::new();
            for topic in &topics {
                retained.set(message(topic, None));
            }
            prop_assert_eq!(retained.totals().0, topics.len() as u64);
            for filter in filters {
                let expected: Vec<_> =
                    topics.iter().filter(|t| mqtt_protocol::topic::matches(&filter, t)).cloned().collect();
                prop_assert_eq!(search(&retained, &filter, budget), expected, "filter {}", filter);
            }
        }
    }

    #[test]
    fn replacing_and_clearing_keep_the_totals() {
        let retained = Retained::new();
        retained.set(message("a", None));
        retained.set(message("a", None));
        assert_eq!(retained.totals(), (1, 2));
        assert!(retained.clear("a"));
        assert!(!retained.clear("a"));
        assert_eq!(retained.totals(), (0, 0));
    }

    #[test]
    fn the_limits_hold_at_the_limit_and_one_past_it() {
        let retained = Retained::new();
        let limits = Limits { max_retained_messages: 1, max_retained_bytes: 10, ..Limits::default() };
        assert!(retained.has_room("a", 10, &limits).is_ok());
        assert!(retained.has_room("a", 11, &limits).is_err());
        retained.set(message("a", None));
        assert!(retained.has_room("b", 1, &limits).is_err(), "a second message");
        assert!(retained.has_room("a", 10, &limits).is_ok(), "replacing the only one");
    }

    #[test]
    fn expired_messages_are_not_found_and_swept() {
        let retained = Retained::new();
        retained.set(message("a", Some(5)));
        retained.set(message("b", None));
        let mut found = BTreeSet::new();
        let step =
            retained.search("#", &mut Cursor::default(), 100, 5, |m| found.insert(m.topic().to_owned()));
        assert_eq!((step, found.len()), (Step::Finished, 1));
        let swept: usize = (0..super::SHARDS).map(|shard| retained.sweep(shard, 10, 5, |_| ())).sum();
        assert_eq!((swept, retained.totals().0), (1, 1));
    }

    #[test]
    fn a_taken_turn_makes_a_search_wait() {
        let retained = Retained::new();
        retained.set(message("a", None));
        let turn = retained.try_turn("a").unwrap();
        assert_eq!(retained.search("a", &mut Cursor::default(), 10, 0, |_| true), Step::Busy);
        drop(turn);
        assert_eq!(retained.search("a", &mut Cursor::default(), 10, 0, |_| true), Step::Finished);
    }
}
