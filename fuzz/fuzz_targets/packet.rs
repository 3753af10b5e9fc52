//! Any bytes, as a packet of each version: no panic, and what decodes encodes to an equal packet.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mqtt_protocol::{Frame, FrameStatus, Packet, ProtocolVersion, frame};

fuzz_target!(|data: &[u8]| {
    let Ok(FrameStatus::Complete(whole)) = frame(data, 65_536) else { return };
    assert!(whole.len <= data.len() && whole.body.len() < whole.len);
    for version in ProtocolVersion::ALL {
        check(&whole, version);
    }
});

fn check(whole: &Frame<'_>, version: ProtocolVersion) {
    let packet = match Packet::decode(whole, version) {
        Ok(packet) => packet,
        Err(error) => {
            assert!(error.reason_code().is_error());
            return;
        }
    };
    let mut encoded = Vec::new();
    packet.encode(version, &mut encoded).expect("what decodes encodes");
    let Ok(FrameStatus::Complete(again)) = frame(&encoded, u32::MAX) else { panic!("a whole packet") };
    assert_eq!(again.len, encoded.len());
    assert_eq!(Packet::decode(&again, version).as_ref(), Ok(&packet));
    if let Packet::Publish(publish) = &packet {
        let forward = publish.properties.forward_bytes();
        let mut appended = Vec::new();
        publish.properties.append_forward(&mut appended).expect("received properties");
        assert_eq!(*forward, *appended);
        assert_eq!(forward.len(), publish.properties.forward_len());
        let kept = mqtt_protocol::PublishProperties::from_encoded(&forward).expect("received properties");
        assert_eq!(kept.user_properties, publish.properties.user_properties);
        assert_eq!(kept.content_type, publish.properties.content_type);
    }
}
