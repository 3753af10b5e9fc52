use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;

use tempfile::TempDir;

use super::*;
use crate::config::{self, load_text};
use crate::storage::Storage;

const RULE: &str = "
[rules.r]
sql = \"SELECT * FROM 'in'\"
[[rules.r.actions]]
name = 'a'
type = 'republish'
topic = 'out'
";

/// A server that was started with a file.
struct Started {
    folder: TempDir,
    server: Server,
    reloader: Arc<Reloader>,
}

const LISTENER: &str = "[[listeners]]\nname = 'tcp'\naddress = '127.0.0.1:0'\nallow_anonymous = true\n";

impl Started {
    async fn new(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("rules.d")).unwrap();
        fs::write(folder.path().join("rules.d/r.toml"), RULE).unwrap();
        fs::write(folder.path().join("tidegate.toml"), format!("{ADMIN_OFF}{text}{LISTENER}")).unwrap();
        Self::in_folder(folder, "tidegate.toml").await
    }

    async fn in_folder(folder: TempDir, file: &str) -> Self {
        let path = folder.path().join(file);
        let environment = Environment::default();
        let loaded = config::load(Some(&path), &environment).unwrap();
        let rules = server::load_rules(&loaded.config, path.parent().unwrap()).unwrap();
        let server = Server::start(&loaded.config, &rules, &Storage::memory()).await.unwrap();
        let reloader = Arc::new(Reloader::new(&server, &loaded, &[], &environment));
        Self { folder, server, reloader }
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.folder.path().join(file), text).unwrap();
    }

    /// Writes the configuration, with the listener that is always there.
    fn configure(&self, text: &str) {
        self.write("tidegate.toml", &format!("{ADMIN_OFF}{text}{LISTENER}"));
    }

    /// Reads everything again where blocking is allowed.
    async fn apply(&self) -> Result<Reloaded, ReloadError> {
        let reloader = Arc::clone(&self.reloader);
        tokio::task::spawn_blocking(move || reloader.apply()).await.unwrap()
    }

    async fn look(&self, last: Files) -> Files {
        let (reloader, mut last) = (Arc::clone(&self.reloader), last);
        tokio::task::spawn_blocking(move || {
            reloader.look(&mut last);
            last
        })
        .await
        .unwrap()
    }

    /// The rules that run, with their SQL.
    fn rules(&self) -> Vec<(String, String)> {
        let entries = self.server.rule_book().list(None, usize::MAX).0;
        entries.into_iter().map(|entry| (entry.name, entry.definition["sql"].to_string())).collect()
    }

    fn listeners(&self) -> Vec<String> {
        self.server.listeners().bound().iter().map(|bound| bound.name.to_string()).collect()
    }
}

/// Servers of tests have no port in common.
const ADMIN_OFF: &str = "admin.enabled = false\n";

fn keys(told: &Reloaded) -> Vec<(&str, bool)> {
    told.changes.iter().map(|change| (change.change.key.as_str(), change.needs_restart)).collect()
}

/// Every value of a configuration by its key.
fn values(config: &Config) -> BTreeMap<String, toml::Value> {
    fn collect(key: &str, value: &toml::Value, values: &mut BTreeMap<String, toml::Value>) {
        let within = |name: &str| if key.is_empty() { name.to_owned() } else { format!("{key}.{name}") };
        match value {
            toml::Value::Table(table) => {
                table.iter().for_each(|(name, value)| collect(&within(name), value, values));
            }
            toml::Value::Array(items) if items.iter().any(toml::Value::is_table) => {
                for item in items {
                    collect(&within(item["name"].as_str().unwrap()), item, values);
                }
            }
            _ => {
                values.insert(key.to_owned(), value.clone());
            }
        }
    }
    let mut all = BTreeMap::new();
    collect("", &toml::Value::try_from(config).unwrap(), &mut all);
    all
}

fn changed(before: &Config, after: &Config) -> Vec<String> {
    let (before, after) = (values(before), values(after));
    let keys = before.keys().chain(after.keys()).filter(|key| before.get(*key) != after.get(*key));
    keys.cloned().collect::<std::collections::BTreeSet<_>>().into_iter().collect()
}

#[test]
fn what_is_said_to_count_at_once_is_what_is_put_in_place() {
    let read = |text: &str| load_text(text, None, &Environment::default()).unwrap().config;
    let before = read(BEFORE);
    let after = read(AFTER);
    // A key that is the same in both shows nothing: names and kinds of listeners stay for their sake.
    let same: Vec<String> = values(&before)
        .into_iter()
        .filter(|(key, value)| values(&after).get(key) == Some(value))
        .map(|(key, _)| key)
        .collect();
    let named = ["listeners.tcp.kind", "listeners.tcp.name", "listeners.tls.kind", "listeners.tls.name"];
    // Which hosts are allowed isn't said where the address names one.
    let others = ["authentication.file.type", "connectors.ops.allowed_hosts", "connectors.ops.type"];
    assert_eq!(same, [&others[..], &named].concat());
    let both = Both { running: &before.listeners, fresh: &after.listeners };
    let all = changed(&before, &after);
    let said: Vec<String> = all.iter().filter(|key| !both.needs_restart(key)).cloned().collect();
    assert_eq!(changed(&before, &with_live_parts(&before, after.clone())), said);
    assert!(said.len() > 15 && all.len() > said.len() + 30, "{said:?} of {all:?}");
    // What was put in place is no change any more.
    let now = with_live_parts(&before, after.clone());
    let left: Vec<String> = changed(&now, &after);
    let both = Both { running: &now.listeners, fresh: &after.listeners };
    assert!(left.iter().all(|key| both.needs_restart(key)), "{left:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_puts_rules_and_listeners_in_place_and_tells_what_waits_for_a_restart() {
    let started = Started::new("limits.max_inflight = 10\n").await;
    assert!(keys(&started.apply().await.unwrap()).is_empty(), "nothing has changed");
    started.write("rules.d/r.toml", &RULE.replace("SELECT *", "SELECT a"));
    started.write("rules.d/s.toml", &RULE.replace("rules.r", "rules.s"));
    let more = "[[listeners]]\nname = 'more'\naddress = '127.0.0.1:0'\n";
    started.configure(&format!("limits.max_inflight = 20\nlog.level = 'warn'\n{more}"));

    // A look changes nothing, and says the same as the change.
    let looked = started.reloader.check().unwrap();
    assert_eq!(started.rules().len(), 1);
    assert_eq!(started.listeners(), ["tcp"]);
    let told = started.apply().await.unwrap();
    assert_eq!(looked, told);
    assert_eq!(
        (&told.rules.added[..], &told.rules.changed[..]),
        (&["s".to_owned()][..], &["r".to_owned()][..])
    );
    let restart: Vec<_> = keys(&told).into_iter().filter(|(_, restart)| *restart).collect();
    assert_eq!(restart, [("limits.max_inflight", true)]);
    assert!(keys(&told).contains(&("listeners.more.address", false)));
    assert_eq!(started.listeners(), ["tcp", "more"]);
    assert!(started.rules()[0].1.contains("SELECT a"));

    // What waits for a restart is told again until then; what holds isn't.
    let again = started.apply().await.unwrap();
    assert_eq!(keys(&again), [("limits.max_inflight", true)]);
    assert!(again.rules.is_empty());
    started.configure("limits.max_inflight = 10\n");
    let told = started.apply().await.unwrap();
    assert!(keys(&told).iter().all(|(_, restart)| !restart), "{told:?}");
    assert_eq!(started.listeners(), ["tcp"]);
    started.server.stop(std::time::Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_connected_to_a_listener_that_goes_stays() {
    // Where nobody else listens, so that nobody else is given the port once it is free.
    let more = "[[listeners]]\nname = 'more'\naddress = '127.0.0.2:0'\nallow_anonymous = true\n";
    let started = Started::new("").await;
    started.configure(more);
    started.apply().await.unwrap();
    let bound = started.server.listeners().bound();
    let address = bound.iter().find(|bound| &*bound.name == "more").unwrap().address().unwrap();
    let options = crate::client::Options {
        endpoint: crate::client::Endpoint::Tcp { host: address.ip().to_string(), port: address.port() },
        ..crate::client::Options::default()
    };
    let mut client = crate::client::Client::connect(&options).await.unwrap();
    started.configure("");
    started.apply().await.unwrap();
    while tokio::net::TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    client.publish(&crate::client::Message::new("a", "b").with_qos(mqtt_protocol::QoS::AtLeastOnce)).unwrap();
    assert!(matches!(client.next().await.unwrap(), crate::client::Event::Published { .. }));
    started.server.stop(std::time::Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_refused_leaves_everything_as_it_was() {
    let started = Started::new("").await;
    let before = started.rules();
    started.write("rules.d/r.toml", &RULE.replace("SELECT *", "SELECT b"));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap();
    let more = "[[listeners]]\nname = 'more'\naddress = '127.0.0.1:0'\n";
    for (text, refused) in [
        ("limits.max_inflihgt = 3\n".to_owned(), "did you mean `max_inflight`?"),
        ("acl.file = 'nowhere'\n".to_owned(), "the file of access rules"),
        ("acl.rules = ['allow nothing']\n".to_owned(), "expected `publish`, `subscribe` or `all`"),
        ("[authentication.f]\ntype = 'password_file'\nfile = 'nowhere'\n".to_owned(), "nowhere"),
        ("rules_dir = 'nowhere'\n".to_owned(), "is no folder"),
        (
            format!(
                "{more}[[listeners]]\nname = 'tls'\nkind = 'tls'\naddress = '127.0.0.1:0'\ntls = {{ certificate = 'no.pem', key = 'no.key' }}\n"
            ),
            "no.pem",
        ),
        (
            format!("{more}[[listeners]]\nname = 'busy'\naddress = '{taken}'\n"),
            "is in use by another program",
        ),
    ] {
        started.configure(&text);
        let error = started.apply().await.unwrap_err();
        let faults = error.faults().iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        assert!(faults.contains(refused), "{text}: {faults}");
        assert_eq!(started.rules(), before, "{text}");
        assert_eq!(started.listeners(), ["tcp"], "{text}");
    }
    // A broken rule keeps a good configuration from being taken, and the other way round.
    started.configure("acl.rules = ['deny all all \"#\"']\n");
    started.write("rules.d/r.toml", &RULE.replace("SELECT *", "SELECT"));
    let faults = started.apply().await.unwrap_err().faults();
    assert!(faults[0].to_string().contains("r.toml:"), "{faults:?}");
    // A file that is gone, or empty, isn't taken for one that says nothing.
    fs::remove_file(started.folder.path().join("tidegate.toml")).unwrap();
    assert!(matches!(started.apply().await, Err(ReloadError::Config(ConfigErrors::Read { .. }))));
    started.write("rules.d/r.toml", RULE);
    started.configure("");
    assert!(keys(&started.apply().await.unwrap()).is_empty());
    started.server.stop(std::time::Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_difference_shows_no_secret() {
    let connector = |token: &str| {
        format!(
            "[connectors.ops]\ntype = 'http'\nurl = 'https://ops.example'\nauth = {{ type = 'bearer', token = '{token}' }}\n"
        )
    };
    let started = Started::new(&connector("canary-1")).await;
    started.configure(&connector("canary-2"));
    let told = started.apply().await.unwrap();
    assert_eq!(keys(&told), [("connectors.ops.auth.token", false)]);
    let text = format!("{told:?}");
    assert!(!text.contains("canary"), "{text}");
    started.server.stop(std::time::Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_change_are_read_again_once_they_have_settled() {
    let started = Started::new("").await;
    let mut last = started.look(Files::new()).await;
    started.write("rules.d/s.toml", &RULE.replace("rules.r", "rules.s"));
    last = started.look(last).await;
    assert_eq!(started.rules().len(), 1, "it may not be whole yet");
    last = started.look(last).await;
    assert_eq!(started.rules().len(), 2);
    // What is refused is told once, and what was there goes on.
    started.write("rules.d/s.toml", "[rules.s]\n");
    for _ in 0..4 {
        last = started.look(last).await;
        assert_eq!(started.rules().len(), 2);
    }
    fs::create_dir(started.folder.path().join("conf.d")).unwrap();
    started.write("conf.d/acl.toml", "[acl]\nrules = ['allow nothing']\n");
    fs::remove_file(started.folder.path().join("rules.d/s.toml")).unwrap();
    last = started.look(last).await;
    last = started.look(last).await;
    assert_eq!(started.rules().len(), 2, "the file in conf.d was seen, and is refused");
    fs::remove_file(started.folder.path().join("conf.d/acl.toml")).unwrap();
    last = started.look(last).await;
    started.look(last).await;
    assert_eq!(started.rules().len(), 1);
    started.server.stop(std::time::Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_symbolic_link_that_is_turned_brings_another_folder() {
    // As Kubernetes mounts a ConfigMap: files lead through `..data`, which is replaced as a whole.
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().to_owned();
    for (version, sql) in [("..1", "SELECT *"), ("..2", "SELECT a")] {
        fs::create_dir_all(root.join(version)).unwrap();
        fs::write(
            root.join(version).join("tidegate.toml"),
            format!("rules_dir = '.'\n{ADMIN_OFF}{LISTENER}"),
        )
        .unwrap();
        fs::write(root.join(version).join("r.toml"), RULE.replace("SELECT *", sql)).unwrap();
    }
    symlink("..1", root.join("..data")).unwrap();
    fs::create_dir(root.join("rules")).unwrap();
    symlink("..data/tidegate.toml", root.join("tidegate.toml")).unwrap();
    symlink("../..data/r.toml", root.join("rules/r.toml")).unwrap();
    for version in ["..1", "..2"] {
        let text = format!("rules_dir = 'rules'\n{ADMIN_OFF}{LISTENER}");
        fs::write(root.join(version).join("tidegate.toml"), text).unwrap();
    }
    let started = Started::in_folder(folder, "tidegate.toml").await;
    let last = started.look(Files::new()).await;
    symlink("..2", root.join("..next")).unwrap();
    fs::rename(root.join("..next"), root.join("..data")).unwrap();
    let last = started.look(last).await;
    started.look(last).await;
    assert!(started.rules()[0].1.contains("SELECT a"), "{:?}", started.rules());
    started.server.stop(std::time::Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_watch_begins_and_ends_with_its_key() {
    let started = Started::new("").await;
    started.reloader.watch();
    started.configure("reload.watch = true\nreload.interval = '100ms'\n");
    started.apply().await.unwrap();
    started.write("rules.d/s.toml", &RULE.replace("rules.r", "rules.s"));
    while started.rules().len() < 2 {
        tokio::task::yield_now().await;
    }
    started.configure("reload.watch = false\n");
    while started.reloader.running.lock().config.reload.watch {
        tokio::task::yield_now().await;
    }
    started.server.stop(std::time::Duration::ZERO).await;
}

/// Every key with a value that isn't the one of [`AFTER`].
const BEFORE: &str = "
[[listeners]]
name = 'tcp'
address = '127.0.0.1:1883'
authentication = ['file']
[[listeners]]
name = 'tls'
kind = 'tls'
address = '127.0.0.1:8883'
tls = { certificate = 'a.pem', key = 'a.key' }
[[listeners]]
name = 'gone'
address = '127.0.0.1:1884'
[authentication.file]
type = 'password_file'
file = 'users'
[acl]
rules = ['allow all all \"#\"']
[connectors.ops]
type = 'http'
url = 'https://ops.example'
";
const AFTER: &str = "
data_dir = 'data'
rules_dir = 'rules'
[[listeners]]
name = 'tcp'
address = '127.0.0.1:1885'
allow_anonymous = true
client_id = 'prefix'
session_takeover = 'anyone'
authentication = ['other']
max_connections = 5
limits = { max_connect_rate = 4, max_publish_rate = 5, max_packet_size = '2KiB', max_publish_bytes_rate = 7 }
[[listeners]]
name = 'tls'
kind = 'tls'
address = '127.0.0.1:8884'
tls = { certificate = 'b.pem', key = 'b.key', client_certificates = 'optional', client_ca = 'ca.pem', min_version = '1.3' }
allow_anonymous = true
client_id = 'prefix'
session_takeover = 'anyone'
max_connections = 6
authentication = ['file']
limits.max_connect_rate = 4
[[listeners]]
name = 'new'
address = '127.0.0.1:1886'
authentication = ['file']
[authentication.file]
type = 'password_file'
file = 'others'
[authentication.other]
type = 'password_file'
file = 'more'
[acl]
rules = ['allow all all \"a\"']
[limits]
max_packet_size = '2KiB'
receive_maximum = 2
max_inflight = 2
max_inflight_bytes = '1MiB'
topic_alias_maximum = 2
max_keep_alive = '2s'
max_session_expiry = '2s'
will_after_crash = '2s'
max_queued_bytes = '128KiB'
max_queued_messages = 2
max_queued_memory = '1MiB'
max_queued_policy = 'refuse'
max_outbound_bytes = '128KiB'
max_publish_pause = '2ms'
max_topic_levels = 2
max_client_id_bytes = 30
max_user_properties = 2
max_user_properties_bytes = 2
max_subscriptions_per_session = 2
max_retained_messages = 2
max_retained_bytes = 2
connect_timeout = '2s'
max_connect_packet_size = '2KiB'
max_connections = 2
max_handshakes = 2
max_connections_per_address = 2
max_connections_per_user = 2
max_connect_rate = 2
max_publish_rate = 2
max_publish_bytes_rate = 2
[store]
durability = 'interval'
interval = '2ms'
max_bytes = '300MiB'
reserve = 2
[admin]
enabled = false
address = '127.0.0.1:7081'
hosts = ['a.example']
read_only = true
[actions]
allow_private = ['10.0.0.0/8']
[connectors.ops]
type = 'http'
url = 'https://ops2.example'
allow_private = ['10.0.0.0/8']
[log]
level = 'warn'
format = 'json'
[metrics]
rule_sample = 1
max_rules = 2
topics = ['a']
heavy_hitters = 3
heavy_hitters_sample = 4
slow_subscribers = 5
slow_after = '6s'
history = false
[sys]
interval = '2s'
[alarms]
enabled = false
interval = '6s'
queue_age = '6m'
queue_full_within = '16m'
sink_down = '31s'
certificate_expiry = '15d'
disk_free = '1MiB'
rule_errors = 11
rule_silent = 11
[trace]
ratio = 0.5
clients = ['c']
topics = ['t/#']
rules = ['r']
errors = false
trust_context = true
max_traces = 50
max_memory = '1MiB'
[trace.otlp]
enabled = false
endpoint = 'http://127.0.0.1:4318/v1/traces'
protocol = 'http/json'
headers = { a = 'b' }
ca = '/ca.pem'
insecure_http = true
timeout = '1s'
export_timeout = '2s'
schedule_delay = '1s'
max_queued_spans = 100
max_queued_memory = '1MiB'
max_batch_spans = 10
explanations = true
service_name = 'edge'
resource_attributes = { plant = 'a' }
[reload]
watch = true
interval = '3s'
[limits.authentication]
cached_password_time = '2m'
cached_passwords = 2
concurrent_hashes = 3
queued_hashes = 2
[limits.lockout]
failures_per_address = 2
failures_per_user = 2
first_wait = '2s'
longest_wait = '3s'
forget_after = '2h'
remembered = 2000
[limits.rules]
statement_bytes = '2KiB'
operators = 70
depth = 2
items = 2
subquery_depth = 2
array_steps = 2
steps = 2000
output_bytes = '2KiB'
regex_bytes = '2KiB'
json_depth = 2
template_bytes = '2KiB'
hops = 2
";
