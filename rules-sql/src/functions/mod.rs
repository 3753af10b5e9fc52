//! The function library: one table, found at compile time, that says of each function what the checker, the evaluator
//! and the manual need to know.
//!
//! The tables of the dialect decide alike everywhere: *num* is Int, Decimal or number text, *str* is anything that
//! converts to a String, *int* is num floored; a bad argument gives Undefined, never an error.

mod elsewhere;
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

use crate::certain::Types;
use crate::eval::Scope;
use crate::plan::Expr;

pub(crate) use elsewhere::{Elsewhere, elsewhere};

type Eval = for<'s, 'v> fn(&Scope<'s, 'v>, &'v [Expr]) -> crate::value::Value<'v>;

/// One function of the library.
#[derive(Debug)]
pub(crate) struct Function {
    /// As its origin writes it; found in any case.
    pub(crate) name: &'static str,
    /// Other names of the same function.
    pub(crate) aliases: &'static [&'static str],
    pub(crate) params: &'static [Param],
    pub(crate) gives: Gives,
    /// What the manual adds.
    pub(crate) note: &'static str,
    /// Expression and result as JSON text, `undefined` for none; at least one.
    pub(crate) examples: &'static [(&'static str, &'static str)],
    pub(crate) origin: Origin,
    pub(crate) eval: Eval,
}

/// Whose function it is; what it does there, it does here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Origin {
    /// AWS IoT SQL.
    Aws,
    /// The rule SQL of EMQX.
    Emqx,
    /// None of them has it.
    Tidegate,
}

/// One parameter of a function.
#[derive(Debug)]
pub(crate) struct Param {
    pub(crate) name: &'static str,
    pub(crate) takes: Takes,
    pub(crate) need: Need,
    /// Whether `*` may stand here.
    pub(crate) star: bool,
}

/// How often an argument is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    Once,
    Optional,
    /// Any number of times; the last parameter alone.
    Repeated,
}

/// What an argument may be; anything else gives Undefined.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Takes {
    Any,
    /// Int, Decimal, number text.
    Number,
    /// As `Number`, floored.
    Whole,
    /// What converts to a String: all but Null and Undefined.
    Text,
    /// A String alone; nothing is converted.
    String,
    Array,
    Object,
    ArrayOrObject,
    /// What `get` reads: an Array, an Object or a String.
    Indexed,
    /// What `get` reads by: an Int or a String.
    Index,
    /// As `Text`; a regular expression.
    Pattern,
    /// One of these Strings. A constant that is another is an error.
    Word(&'static [&'static str]),
    /// One of these Strings. AWS gives Undefined for a constant that is another, so it is a warning.
    Name(&'static [&'static str]),
    /// As `Text`; the name of a time zone, or an offset.
    Zone,
}

/// What a function yields, besides Undefined.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Gives {
    Any,
    Number,
    Int,
    Decimal,
    String,
    /// A String, or bytes when they are no text.
    StringOrBytes,
    Boolean,
    Array,
}

/// Functions that are described together.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) title: &'static str,
    pub(crate) intro: &'static str,
    /// By name.
    pub(crate) functions: &'static [Function],
}

static GROUPS: [Group; 7] = [
    numbers::GROUP,
    strings::GROUP,
    values::GROUP,
    encoding::GROUP,
    message::GROUP,
    Group {
        title: "Time",
        intro: "The clock is that of the message: the same value throughout one evaluation. Units are seconds unless \
                another is given.",
        functions: time::FUNCTIONS,
    },
    Group {
        title: "Time by patterns",
        intro: "Letters of a pattern stand for parts of the time, other text stands in single quotes. What a zone may be: \
                [Time zones](rules-sql.md#time-zones).",
        functions: pattern::FUNCTIONS,
    },
];

/// An entry of the table. Its evaluation may count on the number of its arguments.
const fn function(
    name: &'static str,
    params: &'static [Param],
    gives: Gives,
    examples: &'static [(&'static str, &'static str)],
    eval: Eval,
) -> Function {
    assert!(!examples.is_empty(), "a function has an example");
    Function { name, aliases: &[], params, gives, note: "", examples, origin: Origin::Aws, eval }
}

impl Function {
    const fn note(mut self, note: &'static str) -> Function {
        self.note = note;
        self
    }

    const fn aliases(mut self, aliases: &'static [&'static str]) -> Function {
        self.aliases = aliases;
        self
    }

    const fn from(mut self, origin: Origin) -> Function {
        self.origin = origin;
        self
    }

    /// Fewest arguments.
    pub(crate) fn min(&self) -> usize {
        self.params.iter().filter(|param| param.need == Need::Once).count()
    }

    /// Most arguments.
    pub(crate) fn max(&self) -> usize {
        match self.params.last() {
            Some(Param { need: Need::Repeated, .. }) => usize::MAX,
            _ => self.params.len(),
        }
    }

    /// The parameter of each of `given` arguments, in order.
    pub(crate) fn params(&self, given: usize) -> impl Iterator<Item = &'static Param> {
        let mut spare = given.saturating_sub(self.min());
        let once = self.params.iter().filter(move |param| match param.need {
            Need::Once => true,
            Need::Optional if spare > 0 => {
                spare -= 1;
                true
            }
            Need::Optional | Need::Repeated => false,
        });
        let repeated = self.params.last().filter(|param| param.need == Need::Repeated);
        once.chain(std::iter::repeat_n(repeated, given).flatten()).take(given)
    }

    /// How it is called, under one of its names.
    pub(crate) fn usage(&self, name: &str) -> String {
        let mut text = format!("{name}(");
        let mut open = 0;
        let mut separator = "";
        for (place, param) in self.params.iter().enumerate() {
            let word = param.word();
            let mut after = self.params.iter().skip(place + 1);
            text.push_str(&match param.need {
                Need::Once => format!("{separator}{word}"),
                Need::Optional if after.any(|param| param.need == Need::Once) => {
                    text.push_str(&format!("[{word}, ]"));
                    continue;
                }
                Need::Optional => {
                    open += 1;
                    format!("[{separator}{word}")
                }
                Need::Repeated if place == 0 => format!("{word}, …"),
                Need::Repeated => ", …".to_owned(),
            });
            separator = ", ";
        }
        text.push_str(&"]".repeat(open));
        text.push(')');
        text
    }

    /// What an argument that a parameter does not take leads to; `None`: every parameter takes everything.
    pub(crate) fn bad_types(&self) -> Option<&'static str> {
        self.params.iter().any(|param| !matches!(param.takes, Takes::Any)).then_some("Undefined")
    }
}

/// Whether a name or an offset is that of a zone that times are written in.
pub(crate) fn is_zone(name: &str) -> bool {
    zone::Zone::find(name).is_some()
}

const fn param(name: &'static str, takes: Takes) -> Param {
    Param { name, takes, need: Need::Once, star: false }
}

const fn any(name: &'static str) -> Param {
    param(name, Takes::Any)
}

const fn number(name: &'static str) -> Param {
    param(name, Takes::Number)
}

const fn whole(name: &'static str) -> Param {
    param(name, Takes::Whole)
}

const fn text(name: &'static str) -> Param {
    param(name, Takes::Text)
}

impl Param {
    const fn optional(mut self) -> Param {
        self.need = Need::Optional;
        self
    }

    const fn repeated(mut self) -> Param {
        self.need = Need::Repeated;
        self
    }

    const fn or_star(mut self) -> Param {
        self.star = true;
        self
    }

    /// In a call: the only word there is, else the name.
    fn word(&self) -> String {
        match self.takes {
            Takes::Word([word]) | Takes::Name([word]) => format!("'{word}'"),
            _ => self.name.to_owned(),
        }
    }
}

impl Takes {
    /// In a sentence: "takes …".
    pub(crate) fn words(self) -> String {
        match self {
            Takes::Any => "any value".to_owned(),
            Takes::Number => "a number".to_owned(),
            Takes::Whole => "a whole number".to_owned(),
            Takes::Text => "text".to_owned(),
            Takes::String => "a String".to_owned(),
            Takes::Array => "an Array".to_owned(),
            Takes::Object => "an Object".to_owned(),
            Takes::ArrayOrObject => "an Array or Object".to_owned(),
            Takes::Indexed => "an Array, Object or String".to_owned(),
            Takes::Index => "an Int or a String".to_owned(),
            Takes::Pattern => "a pattern".to_owned(),
            Takes::Zone => "a time zone".to_owned(),
            Takes::Word([word]) | Takes::Name([word]) => format!("'{word}'"),
            Takes::Word(words) | Takes::Name(words) => format!("one of {}", list(words)),
        }
    }

    /// The types that can be of use.
    pub(crate) fn types(self) -> Types {
        match self {
            Takes::Any => Types::ANY,
            Takes::Number | Takes::Whole | Takes::Index => Types::NUMBER.or(Types::STRING),
            Takes::Text | Takes::Pattern | Takes::Zone => Types::ANY.without(Types::NULL),
            Takes::String | Takes::Word(_) | Takes::Name(_) => Types::STRING,
            Takes::Array => Types::ARRAY,
            Takes::Object => Types::OBJECT,
            Takes::ArrayOrObject => Types::ARRAY.or(Types::OBJECT),
            Takes::Indexed => Types::ARRAY.or(Types::OBJECT).or(Types::STRING),
        }
    }
}

/// `'a', 'b', 'c'`
pub(crate) fn list(words: &[&str]) -> String {
    words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(", ")
}

impl Gives {
    /// As a noun.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Gives::Any => "any value",
            Gives::Number => "Int or Decimal",
            Gives::Int => "Int",
            Gives::Decimal => "Decimal",
            Gives::String => "String",
            Gives::StringOrBytes => "String, or bytes when they are no text",
            Gives::Boolean => "Boolean",
            Gives::Array => "Array",
        }
    }

    pub(crate) fn types(self) -> Types {
        match self {
            Gives::Any => Types::ANY,
            Gives::Number | Gives::Int | Gives::Decimal => Types::NUMBER,
            Gives::String => Types::STRING,
            Gives::StringOrBytes => Types::STRING.or(Types::BYTES),
            Gives::Boolean => Types::BOOL,
            Gives::Array => Types::ARRAY,
        }
    }
}

/// Every group, in the order of the manual.
pub(crate) fn groups() -> &'static [Group] {
    &GROUPS
}

/// Finds a function by one of its names, in any case.
pub(crate) fn find(name: &str) -> Option<&'static Function> {
    let is = |known: &&str| known.eq_ignore_ascii_case(name);
    let mut functions = GROUPS.iter().flat_map(|group| group.functions);
    functions.find(|function| is(&function.name) || function.aliases.iter().any(is))
}

/// All names, aliases included.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    let functions = GROUPS.iter().flat_map(|group| group.functions);
    functions.flat_map(|function| std::iter::once(function.name).chain(function.aliases.iter().copied()))
}

/// Whether a function's result depends on its arguments alone, not on message, clock or chance. False for a name that is
/// no function's.
pub(crate) fn is_pure(name: &str) -> bool {
    let of_clock_or_chance = ["now_rfc3339", "now_timestamp", "rand", "timestamp"];
    find(name).is_some_and(|function| {
        let is_of_message = message::GROUP.functions.iter().any(|known| known.name == function.name);
        !is_of_message && !of_clock_or_chance.contains(&function.name)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{GROUPS, Need, Param, any, elsewhere, find, function, names, text};
    use crate::functions::Gives;
    use crate::value::Value;

    #[test]
    fn names_are_unique_and_in_order_within_their_group() {
        for group in &GROUPS {
            let names: Vec<String> = group.functions.iter().map(|f| f.name.to_lowercase()).collect();
            assert!(names.windows(2).all(|pair| pair[0] < pair[1]), "{}: {names:?}", group.title);
        }
        let all: Vec<String> = names().map(str::to_lowercase).collect();
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len(), "{all:?}");
    }

    #[test]
    fn no_function_is_also_one_that_is_missing() {
        for name in names() {
            assert!(elsewhere(&name.to_lowercase()).is_none(), "{name}");
        }
    }

    #[test]
    fn only_the_last_parameter_repeats() {
        for function in GROUPS.iter().flat_map(|group| group.functions) {
            let before = function.params.iter().rev().skip(1);
            assert!(before.clone().all(|param| param.need != Need::Repeated), "{}", function.name);
        }
    }

    #[test]
    fn arguments_find_their_parameters() {
        let named = |name: &str, given| -> Vec<&str> {
            find(name).unwrap().params(given).map(|param| param.name).collect()
        };
        assert_eq!(named("pad", 3), ["text", "width", "side"]);
        assert_eq!(named("join_to_string", 1), ["array"]);
        assert_eq!(named("join_to_string", 2), ["separator", "array"]);
        assert_eq!(named("concat", 0), [""; 0]);
        assert_eq!(named("coalesce", 3), ["value", "otherwise", "otherwise"]);
    }

    #[test]
    fn a_call_is_shown_with_its_options() {
        let usage = |params: &'static [Param]| {
            function("f", params, Gives::Any, &[("f()", "1")], |_, _| Value::Undefined).usage("f")
        };
        assert_eq!(usage(&[]), "f()");
        const OPTIONAL_LAST: &[Param] = &[text("a"), text("b").optional(), text("c").optional()];
        assert_eq!(usage(OPTIONAL_LAST), "f(a[, b[, c]])");
        const OPTIONAL_FIRST: &[Param] = &[text("a").optional(), any("b")];
        assert_eq!(usage(OPTIONAL_FIRST), "f([a, ]b)");
        const OPTIONAL_ONLY: &[Param] = &[text("a").optional()];
        assert_eq!(usage(OPTIONAL_ONLY), "f([a])");
        const REPEATED: &[Param] = &[any("a"), any("b").repeated()];
        assert_eq!(usage(REPEATED), "f(a, …)");
        const REPEATED_ONLY: &[Param] = &[any("a").repeated()];
        assert_eq!(usage(REPEATED_ONLY), "f(a, …)");
    }
}
