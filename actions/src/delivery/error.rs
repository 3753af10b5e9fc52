//! What can happen to an attempt.

use std::time::Duration;

use crate::delivery::DropReason;
use crate::targets::TargetError;

/// What an answer that is no success means for the item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AnswerClass {
    /// The far side is unwell: the item is tried again.
    Retry,
    /// The far side doesn't want this item: it is given up.
    Reject,
    /// The far side doesn't want anything from us as we are: items are kept, the action pauses for long.
    Disable,
}

impl AnswerClass {
    /// What an HTTP status means unless the action says otherwise.
    #[must_use]
    pub const fn of(status: u16) -> Self {
        match status {
            408 | 425 | 429 | 500..=599 => Self::Retry,
            401 | 403 | 407 => Self::Disable,
            _ => Self::Reject,
        }
    }
}

/// An attempt that was not confirmed by the far side.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeliveryError {
    /// No connection could be made, so nothing can have reached the far side.
    #[error("the far side can't be reached: {cause}")]
    Unreachable {
        /// The failure in words.
        cause: String,
    },
    /// The connection broke after the request may have been sent.
    #[error("the connection broke: {cause}")]
    Interrupted {
        /// The failure in words.
        cause: String,
    },
    /// No answer in time.
    #[error("no answer within {after:?}")]
    TimedOut {
        /// The limit.
        after: Duration,
    },
    /// The far side answered, but not with success.
    #[error("the far side answered {status}: \"{excerpt}\"")]
    Answered {
        /// Status code of the answer.
        status: u16,
        /// What that means.
        class: AnswerClass,
        /// How long the far side asks to be left alone.
        retry_after: Option<Duration>,
        /// The beginning of the answer, on one line.
        excerpt: String,
    },
    /// The far side refused the item, or all of us, in words of its own.
    #[error("the far side refused it: {cause}")]
    Refused {
        /// What that means.
        class: AnswerClass,
        /// Its words, shortened and escaped.
        cause: String,
    },
    /// There is nothing to show that we may: the credentials are refused where they are made.
    #[error("no credentials: {cause}")]
    NoCredentials {
        /// The failure in words.
        cause: String,
    },
    /// The host isn't one that the action may reach, as its settings are now.
    #[error("\"{host}\" is none of the allowed hosts")]
    HostNotAllowed {
        /// The host, shortened and escaped.
        host: String,
    },
    /// The address may not be connected to.
    #[error(transparent)]
    Forbidden(#[from] TargetError),
    /// More than so many per second.
    #[error("more than {per_second} per second")]
    RateLimited {
        /// The limit.
        per_second: u32,
    },
    /// Left alone because an item before it failed.
    #[error("not attempted, because an item before it failed")]
    NotAttempted,
    /// The driver panicked or broke its contract.
    #[error("the driver failed: {cause}")]
    Driver {
        /// What happened.
        cause: String,
    },
}

impl DeliveryError {
    /// What kind of failure it is, in one word.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "unreachable",
            Self::Interrupted { .. } => "interrupted",
            Self::TimedOut { .. } => "timeout",
            Self::Answered { .. } => "answered",
            Self::Refused { .. } => "refused",
            Self::NoCredentials { .. } => "no_credentials",
            Self::HostNotAllowed { .. } => "host_not_allowed",
            Self::Forbidden(_) => "forbidden",
            Self::RateLimited { .. } => "rate_limited",
            Self::NotAttempted => "not_attempted",
            Self::Driver { .. } => "driver",
        }
    }

    /// Whether trying again may help.
    #[must_use]
    pub const fn is_retriable(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::Interrupted { .. }
            | Self::TimedOut { .. }
            | Self::NoCredentials { .. }
            | Self::NotAttempted => true,
            Self::Answered { class, .. } | Self::Refused { class, .. } => {
                !matches!(class, AnswerClass::Reject)
            }
            Self::Forbidden(_)
            | Self::HostNotAllowed { .. }
            | Self::RateLimited { .. }
            | Self::Driver { .. } => false,
        }
    }

    /// Whether the request may have been looked at by the far side, so that the attempt counts.
    #[must_use]
    pub const fn is_attempt(&self) -> bool {
        !matches!(self, Self::Unreachable { .. } | Self::NotAttempted) && !self.is_disabling()
    }

    /// Whether nothing will be taken from us until something is changed: the item isn't to blame, and the next one would
    /// fare no better.
    #[must_use]
    pub const fn is_disabling(&self) -> bool {
        matches!(
            self,
            Self::NoCredentials { .. }
                | Self::Answered { class: AnswerClass::Disable, .. }
                | Self::Refused { class: AnswerClass::Disable, .. }
        )
    }

    /// Whether one item of a batch may be to blame, so that the others are worth a try without it. Where the URL itself
    /// is unknown, or leads elsewhere, none of them is.
    #[must_use]
    pub(crate) const fn may_be_one_items_fault(&self) -> bool {
        matches!(self, Self::Answered { class: AnswerClass::Reject, status: 400..=499, .. })
            && !matches!(self, Self::Answered { status: 404 | 405 | 410, .. })
    }

    /// How long the far side asks to be left alone.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Answered { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// What an item is counted under when this ends it.
    pub(crate) const fn drop_reason(&self) -> DropReason {
        match self {
            Self::RateLimited { .. } => DropReason::RateLimited,
            Self::Driver { .. } => DropReason::Driver,
            _ => DropReason::Refused,
        }
    }
}
