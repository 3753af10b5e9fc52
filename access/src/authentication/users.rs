//! The file of users: one line for each, `name:hash`.
//!
//! A file is taken as a whole or not at all: a line that isn't understood must never leave a user without a password, nor a
//! file that is half there lock everybody out who isn't in that half. So a file with a fault, or without any user, is
//! refused at a start, and changes nothing later. Lines that begin with `#` and empty lines are skipped. What is written
//! replaces the file in one step, so that a reader sees the old one or the new one.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::verifier::Verifier;

/// Largest file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Longest user name, in bytes: what MQTT can carry.
const NAME_BYTES_MAX: usize = 65_535;
/// Access to a file that we make: for its owner.
const MODE: u32 = 0o600;

/// What is wrong with a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LineFault {
    /// There is no colon.
    #[error("it isn't of the form name:hash")]
    NoColon,
    /// The user name can't be one.
    #[error("the user name is empty, too long or has control characters")]
    Name,
    /// The user is there twice.
    #[error("the user is on line {0} already")]
    Twice(usize),
    /// The hash is in none of the notations.
    #[error("the hash is in no notation that is understood")]
    Notation,
    /// The hash is no base64.
    #[error("the hash or its salt is not base64")]
    Base64,
    /// The hash has another length than its function gives.
    #[error("the hash or its salt has the wrong length")]
    Length,
    /// The hash would cost too much, or hardly anything.
    #[error("the costs of the hash are outside the limits")]
    Cost,
    /// A line for SCRAM is needed.
    #[error("SCRAM needs lines that `tidegate passwd --scram` makes")]
    NotScram,
}

/// Why a file of users isn't taken. No message repeats a line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UsersError {
    /// It can't be read.
    #[error("{} can't be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It can't be written.
    #[error("{} can't be written", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is too large.
    #[error("{} is larger than the limit of {FILE_BYTES_MAX} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// It is no text.
    #[error("{} is not UTF-8", path.display())]
    NotText {
        /// The file.
        path: PathBuf,
    },
    /// A line isn't understood.
    #[error("{}, line {line}: {fault}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Number of the line, from 1.
        line: usize,
        /// What is wrong with it.
        fault: LineFault,
    },
    /// It names no user.
    #[error("{} has no user", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// The user to take out isn't there.
    #[error("{} has no user of this name", path.display())]
    NoSuchUser {
        /// The file.
        path: PathBuf,
    },
    /// The user name can't be one.
    #[error("this user name can't be used: {0}")]
    Name(LineFault),
}

/// Which lines a file may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Any: passwords are checked against them.
    Any,
    /// SCRAM only.
    Scram,
}

/// The users of a file.
pub(crate) struct Users {
    by_name: HashMap<Box<str>, Arc<Verifier>>,
    /// What a check of a user who isn't there has to cost.
    costliest: Arc<Verifier>,
}

impl Users {
    pub(crate) fn find(&self, name: &str) -> Option<&Arc<Verifier>> {
        self.by_name.get(name)
    }

    pub(crate) fn costliest(&self) -> &Arc<Verifier> {
        &self.costliest
    }

    pub(crate) fn len(&self) -> usize {
        self.by_name.len()
    }

    fn parse(path: &Path, text: &str, kind: Kind) -> Result<Self, UsersError> {
        let mut by_name: HashMap<Box<str>, Arc<Verifier>> = HashMap::new();
        let mut lines_of = HashMap::new();
        let mut costliest = None;
        for (number, line) in lines(text) {
            let fail = |fault| Err(UsersError::Line { path: path.to_owned(), line: number, fault });
            let (name, verifier) =
                match split(line).and_then(|(name, hash)| Ok((name, Verifier::parse(hash)?))) {
                    Ok(parts) => parts,
                    Err(fault) => return fail(fault),
                };
            if kind == Kind::Scram && !matches!(verifier, Verifier::ScramSha256(_)) {
                return fail(LineFault::NotScram);
            }
            match lines_of.entry(name) {
                Entry::Occupied(first) => return fail(LineFault::Twice(*first.get())),
                Entry::Vacant(place) => drop(place.insert(number)),
            }
            let verifier = Arc::new(verifier);
            // Of several alike the first, so that a user who is added changes nothing for those who don't exist.
            if costliest.as_ref().is_none_or(|known: &Arc<Verifier>| known.cost() < verifier.cost()) {
                costliest = Some(Arc::clone(&verifier));
            }
            by_name.insert(name.into(), verifier);
        }
        let costliest = costliest.ok_or_else(|| UsersError::Empty { path: path.to_owned() })?;
        Ok(Self { by_name, costliest })
    }
}

/// The lines that count, with their numbers.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    (1..).zip(text.lines()).filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

fn split(line: &str) -> Result<(&str, &str), LineFault> {
    let (name, hash) = line.split_once(':').ok_or(LineFault::NoColon)?;
    check_name(name)?;
    Ok((name, hash))
}

fn check_name(name: &str) -> Result<(), LineFault> {
    let fits = !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && !name.starts_with('#')
        && !name.contains(|c: char| c.is_control() || c == ':');
    if fits { Ok(()) } else { Err(LineFault::Name) }
}

/// How many users a text names that is to be a file of users.
///
/// # Errors
/// [`UsersError`], as for a file.
pub fn users_in(text: &str) -> Result<usize, UsersError> {
    Users::parse(Path::new("file of users"), text, Kind::Any).map(|users| users.len())
}

/// What tells that a file was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    bytes: u64,
    modified: Option<SystemTime>,
}

impl Stamp {
    fn of(metadata: &fs::Metadata) -> Self {
        Self { inode: metadata.ino(), bytes: metadata.len(), modified: metadata.modified().ok() }
    }
}

/// A file of users that is read again when it changes.
pub struct UsersFile {
    path: PathBuf,
    kind: Kind,
    users: ArcSwap<Users>,
    seen: Mutex<Option<Stamp>>,
}

impl std::fmt::Debug for UsersFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UsersFile")
            .field("path", &self.path)
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

impl UsersFile {
    /// Reads a file.
    ///
    /// # Errors
    /// [`UsersError`].
    pub(crate) fn open(path: &Path, kind: Kind) -> Result<Self, UsersError> {
        let (users, stamp) = load(path, kind)?;
        Ok(Self {
            path: path.to_owned(),
            kind,
            users: ArcSwap::from_pointee(users),
            seen: Mutex::new(Some(stamp)),
        })
    }

    /// The users as last read.
    pub(crate) fn users(&self) -> Arc<Users> {
        self.users.load_full()
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the file again if it isn't as it was at the last look. Returns how many users it has, `None` if it is the same.
    ///
    /// # Errors
    /// [`UsersError`]; then the users are those of before. The same fault isn't told again until the file changes again.
    pub fn refresh(&self) -> Result<Option<usize>, UsersError> {
        let mut seen = self.seen.lock();
        let stamp = fs::metadata(&self.path).ok().map(|metadata| Stamp::of(&metadata));
        if stamp == *seen {
            return Ok(None);
        }
        *seen = stamp;
        let (users, stamp) = load(&self.path, self.kind)?;
        *seen = Some(stamp);
        let count = users.len();
        self.users.store(Arc::new(users));
        Ok(Some(count))
    }
}

fn load(path: &Path, kind: Kind) -> Result<(Users, Stamp), UsersError> {
    let (text, metadata) = read(path)?;
    let mode = metadata.permissions().mode();
    if mode & 0o026 != 0 {
        tracing::warn!(
            path = %path.display(), mode = %format_args!("{:03o}", mode & 0o777),
            "others than its owner can read or change the file of users; 600 is enough"
        );
    }
    Ok((Users::parse(path, &text, kind)?, Stamp::of(&metadata)))
}

fn read(path: &Path) -> Result<(String, fs::Metadata), UsersError> {
    let cannot_read = |source| UsersError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(cannot_read)?;
    // Of the file that is read, not of another one that took its place meanwhile.
    let metadata = file.metadata().map_err(cannot_read)?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(cannot_read)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(UsersError::TooLarge { path: path.to_owned() });
    }
    let text = String::from_utf8(bytes).map_err(|_| UsersError::NotText { path: path.to_owned() })?;
    Ok((text, metadata))
}

/// A change of a file of users.
#[derive(Clone, Copy)]
pub enum Change<'a> {
    /// Sets the hash of a user who may be new.
    Set(&'a str),
    /// Takes a user out.
    Delete,
}

impl std::fmt::Debug for Change<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Set(_) => "Set",
            Self::Delete => "Delete",
        })
    }
}

/// Changes a file of users, which is made if it isn't there; returns how many users it has then. Lines of other users, comments,
/// owner and access stay.
///
/// # Errors
/// [`UsersError`], for a fault in any line too; then the file is as it was.
pub fn edit(path: &Path, user: &str, change: Change<'_>) -> Result<usize, UsersError> {
    check_name(user).map_err(UsersError::Name)?;
    let (text, metadata) = match read(path) {
        Ok((text, metadata)) => (text, Some(metadata)),
        Err(UsersError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            (String::new(), None)
        }
        Err(error) => return Err(error),
    };
    match Users::parse(path, &text, Kind::Any) {
        Ok(_) | Err(UsersError::Empty { .. }) => {}
        Err(error) => return Err(error),
    }
    let is_theirs = |line: &str| split(line).is_ok_and(|(name, _)| name == user) && !line.starts_with('#');
    let mut found = false;
    let mut changed = String::with_capacity(text.len() + 256);
    for line in text.lines() {
        if is_theirs(line) {
            found = true;
            if let Change::Set(hash) = change {
                push(&mut changed, &[user, ":", hash]);
            }
        } else {
            push(&mut changed, &[line]);
        }
    }
    match change {
        Change::Set(hash) if !found => push(&mut changed, &[user, ":", hash]),
        Change::Delete if !found => return Err(UsersError::NoSuchUser { path: path.to_owned() }),
        Change::Set(_) | Change::Delete => {}
    }
    let count = match Users::parse(path, &changed, Kind::Any) {
        Ok(users) => users.len(),
        Err(UsersError::Empty { .. }) => 0,
        Err(error) => return Err(error),
    };
    replace(path, changed.as_bytes(), metadata.as_ref())
        .map_err(|source| UsersError::Write { path: path.to_owned(), source })?;
    Ok(count)
}

fn push(text: &mut String, parts: &[&str]) {
    parts.iter().for_each(|part| text.push_str(part));
    text.push('\n');
}

/// Puts a new file in the place of the old one, in one step.
fn replace(path: &Path, bytes: &[u8], old: Option<&fs::Metadata>) -> io::Result<()> {
    // What a link points to is replaced, not the link.
    let path = if old.is_some() { fs::canonicalize(path)? } else { path.to_owned() };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let beside = folder.join(name);
    let written = write_new(&beside, bytes, old).and_then(|()| fs::rename(&beside, &path));
    if written.is_err() {
        drop(fs::remove_file(&beside));
    }
    written?;
    File::open(folder)?.sync_all()
}

fn write_new(path: &Path, bytes: &[u8], old: Option<&fs::Metadata>) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(path)?;
    file.write_all(bytes)?;
    if let Some(old) = old {
        std::os::unix::fs::fchown(&file, Some(old.uid()), Some(old.gid()))?;
        file.set_permissions(fs::Permissions::from_mode(old.permissions().mode() & 0o777))?;
    }
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::super::verifier::{argon2id, scram_sha_256};
    use super::*;

    const PBKDF2: &str = "$7$101$UsXfrsPcVjpjTi+n$QyxYvJkC/35ogZI3b/2wPSd3if6wmKgK8gPHD7LuPrKbZ3chVNbcv2+GT06vZfwadP1fct4lS6kAHUC1QN1F8Q==";

    fn parse(text: &str, kind: Kind) -> Result<Users, String> {
        Users::parse(Path::new("passwd"), text, kind).map_err(|error| error.to_string())
    }

    fn refusal(text: &str) -> String {
        parse(text, Kind::Any).err().unwrap()
    }

    #[test]
    fn users_are_found_between_comments_and_empty_lines() {
        let users =
            parse(&format!("# ours\n\nada:{PBKDF2}\r\nbob smith:{PBKDF2}\n"), Kind::Any).ok().unwrap();
        assert_eq!(users.len(), 2);
        assert!(users.find("ada").unwrap().verify(b"wonderland"));
        assert!(users.find("bob smith").is_some());
        for other in ["", "Ada", "ada ", "#", "bob"] {
            assert!(users.find(other).is_none());
        }
    }

    #[test]
    fn one_bad_line_refuses_the_file_and_its_number_is_told_but_not_its_text() {
        for (line, why) in [
            ("bob", "it isn't of the form name:hash"),
            ("bob:", "the hash is in no notation that is understood"),
            ("bob:hunter2", "the hash is in no notation that is understood"),
            (" ", "it isn't of the form name:hash"),
            (":$6$", "the user name is empty, too long or has control characters"),
            ("b\u{7}b:x", "the user name is empty, too long or has control characters"),
            ("bob:$7$101$UsXfrsPcVjpjTi+n$QyxYvJkC", "the hash or its salt has the wrong length"),
        ] {
            let said = refusal(&format!("ada:{PBKDF2}\n{line}\n"));
            assert_eq!(said, format!("passwd, line 2: {why}"), "{line}");
        }
        let twice = refusal(&format!("ada:{PBKDF2}\n\nada:{PBKDF2}\n"));
        assert_eq!(twice, "passwd, line 3: the user is on line 1 already");
    }

    #[test]
    fn a_file_without_users_is_refused() {
        for text in ["", "\n\n", "# nobody\n"] {
            assert_eq!(refusal(text), "passwd has no user");
        }
    }

    #[test]
    fn a_file_for_scram_takes_nothing_else() {
        let scram = scram_sha_256(b"x").unwrap();
        assert!(parse(&format!("ada:{scram}\n"), Kind::Scram).is_ok());
        let said = parse(&format!("ada:{scram}\nbob:{PBKDF2}\n"), Kind::Scram).err().unwrap();
        assert_eq!(said, "passwd, line 2: SCRAM needs lines that `tidegate passwd --scram` makes");
    }

    #[test]
    fn the_costliest_line_is_known() {
        let argon2id = argon2id(b"x").unwrap();
        let users = parse(&format!("a:{PBKDF2}\nb:{argon2id}\nc:{PBKDF2}\n"), Kind::Any).ok().unwrap();
        assert!(matches!(**users.costliest(), Verifier::Argon2id { .. }));
    }

    #[test]
    fn a_file_is_made_changed_and_left_as_it_was_where_it_isn_t_meant() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("passwd");
        assert_eq!(edit(&path, "ada", Change::Set(PBKDF2)).unwrap(), 1);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&path, format!("# ours\nada:{PBKDF2}\n\n# theirs\nbob:{PBKDF2}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let argon2id = argon2id(b"x").unwrap();
        assert_eq!(edit(&path, "ada", Change::Set(&argon2id)).unwrap(), 2);
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text, format!("# ours\nada:{argon2id}\n\n# theirs\nbob:{PBKDF2}\n"));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(edit(&path, "ada", Change::Delete).unwrap(), 1);
        assert!(matches!(edit(&path, "ada", Change::Delete), Err(UsersError::NoSuchUser { .. })));
        assert_eq!(edit(&path, "bob", Change::Delete).unwrap(), 0);
        assert_eq!(fs::read_to_string(&path).unwrap(), "# ours\n\n# theirs\n");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_with_a_fault_is_not_changed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("passwd");
        fs::write(&path, "ada\n").unwrap();
        assert!(matches!(edit(&path, "bob", Change::Set(PBKDF2)), Err(UsersError::Line { .. })));
        assert_eq!(fs::read_to_string(&path).unwrap(), "ada\n");
        fs::write(&path, format!("ada:{PBKDF2}\n")).unwrap();
        assert!(edit(&path, "bob", Change::Set("no hash")).is_err());
        for name in ["", "a:b", "a\nb", "#a"] {
            assert!(matches!(edit(&path, name, Change::Set(PBKDF2)), Err(UsersError::Name(_))), "{name:?}");
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("ada:{PBKDF2}\n"));
    }

    #[test]
    fn a_changed_file_is_read_again_and_a_broken_one_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("passwd");
        edit(&path, "ada", Change::Set(PBKDF2)).unwrap();
        let file = UsersFile::open(&path, Kind::Any).unwrap();
        assert_eq!(file.refresh().unwrap(), None);
        edit(&path, "bob", Change::Set(PBKDF2)).unwrap();
        assert_eq!(file.refresh().unwrap(), Some(2));
        assert_eq!(file.refresh().unwrap(), None);
        for broken in ["", "ada", "ada:$7$"] {
            fs::write(&path, broken).unwrap();
            assert!(file.refresh().is_err(), "{broken}");
            assert_eq!(file.refresh().unwrap(), None, "told once");
            assert_eq!(file.users().len(), 2);
        }
        fs::remove_file(&path).unwrap();
        assert!(matches!(file.refresh(), Err(UsersError::Read { .. })));
        assert_eq!(file.refresh().unwrap(), None);
        assert_eq!(file.users().len(), 2);
        edit(&path, "carl", Change::Set(PBKDF2)).unwrap();
        assert_eq!(file.refresh().unwrap(), Some(1));
    }

    #[test]
    fn a_missing_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("passwd");
        assert!(matches!(UsersFile::open(&path, Kind::Any), Err(UsersError::Read { .. })));
    }
}
