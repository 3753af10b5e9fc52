//! A request of the HTTP action, as it waits in a queue.

use std::fmt;

use bytes::Bytes;
use reqwest::Method;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use url::Url;

use super::client::REQUEST_HEADERS_RESERVED;
use super::plan::{HEADER_VALUE_BYTES_MAX, HEADERS_MAX, URL_BYTES_MAX, method};
use crate::delivery::outbox::{put_bytes, take_bytes};
use crate::outlet::QueuedRequest;

/// Where a request goes.
#[derive(Clone, PartialEq, Eq)]
pub enum RequestUrl {
    /// To this URL.
    Absolute(Url),
    /// To this path, with query, behind the URL that the action's connector has when it is sent.
    Path(String),
}

impl RequestUrl {
    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Absolute(url) => url.as_str(),
            Self::Path(path) => path,
        }
    }
}

/// Shows no query.
impl fmt::Debug for RequestUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str().split(['?', '#']).next().unwrap_or_default())
    }
}

/// A request that is ready to go. Its `Debug` text shows no header value, body or query.
#[derive(Clone, PartialEq)]
pub struct HttpRequest {
    /// Method.
    pub method: Method,
    /// Where it goes.
    pub url: RequestUrl,
    /// Headers as configured, and the Content-Type.
    pub headers: HeaderMap,
    /// Body, possibly empty.
    pub body: Bytes,
    /// Whether the body is JSON that was made to be part of a batch's body.
    pub is_batch_item: bool,
}

impl fmt::Debug for HttpRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpRequest")
            .field("method", &self.method)
            .field("url", &self.url)
            .field("headers", &self.headers.keys().collect::<Vec<_>>())
            .field("body_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

impl QueuedRequest for HttpRequest {
    fn bytes(&self) -> usize {
        let headers: usize =
            self.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 64).sum();
        size_of::<Self>() + self.url.as_str().len() + headers + self.body.len()
    }

    /// The body, and the sign that parts it from the next.
    fn batch_bytes(&self) -> usize {
        self.body.len().saturating_add(1)
    }

    fn goes_with(&self, first: &Self) -> bool {
        self.is_batch_item
            && first.is_batch_item
            && self.method == first.method
            && self.url == first.url
            && self.headers == first.headers
    }

    fn encode(&self, out: &mut Vec<u8>) {
        put_bytes(out, &[u8::from(self.is_batch_item)]);
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
        let is_batch_item = match take_bytes(from)? {
            [0] => false,
            [1] => true,
            _ => return None,
        };
        let method = method(std::str::from_utf8(take_bytes(from)?).ok()?)?;
        let url = decode_url(std::str::from_utf8(take_bytes(from)?).ok()?)?;
        let body = Bytes::copy_from_slice(take_bytes(from)?);
        let mut headers = HeaderMap::new();
        while !from.is_empty() {
            let name = HeaderName::from_bytes(take_bytes(from)?).ok()?;
            let value = HeaderValue::from_bytes(take_bytes(from)?).ok()?;
            let is_reserved = REQUEST_HEADERS_RESERVED.contains(&name.as_str());
            // The Content-Type may be one more than were configured.
            if is_reserved || value.len() > HEADER_VALUE_BYTES_MAX || headers.len() > HEADERS_MAX {
                return None;
            }
            headers.append(name, value);
        }
        Some(Self { method, url, headers, body, is_batch_item })
    }
}

fn decode_url(text: &str) -> Option<RequestUrl> {
    if text.len() > URL_BYTES_MAX {
        return None;
    }
    if text.starts_with('/') {
        return Some(RequestUrl::Path(text.to_owned()));
    }
    let url = Url::parse(text).ok()?;
    let fits = matches!(url.scheme(), "http" | "https")
        && url.host().is_some()
        && url.username().is_empty()
        && url.password().is_none();
    fits.then_some(RequestUrl::Absolute(url))
}
