//! Who comes in, by each method: docs/authentication.md shows these tests as a table.

#![allow(clippy::unwrap_used, reason = "a helper of tests panics where it can't go on")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use integration_tests::tools::{self, Program, mosquitto_pub, mosquitto_sub};
use integration_tests::{Authority, Broker, BrokerBuilder, Client, HttpReceiver, Identity, Version};

/// "wonderland", made by mosquitto_passwd 2.0.11.
const ADA: &str = "ada:$7$101$UsXfrsPcVjpjTi+n$QyxYvJkC/35ogZI3b/2wPSd3if6wmKgK8gPHD7LuPrKbZ3chVNbcv2+GT06vZfwadP1fct4lS6kAHUC1QN1F8Q==";
/// "wonderland", made by mosquitto_passwd 2.0.11 with `-H sha512`.
const BOB: &str = "bob:$6$8plttfgSvF30CeX9$oOmsCsOL8/1sCA7GvisajZD8ctMgPx5B4eOLf8NiGDv85plLtJHRmSBc7TVgGvSasXnLY6OipyQOpAVId4n4lA==";
/// "password", of the reference implementation's test suite.
const CARL: &str =
    "carl:$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";

/// "pencil", the user of RFC 7677.
const USER: &str = "user:$scram-sha-256$4096$W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=$wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";

/// Tokens of the user `ada`, signed with [`SECRET`] by HS256 unless said otherwise.
const SECRET: &str = "0123456789abcdef0123456789abcdef";
/// Good until the year 2100.
const TOKEN: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJhZGEiLCJleHAiOjQxMDI0NDQ4MDB9.PoTWVBJDTgsg3kJyxx7wBtDhIsBRXY03TUPmOCJQLPQ";
/// Over since 2020.
const TOKEN_OVER: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJhZGEiLCJleHAiOjE2MDAwMDAwMDB9.WNg406tEdUyGJk_ZAnC_x1ODyylk_E6MljcB9JSMeGQ";
/// `{"alg":"none"}`, without signature.
const TOKEN_UNSIGNED: &str = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhZGEiLCJleHAiOjQxMDI0NDQ4MDB9.";
/// By another secret.
const TOKEN_FORGED: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJhZGEiLCJleHAiOjQxMDI0NDQ4MDB9.roWsc8kSNpPEcvTLcYZ6vJwvJQ3VJAfZ1IxqAvAin-E";
/// Without an end.
const TOKEN_ENDLESS: &str =
    "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJhZGEifQ.Sm5uUKUiR6FhG-P9FDgg7XUj27Fn_QDdfOkgtybzBn4";

/// A folder that goes with its test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("tidegate-authentication-{}-{name}", std::process::id()));
        drop(fs::remove_dir_all(&path));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn users(&self, text: &str) -> PathBuf {
        let path = self.0.join("users");
        // In one step, so that no reader sees half of it.
        let new = self.0.join("users.new");
        fs::write(&new, text).unwrap();
        fs::set_permissions(&new, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        fs::rename(&new, &path).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

fn closed() -> BrokerBuilder {
    Broker::builder().variable("TIDEGATE_LISTENERS__TCP__ALLOW_ANONYMOUS", "false")
}

fn with_users(builder: BrokerBuilder, users: &Path) -> BrokerBuilder {
    builder.section(&format!("[authentication.users]\ntype = \"password_file\"\nfile = {users:?}\n"))
}

/// A broker that lets in whom these lines name, and nobody else.
fn broker_of(folder: &Folder, lines: &str) -> Broker {
    with_users(closed(), &folder.users(lines)).start()
}

/// A CONNECT with user name and password, where given.
fn connect(version: Version, user: Option<&str>, password: Option<&str>) -> String {
    let flags = 2 | u8::from(user.is_some()) << 7 | u8::from(password.is_some()) << 6;
    let quoted = |text: Option<&str>| text.map(|text| format!("'{text}'")).unwrap_or_default();
    let (level, properties) = match version {
        Version::V311 => ("04", ""),
        Version::V5 => ("05", "[]"),
    };
    format!("10 ['MQTT' {level} {flags:02x} 003c {properties} '' {} {}]", quoted(user), quoted(password))
}

/// The code of the CONNACK; a refused connection has to be closed, and nothing else said.
#[track_caller]
fn answer_to(broker: &Broker, version: Version, user: Option<&str>, password: Option<&str>) -> u8 {
    let mut client = Client::open(broker, version);
    client.send(&connect(version, user, password));
    let connack = client.connack();
    if connack.code == 0 {
        client.leave();
    } else {
        client.expect_closed();
    }
    connack.code
}

/// Codes of both versions: 3.1.1 first.
#[track_caller]
fn answers_to(broker: &Broker, user: Option<&str>, password: Option<&str>) -> [u8; 2] {
    Version::BOTH.map(|version| answer_to(broker, version, user, password))
}

const IN: [u8; 2] = [0, 0];
const WRONG: [u8; 2] = [4, 0x86];
const UNKNOWN: [u8; 2] = [5, 0x87];
const LATER: [u8; 2] = [3, 0x9f];

#[test]
fn password_file_right_password() {
    let folder = Folder::new("right");
    let broker = broker_of(&folder, &format!("# ours\n{ADA}\n{BOB}\n\n{CARL}\n"));
    for (user, password) in [("ada", "wonderland"), ("bob", "wonderland"), ("carl", "password")] {
        assert_eq!(answers_to(&broker, Some(user), Some(password)), IN, "{user}");
    }
    mosquitto_pub(&broker, &["-u", "ada", "-P", "wonderland", "-t", "t", "-r", "-m", "x"]);
    let mut subscriber = mosquitto_sub(&broker, &["-u", "bob", "-P", "wonderland", "-t", "t", "-V", "5"]);
    assert!(subscriber.message().contains("x"));
}

#[test]
fn password_file_wrong_password() {
    let folder = Folder::new("wrong");
    let broker = broker_of(&folder, &format!("{ADA}\n{BOB}\n"));
    for password in ["", "Wonderland", "wonderland ", "wonderlan"] {
        assert_eq!(answers_to(&broker, Some("ada"), Some(password)), WRONG, "{password:?}");
    }
}

#[test]
fn password_file_unknown_user() {
    let folder = Folder::new("unknown");
    let broker = broker_of(&folder, &format!("{ADA}\n{BOB}\n"));
    for user in ["", "Ada", "ada ", "#", "carl", "ada:$7$101"] {
        assert_eq!(answers_to(&broker, Some(user), Some("wonderland")), WRONG, "{user:?}");
    }
}

#[test]
fn password_file_no_password() {
    let folder = Folder::new("no-password");
    let broker = broker_of(&folder, &format!("{ADA}\n"));
    assert_eq!(answers_to(&broker, Some("ada"), None), WRONG);
    assert_eq!(answers_to(&broker, Some("eve"), None), WRONG);
    // MQTT 5 has passwords without user names.
    assert_eq!(answer_to(&broker, Version::V5, None, Some("wonderland")), 0x86);
}

#[test]
fn password_file_nothing_shown() {
    let folder = Folder::new("nothing");
    let users = folder.users(&format!("{ADA}\n"));
    assert_eq!(answers_to(&with_users(closed(), &users).start(), None, None), UNKNOWN);
    let open = with_users(Broker::builder(), &users).start();
    assert_eq!(answers_to(&open, None, None), IN);
    // Who shows credentials isn't anonymous, whatever they are worth.
    assert_eq!(answers_to(&open, Some("ada"), Some("wrong")), WRONG);
    assert_eq!(answers_to(&open, Some("eve"), None), WRONG);
}

#[test]
fn password_file_too_many_failures() {
    let folder = Folder::new("failures");
    let section = "[limits.lockout]\nfailures_per_user = 3\nfirst_wait = \"10m\"\nlongest_wait = \"10m\"\n";
    let broker = with_users(closed().section(section), &folder.users(&format!("{ADA}\n{BOB}\n")))
        .expect_error("is locked out")
        .start();
    // Somebody who isn't there is counted like somebody who is.
    for user in ["bob", "eve"] {
        for _ in 0..3 {
            assert_eq!(answer_to(&broker, Version::V5, Some(user), Some("wrong")), 0x86);
        }
        assert_eq!(answers_to(&broker, Some(user), Some("wrong")), LATER);
        assert_eq!(answers_to(&broker, Some(user), Some("wonderland")), LATER);
    }
    // One who came in from here before isn't kept out.
    assert_eq!(answers_to(&broker, Some("ada"), Some("wonderland")), IN);
    for _ in 0..5 {
        assert_eq!(answer_to(&broker, Version::V5, Some("ada"), Some("wrong")), 0x86);
    }
    assert_eq!(answers_to(&broker, Some("ada"), Some("wonderland")), IN);
}

#[test]
fn password_file_broken_at_the_start() {
    let folder = Folder::new("broken");
    for (text, why) in [
        ("", "has no user"),
        ("# nobody\n", "has no user"),
        ("ada", "line 1: it isn't of the form name:hash"),
        ("ada:\n", "line 1: the hash is in no notation that is understood"),
        ("ada:wonderland\n", "line 1: the hash is in no notation that is understood"),
        (&format!("{BOB}\n{}\n", ADA.get(..60).unwrap()), "line 2: the hash or its salt"),
        (&format!("{BOB}\n{BOB}\n"), "line 2: the user is on line 1 already"),
    ] {
        let said = with_users(Broker::builder(), &folder.users(text)).fails_to_start();
        assert!(said.contains(why), "{why}: {said}");
        assert!(!said.contains("wonderland") && !said.contains("$7$"), "{said}");
    }
    let said = with_users(Broker::builder(), &folder.0.join("missing")).fails_to_start();
    assert!(said.contains("can't be read"), "{said}");
    let said = with_users(Broker::builder(), &folder.0).fails_to_start();
    assert!(said.contains("can't be read"), "{said}");
}

#[test]
fn password_file_changed_and_broken_later() {
    let folder = Folder::new("changed");
    let users = folder.users(&format!("{ADA}\n"));
    let broker = with_users(closed(), &users).expect_error("the users of before go on").start();
    assert_eq!(answers_to(&broker, Some("bob"), Some("wonderland")), WRONG);
    folder.users(&format!("{BOB}\n"));
    broker.logged("file of users read again");
    assert_eq!(answers_to(&broker, Some("bob"), Some("wonderland")), IN);
    assert_eq!(answers_to(&broker, Some("ada"), Some("wonderland")), WRONG);
    folder.users(&format!("{BOB}\nada:\n"));
    broker.logged("the users of before go on");
    assert_eq!(answers_to(&broker, Some("bob"), Some("wonderland")), IN);
    assert_eq!(answers_to(&broker, Some("ada"), Some("")), WRONG);
}

#[test]
fn no_method_takes_names_for_what_they_say() {
    let broker = Broker::start();
    assert_eq!(answers_to(&broker, Some("anybody"), Some("anything")), IN);
    assert_eq!(answers_to(&broker, None, None), IN);
    assert_eq!(answers_to(&closed().start(), Some("anybody"), Some("anything")), UNKNOWN);
}

#[test]
fn a_fleet_that_comes_back_at_once_is_let_in() {
    let folder = Folder::new("fleet");
    let broker = broker_of(&folder, &format!("{CARL}\n"));
    let mut clients: Vec<Client> = (0..200).map(|_| Client::open(&broker, Version::V5)).collect();
    for client in &mut clients {
        client.send(&connect(Version::V5, Some("carl"), Some("password")));
    }
    for client in &mut clients {
        assert_eq!(client.connack().code, 0);
    }
}

#[test]
fn no_token_and_no_secret_is_in_any_log_or_answer() {
    let broker = with_tokens("[authentication.ours]\ntype = \"http\"\nurl = \"http://127.0.0.1:9/\"\nheaders = { X-Token = \"canary-7e1f\" }\n")
        .variable("TIDEGATE_LISTENERS__TCP__AUTHENTICATION", "[\"tokens\", \"ours\"]")
        .variable("TIDEGATE_LOG", "trace")
        .expect_error("the authentication server gives no verdict")
        .start();
    assert_eq!(answers_to(&broker, Some("ada"), Some(TOKEN)), IN);
    for token in [TOKEN_OVER, TOKEN_FORGED, TOKEN_UNSIGNED] {
        assert_eq!(answers_to(&broker, Some("ada"), Some(token)), WRONG);
    }
    // Nobody listens there.
    assert_eq!(answers_to(&broker, Some("eve"), Some("canary-5d0c")), [3, 0x88]);
    let log = broker.log();
    assert!(log.contains("DEBUG"), "{log}");
    let (code, effective) = broker.command(&["check", "--effective"]);
    assert_eq!(code, Some(0), "{effective}");
    assert!(effective.contains("[authentication.ours"), "{effective}");
    for secret in [TOKEN, TOKEN_OVER, TOKEN_FORGED, SECRET, "canary"] {
        assert!(!log.contains(secret), "{secret} in {log}");
        assert!(!effective.contains(secret), "{secret} in {effective}");
    }
}

#[test]
fn no_password_is_in_any_log() {
    let folder = Folder::new("canary");
    let users = folder.users(&format!("{ADA}\n{CARL}\n"));
    let broker = with_users(closed().variable("TIDEGATE_LOG", "trace"), &users).start();
    let canary = "canary-5d0c";
    for user in ["ada", "eve"] {
        assert_eq!(answers_to(&broker, Some(user), Some(canary)), WRONG);
    }
    assert_eq!(answers_to(&broker, Some("carl"), Some("password")), IN);
    let mut cut = Client::open(&broker, Version::V5);
    cut.send_to_a_closing_broker(&integration_tests::wire::bytes(&format!(
        "10 ['MQTT' 05 c2 003c [] 'a' 'ada' '{canary}' 00]"
    )));
    assert_eq!(cut.connack().code, 0x81);
    cut.expect_closed();
    broker.logged("closing");
    let log = broker.log();
    assert!(log.contains("TRACE") || log.contains("DEBUG"), "{log}");
    for secret in [canary, "$7$", "$argon2id$"] {
        assert!(!log.contains(secret), "{secret} in {log}");
    }
}

fn with_tokens(lines: &str) -> BrokerBuilder {
    closed().section(&format!(
        "[authentication.tokens]\ntype = \"jwt\"\nalgorithms = [\"HS256\"]\nsecret = \"{SECRET}\"\n{lines}\n"
    ))
}

#[test]
fn jwt_right_token() {
    let broker = with_tokens("").start();
    assert_eq!(answers_to(&broker, Some("anything"), Some(TOKEN)), IN);
    assert_eq!(answer_to(&broker, Version::V5, None, Some(TOKEN)), 0);
    let in_username = with_tokens("token = \"username\"").start();
    assert_eq!(answers_to(&in_username, Some(TOKEN), None), IN);
    assert_eq!(answers_to(&in_username, Some("ada"), Some(TOKEN)), WRONG);
}

#[test]
fn jwt_wrong_token() {
    // Each of these is a failure under one name.
    let broker = with_tokens("[limits.lockout]\nfailures_per_user = 0\n").start();
    for token in [TOKEN_OVER, TOKEN_UNSIGNED, TOKEN_FORGED, TOKEN_ENDLESS] {
        assert_eq!(answers_to(&broker, Some("ada"), Some(token)), WRONG, "{token}");
    }
    let elsewhere = with_tokens("audience = [\"elsewhere\"]").start();
    assert_eq!(answers_to(&elsewhere, Some("ada"), Some(TOKEN)), WRONG);
    let endless = with_tokens("require_expiry = false").start();
    assert_eq!(answers_to(&endless, Some("ada"), Some(TOKEN_ENDLESS)), IN);
}

#[test]
fn jwt_no_token() {
    let broker = with_tokens("").start();
    assert_eq!(answers_to(&broker, Some("ada"), Some("wonderland")), WRONG);
    assert_eq!(answers_to(&broker, Some("ada"), None), WRONG);
    assert_eq!(answers_to(&broker, None, None), UNKNOWN);
}

#[test]
fn jwt_without_keys() {
    // Nobody listens there.
    let section = "[authentication.tokens]\ntype = \"jwt\"\nalgorithms = [\"EdDSA\"]\njwks_url = \"http://127.0.0.1:9/keys\"\n";
    let broker = closed().section(section).expect_error("the keys of tokens could not be fetched").start();
    let token = "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJhZGEifQ.AAAA";
    assert_eq!(answers_to(&broker, Some("ada"), Some(token)), [3, 0x88]);
    for (lines, why) in [
        ("algorithms = [\"RS256\"]\nkey = \"missing.pem\"", "can't be read"),
        ("algorithms = [\"HS256\"]\nsecret = \"short\"", "the secret is shorter than HS256 needs"),
        ("algorithms = [\"RS256\"]\njwks_url = \"http://keys.example/\"", "insecure_http"),
    ] {
        let said =
            closed().section(&format!("[authentication.tokens]\ntype = \"jwt\"\n{lines}\n")).fails_to_start();
        assert!(said.contains(why), "{said}");
        assert!(!said.contains("\"short\""), "{said}");
    }
}

#[test]
fn methods_are_asked_in_order_and_the_first_that_knows_decides() {
    let folder = Folder::new("chain");
    let users = folder.users(&format!("{ADA}\n"));
    let both = with_users(with_tokens(""), &users)
        .variable("TIDEGATE_LISTENERS__TCP__AUTHENTICATION", "[\"tokens\", \"users\"]");
    let broker = both.start();
    assert_eq!(answers_to(&broker, Some("ada"), Some(TOKEN)), IN);
    assert_eq!(answers_to(&broker, Some("ada"), Some("wonderland")), IN);
    assert_eq!(answers_to(&broker, Some("ada"), Some(TOKEN_OVER)), WRONG);
    assert_eq!(answers_to(&broker, Some("eve"), Some("wonderland")), WRONG);
    assert_eq!(answers_to(&broker, None, None), UNKNOWN);
}

fn with_scram(folder: &Folder, builder: BrokerBuilder) -> Broker {
    let users = folder.users(&format!("{USER}\n"));
    builder.section(&format!("[authentication.scram]\ntype = \"scram\"\nfile = {users:?}\n")).start()
}

/// What a client says that somebody else wrote.
#[track_caller]
fn scramp(broker: &Broker, arguments: &[&str]) -> String {
    let mut command = tools::python("scram_client.py", "scramp");
    command.arg(broker.address().port().to_string()).args(arguments);
    Program::start(command).succeed()
}

#[test]
fn scram_right_password_v5_4_12_0_5() {
    let folder = Folder::new("scram-right");
    let broker = with_scram(&folder, closed());
    assert_eq!(scramp(&broker, &["user", "pencil"]).trim(), "CONNACK 00");
}

#[test]
fn scram_wrong_password() {
    let folder = Folder::new("scram-wrong");
    let broker = with_scram(&folder, closed());
    assert_eq!(scramp(&broker, &["user", "pencils"]).trim(), "CONNACK 86");
}

#[test]
fn scram_unknown_user() {
    let folder = Folder::new("scram-unknown");
    let broker = with_scram(&folder, closed());
    assert_eq!(scramp(&broker, &["nobody", "pencil"]).trim(), "CONNACK 86");
}

#[test]
fn scram_too_many_failures() {
    let folder = Folder::new("scram-failures");
    let limits = "[limits.lockout]\nfailures_per_user = 2\nfirst_wait = \"10m\"\nlongest_wait = \"10m\"\n";
    let broker = with_scram(&folder, closed().section(limits));
    for user in ["user", "nobody"] {
        for _ in 0..2 {
            assert_eq!(scramp(&broker, &[user, "wrong"]).trim(), "CONNACK 86");
        }
        assert_eq!(scramp(&broker, &[user, "pencil"]).trim(), "CONNACK 9f");
    }
}

#[test]
fn scram_other_ways_to_come_in() {
    let folder = Folder::new("scram-other");
    let broker = with_scram(&folder, closed());
    assert_eq!(answers_to(&broker, Some("user"), Some("pencil")), WRONG);
    assert_eq!(answers_to(&broker, None, None), UNKNOWN);
    for (properties, code) in [
        ("[15 'SCRAM-SHA-1' 16 'n,,n=user,r=x']", 0x8c),
        ("[15 'SCRAM-SHA-256-PLUS' 16 'n,,n=user,r=x']", 0x8c),
        ("[15 'SCRAM-SHA-256']", 0x86),
        ("[15 'SCRAM-SHA-256' 16 'p=tls-exporter,,n=user,r=x']", 0x86),
        ("[15 'SCRAM-SHA-256' 16 'n,a=admin,n=user,r=x']", 0x86),
    ] {
        let mut client = Client::open(&broker, Version::V5);
        client.send(&format!("10 ['MQTT' 05 02 003c {properties} 'a']"));
        assert_eq!(client.connack().code, code, "{properties}");
        client.expect_closed();
    }
    // The CONNECT names somebody else than the exchange.
    let mut client = Client::open(&broker, Version::V5);
    client.send("10 ['MQTT' 05 82 003c [15 'SCRAM-SHA-256' 16 'n,,n=user,r=x'] 'a' 'admin']");
    assert_eq!(client.connack().code, 0x86);
    // Where passwords are taken too, the same file serves.
    let users = folder.users(&format!("{USER}\n"));
    let both = with_users(closed(), &users).start();
    assert_eq!(answers_to(&both, Some("user"), Some("pencil")), IN);
    assert_eq!(answers_to(&both, Some("user"), Some("pencils")), WRONG);
}

#[test]
fn scram_again_while_messages_go_on_v5_s4_12_1() {
    let folder = Folder::new("scram-again");
    let broker = with_scram(&folder, closed());
    let said = scramp(&broker, &["user", "pencil", "pencil"]);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[0], "CONNACK 00");
    assert!(lines.contains(&"MSG meanwhile") && lines.contains(&"AUTH 00"), "{said}");
}

#[test]
fn scram_again_in_vain_v5_4_12_1_2() {
    let folder = Folder::new("scram-vain");
    let broker = with_scram(&folder, closed());
    let said = scramp(&broker, &["user", "pencil", "pencils"]);
    assert!(said.trim().ends_with("DISCONNECT 87"), "{said}");
}

#[test]
fn scram_file_of_another_kind() {
    let folder = Folder::new("scram-file");
    let users = folder.users(&format!("{USER}\n{ADA}\n"));
    let said = closed()
        .section(&format!("[authentication.scram]\ntype = \"scram\"\nfile = {users:?}\n"))
        .fails_to_start();
    assert!(said.contains("line 2: SCRAM needs lines that `tidegate passwd --scram` makes"), "{said}");
}

fn with_server(server: &HttpReceiver) -> BrokerBuilder {
    closed().section(&format!(
        "[authentication.ours]\ntype = \"http\"\nurl = \"http://{}/mqtt\"\ntimeout = \"60s\"\n",
        server.address()
    ))
}

/// What a client is told whose server gives this answer.
#[track_caller]
fn told(broker: &Broker, server: &HttpReceiver, version: Version, status: &str, body: &str) -> u8 {
    let mut client = Client::open(broker, version);
    client.send(&connect(version, Some("ada"), Some("wonderland")));
    server.next_request().answer_with(status, body);
    client.connack().code
}

#[test]
fn http_server_allows() {
    let server = HttpReceiver::start();
    let broker = with_server(&server).start();
    for version in Version::BOTH {
        assert_eq!(told(&broker, &server, version, "200 OK", "{\"result\":\"allow\"}"), 0);
    }
    assert_eq!(told(&broker, &server, Version::V5, "200 OK", ""), 0);
    // What is asked.
    let mut client = Client::open(&broker, Version::V5);
    client.send("10 ['MQTT' 05 c2 003c [] 'pump' 'ada' 'wonderland']");
    let request = server.next_request();
    for part in [
        "\"client_id\":\"pump\"",
        "\"username\":\"ada\"",
        "\"password\":\"wonderland\"",
        "\"listener\":\"tcp\"",
    ] {
        assert!(request.text().contains(part), "{}", request.text());
    }
    // An end in the past.
    request.answer_with("200 OK", "{\"result\":\"allow\",\"expires_at\":1}");
    assert_eq!(client.connack().code, 0x87);
}

#[test]
fn http_server_denies() {
    let server = HttpReceiver::start();
    let broker = with_server(&server).start();
    for (version, code) in Version::BOTH.into_iter().zip(WRONG) {
        assert_eq!(told(&broker, &server, version, "200 OK", "{\"result\":\"deny\"}"), code);
        assert_eq!(told(&broker, &server, version, "200 OK", "{\"result\":\"ignore\"}"), code);
    }
    assert_eq!(answers_to(&broker, None, None), UNKNOWN);
}

#[test]
fn http_server_gives_no_verdict() {
    let server = HttpReceiver::start();
    let broker = with_server(&server).expect_error("the authentication server gives no verdict").start();
    for (version, code) in Version::BOTH.into_iter().zip([3, 0x88]) {
        for (status, body) in [
            ("500 Down", "{\"result\":\"allow\"}"),
            ("401 No", "{\"result\":\"allow\"}"),
            ("200 OK", "{\"result\":\"perhaps\"}"),
            ("200 OK", "<html>"),
        ] {
            assert_eq!(told(&broker, &server, version, status, body), code, "{status} {body}");
        }
    }
}

/// A broker that asks for certificates and takes user names from them.
fn with_certificates(authority: &Authority, username: &str) -> Broker {
    let server = authority.issue("server", "localhost", 1);
    let section = format!(
        "[[listeners]]\nname = \"tls\"\nkind = \"tls\"\naddress = \"127.0.0.1:0\"\n\
         [listeners.tls]\ncertificate = {:?}\nkey = {:?}\nclient_certificates = \"optional\"\nclient_ca = {:?}\n\
         [authentication.devices]\ntype = \"certificate\"\nusername = \"{username}\"\n",
        server.certificate,
        server.key,
        authority.certificate()
    );
    Broker::builder().section(&section).start()
}

/// What mosquitto_pub says that shows this certificate and gives this user name; empty: it came in.
#[track_caller]
fn said_to(broker: &Broker, authority: &Authority, shows: Option<&Identity>, user: Option<&str>) -> String {
    let mut command = Command::new("mosquitto_pub");
    command.args(["-h", "localhost", "-V", "mqttv311", "-t", "t", "-m", "x", "-p"]);
    command.arg(broker.listener("tls").port().to_string()).arg("--cafile").arg(authority.certificate());
    if let Some(Identity { certificate, key, .. }) = shows {
        command.arg("--cert").arg(certificate).arg("--key").arg(key);
    }
    if let Some(user) = user {
        command.args(["-u", user]);
    }
    let output = command.output().unwrap();
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.success(), said.is_empty(), "{said}");
    said
}

#[test]
fn certificate_shown() {
    let folder = Folder::new("certificate-shown");
    let authority = Authority::new(&folder.0);
    let pump = authority.issue("pump", "pump", 2);
    for username in ["subject_cn", "san_dns"] {
        let broker = with_certificates(&authority, username);
        for user in [None, Some("pump")] {
            assert_eq!(said_to(&broker, &authority, Some(&pump), user), "", "{username}");
        }
        // Who claims to be somebody else is refused.
        let other = said_to(&broker, &authority, Some(&pump), Some("admin"));
        assert!(other.contains("not authorised"), "{other}");
    }
}

#[test]
fn certificate_without_such_a_name() {
    let folder = Folder::new("certificate-nameless");
    let authority = Authority::new(&folder.0);
    let pump = authority.issue("pump", "pump", 2);
    let broker = with_certificates(&authority, "san_email");
    let said = said_to(&broker, &authority, Some(&pump), None);
    assert!(said.contains("not authorised"), "{said}");
}

#[test]
fn certificate_not_shown() {
    let folder = Folder::new("certificate-none");
    let authority = Authority::new(&folder.0);
    let broker = with_certificates(&authority, "subject_cn");
    let nothing = said_to(&broker, &authority, None, None);
    assert!(nothing.contains("not authorised"), "{nothing}");
    let name = said_to(&broker, &authority, None, Some("pump"));
    assert!(name.contains("bad user name or password"), "{name}");
}
