//! Settings, and values from messages, that can't work.

use super::*;

#[test]
fn refuses_settings_that_cannot_work() {
    for (text, expected) in [
        ("", "missing field `subject`"),
        ("subject = ''", "subject: expected tokens parted by single dots"),
        ("subject = 'a..b'", "subject: expected tokens parted by single dots"),
        ("subject = '.a'", "subject: expected tokens parted by single dots"),
        ("subject = 'a b'", "subject: expected no spaces"),
        ("subject = 'a.*'", "subject: expected no wildcards"),
        ("subject = 'a.>'", "subject: expected no wildcards"),
        ("subject = 's'\nheaders = { 'a b' = '1' }", "headers.a b: expected a name of printable ASCII"),
        ("subject = 's'\nheaders = { 'a:' = '1' }", "headers.a:: expected a name of printable ASCII"),
        ("subject = 's'\nheaders = { '' = '1' }", "expected a name of 1 to 255 bytes"),
        ("subject = 's'\njetstream = 'yes'", "invalid type: string \"yes\", expected a boolean"),
        ("subject = 's'\nstream = 'S'", "unknown field `stream`"),
        ("subject = 's'\ntimeout = '1ms'", "timeout: expected 10ms to 10m"),
        ("subject = 's'\nbatch = { max_items = 0 }", "batch.max_items: expected 1 to 10000"),
        ("subject = 's'\nconcurrency = 0", "concurrency: expected 1 to 256"),
    ] {
        let refusal = refusal(&format!("{ACTION}{text}"));
        assert!(refusal.contains(expected), "{text}: {refusal}");
    }
    let subject = |bytes: usize| format!("{ACTION}subject = '{}'", "s".repeat(bytes));
    assert!(refusal(&subject(256)).contains("subject: 256 bytes, more than the limit of 255"));
    plan(&subject(255));
}

#[test]
fn refuses_connectors_that_cannot_work() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("user.creds");
    std::fs::write(&path, "-----BEGIN NATS USER JWT-----\na.b.c\n").unwrap();
    let file = format!("servers = ['h:1']\ncredentials_file = '{}'", path.display());
    let long = format!("servers = ['h:1']\ninbox_prefix = '{}'", "p".repeat(101));
    for (text, expected) in [
        ("servers = []", "servers: expected 1 to 16 servers, given 0"),
        ("servers = ['nats://h:1']", "\"nats://h:1\" is no server: expected \"host:port\""),
        ("servers = ['h:1']\nusername = 'u'", "username: needs password too"),
        ("servers = ['h:1']\npassword = 'p'", "password: needs username too"),
        ("servers = ['h:1']\nusername = 'u'\npassword = 'p'\ntoken = 't'", "token: username is given too"),
        ("servers = ['h:1']\ntoken = 't'\nnkey_seed = 's'", "nkey_seed: token is given too"),
        ("servers = ['h:1']\nnkey_seed = 'SUAGARBAGE'", "nkey_seed: expected the seed of a user's nkey"),
        ("servers = ['h:1']\ncredentials_file = '/none'", "credentials_file: \"/none\" can't be read"),
        (&file, "credentials_file: holds no seed of a user's nkey"),
        ("servers = ['h:1']\ninbox_prefix = ''", "inbox_prefix: expected tokens"),
        ("servers = ['h:1']\ninbox_prefix = 'a.>'", "inbox_prefix: expected no wildcards"),
        (&long, "inbox_prefix: 101 bytes, more than the limit of 100"),
        ("servers = ['h:1']\ntls_first = true", "tls_first: needs tls too"),
        ("servers = ['h:1']\nconnect_timeout = '1ms'", "connect_timeout: expected 10ms to 10m"),
        ("servers = ['h:1']\nurl = 'x'", "unknown field `url`"),
        ("servers = ['h:1']\ntls = { ca_file = '/none' }", "tls.ca_file: \"/none\" can't be read"),
    ] {
        let text = format!("[n]\ntype = 'nats'\n{text}");
        let refusal = match toml::from_str::<BTreeMap<String, ConnectorConfig>>(&text) {
            Err(error) => error.message().to_owned(),
            Ok(configs) => {
                let refused = Connectors::load(&configs, &TargetPolicy::default(), &Connectors::default());
                refused.expect_err(&text)[0].to_string()
            }
        };
        assert!(refusal.contains(expected), "{text}: {refusal}");
        assert!(!refusal.contains("GARBAGE"), "{refusal}");
    }
    let fits = format!("[n]\ntype = 'nats'\nservers = ['h:1']\ninbox_prefix = '{}'", "p".repeat(100));
    connectors(&fits);
}

#[test]
fn an_action_needs_a_connector_of_its_own_type() {
    let known = connectors("[h]\ntype = 'http'\n[other]\ntype = 'nats'\nservers = ['h:1']\n");
    let text = "type = 'nats'\nname = 'a'\nconnector = 'h'\nsubject = 's'";
    let ActionConfig::Nats(settings) = config(text) else { panic!() };
    let error = NatsSink::new("rule", &settings, &known).unwrap_err().to_string();
    let expected = "connector: [connectors.h] is of type \"http\", not \"nats\"; expected one of other";
    assert!(error.contains(expected), "{error}");
}

#[test]
fn a_connector_stays_until_it_or_a_file_of_it_changes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("user.creds");
    let write = |jwt: &str| {
        let seed = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY";
        let text = format!("-----BEGIN NATS USER JWT-----\n{jwt}\n-----BEGIN USER NKEY SEED-----\n{seed}\n");
        std::fs::write(&path, text).unwrap();
    };
    let text = format!("[n]\ntype = 'nats'\nservers = ['h:1']\ncredentials_file = '{}'\n", path.display());
    let configs: BTreeMap<String, ConnectorConfig> = toml::from_str(&text).unwrap();
    let load = |before: &Connectors| Connectors::load(&configs, &TargetPolicy::default(), before).unwrap();
    write("a.b.c");
    let first = load(&Connectors::default());
    assert!(load(&first).is_same(&first));
    write("a.b.d");
    assert!(!load(&first).is_same(&first));
}

#[test]
fn credentials_on_the_open_wire_are_told() {
    let exposure = |more: &str| {
        let text = format!("type = 'nats'\nservers = ['h:1']\n{more}");
        toml::from_str::<ConnectorConfig>(&text).unwrap().exposure()
    };
    assert!(exposure("username = 'u'\npassword = 'p'").is_some());
    assert!(exposure("token = 't'").is_some());
    assert!(exposure("token = 't'\ntls = {}").is_none());
    assert!(exposure("nkey_seed = 's'").is_none());
}

/// A value may add tokens, but nothing that would make the subject another kind of thing.
#[test]
fn subjects_and_headers_from_messages_are_checked() {
    let long = vec![b's'; 256];
    let by = |text: &str, values: &[(&str, &[u8])]| render(&plan(&format!("{ACTION}{text}")), values);
    for (text, subject, is_fine) in [
        ("subject = '${x}'", &b"readings.7"[..], true),
        ("subject = '${x}'", b"sensors/7/temp", true),
        ("subject = '${x}'", "é".as_bytes(), true),
        ("subject = '${x}'", &long[..255], true),
        ("subject = '${x}'", &long, false),
        ("subject = '${x}'", b"", false),
        ("subject = '${x}'", b"a.", false),
        ("subject = '${x}'", b"a b", false),
        ("subject = '${x}'", b"a\r\nPUB b 0", false),
        ("subject = '${x}'", b"a\tb", false),
        ("subject = '${x}'", "a\u{2028}b".as_bytes(), false),
        ("subject = '${x}'", b"a.*.b", false),
        ("subject = '${x}'", b">", false),
        ("subject = '${x}'", b"\xff", false),
        ("subject = '${x}'", b"$JS.API.STREAM.DELETE.S", false),
        ("subject = '${x}'", b"$SYS.REQ", false),
        ("subject = '${x}'", b"_INBOX.x.1-1", false),
        ("subject = '$KV.bucket.${x}'", b"$KV.bucket.key", true),
        ("subject = '$KV.bucket.${x}'", b"$KV.bucket.", false),
    ] {
        assert_eq!(by(text, &[("subject", subject)]).is_ok(), is_fine, "{text} {}", subject.escape_ascii());
    }
    let text = "subject = 's'\nheaders = { H = '${x}' }";
    let large = vec![b'x'; (64 << 10) + 1];
    assert!(by(text, &[("headers.H", &large[1..])]).is_ok());
    assert!(by(text, &[("headers.H", &large)]).is_err());
}
