//! Spans that wait for their batch. Taking one in never waits and allocates no more than the span.
//!
//! Bounded by number and by memory. When it is full, the new span is dropped and the old ones stay: those are of traces
//! whose beginning is sent already.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use trace::{Export, Span};

use super::counts::{Counters, add};
use crate::config::Otlp;

/// Memory of the spans of one request, about: collectors refuse bodies past some size, often 20 MiB or less.
const BATCH_BYTES_MAX: usize = 2 << 20;

/// Limits of a queue.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) spans_max: usize,
    pub(super) bytes_max: usize,
    pub(super) batch_max: usize,
    pub(super) delay: Duration,
}

impl Bounds {
    pub(super) fn of(config: &Otlp) -> Self {
        let spans_max = usize::try_from(config.max_queued_spans).unwrap_or(usize::MAX);
        let batch_max = usize::try_from(config.max_batch_spans).unwrap_or(usize::MAX);
        Self {
            spans_max,
            bytes_max: usize::try_from(config.max_queued_memory.as_u64()).unwrap_or(usize::MAX),
            batch_max: batch_max.min(spans_max),
            delay: config.schedule_delay.as_duration(),
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    bounds: Bounds,
    /// Told when a batch is full and when the queue is closed.
    wake: Notify,
    counters: Arc<Counters>,
}

#[derive(Debug, Default)]
struct State {
    spans: VecDeque<Span>,
    bytes: usize,
    is_closed: bool,
}

/// Gives spans to a queue.
pub(super) struct Feed(pub(super) Arc<Queue>);

impl Export for Feed {
    fn export(&self, span: &Span) {
        self.0.push(span);
    }
}

impl Queue {
    pub(super) fn new(bounds: Bounds, counters: Arc<Counters>) -> Self {
        Self { state: Mutex::default(), bounds, wake: Notify::new(), counters }
    }

    pub(super) fn push(&self, span: &Span) {
        let bytes = span.bytes();
        let is_batch = {
            let mut state = self.state.lock();
            let has_room = state.spans.len() < self.bounds.spans_max
                && state.bytes.saturating_add(bytes) <= self.bounds.bytes_max;
            if !has_room || state.is_closed {
                add(&self.counters.dropped_full, 1);
                return;
            }
            state.bytes += bytes;
            state.spans.push_back(span.clone());
            self.is_batch(&state)
        };
        if is_batch {
            self.wake.notify_one();
        }
    }

    fn is_batch(&self, state: &State) -> bool {
        state.spans.len() >= self.bounds.batch_max
            || state.bytes >= BATCH_BYTES_MAX.min(self.bounds.bytes_max / 2)
    }

    /// Waits until there is a batch: a full one, or what has come within the delay. `None`: closed and empty.
    pub(super) async fn batch(&self) -> Option<Vec<Span>> {
        loop {
            let full = async {
                loop {
                    {
                        let state = self.state.lock();
                        if state.is_closed || self.is_batch(&state) {
                            break;
                        }
                    }
                    self.wake.notified().await;
                }
            };
            // What comes in time is sent together, full or not.
            drop(tokio::time::timeout(self.bounds.delay, full).await);
            let mut state = self.state.lock();
            if let Some(batch) = self.take(&mut state) {
                return Some(batch);
            }
            if state.is_closed {
                return None;
            }
        }
    }

    fn take(&self, state: &mut State) -> Option<Vec<Span>> {
        let mut batch = Vec::new();
        let mut bytes = 0_usize;
        while batch.len() < self.bounds.batch_max && (batch.is_empty() || bytes < BATCH_BYTES_MAX) {
            let Some(span) = state.spans.pop_front() else { break };
            let own = span.bytes();
            bytes += own;
            state.bytes = state.bytes.saturating_sub(own);
            batch.push(span);
        }
        (!batch.is_empty()).then_some(batch)
    }

    /// Takes no more, and gives out what it has.
    pub(super) fn close(&self) {
        self.state.lock().is_closed = true;
        self.wake.notify_one();
    }

    pub(super) fn len(&self) -> usize {
        self.state.lock().spans.len()
    }

    /// Drops what waits; how much that was.
    pub(super) fn clear(&self) -> usize {
        let mut state = self.state.lock();
        state.bytes = 0;
        std::mem::take(&mut state.spans).len()
    }
}

#[cfg(test)]
mod tests {
    use trace::{Context, Kind};

    use super::*;

    fn queue(spans_max: usize, bytes_max: usize, batch_max: usize) -> (Queue, Arc<Counters>) {
        let counters = Arc::new(Counters::default());
        let bounds = Bounds { spans_max, bytes_max, batch_max, delay: Duration::from_secs(5) };
        (Queue::new(bounds, Arc::clone(&counters)), counters)
    }

    fn span(name: &str) -> Span {
        Span::of(Context { trace_id: 1, span_id: 2 }, None, Kind::Publish, name)
    }

    /// Nobody takes anything out: `push` returns all the same, and the oldest stay.
    #[test]
    fn a_full_queue_drops_what_comes_and_never_waits() {
        let (queue, counters) = queue(3, usize::MAX, 3);
        for name in ["a", "b", "c", "d", "e"] {
            queue.push(&span(name));
        }
        assert_eq!((queue.len(), counters.read(0).dropped_full), (3, 2));
        let names: Vec<String> = queue.state.lock().spans.iter().map(|span| span.name.clone()).collect();
        assert_eq!(names, ["a", "b", "c"]);
        assert_eq!(queue.clear(), 3);
        queue.push(&span("f"));
        assert_eq!((queue.len(), counters.read(0).dropped_full), (1, 2));
    }

    #[test]
    fn memory_is_a_limit_too() {
        let one = span("a").bytes();
        for (bytes_max, kept) in [(2 * one, 2), (2 * one - 1, 1), (one - 1, 0)] {
            let (queue, counters) = queue(10, bytes_max, 10);
            (0..3).for_each(|_| queue.push(&span("a")));
            assert_eq!((queue.len(), counters.read(0).dropped_full), (kept, 3 - kept as u64), "{bytes_max}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_is_full_or_its_time_is_over() {
        let (queue, _) = queue(10, usize::MAX, 2);
        (0..3).for_each(|_| queue.push(&span("a")));
        let began = tokio::time::Instant::now();
        assert_eq!(queue.batch().await.unwrap().len(), 2);
        assert_eq!(began.elapsed(), Duration::ZERO);
        assert_eq!(queue.batch().await.unwrap().len(), 1);
        assert_eq!(began.elapsed(), Duration::from_secs(5));
    }

    #[tokio::test(start_paused = true)]
    async fn a_closed_queue_gives_out_what_it_has_and_ends() {
        let (queue, counters) = queue(10, usize::MAX, 2);
        (0..3).for_each(|_| queue.push(&span("a")));
        queue.close();
        queue.push(&span("late"));
        let began = tokio::time::Instant::now();
        assert_eq!(queue.batch().await.unwrap().len(), 2);
        assert_eq!(queue.batch().await.unwrap().len(), 1);
        assert!(queue.batch().await.is_none());
        assert_eq!((began.elapsed(), counters.read(0).dropped_full), (Duration::ZERO, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn large_spans_make_smaller_batches() {
        let (queue, _) = queue(1_000, usize::MAX, 1_000);
        let large = (0..400).fold(span("a"), |span, _| span.with("x", "x".repeat(4_000)));
        (0..3).for_each(|_| queue.push(&large));
        assert_eq!(queue.batch().await.unwrap().len(), 2);
        assert_eq!(queue.batch().await.unwrap().len(), 1);
    }
}
