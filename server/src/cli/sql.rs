//! `tidegate sql`: one statement, one message, no server.

use clap::Args;
use mqtt_protocol::matches;
use rules_sql::{CompileError, CompiledRule, Dialect, Evaluation, Limits, Outcome, compile};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};

use super::check::warnings_denied;
use super::message::{MessageArgs, text_or_file};
use super::output::{Output, notice};
use super::{Exit, Failure};
use crate::rules::SampleMessage;
use crate::server::random;

#[derive(Debug, Args)]
pub(super) struct SqlArgs {
    /// The statement, or @FILE to read it from a file.
    statement: String,
    #[command(flatten)]
    message: MessageArgs,
    /// Print one JSON object that also says why there is no output.
    #[arg(long)]
    json: bool,
    /// Refuse a statement that there are warnings about.
    #[arg(long)]
    deny_warnings: bool,
}

pub(super) fn run(args: &SqlArgs) -> Result<Exit, Failure> {
    let message = args.message.message()?;
    let statement = text_or_file(&args.statement)?;
    let rule = match compile(&statement, Dialect::Aws, &Limits::default()) {
        Ok(rule) => rule,
        Err(error) => return refuse(args, &statement, &error),
    };
    if !args.json {
        for warning in rule.warnings() {
            notice(warning.render(&statement).trim_end());
        }
    }
    if args.deny_warnings && !rule.warnings().is_empty() {
        return deny(args, &rule);
    }
    report(args, &rule, &evaluate(args, &rule, &message))
}

/// Refuses a statement for what it is warned of, which has been told already where people read.
fn deny(args: &SqlArgs, rule: &CompiledRule) -> Result<Exit, Failure> {
    let words = warnings_denied(rule.warnings().len());
    if !args.json {
        return Err(Failure::new(Exit::Refused, words));
    }
    Output::stdout().json(&json!({ "outcome": "refused", "message": words, "warnings": warnings(rule) }))?;
    Ok(Exit::Refused)
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
    let properties = message.properties();
    let event = message.event(&properties, args.message.now_ms(), args.message.trace_id());
    Answer::Evaluated(rule.evaluate(&mut Evaluation::new(&event, random())))
}

fn report(args: &SqlArgs, rule: &CompiledRule, answer: &Answer) -> Result<Exit, Failure> {
    let out = Output::stdout();
    let warnings = warnings(rule);
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
            let text = std::str::from_utf8(output.bytes()).ok().filter(|_| output.is_json());
            let json = text.and_then(|text| RawValue::from_string(text.to_owned()).ok());
            let answer = OutputAnswer {
                outcome: "output",
                is_json: output.is_json(),
                output: match json {
                    Some(json) => json,
                    None => to_raw_value(&String::from_utf8_lossy(output.bytes())).map_err(unwritable)?,
                },
                warnings,
            };
            out.line(&serde_json::to_string(&answer).map_err(unwritable)?)?;
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

/// The answer of `--json` when there is an output; its text is kept, so that numbers keep theirs.
#[derive(Serialize)]
struct OutputAnswer {
    outcome: &'static str,
    is_json: bool,
    output: Box<RawValue>,
    warnings: Vec<Value>,
}

fn unwritable(error: serde_json::Error) -> Failure {
    Failure::new(Exit::Failed, format!("the answer can't be written: {error}"))
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

fn warnings(rule: &CompiledRule) -> Vec<Value> {
    rule.warnings().iter().map(|warning| as_json(warning.details())).collect()
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
