//! One case: what is sent, and what has to come of it.

use std::fmt;

use integration_tests::{Broker, Client, Version, wire};

/// Of long notation this much is printed.
const SHOWN_CHARS: usize = 120;

/// See the module.
pub(crate) struct Case {
    /// What it is about, for whoever reads of its failure.
    pub(crate) name: String,
    pub(crate) version: Version,
    /// Statement of that version, or its section.
    pub(crate) statement: String,
    pub(crate) moment: Moment,
    /// In notation.
    pub(crate) bytes: String,
    /// Everything that comes, in order.
    pub(crate) reactions: Vec<Reaction>,
}

/// When the bytes are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// Instead of a CONNECT.
    First,
    /// After a CONNACK.
    Open,
}

/// What the broker has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reaction {
    /// Send exactly this packet.
    Packet(String),
    /// Send the acknowledgement with this first byte and the Reason Codes behind it, whatever else stands in it.
    Codes(Vec<u8>),
    /// Close without a word.
    Close,
    /// Refuse with this code in a CONNACK, and close.
    Connack(u8),
    /// End the connection: with this code in a DISCONNECT in MQTT 5, without a word before.
    End(u8),
    /// Go on as if nothing was.
    Live,
    /// Wait for the rest: when we close instead, it closes without a word.
    Wait,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, version, statement, moment, bytes, .. } = self;
        let shown: String = bytes.chars().take(SHOWN_CHARS).collect();
        write!(f, "{version:?} {name} [{statement}], {moment:?}: {shown}")
    }
}

impl Case {
    /// Sends the bytes, and sees to it that the reactions come and nothing else.
    pub(crate) fn run(&self, broker: &Broker) {
        // Read by whoever sees the test fail: the runner shows it then only.
        println!("{self}");
        let mut client = match self.moment {
            Moment::First => Client::open(broker, self.version),
            Moment::Open => Client::connect(broker, self.version, "hostile"),
        };
        client.send_to_a_closing_broker(&wire::bytes(&self.bytes));
        for reaction in &self.reactions {
            match reaction {
                Reaction::Packet(notation) => client.expect(notation),
                Reaction::Codes(bytes) => {
                    let (first_byte, codes) = bytes.split_first().expect("a first byte");
                    assert_eq!(client.ack(*first_byte).codes, codes);
                }
                Reaction::Close => client.expect_closed(),
                Reaction::Connack(code) => {
                    assert_eq!(client.end_of_refusal(), Some(*code), "the code of the CONNACK");
                }
                Reaction::End(code) => client.expect_end(*code),
                Reaction::Live => client.ping(),
                Reaction::Wait => {
                    client.finish_sending();
                    client.expect_closed();
                }
            }
        }
    }
}
