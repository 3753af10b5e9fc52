//! From a connector to a connection, and what the library's errors mean on the way.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_rs::Runtime;
use lapin::auth::AuthProvider;
use lapin::types::{LongString, ShortString};
use lapin::uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo};
use lapin::{AsyncTcpStream, ConnectionProperties};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout, timeout_at};

use super::connector::{AmqpConnector, AmqpConnectorConfig, AuthMechanism};
use super::guard::{FRAME_BYTES_MAX, Guard, Violation};
use super::link::{Gate, Guarded, Kit, State};
use crate::delivery::DeliveryError;
use crate::text::{chain, excerpt};

/// Characters of an error that are quoted.
const ERROR_CHARS: usize = 200;

/// How long the server may take to say goodbye.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// A connection as actions share it. It ends with the last who holds it: the library then takes leave of the server
/// (`connection.close`), which gets a moment to answer. One that was given up ends at once.
#[derive(Clone)]
pub(super) struct Connection(Arc<Inner>);

pub(super) struct Inner {
    pub(super) lapin: lapin::Connection,
    pub(super) gate: Arc<Gate>,
    end: Option<ShutWhenDropped>,
    runtime: Handle,
    is_given_up: AtomicBool,
}

impl Drop for Inner {
    fn drop(&mut self) {
        if !self.is_alive() || self.is_given_up.load(Ordering::Relaxed) {
            return;
        }
        let end = self.end.take();
        let gate = Arc::clone(&self.gate);
        // What of it is dropped with the runtime shuts the gate all the same.
        self.runtime.spawn(async move {
            let _end = end;
            // Whether it answered in time makes no difference.
            drop(timeout(CLOSE_TIMEOUT, gate.gone()).await);
        });
    }
}

impl Deref for Connection {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Inner {
    /// Whether it can still be used.
    pub(super) fn is_alive(&self) -> bool {
        self.lapin.status().connected() && self.gate.state() != State::Gone
    }

    /// Says that nothing of what is on its way may reach the server any more once nobody holds it.
    pub(super) fn give_up(&self) {
        self.is_given_up.store(true, Ordering::Relaxed);
    }

    /// Most bytes of the payload of a frame.
    pub(super) fn payload_bytes_max(&self) -> usize {
        let frame = usize::try_from(self.lapin.configuration().frame_max()).unwrap_or(usize::MAX);
        frame.saturating_sub(super::guard::ENVELOPE_BYTES)
    }
}

/// Shuts the gate when it goes, also when connecting was given up half-way.
struct ShutWhenDropped(Arc<Gate>);

impl Drop for ShutWhenDropped {
    fn drop(&mut self) {
        self.0.shut();
    }
}

impl AmqpConnector {
    /// The connection that is there, or a new one, with its number.
    pub(super) async fn connection(&self) -> Result<(Connection, u64), DeliveryError> {
        let (connection, generation) = self.shared.get(|| self.connect()).await?;
        if connection.is_alive() {
            return Ok((connection, generation));
        }
        // It broke while nobody needed it, which is no reason to fail.
        self.shared.discard(generation).await;
        self.shared.get(|| self.connect()).await
    }

    /// Signs in on a connection of its own, and closes it.
    pub(super) async fn sign_in(&self) -> Result<(), DeliveryError> {
        self.connect().await.map(drop)
    }

    async fn connect(&self) -> Result<Connection, DeliveryError> {
        let config = self.config();
        let deadline = Instant::now() + config.connect_timeout;
        let link = self.links.dialer.connect(&config.servers).await?;
        let gate = Arc::new(Gate::default());
        let end = ShutWhenDropped(Arc::clone(&gate));
        let auth = Auth::of(config);
        let guarded = Guarded::new(link, Guard::new(auth.mechanism), Arc::clone(&gate));
        // The library asks for one connection: it doesn't connect anew.
        let guarded = Mutex::new(Some(guarded));
        let connect = async move |_, _| match guarded.lock().take() {
            Some(guarded) => Ok(AsyncTcpStream::Plain(guarded)),
            None => Err(std::io::Error::from(std::io::ErrorKind::ConnectionAborted).into()),
        };
        let properties = ConnectionProperties::default()
            .with_client_property("product".into(), "Tidegate".into())
            .with_client_property("version".into(), env!("CARGO_PKG_VERSION").into())
            .with_auth_provider(auth);
        let runtime = Runtime::new(Kit::new(Arc::clone(&gate)));
        let hello = lapin::Connection::connector(uri(config), runtime, connect, properties);
        let failure = tokio::select! {
            biased;
            hello = timeout_at(deadline, hello) => match hello {
                Ok(Ok(lapin)) => {
                    let (runtime, is_given_up) = (Handle::current(), AtomicBool::new(false));
                    let inner = Inner { lapin, gate, end: Some(end), runtime, is_given_up };
                    return Ok(Connection(Arc::new(inner)));
                }
                Ok(Err(error)) => shown(&error),
                Err(_) => format!("no answer to the sign-in within {:?}", config.connect_timeout),
            },
            () = gate.gone() => "it ended in the sign-in".to_owned(),
        };
        Err(self.refusal(&gate, failure))
    }

    /// What a failed sign-in means.
    fn refusal(&self, gate: &Gate, failure: String) -> DeliveryError {
        let Some((code, text)) = gate.closing(0) else {
            return match gate.violation() {
                Some(Violation::Mechanism(text)) => {
                    DeliveryError::NoCredentials { cause: excerpt(text.as_bytes(), ERROR_CHARS) }
                }
                Some(Violation::Protocol(text)) => {
                    DeliveryError::Unreachable { cause: excerpt(text.as_bytes(), ERROR_CHARS) }
                }
                None => DeliveryError::Unreachable { cause: gate.lost().unwrap_or(failure) },
            };
        };
        let cause = self.words(code, &text);
        match code {
            // Wrong credentials; a virtual host that isn't there, or isn't for us.
            403 | 530 => DeliveryError::NoCredentials { cause },
            _ => DeliveryError::Unreachable { cause },
        }
    }

    /// Why the connection can't be used any more, once it was in use.
    pub(super) fn interrupted(&self, gate: &Gate, failure: String) -> DeliveryError {
        let cause = match (gate.closing(0), gate.violation()) {
            (Some((code, text)), _) => self.words(code, &text),
            (None, Some(Violation::Protocol(text) | Violation::Mechanism(text))) => {
                excerpt(text.as_bytes(), ERROR_CHARS)
            }
            (None, None) => gate.lost().unwrap_or(failure),
        };
        DeliveryError::Interrupted { cause }
    }

    /// The server's words, unless it repeats our password.
    pub(super) fn words(&self, code: u16, text: &str) -> String {
        let password = self.config().password.as_ref().map_or("", |password| password.expose());
        if !password.is_empty() && text.contains(password) {
            return format!("the server answered {code}, in words that repeat a secret");
        }
        format!("the server answered {code} {}", excerpt(text.as_bytes(), ERROR_CHARS))
    }
}

/// What is said of an error of the library.
pub(super) fn shown(error: &lapin::Error) -> String {
    excerpt(chain(error).as_bytes(), ERROR_CHARS)
}

/// What is agreed on with the server; where it is and who we are is said elsewhere.
fn uri(config: &AmqpConnectorConfig) -> AMQPUri {
    AMQPUri {
        scheme: AMQPScheme::AMQP,
        authority: AMQPAuthority {
            userinfo: AMQPUserInfo { username: String::new(), password: String::new() },
            host: String::new(),
            port: 0,
        },
        vhost: config.vhost.clone(),
        query: AMQPQueryString {
            frame_max: Some(FRAME_BYTES_MAX),
            heartbeat: Some(u16::try_from(config.heartbeat.as_secs()).unwrap_or(u16::MAX)),
            ..AMQPQueryString::default()
        },
    }
}

/// How we say who we are.
struct Auth {
    mechanism: &'static str,
    answer: LongString,
}

impl Auth {
    fn of(config: &AmqpConnectorConfig) -> Self {
        match config.auth_mechanism {
            AuthMechanism::Plain => {
                let username = config.username.as_deref().unwrap_or_default();
                let password = config.password.as_ref().map_or("", |password| password.expose());
                Self { mechanism: "PLAIN", answer: format!("\0{username}\0{password}").into() }
            }
            AuthMechanism::External => Self { mechanism: "EXTERNAL", answer: LongString::default() },
        }
    }
}

impl AuthProvider for Auth {
    fn mechanism(&self) -> ShortString {
        self.mechanism.into()
    }

    fn auth_starter(&self) -> Result<LongString, String> {
        Ok(self.answer.clone())
    }
}
