//! `cargo xtask bench`: the micro-benchmarks of the crates, each a program of its own under `<crate>/benches`.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::process;

pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let wanted = match arguments {
        [] => "",
        [name] => name.as_str(),
        [_, other, ..] => bail!("unexpected argument \"{other}\""),
    };
    let mut benches = Vec::new();
    for entry in fs::read_dir(process::root()).context("cannot list the workspace")? {
        collect(&entry?.path(), &mut benches)?;
    }
    benches.sort();
    benches.retain(|(_, name)| name.contains(wanted));
    if benches.is_empty() {
        bail!("no benchmark is called \"{wanted}\"");
    }
    for (manifest, name) in benches {
        process::cargo().args(["bench", "--manifest-path", &manifest, "--bench", &name]).run()?;
    }
    Ok(())
}

/// Adds (manifest, name) of each `benches/*.rs` of the crate in `folder`.
fn collect(folder: &Path, benches: &mut Vec<(String, String)>) -> Result<()> {
    let manifest = folder.join("Cargo.toml");
    let Ok(files) = fs::read_dir(folder.join("benches")) else { return Ok(()) };
    for file in files {
        let file = file?.path();
        if let (Some("rs"), Some(name)) = (
            file.extension().and_then(|extension| extension.to_str()),
            file.file_stem().and_then(|name| name.to_str()),
        ) {
            benches.push((manifest.to_string_lossy().into_owned(), name.to_owned()));
        }
    }
    Ok(())
}
