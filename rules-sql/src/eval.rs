//! Evaluation: a walk over the checked tree. Undefined propagates by the tables; budgets end every walk.

use std::borrow::Cow;
use std::cell::{Cell, OnceCell};
use std::cmp::Ordering;

use regex::Regex;
use smallvec::SmallVec;

use crate::evaluation::Output;
use crate::event::Event;
use crate::json::{Document, Kind, Node};
use crate::meter::Meter;
use crate::plan::{
    Content, Expr, Item, LikeChar, LikePattern, Member, Op, Pattern, Query, QueryProjection, RegexAction,
    Step, Target,
};
use crate::regex_cache;
use crate::replacement::expand;
use crate::syntax::ast::{ArithmeticOp, CompareOp};
use crate::trace::{ELEMENTS_MAX, Trace};
use crate::value::number::Num;
use crate::value::{Object, Type, Value};

/// A pattern that comes with the message may compile to this part of what a literal one may.
const DYNAMIC_REGEX_PART: usize = 16;

/// What an expression is evaluated in. `'v` is the life of the message and the rule, which values borrow from.
#[derive(Clone, Copy)]
pub(crate) struct Scope<'s, 'v> {
    pub(crate) event: &'v Event<'v>,
    /// The payload, when it is JSON and something needs it.
    pub(crate) document: Option<&'v Document<'v>>,
    pub(crate) meter: &'s Meter<'s>,
    pub(crate) random: &'s Random,
    pub(crate) variables: &'s Variables<'v>,
    /// The element of the nested SELECT around the expression.
    pub(crate) element: Option<&'s Value<'v>>,
    /// The SELECT's result, in templates.
    pub(crate) output: Option<&'v Output>,
    /// What takes note of every step, when somebody wants to know why.
    pub(crate) trace: Option<&'s Trace<'v>>,
}

/// SET variables, each computed when first needed.
///
/// Each has random numbers of its own, which begin where the rule's do: WHERE, SELECT and the templates of a rule's
/// actions are evaluated one after the other, and a variable has the same value in all of them.
#[derive(Debug)]
pub(crate) struct Variables<'v> {
    exprs: &'v [Expr],
    seed: u64,
    values: Vec<OnceCell<Value<'v>>>,
}

impl<'v> Variables<'v> {
    pub(crate) fn new(exprs: &'v [Expr], seed: u64) -> Variables<'v> {
        Variables { exprs, seed, values: exprs.iter().map(|_| OnceCell::new()).collect() }
    }
}

/// A generator of random bits from the caller's seed (SplitMix64: passes BigCrush, one word of state).
#[derive(Debug)]
pub(crate) struct Random {
    state: Cell<u64>,
}

impl Random {
    pub(crate) fn new(state: u64) -> Random {
        Random { state: Cell::new(state) }
    }

    pub(crate) fn state(&self) -> u64 {
        self.state.get()
    }

    pub(crate) fn next(&self) -> u64 {
        let state = self.state.get().wrapping_add(0x9E37_79B9_7F4A_7C15);
        self.state.set(state);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}

impl<'s, 'v> Scope<'s, 'v> {
    /// Evaluates one expression.
    pub(crate) fn eval(&self, expr: &'v Expr) -> Value<'v> {
        if !self.meter.step() {
            return Value::Undefined;
        }
        match self.trace {
            None => self.compute(expr),
            Some(trace) => {
                let entry = trace.open(expr);
                let value = self.compute(expr);
                trace.close(entry, &value);
                value
            }
        }
    }

    fn compute(&self, expr: &'v Expr) -> Value<'v> {
        match &expr.op {
            Op::Const(constant) => constant.value(),
            Op::Star => self.star(),
            Op::Field(path) => self.field(path).map_or(Value::Undefined, Value::from_node),
            Op::Element(path) => self.element_field(path),
            Op::Variable(place) => self.variable(*place),
            Op::Steps { root, steps } => self.steps(root, steps),
            Op::Array(items) => self.array(items),
            Op::Object(members) => self.object(members),
            Op::Negate(value) => Value::from_num(self.eval(value).to_num().and_then(Num::negate)),
            Op::Plus(value) => Value::from_num(self.eval(value).to_num()),
            Op::Not(value) => Value::from_bool(self.eval(value).to_bool().map(|b| !b)),
            Op::And(operands) => self.logic(operands, false),
            Op::Or(operands) => self.logic(operands, true),
            Op::Compare { op, left, right, bound } => {
                Value::from_bool(self.compare(*op, left, right, *bound))
            }
            Op::Arithmetic { first, rest } => self.arithmetic(first, rest),
            Op::InList { value, items, negated } => self.in_list(value, items, *negated),
            Op::InValue { value, array, negated } => {
                let value = self.eval(value);
                let array = self.eval(array);
                Value::from_bool(self.in_array(&value, &array).map(|found| found != *negated))
            }
            Op::Between { value, low, high, negated } => self.between(value, low, high, *negated),
            Op::Like { value, pattern, negated } => self.like(value, pattern, *negated),
            Op::CaseOf { subject, branches, otherwise } => {
                self.case_of(subject, branches, otherwise.as_deref())
            }
            Op::CaseWhen { branches, otherwise } => self.case_when(branches, otherwise.as_deref()),
            Op::Exists(query) => self.exists(query),
            Op::Query(query) => self.query(query),
            Op::Cast { value, target } => self.cast(&self.eval(value), *target),
            Op::Call { function, args } => (function.eval)(self, args),
            Op::Regex { action, text, regex, replacement } => {
                let text = self.eval(text);
                let replacement = replacement.as_ref().map(|e| self.eval(e));
                self.regex(*action, &text, regex, replacement.as_ref())
            }
            Op::Output => self.output(),
        }
    }

    /// Whether conditions let a message pass: all of them, in order, up to the first that doesn't.
    pub(crate) fn passes(&self, conditions: impl IntoIterator<Item = &'v Expr>) -> bool {
        conditions.into_iter().all(|expr| self.eval(expr).to_bool() == Some(true))
    }

    /// Evaluates an argument to a number.
    pub(crate) fn num(&self, expr: &'v Expr) -> Option<Num> {
        self.eval(expr).to_num()
    }

    /// Evaluates an argument to a String.
    pub(crate) fn text(&self, expr: &'v Expr) -> Option<Cow<'v, str>> {
        self.eval(expr).to_text(self.meter)
    }

    fn star(&self) -> Value<'v> {
        match self.element {
            Some(element) => element.copy(self.meter),
            None if self.event.payload.is_empty() => Object::default().into_value(),
            None => self.document.and_then(Document::root).map_or(Value::Undefined, Value::from_node),
        }
    }

    fn field(&self, path: &[Box<str>]) -> Option<Node<'v>> {
        let root = self.document?.root()?;
        let mut visited = 0;
        let found = path.iter().try_fold(root, |node, key| node.member(key, &mut visited));
        found.filter(|_| self.meter.passed(visited))
    }

    fn element_field(&self, path: &[Box<str>]) -> Value<'v> {
        let Some(element) = self.element else { return Value::Undefined };
        let Some((first, rest)) = path.split_first() else { return element.copy(self.meter) };
        rest.iter().fold(element.member(first, self.meter), |value, key| value.member(key, self.meter))
    }

    fn variable(&self, place: usize) -> Value<'v> {
        let (Some(cell), Some(expr)) = (self.variables.values.get(place), self.variables.exprs.get(place))
        else {
            return Value::Undefined;
        };
        if let Some(value) = cell.get() {
            return value.copy(self.meter);
        }
        // A variable belongs to the rule, not to the element it is used beside.
        let random = Random::new(self.variables.seed ^ Random::new(place as u64).next());
        let value = Scope { element: None, random: &random, ..*self }.eval(expr);
        cell.get_or_init(|| value).clone()
    }

    fn steps(&self, root: &'v Expr, steps: &'v [Step]) -> Value<'v> {
        let mut value = self.eval(root);
        for step in steps {
            if value.is_undefined() {
                break;
            }
            value = match step {
                Step::Member(key) => value.member(key, self.meter),
                Step::Element(index) => match self.eval(index) {
                    Value::String(key) => value.member(&key, self.meter),
                    index => match index.number() {
                        Some(Num::Int(index)) => value.element(index, self.meter),
                        _ => Value::Undefined,
                    },
                },
            };
        }
        value
    }

    fn array(&self, items: &'v [Expr]) -> Value<'v> {
        Value::array(items.iter().map(|e| self.eval(e)).filter(|v| !v.is_undefined()).collect())
    }

    fn object(&self, members: &'v [(Box<str>, Expr)]) -> Value<'v> {
        let mut object = Object::default();
        for (key, value) in members {
            object.set(Cow::Borrowed(key), self.eval(value));
        }
        object.into_value()
    }

    /// Three-valued: one operand that decides is enough; `decisive` is what decides.
    fn logic(&self, operands: &'v [Expr], decisive: bool) -> Value<'v> {
        let mut unknown = false;
        for operand in operands {
            match self.eval(operand).to_bool() {
                Some(value) if value == decisive => return Value::Bool(decisive),
                Some(_) => {}
                None => unknown = true,
            }
        }
        if unknown { Value::Undefined } else { Value::Bool(!decisive) }
    }

    fn compare(&self, op: CompareOp, left: &'v Expr, right: &'v Expr, bound: Option<Num>) -> Option<bool> {
        let left = self.eval(left);
        if let Some(bound) = bound {
            return match op {
                CompareOp::Equal => equal_to_number(&left, bound),
                CompareOp::NotEqual => equal_to_number(&left, bound).map(|equal| !equal),
                _ => Some(holds(op, left.to_num()?.compare(bound))),
            };
        }
        let right = self.eval(right);
        match op {
            CompareOp::Equal => left.equals(&right, self.meter),
            CompareOp::NotEqual => left.equals(&right, self.meter).map(|equal| !equal),
            CompareOp::TopicMatch => match (&left, &right) {
                (Value::String(topic), Value::String(filter)) => {
                    if mqtt_protocol::validate_topic_filter(filter).is_err() {
                        return None;
                    }
                    Some(mqtt_protocol::matches(filter, topic))
                }
                _ => None,
            },
            _ => left.compare(&right).map(|order| holds(op, order)),
        }
    }

    fn arithmetic(&self, first: &'v Expr, rest: &'v [(ArithmeticOp, Expr)]) -> Value<'v> {
        let mut result = self.eval(first);
        for (op, operand) in rest {
            if !self.meter.step() {
                return Value::Undefined;
            }
            let operand = self.eval(operand);
            result = match op {
                ArithmeticOp::Concat => self.concat(&result, &operand),
                ArithmeticOp::Add
                    if matches!(result, Value::String(_)) || matches!(operand, Value::String(_)) =>
                {
                    self.concat(&result, &operand)
                }
                ArithmeticOp::Add => numeric(result.number(), operand.number(), Num::add),
                ArithmeticOp::Subtract => numeric(result.to_num(), operand.to_num(), Num::subtract),
                ArithmeticOp::Multiply => numeric(result.to_num(), operand.to_num(), Num::multiply),
                ArithmeticOp::Divide => numeric(result.to_num(), operand.to_num(), Num::divide),
                ArithmeticOp::Remainder => numeric(result.to_num(), operand.to_num(), Num::remainder),
                ArithmeticOp::DivideWhole => numeric(result.to_num(), operand.to_num(), Num::divide_whole),
            };
        }
        result
    }

    fn concat(&self, left: &Value<'v>, right: &Value<'v>) -> Value<'v> {
        let (Some(left), Some(right)) = (left.to_text(self.meter), right.to_text(self.meter)) else {
            return Value::Undefined;
        };
        if !self.meter.build(left.len() + right.len()) {
            return Value::Undefined;
        }
        let mut text = left.into_owned();
        text.push_str(&right);
        Value::string(text)
    }

    fn in_list(&self, value: &'v Expr, items: &'v [Expr], negated: bool) -> Value<'v> {
        let value = self.eval(value);
        // `x IN (y)` with one expression: y may be the array itself.
        if let [item] = items
            && !matches!(item.op, Op::Const(_))
        {
            let array = self.eval(item);
            let found = match array.kind() {
                Type::Array => self.in_array(&value, &array),
                _ => value.equals(&array, self.meter),
            };
            return Value::from_bool(found.map(|found| found != negated));
        }
        let mut unknown = false;
        for item in items {
            match value.equals(&self.eval(item), self.meter) {
                Some(true) => return Value::Bool(!negated),
                Some(false) => {}
                None => unknown = true,
            }
        }
        if unknown { Value::Undefined } else { Value::Bool(negated) }
    }

    fn in_array(&self, value: &Value<'v>, array: &Value<'v>) -> Option<bool> {
        if value.is_undefined() {
            return None;
        }
        for element in array.elements(self.meter)? {
            if value.equals(&element, self.meter) == Some(true) {
                return Some(true);
            }
        }
        Some(false)
    }

    fn between(&self, value: &'v Expr, low: &'v Expr, high: &'v Expr, negated: bool) -> Value<'v> {
        let value = self.eval(value);
        let above = value.compare(&self.eval(low)).map(|order| order != Ordering::Less);
        let below = value.compare(&self.eval(high)).map(|order| order != Ordering::Greater);
        let within = match (above, below) {
            (Some(false), _) | (_, Some(false)) => Some(false),
            (Some(true), Some(true)) => Some(true),
            _ => None,
        };
        Value::from_bool(within.map(|within| within != negated))
    }

    fn like(&self, value: &'v Expr, pattern: &'v Pattern, negated: bool) -> Value<'v> {
        let Value::String(text) = self.eval(value) else { return Value::Undefined };
        if !self.meter.bytes(text.len()) {
            return Value::Undefined;
        }
        let matched = match pattern {
            Pattern::Literal(pattern) => pattern.matches(&text, self.meter),
            Pattern::Dynamic { pattern, escape } => match self.eval(pattern) {
                Value::String(pattern) => {
                    like(&pattern, *escape).is_some_and(|pattern| pattern.matches(&text, self.meter))
                }
                _ => return Value::Undefined,
            },
        };
        Value::Bool(matched != negated)
    }

    fn case_of(
        &self,
        subject: &'v Expr,
        branches: &'v [(Expr, Expr)],
        otherwise: Option<&'v Expr>,
    ) -> Value<'v> {
        let subject = self.eval(subject);
        if subject.is_undefined() {
            return Value::Undefined;
        }
        for (when, then) in branches {
            if subject.equals(&self.eval(when), self.meter) == Some(true) {
                return self.eval(then);
            }
        }
        otherwise.map_or(Value::Undefined, |e| self.eval(e))
    }

    fn case_when(&self, branches: &'v [(Expr, Expr)], otherwise: Option<&'v Expr>) -> Value<'v> {
        for (when, then) in branches {
            if self.passes(Some(when)) {
                return self.eval(then);
            }
        }
        otherwise.map_or(Value::Undefined, |e| self.eval(e))
    }

    fn exists(&self, query: &'v Query) -> Value<'v> {
        match self.query(query) {
            Value::Undefined => Value::Bool(false),
            Value::Array(elements) => Value::Bool(!elements.is_empty()),
            _ => Value::Bool(true),
        }
    }

    fn query(&self, query: &'v Query) -> Value<'v> {
        let source = self.eval(&query.source);
        match source.kind() {
            Type::Array => {
                let Some(elements) = source.elements(self.meter) else { return Value::Undefined };
                let mut rows = Vec::new();
                for (place, element) in elements.iter().enumerate() {
                    let trace = self.trace.filter(|_| place < ELEMENTS_MAX);
                    if let Some(trace) = trace {
                        trace.element(place, element);
                    }
                    let row = Scope { trace, ..*self }.row(query, element);
                    if !row.is_undefined() {
                        rows.push(row);
                    }
                    if self.meter.has_failed() {
                        return Value::Undefined;
                    }
                }
                Value::array(rows)
            }
            Type::Object => self.row(query, &source),
            _ => Value::Undefined,
        }
    }

    fn row(&self, query: &'v Query, element: &Value<'v>) -> Value<'v> {
        let scope = Scope { element: Some(element), ..*self };
        if !scope.passes(query.condition.as_ref()) {
            return Value::Undefined;
        }
        match &query.projection {
            QueryProjection::Value(value) => scope.eval(value),
            QueryProjection::Items(items) => scope.merge(items).into_value(),
        }
    }

    /// Builds the Object of items that may meet.
    pub(crate) fn merge(&self, items: &'v [Item]) -> Object<'v> {
        let mut object = Object::default();
        for item in items {
            match item {
                Item::Star => {
                    let Some(all) = self.star().object(self.meter) else { continue };
                    if object.members().is_empty() {
                        object = all;
                    } else {
                        for (key, value) in all.members() {
                            object.set(key.clone(), value.clone());
                        }
                    }
                }
                Item::Value { path, value } => {
                    let value = self.eval(value);
                    if !value.is_undefined() {
                        object.set_path(path, value);
                    }
                }
            }
        }
        object
    }

    /// Writes `*` and items of one name each, as [`Self::merge`] would build them, without building them.
    ///
    /// `None`: a budget ran out.
    pub(crate) fn write_star(&self, items: &'v [Member], out: &mut Vec<u8>) -> Option<()> {
        let root = self.document.and_then(Document::root).filter(|root| root.kind() == Kind::Object);
        let mut values: SmallVec<[(&'v Member, Value<'v>); 4]> = SmallVec::new();
        for member in items {
            if let Content::Value(expr) = &member.content {
                values.push((member, self.eval(expr)));
            }
        }
        if !self.meter.build(root.map_or(0, Node::text_len)) {
            return None;
        }
        let mut first = true;
        let mut separate = |out: &mut Vec<u8>| {
            if !std::mem::take(&mut first) {
                out.push(b',');
            }
        };
        out.push(b'{');
        for node in root.map(Node::members).unwrap_or_default() {
            separate(out);
            node.write_key(out);
            let key = node.key();
            let replaced =
                values.iter_mut().find(|(member, value)| *member.key == *key && !value.is_undefined());
            match replaced.map(|(_, value)| std::mem::replace(value, Value::Undefined)) {
                // Written here, in its old place, and no more at the end.
                Some(value) => value.write_json(out, self.meter).then_some(())?,
                None => node.write(out),
            }
        }
        for (member, value) in &values {
            if !value.is_undefined() {
                separate(out);
                out.extend_from_slice(&member.key_json);
                value.write_json(out, self.meter).then_some(())?;
            }
        }
        out.push(b'}');
        (!self.meter.has_failed()).then_some(())
    }

    /// Writes an Object member by member. `None`: a budget ran out; false: no member was there.
    pub(crate) fn write_members(&self, members: &'v [Member], out: &mut Vec<u8>) -> Option<bool> {
        let mut first = true;
        out.push(b'{');
        for member in members {
            let before = out.len();
            if !first {
                out.push(b',');
            }
            out.extend_from_slice(&member.key_json);
            let there = match &member.content {
                Content::Value(expr) => self.write(expr, out)?,
                Content::Members(inner) => self.write_members(inner, out)?,
            };
            if there {
                first = false;
            } else {
                out.truncate(before);
            }
        }
        out.push(b'}');
        Some(!first)
    }

    /// Writes one expression as JSON. `None`: a budget ran out; false: Undefined, nothing written.
    fn write(&self, expr: &'v Expr, out: &mut Vec<u8>) -> Option<bool> {
        if let Op::Field(path) = &expr.op {
            // What is only copied is not decoded.
            let node = self.field(path);
            if let Some(trace) = self.trace {
                let place = trace.open(expr);
                trace.close(place, &node.map_or(Value::Undefined, Value::from_node));
            }
            let Some(node) = node else { return Some(false) };
            if !self.meter.build(out.len() + node.text_len()) {
                return None;
            }
            node.write(out);
            return Some(true);
        }
        let value = self.eval(expr);
        if self.meter.has_failed() {
            return None;
        }
        if value.is_undefined() {
            return Some(false);
        }
        value.write_json(out, self.meter).then_some(true)
    }

    fn cast(&self, value: &Value<'v>, target: Target) -> Value<'v> {
        match (target, value.kind()) {
            (_, Type::Undefined | Type::Null) => Value::Undefined,
            (Target::String, _) => value.to_text(self.meter).map_or(Value::Undefined, Value::String),
            (Target::Int | Target::Decimal, Type::Bool) => {
                value.to_bool().map_or(Value::Undefined, |b| Value::Int(i64::from(b)))
            }
            (Target::Int, _) => {
                let num = value.to_num();
                Value::from_num(num.and_then(|n| n.round(0, crate::value::decimal::Rounding::Floor)))
            }
            (Target::Decimal, _) => Value::from_num(value.to_num()),
            (Target::Boolean, Type::Number) => {
                value.number().map_or(Value::Undefined, |n| Value::Bool(!n.is_zero()))
            }
            (Target::Boolean, _) => Value::from_bool(value.to_bool()),
        }
    }

    /// A function of regular expressions over an evaluated text.
    pub(crate) fn regex(
        &self,
        action: RegexAction,
        text: &Value<'v>,
        regex: &Regex,
        replacement: Option<&Value<'v>>,
    ) -> Value<'v> {
        let Some(text) = text.to_text(self.meter) else { return Value::Undefined };
        // A search is linear in the text, some tens of nanoseconds for a byte at worst.
        if !self.meter.bytes(text.len() * 8) {
            return Value::Undefined;
        }
        match action {
            RegexAction::Matches => Value::Bool(regex.is_match(&text)),
            RegexAction::Substring => {
                regex.find(&text).map_or(Value::Undefined, |found| Value::string(found.as_str().to_owned()))
            }
            RegexAction::Replace => {
                let Some(replacement) = replacement.and_then(|r| r.to_text(self.meter)) else {
                    return Value::Undefined;
                };
                let mut out = String::new();
                let mut last = 0;
                for captures in regex.captures_iter(&text) {
                    let Some(found) = captures.get(0) else { continue };
                    out.push_str(text.get(last..found.start()).unwrap_or(""));
                    expand(&captures, &replacement, &mut out);
                    last = found.end();
                    // A replacement may be read for nothing: its groups may be empty.
                    if !self.meter.bytes(replacement.len())
                        || !self.meter.step()
                        || (out.len() > 4096 && !self.meter.build(out.len()))
                    {
                        return Value::Undefined;
                    }
                }
                out.push_str(text.get(last..).unwrap_or(""));
                if self.meter.build(out.len()) { Value::string(out) } else { Value::Undefined }
            }
        }
    }

    /// As [`Self::regex`] with a pattern that is only known now; an invalid one is Undefined.
    pub(crate) fn dynamic_regex(&self, action: RegexAction, args: &'v [Expr]) -> Value<'v> {
        let (Some(text), Some(pattern)) = (args.first(), args.get(1)) else { return Value::Undefined };
        let text = self.eval(text);
        let Some(pattern) = self.text(pattern) else { return Value::Undefined };
        // Compiling costs far more than a search: some 20 µs for a short pattern, a millisecond at the size allowed. It is
        // charged when the pattern is found compiled too.
        if !self.meter.bytes(65_536 + pattern.len() * 4_096) {
            return Value::Undefined;
        }
        let size = self.meter.limits().regex_bytes / DYNAMIC_REGEX_PART;
        let Some(regex) = regex_cache::compiled(&pattern, size) else { return Value::Undefined };
        let replacement = args.get(2).map(|e| self.eval(e));
        self.regex(action, &text, &regex, replacement.as_ref())
    }

    fn output(&self) -> Value<'v> {
        let Some(output) = self.output else { return Value::Undefined };
        if !self.meter.bytes(output.bytes().len()) {
            return Value::Undefined;
        }
        let depth = self.meter.limits().json_depth;
        match std::str::from_utf8(output.bytes()) {
            Ok(text) if output.is_json() => {
                Value::from_json(text, depth).unwrap_or(Value::String(Cow::Borrowed(text)))
            }
            Ok(text) => Value::String(Cow::Borrowed(text)),
            Err(_) => Value::Bytes(Cow::Borrowed(output.bytes())),
        }
    }
}

fn numeric(left: Option<Num>, right: Option<Num>, op: impl Fn(Num, Num) -> Option<Num>) -> Value<'static> {
    match (left, right) {
        (Some(left), Some(right)) => Value::from_num(op(left, right)),
        _ => Value::Undefined,
    }
}

fn equal_to_number(value: &Value<'_>, bound: Num) -> Option<bool> {
    match value.kind() {
        Type::Undefined => None,
        Type::Number => Some(value.number().is_some_and(|n| n.compare(bound) == Ordering::Equal)),
        _ => Some(false),
    }
}

fn holds(op: CompareOp, order: Ordering) -> bool {
    match op {
        CompareOp::Less => order == Ordering::Less,
        CompareOp::LessOrEqual => order != Ordering::Greater,
        CompareOp::Greater => order == Ordering::Greater,
        CompareOp::GreaterOrEqual => order != Ordering::Less,
        CompareOp::Equal | CompareOp::TopicMatch => order == Ordering::Equal,
        CompareOp::NotEqual => order != Ordering::Equal,
    }
}

/// Cuts a LIKE pattern at its `%`. `None`: the escape character ends it.
pub(crate) fn like(pattern: &str, escape: Option<char>) -> Option<LikePattern> {
    let mut parts = vec![Vec::new()];
    let mut chars = pattern.chars();
    while let Some(char) = chars.next() {
        let item = match char {
            c if Some(c) == escape => LikeChar::One(chars.next()?),
            '%' => {
                parts.push(Vec::new());
                continue;
            }
            '_' => LikeChar::Any,
            c => LikeChar::One(c),
        };
        if let Some(part) = parts.last_mut() {
            part.push(item);
        }
    }
    Some(LikePattern { parts })
}

impl LikePattern {
    /// Part by part, each at its first place: no back-tracking over more than one part.
    fn matches(&self, text: &str, meter: &Meter<'_>) -> bool {
        let Some((first, rest)) = self.parts.split_first() else { return false };
        let Some(text) = after_part(first, text) else { return false };
        let Some((last, middle)) = rest.split_last() else { return text.is_empty() };
        let Some(mut text) = before_part(last, text) else { return false };
        for part in middle {
            loop {
                if !meter.bytes(part.len() + 16) {
                    return false;
                }
                if let Some(after) = after_part(part, text) {
                    text = after;
                    break;
                }
                let mut chars = text.chars();
                if chars.next().is_none() {
                    return false;
                }
                text = chars.as_str();
            }
        }
        true
    }
}

impl LikeChar {
    fn fits(self, char: Option<char>) -> bool {
        match self {
            LikeChar::Any => char.is_some(),
            LikeChar::One(one) => char == Some(one),
        }
    }
}

/// The text behind a part that it begins with.
fn after_part<'t>(part: &[LikeChar], text: &'t str) -> Option<&'t str> {
    let mut chars = text.chars();
    part.iter().all(|wanted| wanted.fits(chars.next())).then_some(chars.as_str())
}

/// The text before a part that it ends with.
fn before_part<'t>(part: &[LikeChar], text: &'t str) -> Option<&'t str> {
    let mut chars = text.chars();
    part.iter().rev().all(|wanted| wanted.fits(chars.next_back())).then_some(chars.as_str())
}

/// Whether a value is an Array of a document or a built one.
pub(crate) fn is_array(value: &Value<'_>) -> bool {
    matches!(value, Value::Array(_)) || matches!(value, Value::Node(node) if node.kind() == Kind::Array)
}
