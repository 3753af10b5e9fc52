//! Which broker leads which partition, and the connections to brokers.
//!
//! Where a topic's partitions are is asked when it is first needed, kept for a while, and asked anew when a broker says
//! that it has changed. Brokers that the cluster names are connected to through the connector's own dialer, so that their
//! addresses are judged like those of the configuration.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rskafka::protocol::messages::{
    MetadataRequest, MetadataRequestTopic, MetadataResponse, MetadataResponseBroker, MetadataResponseTopic,
};
use rskafka::protocol::primitives::{Boolean, String_};
use tokio::time::{Instant, timeout_at};

use super::answer::of_topic;
use super::broker::{Broker, unreachable};
use super::connector::KafkaConnector;
use crate::connectors::{AddressList, Endpoint, Shared};
use crate::delivery::DeliveryError;
use crate::text::excerpt;

/// Most topics whose partitions are remembered; with one more, all are forgotten.
pub(super) const TOPICS_MAX: usize = 10_000;
/// Most brokers of a cluster that are known.
pub(super) const BROKERS_MAX: usize = 1_000;
/// How long a topic's partitions are remembered: somebody may have added some.
const TOPIC_AGE_MAX: Duration = Duration::from_secs(300);

/// What is known of a cluster.
#[derive(Default)]
pub(super) struct Cluster {
    /// The connection on which is asked who leads what.
    first: Node,
    brokers: Mutex<HashMap<i32, Arc<Node>>>,
    topics: Mutex<HashMap<String, Arc<Topic>>>,
}

/// A broker, and the connection to it if there is one.
#[derive(Default)]
struct Node {
    /// Where it is; `None` for the one of the configuration's that answers, or where it can't be anywhere.
    address: Option<AddressList>,
    connection: Shared<Arc<Broker>>,
}

/// A topic.
pub(super) struct Topic {
    /// The number of each partition's leading broker; `None`: it has none at the moment.
    leaders: Vec<Option<i32>>,
    asked_at: Instant,
}

impl Topic {
    /// How many partitions it has, at least one.
    pub(super) fn count(&self) -> usize {
        self.leaders.len()
    }

    /// The broker that leads a partition; `None` where there is none.
    pub(super) fn leader(&self, partition: usize) -> Option<i32> {
        self.leaders.get(partition).copied().flatten()
    }

    /// The partitions that are led by a broker.
    pub(super) fn led(&self) -> Vec<usize> {
        (0..self.count()).filter(|partition| self.leader(*partition).is_some()).collect()
    }

    fn of(answer: &MetadataResponseTopic) -> Result<Self, DeliveryError> {
        if let Some(error) = answer.error {
            return Err(of_topic(error));
        }
        let mut leaders = vec![None; answer.partitions.len()];
        for partition in &answer.partitions {
            let place = usize::try_from(partition.partition_index.0).ok();
            let Some(leader) = place.and_then(|place| leaders.get_mut(place)) else {
                return Err(unsound("a partition's number is none"));
            };
            *leader = Some(partition.leader_id.0).filter(|leader| *leader >= 0);
        }
        if leaders.is_empty() {
            return Err(unsound("the topic has no partition"));
        }
        Ok(Self { leaders, asked_at: Instant::now() })
    }
}

fn unsound(what: &str) -> DeliveryError {
    DeliveryError::Interrupted { cause: format!("the broker's answer is unsound: {what}") }
}

impl KafkaConnector {
    /// The partitions of topics, asked for until `deadline` where they aren't known.
    pub(super) async fn topics(
        &self,
        names: &[&str],
        deadline: Instant,
        after: Duration,
    ) -> HashMap<String, Result<Arc<Topic>, DeliveryError>> {
        let mut found = HashMap::new();
        let mut missing = Vec::new();
        {
            let known = self.cluster.topics.lock();
            for name in names {
                match known.get(*name) {
                    Some(topic) if topic.asked_at.elapsed() < TOPIC_AGE_MAX => {
                        found.insert((*name).to_owned(), Ok(Arc::clone(topic)));
                    }
                    _ => missing.push(*name),
                }
            }
        }
        if missing.is_empty() {
            return found;
        }
        match self.metadata(&missing, deadline, after).await {
            Ok(answer) => {
                self.cluster.learn_brokers(&answer.brokers);
                let mut answers: HashMap<&str, &MetadataResponseTopic> =
                    answer.topics.iter().map(|topic| (topic.name.0.as_str(), topic)).collect();
                for name in missing {
                    let topic = match answers.remove(name) {
                        Some(answer) => Topic::of(answer).map(Arc::new),
                        None => Err(unsound("it leaves out a topic that was asked for")),
                    };
                    if let Ok(topic) = &topic {
                        self.cluster.learn_topic(name, topic);
                    }
                    found.insert(name.to_owned(), topic);
                }
            }
            Err(error) => found.extend(missing.into_iter().map(|name| (name.to_owned(), Err(error.clone())))),
        }
        found
    }

    async fn metadata(
        &self,
        names: &[&str],
        deadline: Instant,
        after: Duration,
    ) -> Result<MetadataResponse, DeliveryError> {
        let topics = names.iter().map(|name| MetadataRequestTopic { name: String_((*name).to_owned()) });
        // A topic that isn't there isn't made: a typing error, or a message's text, would be enough.
        let request = MetadataRequest {
            topics: Some(topics.collect()),
            allow_auto_topic_creation: Some(Boolean(false)),
        };
        let broker = self.connection(&self.cluster.first, deadline, after).await?;
        broker.quiet(deadline).await?;
        let answer = broker.ask(request, deadline, after).await?;
        broker.keep_quiet(answer.throttle_time_ms.map(|ms| ms.0));
        Ok(answer)
    }

    /// The connection to a broker by its number.
    pub(super) async fn broker(
        &self,
        number: i32,
        deadline: Instant,
        after: Duration,
    ) -> Result<Arc<Broker>, DeliveryError> {
        let node = self.cluster.brokers.lock().get(&number).map(Arc::clone);
        let node =
            node.ok_or_else(|| unreachable(format!("the cluster doesn't say where its broker {number} is")))?;
        self.connection(&node, deadline, after).await
    }

    async fn connection(
        &self,
        node: &Node,
        deadline: Instant,
        after: Duration,
    ) -> Result<Arc<Broker>, DeliveryError> {
        let connection = async {
            loop {
                let (broker, generation) = node.connection.get(|| self.connect(node)).await?;
                if broker.is_usable() {
                    return Ok(broker);
                }
                node.connection.discard(generation).await;
            }
        };
        // Nothing was sent so far.
        let late = |_| unreachable(format!("no connection within {after:?}"));
        timeout_at(deadline, connection).await.map_err(late)?
    }

    async fn connect(&self, node: &Node) -> Result<Arc<Broker>, DeliveryError> {
        let timeout = self.config().connect_timeout;
        if let Some(address) = &node.address {
            return Broker::connect(self, address, Instant::now() + timeout).await.map(Arc::new);
        }
        // Each has its share of the time, so that one that says nothing doesn't keep us from the next.
        let servers: Vec<AddressList> = self.servers().cloned().map(AddressList::from).collect();
        let share = timeout / u32::try_from(servers.len()).unwrap_or(u32::MAX).max(1);
        let mut last = unreachable("no server is given");
        for server in &servers {
            match Broker::connect(self, server, Instant::now() + share).await {
                Ok(broker) => return Ok(Arc::new(broker)),
                // The one that somebody must act upon is told rather than the last.
                Err(error) => {
                    if !matches!(last, DeliveryError::Forbidden(_) | DeliveryError::NoCredentials { .. }) {
                        last = error;
                    }
                }
            }
        }
        Err(last)
    }
}

impl Cluster {
    /// Forgets where a topic's partitions are.
    pub(super) fn forget(&self, topic: &str) {
        self.topics.lock().remove(topic);
    }

    fn learn_topic(&self, name: &str, topic: &Arc<Topic>) {
        let mut topics = self.topics.lock();
        if topics.len() >= TOPICS_MAX && !topics.contains_key(name) {
            topics.clear();
        }
        topics.insert(name.to_owned(), Arc::clone(topic));
    }

    fn learn_brokers(&self, named: &[MetadataResponseBroker]) {
        let mut brokers = self.brokers.lock();
        let mut known = std::mem::take(&mut *brokers);
        for broker in named.iter().take(BROKERS_MAX) {
            let port = u16::try_from(broker.port.0).ok().filter(|port| *port != 0);
            let address = port.and_then(|port| Endpoint::named(&broker.host.0, port)).map(AddressList::from);
            if address.is_none() {
                let host = excerpt(broker.host.0.as_bytes(), 80);
                tracing::debug!(
                    broker = broker.node_id.0,
                    host,
                    port = broker.port.0,
                    "a broker's address is none"
                );
                continue;
            }
            let node = known.remove(&broker.node_id.0).filter(|node| node.address == address);
            let node = node.unwrap_or_else(|| Arc::new(Node { address, ..Node::default() }));
            brokers.insert(broker.node_id.0, node);
        }
    }
}
