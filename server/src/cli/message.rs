//! A message given on the command line, with everything that a rule can ask about.

use std::io::Read as _;
use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use mqtt_protocol::QoS;

use super::mqtt_flags::{qos, usage};
use super::{Exit, Failure};
use crate::rules::{SampleMessage, SampleProperties};
use crate::server::random;

/// Largest file read: the largest payload there is in MQTT.
const FILE_BYTES_MAX: u64 = mqtt_protocol::VARIABLE_BYTE_INTEGER_MAX as u64;

#[derive(Debug, Args)]
pub(super) struct MessageArgs {
    /// Topic of the message.
    #[arg(short = 't', long, value_name = "TOPIC")]
    topic: String,
    /// Payload of the message; @FILE reads a file, @- standard input.
    #[arg(short = 'm', long, value_name = "TEXT", default_value = "")]
    payload: String,
    /// Client Identifier of the publisher.
    #[arg(short = 'i', long, value_name = "ID")]
    client_id: Option<String>,
    /// User name of the publisher.
    #[arg(short = 'u', long, value_name = "NAME")]
    username: Option<String>,
    /// Address of the publisher.
    #[arg(long, value_name = "IP")]
    source_ip: Option<IpAddr>,
    /// Name of the listener it came through.
    #[arg(long, value_name = "NAME")]
    listener: Option<String>,
    /// Quality of service of the message.
    #[arg(short = 'q', long, value_name = "QOS", default_value = "0", value_parser = qos)]
    qos: QoS,
    /// The message is to be retained.
    #[arg(short = 'r', long)]
    retain: bool,
    /// Content type of the message.
    #[arg(long, value_name = "TYPE")]
    content_type: Option<String>,
    /// Response topic of the message.
    #[arg(long, value_name = "TOPIC")]
    response_topic: Option<String>,
    /// Correlation data of the message, as base64 text.
    #[arg(long, value_name = "BASE64", value_parser = base64)]
    correlation_data_base64: Option<Bytes>,
    /// Payload format indicator of the message: 1 for UTF-8 text, 0 for bytes.
    #[arg(long, value_name = "0|1", value_parser = clap::value_parser!(u8).range(0..=1))]
    payload_format_indicator: Option<u8>,
    /// Message expiry interval in seconds; no rule can read it.
    #[arg(long, value_name = "SECONDS")]
    message_expiry_interval: Option<u32>,
    /// User property of the message, NAME=VALUE; may be repeated.
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    user_property: Vec<(String, String)>,
    /// Milliseconds since 1970 that the functions of time see; default: now.
    #[arg(long, value_name = "MS")]
    now: Option<i64>,
}

/// Bytes that were given as base64 text.
#[derive(Debug, Clone)]
struct Bytes(Vec<u8>);

impl MessageArgs {
    /// The message that the arguments describe.
    pub(super) fn message(&self) -> Result<SampleMessage, Failure> {
        let properties = SampleProperties {
            content_type: self.content_type.clone(),
            response_topic: self.response_topic.clone(),
            correlation_data: self.correlation_data_base64.as_ref().map(|bytes| bytes.0.clone()),
            payload_format_indicator: self.payload_format_indicator.map(|indicator| indicator == 1),
            message_expiry_interval_s: self.message_expiry_interval,
            user_properties: self.user_property.clone(),
        };
        let message = SampleMessage {
            topic: self.topic.clone(),
            payload: Vec::new(),
            client_id: self.client_id.clone(),
            username: self.username.clone(),
            source_ip: self.source_ip,
            listener: self.listener.clone(),
            qos: self.qos,
            retain: self.retain,
            properties: properties.encode().map_err(|error| usage(&format!("properties: {error}")))?,
        };
        message.check_topic().map_err(|error| usage(&error))?;
        let payload = match self.payload.strip_prefix('@') {
            Some(path) => read_file(path)?,
            None => self.payload.clone().into_bytes(),
        };
        Ok(SampleMessage { payload, ..message })
    }

    /// The time that the functions of time see, in milliseconds since 1970.
    pub(super) fn now_ms(&self) -> i64 {
        self.now.unwrap_or_else(|| {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
        })
    }

    /// What `traceid()` answers: another one each time.
    pub(super) fn trace_id(&self) -> u128 {
        u128::from(random()) << 64 | u128::from(random())
    }
}

/// The text itself, or that of the file that `@FILE` names; `@-` is standard input.
pub(super) fn text_or_file(text: &str) -> Result<String, Failure> {
    match text.strip_prefix('@') {
        Some(path) => String::from_utf8(read_file(path)?)
            .map_err(|_| Failure::new(Exit::Failed, format!("{path} is not UTF-8"))),
        None => Ok(text.to_owned()),
    }
}

fn read_file(path: &str) -> Result<Vec<u8>, Failure> {
    let failed = |error: std::io::Error| Failure::new(Exit::Failed, format!("{path} can't be read: {error}"));
    let mut source: Box<dyn std::io::Read> = match path {
        "-" => Box::new(std::io::stdin().lock()),
        path => Box::new(std::fs::File::open(path).map_err(failed)?),
    };
    let mut bytes = Vec::new();
    source.by_ref().take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(Failure::new(Exit::Failed, format!("{path} is larger than {FILE_BYTES_MAX} bytes")));
    }
    Ok(bytes)
}

fn base64(text: &str) -> Result<Bytes, String> {
    STANDARD.decode(text).map(Bytes).map_err(|_| "base64 text with padding is expected".to_owned())
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("NAME=VALUE is expected")?;
    Ok((name.to_owned(), value.to_owned()))
}
