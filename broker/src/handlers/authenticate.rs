//! Who a client is: the stage between a CONNECT that may be accepted and its session, and AUTH on a connection that is open
//! (MQTT 5.0 §4.12).
//!
//! Nothing of a session is touched before the client is known. While somebody decides, the connection costs its CONNECT and
//! what the client sends ahead; the CONNECT is read again afterwards, so that nothing borrowed has to outlive a turn.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use mqtt_protocol::{Auth, Connect, Frame, Packet, PacketType, ProtocolVersion, ReasonCode};
use tokio::time::Sleep;

use super::connect::{Refusal, assign_client_id, check};
use super::ownership::{ClientIdRule, owner};
use super::{Client, Flow};
use crate::access::{Answer, Attempt, Exchange, Identity, Verdict};
use crate::broker::Shared;
use crate::clock::Now;
use crate::connection::Close;
use crate::listeners::{Listener, PeerAddress};
use crate::message::Publisher;
use crate::metrics::sent;
use crate::session::wake_after_this_turn;

/// How a client authenticates that does so by a method, now and whenever it does so again.
#[derive(Debug)]
pub(crate) struct Method {
    name: Box<str>,
    /// The certificate that it showed, DER: who it is may depend on it each time.
    certificate: Option<Arc<[u8]>>,
}

impl Method {
    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

/// An authentication that is under way.
enum Step {
    /// Somebody decides.
    Deciding(Answer),
    /// The client has been asked something.
    Challenged(Box<dyn Exchange>),
    /// Decided, or none.
    Over,
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Deciding(_) => "Deciding",
            Self::Challenged(_) => "Challenged",
            Self::Over => "Over",
        })
    }
}

/// What came of a step.
enum Outcome {
    Accepted(Arc<Identity>, Option<Box<[u8]>>),
    Challenge(Box<[u8]>),
    Refused(ReasonCode, Box<str>),
}

impl Step {
    /// Asks whether it is decided; pending while the client is to answer, too.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Outcome> {
        let Self::Deciding(answer) = self else { return Poll::Pending };
        let verdict = std::task::ready!(answer.as_mut().poll(cx));
        let (next, outcome) = match verdict {
            Verdict::Accept(identity, data) => (Self::Over, Outcome::Accepted(identity, data)),
            Verdict::Continue(exchange, data) => (Self::Challenged(exchange), Outcome::Challenge(data)),
            Verdict::Refuse(reason, why) => (Self::Over, Outcome::Refused(reason, why)),
        };
        *self = next;
        Poll::Ready(outcome)
    }

    /// Hands on what the client answered; `false` if nothing was asked.
    fn answer(&mut self, data: &[u8]) -> bool {
        match std::mem::replace(self, Self::Over) {
            Self::Challenged(exchange) => {
                *self = Self::Deciding(exchange.answer(data));
                true
            }
            other => {
                *self = other;
                false
            }
        }
    }
}

/// A client that is known, with what else its CONNACK has to say.
#[derive(Debug)]
pub(crate) struct Known {
    pub(super) publisher: Arc<Publisher>,
    pub(super) assigned_client_id: bool,
    pub(super) method: Option<Box<Method>>,
    pub(super) data: Option<Box<[u8]>>,
}

impl Known {
    pub(crate) fn username(&self) -> Option<&str> {
        self.publisher.identity.username.as_deref()
    }

    pub(crate) fn client_id(&self) -> &str {
        &self.publisher.client_id
    }
}

/// What came of asking about a CONNECT.
pub(crate) enum Decided {
    Known(Known),
    /// An AUTH was encoded; the client has to answer it.
    Challenged,
    Refused(Refusal),
}

/// A CONNECT whose client isn't known yet.
#[derive(Debug)]
pub(crate) struct Authenticating {
    publisher: Publisher,
    assigned_client_id: bool,
    allow_anonymous: bool,
    client_ids: ClientIdRule,
    method: Option<Box<Method>>,
    maximum_packet_size: u32,
    step: Step,
    /// First byte, length and body of the CONNECT, once it has to wait.
    kept: (u8, usize, Box<[u8]>),
    /// The time of the CONNECT and all of this together.
    pub(crate) deadline: std::pin::Pin<Box<Sleep>>,
    /// The client has sent all that it will.
    pub(crate) is_at_end: bool,
}

impl Authenticating {
    /// Checks a CONNECT and asks who the client is, unless that is known: then nothing that the CONNECT says of it counts.
    pub(crate) fn begin(
        shared: &Arc<Shared>,
        listener: &Listener,
        peer: PeerAddress,
        known: Option<Arc<Identity>>,
        certificate: Option<Arc<[u8]>>,
        connect: &Connect<'_>,
        deadline: std::pin::Pin<Box<Sleep>>,
    ) -> Result<Self, Refusal> {
        check(shared, connect)?;
        let assigned_client_id = connect.client_id.is_empty();
        let client_id: Box<str> =
            if assigned_client_id { assign_client_id(shared).into() } else { connect.client_id.into() };
        let properties = &connect.properties;
        let method = properties
            .authentication_method
            .map(|name| Box::new(Method { name: name.into(), certificate: certificate.clone() }));
        let attempt = Attempt {
            client_id: client_id.clone(),
            username: connect.username.map(Into::into),
            password: connect.password.map(Into::into),
            enhanced: properties
                .authentication_method
                .map(|method| (method.into(), properties.authentication_data.unwrap_or_default().into())),
            certificate,
            address: peer,
            listener: Arc::clone(&listener.name),
            version: connect.version,
        };
        let step = match known {
            Some(_) if attempt.enhanced.is_some() => {
                return Err(refusal_of(ReasonCode::BadAuthenticationMethod));
            }
            Some(identity) => Step::Deciding(Box::pin(std::future::ready(Verdict::Accept(identity, None)))),
            None => Step::Deciding(shared.access.authenticate(attempt)),
        };
        let publisher = Publisher {
            client_id,
            identity: Arc::default(),
            address: peer,
            listener: Arc::clone(&listener.name),
        };
        Ok(Self {
            publisher,
            assigned_client_id,
            allow_anonymous: listener.allow_anonymous,
            client_ids: ClientIdRule {
                may_be: listener.client_ids,
                bytes_max: shared.config.limits.max_client_id_bytes,
            },
            method,
            maximum_packet_size: connect.properties.maximum_packet_size.unwrap_or(u32::MAX),
            step,
            kept: (0, 0, Box::default()),
            deadline,
            is_at_end: false,
        })
    }

    /// Keeps the CONNECT for when it is decided.
    pub(crate) fn keep(&mut self, frame: &Frame<'_>) {
        self.kept = (frame.first_byte, frame.len, frame.body.into());
    }

    /// The CONNECT that was kept.
    pub(crate) fn connect(&self) -> Frame<'_> {
        let (first_byte, len, body) = &self.kept;
        Frame { first_byte: *first_byte, body, len: *len }
    }

    /// Whether the client has been asked something and has to answer.
    pub(crate) fn is_challenged(&self) -> bool {
        matches!(self.step, Step::Challenged(_))
    }

    /// Asks whether it is decided; what is to be sent is added to `out`.
    pub(crate) fn poll(
        &mut self,
        shared: &Shared,
        cx: &mut Context<'_>,
        now: Now,
        out: &mut Vec<u8>,
    ) -> Poll<Decided> {
        Poll::Ready(match std::task::ready!(self.step.poll(cx)) {
            Outcome::Accepted(identity, data) => match self.named(shared, &identity, now) {
                Err(refusal) => Decided::Refused(refusal),
                Ok(client_id) => {
                    let publisher = Arc::new(Publisher { client_id, identity, ..self.publisher.clone() });
                    Decided::Known(Known {
                        publisher,
                        assigned_client_id: self.assigned_client_id,
                        method: self.method.take(),
                        data,
                    })
                }
            },
            Outcome::Challenge(data) => {
                if encode(
                    ReasonCode::ContinueAuthentication,
                    self.method.as_deref().map(Method::name),
                    Some(&data),
                    self.maximum_packet_size,
                    out,
                ) {
                    Decided::Challenged
                } else {
                    Decided::Refused(refusal_of(ReasonCode::PacketTooLarge))
                }
            }
            Outcome::Refused(reason, why) => {
                let Publisher { client_id, address, listener, .. } = &self.publisher;
                tracing::debug!(%client_id, peer = %address, %listener, ?reason, %why, "client refused");
                Decided::Refused(refusal_of(reason))
            }
        })
    }

    /// The Client Identifier of somebody who was accepted, if nothing keeps that one outside.
    fn named(&self, shared: &Shared, identity: &Identity, now: Now) -> Result<Box<str>, Refusal> {
        if let Some(refusal) = self.refusal(identity, now) {
            return Err(refusal);
        }
        let (user, given) = (owner(identity), &self.publisher.client_id);
        let client_id = match self.assigned_client_id {
            true => self.client_ids.assigned(user, given),
            false => given.clone(),
        };
        if let Err(refusal) = self.client_ids.check(user, &client_id) {
            shared.metrics.client_ids_refused.add(1);
            return Err(refusal);
        }
        Ok(client_id)
    }

    /// Why somebody who was accepted stays outside.
    fn refusal(&self, identity: &Identity, now: Now) -> Option<Refusal> {
        if identity.authenticator.is_none() && !self.allow_anonymous {
            return Some(Refusal::new(
                ReasonCode::NotAuthorized,
                "this listener lets nobody in who isn't known",
            ));
        }
        identity
            .expires_at_ms
            .is_some_and(|at_ms| at_ms <= now.wall_ms)
            .then(|| Refusal::new(ReasonCode::NotAuthorized, "the right to be here is over"))
    }

    /// Handles a packet before the CONNACK: AUTH goes on, and nothing else may come [MQTT-3.1.2-30, v5].
    pub(crate) fn handle(&mut self, packet: &Packet<'_>) -> Result<(), Refusal> {
        let Packet::Auth(auth) = packet else {
            return Err(Refusal::new(
                ReasonCode::ProtocolError,
                "a packet other than AUTH before the CONNACK",
            ));
        };
        // [MQTT-4.12.0-3, v5] and [MQTT-4.12.0-5, v5]
        if auth.reason_code != ReasonCode::ContinueAuthentication {
            return Err(Refusal::new(ReasonCode::ProtocolError, "an AUTH that doesn't continue"));
        }
        if auth.authentication_method != self.method.as_deref().map(Method::name) {
            return Err(Refusal::new(ReasonCode::ProtocolError, "an AUTH of another method"));
        }
        if self.step.answer(auth.authentication_data.unwrap_or_default()) {
            Ok(())
        } else {
            Err(Refusal::new(ReasonCode::ProtocolError, "an AUTH that nobody asked for"))
        }
    }

    /// Nobody decided in time: the same as an authenticator that can't be reached.
    pub(crate) fn overdue(&self, shared: &Shared) -> Option<Refusal> {
        shared.metrics.authentication_timeouts.add(1);
        (!self.is_challenged()).then(|| Refusal::new(ReasonCode::ServerUnavailable, "nobody decided in time"))
    }
}

/// A refusal that says no more than the client may know: the same for a user who doesn't exist and a wrong password.
fn refusal_of(reason: ReasonCode) -> Refusal {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the other codes speak for themselves")]
    let why = match reason {
        ReasonCode::BadUserNameOrPassword => "user name or password is wrong",
        ReasonCode::NotAuthorized => "the client may not come in",
        ReasonCode::BadAuthenticationMethod => "this authentication method is not offered here",
        ReasonCode::ServerUnavailable => "nobody can decide at the moment",
        other => other.name(),
    };
    Refusal::new(reason, why)
}

/// Encodes an AUTH; `false` if the client doesn't take one of this size.
fn encode(
    reason: ReasonCode,
    method: Option<&str>,
    data: Option<&[u8]>,
    limit: u32,
    out: &mut Vec<u8>,
) -> bool {
    let start = out.len();
    let auth = Auth { authentication_data: data, ..Auth::new(reason, method) };
    let encoded = Packet::Auth(auth).encode(ProtocolVersion::V5, out);
    let fits = encoded.is_ok() && out.len() - start <= limit as usize;
    if fits {
        sent(PacketType::Auth, 1);
    } else {
        out.truncate(start);
    }
    fits
}

/// What an open connection knows of how its client was authenticated.
#[derive(Debug)]
pub(super) struct Authentication {
    /// Method of its CONNECT; without one there is no AUTH.
    method: Option<Box<Method>>,
    again: Step,
    /// When the client's right to be here ends.
    ends: Option<std::pin::Pin<Box<Sleep>>>,
}

impl Authentication {
    pub(super) fn new(method: Option<Box<Method>>, identity: &Identity, now: Now) -> Self {
        Self { method, again: Step::Over, ends: end_of(identity, now) }
    }
}

fn end_of(identity: &Identity, now: Now) -> Option<std::pin::Pin<Box<Sleep>>> {
    let left_ms = identity.expires_at_ms?.saturating_sub(now.wall_ms);
    let left = Duration::from_millis(u64::try_from(left_ms).unwrap_or(0));
    Some(Box::pin(tokio::time::sleep(left)))
}

impl Client {
    /// AUTH on an open connection: the client authenticates again, while everything else goes on.
    pub(super) fn auth(&mut self, auth: &Auth<'_>, cx: &mut Context<'_>) -> Result<Flow, Close> {
        let Some(method) = &self.authentication.method else {
            // [MQTT-4.12.0-7, v5]
            return Err(self.violation(ReasonCode::ProtocolError, "AUTH without an authentication method"));
        };
        if auth.authentication_method != Some(method.name()) {
            // [MQTT-4.12.1-1, v5]
            return Err(self.violation(
                ReasonCode::BadAuthenticationMethod,
                "authentication again has to be by the method of the CONNECT",
            ));
        }
        let data = auth.authentication_data.unwrap_or_default();
        let is_over = matches!(self.authentication.again, Step::Over);
        let goes_on = match auth.reason_code {
            ReasonCode::ReAuthenticate if is_over => {
                let attempt = Attempt {
                    client_id: self.publisher.client_id.clone(),
                    username: self.publisher.identity.username.clone(),
                    password: None,
                    enhanced: Some((method.name.clone(), data.into())),
                    certificate: method.certificate.clone(),
                    address: self.publisher.address,
                    listener: Arc::clone(&self.publisher.listener),
                    version: self.version,
                };
                self.authentication.again = Step::Deciding(self.shared.access.authenticate(attempt));
                true
            }
            ReasonCode::ContinueAuthentication => self.authentication.again.answer(data),
            _ => false,
        };
        if !goes_on {
            return Err(self.violation(ReasonCode::ProtocolError, "an AUTH out of turn"));
        }
        wake_after_this_turn(cx.waker());
        Ok(self.watch_output())
    }

    /// Moves on what the client authenticates again with, and ends its connection when its right to be here is over.
    pub(super) fn settle_authentication(&mut self, cx: &mut Context<'_>, now: Now) -> Result<(), Close> {
        if let Some(ends) = &mut self.authentication.ends
            && ends.as_mut().poll(cx).is_ready()
        {
            self.shared.metrics.identities_expired.add(1);
            return Err(Close::because(ReasonCode::MaximumConnectTime, "the right to be here is over"));
        }
        let Poll::Ready(outcome) = self.authentication.again.poll(cx) else { return Ok(()) };
        let (reason, data) = match outcome {
            Outcome::Accepted(identity, data) => {
                self.become_known(identity, now)?;
                (ReasonCode::Success, data)
            }
            Outcome::Challenge(data) => (ReasonCode::ContinueAuthentication, Some(data)),
            Outcome::Refused(reason, why) => {
                tracing::debug!(client_id = %self.publisher.client_id, ?reason, %why, "client refused");
                // A code that only a CONNACK has: the request is not authorized all the same.
                let reason = if reason.is_valid_in(mqtt_protocol::PacketType::Disconnect) {
                    reason
                } else {
                    ReasonCode::NotAuthorized
                };
                return Err(Close::because(reason, "authentication again failed"));
            }
        };
        let method = self.authentication.method.as_deref().map(Method::name);
        if encode(reason, method, data.as_deref(), self.maximum_packet_size, &mut self.replies) {
            Ok(())
        } else {
            Err(Close::because(ReasonCode::PacketTooLarge, "the AUTH is larger than the client takes"))
        }
    }

    /// Goes on as what the client is now. Its name stays: its session, its will and what it published are of that name.
    fn become_known(&mut self, identity: Arc<Identity>, now: Now) -> Result<(), Close> {
        if identity.username != self.publisher.identity.username {
            return Err(Close::because(
                ReasonCode::NotAuthorized,
                "authentication again gave another user name",
            ));
        }
        if identity.expires_at_ms.is_some_and(|at_ms| at_ms <= now.wall_ms) {
            return Err(Close::because(ReasonCode::MaximumConnectTime, "the right to be here is over"));
        }
        self.authentication.ends = end_of(&identity, now);
        self.publisher = Arc::new(Publisher { identity, ..Publisher::clone(&self.publisher) });
        self.rights.forget();
        let mut inner = self.mine()?;
        inner.client = Some(Arc::clone(&self.publisher));
        self.shared.watch_receiver(&mut inner);
        drop(inner);
        self.shared.metrics.reauthentications.add(1);
        Ok(())
    }
}
