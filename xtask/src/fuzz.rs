//! `cargo xtask fuzz`: builds the targets of the `fuzz` package and runs them from their corpora.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::process::{self, Program};

/// What to run, and for how long.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Options {
    /// None: every target.
    pub(crate) target: Option<String>,
    /// Seconds for each target.
    pub(crate) seconds: u32,
    /// What libFuzzer begins with; None: another each time.
    pub(crate) seed: Option<u32>,
    /// Targets that only get the inputs of their corpus, and look for no new ones.
    pub(crate) replayed: &'static [&'static str],
}

impl Options {
    pub(crate) fn from_arguments(arguments: &[String]) -> Result<Self> {
        let mut options = Self { target: None, seconds: 60, seed: None, replayed: &[] };
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            match argument.as_str() {
                "--seconds" => {
                    let value = rest.next().context("--seconds needs a number")?;
                    options.seconds = value
                        .parse()
                        .with_context(|| format!("--seconds takes a number, not \"{value}\""))?;
                }
                flag if flag.starts_with('-') => bail!("unexpected argument \"{flag}\" (known: --seconds N)"),
                target if options.target.is_none() => options.target = Some(target.to_owned()),
                other => bail!("unexpected argument \"{other}\": one target or all"),
            }
        }
        Ok(options)
    }
}

/// Builds all targets and runs those asked for, one after the other. What they find stays in `fuzz/artifacts`.
///
/// # Errors
/// When a target does not build, does not exist, or fails on an input.
pub(crate) fn run(options: &Options) -> Result<()> {
    let fuzz = process::root().join("fuzz");
    let known = targets(&fuzz)?;
    let chosen: Vec<&String> = match &options.target {
        None => known.iter().collect(),
        Some(name) => match known.iter().find(|target| *target == name) {
            Some(target) => vec![target],
            None => bail!("no fuzz target is called \"{name}\"; there are: {}", known.join(", ")),
        },
    };
    // From its own folder: its .cargo/config.toml holds the instrumentation.
    process::cargo()
        .args(["build", "--release", "--locked", "--target-dir", "target"])
        .current_dir(&fuzz)
        .without_env("RUSTFLAGS")
        .run()?;
    for target in chosen {
        let found = format!("target/work/{target}");
        for folder in [&found, "artifacts"] {
            let path = fuzz.join(folder);
            fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
        }
        let mut program = Program::new(fuzz.join("target").join(TRIPLE).join("release").join(target))
            .arg(if options.replayed.contains(&target.as_str()) {
                "-runs=0".to_owned()
            } else {
                format!("-max_total_time={}", options.seconds)
            })
            .args(["-max_len=4096", "-timeout=10", "-print_final_stats=1", "-verbosity=0"])
            .arg(format!("-artifact_prefix=artifacts/{target}-"))
            .arg(&found)
            .current_dir(&fuzz);
        if let Some(seed) = options.seed {
            program = program.arg(format!("-seed={seed}"));
        }
        let seeds = format!("corpus/{target}");
        if fuzz.join(&seeds).exists() {
            program = program.arg(&seeds);
        }
        let (lines, result) = program.run_and_keep(is_closing_line);
        result.with_context(|| format!("fuzz target \"{target}\"; the input is in fuzz/artifacts"))?;
        println!("{target}: {}", lines.join(", "));
    }
    Ok(())
}

/// As `fuzz/.cargo/config.toml` names it.
const TRIPLE: &str = "x86_64-unknown-linux-gnu";

/// The names of the targets: each file or folder under `fuzz_targets` is one.
fn targets(fuzz: &Path) -> Result<Vec<String>> {
    let folder = fuzz.join("fuzz_targets");
    let entries = fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let is_target = path.extension().is_some_and(|extension| extension == "rs") || path.is_dir();
        if let (true, Some(name)) = (is_target, path.file_stem().and_then(|name| name.to_str())) {
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

fn is_closing_line(line: &str) -> bool {
    line.starts_with("stat::number_of_executed_units") || line.starts_with("Done ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Options> {
        let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        Options::from_arguments(&arguments)
    }

    #[test]
    fn target_and_seconds_come_in_any_order() {
        let expected = Options { target: Some("packet".to_owned()), seconds: 5, seed: None, replayed: &[] };
        assert_eq!(parse(&["packet", "--seconds", "5"]).unwrap(), expected);
        assert_eq!(parse(&["--seconds", "5", "packet"]).unwrap(), expected);
        let expected = Options { target: None, seconds: 60, seed: None, replayed: &[] };
        assert_eq!(parse(&[]).unwrap(), expected);
        assert!(parse(&["--seconds", "long"]).is_err());
        assert!(parse(&["packet", "topic"]).is_err());
    }

    #[test]
    fn the_codecs_targets_are_known() {
        let known = targets(&process::root().join("fuzz")).unwrap();
        assert!(known.iter().any(|name| name == "packet"), "{known:?}");
        assert!(known.iter().any(|name| name == "differential"), "{known:?}");
    }
}
