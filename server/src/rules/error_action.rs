//! What happens when actions fail.
//!
//! A rule's error action runs once for a message for which at least one action failed, with a document that names every
//! failure. Where all failures are known at once (nothing was queued), it runs within the source message's admission.
//! Where requests were queued, it waits until the last of them has been delivered or given up, and then runs on its own:
//! a task takes the jobs from a bounded queue and publishes or enqueues. Its own failure is logged and counted, no more.
//!
//! A message that is published on its own has no trail of rules yet, so a rule that listens to its own error topic could
//! feed itself. Two things stand against it: the trail is remembered while the message is being routed, and a rule's
//! error action runs on its own at most [`ON_ITS_OWN_PER_SECOND_MAX`] times per second.

use std::collections::HashMap;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Weak};

use actions::{Failure, OutputRef, Request};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use broker::{Broker, InternalPublish, Trail};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};

use super::message::{Facts, KeptMessage};
use super::pipeline::{Rule, Shared, encoded_properties};

/// Most error actions of one rule per second that run on their own.
const ON_ITS_OWN_PER_SECOND_MAX: u32 = 100;
/// Most jobs that wait to be run.
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
    pub(super) fn new(shared: &Arc<Shared>, rule: &Arc<Rule>, message: KeptMessage) -> Self {
        Self {
            shared: Arc::clone(shared),
            rule: Arc::clone(rule),
            message: Some(message),
            failures: Mutex::default(),
        }
    }

    pub(super) fn add(&self, failure: FailedAction) {
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
        let job = Job { rule: Arc::clone(&self.rule), message, failures };
        if self.shared.error_jobs.sender.try_send(Order::Run(job)).is_err() {
            self.rule.counters.error_actions_failed.raise();
        }
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
    /// Trails of the messages that are being published on their own right now, by topic and payload.
    trails: Mutex<HashMap<u64, Trail>>,
}

impl fmt::Debug for ErrorJobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ErrorJobs").finish_non_exhaustive()
    }
}

impl ErrorJobs {
    pub(super) fn new() -> (Self, mpsc::Receiver<Order>) {
        let (sender, receiver) = mpsc::channel(JOBS_MAX);
        (Self { sender, publisher: Mutex::default(), trails: Mutex::default() }, receiver)
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

    /// The trail of a message that is being published on its own, if this is one.
    pub(super) fn trail_of(&self, key: u64) -> Option<Trail> {
        self.trails.lock().get(&key).cloned()
    }
}

/// Runs error actions until the pipeline is gone.
pub(super) async fn run(shared: Weak<Shared>, mut orders: mpsc::Receiver<Order>) {
    let mut window = Window::default();
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
        let counters = &job.rule.counters;
        let outcome = if window.admits(job.rule.id, job.message.facts().received_at_ms) {
            run_one(&shared, &job).await
        } else {
            Err(format!("more than {ON_ITS_OWN_PER_SECOND_MAX} per second"))
        };
        if let Err(error) = outcome {
            counters.error_actions_failed.raise();
            if counters.log.opens(job.message.facts().received_at_ms) {
                tracing::warn!(rule = job.rule.name(), error, "error action failed");
            }
        }
    }
}

async fn run_one(shared: &Arc<Shared>, job: &Job) -> Result<(), String> {
    let facts = job.message.facts();
    match request(shared, &job.rule, &facts, &job.failures)? {
        None => Ok(()),
        Some(Request::Republish(request)) => {
            let publisher = shared.error_jobs.publisher.lock().clone().ok_or("no broker to publish to")?;
            let trail = job.message.trail.with(job.rule.id);
            let properties = encoded_properties(&request)?;
            let key = shared.message_key(&request.topic, &request.payload);
            shared.error_jobs.trails.lock().insert(key, trail);
            let published = publisher.publish(InternalPublish {
                topic: request.topic,
                payload: request.payload,
                qos: request.qos,
                retain: request.retain,
                properties,
                message_expiry_interval_s: request.message_expiry_interval_s,
                trail: broker::Trail::default(),
            });
            let outcome = published.await;
            shared.error_jobs.trails.lock().remove(&key);
            outcome
        }
        Some(request) => job.rule.enqueue_error(&facts, request),
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
    let output = OutputRef { bytes: &document, is_json: true };
    rule.render_error(shared, facts, output).map_err(|error| error.to_string())
}

/// Error actions that ran on their own in the second that began.
#[derive(Debug, Default)]
struct Window {
    second: i64,
    runs: HashMap<u32, u32>,
}

impl Window {
    fn admits(&mut self, rule: u32, now_ms: i64) -> bool {
        let second = now_ms.div_euclid(1_000);
        if second != self.second {
            self.second = second;
            self.runs.clear();
        }
        let runs = self.runs.entry(rule).or_default();
        *runs = runs.saturating_add(1);
        *runs <= ON_ITS_OWN_PER_SECOND_MAX
    }
}
