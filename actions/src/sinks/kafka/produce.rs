//! From records to requests, and from answers to the fate of each record.

use std::sync::Arc;
use std::time::Duration;

use rskafka::protocol::messages::{
    ProduceRequest, ProduceRequestPartitionData, ProduceRequestTopicData, ProduceResponse,
};
use rskafka::protocol::primitives::{Int16, Int32, NullableString, Records, String_};
use rskafka::protocol::record::{
    ControlBatchOrRecords, Record as WireRecord, RecordBatch, RecordBatchCompression,
    RecordBatchTimestampType, RecordHeader,
};
use tokio::time::Instant;

use super::config::KafkaCompression;
use super::connector::KafkaConnector;
use super::pending::{Answer, Item, Next, Pending};
use super::producer::{Producer, Sequence};
use crate::delivery::{DeliveryError, Envelope};
use crate::record::{Marks, Record};

/// All replicas that are in step have it, before the broker says so.
const ACKS_ALL: i16 = -1;

/// The records of a batch that go to one partition, in order.
pub(super) struct Lot {
    pub(super) topic: String,
    pub(super) partition: i32,
    /// Each with its place in the batch.
    pub(super) items: Vec<(usize, Arc<Envelope<Record>>)>,
}

/// What became of the record at a place of the batch.
pub(super) type Outcome = (usize, Result<(), DeliveryError>);

/// What an action asks of its requests.
pub(super) struct Settings {
    pub(super) connector: Arc<KafkaConnector>,
    pub(super) compression: KafkaCompression,
    pub(super) timeout: Duration,
    pub(super) marks: Marks,
    /// Where a record that is sent again is to be written once.
    pub(super) producer: Option<Producer>,
}

/// Sends lots to the broker that leads all of them, request by request, until each record has its fate. Lots come sorted by
/// topic and partition.
pub(super) async fn produce(
    settings: Arc<Settings>,
    leader: i32,
    lots: Vec<Lot>,
    deadline: Instant,
) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    let mut pending: Vec<Pending<'_>> = Vec::new();
    for lot in lots {
        match &settings.producer {
            None => pending.push(Pending::new(lot)),
            Some(producer) => match producer.line(&lot.topic, lot.partition, deadline).await {
                Ok(line) => pending.push(Pending::in_line(lot, producer, line, &mut outcomes)),
                Err(error) => {
                    outcomes.extend(lot.items.into_iter().map(|(place, _)| (place, Err(error.clone()))));
                }
            },
        }
    }
    pending.retain(|lot| !lot.is_done());
    while !pending.is_empty() {
        match exchange(&settings, leader, &mut pending, deadline).await {
            Ok(answer) => {
                for lot in &mut pending {
                    let answer = answer_of(&answer, &lot.topic, lot.partition);
                    match lot.answered(answer, &mut outcomes) {
                        Next::Nothing => {}
                        Next::Ask => settings.connector.cluster.forget(&lot.topic),
                        Next::Renew(old) => {
                            if let Some(producer) = &settings.producer {
                                producer.renew(old).await;
                            }
                        }
                    }
                }
            }
            Err(error) => {
                if !error.is_attempt() {
                    // Perhaps another broker leads by now.
                    pending.iter().for_each(|lot| settings.connector.cluster.forget(&lot.topic));
                }
                pending.iter_mut().for_each(|lot| lot.end_all(error.clone(), &mut outcomes));
            }
        }
        pending.retain(|lot| !lot.is_done());
    }
    outcomes
}

/// One request with the first chunk of each lot.
async fn exchange(
    settings: &Settings,
    leader: i32,
    pending: &mut [Pending<'_>],
    deadline: Instant,
) -> Result<ProduceResponse, DeliveryError> {
    let broker = settings.connector.broker(leader, deadline, settings.timeout).await?;
    broker.quiet(deadline).await?;
    if let Some(producer) = &settings.producer {
        let identity = producer.identity(&broker, deadline, settings.timeout).await?;
        pending.iter_mut().for_each(|lot| lot.set_sequence(identity));
    }
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(DeliveryError::NotAttempted);
    }
    let request = ProduceRequest {
        transactional_id: NullableString(None),
        acks: Int16(ACKS_ALL),
        // The broker gives up before we do, so that its answer says what holds.
        timeout_ms: Int32(i32::try_from(left.as_millis() * 3 / 4).unwrap_or(i32::MAX).max(1)),
        topic_data: topics(settings, pending),
    };
    // From here on nobody knows, until the answer says it.
    pending.iter_mut().for_each(Pending::mark_sent);
    let answer = broker.ask(request, deadline, settings.timeout).await?;
    broker.keep_quiet(answer.throttle_time_ms.map(|ms| ms.0));
    Ok(answer)
}

fn topics(settings: &Settings, pending: &[Pending<'_>]) -> Vec<ProduceRequestTopicData> {
    let mut topics: Vec<ProduceRequestTopicData> = Vec::new();
    let now_ms = wall_clock_ms();
    for lot in pending {
        let partition = ProduceRequestPartitionData {
            index: Int32(lot.partition),
            records: Records(vec![record_batch(settings, lot.front(), lot.sequence(), now_ms)]),
        };
        // Lots come sorted by topic.
        match topics.last_mut() {
            Some(topic) if topic.name.0 == lot.topic => topic.partition_data.push(partition),
            _ => topics.push(ProduceRequestTopicData {
                name: String_(lot.topic.clone()),
                partition_data: vec![partition],
            }),
        }
    }
    topics
}

fn record_batch(settings: &Settings, items: &[Item], sequence: Option<Sequence>, now_ms: i64) -> RecordBatch {
    let records: Vec<WireRecord> =
        (0..).zip(items).map(|(offset, (_, item))| wire_record(&settings.marks, item, offset)).collect();
    RecordBatch {
        base_offset: 0,
        partition_leader_epoch: -1,
        last_offset_delta: i32::try_from(records.len()).unwrap_or(i32::MAX) - 1,
        first_timestamp: now_ms,
        max_timestamp: now_ms,
        // Without the producer's number and the batch's the brokers take it as it comes.
        producer_id: sequence.map_or(-1, |sequence| sequence.identity.id),
        producer_epoch: sequence.map_or(-1, |sequence| sequence.identity.epoch),
        base_sequence: sequence.map_or(-1, |sequence| sequence.first),
        records: ControlBatchOrRecords::Records(records),
        compression: match settings.compression {
            KafkaCompression::None => RecordBatchCompression::NoCompression,
            KafkaCompression::Gzip => RecordBatchCompression::Gzip,
            KafkaCompression::Snappy => RecordBatchCompression::Snappy,
        },
        is_transactional: false,
        timestamp_type: RecordBatchTimestampType::CreateTime,
    }
}

fn wire_record(marks: &Marks, item: &Envelope<Record>, offset_delta: i32) -> WireRecord {
    let record = &item.request;
    let own =
        record.fields.iter().map(|(key, value)| RecordHeader { key: key.clone(), value: value.to_vec() });
    let is_named = |name: &str| record.fields.iter().any(|(own, _)| own == name);
    let ours = marks
        .of(item)
        .filter(|(name, _)| !is_named(name))
        .map(|(name, value)| RecordHeader { key: name.to_owned(), value: value.into_bytes() });
    WireRecord {
        timestamp_delta: 0,
        offset_delta,
        key: record.key.as_ref().map(|key| key.to_vec()),
        value: Some(record.payload.to_vec()),
        headers: own.chain(ours).collect(),
    }
}

fn answer_of(answer: &ProduceResponse, topic: &str, number: i32) -> Answer {
    let topics = answer.responses.iter().filter(|answer| answer.name.0 == topic);
    let mut partitions = topics.flat_map(|topic| &topic.partition_responses);
    let partition = partitions.find(|partition| partition.index.0 == number);
    match partition.map(|partition| partition.error) {
        Some(None) => Answer::Written,
        Some(Some(error)) => Answer::Refused(error),
        None => Answer::Missing,
    }
}

fn wall_clock_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
