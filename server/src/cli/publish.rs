//! `tidegate pub`: publish one message, a file, or a message for each line of standard input.

use std::path::PathBuf;

use clap::Args;
use mqtt_protocol::{QoS, validate_topic_name};
use tokio::io::AsyncBufReadExt as _;

use super::exit::chain;
use super::mqtt_flags::{ConnectFlags, qos, usage};
use super::output::notice;
use super::{Exit, Failure, Threads, block_on};
use crate::client::{Client, ClientError, Event, Message};

/// Longest line that `-l` reads, in bytes: the largest payload there is.
const LINE_BYTES_MAX: usize = mqtt_protocol::VARIABLE_BYTE_INTEGER_MAX as usize;

#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
#[group(id = "payload", required = true, multiple = false, args = ["message", "file", "lines", "null", "stdin"])]
pub(super) struct PublishArgs {
    #[command(flatten)]
    connect: ConnectFlags,
    /// Topic to publish on.
    #[arg(short = 't', long, value_name = "TOPIC")]
    topic: String,
    /// Publish this text.
    #[arg(short = 'm', long, value_name = "TEXT")]
    message: Option<String>,
    /// Publish the contents of a file.
    #[arg(short = 'f', long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Publish each line of standard input.
    #[arg(short = 'l', long = "stdin-line")]
    lines: bool,
    /// Publish an empty payload; with -r it removes the retained message.
    #[arg(short = 'n', long = "null-message")]
    null: bool,
    /// Publish all of standard input as one message.
    #[arg(short = 's', long = "stdin-file")]
    stdin: bool,
    /// Quality of service.
    #[arg(short = 'q', long, value_name = "QOS", default_value = "0", value_parser = qos)]
    qos: QoS,
    /// Let the broker keep the message for later subscribers.
    #[arg(short = 'r', long)]
    retain: bool,
    /// Publish it this many times (-m, -f, -n, -s).
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..), conflicts_with = "lines")]
    repeat: u32,
    /// Seconds between two of them.
    #[arg(long, value_name = "SECONDS", default_value_t = 0.0, requires = "repeat")]
    repeat_delay: f64,
}

pub(super) fn run(args: &PublishArgs) -> Result<Exit, Failure> {
    validate_topic_name(&args.topic).map_err(|error| usage(&format!("topic \"{}\": {error}", args.topic)))?;
    let (options, properties) = args.connect.options()?;
    let template = Message {
        qos: args.qos,
        retain: args.retain,
        properties,
        ..Message::new(args.topic.as_str(), Vec::new())
    };
    block_on(Threads::One, async {
        let delay = std::time::Duration::try_from_secs_f64(args.repeat_delay)
            .map_err(|_| usage("--repeat-delay takes seconds, 0 or more"))?;
        let payload = if args.lines { None } else { Some(payload(args).await?) };
        let mut publisher = Publisher {
            client: Client::connect(&options).await?,
            refused: 0,
            quiet: args.connect.quiet,
            debug: args.connect.debug,
        };
        publisher.debug(|client| format!("connected as \"{}\"", client.accepted().client_id));
        match payload {
            Some(payload) => {
                let message = Message { payload, ..template };
                for round in 0..args.repeat {
                    if round > 0 && !delay.is_zero() {
                        publisher.settle_until(tokio::time::sleep(delay)).await?;
                    }
                    publisher.publish(&message).await?;
                }
            }
            None => publisher.publish_lines(template).await?,
        }
        publisher.finish().await
    })
}

async fn payload(args: &PublishArgs) -> Result<Vec<u8>, Failure> {
    if let Some(text) = &args.message {
        return Ok(text.clone().into_bytes());
    }
    if let Some(path) = &args.file {
        return tokio::fs::read(path).await.map_err(|error| {
            Failure::new(Exit::Failed, format!("{} can't be read: {error}", path.display()))
        });
    }
    let mut bytes = Vec::new();
    if args.stdin {
        tokio::io::AsyncReadExt::read_to_end(&mut tokio::io::stdin(), &mut bytes)
            .await
            .map_err(stdin_failed)?;
    }
    Ok(bytes)
}

fn stdin_failed(error: std::io::Error) -> Failure {
    Failure::new(Exit::Failed, format!("standard input can't be read: {error}"))
}

struct Publisher {
    client: Client,
    refused: u64,
    quiet: bool,
    debug: bool,
}

impl Publisher {
    /// Sends one message as soon as the server's window allows; QoS 0 is on its way when this returns.
    async fn publish(&mut self, message: &Message) -> Result<(), Failure> {
        let id = loop {
            match self.client.publish(message) {
                Err(ClientError::WindowFull { .. }) => {
                    let event = self.client.next().await?;
                    self.settle(&event);
                }
                outcome => break outcome?,
            }
        };
        self.debug(|_| match id {
            Some(id) => format!("sent message {} ({} bytes)", id.get(), message.payload.len()),
            None => format!("sent a message ({} bytes)", message.payload.len()),
        });
        Ok(self.client.flush().await?)
    }

    async fn publish_lines(&mut self, template: Message) -> Result<(), Failure> {
        let mut input = tokio::io::BufReader::new(tokio::io::stdin());
        let mut line = Vec::new();
        loop {
            // `read_until` keeps what it has read in `line` when the other branch wins.
            tokio::select! {
                read = input.read_until(b'\n', &mut line) => {
                    let ended = read.map_err(stdin_failed)? == 0;
                    if ended && line.is_empty() {
                        return Ok(());
                    }
                    let mut payload = std::mem::take(&mut line);
                    if payload.last() == Some(&b'\n') {
                        payload.pop();
                    }
                    if payload.len() > LINE_BYTES_MAX {
                        return Err(Failure::new(Exit::Failed, "a line is longer than any message may be"));
                    }
                    self.publish(&Message { payload, ..template.clone() }).await?;
                    if ended {
                        return Ok(());
                    }
                }
                event = self.client.next() => {
                    let event = event?;
                    self.settle(&event);
                }
            }
        }
    }

    /// Handles what comes until `end` is over.
    async fn settle_until(&mut self, end: impl Future<Output = ()>) -> Result<(), Failure> {
        tokio::pin!(end);
        loop {
            tokio::select! {
                () = &mut end => return Ok(()),
                event = self.client.next() => {
                    let event = event?;
                    self.settle(&event);
                }
            }
        }
    }

    /// Waits until everything is acknowledged, then says goodbye.
    async fn finish(mut self) -> Result<Exit, Failure> {
        while self.client.unsettled() > 0 {
            let event = self.client.next().await?;
            self.settle(&event);
        }
        let refused = self.refused;
        if let Err(error) = self.client.disconnect().await
            && self.debug
        {
            notice(&chain(&error));
        }
        Ok(if refused == 0 { Exit::Success } else { Exit::Denied })
    }

    fn settle(&mut self, event: &Event) {
        let Event::Published { packet_id, reason_code } = event else { return };
        if reason_code.is_error() {
            self.refused += 1;
            if !self.quiet {
                let code = reason_code.code();
                notice(&format!("message {} was refused: {reason_code} (0x{code:02x})", packet_id.get()));
            }
        } else {
            self.debug(|_| format!("message {} acknowledged: {reason_code}", packet_id.get()));
        }
    }

    fn debug(&self, text: impl FnOnce(&Client) -> String) {
        if self.debug {
            notice(&text(&self.client));
        }
    }
}
