//! Whose a Client Identifier, and the session under it, is.
//!
//! A Client Identifier is what a client says. Two things keep one user's client from taking what is another's:
//!
//! - a listener may hold Client Identifiers to user names ([`ClientIds`]);
//! - a session is its user's. A client of another user is refused, before anything of the session is touched, unless its listener
//!   says otherwise ([`Takeover`]): it would get the queue and the Subscriptions of that user, or end them.
//!
//! Only a user name that was proven counts. The session of a client without one is nobody's, and anybody's, as it is without
//! authentication.

use mqtt_protocol::ReasonCode;

use super::connect::Refusal;
use crate::access::Identity;
use crate::listeners::{ClientIds, Takeover};
use crate::metrics::Metrics;

/// What parts the user name from the rest of a Client Identifier.
const SEPARATOR: char = ':';

/// The user whose sessions these are; `None`: nobody.
pub(super) fn owner(identity: &Identity) -> Option<&str> {
    identity.authenticator.as_ref()?;
    identity.username.as_deref().filter(|name| !name.is_empty())
}

/// The Client Identifiers of a listener.
#[derive(Debug, Clone, Copy)]
pub(super) struct ClientIdRule {
    pub(super) may_be: ClientIds,
    pub(super) bytes_max: u16,
}

impl ClientIdRule {
    /// The identifier that a client gets which gave none; `random` is one that nobody else has.
    pub(super) fn assigned(self, user: Option<&str>, random: &str) -> Box<str> {
        match (self.may_be, user) {
            (ClientIds::Username, Some(user)) => user.into(),
            (ClientIds::Prefix, Some(user)) => format!("{user}{SEPARATOR}{random}").into(),
            (ClientIds::Any | ClientIds::Username | ClientIds::Prefix, _) => random.into(),
        }
    }

    /// Refuses an identifier that isn't the user's.
    pub(super) fn check(self, user: Option<&str>, client_id: &str) -> Result<(), Refusal> {
        let is_the_users = match self.may_be {
            ClientIds::Any => true,
            ClientIds::Username => user == Some(client_id),
            ClientIds::Prefix => user.and_then(|user| client_id.strip_prefix(user)).is_some_and(|rest| {
                // Without the separator, `ada` would be a prefix of what is `adam`'s.
                rest.is_empty() || rest.starts_with(SEPARATOR)
            }),
        };
        let why = if !is_the_users {
            "the Client Identifier is not one of the user's"
        } else if client_id.len() > usize::from(self.bytes_max) {
            "the Client Identifier made of the user name is longer than the limit"
        } else {
            return Ok(());
        };
        Err(Refusal::new(ReasonCode::ClientIdentifierNotValid, why))
    }
}

/// Refuses a session to a client that isn't its owner's.
pub(super) fn check_owner(
    takeover: Takeover,
    owner: Option<&str>,
    user: Option<&str>,
    metrics: &Metrics,
) -> Result<(), Refusal> {
    if takeover == Takeover::Anyone || owner.is_none() || owner == user {
        return Ok(());
    }
    metrics.takeovers_refused.add(1);
    Err(Refusal::new(ReasonCode::NotAuthorized, "the session is another user's"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(may_be: ClientIds) -> ClientIdRule {
        ClientIdRule { may_be, bytes_max: 12 }
    }

    #[test]
    fn identifiers_are_held_to_the_user_name() {
        for (may_be, user, client_id, expected) in [
            (ClientIds::Any, None, "x", true),
            (ClientIds::Any, Some("ada"), "bob", true),
            (ClientIds::Username, Some("ada"), "ada", true),
            (ClientIds::Username, Some("ada"), "Ada", false),
            (ClientIds::Username, Some("ada"), "ada:1", false),
            (ClientIds::Username, Some("ada"), "", false),
            (ClientIds::Username, None, "ada", false),
            (ClientIds::Prefix, Some("ada"), "ada", true),
            (ClientIds::Prefix, Some("ada"), "ada:", true),
            (ClientIds::Prefix, Some("ada"), "ada:pump:1", true),
            (ClientIds::Prefix, Some("ada"), "adam", false),
            (ClientIds::Prefix, Some("ada"), "bob:ada", false),
            (ClientIds::Prefix, None, "ada", false),
            (ClientIds::Prefix, None, ":", false),
        ] {
            assert_eq!(
                rule(may_be).check(user, client_id).is_ok(),
                expected,
                "{may_be:?} {user:?} {client_id}"
            );
        }
        assert!(rule(ClientIds::Username).check(Some("twelve-bytes"), "twelve-bytes").is_ok());
        assert!(rule(ClientIds::Username).check(Some("thirteen-byte"), "thirteen-byte").is_err());
    }

    #[test]
    fn what_is_assigned_is_the_users() {
        for may_be in [ClientIds::Any, ClientIds::Username, ClientIds::Prefix] {
            let rule = rule(may_be);
            assert!(rule.check(Some("ada"), &rule.assigned(Some("ada"), "r")).is_ok(), "{may_be:?}");
            assert_eq!(rule.check(None, &rule.assigned(None, "r")).is_ok(), may_be == ClientIds::Any);
        }
        assert_eq!(&*rule(ClientIds::Prefix).assigned(Some("ada"), "r"), "ada:r");
    }

    #[test]
    fn a_session_is_its_owners() {
        let metrics = Metrics::default();
        for (owner, user, expected) in [
            (None, None, true),
            (None, Some("ada"), true),
            (Some("ada"), Some("ada"), true),
            (Some("ada"), Some("bob"), false),
            (Some("ada"), None, false),
        ] {
            let may = check_owner(Takeover::SameUser, owner, user, &metrics).is_ok();
            assert_eq!(may, expected, "{owner:?} {user:?}");
            assert!(check_owner(Takeover::Anyone, owner, user, &metrics).is_ok());
        }
        assert_eq!(metrics.takeovers_refused.get(), 2);
    }

    #[test]
    fn a_name_that_is_not_proven_owns_nothing() {
        let said = Identity { username: Some("ada".into()), ..Identity::default() };
        assert_eq!(owner(&said), None);
        let proven = Identity { authenticator: Some("users".into()), ..said };
        assert_eq!(owner(&proven), Some("ada"));
        assert_eq!(owner(&Identity { username: Some("".into()), ..proven.clone() }), None);
        assert_eq!(owner(&Identity { username: None, ..proven }), None);
    }
}
