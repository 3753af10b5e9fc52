//! Asking a server of the operator's: credentials go out as JSON, a verdict comes back.
//!
//! The answers are those that EMQX's HTTP authenticator takes, with one difference: what isn't an answer (another status, text
//! that isn't understood, none in time) denies. Requests at a time are bounded, and a verdict is remembered for as long as the operator
//! allows, without the credentials.

use std::sync::Arc;
use std::time::Duration;

use mqtt_protocol::ProtocolVersion;
use serde::Deserialize;
use serde_json::{Value, json};

use super::asker::{Asker, AskerError};
use super::cache::{Cache, Tag};
use super::fetch::EndpointSettings;
use super::verifier::HashError;
use super::{Attempt, Denial, Identity, Outcome};

/// Largest answer, in bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Verdicts that are remembered.
const CACHED_MAX: usize = 10_000;
/// What is told when the server begins to give no verdicts, and when it is over.
const TOLD: [&str; 2] = [
    "the authentication server gives no verdict: clients are refused",
    "the authentication server gives verdicts again",
];
/// Most groups of an answer, and longest name of one, in bytes.
const GROUPS_MAX: usize = 256;
const GROUP_BYTES_MAX: usize = 1024;

/// Why the server can't be asked as configured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HttpError {
    /// The URL, its trust or a header can't be used.
    #[error(transparent)]
    Asker(AskerError),
    /// Verdicts can't be remembered.
    #[error("verdicts can't be remembered")]
    Cache(#[source] HashError),
}

/// Whom to ask and how.
#[derive(Clone)]
pub struct HttpSettings {
    /// The server.
    pub endpoint: EndpointSettings,
    /// Headers of each request; their values may be secrets.
    pub headers: Vec<(String, String)>,
    /// Requests at a time.
    pub requests: usize,
    /// How long a client that was let in comes in again without a request; zero: never.
    pub cached_for: Duration,
}

impl std::fmt::Debug for HttpSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpSettings").field("requests", &self.requests).finish_non_exhaustive()
    }
}

/// See the module.
pub struct Http {
    asker: Asker,
    cached_for: Duration,
    cache: Cache<Arc<Identity>>,
}

impl std::fmt::Debug for Http {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Http").field("asker", &self.asker).finish_non_exhaustive()
    }
}

/// What the server says. What it says beside is left alone.
#[derive(Deserialize)]
struct Answer {
    result: Verdict,
    #[serde(default)]
    groups: Vec<String>,
    #[serde(default)]
    acl: Option<Value>,
    /// Seconds since the epoch. EMQX writes `expire_at`.
    #[serde(default, alias = "expire_at")]
    expires_at: Option<i64>,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Allow,
    Deny,
    Ignore,
}

impl Http {
    /// Makes one.
    ///
    /// # Errors
    /// [`HttpError`].
    pub fn new(settings: &HttpSettings) -> Result<Self, HttpError> {
        let HttpSettings { endpoint, headers, requests, cached_for: _ } = settings;
        Ok(Self {
            asker: Asker::new(endpoint, headers, *requests, TOLD).map_err(HttpError::Asker)?,
            cached_for: settings.cached_for,
            cache: Cache::new(CACHED_MAX).map_err(HttpError::Cache)?,
        })
    }

    pub(crate) async fn authenticate(&self, attempt: &Attempt) -> Outcome {
        if attempt.username.is_none() && attempt.password.is_none() {
            return Outcome::Ignore;
        }
        let tag = self.tag(attempt);
        if let Some(identity) = self.cache.find(&tag) {
            return Outcome::Allow(Identity::clone(&identity), None);
        }
        let Some(request) = request(attempt) else {
            return Outcome::Deny(Denial::BadCredentials, "the password is no text".into());
        };
        match self.ask(request.to_string().into_bytes()).await {
            Ok(None) => Outcome::Allow(self.known(attempt, tag, Identity::default()), None),
            Ok(Some(answer)) => match answer.result {
                Verdict::Ignore => Outcome::Ignore,
                Verdict::Deny => Outcome::Deny(Denial::BadCredentials, "the server denies".into()),
                Verdict::Allow => match identity(answer) {
                    Some(identity) => Outcome::Allow(self.known(attempt, tag, identity), None),
                    None => Outcome::Deny(Denial::Unavailable, "the server's groups are no names".into()),
                },
            },
            Err(why) => Outcome::Deny(Denial::Unavailable, why.into()),
        }
    }

    /// The client as it is known now, and for a while.
    fn known(&self, attempt: &Attempt, tag: Tag, identity: Identity) -> Identity {
        let identity = Identity { username: attempt.username.clone(), ..identity };
        self.cache.keep(tag, Arc::new(identity.clone()), self.cached_for);
        identity
    }

    /// Asks; nothing in the answer means yes.
    async fn ask(&self, body: Vec<u8>) -> Result<Option<Answer>, String> {
        let read = |answer: Vec<u8>| {
            if answer.is_empty() {
                return Ok(None);
            }
            // What it says may repeat what it was sent, so nothing of it is told.
            let read = serde_json::from_slice(&answer).map(Some);
            read.map_err(|_| "the server's answer is not understood".to_owned())
        };
        self.asker.ask(body, ANSWER_BYTES_MAX, read).await
    }

    fn tag(&self, attempt: &Attempt) -> Tag {
        let address = attempt.address.map(|address| address.to_string()).unwrap_or_default();
        let flags = [u8::from(attempt.username.is_some()), u8::from(attempt.password.is_some())];
        self.cache.tag(&[
            attempt.client_id.as_bytes(),
            attempt.username.as_deref().unwrap_or_default().as_bytes(),
            attempt.password.as_deref().unwrap_or_default(),
            address.as_bytes(),
            attempt.listener.as_bytes(),
            version(attempt.version).as_bytes(),
            &flags,
        ])
    }
}

/// What goes out; `None`: the password can't be said in JSON.
fn request(attempt: &Attempt) -> Option<Value> {
    let password = attempt.password.as_deref().map(std::str::from_utf8).transpose().ok()?;
    Some(json!({
        "client_id": attempt.client_id,
        "username": attempt.username,
        "password": password,
        "address": attempt.address.map(|address| address.to_string()),
        "listener": *attempt.listener,
        "protocol": version(attempt.version),
    }))
}

fn version(version: ProtocolVersion) -> &'static str {
    match version {
        ProtocolVersion::V3_1 => "3.1",
        ProtocolVersion::V3_1_1 => "3.1.1",
        ProtocolVersion::V5 => "5.0",
    }
}

fn identity(answer: Answer) -> Option<Identity> {
    let is_name =
        |name: &String| !name.is_empty() && name.len() <= GROUP_BYTES_MAX && !name.contains(char::is_control);
    let fits = answer.groups.len() <= GROUPS_MAX && answer.groups.iter().all(is_name);
    fits.then(|| Identity {
        username: None,
        groups: answer.groups.into_iter().map(Into::into).collect(),
        expires_at_ms: answer.expires_at.map(|seconds| seconds.saturating_mul(1000)),
        acl: answer.acl,
    })
}

#[cfg(test)]
mod tests {
    use super::super::test_server::Server;
    use super::*;

    fn http(url: &str, cached_for: Duration, requests: usize) -> Http {
        Http::new(&HttpSettings {
            endpoint: EndpointSettings {
                url: url.to_owned(),
                ca: None,
                insecure_http: false,
                timeout: Duration::from_secs(5),
                guard: None,
            },
            headers: vec![("X-Token".to_owned(), "s3cret".to_owned())],
            requests,
            cached_for,
        })
        .unwrap()
    }

    fn attempt(password: &[u8]) -> Attempt {
        Attempt {
            client_id: "pump".into(),
            username: Some("ada".into()),
            password: Some(password.into()),
            enhanced: None,
            certificate: None,
            address: Some([192, 0, 2, 7].into()),
            listener: "tcp".into(),
            version: ProtocolVersion::V3_1_1,
        }
    }

    #[tokio::test]
    async fn the_request_says_what_the_client_shows() {
        let server = Server::start().await;
        server.answer(200, r#"{"result":"allow"}"#);
        let http = http(&server.url(), Duration::ZERO, 1);
        let outcome = http.authenticate(&attempt(b"wonder\"land")).await;
        assert!(
            matches!(&outcome, Outcome::Allow(identity, None) if identity.username.as_deref() == Some("ada"))
        );
        let request = server.last();
        let (head, body) = request.split_once("\r\n\r\n").unwrap();
        let head = head.to_ascii_lowercase();
        assert!(head.starts_with("post /x http/1.1"), "{head}");
        assert!(
            head.contains("content-type: application/json") && head.contains("x-token: s3cret"),
            "{head}"
        );
        let expected = json!({
            "client_id": "pump", "username": "ada", "password": "wonder\"land", "address": "192.0.2.7",
            "listener": "tcp", "protocol": "3.1.1",
        });
        assert_eq!(serde_json::from_str::<Value>(body).unwrap(), expected);
    }

    #[tokio::test]
    async fn each_answer_means_what_it_says_and_anything_else_denies() {
        let server = Server::start().await;
        let http = http(&server.url(), Duration::ZERO, 1);
        let ask = async |status, body: &str| {
            server.answer(status, body);
            match http.authenticate(&attempt(body.as_bytes())).await {
                Outcome::Allow(..) => "allow",
                Outcome::Ignore => "ignore",
                Outcome::Deny(Denial::BadCredentials, _) => "deny",
                Outcome::Deny(Denial::Unavailable, why) => {
                    assert!(!why.contains("s3cret"), "{why}");
                    "unavailable"
                }
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(ask(200, r#"{"result":"allow","is_superuser":false,"more":1}"#).await, "allow");
        assert_eq!(ask(200, r#"{"result":"deny"}"#).await, "deny");
        assert_eq!(ask(200, r#"{"result":"ignore"}"#).await, "ignore");
        assert_eq!(ask(204, "").await, "allow");
        for (status, body) in [
            (200, r#"{"result":"Allow"}"#),
            (200, r#"{"result":true}"#),
            (200, r#"{"s3cret":1}"#),
            (200, r#"allow s3cret"#),
            (200, r#"{"result":"allow","groups":"ops"}"#),
            (200, r#"{"result":"allow","groups":[""]}"#),
            (200, r#"{"result":"allow","expires_at":"tomorrow"}"#),
            (201, r#"{"result":"allow"}"#),
            (302, r#"{"result":"allow"}"#),
            (401, r#"{"result":"allow"}"#),
            (404, ""),
            (500, r#"{"result":"allow"}"#),
        ] {
            assert_eq!(ask(status, body).await, "unavailable", "{status} {body}");
        }
        let long = format!(r#"{{"result":"allow","x":"{}"}}"#, "x".repeat(ANSWER_BYTES_MAX));
        assert_eq!(ask(200, &long).await, "unavailable");
    }

    #[tokio::test]
    async fn an_answer_may_say_groups_rules_and_an_end() {
        let server = Server::start().await;
        let http = http(&server.url(), Duration::ZERO, 1);
        for end in ["expires_at", "expire_at"] {
            server.answer(
                200,
                &format!(r#"{{"result":"allow","groups":["ops"],"acl":[1],"{end}":2000000000}}"#),
            );
            let Outcome::Allow(identity, None) = http.authenticate(&attempt(b"x")).await else { panic!() };
            assert_eq!(*identity.groups, [Arc::from("ops")]);
            assert_eq!(identity.acl, Some(json!([1])));
            assert_eq!(identity.expires_at_ms, Some(2_000_000_000_000));
        }
    }

    #[tokio::test]
    async fn who_was_let_in_comes_in_again_without_a_request_and_nobody_else() {
        let server = Server::start().await;
        let http = http(&server.url(), Duration::from_secs(60), 1);
        server.answer(200, r#"{"result":"allow"}"#);
        let comes_in =
            async |attempt: &Attempt| matches!(http.authenticate(attempt).await, Outcome::Allow(..));
        assert!(comes_in(&attempt(b"x")).await && comes_in(&attempt(b"x")).await);
        assert_eq!(server.requests(), 1);
        server.answer(200, r#"{"result":"deny"}"#);
        assert!(comes_in(&attempt(b"x")).await);
        let others = [
            attempt(b"y"),
            Attempt { client_id: "valve".into(), ..attempt(b"x") },
            Attempt { username: None, ..attempt(b"x") },
            Attempt { password: None, ..attempt(b"x") },
            Attempt { address: Some([192, 0, 2, 8].into()), ..attempt(b"x") },
            Attempt { listener: "other".into(), ..attempt(b"x") },
        ];
        for (number, other) in (2..).zip(&others) {
            assert!(!comes_in(other).await, "{other:?}");
            assert_eq!(server.requests(), number);
        }
        // A denial isn't remembered.
        assert!(!comes_in(&attempt(b"y")).await);
        assert_eq!(server.requests(), 8);
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(60)).await;
        tokio::time::resume();
        assert!(!comes_in(&attempt(b"x")).await);
    }

    #[tokio::test]
    async fn nothing_shown_asks_nobody_and_what_json_can_t_say_is_denied() {
        let server = Server::start().await;
        server.answer(200, r#"{"result":"allow"}"#);
        let http = http(&server.url(), Duration::ZERO, 1);
        let nothing = Attempt { username: None, password: None, ..attempt(b"") };
        assert!(matches!(http.authenticate(&nothing).await, Outcome::Ignore));
        assert!(matches!(
            http.authenticate(&attempt(b"\xff")).await,
            Outcome::Deny(Denial::BadCredentials, _)
        ));
        assert_eq!(server.requests(), 0);
    }

    #[tokio::test]
    async fn nobody_there_denies() {
        let http = http("http://127.0.0.1:9/", Duration::ZERO, 1);
        assert!(matches!(http.authenticate(&attempt(b"x")).await, Outcome::Deny(Denial::Unavailable, _)));
    }
}
