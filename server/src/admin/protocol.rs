//! Requests and answers: one JSON object a line.
//!
//! ```text
//! {"version":1,"command":"dead_letters.list","params":{"rule":"overheat","limit":10}}
//! {"version":1,"result":{"letters":[…],"next":null}}
//! {"version":1,"error":{"code":"params","message":"…"}}
//! ```
//!
//! Every request is answered once, in the order in which they came. A member that isn't known is refused: a filter that was
//! misspelt must not mean everything.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// Version of the protocol.
pub const VERSION: u64 = 1;
/// Longest request in bytes, without its newline: a folder of rules fits.
pub const REQUEST_BYTES_MAX: usize = 8 << 20;
/// Longest answer in bytes that a client needs to take.
pub const ANSWER_BYTES_MAX: usize = 16 << 20;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Request {
    /// [`VERSION`].
    pub(super) version: u64,
    /// Name of the command.
    pub(super) command: String,
    /// What the command takes.
    #[serde(default)]
    pub(super) params: Value,
}

/// Why a request wasn't carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    /// It is no request.
    Malformed,
    /// It is of another version of the protocol.
    Version,
    /// It is longer than [`REQUEST_BYTES_MAX`].
    TooLong,
    /// There is no such command.
    UnknownCommand,
    /// The command doesn't take these parameters.
    Params,
    /// There is no letter, or no rule, of this name.
    Missing,
    /// The letter can't be sent again as things are.
    Refused,
    /// The store takes nothing, or doesn't say that it has.
    Store,
    /// The disk can't be read.
    Read,
    /// There are too many connections.
    Busy,
    /// Nothing was asked for a long time.
    Idle,
    /// The peer isn't the gateway's owner.
    Peer,
    /// The command broke off.
    Internal,
}

impl Code {
    /// Every code.
    #[cfg(test)]
    pub(super) const ALL: [Self; 13] = [
        Self::Malformed,
        Self::Version,
        Self::TooLong,
        Self::UnknownCommand,
        Self::Params,
        Self::Missing,
        Self::Refused,
        Self::Store,
        Self::Read,
        Self::Busy,
        Self::Idle,
        Self::Peer,
        Self::Internal,
    ];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Version => "version",
            Self::TooLong => "too_long",
            Self::UnknownCommand => "unknown_command",
            Self::Params => "params",
            Self::Missing => "missing",
            Self::Refused => "refused",
            Self::Store => "store",
            Self::Read => "read",
            Self::Busy => "busy",
            Self::Idle => "idle",
            Self::Peer => "peer",
            Self::Internal => "internal",
        }
    }
}

/// A request that isn't carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(super) code: Code,
    pub(super) message: String,
}

impl Refusal {
    pub(super) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    pub(crate) fn code(&self) -> Code {
        self.code
    }

    pub(crate) fn message(self) -> String {
        self.message
    }
}

impl Request {
    /// Reads one line.
    pub(super) fn read(line: &[u8]) -> Result<Self, Refusal> {
        let malformed = |error| Refusal::new(Code::Malformed, format!("the request can't be read: {error}"));
        let value: Value = serde_json::from_slice(line).map_err(malformed)?;
        // Before anything else, so that a newer client hears the reason and not a detail.
        match value.get("version").and_then(Value::as_u64) {
            Some(VERSION) => serde_json::from_value(value).map_err(malformed),
            _ => Err(Refusal::new(
                Code::Version,
                format!(
                    "expected an object with \"version\": {VERSION}, the version that this gateway speaks"
                ),
            )),
        }
    }

    /// Reads the parameters; none are an empty object.
    pub(super) fn params<T: DeserializeOwned>(self) -> Result<T, Refusal> {
        let Self { command, params, .. } = self;
        let params = match params {
            Value::Null => Map::new(),
            Value::Object(params) => params,
            _ => return Err(Refusal::new(Code::Params, format!("{command}: params: expected an object"))),
        };
        from_object(params).map_err(|error| Refusal::new(Code::Params, format!("{command}: {error}")))
    }
}

/// Reads an object. A list of values in the order of the members, which is another form of a struct for serde, is refused by
/// the type: an empty one would be a filter that means everything.
pub(super) fn from_object<T: DeserializeOwned>(object: Map<String, Value>) -> serde_json::Result<T> {
    serde_json::from_value(Value::Object(object))
}

/// The answer as a line, its newline included.
pub(super) fn answer(outcome: Result<Value, Refusal>) -> Vec<u8> {
    let answer = match outcome {
        Ok(result) => json!({ "version": VERSION, "result": result }),
        Err(Refusal { code, message }) => {
            json!({ "version": VERSION, "error": { "code": code.as_str(), "message": message } })
        }
    };
    let mut line = answer.to_string().into_bytes();
    line.push(b'\n');
    line
}
