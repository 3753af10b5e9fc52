//! Long runs of the crash tests: `cargo xtask chaos --kills 1000 --seed 7`.
//!
//! `--queue 10000000` instead queues so many messages for a session that is away, and drains them; with `--sink true` for an HTTP
//! action whose far side is away.
//!
//! A run has at most [`KILLS_PER_RUN`] kills and a folder of its own; the next one has the next seed. The first run that
//! breaks a promise ends it.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it is read on a terminal")]

use std::process::ExitCode;

use integration_tests::chaos::{Options, run, run_queue, run_sink_queue};

/// Kills in one run: what a run has to be looked at as a whole.
const KILLS_PER_RUN: u32 = 50;

const USAGE: &str = "\
usage: chaos [--kills N] [--seed N] [--durability commit|interval|memory] [--sink true|false]
       chaos --queue N [--payload BYTES] [--sink true|false]";

fn main() -> ExitCode {
    let (mut kills, mut seed, mut durability) = (1000, 1, "commit".to_owned());
    let (mut queue, mut payload) = (None, 100);
    let mut with_sink = false;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let value = arguments.next().unwrap_or_default();
        let is_known = match argument.as_str() {
            "--kills" => value.parse().map(|value| kills = value).is_ok(),
            "--seed" => value.parse().map(|value| seed = value).is_ok(),
            "--sink" => value.parse().map(|value| with_sink = value).is_ok(),
            "--queue" => value.parse().map(|value| queue = Some(value)).is_ok(),
            "--payload" => value.parse().map(|value| payload = value).is_ok(),
            "--durability" => {
                durability = value;
                true
            }
            _ => false,
        };
        if !is_known {
            eprintln!("{USAGE}");
            return ExitCode::FAILURE;
        }
    }
    if let Some(messages) = queue {
        let outcome =
            if with_sink { run_sink_queue(messages, payload) } else { run_queue(messages, payload) };
        return match outcome {
            Ok(summary) => {
                println!("{summary}");
                ExitCode::SUCCESS
            }
            Err(what) => {
                eprintln!("{what}");
                ExitCode::FAILURE
            }
        };
    }
    let mut done = 0;
    while done < kills {
        let rounds = KILLS_PER_RUN.min(kills - done);
        let options = Options { seed, rounds, with_kills: true, durability: durability.clone(), with_sink };
        match run(&options) {
            Ok(summary) => println!("seed {seed}: {summary}"),
            Err(failure) => {
                eprintln!("{failure}");
                return ExitCode::FAILURE;
            }
        }
        done += rounds;
        seed += 1;
    }
    ExitCode::SUCCESS
}
