//! The fixed header: limits, and streams cut at any place.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::cast_possible_truncation,
    dead_code,
    reason = "test code"
)]

mod common;

use mqtt_protocol::{DecodeError, Frame, FrameStatus, ProtocolVersion, frame};

#[test]
fn the_size_limit_counts_the_whole_packet_and_comes_before_the_body() {
    let header = [0x30, 0x80, 0x01]; // Remaining Length 128, so 131 bytes in all
    assert_eq!(frame(&header, 131), Ok(FrameStatus::Incomplete { needed: 131 }));
    assert_eq!(frame(&header, 130), Err(DecodeError::PacketTooLarge { size: 131, limit: 130 }));
    let largest = [0x30, 0xFF, 0xFF, 0xFF, 0x7F];
    assert_eq!(frame(&largest, u32::MAX), Ok(FrameStatus::Incomplete { needed: 268_435_460 }));
    assert_eq!(
        frame(&largest, 268_435_459),
        Err(DecodeError::PacketTooLarge { size: 268_435_460, limit: 268_435_459 })
    );
}

#[test]
fn remaining_lengths_of_the_specification_3_1_1_table_2_4() {
    for (bytes, len) in [
        (&[0x00][..], 0usize),
        (&[0x7F], 127),
        (&[0x80, 0x01], 128),
        (&[0xFF, 0x7F], 16_383),
        (&[0x80, 0x80, 0x01], 16_384),
        (&[0xFF, 0xFF, 0x7F], 2_097_151),
        (&[0x80, 0x80, 0x80, 0x01], 2_097_152),
        (&[0xFF, 0xFF, 0xFF, 0x7F], 268_435_455),
    ] {
        let mut input = vec![0x30];
        input.extend(bytes);
        let total = 1 + bytes.len() + len;
        match frame(&input, u32::MAX).unwrap() {
            FrameStatus::Incomplete { needed } => assert_eq!(needed, total),
            FrameStatus::Complete(whole) => assert_eq!((whole.len, whole.body.len()), (total, len)),
        }
    }
}

#[test]
fn a_bad_first_byte_is_refused_before_anything_else_is_there() {
    for first in 0..=255u8 {
        let is_valid = match first >> 4 {
            0 => false,
            3 => first & 0b0110 != 0b0110 && (first & 0b1000 == 0 || first & 0b0110 != 0),
            6 | 8 | 10 => first & 0b0111 == 0b0010, // bit 3 is DUP in 3.1
            _ => first & 0x0F == 0,
        };
        match frame(&[first], u32::MAX) {
            Ok(status) => {
                assert_eq!((is_valid, status), (true, FrameStatus::Incomplete { needed: 2 }), "{first:02x}")
            }
            Err(error) => {
                assert!(!is_valid && matches!(error, DecodeError::Malformed(_)), "{first:02x} {error}")
            }
        }
    }
}

#[test]
fn a_stream_gives_the_same_frames_however_it_is_cut() {
    let rows = common::rows(common::GOLDEN, 2);
    let stream: Vec<u8> = rows.iter().flat_map(|row| row.bytes.iter().copied()).collect();
    for step in [1, 2, 3, 7, 64, stream.len()] {
        let mut found = 0;
        let mut start = 0;
        let mut end = 0;
        while start < stream.len() {
            match frame(&stream[start..end], 4096).unwrap() {
                FrameStatus::Complete(Frame { len, .. }) => {
                    assert_eq!(stream[start..start + len], rows[found].bytes, "step {step}");
                    start += len;
                    found += 1;
                }
                FrameStatus::Incomplete { needed } => {
                    assert!(needed > end - start, "step {step}");
                    end = (end + step).min(stream.len());
                }
            }
        }
        assert_eq!(found, rows.len(), "step {step}");
    }
}

#[test]
fn no_input_at_all_needs_a_byte() {
    assert_eq!(frame(&[], 0), Ok(FrameStatus::Incomplete { needed: 1 }));
    assert_eq!(ProtocolVersion::V5.to_string(), "5.0");
}
