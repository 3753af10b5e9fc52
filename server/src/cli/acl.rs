//! `tidegate acl`: what access rules say, those of a file or those of a gateway that runs, and rules from Mosquitto's files.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use ::access::acl::{Subject, from_mosquitto};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::exit::chain;
use super::gateway::{GatewayArgs, path};
use super::output::{Output, notice};
use super::{ConfigArgs, Exit, Failure};
use crate::access::{self, Explained, Ruling, Wanted, load_rules};
use crate::config::Environment;

#[derive(Debug, Args)]
pub(super) struct AclArgs {
    #[command(subcommand)]
    command: AclCommand,
}

#[derive(Debug, Subcommand)]
enum AclCommand {
    /// Say what the configuration's access rules decide, or those of a running gateway, and which rule it is.
    Explain(Box<ExplainArgs>),
    /// Print rules that do what a file of another broker says.
    Import(ImportArgs),
}

#[derive(Debug, Args)]
struct ExplainArgs {
    #[command(flatten)]
    gateway: GatewayArgs,
    /// Ask the gateway that runs, which knows its clients; naming its data directory does so too.
    #[arg(long)]
    running: bool,
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
    let wanted = Wanted {
        publish: args.what.publish.as_deref(),
        subscribe: args.what.subscribe.as_deref(),
        receive: args.what.receive.as_deref(),
        qos: args.qos,
        retain: args.retain,
    };
    let request = wanted.request().map_err(|error| Failure::new(Exit::Usage, error))?;
    let answer = if args.running || args.gateway.names_data_dir() {
        let mut api = args.gateway.api(outer, environment)?;
        api.post(&path(&["acl", "explain"]), &question(args))?
    } else {
        let loaded = args.gateway.config().clone().or(outer).load(environment)?;
        let rules =
            load_rules(&loaded.config.acl).map_err(|error| Failure::new(Exit::Refused, chain(&error)))?;
        let groups: Vec<Arc<str>> = args.group.iter().map(|group| group.as_str().into()).collect();
        let subject = Subject {
            client_id: args.client.as_deref(),
            username: args.user.as_deref(),
            groups: &groups,
            address: args.address,
            listener: args.listener.as_deref(),
        };
        let explained = access::explain(rules.as_deref(), &subject, request);
        json!({ "decision": explained.ruling, "by": explained.by })
    };
    let explained = Explained::from_answer(&answer)
        .ok_or_else(|| Failure::new(Exit::Unreachable, "what answers is no gateway of this version"))?;
    let out = Output::stdout();
    if args.json {
        out.json(&answer)?;
    } else {
        for warning in answer.get("warnings").and_then(Value::as_array).into_iter().flatten() {
            notice(&format!("warning: {}", warning.as_str().unwrap_or_default()));
        }
        out.line(&explained.line())?;
    }
    Ok(if explained.ruling == Ruling::Deny { Exit::Denied } else { Exit::Success })
}

/// What the gateway is asked. What isn't said isn't there: a Client Identifier alone means the client that is connected.
fn question(args: &ExplainArgs) -> Value {
    let ExplainArgs { client, user, group, address, listener, what, qos, retain, .. } = args;
    let members = [
        ("client_id", client.as_ref().map(|client| json!(client))),
        ("username", user.as_ref().map(|user| json!(user))),
        ("groups", (!group.is_empty()).then(|| json!(group))),
        ("address", address.map(|address| json!(address))),
        ("listener", listener.as_ref().map(|listener| json!(listener))),
        ("publish", what.publish.as_ref().map(|topic| json!(topic))),
        ("subscribe", what.subscribe.as_ref().map(|filter| json!(filter))),
        ("receive", what.receive.as_ref().map(|topic| json!(topic))),
        ("qos", Some(json!(qos))),
        ("retain", Some(json!(retain))),
    ];
    members.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
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
