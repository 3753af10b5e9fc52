//! Who there is: users and tokens, declared in the configuration or kept in a file of the data directory.
//!
//! One owner each: what the configuration declares can't be changed here, and a name that both have is refused at the start with both
//! places named. The file is written whole beside the old one, synced, and put in its place: a crash leaves one or the other.

mod transfer;

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};

use super::secret::{self, Digest};
use super::{By, Caller, Role};
use crate::config::Admin;

pub(in crate::api) use transfer::{AccountChanges, Accounts};

/// The file in the data directory.
const NAME: &str = "admin-users.json";
/// Largest file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// Version of the file.
const VERSION: u32 = 1;
/// Most users, and most tokens, in the file.
pub(crate) const ENTRIES_MAX: usize = 1_000;

/// Why the directory isn't read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum DirectoryError {
    /// The system gives no random numbers.
    #[error("the system gives no random numbers")]
    NoRandomness,
    /// The file can't be read or written.
    #[error("{} can't be read or written", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file isn't one of ours.
    #[error("{} isn't understood: {why}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// In what way.
        why: String,
    },
    /// Both have it.
    #[error("{what} \"{name}\" is declared in the configuration ([[admin.{what}s]]) and kept in {}: remove one of them", path.display())]
    TwoOwners {
        /// `user` or `token`.
        what: &'static str,
        /// Its name.
        name: String,
        /// The file.
        path: PathBuf,
    },
}

/// Why a change isn't made.
#[derive(Debug, thiserror::Error)]
pub(in super::super) enum ChangeError {
    /// There is none of this name.
    #[error("there is no {0} \"{1}\"")]
    Missing(&'static str, String),
    /// There is one already.
    #[error("there is a {0} \"{1}\" already")]
    Taken(&'static str, String),
    /// The configuration owns it.
    #[error("the configuration declares the {0} \"{1}\": change it there")]
    Declared(&'static str, String),
    /// Nobody could administer the gateway any more.
    #[error("\"{0}\" is the last administrator")]
    LastAdmin(String),
    /// The same, of many changes at once.
    #[error("no administrator would be left")]
    NoAdmin,
    /// It can't be one.
    #[error("{0} \"{1}\": {2}")]
    Invalid(&'static str, String, &'static str),
    /// There are as many as may be.
    #[error("there are {ENTRIES_MAX} {0}s, which is the limit")]
    Full(&'static str),
    /// The file can't be written.
    #[error("it can't be kept")]
    Directory(#[from] DirectoryError),
}

/// Where an entry comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub(in super::super) enum Owner {
    /// The configuration.
    Config,
    /// The gateway.
    Store,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct UserEntry {
    role: Role,
    password: String,
    stamp: u64,
    created_at_ms: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenEntry {
    role: Role,
    scopes: Option<Vec<String>>,
    sha256: String,
    expires_at_ms: Option<i64>,
    created_at_ms: i64,
    created_by: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    version: u32,
    users: BTreeMap<String, UserEntry>,
    tokens: BTreeMap<String, TokenEntry>,
}

/// A user, to check a password against.
#[derive(Clone)]
pub(super) struct KnownUser {
    pub(super) role: Role,
    pub(super) password: String,
    pub(super) stamp: u64,
}

/// A user as it is shown.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(in super::super) struct User {
    /// Its name.
    name: String,
    role: Role,
    owner: Owner,
    /// Milliseconds since 1970; null for one of the configuration.
    created_at_ms: Option<i64>,
}

/// A token as it is shown: never the secret.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(in super::super) struct Token {
    /// Its name.
    name: String,
    role: Role,
    /// What it is held to; null: whatever its role may.
    scopes: Option<Vec<String>>,
    owner: Owner,
    /// Milliseconds since 1970; null: never.
    expires_at_ms: Option<i64>,
    created_at_ms: Option<i64>,
    created_by: Option<String>,
}

impl Token {
    pub(super) fn is_called(&self, name: &str) -> bool {
        self.name == name
    }
}

/// See the module.
#[derive(Debug)]
pub(in super::super) struct Directory {
    path: Option<PathBuf>,
    declared: Kept,
    kept: RwLock<Kept>,
    /// Held while the file is changed.
    writing: Mutex<()>,
}

impl Directory {
    pub(super) fn open(config: &Admin, data_dir: Option<&Path>) -> Result<Self, DirectoryError> {
        let path = data_dir.map(|folder| folder.join(NAME));
        let kept = path.as_deref().map_or_else(|| Ok(Kept::default()), read)?;
        let declared = declared(config);
        if let Some(path) = &path {
            let two = |what, name: &String| DirectoryError::TwoOwners {
                what,
                name: name.clone(),
                path: path.clone(),
            };
            if let Some(name) = declared.users.keys().find(|name| kept.users.contains_key(*name)) {
                return Err(two("user", name));
            }
            if let Some(name) = declared.tokens.keys().find(|name| kept.tokens.contains_key(*name)) {
                return Err(two("token", name));
            }
        }
        Ok(Self { path, declared, kept: RwLock::new(kept), writing: Mutex::default() })
    }

    /// Whether nobody could sign in or send a token.
    pub(in super::super) fn is_empty(&self) -> bool {
        let kept = self.kept.read();
        [&self.declared, &*kept].iter().all(|who| who.users.is_empty() && who.tokens.is_empty())
    }

    pub(super) fn user(&self, name: &str) -> Option<KnownUser> {
        let kept = self.kept.read();
        let entry = self.declared.users.get(name).or_else(|| kept.users.get(name))?;
        Some(KnownUser { role: entry.role, password: entry.password.clone(), stamp: entry.stamp })
    }

    /// Whose token it is.
    pub(super) fn token(&self, digest: &Digest, now_ms: i64) -> Option<Caller> {
        let kept = self.kept.read();
        let hex = digest.to_hex();
        let mut all = self.declared.tokens.iter().chain(&kept.tokens);
        let (name, entry) = all.find(|(_, entry)| entry.sha256.eq_ignore_ascii_case(&hex))?;
        if entry.expires_at_ms.is_some_and(|at_ms| at_ms <= now_ms) {
            return None;
        }
        let scopes = entry.scopes.clone();
        Some(Caller { name: format!("token {name}"), role: entry.role, scopes, by: By::Token })
    }

    pub(in super::super) fn users(&self) -> Vec<User> {
        let kept = self.kept.read();
        let show = |owner| {
            move |(name, entry): (&String, &UserEntry)| User {
                name: name.clone(),
                role: entry.role,
                owner,
                created_at_ms: (owner == Owner::Store).then_some(entry.created_at_ms),
            }
        };
        let declared = self.declared.users.iter().map(show(Owner::Config));
        declared.chain(kept.users.iter().map(show(Owner::Store))).collect()
    }

    pub(in super::super) fn tokens(&self) -> Vec<Token> {
        let kept = self.kept.read();
        let show = |owner| {
            move |(name, entry): (&String, &TokenEntry)| Token {
                name: name.clone(),
                role: entry.role,
                scopes: entry.scopes.clone(),
                owner,
                expires_at_ms: entry.expires_at_ms,
                created_at_ms: (owner == Owner::Store).then_some(entry.created_at_ms),
                created_by: (owner == Owner::Store).then(|| entry.created_by.clone()),
            }
        };
        let declared = self.declared.tokens.iter().map(show(Owner::Config));
        declared.chain(kept.tokens.iter().map(show(Owner::Store))).collect()
    }

    /// Makes a user of a hashed password.
    pub(super) fn create_user(
        &self,
        name: &str,
        role: Role,
        password: String,
        now_ms: i64,
    ) -> Result<(), ChangeError> {
        let name = name.to_owned();
        self.change(|declared, kept| {
            if declared.users.contains_key(&name) || kept.users.contains_key(&name) {
                return Err(ChangeError::Taken("user", name));
            }
            if kept.users.len() >= ENTRIES_MAX {
                return Err(ChangeError::Full("user"));
            }
            let stamp = stamp()?;
            kept.users.insert(name, UserEntry { role, password, stamp, created_at_ms: now_ms });
            Ok(())
        })
    }

    /// Gives a user another role or another hashed password; its sessions end.
    pub(super) fn change_user(
        &self,
        name: &str,
        role: Option<Role>,
        password: Option<String>,
    ) -> Result<(), ChangeError> {
        self.change(|declared, kept| {
            let is_last = is_last_admin(declared, kept, name);
            let entry = entry_mut(&mut kept.users, declared.users.contains_key(name), "user", name)?;
            if is_last && role.is_some_and(|role| role != Role::Admin) {
                return Err(ChangeError::LastAdmin(name.to_owned()));
            }
            entry.role = role.unwrap_or(entry.role);
            if let Some(password) = password {
                entry.password = password;
            }
            entry.stamp = stamp()?;
            Ok(())
        })
    }

    pub(super) fn delete_user(&self, name: &str) -> Result<(), ChangeError> {
        self.change(|declared, kept| {
            let is_last = is_last_admin(declared, kept, name);
            entry_mut(&mut kept.users, declared.users.contains_key(name), "user", name)?;
            if is_last {
                return Err(ChangeError::LastAdmin(name.to_owned()));
            }
            kept.users.remove(name);
            Ok(())
        })
    }

    /// Makes a token and returns its secret, which nobody can ask for again.
    pub(super) fn create_token(&self, new: NewToken<'_>, now_ms: i64) -> Result<String, ChangeError> {
        let secret = secret::random("tdt_").ok_or(DirectoryError::NoRandomness)?;
        let entry = TokenEntry {
            role: new.role,
            scopes: new.scopes,
            sha256: Digest::of(&secret).to_hex(),
            expires_at_ms: new.expires_at_ms,
            created_at_ms: now_ms,
            created_by: new.created_by.to_owned(),
        };
        let name = new.name.to_owned();
        self.change(|declared, kept| {
            if declared.tokens.contains_key(&name) || kept.tokens.contains_key(&name) {
                return Err(ChangeError::Taken("token", name));
            }
            if kept.tokens.len() >= ENTRIES_MAX {
                return Err(ChangeError::Full("token"));
            }
            kept.tokens.insert(name, entry);
            Ok(())
        })?;
        Ok(secret)
    }

    pub(super) fn delete_token(&self, name: &str) -> Result<(), ChangeError> {
        self.change(|declared, kept| {
            entry_mut(&mut kept.tokens, declared.tokens.contains_key(name), "token", name)?;
            kept.tokens.remove(name);
            Ok(())
        })
    }

    /// Makes a change on disk, then in memory: what is answered is safe.
    fn change(
        &self,
        change: impl FnOnce(&Kept, &mut Kept) -> Result<(), ChangeError>,
    ) -> Result<(), ChangeError> {
        let _writing = self.writing.lock();
        let mut changed = self.kept.read().clone();
        change(&self.declared, &mut changed)?;
        changed.version = VERSION;
        if let Some(path) = &self.path {
            let failed = |error: serde_json::Error| DirectoryError::Content {
                path: path.clone(),
                why: error.to_string(),
            };
            let mut bytes = serde_json::to_vec_pretty(&changed).map_err(failed)?;
            bytes.push(b'\n');
            write_file(path, &bytes)?;
        }
        *self.kept.write() = changed;
        Ok(())
    }
}

/// A token to be made.
pub(super) struct NewToken<'a> {
    pub(super) name: &'a str,
    pub(super) role: Role,
    pub(super) scopes: Option<Vec<String>>,
    pub(super) expires_at_ms: Option<i64>,
    pub(super) created_by: &'a str,
}

fn entry_mut<'a, T>(
    entries: &'a mut BTreeMap<String, T>,
    is_declared: bool,
    what: &'static str,
    name: &str,
) -> Result<&'a mut T, ChangeError> {
    if is_declared {
        return Err(ChangeError::Declared(what, name.to_owned()));
    }
    entries.get_mut(name).ok_or_else(|| ChangeError::Missing(what, name.to_owned()))
}

/// Whether the user is the only one who is an administrator.
fn is_last_admin(declared: &Kept, kept: &Kept, name: &str) -> bool {
    let is_admin = kept.users.get(name).is_some_and(|user| user.role == Role::Admin);
    is_admin && admins(declared) + admins(kept) == 1
}

/// How many administrators there are among users.
fn admins(who: &Kept) -> usize {
    who.users.values().filter(|user| user.role == Role::Admin).count()
}

/// A number that no user had before, so that older sessions end.
fn stamp() -> Result<u64, DirectoryError> {
    let secret = secret::random("").ok_or(DirectoryError::NoRandomness)?;
    let hex = Digest::of(&secret).to_hex();
    u64::from_str_radix(hex.get(..16).unwrap_or_default(), 16).map_err(|_| DirectoryError::NoRandomness)
}

fn declared(config: &Admin) -> Kept {
    let users = config.users.iter().map(|user| {
        let password = user.password_hash.as_str().to_owned();
        (user.name.clone(), UserEntry { role: user.role, password, stamp: 0, created_at_ms: 0 })
    });
    let tokens = config.tokens.iter().map(|token| {
        let entry = TokenEntry {
            role: token.role,
            scopes: token.scopes.clone(),
            sha256: token.sha256.as_str().to_owned(),
            expires_at_ms: None,
            created_at_ms: 0,
            created_by: String::new(),
        };
        (token.name.clone(), entry)
    });
    Kept { version: VERSION, users: users.collect(), tokens: tokens.collect() }
}

fn read(path: &Path) -> Result<Kept, DirectoryError> {
    let failed = |source| DirectoryError::File { path: path.to_owned(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Kept::default()),
        Err(error) => return Err(failed(error)),
    };
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    let content = |why: String| DirectoryError::Content { path: path.to_owned(), why };
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(content(format!("it is larger than {FILE_BYTES_MAX} bytes")));
    }
    let kept: Kept = serde_json::from_slice(&bytes).map_err(|error| content(error.to_string()))?;
    if kept.version != VERSION {
        return Err(content(format!("it is of version {}, and {VERSION} is known", kept.version)));
    }
    Ok(kept)
}

/// Puts a file in its place, whole or not at all, for its owner alone.
pub(in crate::api) fn write_file(path: &Path, bytes: &[u8]) -> Result<(), DirectoryError> {
    let write = || {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".new");
        let beside = path.with_file_name(name);
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
    };
    write().map_err(|source| DirectoryError::File { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn open(folder: &Path) -> Directory {
        Directory::open(&Admin::default(), Some(folder)).unwrap()
    }

    #[test]
    fn what_was_made_is_there_after_a_restart_and_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let directory = open(folder.path());
        assert!(directory.is_empty());
        directory.create_user("ada", Role::Admin, "hash".into(), 1).unwrap();
        let new = NewToken {
            name: "ci",
            role: Role::Viewer,
            scopes: None,
            expires_at_ms: Some(9),
            created_by: "ada",
        };
        let secret = directory.create_token(new, 1).unwrap();
        let path = folder.path().join(NAME);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!fs::read_to_string(&path).unwrap().contains(&secret), "the secret isn't kept");
        let again = open(folder.path());
        assert!(!again.is_empty());
        assert_eq!(again.user("ada").unwrap().password, "hash");
        let digest = Digest::of(&secret);
        assert_eq!(again.token(&digest, 8).unwrap().name, "token ci");
        assert!(again.token(&digest, 9).is_none(), "its time is over");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn the_last_administrator_stays() {
        let folder = tempfile::tempdir().unwrap();
        let directory = open(folder.path());
        directory.create_user("ada", Role::Admin, "h".into(), 1).unwrap();
        directory.create_user("bob", Role::Operator, "h".into(), 1).unwrap();
        assert!(matches!(directory.delete_user("ada"), Err(ChangeError::LastAdmin(_))));
        let demoted = directory.change_user("ada", Some(Role::Viewer), None);
        assert!(matches!(demoted, Err(ChangeError::LastAdmin(_))));
        directory.change_user("bob", Some(Role::Admin), None).unwrap();
        directory.delete_user("ada").unwrap();
        assert!(matches!(directory.delete_user("ada"), Err(ChangeError::Missing(..))));
        assert!(matches!(directory.delete_user("bob"), Err(ChangeError::LastAdmin(_))));
    }

    #[test]
    fn names_are_taken_once() {
        let folder = tempfile::tempdir().unwrap();
        let directory = open(folder.path());
        let create = || directory.create_user("ada", Role::Admin, "h".into(), 1);
        create().unwrap();
        assert!(matches!(create(), Err(ChangeError::Taken(..))));
    }

    #[test]
    fn a_file_that_is_not_understood_is_no_empty_one() {
        let folder = tempfile::tempdir().unwrap();
        for content in [
            "",
            "{",
            "{}",
            "[]",
            r#"{"version":2,"users":{},"tokens":{}}"#,
            r#"{"version":1,"users":{},"tokens":{},"x":1}"#,
        ] {
            fs::write(folder.path().join(NAME), content).unwrap();
            let opened = Directory::open(&Admin::default(), Some(folder.path()));
            assert!(matches!(opened, Err(DirectoryError::Content { .. })), "{content}");
        }
    }

    #[test]
    fn as_many_users_as_the_limit_and_no_more() {
        let directory = Directory::open(&Admin::default(), None).unwrap();
        let entry = UserEntry { role: Role::Viewer, password: String::new(), stamp: 1, created_at_ms: 1 };
        directory.kept.write().users =
            (1..ENTRIES_MAX).map(|number| (number.to_string(), entry.clone())).collect();
        directory.create_user("last", Role::Viewer, "h".into(), 1).unwrap();
        let one_more = directory.create_user("more", Role::Viewer, "h".into(), 1);
        assert!(matches!(one_more, Err(ChangeError::Full("user"))));
    }
}
