//! Ranges of values, and what several keys must agree on.

use std::collections::BTreeMap;
use std::fmt::Display;

use access::acl::{RULES_MAX, parse_line};
use actions::Connectors;
use actions::config::ConnectorConfig;

use super::acl::{AclConfig, AclHttpConfig};
use super::authentication::AuthenticatorConfig;
use super::listeners::{self, ClientIdRule};
use super::metrics::{METERED_TOPICS_MAX, Metrics};
use super::model::{Config, Limits, Listener, ListenerKind, ListenerLimits, RuleLimits, Store};
use super::otlp::{self, OtlpProtocol};
use super::overrides::canonical;
use super::tree::Path;
use super::units::{ByteSize, Period};

/// What a check found.
pub(super) enum Finding {
    /// The configuration can't be used.
    Error {
        /// The value to blame.
        at: Path,
        message: String,
        help: Option<String>,
    },
    /// Something isn't there.
    Missing {
        /// Where it should be.
        at: Path,
        message: String,
    },
    /// It can, but is hardly meant so.
    Warning(String),
}

/// Smallest and largest of what may be the largest packet.
const PACKET_SIZES: (ByteSize, ByteSize) = (ByteSize::kib(1), ByteSize::mib(256));
/// Highest rates, in a second; zero means that there is no limit.
const CONNECT_RATE_MAX: u32 = 1_000_000;
const PUBLISH_RATE_MAX: u32 = 10_000_000;
const BYTES_RATE_MAX: ByteSize = ByteSize::gib(1_024);

/// Longest name of a listener, in bytes.
const NAME_BYTES_MAX: usize = 64;

/// Checks everything that single values can't tell.
pub(super) fn findings(config: &Config) -> Vec<Finding> {
    check(config).findings
}

/// The ranges of keys that have one, but for those of lists and of tables with names of their own.
pub(super) fn ranges() -> Vec<Range> {
    let http = AclHttpConfig::at(String::new());
    let acl = AclConfig { http: Some(http), ..AclConfig::default() };
    check(&Config { acl, ..Config::default() }).ranges
}

/// The range of a key.
pub(super) struct Range {
    pub(super) keys: Vec<String>,
    pub(super) min: Bound,
    pub(super) max: Bound,
}

/// An end of a range.
#[derive(Debug, Clone, Copy)]
pub(super) enum Bound {
    Number(u64),
    Size(ByteSize),
    Period,
}

impl From<u8> for Bound {
    fn from(number: u8) -> Self {
        Self::Number(number.into())
    }
}

impl From<u16> for Bound {
    fn from(number: u16) -> Self {
        Self::Number(number.into())
    }
}

impl From<u32> for Bound {
    fn from(number: u32) -> Self {
        Self::Number(number.into())
    }
}

impl From<ByteSize> for Bound {
    fn from(size: ByteSize) -> Self {
        Self::Size(size)
    }
}

impl From<Period> for Bound {
    fn from(_: Period) -> Self {
        Self::Period
    }
}

fn check(config: &Config) -> Check {
    let mut check = Check { findings: Vec::new(), ranges: Vec::new() };
    check.listeners(config);
    check.authentication(&config.authentication);
    check.acl(&config.acl);
    check.limits(&config.limits);
    check.authentication_limits(&config.limits);
    check.rule_limits(&config.limits.rules);
    check.store(&config.store);
    check.admin(config);
    check.connectors(&config.connectors);
    if crate::log::levels(&config.log.level).is_none() {
        check.error(
            Path::keys(&["log", "level"]),
            format!("log.level: \"{}\" is no level", config.log.level.escape_debug()),
            Some("write off, error, warn, info, debug or trace, for single parts as in `info,broker=debug`"),
        );
    }
    if config.sys.interval != Period::ZERO {
        check.range(
            "sys",
            "interval",
            config.sys.interval,
            Period::secs(1),
            Period::days(1),
            " (or 0s: off)",
        );
    }
    check.metrics(&config.metrics);
    check.range("trace", "max_traces", config.trace.max_traces, 10, 100_000, "");
    check.range("trace", "max_memory", config.trace.max_memory, ByteSize::kib(64), ByteSize::gib(1), "");
    if let Err(error) = config.trace.settings().sampling.check() {
        check.error(Path::keys(&["trace"]), format!("trace: {error}"), None);
    }
    let alarms = &config.alarms;
    check.range("alarms", "interval", alarms.interval, Period::secs(1), Period::secs(3_600), "");
    for (key, value) in [
        ("queue_age", alarms.queue_age),
        ("queue_full_within", alarms.queue_full_within),
        ("sink_down", alarms.sink_down),
        ("certificate_expiry", alarms.certificate_expiry),
    ] {
        check.range("alarms", key, value, Period::ZERO, Period::days(365), "");
    }
    check.range("alarms", "disk_free", alarms.disk_free, ByteSize::bytes(0), ByteSize::gib(1024), "");
    check.range("alarms", "rule_errors", alarms.rule_errors, 0, 1_000_000, "");
    check.range("alarms", "rule_silent", alarms.rule_silent, 0, 1_000_000_000, "");
    check.otlp(&config.trace.otlp);
    check.range("reload", "interval", config.reload.interval, Period::millis(100), Period::secs(3_600), "");
    check
}

struct Check {
    findings: Vec<Finding>,
    /// Those that were asked about.
    ranges: Vec<Range>,
}

impl Check {
    fn otlp(&mut self, otlp: &otlp::Otlp) {
        let section = "trace.otlp";
        let (min, max) = otlp::TIMEOUT;
        self.range(section, "timeout", otlp.timeout, min, max, "");
        let (min, max) = otlp::EXPORT_TIMEOUT;
        self.range(section, "export_timeout", otlp.export_timeout, min, max, "");
        let (min, max) = otlp::SCHEDULE_DELAY;
        self.range(section, "schedule_delay", otlp.schedule_delay, min, max, "");
        let (min, max) = otlp::QUEUED_SPANS;
        self.range(section, "max_queued_spans", otlp.max_queued_spans, min, max, "");
        let memory = (ByteSize::kib(64), ByteSize::gib(1));
        self.range(section, "max_queued_memory", otlp.max_queued_memory, memory.0, memory.1, "");
        let (min, max) = otlp::BATCH_SPANS;
        self.range(section, "max_batch_spans", otlp.max_batch_spans, min, max, "");
        let at = |key: &str| Path::keys(&["trace", "otlp", key]);
        let attributes = otlp.resource_attributes.len();
        if attributes > otlp::RESOURCE_ATTRIBUTES_MAX {
            let most = otlp::RESOURCE_ATTRIBUTES_MAX;
            let message =
                format!("trace.otlp.resource_attributes: {attributes} given, at most {most} are taken");
            self.error(at("resource_attributes"), message, None);
        }
        if otlp.protocol == OtlpProtocol::Grpc {
            let message = "trace.otlp.protocol: gRPC is not spoken here".to_owned();
            let help = "collectors take http/protobuf too, on port 4318 where nothing else is said";
            self.error(at("protocol"), message, Some(help));
        }
        if let Err((key, fault)) = crate::otlp::check(otlp) {
            self.error(at(key), format!("trace.otlp.{key}: {fault}"), None);
        }
        if let Some(warning) = crate::otlp::warning(otlp) {
            self.findings.push(Finding::Warning(warning));
        }
    }

    fn error(&mut self, at: Path, message: String, help: Option<&str>) {
        self.findings.push(Finding::Error { at, message, help: help.map(str::to_owned) });
    }

    fn range<T: PartialOrd + Display + Copy + Into<Bound>>(
        &mut self,
        section: &str,
        key: &str,
        value: T,
        min: T,
        max: T,
        or: &str,
    ) {
        let keys: Vec<&str> = section.split('.').chain([key]).collect();
        let (least, most) = (min.into(), max.into());
        let owned = keys.iter().map(ToString::to_string).collect();
        self.ranges.push(Range { keys: owned, min: least, max: most });
        if value < min || value > max {
            self.error(
                Path::keys(&keys),
                format!("{section}.{key} is {value}, must be between {min} and {max}{or}"),
                None,
            );
        }
    }

    fn listeners(&mut self, config: &Config) {
        let listeners = &config.listeners;
        let list = Path::keys(&["listeners"]);
        if listeners.is_empty() {
            self.error(list.clone(), "at least one listener is needed".to_owned(), None);
        }
        let mut names = BTreeMap::new();
        let mut addresses = BTreeMap::new();
        for (i, listener) in listeners.iter().enumerate() {
            let at = list.clone().index(i);
            let name = &listener.name;
            if !is_name(name) {
                self.error(
                    at.clone().key("name"),
                    format!("listener name \"{name}\" is refused: a letter, then letters, digits, `-` and `_`, at most {NAME_BYTES_MAX}"),
                    None,
                );
            }
            if names.insert(canonical(name), i).is_some() {
                self.error(
                    at.clone().key("name"),
                    format!("two listeners are named \"{name}\" (case, `-` and `_` make no difference)"),
                    None,
                );
            }
            for fault in listeners::check(&at, listener) {
                self.findings.push(match fault.is_missing {
                    true => Finding::Missing { at: fault.at, message: fault.message },
                    false => Finding::Error { at: fault.at, message: fault.message, help: None },
                });
            }
            let place = listener.place();
            let is_somewhere =
                listener.address.map_or(listener.path.is_some(), |address| address.port() != 0);
            if is_somewhere && let Some(other) = addresses.insert(place.clone(), name) {
                let key = if listener.address.is_some() { "address" } else { "path" };
                self.error(
                    at.clone().key(key),
                    format!("listeners \"{other}\" and \"{name}\" have the same {key} {place}"),
                    None,
                );
            }
            if !(1..=10_000_000).contains(&listener.max_connections) {
                self.error(
                    at.key("max_connections"),
                    format!(
                        "max_connections is {}, must be between 1 and 10000000",
                        listener.max_connections
                    ),
                    None,
                );
            }
            self.listener_authentication(&list.clone().index(i), listener, &config.authentication);
            self.listener_limits(&list.clone().index(i).key("limits"), name, &listener.limits);
            self.listener_warnings(&list.clone().index(i), listener, &config.authentication);
        }
    }

    fn listener_authentication(
        &mut self,
        at: &Path,
        listener: &Listener,
        known: &BTreeMap<String, AuthenticatorConfig>,
    ) {
        let at = at.clone().key("authentication");
        let Some(names) = &listener.authentication else {
            if known.len() > 1 {
                self.error(
                    at,
                    format!(
                        "listener \"{}\" has to say by `authentication` which methods it asks, and in which order: there are several",
                        listener.name
                    ),
                    Some("an empty list means none"),
                );
            }
            return;
        };
        for (number, name) in names.iter().enumerate() {
            let at = at.clone().index(number);
            if !known.contains_key(name) {
                self.error(at, format!("there is no [authentication.{name}]"), None);
            } else if names.iter().take(number).any(|before| before == name) {
                self.error(at, format!("\"{name}\" is named twice"), None);
            }
        }
    }

    fn listener_limits(&mut self, at: &Path, name: &str, limits: &ListenerLimits) {
        let largest = limits.max_packet_size.map(ByteSize::as_u64);
        let bytes_rate = limits.max_publish_bytes_rate.map(ByteSize::as_u64);
        for (key, value, min, max) in [
            ("max_packet_size", largest, PACKET_SIZES.0.as_u64(), PACKET_SIZES.1.as_u64()),
            ("max_connect_rate", Some(u64::from(limits.max_connect_rate)), 0, u64::from(CONNECT_RATE_MAX)),
            ("max_publish_rate", limits.max_publish_rate.map(u64::from), 0, u64::from(PUBLISH_RATE_MAX)),
            ("max_publish_bytes_rate", bytes_rate, 0, BYTES_RATE_MAX.as_u64()),
        ] {
            if let Some(value) = value
                && !(min..=max).contains(&value)
            {
                self.error(
                    at.clone().key(key),
                    format!(
                        "limits.{key} of listener \"{name}\" is {value}, must be between {min} and {max}"
                    ),
                    None,
                );
            }
        }
    }

    fn listener_warnings(
        &mut self,
        at: &Path,
        listener: &Listener,
        known: &BTreeMap<String, AuthenticatorConfig>,
    ) {
        let (name, place) = (&listener.name, listener.place());
        let methods = methods_of(listener, known);
        let is_plain = matches!(listener.kind, ListenerKind::Tcp | ListenerKind::Ws);
        if is_plain && !listener.is_local() && methods.iter().any(|method| method.kind.shows_secrets()) {
            self.findings.push(Finding::Warning(format!(
                "listener \"{name}\" has clients show their passwords to everybody on the way to {place}: it has no TLS"
            )));
        }
        if !listener.allow_anonymous && methods.is_empty() && !listener.is_local() {
            // Whoever opens it to a network has to say for whom.
            self.error(
                at.clone(),
                format!(
                    "listener \"{name}\" is to be reached from elsewhere at {place}, and nothing says who may come in"
                ),
                Some("add authentication, or allow_anonymous = true where everybody may"),
            );
        } else if listener.client_id != ClientIdRule::Any && methods.is_empty() {
            self.findings.push(Finding::Warning(format!(
                "listener \"{name}\" lets nobody in: client_id holds Client Identifiers to user names, and no authentication proves one"
            )));
        } else if !listener.allow_anonymous && methods.is_empty() {
            self.findings.push(Finding::Warning(format!(
                "listener \"{name}\" lets nobody in: allow_anonymous is false, and it has no authentication"
            )));
        } else if listener.allow_anonymous && methods.is_empty() && !listener.is_local() {
            self.findings.push(Finding::Warning(format!(
                "listener \"{name}\" lets everybody in who can reach {place}: allow_anonymous is true"
            )));
        } else if listener.allow_anonymous && !listener.is_local() {
            self.findings.push(Finding::Warning(format!(
                "listener \"{name}\" lets everybody without credentials in who can reach {place}: allow_anonymous is true"
            )));
        }
    }

    fn authentication(&mut self, methods: &BTreeMap<String, AuthenticatorConfig>) {
        for (name, method) in methods {
            let at = Path::keys(&["authentication", name]);
            if !is_name(name) {
                self.error(
                    at.clone(),
                    format!("name \"{name}\" is refused: a letter, then letters, digits, `-` and `_`, at most {NAME_BYTES_MAX}"),
                    None,
                );
            }
            for (key, problem) in method.faults() {
                let at = key.map_or_else(|| at.clone(), |key| at.clone().key(key));
                self.error(at, format!("authentication.{name}: {problem}"), None);
            }
        }
    }

    fn acl(&mut self, acl: &AclConfig) {
        let list = Path::keys(&["acl", "rules"]);
        let rules = acl.rules.as_deref().unwrap_or_default();
        if rules.len() > RULES_MAX {
            let message = format!("acl.rules: has {} rules, more than the limit of {RULES_MAX}", rules.len());
            self.error(list.clone(), message, None);
        }
        let source = "acl.rules".into();
        for (number, rule) in rules.iter().enumerate() {
            if let Err(fault) = parse_line(rule, &source, 1) {
                let message = format!("acl.rules: at character {}: {}", fault.column, fault.message);
                let help = "docs/authorisation.md has the words of a rule";
                self.error(list.clone().index(number), message, Some(help));
            }
        }
        let Some(http) = &acl.http else { return };
        let section = "acl.http";
        self.range(section, "timeout", http.timeout, Period::millis(100), Period::secs(60), "");
        self.range(section, "concurrency", http.concurrency, 1, 1_024, "");
        self.range(section, "refresh", http.refresh, Period::secs(1), Period::days(1), "");
        self.range(section, "max_age", http.max_age, Period::secs(2), Period::days(30), "");
        // Or rules would be too old before there are others.
        if http.max_age.as_duration() < http.refresh.as_duration() * 2 {
            let message = format!(
                "acl.http.max_age is {}, must be at least twice acl.http.refresh, which is {}",
                http.max_age, http.refresh
            );
            self.error(Path::keys(&["acl", "http", "max_age"]), message, None);
        }
        self.range(section, "max_clients", http.max_clients, 1, 10_000_000, "");
    }

    fn authentication_limits(&mut self, limits: &Limits) {
        let l = &limits.authentication;
        let section = "limits.authentication";
        self.range(section, "concurrent_hashes", l.concurrent_hashes, 0, 1_024, "");
        self.range(section, "queued_hashes", l.queued_hashes, 1, 1_000_000, "");
        self.range(section, "cached_passwords", l.cached_passwords, 0, 10_000_000, "");
        let time = l.cached_password_time;
        self.range(section, "cached_password_time", time, Period::secs(1), Period::days(1), "");
        let l = &limits.lockout;
        let section = "limits.lockout";
        self.range(section, "failures_per_address", l.failures_per_address, 0, 1_000_000, "");
        self.range(section, "failures_per_user", l.failures_per_user, 0, 1_000_000, "");
        self.range(section, "first_wait", l.first_wait, Period::millis(100), Period::secs(3_600), "");
        self.range(section, "longest_wait", l.longest_wait, Period::secs(1), Period::days(1), "");
        self.range(section, "forget_after", l.forget_after, Period::secs(1), Period::days(30), "");
        self.range(section, "remembered", l.remembered, 16, 10_000_000, "");
    }

    fn limits(&mut self, limits: &Limits) {
        let l = limits;
        let zero = ByteSize::bytes(0);
        let tib = ByteSize::gib(1024);
        self.range("limits", "max_packet_size", l.max_packet_size, PACKET_SIZES.0, PACKET_SIZES.1, "");
        let connections = 10_000_000;
        self.range(
            "limits",
            "max_connections_per_address",
            l.max_connections_per_address,
            0,
            connections,
            "",
        );
        self.range("limits", "max_connections_per_user", l.max_connections_per_user, 0, connections, "");
        self.range("limits", "max_connect_rate", l.max_connect_rate, 0, CONNECT_RATE_MAX, "");
        self.range("limits", "max_publish_rate", l.max_publish_rate, 0, PUBLISH_RATE_MAX, "");
        self.range("limits", "max_publish_bytes_rate", l.max_publish_bytes_rate, zero, BYTES_RATE_MAX, "");
        self.range("limits", "receive_maximum", l.receive_maximum, 1, u16::MAX, "");
        self.range("limits", "max_keep_alive", l.max_keep_alive, Period::ZERO, Period::secs(65_535), "");
        self.range("limits", "will_after_crash", l.will_after_crash, Period::ZERO, Period::secs(3_600), "");
        self.range(
            "limits",
            "max_session_expiry",
            l.max_session_expiry,
            Period::ZERO,
            Period::days(36_500),
            "",
        );
        self.range("limits", "max_queued_bytes", l.max_queued_bytes, ByteSize::kib(64), tib, "");
        self.range("limits", "max_queued_messages", l.max_queued_messages, 1, 100_000_000, "");
        self.range("limits", "max_queued_memory", l.max_queued_memory, zero, tib, "");
        self.range("limits", "max_topic_levels", l.max_topic_levels, 1, 128, "");
        self.range("limits", "max_client_id_bytes", l.max_client_id_bytes, 23, u16::MAX, "");
        self.range(
            "limits",
            "max_user_properties_bytes",
            l.max_user_properties_bytes,
            zero,
            ByteSize::mib(1),
            "",
        );
        self.range(
            "limits",
            "max_subscriptions_per_session",
            l.max_subscriptions_per_session,
            1,
            10_000_000,
            "",
        );
        self.range("limits", "max_retained_messages", l.max_retained_messages, 0, 1_000_000_000, "");
        self.range("limits", "max_retained_bytes", l.max_retained_bytes, zero, tib, "");
        self.range("limits", "connect_timeout", l.connect_timeout, Period::secs(1), Period::secs(600), "");
        self.range(
            "limits",
            "max_connect_packet_size",
            l.max_connect_packet_size,
            ByteSize::kib(1),
            ByteSize::mib(1),
            "",
        );
        self.range("limits", "max_connections", l.max_connections, 1, 10_000_000, "");
        self.range("limits", "max_handshakes", l.max_handshakes, 1, 1_000_000, "");
        self.range("limits", "max_inflight", l.max_inflight, 1, u16::MAX, "");
        self.range(
            "limits",
            "max_inflight_bytes",
            l.max_inflight_bytes,
            ByteSize::kib(1),
            ByteSize::gib(1),
            "",
        );
        self.range(
            "limits",
            "max_outbound_bytes",
            l.max_outbound_bytes,
            ByteSize::kib(64),
            ByteSize::gib(1),
            "",
        );
        self.range("limits", "max_publish_pause", l.max_publish_pause, Period::ZERO, Period::secs(60), "");
    }

    fn rule_limits(&mut self, limits: &RuleLimits) {
        let l = limits;
        let section = "limits.rules";
        self.range(section, "statement_bytes", l.statement_bytes, ByteSize::kib(1), ByteSize::kib(64), "");
        self.range(section, "operators", l.operators, 64, 8_192, "");
        self.range(section, "depth", l.depth, 1, 64, "");
        self.range(section, "items", l.items, 1, 4_096, "");
        self.range(section, "subquery_depth", l.subquery_depth, 0, 16, "");
        self.range(section, "array_steps", l.array_steps, 1, 10_000_000, "");
        self.range(section, "steps", l.steps, 1_000, 100_000_000, "");
        self.range(section, "json_depth", l.json_depth, 1, 128, "");
        self.range(section, "hops", l.hops, 1, 64, "");
        self.range(section, "output_bytes", l.output_bytes, ByteSize::kib(1), ByteSize::mib(256), "");
        self.range(section, "regex_bytes", l.regex_bytes, ByteSize::kib(1), ByteSize::mib(64), "");
        self.range(section, "template_bytes", l.template_bytes, ByteSize::bytes(64), ByteSize::mib(1), "");
    }

    fn metrics(&mut self, metrics: &Metrics) {
        let section = "metrics";
        self.range(section, "rule_sample", metrics.rule_sample, 0, 1_000_000, "");
        self.range(section, "max_rules", metrics.max_rules, 1, 100_000, "");
        self.range(section, "heavy_hitters", metrics.heavy_hitters, 0, 1_000, "");
        self.range(section, "heavy_hitters_sample", metrics.heavy_hitters_sample, 1, 1_000_000, "");
        self.range(section, "slow_subscribers", metrics.slow_subscribers, 0, 1_000, "");
        self.range(section, "slow_after", metrics.slow_after, Period::millis(100), Period::days(1), "");
        let at = || Path::keys(&[section, "topics"]);
        let count = metrics.topics.len();
        if count > METERED_TOPICS_MAX {
            let text =
                format!("metrics.topics: {count} filters, more than the limit of {METERED_TOPICS_MAX}");
            self.error(at(), text, None);
        }
        for (place, filter) in metrics.topics.iter().enumerate() {
            if let Err(error) = mqtt_protocol::topic::validate_topic_filter(filter) {
                let text = format!("metrics.topics: \"{}\": {error}", filter.escape_debug());
                self.error(at(), text, None);
            }
            if metrics.topics.iter().take(place).any(|other| other == filter) {
                let text = format!("metrics.topics: \"{}\" stands there twice", filter.escape_debug());
                self.error(at(), text, None);
            }
        }
    }

    fn store(&mut self, store: &Store) {
        let section = "store";
        self.range(section, "interval", store.interval, Period::millis(1), Period::secs(60), "");
        self.range(section, "max_bytes", store.max_bytes, ByteSize::mib(256), ByteSize::gib(1 << 20), "");
        self.range(section, "reserve", store.reserve, ByteSize::bytes(0), ByteSize::gib(1_024), "");
    }

    fn connectors(&mut self, connectors: &BTreeMap<String, ConnectorConfig>) {
        for (name, connector) in connectors {
            let at = Path::keys(&["connectors", name]);
            if !is_name(name) {
                self.error(
                    at,
                    format!("connector name \"{name}\" is refused: a letter, then letters, digits, `-` and `_`, at most {NAME_BYTES_MAX}"),
                    None,
                );
            } else if let Err(error) = Connectors::check(name, connector) {
                let at = error.field.split('.').fold(at, Path::key);
                self.error(at, format!("connectors.{name}.{}: {}", error.field, error.problem), None);
            }
            if let Some(why) = connector.exposure() {
                self.findings.push(Finding::Warning(format!(
                    "connector \"{name}\" shows its credentials to everybody on the way: {why}"
                )));
            }
        }
    }

    fn admin(&mut self, config: &Config) {
        let address = config.admin.address;
        for (key, fault) in config.admin.faults() {
            self.error(Path::keys(&["admin", key]), fault, None);
        }
        if config.admin.enabled && config.admin.tls.is_none() && !address.ip().is_loopback() {
            self.findings.push(Finding::Warning(format!(
                "the administration interface is to be reached from elsewhere at {address}, and shows passwords and tokens to everybody on the way: it has no [admin.tls]"
            )));
        }
    }
}

/// The ways to tell who a client of the listener is.
pub(crate) fn methods_of<'c>(
    listener: &Listener,
    known: &'c BTreeMap<String, AuthenticatorConfig>,
) -> Vec<&'c AuthenticatorConfig> {
    match &listener.authentication {
        Some(names) => names.iter().filter_map(|name| known.get(name)).collect(),
        None => known.values().collect(),
    }
}

fn is_name(name: &str) -> bool {
    name.len() <= NAME_BYTES_MAX
        && name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
        && !name.contains("__")
}
