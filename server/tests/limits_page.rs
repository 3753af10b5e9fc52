//! docs/limits.md against the program: every limit is there with its real default, a counter that exists and tests that exist.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that can't go on fails, in its helpers too"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tidegate::config::Config;

/// What is no limit by itself: it says what happens at one.
const POLICIES: [&str; 1] = ["max_queued_policy"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Rows of the table by key: default, counter and tests.
fn rows() -> BTreeMap<String, (String, String, Vec<String>)> {
    let text = std::fs::read_to_string(root().join("docs/limits.md")).unwrap();
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    rows.map(|line| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [key, default, _, counter, tests] = cells[..] else { panic!("five cells in {line}") };
        let tests = tests.split('`').filter(|name| name.contains("::")).map(str::to_owned).collect();
        let plain = |cell: &str| cell.trim_matches('`').to_owned();
        (plain(key), (plain(default), plain(counter), tests))
    })
    .collect()
}

/// Every key of `[limits]` with its default, as it is written in a file.
fn defaults() -> BTreeMap<String, String> {
    let limits = toml::Value::try_from(Config::default().limits).unwrap();
    let table = limits.as_table().unwrap().iter();
    table
        .filter(|(key, value)| !value.is_table() && !POLICIES.contains(&key.as_str()))
        .map(|(key, value)| (key.clone(), value.as_str().map_or_else(|| value.to_string(), str::to_owned)))
        .collect()
}

#[test]
fn every_limit_is_described_with_its_default() {
    let described: BTreeMap<_, _> = rows().into_iter().map(|(key, (default, ..))| (key, default)).collect();
    assert_eq!(described, defaults());
}

#[test]
fn every_counter_exists() {
    let stats = format!("{:?}", broker::Stats::default());
    for (key, (_, counter, _)) in rows() {
        assert!(
            counter.starts_with("none: ") || stats.contains(&format!(" {counter}: 0")),
            "{key}: {counter} is no counter of {stats}"
        );
    }
}

#[test]
fn every_limit_has_tests_that_exist() {
    let folders = ["broker/tests", "broker/src/subscriptions", "integration-tests/tests"];
    for (key, (_, _, tests)) in rows() {
        assert!(!tests.is_empty(), "{key} has no test");
        for test in tests {
            let (file, name) = test.split_once("::").unwrap();
            let is_there = folders.iter().any(|folder| {
                let path = root().join(folder).join(format!("{file}.rs"));
                std::fs::read_to_string(path).is_ok_and(|text| text.contains(&format!("fn {name}()")))
            });
            assert!(is_there, "{key}: there is no test {test}");
        }
    }
}
