//! What the tracer is told of items, with and without a trace.

use trace::{Kind, Settings, Span, Trace, Value, Why};

use super::*;

/// Sends through the script of a [`FakeSink`], and notes what it would put into a header.
#[derive(Debug)]
struct HeaderSink {
    inner: FakeSink,
    headers: Arc<Mutex<Vec<Option<String>>>>,
}

impl Sink for HeaderSink {
    type Request = Message;

    fn batch_policy(&self) -> BatchPolicy {
        self.inner.policy
    }

    async fn deliver(&self, batch: &[Arc<Envelope<Message>>]) -> Vec<Result<(), DeliveryError>> {
        self.headers.lock().push(traceparent(batch));
        self.inner.deliver(batch).await
    }
}

const ACTION: Context = Context { trace_id: 0xabc, span_id: 0xdef };

fn traced(world: &Arc<World>, key: u64, number: u64) -> Outgoing<Message> {
    Outgoing { trace: Some(ACTION), ..item(world, key, number) }
}

fn kept(tracer: &Tracer) -> Vec<Trace> {
    tracer.list(100, |_| true).iter().filter_map(|summary| tracer.trace(summary.trace_id)).collect()
}

fn text<'s>(span: &'s Span, name: &str) -> &'s str {
    match span.attribute(name) {
        Some(Value::Text(text)) => text,
        other => panic!("{name}: {other:?}"),
    }
}

/// Delivers what the script allows, and waits until nothing is queued.
async fn run(
    world: &Arc<World>,
    policy: BatchPolicy,
    settings: Settings,
    items: Vec<Outgoing<Message>>,
) -> (Arc<Tracer>, Vec<Option<String>>) {
    let tracer = Arc::new(Tracer::new(settings));
    let headers = Arc::default();
    let sink =
        HeaderSink { inner: FakeSink { policy, ..FakeSink::new(world) }, headers: Arc::clone(&headers) };
    let delivery =
        Delivery::spawn_traced("rule/act", sink, config(), 1, None, Start::Paused, Arc::clone(&tracer));
    for item in items {
        assert_eq!(delivery.enqueue(item), Enqueued::Queued);
    }
    delivery.resume();
    while delivery.snapshot().queued + delivery.snapshot().in_flight > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    delivery.shutdown(Duration::from_secs(1)).await;
    let headers = headers.lock().clone();
    (tracer, headers)
}

#[tokio::test(start_paused = true)]
async fn each_attempt_is_a_span_that_links_to_the_one_before() {
    let world = Arc::new(World::default());
    world.script.lock().insert(1, VecDeque::from([Err(answered(503)), Err(unreachable())]));
    let items = vec![traced(&world, 1, 7)];
    let (tracer, headers) = run(&world, BatchPolicy::SINGLE, Settings::default(), items).await;
    let trace = tracer.trace(ACTION.trace_id).unwrap();
    assert_eq!(trace.spans.len(), 3);
    let outcomes: Vec<_> = trace.spans.iter().map(|span| text(span, "tidegate.outcome")).collect();
    assert_eq!(outcomes, ["failed", "failed", "delivered"]);
    assert_eq!(text(&trace.spans[0], "error.type"), "503");
    assert!(trace.spans[1].error.as_deref().unwrap().contains("connection refused"));
    for (before, span) in trace.spans.iter().zip(&trace.spans[1..]) {
        assert_eq!(span.links, [before.context]);
    }
    for (span, header) in trace.spans.iter().zip(&headers) {
        assert_eq!((span.kind, span.parent), (Kind::Attempt, Some(ACTION.span_id)));
        assert_eq!(header.as_deref(), Some(span.context.traceparent().as_str()));
        assert_eq!((text(span, "tidegate.rule.id"), text(span, "tidegate.action.id")), ("rule", "act"));
    }
    // The call that reached nobody is no attempt of the item's.
    assert_eq!(trace.spans[1].attribute("tidegate.attempt"), Some(&Value::Int(2)));
    assert_eq!(trace.spans[2].attribute("tidegate.attempt"), Some(&Value::Int(2)));
}

#[tokio::test(start_paused = true)]
async fn what_nobody_asked_for_is_told_from_its_first_failure_on() {
    let world = Arc::new(World::default());
    world.script.lock().insert(1, VecDeque::from([Err(answered(503))]));
    let items = vec![item(&world, 1, 7), item(&world, 2, 8)];
    let (tracer, headers) = run(&world, BatchPolicy::SINGLE, Settings::default(), items).await;
    let traces = kept(&tracer);
    assert_eq!(traces.len(), 1);
    assert_eq!(traces[0].why, Why::Error);
    assert_eq!(traces[0].spans.len(), 2);
    assert!(traces[0].spans[0].error.is_some() && traces[0].spans[1].error.is_none());
    // The attempts of before carried nothing.
    assert_eq!(headers.iter().filter(|header| header.is_none()).count(), 2);
}

#[tokio::test(start_paused = true)]
async fn without_errors_kept_nothing_is_told() {
    let world = Arc::new(World::default());
    world.script.lock().insert(1, VecDeque::from([Err(answered(503)), Err(answered(400))]));
    let settings = Settings { errors: false, ..Settings::default() };
    let (tracer, headers) = run(&world, BatchPolicy::SINGLE, settings, vec![item(&world, 1, 7)]).await;
    assert!(kept(&tracer).is_empty());
    assert_eq!(headers, [None, None]);
}

#[tokio::test(start_paused = true)]
async fn what_is_given_up_says_why() {
    let world = Arc::new(World::default());
    world.script.lock().insert(1, VecDeque::from([Err(answered(400))]));
    let items = vec![traced(&world, 1, 7)];
    let (tracer, _) = run(&world, BatchPolicy::SINGLE, Settings::default(), items).await;
    let trace = tracer.trace(ACTION.trace_id).unwrap();
    let [attempt, end] = trace.spans.as_slice() else { panic!("{trace:?}") };
    assert_eq!(text(attempt, "tidegate.outcome"), "refused");
    assert_eq!((end.kind, text(end, "tidegate.reason")), (Kind::Settle, "refused"));
    assert!(end.error.as_deref().unwrap().contains("400"));
}

#[tokio::test(start_paused = true)]
async fn the_attempts_of_a_batch_link_to_the_one_whose_request_it_is() {
    let world = Arc::new(World::default());
    let other = Context { trace_id: 0x123, span_id: 0x456 };
    let items =
        vec![item(&world, 1, 1), traced(&world, 2, 2), Outgoing { trace: Some(other), ..item(&world, 3, 3) }];
    let policy = BatchPolicy { max_items: 10, max_bytes: 1 << 20, linger: Duration::ZERO, is_whole: false };
    let (tracer, headers) = run(&world, policy, Settings::default(), items).await;
    let first = &tracer.trace(ACTION.trace_id).unwrap().spans[0];
    let second = &tracer.trace(other.trace_id).unwrap().spans[0];
    assert_eq!(headers, [Some(first.context.traceparent())]);
    assert_eq!(
        (first.links.as_slice(), second.links.as_slice()),
        (&[second.context][..], &[first.context][..])
    );
    assert_eq!(first.attribute("messaging.batch.message_count"), Some(&Value::Int(3)));
    assert_eq!(kept(&tracer).len(), 2);
}
