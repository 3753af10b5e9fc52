//! What happened in a run, in the order in which the clients saw it.
//!
//! Every client notes what it does before the bytes leave and what it gets once it has read it, so an acknowledgement in the
//! history is one that really came. The checker reads it afterwards; what it complains of is shown with its lines.

use std::fmt;
use std::time::Duration;

/// One of the rows of messages that a publisher numbers on its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// QoS 1, for everybody who subscribes.
    AtLeastOnce,
    /// QoS 2, for everybody who subscribes.
    ExactlyOnce,
    /// Retained under the topic of this number; nobody subscribes for longer.
    Retained(u8),
}

/// The name of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label {
    /// Which publisher sent it.
    pub publisher: u8,
    /// Which of its rows it is in.
    pub lane: Lane,
    /// Its number there, from 1.
    pub number: u32,
}

impl Label {
    /// Whether the message clears its topic instead of being kept there.
    #[must_use]
    pub fn is_clear(self) -> bool {
        matches!(self.lane, Lane::Retained(_)) && self.number.is_multiple_of(5)
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { publisher, number, .. } = self;
        match self.lane {
            Lane::AtLeastOnce => write!(f, "{publisher}/q1/{number}"),
            Lane::ExactlyOnce => write!(f, "{publisher}/q2/{number}"),
            Lane::Retained(topic) => write!(f, "{publisher}/keep{topic}/{number}"),
        }
    }
}

/// One line of the history. Clients and receivers are named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The broker is started.
    Started,
    /// It listens.
    Listening,
    /// It is killed.
    Killed,
    /// A client has its CONNACK, with this Session Present flag.
    Connected(&'static str, bool),
    /// A client goes, with a DISCONNECT or without.
    Left(&'static str, bool),
    /// A publisher sends a message, for the first time or again.
    Sent(Label, bool),
    /// The broker has answered for a message: PUBACK or PUBREC.
    Acknowledged(Label),
    /// A receiver has a message, at this quality of service.
    Delivered(&'static str, Label, u8),
    /// A receiver doesn't want a message and has said so.
    Rejected(&'static str, Label),
    /// A new subscriber was given this Retained Message, or none, of a publisher's topic. The newest number that was
    /// acknowledged before it asked, and the newest that was sent before it looked.
    Kept {
        /// Of which publisher.
        publisher: u8,
        /// Which topic.
        topic: u8,
        /// Number of the message.
        found: Option<u32>,
        /// Acknowledged by then, 0 for none.
        acknowledged: u32,
        /// Sent by then, 0 for none.
        sent: u32,
    },
    /// A client met with something that is wrong in itself.
    Wrong(&'static str, Wrong),
}

/// What is wrong in itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    /// The session that a CONNACK had promised isn't there.
    SessionLost,
    /// The broker sent a message under a Packet Identifier that another one has.
    Collision(Label, Label),
    /// The broker sent a message of QoS 2 again without saying so.
    WithoutDup(Label),
    /// The broker refused a message.
    Refused(Label, u8),
    /// The broker answered for a message before one that had been sent earlier.
    OutOfTurn(Label),
    /// An acknowledgement for a Packet Identifier that isn't in use, with the packet's first byte.
    Unasked(u8, u16),
    /// A message whose bytes aren't those that were sent, or that nobody sent.
    Garbled,
    /// A request with the idempotency key of another message, or with another key than before.
    Key(Label),
    /// The broker ended the connection and said why.
    Disconnected(u8),
    /// A packet that has no business there, by its first byte.
    Unexpected(u8),
}

impl Event {
    /// Whether it is about a message.
    #[must_use]
    pub fn is_about(&self, label: Label) -> bool {
        match *self {
            Self::Sent(about, _)
            | Self::Acknowledged(about)
            | Self::Delivered(_, about, _)
            | Self::Rejected(_, about)
            | Self::Wrong(_, Wrong::WithoutDup(about) | Wrong::Refused(about, _) | Wrong::OutOfTurn(about)) => {
                about == label
            }
            Self::Wrong(_, Wrong::Collision(held, came)) => held == label || came == label,
            Self::Kept { publisher, topic, .. } => {
                publisher == label.publisher && label.lane == Lane::Retained(topic)
            }
            Self::Started
            | Self::Listening
            | Self::Killed
            | Self::Connected(..)
            | Self::Left(..)
            | Self::Wrong(..) => false,
        }
    }
}

/// A line and when it was written, counted from the start of the run.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// When.
    pub at: Duration,
    /// What.
    pub event: Event,
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>11.3} ms  ", self.at.as_secs_f64() * 1000.0)?;
        match self.event {
            Event::Started => write!(f, "-------- start"),
            Event::Listening => write!(f, "-------- it listens"),
            Event::Killed => write!(f, "-------- kill -9"),
            Event::Connected(client, present) => {
                write!(
                    f,
                    "{client} is connected, {}",
                    if present { "session present" } else { "new session" }
                )
            }
            Event::Left(client, is_orderly) => {
                write!(
                    f,
                    "{client} leaves {}",
                    if is_orderly { "with a DISCONNECT" } else { "without a word" }
                )
            }
            Event::Sent(label, again) => write!(f, "{label} is sent{}", if again { " again" } else { "" }),
            Event::Acknowledged(label) => write!(f, "{label} is acknowledged"),
            Event::Delivered(receiver, label, qos) => write!(f, "{label} reaches {receiver} at QoS {qos}"),
            Event::Rejected(receiver, label) => write!(f, "{label} is rejected by {receiver}"),
            Event::Kept { publisher, topic, found, acknowledged, sent } => {
                write!(f, "{publisher}/keep{topic} has {found:?}, acknowledged {acknowledged}, sent {sent}")
            }
            Event::Wrong(client, wrong) => write!(f, "WRONG at {client}: {wrong:?}"),
        }
    }
}
