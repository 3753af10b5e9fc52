//! HTTP clients as all of this module's are: guarded, without the environment's proxies, retries and decompression.

use std::error::Error;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Proxy, StatusCode, redirect};
use rustls::ClientConfig;
use url::Host;

use super::config::Redirect;
use super::connector::HttpConnectorConfig;
use super::hosts::{Origin, Shape, check_url_text, shape};
use crate::connectors::Fault;
use crate::delivery::DeliveryError;
use crate::secret::Secret;
use crate::targets::{TargetError, TargetPolicy};
use crate::text::chain;

/// Headers that belong to the connection, not to the message (RFC 9110 section 7.6.1), or that would let a request
/// reach another virtual host or frame a second request.
pub(super) const REQUEST_HEADERS_RESERVED: [&str; 12] = [
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

/// Redirects followed in a row, where they are followed at all.
const REDIRECTS_MAX: usize = 3;
/// How long an unused connection is kept.
const POOL_IDLE: Duration = Duration::from_secs(60);

/// A proxy that the operator has chosen.
#[derive(Clone)]
pub(super) struct ProxySettings {
    url: String,
    credentials: Option<(String, Secret)>,
}

impl ProxySettings {
    pub(super) fn of(config: &HttpConnectorConfig) -> Result<Option<Self>, Fault> {
        let Some(url) = &config.proxy else {
            let left = [
                ("proxy_username", config.proxy_username.is_some()),
                ("proxy_password", config.proxy_password.is_some()),
            ];
            return match left.iter().find(|(_, given)| *given) {
                Some((key, _)) => Err(Fault::new(*key, "there is no proxy that it would be for")),
                None => Ok(None),
            };
        };
        let fault = |problem: String| Err(Fault::new("proxy", problem));
        match shape(url) {
            Ok(Shape::Literal(origin)) if origin.scheme == "http" => {}
            Ok(_) => return fault("expected http://host:port".to_owned()),
            Err(problem) => return fault(problem),
        }
        let after_host = url.split_once("://").and_then(|(_, rest)| rest.split_once(['/', '?', '#']));
        if after_host.is_some_and(|(_, path)| !path.is_empty()) || check_url_text(url).is_err() {
            return fault("expected http://host:port and nothing behind it".to_owned());
        }
        let credentials = match (&config.proxy_username, &config.proxy_password) {
            (Some(username), Some(password)) => Some((username.clone(), password.clone())),
            (None, None) => None,
            (Some(_), None) => return Err(Fault::new("proxy_username", "needs proxy_password too")),
            (None, Some(_)) => return Err(Fault::new("proxy_password", "needs proxy_username too")),
        };
        Ok(Some(Self { url: url.clone(), credentials }))
    }

    fn proxy(&self) -> reqwest::Result<Proxy> {
        let proxy = Proxy::all(&self.url)?;
        Ok(match &self.credentials {
            Some((username, password)) => proxy.basic_auth(username, password.expose()),
            None => proxy,
        })
    }
}

/// What a client is made of.
pub(super) struct ClientSettings<'a> {
    pub(super) targets: &'a Arc<TargetPolicy>,
    /// The port that it connects to, for the judgement of addresses.
    pub(super) port: u16,
    pub(super) tls: ClientConfig,
    pub(super) proxy: Option<&'a ProxySettings>,
    pub(super) connect_timeout: Duration,
    pub(super) redirect: Redirect,
    /// Unused connections that are kept.
    pub(super) idle_max: usize,
}

pub(super) fn build(settings: ClientSettings<'_>) -> Result<reqwest::Client, String> {
    let builder = reqwest::Client::builder()
        .tls_backend_preconfigured(settings.tls)
        // A proxy named in the environment would connect on our behalf, past every check of the address.
        .no_proxy()
        .retry(reqwest::retry::never())
        .redirect(redirect_policy(settings.redirect))
        .referer(false)
        .connect_timeout(settings.connect_timeout)
        .tcp_nodelay(true)
        .pool_idle_timeout(POOL_IDLE)
        .pool_max_idle_per_host(settings.idle_max)
        .user_agent(concat!("tidegate/", env!("CARGO_PKG_VERSION")));
    let fault = |error: reqwest::Error| format!("no HTTP client could be made: {}", chain(&error));
    let builder = match settings.proxy {
        // The one name that is looked up here is the proxy's, which the operator has chosen.
        Some(proxy) => builder.proxy(proxy.proxy().map_err(fault)?),
        None => builder.dns_resolver(Arc::new(GuardedResolver {
            targets: Arc::clone(settings.targets),
            port: settings.port,
        })),
    };
    builder.build().map_err(fault)
}

/// Judges what can be told of a host before anything is resolved: an address, which needs no resolver and would pass it
/// by, and behind a proxy the names that mean the proxy's own machine.
pub(super) fn judge_host(
    targets: &TargetPolicy,
    has_proxy: bool,
    origin: &Origin,
) -> Result<(), TargetError> {
    let text = origin.host.to_string();
    let target = match &origin.host {
        Host::Ipv4(v4) => SocketAddr::from((*v4, origin.port)),
        Host::Ipv6(v6) => SocketAddr::from((*v6, origin.port)),
        Host::Domain(name) if has_proxy && is_localhost(name) => {
            SocketAddr::from((std::net::Ipv4Addr::LOCALHOST, origin.port))
        }
        Host::Domain(_) => return Ok(()),
    };
    targets.check(&text, target)
}

fn is_localhost(name: &str) -> bool {
    let name = name.trim_end_matches('.');
    name == "localhost" || name.ends_with(".localhost")
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

/// Says what a failed attempt means. The URL is taken out of the error: its query may hold values of messages.
pub(super) fn classify(error: reqwest::Error) -> DeliveryError {
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

/// Resolves names and lets only addresses through that actions may connect to. The client connects to exactly these.
struct GuardedResolver {
    targets: Arc<TargetPolicy>,
    port: u16,
}

impl fmt::Debug for GuardedResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuardedResolver").field("port", &self.port).finish_non_exhaustive()
    }
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
