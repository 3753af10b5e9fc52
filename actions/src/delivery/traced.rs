//! What is told of an item's way to the far side: each attempt, and how it ended.
//!
//! An item of a traced message carries the context of what the rule handed over. Every attempt is a span of its own beneath
//! that, linked to the attempt before it. In a batch, the attempt of the first traced item stands for the request: the others
//! link to it. An item without a trace gets one with the first attempt that fails, as far as the tracer takes errors.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use trace::{Context, Kind, Span, Tracer};

use super::counters::DropReason;
use super::item::{Batch, Item};
use super::{DeliveryError, Envelope, ItemId, Sink};

/// Endings of one turn that are told; those beyond it are counted only, by the action's counters.
const ENDINGS_TOLD_MAX: usize = 16;

/// The trace of one item, if it has one.
#[derive(Debug, Default)]
pub struct Traced(Mutex<Option<Box<Attempts>>>);

#[derive(Debug)]
struct Attempts {
    /// What the rule handed over.
    action: Context,
    /// The span of the attempt that is under way, or was last.
    last: Option<u64>,
}

impl Traced {
    pub(crate) fn new(context: Option<Context>) -> Self {
        Self(Mutex::new(context.map(|action| Box::new(Attempts { action, last: None }))))
    }

    /// The `traceparent` for the attempt that is under way.
    #[must_use]
    pub fn traceparent(&self) -> Option<String> {
        let attempts = self.0.lock();
        let attempts = attempts.as_ref()?;
        let span_id = attempts.last.unwrap_or(attempts.action.span_id);
        Some(Context { trace_id: attempts.action.trace_id, span_id }.traceparent())
    }

    fn action(&self) -> Option<Context> {
        self.0.lock().as_ref().map(|attempts| attempts.action)
    }
}

/// The `traceparent` of a request that carries these items.
pub(crate) fn traceparent<R>(batch: &[Arc<Envelope<R>>]) -> Option<String> {
    batch.iter().find_map(|item| item.trace.traceparent())
}

/// An item that ended without being delivered.
pub(super) struct GivenUp {
    context: Option<Context>,
    id: ItemId,
    reason: DropReason,
    error: String,
    attempts: u32,
}

impl GivenUp {
    /// Notes an ending, unless enough are noted.
    pub(super) fn note<R>(into: &mut Vec<Self>, item: &Item<R>, reason: DropReason, error: &str) {
        if into.len() < ENDINGS_TOLD_MAX {
            let (context, id) = (item.envelope.trace.action(), item.envelope.id);
            into.push(Self { context, id, reason, error: error.to_owned(), attempts: item.attempts });
        }
    }
}

/// Attempts under way: the place of each traced item in its batch, and its span.
pub(super) type Departed = Vec<(usize, Span)>;

/// Tells the tracer about the items of one action.
#[derive(Debug)]
pub(super) struct Teller {
    tracer: Arc<Tracer>,
    rule: String,
    action: String,
}

impl Teller {
    /// `label`: `rule/action`.
    pub(super) fn new(tracer: Arc<Tracer>, label: &str) -> Self {
        let (rule, action) = label.split_once('/').unwrap_or(("", label));
        Self { tracer, rule: rule.to_owned(), action: action.to_owned() }
    }

    fn span(&self, parent: Context, kind: Kind, operation: &'static str, id: ItemId) -> Span {
        Span::child(parent, kind, format!("{operation} {}/{}", self.rule, self.action))
            .with("messaging.operation.name", operation)
            .with("tidegate.rule.id", self.rule.as_str())
            .with("tidegate.action.id", self.action.as_str())
            .with("tidegate.item.id", id.to_string())
    }

    /// A batch leaves.
    pub(super) fn depart<S: Sink>(&self, sink: &S, batch: &Batch<S::Request>, now: Instant) -> Departed {
        let mut departed = Departed::new();
        for (place, item) in batch.items.iter().enumerate() {
            let mut trace = item.envelope.trace.0.lock();
            let Some(attempts) = trace.as_mut() else { continue };
            let mut span = self.attempt(attempts, item, batch.len(), now.duration_since(item.arrived_at));
            sink.describe(&item.envelope.request, &mut span);
            if let Some((_, first)) = departed.first() {
                span.links.push(first.context);
            }
            departed.push((place, span));
        }
        if let Some(((_, first), others)) = departed.split_first_mut() {
            first.links.extend(others.iter().map(|(_, span)| span.context));
        }
        departed
    }

    fn attempt<R>(&self, attempts: &mut Attempts, item: &Item<R>, batch: usize, waited: Duration) -> Span {
        let mut span = self
            .span(attempts.action, Kind::Attempt, "send", item.envelope.id)
            .with("messaging.operation.type", "send")
            .with("tidegate.attempt", item.attempts.saturating_add(1))
            .with("tidegate.replayed", item.envelope.replayed.is_some())
            .with("tidegate.waited_ms", u64::try_from(waited.as_millis()).unwrap_or(u64::MAX));
        if batch > 1 {
            span.set("messaging.batch.message_count", batch);
        }
        let trace_id = attempts.action.trace_id;
        span.links.extend(attempts.last.map(|span_id| Context { trace_id, span_id }));
        attempts.last = Some(span.context.span_id);
        span
    }

    /// A batch is back, with what the sink said of each item.
    pub(super) fn arrive<S: Sink>(
        &self,
        sink: &S,
        batch: &Batch<S::Request>,
        departed: Departed,
        results: &[Result<(), DeliveryError>],
    ) {
        let mut departed = departed.into_iter().peekable();
        for (place, (item, result)) in batch.items.iter().zip(results).enumerate() {
            let own = departed.next_if(|(traced, _)| *traced == place).map(|(_, span)| span);
            let error = result.as_ref().err().filter(|error| **error != DeliveryError::NotAttempted);
            let span = match (own, error) {
                (Some(span), _) => Some(span),
                // Nobody asked, and it has failed: from here on it is traced.
                (None, Some(_)) => self.begin(sink, item, batch.len()),
                (None, None) => None,
            };
            let Some(mut span) = span else { continue };
            match (result, error) {
                (Ok(()), _) => span.set("tidegate.outcome", "delivered"),
                (Err(_), Some(error)) => {
                    match error {
                        // As the conventions for HTTP ask.
                        DeliveryError::Answered { status, .. } => {
                            span.set("http.response.status_code", u32::from(*status));
                            span.set("error.type", status.to_string());
                        }
                        other => span.set("error.type", other.kind()),
                    }
                    span.set("tidegate.outcome", if error.is_retriable() { "failed" } else { "refused" });
                    span.fail(&error.to_string());
                }
                (Err(_), None) => span.set("tidegate.outcome", "not_attempted"),
            }
            self.tracer.finish(span);
        }
    }

    /// Begins the trace of an item whose attempt has failed.
    fn begin<S: Sink>(&self, sink: &S, item: &Item<S::Request>, batch: usize) -> Option<Span> {
        let action = self.tracer.begin_for_error()?;
        let mut attempts = Box::new(Attempts { action, last: None });
        let mut span = self.attempt(&mut attempts, item, batch, Duration::ZERO);
        sink.describe(&item.envelope.request, &mut span);
        *item.envelope.trace.0.lock() = Some(attempts);
        Some(span)
    }

    /// Items that ended without being delivered.
    pub(super) fn ended(&self, ended: Vec<GivenUp>) {
        for GivenUp { context, id, reason, error, attempts } in ended {
            let Some(context) = context.or_else(|| self.tracer.begin_for_error()) else { continue };
            let mut span = self
                .span(context, Kind::Settle, "settle", id)
                .with("messaging.operation.type", "settle")
                .with("tidegate.reason", reason.as_str())
                .with("tidegate.attempts", attempts);
            span.fail(&error);
            self.tracer.finish(span);
        }
    }
}
