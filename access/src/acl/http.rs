//! Rules by client, from a server of the operator's.
//!
//! The server isn't asked about each topic but for a client's whole list of rules, when the client comes in, and again for as
//! long as anything of it is there. So the path of a message waits for no server, a wildcard is compared with rules as sets, as
//! everywhere, and wills, retained and queued messages are judged by the same rules as everything else.
//!
//! What two connections ask in the same words has one answer ([`Served`]), which lives as long as somebody holds it. It is asked
//! for again when it is older than `refresh`; when that fails it serves on until it is older than `max_age`, and then it is no
//! list any more: nobody can tell what the client may.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use arc_swap::{ArcSwapOption, Guard};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Rules;
use super::claims::rules_of;
use crate::authentication::EndpointSettings;
use crate::authentication::asker::{Asker, AskerError};

/// Largest answer, in bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Lists that are let go of are forgotten when this many more are known.
const SWEEP_EACH: usize = 1024;

const TOLD: [&str; 2] = [
    "the authorisation server gives no rules: clients that come are refused, and what is known serves on for a while",
    "the authorisation server gives rules again",
];

/// Whom to ask for rules, and how often.
#[derive(Clone)]
pub struct HttpRulesSettings {
    /// The server.
    pub endpoint: EndpointSettings,
    /// Headers of each request; their values may be secrets.
    pub headers: Vec<(String, String)>,
    /// Requests at a time.
    pub requests: usize,
    /// Age at which rules are asked for again.
    pub refresh: Duration,
    /// Age past which they serve no longer.
    pub max_age: Duration,
    /// Clients whose rules are known at a time.
    pub clients_max: usize,
}

impl fmt::Debug for HttpRulesSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpRulesSettings").field("requests", &self.requests).finish_non_exhaustive()
    }
}

/// Whose rules are wanted.
#[derive(Debug, Clone)]
pub struct Asking<'a> {
    /// Client Identifier.
    pub client_id: &'a str,
    /// User name, if it was proven.
    pub username: Option<&'a str>,
    /// Groups.
    pub groups: &'a [Arc<str>],
    /// Address; `None`: a Unix socket.
    pub address: Option<IpAddr>,
    /// Listener.
    pub listener: &'a str,
}

impl Asking<'_> {
    fn body(&self) -> Arc<str> {
        json!({
            "client_id": self.client_id,
            "username": self.username,
            "groups": self.groups.iter().map(|group| &**group).collect::<Vec<_>>(),
            "address": self.address.map(|address| address.to_string()),
            "listener": self.listener,
        })
        .to_string()
        .into()
    }
}

/// The rules that the server has for a client.
pub struct Served {
    /// What was asked.
    body: Arc<str>,
    /// `None`: too old.
    rules: ArcSwapOption<Rules>,
    asked_at: Mutex<Instant>,
}

impl Served {
    /// The rules; `None`: they are too old to be relied on.
    #[must_use]
    pub fn rules(&self) -> Guard<Option<Arc<Rules>>> {
        self.rules.load()
    }

    fn age(&self) -> Duration {
        self.asked_at.lock().elapsed()
    }
}

impl fmt::Debug for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Served").field("rules", &self.rules.load().as_ref().map(|rules| rules.len())).finish()
    }
}

/// What was asked since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HttpRulesCounters {
    /// Questions.
    pub asked: u64,
    /// Those that had no answer, or none that is understood.
    pub failed: u64,
    /// Clients refused because as many as may were known.
    pub full: u64,
}

/// See the module.
pub struct HttpRules {
    asker: Asker,
    requests: usize,
    refresh: Duration,
    max_age: Duration,
    clients_max: usize,
    known: Mutex<Known>,
    /// Who is asked in its place since a reload.
    successor: OnceLock<Weak<HttpRules>>,
    asked: AtomicU64,
    failed: AtomicU64,
    full: AtomicU64,
}

#[derive(Default)]
struct Known {
    /// By what was asked.
    lists: HashMap<Arc<str>, Weak<Served>>,
    /// How many there may be before those that are let go of are looked for.
    sweep_at: usize,
}

impl Known {
    fn find(&self, body: &str) -> Option<Arc<Served>> {
        self.lists.get(body).and_then(Weak::upgrade)
    }

    /// Whether there is room for one more, after those were forgotten that nobody holds.
    fn has_room(&mut self, limit: usize) -> bool {
        if self.lists.len() >= self.sweep_at.min(limit) {
            self.lists.retain(|_, served| served.strong_count() > 0);
            self.sweep_at = self.lists.len() + SWEEP_EACH;
        }
        self.lists.len() < limit
    }
}

impl fmt::Debug for HttpRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpRules").field("asker", &self.asker).finish_non_exhaustive()
    }
}

/// What the server says. What it says beside is left alone.
#[derive(Deserialize)]
struct Answer {
    acl: Value,
}

impl HttpRules {
    /// Makes one.
    ///
    /// # Errors
    /// [`AskerError`].
    pub fn new(settings: &HttpRulesSettings) -> Result<Self, AskerError> {
        let HttpRulesSettings { endpoint, headers, requests, refresh, max_age, clients_max } = settings;
        Ok(Self {
            asker: Asker::new(endpoint, headers, *requests, TOLD)?,
            requests: *requests,
            refresh: *refresh,
            max_age: *max_age,
            clients_max: *clients_max,
            known: Mutex::default(),
            successor: OnceLock::new(),
            asked: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            full: AtomicU64::new(0),
        })
    }

    /// What was asked since the start.
    #[must_use]
    pub fn counters(&self) -> HttpRulesCounters {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        HttpRulesCounters { asked: get(&self.asked), failed: get(&self.failed), full: get(&self.full) }
    }

    /// The rules of a client, as they are known or as the server says.
    ///
    /// # Errors
    /// Why there are none, for the log alone.
    pub async fn of(&self, asking: &Asking<'_>) -> Result<Arc<Served>, String> {
        let body = asking.body();
        let known = self.known.lock().find(&body).filter(|known| known.rules().is_some());
        if let Some(known) = known.as_ref().filter(|known| known.age() < self.refresh) {
            return Ok(Arc::clone(known));
        }
        let at = Instant::now();
        match self.ask(&body).await {
            Ok(rules) => self.keep(body, rules, at),
            // Not too old yet: it serves the client's other connection, or what is left of it.
            Err(why) => known.filter(|known| known.age() < self.max_age).ok_or(why),
        }
    }

    fn keep(&self, body: Arc<str>, rules: Rules, at: Instant) -> Result<Arc<Served>, String> {
        let mut known = self.known.lock();
        // Said before the lists are taken: either it is seen here, or this one is taken along.
        if let Some(successor) = self.successor.get().and_then(Weak::upgrade) {
            drop(known);
            return successor.keep(body, rules, at);
        }
        if let Some(served) = known.find(&body) {
            served.rules.store(Some(Arc::new(rules)));
            *served.asked_at.lock() = at;
            return Ok(served);
        }
        if !known.has_room(self.clients_max) {
            self.full.fetch_add(1, Ordering::Relaxed);
            return Err(format!("rules of {} clients are known, as many as may be", self.clients_max));
        }
        let served = Arc::new(Served {
            body: Arc::clone(&body),
            rules: ArcSwapOption::from_pointee(rules),
            asked_at: Mutex::new(at),
        });
        known.lists.insert(body, Arc::downgrade(&served));
        Ok(served)
    }

    async fn ask(&self, body: &str) -> Result<Rules, String> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let answer = self.asker.ask(body.as_bytes().to_vec(), ANSWER_BYTES_MAX, read).await;
        self.failed.fetch_add(u64::from(answer.is_err()), Ordering::Relaxed);
        answer
    }

    /// Goes on with the lists that another one knew, which are asked for at once: the question goes elsewhere now. Counters go on.
    pub fn take_over(self: &Arc<Self>, other: &Self) {
        if other.successor.set(Arc::downgrade(self)).is_err() {
            return;
        }
        let HttpRulesCounters { asked, failed, full } = other.counters();
        for (counter, count) in [(&self.asked, asked), (&self.failed, failed), (&self.full, full)] {
            counter.fetch_add(count, Ordering::Relaxed);
        }
        let lists = std::mem::take(&mut other.known.lock().lists);
        let due = Instant::now().checked_sub(self.refresh);
        for served in lists.values().filter_map(Weak::upgrade) {
            let mut asked_at = served.asked_at.lock();
            *asked_at = due.map_or(*asked_at, |due| due.min(*asked_at));
        }
        self.known.lock().lists.extend(lists);
    }

    fn older_than(&self, age: Duration) -> Vec<Arc<Served>> {
        let known = self.known.lock();
        known.lists.values().filter_map(Weak::upgrade).filter(|served| served.age() >= age).collect()
    }

    /// Lets go of what is too old. Returns whether anything was.
    pub fn expire(&self) -> bool {
        let too_old = self.older_than(self.max_age);
        too_old.iter().filter(|served| served.rules.swap(None).is_some()).count() > 0
    }

    /// Asks again for what is due, a few at a time, and ends when there is no answer to one. Returns whether anything is
    /// different now.
    pub async fn refresh(self: &Arc<Self>) -> bool {
        let due = self.older_than(self.refresh);
        let mut due = due.into_iter();
        let mut running = JoinSet::new();
        let mut is_changed = false;
        loop {
            // The others are left for clients that come.
            let most = (self.requests / 2).max(1);
            while running.len() < most
                && let Some(served) = due.next()
            {
                let this = Arc::clone(self);
                running.spawn(async move { this.refresh_one(&served).await });
            }
            match running.join_next().await {
                Some(Ok(Some(changed))) => is_changed |= changed,
                // The others would wait for nothing as long.
                Some(Ok(None) | Err(_)) => due.by_ref().for_each(drop),
                None => return is_changed,
            }
        }
    }

    /// Whether a list is different now; `None`: there was no answer.
    async fn refresh_one(&self, served: &Served) -> Option<bool> {
        let at = Instant::now();
        let rules = self.ask(&served.body).await.ok()?;
        *served.asked_at.lock() = at;
        let is_changed = served.rules.load().as_deref() != Some(&rules);
        if is_changed {
            served.rules.store(Some(Arc::new(rules)));
        }
        Some(is_changed)
    }
}

/// Nothing in the answer means no rules. What isn't understood is none at all, and nothing of it is told.
fn read(answer: Vec<u8>) -> Result<Rules, String> {
    if answer.is_empty() {
        return Ok(Rules::default());
    }
    let answer: Answer =
        serde_json::from_slice(&answer).map_err(|_| "the server's answer is not understood".to_owned())?;
    rules_of(&answer.acl, "acl server")
        .map_err(|error| format!("the server's rules are not understood: {error}"))
}

#[cfg(test)]
mod tests {
    use mqtt_protocol::QoS;

    use super::super::{Request, Subject, Verdict};
    use super::*;
    use crate::authentication::test_server::Server;

    const REFRESH: Duration = Duration::from_secs(60);
    const MAX_AGE: Duration = Duration::from_secs(600);

    fn rules_of_server(url: &str, clients_max: usize) -> Arc<HttpRules> {
        let settings = HttpRulesSettings {
            endpoint: EndpointSettings {
                url: url.to_owned(),
                ca: None,
                insecure_http: false,
                timeout: Duration::from_secs(5),
                guard: None,
            },
            headers: vec![("X-Token".to_owned(), "s3cret".to_owned())],
            requests: 2,
            refresh: REFRESH,
            max_age: MAX_AGE,
            clients_max,
        };
        assert!(!format!("{settings:?}").contains("s3cret"));
        Arc::new(HttpRules::new(&settings).unwrap())
    }

    const ADA: Asking<'_> = Asking {
        client_id: "pump",
        username: Some("ada"),
        groups: &[],
        address: Some(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7))),
        listener: "tcp",
    };

    fn may_publish(served: &Served, topic: &str) -> Option<bool> {
        let subject = Subject {
            client_id: Some("pump"),
            username: Some("ada"),
            groups: &[],
            address: None,
            listener: None,
        };
        let request = Request::Publish { topic, qos: QoS::AtMostOnce, retain: false };
        let rules = served.rules();
        Some(matches!(rules.as_ref()?.decide(&subject, request), Verdict::Allow { .. }))
    }

    async fn pass(time: Duration) {
        tokio::time::pause();
        tokio::time::advance(time).await;
        tokio::time::resume();
    }

    #[tokio::test]
    async fn the_request_says_who_and_the_answer_is_a_list_of_rules() {
        let server = Server::start().await;
        let rules = rules_of_server(&server.url(), 10);
        server.answer(200, r#"{"acl":{"pub":["a/${username}"]},"more":1}"#);
        let groups = [Arc::from("ops")];
        let served = rules.of(&Asking { groups: &groups, ..ADA }).await.unwrap();
        assert_eq!((may_publish(&served, "a/ada"), may_publish(&served, "b")), (Some(true), Some(false)));
        let request = server.last();
        let (head, body) = request.split_once("\r\n\r\n").unwrap();
        assert!(head.to_ascii_lowercase().contains("x-token: s3cret"), "{head}");
        let expected = json!({
            "client_id": "pump", "username": "ada", "groups": ["ops"], "address": "192.0.2.7", "listener": "tcp",
        });
        assert_eq!(serde_json::from_str::<Value>(body).unwrap(), expected);
        server.answer(204, "");
        let nobody = Asking { client_id: "c", username: None, address: None, ..ADA };
        assert_eq!(may_publish(&rules.of(&nobody).await.unwrap(), "a/ada"), Some(false));
    }

    #[tokio::test]
    async fn what_is_no_list_of_rules_is_none() {
        let server = Server::start().await;
        let rules = rules_of_server(&server.url(), 10);
        for (status, body) in [
            (200, r#"{"result":"allow"}"#),
            (200, r#"{"acl":"all"}"#),
            (200, r#"{"acl":[{"permission":"allow","action":"all","topic":"s3cret/#/x"}]}"#),
            (200, r#"[{"permission":"allow","action":"all","topic":"a"}]"#),
            (200, "allow"),
            (302, r#"{"acl":[]}"#),
            (403, r#"{"acl":[]}"#),
            (500, ""),
        ] {
            server.answer(status, body);
            let why = rules.of(&ADA).await.unwrap_err();
            assert!(!why.contains("s3cret"), "{why}");
        }
        server.answer(200, &format!(r#"{{"acl":[],"x":"{}"}}"#, "x".repeat(ANSWER_BYTES_MAX)));
        assert!(rules.of(&ADA).await.is_err());
        assert_eq!(rules.counters(), HttpRulesCounters { asked: 9, failed: 9, full: 0 });
        assert!(rules_of_server("http://127.0.0.1:9/", 1).of(&ADA).await.is_err());
    }

    #[tokio::test]
    async fn the_same_question_is_asked_once_and_again_when_it_is_due() {
        let server = Server::start().await;
        let rules = rules_of_server(&server.url(), 10);
        server.answer(200, r#"{"acl":{"pub":["a"]}}"#);
        let first = rules.of(&ADA).await.unwrap();
        let second = rules.of(&ADA).await.unwrap();
        assert!(Arc::ptr_eq(&first, &second) && server.requests() == 1);
        let other = rules.of(&Asking { username: Some("bob"), ..ADA }).await.unwrap();
        assert!(!Arc::ptr_eq(&first, &other) && server.requests() == 2);
        assert!(!rules.refresh().await, "nothing is due");
        assert_eq!(server.requests(), 2);
        pass(REFRESH).await;
        assert!(!rules.refresh().await, "nothing is different");
        assert_eq!(server.requests(), 4);
        pass(REFRESH).await;
        server.answer(200, r#"{"acl":{"pub":["b"]}}"#);
        assert!(rules.refresh().await);
        assert_eq!((may_publish(&first, "a"), may_publish(&first, "b")), (Some(false), Some(true)));
        // Nobody holds them any more, so nobody asks.
        drop((first, second, other));
        pass(REFRESH).await;
        assert!(!rules.refresh().await);
        assert_eq!(server.requests(), 6);
    }

    #[tokio::test]
    async fn without_an_answer_rules_serve_on_until_they_are_too_old() {
        let server = Server::start().await;
        let rules = rules_of_server(&server.url(), 10);
        server.answer(200, r#"{"acl":{"pub":["a"]}}"#);
        let served = rules.of(&ADA).await.unwrap();
        server.answer(500, "");
        pass(MAX_AGE - REFRESH).await;
        assert!(!rules.refresh().await && !rules.expire());
        assert_eq!(may_publish(&served, "a"), Some(true));
        assert!(Arc::ptr_eq(&rules.of(&ADA).await.unwrap(), &served));
        pass(REFRESH).await;
        assert!(rules.expire());
        assert!(!rules.expire(), "once");
        assert_eq!(may_publish(&served, "a"), None);
        assert!(rules.of(&ADA).await.is_err());
        // It comes back for those who hold it.
        server.answer(200, r#"{"acl":{"pub":["a"]}}"#);
        assert!(rules.refresh().await);
        assert_eq!(may_publish(&served, "a"), Some(true));
    }

    #[tokio::test]
    async fn a_round_ends_when_there_is_no_answer() {
        let server = Server::start().await;
        let rules = rules_of_server(&server.url(), 100);
        server.answer(204, "");
        let mut held = Vec::new();
        for number in 0..20 {
            held.push(rules.of(&Asking { client_id: &number.to_string(), ..ADA }).await.unwrap());
        }
        pass(REFRESH).await;
        server.answer(500, "");
        assert!(!rules.refresh().await);
        assert_eq!(server.requests(), 21);
    }

    #[tokio::test]
    async fn so_many_clients_and_no_more() {
        let server = Server::start().await;
        server.answer(204, "");
        let rules = rules_of_server(&server.url(), 2);
        let client = |client_id| Asking { client_id, ..ADA };
        let (first, _second) = (rules.of(&client("1")).await.unwrap(), rules.of(&client("2")).await.unwrap());
        assert!(rules.of(&client("3")).await.unwrap_err().contains("2 clients"));
        assert!(rules.of(&client("1")).await.is_ok());
        assert_eq!(rules.counters().full, 1);
        drop(first);
        assert!(rules.of(&client("3")).await.is_ok());
    }

    #[tokio::test]
    async fn another_server_is_asked_for_what_was_known() {
        let (before, after) = (Server::start().await, Server::start().await);
        before.answer(200, r#"{"acl":{"pub":["a"]}}"#);
        after.answer(200, r#"{"acl":{"pub":["b"]}}"#);
        let old = rules_of_server(&before.url(), 10);
        let served = old.of(&ADA).await.unwrap();
        let new = rules_of_server(&after.url(), 10);
        new.take_over(&old);
        assert!(new.refresh().await);
        assert_eq!((may_publish(&served, "a"), may_publish(&served, "b")), (Some(false), Some(true)));
        assert!(!old.refresh().await);
        assert_eq!((before.requests(), after.requests()), (1, 1));
        assert_eq!(new.counters().asked, 2);
        // Whoever asked the old one while it was replaced is found by the new one.
        let late = old.of(&Asking { client_id: "late", ..ADA }).await.unwrap();
        pass(REFRESH).await;
        assert!(new.refresh().await);
        assert_eq!(may_publish(&late, "b"), Some(true));
    }
}
