//! Driver of the Kafka action.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::Arc;

use tokio::task::JoinSet;
use tokio::time::Instant;
use trace::Span;

use super::broker::unreachable;
use super::cluster::Topic;
use super::config::KafkaConfig;
use super::partition::of_key;
use super::produce::{Lot, Outcome, Settings, produce};
use super::producer::Producer;
use crate::connectors::{Connector, Connectors};
use crate::delivery::{AnswerClass, BatchPolicy, DeliveryError, Envelope, ItemId, Sink};
use crate::error::ActionConfigError;
use crate::record::{Marks, Record, RecordKind};

/// The driver: sends each batch as one request per broker that leads some of it.
pub struct KafkaSink {
    settings: Arc<Settings>,
    batch: BatchPolicy,
    partition: Option<usize>,
}

impl fmt::Debug for KafkaSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaSink").field("connector", &self.settings.connector).finish_non_exhaustive()
    }
}

impl KafkaSink {
    /// Makes the driver of one action. Nothing is connected to.
    ///
    /// # Errors
    /// [`ActionConfigError`] when there is no connector of the name, or it is of another type.
    pub fn new(rule: &str, config: &KafkaConfig, connectors: &Connectors) -> Result<Self, ActionConfigError> {
        let connector = connectors.of_kind(&config.name, &config.connector, "kafka", Connector::kafka)?;
        let settings = Settings {
            connector: Arc::clone(connector),
            compression: config.compression,
            timeout: config.timeout,
            marks: Marks::new(rule, &config.name),
            producer: config.idempotence.then(Producer::default),
        };
        let partition = config.partition.map(|partition| usize::try_from(partition).unwrap_or(usize::MAX));
        Ok(Self { settings: Arc::new(settings), batch: config.batch.policy(), partition })
    }

    /// The partition of a record. `spread` is the one for records that may go to any.
    fn partition(&self, record: &Record, topic: &Topic, spread: u32) -> usize {
        let by = match (self.partition, &record.key) {
            (Some(partition), _) => return partition,
            (None, Some(key)) => &key[..],
            (None, None) => record.part(1).as_bytes(),
        };
        if record.key.is_some() || !by.is_empty() {
            return of_key(by, topic.count());
        }
        let led = topic.led();
        let place = usize::try_from(spread).unwrap_or(0).checked_rem(led.len());
        place.and_then(|place| led.get(place)).copied().unwrap_or(0)
    }
}

impl Sink for KafkaSink {
    type Request = Record;

    fn batch_policy(&self) -> BatchPolicy {
        self.batch
    }

    fn describe(&self, request: &Record, span: &mut Span) {
        request.describe(span);
    }

    async fn deliver(&self, batch: &[Arc<Envelope<Record>>]) -> Vec<Result<(), DeliveryError>> {
        let timeout = self.settings.timeout;
        let deadline = Instant::now() + timeout;
        // What no word is heard of was cut off in the middle.
        let mut results =
            vec![
                Err(DeliveryError::Interrupted { cause: "its request was given up".to_owned() });
                batch.len()
            ];
        let mut set = |(place, result): Outcome| {
            if let Some(slot) = results.get_mut(place) {
                *slot = result;
            }
        };
        let ours = batch.iter().filter(|item| item.request.kind == RecordKind::Kafka);
        let mut names: Vec<&str> = ours.map(|item| item.request.part(0)).collect();
        names.sort_unstable();
        names.dedup();
        let topics = self.settings.connector.topics(&names, deadline, timeout).await;

        let spread = fastrand::u32(..);
        let mut lots: BTreeMap<(i32, &str, i32), Lot> = BTreeMap::new();
        let mut numbers = vec![-1; batch.len()];
        for (place, item) in batch.iter().enumerate() {
            let record = &item.request;
            if record.kind != RecordKind::Kafka {
                set((place, Err(foreign())));
                continue;
            }
            let name = record.part(0);
            let topic = match topics.get(name) {
                Some(Ok(topic)) => topic,
                Some(Err(error)) => {
                    set((place, Err(error.clone())));
                    continue;
                }
                None => continue,
            };
            // What may have been written somewhere already stays there.
            let before = self.settings.producer.as_ref().and_then(|producer| producer.partition_of(item.id));
            let before = before.and_then(|number| usize::try_from(number).ok());
            let before = before.filter(|number| *number < topic.count());
            let partition = before.unwrap_or_else(|| self.partition(record, topic, spread));
            match place_of(name, topic, partition) {
                Ok((leader, number)) => {
                    numbers.get_mut(place).into_iter().for_each(|slot| *slot = number);
                    let lot = lots.entry((leader, name, number));
                    let new = || Lot { topic: name.to_owned(), partition: number, items: Vec::new() };
                    lot.or_insert_with(new).items.push((place, Arc::clone(item)));
                }
                Err(error) => {
                    self.settings.connector.cluster.forget(name);
                    set((place, Err(error)));
                }
            }
        }

        let mut by_leader: BTreeMap<i32, Vec<Lot>> = BTreeMap::new();
        for ((leader, ..), lot) in lots {
            by_leader.entry(leader).or_default().push(lot);
        }
        // Ended with this call, should it be given up.
        let mut requests = JoinSet::new();
        for (leader, lots) in by_leader {
            requests.spawn(produce(Arc::clone(&self.settings), leader, lots, deadline));
        }
        while let Some(outcomes) = requests.join_next().await {
            outcomes.into_iter().flatten().for_each(&mut set);
        }
        if let Some(producer) = &self.settings.producer {
            producer.keep_written(sent_again(batch, &results, &numbers));
        }
        results
    }
}

/// What was written behind a record of the same line that is to be sent again, and will come again with it.
fn sent_again<'b>(
    batch: &'b [Arc<Envelope<Record>>],
    results: &'b [Result<(), DeliveryError>],
    numbers: &'b [i32],
) -> impl Iterator<Item = (ItemId, i32)> + use<'b> {
    let mut again: HashSet<&str> = HashSet::new();
    batch.iter().zip(results).zip(numbers).filter_map(move |((item, result), number)| {
        let line = item.request.part(1);
        match result {
            Ok(()) => again.contains(line).then_some((item.id, *number)),
            Err(error) => {
                if !line.is_empty() && error.is_retriable() && *error != DeliveryError::NotAttempted {
                    again.insert(line);
                }
                None
            }
        }
    })
}

/// Leader and number of a partition.
fn place_of(name: &str, topic: &Topic, partition: usize) -> Result<(i32, i32), DeliveryError> {
    let number = i32::try_from(partition).ok().filter(|_| partition < topic.count());
    let Some(number) = number else {
        let cause =
            format!("topic \"{name}\" has {} partitions, none with the number {partition}", topic.count());
        return Err(DeliveryError::Refused { class: AnswerClass::Retry, cause });
    };
    let leader = topic.leader(partition);
    let leader =
        leader.ok_or_else(|| unreachable(format!("partition {number} of topic \"{name}\" has no leader")))?;
    Ok((leader, number))
}

/// What is said of a record that was kept for another kind of action.
fn foreign() -> DeliveryError {
    let cause = "it was kept for an action of another type".to_owned();
    DeliveryError::Refused { class: AnswerClass::Reject, cause }
}
