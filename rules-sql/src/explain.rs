//! Why a rule did what it did with one message: [`Explanation`], made by [`CompiledRule::explain`].
//!
//! [`CompiledRule::explain`]: crate::CompiledRule::explain

use crate::evaluation::{Evaluation, Outcome};
use crate::event::Event;
use crate::plan::{Content, Expr, Item, Member, Plan, Projection};
use crate::rule::Program;
use crate::trace::{Step, StepResult, Trace, Tree, text};

/// A rule and a message, taken apart.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// The Topic Filters of FROM, in order.
    pub filters: Vec<FilterStep>,
    /// SET, in order; a variable that nothing asked for was not evaluated.
    pub variables: Vec<NamedStep>,
    /// WHERE; `None` when there is none.
    pub condition: Option<Step>,
    /// The items of SELECT with their keys, in the order of the output; `*` alone has none.
    pub items: Vec<NamedStep>,
    /// What came of it.
    pub outcome: Outcome,
    notes: Notes,
}

/// A Topic Filter of FROM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterStep {
    /// The filter.
    pub filter: String,
    /// Whether it matches the message's Topic Name.
    pub is_match: bool,
}

/// An expression that goes by a name: a variable, or a key of the output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedStep {
    /// `@name`, or the key with its parents: `loc.lat`; empty for `SELECT VALUE`.
    pub name: String,
    /// What became of it.
    pub step: Step,
}

/// What was taken down while the rule ran.
#[derive(Clone, Debug, Default)]
struct Notes {
    guard: Vec<Step>,
    condition: Vec<Step>,
    items: Vec<Step>,
    variables: Vec<(usize, Step)>,
}

impl Explanation {
    pub(crate) fn new(filters: &[String], event: &Event<'_>) -> Explanation {
        let step = |filter: &String| FilterStep {
            filter: filter.clone(),
            is_match: mqtt_protocol::matches(filter, event.topic),
        };
        Explanation {
            filters: filters.iter().map(step).collect(),
            variables: Vec::new(),
            condition: None,
            items: Vec::new(),
            outcome: Outcome::NoMatch,
            notes: Notes::default(),
        }
    }

    pub(crate) fn note_guard(&mut self, trace: &Trace<'_>, source: &str, ev: &Evaluation<'_>) {
        self.notes.guard = trace.steps(&tree(source, source, ev));
    }

    pub(crate) fn note_condition(&mut self, trace: &Trace<'_>, source: &str, ev: &Evaluation<'_>) {
        let tree = tree(source, source, ev);
        self.notes.condition = trace.steps(&tree);
        self.notes.variables.extend(trace.variables(&tree));
    }

    pub(crate) fn note_items(&mut self, trace: &Trace<'_>, source: &str, ev: &Evaluation<'_>) {
        let tree = tree(source, source, ev);
        self.notes.items = trace.steps(&tree);
        self.notes.variables.extend(trace.variables(&tree));
    }

    /// Puts what was noted, and what was never reached, into their places.
    pub(crate) fn complete(&mut self, program: &Program) {
        let notes = std::mem::take(&mut self.notes);
        let Program { plan, source, .. } = program;
        self.condition = condition(plan, source, notes.guard, notes.condition);
        for (place, (variable, expr)) in program.variables.iter().zip(&plan.variables).enumerate() {
            let known = notes.variables.iter().find(|(known, _)| *known == place);
            let step = known.map_or_else(|| missing(expr, source), |(_, step)| step.clone());
            self.variables.push(NamedStep { name: variable.name.clone(), step });
        }
        let mut steps = notes.items.into_iter();
        for (name, expr) in items(&plan.projection) {
            let step = steps.next().unwrap_or_else(|| missing(expr, source));
            self.items.push(NamedStep { name, step });
        }
    }
}

/// What puts the notes on an expression in order, which stands in `text` and uses the variables of `statement`.
pub(crate) fn tree<'t, 'd>(text: &'t str, statement: &'t str, ev: &'t Evaluation<'d>) -> Tree<'t, 'd> {
    Tree { text, statement, document: ev.document(), payload_is_empty: ev.event().payload.is_empty() }
}

/// WHERE as one step. Its parts may have been evaluated in another order than they are written in: those that need no
/// payload come first.
fn condition(plan: &Plan, source: &str, guard: Vec<Step>, condition: Vec<Step>) -> Option<Step> {
    let evaluated = |exprs: &'_ [Expr], steps: Vec<Step>| -> Vec<(usize, Step)> {
        let mut steps = steps.into_iter();
        exprs
            .iter()
            .map(|expr| (expr.span.start, steps.next().unwrap_or_else(|| missing(expr, source))))
            .collect()
    };
    let mut parts = evaluated(&plan.guard, guard);
    parts.append(&mut evaluated(&plan.condition, condition));
    // The first that is not true ended it; in their order of evaluation, they stand here.
    let exprs = plan.guard.iter().chain(&plan.condition);
    let ended = parts.iter_mut().zip(exprs).find(|((_, step), _)| !step.result.is_true());
    let result = match ended {
        Some(((_, step), expr)) => {
            if step.result != StepResult::NotEvaluated {
                step.mark_decisive(expr);
            }
            step.refuse_what_is_no_condition();
            step.result.clone()
        }
        None => parts.first()?.1.result.clone(),
    };
    let decides = result != StepResult::NotEvaluated && !result.is_true();
    if parts.len() == 1 {
        return parts.pop().map(|(_, step)| step);
    }
    parts.sort_by_key(|(place, _)| *place);
    // Joined by AND, what is neither true nor false makes Undefined.
    let result = if matches!(result, StepResult::Value { .. }) && !result.is_true() && !result.is_false() {
        StepResult::Undefined
    } else {
        result
    };
    let steps = parts.into_iter().map(|(_, step)| step).collect();
    let sql = text(source, plan.condition_span);
    Some(Step { result, steps, decides, ..Step::not_evaluated(sql) })
}

/// The keys of the output with their expressions, in the order in which they are evaluated.
fn items(projection: &Projection) -> Vec<(String, &Expr)> {
    let mut found = Vec::new();
    match projection {
        Projection::Payload => {}
        Projection::Value(expr) => found.push((String::new(), expr)),
        Projection::Shape(members) | Projection::StarAnd(members) => add_members("", members, &mut found),
        Projection::Merge(items) => {
            for item in items {
                if let Item::Value { path, value } = item {
                    found.push((path.join("."), value));
                }
            }
        }
    }
    found
}

fn add_members<'p>(parent: &str, members: &'p [Member], found: &mut Vec<(String, &'p Expr)>) {
    for member in members {
        let name =
            if parent.is_empty() { member.key.to_string() } else { format!("{parent}.{}", member.key) };
        match &member.content {
            Content::Value(expr) => found.push((name, expr)),
            Content::Members(inner) => add_members(&name, inner, found),
        }
    }
}

fn missing(expr: &Expr, source: &str) -> Step {
    Step::not_evaluated(text(source, expr.span))
}
