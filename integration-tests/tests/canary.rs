//! No secret of a configuration is ever shown: each is given a value that is found again wherever it turns up, then everything
//! that shows anything is provoked and searched.
//!
//! Which keys are secret is read from the sources, so that a new one can't be forgotten: it has to be in [`CONFIGURED`].

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a helper of tests panics where it can't go on"
)]

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use integration_tests::tools;
use integration_tests::{Broker, Client, HttpReceiver, PATIENCE, Version, new_folder};

/// Stands in every secret, in lower case and long enough for any key.
const MARK: &str = "c4n4ry";

/// Every key whose value is secret, as `file: key`. Each of them is given a value below.
const CONFIGURED: [&str; 15] = [
    "acl: headers",
    "admin: password_hash",
    "admin: sha256",
    "auth: client_secret",
    "auth: params",
    "auth: password",
    "auth: secret",
    "auth: token",
    "authentication: headers",
    "authentication: secret",
    "connector: nkey_seed",
    // Of AMQP, Kafka, NATS and Redis.
    "connector: password",
    "connector: proxy_password",
    "connector: token",
    "otlp: headers",
];

/// A seed has a form of its own that the mark doesn't fit into, and is looked for itself.
const NKEY_SEED: &str = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY";

/// What the administrator's token is, and what `sha256sum` prints of it.
const TOKEN: &str = "tester-token";
const TOKEN_SHA256: &str = "92351a5d9f14769f34d89bc109610b2c3cba5f1ef03274aec3a7d1b63e363b12";

fn secret(name: &str) -> String {
    format!("{MARK}-{name}-0123456789abcdef0123456789abcdef")
}

/// Fields of the configuration's structs whose type hides what it holds, as `file: key`.
fn secret_keys() -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut found = BTreeSet::new();
    for folder in ["actions/src", "server/src/config"] {
        for path in sources(&root.join(folder)) {
            let text = fs::read_to_string(&path).unwrap();
            let file = path.file_stem().unwrap().to_str().unwrap().to_owned();
            for line in text.lines().map(str::trim) {
                let Some((name, kind)) = line.strip_prefix("pub ").and_then(|field| field.split_once(": "))
                else {
                    continue;
                };
                let hides = ["Secret", "HiddenText"]
                    .iter()
                    .any(|hiding| kind.split(|c: char| !c.is_alphanumeric()).any(|word| word == *hiding));
                if hides && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_') {
                    found.insert(format!("{file}: {name}"));
                }
            }
        }
    }
    found
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

#[test]
fn every_secret_key_is_searched_for() {
    let expected: BTreeSet<String> = CONFIGURED.iter().map(|&key| key.to_owned()).collect();
    assert_eq!(secret_keys(), expected, "a key that is secret has to be given a value in this file");
}

/// The mark as it stands in base64, wherever in a text it begins.
fn in_base64() -> Vec<String> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    (0..3)
        .map(|before| {
            let bytes: Vec<u8> = std::iter::repeat_n(0, before).chain(MARK.bytes()).collect();
            let text: String = bytes
                .chunks(3)
                .filter(|chunk| chunk.len() == 3)
                .flat_map(|chunk| {
                    let bits = u32::from(chunk[0]) << 16 | u32::from(chunk[1]) << 8 | u32::from(chunk[2]);
                    [18, 12, 6, 0].map(|shift| char::from(ALPHABET[(bits >> shift & 63) as usize]))
                })
                .collect();
            // What isn't made of the mark alone depends on what stands before it.
            text[(before * 8).div_ceil(6)..].to_owned()
        })
        .collect()
}

#[track_caller]
fn assert_hidden(what: &str, text: &str) {
    let marks = [vec![MARK.to_owned(), MARK.to_uppercase(), NKEY_SEED.to_owned()], in_base64()].concat();
    if let Some(line) = text.lines().find(|line| marks.iter().any(|mark| line.contains(mark))) {
        panic!("{what} shows a secret: {line}");
    }
}

/// A far side that answers each request as the next line of the list says, and counts those that brought a secret.
struct FarSide {
    address: String,
    secrets_seen: Arc<AtomicUsize>,
}

impl FarSide {
    fn start(answers: &'static [(&'static str, &'static str)]) -> Self {
        let receiver = HttpReceiver::start();
        let address = receiver.address().to_string();
        let secrets_seen = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&secrets_seen);
        let mut answers = answers.iter().cycle();
        receiver.answer_all(move |request| {
            let (status, body) = answers.next().unwrap();
            let shown = format!("{:?} {}", request.headers, String::from_utf8_lossy(&request.body));
            let marks = [vec![MARK.to_owned()], in_base64()].concat();
            if marks.iter().any(|mark| shown.contains(mark)) || shown.contains("webhook-signature") {
                seen.fetch_add(1, Ordering::Relaxed);
            }
            (*status, if *body == REPEAT { shown } else { (*body).to_owned() })
        });
        Self { address, secrets_seen }
    }

    #[track_caller]
    fn assert_was_shown_its_secret(&self, what: &str) {
        assert_was_shown(&self.secrets_seen, what);
    }
}

#[track_caller]
fn assert_was_shown(secrets_seen: &AtomicUsize, what: &str) {
    assert!(secrets_seen.load(Ordering::Relaxed) > 0, "{what} was never shown its secret");
}

/// A far side that speaks as Redis does: it lets everybody in, and refuses all else with what it was shown.
struct RedisFarSide {
    address: String,
    secrets_seen: Arc<AtomicUsize>,
}

impl RedisFarSide {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let secrets_seen = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&secrets_seen);
        thread::spawn(move || {
            for connection in listener.incoming().map_while(Result::ok) {
                let seen = Arc::clone(&seen);
                thread::spawn(move || Self::serve(&connection, &seen));
            }
        });
        Self { address, secrets_seen }
    }

    /// Serves one connection until it ends.
    fn serve(connection: &TcpStream, secrets_seen: &AtomicUsize) {
        let (mut input, mut output) = (BufReader::new(connection), connection);
        let mut shown = String::new();
        while let Some(words) = command(&mut input) {
            let is_sign_in = words.first().is_some_and(|word| word.eq_ignore_ascii_case("auth"));
            if is_sign_in {
                shown = words.join(" ");
                secrets_seen.fetch_add(usize::from(shown.contains(MARK)), Ordering::Relaxed);
            }
            let answer =
                if is_sign_in { "+OK\r\n".to_owned() } else { format!("-ERR not after {shown}\r\n") };
            if output.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    }
}

/// The next command of a Redis client: a list of texts, each with its length before it.
fn command(input: &mut impl BufRead) -> Option<Vec<String>> {
    let count = number(input, '*')?;
    let word = |_| {
        let mut bytes = vec![0; number(input, '$')? + 2];
        input.read_exact(&mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes).trim_end().to_owned())
    };
    (0..count).map(word).collect()
}

fn number(input: &mut impl BufRead, mark: char) -> Option<usize> {
    let mut line = String::new();
    input.read_line(&mut line).ok()?;
    line.trim_end().strip_prefix(mark)?.parse().ok()
}

/// Stands for all that the request showed, secrets included.
const REPEAT: &str = "(the request)";

/// What a far side answers: refusals, and what makes no sense. The beginning of an answer is shown, since it says why, unless
/// it repeats a secret.
const ANSWERS: &[(&str, &str)] = &[
    ("400 Bad Request", REPEAT),
    ("401 Unauthorized", "not like this"),
    ("500 Internal Server Error", "not like this"),
    ("200 OK", "{\"result\":"),
];

/// What an endpoint of tokens answers: a token, and no token.
const TOKENS: &[(&str, &str)] = &[
    ("200 OK", "{\"access_token\":\"c4n4ry-access-token\",\"token_type\":\"Bearer\",\"expires_in\":1}"),
    ("400 Bad Request", "{\"error\":\"invalid_client\"}"),
];

/// What a server of access rules answers: everything is allowed, or clients would not get far.
const RULES: &[(&str, &str)] = &[(
    "200 OK",
    "{\"acl\":[{\"permission\":\"allow\",\"action\":\"all\",\"topic\":\"#\"},{\"permission\":\"allow\",\"action\":\"all\",\"topic\":\"$SYS/#\"}]}",
)];

#[test]
fn no_secret_of_a_configuration_is_ever_shown() {
    let folder = new_folder();
    let (api, tokens, hook, proxy) =
        (FarSide::start(ANSWERS), FarSide::start(TOKENS), FarSide::start(ANSWERS), FarSide::start(ANSWERS));
    let rules = FarSide::start(RULES);
    let collector = FarSide::start(ANSWERS);
    let redis = RedisFarSide::start();
    let users = folder.join("users");
    let password = folder.join("password");
    fs::write(&password, secret("user-password")).unwrap();
    let made = tools::tidegate()
        .args(["passwd", users.to_str().unwrap(), "ada", "--password-file", password.to_str().unwrap()])
        .output()
        .unwrap();
    assert!(made.status.success());
    let sections = format!(
        r#"
[sys]
interval = "1s"

[authentication.users]
type = "password_file"
file = {users:?}

[authentication.tokens]
type = "jwt"
algorithms = ["HS256"]
secret = "{jwt}"

[authentication.hook]
type = "http"
url = "http://{hook}/"
headers = {{ x-key = "{header}" }}

[acl.http]
url = "http://{rules}/"
headers = {{ x-key = "{acl}" }}

[[admin.users]]
name = "root"
role = "admin"
password_hash = "$argon2id$v=19$m=65536,t=2,p=1$YzRuNHJ5Zm9vYmFy$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc"

[[admin.tokens]]
name = "reader"
role = "viewer"
sha256 = "c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4"

[[admin.tokens]]
name = "tester"
role = "admin"
sha256 = "{TOKEN_SHA256}"

[trace]
topics = ["in/#"]

[trace.otlp]
endpoint = "http://{collector}/v1/traces"
headers = {{ x-key = "{otlp}" }}
schedule_delay = "10ms"

[connectors.basic]
type = "http"
url = "http://{api}/basic"
auth = {{ type = "basic", username = "u", password = "{basic}" }}

[connectors.bearer]
type = "http"
url = "http://{api}/bearer"
auth = {{ type = "bearer", token = "{bearer}" }}

[connectors.oauth2]
type = "http"
url = "http://{api}/oauth2"
auth = {{ type = "oauth2", token_url = "http://{tokens}/token", client_id = "id", client_secret = "{client}", params = {{ audience = "{param}" }} }}

[connectors.hmac]
type = "http"
url = "http://{api}/hmac"
auth = {{ type = "hmac", secret = "{hmac}" }}

[connectors.proxied]
type = "http"
url = "http://127.0.0.1:1/proxied"
allow_private = ["127.0.0.1"]
proxy = "http://{proxy}"
proxy_username = "u"
proxy_password = "{proxy_password}"

[connectors.redis]
type = "redis"
servers = ["{redis}"]
username = "u"
password = "{redis_password}"

[connectors.amqp]
type = "amqp"
servers = ["{redis}"]
username = "u"
password = "{amqp_password}"

[connectors.kafka]
type = "kafka"
servers = ["{redis}"]
sasl = {{ mechanism = "plain", username = "u", password = "{kafka_password}" }}

[connectors.nats]
type = "nats"
servers = ["{redis}"]
token = "{nats_token}"

[connectors.nkey]
type = "nats"
servers = ["{redis}"]
nkey_seed = "{NKEY_SEED}"
"#,
        jwt = secret("jwt"),
        hook = hook.address,
        header = secret("header"),
        rules = rules.address,
        acl = secret("acl"),
        collector = collector.address,
        otlp = secret("otlp"),
        api = api.address,
        basic = secret("basic"),
        bearer = secret("bearer"),
        tokens = tokens.address,
        client = secret("client"),
        param = secret("param"),
        hmac = secret("hmac"),
        proxy = proxy.address,
        proxy_password = secret("proxy"),
        redis = redis.address,
        redis_password = secret("redis"),
        amqp_password = secret("amqp"),
        kafka_password = secret("kafka"),
        nats_token = secret("nats"),
    );
    let mut rule = "[rules.r]\nsql = \"SELECT * FROM 'in/#'\"\n".to_owned();
    for name in ["basic", "bearer", "oauth2", "hmac", "proxied"] {
        rule += &format!(
            "[[rules.r.actions]]\nname = '{name}'\ntype = 'http'\nconnector = '{name}'\nurl = '/x'\n\
             retry = {{ initial_backoff = '1ms', max_backoff = '5ms', max_attempts = 3, disabled_pause = '1s' }}\n"
        );
    }
    // The same far side answers all of them: nobody but a client of Redis understands it.
    for (name, kind, keys) in [
        ("redis", "redis", "key = 'k'"),
        ("amqp", "amqp", "routing_key = 'k'"),
        ("kafka", "kafka", "topic = 'k'"),
        ("nats", "nats", "subject = 'k'"),
        ("nkey", "nats", "subject = 'k'"),
    ] {
        rule += &format!(
            "[[rules.r.actions]]\nname = '{name}'\ntype = '{kind}'\nconnector = '{name}'\n{keys}\ntimeout = '500ms'\n"
        );
    }
    let broker = Broker::builder()
        .variable("TIDEGATE_LOG", "trace")
        .variable("TIDEGATE_PANIC", "1")
        .variable("TIDEGATE_LISTENERS__TCP__AUTHENTICATION", "[\"users\", \"tokens\", \"hook\"]")
        .section(&sections)
        .rule_file("r", &rule)
        .expect_error("")
        .start();

    // Clients that show secrets: right, wrong, a token signed with another secret, none at all.
    let forged = format!("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhZGEifQ.{}", secret("token"));
    for (user, given) in
        [("ada", secret("user-password")), ("ada", secret("wrong")), ("bob", secret("bob")), ("", forged)]
    {
        for version in ["04", "05 [] "] {
            let (level, properties) = version.split_at(2);
            let mut client = Client::open(&broker, if level == "05" { Version::V5 } else { Version::V311 });
            let properties = properties.trim();
            client.send(&format!("10 ['MQTT' {level} c2 003c {properties} '' '{user}' '{given}']"));
            let came_in = client.connack().code == 0;
            assert_eq!(came_in, user == "ada" && given == secret("user-password"), "{user} {given}");
        }
    }
    // Messages for every connector; one for a panic in the delivery, one for a panic in the rule.
    let mut client = Client::connect(&broker, Version::V5, "publisher");
    client.subscribe("$SYS/#", 0);
    for payload in ["{\"a\":1}", "{\"a\":2}", "panic in rule"] {
        client.send(&format!("32 ['in/x' 0001 [] `{payload}`]"));
    }
    let mut shown = String::new();
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        let (_, list) = broker.command(&["dead-letters", "list", "--json"]);
        if list.contains("r/redis:")
            && ["r/basic:", "r/hmac:", "r/proxied:"].iter().any(|name| list.contains(name))
        {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "nothing ended: {list}\n{}", broker.log());
    }
    for _ in 0..30 {
        let packet = client.packet();
        shown += &String::from_utf8_lossy(&packet);
        shown.push('\n');
    }
    assert_hidden("$SYS", &shown);

    // A reload of what is wrong, next to secrets, and of what is right.
    let path = broker.folder().join("tidegate.toml");
    let good = fs::read_to_string(&path).unwrap();
    for (from, to) in [
        ("token = \"c4n4ry", "tokn = \"c4n4ry"),
        ("secret = \"c4n4ry", "secret = 7 # \"c4n4ry"),
        ("proxy = \"http", "proxy = \"ftp"),
        ("password = \"c4n4ry", "password = [\"c4n4ry"),
        ("jwt\"\n", "jwt\"\nunknown = 1\n"),
    ] {
        fs::write(&path, good.replace(from, to)).unwrap();
        for arguments in [&["check"][..], &["check", "--json"]] {
            let (code, text) = broker.command(arguments);
            assert_eq!(code, Some(3), "{to}: {text}");
            assert_hidden(&format!("check of {to}"), &text);
        }
        broker.reload();
        broker.logged("the configuration is refused");
    }
    fs::write(&path, &good).unwrap();
    broker.reload();
    broker.logged("rules reloaded");

    for arguments in [
        &["check", "--effective"][..],
        &["check", "--json"],
        &["connectors", "list"],
        &["connectors", "list", "--json"],
        &["rules", "counters"],
        &["rules", "counters", "--json"],
        &["dead-letters", "list"],
        &["dead-letters", "list", "--json"],
        &["dead-letters", "redrive", "--all"],
        &["backup", "--with-users"],
        &["rules", "explain", "--topic", "in/x", "--payload", "{\"a\":1}", "--json"],
    ] {
        let (_, text) = broker.command(arguments);
        assert_hidden(&arguments.join(" "), &text);
    }
    let (_, list) = broker.command(&["dead-letters", "list", "--json"]);
    for letter in list.lines().filter_map(|line| line.split("\"name\":\"").nth(1)) {
        let name = letter.split('"').next().unwrap();
        for arguments in [&["dead-letters", "show", name][..], &["dead-letters", "show", name, "--json"]] {
            assert_hidden(&arguments.join(" "), &broker.command(arguments).1);
        }
    }
    let admin = broker.admin_address();
    let mut requests: Vec<String> = [
        "GET /api/v1/config",
        "POST /api/v1/reload?dry_run=true",
        "GET /api/v1/connectors",
        "GET /api/v1/actions",
        "GET /api/v1/actions/r/redis",
        "GET /api/v1/acl",
        "GET /api/v1/users",
        "GET /api/v1/tokens",
        "GET /api/v1/rules",
        "GET /api/v1/rules/r",
        "GET /api/v1/export/rules",
        "GET /api/v1/dead-letters",
        "POST /api/v1/backup?users=true",
        // The last, since all of these are on it.
        "GET /api/v1/audit",
    ]
    .map(str::to_owned)
    .to_vec();
    for connector in
        ["basic", "bearer", "oauth2", "hmac", "proxied", "redis", "amqp", "kafka", "nats", "nkey"]
    {
        requests.insert(0, format!("GET /api/v1/connectors/{connector}"));
        requests.insert(0, format!("POST /api/v1/connectors/{connector}/test"));
    }
    for request in requests {
        let mut stream = TcpStream::connect(admin).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(
            stream,
            "{request} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with("HTTP/1.1 200 "), "{request}: {answer}");
        assert_hidden(&request, &answer);
    }
    for request in [
        "GET /api/v1/openapi.json".to_owned(),
        "GET /api/v1/clients".to_owned(),
        "GET /api/v1/nowhere".to_owned(),
        "GET /healthz".to_owned(),
        format!("GET /api/v1/clients?x={}", "y"),
    ] {
        let mut stream = TcpStream::connect(admin).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let wrong = secret("bearer-of-the-interface");
        write!(
            stream,
            "{request} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {wrong}\r\nCookie: session={wrong}\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        assert_hidden(&request, &String::from_utf8_lossy(&answer));
    }

    for (far_side, what) in [
        (&api, "the far side"),
        (&tokens, "the endpoint of tokens"),
        (&hook, "the hook"),
        (&rules, "the server of access rules"),
        (&proxy, "the proxy"),
        (&collector, "the collector"),
    ] {
        far_side.assert_was_shown_its_secret(what);
    }
    assert_was_shown(&redis.secrets_seen, "the Redis server");
    // Everything that was logged meanwhile, and all that is on disk but what the test itself put there.
    assert_hidden("the log", &broker.log());
    for path in sources_and_others(&broker.folder().join("data")) {
        let bytes = fs::read(&path).unwrap_or_default();
        assert_hidden(&path.display().to_string(), &String::from_utf8_lossy(&bytes));
    }
    assert!(broker.log().contains("\"level\":\"TRACE\""), "the log tells everything that it can");
    drop(fs::remove_dir_all(&folder));
}

fn sources_and_others(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(sources_and_others(&path)) } else { found.push(path) }
    }
    found
}
