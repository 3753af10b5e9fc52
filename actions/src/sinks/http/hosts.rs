//! Which hosts a URL may name: the shape of a URL's template, and the list that a rendered host is compared with.
//!
//! Scheme and port are literal always. The host is literal too, unless a list of allowed hosts says what may come out; then
//! the host is compared after parsing, when percent-encoding, Unicode, letter case and the odd ways to write an IPv4
//! address are gone.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use url::{Host, Url};

use crate::text::excerpt;

/// Most hosts of one list.
pub(crate) const HOSTS_MAX: usize = 256;

/// An allowed host: `api.example.com`, an IP address, or `*.example.com` for each name with exactly one label more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPattern(Pattern);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Pattern {
    Exact(Host<String>),
    /// The part behind `*.`.
    Below(String),
}

/// A text that names no host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{text}\" is no host; expected a name such as \"api.example.com\" or \"*.example.com\", or an IP address, without scheme, port and path"
)]
pub struct HostPatternError {
    /// What was given.
    pub text: String,
}

impl HostPattern {
    /// Whether the host is one of those meant.
    #[must_use]
    pub fn matches(&self, host: &Host<&str>) -> bool {
        match &self.0 {
            Pattern::Exact(exact) => exact == host,
            Pattern::Below(domain) => match host {
                Host::Domain(name) => {
                    name.split_once('.').is_some_and(|(label, rest)| !label.is_empty() && rest == domain)
                }
                Host::Ipv4(_) | Host::Ipv6(_) => false,
            },
        }
    }
}

impl FromStr for HostPattern {
    type Err = HostPatternError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fault = || HostPatternError { text: excerpt(text.as_bytes(), 80) };
        let (is_below, name) = match text.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let host = Host::parse(name).map_err(|_| fault())?;
        // Another spelling of the same host would make readers think of another host.
        if host.to_string() != name.to_ascii_lowercase() || name.ends_with('.') || name.contains('*') {
            return Err(fault());
        }
        match (is_below, host) {
            (false, host) => Ok(Self(Pattern::Exact(host))),
            // Everything below a single label would be everybody's.
            (true, Host::Domain(domain)) if domain.contains('.') => Ok(Self(Pattern::Below(domain))),
            (true, _) => Err(fault()),
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Pattern::Exact(host) => write!(f, "{host}"),
            Pattern::Below(domain) => write!(f, "*.{domain}"),
        }
    }
}

impl<'de> Deserialize<'de> for HostPattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for HostPattern {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "HostPattern".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string" })
    }
}

impl Serialize for HostPattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Scheme, host and port: what a template may never change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) scheme: String,
    pub(super) host: Host<String>,
    pub(super) port: u16,
}

impl Origin {
    pub(super) fn of(url: &Url) -> Option<Self> {
        Some(Self {
            scheme: url.scheme().to_owned(),
            host: url.host()?.to_owned(),
            port: url.port_or_known_default()?,
        })
    }
}

/// What of a URL's template is literal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Shape {
    /// Scheme, host and port.
    Literal(Origin),
    /// Scheme and port; the host is rendered.
    RenderedHost { scheme: String, port: u16 },
    /// Nothing: it is a path behind a connector's own URL.
    Path,
}

/// Finds out what of a URL's template is literal.
pub(super) fn shape(template: &str) -> Result<Shape, String> {
    if template.starts_with('/') {
        check_path(template)?;
        return Ok(Shape::Path);
    }
    let literal = template.split("${").next().unwrap_or_default();
    let Some((scheme, _)) = literal.split_once("://") else {
        return Err("expected http:// or https:// at the beginning, or with a connector that has a url, a path that begins with \"/\"".to_owned());
    };
    if !matches!(scheme, "http" | "https") {
        return Err(format!("expected http or https, given \"{}\"", excerpt(scheme.as_bytes(), 20)));
    }
    let rest = template.get(scheme.len() + "://".len()..).unwrap_or_default();
    let authority = Authority::read(rest)?;
    if authority.sample.contains('@') {
        return Err("a URL can't hold a user name or password; send an Authorization header".to_owned());
    }
    check_url_text(literal)?;
    let url = Url::parse(&format!("{scheme}://{}/", authority.sample))
        .map_err(|error| format!("expected a URL: {error}"))?;
    let origin = Origin::of(&url).ok_or_else(|| "expected a URL with a host".to_owned())?;
    Ok(if authority.is_rendered {
        Shape::RenderedHost { scheme: origin.scheme, port: origin.port }
    } else {
        Shape::Literal(origin)
    })
}

/// The part of a URL's template between scheme and path.
struct Authority {
    /// It with a letter for every placeholder.
    sample: String,
    is_rendered: bool,
}

impl Authority {
    fn read(text: &str) -> Result<Self, String> {
        let mut authority = Self { sample: String::new(), is_rendered: false };
        let mut rest = text;
        loop {
            let at = rest.find(['/', '?', '#', '\\', '$']).unwrap_or(rest.len());
            let (literal, tail) = rest.split_at_checked(at).unwrap_or((rest, ""));
            authority.sample.push_str(literal);
            let Some(placeholder) = tail.strip_prefix("${") else {
                // Browsers and the URL standard read a backslash as a slash; readers don't.
                return if tail.starts_with('$') {
                    Err("a host can't hold \"$\"".to_owned())
                } else {
                    Ok(authority)
                };
            };
            if authority.sample.contains(':') {
                return Err("the port must be literal".to_owned());
            }
            authority.is_rendered = true;
            authority.sample.push('x');
            rest = after_placeholder(placeholder).ok_or("a placeholder has no end")?;
        }
    }
}

/// What follows the `}` that ends a placeholder.
fn after_placeholder(text: &str) -> Option<&str> {
    let mut depth = 1_u32;
    let mut quote = None;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(open), _) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, '{') => depth = depth.saturating_add(1),
            (None, '}') => {
                depth -= 1;
                if depth == 0 {
                    return text.get(at + 1..);
                }
            }
            (None, _) => {}
        }
    }
    None
}

/// Refuses text that the URL parser would quietly change: it drops tabs and line feeds, turns a backslash into a
/// slash, and resolves dot segments, which lets a value climb out of the path that was written for it.
pub(super) fn check_url_text(text: &str) -> Result<(), String> {
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

/// Refuses a path, or a template of one, that isn't only that.
fn check_path(text: &str) -> Result<(), String> {
    if text.starts_with("//") {
        return Err("a path can't begin with \"//\": what follows would be a host".to_owned());
    }
    check_url_text(text.split("${").next().unwrap_or_default())
}

/// A connector's own URL, which paths are put behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Base {
    /// Without a slash at the end.
    text: String,
    pub(super) origin: Origin,
}

impl Base {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let Shape::Literal(origin) = shape(text)? else {
            return Err("expected http:// or https:// and a literal host".to_owned());
        };
        check_url_text(text)?;
        if text.contains(['?', '#']) || text.contains("${") {
            return Err("expected a URL without query, fragment and templates".to_owned());
        }
        Ok(Self { text: text.trim_end_matches('/').to_owned(), origin })
    }

    /// The URL of a rendered path; `None` if that would lead elsewhere.
    pub(super) fn join(&self, path: &str) -> Option<Url> {
        if !path.starts_with('/') || check_path(path).is_err() || check_url_text(path).is_err() {
            return None;
        }
        let url = Url::parse(&format!("{}{path}", self.text)).ok()?;
        (Origin::of(&url).as_ref() == Some(&self.origin)).then_some(url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn literal(template: &str) -> Origin {
        match shape(template) {
            Ok(Shape::Literal(origin)) => origin,
            other => panic!("{template}: {other:?}"),
        }
    }

    #[test]
    fn tells_what_of_a_template_is_literal() {
        assert_eq!(literal("https://h/${x}").port, 443);
        assert_eq!(literal("http://h:8080?x=${x}").port, 8_080);
        assert_eq!(literal("http://[::1]:80/").host, Host::parse("[::1]").unwrap());
        let rendered = |port| Shape::RenderedHost { scheme: "https".to_owned(), port };
        assert_eq!(shape("https://${x}.example.com/a"), Ok(rendered(443)));
        assert_eq!(shape("https://a-${x}-${y}.example.com:8443/${z}"), Ok(rendered(8_443)));
        assert_eq!(shape("https://${get(m, '}/@')}.example.com?q"), Ok(rendered(443)));
        assert_eq!(shape("https://${ {'a': \"}\"}.a }.example.com"), Ok(rendered(443)));
        assert_eq!(shape("/alarms/${x}"), Ok(Shape::Path));
    }

    #[test]
    fn refuses_templates_whose_scheme_user_or_port_could_change() {
        for template in [
            "${x}",
            "${x}://h/",
            "ftp://h/",
            "https://h:${port}/",
            "https://${x}:${port}/",
            "https://${x}@h/",
            "https://u:p@${x}/",
            "https://$${x}/",
            "https://${x",
            "//${x}/",
            "//h/a",
            "/../a",
            "https://",
            "https://${x} .example.com/",
        ] {
            assert!(shape(template).is_err(), "{template}: {:?}", shape(template));
        }
    }

    fn is_allowed(pattern: &str, host: &str) -> bool {
        let url = Url::parse(&format!("https://{host}/")).unwrap();
        pattern.parse::<HostPattern>().unwrap().matches(&url.host().unwrap())
    }

    #[test]
    fn a_pattern_allows_its_own_hosts_only() {
        for (pattern, host, expected) in [
            ("api.example.com", "api.example.com", true),
            ("api.example.com", "API.Example.COM", true),
            ("API.example.com", "api.example.com", true),
            ("api.example.com", "api.example.com.", false),
            ("api.example.com", "xapi.example.com", false),
            ("api.example.com", "api.example.com.evil.example", false),
            ("*.example.com", "a.example.com", true),
            ("*.example.com", "%61.example.com", true),
            ("*.example.com", "\u{ff41}.example.com", true),
            ("*.example.com", "example.com", false),
            ("*.example.com", "a.b.example.com", false),
            ("*.example.com", "a\u{3002}b.example.com", false),
            ("*.example.com", "evilexample.com", false),
            ("*.example.com", "a.example.com.", false),
            ("*.example.com", "a.example.com.evil.example", false),
            ("10.0.0.7", "10.0.0.7", true),
            ("10.0.0.7", "167772167", true),
            ("10.0.0.7", "0xa.7", true),
            ("10.0.0.7", "012.0.0.7", true),
            ("10.0.0.7", "10.0.0.8", false),
            ("[fd00::1]", "[fd00:0::1]", true),
            ("*.0.0.example", "10.0.0.example", true),
        ] {
            assert_eq!(is_allowed(pattern, host), expected, "{pattern} {host}");
        }
    }

    #[test]
    fn refuses_patterns_that_name_no_host() {
        for text in [
            "",
            "*",
            "*.com",
            "*.*.example.com",
            "a.*.example.com",
            "*example.com",
            "https://example.com",
            "example.com:443",
            "example.com/",
            "example.com.",
            "user@example.com",
            "*.10.0.0.7",
            "10.7",
            "0x0a000007",
            "[fe80::1%25eth0]",
            "fd00::1",
        ] {
            assert!(text.parse::<HostPattern>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_path_stays_behind_the_base() {
        let base = Base::parse("https://ops.example/v1/").unwrap();
        assert_eq!(base.join("/alarms/1?x=y").unwrap().as_str(), "https://ops.example/v1/alarms/1?x=y");
        for path in [
            "",
            "alarms",
            "//evil.example/x",
            "/../x",
            "/%2e%2e/x",
            "/a b",
            "/a\\b",
            "@evil.example/",
            ".evil.example/",
        ] {
            assert_eq!(base.join(path), None, "{path}");
        }
        for text in [
            "https://h/?q",
            "https://h/#f",
            "https://h/${x}",
            "https://${x}/",
            "https://u@h/",
            "/x",
            "https://h/a/../b",
        ] {
            assert!(Base::parse(text).is_err(), "{text}");
        }
    }
}
