//! What happens when actions fail.
//!
//! A rule's error action runs once for a message for which at least one action failed, with a document that names every
//! failure. Where all failures are known at once (nothing was queued), it runs within the source message's admission.
//! Where requests were queued, it waits until the last of them has been delivered or given up, and then runs on its own:
//! a task takes the jobs from a bounded queue and publishes or enqueues. Its own failure is logged and counted, no more.
//! For a message that the broker refuses it doesn't run at all.
//!
//! Either way what it publishes carries the trail of the message, with this rule added: a ring of rules that feed each
//! other through their error actions ends where it would come round.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Weak};

use actions::{Failure, Request};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use broker::{Broker, InternalPublish};
use parking_lot::Mutex;
use rules_sql::Output;
use serde::Serialize;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

use super::message::{Facts, KeptMessage};
use super::pipeline::{Rule, Shared};

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

/// Collects the failures of one rule for one message until every queued request has ended. When the last holder lets go
/// of it, the error action is set off if there was any failure.
pub(super) struct Collector {
    shared: Arc<Shared>,
    rule: Arc<Rule>,
    message: Option<KeptMessage>,
    failures: Mutex<Vec<FailedAction>>,
}

impl Collector {
    /// Begins with the failures that are known already.
    pub(super) fn new(
        shared: &Arc<Shared>,
        rule: &Arc<Rule>,
        message: KeptMessage,
        failures: Vec<FailedAction>,
    ) -> Self {
        Self {
            shared: Arc::clone(shared),
            rule: Arc::clone(rule),
            message: Some(message),
            failures: Mutex::new(failures),
        }
    }

    fn add(&self, failure: FailedAction) {
        self.failures.lock().push(failure);
    }

    /// Returns what a queued request tells when it is given up.
    pub(super) fn teller(self: &Arc<Self>, action: &str, resource: String) -> actions::OnFailure {
        let collector = Arc::clone(self);
        let action = action.to_owned();
        Box::new(move |failure: Failure| {
            collector.add(FailedAction {
                failed_action: action,
                failed_resource: resource,
                error_message: failure.error,
            });
        })
    }

    /// About how many bytes it keeps alive.
    pub(super) fn bytes(&self) -> usize {
        self.message.as_ref().map_or(0, KeptMessage::bytes)
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        let failures = std::mem::take(self.failures.get_mut());
        if failures.is_empty() {
            return;
        }
        let Some(message) = self.message.take() else { return };
        self.rule.counters.error_actions.raise();
        let now_ms = message.facts().received_at_ms;
        let job = Job { rule: Arc::clone(&self.rule), message, failures };
        let problem = match self.shared.error_jobs.sender.try_send(Order::Run(job)) {
            Ok(()) => return,
            Err(TrySendError::Full(_)) => format!("{JOBS_MAX} wait to be run already, which is the limit"),
            Err(TrySendError::Closed(_)) => "the rules have been stopped".to_owned(),
        };
        self.rule.error_action_failed(&problem, now_ms);
    }
}

/// An error action to be run on its own.
#[derive(Debug)]
pub(super) struct Job {
    rule: Arc<Rule>,
    message: KeptMessage,
    failures: Vec<FailedAction>,
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

    /// Sets who publishes, or nobody. A broker holds its pipeline and the pipeline this: only letting go of it here lets
    /// both be freed.
    pub(super) fn set_publisher(&self, publisher: Option<Arc<dyn Publisher>>) {
        *self.publisher.lock() = publisher;
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
    match request(shared, &job.rule, &facts, &job.failures)? {
        None => Ok(()),
        Some(Request::Republish(request)) => {
            let Some(running) = job.rule.running_error_action() else { return Ok(()) };
            let properties = running.check_republish(shared, &job.message.trail, &request)?;
            let publisher = shared.error_jobs.publisher.lock().clone().ok_or("no broker to publish to")?;
            let published = publisher.publish(InternalPublish {
                topic: request.topic,
                payload: request.payload,
                qos: request.qos,
                retain: request.retain,
                properties,
                message_expiry_interval_s: request.message_expiry_interval_s,
                trail: job.message.trail.with(job.rule.id),
            });
            let outcome = published.await;
            let counters = &running.counters;
            let counter = if outcome.is_ok() { &counters.requests } else { &counters.refused };
            counter.raise();
            outcome
        }
        Some(request) => job.rule.enqueue_error(facts.id, request),
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
        trace_id: format!("{:032x}", shared.secret.trace_id(facts.id)),
        client_id: facts.client_id(),
        base64_original_payload: STANDARD.encode(facts.payload),
        failures,
    };
    let document = serde_json::to_vec(&document).map_err(|error| error.to_string())?;
    let document = Output::of_document(document);
    rule.render_error(shared, facts, &document).map_err(|error| error.to_string())
}
