//! Asking other servers: for keys, and about clients. Bounded in time and size, without redirects or proxies of the
//! environment, over TLS unless the other server is on this machine or the operator says otherwise.
//!
//! Where there is a [`Guard`], every address is judged when it is about to be connected to: what a name resolves to may change.

use std::error::Error;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::HeaderMap;
use reqwest::{Method, Url, redirect};
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt as _;

/// How long a connection may take to be made, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an unused connection is kept.
const IDLE: Duration = Duration::from_secs(30);
/// Unused connections that are kept.
const IDLE_MAX: usize = 8;

/// Why a server can't be asked as configured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EndpointError {
    /// The URL is none.
    #[error("the URL is not understood: expected https://host/path without user name and password")]
    Url,
    /// The URL isn't protected.
    #[error(
        "the URL is http and not of this machine: everybody on the way could answer; write https, or insecure_http = true"
    )]
    Insecure,
    /// The CA can't be read.
    #[error("{} holds no certificates that can be used", path.display())]
    Ca {
        /// The file.
        path: PathBuf,
    },
    /// The URL is of an address that nobody may connect to.
    #[error("the URL is not allowed: {0}")]
    Forbidden(String),
    /// TLS can't be set up.
    #[error("TLS can't be set up: {0}")]
    Tls(String),
}

/// Why there is no answer. Holds nothing of the URL or the body.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FetchError {
    #[error("no answer: {0}")]
    NoAnswer(String),
    #[error("the answer's status is {0}")]
    Status(u16),
    #[error("the answer is larger than the limit of {0} bytes")]
    TooLarge(usize),
}

/// Says why nobody may connect to an address, given with the host's name.
type Judge = dyn Fn(&str, SocketAddr) -> Result<(), String> + Send + Sync;

/// Judges addresses before they are connected to.
#[derive(Clone)]
pub struct Guard(Arc<Judge>);

impl Guard {
    /// Asks `judge` about the name of a host and an address of it.
    pub fn new(judge: impl Fn(&str, SocketAddr) -> Result<(), String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(judge))
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Guard")
    }
}

/// Resolves names to what the guard lets through.
struct GuardedResolver {
    guard: Guard,
    port: u16,
}

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (guard, port) = (self.guard.clone(), self.port);
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), port)).await?;
            let mut allowed = Vec::new();
            let mut refused = None;
            for address in found {
                match (guard.0)(name.as_str(), address) {
                    Ok(()) => allowed.push(address),
                    Err(why) => refused = Some(why),
                }
            }
            match refused {
                Some(why) if allowed.is_empty() => Err(why.into()),
                _ => Ok(Box::new(allowed.into_iter()) as Addrs),
            }
        })
    }
}

/// Where and how to ask.
#[derive(Debug, Clone)]
pub struct EndpointSettings {
    /// Whom.
    pub url: String,
    /// CA certificates (PEM) to trust instead of the system's.
    pub ca: Option<PathBuf>,
    /// Plain HTTP is fine beyond this machine.
    pub insecure_http: bool,
    /// Longest time from the start of a request to the end of its answer.
    pub timeout: Duration,
    /// Judges addresses; `None`: any will do.
    pub guard: Option<Guard>,
}

/// A server to ask.
pub(crate) struct Endpoint {
    client: reqwest::Client,
    url: Url,
}

impl fmt::Debug for Endpoint {
    /// Without what a URL may hold beside the host.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("host", &self.url.host_str()).finish_non_exhaustive()
    }
}

impl Endpoint {
    pub(crate) fn new(settings: &EndpointSettings) -> Result<Self, EndpointError> {
        let url = Url::parse(&settings.url).map_err(|_| EndpointError::Url)?;
        let has_credentials = !url.username().is_empty() || url.password().is_some();
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() || has_credentials {
            return Err(EndpointError::Url);
        }
        if url.scheme() == "http" && !settings.insecure_http && !is_this_machine(&url) {
            return Err(EndpointError::Insecure);
        }
        let port = url.port_or_known_default().unwrap_or_default();
        if let (Some(guard), Some(address)) = (&settings.guard, address(&url)) {
            // An address in the URL passes every resolver by.
            let host = url.host_str().unwrap_or_default();
            (guard.0)(host, SocketAddr::new(address, port)).map_err(EndpointError::Forbidden)?;
        }
        let tls = tls(&url, settings.ca.as_deref())?;
        let mut builder = reqwest::Client::builder();
        if let Some(guard) = settings.guard.clone() {
            builder = builder.dns_resolver(Arc::new(GuardedResolver { guard, port }));
        }
        let client = builder
            .tls_backend_preconfigured(tls)
            .no_proxy()
            .retry(reqwest::retry::never())
            .redirect(redirect::Policy::none())
            .referer(false)
            .timeout(settings.timeout)
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(IDLE_MAX)
            .user_agent(concat!("tidegate/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| EndpointError::Tls(chain(&error)))?;
        Ok(Self { client, url })
    }

    /// Asks, and reads an answer of at most `limit` bytes; any status but 200 and 204 is no answer.
    pub(crate) async fn ask(
        &self,
        method: Method,
        headers: HeaderMap,
        body: Vec<u8>,
        limit: usize,
    ) -> Result<Vec<u8>, FetchError> {
        let no_answer = |error: reqwest::Error| FetchError::NoAnswer(chain(&error.without_url()));
        let request = self.client.request(method, self.url.clone()).headers(headers).body(body);
        let mut response = request.send().await.map_err(no_answer)?;
        let status = response.status().as_u16();
        if !matches!(status, 200 | 204) {
            return Err(FetchError::Status(status));
        }
        let mut answer = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(no_answer)? {
            if answer.len() + chunk.len() > limit {
                return Err(FetchError::TooLarge(limit));
            }
            answer.extend_from_slice(&chunk);
        }
        Ok(answer)
    }
}

/// The address of a URL that has one in place of a name.
fn address(url: &Url) -> Option<IpAddr> {
    url.host_str()?.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

fn is_this_machine(url: &Url) -> bool {
    url.host_str() == Some("localhost") || address(url).is_some_and(|address| address.is_loopback())
}

fn tls(url: &Url, ca: Option<&Path>) -> Result<ClientConfig, EndpointError> {
    let fault = |error: rustls::Error| EndpointError::Tls(error.to_string());
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(fault)?;
    if url.scheme() != "https" {
        // Nothing is trusted: TLS is never spoken.
        return Ok(builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth());
    }
    let Some(path) = ca else {
        return Ok(builder.with_platform_verifier().map_err(fault)?.with_no_client_auth());
    };
    let unusable = || EndpointError::Ca { path: path.to_owned() };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|_| unusable())? {
        roots.add(certificate.map_err(|_| unusable())?).map_err(|_| unusable())?;
    }
    if roots.is_empty() {
        return Err(unusable());
    }
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// The error with its causes.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(url: &str, insecure_http: bool) -> Result<Endpoint, EndpointError> {
        Endpoint::new(&EndpointSettings {
            url: url.to_owned(),
            ca: None,
            insecure_http,
            timeout: Duration::from_secs(1),
            guard: None,
        })
    }

    #[tokio::test]
    async fn a_guard_is_asked_about_addresses_and_about_what_names_resolve_to() {
        let asked = Arc::new(parking_lot::Mutex::new(Vec::new()));
        let seen = Arc::clone(&asked);
        let guard = Guard::new(move |host, target| {
            seen.lock().push((host.to_owned(), target.ip().is_loopback(), target.port()));
            Err("not there".to_owned())
        });
        let settings = |url: &str| EndpointSettings {
            url: url.to_owned(),
            ca: None,
            insecure_http: true,
            timeout: Duration::from_secs(5),
            guard: Some(guard.clone()),
        };
        for url in ["http://169.254.169.254/x", "http://[fe80::1]:81/", "https://127.0.0.1/"] {
            assert!(
                matches!(Endpoint::new(&settings(url)), Err(EndpointError::Forbidden(why)) if why == "not there")
            );
        }
        let endpoint = Endpoint::new(&settings("http://localhost:9/")).unwrap();
        let error = endpoint.ask(Method::POST, HeaderMap::new(), Vec::new(), 1).await.unwrap_err();
        assert!(error.to_string().contains("not there"), "{error}");
        let asked = asked.lock();
        assert_eq!(asked[0], ("169.254.169.254".to_owned(), false, 80));
        assert_eq!(asked[1].2, 81);
        assert_eq!(asked[2], ("127.0.0.1".to_owned(), true, 443));
        assert!(
            asked[3..].iter().all(|asked| *asked == ("localhost".to_owned(), true, 9)) && asked.len() > 3
        );
    }

    #[test]
    fn plain_http_is_for_this_machine() {
        for url in ["http://127.0.0.1:1/x", "http://localhost/x", "http://[::1]/x"] {
            assert!(endpoint(url, false).is_ok(), "{url}");
        }
        for url in [
            "http://example.org/",
            "http://127.0.0.1.example.org/",
            "http://192.0.2.1/",
            "http://localhost.example.org/",
        ] {
            assert!(matches!(endpoint(url, false), Err(EndpointError::Insecure)), "{url}");
            assert!(endpoint(url, true).is_ok(), "{url}");
        }
    }

    #[test]
    fn what_is_no_url_of_a_server_is_refused() {
        for url in [
            "",
            "example.org",
            "ftp://example.org/",
            "https://",
            "https://u:p@example.org/",
            "file:///etc/passwd",
        ] {
            assert!(matches!(endpoint(url, true), Err(EndpointError::Url)), "{url}");
        }
    }
}
