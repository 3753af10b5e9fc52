//! What the answers to a message mean.

use serde::Deserialize;

use super::client::Answer;
use crate::delivery::{AnswerClass, DeliveryError};
use crate::text::excerpt;

/// Characters of an answer that are quoted.
const QUOTED_CHARS: usize = 200;
/// The status of an answer that nobody gave: no stream takes the subject.
const NO_RESPONDERS: u16 = 503;

/// What a stream answers.
#[derive(Deserialize)]
struct Acknowledgement {
    #[serde(default)]
    stream: String,
    error: Option<StreamError>,
}

/// What a stream has against a message.
#[derive(Deserialize)]
struct StreamError {
    #[serde(default)]
    code: u16,
    #[serde(default)]
    err_code: u32,
    #[serde(default)]
    description: String,
}

/// What is known of a message after the answer. `if_subject`: what it means that nobody takes its subject from us.
pub(super) fn meaning(answer: &Answer, if_subject: AnswerClass) -> Result<(), DeliveryError> {
    let refused = |class, cause: String| Err(DeliveryError::Refused { class, cause });
    let payload = match answer {
        Answer::NotAllowed(text) => return refused(if_subject, format!("the server said \"{text}\"")),
        Answer::Came { status: Some(NO_RESPONDERS), .. } => {
            return refused(if_subject, "no stream takes the subject".to_owned());
        }
        Answer::Came { status: Some(status), .. } => {
            return refused(AnswerClass::Retry, format!("instead of a stream came the status {status}"));
        }
        Answer::Came { status: None, payload } => payload,
    };
    match serde_json::from_slice(payload) {
        Ok(Acknowledgement { error: Some(error), .. }) => {
            let StreamError { code, err_code, description } = error;
            let words = excerpt(description.as_bytes(), QUOTED_CHARS);
            refused(class(code, err_code), format!("the stream answered {code} ({err_code}): {words}"))
        }
        Ok(Acknowledgement { stream, error: None }) if !stream.is_empty() => Ok(()),
        _ => {
            // Somebody else listens to the subject, and answers.
            let text = excerpt(payload, QUOTED_CHARS);
            refused(AnswerClass::Retry, format!("\"{text}\" is no stream's acknowledgement"))
        }
    }
}

/// What a stream's error means. Its codes are those of nats-server's `errors.json`.
const fn class(code: u16, err_code: u32) -> AnswerClass {
    match (code, err_code) {
        // No room in the account (10002), or the same message is being stored (10158), for now. Full streams, lost
        // leaders and full disks are 5xx.
        (_, 10002 | 10158) | (408 | 409 | 429, _) => AnswerClass::Retry,
        // Somebody sealed the stream (10109), or JetStream isn't on, there or for the account (10076, 10039).
        (401 | 403, _) | (_, 10039 | 10076 | 10109) => AnswerClass::Disable,
        (400..=499, _) => AnswerClass::Reject,
        _ => AnswerClass::Retry,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn came(payload: &'static str) -> Answer {
        Answer::Came { status: None, payload: payload.into() }
    }

    fn class_of(answer: &Answer) -> AnswerClass {
        match meaning(answer, AnswerClass::Disable) {
            Err(DeliveryError::Refused { class, .. }) => class,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_a_streams_word_is_an_acknowledgement() {
        for text in [
            r#"{"stream":"S","seq":7}"#,
            r#"{"stream":"S","seq":7,"duplicate":true,"domain":"d"}"#,
            r#"{"type":"io.nats.jetstream.api.v1.pub_ack_response","stream":"S","seq":1,"error":null}"#,
        ] {
            assert_eq!(meaning(&came(text), AnswerClass::Disable), Ok(()), "{text}");
        }
        for text in ["", "ok", "{}", "[]", r#"{"stream":""}"#, r#"{"stream":7}"#, "\0", r#"{"error":7}"#] {
            assert_eq!(class_of(&came(text)), AnswerClass::Retry, "{text}");
        }
        assert_eq!(class_of(&Answer::Came { status: Some(408), payload: "{}".into() }), AnswerClass::Retry);
    }

    #[test]
    fn what_a_stream_refuses_is_sorted() {
        use AnswerClass::{Disable, Reject, Retry};
        for (text, expected) in [
            (r#"{"error":{"code":503,"err_code":10077,"description":"maximum messages exceeded"}}"#, Retry),
            (
                r#"{"error":{"code":400,"err_code":10002,"description":"resource limits exceeded for account"}}"#,
                Retry,
            ),
            (
                r#"{"error":{"code":500,"err_code":10118,"description":"stream is offline"},"stream":"S","seq":0}"#,
                Retry,
            ),
            (
                r#"{"error":{"code":400,"err_code":10054,"description":"message size exceeds maximum allowed"}}"#,
                Reject,
            ),
            (r#"{"error":{"code":400,"err_code":10071,"description":"wrong last sequence: 1"}}"#, Reject),
            (
                r#"{"error":{"code":400,"err_code":10109,"description":"invalid operation on sealed stream"}}"#,
                Disable,
            ),
            (
                r#"{"error":{"code":503,"err_code":10039,"description":"JetStream not enabled for account"}}"#,
                Disable,
            ),
            (
                r#"{"error":{"code":409,"err_code":10158,"description":"duplicate message id is in process"}}"#,
                Retry,
            ),
            (r#"{"error":{}}"#, Retry),
        ] {
            assert_eq!(class_of(&came(text)), expected, "{text}");
        }
    }

    #[test]
    fn whose_fault_a_subject_is_that_nobody_takes_is_told() {
        for answer in [
            Answer::Came { status: Some(503), payload: "".into() },
            Answer::NotAllowed("Permissions Violation for Publish to \"s\"".to_owned()),
        ] {
            for class in [AnswerClass::Disable, AnswerClass::Retry] {
                let refused = meaning(&answer, class).unwrap_err();
                assert!(matches!(refused, DeliveryError::Refused { class: found, .. } if found == class));
            }
        }
    }
}
