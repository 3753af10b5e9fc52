//! What becomes of items of an outbox that end without being delivered.
//!
//! An item that ended for good is read once more from the outbox, which has the original message too, and leaves it in one
//! frame: the message, the dead letter, what an error action with a queue on disk is owed, and the end of the item. So after
//! a crash it is in one place or the other, never in both or in none. An error action that has no queue is run first, and the
//! item leaves when that is safe: after a crash in between it is run again. Until then the item counts as queued. An item that a policy
//! drops takes the same way without a letter; it is read only if somebody wants to hear of it.
//!
//! Dead letters of an action stay within their bounds: the oldest go first.

use std::fmt;
use std::io;
use std::sync::Arc;

use store::{Position, QueueKey, Record, Store as _, StoreError, StoredDebt, StoredMessage};
use tokio::time::Instant;

use super::outbox::{Body, Outbox, wall_clock_ms};
use super::{DropReason, ItemId};
use crate::config::DeadLettersConfig;
use crate::dead_letters::DeadLetter;

/// Most items or dead letters that are read at once.
const READ_MAX: usize = 64;
/// Bytes of them past which no more are read at once.
const READ_BYTES_MAX: usize = 1 << 20;

/// What is left of an item that ended without being delivered.
#[derive(Debug)]
pub(super) struct Ending {
    pub(super) position: u64,
    pub(super) id: ItemId,
    pub(super) reason: DropReason,
    pub(super) error: String,
    pub(super) attempts: u32,
    pub(super) first_attempt: Option<Instant>,
    pub(super) fate: Fate,
    /// Whoever wants to hear of it has heard, and has seen to it for good.
    pub(super) is_heard: bool,
}

/// What becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is kept for somebody to look at.
    DeadLetter,
    /// It is gone.
    Drop,
}

/// What became of an [`Ending`].
#[derive(Debug)]
pub(super) enum Buried {
    DeadLetter(DropReason),
    Dropped(DropReason),
    /// The store or the disk refused: it is still in the outbox.
    Again(Ending),
}

/// Hears of items of outboxes that end without being delivered. Called where waiting for a disk is allowed.
pub trait Endings: fmt::Debug + Send + Sync + 'static {
    /// Whether it wants to hear of the items of this outbox that are dropped.
    fn wants(&self, outbox: &str) -> bool;

    /// An item is about to leave its outbox. It may be asked again if the store refuses the frame with which it does.
    fn ended(&self, ended: &Ended<'_>) -> Heard;
}

/// What comes of the end of an item.
#[derive(Debug)]
pub enum Heard {
    /// Nothing.
    Nothing,
    /// This, in the frame with which the item leaves its outbox.
    Owed(Aftermath),
    /// It has been done and is safe: this process doesn't ask again.
    Done,
    /// It can't be done now: the item stays where it is until it can.
    Later,
}

/// An item of an outbox that ended without being delivered.
#[derive(Debug, Clone, Copy)]
pub struct Ended<'a> {
    /// Name of the outbox, `rule/action`.
    pub outbox: &'a str,
    /// Why it ended.
    pub reason: DropReason,
    /// The last error in words.
    pub error: &'a str,
    /// The message that it was made from, if the store has it.
    pub message: Option<&'a StoredMessage>,
    /// What the caller knew of the message beside that.
    pub origin: &'a [u8],
}

/// What the end of an item has for a consequence.
pub struct Aftermath {
    /// What an action is owed: the name of its outbox, and the body.
    pub debt: Option<(Arc<str>, Vec<u8>)>,
    /// Called once the item is out of the outbox, with the place of the debt, if there is one. Must not block.
    pub then: Box<dyn FnOnce(Position) + Send>,
}

impl fmt::Debug for Aftermath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Aftermath")
            .field("outbox", &self.debt.as_ref().map(|(name, _)| name))
            .finish_non_exhaustive()
    }
}

impl Outbox {
    /// Puts items away. Waits for the disk.
    pub(super) fn bury(&self, endings: Vec<Ending>) -> Vec<Buried> {
        let mut out = Vec::with_capacity(endings.len());
        let mut is_stuck = false;
        let mut found = Vec::new();
        for mut ending in endings {
            if is_stuck {
                out.push(Buried::Again(ending));
                continue;
            }
            match self.bury_one(&mut ending, &mut found) {
                Ok(buried) => out.push(buried),
                Err(error) => {
                    tracing::warn!(action = &**self.name(), %error, "what ended can't leave the outbox yet");
                    is_stuck = true;
                    out.push(Buried::Again(ending));
                }
            }
        }
        out
    }

    /// Puts away everything that the outbox holds. Nobody else may send from it meanwhile. Returns how many items that
    /// were. Waits for the disk.
    ///
    /// # Errors
    /// What the disk or the store says; what is left stays.
    pub fn put_all_away(&self, fate: Fate) -> io::Result<u64> {
        let mut after = Position::NOWHERE;
        let mut put_away = 0;
        loop {
            let found = self.grave_reader.lock().read(after, READ_MAX, READ_BYTES_MAX)?;
            let Some(last) = found.last() else { return Ok(put_away) };
            after = last.position;
            let endings = found.iter().map(|debt| {
                let own =
                    ItemId { store: self.store.identity().id, epoch: debt.epoch, sequence: debt.position.0 };
                Ending {
                    position: debt.position.0,
                    id: Body::decode(&debt.body).and_then(|body| body.identity).unwrap_or(own),
                    reason: DropReason::Removed,
                    error: "the action was removed".to_owned(),
                    attempts: 0,
                    first_attempt: None,
                    fate,
                    is_heard: false,
                }
            });
            for buried in self.bury(endings.collect()) {
                if matches!(buried, Buried::Again(_)) {
                    return Err(io::Error::other("the store takes no dead letters now"));
                }
                put_away += 1;
            }
        }
    }

    /// `found` is what was read of the outbox so far: what ends together mostly stands together.
    fn bury_one(&self, ending: &mut Ending, found: &mut Vec<StoredDebt>) -> Result<Buried, BurialError> {
        let position = Position(ending.position);
        let hears = self.endings.as_ref().filter(|endings| endings.wants(self.name()));
        if ending.fate == Fate::Drop && (hears.is_none() || ending.is_heard) {
            self.store.append(&[Record::Settled { queue: self.key(), position }])?;
            return Ok(Buried::Dropped(ending.reason));
        }
        if !found.iter().any(|debt| debt.position == position) {
            let before = Position(ending.position.saturating_sub(1));
            *found = self.grave_reader.lock().read(before, READ_MAX, READ_BYTES_MAX)?;
        }
        let Some(place) = found.iter().position(|debt| debt.position == position) else {
            return Ok(Buried::Dropped(DropReason::Lost));
        };
        let debt = found.swap_remove(place);
        let ended = Ended {
            outbox: self.name(),
            reason: ending.reason,
            error: &ending.error,
            message: debt.message.as_ref(),
            origin: Body::decode(&debt.body).map(|body| body.origin).unwrap_or_default(),
        };
        let heard = match &self.endings {
            Some(endings) if !ending.is_heard => endings.ended(&ended),
            _ => Heard::Nothing,
        };
        let aftermath = match heard {
            Heard::Nothing => None,
            Heard::Owed(aftermath) => Some(aftermath),
            Heard::Done => {
                ending.is_heard = true;
                None
            }
            Heard::Later => return Err(BurialError::Later),
        };
        let letter = (ending.fate == Fate::DeadLetter).then(|| letter(ending, &debt));
        let place = self.put_away(&debt, letter.as_deref(), aftermath.as_ref());
        let (place, buried) = match (place, ending.fate) {
            (Err(StoreError::TooLarge { size, limit }), _) => {
                let action = &**self.name();
                tracing::error!(action, size, limit, "a dead letter is too large for the store: it is lost");
                (self.put_away(&debt, None, None)?, Buried::Dropped(ending.reason))
            }
            (place, Fate::DeadLetter) => (place?, Buried::DeadLetter(ending.reason)),
            (place, Fate::Drop) => (place?, Buried::Dropped(ending.reason)),
        };
        if let Some(aftermath) = aftermath {
            (aftermath.then)(place);
        }
        Ok(buried)
    }

    /// Writes the frame, and returns the place of the aftermath's debt.
    fn put_away(
        &self,
        debt: &StoredDebt,
        letter: Option<&[u8]>,
        aftermath: Option<&Aftermath>,
    ) -> Result<Position, StoreError> {
        let owed = aftermath.and_then(|aftermath| aftermath.debt.as_ref());
        let id = debt.message.as_ref().map(|message| message.id);
        let mut records = Vec::with_capacity(4);
        if letter.is_some() || owed.is_some() {
            records.extend(debt.message.as_ref().map(|message| Record::Message(message.as_record())));
        }
        if let Some((name, body)) = owed {
            records.push(Record::Queued { queue: QueueKey::Outbox { namespace: 0, name }, id, body });
        }
        if let Some(body) = letter {
            records.push(Record::Queued { queue: self.letters(), id, body });
        }
        records.push(Record::Settled { queue: self.key(), position: debt.position });
        let mut positions = Vec::new();
        self.store.append_debts(&records, &mut positions)?;
        Ok(owed.and_then(|_| positions.first().copied()).unwrap_or(Position::NOWHERE))
    }

    /// Drops what is too much or too old among the dead letters; returns how many that were. Waits for the disk.
    pub(super) fn trim_letters(&self, bounds: &DeadLettersConfig) -> io::Result<u64> {
        let max_items = u64::try_from(bounds.max_items).unwrap_or(u64::MAX);
        let max_age_ms = i64::try_from(bounds.max_age.as_millis()).unwrap_or(i64::MAX);
        let mut dropped = 0;
        loop {
            let (mut items, mut bytes) = self.store.queue_size(self.letters());
            if items == 0 {
                return Ok(dropped);
            }
            let average = bytes / items;
            let oldest = self.letters_reader.lock().read(Position::NOWHERE, READ_MAX, READ_BYTES_MAX)?;
            let too_old_ms = wall_clock_ms().saturating_sub(max_age_ms);
            let mut records = Vec::new();
            for found in oldest {
                let ended_at_ms =
                    DeadLetter::decode(&found.body).map_or(i64::MAX, |letter| letter.ended_at_ms);
                if items <= max_items && bytes <= bounds.max_bytes && ended_at_ms > too_old_ms {
                    break;
                }
                records.push(Record::Settled { queue: self.letters(), position: found.position });
                items = items.saturating_sub(1);
                bytes = bytes.saturating_sub(average);
            }
            if records.is_empty() {
                return Ok(dropped);
            }
            dropped += u64::try_from(records.len()).unwrap_or(u64::MAX);
            self.store.append(&records).map_err(io::Error::other)?;
        }
    }

    /// The body of a dead letter for a request that has no place in the outbox.
    pub(crate) fn letter_of(
        message: ItemId,
        received_at_ms: i64,
        reason: DropReason,
        error: &str,
        request: Vec<u8>,
    ) -> Vec<u8> {
        // An item's identity is its place in the outbox. This one never had any, so it gets one that no place can have.
        let item = ItemId { sequence: message.sequence | 1 << 63, ..message };
        let letter = DeadLetter {
            item,
            cause: reason.as_str().to_owned(),
            error: error.to_owned(),
            attempts: 0,
            received_at_ms,
            first_attempt_at_ms: None,
            ended_at_ms: wall_clock_ms(),
            request,
        };
        let mut body = Vec::new();
        letter.encode(&mut body);
        body
    }

    fn letters(&self) -> QueueKey<'_> {
        QueueKey::DeadLetters { namespace: 0, name: self.name() }
    }
}

#[derive(Debug, thiserror::Error)]
enum BurialError {
    #[error("the outbox can't be read: {0}")]
    Read(#[from] io::Error),
    #[error("the store doesn't take it: {0}")]
    Store(#[from] StoreError),
    #[error("what it sets off can't be done yet")]
    Later,
}

fn letter(ending: &Ending, debt: &StoredDebt) -> Vec<u8> {
    let now_ms = wall_clock_ms();
    let ago = |then: Instant| i64::try_from(then.elapsed().as_millis()).unwrap_or(i64::MAX);
    let letter = DeadLetter {
        item: ending.id,
        cause: ending.reason.as_str().to_owned(),
        error: ending.error.clone(),
        attempts: ending.attempts,
        received_at_ms: debt.message.as_ref().map_or(now_ms, |message| message.received_at_ms),
        first_attempt_at_ms: ending.first_attempt.map(|then| now_ms.saturating_sub(ago(then))),
        ended_at_ms: now_ms,
        request: debt.body.clone(),
    };
    let mut body = Vec::new();
    letter.encode(&mut body);
    body
}
