//! `tidegate users` and `tidegate tokens`: who may administer a gateway that runs.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use hyper::Method;
use serde_json::{Value, json};

use super::gateway::{GatewayArgs, path, text_of};
use super::output::{Output, notice};
use super::password::password;
use super::table::in_columns;
use super::{ConfigArgs, Exit, Failure};
use crate::config::Environment;

/// Arguments of `users`.
#[derive(Debug, Args)]
pub(super) struct UsersArgs {
    #[command(subcommand)]
    command: UsersCommand,
}

#[derive(Debug, Subcommand)]
enum UsersCommand {
    /// List those who may sign in.
    List(ListArgs),
    /// Make a user; the password is asked for.
    Add(AddArgs),
    /// Give a user another role or another password; its sessions end.
    Change(ChangeArgs),
    /// Remove a user; its sessions end.
    Remove(RemoveArgs),
}

/// Arguments of `tokens`.
#[derive(Debug, Args)]
pub(super) struct TokensArgs {
    #[command(subcommand)]
    command: TokensCommand,
}

#[derive(Debug, Subcommand)]
enum TokensCommand {
    /// List tokens, without their secrets.
    List(ListArgs),
    /// Make a token and print its secret, this once.
    Add(AddTokenArgs),
    /// Remove a token.
    Remove(RemoveArgs),
}

#[derive(Debug, Args)]
struct ListArgs {
    #[command(flatten)]
    gateway: GatewayArgs,
    /// Print each as one JSON object a line.
    #[arg(long)]
    json: bool,
}

/// What somebody may do.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum RoleArg {
    /// Look.
    Viewer,
    /// Run the gateway: clients, messages, dead letters, rules.
    Operator,
    /// Everything.
    Admin,
}

impl RoleArg {
    const fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

#[derive(Debug, Args)]
struct AddArgs {
    #[command(flatten)]
    gateway: GatewayArgs,
    name: String,
    #[arg(long, value_enum)]
    role: RoleArg,
    /// Read the password from this file, `-` for standard input, instead of asking for it.
    #[arg(long, value_name = "PATH")]
    password_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct ChangeArgs {
    #[command(flatten)]
    gateway: GatewayArgs,
    name: String,
    /// The new role.
    #[arg(long, value_enum, required_unless_present_any = ["password", "password_file"])]
    role: Option<RoleArg>,
    /// Ask for a new password.
    #[arg(long)]
    password: bool,
    /// Read the new password from this file, `-` for standard input.
    #[arg(long, value_name = "PATH", conflicts_with = "password")]
    password_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct RemoveArgs {
    #[command(flatten)]
    gateway: GatewayArgs,
    name: String,
}

#[derive(Debug, Args)]
struct AddTokenArgs {
    #[command(flatten)]
    gateway: GatewayArgs,
    name: String,
    #[arg(long, value_enum)]
    role: RoleArg,
    /// What it is held to, such as clients:read; may be repeated. Without it: whatever its role may.
    #[arg(long = "scope", value_name = "SCOPE")]
    scopes: Vec<String>,
    /// Days until it ends. Without it: never.
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=36_500))]
    days: Option<u32>,
}

/// Runs `users`.
pub(super) fn run(args: &UsersArgs, outer: &ConfigArgs, environment: &Environment) -> Result<Exit, Failure> {
    match &args.command {
        UsersCommand::List(list) => {
            let answer = list.gateway.api(outer, environment)?.get(&path(&["users"]))?;
            let headings = ["USER", "ROLE", "OWNER"];
            show(list, &answer, "users", headings, ["name", "role", "owner"])?;
        }
        UsersCommand::Add(add) => {
            let mut client = add.gateway.api(outer, environment)?;
            let password = text(password(add.password_file.as_deref(), false)?)?;
            let body = json!({ "name": add.name, "role": add.role.name(), "password": password });
            client.post(&path(&["users"]), &body)?;
        }
        UsersCommand::Change(change) => {
            let mut client = change.gateway.api(outer, environment)?;
            let mut body = serde_json::Map::new();
            body.extend(change.role.map(|role| ("role".to_owned(), role.name().into())));
            if change.password || change.password_file.is_some() {
                let password = text(password(change.password_file.as_deref(), false)?)?;
                body.insert("password".to_owned(), password.into());
            }
            let path = path(&["users", &change.name]);
            client.request(&Method::PATCH, &path, Some(&Value::Object(body)))?;
        }
        UsersCommand::Remove(remove) => {
            let path = path(&["users", &remove.name]);
            remove.gateway.api(outer, environment)?.request(&Method::DELETE, &path, None)?;
        }
    }
    Ok(Exit::Success)
}

/// Runs `tokens`.
pub(super) fn run_tokens(
    args: &TokensArgs,
    outer: &ConfigArgs,
    environment: &Environment,
) -> Result<Exit, Failure> {
    match &args.command {
        TokensCommand::List(list) => {
            let answer = list.gateway.api(outer, environment)?.get(&path(&["tokens"]))?;
            let headings = ["TOKEN", "ROLE", "SCOPES", "OWNER", "MADE BY"];
            show(list, &answer, "tokens", headings, ["name", "role", "scopes", "owner", "created_by"])?;
        }
        TokensCommand::Add(add) => {
            let scopes = Some(&add.scopes).filter(|scopes| !scopes.is_empty());
            let expires_in_s = add.days.map(|days| days * 24 * 3600);
            let body = json!({
                "name": add.name, "role": add.role.name(), "scopes": scopes, "expires_in_s": expires_in_s,
            });
            let answer = add.gateway.api(outer, environment)?.post(&path(&["tokens"]), &body)?;
            let token = answer.get("token").and_then(Value::as_str);
            let token =
                token.ok_or_else(|| Failure::new(Exit::Failed, "the gateway's answer holds no token"))?;
            Output::stdout().line(token)?;
        }
        TokensCommand::Remove(remove) => {
            let path = path(&["tokens", &remove.name]);
            remove.gateway.api(outer, environment)?.request(&Method::DELETE, &path, None)?;
        }
    }
    Ok(Exit::Success)
}

fn show<const N: usize>(
    args: &ListArgs,
    answer: &Value,
    member: &str,
    headings: [&str; N],
    members: [&str; N],
) -> Result<(), Failure> {
    let found = answer.get(member).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let out = Output::stdout();
    if args.json {
        return found.iter().try_for_each(|entry| out.json(entry));
    }
    if found.is_empty() {
        notice(&format!("no {member}"));
        return Ok(());
    }
    let rows = found.iter().map(|entry| members.map(|name| text_of(entry, name)));
    out.bytes(in_columns(headings, rows).as_bytes())
}

fn text(password: Vec<u8>) -> Result<String, Failure> {
    String::from_utf8(password)
        .map_err(|_| Failure::new(Exit::Refused, "the password is refused: it is no UTF-8"))
}
