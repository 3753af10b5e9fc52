//! What can happen to an attempt.

use std::time::Duration;

use crate::delivery::DropReason;
use crate::targets::TargetError;

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
        /// How long the far side asks to be left alone.
        retry_after: Option<Duration>,
        /// The beginning of the answer, on one line.
        excerpt: String,
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
    /// Whether trying again may help.
    #[must_use]
    pub const fn is_retriable(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::Interrupted { .. }
            | Self::TimedOut { .. }
            | Self::NotAttempted => true,
            Self::Answered { status, .. } => matches!(status, 408 | 425 | 429 | 500..=599),
            Self::Forbidden(_) | Self::RateLimited { .. } | Self::Driver { .. } => false,
        }
    }

    /// Whether the request may have reached the far side, so that the attempt counts.
    #[must_use]
    pub const fn is_attempt(&self) -> bool {
        !matches!(self, Self::Unreachable { .. } | Self::NotAttempted)
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
