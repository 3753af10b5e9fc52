//! Our decoder against those of rmqtt-codec and rumqttc.
//!
//! Where both accept a packet, the fields that both know must be equal. Where only one accepts it, the disagreement must be
//! one of `known.rs`, which gives the specification's word on each. Panics of the other codecs are no finding of ours.
//!
//! `DIFFERENTIAL_LIST=1` prints each unknown disagreement once instead of stopping at the first.
#![no_main]

mod known;
mod ours;
mod rmqtt;
mod rumqttc;

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    panic::{self, AssertUnwindSafe},
    sync::{Mutex, OnceLock},
};

use libfuzzer_sys::fuzz_target;
use mqtt_protocol::{Frame, FrameStatus, Packet, PacketType, ProtocolVersion, frame};

/// Fields of a packet by name, each printed in the same way by every codec.
type Summary = BTreeMap<&'static str, String>;

/// What another codec made of the bytes: fields, or its error in its own words.
type Verdict = Result<Summary, String>;

/// Adds fields to a summary.
macro_rules! put {
    ($summary:expr, $($name:literal: $value:expr),+ $(,)?) => {{
        $( $summary.insert($name, format!("{:?}", $value)); )+
    }};
}
pub(crate) use put;

thread_local! {
    static IN_OTHER_CODEC: Cell<bool> = const { Cell::new(false) };
}

fuzz_target!(
    init: {
        // libFuzzer's hook aborts at any panic; one inside another codec is caught below.
        let abort = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !IN_OTHER_CODEC.get() {
                abort(info);
            }
        }));
    },
    |data: &[u8]| {
        let Ok(FrameStatus::Complete(whole)) = frame(data, 4096) else { return };
        let Some(packet_type) = PacketType::of(whole.first_byte) else { return };
        let bytes = &data[..whole.len];
        for version in [ProtocolVersion::V3_1_1, ProtocolVersion::V5] {
            compare("rmqtt", bytes, &whole, packet_type, version, rmqtt::decode);
            compare("rumqttc", bytes, &whole, packet_type, version, rumqttc::decode);
        }
    }
);

fn compare(
    codec: &'static str,
    bytes: &[u8],
    whole: &Frame<'_>,
    packet_type: PacketType,
    version: ProtocolVersion,
    decode: fn(&[u8], ProtocolVersion) -> Verdict,
) {
    IN_OTHER_CODEC.set(true);
    let theirs = panic::catch_unwind(AssertUnwindSafe(|| decode(bytes, version)));
    IN_OTHER_CODEC.set(false);
    let Ok(theirs) = theirs else { return };
    let ours = Packet::decode(whole, version);
    if let Ok(Packet::Connect(connect)) = &ours
        && (connect.version != version || connect.is_bridge)
    {
        return; // the others are told the version, or do not know the convention
    }
    match (ours, theirs) {
        (Err(_), Err(_)) => {}
        (Ok(packet), Ok(theirs)) => {
            for (name, value) in ours::summary(&packet) {
                let Some(other) = theirs.get(name) else { continue };
                if *other != value && !known::differs(codec, &packet) {
                    report(
                        format!("{codec} {version} {packet_type} {name}"),
                        &format!("{value} against {other}"),
                        bytes,
                    );
                }
            }
        }
        (Err(error), Ok(_)) => {
            if !known::accepts(codec, packet_type, &error) {
                report(format!("{codec} {version} {packet_type} accepts: {error}"), "", bytes);
            }
        }
        (Ok(packet), Err(error)) => {
            if !known::refuses(codec, version, &packet, &error) {
                report(
                    format!("{codec} {version} {packet_type} refuses: {error}"),
                    &format!("{packet:?}"),
                    bytes,
                );
            }
        }
    }
}

fn report(what: String, detail: &str, bytes: &[u8]) {
    static LISTED: OnceLock<Option<Mutex<BTreeSet<String>>>> = OnceLock::new();
    let list = LISTED.get_or_init(|| std::env::var_os("DIFFERENTIAL_LIST").map(|_| Mutex::default()));
    let Some(list) = list else { panic!("{what}: {detail} {bytes:02x?}") };
    let is_new = list.lock().is_ok_and(|mut list| list.insert(what.clone()));
    if is_new {
        println!("DISAGREEMENT {what}: {detail} {bytes:02x?}");
    }
}
