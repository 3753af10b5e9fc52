//! librdkafka's mock cluster as a far side, and its consumer as the reader: a foreign server and a foreign client.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::net::SocketAddr;

use integration_tests::PATIENCE;
use integration_tests::servers::KafkaRelay;
use integration_tests::sinks::{Arrived, FarSide};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Headers as _, Message as _};
use rdkafka::mocking::{MockCluster, MockCoordinator};
use rdkafka::producer::DefaultProducerContext;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

/// The topic of the cells.
pub(crate) const TOPIC: &str = "cells";

/// A record as the foreign consumer has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Read {
    pub(crate) partition: i32,
    pub(crate) key: Option<String>,
    pub(crate) value: Vec<u8>,
    pub(crate) headers: BTreeMap<String, String>,
}

/// A cluster, and in front of one of a single broker a relay, so that a fault on the way is met by everything.
pub(crate) struct Mock {
    pub(crate) cluster: MockCluster<'static, DefaultProducerContext>,
    pub(crate) relay: Option<KafkaRelay>,
    partitions: i32,
    action: String,
    /// What is in each partition since before the cell.
    cleared: Cell<Vec<i64>>,
}

impl Mock {
    /// A cluster of so many brokers, with one topic of so many partitions; `action`: what its action says more.
    pub(crate) fn of(brokers: i32, partitions: i32, action: &str) -> Self {
        let cluster = MockCluster::new(brokers).unwrap();
        cluster.create_topic(TOPIC, partitions, brokers.min(3)).unwrap();
        let cleared = Cell::new(vec![0; usize::try_from(partitions).unwrap()]);
        Self { cluster, relay: None, partitions, action: action.to_owned(), cleared }
    }

    /// A cluster of one broker behind a relay, which has it check sequences.
    pub(crate) fn relayed(action: &str) -> Self {
        let mut mock = Self::of(1, 1, action);
        let relay = KafkaRelay::start(mock.brokers()[0]);
        let coordinator = MockCoordinator::Transaction(KafkaRelay::TRANSACTION.to_owned());
        mock.cluster.coordinator(coordinator, 1).unwrap();
        relay.as_transaction();
        mock.relay = Some(relay);
        mock
    }

    /// Where its brokers listen.
    pub(crate) fn brokers(&self) -> Vec<SocketAddr> {
        self.cluster.bootstrap_servers().split(',').map(|address| address.parse().unwrap()).collect()
    }

    /// Reads a topic from these places on, partition by partition.
    pub(crate) fn read(&self, topic: &str, from: &[i64]) -> Vec<Read> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", self.cluster.bootstrap_servers())
            .set("group.id", "reader")
            .set("enable.auto.commit", "false")
            .set("isolation.level", "read_uncommitted")
            .create()
            .unwrap();
        let mut read = Vec::new();
        for (partition, first) in (0..).zip(from) {
            let (_, end) = consumer.fetch_watermarks(topic, partition, PATIENCE).unwrap();
            if end <= *first {
                continue;
            }
            let mut place = TopicPartitionList::new();
            place.add_partition_offset(topic, partition, Offset::Offset(*first)).unwrap();
            consumer.assign(&place).unwrap();
            loop {
                let message = consumer.poll(PATIENCE).expect("a record").unwrap();
                let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
                let headers = headers.map(|header| (header.key.to_owned(), text(header.value.unwrap())));
                read.push(Read {
                    partition: message.partition(),
                    key: message.key().map(text),
                    value: message.payload().unwrap().to_vec(),
                    headers: headers.collect(),
                });
                if message.offset() + 1 >= end {
                    break;
                }
            }
        }
        read
    }

    /// How much is in each partition of the cells' topic.
    pub(crate) fn ends(&self) -> Vec<i64> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", self.cluster.bootstrap_servers())
            .set("group.id", "reader")
            .create()
            .unwrap();
        let end = |partition| consumer.fetch_watermarks(TOPIC, partition, PATIENCE).unwrap().1;
        (0..self.partitions).map(end).collect()
    }
}

impl FarSide for Mock {
    const KIND: &'static str = "librdkafka";
    const WRITES_ONCE: bool = true;

    fn start() -> Self {
        Self::relayed("")
    }

    fn address(&self) -> SocketAddr {
        self.relay.as_ref().map_or_else(|| self.brokers()[0], KafkaRelay::address)
    }

    fn clear(&self) {
        self.cleared.set(self.ends());
    }

    fn connector(&self, address: SocketAddr) -> String {
        format!("type = \"kafka\"\nservers = [\"{address}\"]\nclient_id = \"at-{}\"", address.port())
    }

    fn wrong_connector(&self, _: SocketAddr) -> String {
        panic!("it knows no sign-in")
    }

    fn tls_connector(&self, address: SocketAddr) -> String {
        self.connector(address) + "\ntls = {}"
    }

    fn action(&self) -> String {
        format!("type = \"kafka\"\ntopic = \"{TOPIC}\"\nkey = \"${{topic(2)}}\"\n{}", self.action)
    }

    fn huge_answer(&self) -> Vec<u8> {
        2_000_000_000_i32.to_be_bytes().to_vec()
    }

    fn arrived(&self) -> Vec<Arrived> {
        let from = self.cleared.take();
        let read = self.read(TOPIC, &from);
        self.cleared.set(from);
        let key = |read: &Read| read.headers.get("Idempotency-Key").cloned();
        read.iter().map(|read| Arrived::read(&read.value, key(read).as_deref())).collect()
    }
}
