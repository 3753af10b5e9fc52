//! Any bytes, as the frames of a WebSocket client: no panic, and the same stream however they are cut.
#![no_main]

use broker::{WebSocketControl, WebSocketFrameError, WebSocketFrameReader};
use libfuzzer_sys::fuzz_target;

const MAX_FRAME_SIZE: u64 = 4_096;

fuzz_target!(|input: (u8, &[u8])| {
    let (piece, bytes) = input;
    let whole = read(bytes, bytes.len().max(1));
    assert_eq!(whole, read(bytes, usize::from(piece).max(1)));
    assert!(whole.0.len() <= bytes.len());
    if let Err(error) = whole.2 {
        assert!(matches!(error.status(), 1002 | 1003 | 1009));
    }
});

type Outcome = (Vec<u8>, Vec<WebSocketControl>, Result<(), WebSocketFrameError>);

fn read(bytes: &[u8], piece: usize) -> Outcome {
    let mut reader = WebSocketFrameReader::new(MAX_FRAME_SIZE);
    let (mut stream, mut controls) = (Vec::new(), Vec::new());
    for part in bytes.chunks(piece) {
        let mut part = part.to_vec();
        let (count, outcome) = reader.read(&mut part, &mut |control| controls.push(control));
        stream.extend_from_slice(&part[..count]);
        if outcome.is_err() {
            return (stream, controls, outcome);
        }
    }
    (stream, controls, Ok(()))
}
