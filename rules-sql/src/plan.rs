//! The checked tree: every name, function, variable and pattern is resolved; evaluation only reads.

use regex::Regex;

use crate::functions::Function;
use crate::syntax::ast::{ArithmeticOp, CompareOp, Span};
use crate::value::Value;
use crate::value::decimal::Decimal;
use crate::value::number::Num;
use std::borrow::Cow;

/// What a statement does with a message that FROM selects.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) variables: Vec<Expr>,
    /// The conjuncts of WHERE that need neither payload nor variables: they decide first.
    pub(crate) guard: Vec<Expr>,
    /// The other conjuncts.
    pub(crate) condition: Vec<Expr>,
    /// Where the whole of WHERE stands.
    pub(crate) condition_span: Span,
    pub(crate) projection: Projection,
    /// Whether the condition or the projection looks into the payload.
    pub(crate) reads_payload: bool,
}

/// How the output is made.
#[derive(Debug)]
pub(crate) enum Projection {
    /// `SELECT *`: the payload's bytes as they are.
    Payload,
    /// `SELECT VALUE x`.
    Value(Expr),
    /// Keys known and free of conflicts: written as it goes.
    Shape(Vec<Member>),
    /// `*`, then items whose keys are single names and differ: written as it goes.
    StarAnd(Vec<Member>),
    /// `*` in other places, or keys that meet: an Object is built first.
    Merge(Vec<Item>),
}

/// A member of the output whose key is settled.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) key: Box<str>,
    /// `"key":` ready to be written.
    pub(crate) key_json: Box<[u8]>,
    pub(crate) content: Content,
}

#[derive(Debug)]
pub(crate) enum Content {
    Value(Expr),
    Members(Vec<Member>),
}

#[derive(Debug)]
pub(crate) enum Item {
    Star,
    Value { path: Vec<Box<str>>, value: Expr },
}

/// A nested SELECT.
#[derive(Debug)]
pub(crate) struct Query {
    pub(crate) source: Expr,
    pub(crate) condition: Option<Expr>,
    pub(crate) projection: QueryProjection,
}

#[derive(Debug)]
pub(crate) enum QueryProjection {
    Value(Expr),
    Items(Vec<Item>),
}

#[derive(Debug)]
pub(crate) enum Const {
    Null,
    Bool(bool),
    Int(i64),
    Decimal(Decimal),
    /// A number whose text says more than its value: `10.0`.
    Text(Box<str>),
    String(Box<str>),
}

impl Const {
    pub(crate) fn value(&self) -> Value<'_> {
        match self {
            Const::Null => Value::Null,
            Const::Bool(value) => Value::Bool(*value),
            Const::Int(value) => Value::Int(*value),
            Const::Decimal(value) => Value::Decimal(*value),
            Const::Text(text) => Value::Text(Cow::Borrowed(text)),
            Const::String(text) => Value::String(Cow::Borrowed(text)),
        }
    }
}

/// An expression and where its text stands in the statement, or in the template.
#[derive(Debug)]
pub(crate) struct Expr {
    pub(crate) op: Op,
    pub(crate) span: Span,
}

/// What an expression does.
#[derive(Debug)]
pub(crate) enum Op {
    Const(Const),
    /// `*`: the payload as a value, or the element inside a nested SELECT.
    Star,
    /// A path of names into the payload, at least one.
    Field(Box<[Box<str>]>),
    /// A path of names into the element of the nested SELECT around it; empty: the element.
    Element(Box<[Box<str>]>),
    Variable(usize),
    Steps {
        root: Box<Expr>,
        steps: Vec<Step>,
    },
    Array(Vec<Expr>),
    Object(Vec<(Box<str>, Expr)>),
    Negate(Box<Expr>),
    Plus(Box<Expr>),
    Not(Box<Expr>),
    And(Vec<Expr>),
    Or(Vec<Expr>),
    /// `bound`: the right side when it is a number known now.
    Compare {
        op: CompareOp,
        left: Box<Expr>,
        right: Box<Expr>,
        bound: Option<Num>,
    },
    Arithmetic {
        first: Box<Expr>,
        rest: Vec<(ArithmeticOp, Expr)>,
    },
    InList {
        value: Box<Expr>,
        items: Vec<Expr>,
        negated: bool,
    },
    InValue {
        value: Box<Expr>,
        array: Box<Expr>,
        negated: bool,
    },
    Between {
        value: Box<Expr>,
        low: Box<Expr>,
        high: Box<Expr>,
        negated: bool,
    },
    Like {
        value: Box<Expr>,
        pattern: Pattern,
        negated: bool,
    },
    CaseOf {
        subject: Box<Expr>,
        branches: Vec<(Expr, Expr)>,
        otherwise: Option<Box<Expr>>,
    },
    CaseWhen {
        branches: Vec<(Expr, Expr)>,
        otherwise: Option<Box<Expr>>,
    },
    Exists(Box<Query>),
    Query(Box<Query>),
    Cast {
        value: Box<Expr>,
        target: Target,
    },
    Call {
        function: &'static Function,
        args: Vec<Expr>,
    },
    /// A function of regular expressions whose pattern is a literal.
    Regex {
        action: RegexAction,
        text: Box<Expr>,
        regex: Box<Regex>,
        replacement: Option<Box<Expr>>,
    },
    /// `output()` in a template.
    Output,
}

#[derive(Debug)]
pub(crate) enum Step {
    Member(Box<str>),
    Element(Expr),
}

#[derive(Debug)]
pub(crate) enum Pattern {
    Literal(LikePattern),
    Dynamic { pattern: Box<Expr>, escape: Option<char> },
}

/// A LIKE pattern cut at its `%`.
#[derive(Debug)]
pub(crate) struct LikePattern {
    pub(crate) parts: Vec<Vec<LikeChar>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LikeChar {
    /// `_`
    Any,
    One(char),
}

/// What `cast` makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    String,
    Int,
    Decimal,
    Boolean,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RegexAction {
    Matches,
    Substring,
    Replace,
}
