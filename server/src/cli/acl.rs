//! `tidegate acl`: what access rules say, and rules from Mosquitto's files. No server is needed.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use access::acl::{Request, Rules, Subject, Verdict, from_mosquitto};
use clap::{Args, Subcommand};
use mqtt_protocol::QoS;
use mqtt_protocol::topic::{ParsedFilter, parse_filter, validate_topic_name};
use serde_json::json;

use super::exit::chain;
use super::output::{Output, notice};
use super::{ConfigArgs, Exit, Failure};
use crate::access::load_rules;
use crate::config::{self, Environment};

#[derive(Debug, Args)]
pub(super) struct AclArgs {
    #[command(subcommand)]
    command: AclCommand,
}

#[derive(Debug, Subcommand)]
enum AclCommand {
    /// Say what the configuration's access rules decide, and which rule it is.
    Explain(ExplainArgs),
    /// Print rules that do what a file of another broker says.
    Import(ImportArgs),
}

#[derive(Debug, Args)]
struct ExplainArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Client Identifier.
    #[arg(long, value_name = "ID")]
    client: Option<String>,
    /// User name.
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Group that the client belongs to; may be repeated.
    #[arg(long, value_name = "NAME")]
    group: Vec<String>,
    /// Address that it comes from.
    #[arg(long, value_name = "IP")]
    address: Option<IpAddr>,
    /// Listener that it comes by.
    #[arg(long, value_name = "NAME")]
    listener: Option<String>,
    #[command(flatten)]
    what: What,
    /// Quality of service of the publish or subscription.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=2))]
    qos: u8,
    /// The publish is to be retained.
    #[arg(long, requires = "publish")]
    retain: bool,
    /// Print the answer as one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct What {
    /// May it publish to this topic?
    #[arg(long, value_name = "TOPIC")]
    publish: Option<String>,
    /// May it subscribe to this filter?
    #[arg(long, value_name = "FILTER")]
    subscribe: Option<String>,
    /// May it have a message of this topic, through a subscription that it has?
    #[arg(long, value_name = "TOPIC")]
    receive: Option<String>,
}

#[derive(Debug, Args)]
struct ImportArgs {
    /// Whose file it is.
    #[arg(value_name = "BROKER", value_parser = ["mosquitto"])]
    from: String,
    /// The file: Mosquitto's acl_file.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

pub(super) fn run(args: &AclArgs, outer: &ConfigArgs, environment: &Environment) -> Result<Exit, Failure> {
    match &args.command {
        AclCommand::Explain(args) => explain(args, outer, environment),
        AclCommand::Import(args) => import(args),
    }
}

fn explain(args: &ExplainArgs, outer: &ConfigArgs, environment: &Environment) -> Result<Exit, Failure> {
    let path = args.config.path(environment).or_else(|| outer.path(environment));
    let loaded = config::load(path.as_deref(), environment)
        .map_err(|errors| Failure::rendered(Exit::Refused, errors.render()))?;
    let rules = load_rules(&loaded.config.acl).map_err(|error| Failure::new(Exit::Refused, chain(&error)))?;
    let groups: Vec<Arc<str>> = args.group.iter().map(|group| group.as_str().into()).collect();
    let subject = Subject {
        client_id: args.client.as_deref(),
        username: args.user.as_deref(),
        groups: &groups,
        address: args.address,
        listener: args.listener.as_deref(),
    };
    let (answer, by) = match request(args)? {
        Request::Publish { topic, .. } if topic.starts_with('$') => {
            (DENY, "topics that begin with $ are the broker's own".to_owned())
        }
        request => answer(rules.as_deref(), &subject, request),
    };
    let out = Output::stdout();
    if args.json {
        out.json(&json!({ "decision": answer, "by": by }))?;
    } else {
        out.line(&format!("{answer}: {by}"))?;
    }
    Ok(if answer == DENY { Exit::Denied } else { Exit::Success })
}

const DENY: &str = "deny";

fn answer(rules: Option<&Rules>, subject: &Subject<'_>, request: Request<'_>) -> (&'static str, String) {
    let Some(rules) = rules else {
        return ("allow", "there are no access rules, so everything is allowed".to_owned());
    };
    match rules.decide(subject, request) {
        Verdict::Allow { by, in_part: false } => ("allow", by.to_string()),
        Verdict::Allow { by, in_part: true } => (
            "allow in part",
            format!("{by} (an earlier rule denies some of its topics: each message is asked about)"),
        ),
        Verdict::Deny { by } => (DENY, by.to_string()),
        Verdict::Unmatched { .. } => (DENY, "no rule allows it".to_owned()),
    }
}

fn request(args: &ExplainArgs) -> Result<Request<'_>, Failure> {
    let qos = QoS::try_from(args.qos).unwrap_or(QoS::AtMostOnce);
    let usage = |text: String| Failure::new(Exit::Usage, text);
    let name = |topic: &str| {
        validate_topic_name(topic).map_err(|error| usage(format!("the topic \"{topic}\" {error}")))
    };
    if let Some(topic) = &args.what.publish {
        name(topic)?;
        return Ok(Request::Publish { topic, qos, retain: args.retain });
    }
    if let Some(topic) = &args.what.receive {
        name(topic)?;
        return Ok(Request::Receive { topic });
    }
    let filter = args.what.subscribe.as_deref().unwrap_or_default();
    let filter = match parse_filter(filter) {
        Ok(ParsedFilter::Plain(filter)) => filter,
        // The rules speak of the filter inside.
        Ok(ParsedFilter::Shared(shared)) => shared.filter,
        Err(error) => return Err(usage(format!("the filter \"{filter}\" {error}"))),
    };
    Ok(Request::Subscribe { filter, qos })
}

fn import(args: &ImportArgs) -> Result<Exit, Failure> {
    let name = args.file.display().to_string();
    let text = std::fs::read_to_string(&args.file)
        .map_err(|error| Failure::new(Exit::Failed, format!("{name} can't be read: {error}")))?;
    let imported = from_mosquitto(&text, &name).map_err(|faults| {
        let lines = faults.iter().map(|fault| format!("error: {fault}\n")).collect::<String>();
        Failure::rendered(Exit::Refused, lines)
    })?;
    for warning in &imported.warnings {
        notice(&format!("warning: {warning}"));
    }
    Output::stdout().bytes(imported.text.as_bytes())?;
    Ok(Exit::Success)
}
