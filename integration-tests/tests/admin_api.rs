//! The HTTP interface of administration, held against its own OpenAPI document by a tester that somebody else wrote, and searched for
//! secrets.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests panic where they can't go on")]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use integration_tests::Broker;
use integration_tests::tools::{self, mosquitto_pub};

/// What the tester shows of itself.
const TOKEN: &str = "tester-token";
/// What `sha256sum` prints of it.
const TOKEN_SHA256: &str = "92351a5d9f14769f34d89bc109610b2c3cba5f1ef03274aec3a7d1b63e363b12";
/// In what is secret.
const CANARY: &str = "canary-4b1d";

/// How many requests the tester makes up for each operation.
const EXAMPLES: &str = "12";

fn start() -> Broker {
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
        .start()
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
    let broker = start();
    mosquitto_pub(&broker, &["-q", "1", "-r", "-t", "kept/x", "-m", "kept"]);
    let report = tools::schemathesis(&format!("http://{}", interface(&broker)), TOKEN, EXAMPLES);
    assert!(broker.accepts_connections());
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
    let broker = start();
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
    let log = broker.log();
    assert!(log.contains("\"level\":\"DEBUG\"") || log.contains("\"level\":\"TRACE\""), "the log says much");
    for secret in secrets {
        assert!(!log.contains(secret), "the log has {secret}");
    }
}
