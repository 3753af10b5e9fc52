//! Reading configuration and rules again while clients stay connected.
//!
//! Everything is read and checked first; then all of it is put in place, or nothing is. Keys that count only from the next
//! start keep the value that runs, and are told as long as they differ. What runs is remembered value by value, so that a
//! difference can be shown: secrets are compared and never shown.

use std::path::{Path, PathBuf};

use actions::ConnectorError;
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::{Value, json};
use std::sync::Arc;
use tracing::{error, info, warn};

use crate::access::{Access, AccessError, Prepared};
use crate::admin::Reload;
use crate::cli::chain;
use crate::config::{
    Assignment, Change, Config, ConfigErrors, Effective, Environment, Inputs, Limits, Loaded, Log,
    RuleLimits, Setting, changes, default_data_dir,
};
use crate::log::{self, LogError};
use crate::rules::{BookError, RuleBook, RuleDifference, RuleSet};
use crate::server::{self, RulesError, Server};
use crate::tls::Certificates;

/// Why everything goes on as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReloadError {
    /// The configuration is refused.
    #[error("the configuration is refused")]
    Config(#[source] ConfigErrors),
    /// Connectors are refused.
    #[error("{} connectors are refused", .0.len())]
    Connectors(Vec<ConnectorError>),
    /// Nobody could be let in as it says.
    #[error("authentication can't be done as the configuration says")]
    Access(#[source] AccessError),
    /// Rules are refused.
    #[error("rules are refused")]
    Rules(#[source] RulesError),
    /// Rules can't be run, have a name that is taken, or would leave something behind.
    #[error("the rules can't be put in place")]
    Book(#[source] BookError),
    /// The log takes no such level.
    #[error("the log can't be changed")]
    Log(#[source] LogError),
}

impl ReloadError {
    /// Every fault, one text each.
    pub fn faults(&self) -> Vec<String> {
        match self {
            Self::Config(errors) if !errors.faults().is_empty() => {
                errors.faults().iter().map(ToString::to_string).collect()
            }
            Self::Connectors(faults) => faults.iter().map(ToString::to_string).collect(),
            Self::Rules(RulesError::Faults { faults }) => faults.iter().map(ToString::to_string).collect(),
            Self::Book(error) => error.faults(),
            other => vec![chain(other)],
        }
    }
}

/// What a reload changed, or would change.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Reloaded {
    /// Keys of the configuration whose values differ.
    pub changes: Vec<KeyChange>,
    /// Rules.
    pub rules: RuleDifference,
    /// What is allowed but hardly meant.
    pub warnings: Vec<String>,
}

/// One key whose value differs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct KeyChange {
    /// From what to what.
    #[serde(flatten)]
    pub change: Change,
    /// Whether the new value counts only from the next start.
    pub needs_restart: bool,
}

/// Reads again what a server was started with.
#[derive(Debug)]
pub struct Reloader {
    path: Option<PathBuf>,
    flags: Vec<Assignment>,
    environment: Environment,
    book: RuleBook,
    access: Arc<Access>,
    certificates: Arc<Certificates>,
    running: Mutex<Running>,
}

#[derive(Debug)]
struct Running {
    config: Config,
    settings: Vec<Setting>,
}

/// Everything that was read and found good.
struct Fresh {
    config: Config,
    effective: Effective,
    rules: RuleSet,
    connectors: actions::Connectors,
    access: Prepared,
    told: Reloaded,
}

impl Reloader {
    /// For a server that was started with `loaded`.
    pub fn new(server: &Server, loaded: &Loaded, flags: &[Assignment], environment: &Environment) -> Self {
        let settings = loaded.effective.settings().to_vec();
        Self {
            path: loaded.path.clone(),
            flags: flags.to_vec(),
            environment: environment.clone(),
            book: server.rule_book().clone(),
            access: Arc::clone(server.access()),
            certificates: Arc::clone(server.certificates()),
            running: Mutex::new(Running { config: loaded.config.clone(), settings }),
        }
    }

    /// Reads everything and says what would change.
    ///
    /// # Errors
    /// [`ReloadError`].
    pub fn check(&self) -> Result<Reloaded, ReloadError> {
        Ok(self.read(&self.running.lock())?.told)
    }

    /// Reads everything and puts it in place, inside a tokio runtime and where blocking is allowed.
    ///
    /// # Errors
    /// [`ReloadError`]; then everything goes on as it was.
    pub fn apply(&self) -> Result<Reloaded, ReloadError> {
        let mut running = self.running.lock();
        let Fresh { config, effective, rules, connectors, access, told } = self.read(&running)?;
        // The one step that may still fail comes first.
        let limits = server::rule_limits(&config.limits.rules);
        self.book
            .replace_files(&rules, &limits, &server::targets(&config), &connectors)
            .map_err(ReloadError::Book)?;
        self.access.apply(access);
        self.certificates.reload();
        log::set_level(&config.log, &self.environment).map_err(ReloadError::Log)?;
        let kept = running.settings.iter().filter(|setting| needs_restart(setting.key())).cloned();
        let live = effective.settings().iter().filter(|setting| !needs_restart(setting.key())).cloned();
        running.settings = kept.chain(live).collect();
        running.config = config;
        Ok(told)
    }

    /// The same, told in the log.
    ///
    /// # Errors
    /// As [`Reloader::apply`].
    pub fn apply_and_log(&self) -> Result<Reloaded, ReloadError> {
        let outcome = self.apply();
        match &outcome {
            Ok(told) => tell(told),
            Err(error) => {
                for fault in error.faults() {
                    error!(fault, "refused");
                }
                error!(%error, "the rules that ran go on, with the connectors that they had; so does all else");
            }
        }
        outcome
    }

    fn read(&self, running: &Running) -> Result<Fresh, ReloadError> {
        let inputs = Inputs { flags: &self.flags, ..Inputs::new(self.path.as_deref(), &self.environment) };
        let fresh = inputs.load().map_err(ReloadError::Config)?;
        let changed = changes(&running.settings, fresh.effective.settings());
        let config = with_live_parts(&running.config, fresh.config);
        let access = self.access.prepare(&config).map_err(ReloadError::Access)?;
        let connectors = server::connectors(&config, &self.book.pipeline().connectors())
            .map_err(ReloadError::Connectors)?;
        let home = match self.path.as_deref().and_then(Path::parent) {
            Some(folder) => folder.to_owned(),
            None => config.data_dir.clone().unwrap_or_else(|| default_data_dir(&self.environment)),
        };
        let rules = server::load_rules(&config, &home).map_err(ReloadError::Rules)?;
        let limits = server::rule_limits(&config.limits.rules);
        let difference = self
            .book
            .check_files(&rules, &limits, &server::targets(&config), &connectors)
            .map_err(ReloadError::Book)?;
        let warnings = fresh.warnings.into_iter().chain(rules.warnings().map(ToString::to_string)).collect();
        let changes = changed
            .into_iter()
            .map(|change| KeyChange { needs_restart: needs_restart(&change.key), change })
            .collect();
        let told = Reloaded { changes, rules: difference, warnings };
        Ok(Fresh { config, effective: fresh.effective, rules, connectors, access, told })
    }
}

impl Reload for Reloader {
    fn reload(&self) -> Result<Value, String> {
        self.apply_and_log().map(|told| json!(told)).map_err(|error| error.faults().join("\n"))
    }

    fn try_reload(&self) -> Result<Value, String> {
        self.check().map(|told| json!(told)).map_err(|error| error.faults().join("\n"))
    }
}

fn tell(told: &Reloaded) {
    for warning in &told.warnings {
        warn!("{warning}");
    }
    for KeyChange { change, needs_restart } in &told.changes {
        let shown = |value: &Option<toml::Value>| value.as_ref().map(ToString::to_string);
        let (key, before, after) = (&change.key, shown(&change.before), shown(&change.after));
        if *needs_restart {
            warn!(key, before, after, "a change counts only from the next start");
        } else {
            info!(key, before, after, "changed");
        }
    }
    let RuleDifference { added, changed, removed } = &told.rules;
    info!(
        added = added.len(),
        changed = changed.len(),
        removed = removed.len(),
        "authentication and rules reloaded"
    );
}

/// Whether a key counts only from the next start.
fn needs_restart(key: &str) -> bool {
    let of_listener = key.strip_prefix("listeners.");
    // A list of names is one value, whose key is the last part.
    if let Some((_, key)) = of_listener.and_then(|rest| rest.split_once('.')) {
        return key != "authentication";
    }
    let is_live_section = ["actions", "connectors", "authentication", "acl", "limits.rules"]
        .iter()
        .any(|section| key.strip_prefix(section).is_some_and(|rest| rest.starts_with('.')));
    let is_live = is_live_section && key != "limits.rules.hops";
    !is_live && !["rules_dir", "log.level"].contains(&key)
}

/// What runs, with those parts of `fresh` that count at once. Agrees with [`needs_restart`].
fn with_live_parts(running: &Config, fresh: Config) -> Config {
    let hops = running.limits.rules.hops;
    let mut listeners = running.listeners.clone();
    for listener in &mut listeners {
        if let Some(same) = fresh.listeners.iter().find(|other| other.name == listener.name) {
            listener.authentication.clone_from(&same.authentication);
        }
    }
    Config {
        rules_dir: fresh.rules_dir,
        listeners,
        authentication: fresh.authentication,
        acl: fresh.acl,
        limits: Limits { rules: RuleLimits { hops, ..fresh.limits.rules }, ..running.limits.clone() },
        actions: fresh.actions,
        connectors: fresh.connectors,
        log: Log { level: fresh.log.level, format: running.log.format },
        ..running.clone()
    }
}
