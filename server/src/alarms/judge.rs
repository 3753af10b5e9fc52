//! What of a reading is worth an alarm. Pure: readings and limits in, conditions out.

use std::collections::HashMap;
use std::time::Duration;

use crate::config;

/// What an alarm is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// A listener's certificate expires soon, or has.
    CertificateExpiry,
    /// Little room is left on the disk of the store.
    DiskSpace,
    /// Something has waited long in the queue of an action.
    QueueAge,
    /// The queue of an action will be full soon, at the pace of the last looks.
    QueueFilling,
    /// A rule fails for messages.
    RuleErrors,
    /// Messages come to a rule, and none has ever passed.
    RuleSilent,
    /// The far side of an action takes nothing.
    SinkDown,
    /// The store takes nothing new until there is room.
    StoreFull,
    /// The store has failed: nothing is acknowledged any more.
    StoreFailed,
}

impl Kind {
    /// All of them.
    pub(crate) const ALL: [Self; 9] = [
        Self::CertificateExpiry,
        Self::DiskSpace,
        Self::QueueAge,
        Self::QueueFilling,
        Self::RuleErrors,
        Self::RuleSilent,
        Self::SinkDown,
        Self::StoreFull,
        Self::StoreFailed,
    ];

    /// Its name in topics, answers and metrics.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::CertificateExpiry => "certificate_expiry",
            Self::DiskSpace => "disk_space",
            Self::QueueAge => "queue_age",
            Self::QueueFilling => "queue_filling",
            Self::RuleErrors => "rule_errors",
            Self::RuleSilent => "rule_silent",
            Self::SinkDown => "sink_down",
            Self::StoreFull => "store_full",
            Self::StoreFailed => "store_failed",
        }
    }

    /// Whether something is being lost, or will be soon, unless somebody acts.
    pub(crate) const fn is_critical(self) -> bool {
        matches!(self, Self::DiskSpace | Self::QueueFilling | Self::StoreFull | Self::StoreFailed)
    }
}

/// Something that is wrong right now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Condition {
    pub(crate) kind: Kind,
    /// Whom it concerns: `rule/action`, a rule, a listener, or `store`.
    pub(crate) subject: String,
    /// In words, with the figures.
    pub(crate) detail: String,
    /// How long it has to be so before it is an alarm.
    pub(crate) hold: Duration,
}

/// The figures of one look.
#[derive(Debug, Clone, Default)]
pub(super) struct Reading {
    /// Seconds since some moment that all readings have in common.
    pub(super) at: Duration,
    pub(super) queues: Vec<QueueReading>,
    pub(super) rules: Vec<RuleReading>,
    /// Names of listeners, and seconds until their certificates expire.
    pub(super) certificates: Vec<(String, i64)>,
    /// Bytes that are free on the store's disk.
    pub(super) free_bytes: Option<u64>,
    pub(super) store: StoreReading,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum StoreReading {
    #[default]
    Sound,
    Full {
        used: u64,
        limit: u64,
    },
    Failed,
}

#[derive(Debug, Clone, Default)]
pub(super) struct QueueReading {
    /// `rule/action`.
    pub(super) name: String,
    pub(super) items: u64,
    pub(super) items_max: u64,
    pub(super) bytes: u64,
    pub(super) bytes_max: u64,
    pub(super) oldest_age: Duration,
    /// An operator has stopped it, so that it waits is no surprise.
    pub(super) is_paused: bool,
    /// Why the far side takes nothing.
    pub(super) down: Option<String>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct RuleReading {
    pub(super) name: String,
    pub(super) matched: u64,
    pub(super) passed: u64,
    pub(super) failed: u64,
    /// What went wrong last.
    pub(super) last_error: Option<String>,
}

/// Judges readings, each in the light of those before it.
#[derive(Debug, Default)]
pub(super) struct Judge {
    /// Readings of the last minute, by their time: failures of rules and lengths of queues.
    before: Vec<(Duration, Figures)>,
}

#[derive(Debug, Default)]
struct Figures {
    failed: HashMap<String, u64>,
    queues: HashMap<String, (u64, u64)>,
}

/// Over how long failures and paces are measured.
const WINDOW: Duration = Duration::from_secs(60);

impl Judge {
    /// What is wrong.
    pub(super) fn judge(&mut self, reading: &Reading, limits: &config::Alarms) -> Vec<Condition> {
        // The last one that is a window old is what this one is held against.
        while self.before.get(1).is_some_and(|(at, _)| reading.at.saturating_sub(*at) >= WINDOW) {
            self.before.remove(0);
        }
        let mut found = Vec::new();
        let mut say = |kind, subject: &str, hold, detail| {
            found.push(Condition { kind, subject: subject.to_owned(), detail, hold });
        };
        let now = Duration::ZERO;
        match reading.store {
            StoreReading::Sound => {}
            StoreReading::Full { used, limit } => {
                say(Kind::StoreFull, "store", now, format!("{used} of {limit} bytes are in use"));
            }
            StoreReading::Failed => {
                let text = "a write has failed: nothing is acknowledged until the next start";
                say(Kind::StoreFailed, "store", now, text.to_owned());
            }
        }
        let disk_free = limits.disk_free.as_u64();
        if let Some(free) = reading.free_bytes.filter(|free| *free < disk_free) {
            let text = format!("{free} bytes are free on the store's disk, {disk_free} are wanted");
            say(Kind::DiskSpace, "store", now, text);
        }
        let expiry = limits.certificate_expiry.as_duration();
        for (listener, left_s) in &reading.certificates {
            let is_soon =
                !expiry.is_zero() && u64::try_from(*left_s).is_ok_and(|left| left < expiry.as_secs());
            if *left_s < 0 && !expiry.is_zero() {
                let text = format!("the certificate expired {} ago", span(left_s.unsigned_abs()));
                say(Kind::CertificateExpiry, listener, now, text);
            } else if is_soon {
                let text = format!("the certificate expires in {}", span(left_s.unsigned_abs()));
                say(Kind::CertificateExpiry, listener, now, text);
            }
        }
        let then = self.before.first();
        for queue in &reading.queues {
            let age = limits.queue_age.as_duration();
            if !age.is_zero() && queue.oldest_age >= age && !queue.is_paused {
                let text = format!(
                    "the oldest of {} items has waited {}",
                    queue.items,
                    span(queue.oldest_age.as_secs())
                );
                say(Kind::QueueAge, &queue.name, now, text);
            }
            let down = limits.sink_down.as_duration();
            if let Some(cause) = queue.down.as_ref().filter(|_| !down.is_zero()) {
                say(Kind::SinkDown, &queue.name, down, format!("{} items wait: {cause}", queue.items));
            }
            let within = limits.queue_full_within.as_duration();
            let full_in = then.and_then(|(at, figures)| {
                let (items, bytes) = *figures.queues.get(&queue.name)?;
                full_in(queue, items, bytes, reading.at.checked_sub(*at)?)
            });
            if let Some(full_in) = full_in.filter(|full_in| !within.is_zero() && *full_in <= within) {
                let text = format!(
                    "{} of {} items and {} of {} bytes are in use; at this pace it is full in {}",
                    queue.items,
                    queue.items_max,
                    queue.bytes,
                    queue.bytes_max,
                    span(full_in.as_secs())
                );
                // One burst is no trend.
                say(Kind::QueueFilling, &queue.name, Duration::from_secs(10), text);
            }
        }
        for rule in &reading.rules {
            let before = then.and_then(|(_, figures)| figures.failed.get(&rule.name)).copied();
            let failed = before.map_or(0, |before| rule.failed.saturating_sub(before));
            if limits.rule_errors > 0 && failed >= u64::from(limits.rule_errors) {
                let last = rule.last_error.as_deref().unwrap_or("see the log");
                say(
                    Kind::RuleErrors,
                    &rule.name,
                    now,
                    format!("failed {failed} times within a minute: {last}"),
                );
            }
            let silent = u64::from(limits.rule_silent);
            if silent > 0 && rule.passed == 0 && rule.matched >= silent {
                let text = format!("{} messages came to it and none has passed", rule.matched);
                say(Kind::RuleSilent, &rule.name, now, text);
            }
        }
        self.remember(reading);
        found
    }

    /// Keeps what the next judgements need, the oldest first.
    fn remember(&mut self, reading: &Reading) {
        let figures = Figures {
            failed: reading.rules.iter().map(|rule| (rule.name.clone(), rule.failed)).collect(),
            queues: reading
                .queues
                .iter()
                .map(|queue| (queue.name.clone(), (queue.items, queue.bytes)))
                .collect(),
        };
        self.before.push((reading.at, figures));
    }
}

/// How long until a queue is full at the pace since then; `None`: it doesn't grow, or is far from full.
fn full_in(queue: &QueueReading, items: u64, bytes: u64, since: Duration) -> Option<Duration> {
    let one = |now: u64, then: u64, max: u64| {
        let grown = now.checked_sub(then).filter(|grown| *grown > 0)?;
        let left = u128::from(max.saturating_sub(now));
        let ms = left * since.as_millis() / u128::from(grown);
        Some(Duration::from_millis(u64::try_from(ms).unwrap_or(u64::MAX)))
    };
    let by_items = one(queue.items, items, queue.items_max);
    let by_bytes = one(queue.bytes, bytes, queue.bytes_max);
    match (by_items, by_bytes) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// So many seconds, as people say it.
fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Reading {
        Reading { at: Duration::from_secs(seconds), ..Reading::default() }
    }

    fn kinds(found: &[Condition]) -> Vec<(Kind, &str)> {
        found.iter().map(|condition| (condition.kind, condition.subject.as_str())).collect()
    }

    fn limits() -> config::Alarms {
        config::Alarms::default()
    }

    fn queue(items: u64) -> QueueReading {
        QueueReading {
            name: "r/a".to_owned(),
            items,
            items_max: 1_000,
            bytes_max: 1 << 30,
            ..QueueReading::default()
        }
    }

    #[test]
    fn a_quiet_gateway_has_none() {
        let reading = Reading {
            queues: vec![queue(10)],
            rules: vec![RuleReading { matched: 5, ..RuleReading::default() }],
            certificates: vec![("tls".to_owned(), 90 * 86_400)],
            free_bytes: Some(1 << 40),
            ..at(0)
        };
        assert!(Judge::default().judge(&reading, &limits()).is_empty());
    }

    #[test]
    fn the_store_and_its_disk_are_looked_at() {
        let full = Reading {
            store: StoreReading::Full { used: 9, limit: 10 },
            free_bytes: Some(limits().disk_free.as_u64() - 1),
            ..at(0)
        };
        let found = Judge::default().judge(&full, &limits());
        assert_eq!(kinds(&found), [(Kind::StoreFull, "store"), (Kind::DiskSpace, "store")]);
        let failed =
            Reading { store: StoreReading::Failed, free_bytes: Some(limits().disk_free.as_u64()), ..at(0) };
        assert_eq!(kinds(&Judge::default().judge(&failed, &limits())), [(Kind::StoreFailed, "store")]);
    }

    #[test]
    fn certificates_are_told_of_before_and_after_they_expire() {
        for (left_s, said) in
            [(14 * 86_400, None), (14 * 86_400 - 1, Some("in 13 days")), (-7_300, Some("2 h ago"))]
        {
            let reading = Reading { certificates: vec![("tls".to_owned(), left_s)], ..at(0) };
            let found = Judge::default().judge(&reading, &limits());
            assert_eq!(
                found.first().map(|condition| condition.detail.contains(said.unwrap())),
                said.map(|_| true)
            );
        }
    }

    #[test]
    fn a_queue_is_told_of_when_it_is_old_or_grows_too_fast_or_goes_nowhere() {
        let old = QueueReading { oldest_age: limits().queue_age.as_duration(), ..queue(3) };
        let paused = QueueReading { is_paused: true, ..old.clone() };
        let down = QueueReading { down: Some("connection refused".to_owned()), ..queue(3) };
        for (queue, expected) in [(old, Some(Kind::QueueAge)), (paused, None), (down, Some(Kind::SinkDown))] {
            let found = Judge::default().judge(&Reading { queues: vec![queue], ..at(0) }, &limits());
            assert_eq!(found.first().map(|condition| condition.kind), expected);
        }
        // 10 a second: 900 left are 90 seconds.
        let mut judge = Judge::default();
        assert!(judge.judge(&Reading { queues: vec![queue(0)], ..at(0) }, &limits()).is_empty());
        let found = judge.judge(&Reading { queues: vec![queue(100)], ..at(10) }, &limits());
        assert_eq!(kinds(&found), [(Kind::QueueFilling, "r/a")]);
        assert!(found[0].detail.ends_with("full in 90 s"), "{found:?}");
        // It stands still.
        let mut judge = Judge::default();
        for second in 0..200 {
            assert!(judge.judge(&Reading { queues: vec![queue(999)], ..at(second) }, &limits()).is_empty());
        }
    }

    #[test]
    fn failures_of_a_rule_count_within_a_minute() {
        let rule = |failed| RuleReading {
            name: "r".to_owned(),
            failed,
            passed: 1,
            last_error: Some("no such field".to_owned()),
            ..RuleReading::default()
        };
        let mut judge = Judge::default();
        let limit = u64::from(limits().rule_errors);
        let mut told = Vec::new();
        for second in (0..300).step_by(5) {
            // All of them at once, after a minute.
            let failed = if second < 60 { 0 } else { limit };
            let found = judge.judge(&Reading { rules: vec![rule(failed)], ..at(second) }, &limits());
            if !found.is_empty() {
                assert_eq!(kinds(&found), [(Kind::RuleErrors, "r")]);
                assert!(found[0].detail.ends_with("no such field"), "{found:?}");
                told.push(second);
            }
        }
        assert_eq!((told.first(), told.last()), (Some(&60), Some(&115)));
        assert!(judge.before.len() <= 14, "{}", judge.before.len());
    }

    #[test]
    fn a_rule_that_lets_nothing_pass_is_told_of_once_enough_came() {
        let silent = u64::from(limits().rule_silent);
        for (matched, passed, is_told) in [(silent - 1, 0, false), (silent, 0, true), (silent, 1, false)] {
            let rule = RuleReading { name: "r".to_owned(), matched, passed, ..RuleReading::default() };
            let found = Judge::default().judge(&Reading { rules: vec![rule], ..at(0) }, &limits());
            assert_eq!(!found.is_empty(), is_told, "{matched} {passed}");
        }
    }

    #[test]
    fn what_is_off_is_not_told_of() {
        let zero = crate::config::Period::ZERO;
        let off = config::Alarms {
            queue_age: zero,
            queue_full_within: zero,
            sink_down: zero,
            certificate_expiry: zero,
            disk_free: crate::config::ByteSize::bytes(0),
            rule_errors: 0,
            rule_silent: 0,
            ..limits()
        };
        let reading = |second, items| Reading {
            queues: vec![QueueReading {
                oldest_age: WINDOW * 100,
                down: Some(String::new()),
                ..queue(items)
            }],
            rules: vec![RuleReading { matched: 1 << 40, failed: items, ..RuleReading::default() }],
            certificates: vec![("tls".to_owned(), -5)],
            free_bytes: Some(0),
            ..at(second)
        };
        let mut judge = Judge::default();
        assert!(judge.judge(&reading(0, 0), &off).is_empty());
        assert!(judge.judge(&reading(10, 900), &off).is_empty());
    }
}
