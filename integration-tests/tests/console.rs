//! The console in a real browser: Debian's Chromium, driven by the scripts in `console/tests`.
//!
//! A test here starts the gateway and the far sides that it needs, and hands their places to a script by its environment. What only this
//! half can do, such as opening a port or telling what a far side got, the script asks for over HTTP. `cargo xtask test` installs
//! the browser and builds the console before the broker that embeds it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "helpers of tests panic where they can't go on, and a script's closing lines are wanted"
)]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use integration_tests::{Broker, BrokerBuilder, ClosedPort, HttpReceiver};
use serde_json::Value;

/// What the scripts show of themselves where they ask as a program.
const TOKEN: &str = "tester-token";
/// What `sha256sum` prints of it.
const TOKEN_SHA256: &str = "92351a5d9f14769f34d89bc109610b2c3cba5f1ef03274aec3a7d1b63e363b12";
/// Of the password that all users have: `PASSWORD` in console/tests/browser.mjs.
const PASSWORD_HASH: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$5EAH6ZmFyDanGu0VUhf00Q$fKwsJdK3E8vCXug1+wZGfkzYcbrgHfknKwJbLoDhAP4";

/// Users and what they may do.
const USERS: [(&str, &str); 3] = [("ada", "admin"), ("otto", "operator"), ("vera", "viewer")];

const OVERHEAT: &str = "[rules.overheat]\nsql = \"SELECT temperature AS t, site FROM 'hall/+' WHERE temperature > 60\"\n     [[rules.overheat.actions]]\nname = 'ops'\ntype = 'http'\nconnector = 'ops'\nurl = '/alarms'\n     [rules.overheat.actions.retry]\ninitial_backoff = '200ms'\nmax_backoff = '1s'\n";

/// A gateway with users, a token, and a rule whose requests go to `address`.
fn gateway(address: SocketAddr) -> BrokerBuilder {
    let mut builder = Broker::builder()
        .section(&format!(
            "[[admin.tokens]]\nname = \"tester\"\nrole = \"admin\"\nsha256 = \"{TOKEN_SHA256}\"\n\
             [connectors.ops]\ntype = \"http\"\nurl = \"http://{address}\"\n"
        ))
        .rule_file("overheat", OVERHEAT);
    for (name, role) in USERS {
        builder = builder.section(&format!(
            "[[admin.users]]\nname = \"{name}\"\nrole = \"{role}\"\npassword_hash = \"{PASSWORD_HASH}\"\n"
        ));
    }
    builder
}

/// A far side: it refuses what comes from a site whose name begins with "bad", until it is told to take everything.
#[derive(Clone, Default)]
struct FarSide(Arc<Mutex<Taken>>);

#[derive(Default)]
struct Taken {
    bodies: Vec<Value>,
    accepts_all: bool,
}

impl FarSide {
    fn answer(&self, receiver: HttpReceiver) {
        let taken = Arc::clone(&self.0);
        receiver.answer_all(move |request| {
            let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
            let mut taken = taken.lock().unwrap();
            let site = body.get("site").and_then(Value::as_str).unwrap_or_default();
            if site.starts_with("bad") && !taken.accepts_all {
                return ("400 Bad Request", "no such site".to_owned());
            }
            taken.bodies.push(body);
            ("200 OK", String::new())
        });
    }

    /// Where the script asks; `port` is opened when it says so.
    fn control(&self, mut port: Option<ClosedPort>) -> String {
        let control = HttpReceiver::start();
        let url = format!("http://{}", control.address());
        let this = self.clone();
        control.answer_all(move |request| match request.target.as_str() {
            "/open" => {
                if let Some(port) = port.take() {
                    this.answer(port.open());
                }
                ("200 OK", String::new())
            }
            "/accept" => {
                this.0.lock().unwrap().accepts_all = true;
                ("200 OK", String::new())
            }
            "/bodies" => ("200 OK", Value::from(this.0.lock().unwrap().bodies.clone()).to_string()),
            _ => ("404 Not Found", String::new()),
        });
        url
    }
}

/// A script with the places of a gateway; [`Script::run`] runs it.
struct Script(Command);

impl Script {
    fn new(name: &str, broker: &Broker) -> Self {
        Self::alone(name)
            .with("CONSOLE_URL", &format!("http://{}", broker.admin_address()))
            .with("CONSOLE_MQTT_PORT", &broker.address().port().to_string())
    }

    /// A script that asks no gateway.
    fn alone(name: &str) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("console");
        assert!(
            folder.join("node_modules/playwright-core").exists() && folder.join("dist/index.html").exists(),
            "the console isn't built: run `cargo xtask test`, or `cargo xtask console` and build the broker again"
        );
        let mut command = Command::new("node");
        command
            .args(["--test", "--test-reporter=spec"])
            .arg(format!("tests/{name}.test.mjs"))
            .current_dir(folder)
            .env("CONSOLE_TOKEN", TOKEN)
            .env("CONSOLE_SCREENSHOTS", screenshots())
            .stdin(Stdio::null());
        Self(command)
    }

    fn with(mut self, name: &str, value: &str) -> Self {
        self.0.env(name, value);
        self
    }

    #[track_caller]
    fn run(mut self) {
        let output = self.0.output().unwrap();
        let text =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{:?} ended with {}:\n{text}", self.0, output.status);
        print!("{text}");
    }
}

/// `target/console-screenshots`, beside the folder that the tests run from.
fn screenshots() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    tests.ancestors().nth(3).unwrap().join("console-screenshots")
}

/// A gateway whose far side is there.
fn running() -> (Broker, FarSide) {
    let receiver = HttpReceiver::start();
    let far_side = FarSide::default();
    let broker = gateway(receiver.address()).start();
    far_side.answer(receiver);
    (broker, far_side)
}

#[test]
fn the_setup_token_makes_the_first_administrator() {
    let broker = Broker::start();
    let (code, text) = broker.command(&["setup-token"]);
    assert_eq!(code, Some(0), "{text}");
    let token = text.split_whitespace().find(|word| word.starts_with("tds_")).expect("a token");
    Script::new("first_run", &broker).with("CONSOLE_SETUP_TOKEN", token).run();
}

#[test]
fn a_rule_is_written_tried_and_saved() {
    let (broker, _far_side) = running_without_rules();
    Script::new("write_rule", &broker).run();
}

/// The rule that the script writes has the name that others have from a file.
fn running_without_rules() -> (Broker, FarSide) {
    let receiver = HttpReceiver::start();
    let far_side = FarSide::default();
    let broker = gateway(receiver.address()).rule_file("overheat", "").start();
    far_side.answer(receiver);
    (broker, far_side)
}

#[test]
fn a_queue_grows_while_the_sink_is_down_and_drains() {
    let port = ClosedPort::new();
    let far_side = FarSide::default();
    let broker = gateway(port.address()).start();
    let control = far_side.control(Some(port));
    Script::new("sink_down", &broker).with("CONSOLE_CONTROL", &control).run();
}

#[test]
fn a_dead_letter_is_mended_and_sent_again() {
    let (broker, far_side) = running();
    Script::new("dead_letter", &broker).with("CONSOLE_CONTROL", &far_side.control(None)).run();
}

#[test]
fn a_rule_is_rolled_back() {
    let (broker, _far_side) = running();
    Script::new("rollback", &broker).run();
}

#[test]
fn a_rule_is_written_in_forms_copied_and_removed() {
    let (broker, _far_side) = running();
    Script::new("rule_forms", &broker).run();
}

#[test]
fn lists_of_ten_thousand_are_paged_and_searched() {
    let (broker, _far_side) = running();
    Script::new("lists", &broker).run();
}

#[test]
fn what_the_pages_reckon_is_right() {
    Script::alone("modules").run();
}

#[test]
fn nobody_is_shown_what_would_be_refused() {
    let (broker, _far_side) = running();
    Script::new("roles", &broker).run();
}

#[test]
fn what_devices_send_is_shown_as_text() {
    let broker = far_side_that_refuses();
    Script::new("injection", &broker).run();
}

#[test]
fn the_mqtt_console_publishes_and_receives() {
    let (broker, _far_side) = running();
    Script::new("mqtt_console", &broker).run();
}

#[test]
fn every_page_is_accessible_fits_and_has_its_pictures() {
    let broker = far_side_that_refuses();
    Script::new("pages", &broker).run();
}

fn far_side_that_refuses() -> Broker {
    let receiver = HttpReceiver::start();
    let broker = gateway(receiver.address()).start();
    receiver.answer_all(|_| ("400 Bad Request", "no such site".to_owned()));
    broker
}
