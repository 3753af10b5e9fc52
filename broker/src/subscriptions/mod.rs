//! Who wants which messages: Subscriptions, Shared Subscriptions, Retained Messages and the routes made of them.

pub(crate) mod compact_set;
pub(crate) mod index;
pub(crate) mod retained;
pub(crate) mod route;
mod shared;

use std::sync::Arc;

use mqtt_protocol::SubscriptionOptions;

use crate::session::Session;
use compact_set::{CompactSet, Keyed};
use index::Place;

pub(crate) use shared::{Group, give_back};

/// One session at one Topic Filter.
#[derive(Debug)]
pub(crate) struct Subscriber {
    pub(crate) session: Arc<Session>,
    /// Subscription Identifier, 0 for none.
    pub(crate) identifier: u32,
    pub(crate) options: SubscriptionOptions,
}

impl Keyed for Subscriber {
    type Key = u64;
    fn key(&self) -> &u64 {
        &self.session.number
    }
}

/// What the index holds at a Topic Filter.
#[derive(Debug, Default)]
pub(crate) struct Subscribers {
    pub(crate) sessions: CompactSet<Subscriber>,
    /// Shared Subscriptions of this filter, one group for each share name. Boxed: most filters have none.
    #[expect(
        clippy::box_collection,
        reason = "most filters have no groups, and there may be millions of filters"
    )]
    pub(crate) groups: Option<Box<Vec<Arc<Group>>>>,
}

impl Place for Subscribers {
    fn is_vacant(&self) -> bool {
        self.sessions.is_empty() && self.groups.is_none()
    }
}
