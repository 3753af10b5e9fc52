//! A rule that runs: what it makes of one message, and what its actions owe for it.
//!
//! Evaluate, render every action, hand republishes to the broker and to the outboxes what they are owed, and keep the rest
//! ready, to be queued once the message is admitted. What a message that is refused would have set off leaves no trace.

use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use actions::config::OrderBy;
use actions::{
    ActionConfig, Early, Enqueued, ItemId, Outlet, OutletItem, Owing, RenderError, RepublishRequest, Request,
};
use broker::{ActionQueue, HookEffects, OwedToAction, Republish, Trail};
use mqtt_protocol::{PublishProperties, UserPropertiesBuf};
use rules_sql::{CompiledRule, Evaluation, Outcome, Output};
use store::Position;
use trace::Context;

use super::counters::{ActionCounters, ActionStats, RuleCounters, RuleStats, Stage, is_timed};
use super::error_action::{self, FailedAction};
use super::file::{LoadedAction, LoadedRule};
use super::message::{Facts, KeptMessage};
use super::pipeline::Shared;
use super::told::{self, Made};

#[derive(Debug)]
pub(super) struct Rule {
    pub(super) id: u32,
    pub(super) loaded: Arc<LoadedRule>,
    /// As many as the loaded rule has actions.
    pub(super) actions: Vec<RunningAction>,
    pub(super) error_action: Option<RunningAction>,
    pub(super) counters: Arc<RuleCounters>,
}

#[derive(Debug, Clone)]
pub(super) struct RunningAction {
    pub(super) outlet: Option<Arc<Outlet>>,
    pub(super) counters: Arc<ActionCounters>,
}

/// The name of an outbox, and what it is owed.
pub(super) type OutboxDebt = (Arc<str>, Vec<u8>);

/// What [`HookEffects`] lacks.
trait EndEarly {
    /// Has a dead letter written in the message's own frame, if there is one, and something counted once it is admitted.
    fn end_early(&mut self, letter: Option<OutboxDebt>, counted: impl FnOnce() + Send + 'static);
}

impl EndEarly for HookEffects {
    fn end_early(&mut self, letter: Option<OutboxDebt>, counted: impl FnOnce() + Send + 'static) {
        if let Some((name, body)) = letter {
            let queue = ActionQueue::DeadLetters(name);
            self.owed.push(OwedToAction { queue, body, placed: Box::new(|_| {}) });
        }
        self.admitted.push(Box::new(counted));
    }
}

impl Rule {
    pub(super) fn name(&self) -> &str {
        &self.loaded.name
    }

    /// User name whose rights it needs.
    pub(super) fn run_as(&self) -> Option<Arc<str>> {
        self.loaded.run_as.clone()
    }

    pub(super) fn filters(&self) -> &[String] {
        self.loaded.filters()
    }

    pub(super) fn compiled(&self) -> &CompiledRule {
        &self.loaded.compiled
    }

    pub(super) fn running(&self, action: &str) -> Option<(&LoadedAction, &RunningAction)> {
        self.loaded
            .actions
            .iter()
            .chain(&self.loaded.error_action)
            .zip(self.actions.iter().chain(&self.error_action))
            .find(|(loaded, _)| loaded.config.name() == action)
    }

    /// The outlets of its actions, by the names that their outboxes have.
    pub(super) fn named_outlets(&self) -> impl Iterator<Item = (String, &Arc<Outlet>)> {
        let loaded = self.loaded.actions.iter().chain(&self.loaded.error_action);
        let running = self.actions.iter().chain(&self.error_action);
        loaded.zip(running).filter_map(|(loaded, running)| {
            let name = format!("{}/{}", self.name(), loaded.config.name());
            Some((name, running.outlet.as_ref()?))
        })
    }

    /// The outlets of its actions.
    pub(super) fn outlets(&self) -> impl Iterator<Item = &Arc<Outlet>> {
        self.actions.iter().chain(&self.error_action).filter_map(|action| action.outlet.as_ref())
    }

    /// Evaluates the rule for one message and runs its actions. Returns whether there was anything to run.
    pub(super) fn handle(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        facts: &Facts<'_>,
        evaluation: &mut Evaluation<'_>,
        effects: &mut HookEffects,
    ) -> bool {
        let made = match facts.trace {
            None => {
                let made = self.decide(shared, facts, evaluation, effects);
                if matches!(made, Made::Failed(_)) && effects.trace.is_none() {
                    effects.trace = told::failed(shared, self, facts, &made);
                }
                made
            }
            Some(parent) => {
                let span = told::begin(parent, self);
                let facts = facts.beneath(span.context);
                let made = self.decide(shared, &facts, evaluation, effects);
                told::end(shared, span, self, &facts, &made);
                made
            }
        };
        made.is_work()
    }

    fn decide(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        facts: &Facts<'_>,
        evaluation: &mut Evaluation<'_>,
        effects: &mut HookEffects,
    ) -> Made {
        if facts.trail.rules().contains(&self.id) {
            self.counters.looped.raise();
            return Made::Looped;
        }
        evaluation.begin_rule(self.id);
        let started = is_timed(shared.timed_every).then(Instant::now);
        // A fault in the evaluator costs this rule this message, and nobody else anything. What it left half done in the
        // evaluation is begun anew by the next rule.
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            #[cfg(feature = "power-cut")]
            crate::fault::point("rule", facts.payload);
            self.loaded.compiled.evaluate(evaluation)
        }));
        if let Some(started) = started {
            self.counters.times.observe(started.elapsed());
        }
        let Ok(outcome) = outcome else {
            self.counters.failed.raise_for_panic();
            self.failed(Stage::Evaluation, &"the evaluation panicked", facts);
            tracing::error!(rule = self.name(), "evaluating a rule panicked; the message goes on without it");
            return Made::Failed("the evaluation panicked".to_owned());
        };
        let output = match outcome {
            Outcome::NoMatch => return Made::NoMatch,
            Outcome::NoOutput => {
                self.counters.no_output.raise();
                return Made::NoOutput;
            }
            Outcome::Failed(error) => {
                self.counters.failed.raise(&error);
                self.failed(Stage::Evaluation, &error, facts);
                if self.counters.log.opens(facts.received_at_ms) {
                    tracing::warn!(rule = self.name(), %error, "rule could not be evaluated for a message");
                }
                return Made::Failed(error.to_string());
            }
            Outcome::Output(output) if self.loaded.skip_empty && output.is_empty_object() => {
                self.counters.no_output.raise();
                return Made::NoOutput;
            }
            Outcome::Output(output) => output,
        };
        self.counters.passed.raise();
        self.counters.last.matched(facts.received_at_ms);
        self.act(shared, facts, evaluation, &output, effects);
        Made::Output
    }

    /// Keeps what went wrong as the last error.
    fn failed(&self, stage: Stage, error: &dyn Display, facts: &Facts<'_>) {
        self.counters.last.failed(stage, error, facts.topic, facts.received_at_ms);
    }

    fn act(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        facts: &Facts<'_>,
        evaluation: &mut Evaluation<'_>,
        output: &Output,
        effects: &mut HookEffects,
    ) {
        let mut message = None;
        let mut failures = Vec::new();
        for (place, (loaded, running)) in self.loaded.actions.iter().zip(&self.actions).enumerate() {
            let failure = match loaded.render(evaluation, output) {
                Ok(Request::Republish(request)) => self
                    .republish(shared, facts, running, request, effects)
                    .inspect(|error| self.failed(Stage::Action, error, facts)),
                Ok(request) => self
                    .owe_or_queue(shared, facts, place, &mut message, request, effects)
                    .inspect(|error| self.failed(Stage::Action, error, facts)),
                Err(error) => {
                    running.counters.failed_render.raise();
                    let error = error.to_string();
                    self.failed(Stage::Template, &error, facts);
                    told::action(shared, self, facts, loaded, Some(&error));
                    Some(error)
                }
            };
            let Some(error_message) = failure else { continue };
            if self.counters.log.opens(facts.received_at_ms) {
                let action = loaded.config.name();
                tracing::warn!(
                    rule = self.name(),
                    action,
                    error = error_message,
                    "action failed for a message"
                );
            }
            if self.error_action.is_some() {
                let failed_action = loaded.config.name().to_owned();
                let failed_resource = loaded.config.resource();
                failures.push(FailedAction { failed_action, failed_resource, error_message });
            }
        }
        if !failures.is_empty() {
            self.run_error_action(shared, facts, &failures, effects);
        }
    }

    /// Has a request put into its action's queue with the message's admission: into the outbox with the message's own
    /// debts, or into memory once it is admitted. Where the message is refused, it leaves no trace. Returns why there is no
    /// room for it, if there is none. `message` is the copy that actions share, if one was made.
    fn owe_or_queue(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        facts: &Facts<'_>,
        place: usize,
        message: &mut Option<Arc<KeptMessage>>,
        request: Request,
        effects: &mut HookEffects,
    ) -> Option<String> {
        let (loaded, running) = self.loaded.actions.get(place).zip(self.actions.get(place))?;
        let key = order_key(shared, facts, loaded);
        let (rule, id) = (Arc::clone(self), facts.id);
        let trace = told::action(shared, self, facts, loaded, None);
        match running.owe(shared, facts, loaded, &request, trace) {
            Owing::Outbox { name, body } => {
                let placed = move |position| {
                    if let Some(running) = rule.actions.get(place) {
                        // What becomes of it is heard of through the outbox.
                        let item = OutletItem { id, key, request, on_failure: None, extra_bytes: 0, trace };
                        running.placed(position, item);
                    }
                };
                let queue = ActionQueue::Outbox(name);
                effects.owed.push(OwedToAction { queue, body, placed: Box::new(placed) });
                None
            }
            Owing::Nowhere { early, error, letter } => {
                let counted = move || {
                    if let Some(running) = rule.actions.get(place) {
                        running.ended_early(early);
                    }
                };
                effects.end_early(letter, counted);
                Some(error)
            }
            Owing::Refused { error } => {
                running.counters.backpressure.raise();
                self.failed(Stage::Action, &error, facts);
                if self.counters.log.opens(facts.received_at_ms) {
                    let action = loaded.config.name();
                    tracing::warn!(rule = self.name(), action, error, "message refused");
                }
                effects.refused = true;
                None
            }
            _ => {
                // Only an error action wants to hear of what fails later.
                let message = self
                    .error_action
                    .as_ref()
                    .map(|_| Arc::clone(message.get_or_insert_with(|| Arc::new(facts.to_kept()))));
                let (shared, rendered) =
                    (Arc::clone(shared), Rendered { place, key, message, request, trace });
                effects.admitted.push(Box::new(move || {
                    if let Some((running, item)) = rule.item(&shared, id, rendered) {
                        // A drop is told through the item; a request of another kind is counted.
                        running.enqueue(item);
                    }
                }));
                None
            }
        }
    }

    /// The action of a rendered request, and the request as its queue takes it.
    fn item(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        id: ItemId,
        rendered: Rendered,
    ) -> Option<(&RunningAction, OutletItem)> {
        let Rendered { place, key, message, request, trace } = rendered;
        let (loaded, running) = self.loaded.actions.get(place).zip(self.actions.get(place))?;
        let extra_bytes = message.as_ref().map_or(0, |message| message.bytes());
        let on_failure = message.map(|message| {
            error_action::teller(shared, self, &message, loaded.config.name(), loaded.config.resource())
        });
        Some((running, OutletItem { id, key, request, on_failure, extra_bytes, trace }))
    }

    /// Runs the error action within the source message's admission: should the message be refused, it never ran.
    fn run_error_action(
        self: &Arc<Self>,
        shared: &Shared,
        facts: &Facts<'_>,
        failures: &[FailedAction],
        effects: &mut HookEffects,
    ) {
        let Some((loaded, running)) = self.loaded.error_action.as_ref().zip(self.error_action.as_ref())
        else {
            return;
        };
        let outcome = match error_action::request(shared, self, facts, failures) {
            Ok(Some(Request::Republish(request))) => {
                self.republish(shared, facts, running, request, effects).map_or(Ok(None), Err)
            }
            other => other,
        };
        let (rule, id, now_ms) = (Arc::clone(self), facts.id, facts.received_at_ms);
        let key = order_key(shared, facts, loaded);
        let is_handed = matches!(outcome, Ok(Some(_)));
        let trace = is_handed.then(|| told::action(shared, self, facts, loaded, None)).flatten();
        let item = move |request| OutletItem { id, key, request, on_failure: None, extra_bytes: 0, trace };
        let outcome = match outcome {
            Ok(Some(request)) => match running.owe(shared, facts, loaded, &request, trace) {
                Owing::Outbox { name, body } => {
                    let rule = Arc::clone(self);
                    let placed = move |position| rule.error_placed(position, Some(item(request)));
                    let queue = ActionQueue::Outbox(name);
                    effects.owed.push(OwedToAction { queue, body, placed: Box::new(placed) });
                    Ok(None)
                }
                Owing::Nowhere { early, error, letter } => {
                    let rule = Arc::clone(self);
                    effects.end_early(letter, move || {
                        if let Some(running) = &rule.error_action {
                            running.ended_early(early);
                        }
                    });
                    Err(error)
                }
                Owing::Refused { error } => {
                    running.counters.backpressure.raise();
                    effects.refused = true;
                    Err(error)
                }
                _ => Ok(Some(request)),
            },
            other => other,
        };
        effects.admitted.push(Box::new(move || {
            rule.counters.error_actions.raise();
            let outcome = match outcome {
                Ok(Some(request)) => rule.enqueue_error(item(request)),
                Ok(None) => Ok(()),
                Err(error) => Err(error),
            };
            if let Err(error) = outcome {
                rule.error_action_failed(&error, now_ms);
            }
        }));
    }

    /// Counts an error action that failed, and logs it now and then.
    pub(super) fn error_action_failed(&self, error: &str, now_ms: i64) {
        self.counters.error_actions_failed.raise();
        self.counters.last.failed(Stage::ErrorAction, &error, "", now_ms);
        if self.counters.log.opens(now_ms) {
            tracing::warn!(rule = self.name(), error, "error action failed");
        }
    }

    /// Hands a republish to the broker. Returns why not, if not.
    fn republish(
        &self,
        shared: &Shared,
        facts: &Facts<'_>,
        running: &RunningAction,
        request: RepublishRequest,
        effects: &mut HookEffects,
    ) -> Option<String> {
        let span = told::republish(self, facts, &request.topic);
        let trace = span.as_ref().map(|span| span.context);
        let checked = running.check_republish(shared, facts.trail, &request, trace);
        if let Some(mut span) = span {
            if let Err(error) = &checked {
                span.fail(error);
            }
            shared.tracer.finish(span);
        }
        let properties = match checked {
            Ok(properties) => properties,
            Err(error) => return Some(error),
        };
        running.counters.requests.raise();
        effects.republish.push(Republish {
            rule: self.id,
            topic: request.topic,
            payload: request.payload,
            qos: request.qos,
            retain: request.retain,
            properties,
            message_expiry_interval_s: request.message_expiry_interval_s,
            run_as: self.run_as(),
            trace,
        });
        None
    }

    /// Renders the error action with the document as its output.
    pub(super) fn render_error(
        &self,
        shared: &Shared,
        facts: &Facts<'_>,
        document: &Output,
    ) -> Result<Option<Request>, RenderError> {
        let (Some(loaded), Some(running)) = (&self.loaded.error_action, &self.error_action) else {
            return Ok(None);
        };
        let event = facts.event(&shared.secret);
        let mut evaluation = Evaluation::new(&event, shared.secret.seed(facts.id));
        evaluation.begin_rule_again(self.id);
        let request = loaded.render(&mut evaluation, document);
        request.map(Some).inspect_err(|_| running.counters.failed_render.raise())
    }

    /// Puts the error action's request into its queue in memory.
    fn enqueue_error(&self, item: OutletItem) -> Result<(), String> {
        let Some(running) = &self.error_action else { return Ok(()) };
        match running.enqueue(item) {
            Some(Enqueued::Queued) => Ok(()),
            Some(Enqueued::Dropped(reason)) => Err(format!("dropped: {}", reason.as_str())),
            None => Err("the request is of another kind than its queue".to_owned()),
        }
    }

    /// Puts the error action's request into its queue after the fact: into the outbox in a frame of its own.
    pub(super) fn keep_error(
        &self,
        shared: &Shared,
        message: &KeptMessage,
        request: Request,
    ) -> Result<(), String> {
        let Some((loaded, running)) = self.loaded.error_action.as_ref().zip(self.error_action.as_ref())
        else {
            return Ok(());
        };
        let facts = message.facts();
        let key = order_key(shared, &facts, loaded);
        let trace = told::action(shared, self, &facts, loaded, None);
        let item = OutletItem { id: facts.id, key, request, on_failure: None, extra_bytes: 0, trace };
        match &running.outlet {
            Some(outlet) if outlet.is_durable() => {
                running.counters.requests.raise();
                let origin = shared.origin(&facts);
                let kept = outlet.keep(&message.record(), loaded.plan.order_by(), &origin, item);
                kept.map_err(|error| error.to_string())
            }
            _ => self.enqueue_error(item),
        }
    }

    /// What the error action's outbox is owed for a request after the fact, and the request as its queue takes it.
    pub(super) fn owe_error(
        &self,
        shared: &Shared,
        message: &KeptMessage,
        request: Request,
    ) -> Result<(OutboxDebt, OutletItem), String> {
        let Some((loaded, running)) = self.loaded.error_action.as_ref().zip(self.error_action.as_ref())
        else {
            return Err("the rule has no error action any more".to_owned());
        };
        let facts = message.facts();
        let trace = told::action(shared, self, &facts, loaded, None);
        match running.owe(shared, &facts, loaded, &request, trace) {
            Owing::Outbox { name, body } => {
                let key = order_key(shared, &facts, loaded);
                let item = OutletItem { id: facts.id, key, request, on_failure: None, extra_bytes: 0, trace };
                Ok(((name, body), item))
            }
            Owing::Nowhere { error, .. } | Owing::Refused { error } => Err(error),
            _ => Err("the request is of another kind than its queue".to_owned()),
        }
    }

    /// Tells the error action's queue of a request that is in the outbox.
    pub(super) fn error_placed(&self, position: Position, item: Option<OutletItem>) {
        if let (Some(running), Some(item)) = (&self.error_action, item) {
            running.placed(position, item);
        }
    }

    /// What an action acts upon.
    pub(super) fn resource(&self, action: &str) -> Option<String> {
        self.running(action).map(|(loaded, _)| loaded.config.resource())
    }

    /// Whether its error action is a republish.
    pub(super) fn republishes_errors(&self) -> bool {
        let loaded = self.loaded.error_action.as_ref();
        loaded.is_some_and(|loaded| matches!(loaded.config, ActionConfig::Republish(_)))
    }

    /// The error action as it runs.
    pub(super) fn running_error_action(&self) -> Option<&RunningAction> {
        self.error_action.as_ref()
    }

    /// The counters of one of its actions.
    pub(super) fn action_stats(&self, action: &str) -> Option<ActionStats> {
        self.running(action).map(|(loaded, running)| running.stats(loaded))
    }

    pub(super) fn stats(&self) -> RuleStats {
        let counters = &self.counters;
        // A message is counted before its rules run, so this order of reading finds no more decided than counted.
        let (passed, no_output) = (counters.passed.value(), counters.no_output.value());
        let (looped, failed_evaluation) = (counters.looped.value(), counters.failed.all.value());
        let decided = passed + no_output + looped + failed_evaluation;
        // A message that was on its way while FROM changed may have been decided and not counted.
        let matched = counters.matched.value().max(decided);
        let loaded = self.loaded.actions.iter().chain(&self.loaded.error_action);
        let running = self.actions.iter().chain(&self.error_action);
        RuleStats {
            name: self.name().to_owned(),
            number: self.id,
            matched,
            passed,
            no_match: matched - decided,
            no_output,
            failed_evaluation,
            looped,
            failed_steps: counters.failed.steps.value(),
            failed_array_steps: counters.failed.array_steps.value(),
            failed_output_bytes: counters.failed.output_bytes.value(),
            error_actions: counters.error_actions.value(),
            error_actions_failed: counters.error_actions_failed.value(),
            last_match_at_ms: counters.last.match_ms(),
            last_error: counters.last.error(),
            evaluation: counters.times.snapshot(),
            actions: loaded.zip(running).map(|(loaded, running)| running.stats(loaded)).collect(),
        }
    }
}

impl RunningAction {
    /// Where a request of the action is to go.
    fn owe(
        &self,
        shared: &Shared,
        facts: &Facts<'_>,
        loaded: &LoadedAction,
        request: &Request,
        trace: Option<Context>,
    ) -> Owing {
        match &self.outlet {
            Some(outlet) if outlet.is_durable() => {
                let origin = shared.origin(facts);
                let order = loaded.plan.order_by();
                outlet.owe(facts.id, facts.received_at_ms, order, &origin, request, trace)
            }
            _ => Owing::InMemory,
        }
    }

    pub(super) fn is_durable(&self) -> bool {
        self.outlet.as_ref().is_some_and(|outlet| outlet.is_durable())
    }

    /// Counts a request that never got a place.
    fn ended_early(&self, early: Early) {
        self.counters.requests.raise();
        if let Some(outlet) = &self.outlet {
            outlet.ended_early(early);
        }
    }

    /// Tells the action's queue of a request that is in the outbox.
    fn placed(&self, position: Position, item: OutletItem) {
        if let Some(outlet) = &self.outlet {
            self.counters.requests.raise();
            outlet.placed(position, item);
        }
    }

    /// Puts a request into the action's queue, which counts what it drops; `None`: it takes none of this kind.
    fn enqueue(&self, item: OutletItem) -> Option<Enqueued> {
        let enqueued = self.outlet.as_ref().and_then(|outlet| outlet.enqueue(item).ok());
        // The queue was started for this very action, so kinds agree; should they ever not, it is seen here.
        let counter = if enqueued.is_some() { &self.counters.requests } else { &self.counters.refused };
        counter.raise();
        enqueued
    }

    /// Whether a republish may be made of a message with this trail. Returns its encoded properties, or why not.
    pub(super) fn check_republish(
        &self,
        shared: &Shared,
        trail: &Trail,
        request: &RepublishRequest,
        trace: Option<Context>,
    ) -> Result<Vec<u8>, String> {
        let hops_max = shared.hops_max;
        if trail.rules().len() >= hops_max {
            self.counters.hop_limited.raise();
            return Err(format!("the message has been through {hops_max} rules, which is the limit"));
        }
        encoded_properties(request, trace).inspect_err(|_| self.counters.failed_render.raise())
    }

    fn stats(&self, loaded: &LoadedAction) -> ActionStats {
        ActionStats {
            name: loaded.config.name().to_owned(),
            kind: loaded.config.kind(),
            requests: self.counters.requests.value(),
            failed_render: self.counters.failed_render.value(),
            hop_limited: self.counters.hop_limited.value(),
            refused: self.counters.refused.value(),
            backpressure: self.counters.backpressure.value(),
            delivery: self.outlet.as_ref().map(|outlet| outlet.snapshot()),
        }
    }
}

/// A request for the action at `place` of its rule.
struct Rendered {
    place: usize,
    /// What it keeps its order with.
    key: Option<u64>,
    /// For the error action, if there is one.
    message: Option<Arc<KeptMessage>>,
    request: Request,
    /// What its attempts are told beneath.
    trace: Option<Context>,
}

/// What the requests that an action makes of a message keep their order with.
fn order_key(shared: &Shared, facts: &Facts<'_>, loaded: &LoadedAction) -> Option<u64> {
    match loaded.plan.order_by() {
        OrderBy::Publisher => Some(shared.secret.key(facts.client_id().unwrap_or_default())),
        OrderBy::Topic => Some(shared.secret.key(facts.topic)),
        _ => None,
    }
}

/// Encodes the properties that a republish asks for.
fn encoded_properties(request: &RepublishRequest, trace: Option<Context>) -> Result<Vec<u8>, String> {
    let mut user_properties = UserPropertiesBuf::default();
    for (name, value) in &request.user_properties {
        user_properties.push(name, value).map_err(|error| format!("user property: {error}"))?;
    }
    told::mark(&mut user_properties, trace);
    let properties = PublishProperties {
        payload_format_indicator: request.payload_format_indicator,
        response_topic: request.response_topic.as_deref(),
        correlation_data: request.correlation_data.as_deref(),
        content_type: request.content_type.as_deref(),
        user_properties: user_properties.as_properties(),
        ..PublishProperties::default()
    };
    let mut out = Vec::new();
    properties.append_forward(&mut out).map_err(|error| error.to_string())?;
    Ok(out)
}
