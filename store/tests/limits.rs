//! Room, failures, durability and upkeep.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail where it stands")]

mod common;

use std::time::Duration;

use common::{open, open_with, options, publish, queue, read, start, until, wait_for};
use store::{Durability, FaultDisk, Health, Position, Record, Store, StoreError, StoreOptions};

const PAYLOAD: [u8; 500] = [b'p'; 500];

fn settle(store: &impl Store, client_id: &str, position: Position) -> store::CommitToken {
    store.append(&[Record::Settled { queue: queue(client_id), position }]).unwrap()
}

fn numbers(store: &store::DurableStore, client_id: &str) -> Vec<u64> {
    read(store, queue(client_id)).into_iter().map(|(number, _)| number).collect()
}

#[test]
fn a_failed_sync_is_final() {
    let disk = FaultDisk::default();
    let (store, _) = open(&disk);
    start(&store, "c");
    let (token, _) = publish(&store, 1, &PAYLOAD, &["c"]).unwrap();
    wait_for(&store, token);
    disk.fail_sync_after(0);
    let (lost, _) = publish(&store, 2, &PAYLOAD, &["c"]).unwrap();
    until(&store, "failed", |store| store.health() == Health::Failed);
    assert!(store.committed() < lost, "nothing is acknowledged");
    let refused = store.append(&[Record::RetainedCleared { topic: "t" }]).unwrap_err();
    assert!(matches!(refused, StoreError::Failed));
    drop(store);
    let (store, report) = open(&disk.power_cut(1));
    assert!(!report.has_losses(), "{report:?}");
    assert_eq!(numbers(&store, "c"), [1]);
    publish(&store, 3, &PAYLOAD, &["c"]).unwrap();
}

#[test]
fn a_reserve_refuses_debts_takes_their_ends_and_recovers_by_itself() {
    let disk = FaultDisk::default();
    disk.set_capacity(200_000);
    let (store, _) = open_with(&disk, StoreOptions { reserve_bytes: 50_000, ..options() });
    start(&store, "c");
    let mut positions = Vec::new();
    until(&store, "full", |store| {
        match publish(store, 1, &PAYLOAD, &["c"]) {
            Ok((token, places)) => {
                positions.extend(places);
                wait_for(store, token);
            }
            Err(error) => assert!(matches!(error, StoreError::Full { .. }), "{error}"),
        }
        matches!(store.health(), Health::Full { .. })
    });
    assert!(positions.len() > 100, "{}", positions.len());
    assert_eq!(store.queue_len(queue("c")), positions.len() as u64, "a refused frame leaves nothing");
    let refused = publish(&store, 1, &PAYLOAD, &["c"]).unwrap_err();
    assert!(matches!(refused, StoreError::Full { .. }));
    for position in positions {
        wait_for(&store, settle(&store, "c", position));
    }
    until(&store, "room", common::is_sound);
    wait_for(&store, publish(&store, 2, &PAYLOAD, &["c"]).unwrap().0);
    assert_eq!(numbers(&store, "c"), [2]);
}

#[test]
fn a_full_disk_holds_back_what_it_has_accepted_until_there_is_room() {
    let disk = FaultDisk::default();
    let (store, _) = open(&disk);
    start(&store, "c");
    let (token, _) = publish(&store, 1, &PAYLOAD, &["c"]).unwrap();
    wait_for(&store, token);
    disk.set_capacity(10_000);
    let mut last = token;
    until(&store, "full", |store| {
        if let Ok((token, _)) = publish(store, 2, &PAYLOAD, &["c"]) {
            last = token;
        }
        matches!(store.health(), Health::Full { .. })
    });
    assert!(store.committed() < last);
    let after = disk.power_cut(2);
    after.set_capacity(u64::MAX);
    let found = read(&open(&after).0, queue("c"));
    assert!(found.len() as u64 <= store.queue_len(queue("c")));
    disk.set_capacity(u64::MAX);
    wait_for(&store, last);
    until(&store, "room", common::is_sound);
    assert_eq!(numbers(&store, "c").len() as u64, store.queue_len(queue("c")));
}

#[test]
fn a_limit_of_the_log_refuses_at_the_limit() {
    let disk = FaultDisk::default();
    let (store, _) = open_with(&disk, StoreOptions { log_bytes_max: 5000, ..options() });
    wait_for(&store, start(&store, "c"));
    let mut accepted = 0;
    let refused = loop {
        match publish(&store, 1, &PAYLOAD, &["c"]) {
            Ok((token, _)) => wait_for(&store, token),
            Err(error) => break error,
        }
        accepted += 1;
    };
    assert!(matches!(refused, StoreError::Full { used, limit: 5000 } if used > 5000), "{refused}");
    assert!((6..9).contains(&accepted), "{accepted}");
    assert!(store.log_bytes().0 <= 5000);
    wait_for(&store, settle(&store, "c", Position(1)));
}

#[test]
fn what_waits_for_the_disk_is_bounded() {
    let disk = FaultDisk::default();
    let limit = 100_000;
    let (store, _) = open_with(&disk, StoreOptions { queue_bytes_max: limit, ..options() });
    wait_for(&store, start(&store, "c"));
    // No room, so that nothing is taken from the queue after the first batch.
    disk.set_capacity(1);
    publish(&store, 1, &[0; 9000], &["c"]).unwrap();
    until(&store, "full", |store| matches!(store.health(), Health::Full { .. }));
    let clear = "x".repeat(10_000);
    let mut accepted = 0;
    let refused = loop {
        match store.append(&[Record::RetainedCleared { topic: &clear }]) {
            Ok(_) => accepted += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, StoreError::Busy { limit: 200_000, .. }), "{refused}");
    assert!((18..21).contains(&accepted), "twice the limit for what ends debts: {accepted}");
    disk.set_capacity(u64::MAX);
    until(&store, "room", |store| store.append(&[Record::RetainedCleared { topic: &clear }]).is_ok());
}

#[test]
fn what_is_confirmed_in_time_is_never_written() {
    let disk = FaultDisk::default();
    let (store, _) = open(&disk);
    wait_for(&store, start(&store, "c"));
    wait_for(&store, start(&store, "d"));
    // The writer is held up, so that the frames below wait.
    disk.set_capacity(1);
    publish(&store, 1, &[0; 9000], &["d"]).unwrap();
    until(&store, "full", |store| matches!(store.health(), Health::Full { .. }));
    disk.set_capacity(u64::MAX);
    until(&store, "room", common::is_sound);
    let mut spared = 0;
    until(&store, "one that was confirmed in time", |store| {
        let (_, positions) = publish(store, 2, &PAYLOAD, &["c"]).unwrap();
        wait_for(store, settle(store, "c", positions[0]).max(publish(store, 3, b"", &[]).unwrap().0));
        spared = store.counters().frames_spared;
        spared > 1
    });
    assert_eq!(store.queue_len(queue("c")), 0);
    assert!(numbers(&open(&disk.power_cut(4)).0, "c").is_empty());
}

#[test]
fn a_slow_session_pins_its_own_messages_only() {
    let disk = FaultDisk::default();
    let (store, _) = open(&disk);
    start(&store, "slow");
    start(&store, "fast");
    let retained = Record::Retained { id: common::message(0, b"").id };
    store.append(&[Record::Message(common::message(0, b"kept")), retained]).unwrap();
    for number in 1..=2000 {
        let client_id = if number % 50 == 0 { "slow" } else { "fast" };
        let (token, positions) = publish(&store, number, &PAYLOAD, &[client_id]).unwrap();
        // Each is written before it is paid.
        wait_for(&store, token);
        if client_id == "fast" {
            settle(&store, "fast", positions[0]);
        }
    }
    let mut number = 2000;
    until(&store, "room", |store| {
        // Upkeep follows the log.
        number += 1;
        let (token, positions) = publish(store, number, &PAYLOAD, &["fast"]).unwrap();
        wait_for(store, token);
        settle(store, "fast", positions[0]);
        let (used, live) = store.log_bytes();
        used < 2 * live + 12 * options().segment_bytes
    });
    assert!(store.counters().segments_removed > 5, "{:?}", store.counters());
    let slow: Vec<u64> = (1..=2000).filter(|number| number % 50 == 0).collect();
    assert_eq!(numbers(&store, "slow"), slow, "in their order");
    let mut kept = Vec::new();
    store.for_each_retained(|message| kept.push(message.payload)).unwrap();
    assert_eq!(kept, [b"kept"]);
    let (after, report) = open(&disk.power_cut(5));
    assert!(!report.has_losses(), "{report:?}");
    assert_eq!(numbers(&after, "slow"), slow);
}

#[test]
fn one_message_for_many_is_moved_once() {
    let disk = FaultDisk::default();
    let (store, _) = open(&disk);
    let clients: Vec<String> = (0..20).map(|number| format!("c{number}")).collect();
    let clients: Vec<&str> = clients.iter().map(String::as_str).collect();
    for client_id in &clients {
        start(&store, client_id);
    }
    let (token, first) = publish(&store, 1, &PAYLOAD, &clients).unwrap();
    wait_for(&store, token);
    // Three still owe it.
    for (client_id, position) in clients.iter().zip(&first).skip(3) {
        settle(&store, client_id, *position);
    }
    until(&store, "moved", |store| {
        let (token, positions) = publish(store, 2, &PAYLOAD, &["c19"]).unwrap();
        wait_for(store, token);
        settle(store, "c19", positions[0]);
        store.counters().moved_bytes > 0
    });
    assert!(store.counters().moved_bytes < 1500, "{:?}", store.counters());
    for client_id in &clients[..3] {
        assert_eq!(numbers(&store, client_id), [1]);
    }
}

#[test]
fn interval_acknowledges_before_the_sync_and_syncs_in_time() {
    let disk = FaultDisk::default();
    let durability = Durability::Interval(Duration::from_millis(20));
    let (store, _) = open_with(&disk, StoreOptions { durability, ..options() });
    wait_for(&store, start(&store, "c"));
    let mut is_ahead = false;
    until(&store, "an acknowledgement ahead of its sync", |store| {
        let before = disk.syncs();
        wait_for(store, publish(store, 1, b"m", &["c"]).unwrap().0);
        is_ahead |= disk.syncs() == before;
        is_ahead
    });
    let owed = store.queue_len(queue("c"));
    // Nothing more is appended: the sync comes by itself.
    until(&store, "the sync", |_| {
        let after = open_with(&disk.power_cut(1), options()).0;
        after.queue_len(queue("c")) == owed
    });
}

#[test]
fn what_is_too_large_for_a_segment_has_one_of_its_own() {
    let disk = FaultDisk::default();
    let (store, _) = open(&disk);
    start(&store, "c");
    let large = vec![b'l'; 100_000];
    for number in 1..=3 {
        publish(&store, number, &large, &["c"]).unwrap();
        wait_for(&store, publish(&store, number + 10, b"small", &["c"]).unwrap().0);
    }
    let (after, report) = open(&disk.power_cut(1));
    assert!(!report.has_losses() && report.bytes_cut == 0, "{report:?}");
    assert_eq!(numbers(&after, "c"), [1, 11, 2, 12, 3, 13]);
}

/// A reader that is told of a debt before the writer has taken it must not find its queue empty: nobody tells it again.
#[test]
fn what_was_appended_a_moment_ago_is_read() {
    let disk = FaultDisk::default();
    let (store, _) = open(&disk);
    start(&store, "c");
    let mut reader = store.reader(queue("c"));
    for number in 1..=300 {
        let (_, positions) = publish(&store, number, &PAYLOAD, &["c"]).unwrap();
        let after = Position(positions[0].0 - 1);
        let found: Vec<_> =
            reader.read(after, 10, 1 << 20).unwrap().iter().map(|debt| debt.position).collect();
        assert_eq!(found, positions);
    }
}
