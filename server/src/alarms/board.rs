//! Which alarms there are: conditions that held long enough, until they haven't held for long enough.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::judge::{Condition, Kind};

/// Most alarms at a time; what comes beyond it is counted only.
pub(crate) const ALARMS_MAX: usize = 1_000;
/// Alarms that are over and still shown.
pub(crate) const ENDED_MAX: usize = 200;
/// How long a condition has to be gone before its alarm is cleared: one that dances is told once.
pub(crate) const CLEAR_AFTER: Duration = Duration::from_secs(15);

/// An alarm that stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Alarm {
    pub(crate) kind: Kind,
    pub(crate) subject: String,
    /// As it was at the last look.
    pub(crate) detail: String,
    /// Milliseconds since 1970.
    pub(crate) raised_at_ms: i64,
}

/// One that is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) alarm: Alarm,
    pub(crate) cleared_at_ms: i64,
}

/// What a look has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    Raised(Alarm),
    Cleared(Ended),
}

/// All alarms.
#[derive(Debug, Default)]
pub(crate) struct Board {
    standing: BTreeMap<(Kind, String), Standing>,
    ended: VecDeque<Ended>,
    raised: BTreeMap<Kind, u64>,
    /// Conditions that found no room.
    pub(crate) left_out: u64,
}

#[derive(Debug)]
struct Standing {
    /// Since when the condition has held, or hasn't.
    since: Duration,
    last_seen: Duration,
    detail: String,
    raised_at_ms: Option<i64>,
}

impl Board {
    /// Takes what is wrong at `now` (on a clock that never goes back), and says what that changes.
    pub(crate) fn take(&mut self, conditions: Vec<Condition>, now: Duration, now_ms: i64) -> Vec<Change> {
        let mut changes = Vec::new();
        for Condition { kind, subject, detail, hold } in conditions {
            let key = (kind, subject);
            if !self.standing.contains_key(&key) && self.standing.len() >= ALARMS_MAX {
                self.left_out += 1;
                continue;
            }
            let subject = key.1.clone();
            let standing = self.standing.entry(key).or_insert_with(|| Standing {
                since: now,
                last_seen: now,
                detail: String::new(),
                raised_at_ms: None,
            });
            standing.last_seen = now;
            standing.detail = detail;
            if standing.raised_at_ms.is_none() && now.saturating_sub(standing.since) >= hold {
                standing.raised_at_ms = Some(now_ms);
                *self.raised.entry(kind).or_default() += 1;
                let detail = standing.detail.clone();
                changes.push(Change::Raised(Alarm { kind, subject, detail, raised_at_ms: now_ms }));
            }
        }
        let ended = &mut self.ended;
        self.standing.retain(|(kind, subject), standing| {
            let gone_for = now.saturating_sub(standing.last_seen);
            match standing.raised_at_ms {
                // Not yet an alarm: it is begun anew when it comes back.
                None => gone_for.is_zero(),
                Some(_) if gone_for < CLEAR_AFTER => true,
                Some(raised_at_ms) => {
                    let detail = std::mem::take(&mut standing.detail);
                    let alarm = Alarm { kind: *kind, subject: subject.clone(), detail, raised_at_ms };
                    let over = Ended { alarm, cleared_at_ms: now_ms };
                    if ended.len() >= ENDED_MAX {
                        ended.pop_front();
                    }
                    ended.push_back(over.clone());
                    changes.push(Change::Cleared(over));
                    false
                }
            }
        });
        changes
    }

    /// The alarms that stand, by kind and subject.
    pub(crate) fn standing(&self) -> impl Iterator<Item = Alarm> {
        self.standing.iter().filter_map(|((kind, subject), standing)| {
            let raised_at_ms = standing.raised_at_ms?;
            Some(Alarm {
                kind: *kind,
                subject: subject.clone(),
                detail: standing.detail.clone(),
                raised_at_ms,
            })
        })
    }

    /// Those that are over, the last first.
    pub(crate) fn ended(&self) -> impl Iterator<Item = &Ended> {
        self.ended.iter().rev()
    }

    /// How many stand, and how many were ever raised, for every kind.
    pub(crate) fn counts(&self) -> [(Kind, u64, u64); Kind::ALL.len()] {
        Kind::ALL.map(|kind| {
            let standing = self
                .standing
                .iter()
                .filter(|((of, _), standing)| *of == kind && standing.raised_at_ms.is_some());
            (kind, standing.count() as u64, self.raised.get(&kind).copied().unwrap_or(0))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(subject: &str, hold_s: u64) -> Condition {
        Condition {
            kind: Kind::SinkDown,
            subject: subject.to_owned(),
            detail: "no".to_owned(),
            hold: Duration::from_secs(hold_s),
        }
    }

    fn look(board: &mut Board, conditions: Vec<Condition>, second: u64) -> Vec<Change> {
        board.take(conditions, Duration::from_secs(second), i64::try_from(second).unwrap() * 1_000)
    }

    #[test]
    fn it_is_raised_once_it_has_held_and_cleared_once_it_is_over() {
        let mut board = Board::default();
        for second in [0, 5, 10, 29] {
            assert!(look(&mut board, vec![condition("a", 30)], second).is_empty());
        }
        let raised = look(&mut board, vec![condition("a", 30)], 30);
        assert!(matches!(&raised[..], [Change::Raised(alarm)] if alarm.raised_at_ms == 30_000), "{raised:?}");
        assert!(look(&mut board, vec![condition("a", 30)], 35).is_empty());
        // It dances.
        assert!(look(&mut board, vec![], 40).is_empty());
        assert!(look(&mut board, vec![condition("a", 30)], 45).is_empty());
        assert_eq!(board.standing().count(), 1);
        assert!(look(&mut board, vec![], 59).is_empty());
        let cleared = look(&mut board, vec![], 60);
        assert!(
            matches!(&cleared[..], [Change::Cleared(ended)] if ended.cleared_at_ms == 60_000),
            "{cleared:?}"
        );
        assert_eq!((board.standing().count(), board.ended().count()), (0, 1));
        assert_eq!(
            board.counts().map(|(kind, standing, raised)| (kind == Kind::SinkDown, standing, raised))[6],
            (true, 0, 1)
        );
    }

    #[test]
    fn what_comes_and_goes_before_its_time_is_never_told() {
        let mut board = Board::default();
        for second in 0..100 {
            let conditions = if second % 2 == 0 { vec![condition("a", 5)] } else { vec![] };
            assert!(look(&mut board, conditions, second).is_empty());
        }
        assert_eq!(board.ended().count(), 0);
    }

    #[test]
    fn there_is_room_for_so_many() {
        let mut board = Board::default();
        let all = || (0..ALARMS_MAX + 3).map(|n| condition(&n.to_string(), 0)).collect::<Vec<_>>();
        assert_eq!(look(&mut board, all(), 0).len(), ALARMS_MAX);
        assert_eq!(board.left_out, 3);
        assert_eq!(look(&mut board, vec![], 100).len(), ALARMS_MAX);
        assert_eq!(board.ended().count(), ENDED_MAX);
    }
}
