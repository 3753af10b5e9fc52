//! A compiled rule: FROM, WHERE, SELECT and SET with every name, arity, constant and path settled.

use std::sync::Arc;

use crate::check::{self, Checked, Variable};
use crate::codes;
use crate::error::{CompileError, EvalError, Fault, Warning};
use crate::eval::{Random, Scope, Variables};
use crate::evaluation::{Evaluation, Outcome, Output};
use crate::limits::{Dialect, Limits};
use crate::meter::{Budget, Meter};
use crate::plan::{Expr, Plan, Projection};
use crate::syntax::ast::Span;
use crate::syntax::{parse_statement, printer};
use crate::template::{Template, TemplateKind};
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
    let warnings = warnings.into_iter().map(|fault| Warning::new(fault, sql)).collect();
    let needs_payload = plan.condition.is_some() || plan.projection_reads_payload;
    let canonical = printer::print(&statement);
    let program = Program { plan, variables, budget: Budget::new(limits) };
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
    plan: Plan,
    pub(crate) variables: Vec<Variable>,
    budget: Budget,
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

    /// What the statement's author may not have meant, in the order of the checks.
    #[must_use]
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// Evaluates WHERE and then SELECT. FROM is the caller's business: it matched the filters already.
    #[must_use]
    pub fn evaluate(&self, ev: &mut Evaluation<'_>) -> Outcome {
        let Program { plan, budget, .. } = &*self.program;
        let random = Random::new(ev.random);
        let meter = Meter::new(budget);
        let outcome = {
            let variables = Variables::new(&plan.variables);
            match decide(plan, &scope(ev, &meter, &random, &variables)) {
                Decision::Refuse => refusal(&meter),
                Decision::Accept => {
                    if self.needs_payload {
                        ev.read_payload(budget.json_depth);
                    }
                    let variables = Variables::new(&plan.variables);
                    let scope = scope(ev, &meter, &random, &variables);
                    if scope.passes(plan.condition.as_ref()) && !meter.has_failed() {
                        project(&plan.projection, &scope)
                    } else {
                        refusal(&meter)
                    }
                }
            }
        };
        ev.random = random.state();
        outcome
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

enum Decision {
    Accept,
    Refuse,
}

/// The part of WHERE that needs no payload.
fn decide<'v>(plan: &'v Plan, scope: &Scope<'_, 'v>) -> Decision {
    if scope.passes(plan.guard.as_ref()) && !scope.meter.has_failed() {
        Decision::Accept
    } else {
        Decision::Refuse
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
