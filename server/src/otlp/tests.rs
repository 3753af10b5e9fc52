use super::*;
use crate::config::{Environment, OtlpProtocol, load_text};

fn to(endpoint: &str) -> Otlp {
    Otlp { endpoint: Some(endpoint.to_owned()), ..Otlp::default() }
}

#[test]
fn an_endpoint_is_a_url_that_can_be_trusted() {
    for endpoint in [
        "https://collector:4318/v1/traces",
        "http://127.0.0.1:4318/v1/traces",
        "http://[::1]:4318/v1/traces",
        "http://localhost/v1/traces",
    ] {
        assert_eq!(check(&to(endpoint)), Ok(()), "{endpoint}");
        assert_eq!(warning(&to(endpoint)), None, "{endpoint}");
    }
    for endpoint in
        ["", "collector:4318", "/v1/traces", "ftp://h/", "https://", "https://u:s3cret@h/v1/traces"]
    {
        let (key, fault) = check(&to(endpoint)).unwrap_err();
        assert!(key == "endpoint" && !fault.contains("s3cret"), "{endpoint}: {fault}");
    }
    let plain = "http://collector:4318/v1/traces";
    assert!(check(&to(plain)).unwrap_err().1.contains("insecure_http"));
    let allowed = Otlp { insecure_http: true, ..to(plain) };
    assert_eq!(check(&allowed), Ok(()));
    assert!(warning(&allowed).unwrap().contains("without encryption"));
    assert!(warning(&to("https://collector:4318")).unwrap().contains("/v1/traces"));
    assert_eq!(warning(&Otlp { enabled: false, ..to("https://collector:4318") }), None);
}

#[test]
fn a_header_that_can_t_be_sent_is_refused_without_its_value() {
    let with = |name: &str, value: &str| {
        let text = format!(
            "[trace.otlp]\nendpoint = 'http://localhost/x'\nheaders = {{ \"{name}\" = \"{value}\" }}\n"
        );
        load_text(&text, None, &Environment::default())
    };
    assert!(with("x-key", "s3cret").is_ok());
    for (name, value) in
        [("x y", "s3cret"), ("x-key", "s3cret\\n"), ("Host", "s3cret"), ("content-type", "s3cret")]
    {
        let text = with(name, value).unwrap_err().render();
        assert!(text.contains("trace.otlp.headers") && !text.contains("s3cret"), "{text}");
    }
}

#[test]
fn limits_hold_to_their_ends() {
    let read = |text: &str| load_text(&format!("[trace.otlp]\n{text}\n"), None, &Environment::default());
    for (key, within, past) in [
        ("timeout", ["'100ms'", "'60s'"], ["'99ms'", "'61s'"]),
        ("export_timeout", ["'1s'", "'10m'"], ["'999ms'", "'601s'"]),
        ("schedule_delay", ["'10ms'", "'5m'"], ["'9ms'", "'301s'"]),
        ("max_queued_spans", ["1", "1000000"], ["0", "1000001"]),
        ("max_queued_memory", ["'64KiB'", "'1GiB'"], ["'63KiB'", "'1025MiB'"]),
        ("max_batch_spans", ["1", "10000"], ["0", "10001"]),
    ] {
        for value in within {
            assert!(read(&format!("{key} = {value}")).is_ok(), "{key} = {value}");
        }
        for value in past {
            let text = read(&format!("{key} = {value}")).unwrap_err().render();
            assert!(text.contains(&format!("trace.otlp.{key}")), "{text}");
        }
    }
    let attributes = |count: usize| {
        let all: Vec<String> = (0..count).map(|n| format!("a{n} = 'x'")).collect();
        read(&format!("resource_attributes = {{ {} }}", all.join(", ")))
    };
    assert!(attributes(64).is_ok() && attributes(65).is_err());
    let text = read("protocol = 'grpc'").unwrap_err().render();
    assert!(text.contains("gRPC is not spoken here"), "{text}");
    assert_eq!(read("protocol = 'http/json'").unwrap().config.trace.otlp.protocol, OtlpProtocol::HttpJson);
    assert!(read("protocol = 'zipkin'").is_err());
}

#[tokio::test]
async fn certificates_that_can_t_be_used_keep_everything_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    let config = Otlp { ca: Some(ca.clone()), ..to("https://collector:4318/v1/traces") };
    let exporter = Exporter::default();
    assert!(exporter.prepare(&config).unwrap_err().to_string().contains("ca.pem"));
    std::fs::write(&ca, "nothing").unwrap();
    assert!(exporter.prepare(&config).is_err());
    // Nobody asks where nothing is sent.
    assert!(exporter.prepare(&Otlp { enabled: false, ..config }).is_ok());
}

/// Spans go to a task only while there is somewhere to send them.
#[tokio::test]
async fn what_isn_t_sent_isn_t_taken() {
    let (exporter, tracer) = (Exporter::default(), Tracer::default());
    let finish =
        || tracer.finish(trace::Span::of(tracer.begin(trace::Why::Ratio), None, trace::Kind::Publish, "x"));
    exporter.apply(exporter.prepare(&Otlp::default()).unwrap(), &tracer);
    finish();
    assert_eq!(exporter.counts(), Counts::default());
    // Nobody listens there.
    let config =
        Otlp { schedule_delay: crate::config::Period::secs(300), ..to("http://127.0.0.1:9/v1/traces") };
    exporter.apply(exporter.prepare(&config).unwrap(), &tracer);
    finish();
    assert_eq!(exporter.counts().waiting, 1);
    // The same again changes nothing.
    exporter.apply(exporter.prepare(&config).unwrap(), &tracer);
    assert_eq!(exporter.counts().waiting, 1);
    exporter.close(&tracer, Duration::ZERO).await;
    finish();
    let counts = exporter.counts();
    assert_eq!((counts.waiting, counts.dropped_failed, counts.dropped_full), (0, 1, 0));
}
