//! Slow subscribers: connected clients for which messages have waited too long, and when they did.

use std::collections::HashMap;

use broker::WaitingClient;

/// How long a client that has caught up is still named.
const NAMED_FOR_MS: i64 = 3_600_000;

/// A client that was slow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SlowSubscriber {
    pub(crate) client_id: String,
    /// Age of the message that waited longest when it was looked at last; `None`: it has caught up.
    pub(crate) oldest_age_ms: Option<u64>,
    /// The longest that a message was seen to have waited.
    pub(crate) longest_ms: u64,
    /// When it was slow last, milliseconds since the epoch.
    pub(crate) last_at_ms: i64,
    /// Messages that waited then.
    pub(crate) messages: u64,
    /// Their bytes.
    pub(crate) bytes: u64,
}

/// Those that were slow in the last hour, at most as many as are shown.
#[derive(Debug, Default)]
pub(crate) struct SlowSubscribers {
    clients: HashMap<String, SlowSubscriber>,
}

impl SlowSubscribers {
    /// Takes in who waits at this moment. Those that waited least give way when there are more than `shown`.
    pub(crate) fn look(&mut self, waiting: &[WaitingClient], slow_after_ms: u64, shown: usize, now_ms: i64) {
        self.clients.retain(|_, client| now_ms.saturating_sub(client.last_at_ms) <= NAMED_FOR_MS);
        self.clients.values_mut().for_each(|client| client.oldest_age_ms = None);
        for found in waiting.iter().filter(|found| found.oldest_age_ms >= slow_after_ms) {
            let before = self.clients.get(&found.client_id).map_or(0, |client| client.longest_ms);
            let client = SlowSubscriber {
                client_id: found.client_id.clone(),
                oldest_age_ms: Some(found.oldest_age_ms),
                longest_ms: before.max(found.oldest_age_ms),
                last_at_ms: now_ms,
                messages: u64::try_from(found.messages).unwrap_or(u64::MAX),
                bytes: found.bytes,
            };
            self.clients.insert(found.client_id.clone(), client);
        }
        for gone in self.read().into_iter().skip(shown) {
            self.clients.remove(&gone.client_id);
        }
    }

    /// Those that are slow now first, and of all the one that waited longest.
    pub(crate) fn read(&self) -> Vec<SlowSubscriber> {
        let mut clients: Vec<_> = self.clients.values().cloned().collect();
        clients.sort_unstable_by(|one, other| {
            let key = |client: &SlowSubscriber| (client.oldest_age_ms, client.longest_ms);
            key(other).cmp(&key(one)).then_with(|| one.client_id.cmp(&other.client_id))
        });
        clients
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(client_id: &str, oldest_age_ms: u64) -> WaitingClient {
        WaitingClient { client_id: client_id.to_owned(), messages: 3, bytes: 30, oldest_age_ms }
    }

    fn names(slow: &SlowSubscribers) -> Vec<(String, Option<u64>, u64)> {
        slow.read()
            .into_iter()
            .map(|client| (client.client_id, client.oldest_age_ms, client.longest_ms))
            .collect()
    }

    #[test]
    fn who_waits_as_long_as_the_limit_is_slow_and_is_named_for_an_hour() {
        let mut slow = SlowSubscribers::default();
        slow.look(&[waits("a", 1_000), waits("b", 999)], 1_000, 10, 5);
        assert_eq!(names(&slow), [("a".to_owned(), Some(1_000), 1_000)]);
        slow.look(&[waits("a", 4_000)], 1_000, 10, 1_005);
        slow.look(&[], 1_000, 10, 2_005);
        assert_eq!(names(&slow), [("a".to_owned(), None, 4_000)]);
        slow.look(&[], 1_000, 10, 1_005 + NAMED_FOR_MS);
        assert_eq!(names(&slow).len(), 1);
        slow.look(&[], 1_000, 10, 1_006 + NAMED_FOR_MS);
        assert!(names(&slow).is_empty());
    }

    #[test]
    fn those_that_waited_least_give_way() {
        let mut slow = SlowSubscribers::default();
        slow.look(&[waits("a", 3_000), waits("b", 2_000), waits("c", 1_500)], 1_000, 2, 5);
        assert_eq!(
            names(&slow),
            [("a".to_owned(), Some(3_000), 3_000), ("b".to_owned(), Some(2_000), 2_000)]
        );
        // One that has caught up gives way to one that hasn't.
        slow.look(&[waits("b", 2_500), waits("d", 1_000)], 1_000, 2, 6);
        assert_eq!(
            names(&slow),
            [("b".to_owned(), Some(2_500), 2_500), ("d".to_owned(), Some(1_000), 1_000)]
        );
    }
}
