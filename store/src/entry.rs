//! The records as they stand in a frame of the log.
//!
//! They are the records of [`crate::Record`] with names replaced by the numbers of queues (a session is a queue with more
//! to it), places given, and messages referred to by their order in the frame. A queue's number is given once and never
//! again, so a record of a session that is over can't be taken for one of the next session of that name.

use crate::bytes::{Malformed, Reader, put_bytes, put_number, put_signed};
use crate::record::{MessageId, MessageRecord, QueueKey, SessionKey};

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entry<'a> {
    QueueMade {
        queue: u64,
        key: QueueKey<'a>,
    },
    QueueGone {
        queue: u64,
    },
    SessionStarted {
        queue: u64,
        expiry_interval_s: u32,
    },
    SessionOwner {
        queue: u64,
        owner: &'a str,
    },
    SessionDetached {
        queue: u64,
        at_ms: i64,
    },
    Will {
        queue: u64,
        delay_s: u32,
        retain: bool,
        message: MessageRecord<'a>,
    },
    WillGone {
        queue: u64,
    },
    Subscribed {
        queue: u64,
        filter: &'a str,
        options: u8,
        identifier: u32,
    },
    Unsubscribed {
        queue: u64,
        filter: &'a str,
    },
    Message(MessageRecord<'a>),
    Owed(Owed<'a>),
    Settled {
        queue: u64,
        position: u64,
    },
    Retained {
        message: u32,
    },
    RetainedCleared {
        topic: &'a str,
    },
    Received {
        queue: u64,
        packet_id: u16,
    },
    Released {
        queue: u64,
        packet_id: u16,
    },
    Sent {
        queue: u64,
        owner: u64,
        position: u64,
        packet_id: u16,
    },
    AwaitsCompletion {
        queue: u64,
        packet_id: u16,
    },
    Completed {
        queue: u64,
        packet_id: u16,
    },
    /// Wall clock when the frame was written, milliseconds since the epoch.
    Stamp {
        at_ms: i64,
    },
    /// A debt that was paid, or a retained message that was replaced, before it was written.
    Void,
}

/// A debt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Owed<'a> {
    pub(crate) queue: u64,
    pub(crate) position: u64,
    /// Epoch in which it was first written.
    pub(crate) epoch: u32,
    /// Which message of the frame, counted from 0.
    pub(crate) message: Option<u32>,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    /// Subscription Identifiers, each as a number of [`crate::bytes`].
    pub(crate) identifiers: &'a [u8],
    pub(crate) body: &'a [u8],
}

const QUEUE_MADE: u8 = 1;
const QUEUE_GONE: u8 = 2;
const SESSION_STARTED: u8 = 3;
const SESSION_DETACHED: u8 = 4;
const WILL: u8 = 5;
const WILL_GONE: u8 = 6;
const SUBSCRIBED: u8 = 7;
const UNSUBSCRIBED: u8 = 8;
const MESSAGE: u8 = 9;
const OWED: u8 = 10;
const SETTLED: u8 = 11;
const RETAINED: u8 = 12;
const RETAINED_CLEARED: u8 = 13;
const RECEIVED: u8 = 14;
const RELEASED: u8 = 15;
const SENT: u8 = 16;
const AWAITS_COMPLETION: u8 = 17;
const COMPLETED: u8 = 18;
const STAMP: u8 = 19;
/// A debt whose kind was overwritten: its fields still follow.
const VOID_OWED: u8 = 20;
/// The same of a retained message.
const VOID_RETAINED: u8 = 21;
const SESSION_OWNER: u8 = 22;

/// Flags of a message, beside its quality of service.
const HAS_EXPIRY: u8 = 1 << 2;
const HAS_PUBLISHER: u8 = 1 << 3;
const HAS_AUTHOR: u8 = 1 << 4;

/// Turns a debt or a retained message that starts at the front of `bytes` into [`Entry::Void`].
pub(crate) fn make_void(bytes: &mut [u8]) {
    if let Some(kind) = bytes.first_mut() {
        debug_assert!(matches!(*kind, OWED | RETAINED | VOID_OWED | VOID_RETAINED));
        *kind = if matches!(*kind, OWED | VOID_OWED) { VOID_OWED } else { VOID_RETAINED };
    }
}

impl Entry<'_> {
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        match *self {
            Self::QueueMade { queue, key } => {
                put_kind(out, QUEUE_MADE, queue);
                put_key(out, key);
            }
            Self::QueueGone { queue } => put_kind(out, QUEUE_GONE, queue),
            Self::SessionStarted { queue, expiry_interval_s } => {
                put_kind(out, SESSION_STARTED, queue);
                put_number(out, expiry_interval_s.into());
            }
            Self::SessionOwner { queue, owner } => {
                put_kind(out, SESSION_OWNER, queue);
                put_bytes(out, owner.as_bytes());
            }
            Self::SessionDetached { queue, at_ms } => {
                put_kind(out, SESSION_DETACHED, queue);
                put_signed(out, at_ms);
            }
            Self::Will { queue, delay_s, retain, message } => {
                put_kind(out, WILL, queue);
                put_number(out, delay_s.into());
                out.push(retain.into());
                put_message(out, &message);
            }
            Self::WillGone { queue } => put_kind(out, WILL_GONE, queue),
            Self::Subscribed { queue, filter, options, identifier } => {
                put_kind(out, SUBSCRIBED, queue);
                put_bytes(out, filter.as_bytes());
                out.push(options);
                put_number(out, identifier.into());
            }
            Self::Unsubscribed { queue, filter } => {
                put_kind(out, UNSUBSCRIBED, queue);
                put_bytes(out, filter.as_bytes());
            }
            Self::Message(message) => {
                out.push(MESSAGE);
                put_message(out, &message);
            }
            Self::Owed(owed) => {
                put_kind(out, OWED, owed.queue);
                put_number(out, owed.position);
                put_number(out, owed.epoch.into());
                put_number(out, owed.message.map_or(0, |message| u64::from(message) + 1));
                out.push(owed.qos | u8::from(owed.retain) << 2);
                put_bytes(out, owed.identifiers);
                put_bytes(out, owed.body);
            }
            Self::Settled { queue, position } => {
                put_kind(out, SETTLED, queue);
                put_number(out, position);
            }
            Self::Retained { message } => put_kind(out, RETAINED, message.into()),
            Self::RetainedCleared { topic } => {
                out.push(RETAINED_CLEARED);
                put_bytes(out, topic.as_bytes());
            }
            Self::Received { queue, packet_id } => put_packet(out, RECEIVED, queue, packet_id),
            Self::Released { queue, packet_id } => put_packet(out, RELEASED, queue, packet_id),
            Self::Sent { queue, owner, position, packet_id } => {
                put_packet(out, SENT, queue, packet_id);
                put_number(out, owner);
                put_number(out, position);
            }
            Self::AwaitsCompletion { queue, packet_id } => {
                put_packet(out, AWAITS_COMPLETION, queue, packet_id);
            }
            Self::Completed { queue, packet_id } => put_packet(out, COMPLETED, queue, packet_id),
            Self::Stamp { at_ms } => {
                out.push(STAMP);
                put_signed(out, at_ms);
            }
            Self::Void => {}
        }
    }

    /// Reads the record at the front.
    pub(crate) fn read<'a>(reader: &mut Reader<'a>) -> Result<Entry<'a>, Malformed> {
        let kind = reader.byte()?;
        Ok(match kind {
            MESSAGE => Entry::Message(read_message(reader)?),
            RETAINED => Entry::Retained { message: reader.u32()? },
            RETAINED_CLEARED => Entry::RetainedCleared { topic: reader.text()? },
            STAMP => Entry::Stamp { at_ms: reader.signed()? },
            OWED => Entry::Owed(read_owed(reader)?),
            VOID_OWED => {
                read_owed(reader)?;
                Entry::Void
            }
            VOID_RETAINED => {
                reader.u32()?;
                Entry::Void
            }
            _ => {
                let queue = reader.number()?;
                read_of_queue(kind, queue, reader)?
            }
        })
    }
}

fn read_of_queue<'a>(kind: u8, queue: u64, reader: &mut Reader<'a>) -> Result<Entry<'a>, Malformed> {
    Ok(match kind {
        QUEUE_MADE => Entry::QueueMade { queue, key: read_key(reader)? },
        QUEUE_GONE => Entry::QueueGone { queue },
        SESSION_STARTED => Entry::SessionStarted { queue, expiry_interval_s: reader.u32()? },
        SESSION_OWNER => Entry::SessionOwner { queue, owner: reader.text()? },
        SESSION_DETACHED => Entry::SessionDetached { queue, at_ms: reader.signed()? },
        WILL => Entry::Will {
            queue,
            delay_s: reader.u32()?,
            retain: reader.byte()? != 0,
            message: read_message(reader)?,
        },
        WILL_GONE => Entry::WillGone { queue },
        SUBSCRIBED => Entry::Subscribed {
            queue,
            filter: reader.text()?,
            options: reader.byte()?,
            identifier: reader.u32()?,
        },
        UNSUBSCRIBED => Entry::Unsubscribed { queue, filter: reader.text()? },
        SETTLED => Entry::Settled { queue, position: reader.number()? },
        RECEIVED => Entry::Received { queue, packet_id: reader.u16()? },
        RELEASED => Entry::Released { queue, packet_id: reader.u16()? },
        SENT => {
            let packet_id = reader.u16()?;
            Entry::Sent { queue, packet_id, owner: reader.number()?, position: reader.number()? }
        }
        AWAITS_COMPLETION => Entry::AwaitsCompletion { queue, packet_id: reader.u16()? },
        COMPLETED => Entry::Completed { queue, packet_id: reader.u16()? },
        _ => return Err(Malformed),
    })
}

fn put_kind(out: &mut Vec<u8>, kind: u8, number: u64) {
    out.push(kind);
    put_number(out, number);
}

fn put_packet(out: &mut Vec<u8>, kind: u8, queue: u64, packet_id: u16) {
    put_kind(out, kind, queue);
    put_number(out, packet_id.into());
}

/// A queue's name: its kind, its namespace, one or two strings.
pub(crate) fn put_key(out: &mut Vec<u8>, key: QueueKey<'_>) {
    let (kind, namespace, first, second) = match key {
        QueueKey::Session(session) => (0, session.namespace, session.client_id, ""),
        QueueKey::Group { namespace, share_name, filter } => (1, namespace, share_name, filter),
        QueueKey::Outbox { namespace, name } => (2, namespace, name, ""),
        QueueKey::DeadLetters { namespace, name } => (3, namespace, name, ""),
        QueueKey::Wills { namespace } => (4, namespace, "", ""),
    };
    out.push(kind);
    put_number(out, namespace.into());
    put_bytes(out, first.as_bytes());
    put_bytes(out, second.as_bytes());
}

pub(crate) fn read_key<'a>(reader: &mut Reader<'a>) -> Result<QueueKey<'a>, Malformed> {
    let kind = reader.byte()?;
    let namespace = reader.u32()?;
    let first = reader.text()?;
    let second = reader.text()?;
    Ok(match kind {
        0 => QueueKey::Session(SessionKey { namespace, client_id: first }),
        1 => QueueKey::Group { namespace, share_name: first, filter: second },
        2 => QueueKey::Outbox { namespace, name: first },
        3 => QueueKey::DeadLetters { namespace, name: first },
        4 if first.is_empty() && second.is_empty() => QueueKey::Wills { namespace },
        _ => return Err(Malformed),
    })
}

pub(crate) fn put_message(out: &mut Vec<u8>, message: &MessageRecord<'_>) {
    out.extend_from_slice(&message.id.store.to_le_bytes());
    put_number(out, message.id.epoch.into());
    put_number(out, message.id.sequence);
    let flag = |flag: u8, is_there: bool| if is_there { flag } else { 0 };
    out.push(
        message.qos
            | flag(HAS_EXPIRY, message.expires_after_ms.is_some())
            | flag(HAS_PUBLISHER, message.publisher.is_some())
            | flag(HAS_AUTHOR, !message.author.is_empty()),
    );
    put_signed(out, message.received_at_ms);
    if let Some(expires_after_ms) = message.expires_after_ms {
        put_number(out, expires_after_ms);
    }
    if let Some(publisher) = message.publisher {
        put_bytes(out, publisher.as_bytes());
    }
    if !message.author.is_empty() {
        put_bytes(out, message.author);
    }
    put_bytes(out, message.topic.as_bytes());
    put_bytes(out, message.properties);
    put_bytes(out, message.payload);
}

pub(crate) fn read_message<'a>(reader: &mut Reader<'a>) -> Result<MessageRecord<'a>, Malformed> {
    let id = MessageId { store: reader.fixed_u64()?, epoch: reader.u32()?, sequence: reader.number()? };
    let flags = reader.byte()?;
    Ok(MessageRecord {
        id,
        qos: flags & 3,
        received_at_ms: reader.signed()?,
        expires_after_ms: if flags & HAS_EXPIRY == 0 { None } else { Some(reader.number()?) },
        publisher: if flags & HAS_PUBLISHER == 0 { None } else { Some(reader.text()?) },
        author: if flags & HAS_AUTHOR == 0 { &[] } else { reader.bytes()? },
        topic: reader.text()?,
        properties: reader.bytes()?,
        payload: reader.bytes()?,
    })
}

fn read_owed<'a>(reader: &mut Reader<'a>) -> Result<Owed<'a>, Malformed> {
    let queue = reader.number()?;
    let position = reader.number()?;
    let epoch = reader.u32()?;
    let message = reader.u32()?.checked_sub(1);
    let flags = reader.byte()?;
    Ok(Owed {
        queue,
        position,
        epoch,
        message,
        qos: flags & 3,
        retain: flags & 4 != 0,
        identifiers: reader.bytes()?,
        body: reader.bytes()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn message() -> MessageRecord<'static> {
        MessageRecord {
            id: MessageId { store: u64::MAX, epoch: 3, sequence: 1 << 40 },
            topic: "a/b",
            properties: &[1, 2],
            payload: b"payload",
            qos: 2,
            received_at_ms: -5,
            expires_after_ms: Some(1000),
            publisher: Some("p"),
            author: b"who",
        }
    }

    #[test]
    fn every_record_comes_back_and_no_part_of_one_is_taken_for_it() {
        let session = QueueKey::Session(SessionKey { namespace: 5, client_id: "c" });
        let group = QueueKey::Group { namespace: 0, share_name: "g", filter: "a/+" };
        let outbox = QueueKey::Outbox { namespace: 0, name: "r/a" };
        let letters = QueueKey::DeadLetters { namespace: 0, name: "r/a" };
        let plain = MessageRecord { expires_after_ms: None, publisher: None, author: &[], ..message() };
        let owed = Owed {
            queue: 300,
            position: 1 << 33,
            epoch: 2,
            message: Some(0),
            qos: 2,
            retain: true,
            identifiers: &[7],
            body: b"",
        };
        let queued =
            Owed { message: None, qos: 0, retain: false, identifiers: &[], body: b"request", ..owed };
        let entries = [
            Entry::QueueMade { queue: 1, key: session },
            Entry::QueueMade { queue: 2, key: group },
            Entry::QueueMade { queue: 3, key: outbox },
            Entry::QueueMade { queue: 4, key: letters },
            Entry::QueueMade { queue: 5, key: QueueKey::Wills { namespace: 7 } },
            Entry::QueueGone { queue: 1 },
            Entry::SessionStarted { queue: 1, expiry_interval_s: u32::MAX },
            Entry::SessionOwner { queue: 1, owner: "u" },
            Entry::SessionDetached { queue: 1, at_ms: 1_700_000_000_000 },
            Entry::Will { queue: 1, delay_s: 9, retain: true, message: message() },
            Entry::WillGone { queue: 1 },
            Entry::Subscribed { queue: 1, filter: "a/#", options: 2, identifier: 268_435_455 },
            Entry::Unsubscribed { queue: 1, filter: "a/#" },
            Entry::Message(message()),
            Entry::Message(plain),
            Entry::Owed(owed),
            Entry::Owed(queued),
            Entry::Settled { queue: 1, position: 4 },
            Entry::Retained { message: 1 },
            Entry::RetainedCleared { topic: "a" },
            Entry::Received { queue: 1, packet_id: 65535 },
            Entry::Released { queue: 1, packet_id: 1 },
            Entry::Sent { queue: 1, owner: 2, position: 3, packet_id: 4 },
            Entry::AwaitsCompletion { queue: 1, packet_id: 4 },
            Entry::Completed { queue: 1, packet_id: 4 },
            Entry::Stamp { at_ms: 1 },
        ];
        for entry in entries {
            let mut bytes = Vec::new();
            entry.put(&mut bytes);
            let mut reader = Reader::new(&bytes);
            assert_eq!(Entry::read(&mut reader), Ok(entry));
            assert!(reader.is_empty(), "{entry:?}");
            for length in 0..bytes.len() {
                assert_eq!(Entry::read(&mut Reader::new(&bytes[..length])), Err(Malformed), "{entry:?}");
            }
            if matches!(entry, Entry::Owed(_) | Entry::Retained { .. }) {
                make_void(&mut bytes);
                let mut reader = Reader::new(&bytes);
                assert_eq!(Entry::read(&mut reader), Ok(Entry::Void));
                assert!(reader.is_empty());
            }
        }
        assert_eq!(Entry::read(&mut Reader::new(&[23, 0])), Err(Malformed));
    }
}
