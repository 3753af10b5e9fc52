//! The last traces, in bounded memory.
//!
//! Traces with an error may fill a half of it alone, so that what goes well doesn't push out what somebody will ask about.
//! A trace that is gone comes back with the next span that belongs to it, if there is one: with what is known from then on.

use std::collections::{HashMap, VecDeque};

use crate::{Context, Kind, Span, Value, Why};

/// Most spans of one trace; those beyond are counted only.
pub const SPANS_MAX: usize = 256;
/// Bytes that a trace accounts for beside its spans.
const TRACE_BYTES: usize = 256;
/// Void entries in the order of traces past which it is swept.
const VOID_MAX: usize = 64;

/// One message's way, as far as it is known.
#[derive(Debug, Clone)]
pub struct Trace {
    /// Which.
    pub trace_id: u128,
    /// Why it was traced.
    pub why: Why,
    /// Its steps, in the order in which they ended.
    pub spans: Vec<Span>,
    /// Steps that are not kept, because there were too many.
    pub spans_dropped: u64,
    /// Whether any step failed.
    pub has_error: bool,
    /// Place in the order in which traces began, and in which spans were added: what changes with every span.
    pub changed: u64,
    began: u64,
    bytes: usize,
}

/// A trace in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Which.
    pub trace_id: u128,
    /// Why it was traced.
    pub why: Why,
    /// When its first step began, nanoseconds since the epoch.
    pub start_ns: u64,
    /// From there to the end of the last one, nanoseconds.
    pub duration_ns: u64,
    /// How many steps are kept.
    pub spans: usize,
    /// The first error, if any step failed.
    pub error: Option<String>,
    /// Topic Name of the message, where it is known.
    pub topic: Option<String>,
    /// Its publisher, where it is known.
    pub client_id: Option<String>,
    /// Rules that made something of it.
    pub rules: Vec<String>,
    /// See [`Trace::changed`].
    pub changed: u64,
}

impl Trace {
    /// It in short.
    #[must_use]
    pub fn summary(&self) -> Summary {
        let start_ns = self.spans.iter().map(|span| span.start_ns).min().unwrap_or(0);
        let end = |span: &Span| {
            span.start_ns.saturating_add(u64::try_from(span.duration.as_nanos()).unwrap_or(u64::MAX))
        };
        let end_ns = self.spans.iter().map(end).max().unwrap_or(start_ns);
        let text = |name: &str| {
            let mut found = self.spans.iter().filter_map(|span| span.attribute(name));
            found.find_map(|value| match value {
                Value::Text(text) => Some(text.clone()),
                Value::Int(_) | Value::Bool(_) => None,
            })
        };
        let mut rules = Vec::new();
        for span in self.spans.iter().filter(|span| span.kind == Kind::Rule) {
            let is_passed = span.attribute("tidegate.rule.outcome") == Some(&Value::from("output"));
            if let Some(Value::Text(rule)) = span.attribute("tidegate.rule.id").filter(|_| is_passed)
                && !rules.contains(rule)
            {
                rules.push(rule.clone());
            }
        }
        Summary {
            trace_id: self.trace_id,
            why: self.why,
            start_ns,
            duration_ns: end_ns.saturating_sub(start_ns),
            spans: self.spans.len(),
            error: self.spans.iter().find_map(|span| span.error.clone()),
            topic: text("messaging.destination.name"),
            client_id: text("messaging.client.id"),
            rules,
            changed: self.changed,
        }
    }
}

/// Traces by their identifiers, oldest given up first.
#[derive(Debug)]
pub(crate) struct Ring {
    traces: HashMap<u128, Trace>,
    /// Identifiers with the number of their beginning, oldest first; an entry whose number isn't the trace's is void.
    recent: VecDeque<(u128, u64)>,
    with_errors: VecDeque<(u128, u64)>,
    /// How many traces there are with an error.
    errors: usize,
    errors_bytes: usize,
    bytes: usize,
    next: u64,
    traces_max: usize,
    bytes_max: usize,
}

impl Ring {
    pub(crate) fn new(traces_max: usize, bytes_max: usize) -> Self {
        Self {
            traces: HashMap::new(),
            recent: VecDeque::new(),
            with_errors: VecDeque::new(),
            errors: 0,
            errors_bytes: 0,
            bytes: 0,
            next: 0,
            traces_max,
            bytes_max,
        }
    }

    pub(crate) fn resize(&mut self, traces_max: usize, bytes_max: usize) {
        (self.traces_max, self.bytes_max) = (traces_max, bytes_max);
        self.make_room();
    }

    /// Notes that a trace begins, and why.
    pub(crate) fn begin(&mut self, context: Context, why: Why) {
        self.entry(context.trace_id, why);
        self.make_room();
    }

    pub(crate) fn push(&mut self, span: Span) {
        let id = span.context.trace_id;
        let (is_error, bytes) = (span.error.is_some(), span.bytes());
        self.next += 1;
        let changed = self.next;
        let trace = self.entry(id, Why::Context);
        trace.changed = changed;
        if trace.spans.len() >= SPANS_MAX && !is_error {
            trace.spans_dropped += 1;
            return;
        }
        if trace.spans.len() >= SPANS_MAX {
            // Its error is what will be asked about.
            trace.spans_dropped += 1;
            let gone = trace.spans.pop().map_or(0, |gone| gone.bytes());
            trace.bytes -= gone;
            let had_error = trace.has_error;
            self.account(had_error, 0, gone);
        }
        let Some(trace) = self.traces.get_mut(&id) else { return };
        trace.spans.push(span);
        trace.bytes += bytes;
        let (turned, total, began) = (is_error && !trace.has_error, trace.bytes, trace.began);
        trace.has_error |= is_error;
        let has_error = trace.has_error;
        if turned {
            self.errors += 1;
            self.errors_bytes += total - bytes;
            self.with_errors.push_back((id, began));
        }
        self.account(has_error, bytes, 0);
        self.make_room();
    }

    pub(crate) fn get(&self, trace_id: u128) -> Option<&Trace> {
        self.traces.get(&trace_id)
    }

    /// Every trace, the last one that changed first.
    pub(crate) fn by_change(&self) -> Vec<&Trace> {
        let mut traces: Vec<&Trace> = self.traces.values().filter(|trace| !trace.spans.is_empty()).collect();
        traces.sort_unstable_by_key(|trace| std::cmp::Reverse(trace.changed));
        traces
    }

    pub(crate) fn len(&self) -> usize {
        self.traces.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    fn entry(&mut self, trace_id: u128, why: Why) -> &mut Trace {
        self.traces.entry(trace_id).or_insert_with(|| {
            self.next += 1;
            self.recent.push_back((trace_id, self.next));
            self.bytes += TRACE_BYTES;
            Trace {
                trace_id,
                why,
                spans: Vec::new(),
                spans_dropped: 0,
                has_error: false,
                changed: self.next,
                began: self.next,
                bytes: TRACE_BYTES,
            }
        })
    }

    fn account(&mut self, has_error: bool, more: usize, less: usize) {
        self.bytes = self.bytes + more - less;
        if has_error {
            self.errors_bytes = self.errors_bytes + more - less;
        }
    }

    fn make_room(&mut self) {
        while self.traces.len() > self.traces_max || self.bytes > self.bytes_max {
            let errors_have_their_half =
                self.errors * 2 > self.traces_max || self.errors_bytes * 2 > self.bytes_max;
            let is_gone = if errors_have_their_half { self.drop_error() } else { self.drop_recent() };
            if !is_gone && !self.drop_recent() && !self.drop_error() {
                return;
            }
        }
    }

    /// Gives up the oldest trace without an error.
    fn drop_recent(&mut self) -> bool {
        while let Some((id, began)) = self.recent.pop_front() {
            let is_it = self.traces.get(&id).is_some_and(|trace| trace.began == began && !trace.has_error);
            if is_it {
                self.forget(id);
                return true;
            }
        }
        false
    }

    /// Gives up the oldest trace with one.
    fn drop_error(&mut self) -> bool {
        while let Some((id, began)) = self.with_errors.pop_front() {
            if self.traces.get(&id).is_some_and(|trace| trace.began == began) {
                self.forget(id);
                return true;
            }
        }
        false
    }

    fn forget(&mut self, id: u128) {
        let Some(trace) = self.traces.remove(&id) else { return };
        self.errors -= usize::from(trace.has_error);
        self.account(trace.has_error, 0, trace.bytes);
        // Traces with errors leave their entry among the others behind.
        if self.recent.len() > 2 * self.traces.len() + VOID_MAX {
            let traces = &self.traces;
            self.recent.retain(|(id, began)| {
                traces.get(id).is_some_and(|trace| trace.began == *began && !trace.has_error)
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn span(trace_id: u128, error: Option<&str>) -> Span {
        let mut span = Span::child(Context { trace_id, span_id: 1 }, Kind::Rule, "process r");
        if let Some(error) = error {
            span.fail(error);
        }
        span
    }

    fn ids(ring: &Ring) -> Vec<u128> {
        let mut ids: Vec<_> = ring.traces.keys().copied().collect();
        ids.sort_unstable();
        ids
    }

    #[test]
    fn the_oldest_give_way_and_errors_stay() {
        let mut ring = Ring::new(4, 1 << 20);
        ring.push(span(1, Some("no")));
        for id in 2..=9 {
            ring.push(span(id, None));
        }
        assert_eq!(ids(&ring), [1, 7, 8, 9]);
        for id in 10..=13 {
            ring.push(span(id, Some("no")));
        }
        // Errors alone never have more than all of it, and their own oldest go once they have more than a half.
        assert_eq!(ring.len(), 4);
        assert!(!ids(&ring).contains(&1));
    }

    #[test]
    fn a_trace_has_so_many_spans_and_an_error_finds_room() {
        let mut ring = Ring::new(4, 1 << 24);
        for _ in 0..SPANS_MAX + 5 {
            ring.push(span(1, None));
        }
        let trace = ring.get(1).unwrap();
        assert_eq!((trace.spans.len(), trace.spans_dropped), (SPANS_MAX, 5));
        ring.push(span(1, Some("at last")));
        let trace = ring.get(1).unwrap();
        assert_eq!((trace.spans.len(), trace.spans_dropped), (SPANS_MAX, 6));
        assert_eq!(trace.summary().error.as_deref(), Some("at last"));
    }

    #[test]
    fn a_trace_that_went_comes_back_with_what_follows() {
        let mut ring = Ring::new(2, 1 << 20);
        for id in 1..=3 {
            ring.push(span(id, None));
        }
        ring.push(span(1, Some("later")));
        assert_eq!(ids(&ring), [1, 3]);
        assert_eq!(ring.get(1).unwrap().spans.len(), 1);
    }

    proptest! {
        #[test]
        fn what_is_accounted_for_is_what_there_is(
            pushes in prop::collection::vec((1..20_u128, prop::bool::weighted(0.3), 0..600_usize), 0..300),
            traces_max in 1..12_usize,
        ) {
            let bytes_max = 12_000;
            let mut ring = Ring::new(traces_max, bytes_max);
            for (id, is_error, padding) in pushes {
                let mut span = span(id, is_error.then_some("no"));
                span.set("padding", "x".repeat(padding));
                ring.push(span);
                let bytes: usize = ring.traces.values().map(|trace| trace.bytes).sum();
                let errors = ring.traces.values().filter(|trace| trace.has_error);
                prop_assert_eq!(ring.bytes, bytes);
                prop_assert_eq!(ring.errors, errors.clone().count());
                prop_assert_eq!(ring.errors_bytes, errors.map(|trace| trace.bytes).sum::<usize>());
                prop_assert!(ring.len() <= traces_max && ring.bytes <= bytes_max);
                prop_assert!(ring.recent.len() <= 2 * traces_max + VOID_MAX + 2);
                prop_assert!(ring.with_errors.len() <= traces_max + 1);
                for trace in ring.traces.values() {
                    let spans: usize = trace.spans.iter().map(Span::bytes).sum();
                    prop_assert_eq!(trace.bytes, TRACE_BYTES + spans);
                }
            }
        }
    }
}
