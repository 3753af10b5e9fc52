//! Every kind of damage: the store starts, puts the file aside, counts, says what was lost, and keeps the rest.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail where it stands")]

mod common;

use common::{fill, names, open, publish, queue, read, start};
use store::{DurableStore, FaultDisk, OpenError, Record, Store, StoreIdentity};

const PAYLOAD: [u8; 200] = [b'p'; 200];

/// A store with a session that is owed messages, killed: the disk as it is then, and the numbers of the messages. It is the
/// same each time: upkeep has ended what each commit gave it to do before the next one comes.
fn killed(messages: u64) -> (FaultDisk, Vec<u64>) {
    let disk = FaultDisk::default();
    let (store, _) = open(&disk);
    common::wait_for(&store, start(&store, "c"));
    let (mut checkpoints, mut covered) = (0, 0);
    for number in 1..=messages {
        // One commit each.
        let (token, _) = publish(&store, number, &PAYLOAD, &["c"]).unwrap();
        common::wait_for(&store, token);
        let written = store.counters().log_bytes;
        if written - covered >= common::options().checkpoint_bytes {
            (checkpoints, covered) = (checkpoints + 1, written);
        }
        common::until(&store, "an end of upkeep", |store| {
            store.counters().checkpoints == checkpoints
                && names(&disk, ".state").len() as u64 == checkpoints.min(2)
                && names(&disk, ".dir").len() + 1 == names(&disk, ".log").len()
        });
    }
    (disk.power_cut(0), (1..=messages).collect())
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
    let count = |kind: &str| files.iter().filter(|name| name.ends_with(kind)).count();
    assert_eq!((count(".log"), count(".state"), count(".dir")), (4, 1, 2), "{files:?}");
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
    assert_eq!(states.len(), 2, "{states:?}");
    let newest = &states[1];
    disk.flip_bit(newest, 100 * 8);
    let (store, report) = open(&disk);
    assert_eq!(report.quarantined, [format!("{newest}.bad")]);
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
        assert!(matches!(refused, OpenError::Newer { version: 9, supported: 3, .. }));
        assert_eq!(
            refused.to_string(),
            format!("{name} has format version 9, and this program reads up to 3: use the newer program")
        );
        assert!(names(&disk, ".bad").is_empty());
        assert_eq!(disk.content(&name).unwrap(), bytes);
    }
}

/// A running store with a session that is owed messages in several segments.
fn running(messages: u64) -> (FaultDisk, DurableStore) {
    let disk = FaultDisk::default();
    let (store, _) = open(&disk);
    start(&store, "c");
    for number in 1..=messages {
        common::wait_for(&store, publish(&store, number, &PAYLOAD, &["c"]).unwrap().0);
    }
    common::until(&store, "directories", |_| names(&disk, ".dir").len() as u64 >= messages / 40);
    (disk, store)
}

/// Waits until a damaged segment is put aside, and looks whether a restart is none the wiser.
fn is_put_aside(disk: &FaultDisk, store: &DurableStore, name: &str, expected: &[u64]) {
    let mut number = 10_000;
    common::until(store, "put aside", |store| {
        // Upkeep follows the log.
        number += 1;
        let (token, positions) = publish(store, number, &PAYLOAD, &["c"]).unwrap();
        common::wait_for(store, token);
        store.append(&[Record::Settled { queue: queue("c"), position: positions[0] }]).unwrap();
        names(disk, ".bad") == [format!("{name}.bad")]
    });
    assert_eq!(numbers(store), expected);
    assert_eq!(store.counters().segments_damaged, 1);
    let lost = store.counters().debts_lost;
    let (after, report) = open(&disk.power_cut(0));
    // The new name may not be on the disk.
    assert!(report.quarantined.iter().all(|file| *file == format!("{name}.bad")), "{report:?}");
    let mut found = numbers(&after);
    // The last one may not be settled on the disk.
    found.retain(|number| *number < 10_000);
    assert_eq!(found, expected, "{lost} lost {report:?}");
}

#[test]
fn a_bit_that_flips_while_the_store_runs_costs_one_debt_and_the_rest_is_moved() {
    let (disk, store) = running(200);
    let name = names(&disk, ".log").remove(1);
    let mut expected = numbers(&store);
    let before = store.queue_len(queue("c"));
    disk.flip_bit(&name, (offset_of(&disk, &name, 3) as u64 + 80) * 8);
    let found = numbers(&store);
    let lost: Vec<_> = expected.iter().filter(|number| !found.contains(number)).copied().collect();
    assert_eq!(lost.len(), 1, "{lost:?}");
    expected.retain(|number| *number != lost[0]);
    assert_eq!(found, expected, "in their order");
    assert_eq!(store.counters().debts_lost, 1);
    assert_eq!(store.queue_len(queue("c")), before - 1);
    is_put_aside(&disk, &store, &name, &expected);
    assert_eq!(store.counters().debts_lost, 1, "counted once");
}

#[test]
fn a_bad_sector_costs_what_is_in_it() {
    let (disk, store) = running(200);
    let name = names(&disk, ".log").remove(1);
    let mut expected = numbers(&store);
    disk.make_unreadable(&name, 4096..8192);
    let found = numbers(&store);
    let lost = expected.len() - found.len();
    assert!((1..=4096 / 280 + 2).contains(&lost), "{lost}");
    expected.retain(|number| found.contains(number));
    assert_eq!(found, expected, "in their order");
    assert_eq!(store.counters().debts_lost, lost as u64);
    is_put_aside(&disk, &store, &name, &expected);
}

#[test]
fn a_segment_whose_head_is_damaged_or_that_is_gone_is_given_up_whole() {
    for is_gone in [false, true] {
        let (disk, store) = running(200);
        let name = names(&disk, ".log").remove(1);
        let expected = numbers(&store);
        if is_gone {
            use store::Disk as _;
            disk.remove(&name).unwrap();
        } else {
            disk.flip_bit(&name, 40 * 8);
        }
        let found = numbers(&store);
        let lost = expected.len() - found.len();
        assert!((20..40).contains(&lost), "{lost}");
        assert!(found.is_sorted());
        assert_eq!(store.counters().debts_lost, lost as u64);
        assert_eq!(store.queue_len(queue("c")), found.len() as u64, "nothing is tried again");
        assert_eq!(numbers(&store), found);
        if !is_gone {
            is_put_aside(&disk, &store, &name, &found);
        }
    }
}

#[test]
fn a_damaged_segment_that_is_still_written_to_takes_no_more() {
    let disk = FaultDisk::default();
    let (store, _) = open(&disk);
    start(&store, "c");
    common::wait_for(&store, publish(&store, 1, &PAYLOAD, &["c"]).unwrap().0);
    let name = names(&disk, ".log").remove(0);
    disk.flip_bit(&name, 40 * 8);
    assert!(numbers(&store).is_empty());
    common::wait_for(&store, publish(&store, 2, &PAYLOAD, &["c"]).unwrap().0);
    assert_eq!(numbers(&store), [2]);
    assert_eq!(store.counters().debts_lost, 1);
    let (after, report) = open(&disk.power_cut(0));
    assert_eq!(report.quarantined, [format!("{name}.bad")]);
    assert!(report.has_losses(), "{report:?}");
    assert_eq!(after.counters().debts_lost, 0);
}

#[test]
fn a_damaged_retained_message_is_passed_over_cleared_and_counted_once() {
    let disk = FaultDisk::default();
    let (store, _) = open(&disk);
    let keep = |number: u64, topic: &'static str| {
        let message = store::MessageRecord { topic, ..common::message(number, &PAYLOAD) };
        let token = store.append(&[Record::Message(message), Record::Retained { id: message.id }]).unwrap();
        common::wait_for(&store, token);
    };
    let kept = |store: &DurableStore| {
        let mut kept = Vec::new();
        store.for_each_retained(|message| kept.push(message.topic)).unwrap();
        kept.sort_unstable();
        kept
    };
    for (number, topic) in [(1, "a"), (2, "b"), (3, "c")] {
        keep(number, topic);
    }
    assert_eq!(kept(&store), ["a", "b", "c"]);
    let name = names(&disk, ".log").remove(0);
    // The stamp comes first, then "a".
    disk.flip_bit(&name, (offset_of(&disk, &name, 2) as u64 + 80) * 8);
    assert_eq!(kept(&store), ["a", "c"]);
    assert_eq!(kept(&store), ["a", "c"]);
    assert_eq!(store.counters().retained_lost, 1);
    keep(4, "b");
    assert_eq!(kept(&store), ["a", "b", "c"]);
}

#[test]
fn a_disk_that_reads_nothing_is_an_error_and_costs_nothing() {
    let (disk, store) = running(100);
    let expected = store.queue_len(queue("c"));
    for name in names(&disk, ".log") {
        disk.make_unreadable(&name, 0..usize::MAX);
    }
    let refused = store.reader(queue("c")).read(store::Position(0), 10, 1000).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(5), "{refused}");
    assert_eq!(store.queue_len(queue("c")), expected);
    assert_eq!(store.counters().debts_lost, 0);
}

#[test]
fn a_store_on_a_full_disk_opens_reads_and_recovers_when_there_is_room() {
    let (disk, expected) = killed(200);
    let first = open(&disk.power_cut(0)).0.identity();
    // What was reserved for the end of the log is gone too: a start cuts it off.
    let disk = disk.power_cut(0);
    fill(&disk);
    let reserve = store::StoreOptions { reserve_bytes: 20_000, ..common::options() };
    let (store, report) = common::open_with(&disk, reserve);
    assert!(!report.has_losses() && report.quarantined.is_empty(), "{report:?}");
    assert_eq!(store.identity(), first, "the epoch is raised");
    assert!(matches!(store.health(), store::Health::Full { .. }), "{:?}", store.health());
    assert_eq!(numbers(&store), expected);
    let refused = publish(&store, 201, &PAYLOAD, &["c"]).unwrap_err();
    assert!(matches!(refused, store::StoreError::Full { .. }), "{refused}");
    // What ends debts is accepted, and safe as soon as there is room.
    let ended = Record::Settled { queue: queue("c"), position: store::Position(1) };
    let token = store.append(&[ended]).unwrap();
    disk.set_capacity(u64::MAX);
    common::wait_for(&store, token);
    common::until(&store, "room", common::is_sound);
    common::wait_for(&store, publish(&store, 201, &PAYLOAD, &["c"]).unwrap().0);
    let expected: Vec<_> = (2..=201).collect();
    assert_eq!(numbers(&store), expected);
    common::until(&store, "directories", |store| {
        let directories = names(&disk, ".dir").len();
        directories + 1 >= names(&disk, ".log").len() || store.counters().commits == 0
    });
    assert_eq!(numbers(&open(&disk.power_cut(0)).0), expected);
}

#[test]
fn damage_on_a_full_disk_is_reported_at_every_start_until_there_is_room() {
    let (mut disk, mut expected) = killed(200);
    // In the last segment, which is read in any case: a start begins one, and these are all that is in it.
    let (store, _) = open(&disk);
    for number in 201..=205 {
        common::wait_for(&store, publish(&store, number, &PAYLOAD, &["c"]).unwrap().0);
        expected.push(number);
    }
    assert_eq!(store.counters().checkpoints, 0, "none covers them");
    disk = disk.power_cut(0);
    drop(store);
    let name = names(&disk, ".log").pop().unwrap();
    disk.flip_bit(&name, (offset_of(&disk, &name, 1) as u64 + 60) * 8);
    for is_full in [true, true, false] {
        if is_full {
            fill(&disk);
        } else {
            disk.set_capacity(u64::MAX);
        }
        let (store, report) = open(&disk);
        assert_eq!(report.frames_lost, 1, "{report:?}");
        assert_eq!(report.quarantined.is_empty(), is_full, "{report:?}");
        let found = numbers(&store);
        assert_eq!(expected.len() - found.len(), 1);
        assert!(found.iter().all(|number| expected.contains(number)));
        if !is_full {
            expected = found;
        }
        // Before the store has left a last checkpoint.
        disk = disk.power_cut(0);
    }
    let (store, report) = open(&disk);
    assert!(!report.has_losses(), "{report:?}");
    assert_eq!(numbers(&store), expected);
}

#[test]
fn a_new_store_on_a_full_disk_is_refused_in_words() {
    let disk = FaultDisk::default();
    disk.set_capacity(10);
    let refused = DurableStore::open_on(std::sync::Arc::new(disk), common::options()).unwrap_err();
    assert!(matches!(&refused, OpenError::Io(error) if error.kind() == std::io::ErrorKind::StorageFull));
}
