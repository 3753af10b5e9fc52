//! `tidegate dead-letters`: look at what a running gateway could not deliver, send it again, drop it.
//!
//! The gateway is found by its data directory, as `serve` finds it, and asked by HTTP over its administration socket. What
//! concerns many letters is asked for step by step, so it can be interrupted at any time; what ends after the command began
//! isn't meant by it.

mod text;
mod time;

use std::time::SystemTime;

use actions::dead_letters::{LetterName, LetterNameError};
use clap::{Args, Subcommand};
use hyper::Method;
use serde_json::{Map, Value, json};

use super::gateway::{GatewayArgs, path, query};
use super::output::{Output, notice};
use super::{ConfigArgs, Exit, Failure};
use crate::admin::{AdminClientError, ApiClient};
use crate::api::{cursor, place};
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

/// Which letters a change is asked for.
enum Meant {
    /// The one of this name.
    Named(String),
    /// Those of a filter.
    Of(Map<String, Value>),
}

impl Verb {
    const fn name(self) -> &'static str {
        match self {
            Self::Redrive => "redrive",
            Self::Drop => "drop",
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
            list_letters(&mut list.gateway.api(outer, environment)?, list, &filter)
        }
        DeadLettersCommand::Show(show) => {
            let mut client = show.gateway.api(outer, environment)?;
            let letter = show_letter(&mut client, &show.letter)?;
            let out = Output::stdout();
            if show.json {
                out.json(&letter)?
            } else {
                out.bytes(text::page(&letter).as_bytes())?
            }
            Ok(Exit::Success)
        }
        DeadLettersCommand::Redrive(change) => {
            let meant = change.meant(now_ms)?;
            change_letters(&mut change.gateway.api(outer, environment)?, Verb::Redrive, change.json, meant)
        }
        DeadLettersCommand::Drop(change) => {
            let meant = change.meant(now_ms)?;
            change_letters(&mut change.gateway.api(outer, environment)?, Verb::Drop, change.json, meant)
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
    /// Each letter that is named, or the letters of one filter.
    fn meant(&self, now_ms: i64) -> Result<Vec<Meant>, Failure> {
        if !self.letters.is_empty() {
            return Ok(self.letters.iter().cloned().map(Meant::Named).collect());
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
        Ok(vec![Meant::Of(filter)])
    }
}

fn list_letters(
    client: &mut ApiClient,
    args: &ListArgs,
    filter: &Map<String, Value>,
) -> Result<Exit, Failure> {
    let out = Output::stdout();
    let filter: Vec<(&str, String)> = filter
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str().map_or_else(|| value.to_string(), str::to_owned)))
        .collect();
    // A cursor of this list is the name of a letter in other clothes; people go on behind a letter.
    let mut after = args.after.as_ref().map(cursor);
    let mut letters = Vec::new();
    let mut count = 0;
    while count < args.limit {
        let limit = PAGE.min(args.limit - count).to_string();
        let mut pairs: Vec<_> = filter.iter().map(|(name, value)| (*name, Some(value.as_str()))).collect();
        pairs.extend([("limit", Some(limit.as_str())), ("after", after.as_deref())]);
        let mut page = client.get(&format!("{}{}", path(&["dead-letters"]), query(&pairs)))?;
        after = page.get("next").and_then(Value::as_str).map(str::to_owned);
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
        if after.is_none() {
            break;
        }
    }
    if !args.json && !letters.is_empty() {
        out.bytes(text::table(&letters).as_bytes())?;
    }
    if count == 0 {
        notice("no dead letters");
    }
    if let Some(after) = place::<String>(after.as_deref()).ok().flatten() {
        notice(&format!("there may be more: --after {after}, or a greater --limit"));
    }
    Ok(Exit::Success)
}

/// A letter with its message and its request beside its other members.
fn show_letter(client: &mut ApiClient, letter: &str) -> Result<Value, AdminClientError> {
    let mut answer = client.get(&path_of(letter, None)?)?;
    let mut letter = answer.get_mut("letter").map(Value::take).unwrap_or_default();
    if let Value::Object(members) = &mut letter {
        for member in ["message", "request"] {
            let value = answer.get_mut(member).map(Value::take).unwrap_or_default();
            members.insert(member.to_owned(), value);
        }
    }
    Ok(letter)
}

/// Where a letter is, or what is done to it. A name that is none is refused in the gateway's place, which knows no path for it.
fn path_of(letter: &str, verb: Option<&str>) -> Result<String, AdminClientError> {
    let name: LetterName = letter.parse().map_err(|error: LetterNameError| AdminClientError::Refused {
        code: "invalid".to_owned(),
        message: error.to_string(),
        errors: Vec::new(),
    })?;
    let position = name.position().to_string();
    let mut parts = vec!["dead-letters", name.rule(), name.action(), &position];
    parts.extend(verb);
    Ok(path(&parts))
}

fn change_letters(
    client: &mut ApiClient,
    verb: Verb,
    as_json: bool,
    meant: Vec<Meant>,
) -> Result<Exit, Failure> {
    let mut changed = ChangedLetters::default();
    let mut broken = None;
    for meant in meant {
        let result = match meant {
            Meant::Named(letter) => changed.one(client, verb, &letter),
            Meant::Of(filter) => changed.many(client, verb, &filter),
        };
        if let Err(error) = result {
            broken = Some(error);
            break;
        }
    }
    let ChangedLetters { done, refused } = changed;
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

/// What became of letters so far.
#[derive(Default)]
struct ChangedLetters {
    done: u64,
    /// Each with its name and the reason.
    refused: Vec<Value>,
}

impl ChangedLetters {
    /// Changes a letter that was named. That it is refused concerns the others in nothing.
    fn one(&mut self, client: &mut ApiClient, verb: Verb, letter: &str) -> Result<(), AdminClientError> {
        let answer = match verb {
            Verb::Redrive => {
                path_of(letter, Some(verb.name())).and_then(|path| client.post(&path, &Value::Null))
            }
            Verb::Drop => path_of(letter, None).and_then(|path| client.request(&Method::DELETE, &path, None)),
        };
        match answer {
            Ok(mut step) => self.add(&mut step),
            Err(AdminClientError::Refused { message, .. }) => {
                self.refused.push(json!({ "name": letter, "message": message }));
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Changes the letters of a filter, step by step.
    fn many(
        &mut self,
        client: &mut ApiClient,
        verb: Verb,
        filter: &Map<String, Value>,
    ) -> Result<(), AdminClientError> {
        let path = path(&["dead-letters", verb.name()]);
        let mut body = json!({ "filter": filter });
        loop {
            let mut step = client.post(&path, &body)?;
            self.add(&mut step);
            match (step.get_mut("next").map(Value::take), &mut body) {
                (Some(next @ Value::String(_)), Value::Object(body)) => {
                    body.insert("after".to_owned(), next);
                }
                _ => return Ok(()),
            }
        }
    }

    fn add(&mut self, step: &mut Value) {
        self.done += step.get("done").and_then(Value::as_u64).unwrap_or_default();
        if let Some(Value::Array(more)) = step.get_mut("refused").map(Value::take) {
            self.refused.extend(more);
        }
    }
}
