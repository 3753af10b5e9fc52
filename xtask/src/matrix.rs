//! `cargo xtask matrix`: every sink through every fault, as a table.
//!
//! The tests `sink_*` of `integration-tests` do the work and leave a file per sink; here they are run and their files are
//! put side by side. A cell that nobody filled is a failure as much as one that failed; one that can't exist is filled with the
//! reason, which stands below the table.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Context, Result, bail};

use crate::clients::{self, Consent};
use crate::process;
use crate::test::POWER_CUT;

/// The columns that must be there: kinds of actions, two of them twice: one is used in two ways, one has a second far side.
const KINDS: &[&str] = &["amqp", "http", "kafka", "librdkafka", "nats", "nats_core", "redis"];

/// Stands for a fault that a sink can't have.
const NOT_APPLICABLE: &str = "n/a";

/// Runs the tests and prints the table.
///
/// # Errors
/// When something can't be built, a test fails, or a cell is empty.
pub(crate) fn run(consent: Consent) -> Result<()> {
    clients::ensure(consent)?;
    process::cargo().args(["build", "--package", "tidegate", "--features", POWER_CUT]).run()?;
    let folder = process::root().join("target/tmp/matrix");
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("cannot clear {}", folder.display()))?;
    }
    // One after the other: a percentile beside another test's load says little.
    let tests = process::cargo()
        .args(["test", "--package", "integration-tests", "--no-fail-fast"])
        .args(KINDS.iter().flat_map(|kind| ["--test".to_owned(), format!("sink_{kind}")]))
        .run();
    let mut results = BTreeMap::new();
    for kind in KINDS {
        let text = fs::read_to_string(folder.join(format!("{kind}.tsv"))).unwrap_or_default();
        results.insert(*kind, parse(&text));
    }
    println!("{}", table(&results));
    tests?;
    let empty = empty_cells(&results);
    if !empty.is_empty() {
        bail!("empty cells: {}", empty.join(", "));
    }
    Ok(())
}

/// What one sink's file says: of each fault, whether it was passed and the figures.
type Column = BTreeMap<String, (String, String)>;

fn parse(text: &str) -> Column {
    let lines = text.lines().filter_map(|line| {
        let mut parts = line.split('\t');
        let (fault, outcome) = (parts.next()?, parts.next()?);
        Some((fault.to_owned(), (outcome.to_owned(), parts.next().unwrap_or_default().to_owned())))
    });
    lines.collect()
}

fn faults<'r>(results: &'r BTreeMap<&str, Column>) -> BTreeSet<&'r str> {
    results.values().flat_map(|column| column.keys().map(String::as_str)).collect()
}

fn empty_cells(results: &BTreeMap<&str, Column>) -> Vec<String> {
    let faults = faults(results);
    let mut empty = Vec::new();
    for (kind, column) in results {
        if column.is_empty() {
            empty.push(format!("{kind} (all)"));
            continue;
        }
        empty.extend(
            faults
                .iter()
                .filter(|fault| column.get(**fault).is_none_or(lacks_a_reason))
                .map(|fault| format!("{kind}/{fault}")),
        );
    }
    empty
}

/// Whether somebody says that a cell can't exist, and not why.
fn lacks_a_reason((outcome, why): &(String, String)) -> bool {
    outcome == NOT_APPLICABLE && why.trim().is_empty()
}

fn table(results: &BTreeMap<&str, Column>) -> String {
    let kinds: Vec<&str> = results.keys().copied().collect();
    let mut text = format!("| fault | {} |\n|---|{}\n", kinds.join(" | "), "---|".repeat(kinds.len()));
    for fault in faults(results) {
        let cells: Vec<String> = kinds
            .iter()
            .map(|kind| match results.get(kind).and_then(|column| column.get(fault)) {
                None => "EMPTY".to_owned(),
                Some((outcome, _)) if outcome == NOT_APPLICABLE => NOT_APPLICABLE.to_owned(),
                Some((outcome, _)) if outcome != "passed" => outcome.to_uppercase(),
                Some((_, figures)) => figures.clone(),
            })
            .collect();
        text.push_str(&format!("| {fault} | {} |\n", cells.join(" | ")));
    }
    for (kind, column) in results {
        for (fault, (_, why)) in column.iter().filter(|(_, (outcome, _))| outcome == NOT_APPLICABLE) {
            text.push_str(&format!("\n{kind}, {fault}: {NOT_APPLICABLE}, {why}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_that_nobody_filled_is_found() {
        let http = parse("normal\tpassed\tdelivered=1\nslow\tfailed\n");
        let redis = parse("normal\tpassed\tdelivered=2\n");
        let results = BTreeMap::from([("http", http), ("redis", redis), ("nats", Column::new())]);
        assert_eq!(empty_cells(&results), ["nats (all)", "redis/slow"]);
        let table = table(&results);
        assert!(table.contains("| normal | delivered=1 | EMPTY | delivered=2 |"), "{table}");
        assert!(table.contains("| slow | FAILED | EMPTY | EMPTY |"), "{table}");
    }

    #[test]
    fn a_cell_that_cannot_be_says_why() {
        let http = parse("killed\tn/a\tit keeps nothing\n");
        let redis = parse("killed\tpassed\tdelivered=2\n");
        let results = BTreeMap::from([("http", http), ("redis", redis)]);
        assert!(empty_cells(&results).is_empty());
        let table = table(&results);
        assert!(table.contains("| killed | n/a | delivered=2 |"), "{table}");
        assert!(table.ends_with("http, killed: n/a, it keeps nothing"), "{table}");
    }

    #[test]
    fn a_cell_that_cannot_be_needs_a_reason() {
        let results = BTreeMap::from([("http", parse("killed\tn/a\t\n"))]);
        assert_eq!(empty_cells(&results), ["http/killed"]);
    }
}
