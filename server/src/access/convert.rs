//! Between what the broker asks and what the `access` crate understands: neither knows the other.

use std::sync::Arc;

use access::acl::{ClaimsError, from_claims};
use access::authentication::{Attempt, Denial, Exchange, Identity, Verdict};
use mqtt_protocol::ReasonCode;

use super::acl::OwnRules;

pub(super) fn attempt(attempt: broker::Attempt) -> Attempt {
    Attempt {
        client_id: attempt.client_id,
        username: attempt.username,
        password: attempt.password,
        enhanced: attempt.enhanced,
        certificate: attempt.certificate,
        address: attempt.address.ip(),
        listener: attempt.listener,
        version: attempt.version,
    }
}

pub(super) fn verdict(verdict: Verdict, attempt: Attempt) -> broker::Verdict {
    match verdict {
        Verdict::Accept(Some((authenticator, identity)), data) => match known(authenticator, identity) {
            Ok(identity) => broker::Verdict::Accept(Arc::new(identity), data),
            Err(error) => {
                let why = format!("the access rules that it brings are not understood: {error}");
                broker::Verdict::Refuse(ReasonCode::NotAuthorized, why.into())
            }
        },
        // As what it says it is.
        Verdict::Accept(None, data) => {
            let identity = broker::Identity { username: attempt.username, ..broker::Identity::default() };
            broker::Verdict::Accept(Arc::new(identity), data)
        }
        Verdict::Continue(exchange, data) => {
            broker::Verdict::Continue(Box::new(Waiting { exchange, attempt }), data)
        }
        Verdict::Refuse(denial, why) => broker::Verdict::Refuse(reason(denial), why),
    }
}

/// An exchange that waits for the client.
#[derive(Debug)]
struct Waiting {
    exchange: Box<Exchange>,
    attempt: Attempt,
}

impl broker::Exchange for Waiting {
    fn answer(self: Box<Self>, data: &[u8]) -> broker::Answer {
        let Self { exchange, attempt } = *self;
        let verdict = verdict(exchange.answer(data), attempt);
        Box::pin(std::future::ready(verdict))
    }
}

/// Rules that a client brings along are taken as a whole or not at all.
fn known(authenticator: Arc<str>, identity: Identity) -> Result<broker::Identity, ClaimsError> {
    let rules = identity.acl.as_ref().map(from_claims).transpose()?;
    Ok(broker::Identity {
        username: identity.username,
        authenticator: Some(authenticator),
        groups: identity.groups,
        expires_at_ms: identity.expires_at_ms,
        grants: rules.map(|rules| Arc::new(OwnRules(rules)) as Arc<dyn broker::Grants>),
    })
}

/// What the client is told (MQTT 5.0 §3.2.2.2).
fn reason(denial: Denial) -> ReasonCode {
    match denial {
        Denial::BadCredentials => ReasonCode::BadUserNameOrPassword,
        Denial::NotAuthorized => ReasonCode::NotAuthorized,
        Denial::BadMethod => ReasonCode::BadAuthenticationMethod,
        Denial::Unavailable => ReasonCode::ServerUnavailable,
        Denial::LockedOut => ReasonCode::ConnectionRateExceeded,
    }
}
