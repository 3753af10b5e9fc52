//! `tidegate demo`: the whole product in one terminal, without a word of configuration.
//!
//! It starts the real server with the rules of `config/rules.d`, a few simulated devices that publish over real MQTT
//! connections, a receiver for the HTTP actions, and a subscriber; and prints what goes in, which rule let it pass and
//! what came out. Nothing of it is staged: the lines are what the subscriber and the receiver got, and the counters are
//! the rules' own.

mod devices;
mod receiver;
mod screen;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use actions::AddressRange;
use clap::Args;
use mqtt_protocol::{QoS, SubscriptionOptions};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use self::receiver::{Receiver, Request};
use self::screen::Screen;
use crate::cli::{Exit, Failure, Threads, block_on, cannot_start, chain, stop_signal};
use crate::client::{Client, ClientError, Endpoint, Event, Options, Received};
use crate::config::{Actions, Admin, Config, Environment, Listener, default_data_dir};
use crate::rules::{RuleSet, RuleStats};
use crate::server::{Server, StartError, rule_limits};
use crate::storage::Storage;

/// The rules, as they lie in `config/rules.d`.
const RULES: [(&str, &str); 3] = [
    ("comfort.toml", include_str!("../../../config/rules.d/comfort.toml")),
    ("low-battery.toml", include_str!("../../../config/rules.d/low-battery.toml")),
    ("overheat.toml", include_str!("../../../config/rules.d/overheat.toml")),
];

/// Where the rules send their HTTP requests, as the files have it; the receiver's real address takes its place.
const RECEIVER: &str = "http://127.0.0.1:7180";

/// Where the broker listens when nothing is said and nobody else does.
const PORT: u16 = 1883;

/// What the demo's subscriber looks at.
const FILTERS: [&str; 4] = ["sensors/#", "alarms/#", "comfort/#", "errors/#"];

/// Requests that may wait to be printed; the receiver answers no faster than they are.
const REQUESTS_MAX: usize = 64;

/// Time that everything has to end.
const GRACE: Duration = Duration::from_secs(5);

#[derive(Debug, Default, Args)]
pub(crate) struct DemoArgs {
    /// Port of the broker; without it 1883, or any free one when that is in use.
    #[arg(short = 'p', long, value_name = "PORT")]
    port: Option<u16>,
    /// End after this many seconds.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    seconds: Option<u32>,
}

pub(crate) fn run(args: &DemoArgs, environment: &Environment) -> Result<Exit, Failure> {
    block_on(Threads::PerCore, async {
        let mut stop = stop_signal()?;
        let demo = Demo::start(args, environment).await?;
        let seconds = args.seconds.map(|seconds| Duration::from_secs(u64::from(seconds)));
        let end = async move {
            match seconds {
                Some(time) => tokio::time::sleep(time).await,
                None => {
                    stop.received().await;
                }
            }
        };
        demo.watch(end).await
    })
}

struct Demo {
    server: Server,
    requests: mpsc::Receiver<Request>,
    receiver: Receiver,
    watcher: Client,
    devices: JoinSet<Result<(), ClientError>>,
    screen: Screen,
    /// The rules' counters as they were last shown.
    shown: Vec<RuleStats>,
}

impl Demo {
    async fn start(args: &DemoArgs, environment: &Environment) -> Result<Self, Failure> {
        let screen = Screen::new(environment);
        let (sender, requests) = mpsc::channel(REQUESTS_MAX);
        let receiver = Receiver::start(sender).await.map_err(|error| {
            Failure::new(Exit::Failed, format!("the receiver of HTTP requests can't listen: {error}"))
        })?;
        let rules = rules(receiver.address())?;
        let server = start_server(args.port, &rules).await?;
        let Some(address) = server.address() else {
            return Err(Failure::new(Exit::Failed, "the server has no listener"));
        };
        let moved = args.port.is_none() && address.port() != PORT;
        let remark = if moved { " (1883, the usual port, is in use)" } else { "" };
        introduce(&screen, &rules, address, remark, receiver.address())?;
        if let Some((console, token)) = server.setup_token() {
            screen.note(&format!("console on http://{console}/, setup token {token}"))?;
            screen.note("")?;
        }
        keep_files(&screen, &default_data_dir(environment).join("demo"))?;
        let endpoint = Endpoint::Tcp { host: address.ip().to_string(), port: address.port() };
        let options = Options { endpoint, ..Options::default() };
        let mut watcher =
            Client::connect(&Options { client_id: "demo-watcher".to_owned(), ..options.clone() }).await?;
        let wanted = SubscriptionOptions::from_qos(QoS::AtLeastOnce);
        watcher.subscribe(FILTERS.iter().map(|filter| (*filter, wanted)))?;
        while !matches!(watcher.next().await?, Event::Subscribed { .. }) {}
        let shown = server.rules().stats();
        Ok(Self { server, requests, receiver, watcher, devices: devices::start(&options), screen, shown })
    }

    /// Shows everything until `end` comes, then stops the parts in order.
    async fn watch(mut self, end: impl Future<Output = ()>) -> Result<Exit, Failure> {
        tokio::pin!(end);
        loop {
            tokio::select! {
                // What came in is shown before what came of it, where both are there.
                biased;
                () = &mut end => break,
                event = self.watcher.next() => {
                    if let Event::Message(received) = event? {
                        self.show_message(&received)?;
                    }
                }
                Some(request) = self.requests.recv() => self.screen.http(&request)?,
                Some(ended) = self.devices.join_next() => {
                    let why = match ended {
                        Ok(Ok(())) => "it has nothing more to say".to_owned(),
                        Ok(Err(error)) => chain(&error),
                        Err(error) => error.to_string(),
                    };
                    self.screen.note(&format!("a device stopped: {why}"))?;
                }
            }
        }
        self.devices.shutdown().await;
        if let Err(error) = self.watcher.disconnect().await {
            self.screen.note(&format!("the subscriber's connection had ended: {}", chain(&error)))?;
        }
        // The receiver must answer while the queues of HTTP actions run empty.
        let stop = self.server.stop(GRACE);
        tokio::pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => break,
                Some(request) = self.requests.recv() => self.screen.http(&request)?,
            }
        }
        while let Ok(request) = self.requests.try_recv() {
            self.screen.http(&request)?;
        }
        self.receiver.stop();
        self.screen.summary(&self.server.rules().stats())?;
        Ok(Exit::Success)
    }

    fn show_message(&mut self, received: &Received) -> Result<(), Failure> {
        let message = &received.message;
        if !message.topic.starts_with("sensors/") {
            return self.screen.out(&message.topic, &message.payload);
        }
        self.screen.input(&message.topic, &message.payload)?;
        // Rules run before anyone receives the message, so whatever it set off is counted by now.
        let now = self.server.rules().stats();
        for rule in &now {
            let before = self.shown.iter().find(|old| old.name == rule.name).map_or(0, |old| old.passed);
            if rule.passed > before {
                self.screen.rule(rule)?;
            }
        }
        self.shown = now;
        Ok(())
    }
}

/// The rules with the receiver's address in them.
fn rules(receiver: SocketAddr) -> Result<RuleSet, Failure> {
    let base = format!("http://{receiver}");
    let texts = RULES.map(|(name, text)| (name, text.replace(RECEIVER, &base)));
    let limits = rule_limits(&Config::default().limits.rules);
    RuleSet::from_texts(texts.iter().map(|(name, text)| (Path::new(name), text.as_str())), &limits).map_err(
        |faults| {
            let text: String = faults.iter().map(|fault| format!("error: {fault}\n")).collect();
            Failure::rendered(Exit::Refused, text)
        },
    )
}

/// Starts the server on the port asked for; without one on 1883, or on any free port when that is taken. The console is at its usual
/// address, or on any free port as well.
async fn start_server(port: Option<u16>, rules: &RuleSet) -> Result<Server, Failure> {
    let storage = Storage::memory();
    let mut broker_port = port.unwrap_or(PORT);
    let mut admin = Admin::default();
    // Each of the two gives way once.
    loop {
        match Server::start(&config_for(broker_port, admin.clone()), rules, &storage).await {
            Err(StartError::AddressInUse { .. }) if port.is_none() && broker_port != 0 => broker_port = 0,
            // A server whose console finds no place runs without it, and here people look for it.
            Ok(server) if server.admin_address().is_none() && admin.address.port() != 0 => {
                server.stop(GRACE).await;
                admin.address.set_port(0);
            }
            outcome => return outcome.map_err(cannot_start),
        }
    }
}

fn config_for(port: u16, admin: Admin) -> Config {
    let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
    // The rules post to the receiver beside the broker.
    let allow_private = vec![AddressRange::from(IpAddr::V4(Ipv4Addr::LOCALHOST))];
    Config {
        listeners: vec![Listener { address: Some(address), ..Listener::local_default() }],
        admin,
        actions: Actions { allow_private },
        ..Config::default()
    }
}

fn introduce(
    screen: &Screen,
    rules: &RuleSet,
    address: SocketAddr,
    remark: &str,
    receiver: SocketAddr,
) -> Result<(), Failure> {
    screen.title(&format!("Tidegate {} demo", env!("CARGO_PKG_VERSION")))?;
    screen.note(&format!("MQTT broker on {address}{remark}, HTTP receiver on {receiver}"))?;
    for rule in rules.iter() {
        screen.note(&format!("rule {:<12} {}", rule.name, rule.description))?;
        for line in rule.sql.trim().lines() {
            screen.note(&format!("       {line}"))?;
        }
    }
    let (host, port) = (address.ip(), address.port());
    let hot = r#"{"deviceId":"me","temperature":80,"humidity":40,"battery":90}"#;
    screen.note("try it from another terminal:")?;
    screen.note(&format!("  mosquitto_sub -h {host} -p {port} -v -t 'alarms/#'"))?;
    screen.note(&format!("  mosquitto_pub -h {host} -p {port} -t sensors/desk/temp -m '{hot}'"))?;
    screen
        .note("  (or `tidegate sub` and `tidegate pub`, which take the same flags); Ctrl-C ends the demo")?;
    screen.note("")
}

/// Leaves rules and a configuration to go on from, where there are none yet.
fn keep_files(screen: &Screen, folder: &Path) -> Result<(), Failure> {
    let rules = folder.join("rules.d");
    let config = folder.join("tidegate.toml");
    if config.exists() {
        return screen.note(&format!("to go on from here: tidegate serve --config {}", config.display()));
    }
    let written = std::fs::create_dir_all(&rules).and_then(|()| {
        for (name, text) in RULES {
            std::fs::write(rules.join(name), text)?;
        }
        std::fs::write(&config, include_str!("../../../config/tidegate.toml"))
    });
    match written {
        Ok(()) => screen.note(&format!("to go on from here: tidegate serve --config {}", config.display())),
        // The demo needs no file; it only can't leave one.
        Err(error) => screen.note(&format!("no files are left in {}: {error}", folder.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rules_are_those_of_the_config_folder() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/rules.d");
        let mut names: Vec<_> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.ends_with(".toml"))
            .collect();
        names.sort();
        assert_eq!(names, RULES.map(|(name, _)| name));
    }

    #[test]
    fn the_rules_name_the_receiver() {
        let rules = rules(SocketAddr::from(([127, 0, 0, 1], 40_000))).unwrap();
        assert_eq!(rules.len(), RULES.len());
        assert!(
            RULES.iter().any(|(_, text)| text.contains(RECEIVER)),
            "no rule sends anything to the receiver"
        );
    }

    #[tokio::test]
    async fn the_console_is_somewhere_else_when_its_address_is_taken() {
        let usual = Admin::default().address;
        // Held by this test, or by whoever else has it.
        let held = std::net::TcpListener::bind(usual);
        let rules = rules(SocketAddr::from(([127, 0, 0, 1], 40_000))).unwrap();
        let server = start_server(Some(0), &rules).await.unwrap();
        let console = server.admin_address().unwrap();
        assert!(held.is_err() || console != usual, "{console}");
        server.stop(Duration::ZERO).await;
    }
}
