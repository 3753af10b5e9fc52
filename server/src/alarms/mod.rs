//! Alarms: what somebody should look at, raised when it begins and cleared when it is over.
//!
//! From time to time the gateway's figures are read (`reading`) and judged (`judge`): what is wrong right now, by kind and by
//! whom it concerns. What is wrong for long enough is an alarm (`board`); it is told once when it is raised and once when it is
//! cleared, as a message, in the log and to whoever asks. A figure that dances around its limit is told once.
//!
//! Nothing here counts anything, and a message costs the same whether there are alarms or not.

mod board;
mod judge;
mod reading;
mod watch;

pub(crate) use board::{Alarm, Board};
#[cfg(test)]
pub(crate) use judge::Kind;
pub(crate) use watch::{Alarms, Watch, severity};
