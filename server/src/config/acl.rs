//! `[acl]`: what clients may do, and `[acl.http]`, who else is asked for rules.

use std::collections::BTreeMap;
use std::path::PathBuf;

use access::acl::HttpRulesSettings;
use access::authentication::{EndpointSettings, Guard};
use actions::Secret;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::units::Period;

/// What clients may publish and subscribe to. With any key, what no rule allows is denied.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AclConfig {
    /// Rules, asked in their order before those of the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rules: Option<Vec<String>>,
    /// File of rules, one on each line; it is read again when it changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// A server that has rules for each client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<AclHttpConfig>,
}

/// `[acl.http]`: a server that is asked for a client's rules.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AclHttpConfig {
    /// Where.
    pub url: String,
    /// Headers of each request.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, Secret>,
    /// Longest time for a request and its answer. Default 5 s, range 100 ms to 60 s.
    #[serde(default = "AclHttpConfig::default_timeout")]
    pub timeout: Period,
    /// Requests at a time. Default 32, range 1 to 1,024.
    #[serde(default = "AclHttpConfig::default_concurrency")]
    pub concurrency: u16,
    /// Age at which a client's rules are asked for again. Default 5 min, range 1 s to 1 day.
    #[serde(default = "AclHttpConfig::default_refresh")]
    pub refresh: Period,
    /// Age past which they serve no longer. Default 1 h, range twice `refresh` to 30 days.
    #[serde(default = "AclHttpConfig::default_max_age")]
    pub max_age: Period,
    /// Clients whose rules are known at a time. Default 100,000, range 1 to 10,000,000.
    #[serde(default = "AclHttpConfig::default_max_clients")]
    pub max_clients: u32,
    /// CA certificates (PEM) of the server, instead of the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// Whether plain HTTP is fine beyond this machine. Default: false.
    #[serde(default)]
    pub insecure_http: bool,
}

impl AclHttpConfig {
    /// The defaults, of a server there.
    pub(super) fn at(url: String) -> Self {
        Self {
            url,
            headers: BTreeMap::new(),
            timeout: Self::default_timeout(),
            concurrency: Self::default_concurrency(),
            refresh: Self::default_refresh(),
            max_age: Self::default_max_age(),
            max_clients: Self::default_max_clients(),
            ca: None,
            insecure_http: false,
        }
    }

    fn default_timeout() -> Period {
        Period::secs(5)
    }

    fn default_concurrency() -> u16 {
        32
    }

    fn default_refresh() -> Period {
        Period::secs(300)
    }

    fn default_max_age() -> Period {
        Period::secs(3_600)
    }

    fn default_max_clients() -> u32 {
        100_000
    }

    /// As the `access` crate takes it.
    pub fn settings(&self, guard: Guard) -> HttpRulesSettings {
        let headers = self.headers.iter().map(|(name, value)| (name.clone(), value.expose().to_owned()));
        HttpRulesSettings {
            endpoint: EndpointSettings {
                url: self.url.clone(),
                ca: self.ca.clone(),
                insecure_http: self.insecure_http,
                timeout: self.timeout.as_duration(),
                guard: Some(guard),
            },
            headers: headers.collect(),
            requests: usize::from(self.concurrency),
            refresh: self.refresh.as_duration(),
            max_age: self.max_age.as_duration(),
            clients_max: usize::try_from(self.max_clients).unwrap_or(usize::MAX),
        }
    }
}

impl AclConfig {
    /// Every path in it.
    pub(super) fn paths_mut(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let ca = self.http.as_mut().and_then(|http| http.ca.as_mut());
        self.file.iter_mut().chain(ca)
    }
}
