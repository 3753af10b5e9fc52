//! A partition's part of a batch on its way: what of it is still to be sent, and what an answer makes of it.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use rskafka::protocol::error::Error;

use super::answer::{Verdict, cause, verdict};
use super::produce::{Lot, Outcome};
use super::producer::{Identity, LineGuard, Producer, Sequence, hinted, is_about_idempotence, is_forgotten};
use crate::delivery::{AnswerClass, DeliveryError, Envelope, ItemId};
use crate::record::Record;

/// Most bytes of one partition's records in one request, before compression: a broker takes 1,048,588 unless it is told
/// otherwise. A larger record goes alone.
pub(super) const CHUNK_BYTES_MAX: usize = 900 << 10;
/// What a record takes on the wire beside its key, value and headers, at most.
const RECORD_BYTES: usize = 64;
/// How often one batch begins anew under another number of the producer's.
const RENEWALS_MAX: u32 = 1;

/// A record with its place in the batch; without one, nobody waits for it at the moment.
pub(super) type Item = (Option<usize>, Arc<Envelope<Record>>);

/// What a broker says of a partition's records.
pub(super) enum Answer {
    Written,
    Refused(Error),
    Missing,
}

/// What is to be done behind an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    Nothing,
    /// The topic's partitions must be asked for anew.
    Ask,
    /// The producer needs another number than this.
    Renew(Option<Identity>),
}

/// A lot under way.
pub(super) struct Pending<'p> {
    pub(super) topic: String,
    pub(super) partition: i32,
    items: Vec<Item>,
    chunks: VecDeque<Range<usize>>,
    /// Where what is sent again is to be written once: the partition's sequence, locked.
    line: Option<(&'p Producer, LineGuard)>,
    sequence: Option<Sequence>,
    /// The first chunk was sent, now or before, and it isn't known whether it was written.
    is_in_doubt: bool,
    renewals: u32,
}

impl<'p> Pending<'p> {
    pub(super) fn new(lot: Lot) -> Self {
        let Lot { topic, partition, items } = lot;
        let items: Vec<Item> = items.into_iter().map(|(place, item)| (Some(place), item)).collect();
        let mut chunks = VecDeque::new();
        cut(&items, 0, &mut chunks);
        Self { topic, partition, items, chunks, line: None, sequence: None, is_in_doubt: false, renewals: 0 }
    }

    /// The same behind what is in doubt, and without what was written meanwhile.
    pub(super) fn in_line(
        lot: Lot,
        producer: &'p Producer,
        mut line: LineGuard,
        outcomes: &mut Vec<Outcome>,
    ) -> Self {
        let Lot { topic, partition, items: wanted } = lot;
        let doubt = std::mem::take(&mut line.doubt);
        let doubtful: HashMap<ItemId, usize> = doubt.iter().map(|item| item.id).zip(0..).collect();
        let mut items: Vec<Item> = doubt.into_iter().map(|item| (None, item)).collect();
        let first = items.len();
        for (place, item) in wanted {
            let waits = doubtful.get(&item.id).and_then(|at| items.get_mut(*at));
            if let Some((waits, _)) = waits {
                *waits = Some(place);
            } else if producer.take_written(item.id) {
                outcomes.push((place, Ok(())));
            } else {
                items.push((Some(place), item));
            }
        }
        let mut chunks = VecDeque::new();
        if first > 0 {
            chunks.push_back(0..first);
        }
        cut(&items, first, &mut chunks);
        let line = Some((producer, line));
        Self { topic, partition, items, chunks, line, sequence: None, is_in_doubt: first > 0, renewals: 0 }
    }

    pub(super) fn is_done(&self) -> bool {
        self.chunks.is_empty()
    }

    /// What goes out next.
    pub(super) fn front(&self) -> &[Item] {
        self.chunks.front().map_or(&[], |chunk| self.items(chunk))
    }

    /// Where in the partition's sequence that is.
    pub(super) const fn sequence(&self) -> Option<Sequence> {
        self.sequence
    }

    /// Gives it its sequence, under this number if it begins anew.
    pub(super) fn set_sequence(&mut self, current: Identity) {
        let is_in_doubt = self.is_in_doubt;
        self.sequence = self.line.as_mut().map(|(_, line)| line.sequence(is_in_doubt, current));
    }

    /// It goes out.
    pub(super) const fn mark_sent(&mut self) {
        self.is_in_doubt = true;
    }

    fn items(&self, chunk: &Range<usize>) -> &[Item] {
        self.items.get(chunk.clone()).unwrap_or_default()
    }

    /// Ends the records of a chunk.
    fn end(&self, chunk: &Range<usize>, result: &Result<(), DeliveryError>, outcomes: &mut Vec<Outcome>) {
        let items = self.items(chunk);
        outcomes.extend(items.iter().filter_map(|(place, _)| place.map(|place| (place, result.clone()))));
    }

    /// Ends all that is left: the first chunk with this, and what is behind it untried, as it would overtake.
    pub(super) fn end_all(&mut self, error: DeliveryError, outcomes: &mut Vec<Outcome>) {
        self.keep_doubt();
        let mut result = Err(error);
        while let Some(chunk) = self.chunks.pop_front() {
            self.end(&chunk, &result, outcomes);
            result = Err(DeliveryError::NotAttempted);
        }
    }

    /// Leaves to whoever is next in this partition what nobody knows the fate of.
    fn keep_doubt(&mut self) {
        if !std::mem::take(&mut self.is_in_doubt) {
            return;
        }
        let doubt: Vec<_> = self.front().iter().map(|(_, item)| Arc::clone(item)).collect();
        if let Some((producer, line)) = &mut self.line {
            producer.doubt(&doubt, self.partition);
            line.doubt = doubt;
        }
    }

    /// Takes the first chunk, whose fate is known.
    fn settle(&mut self, chunk: &Range<usize>, is_written: bool) {
        self.is_in_doubt = false;
        let items = self.items.get(chunk.clone()).unwrap_or_default();
        let Some((producer, line)) = &mut self.line else { return };
        producer.settle(items, self.partition, is_written);
        if is_written {
            line.advance(items.len());
        }
    }

    /// Takes the answer to the first chunk.
    pub(super) fn answered(&mut self, answer: Answer, outcomes: &mut Vec<Outcome>) -> Next {
        let Some(chunk) = self.chunks.front().cloned() else { return Next::Nothing };
        let is_idempotent = self.line.is_some();
        let verdict = match answer {
            Answer::Written => return self.written(&chunk, outcomes),
            // The broker has it from so long ago that it doesn't know where any more.
            Answer::Refused(Error::DuplicateSequenceNumber) if is_idempotent => {
                return self.written(&chunk, outcomes);
            }
            Answer::Refused(error) if is_idempotent && is_forgotten(error) => {
                return self.forgotten(error, &chunk, outcomes);
            }
            Answer::Refused(error) if is_idempotent && is_about_idempotence(error) => match verdict(error) {
                Verdict::All(error) => Verdict::All(hinted(error)),
                verdict => verdict,
            },
            Answer::Refused(error) => verdict(error),
            Answer::Missing => {
                let cause = "the broker's answer leaves out a partition".to_owned();
                Verdict::All(DeliveryError::Interrupted { cause })
            }
        };
        match verdict {
            Verdict::One(_) if chunk.len() > 1 => {
                self.settle(&chunk, false);
                self.chunks.pop_front();
                let middle = chunk.start + chunk.len() / 2;
                self.chunks.push_front(middle..chunk.end);
                self.chunks.push_front(chunk.start..middle);
                Next::Nothing
            }
            Verdict::One(error) => {
                self.settle(&chunk, false);
                self.chunks.pop_front();
                self.end(&chunk, &Err(error), outcomes);
                Next::Nothing
            }
            Verdict::All(error) if !error.is_retriable() => {
                self.settle(&chunk, false);
                // What is behind fares no better, and has nothing to wait for.
                while let Some(chunk) = self.chunks.pop_front() {
                    self.end(&chunk, &Err(error.clone()), outcomes);
                }
                Next::Nothing
            }
            Verdict::All(error) => {
                self.end_all(error, outcomes);
                Next::Nothing
            }
            Verdict::Moved(error) => {
                self.end_all(error, outcomes);
                Next::Ask
            }
        }
    }

    fn written(&mut self, chunk: &Range<usize>, outcomes: &mut Vec<Outcome>) -> Next {
        self.settle(chunk, true);
        self.chunks.pop_front();
        self.end(chunk, &Ok(()), outcomes);
        Next::Nothing
    }

    /// The broker doesn't know the producer, or not at this place of its sequence: this request wasn't written. Whether an
    /// earlier one with the same records was can't be learned any more, and they are sent anew.
    fn forgotten(&mut self, error: Error, chunk: &Range<usize>, outcomes: &mut Vec<Outcome>) -> Next {
        self.settle(chunk, false);
        let old = self.line.as_mut().and_then(|(_, line)| line.identity.take());
        self.renewals += 1;
        if self.renewals > RENEWALS_MAX {
            self.end_all(DeliveryError::Refused { class: AnswerClass::Retry, cause: cause(error) }, outcomes);
        }
        Next::Renew(old)
    }
}

/// A batch that is given up in the middle leaves its doubt behind too.
impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.keep_doubt();
    }
}

/// Cuts the items from `first` on into chunks.
fn cut(items: &[Item], first: usize, chunks: &mut VecDeque<Range<usize>>) {
    let (mut start, mut bytes) = (first, 0);
    for (place, (_, item)) in items.iter().enumerate().skip(first) {
        let size = wire_bytes(&item.request);
        if place > start && bytes + size > CHUNK_BYTES_MAX {
            chunks.push_back(start..place);
            (start, bytes) = (place, 0);
        }
        bytes += size;
    }
    if start < items.len() {
        chunks.push_back(start..items.len());
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
