//! Between what the broker asks and what the `access` crate understands: neither knows the other.

use std::sync::Arc;

use access::acl::{Asking, HttpRules, Rules, from_claims};
use access::authentication::{Attempt, Denial, Exchange, Verdict};
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

/// What the broker is told: of a client that is let in, with the rules that it brought and those that `http` has for it.
pub(super) async fn verdict(
    verdict: Verdict,
    attempt: Attempt,
    http: Option<Arc<HttpRules>>,
) -> broker::Verdict {
    match verdict {
        Verdict::Accept(Some((authenticator, identity)), data) => {
            // Rules that a client brings along are taken as a whole or not at all.
            let brought = match identity.acl.as_ref().map(from_claims).transpose() {
                Ok(brought) => brought,
                Err(error) => {
                    let why = format!("the access rules that it brings are not understood: {error}");
                    return broker::Verdict::Refuse(ReasonCode::NotAuthorized, why.into());
                }
            };
            let known = broker::Identity {
                username: identity.username,
                authenticator: Some(authenticator),
                groups: identity.groups,
                expires_at_ms: identity.expires_at_ms,
                grants: None,
            };
            admit(known, brought, data, &attempt, http).await
        }
        // As what it says it is.
        Verdict::Accept(None, data) => {
            let username = attempt.username.clone();
            let known = broker::Identity { username, ..broker::Identity::default() };
            admit(known, None, data, &attempt, http).await
        }
        Verdict::Continue(exchange, data) => {
            broker::Verdict::Continue(Box::new(Waiting { exchange, attempt, http }), data)
        }
        Verdict::Refuse(denial, why) => broker::Verdict::Refuse(reason(denial), why),
    }
}

/// Lets a client in, once its rules are known.
async fn admit(
    identity: broker::Identity,
    brought: Option<Rules>,
    data: Option<Box<[u8]>>,
    attempt: &Attempt,
    http: Option<Arc<HttpRules>>,
) -> broker::Verdict {
    let mut served = None;
    if let Some(http) = http {
        let asking = Asking {
            client_id: &attempt.client_id,
            username: identity.authenticator.as_ref().and(identity.username.as_deref()),
            groups: &identity.groups,
            address: attempt.address,
            listener: &attempt.listener,
        };
        match http.of(&asking).await {
            Ok(rules) => served = Some(rules),
            Err(why) => {
                let why = format!("its access rules are not known: {why}");
                return broker::Verdict::Refuse(ReasonCode::ServerUnavailable, why.into());
            }
        }
    }
    let own = OwnRules { brought, served };
    let grants = (!own.is_empty()).then(|| Arc::new(own) as Arc<dyn broker::Grants>);
    broker::Verdict::Accept(Arc::new(broker::Identity { grants, ..identity }), data)
}

/// An exchange that waits for the client.
#[derive(Debug)]
struct Waiting {
    exchange: Box<Exchange>,
    attempt: Attempt,
    http: Option<Arc<HttpRules>>,
}

impl broker::Exchange for Waiting {
    fn answer(self: Box<Self>, data: &[u8]) -> broker::Answer {
        let Self { exchange, attempt, http } = *self;
        let answered = exchange.answer(data);
        Box::pin(verdict(answered, attempt, http))
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
