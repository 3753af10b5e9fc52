//! Decides which messages are traced, and takes what is told of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};
use parking_lot::Mutex;

use crate::ring::Ring;
use crate::sampling::{CAPTURE_TIME_MAX, CAPTURES_MAX, random_part};
use crate::span::new_id;
use crate::{Capture, CaptureError, CaptureId, Context, Sampling, Span, Summary, Trace, Why};

/// Traces that errors of untraced messages may begin in one second; those beyond it are counted only.
const ERRORS_PER_SECOND: u64 = 10;

/// What is traced and kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Which messages.
    pub sampling: Sampling,
    /// Whether errors of other messages make a trace of their own.
    pub errors: bool,
    /// Whether a publisher's `traceparent` counts.
    pub trust_context: bool,
    /// Most traces in memory.
    pub traces_max: usize,
    /// Most bytes of them.
    pub bytes_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            sampling: Sampling::default(),
            errors: true,
            trust_context: false,
            traces_max: 1_000,
            bytes_max: 8 << 20,
        }
    }
}

/// Takes spans that have ended, to hand them on. Never waits.
pub trait Export: Send + Sync + 'static {
    /// One span.
    fn export(&self, span: &Span);
}

/// How much was traced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Counts {
    /// Traces that were begun here.
    pub begun: u64,
    /// Spans.
    pub spans: u64,
    /// Errors that made no trace, because there were too many at once.
    pub errors_untold: u64,
    /// Traces in memory.
    pub kept: usize,
    /// Bytes of them.
    pub kept_bytes: usize,
}

/// Decides what is traced, and keeps it.
pub struct Tracer {
    /// Whether any message may be sampled: what is looked at for each.
    is_on: AtomicBool,
    /// New traces whose random part is below it are none of those chosen, whatever their message is. Where only a share is
    /// traced, it spares all other messages a closer look.
    never_below: AtomicU64,
    keeps_errors: AtomicBool,
    settings: ArcSwap<Settings>,
    /// The settings' sampling and that of the captures.
    chosen: ArcSwap<Vec<Sampling>>,
    captures: Mutex<Captures>,
    ring: Mutex<Ring>,
    export: ArcSwapOption<Box<dyn Export>>,
    errors: Mutex<(Option<Instant>, u64)>,
    begun: AtomicU64,
    spans: AtomicU64,
    errors_untold: AtomicU64,
}

#[derive(Debug, Default)]
struct Captures {
    running: Vec<Capture>,
    last: u64,
}

impl std::fmt::Debug for Tracer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tracer").field("settings", &self.settings.load()).finish_non_exhaustive()
    }
}

impl Default for Tracer {
    fn default() -> Self {
        Self::new(Settings::default())
    }
}

impl Tracer {
    /// A tracer that keeps nothing as yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let tracer = Self {
            is_on: AtomicBool::new(false),
            never_below: AtomicU64::new(0),
            keeps_errors: AtomicBool::new(settings.errors),
            ring: Mutex::new(Ring::new(settings.traces_max, settings.bytes_max)),
            settings: ArcSwap::from_pointee(settings),
            chosen: ArcSwap::default(),
            captures: Mutex::default(),
            export: ArcSwapOption::empty(),
            errors: Mutex::default(),
            begun: AtomicU64::new(0),
            spans: AtomicU64::new(0),
            errors_untold: AtomicU64::new(0),
        };
        tracer.choose(&mut tracer.captures.lock());
        tracer
    }

    /// Puts other settings in place. Captures go on.
    pub fn configure(&self, settings: Settings) {
        self.keeps_errors.store(settings.errors, Ordering::Relaxed);
        self.ring.lock().resize(settings.traces_max, settings.bytes_max);
        self.settings.store(Arc::new(settings));
        self.choose(&mut self.captures.lock());
    }

    /// What it does.
    #[must_use]
    pub fn settings(&self) -> Arc<Settings> {
        self.settings.load_full()
    }

    /// Hands spans on from now on, or no longer.
    pub fn set_export(&self, export: Option<Box<dyn Export>>) {
        self.export.store(export.map(Arc::new));
    }

    /// Begins to trace these messages, for a while.
    ///
    /// # Errors
    /// [`CaptureError`] when they, or the time, make no sense, or enough captures run.
    pub fn capture(&self, sampling: Sampling, time: Duration) -> Result<CaptureId, CaptureError> {
        sampling.check()?;
        if sampling.is_empty() {
            return Err(CaptureError::Empty);
        }
        if time < Duration::from_secs(1) || time > CAPTURE_TIME_MAX {
            return Err(CaptureError::Time(time));
        }
        let mut captures = self.captures.lock();
        captures.running.retain(|capture| capture.until > Instant::now());
        if captures.running.len() >= CAPTURES_MAX {
            return Err(CaptureError::Full);
        }
        captures.last += 1;
        let id = CaptureId(captures.last);
        captures.running.push(Capture { id, sampling, until: Instant::now() + time });
        self.choose(&mut captures);
        Ok(id)
    }

    /// Ends a capture; `false` when it isn't there any more.
    pub fn end_capture(&self, id: CaptureId) -> bool {
        let mut captures = self.captures.lock();
        let before = captures.running.len();
        captures.running.retain(|capture| capture.id != id);
        let is_ended = captures.running.len() < before;
        self.choose(&mut captures);
        is_ended
    }

    /// The captures that run.
    #[must_use]
    pub fn captures(&self) -> Vec<Capture> {
        let mut captures = self.captures.lock();
        self.choose(&mut captures);
        captures.running.clone()
    }

    /// Ends captures whose time is over. To be called now and then.
    pub fn tick(&self) {
        let mut captures = self.captures.lock();
        let now = Instant::now();
        if captures.running.iter().any(|capture| capture.until <= now) {
            self.choose(&mut captures);
        }
    }

    fn choose(&self, captures: &mut Captures) {
        let now = Instant::now();
        captures.running.retain(|capture| capture.until > now);
        let settings = self.settings.load();
        let own = std::iter::once(&settings.sampling);
        let chosen: Vec<Sampling> = own
            .chain(captures.running.iter().map(|capture| &capture.sampling))
            .filter(|sampling| !sampling.is_empty())
            .cloned()
            .collect();
        let never_below = match chosen.iter().map(Sampling::never_below).min() {
            Some(never_below) if !settings.trust_context => never_below,
            _ => 0,
        };
        self.never_below.store(never_below, Ordering::Relaxed);
        self.is_on.store(settings.trust_context || !chosen.is_empty(), Ordering::Release);
        self.chosen.store(Arc::new(chosen));
    }

    /// Whether any message may be sampled. Cheap: to be asked first.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Relaxed)
    }

    /// Whether a message is traced, and as what: the context of its first span, which is to be told when the message is
    /// through, and that span's parent. `traceparent` is asked for only where it counts.
    ///
    /// Where the publisher's trace counts, it decides about the share too, as OpenTelemetry's samplers that are based on the
    /// parent do: one that the publisher doesn't sample is none of the share. What the operator has chosen by client or
    /// topic is traced in any case, under the publisher's identifier.
    pub fn sample<'p>(
        &self,
        topic: &str,
        client_id: Option<&str>,
        traceparent: impl FnOnce() -> Option<&'p str>,
    ) -> Option<(Context, Option<u64>)> {
        if !self.is_on() {
            return None;
        }
        let new_trace_id = fastrand::u128(1..);
        if random_part(new_trace_id) < self.never_below.load(Ordering::Relaxed) {
            return None;
        }
        let parent =
            if self.settings.load().trust_context { traceparent().and_then(Context::parse) } else { None };
        let (trace_id, parent, is_decided) = match parent {
            Some((parent, true)) => {
                let context = Context { trace_id: parent.trace_id, span_id: new_id() };
                self.begin_as(context, Why::Context);
                return Some((context, Some(parent.span_id)));
            }
            Some((parent, false)) => (parent.trace_id, Some(parent.span_id), true),
            None => (new_trace_id, None, false),
        };
        let chosen = self.chosen.load();
        let why = chosen.iter().find_map(|sampling| {
            let by_share = || (!is_decided && sampling.of_trace(trace_id)).then_some(Why::Ratio);
            sampling.of_message(topic, client_id).or_else(by_share)
        })?;
        let context = Context { trace_id, span_id: new_id() };
        self.begin_as(context, why);
        Some((context, parent))
    }

    /// Whether messages that come to a rule are traced. Cheap where no rule is.
    #[must_use]
    pub fn samples_rule(&self, rule: &str) -> bool {
        self.is_on() && self.chosen.load().iter().any(|sampling| sampling.of_rule(rule))
    }

    /// Whether messages that come to any rule may be.
    #[must_use]
    pub fn samples_rules(&self) -> bool {
        self.is_on() && self.chosen.load().iter().any(|sampling| !sampling.rules.is_empty())
    }

    /// Begins a trace.
    #[must_use]
    pub fn begin(&self, why: Why) -> Context {
        let context = Context { trace_id: fastrand::u128(1..), span_id: new_id() };
        self.begin_as(context, why);
        context
    }

    fn begin_as(&self, context: Context, why: Why) {
        self.begun.fetch_add(1, Ordering::Relaxed);
        self.ring.lock().begin(context, why);
    }

    /// Begins a trace for something that failed; `None` where errors are not kept, or too many were within the second.
    #[must_use]
    pub fn begin_for_error(&self) -> Option<Context> {
        if !self.keeps_errors.load(Ordering::Relaxed) {
            return None;
        }
        {
            let (since, told) = &mut *self.errors.lock();
            let now = Instant::now();
            if since.is_none_or(|since| now.duration_since(since) >= Duration::from_secs(1)) {
                (*since, *told) = (Some(now), 0);
            }
            *told += 1;
            if *told > ERRORS_PER_SECOND {
                self.errors_untold.fetch_add(1, Ordering::Relaxed);
                return None;
            }
        }
        Some(self.begin(Why::Error))
    }

    /// Takes a span, which ends now.
    pub fn finish(&self, mut span: Span) {
        span.end();
        self.spans.fetch_add(1, Ordering::Relaxed);
        if let Some(export) = &*self.export.load() {
            export.export(&span);
        }
        self.ring.lock().push(span);
    }

    /// A trace, as far as it is kept.
    #[must_use]
    pub fn trace(&self, trace_id: u128) -> Option<Trace> {
        self.ring.lock().get(trace_id).filter(|trace| !trace.spans.is_empty()).cloned()
    }

    /// Those of the traces that `wanted` says yes to, the last that changed first, at most so many.
    #[must_use]
    pub fn list(&self, max: usize, mut wanted: impl FnMut(&Summary) -> bool) -> Vec<Summary> {
        let ring = self.ring.lock();
        let summaries = ring.by_change().into_iter().map(Trace::summary);
        summaries.filter(|summary| wanted(summary)).take(max).collect()
    }

    /// How much was traced.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let ring = self.ring.lock();
        Counts {
            begun: self.begun.load(Ordering::Relaxed),
            spans: self.spans.load(Ordering::Relaxed),
            errors_untold: self.errors_untold.load(Ordering::Relaxed),
            kept: ring.len(),
            kept_bytes: ring.bytes(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    fn sampling(topic: &str) -> Sampling {
        Sampling { topics: vec![topic.to_owned()], ..Sampling::default() }
    }

    fn none<'p>() -> Option<&'p str> {
        None
    }

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn nothing_is_traced_until_somebody_says_so() {
        let tracer = Tracer::default();
        assert!(!tracer.is_on());
        assert_eq!(tracer.sample("a", Some("c"), || Some(PARENT)), None);
        let id = tracer.capture(sampling("a/#"), Duration::from_secs(60)).unwrap();
        assert!(tracer.sample("a/b", None, none).is_some());
        assert!(tracer.sample("b", None, none).is_none());
        assert!(tracer.end_capture(id) && !tracer.end_capture(id) && !tracer.is_on());
    }

    #[test]
    fn a_share_hides_nothing_that_is_chosen_otherwise() {
        let share = Sampling { ratio: 0.5, ..Sampling::default() };
        let tracer = Tracer::new(Settings { sampling: share, ..Settings::default() });
        let sampled =
            |topic: &str| (0..1_000).filter_map(|_| tracer.sample(topic, None, none)).collect::<Vec<_>>();
        // Half of 1,000; 400 are six standard deviations off.
        let half = sampled("a");
        assert!((400..=600).contains(&half.len()), "{}", half.len());
        assert!(half.iter().all(|(context, _)| random_part(context.trace_id) >= 1 << 55));
        let id = tracer.capture(sampling("a/#"), Duration::from_secs(60)).unwrap();
        assert_eq!(sampled("a/b").len(), 1_000);
        assert!(tracer.end_capture(id));
        assert!((400..=600).contains(&sampled("a/b").len()));
        // A larger share of a capture counts, as long as it runs.
        let all = Sampling { ratio: 1.0, ..Sampling::default() };
        tracer.capture(all, Duration::from_secs(60)).unwrap();
        assert_eq!(sampled("b").len(), 1_000);
        // Rules are looked at later, when a message comes to one.
        let rules = Sampling { rules: vec!["hot".to_owned()], ..Sampling::default() };
        let tracer = Tracer::new(Settings { sampling: rules, ..Settings::default() });
        assert!(tracer.is_on() && tracer.sample("a", None, none).is_none() && tracer.samples_rule("hot"));
    }

    #[test]
    fn a_context_counts_only_where_it_is_trusted() {
        let tracer = Tracer::new(Settings { trust_context: true, ..Settings::default() });
        let (context, parent) = tracer.sample("a", None, || Some(PARENT)).unwrap();
        assert_eq!(context.trace_id, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
        assert_eq!(parent, Some(0x00f0_67aa_0ba9_02b7));
        // Its sender doesn't trace it, so we have no reason to.
        let unsampled = PARENT.replace("b7-01", "b7-00");
        assert!(tracer.sample("a", None, || Some(&unsampled)).is_none());
        assert!(tracer.sample("a", None, || Some("nonsense")).is_none());
    }

    #[test]
    fn a_capture_is_refused_for_what_makes_no_sense() {
        let tracer = Tracer::default();
        let minute = Duration::from_secs(60);
        assert_eq!(tracer.capture(Sampling::default(), minute), Err(CaptureError::Empty));
        assert!(tracer.capture(sampling("a/#/b"), minute).is_err());
        assert!(tracer.capture(sampling("a"), Duration::ZERO).is_err());
        assert!(tracer.capture(sampling("a"), CAPTURE_TIME_MAX + minute).is_err());
        for _ in 0..CAPTURES_MAX {
            tracer.capture(sampling("a"), minute).unwrap();
        }
        assert_eq!(tracer.capture(sampling("a"), minute), Err(CaptureError::Full));
    }

    #[test]
    fn errors_make_traces_of_their_own_up_to_so_many_a_second() {
        let tracer = Tracer::default();
        let begun = (0..ERRORS_PER_SECOND * 3).filter_map(|_| tracer.begin_for_error()).count();
        // The second may have changed in between.
        assert!((10..=20).contains(&begun), "{begun}");
        assert_eq!(tracer.counts().errors_untold, 30 - begun as u64);
        tracer.configure(Settings { errors: false, ..Settings::default() });
        assert!(tracer.begin_for_error().is_none());
    }

    #[test]
    fn what_is_finished_is_found() {
        let tracer = Tracer::new(Settings { sampling: sampling("#"), ..Settings::default() });
        let (context, _) = tracer.sample("plant/a", Some("press"), none).unwrap();
        let span = Span::of(context, None, Kind::Publish, "receive");
        tracer
            .finish(span.with("messaging.destination.name", "plant/a").with("messaging.client.id", "press"));
        let rule = Span::child(context, Kind::Rule, "process hot");
        tracer.finish(rule.with("tidegate.rule.id", "hot").with("tidegate.rule.outcome", "output"));
        let listed = tracer.list(10, |_| true);
        assert_eq!(listed.len(), 1);
        assert_eq!(listed[0].topic.as_deref(), Some("plant/a"));
        assert_eq!(listed[0].client_id.as_deref(), Some("press"));
        assert_eq!(listed[0].rules, ["hot"]);
        assert_eq!(tracer.trace(context.trace_id).unwrap().spans.len(), 2);
        assert!(tracer.list(10, |summary| summary.error.is_some()).is_empty());
        assert!(tracer.trace(1).is_none());
    }
}
