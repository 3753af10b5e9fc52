//! How much disk the log takes for what is alive in it. The bound is that of docs/durability.md.

#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

mod common;

use std::collections::VecDeque;

use common::{open, open_with, options, publish, queue, read, start, until, wait_for};
use store::{DurableStore, FaultDisk, Position, Record, Store, StoreOptions};

const PAYLOAD: [u8; 500] = [b'p'; 500];

const SEGMENT: u64 = 64 * 1024;

/// No checkpoint comes by itself: what makes room has to ask for them.
fn small_segments() -> StoreOptions {
    StoreOptions { segment_bytes: SEGMENT, checkpoint_bytes: u64::MAX / 8, ..options() }
}

fn settle(store: &DurableStore, position: Position) {
    store.append(&[Record::Settled { queue: queue("c"), position }]).unwrap();
}

fn comes_within_the_bound(store: &DurableStore) {
    assert!(store.wait_for_all());
    until(store, "within the bound", |store| {
        let (used, live) = store.log_bytes();
        used <= 2 * live + 2 * SEGMENT
    });
}

/// Appends messages and waits until they are safe, so that none is settled before it is written.
fn append(store: &DurableStore, numbers: std::ops::Range<u64>) -> Vec<(u64, Position)> {
    let mut last = None;
    let mut owed = Vec::new();
    for number in numbers {
        let (token, places) = publish(store, number, &PAYLOAD, &["c"]).unwrap();
        owed.extend(places.into_iter().map(|place| (number, place)));
        last = Some(token);
    }
    last.into_iter().for_each(|token| wait_for(store, token));
    owed
}

#[test]
fn a_long_churn_with_stragglers_stays_within_twice_what_is_alive_and_two_segments() {
    let disk = FaultDisk::default();
    let (store, _) = open_with(&disk, small_segments());
    start(&store, "c");
    let mut stragglers = VecDeque::new();
    for round in 0..30 {
        for (number, position) in append(&store, round * 1000..(round + 1) * 1000) {
            if number % 50 == 7 {
                stragglers.push_back((number, position));
            } else {
                settle(&store, position);
            }
        }
        // The oldest are taken at last.
        while stragglers.len() > 200 {
            let (_, position) = stragglers.pop_front().unwrap();
            settle(&store, position);
        }
        comes_within_the_bound(&store);
    }
    assert!(store.counters().segments_removed > 200, "{:?}", store.counters());
    let counters = store.counters();
    assert!(counters.moved_bytes * 4 < counters.log_bytes, "{counters:?}");
    assert!(stragglers.iter().eq(&read(&store, queue("c"))));
    drop(store);
    let (store, report) = open(&disk);
    assert!(!report.has_losses(), "{report:?}");
    assert!(stragglers.iter().eq(&read(&store, queue("c"))));
}

#[test]
fn segments_that_are_a_little_more_than_half_dead_make_room_too() {
    let (store, _) = open_with(&FaultDisk::default(), small_segments());
    start(&store, "c");
    let owed = append(&store, 0..5000);
    let (left, taken): (Vec<_>, Vec<_>) = owed.into_iter().partition(|(number, _)| number % 5 < 2);
    taken.iter().for_each(|(_, position)| settle(&store, *position));
    comes_within_the_bound(&store);
    assert_eq!(read(&store, queue("c")), left);
}

#[test]
fn a_queue_that_is_dropped_leaves_two_segments_without_anybody_appending() {
    let (store, _) = open_with(&FaultDisk::default(), small_segments());
    start(&store, "c");
    append(&store, 0..5000);
    let (full, _) = store.log_bytes();
    assert!(full > 40 * SEGMENT, "{full}");
    store.append(&[Record::QueueDropped { queue: queue("c") }]).unwrap();
    comes_within_the_bound(&store);
    assert_eq!(store.log_bytes().1, 0);
}

#[test]
fn a_checkpoint_that_fails_is_not_tried_again_and_again() {
    let disk = FaultDisk::default();
    let (store, _) = open_with(&disk, small_segments());
    start(&store, "c");
    append(&store, 0..2000);
    let full = std::time::Instant::now();
    // Exactly what is there: a checkpoint finds no room.
    disk.set_capacity(0);
    store.append(&[Record::QueueDropped { queue: queue("c") }]).unwrap();
    until(&store, "a failure", |store| store.counters().checkpoint_failures > 0);
    let counters = store.counters();
    // It is tried again after a second.
    assert!(counters.checkpoint_failures <= 2 + full.elapsed().as_secs(), "{counters:?}");
    assert!(counters.commits < 5000, "{counters:?}");
    disk.set_capacity(u64::MAX);
    comes_within_the_bound(&store);
}
