//! Actions that go where their connector says.

use super::*;

fn connectors_of(text: &str, before: &Connectors) -> Connectors {
    let configs: BTreeMap<String, ConnectorConfig> = toml::from_str(text).unwrap();
    Connectors::load(&configs, &settings().targets, before).unwrap()
}

const CONNECTED: &str = r#"
[rules.r]
sql = "SELECT v FROM 'in/#'"
[[rules.r.actions]]
name = "ops"
type = "http"
connector = "ops"
url = "/in/${topic(2)}"
retry = { initial_backoff = "1ms", max_backoff = "2ms" }
"#;

#[tokio::test]
async fn a_changed_connector_counts_for_what_is_queued() {
    let (closed, _socket) = unused_address();
    let at = |address: SocketAddr| format!("[ops]\ntype = 'http'\nurl = 'http://{address}'\n");
    let before = connectors_of(&at(closed), &Connectors::default());
    let set = rules(CONNECTED);
    let pipeline =
        RulePipeline::new(&set, &PipelineSettings { connectors: before.clone(), ..settings() }).unwrap();
    for n in 0..3 {
        Message::new("in/x", format!("{{\"v\":{n}}}").as_bytes()).run(&pipeline);
    }
    let (address, mut bodies) = server("200 OK").await;
    let after = connectors_of(&at(address), &pipeline.connectors());
    pipeline.replace_all(&set, &settings().targets, &after).unwrap();
    for n in 0..3 {
        assert_eq!(bodies.recv().await.unwrap(), format!("{{\"v\":{n}}}"));
    }
    assert!(pipeline.connectors().is_same(&after));
}

#[tokio::test]
async fn a_range_that_is_allowed_later_lets_later_requests_through() {
    let (address, mut bodies) = server("200 OK").await;
    let set = rules(&http_rule(address, ""));
    let pipeline = RulePipeline::new(&set, &PipelineSettings::default()).unwrap();
    let (sender, mut published) = mpsc::channel(10);
    pipeline.attach(Arc::new(Published(sender)));
    Message::new("in/x", b"{\"v\":1}").run(&pipeline);
    let document = published.recv().await.unwrap();
    let text = String::from_utf8(document.payload.to_vec()).unwrap();
    assert!(text.contains("allow_private"), "{text}");
    pipeline.replace_all(&set, &settings().targets, &Connectors::default()).unwrap();
    Message::new("in/x", b"{\"v\":2}").run(&pipeline);
    assert_eq!(bodies.recv().await.unwrap(), "{\"v\":2}");
}

#[tokio::test]
async fn a_connector_that_is_gone_is_refused_and_what_ran_goes_on() {
    let (address, mut bodies) = server("200 OK").await;
    let connectors =
        connectors_of(&format!("[ops]\ntype = 'http'\nurl = 'http://{address}'\n"), &Connectors::default());
    let set = rules(CONNECTED);
    let pipeline = RulePipeline::new(&set, &PipelineSettings { connectors, ..settings() }).unwrap();
    let error = pipeline.replace_all(&set, &settings().targets, &Connectors::default()).unwrap_err();
    let PipelineError::Action { rule, source } = error else { panic!("{error}") };
    assert_eq!((rule.as_str(), source.field()), ("r", "connector"));
    Message::new("in/x", b"{\"v\":1}").run(&pipeline);
    assert_eq!(bodies.recv().await.unwrap(), "{\"v\":1}");
}

#[test]
fn an_action_without_its_connector_is_told_with_its_place() {
    let set = rules(CONNECTED);
    let [fault] = set.unconnected(&Connectors::default()).try_into().unwrap();
    assert_eq!(
        fault.to_string(),
        "rules.d/test.toml:7:13: rule \"r\", action \"ops\": connector: the configuration has no [connectors.ops]; there is none"
    );
    let fine = connectors_of("[ops]\ntype = 'http'\nurl = 'https://h'\n", &Connectors::default());
    assert!(set.unconnected(&fine).is_empty());
}

#[test]
fn a_rule_holds_no_credentials_of_connectors() {
    let with = |line: &str| CONNECTED.replace("url = ", &format!("{line}\nurl = "));
    for line in [
        "auth = { type = 'bearer', token = 't' }",
        "proxy = 'http://p:1'",
        "tls = { ca_file = 'f' }",
        "allow_private = ['::1']",
    ] {
        let text = with(line);
        let errors =
            RuleSet::from_texts([(Path::new("f.toml"), text.as_str())], &Limits::default()).unwrap_err();
        assert!(errors[0].message.contains("unknown field"), "{line}: {}", errors[0]);
    }
    for line in ["connector = '${env:OPS}'", "allowed_hosts = ['${file:x}']"] {
        let text =
            CONNECTED.replace("connector = \"ops\"\n", "").replace("url = ", &format!("{line}\nurl = "));
        let errors =
            RuleSet::from_texts([(Path::new("f.toml"), text.as_str())], &Limits::default()).unwrap_err();
        assert!(!errors.is_empty(), "{line}");
    }
}
