//! `tidegate rules explain`: one message, and why each rule does what it does with it. Nothing is sent.

use std::io::IsTerminal as _;
use std::path::PathBuf;

use clap::Args;
use rules_sql::{Dialect, Evaluation, Limits, compile};

use crate::cli::message::MessageArgs;
use crate::cli::output::{Output, notice};
use crate::cli::{ConfigArgs, Exit, Failure, serve, without_control_characters};
use crate::config::{self, Environment, suggest};
use crate::rules::cases::Shelf;
use crate::rules::{LoadedRule, RuleExplanation, explanation_line, explanation_page};
use crate::server;

#[derive(Debug, Args)]
pub(super) struct ExplainArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Name of the rule; without it, every rule is explained.
    #[arg(value_name = "RULE")]
    rule: Option<String>,
    /// Folder or file with the rules, instead of the configuration's; may be repeated.
    #[arg(long, value_name = "DIR|FILE")]
    rules: Vec<PathBuf>,
    /// A statement to explain, without any action, instead of rules; @FILE reads a file.
    #[arg(long, value_name = "SQL", conflicts_with_all = ["rule", "rules", "config"])]
    sql: Option<String>,
    #[command(flatten)]
    message: MessageArgs,
    /// Print one JSON object a line for each rule.
    #[arg(long)]
    json: bool,
}

impl ExplainArgs {
    /// The arguments, with what was said before the subcommand where nothing is said after it.
    pub(super) fn or(self, outer: &ConfigArgs) -> Self {
        if self.sql.is_some() {
            return self;
        }
        Self { config: self.config.or(outer), ..self }
    }
}

/// Values come from payloads: a terminal shows their control characters instead of obeying them.
fn shown(page: String) -> String {
    if !std::io::stdout().is_terminal() {
        return page;
    }
    let lines = page.lines().map(|line| without_control_characters(line.as_bytes()));
    lines.map(|line| String::from_utf8_lossy(&line).into_owned() + "\n").collect()
}

pub(super) fn run(args: &ExplainArgs, environment: &Environment) -> Result<Exit, Failure> {
    let message = args.message.message()?;
    let properties = message.properties();
    let event = message.event(&properties, args.message.now_ms(), args.message.trace_id());
    let seed = server::random();
    let print = |explanation: &RuleExplanation<'_>| {
        let out = Output::stdout();
        if args.json {
            let line = explanation_line(explanation).map_err(|error| {
                Failure::new(Exit::Failed, format!("the explanation can't be written: {error}"))
            })?;
            out.line(&line)
        } else {
            out.bytes(shown(explanation_page(explanation)).as_bytes())
        }
    };
    if let Some(sql) = &args.sql {
        let sql = crate::cli::message::text_or_file(sql)?;
        let rule = compile(&sql, Dialect::Aws, &Limits::default())
            .map_err(|error| Failure::rendered(Exit::Refused, error.render(&sql)))?;
        let mut evaluation = Evaluation::new(&event, seed);
        print(&RuleExplanation::of_statement(&rule, &mut evaluation))?;
        return Ok(Exit::Success);
    }
    let shelf = shelf(args, environment)?;
    for fault in shelf.faults() {
        notice(serve::render_finding("error", fault).trim_end());
    }
    if !shelf.faults().is_empty() {
        return Err(Failure::silent(Exit::Refused));
    }
    let chosen: Vec<&LoadedRule> = match &args.rule {
        None => shelf.rules().collect(),
        Some(name) => {
            vec![shelf.rules().find(|rule| rule.name == *name).ok_or_else(|| unknown(name, &shelf))?]
        }
    };
    if chosen.is_empty() {
        notice("there is no rule");
    }
    for (number, rule) in (0..).zip(chosen) {
        // As for live traffic, each rule has random numbers of its own.
        let mut evaluation = Evaluation::new(&event, seed);
        evaluation.begin_rule(number);
        print(&rule.explain(&mut evaluation))?;
    }
    Ok(Exit::Success)
}

/// The rules that are asked about.
fn shelf(args: &ExplainArgs, environment: &Environment) -> Result<Shelf, Failure> {
    if args.rules.is_empty() {
        let loaded = args.config.load(environment)?;
        return Ok(Shelf::of(serve::load_rules(&loaded, environment)?));
    }
    let limits = match args.config.path(environment) {
        Some(_) => server::rule_limits(&args.config.load(environment)?.config.limits.rules),
        None => server::rule_limits(&config::Config::default().limits.rules),
    };
    let mut shelf = Shelf::default();
    for path in &args.rules {
        shelf.append(Shelf::read(path, &limits).map_err(|why| Failure::new(Exit::Failed, why))?);
    }
    Ok(shelf)
}

fn unknown(name: &str, shelf: &Shelf) -> Failure {
    let hint = suggest(name, shelf.rules().map(|rule| rule.name.as_str()));
    let hint = hint.map(|hint| format!("; {hint}")).unwrap_or_default();
    Failure::new(Exit::Refused, format!("there is no rule \"{name}\"{hint}"))
}
