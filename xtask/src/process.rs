//! Running other programs: printed first, checked afterwards.

use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, Result, anyhow, bail};

/// A program with its arguments, run from the workspace's root.
pub(crate) struct Program {
    command: Command,
    shown: String,
}

/// Returns the workspace's root folder.
pub(crate) fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_path_buf()
}

/// Returns cargo itself: the one that runs us, of the pinned toolchain.
pub(crate) fn cargo() -> Program {
    Program::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())).shown_as("cargo")
}

impl Program {
    pub(crate) fn new(program: impl AsRef<OsStr>) -> Self {
        let shown = program.as_ref().to_string_lossy().into_owned();
        let mut command = Command::new(program);
        command.current_dir(root());
        Self { command, shown }
    }

    fn shown_as(mut self, name: &str) -> Self {
        self.shown = name.to_owned();
        self
    }

    pub(crate) fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.shown.push(' ');
        self.shown.push_str(&shell_quoted(&argument.as_ref().to_string_lossy()));
        self.command.arg(argument);
        self
    }

    pub(crate) fn args<I>(self, arguments: I) -> Self
    where
        I: IntoIterator,
        I::Item: AsRef<OsStr>,
    {
        arguments.into_iter().fold(self, Self::arg)
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.shown = format!("{name}={} {}", shell_quoted(&value.as_ref().to_string_lossy()), self.shown);
        self.command.env(name, value);
        self
    }

    pub(crate) fn current_dir(mut self, folder: &Path) -> Self {
        self.command.current_dir(folder);
        self
    }

    pub(crate) fn without_env(mut self, name: &str) -> Self {
        self.command.env_remove(name);
        self
    }

    fn announce(&self) {
        println!("+ {}", self.shown);
    }

    /// Runs the program with our own input and output.
    ///
    /// # Errors
    /// When it cannot be started or ends with anything but success.
    pub(crate) fn run(mut self) -> Result<()> {
        self.announce();
        let status = self.command.status().with_context(|| format!("cannot run `{}`", self.shown))?;
        if status.success() { Ok(()) } else { Err(anyhow!("`{}` failed: {status}", self.shown)) }
    }

    /// Runs the program without a word. True when it exists and succeeds.
    pub(crate) fn succeeds(mut self) -> bool {
        self.command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    }

    /// Runs the program, passes its output on as it comes, and returns the lines for which `keep` holds
    /// (without colours), whether it succeeded or not.
    pub(crate) fn run_and_keep(mut self, keep: fn(&str) -> bool) -> (Vec<String>, Result<()>) {
        self.announce();
        let child = self.command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = match child.with_context(|| format!("cannot run `{}`", self.shown)) {
            Ok(child) => child,
            Err(error) => return (Vec::new(), Err(error)),
        };
        let stderr = child.stderr.take().map(|pipe| thread::spawn(move || pass_on(pipe, io::stderr(), keep)));
        let mut kept = child.stdout.take().map_or_else(Vec::new, |pipe| pass_on(pipe, io::stdout(), keep));
        if let Some(Ok(lines)) = stderr.map(thread::JoinHandle::join) {
            kept.extend(lines);
        }
        let result = match child.wait() {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(anyhow!("`{}` failed: {status}", self.shown)),
            Err(error) => Err(error).with_context(|| format!("lost sight of `{}`", self.shown)),
        };
        (kept, result)
    }
}

fn pass_on(from: impl Read, mut to: impl Write, keep: fn(&str) -> bool) -> Vec<String> {
    let mut kept = Vec::new();
    for line in BufReader::new(from).split(b'\n').map_while(io::Result::ok) {
        // A closed terminal must not stop the tests.
        drop(to.write_all(&line).and_then(|()| to.write_all(b"\n")));
        let line = without_colours(&String::from_utf8_lossy(&line));
        if keep(&line) {
            kept.push(line.trim().to_owned());
        }
    }
    kept
}

/// Removes ANSI colour sequences (`ESC [ … m`).
fn without_colours(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut rest = line.chars();
    while let Some(character) = rest.next() {
        if character == '\u{1b}' {
            rest.by_ref().find(char::is_ascii_alphabetic);
        } else {
            plain.push(character);
        }
    }
    plain
}

fn shell_quoted(argument: &str) -> String {
    let plain = |character: char| character.is_ascii_alphanumeric() || "-_./=:,@+%".contains(character);
    if !argument.is_empty() && argument.chars().all(plain) {
        argument.to_owned()
    } else {
        format!("'{}'", argument.replace('\'', r"'\''"))
    }
}

/// Asks a question on the terminal. Without a terminal nobody can answer, which is an error.
///
/// # Errors
/// When the answer is not yes, or there is nobody to ask.
pub(crate) fn confirm(question: &str) -> Result<()> {
    if !io::stdin().is_terminal() {
        bail!("{question}\nnobody to ask (no terminal): pass --yes or set CI to agree");
    }
    print!("{question} [y/N] ");
    io::stdout().flush().context("cannot write to the terminal")?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).context("cannot read the answer")?;
    if matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes") {
        Ok(())
    } else {
        bail!("not installed, as you wish; nothing was run")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_removed() {
        assert_eq!(
            without_colours("\u{1b}[32;1m     Summary\u{1b}[0m [   1.2s] é"),
            "     Summary [   1.2s] é"
        );
    }

    #[test]
    fn arguments_are_shown_as_a_shell_would_read_them() {
        assert_eq!(shell_quoted("--test=a/b.rs"), "--test=a/b.rs");
        assert_eq!(shell_quoted("it's $HOME"), r"'it'\''s $HOME'");
        assert_eq!(shell_quoted(""), "''");
    }

    #[test]
    fn kept_lines_come_from_both_streams_and_a_failure_is_reported() {
        let program = Program::new("sh").args(["-c", "echo keep out; echo other; echo keep err >&2; exit 3"]);
        let (mut lines, result) = program.run_and_keep(|line| line.starts_with("keep"));
        lines.sort();
        assert_eq!(lines, ["keep err", "keep out"]);
        assert!(result.unwrap_err().to_string().ends_with("failed: exit status: 3"));
    }
}
