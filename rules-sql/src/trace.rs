//! What one evaluation did, step by step: noted while the evaluator runs, put into a tree of [`Step`]s afterwards.
//!
//! The evaluator is the one that live traffic runs through; it only tells a [`Trace`] when it enters and leaves an
//! expression. So an explanation shows what happened, not what a second reading of the rule would do: what was never
//! reached is not there, a variable is computed where it was first needed, a nested SELECT shows each element.
//!
//! Bounded: [`STEPS_MAX`] steps are noted, [`ELEMENTS_MAX`] elements of a nested SELECT, [`VALUE_BYTES_MAX`] bytes of
//! each value's text.

use std::cell::{Cell, RefCell};

use crate::json::{Document, Kind};
use crate::limits::Limits;
use crate::meter::{Budget, Meter};
use crate::plan::{Expr, Op, Step as PathStep, Target};
use crate::syntax::ast::{ArithmeticOp, CompareOp, Span};
use crate::value::number::Num;
use crate::value::{Type, Value};

/// Steps noted of one clause; past them only whole items and whole conditions are.
const STEPS_MAX: usize = 4_096;
/// Elements of one nested SELECT that are noted.
pub(crate) const ELEMENTS_MAX: usize = 16;
/// Bytes of a value's text that are kept.
const VALUE_BYTES_MAX: usize = 1_024;
/// Bytes of a value's text in a reason.
const REASON_BYTES_MAX: usize = 60;

/// One expression of a rule or a template, and what became of it for one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The expression as written; `element n` for an element that a nested SELECT went through, from 0.
    pub sql: String,
    /// What it yielded.
    pub result: StepResult,
    /// Why it yielded Undefined, at the place where Undefined came from.
    pub because: Option<String>,
    /// Whether it decided the condition that it is a part of.
    pub decides: bool,
    /// The expressions it was computed from, in the order of the evaluation; literals are left out.
    pub steps: Vec<Step>,
}

/// What a step yielded.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StepResult {
    /// A value.
    Value {
        /// Its type in the dialect's words: `Int`, `Decimal`, `String`, …
        type_name: &'static str,
        /// Its JSON text, or the beginning of it; bytes that are no text as base64.
        json: String,
        /// Whether the text was cut.
        is_cut: bool,
    },
    /// No value.
    Undefined,
    /// The evaluation ended, or was decided, without it.
    NotEvaluated,
}

impl StepResult {
    fn of(value: &Value<'_>) -> StepResult {
        if value.is_undefined() {
            return StepResult::Undefined;
        }
        let budget = Budget::new(&Limits::default());
        let mut text = Vec::new();
        // Should a value be too large to write, what was written of it will do.
        let is_whole = value.write_json(&mut text, &Meter::new(&budget));
        let mut json = String::from_utf8_lossy(&text).into_owned();
        let is_cut = cut(&mut json, VALUE_BYTES_MAX) || !is_whole;
        StepResult::Value { type_name: type_name(value), json, is_cut }
    }

    pub(crate) fn is_true(&self) -> bool {
        // What AND, OR and WHERE take for true: see `Value::to_bool`.
        self.is_bool("true")
    }

    pub(crate) fn is_false(&self) -> bool {
        self.is_bool("false")
    }

    fn is_bool(&self, word: &str) -> bool {
        match self {
            StepResult::Value { type_name: "Boolean", json, .. } => json == word,
            StepResult::Value { type_name: "String", json, .. } => {
                json.trim_matches('"').eq_ignore_ascii_case(word)
            }
            _ => false,
        }
    }

    /// In a sentence: `the String "abc"`, `Undefined`.
    fn words(&self) -> String {
        match self {
            StepResult::Value { type_name: "Null", .. } => "Null".to_owned(),
            StepResult::Value { type_name, json, .. } => {
                let mut text = json.clone();
                let dots = if cut(&mut text, REASON_BYTES_MAX) { "…" } else { "" };
                format!("the {type_name} {text}{dots}")
            }
            StepResult::Undefined => "Undefined".to_owned(),
            StepResult::NotEvaluated => "nothing".to_owned(),
        }
    }
}

/// Cuts a text at a character. True: something was cut.
fn cut(text: &mut String, bytes: usize) -> bool {
    if text.len() <= bytes {
        return false;
    }
    let end = (0..=bytes).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    text.truncate(end);
    true
}

fn type_name(value: &Value<'_>) -> &'static str {
    match value.kind() {
        Type::Undefined => "Undefined",
        Type::Null => "Null",
        Type::Bool => "Boolean",
        Type::Number if value.number().is_some_and(Num::is_whole) => "Int",
        Type::Number => "Decimal",
        Type::String => "String",
        Type::Bytes => "Bytes",
        Type::Array => "Array",
        Type::Object => "Object",
    }
}

/// Takes notes of one evaluation.
#[derive(Debug, Default)]
pub(crate) struct Trace<'v> {
    notes: RefCell<Vec<Note<'v>>>,
    depth: Cell<usize>,
}

#[derive(Debug)]
struct Note<'v> {
    what: What<'v>,
    depth: usize,
    result: StepResult,
}

#[derive(Clone, Copy, Debug)]
enum What<'v> {
    Expr(&'v Expr),
    Element(usize),
}

impl<'v> Trace<'v> {
    /// An expression is about to be computed. The answer goes to [`Self::close`].
    pub(crate) fn open(&self, expr: &'v Expr) -> usize {
        let place = self.note(What::Expr(expr), StepResult::NotEvaluated);
        self.depth.set(self.depth.get() + 1);
        place
    }

    /// It was computed.
    pub(crate) fn close(&self, place: usize, value: &Value<'v>) {
        self.depth.set(self.depth.get().saturating_sub(1));
        if let Some(note) = self.notes.borrow_mut().get_mut(place) {
            note.result = StepResult::of(value);
        }
    }

    /// A nested SELECT comes to its next element.
    pub(crate) fn element(&self, place: usize, element: &Value<'v>) {
        self.note(What::Element(place), StepResult::of(element));
    }

    fn note(&self, what: What<'v>, result: StepResult) -> usize {
        let mut notes = self.notes.borrow_mut();
        if notes.len() < STEPS_MAX || self.depth.get() == 0 {
            notes.push(Note { what, depth: self.depth.get(), result });
            notes.len() - 1
        } else {
            usize::MAX
        }
    }

    /// The steps in order.
    pub(crate) fn steps(&self, tree: &Tree<'_, '_>) -> Vec<Step> {
        tree.level(&mut self.notes.borrow().as_slice(), 0, true)
    }

    /// Every variable that was computed, by its place.
    pub(crate) fn variables(&self, tree: &Tree<'_, '_>) -> Vec<(usize, Step)> {
        let notes = self.notes.borrow();
        let mut found = Vec::new();
        let mut rest = notes.as_slice();
        while let Some((note, after)) = rest.split_first() {
            rest = after;
            let What::Expr(Expr { op: Op::Variable(place), .. }) = note.what else { continue };
            // Only where it was computed something stands below it.
            if let Some(step) = tree.level(&mut rest, note.depth + 1, true).pop() {
                found.push((*place, step));
            }
            rest = after;
        }
        found
    }
}

/// The text of an expression on one line; strings are left alone.
pub(crate) fn text(source: &str, span: Span) -> String {
    let mut out = String::new();
    let mut quote = None;
    for char in source.get(span.start..span.end).unwrap_or_default().chars() {
        match (quote, char) {
            (None, char) if char.is_whitespace() => {
                if !out.ends_with(' ') {
                    out.push(' ');
                }
                continue;
            }
            (None, '\'' | '"' | '`') => quote = Some(char),
            (Some(open), char) if char == open => quote = None,
            _ => {}
        }
        out.push(char);
    }
    out
}

/// What puts notes in order, and words to them.
#[derive(Clone, Copy)]
pub(crate) struct Tree<'t, 'd> {
    /// What the expressions' places are places in.
    pub(crate) text: &'t str,
    /// The same for the expressions of variables: the rule's statement.
    pub(crate) statement: &'t str,
    /// The payload, when it is JSON.
    pub(crate) document: Option<&'t Document<'d>>,
    pub(crate) payload_is_empty: bool,
}

impl Tree<'_, '_> {
    fn sql(&self, span: Span) -> String {
        text(self.text, span)
    }

    /// Takes the notes of one depth, with what stands below them. A literal says by itself what it is, so it is left out
    /// unless its place among the others matters.
    fn level<'n, 'v: 'n>(&self, notes: &mut &'n [Note<'v>], depth: usize, with_literals: bool) -> Vec<Step> {
        let mut steps: Vec<Step> = Vec::new();
        let mut in_element = false;
        while let Some((note, rest)) = notes.split_first() {
            if note.depth < depth {
                break;
            }
            *notes = rest;
            match note.what {
                What::Expr(expr) => {
                    let step = self.step(expr, &note.result, notes, depth);
                    if matches!(expr.op, Op::Const(_)) && !with_literals {
                        continue;
                    }
                    // What follows an element at its depth belongs to it.
                    match steps.last_mut() {
                        Some(element) if in_element => element.steps.push(step),
                        _ => steps.push(step),
                    }
                }
                What::Element(place) => {
                    in_element = true;
                    let step = Step::not_evaluated(format!("element {place}"));
                    steps.push(Step { result: note.result.clone(), ..step });
                }
            }
        }
        steps
    }

    fn step<'n, 'v: 'n>(
        &self,
        expr: &Expr,
        result: &StepResult,
        notes: &mut &'n [Note<'v>],
        depth: usize,
    ) -> Step {
        // The operands as they were computed, literals included, for the reason.
        let operands: Vec<(&Expr, &StepResult)> = notes
            .iter()
            .take_while(|note| note.depth > depth)
            .filter(|note| note.depth == depth + 1)
            .filter_map(|note| match note.what {
                What::Expr(expr) => Some((expr, &note.result)),
                What::Element(_) => None,
            })
            .collect();
        let because = match result {
            StepResult::Undefined => self.reason(expr, &operands),
            _ => None,
        };
        let missing = self.not_reached(expr, &operands);
        let in_order = matches!(expr.op, Op::And(_) | Op::Or(_) | Op::Not(_));
        let below = match expr.op {
            Op::Variable(_) => Tree { text: self.statement, ..*self },
            _ => *self,
        };
        let mut steps = below.level(notes, depth + 1, in_order);
        steps.extend(missing);
        Step { sql: self.sql(expr.span), result: result.clone(), because, decides: false, steps }
    }

    /// Operands of AND and OR, and branches of CASE, that something before them made needless.
    fn not_reached(&self, expr: &Expr, operands: &[(&Expr, &StepResult)]) -> Vec<Step> {
        let all: Vec<&Expr> = match &expr.op {
            Op::And(list) | Op::Or(list) => list.iter().collect(),
            Op::CaseOf { branches, otherwise, .. } | Op::CaseWhen { branches, otherwise } => {
                let branches = branches.iter().flat_map(|(when, then)| [when, then]);
                branches.chain(otherwise.as_deref()).collect()
            }
            _ => return Vec::new(),
        };
        all.into_iter()
            .filter(|operand| !operands.iter().any(|(known, _)| std::ptr::eq(*known, *operand)))
            .map(|operand| Step::not_evaluated(self.sql(operand.span)))
            .collect()
    }

    /// Why an expression is Undefined; `None` where an operand is, which tells itself.
    fn reason(&self, expr: &Expr, operands: &[(&Expr, &StepResult)]) -> Option<String> {
        let undefined = operands.iter().any(|(_, result)| **result == StepResult::Undefined);
        let list = || operands.iter().map(|(_, result)| result.words()).collect::<Vec<_>>().join(", ");
        let misfit = |fits: &[&str]| {
            operands.iter().map(|(_, result)| *result).find(|result| match result {
                StepResult::Value { type_name, .. } => !fits.contains(type_name),
                _ => true,
            })
        };
        Some(match &expr.op {
            Op::Field(path) => self.missing_field(path),
            Op::Element(path) => match path.first() {
                Some(_) => format!("the element has no field {}", path.join(".")),
                None => return None,
            },
            Op::CaseOf { otherwise, .. } => match operands {
                [(_, StepResult::Undefined), ..] => {
                    "the value after CASE is Undefined, so no branch is taken".to_owned()
                }
                [.., (_, StepResult::Undefined)] if operands.len() > 2 || otherwise.is_some() => return None,
                _ => "no branch fits, and there is no ELSE".to_owned(),
            },
            Op::CaseWhen { branches, .. } => {
                let taken = operands
                    .last()
                    .is_some_and(|(last, _)| !branches.iter().any(|(when, _)| std::ptr::eq(*last, when)));
                if taken {
                    return None;
                }
                "no condition holds, and there is no ELSE".to_owned()
            }
            Op::And(_) | Op::Or(_) => match misfit(&["Boolean"])? {
                StepResult::Undefined => return None,
                other => format!("AND, OR and NOT take Booleans, not {}", other.words()),
            },
            _ if undefined => return None,
            Op::Not(_) => format!("AND, OR and NOT take Booleans, not {}", list()),
            Op::Negate(_) | Op::Plus(_) => format!("a sign takes a number or number text, not {}", list()),
            Op::Steps { steps, .. } => {
                let what = match steps.as_slice() {
                    [PathStep::Member(_)] => "member",
                    [PathStep::Element(_)] => "element",
                    _ => "place",
                };
                format!("there is no such {what} in {}", operands.first()?.1.words())
            }
            Op::Compare { op: CompareOp::TopicMatch, .. } => {
                format!("=~ takes a topic and a topic filter, not {}", list())
            }
            Op::Compare { op, .. } => {
                let bad = operands.iter().map(|(_, result)| *result).find(|result| !is_numeric(result))?;
                format!("{} compares numbers and number text, not {}", op.text(), bad.words())
            }
            Op::Between { .. } => {
                let bad = operands.iter().map(|(_, result)| *result).find(|result| !is_numeric(result))?;
                format!("BETWEEN compares numbers and number text, not {}", bad.words())
            }
            Op::Arithmetic { rest, .. } => {
                match operands.iter().map(|(_, result)| *result).find(|result| !is_numeric(result)) {
                    Some(bad) => {
                        let ops: Vec<&str> = rest.iter().map(|(op, _)| op.text()).collect();
                        let plus = rest.iter().any(|(op, _)| *op == ArithmeticOp::Add);
                        let takes =
                            if plus { "numbers, or a String to join" } else { "numbers and number text" };
                        format!("{} takes {takes}, not {}", ops.join(" and "), bad.words())
                    }
                    None => "the divisor is zero, or the result is out of range".to_owned(),
                }
            }
            Op::InList { .. } | Op::InValue { .. } => {
                format!("IN takes an Array on its right, not {}", operands.last()?.1.words())
            }
            Op::Like { .. } => format!("LIKE takes Strings, not {}", misfit(&["String"])?.words()),
            Op::Query(_) | Op::Exists(_) => match operands.first()?.1 {
                StepResult::Value { type_name: "Array" | "Object", .. } => {
                    "WHERE does not hold for the object".to_owned()
                }
                other => format!("FROM names {}, neither an Array nor an Object", other.words()),
            },
            Op::Cast { target, .. } => {
                let target = match target {
                    Target::String => "String",
                    Target::Int => "Int",
                    Target::Decimal => "Decimal",
                    Target::Boolean => "Boolean",
                };
                format!("{} cannot be cast to {target}", list())
            }
            Op::Call { function, .. } if operands.is_empty() => {
                format!("the message has no {}", function.name)
            }
            Op::Call { function, .. } => format!("{}() has no result for {}", function.name, list()),
            Op::Regex { .. } => format!("the pattern has no result for {}", list()),
            Op::Output => "there is no output here".to_owned(),
            Op::Star => "the payload is not JSON".to_owned(),
            Op::Const(_) | Op::Variable(_) | Op::Array(_) | Op::Object(_) => return None,
        })
    }

    /// Where a path into the payload ends.
    fn missing_field(&self, path: &[Box<str>]) -> String {
        let Some(root) = self.document.and_then(Document::root) else {
            let is = if self.payload_is_empty { "empty" } else { "not JSON" };
            return format!("the payload is {is}, so it has no fields");
        };
        let mut node = root;
        for (place, key) in path.iter().enumerate() {
            let owner = match path.get(..place) {
                Some([]) | None => "the payload".to_owned(),
                Some(before) => before.join("."),
            };
            if node.kind() != Kind::Object {
                return format!("{owner} is {}, which has no fields", words(node.kind()));
            }
            match node.member(key, &mut 0) {
                Some(child) => node = child,
                None => return format!("{owner} has no field {key}"),
            }
        }
        "the budget of the evaluation ran out".to_owned()
    }
}

fn words(kind: Kind) -> &'static str {
    match kind {
        Kind::Null => "Null",
        Kind::True | Kind::False => "a Boolean",
        Kind::Number => "a number",
        Kind::String => "a String",
        Kind::Array => "an Array",
        Kind::Object => "an Object",
    }
}

fn is_numeric(result: &StepResult) -> bool {
    match result {
        StepResult::Value { type_name: "Int" | "Decimal", .. } => true,
        StepResult::Value { type_name: "String", json, .. } => {
            Num::parse_text(json.trim_matches('"')).is_some()
        }
        _ => false,
    }
}

impl Step {
    pub(crate) fn not_evaluated(sql: String) -> Step {
        Step { sql, result: StepResult::NotEvaluated, because: None, decides: false, steps: Vec::new() }
    }

    /// Gives a part of WHERE that yielded a value, but none that is true or false, its reason.
    pub(crate) fn refuse_what_is_no_condition(&mut self) {
        let result = &self.result;
        if matches!(result, StepResult::Value { .. }) && !result.is_true() && !result.is_false() {
            self.because = Some(format!("WHERE takes a Boolean, not {}", result.words()));
        }
    }

    /// Marks what decided a condition, down to the smallest part that did.
    pub(crate) fn mark_decisive(&mut self, expr: &Expr) {
        self.decides = true;
        let operands = match &expr.op {
            Op::And(operands) | Op::Or(operands) => operands.as_slice(),
            Op::Not(operand) => std::slice::from_ref(&**operand),
            _ => return,
        };
        let decisive: fn(&StepResult) -> bool = match &expr.op {
            _ if self.result == StepResult::Undefined => |result| !result.is_true() && !result.is_false(),
            Op::And(_) if self.result.is_false() => StepResult::is_false,
            Op::Or(_) if self.result.is_true() => StepResult::is_true,
            Op::Not(_) => |_| true,
            // All of them together.
            _ => return,
        };
        // Those that were evaluated come first, and in their order.
        for (step, operand) in self.steps.iter_mut().zip(operands) {
            if step.result != StepResult::NotEvaluated && decisive(&step.result) {
                step.mark_decisive(operand);
                return;
            }
        }
    }
}
