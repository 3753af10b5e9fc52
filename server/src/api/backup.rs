//! Making a backup: what the gateway owns, sent line by line.
//!
//! It is made while it is sent, so that it takes no more memory than a page of messages. Rules are those of one moment, and users are; each
//! Retained Message is whole, but between two of them clients may have published.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use broker::RetainedCopy;
use http_body_util::channel::{Channel, Sender};
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use mqtt_protocol::PublishProperties;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;
use utoipa::IntoParams;

use super::Api;
use super::audit::{Asked, Change};
use super::auth::{Caller, Role, Scope, now_ms};
use super::extract::Query;
use super::problem::{Kind, Problem};
use super::serve::Peer;
use crate::backup::{
    self, CasesRecord, Entry, Header, Part, RetainedRecord, RuleRecord, SuspensionRecord, Writer,
};

/// Media type of a backup.
pub(super) const MEDIA_TYPE: &str = "application/octet-stream";
/// Backups that are made or restored at a time.
pub const BACKUPS_MAX: usize = 1;
/// Bytes that are sent at once, at least, but for the last.
const CHUNK_BYTES: usize = 64 << 10;
/// Chunks that wait to be sent.
const CHUNKS_WAITING_MAX: usize = 2;
/// Retained Messages that are looked at in one go.
const PAGE: usize = 64;

/// What a backup holds.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct BackupQuery {
    /// Users and tokens too, with hashes of their passwords and of themselves: it needs the scope `users:read`.
    #[serde(default)]
    users: bool,
}

/// Sends a backup of what the gateway owns: rules of the store, suspensions, cases of rules, Retained Messages, and if asked for users and
/// tokens. It is restored by `POST /api/v1/restore`; what has no last line is cut off.
#[utoipa::path(post, path = "/api/v1/backup", operation_id = "makeBackup", tag = "server", params(BackupQuery),
    responses((status = 200, description = "The backup, a JSON object a line", body = String,
        content_type = "application/octet-stream")))]
pub(super) async fn make_backup(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    peer: Option<Extension<Peer>>,
    Query(query): Query<BackupQuery>,
) -> Result<Response, Problem> {
    if query.users {
        caller.may(Role::Admin, Scope { area: "users", writes: false })?;
    }
    // Given back when all is sent, or nobody listens any more.
    let permit = take_turn(&api)?;
    let mut parts = vec![Part::Rules, Part::Cases, Part::Retained];
    if query.users {
        parts.push(Part::Users);
    }
    let header = Header {
        format: backup::FORMAT,
        product: env!("CARGO_PKG_VERSION").to_owned(),
        store: format!("{:016x}", api.gateway.store_id),
        made_at_ms: now_ms(),
        parts,
    };
    let change = Change::of("backup").after(json!({ "parts": header.parts }));
    let asked = Asked {
        who: Some(caller.name),
        from: peer.as_ref().map(|peer| peer.place()).unwrap_or_default(),
        operation: "makeBackup".to_owned(),
        target: "/api/v1/backup".to_owned(),
    };
    // It changes nothing, so nobody else puts it on record; but whoever has it has all that it holds.
    api.blocking(move |api| {
        api.audit.note(asked, change, 200);
        Ok::<(), Problem>(())
    })
    .await?;
    let (sender, body) = Channel::<Bytes>::new(CHUNKS_WAITING_MAX);
    let mut stopped = api.stop.subscribe();
    let making = Arc::clone(&api);
    tokio::spawn(async move {
        let _permit = permit;
        tokio::select! {
            sent = send(&making, &header, sender) => {
                if sent.is_none() {
                    tracing::info!("a backup broke off: nobody took it any more");
                }
            }
            _ = stopped.changed() => tracing::warn!("a backup broke off: the gateway stops"),
        }
    });
    Ok(([(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE))], Body::new(body)).into_response())
}

/// The right to make or restore a backup.
pub(super) fn take_turn(api: &Api) -> Result<OwnedSemaphorePermit, Problem> {
    Arc::clone(&api.backups).try_acquire_owned().map_err(|_| {
        Problem::new(Kind::Unavailable, "another backup is being made or restored").retry_after(10)
    })
}

/// Lines on their way to whoever asked.
struct Lines {
    sender: Sender<Bytes>,
    writer: Writer,
    waiting: Vec<u8>,
}

impl Lines {
    /// Adds an entry; `None`: nobody listens any more.
    async fn add(&mut self, entry: &Entry) -> Option<()> {
        let line = self.writer.entry(entry).map_err(|error| tracing::error!(%error, "a backup broke off"));
        self.waiting.extend(line.ok()?);
        if self.waiting.len() < CHUNK_BYTES {
            return Some(());
        }
        self.sender.send_data(std::mem::take(&mut self.waiting).into()).await.ok()
    }

    async fn end(mut self) -> Option<()> {
        self.waiting.extend(self.writer.end());
        self.sender.send_data(self.waiting.into()).await.ok()
    }
}

/// Sends all of it; `None`: it broke off, and has no last line.
async fn send(api: &Arc<Api>, header: &Header, sender: Sender<Bytes>) -> Option<()> {
    let (writer, waiting) = Writer::begin(header).ok()?;
    let mut lines = Lines { sender, writer, waiting };
    let (rules, suspended) = api.gateway.book.copy();
    for stored in rules {
        let record = RuleRecord {
            name: stored.rule.name.clone(),
            definition: stored.rule.definition_value(),
            version: stored.version,
            author: stored.author,
            changed_at_ms: stored.changed_at_ms,
        };
        lines.add(&Entry::Rule(record)).await?;
    }
    for (rule, suspension) in suspended {
        let record = SuspensionRecord { rule, by: suspension.by, at_ms: suspension.at_ms };
        lines.add(&Entry::Suspended(record)).await?;
    }
    for rule in api.blocking(|api| Ok::<_, Problem>(rules_with_cases(api))).await.ok()? {
        let record = api.blocking(move |api| Ok::<_, Problem>(cases_of(api, rule))).await.ok()?;
        if let Some(record) = record {
            lines.add(&Entry::Cases(record)).await?;
        }
    }
    if header.parts.contains(&Part::Users) {
        let (users, tokens) = api.auth.directory.copy();
        for user in users {
            lines.add(&Entry::User(user)).await?;
        }
        for token in tokens {
            lines.add(&Entry::Token(token)).await?;
        }
    }
    let broker = &api.gateway.broker;
    let mut from = None;
    loop {
        let (found, next) = broker.retained("#", from.take(), PAGE).await;
        for message in found {
            lines.add(&Entry::Retained(record(broker.copy_retained(&message)))).await?;
        }
        match next {
            Some(place) => from = Some(place),
            None => return lines.end().await,
        }
    }
}

fn rules_with_cases(api: &Api) -> BTreeSet<String> {
    api.cases.rules().unwrap_or_else(|error| {
        tracing::error!(%error, "the cases of rules can't be read: the backup has none");
        BTreeSet::new()
    })
}

/// The cases of a rule that is there. Those that can't be read are left out, and told.
fn cases_of(api: &Api, rule: String) -> Option<CasesRecord> {
    api.gateway.book.rule(&rule)?;
    let cases = match api.cases.get(&rule) {
        Ok(cases) => serde_json::from_str(&cases?).map_err(|error| error.to_string()),
        Err(error) => Err(crate::cli::chain(&error)),
    };
    match cases {
        Ok(cases) => Some(CasesRecord { rule, cases }),
        Err(error) => {
            tracing::error!(rule, error, "the cases of a rule are left out of a backup");
            None
        }
    }
}

fn record(copy: RetainedCopy) -> RetainedRecord {
    // They were taken from a packet that was read.
    let properties = PublishProperties::from_encoded(&copy.properties).unwrap_or_default();
    let user_properties = properties.user_properties.iter();
    RetainedRecord {
        content_type: properties.content_type.map(str::to_owned),
        response_topic: properties.response_topic.map(str::to_owned),
        correlation_data: properties.correlation_data.map(<[u8]>::to_vec),
        payload_is_text: properties.payload_format_indicator,
        user_properties: user_properties.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        topic: copy.topic,
        payload: copy.payload,
        qos: copy.qos.level(),
        received_at_ms: copy.received_at_ms,
        expires_at_ms: copy.expires_at_ms,
        publisher: copy.publisher,
        author: copy.author,
    }
}
