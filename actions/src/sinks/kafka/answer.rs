//! What a broker's error codes mean.

use rskafka::protocol::error::Error;

use crate::delivery::{AnswerClass, DeliveryError};

/// What a code means for the records of a partition that it was given for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// One of them may be to blame; alone it is refused with this.
    One(DeliveryError),
    /// All of them share it.
    All(DeliveryError),
    /// Who leads the partition must be asked anew. A leader that lost its post in the middle of a request says so too, and
    /// what it wrote may stay.
    Moved(DeliveryError),
}

/// What is made of a code. Codes that aren't known may pass: what is tried again in vain becomes a dead letter at last.
pub(super) fn verdict(error: Error) -> Verdict {
    let refused = |class| DeliveryError::Refused { class, cause: cause(error) };
    match error {
        Error::MessageTooLarge
        | Error::RecordListTooLarge
        | Error::InvalidRecord
        | Error::InvalidTimestamp
        | Error::PolicyViolation => Verdict::One(refused(AnswerClass::Reject)),
        Error::InvalidTopicException => Verdict::All(refused(AnswerClass::Reject)),
        Error::NotLeaderOrFollower
        | Error::LeaderNotAvailable
        | Error::ReplicaNotAvailable
        | Error::BrokerNotAvailable
        | Error::FencedLeaderEpoch
        | Error::UnknownLeaderEpoch
        | Error::KafkaStorageError => Verdict::Moved(DeliveryError::Unreachable { cause: cause(error) }),
        Error::UnknownTopicOrPartition | Error::UnknownTopicId | Error::InconsistentTopicId => {
            Verdict::Moved(refused(AnswerClass::Retry))
        }
        Error::TopicAuthorizationFailed
        | Error::ClusterAuthorizationFailed
        | Error::TransactionalIdAuthorizationFailed
        | Error::SaslAuthenticationFailed
        | Error::IllegalSaslState
        | Error::UnsupportedSaslMechanism
        | Error::SecurityDisabled
        | Error::InvalidRequiredAcks
        | Error::UnsupportedVersion
        | Error::UnsupportedForMessageFormat
        | Error::UnsupportedCompressionType => Verdict::All(refused(AnswerClass::Disable)),
        _ => Verdict::All(refused(AnswerClass::Retry)),
    }
}

/// The error of records of a topic that the cluster doesn't tell the partitions of.
pub(super) fn of_topic(error: Error) -> DeliveryError {
    match verdict(error) {
        Verdict::One(error) | Verdict::All(error) | Verdict::Moved(error) => error,
    }
}

/// What is told of a code.
pub(super) fn cause(error: Error) -> String {
    format!("the broker answered {}", name(error))
}

/// The code as Kafka's own documents spell it.
pub(super) fn name(error: Error) -> String {
    if let Error::Unknown(code) = error {
        return format!("error {code}");
    }
    let mut name = String::new();
    for c in format!("{error:?}").chars() {
        if c.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(c.to_ascii_uppercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_mean_what_kafkas_table_says() {
        let of = |code: i16| match verdict(Error::new(code).unwrap()) {
            Verdict::One(error) if !error.is_retriable() => "one",
            Verdict::All(error) if error.is_disabling() => "disabled",
            Verdict::All(error) if error.is_retriable() => "again",
            Verdict::All(_) => "all",
            Verdict::Moved(error) if error.is_attempt() => "missing",
            Verdict::Moved(error) if error.is_retriable() => "moved",
            other => panic!("{code}: {other:?}"),
        };
        for (codes, expected) in [
            (&[10, 18, 32, 44, 87][..], "one"),
            (&[17], "all"),
            (&[5, 6, 8, 9, 56, 74, 75], "moved"),
            (&[3, 100, 103], "missing"),
            (&[21, 29, 31, 33, 34, 35, 43, 53, 54, 58, 76], "disabled"),
            (&[-1, 1, 2, 7, 13, 19, 20, 42, 89, 106, -7, i16::MAX, i16::MIN], "again"),
        ] {
            for code in codes {
                assert_eq!(of(*code), expected, "{code}");
            }
        }
    }

    #[test]
    fn codes_are_named_as_kafka_names_them() {
        assert_eq!(name(Error::MessageTooLarge), "MESSAGE_TOO_LARGE");
        assert_eq!(name(Error::NotEnoughReplicasAfterAppend), "NOT_ENOUGH_REPLICAS_AFTER_APPEND");
        assert_eq!(name(Error::Unknown(321)), "error 321");
    }
}
