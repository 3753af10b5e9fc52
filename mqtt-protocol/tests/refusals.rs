//! Every Malformed Packet and Protocol Error that one packet shows, one line of `testdata/refusals.txt` each.
#![allow(
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::string_slice,
    reason = "test code"
)]
#![allow(clippy::expect_used, clippy::unwrap_used, dead_code, reason = "test code")]

mod common;

use mqtt_protocol::{DecodeError, FrameStatus, Packet, ProtocolVersion, ReasonCode, frame};

fn decode(bytes: &[u8], version: ProtocolVersion) -> Result<String, DecodeError> {
    match frame(bytes, u32::MAX)? {
        FrameStatus::Complete(frame) => {
            assert_eq!(frame.len, bytes.len(), "the table's Remaining Length covers the whole line");
            Packet::decode(&frame, version).map(|packet| format!("{packet:?}"))
        }
        FrameStatus::Incomplete { needed } => {
            panic!("{needed} bytes needed, {} there: {bytes:02x?}", bytes.len())
        }
    }
}

#[test]
fn every_line_is_refused_for_its_reason() {
    let rows = common::rows(common::REFUSALS, 3);
    assert!(rows.len() > 150, "the table was read");
    for row in rows {
        let [statement, name, reason] = row.words.as_slice() else { panic!("three words") };
        for version in &row.versions {
            let error = decode(&row.bytes, *version)
                .expect_err(&format!("{statement} {name} in {version} must be refused: {:02x?}", row.bytes));
            let found = match error {
                DecodeError::Malformed(_) => "malformed",
                DecodeError::Protocol(_) => "protocol",
                DecodeError::UnsupportedVersion { .. } | DecodeError::UnknownProtocolName => "version",
                DecodeError::TopicInvalid(_) => "topic",
                DecodeError::TopicAliasInvalid => "alias",
                DecodeError::PacketTooLarge { .. } => "large",
                other => panic!("unknown error {other}"),
            };
            assert_eq!(found, reason, "{statement} {name} in {version}: {error}");
        }
    }
}

#[test]
fn reason_codes_are_those_of_the_specification_v5_4_13() {
    for (error, code) in [
        (DecodeError::Malformed(""), ReasonCode::MalformedPacket),
        (DecodeError::Protocol(""), ReasonCode::ProtocolError),
        (DecodeError::PacketTooLarge { size: 2, limit: 1 }, ReasonCode::PacketTooLarge),
        (DecodeError::UnsupportedVersion { level: 6 }, ReasonCode::UnsupportedProtocolVersion),
        (DecodeError::UnknownProtocolName, ReasonCode::UnsupportedProtocolVersion),
        (DecodeError::TopicInvalid(mqtt_protocol::TopicError::Empty), ReasonCode::TopicNameInvalid),
        (DecodeError::TopicAliasInvalid, ReasonCode::TopicAliasInvalid),
    ] {
        assert_eq!(error.reason_code(), code, "{error}");
    }
}

/// Cutting a valid packet short inside its body, with the Remaining Length put right, must never be taken for valid unless a
/// shorter form exists; above all it must not panic.
#[test]
fn cut_bodies_do_not_panic_and_keep_no_stale_bytes() {
    for row in common::rows(common::GOLDEN, 2) {
        let version = row.versions[0];
        let Ok(FrameStatus::Complete(whole)) = frame(&row.bytes, u32::MAX) else { panic!("a whole packet") };
        for len in 0..whole.body.len() {
            let cut = mqtt_protocol::Frame { body: &whole.body[..len], len: len + 2, ..whole };
            if let Ok(packet) = Packet::decode(&cut, version) {
                let mut again = Vec::new();
                packet.encode(version, &mut again).expect("what decodes encodes");
            }
        }
    }
}

#[test]
fn a_changed_byte_never_panics_and_what_decodes_encodes_to_an_equal_packet() {
    for row in common::rows(common::GOLDEN, 2) {
        for at in 0..row.bytes.len() {
            for value in 0..=255u8 {
                let mut bytes = row.bytes.clone();
                bytes[at] = value;
                for version in ProtocolVersion::ALL {
                    let Ok(FrameStatus::Complete(frame_)) = frame(&bytes, 4096) else { continue };
                    let Ok(packet) = Packet::decode(&frame_, version) else { continue };
                    let mut again = Vec::new();
                    packet.encode(version, &mut again).expect("what decodes encodes");
                    let Ok(FrameStatus::Complete(second)) = frame(&again, 8192) else {
                        panic!("a whole packet")
                    };
                    assert_eq!(
                        Packet::decode(&second, version).as_ref(),
                        Ok(&packet),
                        "{bytes:02x?} {again:02x?}"
                    );
                }
            }
        }
    }
}
