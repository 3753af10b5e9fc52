//! A compiled rule: FROM, WHERE, SELECT and SET with every name, arity, constant and path settled.

use std::sync::Arc;

use crate::check::{self, Checked, Variable};
use crate::codes;
use crate::doubts::{self, Alias};
use crate::error::{CompileError, EvalError, Fault, Warning};
use crate::eval::{Random, Scope, Variables};
use crate::evaluation::{Evaluation, Outcome, Output};
use crate::explain::Explanation;
use crate::limits::{Dialect, Limits};
use crate::meter::{Budget, Meter};
use crate::plan::{Expr, Plan, Projection};
use crate::predicates::{self, Predicate};
use crate::syntax::ast::Span;
use crate::syntax::{parse_statement, printer};
use crate::template::{Template, TemplateKind};
use crate::trace::Trace;
use crate::value::Value;

/// Compiles one statement.
///
/// # Errors
/// The first fault found, with its place: syntax, an unknown function, a wrong number of arguments, a Topic Filter
/// that breaks the rules of MQTT, a limit.
pub fn compile(sql: &str, dialect: Dialect, limits: &Limits) -> Result<CompiledRule, CompileError> {
    compile_spanned(sql, dialect, limits).map_err(|fault| CompileError::new(fault, sql))
}

fn compile_spanned(sql: &str, dialect: Dialect, limits: &Limits) -> Result<CompiledRule, Fault> {
    refuse_emqx(dialect)?;
    let statement = parse_statement(sql, limits)?;
    let Checked { filters, variables, plan, warnings } = check::statement(&statement, limits)?;
    let mut doubts = doubts::beside(doubts::statement(&statement, sql), warnings);
    doubts.sort_by_key(|doubt| doubt.span.start);
    let warnings = doubts.into_iter().map(|fault| Warning::new(fault, sql)).collect();
    let needs_payload = plan.reads_payload;
    let canonical = printer::print(&statement);
    let predicates = predicates::of(&plan);
    let program = Program {
        plan,
        variables,
        predicates,
        budget: Budget::new(limits),
        source: sql.into(),
        aliases: doubts::aliases(&statement, sql),
    };
    Ok(CompiledRule { filters, needs_payload, canonical, warnings, program: Arc::new(program) })
}

pub(crate) fn refuse_emqx(dialect: Dialect) -> Result<(), Fault> {
    match dialect {
        Dialect::Aws => Ok(()),
        Dialect::Emqx => Err(Fault::new(codes::DIALECT, Span::default(), "dialect emqx is not available")
            .with_hint("use dialect aws")),
    }
}

/// What a rule and its templates share.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) plan: Plan,
    pub(crate) variables: Vec<Variable>,
    predicates: Box<[Predicate]>,
    budget: Budget,
    /// The statement as written, which places are places in.
    pub(crate) source: Box<str>,
    /// What a template may be tempted to use.
    pub(crate) aliases: Vec<Alias>,
}

impl Program {
    pub(crate) fn variable_exprs(&self) -> &[Expr] {
        &self.plan.variables
    }
}

/// A statement ready to run against any number of messages, from any number of threads. Cheap to clone.
#[derive(Clone, Debug)]
pub struct CompiledRule {
    filters: Vec<String>,
    needs_payload: bool,
    canonical: String,
    warnings: Vec<Warning>,
    program: Arc<Program>,
}

impl CompiledRule {
    /// The Topic Filters of FROM, in order; valid by MQTT's rules.
    #[must_use]
    pub fn filters(&self) -> &[String] {
        &self.filters
    }

    /// Whether any evaluation can look into the payload.
    #[must_use]
    pub fn needs_payload(&self) -> bool {
        self.needs_payload
    }

    /// The statement as SQL in canonical form, on one line; it compiles to the same rule.
    #[must_use]
    pub fn to_sql(&self) -> &str {
        &self.canonical
    }

    /// The statement as written.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.program.source
    }

    /// What the statement's author may not have meant, in the order of the text.
    #[must_use]
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// What an index over many rules can use of WHERE.
    pub(crate) fn predicates(&self) -> &[Predicate] {
        &self.program.predicates
    }

    /// Nesting of JSON that the rule reads.
    pub(crate) fn json_depth(&self) -> usize {
        self.program.budget.json_depth
    }

    /// Evaluates WHERE and then SELECT. FROM is the caller's business: it matched the filters already.
    #[must_use]
    pub fn evaluate(&self, ev: &mut Evaluation<'_>) -> Outcome {
        self.run(ev, None)
    }

    /// As [`Self::evaluate`], with the reasons: FROM, WHERE, variables and items as they were computed.
    ///
    /// The outcome is that of [`Self::evaluate`], except that a message that no filter matches is no match here.
    #[must_use]
    pub fn explain(&self, ev: &mut Evaluation<'_>) -> Explanation {
        let mut explanation = Explanation::new(&self.filters, ev.event());
        explanation.outcome = if explanation.filters.iter().any(|filter| filter.is_match) {
            self.run(ev, Some(&mut explanation))
        } else {
            Outcome::NoMatch
        };
        explanation.complete(&self.program);
        explanation
    }

    fn run(&self, ev: &mut Evaluation<'_>, mut explanation: Option<&mut Explanation>) -> Outcome {
        let Program { plan, budget, source, .. } = &*self.program;
        let random = Random::new(ev.random);
        let meter = Meter::new(budget);
        let trace = explanation.is_some().then(Trace::default);
        let accepted = {
            let variables = Variables::new(&plan.variables, ev.rule_seed);
            let scope = Scope { trace: trace.as_ref(), ..scope(ev, &meter, &random, &variables) };
            scope.passes(&plan.guard) && !meter.has_failed()
        };
        if let (Some(explanation), Some(trace)) = (explanation.as_deref_mut(), &trace) {
            explanation.note_guard(trace, source, ev);
        }
        let outcome = if accepted { self.select(ev, &meter, &random, explanation) } else { refusal(&meter) };
        ev.random = random.state();
        outcome
    }

    /// The part of WHERE that may look into the payload, and SELECT.
    fn select(
        &self,
        ev: &mut Evaluation<'_>,
        meter: &Meter<'_>,
        random: &Random,
        explanation: Option<&mut Explanation>,
    ) -> Outcome {
        let Program { plan, budget, source, .. } = &*self.program;
        if self.needs_payload {
            ev.read_payload(budget.json_depth);
        }
        let (condition, items) = (Trace::default(), Trace::default());
        let trace = |trace| explanation.is_some().then_some(trace);
        let variables = Variables::new(&plan.variables, ev.rule_seed);
        let scope = Scope { trace: trace(&condition), ..scope(ev, meter, random, &variables) };
        let outcome = if scope.passes(&plan.condition) && !meter.has_failed() {
            project(&plan.projection, &Scope { trace: trace(&items), ..scope })
        } else {
            refusal(meter)
        };
        if let Some(explanation) = explanation {
            explanation.note_condition(&condition, source, ev);
            explanation.note_items(&items, source, ev);
        }
        outcome
    }

    /// Warns of a republish to `topic` that this rule may select again.
    #[must_use]
    pub fn doubt_return(&self, topic: &Template) -> Option<Warning> {
        let filter = self.filters.iter().find(|filter| topic.may_match(filter))?;
        let text = topic.source();
        let span = Span { start: 0, end: text.len() };
        let fault =
            Fault::new(codes::RETURNS, span, format!("this topic may be one that FROM '{filter}' selects"))
                .with_hint("a rule does not run for messages that it had a part in making");
        Some(Warning::new(fault, text))
    }

    /// Compiles a template that may also use this rule's SET variables.
    ///
    /// # Errors
    /// As [`Template::compile`].
    pub fn template(
        &self,
        text: &str,
        kind: TemplateKind,
        limits: &Limits,
    ) -> Result<Template, CompileError> {
        Template::with_program(text, kind, limits, Some(&self.program))
    }
}

fn refusal(meter: &Meter<'_>) -> Outcome {
    meter.take_error().map_or(Outcome::NoMatch, Outcome::Failed)
}

fn scope<'s, 'v>(
    ev: &'v Evaluation<'v>,
    meter: &'s Meter<'s>,
    random: &'s Random,
    variables: &'s Variables<'v>,
) -> Scope<'s, 'v> {
    Scope {
        event: ev.event(),
        document: ev.document(),
        meter,
        random,
        variables,
        element: None,
        output: None,
        trace: None,
    }
}

/// A rule's scope for a template.
pub(crate) fn template_scope<'s, 'v>(
    ev: &'v Evaluation<'v>,
    meter: &'s Meter<'s>,
    random: &'s Random,
    variables: &'s Variables<'v>,
    output: Option<&'v Output>,
) -> Scope<'s, 'v> {
    Scope { output, ..scope(ev, meter, random, variables) }
}

fn project<'v>(projection: &'v Projection, scope: &Scope<'_, 'v>) -> Outcome {
    let limit = scope.meter.limits().output_bytes;
    let failed = || Outcome::Failed(scope.meter.take_error().unwrap_or(EvalError::OutputBytes { limit }));
    let output = match projection {
        Projection::Payload => {
            let payload = scope.event.payload;
            if payload.len() > limit {
                return failed();
            }
            let bytes = payload.to_vec();
            if scope.document.is_some() { Output::json(bytes) } else { Output::raw(bytes) }
        }
        Projection::Value(expr) => match scope.eval(expr) {
            _ if scope.meter.has_failed() => return failed(),
            Value::Undefined => return Outcome::NoOutput,
            Value::Bytes(bytes) => Output::raw(bytes.into_owned()),
            value => {
                let mut out = Vec::new();
                if !value.write_json(&mut out, scope.meter) {
                    return failed();
                }
                Output::json(out)
            }
        },
        Projection::Shape(members) => {
            let mut out = Vec::with_capacity(128);
            if scope.write_members(members, &mut out).is_none() {
                return failed();
            }
            Output::json(out)
        }
        Projection::StarAnd(members) => {
            let mut out = Vec::with_capacity(scope.event.payload.len() + 64);
            if scope.write_star(members, &mut out).is_none() {
                return failed();
            }
            Output::json(out)
        }
        Projection::Merge(items) => {
            let object = scope.merge(items).into_value();
            let mut out = Vec::with_capacity(128);
            if scope.meter.has_failed() || !object.write_json(&mut out, scope.meter) {
                return failed();
            }
            Output::json(out)
        }
    };
    if output.bytes().len() > limit {
        return Outcome::Failed(EvalError::OutputBytes { limit });
    }
    Outcome::Output(output)
}
