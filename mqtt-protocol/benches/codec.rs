//! Micro-benchmarks of the codec's hot paths; prints nanoseconds per operation, the best and the median of its rounds.
//!
//! The reference message is a PUBLISH of 100 bytes of payload with two User Properties.

#![expect(clippy::expect_used, reason = "the inputs are made here and valid")]

use std::{
    hint::black_box,
    num::NonZeroU16,
    time::{Duration, Instant},
};

use mqtt_protocol::{
    AliasUse, FrameStatus, Outgoing, Packet, PacketId, ProtocolVersion, Publish, PublishLayout,
    PublishProperties, QoS, ReasonCode, UserPropertiesBuf, encode_puback, encode_publish, frame, matches,
    parse_filter,
};

const ROUNDS: usize = 15;
const ROUND: Duration = Duration::from_millis(20);

fn main() {
    let mut user = UserPropertiesBuf::new();
    user.push("site", "plant-7").expect("short");
    user.push("trace-id", "4bf92f3577b34da6a3ce929d0e0e4736").expect("short");
    let payload = [b'x'; 100];
    let id = PacketId::new(1234);
    let publish = Publish {
        dup: false,
        qos: QoS::AtLeastOnce,
        retain: false,
        topic: "sensors/building-4/room-12/temperature",
        packet_id: id,
        properties: PublishProperties { user_properties: user.as_properties(), ..Default::default() },
        payload: &payload,
    };
    let mut v5 = Vec::new();
    Packet::Publish(publish).encode(ProtocolVersion::V5, &mut v5).expect("valid");
    let mut v3 = Vec::new();
    Packet::Publish(publish).encode(ProtocolVersion::V3_1_1, &mut v3).expect("valid");
    decoding(&v5, &v3);
    encoding(&publish);
    topics();
}

fn decoding(v5: &[u8], v3: &[u8]) {
    run("decode PUBLISH 5.0, 100 bytes, 2 user properties", || decode(black_box(v5), ProtocolVersion::V5));
    run("decode PUBLISH 3.1.1, 100 bytes", || decode(black_box(v3), ProtocolVersion::V3_1_1));
    let mut puback = Vec::new();
    encode_puback(&mut puback, ProtocolVersion::V5, PacketId::MAX, ReasonCode::Success);
    run("decode PUBACK 5.0", || decode(black_box(&puback), ProtocolVersion::V5));
    run("decode and walk over 2 user properties", || {
        let Ok(FrameStatus::Complete(frame)) = frame(black_box(v5), u32::MAX) else { panic!("whole packet") };
        let publish = Publish::decode(&frame, ProtocolVersion::V5).expect("valid");
        publish.properties.user_properties.iter().map(|(name, value)| name.len() + value.len()).sum()
    });
}

fn decode(bytes: &[u8], version: ProtocolVersion) -> usize {
    let Ok(FrameStatus::Complete(frame)) = frame(bytes, u32::MAX) else { panic!("whole packet") };
    black_box(Packet::decode(&frame, version).expect("valid"));
    frame.len
}

fn encoding(publish: &Publish<'_>) {
    let forward = publish.properties.forward_bytes();
    let message = Outgoing {
        topic: publish.topic,
        payload: publish.payload,
        forward: &forward,
        message_expiry_interval_s: None,
    };
    let id = publish.packet_id;
    let mut out = Vec::with_capacity(4096);
    run("encode_publish 5.0 with payload", || {
        out.clear();
        let message = black_box(&message);
        encode_publish(
            &mut out,
            ProtocolVersion::V5,
            message,
            QoS::AtLeastOnce,
            false,
            false,
            id,
            None,
            &[],
            true,
        )
        .expect("valid")
    });
    run("encode_publish 5.0 with payload, alias, identifier, expiry", || {
        out.clear();
        let message = Outgoing { message_expiry_interval_s: Some(60), ..*black_box(&message) };
        let alias = Some((NonZeroU16::MIN, AliasUse::Replace));
        encode_publish(
            &mut out,
            ProtocolVersion::V5,
            &message,
            QoS::AtLeastOnce,
            false,
            false,
            id,
            alias,
            &[7],
            true,
        )
        .expect("valid")
    });
    run("encode_publish 3.1.1 with payload", || {
        out.clear();
        let message = black_box(&message);
        encode_publish(
            &mut out,
            ProtocolVersion::V3_1_1,
            message,
            QoS::AtLeastOnce,
            false,
            false,
            id,
            None,
            &[],
            true,
        )
        .expect("valid")
    });
    let mut scratch = Vec::new();
    run("PublishLayout::new 5.0", || {
        let message = black_box(&message);
        let layout = PublishLayout::new(ProtocolVersion::V5, true, message, std::mem::take(&mut scratch))
            .expect("valid");
        let len = layout.packet_len();
        scratch = layout.into_scratch();
        len
    });
    let layout = PublishLayout::new(ProtocolVersion::V5, true, &message, Vec::new()).expect("valid");
    run("PublishLayout::append_header 5.0 and payload", || {
        out.clear();
        black_box(&layout).append_header(&mut out, QoS::AtLeastOnce, false, false, id);
        out.extend_from_slice(message.payload);
        out.len()
    });
    run("encode_puback 5.0", || {
        out.clear();
        encode_puback(&mut out, black_box(ProtocolVersion::V5), PacketId::MAX, ReasonCode::Success);
        out.len()
    });
    run("Packet::encode PUBLISH 5.0", || {
        out.clear();
        Packet::Publish(*black_box(publish)).encode(ProtocolVersion::V5, &mut out).expect("valid");
        out.len()
    });
}

fn topics() {
    let topic = "sensors/building-4/room-12/temperature";
    run("matches, 4 levels with +", || {
        usize::from(matches(black_box("sensors/+/room-12/+"), black_box(topic)))
    });
    run("matches, # after 1 level", || usize::from(matches(black_box("sensors/#"), black_box(topic))));
    run("parse_filter, shared", || {
        usize::from(parse_filter(black_box("$share/workers/sensors/+/#")).is_ok())
    });
}

/// Runs `operation` in rounds of a fixed time and prints what one call took; skips it when the command line holds words
/// of which the name has none.
fn run(name: &str, mut operation: impl FnMut() -> usize) {
    const CALLS: u32 = 1000;
    let mut words = std::env::args().skip(1).filter(|word| !word.starts_with('-')).peekable();
    if words.peek().is_some() && !words.any(|word| name.contains(&word)) {
        return;
    }
    let mut rounds: Vec<f64> = (0..ROUNDS).map(|_| round(CALLS, &mut operation)).collect();
    rounds.sort_by(f64::total_cmp);
    let best = rounds.first().copied().unwrap_or_default();
    let median = rounds.get(ROUNDS / 2).copied().unwrap_or_default();
    #[expect(clippy::print_stdout, reason = "the figures are the bench's output")]
    {
        println!("{name:<60} {best:>7.1} ns best {median:>7.1} ns median");
    }
}

fn round(calls: u32, operation: &mut impl FnMut() -> usize) -> f64 {
    let start = Instant::now();
    let mut done = 0;
    while start.elapsed() < ROUND {
        for _ in 0..calls {
            black_box(operation());
        }
        done += calls;
    }
    start.elapsed().as_secs_f64() * 1e9 / f64::from(done)
}
