//! Files of older format versions are kept in the tree and read for ever.
//!
//! `TIDEGATE_WRITE_FIXTURES=1` writes those of the version of now, when there are none.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail where it stands")]

mod common;

use std::path::Path;

use common::{Model, open, session};
use store::{Disk, FaultDisk, QueueKey, Record, Store};

/// A store with something of everything that there was in a version, killed.
fn example(version: u32) -> FaultDisk {
    let disk = FaultDisk::default();
    let (store, _) = open(&disk);
    let group = QueueKey::Group { namespace: 0, share_name: "g", filter: "f/#" };
    let outbox = QueueKey::Outbox { namespace: 0, name: "rule/action" };
    let author: &[u8] = if version >= 3 { b"who" } else { &[] };
    let first = store::MessageRecord { author, ..common::message(1, b"first") };
    let will = store::MessageRecord { author, ..common::message(2, b"will") };
    let session = session("client");
    let before = [
        Record::SessionStarted { session, expiry_interval_s: 3600 },
        Record::Will { session, delay_s: 5, retain: true, message: will },
        Record::Subscribed { session, filter: "a/#", options: 2, identifier: 300 },
        Record::Message(first),
        Record::Owed { id: first.id, session, qos: 2, retain: true, identifiers: &[300, 1] },
        Record::Owed { id: first.id, session, qos: 1, retain: false, identifiers: &[] },
        Record::OwedToGroup { id: first.id, share_name: "g", filter: "f/#", retain: false },
        Record::Queued { queue: outbox, id: Some(first.id), body: &7u64.to_le_bytes() },
        Record::Retained { id: first.id },
        Record::Received { session, packet_id: 9 },
        Record::Sent { session, queue: group, position: store::Position(1), packet_id: 4 },
        Record::SessionDetached { session, at_ms: 1_700_000_000_000 },
    ];
    common::wait_for(&store, store.append(&before).unwrap());
    if version >= 2 {
        let queue = QueueKey::Wills { namespace: 0 };
        let due = [Record::Message(will), Record::Queued { queue, id: Some(will.id), body: &[1; 8] }];
        common::wait_for(&store, store.append(&due).unwrap());
    }
    if version >= 3 {
        common::wait_for(&store, store.append(&[Record::SessionOwner { session, owner: "user" }]).unwrap());
    }
    // The first part stands in a checkpoint, what comes now in the log alone.
    drop(store);
    let (store, _) = open(&disk);
    let second = common::message(3, b"second");
    let after = [
        Record::Message(second),
        Record::Owed { id: second.id, session, qos: 1, retain: false, identifiers: &[] },
        Record::Settled { queue: QueueKey::Session(session), position: store::Position(2) },
        Record::AwaitsCompletion { session, packet_id: 4 },
    ];
    common::wait_for(&store, store.append(&after).unwrap());
    // Whole, with the directory, which isn't synced.
    let is_whole = |disk: &FaultDisk| {
        let directory = disk.content("000000000001.dir");
        directory
            .is_some_and(|directory| directory.len() > 64 && directory[64..].iter().any(|byte| *byte != 0))
    };
    (0..1000).map(|seed| disk.power_cut(seed)).find(is_whole).unwrap()
}

fn is_read(version: u32) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/version-{version}"));
    if std::env::var_os("TIDEGATE_WRITE_FIXTURES").is_some() && !folder.exists() {
        std::fs::create_dir_all(&folder).unwrap();
        let disk = example(version);
        for name in disk.names().unwrap() {
            std::fs::write(folder.join(&name), disk.content(&name).unwrap()).unwrap();
        }
    }
    let disk = FaultDisk::default();
    for entry in std::fs::read_dir(&folder).unwrap() {
        let entry = entry.unwrap();
        let bytes = std::fs::read(entry.path()).unwrap();
        if entry.path().extension().is_some_and(|extension| extension == "log") {
            assert_eq!(u32::from(u16::from_le_bytes([bytes[8], bytes[9]])), version, "{entry:?}");
        }
        disk.put(entry.file_name().to_str().unwrap(), &bytes);
    }
    let (store, report) = open(&disk);
    assert!(!report.has_losses() && report.frames_replayed > 0, "{report:?}");
    let found = Model::of(&store);
    assert_eq!(found, Model::of(&open(&example(version)).0), "as a store of now would have it");
    assert_eq!(found.sessions["client"].inflight[&4].1, 1);
    let mut reader = store.reader(common::queue("client"));
    let debts = reader.read(store::Position(0), 10, 1 << 20).unwrap();
    assert_eq!(debts[0].identifiers, [300, 1]);
    assert_eq!((debts[0].qos, debts[0].retain, debts.len()), (2, true, 2));
    assert_eq!(debts[1].message.as_ref().unwrap().payload, b"second");
    let wills = store.reader(QueueKey::Wills { namespace: 0 }).read(store::Position(0), 10, 1 << 20).unwrap();
    assert_eq!(wills.len(), usize::from(version >= 2));
    assert_eq!(found.sessions["client"].owner, if version >= 3 { "user" } else { "" });
    let author: &[u8] = if version >= 3 { b"who" } else { &[] };
    store.for_each_retained(|message| assert_eq!(message.author, author)).unwrap();
    store.for_each_session(|session| assert_eq!(session.will.as_ref().unwrap().message.author, author));
}

#[test]
fn version_1_is_read() {
    is_read(1);
}

#[test]
fn version_2_is_read() {
    is_read(2);
}

#[test]
fn version_3_is_read() {
    is_read(3);
}
