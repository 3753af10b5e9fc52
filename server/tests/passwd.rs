//! `tidegate passwd` from outside.

#![allow(clippy::unwrap_used, reason = "a helper of tests panics where it can't go on")]

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn passwd(arguments: &[&str], file: &Path, stdin: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .arg("passwd")
        .arg(file)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // One that refuses its arguments reads nothing.
    drop(child.stdin.take().unwrap().write_all(stdin.as_bytes()));
    child.wait_with_output().unwrap()
}

fn code(output: &Output) -> Option<i32> {
    output.status.code()
}

#[test]
fn a_file_is_made_and_changed_and_shows_no_password() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("passwd");
    let from_stdin = ["ada", "--password-file", "-"];
    let made = passwd(&from_stdin, &file, "wonderland\n");
    assert_eq!(code(&made), Some(0), "{made:?}");
    assert!(made.stdout.is_empty() && made.stderr.is_empty(), "{made:?}");
    let first = std::fs::read_to_string(&file).unwrap();
    assert!(first.starts_with("ada:$argon2id$v=19$m=19456,t=2,p=1$"), "{first}");
    assert!(!first.contains("wonderland"));
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "pencil").unwrap();
    let scram = passwd(&["bob", "--scram", "--password-file", secret.to_str().unwrap()], &file, "");
    assert_eq!(code(&scram), Some(0), "{scram:?}");
    let both = std::fs::read_to_string(&file).unwrap();
    assert!(both.starts_with(&first) && both.contains("\nbob:$scram-sha-256$15000$"), "{both}");
    assert_eq!(code(&passwd(&from_stdin, &file, "other")), Some(0));
    assert_ne!(std::fs::read_to_string(&file).unwrap(), both);
    assert_eq!(code(&passwd(&["ada", "-D"], &file, "")), Some(0));
    let last = passwd(&["bob", "-D"], &file, "");
    assert_eq!(code(&last), Some(0));
    assert!(String::from_utf8_lossy(&last.stderr).contains("no user left"), "{last:?}");
}

#[test]
fn what_can_t_be_done_is_said_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("passwd");
    let from_stdin = ["ada", "--password-file", "-"];
    let said = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();
    let empty = passwd(&from_stdin, &file, "\n");
    assert_eq!(code(&empty), Some(3));
    assert!(said(&empty).contains("the password is refused: it is empty"), "{empty:?}");
    let no_terminal = passwd(&["ada"], &file, "x\n");
    assert_eq!(code(&no_terminal), Some(2));
    assert!(said(&no_terminal).contains("--password-file -"), "{no_terminal:?}");
    assert_eq!(code(&passwd(&["a:b", "--password-file", "-"], &file, "x")), Some(1));
    assert_eq!(code(&passwd(&["ada", "--scram", "--password-file", "-"], &file, "é")), Some(3));
    assert_eq!(code(&passwd(&["ada", "-D", "--scram"], &file, "x")), Some(2));
    assert!(!file.exists());
    std::fs::write(&file, "ada\n").unwrap();
    let broken = passwd(&from_stdin, &file, "x");
    assert_eq!(code(&broken), Some(1));
    assert!(said(&broken).contains("line 1: it isn't of the form name:hash"), "{broken:?}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "ada\n");
}
