//! What is shown of a running broker: clients, Subscriptions and Retained Messages, in pages.
//!
//! A page is a copy. Sessions are gone through shard by shard and each session is locked for as long as its few numbers take
//! to read, so nobody who publishes waits for somebody who looks. Pages follow the order of Client Identifiers and filters, and
//! the next one begins behind the last name that was shown: what comes or goes meanwhile shifts nothing. Retained Messages come in
//! the order in which the broker looks for them, and the place where to go on is a [`RetainedPlace`].

use std::collections::BinaryHeap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use mqtt_protocol::topic::{ParsedFilter, parse_filter};
use mqtt_protocol::{ProtocolVersion, SubscriptionOptions, matches};

use crate::broker::{Broker, Shared};
use crate::clock::Now;
use crate::listeners::Listener;
use crate::message::{Message, Publisher};
use crate::session::{Session, SessionInner};
use crate::subscriptions::retained::{Cursor, Step};

/// Topics that a search for Retained Messages looks at before it lets others run.
const SEARCH_STEP: usize = 1_000;
/// Topics that one page of Retained Messages looks at.
const SEARCH_TOPICS_MAX: usize = 100_000;

/// Which clients are wanted.
#[derive(Debug, Clone, Default)]
pub struct ClientFilter {
    /// Part of the Client Identifier.
    pub contains: Option<String>,
    /// Connected, or not.
    pub connected: Option<bool>,
    /// User name of whoever is connected.
    pub username: Option<String>,
}

/// A session, and who is connected to it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ClientInfo {
    /// Client Identifier.
    pub client_id: String,
    /// Who is connected; `None`: nobody is.
    pub connection: Option<ConnectionInfo>,
    /// Seconds that the session outlives its connection; `u32::MAX`: for ever.
    pub session_expiry_s: u32,
    /// Whether the store knows of the session.
    pub is_durable: bool,
    /// Subscriptions.
    pub subscriptions: usize,
    /// Messages that wait in memory.
    pub queued_messages: usize,
    /// Their bytes.
    pub queued_bytes: u64,
    /// Bytes of those that wait on disk alone, about.
    pub queued_disk_bytes: u64,
    /// Messages sent and unacknowledged, and those that stand before them.
    pub inflight: usize,
    /// Whether there is a Will Message.
    pub has_will: bool,
}

/// A connection to a session.
#[derive(Debug, Clone)]
pub struct ConnectionInfo {
    /// Who it is.
    pub who: Arc<Publisher>,
    /// Version of the protocol.
    pub version: ProtocolVersion,
    /// When the client was last heard, milliseconds since the epoch.
    pub last_heard_at_ms: i64,
}

/// A Subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SubscriptionInfo {
    /// Whose it is.
    pub client_id: String,
    /// The filter as the client wrote it, `$share` included.
    pub filter: String,
    /// Its options.
    pub options: SubscriptionOptions,
    /// Subscription Identifier, 0 for none.
    pub identifier: u32,
}

/// What waits in the queues of all sessions.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct SessionQueues {
    /// Messages that wait in memory.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes of those that wait on disk alone, about.
    pub disk_bytes: u64,
    /// Messages sent and unacknowledged, and those that stand before them.
    pub inflight: u64,
    /// Age of the message that has waited longest in memory.
    pub oldest_age_ms: Option<u64>,
    /// The connected clients whose queues are oldest, oldest first.
    pub slowest: Vec<WaitingClient>,
}

/// A connected client for which messages wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingClient {
    /// Client Identifier.
    pub client_id: String,
    /// Messages that wait in memory.
    pub messages: usize,
    /// Their bytes, and about those of messages on disk alone.
    pub bytes: u64,
    /// Age of the one that has waited longest in memory.
    pub oldest_age_ms: u64,
}

/// Where a page of Retained Messages ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetainedPlace {
    /// Number of the part that the search is in.
    pub part: usize,
    /// Topics before this one are done.
    pub from: Vec<u8>,
}

/// A Client Identifier in a heap of sessions.
struct ById(Arc<Session>);

impl PartialEq for ById {
    fn eq(&self, other: &Self) -> bool {
        self.0.client_id == other.0.client_id
    }
}
impl Eq for ById {}
impl PartialOrd for ById {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for ById {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.client_id.cmp(&other.0.client_id)
    }
}

impl Broker {
    /// Clients from behind `after` on, by Client Identifier, at most `limit`; and whether there are more. Looks at every session,
    /// so it belongs where blocking is allowed.
    #[must_use]
    pub fn clients(
        &self,
        filter: &ClientFilter,
        after: Option<&str>,
        limit: usize,
    ) -> (Vec<ClientInfo>, bool) {
        let now = self.shared.clock.now();
        let (sessions, has_more) = self.shared.sessions_after(after, limit, |session| filter.fits(session));
        (sessions.iter().map(|session| info(session, &session.lock(), now)).collect(), has_more)
    }

    /// The client of this identifier.
    #[must_use]
    pub fn client(&self, client_id: &str) -> Option<ClientInfo> {
        let session = self.shared.sessions.find(client_id)?;
        let inner = session.lock();
        Some(info(&session, &inner, self.shared.clock.now()))
    }

    /// Adds up what waits for clients, and names the `slowest` of those that are connected. Looks at every session, so it belongs where blocking is
    /// allowed.
    #[must_use]
    pub fn session_queues(&self, slowest: usize) -> SessionQueues {
        let now = self.shared.clock.now();
        let mut queues = SessionQueues::default();
        for session in self.shared.sessions.all() {
            let inner = session.lock();
            let (messages, bytes) = inner.state.queued();
            let disk_bytes = inner.state.disk_bytes();
            queues.messages += messages as u64;
            queues.bytes += bytes;
            queues.disk_bytes += disk_bytes;
            queues.inflight += inner.state.inflight() as u64;
            let Some(received_at_ms) = inner.state.oldest_received_at_ms() else { continue };
            let is_connected = inner.client.is_some();
            drop(inner);
            // The wall clock may have been set back meanwhile.
            let oldest_age_ms = u64::try_from(now.wall_ms.saturating_sub(received_at_ms)).unwrap_or(0);
            queues.oldest_age_ms = queues.oldest_age_ms.max(Some(oldest_age_ms));
            if !is_connected {
                continue;
            }
            let place = queues.slowest.partition_point(|other| other.oldest_age_ms >= oldest_age_ms);
            if place < slowest {
                let client_id = session.client_id.to_string();
                let bytes = bytes + disk_bytes;
                let client = WaitingClient { client_id, messages, bytes, oldest_age_ms };
                queues.slowest.insert(place, client);
                queues.slowest.truncate(slowest);
            }
        }
        queues
    }

    /// Names of listeners that have certificates, and when the first of each expires: seconds since the epoch.
    #[must_use]
    pub fn certificates(&self) -> Vec<(Arc<str>, i64)> {
        let listeners = self.shared.listeners.lock();
        let expiry = |listener: &Arc<Listener>| {
            Some((Arc::clone(&listener.name), listener.certificate_expires_at_s()?))
        };
        listeners.iter().filter_map(expiry).collect()
    }

    /// What the decider about access has counted, as `$SYS` names it.
    #[must_use]
    pub fn access_figures(&self) -> Vec<(&'static str, u64)> {
        self.shared.access.figures()
    }

    /// Subscriptions by Client Identifier and filter, from behind `after` on, at most `limit`; and whether there are more.
    /// `client_id`: of this client alone; `topic`: those that messages of this Topic Name go to. Looks at every session, so it
    /// belongs where blocking is allowed.
    #[must_use]
    pub fn subscriptions(
        &self,
        client_id: Option<&str>,
        topic: Option<&str>,
        after: Option<(&str, &str)>,
        limit: usize,
    ) -> (Vec<SubscriptionInfo>, bool) {
        let fits = |filter: &str| topic.is_none_or(|topic| concerns(filter, topic));
        let mut found = Vec::new();
        let mut collect = |session: &Arc<Session>, behind: Option<&str>| {
            let mut filters: Vec<Arc<str>> = session
                .lock()
                .subscriptions
                .iter()
                .map(|subscription| Arc::clone(&subscription.filter))
                .filter(|filter| behind.is_none_or(|behind| &**filter > behind) && fits(filter))
                .collect();
            filters.sort_unstable();
            for filter in filters {
                if found.len() > limit {
                    return;
                }
                found.extend(self.shared.subscription(session, &filter));
            }
        };
        // The one that the page before broke off in comes first.
        if let Some((session, filter)) =
            after.and_then(|(id, filter)| Some((self.shared.sessions.find(id)?, filter)))
        {
            collect(&session, Some(filter));
        }
        match client_id {
            Some(client_id) if after.is_none() => {
                if let Some(session) = self.shared.sessions.find(client_id) {
                    collect(&session, None);
                }
            }
            Some(_) => {}
            None => {
                let has_any = |session: &Arc<Session>| {
                    session.lock().subscriptions.iter().any(|subscription| fits(&subscription.filter))
                };
                // Each of these has at least one, so no more are needed.
                let behind = after.map(|(client_id, _)| client_id);
                for session in &self.shared.sessions_after(behind, limit + 1, has_any).0 {
                    collect(session, None);
                }
            }
        }
        let has_more = found.len() > limit;
        found.truncate(limit);
        (found, has_more)
    }

    /// Retained Messages that a filter matches, from a place on, at most `limit`; and where to go on, if there may be more. A
    /// page that looks at very many topics ends early.
    pub async fn retained(
        &self,
        filter: &str,
        from: Option<RetainedPlace>,
        limit: usize,
    ) -> (Vec<Arc<Message>>, Option<RetainedPlace>) {
        let retained = &self.shared.retained;
        let now_ms = self.shared.clock.now().mono_ms;
        let mut cursor = from.map_or_else(Cursor::default, |place| Cursor::at(place.part, place.from));
        let mut found = Vec::new();
        for _ in 0..SEARCH_TOPICS_MAX / SEARCH_STEP {
            let step = retained.search(filter, &mut cursor, SEARCH_STEP, now_ms, |message| {
                found.push(Arc::clone(message));
                found.len() < limit
            });
            match step {
                Step::Finished => return (found, None),
                Step::More if found.len() >= limit => break,
                Step::More => tokio::task::yield_now().await,
                Step::Busy => drop(retained.turn_at(&cursor).await),
            }
        }
        let (part, from) = cursor.place();
        (found, Some(RetainedPlace { part, from }))
    }

    /// The Retained Message of a topic.
    #[must_use]
    pub fn retained_message(&self, topic: &str) -> Option<Arc<Message>> {
        let now_ms = self.shared.clock.now().mono_ms;
        self.shared.retained.find(topic).filter(|message| !message.is_expired(now_ms))
    }

    /// Seconds until a message expires; `None`: never.
    #[must_use]
    pub fn expires_in_s(&self, message: &Message) -> Option<u64> {
        let now_ms = self.shared.clock.now().mono_ms;
        message.expires_at_ms().map(|at_ms| at_ms.saturating_sub(now_ms) / 1_000)
    }
}

impl ClientFilter {
    fn fits(&self, session: &Session) -> bool {
        if self.contains.as_ref().is_some_and(|part| !session.client_id.contains(part)) {
            return false;
        }
        if self.connected.is_none() && self.username.is_none() {
            return true;
        }
        let inner = session.lock();
        self.connected.is_none_or(|connected| connected == inner.client.is_some())
            && self.username.as_ref().is_none_or(|name| {
                inner.client.as_ref().is_some_and(|client| client.username() == Some(name))
            })
    }
}

impl Shared {
    /// Sessions from behind `after` on, by Client Identifier, at most `limit` of those that are wanted; and whether there are
    /// more. No more than that are held at any moment.
    fn sessions_after(
        &self,
        after: Option<&str>,
        limit: usize,
        is_wanted: impl Fn(&Arc<Session>) -> bool,
    ) -> (Vec<Arc<Session>>, bool) {
        let mut first = BinaryHeap::new();
        for session in self.sessions.all() {
            let is_behind = after.is_none_or(|after| &*session.client_id > after);
            let is_late = first.len() > limit
                && first.peek().is_some_and(|last: &ById| last.0.client_id < session.client_id);
            if is_behind && !is_late && is_wanted(&session) {
                first.push(ById(session));
                if first.len() > limit + 1 {
                    first.pop();
                }
            }
        }
        let mut sessions: Vec<_> = first.into_sorted_vec().into_iter().map(|entry| entry.0).collect();
        let has_more = sessions.len() > limit;
        sessions.truncate(limit);
        (sessions, has_more)
    }

    /// A session's Subscription, unless it is gone by now.
    fn subscription(&self, session: &Session, text: &str) -> Option<SubscriptionInfo> {
        let (filter, share_name) = match parse_filter(text).ok()? {
            ParsedFilter::Plain(filter) => (filter, None),
            ParsedFilter::Shared(shared) => (shared.filter, Some(shared.share_name)),
        };
        let (options, identifier) = self.subscriptions.find(filter, |subscribers| match share_name {
            None => subscribers
                .sessions
                .find(&session.number)
                .map(|subscriber| (subscriber.options, subscriber.identifier)),
            Some(share_name) => {
                let groups = subscribers.groups.as_ref()?;
                let group = groups.iter().find(|group| *group.share_name == *share_name)?;
                group.options_of(session)
            }
        })??;
        Some(SubscriptionInfo {
            client_id: session.client_id.to_string(),
            filter: text.to_owned(),
            options,
            identifier,
        })
    }
}

/// Whether messages of a topic go to a filter, `$share` and all.
fn concerns(filter: &str, topic: &str) -> bool {
    match parse_filter(filter) {
        Ok(ParsedFilter::Plain(filter)) => matches(filter, topic),
        Ok(ParsedFilter::Shared(shared)) => matches(shared.filter, topic),
        Err(_) => false,
    }
}

fn info(session: &Session, inner: &SessionInner, now: Now) -> ClientInfo {
    let (queued_messages, queued_bytes) = inner.state.queued();
    let connection = inner.client.as_ref().map(|who| {
        let silent_ms = now.mono_ms.saturating_sub(session.last_heard_ms.load(Ordering::Relaxed));
        ConnectionInfo {
            who: Arc::clone(who),
            version: inner.state.version(),
            last_heard_at_ms: now.wall_ms.saturating_sub_unsigned(silent_ms),
        }
    });
    ClientInfo {
        client_id: session.client_id.to_string(),
        connection,
        session_expiry_s: inner.expiry_interval_s,
        is_durable: inner.is_recorded,
        subscriptions: inner.subscriptions.len(),
        queued_messages,
        queued_bytes,
        queued_disk_bytes: inner.state.disk_bytes(),
        inflight: inner.state.inflight(),
        has_will: inner.will.is_some(),
    }
}
