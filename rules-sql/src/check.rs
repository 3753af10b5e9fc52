//! From the tree as written to the checked tree: the only place that refuses a well-formed statement.
//!
//! Names resolve statically: a bare name is a field of the payload, or of the element inside a nested SELECT, never
//! both; a device cannot shadow what a rule means by putting a key into its payload.

use regex::{Regex, RegexBuilder};

use crate::certain;
use crate::codes;
use crate::error::Fault;
use crate::eval::like;
use crate::functions::{self, Elsewhere, Function, Param, Takes};
use crate::json::write_string;
use crate::limits::Limits;
use crate::plan::{
    Const, Content, Expr, Item, Member, Op, Pattern, Plan, Projection, Query, QueryProjection, RegexAction,
    Step, Target,
};
use crate::syntax::ast::{self, CompareOp, ExprKind, Name, Span};
use crate::value::number::Num;

/// Deepest built Objects through dotted aliases and paths.
const ALIAS_STEPS: usize = 64;

/// Nesting beyond this would need more stack than a worker thread has, whatever is configured.
pub(crate) const DEPTH_MAX: usize = 64;

/// The nesting that is allowed.
pub(crate) fn nesting(limits: &Limits) -> usize {
    limits.depth.min(DEPTH_MAX)
}

/// A statement that was checked.
pub(crate) struct Checked {
    /// The Topic Filters of FROM, in order.
    pub(crate) filters: Vec<String>,
    pub(crate) variables: Vec<Variable>,
    pub(crate) plan: Plan,
    /// What is allowed but hardly meant.
    pub(crate) warnings: Vec<Fault>,
}

/// Checks a statement.
pub(crate) fn statement(statement: &ast::Statement, limits: &Limits) -> Result<Checked, Fault> {
    let filters = statement.select.source.iter().map(filter).collect::<Result<Vec<_>, _>>()?;
    let mut checker = Checker::new(limits, Vec::new(), Place::Rule);
    let mut variables = Vec::new();
    for variable in &statement.variables {
        if let Some(first) = checker.variables.iter().find(|v| v.name == variable.name.text) {
            let message = format!("variable {} is assigned twice", first.name);
            return Err(Fault::new(codes::VARIABLE_TWICE, variable.name.span, message));
        }
        checker.reads_payload = false;
        checker.deepest = 0;
        variables.push(checker.expr(&variable.value)?);
        let (name, reads_payload, depth) =
            (variable.name.text.clone(), checker.reads_payload, checker.deepest);
        checker.variables.push(Variable { name, reads_payload, depth });
    }
    let mut guard = Vec::new();
    let mut condition = Vec::new();
    let mut condition_reads_payload = false;
    let condition_span = statement.select.condition.as_ref().map(|root| root.span).unwrap_or_default();
    if let Some(root) = &statement.select.condition {
        let conjuncts = match &root.kind {
            ExprKind::And(operands) => operands.as_slice(),
            _ => std::slice::from_ref(root),
        };
        for conjunct in conjuncts {
            checker.reads_payload = false;
            checker.reads_variable = false;
            let checked = checker.expr(conjunct)?;
            // A constant that is all of WHERE needs no type to be seen through.
            if conjuncts.len() > 1 || !matches!(checked.op, Op::Const(_)) {
                certain::condition(&checked, "WHERE", &mut checker.warnings);
            }
            condition_reads_payload |= checker.reads_payload;
            // A variable has one value for the whole evaluation; those of the guard don't outlive it.
            let guards = !checker.reads_payload && !checker.reads_variable;
            if guards { guard.push(checked) } else { condition.push(checked) }
        }
    }
    checker.reads_payload = false;
    let projection = checker.projection(&statement.select)?;
    let reads_payload = condition_reads_payload || checker.reads_payload;
    let plan = Plan { variables, guard, condition, condition_span, projection, reads_payload };
    Ok(Checked { filters, variables: checker.variables, plan, warnings: checker.warnings })
}

/// An expression of a template that was checked.
pub(crate) struct CheckedExpr {
    pub(crate) expr: Expr,
    pub(crate) reads_payload: bool,
    /// What is allowed but hardly meant.
    pub(crate) warnings: Vec<Fault>,
}

/// Checks one expression of a template.
pub(crate) fn template_expression(
    expr: &ast::Expr,
    variables: &[Variable],
    limits: &Limits,
) -> Result<CheckedExpr, Fault> {
    let mut checker = Checker::new(limits, variables.to_vec(), Place::Template);
    let expr = checker.expr(expr)?;
    Ok(CheckedExpr { expr, reads_payload: checker.reads_payload, warnings: checker.warnings })
}

/// A SET variable by name.
#[derive(Clone, Debug)]
pub(crate) struct Variable {
    pub(crate) name: String,
    pub(crate) reads_payload: bool,
    /// Nesting of its expression, that of the variables in it included.
    depth: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Rule,
    Template,
}

fn filter(name: &Name) -> Result<String, Fault> {
    let text = &name.text;
    // `$share/…` is a way to subscribe, not a filter a rule could match messages with.
    let text = match text.strip_prefix("$share/") {
        Some(_) => Err("a shared subscription cannot be a rule's filter".to_owned()),
        None => mqtt_protocol::validate_topic_filter(text).map(|()| text).map_err(|error| error.to_string()),
    };
    match text {
        Ok(text) => Ok(text.clone()),
        Err(reason) => Err(Fault::new(
            codes::FILTER,
            name.span,
            format!("invalid topic filter {:?}: {reason}", name.text),
        )),
    }
}

struct Checker<'l> {
    limits: &'l Limits,
    variables: Vec<Variable>,
    place: Place,
    depth: usize,
    /// The deepest point since it was last set to 0, variables included.
    deepest: usize,
    /// Inside a nested SELECT: the alias of its element, if it has one.
    element: Option<Option<String>>,
    /// Set when what was just checked reads the payload.
    reads_payload: bool,
    /// Set when what was just checked reads a variable.
    reads_variable: bool,
    warnings: Vec<Fault>,
}

impl<'l> Checker<'l> {
    fn new(limits: &'l Limits, variables: Vec<Variable>, place: Place) -> Checker<'l> {
        Checker {
            limits,
            variables,
            place,
            depth: 0,
            deepest: 0,
            element: None,
            reads_payload: false,
            reads_variable: false,
            warnings: Vec::new(),
        }
    }

    fn projection(&mut self, select: &ast::Select<Vec<Name>>) -> Result<Projection, Fault> {
        if select.value {
            return match self.single(select)? {
                ast::Item::Star(_) => {
                    self.reads_payload = true;
                    Ok(Projection::Payload)
                }
                ast::Item::Expr { value, .. } => Ok(Projection::Value(self.expr(value)?)),
            };
        }
        if let [ast::Item::Star(_)] = select.items.as_slice() {
            self.reads_payload = true;
            return Ok(Projection::Payload);
        }
        let items = self.items(&select.items)?;
        let single = |item: &Item| matches!(item, Item::Value { path, .. } if path.len() == 1);
        Ok(match items.split_first() {
            _ if shape(&items) => Projection::Shape(members(items)),
            Some((Item::Star, rest)) if rest.iter().all(single) && shape(rest) => {
                Projection::StarAnd(members(items))
            }
            _ => Projection::Merge(items),
        })
    }

    fn single<'s, S>(&self, select: &'s ast::Select<S>) -> Result<&'s ast::Item, Fault> {
        match select.items.as_slice() {
            [ast::Item::Expr { alias, .. }] if !alias.is_empty() => {
                let span = alias.first().map(|name| name.span).unwrap_or_default();
                Err(Fault::new(codes::SELECT_VALUE, span, "an item of SELECT VALUE has no alias"))
            }
            [item] => Ok(item),
            items => {
                let message = format!("SELECT VALUE takes one item, {} given", items.len());
                Err(Fault::new(codes::SELECT_VALUE, select.span, message))
            }
        }
    }

    fn items(&mut self, items: &[ast::Item]) -> Result<Vec<Item>, Fault> {
        items
            .iter()
            .map(|item| match item {
                ast::Item::Star(_) => {
                    self.reads_payload |= self.element.is_none();
                    Ok(Item::Star)
                }
                ast::Item::Expr { value, alias } => {
                    let path = if alias.is_empty() {
                        implied_path(value)?
                    } else {
                        alias.iter().map(|name| name.text.clone().into()).collect()
                    };
                    if path.len() > ALIAS_STEPS {
                        let message =
                            format!("alias of {} steps exceeds the limit of {ALIAS_STEPS}", path.len());
                        return Err(Fault::new(codes::NESTING, value.span, message));
                    }
                    Ok(Item::Value { path, value: self.expr(value)? })
                }
            })
            .collect()
    }

    fn expr(&mut self, e: &ast::Expr) -> Result<Expr, Fault> {
        if self.depth >= nesting(self.limits) {
            let message = format!("expression is nested deeper than the limit of {}", nesting(self.limits));
            return Err(Fault::new(codes::NESTING, e.span, message));
        }
        self.depth += 1;
        self.deepest = self.deepest.max(self.depth);
        let result = self.op(e);
        self.depth -= 1;
        let expr = Expr { op: result?, span: e.span };
        if self.depth == 0 {
            certain::types(&expr, &mut self.warnings);
        }
        Ok(expr)
    }

    fn boxed(&mut self, e: &ast::Expr) -> Result<Box<Expr>, Fault> {
        self.expr(e).map(Box::new)
    }

    fn all(&mut self, items: &[ast::Expr]) -> Result<Vec<Expr>, Fault> {
        items.iter().map(|item| self.expr(item)).collect()
    }

    fn optional(&mut self, e: Option<&ast::Expr>) -> Result<Option<Box<Expr>>, Fault> {
        e.map(|e| self.boxed(e)).transpose()
    }

    fn branches(&mut self, branches: &[(ast::Expr, ast::Expr)]) -> Result<Vec<(Expr, Expr)>, Fault> {
        branches.iter().map(|(when, then)| Ok((self.expr(when)?, self.expr(then)?))).collect()
    }

    fn op(&mut self, e: &ast::Expr) -> Result<Op, Fault> {
        Ok(match &e.kind {
            ExprKind::Null => Op::Const(Const::Null),
            ExprKind::Bool(value) => Op::Const(Const::Bool(*value)),
            ExprKind::Number(text) => Op::Const(number(text, e.span)?),
            ExprKind::String(text) => Op::Const(Const::String(text.clone().into())),
            ExprKind::Name(name) => self.field(name, &[]),
            ExprKind::Variable(name) => self.variable(name, e.span)?,
            ExprKind::Star => {
                self.reads_payload |= self.element.is_none();
                Op::Star
            }
            ExprKind::Array(items) => {
                refuse_star(items)?;
                Op::Array(self.all(items)?)
            }
            ExprKind::Object(members) => Op::Object(
                members
                    .iter()
                    .map(|(key, value)| Ok((key.clone().into(), self.expr(value)?)))
                    .collect::<Result<_, Fault>>()?,
            ),
            ExprKind::Call { name, args } => self.call(name, args, e.span)?,
            ExprKind::Cast { value, target } => {
                Op::Cast { value: self.boxed(value)?, target: cast_target(target)? }
            }
            ExprKind::Case { subject: Some(subject), branches, otherwise } => Op::CaseOf {
                subject: self.boxed(subject)?,
                branches: self.branches(branches)?,
                otherwise: self.optional(otherwise.as_deref())?,
            },
            ExprKind::Case { subject: None, branches, otherwise } => Op::CaseWhen {
                branches: self.branches(branches)?,
                otherwise: self.optional(otherwise.as_deref())?,
            },
            ExprKind::Path { root, steps } => self.path(root, steps)?,
            ExprKind::Negate(value) => match &value.kind {
                ExprKind::Number(text) => Op::Const(number(&format!("-{text}"), e.span)?),
                _ => Op::Negate(self.boxed(value)?),
            },
            ExprKind::Plus(value) => Op::Plus(self.boxed(value)?),
            ExprKind::Not(value) => Op::Not(self.boxed(value)?),
            ExprKind::And(operands) => Op::And(self.all(operands)?),
            ExprKind::Or(operands) => Op::Or(self.all(operands)?),
            ExprKind::Compare { op, left, right } => {
                let (left, right) = (self.boxed(left)?, self.boxed(right)?);
                let bound = match (op, &right.op) {
                    (CompareOp::TopicMatch, _) => None,
                    (_, Op::Const(constant)) => constant.value().number(),
                    _ => None,
                };
                Op::Compare { op: *op, left, right, bound }
            }
            ExprKind::Arithmetic { first, rest } => Op::Arithmetic {
                first: self.boxed(first)?,
                rest: rest
                    .iter()
                    .map(|(op, operand)| Ok((*op, self.expr(operand)?)))
                    .collect::<Result<_, Fault>>()?,
            },
            ExprKind::In { value, among: ast::Among::List(items), negated } => {
                refuse_star(items)?;
                Op::InList { value: self.boxed(value)?, items: self.all(items)?, negated: *negated }
            }
            ExprKind::In { value, among: ast::Among::Value(array), negated } => {
                Op::InValue { value: self.boxed(value)?, array: self.boxed(array)?, negated: *negated }
            }
            ExprKind::Between { value, low, high, negated } => Op::Between {
                value: self.boxed(value)?,
                low: self.boxed(low)?,
                high: self.boxed(high)?,
                negated: *negated,
            },
            ExprKind::Like { value, pattern, escape, negated } => Op::Like {
                value: self.boxed(value)?,
                pattern: match &pattern.kind {
                    ExprKind::String(text) => Pattern::Literal(like(text, *escape).ok_or_else(|| {
                        Fault::new(codes::ESCAPE, pattern.span, "the escape character ends the pattern")
                    })?),
                    _ => Pattern::Dynamic { pattern: self.boxed(pattern)?, escape: *escape },
                },
                negated: *negated,
            },
            ExprKind::Exists(query) => Op::Exists(self.query(query)?),
            ExprKind::Subquery(query) => Op::Query(self.query(query)?),
        })
    }

    /// A bare name, and the names after it, by the scope it stands in.
    fn field(&mut self, name: &str, more: &[&str]) -> Op {
        let names = |first: Option<&str>| -> Box<[Box<str>]> {
            first.into_iter().chain(more.iter().copied()).map(Box::from).collect()
        };
        match &self.element {
            Some(Some(alias)) if alias == name => Op::Element(names(None)),
            Some(_) => Op::Element(names(Some(name))),
            None => {
                self.reads_payload = true;
                Op::Field(names(Some(name)))
            }
        }
    }

    fn variable(&mut self, name: &str, span: Span) -> Result<Op, Fault> {
        let Some(place) = self.variables.iter().position(|v| v.name == name) else {
            let message = format!("unknown variable {name}");
            let known: Vec<&str> = self.variables.iter().map(|v| v.name.as_str()).collect();
            let mut fault = Fault::new(codes::UNKNOWN_VARIABLE, span, message);
            fault.hint = nearest(name, known.iter().copied()).map(|near| format!("did you mean {near}?"));
            return Err(fault);
        };
        self.reads_variable = true;
        if let Some(variable) = self.variables.get(place) {
            self.reads_payload |= variable.reads_payload;
            // Evaluation walks into variables, and what they build nests as they do.
            self.deepest = self.deepest.max(self.depth + variable.depth);
            let limit = nesting(self.limits) * 2;
            if self.deepest > limit {
                let message = format!("expression is nested deeper than {limit} through its variables");
                return Err(Fault::new(codes::NESTING, span, message));
            }
        }
        Ok(Op::Variable(place))
    }

    fn path(&mut self, root: &ast::Expr, steps: &[ast::Step]) -> Result<Op, Fault> {
        // The names right after a bare name are one walk; what follows an index is stepped over one by one.
        let names: Vec<&str> = match root.kind {
            ExprKind::Name(_) => steps.iter().map_while(member_name).collect(),
            _ => Vec::new(),
        };
        let rest = steps.get(names.len()..).unwrap_or_default();
        let root = match &root.kind {
            ExprKind::Name(name) => {
                let span = names
                    .len()
                    .checked_sub(1)
                    .and_then(|last| steps.get(last))
                    .map_or(root.span, |step| root.span.to(step.span()));
                let op = self.field(name, &names);
                if rest.is_empty() {
                    return Ok(op);
                }
                Expr { op, span }
            }
            _ => self.expr(root)?,
        };
        let steps = rest
            .iter()
            .map(|step| {
                Ok(match step {
                    ast::Step::Member(name) => Step::Member(name.text.clone().into()),
                    ast::Step::Element(index) => Step::Element(self.expr(index)?),
                })
            })
            .collect::<Result<_, Fault>>()?;
        Ok(Op::Steps { root: Box::new(root), steps })
    }

    fn query(&mut self, select: &ast::Select<ast::Collection>) -> Result<Box<Query>, Fault> {
        let source = &select.source.value;
        match source.kind {
            ExprKind::Name(_) | ExprKind::Path { .. } | ExprKind::Variable(_) | ExprKind::Call { .. } => {}
            ExprKind::Subquery(_) | ExprKind::Array(_) | ExprKind::Object(_) => {}
            _ => {
                let fault = Fault::new(
                    codes::NESTED_SOURCE,
                    source.span,
                    "FROM of a nested SELECT names an array or object",
                );
                return Err(fault.with_hint("for example FROM values AS v"));
            }
        }
        let source = self.expr(source)?;
        let alias = select.source.alias.as_ref().map(|name| name.text.clone());
        let outer = self.element.replace(alias);
        let inner = self.query_inner(select);
        self.element = outer;
        let (condition, projection) = inner?;
        Ok(Box::new(Query { source, condition, projection }))
    }

    fn query_inner(
        &mut self,
        select: &ast::Select<ast::Collection>,
    ) -> Result<(Option<Expr>, QueryProjection), Fault> {
        let condition = select.condition.as_ref().map(|e| self.expr(e)).transpose()?;
        let projection = if select.value {
            QueryProjection::Value(match self.single(select)? {
                ast::Item::Star(span) => Expr { op: Op::Element(Box::default()), span: *span },
                ast::Item::Expr { value, .. } => self.expr(value)?,
            })
        } else if let [ast::Item::Star(span)] = select.items.as_slice() {
            QueryProjection::Value(Expr { op: Op::Element(Box::default()), span: *span })
        } else {
            QueryProjection::Items(self.items(&select.items)?)
        };
        Ok((condition, projection))
    }

    fn call(&mut self, name: &Name, args: &[ast::Expr], span: Span) -> Result<Op, Fault> {
        let lower = name.text.to_ascii_lowercase();
        if lower == "output" {
            if self.place != Place::Template {
                return Err(Fault::new(codes::OUTPUT, name.span, "output() is for templates of actions"));
            }
            arity(name, span, 0, 0, args.len(), || "output()".to_owned())?;
            return Ok(Op::Output);
        }
        let function = function(name, &lower)?;
        arity(name, span, function.min(), function.max(), args.len(), || function.usage(&name.text))?;
        for (arg, param) in args.iter().zip(function.params(args.len())) {
            if arg.kind == ExprKind::Star && !param.star {
                let message = format!("{}() does not take * here", function.name);
                return Err(Fault::new(codes::STAR, arg.span, message));
            }
            word(function, param, arg)?;
        }
        if let Some(op) = self.regex_call(function.name, args)? {
            return Ok(op);
        }
        Ok(Op::Call { function, args: self.all(args)? })
    }

    fn regex_call(&mut self, name: &str, args: &[ast::Expr]) -> Result<Option<Op>, Fault> {
        let action = match name {
            "regexp_matches" => RegexAction::Matches,
            "regexp_substr" => RegexAction::Substring,
            "regexp_replace" => RegexAction::Replace,
            _ => return Ok(None),
        };
        let (Some(text), Some(pattern)) = (args.first(), args.get(1)) else { return Ok(None) };
        let ExprKind::String(literal) = &pattern.kind else { return Ok(None) };
        let regex = match regex(literal, self.limits.regex_bytes) {
            Ok(regex) => regex,
            Err(regex::Error::CompiledTooBig(limit)) => {
                let message = format!("pattern compiles to more than {limit} bytes");
                return Err(Fault::new(codes::PATTERN, pattern.span, message));
            }
            // An invalid pattern is Undefined by the dialect's table; look-around and back-references are valid
            // elsewhere, so their author expects them to work and is told.
            Err(error) => {
                let reason = error.to_string();
                if reason.contains("look-around") || reason.contains("backreferences") {
                    let fault = Fault::new(
                        codes::PATTERN,
                        pattern.span,
                        "look-around and back-references are not supported in patterns",
                    );
                    return Err(fault);
                }
                return Ok(None);
            }
        };
        Ok(Some(Op::Regex {
            action,
            text: self.boxed(text)?,
            regex: Box::new(regex),
            replacement: args.get(2).map(|arg| self.boxed(arg)).transpose()?,
        }))
    }
}

/// Compiles a pattern within a size. The engine takes linear time.
pub(crate) fn regex(pattern: &str, bytes: usize) -> Result<Regex, regex::Error> {
    RegexBuilder::new(pattern).size_limit(bytes).dfa_size_limit(bytes).nest_limit(64).build()
}

fn member_name(step: &ast::Step) -> Option<&str> {
    match step {
        ast::Step::Member(name) => Some(&name.text),
        ast::Step::Element(_) => None,
    }
}

fn number(text: &str, span: Span) -> Result<Const, Fault> {
    Ok(match Num::parse(text) {
        Some(Num::Int(value)) if value.to_string() == text => Const::Int(value),
        Some(Num::Decimal(value)) if value.text() == text => Const::Decimal(value),
        Some(_) => Const::Text(text.into()),
        None => {
            return Err(Fault::new(
                codes::NUMBER,
                span,
                "number is out of range, its exponent lies within 999",
            ));
        }
    })
}

fn refuse_star(items: &[ast::Expr]) -> Result<(), Fault> {
    match items.iter().find(|item| item.kind == ExprKind::Star) {
        Some(star) => Err(Fault::new(codes::STAR, star.span, "* is not allowed here")),
        None => Ok(()),
    }
}

/// The key of an item without alias: a name, or a path of names in its shape.
fn implied_path(value: &ast::Expr) -> Result<Vec<Box<str>>, Fault> {
    let missing = || {
        let fault = Fault::new(codes::UNNAMED_ITEM, value.span, "this item needs a name");
        fault.with_hint("add AS name")
    };
    match &value.kind {
        ExprKind::Name(name) => Ok(vec![name.clone().into()]),
        ExprKind::Path { root, steps } => {
            let ExprKind::Name(name) = &root.kind else { return Err(missing()) };
            let mut path = vec![Box::from(name.as_str())];
            for step in steps {
                path.push(member_name(step).ok_or_else(missing)?.into());
            }
            Ok(path)
        }
        _ => Err(missing()),
    }
}

fn cast_target(name: &Name) -> Result<Target, Fault> {
    Ok(match name.text.to_ascii_lowercase().as_str() {
        "string" | "nvarchar" | "text" | "ntext" | "varchar" => Target::String,
        "int" | "integer" => Target::Int,
        "double" | "decimal" => Target::Decimal,
        "bool" | "boolean" => Target::Boolean,
        _ => {
            let fault = Fault::new(codes::CAST_TYPE, name.span, format!("unknown type {}", name.text));
            return Err(fault.with_hint("String, Int, Decimal or Boolean"));
        }
    })
}

/// Refuses a constant where one of a few words belongs.
fn word(function: &Function, param: &Param, arg: &ast::Expr) -> Result<(), Fault> {
    let Takes::Word(words) = param.takes else { return Ok(()) };
    let given = match &arg.kind {
        ExprKind::String(text) if words.contains(&text.as_str()) => return Ok(()),
        ExprKind::String(text) => format!("'{text}'"),
        ExprKind::Number(text) => text.clone(),
        ExprKind::Bool(value) => value.to_string(),
        ExprKind::Null => "NULL".to_owned(),
        _ => return Ok(()),
    };
    let message = format!("{}() knows no {} {given}", function.name, param.name);
    let hint = match words {
        [word] => format!("the {} is '{word}'", param.name),
        words => format!("the {} is one of {}", param.name, functions::list(words)),
    };
    Err(Fault::new(codes::UNKNOWN_WORD, arg.span, message).with_hint(hint))
}

fn arity(
    name: &Name,
    span: Span,
    min: usize,
    max: usize,
    given: usize,
    usage: impl FnOnce() -> String,
) -> Result<(), Fault> {
    if (min..=max).contains(&given) {
        return Ok(());
    }
    let wanted = match (min, max) {
        (0, 0) => "no arguments".to_owned(),
        (1, 1) => "1 argument".to_owned(),
        (min, max) if min == max => format!("{min} arguments"),
        (1, usize::MAX) => "at least 1 argument".to_owned(),
        (min, usize::MAX) => format!("at least {min} arguments"),
        (min, max) if max == min + 1 => format!("{min} or {max} arguments"),
        (min, max) => format!("{min} to {max} arguments"),
    };
    let message = format!("function {} takes {wanted}, {given} given", name.text);
    Err(Fault::new(codes::ARGUMENTS, span, message).with_hint(usage()))
}

fn function(name: &Name, lower: &str) -> Result<&'static Function, Fault> {
    if let Some(function) = functions::find(lower) {
        return Ok(function);
    }
    let unknown =
        || Fault::new(codes::UNKNOWN_FUNCTION, name.span, format!("unknown function {}", name.text));
    match functions::elsewhere(lower) {
        Some(Elsewhere::Instead(hint)) => return Err(unknown().with_hint(hint)),
        Some(Elsewhere::Refused(hint)) => {
            let message = format!("function {} is not supported", name.text);
            let fault = Fault::new(codes::UNSUPPORTED_FUNCTION, name.span, message);
            return Err(if hint.is_empty() { fault } else { fault.with_hint(hint) });
        }
        None => {}
    }
    let mut fault = unknown();
    fault.hint = nearest(lower, functions::names()).map(|near| format!("did you mean {near}?"));
    Err(fault)
}

/// The name closest to `word`, if any is close.
pub(crate) fn nearest<'n>(word: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    if word.len() > 64 {
        return None;
    }
    let word = word.to_ascii_lowercase();
    names
        .map(|name| (edit_distance(&word, &name.to_ascii_lowercase()), name))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, name)| *distance <= 1 + name.len() / 4)
        .map(|(_, name)| name)
}

/// Insertions, deletions, substitutions; a swap of neighbours counts as two.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, y) in row.iter_mut().skip(1).zip(&b) {
            let best = (diagonal + usize::from(x != *y)).min(left + 1).min(*cell + 1);
            diagonal = std::mem::replace(cell, best);
            left = best;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

/// Whether the output can be written item by item: no `*`, and no path is another's beginning.
fn shape(items: &[Item]) -> bool {
    let mut paths: Vec<&[Box<str>]> = Vec::with_capacity(items.len());
    for item in items {
        let Item::Value { path, .. } = item else { return false };
        paths.push(path);
    }
    paths.sort_unstable();
    paths.windows(2).all(|pair| match pair {
        [a, b] => !b.starts_with(a),
        _ => true,
    })
}

fn members(items: Vec<Item>) -> Vec<Member> {
    let mut members = Vec::new();
    for item in items {
        if let Item::Value { path, value } = item {
            place(&mut members, &path, value);
        }
    }
    members
}

fn place(members: &mut Vec<Member>, path: &[Box<str>], value: Expr) {
    let Some((key, rest)) = path.split_first() else { return };
    if rest.is_empty() {
        members.push(member(key, Content::Value(value)));
        return;
    }
    if !members.iter().any(|member| member.key == *key) {
        members.push(member(key, Content::Members(Vec::new())));
    }
    if let Some(Member { content: Content::Members(inner), .. }) = members.iter_mut().find(|m| m.key == *key)
    {
        place(inner, rest, value);
    }
}

fn member(key: &str, content: Content) -> Member {
    let mut key_json = Vec::new();
    write_string(key, &mut key_json);
    key_json.push(b':');
    Member { key: key.into(), key_json: key_json.into(), content }
}
