//! Routes: everything that a publish to one topic concerns, worked out once and used until something changes.
//!
//! Each thread keeps the routes of the topics it saw last and checks a route's stamp before it uses it: a changed
//! Subscription or rule makes the next publish work the route out again. The cache is bounded by topics and by
//! receivers, so that neither a million topics nor a topic with a hundred thousand receivers fills the memory.

use std::cell::RefCell;
use std::sync::Arc;

use mqtt_protocol::{QoS, SubscriptionOptions};

use super::compact_set::hash_of;
use super::index::{FilterIndex, IndexStamp};
use super::{Group, Subscribers};
use crate::hook::{MessageHandler, MessageHook};
use crate::meters::{Meter, Meters};
use crate::session::Session;

/// Slots of a thread's cache; a topic has one place in it.
const CACHE_SLOTS: usize = 1024;
/// Receivers of all routes in a thread's cache together.
const CACHED_RECEIVERS_MAX: usize = 256 * 1024;

/// What a topic's messages concern.
pub(crate) struct Route {
    pub(crate) receivers: Box<[Receiver]>,
    pub(crate) groups: Box<[Arc<Group>]>,
    pub(crate) handler: Option<Arc<dyn MessageHandler>>,
    /// What its messages are counted with, beside the counters of all.
    pub(crate) meters: Box<[Arc<Meter>]>,
    stamp: Stamp,
}

impl std::fmt::Debug for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Route").field("receivers", &self.receivers.len()).finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    index: IndexStamp,
    hook: u64,
    meters: u64,
}

/// One session that receives the topic's messages, once, however many of its Subscriptions match.
#[derive(Debug)]
pub(crate) struct Receiver {
    pub(crate) session: Arc<Session>,
    options: SubscriptionOptions,
    /// The Subscriptions one by one, where there are several or one has an identifier.
    parts: Option<Box<[Part]>>,
}

#[derive(Debug, Clone, Copy)]
struct Part {
    options: SubscriptionOptions,
    identifier: u32,
}

/// What a receiver's Subscriptions together grant to one message.
#[derive(Debug)]
pub(crate) struct Granted {
    pub(crate) qos: QoS,
    pub(crate) retain_as_published: bool,
    pub(crate) identifiers: smallvec::SmallVec<[u32; 4]>,
}

impl Receiver {
    /// The highest QoS and all identifiers of the Subscriptions that apply; `None` when the publisher is the receiver
    /// itself and every one of them says No Local [MQTT-3.8.3-3, v5].
    pub(crate) fn granted(&self, publisher: Option<&str>) -> Option<Granted> {
        let is_own = |options: &SubscriptionOptions| {
            options.no_local && publisher.is_some_and(|publisher| *publisher == *self.session.client_id)
        };
        match &self.parts {
            None => (!is_own(&self.options)).then(|| Granted {
                qos: self.options.qos,
                retain_as_published: self.options.retain_as_published,
                identifiers: smallvec::SmallVec::new(),
            }),
            Some(parts) => {
                let mut applying = parts.iter().filter(|part| !is_own(&part.options)).peekable();
                applying.peek()?;
                let mut granted = Granted {
                    qos: QoS::AtMostOnce,
                    retain_as_published: false,
                    identifiers: smallvec::SmallVec::new(),
                };
                for part in applying {
                    granted.qos = granted.qos.max(part.options.qos);
                    granted.retain_as_published |= part.options.retain_as_published;
                    if part.identifier != 0 {
                        granted.identifiers.push(part.identifier);
                    }
                }
                Some(granted)
            }
        }
    }

    /// Whether some QoS 1 or 2 message could be owed to this receiver.
    pub(crate) fn may_owe(&self) -> bool {
        match &self.parts {
            None => self.options.qos > QoS::AtMostOnce,
            Some(parts) => parts.iter().any(|part| part.options.qos > QoS::AtMostOnce),
        }
    }
}

struct Cached {
    broker: u64,
    topic: Box<str>,
    route: Arc<Route>,
}

#[derive(Default)]
struct Cache {
    slots: Vec<Option<Cached>>,
    receivers: usize,
}

thread_local! {
    static CACHE: RefCell<Cache> = RefCell::default();
}

/// The route of a topic in the broker of this number, from the thread's cache if it still holds.
pub(crate) fn route(
    broker: u64,
    index: &FilterIndex<Subscribers>,
    hook: Option<&Arc<dyn MessageHook>>,
    meters: &Meters,
    topic: &str,
) -> Arc<Route> {
    let hash = hash_of(topic);
    let stamp = Stamp {
        index: index.stamp(hash),
        hook: hook.map_or(0, |hook| hook.generation()),
        meters: meters.generation(),
    };
    CACHE.with_borrow_mut(|cache| {
        if cache.slots.is_empty() {
            cache.slots.resize_with(CACHE_SLOTS, || None);
        }
        // Bits that the index doesn't use for its shards.
        let slot = (hash >> 20) as usize % CACHE_SLOTS;
        if let Some(Some(cached)) = cache.slots.get(slot)
            && cached.broker == broker
            && *cached.topic == *topic
            && cached.route.stamp == stamp
        {
            return Arc::clone(&cached.route);
        }
        let route = Arc::new(build(index, hook, meters, topic, hash, stamp));
        if cache.receivers + route.receivers.len() > CACHED_RECEIVERS_MAX {
            cache.slots.iter_mut().for_each(|slot| *slot = None);
            cache.receivers = 0;
        }
        if let Some(place) = cache.slots.get_mut(slot) {
            cache.receivers += route.receivers.len();
            let cached = Cached { broker, topic: topic.into(), route: Arc::clone(&route) };
            if let Some(old) = place.replace(cached) {
                cache.receivers = cache.receivers.saturating_sub(old.route.receivers.len());
            }
        }
        route
    })
}

fn build(
    index: &FilterIndex<Subscribers>,
    hook: Option<&Arc<dyn MessageHook>>,
    meters: &Meters,
    topic: &str,
    hash: u64,
    stamp: Stamp,
) -> Route {
    let mut receivers: Vec<Receiver> = Vec::new();
    let mut groups = Vec::new();
    let mut filters = 0;
    index.matching(topic, hash, |_, subscribers| {
        filters += usize::from(!subscribers.sessions.is_empty());
        receivers.reserve_exact(subscribers.sessions.len());
        for subscriber in subscribers.sessions.iter() {
            let part = Part { options: subscriber.options, identifier: subscriber.identifier };
            receivers.push(Receiver {
                session: Arc::clone(&subscriber.session),
                options: subscriber.options,
                parts: (subscriber.identifier != 0).then(|| Box::from([part])),
            });
        }
        groups.extend(subscribers.groups.iter().flat_map(|groups| groups.iter().cloned()));
    });
    if filters > 1 {
        merge_overlapping(&mut receivers);
    }
    Route {
        receivers: receivers.into_boxed_slice(),
        groups: groups.into_boxed_slice(),
        handler: hook.and_then(|hook| hook.candidates(topic)),
        meters: meters.of(topic),
        stamp,
    }
}

/// Makes one receiver of all that are the same session [MQTT-3.3.4-2, v5].
fn merge_overlapping(receivers: &mut Vec<Receiver>) {
    receivers.sort_by_key(|receiver| receiver.session.number);
    receivers.dedup_by(|next, kept| {
        let same = next.session.number == kept.session.number;
        if same {
            let parts = |receiver: &Receiver| match &receiver.parts {
                Some(parts) => parts.to_vec(),
                None => vec![Part { options: receiver.options, identifier: 0 }],
            };
            kept.parts = Some([parts(kept), parts(next)].concat().into());
        }
        same
    });
}
