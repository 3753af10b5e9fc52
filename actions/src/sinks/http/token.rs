//! Access tokens by client credentials (RFC 6749 section 4.4), kept until shortly before they expire.
//!
//! One source per connector, shared by its actions: one of them fetches, the others wait for what it gets. The endpoint is
//! guarded as every target is, its answer is bounded, and nothing of it is repeated but the error's code.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::StatusCode;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use rustls::ClientConfig;
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::Instant;
use url::{Url, form_urlencoded};

use super::auth::{AuthConfig, ClientAuth, required, sensitive};
use super::client::{self, ClientSettings, ProxySettings, classify};
use super::config::Redirect;
use super::hosts::{Origin, Shape, shape};
use crate::connectors::{Fault, tls};
use crate::delivery::DeliveryError;
use crate::targets::TargetPolicy;
use crate::text::excerpt;

/// Longest time to make a connection to the endpoint.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest time for the whole of a fetch.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Largest answer in bytes.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// How long a token is used whose life the endpoint doesn't tell.
const UNTOLD_LIFE: Duration = Duration::from_secs(300);
/// Longest time for which a token is used, whatever the endpoint says.
const LIFE_MAX: Duration = Duration::from_secs(86_400);
/// Most time before its end at which a token is used no more; a tenth of its life where that is less.
const MARGIN_MAX: Duration = Duration::from_secs(60);

/// Makes tokens for the requests of one connector.
pub(super) struct TokenSource {
    client: reqwest::Client,
    url: Url,
    origin: Origin,
    targets: Arc<TargetPolicy>,
    proxy: Option<ProxySettings>,
    authorization: Option<HeaderValue>,
    form: String,
    /// Held while a token is fetched, so that one fetch serves all who wait.
    token: Mutex<Option<Token>>,
}

/// A token in use.
#[derive(Clone)]
pub(super) struct Token {
    /// For the Authorization header.
    pub(super) value: HeaderValue,
    used_until: Instant,
}

impl TokenSource {
    /// Checks settings without making a client.
    pub(super) fn check(config: &AuthConfig) -> Result<(), Fault> {
        Self::endpoint(config)?;
        required("auth.client_id", config.client_id.as_ref())?;
        required("auth.client_secret", config.client_secret.as_ref())?;
        let reserved = ["grant_type", "scope", "client_id", "client_secret"];
        if let Some(name) = config
            .params
            .iter()
            .flatten()
            .map(|(name, _)| name)
            .find(|name| reserved.contains(&name.as_str()))
        {
            return Err(Fault::new("auth.params", format!("{name} has a key of its own")));
        }
        if config.scopes.iter().flatten().any(|scope| scope.is_empty() || scope.contains(char::is_whitespace))
        {
            return Err(Fault::new("auth.scopes", "expected words without spaces"));
        }
        Ok(())
    }

    fn endpoint(config: &AuthConfig) -> Result<(Url, Origin), Fault> {
        let text = required("auth.token_url", config.token_url.as_ref())?;
        let fault = |problem: String| Fault::new("auth.token_url", problem);
        let Shape::Literal(origin) = shape(text).map_err(fault)? else {
            return Err(fault("expected http:// or https:// and a literal host".to_owned()));
        };
        let url = Url::parse(text).map_err(|error| fault(format!("expected a URL: {error}")))?;
        Ok((url, origin))
    }

    pub(super) fn new(
        config: &AuthConfig,
        targets: Arc<TargetPolicy>,
        tls: Option<ClientConfig>,
        proxy: Option<ProxySettings>,
    ) -> Result<Self, Fault> {
        Self::check(config)?;
        let (url, origin) = Self::endpoint(config)?;
        let client_id = required("auth.client_id", config.client_id.as_ref())?;
        let client_secret = required("auth.client_secret", config.client_secret.as_ref())?.expose();
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "client_credentials");
        if let Some(scopes) = &config.scopes {
            form.append_pair("scope", &scopes.join(" "));
        }
        for (name, value) in config.params.iter().flatten() {
            form.append_pair(name, value.expose());
        }
        let authorization = match config.client_auth.unwrap_or_default() {
            ClientAuth::Basic => {
                let encoded =
                    |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
                let pair = format!("{}:{}", encoded(client_id), encoded(client_secret));
                Some(sensitive("auth.client_secret", &format!("Basic {}", STANDARD.encode(pair)))?)
            }
            ClientAuth::Body => {
                form.append_pair("client_id", client_id).append_pair("client_secret", client_secret);
                None
            }
        };
        let fault = |problem: String| Fault::new("auth.token_url", problem);
        let tls = match tls {
            Some(tls) => tls,
            None => tls::platform(&origin.scheme).map_err(|error| fault(tls_text(&error)))?,
        };
        let settings = ClientSettings {
            targets: &targets,
            port: origin.port,
            tls,
            proxy: proxy.as_ref(),
            connect_timeout: CONNECT_TIMEOUT,
            redirect: Redirect::None,
            idle_max: 1,
        };
        let client = client::build(settings).map_err(fault)?;
        let form = form.finish();
        Ok(Self { client, url, origin, targets, proxy, authorization, form, token: Mutex::default() })
    }

    /// A token that isn't `refused`, which the far side has just turned down.
    ///
    /// # Errors
    /// [`DeliveryError::NoCredentials`] when the endpoint refuses us, [`DeliveryError::Forbidden`] when its address isn't
    /// allowed, otherwise [`DeliveryError::Unreachable`]: nothing has reached the far side.
    pub(super) async fn token(&self, refused: Option<&Token>) -> Result<Token, DeliveryError> {
        let mut kept = self.token.lock().await;
        if let Some(token) = &*kept
            && token.used_until > Instant::now()
            && refused.is_none_or(|refused| refused.value != token.value)
        {
            return Ok(token.clone());
        }
        *kept = None;
        let token = tokio::time::timeout(TIMEOUT, self.fetch())
            .await
            .unwrap_or_else(|_| Err(unreachable(format!("no answer within {TIMEOUT:?}"))))?;
        *kept = Some(token.clone());
        Ok(token)
    }

    async fn fetch(&self) -> Result<Token, DeliveryError> {
        client::judge_host(&self.targets, self.proxy.is_some(), &self.origin)?;
        let mut request = self
            .client
            .post(self.url.clone())
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(reqwest::header::ACCEPT, "application/json")
            .body(self.form.clone());
        if let Some(value) = &self.authorization {
            request = request.header(AUTHORIZATION, value.clone());
        }
        let asked_at = Instant::now();
        let mut answer = request.send().await.map_err(|error| match classify(error) {
            DeliveryError::Forbidden(target) => DeliveryError::Forbidden(target),
            other => unreachable(other.to_string()),
        })?;
        let status = answer.status();
        let mut body = Vec::new();
        while let Some(chunk) =
            answer.chunk().await.map_err(|error| unreachable(classify(error).to_string()))?
        {
            if body.len().saturating_add(chunk.len()) > ANSWER_BYTES_MAX {
                return Err(unreachable(format!(
                    "an answer larger than the limit of {ANSWER_BYTES_MAX} bytes"
                )));
            }
            body.extend_from_slice(&chunk);
        }
        if !status.is_success() {
            return Err(refusal(status, &body));
        }
        let answer: TokenAnswer = serde_json::from_slice(&body)
            .map_err(|_| unreachable("the answer holds no access token".to_owned()))?;
        if !answer.token_type.is_none_or(|kind| kind.eq_ignore_ascii_case("bearer")) {
            return Err(unreachable("the token's type isn't Bearer".to_owned()));
        }
        let mut value = HeaderValue::from_str(&format!("Bearer {}", answer.access_token))
            .map_err(|_| unreachable("the access token doesn't fit a header".to_owned()))?;
        value.set_sensitive(true);
        Ok(Token { value, used_until: asked_at + used_for(answer.expires_in) })
    }
}

/// How long a token is used that expires in so many seconds.
fn used_for(expires_in: Option<Seconds>) -> Duration {
    let life = expires_in.and_then(Seconds::duration).unwrap_or(UNTOLD_LIFE).min(LIFE_MAX);
    life - MARGIN_MAX.min(life / 10)
}

/// A successful answer (RFC 6749 section 5.1).
#[derive(Deserialize)]
struct TokenAnswer {
    access_token: String,
    token_type: Option<String>,
    expires_in: Option<Seconds>,
}

/// A number, which some servers write as text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Seconds {
    Number(f64),
    Text(String),
}

impl Seconds {
    fn duration(self) -> Option<Duration> {
        let seconds = match self {
            Self::Number(number) => number,
            Self::Text(text) => text.parse().ok()?,
        };
        // More than fits is as long as it may be.
        (seconds >= 0.0).then(|| Duration::try_from_secs_f64(seconds).unwrap_or(LIFE_MAX))
    }
}

/// An answer that says no (RFC 6749 section 5.2).
#[derive(Deserialize)]
struct ErrorAnswer {
    error: String,
}

fn refusal(status: StatusCode, body: &[u8]) -> DeliveryError {
    let code = serde_json::from_slice::<ErrorAnswer>(body).map(|answer| excerpt(answer.error.as_bytes(), 40));
    let code = code.map(|code| format!(" ({code})")).unwrap_or_default();
    let cause = format!("the token endpoint answered {}{code}", status.as_u16());
    match status {
        StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            DeliveryError::NoCredentials { cause }
        }
        _ => DeliveryError::Unreachable { cause },
    }
}

fn unreachable(cause: String) -> DeliveryError {
    DeliveryError::Unreachable { cause: format!("token endpoint: {cause}") }
}

pub(super) fn tls_text(error: &rustls::Error) -> String {
    format!("TLS can't be set up: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_used_until_shortly_before_it_expires() {
        let seconds = |json: &str| used_for(Some(serde_json::from_str(json).unwrap())).as_secs();
        assert_eq!(used_for(None).as_secs(), 270);
        for (json, expected) in [
            ("0", 0),
            ("10", 9),
            ("600", 540),
            ("3600", 3_540),
            ("\"3600\"", 3_540),
            ("3600.0", 3_540),
            ("-5", 270),
            ("\"soon\"", 270),
            ("1e300", 86_340),
        ] {
            assert_eq!(seconds(json), expected, "{json}");
        }
    }
}
