//! Whether a store is of use is told by what it has done, and told in time: a disk that hangs is not waited for.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail where it stands")]

mod common;

use std::time::Duration;

use common::{fill, is_full, open, publish, start, until, wait_for};
use store::FaultDisk;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);
/// For what must not come: a miss would be seen as an answer, however short it is.
const MOMENT: Duration = Duration::from_millis(50);

#[test]
fn it_answers_when_what_was_appended_is_safe() {
    let disk = FaultDisk::default();
    let (store, _) = open(&disk);
    assert!(store.answers_within(Duration::ZERO), "nothing was appended");
    start(&store, "c");
    assert!(store.answers_within(PATIENCE));
}

#[test]
fn it_does_not_answer_while_the_disk_hangs_and_answers_again_after() {
    let disk = FaultDisk::default();
    let (store, _) = open(&disk);
    wait_for(&store, start(&store, "c"));
    let held = disk.hold_syncs();
    publish(&store, 1, b"p", &["c"]).unwrap();
    assert!(!store.answers_within(MOMENT));
    drop(held);
    assert!(store.answers_within(PATIENCE));
}

#[test]
fn it_does_not_answer_once_it_has_failed() {
    let disk = FaultDisk::default();
    let (store, _) = open(&disk);
    wait_for(&store, start(&store, "c"));
    disk.fail_sync_after(0);
    publish(&store, 1, b"p", &["c"]).unwrap();
    assert!(!store.answers_within(PATIENCE));
    assert!(!store.answers_within(PATIENCE), "it has failed for good");
}

#[test]
fn a_full_disk_is_an_answer() {
    let disk = FaultDisk::default();
    let (store, _) = open(&disk);
    wait_for(&store, start(&store, "c"));
    fill(&disk);
    // More than a segment has, so it waits for room.
    publish(&store, 1, &[b'l'; 9000], &["c"]).unwrap();
    until(&store, "a full disk", is_full);
    assert!(store.answers_within(PATIENCE));
    disk.set_capacity(u64::MAX);
}
