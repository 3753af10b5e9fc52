//! A stream of packets read in pieces of any size gives the same packets as in one piece.
//!
//! The first byte of the input is the number of piece sizes that follow it; the rest is the stream.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mqtt_protocol::{DecodeError, FrameStatus, Packet, ProtocolVersion, frame};

const LIMIT: u32 = 4096;

fuzz_target!(|data: &[u8]| {
    let Some((&count, rest)) = data.split_first() else { return };
    let Some((pieces, stream)) = rest.split_at_checked(usize::from(count % 16)) else { return };
    for version in ProtocolVersion::ALL {
        let whole = read(stream, &[], version);
        let cut = read(stream, pieces, version);
        assert_eq!(whole, cut);
    }
});

/// Reads the stream as a connection does: as many bytes as came, then all packets that are there. Ends at the first error.
///
/// The sizes of `pieces` are used in turn; without any the stream comes at once.
fn read(stream: &[u8], pieces: &[u8], version: ProtocolVersion) -> (Vec<String>, Option<DecodeError>) {
    let mut packets = Vec::new();
    let mut sizes = pieces.iter().cycle();
    let (mut start, mut end) = (0, 0);
    while end < stream.len() {
        let size = sizes.next().map_or(stream.len(), |&size| usize::from(size) + 1);
        end = (end + size).min(stream.len());
        loop {
            match frame(&stream[start..end], LIMIT) {
                Err(error) => return (packets, Some(error)),
                Ok(FrameStatus::Incomplete { needed }) => {
                    assert!(needed > end - start, "asks for bytes that it has");
                    break;
                }
                Ok(FrameStatus::Complete(whole)) => {
                    match Packet::decode(&whole, version) {
                        Ok(packet) => packets.push(format!("{packet:?}")),
                        Err(error) => return (packets, Some(error)),
                    }
                    start += whole.len;
                }
            }
        }
    }
    (packets, None)
}
