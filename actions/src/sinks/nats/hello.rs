//! From a server's greeting to a connection that is signed in.
//!
//! Each server of the list is greeted in turn, within one time for all. TLS is asked for where the connector has it, and
//! never given up because a greeting, which anybody on the way may have written, says that there is none.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::{SecureRandom as _, SystemRandom};
use serde::Serialize;
use tokio::io::AsyncWriteExt as _;
use tokio::time::{Instant, timeout_at};

use super::auth::Credentials;
use super::client::Connection;
use super::connector::NatsConnector;
use super::wire::{Decoder, Info, Said, WireError};
use crate::connectors::{Endpoint, Link};
use crate::delivery::DeliveryError;

/// Random bytes in the subjects for answers: nobody may guess where an acknowledgement is awaited.
const INBOX_RANDOM_BYTES: usize = 16;
/// What is said when we may not hear what comes to our own subjects.
const NO_SUBSCRIPTION: &str = "Permissions Violation for Subscription";

/// What a client says of itself.
#[derive(Serialize)]
struct Connect<'a> {
    verbose: bool,
    pedantic: bool,
    tls_required: bool,
    name: &'static str,
    lang: &'static str,
    version: &'static str,
    /// 1: may be told of changes at any time.
    protocol: u8,
    headers: bool,
    no_responders: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pass: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    auth_token: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nkey: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    jwt: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sig: Option<String>,
}

impl NatsConnector {
    /// The connection that all actions share, with a number that tells it from others.
    pub(super) async fn connection(&self) -> Result<(Connection, u64), DeliveryError> {
        let (connection, generation) = self.shared.get(|| self.connect()).await?;
        if !connection.is_broken() {
            return Ok((connection, generation));
        }
        // It broke while nobody needed it.
        self.shared.discard(generation).await;
        self.shared.get(|| self.connect()).await
    }

    async fn connect(&self) -> Result<Connection, DeliveryError> {
        let deadline = Instant::now() + self.config.connect_timeout;
        let mut last = None;
        for server in self.config.servers.iter() {
            match self.sign_in_until(server, deadline).await {
                Ok(connection) => return Ok(connection),
                // The one that somebody must act upon is told rather than the last.
                Err(error) => match last {
                    Some(DeliveryError::Forbidden(_) | DeliveryError::NoCredentials { .. }) => {}
                    _ => last = Some(error),
                },
            }
        }
        Err(last.unwrap_or(DeliveryError::Unreachable { cause: "no server is given".to_owned() }))
    }

    /// Signs in to one server, on a connection that nobody shares.
    pub(super) async fn try_sign_in(&self, server: &Endpoint) -> Result<Connection, DeliveryError> {
        self.sign_in_until(server, Instant::now() + self.config.connect_timeout).await
    }

    async fn sign_in_until(&self, server: &Endpoint, deadline: Instant) -> Result<Connection, DeliveryError> {
        let signed_in = timeout_at(deadline, self.sign_in(server, deadline)).await;
        signed_in.unwrap_or_else(|_| {
            Err(unreachable(server, format!("no sign-in within {:?}", self.config.connect_timeout)))
        })
    }

    async fn sign_in(&self, server: &Endpoint, deadline: Instant) -> Result<Connection, DeliveryError> {
        let broken = |error: WireError| unreachable(server, error);
        let tcp = self.links.dialer.tcp(server, deadline).await?;
        let mut link = Link::Plain(tcp);
        if self.config.tls_first
            && let Link::Plain(tcp) = link
        {
            link = self.links.dialer.secure(server, tcp, deadline).await?;
        }
        let mut decoder = Decoder::default();
        let info = match decoder.next(&mut link).await.map_err(broken)? {
            Said::Info(info) => *info,
            Said::Error(text) => return Err(refused(server, &text)),
            _ => return Err(unreachable(server, "it didn't greet first, as NATS servers do")),
        };
        if let Link::Plain(tcp) = link {
            let wants_tls = self.links.dialer.tls.is_some();
            if wants_tls && !info.tls_required && !info.tls_available {
                return Err(unreachable(server, "it offers no TLS"));
            }
            if wants_tls && decoder.has_rest() {
                return Err(unreachable(server, "it said more than its greeting before TLS"));
            }
            if info.tls_required && !wants_tls {
                return Err(unreachable(server, "it requires TLS, and the connector has no tls"));
            }
            link = self.links.dialer.secure(server, tcp, deadline).await?;
        }
        if !info.headers {
            return Err(unreachable(server, "it takes no headers, as servers from 2.2 do"));
        }
        let inbox = self.inbox().ok_or_else(|| unreachable(server, "no random numbers are to be had"))?;
        let hello = format!("CONNECT {}\r\nSUB {inbox}* 1\r\nPING\r\n", self.introduction(server, &info)?);
        let deafness = async {
            link.write_all(hello.as_bytes()).await?;
            link.flush().await?;
            let mut deafness = None;
            loop {
                match decoder.next(&mut link).await? {
                    Said::Pong => return Ok(Ok(deafness)),
                    Said::Error(text) if text.starts_with(NO_SUBSCRIPTION) => deafness = Some(text),
                    Said::Error(text) => return Ok(Err(refused(server, &text))),
                    Said::Ping => link.write_all(b"PONG\r\n").await?,
                    Said::Ok | Said::Info(_) | Said::Message(_) => {}
                }
            }
        };
        let deafness = deafness.await.map_err(broken)??;
        Ok(Connection::start(link, decoder, &info, inbox, deafness))
    }

    fn introduction(&self, server: &Endpoint, info: &Info) -> Result<String, DeliveryError> {
        let mut connect = Connect {
            verbose: false,
            pedantic: false,
            tls_required: self.links.dialer.tls.is_some(),
            name: "tidegate",
            lang: "rust",
            version: env!("CARGO_PKG_VERSION"),
            protocol: 1,
            headers: true,
            no_responders: true,
            user: None,
            pass: None,
            auth_token: None,
            nkey: None,
            jwt: None,
            sig: None,
        };
        match &self.credentials {
            Credentials::None => {}
            Credentials::User { name, password } => {
                connect.user = Some(name);
                connect.pass = Some(password.expose());
            }
            Credentials::Token(token) => connect.auth_token = Some(token.expose()),
            Credentials::Key { key, jwt } => {
                let nonce = info.nonce.as_deref().ok_or_else(|| DeliveryError::NoCredentials {
                    cause: format!("{server}: it asks for no signature, and there is nothing else to show"),
                })?;
                connect.sig = Some(key.sign(nonce));
                connect.jwt = jwt.as_deref();
                connect.nkey = jwt.is_none().then(|| key.public());
            }
        }
        serde_json::to_string(&connect).map_err(|error| unreachable(server, error))
    }

    fn inbox(&self) -> Option<String> {
        let mut random = [0; INBOX_RANDOM_BYTES];
        SystemRandom::new().fill(&mut random).ok()?;
        Some(format!("{}.{}.", self.config.inbox_prefix, URL_SAFE_NO_PAD.encode(random)))
    }
}

fn unreachable(server: &Endpoint, cause: impl std::fmt::Display) -> DeliveryError {
    DeliveryError::Unreachable { cause: format!("{server}: {cause}") }
}

/// What a server says that won't have us.
fn refused(server: &Endpoint, text: &str) -> DeliveryError {
    let lower = text.to_ascii_lowercase();
    let is_ours = ["authorization violation", "authentication expired", "authentication revoked"];
    if is_ours.iter().any(|words| lower.contains(words)) {
        return DeliveryError::NoCredentials { cause: format!("{server} said \"{text}\"") };
    }
    unreachable(server, format!("it said \"{text}\""))
}
