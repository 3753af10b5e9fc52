//! Plan, request and driver of the HTTP action.

use std::error::Error;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Method, StatusCode, redirect};
use rustls::ClientConfig;
use rustls::crypto::ring;
use rustls_platform_verifier::BuilderVerifierExt as _;
use tokio::time::{Instant, timeout_at};
use url::{Host, Url};

use super::config::{BodyFormat, HttpConfig, Redirect};
use crate::delivery::outbox::{put_bytes, take_bytes};
use crate::delivery::{AnswerClass, BatchPolicy, DeliveryError, Envelope, ItemId, Sink};
use crate::error::{ActionConfigError, RenderError};
use crate::outlet::QueuedRequest;
use crate::plan::{Renderer, Slot, TemplateHandle, Templates, is_literal};
use crate::targets::{TargetError, TargetPolicy};
use crate::text::{chain, excerpt};

/// Most headers that an action may set.
const HEADERS_MAX: usize = 64;
/// Longest rendered URL in bytes; servers commonly stop at 8 KiB.
const URL_BYTES_MAX: usize = 8 << 10;
/// Longest rendered header value in bytes.
const HEADER_VALUE_BYTES_MAX: usize = 8 << 10;
/// Characters of a refusing answer that an error quotes.
const ANSWER_EXCERPT_CHARS: usize = 200;
/// Redirects followed in a row, where they are followed at all.
const REDIRECTS_MAX: usize = 3;
/// How long an unused connection is kept.
const POOL_IDLE: Duration = Duration::from_secs(60);
/// Header that lets the far side recognise a request that it has seen before.
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// Headers that belong to the connection, not to the message (RFC 9110 section 7.6.1), or that would let a request
/// reach another virtual host or frame a second request.
const RESERVED_HEADERS: [&str; 12] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// A request that is ready to go. Its `Debug` text shows no header value, body or query.
#[derive(Clone, PartialEq)]
pub struct HttpRequest {
    /// Method.
    pub method: Method,
    /// Absolute URL.
    pub url: Url,
    /// Headers as configured, and the Content-Type.
    pub headers: HeaderMap,
    /// Body, possibly empty.
    pub body: Bytes,
}

impl fmt::Debug for HttpRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpRequest")
            .field("method", &self.method)
            .field("url", &format_args!("{}{}", self.url.origin().ascii_serialization(), self.url.path()))
            .field("headers", &self.headers.keys().collect::<Vec<_>>())
            .field("body_bytes", &self.body.len())
            .finish()
    }
}

impl QueuedRequest for HttpRequest {
    fn bytes(&self) -> usize {
        let headers: usize =
            self.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 64).sum();
        size_of::<Self>() + self.url.as_str().len() + headers + self.body.len()
    }

    fn encode(&self, out: &mut Vec<u8>) {
        put_bytes(out, self.method.as_str().as_bytes());
        put_bytes(out, self.url.as_str().as_bytes());
        put_bytes(out, &self.body);
        for (name, value) in &self.headers {
            put_bytes(out, name.as_str().as_bytes());
            put_bytes(out, value.as_bytes());
        }
    }

    fn decode(mut bytes: &[u8]) -> Option<Self> {
        let from = &mut bytes;
        let method = method(std::str::from_utf8(take_bytes(from)?).ok()?)?;
        let url = Url::parse(std::str::from_utf8(take_bytes(from)?).ok()?).ok()?;
        if !matches!(url.scheme(), "http" | "https") || url.as_str().len() > URL_BYTES_MAX {
            return None;
        }
        let body = Bytes::copy_from_slice(take_bytes(from)?);
        let mut headers = HeaderMap::new();
        while !from.is_empty() {
            let name = HeaderName::from_bytes(take_bytes(from)?).ok()?;
            let value = HeaderValue::from_bytes(take_bytes(from)?).ok()?;
            let is_reserved = RESERVED_HEADERS.contains(&name.as_str());
            // The Content-Type may be one more than were configured.
            if is_reserved || value.len() > HEADER_VALUE_BYTES_MAX || headers.len() > HEADERS_MAX {
                return None;
            }
            headers.append(name, value);
        }
        Some(Self { method, url, headers, body })
    }
}

#[derive(Debug)]
pub(crate) struct HttpPlan {
    origin: Origin,
    url: TemplateHandle,
    method: MethodSlot,
    headers: Vec<(HeaderName, TemplateHandle)>,
    body: Option<TemplateHandle>,
}

#[derive(Debug)]
enum MethodSlot {
    Fixed(Method),
    Template(TemplateHandle),
}

/// Scheme, host and port: what a template may never change.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Origin {
    scheme: String,
    host: Host<String>,
    port: u16,
}

impl Origin {
    fn of(url: &Url) -> Option<Self> {
        Some(Self {
            scheme: url.scheme().to_owned(),
            host: url.host()?.to_owned(),
            port: url.port_or_known_default()?,
        })
    }
}

impl HttpPlan {
    pub(crate) fn new(config: &HttpConfig, templates: &mut Templates) -> Result<Self, ActionConfigError> {
        let fault =
            |field: &str, problem: String| Err(ActionConfigError::field_error(&config.name, field, problem));
        config.delivery().check(&config.name)?;
        let timeouts = Duration::from_millis(10)..=Duration::from_secs(600);
        for (field, value) in [("timeout", config.timeout), ("connect_timeout", config.connect_timeout)] {
            if !timeouts.contains(&value) {
                return fault(field, format!("expected 10ms to 10m, given {value:?}"));
            }
        }
        if config.max_answer > 16 << 20 {
            return fault("max_answer", format!("expected 0B to 16MiB, given {} bytes", config.max_answer));
        }
        let origin = match literal_origin(&config.url) {
            Ok(origin) => origin,
            Err(problem) => return fault("url", problem),
        };
        let url = templates.add("url", &config.url, Slot::UrlPart);
        let method = if is_literal(&config.method) {
            match method(&config.method) {
                Some(method) => MethodSlot::Fixed(method),
                None => return fault("method", METHOD_EXPECTED.to_owned()),
            }
        } else {
            MethodSlot::Template(templates.add("method", &config.method, Slot::PlainText))
        };
        if config.headers.len() > HEADERS_MAX {
            return fault(
                "headers",
                format!("{} given, more than the limit of {HEADERS_MAX}", config.headers.len()),
            );
        }
        let mut headers = Vec::with_capacity(config.headers.len());
        for (name, text) in &config.headers {
            let field = format!("headers.{}", excerpt(name.as_bytes(), 64));
            let Ok(header) = HeaderName::from_bytes(name.as_bytes()) else {
                return fault(
                    &field,
                    "expected a header name (RFC 9110 token); only values are templates".to_owned(),
                );
            };
            if RESERVED_HEADERS.contains(&header.as_str()) {
                return fault(&field, "this header is set by the HTTP client itself".to_owned());
            }
            if headers.iter().any(|(other, _)| *other == header) {
                return fault(&field, "given twice (header names have no case)".to_owned());
            }
            if is_literal(text) && header_value(text.as_bytes()).is_none() {
                return fault(&field, HEADER_EXPECTED.to_owned());
            }
            headers.push((header, templates.add(field, text, Slot::HeaderValue)));
        }
        let slot = match config.body_format {
            BodyFormat::Auto => Slot::Text,
            BodyFormat::Text => Slot::PlainText,
        };
        let body = config.body.as_ref().map(|text| templates.add("body", text, slot));
        Ok(Self { origin, url, method, headers, body })
    }

    pub(crate) fn render(&self, renderer: &mut dyn Renderer) -> Result<HttpRequest, RenderError> {
        let url = self.render_url(renderer)?;
        let method = match &self.method {
            MethodSlot::Fixed(method) => method.clone(),
            MethodSlot::Template(template) => {
                let text = template.text(renderer)?;
                method(&text).ok_or_else(|| template.misfit(METHOD_EXPECTED))?
            }
        };
        let mut headers = HeaderMap::with_capacity(self.headers.len() + 1);
        for (name, template) in &self.headers {
            let bytes = template.bytes(renderer)?;
            if bytes.len() > HEADER_VALUE_BYTES_MAX {
                let field = template.field().to_owned();
                return Err(RenderError::TooLarge {
                    field,
                    bytes: bytes.len(),
                    limit: HEADER_VALUE_BYTES_MAX,
                });
            }
            let mut value = header_value(&bytes).ok_or_else(|| template.misfit(HEADER_EXPECTED))?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        let (body, is_json) = match &self.body {
            Some(template) => {
                let body = template.bytes(renderer)?;
                let is_json = !headers.contains_key(CONTENT_TYPE)
                    && serde_json::from_slice::<serde::de::IgnoredAny>(&body).is_ok();
                (Bytes::from(body), is_json)
            }
            None => {
                let output = renderer.output();
                (Bytes::copy_from_slice(output.bytes), output.is_json)
            }
        };
        if !headers.contains_key(CONTENT_TYPE) && !body.is_empty() {
            let media_type = if is_json { "application/json" } else { "application/octet-stream" };
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
        }
        Ok(HttpRequest { method, url, headers, body })
    }

    fn render_url(&self, renderer: &mut dyn Renderer) -> Result<Url, RenderError> {
        let fault = |problem: &str| RenderError::Url { problem: problem.to_owned() };
        let text = self.url.text(renderer)?;
        if text.len() > URL_BYTES_MAX {
            let field = self.url.field().to_owned();
            return Err(RenderError::TooLarge { field, bytes: text.len(), limit: URL_BYTES_MAX });
        }
        check_url_text(&text).map_err(|problem| RenderError::Url { problem })?;
        let url = Url::parse(&text).map_err(|_| fault("expected a URL"))?;
        // The host is literal and values are percent-encoded, so this can't differ; should an escape ever be missed,
        // nothing must go to another host.
        if Origin::of(&url).as_ref() != Some(&self.origin) {
            return Err(fault("scheme, host and port must be the ones written in the configuration"));
        }
        Ok(url)
    }
}

const METHOD_EXPECTED: &str = "expected GET, HEAD, POST, PUT, PATCH, DELETE or OPTIONS";
const HEADER_EXPECTED: &str = "expected a header value: no CR, LF, NUL or other control characters";

fn method(text: &str) -> Option<Method> {
    [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS]
        .into_iter()
        .find(|method| method.as_str() == text)
}

fn header_value(bytes: &[u8]) -> Option<HeaderValue> {
    HeaderValue::from_bytes(bytes).ok()
}

/// Reads the part of a URL template that must be literal.
fn literal_origin(template: &str) -> Result<Origin, String> {
    let literal = template.split("${").next().unwrap_or_default();
    let Some((scheme, rest)) = literal.split_once("://") else {
        return Err("expected http:// or https:// and a literal host at the beginning".to_owned());
    };
    if !matches!(scheme, "http" | "https") {
        return Err(format!("expected http or https, given \"{}\"", excerpt(scheme.as_bytes(), 20)));
    }
    // Browsers and the URL standard read a backslash as a slash; readers don't.
    let authority_ends = rest.find(['/', '?', '#', '\\']);
    if authority_ends.is_none() && literal.len() < template.len() {
        return Err(
            "the host must be literal: templates may stand in the path, query and fragment only".to_owned()
        );
    }
    let authority = authority_ends.map_or(rest, |end| rest.get(..end).unwrap_or(rest));
    if authority.contains('@') {
        return Err("a URL can't hold a user name or password; send an Authorization header".to_owned());
    }
    check_url_text(literal)?;
    let url = Url::parse(&format!("{scheme}://{authority}/"))
        .map_err(|error| format!("expected a URL: {error}"))?;
    Origin::of(&url).ok_or_else(|| "expected a URL with a host".to_owned())
}

/// Refuses text that the URL parser would quietly change: it drops tabs and line feeds, turns a backslash into a
/// slash, and resolves dot segments, which lets a value climb out of the path that was written for it.
fn check_url_text(text: &str) -> Result<(), String> {
    if text.bytes().any(|b| b.is_ascii_control() || b == b' ' || b == b'\\') {
        return Err("a URL can't hold spaces, control characters or backslashes".to_owned());
    }
    let path = text.split(['?', '#']).next().unwrap_or_default();
    for segment in path.split('/') {
        let plain = segment.to_ascii_lowercase().replace("%2e", ".");
        if plain == "." || plain == ".." {
            return Err("a URL can't hold \".\" or \"..\" as a path segment".to_owned());
        }
    }
    Ok(())
}

/// The driver: one client with its connection pool.
#[derive(Debug)]
pub struct HttpSink {
    client: reqwest::Client,
    /// Set where the host is an address, which needs no resolver and would pass it by.
    literal_target: Option<(String, SocketAddr)>,
    targets: Arc<TargetPolicy>,
    timeout: Duration,
    answer_bytes_max: u64,
    /// What makes the keys of one action differ from those of another for the same message.
    idempotency_suffix: String,
}

impl HttpSink {
    /// Checks what [`HttpSink::new`] needs, at little cost.
    ///
    /// # Errors
    /// As [`HttpSink::new`].
    pub fn check(config: &HttpConfig) -> Result<(), ActionConfigError> {
        let fault = |problem: String| ActionConfigError::field_error(&config.name, "url", problem);
        let origin = literal_origin(&config.url).map_err(fault)?;
        tls(&origin.scheme).map(drop).map_err(|error| fault(tls_text(&error)))
    }

    /// Makes the client for one action.
    ///
    /// # Errors
    /// [`ActionConfigError`] when the URL's origin doesn't fit, or the platform's certificates can't be loaded for an
    /// `https` URL.
    pub fn new(
        rule: &str,
        config: &HttpConfig,
        targets: Arc<TargetPolicy>,
    ) -> Result<Self, ActionConfigError> {
        let fault =
            |field: &str, problem: String| ActionConfigError::field_error(&config.name, field, problem);
        let origin = literal_origin(&config.url).map_err(|problem| fault("url", problem))?;
        let literal_target = match &origin.host {
            Host::Domain(_) => None,
            Host::Ipv4(v4) => Some((origin.host.to_string(), SocketAddr::from((*v4, origin.port)))),
            Host::Ipv6(v6) => Some((origin.host.to_string(), SocketAddr::from((*v6, origin.port)))),
        };
        let tls = tls(&origin.scheme).map_err(|error| fault("url", tls_text(&error)))?;
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            // A proxy named in the environment would connect on our behalf, past every check of the address.
            .no_proxy()
            .retry(reqwest::retry::never())
            .redirect(redirect_policy(config.redirect))
            .referer(false)
            .connect_timeout(config.connect_timeout)
            .tcp_nodelay(true)
            .pool_idle_timeout(POOL_IDLE)
            .pool_max_idle_per_host(config.concurrency)
            .dns_resolver(Arc::new(GuardedResolver { targets: Arc::clone(&targets), port: origin.port }))
            .user_agent(concat!("tidegate/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| fault("url", format!("no HTTP client could be made: {}", chain(&error))))?;
        Ok(Self {
            client,
            literal_target,
            targets,
            timeout: config.timeout,
            answer_bytes_max: config.max_answer,
            idempotency_suffix: format!(".{rule}.{}", config.name),
        })
    }

    async fn send(&self, id: ItemId, request: &HttpRequest) -> Result<(), DeliveryError> {
        if let Some((host, target)) = &self.literal_target {
            self.targets.check(host, *target)?;
        }
        let mut headers = request.headers.clone();
        if !headers.contains_key(IDEMPOTENCY_KEY)
            && let Ok(value) = HeaderValue::from_str(&format!("{id}{}", self.idempotency_suffix))
        {
            headers.insert(IDEMPOTENCY_KEY, value);
        }
        let attempt = self
            .client
            .request(request.method.clone(), request.url.clone())
            .headers(headers)
            .body(request.body.clone())
            .send();
        let deadline = Instant::now() + self.timeout;
        let Ok(answer) = timeout_at(deadline, attempt).await else {
            return Err(DeliveryError::TimedOut { after: self.timeout });
        };
        let answer = answer.map_err(classify)?;
        let status = answer.status();
        let retry_after = retry_after(answer.headers(), SystemTime::now());
        let body = timeout_at(deadline, self.read(answer)).await.unwrap_or_default();
        if status.is_success() {
            // The status is the confirmation; what became of the rest of the body doesn't matter.
            return Ok(());
        }
        Err(DeliveryError::Answered {
            status: status.as_u16(),
            class: AnswerClass::of(status.as_u16()),
            retry_after: retry_after.filter(|_| is_busy(status)),
            excerpt: excerpt(&body, ANSWER_EXCERPT_CHARS),
        })
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
}

impl Sink for HttpSink {
    type Request = HttpRequest;

    fn batch_policy(&self) -> BatchPolicy {
        BatchPolicy::SINGLE
    }

    async fn deliver(&self, batch: &[Arc<Envelope<HttpRequest>>]) -> Vec<Result<(), DeliveryError>> {
        let mut results = Vec::with_capacity(batch.len());
        for item in batch {
            results.push(self.send(item.id, &item.request).await);
        }
        results
    }
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

/// Says what a failed attempt means. The URL is taken out of the error: its query may hold values of messages.
fn classify(error: reqwest::Error) -> DeliveryError {
    let mut source: Option<&(dyn Error + 'static)> = Some(&error);
    while let Some(cause) = source {
        if let Some(target) = cause.downcast_ref::<TargetError>() {
            return DeliveryError::Forbidden(target.clone());
        }
        source = cause.source();
    }
    let unreachable = error.is_connect();
    let cause = chain(&error.without_url());
    if unreachable { DeliveryError::Unreachable { cause } } else { DeliveryError::Interrupted { cause } }
}

fn redirect_policy(redirect: Redirect) -> redirect::Policy {
    match redirect {
        Redirect::None => redirect::Policy::none(),
        Redirect::SameOrigin => redirect::Policy::custom(|attempt| {
            // 301, 302 and 303 would turn a POST into a GET, which tells the far side nothing.
            let keeps_body =
                matches!(attempt.status(), StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT);
            let same_origin = attempt
                .previous()
                .first()
                .is_some_and(|first| Origin::of(first) == Origin::of(attempt.url()));
            if keeps_body && same_origin && attempt.previous().len() <= REDIRECTS_MAX {
                attempt.follow()
            } else {
                attempt.stop()
            }
        }),
    }
}

/// The platform's trust, loaded when the first `https` action is made and shared by all: parsing some hundred
/// certificates for each of many actions would cost seconds and memory.
static PLATFORM_TLS: OnceLock<ClientConfig> = OnceLock::new();

fn tls_text(error: &rustls::Error) -> String {
    format!("TLS can't be set up: {error}")
}

fn tls(scheme: &str) -> Result<ClientConfig, rustls::Error> {
    if let Some(shared) = PLATFORM_TLS.get() {
        return Ok(shared.clone());
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?;
    if scheme == "https" {
        let config = builder.with_platform_verifier()?.with_no_client_auth();
        return Ok(PLATFORM_TLS.get_or_init(|| config).clone());
    }
    // Nothing is trusted and nothing is loaded: redirects stay within the origin, so TLS is never spoken.
    Ok(builder.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth())
}

/// Resolves names and lets only addresses through that actions may connect to. The client connects to exactly these.
#[derive(Debug)]
struct GuardedResolver {
    targets: Arc<TargetPolicy>,
    port: u16,
}

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let targets = Arc::clone(&self.targets);
        let port = self.port;
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), port)).await?.collect();
            let mut allowed = Vec::with_capacity(found.len());
            let mut refused = None;
            for address in found {
                match targets.check(name.as_str(), address) {
                    Ok(()) => allowed.push(address),
                    Err(error) => refused = Some(error),
                }
            }
            match refused {
                Some(error) if allowed.is_empty() => Err(error.into()),
                _ => Ok(Box::new(allowed.into_iter()) as Addrs),
            }
        })
    }
}
