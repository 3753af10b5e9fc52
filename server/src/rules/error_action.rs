//! What happens when actions fail.
//!
//! What failed by the time a message is admitted (a template, a republish, a full queue) is in one document, and the error
//! action runs within the message's admission; for a message that the broker refuses it doesn't run at all. A delivery that
//! ends later without success sets it off by itself, with a document that names that one. Where the action has an outbox, it
//! is not lost with the process: what an error action with an outbox is owed is in the frame with which the item leaves the
//! action's own, and what one republishes is published, and safe, before the item leaves. In all other cases a task takes the
//! jobs from a bounded queue. Its own failure is logged and counted, no more.
//!
//! Either way what it publishes carries the trail of the message, with this rule added: a ring of rules that feed each
//! other through their error actions ends where it would come round.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Weak};

use actions::{Aftermath, Ended, Endings, Failure, Heard, OnFailure, Request};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use broker::{Broker, InternalPublish};
use parking_lot::Mutex;
use rules_sql::Output;
use serde::Serialize;
use tokio::runtime::Handle;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

use super::file::ERROR_ACTION;
use super::message::{Facts, KeptMessage};
use super::origin::Origin;
use super::pipeline::Shared;
use super::rule::Rule;

/// Most error actions that wait to be run on their own.
const JOBS_MAX: usize = 1_024;

/// Publishes what error actions say. Implemented for the broker.
pub trait Publisher: Send + Sync + 'static {
    /// Publishes a message as the broker itself; `Err` says in words why it was refused.
    fn publish(
        &self,
        message: InternalPublish,
    ) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send + '_>>;
}

impl Publisher for Broker {
    fn publish(
        &self,
        message: InternalPublish,
    ) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send + '_>> {
        Box::pin(async move { Self::publish(self, message).await.map_err(|error| error.to_string()) })
    }
}

/// One failed action in the document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct FailedAction {
    pub(super) failed_action: String,
    pub(super) failed_resource: String,
    pub(super) error_message: String,
}

/// The error action's input.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    rule_name: &'a str,
    topic: &'a str,
    trace_id: String,
    client_id: Option<&'a str>,
    base64_original_payload: String,
    failures: &'a [FailedAction],
}

/// Returns what a queued request tells when it is given up: it sets the error action off.
pub(super) fn teller(
    shared: &Arc<Shared>,
    rule: &Arc<Rule>,
    message: &Arc<KeptMessage>,
    failed_action: &str,
    failed_resource: String,
) -> OnFailure {
    let (shared, rule, message) = (Arc::clone(shared), Arc::clone(rule), Arc::clone(message));
    let failed_action = failed_action.to_owned();
    Box::new(move |failure: Failure| {
        let failure = FailedAction { failed_action, failed_resource, error_message: failure.error };
        shared.error_jobs.set_off(Job { rule, message, failure });
    })
}

/// Hears of what ends in outboxes, whether this process put it there or an earlier one: rules and actions are found by
/// name.
#[derive(Debug)]
pub(super) struct Hearing(pub(super) Weak<Shared>);

impl Endings for Hearing {
    fn wants(&self, outbox: &str) -> bool {
        let rule = self.0.upgrade().and_then(|shared| shared.rule(outbox.split_once('/')?.0));
        rule.is_some_and(|rule| rule.running_error_action().is_some())
    }

    fn ended(&self, ended: &Ended<'_>) -> Heard {
        let Some(shared) = self.0.upgrade() else { return Heard::Nothing };
        let Some((rule, action)) = ended.outbox.split_once('/') else { return Heard::Nothing };
        let (Some(rule), Some(message)) = (shared.rule(rule), ended.message) else { return Heard::Nothing };
        let error_message = ended.error.to_owned();
        if action == ERROR_ACTION {
            let now_ms = message.received_at_ms;
            let then = move |_| rule.error_action_failed(&error_message, now_ms);
            return Heard::Owed(Aftermath { debt: None, then: Box::new(then) });
        }
        let Some(running) = rule.running_error_action() else { return Heard::Nothing };
        let is_durable = running.is_durable();
        let origin = Origin::decode(ended.origin);
        let trail = origin.as_ref().map(|origin| shared.trail(&origin.trail)).unwrap_or_default();
        let message = Arc::new(KeptMessage::of_stored(message, origin.as_ref(), trail));
        let failed_resource = rule.resource(action).unwrap_or_default();
        let failure = FailedAction { failed_action: action.to_owned(), failed_resource, error_message };
        if rule.republishes_errors() {
            return publish_now(&shared, &Job { rule, message, failure });
        }
        if !is_durable {
            let job = Job { rule, message, failure };
            let then = move |_| shared.error_jobs.set_off(job);
            return Heard::Owed(Aftermath { debt: None, then: Box::new(then) });
        }
        let facts = message.facts();
        let owed = request(&shared, &rule, &facts, std::slice::from_ref(&failure)).and_then(|request| {
            request.map(|request| rule.owe_error(&shared, &message, request)).transpose()
        });
        let (debt, item) = match owed {
            Ok(owed) => owed.map_or((None, Ok(None)), |(debt, item)| (Some(debt), Ok(Some(item)))),
            Err(error) => (None, Err(error)),
        };
        let then = move |position| {
            rule.counters.error_actions.raise();
            match item {
                Ok(item) => rule.error_placed(position, item),
                Err(error) => rule.error_action_failed(&error, message.facts().received_at_ms),
            }
        };
        Heard::Owed(Aftermath { debt, then: Box::new(then) })
    }
}

/// Publishes what an error action says of an item that is about to leave its outbox, and waits until that is safe: a crash
/// before the item has left has it said again, and none has it lost. Called where waiting is allowed.
fn publish_now(shared: &Arc<Shared>, job: &Job) -> Heard {
    let Ok(runtime) = Handle::try_current() else { return Heard::Later };
    if !shared.error_jobs.has_publisher() {
        return Heard::Later;
    }
    job.rule.counters.error_actions.raise();
    if let Err(error) = runtime.block_on(run_one(shared, job)) {
        job.rule.error_action_failed(&error, job.message.facts().received_at_ms);
    }
    Heard::Done
}

/// An error action to be run on its own.
#[derive(Debug)]
pub(super) struct Job {
    rule: Arc<Rule>,
    message: Arc<KeptMessage>,
    failure: FailedAction,
}

/// What the task is sent.
#[derive(Debug)]
pub(super) enum Order {
    /// Run this.
    Run(Job),
    /// Say when everything before this is done.
    Flush(oneshot::Sender<()>),
}

/// Jobs on their way to the task that runs them.
pub(super) struct ErrorJobs {
    sender: mpsc::Sender<Order>,
    publisher: Mutex<Option<Arc<dyn Publisher>>>,
}

impl fmt::Debug for ErrorJobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ErrorJobs").finish_non_exhaustive()
    }
}

impl ErrorJobs {
    pub(super) fn new() -> (Self, mpsc::Receiver<Order>) {
        let (sender, receiver) = mpsc::channel(JOBS_MAX);
        (Self { sender, publisher: Mutex::default() }, receiver)
    }

    /// Has an error action run soon.
    fn set_off(&self, job: Job) {
        job.rule.counters.error_actions.raise();
        let (job, problem) = match self.sender.try_send(Order::Run(job)) {
            Err(TrySendError::Full(Order::Run(job))) => {
                (job, format!("{JOBS_MAX} wait to be run already, which is the limit"))
            }
            Err(TrySendError::Closed(Order::Run(job))) => (job, "the rules have been stopped".to_owned()),
            _ => return,
        };
        job.rule.error_action_failed(&problem, job.message.facts().received_at_ms);
    }

    /// Sets who publishes, or nobody. A broker holds its pipeline and the pipeline this: only letting go of it here lets
    /// both be freed.
    pub(super) fn set_publisher(&self, publisher: Option<Arc<dyn Publisher>>) {
        *self.publisher.lock() = publisher;
    }

    /// Whether there is anybody who publishes.
    fn has_publisher(&self) -> bool {
        self.publisher.lock().is_some()
    }

    /// Returns when every job so far has been run.
    pub(super) async fn flush(&self) {
        let (done, is_done) = oneshot::channel();
        if self.sender.send(Order::Flush(done)).await.is_ok() {
            // An error means that the task is gone, and then nothing is left to wait for.
            is_done.await.unwrap_or_default();
        }
    }
}

/// Runs error actions until the pipeline is gone.
pub(super) async fn run(shared: Weak<Shared>, mut orders: mpsc::Receiver<Order>) {
    while let Some(order) = orders.recv().await {
        let job = match order {
            Order::Run(job) => job,
            Order::Flush(done) => {
                // Whoever asked may have stopped waiting.
                done.send(()).unwrap_or_default();
                continue;
            }
        };
        let Some(shared) = shared.upgrade() else { return };
        if let Err(error) = run_one(&shared, &job).await {
            job.rule.error_action_failed(&error, job.message.facts().received_at_ms);
        }
    }
}

async fn run_one(shared: &Arc<Shared>, job: &Job) -> Result<(), String> {
    let facts = job.message.facts();
    match request(shared, &job.rule, &facts, std::slice::from_ref(&job.failure))? {
        None => Ok(()),
        Some(Request::Republish(request)) => {
            let Some(running) = job.rule.running_error_action() else { return Ok(()) };
            let properties = running.check_republish(shared, &job.message.trail, &request, None)?;
            let publisher = shared.error_jobs.publisher.lock().clone().ok_or("no broker to publish to")?;
            let published = publisher.publish(InternalPublish {
                topic: request.topic,
                payload: request.payload,
                qos: request.qos,
                retain: request.retain,
                properties,
                message_expiry_interval_s: request.message_expiry_interval_s,
                trail: job.message.trail.with(job.rule.id),
                run_as: job.rule.run_as(),
            });
            let outcome = published.await;
            let counters = &running.counters;
            let counter = if outcome.is_ok() { &counters.requests } else { &counters.refused };
            counter.raise();
            outcome
        }
        Some(request) => job.rule.keep_error(shared, &job.message, request),
    }
}

/// Renders the error action of a rule; `None` where it has none.
pub(super) fn request(
    shared: &Shared,
    rule: &Rule,
    facts: &Facts<'_>,
    failures: &[FailedAction],
) -> Result<Option<Request>, String> {
    let document = Document {
        rule_name: rule.name(),
        topic: facts.topic,
        trace_id: format!("{:032x}", facts.trace_id(&shared.secret)),
        client_id: facts.client_id(),
        base64_original_payload: STANDARD.encode(facts.payload),
        failures,
    };
    let document = serde_json::to_vec(&document).map_err(|error| error.to_string())?;
    let document = Output::of_document(document);
    rule.render_error(shared, facts, &document).map_err(|error| error.to_string())
}
