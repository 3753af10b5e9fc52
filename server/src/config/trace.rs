//! `[trace]`: which messages are traced, and how much is kept of it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::otlp::Otlp;
use super::units::ByteSize;

/// Which messages are traced.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Trace {
    /// Share of all messages that is traced. Default 0, range 0 to 1.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub ratio: f64,
    /// Client Identifiers whose messages are traced, at most 64. Default: none.
    #[schemars(length(max = 64))]
    pub clients: Vec<String>,
    /// Topic Filters of messages that are traced, at most 64. Default: none.
    #[schemars(length(max = 64))]
    pub topics: Vec<String>,
    /// Rules that messages are traced for, at most 64. Default: none.
    #[schemars(length(max = 64))]
    pub rules: Vec<String>,
    /// Whether something that fails makes a trace of its own. Default true.
    pub errors: bool,
    /// Whether a message is traced whose `traceparent` says that its publisher traces it. Default false.
    pub trust_context: bool,
    /// Most traces in memory. Default 1,000, range 10 to 100,000.
    pub max_traces: u32,
    /// Most memory for them. Default 8 MiB, range 64 KiB to 1 GiB.
    pub max_memory: ByteSize,
    /// Where traces go by the OpenTelemetry Protocol.
    pub otlp: Otlp,
}

impl Default for Trace {
    fn default() -> Self {
        Self {
            ratio: 0.0,
            clients: Vec::new(),
            topics: Vec::new(),
            rules: Vec::new(),
            errors: true,
            trust_context: false,
            max_traces: 1_000,
            max_memory: ByteSize::mib(8),
            otlp: Otlp::default(),
        }
    }
}

impl Trace {
    /// As the tracer takes it.
    pub fn settings(&self) -> trace::Settings {
        trace::Settings {
            sampling: trace::Sampling {
                ratio: self.ratio,
                clients: self.clients.clone(),
                topics: self.topics.clone(),
                rules: self.rules.clone(),
            },
            errors: self.errors,
            trust_context: self.trust_context,
            traces_max: usize::try_from(self.max_traces).unwrap_or(usize::MAX),
            bytes_max: usize::try_from(self.max_memory.as_u64()).unwrap_or(usize::MAX),
        }
    }
}
