//! Dead letters in bytes: what is written comes back, and nothing else is taken for one.

use proptest::prelude::*;

use super::*;
use crate::config::OrderBy;
use crate::delivery::outbox::Body;
use crate::delivery::{DropReason, ItemId};

fn letter() -> DeadLetter {
    DeadLetter {
        item: ItemId { store: u64::MAX - 1, epoch: 3, sequence: 1 << 40 },
        cause: DropReason::Refused.as_str().to_owned(),
        error: "the answer was 400 Bad Request".to_owned(),
        attempts: 2,
        received_at_ms: 1_700_000_000_000,
        first_attempt_at_ms: Some(1_700_000_000_100),
        ended_at_ms: 1_700_000_000_200,
        request: vec![1, 1, 0, 255],
    }
}

fn bytes_of(letter: &DeadLetter) -> Vec<u8> {
    let mut out = Vec::new();
    letter.encode(&mut out);
    out
}

fn any_letter() -> impl Strategy<Value = DeadLetter> {
    let item = (any::<u64>(), any::<u32>(), any::<u64>());
    let times = (any::<i64>(), proptest::option::of(i64::MIN + 1..), any::<i64>());
    let texts = ("[a-z_]{0,64}", "\\PC{0,200}", proptest::collection::vec(any::<u8>(), 0..200));
    (item, times, any::<u32>(), texts).prop_map(|(item, times, attempts, texts)| DeadLetter {
        item: ItemId { store: item.0, epoch: item.1, sequence: item.2 },
        cause: texts.0,
        error: texts.1,
        attempts,
        received_at_ms: times.0,
        first_attempt_at_ms: times.1,
        ended_at_ms: times.2,
        request: texts.2,
    })
}

proptest! {
    #[test]
    fn a_letter_comes_back_and_no_part_of_one_is_taken_for_it(letter in any_letter()) {
        let bytes = bytes_of(&letter);
        prop_assert_eq!(&DeadLetter::decode(&bytes), &Ok(letter));
        for length in 0..bytes.len() {
            prop_assert_eq!(DeadLetter::decode(&bytes[..length]), Err(DeadLetterError::Malformed));
        }
        let more = [&bytes[..], &[0]].concat();
        prop_assert_eq!(DeadLetter::decode(&more), Err(DeadLetterError::Malformed));
    }

    /// What is read without an error is the only way to write it.
    #[test]
    fn hostile_bytes_are_refused_or_mean_one_letter(
        noise in proptest::collection::vec(any::<u8>(), 0..200),
        letter in any_letter(),
        at: proptest::sample::Index,
        byte: u8,
    ) {
        let mut damaged = bytes_of(&letter);
        let at = at.index(damaged.len());
        damaged[at] = byte;
        for bytes in [noise.clone(), [&[1], &noise[..]].concat(), damaged] {
            if let Ok(letter) = DeadLetter::decode(&bytes) {
                prop_assert_eq!(bytes_of(&letter), bytes);
            }
        }
    }
}

/// The format is a promise to the files of today: these bytes stay readable.
#[test]
fn a_letter_of_the_first_format_is_read() {
    let bytes: Vec<u8> = [
        &[1][..],
        &(u64::MAX - 1).to_be_bytes(),
        &[0, 0, 0, 3],
        &[0, 0, 1, 0, 0, 0, 0, 0],
        &1_700_000_000_000_i64.to_be_bytes(),
        &1_700_000_000_100_i64.to_be_bytes(),
        &1_700_000_000_200_i64.to_be_bytes(),
        &[0, 0, 0, 2],
        b"\0\0\0\x07refused",
        b"\0\0\0\x1ethe answer was 400 Bad Request",
        &[0, 0, 0, 4, 1, 1, 0, 255],
    ]
    .concat();
    assert_eq!(DeadLetter::decode(&bytes), Ok(letter()));
    assert_eq!(bytes_of(&letter()), bytes);
    assert_eq!(letter().reason(), Some(DropReason::Refused));
}

#[test]
fn another_version_is_named() {
    let mut bytes = bytes_of(&letter());
    bytes[0] = 2;
    assert_eq!(DeadLetter::decode(&bytes), Err(DeadLetterError::Version { found: 2 }));
    assert_eq!(DeadLetter::decode(&[]), Err(DeadLetterError::Malformed));
}

#[test]
fn long_texts_are_cut_between_characters_and_longer_ones_are_no_letter() {
    let long = "ä".repeat(ERROR_BYTES_MAX);
    let letter = DeadLetter { error: format!("x{long}"), cause: "c".repeat(65), ..letter() };
    let bytes = bytes_of(&letter);
    let read = DeadLetter::decode(&bytes).unwrap();
    assert_eq!(read.error.len(), ERROR_BYTES_MAX - 1, "half a character is left out");
    assert!(letter.error.starts_with(&read.error));
    assert_eq!((read.cause.len(), read.reason()), (CAUSE_BYTES_MAX, None));
    // The error's length is behind version, identity, times, attempts and the cause.
    let at = 1 + 20 + 24 + 4 + 4 + CAUSE_BYTES_MAX;
    let mut longer = bytes.clone();
    longer.splice(at + 4..at + 4, *b"..");
    longer[at..at + 4].copy_from_slice(&u32::try_from(ERROR_BYTES_MAX + 1).unwrap().to_be_bytes());
    assert_eq!(DeadLetter::decode(&longer), Err(DeadLetterError::Malformed));
    longer.remove(at + 4);
    longer[at..at + 4].copy_from_slice(&u32::try_from(ERROR_BYTES_MAX).unwrap().to_be_bytes());
    assert!(DeadLetter::decode(&longer).is_ok(), "at the limit");
}

#[test]
fn debug_text_shows_no_request() {
    let letter = DeadLetter { request: b"authorization: secret".to_vec(), ..letter() };
    assert!(!format!("{letter:?}").contains("secret"));
}

#[test]
fn a_request_is_sent_again_under_the_identity_of_the_letter() {
    let at_ms = 1_700_000_000_300;
    let kept = Body {
        order: OrderBy::Topic,
        identity: None,
        redriven_at_ms: None,
        trace: None,
        origin: b"o",
        request: b"r",
    };
    let letter = DeadLetter { request: kept.encode(), ..letter() };
    let again = letter.request_again(at_ms).unwrap();
    let expected = Body { identity: Some(letter.item), redriven_at_ms: Some(at_ms), ..kept };
    assert_eq!(Body::decode(&again), Some(expected));
    // It fails once more, and is sent once more.
    let next = DeadLetter { request: again, ..letter }.request_again(at_ms + 1).unwrap();
    assert_eq!(Body::decode(&next), Some(Body { redriven_at_ms: Some(at_ms + 1), ..expected }));
}

#[test]
fn a_letter_without_a_request_sends_none() {
    for request in [&[][..], &[9, 9, 9]] {
        let letter = DeadLetter { request: request.to_vec(), ..letter() };
        assert_eq!((letter.request_again(1), letter.kept_request()), (None, None));
    }
}
