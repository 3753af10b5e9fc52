//! What is done with the dead letters of a store.
//!
//! What concerns many letters does a bounded step and says behind which letter to go on, so that no answer is long, no connection
//! is held for long, and whoever asks can be interrupted at any time. There is one of it for all who ask: of two who
//! want the same letter, one gets it.

use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use actions::dead_letters::{DeadLetters, Filter, LetterName, Outlets, RedriveError, Replacement, Step};
use store::{CommitToken, DurableStore, MessageId, Store as _, StoreError, StoredMessage};
use tokio::time::timeout;

use super::view::{Letter, WholeLetter};
use crate::api::auth::now_ms;
use crate::api::problem::{Kind, Problem};
use crate::rules::RulePipeline;

/// Bytes of letters past which a page has no more.
pub(super) const LIST_BYTES_MAX: usize = 1 << 20;
/// How long an answer waits for the disk.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(30);

/// The dead letters of a store, and the actions that can send them again.
pub(in crate::api) struct Letters {
    store: Arc<DurableStore>,
    letters: DeadLetters,
    outlets: Arc<dyn Outlets>,
}

/// Which letters a change is asked for.
pub(super) enum Meant {
    /// The one of this name.
    Named(LetterName),
    /// Those of a filter, from behind a letter on.
    Of(Filter, Option<LetterName>),
}

/// What of a letter's message is mended; `None`: it stays.
#[derive(Debug, Clone, Default)]
pub(super) struct Mended {
    pub(super) payload: Option<Vec<u8>>,
    pub(super) topic: Option<String>,
}

/// What is done to letters.
#[derive(Debug, Clone, Copy)]
pub(super) enum Verb {
    Redrive,
    Drop,
}

impl fmt::Debug for Letters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Letters").finish_non_exhaustive()
    }
}

impl Letters {
    pub(in crate::api) fn new(store: &Arc<DurableStore>, outlets: Arc<dyn Outlets>) -> Self {
        Self { store: Arc::clone(store), letters: DeadLetters::new(Arc::clone(store)), outlets }
    }

    /// Letters from behind `after` on, at most `limit`, and the one behind which there may be more. It blocks on the disk, as all
    /// but [`Letters::safe`] does.
    pub(super) fn list(
        &self,
        filter: &Filter,
        after: Option<&LetterName>,
        limit: usize,
    ) -> Result<(Vec<Letter>, Option<LetterName>), Problem> {
        let mut letters = Vec::new();
        let mut bytes = 0;
        let scanned = self.letters.scan(filter, after, |found| {
            let letter = Letter::of(&found);
            bytes += letter.bytes();
            letters.push(letter);
            if letters.len() < limit && bytes < LIST_BYTES_MAX {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        });
        let next = scanned.map_err(|error| problem(&RedriveError::Read(error)))?;
        Ok((letters, next))
    }

    /// How many letters a filter means; `None`: that takes reading them.
    pub(super) fn count(&self, filter: &Filter) -> Option<u64> {
        self.letters.count(filter)
    }

    /// All of a letter.
    pub(super) fn show(&self, name: &LetterName) -> Result<WholeLetter, Problem> {
        let found = self.letters.find(name).map_err(|error| problem(&RedriveError::Read(error)))?;
        let missing = || problem(&RedriveError::Missing { name: name.clone() });
        found.as_ref().map(WholeLetter::of).ok_or_else(missing)
    }

    /// Changes the letters that are meant, a bounded number of them. It isn't done before its token is [safe](Letters::safe).
    pub(super) fn step(&self, verb: Verb, meant: &Meant) -> Result<Step, Problem> {
        let outlets = &*self.outlets;
        let one = |token: CommitToken| Step { done: 1, token, ..Step::default() };
        let step = match (verb, meant) {
            (Verb::Redrive, Meant::Named(name)) => self.letters.redrive(name, outlets, now_ms()).map(one),
            (Verb::Drop, Meant::Named(name)) => self.letters.drop_letter(name).map(one),
            (Verb::Redrive, Meant::Of(filter, after)) => {
                self.letters.redrive_step(filter, after.as_ref(), outlets, now_ms())
            }
            (Verb::Drop, Meant::Of(filter, after)) => self.letters.drop_step(filter, after.as_ref()),
        };
        step.map_err(|error| problem(&error))
    }

    /// Has an action owe what its rule makes of a mended message, instead of a letter. `id` is the message's new identity. It
    /// isn't done before its token is [safe](Letters::safe).
    pub(super) fn redrive_mended(
        &self,
        name: &LetterName,
        mended: Mended,
        id: MessageId,
        rules: &RulePipeline,
    ) -> Result<CommitToken, Problem> {
        let replaced = self.letters.replace(name, &*self.outlets, |found| {
            let (Ok(letter), Some(message)) = (&found.letter, &found.message) else {
                return Err("its message can't be read, or wasn't kept".to_owned());
            };
            let Mended { payload, topic } = mended;
            let message = StoredMessage {
                id,
                topic: topic.unwrap_or_else(|| message.topic.clone()),
                payload: payload.unwrap_or_else(|| message.payload.clone()),
                ..message.clone()
            };
            let body = rules.owed_for(name.outbox(), &message, letter, now_ms())?;
            Ok(Replacement { message, body })
        });
        replaced.map_err(|error| problem(&error))
    }

    /// Waits until what was appended is on disk, or never will be.
    pub(super) async fn safe(&self, token: CommitToken) -> Result<(), Problem> {
        let committed = std::future::poll_fn(|context| {
            // First, so that a failure wakes: a store that has failed before wakes nobody.
            self.store.wake_when_committed(token, context.waker());
            if self.store.committed() >= token {
                Poll::Ready(Ok(()))
            } else if self.store.has_failed() {
                Poll::Ready(Err(problem(&RedriveError::Store(StoreError::Failed))))
            } else {
                Poll::Pending
            }
        });
        timeout(COMMIT_TIMEOUT, committed).await.unwrap_or_else(|_| {
            let seconds = COMMIT_TIMEOUT.as_secs();
            let detail = format!("the store has not confirmed it within {seconds} seconds");
            Err(Problem::new(Kind::Unavailable, detail))
        })
    }
}

fn problem(error: &RedriveError) -> Problem {
    let kind = match error {
        RedriveError::Missing { .. } => Kind::Missing,
        RedriveError::Store(_) => Kind::Unavailable,
        RedriveError::Read(_) => Kind::Internal,
        _ => Kind::Conflict,
    };
    Problem::new(kind, crate::cli::chain(error))
}
