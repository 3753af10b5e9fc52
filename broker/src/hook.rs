//! Where rules see messages: the broker owns the trait, whoever evaluates rules implements it.
//!
//! A [`MessageHook`] is asked once per topic which handler concerns it; the answer is cached with the route until the
//! hook's generation changes, so a topic that no rule names costs nothing. The handler runs on the publish path, before
//! anything is acknowledged and before anybody received the message: what it wants done joins the message's admission.

use std::sync::Arc;

use mqtt_protocol::QoS;
use store::{Position, QueueKey};
use trace::Context;

use crate::message::Publication;

/// Sees every accepted publish before it is acknowledged.
pub trait MessageHook: Send + Sync + 'static {
    /// Changes whenever [`MessageHook::candidates`] may answer differently; cached routes are dropped then.
    fn generation(&self) -> u64;

    /// The handler for a topic, `None` where nothing wants its messages.
    fn candidates(&self, topic: &str) -> Option<Arc<dyn MessageHandler>>;
}

/// Handles the messages of the topics it was returned for.
pub trait MessageHandler: Send + Sync + 'static {
    /// Looks at one message, from `cursor` on (0 at first; its meaning is the handler's own).
    ///
    /// On [`Progress::Yield`] it is called again with the same cursor and effects after other connections had a turn.
    fn handle(&self, message: &Publication<'_>, cursor: &mut usize, effects: &mut HookEffects) -> Progress;
}

/// Whether a handler is through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// All done.
    Done,
    /// The step budget is used up; call again.
    Yield,
}

/// What a handler wants done as part of the message's admission.
#[derive(Default)]
pub struct HookEffects {
    /// Messages to route right after this one, in order, before the publisher is told yes.
    pub republish: Vec<Republish>,
    /// What the message makes the broker owe to actions: in the same frame of the store as its other debts.
    pub owed: Vec<OwedToAction>,
    /// An action has no room and its policy is to let publishers wait: the message is refused, as if a quota were exceeded.
    pub refused: bool,
    /// What to do once the message is admitted: its debts are with the store, and nobody has received it yet. Dropped
    /// without being called when the message is refused. Must not block.
    pub admitted: Vec<Admitted>,
    /// The trace that the handler has begun for a message that had none: the context of the message's first span. It holds
    /// for the calls that follow for the same message.
    pub trace: Option<Context>,
}

/// Something to do once a message is admitted.
pub type Admitted = Box<dyn FnOnce() + Send>;

impl std::fmt::Debug for HookEffects {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HookEffects")
            .field("republish", &self.republish)
            .field("owed", &self.owed)
            .field("refused", &self.refused)
            .field("admitted", &self.admitted.len())
            .finish()
    }
}

/// Whose queue a debt goes to. The text is the action's name, `rule/action`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ActionQueue {
    /// It is to be delivered.
    Outbox(Arc<str>),
    /// It can't be delivered, and is kept for somebody to look at.
    DeadLetters(Arc<str>),
}

impl ActionQueue {
    /// The queue's key in the store.
    pub(crate) fn key(&self, namespace: u32) -> QueueKey<'_> {
        match self {
            Self::Outbox(name) => QueueKey::Outbox { namespace, name },
            Self::DeadLetters(name) => QueueKey::DeadLetters { namespace, name },
        }
    }
}

/// Something that an action is owed because of the message.
pub struct OwedToAction {
    /// Where it waits.
    pub queue: ActionQueue,
    /// What the action needs to deliver it.
    pub body: Vec<u8>,
    /// Told its place once the message is admitted; dropped without being called when the message is refused.
    pub placed: Placed,
}

impl std::fmt::Debug for OwedToAction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OwedToAction")
            .field("queue", &self.queue)
            .field("body_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// Told the place of a debt in its queue; [`Position::NOWHERE`] when the store keeps nothing. Called in the order of the
/// publishes of one publisher, for an inbound QoS 2 message once its receive record is safe. Must not block.
pub type Placed = Box<dyn FnOnce(Position) + Send>;

/// A message that a rule makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Republish {
    /// Number of the rule; appended to the message's trail.
    pub rule: u32,
    /// Topic Name.
    pub topic: String,
    /// Payload.
    pub payload: Vec<u8>,
    /// Quality of service.
    pub qos: QoS,
    /// Whether it is to be retained.
    pub retain: bool,
    /// Encoded MQTT 5 properties that are forwarded unaltered (see `mqtt_protocol`'s forward bytes); may be empty.
    pub properties: Vec<u8>,
    /// Seconds until it expires.
    pub message_expiry_interval_s: Option<u32>,
    /// User name whose rights it needs; `None`: the rule may publish what it likes.
    pub run_as: Option<Arc<str>>,
    /// Its trace, and the span that what is done with it belongs to.
    pub trace: Option<Context>,
}
