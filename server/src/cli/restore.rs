//! `tidegate restore`: has a running gateway take up a backup.
//!
//! What it changes is shown first, and it is asked whether that is meant. The gateway reads the backup twice then, once for each
//! request; what it says after the second is what has happened.

use std::fs::File;
use std::io::{self, BufReader, IsTerminal as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::Value;

use super::gateway::{GatewayArgs, text_of};
use super::output::{Output, notice};
use super::progress::{Progress, bytes};
use super::{ConfigArgs, Exit, Failure, chain};
use crate::admin::{AdminClientError, upload};
use crate::backup::{BackupError, Entry, FILES_MAX, FilesInto, LINE_BYTES_LARGEST, Reader};
use crate::config::Environment;

/// Arguments of `restore`.
#[derive(Debug, Args)]
pub(super) struct RestoreArgs {
    #[command(flatten)]
    gateway: GatewayArgs,
    /// The backup.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Only write the configuration files that it has into this folder, which is made; no gateway is asked.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["dry_run", "prune", "yes", "json"])]
    files_into: Option<PathBuf>,
    /// Only say what would change.
    #[arg(long)]
    dry_run: bool,
    /// Remove what isn't in the backup, of the parts that it has.
    #[arg(long)]
    prune: bool,
    /// Don't ask whether it is meant.
    #[arg(long)]
    yes: bool,
    /// Print what changes as one JSON object.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(super) fn run(
    args: &RestoreArgs,
    outer: &ConfigArgs,
    environment: &Environment,
) -> Result<Exit, Failure> {
    if let Some(folder) = &args.files_into {
        return files_into(&args.file, folder);
    }
    if !args.dry_run && !args.yes && !io::stdin().is_terminal() {
        return Err(Failure::new(
            Exit::Usage,
            "nobody can be asked whether it is meant: --yes, or --dry-run",
        ));
    }
    let data_dir = args.gateway.data_dir(outer, environment)?;
    let mut file = File::open(&args.file).map_err(|error| unreadable(&args.file, &error))?;
    // It is read twice.
    if !file.metadata().is_ok_and(|metadata| metadata.is_file()) {
        return Err(unreadable(&args.file, &io::Error::other("it is no file")));
    }
    let told = send(&data_dir, &args.file, &mut file, args.prune, true)?;
    let changes = count(&told, "added") + count(&told, "changed") + count(&told, "removed");
    if args.dry_run || changes == 0 {
        print(&told, args.json)?;
        notice(if changes == 0 { "nothing differs" } else { "nothing was changed (--dry-run)" });
        return Ok(Exit::Success);
    }
    if !args.yes {
        print(&told, false)?;
        if !is_meant()? {
            notice("nothing was changed");
            return Ok(Exit::Failed);
        }
    }
    let done = send(&data_dir, &args.file, &mut file, args.prune, false)?;
    if args.yes || args.json {
        print(&done, args.json)?;
    }
    notice(&format!("restored: {}", totals(&done)));
    Ok(Exit::Success)
}

/// Writes out the configuration files of a backup: all of them, once the backup is known to be whole.
fn files_into(backup: &Path, folder: &Path) -> Result<Exit, Failure> {
    let mut files = Vec::new();
    let refused = |error: BackupError| {
        Failure::rendered(Exit::Refused, format!("error: {}: {}\n", backup.display(), chain(&error)))
    };
    let from = File::open(backup).map_err(|error| unreadable(backup, &error))?;
    let mut reader = Reader::open(BufReader::new(from), LINE_BYTES_LARGEST).map_err(refused)?;
    while let Some(entry) = reader.next_entry().map_err(refused)? {
        if let Entry::File(file) = entry {
            files.push(file);
            if files.len() > FILES_MAX {
                let text = format!("error: {} has more than {FILES_MAX} files\n", backup.display());
                return Err(Failure::rendered(Exit::Refused, text));
            }
        }
    }
    if files.is_empty() {
        return Err(Failure::new(
            Exit::Failed,
            "the backup has no configuration files (backup --with-config)",
        ));
    }
    let failed = |what: &Path, error: &io::Error| {
        Failure::new(Exit::Failed, format!("{} can't be written: {error}", what.display()))
    };
    let into = FilesInto::make(folder).map_err(|error| failed(folder, &error))?;
    let written = files
        .iter()
        .try_for_each(|file| into.write(file).map_err(|error| failed(&folder.join(&file.name), &error)));
    if let Err(failure) = written {
        into.undo().map_err(|error| failed(folder, &error))?;
        return Err(failure);
    }
    let out = Output::stdout();
    files.iter().try_for_each(|file| out.line(&format!("+ file {}", file.name)))?;
    Ok(Exit::Success)
}

fn send(data_dir: &Path, name: &Path, file: &mut File, prune: bool, dry_run: bool) -> Result<Value, Failure> {
    let size = file.metadata().ok().map(|metadata| metadata.len());
    file.seek(SeekFrom::Start(0)).map_err(|error| unreadable(name, &error))?;
    let path = format!("/api/v1/restore?prune={prune}&dry_run={dry_run}");
    let mut progress = Progress::new(if dry_run { "reading" } else { "restore" });
    upload(data_dir, &path, file, |sent| progress.show(|| bytes(sent, size))).map_err(|error| match error {
        AdminClientError::Refused { code, message, .. } if code == "invalid" || code == "too_large" => {
            Failure::rendered(Exit::Refused, format!("error: {message}\nnothing was changed\n"))
        }
        error => error.into(),
    })
}

fn unreadable(file: &Path, error: &io::Error) -> Failure {
    Failure::new(Exit::Failed, format!("{} can't be read: {error}", file.display()))
}

fn parts(told: &Value) -> &[Value] {
    told.get("parts").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn count(told: &Value, member: &str) -> u64 {
    parts(told).iter().filter_map(|part| part.get(member)?.as_u64()).sum()
}

/// `3 added, 1 changed, 0 removed`
fn totals(told: &Value) -> String {
    let [added, changed, removed] = ["added", "changed", "removed"].map(|member| count(told, member));
    format!("{added} added, {changed} changed, {removed} removed")
}

fn print(told: &Value, as_json: bool) -> Result<(), Failure> {
    let out = Output::stdout();
    if as_json {
        return out.json(told);
    }
    out.bytes(page(told).as_bytes())?;
    for warning in told.get("warnings").and_then(Value::as_array).into_iter().flatten() {
        notice(&format!("warning: {}", warning.as_str().unwrap_or_default()));
    }
    Ok(())
}

/// A line for each thing that differs, as far as they are named.
fn page(told: &Value) -> String {
    let mut page = String::new();
    for part in parts(told) {
        let kind = match part.get("part").and_then(Value::as_str) {
            Some("rules") => "rule",
            Some("cases") => "cases of rule",
            Some("users") => "user",
            Some("tokens") => "token",
            Some("retained") => "retained",
            _ => continue,
        };
        let named = part.get("changes").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        for change in named {
            let name = text_of(change, "name");
            page.push_str(&match change.get("change").and_then(Value::as_str) {
                Some("added") => format!("+ {kind} {name}\n"),
                Some("removed") => format!("- {kind} {name}\n"),
                Some("changed") => format!("~ {kind} {name}\n"),
                _ => format!("~ {kind} {name}: {}\n", text_of(change, "change")),
            });
        }
        let all: u64 =
            ["added", "changed", "removed"].iter().filter_map(|member| part.get(member)?.as_u64()).sum();
        let more = all.saturating_sub(named.len() as u64);
        if more > 0 {
            page.push_str(&format!("  and {more} more of {kind}\n"));
        }
    }
    page
}

/// Asks whoever sits at the terminal.
fn is_meant() -> Result<bool, Failure> {
    let failed =
        |error: io::Error| Failure::new(Exit::Failed, format!("the terminal can't be read: {error}"));
    let mut err = io::stderr().lock();
    err.write_all(b"restore this? [y/N] ").and_then(|()| err.flush()).map_err(failed)?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).map_err(failed)?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_thing_that_differs_has_a_line_and_the_rest_is_counted() {
        let change = |name: &str, change: &str| json!({ "name": name, "change": change });
        let told = json!({ "parts": [
            { "part": "rules", "added": 1, "changed": 1, "removed": 1,
              "changes": [change("hot", "added"), change("f", "suspended"), change("old", "removed")] },
            { "part": "users", "added": 0, "changed": 1, "removed": 0, "changes": [change("ada", "changed")] },
            { "part": "retained", "added": 7, "changed": 0, "removed": 0, "changes": [change("a\u{1b}[2J", "added")] },
        ] });
        let expected = "+ rule hot\n~ rule f: suspended\n- rule old\n~ user ada\n+ retained a\\u{1b}[2J\n  and 6 more of retained\n";
        assert_eq!(page(&told), expected);
        assert_eq!(totals(&told), "8 added, 2 changed, 1 removed");
    }
}
