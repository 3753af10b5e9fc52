//! `tidegate sql`: one statement, one message, no server.

use std::io::Read as _;
use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use mqtt_protocol::{QoS, matches};
use rules_sql::{CompileError, CompiledRule, Dialect, Evaluation, Limits, Outcome, compile};
use serde_json::{Value, json};

use super::mqtt_flags::{qos, usage};
use super::output::{Output, notice};
use super::{Exit, Failure};
use crate::rules::cases::{SampleMessage, SampleProperties};
use crate::server::random;

/// Largest payload read from a file or from standard input: the largest there is in MQTT.
const PAYLOAD_BYTES_MAX: u64 = mqtt_protocol::VARIABLE_BYTE_INTEGER_MAX as u64;

#[derive(Debug, Args)]
pub(super) struct SqlArgs {
    /// The statement, or @FILE to read it from a file.
    statement: String,
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
    /// Print one JSON object that also says why there is no output.
    #[arg(long)]
    json: bool,
}

/// Bytes that were given as base64 text.
#[derive(Debug, Clone)]
struct Bytes(Vec<u8>);

impl SqlArgs {
    /// The message, but for its payload.
    fn message(&self) -> Result<SampleMessage, String> {
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
            properties: properties.encode().map_err(|error| format!("properties: {error}"))?,
        };
        message.check_topic()?;
        Ok(message)
    }
}

pub(super) fn run(args: &SqlArgs) -> Result<Exit, Failure> {
    let mut message = args.message().map_err(|error| usage(&error))?;
    let statement = match args.statement.strip_prefix('@') {
        Some(path) => String::from_utf8(read_file(path)?)
            .map_err(|_| Failure::new(Exit::Failed, format!("{path} is not UTF-8")))?,
        None => args.statement.clone(),
    };
    message.payload = match args.payload.strip_prefix('@') {
        Some(path) => read_file(path)?,
        None => args.payload.clone().into_bytes(),
    };
    let rule = match compile(&statement, Dialect::Aws, &Limits::default()) {
        Ok(rule) => rule,
        Err(error) => return refuse(args, &statement, &error),
    };
    if !args.json {
        for warning in rule.warnings() {
            notice(warning.render(&statement).trim_end());
        }
    }
    report(args, &rule, &evaluate(args, &rule, &message))
}

/// What came of it, `FROM` included.
enum Answer {
    OtherTopic,
    Evaluated(Outcome),
}

fn evaluate(args: &SqlArgs, rule: &CompiledRule, message: &SampleMessage) -> Answer {
    if !rule.filters().iter().any(|filter| matches(filter, &message.topic)) {
        return Answer::OtherTopic;
    }
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now_ms = args.now.unwrap_or_else(|| i64::try_from(since.as_millis()).unwrap_or(i64::MAX));
    let properties = message.properties();
    let trace_id = u128::from(random()) << 64 | u128::from(random());
    let event = message.event(&properties, now_ms, trace_id);
    Answer::Evaluated(rule.evaluate(&mut Evaluation::new(&event, random())))
}

fn report(args: &SqlArgs, rule: &CompiledRule, answer: &Answer) -> Result<Exit, Failure> {
    let out = Output::stdout();
    let warnings: Vec<Value> = rule.warnings().iter().map(|warning| as_json(warning.details())).collect();
    let (exit, outcome, words) = match answer {
        Answer::Evaluated(Outcome::Output(output)) => {
            if !args.json {
                let mut bytes = output.bytes().to_vec();
                if output.is_json() {
                    bytes.push(b'\n');
                }
                out.bytes(&bytes)?;
                return Ok(Exit::Success);
            }
            let value = serde_json::from_slice(output.bytes()).ok().filter(|_| output.is_json());
            let value = value.unwrap_or_else(|| json!(String::from_utf8_lossy(output.bytes())));
            out.json(&json!({
                "outcome": "output",
                "is_json": output.is_json(),
                "output": value,
                "warnings": warnings,
            }))?;
            return Ok(Exit::Success);
        }
        Answer::OtherTopic => {
            (Exit::NoMatch, "other_topic", "no filter of FROM matches the topic".to_owned())
        }
        Answer::Evaluated(Outcome::NoMatch) => {
            (Exit::NoMatch, "no_match", "WHERE does not hold for the message".to_owned())
        }
        Answer::Evaluated(Outcome::NoOutput) => {
            (Exit::NoMatch, "no_output", "SELECT VALUE is Undefined for the message".to_owned())
        }
        Answer::Evaluated(Outcome::Failed(error)) => (Exit::Failed, "failed", error.to_string()),
    };
    if args.json {
        out.json(&json!({ "outcome": outcome, "message": words, "warnings": warnings }))?;
    } else {
        notice(&words);
    }
    Ok(exit)
}

fn refuse(args: &SqlArgs, statement: &str, error: &CompileError) -> Result<Exit, Failure> {
    if !args.json {
        let mut text = error.render(statement);
        if !text.ends_with('\n') {
            text.push('\n');
        }
        return Err(Failure::rendered(Exit::Refused, text));
    }
    let mut object = as_json(error);
    if let Value::Object(members) = &mut object {
        members.insert("outcome".to_owned(), json!("refused"));
    }
    Output::stdout().json(&object)?;
    Ok(Exit::Refused)
}

fn as_json(error: &CompileError) -> Value {
    json!({
        "code": error.code,
        "message": error.message,
        "line": error.line,
        "column": error.column,
        "hint": error.hint,
    })
}

fn read_file(path: &str) -> Result<Vec<u8>, Failure> {
    let failed = |error: std::io::Error| Failure::new(Exit::Failed, format!("{path} can't be read: {error}"));
    let mut source: Box<dyn std::io::Read> = match path {
        "-" => Box::new(std::io::stdin().lock()),
        path => Box::new(std::fs::File::open(path).map_err(failed)?),
    };
    let mut bytes = Vec::new();
    source.by_ref().take(PAYLOAD_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > PAYLOAD_BYTES_MAX {
        return Err(Failure::new(Exit::Failed, format!("{path} is larger than {PAYLOAD_BYTES_MAX} bytes")));
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
