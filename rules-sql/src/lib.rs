//! SQL rules over MQTT messages: SQL text in, [`CompiledRule`] out; a message in, an [`Outcome`] out.
//!
//! Pure: no I/O, no async, no clock and no randomness of its own. The time and the seed of `rand()` come in with
//! the [`Event`] and the [`Evaluation`]. Nothing here panics on SQL, payload or template text.

mod error;
mod evaluation;
mod event;
mod limits;
mod rule;
mod template;

pub use error::{CompileError, EvalError, TemplateError};
pub use evaluation::{Evaluation, Outcome, Output};
pub use event::{Event, EventProperties, NoProperties};
pub use limits::{Dialect, Limits};
pub use rule::{CompiledRule, compile};
pub use template::{Template, TemplateKind};
