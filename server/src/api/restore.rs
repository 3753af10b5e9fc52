//! Taking up a backup.
//!
//! What is uploaded goes into a file that has no name, and is read from beginning to end before anything else: it is whole, each entry
//! could be taken up here, and together they fit. Only then is anything changed, by the same doors as ever: the rule book, the
//! directory of users, the broker's own for Retained Messages. Rules are put in place at once, and users are. Retained Messages come
//! first and one after the other, since they may be more than fits into memory: should the disk fail among them, those
//! before are there, the answer says how many, and the same restore can be asked for again. Cases of rules come last, one rule after
//! the other, for the same reason: by then all rules are there.
//!
//! What was begun is brought to its end though nobody waits for the answer any more.

mod cases;

use std::collections::{BTreeMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{BufReader, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use broker::RetainedCopy;
use http_body_util::BodyExt as _;
use mqtt_protocol::{QoS, ReasonCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::mpsc;
use tokio::time::timeout;
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::audit::Change;
use super::auth::directory::{AccountChanges, Accounts};
use super::auth::{Caller, now_ms};
use super::backup::{MEDIA_TYPE, take_turn};
use super::extract::{Json, Query, media_type};
use super::problem::{Kind, Problem};
use super::serve::BODY_TIMEOUT;
use crate::backup::{
    BACKUP_BYTES_MAX, BackupError, Entry, Header, Part, RULE_BYTES_MAX, Reader, RetainedRecord,
    line_bytes_max,
};
use crate::rules::{Changed, Owner, Prune, RuleChange, SampleProperties};
use crate::server::random;

/// Where backups are taken up: it may take longer than other requests.
pub(super) const RESTORE_PATH: &str = "/api/v1/restore";
/// Changes of one part that an answer names; it counts the others.
const CHANGES_NAMED_MAX: usize = 1_000;
/// Retained Messages between two waits for the disk.
const BATCH: usize = 64;

/// How a backup is taken up.
#[derive(Debug, Clone, Copy, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct RestoreQuery {
    /// Only say what it would come to.
    #[serde(default)]
    dry_run: bool,
    /// Whether what isn't in the backup is removed, of the parts that it has.
    #[serde(default)]
    prune: bool,
}

/// What a restore came to, or would come to.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Restored {
    /// Version of the gateway that made the backup.
    product: String,
    /// Identity of its store.
    store: String,
    /// When it was made, in milliseconds since 1970.
    made_at_ms: i64,
    /// One for each kind of thing that the backup has.
    parts: Vec<PartChanges>,
    /// What stays out, and what is allowed in rules but hardly meant.
    warnings: Vec<String>,
}

/// What differs about one kind of thing.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(super) struct PartChanges {
    /// `rules`, `cases`, `users`, `tokens` or `retained`.
    part: &'static str,
    added: u64,
    changed: u64,
    removed: u64,
    /// At most 1,000 of them.
    changes: Vec<NamedChange>,
}

/// One thing that differs.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct NamedChange {
    /// Name of the rule, user or token, or the topic. Of cases, the name of their rule.
    name: String,
    /// `added`, `changed`, `removed`, or of a rule of a file `suspended`.
    change: &'static str,
}

impl PartChanges {
    fn of(part: &'static str) -> Self {
        Self { part, ..Self::default() }
    }

    fn add(&mut self, name: &str, change: &'static str) {
        match change {
            "added" => self.added += 1,
            "removed" => self.removed += 1,
            _ => self.changed += 1,
        }
        if self.changes.len() < CHANGES_NAMED_MAX {
            self.changes.push(NamedChange { name: name.to_owned(), change });
        }
    }

    fn all(part: &'static str, changes: Vec<(String, &'static str)>) -> Self {
        let mut all = Self::of(part);
        changes.iter().for_each(|(name, change)| all.add(name, change));
        all
    }
}

/// Takes up a backup: rules, their cases, users and Retained Messages that it has are put in place of those of the same names.
#[utoipa::path(post, path = "/api/v1/restore", operation_id = "restoreBackup", tag = "server", params(RestoreQuery),
    request_body(content = String, content_type = "application/octet-stream", description = "What `POST /api/v1/backup` sent"),
    responses((status = 200, description = "What it comes to", body = Restored)))]
pub(super) async fn restore(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Query(query): Query<RestoreQuery>,
    request: Request,
) -> Result<Response, Problem> {
    if media_type(&request) != Some(MEDIA_TYPE) {
        return Err(Problem::new(Kind::MediaType, format!("expected the Content-Type {MEDIA_TYPE}")));
    }
    let turn = take_turn(&api)?;
    let file = receive(request.into_body(), api.data_dir.as_deref()).await?;
    let work = tokio::spawn(async move {
        let _turn = turn;
        take_up(&api, Arc::new(file), query, &caller).await
    });
    work.await.unwrap_or_else(|error| {
        tracing::error!(%error, "a restore broke off");
        Err(Problem::new(Kind::Internal, "the restore broke off"))
    })
}

/// Puts the body into a file that nobody else can open, and that is gone when it is closed.
async fn receive(mut body: Body, folder: Option<&Path>) -> Result<File, Problem> {
    let failed = |error: std::io::Error| {
        tracing::warn!(%error, "a backup that is uploaded can't be put aside");
        Problem::new(Kind::Unavailable, format!("what is uploaded can't be put aside: {error}"))
    };
    let temporary = std::env::temp_dir();
    let path = folder.unwrap_or(&temporary).join(format!("restore-{:016x}.part", random()));
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create_new(true).mode(0o600).open(&path).map_err(failed)?;
    std::fs::remove_file(&path).map_err(failed)?;
    let mut file = tokio::fs::File::from_std(file);
    let mut bytes = 0_u64;
    loop {
        let frame = match timeout(BODY_TIMEOUT, body.frame()).await {
            Ok(Some(Ok(frame))) => frame,
            Ok(None) => break,
            Ok(Some(Err(_))) => return Err(Problem::new(Kind::Malformed, "the body broke off")),
            Err(_) => {
                let seconds = BODY_TIMEOUT.as_secs();
                return Err(Problem::new(
                    Kind::Slow,
                    format!("nothing of the body came for {seconds} seconds"),
                ));
            }
        };
        let Ok(data) = frame.into_data() else { continue };
        bytes += data.len() as u64;
        if bytes > BACKUP_BYTES_MAX {
            return Err(Problem::new(Kind::TooLarge, format!("a backup may have {BACKUP_BYTES_MAX} bytes")));
        }
        file.write_all(&data).await.map_err(failed)?;
    }
    file.flush().await.map_err(failed)?;
    Ok(file.into_std().await)
}

/// What a backup holds, found good.
struct Plan {
    header: Header,
    rules: BTreeMap<String, Value>,
    suspended: Vec<String>,
    cases: cases::Differences,
    accounts: Accounts,
    retained: PartChanges,
    topics: HashSet<String>,
    retained_bytes: u64,
    /// How much more there would be without `prune`: messages and bytes.
    grows_by: (i64, i64),
    expired: u64,
}

impl Plan {
    fn has(&self, part: Part) -> bool {
        self.header.parts.contains(&part)
    }
}

/// Opens what was uploaded at its beginning.
fn reader<'f>(api: &Api, file: &'f File) -> Result<Reader<BufReader<&'f File>>, BackupError> {
    let mut from = file;
    from.seek(SeekFrom::Start(0))?;
    Reader::open(BufReader::new(from), line_bytes_max(api.gateway.broker.max_packet_size()))
}

impl From<BackupError> for Problem {
    fn from(error: BackupError) -> Self {
        let kind = match &error {
            BackupError::TooLarge | BackupError::LineTooLong { .. } => Kind::TooLarge,
            BackupError::Io(_) => Kind::Unavailable,
            _ => Kind::Invalid,
        };
        Self::new(kind, format!("the backup is refused: {}", crate::cli::chain(&error)))
    }
}

/// Reads all of it, and checks what can be checked of each entry alone.
fn plan(api: &Api, file: &File, prune: bool) -> Result<Plan, Problem> {
    let mut reader = reader(api, file)?;
    let mut plan = Plan {
        header: reader.header().clone(),
        rules: BTreeMap::new(),
        suspended: Vec::new(),
        cases: cases::Differences::new(),
        accounts: Accounts { prune, ..Accounts::default() },
        retained: PartChanges::of("retained"),
        topics: HashSet::new(),
        retained_bytes: 0,
        grows_by: (0, 0),
        expired: 0,
    };
    let mut rule_bytes = 0_usize;
    let mut names = HashSet::new();
    let now_ms = now_ms();
    let mut number = 1;
    while let Some(entry) = reader.next_entry()? {
        number += 1;
        let (kind, name, bytes) = match &entry {
            Entry::Rule(rule) => ("rule", &rule.name, rule.definition.to_string().len()),
            Entry::Suspended(suspended) => ("suspended rule", &suspended.rule, 0),
            Entry::Cases(cases) => ("cases of rule", &cases.rule, 0),
            Entry::User(user) => ("user", &user.name, user.password_hash.len()),
            Entry::Token(token) => ("token", &token.name, token.sha256.len()),
            Entry::Retained(message) => ("topic", &message.topic, 0),
            Entry::File(file) => ("file", &file.name, 0),
        };
        let refused = |why: String| {
            Problem::new(
                Kind::Invalid,
                format!("the backup is refused: line {number}: {kind} {name:?}: {why}"),
            )
        };
        let is_new = match &entry {
            Entry::Retained(_) => !plan.topics.contains(name),
            _ => names.insert((kind, name.clone())),
        };
        if !is_new {
            return Err(refused("it is there twice".to_owned()));
        }
        rule_bytes += bytes + if matches!(entry, Entry::Retained(_)) { 0 } else { name.len() };
        if rule_bytes > RULE_BYTES_MAX {
            return Err(refused(format!("with it, rules and users have more than {RULE_BYTES_MAX} bytes")));
        }
        if let Entry::Retained(message) = &entry {
            let copy = copy(message).map_err(refused)?;
            let checked = api.gateway.broker.check_retained_copy(&copy);
            checked.map_err(|error| refused(error.to_string()))?;
            plan.look_at(api, &copy, now_ms);
        }
        if let Entry::Cases(record) = &entry {
            let difference = cases::difference(api, record).map_err(refused)?;
            plan.cases.insert(record.rule.clone(), difference);
        }
        match entry {
            Entry::Rule(rule) => drop(plan.rules.insert(rule.name, rule.definition)),
            Entry::Suspended(suspended) => plan.suspended.push(suspended.rule),
            Entry::User(user) => plan.accounts.users.push(user),
            Entry::Token(token) => plan.accounts.tokens.push(token),
            // They stay where they are.
            Entry::Cases(_) | Entry::Retained(_) | Entry::File(_) => {}
        }
    }
    Ok(plan)
}

impl Plan {
    fn look_at(&mut self, api: &Api, copy: &RetainedCopy, now_ms: i64) {
        self.topics.insert(copy.topic.clone());
        if copy.expires_at_ms.is_some_and(|at_ms| at_ms <= now_ms) {
            self.expired += 1;
            return;
        }
        let size = copy.topic.len() + copy.properties.len() + copy.payload.len();
        self.retained_bytes += size as u64;
        let signed = |size: usize| i64::try_from(size).unwrap_or(i64::MAX);
        match api.gateway.broker.retained_message(&copy.topic) {
            None => {
                self.retained.add(&copy.topic, "added");
                self.grows_by.0 += 1;
                self.grows_by.1 += signed(size);
            }
            Some(before) => {
                self.grows_by.1 += signed(size) - signed(before.size());
                if !is_same(&before, copy) {
                    self.retained.add(&copy.topic, "changed");
                }
            }
        }
    }

    /// Refuses more than may be retained.
    fn check_room(&self, api: &Api, prune: bool) -> Result<(), Problem> {
        let broker = &api.gateway.broker;
        let (messages_max, bytes_max) = broker.retained_limits();
        let now = broker.stats();
        let (messages, bytes) = if prune {
            (self.topics.len() as u64 - self.expired, self.retained_bytes)
        } else {
            let (more, more_bytes) = self.grows_by;
            (
                now.retained_messages.saturating_add_signed(more),
                now.retained_bytes.saturating_add_signed(more_bytes),
            )
        };
        if messages > messages_max || bytes > bytes_max {
            let detail = format!(
                "there would be {messages} Retained Messages of {bytes} bytes, and {messages_max} of {bytes_max} bytes may be (limits.max_retained_messages, limits.max_retained_bytes)"
            );
            return Err(Problem::new(Kind::Conflict, detail));
        }
        Ok(())
    }
}

/// Whether a topic has this message already.
fn is_same(before: &broker::Message, copy: &RetainedCopy) -> bool {
    before.payload() == copy.payload
        && before.properties() == copy.properties
        && before.qos() == copy.qos
        && before.publication().received_at_ms == copy.received_at_ms
}

/// The message as the broker takes it.
fn copy(record: &RetainedRecord) -> Result<RetainedCopy, String> {
    let properties = SampleProperties {
        content_type: record.content_type.clone(),
        response_topic: record.response_topic.clone(),
        correlation_data: record.correlation_data.clone(),
        payload_format_indicator: record.payload_is_text,
        message_expiry_interval_s: None,
        user_properties: record.user_properties.clone(),
    };
    Ok(RetainedCopy {
        topic: record.topic.clone(),
        payload: record.payload.clone(),
        properties: properties.encode()?,
        qos: QoS::try_from(record.qos)
            .map_err(|_| format!("qos: expected 0, 1 or 2, given {}", record.qos))?,
        received_at_ms: record.received_at_ms,
        expires_at_ms: record.expires_at_ms,
        publisher: record.publisher.clone(),
        author: record.author.clone(),
    })
}

/// Checks all of it together, and puts it in place unless that isn't wanted.
async fn take_up(
    api: &Arc<Api>,
    file: Arc<File>,
    query: RestoreQuery,
    caller: &Caller,
) -> Result<Response, Problem> {
    let reading = Arc::clone(&file);
    let mut plan = api.blocking(move |api| plan(api, &reading, query.prune)).await?;
    if plan.has(Part::Users) {
        caller.must_be_unscoped()?;
    }
    plan.check_room(api, query.prune)?;
    let gone =
        if query.prune && plan.has(Part::Retained) { others(api, &plan.topics).await } else { Vec::new() };
    gone.iter().for_each(|topic| plan.retained.add(topic, "removed"));
    let (changes, mut warnings) = rule_changes(api, &plan, query.prune);
    if plan.expired > 0 {
        warnings.push(format!("{} Retained Messages have expired and stay out", plan.expired));
    }
    if plan.has(Part::Files) {
        warnings.push("its configuration files aren't restored by a gateway that runs".to_owned());
    }
    let author = caller.name.clone();
    let (changes, accounts) = (Arc::new(changes), Arc::new(std::mem::take(&mut plan.accounts)));
    let (trying, whose, by) = (Arc::clone(&changes), Arc::clone(&accounts), author.clone());
    let has_users = plan.has(Part::Users);
    let (plan, mut rules, mut users, mut cases) = api
        .blocking(move |api| {
            let rules = api.gateway.book.try_change(&trying, &by)?;
            let users =
                if has_users { api.auth.directory.try_take_up(&whose)? } else { AccountChanges::default() };
            let cases = cases::changes(api, &plan, &rules, query.prune)?;
            Ok::<_, Problem>((plan, rules, users, cases))
        })
        .await?;
    warnings.append(&mut cases.warnings);
    if !query.dry_run {
        let is_same = plan.retained.changes.is_empty();
        if !is_same && let Err((done, reason)) = replace_retained(api, Arc::clone(&file), &gone).await {
            let problem = Problem::new(
                Kind::Unavailable,
                format!(
                    "the store takes no more ({}): {done} Retained Messages were restored before; rules and users are as they were. Restore again when it does",
                    reason.name()
                ),
            );
            let change = Change::of("backup").after(json!({ "broke_off": true, "retained": done }));
            return Ok((change, problem).into_response());
        }
        let placed = api
            .blocking(move |api| {
                let rules = api.gateway.book.change(&changes, &author)?;
                let users = if has_users {
                    api.auth.directory.take_up(&accounts)?
                } else {
                    AccountChanges::default()
                };
                Ok::<_, Problem>((rules, users))
            })
            .await;
        (rules, users) = match placed {
            Ok(placed) => placed,
            // It was found good a moment ago, and Retained Messages are in place.
            Err(problem) => {
                tracing::error!(
                    "a restore broke off: rules or users have changed meanwhile, or can't be kept"
                );
                let change = Change::of("backup").after(json!({ "broke_off": true, "retained": "all" }));
                return Ok((change, problem).into_response());
            }
        };
        let kept = api.blocking(move |api| cases::take_up(api, &file, &cases).map(|()| cases)).await;
        cases = match kept {
            Ok(kept) => kept,
            Err(problem) => {
                let change = Change::of("backup").after(json!({ "broke_off": true, "cases": "not all" }));
                return Ok((change, problem).into_response());
            }
        };
    }
    Ok(answer(plan, rules, cases.changes, users, warnings, query, caller))
}

fn answer(
    plan: Plan,
    rules: Changed,
    cases: PartChanges,
    users: AccountChanges,
    mut warnings: Vec<String>,
    query: RestoreQuery,
    caller: &Caller,
) -> Response {
    let mut parts = Vec::new();
    if plan.has(Part::Rules) {
        let changes = rules.rules.into_iter().map(|delta| (delta.rule, delta.change)).collect();
        parts.push(PartChanges::all("rules", changes));
        warnings.extend(rules.warnings);
    }
    if plan.has(Part::Cases) {
        parts.push(cases);
    }
    if plan.has(Part::Users) {
        parts.push(PartChanges::all("users", users.users));
        parts.push(PartChanges::all("tokens", users.tokens));
    }
    if plan.has(Part::Retained) {
        parts.push(plan.retained);
    }
    let Header { product, store, made_at_ms, .. } = plan.header;
    let counts = parts.iter().map(|part| {
        json!({ "part": part.part, "added": part.added, "changed": part.changed, "removed": part.removed })
    });
    let on_record = json!({ "dry_run": query.dry_run, "prune": query.prune, "made_at_ms": made_at_ms,
        "store": store, "parts": counts.collect::<Value>() });
    if !query.dry_run {
        tracing::info!(author = caller.name, made_at_ms, "a backup was restored");
    }
    let restored = Restored { product, store, made_at_ms, parts, warnings };
    (Change::of("backup").after(on_record), Json(restored)).into_response()
}

/// The changes that lead to the rules of a backup, and what can't be.
fn rule_changes(api: &Api, plan: &Plan, prune: bool) -> (Vec<RuleChange>, Vec<String>) {
    if !plan.has(Part::Rules) {
        return (Vec::new(), Vec::new());
    }
    let book = &api.gateway.book;
    let mut changes = book.changes_to(&plan.rules, if prune { Prune::Others } else { Prune::Nothing });
    let mut warnings = Vec::new();
    for name in &plan.suspended {
        match book.rule(name) {
            Some(rule) if rule.owner == Owner::File => {
                changes.push(RuleChange::Suspend { name: name.clone() });
            }
            _ => warnings.push(format!("rule {name:?} was suspended, and no file has it here")),
        }
    }
    (changes, warnings)
}

/// Topics with a Retained Message that a backup hasn't got.
async fn others(api: &Api, topics: &HashSet<String>) -> Vec<String> {
    let mut gone = Vec::new();
    let mut from = None;
    loop {
        let (found, next) = api.gateway.broker.retained("#", from.take(), BATCH).await;
        let theirs = found.iter().map(|message| message.topic());
        gone.extend(theirs.filter(|topic| !topics.contains(*topic)).map(str::to_owned));
        match next {
            Some(place) => from = Some(place),
            None => return gone,
        }
    }
}

/// Puts Retained Messages in place. After an error it says how many are.
async fn replace_retained(
    api: &Arc<Api>,
    file: Arc<File>,
    gone: &[String],
) -> Result<(), (usize, ReasonCode)> {
    let broker = &api.gateway.broker;
    broker.forget_retained(gone).await.map_err(|reason| (0, reason))?;
    let (sender, mut batches) = mpsc::channel(1);
    let reading = Arc::clone(api);
    tokio::task::spawn_blocking(move || {
        let Ok(mut reader) = reader(&reading, &file) else { return };
        let mut batch = Vec::with_capacity(BATCH);
        // It was read to its end before, and nobody else can write to it.
        while let Ok(Some(entry)) = reader.next_entry() {
            let Entry::Retained(message) = entry else { continue };
            let Ok(copy) = copy(&message) else { continue };
            let before = reading.gateway.broker.retained_message(&copy.topic);
            if before.is_some_and(|before| is_same(&before, &copy)) {
                continue;
            }
            batch.push(copy);
            if batch.len() == BATCH && sender.blocking_send(std::mem::take(&mut batch)).is_err() {
                return;
            }
        }
        drop(sender.blocking_send(batch));
    });
    let mut done = 0;
    while let Some(batch) = batches.recv().await {
        broker.put_retained(&batch).await.map_err(|reason| (done, reason))?;
        done += batch.len();
    }
    Ok(())
}
