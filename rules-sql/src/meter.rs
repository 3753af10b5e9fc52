//! The budgets of one evaluation. Running out is remembered here and ends every loop; nothing unwinds.

use std::cell::{Cell, RefCell};

use crate::error::EvalError;
use crate::limits::Limits;

/// Bytes of work that count as one step.
const BYTES_PER_STEP: usize = 16;

/// Steps, array elements and bytes left to one evaluation of one rule.
#[derive(Debug)]
pub(crate) struct Meter<'l> {
    limits: &'l Budget,
    steps: Cell<u32>,
    array_steps: Cell<u32>,
    failed: RefCell<Option<EvalError>>,
}

/// The part of [`Limits`] that holds while a rule runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Budget {
    pub(crate) steps: u32,
    pub(crate) array_steps: u32,
    pub(crate) output_bytes: usize,
    pub(crate) regex_bytes: usize,
    pub(crate) json_depth: usize,
}

impl Budget {
    pub(crate) fn new(limits: &Limits) -> Budget {
        Budget {
            steps: limits.steps,
            array_steps: limits.array_steps,
            output_bytes: limits.output_bytes,
            regex_bytes: limits.regex_bytes,
            // Values are walked recursively: this much fits any worker thread's stack.
            json_depth: limits.json_depth.min(128),
        }
    }
}

impl<'l> Meter<'l> {
    pub(crate) fn new(limits: &'l Budget) -> Meter<'l> {
        Meter {
            limits,
            steps: Cell::new(limits.steps),
            array_steps: Cell::new(limits.array_steps),
            failed: RefCell::new(None),
        }
    }

    pub(crate) fn limits(&self) -> &'l Budget {
        self.limits
    }

    /// Takes one step. False: the budget is used up, now or before.
    pub(crate) fn step(&self) -> bool {
        match self.steps.get().checked_sub(1) {
            Some(left) => {
                self.steps.set(left);
                true
            }
            None => self.fail(EvalError::Steps { limit: self.limits.steps }),
        }
    }

    /// Takes the steps of work over so many bytes.
    pub(crate) fn bytes(&self, count: usize) -> bool {
        let steps = u32::try_from(count / BYTES_PER_STEP).unwrap_or(u32::MAX);
        match self.steps.get().checked_sub(steps) {
            Some(left) => {
                self.steps.set(left);
                true
            }
            None => self.fail(EvalError::Steps { limit: self.limits.steps }),
        }
    }

    /// Takes the steps of passing so many neighbours on the way to one.
    pub(crate) fn passed(&self, count: usize) -> bool {
        count < 8 || self.bytes(count * (BYTES_PER_STEP / 8))
    }

    /// Takes one array element.
    pub(crate) fn element(&self) -> bool {
        match self.array_steps.get().checked_sub(1) {
            Some(left) => {
                self.array_steps.set(left);
                self.step()
            }
            None => self.fail(EvalError::ArraySteps { limit: self.limits.array_steps }),
        }
    }

    /// Checks the length of something about to be built, and takes its steps.
    pub(crate) fn build(&self, bytes: usize) -> bool {
        if bytes > self.limits.output_bytes {
            return self.fail(EvalError::OutputBytes { limit: self.limits.output_bytes });
        }
        self.bytes(bytes)
    }

    /// Records the first failure and uses up what is left. Always false.
    fn fail(&self, error: EvalError) -> bool {
        self.steps.set(0);
        self.array_steps.set(0);
        self.failed.borrow_mut().get_or_insert(error);
        false
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.failed.borrow().is_some()
    }

    pub(crate) fn take_error(&self) -> Option<EvalError> {
        self.failed.borrow_mut().take()
    }
}
