//! A server that means harm: the process and the next connection are none the worse for it.

use proptest::prelude::*;

use super::super::guard::{Guard, Notice, Violation};
use super::server::{acknowledge, frame_of, method_of};
use super::*;

/// Tables within tables, each in a list.
fn nested(levels: usize) -> Vec<u8> {
    let mut inside = Vec::new();
    for _ in 0..levels {
        let size = u32::try_from(inside.len()).unwrap().to_be_bytes();
        inside = [&b"A"[..], &size, &inside].concat();
    }
    [&b"\x01a"[..], &inside].concat()
}

#[tokio::test]
async fn properties_of_the_server_are_not_followed_into_the_depth() {
    let manner = Manner { start: start(&nested(13_000), "PLAIN"), ..Manner::default() };
    let server = Server::with(manner, acked).await;
    assert_eq!(sink(KEYED, &server.connectors).deliver(&bodies(&["1"])).await, [Ok(())]);
}

#[tokio::test]
async fn sign_ins_that_make_no_sense_are_unreachable() {
    let huge = [&[1, 0, 0][..], &u32::MAX.to_be_bytes(), &[0, 10, 0, 10]].concat();
    for bytes in [
        b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(),
        b"AMQP\x01\x01\x00\x0a".to_vec(),
        vec![0; 100_000],
        huge,
        frame_of(1, 0, &method_of(10, 10, b"")),
        frame_of(1, 0, &method_of(10, 20, b"\0\0\0\x01x")),
        frame_of(1, 3, &method_of(10, 30, &[0; 8])),
        frame_of(1, 0, &method_of(10, 41, &[0])),
        frame_of(9, 0, b""),
        frame_of(8, 1, b""),
        frame_of(3, 1, b"body"),
    ] {
        let manner = Manner { start: bytes.clone(), ..Manner::default() };
        let server = Server::with(manner, acked).await;
        let [Err(error)] = &sink(KEYED, &server.connectors).deliver(&bodies(&["1"])).await[..] else {
            panic!()
        };
        assert!(matches!(error, DeliveryError::Unreachable { .. }), "{bytes:?}: {error}");
    }
}

#[tokio::test]
async fn answers_that_make_no_sense_end_the_connection_and_nothing_else() {
    type Garbage = fn(&Published) -> Vec<u8>;
    let endless: Garbage = |message| {
        let head = [&[3][..], &message.channel.to_be_bytes(), &u32::MAX.to_be_bytes()].concat();
        [head, vec![b'x'; 5 << 20]].concat()
    };
    let garbage: [Garbage; 13] = [
        endless,
        |_| b"garbage".to_vec(),
        // what was never sent, with hundreds of others waiting
        |message| acknowledge(80, message.channel, 9_999, 0),
        |message| acknowledge(80, message.channel, 9_999, 1),
        |message| acknowledge(120, message.channel, 0, 0),
        |_| acknowledge(80, 77, 1, 0),
        |message| [ack(message), ack(message)].concat(),
        // messages that nobody asked for
        |message| frame_of(1, message.channel, &method_of(60, 60, b"\x01t\0\0\0\0\0\0\0\x01\0\0\0")),
        |message| frame_of(2, message.channel, &[0; 14]),
        |message| frame_of(3, message.channel, b"body"),
        // the same message again and again
        |message| returned(message, 312, "NO_ROUTE").repeat(1_000),
        |message| {
            let other = Published { message_id: Some("another".to_owned()), ..message.clone() };
            [returned(&other, 312, "NO_ROUTE"), ack_all(message)].concat()
        },
        // an end that isn't one
        |message| {
            let mut frame = ack(message);
            *frame.last_mut().unwrap() = 0;
            frame
        },
    ];
    for (n, garbage) in garbage.into_iter().enumerate() {
        let mut seen = 0;
        let mut server = Server::start(move |message| {
            seen += 1;
            match seen {
                ..300 => Some(vec![]),
                300 => Some(garbage(message)),
                _ => Some(ack(message)),
            }
        })
        .await;
        let sink = sink(KEYED, &server.connectors);
        let texts = vec!["x"; 300];
        let results = sink.deliver(&bodies(&texts)).await;
        assert!(whats(&results).iter().all(|what| *what == "again"), "{n}: {:?}", results.first());
        assert!(matches!(results[0], Err(DeliveryError::Interrupted { .. })), "{n}: {:?}", results[0]);
        server.ended.recv().await.unwrap();
        assert_eq!(sink.deliver(&bodies(&["1"])).await, [Ok(())], "{n}");
    }
}

/// A guard with channel 1 open and `count` messages on it.
fn guard(count: u64) -> Guard {
    let mut guard = Guard::new("PLAIN");
    guard.sent(b"AMQP\x00\x00\x09\x01");
    guard.sent(&frame_of(1, 1, &method_of(20, 10, &[0])));
    for _ in 0..count {
        guard.sent(&frame_of(1, 1, &method_of(60, 40, b"\0\0\0\x01k\0")));
        guard.sent(&frame_of(2, 1, &[0; 14]));
        guard.sent(&frame_of(3, 1, b"body"));
    }
    guard
}

fn passed(guard: &mut Guard, bytes: &[u8]) -> Result<(Vec<u8>, Vec<Notice>), Violation> {
    let (mut out, mut notices) = (Vec::new(), Vec::new());
    guard.received(bytes, &mut out, &mut notices).map(|()| (out, notices))
}

#[test]
fn of_a_returned_message_the_identifier_passes_and_no_body() {
    let message = Published {
        channel: 1,
        tag: 1,
        message_id: Some("id".to_owned()),
        body: vec![b'x'; 10_000],
        ..Published::default()
    };
    let (out, _) = passed(&mut guard(1), &[returned(&message, 312, "no"), ack(&message)].concat()).unwrap();
    let header = [&[0, 60, 0, 0][..], &[0; 8], &[0, 0x80], b"\x02id"].concat();
    let back = frame_of(1, 1, &method_of(60, 50, b"\x01\x38\x02no\0\0"));
    assert_eq!(out, [back, frame_of(2, 1, &header), ack(&message)].concat());
}

#[test]
fn a_frame_may_be_as_large_as_was_agreed_and_no_larger() {
    let limit = usize::try_from(super::super::guard::FRAME_BYTES_MAX).unwrap();
    let message = Published { channel: 1, tag: 1, ..Published::default() };
    let back = frame_of(1, 1, &method_of(60, 50, b"\x01\x38\x02no\0\0"));
    let header = frame_of(2, 1, &[&[0, 60, 0, 0][..], &(1_u64 << 40).to_be_bytes(), &[0, 0]].concat());
    let mut one = guard(1);
    passed(&mut one, &[back, header].concat()).unwrap();
    passed(&mut one, &frame_of(3, 1, &vec![0; limit - 8])).unwrap();
    assert!(passed(&mut one, &frame_of(3, 1, &vec![0; limit - 7])).is_err());
    assert!(passed(&mut guard(0), &ack(&message)).is_err());
}

#[test]
fn why_something_closes_is_noted() {
    let (_, notices) = passed(&mut guard(0), &[close(1, 404, "no"), close(0, 320, "bye")].concat()).unwrap();
    let closed = |channel, code, text: &str| Notice::Closed { channel, code, text: text.to_owned() };
    assert_eq!(notices, [closed(1, 404, "no"), closed(0, 320, "bye")]);
    let (_, notices) = passed(&mut guard(0), &[blocked("low"), unblocked()].concat()).unwrap();
    assert_eq!(notices, [Notice::Blocked { reason: "low".to_owned() }, Notice::Unblocked]);
}

proptest! {
    #[test]
    fn any_bytes_are_judged_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        drop(passed(&mut guard(3), &bytes));
        guard(0).sent(&bytes);
    }

    #[test]
    fn what_is_changed_is_judged_without_harm(at in any::<prop::sample::Index>(), to in any::<u8>()) {
        let message = Published {
            channel: 1,
            tag: 2,
            message_id: Some("id".to_owned()),
            body: b"body".to_vec(),
            ..Published::default()
        };
        let mut bytes =
            [start(b"", "PLAIN"), returned(&message, 312, "no"), ack(&message), close(1, 404, "no")].concat();
        let at = at.index(bytes.len());
        bytes[at] = to;
        drop(passed(&mut guard(3), &bytes));
    }

    #[test]
    fn how_the_bytes_are_cut_makes_no_difference(cuts in prop::collection::vec(1_usize..40, 1..60)) {
        let message = Published {
            channel: 1,
            tag: 2,
            message_id: Some("id".to_owned()),
            body: b"body".to_vec(),
            ..Published::default()
        };
        let bytes = [start(&nested(20), "PLAIN"), returned(&message, 312, "no"), ack(&message)].concat();
        let whole = passed(&mut guard(3), &bytes).unwrap();
        let mut one = Guard::new("PLAIN");
        let sent = [
            b"AMQP\x00\x00\x09\x01".to_vec(),
            frame_of(1, 1, &method_of(20, 10, &[0])),
            frame_of(8, 0, b""),
            frame_of(1, 1, &method_of(60, 40, b"\0\0\0\x01k\0")),
            frame_of(3, 1, b"xy"),
            frame_of(1, 1, &method_of(60, 40, b"\0\0\0\x01k\0")),
        ]
        .concat();
        let mut lengths = cuts.iter().cycle();
        let mut rest = &sent[..];
        while !rest.is_empty() {
            let (part, other) = rest.split_at((*lengths.next().unwrap()).min(rest.len()));
            one.sent(part);
            rest = other;
        }
        let mut rest = &bytes[..];
        let (mut out, mut notices) = (Vec::new(), Vec::new());
        while !rest.is_empty() {
            let (part, other) = rest.split_at((*lengths.next().unwrap()).min(rest.len()));
            one.received(part, &mut out, &mut notices).unwrap();
            rest = other;
        }
        prop_assert_eq!((out, notices), whole);
    }
}
