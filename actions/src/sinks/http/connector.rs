//! A connector of HTTP servers: where actions that name it may go, and what they show there.
//!
//! Secrets stand here and nowhere else, because rules are written by people who may not know them. So that a rule can't
//! send them to a host of its author's choice, a connector that has any must say where they may go. A queued request holds
//! nothing of its connector: address, credentials, certificates and proxy are those of the moment when it is sent.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::ClientConfig;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::{Host, Url};

use super::auth::{Auth, AuthConfig, AuthKind};
use super::client::{ProxySettings, REQUEST_HEADERS_RESERVED};
use super::config::HttpConfig;
use super::hosts::{Base, HOSTS_MAX, HostPattern, Origin, Shape};
use super::token::TokenSource;
use crate::connectors::Fault;
use crate::connectors::tls::{TlsConfig, TlsFiles};
use crate::secret::Secret;
use crate::targets::{AddressRange, TargetPolicy};

/// `[connectors.<name>]` with `type = "http"`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpConnectorConfig {
    /// URL that the paths of actions are put behind; literal. Without it actions write whole URLs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Hosts that actions may name, where there is no `url`. Default: any, which a connector with credentials can't have.
    #[serde(default)]
    pub allowed_hosts: Vec<HostPattern>,
    /// Loopback, private and reserved addresses that are allowed beside those of `[actions]`. Default: none.
    #[serde(default)]
    pub allow_private: Vec<AddressRange>,
    /// How requests say who sends them. Default: not at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth: Option<AuthConfig>,
    /// What is trusted, and what is shown, in TLS. Default: the platform's trust, and no certificate of our own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsConfig>,
    /// `http://host:port` of a proxy through which every request goes. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy: Option<String>,
    /// User name for the proxy. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_username: Option<String>,
    /// Password for the proxy. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_password: Option<Secret>,
}

impl HttpConnectorConfig {
    /// Checks it without reading a file.
    pub(crate) fn check(&self) -> Result<(), Fault> {
        Parts::of(self).map(drop)
    }

    /// What makes it show its credentials to everybody on the way. A signature isn't one of them.
    pub(crate) fn exposure(&self) -> Option<&'static str> {
        let shows = self.auth.as_ref().is_some_and(|auth| auth.kind != AuthKind::Hmac);
        (shows && self.url.as_deref().is_some_and(|url| url.starts_with("http://")))
            .then_some("its url is http, not https")
    }
}

/// One connector, ready to use.
pub struct HttpConnector {
    config: HttpConnectorConfig,
    files: TlsFiles,
    base: Option<Base>,
    pub(super) auth: Auth,
    pub(super) targets: Arc<TargetPolicy>,
    pub(super) tls: Option<ClientConfig>,
    pub(super) proxy: Option<ProxySettings>,
}

/// Shows no secret.
impl fmt::Debug for HttpConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpConnector").field("config", &self.config).finish_non_exhaustive()
    }
}

/// What the settings alone amount to.
struct Parts {
    base: Option<Base>,
    proxy: Option<ProxySettings>,
}

impl Parts {
    fn of(config: &HttpConnectorConfig) -> Result<Self, Fault> {
        let base = config.url.as_deref().map(Base::parse).transpose();
        let base = base.map_err(|problem| Fault::new("url", problem))?;
        let hosts = config.allowed_hosts.len();
        if hosts > HOSTS_MAX {
            return Err(Fault::new(
                "allowed_hosts",
                format!("{hosts} given, more than the limit of {HOSTS_MAX}"),
            ));
        }
        if base.is_some() && hosts > 0 {
            return Err(Fault::new("allowed_hosts", "url says already which host it is"));
        }
        let shows = [
            ("auth", config.auth.is_some()),
            ("tls", config.tls.as_ref().is_some_and(|tls| tls.client_cert_file.is_some())),
        ];
        if let Some((field, _)) = shows.iter().find(|(_, shows)| *shows)
            && base.is_none()
            && hosts == 0
        {
            return Err(Fault::new(
                *field,
                "credentials need url or allowed_hosts, which say where they may go",
            ));
        }
        if let Some(auth) = &config.auth {
            auth.check()?;
        }
        if let Some(tls) = &config.tls {
            tls.check()?;
        }
        let proxy = ProxySettings::of(config)?;
        Ok(Self { base, proxy })
    }
}

impl HttpConnector {
    pub(crate) fn load(
        config: &HttpConnectorConfig,
        targets: &TargetPolicy,
        before: Option<&Arc<Self>>,
    ) -> Result<Arc<Self>, Fault> {
        let Parts { base, proxy } = Parts::of(config)?;
        let mut targets = targets.clone();
        targets.allow_private.extend_from_slice(&config.allow_private);
        let files = TlsFiles::read(config.tls.as_ref())?;
        if let Some(before) = before
            && before.config == *config
            && *before.targets == targets
            && before.files == files
        {
            return Ok(Arc::clone(before));
        }
        let targets = Arc::new(targets);
        let server_name = config.tls.as_ref().and_then(|tls| tls.server_name.as_deref());
        let tls = config.tls.as_ref().map(|_| files.client_config(server_name)).transpose()?;
        let auth = match &config.auth {
            None => Auth::None,
            Some(auth) => Auth::new(auth, || {
                // The certificate's other name is that of the servers, not of whoever makes tokens for them.
                let tls = config.tls.as_ref().map(|_| files.client_config(None)).transpose()?;
                TokenSource::new(auth, Arc::clone(&targets), tls, proxy.clone())
            })?,
        };
        Ok(Arc::new(Self { config: config.clone(), files, base, auth, targets, tls, proxy }))
    }

    pub(super) fn allowed_hosts(&self) -> &[HostPattern] {
        &self.config.allowed_hosts
    }

    /// Checks an action that names this connector. Returns the key that is at fault, and why.
    pub(super) fn check(&self, action: &HttpConfig, shape: &Shape) -> Result<(), (&'static str, String)> {
        match (shape, &self.base) {
            (Shape::Path, Some(_)) | (Shape::RenderedHost { .. }, None) => {}
            (Shape::Path, None) => {
                return Err(("url", "the connector has no url that a path could be put behind".to_owned()));
            }
            (Shape::Literal(_) | Shape::RenderedHost { .. }, Some(_)) => {
                return Err((
                    "url",
                    "the connector has a url of its own; expected a path that begins with \"/\"".to_owned(),
                ));
            }
            (Shape::Literal(origin), None) => {
                let host = borrowed(&origin.host);
                if !self.allows(&host) {
                    return Err(("url", format!("\"{host}\" is none of the connector's allowed hosts")));
                }
            }
        }
        if matches!(shape, Shape::RenderedHost { .. }) && self.config.allowed_hosts.is_empty() {
            return Err(("url", "the connector has no allowed_hosts; the host must be literal".to_owned()));
        }
        let own: Vec<&str> = self.auth.headers().collect();
        for name in action.headers.keys() {
            if own.iter().any(|own| own.eq_ignore_ascii_case(name)) {
                return Err(("headers", format!("{name} is set by the connector")));
            }
        }
        Ok(())
    }

    /// The URL of a rendered path; `None` where there is no base, or the path would lead elsewhere.
    pub(super) fn join(&self, path: &str) -> Option<Url> {
        self.base.as_ref()?.join(path)
    }

    /// Its secrets, each in every form in which a request shows it.
    pub(super) fn secrets(&self) -> Vec<String> {
        let mut secrets: Vec<String> =
            self.config.proxy_password.iter().map(|secret| secret.expose().to_owned()).collect();
        if let Some(auth) = &self.config.auth {
            let single = [&auth.password, &auth.token, &auth.client_secret, &auth.secret];
            let several = auth.params.iter().flat_map(BTreeMap::values);
            let exposed = single.into_iter().flatten().chain(several).map(Secret::expose);
            secrets.extend(exposed.map(str::to_owned));
        }
        let pairs = [
            (self.config.proxy_username.as_ref(), self.config.proxy_password.as_ref()),
            self.config
                .auth
                .as_ref()
                .map_or((None, None), |auth| (auth.username.as_ref(), auth.password.as_ref())),
            self.config
                .auth
                .as_ref()
                .map_or((None, None), |auth| (auth.client_id.as_ref(), auth.client_secret.as_ref())),
        ];
        for (user, secret) in pairs.into_iter().filter_map(|(user, secret)| user.zip(secret)) {
            secrets.push(STANDARD.encode(format!("{user}:{}", secret.expose())));
        }
        secrets
    }

    /// The origin of the connector's own URL.
    pub(super) fn origin(&self) -> Option<&Origin> {
        self.base.as_ref().map(|base| &base.origin)
    }

    /// Whether requests may go to this URL.
    pub(super) fn reaches(&self, url: &Url) -> bool {
        match &self.base {
            Some(base) => Origin::of(url).as_ref() == Some(&base.origin),
            None => url.host().is_some_and(|host| self.allows(&host)),
        }
    }

    fn allows(&self, host: &Host<&str>) -> bool {
        let hosts = &self.config.allowed_hosts;
        hosts.is_empty() || hosts.iter().any(|pattern| pattern.matches(host))
    }
}

pub(super) fn borrowed(host: &Host<String>) -> Host<&str> {
    match host {
        Host::Domain(name) => Host::Domain(name),
        Host::Ipv4(v4) => Host::Ipv4(*v4),
        Host::Ipv6(v6) => Host::Ipv6(*v6),
    }
}

/// Whether a header that a connector sets under a configurable name may have that name.
pub(super) fn is_free_header(name: &str) -> bool {
    reqwest::header::HeaderName::from_bytes(name.as_bytes())
        .is_ok_and(|name| !REQUEST_HEADERS_RESERVED.contains(&name.as_str()))
}
