//! `tidegate pub`: publish one message, a file, or a message for each line of standard input.

use std::path::PathBuf;

use clap::Args;
use mqtt_protocol::{QoS, validate_topic_name};
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _};

use super::exit::chain;
use super::mqtt_flags::{ConnectFlags, Request, qos, usage};
use super::output::notice;
use super::{Exit, Failure, Threads, block_on};
use crate::client::{Client, ClientError, Event, Message};
use crate::config::Environment;

/// Longest payload that is read, in bytes: no packet holds more.
const PAYLOAD_BYTES_MAX: usize = mqtt_protocol::VARIABLE_BYTE_INTEGER_MAX as usize;

#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
#[group(id = "payload", required = true, multiple = false, args = ["message", "file", "lines", "null", "stdin"])]
pub(super) struct PublishArgs {
    #[command(flatten)]
    connect: ConnectFlags,
    /// Topic to publish on, where the URL has none.
    #[arg(short = 't', long, value_name = "TOPIC", required_unless_present = "url")]
    topic: Option<String>,
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

pub(super) fn run(args: &PublishArgs, environment: &Environment) -> Result<Exit, Failure> {
    let Request { options, properties, topic } = args.connect.request(environment)?;
    let topic = match (&args.topic, topic) {
        (Some(_), Some(_)) => return Err(usage("the topic stands in the URL already")),
        (Some(topic), None) => topic.clone(),
        (None, Some(topic)) => topic,
        (None, None) => return Err(usage("there is no topic: -t names one")),
    };
    validate_topic_name(&topic).map_err(|error| usage(&format!("topic \"{topic}\": {error}")))?;
    let template =
        Message { qos: args.qos, retain: args.retain, properties, ..Message::new(topic, Vec::new()) };
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
        let failed = |error| Failure::new(Exit::Failed, format!("{} can't be read: {error}", path.display()));
        return read_all(tokio::fs::File::open(path).await.map_err(failed)?).await?.map_err(failed);
    }
    if args.stdin {
        return read_all(tokio::io::stdin()).await?.map_err(stdin_failed);
    }
    Ok(Vec::new())
}

/// Everything from a source; the outer error says that it is too much.
async fn read_all(source: impl AsyncRead + Unpin) -> Result<std::io::Result<Vec<u8>>, Failure> {
    let mut bytes = Vec::new();
    let read = source.take(PAYLOAD_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).await;
    if bytes.len() > PAYLOAD_BYTES_MAX {
        return Err(too_long());
    }
    Ok(read.map(|_| bytes))
}

fn too_long() -> Failure {
    Failure::new(
        Exit::Failed,
        format!("the payload is longer than {PAYLOAD_BYTES_MAX} bytes, as long as one may be"),
    )
}

/// Adds to `line` up to the next newline, which is left out; false at the end of the input. Cancel-safe: what was taken
/// from the input is in `line`.
async fn read_line(input: &mut (impl AsyncBufRead + Unpin), line: &mut Vec<u8>) -> Result<bool, Failure> {
    loop {
        let chunk = input.fill_buf().await.map_err(stdin_failed)?;
        if chunk.is_empty() {
            return Ok(false);
        }
        let newline = chunk.iter().position(|byte| *byte == b'\n');
        let part = chunk.get(..newline.unwrap_or(chunk.len())).unwrap_or_default();
        if line.len() + part.len() > PAYLOAD_BYTES_MAX {
            return Err(too_long());
        }
        line.extend_from_slice(part);
        let taken = part.len() + usize::from(newline.is_some());
        input.consume(taken);
        if newline.is_some() {
            return Ok(true);
        }
    }
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
            tokio::select! {
                more = read_line(&mut input, &mut line) => {
                    let more = more?;
                    if more || !line.is_empty() {
                        let payload = std::mem::take(&mut line);
                        self.publish(&Message { payload, ..template.clone() }).await?;
                    }
                    if !more {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_are_cut_at_newlines_and_nowhere_else() {
        let text = b"one\n\ntwo\r\nlast";
        for capacity in [1, 2, 3, 64] {
            let mut input = tokio::io::BufReader::with_capacity(capacity, &text[..]);
            let mut lines = Vec::new();
            loop {
                let mut line = Vec::new();
                let more = read_line(&mut input, &mut line).await.unwrap();
                lines.push((more, String::from_utf8(line).unwrap()));
                if !more {
                    break;
                }
            }
            let expected = [(true, "one"), (true, ""), (true, "two\r"), (false, "last")];
            assert_eq!(lines, expected.map(|(more, line)| (more, line.to_owned())));
        }
    }
}
