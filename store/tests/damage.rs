//! Every kind of damage: the store starts, puts the file aside, counts, says what was lost, and keeps the rest.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail where it stands")]

mod common;

use common::{open, publish, queue, read, start};
use store::{DurableStore, FaultDisk, OpenError, Record, Store, StoreIdentity};

const PAYLOAD: [u8; 200] = [b'p'; 200];

/// A store with a session that is owed messages, killed: the disk as it is then, and the numbers of the messages.
fn killed(messages: u64) -> (FaultDisk, Vec<u64>) {
    let disk = FaultDisk::default();
    let (store, _) = open(&disk);
    start(&store, "c");
    for number in 1..=messages {
        // One commit each.
        let (token, _) = publish(&store, number, &PAYLOAD, &["c"]).unwrap();
        common::wait_for(&store, token);
    }
    let checkpoints = (messages / 100).min(2);
    // One that comes while another is being written is put off until more is.
    common::until(&store, "checkpoints", |store| {
        let is_done = store.counters().checkpoints >= checkpoints;
        if !is_done {
            let topic = "x".repeat(1000);
            common::wait_for(store, store.append(&[Record::RetainedCleared { topic: &topic }]).unwrap());
        }
        is_done
    });
    (disk.power_cut(0), (1..=messages).collect())
}

fn names(disk: &FaultDisk, extension: &str) -> Vec<String> {
    use store::Disk as _;
    let mut names = disk.names().unwrap();
    names.retain(|name| name.ends_with(extension));
    names.sort_unstable();
    names
}

fn numbers(store: &DurableStore) -> Vec<u64> {
    read(store, queue("c")).into_iter().map(|(number, _)| number).collect()
}

/// Where the frame of a message begins, by its payload's number.
fn offset_of(disk: &FaultDisk, name: &str, nth: usize) -> usize {
    let bytes = disk.content(name).unwrap();
    bytes.windows(4).enumerate().filter(|(_, window)| window == b"tgF1").nth(nth).unwrap().0
}

#[test]
fn an_empty_folder_and_a_killed_store_open_without_loss() {
    let (disk, expected) = killed(10);
    let (store, report) = open(&disk);
    assert!(!report.has_losses() && report.quarantined.is_empty(), "{report:?}");
    assert_eq!(report.frames_replayed, 12, "a stamp, the session and ten messages");
    assert_eq!(numbers(&store), expected);
}

#[test]
fn every_start_raises_the_epoch_and_keeps_the_identity() {
    let (mut disk, _) = killed(1);
    let mut last: Option<StoreIdentity> = None;
    for _ in 0..3 {
        let identity = open(&disk).0.identity();
        if let Some(last) = last {
            assert_eq!(identity.id, last.id);
            assert!(identity.epoch > last.epoch);
        }
        last = Some(identity);
        disk = disk.power_cut(1);
    }
    // The file that says so is damaged: the segments say it too.
    disk.flip_bit("identity", 200);
    let (store, report) = open(&disk);
    assert_eq!(report.quarantined, ["identity.bad"]);
    assert_eq!(store.identity().id, last.unwrap().id);
    assert!(store.identity().epoch > last.unwrap().epoch);
}

#[test]
fn a_torn_end_is_cut_off_and_nothing_acknowledged_is_lost() {
    let (disk, _) = killed(10);
    let name = names(&disk, ".log").remove(0);
    let mut bytes = disk.content(&name).unwrap();
    let last = offset_of(&disk, &name, 11);
    // The last frame by half: for the store it is a write that was interrupted.
    bytes[last + 100..].fill(0);
    disk.put(&name, &bytes);
    let (store, report) = open(&disk);
    assert_eq!(numbers(&store), (1..=9).collect::<Vec<_>>());
    assert!(report.bytes_cut > 0 && report.frames_lost == 0 && report.quarantined.is_empty(), "{report:?}");
    // What comes after it is found again.
    let (token, _) = publish(&store, 77, &PAYLOAD, &["c"]).unwrap();
    common::wait_for(&store, token);
    let (store, report) = open(&disk.power_cut(3));
    assert!(!report.has_losses() && report.bytes_cut == 0, "{report:?}");
    assert_eq!(numbers(&store).last(), Some(&77));
    assert_eq!(numbers(&store).len(), 10);
}

#[test]
fn a_flipped_bit_in_the_middle_costs_one_frame_and_is_reported() {
    let (disk, _) = killed(10);
    let name = names(&disk, ".log").remove(0);
    let damaged = disk.content(&name).unwrap();
    disk.flip_bit(&name, (offset_of(&disk, &name, 5) as u64 + 60) * 8);
    let (store, report) = open(&disk);
    assert_eq!(report.frames_lost, 1);
    assert_eq!(report.quarantined, [format!("{name}.bad")]);
    assert!(report.has_losses());
    assert_eq!(numbers(&store), [1, 2, 3, 5, 6, 7, 8, 9, 10]);
    let aside = disk.content(&format!("{name}.bad")).unwrap();
    assert_eq!(aside.len(), damaged.len(), "the damaged file is kept");
    // The next start has nothing to complain of.
    let (store, report) = open(&disk.power_cut(3));
    assert!(!report.has_losses() && report.quarantined.is_empty(), "{report:?}");
    assert_eq!(numbers(&store), [1, 2, 3, 5, 6, 7, 8, 9, 10]);
}

#[test]
fn a_hole_of_zeros_in_the_middle_is_damage_too() {
    let (disk, _) = killed(10);
    let name = names(&disk, ".log").remove(0);
    let mut bytes = disk.content(&name).unwrap();
    let (from, to) = (offset_of(&disk, &name, 4), offset_of(&disk, &name, 7));
    bytes[from..to].fill(0);
    disk.put(&name, &bytes);
    let (store, report) = open(&disk);
    assert!(report.frames_lost > 0 && report.quarantined.len() == 1, "{report:?}");
    assert_eq!(numbers(&store), [1, 2, 6, 7, 8, 9, 10]);
}

#[test]
fn any_flipped_bit_anywhere_never_stops_a_start_or_makes_up_a_message() {
    let (disk, expected) = killed(120);
    let files: Vec<String> = ["log", "state", "dir"].iter().flat_map(|kind| names(&disk, kind)).collect();
    assert!(files.len() > 6, "{files:?}");
    for name in files.iter().chain([&"identity".to_owned()]) {
        // A directory may be empty: it isn't synced.
        let bits = (disk.content(name).unwrap().len() as u64 * 8).max(1);
        for choice in 0..12 {
            let disk = disk.power_cut(0);
            disk.flip_bit(name, bits * choice / 12 + 77 * choice % bits);
            let (store, report) = open(&disk);
            let found = numbers(&store);
            assert!(found.iter().all(|number| expected.contains(number)), "{name}: {found:?}");
            assert!(found.is_sorted(), "{name}: order");
            assert!(
                found.len() >= expected.len() - 40,
                "{name} {choice}: {} of {} {report:?} {:?}",
                found.len(),
                expected.len(),
                store.counters()
            );
            let is_told = report.has_losses() || report.bytes_cut > 0 || store.counters().debts_lost > 0;
            assert!(found.len() == expected.len() || is_told, "{name}: lost in silence {report:?}");
        }
    }
}

#[test]
fn a_missing_segment_is_reported_with_what_was_in_it() {
    let (disk, expected) = killed(200);
    let logs = names(&disk, ".log");
    use store::Disk as _;
    disk.remove(&logs[1]).unwrap();
    let (store, report) = open(&disk);
    assert_eq!(report.segments_missing, [2]);
    let found = numbers(&store);
    assert_eq!(report.debts_lost, (expected.len() - found.len()) as u64);
    assert!(report.debts_lost > 10);
    assert_eq!(store.queue_len(queue("c")), found.len() as u64);
    assert!(!open(&disk.power_cut(0)).1.has_losses(), "reported once");
}

#[test]
fn truncated_segments_lose_their_end_only() {
    let (disk, expected) = killed(200);
    let logs = names(&disk, ".log");
    let bytes = disk.content(&logs[1]).unwrap();
    disk.put(&logs[1], &bytes[..bytes.len() / 2]);
    let (store, _) = open(&disk);
    let found = numbers(&store);
    assert!(found.len() < expected.len() && found.len() > expected.len() - 30, "{}", found.len());
    assert_eq!(
        store.counters().debts_lost,
        (expected.len() - found.len()) as u64,
        "found on reading, counted"
    );
    assert_eq!(store.queue_len(queue("c")), found.len() as u64);
}

#[test]
fn foreign_and_duplicated_files_are_put_aside() {
    let (disk, expected) = killed(200);
    let (stranger, _) = killed(50);
    let logs = names(&disk, ".log");
    let epoch = logs[0].split('-').nth(1).unwrap();
    disk.put(&format!("000000000900-{epoch}"), &stranger.content(&names(&stranger, ".log")[0]).unwrap());
    disk.put(&format!("000000000901-{epoch}"), &disk.content(&logs[0]).unwrap());
    disk.put(&format!("000000000902-{epoch}"), &[0; 5000]);
    disk.put(&format!("000000000903-{epoch}"), b"#!/bin/sh\n");
    disk.put("readme.txt", b"not ours, and none of our business");
    let (store, report) = open(&disk);
    assert_eq!(report.quarantined.len(), 4, "{report:?}");
    assert_eq!(numbers(&store), expected);
    assert!(disk.content("readme.txt").is_some());
}

#[test]
fn a_broken_checkpoint_costs_time_and_nothing_else() {
    let (disk, expected) = killed(300);
    let states = names(&disk, ".state");
    assert_eq!(states.len(), 2);
    disk.flip_bit(&states[1], 100 * 8);
    let (store, report) = open(&disk);
    assert_eq!(report.quarantined, [format!("{}.bad", states[1])]);
    assert!(!report.has_losses(), "{report:?}");
    assert_eq!(numbers(&store), expected);
}

#[test]
fn without_any_checkpoint_the_log_is_read_from_its_beginning() {
    let (disk, expected) = killed(300);
    for name in names(&disk, ".state").iter().chain(&names(&disk, ".dir")) {
        disk.put(name, b"");
    }
    let (store, report) = open(&disk);
    assert_eq!(report.quarantined.len(), 2);
    assert!(!report.has_losses(), "nothing had been removed yet: {report:?}");
    assert_eq!(numbers(&store), expected);
}

#[test]
fn a_newer_format_is_refused_in_words_and_left_alone() {
    let (disk, _) = killed(200);
    for name in [names(&disk, ".log"), names(&disk, ".state"), vec!["identity".to_owned()]].concat() {
        let disk = disk.power_cut(0);
        let mut bytes = disk.content(&name).unwrap();
        bytes[8] = 9;
        let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..12]), &bytes[16..64]);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        disk.put(&name, &bytes);
        let refused =
            DurableStore::open_on(std::sync::Arc::new(disk.clone()), common::options()).unwrap_err();
        assert!(matches!(refused, OpenError::Newer { version: 9, supported: 1, .. }));
        assert_eq!(
            refused.to_string(),
            format!("{name} has format version 9, and this program reads up to 1: use the newer program")
        );
        assert!(names(&disk, ".bad").is_empty());
        assert_eq!(disk.content(&name).unwrap(), bytes);
    }
}
