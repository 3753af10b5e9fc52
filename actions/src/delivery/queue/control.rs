//! What an operator does to the queue; see [`crate::delivery::Control`].

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{Queue, count, earliest};
use crate::delivery::burial::Fate;
use crate::delivery::counters::DropReason;
use crate::delivery::item::{Item, Settled};
use crate::delivery::outbox::Backlog;
use crate::outlet::QueuedRequest;

impl<R: QueuedRequest> Queue<R> {
    pub(in crate::delivery) const fn pause(&mut self) {
        self.stops.is_paused = true;
    }

    pub(in crate::delivery) const fn resume(&mut self) {
        self.stops.is_paused = false;
    }

    /// Ends every pause but the operator's.
    pub(in crate::delivery) fn send_now(&mut self, now: Instant) {
        self.stops.hurry(self.next_number);
        self.circuit.try_now(now);
        self.lines.end_all_delays();
        self.held.end_delays(now);
        self.bury_at = now;
        if let Some(backlog) = &mut self.backlog {
            backlog.paused_until = None;
        }
    }

    /// Items that wait to be sent, in memory and on disk.
    pub(in crate::delivery) fn waiting(&self) -> u64 {
        let (on_disk, _) = self.backlog.as_ref().map_or((0, 0), Backlog::counts);
        count(self.lines.len() + self.held.len()) + on_disk
    }

    /// Drops what waits; `end` is the last place of the outbox. Returns how many items that are, those on disk among them.
    pub(in crate::delivery) fn purge(&mut self, end: u64, tell: oneshot::Sender<()>) -> (u64, Settled) {
        let waiting = self.waiting();
        let mut settled = Settled::default();
        while self.take_apart_any() {}
        while let Some(item) = self.lines.pop_oldest() {
            self.purge_item(item, &mut settled);
        }
        self.stops.purge(self.next_number, end, tell);
        self.end_purges();
        (waiting, settled)
    }

    /// Drops an item because an operator wants that, and tells nobody.
    pub(in crate::delivery) fn purge_item(&mut self, mut item: Item<R>, settled: &mut Settled) {
        settled.delivered.extend(item.on_failure.take());
        let is_kept = item.position.is_some();
        self.end(item, DropReason::Purged, "the queue was emptied".to_owned(), Fate::Drop, settled);
        if is_kept && let Some(ending) = self.ending.back_mut() {
            ending.is_heard = true;
        }
    }

    /// Tells those who wait for a purge, once all of it is out of the queue.
    pub(super) fn end_purges(&mut self) {
        if !self.stops.is_purging() {
            return;
        }
        let to = self.stops.purged_to();
        let is_read = self.backlog.as_ref().is_none_or(|backlog| !backlog.may_have_up_to(to));
        // What ended for other reasons may be among those that are being put away: then it takes a little longer.
        let is_put_away = self.burying.is_none_or(|items| items == 0)
            && self.ending.iter().all(|ending| ending.reason != DropReason::Purged);
        if is_read && is_put_away {
            self.stops.purged();
        }
    }

    /// How long until something is tried again, if it waits for a time.
    pub(super) fn next_attempt(&self, now: Instant) -> Option<Duration> {
        if self.stops.is_paused || self.waiting() == 0 {
            return None;
        }
        let is_ready = !self.lines.none_is_ready();
        let line = if is_ready { Some(now) } else { self.lines.delayed_until() };
        let at = earliest(line, self.held.next_due()).max(self.circuit.open_until())?;
        at.checked_duration_since(now).filter(|pause| !pause.is_zero())
    }
}
