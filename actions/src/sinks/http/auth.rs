//! How requests say who sends them.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use ring::hmac;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::connector::is_free_header;
use super::token::TokenSource;
use crate::connectors::Fault;
use crate::secret::Secret;

/// `auth = { type = "…" }` of a connector. Each type takes keys of its own; one table holds them all, so that a fault is
/// told with its place.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AuthConfig {
    /// How.
    #[serde(rename = "type")]
    pub kind: AuthKind,
    /// `basic`: the user name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// `basic`: the password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// `bearer`: the token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<Secret>,
    /// `oauth2`: where tokens are made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_url: Option<String>,
    /// `oauth2`: who we are there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// `oauth2`: what proves it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_secret: Option<Secret>,
    /// `oauth2`: how the two are shown. Default `basic`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_auth: Option<ClientAuth>,
    /// `oauth2`: what is asked for. Default: what the server gives by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scopes: Option<Vec<String>>,
    /// `oauth2`: further parameters of the request for a token, `audience` for instance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub params: Option<BTreeMap<String, Secret>>,
    /// `hmac`: the key. With `whsec_` in front what follows is base64, otherwise the text's bytes are the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<Secret>,
    /// `hmac`: what is signed and how it is written. Default `standard_webhooks`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<HmacFormat>,
    /// `hmac`: the hash function. Default `sha256`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<HmacAlgorithm>,
    /// `hmac` with format `body`: the header of the signature. Default `X-Signature`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
    /// `hmac` with format `body`: the header of the time, which is then signed too. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestamp_header: Option<String>,
}

/// How requests say who sends them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum AuthKind {
    /// User name and password (RFC 7617).
    Basic,
    /// A fixed token (RFC 6750).
    Bearer,
    /// Tokens that are fetched with client credentials (RFC 6749 section 4.4).
    Oauth2,
    /// A signature of the body.
    Hmac,
}

/// How a client shows its credentials where tokens are made (RFC 6749 section 2.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClientAuth {
    /// In the Authorization header.
    #[default]
    Basic,
    /// In the body.
    Body,
}

/// What is signed and how the signature is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HmacFormat {
    /// As the Standard Webhooks specification has it: `webhook-id`, `webhook-timestamp` and `webhook-signature`, over
    /// `id.timestamp.body`.
    #[default]
    StandardWebhooks,
    /// One header, `sha256=` and hexadecimal digits, over the body, or over `timestamp.body`.
    Body,
}

/// The hash function of a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HmacAlgorithm {
    /// SHA-256.
    #[default]
    Sha256,
    /// SHA-512.
    Sha512,
}

impl AuthConfig {
    /// Keys that are given, with the type that they belong to.
    fn given(&self) -> [(&'static str, AuthKind, bool); 14] {
        use AuthKind::{Basic, Bearer, Hmac, Oauth2};
        [
            ("username", Basic, self.username.is_some()),
            ("password", Basic, self.password.is_some()),
            ("token", Bearer, self.token.is_some()),
            ("token_url", Oauth2, self.token_url.is_some()),
            ("client_id", Oauth2, self.client_id.is_some()),
            ("client_secret", Oauth2, self.client_secret.is_some()),
            ("client_auth", Oauth2, self.client_auth.is_some()),
            ("scopes", Oauth2, self.scopes.is_some()),
            ("params", Oauth2, self.params.is_some()),
            ("secret", Hmac, self.secret.is_some()),
            ("format", Hmac, self.format.is_some()),
            ("algorithm", Hmac, self.algorithm.is_some()),
            ("header", Hmac, self.header.is_some()),
            ("timestamp_header", Hmac, self.timestamp_header.is_some()),
        ]
    }

    pub(super) fn check(&self) -> Result<(), Fault> {
        if let Some((key, kind, _)) =
            self.given().into_iter().find(|(_, kind, given)| *given && *kind != self.kind)
        {
            return Err(Fault::new(format!("auth.{key}"), format!("belongs to type = \"{}\"", kind.name())));
        }
        match self.kind {
            AuthKind::Basic => self.basic().map(drop),
            AuthKind::Bearer => self.bearer().map(drop),
            AuthKind::Oauth2 => TokenSource::check(self),
            AuthKind::Hmac => Signer::new(self).map(drop),
        }
    }

    fn basic(&self) -> Result<HeaderValue, Fault> {
        let username = required("auth.username", self.username.as_ref())?;
        let password = required("auth.password", self.password.as_ref())?.expose();
        if username.contains(':') {
            return Err(Fault::new("auth.username", "a user name can't hold a colon (RFC 7617)"));
        }
        sensitive("auth.password", &basic_value(username, password))
    }

    fn bearer(&self) -> Result<HeaderValue, Fault> {
        let token = required("auth.token", self.token.as_ref())?.expose();
        if token.is_empty() {
            return Err(Fault::new("auth.token", "is empty"));
        }
        sensitive("auth.token", &format!("Bearer {token}"))
    }
}

impl AuthKind {
    const fn name(self) -> &'static str {
        match self {
            Self::Basic => "basic",
            Self::Bearer => "bearer",
            Self::Oauth2 => "oauth2",
            Self::Hmac => "hmac",
        }
    }
}

pub(super) fn required<'v, T>(field: &str, value: Option<&'v T>) -> Result<&'v T, Fault> {
    value.ok_or_else(|| Fault::new(field, "is missing"))
}

/// The value of an Authorization header with user name and password.
pub(super) fn basic_value(username: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{username}:{password}")))
}

pub(super) fn sensitive(field: &str, text: &str) -> Result<HeaderValue, Fault> {
    let mut value = HeaderValue::from_str(text).map_err(|_| {
        Fault::new(field, "holds characters that a header can't hold; the value is not shown")
    })?;
    value.set_sensitive(true);
    Ok(value)
}

/// What a request is given on its way out.
pub(super) enum Auth {
    None,
    /// A fixed Authorization header.
    Fixed(HeaderValue),
    Token(TokenSource),
    Signature(Signer),
}

impl Auth {
    pub(super) fn new(
        config: &AuthConfig,
        tokens: impl FnOnce() -> Result<TokenSource, Fault>,
    ) -> Result<Self, Fault> {
        Ok(match config.kind {
            AuthKind::Basic => Self::Fixed(config.basic()?),
            AuthKind::Bearer => Self::Fixed(config.bearer()?),
            AuthKind::Oauth2 => Self::Token(tokens()?),
            AuthKind::Hmac => Self::Signature(Signer::new(config)?),
        })
    }

    /// The headers that it sets, which no action may set then.
    pub(super) fn headers(&self) -> impl Iterator<Item = &str> {
        let (fixed, signer) = match self {
            Self::None => (None, None),
            Self::Fixed(_) | Self::Token(_) => (Some(AUTHORIZATION.as_str()), None),
            Self::Signature(signer) => (None, Some(signer)),
        };
        fixed.into_iter().chain(signer.into_iter().flat_map(Signer::headers))
    }
}

const WEBHOOK_ID: &str = "webhook-id";
const WEBHOOK_TIMESTAMP: &str = "webhook-timestamp";
const WEBHOOK_SIGNATURE: &str = "webhook-signature";
/// Announces that a key is written in base64 (Standard Webhooks).
const BASE64_KEY: &str = "whsec_";

/// Signs bodies.
pub(super) struct Signer {
    key: hmac::Key,
    algorithm: HmacAlgorithm,
    written: Written,
}

enum Written {
    StandardWebhooks,
    Body { header: HeaderName, timestamp_header: Option<HeaderName> },
}

impl Signer {
    fn new(config: &AuthConfig) -> Result<Self, Fault> {
        let secret = required("auth.secret", config.secret.as_ref())?.expose();
        let key = match secret.strip_prefix(BASE64_KEY) {
            Some(base64) => STANDARD.decode(base64).map_err(|_| {
                Fault::new("auth.secret", "expected base64 behind \"whsec_\"; the value is not shown")
            })?,
            None => secret.as_bytes().to_vec(),
        };
        if key.is_empty() {
            return Err(Fault::new("auth.secret", "is empty"));
        }
        let algorithm = config.algorithm.unwrap_or_default();
        let header = |field: &str, name: &str| {
            let free = is_free_header(name).then(|| HeaderName::from_bytes(name.as_bytes()).ok()).flatten();
            free.ok_or_else(|| {
                Fault::new(field, "expected the name of a header that the HTTP client doesn't set itself")
            })
        };
        let written = match config.format.unwrap_or_default() {
            HmacFormat::StandardWebhooks => {
                if algorithm != HmacAlgorithm::Sha256 {
                    return Err(Fault::new("auth.algorithm", "Standard Webhooks signs with sha256"));
                }
                for (field, given) in
                    [("header", &config.header), ("timestamp_header", &config.timestamp_header)]
                {
                    if given.is_some() {
                        return Err(Fault::new(format!("auth.{field}"), "belongs to format = \"body\""));
                    }
                }
                Written::StandardWebhooks
            }
            HmacFormat::Body => Written::Body {
                header: header("auth.header", config.header.as_deref().unwrap_or("x-signature"))?,
                timestamp_header: config
                    .timestamp_header
                    .as_deref()
                    .map(|name| header("auth.timestamp_header", name))
                    .transpose()?,
            },
        };
        let key = match algorithm {
            HmacAlgorithm::Sha256 => hmac::Key::new(hmac::HMAC_SHA256, &key),
            HmacAlgorithm::Sha512 => hmac::Key::new(hmac::HMAC_SHA512, &key),
        };
        Ok(Self { key, algorithm, written })
    }

    fn headers(&self) -> impl Iterator<Item = &str> {
        let names = match &self.written {
            Written::StandardWebhooks => [Some(WEBHOOK_ID), Some(WEBHOOK_TIMESTAMP), Some(WEBHOOK_SIGNATURE)],
            Written::Body { header, timestamp_header } => {
                [Some(header.as_str()), timestamp_header.as_ref().map(HeaderName::as_str), None]
            }
        };
        names.into_iter().flatten()
    }

    /// Sets the headers of a request with this identity and body.
    pub(super) fn sign(&self, id: &str, body: &[u8], now: SystemTime, headers: &mut HeaderMap) {
        let seconds = now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs().to_string();
        let mut set = |name: HeaderName, value: &str| {
            // Digits, base64 and our own identities always fit.
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(name, value);
            }
        };
        match &self.written {
            Written::StandardWebhooks => {
                let signature = self.signature(&[id.as_bytes(), b".", seconds.as_bytes(), b".", body]);
                set(HeaderName::from_static(WEBHOOK_ID), id);
                set(HeaderName::from_static(WEBHOOK_TIMESTAMP), &seconds);
                set(
                    HeaderName::from_static(WEBHOOK_SIGNATURE),
                    &format!("v1,{}", STANDARD.encode(signature)),
                );
            }
            Written::Body { header, timestamp_header } => {
                let signature = match timestamp_header {
                    Some(name) => {
                        set(name.clone(), &seconds);
                        self.signature(&[seconds.as_bytes(), b".", body])
                    }
                    None => self.signature(&[body]),
                };
                let algorithm = match self.algorithm {
                    HmacAlgorithm::Sha256 => "sha256",
                    HmacAlgorithm::Sha512 => "sha512",
                };
                let digits: String = signature.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
                set(header.clone(), &format!("{algorithm}={digits}"));
            }
        }
    }

    fn signature(&self, parts: &[&[u8]]) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.key);
        parts.iter().for_each(|part| context.update(part));
        context.sign()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed(text: &str, id: &str, body: &[u8], seconds: u64) -> HeaderMap {
        let config: AuthConfig = toml::from_str(&format!("type = 'hmac'\n{text}")).unwrap();
        let mut headers = HeaderMap::new();
        let now = UNIX_EPOCH + Duration::from_secs(seconds);
        Signer::new(&config).unwrap().sign(id, body, now, &mut headers);
        headers
    }

    /// The example of the Standard Webhooks reference libraries.
    #[test]
    fn signs_as_standard_webhooks_does() {
        let headers = signed(
            "secret = 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw'",
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            br#"{"test": 2432232314}"#,
            1_614_265_330,
        );
        assert_eq!(headers["webhook-id"], "msg_p5jXN8AQM9LWM0D4loKWxJek");
        assert_eq!(headers["webhook-timestamp"], "1614265330");
        assert_eq!(headers["webhook-signature"], "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    /// RFC 4231, test case 2.
    #[test]
    fn signs_the_body_alone_with_either_hash_function() {
        let body = b"what do ya want for nothing?";
        let headers = signed("secret = 'Jefe'\nformat = 'body'", "x", body, 1);
        assert_eq!(headers.len(), 1);
        assert_eq!(
            headers["x-signature"],
            "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
        let headers =
            signed("secret = 'Jefe'\nformat = 'body'\nalgorithm = 'sha512'\nheader = 'X-Hub'", "x", body, 1);
        assert_eq!(
            headers["x-hub"],
            "sha512=164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea2505549758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737"
        );
    }

    #[test]
    fn a_signature_covers_the_time_where_there_is_a_header_for_it() {
        let text = "secret = 'k'\nformat = 'body'\ntimestamp_header = 'X-Time'";
        let one = signed(text, "x", b"b", 1);
        assert_eq!(one["x-time"], "1");
        assert_ne!(one["x-signature"], signed(text, "x", b"b", 2)["x-signature"]);
        assert_eq!(
            one["x-signature"],
            signed("secret = 'k'\nformat = 'body'", "x", b"1.b", 9)["x-signature"]
        );
    }
}
