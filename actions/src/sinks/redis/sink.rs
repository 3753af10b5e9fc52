//! Driver of the Redis action.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::{ConnectionLike as _, MultiplexedConnection};
use redis::{AsyncConnectionConfig, ErrorKind, Pipeline, RedisConnectionInfo, ServerError, Value};
use tokio::time::timeout;
use trace::Span;

use super::config::{RedisCommand, RedisConfig};
use super::connector::RedisConnector;
use crate::connectors::{Allowance, Bounded, Connector, Connectors};
use crate::delivery::{AnswerClass, BatchPolicy, DeliveryError, Envelope, Sink};
use crate::error::ActionConfigError;
use crate::record::{Marks, Record, RecordKind};
use crate::text::chain;

/// Most bytes of the answers to one batch: each is an identifier, a number or an error.
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// The field of a stream's entry that the value is put into.
const VALUE_FIELD: &str = "value";

/// A connection as actions share it.
#[derive(Clone)]
pub(super) struct Connection {
    redis: MultiplexedConnection,
    allowance: Allowance,
}

impl RedisConnector {
    async fn connection(&self) -> Result<(Connection, u64), DeliveryError> {
        self.shared.get(|| self.connect()).await
    }

    /// Signs in on a connection of its own, and closes it.
    pub(super) async fn sign_in(&self) -> Result<(), DeliveryError> {
        self.connect().await.map(drop)
    }

    async fn connect(&self) -> Result<Connection, DeliveryError> {
        let config = self.config();
        let link = self.links.dialer.connect(&config.servers).await?;
        let allowance = Allowance::new(ANSWER_BYTES_MAX);
        let mut info = RedisConnectionInfo::default().set_db(config.database.into()).set_skip_set_lib_name();
        if let Some(username) = &config.username {
            info = info.set_username(username);
        }
        if let Some(password) = &config.password {
            info = info.set_password(password.expose());
        }
        // Time-outs are ours: one for the whole batch.
        let settings = AsyncConnectionConfig::new().set_response_timeout(None).set_connection_timeout(None);
        let hello =
            MultiplexedConnection::new_with_config(&info, Bounded::new(link, allowance.clone()), settings);
        let hello = timeout(config.connect_timeout, hello).await;
        let (redis, driver) = hello
            .map_err(|_| DeliveryError::Unreachable {
                cause: format!("no answer to the sign-in within {:?}", config.connect_timeout),
            })?
            .map_err(|error| match error.kind() {
                ErrorKind::AuthenticationFailed => DeliveryError::NoCredentials { cause: self.shown(&error) },
                _ => match error.code().map(class) {
                    Some(AnswerClass::Disable) => DeliveryError::NoCredentials { cause: self.shown(&error) },
                    _ => DeliveryError::Unreachable { cause: self.shown(&error) },
                },
            })?;
        tokio::spawn(driver);
        Ok(Connection { redis, allowance })
    }

    /// What is said of an error: the server's words.
    fn shown(&self, error: &redis::RedisError) -> String {
        self.excerpt(&chain(error))
    }

    /// What a server's refusal of a command comes to.
    fn refusal(&self, error: &ServerError) -> DeliveryError {
        let code = error.code();
        let details = error.details().unwrap_or_default();
        let class = if details.starts_with("unknown command") { AnswerClass::Disable } else { class(code) };
        let said = self.excerpt(&format!("{code} {details}"));
        DeliveryError::Refused { class, cause: format!("the server answered {said}") }
    }
}

/// The driver: sends pipelines over the connector's connection.
pub struct RedisSink {
    connector: Arc<RedisConnector>,
    batch: BatchPolicy,
    timeout: Duration,
    max_len: Option<u64>,
    marks: Marks,
}

impl fmt::Debug for RedisSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisSink").field("connector", &self.connector).finish_non_exhaustive()
    }
}

impl RedisSink {
    /// Makes the driver of one action. Nothing is connected to.
    ///
    /// # Errors
    /// [`ActionConfigError`] when there is no connector of the name, or it is of another type.
    pub fn new(rule: &str, config: &RedisConfig, connectors: &Connectors) -> Result<Self, ActionConfigError> {
        let connector = connectors.of_kind(&config.name, &config.connector, "redis", Connector::redis)?;
        Ok(Self {
            connector: Arc::clone(connector),
            batch: config.batch.policy(),
            timeout: config.timeout,
            max_len: config.max_len,
            marks: Marks::new(rule, &config.name),
        })
    }

    /// Appends the command of one record; `false` if it isn't one that this driver can send.
    fn put(&self, item: &Envelope<Record>, pipeline: &mut Pipeline) -> bool {
        let record = &item.request;
        let command = RedisCommand::ALL.into_iter().find(|known| known.as_str() == record.part(0));
        let (RecordKind::Redis, Some(command)) = (record.kind, command) else { return false };
        let command_line = pipeline.cmd(command.as_str()).arg(record.part(1));
        let payload: &[u8] = &record.payload;
        match command {
            RedisCommand::Xadd => {
                if let Some(len) = self.max_len {
                    command_line.arg("MAXLEN").arg("~").arg(len);
                }
                command_line.arg("*");
                let is_named = |name: &str| record.fields.iter().any(|(own, _)| own == name);
                if !payload.is_empty() && !is_named(VALUE_FIELD) || record.fields.is_empty() {
                    command_line.arg(VALUE_FIELD).arg(payload);
                }
                for (name, value) in &record.fields {
                    command_line.arg(name).arg(&value[..]);
                }
                for (name, value) in self.marks.of(item) {
                    if !is_named(name) {
                        command_line.arg(name).arg(value);
                    }
                }
            }
            RedisCommand::Hset => {
                if !record.part(2).is_empty() {
                    command_line.arg(record.part(2)).arg(payload);
                }
                for (name, value) in &record.fields {
                    command_line.arg(name).arg(&value[..]);
                }
            }
            RedisCommand::Publish | RedisCommand::Rpush | RedisCommand::Lpush | RedisCommand::Set => {
                command_line.arg(payload);
            }
        }
        true
    }
}

impl Sink for RedisSink {
    type Request = Record;

    fn batch_policy(&self) -> BatchPolicy {
        self.batch
    }

    fn describe(&self, request: &Record, span: &mut Span) {
        request.describe(span);
    }

    async fn deliver(&self, batch: &[Arc<Envelope<Record>>]) -> Vec<Result<(), DeliveryError>> {
        let mut pipeline = Pipeline::with_capacity(batch.len());
        let is_sent: Vec<bool> = batch.iter().map(|item| self.put(item, &mut pipeline)).collect();
        let asked = pipeline.len();
        let results = if asked == 0 { Ok(Vec::new()) } else { self.exchange(&pipeline, asked).await };
        let mut answers = match results {
            Ok(values) => Answers::Each(values.into_iter()),
            Err(error) => Answers::All(error),
        };
        let mut each = |is_sent: bool| {
            if is_sent { answers.next(&self.connector) } else { Err(foreign()) }
        };
        is_sent.into_iter().map(&mut each).collect()
    }
}

/// What is said of a record that was kept for another kind of action.
fn foreign() -> DeliveryError {
    let cause = "it was kept for an action of another type".to_owned();
    DeliveryError::Refused { class: AnswerClass::Reject, cause }
}

impl RedisSink {
    async fn exchange(&self, pipeline: &Pipeline, asked: usize) -> Result<Vec<Value>, DeliveryError> {
        let (Connection { mut redis, allowance }, generation) = self.connector.connection().await?;
        allowance.refill();
        let failure = match timeout(self.timeout, redis.req_packed_commands(pipeline, 0, asked)).await {
            Ok(Ok(values)) if values.len() == asked => return Ok(values),
            Ok(Ok(values)) => {
                let cause = format!("{} answers to {asked} commands", values.len());
                DeliveryError::Interrupted { cause }
            }
            Ok(Err(error)) => DeliveryError::Interrupted { cause: self.connector.shown(&error) },
            Err(_) => DeliveryError::TimedOut { after: self.timeout },
        };
        // What comes late would be taken for the answer to something else's question.
        self.connector.shared.discard(generation).await;
        Err(failure)
    }
}

enum Answers {
    Each(std::vec::IntoIter<Value>),
    All(DeliveryError),
}

impl Answers {
    fn next(&mut self, connector: &RedisConnector) -> Result<(), DeliveryError> {
        match self {
            Self::All(error) => Err(error.clone()),
            Self::Each(values) => match values.next() {
                Some(Value::ServerError(error)) => Err(connector.refusal(&error)),
                Some(_) => Ok(()),
                None => Err(DeliveryError::Interrupted { cause: "an answer is missing".to_owned() }),
            },
        }
    }
}

/// What an error's code means.
fn class(code: &str) -> AnswerClass {
    match code {
        // The server is unwell, starts, or has no room at the moment.
        "LOADING" | "BUSY" | "OOM" | "READONLY" | "MASTERDOWN" | "MISCONF" | "TRYAGAIN" | "CLUSTERDOWN"
        | "NOREPLICAS" | "UNKILLABLE" => AnswerClass::Retry,
        // Nothing will be taken from us as we are. Behind MOVED and ASK is a cluster, which this connector doesn't follow.
        "NOAUTH" | "WRONGPASS" | "NOPERM" | "NOPROTO" | "DENIED" | "MOVED" | "ASK" => AnswerClass::Disable,
        _ => AnswerClass::Reject,
    }
}
