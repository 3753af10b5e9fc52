//! Actions that an operator has paused: their queues go on taking requests and send none.
//!
//! A pause goes by the name `rule/action` and is kept where suspensions are: whoever stops an action that does harm expects it to
//! stay stopped over a restart, a reload and a change of its rule. One whose action is gone is kept too, since what its
//! outbox holds may still be sent; it can be let go at any time.

use std::collections::HashSet;
use std::sync::Arc;

use super::change::now_ms;
use super::error::BookError;
use super::journal::{Line, PauseRecord};
use super::{AUTHOR_CHARS_MAX, RuleBook, State, Suspension};
use crate::rules::queues::ActionEntry;

impl RuleBook {
    /// Actions in the order of their rules' and their own names, from behind `after` on, that `fits` takes; at most `limit`.
    /// Says whether there are more.
    #[must_use]
    pub fn actions(
        &self,
        after: Option<(&str, &str)>,
        limit: usize,
        mut fits: impl FnMut(&ActionEntry) -> bool,
    ) -> (Vec<ActionEntry>, bool) {
        let mut found = Vec::new();
        let mut has_more = false;
        self.pipeline.each_action(after, |entry| {
            let entry = self.with_pause(entry);
            if !fits(&entry) {
                return true;
            }
            has_more = found.len() == limit;
            if !has_more {
                found.push(entry);
            }
            !has_more
        });
        (found, has_more)
    }

    /// One action.
    ///
    /// # Errors
    /// [`BookError::NoAction`].
    pub fn action(&self, rule: &str, action: &str) -> Result<ActionEntry, BookError> {
        let entry = self.pipeline.action(rule, action);
        let entry = entry.ok_or_else(|| BookError::NoAction { action: format!("{rule}/{action}") })?;
        Ok(self.with_pause(entry))
    }

    fn with_pause(&self, mut entry: ActionEntry) -> ActionEntry {
        if entry.has_queue {
            entry.paused = self.state.lock().paused.get(&entry.full_name()).cloned();
        }
        entry
    }

    /// Has an action send nothing more until it is resumed. Returns whether it did.
    ///
    /// # Errors
    /// [`BookError`]; the action goes on then.
    pub fn pause_action(&self, rule: &str, action: &str, author: &str) -> Result<bool, BookError> {
        let name = format!("{rule}/{action}");
        let mut state = self.state.lock();
        let entry = self.pipeline.action(rule, action);
        let entry = entry.ok_or_else(|| BookError::NoAction { action: name.clone() })?;
        if !entry.has_queue {
            return Err(BookError::NoQueue { action: name });
        }
        if state.paused.contains_key(&name) {
            return Ok(false);
        }
        let by = author.chars().filter(|c| !c.is_control()).take(AUTHOR_CHARS_MAX).collect();
        let pause = Suspension { by, at_ms: now_ms() };
        state.keep_pause(&name, &pause, true)?;
        self.pipeline.pause(&name);
        tracing::info!(action = name, author, "action paused");
        state.paused.insert(name, pause);
        state.compact();
        Ok(true)
    }

    /// Lets it send again. Returns whether it was paused.
    ///
    /// # Errors
    /// [`BookError`]; the action stays paused then.
    pub fn resume_action(&self, rule: &str, action: &str, author: &str) -> Result<bool, BookError> {
        let name = format!("{rule}/{action}");
        let mut state = self.state.lock();
        if !state.paused.contains_key(&name) {
            let entry = self.pipeline.action(rule, action);
            return entry.map(|_| false).ok_or(BookError::NoAction { action: name });
        }
        let resumed = Suspension { by: author.to_owned(), at_ms: now_ms() };
        state.keep_pause(&name, &resumed, false)?;
        self.pipeline.resume(&name);
        tracing::info!(action = name, author, "action resumed");
        state.paused.remove(&name);
        state.compact();
        Ok(true)
    }
}

impl State {
    /// Takes up what a journal says.
    pub(super) fn take_up_pause(&mut self, PauseRecord { action, by, at_ms, paused }: PauseRecord) {
        if paused {
            self.paused.insert(action, Suspension { by, at_ms });
        } else {
            self.paused.remove(&action);
        }
    }

    /// The names of paused actions.
    pub(super) fn paused_names(&self) -> Arc<HashSet<String>> {
        Arc::new(self.paused.keys().cloned().collect())
    }

    fn keep_pause(&mut self, action: &str, pause: &Suspension, paused: bool) -> Result<(), BookError> {
        if let Some(journal) = &mut self.journal {
            journal.append(&pause_line(action, pause, paused))?;
        }
        Ok(())
    }
}

/// What the journal says of a pause.
pub(super) fn pause_line(action: &str, Suspension { by, at_ms }: &Suspension, paused: bool) -> Line {
    let pause = PauseRecord { action: action.to_owned(), by: by.clone(), at_ms: *at_ms, paused };
    Line { pauses: vec![pause], ..Line::default() }
}
