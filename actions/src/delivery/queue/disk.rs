//! The part of a queue that is on disk: what is told of, read, trimmed and put away there.

use tokio::time::Instant;

use super::{BURY_MAX, LETTERS_PAUSE, Queue, Step, count};
use crate::config::{Drain, Kept, Overflow};
use crate::delivery::Outgoing;
use crate::delivery::burial::{Buried, Ending, Fate};
use crate::delivery::counters::DropReason;
use crate::delivery::item::{Item, Key, Settled};
use crate::delivery::lines::LATER;
use crate::delivery::outbox::{Backlog, HEAD_BYTES_MAX, HEAD_ITEMS_MAX, READ_PAUSE, Read};
use crate::outlet::QueuedRequest;

/// What is left to the disk.
pub(in crate::delivery) struct Left<R> {
    /// What came now.
    outgoing: Option<Outgoing<R>>,
    /// What gave way to it.
    items: Vec<Item<R>>,
}

impl<R: QueuedRequest> Queue<R> {
    /// A queue that begins with `backlog` on disk.
    pub(in crate::delivery) fn durable(mut self, backlog: u64) -> Self {
        self.counters.queued_at_start = backlog;
        self.backlog = Some(Backlog::new(backlog));
        self.bounds = self.config.queue.bounds(Kept::OnDisk);
        self
    }

    /// Takes an item that has this place in the outbox, or leaves it there. Returns what is in memory no more, to be dropped
    /// where no lock is held.
    pub(in crate::delivery) fn placed(
        &mut self,
        position: u64,
        outgoing: Outgoing<R>,
        now: Instant,
    ) -> Left<R> {
        self.counters.received += 1;
        let mut left = Left { outgoing: None, items: Vec::new() };
        let is_open = self.closes_at.is_none() && !self.is_finished;
        let drain = self.config.queue.drain;
        if is_open && drain == Drain::LiveFirst {
            self.make_room_in_head(&mut left.items);
        }
        let has_room = is_open && self.has_room_in_head();
        if self.backlog.as_mut().is_some_and(|backlog| !backlog.told(position, has_room, drain)) {
            left.outgoing = Some(outgoing);
            return left;
        }
        let item = self.item(outgoing, now, Some(position), None);
        self.bytes += item.bytes;
        if self.stops.has_purged_place(position) {
            // Whoever would be told isn't.
            self.purge_item(item, &mut Settled::default());
        } else {
            self.lines.push_back(item);
        }
        left
    }

    /// Puts items out of memory that are older than one that comes now: first what was read from the disk, the last of it first,
    /// so that the order of the rest stands, then what has waited longest.
    fn make_room_in_head(&mut self, left: &mut Vec<Item<R>>) {
        while !self.has_room_in_head()
            && let Some(backlog) = &mut self.backlog
            && backlog.can_forget()
            && let Some(item) = self.lines.pop_for_newer()
        {
            self.bytes = self.bytes.saturating_sub(item.bytes);
            if let Some(position) = item.position {
                backlog.forget(position);
            }
            left.push(item);
        }
    }

    /// Hears of an item that is to be read from the outbox.
    pub(in crate::delivery) fn arrived(&mut self, position: u64) {
        self.counters.received += 1;
        if let Some(backlog) = &mut self.backlog {
            // Without room it is left on disk.
            backlog.told(position, false, self.config.queue.drain);
        }
    }

    /// Takes what was read from the outbox.
    pub(in crate::delivery) fn loaded(&mut self, read: Vec<Read<R>>, now: Instant) {
        let found_any = !read.is_empty();
        for Read { position, id, age, replayed, trace, decoded } in read {
            if self.backlog.as_mut().is_some_and(|backlog| !backlog.found(position)) {
                continue;
            }
            let Some((key, request)) = decoded else {
                self.ending.push_back(Ending {
                    position,
                    id,
                    reason: DropReason::Unreadable,
                    error: "what the outbox kept of it can't be read".to_owned(),
                    attempts: 0,
                    first_attempt: None,
                    fate: Fate::DeadLetter,
                    is_heard: false,
                });
                continue;
            };
            let arrived_at = now.checked_sub(age).unwrap_or(now);
            let outgoing = Outgoing { trace, ..Outgoing::new(id, key, request) };
            let mut item = self.item(outgoing, arrived_at, Some(position), replayed);
            if self.config.queue.drain == Drain::LiveFirst {
                item.number += LATER;
                item.key = key.map_or(Key::Own(item.number), Key::Later);
            }
            self.bytes += item.bytes;
            if self.stops.has_purged_place(position) {
                self.purge_item(item, &mut Settled::default());
            } else {
                self.lines.push_back(item);
            }
        }
        if let Some(backlog) = &mut self.backlog {
            backlog.end_read(found_any);
        }
    }

    /// Takes back what was to be put away, with what became of it, and how many dead letters gave way.
    pub(in crate::delivery) fn buried(&mut self, buried: Vec<Buried>, letters_dropped: u64, now: Instant) {
        self.burying = None;
        self.counters.letters_dropped += letters_dropped;
        for buried in buried.into_iter().rev() {
            match buried {
                Buried::DeadLetter(reason) => self.counters.dead_letter_one(reason),
                Buried::Dropped(reason) => self.counters.drop_one(reason),
                Buried::Again(ending) => {
                    self.bury_at = now + READ_PAUSE;
                    self.ending.push_front(ending);
                }
            }
        }
    }

    /// What was to be put away is left to the disk and the next start.
    pub(in crate::delivery) fn burial_failed(&mut self) {
        let burying = self.burying.take().unwrap_or(0);
        if let Some(backlog) = &mut self.backlog {
            (0..burying).for_each(|_| backlog.leave());
        }
    }

    /// An item was put among the dead letters, or dropped, before it had a place in the outbox.
    pub(in crate::delivery) fn ended_early(&mut self, reason: DropReason, fate: Fate) {
        self.counters.received += 1;
        match fate {
            Fate::DeadLetter => self.counters.dead_letter_one(reason),
            Fate::Drop => self.counters.drop_one(reason),
        }
    }

    /// Whether something waits to be put away and may not be just now.
    #[cfg(test)]
    pub(in crate::delivery) fn bury_is_put_off(&self, now: Instant) -> bool {
        !self.ending.is_empty() && self.bury_at > now
    }

    /// Whether something is being put away, or dead letters are looked through or about to be.
    #[cfg(test)]
    pub(in crate::delivery) fn is_burying(&self) -> bool {
        self.burying.is_some() || self.letters_at <= Instant::now()
    }

    /// Drops the oldest items of an outbox that has so many items and bytes, as far as its policy and its bounds say so
    /// and they are in memory. Returns whether there was any.
    pub(in crate::delivery) fn trim(&mut self, items: u64, bytes: u64) -> bool {
        if self.bounds.overflow != Overflow::DropOldest {
            return false;
        }
        let ended = count(self.ended());
        let average = bytes / items.max(1);
        let items = items.saturating_sub(ended);
        let bytes = bytes.saturating_sub(ended.saturating_mul(average));
        let too_many = items.saturating_sub(count(self.bounds.max_items));
        let too_large = bytes.saturating_sub(self.bounds.max_bytes).div_ceil(average.max(1));
        let mut trimmed = false;
        for _ in 0..too_many.max(too_large) {
            let Some(item) = self.lines.pop_oldest() else { break };
            trimmed = true;
            let text = self.full_text();
            // Whatever is told is told when it is put away.
            self.end(item, DropReason::QueueFull, text, Fate::Drop, &mut Settled::default());
        }
        trimmed
    }

    /// The outbox could not be read.
    pub(in crate::delivery) fn load_failed(&mut self, until: Instant) {
        if let Some(backlog) = &mut self.backlog {
            backlog.fail_read(until);
        }
    }

    /// Counts what the store has lost, given how many items it still has.
    pub(in crate::delivery) fn count_lost(&mut self, on_disk: u64) {
        let in_memory = count(self.in_memory());
        let lost = self.backlog.as_mut().map_or(0, |backlog| backlog.lost(on_disk, in_memory));
        (0..lost).for_each(|_| self.counters.drop_one(DropReason::Lost));
    }

    fn has_room_in_head(&self) -> bool {
        let heads = match self.config.queue.drain {
            Drain::OldestFirst => 1,
            Drain::LiveFirst => 2,
        };
        self.in_memory() < HEAD_ITEMS_MAX * heads && self.bytes < HEAD_BYTES_MAX * heads
    }

    /// What is to be put away now, if anything.
    pub(super) fn begin_burial(&mut self, now: Instant) -> Option<Step<R>> {
        let has_endings = !self.ending.is_empty() && self.bury_at <= now;
        let looks_through = self.letters_at <= now && self.closes_at.is_none();
        if self.backlog.is_none() || self.burying.is_some() || !(has_endings || looks_through) {
            return None;
        }
        let endings: Vec<Ending> = if has_endings {
            self.ending.drain(..self.ending.len().min(BURY_MAX)).collect()
        } else {
            Vec::new()
        };
        self.letters_at = now + LETTERS_PAUSE;
        self.burying = Some(endings.len());
        Some(Step::Bury(endings, self.bounds.dead_letters))
    }
}
