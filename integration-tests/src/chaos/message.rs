//! Messages that say who they are, on topics that say the same.

use super::history::{Label, Lane};

/// Topics with a Retained Message that each publisher has.
pub(super) const RETAINED_TOPICS: u8 = 2;

/// Matches what is for everybody.
pub(super) const FILTER: &str = "chaos/#";

/// Matches what is retained.
pub(super) const RETAINED_FILTER: &str = "keep/#";

pub(super) fn topic(label: Label) -> String {
    let publisher = label.publisher;
    match label.lane {
        Lane::AtLeastOnce => format!("chaos/{publisher}/q1"),
        Lane::ExactlyOnce => format!("chaos/{publisher}/q2"),
        Lane::Retained(topic) => format!("keep/{publisher}/{topic}"),
    }
}

/// The number, and as many bytes more as it says, as JSON.
pub(super) fn payload(label: Label, padding: usize) -> Vec<u8> {
    if label.is_clear() {
        return Vec::new();
    }
    let dots = ".".repeat(padding);
    format!(r#"{{"number":{},"length":{padding},"padding":"{dots}"}}"#, label.number).into_bytes()
}

/// What a message is, by its topic and its payload; `None` when it is none of the run's, or not whole.
pub(super) fn label(topic: &str, payload: &[u8]) -> Option<Label> {
    let mut levels = topic.split('/');
    let (root, publisher, last) = (levels.next()?, levels.next()?, levels.next()?);
    let lane = match (root, last) {
        ("chaos", "q1") => Lane::AtLeastOnce,
        ("chaos", "q2") => Lane::ExactlyOnce,
        ("keep", topic) => Lane::Retained(topic.parse().ok()?),
        _ => return None,
    };
    let text = std::str::from_utf8(payload).ok()?;
    let (number, rest) = text.strip_prefix("{\"number\":")?.split_once(",\"length\":")?;
    let (length, rest) = rest.split_once(",\"padding\":\"")?;
    let dots = rest.strip_suffix("\"}")?;
    let is_whole = dots.len() == length.parse::<usize>().ok()? && dots.bytes().all(|byte| byte == b'.');
    is_whole.then_some(Label { publisher: publisher.parse().ok()?, lane, number: number.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_tells_its_label_and_a_part_of_it_does_not() {
        for lane in [Lane::AtLeastOnce, Lane::ExactlyOnce, Lane::Retained(1)] {
            let sent = Label { publisher: 3, lane, number: 21 };
            let mut bytes = payload(sent, 100);
            assert_eq!(label(&topic(sent), &bytes), Some(sent));
            bytes[80] = b' ';
            assert_eq!(label(&topic(sent), &bytes), None);
            bytes[80] = b'.';
            bytes.remove(80);
            assert_eq!(label(&topic(sent), &bytes), None);
        }
        assert_eq!(
            label("other/1/q1", &payload(Label { publisher: 1, lane: Lane::AtLeastOnce, number: 1 }, 0)),
            None
        );
        assert!(payload(Label { publisher: 0, lane: Lane::Retained(0), number: 10 }, 5).is_empty());
    }
}
