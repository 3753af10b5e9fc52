//! The faults, one after the other.

use std::fmt;
use std::time::Duration;

use super::Waits;
use super::ledger::Copies;
use super::stage::{Stage, number};
use crate::fault_proxy::Fault;

/// Messages of each publisher in one go.
const MESSAGES: u64 = 40;
/// The same where much must be on its way.
const MANY_MESSAGES: u64 = 200;
/// Bytes in a second then: sending them all takes seconds.
const KILL_BANDWIDTH: u32 = 50_000;
/// Bytes of a client after which a connection is reset in mid-batch: more than a sign-in, less than what is to be sent.
const RESET_AFTER: u64 = 6_000;
/// Resets after which the way is repaired.
const RESETS: u64 = 3;
/// Most times that messages are published until there were so many.
const RESET_ROUNDS_MAX: u32 = 20;

/// One fault.
pub struct Cell {
    /// As it stands in the table.
    pub name: &'static str,
    pub(super) run: fn(&mut Stage<'_>),
    pub(super) before: Fault,
    pub(super) copies: Copies,
    pub(super) connector: Connector,
    pub(super) waits: Waits,
}

impl fmt::Debug for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// With which connector the broker starts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Connector {
    Right,
    WrongCredentials,
    Tls,
}

const fn cell(name: &'static str, before: Fault, copies: Copies, run: fn(&mut Stage<'_>)) -> Cell {
    Cell { name, run, before, copies, connector: Connector::Right, waits: Waits::Long }
}

/// A cell in which the far side doesn't answer, so that an attempt ends when its time is over.
const fn silent(name: &'static str, run: fn(&mut Stage<'_>)) -> Cell {
    let mut cell = cell(name, Fault::None, Copies::Allowed, run);
    cell.waits = Waits::Short;
    cell
}

/// All of them. The first has no fault.
pub static CELLS: [Cell; 14] = [
    cell("normal", Fault::None, Copies::None, |stage| {
        stage.publish(MESSAGES);
        stage.neighbour_has_all();
    }),
    // The first attempts may have got as far as a connection, never as far as a message.
    cell("down at start", Fault::Down, Copies::None, |stage| {
        stage.publish_undisturbed(MESSAGES);
        stage.neighbour_has_all();
        stage.wait("a failure", |action| !action["failure"].is_null());
        let action = stage.action();
        assert_eq!(number(&action, "delivered"), 0, "{action}");
        stage.proxy.set(Fault::None);
    }),
    cell("down for a while", Fault::None, Copies::Allowed, |stage| {
        stage.publish(MESSAGES);
        stage.wait("a delivery", |action| number(action, "delivered") > 0);
        stage.proxy.set(Fault::Down);
        stage.publish_undisturbed(MESSAGES);
        stage.neighbour_has_all();
        stage.wait("a failure", |action| !action["failure"].is_null());
        stage.proxy.set(Fault::None);
    }),
    cell("server killed", Fault::Bandwidth(KILL_BANDWIDTH), Copies::Allowed, |stage| {
        stage.publish_during(MANY_MESSAGES, |stage| {
            stage.wait("a delivery", |action| number(action, "delivered") > 0);
            stage.far.kill();
            // Nothing more is to arrive before it was looked at what did.
            stage.proxy.set(Fault::Down);
            let action = stage.action();
            let (delivered, received) = (number(&action, "delivered"), number(&action, "received"));
            assert!(delivered < received, "killed when nothing was on its way: {action}");
        });
        stage.neighbour_has_all();
        stage.wait("a failure", |action| !action["failure"].is_null() && number(action, "in_flight") == 0);
        stage.far.start_again();
        stage.has_what_counts_as_delivered();
        stage.proxy.set(Fault::None);
        stage.publish(MESSAGES);
    }),
    silent("stall", |stage| {
        stage.publish(MESSAGES);
        stage.wait("a delivery", |action| number(action, "delivered") > 0);
        stage.proxy.set(Fault::Stall);
        stage.publish_undisturbed(MESSAGES);
        stage.neighbour_has_all();
        stage.wait("a time-out", |action| !action["failure"].is_null());
        stage.proxy.set(Fault::None);
    }),
    silent("half-open", |stage| {
        stage.publish(MESSAGES);
        stage.wait("a delivery", |action| number(action, "delivered") > 0);
        stage.proxy.set(Fault::HalfOpen);
        stage.publish_undisturbed(MESSAGES);
        stage.neighbour_has_all();
        stage.wait("a time-out", |action| !action["failure"].is_null());
        stage.proxy.set(Fault::None);
    }),
    cell("slow", Fault::Slow(Duration::from_millis(30)), Copies::Allowed, |stage| {
        stage.publish_undisturbed(MESSAGES);
        stage.neighbour_has_all();
        stage.wait_until("something held up", |stage| stage.proxy.held_up() > 0);
    }),
    cell("narrow", Fault::Bandwidth(100_000), Copies::Allowed, |stage| {
        stage.publish_undisturbed(MESSAGES);
        stage.neighbour_has_all();
        stage.wait_until("something held up", |stage| stage.proxy.held_up() > 0);
    }),
    cell("reset in mid-batch", Fault::ResetAfter(RESET_AFTER), Copies::Allowed, |stage| {
        // Who sends little for each message is through before there were so many resets, and is given more.
        let mut rounds = 0;
        while stage.proxy.resets() < RESETS {
            assert!(rounds < RESET_ROUNDS_MAX, "{} resets in {rounds} rounds", stage.proxy.resets());
            rounds += 1;
            stage.publish_undisturbed(MESSAGES);
            stage.neighbour_has_all();
            stage.wait_until("connections are reset, or everything is delivered", |stage| {
                stage.proxy.resets() >= RESETS || stage.is_all_delivered()
            });
        }
        stage.proxy.set(Fault::None);
    }),
    cell("one of a batch refused", Fault::None, Copies::None, |stage| {
        // All of it waits, so that the poison is in the middle of a batch.
        stage.control("pause");
        stage.publish_undisturbed(MESSAGES / 2);
        stage.poison(2);
        stage.publish_undisturbed(MESSAGES / 2);
        stage.neighbour_has_all();
        stage.control("resume");
    }),
    Cell {
        name: "wrong credentials",
        before: Fault::None,
        copies: Copies::None,
        connector: Connector::WrongCredentials,
        waits: Waits::Long,
        run: |stage| {
            stage.publish_undisturbed(MESSAGES);
            stage.neighbour_has_all();
            stage.wait("a refusal", |action| action["circuit"] == "open" && !action["failure"].is_null());
            let action = stage.action();
            assert_eq!(number(&action, "delivered"), 0, "{action}");
            assert_eq!(action["dead_lettered"], serde_json::json!({}), "{action}");
            let right = stage.right.clone();
            stage.mend(&right);
        },
    },
    Cell {
        name: "TLS failure",
        before: Fault::None,
        copies: Copies::None,
        connector: Connector::Tls,
        waits: Waits::ShortToConnect,
        run: |stage| {
            stage.publish_undisturbed(MESSAGES);
            stage.neighbour_has_all();
            stage.wait("a refusal", |action| !action["failure"].is_null());
            let Some(secure) = stage.secure.take() else {
                let right = stage.right.clone();
                return stage.mend(&right);
            };
            stage.proxy.lead_to(secure.address);
            for (connector, cause) in &secure.refused {
                stage.mend(connector);
                stage.wait(cause, |action| {
                    action["failure"].as_str().is_some_and(|failure| failure.contains(cause))
                });
                let action = stage.action();
                assert_eq!(number(&action, "delivered"), 0, "{connector}: {action}");
            }
            stage.publish_undisturbed(MESSAGES);
            stage.neighbour_has_all();
            for connector in &secure.taken {
                stage.mend(connector);
                stage.wait_until("everything", Stage::is_all_delivered);
                stage.publish(MESSAGES);
            }
        },
    },
    silent("garbage and endless answers", |stage| {
        stage.publish(MESSAGES);
        stage.wait_until("everything", Stage::is_all_delivered);
        stage.flood(b"\0\xff garbage \r\n\r\n".to_vec(), MESSAGES);
    }),
    silent("huge answers", |stage| {
        stage.publish(MESSAGES);
        stage.wait_until("everything", Stage::is_all_delivered);
        let answer = stage.huge_answer.clone();
        stage.flood(answer, MESSAGES);
    }),
];
