//! `tidegate backup`: writes what a running gateway owns into a file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, IsTerminal as _, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::Args;
use hyper::Method;
use serde_json::json;

use super::gateway::GatewayArgs;
use super::output::{Output, notice};
use super::progress::{Progress, bytes};
use super::serve::home;
use super::{ConfigArgs, Exit, Failure, chain};
use crate::admin::download;
use crate::backup::{BackupError, Entry, FileRecord, LINE_BYTES_LARGEST, Part, Reader, Writer, collect};
use crate::config::{self, Environment};
use crate::rules::files_in;
use crate::server::rules_folder;

/// How the last line of a backup begins.
const END: &[u8] = b"{\"end\":";
/// Longest last line, in bytes.
const END_BYTES_MAX: usize = 256;

/// Arguments of `backup`.
#[derive(Debug, Args)]
pub(super) struct BackupArgs {
    #[command(flatten)]
    gateway: GatewayArgs,
    /// The file to write; `-`, or none at all, for standard output.
    #[arg(value_name = "FILE", default_value = "-")]
    file: PathBuf,
    /// Users and tokens of the administration too, with hashes of their passwords and of themselves.
    #[arg(long)]
    with_users: bool,
    /// The files of the configuration too, read by this command: what is written out in them, secrets among it.
    #[arg(long)]
    with_config: bool,
    /// Write over a file that is there.
    #[arg(long)]
    force: bool,
    /// Print what was written as one JSON object.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(super) fn run(args: &BackupArgs, outer: &ConfigArgs, environment: &Environment) -> Result<Exit, Failure> {
    let data_dir = args.gateway.data_dir(outer, environment)?;
    let path = format!("/api/v1/backup?users={}", args.with_users);
    if args.file.as_os_str() == "-" {
        if args.json || args.with_config {
            return Err(Failure::new(Exit::Usage, "--json and --with-config are for a file: name one"));
        }
        if io::stdout().is_terminal() {
            return Err(Failure::new(Exit::Usage, "name a file: standard output is a terminal"));
        }
        to_output(&data_dir, &path)?;
        return Ok(Exit::Success);
    }
    if !args.force && args.file.exists() {
        let text = format!("{} is there already: --force writes over it", args.file.display());
        return Err(Failure::new(Exit::Failed, text));
    }
    let files = match args.with_config {
        true => config_files(&args.gateway, outer, environment)?,
        false => Vec::new(),
    };
    let (entries, size) = to_file(&data_dir, &path, &args.file, &files)?;
    if args.json {
        let written = json!({ "file": args.file.to_string_lossy(), "entries": entries, "bytes": size });
        Output::stdout().json(&written)?;
    } else {
        let size = bytes(size, None);
        notice(&format!("{entries} entries, {size}, written to {}", args.file.display()));
    }
    Ok(Exit::Success)
}

/// The files of the configuration that this command was given, and of its rules.
fn config_files(
    gateway: &GatewayArgs,
    outer: &ConfigArgs,
    environment: &Environment,
) -> Result<Vec<FileRecord>, Failure> {
    let loaded = gateway.configuration(outer, environment)?;
    let Some(main) = loaded.path.as_deref() else {
        return Err(Failure::new(Exit::Failed, "there is no configuration file: --config names one"));
    };
    // The file itself and the folder of the others come first.
    let conf_d: Vec<PathBuf> = config::files(main).into_iter().skip(2).collect();
    let folder = rules_folder(&loaded.config, &home(&loaded, environment));
    let rules = match folder.is_dir() {
        true => files_in(&folder).map_err(|error| unreadable(&folder, &error))?,
        false => Vec::new(),
    };
    collect(Some(main), &conf_d, &rules).map_err(|(path, error)| unreadable(&path, &error))
}

fn unreadable(path: &Path, error: &io::Error) -> Failure {
    Failure::new(Exit::Failed, format!("{} can't be read: {error}", path.display()))
}

/// Passes it on as it comes. That it has an end is all that can be seen of it.
fn to_output(data_dir: &Path, path: &str) -> Result<(), Failure> {
    let mut last: Vec<u8> = Vec::new();
    let mut progress = Progress::new("backup");
    let mut done = 0;
    let mut out = io::stdout().lock();
    download(data_dir, &Method::POST, path, |piece| {
        out.write_all(piece)?;
        done += piece.len() as u64;
        last.extend_from_slice(piece);
        last.drain(..last.len().saturating_sub(END_BYTES_MAX));
        progress.show(|| bytes(done, None));
        Ok(())
    })?;
    drop(progress);
    out.flush()
        .map_err(|error| Failure::new(Exit::Failed, format!("standard output can't be written: {error}")))?;
    let line = last.strip_suffix(b"\n").and_then(|last| last.rsplit(|byte| *byte == b'\n').next());
    match line {
        Some(line) if line.starts_with(END) => Ok(()),
        _ => Err(broke_off()),
    }
}

fn broke_off() -> Failure {
    Failure::new(Exit::Unreachable, "the gateway has sent no end: the backup is cut off")
}

/// Writes a file beside the one that is wanted, reads it to see that it is whole, and puts it in its place. Returns how many
/// entries and bytes it has.
fn to_file(data_dir: &Path, path: &str, file: &Path, files: &[FileRecord]) -> Result<(u64, u64), Failure> {
    let named = |ending: &str| {
        let mut beside = file.as_os_str().to_owned();
        beside.push(ending);
        PathBuf::from(beside)
    };
    let (beside, with_files) = (named(".part"), named(".config.part"));
    let written = write(data_dir, path, &beside).and_then(|written| match files {
        [] => Ok(written),
        files => {
            let added = add(&beside, &with_files, files);
            let size = added.and_then(|()| Ok(fs::metadata(&beside)?.len()));
            let size = size.map_err(|error| {
                Failure::new(Exit::Failed, format!("{}: {}", beside.display(), chain(&error)))
            })?;
            Ok((written.0 + files.len() as u64, size))
        }
    });
    let written = written.and_then(|written| {
        fs::rename(&beside, file).map_err(|error| unusable(file, &error))?;
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))
            .and_then(|folder| folder.sync_all())
            .map_err(|error| unusable(file, &error))?;
        Ok(written)
    });
    if written.is_err() {
        // What is left of it is of no use.
        drop((fs::remove_file(&beside), fs::remove_file(&with_files)));
    }
    written
}

/// Writes a backup anew, with files behind its entries.
fn add(backup: &Path, anew: &Path, files: &[FileRecord]) -> Result<(), BackupError> {
    let mut reader = open(backup)?;
    let mut header = reader.header().clone();
    header.parts.push(Part::Files);
    let mut out = BufWriter::new(new_file(anew)?);
    let (mut writer, line) = Writer::begin(&header).map_err(io::Error::from)?;
    out.write_all(&line)?;
    while let Some(entry) = reader.next_entry()? {
        out.write_all(&writer.entry(&entry).map_err(io::Error::from)?)?;
    }
    for file in files {
        out.write_all(&writer.entry(&Entry::File(file.clone())).map_err(io::Error::from)?)?;
    }
    out.write_all(&writer.end())?;
    out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    fs::rename(anew, backup)?;
    Ok(())
}

/// A file for its owner alone, in place of what a command before this one may have left.
fn new_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600).open(path)
}

fn write(data_dir: &Path, path: &str, beside: &Path) -> Result<(u64, u64), Failure> {
    let failed = |error: io::Error| unusable(beside, &error);
    let mut out = new_file(beside).map_err(failed)?;
    let mut progress = Progress::new("backup");
    let mut size = 0;
    download(data_dir, &Method::POST, path, |piece| {
        out.write_all(piece)?;
        size += piece.len() as u64;
        progress.show(|| bytes(size, None));
        Ok(())
    })?;
    out.sync_all().map_err(failed)?;
    drop(progress);
    match count(beside) {
        Ok(entries) => Ok((entries, size)),
        Err(BackupError::CutOff { .. } | BackupError::Foreign) => Err(broke_off()),
        Err(error) => Err(Failure::new(Exit::Failed, format!("{}: {}", beside.display(), chain(&error)))),
    }
}

/// Reads a backup to its end: how many entries it has.
fn count(path: &Path) -> Result<u64, BackupError> {
    let mut reader = open(path)?;
    let mut entries = 0;
    while reader.next_entry()?.is_some() {
        entries += 1;
    }
    Ok(entries)
}

fn open(path: &Path) -> Result<Reader<BufReader<File>>, BackupError> {
    // How long lines may be, the gateway knows that takes it up.
    Reader::open(BufReader::new(File::open(path)?), LINE_BYTES_LARGEST)
}

fn unusable(file: &Path, error: &io::Error) -> Failure {
    Failure::new(Exit::Failed, format!("{} can't be written: {error}", file.display()))
}
