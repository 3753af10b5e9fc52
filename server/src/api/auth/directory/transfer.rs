//! Users and tokens as they are carried elsewhere and taken up: for backups.
//!
//! What the configuration declares stands in the configuration, and isn't among them.

use std::collections::{BTreeMap, BTreeSet};

use access::authentication::is_argon2id;

use super::{ChangeError, Directory, ENTRIES_MAX, Kept, TokenEntry, UserEntry, admins, stamp};
use crate::api::auth::account::is_name;
use crate::api::auth::secret::Digest;
use crate::api::auth::{AREAS, is_scope};
use crate::backup::{TokenRecord, UserRecord};

/// Longest hash of a password, in bytes.
const HASH_BYTES_MAX: usize = 512;
/// Longest text that says who made a token, in bytes.
const CREATED_BY_BYTES_MAX: usize = 256;

/// What taking up users and tokens comes to: names, with `added`, `changed` or `removed`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::api) struct AccountChanges {
    pub(in crate::api) users: Vec<(String, &'static str)>,
    pub(in crate::api) tokens: Vec<(String, &'static str)>,
}

/// Users and tokens that are to be taken up.
#[derive(Debug, Default)]
pub(in crate::api) struct Accounts {
    pub(in crate::api) users: Vec<UserRecord>,
    pub(in crate::api) tokens: Vec<TokenRecord>,
    /// Whether every other one goes.
    pub(in crate::api) prune: bool,
}

impl Directory {
    /// Those that the gateway keeps, at one moment.
    pub(in crate::api) fn copy(&self) -> (Vec<UserRecord>, Vec<TokenRecord>) {
        let kept = self.kept.read();
        let users = kept.users.iter().map(|(name, entry)| UserRecord {
            name: name.clone(),
            role: entry.role,
            password_hash: entry.password.clone(),
            created_at_ms: entry.created_at_ms,
        });
        let tokens = kept.tokens.iter().map(|(name, entry)| TokenRecord {
            name: name.clone(),
            role: entry.role,
            scopes: entry.scopes.clone(),
            sha256: entry.sha256.clone(),
            expires_at_ms: entry.expires_at_ms,
            created_at_ms: entry.created_at_ms,
            created_by: entry.created_by.clone(),
        });
        (users.collect(), tokens.collect())
    }

    /// Says what taking these up would come to.
    pub(in crate::api) fn try_take_up(&self, accounts: &Accounts) -> Result<AccountChanges, ChangeError> {
        plan(&self.declared, &mut self.kept.read().clone(), accounts)
    }

    /// Takes them up, all or none. Sessions of users that differ end.
    pub(in crate::api) fn take_up(&self, accounts: &Accounts) -> Result<AccountChanges, ChangeError> {
        let mut changes = AccountChanges::default();
        self.change(|declared, kept| {
            changes = plan(declared, kept, accounts)?;
            Ok(())
        })?;
        Ok(changes)
    }
}

fn plan(declared: &Kept, kept: &mut Kept, accounts: &Accounts) -> Result<AccountChanges, ChangeError> {
    let had_admin = admins(declared) + admins(kept) > 0;
    let mut changes = AccountChanges::default();
    for user in &accounts.users {
        check_user(user)?;
        if declared.users.contains_key(&user.name) {
            return Err(ChangeError::Declared("user", user.name.clone()));
        }
        let before = kept.users.get(&user.name);
        if before.is_some_and(|before| before.role == user.role && before.password == user.password_hash) {
            continue;
        }
        changes.users.push((user.name.clone(), if before.is_some() { "changed" } else { "added" }));
        let (role, password, created_at_ms) = (user.role, user.password_hash.clone(), user.created_at_ms);
        kept.users.insert(user.name.clone(), UserEntry { role, password, stamp: stamp()?, created_at_ms });
    }
    for token in &accounts.tokens {
        check_token(token)?;
        if declared.tokens.contains_key(&token.name) {
            return Err(ChangeError::Declared("token", token.name.clone()));
        }
        let entry = TokenEntry {
            role: token.role,
            scopes: token.scopes.clone(),
            sha256: token.sha256.clone(),
            expires_at_ms: token.expires_at_ms,
            created_at_ms: token.created_at_ms,
            created_by: token.created_by.clone(),
        };
        let before = kept.tokens.get(&token.name);
        if before != Some(&entry) {
            changes.tokens.push((token.name.clone(), if before.is_some() { "changed" } else { "added" }));
            kept.tokens.insert(token.name.clone(), entry);
        }
    }
    if accounts.prune {
        let users = accounts.users.iter().map(|user| user.name.as_str()).collect();
        let tokens = accounts.tokens.iter().map(|token| token.name.as_str()).collect();
        changes.users.extend(prune(&mut kept.users, &users));
        changes.tokens.extend(prune(&mut kept.tokens, &tokens));
    }
    if kept.users.len() > ENTRIES_MAX {
        return Err(ChangeError::Full("user"));
    }
    if kept.tokens.len() > ENTRIES_MAX {
        return Err(ChangeError::Full("token"));
    }
    // Whoever administered the gateway has to be able to go on.
    if had_admin && admins(declared) + admins(kept) == 0 {
        return Err(ChangeError::NoAdmin);
    }
    Ok(changes)
}

/// Takes out what isn't wanted.
fn prune<T>(entries: &mut BTreeMap<String, T>, wanted: &BTreeSet<&str>) -> Vec<(String, &'static str)> {
    let gone: Vec<String> = entries.keys().filter(|name| !wanted.contains(name.as_str())).cloned().collect();
    gone.into_iter()
        .map(|name| {
            entries.remove(&name);
            (name, "removed")
        })
        .collect()
}

fn check_user(user: &UserRecord) -> Result<(), ChangeError> {
    let invalid = |why| Err(ChangeError::Invalid("user", user.name.escape_default().to_string(), why));
    if !is_name(&user.name) {
        return invalid("that is no name of a user");
    }
    if user.password_hash.len() > HASH_BYTES_MAX || !is_argon2id(&user.password_hash) {
        return invalid("its password is no Argon2id hash");
    }
    Ok(())
}

fn check_token(token: &TokenRecord) -> Result<(), ChangeError> {
    let invalid = |why| Err(ChangeError::Invalid("token", token.name.escape_default().to_string(), why));
    if !is_name(&token.name) {
        return invalid("that is no name of a token");
    }
    if Digest::from_hex(&token.sha256).is_none() {
        return invalid("its sha256 isn't 64 hexadecimal digits");
    }
    if token.scopes.iter().flatten().any(|scope| !is_scope(scope)) {
        return invalid("one of its scopes isn't known");
    }
    if token.scopes.iter().flatten().count() > 2 * AREAS.len() {
        return invalid("it has more scopes than there are");
    }
    if token.created_by.len() > CREATED_BY_BYTES_MAX {
        return invalid("who made it is too long a text");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Role;
    use crate::config::Admin;

    const HASH: &str =
        "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTI";

    fn directory() -> Directory {
        let config = format!("[[users]]\nname = 'eve'\nrole = 'viewer'\npassword_hash = '{HASH}'\n");
        Directory::open(&toml::from_str::<Admin>(&config).unwrap(), None).unwrap()
    }

    fn user(name: &str, role: Role) -> UserRecord {
        UserRecord { name: name.to_owned(), role, password_hash: HASH.to_owned(), created_at_ms: 7 }
    }

    fn token(name: &str) -> TokenRecord {
        TokenRecord {
            name: name.to_owned(),
            role: Role::Viewer,
            scopes: Some(vec!["rules:read".to_owned()]),
            sha256: "ab".repeat(32),
            expires_at_ms: Some(9),
            created_at_ms: 8,
            created_by: "ada".to_owned(),
        }
    }

    fn users(users: Vec<UserRecord>, prune: bool) -> Accounts {
        Accounts { users, tokens: Vec::new(), prune }
    }

    #[test]
    fn an_administrator_and_what_the_configuration_declares_stay() {
        let directory = directory();
        let of_eve = directory.take_up(&users(vec![user("eve", Role::Admin)], false));
        assert!(matches!(of_eve, Err(ChangeError::Declared("user", _))));
        directory.take_up(&users(vec![user("ada", Role::Admin)], false)).unwrap();
        for (some, prune) in [(vec![user("ada", Role::Viewer)], false), (Vec::new(), true)] {
            let accounts = users(some, prune);
            assert!(matches!(directory.try_take_up(&accounts), Err(ChangeError::NoAdmin)));
            assert!(matches!(directory.take_up(&accounts), Err(ChangeError::NoAdmin)));
        }
        let other = directory.take_up(&users(vec![user("bob", Role::Admin)], true)).unwrap();
        assert_eq!(other.users, [("bob".to_owned(), "added"), ("ada".to_owned(), "removed")]);
        assert!(directory.user("eve").is_some() && directory.user("ada").is_none());
    }

    #[test]
    fn sessions_of_users_that_differ_end_and_others_go_on() {
        let directory = directory();
        let both = vec![user("ada", Role::Admin), user("bob", Role::Viewer)];
        directory.take_up(&users(both, false)).unwrap();
        let stamp = |name| directory.user(name).unwrap().stamp;
        let before = (stamp("ada"), stamp("bob"));
        let changes =
            directory.take_up(&users(vec![user("ada", Role::Admin), user("bob", Role::Operator)], false));
        assert_eq!(changes.unwrap().users, [("bob".to_owned(), "changed")]);
        assert_eq!(stamp("ada"), before.0);
        assert_ne!(stamp("bob"), before.1);
    }

    #[test]
    fn as_many_as_the_limit_are_taken_up_and_no_more() {
        let directory = directory();
        let many: Vec<UserRecord> =
            (0..=ENTRIES_MAX).map(|number| user(&format!("u{number}"), Role::Admin)).collect();
        directory.take_up(&users(many[1..].to_vec(), true)).unwrap();
        assert!(matches!(directory.take_up(&users(many, true)), Err(ChangeError::Full("user"))));
        let many: Vec<TokenRecord> = (0..=ENTRIES_MAX).map(|number| token(&format!("t{number}"))).collect();
        let tokens = |tokens: &[TokenRecord]| Accounts { tokens: tokens.to_vec(), ..Accounts::default() };
        directory.take_up(&tokens(&many[1..])).unwrap();
        assert!(matches!(directory.take_up(&tokens(&many)), Err(ChangeError::Full("token"))));
    }

    #[test]
    fn what_nobody_could_have_made_is_refused() {
        let directory = directory();
        let good = token("ci");
        let scopes = |count: usize| Some(vec!["rules:read".to_owned(); count]);
        let taken = |token: TokenRecord| {
            directory.take_up(&Accounts { tokens: vec![token], ..Accounts::default() }).is_ok()
        };
        assert!(taken(good.clone()));
        assert!(taken(TokenRecord { scopes: scopes(2 * AREAS.len()), ..good.clone() }));
        assert!(taken(TokenRecord { created_by: "x".repeat(CREATED_BY_BYTES_MAX), ..good.clone() }));
        for bad in [
            TokenRecord { name: "a b".into(), ..good.clone() },
            TokenRecord { sha256: "ab".repeat(31), ..good.clone() },
            TokenRecord { scopes: Some(vec!["everything".into()]), ..good.clone() },
            TokenRecord { scopes: scopes(2 * AREAS.len() + 1), ..good.clone() },
            TokenRecord { created_by: "x".repeat(CREATED_BY_BYTES_MAX + 1), ..good },
        ] {
            assert!(!taken(bad.clone()), "{bad:?}");
        }
        for (name, password_hash) in [("", HASH), ("a/b", HASH), ("ada", ""), ("ada", &*"x".repeat(600))] {
            let user = UserRecord {
                name: name.into(),
                password_hash: password_hash.into(),
                ..user("", Role::Viewer)
            };
            assert!(matches!(
                directory.take_up(&users(vec![user], false)),
                Err(ChangeError::Invalid("user", ..))
            ));
        }
    }
}
