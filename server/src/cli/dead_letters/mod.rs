//! `tidegate dead-letters`: look at what a running gateway could not deliver, send it again, drop it.
//!
//! The gateway is found by its data directory, as `serve` finds it, and asked over its administration socket. What concerns
//! many letters is asked for step by step, so it can be interrupted at any time; what ends after the command began isn't
//! meant by it.

mod text;
mod time;

use std::time::SystemTime;

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::gateway::GatewayArgs;
use super::output::{Output, notice};
use super::{ConfigArgs, Exit, Failure};
use crate::admin::{AdminClient, AdminClientError};
use crate::config::Environment;

pub(super) use self::text::time;

/// Most letters that one call lists.
const LIMIT_MAX: u64 = 10_000;
/// Letters that are asked for at a time.
const PAGE: u64 = 1_000;

#[derive(Debug, Args)]
pub(super) struct DeadLettersArgs {
    #[command(subcommand)]
    command: DeadLettersCommand,
}

#[derive(Debug, Subcommand)]
enum DeadLettersCommand {
    /// List dead letters, by action and age.
    List(ListArgs),
    /// Show all of one: the original message, the request, what became of it.
    Show(ShowArgs),
    /// Send dead letters again, under the idempotency keys that they had.
    Redrive(ChangeArgs),
    /// Drop dead letters for good.
    Drop(ChangeArgs),
}

/// Which letters are meant.
#[derive(Debug, Args)]
struct FilterArgs {
    /// Those of this rule.
    #[arg(long, value_name = "NAME")]
    rule: Option<String>,
    /// Those of actions of this name.
    #[arg(long, value_name = "NAME")]
    action: Option<String>,
    /// Those that ended for this reason, such as refused, retries_exhausted or expired.
    #[arg(long, value_name = "REASON")]
    cause: Option<String>,
    /// Those that ended then or later: a time such as 2026-03-01T08:00:00Z, a day, or how long ago: 90m, 2h, 7d.
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Those that ended before.
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
}

#[derive(Debug, Args)]
struct ListArgs {
    #[command(flatten)]
    gateway: GatewayArgs,
    #[command(flatten)]
    filter: FilterArgs,
    /// Most letters to list.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=LIMIT_MAX))]
    limit: u64,
    /// List those behind this one.
    #[arg(long, value_name = "LETTER")]
    after: Option<String>,
    /// Print each as one JSON object a line.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct ShowArgs {
    #[command(flatten)]
    gateway: GatewayArgs,
    /// The letter, as list names it: rule/action:number.
    letter: String,
    /// Print it as one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct ChangeArgs {
    #[command(flatten)]
    gateway: GatewayArgs,
    /// The letters, as list names them: rule/action:number.
    #[arg(value_name = "LETTER", conflicts_with_all = ["rule", "action", "cause", "since", "until", "all"])]
    letters: Vec<String>,
    #[command(flatten)]
    filter: FilterArgs,
    /// All of them.
    #[arg(long, conflicts_with_all = ["rule", "action", "cause", "since", "until"])]
    all: bool,
    /// Print the result as one JSON object.
    #[arg(long)]
    json: bool,
}

/// What is done to letters.
#[derive(Debug, Clone, Copy)]
enum Verb {
    Redrive,
    Drop,
}

impl Verb {
    const fn command(self) -> &'static str {
        match self {
            Self::Redrive => "dead_letters.redrive",
            Self::Drop => "dead_letters.drop",
        }
    }

    const fn done(self) -> &'static str {
        match self {
            Self::Redrive => "sent again",
            Self::Drop => "dropped",
        }
    }
}

pub(super) fn run(
    args: &DeadLettersArgs,
    outer: &ConfigArgs,
    environment: &Environment,
) -> Result<Exit, Failure> {
    let now_ms = time::since_epoch_ms(SystemTime::now());
    // What the command line has wrong is said before a gateway is looked for.
    match &args.command {
        DeadLettersCommand::List(list) => {
            let filter = list.filter.params(now_ms)?;
            list_letters(&mut list.gateway.connect(outer, environment)?, list, &filter)
        }
        DeadLettersCommand::Show(show) => {
            let mut client = show.gateway.connect(outer, environment)?;
            let letter = client.call("dead_letters.show", json!({ "name": show.letter }))?;
            let out = Output::stdout();
            if show.json {
                out.json(&letter)?
            } else {
                out.bytes(text::page(&letter).as_bytes())?
            }
            Ok(Exit::Success)
        }
        DeadLettersCommand::Redrive(change) => {
            let params = change.params(now_ms)?;
            change_letters(
                &mut change.gateway.connect(outer, environment)?,
                Verb::Redrive,
                change.json,
                params,
            )
        }
        DeadLettersCommand::Drop(change) => {
            let params = change.params(now_ms)?;
            change_letters(&mut change.gateway.connect(outer, environment)?, Verb::Drop, change.json, params)
        }
    }
}

impl FilterArgs {
    fn is_empty(&self) -> bool {
        let Self { rule, action, cause, since, until } = self;
        [rule, action, cause, since, until].iter().all(|part| part.is_none())
    }

    /// The filter as the gateway takes it.
    fn params(&self, now_ms: i64) -> Result<Map<String, Value>, Failure> {
        let mut params = Map::new();
        let texts = [("rule", &self.rule), ("action", &self.action), ("cause", &self.cause)];
        for (name, text) in texts {
            params.extend(text.as_deref().map(|text| (name.to_owned(), text.into())));
        }
        for (name, option, text) in
            [("since_ms", "--since", &self.since), ("until_ms", "--until", &self.until)]
        {
            let Some(text) = text else { continue };
            let at_ms = time::parse(text, now_ms)
                .map_err(|problem| Failure::new(Exit::Usage, format!("{option}: {problem}")))?;
            params.insert(name.to_owned(), at_ms.into());
        }
        Ok(params)
    }
}

impl ChangeArgs {
    /// One request for each letter, or one for the letters of a filter.
    fn params(&self, now_ms: i64) -> Result<Vec<Map<String, Value>>, Failure> {
        let object = |name: &str, value: Value| Map::from_iter([(name.to_owned(), value)]);
        if !self.letters.is_empty() {
            return Ok(self.letters.iter().map(|letter| object("name", letter.as_str().into())).collect());
        }
        if !self.all && self.filter.is_empty() {
            return Err(Failure::new(
                Exit::Usage,
                "name letters, say which are meant (--rule, --action, --cause, --since, --until), or --all",
            ));
        }
        let mut filter = self.filter.params(now_ms)?;
        // A letter that is sent again and fails at once comes back as another one, which isn't meant.
        let until_ms =
            filter.get("until_ms").and_then(Value::as_i64).map_or(now_ms, |until| until.min(now_ms));
        filter.insert("until_ms".to_owned(), until_ms.into());
        Ok(vec![object("filter", filter.into())])
    }
}

fn list_letters(
    client: &mut AdminClient,
    args: &ListArgs,
    filter: &Map<String, Value>,
) -> Result<Exit, Failure> {
    let out = Output::stdout();
    let mut after: Value = args.after.as_deref().into();
    let mut letters = Vec::new();
    let mut count = 0;
    while count < args.limit {
        let limit = PAGE.min(args.limit - count);
        let mut page =
            client.call("dead_letters.list", json!({ "filter": filter, "after": after, "limit": limit }))?;
        after = page.get_mut("next").map(Value::take).unwrap_or_default();
        let found = match page.get_mut("letters").map(Value::take) {
            Some(Value::Array(found)) => found,
            _ => Vec::new(),
        };
        count += found.len() as u64;
        if args.json {
            found.iter().try_for_each(|letter| out.json(letter))?;
        } else {
            letters.extend(found);
        }
        if after.is_null() {
            break;
        }
    }
    if !args.json && !letters.is_empty() {
        out.bytes(text::table(&letters).as_bytes())?;
    }
    if count == 0 {
        notice("no dead letters");
    }
    if let Some(after) = after.as_str() {
        notice(&format!("there may be more: --after {after}, or a greater --limit"));
    }
    Ok(Exit::Success)
}

fn change_letters(
    client: &mut AdminClient,
    verb: Verb,
    as_json: bool,
    params: Vec<Map<String, Value>>,
) -> Result<Exit, Failure> {
    let mut done = 0;
    let mut refused = Vec::new();
    let mut broken = None;
    'all: for mut params in params {
        loop {
            let mut step = match client.call(verb.command(), Value::Object(params.clone())) {
                Ok(step) => step,
                // A letter that was named concerns the others in nothing.
                Err(AdminClientError::Refused { message, .. }) if params.contains_key("name") => {
                    refused.push(json!({ "name": params.get("name"), "message": message }));
                    break;
                }
                Err(error) => {
                    broken = Some(error);
                    break 'all;
                }
            };
            done += step.get("done").and_then(Value::as_u64).unwrap_or_default();
            if let Some(Value::Array(more)) = step.get_mut("refused").map(Value::take) {
                refused.extend(more);
            }
            match step.get_mut("next").map(Value::take) {
                Some(next @ Value::String(_)) => params.insert("after".to_owned(), next),
                _ => break,
            };
        }
    }
    let out = Output::stdout();
    if as_json {
        out.json(&json!({ "done": done, "refused": refused }))?;
    } else {
        let letters = if done == 1 { "dead letter" } else { "dead letters" };
        out.line(&format!("{done} {letters} {}", verb.done()))?;
        refused.iter().for_each(|letter| notice(&text::refusal(letter)));
    }
    match broken {
        Some(error) => Err(error.into()),
        None if refused.is_empty() => Ok(Exit::Success),
        None => Ok(Exit::Denied),
    }
}
