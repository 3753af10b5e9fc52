//! Passwords from people.
//!
//! A password never stands on the command line, where every user of the machine sees it: it is asked for without echo, or
//! read from a file or standard input.

use std::fs::File;
use std::io::{self, BufRead as _, IsTerminal as _, Read, Write as _};
use std::path::Path;

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use super::output::notice;
use super::{Exit, Failure};

/// Longest password, in bytes: what MQTT can carry.
const PASSWORD_BYTES_MAX: usize = 65_535;

/// Reads a password from a file, `-` for standard input, or asks for it on the terminal.
pub(super) fn password(file: Option<&Path>, scram: bool) -> Result<Vec<u8>, Failure> {
    let password = match file {
        Some(path) if path.as_os_str() == "-" => read(io::stdin().lock()),
        Some(path) => match File::open(path) {
            Ok(file) => read(file),
            Err(error) => {
                return Err(Failure::new(Exit::Failed, format!("{} can't be read: {error}", path.display())));
            }
        },
        None => return ask().and_then(|password| check(password, scram)),
    };
    let password = password
        .map_err(|error| Failure::new(Exit::Failed, format!("the password can't be read: {error}")))?;
    check(password, scram)
}

/// All there is, without the newline at its end.
fn read(from: impl Read) -> io::Result<Vec<u8>> {
    let mut password = Vec::new();
    from.take(PASSWORD_BYTES_MAX as u64 + 3).read_to_end(&mut password)?;
    strip_newline(&mut password);
    Ok(password)
}

/// Takes off one newline at the end.
pub(super) fn strip_newline(line: &mut Vec<u8>) {
    if line.last() == Some(&b'\n') {
        line.pop();
        if line.last() == Some(&b'\r') {
            line.pop();
        }
    }
}

fn check(password: Vec<u8>, scram: bool) -> Result<Vec<u8>, Failure> {
    let refuse = |why: &str| Err(Failure::new(Exit::Refused, format!("the password is refused: {why}")));
    if password.is_empty() {
        return refuse("it is empty");
    }
    if password.len() > PASSWORD_BYTES_MAX {
        return refuse("it is longer than MQTT can carry, 65535 bytes");
    }
    if password.iter().any(|byte| byte.is_ascii_control()) {
        return refuse("it has control characters");
    }
    // Clients prepare others each in their own way (RFC 4013), or don't.
    if scram && !password.is_ascii() {
        return refuse("with SCRAM only ASCII is the same for every client");
    }
    Ok(password)
}

/// Asks twice, without echo.
fn ask() -> Result<Vec<u8>, Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::new(
            Exit::Usage,
            "there is no terminal to ask for the password: write --password-file -",
        ));
    }
    let asked = (|| {
        let _quiet = Quiet::begin()?;
        Ok((prompt("Password: ")?, prompt("Again: ")?))
    })();
    match asked {
        Ok((first, second)) if first == second => Ok(first),
        Ok(_) => Err(Failure::new(Exit::Refused, "the two passwords differ")),
        Err(error) => Err(io_failure(&error)),
    }
}

fn io_failure(error: &io::Error) -> Failure {
    Failure::new(Exit::Failed, format!("the password can't be asked for: {error}"))
}

fn prompt(text: &str) -> io::Result<Vec<u8>> {
    let mut out = io::stderr().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    let mut line = Vec::new();
    io::stdin().lock().read_until(b'\n', &mut line)?;
    out.write_all(b"\n")?;
    strip_newline(&mut line);
    Ok(line)
}

/// The terminal shows nothing that is typed until this is dropped.
struct Quiet(Termios);

impl Quiet {
    fn begin() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        tcsetattr(io::stdin(), OptionalActions::Flush, &quiet)?;
        Ok(Self(before))
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        if let Err(error) = tcsetattr(io::stdin(), OptionalActions::Flush, &self.0) {
            notice(&format!("the terminal could not be set back: {error}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_read_without_their_newline_and_checked() {
        let read = |text: &[u8]| read(text).unwrap();
        assert_eq!(read(b"x\n"), b"x");
        assert_eq!(read(b"x\r\n"), b"x");
        assert_eq!(read(b" x "), b" x ");
        assert_eq!(read(b"x\n\n"), b"x\n");
        let fits = |password: &[u8], scram| check(password.to_vec(), scram).is_ok();
        assert!(fits(b"x", true) && fits("é".as_bytes(), false) && fits(&[b'x'; PASSWORD_BYTES_MAX], false));
        assert!(!fits(b"", false) && !fits(b"x\n", false) && !fits(b"x\0", false));
        assert!(!fits("é".as_bytes(), true) && !fits(&[b'x'; PASSWORD_BYTES_MAX + 1], false));
    }
}
