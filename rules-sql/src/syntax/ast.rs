//! The tree of a statement as written: no name is resolved, nothing is checked.
//!
//! Chains of one strength are flat (`a + b - c` is one node), so that the depth of a tree is the nesting its author
//! wrote. Two trees are equal whatever their places in the text.

/// A byte range of the statement. Equal to every other, so that trees compare by content.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Span {
    pub(crate) start: usize,
    pub(crate) end: usize,
}

impl PartialEq for Span {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Span {
    pub(crate) fn to(self, other: Span) -> Span {
        Span { start: self.start.min(other.start), end: self.end.max(other.end) }
    }
}

/// A word with its place.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Name {
    pub(crate) text: String,
    pub(crate) span: Span,
}

/// `[SET …] SELECT …`
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Statement {
    pub(crate) variables: Vec<Variable>,
    pub(crate) select: Select<Vec<Name>>,
}

/// `@name = value`; the name with its `@`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Variable {
    pub(crate) name: Name,
    pub(crate) value: Expr,
}

/// A SELECT over a `Source`: Topic Filters, or a value of the enclosing scope.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Select<Source> {
    /// `SELECT VALUE`.
    pub(crate) value: bool,
    pub(crate) items: Vec<Item>,
    pub(crate) source: Source,
    pub(crate) condition: Option<Expr>,
    pub(crate) span: Span,
}

/// What a nested SELECT runs over.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Collection {
    pub(crate) value: Expr,
    pub(crate) alias: Option<Name>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Item {
    Star(Span),
    Expr { value: Expr, alias: Vec<Name> },
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Expr {
    pub(crate) kind: ExprKind,
    pub(crate) span: Span,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ExprKind {
    Null,
    Bool(bool),
    /// JSON number text without a sign.
    Number(String),
    String(String),
    Name(String),
    /// With its `@`.
    Variable(String),
    /// `*` as an argument or a member of an Object.
    Star,
    Array(Vec<Expr>),
    Object(Vec<(String, Expr)>),
    Call {
        name: Name,
        args: Vec<Expr>,
    },
    Cast {
        value: Box<Expr>,
        target: Name,
    },
    Case {
        subject: Option<Box<Expr>>,
        branches: Vec<(Expr, Expr)>,
        otherwise: Option<Box<Expr>>,
    },
    Path {
        root: Box<Expr>,
        steps: Vec<Step>,
    },
    Negate(Box<Expr>),
    Plus(Box<Expr>),
    Not(Box<Expr>),
    /// Two or more operands.
    And(Vec<Expr>),
    /// Two or more operands.
    Or(Vec<Expr>),
    Compare {
        op: CompareOp,
        left: Box<Expr>,
        right: Box<Expr>,
    },
    /// Left to right, whatever the operators: `(a * b) + c`.
    Arithmetic {
        first: Box<Expr>,
        rest: Vec<(ArithmeticOp, Expr)>,
    },
    In {
        value: Box<Expr>,
        among: Among,
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
        pattern: Box<Expr>,
        escape: Option<char>,
        negated: bool,
    },
    Exists(Box<Select<Collection>>),
    Subquery(Box<Select<Collection>>),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Step {
    Member(Name),
    Element(Expr),
}

impl Step {
    pub(crate) fn span(&self) -> Span {
        match self {
            Step::Member(name) => name.span,
            Step::Element(index) => index.span,
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Among {
    List(Vec<Expr>),
    Value(Box<Expr>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CompareOp {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    /// `=~`: a Topic Name against a Topic Filter.
    TopicMatch,
}

impl CompareOp {
    pub(crate) fn text(self) -> &'static str {
        match self {
            CompareOp::Equal => "=",
            CompareOp::NotEqual => "<>",
            CompareOp::Less => "<",
            CompareOp::LessOrEqual => "<=",
            CompareOp::Greater => ">",
            CompareOp::GreaterOrEqual => ">=",
            CompareOp::TopicMatch => "=~",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ArithmeticOp {
    Add,
    Subtract,
    Concat,
    Multiply,
    Divide,
    Remainder,
    /// `div`: the whole part of the quotient.
    DivideWhole,
}

impl ArithmeticOp {
    pub(crate) fn text(self) -> &'static str {
        match self {
            ArithmeticOp::Add => "+",
            ArithmeticOp::Subtract => "-",
            ArithmeticOp::Concat => "||",
            ArithmeticOp::Multiply => "*",
            ArithmeticOp::Divide => "/",
            ArithmeticOp::Remainder => "%",
            ArithmeticOp::DivideWhole => "div",
        }
    }

    /// Whether the operator binds like `*`, not like `+`.
    pub(crate) fn is_product(self) -> bool {
        matches!(
            self,
            ArithmeticOp::Multiply
                | ArithmeticOp::Divide
                | ArithmeticOp::Remainder
                | ArithmeticOp::DivideWhole
        )
    }
}

impl Expr {
    /// Calls `visit` with every expression right below this one that sees the same names: of a nested SELECT, only
    /// what it runs over.
    pub(crate) fn for_each_part<'e>(&'e self, visit: &mut dyn FnMut(&'e Expr)) {
        match &self.kind {
            ExprKind::Null
            | ExprKind::Bool(_)
            | ExprKind::Number(_)
            | ExprKind::String(_)
            | ExprKind::Name(_)
            | ExprKind::Variable(_)
            | ExprKind::Star => {}
            ExprKind::Array(items)
            | ExprKind::And(items)
            | ExprKind::Or(items)
            | ExprKind::Call { args: items, .. } => items.iter().for_each(visit),
            ExprKind::Object(members) => members.iter().for_each(|(_, value)| visit(value)),
            ExprKind::Cast { value, .. }
            | ExprKind::Negate(value)
            | ExprKind::Plus(value)
            | ExprKind::Not(value) => visit(value),
            ExprKind::Case { subject, branches, otherwise } => {
                subject.iter().for_each(|subject| visit(subject));
                for (when, then) in branches {
                    visit(when);
                    visit(then);
                }
                otherwise.iter().for_each(|otherwise| visit(otherwise));
            }
            ExprKind::Path { root, steps } => {
                visit(root);
                for step in steps {
                    if let Step::Element(index) = step {
                        visit(index);
                    }
                }
            }
            ExprKind::Compare { left, right, .. } => {
                visit(left);
                visit(right);
            }
            ExprKind::Arithmetic { first, rest } => {
                visit(first);
                rest.iter().for_each(|(_, operand)| visit(operand));
            }
            ExprKind::In { value, among, .. } => {
                visit(value);
                match among {
                    Among::List(items) => items.iter().for_each(visit),
                    Among::Value(array) => visit(array),
                }
            }
            ExprKind::Between { value, low, high, .. } => {
                visit(value);
                visit(low);
                visit(high);
            }
            ExprKind::Like { value, pattern, .. } => {
                visit(value);
                visit(pattern);
            }
            ExprKind::Exists(query) | ExprKind::Subquery(query) => visit(&query.source.value),
        }
    }
}
