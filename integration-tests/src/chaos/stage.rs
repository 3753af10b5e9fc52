//! What the parts of a run share: where the broker is, what there is to do, and the history.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::check::Receiver;
use super::history::{Entry, Event, Label, Lane};
use crate::PATIENCE;

/// How far a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// Publishers send what they are allowed to, subscribers come and go.
    Running,
    /// Publishers finish, subscribers stay.
    Draining,
    /// Everybody goes.
    Over,
}

#[derive(Debug)]
pub(super) struct Stage {
    start: Instant,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
pub(super) struct State {
    /// Where the broker listens, while it does.
    pub(super) address: Option<SocketAddr>,
    pub(super) phase: Phase,
    /// Messages that each publisher may have sent by now.
    pub(super) allowed: u32,
    /// Subscribers that have their Subscription.
    pub(super) subscribed: usize,
    /// Publishers that have nothing more to send and to wait for.
    pub(super) finished: usize,
    /// Messages acknowledged.
    pub(super) acknowledged: u32,
    /// The newest number that was sent, and the newest that was acknowledged, of each Retained Message.
    retained: BTreeMap<(u8, u8), (u32, u32)>,
    /// Which messages of those for everybody were sent.
    sent: BTreeSet<Label>,
    /// Which of them a receiver has.
    arrived: BTreeMap<&'static str, BTreeSet<Label>>,
    /// Which of them a receiver has or has rejected.
    settled: BTreeMap<&'static str, BTreeSet<Label>>,
    pub(super) history: Vec<Entry>,
}

impl Stage {
    pub(super) fn new() -> Self {
        Self {
            start: Instant::now(),
            state: Mutex::new(State {
                address: None,
                phase: Phase::Running,
                allowed: 0,
                subscribed: 0,
                finished: 0,
                acknowledged: 0,
                retained: BTreeMap::new(),
                sent: BTreeSet::new(),
                arrived: BTreeMap::new(),
                settled: BTreeMap::new(),
                history: Vec::new(),
            }),
            changed: Condvar::new(),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread panics while it has the stage")
    }

    /// Changes something and tells everybody.
    pub(super) fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    /// Writes a line of the history.
    pub(super) fn note(&self, event: Event) {
        let mut state = self.lock();
        // Inside, so that lines are in the order of their times.
        let at = self.start.elapsed();
        state.note(event);
        state.history.push(Entry { at, event });
        drop(state);
        self.changed.notify_all();
    }

    /// Waits until something is so; `false` when it isn't in time.
    pub(super) fn wait(&self, patience: Duration, mut so: impl FnMut(&State) -> bool) -> bool {
        let deadline = Instant::now() + patience;
        let mut state = self.lock();
        while !so(&state) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state =
                self.changed.wait_timeout(state, left).expect("no thread panics while it has the stage").0;
        }
        true
    }

    /// Lets time pass, unless the run gets to `phase` meanwhile.
    pub(super) fn pause(&self, time: Duration, phase: Phase) {
        self.wait(time, |state| state.phase >= phase);
    }

    /// Where the broker is, once it listens; `None` when the run is over.
    pub(super) fn broker(&self) -> Option<SocketAddr> {
        loop {
            self.wait(PATIENCE, |state| state.address.is_some() || state.phase == Phase::Over);
            let state = self.lock();
            if state.phase == Phase::Over {
                return None;
            }
            if state.address.is_some() {
                return state.address;
            }
        }
    }
}

impl State {
    fn note(&mut self, event: Event) {
        match event {
            Event::Sent(label, _) => match label.lane {
                Lane::Retained(topic) => {
                    let newest = self.retained.entry((label.publisher, topic)).or_default();
                    newest.0 = newest.0.max(label.number);
                }
                Lane::AtLeastOnce | Lane::ExactlyOnce => {
                    self.sent.insert(label);
                }
            },
            Event::Acknowledged(label) => {
                self.acknowledged += 1;
                if let Lane::Retained(topic) = label.lane {
                    let newest = self.retained.entry((label.publisher, topic)).or_default();
                    newest.1 = newest.1.max(label.number);
                }
            }
            Event::Delivered(receiver, label, _) => {
                self.arrived.entry(receiver).or_default().insert(label);
                self.settled.entry(receiver).or_default().insert(label);
            }
            Event::Rejected(receiver, label) => {
                self.settled.entry(receiver).or_default().insert(label);
            }
            _ => {}
        }
    }

    /// Messages that are still to reach one of the receivers, or to be rejected by it.
    pub(super) fn unsettled(&self, receivers: &[Receiver]) -> usize {
        self.left(receivers, &self.settled)
    }

    /// Messages that are still to reach one of the receivers.
    pub(super) fn missing(&self, receivers: &[Receiver]) -> usize {
        self.left(receivers, &self.arrived)
    }

    fn left(&self, receivers: &[Receiver], there: &BTreeMap<&'static str, BTreeSet<Label>>) -> usize {
        let there = |name| there.get(name).map_or(0, BTreeSet::len);
        receivers.iter().map(|receiver| self.sent.len().saturating_sub(there(receiver.name))).sum()
    }

    /// The newest number sent and the newest acknowledged of a Retained Message, 0 for none.
    pub(super) fn retained(&self, publisher: u8, topic: u8) -> (u32, u32) {
        self.retained.get(&(publisher, topic)).copied().unwrap_or_default()
    }
}
