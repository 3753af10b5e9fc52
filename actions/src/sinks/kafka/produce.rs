//! From records to requests, and from answers to the fate of each record.

use std::collections::VecDeque;
use std::ops::Range;
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

use super::answer::{Verdict, verdict};
use super::config::KafkaCompression;
use super::connector::KafkaConnector;
use crate::delivery::{DeliveryError, Envelope};
use crate::record::{Marks, Record};

/// Most bytes of one partition's records in one request, before compression: a broker takes 1,048,588 unless it is told
/// otherwise. A larger record goes alone.
pub(super) const CHUNK_BYTES_MAX: usize = 900 << 10;
/// What a record takes on the wire beside its key, value and headers, at most.
const RECORD_BYTES: usize = 64;
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
}

/// A lot under way: what of it is still to be sent, in order.
struct Pending {
    lot: Lot,
    chunks: VecDeque<Range<usize>>,
}

impl Pending {
    fn new(lot: Lot) -> Self {
        let mut chunks = VecDeque::new();
        let (mut start, mut bytes) = (0, 0);
        for (place, (_, item)) in lot.items.iter().enumerate() {
            let size = wire_bytes(&item.request);
            if place > start && bytes + size > CHUNK_BYTES_MAX {
                chunks.push_back(start..place);
                (start, bytes) = (place, 0);
            }
            bytes += size;
        }
        chunks.push_back(start..lot.items.len());
        Self { lot, chunks }
    }

    fn items(&self, chunk: &Range<usize>) -> &[(usize, Arc<Envelope<Record>>)] {
        self.lot.items.get(chunk.clone()).unwrap_or_default()
    }

    /// Ends the records of a chunk.
    fn end(&self, chunk: &Range<usize>, result: &Result<(), DeliveryError>, outcomes: &mut Vec<Outcome>) {
        outcomes.extend(self.items(chunk).iter().map(|(place, _)| (*place, result.clone())));
    }

    /// Ends all that is left: the first chunk with this, and what is behind it untried, as it would overtake.
    fn end_all(&mut self, error: DeliveryError, outcomes: &mut Vec<Outcome>) {
        let mut result = Err(error);
        while let Some(chunk) = self.chunks.pop_front() {
            self.end(&chunk, &result, outcomes);
            result = Err(DeliveryError::NotAttempted);
        }
    }

    /// Takes the answer to the first chunk. Returns whether the topic's partitions must be asked for anew.
    fn answered(&mut self, answer: Answer, outcomes: &mut Vec<Outcome>) -> bool {
        let Some(chunk) = self.chunks.pop_front() else { return false };
        let error = match answer {
            Answer::Written => {
                self.end(&chunk, &Ok(()), outcomes);
                return false;
            }
            Answer::Missing => {
                let cause = "the broker's answer leaves out a partition".to_owned();
                Verdict::All(DeliveryError::Interrupted { cause })
            }
            Answer::Refused(verdict) => verdict,
        };
        match error {
            Verdict::One(_) if chunk.len() > 1 => {
                let middle = chunk.start + chunk.len() / 2;
                self.chunks.push_front(middle..chunk.end);
                self.chunks.push_front(chunk.start..middle);
                false
            }
            Verdict::One(error) => {
                self.end(&chunk, &Err(error), outcomes);
                false
            }
            Verdict::All(error) if !error.is_retriable() => {
                // What is behind fares no better, and has nothing to wait for.
                self.chunks.push_front(chunk);
                while let Some(chunk) = self.chunks.pop_front() {
                    self.end(&chunk, &Err(error.clone()), outcomes);
                }
                false
            }
            Verdict::All(error) => {
                self.chunks.push_front(chunk);
                self.end_all(error, outcomes);
                false
            }
            Verdict::Moved(error) => {
                self.chunks.push_front(chunk);
                self.end_all(error, outcomes);
                true
            }
        }
    }
}

enum Answer {
    Written,
    Refused(Verdict),
    Missing,
}

/// Sends lots to the broker that leads all of them, request by request, until each record has its fate.
pub(super) async fn produce(
    settings: Arc<Settings>,
    leader: i32,
    lots: Vec<Lot>,
    deadline: Instant,
) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    let mut pending: Vec<Pending> = lots.into_iter().map(Pending::new).collect();
    while !pending.is_empty() {
        match exchange(&settings, leader, &pending, deadline).await {
            Ok(answer) => {
                for lot in &mut pending {
                    let answer = answer_of(&answer, &lot.lot);
                    if lot.answered(answer, &mut outcomes) {
                        settings.connector.cluster.forget(&lot.lot.topic);
                    }
                }
            }
            Err(error) => {
                if !error.is_attempt() {
                    // Perhaps another broker leads by now.
                    pending.iter().for_each(|lot| settings.connector.cluster.forget(&lot.lot.topic));
                }
                pending.iter_mut().for_each(|lot| lot.end_all(error.clone(), &mut outcomes));
            }
        }
        pending.retain(|lot| !lot.chunks.is_empty());
    }
    outcomes
}

/// One request with the first chunk of each lot.
async fn exchange(
    settings: &Settings,
    leader: i32,
    pending: &[Pending],
    deadline: Instant,
) -> Result<ProduceResponse, DeliveryError> {
    let broker = settings.connector.broker(leader, deadline, settings.timeout).await?;
    broker.quiet(deadline).await?;
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
    let answer = broker.ask(request, deadline, settings.timeout).await?;
    broker.keep_quiet(answer.throttle_time_ms.map(|ms| ms.0));
    Ok(answer)
}

fn topics(settings: &Settings, pending: &[Pending]) -> Vec<ProduceRequestTopicData> {
    let mut topics: Vec<ProduceRequestTopicData> = Vec::new();
    let now_ms = wall_clock_ms();
    for lot in pending {
        let Some(chunk) = lot.chunks.front() else { continue };
        let partition = ProduceRequestPartitionData {
            index: Int32(lot.lot.partition),
            records: Records(vec![record_batch(settings, lot.items(chunk), now_ms)]),
        };
        // Lots come sorted by topic.
        match topics.last_mut() {
            Some(topic) if topic.name.0 == lot.lot.topic => topic.partition_data.push(partition),
            _ => topics.push(ProduceRequestTopicData {
                name: String_(lot.lot.topic.clone()),
                partition_data: vec![partition],
            }),
        }
    }
    topics
}

fn record_batch(settings: &Settings, items: &[(usize, Arc<Envelope<Record>>)], now_ms: i64) -> RecordBatch {
    let records: Vec<WireRecord> =
        (0..).zip(items).map(|(offset, (_, item))| wire_record(&settings.marks, item, offset)).collect();
    RecordBatch {
        base_offset: 0,
        partition_leader_epoch: -1,
        last_offset_delta: i32::try_from(records.len()).unwrap_or(i32::MAX) - 1,
        first_timestamp: now_ms,
        max_timestamp: now_ms,
        // Neither a number of the producer's nor one of the batch: the brokers take it as it comes.
        producer_id: -1,
        producer_epoch: -1,
        base_sequence: -1,
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

/// About how many bytes a record takes on the wire, and no fewer than it does.
fn wire_bytes(record: &Record) -> usize {
    let key = record.key.as_ref().map_or(0, bytes::Bytes::len);
    let fields: usize = record.fields.iter().map(|(name, value)| name.len() + value.len() + 10).sum();
    // Marks have three names and values of bounded size.
    let marks = 512;
    record.payload.len() + key + fields + marks + RECORD_BYTES
}

fn answer_of(answer: &ProduceResponse, lot: &Lot) -> Answer {
    let topics = answer.responses.iter().filter(|topic| topic.name.0 == lot.topic);
    let mut partitions = topics.flat_map(|topic| &topic.partition_responses);
    let partition = partitions.find(|partition| partition.index.0 == lot.partition);
    match partition.map(|partition| partition.error) {
        Some(None) => Answer::Written,
        Some(Some(error)) => Answer::Refused(verdict(error)),
        None => Answer::Missing,
    }
}

fn wall_clock_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
