//! SQL rules over MQTT messages: SQL text in, [`CompiledRule`] out; a message in, an [`Outcome`] out.
//!
//! Pure: no I/O, no async, no clock and no randomness of its own. The time and the seed of `rand()` come in with
//! the [`Event`] and the [`Evaluation`]. Nothing here panics on SQL, payload or template text.
//!
//! ```text
//! SQL ── syntax (sqlparser's tokenizer and operator loop) ─► tree as written ── check ─► plan
//! payload ── json (scanned once, lazily) ─► nodes ─┐
//! plan, message ──────────────────────────────── eval ─► output bytes ── template ─► action parameters
//! ```
//!
//! Invariants: nothing of `sqlparser` leaves `syntax::driver`; `check` alone refuses well-formed statements; every
//! conversion between types is in `value`; bad data is Undefined and only a budget makes an evaluation fail.

mod check;
mod error;
mod eval;
mod evaluation;
mod event;
mod functions;
mod json;
mod limits;
mod meter;
mod plan;
mod regex_cache;
mod rule;
mod syntax;
mod template;
mod value;

pub use error::{CompileError, EvalError, TemplateError, Warning};
pub use evaluation::{Evaluation, Outcome, Output};
pub use event::{Event, EventProperties, NoProperties};
pub use limits::{Dialect, Limits};
pub use rule::{CompiledRule, compile};
pub use template::{Template, TemplateKind};
