//! One connection to one broker.

use std::io::Cursor;
use std::time::Duration;

use parking_lot::Mutex;
use rskafka::messenger::{Messenger, RequestError, SyncVersionsError};
use rskafka::protocol::error::Error;
use rskafka::protocol::messages::{
    ReadVersionedType, RequestBody, SaslAuthenticateRequest, SaslHandshakeRequest, WriteVersionedType,
};
use tokio::io::BufStream;
use tokio::time::{Instant, timeout_at};

use super::answer::name;
use super::connector::{KafkaConnector, SaslConfig};
use super::sasl::{Scram, chance, plain};
use super::stream::{Cut, Severable};
use crate::connectors::{AddressList, Allowance, Bounded};
use crate::delivery::{AnswerClass, DeliveryError};
use crate::text::{chain, excerpt};

/// Most bytes of an answer. The longest ones list the partitions of topics, at some fifty bytes each.
pub(super) const ANSWER_BYTES_MAX: usize = 4 << 20;
/// Longest time that a broker can keep us quiet with one answer.
const QUIET_MAX: Duration = Duration::from_secs(60);
/// Characters of an error that are quoted.
const ERROR_CHARS: usize = 200;

/// A connection that is signed in.
pub(super) struct Broker {
    messenger: Messenger<BufStream<Severable>>,
    allowance: Allowance,
    cut: Cut,
    /// When the broker ends it, because its sign-in is good for so long.
    expires: Option<Instant>,
    quiet_until: Mutex<Option<Instant>>,
}

/// The library's own task ends with its messenger; what it does for a write ends with this.
impl Drop for Broker {
    fn drop(&mut self) {
        self.cut.cut();
    }
}

impl Broker {
    /// Connects to the first of `servers` that takes it, until `deadline`.
    pub(super) async fn connect(
        connector: &KafkaConnector,
        servers: &AddressList,
        deadline: Instant,
    ) -> Result<Self, DeliveryError> {
        let config = connector.config();
        let after = config.connect_timeout;
        let hello = async {
            let link = connector.links.dialer.connect(servers).await?;
            let allowance = Allowance::new(ANSWER_BYTES_MAX);
            let cut = Cut::default();
            let stream = BufStream::new(Severable::new(Bounded::new(link, allowance.clone()), cut.clone()));
            let messenger = Messenger::new(stream, ANSWER_BYTES_MAX, config.client_id.as_str().into());
            let quiet_until = Mutex::default();
            let mut broker = Self { messenger, allowance, cut, expires: None, quiet_until };
            broker.messenger.sync_versions().await.map_err(|error| no_versions(&error))?;
            if let Some(sasl) = &config.sasl {
                broker.expires = broker.sign_in(sasl).await?;
            }
            Ok(broker)
        };
        let late = |_| unreachable(format!("no answer to the sign-in within {after:?}"));
        timeout_at(deadline, hello).await.map_err(late)?
    }

    /// Whether a request is worth a try: it isn't known to have ended, nor about to be ended by the broker.
    pub(super) fn is_usable(&self) -> bool {
        !self.cut.is_cut() && self.expires.is_none_or(|expires| Instant::now() < expires)
    }

    /// Asks and waits for the answer until `deadline`, which is `after` from the begin. A connection that fails to answer
    /// is ended: what comes late has nobody who waits for it.
    pub(super) async fn ask<R>(
        &self,
        request: R,
        deadline: Instant,
        after: Duration,
    ) -> Result<R::ResponseBody, DeliveryError>
    where
        R: RequestBody + Send + WriteVersionedType<Vec<u8>>,
        R::ResponseBody: ReadVersionedType<Cursor<Vec<u8>>>,
    {
        self.allowance.refill();
        let failure = match timeout_at(deadline, self.messenger.request(request)).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(RequestError::NoVersionMatch { api_key })) => {
                let cause = format!("the broker speaks no version of {api_key:?} that we speak");
                return Err(DeliveryError::Refused { class: AnswerClass::Disable, cause });
            }
            Ok(Err(error)) => DeliveryError::Interrupted { cause: shown(&error) },
            Err(_) => DeliveryError::TimedOut { after },
        };
        self.cut.cut();
        Err(failure)
    }

    /// Heeds the broker's wish to be left alone for so many milliseconds.
    pub(super) fn keep_quiet(&self, ms: Option<i32>) {
        let ms = ms.and_then(|ms| u64::try_from(ms).ok()).unwrap_or(0);
        if ms > 0 {
            let until = Instant::now() + Duration::from_millis(ms).min(QUIET_MAX);
            let mut quiet_until = self.quiet_until.lock();
            *quiet_until = (*quiet_until).max(Some(until));
        }
    }

    /// Waits until the broker wants to hear of us; at most until `deadline`.
    pub(super) async fn quiet(&self, deadline: Instant) -> Result<(), DeliveryError> {
        let until = *self.quiet_until.lock();
        match until {
            Some(until) if until >= deadline => {
                Err(unreachable("the broker asks to be left alone, because of a quota"))
            }
            Some(until) => {
                tokio::time::sleep_until(until).await;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Signs in. Returns when that ends, if the broker says so.
    async fn sign_in(&self, config: &SaslConfig) -> Result<Option<Instant>, DeliveryError> {
        let mechanism = config.mechanism.name();
        let answer = self.messenger.request(SaslHandshakeRequest::new(mechanism)).await;
        if let Some(error) = answer.map_err(|error| unreachable(shown(&error)))?.error_code {
            return Err(no_credentials(format!("the broker doesn't take {mechanism}: {}", name(error))));
        }
        let chance = chance().map_err(unreachable)?;
        let Some(scram) = Scram::new(config, &chance) else {
            return self.authenticate(plain(config)).await.map(|(_, expires)| expires);
        };
        let (server, _) = self.authenticate(scram.first()).await?;
        let hashed = tokio::task::spawn_blocking(move || scram.second(&server)).await;
        let hashed = hashed.map_err(|error| unreachable(error.to_string()))?;
        let (second, proof) = hashed.map_err(no_credentials)?;
        let (server, expires) = self.authenticate(second).await?;
        proof.check(&server).map_err(no_credentials)?;
        Ok(expires)
    }

    /// One message of the sign-in and the broker's answer, with the end of the sign-in if it was the last.
    async fn authenticate(&self, message: Vec<u8>) -> Result<(Vec<u8>, Option<Instant>), DeliveryError> {
        let answer = self.messenger.request(SaslAuthenticateRequest::new(message)).await;
        let answer = answer.map_err(|error| unreachable(shown(&error)))?;
        if let Some(error) = answer.error_code {
            let said = answer.error_message.0.unwrap_or_default();
            let said = excerpt(said.as_bytes(), ERROR_CHARS);
            let cause = format!("the broker answered {}: \"{said}\"", name(error));
            return Err(match error {
                Error::SaslAuthenticationFailed
                | Error::UnsupportedSaslMechanism
                | Error::IllegalSaslState => no_credentials(cause),
                _ => unreachable(cause),
            });
        }
        let lifetime =
            answer.session_lifetime_ms.and_then(|ms| u64::try_from(ms.0).ok()).filter(|ms| *ms > 0);
        // Some time before the end, so that no request comes just too late.
        let expires = lifetime.and_then(|ms| Instant::now().checked_add(Duration::from_millis(ms / 10 * 8)));
        Ok((answer.auth_bytes.0, expires))
    }
}

/// What is said of an error of the library: it quotes nothing that we sent.
fn shown(error: &RequestError) -> String {
    excerpt(chain(error).as_bytes(), ERROR_CHARS)
}

fn no_versions(error: &SyncVersionsError) -> DeliveryError {
    unreachable(excerpt(chain(error).as_bytes(), ERROR_CHARS))
}

fn no_credentials(cause: String) -> DeliveryError {
    DeliveryError::NoCredentials { cause }
}

pub(super) fn unreachable(cause: impl Into<String>) -> DeliveryError {
    DeliveryError::Unreachable { cause: cause.into() }
}
