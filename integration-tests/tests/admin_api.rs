//! The HTTP interface of administration, held against its own OpenAPI document by a tester that somebody else wrote, and searched for
//! secrets.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "helpers of tests panic where they can't go on"
)]

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Instant;

use integration_tests::tools::{self, mosquitto_pub};
use integration_tests::{Broker, BrokerBuilder, Client, HttpReceiver, PATIENCE, Version};
use serde_json::{Value, json};

/// What the tester shows of itself.
const TOKEN: &str = "tester-token";
/// What `sha256sum` prints of it.
const TOKEN_SHA256: &str = "92351a5d9f14769f34d89bc109610b2c3cba5f1ef03274aec3a7d1b63e363b12";
/// In what is secret.
const CANARY: &str = "canary-4b1d";

/// How many requests the tester makes up for each operation.
const EXAMPLES: &str = "12";

/// Operations that the tester leaves out.
const UNTESTED: [&str; 4] = [
    "GET /api/v1/live/messages",
    "GET /api/v1/live/overview",
    "GET /api/v1/live/rules",
    "GET /api/v1/openapi.json",
];

/// Operations that a tester can't have carried out: one becomes a WebSocket, one has names that each build makes anew, one takes a
/// token that is good once, and one what `POST /api/v1/backup` sent.
const OUT_OF_REACH: [&str; 4] =
    ["GET /api/v1/mqtt", "GET /console/{file}", "POST /api/v1/restore", "POST /api/v1/setup"];

fn builder() -> BrokerBuilder {
    Broker::builder()
        .section(&format!(
            "[[admin.tokens]]\nname = \"tester\"\nrole = \"admin\"\nsha256 = \"{TOKEN_SHA256}\"\n\
             [connectors.far]\ntype = \"http\"\nurl = \"https://far.example\"\nauth = {{ type = \"bearer\", token = \"{CANARY}\" }}\n"
        ))
        .rule_file(
            "hot",
            "[rules.hot]\nsql = \"SELECT t FROM 's/+' WHERE t > 60\"\n[[rules.hot.actions]]\nname = 'up'\n\
             type = 'republish'\ntopic = 'hot/${topic(2)}'\n",
        )
        .variable("TIDEGATE_LOG", "trace")
}

/// A gateway that is as the examples of the document have it, and its clients.
fn as_in_the_examples() -> (Broker, Vec<Client>) {
    let receiver = HttpReceiver::start();
    let address = receiver.address();
    receiver.answer_all(|_| ("400 Bad Request", String::new()));
    let broker = builder()
        .section(&format!(
            "[metrics]\ntopics = [\"hall/#\"]\n[connectors.ops]\ntype = \"http\"\nurl = \"http://{address}\"\nauth = {{ type = \"bearer\", token = \"{CANARY}\" }}\n"
        ))
        .rule_file(
            "overheat",
            "[rules.overheat]\nsql = \"SELECT temperature AS t FROM 'hall/+' WHERE temperature > 60\"\n\
             [[rules.overheat.actions]]\nname = 'ops'\ntype = 'http'\nconnector = 'ops'\nurl = '/alarms'\n",
        )
        .start();
    let clients = ["press-1", "press-2", "press-3"].map(|id| Client::connect(&broker, Version::V5, id));
    for topic in ["hall/temp", "hall/door"] {
        mosquitto_pub(&broker, &["-q", "1", "-r", "-t", topic, "-m", r#"{"temperature":61}"#]);
    }
    mosquitto_pub(&broker, &["-q", "1", "-t", "hall/oven", "-m", r#"{"temperature":62}"#]);
    let address = interface(&broker);
    let bearer = format!("Authorization: Bearer {TOKEN}\r\n");
    let rule = json!({ "sql": "SELECT * FROM 'hall/+'", "actions": [{ "name": "log", "type": "log" }] });
    for (method, path, body) in [
        ("PUT", "/api/v1/rules/comfort", rule.clone()),
        ("PUT", "/api/v1/rules/draft", rule),
        (
            "POST",
            "/api/v1/users",
            json!({ "name": "ada", "role": "admin", "password": "correct horse battery" }),
        ),
        (
            "POST",
            "/api/v1/users",
            json!({ "name": "eve", "role": "viewer", "password": "correct horse battery" }),
        ),
        ("POST", "/api/v1/tokens", json!({ "name": "dashboard", "role": "viewer" })),
    ] {
        let made = ask(&address, method, path, &bearer, &body.to_string());
        assert!(made.starts_with("HTTP/1.1 20"), "{made}");
    }
    let deadline = Instant::now() + PATIENCE;
    loop {
        let letters = ask(&address, "GET", "/api/v1/dead-letters", &bearer, "");
        if letters.contains("overheat/ops:3") {
            return (broker, clients.into());
        }
        assert!(Instant::now() < deadline, "three dead letters never came: {letters}");
    }
}

/// The operations of the document, as in `GET /healthz`.
fn operations(address: &str) -> BTreeSet<String> {
    let answer = ask(address, "GET", "/api/v1/openapi.json", "", "");
    let document: Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
    let mut operations = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        operations.extend(
            item.as_object().unwrap().keys().map(|method| format!("{} {path}", method.to_uppercase())),
        );
    }
    operations
}

/// Where the interface listens.
#[track_caller]
fn interface(broker: &Broker) -> String {
    let line = broker.logged("administration interface open");
    let address = line.split("\"admin\":\"").nth(1).and_then(|rest| rest.split('"').next());
    address.expect("the line has the address").to_owned()
}

/// Sends a request; returns the whole answer.
#[track_caller]
fn ask(address: &str, method: &str, path: &str, headers: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n{headers}\r\n{body}"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn what_the_document_says_is_what_the_gateway_does() {
    let (broker, _clients) = as_in_the_examples();
    let address = interface(&broker);
    let run = tools::schemathesis(&format!("http://{address}"), TOKEN, EXAMPLES);
    assert!(broker.accepts_connections());
    let all = operations(&address);
    let report = run.report;
    // How much of the interface is under test is to be seen.
    let (tested, carried_out) = (run.tested.len(), run.carried_out.len());
    eprintln!("operations: {} in the document, {tested} tested, {carried_out} carried out", all.len());
    // Streams have no end, and what describes the others was asked for to begin with.
    let untested: Vec<_> = all.difference(&run.tested).collect();
    assert_eq!(untested, UNTESTED, "what the tester didn't ask for: {report}");
    let never: Vec<_> = run.tested.difference(&run.carried_out).collect();
    assert_eq!(never, OUT_OF_REACH, "what the tester never had carried out: {report}");
    // As in "1829 generated, 1829 passed, 78 skipped".
    let counts = report.lines().find(|line| line.contains(" generated, ")).unwrap();
    let count =
        |of: &str| counts.split(", ").find_map(|part| part.trim().strip_suffix(of)?.parse::<u32>().ok());
    let (generated, passed) = (count(" generated").unwrap(), count(" passed").unwrap());
    assert!(generated > 1_000 && passed == generated, "{report}");
    let log = broker.log();
    assert!(!log.contains(TOKEN) && !log.contains(CANARY), "a secret is in the log");
}

#[test]
fn secrets_are_in_no_answer_and_in_no_line_of_the_log() {
    let broker = builder().start();
    let address = interface(&broker);
    let (code, setup_token) = broker.command(&["setup-token"]);
    assert_eq!(code, Some(0), "{setup_token}");
    let setup_token = setup_token.trim();
    assert!(setup_token.starts_with("tds_"), "{setup_token}");
    let password = format!("{CANARY}-password");
    let body = format!(r#"{{"setup_token":"{setup_token}","name":"ada","password":"{password}"}}"#);
    let made = ask(&address, "POST", "/api/v1/setup", "", &body);
    assert!(made.starts_with("HTTP/1.1 204 "), "{made}");
    let body = format!(r#"{{"name":"ada","password":"{password}"}}"#);
    let signed_in = ask(&address, "POST", "/api/v1/session", "", &body);
    assert!(signed_in.starts_with("HTTP/1.1 200 "), "{signed_in}");
    let cookie = signed_in.split("tidegate_session=").nth(1).and_then(|rest| rest.split(';').next()).unwrap();
    let wrong = format!(r#"{{"name":"ada","password":"{password}-x"}}"#);
    assert!(ask(&address, "POST", "/api/v1/session", "", &wrong).starts_with("HTTP/1.1 401 "));

    let bearer = format!("Authorization: Bearer {TOKEN}\r\n");
    let made = ask(&address, "POST", "/api/v1/tokens", &bearer, r#"{"name":"looks","role":"viewer"}"#);
    let looks = made.split("\"token\":\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
    let rule = format!(
        r#"{{"sql":"SELECT * FROM 'x'","actions":[{{"name":"h","type":"http","url":"https://x.example","headers":{{"X-Api-Key":"{CANARY}"}}}}]}}"#
    );
    let put = ask(&address, "PUT", "/api/v1/rules/sent", &bearer, &rule);
    assert!(put.starts_with("HTTP/1.1 200 "), "{put}");

    let routes = include_str!("../../docs/api-routes.md");
    let reads = routes.lines().filter_map(|line| line.strip_prefix("| GET | `")?.split('`').next());
    // A stream of what goes on has no end.
    let mut paths: Vec<&str> = reads.filter(|path| !path.contains('{') && !path.contains("/live/")).collect();
    assert!(paths.len() > 10, "{paths:?}");
    paths.extend(["/api/v1/rules/sent", "/api/v1/rules/hot", "/api/v1/clients/none"]);
    let as_viewer = format!("Authorization: Bearer {looks}\r\n");
    let secrets = [CANARY, looks, cookie, setup_token, TOKEN, "argon2"];
    for path in paths {
        // Whoever may change rules may see what they say.
        let is_for_operators = path == "/api/v1/export/rules";
        for headers in ["", &*as_viewer, &*bearer] {
            let answer = ask(&address, "GET", path, headers, "");
            assert!(!answer.starts_with("HTTP/1.1 5"), "{path}: {answer}");
            let may_show = headers == bearer && (is_for_operators || path == "/api/v1/rules/sent");
            for secret in secrets.iter().filter(|_| !may_show) {
                assert!(!answer.contains(secret), "{path} shows {secret}: {answer}");
            }
        }
    }
    mosquitto_pub(&broker, &["-q", "1", "-t", "x/y", "-m", "x"]);
    // The log says much.
    broker.logged("\"level\":\"DEBUG\"");
    let log = broker.log();
    for secret in secrets {
        assert!(!log.contains(secret), "the log has {secret}");
    }
}
