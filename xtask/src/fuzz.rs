//! `cargo xtask fuzz`: builds the targets of the `fuzz` package and runs them from their corpora.

use anyhow::{Context, Result, bail};

/// What to run, and for how long.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Options {
    /// None: every target.
    pub(crate) target: Option<String>,
    /// Seconds for each target.
    pub(crate) seconds: u32,
}

impl Options {
    pub(crate) fn from_arguments(arguments: &[String]) -> Result<Self> {
        let mut options = Self { target: None, seconds: 60 };
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

pub(crate) fn run(_options: &Options) -> Result<()> {
    Ok(())
}
