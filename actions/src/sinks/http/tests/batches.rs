//! Bodies that go together, and what an answer means by the action's own lists.

use super::*;
use crate::outlet::QueuedRequest as _;

fn id(sequence: u64) -> ItemId {
    ItemId { store: 0xab, epoch: 3, sequence }
}

fn envelopes(plan: &ActionPlan, bodies: &[&str]) -> Vec<Arc<Envelope<HttpRequest>>> {
    let request = |body: &str| match plan.render(&mut FakeRenderer::new(plan, &[("body", body.as_bytes())])) {
        Ok(Request::Http(request)) => request,
        other => panic!("{other:?}"),
    };
    let envelope =
        |(body, sequence): (&&str, u64)| Arc::new(Envelope::new(id(sequence), request(body), None));
    bodies.iter().zip(1..).map(envelope).collect()
}

#[tokio::test]
async fn bodies_become_an_array_or_lines() {
    for (format, body, media_type) in [
        ("json_array", "[{\"a\":1},2,[\n3 ]]", "application/json"),
        ("json_lines", "{\"a\":1}\n2\n[ 3 ]\n", "application/x-ndjson"),
    ] {
        let server = Server::start(vec![status("200 OK", "", "")]).await;
        let text = to(&server, &format!("batch = {{ format = '{format}' }}\nbody = '${{b}}'"));
        let (sink, _) = sink_with(&text.replace("body = '${b}'", "body = '1'"), neighbours());
        let batch = envelopes(&plan(&text), &["{\"a\":1}", "2", "[\n3 ]"]);
        assert_eq!(sink.deliver(&batch).await, [Ok(()), Ok(()), Ok(())]);
        let [seen] = server.seen().try_into().unwrap();
        assert_eq!(String::from_utf8(seen.body.clone()).unwrap(), body);
        assert_eq!(seen.header("content-type"), Some(media_type));
    }
}

#[tokio::test]
async fn a_key_belongs_to_exactly_the_items_of_its_batch() {
    let server = Server::start(vec![status("200 OK", "", "")]).await;
    let text = to(&server, "batch = {}\nbody = '1'");
    let (sink, _) = sink_with(&text, neighbours());
    let all = envelopes(&plan(&text), &["1", "2", "3", "4"]);
    let other = [Arc::clone(&all[0]), Arc::clone(&all[2])];
    for batch in [&all[..1], &all[..2], &all[..2], &all[..4], &other[..]] {
        assert!(sink.deliver(batch).await.iter().all(Result::is_ok));
    }
    let seen = server.seen();
    assert_eq!(seen[0].body, b"[1]", "a batch of one is one too");
    let keys: Vec<_> = seen.iter().map(|seen| seen.header("idempotency-key").unwrap().to_owned()).collect();
    assert_eq!(keys[0], "00000000000000ab.3-1.rule.a");
    assert!(keys[1].starts_with("00000000000000ab.3-1+1.") && keys[1].ends_with(".rule.a"), "{keys:?}");
    assert_eq!(keys[1], keys[2]);
    assert!(keys[3].starts_with("00000000000000ab.3-1+3."));
    assert_ne!(keys[1], keys[4], "the same first item and count, but other items");
}

#[tokio::test]
async fn all_items_of_a_batch_share_its_answer() {
    let server = Server::start(vec![status("503 Busy", "Retry-After: 7\r\n", "")]).await;
    let text = to(&server, "batch = {}\nbody = '1'");
    let (sink, _) = sink_with(&text, neighbours());
    let results = sink.deliver(&envelopes(&plan(&text), &["1", "2"])).await;
    assert_eq!(results[0], results[1]);
    assert_eq!(results[0].as_ref().unwrap_err().retry_after(), Some(Duration::from_secs(7)));
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn items_that_were_queued_alone_go_alone() {
    let server = Server::start(vec![status("200 OK", "", ""), status("500 Oops", "", "")]).await;
    let alone = to(&server, "body = '1'");
    let (sink, _) = sink_with(&to(&server, "batch = {}\nbody = '1'"), neighbours());
    let results = sink.deliver(&envelopes(&plan(&alone), &["no json", "2", "3"])).await;
    assert!(results[0].is_ok() && results[1].is_err(), "{results:?}");
    assert_eq!(results[2], Err(DeliveryError::NotAttempted));
    let bodies: Vec<_> = server.seen().iter().map(|seen| seen.body.clone()).collect();
    assert_eq!(bodies, [b"no json".to_vec(), b"2".to_vec()]);
}

#[test]
fn only_requests_that_differ_in_their_bodies_alone_go_together() {
    let batched = plan(
        "type = 'http'\nname = 'a'\nurl = 'http://h/${x}'\nbatch = {}\nmethod = '${m}'\nheaders = { X-A = '${a}' }",
    );
    let request = |url: &str, method: &str, header: &str| {
        let values =
            [("url", url.as_bytes()), ("method", method.as_bytes()), ("headers.X-A", header.as_bytes())];
        http(&batched, &values).unwrap()
    };
    let first = request("http://h/1", "POST", "a");
    assert!(request("http://h/1", "POST", "a").goes_with(&first));
    for other in [
        request("http://h/2", "POST", "a"),
        request("http://h/1", "PUT", "a"),
        request("http://h/1", "POST", "b"),
    ] {
        assert!(!other.goes_with(&first));
    }
    let alone = http(&plan("type = 'http'\nname = 'a'\nurl = 'http://h/1'"), &[]).unwrap();
    assert!(!alone.goes_with(&alone.clone()));
}

#[test]
fn a_batch_takes_json_only() {
    let plan = plan("type = 'http'\nname = 'a'\nurl = 'http://h/'\nbatch = {}\nbody = '${b}'");
    assert!(http(&plan, &[("body", b"{}")]).unwrap().is_batch_item);
    for body in [&b"a=1"[..], b"", b"{} {}", b"\xff"] {
        let error = http(&plan, &[("body", body)]).unwrap_err();
        assert!(matches!(&error, RenderError::Value { field, .. } if field == "body"), "{error:?}");
    }
    let raw = super::plan("type = 'http'\nname = 'a'\nurl = 'http://h/'\nbatch = {}");
    assert!(raw.render(&mut FakeRenderer::new(&raw, &[]).with_output(b"\xff")).is_err());
}

#[test]
fn a_batch_of_its_largest_size_is_no_byte_larger() {
    let ActionConfig::Http(settings) =
        config("type = 'http'\nname = 'a'\nurl = 'http://h/'\nbatch = { max_bytes = '1KiB' }")
    else {
        panic!()
    };
    let sink = HttpSink::new("rule", &settings, Arc::default(), &Connectors::default()).unwrap();
    let policy = sink.batch_policy();
    let plan = plan("type = 'http'\nname = 'a'\nurl = 'http://h/'\nbatch = {}\nbody = '${b}'");
    let body = format!("\"{}\"", "x".repeat(1_024 - "[1,]".len() - 2));
    let batch = envelopes(&plan, &["1", &body]);
    let bytes: usize = batch.iter().map(|item| item.request.batch_bytes()).sum();
    assert_eq!(bytes, policy.max_bytes, "two items fill it");
    assert_eq!(super::super::sink::together(super::super::BatchFormat::JsonArray, &batch).len(), 1_024);
}

#[tokio::test]
async fn statuses_mean_what_the_action_says() {
    let lists = "retry_on = [409, 302]\nreject_on = [503, 401]\ndisable_on = [404]";
    use AnswerClass::{Disable, Reject, Retry};
    for (line, expected) in [
        ("409 Conflict", Retry),
        ("302 Found", Retry),
        ("503 Busy", Reject),
        ("401 No", Reject),
        ("404 Not Found", Disable),
        ("500 Oops", Retry),
        ("400 Bad", Reject),
        ("403 Forbidden", Disable),
    ] {
        let server = Server::start(vec![status(line, "", "")]).await;
        let error = attempt(&to(&server, lists), neighbours()).await.expect_err(line);
        let DeliveryError::Answered { class, .. } = error else { panic!("{line}: {error:?}") };
        assert_eq!(class, expected, "{line}");
    }
}

#[test]
fn refuses_batches_rates_and_statuses_out_of_range() {
    for (text, expected) in [
        ("batch = { max_items = 0 }", "batch.max_items: expected 1 to 10000"),
        ("batch = { max_items = 10001 }", "batch.max_items: expected 1 to 10000"),
        ("batch = { max_bytes = '1023B' }", "batch.max_bytes: expected 1KiB to 16MiB"),
        ("batch = { max_bytes = '16777217B' }", "batch.max_bytes: expected 1KiB to 16MiB"),
        ("batch = { linger = '60001ms' }", "batch.linger: expected at most 1m"),
        ("batch = { format = 'csv' }", "unknown variant `csv`"),
        ("batch = { size = 1 }", "unknown field `size`"),
        ("max_per_second = 0", "max_per_second: expected 1 to 100000"),
        ("max_per_second = 100001", "max_per_second: expected 1 to 100000"),
        ("retry_on = [200]", "retry_on: expected statuses from 300 to 599, given 200"),
        ("reject_on = [600]", "reject_on: expected statuses from 300 to 599, given 600"),
        ("retry_on = [409]\ndisable_on = [409]", "disable_on: 409 is given twice"),
        ("retry = { disabled_pause = '999ms' }", "retry.disabled_pause: expected 1s to 1d"),
    ] {
        let refusal = refusal(&format!("type = 'http'\nname = 'a'\nurl = 'http://h/'\n{text}"));
        assert!(refusal.contains(expected), "{text}: {refusal}");
    }
    for text in [
        "batch = { max_items = 10000, max_bytes = '16MiB', linger = '1m' }",
        "batch = { max_items = 1, max_bytes = '1KiB', linger = '0s' }",
        "max_per_second = 100000",
        "retry_on = [300]\nreject_on = [599]",
    ] {
        plan(&format!("type = 'http'\nname = 'a'\nurl = 'http://h/'\n{text}"));
    }
}

#[tokio::test]
async fn nothing_is_decompressed() {
    // "hello" in gzip.
    let zipped = "\u{1f}\u{8b}";
    let server = Server::start(vec![status("400 Bad", "Content-Encoding: gzip\r\n", zipped)]).await;
    let error = attempt(&to(&server, ""), neighbours()).await.unwrap_err().to_string();
    assert!(error.contains("\\u{1f}"), "{error}");
    assert_eq!(server.seen()[0].header("accept-encoding"), None);
}

#[tokio::test]
async fn an_answer_as_long_as_its_limit_keeps_the_connection() {
    let server = Server::start(vec![status("200 OK", "", &"x".repeat(1_024))]).await;
    let (sink, request) = sink_with(&to(&server, "max_answer = '1KiB'"), neighbours());
    for _ in 0..2 {
        one(&sink, request.clone()).await.unwrap();
    }
    assert_eq!(server.seen().iter().map(|seen| seen.connection).collect::<Vec<_>>(), [0, 0]);
}

#[tokio::test]
async fn one_byte_past_the_limit_costs_the_connection() {
    // More was announced, and never comes: who would wait for it would wait for ten minutes.
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n";
    let server = Server::start(vec![Reply::Stall(format!("{head}{}", "x".repeat(1_025)))]).await;
    let (sink, request) = sink_with(&to(&server, "max_answer = '1KiB'\ntimeout = '10m'"), neighbours());
    one(&sink, request).await.unwrap();
    server.hung_up.acquire().await.unwrap().forget();
}
