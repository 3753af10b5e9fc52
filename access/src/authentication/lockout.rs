//! Guessing is slow: after some failures an address, and a user name, has to wait, and longer each time.
//!
//! - Whether a user exists makes no difference: names are counted as they are given.
//! - Somebody who fails on purpose under a device's name must not keep the device out: an address that the user came in from
//!   lately doesn't wait for the name's sake.
//! - Clients of the same machine share one address, loopback, and Unix sockets have none: they wait for the name's sake alone.
//! - An IPv6 network of 64 bits is one address: whoever has one has all of them.
//!
//! The tables are bounded. When one is full, what was touched longest ago goes in favour of what comes: an attacker with that many
//! addresses isn't held up by any table.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// How long an address that a user came in from is known as theirs.
const KNOWN_FOR: Duration = Duration::from_secs(24 * 3600);
/// Longest part of a user name that is kept: longer ones that begin alike are one.
const NAME_BYTES: usize = 128;
/// Waits are doubled this often at most.
const DOUBLINGS_MAX: u32 = 30;

/// When somebody has to wait, and how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LockoutLimits {
    /// Failures of one address without a wait; 0: any number.
    pub failures_per_address: u32,
    /// Failures under one user name without a wait; 0: any number.
    pub failures_per_user: u32,
    /// The first wait; each further failure doubles it.
    pub first_wait: Duration,
    /// The longest wait.
    pub longest_wait: Duration,
    /// Time after which failures are forgotten, if none is added.
    pub forget_after: Duration,
    /// Addresses remembered; the same number of user names, and of users with their addresses.
    pub remembered: usize,
}

impl Default for LockoutLimits {
    fn default() -> Self {
        Self {
            failures_per_address: 20,
            failures_per_user: 10,
            first_wait: Duration::from_secs(1),
            longest_wait: Duration::from_secs(300),
            forget_after: Duration::from_secs(900),
            remembered: 10_000,
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Lockout {
    limits: LockoutLimits,
    addresses: Mutex<Table<IpAddr>>,
    users: Mutex<Table<Box<str>>>,
    known: Mutex<Table<(Box<str>, Option<IpAddr>)>>,
    pub(crate) refused: AtomicU64,
    pub(crate) lockouts: AtomicU64,
}

#[derive(Debug)]
struct Table<K> {
    entries: HashMap<K, Entry>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    failures: u32,
    /// Nothing is tried before.
    until: Instant,
    touched: Instant,
}

impl Lockout {
    /// Makes one.
    #[must_use]
    pub fn new(limits: LockoutLimits) -> Self {
        Self {
            limits,
            addresses: Mutex::default(),
            users: Mutex::default(),
            known: Mutex::default(),
            refused: AtomicU64::new(0),
            lockouts: AtomicU64::new(0),
        }
    }

    /// How long this attempt would have to wait.
    pub fn wait(&self, address: Option<IpAddr>, user: Option<&str>) -> Option<Duration> {
        let now = Instant::now();
        let by_address = counted(address).and_then(|address| self.addresses.lock().wait(&address, now));
        let by_user = user.map(short).filter(|user| !self.knows(user, address, now));
        let by_user = by_user.and_then(|user| self.users.lock().wait(user, now));
        let wait = by_address.max(by_user);
        if wait.is_some() {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        wait
    }

    /// Notes that an attempt failed.
    pub fn failed(&self, address: Option<IpAddr>, user: Option<&str>) {
        let now = Instant::now();
        let limits = &self.limits;
        if let Some(address) = counted(address) {
            let failures = limits.failures_per_address;
            let wait = self.addresses.lock().failed(address, failures, limits, now);
            self.note_wait(
                wait,
                failures,
                || tracing::warn!(%address, "an address is locked out for a while: too many failures"),
            );
        }
        if let Some(user) = user.map(short) {
            let failures = limits.failures_per_user;
            let wait = self.users.lock().failed(user.into(), failures, limits, now);
            self.note_wait(wait, failures, || {
                tracing::debug!(user, "a user name is locked out for a while: too many failures")
            });
        }
    }

    /// Counts a wait that begins; only the first of a row is told.
    fn note_wait(&self, failures: Option<u32>, limit: u32, tell: impl FnOnce()) {
        let Some(failures) = failures else { return };
        self.lockouts.fetch_add(1, Ordering::Relaxed);
        if failures == limit {
            tell();
        }
    }

    /// Notes that an attempt succeeded: the name's failures are forgotten for this address, those of the address are not.
    pub fn succeeded(&self, address: Option<IpAddr>, user: Option<&str>) {
        let Some(user) = user.map(short) else { return };
        let now = Instant::now();
        let entry = Entry { failures: 0, until: now, touched: now };
        self.known.lock().insert((user.into(), network(address)), entry, &self.limits);
    }

    /// Whether the user came in from there lately.
    fn knows(&self, user: &str, address: Option<IpAddr>, now: Instant) -> bool {
        let known = self.known.lock();
        let entry = known.entries.get(&(Box::from(user), network(address)));
        entry.is_some_and(|entry| now.duration_since(entry.touched) < KNOWN_FOR)
    }
}

impl<K> Default for Table<K> {
    fn default() -> Self {
        Self { entries: HashMap::new() }
    }
}

impl<K: Hash + Eq + Clone> Table<K> {
    fn wait<Q: Hash + Eq + ?Sized>(&self, key: &Q, now: Instant) -> Option<Duration>
    where
        K: std::borrow::Borrow<Q>,
    {
        let left = self.entries.get(key)?.until.saturating_duration_since(now);
        (!left.is_zero()).then_some(left)
    }

    /// Adds a failure; returns how many there are if a wait begins.
    fn failed(&mut self, key: K, allowed: u32, limits: &LockoutLimits, now: Instant) -> Option<u32> {
        if allowed == 0 {
            return None;
        }
        let kept = self.entries.get(&key).filter(|entry| {
            now.saturating_duration_since(entry.touched.max(entry.until)) < limits.forget_after
        });
        let failures = kept.map_or(0, |entry| entry.failures).saturating_add(1);
        let beyond = failures.checked_sub(allowed);
        let until = match beyond {
            Some(beyond) => now + wait_after(beyond, limits),
            None => now,
        };
        self.insert(key, Entry { failures, until, touched: now }, limits);
        beyond.map(|_| failures)
    }

    fn insert(&mut self, key: K, entry: Entry, limits: &LockoutLimits) {
        if !self.entries.contains_key(&key) && self.entries.len() >= limits.remembered {
            self.make_room();
        }
        self.entries.insert(key, entry);
    }

    /// Drops the quarter that was touched longest ago: one look over the table makes room for many.
    fn make_room(&mut self) {
        let mut touched: Vec<Instant> = self.entries.values().map(|entry| entry.touched).collect();
        let quarter = touched.len() / 4;
        let (_, limit, _) = touched.select_nth_unstable(quarter);
        let limit = *limit;
        let mut to_drop = quarter + 1;
        self.entries.retain(|_, entry| {
            let goes = entry.touched <= limit && to_drop > 0;
            to_drop -= usize::from(goes);
            !goes
        });
    }
}

fn wait_after(beyond: u32, limits: &LockoutLimits) -> Duration {
    let factor = 1_u32 << beyond.min(DOUBLINGS_MAX);
    limits.first_wait.saturating_mul(factor).min(limits.longest_wait)
}

/// What an address counts as; `None`: not at all.
fn counted(address: Option<IpAddr>) -> Option<IpAddr> {
    network(address).filter(|address| !address.is_loopback())
}

fn network(address: Option<IpAddr>) -> Option<IpAddr> {
    let address = address?.to_canonical();
    match address {
        IpAddr::V6(v6) if !v6.is_loopback() => {
            Some(IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)))
        }
        other => Some(other),
    }
}

fn short(user: &str) -> &str {
    user.get(..user.floor_char_boundary(NAME_BYTES)).unwrap_or(user)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    fn lockout(limits: LockoutLimits) -> Lockout {
        Lockout::new(limits)
    }

    fn fail(lockout: &Lockout, times: usize, address: Option<IpAddr>, user: Option<&str>) {
        for _ in 0..times {
            lockout.failed(address, user);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_waits_at_the_limit_and_longer_each_time() {
        let lockout = lockout(LockoutLimits { failures_per_user: 0, ..LockoutLimits::default() });
        let address = ip("192.0.2.1");
        fail(&lockout, 19, address, Some("a"));
        assert_eq!(lockout.wait(address, Some("a")), None);
        for seconds in [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300] {
            lockout.failed(address, Some("a"));
            assert_eq!(lockout.wait(address, None), Some(Duration::from_secs(seconds)));
            // Whatever name it gives, and nobody else.
            assert!(lockout.wait(address, Some("b")).is_some());
            assert_eq!(lockout.wait(ip("192.0.2.2"), Some("a")), None);
            tokio::time::advance(Duration::from_secs(seconds)).await;
            assert_eq!(lockout.wait(address, None), None);
        }
        tokio::time::advance(Duration::from_secs(900)).await;
        fail(&lockout, 19, address, None);
        assert_eq!(lockout.wait(address, None), None, "what was before is forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn a_user_name_waits_from_wherever_it_comes_except_where_it_came_in_from() {
        let lockout = lockout(LockoutLimits::default());
        lockout.succeeded(ip("198.51.100.7"), Some("device"));
        for last in 1..=9 {
            lockout.failed(ip(&format!("192.0.2.{last}")), Some("device"));
        }
        assert_eq!(lockout.wait(ip("192.0.2.99"), Some("device")), None);
        lockout.failed(ip("192.0.2.10"), Some("device"));
        assert_eq!(lockout.wait(ip("192.0.2.99"), Some("device")), Some(Duration::from_secs(1)));
        assert_eq!(lockout.wait(None, Some("device")), Some(Duration::from_secs(1)));
        assert_eq!(lockout.wait(ip("198.51.100.7"), Some("device")), None);
        assert_eq!(lockout.wait(ip("192.0.2.99"), Some("other")), None);
        tokio::time::advance(KNOWN_FOR).await;
        fail(&lockout, 10, ip("192.0.2.1"), Some("device"));
        assert!(lockout.wait(ip("198.51.100.7"), Some("device")).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn success_doesn_t_wash_an_address_clean() {
        let lockout = lockout(LockoutLimits::default());
        let address = ip("192.0.2.1");
        for number in 0..20 {
            lockout.failed(address, Some(&format!("guess{number}")));
            lockout.succeeded(address, Some("own"));
        }
        assert!(lockout.wait(address, Some("own")).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn loopback_waits_for_the_name_alone_and_a_network_is_one_address() {
        let lockout = lockout(LockoutLimits::default());
        for local in [ip("127.0.0.1"), ip("::1"), ip("::ffff:127.0.0.1"), None] {
            fail(&lockout, 40, local, None);
            assert_eq!(lockout.wait(local, Some("a")), None, "{local:?}");
        }
        fail(&lockout, 10, ip("127.0.0.1"), Some("a"));
        assert!(lockout.wait(ip("127.0.0.1"), Some("a")).is_some());
        fail(&lockout, 20, ip("2001:db8::1"), None);
        assert!(lockout.wait(ip("2001:db8::ffff"), None).is_some());
        assert_eq!(lockout.wait(ip("2001:db8:0:1::1"), None), None);
        fail(&lockout, 20, ip("::ffff:192.0.2.1"), None);
        assert!(lockout.wait(ip("192.0.2.1"), None).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn zero_means_no_lockout() {
        let lockout = lockout(LockoutLimits {
            failures_per_address: 0,
            failures_per_user: 0,
            ..LockoutLimits::default()
        });
        fail(&lockout, 1000, ip("192.0.2.1"), Some("a"));
        assert_eq!(lockout.wait(ip("192.0.2.1"), Some("a")), None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_tables_are_bounded_and_what_is_old_goes_first() {
        let lockout = lockout(LockoutLimits { remembered: 100, ..LockoutLimits::default() });
        for number in 0..1000_u32 {
            tokio::time::advance(Duration::from_millis(1)).await;
            let address = Some(IpAddr::from(number.to_be_bytes().map(|byte| byte | 0x80)));
            lockout.failed(address, Some(&format!("u{number}")));
            lockout.succeeded(address, Some(&format!("u{number}")));
            assert!(lockout.addresses.lock().entries.len() <= 100);
            assert!(lockout.users.lock().entries.len() <= 100);
            assert!(lockout.known.lock().entries.len() <= 100);
        }
        assert!(lockout.users.lock().entries.contains_key("u999"));
        assert!(!lockout.users.lock().entries.contains_key("u0"));
        // Names of any length.
        let long = "é".repeat(30_000);
        fail(&lockout, 10, None, Some(&long));
        assert!(lockout.wait(None, Some(&long)).is_some());
        assert!(lockout.users.lock().entries.keys().all(|name| name.len() <= NAME_BYTES));
    }
}
