//! What a configuration may say, and how each refusal reads.

use std::path::Path;
use std::time::Duration;

use super::*;

const FILE: &str = "/etc/tidegate/tidegate.toml";

fn none() -> Environment {
    Environment::default()
}

fn env(variables: &[(&str, &str)]) -> Environment {
    variables.iter().copied().collect()
}

fn read(text: &str, environment: &Environment) -> Result<Loaded, ConfigErrors> {
    load_text(text, Some(Path::new(FILE)), environment)
}

#[track_caller]
fn accepted(text: &str, environment: &Environment) -> Config {
    match read(text, environment) {
        Ok(loaded) => loaded.config,
        Err(errors) => panic!("refused:\n{}", errors.render()),
    }
}

#[track_caller]
fn refused(text: &str, environment: &Environment) -> String {
    match read(text, environment) {
        Ok(loaded) => panic!("accepted: {:?}", loaded.config),
        Err(errors) => errors.render(),
    }
}

/// Compares with a golden text whose first line is blank and which is not indented.
#[track_caller]
fn assert_refused(text: &str, environment: &Environment, expected: &str) {
    assert_eq!(refused(text, environment), expected.trim_start_matches('\n'));
}

#[test]
fn an_empty_file_is_the_default() {
    assert_eq!(accepted("", &none()), Config::default());
    let Loaded { config, warnings, path, .. } = load(None, &none()).unwrap();
    assert_eq!(config, Config::default());
    assert_eq!(path, None);
    assert_eq!(warnings, Vec::<String>::new());
    assert!(config.listeners.iter().all(|listener| listener.is_local()));
}

#[test]
fn every_kind_of_value_is_read() {
    let config = accepted(
        r#"
        data_dir = "data"
        rules_dir = "/srv/rules"
        [[listeners]]
        name = "lan"
        address = "[::1]:2883"
        allow_anonymous = true
        max_connections = 5
        [limits]
        max_packet_size = "2MiB"
        max_keep_alive = "90s"
        receive_maximum = 16
        max_queued_policy = "refuse"
        [limits.rules]
        output_bytes = 4096
        [store]
        durability = "interval"
        interval = "20ms"
        max_bytes = "2GiB"
        reserve = "0B"
        [admin]
        address = "127.0.0.1:9"
        [log]
        level = "info,broker=debug"
        format = "json"
        [sys]
        interval = "0s"
        "#,
        &none(),
    );
    assert_eq!(config.data_dir.as_deref(), Some(Path::new("/etc/tidegate/data")));
    assert_eq!(config.rules_dir.as_deref(), Some(Path::new("/srv/rules")));
    assert_eq!(config.listeners.len(), 1);
    assert_eq!(config.listeners[0].kind, ListenerKind::Tcp);
    assert_eq!(config.listeners[0].address, "[::1]:2883".parse().ok());
    assert_eq!(config.listeners[0].max_connections, 5);
    assert_eq!(config.limits.max_packet_size, ByteSize::mib(2));
    assert_eq!(config.limits.max_keep_alive.as_duration(), Duration::from_secs(90));
    assert_eq!(config.limits.receive_maximum, 16);
    assert_eq!(config.limits.max_queued_policy, QueuePolicy::Refuse);
    assert_eq!(config.limits.rules.output_bytes, ByteSize::kib(4));
    assert_eq!(config.limits.topic_alias_maximum, Limits::default().topic_alias_maximum);
    let store = Store {
        durability: Durability::Interval,
        interval: Period::millis(20),
        max_bytes: ByteSize::gib(2),
        reserve: ByteSize::bytes(0),
    };
    assert_eq!(config.store, store);
    assert_eq!(config.log, Log { level: "info,broker=debug".into(), format: LogFormat::Json });
    assert_eq!(config.sys.interval, Period::ZERO);
}

#[test]
fn a_printed_configuration_reads_back() {
    let config =
        accepted("data_dir = '/d'\n[limits]\nmax_keep_alive = '90s'\n[sys]\ninterval = '1m'\n", &none());
    let printed = toml::to_string(&config).unwrap();
    assert_eq!(accepted(&printed, &none()), config);
}

#[test]
fn variables_override_the_file() {
    let text = "[[listeners]]\nname = 'lan-1'\naddress = '127.0.0.1:1'\n[[listeners]]\nname = 'tcp'\naddress = '127.0.0.1:2'\n";
    let config = accepted(
        text,
        &env(&[
            ("TIDEGATE_LISTENERS__TCP__ADDRESS", "127.0.0.1:3"),
            ("TIDEGATE_LISTENERS__LAN_1__ALLOW_ANONYMOUS", "true"),
            ("TIDEGATE_LIMITS__MAX_PACKET_SIZE", "3MiB"),
            ("TIDEGATE_LIMITS__RECEIVE_MAXIMUM", "7"),
            ("TIDEGATE_LIMITS__RULES__DEPTH", "9"),
            ("TIDEGATE_LOG__FORMAT", "json"),
            ("TIDEGATE_DATA_DIR", "/data"),
        ]),
    );
    assert_eq!(config.listeners[1].address, "127.0.0.1:3".parse().ok());
    assert!(config.listeners[0].allow_anonymous);
    assert!(!config.listeners[1].allow_anonymous);
    assert_eq!(config.limits.max_packet_size, ByteSize::mib(3));
    assert_eq!(config.limits.receive_maximum, 7);
    assert_eq!(config.limits.rules.depth, 9);
    assert_eq!(config.log.format, LogFormat::Json);
    assert_eq!(config.data_dir.as_deref(), Some(Path::new("/data")));
}

#[test]
fn variables_change_the_default_listener() {
    let Loaded { config, .. } =
        load(None, &env(&[("TIDEGATE_LISTENERS__TCP__ADDRESS", "127.0.0.1:4883")])).unwrap();
    assert_eq!(config.listeners.len(), 1);
    assert_eq!(config.listeners[0].address, "127.0.0.1:4883".parse().ok());
    assert!(config.listeners[0].allow_anonymous);
}

#[test]
fn a_digits_only_text_stays_text_where_text_is_expected() {
    let config = accepted("", &env(&[("TIDEGATE_DATA_DIR", "2024"), ("TIDEGATE_RULES_DIR", "true")]));
    assert_eq!(config.data_dir.as_deref(), Some(Path::new("/etc/tidegate/2024")));
    assert_eq!(config.rules_dir.as_deref(), Some(Path::new("/etc/tidegate/true")));
}

#[test]
fn variables_of_others_are_left_alone() {
    let environment = env(&[
        ("TIDEGATE_TOKEN", "t"),
        ("TIDEGATE_URL", "http://127.0.0.1:7080"),
        ("TIDEGATE_LOG", "debug"),
        ("TIDEGATE_CONFIG", "/x"),
        ("TIDEGATE_PORT", "tcp://10.0.0.7:1883"),
        ("TIDEGATE_PORT_1883_TCP_ADDR", "10.0.0.7"),
        ("TIDEGATE_SERVICE_HOST", "10.0.0.7"),
        ("PATH", "/bin"),
    ]);
    assert_eq!(accepted("", &environment), Config::default());
}

#[test]
fn secrets_come_from_variables_and_files() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("level.txt"), "warn\n").unwrap();
    let text = "data_dir = '${env:WHERE}'\n[log]\nlevel = '${file:level.txt}'\n";
    let file = folder.path().join("tidegate.toml");
    let config = load_text(text, Some(&file), &env(&[("WHERE", "/state")])).unwrap().config;
    assert_eq!(config.data_dir.as_deref(), Some(Path::new("/state")));
    assert_eq!(config.log.level, "warn");
}

#[test]
fn secrets_are_never_repeated_in_messages() {
    assert_refused(
        "[limits]\nmax_packet_size = '${env:PASSWORD}'\n",
        &env(&[("PASSWORD", "hunter2")]),
        r#"
error: /etc/tidegate/tidegate.toml:2:19: limits.max_packet_size: the value of ${env:PASSWORD} doesn't fit
  |
2 | max_packet_size = '${env:PASSWORD}'
  |                   ^^^^^^^^^^^^^^^^^
  help: config/tidegate.toml says what this key takes; the value is not shown
"#,
    );
    // Whatever the value looks like, and whenever the fault shows.
    for secret in [
        "hunter2-secret",
        "a\"secret\"",
        "x`secret`y",
        "secret, expected u16",
        "1, must be secret",
        "s is no secret",
    ] {
        for (section, key) in [
            ("limits", "receive_maximum"),
            ("limits", "max_queued_policy"),
            ("limits", "connect_timeout"),
            ("limits", "max_packet_size"),
            ("admin", "address"),
            ("log", "level"),
            ("log", "format"),
        ] {
            let text = format!("[{section}]\n{key} = '${{env:PASSWORD}}'\n");
            let answer = refused(&text, &env(&[("PASSWORD", secret)]));
            assert!(!answer.contains("secret") && !answer.contains("hunter2"), "{secret}: {answer}");
            assert!(answer.contains("${env:PASSWORD}"), "{answer}");
        }
    }
    let listener = "[[listeners]]\nname = '${env:PASSWORD}'\naddress = '127.0.0.1:1'\n";
    let answer = refused(listener, &env(&[("PASSWORD", "my secret")]));
    assert!(!answer.contains("my secret"), "{answer}");
}

#[test]
fn broken_references_are_refused() {
    assert_refused(
        "data_dir = '${env:NOWHERE}'\n",
        &none(),
        r#"
error: /etc/tidegate/tidegate.toml:1:12: environment variable "NOWHERE" is not set
  |
1 | data_dir = '${env:NOWHERE}'
  |            ^^^^^^^^^^^^^^^^
"#,
    );
    assert_refused(
        "data_dir = '/srv/${env:SITE}'\n",
        &env(&[("SITE", "a")]),
        r#"
error: /etc/tidegate/tidegate.toml:1:12: `${env:…}`, `${file:…}` and `${credential:…}` stand only as a whole value
  |
1 | data_dir = '/srv/${env:SITE}'
  |            ^^^^^^^^^^^^^^^^^^
  help: put the whole text into the variable or the file
"#,
    );
    let text = refused("data_dir = '${file:no-such-file}'\n", &none());
    assert!(text.contains("\"no-such-file\" can't be read: No such file"), "{text}");
}

#[test]
fn a_large_secret_file_is_refused_and_one_at_the_limit_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tidegate.toml");
    let text = "data_dir = '${file:secret}'\n";
    std::fs::write(folder.path().join("secret"), "a".repeat(64 * 1024)).unwrap();
    load_text(text, Some(&file), &none()).unwrap();
    std::fs::write(folder.path().join("secret"), "a".repeat(64 * 1024 + 1)).unwrap();
    let error = load_text(text, Some(&file), &none()).unwrap_err();
    assert!(error.to_string().contains("larger than the limit of 65536 bytes"), "{error}");
}

#[test]
fn unknown_keys_are_refused_with_the_nearest_name() {
    assert_refused(
        "[limits]\nrecieve_maximum = 3\n",
        &none(),
        r#"
error: /etc/tidegate/tidegate.toml:2:1: unknown key `recieve_maximum` in [limits]
  |
2 | recieve_maximum = 3
  | ^^^^^^^^^^^^^^^
  help: did you mean `receive_maximum`?
"#,
    );
    assert_refused(
        "[sys]\nevery = \"3s\"\n",
        &none(),
        r#"
error: /etc/tidegate/tidegate.toml:2:1: unknown key `every` in [sys]
  |
2 | every = "3s"
  | ^^^^^
  help: expected one of `interval`
"#,
    );
    assert_refused(
        "[listener]\nname = 'x'\n",
        &none(),
        r#"
error: /etc/tidegate/tidegate.toml:1:2: unknown key `listener` in the top level
  |
1 | [listener]
  |  ^^^^^^^^
  help: did you mean `listeners`?
"#,
    );
}

#[test]
fn sections_to_come_are_refused_as_such() {
    let text = refused("[tls]\nx = 1\n", &none());
    assert!(text.contains("[tls] is not available yet in this version"), "{text}");
}

#[test]
fn a_listener_says_whose_client_identifiers_and_sessions_are() {
    let listener = |keys: &str| format!("[[listeners]]\nname='a'\naddress='127.0.0.1:1'\n{keys}");
    let config = accepted(&listener(""), &none());
    let found = &config.listeners[0];
    assert_eq!((found.client_id, found.session_takeover), (ClientIdRule::Any, SessionTakeover::SameUser));
    let config = accepted(&listener("client_id='username'\nsession_takeover='anyone'\n"), &none());
    let found = &config.listeners[0];
    assert_eq!((found.client_id, found.session_takeover), (ClientIdRule::Username, SessionTakeover::Anyone));
    for keys in ["client_id='Username'", "client_id=true", "session_takeover='nobody'"] {
        refused(&listener(keys), &none());
    }
}

#[test]
fn access_rules_are_read_where_they_stand() {
    let config = accepted("[acl]\nrules = ['allow all all \"#\"']\nfile = 'acl.txt'\n", &none());
    assert_eq!(config.acl.file.as_deref(), Some(Path::new("/etc/tidegate/acl.txt")));
    assert_refused(
        "[acl]\nrules = [\n  'allow all all \"#\"',\n  'allow write all \"a\"',\n]\n",
        &none(),
        r#"
error: /etc/tidegate/tidegate.toml:4:3: acl.rules: at character 7: expected `publish`, `subscribe` or `all`, found `write`
  |
4 |   'allow write all "a"',
  |   ^^^^^^^^^^^^^^^^^^^^^
  help: docs/authorisation.md has the words of a rule
"#,
    );
}

#[test]
fn a_server_of_access_rules_has_its_ranges() {
    let with = |keys: &str| format!("[acl.http]\nurl = 'https://h/'\n{keys}\n");
    let config = accepted(&with("ca = 'ca.pem'\nheaders = { X = 's3cret' }"), &none());
    let http = config.acl.http.unwrap();
    assert_eq!((http.timeout, http.concurrency, http.max_clients), (Period::secs(5), 32, 100_000));
    assert_eq!((http.refresh, http.max_age), (Period::secs(300), Period::secs(3_600)));
    assert_eq!(http.ca.as_deref(), Some(Path::new("/etc/tidegate/ca.pem")));
    assert!(!format!("{http:?}").contains("s3cret"));
    for keys in [
        "timeout='100ms'",
        "timeout='60s'",
        "concurrency=1",
        "concurrency=1024",
        "refresh='1s'\nmax_age='2s'",
        "max_age='30d'",
        "max_clients=1",
        "max_clients=10000000",
    ] {
        accepted(&with(keys), &none());
    }
    for (keys, expected) in [
        ("timeout='99ms'", "acl.http.timeout is 99ms, must be between"),
        ("timeout='61s'", "acl.http.timeout is 61s"),
        ("concurrency=0", "acl.http.concurrency is 0"),
        ("concurrency=1025", "acl.http.concurrency is 1025"),
        ("refresh='999ms'", "acl.http.refresh is 999ms"),
        ("refresh='1d'\nmax_age='30d'\nmax_clients=0", "acl.http.max_clients is 0"),
        (
            "refresh='2s'\nmax_age='3s'",
            "acl.http.max_age is 3s, must be at least twice acl.http.refresh, which is 2s",
        ),
        ("max_age='31d'", "acl.http.max_age is 31d"),
        ("max_clients=10000001", "acl.http.max_clients is 10000001"),
        ("username='x'", "username"),
    ] {
        let text = refused(&with(keys), &none());
        assert!(text.contains(expected), "{keys}: {text}");
    }
    assert!(refused("[acl.http]\nrefresh = '1m'\n", &none()).contains("url"));
}

#[test]
fn values_of_the_wrong_type_are_refused() {
    assert_refused(
        "[limits]\nconnect_timeout = 10\n",
        &none(),
        r#"
error: /etc/tidegate/tidegate.toml:2:19: limits.connect_timeout: invalid type: integer `10`, expected a duration such as "10s"
  |
2 | connect_timeout = 10
  |                   ^^
"#,
    );
    assert_refused(
        "[admin]\naddress = 'localhost:7080'\n",
        &none(),
        r#"
error: /etc/tidegate/tidegate.toml:2:11: admin.address: invalid value: string "localhost:7080", expected an IP address and a port such as "127.0.0.1:1883" or "[::1]:1883"
  |
2 | address = 'localhost:7080'
  |           ^^^^^^^^^^^^^^^^
"#,
    );
    assert_refused(
        "[limits]\nmax_queued_policy = 'drop_newest'\n",
        &none(),
        r#"
error: /etc/tidegate/tidegate.toml:2:21: limits.max_queued_policy: unknown value "drop_newest"
  |
2 | max_queued_policy = 'drop_newest'
  |                     ^^^^^^^^^^^^^
  help: expected one of `drop_oldest`, `refuse`
"#,
    );
}

#[test]
fn broken_toml_is_refused_with_its_place() {
    let text = refused("[limits]\nreceive_maximum = \n", &none());
    assert!(text.starts_with("error: /etc/tidegate/tidegate.toml:2:"), "{text}");
    assert!(text.contains("not TOML"), "{text}");
}

#[test]
fn all_faults_are_reported_at_once() {
    assert_refused(
        r#"[[listeners]]
name = "a"
address = "nowhere"
[[listeners]]
address = "127.0.0.1:1"
[[listeners]]
name = "c"
adress = "127.0.0.1:2"
[limits]
max_queued_messages = 0
receive_maximum = 70000
"#,
        &none(),
        r#"
error: /etc/tidegate/tidegate.toml:3:11: listeners.address: invalid value: string "nowhere", expected an IP address and a port such as "127.0.0.1:1883" or "[::1]:1883"
  |
3 | address = "nowhere"
  |           ^^^^^^^^^

error: /etc/tidegate/tidegate.toml:4:1: key `name` is missing in [[listeners]]
  |
4 | [[listeners]]
  | ^^^^^^^^^^^^^

error: /etc/tidegate/tidegate.toml:8:1: unknown key `adress` in [[listeners]]
  |
8 | adress = "127.0.0.1:2"
  | ^^^^^^
  help: did you mean `address`?

error: /etc/tidegate/tidegate.toml:10:23: limits.max_queued_messages is 0, must be between 1 and 100000000
   |
10 | max_queued_messages = 0
   |                       ^

error: /etc/tidegate/tidegate.toml:11:19: limits.receive_maximum: invalid value: integer `70000`, expected u16
   |
11 | receive_maximum = 70000
   |                   ^^^^^
"#,
    );
}

#[test]
fn faults_of_variables_name_the_variable() {
    assert_refused(
        "",
        &env(&[("TIDEGATE_LIMITS__MAX_PACKET_SIZ", "1MiB")]),
        r#"
error: environment variable TIDEGATE_LIMITS__MAX_PACKET_SIZ: unknown key `max_packet_siz` in [limits]
  |
1 | 1MiB
  | ^^^^
  help: did you mean `max_packet_size`?
"#,
    );
    assert_refused(
        "",
        &env(&[("TIDEGATE_LIMITS__RECEIVE_MAXIMUM", "many")]),
        r#"
error: environment variable TIDEGATE_LIMITS__RECEIVE_MAXIMUM: limits.receive_maximum: invalid type: string "many", expected u16
  |
1 | many
  | ^^^^
"#,
    );
    assert_refused(
        "",
        &env(&[("TIDEGATE_LISTENERS__TPC__ADDRESS", "127.0.0.1:1")]),
        r#"
error: environment variable TIDEGATE_LISTENERS__TPC__ADDRESS: no entry of [[listeners]] is named "tpc"
  |
1 | 127.0.0.1:1
  | ^^^^^^^^^^^
  help: did you mean `tcp`?
"#,
    );
    assert_refused(
        "",
        &env(&[("TIDEGATE_SYS__INTERVAL", "2d")]),
        r#"
error: environment variable TIDEGATE_SYS__INTERVAL: sys.interval is 2d, must be between 1s and 1d (or 0s: off)
  |
1 | 2d
  | ^^
"#,
    );
    for name in ["TIDEGATE_LISTENERS__ADDRESS", "TIDEGATE___X", "TIDEGATE_LOG__LEVEL__X", "TIDEGATE_LIMIT__X"]
    {
        let text = refused("", &env(&[(name, "1")]));
        assert!(text.contains(&format!("environment variable {name}")), "{text}");
    }
}

#[test]
fn listeners_must_be_told_apart() {
    let two = |second_name: &str, second_address: &str| {
        format!(
            "[[listeners]]\nname = 'lan-1'\naddress = '127.0.0.1:1'\n[[listeners]]\nname = '{second_name}'\naddress = '{second_address}'\n"
        )
    };
    let same_name = refused(&two("LAN_1", "127.0.0.1:2"), &none());
    assert!(same_name.contains("tidegate.toml:5:8: two listeners are named \"LAN_1\""), "{same_name}");
    let same_address = refused(&two("b", "127.0.0.1:1"), &none());
    assert!(same_address.contains("listeners \"lan-1\" and \"b\" have the same address"), "{same_address}");
    // Port 0 is a free port each time.
    accepted(&two("b", "127.0.0.1:2"), &none());
    accepted(
        "[[listeners]]\nname='a'\naddress='127.0.0.1:0'\n[[listeners]]\nname='b'\naddress='127.0.0.1:0'\n",
        &none(),
    );
    for name in ["", "1a", "a b", "a__b", "ä", &"a".repeat(65)] {
        let text = refused(&format!("[[listeners]]\nname = '{name}'\naddress = '127.0.0.1:1'\n"), &none());
        assert!(text.contains("is refused: a letter, then"), "{text}");
    }
    accepted(&format!("[[listeners]]\nname = '{}'\naddress = '127.0.0.1:1'\n", "a".repeat(64)), &none());
    assert!(refused("listeners = []\n", &none()).contains("at least one listener is needed"));
}

/// Every key with a range: section, key, least and greatest value, one below, one above.
const RANGES: &[(&str, &str, &str, &str, &str, &str)] = &[
    ("limits", "max_packet_size", "1024", "'256MiB'", "1023", "268435457"),
    ("limits", "receive_maximum", "1", "65535", "0", "65536"),
    ("limits", "max_inflight", "1", "65535", "0", "65536"),
    ("limits", "max_inflight_bytes", "1024", "'1GiB'", "1023", "1073741825"),
    ("limits", "topic_alias_maximum", "0", "65535", "-1", "65536"),
    ("limits", "max_keep_alive", "'0s'", "'65535s'", "'-1s'", "'65536s'"),
    ("limits", "will_after_crash", "'0s'", "'1h'", "'-1s'", "'3601s'"),
    ("limits", "max_session_expiry", "'0s'", "'36500d'", "'-1s'", "'36501d'"),
    ("limits", "max_queued_bytes", "'64KiB'", "'1TiB'", "65535", "1099511627777"),
    ("limits", "max_queued_messages", "1", "100000000", "0", "100000001"),
    ("limits", "max_queued_memory", "0", "'1TiB'", "-1", "1099511627777"),
    ("limits", "max_outbound_bytes", "'64KiB'", "'1GiB'", "65535", "1073741825"),
    ("limits", "max_publish_pause", "'0s'", "'60s'", "'-1s'", "'61s'"),
    ("limits", "max_connections_per_address", "0", "10000000", "-1", "10000001"),
    ("limits", "max_connections_per_user", "0", "10000000", "-1", "10000001"),
    ("limits", "max_connect_rate", "0", "1000000", "-1", "1000001"),
    ("limits", "max_publish_rate", "0", "10000000", "-1", "10000001"),
    ("limits", "max_publish_bytes_rate", "0", "'1TiB'", "-1", "1099511627777"),
    ("limits", "max_topic_levels", "1", "128", "0", "129"),
    ("limits", "max_client_id_bytes", "23", "65535", "22", "65536"),
    ("limits", "max_user_properties", "0", "65535", "-1", "65536"),
    ("limits", "max_user_properties_bytes", "0", "'1MiB'", "-1", "1048577"),
    ("limits", "max_subscriptions_per_session", "1", "10000000", "0", "10000001"),
    ("limits", "max_retained_messages", "0", "1000000000", "-1", "1000000001"),
    ("limits", "max_retained_bytes", "0", "'1TiB'", "-1", "1099511627777"),
    ("limits", "connect_timeout", "'1s'", "'600s'", "'999ms'", "'601s'"),
    ("limits", "max_connect_packet_size", "'1KiB'", "'1MiB'", "1023", "1048577"),
    ("limits", "max_connections", "1", "10000000", "0", "10000001"),
    ("limits", "max_handshakes", "1", "1000000", "0", "1000001"),
    ("limits.rules", "statement_bytes", "'1KiB'", "'64KiB'", "1023", "65537"),
    ("limits.rules", "operators", "64", "8192", "63", "8193"),
    ("limits.rules", "depth", "1", "64", "0", "65"),
    ("limits.rules", "items", "1", "4096", "0", "4097"),
    ("limits.rules", "subquery_depth", "0", "16", "-1", "17"),
    ("limits.rules", "array_steps", "1", "10000000", "0", "10000001"),
    ("limits.rules", "steps", "1000", "100000000", "999", "100000001"),
    ("limits.rules", "output_bytes", "'1KiB'", "'256MiB'", "1023", "268435457"),
    ("limits.rules", "regex_bytes", "'1KiB'", "'64MiB'", "1023", "67108865"),
    ("limits.rules", "json_depth", "1", "128", "0", "129"),
    ("limits.rules", "template_bytes", "64", "'1MiB'", "63", "1048577"),
    ("limits.rules", "hops", "1", "64", "0", "65"),
    ("limits.authentication", "concurrent_hashes", "0", "1024", "-1", "1025"),
    ("limits.authentication", "queued_hashes", "1", "1000000", "0", "1000001"),
    ("limits.authentication", "cached_passwords", "0", "10000000", "-1", "10000001"),
    ("limits.authentication", "cached_password_time", "'1s'", "'1d'", "'999ms'", "'86401s'"),
    ("limits.lockout", "failures_per_address", "0", "1000000", "-1", "1000001"),
    ("limits.lockout", "failures_per_user", "0", "1000000", "-1", "1000001"),
    ("limits.lockout", "first_wait", "'100ms'", "'1h'", "'99ms'", "'3601s'"),
    ("limits.lockout", "longest_wait", "'1s'", "'1d'", "'999ms'", "'86401s'"),
    ("limits.lockout", "forget_after", "'1s'", "'30d'", "'999ms'", "'31d'"),
    ("limits.lockout", "remembered", "16", "10000000", "15", "10000001"),
    ("sys", "interval", "'1s'", "'1d'", "'999ms'", "'86401s'"),
];

#[test]
fn ranges_hold_at_both_ends_and_end_there() {
    for (section, key, least, greatest, below, above) in RANGES {
        for value in [least, greatest] {
            accepted(&format!("[{section}]\n{key} = {value}\n"), &none());
        }
        for value in [below, above] {
            let text = refused(&format!("[{section}]\n{key} = {value}\n"), &none());
            assert!(text.contains(&format!("{section}.{key}")), "{text}");
            assert!(text.contains("tidegate.toml:2:"), "{text}");
        }
    }
    for (key, ends) in [
        ("max_packet_size", [("1023", false), ("1024", true), ("'256MiB'", true), ("268435457", false)]),
        ("max_connect_rate", [("-1", false), ("0", true), ("1000000", true), ("1000001", false)]),
        ("max_publish_rate", [("-1", false), ("0", true), ("10000000", true), ("10000001", false)]),
        ("max_publish_bytes_rate", [("-1", false), ("0", true), ("'1TiB'", true), ("1099511627777", false)]),
    ] {
        for (value, good) in ends {
            let text = format!(
                "[[listeners]]\nname = 'a'\naddress = '127.0.0.1:1'\nlimits = {{ {key} = {value} }}\n"
            );
            assert_eq!(read(&text, &none()).is_ok(), good, "{key} = {value}");
        }
    }
    for (value, good) in [(0, false), (1, true), (10_000_000, true), (10_000_001, false)] {
        let text = format!("[[listeners]]\nname = 'a'\naddress = '127.0.0.1:1'\nmax_connections = {value}\n");
        assert_eq!(read(&text, &none()).is_ok(), good, "{value}");
    }
}

#[test]
fn every_numeric_limit_is_in_the_table_of_ranges() {
    let printed = toml::Value::try_from(Limits::default()).unwrap();
    let limits = printed.as_table().unwrap();
    let mut all = Vec::new();
    for (key, value) in limits {
        match value.as_table() {
            Some(section) => all.extend(section.keys().map(|inner| (format!("limits.{key}"), inner))),
            None if key == "max_queued_policy" => {}
            None => all.push(("limits".to_owned(), key)),
        }
    }
    for (section, key) in all {
        assert!(RANGES.iter().any(|row| row.0 == section && row.1 == key), "{section}.{key}");
    }
}

#[test]
fn levels_are_checked() {
    for level in ["off", "error", "warn", "info", "debug", "trace", "warn,broker=trace"] {
        accepted(&format!("[log]\nlevel = '{level}'\n"), &none());
    }
    for level in ["broker=chatty", "infoo"] {
        let text = refused(&format!("[log]\nlevel = '{level}'\n"), &none());
        assert!(text.contains(&format!("tidegate.toml:2:9: log.level: \"{level}\" is no level")), "{text}");
    }
}

#[test]
fn what_is_hardly_meant_is_a_warning() {
    let warnings = |text: &str| read(text, &none()).unwrap().warnings;
    assert_eq!(
        warnings("[[listeners]]\nname='a'\naddress='127.0.0.1:1'\nallow_anonymous=true\n"),
        Vec::<String>::new()
    );
    let open = warnings("[[listeners]]\nname='a'\naddress='0.0.0.0:1883'\nallow_anonymous=true\n");
    assert!(open[0].contains("lets everybody in who can reach 0.0.0.0:1883"), "{open:?}");
    let with_file = "allow_anonymous=true\n[authentication.users]\ntype='password_file'\nfile='passwd'\n";
    let open = warnings(&format!("[[listeners]]\nname='a'\naddress='0.0.0.0:1883'\n{with_file}"));
    assert!(open[0].contains("has clients show their passwords to everybody on the way"), "{open:?}");
    assert!(open[1].contains("lets everybody without credentials in"), "{open:?}");
    let local = warnings(&format!("[[listeners]]\nname='a'\naddress='127.0.0.1:1883'\n{with_file}"));
    assert_eq!(local, Vec::<String>::new());
    let shut = warnings("[[listeners]]\nname='a'\naddress='127.0.0.1:1'\n");
    assert!(shut[0].contains("lets nobody in"), "{shut:?}");
    let nameless =
        "[[listeners]]\nname='a'\naddress='127.0.0.1:1'\nallow_anonymous=true\nclient_id='prefix'\n";
    let shut = warnings(nameless);
    assert!(shut[0].contains("lets nobody in: client_id holds"), "{shut:?}");
}

#[test]
fn a_missing_file_is_said_so() {
    let error = load(Some(Path::new("/no/such/tidegate.toml")), &none()).unwrap_err();
    assert_eq!(error.to_string(), "/no/such/tidegate.toml can't be read");
    assert!(error.render().contains("No such file"), "{}", error.render());
}

#[test]
fn the_number_of_faults_is_bounded() {
    let mut text = "[limits]\n".to_owned();
    for i in 0..100 {
        text.push_str(&format!("unknown_{i} = 1\n"));
    }
    assert_eq!(read(&text, &none()).unwrap_err().faults().len(), MAX_ERRORS);
}

#[test]
fn state_goes_where_the_system_says() {
    let at = |variables: &[(&str, &str)]| default_data_dir(&env(variables));
    assert_eq!(
        at(&[("STATE_DIRECTORY", "/var/lib/tidegate"), ("HOME", "/h")]),
        Path::new("/var/lib/tidegate")
    );
    assert_eq!(at(&[("XDG_STATE_HOME", "/s"), ("HOME", "/h")]), Path::new("/s/tidegate"));
    assert_eq!(at(&[("XDG_STATE_HOME", "relative"), ("HOME", "/h")]), Path::new("/h/.local/state/tidegate"));
    assert_eq!(at(&[]), Path::new("tidegate-state"));
}

proptest::proptest! {
    /// Whatever is written, the answer is a configuration or faults with text, never a panic.
    #[test]
    fn no_text_brings_the_reader_down(text in "[\\[\\]a-z_=\"'0-9\n ${}:.é\\\\]{0,200}", value in "\\PC{0,40}") {
        let environment = env(&[("TIDEGATE_LIMITS__MAX_PACKET_SIZE", &value), ("TIDEGATE_LISTENERS__TCP__NAME", &value)]);
        if let Err(errors) = read(&text, &environment) {
            proptest::prop_assert!(errors.render().starts_with("error: "));
        }
    }
}

// ---- authentication

/// Two ways to tell who a client is, and a listener with these lines.
fn with_two_methods(of_listener: &str) -> String {
    format!(
        "[[listeners]]\nname='a'\naddress='127.0.0.1:1'\n{of_listener}\n\
         [authentication.one]\ntype='password_file'\nfile='passwd'\n\
         [authentication.two]\ntype='password_file'\nfile='/etc/passwd'\n"
    )
}

#[test]
fn listeners_name_the_ways_to_tell_who_clients_are() {
    let config = accepted(&with_two_methods("authentication = ['two', 'one']"), &none());
    assert_eq!(config.listeners[0].authentication.as_deref().unwrap(), ["two", "one"]);
    assert_eq!(config.authentication["one"].kind, AuthenticatorKind::PasswordFile);
    assert_eq!(config.authentication["one"].file.as_deref(), Some(Path::new("/etc/tidegate/passwd")));
    assert_eq!(config.authentication["two"].file.as_deref(), Some(Path::new("/etc/passwd")));
    accepted(&with_two_methods("authentication = []"), &none());
    for (of_listener, why) in [
        ("", "listener \"a\" has to say by `authentication` which methods it asks, and in which order"),
        ("authentication = ['three']", "there is no [authentication.three]"),
        ("authentication = ['one', 'one']", "\"one\" is named twice"),
        ("authentication = 'one'", "expected a sequence"),
    ] {
        let text = refused(&with_two_methods(of_listener), &none());
        assert!(text.contains(why), "{text}");
    }
}

#[test]
fn each_way_to_tell_who_a_client_is_has_keys_of_its_own() {
    let of = |lines: &str| format!("[authentication.x]\n{lines}\n");
    for (lines, why) in [
        ("file = 'passwd'", "key `type` is missing in [authentication.x]"),
        ("type = 'guess'", "authentication.x.type: unknown value \"guess\""),
        ("type = 'password_file'", "authentication.x: type \"password_file\" needs the key `file`"),
        ("type = 'jwt'\nsecret = 's3cret'", "authentication.x: type \"jwt\" needs the key `algorithms`"),
        ("type = 'jwt'\nalgorithms = ['HS256']", "needs exactly one of `secret`, `key` and `jwks_url`"),
        (
            "type = 'jwt'\nalgorithms = ['HS256']\nsecret = 's3cret'\nkey = 'k'",
            "needs exactly one of `secret`, `key` and `jwks_url`",
        ),
        ("type = 'jwt'\nalgorithms = ['none']\nkey = 'k'", "unknown value \"none\""),
        ("type = 'jwt'\nalgorithms = []\nkey = 'k'", "at least one algorithm is needed"),
        ("type = 'jwt'\nalgorithms = ['RS256', 'HS256']\nkey = 'k'", "need a secret: a public key is none"),
        (
            "type = 'jwt'\nalgorithms = ['RS256', 'HS256']\nsecret = 's3cret'",
            "a secret serves HS256, HS384 and HS512 alone",
        ),
        ("type = 'jwt'\nalgorithms = ['RS256']\nkey = 'k'\ntimeout = '1s'", "`timeout` needs `jwks_url`"),
        (
            "type = 'jwt'\nalgorithms = ['RS256']\nkey = 'k'\nleeway = '601s'",
            "leeway is 601s, must be between 0s and 10m",
        ),
        ("type = 'jwt'\nalgorithms = ['RS256']\nkey = 'k'\nsecret_is_base64 = true", "there is no secret"),
        ("type = 'jwt'\nalgorithms = ['HS256']\nsecret = ['s3cret']", "authentication.x.secret"),
        ("type = 'http'", "authentication.x: type \"http\" needs the key `url`"),
        (
            "type = 'http'\nurl = 'https://h/'\nconcurrency = 0",
            "concurrency is 0, must be between 1 and 1024",
        ),
        ("type = 'http'\nurl = 'https://h/'\nconcurrency = 1025", "concurrency is 1025, must be"),
        (
            "type = 'http'\nurl = 'https://h/'\ntimeout = '99ms'",
            "timeout is 99ms, must be between 100ms and 1m",
        ),
        ("type = 'http'\nurl = 'https://h/'\nheaders = { a = 's3cret', b = 1 }", "authentication.x.headers"),
        ("type = 'certificate'", "authentication.x: type \"certificate\" needs the key `username`"),
        ("type = 'certificate'\nusername = 'cn'", "authentication.x.username: unknown value \"cn\""),
        (
            "type = 'certificate'\nusername = 'subject_cn'\nfile = 'f'",
            "authentication.x: type \"certificate\" has no key `file`",
        ),
        ("type = 'password_file'\nfile = 'f'\npath = 's3cret'", "unknown key `path` in [authentication.x]"),
    ] {
        let text = refused(&of(lines), &none());
        assert!(text.contains(why), "{text}");
        assert!(!text.contains("s3cret"), "{text}");
    }
    let text = refused("[authentication.'a b']\ntype = 'password_file'\nfile = 'f'\n", &none());
    assert!(text.contains("name \"a b\" is refused"), "{text}");
}

// ---- connectors

const CONNECTORS: &str = "
[connectors.my-ops]
type = 'http'
url = 'https://ops.example/v1'
auth = { type = 'bearer', token = '${env:OPS_TOKEN}' }
[connectors.plant]
type = 'http'
allowed_hosts = ['*.plant.example']
tls = { ca_file = 'ca.pem', client_cert_file = '/abs/cert.pem', client_key_file = 'key.pem' }
";

fn http_connector<'c>(config: &'c Config, name: &str) -> &'c actions::config::HttpConnectorConfig {
    match &config.connectors[name] {
        actions::config::ConnectorConfig::Http(connector) => connector,
        other => panic!("{other:?}"),
    }
}

#[test]
fn connectors_are_read_with_secrets_and_files_from_outside() {
    let config = accepted(CONNECTORS, &env(&[("OPS_TOKEN", "s3cret")]));
    let auth = http_connector(&config, "my-ops").auth.as_ref().unwrap();
    assert_eq!(auth.token.as_ref().unwrap().expose(), "s3cret");
    let tls = http_connector(&config, "plant").tls.as_ref().unwrap();
    assert_eq!(tls.ca_file.as_deref(), Some(Path::new("/etc/tidegate/ca.pem")));
    assert_eq!(tls.client_cert_file.as_deref(), Some(Path::new("/abs/cert.pem")));
    assert_eq!(tls.client_key_file.as_deref(), Some(Path::new("/etc/tidegate/key.pem")));

    let over = env(&[("OPS_TOKEN", "s3cret"), ("TIDEGATE_CONNECTORS__MY_OPS__AUTH__TOKEN", "other")]);
    let config = accepted(CONNECTORS, &over);
    let auth = http_connector(&config, "my-ops").auth.as_ref().unwrap();
    assert_eq!(auth.token.as_ref().unwrap().expose(), "other");
    assert_eq!(config.connectors.len(), 2);

    let text = refused(CONNECTORS, &none());
    assert!(text.contains("environment variable \"OPS_TOKEN\" is not set"), "{text}");
}

#[test]
fn a_printed_configuration_shows_no_secret() {
    let config = accepted(CONNECTORS, &env(&[("OPS_TOKEN", "s3cret")]));
    let printed = toml::to_string(&config).unwrap();
    assert!(printed.contains("token = \"(secret)\"") && !printed.contains("s3cret"), "{printed}");
    assert!(!format!("{config:?}").contains("s3cret"));
}

#[test]
fn no_message_about_a_connector_shows_a_secret() {
    let with = |lines: &str| format!("[connectors.ops]\ntype = 'http'\nurl = 'https://h'\n{lines}\n");
    let variables = env(&[("SECRET", "s3cret\u{7}"), ("TIDEGATE_CONNECTORS__VIA__PROXY_PASSWORD", "s3cret")]);
    for (lines, expected) in [
        ("auth = { type = 'bearer', tokn = 's3cret' }", "unknown key `tokn` in [connectors.ops.auth]"),
        ("auth = { type = 'digest', token = 's3cret' }", "unknown value \"digest\""),
        ("auth = { token = 's3cret' }", "key `type` is missing"),
        (
            "auth = { type = 'basic', username = 'a:b', password = 's3cret' }",
            "connectors.ops.auth.username: a user name can't hold a colon",
        ),
        ("auth = { type = 'bearer', token = \"s3cret\\n\" }", "connectors.ops.auth.token: holds characters"),
        ("auth = { type = 'bearer', token = '${env:SECRET}' }", "the value of ${env:SECRET} doesn't fit"),
        ("auth = { type = 'bearer', token = 'x${env:SECRET}' }", "stand only as a whole value"),
        ("allow_private = ['${env:SECRET}']", "the value of ${env:SECRET} doesn't fit"),
        ("proxy_password = 's3cret'", "connectors.ops.proxy_password: there is no proxy"),
        ("auth = { type = 'bearer', token = 's3cret', token = 's3cret' }", "not TOML"),
    ] {
        let text = refused(&with(lines), &variables);
        assert!(text.contains(expected), "{lines}: {text}");
        assert!(!text.contains("s3cret"), "{lines}: {text}");
    }
    let text = refused("", &variables);
    assert!(text.contains("key `type` is missing") && !text.contains("s3cret"), "{text}");
}

#[test]
fn a_connector_has_a_name_that_fits_and_credentials_that_nobody_overhears() {
    let text = refused("[connectors.'a b']\ntype = 'http'\n", &none());
    assert!(text.contains("connector name \"a b\" is refused"), "{text}");
    let warnings = |url: &str, auth: &str| {
        let text = format!("[connectors.ops]\ntype = 'http'\nurl = '{url}'\nauth = {{ {auth} }}\n");
        read(&text, &none()).unwrap().warnings
    };
    let bearer = "type = 'bearer', token = 't'";
    assert_eq!(warnings("https://h", bearer), Vec::<String>::new());
    assert_eq!(warnings("http://h", "type = 'hmac', secret = 's'"), Vec::<String>::new());
    let [warning] = warnings("http://h", bearer).try_into().unwrap();
    assert!(warning.contains("connector \"ops\" shows its credentials to everybody on the way"), "{warning}");
}
