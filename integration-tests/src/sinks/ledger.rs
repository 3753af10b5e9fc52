//! What was published, what arrived, and whether the one follows from the other.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{Outcome, POISON};

/// A message as the far side has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrived {
    /// Its publisher.
    pub client: String,
    /// Its number among those of the publisher, from 0.
    pub number: u64,
    /// What it can be recognised by; `None` where the system has no place for that.
    pub key: Option<String>,
}

impl Arrived {
    /// Reads the payload of one of ours.
    #[track_caller]
    #[must_use]
    pub fn read(payload: &[u8], key: Option<&str>) -> Self {
        let value: Value = serde_json::from_slice(payload)
            .unwrap_or_else(|error| panic!("{}: {error}", String::from_utf8_lossy(payload)));
        Self {
            client: value["client"].as_str().unwrap().to_owned(),
            number: value["n"].as_u64().unwrap(),
            key: key.map(str::to_owned),
        }
    }
}

/// The payload that [`Arrived::read`] reads.
pub(super) fn payload(client: &str, number: u64, padding: usize) -> String {
    let pad = "x".repeat(padding);
    format!(r#"{{"client":"{client}","n":{number},"pad":"{pad}"}}"#)
}

/// Whether the far side may have more than one copy of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Copies {
    /// Every answer came, so there is no reason for one.
    None,
    /// The outcome of attempts was unknown.
    Allowed,
}

/// Checks what arrived against what was acknowledged: `published` messages of each client, all of them but the poison.
#[track_caller]
pub(super) fn check(
    arrived: &[Arrived],
    published: &BTreeMap<String, u64>,
    copies: Copies,
    outcome: &mut Outcome,
) {
    let mut seen: BTreeMap<(&str, u64), &Arrived> = BTreeMap::new();
    let mut next: BTreeMap<&str, u64> = BTreeMap::new();
    let mut keys: BTreeSet<&str> = BTreeSet::new();
    for message in arrived {
        assert_ne!(message.client, POISON, "{message:?} was to be refused");
        if let Some(first) = seen.insert((&message.client, message.number), message) {
            outcome.copies += 1;
            assert_eq!(copies, Copies::Allowed, "{message:?} came twice, though every answer arrived");
            assert_eq!(message.key, first.key, "a copy under another key");
            continue;
        }
        if let Some(key) = &message.key {
            assert!(keys.insert(key), "{message:?}: another message has its key");
        }
        let next = next.entry(&message.client).or_default();
        assert_eq!(message.number, *next, "{message:?} is out of order");
        *next += 1;
    }
    for (client, count) in published.iter().filter(|(client, _)| *client != POISON) {
        assert_eq!(next.get(client.as_str()), Some(count), "messages of {client} that arrived");
    }
}
