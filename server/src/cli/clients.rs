//! `tidegate clients`: who is connected to a gateway that runs, and whose sessions it keeps.

use clap::{Args, Subcommand};
use hyper::Method;
use serde_json::Value;

use super::gateway::{GatewayArgs, pages, path, text_of};
use super::output::{Output, notice};
use super::table::in_columns;
use super::{ConfigArgs, Exit, Failure};
use crate::config::Environment;

/// Arguments of `clients`.
#[derive(Debug, Args)]
pub(super) struct ClientsArgs {
    #[command(subcommand)]
    command: ClientsCommand,
}

#[derive(Debug, Subcommand)]
enum ClientsCommand {
    /// List clients, by Client Identifier.
    List(ListArgs),
    /// Show one, with its Subscriptions.
    Show(ShowArgs),
    /// Close a client's connection; its session stays as long as it is to, its will is published.
    Disconnect(OneArgs),
    /// End a client's session: its connection, its Subscriptions and what waits for it are gone.
    EndSession(OneArgs),
}

#[derive(Debug, Args)]
struct ListArgs {
    #[command(flatten)]
    gateway: GatewayArgs,
    /// Those with this in their Client Identifier.
    #[arg(value_name = "TEXT")]
    search: Option<String>,
    /// Those that are connected.
    #[arg(long, conflicts_with = "offline")]
    connected: bool,
    /// Sessions that nobody is connected to.
    #[arg(long)]
    offline: bool,
    /// Those of this user.
    #[arg(long, value_name = "NAME")]
    username: Option<String>,
    /// Most clients to list.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    limit: u64,
    /// Print each as one JSON object a line.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct ShowArgs {
    #[command(flatten)]
    one: OneArgs,
    /// Print the client as one JSON object, its Subscriptions in `subscription_list`.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct OneArgs {
    #[command(flatten)]
    gateway: GatewayArgs,
    /// The Client Identifier.
    #[arg(value_name = "CLIENT")]
    client_id: String,
}

/// Runs the command.
pub(super) fn run(
    args: &ClientsArgs,
    outer: &ConfigArgs,
    environment: &Environment,
) -> Result<Exit, Failure> {
    match &args.command {
        ClientsCommand::List(list) => list_clients(list, outer, environment),
        ClientsCommand::Show(show) => show_client(show, outer, environment),
        ClientsCommand::Disconnect(one) => {
            let path = path(&["clients", &one.client_id, "disconnect"]);
            one.gateway.api(outer, environment)?.request(&Method::POST, &path, None)?;
            Ok(Exit::Success)
        }
        ClientsCommand::EndSession(one) => {
            let path = path(&["clients", &one.client_id]);
            one.gateway.api(outer, environment)?.request(&Method::DELETE, &path, None)?;
            Ok(Exit::Success)
        }
    }
}

fn list_clients(args: &ListArgs, outer: &ConfigArgs, environment: &Environment) -> Result<Exit, Failure> {
    let connected = match (args.connected, args.offline) {
        (true, _) => Some("true"),
        (_, true) => Some("false"),
        _ => None,
    };
    let filters = [
        ("search", args.search.as_deref()),
        ("connected", connected),
        ("username", args.username.as_deref()),
    ];
    let mut client = args.gateway.api(outer, environment)?;
    let (found, has_more) = pages(&mut client, &path(&["clients"]), &filters, "clients", args.limit)?;
    let out = Output::stdout();
    if args.json {
        found.iter().try_for_each(|client| out.json(client))?;
    } else if found.is_empty() {
        notice("no clients");
    } else {
        out.bytes(in_columns(HEADINGS, found.iter().map(row)).as_bytes())?;
    }
    if has_more {
        notice("there may be more: a greater --limit shows them");
    }
    Ok(Exit::Success)
}

const HEADINGS: [&str; 9] =
    ["CLIENT", "USER", "ADDRESS", "LISTENER", "MQTT", "SUBSCRIPTIONS", "QUEUED", "INFLIGHT", "DURABLE"];

fn row(client: &Value) -> [String; HEADINGS.len()] {
    let connection = client.get("connection").filter(|connection| connection.is_object());
    let of = |member: &str| connection.map_or_else(|| "-".to_owned(), |found| text_of(found, member));
    [
        text_of(client, "client_id"),
        of("username"),
        if connection.is_some() { of("address") } else { "offline".to_owned() },
        of("listener"),
        of("protocol"),
        text_of(client, "subscriptions"),
        text_of(client, "queued_messages"),
        text_of(client, "inflight"),
        text_of(client, "is_durable"),
    ]
}

fn show_client(args: &ShowArgs, outer: &ConfigArgs, environment: &Environment) -> Result<Exit, Failure> {
    let id = args.one.client_id.as_str();
    let mut api = args.one.gateway.api(outer, environment)?;
    let mut client = api.get(&path(&["clients", id]))?;
    let filters = [("client_id", Some(id))];
    let (subscriptions, _) = pages(&mut api, &path(&["subscriptions"]), &filters, "subscriptions", u64::MAX)?;
    let out = Output::stdout();
    if args.json {
        if let Some(client) = client.as_object_mut() {
            client.insert("subscription_list".to_owned(), subscriptions.into());
        }
        out.json(&client)?;
        return Ok(Exit::Success);
    }
    out.bytes(page(&client, &subscriptions).as_bytes())?;
    Ok(Exit::Success)
}

/// All of one client, for people.
fn page(client: &Value, subscriptions: &[Value]) -> String {
    let mut page = String::new();
    let mut line = |name: &str, text: String| page.push_str(&format!("{name:<18}{text}\n"));
    line("client", text_of(client, "client_id"));
    match client.get("connection").filter(|connection| connection.is_object()) {
        Some(connection) => {
            for (name, member) in [
                ("user", "username"),
                ("told by", "authenticator"),
                ("groups", "groups"),
                ("address", "address"),
                ("listener", "listener"),
                ("mqtt", "protocol"),
            ] {
                line(name, text_of(connection, member));
            }
        }
        None => line("address", "offline".to_owned()),
    }
    let expiry = match client.get("session_expiry_s") {
        Some(Value::Null) | None => "never".to_owned(),
        Some(seconds) => format!("{seconds} s after the connection"),
    };
    line("session ends", expiry);
    for (name, member) in [
        ("durable", "is_durable"),
        ("queued", "queued_messages"),
        ("queued bytes", "queued_bytes"),
        ("on disk alone", "queued_disk_bytes"),
        ("in flight", "inflight"),
        ("has a will", "has_will"),
    ] {
        line(name, text_of(client, member));
    }
    if !subscriptions.is_empty() {
        let rows = subscriptions.iter().map(|subscription| {
            ["filter", "qos", "no_local", "retain_as_published", "retain_handling", "identifier"]
                .map(|member| text_of(subscription, member))
        });
        let headings = ["FILTER", "QOS", "NO LOCAL", "RETAIN AS PUBLISHED", "RETAINED", "IDENTIFIER"];
        page.push('\n');
        page.push_str(&in_columns(headings, rows));
    }
    page
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_client_is_a_row_and_a_page() {
        let connected = json!({
            "client_id": "press-1", "session_expiry_s": 3600, "is_durable": true, "subscriptions": 1,
            "queued_messages": 2, "queued_bytes": 40, "queued_disk_bytes": 0, "inflight": 1, "has_will": false,
            "connection": {
                "username": "ada", "authenticator": "people", "groups": ["line", "hall"], "address": "192.0.2.7:4711",
                "listener": "plant", "protocol": "5.0", "last_heard_at_ms": 0,
            },
        });
        let offline = json!({ "client_id": "hall\u{7}", "session_expiry_s": null, "is_durable": false, "subscriptions": 0,
            "queued_messages": 0, "queued_bytes": 0, "queued_disk_bytes": 0, "inflight": 0, "has_will": false, "connection": null });
        let table = in_columns(HEADINGS, [&connected, &offline].into_iter().map(row));
        let expected = "\
CLIENT     USER  ADDRESS         LISTENER  MQTT  SUBSCRIPTIONS  QUEUED  INFLIGHT  DURABLE
press-1    ada   192.0.2.7:4711  plant     5.0   1              2       1         yes
hall\\u{7}  -     offline         -         -     0              0       0         no
";
        assert_eq!(table, expected);
        let subscription = json!({
            "client_id": "press-1", "filter": "$share/g/a/#", "qos": 1, "no_local": false,
            "retain_as_published": true, "retain_handling": "send", "identifier": null,
        });
        let page = page(&connected, &[subscription]);
        for part in [
            "told by           people\n",
            "groups            line, hall\n",
            "3600 s after",
            "$share/g/a/#  1",
        ] {
            assert!(page.contains(part), "{part}: {page}");
        }
    }
}
