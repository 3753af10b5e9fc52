//! Driver of the HTTP action.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::{BufMut as _, Bytes, BytesMut};
use parking_lot::Mutex;
use reqwest::StatusCode;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, RETRY_AFTER};
use ring::digest;
use tokio::time::{Instant, timeout_at};
use trace::{Span, TRACEPARENT};
use url::Url;

use super::auth::Auth;
use super::client::{self, ClientSettings, classify, judge_host};
use super::config::{AnswerLists, BatchFormat, HttpBatchConfig, HttpConfig, Redirect};
use super::connector::HttpConnector;
use super::hosts::{HostPattern, Origin, Shape, shape};
use super::plan::allows;
use super::request::{HttpRequest, RequestUrl};
use super::token::{Token, tls_text};
use crate::connectors::{Connector, Connectors, tls};
use crate::delivery::{BatchPolicy, DeliveryError, Envelope, Sink, traceparent};
use crate::error::ActionConfigError;
use crate::secret::{HIDDEN_ANSWER, repeats};
use crate::targets::TargetPolicy;
use crate::text::excerpt;

/// Characters of a refusing answer that an error quotes.
const ANSWER_EXCERPT_CHARS: usize = 200;

/// Clients that are kept for queued requests whose scheme or port isn't that of the settings any more.
const OTHER_CLIENTS_MAX: usize = 4;
/// Bytes of the hash in a batch's key: enough to tell the batches of one first item apart.
const BATCH_HASH_BYTES: usize = 8;
/// Header that lets the far side recognise a request that it has seen before.
const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// Header that says that the request, or one of its batch, is from an earlier run, or was a dead letter.
const REPLAYED: &str = "tidegate-replayed";
/// Header with the time at which the message of such a request was received, milliseconds since the epoch.
const RECEIVED_AT: &str = "tidegate-received-at";

/// The driver: one client with its connection pool.
pub struct HttpSink {
    maker: ClientMaker,
    client: reqwest::Client,
    /// What the client is made for.
    endpoint: Endpoint,
    /// Clients for requests that were queued when the settings were others.
    others: Mutex<Vec<(Endpoint, reqwest::Client)>>,
    allowed_hosts: Vec<HostPattern>,
    timeout: Duration,
    answer_bytes_max: u64,
    answers: AnswerLists,
    batch: Option<HttpBatchConfig>,
    /// What makes the keys of one action differ from those of another for the same message.
    idempotency_suffix: String,
}

/// Makes the clients of one action.
struct ClientMaker {
    targets: Arc<TargetPolicy>,
    connector: Option<Arc<HttpConnector>>,
    connect_timeout: Duration,
    redirect: Redirect,
    concurrency: usize,
}

impl ClientMaker {
    fn make(&self, endpoint: &Endpoint) -> Result<reqwest::Client, String> {
        let connector = self.connector.as_ref();
        let tls = match connector.and_then(|connector| connector.tls.clone()) {
            Some(tls) => tls,
            None => tls::platform(&endpoint.scheme).map_err(|error| tls_text(&error))?,
        };
        client::build(ClientSettings {
            targets: &self.targets,
            port: endpoint.port,
            tls,
            proxy: connector.and_then(|connector| connector.proxy.as_ref()),
            connect_timeout: self.connect_timeout,
            redirect: self.redirect,
            idle_max: self.concurrency,
        })
    }
}

/// What a client's certificates and its judgement of addresses depend on.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Endpoint {
    scheme: String,
    port: u16,
}

impl fmt::Debug for HttpSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpSink").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

impl HttpSink {
    /// Checks what [`HttpSink::new`] needs, at little cost.
    ///
    /// # Errors
    /// As [`HttpSink::new`].
    pub fn check(config: &HttpConfig, connectors: &Connectors) -> Result<(), ActionConfigError> {
        let (endpoint, connector) = parts(config, connectors)?;
        if connector.is_none_or(|connector| connector.tls.is_none()) {
            tls::platform(&endpoint.scheme)
                .map_err(|error| ActionConfigError::field_error(&config.name, "url", tls_text(&error)))?;
        }
        Ok(())
    }

    /// Makes the client for one action.
    ///
    /// # Errors
    /// [`ActionConfigError`] when the URL doesn't fit, there is no connector of the name or it doesn't fit, or the
    /// platform's certificates can't be loaded for an `https` URL.
    pub fn new(
        rule: &str,
        config: &HttpConfig,
        targets: Arc<TargetPolicy>,
        connectors: &Connectors,
    ) -> Result<Self, ActionConfigError> {
        let (endpoint, connector) = parts(config, connectors)?;
        let connector = connector.cloned();
        let maker = ClientMaker {
            targets: connector.as_ref().map_or(targets, |connector| Arc::clone(&connector.targets)),
            connector,
            connect_timeout: config.connect_timeout,
            redirect: config.redirect,
            concurrency: config.concurrency,
        };
        let client = maker
            .make(&endpoint)
            .map_err(|problem| ActionConfigError::field_error(&config.name, "url", problem))?;
        Ok(Self {
            maker,
            client,
            endpoint,
            others: Mutex::default(),
            allowed_hosts: config.allowed_hosts.clone(),
            timeout: config.timeout,
            answer_bytes_max: config.max_answer,
            answers: config.answers(),
            batch: config.batch,
            idempotency_suffix: format!(".{rule}.{}", config.name),
        })
    }

    /// The client for a request, which may have been queued when scheme and port were others.
    fn client(&self, origin: &Origin) -> Result<reqwest::Client, DeliveryError> {
        let endpoint = Endpoint { scheme: origin.scheme.clone(), port: origin.port };
        if endpoint == self.endpoint {
            return Ok(self.client.clone());
        }
        let mut others = self.others.lock();
        if let Some((_, client)) = others.iter().find(|(other, _)| *other == endpoint) {
            return Ok(client.clone());
        }
        let client = self.maker.make(&endpoint).map_err(|cause| DeliveryError::Unreachable { cause })?;
        if others.len() >= OTHER_CLIENTS_MAX {
            others.clear();
        }
        others.push((endpoint, client.clone()));
        Ok(client)
    }

    /// Where a request goes as the settings are now, if it may go there.
    fn destination(&self, url: &RequestUrl) -> Result<(Url, Origin), DeliveryError> {
        let lost = || DeliveryError::HostNotAllowed { host: excerpt(url.as_str().as_bytes(), 80) };
        let url = match (url, &self.maker.connector) {
            (RequestUrl::Absolute(url), _) => url.clone(),
            (RequestUrl::Path(path), Some(connector)) => connector.join(path).ok_or_else(lost)?,
            (RequestUrl::Path(_), None) => return Err(lost()),
        };
        let origin = Origin::of(&url).ok_or_else(lost)?;
        let reaches = match &self.maker.connector {
            Some(connector) => connector.reaches(&url),
            None => allows(&self.allowed_hosts, &origin),
        };
        if !reaches {
            let host = excerpt(origin.host.to_string().as_bytes(), 80);
            return Err(DeliveryError::HostNotAllowed { host });
        }
        let has_proxy = self.maker.connector.as_ref().is_some_and(|connector| connector.proxy.is_some());
        judge_host(&self.maker.targets, has_proxy, &origin)?;
        Ok((url, origin))
    }

    /// Makes one request of items that go together, and says what became of it.
    async fn send(
        &self,
        items: &[Arc<Envelope<HttpRequest>>],
        request: &HttpRequest,
        body: Bytes,
    ) -> Result<(), DeliveryError> {
        #[cfg(feature = "power-cut")]
        panic_if_asked(&body);
        // What the far side can recognise them by.
        let id = self.key(items);
        let (url, origin) = self.destination(&request.url)?;
        let client = self.client(&origin)?;
        let mut headers = request.headers.clone();
        if !headers.contains_key(IDEMPOTENCY_KEY)
            && let Ok(value) = HeaderValue::from_str(&id)
        {
            headers.insert(IDEMPOTENCY_KEY, value);
        }
        if let Some(received_at_ms) = items.iter().filter_map(|item| item.replayed).min() {
            headers.entry(REPLAYED).or_insert(HeaderValue::from_static("true"));
            headers.entry(RECEIVED_AT).or_insert(HeaderValue::from(received_at_ms));
        }
        if !headers.contains_key(TRACEPARENT)
            && let Some(value) = traceparent(items).and_then(|text| HeaderValue::from_str(&text).ok())
        {
            headers.insert(TRACEPARENT, value);
        }
        let deadline = Instant::now() + self.timeout;
        let mut token = None;
        match self.maker.connector.as_ref().map(|connector| &connector.auth) {
            None | Some(Auth::None) => {}
            Some(Auth::Fixed(value)) => {
                headers.insert(AUTHORIZATION, value.clone());
            }
            Some(Auth::Signature(signer)) => signer.sign(&id, &body, SystemTime::now(), &mut headers),
            Some(Auth::Token(_)) => token = Some(self.authorize(None, deadline, &mut headers).await?),
        }
        let mut answer = self.exchange(&client, request, &url, &headers, &body, deadline).await?;
        // A token may be revoked before its time; once, another one is worth a try.
        if answer.status() == StatusCode::UNAUTHORIZED
            && let Some(refused) = token
        {
            self.authorize(Some(&refused), deadline, &mut headers).await?;
            answer = self.exchange(&client, request, &url, &headers, &body, deadline).await?;
        }
        let status = answer.status();
        let retry_after = retry_after(answer.headers(), SystemTime::now());
        let text = timeout_at(deadline, self.read(answer)).await.unwrap_or_default();
        if status.is_success() {
            // The status is the confirmation; what became of the rest of the body doesn't matter.
            return Ok(());
        }
        Err(DeliveryError::Answered {
            status: status.as_u16(),
            class: self.answers.class(status.as_u16()),
            retry_after: retry_after.filter(|_| is_busy(status)),
            excerpt: self.shown(&text, &headers),
        })
    }

    /// The beginning of an answer, unless it repeats what proved who sent the request.
    fn shown(&self, answer: &[u8], headers: &HeaderMap) -> String {
        let connector = self.maker.connector.as_ref();
        let sent = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let sent = sent.and_then(|value| value.split(' ').next_back()).map(str::to_owned);
        let secrets = connector.map(|connector| connector.secrets()).unwrap_or_default();
        let answer_text = String::from_utf8_lossy(answer);
        let repeats_one = secrets.iter().chain(&sent).any(|secret| repeats(&answer_text, secret));
        if repeats_one { HIDDEN_ANSWER.to_owned() } else { excerpt(answer, ANSWER_EXCERPT_CHARS) }
    }

    /// Puts a token into the headers. Without one nothing has reached the far side, late or not.
    async fn authorize(
        &self,
        refused: Option<&Token>,
        deadline: Instant,
        headers: &mut HeaderMap,
    ) -> Result<Token, DeliveryError> {
        let late = || DeliveryError::Unreachable { cause: format!("no token within {:?}", self.timeout) };
        let Some(Auth::Token(tokens)) = self.maker.connector.as_ref().map(|connector| &connector.auth) else {
            return Err(DeliveryError::NoCredentials { cause: "the connector makes no tokens".to_owned() });
        };
        let token = timeout_at(deadline, tokens.token(refused)).await.map_err(|_| late())??;
        headers.insert(AUTHORIZATION, token.value.clone());
        Ok(token)
    }

    async fn exchange(
        &self,
        client: &reqwest::Client,
        request: &HttpRequest,
        url: &Url,
        headers: &HeaderMap,
        body: &Bytes,
        deadline: Instant,
    ) -> Result<reqwest::Response, DeliveryError> {
        let attempt = client
            .request(request.method.clone(), url.clone())
            .headers(headers.clone())
            .body(body.clone())
            .send();
        let Ok(answer) = timeout_at(deadline, attempt).await else {
            return Err(DeliveryError::TimedOut { after: self.timeout });
        };
        answer.map_err(classify)
    }

    /// Reads at most the limit, so that a small answer frees its connection for the next request. A longer one costs
    /// the connection.
    async fn read(&self, mut answer: reqwest::Response) -> Vec<u8> {
        let mut seen: u64 = 0;
        let mut head = Vec::new();
        while let Ok(Some(chunk)) = answer.chunk().await {
            seen = seen.saturating_add(u64::try_from(chunk.len()).unwrap_or(u64::MAX));
            let room = (ANSWER_EXCERPT_CHARS * 4).saturating_sub(head.len());
            head.extend_from_slice(chunk.get(..room.min(chunk.len())).unwrap_or_default());
            if seen > self.answer_bytes_max {
                break;
            }
        }
        head
    }

    /// What the far side can recognise these items by, together and in this order: the same items have the same key,
    /// others another one.
    fn key(&self, batch: &[Arc<Envelope<HttpRequest>>]) -> String {
        let Some((first, rest)) = batch.split_first() else { return String::new() };
        let mut key = first.id.to_string();
        if !rest.is_empty() {
            let mut context = digest::Context::new(&digest::SHA256);
            for item in batch {
                context.update(item.id.to_string().as_bytes());
                context.update(b",");
            }
            let hash = context.finish();
            let hash: String =
                hash.as_ref().iter().take(BATCH_HASH_BYTES).map(|byte| format!("{byte:02x}")).collect();
            key = format!("{key}+{}.{hash}", rest.len());
        }
        key + &self.idempotency_suffix
    }
}

/// Checks that connector and URL fit, and says what a client is to be made for.
fn parts<'c>(
    config: &HttpConfig,
    connectors: &'c Connectors,
) -> Result<(Endpoint, Option<&'c Arc<HttpConnector>>), ActionConfigError> {
    let fault = |field: &str, problem: String| ActionConfigError::field_error(&config.name, field, problem);
    let shape = shape(&config.url).map_err(|problem| fault("url", problem))?;
    let connector = match &config.connector {
        None => None,
        Some(name) => Some(connectors.of_kind(&config.name, name, "http", Connector::http)?),
    };
    if let Some(connector) = connector {
        connector.check(config, &shape).map_err(|(field, problem)| fault(field, problem))?;
    }
    let base = connector.and_then(|connector| connector.origin());
    let (scheme, port) = match (&shape, base) {
        (Shape::Literal(origin), _) | (Shape::Path, Some(origin)) => (&origin.scheme, origin.port),
        (Shape::RenderedHost { scheme, port }, _) => (scheme, *port),
        (Shape::Path, None) => return Err(fault("url", "a path needs a connector with a url".to_owned())),
    };
    Ok((Endpoint { scheme: scheme.clone(), port }, connector))
}

impl Sink for HttpSink {
    type Request = HttpRequest;

    fn batch_policy(&self) -> BatchPolicy {
        match &self.batch {
            None => BatchPolicy::SINGLE,
            Some(batch) => BatchPolicy {
                max_items: batch.max_items,
                // Every item counts the sign behind it; the one in front of the first is left.
                max_bytes: usize::try_from(batch.max_bytes).unwrap_or(usize::MAX) - 1,
                linger: batch.linger,
                is_whole: true,
            },
        }
    }

    fn describe(&self, request: &HttpRequest, span: &mut Span) {
        span.set("http.request.method", request.method.as_str());
        if let Ok((mut url, origin)) = self.destination(&request.url) {
            span.set("server.address", origin.host.to_string());
            span.set("server.port", u32::from(origin.port));
            // The path tells one endpoint from another; what stands behind it may be a secret.
            url.set_query(None);
            url.set_fragment(None);
            let _has_none = (url.set_username(""), url.set_password(None));
            span.set("url.full", url.as_str());
        }
    }

    async fn deliver(&self, batch: &[Arc<Envelope<HttpRequest>>]) -> Vec<Result<(), DeliveryError>> {
        if let (Some(settings), Some(first)) = (&self.batch, batch.first())
            && batch.iter().all(|item| item.request.is_batch_item)
        {
            let body = together(settings.format, batch);
            let result = self.send(batch, &first.request, body).await;
            return vec![result; batch.len()];
        }
        // One by one: they were queued, or gathered, when the settings were others.
        let mut results: Vec<Result<(), DeliveryError>> = Vec::with_capacity(batch.len());
        for item in batch {
            let stops =
                results.last().is_some_and(|result| result.as_ref().is_err_and(DeliveryError::is_retriable));
            results.push(if stops {
                Err(DeliveryError::NotAttempted)
            } else {
                self.send(std::slice::from_ref(item), &item.request, item.request.body.clone()).await
            });
        }
        results
    }
}

/// A test wants to see what a panic in a delivery harms.
#[cfg(feature = "power-cut")]
#[expect(clippy::panic, reason = "it is what this is for")]
fn panic_if_asked(body: &[u8]) {
    if body == b"panic in connector" && std::env::var_os("TIDEGATE_PANIC").is_some() {
        panic!("a test asked for it");
    }
}

/// The body of a batch.
pub(super) fn together(format: BatchFormat, batch: &[Arc<Envelope<HttpRequest>>]) -> Bytes {
    let bytes: usize = batch.iter().map(|item| item.request.body.len() + 1).sum();
    let mut body = BytesMut::with_capacity(bytes + 1);
    match format {
        BatchFormat::JsonArray => {
            let mut sign = b'[';
            for item in batch {
                body.put_u8(sign);
                body.put_slice(&item.request.body);
                sign = b',';
            }
            body.put_u8(b']');
        }
        BatchFormat::JsonLines => {
            for item in batch {
                // In JSON a line break can only stand between tokens, where a space does as well.
                body.extend(
                    item.request
                        .body
                        .iter()
                        .map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }),
                );
                body.put_u8(b'\n');
            }
        }
    }
    body.freeze()
}

fn is_busy(status: StatusCode) -> bool {
    matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE)
}

/// Reads Retry-After: seconds, or an HTTP date (RFC 9110 section 10.2.3).
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let at = httpdate::parse_http_date(text).ok()?;
    Some(at.duration_since(now).unwrap_or(Duration::ZERO))
}
