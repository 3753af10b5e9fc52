//! Traces on their way to a collector: what it is sent, read by somebody else's messages of the protocol, and what becomes of
//! it when the collector doesn't want it.

#![expect(clippy::unwrap_used, reason = "a test may fail where it stands")]

use std::time::Instant;

use integration_tests::{
    Broker, BrokerBuilder, Client, ClosedPort, HttpReceiver, PATIENCE, ReceivedRequest, Version,
};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use prost::Message as _;

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
/// The form of its trace.
const TRACE: [u8; 16] = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736_u128.to_be_bytes();

fn otlp(collector: &HttpReceiver, keys: &str) -> String {
    let address = collector.address();
    format!("[trace.otlp]\nendpoint = \"http://{address}/v1/traces\"\nschedule_delay = \"20ms\"\n{keys}\n")
}

fn broker(collector: &HttpReceiver, trace: &str, keys: &str) -> BrokerBuilder {
    Broker::builder().section(&format!("[trace]\n{trace}\n{}", otlp(collector, keys)))
}

fn read(request: &ReceivedRequest) -> ExportTraceServiceRequest {
    assert_eq!((request.method.as_str(), request.target.as_str()), ("POST", "/v1/traces"));
    match request.header("content-type") {
        Some("application/x-protobuf") => ExportTraceServiceRequest::decode(&*request.body).unwrap(),
        Some("application/json") => serde_json::from_slice(&request.body).unwrap(),
        other => panic!("{other:?}"),
    }
}

fn spans_of(request: &ExportTraceServiceRequest) -> Vec<Span> {
    let scopes = request.resource_spans.iter().flat_map(|resource| &resource.scope_spans);
    scopes.flat_map(|scope| scope.spans.clone()).collect()
}

/// Takes spans in until there are enough.
#[track_caller]
fn collect(collector: &HttpReceiver, is_enough: impl Fn(&[Span]) -> bool) -> Vec<Span> {
    let mut spans = Vec::new();
    while !is_enough(&spans) {
        let request = collector.next_request();
        spans.extend(spans_of(&read(&request)));
        request.answer("200 OK", &[]);
    }
    spans
}

fn text(span: &Span, name: &str) -> Option<String> {
    let found = span.attributes.iter().find(|pair| pair.key == name)?;
    Some(match found.value.as_ref().unwrap().value.as_ref().unwrap() {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(number) => number.to_string(),
        Value::BoolValue(is) => is.to_string(),
        other => panic!("{name}: {other:?}"),
    })
}

fn operations(spans: &[Span], operation: &str) -> Vec<Span> {
    let is_it = |span: &&Span| text(span, "messaging.operation.name").as_deref() == Some(operation);
    spans.iter().filter(is_it).cloned().collect()
}

/// A publish of QoS 1, with a `traceparent`.
fn publish_traced(client: &mut Client, topic: &str, payload: &str, traceparent: &str) {
    let mut property = b"\x26\0\x0btraceparent\0".to_vec();
    property.push(u8::try_from(traceparent.len()).unwrap());
    property.extend_from_slice(traceparent.as_bytes());
    let mut body = vec![0, u8::try_from(topic.len()).unwrap()];
    body.extend_from_slice(topic.as_bytes());
    body.extend_from_slice(b"\0\x07");
    body.push(u8::try_from(property.len()).unwrap());
    body.extend(property);
    body.extend_from_slice(payload.as_bytes());
    let mut packet = vec![0x32, u8::try_from(body.len()).unwrap()];
    packet.extend(body);
    client.send_bytes(&packet);
}

#[test]
fn a_retried_request_is_one_trace_from_the_publisher_to_the_far_side() {
    for protocol in ["http/protobuf", "http/json"] {
        let (collector, receiver) = (HttpReceiver::start(), HttpReceiver::start());
        let rules = format!(
            r#"
[rules.hot]
sql = "SELECT t FROM 'plant/+' WHERE t > 50"

[[rules.hot.actions]]
name = "ops"
type = "http"
url = "http://{}/alarms?key=s3cret"
retry = {{ initial_backoff = "10ms", max_backoff = "20ms" }}

[[rules.hot.actions]]
name = "again"
type = "republish"
topic = "hot/${{topic(2)}}"
"#,
            receiver.address()
        );
        let keys = format!(
            "protocol = \"{protocol}\"\nservice_name = \"edge\"\nresource_attributes = {{ \"plant.name\" = \"a\" }}"
        );
        let broker = broker(&collector, "trust_context = true", &keys).rule_file("rules", &rules).start();
        let mut press = Client::connect(&broker, Version::V5, "press");
        publish_traced(&mut press, "plant/hall", r#"{"t":71}"#, PARENT);
        let first = receiver.next_request();
        let first_parent = first.header("traceparent").unwrap().to_owned();
        first.answer("503 Service Unavailable", &[]);
        let second = receiver.next_request();
        let second_parent = second.header("traceparent").unwrap().to_owned();
        second.answer("200 OK", &[]);

        // The first request tells whose spans they are.
        let request = collector.next_request();
        let told = read(&request);
        let [resource] = told.resource_spans.as_slice() else { panic!("{told:?}") };
        let whose = |name: &str| {
            let attributes = &resource.resource.as_ref().unwrap().attributes;
            let found = attributes.iter().find(|pair| pair.key == name)?;
            match found.value.clone()?.value? {
                Value::StringValue(text) => Some(text),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(whose("service.name").as_deref(), Some("edge"));
        assert_eq!(whose("plant.name").as_deref(), Some("a"));
        assert_eq!(whose("service.version").as_deref(), Some(env!("CARGO_PKG_VERSION")));
        assert!(
            whose("service.instance.id").is_some_and(|id| id.len() == 36) && whose("host.name").is_some()
        );
        let scope = &resource.scope_spans[0];
        assert_eq!(scope.scope.as_ref().unwrap().name, "tidegate");
        assert!(scope.schema_url.starts_with("https://opentelemetry.io/schemas/"), "{}", scope.schema_url);
        let mut spans = spans_of(&told);
        request.answer("200 OK", &[]);
        // The receipt, the rule, what went to its two actions, two routes and two attempts.
        let left = 8 - spans.len();
        spans.extend(collect(&collector, |more| more.len() >= left));

        assert!(spans.iter().all(|span| span.trace_id == TRACE), "{spans:#?}");
        assert!(spans.iter().all(|span| {
            span.span_id.len() == 8
                && span.start_time_unix_nano > 0
                && span.end_time_unix_nano >= span.start_time_unix_nano
        }));
        let topic_of = |span: &Span| text(span, "messaging.destination.name");
        let [publish] = &operations(&spans, "receive")[..] else { panic!("{spans:#?}") };
        assert_eq!(topic_of(publish).as_deref(), Some("plant/hall"));
        // Its parent is the publisher's, and so somewhere else.
        assert_eq!(publish.parent_span_id, 0x00f0_67aa_0ba9_02b7_u64.to_be_bytes());
        assert_eq!((publish.kind(), publish.flags), (SpanKind::Consumer, 0x301));
        for (name, value) in [
            ("messaging.system", "mqtt"),
            ("messaging.client.id", "press"),
            ("messaging.message.body.size", "8"),
            ("network.protocol.name", "mqtt"),
            ("network.protocol.version", "5"),
            ("network.peer.address", "127.0.0.1"),
            ("tidegate.retain", "false"),
        ] {
            assert_eq!(text(publish, name).as_deref(), Some(value), "{name}");
        }
        let [rule] = &operations(&spans, "process")[..] else { panic!("{spans:#?}") };
        assert_eq!((rule.kind(), &rule.parent_span_id), (SpanKind::Consumer, &publish.span_id));
        assert_eq!(rule.name, "process plant/+");
        // Values out of payloads stay here unless somebody says otherwise.
        assert_eq!(text(rule, "tidegate.rule.explanation"), None);
        let created = operations(&spans, "create");
        let action = created.iter().find(|span| text(span, "tidegate.action.id").is_some()).unwrap();
        assert_eq!((action.kind(), &action.parent_span_id), (SpanKind::Producer, &rule.span_id));
        let republish = created.iter().find(|span| topic_of(span).is_some()).unwrap();
        assert_eq!(
            (republish.kind(), topic_of(republish).as_deref()),
            (SpanKind::Producer, Some("hot/hall"))
        );
        let route = spans.iter().find(|span| span.name == "route").unwrap();
        assert_eq!(route.kind(), SpanKind::Internal);

        let mut attempts = operations(&spans, "send");
        attempts.sort_by_key(|span| span.start_time_unix_nano);
        for (attempt, parent) in attempts.iter().zip([&first_parent, &second_parent]) {
            assert_eq!((attempt.kind(), &attempt.parent_span_id), (SpanKind::Client, &action.span_id));
            let own: String = attempt.span_id.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(*parent, format!("00-4bf92f3577b34da6a3ce929d0e0e4736-{own}-01"));
            assert_eq!(text(attempt, "http.request.method").as_deref(), Some("POST"));
            // The query may be a secret.
            assert_eq!(text(attempt, "url.full"), Some(format!("http://{}/alarms", receiver.address())));
            assert_eq!(text(attempt, "server.address").as_deref(), Some("127.0.0.1"));
            assert_eq!(text(attempt, "server.port"), Some(receiver.address().port().to_string()));
        }
        assert!(attempts[0].links.is_empty());
        let [link] = attempts[1].links.as_slice() else { panic!("{attempts:#?}") };
        assert_eq!((&link.trace_id[..], &link.span_id), (&TRACE[..], &attempts[0].span_id));
        let status = attempts[0].status.as_ref().unwrap();
        assert!(status.code == 2 && status.message.contains("503"), "{status:?}");
        assert_eq!(text(&attempts[0], "error.type").as_deref(), Some("503"));
        assert_eq!(text(&attempts[0], "http.response.status_code").as_deref(), Some("503"));
        assert_eq!(attempts[1].status, None);
        assert_eq!(text(&attempts[1], "error.type"), None);
        broker.stop();
    }
}

#[test]
fn the_messages_of_a_batch_link_to_the_one_whose_request_it_is() {
    let (collector, receiver) = (HttpReceiver::start(), HttpReceiver::start());
    let rules = format!(
        r#"
[rules.all]
sql = "SELECT * FROM 'plant/#'"

[[rules.all.actions]]
name = "ops"
type = "http"
url = "http://{}/many"
batch = {{ max_items = 3, linger = "60s" }}
"#,
        receiver.address()
    );
    let broker = broker(&collector, "ratio = 1.0", "").rule_file("rules", &rules).start();
    let mut press = Client::connect(&broker, Version::V5, "press");
    for n in 0..3 {
        press.publish_acknowledged("plant/a", &format!("{{\"n\":{n}}}"));
    }
    let request = receiver.next_request();
    let parent = request.header("traceparent").unwrap().to_owned();
    request.answer("200 OK", &[]);
    let spans = collect(&collector, |spans| operations(spans, "send").len() == 3);
    let attempts = operations(&spans, "send");
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let own = |span: &Span| format!("00-{}-{}-01", hex(&span.trace_id), hex(&span.span_id));
    let (first, others): (Vec<&Span>, Vec<&Span>) = attempts.iter().partition(|span| own(span) == parent);
    let [first] = first[..] else { panic!("{attempts:#?}") };
    assert_eq!((first.links.len(), others.len()), (2, 2));
    for other in others {
        assert_ne!(other.trace_id, first.trace_id);
        assert_eq!((&other.links[0].trace_id, &other.links[0].span_id), (&first.trace_id, &first.span_id));
        assert!(first.links.iter().any(|link| link.span_id == other.span_id));
        assert_eq!(text(other, "messaging.batch.message_count").as_deref(), Some("3"));
    }
    broker.stop();
}

#[test]
fn the_variables_of_opentelemetry_are_enough() {
    let collector = HttpReceiver::start();
    let broker = Broker::builder()
        .variable("OTEL_EXPORTER_OTLP_ENDPOINT", &format!("http://{}", collector.address()))
        .variable("OTEL_EXPORTER_OTLP_HEADERS", "x-key=s3cr3t%20word")
        .variable("OTEL_SERVICE_NAME", "by-variable")
        .variable("OTEL_BSP_SCHEDULE_DELAY", "20")
        .variable("OTEL_TRACES_SAMPLER", "always_on")
        .start();
    let mut press = Client::connect(&broker, Version::V311, "press");
    press.publish_acknowledged("plant/a", "x");
    let request = collector.next_request();
    assert_eq!(request.header("x-key"), Some("s3cr3t word"));
    let told = read(&request);
    let attributes = &told.resource_spans[0].resource.as_ref().unwrap().attributes;
    let name = attributes.iter().find(|pair| pair.key == "service.name").unwrap().value.clone().unwrap();
    assert_eq!(name.value, Some(Value::StringValue("by-variable".to_owned())));
    request.answer("200 OK", &[]);
    let (_, shown) = broker.command(&["check", "--effective"]);
    assert!(!shown.contains("s3cr3t") && !broker.log().contains("s3cr3t"), "{shown}");
    broker.stop();

    // What is said for all programs of a machine turns it off.
    let broker = Broker::builder()
        .variable("OTEL_EXPORTER_OTLP_ENDPOINT", &format!("http://{}", collector.address()))
        .variable("OTEL_SDK_DISABLED", "true")
        .variable("OTEL_TRACES_SAMPLER", "always_on")
        .start();
    let mut press = Client::connect(&broker, Version::V311, "press");
    press.publish_acknowledged("plant/a", "x");
    assert!(!broker.stop_and_read().contains("export of traces ended"));
}

#[test]
fn grpc_is_refused_in_words_that_help() {
    let collector = HttpReceiver::start();
    let text = broker(&collector, "", "protocol = \"grpc\"").fails_to_start();
    assert!(text.contains("gRPC is not spoken here") && text.contains("http/protobuf"), "{text}");
    let text = Broker::builder().variable("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc").fails_to_start();
    assert!(
        text.contains("OTEL_EXPORTER_OTLP_PROTOCOL") && text.contains("gRPC is not spoken here"),
        "{text}"
    );
}

/// What the last line about the export counts.
#[track_caller]
fn count(log: &str, name: &str) -> u64 {
    let line =
        log.lines().find(|line| line.contains("export of traces ended")).unwrap_or_else(|| panic!("{log}"));
    let value: serde_json::Value = serde_json::from_str(line).unwrap();
    let fields = value.get("fields").unwrap_or(&value);
    fields[name].as_u64().unwrap_or_else(|| panic!("{name}: {line}"))
}

/// The collector isn't there at first: publishers don't notice, and what was traced meanwhile comes when it is.
#[test]
fn what_waits_for_a_collector_that_is_down_isn_t_lost() {
    let port = ClosedPort::new();
    let address = port.address();
    let section = format!(
        "[trace]\nratio = 1.0\n[trace.otlp]\nendpoint = \"http://{address}/v1/traces\"\nschedule_delay = \"20ms\"\nexport_timeout = \"10m\"\n"
    );
    let broker = Broker::builder().section(&section).start();
    let mut press = Client::connect(&broker, Version::V311, "press");
    press.publish_acknowledged("plant/0", "x");
    broker.logged("traces don't get to the collector");
    for n in 1..50 {
        press.publish_acknowledged(&format!("plant/{n}"), "x");
    }
    let collector = port.open();
    let spans = collect(&collector, |spans| operations(spans, "receive").len() == 50);
    let topics: std::collections::BTreeSet<_> =
        operations(&spans, "receive").iter().map(|span| text(span, "messaging.destination.name")).collect();
    assert_eq!(topics.len(), 50);
    broker.logged("the collector takes traces again");
    broker.stop();
}

#[test]
fn a_busy_collector_is_asked_again_and_one_that_refuses_is_not() {
    for (status, headers, is_again) in [
        ("429 Too Many Requests", &["retry-after: 1"][..], true),
        ("502 Bad Gateway", &[], true),
        ("503 Service Unavailable", &[], true),
        ("504 Gateway Timeout", &[], true),
        ("400 Bad Request", &[], false),
        ("500 Internal Server Error", &[], false),
        // Nobody follows it, so nobody there learns the headers.
        ("307 Temporary Redirect", &["location: /elsewhere"], false),
    ] {
        let collector = HttpReceiver::start();
        let broker = broker(&collector, "ratio = 1.0", "").start();
        let mut press = Client::connect(&broker, Version::V311, "press");
        press.publish_acknowledged("plant/first", "x");
        let is_first = |request: &ReceivedRequest| {
            spans_of(&read(request))
                .iter()
                .any(|span| text(span, "messaging.destination.name").as_deref() == Some("plant/first"))
        };
        // The span of the route may have left before it.
        let mut request = collector.next_request();
        while !is_first(&request) {
            request.answer("200 OK", &[]);
            request = collector.next_request();
        }
        let began = Instant::now();
        request.answer(status, headers);
        broker.logged(&format!("the collector answered {}", status.split(' ').next().unwrap()));
        press.publish_acknowledged("plant/second", "x");
        let next = collector.next_request();
        assert_eq!(is_first(&next), is_again, "{status}");
        assert!(status != "429 Too Many Requests" || began.elapsed().as_millis() >= 1_000, "{status}");
        next.answer("200 OK", &[]);
        broker.logged("the collector takes traces again");
        // Stopping waits for no client, and for no answer to what is exported last.
        press.leave();
        collector.answer_all(|_| ("200 OK", String::new()));
        broker.stop();
    }
}

#[test]
fn a_collector_that_hangs_costs_its_batch_and_nothing_else() {
    let collector = HttpReceiver::start();
    let keys = "timeout = \"200ms\"\nexport_timeout = \"1s\"\nmax_queued_spans = 4\nmax_batch_spans = 2";
    let broker = broker(&collector, "ratio = 1.0", keys).start();
    let mut press = Client::connect(&broker, Version::V311, "press");
    press.publish_acknowledged("plant/a", "x");
    // Not answered; whoever publishes goes on, though the queue has long been full.
    let hangs = collector.next_request();
    for _ in 0..100 {
        press.publish_acknowledged("plant/a", "x");
    }
    broker.logged("spans were dropped");
    drop(hangs);
    // It has gone on with the next batch.
    collector.answer_all(|_| ("200 OK", String::new()));
    broker.logged("the collector takes traces again");
    let log = broker.stop_and_read();
    // Each message makes two: its receipt and its route. Every span is counted once.
    let ended = ["exported", "dropped_full", "dropped_failed"].map(|name| count(&log, name));
    assert_eq!(ended.iter().sum::<u64>(), 202, "{ended:?}");
    assert!(ended[0] > 0 && ended[1] > 100 && ended[2] >= 2, "{ended:?}");
}

#[test]
fn what_waits_is_sent_when_the_gateway_stops_and_what_was_left_out_is_told() {
    let collector = HttpReceiver::start();
    let keys = "schedule_delay = \"5m\"\nheaders = { authorization = \"Bearer s3cr3t\" }";
    let section = format!(
        "[trace]\nratio = 1.0\n{}",
        otlp(&collector, keys).replace("schedule_delay = \"20ms\"\n", "")
    );
    let broker = Broker::builder().section(&section).start();
    let mut press = Client::connect(&broker, Version::V311, "press");
    press.publish_acknowledged("plant/a", "x");
    let (sender, answered) = std::sync::mpsc::channel();
    collector.answer_all(move |request| {
        sender
            .send((spans_of(&read(request)).len(), request.header("authorization").map(str::to_owned)))
            .unwrap();
        // One rejected, "old".
        ("200 OK", "\n\u{7}\u{8}\u{1}\u{12}\u{3}old".to_owned())
    });
    let log = broker.stop_and_read();
    let line = log
        .lines()
        .find(|line| line.contains("the collector left out spans"))
        .unwrap_or_else(|| panic!("{log}"));
    assert!(line.contains("\"old\""), "{line}");
    let (spans, header) = answered.recv_timeout(PATIENCE).unwrap();
    assert_eq!(header.as_deref(), Some("Bearer s3cr3t"));
    assert_eq!((count(&log, "exported"), count(&log, "rejected")), (spans as u64 - 1, 1));
    assert_eq!((count(&log, "dropped_full"), count(&log, "dropped_failed")), (0, 0));
    assert!(!log.contains("s3cr3t"));
}

#[test]
fn a_reload_moves_the_export_to_another_collector() {
    let (before, after) = (HttpReceiver::start(), HttpReceiver::start());
    let broker = broker(&before, "ratio = 1.0", "").start();
    let mut press = Client::connect(&broker, Version::V311, "press");
    press.publish_acknowledged("plant/a", "x");
    drop(collect(&before, |spans| operations(spans, "receive").len() == 1));
    let path = broker.folder().join("tidegate.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace(&before.address().to_string(), &after.address().to_string())).unwrap();
    broker.reload();
    broker.logged("trace.otlp.endpoint");
    broker.logged("rules reloaded");
    before.answer_all(|_| ("200 OK", String::new()));
    press.publish_acknowledged("plant/b", "x");
    let spans = collect(&after, |spans| operations(spans, "receive").len() == 1);
    let topic = text_of_topic(&operations(&spans, "receive")[0]);
    assert_eq!(topic, "plant/b");
    after.answer_all(|_| ("200 OK", String::new()));
    broker.stop();
}

fn text_of_topic(span: &Span) -> String {
    text(span, "messaging.destination.name").unwrap()
}
