//! Exit codes, the same for every command.

use std::fmt::Display;
use std::process::ExitCode;

/// How the program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Exit {
    /// Done.
    Success = 0,
    /// Something failed that no other code names.
    Failed = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// The configuration, a rule or a SQL statement is refused.
    Refused = 3,
    /// No connection: nobody answers, or the connection broke.
    Unreachable = 4,
    /// The server said no: to the connection, a subscription, a message or a command.
    Denied = 5,
    /// `sql`: the message doesn't match, or the statement gives no output.
    NoMatch = 6,
    /// `serve` and `demo`: the address is in use.
    AddressInUse = 7,
    /// `sub -W`: the time is up; the number is the one mosquitto_sub uses.
    TimedOut = 27,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        // The discriminants are the codes.
        Self::from(exit as u8)
    }
}

/// Why a command ended early: what to say on standard error, and the exit code.
#[derive(Debug)]
pub struct Failure {
    exit: Exit,
    text: String,
}

impl Failure {
    /// A failure with a text of one line or several; the first line is prefixed when it is printed.
    pub fn new(exit: Exit, text: impl Display) -> Self {
        Self { exit, text: format!("tidegate: {text}\n") }
    }

    /// A failure whose text is printed as it is.
    pub fn rendered(exit: Exit, text: String) -> Self {
        Self { exit, text }
    }

    /// A failure that ends the program without a word, as when the reader of our output went away.
    pub fn silent(exit: Exit) -> Self {
        Self { exit, text: String::new() }
    }

    /// The exit code.
    pub fn exit(&self) -> Exit {
        self.exit
    }

    /// What is printed, with its newline; empty for a silent one.
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl From<crate::client::ClientError> for Failure {
    fn from(error: crate::client::ClientError) -> Self {
        use crate::client::ClientError;
        let exit = match &error {
            ClientError::Refused { .. }
            | ClientError::WebSocketRefused { .. }
            | ClientError::Disconnected { .. }
            | ClientError::QosNotSupported { .. }
            | ClientError::PacketTooLarge { .. } => Exit::Denied,
            ClientError::Encode(_) => Exit::Usage,
            ClientError::TlsSetup(_) => Exit::Failed,
            _ => Exit::Unreachable,
        };
        Self::new(exit, chain(&error))
    }
}

/// An error with its causes, on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
