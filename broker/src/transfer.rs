//! Retained Messages as they are carried out of a broker and into one: for backups.
//!
//! What comes in this way is retained and nothing else: no subscriber, no rule and no action hears of it, since nothing has
//! happened that they should hear of. It keeps the time at which it came, the moment at which it expires, and who left it, so
//! that it can be asked later whether that client still may.

use std::sync::Arc;

use mqtt_protocol::{PublishProperties, QoS, ReasonCode};
use store::{CommitToken, MessageRecord, Record, StoreError};

use crate::author;
use crate::broker::{Broker, PublishError, Shared};
use crate::dispatch::{is_kept, message_record};
use crate::message::{Message, Publication, Trail};

/// A Retained Message outside of a broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetainedCopy {
    /// Topic Name; none that begins with `$`.
    pub topic: String,
    /// Payload; never empty.
    pub payload: Vec<u8>,
    /// Encoded MQTT 5 properties that a Server forwards unaltered, without length prefix.
    pub properties: Vec<u8>,
    /// Quality of service of the publish.
    pub qos: QoS,
    /// When it came, in milliseconds since the epoch.
    pub received_at_ms: i64,
    /// When it expires, in milliseconds since the epoch; `None`: never.
    pub expires_at_ms: Option<i64>,
    /// Client Identifier of whoever left it; `None`: the broker itself, or nobody knows.
    pub publisher: Option<String>,
    /// Who that was, in the form of the store; empty: not said.
    pub author: Vec<u8>,
}

impl RetainedCopy {
    fn size(&self) -> usize {
        self.topic.len() + self.properties.len() + self.payload.len()
    }
}

impl Broker {
    /// The message as it is carried elsewhere.
    #[must_use]
    pub fn copy_retained(&self, message: &Message) -> RetainedCopy {
        let now = self.shared.clock.now();
        let publication = message.publication();
        let left_ms = message.expires_at_ms().map(|at_ms| at_ms.saturating_sub(now.mono_ms));
        RetainedCopy {
            topic: message.topic().to_owned(),
            payload: message.payload().to_vec(),
            properties: message.properties().to_vec(),
            qos: message.qos(),
            received_at_ms: publication.received_at_ms,
            expires_at_ms: left_ms
                .map(|left_ms| now.wall_ms.saturating_add(i64::try_from(left_ms).unwrap_or(i64::MAX))),
            publisher: publication.publisher.map(|publisher| publisher.client_id.to_string()),
            author: publication.publisher.map(|publisher| author::encode(publisher)).unwrap_or_default(),
        }
    }

    /// Whether a copy could be retained here, but for the room that it takes.
    ///
    /// # Errors
    /// [`PublishError`]: what a publish of it would be refused for.
    pub fn check_retained_copy(&self, copy: &RetainedCopy) -> Result<(), PublishError> {
        let shared = &self.shared;
        shared
            .check_topic_name(&copy.topic)
            .map_err(|cause| PublishError::Topic { topic: copy.topic.clone(), cause })?;
        let is_whole = !copy.payload.is_empty()
            && !copy.topic.starts_with('$')
            && PublishProperties::from_encoded(&copy.properties).is_ok();
        if !is_whole {
            return Err(PublishError::Refused(ReasonCode::ImplementationSpecificError));
        }
        shared.check_size(&copy.topic, &copy.payload, &copy.properties).map_err(PublishError::Refused)
    }

    /// Longest packet that is taken, in bytes.
    #[must_use]
    pub fn max_packet_size(&self) -> usize {
        self.shared.config.limits.max_packet_size as usize
    }

    /// Most Retained Messages, and most bytes of them.
    #[must_use]
    pub fn retained_limits(&self) -> (u64, u64) {
        let limits = &self.shared.config.limits;
        (limits.max_retained_messages, limits.max_retained_bytes)
    }

    /// Forgets the Retained Messages of topics; nobody is sent anything. Returns when all of it is safe.
    ///
    /// # Errors
    /// Why one stays; those before it are gone.
    pub async fn forget_retained(&self, topics: &[String]) -> Result<(), ReasonCode> {
        let mut last = CommitToken::NOTHING_OWED;
        for topic in topics {
            let _turn = self.shared.retained.turn(self.shared.retained.number(topic)).await;
            if is_kept(topic) && self.shared.retained.find(topic).is_some() {
                last = last.max(self.shared.append(&[Record::RetainedCleared { topic }])?);
            }
            self.shared.retained.clear(topic);
        }
        self.shared.safe(last).await
    }

    /// Retains copies in place of what their topics have; those that have expired are passed over. Nobody is sent anything.
    /// Returns when all of it is safe.
    ///
    /// # Errors
    /// Why one isn't retained; those before it are.
    pub async fn put_retained(&self, copies: &[RetainedCopy]) -> Result<(), ReasonCode> {
        let mut last = CommitToken::NOTHING_OWED;
        for copy in copies {
            if let Some(token) = self.shared.put_retained(copy).await? {
                last = last.max(token);
            }
        }
        self.shared.safe(last).await
    }
}

impl Shared {
    /// `None`: it has expired.
    async fn put_retained(&self, copy: &RetainedCopy) -> Result<Option<CommitToken>, ReasonCode> {
        let now = self.clock.now();
        let left_ms = copy.expires_at_ms.map(|at_ms| u64::try_from(at_ms.saturating_sub(now.wall_ms)));
        let expires_at_ms = match left_ms {
            None => None,
            Some(Ok(left_ms)) if left_ms > 0 => Some(now.mono_ms.saturating_add(left_ms)),
            Some(_) => return Ok(None),
        };
        let publisher = copy
            .publisher
            .as_deref()
            .and_then(|client_id| author::decode(client_id, &copy.author))
            .map(Arc::new);
        let message = Publication {
            id: self.next_message_id(),
            namespace: 0,
            topic: &copy.topic,
            payload: &copy.payload,
            qos: copy.qos,
            retain: true,
            properties: &copy.properties,
            expires_at_ms,
            received_at_ms: copy.received_at_ms,
            publisher: publisher.as_ref(),
            trail: &Trail::default(),
            trace: None,
        }
        .to_message();
        let _turn = self.retained.turn(self.retained.number(&copy.topic)).await;
        if !self.may_retain(&copy.topic, copy.size()) {
            return Err(ReasonCode::QuotaExceeded);
        }
        let token = match is_kept(&copy.topic) && self.store.keeps_records() {
            true => self.append_retained(&message, &copy.author, now.mono_ms).await?,
            false => CommitToken::NOTHING_OWED,
        };
        self.retained.set(message);
        Ok(Some(token))
    }

    /// Puts it on record. While the disk doesn't keep up with what waits for it, that waits too.
    async fn append_retained(
        &self,
        message: &Message,
        author: &[u8],
        now_ms: u64,
    ) -> Result<CommitToken, ReasonCode> {
        let record = MessageRecord { author, ..message_record(&message.publication(), now_ms) };
        let records = [Record::Message(record), Record::Retained { id: message.id() }];
        loop {
            let committed = self.store.committed();
            match self.store.append(&records) {
                Ok(token) => return Ok(token),
                Err(StoreError::Busy { .. }) => self.safe(CommitToken(committed.0.saturating_add(1))).await?,
                Err(error) => return Err(self.store_refused(&error)),
            }
        }
    }
}
