//! From the settings of an HTTP action to the request for one message.

use bytes::Bytes;
use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use serde::de::IgnoredAny;
use url::Url;

use super::client::REQUEST_HEADERS_RESERVED;
use super::config::{BatchFormat, BodyFormat, HttpConfig};
use super::hosts::{HostPattern, Origin, Shape, check_url_text, shape};
use super::request::{HttpRequest, RequestUrl};
use crate::error::{ActionConfigError, RenderError};
use crate::plan::{Renderer, Slot, TemplateHandle, Templates, is_literal};
use crate::text::excerpt;

/// Most headers that an action may set.
pub(super) const HEADERS_MAX: usize = 64;
/// Longest rendered URL in bytes; servers commonly stop at 8 KiB.
pub(super) const URL_BYTES_MAX: usize = 8 << 10;
/// Longest rendered header value in bytes.
pub(super) const HEADER_VALUE_BYTES_MAX: usize = 8 << 10;

#[derive(Debug)]
pub(crate) struct HttpPlan {
    shape: Shape,
    allowed_hosts: Vec<HostPattern>,
    /// Whether the connector says which hosts are allowed, and when.
    has_connector: bool,
    url: TemplateHandle,
    method: MethodSlot,
    headers: Vec<(HeaderName, TemplateHandle)>,
    body: Option<TemplateHandle>,
    batch: Option<BatchFormat>,
}

#[derive(Debug)]
enum MethodSlot {
    Fixed(Method),
    Template(TemplateHandle),
}

impl HttpPlan {
    pub(crate) fn new(config: &HttpConfig, templates: &mut Templates) -> Result<Self, ActionConfigError> {
        let fault =
            |field: &str, problem: String| Err(ActionConfigError::field_error(&config.name, field, problem));
        config.check()?;
        let shape = match shape(&config.url) {
            Ok(shape) => shape,
            Err(problem) => return fault("url", problem),
        };
        match &shape {
            Shape::RenderedHost { .. } if config.allowed_hosts.is_empty() && config.connector.is_none() => {
                return fault(
                    "url",
                    "the host must be literal, unless allowed_hosts says which may come out".to_owned(),
                );
            }
            Shape::Path if config.connector.is_none() => {
                return fault("url", "a path needs a connector with a url that it is put behind".to_owned());
            }
            Shape::Literal(origin) if !allows(&config.allowed_hosts, origin) => {
                return fault("url", format!("\"{}\" is none of the allowed hosts", origin.host));
            }
            _ => {}
        }
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
            if REQUEST_HEADERS_RESERVED.contains(&header.as_str()) {
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
        Ok(Self {
            shape,
            allowed_hosts: config.allowed_hosts.clone(),
            has_connector: config.connector.is_some(),
            url,
            method,
            headers,
            body,
            batch: config.batch.map(|batch| batch.format),
        })
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
        let needs_kind = self.batch.is_some() || !headers.contains_key(CONTENT_TYPE);
        let (body, is_json) = match &self.body {
            Some(template) => {
                let body = template.bytes(renderer)?;
                let is_json = needs_kind && serde_json::from_slice::<IgnoredAny>(&body).is_ok();
                (Bytes::from(body), is_json)
            }
            None => {
                let output = renderer.output();
                (Bytes::copy_from_slice(output.bytes), output.is_json)
            }
        };
        if self.batch.is_some() && !is_json {
            let problem = "expected JSON, which batches are made of".to_owned();
            return Err(RenderError::Value { field: "body".to_owned(), problem });
        }
        if !headers.contains_key(CONTENT_TYPE) && !body.is_empty() {
            let media_type = match self.batch {
                Some(BatchFormat::JsonLines) => "application/x-ndjson",
                Some(BatchFormat::JsonArray) => "application/json",
                None if is_json => "application/json",
                None => "application/octet-stream",
            };
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
        }
        Ok(HttpRequest { method, url, headers, body, is_batch_item: self.batch.is_some() })
    }

    fn render_url(&self, renderer: &mut dyn Renderer) -> Result<RequestUrl, RenderError> {
        let fault = |problem: &str| RenderError::Url { problem: problem.to_owned() };
        let text = self.url.text(renderer)?;
        if text.len() > URL_BYTES_MAX {
            let field = self.url.field().to_owned();
            return Err(RenderError::TooLarge { field, bytes: text.len(), limit: URL_BYTES_MAX });
        }
        check_url_text(&text).map_err(|problem| RenderError::Url { problem })?;
        if self.shape == Shape::Path {
            // What follows "//" would be a host.
            let is_path = text.starts_with('/') && !text.starts_with("//");
            return if is_path { Ok(RequestUrl::Path(text)) } else { Err(fault("expected a path")) };
        }
        let url = Url::parse(&text).map_err(|_| fault("expected a URL"))?;
        let origin = Origin::of(&url).ok_or_else(|| fault("expected a URL with a host"))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(fault("a URL can't hold a user name or password"));
        }
        match &self.shape {
            // What is literal can't differ, since values are percent-encoded; should an escape ever be missed, nothing must
            // go to another host.
            Shape::Literal(literal) if origin != *literal => {
                Err(fault("scheme, host and port must be the ones written in the configuration"))
            }
            Shape::RenderedHost { scheme, port } if origin.scheme != *scheme || origin.port != *port => {
                Err(fault("scheme and port must be the ones written in the configuration"))
            }
            Shape::RenderedHost { .. } if !self.has_connector && !allows(&self.allowed_hosts, &origin) => {
                Err(fault("the host is none of the allowed ones"))
            }
            _ => Ok(RequestUrl::Absolute(url)),
        }
    }
}

/// Whether a list, which may be empty for want of one, allows the host.
pub(super) fn allows(hosts: &[HostPattern], origin: &Origin) -> bool {
    let host = super::connector::borrowed(&origin.host);
    hosts.is_empty() || hosts.iter().any(|pattern| pattern.matches(&host))
}

const METHOD_EXPECTED: &str = "expected GET, HEAD, POST, PUT, PATCH, DELETE or OPTIONS";
const HEADER_EXPECTED: &str = "expected a header value: no CR, LF, NUL or other control characters";

pub(super) fn method(text: &str) -> Option<Method> {
    [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS]
        .into_iter()
        .find(|method| method.as_str() == text)
}

fn header_value(bytes: &[u8]) -> Option<HeaderValue> {
    HeaderValue::from_bytes(bytes).ok()
}
