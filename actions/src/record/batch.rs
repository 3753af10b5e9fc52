//! How many records go out together.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::delivery::BatchPolicy;
use crate::units;

/// Several records in one call of a sink, each with a fate of its own. `batch = { … }`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RecordBatchConfig {
    /// Most records; 1 turns batches off. Default 500; 1 to 10,000.
    #[schemars(range(min = 1, max = 10_000))]
    pub max_items: usize,
    /// Most bytes of them; a single larger record goes alone. Default `"1MiB"`; `"1KiB"` to `"16MiB"`.
    #[schemars(with = "units::Size")]
    #[serde(with = "units::size")]
    pub max_bytes: u64,
    /// How long the first waits for company. Default `"0s"`: a batch is what waits anyway; at most `"1m"`.
    #[schemars(with = "units::Period")]
    #[serde(with = "units::duration")]
    pub linger: Duration,
}

impl Default for RecordBatchConfig {
    fn default() -> Self {
        Self { max_items: 500, max_bytes: 1 << 20, linger: Duration::ZERO }
    }
}

impl RecordBatchConfig {
    pub(crate) fn check(&self) -> Result<(), (&'static str, String)> {
        crate::sinks::check_batch(self.max_items, self.max_bytes, self.linger)
    }

    pub(crate) fn policy(&self) -> BatchPolicy {
        BatchPolicy {
            max_items: self.max_items,
            max_bytes: usize::try_from(self.max_bytes).unwrap_or(usize::MAX),
            linger: self.linger,
            is_whole: false,
        }
    }
}
