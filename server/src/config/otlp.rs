//! `[trace.otlp]`: where traces go by the OpenTelemetry Protocol.

use std::collections::BTreeMap;
use std::path::PathBuf;

use actions::Secret;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::units::{ByteSize, Period};

/// Ranges, which hold for the variables of OpenTelemetry too.
pub(super) const TIMEOUT: (Period, Period) = (Period::millis(100), Period::secs(60));
pub(super) const EXPORT_TIMEOUT: (Period, Period) = (Period::secs(1), Period::secs(600));
pub(super) const SCHEDULE_DELAY: (Period, Period) = (Period::millis(10), Period::secs(300));
pub(super) const QUEUED_SPANS: (u32, u32) = (1, 1_000_000);
pub(super) const BATCH_SPANS: (u32, u32) = (1, 10_000);

/// How spans are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OtlpProtocol {
    /// Protocol Buffers in the body of a POST.
    #[default]
    #[serde(rename = "http/protobuf")]
    HttpProtobuf,
    /// JSON in the body of a POST.
    #[serde(rename = "http/json")]
    HttpJson,
    /// Known, so that it can be refused in words that help.
    #[schemars(skip)]
    #[serde(rename = "grpc")]
    Grpc,
}

/// Where traces go, and how. Without an endpoint they stay here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Otlp {
    /// Whether traces go to the endpoint, if there is one. Default true.
    pub enabled: bool,
    /// URL that spans are posted to, as it is. Default: none, and nothing is sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// How spans are written: `http/protobuf` or `http/json`. Default `http/protobuf`.
    pub protocol: OtlpProtocol,
    /// Headers of each request. Default: none.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, Secret>,
    /// CA certificates (PEM) of the collector, instead of the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// Whether plain HTTP is fine beyond this machine. Default false.
    pub insecure_http: bool,
    /// Longest time for a request and its answer. Default 10 s, range 100 ms to 60 s.
    pub timeout: Period,
    /// Time after which a batch that the collector doesn't take is dropped. Default 30 s, range 1 s to 10 min.
    pub export_timeout: Period,
    /// Longest time for which a span waits for others. Default 5 s, range 10 ms to 5 min.
    pub schedule_delay: Period,
    /// Spans that wait at most; those beyond it are dropped and counted. Default 2,048, range 1 to 1,000,000.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_queued_spans: u32,
    /// Memory for them at most. Default 8 MiB, range 64 KiB to 1 GiB.
    pub max_queued_memory: ByteSize,
    /// Spans of a request at most. Default 512, range 1 to 10,000.
    #[schemars(range(min = 1, max = 10_000))]
    pub max_batch_spans: u32,
    /// Whether spans of rules tell how conditions came out, with values out of payloads. Default false.
    pub explanations: bool,
    /// Attribute `service.name`. Default `tidegate`.
    pub service_name: String,
    /// Attributes of this gateway beside those that it finds itself, at most 64. Default: none.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub resource_attributes: BTreeMap<String, String>,
}

/// Attributes that a configuration may add.
pub(super) const RESOURCE_ATTRIBUTES_MAX: usize = 64;

impl Default for Otlp {
    fn default() -> Self {
        Self {
            enabled: true,
            endpoint: None,
            protocol: OtlpProtocol::default(),
            headers: BTreeMap::new(),
            ca: None,
            insecure_http: false,
            timeout: Period::secs(10),
            export_timeout: Period::secs(30),
            schedule_delay: Period::secs(5),
            max_queued_spans: 2_048,
            max_queued_memory: ByteSize::mib(8),
            max_batch_spans: 512,
            explanations: false,
            service_name: "tidegate".to_owned(),
            resource_attributes: BTreeMap::new(),
        }
    }
}
