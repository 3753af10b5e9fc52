//! Where a rendered URL may lead, and where a queued one may still go.

use super::connectors::{connectors, sink_by};
use super::*;

fn rendered(plan: &ActionPlan, url: &str) -> Result<HttpRequest, RenderError> {
    http(plan, &[("url", url.as_bytes())])
}

#[test]
fn a_rendered_host_is_one_of_the_allowed_ones() {
    let text = "type = 'http'\nname = 'a'\nurl = 'https://${tenant}.example.com/x'\nallowed_hosts = ['*.example.com', '10.0.0.7']";
    let plan = plan(text);
    for url in [
        "https://acme.example.com/x",
        "https://ACME.example.com/x",
        "https://%61cme.example.com/x",
        "https://acme.example.com:443/x",
        "https://10.0.0.7/x",
        "https://acme.example.com/@evil.example/",
        "https://acme.example.com/x?u=//evil.example#@evil.example",
    ] {
        assert!(rendered(&plan, url).is_ok(), "{url}: {:?}", rendered(&plan, url));
    }
    for url in [
        "https://.example.com/x",
        "https://example.com/x",
        "https://a.b.example.com/x",
        "https://evil.example/.example.com/x",
        "https://evil.example#.example.com/x",
        "https://evil.example?.example.com/x",
        "https://evil.example\\.example.com/x",
        "https://acme.example.com@evil.example/x",
        "https://user@acme.example.com/x",
        "https://user:pw@acme.example.com/x",
        "https://acme.example.com:8443/x",
        "http://acme.example.com/x",
        "ftp://acme.example.com/x",
        "https://evil.example%2F.example.com/x",
        "https://evil.example%23.example.com/x",
        "https://evil.example%40acme.example.com/x",
        "https://evil.example%5C.example.com/x",
        "https://evil.example%00.example.com/x",
        "https://acme.example.com./x",
        "https://acme.example.com.evil.example/x",
        "https://acme\u{3002}evil\u{ff0e}example.com/x",
        "https://ex\u{e4}mple.com/x",
        "https://169.254.169.254/x",
        "https://2852039166/x",
        "https://0xa9fea9fe/x",
        "https://0251.0376.0251.0376/x",
        "https://[::ffff:a9fe:a9fe]/x",
        "https://[fe80::1%25eth0]/x",
        "https://10.0.0.8/x",
        "https:///x",
        "//acme.example.com/x",
        "/x",
        "",
    ] {
        assert!(
            matches!(rendered(&plan, url), Err(RenderError::Url { .. })),
            "{url}: {:?}",
            rendered(&plan, url)
        );
    }
}

#[test]
fn a_rendered_path_is_a_path() {
    let plan = plan("type = 'http'\nname = 'a'\nconnector = 'ops'\nurl = '/alarms/${x}'");
    assert_eq!(
        rendered(&plan, "/alarms/a%2Fb?q=1").unwrap().url,
        RequestUrl::Path("/alarms/a%2Fb?q=1".to_owned())
    );
    for url in [
        "//evil.example/",
        "alarms/1",
        "https://evil.example/",
        "/alarms/../x",
        "/alarms/%2e%2e/x",
        "/a b",
        "/a\\b",
        "/a\r\nb",
        "",
    ] {
        assert!(matches!(rendered(&plan, url), Err(RenderError::Url { .. })), "{url}");
    }
}

#[test]
fn refuses_urls_that_need_a_list_or_a_connector() {
    for (text, expected) in [
        ("url = 'https://${x}.example.com/'", "url: the host must be literal, unless allowed_hosts says"),
        ("url = '/x'", "url: a path needs a connector"),
        (
            "url = 'https://other.example/'\nallowed_hosts = ['a.example.com']",
            "url: \"other.example\" is none of the allowed hosts",
        ),
        ("url = 'https://${x}/'\nallowed_hosts = ['*']", "\"*\" is no host"),
        (
            "url = '/x'\nconnector = 'ops'\nallowed_hosts = ['a.example.com']",
            "allowed_hosts: with a connector its own list counts",
        ),
    ] {
        let refusal = refusal(&format!("type = 'http'\nname = 'a'\n{text}"));
        assert!(refusal.contains(expected), "{text}: {refusal}");
    }
    let host = |n: usize| format!("'h{n}.example.com'");
    let list = |count: usize| (0..count).map(host).collect::<Vec<_>>().join(", ");
    let text = |count| {
        format!(
            "type = 'http'\nname = 'a'\nurl = 'https://h0.example.com/'\nallowed_hosts = [{}]",
            list(count)
        )
    };
    ActionPlan::new("rule", &config(&text(256))).unwrap();
    assert!(refusal(&text(257)).contains("allowed_hosts: 257 given, more than the limit of 256"));
}

fn queued(url: &str) -> HttpRequest {
    let request = http(&plan("type = 'http'\nname = 'a'\nurl = 'http://h/'"), &[]).unwrap();
    HttpRequest { url: RequestUrl::Absolute(url.parse().unwrap()), ..request }
}

#[tokio::test]
async fn a_queued_request_is_judged_by_its_own_host() {
    // The settings name a host that may be reached; the request was queued with another one.
    let (sink, _) = sink_with("type = 'http'\nname = 'a'\nurl = 'http://192.0.2.1/'", neighbours());
    for url in ["http://169.254.169.254/", "http://10.0.0.1/", "http://[fe80::1]/"] {
        let error = one(&sink, queued(url)).await.expect_err(url);
        assert!(matches!(error, DeliveryError::Forbidden(_)), "{url}: {error:?}");
    }
    // And it goes where it was queued for, port and all.
    let server = Server::start(vec![status("200 OK", "", "")]).await;
    one(&sink, queued(&format!("http://localhost:{}/x", server.address.port()))).await.unwrap();
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn the_admin_interface_is_out_of_reach_for_queued_requests_too() {
    let server = Server::start(vec![status("200 OK", "", "")]).await;
    let targets = TargetPolicy { admin: vec![server.address], ..neighbours() };
    let (sink, _) = sink_with("type = 'http'\nname = 'a'\nurl = 'http://localhost:1/'", targets);
    for host in ["localhost", "127.0.0.1"] {
        let error =
            one(&sink, queued(&format!("http://{host}:{}/", server.address.port()))).await.unwrap_err();
        assert!(error.to_string().contains("admin interface"), "{host}: {error}");
    }
    assert_eq!(server.seen().len(), 0);
}

#[tokio::test]
async fn credentials_go_to_no_host_that_was_queued_before() {
    let server = Server::start(vec![status("200 OK", "", "")]).await;
    let auth = "auth = { type = 'bearer', token = 't' }";
    let based = connectors(&format!("[ops]\ntype = 'http'\nurl = 'https://ops.example'\n{auth}"));
    let (sink, _) = sink_by(super::connectors::BY_OPS, &based);
    let there = format!("http://{}/x", server.address);
    let error = one(&sink, queued(&there)).await.unwrap_err();
    assert!(matches!(error, DeliveryError::HostNotAllowed { .. }), "{error:?}");
    assert!(!error.is_retriable());

    let listed = connectors(&format!("[ops]\ntype = 'http'\nallowed_hosts = ['*.example.com']\n{auth}"));
    let action = "type = 'http'\nname = 'a'\nconnector = 'ops'\nurl = 'https://${x}.example.com/'";
    let ActionConfig::Http(settings) = config(action) else { panic!() };
    let sink = HttpSink::new("rule", &settings, Arc::new(neighbours()), &listed).unwrap();
    let error = one(&sink, queued(&there)).await.unwrap_err();
    assert!(matches!(error, DeliveryError::HostNotAllowed { .. }), "{error:?}");

    // A path without a connector leads nowhere.
    let (sink, request) = sink_with("type = 'http'\nname = 'a'\nurl = 'http://127.0.0.1/'", neighbours());
    let lost = HttpRequest { url: RequestUrl::Path("/x".to_owned()), ..request };
    assert!(matches!(one(&sink, lost).await, Err(DeliveryError::HostNotAllowed { .. })));
    assert_eq!(server.seen().len(), 0);
}
