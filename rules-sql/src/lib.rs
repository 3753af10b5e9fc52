//! SQL rules over MQTT messages: SQL text in, [`CompiledRule`] out; a message in, an [`Outcome`] out.
//!
//! Pure: no I/O, no async, no clock and no randomness of its own. The time and the seed of `rand()` come in with
//! the [`Event`] and the [`Evaluation`]. Nothing here panics on SQL, payload or template text.
//!
//! ```text
//! SQL ── syntax (sqlparser's tokenizer and operator loop) ─► tree as written ── check ─► plan
//! payload ── json (scanned once, lazily) ─► nodes ─┐
//! plan, message ──────────────────────────────── eval ─► output bytes ── template ─► action parameters
//! plans of many rules ── predicates (an index) ─► for a message: which rules are worth evaluating
//! ```
//!
//! Invariants: nothing of `sqlparser` leaves `syntax::driver`; `check` alone refuses well-formed statements; every
//! conversion between types is in `value`; bad data is Undefined and only a budget makes an evaluation fail. `certain` and
//! `doubts` tell of what is hardly meant and refuse nothing. What the checker, the evaluator and the manual say of a
//! function or a code comes from one table each, in `functions` and `codes`; [`mod@reference`] hands them on.

mod certain;
mod check;
mod codes;
mod doubts;
mod error;
mod eval;
mod evaluation;
mod event;
mod explain;
mod functions;
mod json;
mod limits;
mod meter;
mod plan;
mod predicates;
mod reach;
pub mod reference;
mod regex_cache;
mod replacement;
mod rule;
mod syntax;
mod template;
mod trace;
mod value;

pub use error::{CompileError, EvalError, TemplateError, Warning};
pub use evaluation::{Evaluation, Outcome, Output};
pub use event::{Event, EventProperties, NoProperties};
pub use explain::{Explanation, FilterStep, NamedStep};
pub use limits::{Dialect, Limits};
pub use predicates::PredicateIndex;
pub use rule::{CompiledRule, compile};
pub use template::{Template, TemplateExplanation, TemplateKind, Undefined};
pub use trace::{Step, StepResult};
