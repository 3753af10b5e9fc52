//! Batches on their way: one request at a time, repeated as the protocol allows, then given up.
//!
//! A batch goes out again when no connection was made or none held, and after the statuses 429, 502, 503 and 504; never after
//! any other, and never elsewhere: redirects aren't followed. A collector that says how long it wants to be left alone
//! (`Retry-After`) is left alone for so long, up to [`RETRY_AFTER_MAX`], by what comes after the batch too.
//!
//! Failures are told once when they begin and once when they are over: how often there is one is up to the collector. What
//! it answers isn't logged but for the reason of what it left out, and that not if it repeats a header.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{StatusCode, Url, redirect};
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt as _;
use tokio::time::{Instant, sleep_until, timeout_at};
use trace::Span;

use super::counts::{Counters, add};
use super::queue::Queue;
use super::wire::Partial;
use super::{OtlpError, headers, json, wire};
use crate::cli::chain;
use crate::config::{Otlp, OtlpProtocol};

/// How long a connection may take to be made, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the one unused connection is kept.
const IDLE: Duration = Duration::from_secs(90);
/// First pause before a batch goes out again; each one after it is twice as long.
const BACKOFF_MIN: Duration = Duration::from_millis(250);
/// Longest pause of our own choice.
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// Longest pause that a collector can ask for, and by how much it can lengthen the life of a batch.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);
/// Bytes of an answer that are read.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// Time between two lines in the log about spans that were left out.
const TOLD_EVERY: Duration = Duration::from_secs(60);
/// Characters of a collector's reason that are logged.
const REASON_CHARS_MAX: usize = 200;

/// Posts batches to one collector.
#[derive(Debug)]
pub(super) struct Sender {
    client: reqwest::Client,
    url: Url,
    headers: HeaderMap,
    is_json: bool,
    explanations: bool,
    resource: Vec<(String, String)>,
    timeout: Duration,
    export_timeout: Duration,
    counters: Arc<Counters>,
    /// Not before then.
    not_before: Option<Instant>,
    is_failing: bool,
    partial_told: Option<Instant>,
}

/// Why a request came to nothing.
#[derive(Debug)]
struct Failure {
    reason: String,
    /// `None`: it is no use to send it again.
    again_after: Option<Duration>,
}

impl Sender {
    pub(super) fn new(
        config: &Otlp,
        endpoint: &str,
        resource: Vec<(String, String)>,
        counters: Arc<Counters>,
    ) -> Result<Self, OtlpError> {
        let key = |key: &'static str, fault: String| OtlpError::Key { key, fault };
        let url = Url::parse(endpoint).map_err(|error| key("endpoint", error.to_string()))?;
        let mut headers = headers(config).map_err(|fault| key("headers", fault))?;
        let is_json = config.protocol == OtlpProtocol::HttpJson;
        let content = if is_json { "application/json" } else { "application/x-protobuf" };
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content));
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls(&url, config)?)
            // A proxy named in the environment would see every header.
            .no_proxy()
            .retry(reqwest::retry::never())
            .redirect(redirect::Policy::none())
            .referer(false)
            .timeout(config.timeout.as_duration())
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(1)
            .user_agent(concat!("tidegate/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| OtlpError::Client(chain(&error)))?;
        Ok(Self {
            client,
            url,
            headers,
            is_json,
            explanations: config.explanations,
            resource,
            timeout: config.timeout.as_duration(),
            export_timeout: config.export_timeout.as_duration(),
            counters,
            not_before: None,
            is_failing: false,
            partial_told: None,
        })
    }

    /// Sends a batch until it is taken, refused or too old.
    async fn send(&mut self, spans: &[Span]) {
        let mut unsettled = Unsettled { spans: spans.len(), counters: Arc::clone(&self.counters) };
        if let Some(at) = self.not_before.take() {
            sleep_until(at).await;
        }
        let body = if self.is_json {
            json::request(&self.resource, spans, self.explanations)
        } else {
            wire::request(&self.resource, spans, self.explanations)
        };
        let mut deadline = Instant::now() + self.export_timeout;
        let latest = deadline + RETRY_AFTER_MAX;
        let mut backoff = BACKOFF_MIN;
        loop {
            let Failure { reason, again_after } = match self.post(body.clone(), deadline).await {
                Ok(partial) => {
                    unsettled.spans = 0;
                    self.taken(spans.len(), partial);
                    return;
                }
                Err(failure) => failure,
            };
            self.failed(&reason);
            let Some(asked) = again_after else { return };
            let now = Instant::now();
            let pause = asked.max(with_jitter(backoff));
            if asked > Duration::ZERO {
                self.not_before = Some(now + asked);
                // It was told to come back then: that is not too late.
                deadline = deadline.max(now + asked + self.timeout).min(latest);
            }
            if now + pause >= deadline {
                return;
            }
            sleep_until(now + pause).await;
            self.not_before = None;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    async fn post(&self, body: Vec<u8>, deadline: Instant) -> Result<Option<Partial>, Failure> {
        self.counters.requests.fetch_add(1, Ordering::Relaxed);
        let again = |reason: String| Failure { reason, again_after: Some(Duration::ZERO) };
        let asked = async {
            let request = self.client.post(self.url.clone()).headers(self.headers.clone()).body(body);
            let mut answer = request.send().await.map_err(|error| again(chain(&error.without_url())))?;
            let status = answer.status();
            if !status.is_success() {
                let after = retry_after(answer.headers(), SystemTime::now());
                let reason = format!("the collector answered {}", status.as_u16());
                let again_after = is_busy(status).then(|| after.unwrap_or_default().min(RETRY_AFTER_MAX));
                return Err(Failure { reason, again_after });
            }
            // The status is the confirmation; an answer that breaks off leaves nothing to be sent again.
            let mut text = Vec::new();
            while let Ok(Some(chunk)) = answer.chunk().await {
                if text.len() + chunk.len() > ANSWER_BYTES_MAX {
                    break;
                }
                text.extend_from_slice(&chunk);
            }
            Ok(if self.is_json { json::partial(&text) } else { wire::partial(&text) })
        };
        match timeout_at(deadline, asked).await {
            Ok(answer) => answer,
            Err(_) => Err(again("no answer in time".to_owned())),
        }
    }

    fn taken(&mut self, spans: usize, partial: Option<Partial>) {
        if std::mem::take(&mut self.is_failing) {
            tracing::info!("the collector takes traces again");
        }
        let Some(Partial { rejected, message }) = partial else { return add(&self.counters.exported, spans) };
        let rejected = usize::try_from(rejected).unwrap_or(usize::MAX).min(spans);
        add(&self.counters.rejected, rejected);
        add(&self.counters.exported, spans - rejected);
        let now = Instant::now();
        if self.partial_told.is_none_or(|told| now.duration_since(told) >= TOLD_EVERY) {
            self.partial_told = Some(now);
            let reason = self.shown(&message);
            tracing::warn!(
                rejected,
                reason,
                "the collector left out spans, or has something to say about them"
            );
        }
    }

    fn failed(&mut self, reason: &str) {
        if !std::mem::replace(&mut self.is_failing, true) {
            tracing::warn!(
                reason,
                "traces don't get to the collector; those that it doesn't take in time are dropped"
            );
        }
    }

    /// A collector's words on one line, unless they repeat a header.
    fn shown(&self, words: &str) -> String {
        let values = self.headers.values().filter(|value| value.is_sensitive());
        let mut secrets = values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(' '));
        if secrets.any(|secret| !secret.is_empty() && words.contains(secret)) {
            return "(not shown: it repeats a header)".to_owned();
        }
        words.chars().take(REASON_CHARS_MAX).flat_map(char::escape_debug).collect()
    }
}

/// Spans of a batch that weren't taken as yet; dropped so, they are lost.
struct Unsettled {
    spans: usize,
    counters: Arc<Counters>,
}

impl Drop for Unsettled {
    fn drop(&mut self) {
        add(&self.counters.dropped_failed, self.spans);
    }
}

/// The queue of a task; what it has when the task ends is lost.
struct Source {
    queue: Arc<Queue>,
    counters: Arc<Counters>,
}

impl Drop for Source {
    fn drop(&mut self) {
        add(&self.counters.dropped_failed, self.queue.clear());
    }
}

/// Sends what comes, until the queue is closed and empty.
pub(super) async fn run(mut sender: Sender, queue: Arc<Queue>) {
    let source = Source { queue, counters: Arc::clone(&sender.counters) };
    let mut full_told: u64 = 0;
    let mut told_at: Option<Instant> = None;
    while let Some(batch) = source.queue.batch().await {
        sender.send(&batch).await;
        let dropped = read(&sender.counters.dropped_full);
        let now = Instant::now();
        if dropped > full_told && told_at.is_none_or(|told| now.duration_since(told) >= TOLD_EVERY) {
            tracing::warn!(dropped, "spans were dropped: the queue of `[trace.otlp]` was full");
            (full_told, told_at) = (dropped, Some(now));
        }
    }
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// From half of it to all of it, so that many gateways don't come back at once.
fn with_jitter(pause: Duration) -> Duration {
    let half = pause / 2;
    let thousandths = u32::try_from(crate::server::random() % 1_001).unwrap_or(0);
    half + half * thousandths / 1_000
}

/// The statuses after which the protocol lets a request be repeated.
fn is_busy(status: StatusCode) -> bool {
    matches!(status.as_u16(), 429 | 502 | 503 | 504)
}

fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let at = httpdate::parse_http_date(text).ok()?;
    Some(at.duration_since(now).unwrap_or(Duration::ZERO))
}

fn tls(url: &Url, config: &Otlp) -> Result<ClientConfig, OtlpError> {
    let fault = |error: rustls::Error| OtlpError::Client(error.to_string());
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(fault)?;
    if url.scheme() != "https" {
        // Nothing is trusted: TLS is never spoken.
        return Ok(builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth());
    }
    let Some(path) = config.ca.as_deref() else {
        return Ok(builder.with_platform_verifier().map_err(fault)?.with_no_client_auth());
    };
    let unusable = || OtlpError::Key {
        key: "ca",
        fault: format!("{} holds no certificates that can be used", path.display()),
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|_| unusable())? {
        roots.add(certificate.map_err(|_| unusable())?).map_err(|_| unusable())?;
    }
    if roots.is_empty() {
        return Err(unusable());
    }
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_at_least_a_half_and_no_longer_than_it_is() {
        for _ in 0..1_000 {
            let pause = with_jitter(Duration::from_secs(4));
            assert!((Duration::from_secs(2)..=Duration::from_secs(4)).contains(&pause), "{pause:?}");
        }
    }

    #[test]
    fn a_collector_says_when_in_seconds_or_as_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let read = |text: &str| {
            retry_after(&HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_str(text).unwrap())]), now)
        };
        assert_eq!(read("7"), Some(Duration::from_secs(7)));
        assert_eq!(read("Tue, 14 Nov 2023 22:13:30 GMT"), Some(Duration::from_secs(10)));
        assert_eq!(read("Tue, 14 Nov 2023 22:13:10 GMT"), Some(Duration::ZERO));
        assert_eq!((read("soon"), read("-1"), read("1.5")), (None, None, None));
    }
}
