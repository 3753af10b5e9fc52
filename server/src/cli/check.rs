//! `tidegate check`: everything that `serve` would refuse, and what it would warn of, without starting anything.

use actions::Connectors;
use clap::Args;
use serde_json::{Value, json};

use super::exit::chain;
use super::output::{Output, notice};
use super::{ConfigArgs, Exit, Failure, serve};
use crate::access::Access;
use crate::config::{Environment, Inputs, Loaded, MissingSecrets, Setting};
use crate::otlp::Exporter;
use crate::reload::Fault;
use crate::rules::RuleFileError;
use crate::server::{self, RulesError};
use crate::tls::Certificates;

#[derive(Debug, Clone, Default, Args)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Print the configuration that results, with the origin of every value.
    #[arg(long)]
    effective: bool,
    /// Print the result as one JSON object.
    #[arg(long)]
    json: bool,
    /// Take warnings for errors.
    #[arg(long)]
    deny_warnings: bool,
    /// Let references to secrets pass that aren't there, `${env:…}` and the like, on a machine that has none.
    #[arg(long)]
    allow_missing_secrets: bool,
}

impl CheckArgs {
    /// The arguments, with what was said before the subcommand where nothing is said after it.
    pub(super) fn or(self, outer: &ConfigArgs) -> Self {
        Self { config: self.config.or(outer), ..self }
    }
}

pub(super) fn run(args: &CheckArgs, environment: &Environment) -> Result<Exit, Failure> {
    let path = args.config.path(environment);
    let out = Output::stdout();
    let name = path.as_ref().map(|path| path.display().to_string());
    let refused = |errors: Vec<Value>, warnings: Vec<Value>| {
        out.json(&json!({ "ok": false, "config": name, "errors": errors, "warnings": warnings }))?;
        Ok(Exit::Refused)
    };
    let missing_secrets =
        if args.allow_missing_secrets { MissingSecrets::Allow } else { MissingSecrets::Refuse };
    let inputs =
        Inputs { flags: &args.config.set, missing_secrets, ..Inputs::new(path.as_deref(), environment) };
    let mut loaded = match inputs.load() {
        Ok(loaded) => loaded,
        Err(errors) if args.json => {
            return refused(Fault::of_config(&errors).iter().map(|fault| json!(fault)).collect(), Vec::new());
        }
        Err(errors) => return Err(Failure::rendered(Exit::Refused, errors.render())),
    };
    let rules = match server::load_rules(&loaded.config, &serve::home(&loaded, environment)) {
        Ok(rules) => rules,
        Err(error) if args.json => return refused(rules_errors(&error), Vec::new()),
        Err(error) => return Err(Failure::rendered(Exit::Refused, serve::render(&error))),
    };
    let unchecked = leave_out_unknown(&mut loaded);
    let connectors = match server::connectors(&loaded.config, &Connectors::default()) {
        Ok(connectors) => connectors,
        Err(errors) if args.json => {
            return refused(
                errors.iter().map(|error| json!({ "message": error.to_string() })).collect(),
                Vec::new(),
            );
        }
        Err(errors) => {
            let text = errors.iter().map(|error| format!("error: {error}\n")).collect::<String>();
            return Err(Failure::rendered(Exit::Refused, text));
        }
    };
    if let Err(error) = Exporter::default().prepare(&loaded.config.trace.otlp) {
        if args.json {
            return refused(vec![json!({ "message": error.to_string() })], Vec::new());
        }
        return Err(Failure::new(Exit::Refused, error.to_string()));
    }
    if let Err(error) = Access::new(&loaded.config) {
        let text = chain(&error);
        if args.json {
            return refused(vec![json!({ "message": text })], Vec::new());
        }
        return Err(Failure::new(Exit::Refused, text));
    }
    if let Err(faults) = Certificates::load(&loaded.config) {
        if args.json {
            let faults = faults.iter().map(|fault| json!({ "message": fault.to_string() })).collect();
            return refused(faults, Vec::new());
        }
        let text = faults.iter().map(|fault| format!("error: {fault}\n")).collect::<String>();
        return Err(Failure::rendered(Exit::Refused, text));
    }
    let mut unconnected = rules.unconnected(&connectors);
    if unchecked {
        unconnected.clear();
    }
    if !unconnected.is_empty() {
        if args.json {
            return refused(unconnected.iter().map(rule_finding).collect(), Vec::new());
        }
        let text = unconnected.iter().map(|fault| serve::render_finding("error", fault)).collect::<String>();
        return Err(Failure::rendered(Exit::Refused, text));
    }
    let count = loaded.warnings.len() + rules.warnings().count();
    let denied = args.deny_warnings && count > 0;
    if args.json {
        let of_config = loaded.warnings.iter().map(|warning| json!({ "message": warning }));
        let warnings = of_config.chain(rules.warnings().map(rule_finding)).collect();
        if denied {
            return refused(Vec::new(), warnings);
        }
        let mut answer = json!({
            "ok": true,
            "config": name,
            "errors": [],
            "warnings": warnings,
            "rules": rules.iter().map(|rule| rule.name.as_str()).collect::<Vec<_>>(),
            "missing_secrets": loaded.missing_secrets,
        });
        if args.effective
            && let Some(answer) = answer.as_object_mut()
        {
            let settings = loaded.effective.settings().iter().map(Setting::to_json).collect();
            answer.insert("effective".to_owned(), settings);
        }
        out.json(&answer)?;
        return Ok(Exit::Success);
    }
    for warning in &loaded.warnings {
        notice(&format!("warning: {warning}"));
    }
    for warning in rules.warnings() {
        notice(serve::render_finding("warning", warning).trim_end());
    }
    if denied {
        return Err(Failure::new(Exit::Refused, warnings_denied(count)));
    }
    if args.effective {
        out.bytes(loaded.effective.to_toml().as_bytes())?;
    } else {
        let name = name.as_deref().unwrap_or("built-in defaults");
        out.line(&format!("ok: {name}, {} rules", rules.len()))?;
    }
    Ok(Exit::Success)
}

/// Why `--deny-warnings` refuses something that there are `count` warnings about.
pub(super) fn warnings_denied(count: usize) -> String {
    let warnings = if count == 1 { "1 warning".to_owned() } else { format!("{count} warnings") };
    format!("{warnings}, and --deny-warnings lets none pass")
}

/// Takes out connectors that are known in part only, because a secret isn't there. Says whether there were any: then it isn't
/// known either whether every action has its connector.
fn leave_out_unknown(loaded: &mut Loaded) -> bool {
    let before = loaded.config.connectors.len();
    let missing = &loaded.missing_secrets;
    loaded.config.connectors.retain(|name, _| {
        let keys = format!("connectors.{name}.");
        !missing.iter().any(|key| key.starts_with(&keys))
    });
    loaded.config.connectors.len() < before
}

fn rules_errors(error: &RulesError) -> Vec<Value> {
    let RulesError::Faults { faults } = error else { return vec![json!(Fault::new(error.to_string()))] };
    faults.iter().map(rule_finding).collect()
}

fn rule_finding(finding: &RuleFileError) -> Value {
    json!(Fault::from(finding))
}
