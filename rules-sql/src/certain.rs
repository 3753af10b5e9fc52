//! What is certain about an expression before there is a message: the types it can have, and what can never come to
//! anything.
//!
//! The dialect answers a bad argument with Undefined, and documented rules count on it, so `abs('x')` is no error. It
//! is hardly meant, though: what is Undefined for every message is told as a warning. One walk per expression finds
//! the types from the leaves up; a part that was told about has no type left, so what is built on it is not told again.

use crate::check::regex;
use crate::codes;
use crate::error::Fault;
use crate::functions::{Function, Param, Takes, is_zone, list};
use crate::plan::{Const, Expr, Item, Op, Pattern, Query, QueryProjection, RegexAction, Step, Target};
use crate::syntax::ast::{ArithmeticOp, CompareOp, Span};
use crate::value::Type;
use crate::value::number::Num;

/// Longest text of a constant that a warning repeats, in characters.
const SHOWN_MAX: usize = 24;

/// Types that a value can have, besides Undefined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Types(u8);

impl Types {
    pub(crate) const NONE: Types = Types(0);
    pub(crate) const NULL: Types = Types(1);
    pub(crate) const BOOL: Types = Types(2);
    pub(crate) const NUMBER: Types = Types(4);
    pub(crate) const STRING: Types = Types(8);
    pub(crate) const BYTES: Types = Types(16);
    pub(crate) const ARRAY: Types = Types(32);
    pub(crate) const OBJECT: Types = Types(64);
    pub(crate) const ANY: Types = Types(127);

    pub(crate) const fn or(self, other: Types) -> Types {
        Types(self.0 | other.0)
    }

    pub(crate) const fn without(self, other: Types) -> Types {
        Types(self.0 & !other.0)
    }

    pub(crate) const fn meets(self, other: Types) -> bool {
        self.0 & other.0 != 0
    }

    fn of(constant: &Const) -> Types {
        match constant.value().kind() {
            Type::Undefined => Types::NONE,
            Type::Null => Types::NULL,
            Type::Bool => Types::BOOL,
            Type::Number => Types::NUMBER,
            Type::String => Types::STRING,
            Type::Bytes => Types::BYTES,
            Type::Array => Types::ARRAY,
            Type::Object => Types::OBJECT,
        }
    }

    /// `a Boolean`, `an Array or Object`.
    fn words(self) -> String {
        const NAMES: [(Types, &str); 7] = [
            (Types::NULL, "Null"),
            (Types::BOOL, "a Boolean"),
            (Types::NUMBER, "a number"),
            (Types::STRING, "a String"),
            (Types::BYTES, "bytes"),
            (Types::ARRAY, "an Array"),
            (Types::OBJECT, "an Object"),
        ];
        let words: Vec<&str> =
            NAMES.iter().filter(|(types, _)| self.meets(*types)).map(|(_, word)| *word).collect();
        words.join(" or ")
    }
}

/// What an operand has to be.
#[derive(Clone, Copy)]
struct Wanted {
    types: Types,
    /// Which constant Strings are of use.
    fits: fn(&str) -> bool,
    words: &'static str,
}

const fn wanted(types: Types, words: &'static str) -> Wanted {
    Wanted { types, fits: |_| true, words }
}

const SCALARS: Types = Types::BOOL.or(Types::NUMBER).or(Types::STRING);

const NUMBERS: Wanted = Wanted { types: Types::NUMBER.or(Types::STRING), fits: is_number, words: "a number" };
const BOOLEANS: Wanted =
    Wanted { types: Types::BOOL.or(Types::STRING), fits: is_boolean, words: "a Boolean" };
const STRINGS: Wanted = wanted(Types::STRING, "a String");
const ARRAYS: Wanted = wanted(Types::ARRAY, "an Array");
const TEXT: Wanted = wanted(Types::ANY.without(Types::NULL), "text");
const MEMBERS: Wanted = wanted(Types::OBJECT, "an Object");
const ELEMENTS: Wanted = wanted(Types::ARRAY.or(Types::OBJECT), "an Array or Object");
const CAST_TO_NUMBER: Wanted = Wanted { types: SCALARS, fits: is_number, words: "a number or Boolean" };
const CAST_TO_BOOLEAN: Wanted = Wanted { types: SCALARS, fits: is_boolean, words: "a number or Boolean" };

fn is_number(text: &str) -> bool {
    Num::parse_text(text).is_some()
}

fn is_boolean(text: &str) -> bool {
    text.eq_ignore_ascii_case("true") || text.eq_ignore_ascii_case("false")
}

/// The types an expression can have; what is never of use in it is added to `doubts`.
pub(crate) fn types(expr: &Expr, doubts: &mut Vec<Fault>) -> Types {
    Walk { doubts }.types(expr)
}

/// Tells of a condition that is never true because of the type it has.
pub(crate) fn condition(expr: &Expr, clause: &str, doubts: &mut Vec<Fault>) {
    let types = types(expr, &mut Vec::new());
    Walk { doubts }.operand(expr, types, BOOLEANS, &format!("{clause} is never true: it"));
}

struct Walk<'d> {
    doubts: &'d mut Vec<Fault>,
}

impl Walk<'_> {
    fn types(&mut self, expr: &Expr) -> Types {
        match &expr.op {
            Op::Const(constant) => Types::of(constant),
            Op::Star | Op::Field(_) | Op::Element(_) | Op::Variable(_) | Op::Output => Types::ANY,
            Op::Steps { root, steps } => self.steps(root, steps),
            Op::Array(items) => {
                self.each(items);
                Types::ARRAY
            }
            Op::Object(members) => {
                for (_, value) in members {
                    self.types(value);
                }
                Types::OBJECT
            }
            Op::Negate(value) => self.unary(value, NUMBERS, "- is always Undefined: it", Types::NUMBER),
            Op::Plus(value) => self.unary(value, NUMBERS, "+ is always Undefined: it", Types::NUMBER),
            Op::Not(value) => self.unary(value, BOOLEANS, "NOT is always Undefined: it", Types::BOOL),
            Op::And(operands) => self.logic(operands, "AND"),
            Op::Or(operands) => self.logic(operands, "OR"),
            Op::Compare { op, left, right, .. } => self.compare(*op, left, right),
            Op::Arithmetic { first, rest } => self.arithmetic(first, rest),
            Op::InList { value, items, .. } => {
                self.types(value);
                self.each(items);
                Types::BOOL
            }
            Op::InValue { value, array, .. } => {
                self.types(value);
                self.unary(array, ARRAYS, "IN is always Undefined: it", Types::BOOL)
            }
            Op::Between { value, low, high, .. } => {
                // A value below the one bound is not between, whatever the other bound is.
                for bound in [low, high] {
                    let message = "this bound counts as Undefined: BETWEEN";
                    self.unary(bound, NUMBERS, message, Types::BOOL);
                }
                self.unary(value, NUMBERS, "BETWEEN is always Undefined: it", Types::BOOL)
            }
            Op::Like { value, pattern, .. } => {
                let message = "LIKE is always Undefined: it";
                let sound = self.unary(value, STRINGS, message, Types::BOOL);
                match pattern {
                    Pattern::Literal(_) => sound,
                    Pattern::Dynamic { pattern, .. } => self.unary(pattern, STRINGS, message, sound),
                }
            }
            Op::CaseOf { subject, branches, otherwise } => {
                self.types(subject);
                self.branches(branches, otherwise.as_deref(), false)
            }
            Op::CaseWhen { branches, otherwise } => self.branches(branches, otherwise.as_deref(), true),
            Op::Exists(query) => {
                self.query(query);
                Types::BOOL
            }
            Op::Query(query) => self.query(query),
            Op::Cast { value, target } => self.cast(value, *target),
            Op::Call { function, args } => self.call(function, args, expr.span),
            Op::Regex { action, text, replacement, .. } => {
                let (name, result) = match action {
                    RegexAction::Matches => ("regexp_matches", Types::BOOL),
                    RegexAction::Substring => ("regexp_substr", Types::STRING),
                    RegexAction::Replace => ("regexp_replace", Types::STRING),
                };
                let result = self.pattern_argument(name, 1, text, result);
                match replacement {
                    Some(replacement) => self.pattern_argument(name, 3, replacement, result),
                    None => result,
                }
            }
        }
    }

    fn each(&mut self, exprs: &[Expr]) {
        for expr in exprs {
            self.types(expr);
        }
    }

    /// Whether an operand can be of use; tells when it cannot. What has no type left was told about further in.
    fn operand(&mut self, expr: &Expr, types: Types, wanted: Wanted, message: &str) -> bool {
        let useful = types.meets(wanted.types) && constant_text(expr).is_none_or(wanted.fits);
        if !useful && types != Types::NONE {
            let message = format!("{message} takes {}, {}", wanted.words, described(expr, types));
            self.doubts.push(Fault::new(codes::USELESS_OPERAND, expr.span, message));
        }
        useful
    }

    /// The result's types, or none when the operand cannot be of use.
    fn unary(&mut self, expr: &Expr, wanted: Wanted, message: &str, result: Types) -> Types {
        let types = self.types(expr);
        if self.operand(expr, types, wanted, message) { result } else { Types::NONE }
    }

    /// One operand alone does not settle the result.
    fn logic(&mut self, operands: &[Expr], word: &str) -> Types {
        for operand in operands {
            let types = self.types(operand);
            self.operand(operand, types, BOOLEANS, &format!("this operand counts as Undefined: {word}"));
        }
        Types::BOOL
    }

    fn compare(&mut self, op: CompareOp, left: &Expr, right: &Expr) -> Types {
        let wanted = match op {
            CompareOp::Equal | CompareOp::NotEqual => {
                self.types(left);
                self.types(right);
                return Types::BOOL;
            }
            CompareOp::TopicMatch => STRINGS,
            CompareOp::Less | CompareOp::LessOrEqual | CompareOp::Greater | CompareOp::GreaterOrEqual => {
                NUMBERS
            }
        };
        let message = format!("{} is always Undefined: it", op.text());
        let mut types = Types::BOOL;
        for operand in [left, right] {
            let before = self.doubts.len();
            types = self.unary(operand, wanted, &message, types);
            if let (Some(doubt), Some(_)) = (self.doubts.get_mut(before), constant_text(operand)) {
                doubt.hint = Some("strings have no order; =, IN and LIKE compare them".to_owned());
            }
        }
        match &right.op {
            Op::Const(Const::String(filter)) if op == CompareOp::TopicMatch => {
                let Err(error) = mqtt_protocol::validate_topic_filter(filter) else { return types };
                let message = format!("=~ is always Undefined: the filter {error}");
                self.doubts.push(Fault::new(codes::USELESS_OPERAND, right.span, message));
                Types::NONE
            }
            _ => types,
        }
    }

    fn arithmetic(&mut self, first: &Expr, rest: &[(ArithmeticOp, Expr)]) -> Types {
        let mut types = self.types(first);
        // What stands on the left, as long as it is one operand with a text of its own.
        let mut left = Some(first);
        for (op, operand) in rest {
            let right = self.types(operand);
            types = self.operation(*op, (left, types), (operand, right));
            left = None;
        }
        types
    }

    fn operation(&mut self, op: ArithmeticOp, left: (Option<&Expr>, Types), right: (&Expr, Types)) -> Types {
        let message = format!("{} is always Undefined: it", op.text());
        let (wanted, result) = match op {
            ArithmeticOp::Concat => (TEXT, Types::STRING),
            ArithmeticOp::Add => match (left.1 == Types::STRING, right.1 == Types::STRING) {
                (true, _) | (_, true) => (TEXT, Types::STRING),
                _ if left.1.or(right.1).meets(Types::STRING) => return self.perhaps_text(left, right),
                _ => (NUMBERS, Types::NUMBER),
            },
            ArithmeticOp::Subtract
            | ArithmeticOp::Multiply
            | ArithmeticOp::Divide
            | ArithmeticOp::Remainder
            | ArithmeticOp::DivideWhole => (NUMBERS, Types::NUMBER),
        };
        let mut sound = match left {
            (Some(expr), types) => self.operand(expr, types, wanted, &message),
            (None, types) => types.meets(wanted.types),
        };
        sound &= self.operand(right.0, right.1, wanted, &message);
        let divides =
            matches!(op, ArithmeticOp::Divide | ArithmeticOp::Remainder | ArithmeticOp::DivideWhole);
        if sound && divides && constant_number(right.0).is_some_and(Num::is_zero) {
            let message = format!("{} is always Undefined: division by zero", op.text());
            self.doubts.push(Fault::new(codes::USELESS_OPERAND, right.0.span, message));
            sound = false;
        }
        if sound { result } else { Types::NONE }
    }

    /// `+` with an operand that may be a String, or a number, or what goes with a String alone.
    fn perhaps_text(&mut self, left: (Option<&Expr>, Types), right: (&Expr, Types)) -> Types {
        let message = "+ is always Undefined: it";
        let sound = match left {
            (Some(expr), types) => self.operand(expr, types, TEXT, message),
            (None, types) => types.meets(TEXT.types),
        };
        let sound = self.operand(right.0, right.1, TEXT, message) && sound;
        if sound { Types::STRING.or(Types::NUMBER) } else { Types::NONE }
    }

    fn steps(&mut self, root: &Expr, steps: &[Step]) -> Types {
        let types = self.types(root);
        if let Some(first) = steps.first() {
            let wanted = match first {
                Step::Member(_) => MEMBERS,
                Step::Element(_) => ELEMENTS,
            };
            if !self.operand(root, types, wanted, "this step is always Undefined: it") {
                return Types::NONE;
            }
        }
        for step in steps {
            if let Step::Element(index) = step {
                self.types(index);
            }
        }
        Types::ANY
    }

    fn branches(&mut self, branches: &[(Expr, Expr)], otherwise: Option<&Expr>, searched: bool) -> Types {
        let mut result = Types::NONE;
        for (when, then) in branches {
            let types = self.types(when);
            if searched {
                self.operand(when, types, BOOLEANS, "WHEN is never true: it");
            }
            result = result.or(self.types(then));
        }
        match otherwise {
            Some(otherwise) => result.or(self.types(otherwise)),
            None => result,
        }
    }

    fn query(&mut self, query: &Query) -> Types {
        let source = self.types(&query.source);
        if let Some(condition) = &query.condition {
            let types = self.types(condition);
            self.operand(condition, types, BOOLEANS, "WHERE is never true: it");
        }
        match &query.projection {
            QueryProjection::Value(value) => {
                self.types(value);
            }
            QueryProjection::Items(items) => {
                for item in items {
                    if let Item::Value { value, .. } = item {
                        self.types(value);
                    }
                }
            }
        }
        if source == Types::ARRAY { Types::ARRAY } else { Types::ANY }
    }

    fn cast(&mut self, value: &Expr, target: Target) -> Types {
        let types = self.types(value);
        let (wanted, result) = match target {
            Target::String => (TEXT, Types::STRING),
            Target::Int | Target::Decimal => (CAST_TO_NUMBER, Types::NUMBER),
            Target::Boolean => (CAST_TO_BOOLEAN, Types::BOOL),
        };
        if self.operand(value, types, wanted, "cast is always Undefined: it") { result } else { Types::NONE }
    }

    fn call(&mut self, function: &Function, args: &[Expr], span: Span) -> Types {
        let mut lost = false;
        for (place, (arg, param)) in args.iter().zip(function.params(args.len())).enumerate() {
            let types = self.types(arg);
            let useful = types.meets(param.takes.types()) && !refused(param, arg);
            if !useful && types != Types::NONE {
                self.argument(function, place, param, (arg, types));
            }
            // A function that takes everything takes Undefined, too.
            lost |= !useful && !matches!(param.takes, Takes::Any);
        }
        if args.is_empty() && function.max() == usize::MAX {
            let message = format!("{}() without arguments is always Undefined", function.name);
            self.doubts.push(Fault::new(codes::USELESS_ARGUMENT, span, message));
            lost = true;
        }
        if lost { Types::NONE } else { function.gives.types() }
    }

    fn argument(&mut self, function: &Function, place: usize, param: &Param, (arg, types): (&Expr, Types)) {
        if let (Takes::Name(names), Some(text)) = (param.takes, constant_text(arg)) {
            let message = format!(
                "{}() is always Undefined: it knows no {} '{}'",
                function.name,
                param.name,
                shown(text)
            );
            let hint = match crate::check::nearest(text, names.iter().copied()) {
                Some(near) => format!("did you mean {near}?"),
                None => list(names),
            };
            self.doubts.push(Fault::new(codes::UNKNOWN_NAME, arg.span, message).with_hint(hint));
            return;
        }
        if let (Takes::Zone, Some(text)) = (param.takes, constant_text(arg)) {
            let message =
                format!("{}() is always Undefined: it knows no zone '{}'", function.name, shown(text));
            let hint =
                "a zone is an offset, such as +08:00, or a name that IANA gives it, such as Europe/Berlin";
            self.doubts.push(Fault::new(codes::UNKNOWN_NAME, arg.span, message).with_hint(hint));
            return;
        }
        if let (Takes::Pattern, Some(pattern)) = (param.takes, constant_text(arg)) {
            let reason = match regex(pattern, usize::MAX) {
                Err(error) => reason(&error),
                Ok(_) => return,
            };
            let message =
                format!("{}() is always Undefined: the pattern is invalid, {reason}", function.name);
            self.doubts.push(Fault::new(codes::INVALID_PATTERN, arg.span, message));
            return;
        }
        self.useless_argument(function.name, place + 1, &param.takes.words(), (arg, types));
    }

    /// An argument beside a pattern that is compiled already.
    fn pattern_argument(&mut self, name: &str, place: usize, arg: &Expr, result: Types) -> Types {
        let types = self.types(arg);
        if types.meets(TEXT.types) {
            return result;
        }
        if types != Types::NONE {
            self.useless_argument(name, place, TEXT.words, (arg, types));
        }
        Types::NONE
    }

    fn useless_argument(&mut self, name: &str, place: usize, takes: &str, (arg, types): (&Expr, Types)) {
        let message = format!(
            "{name}() is always Undefined: argument {place} takes {takes}, {}",
            described(arg, types)
        );
        self.doubts.push(Fault::new(codes::USELESS_ARGUMENT, arg.span, message));
    }
}

/// Whether a constant of a type that fits is of no use by its value.
fn refused(param: &Param, arg: &Expr) -> bool {
    match param.takes {
        Takes::Number | Takes::Whole => constant_text(arg).is_some_and(|text| !is_number(text)),
        Takes::Word(words) | Takes::Name(words) => {
            constant_text(arg).is_some_and(|text| !words.contains(&text))
        }
        // A valid pattern of the rule's own became `Op::Regex`.
        Takes::Pattern => constant_text(arg).is_some(),
        Takes::Zone => constant_text(arg).is_some_and(|text| !is_zone(text)),
        _ => false,
    }
}

fn constant_text(expr: &Expr) -> Option<&str> {
    match &expr.op {
        Op::Const(Const::String(text)) => Some(text),
        _ => None,
    }
}

fn constant_number(expr: &Expr) -> Option<Num> {
    match &expr.op {
        Op::Const(constant) => constant.value().to_num(),
        _ => None,
    }
}

/// `'x' is a String`, `upper() gives a String`.
fn described(expr: &Expr, types: Types) -> String {
    match &expr.op {
        Op::Const(Const::String(text)) => format!("'{}' is a String", shown(text)),
        Op::Const(Const::Null) => "NULL is Null".to_owned(),
        Op::Const(Const::Bool(value)) => format!("{value} is a Boolean"),
        Op::Const(Const::Int(value)) => format!("{value} is an Int"),
        Op::Const(Const::Decimal(value)) => format!("{} is a Decimal", value.text()),
        Op::Call { function, .. } => format!("{}() gives {}", function.name, types.words()),
        _ => format!("this is {}", types.words()),
    }
}

fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or("")),
        None => text.to_owned(),
    }
}

/// The last line of what the engine says, which is the reason; those before it repeat the pattern.
fn reason(error: &regex::Error) -> String {
    let text = error.to_string();
    let last = text.lines().last().unwrap_or("");
    last.strip_prefix("error: ").unwrap_or(last).to_owned()
}
