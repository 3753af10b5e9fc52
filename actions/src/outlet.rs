//! One queued action, whatever its kind: the delivery machine with the right driver in it.

use std::hash::RandomState;
use std::sync::Arc;
use std::time::Duration;

use store::{DurableStore, Position};

use crate::config::{ActionConfig, OrderBy};
use crate::delivery::outbox::encode;
use crate::delivery::{Delivery, Enqueued, ItemId, OnFailure, Outbox, Outgoing, Snapshot};
use crate::error::ActionConfigError;
use crate::plan::Request;
use crate::sinks::http::{Connectors, HttpRequest, HttpSink};
use crate::sinks::log::{LogLine, LogSink, TracingWriter};
use crate::targets::TargetPolicy;

/// A request that can wait in a queue.
pub trait QueuedRequest: Send + Sync + 'static {
    /// Returns about how many bytes of memory it takes.
    fn bytes(&self) -> usize;

    /// Returns how many bytes it takes in a batch, as [`crate::delivery::BatchPolicy::max_bytes`] counts them.
    fn batch_bytes(&self) -> usize {
        self.bytes()
    }

    /// Whether it may go in one batch with `first`, which is another request.
    fn goes_with(&self, _first: &Self) -> bool {
        true
    }

    /// Appends the request as an outbox keeps it.
    fn encode(&self, out: &mut Vec<u8>);

    /// Reads what [`QueuedRequest::encode`] has written; `None` for anything else. Every check that a request had when it
    /// was rendered is made again.
    fn decode(bytes: &[u8]) -> Option<Self>
    where
        Self: Sized;
}

/// What outlets need besides an action's own settings.
#[derive(Debug, Clone, Default)]
pub struct OutletSettings {
    /// Which addresses actions may connect to.
    pub targets: Arc<TargetPolicy>,
    /// What actions take addresses and credentials from.
    pub connectors: Arc<Connectors>,
    /// Seeds the jitter of retries.
    pub seed: u64,
    /// Where queues are kept; `None`: in memory alone.
    pub store: Option<Arc<DurableStore>>,
    /// What the caller makes order keys with.
    pub hasher: RandomState,
}

impl OutletSettings {
    /// Whether an action's driver must be made anew because these settings aren't the ones that it was made with.
    #[must_use]
    pub fn changes(&self, before: &Self, config: &ActionConfig) -> bool {
        let ActionConfig::Http(config) = config else { return false };
        let same_connector = config.connector.as_deref().is_none_or(|name| {
            matches!(
                (self.connectors.get(name), before.connectors.get(name)),
                (Some(now), Some(before)) if Arc::ptr_eq(now, before)
            )
        });
        self.targets != before.targets || !same_connector
    }
}

/// The queue and driver of one action. Republish has none.
#[derive(Debug)]
pub struct Outlet {
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Http(Delivery<HttpSink>),
    Log(Delivery<LogSink<TracingWriter>>),
}

impl Outlet {
    /// Checks what making a driver for `config` needs from the machine, without making it.
    ///
    /// # Errors
    /// As [`Outlet::spawn`].
    pub fn check(config: &ActionConfig, connectors: &Connectors) -> Result<(), ActionConfigError> {
        match config {
            ActionConfig::Http(config) => HttpSink::check(config, connectors),
            ActionConfig::Republish(_) | ActionConfig::Log(_) => Ok(()),
        }
    }

    /// Starts queue and worker of an action on the current tokio runtime; `None` for a republish.
    ///
    /// # Errors
    /// [`ActionConfigError`] when the driver can't be made.
    pub fn spawn(
        rule: &str,
        config: &ActionConfig,
        settings: &OutletSettings,
    ) -> Result<Option<Self>, ActionConfigError> {
        let label = format!("{rule}/{}", config.name());
        let kind = match config {
            ActionConfig::Republish(_) => return Ok(None),
            ActionConfig::Http(config) => {
                let sink = HttpSink::new(rule, config, Arc::clone(&settings.targets), &settings.connectors)?;
                let outbox = settings.store.as_ref();
                let outbox =
                    outbox.map(|store| Outbox::new(Arc::clone(store), &label, settings.hasher.clone()));
                Kind::Http(Delivery::spawn_on(&label, sink, config.delivery(), settings.seed, outbox))
            }
            ActionConfig::Log(config) => {
                let sink = LogSink::new(TracingWriter, config.max_per_second);
                Kind::Log(Delivery::spawn(&label, sink, config.delivery(), settings.seed))
            }
        };
        Ok(Some(Self { kind }))
    }

    /// Gives the running queue new settings. Returns `false`, and changes nothing, when `config` is of another kind.
    ///
    /// # Errors
    /// [`ActionConfigError`] when the driver can't be made; nothing changed then.
    pub fn reconfigure(
        &self,
        rule: &str,
        config: &ActionConfig,
        settings: &OutletSettings,
    ) -> Result<bool, ActionConfigError> {
        match (&self.kind, config) {
            (Kind::Http(delivery), ActionConfig::Http(config)) => {
                let sink = HttpSink::new(rule, config, Arc::clone(&settings.targets), &settings.connectors)?;
                delivery.reconfigure(sink, config.delivery());
            }
            (Kind::Log(delivery), ActionConfig::Log(config)) => {
                delivery.reconfigure(LogSink::new(TracingWriter, config.max_per_second), config.delivery());
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The outbox's name, and the body that it is to keep for this request; `None` where the queue is in memory alone.
    #[must_use]
    pub fn debt(&self, order: OrderBy, request: &Request) -> Option<(Arc<str>, Vec<u8>)> {
        match (&self.kind, request) {
            (Kind::Http(delivery), Request::Http(request)) => {
                Some((Arc::clone(delivery.outbox()?.name()), encode(order, request)))
            }
            _ => None,
        }
    }

    /// Tells of a request that [`Outlet::debt`] gave a body for, and that has this place in the outbox now. Never waits. A
    /// request of another kind than the outlet's is left to be found there.
    pub fn placed(&self, position: Position, item: OutletItem) {
        let OutletItem { id, key, request, on_failure, extra_bytes } = item;
        if let (Kind::Http(delivery), Request::Http(request)) = (&self.kind, request) {
            delivery.placed(position, Outgoing { id, key, request, on_failure, extra_bytes });
        }
    }

    /// Puts a request into the queue. Never waits. A request of another kind than the outlet's is handed back.
    ///
    /// # Errors
    /// The request, when it is of another kind.
    pub fn enqueue(&self, item: OutletItem) -> Result<Enqueued, Box<Request>> {
        let OutletItem { id, key, request, on_failure, extra_bytes } = item;
        match (&self.kind, request) {
            (Kind::Http(delivery), Request::Http(request)) => {
                Ok(delivery.enqueue(Outgoing::<HttpRequest> { id, key, request, on_failure, extra_bytes }))
            }
            (Kind::Log(delivery), Request::Log(request)) => {
                Ok(delivery.enqueue(Outgoing::<LogLine> { id, key, request, on_failure, extra_bytes }))
            }
            (_, request) => Err(Box::new(request)),
        }
    }

    /// Returns the counters and the health of this moment.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        match &self.kind {
            Kind::Http(delivery) => delivery.snapshot(),
            Kind::Log(delivery) => delivery.snapshot(),
        }
    }

    /// Takes nothing more, sends what is queued for at most `grace`, then gives up the rest and counts it under
    /// [`crate::DropReason::Shutdown`].
    pub async fn shutdown(&self, grace: Duration) {
        match &self.kind {
            Kind::Http(delivery) => delivery.shutdown(grace).await,
            Kind::Log(delivery) => delivery.shutdown(grace).await,
        }
    }
}

/// What goes into [`Outlet::enqueue`].
pub struct OutletItem {
    /// The message that the request was made from.
    pub id: ItemId,
    /// Items with the same key keep their order; `None` for an item without order.
    pub key: Option<u64>,
    /// The request.
    pub request: Request,
    /// Told if it is given up.
    pub on_failure: Option<OnFailure>,
    /// Bytes that live as long as the item does, beside the request's own.
    pub extra_bytes: usize,
}
