//! Whether the far side takes items, and when to try again.

use std::time::Duration;

use tokio::time::Instant;

use super::DeliveryError;
use super::retry;
use crate::config::RetryConfig;

/// Failures in a row after which nothing more is sent for a while.
pub(crate) const OPEN_AFTER: u32 = 5;

/// Whether items are being sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CircuitState {
    /// They are.
    Closed,
    /// They aren't, until a pause is over.
    Open,
    /// One batch is trying whether they may be again.
    HalfOpen,
}

impl CircuitState {
    /// The metric's value: 0 closed, 1 half open, 2 open.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Closed => 0,
            Self::HalfOpen => 1,
            Self::Open => 2,
        }
    }
}

/// The state of a sink in words.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Health {
    /// Whether items are being sent.
    pub circuit: CircuitState,
    /// Failures since the last success.
    pub failures_in_a_row: u32,
    /// The last failure in words; `None` when the last attempt went well, or none was made.
    pub cause: Option<String>,
    /// Whether the far side refuses everything from us as we are, credentials most likely: somebody must act.
    pub is_disabled: bool,
    /// How long the circuit has been as it is.
    pub since: Duration,
}

/// What a batch's results say about the far side.
#[derive(Debug)]
pub(super) enum Verdict {
    Inconclusive,
    Failed(DeliveryError),
    There,
}

impl Verdict {
    /// Takes in what one item's result says.
    pub(super) fn see(&mut self, result: &Result<(), DeliveryError>) {
        match (result, &self) {
            (Ok(()), _) => *self = Self::There,
            (Err(DeliveryError::Answered { .. }), Self::Inconclusive) if !is_passing(result) => {
                *self = Self::There
            }
            (Err(error), Self::Inconclusive)
                if error.is_retriable() && *error != DeliveryError::NotAttempted =>
            {
                *self = Self::Failed(error.clone());
            }
            _ => {}
        }
    }
}

fn is_passing(result: &Result<(), DeliveryError>) -> bool {
    result.as_ref().is_err_and(DeliveryError::is_retriable)
}

#[derive(Debug)]
pub(crate) struct Circuit {
    state: State,
    changed_at: Instant,
    failures: u32,
    cause: Option<String>,
    is_disabled: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed,
    Open { until: Instant },
    HalfOpen,
}

/// What a circuit allows now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Permit {
    /// Send.
    Send,
    /// Wait for the batch that is trying.
    WaitForProbe,
    /// Wait until then.
    WaitUntil(Instant),
}

impl Circuit {
    pub(crate) const fn new(now: Instant) -> Self {
        Self { state: State::Closed, changed_at: now, failures: 0, cause: None, is_disabled: false }
    }

    pub(crate) fn permit(&self, now: Instant, in_flight_batches: usize) -> Permit {
        match self.state {
            State::Closed => Permit::Send,
            State::Open { until } => {
                if until > now {
                    Permit::WaitUntil(until)
                } else if in_flight_batches > 0 {
                    // Stragglers from before the failure come first; their results say more than a probe.
                    Permit::WaitForProbe
                } else {
                    Permit::Send
                }
            }
            State::HalfOpen => Permit::WaitForProbe,
        }
    }

    /// A batch leaves.
    pub(crate) fn sent(&mut self, now: Instant) {
        if matches!(self.state, State::Open { .. }) {
            self.change(State::HalfOpen, now);
        }
    }

    /// A batch is back.
    pub(super) fn judge(
        &mut self,
        verdict: Verdict,
        retry: &RetryConfig,
        random: &mut fastrand::Rng,
        now: Instant,
    ) {
        match verdict {
            Verdict::There => self.succeeded(now),
            Verdict::Failed(error) => self.failed(&error, retry, random, now),
            Verdict::Inconclusive => self.inconclusive(now),
        }
    }

    /// The far side took something, or refused something by itself: either way it is there.
    pub(crate) fn succeeded(&mut self, now: Instant) {
        self.failures = 0;
        self.cause = None;
        self.is_disabled = false;
        if self.state != State::Closed {
            self.change(State::Closed, now);
        }
    }

    /// A batch failed in a way that may pass.
    pub(crate) fn failed(
        &mut self,
        error: &DeliveryError,
        retry: &RetryConfig,
        random: &mut fastrand::Rng,
        now: Instant,
    ) {
        self.failures = self.failures.saturating_add(1);
        self.cause = Some(error.to_string());
        self.is_disabled = error.is_disabling();
        let asked = error.retry_after().map(|pause| pause.min(retry.max_backoff));
        let at_once =
            asked.is_some() || self.is_disabled || matches!(error, DeliveryError::Unreachable { .. });
        if self.state == State::Closed && self.failures < OPEN_AFTER && !at_once {
            return;
        }
        let pause = retry::backoff(retry, self.failures, random).max(asked.unwrap_or_default());
        let pause = if self.is_disabled { retry.disabled_pause } else { pause };
        let mut until = now + pause;
        if let State::Open { until: other } = self.state {
            until = until.max(other);
        }
        let state = State::Open { until };
        if matches!(self.state, State::Open { .. }) { self.state = state } else { self.change(state, now) }
    }

    /// The batch that was trying ended without saying anything about the far side.
    pub(crate) fn inconclusive(&mut self, now: Instant) {
        if self.state == State::HalfOpen {
            self.change(State::Open { until: now }, now);
        }
    }

    /// The settings are others now: what kept the far side from taking anything may be mended.
    pub(crate) fn reconfigured(&mut self, now: Instant) {
        if self.is_disabled && matches!(self.state, State::Open { .. }) {
            self.state = State::Open { until: now };
        }
    }

    /// Somebody wants it tried at once.
    pub(crate) fn try_now(&mut self, now: Instant) {
        if matches!(self.state, State::Open { .. }) {
            self.state = State::Open { until: now };
        }
    }

    /// Until when nothing is sent, if that is known.
    pub(crate) const fn open_until(&self) -> Option<Instant> {
        match self.state {
            State::Open { until } => Some(until),
            State::Closed | State::HalfOpen => None,
        }
    }

    pub(crate) fn health(&self, now: Instant) -> Health {
        Health {
            circuit: match self.state {
                State::Closed => CircuitState::Closed,
                State::Open { .. } => CircuitState::Open,
                State::HalfOpen => CircuitState::HalfOpen,
            },
            failures_in_a_row: self.failures,
            cause: self.cause.clone(),
            is_disabled: self.is_disabled,
            since: now.duration_since(self.changed_at),
        }
    }

    fn change(&mut self, state: State, now: Instant) {
        self.state = state;
        self.changed_at = now;
    }
}
