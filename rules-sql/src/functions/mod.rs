//! The function library: one table, names in lower case, found at compile time.
//!
//! The tables of the dialect decide alike everywhere: *num* is Int, Decimal or number text, *str* is anything that
//! converts to a String, *int* is num floored; a bad argument gives Undefined, never an error.

mod encoding;
mod iana;
mod message;
mod numbers;
mod pattern;
mod strings;
mod time;
mod values;
mod zone;

pub(crate) use message::NO_CLIENT_ID;

use crate::eval::Scope;
use crate::plan::Expr;
use crate::value::Value;

type Eval = for<'s, 'v> fn(&Scope<'s, 'v>, &'v [Expr]) -> Value<'v>;

/// One function of the library.
#[derive(Debug)]
pub(crate) struct Function {
    pub(crate) name: &'static str,
    pub(crate) min: usize,
    pub(crate) max: usize,
    /// How it is called, for hints.
    pub(crate) usage: &'static str,
    /// Beyond what its arguments read.
    pub(crate) reads_payload: bool,
    /// Whether `*` may stand for an argument.
    pub(crate) takes_star: bool,
    pub(crate) eval: Eval,
}

const fn function(name: &'static str, min: usize, max: usize, usage: &'static str, eval: Eval) -> Function {
    Function { name, min, max, usage, reads_payload: false, takes_star: false, eval }
}

const fn starred(name: &'static str, min: usize, max: usize, usage: &'static str, eval: Eval) -> Function {
    Function { name, min, max, usage, reads_payload: false, takes_star: true, eval }
}

static GROUPS: [&[Function]; 7] = [
    numbers::FUNCTIONS,
    strings::FUNCTIONS,
    values::FUNCTIONS,
    encoding::FUNCTIONS,
    message::FUNCTIONS,
    time::FUNCTIONS,
    pattern::FUNCTIONS,
];

/// Functions of AWS or EMQX that are known and refused, with what to do instead.
const REFUSED: [(&str, &str); 11] = [
    ("aws_lambda", "an action can call over HTTP"),
    ("get_thing_shadow", ""),
    ("get_dynamodb", ""),
    ("get_secret", "action settings can name a secret of the configuration"),
    ("machinelearning_predict", ""),
    ("get_registry_data", ""),
    ("md2", "md2 is broken; use sha256"),
    ("kv_store_get", ""),
    ("kv_store_put", ""),
    ("getenv", ""),
    ("sprintf", ""),
];

/// Finds a function by its name in lower case.
pub(crate) fn find(name: &str) -> Option<&'static Function> {
    GROUPS.iter().flat_map(|group| group.iter()).find(|function| function.name == name)
}

/// The hint for a function that is refused by name; may be empty.
pub(crate) fn refused(name: &str) -> Option<&'static str> {
    REFUSED.iter().find(|(refused, _)| *refused == name).map(|(_, hint)| *hint)
}

/// All names.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    GROUPS.iter().flat_map(|group| group.iter()).map(|function| function.name)
}

/// Whether a function's result depends on its arguments alone, not on message, clock or chance. False for a name that is
/// no function's.
pub(crate) fn is_pure(name: &str) -> bool {
    let of_arguments = [numbers::FUNCTIONS, strings::FUNCTIONS, values::FUNCTIONS, encoding::FUNCTIONS];
    let pure_times = ["parse_time", "time_to_epoch", "rfc3339_to_unix_ts", "unix_ts_to_rfc3339"];
    !["rand", "random"].contains(&name)
        && (pure_times.contains(&name)
            || of_arguments.iter().flat_map(|group| group.iter()).any(|function| function.name == name))
}
