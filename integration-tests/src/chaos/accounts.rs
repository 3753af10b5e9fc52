//! The broker's own account of a rule and its action, and whether it adds up.
//!
//! Counters begin with the process, so they are looked at between two kills: while publishers have nothing to send, and in
//! the end. What is compared holds whatever the far side does meanwhile:
//!
//! - at every moment everything that came in, or was found in the outbox, is somewhere;
//! - nothing is dropped: what can't be delivered becomes a dead letter;
//! - once nothing is published, every message that passed has its request, and the far side has answered for
//!   whatever counts as delivered or refused.

use super::history::{Entry, Event, Lane};
use super::sink::SINK;

/// Counters of a rule and of its one action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Account {
    matched: u64,
    passed: u64,
    /// All others that matched.
    held_back: u64,
    queued_at_start: u64,
    received: u64,
    delivered: u64,
    queued: u64,
    in_flight: u64,
    dead_lettered: u64,
    dropped: u64,
    attempts: u64,
}

/// What the clients and the far side saw of the process that is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Seen {
    /// Messages of QoS 1 that were acknowledged: each has been admitted by this process.
    acknowledged: u64,
    /// Messages that were sent, repeated ones included.
    sent: u64,
    /// Requests that the far side has confirmed.
    confirmed: u64,
    /// Requests that it has rejected.
    rejected: u64,
    /// Dead letters that were sent again.
    redriven: u64,
}

impl Seen {
    /// Since the last start; how many dead letters were sent again isn't in the history.
    pub(super) fn of(history: &[Entry], redriven: u64) -> Self {
        let mut seen = Self { redriven, ..Self::default() };
        for entry in history.iter().rev().take_while(|entry| entry.event != Event::Started) {
            match entry.event {
                Event::Acknowledged(label) if label.lane == Lane::AtLeastOnce => seen.acknowledged += 1,
                Event::Sent(label, _) if !matches!(label.lane, Lane::Retained(_)) => seen.sent += 1,
                Event::Delivered(SINK, ..) => seen.confirmed += 1,
                Event::Rejected(SINK, _) => seen.rejected += 1,
                _ => {}
            }
        }
        seen
    }
}

impl Account {
    /// Reads a rule as `tidegate rules counters --json` prints it.
    pub(super) fn read(text: &str) -> Option<Self> {
        let delivery = text.split_once("\"delivery\":{")?.1;
        let sum = |name: &str| {
            let (_, rest) = delivery.split_once(&format!("\"{name}\":{{"))?;
            let (object, _) = rest.split_once('}')?;
            let counts = object.split(',').filter(|count| !count.is_empty());
            counts.map(|count| count.rsplit_once(':')?.1.parse::<u64>().ok()).sum::<Option<u64>>()
        };
        let held_back = ["no_match", "no_output", "failed_evaluation", "looped"];
        Some(Self {
            matched: number(text, "matched")?,
            passed: number(text, "passed")?,
            held_back: held_back.iter().map(|name| number(text, name)).sum::<Option<u64>>()?,
            queued_at_start: number(delivery, "queued_at_start")?,
            received: number(delivery, "received")?,
            delivered: number(delivery, "delivered")?,
            queued: number(delivery, "queued")?,
            in_flight: number(delivery, "in_flight")?,
            dead_lettered: sum("dead_lettered")?,
            dropped: sum("dropped")?,
            attempts: number(delivery, "attempts")?,
        })
    }

    /// Whether nothing waits and nothing is on its way.
    pub(super) fn is_drained(&self) -> bool {
        self.queued + self.in_flight == 0
    }

    /// Whether so many were delivered and nothing else has come of anything.
    pub(super) fn has_delivered(&self, messages: u64) -> bool {
        self.delivered == messages && self.queued_at_start + self.received == messages
    }

    /// What doesn't add up at whatever moment.
    pub(super) fn check(&self) -> Result<(), String> {
        let came = self.queued_at_start + self.received;
        let is = self.delivered + self.queued + self.in_flight + self.dead_lettered + self.dropped;
        let decided = self.passed + self.held_back;
        if came != is {
            return Err(format!("{came} requests came and {is} are accounted for: {self:?}"));
        }
        if self.matched != decided {
            return Err(format!(
                "{} messages matched and {decided} are accounted for: {self:?}",
                self.matched
            ));
        }
        if self.dropped > 0 {
            return Err(format!("{} requests were dropped: {self:?}", self.dropped));
        }
        if self.attempts < self.delivered + self.dead_lettered {
            return Err(format!("requests have ended that were not tried: {self:?}"));
        }
        Ok(())
    }

    /// What doesn't fit to what others saw, once nothing is published any more.
    pub(super) fn compare(&self, seen: &Seen) -> Result<(), String> {
        let is_right = self.received == self.passed + seen.redriven
            && (seen.acknowledged..=seen.sent).contains(&self.passed)
            && self.delivered <= seen.confirmed
            && self.dead_lettered <= seen.rejected;
        if is_right { Ok(()) } else { Err(format!("{self:?} doesn't fit to {seen:?}")) }
    }
}

/// The first number of this name.
fn number(text: &str, name: &str) -> Option<u64> {
    let (_, rest) = text.split_once(&format!("\"{name}\":"))?;
    let end = rest.find(|character: char| !character.is_ascii_digit())?;
    rest.get(..end)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::chaos::history::Label;

    const TEXT: &str = r#"{"actions":[{"backpressure":0,"delivery":{"attempts":9,"circuit":"closed","dead_lettered":{"refused":2},"delivered":5,"dropped":{"expired":1,"lost":2},"failure":null,"in_flight":1,"queued":3,"queued_at_start":4,"received":10,"retried":0},"name":"far","requests":10}],"failed_evaluation":1,"looped":0,"matched":12,"name":"chaos","no_match":1,"no_output":0,"passed":10}"#;

    fn good() -> Account {
        Account { dropped: 0, delivered: 8, attempts: 12, ..Account::read(TEXT).unwrap() }
    }

    #[test]
    fn an_account_is_read_from_what_the_command_prints() {
        let expected = Account {
            matched: 12,
            passed: 10,
            held_back: 2,
            queued_at_start: 4,
            received: 10,
            delivered: 5,
            queued: 3,
            in_flight: 1,
            dead_lettered: 2,
            dropped: 3,
            attempts: 9,
        };
        assert_eq!(Account::read(TEXT), Some(expected));
        assert_eq!(
            Account::read(&TEXT.replace("\"dropped\":{\"expired\":1,\"lost\":2}", "\"dropped\":{}"))
                .unwrap()
                .dropped,
            0
        );
        assert_eq!(Account::read("no rule runs that is called \"chaos\""), None);
    }

    #[test]
    fn what_does_not_add_up_is_noticed() {
        assert_eq!(good().check(), Ok(()));
        let off = [
            Account { received: 11, ..good() },
            Account { queued_at_start: 3, ..good() },
            Account { delivered: 9, ..good() },
            Account { queued: 2, ..good() },
            Account { in_flight: 0, ..good() },
            Account { dead_lettered: 1, ..good() },
            Account { matched: 13, ..good() },
            Account { passed: 9, ..good() },
            Account { dropped: 1, delivered: 7, ..good() },
            Account { attempts: 9, ..good() },
        ];
        for account in off {
            assert!(account.check().is_err(), "{account:?}");
        }
    }

    #[test]
    fn what_others_did_not_see_is_noticed() {
        let seen = Seen { acknowledged: 6, sent: 10, confirmed: 8, rejected: 2, redriven: 0 };
        assert_eq!(good().compare(&seen), Ok(()));
        let off = [
            Seen { acknowledged: 11, ..seen },
            Seen { sent: 9, ..seen },
            Seen { confirmed: 7, ..seen },
            Seen { rejected: 1, ..seen },
            Seen { redriven: 1, ..seen },
        ];
        for seen in off {
            assert!(good().compare(&seen).is_err(), "{seen:?}");
        }
    }

    #[test]
    fn what_was_seen_counts_from_the_last_start() {
        let label = |lane| Label { publisher: 1, lane, number: 1 };
        let events = [
            Event::Acknowledged(label(Lane::AtLeastOnce)),
            Event::Delivered(SINK, label(Lane::AtLeastOnce), 1),
            Event::Killed,
            Event::Started,
            Event::Delivered(SINK, label(Lane::AtLeastOnce), 1),
            Event::Listening,
            Event::Sent(label(Lane::ExactlyOnce), true),
            Event::Sent(label(Lane::Retained(0)), false),
            Event::Acknowledged(label(Lane::ExactlyOnce)),
            Event::Acknowledged(label(Lane::AtLeastOnce)),
            Event::Rejected(SINK, label(Lane::ExactlyOnce)),
            Event::Delivered("sub-0", label(Lane::ExactlyOnce), 2),
        ];
        let history = events.map(|event| Entry { at: Duration::ZERO, event });
        let expected = Seen { acknowledged: 1, sent: 1, confirmed: 1, rejected: 1, redriven: 7 };
        assert_eq!(Seen::of(&history, 7), expected);
    }
}
