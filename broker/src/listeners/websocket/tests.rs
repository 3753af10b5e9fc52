//! Frames, however they are cut, and a stream in both directions.

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt as _, DuplexStream};

use super::*;

const MASK: [u8; 4] = [0x12, 0x34, 0x56, 0x78];

/// A frame of a client.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(size @ ..126), _) => bytes.push(0x80 | size),
        (_, Ok(size)) => {
            bytes.push(0xfe);
            bytes.extend(size.to_be_bytes());
        }
        _ => {
            bytes.push(0xff);
            bytes.extend((payload.len() as u64).to_be_bytes());
        }
    }
    bytes.extend(MASK);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// Reads bytes in pieces of these sizes.
fn read(bytes: &[u8], pieces: &[usize], limit: u64) -> (Vec<u8>, Vec<Control>, Result<(), FrameError>) {
    let mut reader = FrameReader::new(limit);
    let (mut stream, mut controls) = (Vec::new(), Vec::new());
    let mut rest = bytes;
    let mut pieces = pieces.iter().cycle();
    while !rest.is_empty() {
        let (piece, more) = rest.split_at(rest.len().min(*pieces.next().unwrap()));
        let mut piece = piece.to_vec();
        let (count, outcome) = reader.read(&mut piece, &mut |control| controls.push(control));
        stream.extend_from_slice(&piece[..count]);
        if outcome.is_err() {
            return (stream, controls, outcome);
        }
        rest = more;
    }
    (stream, controls, Ok(()))
}

#[test]
fn payloads_are_one_stream_whatever_the_frames() {
    let large = vec![7; 70_000];
    let medium = vec![9; 300];
    let parts: [(u8, &[u8]); 7] = [
        (0x82, b"whole"),
        (0x02, b"begun "),
        (0x89, b"ping inside"),
        (0x00, &medium),
        (0x80, b""),
        (0x82, &large),
        (0x8a, b"pong"),
    ];
    let bytes: Vec<u8> = parts.iter().flat_map(|(first, payload)| frame(*first, payload)).collect();
    let expected = [&b"wholebegun "[..], &medium, &large].concat();
    for pieces in [&[1][..], &[2, 3, 5], &[4_096], &[usize::MAX]] {
        let (stream, controls, outcome) = read(&bytes, pieces, 70_000);
        assert_eq!(outcome, Ok(()));
        assert!(stream == expected, "{pieces:?}");
        assert_eq!(controls, [Control::Ping(b"ping inside"[..].into())]);
    }
}

#[test]
fn frames_that_may_not_be_are_refused_with_their_status() {
    let unmasked = [0x82, 1, 0];
    let long = |size: u16| [&[0x82, 0xfe][..], &size.to_be_bytes(), &MASK].concat();
    let huge = |size: u64| [&[0x82, 0xff][..], &size.to_be_bytes(), &MASK].concat();
    for (bytes, error, status) in [
        (unmasked.to_vec(), FrameError::NotMasked, 1002),
        (frame(0x81, b"text"), FrameError::Text, 1003),
        (frame(0x01, b"text"), FrameError::Text, 1003),
        (frame(0xc2, b""), FrameError::Reserved, 1002),
        (frame(0xa2, b""), FrameError::Reserved, 1002),
        (frame(0x92, b""), FrameError::Reserved, 1002),
        (frame(0x83, b""), FrameError::Unknown(3), 1002),
        (frame(0x8b, b""), FrameError::Unknown(11), 1002),
        (frame(0x80, b""), FrameError::Fragment, 1002),
        ([frame(0x02, b"a"), frame(0x82, b"b")].concat(), FrameError::Fragment, 1002),
        ([frame(0x02, b"a"), frame(0x80, b"b"), frame(0x80, b"c")].concat(), FrameError::Fragment, 1002),
        (frame(0x09, b""), FrameError::Control, 1002),
        (frame(0x08, b""), FrameError::Control, 1002),
        (frame(0x89, &[0; 126]), FrameError::Control, 1002),
        (long(125), FrameError::Length, 1002),
        (huge(65_535), FrameError::Length, 1002),
        (huge(1 << 63), FrameError::Length, 1002),
        (long(1_001), FrameError::TooLarge { size: 1_001, limit: 1_000 }, 1009),
        (huge(u64::MAX >> 1), FrameError::TooLarge { size: u64::MAX >> 1, limit: 1_000 }, 1009),
        (frame(0x88, &[3]), FrameError::Close, 1002),
        (frame(0x88, &[0x03, 0xed]), FrameError::Close, 1002),
        (frame(0x88, &[0x03, 0xe8, 0xff]), FrameError::Close, 1002),
    ] {
        for pieces in [&[1][..], &[usize::MAX]] {
            let good = frame(0x82, b"before");
            let (stream, _, outcome) = read(&[&good[..], &bytes].concat(), pieces, 1_000);
            assert_eq!(outcome, Err(error), "{bytes:02x?}");
            assert_eq!(error.status(), status);
            assert!(stream.starts_with(b"before"));
        }
    }
    // At the limits.
    let (stream, _, outcome) = read(&frame(0x82, &[1; 1_000]), &[usize::MAX], 1_000);
    assert_eq!((stream.len(), outcome), (1_000, Ok(())));
    let (_, controls, outcome) = read(&frame(0x89, &[1; 125]), &[usize::MAX], 1_000);
    assert_eq!((controls.len(), outcome), (1, Ok(())));
}

#[test]
fn nothing_is_read_behind_a_close() {
    let bytes = [frame(0x88, &[0x03, 0xe9, b'b']), frame(0x82, b"late"), vec![0xff; 9]].concat();
    for pieces in [&[1][..], &[usize::MAX]] {
        let (stream, controls, outcome) = read(&bytes, pieces, 1_000);
        assert_eq!((stream.len(), controls, outcome), (0, vec![Control::Close(Some(1001))], Ok(())));
    }
}

#[test]
fn a_client_s_frames_are_what_a_server_reads() {
    for size in [0, 1, 125, 126, 65_535, 65_536] {
        let payload: Vec<u8> = (0..size).map(|at| u8::try_from(at % 251).unwrap()).collect();
        let mut bytes = Vec::new();
        ClientFrame::Binary(&payload).append(MASK, &mut bytes);
        assert!(bytes == frame(0x82, &payload), "{size}");
    }
    let mut bytes = Vec::new();
    ClientFrame::Pong(b"p").append(MASK, &mut bytes);
    ClientFrame::Close(1_001).append(MASK, &mut bytes);
    assert_eq!(bytes, [frame(0x8a, b"p"), frame(0x88, &[0x03, 0xe9])].concat());
}

#[test]
fn a_server_s_frames_have_no_mask() {
    let read = |bytes: &[u8], piece: usize| {
        let mut reader = FrameReader::of_server(70_000);
        let (mut stream, mut controls) = (Vec::new(), Vec::new());
        for piece in bytes.chunks(piece) {
            let mut piece = piece.to_vec();
            let (count, outcome) = reader.read(&mut piece, &mut |control| controls.push(control));
            stream.extend_from_slice(&piece[..count]);
            outcome?;
        }
        Ok((stream, controls))
    };
    let unmasked = |first: u8, payload: &[u8]| {
        let mut bytes = vec![first];
        bytes.extend_from_slice(&Head::binary(payload.len()).rest()[1..]);
        bytes.extend_from_slice(payload);
        bytes
    };
    let large = vec![7; 66_000];
    let bytes = [
        unmasked(0x82, b""),
        unmasked(0x02, b"a"),
        unmasked(0x89, b"ping"),
        unmasked(0x89, b""),
        unmasked(0x80, &large[..300]),
        unmasked(0x82, &large),
        unmasked(0x88, &[0x03, 0xe8]),
    ]
    .concat();
    for piece in [1, 3, 4_096, bytes.len()] {
        let (stream, controls) = read(&bytes, piece).unwrap();
        assert!(stream == [b"a", &large[..300], &large].concat(), "{piece}");
        let pings = [Control::Ping(b"ping"[..].into()), Control::Ping(b""[..].into())];
        assert_eq!(controls, [&pings[..], &[Control::Close(Some(1_000))]].concat());
        assert_eq!(read(&frame(0x82, b"x"), piece), Err(FrameError::Masked));
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_the_same_however_they_are_cut(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        pieces in prop::collection::vec(1usize..20, 1..20),
    ) {
        // Most bytes are refused at once; with a good frame before them some state is there.
        let bytes = [frame(0x02, b"abc"), bytes].concat();
        prop_assert_eq!(read(&bytes, &pieces, 100), read(&bytes, &[1], 100));
    }

    #[test]
    fn frames_are_read_the_same_however_they_are_cut(
        frames in prop::collection::vec((0usize..6, prop::collection::vec(any::<u8>(), 0..140)), 0..12),
        pieces in prop::collection::vec(1usize..300, 1..20),
    ) {
        let kinds = [0x82, 0x02, 0x00, 0x80, 0x89, 0x8a];
        let bytes: Vec<u8> = frames.iter().flat_map(|(kind, payload)| frame(kinds[*kind], payload)).collect();
        prop_assert_eq!(read(&bytes, &pieces, 100), read(&bytes, &[1], 100));
    }
}

const REQUEST: &[u8] = b"GET /mqtt HTTP/1.1\r\nHost: b\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n";

/// A client that has sent `behind` together with its request, and the server's side.
async fn connected(behind: &[u8], pipe: usize) -> (DuplexStream, WebSocket<DuplexStream>) {
    let (mut far, near) = tokio::io::duplex(pipe);
    let config = WebSocketConfig { max_frame_size: 100_000, ..WebSocketConfig::default() };
    let client = async {
        far.write_all(&[REQUEST, behind].concat()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(far.read_u8().await.unwrap());
        }
        assert!(answer.starts_with(b"HTTP/1.1 101 "));
        far
    };
    let (far, server) = tokio::join!(client, WebSocket::accept(near, &config));
    (far, server.unwrap())
}

#[tokio::test]
async fn what_came_with_the_request_is_read() {
    let (_far, mut server) = connected(&frame(0x82, b"early"), 1 << 16).await;
    let mut got = [0; 5];
    server.read_exact(&mut got[..2]).await.unwrap();
    server.read_exact(&mut got[2..]).await.unwrap();
    assert_eq!(&got, b"early");
    assert_eq!(server.early.capacity(), 0);
}

#[tokio::test]
async fn everything_leaves_in_whole_frames_through_a_narrow_pipe() {
    let (mut far, mut server) = connected(b"", 7).await;
    let payload: Vec<u8> = (0..70_000usize).map(|number| u8::try_from(number % 251).unwrap()).collect();
    let slices = [&b"x"[..], &payload[..200], &payload[..]];
    let writing = async {
        for slice in slices {
            server.write_all(slice).await.unwrap();
        }
        server.flush().await.unwrap();
    };
    let reading = async {
        for slice in slices {
            assert_eq!(far.read_u8().await.unwrap(), 0x82);
            let size = match far.read_u8().await.unwrap() {
                126 => usize::from(far.read_u16().await.unwrap()),
                127 => usize::try_from(far.read_u64().await.unwrap()).unwrap(),
                size => usize::from(size),
            };
            assert_eq!(size, slice.len());
            let mut got = vec![0; size];
            far.read_exact(&mut got).await.unwrap();
            assert!(got == slice);
        }
    };
    tokio::join!(writing, reading);
}

#[tokio::test]
async fn a_ping_is_answered_and_of_many_the_last() {
    let pings = [frame(0x89, b"one"), frame(0x89, b"two"), frame(0x82, b"data")].concat();
    let (mut far, mut server) = connected(&pings, 1 << 16).await;
    let mut got = [0; 64];
    assert_eq!(AsyncReadExt::read(&mut server, &mut got).await.unwrap(), 4);
    let mut pong = [0; 5];
    far.read_exact(&mut pong).await.unwrap();
    assert_eq!(pong, *b"\x8a\x03two");
}

#[tokio::test]
async fn a_pong_waits_for_the_end_of_the_frame_that_is_being_written() {
    let (mut far, mut server) = connected(b"", 8).await;
    // Eight bytes fit: the head and six of the payload.
    let count =
        server.write(&mut Context::from_waker(std::task::Waker::noop()), &[IoSlice::new(b"0123456789")]);
    assert!(matches!(count, Poll::Ready(Ok(6))), "{count:?}");
    let ping = frame(0x89, b"p");
    far.write_all(&ping).await.unwrap();
    let mut got = [0; 16];
    let read = server.read(&mut Context::from_waker(std::task::Waker::noop()), &mut ReadBuf::new(&mut got));
    assert!(read.is_pending());
    let rest = async {
        server.write_all(b"6789").await.unwrap();
        server.flush().await.unwrap();
    };
    let mut all = [0; 15];
    let (_, read) = tokio::join!(rest, far.read_exact(&mut all));
    read.unwrap();
    assert_eq!(all, *b"\x82\x0a0123456789\x8a\x01p");
}

#[tokio::test]
async fn faults_and_ends_are_told_with_a_close() {
    for (sent, is_error, close) in [
        (frame(0x81, b"text"), true, *b"\x88\x02\x03\xeb"),
        (vec![0x82, 0x01, 0], true, *b"\x88\x02\x03\xea"),
        ([&[0x82, 0xff][..], &200_000u64.to_be_bytes(), &MASK].concat(), true, *b"\x88\x02\x03\xf1"),
        (frame(0x88, &[0x03, 0xe9]), false, *b"\x88\x02\x03\xe9"),
        (frame(0x88, b""), false, *b"\x88\x02\x03\xe8"),
    ] {
        let (mut far, mut server) = connected(&[frame(0x82, b"good"), sent.clone()].concat(), 1 << 16).await;
        let mut got = Vec::new();
        let outcome = server.read_to_end(&mut got).await;
        assert_eq!(got, b"good");
        assert_eq!(outcome.is_err(), is_error, "{sent:02x?}");
        server.shutdown().await.unwrap();
        let mut answer = Vec::new();
        far.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, close, "{sent:02x?}");
    }
}
