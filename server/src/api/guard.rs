//! What is looked at before anything else, and what stands on every answer.
//!
//! A page on the web can have a browser ask any address, also this one: by a name that it has resolve to 127.0.0.1 (DNS rebinding),
//! or across origins. The first is told by the Host header, which holds that name: IP addresses and `localhost`
//! can't be rebound, other names have to be listed (`[admin] hosts`). The second is told by the Origin header, which must be the
//! Host itself.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use hyper::header::{self, HeaderName, HeaderValue};

use super::Api;
use super::problem::{Kind, Problem};
use super::serve::Peer;
use crate::config::Admin;

/// On every answer: nothing of it is run, framed, guessed at, kept or told on.
const HEADERS: [(HeaderName, &str); 7] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (header::CACHE_CONTROL, "no-store"),
];

/// Whom requests may be for.
#[derive(Debug)]
pub(super) struct Guard {
    /// Names in lower case, `localhost` among them.
    hosts: Vec<String>,
}

impl Guard {
    pub(super) fn new(config: &Admin) -> Self {
        let mut hosts = vec!["localhost".to_owned()];
        hosts.extend(config.hosts.iter().map(|host| host.to_ascii_lowercase()));
        Self { hosts }
    }

    fn check(&self, request: &Request) -> Result<(), Problem> {
        let all = |name| request.headers().get_all(name).iter().collect::<Vec<_>>();
        let text = |value: &HeaderValue| value.to_str().ok().map(str::to_ascii_lowercase);
        let hosts = all(header::HOST);
        let [host] = hosts.as_slice() else {
            return Err(Problem::new(Kind::Malformed, "expected one Host header"));
        };
        let host = text(host).filter(|host| self.serves(host)).ok_or_else(|| {
            Problem::new(
                Kind::Host,
                "expected an IP address, localhost or a name of [admin] hosts in the Host header",
            )
        })?;
        // A request target in absolute form must not say another one.
        if request.uri().authority().is_some_and(|target| target.as_str().to_ascii_lowercase() != host) {
            return Err(Problem::new(Kind::Host, "the request target and the Host header differ"));
        }
        let is_same = |origin: &HeaderValue| {
            let origin = text(origin);
            let authority = origin.as_deref().and_then(|origin| origin.split_once("://"));
            authority.is_some_and(|(_, authority)| authority == host)
        };
        match all(header::ORIGIN).as_slice() {
            [] => Ok(()),
            [origin] if is_same(origin) => Ok(()),
            _ => Err(Problem::new(Kind::Origin, "the Origin header isn't the Host")),
        }
    }

    fn serves(&self, host: &str) -> bool {
        let Some(name) = name_of(host) else { return false };
        let is_address = match name.strip_prefix('[').and_then(|name| name.strip_suffix(']')) {
            Some(inner) => inner.parse::<std::net::Ipv6Addr>().is_ok(),
            None => matches!(name.parse(), Ok(IpAddr::V4(_))),
        };
        is_address || self.hosts.iter().any(|served| served == name)
    }
}

/// The name of a Host header, without the port; `None` if it is none.
fn name_of(host: &str) -> Option<&str> {
    let colon = match host.rfind(']') {
        Some(bracket) => host.get(bracket..).and_then(|rest| rest.find(':')).map(|at| bracket + at),
        None => host.find(':'),
    };
    let Some(colon) = colon else { return Some(host) };
    let (name, port) = host.split_at_checked(colon)?;
    port.strip_prefix(':')?.parse::<u16>().is_ok().then_some(name)
}

/// Asks the guard, and puts the headers on whatever is answered.
pub(super) async fn guard(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    // No page can have a browser come by the socket.
    let is_owner = matches!(request.extensions().get(), Some(Peer::Owner(_)));
    let checked = if is_owner { Ok(()) } else { api.guard.check(&request) };
    let mut response = match checked {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    };
    for (name, value) in HEADERS {
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(hosts: &[&str], headers: &[(&str, &str)], uri: &str) -> Result<(), Kind> {
        let guard =
            Guard::new(&Admin { hosts: hosts.iter().map(ToString::to_string).collect(), ..Admin::default() });
        let mut request = Request::builder().uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        guard.check(&request.body(axum::body::Body::empty()).unwrap()).map_err(|problem| problem.kind())
    }

    #[test]
    fn addresses_localhost_and_listed_names_are_served_and_no_others() {
        let served = |host| check(&["gw.example"], &[("host", host)], "/");
        for host in [
            "127.0.0.1",
            "127.0.0.1:7080",
            "192.0.2.7:80",
            "[::1]",
            "[::1]:7080",
            "localhost",
            "LOCALHOST:1",
            "gw.example",
            "GW.Example:8443",
        ] {
            assert_eq!(served(host), Ok(()), "{host}");
        }
        for host in [
            "evil.example",
            "gw.example.evil.example",
            "xgw.example",
            "localhost.",
            "127.0.0.1.evil.example",
            "",
            "::1",
            "[127.0.0.1]",
            "[::1",
            "[::1]x",
            "[::1]:",
            "127.0.0.1:99999",
            "127.0.0.1:80:80",
            "a@127.0.0.1",
            "2130706433",
            "0x7f.1",
            "[fe80::1%eth0]",
        ] {
            assert_eq!(served(host), Err(Kind::Host), "{host}");
        }
    }

    #[test]
    fn there_is_one_host_and_the_target_has_the_same() {
        assert_eq!(check(&[], &[], "/"), Err(Kind::Malformed));
        let two = [("host", "localhost"), ("host", "localhost")];
        assert_eq!(check(&[], &two, "/"), Err(Kind::Malformed));
        let local = [("host", "localhost:1")];
        assert_eq!(check(&[], &local, "http://localhost:1/x"), Ok(()));
        assert_eq!(check(&[], &local, "http://evil.example/x"), Err(Kind::Host));
    }

    #[test]
    fn an_origin_is_the_host_itself() {
        let from = |origin| check(&[], &[("host", "localhost:7080"), ("origin", origin)], "/");
        assert_eq!(from("http://localhost:7080"), Ok(()));
        assert_eq!(from("https://LOCALHOST:7080"), Ok(()));
        for origin in [
            "null",
            "",
            "http://localhost",
            "http://localhost:7081",
            "http://127.0.0.1:7080",
            "http://evil.example",
            "http://evil.example/://localhost:7080",
        ] {
            assert_eq!(from(origin), Err(Kind::Origin), "{origin}");
        }
        let two = [("host", "localhost"), ("origin", "http://localhost"), ("origin", "http://localhost")];
        assert_eq!(check(&[], &two, "/"), Err(Kind::Origin));
    }
}
