//! The dead letters of a store: found, sent again, dropped.
//!
//! Everything here goes through the letters in the order of their names and in bounded steps: a call reads at most
//! [`STEP_READ_MAX`] letters or [`STEP_BYTES_MAX`] bytes and says where it stopped, however many letters there are. The calls
//! wait for the disk: they belong on a thread that may.
//!
//! To send a letter again is one frame: the item in its outbox, with its message, and the letter settled. After a crash both
//! have happened or neither has. One caller at a time does so, so that two who want the same letter send it once.

use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;

use parking_lot::Mutex;
use store::{
    CommitToken, DurableStore, Position, QueueKey, Record, Store as _, StoreError, StoredDebt, StoredMessage,
    StoredQueue,
};

use super::name::rule_and_action;
use super::{DeadLetter, DeadLetterError, LetterName};
use crate::delivery::DropReason;

/// Most letters that one step reads.
pub const STEP_READ_MAX: usize = 4096;
/// Bytes of letters past which a step reads no more.
pub const STEP_BYTES_MAX: usize = 16 << 20;
/// Most letters that one step sends again or drops.
pub const STEP_CHANGES_MAX: usize = 256;
/// Most letters in memory at a time.
const READ_MAX: usize = 64;
/// Bytes of letters in memory past which no more are read.
const READ_BYTES_MAX: usize = 1 << 20;

/// The actions that run, as far as redrive needs them. Implemented by whoever runs them.
pub trait Outlets: Send + Sync {
    /// Whether an action runs whose queue is the outbox of this name.
    fn has(&self, outbox: &str) -> bool;

    /// An item was put at this place of that outbox.
    fn arrived(&self, outbox: &str, position: Position);
}

/// Which letters are meant. One that says nothing means all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Those of this rule.
    pub rule: Option<String>,
    /// Those of actions of this name.
    pub action: Option<String>,
    /// Those that ended for this reason.
    pub cause: Option<DropReason>,
    /// Those that ended then or later, milliseconds since the epoch.
    pub since_ms: Option<i64>,
    /// Those that ended before.
    pub until_ms: Option<i64>,
}

/// A letter as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundLetter {
    /// Its name.
    pub name: LetterName,
    /// What became of the request, or why that can't be read.
    pub letter: Result<DeadLetter, DeadLetterError>,
    /// The original message, where it was kept.
    pub message: Option<StoredMessage>,
}

/// What a step over many letters has done.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Step {
    /// Letters that were sent again or dropped.
    pub done: u64,
    /// Letters that are meant and can't be sent again; they stay.
    pub refused: Vec<(LetterName, String)>,
    /// The last letter that the step has seen, if there may be more behind it.
    pub next: Option<LetterName>,
    /// When this is safe, the step is.
    pub token: CommitToken,
}

/// Why a letter is neither sent again nor dropped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RedriveError {
    /// It isn't there, or not any more.
    #[error("there is no dead letter \"{name}\"")]
    Missing {
        /// Its name.
        name: LetterName,
    },
    /// No action of its name runs with a queue on disk.
    #[error("no action \"{outbox}\" runs that could send \"{name}\"")]
    NoAction {
        /// Its name.
        name: LetterName,
        /// `rule/action`.
        outbox: String,
    },
    /// It holds no request: none could be made of the message, or what was kept can't be read.
    #[error("\"{name}\" holds no request that could be sent")]
    NoRequest {
        /// Its name.
        name: LetterName,
    },
    /// What is to be sent instead can't be.
    #[error("\"{name}\" can't be sent again so: {why}")]
    Replacement {
        /// Its name.
        name: LetterName,
        /// In words.
        why: String,
    },
    /// The store takes nothing now.
    #[error("the store doesn't take it")]
    Store(#[from] StoreError),
    /// The letters can't be read.
    #[error("the dead letters can't be read")]
    Read(#[from] io::Error),
}

impl RedriveError {
    /// Whether the fault is this letter's, so that the next one may do better.
    fn is_of_the_letter(&self) -> bool {
        match self {
            Self::Missing { .. }
            | Self::NoAction { .. }
            | Self::NoRequest { .. }
            | Self::Replacement { .. } => true,
            Self::Store(error) => matches!(error, StoreError::TooLarge { .. }),
            Self::Read(_) => false,
        }
    }
}

/// What is sent instead of a letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replacement {
    /// The message that the request was made from. It has an identity of its own: the old one may be owed elsewhere.
    pub message: StoredMessage,
    /// Body of the outbox's item (see [`crate::delivery::outbox::Body`]).
    pub body: Vec<u8>,
}

/// The dead letters of a store. Cheap to clone; every clone is the same.
#[derive(Debug, Clone)]
pub struct DeadLetters {
    store: Arc<DurableStore>,
    /// Held while a letter is read and changed.
    changes: Arc<Mutex<()>>,
}

impl Filter {
    /// Whether letters of this outbox may be meant.
    fn takes_outbox(&self, outbox: &str) -> bool {
        let (rule, action) = rule_and_action(outbox);
        self.rule.as_deref().is_none_or(|wanted| wanted == rule)
            && self.action.as_deref().is_none_or(|wanted| wanted == action)
    }

    fn takes(&self, found: &FoundLetter) -> bool {
        // Of one that can't be read, only what the message tells is known.
        let (cause, ended_at_ms) = match &found.letter {
            Ok(letter) => (letter.cause.as_str(), letter.ended_at_ms),
            Err(_) => {
                (DropReason::Unreadable.as_str(), found.message.as_ref().map_or(0, |m| m.received_at_ms))
            }
        };
        self.cause.is_none_or(|wanted| wanted.as_str() == cause)
            && self.since_ms.is_none_or(|since| ended_at_ms >= since)
            && self.until_ms.is_none_or(|until| ended_at_ms < until)
    }
}

impl DeadLetters {
    /// Those of `store`.
    #[must_use]
    pub fn new(store: Arc<DurableStore>) -> Self {
        Self { store, changes: Arc::default() }
    }

    /// How many letters each action has, by `rule/action`; those that have any.
    #[must_use]
    pub fn counts(&self) -> Vec<(String, u64)> {
        let mut counts = Vec::new();
        self.store.for_each_queue_of_actions(|queue, letters| {
            if let StoredQueue::DeadLetters { namespace: 0, name } = queue
                && letters > 0
            {
                counts.push((name, letters));
            }
        });
        counts.sort_unstable();
        counts
    }

    /// How many letters are meant; `None` where the letters would have to be read for it: a cause or a time is named.
    #[must_use]
    pub fn count(&self, filter: &Filter) -> Option<u64> {
        let Filter { rule: _, action: _, cause: None, since_ms: None, until_ms: None } = filter else {
            return None;
        };
        let meant = self.counts().into_iter().filter(|(outbox, _)| filter.takes_outbox(outbox));
        Some(meant.map(|(_, letters)| letters).sum())
    }

    /// Hands letters that are meant to `each`, from behind `after` on, until it breaks, all were seen, or a step is full.
    /// Returns the last letter that was seen, if there may be more behind it.
    ///
    /// # Errors
    /// What the disk says.
    pub fn scan(
        &self,
        filter: &Filter,
        after: Option<&LetterName>,
        mut each: impl FnMut(FoundLetter) -> ControlFlow<()>,
    ) -> io::Result<Option<LetterName>> {
        let (mut read, mut bytes) = (0, 0);
        for (outbox, _) in self.counts() {
            let from = match after {
                Some(after) if outbox.as_str() < after.outbox() => continue,
                Some(after) if outbox == after.outbox() => after.position(),
                _ => 0,
            };
            if !filter.takes_outbox(&outbox) {
                continue;
            }
            let mut reader = self.store.reader(key(&outbox));
            let mut from = Position(from);
            loop {
                let debts = match reader.read(from, READ_MAX, READ_BYTES_MAX) {
                    // What waits for room isn't among the letters yet.
                    Err(error) if error.kind() == io::ErrorKind::StorageFull => break,
                    read => read?,
                };
                let Some(last) = debts.last() else { break };
                from = last.position;
                for debt in debts {
                    read += 1;
                    bytes += size(&debt);
                    let found = found(&outbox, debt);
                    let name = found.name.clone();
                    if (filter.takes(&found) && each(found).is_break())
                        || read >= STEP_READ_MAX
                        || bytes >= STEP_BYTES_MAX
                    {
                        return Ok(Some(name));
                    }
                }
            }
        }
        Ok(None)
    }

    /// The letter of this name.
    ///
    /// # Errors
    /// What the disk says.
    pub fn find(&self, name: &LetterName) -> io::Result<Option<FoundLetter>> {
        let before = Position(name.position().saturating_sub(1));
        let debts = self.store.reader(key(name.outbox())).read(before, 1, READ_BYTES_MAX)?;
        let debt = debts.into_iter().find(|debt| debt.position.0 == name.position());
        Ok(debt.map(|debt| found(name.outbox(), debt)))
    }

    /// Sends a letter again: under the identity that it had, its age counting from `now_ms`. It is sent when the token is
    /// safe.
    ///
    /// # Errors
    /// [`RedriveError`]; the letter stays as it is.
    pub fn redrive(
        &self,
        name: &LetterName,
        outlets: &dyn Outlets,
        now_ms: i64,
    ) -> Result<CommitToken, RedriveError> {
        let _changing = self.changes.lock();
        let found = self.find(name)?.ok_or_else(|| RedriveError::Missing { name: name.clone() })?;
        self.send_again(&found, outlets, now_ms)
    }

    /// Sends something else instead of a letter, as `make` makes it of the letter: in one frame it is owed and the letter
    /// settled. It is sent when the token is safe.
    ///
    /// # Errors
    /// [`RedriveError`]; the letter stays as it is. What `make` says becomes [`RedriveError::Replacement`].
    pub fn replace(
        &self,
        name: &LetterName,
        outlets: &dyn Outlets,
        make: impl FnOnce(&FoundLetter) -> Result<Replacement, String>,
    ) -> Result<CommitToken, RedriveError> {
        let _changing = self.changes.lock();
        let found = self.find(name)?.ok_or_else(|| RedriveError::Missing { name: name.clone() })?;
        if !outlets.has(name.outbox()) {
            return Err(RedriveError::NoAction { name: name.clone(), outbox: name.outbox().to_owned() });
        }
        let Replacement { message, body } =
            make(&found).map_err(|why| RedriveError::Replacement { name: name.clone(), why })?;
        self.owe_instead(name, Some(&message), &body, outlets)
    }

    /// Drops a letter.
    ///
    /// # Errors
    /// [`RedriveError`]; the letter stays as it is.
    pub fn drop_letter(&self, name: &LetterName) -> Result<CommitToken, RedriveError> {
        let _changing = self.changes.lock();
        let found = self.find(name)?.ok_or_else(|| RedriveError::Missing { name: name.clone() })?;
        Ok(self.store.append(&[settled(&found.name)])?)
    }

    /// Sends the letters that are meant again, from behind `after` on, in one step. Letters that fail anew come back behind
    /// the others, so a caller who means to see each once names a time before which they ended.
    ///
    /// # Errors
    /// [`RedriveError`] when nothing could be done; what was done before an error is a step of its own.
    pub fn redrive_step(
        &self,
        filter: &Filter,
        after: Option<&LetterName>,
        outlets: &dyn Outlets,
        now_ms: i64,
    ) -> Result<Step, RedriveError> {
        self.step(filter, after, |found, step| match self.send_again(found, outlets, now_ms) {
            Ok(token) => {
                step.done += 1;
                step.token = token;
                Ok(())
            }
            Err(error) if error.is_of_the_letter() => {
                step.refused.push((found.name.clone(), error.to_string()));
                Ok(())
            }
            Err(error) => Err(error),
        })
    }

    /// Drops the letters that are meant, from behind `after` on, in one step.
    ///
    /// # Errors
    /// As [`DeadLetters::redrive_step`].
    pub fn drop_step(&self, filter: &Filter, after: Option<&LetterName>) -> Result<Step, RedriveError> {
        self.step(filter, after, |found, step| {
            step.token = self.store.append(&[settled(&found.name)])?;
            step.done += 1;
            Ok(())
        })
    }

    fn step(
        &self,
        filter: &Filter,
        after: Option<&LetterName>,
        mut change: impl FnMut(&FoundLetter, &mut Step) -> Result<(), RedriveError>,
    ) -> Result<Step, RedriveError> {
        let _changing = self.changes.lock();
        let mut step = Step::default();
        let mut failed = None;
        let mut seen = after.cloned();
        let next = self.scan(filter, after, |found| {
            if let Err(error) = change(&found, &mut step) {
                failed = Some(error);
                return ControlFlow::Break(());
            }
            seen = Some(found.name);
            let changes = usize::try_from(step.done).unwrap_or(usize::MAX).saturating_add(step.refused.len());
            if changes < STEP_CHANGES_MAX { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        let next = match (next, failed) {
            (Ok(next), None) => next,
            (Err(error), _) if step.done == 0 => return Err(error.into()),
            (_, Some(error)) if step.done == 0 => return Err(error),
            // The rest is the next step's, which meets the error first thing.
            _ => seen,
        };
        step.next = next;
        Ok(step)
    }

    fn send_again(
        &self,
        found: &FoundLetter,
        outlets: &dyn Outlets,
        now_ms: i64,
    ) -> Result<CommitToken, RedriveError> {
        let FoundLetter { name, letter, message } = found;
        let outbox = name.outbox();
        let request = letter.as_ref().ok().and_then(|letter| letter.request_again(now_ms));
        let body = request.ok_or_else(|| RedriveError::NoRequest { name: name.clone() })?;
        if !outlets.has(outbox) {
            return Err(RedriveError::NoAction { name: name.clone(), outbox: outbox.to_owned() });
        }
        self.owe_instead(name, message.as_ref(), &body, outlets)
    }

    /// Has an item be owed and a letter settled, in one frame.
    fn owe_instead(
        &self,
        name: &LetterName,
        message: Option<&StoredMessage>,
        body: &[u8],
        outlets: &dyn Outlets,
    ) -> Result<CommitToken, RedriveError> {
        let outbox = name.outbox();
        let queue = QueueKey::Outbox { namespace: 0, name: outbox };
        let id = message.map(|message| message.id);
        let mut records = Vec::with_capacity(3);
        records.extend(message.map(|message| Record::Message(message.as_record())));
        records.push(Record::Queued { queue, id, body });
        records.push(settled(name));
        let mut positions = Vec::new();
        let token = self.store.append_debts(&records, &mut positions)?;
        if let Some(position) = positions.first() {
            outlets.arrived(outbox, *position);
        }
        Ok(token)
    }
}

fn key(outbox: &str) -> QueueKey<'_> {
    QueueKey::DeadLetters { namespace: 0, name: outbox }
}

fn settled(name: &LetterName) -> Record<'_> {
    Record::Settled { queue: key(name.outbox()), position: Position(name.position()) }
}

fn found(outbox: &str, debt: StoredDebt) -> FoundLetter {
    FoundLetter {
        name: LetterName::new(outbox, debt.position.0),
        letter: DeadLetter::decode(&debt.body),
        message: debt.message,
    }
}

fn size(debt: &StoredDebt) -> usize {
    let message = debt.message.as_ref();
    debt.body.len() + message.map_or(0, |m| m.payload.len() + m.properties.len() + m.topic.len())
}

#[cfg(test)]
mod tests;
