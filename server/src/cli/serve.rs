//! `tidegate serve`: run until a signal says stop.

use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tracing::{info, warn};

use super::exit::chain;
use super::output::notice;
use super::signals::{reload_signal, stop_signal};
use super::{ConfigArgs, Exit, Failure, Threads, block_on};
use crate::config::{self, Assignment, Environment, Loaded};
use crate::confine::confine;
use crate::reload::Reloader;
use crate::rules::{RuleFileError, RuleSet};
use crate::server::{self, RulesError, Server, StartError};
use crate::service::{ServiceManager, Watchdog};
use crate::storage::{Storage, StorageError};

/// Time that clients have to go when the server stops.
const GRACE: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Default, Args)]
pub(super) struct ServeArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Port of the first listener, instead of the configured one; 0: any free port.
    #[arg(short = 'p', long, value_name = "PORT")]
    port: Option<u16>,
}

impl ServeArgs {
    /// The arguments, with what was said before the subcommand where nothing is said after it.
    pub(super) fn or(self, outer: &ConfigArgs) -> Self {
        Self { config: self.config.or(outer), ..self }
    }
}

pub(super) fn run(args: &ServeArgs, environment: &Environment) -> Result<Exit, Failure> {
    let mut loaded = args.config.load(environment)?;
    let addresses = loaded.config.listeners.iter_mut().find_map(|listener| listener.address.as_mut());
    if let (Some(port), Some(address)) = (args.port, addresses) {
        address.set_port(port);
    }
    crate::log::start(&loaded.config.log, environment).map_err(|error| Failure::new(Exit::Refused, error))?;
    block_on(Threads::PerCore, serve(&loaded, &args.config.set, environment))
}

/// The folder that `rules.d` is looked for in: the configuration file's, else the one of the state.
pub(super) fn home(loaded: &Loaded, environment: &Environment) -> PathBuf {
    match loaded.path.as_deref().and_then(Path::parent) {
        Some(folder) => folder.to_owned(),
        None => loaded.config.data_dir.clone().unwrap_or_else(|| config::default_data_dir(environment)),
    }
}

/// Reads the rules; what is wrong with them is printed as it should be read.
pub(super) fn load_rules(loaded: &Loaded, environment: &Environment) -> Result<RuleSet, Failure> {
    server::load_rules(&loaded.config, &home(loaded, environment))
        .map_err(|error| Failure::rendered(Exit::Refused, render(&error)))
}

/// Every fault as text of one line or several.
pub(super) fn render(error: &RulesError) -> String {
    match error {
        RulesError::Faults { faults } => faults.iter().map(|fault| render_finding("error", fault)).collect(),
        other => format!("error: {other}\n"),
    }
}

/// One fault, or one doubt, as text of one line or several.
pub(super) fn render_finding(word: &str, finding: &RuleFileError) -> String {
    match &finding.detail {
        Some(detail) => format!("{word}: {finding}\n{}\n", detail.trim_end()),
        None => format!("{word}: {finding}\n"),
    }
}

async fn serve(loaded: &Loaded, flags: &[Assignment], environment: &Environment) -> Result<Exit, Failure> {
    let config = &loaded.config;
    let mut stop = stop_signal()?;
    let mut reload = reload_signal()?;
    info!(
        version = env!("CARGO_PKG_VERSION"),
        config = loaded.path.as_ref().map(|path| tracing::field::display(path.display())),
        "starting"
    );
    let manager = ServiceManager::of(environment);
    confine();
    for warning in &loaded.warnings {
        warn!("{warning}");
    }
    let rules = load_rules(loaded, environment)?;
    for warning in rules.warnings() {
        warn!("{warning}");
    }
    manager.status("reading what the store has kept");
    let storage = Storage::open(config, environment).map_err(cannot_open)?;
    let server = Server::start(config, &rules, &storage).await.map_err(cannot_start)?;
    let reloader = Arc::new(Reloader::new(&server, loaded, flags, environment));
    server.set_reload(Arc::<Reloader>::clone(&reloader));
    reloader.watch();
    info!(rules = rules.len(), "rules loaded");
    if storage.durable().is_none() {
        warn!("sessions and retained messages are kept in memory (store.durability): a restart loses them");
    }
    if let Some((address, token)) = server.setup_token() {
        if std::io::stderr().is_terminal() {
            notice(&set_it_up(address, &token));
        } else {
            info!(
                "nobody can administer the gateway over HTTP yet: `tidegate setup-token` prints a token for it"
            );
        }
    }
    if let Some(address) = server.address().filter(|_| std::io::stderr().is_terminal()) {
        notice(&try_it(address));
    }
    info!("ready");
    manager.ready(&format!("clients are let in on {}", places(&server)));
    let mut watchdog = Watchdog::new(environment, &server, &storage);
    let signal = loop {
        tokio::select! {
            signal = stop.received() => break signal,
            () = watchdog.earned() => manager.alive(),
            // It reads files, which may take a while. What it comes to is told in the log.
            _ = reload.recv() => {
                let reloader = Arc::clone(&reloader);
                drop(tokio::task::spawn_blocking(move || drop(reloader.apply_and_log())));
            }
        }
    };
    info!(signal, "stopping");
    manager.stopping();
    let stopped = async {
        server.stop(GRACE).await;
        storage.settle().await;
    };
    tokio::select! {
        () = stopped => info!("stopped"),
        signal = stop.received() => warn!(signal, "stopped at once: a second signal came"),
    }
    Ok(Exit::Success)
}

/// Where clients connect.
fn places(server: &Server) -> String {
    let places = server.listeners().bound().into_iter().map(|bound| bound.endpoint.to_string());
    places.collect::<Vec<_>>().join(", ")
}

/// Says why the store doesn't open. A newer format is refused like a configuration that isn't understood.
fn cannot_open(error: StorageError) -> Failure {
    let exit = match error {
        StorageError::Newer { .. } => Exit::Refused,
        _ => Exit::Failed,
    };
    Failure::new(exit, chain(&error))
}

/// How the first administrator is made.
fn set_it_up(address: SocketAddr, token: &str) -> String {
    format!(
        "nobody can administer the gateway over HTTP yet; within an hour the setup token {token} makes an administrator, at http://{address}/ or by\n\
         \x20 curl http://{address}/api/v1/setup --json '{{\"setup_token\":\"{token}\",\"name\":\"admin\",\"password\":\"…\"}}'"
    )
}

/// Two commands that show that it works.
fn try_it(address: SocketAddr) -> String {
    let (host, port) = (address.ip(), address.port());
    format!(
        "try it from two other terminals:\n\
         \x20 mosquitto_sub -h {host} -p {port} -v -t '#'      or: tidegate sub -h {host} -p {port} -v -t '#'\n\
         \x20 mosquitto_pub -h {host} -p {port} -t hello -m world"
    )
}

/// Says why it doesn't start, and what to do.
pub(crate) fn cannot_start(error: StartError) -> Failure {
    match &error {
        StartError::AddressInUse { address, .. } => {
            let port = address.port();
            Failure::new(
                Exit::AddressInUse,
                format!(
                    "{error}\n  \
                     Another MQTT broker may be running: Debian starts mosquitto as soon as it is installed\n  \
                     (see `systemctl status mosquitto` and `ss -ltnp 'sport = {port}'`).\n  \
                     Stop it, or choose another port: tidegate serve --port {}",
                    port.checked_add(10_000).unwrap_or(21_883)
                ),
            )
        }
        StartError::Rules(_) | StartError::Access(_) | StartError::Certificates(_) => {
            Failure::new(Exit::Refused, chain(&error))
        }
        _ => Failure::new(Exit::Failed, chain(&error)),
    }
}
