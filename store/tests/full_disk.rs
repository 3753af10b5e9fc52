//! A disk without room: what is owed is neither lost nor passed over, whatever was on its way when the room ran out.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail where it stands")]

mod common;

use common::{
    fill, is_full, is_sound, names, open, open_with, options, owed, publish, queue, read, start, until,
    wait_for,
};
use store::{Durability, DurableStore, FaultDisk, MessageRecord, Position, Record, Store, StoreOptions};

const PAYLOAD: [u8; 300] = [b'p'; 300];

/// More than a segment has: it gets one of its own, and where there is no room it waits.
const LONG: [u8; 9000] = [b'l'; 9000];

/// No checkpoint comes by itself.
fn without_checkpoints() -> StoreOptions {
    StoreOptions { checkpoint_bytes: u64::MAX / 8, ..options() }
}

fn numbers(store: &DurableStore) -> Vec<u64> {
    read(store, queue("c")).into_iter().map(|(number, _)| number).collect()
}

/// Numbers of the Retained Messages, by topic.
fn retained(store: &DurableStore) -> Vec<(String, u64)> {
    let mut found = Vec::new();
    store.for_each_retained(|message| found.push((message.topic, message.id.sequence))).unwrap();
    found.sort_unstable();
    found
}

fn retain<'a>(number: u64, topic: &'a str, payload: &'a [u8]) -> [Record<'a>; 2] {
    let message = MessageRecord { topic, ..common::message(number, payload) };
    [Record::Message(message), Record::Retained { id: message.id }]
}

#[test]
fn what_is_moved_while_there_is_no_room_is_read_where_it_was() {
    let disk = FaultDisk::default();
    let (store, _) = open_with(&disk, without_checkpoints());
    start(&store, "c");
    // One frame, so that it is moved at once: three debts and a Retained Message.
    let mut frame = vec![];
    for number in 1..=3 {
        frame.extend([Record::Message(common::message(number, &PAYLOAD)), owed(number, "c")]);
    }
    frame.extend(retain(4, "kept", &PAYLOAD));
    wait_for(&store, store.append(&frame).unwrap());
    let mut beside = Vec::new();
    while names(&disk, ".log").len() < 2 {
        let (token, places) = publish(&store, 10, &PAYLOAD, &["c"]).unwrap();
        wait_for(&store, token);
        beside.extend(places);
    }
    // The last one is in the second segment, and this leaves that one room for what ends the others and no more.
    beside.pop();
    wait_for(&store, publish(&store, 11, &[b'q'; 7500], &["c"]).unwrap().0);
    assert_eq!(names(&disk, ".log").len(), 2);
    until(&store, "a directory", |_| names(&disk, ".dir").len() == 1);
    fill(&disk);
    let ended: Vec<_> =
        beside.iter().map(|position| Record::Settled { queue: queue("c"), position: *position }).collect();
    wait_for(&store, store.append(&ended).unwrap());
    // Upkeep empties the first segment now, and nothing else is there to be written.
    until(&store, "a full disk", is_full);
    assert!(store.counters().moved_bytes > 0, "{:?}", store.counters());
    let kept = [("kept".to_owned(), 4)];
    for _ in 0..2 {
        assert_eq!(numbers(&store), [1, 2, 3, 10, 11]);
        assert_eq!(retained(&store), kept);
    }
    assert_eq!((store.counters().debts_lost, store.counters().retained_lost), (0, 0));
    let (after, report) = open(&disk.power_cut(7));
    assert!(!report.has_losses(), "{report:?}");
    assert_eq!(numbers(&after), [1, 2, 3, 10, 11]);
    assert_eq!(retained(&after), kept);
    disk.set_capacity(u64::MAX);
    until(&store, "room", is_sound);
    assert_eq!(numbers(&store), [1, 2, 3, 10, 11]);
    assert_eq!(retained(&store), kept);
    assert_eq!(store.counters().segments_damaged, 0);
}

#[test]
fn a_debt_that_waits_for_room_is_an_error_to_who_reads_it_and_comes_when_there_is_some() {
    let disk = FaultDisk::default();
    let (store, _) = open_with(&disk, without_checkpoints());
    start(&store, "c");
    wait_for(&store, publish(&store, 1, &PAYLOAD, &["c"]).unwrap().0);
    fill(&disk);
    let (token, _) = publish(&store, 2, &LONG, &["c"]).unwrap();
    until(&store, "a full disk", is_full);
    let mut reader = store.reader(queue("c"));
    let first = reader.read(Position(0), 10, usize::MAX).unwrap();
    assert_eq!(first.len(), 1, "what is safe is read");
    let refused = reader.read(first[0].position, 10, usize::MAX).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::StorageFull, "{refused}");
    disk.set_capacity(u64::MAX);
    wait_for(&store, token);
    assert_eq!(reader.read(first[0].position, 10, usize::MAX).unwrap().len(), 1);
    assert_eq!(store.counters().debts_lost, 0);
}

#[test]
fn a_retained_message_that_waits_for_room_takes_nothing_away() {
    let disk = FaultDisk::default();
    let (store, _) = open_with(&disk, without_checkpoints());
    wait_for(&store, store.append(&retain(1, "a", &PAYLOAD)).unwrap());
    wait_for(&store, store.append(&retain(2, "b", &PAYLOAD)).unwrap());
    fill(&disk);
    // In one batch: the one of "a" is changed twice, there is one of "c" for the first time.
    let frame = [retain(3, "a", &LONG), retain(4, "a", &LONG), retain(5, "c", &PAYLOAD)].concat();
    let token = store.append(&frame).unwrap();
    until(&store, "a full disk", is_full);
    for _ in 0..2 {
        assert_eq!(retained(&store), [("a".to_owned(), 1), ("b".to_owned(), 2)]);
    }
    disk.set_capacity(u64::MAX);
    wait_for(&store, token);
    assert_eq!(retained(&store), [("a".to_owned(), 4), ("b".to_owned(), 2), ("c".to_owned(), 5)]);
    assert_eq!(store.counters().retained_lost, 0);
}

#[test]
fn what_a_killed_process_left_unsynced_is_safe_once_it_was_read() {
    let interval = Durability::Interval(std::time::Duration::from_secs(3600));
    let disk = FaultDisk::default();
    let (store, _) = open_with(&disk, StoreOptions { durability: interval, ..without_checkpoints() });
    wait_for(&store, start(&store, "c"));
    let write = |number, length| {
        let before = store.log_bytes().0;
        wait_for(&store, publish(&store, number, &LONG[..length], &["c"]).unwrap().0);
        usize::try_from(store.log_bytes().0 - before).unwrap()
    };
    let around = write(1, 1000) - 1000;
    // To the last byte of the segment: nothing is left to be cut off.
    let rest = 8192 - usize::try_from(store.log_bytes().0).unwrap();
    write(2, rest - around);
    assert_eq!(store.log_bytes().0, 8192);
    let unsynced = |seed| numbers(&open(&disk.power_cut(seed)).0).len() < 2;
    assert!((0..20).any(unsynced), "nothing has been synced");
    // The process is gone, the system isn't.
    std::mem::forget(store);
    let (store, _) = open_with(&disk, without_checkpoints());
    assert_eq!(numbers(&store), [1, 2]);
    for seed in 0..20 {
        let (after, report) = open(&disk.power_cut(seed));
        assert!(!report.has_losses() && report.bytes_cut == 0, "{report:?}");
        assert_eq!(numbers(&after), [1, 2]);
    }
}
