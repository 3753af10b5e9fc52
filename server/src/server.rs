//! The running program: broker, store and rules, wired as the configuration says.

use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use actions::{ConnectorError, Connectors, TargetPolicy};
use broker::{AccessControl, BoundListener, Broker, BrokerConfig};
use parking_lot::Mutex;
use trace::Tracer;

use crate::access::{Access, AccessError};
use crate::admin::AdminSocket;
use crate::alarms::{self, Alarms};
use crate::api::{ApiError, ApiServer, Gateway};
use crate::config::{Config, Limits, QueuePolicy, RuleLimits};
use crate::listeners::Listeners;
use crate::metrics::Observer;
use crate::otlp::{Exporter, OtlpError};
use crate::reload::{ReloadSlot, Reloader};
use crate::rules::{BookError, PipelineSettings, RuleBook, RuleFileError, RulePipeline, RuleSet};
use crate::storage::Storage;
use crate::tls::{Certificates, TlsError};

/// Why a server doesn't start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Another program uses the address.
    #[error("listener \"{listener}\": {address} is in use by another program")]
    AddressInUse {
        /// Name of the listener.
        listener: String,
        /// Its address.
        address: SocketAddr,
    },
    /// The address can't be listened on.
    #[error("listener \"{listener}\": can't listen on {place}")]
    Listen {
        /// Name of the listener.
        listener: String,
        /// Its address, or its socket's file.
        place: String,
        /// What the system said.
        source: io::Error,
    },
    /// The rules can't be run.
    #[error("the rules can't be run")]
    Rules(#[source] BookError),
    /// The connectors can't be used.
    #[error("{}", sentences(.0))]
    Connectors(Vec<ConnectorError>),
    /// Access can't be decided about as the configuration says.
    #[error("nobody could come in as the configuration says")]
    Access(#[source] AccessError),
    /// The certificates of listeners can't be used.
    #[error("{}", sentences(.0))]
    Certificates(Vec<TlsError>),
    /// Traces can't be sent as the configuration says.
    #[error("traces can't be sent")]
    Otlp(#[source] OtlpError),
    /// The store can't be read.
    #[error("what the store has kept can't be read")]
    Restore(#[source] io::Error),
}

/// Why rules can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RulesError {
    /// The configured folder isn't there.
    #[error("the folder of rules (rules_dir) {} can't be read: it is no folder", path.display())]
    NoFolder {
        /// The folder.
        path: PathBuf,
    },
    /// The files have faults.
    #[error("{} rule files or rules are refused", faults.len())]
    Faults {
        /// Every fault; never empty.
        faults: Vec<RuleFileError>,
    },
}

/// A server that accepts clients.
#[derive(Debug)]
pub struct Server {
    broker: Broker,
    tracer: Arc<Tracer>,
    exporter: Arc<Exporter>,
    book: RuleBook,
    access: Arc<Access>,
    certificates: Arc<Certificates>,
    listeners: Arc<Listeners>,
    /// Open as long as the server runs on a data directory.
    admin: Mutex<Option<AdminSocket>>,
    /// Open as long as the server runs.
    api: Mutex<Option<ApiServer>>,
    reload: ReloadSlot,
    /// Looks at the gateway as long as the server runs.
    observer: Mutex<Option<Observer>>,
    alarms: Arc<Alarms>,
    /// The same for alarms.
    alarm_watch: Mutex<Option<alarms::Watch>>,
}

impl Server {
    /// Starts a server on a store inside the current tokio runtime. Either every listener is open, or none stays so.
    ///
    /// # Errors
    /// [`StartError`] of the rules or of the first listener that can't be opened.
    pub async fn start(config: &Config, rules: &RuleSet, storage: &Storage) -> Result<Self, StartError> {
        let alarms = Alarms::new(&config.alarms);
        let tracer = Arc::new(Tracer::new(config.trace.settings()));
        let exporter = Arc::new(Exporter::default());
        let export = exporter.prepare(&config.trace.otlp).map_err(StartError::Otlp)?;
        let settings = PipelineSettings {
            targets: targets(config),
            connectors: connectors(config, &Connectors::default()).map_err(StartError::Connectors)?,
            hops: config.limits.rules.hops,
            store: storage.durable().cloned(),
            timed_every: config.metrics.rule_sample,
            tracer: Arc::clone(&tracer),
        };
        let certificates = Certificates::load(config).map_err(StartError::Certificates)?;
        let certificates = Arc::new(certificates);
        let limits = rule_limits(&config.limits.rules);
        let book = RuleBook::start(rules.clone(), storage.data_dir(), &limits, &settings)
            .map_err(StartError::Rules)?;
        let pipeline = book.pipeline().clone();
        let access = Arc::new(Access::new(config).map_err(StartError::Access)?);
        access.watch();
        let hook = Arc::new(pipeline.clone());
        let control: Arc<dyn AccessControl> = Arc::clone(&access) as _;
        let broker = Broker::with_tracer(
            broker_config(config),
            storage.store(),
            Some(hook),
            control,
            Arc::clone(&tracer),
        );
        access.attach(broker.access_listener());
        if let Some(store) = storage.durable() {
            let restored = broker.restore(Arc::clone(store)).await.map_err(StartError::Restore)?;
            tracing::info!(
                sessions = restored.sessions,
                sessions_expired = restored.sessions_expired,
                queued_messages = restored.queued_messages,
                retained_messages = restored.retained_messages,
                "taken up from the store"
            );
        }
        exporter.apply(export, &tracer);
        // What error actions say goes to sessions of before too, so not sooner.
        pipeline.attach(Arc::new(broker.clone()));
        let gateway =
            Gateway::new(broker.clone(), book.clone(), rule_limits(&config.limits.rules), storage.durable())
                .with_access(Arc::clone(&access))
                .with_metrics(config.metrics.clone())
                .with_alarms(Arc::clone(&alarms))
                .with_exporter(Arc::clone(&exporter));
        for filter in &config.metrics.topics {
            // The check of the configuration has looked at each.
            if let Err(error) = broker.add_meter(filter) {
                tracing::error!(filter, %error, "messages of a filter aren't counted");
            }
        }
        let reload = ReloadSlot::clone(gateway.reload());
        let observer = Mutex::new(gateway.observe(storage.data_dir()));
        let alarm_watch = Mutex::new(Some(gateway.watch_alarms()));
        let api = api_server(config, storage, &certificates, gateway).await;
        let admin = admin_socket(storage, api.as_ref());
        let listeners = Arc::new(Listeners::new(&broker));
        for listener in &config.listeners {
            let setup = certificates.setup(&listener.name);
            if let Err(error) = listeners.open(listener, config, setup).await {
                if let Some(admin) = admin {
                    admin.close().await;
                }
                if let Some(api) = api {
                    api.close().await;
                }
                broker.shutdown(Duration::ZERO).await;
                exporter.close(&tracer, Duration::ZERO).await;
                return Err(error);
            }
        }
        if let Some(api) = &api {
            api.ready(&listeners.bound());
        }
        certificates.watch();
        let (admin, api) = (Mutex::new(admin), Mutex::new(api));
        Ok(Self {
            broker,
            tracer,
            exporter,
            book,
            access,
            certificates,
            listeners,
            admin,
            reload,
            api,
            observer,
            alarms,
            alarm_watch,
        })
    }

    /// The broker.
    pub fn broker(&self) -> &Broker {
        &self.broker
    }

    /// Who is told the way of single messages.
    pub fn tracer(&self) -> &Arc<Tracer> {
        &self.tracer
    }

    /// What somebody should look at.
    pub(crate) fn alarms(&self) -> &Arc<Alarms> {
        &self.alarms
    }

    /// Who hands traces on to a collector.
    pub fn exporter(&self) -> &Arc<Exporter> {
        &self.exporter
    }

    /// The rules that run.
    pub fn rules(&self) -> &RulePipeline {
        self.book.pipeline()
    }

    /// Who owns which rule, and how they change.
    pub fn rule_book(&self) -> &RuleBook {
        &self.book
    }

    /// Who may come in and what they may do.
    pub fn access(&self) -> &Arc<Access> {
        &self.access
    }

    /// The certificates of the listeners.
    pub fn certificates(&self) -> &Arc<Certificates> {
        &self.certificates
    }

    /// Lets the administration read the configuration again. What was said first holds.
    pub fn set_reload(&self, reload: Arc<Reloader>) {
        drop(self.reload.set(reload));
    }

    /// The listeners.
    pub fn listeners(&self) -> &Arc<Listeners> {
        &self.listeners
    }

    /// The address of the first listener.
    pub fn address(&self) -> Option<SocketAddr> {
        self.listeners.bound().iter().find_map(BoundListener::address)
    }

    /// Makes a setup token if nobody can administer the gateway over HTTP yet, and says where that is done.
    pub fn setup_token(&self) -> Option<(SocketAddr, String)> {
        let api = self.api.lock();
        let api = api.as_ref().filter(|api| api.needs_setup())?;
        let address = api.address()?;
        match api.make_setup_token() {
            Ok(token) => Some((address, token)),
            Err(error) => {
                tracing::error!(error = crate::cli::chain(&error), "there is no setup token");
                None
            }
        }
    }

    /// Where the HTTP interface of administration listens, if it is open.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.api.lock().as_ref().and_then(ApiServer::address)
    }

    /// Says goodbye to every client, then lets the queues of actions run empty, then sends the traces that wait; each has at
    /// most `grace` for it.
    pub async fn stop(&self, grace: Duration) {
        drop(self.observer.lock().take());
        drop(self.alarm_watch.lock().take());
        let admin = self.admin.lock().take();
        if let Some(admin) = admin {
            admin.close().await;
        }
        let api = self.api.lock().take();
        if let Some(api) = api {
            api.close().await;
        }
        self.broker.shutdown(grace).await;
        self.rules().shutdown(grace).await;
        self.exporter.close(&self.tracer, grace).await;
    }
}

/// Opens the administration socket of the data directory. Messages matter more than it: a server that can't open it runs.
fn admin_socket(storage: &Storage, api: Option<&ApiServer>) -> Option<AdminSocket> {
    let (data_dir, api) = storage.data_dir().zip(api)?;
    match AdminSocket::open(data_dir, api.owners_door()) {
        Ok(admin) => {
            tracing::info!(path = %admin.path().display(), "administration socket open");
            Some(admin)
        }
        Err(error) => {
            let error = crate::cli::chain(&error);
            tracing::error!(error, "running without the administration socket: the command line can't ask");
            None
        }
    }
}

/// Makes the HTTP interface of administration and opens it to the network, unless that is turned off. Messages matter more
/// than it: a server that can't open it runs.
async fn api_server(
    config: &Config,
    storage: &Storage,
    certificates: &Certificates,
    gateway: Gateway,
) -> Option<ApiServer> {
    let failed = |error: &ApiError| {
        let error = crate::cli::chain(error);
        tracing::error!(error, "running without the administration interface");
    };
    let mut api =
        ApiServer::open(&config.admin, storage.data_dir(), gateway).map_err(|error| failed(&error)).ok()?;
    if config.admin.enabled {
        match api.listen(config.admin.address, certificates.admin()).await {
            Ok(admin) => tracing::info!(%admin, "administration interface open"),
            Err(error) => failed(&error),
        }
    }
    Some(api)
}

/// Which addresses the actions of rules may connect to.
pub fn targets(config: &Config) -> TargetPolicy {
    TargetPolicy { allow_private: config.actions.allow_private.clone(), admin: vec![config.admin.address] }
}

/// The connectors of a configuration, ready to use; those that haven't changed since `before` stay the same.
///
/// # Errors
/// Every fault, those of certificate files among them.
pub fn connectors(config: &Config, before: &Connectors) -> Result<Connectors, Vec<ConnectorError>> {
    Connectors::load(&config.connectors, &targets(config), before)
}

fn sentences<E: ToString>(errors: &[E]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// A number that nobody can guess: the keys of a hasher come from the system's source of randomness.
pub(crate) fn random() -> u64 {
    RandomState::new().hash_one(0)
}

/// The broker's settings, as far as the configuration has them.
pub fn broker_config(config: &Config) -> BrokerConfig {
    BrokerConfig {
        limits: broker_limits(&config.limits),
        sys_interval: config.sys.interval.as_duration(),
        version: format!("tidegate {}", env!("CARGO_PKG_VERSION")),
        heavy_hitters: broker::HeavyHittersConfig {
            shown: usize::from(config.metrics.heavy_hitters),
            one_in: config.metrics.heavy_hitters_sample,
        },
    }
}

fn broker_limits(limits: &Limits) -> broker::Limits {
    broker::Limits {
        max_packet_size: limits.max_packet_size.as_u32_saturating(),
        max_connect_packet_size: limits.max_connect_packet_size.as_u32_saturating(),
        receive_maximum: limits.receive_maximum,
        max_inflight: limits.max_inflight,
        max_inflight_bytes: limits.max_inflight_bytes.as_u64(),
        topic_alias_maximum: limits.topic_alias_maximum,
        max_keep_alive: limits.max_keep_alive.as_duration(),
        max_session_expiry: limits.max_session_expiry.as_duration(),
        max_queued_bytes: limits.max_queued_bytes.as_u64(),
        max_queued_messages: limits.max_queued_messages,
        max_queued_memory: match limits.max_queued_memory.as_u64() {
            0 => crate::memory::quarter(),
            bytes => bytes,
        },
        max_queued_policy: match limits.max_queued_policy {
            QueuePolicy::DropOldest => broker::QueuePolicy::DropOldest,
            QueuePolicy::Refuse => broker::QueuePolicy::Refuse,
        },
        max_outbound_bytes: limits.max_outbound_bytes.as_u32_saturating(),
        max_publish_pause: limits.max_publish_pause.as_duration(),
        max_topic_levels: limits.max_topic_levels,
        max_client_id_bytes: limits.max_client_id_bytes,
        max_user_properties: limits.max_user_properties,
        max_user_properties_bytes: limits.max_user_properties_bytes.as_u32_saturating(),
        max_subscriptions: limits.max_subscriptions_per_session,
        max_retained_messages: u64::from(limits.max_retained_messages),
        max_retained_bytes: limits.max_retained_bytes.as_u64(),
        max_connections_per_address: limits.max_connections_per_address,
        max_connections_per_user: limits.max_connections_per_user,
        max_connect_rate: limits.max_connect_rate,
        max_publish_rate: limits.max_publish_rate,
        max_publish_bytes_rate: limits.max_publish_bytes_rate.as_u64(),
        connect_timeout: limits.connect_timeout.as_duration(),
        max_connections: limits.max_connections,
        max_handshakes: limits.max_handshakes,
        will_after_crash: limits.will_after_crash.as_duration(),
        max_rule_hops: limits.rules.hops,
    }
}

/// What a rule may use, as the compiler of rules takes it.
pub fn rule_limits(limits: &RuleLimits) -> rules_sql::Limits {
    rules_sql::Limits {
        statement_bytes: limits.statement_bytes.as_usize_saturating(),
        operators: usize::from(limits.operators),
        depth: usize::from(limits.depth),
        items: usize::from(limits.items),
        subquery_depth: usize::from(limits.subquery_depth),
        array_steps: limits.array_steps,
        steps: limits.steps,
        output_bytes: limits.output_bytes.as_usize_saturating(),
        regex_bytes: limits.regex_bytes.as_usize_saturating(),
        json_depth: usize::from(limits.json_depth),
        template_bytes: limits.template_bytes.as_usize_saturating(),
    }
}

/// The folder that the rules of a configuration are read from, whether it is there or not.
pub(crate) fn rules_folder(config: &Config, home: &Path) -> PathBuf {
    config.rules_dir.clone().unwrap_or_else(|| home.join("rules.d"))
}

/// Reads the rules of a configuration: from the configured folder, which must exist, else from `rules.d` in `home`,
/// if it is there.
///
/// # Errors
/// [`RulesError`], with every fault of every file.
pub fn load_rules(config: &Config, home: &Path) -> Result<RuleSet, RulesError> {
    let folder = rules_folder(config, home);
    if !folder.is_dir() {
        return match config.rules_dir {
            Some(_) => Err(RulesError::NoFolder { path: folder }),
            None => Ok(RuleSet::default()),
        };
    }
    crate::rules::load_rules(&folder, &rule_limits(&config.limits.rules))
        .map_err(|faults| RulesError::Faults { faults })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_agree_with_those_of_the_crates() {
        let defaults = Limits::default();
        // A broker made without a configuration file behaves like one made by hand, and vice versa; but for what follows the
        // machine's memory.
        let of_crate = broker::Limits::default();
        let limits = broker_limits(&defaults);
        assert_eq!(broker::Limits { max_queued_memory: of_crate.max_queued_memory, ..limits }, of_crate);
        assert_eq!(rule_limits(&defaults.rules), rules_sql::Limits::default());
    }

    #[test]
    fn a_configured_folder_of_rules_must_exist() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        assert!(load_rules(&config, folder.path()).unwrap().is_empty());
        let rules = folder.path().join("rules.d");
        std::fs::create_dir(&rules).unwrap();
        std::fs::write(rules.join("broken.toml"), "[rules.x]\nsqll = ''\n").unwrap();
        assert!(matches!(load_rules(&config, folder.path()), Err(RulesError::Faults { .. })));
        let missing = folder.path().join("elsewhere");
        config.rules_dir = Some(missing.clone());
        assert!(
            matches!(load_rules(&config, folder.path()), Err(RulesError::NoFolder { path }) if path == missing)
        );
    }
}
