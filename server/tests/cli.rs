//! The binary from outside: arguments and files in; output, exit code and behaviour on signals out.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that can't go on fails, in its helpers too"
)]

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::{Value, json};

/// Longest wait for something that must happen; only a failing test waits so long.
const PATIENCE: Duration = Duration::from_secs(60);

fn tidegate() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    // Tests run beside one another.
    command.env("TIDEGATE_ADMIN__ADDRESS", "127.0.0.1:0");
    // Nothing of the machine that runs the tests may change what the binary does.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TIDEGATE_") {
            command.env_remove(name);
        }
    }
    command
}

fn run(arguments: &[&str]) -> Output {
    tidegate().args(arguments).stdin(Stdio::null()).output().unwrap()
}

#[track_caller]
fn assert_exit(output: &Output, code: i32) {
    assert_eq!(output.status.code(), Some(code), "{}\n{}", out(output), err(output));
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A child whose lines are read by a thread, and which doesn't outlive its test.
struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: mpsc::Receiver<String>,
    seen: Vec<String>,
}

impl Running {
    /// Starts it; `lines` says which stream is watched.
    fn start(command: &mut Command, watch_stderr: bool) -> Self {
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stream: Box<dyn Read + Send> = if watch_stderr {
            Box::new(child.stderr.take().unwrap())
        } else {
            Box::new(child.stdout.take().unwrap())
        };
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let stdin = child.stdin.take();
        Self { child, stdin, lines, seen: Vec::new() }
    }

    #[track_caller]
    fn wait_for(&mut self, part: &str) -> String {
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if line.contains(part) {
                        return line;
                    }
                }
                Err(_) => panic!("no line with {part:?} among:\n{}", self.seen.join("\n")),
            }
        }
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status();
        assert!(status.unwrap().success());
    }

    fn end(mut self) -> Output {
        drop(self.stdin.take());
        let status = self.child.wait().unwrap();
        let mut stdout = Vec::new();
        if let Some(mut stream) = self.child.stdout.take() {
            stream.read_to_end(&mut stdout).unwrap();
        }
        self.seen.extend(self.lines.iter());
        let lines = self.seen.iter().map(|line| format!("{line}\n")).collect::<String>().into_bytes();
        Output { status, stdout, stderr: lines }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended already unless the test failed.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A server on a free port.
struct Server {
    running: Running,
    port: String,
    folder: tempfile::TempDir,
}

impl Server {
    fn start(more: &str, rules: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("rules.d")).unwrap();
        for (name, text) in rules {
            std::fs::write(folder.path().join("rules.d").join(name), text).unwrap();
        }
        let config = folder.path().join("tidegate.toml");
        let listener = "[[listeners]]\nname = 'tcp'\naddress = '127.0.0.1:0'\n";
        let anonymous = if more.contains("allow_anonymous") { "" } else { "allow_anonymous = true\n" };
        std::fs::write(
            &config,
            format!("data_dir = 'data'\n{listener}{anonymous}{more}\n[log]\nformat = 'json'\n"),
        )
        .unwrap();
        let mut running = Running::start(tidegate().arg("serve").arg("--config").arg(&config), true);
        let line: Value = serde_json::from_str(&running.wait_for("\"listening\"")).unwrap();
        let port = line["address"].as_str().unwrap().rsplit(':').next().unwrap().to_owned();
        running.wait_for("\"ready\"");
        Self { running, port, folder }
    }

    fn publish(&self, arguments: &[&str]) -> Output {
        run(&[&["pub", "-h", "127.0.0.1", "-p", &self.port], arguments].concat())
    }

    /// A subscriber whose subscription is confirmed.
    fn subscribe(&self, arguments: &[&str]) -> Running {
        let fixed = ["sub", "-h", "127.0.0.1", "-p", &self.port, "-d"];
        let mut running = Running::start(tidegate().args(fixed).args(arguments), true);
        running.wait_for("subscribed to");
        running
    }

    #[track_caller]
    fn stop(self) {
        self.running.signal("TERM");
        let output = self.running.end();
        assert_exit(&output, 0);
        let log = err(&output);
        assert!(log.contains("\"stopped\""), "{log}");
        assert!(!log.contains("panicked"), "{log}");
    }
}

#[test]
fn version_and_help_go_to_standard_output() {
    for arguments in [["version"], ["--version"]] {
        let output = run(&arguments);
        assert_exit(&output, 0);
        assert_eq!(out(&output), format!("tidegate {}\n", env!("CARGO_PKG_VERSION")));
    }
    for arguments in [&["--help"][..], &["pub", "--help"], &["sub", "--help"], &["serve", "--help"]] {
        let output = run(arguments);
        assert_exit(&output, 0);
        assert!(out(&output).contains("Usage: tidegate"), "{}", out(&output));
    }
}

#[test]
fn mistakes_on_the_command_line_are_code_2() {
    for arguments in [
        &["serv"][..],
        &["serve", "--ports", "1"],
        &["pub", "-t", "a"],
        &["pub", "-t", "a", "-m", "x", "-n"],
        &["pub", "-t", "a/#", "-m", "x"],
        &["pub", "-t", "a", "-m", "x", "-q", "3"],
        &["pub", "-t", "a", "-m", "x", "-V", "4"],
        &["pub", "-t", "a", "-m", "x", "-c"],
        &["pub", "-t", "a", "-m", "x", "-V", "311", "-x", "5"],
        &["sub"],
        &["sub", "-t", "a/#/b"],
        &["sub", "-t", "a", "-F", "%z"],
        &["sql", "SELECT * FROM 'a'"],
        &["demo", "--seconds", "0"],
    ] {
        let output = run(arguments);
        assert_exit(&output, 2);
        assert_eq!(out(&output), "", "{arguments:?}");
        assert!(!err(&output).is_empty(), "{arguments:?}");
    }
}

#[test]
fn check_accepts_what_serve_would() {
    let output = run(&["check"]);
    assert_exit(&output, 0);
    assert!(out(&output).starts_with("ok: built-in defaults"), "{}", out(&output));

    let output =
        tidegate().arg("check").arg("--effective").env("TIDEGATE_SYS__INTERVAL", "3s").output().unwrap();
    assert_exit(&output, 0);
    assert!(out(&output).contains("interval = \"3s\""), "{}", out(&output));
    let again = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(again.path(), &output.stdout).unwrap();
    assert_exit(&run(&["check", "--config", again.path().to_str().unwrap()]), 0);
}

#[test]
fn check_names_every_fault() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("tidegate.toml");
    std::fs::write(&config, "[limits]\nrecieve_maximum = 1\nconnect_timeout = 5\n").unwrap();
    let config = config.to_str().unwrap();
    for arguments in [["check", "--config", config], ["serve", "--config", config]] {
        let output = run(&arguments);
        assert_exit(&output, 3);
        let text = err(&output);
        assert!(text.contains(&format!("{config}:2:1: unknown key `recieve_maximum` in [limits]")), "{text}");
        assert!(text.contains("help: did you mean `receive_maximum`?"), "{text}");
        assert!(text.contains(&format!("{config}:3:19: ")), "{text}");
    }
    let output = run(&["check", "--json", "--config", config]);
    assert_exit(&output, 3);
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["ok"], json!(false));
    assert_eq!(answer["errors"][0]["line"], json!(2));
    assert_eq!(answer["errors"][0]["help"], json!("did you mean `receive_maximum`?"));
    assert_eq!(answer["errors"].as_array().unwrap().len(), 2);
}

#[test]
fn check_reads_the_rules_too() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("tidegate.toml");
    std::fs::write(&config, "").unwrap();
    std::fs::create_dir(folder.path().join("rules.d")).unwrap();
    let rule = folder.path().join("rules.d/a.toml");
    let write = |sql: &str| {
        let action = "[[rules.a.actions]]\nname = 'x'\ntype = 'republish'\ntopic = 'y'\n";
        std::fs::write(&rule, format!("[rules.a]\nsql = \"{sql}\"\n{action}")).unwrap();
    };
    write("SELECT * FROM 'a'");
    let output = run(&["check", "--json", "--config", config.to_str().unwrap()]);
    assert_exit(&output, 0);
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["rules"], json!(["a"]));

    write("SELECT nosuch(1) FROM 'a'");
    for command in ["check", "serve"] {
        let output = run(&[command, "--config", config.to_str().unwrap()]);
        assert_exit(&output, 3);
        assert!(err(&output).contains("a.toml") && err(&output).contains("nosuch"), "{}", err(&output));
    }
    std::fs::write(&config, "rules_dir = 'elsewhere'\n").unwrap();
    let output = run(&["check", "--config", config.to_str().unwrap()]);
    assert_exit(&output, 3);
    assert!(err(&output).contains("elsewhere"), "{}", err(&output));
}

#[test]
fn the_configuration_may_be_named_by_a_variable() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("named.toml");
    std::fs::write(&config, "[sys]\ninterval = '1ms'\n").unwrap();
    // Without a subcommand too: then it is served.
    for arguments in [&["check"][..], &["serve"], &[]] {
        let output = tidegate().args(arguments).env("TIDEGATE_CONFIG", &config).output().unwrap();
        assert_exit(&output, 3);
        assert!(err(&output).contains("named.toml:2:12: sys.interval is 1ms"), "{}", err(&output));
    }
    // Before the subcommand, after it, and without one.
    let config = config.to_str().unwrap();
    for arguments in [&["--config", config, "check"][..], &["check", "-f", config], &["--config", config]] {
        let output = run(arguments);
        assert_exit(&output, 3);
        assert!(err(&output).contains("sys.interval is 1ms"), "{}", err(&output));
    }
}

#[test]
fn a_level_that_is_none_is_refused() {
    let output =
        tidegate().args(["serve", "--port", "0"]).env("TIDEGATE_LOG", "broker=chatty").output().unwrap();
    assert_exit(&output, 3);
    assert!(err(&output).contains("TIDEGATE_LOG is \"broker=chatty\""), "{}", err(&output));
}

#[test]
fn sql_needs_no_server() {
    let statement = "SELECT temperature * 2 AS t, topic(2) AS site, clientid() AS c FROM 'sensors/+' WHERE temperature > 10";
    let fixed = ["sql", statement, "--topic", "sensors/k", "-i", "dev"];
    let output = run(&[&fixed[..], &["--payload", r#"{"temperature":20.5}"#]].concat());
    assert_exit(&output, 0);
    assert_eq!(out(&output), "{\"t\":41,\"site\":\"k\",\"c\":\"dev\"}\n");

    let output = run(&[&fixed[..], &["--payload", r#"{"temperature":1}"#, "--json"]].concat());
    assert_exit(&output, 6);
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["outcome"], json!("no_match"));

    let output = run(&["sql", statement, "--topic", "other", "--payload", "{}"]);
    assert_exit(&output, 6);
    assert!(err(&output).contains("no filter of FROM matches the topic"), "{}", err(&output));
}

#[test]
fn sql_reads_the_payload_from_standard_input_and_from_files() {
    let folder = tempfile::tempdir().unwrap();
    let statement = folder.path().join("rule.sql");
    std::fs::write(&statement, "SELECT a FROM 't'\n").unwrap();
    let at_statement = format!("@{}", statement.display());
    let mut running =
        Running::start(tidegate().args(["sql", &at_statement, "--topic", "t", "--payload", "@-"]), false);
    running.stdin.take().unwrap().write_all(b"{\"a\": [1, 2]}").unwrap();
    running.wait_for("{\"a\":[1,2]}");
    assert_exit(&running.end(), 0);

    let output = run(&["sql", "SELECT a FROM 't'", "--topic", "t", "--payload", "@/no/such/file"]);
    assert_exit(&output, 1);
    assert!(err(&output).contains("/no/such/file can't be read"), "{}", err(&output));
}

#[test]
fn sql_can_be_given_every_property_of_a_message() {
    let statement = "SELECT get_mqtt_property('content_type') AS ct, get_mqtt_property('response_topic') AS rt, \
         get_mqtt_property('correlation_data') AS cd, get_mqtt_property('format_indicator') AS f, \
         get_user_properties('k') AS k, isUndefined(traceid()) AS untraced FROM 't'";
    let message =
        ["--response-topic", "r/1", "--correlation-data-base64", "AP8=", "--payload-format-indicator", "1"];
    let more = ["--content-type", "text/plain", "--message-expiry-interval", "60", "--user-property", "k=v"];
    let output = run(&[&["sql", statement, "-t", "t", "--json"][..], &message, &more].concat());
    assert_exit(&output, 0);
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    let properties = json!({
        "ct": "text/plain", "rt": "r/1", "cd": "AP8=", "f": "UTF8_DATA", "k": ["v"], "untraced": false,
    });
    assert_eq!(answer["output"], properties);
    assert_eq!(answer["warnings"], json!([]));
    for wrong in [
        ["--response-topic", "r/#"],
        ["--correlation-data-base64", "?"],
        ["--payload-format-indicator", "2"],
        ["--message-expiry-interval", "-1"],
    ] {
        let output = run(&[&["sql", statement, "-t", "t"][..], &wrong].concat());
        assert_exit(&output, 2);
    }
}

#[test]
fn sql_points_at_the_fault() {
    let statement = "SELECT nosuch(a) FROM 't'";
    let output = run(&["sql", statement, "--topic", "t"]);
    assert_exit(&output, 3);
    let text = err(&output);
    assert!(text.starts_with("error[R"), "{text}");
    assert!(text.contains("nosuch") && text.contains('^'), "{text}");
    let output = run(&["sql", statement, "--topic", "t", "--json"]);
    assert_exit(&output, 3);
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&answer["outcome"], &answer["line"], &answer["column"]),
        (&json!("refused"), &json!(1), &json!(8))
    );
}

#[test]
fn messages_travel_in_every_version_and_quality() {
    let server = Server::start("", &[]);
    for version in ["31", "311", "5"] {
        for qos in ["0", "1", "2"] {
            let mut sub =
                server.subscribe(&["-t", "a/+", "-q", qos, "-V", version, "-C", "2", "-F", "%t %q %p"]);
            let common = ["-t", "a/b", "-q", qos, "-V", version];
            assert_exit(&server.publish(&[&common[..], &["-m", "one"]].concat()), 0);
            assert_exit(&server.publish(&[&common[..], &["-m", "two"]].concat()), 0);
            drop(sub.stdin.take());
            let output = sub.end();
            assert_exit(&output, 0);
            assert_eq!(out(&output), format!("a/b {qos} one\na/b {qos} two\n"), "version {version}");
        }
    }
    server.stop();
}

#[test]
fn lines_of_standard_input_arrive_in_order_and_are_acknowledged() {
    let server = Server::start("[limits]\nreceive_maximum = 3\n", &[]);
    let sub = server.subscribe(&["-t", "lines", "-q", "2", "-C", "100"]);
    let arguments = ["pub", "-h", "127.0.0.1", "-p", &server.port, "-t", "lines", "-q", "2", "-l"];
    let mut publisher = Running::start(tidegate().args(arguments), true);
    let text: String = (0..100).map(|i| format!("line {i}\n")).collect();
    publisher.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert_exit(&publisher.end(), 0);
    let output = sub.end();
    assert_exit(&output, 0);
    assert_eq!(out(&output), text);

    // All of standard input, and a file, as one message each.
    let sub = server.subscribe(&["-t", "whole", "-q", "1", "-C", "2", "-N"]);
    let arguments = ["pub", "-h", "127.0.0.1", "-p", &server.port, "-t", "whole", "-q", "1", "-s"];
    let mut publisher = Running::start(tidegate().args(arguments), true);
    publisher.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert_exit(&publisher.end(), 0);
    let file = server.folder.path().join("payload");
    std::fs::write(&file, "from a file").unwrap();
    assert_exit(&server.publish(&["-t", "whole", "-q", "1", "-f", file.to_str().unwrap()]), 0);
    assert_eq!(out(&sub.end()), format!("{text}from a file"));
    server.stop();
}

#[test]
fn retained_messages_are_kept_shown_and_removed() {
    let server = Server::start("", &[]);
    assert_exit(&server.publish(&["-t", "state", "-m", "on", "-r", "-q", "1"]), 0);
    let output = server.subscribe(&["-t", "state", "-C", "1", "-F", "%r %p"]).end();
    assert_eq!(out(&output), "1 on\n");
    // Retained messages only: the first one that isn't ends it.
    let sub = server.subscribe(&["-t", "state", "--retained-only", "-v"]);
    assert_exit(&server.publish(&["-t", "state", "-m", "live"]), 0);
    assert_eq!(out(&sub.end()), "state on\n");
    assert_exit(&server.publish(&["-t", "state", "-n", "-r", "-q", "1"]), 0);
    let output = run(&["sub", "-h", "127.0.0.1", "-p", &server.port, "-t", "state", "-W", "1"]);
    assert_exit(&output, 27);
    assert_eq!(out(&output), "");
    server.stop();
}

#[test]
fn a_session_waits_for_its_client() {
    let server = Server::start("", &[]);
    let session = ["-t", "q", "-q", "1", "-i", "keeper", "-c"];
    assert_exit(&server.subscribe(&[&session[..], &["-E"]].concat()).end(), 0);
    for i in 0..3 {
        assert_exit(&server.publish(&["-t", "q", "-q", "1", "-m", &i.to_string()]), 0);
    }
    // What waited comes as soon as the session is resumed, before the new subscription is confirmed.
    let fixed = ["sub", "-h", "127.0.0.1", "-p", &server.port, "-C", "3"];
    let output = run(&[&fixed[..], &session].concat());
    assert_exit(&output, 0);
    assert_eq!(out(&output), "0\n1\n2\n");
    server.stop();
}

#[test]
fn properties_travel_with_the_message() {
    let server = Server::start("", &[]);
    let sub = server.subscribe(&["-t", "p", "-C", "1", "-F", "%C|%R|%P|%E"]);
    let output = server.publish(&[
        "-t",
        "p",
        "-m",
        "x",
        "-D",
        "publish",
        "content-type",
        "text/plain",
        "-D",
        "publish",
        "user-property",
        "a",
        "b",
        "-D",
        "publish",
        "response-topic",
        "r",
        "-q",
        "1",
    ]);
    assert_exit(&output, 0);
    assert_eq!(out(&sub.end()), "text/plain|r|a:b|\n");
    server.stop();
}

#[test]
fn a_will_is_published_when_its_client_dies() {
    let server = Server::start("", &[]);
    let watcher = server.subscribe(&["-t", "will", "-C", "1"]);
    let mut dying =
        server.subscribe(&["-t", "nothing", "--will-topic", "will", "--will-payload", "gone", "-k", "0"]);
    dying.child.kill().unwrap();
    assert_eq!(out(&watcher.end()), "gone\n");
    // One that says goodbye leaves no will.
    let watcher = server.subscribe(&["-t", "will", "-C", "1"]);
    let leaving = server.subscribe(&["-t", "nothing", "--will-topic", "will", "--will-payload", "gone"]);
    leaving.signal("INT");
    assert_exit(&leaving.end(), 0);
    // Nor does one whose time is up.
    let fixed = ["sub", "-h", "127.0.0.1", "-p", &server.port, "-t", "nothing", "-W", "1"];
    assert_exit(&run(&[&fixed[..], &["--will-topic", "will", "--will-payload", "gone"]].concat()), 27);
    assert_exit(&server.publish(&["-t", "will", "-m", "first"]), 0);
    assert_eq!(out(&watcher.end()), "first\n");
    server.stop();
}

#[test]
fn nobody_there_is_code_4() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    for command in [["pub", "-m", "x"], ["sub", "-C", "1"]] {
        let output = run(&[&command[..], &["-t", "a", "-h", "127.0.0.1", "-p", &free]].concat());
        assert_exit(&output, 4);
        assert!(err(&output).contains(&format!("can't connect to 127.0.0.1:{free}")), "{}", err(&output));
    }
}

#[test]
fn a_refused_client_is_code_5() {
    let server = Server::start("allow_anonymous = false\n", &[]);
    for version in ["311", "5"] {
        let output = server.publish(&["-t", "a", "-m", "x", "-V", version]);
        assert_exit(&output, 5);
        assert!(
            err(&output).contains("the server refused the connection: Not authorized (0x87)"),
            "{}",
            err(&output)
        );
    }
    server.stop();
}

#[test]
fn a_packet_that_the_server_does_not_take_is_code_5() {
    let server = Server::start("[limits]\nmax_packet_size = '1KiB'\n", &[]);
    let output = server.publish(&["-t", "a", "-m", &"x".repeat(2_000)]);
    assert_exit(&output, 5);
    assert!(err(&output).contains("exceeds the server's limit of 1024"), "{}", err(&output));
    server.stop();
}

#[test]
fn a_busy_port_is_said_in_words() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    // Not the state of whoever runs the tests.
    let state = tempfile::tempdir().unwrap();
    for command in ["serve", "demo"] {
        let mut command_line = tidegate();
        command_line.args([command, "--port", &port]).env("TIDEGATE_LOG", "off");
        command_line.env("XDG_STATE_HOME", state.path()).env_remove("STATE_DIRECTORY");
        let output = command_line.output().unwrap();
        assert_exit(&output, 7);
        let text = err(&output);
        assert!(text.contains(&format!("127.0.0.1:{port} is in use by another program")), "{text}");
        assert!(text.contains("mosquitto") && text.contains("--port"), "{text}");
    }
}

const DOUBLE: &str = "[rules.double]\nsql = \"SELECT a * 2 AS b FROM 'in'\"\n\
                      [[rules.double.actions]]\nname = 'x'\ntype = 'republish'\ntopic = 'out'\n";

#[test]
fn rules_run_and_are_read_again_on_sighup() {
    let mut server = Server::start("", &[("double.toml", DOUBLE)]);
    let message = ["-t", "in", "-q", "1", "-m", r#"{"a":21}"#];
    let sub = server.subscribe(&["-t", "out", "-C", "1"]);
    assert_exit(&server.publish(&message), 0);
    assert_eq!(out(&sub.end()), "{\"b\":42}\n");

    let file = server.folder.path().join("rules.d/double.toml");
    // What is broken is refused whole, and the old rule goes on.
    std::fs::write(&file, DOUBLE.replace("a * 2", "nosuch(a)")).unwrap();
    server.running.signal("HUP");
    server.running.wait_for("the rules that ran go on");
    let sub = server.subscribe(&["-t", "out", "-C", "1"]);
    assert_exit(&server.publish(&message), 0);
    assert_eq!(out(&sub.end()), "{\"b\":42}\n");

    std::fs::write(&file, DOUBLE.replace("a * 2", "a * 3")).unwrap();
    server.running.signal("HUP");
    server.running.wait_for("rules reloaded");
    let sub = server.subscribe(&["-t", "out", "-C", "1"]);
    assert_exit(&server.publish(&message), 0);
    assert_eq!(out(&sub.end()), "{\"b\":63}\n");
    server.stop();
}

/// Takes HTTP requests and hands on their Authorization headers.
fn receiver() -> (SocketAddr, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, received) = mpsc::channel();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let mut authorization = String::new();
            while let Some(Ok(line)) = lines.next()
                && !line.is_empty()
            {
                if let Some(value) = line.strip_prefix("authorization: ") {
                    authorization = value.to_owned();
                }
            }
            stream.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").unwrap();
            if sender.send(authorization).is_err() {
                return;
            }
        }
    });
    (address, received)
}

#[test]
fn connectors_are_read_again_on_sighup_and_never_logged() {
    let (address, authorizations) = receiver();
    let rule = "[rules.r]\nsql = \"SELECT a FROM 'in'\"\n[[rules.r.actions]]\nname = 'x'\ntype = 'http'\nconnector = 'ops'\nurl = '/x'\n";
    let connector = |token: &str| {
        format!(
            "[connectors.ops]\ntype = 'http'\nurl = 'http://{address}'\nallow_private = ['127.0.0.1']\nauth = {{ type = 'bearer', token = '{token}' }}\n"
        )
    };
    let mut server = Server::start(&connector("s3cret-1"), &[("r.toml", rule)]);
    let publish =
        |server: &Server| assert_exit(&server.publish(&["-t", "in", "-q", "1", "-m", "{\"a\":1}"]), 0);
    let next = || authorizations.recv_timeout(PATIENCE).unwrap();
    publish(&server);
    assert_eq!(next(), "Bearer s3cret-1");

    let file = server.folder.path().join("tidegate.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("token", "tokn")).unwrap();
    server.running.signal("HUP");
    server.running.wait_for("the rules that ran go on, with the connectors that they had");
    publish(&server);
    assert_eq!(next(), "Bearer s3cret-1");

    std::fs::write(&file, text.replace("s3cret-1", "s3cret-2")).unwrap();
    server.running.signal("HUP");
    server.running.wait_for("rules reloaded");
    publish(&server);
    assert_eq!(next(), "Bearer s3cret-2");
    server.running.signal("TERM");
    let output = server.running.end();
    assert!(!err(&output).contains("s3cret"), "{}", err(&output));
}

#[test]
fn subscribers_are_told_when_the_server_stops_and_come_back() {
    let server = Server::start("", &[]);
    let mut sub = server.subscribe(&["-t", "a"]);
    let port = server.port.clone();
    server.stop();
    let line = sub.wait_for("connecting again");
    assert!(line.contains("Server shutting down (0x8b)"), "{line}");
    let folder = tempfile::tempdir().unwrap();
    let mut again = Running::start(
        tidegate()
            .args(["serve", "--port", &port])
            .env("XDG_STATE_HOME", folder.path())
            .env_remove("STATE_DIRECTORY"),
        true,
    );
    again.wait_for("listening");
    sub.wait_for("subscribed to");
    sub.signal("INT");
    assert_exit(&sub.end(), 0);
    again.signal("INT");
    assert_exit(&again.end(), 0);
}

#[test]
fn the_reader_of_our_output_may_go_away() {
    let server = Server::start("", &[]);
    let mut sub = server.subscribe(&["-t", "a", "-q", "1"]);
    drop(sub.child.stdout.take());
    assert_exit(&server.publish(&["-t", "a", "-q", "1", "-m", "x"]), 0);
    assert_exit(&sub.end(), 0);
    server.stop();
}

#[test]
fn the_demo_shows_what_goes_in_and_what_comes_out() {
    let state = tempfile::tempdir().unwrap();
    let mut command = tidegate();
    command.args(["demo", "--port", "0"]).env("XDG_STATE_HOME", state.path()).env_remove("STATE_DIRECTORY");
    let mut demo = Running::start(&mut command, false);
    demo.wait_for("mosquitto_pub -h 127.0.0.1 -p ");
    let line = demo.wait_for("console on http://127.0.0.1:");
    assert!(line.contains("/, setup token tds_"), "{line}");
    demo.wait_for("in   sensors/");
    demo.wait_for("rule comfort");
    demo.wait_for("out  comfort/");
    demo.wait_for("out  alarms/furnace");
    demo.signal("INT");
    demo.wait_for("summary");
    let line = demo.wait_for("rule overheat");
    assert!(line.contains("failed 0"), "{line}");
    // Both actions of the rule did their work.
    assert!(demo.seen.iter().any(|line| line.starts_with("http POST /alarms/furnace")), "{:#?}", demo.seen);
    assert!(!demo.seen.iter().any(|line| line.contains('\u{1b}')), "no colours where there is no terminal");
    assert_exit(&demo.end(), 0);
    let left = state.path().join("tidegate/demo/tidegate.toml");
    assert_exit(&run(&["check", "--config", left.to_str().unwrap()]), 0);
    assert!(Path::new(&left).with_file_name("rules.d").join("overheat.toml").is_file());
}

#[test]
fn the_demo_ends_by_itself_when_told_so() {
    let state = tempfile::tempdir().unwrap();
    let mut command = tidegate();
    command.args(["demo", "--port", "0", "--seconds", "1"]).env("XDG_STATE_HOME", state.path());
    let output = command.env_remove("STATE_DIRECTORY").output().unwrap();
    assert_exit(&output, 0);
    assert!(out(&output).contains("summary"), "{}", out(&output));
}
