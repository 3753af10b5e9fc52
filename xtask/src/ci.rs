//! `cargo xtask ci`: what has to hold for every change, cheapest first.

use std::time::Instant;

use anyhow::{Context, Result};

use crate::clients::Consent;
use crate::fuzz;
use crate::process::{self, Program};
use crate::{test, tools};

/// How long each fuzz target runs here; `cargo xtask fuzz` gives them longer.
const FUZZ_SECONDS: u32 = 15;

/// What random cases are drawn from, of property tests and fuzz targets. The same each time, so that a change is blamed for what
/// it did; new ones are for `cargo xtask test` and `cargo xtask fuzz`.
const SEED: u32 = 1;

type Step = fn() -> Result<()>;

/// Runs all steps, stops at the first that fails.
pub(crate) fn run() -> Result<()> {
    let steps: [(&str, Step); 6] = [
        ("format", format),
        ("clippy", clippy),
        ("documentation", documentation),
        ("dependencies", dependencies),
        ("tests", || test::run(Consent::Given, Some(SEED.into()))),
        ("fuzz targets", fuzz_shortly),
    ];
    let mut times = Vec::new();
    for (name, step) in steps {
        println!("\n== {name}");
        let start = Instant::now();
        step().with_context(|| format!("step \"{name}\""))?;
        times.push((name, start.elapsed()));
    }
    println!("\nAll steps passed:");
    for (name, time) in times {
        println!("  {:>5} s  {name}", time.as_secs());
    }
    Ok(())
}

fn format() -> Result<()> {
    process::cargo().args(["fmt", "--all", "--check"]).run()
}

fn clippy() -> Result<()> {
    process::cargo()
        .args(["clippy", "--workspace", "--features", test::POWER_CUT])
        .args(["--all-targets", "--locked", "--", "--deny", "warnings"])
        .run()?;
    // A feature that is on by default hides what doesn't build without it.
    process::cargo()
        .args(["clippy", "--package", "rules-sql", "--no-default-features"])
        .args(["--all-targets", "--locked", "--", "--deny", "warnings"])
        .run()
}

fn documentation() -> Result<()> {
    process::cargo()
        .args(["doc", "--workspace", "--no-deps", "--document-private-items", "--locked"])
        .env("RUSTDOCFLAGS", "--deny warnings")
        .run()
}

/// Licences, bans and sources are judged from what is here. Advisories need a database from outside.
fn dependencies() -> Result<()> {
    let deny = tools::CARGO_DENY.ensure()?;
    let deny = || Program::new(&deny);
    deny().args(["--workspace", "check", "bans", "licenses", "sources"]).run()?;
    if deny().args(["fetch", "db"]).succeeds() {
        deny().args(["--workspace", "check", "--disable-fetch", "advisories"]).run()
    } else {
        println!("advisories: skipped, the advisory database could not be fetched");
        Ok(())
    }
}

fn fuzz_shortly() -> Result<()> {
    // What "differential" finds may as well be another codec's fault, so here it must agree on what is known.
    let replayed = &["differential"];
    fuzz::run(&fuzz::Options { target: None, seconds: FUZZ_SECONDS, seed: Some(SEED), replayed })
}
