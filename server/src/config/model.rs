//! The keys of the configuration: names, types, defaults and ranges.
//!
//! Every key is described for users in `config/tidegate.toml`; a test compares the two. Unknown keys are errors.
//! Ranges are checked in [`super::validate`], where the place of a value in the file is known.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use actions::AddressRange;
use actions::config::ConnectorConfig;
use schemars::JsonSchema;
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize};

use super::acl::AclConfig;
use super::admin::Admin;
use super::alarms::Alarms;
use super::authentication::{AuthenticationLimits, AuthenticatorConfig, LockoutConfig};
use super::listeners::{ClientIdRule, ListenerTls, ListenerWebSocket, SessionTakeover};
use super::metrics::Metrics;
use super::schema;
use super::trace::Trace;
use super::units::{ByteSize, Period};

/// The whole configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where the broker keeps what it must not forget. Default: `$STATE_DIRECTORY`, else `$XDG_STATE_HOME/tidegate`, else
    /// `~/.local/state/tidegate`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_dir: Option<PathBuf>,
    /// Folder of the rule files, `*.toml`. Default: `rules.d` beside the configuration file, when it is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rules_dir: Option<PathBuf>,
    /// Where clients connect. Default: one listener, `tcp`, on 127.0.0.1:1883, anonymous clients allowed.
    #[schemars(length(min = 1))]
    pub listeners: Vec<Listener>,
    /// Ways to tell who a client is, which listeners refer to by name. Default: none.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("propertyNames" = schema::name()))]
    pub authentication: BTreeMap<String, AuthenticatorConfig>,
    /// What clients may publish and subscribe to. Default: everything.
    pub acl: AclConfig,
    /// What one client, one message and one rule may use.
    pub limits: Limits,
    /// What survives a restart.
    pub store: Store,
    /// The administration listener.
    pub admin: Admin,
    /// What the actions of all rules may do.
    pub actions: Actions,
    /// Addresses and credentials that actions refer to by name. Default: none.
    #[schemars(extend("propertyNames" = schema::name()))]
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "actions::connectors::by_type")]
    pub connectors: BTreeMap<String, ConnectorConfig>,
    /// What is logged, and how.
    pub log: Log,
    /// What is measured beside what is always counted.
    pub metrics: Metrics,
    /// The `$SYS` topics.
    pub sys: Sys,
    /// Which messages are traced.
    pub trace: Trace,
    /// What is worth an alarm.
    pub alarms: Alarms,
    /// When the configuration is read again by itself.
    pub reload: Reload,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: None,
            rules_dir: None,
            listeners: vec![Listener::local_default()],
            authentication: BTreeMap::new(),
            acl: AclConfig::default(),
            limits: Limits::default(),
            store: Store::default(),
            admin: Admin::default(),
            actions: Actions::default(),
            connectors: BTreeMap::new(),
            log: Log::default(),
            metrics: Metrics::default(),
            sys: Sys::default(),
            trace: Trace::default(),
            alarms: Alarms::default(),
            reload: Reload::default(),
        }
    }
}

/// One address where clients connect.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// Unique name, used in logs and in `TIDEGATE_LISTENERS__<NAME>__…`: a letter, then letters, digits, `-` and `_`.
    #[schemars(regex(pattern = schema::NAME))]
    pub name: String,
    /// What is spoken here. Default: `tcp`.
    #[serde(default)]
    pub kind: ListenerKind,
    /// IP address and port; port 0 lets the system choose one. Every kind but `unix` needs it.
    #[schemars(with = "Option<schema::Address>")]
    #[serde(default, deserialize_with = "some_address", skip_serializing_if = "Option::is_none")]
    pub address: Option<SocketAddr>,
    /// The socket's file; for `unix`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// Permissions of the socket's file, as in chmod. Default `0660`.
    #[schemars(regex(pattern = schema::MODE))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// Proxies that have to say by the PROXY protocol, version 2, whose connection it is; nobody else may connect then.
    /// Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub proxy_protocol: Vec<AddressRange>,
    /// Certificates; for `tls`, `wss` and `auto`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<ListenerTls>,
    /// Settings of WebSocket; for `ws`, `wss` and `auto`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub websocket: Option<ListenerWebSocket>,
    /// Whether clients that give no credentials are let in. Default: false.
    #[serde(default)]
    pub allow_anonymous: bool,
    /// Names of the ways to tell who a client is, in the order in which they are asked. Default: the one there is, if there
    /// is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authentication: Option<Vec<String>>,
    /// Which Client Identifiers clients may have. Default: `any`.
    #[serde(default)]
    pub client_id: ClientIdRule,
    /// Who may take over the session of a user: `same_user` or `anyone`. Default: `same_user`.
    #[serde(default)]
    pub session_takeover: SessionTakeover,
    /// Connections open at one time. Default 100,000, range 1 to 10,000,000.
    #[schemars(range(min = 1, max = 10_000_000))]
    #[serde(default = "Listener::default_max_connections")]
    pub max_connections: u32,
    /// What is allowed here otherwise than `[limits]` say. Default: nothing.
    #[serde(default)]
    pub limits: ListenerLimits,
}

impl Listener {
    /// The listener of a configuration that names none.
    pub fn local_default() -> Self {
        Self {
            name: "tcp".to_owned(),
            kind: ListenerKind::Tcp,
            address: Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1883)),
            path: None,
            mode: None,
            proxy_protocol: Vec::new(),
            tls: None,
            websocket: None,
            allow_anonymous: true,
            authentication: None,
            client_id: ClientIdRule::default(),
            session_takeover: SessionTakeover::default(),
            max_connections: Self::default_max_connections(),
            limits: ListenerLimits::default(),
        }
    }

    fn default_max_connections() -> u32 {
        100_000
    }
}

/// What a listener speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ListenerKind {
    /// MQTT over plain TCP.
    #[default]
    Tcp,
    /// MQTT over TLS.
    Tls,
    /// MQTT over WebSocket.
    Ws,
    /// MQTT over WebSocket and TLS.
    Wss,
    /// MQTT over a Unix socket.
    Unix,
    /// Any of them but a Unix socket, told apart by the first byte.
    Auto,
}

impl ListenerKind {
    /// Its name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Ws => "ws",
            Self::Wss => "wss",
            Self::Unix => "unix",
            Self::Auto => "auto",
        }
    }
}

/// What one client, one message, one session and one rule may use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Largest packet accepted, fixed header included. Default 1 MiB, range 1 KiB to 256 MiB.
    pub max_packet_size: ByteSize,
    /// QoS 1 and QoS 2 messages that one client may have under way to us. Default 1,024, range 1 to 65,535.
    pub receive_maximum: u16,
    /// QoS 1 and QoS 2 messages that we have under way to one client. Default 1,024, range 1 to 65,535.
    pub max_inflight: u16,
    /// Bytes of the messages that we have under way to one client; the one that reaches them still goes. Default 16 MiB, range
    /// 1 KiB to 1 GiB.
    pub max_inflight_bytes: ByteSize,
    /// Topic aliases that one client may use. Default 32, range 0 (none) to 65,535.
    pub topic_alias_maximum: u16,
    /// Longest Keep Alive. Default 0 s (any), range 0 s to 65,535 s.
    pub max_keep_alive: Period,
    /// Longest time a session outlives its connection. Default 7 days, range 0 s to 36,500 days.
    pub max_session_expiry: Period,
    /// Shortest time that a will waits after a crash of the broker, if its session may be resumed; the longest is twice that.
    /// Default 30 s, range 0 s to 1 hour.
    pub will_after_crash: Period,
    /// Bytes queued for one session. Default 1 GiB, range 64 KiB to 1 TiB.
    pub max_queued_bytes: ByteSize,
    /// Messages queued for one session, where they are kept in memory alone. Default 10,000, range 1 to 100,000,000.
    pub max_queued_messages: u32,
    /// Bytes of the messages that wait in memory for all sessions together; 0: a quarter of the memory that the process may
    /// have. Default 0, range 0 to 1 TiB.
    pub max_queued_memory: ByteSize,
    /// What happens to a message that doesn't fit the queue. Default `drop_oldest`.
    pub max_queued_policy: QueuePolicy,
    /// Bytes that wait in memory for one client's socket. Default 4 MiB, range 64 KiB to 1 GiB.
    pub max_outbound_bytes: ByteSize,
    /// Longest time for which a publisher isn't read because a receiver is behind. Default 100 ms, range 0 s to 60 s.
    pub max_publish_pause: Period,
    /// Levels of a Topic Name or Topic Filter. Default 128, range 1 to 128.
    pub max_topic_levels: u16,
    /// Bytes of a Client Identifier. Default 256, range 23 to 65,535.
    pub max_client_id_bytes: u16,
    /// User properties of one packet. Default 64, range 0 to 65,535.
    pub max_user_properties: u16,
    /// Bytes of the user properties of one packet. Default 8 KiB, range 0 to 1 MiB.
    pub max_user_properties_bytes: ByteSize,
    /// Subscriptions of one session. Default 10,000, range 1 to 10,000,000.
    pub max_subscriptions_per_session: u32,
    /// Retained messages in all. Default 1,000,000, range 0 to 1,000,000,000.
    pub max_retained_messages: u32,
    /// Bytes of all retained messages. Default 1 GiB, range 0 to 1 TiB.
    pub max_retained_bytes: ByteSize,
    /// Time from the connection to a whole CONNECT. Default 10 s, range 1 s to 600 s.
    pub connect_timeout: Period,
    /// Largest packet before a CONNECT was accepted. Default 16 KiB, range 1 KiB to 1 MiB.
    pub max_connect_packet_size: ByteSize,
    /// Connections at one time on all listeners. Default 1,000,000, range 1 to 10,000,000.
    pub max_connections: u32,
    /// Connections at one time that are on their way to MQTT: through TLS, WebSocket, a proxy's header. Default 4,096, range 1 to
    /// 1,000,000.
    pub max_handshakes: u32,
    /// What telling who clients are may cost.
    pub authentication: AuthenticationLimits,
    /// When somebody who fails to prove who they are has to wait.
    pub lockout: LockoutConfig,
    /// Connections at one time of one address, in IPv6 of one network of 64 bits. Default 0 (any), range 0 to 10,000,000.
    pub max_connections_per_address: u32,
    /// Clients connected at one time under one user name. Default 0 (any), range 0 to 10,000,000.
    pub max_connections_per_user: u32,
    /// Connections accepted in one second on all listeners. Default 0 (any), range 0 to 1,000,000.
    pub max_connect_rate: u32,
    /// Messages that one client publishes in one second. Default 0 (any), range 0 to 10,000,000.
    pub max_publish_rate: u32,
    /// Bytes that one client publishes in one second. Default 0 (any), range 0 to 1 TiB.
    pub max_publish_bytes_rate: ByteSize,
    /// What one rule may use.
    pub rules: RuleLimits,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_packet_size: ByteSize::mib(1),
            receive_maximum: 1_024,
            max_inflight: 1_024,
            max_inflight_bytes: ByteSize::mib(16),
            topic_alias_maximum: 32,
            max_keep_alive: Period::ZERO,
            max_session_expiry: Period::days(7),
            will_after_crash: Period::secs(30),
            max_queued_bytes: ByteSize::gib(1),
            max_queued_messages: 10_000,
            max_queued_memory: ByteSize::bytes(0),
            max_queued_policy: QueuePolicy::DropOldest,
            max_outbound_bytes: ByteSize::mib(4),
            max_publish_pause: Period::millis(100),
            max_topic_levels: 128,
            max_client_id_bytes: 256,
            max_user_properties: 64,
            max_user_properties_bytes: ByteSize::kib(8),
            max_subscriptions_per_session: 10_000,
            max_retained_messages: 1_000_000,
            max_retained_bytes: ByteSize::gib(1),
            connect_timeout: Period::secs(10),
            max_connect_packet_size: ByteSize::kib(16),
            max_connections: 1_000_000,
            max_handshakes: 4_096,
            authentication: AuthenticationLimits::default(),
            lockout: LockoutConfig::default(),
            max_connections_per_address: 0,
            max_connections_per_user: 0,
            max_connect_rate: 0,
            max_publish_rate: 0,
            max_publish_bytes_rate: ByteSize::bytes(0),
            rules: RuleLimits::default(),
        }
    }
}

/// What one listener allows where it isn't what `[limits]` say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ListenerLimits {
    /// Largest packet accepted here. Default: that of `[limits]`; the same range.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_packet_size: Option<ByteSize>,
    /// Connections accepted in one second here; those of `[limits]` count beside it. Default 0 (any), range 0 to 1,000,000.
    #[schemars(range(max = 1_000_000))]
    pub max_connect_rate: u32,
    /// Messages that one client publishes here in one second. Default: that of `[limits]`; the same range.
    #[schemars(range(max = 10_000_000))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_publish_rate: Option<u32>,
    /// Bytes that one client publishes here in one second. Default: those of `[limits]`; the same range.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_publish_bytes_rate: Option<ByteSize>,
}

/// What happens to a message that doesn't fit a session's queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum QueuePolicy {
    /// The oldest queued message goes, and is counted.
    #[default]
    DropOldest,
    /// The new message is refused to its publisher; nobody gets it.
    Refuse,
}

/// What one rule may use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RuleLimits {
    /// SQL text of one rule. Default 64 KiB, range 1 KiB to 64 KiB.
    pub statement_bytes: ByteSize,
    /// Operators, dots and parentheses of one rule. Default 8,192, range 64 to 8,192.
    pub operators: u16,
    /// Nesting of an expression. Default 64, range 1 to 64.
    pub depth: u16,
    /// Items of one SELECT. Default 256, range 1 to 4,096.
    pub items: u16,
    /// Nesting of queries. Default 4, range 0 to 16.
    pub subquery_depth: u16,
    /// Array items visited by one evaluation. Default 10,000, range 1 to 10,000,000.
    pub array_steps: u32,
    /// Steps of one evaluation. Default 1,000,000, range 1,000 to 100,000,000.
    pub steps: u32,
    /// Output of one evaluation. Default 1 MiB, range 1 KiB to 256 MiB.
    pub output_bytes: ByteSize,
    /// One compiled regular expression. Default 1 MiB, range 1 KiB to 64 MiB.
    pub regex_bytes: ByteSize,
    /// Nesting of a payload that is read as JSON. Default 64, range 1 to 128.
    pub json_depth: u16,
    /// One template. Default 8 KiB, range 64 B to 1 MiB.
    pub template_bytes: ByteSize,
    /// Rules that may make a message from a message before the chain is cut. Default 8, range 1 to 64.
    pub hops: u8,
}

impl Default for RuleLimits {
    fn default() -> Self {
        Self {
            statement_bytes: ByteSize::kib(64),
            operators: 8_192,
            depth: 64,
            items: 256,
            subquery_depth: 4,
            array_steps: 10_000,
            steps: 1_000_000,
            output_bytes: ByteSize::mib(1),
            regex_bytes: ByteSize::mib(1),
            json_depth: 64,
            template_bytes: ByteSize::kib(8),
            hops: 8,
        }
    }
}

/// What survives a restart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Store {
    /// What an acknowledgement promises. Default `commit`.
    pub durability: Durability,
    /// With `interval`: how much a power cut may cost at most. Default 100 ms, range 1 ms to 60 s.
    pub interval: Period,
    /// Bytes of the log on disk; past them new debts are refused. Default 64 GiB, range 256 MiB to 1,024 TiB.
    pub max_bytes: ByteSize,
    /// Bytes that stay free on the disk; with less, new debts are refused. Default 256 MiB, range 0 to 1 TiB.
    pub reserve: ByteSize,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            durability: Durability::default(),
            interval: Period::millis(100),
            max_bytes: ByteSize::gib(64),
            reserve: ByteSize::mib(256),
        }
    }
}

/// What is safe when a packet that lets the other side forget leaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// On disk before the packet leaves.
    #[default]
    Commit,
    /// On disk within a set time.
    Interval,
    /// In memory only.
    Memory,
}

/// What the actions of all rules may do.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Actions {
    /// Loopback, private and reserved addresses that actions may connect to. Default: none.
    pub allow_private: Vec<AddressRange>,
}

/// What is logged, and how. The log goes to the standard error stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// `error`, `warn`, `info`, `debug`, `trace` or `off`; or for single parts, as in `info,broker=debug`.
    pub level: String,
    /// Default `text`.
    pub format: LogFormat,
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::Text }
    }
}

/// The shape of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One line for people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// The `$SYS` topics.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Sys {
    /// Time between two publications of `$SYS/broker/#`. Default 10 s, range 1 s to 1 day; 0 s switches them off.
    pub interval: Period,
}

impl Default for Sys {
    fn default() -> Self {
        Self { interval: Period::secs(10) }
    }
}

/// When the configuration is read again without being told to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Reload {
    /// Whether the files of the configuration and of the rules are read again when they change. Default: false.
    pub watch: bool,
    /// Time between two looks at the files. Default 2 s, range 100 ms to 1 hour.
    pub interval: Period,
}

impl Default for Reload {
    fn default() -> Self {
        Self { watch: false, interval: Period::secs(2) }
    }
}

/// Reads an address that may be left out.
fn some_address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SocketAddr>, D::Error> {
    address(deserializer).map(Some)
}

/// Reads an IP address with a port; host names are refused, since what they mean may change between two starts.
pub(super) fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    struct AddressVisitor;
    impl Visitor<'_> for AddressVisitor {
        type Value = SocketAddr;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an IP address and a port such as \"127.0.0.1:1883\" or \"[::1]:1883\"")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<SocketAddr, E> {
            text.parse().map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self))
        }
    }
    deserializer.deserialize_str(AddressVisitor)
}
