//! Rule files as text, the pipeline against single messages, and the pipeline inside a real broker.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use actions::config::ConnectorConfig;
use actions::{Connectors, DropReason, TargetPolicy};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use broker::{
    Broker, BrokerConfig, HookEffects, Identity, InternalPublish, MessageHook as _, Progress, Publication,
    Publisher as Client, Republish, Trail,
};
use mqtt_protocol::{PublishProperties, QoS};
use rules_sql::Limits;
use serde_json::{Value, json};
use store::{DurableStore, FaultDisk, MessageId, QueueKey, Record, Store as _, StoreOptions};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::mpsc;

use super::*;

mod brokers;
mod connectors;
mod files;
mod messages;
mod outboxes;
mod queues;

const OVERHEAT: &str = r#"
[rules.overheat]
sql = '''
SELECT deviceId, temperature AS t, topic(2) AS site FROM 'sensors/+/temp' WHERE temperature > 60
'''
dialect = "aws"
description = "Too hot"
tags = ["demo"]

[[rules.overheat.actions]]
name = "alarm"
type = "republish"
topic = "alarms/${topic(2)}"
qos = 1

[rules.overheat.error_action]
type = "republish"
topic = "errors/overheat"
"#;

#[track_caller]
fn rules(text: &str) -> RuleSet {
    match RuleSet::from_texts([(Path::new("rules.d/test.toml"), text)], &Limits::default()) {
        Ok(rules) => rules,
        Err(errors) => panic!("{}", errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")),
    }
}

fn pipeline(text: &str) -> RulePipeline {
    RulePipeline::new(&rules(text), &settings()).unwrap()
}

/// Settings that let actions reach this machine, where the servers of the tests are.
fn settings() -> PipelineSettings {
    let allow_private = vec!["127.0.0.0/8".parse().unwrap()];
    PipelineSettings {
        targets: TargetPolicy { allow_private, ..TargetPolicy::default() },
        ..Default::default()
    }
}

fn client(client_id: &str) -> Arc<Client> {
    Arc::new(Client {
        client_id: client_id.into(),
        identity: Arc::new(Identity { username: Some("user".into()), ..Identity::default() }),
        address: "192.0.2.7:999".parse().unwrap(),
        listener: "tcp".into(),
    })
}

/// A message to run rules on.
struct Message<'a> {
    topic: &'a str,
    payload: &'a [u8],
    properties: Vec<u8>,
    publisher: Option<Arc<Client>>,
    trail: Trail,
    sequence: u64,
}

impl<'a> Message<'a> {
    fn new(topic: &'a str, payload: &'a [u8]) -> Self {
        let publisher = Some(client("dev-1"));
        Self { topic, payload, properties: vec![], publisher, trail: Trail::default(), sequence: 1 }
    }

    fn publication(&'a self) -> Publication<'a> {
        Publication {
            id: MessageId { store: 0xab, epoch: 1, sequence: self.sequence },
            namespace: 0,
            topic: self.topic,
            payload: self.payload,
            qos: QoS::AtLeastOnce,
            retain: false,
            properties: &self.properties,
            expires_at_ms: None,
            received_at_ms: 1_700_000_000_000,
            publisher: self.publisher.as_ref(),
            trail: &self.trail,
            trace: None,
        }
    }

    /// Runs the message through the rules, with as many turns as they ask for, and admits it.
    fn run(&self, pipeline: &RulePipeline) -> Vec<Republish> {
        let effects = self.effects(pipeline);
        effects.admitted.into_iter().for_each(|admitted| admitted());
        effects.republish
    }

    /// What the rules want done. Dropped, the message was refused.
    fn effects(&self, pipeline: &RulePipeline) -> HookEffects {
        let mut effects = HookEffects::default();
        let Some(handler) = pipeline.candidates(self.topic) else { return effects };
        let mut cursor = 0;
        while handler.handle(&self.publication(), &mut cursor, &mut effects) == Progress::Yield {}
        effects
    }
}

fn stats(pipeline: &RulePipeline, rule: &str) -> RuleStats {
    pipeline.stats().into_iter().find(|stats| stats.name == rule).unwrap()
}

fn document(republish: &Republish) -> Value {
    serde_json::from_slice(&republish.payload).unwrap()
}

/// Answers every request with `status`, and passes the bodies on.
async fn server(status: &'static str) -> (SocketAddr, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (address, serve(listener, status))
}

/// An address at which nobody listens, until somebody does on its socket. As long as the socket is there, nobody else is
/// given the address, and whoever connects is refused.
fn unused_address() -> (SocketAddr, TcpSocket) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    (socket.local_addr().unwrap(), socket)
}

fn serve(listener: TcpListener, status: &'static str) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel(1_000);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let sender = sender.clone();
            tokio::spawn(async move {
                let mut buffer = Vec::new();
                while stream.read_buf(&mut buffer).await.is_ok_and(|n| n > 0) {
                    let text = String::from_utf8_lossy(&buffer).into_owned();
                    let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                    let length = head
                        .lines()
                        .find_map(|line| {
                            line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok()
                        })
                        .unwrap_or(0);
                    if body.len() < length {
                        continue;
                    }
                    sender.send(body.to_owned()).await.unwrap();
                    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
                    stream.write_all(answer.as_bytes()).await.unwrap();
                    buffer.clear();
                }
            });
        }
    });
    receiver
}

fn http_rule(address: SocketAddr, more: &str) -> String {
    format!(
        r#"
        [rules.r]
        sql = "SELECT v FROM 'in/#'"
        [[rules.r.actions]]
        name = "ops"
        type = "http"
        url = "http://{address}/in/${{topic(2)}}?token=s3cret"
        retry = {{ initial_backoff = "1ms", max_backoff = "2ms", max_attempts = 2 }}
        {more}
        [rules.r.error_action]
        type = "republish"
        topic = "errors/r"
        "#
    )
}

/// Stands for the broker, and keeps what is published.
#[derive(Debug)]
struct Published(mpsc::Sender<InternalPublish>);

impl Publisher for Published {
    fn publish(
        &self,
        message: InternalPublish,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<(), String>> + Send + '_>> {
        Box::pin(async move { self.0.send(message).await.map_err(|error| error.to_string()) })
    }
}

fn delivery(pipeline: &RulePipeline, action: usize) -> actions::Snapshot {
    let snapshot = stats(pipeline, "r").actions[action].delivery.clone().unwrap();
    assert!(snapshot.is_conserved(), "{snapshot:?}");
    snapshot
}

async fn broker(pipeline: &RulePipeline) -> Broker {
    broker_with(pipeline, BrokerConfig::default()).await
}

async fn broker_with(pipeline: &RulePipeline, config: BrokerConfig) -> Broker {
    let store = Arc::new(store::MemoryStore::new(1));
    let broker = Broker::new(config, store, Some(Arc::new(pipeline.clone())));
    pipeline.attach(Arc::new(broker.clone()));
    broker
}

fn publish(topic: &str, payload: &str) -> InternalPublish {
    InternalPublish {
        topic: topic.to_owned(),
        payload: payload.as_bytes().to_vec(),
        qos: QoS::AtMostOnce,
        retain: false,
        properties: vec![],
        message_expiry_interval_s: None,
        run_as: None,
        trail: broker::Trail::default(),
    }
}
