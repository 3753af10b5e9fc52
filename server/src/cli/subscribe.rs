//! `tidegate sub`: subscribe and print what arrives.
//!
//! A connection that breaks after it was open is opened again, with a growing pause; a first one that fails ends the
//! program, so that a script notices.

use std::io::IsTerminal as _;
use std::time::{Duration, SystemTime};

use clap::Args;
use mqtt_protocol::{QoS, RetainHandling, SubscriptionOptions, matches, parse_filter};
use tokio::time::Instant;

use super::exit::chain;
use super::format::Format;
use super::mqtt_flags::{ConnectFlags, Request, qos, usage};
use super::output::{Output, notice};
use super::signals::{StopSignal, stop_signal};
use super::{Exit, Failure, Threads, block_on};
use crate::client::{Client, ClientError, Event, Options, Received};
use crate::config::Environment;

/// Pause before the first attempt to connect again.
const PAUSE_MIN: Duration = Duration::from_secs(1);

/// Longest pause between two attempts.
const PAUSE_MAX: Duration = Duration::from_secs(30);

#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(super) struct SubscribeArgs {
    #[command(flatten)]
    connect: ConnectFlags,
    /// Topic Filter to subscribe to; may be repeated.
    #[arg(short = 't', long, value_name = "FILTER", required_unless_present_any = ["unsubscribe", "url"])]
    topic: Vec<String>,
    /// Leave out messages that match this filter; may be repeated.
    #[arg(short = 'T', long, value_name = "FILTER")]
    filter_out: Vec<String>,
    /// Topic Filter to unsubscribe from; may be repeated.
    #[arg(short = 'U', long, value_name = "FILTER")]
    unsubscribe: Vec<String>,
    /// Highest quality of service.
    #[arg(short = 'q', long, value_name = "QOS", default_value = "0", value_parser = qos)]
    qos: QoS,
    /// End after this many messages.
    #[arg(short = 'C', value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// End after this many seconds, with exit code 27 unless -C was reached.
    #[arg(short = 'W', value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    timeout: Option<u32>,
    /// Print the topic before the payload.
    #[arg(short = 'v', long)]
    verbose: bool,
    /// What to print for a message: %t topic, %p payload, %J everything as JSON, and more (see docs/cli.md).
    #[arg(short = 'F', value_name = "FORMAT", conflicts_with = "verbose")]
    format: Option<Format>,
    /// Print no newline after a message.
    #[arg(short = 'N')]
    no_newline: bool,
    /// Leave out messages that were retained before the subscription.
    #[arg(short = 'R')]
    no_retained: bool,
    /// Print only messages that were retained, and end at the first one that wasn't.
    #[arg(long, conflicts_with = "no_retained")]
    retained_only: bool,
    /// Let the retain flag stay as it was published (MQTT 5).
    #[arg(long)]
    retain_as_published: bool,
    /// End when the subscription is confirmed.
    #[arg(short = 'E')]
    exit_after_suback: bool,
}

pub(super) fn run(args: &SubscribeArgs, environment: &Environment) -> Result<Exit, Failure> {
    let Request { options, topic, .. } = args.connect.request(environment)?;
    let filters: Vec<String> = args.topic.iter().cloned().chain(topic).collect();
    if filters.is_empty() && args.unsubscribe.is_empty() {
        return Err(usage("there is nothing to subscribe to: -t names it"));
    }
    for filter in filters.iter().chain(&args.filter_out).chain(&args.unsubscribe) {
        parse_filter(filter).map_err(|error| usage(&format!("topic filter \"{filter}\": {error}")))?;
    }
    block_on(Threads::One, async {
        let limit = args.timeout.map(|seconds| Duration::from_secs(u64::from(seconds)));
        let mut stop = Stop { signal: stop_signal()?, deadline: limit.map(|limit| Instant::now() + limit) };
        let mut subscriber = Subscriber {
            format: args.format.clone().unwrap_or_else(|| Format::plain(args.verbose)),
            args,
            options,
            filters,
            printed: 0,
            // Only a terminal obeys control characters; a pipe gets the bytes as they came.
            escape: std::io::stdout().is_terminal(),
        };
        subscriber.run(&mut stop).await
    })
}

struct Subscriber<'a> {
    args: &'a SubscribeArgs,
    options: Options,
    /// What is subscribed to.
    filters: Vec<String>,
    format: Format,
    printed: u64,
    escape: bool,
}

impl Subscriber<'_> {
    async fn run(&mut self, stop: &mut Stop) -> Result<Exit, Failure> {
        let mut client = tokio::select! {
            client = Client::connect(&self.options) => client?,
            exit = stop.asked() => return Ok(exit),
        };
        loop {
            self.debug(|| format!("connected as \"{}\"", client.accepted().client_id));
            let lost = match self.receive(&mut client, stop).await {
                Ok(exit) => {
                    // The connection is of no more use, whether the goodbye arrives or not.
                    if let Err(error) = client.disconnect().await {
                        self.debug(|| chain(&error));
                    }
                    return Ok(exit);
                }
                Err(Ended::Failure(failure)) => return Err(failure),
                Err(Ended::Connection(error)) if error.is_retriable() => error,
                Err(Ended::Connection(error)) => return Err(error.into()),
            };
            if !self.args.connect.quiet {
                notice(&format!("{}; connecting again", chain(&lost)));
            }
            client = tokio::select! {
                client = self.connect_again() => client?,
                exit = stop.asked() => return Ok(exit),
            };
        }
    }

    /// Tries until it succeeds, or fails in a way that won't get better.
    async fn connect_again(&self) -> Result<Client, ClientError> {
        let mut pause = PAUSE_MIN;
        loop {
            tokio::time::sleep(pause).await;
            match Client::connect(&self.options).await {
                Err(error) if error.is_retriable() => self.debug(|| chain(&error)),
                outcome => return outcome,
            }
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Subscribes and prints until the connection breaks or there is nothing more to do.
    async fn receive(&mut self, client: &mut Client, stop: &mut Stop) -> Result<Exit, Ended> {
        let options = SubscriptionOptions {
            retain_as_published: self.args.retain_as_published && self.options.version.has_properties(),
            retain_handling: RetainHandling::default(),
            ..SubscriptionOptions::from_qos(self.args.qos)
        };
        if !self.args.unsubscribe.is_empty() {
            client.unsubscribe(self.args.unsubscribe.iter().map(String::as_str))?;
        }
        if !self.filters.is_empty() {
            client.subscribe(self.filters.iter().map(|filter| (filter.as_str(), options)))?;
        }
        loop {
            let event = tokio::select! {
                event = client.next() => event?,
                exit = stop.asked() => return Ok(exit),
            };
            match event {
                Event::Message(received) => {
                    if let Some(exit) = self.message(&received)? {
                        return Ok(exit);
                    }
                }
                Event::Subscribed { reason_codes, .. } => {
                    let mut granted = 0;
                    for (filter, code) in self.filters.iter().zip(&reason_codes) {
                        if code.is_error() {
                            notice(&format!("\"{filter}\" was refused: {code} (0x{:02x})", code.code()));
                        } else {
                            granted += 1;
                            self.debug(|| format!("subscribed to \"{filter}\": {code}"));
                        }
                    }
                    if granted == 0 {
                        return Ok(Exit::Denied);
                    }
                    if self.args.exit_after_suback {
                        return Ok(Exit::Success);
                    }
                }
                Event::Unsubscribed { .. } => {
                    self.debug(|| "unsubscribed".to_owned());
                    if self.filters.is_empty() {
                        return Ok(Exit::Success);
                    }
                }
                Event::Published { .. } => {}
            }
        }
    }

    fn message(&mut self, received: &Received) -> Result<Option<Exit>, Failure> {
        let message = &received.message;
        if self.args.retained_only && !message.retain {
            return Ok(Some(Exit::Success));
        }
        let left_out = self.args.no_retained && message.retain
            || self.args.filter_out.iter().any(|filter| matches(filter, &message.topic));
        if left_out {
            return Ok(None);
        }
        let mut line = Vec::new();
        self.format.write(received, SystemTime::now(), &mut line);
        if self.escape {
            line = without_control_characters(&line);
        }
        if !self.args.no_newline {
            line.push(b'\n');
        }
        Output::stdout().bytes(&line)?;
        self.printed += 1;
        Ok((self.args.count == Some(self.printed)).then_some(Exit::Success))
    }

    fn debug(&self, text: impl FnOnce() -> String) {
        if self.args.connect.debug {
            notice(&text());
        }
    }
}

/// What ends it from outside: a signal, or the time of `-W`.
struct Stop {
    signal: StopSignal,
    deadline: Option<Instant>,
}

impl Stop {
    /// Waits for either; returns the exit code that it means. Cancel-safe.
    async fn asked(&mut self) -> Exit {
        let time_is_up = async {
            match self.deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.signal.received() => Exit::Success,
            () = time_is_up => Exit::TimedOut,
        }
    }
}

/// Why receiving ended.
enum Ended {
    Connection(ClientError),
    Failure(Failure),
}

impl From<ClientError> for Ended {
    fn from(error: ClientError) -> Self {
        Self::Connection(error)
    }
}

impl From<Failure> for Ended {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

/// The text with control characters, but newline and tab, shown instead of obeyed.
pub(crate) fn without_control_characters(bytes: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(bytes);
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\t' => shown.push(c),
            c if c.is_control() => shown.extend(c.escape_default()),
            c => shown.push(c),
        }
    }
    shown.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_is_not_commanded_by_payloads() {
        let shown = without_control_characters("a\u{1b}[2Jb\tc\nd\u{9b}é".as_bytes());
        assert_eq!(String::from_utf8(shown).unwrap(), "a\\u{1b}[2Jb\tc\nd\\u{9b}é");
    }
}
