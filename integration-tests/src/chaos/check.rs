//! Whether a history keeps the promises.
//!
//! - Every message that was sent was acknowledged in the end, and every acknowledged one reached every receiver at least
//!   once. What a receiver had rejected reached it later, out of the dead letters.
//! - A message of QoS 2 reached a receiver that takes QoS 2 at most once.
//! - What a publisher sent in one row reached a receiver in that order: a number comes for the first time after all
//!   smaller ones. (At QoS 1 it may come again later; what was rejected counts as having come.)
//! - A Retained Message is the last one that was acknowledged, or a later one that was sent.
//! - Nothing that is wrong in itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::history::{Entry, Event, Label, Lane};

/// Lines of the history that a complaint shows at most.
const LINES_MAX: usize = 60;

/// Who is to get every message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receiver {
    /// Name.
    pub name: &'static str,
    /// Whether it subscribes at QoS 2: then it gets a message of QoS 2 once.
    pub takes_qos_2: bool,
    /// Whether messages reach it in their order: those of a Shared Subscription needn't.
    pub is_ordered: bool,
}

/// A promise that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// In words.
    pub what: String,
    /// Which message it is about.
    pub about: Option<Label>,
}

/// Everything that a history breaks, in the order of the rules above.
#[must_use]
pub fn check(receivers: &[Receiver], history: &[Entry]) -> Vec<Violation> {
    let mut checker = Checker::default();
    for entry in history {
        checker.note(&entry.event);
    }
    checker.check_acknowledged();
    for receiver in receivers {
        checker.check_receiver(*receiver);
    }
    checker.violations
}

/// How a message came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Arrival {
    Delivered,
    Rejected,
}

#[derive(Default)]
struct Checker {
    sent: BTreeSet<Label>,
    acknowledged: BTreeSet<Label>,
    /// By receiver, in the order of arrival, rejected ones included.
    arrived: BTreeMap<&'static str, Vec<(Label, Arrival)>>,
    violations: Vec<Violation>,
}

impl Checker {
    fn complain(&mut self, about: impl Into<Option<Label>>, what: String) {
        self.violations.push(Violation { what, about: about.into() });
    }

    fn note(&mut self, event: &Event) {
        match *event {
            Event::Sent(label, _) => {
                self.sent.insert(label);
            }
            Event::Acknowledged(label) => {
                self.acknowledged.insert(label);
            }
            Event::Delivered(receiver, label, _) => {
                if !self.sent.contains(&label) {
                    self.complain(label, format!("{label} reached {receiver} and wasn't sent"));
                }
                self.arrived.entry(receiver).or_default().push((label, Arrival::Delivered));
            }
            Event::Rejected(receiver, label) => {
                self.arrived.entry(receiver).or_default().push((label, Arrival::Rejected));
            }
            Event::Kept { publisher, topic, found, acknowledged, sent } => {
                self.check_kept(publisher, topic, found, acknowledged, sent);
            }
            Event::Wrong(client, wrong) => self.complain(None, format!("{client}: {wrong:?}")),
            Event::Started | Event::Listening | Event::Killed | Event::Connected(..) | Event::Left(..) => {}
        }
    }

    fn check_kept(&mut self, publisher: u8, topic: u8, found: Option<u32>, acknowledged: u32, sent: u32) {
        let label = |number| Label { publisher, lane: Lane::Retained(topic), number };
        let is_allowed = match found {
            Some(number) => (acknowledged..=sent).contains(&number) && !label(number).is_clear(),
            None => acknowledged == 0 || (acknowledged..=sent).any(|number| label(number).is_clear()),
        };
        if !is_allowed {
            let about = label(found.unwrap_or(acknowledged));
            self.complain(
                about,
                format!(
                    "{publisher}/keep{topic} kept {found:?}, where {acknowledged} was acknowledged and {sent} sent"
                ),
            );
        }
    }

    fn check_acknowledged(&mut self) {
        let missing: Vec<_> = self.sent.difference(&self.acknowledged).copied().collect();
        for label in missing {
            self.complain(label, format!("{label} was never acknowledged"));
        }
    }

    fn check_receiver(&mut self, receiver: Receiver) {
        let name = receiver.name;
        let arrived = self.arrived.remove(name).unwrap_or_default();
        let mut seen = BTreeSet::new();
        // By publisher and row, the greatest number that came.
        let mut newest: BTreeMap<(u8, Lane), u32> = BTreeMap::new();
        let mut delivered = BTreeSet::new();
        for (label, arrival) in arrived {
            let is_again = arrival == Arrival::Delivered && !delivered.insert(label);
            if !seen.insert(label) {
                if is_again && receiver.takes_qos_2 && label.lane == Lane::ExactlyOnce {
                    self.complain(label, format!("{label} reached {name} twice"));
                }
                continue;
            }
            let newest = newest.entry((label.publisher, label.lane)).or_insert(0);
            if receiver.is_ordered && *newest > label.number {
                let newest = *newest;
                self.complain(label, format!("{label} reached {name} after {newest}"));
            }
            *newest = label.number.max(*newest);
        }
        let lost: Vec<_> = self
            .acknowledged
            .iter()
            .filter(|label| !matches!(label.lane, Lane::Retained(_)))
            .filter(|label| !delivered.contains(label))
            .copied()
            .collect();
        for label in lost {
            self.complain(label, format!("{label} was acknowledged and never reached {name}"));
        }
    }
}

/// A violation with the lines of the history that are about it.
pub(super) struct Explained<'a> {
    pub(super) violation: &'a Violation,
    pub(super) history: &'a [Entry],
}

impl fmt::Display for Explained<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.violation.what)?;
        let Some(label) = self.violation.about else { return Ok(()) };
        let lines = self.history.iter().filter(|entry| {
            entry.event.is_about(label) || matches!(entry.event, Event::Killed | Event::Listening)
        });
        // Starts and kills before it was sent say nothing.
        let lines = lines.skip_while(|entry| !entry.event.is_about(label));
        for entry in lines.take(LINES_MAX) {
            writeln!(f, "    {entry}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::chaos::history::Wrong;

    const ONE: Receiver = Receiver { name: "one", takes_qos_2: true, is_ordered: true };

    fn label(lane: Lane, number: u32) -> Label {
        Label { publisher: 7, lane, number }
    }

    fn q1(number: u32) -> Label {
        label(Lane::AtLeastOnce, number)
    }

    fn q2(number: u32) -> Label {
        label(Lane::ExactlyOnce, number)
    }

    /// Complaints about a history in which all of `labels` were sent and acknowledged in their order, and then `more`.
    fn complaints(receiver: Receiver, labels: &[Label], more: &[Event]) -> Vec<String> {
        let sent = labels.iter().map(|label| Event::Sent(*label, false));
        let acknowledged = labels.iter().map(|label| Event::Acknowledged(*label));
        let history: Vec<_> = sent
            .chain(acknowledged)
            .chain(more.iter().copied())
            .map(|event| Entry { at: Duration::ZERO, event })
            .collect();
        check(&[receiver], &history).into_iter().map(|violation| violation.what).collect()
    }

    fn reaches(label: Label) -> Event {
        Event::Delivered("one", label, 1)
    }

    #[test]
    fn a_good_history_is_not_complained_of() {
        let good = [q1(1), q2(1), q1(2), q1(1), q1(2), q2(2)].map(reaches);
        assert!(complaints(ONE, &[q1(1), q1(2), q2(1), q2(2)], &good).is_empty());
        let rejected = [Event::Rejected("one", q1(1)), reaches(q1(2)), reaches(q1(1))];
        assert!(complaints(ONE, &[q1(1), q1(2)], &rejected).is_empty());
    }

    #[test]
    fn a_lost_message_is_noticed() {
        assert_eq!(
            complaints(ONE, &[q1(1), q1(2), q2(1)], &[reaches(q1(1)), reaches(q2(1))]),
            ["7/q1/2 was acknowledged and never reached one"]
        );
        let rejected = [reaches(q1(1)), Event::Rejected("one", q1(2))];
        assert_eq!(complaints(ONE, &[q1(1), q1(2)], &rejected).len(), 1, "a dead letter that is lost");
        let elsewhere = [Event::Delivered("two", q1(1), 1), Event::Rejected("two", q1(1))];
        assert_eq!(complaints(ONE, &[q1(1)], &elsewhere).len(), 1);
    }

    #[test]
    fn a_message_that_is_never_acknowledged_is_noticed() {
        let sent = [Event::Sent(q1(1), false), reaches(q1(1))];
        assert_eq!(complaints(ONE, &[], &sent), ["7/q1/1 was never acknowledged"]);
    }

    #[test]
    fn a_second_delivery_at_qos_2_is_noticed_and_one_at_qos_1_is_not() {
        let twice = [q1(1), q2(1), q1(1), q2(1)].map(reaches);
        assert_eq!(complaints(ONE, &[q1(1), q2(1)], &twice), ["7/q2/1 reached one twice"]);
        let takes_qos_1 = Receiver { takes_qos_2: false, ..ONE };
        assert!(complaints(takes_qos_1, &[q1(1), q2(1)], &twice).is_empty());
    }

    #[test]
    fn a_wrong_order_is_noticed_except_where_there_is_none() {
        let turned = [q1(1), q1(3), q1(2)].map(reaches);
        assert_eq!(complaints(ONE, &[q1(1), q1(2), q1(3)], &turned), ["7/q1/2 reached one after 3"]);
        let unordered = Receiver { is_ordered: false, ..ONE };
        assert!(complaints(unordered, &[q1(1), q1(2), q1(3)], &turned).is_empty());
    }

    #[test]
    fn a_message_out_of_nowhere_is_noticed() {
        assert_eq!(complaints(ONE, &[], &[reaches(q2(9))]), ["7/q2/9 reached one and wasn't sent"]);
    }

    #[test]
    fn a_retained_message_is_the_last_acknowledged_or_a_later_one() {
        let kept = |found, acknowledged, sent| {
            let event = Event::Kept { publisher: 7, topic: 0, found, acknowledged, sent };
            complaints(ONE, &[], &[event]).len()
        };
        assert_eq!(kept(None, 0, 0), 0);
        assert_eq!(kept(None, 0, 1), 0);
        assert_eq!(kept(Some(1), 0, 1), 0);
        assert_eq!(kept(Some(3), 3, 3), 0);
        assert_eq!(kept(Some(4), 3, 4), 0);
        assert_eq!(kept(Some(2), 3, 4), 1, "an old one");
        assert_eq!(kept(Some(5), 3, 4), 1, "one that wasn't sent");
        assert_eq!(kept(None, 3, 4), 1, "lost");
        // The fifth clears the topic.
        assert_eq!(kept(None, 3, 5), 0);
        assert_eq!(kept(Some(4), 5, 5), 1, "it was cleared");
        assert_eq!(kept(None, 6, 6), 1);
        assert_eq!(kept(Some(5), 4, 6), 1, "a clear isn't kept");
    }

    #[test]
    fn what_is_wrong_in_itself_is_passed_on_and_explained() {
        let wrong = Event::Wrong("one", Wrong::Collision(q2(1), q2(2)));
        assert_eq!(complaints(ONE, &[], &[wrong]).len(), 1);
        let history = [Event::Killed, Event::Sent(q1(4), false), Event::Killed, Event::Sent(q1(5), false)]
            .map(|event| Entry { at: Duration::ZERO, event });
        let violation = Violation { what: "lost".to_owned(), about: Some(q1(4)) };
        let text = Explained { violation: &violation, history: &history }.to_string();
        assert_eq!(text.lines().count(), 3, "{text}");
        assert!(text.contains("7/q1/4 is sent") && text.contains("kill -9"), "{text}");
    }
}
