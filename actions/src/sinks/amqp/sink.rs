//! Driver of the AMQP action.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use lapin::message::BasicReturnMessage;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use lapin::{BasicProperties, Channel, Confirmation, ErrorKind, PublisherConfirm};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until, timeout_at};
use trace::Span;

use super::config::{AmqpConfig, Unroutable};
use super::connection::{Connection, shown};
use super::connector::AmqpConnector;
use super::link::{Closing, State};
use crate::connectors::{Connector, Connectors};
use crate::delivery::{AnswerClass, BatchPolicy, DeliveryError, Envelope, Sink};
use crate::error::ActionConfigError;
use crate::plan::is_literal;
use crate::record::{Marks, Record, RecordKind};

/// Bytes of a content header beside the texts that are counted one by one.
const HEADER_BYTES: usize = 64;
/// Bytes of a header in the table beside its name and value.
const TABLE_ENTRY_BYTES: usize = 6;
/// Codes of AMQP 0-9-1 that a channel is closed with.
const ACCESS_REFUSED: u16 = 403;
const NOT_FOUND: u16 = 404;
const RESOURCE_LOCKED: u16 = 405;

/// The driver: publishes over channels of the connector's connection.
pub struct AmqpSink {
    connector: Arc<AmqpConnector>,
    batch: BatchPolicy,
    timeout: Duration,
    unroutable: Unroutable,
    options: BasicPublishOptions,
    /// What all messages have in common.
    properties: BasicProperties,
    /// The exchange, if messages have no part in it.
    fixed_exchange: Option<String>,
    marks: Marks,
    /// Channels that wait for a batch, each with the number of its connection.
    channels: Mutex<Vec<(u64, Channel)>>,
}

impl fmt::Debug for AmqpSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AmqpSink").field("connector", &self.connector).finish_non_exhaustive()
    }
}

type Outcome = Option<Result<(), DeliveryError>>;
/// Outcomes, each with its message's place in the batch.
type Settled = Vec<(usize, Result<(), DeliveryError>)>;

impl AmqpSink {
    /// Makes the driver of one action. Nothing is connected to.
    ///
    /// # Errors
    /// [`ActionConfigError`] when there is no connector of the name, or it is of another type.
    pub fn new(rule: &str, config: &AmqpConfig, connectors: &Connectors) -> Result<Self, ActionConfigError> {
        let connector = connectors.of_kind(&config.name, &config.connector, "amqp", Connector::amqp)?;
        let short = |field: &str, text: &str| {
            ShortString::try_new(text)
                .map_err(|error| ActionConfigError::field_error(&config.name, field, error.to_string()))
        };
        let mut properties =
            BasicProperties::default().with_delivery_mode(if config.persistent { 2 } else { 1 });
        if let Some(content_type) = &config.content_type {
            properties = properties.with_content_type(short("content_type", content_type)?);
        }
        if let Some(expiration) = config.expiration {
            let text = expiration.as_millis().to_string();
            properties = properties.with_expiration(short("expiration", &text)?);
        }
        if let Some(priority) = config.priority {
            properties = properties.with_priority(priority);
        }
        Ok(Self {
            connector: Arc::clone(connector),
            batch: config.batch.policy(),
            timeout: config.timeout,
            unroutable: config.unroutable.unwrap_or_default(),
            options: BasicPublishOptions { mandatory: config.mandatory, immediate: false },
            properties,
            fixed_exchange: is_literal(&config.exchange).then(|| config.exchange.clone()),
            marks: Marks::new(rule, &config.name),
            channels: Mutex::default(),
        })
    }

    /// What is published for a record. An error is the record's own.
    fn message<'r>(
        &self,
        item: &'r Envelope<Record>,
        payload_bytes_max: usize,
    ) -> Result<Message<'r>, DeliveryError> {
        let record = &item.request;
        if record.kind != RecordKind::Amqp {
            return Err(rejected("it was kept for an action of another type"));
        }
        let short = |text: &str| {
            ShortString::try_new(text).map_err(|_| rejected("an exchange or routing key is too long"))
        };
        let key = self.marks.key(item);
        let mut table = FieldTable::default();
        let mut header_bytes = HEADER_BYTES + key.len();
        let mut put = |name: &str, value: &[u8]| -> Result<(), DeliveryError> {
            header_bytes += name.len() + value.len() + TABLE_ENTRY_BYTES;
            table.insert(short(name)?, AMQPValue::LongString(LongString::from(value.to_vec())));
            Ok(())
        };
        for (name, value) in &record.fields {
            put(name, value)?;
        }
        for (name, value) in self.marks.of(item) {
            if !record.fields.iter().any(|(own, _)| own == name) {
                put(name, value.as_bytes())?;
            }
        }
        header_bytes += self.properties.content_type().as_ref().map_or(0, |text| text.as_str().len());
        if header_bytes > payload_bytes_max {
            // The server would close the connection for all.
            let cause =
                format!("{header_bytes} bytes of headers, more than the {payload_bytes_max} of a frame");
            return Err(rejected(cause));
        }
        let properties = self.properties.clone().with_headers(table).with_message_id(short(&key)?);
        Ok(Message {
            exchange: short(record.part(0))?,
            routing_key: short(record.part(1))?,
            key,
            properties,
            payload: &record.payload,
        })
    }

    /// A channel that confirms, of those that wait or a new one.
    async fn channel(
        &self,
        connection: &Connection,
        generation: u64,
        deadline: Instant,
    ) -> Result<Channel, DeliveryError> {
        {
            let mut waiting = self.channels.lock();
            waiting.retain(|(of, channel)| *of == generation && channel.status().connected());
            if let Some((_, channel)) = waiting.pop() {
                return Ok(channel);
            }
        }
        let open = async {
            let channel = connection.lapin.create_channel().await?;
            channel.confirm_select(ConfirmSelectOptions::default()).await?;
            Ok(channel)
        };
        let opened: Result<Channel, lapin::Error> = tokio::select! {
            biased;
            opened = timeout_at(deadline, open) => match opened {
                Ok(opened) => opened,
                Err(_) => return Err(DeliveryError::TimedOut { after: self.timeout }),
            },
            () = connection.gate.gone() => {
                return Err(self.connector.interrupted(&connection.gate, "it ended".to_owned()));
            }
        };
        opened.map_err(|error| match error.kind() {
            ErrorKind::ChannelsLimitReached => {
                DeliveryError::Unreachable { cause: "the server allows no more channels".to_owned() }
            }
            _ => self.connector.interrupted(&connection.gate, shown(&error)),
        })
    }

    /// Publishes what has no outcome yet.
    async fn send(
        &self,
        batch: &[Arc<Envelope<Record>>],
        outcomes: &mut [Outcome],
    ) -> Result<(), DeliveryError> {
        let deadline = Instant::now() + self.timeout;
        let (connection, generation) = self.connector.connection().await?;
        if let State::Blocked(reason) = connection.gate.state() {
            return Err(blocked(&reason));
        }
        let mut messages = BTreeMap::new();
        for ((index, item), outcome) in batch.iter().enumerate().zip(outcomes.iter_mut()) {
            match self.message(item, connection.payload_bytes_max()) {
                Ok(message) => drop(messages.insert(index, message)),
                Err(error) => *outcome = Some(Err(error)),
            }
        }
        // The server closes a channel for one message and doesn't say which, nor what became of those before it. So what
        // isn't confirmed then goes out one by one until that one is found; what is behind it goes out together again.
        let mut is_searching = false;
        let mut is_late = false;
        // A search may take longer than there is time; then the rest is left for the next call, which goes on behind those found.
        while !messages.is_empty() && !is_late {
            let channel = match self.channel(&connection, generation, deadline).await {
                Ok(channel) => channel,
                Err(error) => {
                    if error.is_attempt() {
                        connection.give_up();
                        self.connector.shared.discard(generation).await;
                    }
                    return Err(error);
                }
            };
            let at_once = if is_searching { 1 } else { messages.len() };
            let run: Vec<(usize, &Message<'_>)> =
                messages.iter().take(at_once).map(|(index, message)| (*index, message)).collect();
            let (settled, ended) = self.publish(&connection, &channel, &run, deadline).await;
            let only = (at_once == 1).then(|| run.first().map(|(index, _)| *index)).flatten();
            drop(run);
            for (index, outcome) in settled {
                messages.remove(&index);
                if let Some(slot) = outcomes.get_mut(index) {
                    *slot = Some(outcome);
                }
            }
            match ended {
                Ended::Whole => self.channels.lock().push((generation, channel)),
                Ended::Closed((code, text)) => {
                    is_late = Instant::now() >= deadline;
                    is_searching = only.is_none();
                    let Some(culprit) = only.and_then(|index| messages.remove(&index).map(|m| (index, m)))
                    else {
                        continue;
                    };
                    let error = self.refusal(code, &text, &culprit.1);
                    let alike =
                        messages.iter().filter(|(_, other)| shares_fate(code, &text, &culprit.1, other));
                    let mut refused: Vec<usize> = alike.map(|(index, _)| *index).collect();
                    refused.push(culprit.0);
                    for index in refused {
                        messages.remove(&index);
                        if let Some(slot) = outcomes.get_mut(index) {
                            *slot = Some(Err(error.clone()));
                        }
                    }
                }
                Ended::Blocked(reason) => return Err(blocked(&reason)),
                Ended::Broken(error) => {
                    connection.give_up();
                    self.connector.shared.discard(generation).await;
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Publishes messages on a channel that nobody else uses, and waits for what the server says of each. Those that it
    /// said nothing of have no outcome.
    async fn publish(
        &self,
        connection: &Connection,
        channel: &Channel,
        run: &[(usize, &Message<'_>)],
        deadline: Instant,
    ) -> (Settled, Ended) {
        let mut flights: Vec<Flight<'_>> = run
            .iter()
            .map(|(_, message)| {
                let Message { exchange, routing_key, properties, payload, .. } = message;
                let (exchange, routing_key) = (exchange.clone(), routing_key.clone());
                let publish =
                    channel.basic_publish(exchange, routing_key, self.options, payload, properties.clone());
                Flight::Publishing(Box::pin(publish))
            })
            .collect();
        // What is first asked of a flight puts its message behind the one before it.
        sweep(&mut flights);
        let stopped = tokio::select! {
            biased;
            () = landed(&mut flights) => None,
            state = connection.gate.stopped() => Some(state),
            () = sleep_until(deadline) => Some(State::Open),
        };
        sweep(&mut flights);
        let (settled, is_sound) = self.judge(run, &flights);
        let failure = flights.iter().find_map(Flight::failure);
        let closing = connection.gate.closing(channel.id());
        let ended = match (stopped, failure, closing) {
            _ if !is_sound => {
                let cause = "a message came back that wasn't sent".to_owned();
                Ended::Broken(DeliveryError::Interrupted { cause })
            }
            (_, _, Some(closing)) => Ended::Closed(closing),
            (None, None, None) => Ended::Whole,
            (Some(State::Blocked(reason)), None, None) => Ended::Blocked(reason),
            (Some(State::Open), None, None) => Ended::Broken(DeliveryError::TimedOut { after: self.timeout }),
            (_, failure, None) => {
                let failure = failure.unwrap_or_else(|| "it ended".to_owned());
                Ended::Broken(self.connector.interrupted(&connection.gate, failure))
            }
        };
        (settled, ended)
    }

    /// What is said of each message that the server said something of, and whether that makes sense.
    ///
    /// The library hands a returned message over with the next acknowledgement that comes, which may be another message's.
    /// So what came back is known by its identifier. An acknowledgement that came with somebody else's message says that its
    /// own may still be waiting to be handed over, unless all are in.
    fn judge(&self, run: &[(usize, &Message<'_>)], flights: &[Flight<'_>]) -> (Settled, bool) {
        let mut returned: HashMap<&str, Closing> = HashMap::new();
        let mut is_sound = true;
        for message in flights.iter().filter_map(|flight| flight.said()?.carried.as_deref()) {
            let id = message.properties.message_id().as_ref().map_or("", |id| id.as_str());
            is_sound &= run.iter().any(|(_, sent)| sent.key == id);
            returned.insert(id, (message.reply_code, message.reply_text.to_string()));
        }
        let is_whole = flights.iter().all(|flight| flight.said().is_some());
        let mut settled = Vec::with_capacity(run.len());
        for ((index, message), flight) in run.iter().zip(flights) {
            let Some(said) = flight.said() else { continue };
            let outcome = match (returned.get(message.key.as_str()), said.verdict) {
                _ if !is_sound => continue,
                (Some((code, text)), _) => Err(self.unroutable(*code, text)),
                (None, Verdict::Taken) if said.carried.is_none() || is_whole => Ok(()),
                (None, Verdict::Taken | Verdict::Unknown) => continue,
                (None, Verdict::Refused) => {
                    let cause = "the server could not take it (basic.nack)".to_owned();
                    Err(DeliveryError::Refused { class: AnswerClass::Retry, cause })
                }
            };
            settled.push((*index, outcome));
        }
        (settled, is_sound)
    }

    fn unroutable(&self, code: u16, text: &str) -> DeliveryError {
        let class = match self.unroutable {
            Unroutable::Reject => AnswerClass::Reject,
            Unroutable::Retry => AnswerClass::Retry,
        };
        DeliveryError::Refused { class, cause: self.connector.words(code, text) }
    }

    /// What it means that the server closed the channel for this message.
    fn refusal(&self, code: u16, text: &str, message: &Message<'_>) -> DeliveryError {
        let is_fixed = self.fixed_exchange.as_deref() == Some(message.exchange.as_str());
        let class = match code {
            // Of the exchange that stands in the configuration: nobody would fare better. Of one that a message named: its own.
            NOT_FOUND if is_fixed => AnswerClass::Disable,
            ACCESS_REFUSED if is_fixed && !is_about_topic(text) => AnswerClass::Disable,
            RESOURCE_LOCKED => AnswerClass::Retry,
            _ => AnswerClass::Reject,
        };
        DeliveryError::Refused { class, cause: self.connector.words(code, text) }
    }
}

impl Sink for AmqpSink {
    type Request = Record;

    fn batch_policy(&self) -> BatchPolicy {
        self.batch
    }

    fn describe(&self, request: &Record, span: &mut Span) {
        request.describe(span);
    }

    async fn deliver(&self, batch: &[Arc<Envelope<Record>>]) -> Vec<Result<(), DeliveryError>> {
        let mut outcomes: Vec<Outcome> = vec![None; batch.len()];
        let rest = self.send(batch, &mut outcomes).await;
        let rest = rest.err().unwrap_or(DeliveryError::NotAttempted);
        outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(|| Err(rest.clone()))).collect()
    }
}

/// A message as it is published.
struct Message<'r> {
    exchange: ShortString,
    routing_key: ShortString,
    key: String,
    properties: BasicProperties,
    payload: &'r [u8],
}

/// How publishing on a channel ended.
enum Ended {
    /// Everything has an outcome.
    Whole,
    /// The server closed the channel, for one of the messages.
    Closed(Closing),
    /// It takes nothing more for the time being.
    Blocked(String),
    /// The connection can't be used any more.
    Broken(DeliveryError),
}

/// A message on its way.
enum Flight<'p> {
    Publishing(Pin<Box<dyn Future<Output = Result<PublisherConfirm, lapin::Error>> + Send + 'p>>),
    Confirming(PublisherConfirm),
    Landed(Result<Said, lapin::Error>),
}

/// What the server said of a message.
struct Said {
    verdict: Verdict,
    /// A message that came back, not necessarily this one.
    carried: Option<Box<BasicReturnMessage>>,
}

#[derive(Clone, Copy)]
enum Verdict {
    Taken,
    Refused,
    /// The channel confirms nothing, which none of ours does.
    Unknown,
}

impl From<Confirmation> for Said {
    fn from(confirmation: Confirmation) -> Self {
        let verdict = match &confirmation {
            Confirmation::Ack(_) => Verdict::Taken,
            Confirmation::Nack(_) => Verdict::Refused,
            Confirmation::NotRequested => Verdict::Unknown,
        };
        Self { verdict, carried: confirmation.take_message().map(Box::new) }
    }
}

impl Flight<'_> {
    /// Goes as far as it can, and returns whether it has landed.
    fn advance(&mut self, cx: &mut Context<'_>) -> bool {
        loop {
            *self = match self {
                Self::Publishing(publish) => match publish.as_mut().poll(cx) {
                    Poll::Ready(Ok(confirm)) => Self::Confirming(confirm),
                    Poll::Ready(Err(error)) => Self::Landed(Err(error)),
                    Poll::Pending => return false,
                },
                Self::Confirming(confirm) => match Pin::new(confirm).poll(cx) {
                    Poll::Ready(result) => Self::Landed(result.map(Said::from)),
                    Poll::Pending => return false,
                },
                Self::Landed(_) => return true,
            };
        }
    }

    const fn said(&self) -> Option<&Said> {
        if let Self::Landed(Ok(said)) = self { Some(said) } else { None }
    }

    fn failure(&self) -> Option<String> {
        if let Self::Landed(Err(error)) = self { Some(shown(error)) } else { None }
    }
}

/// Looks once at every flight.
fn sweep(flights: &mut [Flight<'_>]) {
    let mut cx = Context::from_waker(Waker::noop());
    for flight in flights {
        // One that has not landed is asked again later.
        flight.advance(&mut cx);
    }
}

/// Waits until all have landed, or one has failed.
async fn landed(flights: &mut [Flight<'_>]) {
    for flight in flights {
        poll_fn(|cx| if flight.advance(cx) { Poll::Ready(()) } else { Poll::Pending }).await;
        if matches!(flight, Flight::Landed(Err(_))) {
            return;
        }
    }
}

fn blocked(reason: &str) -> DeliveryError {
    let reason = crate::text::excerpt(reason.as_bytes(), 100);
    DeliveryError::Unreachable { cause: format!("the server takes no messages at the moment: {reason}") }
}

fn rejected(cause: impl Into<String>) -> DeliveryError {
    DeliveryError::Refused { class: AnswerClass::Reject, cause: cause.into() }
}

/// Whether access was refused to a routing key rather than an exchange.
fn is_about_topic(text: &str) -> bool {
    text.contains("to topic '")
}

/// Whether the server would say the same of another message.
fn shares_fate(code: u16, text: &str, refused: &Message<'_>, other: &Message<'_>) -> bool {
    let is_same_exchange = refused.exchange == other.exchange;
    match code {
        NOT_FOUND => is_same_exchange,
        ACCESS_REFUSED if is_about_topic(text) => {
            is_same_exchange && refused.routing_key == other.routing_key
        }
        ACCESS_REFUSED => is_same_exchange,
        _ => false,
    }
}
