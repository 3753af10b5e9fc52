//! Between what the broker asks and what the `access` crate understands: neither knows the other.

use std::sync::Arc;

use access::authentication::{Attempt, Denial, Identity, Verdict};
use mqtt_protocol::ReasonCode;

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
        Verdict::Accept(Some((authenticator, identity)), data) => {
            broker::Verdict::Accept(Arc::new(known(authenticator, identity)), data)
        }
        // As what it says it is.
        Verdict::Accept(None, data) => {
            let identity = broker::Identity { username: attempt.username, ..broker::Identity::default() };
            broker::Verdict::Accept(Arc::new(identity), data)
        }
        Verdict::Refuse(denial, why) => broker::Verdict::Refuse(reason(denial), why),
    }
}

fn known(authenticator: Arc<str>, identity: Identity) -> broker::Identity {
    broker::Identity {
        username: identity.username,
        authenticator: Some(authenticator),
        groups: identity.groups,
        expires_at_ms: identity.expires_at_ms,
        grants: None,
    }
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
