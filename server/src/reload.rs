//! Reading configuration and rules again while clients stay connected.
//!
//! Everything is read and checked first; then all of it is put in place, or nothing is. Keys that count only from the next
//! start keep the value that runs, and are told as long as they differ. What runs is remembered value by value, so that a
//! difference can be shown: secrets are compared and never shown.

mod fault;
mod watch;

use std::path::{Path, PathBuf};

use actions::ConnectorError;
use parking_lot::Mutex;
use std::sync::{Arc, OnceLock};
use tokio::runtime::Handle;
use trace::Tracer;
use tracing::{error, info, warn};

pub use self::fault::Fault;
use self::watch::Files;
use crate::access::{self, Access, AccessError};
use crate::alarms::Alarms;
use crate::cli::chain;
use crate::config::{
    Assignment, Change, Config, ConfigErrors, Environment, Inputs, Limits, Listener, Loaded, Log, RuleLimits,
    Setting, changes, default_data_dir,
};
use crate::listeners::Listeners;
use crate::log::{self, LogError};
use crate::otlp::{self, Exporter, OtlpError};
use crate::rules::{BookError, RuleBook, RuleDifference, RuleSet};
use crate::server::{self, RulesError, Server, StartError};
use crate::service::ServiceManager;
use crate::tls::{self, Certificates, TlsError};

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
    /// Certificates of listeners are refused.
    #[error("certificates are refused")]
    Certificates(Vec<TlsError>),
    /// A listener can't be opened.
    #[error("a listener can't be opened")]
    Listener(#[source] StartError),
    /// Nobody could be let in as it says.
    #[error("authentication can't be done as the configuration says")]
    Access(#[source] AccessError),
    /// Rules are refused.
    #[error("rules are refused")]
    Rules(#[source] RulesError),
    /// Rules can't be run, have a name that is taken, or would leave something behind.
    #[error("the rules can't be put in place")]
    Book(#[source] BookError),
    /// Traces can't be sent as it says.
    #[error("traces can't be sent as the configuration says")]
    Otlp(#[source] OtlpError),
    /// The log takes no such level.
    #[error("the log can't be changed")]
    Log(#[source] LogError),
}

impl ReloadError {
    /// Every fault.
    pub fn faults(&self) -> Vec<Fault> {
        match self {
            Self::Config(errors) => Fault::of_config(errors),
            Self::Certificates(faults) => faults.iter().map(|fault| Fault::new(fault.to_string())).collect(),
            Self::Connectors(faults) => faults.iter().map(|fault| Fault::new(fault.to_string())).collect(),
            Self::Rules(RulesError::Faults { faults }) | Self::Book(BookError::Refused(faults)) => {
                faults.iter().map(Fault::from).collect()
            }
            Self::Book(error) => error.faults().into_iter().map(Fault::new).collect(),
            other => vec![Fault::new(chain(other))],
        }
    }
}

/// What a reload changed, or would change.
#[derive(Debug, Clone, PartialEq)]
pub struct Reloaded {
    /// Keys of the configuration whose values differ.
    pub changes: Vec<KeyChange>,
    /// Rules.
    pub rules: RuleDifference,
    /// What is allowed but hardly meant.
    pub warnings: Vec<String>,
}

/// One key whose value differs.
#[derive(Debug, Clone, PartialEq)]
pub struct KeyChange {
    /// From what to what.
    pub change: Change,
    /// Whether the new value counts only from the next start.
    pub needs_restart: bool,
}

/// Reads again what a server was started with. What runs and what is to run are compared as the configuration files say it; a
/// flag such as `--port` goes on to hold.
#[derive(Debug)]
pub struct Reloader {
    path: Option<PathBuf>,
    flags: Vec<Assignment>,
    environment: Environment,
    book: RuleBook,
    access: Arc<Access>,
    certificates: Arc<Certificates>,
    listeners: Arc<Listeners>,
    tracer: Arc<Tracer>,
    alarms: Arc<Alarms>,
    manager: ServiceManager,
    exporter: Arc<Exporter>,
    running: Mutex<Running>,
    /// The files as they were when they were read last, or refused.
    judged: Mutex<Files>,
}

/// Where it is, once there is one.
pub type ReloadSlot = Arc<OnceLock<Arc<Reloader>>>;

#[derive(Debug)]
struct Running {
    config: Config,
    settings: Vec<Setting>,
}

/// Everything that was read and found good.
struct Fresh {
    config: Config,
    /// What holds, value by value, once this is in place as far as it can be.
    settings: Vec<Setting>,
    rules: RuleSet,
    connectors: actions::Connectors,
    access: access::Prepared,
    certificates: tls::Prepared,
    export: otlp::Prepared,
    told: Reloaded,
}

impl Reloader {
    /// For a server that was started with `loaded`, right after its files were read.
    pub fn new(server: &Server, loaded: &Loaded, flags: &[Assignment], environment: &Environment) -> Self {
        let settings = loaded.effective.settings().to_vec();
        let reloader = Self {
            path: loaded.path.clone(),
            flags: flags.to_vec(),
            environment: environment.clone(),
            book: server.rule_book().clone(),
            access: Arc::clone(server.access()),
            certificates: Arc::clone(server.certificates()),
            listeners: Arc::clone(server.listeners()),
            tracer: Arc::clone(server.tracer()),
            alarms: Arc::clone(server.alarms()),
            manager: ServiceManager::of(environment),
            exporter: Arc::clone(server.exporter()),
            running: Mutex::new(Running { config: loaded.config.clone(), settings }),
            judged: Mutex::default(),
        };
        let files = reloader.files();
        *reloader.judged.lock() = files;
        reloader
    }

    /// The file that the configuration comes from; `None`: defaults and environment only.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Every value that holds, with its origin. Waits for a reload that is under way.
    pub fn settings(&self) -> Vec<Setting> {
        self.running.lock().settings.clone()
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
        // Before they are read: a change meanwhile is seen later.
        let files = self.files();
        let mut running = self.running.lock();
        *self.judged.lock() = files;
        let fresh = self.read(&running)?;
        let Fresh { config, settings, rules, connectors, access, certificates, export, told } = fresh;
        // The steps that may still fail come first, and each takes back those before it.
        let level = log::level(&config.log, &self.environment).map_err(ReloadError::Log)?;
        let is_in =
            |config: &Config, name: &str| config.listeners.iter().any(|listener| listener.name == name);
        let mut opened: Vec<&str> = Vec::new();
        let close = |names: &[&str]| names.iter().for_each(|name| self.listeners.close(name));
        for listener in config.listeners.iter().filter(|listener| !is_in(&running.config, &listener.name)) {
            let open = self.listeners.open(listener, &config, certificates.setup(&listener.name));
            if let Err(error) = Handle::current().block_on(open) {
                close(&opened);
                return Err(ReloadError::Listener(error));
            }
            opened.push(&listener.name);
        }
        let limits = server::rule_limits(&config.limits.rules);
        if let Err(error) = self.book.replace_files(&rules, &limits, &server::targets(&config), &connectors) {
            close(&opened);
            return Err(ReloadError::Book(error));
        }
        self.access.apply(access);
        self.certificates.apply(certificates);
        log::set_level(level);
        self.tracer.configure(config.trace.settings());
        self.alarms.configure(&config.alarms);
        self.exporter.apply(export, &self.tracer);
        for listener in running.config.listeners.iter().filter(|before| !is_in(&config, &before.name)) {
            self.listeners.close(&listener.name);
        }
        running.settings = settings;
        running.config = config;
        Ok(told)
    }

    /// The same, told in the log and to the service manager.
    ///
    /// # Errors
    /// As [`Reloader::apply`].
    pub fn apply_and_log(&self) -> Result<Reloaded, ReloadError> {
        let reloading = self.manager.reloading();
        let outcome = self.apply();
        match &outcome {
            Ok(told) => {
                tell(told);
                reloading.succeeded();
            }
            Err(error) => {
                for fault in error.faults() {
                    error!(%fault, "refused");
                }
                error!(%error, "the rules that ran go on, with the connectors that they had; so does all else");
            }
        }
        outcome
    }

    /// The folder that `rules.d` is looked for in.
    fn home(&self, config: &Config) -> PathBuf {
        match self.path.as_deref().and_then(Path::parent) {
            Some(folder) => folder.to_owned(),
            None => config.data_dir.clone().unwrap_or_else(|| default_data_dir(&self.environment)),
        }
    }

    fn read(&self, running: &Running) -> Result<Fresh, ReloadError> {
        let inputs = Inputs { flags: &self.flags, ..Inputs::new(self.path.as_deref(), &self.environment) };
        let fresh = inputs.load().map_err(ReloadError::Config)?;
        let changed = changes(&running.settings, fresh.effective.settings());
        let both = Both { running: &running.config.listeners, fresh: &fresh.config.listeners };
        let changes = changed
            .into_iter()
            .map(|change| KeyChange { needs_restart: both.needs_restart(&change.key), change })
            .collect();
        let kept = running.settings.iter().filter(|setting| both.needs_restart(setting.key()));
        let live = fresh.effective.settings().iter().filter(|setting| !both.needs_restart(setting.key()));
        let settings = kept.chain(live).cloned().collect();
        let config = with_live_parts(&running.config, fresh.config);
        let certificates = self.certificates.prepare(&config).map_err(ReloadError::Certificates)?;
        let access = self.access.prepare(&config).map_err(ReloadError::Access)?;
        let export = self.exporter.prepare(&config.trace.otlp).map_err(ReloadError::Otlp)?;
        let connectors = server::connectors(&config, &self.book.pipeline().connectors())
            .map_err(ReloadError::Connectors)?;
        let rules = server::load_rules(&config, &self.home(&config)).map_err(ReloadError::Rules)?;
        let limits = server::rule_limits(&config.limits.rules);
        let difference = self
            .book
            .check_files(&rules, &limits, &server::targets(&config), &connectors)
            .map_err(ReloadError::Book)?;
        let warnings = fresh.warnings.into_iter().chain(rules.warnings().map(ToString::to_string)).collect();
        let told = Reloaded { changes, rules: difference, warnings };
        Ok(Fresh { config, settings, rules, connectors, access, certificates, export, told })
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

/// The listeners that run and those of a fresh configuration.
#[derive(Clone, Copy)]
struct Both<'l> {
    running: &'l [Listener],
    fresh: &'l [Listener],
}

impl Both<'_> {
    /// Whether a key counts only from the next start. Agrees with [`with_live_parts`].
    fn needs_restart(self, key: &str) -> bool {
        if let Some((name, key)) = key.strip_prefix("listeners.").and_then(|rest| rest.split_once('.')) {
            let find = |listeners: &'_ [Listener]| {
                listeners.iter().find(|listener| listener.name == name).map(|listener| listener.tls.is_some())
            };
            return match (find(self.running), find(self.fresh)) {
                // One that comes or goes does so at once.
                (None, _) | (_, None) => false,
                (Some(tls), Some(also_tls)) => {
                    let is_certificates = tls && also_tls && key.starts_with("tls.");
                    !is_certificates && key != "authentication"
                }
            };
        }
        let is_live_section =
            ["actions", "connectors", "authentication", "acl", "limits.rules", "reload", "trace", "alarms"]
                .iter()
                .any(|section| key.strip_prefix(section).is_some_and(|rest| rest.starts_with('.')));
        let is_live = is_live_section && key != "limits.rules.hops";
        !is_live && !["rules_dir", "log.level"].contains(&key)
    }
}

/// What runs, with those parts of `fresh` that count at once. Agrees with [`Both::needs_restart`].
fn with_live_parts(running: &Config, fresh: Config) -> Config {
    let hops = running.limits.rules.hops;
    let listeners = fresh.listeners.into_iter().map(|fresh| {
        let Some(same) = running.listeners.iter().find(|running| running.name == fresh.name) else {
            return fresh;
        };
        let tls = if same.tls.is_some() && fresh.tls.is_some() { fresh.tls } else { same.tls.clone() };
        Listener { authentication: fresh.authentication, tls, ..same.clone() }
    });
    Config {
        rules_dir: fresh.rules_dir,
        listeners: listeners.collect(),
        authentication: fresh.authentication,
        acl: fresh.acl,
        limits: Limits { rules: RuleLimits { hops, ..fresh.limits.rules }, ..running.limits.clone() },
        actions: fresh.actions,
        connectors: fresh.connectors,
        log: Log { level: fresh.log.level, format: running.log.format },
        reload: fresh.reload,
        trace: fresh.trace,
        alarms: fresh.alarms,
        ..running.clone()
    }
}

#[cfg(test)]
mod tests;
