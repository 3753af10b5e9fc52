//! The record of changes: who changed what, from where, and what it was before and after.
//!
//! Every request that may change something and comes from somebody known is noted once it is answered, refusals included. Those of
//! nobody known aren't: whoever can reach the address could push everything else out of the record. What a handler knows of
//! the change it says with a [`Change`]; secrets never get into one.
//!
//! In the data directory the record is a file of one JSON object a line, `admin-audit.jsonl`. When it has [`FILE_BYTES_MAX`]
//! it becomes `admin-audit.1.jsonl`, in place of the one before: so much is kept at least, twice as much at most. The last
//! [`SHOWN_MAX`] entries are at hand for the interface, those of before the start among them.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponseParts, ResponseParts};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::auth::now_ms;
use super::extract::{Json, Query};
use super::paging::{cursor, limit, place};
use super::problem::Problem;

/// Bytes of the file at which another one is begun.
pub const FILE_BYTES_MAX: u64 = 4 << 20;
/// Entries at hand.
pub const SHOWN_MAX: usize = 1_000;
/// Most bytes of one text in an entry; the rest is cut off.
const TEXT_BYTES_MAX: usize = 512;
/// Most bytes of what was before, or is after, in an entry; what is longer is left out.
pub(super) const VALUE_BYTES_MAX: usize = 4 << 10;
/// Longest line that is read back, in bytes.
const LINE_BYTES_MAX: u64 = 32 << 10;

const NAME: &str = "admin-audit.jsonl";
const OLD_NAME: &str = "admin-audit.1.jsonl";

/// What a handler says of what it changed.
#[derive(Debug, Clone, Default)]
pub(super) struct Change {
    target: String,
    before: Option<Value>,
    after: Option<Value>,
    /// Who did it, where the handler alone knows.
    who: Option<String>,
}

impl Change {
    /// A change of what has this name.
    pub(super) fn of(target: impl Into<String>) -> Self {
        Self { target: target.into(), ..Self::default() }
    }

    /// What was there before.
    pub(super) fn before(self, before: Value) -> Self {
        Self { before: Some(before), ..self }
    }

    /// What is there now.
    pub(super) fn after(self, after: Value) -> Self {
        Self { after: Some(after), ..self }
    }

    /// Who did it: somebody whom the request made known.
    pub(super) fn by(self, who: &str) -> Self {
        Self { who: Some(who.to_owned()), ..self }
    }
}

/// A handler says it beside its answer.
impl IntoResponseParts for Change {
    type Error = std::convert::Infallible;

    fn into_response_parts(self, mut response: ResponseParts) -> Result<ResponseParts, Self::Error> {
        response.extensions_mut().insert(self);
        Ok(response)
    }
}

/// An entry of the record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = AuditEntry)]
pub(super) struct Entry {
    /// Counts up from 1.
    number: u64,
    /// Milliseconds since 1970.
    at_ms: i64,
    /// Name of a user, or `token` and the token's name.
    who: String,
    /// Address that the request came from, or `uid:` and a number: a user of this machine, by the administration socket.
    from: String,
    /// `operationId` of the request.
    operation: String,
    /// What it was about.
    target: String,
    /// Status of the answer: from 400 on, nothing was changed, unless `after` says what was.
    status: u16,
    /// What was there before.
    #[schema(value_type = Option<Object>)]
    before: Option<Value>,
    /// What is there now.
    #[schema(value_type = Option<Object>)]
    after: Option<Value>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Audit {
    folder: Option<PathBuf>,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    last: VecDeque<Entry>,
    number: u64,
    file: Option<(File, u64)>,
}

/// What is known of a request before it is answered.
pub(super) struct Asked {
    pub(super) who: Option<String>,
    pub(super) from: String,
    pub(super) operation: String,
    pub(super) target: String,
}

impl Audit {
    /// Reads what there is. A line that isn't understood is passed over: the record goes on whatever became of the file.
    pub(super) fn open(data_dir: Option<&Path>) -> Self {
        let mut inner = Inner::default();
        for name in [OLD_NAME, NAME] {
            let Some(path) = data_dir.map(|folder| folder.join(name)) else { continue };
            if let Err(error) = inner.read(&path)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(path = %path.display(), %error, "the record of changes can't be read");
            }
        }
        Self { folder: data_dir.map(Path::to_owned), inner: Mutex::new(inner) }
    }

    /// Notes a request that was answered. Waits for the disk.
    pub(super) fn note(&self, asked: Asked, change: Change, status: u16) {
        let Some(who) = change.who.or(asked.who) else { return };
        let mut inner = self.inner.lock();
        inner.number += 1;
        let entry = Entry {
            number: inner.number,
            at_ms: now_ms(),
            who: cut(who),
            from: asked.from,
            operation: asked.operation,
            target: cut(if change.target.is_empty() { asked.target } else { change.target }),
            status,
            before: change.before.and_then(bounded),
            after: change.after.and_then(bounded),
        };
        if let Some(folder) = &self.folder
            && let Err(error) = inner.write(folder, &entry)
        {
            inner.file = None;
            tracing::error!(%error, who = entry.who, operation = entry.operation, target = entry.target,
                "a change can't be put on record");
        }
        inner.keep(entry);
    }

    /// Entries from before a number on, the newest first.
    fn before(&self, number: Option<u64>, limit: usize) -> (Vec<Entry>, bool) {
        let inner = self.inner.lock();
        let mut entries =
            inner.last.iter().rev().filter(|entry| number.is_none_or(|number| entry.number < number));
        let page: Vec<_> = entries.by_ref().take(limit).cloned().collect();
        (page, entries.next().is_some())
    }
}

impl Inner {
    fn keep(&mut self, entry: Entry) {
        self.number = self.number.max(entry.number);
        if self.last.len() >= SHOWN_MAX {
            self.last.pop_front();
        }
        self.last.push_back(entry);
    }

    fn read(&mut self, path: &Path) -> io::Result<()> {
        let mut file = BufReader::new(File::open(path)?);
        let mut line = Vec::new();
        loop {
            line.clear();
            if file.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line)? == 0 {
                return Ok(());
            }
            if let Ok(entry) = serde_json::from_slice(&line) {
                self.keep(entry);
            }
        }
    }

    fn write(&mut self, folder: &Path, entry: &Entry) -> io::Result<()> {
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        if self.file.as_ref().is_some_and(|(_, size)| *size >= FILE_BYTES_MAX) {
            self.file = None;
            fs::rename(folder.join(NAME), folder.join(OLD_NAME))?;
        }
        let (file, size) = match &mut self.file {
            Some(open) => open,
            none => {
                let path = folder.join(NAME);
                let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
                let size = file.metadata()?.len();
                // What a crash left of a line must not swallow this one.
                if size > 0 {
                    file.write_all(b"\n")?;
                }
                none.insert((file, size))
            }
        };
        file.write_all(&line)?;
        file.sync_data()?;
        *size += line.len() as u64;
        Ok(())
    }
}

fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
    text
}

fn bounded(value: Value) -> Option<Value> {
    (!value.is_null() && value.to_string().len() <= VALUE_BYTES_MAX).then_some(value)
}

/// Which entries are wanted.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct AuditQuery {
    /// Most entries, 1 to 1,000; 100 where nothing is said.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// `next` of the page before.
    after: Option<String>,
}

/// A page of the record of changes, the newest first.
#[derive(Serialize, ToSchema)]
pub(super) struct AuditPage {
    entries: Vec<Entry>,
    /// Where the next page begins; null: there is none.
    next: Option<String>,
}

/// Lists what was changed through this interface: the last 1,000 changes.
#[utoipa::path(get, path = "/api/v1/audit", operation_id = "listAudit", tag = "server", params(AuditQuery),
    responses((status = 200, description = "A page of entries", body = AuditPage)))]
pub(super) async fn list_audit(
    State(api): State<Arc<Api>>,
    Query(query): Query<AuditQuery>,
) -> Result<Json<AuditPage>, Problem> {
    let limit = limit(query.limit)?;
    let (entries, has_more) = api.audit.before(place(query.after.as_deref())?, limit);
    let next = entries.last().filter(|_| has_more).map(|last| cursor(&last.number));
    Ok(Json(AuditPage { entries, next }))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use serde_json::json;

    use super::*;

    fn asked(target: &str) -> Asked {
        Asked {
            who: Some("ada".to_owned()),
            from: "127.0.0.1".to_owned(),
            operation: "publish".to_owned(),
            target: target.to_owned(),
        }
    }

    fn targets(audit: &Audit) -> Vec<String> {
        audit.before(None, SHOWN_MAX).0.into_iter().map(|entry| entry.target).collect()
    }

    #[test]
    fn entries_are_there_after_a_restart_and_for_their_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let audit = Audit::open(Some(folder.path()));
        audit.note(asked("a"), Change::default(), 204);
        audit.note(asked("b"), Change::of("c").before(json!({ "x": 1 })).after(json!({ "x": 2 })), 409);
        let path = folder.path().join(NAME);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        // A crash in the middle of a line.
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"number\":3,\"at").unwrap();
        let again = Audit::open(Some(folder.path()));
        assert_eq!(targets(&again), ["c", "a"]);
        again.note(asked("d"), Change::default(), 204);
        let (page, has_more) = Audit::open(Some(folder.path())).before(None, 2);
        assert!(has_more);
        assert_eq!((page[0].number, &*page[0].target), (3, "d"));
        assert_eq!((&page[1].before, &page[1].after), (&Some(json!({ "x": 1 })), &Some(json!({ "x": 2 }))));
        assert_eq!(again.before(Some(2), 10).0.len(), 1);
    }

    #[test]
    fn nobody_known_is_not_noted() {
        let audit = Audit::open(None);
        audit.note(Asked { who: None, ..asked("a") }, Change::default(), 401);
        assert!(targets(&audit).is_empty());
        audit.note(Asked { who: None, ..asked("a") }, Change::of("a").by("eve"), 204);
        assert_eq!(targets(&audit), ["a"]);
    }

    #[test]
    fn texts_values_entries_and_files_have_their_limits() {
        let folder = tempfile::tempdir().unwrap();
        let audit = Audit::open(Some(folder.path()));
        let long = |bytes: usize| json!("x".repeat(bytes - 2));
        audit.note(
            asked("a"),
            Change::of("ü".repeat(TEXT_BYTES_MAX))
                .before(long(VALUE_BYTES_MAX))
                .after(long(VALUE_BYTES_MAX + 1)),
            204,
        );
        let (page, _) = audit.before(None, 1);
        assert_eq!(page[0].target.len(), TEXT_BYTES_MAX);
        assert!(page[0].before.is_some() && page[0].after.is_none());
        audit.inner.lock().file.as_mut().unwrap().1 = FILE_BYTES_MAX - 1;
        audit.note(asked("last"), Change::default(), 204);
        assert!(!folder.path().join(OLD_NAME).exists());
        audit.note(asked("first"), Change::default(), 204);
        assert!(folder.path().join(OLD_NAME).exists());
        assert_eq!(fs::read_to_string(folder.path().join(NAME)).unwrap().lines().count(), 1);
        assert_eq!(targets(&Audit::open(Some(folder.path()))).len(), 3);
        let in_memory = Audit::open(None);
        for number in 0..=SHOWN_MAX {
            in_memory.note(asked(&number.to_string()), Change::default(), 204);
        }
        let kept = targets(&in_memory);
        assert_eq!((kept.len(), kept.last().map(String::as_str)), (SHOWN_MAX, Some("1")));
    }
}
