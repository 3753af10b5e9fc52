//! What the tracer is told of rules: what each made of a message and why, and what it handed to its actions.

use mqtt_protocol::UserPropertiesBuf;
use rules_sql::Evaluation;
use trace::{Context, Kind, Span, TRACEPARENT, Why};

use super::explain_text::explanation_page;
use super::file::LoadedAction;
use super::groups::Candidates;
use super::message::Facts;
use super::pipeline::Shared;
use super::rule::Rule;

/// Rules that an index kept from a message, and that are told of all the same.
const KEPT_OUT_TOLD_MAX: usize = 32;

/// What a rule made of a message.
#[derive(Debug)]
pub(super) enum Made {
    /// It had a part in making the message, and doesn't look at it.
    Looped,
    /// WHERE didn't let it pass.
    NoMatch,
    /// It passed, and there was nothing to hand on.
    NoOutput,
    /// It couldn't be evaluated, or panicked.
    Failed(String),
    /// Actions were run.
    Output,
}

impl Made {
    const fn as_str(&self) -> &'static str {
        match self {
            Self::Looped => "looped",
            Self::NoMatch => "no_match",
            Self::NoOutput => "no_output",
            Self::Failed(_) => "failed",
            Self::Output => "output",
        }
    }

    /// Whether it cost more than saying no.
    pub(super) const fn is_work(&self) -> bool {
        matches!(self, Self::Output | Self::Failed(_))
    }
}

/// The span of a rule that looks at a message.
pub(super) fn begin(parent: Context, rule: &Rule) -> Span {
    let filters = rule.filters();
    let name = filters.first().map_or("", String::as_str);
    Span::child(parent, Kind::Rule, format!("process {name}"))
        .with("messaging.system", "mqtt")
        .with("messaging.operation.name", "process")
        .with("messaging.operation.type", "process")
        .with("messaging.destination.template", filters.join(", "))
        .with("tidegate.rule.id", rule.name())
}

/// Tells what came of it. The rule is evaluated once more for the reasons.
pub(super) fn end(shared: &Shared, mut span: Span, rule: &Rule, facts: &Facts<'_>, made: &Made) {
    span.set("tidegate.rule.outcome", made.as_str());
    if let Made::Failed(error) = made {
        span.fail(error);
    }
    let event = facts.event(&shared.secret);
    let mut evaluation = Evaluation::new(&event, shared.secret.seed(facts.id));
    evaluation.begin_rule(rule.id);
    // A fault in the evaluator was counted with the evaluation itself.
    let explained = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        explanation_page(&rule.loaded.explain(&mut evaluation))
    }));
    if let Ok(explained) = explained {
        span.set("tidegate.rule.explanation", explained);
    }
    shared.tracer.finish(span);
}

/// Tells of a failure of a rule with a message that isn't traced. Returns the context of the message's first span, which is
/// to be told too, if a trace was begun for it.
pub(super) fn failed(shared: &Shared, rule: &Rule, facts: &Facts<'_>, made: &Made) -> Option<Context> {
    let context = shared.tracer.begin_for_error()?;
    end(shared, begin(context, rule), rule, facts, made);
    Some(context)
}

/// The trace that a message gets because one of these rules is looked at.
pub(super) fn begin_for_rules(shared: &Shared, candidates: &Candidates) -> Option<Context> {
    if !shared.tracer.samples_rules() {
        return None;
    }
    let is_wanted = candidates.all().any(|(_, rule)| shared.tracer.samples_rule(rule.name()));
    is_wanted.then(|| shared.tracer.begin(Why::Rule))
}

/// Tells of rules that an index keeps from a message, because their WHERE can't let it pass. `lined_up`: places of the others.
pub(super) fn kept_out(shared: &Shared, candidates: &Candidates, facts: &Facts<'_>, lined_up: &[u32]) {
    let Some(parent) = facts.trace else { return };
    let kept_out = candidates.all().filter(|(place, _)| lined_up.binary_search(place).is_err());
    for (_, rule) in kept_out.take(KEPT_OUT_TOLD_MAX) {
        end(shared, begin(parent, rule), rule, facts, &Made::NoMatch);
    }
}

/// Tells of what an action is handed, or why it isn't. Returns the context for what follows.
pub(super) fn action(
    shared: &Shared,
    rule: &Rule,
    facts: &Facts<'_>,
    loaded: &LoadedAction,
    error: Option<&str>,
) -> Option<Context> {
    let parent = facts.trace?;
    let (name, kind) = (loaded.config.name(), loaded.config.kind());
    let mut span = Span::child(parent, Kind::Action, format!("create {}/{name}", rule.name()))
        .with("messaging.operation.name", "create")
        .with("messaging.operation.type", "create")
        .with("tidegate.action.kind", kind)
        .with("tidegate.rule.id", rule.name())
        .with("tidegate.action.id", name)
        .with("tidegate.action.resource", loaded.config.resource());
    if let Some(system) = actions::messaging_system(kind) {
        span.set("messaging.system", system);
    }
    if let Some(error) = error {
        span.fail(error);
    }
    let context = span.context;
    shared.tracer.finish(span);
    Some(context)
}

/// The span of a message that a rule makes, if what it is made of is traced.
pub(super) fn republish(rule: &Rule, facts: &Facts<'_>, topic: &str) -> Option<Span> {
    let span = Span::child(facts.trace?, Kind::Republish, "create")
        .with("messaging.system", "mqtt")
        .with("messaging.operation.name", "create")
        .with("messaging.operation.type", "create")
        .with("messaging.destination.name", topic)
        .with("tidegate.rule.id", rule.name());
    Some(span)
}

/// Adds a trace to the user properties of a message that a rule makes, unless the rule says something itself.
pub(super) fn mark(properties: &mut UserPropertiesBuf, context: Option<Context>) {
    let is_said = properties.as_properties().iter().any(|(name, _)| name == TRACEPARENT);
    if let Some(context) = context.filter(|_| !is_said) {
        // Where there is no room for it, it is left out.
        let _left_out = properties.push(TRACEPARENT, &context.traceparent());
    }
}
