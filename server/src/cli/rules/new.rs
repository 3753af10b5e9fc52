//! `tidegate rules new`: a rule file to begin with.

use clap::Args;
use rules_sql::{Dialect, Limits, compile};

use crate::cli::message::text_or_file;
use crate::cli::output::{Output, notice};
use crate::cli::{Exit, Failure};
use crate::rules::RuleSet;

#[derive(Debug, Args)]
pub(super) struct NewArgs {
    /// Name of the rule.
    name: String,
    /// The statement, or @FILE to read it from a file.
    statement: String,
}

pub(super) fn run(args: &NewArgs) -> Result<Exit, Failure> {
    let statement = text_or_file(&args.statement)?;
    let rule = compile(&statement, Dialect::Aws, &Limits::default())
        .map_err(|error| Failure::rendered(Exit::Refused, error.render(&statement)))?;
    for warning in rule.warnings() {
        notice(warning.render(&statement).trim_end());
    }
    let text = file(&args.name, statement.trim());
    // What is printed is a rule file, whatever the name and the statement hold.
    RuleSet::from_texts(
        [(std::path::Path::new(&format!("{}.toml", args.name)), text.as_str())],
        &Limits::default(),
    )
    .map_err(|faults| {
        Failure::new(Exit::Refused, faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    })?;
    Output::stdout().bytes(text.as_bytes())?;
    Ok(Exit::Success)
}

/// A whole rule file; its one action logs the output.
fn file(name: &str, statement: &str) -> String {
    // A literal string holds anything but three quotes in a row.
    let sql = if statement.contains("'''") || statement.ends_with('\'') {
        toml::Value::from(statement).to_string()
    } else {
        format!("'''\n{statement}\n'''")
    };
    format!(
        "[rules.{name}]\n\
         description = \"\"\n\
         dialect = \"aws\"\n\
         sql = {sql}\n\
         \n\
         [[rules.{name}.actions]]\n\
         name = \"log\"\n\
         type = \"log\"\n\
         message = \"${{output()}}\"\n"
    )
}
