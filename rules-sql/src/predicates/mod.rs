//! What a WHERE asks of a single value, as far as an index over many rules can use it.
//!
//! Only conjuncts at the top of WHERE count: each of them has to be true for a message to pass, so a message for which
//! one of them isn't needs no evaluation. What stands under OR, NOT or `<>` says nothing of that kind. A test is never
//! stricter than the conjunct that it was made of; being weaker costs time alone, as survivors run the whole WHERE.
//!
//! Constants are kept in one form per value: numbers as a [`Decimal`], which is the same for `1`, `1.0` and `1e0`.

mod index;
mod intervals;

use std::borrow::Cow;
use std::collections::HashSet;
use std::ops::Bound;

use crate::event::Event;
use crate::functions::NO_CLIENT_ID;
use crate::plan::{Const, Expr, Op, Plan};
use crate::syntax::ast::CompareOp;
use crate::value::Value;
use crate::value::decimal::Decimal;

pub use index::PredicateIndex;

/// Conjuncts of one rule that are looked at; more would hardly narrow better.
const PREDICATES_MAX: usize = 16;

/// One conjunct that an index can use.
#[derive(Debug)]
pub(crate) struct Predicate {
    subject: Subject,
    test: Test,
}

/// The value that is asked about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Subject {
    /// A path of names into the payload, at least one.
    Field(Box<[Box<str>]>),
    /// What a function of the message answers.
    Message(Fact),
}

/// A function of the message that costs next to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Fact {
    Topic,
    /// Counted from 0.
    TopicLevel(usize),
    ClientId,
    Username,
    Qos,
}

/// What must hold for the subject.
#[derive(Debug)]
enum Test {
    /// It equals one of these, each there once.
    OneOf(Vec<Key>),
    /// It is a number, or number text, in between.
    Within(Interval),
}

/// A constant of an equality.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    Null,
    Bool(bool),
    Number(Decimal),
    String(Box<str>),
}

/// The numbers between two bounds; none at all when they cross.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Interval {
    low: Bound<Decimal>,
    high: Bound<Decimal>,
}

/// The predicates of a statement's WHERE, ranges over one subject joined.
pub(crate) fn of(plan: &Plan) -> Box<[Predicate]> {
    let mut found = Vec::new();
    for root in plan.guard.iter().chain(&plan.condition) {
        conjuncts(plan, root, &mut found);
    }
    found.into()
}

fn conjuncts(plan: &Plan, expr: &Expr, found: &mut Vec<Predicate>) {
    if let Op::And(operands) = &expr.op {
        operands.iter().for_each(|operand| conjuncts(plan, operand, found));
        return;
    }
    let Some(Predicate { subject, test }) = predicate(plan, expr) else { return };
    if let Test::Within(interval) = &test {
        let known = found.iter_mut().find_map(|other| match &mut other.test {
            Test::Within(known) if other.subject == subject => Some(known),
            _ => None,
        });
        if let Some(known) = known {
            *known = known.and(*interval);
            return;
        }
    }
    if found.len() < PREDICATES_MAX {
        found.push(Predicate { subject, test });
    }
}

fn predicate(plan: &Plan, expr: &Expr) -> Option<Predicate> {
    let (subject, test) = match &expr.op {
        Op::Compare { op, left, right, .. } => {
            let (left, right) = (resolve(plan, left), resolve(plan, right));
            match (&left.op, &right.op) {
                (_, Op::Const(constant)) => (subject(left)?, comparison(*op, constant)?),
                (Op::Const(constant), _) => (subject(right)?, comparison(mirrored(*op), constant)?),
                _ => return None,
            }
        }
        Op::InList { value, items, negated: false } => {
            let items = match items.as_slice() {
                // `x IN (y)` with an Array for y asks for its elements.
                [Expr { op: Op::Array(elements), .. }] => elements,
                items => items,
            };
            (subject(resolve(plan, value))?, one_of(items)?)
        }
        Op::InValue { value, array, negated: false } => match &resolve(plan, array).op {
            Op::Array(elements) => (subject(resolve(plan, value))?, one_of(elements)?),
            _ => return None,
        },
        Op::Between { value, low, high, negated: false } => {
            let bound = |expr| match &resolve(plan, expr).op {
                Op::Const(constant) => number(constant).map(Bound::Included),
                _ => None,
            };
            let interval = Interval { low: bound(low)?, high: bound(high)? };
            (subject(resolve(plan, value))?, Test::Within(interval))
        }
        _ => return None,
    };
    Some(Predicate { subject, test })
}

/// What a SET variable stands for, or the expression itself. A variable names earlier ones alone, so this ends.
fn resolve<'p>(plan: &'p Plan, mut expr: &'p Expr) -> &'p Expr {
    while let Op::Variable(place) = expr.op
        && let Some(value) = plan.variables.get(place)
    {
        expr = value;
    }
    expr
}

fn subject(expr: &Expr) -> Option<Subject> {
    Some(match &expr.op {
        Op::Field(path) => Subject::Field(path.clone()),
        Op::Call { function, args } => Subject::Message(match (function.name, args.as_slice()) {
            ("topic", []) => Fact::Topic,
            ("topic", [Expr { op: Op::Const(level), .. }]) => {
                let level = level.value().to_num()?.floor_i64().checked_sub(1)?;
                Fact::TopicLevel(usize::try_from(level).ok()?)
            }
            ("clientid", []) => Fact::ClientId,
            ("username", []) => Fact::Username,
            ("qos", []) => Fact::Qos,
            _ => return None,
        }),
        _ => return None,
    })
}

/// The test that a comparison with a constant on its right makes.
fn comparison(op: CompareOp, constant: &Const) -> Option<Test> {
    let (low, high) = match op {
        CompareOp::Equal => return Some(Test::OneOf(vec![key(constant)?])),
        CompareOp::Less => (Bound::Unbounded, Bound::Excluded(number(constant)?)),
        CompareOp::LessOrEqual => (Bound::Unbounded, Bound::Included(number(constant)?)),
        CompareOp::Greater => (Bound::Excluded(number(constant)?), Bound::Unbounded),
        CompareOp::GreaterOrEqual => (Bound::Included(number(constant)?), Bound::Unbounded),
        CompareOp::NotEqual | CompareOp::TopicMatch => return None,
    };
    Some(Test::Within(Interval { low, high }))
}

/// The operator that says the same with its sides exchanged. Whether a topic matches a filter can't be turned round.
fn mirrored(op: CompareOp) -> CompareOp {
    match op {
        CompareOp::Less => CompareOp::Greater,
        CompareOp::LessOrEqual => CompareOp::GreaterOrEqual,
        CompareOp::Greater => CompareOp::Less,
        CompareOp::GreaterOrEqual => CompareOp::LessOrEqual,
        CompareOp::Equal | CompareOp::NotEqual | CompareOp::TopicMatch => op,
    }
}

fn one_of(items: &[Expr]) -> Option<Test> {
    let mut keys = Vec::with_capacity(items.len());
    let mut seen = HashSet::with_capacity(items.len());
    for item in items {
        let Op::Const(constant) = &item.op else { return None };
        let key = key(constant)?;
        if seen.insert(key.clone()) {
            keys.push(key);
        }
    }
    Some(Test::OneOf(keys))
}

fn key(constant: &Const) -> Option<Key> {
    Some(match constant {
        Const::Null => Key::Null,
        Const::Bool(value) => Key::Bool(*value),
        Const::String(text) => Key::String(text.clone()),
        Const::Int(_) | Const::Decimal(_) | Const::Text(_) => Key::Number(number(constant)?),
    })
}

/// The number that a comparison reads in a constant, number text included.
fn number(constant: &Const) -> Option<Decimal> {
    constant.value().to_num()?.decimal()
}

impl Interval {
    fn and(self, other: Interval) -> Interval {
        // Of two bounds at one value the one that leaves it out is the tighter.
        let tighter = |ours, theirs, upper: bool| match (ours, theirs) {
            (Bound::Unbounded, other) | (other, Bound::Unbounded) => other,
            (Bound::Included(a) | Bound::Excluded(a), Bound::Included(b) | Bound::Excluded(b)) => {
                let theirs_is_tighter =
                    if a == b { matches!(theirs, Bound::Excluded(_)) } else { (b < a) == upper };
                if theirs_is_tighter { theirs } else { ours }
            }
        };
        Interval { low: tighter(self.low, other.low, false), high: tighter(self.high, other.high, true) }
    }
}

impl Fact {
    fn value<'v>(self, event: &Event<'v>) -> Value<'v> {
        let text = match self {
            Fact::Topic => Some(event.topic),
            Fact::TopicLevel(level) => event.topic.split('/').nth(level),
            Fact::ClientId => Some(event.client_id.unwrap_or(NO_CLIENT_ID)),
            Fact::Username => event.username,
            Fact::Qos => return Value::Int(i64::from(event.qos)),
        };
        text.map_or(Value::Undefined, |text| Value::String(Cow::Borrowed(text)))
    }
}
