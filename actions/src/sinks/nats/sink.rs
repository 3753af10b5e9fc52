//! Driver of the NATS action.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use trace::Span;

use super::answer::meaning;
use super::client::{Connection, Landing};
use super::config::{NatsConfig, check_subject};
use super::connector::NatsConnector;
use crate::connectors::{Connector, Connectors};
use crate::delivery::{AnswerClass, BatchPolicy, DeliveryError, Envelope, ItemId, Sink};
use crate::error::ActionConfigError;
use crate::record::{Marks, Record, RecordKind};

/// By which a stream knows a message that it has stored within the last minutes.
const MESSAGE_ID: &str = "Nats-Msg-Id";
/// Most messages that are remembered because they are to be stored a second time.
pub(super) const OVERTAKERS_MAX: usize = 10_000;

/// The driver: sends batches over the connector's connection.
pub struct NatsSink {
    connector: Arc<NatsConnector>,
    batch: BatchPolicy,
    timeout: Duration,
    jetstream: bool,
    /// What it means that nobody takes a subject from us. If no message changes the subject, no other would fare better.
    if_subject: AnswerClass,
    marks: Marks,
    overtakers: Mutex<Overtakers>,
}

impl fmt::Debug for NatsSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsSink").field("connector", &self.connector).finish_non_exhaustive()
    }
}

/// Messages that a stream has stored before one that stood in front of them. They may be sent again behind that one, to be
/// stored in order, which the stream would take for a repetition if they came under the same id.
#[derive(Default)]
pub(super) struct Overtakers(BTreeMap<ItemId, u32>);

impl Overtakers {
    /// How often a message was stored too early.
    pub(super) fn times(&self, id: ItemId) -> u32 {
        self.0.get(&id).copied().unwrap_or(0)
    }

    pub(super) fn learn(&mut self, batch: &[Arc<Envelope<Record>>], results: &[Result<(), DeliveryError>]) {
        let mut is_behind = false;
        for (item, result) in batch.iter().zip(results) {
            match result {
                Ok(()) if is_behind => *self.0.entry(item.id).or_default() += 1,
                Ok(()) => drop(self.0.remove(&item.id)),
                Err(error) => is_behind |= error.is_retriable(),
            }
        }
        while self.0.len() > OVERTAKERS_MAX {
            self.0.pop_first();
        }
    }
}

impl NatsSink {
    /// Makes the driver of one action. Nothing is connected to.
    ///
    /// # Errors
    /// [`ActionConfigError`] when there is no connector of the name, or it is of another type.
    pub fn new(rule: &str, config: &NatsConfig, connectors: &Connectors) -> Result<Self, ActionConfigError> {
        let connector = connectors.of_kind(&config.name, &config.connector, "nats", Connector::nats)?;
        let is_fixed = config.is_subject_fixed();
        Ok(Self {
            connector: Arc::clone(connector),
            batch: config.batch.policy(),
            timeout: config.timeout,
            jetstream: config.jetstream,
            if_subject: if is_fixed { AnswerClass::Disable } else { AnswerClass::Retry },
            marks: Marks::new(rule, &config.name),
            overtakers: Mutex::default(),
        })
    }

    #[cfg(test)]
    pub(super) fn connector(&self) -> &NatsConnector {
        &self.connector
    }

    /// Appends one message as it is sent, with the subject that its answer comes to.
    fn put(
        &self,
        item: &Envelope<Record>,
        reply_to: Option<&str>,
        bytes_max: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), DeliveryError> {
        let record = &item.request;
        let subject = record.part(0);
        // What an outbox has kept is checked again: it was written by another run, maybe of another version.
        if record.kind != RecordKind::Nats || check_subject(subject).is_err() {
            return Err(refused("it was kept for an action of another type"));
        }
        let mut header = b"NATS/1.0\r\n".to_vec();
        for (name, value) in &record.fields {
            let value = std::str::from_utf8(value).ok().filter(|value| !value.contains(['\r', '\n', '\0']));
            let value = value.ok_or_else(|| {
                refused(format!("the value of its header {name} is no text, or has line breaks"))
            })?;
            put_header(&mut header, name, value);
        }
        let is_named = |name: &str| record.fields.iter().any(|(own, _)| own == name);
        if self.jetstream && !is_named(MESSAGE_ID) {
            let key = self.marks.key(item);
            match self.overtakers.lock().times(item.id) {
                0 => put_header(&mut header, MESSAGE_ID, &key),
                times => put_header(&mut header, MESSAGE_ID, &format!("{key}.{times}")),
            }
        }
        for (name, value) in self.marks.of(item) {
            if !is_named(name) {
                put_header(&mut header, name, &value);
            }
        }
        header.extend_from_slice(b"\r\n");
        let bytes = header.len() + record.payload.len();
        if bytes > bytes_max {
            return Err(refused(format!(
                "{bytes} bytes with its headers, more than the server's limit of {bytes_max}"
            )));
        }
        let reply_to = reply_to.unwrap_or_default();
        let line = format!("HPUB {subject} {reply_to} {} {bytes}\r\n", header.len());
        for part in [line.as_bytes(), &header, &record.payload, b"\r\n"] {
            out.extend_from_slice(part);
        }
        Ok(())
    }

    /// What became of a message of which nothing was said.
    fn unsaid(&self, landing: &Landing) -> Result<(), DeliveryError> {
        let said = |cause: String| DeliveryError::Interrupted { cause };
        if landing.is_ponged && !self.jetstream {
            // Looked at, and nothing said against it.
            let complaint = landing.complaint.as_ref();
            return complaint.map_or(Ok(()), |text| Err(said(format!("the server said \"{text}\""))));
        }
        let late = DeliveryError::TimedOut { after: self.timeout };
        Err(landing.broken.clone().map_or(late, said))
    }

    async fn send(
        &self,
        batch: &[Arc<Envelope<Record>>],
        connection: &Connection,
        generation: u64,
    ) -> Vec<Result<(), DeliveryError>> {
        let deadline = Instant::now() + self.timeout;
        let bytes_max = connection.payload_bytes_max();
        let number = connection.next_flight();
        let mut bytes = Vec::new();
        let mut sent = Vec::with_capacity(batch.len());
        let mut put = |item: &Arc<Envelope<Record>>| {
            let reply_to = self.jetstream.then(|| connection.reply_to(number, sent.len()));
            self.put(item, reply_to.as_deref(), bytes_max, &mut bytes)?;
            sent.push(Arc::clone(item));
            Ok(())
        };
        let mut results: Vec<Result<(), DeliveryError>> = batch.iter().map(&mut put).collect();
        if sent.is_empty() {
            return results;
        }
        bytes.extend_from_slice(b"PING\r\n");
        let mut landing = connection.fly(number, bytes, sent, self.jetstream, deadline).await;
        if !landing.is_ponged || landing.broken.is_some() {
            // Nothing of it may reach the server once it counts as failed.
            connection.close(&format_args!("no answer within {:?}", self.timeout));
            self.connector.shared.discard(generation).await;
        }
        let mut answers = std::mem::take(&mut landing.answers).into_iter();
        for result in results.iter_mut().filter(|result| result.is_ok()) {
            *result = match answers.next().flatten() {
                Some(answer) => meaning(&answer, self.if_subject),
                None => self.unsaid(&landing),
            };
        }
        results
    }
}

fn put_header(out: &mut Vec<u8>, name: &str, value: &str) {
    for part in [name, ": ", value, "\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
}

fn refused(cause: impl Into<String>) -> DeliveryError {
    DeliveryError::Refused { class: AnswerClass::Reject, cause: cause.into() }
}

impl Sink for NatsSink {
    type Request = Record;

    fn batch_policy(&self) -> BatchPolicy {
        self.batch
    }

    fn describe(&self, request: &Record, span: &mut Span) {
        request.describe(span);
    }

    async fn deliver(&self, batch: &[Arc<Envelope<Record>>]) -> Vec<Result<(), DeliveryError>> {
        let (connection, generation) = match self.connector.connection().await {
            Ok(connection) => connection,
            Err(error) => return vec![Err(error); batch.len()],
        };
        if let Some(words) = connection.deafness().filter(|_| self.jetstream) {
            let cause = format!("acknowledgements can't be heard: the server said \"{words}\"");
            return vec![Err(DeliveryError::Refused { class: AnswerClass::Disable, cause }); batch.len()];
        }
        let results = self.send(batch, &connection, generation).await;
        if self.jetstream {
            self.overtakers.lock().learn(batch, &results);
        }
        results
    }
}
