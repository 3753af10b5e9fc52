//! Traces on their way to a collector, by the OpenTelemetry Protocol over HTTP.
//!
//! The tracer gives each span to a queue (`queue.rs`), which never waits: what it has no room for is dropped and counted. One
//! task takes batches out of it, writes them as Protocol Buffers or JSON and posts them, one request at a time (`send.rs`).
//! A collector that is away for a while costs nothing but memory, up to the queue's limits; messages never notice.
//!
//! The messages of the protocol are few and fixed, so they are written by hand (`wire.rs`): docs/decisions/0022 says why.
//!
//! A reload makes a new queue and a new task where anything has changed; the ones before send what they have and end. At the
//! end of the process what waits is sent within `FLUSH_MAX`.
//!
//! Source: OpenTelemetry Protocol Specification 1.9, "OTLP/HTTP".

mod counts;
mod json;
mod queue;
mod resource;
mod send;
mod span;
mod wire;

#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::task::JoinHandle;
use trace::Tracer;

use self::counts::Counters;
pub use self::counts::Counts;
use self::queue::{Bounds, Feed, Queue};
use self::send::Sender;
use crate::config::Otlp;

/// Longest time for which what waits is sent when the process ends.
const FLUSH_MAX: Duration = Duration::from_secs(5);

/// Headers that belong to the connection or to the body.
const HEADERS_RESERVED: [&str; 6] =
    ["connection", "content-length", "content-type", "content-encoding", "host", "transfer-encoding"];

/// Why traces can't go to a collector.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OtlpError {
    /// A key is wrong.
    #[error("trace.otlp.{key}: {fault}")]
    Key {
        /// Its name.
        key: &'static str,
        /// What is wrong.
        fault: String,
    },
    /// There is no HTTP client.
    #[error("trace.otlp: no HTTP client could be made: {0}")]
    Client(String),
}

/// Whether the keys make sense, without looking at files. The error: which doesn't, and why; holds no secret.
pub(crate) fn check(otlp: &Otlp) -> Result<(), (&'static str, String)> {
    if let Some(endpoint) = &otlp.endpoint {
        let url = Url::parse(endpoint).ok().filter(|url| url.has_host());
        let Some(url) = url.filter(|url| matches!(url.scheme(), "http" | "https")) else {
            return Err(("endpoint", "expected https://host:port/path".to_owned()));
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(("endpoint", "user name and password belong into headers".to_owned()));
        }
        if url.scheme() == "http" && !otlp.insecure_http && !is_this_machine(&url) {
            let fault = "everybody on the way could read the traces: write https, or insecure_http = true";
            return Err(("endpoint", fault.to_owned()));
        }
    }
    headers(otlp).map(drop).map_err(|fault| ("headers", fault))
}

/// What is allowed and hardly meant.
pub(crate) fn warning(otlp: &Otlp) -> Option<String> {
    let url = Url::parse(otlp.endpoint.as_deref().filter(|_| otlp.enabled)?).ok()?;
    if url.path() == "/" {
        let said =
            "trace.otlp.endpoint has no path and is used as it is; collectors take traces at /v1/traces";
        return Some(said.to_owned());
    }
    (url.scheme() == "http" && !is_this_machine(&url)).then(|| {
        let host = url.host_str().unwrap_or_default();
        format!("trace.otlp: traces go to {host} without encryption")
    })
}

fn is_this_machine(url: &Url) -> bool {
    let Some(host) = url.host_str() else { return false };
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// The headers, whose values may be secrets. The error doesn't repeat them.
fn headers(otlp: &Otlp) -> Result<HeaderMap, String> {
    let mut all = HeaderMap::new();
    for (name, value) in &otlp.headers {
        let unusable = || format!("\"{}\" can't be sent as a header", name.escape_debug());
        let key = HeaderName::from_bytes(name.as_bytes()).map_err(|_| unusable())?;
        if HEADERS_RESERVED.contains(&key.as_str()) {
            return Err(format!("\"{key}\" is set by the gateway"));
        }
        let mut value = HeaderValue::from_str(value.expose()).map_err(|_| unusable())?;
        value.set_sensitive(true);
        all.insert(key, value);
    }
    Ok(all)
}

/// A configuration that can be put in place.
#[derive(Debug)]
pub struct Prepared {
    config: Otlp,
    /// `None`: nothing is sent.
    sender: Option<Sender>,
}

/// Hands traces on, as the configuration says.
#[derive(Debug)]
pub struct Exporter {
    running: Mutex<Running>,
    counters: Arc<Counters>,
    /// `service.instance.id`: another one for each start.
    instance_id: String,
}

#[derive(Debug, Default)]
struct Running {
    config: Otlp,
    queue: Option<Arc<Queue>>,
    /// Those of before, which may still have something to send, too.
    tasks: Vec<JoinHandle<()>>,
}

impl Default for Exporter {
    fn default() -> Self {
        Self { running: Mutex::default(), counters: Arc::default(), instance_id: resource::new_instance_id() }
    }
}

impl Exporter {
    /// Checks a configuration and reads the files that it names.
    ///
    /// # Errors
    /// [`OtlpError`].
    pub fn prepare(&self, config: &Otlp) -> Result<Prepared, OtlpError> {
        check(config).map_err(|(key, fault)| OtlpError::Key { key, fault })?;
        let sender = match &config.endpoint {
            Some(endpoint) if config.enabled => {
                let resource = resource::attributes(config, &self.instance_id);
                Some(Sender::new(config, endpoint, resource, Arc::clone(&self.counters))?)
            }
            _ => None,
        };
        Ok(Prepared { config: config.clone(), sender })
    }

    /// Puts it in place, inside a tokio runtime. What didn't change goes on.
    pub fn apply(&self, prepared: Prepared, tracer: &Tracer) {
        let mut running = self.running.lock();
        // Certificates may have changed though their file is the same.
        if prepared.config == running.config && prepared.config.ca.is_none() {
            return;
        }
        let queue = prepared.sender.map(|sender| {
            let queue = Arc::new(Queue::new(Bounds::of(&prepared.config), Arc::clone(&self.counters)));
            running.tasks.push(tokio::spawn(send::run(sender, Arc::clone(&queue))));
            queue
        });
        tracer.set_export(queue.as_ref().map(|queue| Box::new(Feed(Arc::clone(queue))) as _));
        if let Some(before) = std::mem::replace(&mut running.queue, queue) {
            before.close();
        }
        running.config = prepared.config;
        running.tasks.retain(|task| !task.is_finished());
    }

    /// What became of spans since the start.
    pub fn counts(&self) -> Counts {
        let waiting = self.running.lock().queue.as_ref().map_or(0, |queue| queue.len());
        self.counters.read(waiting)
    }

    /// Sends what waits, for so long and no longer than `FLUSH_MAX`, and ends.
    pub async fn close(&self, tracer: &Tracer, grace: Duration) {
        tracer.set_export(None);
        let (queue, tasks) = {
            let mut running = self.running.lock();
            running.config = Otlp::default();
            (running.queue.take(), std::mem::take(&mut running.tasks))
        };
        if queue.is_none() && tasks.is_empty() {
            return;
        }
        if let Some(queue) = &queue {
            queue.close();
        }
        let deadline = tokio::time::Instant::now() + grace.min(FLUSH_MAX);
        for mut task in tasks {
            if tokio::time::timeout_at(deadline, &mut task).await.is_err() {
                task.abort();
                // Only when it has ended is what it had counted.
                drop(task.await);
            }
        }
        let Counts { exported, dropped_full, dropped_failed, rejected, .. } = self.counts();
        tracing::info!(exported, dropped_full, dropped_failed, rejected, "export of traces ended");
    }
}
