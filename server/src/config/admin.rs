//! `[admin]`: the interface of administration.

use std::collections::HashSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};

use super::listeners::ListenerTls;
use crate::api::{Digest, Role, is_name, is_scope};

/// The administration listener.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Admin {
    /// Whether it is opened. Default: true.
    pub enabled: bool,
    /// IP address and port; port 0 lets the system choose one. Default 127.0.0.1:7080.
    #[schemars(with = "super::schema::Address")]
    #[serde(deserialize_with = "super::model::address")]
    pub address: SocketAddr,
    /// Names by which it is reached, beside IP addresses and `localhost`. Default: none.
    #[schemars(length(max = HOSTS_MAX))]
    pub hosts: Vec<String>,
    /// Whether nothing may be changed through it. Default: false.
    pub read_only: bool,
    /// Its certificate, as a listener's. Default: none; then it speaks HTTP without TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<ListenerTls>,
    /// People who may sign in. Default: none; then a setup token makes the first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = DECLARED_MAX))]
    pub users: Vec<AdminUser>,
    /// Tokens of programs. Default: none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = DECLARED_MAX))]
    pub tokens: Vec<AdminToken>,
}

/// Somebody who may sign in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AdminUser {
    /// Unique name: letters, digits, `.`, `_`, `-` and `@`, at most 64.
    #[schemars(regex(pattern = super::schema::USER_NAME))]
    pub name: String,
    /// What the user may do.
    pub role: Role,
    /// The password's Argon2id hash, as in the lines that `tidegate passwd` writes, behind the colon.
    pub password_hash: HiddenText,
}

/// A token of a program.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AdminToken {
    /// Unique name: letters, digits, `.`, `_`, `-` and `@`, at most 64.
    #[schemars(regex(pattern = super::schema::USER_NAME))]
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// What it is held to, as in `clients:read`. Default: whatever its role may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scopes: Option<Vec<String>>,
    /// SHA-256 of the token, 64 hexadecimal digits.
    #[schemars(regex(pattern = "^[0-9A-Fa-f]{64}$"))]
    pub sha256: HiddenText,
}

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct HiddenText(String);

impl HiddenText {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for HiddenText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Serialize for HiddenText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("(secret)")
    }
}

/// Most names in `hosts`.
pub(super) const HOSTS_MAX: usize = 64;
/// Most users, and most tokens, that a configuration declares.
pub(super) const DECLARED_MAX: usize = 100;

impl Default for Admin {
    fn default() -> Self {
        Self {
            enabled: true,
            address: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7080),
            hosts: Vec::new(),
            read_only: false,
            tls: None,
            users: Vec::new(),
            tokens: Vec::new(),
        }
    }
}

impl Admin {
    /// What is wrong with it: the key, and in what way.
    pub(super) fn faults(&self) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        if self.hosts.len() > HOSTS_MAX {
            let count = self.hosts.len();
            faults.push(("hosts", format!("admin.hosts has {count} names, must be at most {HOSTS_MAX}")));
        }
        let is_host = |host: &str| {
            let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
            !host.is_empty() && host.len() <= 253 && host.bytes().all(allowed)
        };
        for host in self.hosts.iter().filter(|host| !is_host(host)) {
            let fault = format!("admin.hosts: \"{host}\" is no name of a host: expected one without a port");
            faults.push(("hosts", fault));
        }
        names("users", self.users.iter().map(|user| &user.name), &mut faults);
        names("tokens", self.tokens.iter().map(|token| &token.name), &mut faults);
        for user in &self.users {
            if !access::authentication::is_argon2id(user.password_hash.as_str()) {
                let name = &user.name;
                faults.push(("users", format!("admin.users \"{name}\": password_hash is no Argon2id hash")));
            }
        }
        for AdminToken { name, scopes, sha256, .. } in &self.tokens {
            if Digest::from_hex(sha256.as_str()).is_none() {
                let fault =
                    format!("admin.tokens \"{name}\": sha256 is expected to have 64 hexadecimal digits");
                faults.push(("tokens", fault));
            }
            for scope in scopes.iter().flatten().filter(|scope| !is_scope(scope)) {
                faults.push(("tokens", format!("admin.tokens \"{name}\": \"{scope}\" is no scope")));
            }
        }
        faults
    }
}

fn names<'a>(
    key: &'static str,
    names: impl Iterator<Item = &'a String>,
    faults: &mut Vec<(&'static str, String)>,
) {
    let mut seen = HashSet::new();
    let names: Vec<_> = names.collect();
    if names.len() > DECLARED_MAX {
        let count = names.len();
        faults.push((key, format!("admin.{key} has {count} entries, must be at most {DECLARED_MAX}")));
    }
    for name in names {
        if !is_name(name) {
            let fault = format!(
                "admin.{key}: \"{name}\" is no name: expected letters, digits, `.`, `_`, `-` and `@`, at most 64"
            );
            faults.push((key, fault));
        } else if !seen.insert(name) {
            faults.push((key, format!("admin.{key}: two are named \"{name}\"")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admin(text: &str) -> Admin {
        toml::from_str(text).unwrap()
    }

    const HASH: &str =
        "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTI";

    fn faults(text: &str) -> String {
        admin(text).faults().into_iter().map(|(key, fault)| format!("{key}: {fault}\n")).collect()
    }

    #[test]
    fn what_may_be_declared_has_no_faults() {
        let sha256 = "a".repeat(64);
        let text = format!(
            "hosts = ['gw.example', 'gw-1']\n\
             [[users]]\nname = 'ada@example'\nrole = 'admin'\npassword_hash = '{HASH}'\n\
             [[tokens]]\nname = 'ci'\nrole = 'viewer'\nscopes = ['clients:read']\nsha256 = '{sha256}'\n"
        );
        assert_eq!(faults(&text), "");
    }

    #[test]
    fn what_may_not_is_named_and_its_secret_is_not() {
        for (text, expected) in [
            ("hosts = ['gw:80']", "no name of a host"),
            ("hosts = ['']", "no name of a host"),
            ("users = [{ name = 'a b', role = 'viewer', password_hash = 'canary' }]", "\"a b\" is no name"),
            ("users = [{ name = 'ada', role = 'viewer', password_hash = 'canary' }]", "no Argon2id hash"),
            ("tokens = [{ name = 'ci', role = 'viewer', sha256 = 'canary' }]", "64 hexadecimal digits"),
            (
                "tokens = [{ name = 'ci', role = 'viewer', sha256 = '', scopes = ['clients:all'] }]",
                "\"clients:all\" is no scope",
            ),
        ] {
            let found = faults(text);
            assert!(found.contains(expected) && !found.contains("canary"), "{text}: {found}");
            assert!(!format!("{:?}", admin(text)).contains("canary"));
        }
        let twice = format!("{{ name = 'ada', role = 'viewer', password_hash = '{HASH}' }}");
        assert!(faults(&format!("users = [{twice}, {twice}]")).contains("two are named \"ada\""));
        assert!(
            toml::from_str::<Admin>("users = [{ name = 'a', role = 'root', password_hash = '' }]").is_err()
        );
    }

    #[test]
    fn as_many_as_the_limits_and_no_more() {
        let hosts = |count: usize| Admin {
            hosts: (0..count).map(|number| format!("h{number}")).collect(),
            ..Admin::default()
        };
        assert!(hosts(HOSTS_MAX).faults().is_empty());
        assert_eq!(hosts(HOSTS_MAX + 1).faults().len(), 1);
        let tokens = |count: usize| Admin {
            tokens: (0..count)
                .map(|number| AdminToken {
                    name: format!("t{number}"),
                    role: Role::Viewer,
                    scopes: None,
                    sha256: HiddenText("0".repeat(64)),
                })
                .collect(),
            ..Admin::default()
        };
        assert!(tokens(DECLARED_MAX).faults().is_empty());
        assert_eq!(tokens(DECLARED_MAX + 1).faults().len(), 1);
    }
}
