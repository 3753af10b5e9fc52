//! `tidegate sql`: one statement, one message, no server.

use std::io::Read as _;
use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args;
use mqtt_protocol::{QoS, matches, validate_topic_name};
use rules_sql::{
    CompileError, CompiledRule, Dialect, Evaluation, Event, EventProperties, Limits, Outcome, compile,
};
use serde_json::json;

use super::mqtt_flags::{qos, usage};
use super::output::{Output, notice};
use super::{Exit, Failure};

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

pub(super) fn run(args: &SqlArgs) -> Result<Exit, Failure> {
    validate_topic_name(&args.topic).map_err(|error| usage(&format!("topic \"{}\": {error}", args.topic)))?;
    let statement = match args.statement.strip_prefix('@') {
        Some(path) => String::from_utf8(read_file(path)?)
            .map_err(|_| Failure::new(Exit::Failed, format!("{path} is not UTF-8")))?,
        None => args.statement.clone(),
    };
    let payload = match args.payload.strip_prefix('@') {
        Some(path) => read_file(path)?,
        None => args.payload.clone().into_bytes(),
    };
    match compile(&statement, Dialect::Aws, &Limits::default()) {
        Ok(rule) => report(args, &evaluate(args, &rule, &payload)),
        Err(error) => refuse(args, &statement, &error),
    }
}

/// What came of it, `FROM` included.
enum Answer {
    OtherTopic,
    Evaluated(Outcome),
}

fn evaluate(args: &SqlArgs, rule: &CompiledRule, payload: &[u8]) -> Answer {
    if !rule.filters().iter().any(|filter| matches(filter, &args.topic)) {
        return Answer::OtherTopic;
    }
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let event = Event {
        client_id: args.client_id.as_deref(),
        username: args.username.as_deref(),
        principal: args.username.as_deref(),
        source_ip: args.source_ip,
        listener: args.listener.as_deref(),
        qos: args.qos.level(),
        retain: args.retain,
        now_ms: args.now.unwrap_or_else(|| i64::try_from(since.as_millis()).unwrap_or(i64::MAX)),
        properties: args,
        ..Event::new(&args.topic, payload)
    };
    // Good enough for rand() and newuuid() at a prompt.
    let seed = u64::from(since.subsec_nanos()) << 32 | u64::from(std::process::id());
    Answer::Evaluated(rule.evaluate(&mut Evaluation::new(&event, seed)))
}

impl EventProperties for SqlArgs {
    fn content_type(&self) -> Option<&str> {
        self.content_type.as_deref()
    }

    fn for_each_user_property(&self, visit: &mut dyn FnMut(&str, &str)) {
        self.user_property.iter().for_each(|(name, value)| visit(name, value));
    }
}

fn report(args: &SqlArgs, answer: &Answer) -> Result<Exit, Failure> {
    let out = Output::stdout();
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
            out.json(&json!({ "outcome": "output", "is_json": output.is_json(), "output": value }))?;
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
        out.json(&json!({ "outcome": outcome, "message": words }))?;
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
    Output::stdout().json(&json!({
        "outcome": "refused",
        "code": error.code,
        "message": error.message,
        "line": error.line,
        "column": error.column,
        "hint": error.hint,
    }))?;
    Ok(Exit::Refused)
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

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("NAME=VALUE is expected")?;
    Ok((name.to_owned(), value.to_owned()))
}
