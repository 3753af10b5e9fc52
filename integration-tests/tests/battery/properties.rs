//! Which property may stand in which packet, and how often: table 2-4 of MQTT 5.0, tried out whole.

use integration_tests::Version;

use crate::case::{Case, Moment, Reaction};

/// A packet that a client sends and that has properties.
struct Carrier {
    name: &'static str,
    moment: Moment,
    /// In notation, with `{}` where the properties stand.
    packet: &'static str,
    /// Identifiers of the properties that it may have; User Property apart, each once.
    allowed: &'static [&'static str],
    /// Section that describes its properties.
    section: &'static str,
}

const OPEN: Moment = Moment::Open;
const FIRST: Moment = Moment::First;
const OF_ACKNOWLEDGEMENTS: &[&str] = &["1f", "26"];

#[rustfmt::skip]
const CARRIERS: [Carrier; 11] = [
    Carrier { name: "CONNECT", moment: FIRST, packet: "10 ['MQTT' 05 02 003c [{}] 'hostile']", section: "§3.1.2.11",
        allowed: &["11", "15", "16", "17", "19", "21", "22", "26", "27"] },
    Carrier { name: "a will", moment: FIRST, packet: "10 ['MQTT' 05 06 003c [] 'hostile' [{}] 'will' 'x']", section: "§3.1.3.2",
        allowed: &["01", "02", "03", "08", "09", "18", "26"] },
    // A Subscription Identifier has a place here, but not from a client: publish.txt has it.
    Carrier { name: "PUBLISH", moment: OPEN, packet: "30 ['a' [{}] `x`]", section: "§3.3.2.3",
        allowed: &["01", "02", "03", "08", "09", "0b", "23", "26"] },
    Carrier { name: "PUBACK", moment: OPEN, packet: "40 [000a 00 [{}]]", section: "§3.4.2.2", allowed: OF_ACKNOWLEDGEMENTS },
    Carrier { name: "PUBREC", moment: OPEN, packet: "50 [000a 00 [{}]]", section: "§3.5.2.2", allowed: OF_ACKNOWLEDGEMENTS },
    Carrier { name: "PUBREL", moment: OPEN, packet: "62 [000a 00 [{}]]", section: "§3.6.2.2", allowed: OF_ACKNOWLEDGEMENTS },
    Carrier { name: "PUBCOMP", moment: OPEN, packet: "70 [000a 00 [{}]]", section: "§3.7.2.2", allowed: OF_ACKNOWLEDGEMENTS },
    Carrier { name: "SUBSCRIBE", moment: OPEN, packet: "82 [000a [{}] 'a' 00]", section: "§3.8.2.1", allowed: &["0b", "26"] },
    Carrier { name: "UNSUBSCRIBE", moment: OPEN, packet: "a2 [000a [{}] 'a']", section: "§3.10.2.1", allowed: &["26"] },
    Carrier { name: "DISCONNECT", moment: OPEN, packet: "e0 [00 [{}]]", section: "§3.14.2.2",
        allowed: &["11", "1c", "1f", "26"] },
    Carrier { name: "AUTH", moment: OPEN, packet: "f0 [18 [{}]]", section: "§3.15.2.2", allowed: &["15", "16", "1f", "26"] },
];

/// Every property of the specification, with a value that is valid.
const PROPERTIES: [&str; 27] = [
    "01 00",
    "02 0000003c",
    "03 'text/plain'",
    "08 'answer'",
    "09 'data'",
    "0b 01",
    "11 0000003c",
    "12 'assigned'",
    "13 003c",
    "15 'method'",
    "16 'data'",
    "17 01",
    "18 00000001",
    "19 01",
    "1a 'response'",
    "1c 'elsewhere'",
    "1f 'reason'",
    "21 0014",
    "22 0014",
    "23 0001",
    "24 01",
    "25 01",
    "26 'name' 'value'",
    "27 00010000",
    "28 01",
    "29 01",
    "2a 01",
];

fn identifier(property: &str) -> &str {
    property.split(' ').next().unwrap()
}

fn case(carrier: &Carrier, properties: &str, code: u8, statement: &str, name: String) -> Case {
    Case {
        name,
        version: Version::V5,
        statement: statement.to_owned(),
        moment: carrier.moment,
        bytes: carrier.packet.replace("{}", properties),
        reactions: vec![match carrier.moment {
            Moment::First => Reaction::Connack(code),
            Moment::Open => Reaction::End(code),
        }],
    }
}

fn pairs() -> impl Iterator<Item = (&'static Carrier, &'static str, bool)> {
    CARRIERS.iter().flat_map(|carrier| {
        PROPERTIES
            .iter()
            .map(move |property| (carrier, *property, carrier.allowed.contains(&identifier(property))))
    })
}

/// Each property in each packet that may not have it: a Malformed Packet.
pub(crate) fn misplaced() -> Vec<Case> {
    pairs()
        .filter(|(_, _, is_allowed)| !is_allowed)
        .map(|(carrier, property, _)| {
            let name = format!("property {} in {}", identifier(property), carrier.name);
            case(carrier, property, 0x81, "§2.2.2.2", name)
        })
        .collect()
}

/// Each property twice in each packet that may have it once: a Protocol Error.
pub(crate) fn repeated() -> Vec<Case> {
    pairs()
        .filter(|(_, property, is_allowed)| *is_allowed && identifier(property) != "26")
        .map(|(carrier, property, _)| {
            let name = format!("property {} twice in {}", identifier(property), carrier.name);
            // Data without a method would be a fault of its own.
            let method = if identifier(property) == "16" { "15 'method' " } else { "" };
            case(carrier, &format!("{method}{property} {property}"), 0x82, carrier.section, name)
        })
        .collect()
}

/// Each property without its value in each packet that may have it: a Malformed Packet.
pub(crate) fn cut() -> Vec<Case> {
    pairs()
        .filter(|(_, _, is_allowed)| *is_allowed)
        .map(|(carrier, property, _)| {
            let name = format!("property {} without its value in {}", identifier(property), carrier.name);
            case(carrier, identifier(property), 0x81, "§2.2.2", name)
        })
        .collect()
}
