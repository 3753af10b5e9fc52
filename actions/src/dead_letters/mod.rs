//! Dead letters: requests whose delivery ended for good, kept for somebody to look at and to send again.
//!
//! A dead letter is a debt of the store's queue [`store::QueueKey::DeadLetters`] of its action, `rule/action`. The frame that
//! writes it holds the original message as [`store::Record::Message`], so that topic, payload, publisher, properties, QoS and
//! time come back with it; its body is a [`DeadLetter`]: what became of the request, and the request as the outbox kept it.
//! [`DeadLetters`] finds them, sends them again and drops them.

mod codec;
mod name;
mod shelf;
#[cfg(test)]
mod tests;

pub use codec::{CAUSE_BYTES_MAX, DeadLetter, DeadLetterError, ERROR_BYTES_MAX};
pub use name::{LetterName, LetterNameError};
pub use shelf::{
    DeadLetters, Filter, FoundLetter, Outlets, RedriveError, Replacement, STEP_BYTES_MAX, STEP_CHANGES_MAX,
    STEP_READ_MAX, Step,
};
