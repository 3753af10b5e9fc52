//! Rule files as text, the pipeline against single messages, and the pipeline inside a real broker.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use actions::config::ConnectorConfig;
use actions::{Connectors, DropReason, TargetPolicy};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use broker::{
    Broker, BrokerConfig, HookEffects, Identity, InternalPublish, MessageHook as _, Progress, Publication,
    Publisher as Client, Republish, Trail,
};
use mqtt_protocol::{PublishProperties, QoS};
use rules_sql::Limits;
use serde_json::{Value, json};
use store::{DurableStore, FaultDisk, MessageId, QueueKey, Record, Store as _, StoreOptions};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::*;

const OVERHEAT: &str = r#"
[rules.overheat]
sql = '''
SELECT deviceId, temperature AS t, topic(2) AS site FROM 'sensors/+/temp' WHERE temperature > 60
'''
dialect = "aws"
description = "Too hot"
tags = ["demo"]

[[rules.overheat.actions]]
name = "alarm"
type = "republish"
topic = "alarms/${topic(2)}"
qos = 1

[rules.overheat.error_action]
type = "republish"
topic = "errors/overheat"
"#;

#[track_caller]
fn rules(text: &str) -> RuleSet {
    match RuleSet::from_texts([(Path::new("rules.d/test.toml"), text)], &Limits::default()) {
        Ok(rules) => rules,
        Err(errors) => panic!("{}", errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")),
    }
}

fn pipeline(text: &str) -> RulePipeline {
    RulePipeline::new(&rules(text), &settings()).unwrap()
}

/// Settings that let actions reach this machine, where the servers of the tests are.
fn settings() -> PipelineSettings {
    let allow_private = vec!["127.0.0.0/8".parse().unwrap()];
    PipelineSettings {
        targets: TargetPolicy { allow_private, ..TargetPolicy::default() },
        ..Default::default()
    }
}

fn client(client_id: &str) -> Arc<Client> {
    Arc::new(Client {
        client_id: client_id.into(),
        identity: Arc::new(Identity { username: Some("user".into()), ..Identity::default() }),
        address: "192.0.2.7:999".parse().unwrap(),
        listener: "tcp".into(),
    })
}

/// A message to run rules on.
struct Message<'a> {
    topic: &'a str,
    payload: &'a [u8],
    properties: Vec<u8>,
    publisher: Option<Arc<Client>>,
    trail: Trail,
    sequence: u64,
}

impl<'a> Message<'a> {
    fn new(topic: &'a str, payload: &'a [u8]) -> Self {
        let publisher = Some(client("dev-1"));
        Self { topic, payload, properties: vec![], publisher, trail: Trail::default(), sequence: 1 }
    }

    fn publication(&'a self) -> Publication<'a> {
        Publication {
            id: MessageId { store: 0xab, epoch: 1, sequence: self.sequence },
            namespace: 0,
            topic: self.topic,
            payload: self.payload,
            qos: QoS::AtLeastOnce,
            retain: false,
            properties: &self.properties,
            expires_at_ms: None,
            received_at_ms: 1_700_000_000_000,
            publisher: self.publisher.as_ref(),
            trail: &self.trail,
        }
    }

    /// Runs the message through the rules, with as many turns as they ask for, and admits it.
    fn run(&self, pipeline: &RulePipeline) -> Vec<Republish> {
        let effects = self.effects(pipeline);
        effects.admitted.into_iter().for_each(|admitted| admitted());
        effects.republish
    }

    /// What the rules want done. Dropped, the message was refused.
    fn effects(&self, pipeline: &RulePipeline) -> HookEffects {
        let mut effects = HookEffects::default();
        let Some(handler) = pipeline.candidates(self.topic) else { return effects };
        let mut cursor = 0;
        while handler.handle(&self.publication(), &mut cursor, &mut effects) == Progress::Yield {}
        effects
    }
}

fn stats(pipeline: &RulePipeline, rule: &str) -> RuleStats {
    pipeline.stats().into_iter().find(|stats| stats.name == rule).unwrap()
}

fn document(republish: &Republish) -> Value {
    serde_json::from_slice(&republish.payload).unwrap()
}

// ---- files

#[test]
fn reads_the_rule_of_the_manual() {
    let set = rules(OVERHEAT);
    let [rule] = set.iter().collect::<Vec<_>>().try_into().unwrap();
    assert_eq!((rule.name.as_str(), rule.enabled, rule.description.as_str()), ("overheat", true, "Too hot"));
    assert_eq!(rule.filters(), ["sensors/+/temp"]);
    assert_eq!(rule.action_names().collect::<Vec<_>>(), ["alarm"]);
    assert_eq!(rule.tags, ["demo"]);
}

#[test]
fn says_where_a_file_is_wrong_and_what_was_expected() {
    let rule = "[rules.r]\nsql = \"SELECT * FROM 'a'\"\n";
    let action = "[[rules.r.actions]]\nname = 'a'\ntype = 'republish'\ntopic = 't'\n";
    for (text, expected) in [
        ("x = 1".to_owned(), "test.toml:1:1: unknown key \"x\"; expected tables named [rules.<name>]"),
        ("rules = 1".to_owned(), "test.toml:1:9: expected tables named [rules.<name>]"),
        ("[rules.r\n".to_owned(), "test.toml:1:"),
        ("[rules.r]\n".to_owned(), "test.toml:1:1: rule \"r\": missing field `sql`"),
        (
            "[rules.\"a b\"]\nsql = 'x'".to_owned(),
            "test.toml:1:8: rule \"a b\": a rule's name is 1 to 64 letters",
        ),
        (rule.to_owned(), "test.toml:1:8: rule \"r\": has no action; expected [[rules.r.actions]]"),
        (format!("{rule}colour = 'red'\n{action}"), "test.toml:3:1: rule \"r\": unknown field `colour`"),
        (
            format!("{rule}enabled = 'yes'\n{action}"),
            "test.toml:3:11: rule \"r\": invalid type: string \"yes\"",
        ),
        (format!("{rule}dialect = 'sql92'\n{action}"), "test.toml:3:11: rule \"r\": unknown variant `sql92`"),
        (
            format!("{rule}[rules.r.actions]\nx = 1"),
            "rule \"r\": expected [[rules.r.actions]], a list of tables",
        ),
        (
            format!("{rule}[[rules.r.actions]]\nname = 'a'"),
            "test.toml:3:1: rule \"r\", action \"a\": has no type; expected type = \"republish\", \"http\", \"log\"",
        ),
        (
            format!("{rule}[[rules.r.actions]]\nname = 'a'\ntype = 'htttp'"),
            "test.toml:5:8: rule \"r\", action \"a\": unknown type \"htttp\"",
        ),
        (
            format!("{rule}{action}on_remove = 'x'"),
            "test.toml:7:13: rule \"r\", action \"a\": on_remove: expected \"drain\", \"dead_letter\" or \"purge\"",
        ),
        (format!("{rule}{action}qoss = 1"), "test.toml:7:1: rule \"r\", action \"a\": unknown field `qoss`"),
        (
            format!("{rule}{action}qos = 3"),
            "test.toml:7:7: rule \"r\", action \"a\": qos: expected 0, 1, 2 or a template",
        ),
        (
            format!("{rule}{action}{action}"),
            "test.toml:7:1: rule \"r\", action \"a\": the rule has an action of this name already",
        ),
        (
            format!("{rule}[[rules.r.actions]]\ntype = 'log'"),
            "rule \"r\": action name \"\": expected 1 to 64",
        ),
        (
            format!("{rule}[[rules.r.actions]]\ntype = 'log'\nname = 'error_action'"),
            "the name \"error_action\" is the error action's own",
        ),
        (
            format!("{rule}{action}[rules.r.error_action]\ntype = 'log'\nname = 'x'"),
            "an error action has no name of its own",
        ),
        (
            format!(
                "{rule}[[rules.r.actions]]\nname = 'a'\ntype = 'http'\nurl = 'http://h/'\nheaders = {{ X-A = \"a\\nb\" }}"
            ),
            "test.toml:7:19: rule \"r\", action \"a\": headers.X-A: expected a header value",
        ),
        (
            format!(
                "{rule}[[rules.r.actions]]\nname = 'a'\ntype = 'http'\nurl = 'http://h/'\n[rules.r.actions.queue]\nmax_items = 0"
            ),
            "test.toml:8:13: rule \"r\", action \"a\": queue.max_items: expected 1 to",
        ),
    ] {
        let errors =
            RuleSet::from_texts([(Path::new("rules.d/test.toml"), text.as_str())], &Limits::default())
                .expect_err(&text);
        let shown = errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        assert!(shown.contains(expected), "{text}\n-- gave --\n{shown}\n-- expected --\n{expected}");
    }
}

#[test]
fn says_where_in_the_sql_or_template_the_fault_is() {
    let text = "[rules.r]\nsql = '''\nSELECT *\nFROM 'a'\nWHERE nosuch(x) > 1\n'''\n[[rules.r.actions]]\nname = 'a'\ntype = 'republish'\ntopic = 't'\n";
    let errors = RuleSet::from_texts([(Path::new("f.toml"), text)], &Limits::default()).unwrap_err();
    assert_eq!((errors[0].line, errors[0].column), (Some(5), Some(7)), "{}", errors[0]);
    assert!(errors[0].message.starts_with("[R"), "{}", errors[0]);
    assert!(errors[0].detail.is_some());

    let text = "[rules.r]\nsql = \"SELECT * FROM 'a'\"\n[[rules.r.actions]]\nname = 'a'\ntype = 'republish'\ntopic = 't/${nosuch(x)}'\n";
    let errors = RuleSet::from_texts([(Path::new("f.toml"), text)], &Limits::default()).unwrap_err();
    assert_eq!(errors[0].line, Some(6), "{}", errors[0]);
    assert_eq!(errors[0].action.as_deref(), Some("a"));
    assert!(errors[0].message.starts_with("topic: [R"), "{}", errors[0]);
}

/// A rule's author could select a secret into an output, so nothing in a rule reads one.
#[test]
fn references_to_secrets_are_refused_anywhere_in_a_rule() {
    let rule = |sql: &str, action: &str| {
        format!("[rules.r]\nsql = \"{sql}\"\n[[rules.r.actions]]\nname = 'a'\n{action}\n")
    };
    let republish = "type = 'republish'\ntopic = 't'";
    let http = "type = 'http'\nurl = 'http://h/'";
    let select = "SELECT * FROM 'a'";
    for (text, place) in [
        (rule("SELECT '${env:HOME}' AS x FROM 'a'", republish), "test.toml:2:16: rule \"r\": sql"),
        (rule("SELECT ${file:/etc/passwd} FROM 'a'", republish), "test.toml:2:15: rule \"r\": sql"),
        (rule("SELECT * FROM 'a/${env:SITE}'", republish), "test.toml:2:25: rule \"r\": sql"),
        (
            rule(select, "type = 'republish'\ntopic = 't/${env:SITE}'"),
            "test.toml:6:12: rule \"r\", action \"a\": topic",
        ),
        (
            rule(select, &format!("{republish}\npayload = '${{ file : secret }}'")),
            "test.toml:7:12: rule \"r\", action \"a\": payload",
        ),
        (
            rule(select, &format!("{http}\nbody = '''\n{{\"a\": \"é\",\n \"b\": \"x${{env:HOME}}\"}}'''")),
            "test.toml:9:9: rule \"r\", action \"a\": body",
        ),
        (
            rule(select, &format!("{http}\nbody = \"${{concat('${{env:HOME}}')}}\"")),
            "test.toml:7:19: rule \"r\", action \"a\": body",
        ),
        (
            rule(select, &format!("{http}\nheaders = {{ X-Key = '${{env:KEY}}' }}")),
            "test.toml:7:22: rule \"r\", action \"a\": headers.X-Key",
        ),
        (rule(select, "type = 'http'\nurl = '${env:URL}'"), "test.toml:6:8: rule \"r\", action \"a\": url"),
        (
            format!(
                "{}[rules.r.error_action]\ntype = 'log'\nmessage = '${{file:x}}'\n",
                rule(select, republish)
            ),
            "test.toml:9:12: rule \"r\", action \"error_action\": message",
        ),
    ] {
        let errors =
            RuleSet::from_texts([(Path::new("rules.d/test.toml"), text.as_str())], &Limits::default())
                .expect_err(&text);
        let [error] = errors.as_slice() else { panic!("{text}\n{errors:?}") };
        let expected = format!("{place}: `${{env:…}}` and `${{file:…}}` stand only in the configuration");
        assert!(error.to_string().contains(&expected), "{text}\n{error}\n{expected}");
    }
}

#[tokio::test]
async fn what_only_looks_like_a_reference_is_text() {
    let pipeline = pipeline(
        r#"
        [rules.r]
        sql = "SELECT env, file FROM 'in'"
        description = "not for ${env:HOME}"
        [[rules.r.actions]]
        name = "a"
        type = "republish"
        topic = "out"
        payload = "$${env:HOME} ${env} ${file.x} $env:HOME {file:x}"
        "#,
    );
    let message = Message::new("in", br#"{"env":1,"file":{"x":2}}"#);
    let [republish] = message.run(&pipeline).try_into().unwrap();
    assert_eq!(String::from_utf8(republish.payload).unwrap(), "${env:HOME} 1 2 $env:HOME {file:x}");
}

#[test]
fn reports_every_fault_of_every_file_at_once() {
    let (one, two) = (Path::new("one.toml"), Path::new("two.toml"));
    let bad = "[rules.a]\nsql = 'SELEKT'\n[rules.b]\nsql = 1\n";
    let dup = format!("{OVERHEAT}\n[rules.c]\nsql = 'no'\n");
    let errors = RuleSet::from_texts([(one, bad), (two, dup.as_str()), (one, OVERHEAT)], &Limits::default())
        .unwrap_err();
    let rules: Vec<_> =
        errors.iter().map(|error| (error.file.as_path(), error.rule.as_deref().unwrap())).collect();
    assert_eq!(rules, [(one, "a"), (one, "b"), (two, "c"), (one, "overheat")]);
    assert!(errors[3].message.contains("two.toml has a rule of this name already"));
}

#[test]
fn reads_the_files_of_a_folder_in_order_and_leaves_others_alone() {
    let dir = tempfile::tempdir().unwrap();
    let rule = |name: &str| OVERHEAT.replace("overheat", name);
    std::fs::write(dir.path().join("b.toml"), rule("second")).unwrap();
    std::fs::write(dir.path().join("a.toml"), rule("first")).unwrap();
    for ignored in [".hidden.toml", "a.toml~", "notes.md"] {
        std::fs::write(dir.path().join(ignored), "not a rule").unwrap();
    }
    let set = load_rules(dir.path(), &Limits::default()).unwrap();
    assert_eq!(set.iter().map(|rule| rule.name.as_str()).collect::<Vec<_>>(), ["first", "second"]);

    let errors = load_rules(&dir.path().join("missing"), &Limits::default()).unwrap_err();
    assert!(errors[0].message.starts_with("can't be read"), "{}", errors[0]);
    std::fs::write(dir.path().join("c.toml"), b"\xff").unwrap();
    let errors = load_rules(dir.path(), &Limits::default()).unwrap_err();
    assert!(errors[0].message.starts_with("can't be read"), "{}", errors[0]);
}

#[test]
fn every_example_of_the_manual_loads() {
    let manual = include_str!("../../../docs/actions.md");
    let examples: Vec<&str> = manual
        .split("```toml\n")
        .skip(1)
        .map(|rest| rest.split_once("```").expect("an example ends").0)
        // The others are of the configuration, and are read with it.
        .filter(|text| text.contains("[rules."))
        .collect();
    assert!(examples.len() >= 2);
    let names: Vec<String> = examples
        .into_iter()
        .flat_map(|text| rules(text).iter().map(|rule| rule.name.clone()).collect::<Vec<_>>())
        .collect();
    assert_eq!(names, ["overheat", "readings-in-batches", "readings"]);
}

/// Every key of every action stands in the manual's tables, with the default that serde fills in.
#[test]
fn the_manual_names_every_key() {
    let manual = include_str!("../../../docs/actions.md");
    for kind in actions::ActionConfig::KINDS {
        let text = format!("type = '{kind}'\nno_such_key = 1");
        let error = toml::from_str::<actions::ActionConfig>(&text).unwrap_err().message().to_owned();
        let keys: Vec<&str> = error.split('`').skip(3).step_by(2).collect();
        assert!(keys.len() > 5, "{error}");
        for key in keys.iter().filter(|key| **key != "name") {
            assert!(manual.contains(&format!("`{key}`")), "{kind}: {key}");
        }
    }
}

/// The same for connectors, and for the tables within actions and connectors.
#[test]
fn the_manual_names_every_key_of_connectors_and_batches() {
    use actions::config::{AuthConfig, ConnectorConfig, HttpBatchConfig, TlsConfig};
    let manual = include_str!("../../../docs/connectors.md");
    let keys = |error: toml::de::Error| {
        let text = error.message().to_owned();
        let keys: Vec<String> = text.split('`').skip(3).step_by(2).map(str::to_owned).collect();
        assert!(keys.len() > 3, "{text}");
        keys
    };
    let connector = keys(toml::from_str::<ConnectorConfig>("no_such_key = 1").unwrap_err());
    let auth = keys(toml::from_str::<AuthConfig>("no_such_key = 1").unwrap_err());
    let tls = keys(toml::from_str::<TlsConfig>("no_such_key = 1").unwrap_err());
    for key in connector.iter().chain(&auth).chain(&tls) {
        assert!(manual.contains(&format!("`{key}`")), "{key}");
    }
    let manual = include_str!("../../../docs/actions.md");
    for key in keys(toml::from_str::<HttpBatchConfig>("no_such_key = 1").unwrap_err()) {
        assert!(manual.contains(&format!("`batch.{key}`")), "{key}");
    }
}

// ---- one message at a time

#[tokio::test]
async fn republishes_what_matches_and_counts_what_does_not() {
    let pipeline = pipeline(OVERHEAT);
    assert!(pipeline.candidates("sensors/north/humidity").is_none());
    assert!(pipeline.candidates("$SYS/broker/uptime").is_none());

    let hot = Message::new("sensors/north/temp", br#"{"deviceId":"d1","temperature":61.50}"#);
    let [republish] = hot.run(&pipeline).try_into().unwrap();
    assert_eq!(
        (republish.topic.as_str(), republish.qos, republish.retain),
        ("alarms/north", QoS::AtLeastOnce, false)
    );
    assert_eq!(republish.payload, br#"{"deviceId":"d1","t":61.50,"site":"north"}"#);
    assert_eq!(republish.properties, b"");

    assert!(Message::new("sensors/north/temp", br#"{"temperature":10}"#).run(&pipeline).is_empty());
    assert!(Message::new("sensors/north/temp", b"not json").run(&pipeline).is_empty());
    let stats = stats(&pipeline, "overheat");
    assert_eq!((stats.matched, stats.passed, stats.no_match), (3, 1, 2));
    assert_eq!((stats.actions[0].name.as_str(), stats.actions[0].requests), ("alarm", 1));
}

#[tokio::test]
async fn templates_see_the_message_and_its_publisher() {
    let pipeline = pipeline(
        r#"
        [rules.r]
        sql = "SELECT v FROM 'in/#'"
        [[rules.r.actions]]
        name = "a"
        type = "republish"
        topic = "out/${clientid()}"
        payload = "${v}|${username()}|${topic()}"
        content_type = "text/plain"
        response_topic = "answers/${clientid()}"
        correlation_data = "AAEC"
        user_properties = { site = "${topic(2)}" }
        message_expiry_interval = 60
        "#,
    );
    let [republish] = Message::new("in/north", br#"{"v":"x"}"#).run(&pipeline).try_into().unwrap();
    assert_eq!(republish.topic, "out/dev-1");
    assert_eq!(republish.payload, b"x|user|in/north");
    assert_eq!(republish.message_expiry_interval_s, Some(60));
    let properties = PublishProperties::from_encoded(&republish.properties).unwrap();
    assert_eq!(properties.content_type, Some("text/plain"));
    assert_eq!(properties.response_topic, Some("answers/dev-1"));
    assert_eq!(properties.correlation_data, Some(&[0, 1, 2][..]));
    assert_eq!(properties.user_properties.iter().collect::<Vec<_>>(), [("site", "north")]);
}

#[tokio::test]
async fn a_rule_leaves_alone_what_it_had_a_part_in_making() {
    let pipeline = pipeline(OVERHEAT);
    let hot = br#"{"temperature":99}"#;
    let [republish] = Message::new("sensors/n/temp", hot).run(&pipeline).try_into().unwrap();
    let mut again = Message::new("sensors/n/temp", hot);
    again.trail = Trail::default().with(1_000).with(republish.rule).with(1_001);
    assert!(again.run(&pipeline).is_empty());
    let stats = stats(&pipeline, "overheat");
    assert_eq!((stats.matched, stats.passed, stats.looped), (2, 1, 1));
}

#[tokio::test]
async fn a_message_goes_through_eight_rules_at_most() {
    let pipeline = pipeline(OVERHEAT);
    let mut message = Message::new("sensors/n/temp", br#"{"temperature":99}"#);
    message.trail = (100..107).fold(Trail::default(), |trail, rule| trail.with(rule));
    assert_eq!(message.run(&pipeline).len(), 1, "seven before this one");
    message.trail = message.trail.with(107);
    assert!(message.run(&pipeline).is_empty(), "neither action nor error action");
    let stats = stats(&pipeline, "overheat");
    assert_eq!((stats.actions[0].hop_limited, stats.actions[1].hop_limited), (1, 1));
    assert_eq!((stats.error_actions, stats.error_actions_failed), (1, 1));
}

#[tokio::test]
async fn output_in_an_error_action_is_its_document_and_variables_keep_their_values() {
    let pipeline = pipeline(
        r#"
        [rules.r]
        sql = "SET @id = newuuid() SELECT @id AS id FROM 'in'"
        [[rules.r.actions]]
        name = "fine"
        type = "republish"
        topic = "fine"
        [[rules.r.actions]]
        name = "bad"
        type = "republish"
        topic = "${missing}"
        [rules.r.error_action]
        type = "republish"
        topic = "errors/${output().ruleName}/${get(output().failures, 0).failedAction}"
        payload = "${@id}"
        "#,
    );
    let [fine, error] = Message::new("in", b"{}").run(&pipeline).try_into().unwrap();
    assert_eq!(error.topic, "errors/r/bad");
    let id: Value = serde_json::from_slice(&error.payload).unwrap();
    assert_eq!(id, document(&fine)["id"]);
}

#[tokio::test]
async fn a_failed_action_sets_the_error_action_off_once() {
    let pipeline = pipeline(
        r#"
        [rules.r]
        sql = "SELECT * FROM 'in/#'"
        [[rules.r.actions]]
        name = "one"
        type = "republish"
        topic = "out/${x}"
        [[rules.r.actions]]
        name = "two"
        type = "republish"
        topic = "fine"
        [[rules.r.actions]]
        name = "three"
        type = "republish"
        topic = "out/${x}"
        [rules.r.error_action]
        type = "republish"
        topic = "errors/${topic(2)}"
        "#,
    );
    let payload = br#"{"x":"a/+"}"#;
    let [fine, error] = Message::new("in/n", payload).run(&pipeline).try_into().unwrap();
    assert_eq!((fine.topic.as_str(), error.topic.as_str()), ("fine", "errors/n"));
    assert_eq!(fine.rule, error.rule);
    let document = document(&error);
    assert_eq!(document["ruleName"], "r");
    assert_eq!(document["topic"], "in/n");
    assert_eq!(document["clientId"], "dev-1");
    assert_eq!(document["traceId"].as_str().unwrap().len(), 32);
    assert_eq!(document["base64OriginalPayload"], STANDARD.encode(payload));
    let failures = document["failures"].as_array().unwrap();
    assert_eq!(failures.len(), 2);
    assert_eq!(failures[0]["failedAction"], "one");
    assert_eq!(failures[0]["failedResource"], "out/${x}");
    assert!(failures[0]["errorMessage"].as_str().unwrap().contains("topic"), "{}", failures[0]);
    assert_eq!(failures[1]["failedAction"], "three");
    assert_eq!(document.as_object().unwrap().len(), 6);

    let stats = stats(&pipeline, "r");
    assert_eq!((stats.passed, stats.error_actions, stats.error_actions_failed), (1, 1, 0));
    assert_eq!(stats.actions.iter().map(|action| action.failed_render).collect::<Vec<_>>(), [1, 0, 1, 0]);
}

#[tokio::test]
async fn a_failed_error_action_is_counted_and_no_more() {
    let text = OVERHEAT
        .replace("topic = \"errors/overheat\"", "topic = \"errors/${x}\"")
        .replace("alarms/${topic(2)}", "alarms/${x}");
    let pipeline = pipeline(&text);
    let message = Message::new("sensors/n/temp", br##"{"temperature":99,"x":"#"}"##);
    assert!(message.run(&pipeline).is_empty());
    let stats = stats(&pipeline, "overheat");
    assert_eq!((stats.error_actions, stats.error_actions_failed), (1, 1));
    assert_eq!(stats.actions[1].failed_render, 1);
}

#[tokio::test]
async fn many_rules_yield_and_go_on_where_they_were() {
    let text: String = (0..3_000)
        .map(|n| {
            format!(
                "[rules.r{n}]\nsql = \"SELECT v FROM 'in' WHERE v >= 0\"\n[[rules.r{n}.actions]]\nname = 'a'\ntype = 'republish'\ntopic = 'out/{n}'\n"
            )
        })
        .collect();
    let pipeline = pipeline(&text);
    let message = Message::new("in", br#"{"v":1}"#);
    let handler = pipeline.candidates("in").unwrap();
    let mut effects = HookEffects::default();
    let (mut cursor, mut turns) = (0, 1);
    while handler.handle(&message.publication(), &mut cursor, &mut effects) == Progress::Yield {
        turns += 1;
    }
    assert!(turns > 1, "3,000 rules don't fit 50 µs");
    let topics: Vec<&str> = effects.republish.iter().map(|republish| republish.topic.as_str()).collect();
    let stats = pipeline.stats();
    let expected: Vec<String> = stats.iter().map(|rule| rule.name.replace('r', "out/")).collect();
    assert_eq!(topics, expected, "each rule once, in the order of the rules");
    assert!(stats.iter().all(|rule| (rule.matched, rule.passed, rule.no_match) == (1, 1, 0)));
}

/// A rule that republishes to `out/<name>`.
fn plain(name: &str, sql: &str) -> String {
    format!(
        "[rules.{name}]\nsql = \"{sql}\"\n[[rules.{name}.actions]]\nname = 'a'\ntype = 'republish'\ntopic = 'out/{name}'\n"
    )
}

/// The names of the rules that republish a message, in order.
fn ran(pipeline: &RulePipeline, message: &Message<'_>) -> Vec<String> {
    message.run(pipeline).iter().map(|republish| republish.topic.replace("out/", "")).collect()
}

/// Matched, passed, no match and looped of a rule.
fn counted(pipeline: &RulePipeline, rule: &str) -> (u64, u64, u64, u64) {
    let stats = stats(pipeline, rule);
    let parts = [stats.passed, stats.no_match, stats.no_output, stats.failed_evaluation, stats.looped];
    assert_eq!(stats.matched, parts.iter().sum::<u64>(), "{stats:?}");
    (stats.matched, stats.passed, stats.no_match, stats.looped)
}

#[tokio::test]
async fn rules_on_different_filters_run_in_the_order_of_all_and_each_once() {
    let filters = ["'in/+'", "'in/1'", "'in/+', 'in/1'", "'#'", "'in/1', 'in/+', '#'", "'other'"];
    let text: String = (0..60)
        .map(|n| {
            let condition = ["v = 1", "v = 2", "v >= 1", "v IN (1, 3)", "NOT v = 2"][n % 5];
            plain(&format!("r{n:02}"), &format!("SELECT v FROM {} WHERE {condition}", filters[n % 6]))
        })
        .collect();
    let pipeline = pipeline(&text);
    for (payload, holding) in [(&br#"{"v":1}"#[..], &[0, 2, 3, 4][..]), (br#"{"v":2}"#, &[1, 2]), (b"-", &[])]
    {
        let expected: Vec<String> = (0..60)
            .filter(|n| n % 6 != 5 && holding.contains(&(n % 5)))
            .map(|n| format!("r{n:02}"))
            .collect();
        assert_eq!(ran(&pipeline, &Message::new("in/1", payload)), expected);
    }
    for n in 0..60_usize {
        let passed = [[1, 0, 0], [0, 1, 0], [1, 1, 0], [1, 0, 0], [1, 0, 0]][n % 5].iter().sum();
        let expected = if n % 6 == 5 { (0, 0, 0, 0) } else { (3, passed, 3 - passed, 0) };
        assert_eq!(counted(&pipeline, &format!("r{n:02}")), expected, "r{n:02}");
    }
}

#[tokio::test]
async fn a_rule_that_the_index_leaves_out_is_counted_with_its_group() {
    let text: String =
        (0..200).map(|n| plain(&format!("r{n}"), &format!("SELECT v FROM 'in' WHERE v = {n}"))).collect();
    let pipeline = pipeline(&text);
    let [republish] = Message::new("in", br#"{"v":7}"#).run(&pipeline).try_into().unwrap();
    assert_eq!(republish.topic, "out/r7");
    assert!(ran(&pipeline, &Message::new("in", br#"{"v":200}"#)).is_empty());
    let mut again = Message::new("in", br#"{"v":7}"#);
    again.trail = Trail::default().with(republish.rule);
    assert!(ran(&pipeline, &again).is_empty());
    again.payload = br#"{"v":8}"#;
    assert_eq!(ran(&pipeline, &again), ["r8"], "a rule that wouldn't match isn't held back");
    assert_eq!(counted(&pipeline, "r7"), (4, 1, 2, 1));
    assert_eq!(counted(&pipeline, "r8"), (4, 1, 3, 0));
    assert_eq!(counted(&pipeline, "r199"), (4, 0, 4, 0));
}

#[tokio::test]
async fn counters_go_on_through_changes_of_the_rules() {
    let rule = |name: &str, from: &str| plain(name, &format!("SELECT v FROM {from} WHERE v = 1"));
    let replace =
        |pipeline: &RulePipeline, text: &[String]| pipeline.replace(&rules(&text.concat())).unwrap();
    let pipeline = pipeline(&[rule("a", "'x'"), rule("b", "'x'")].concat());
    let yes = |topic| Message::new(topic, br#"{"v":1}"#);
    let no = |topic| Message::new(topic, br#"{"v":2}"#);
    ran(&pipeline, &yes("x"));
    ran(&pipeline, &no("x"));
    assert_eq!(counted(&pipeline, "a"), (2, 1, 1, 0));

    // One leaves the group, one joins it late; who stays goes on.
    replace(&pipeline, &[rule("a", "'y', 'x'"), rule("b", "'x'"), rule("c", "'x'")]);
    assert_eq!(counted(&pipeline, "a"), (2, 1, 1, 0));
    assert_eq!(counted(&pipeline, "c"), (0, 0, 0, 0));
    ran(&pipeline, &yes("x"));
    ran(&pipeline, &no("y"));
    assert_eq!(counted(&pipeline, "a"), (4, 2, 2, 0));
    assert_eq!(counted(&pipeline, "b"), (3, 2, 1, 0));
    assert_eq!(counted(&pipeline, "c"), (1, 1, 0, 0));

    // The same filters in another order are the same group, and a group that was gone begins anew.
    replace(&pipeline, &[rule("a", "'x', 'y'"), rule("c", "'x', 'y', 'x'")]);
    ran(&pipeline, &no("x"));
    assert_eq!(counted(&pipeline, "a"), (5, 2, 3, 0));
    assert_eq!(counted(&pipeline, "c"), (2, 1, 1, 0));
    replace(&pipeline, &[rule("b", "'x'")]);
    assert_eq!(counted(&pipeline, "b"), (3, 2, 1, 0), "nothing was counted while it was away");
    ran(&pipeline, &yes("x"));
    replace(&pipeline, &[rule("a", "'x', 'y'"), rule("b", "'x'")]);
    assert_eq!((counted(&pipeline, "a"), counted(&pipeline, "b")), ((5, 2, 3, 0), (4, 3, 1, 0)));
}

#[tokio::test]
async fn a_message_that_a_change_overtakes_leaves_no_negative_count() {
    let rule = |from: &str| plain("a", &format!("SELECT v FROM '{from}'"));
    let pipeline = pipeline(&rule("x"));
    let message = Message::new("x", br#"{"v":1}"#);
    let handler = pipeline.candidates("x").unwrap();
    pipeline.replace(&rules(&rule("y"))).unwrap();
    let mut effects = HookEffects::default();
    assert_eq!(handler.handle(&message.publication(), &mut 0, &mut effects), Progress::Done);
    assert_eq!(effects.republish.len(), 1);
    assert_eq!(counted(&pipeline, "a"), (1, 1, 0, 0));
}

#[tokio::test]
async fn each_budget_has_a_counter() {
    let text = [
        plain("steps", "SELECT VALUE a + a + a + a + a + a + a + a + a FROM 'in'"),
        plain("elements", "SELECT VALUE 5 IN a FROM 'in'"),
        plain("bytes", "SELECT VALUE concat(b, b, b) FROM 'in'"),
        plain("fine", "SELECT VALUE 1 FROM 'in'"),
    ]
    .concat();
    let limits = Limits { steps: 12, array_steps: 2, output_bytes: 40, ..Limits::default() };
    let set = RuleSet::from_texts([(Path::new("test.toml"), text.as_str())], &limits).unwrap();
    let pipeline = RulePipeline::new(&set, &PipelineSettings::default()).unwrap();
    let payload = br#"{"a":[1,2,3,4,5],"b":"0123456789012345"}"#;
    assert_eq!(ran(&pipeline, &Message::new("in", payload)), ["fine"]);
    let by_kind = |rule: &str| {
        let stats = stats(&pipeline, rule);
        (stats.failed_evaluation, stats.failed_steps, stats.failed_array_steps, stats.failed_output_bytes)
    };
    assert_eq!(by_kind("steps"), (1, 1, 0, 0));
    assert_eq!(by_kind("elements"), (1, 0, 1, 0));
    assert_eq!(by_kind("bytes"), (1, 0, 0, 1));
    assert_eq!(by_kind("fine"), (0, 0, 0, 0));
}

#[tokio::test]
async fn topics_with_the_same_rules_share_a_handler() {
    let pipeline = pipeline(OVERHEAT);
    let one = pipeline.candidates("sensors/a/temp").unwrap();
    let two = pipeline.candidates("sensors/b/temp").unwrap();
    assert!(Arc::ptr_eq(&one, &two));
}

// ---- change

#[tokio::test]
async fn other_rules_take_over_at_once_and_a_message_in_flight_ends_on_the_old() {
    let pipeline = pipeline(OVERHEAT);
    let before = pipeline.generation();
    let message = Message::new("sensors/n/temp", br#"{"temperature":61}"#);
    let old_handler = pipeline.candidates("sensors/n/temp").unwrap();
    let [old] = message.run(&pipeline).try_into().unwrap();
    pipeline.replace(&rules(&OVERHEAT.replace("alarms/", "alerts/"))).unwrap();
    assert_ne!(pipeline.generation(), before);
    let [new] = message.run(&pipeline).try_into().unwrap();
    assert_eq!((old.topic.as_str(), new.topic.as_str()), ("alarms/n", "alerts/n"));
    assert_eq!(old.rule, new.rule, "a rule keeps its number");
    let mut effects = HookEffects::default();
    assert_eq!(old_handler.handle(&message.publication(), &mut 0, &mut effects), Progress::Done);
    assert_eq!(effects.republish[0].topic, "alarms/n");
    assert_eq!(stats(&pipeline, "overheat").passed, 3, "and its counters");

    pipeline.replace(&rules(&OVERHEAT.replace("dialect", "enabled = false\ndialect"))).unwrap();
    assert!(pipeline.candidates("sensors/n/temp").is_none(), "a rule that isn't enabled doesn't run");
}

// ---- queued actions, with a server

/// Answers every request with `status`, and passes the bodies on.
async fn server(status: &'static str) -> (SocketAddr, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (address, serve(listener, status))
}

fn serve(listener: TcpListener, status: &'static str) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel(1_000);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let sender = sender.clone();
            tokio::spawn(async move {
                let mut buffer = Vec::new();
                while stream.read_buf(&mut buffer).await.is_ok_and(|n| n > 0) {
                    let text = String::from_utf8_lossy(&buffer).into_owned();
                    let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                    let length = head
                        .lines()
                        .find_map(|line| {
                            line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok()
                        })
                        .unwrap_or(0);
                    if body.len() < length {
                        continue;
                    }
                    sender.send(body.to_owned()).await.unwrap();
                    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
                    stream.write_all(answer.as_bytes()).await.unwrap();
                    buffer.clear();
                }
            });
        }
    });
    receiver
}

fn http_rule(address: SocketAddr, more: &str) -> String {
    format!(
        r#"
        [rules.r]
        sql = "SELECT v FROM 'in/#'"
        [[rules.r.actions]]
        name = "ops"
        type = "http"
        url = "http://{address}/in/${{topic(2)}}?token=s3cret"
        retry = {{ initial_backoff = "1ms", max_backoff = "2ms", max_attempts = 2 }}
        {more}
        [rules.r.error_action]
        type = "republish"
        topic = "errors/r"
        "#
    )
}

/// Stands for the broker, and keeps what is published.
#[derive(Debug)]
struct Published(mpsc::Sender<InternalPublish>);

impl Publisher for Published {
    fn publish(
        &self,
        message: InternalPublish,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<(), String>> + Send + '_>> {
        Box::pin(async move { self.0.send(message).await.map_err(|error| error.to_string()) })
    }
}

#[tokio::test]
async fn queued_requests_reach_the_server_in_order() {
    let (address, mut bodies) = server("200 OK").await;
    let pipeline = pipeline(&http_rule(address, ""));
    for n in 0..20 {
        let payload = format!("{{\"v\":{n}}}");
        assert!(Message::new("in/x", payload.as_bytes()).run(&pipeline).is_empty());
    }
    for n in 0..20 {
        assert_eq!(bodies.recv().await.unwrap(), format!("{{\"v\":{n}}}"));
    }
    pipeline.shutdown(Duration::from_secs(30)).await;
    let stats = stats(&pipeline, "r");
    let delivery = stats.actions[0].delivery.as_ref().unwrap();
    assert!(delivery.is_conserved());
    assert_eq!((stats.actions[0].requests, delivery.delivered), (20, 20));
    assert_eq!(stats.error_actions, 0);
}

#[tokio::test]
async fn what_fails_at_once_is_one_document_and_what_fails_later_one_each() {
    let (address, mut bodies) = server("503 Busy").await;
    let more = format!(
        "[[rules.r.actions]]\nname = 'bad'\ntype = 'republish'\ntopic = 'out/${{v}}'\n[[rules.r.actions]]\nname = 'worse'\ntype = 'republish'\ntopic = 'out/${{v}}'\n[[rules.r.actions]]\nname = 'second'\ntype = 'http'\nurl = 'http://{address}/'\nretry = {{ max_attempts = 1 }}\n"
    );
    let pipeline = pipeline(&http_rule(address, &more));
    let (sender, mut published) = mpsc::channel(10);
    pipeline.attach(Arc::new(Published(sender)));
    let payload = br#"{"v":"+"}"#;
    let failures = |payload: &[u8]| {
        let document: Value = serde_json::from_slice(payload).unwrap();
        let failures = document["failures"].as_array().unwrap().iter();
        failures
            .map(|failure| {
                let text = |key: &str| failure[key].as_str().unwrap().to_owned();
                (text("failedAction"), text("errorMessage"))
            })
            .collect::<Vec<_>>()
    };
    let [at_once] = Message::new("in/x", payload).run(&pipeline).try_into().unwrap();
    assert_eq!(at_once.topic, "errors/r");
    let names: Vec<String> = failures(&at_once.payload).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["bad", "worse"]);

    for _ in 0..3 {
        bodies.recv().await.unwrap();
    }
    let mut later = Vec::new();
    for _ in 0..2 {
        let message = published.recv().await.unwrap();
        let document: Value = serde_json::from_slice(&message.payload).unwrap();
        assert_eq!(document["base64OriginalPayload"], STANDARD.encode(payload));
        assert!(!message.payload.windows(6).any(|window| window == b"s3cret"), "no query in the document");
        later.extend(failures(&message.payload));
    }
    later.sort();
    let expected = |name: &str, attempts: &str| {
        (name.to_owned(), format!("the far side answered 503: \"\" ({attempts})"))
    };
    assert_eq!(later, [expected("ops", "attempt 2 of 2"), expected("second", "attempt 1 of 1")]);
    let stats = stats(&pipeline, "r");
    assert_eq!((stats.error_actions, stats.error_actions_failed), (3, 0));
    assert_eq!(stats.actions[0].delivery.as_ref().unwrap().dropped_for(DropReason::RetriesExhausted), 1);
    drop(pipeline);
    assert!(published.recv().await.is_none(), "once each");
}

#[tokio::test]
async fn a_shutdown_runs_the_error_actions_that_it_sets_off() {
    let (failing, _bodies) = server("503 Busy").await;
    let (errors, mut documents) = server("200 OK").await;
    let text = http_rule(failing, "")
        .replace("max_backoff = \"2ms\", max_attempts = 2", "max_attempts = 1000")
        .replace(
            "type = \"republish\"\n        topic = \"errors/r\"",
            &format!("type = \"http\"\n        url = \"http://{errors}/\""),
        );
    let pipeline = pipeline(&text);
    Message::new("in/x", b"{\"v\":1}").run(&pipeline);
    pipeline.shutdown(Duration::from_millis(100)).await;
    let document: Value = serde_json::from_str(&documents.recv().await.unwrap()).unwrap();
    assert_eq!(document["failures"][0]["failedAction"], "ops");
    let stats = stats(&pipeline, "r");
    assert_eq!(stats.actions[0].delivery.as_ref().unwrap().dropped_for(DropReason::Shutdown), 1);
    assert_eq!(stats.actions[1].delivery.as_ref().unwrap().delivered, 1);
}

#[tokio::test]
async fn an_action_cannot_reach_the_admin_interface() {
    let (address, mut bodies) = server("200 OK").await;
    let targets = TargetPolicy { admin: vec![address], ..settings().targets };
    let settings = PipelineSettings { targets, ..PipelineSettings::default() };
    let pipeline = RulePipeline::new(&rules(&http_rule(address, "")), &settings).unwrap();
    let (sender, mut published) = mpsc::channel(10);
    pipeline.attach(Arc::new(Published(sender)));
    Message::new("in/x", b"{}").run(&pipeline);
    let message = published.recv().await.unwrap();
    let document: Value = serde_json::from_slice(&message.payload).unwrap();
    let text = document["failures"][0]["errorMessage"].as_str().unwrap();
    assert!(text.contains("admin interface"), "{text}");
    assert!(bodies.try_recv().is_err());
}

#[tokio::test]
async fn a_changed_setting_keeps_what_is_queued() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let pipeline = pipeline(&http_rule(closed, ""));
    for n in 0..5 {
        Message::new("in/x", format!("{{\"v\":{n}}}").as_bytes()).run(&pipeline);
    }
    let (address, mut bodies) = server("200 OK").await;
    // A request keeps the URL that it was rendered with; what changes is how it is sent.
    pipeline.replace(&rules(&http_rule(closed, "timeout = \"1s\""))).unwrap();
    let kept = stats(&pipeline, "r").actions[0].delivery.clone().unwrap();
    assert_eq!((kept.received, kept.delivered + kept.dropped_total()), (5, 0));
    pipeline.replace(&rules(&http_rule(address, ""))).unwrap();
    Message::new("in/y", b"{\"v\":9}").run(&pipeline);
    let stats = stats(&pipeline, "r");
    let delivery = stats.actions[0].delivery.as_ref().unwrap();
    assert_eq!((stats.actions[0].requests, delivery.received), (6, 6), "counters go on");
    assert!(
        bodies.try_recv().is_err(),
        "order holds: the new one waits behind the old ones of its publisher"
    );
}

#[tokio::test]
async fn a_refused_message_leaves_no_trace_in_queues_and_their_counters() {
    // The first action is queued, the second fails at once; the error action is published, or queued itself.
    let (address, mut bodies) = server("200 OK").await;
    let second = "[[rules.r.actions]]\nname = 'bad'\ntype = 'republish'\ntopic = 'out/${v}'\n";
    let with_queue = http_rule(address, second);
    let error_queued = format!(
        "[rules.r]\nsql = \"SELECT v FROM 'in/#'\"\n{second}[rules.r.error_action]\ntype = 'http'\nurl = 'http://{address}/error'\n"
    );
    for text in [with_queue, error_queued] {
        let pipeline = pipeline(&text);
        let (sender, mut published) = mpsc::channel(10);
        pipeline.attach(Arc::new(Published(sender)));
        let message = Message::new("in/x", b"{\"v\":\"+\"}");
        let effects = message.effects(&pipeline);
        assert!(!effects.admitted.is_empty());
        drop(effects);
        let refused = stats(&pipeline, "r");
        assert_eq!((refused.passed, refused.error_actions, refused.error_actions_failed), (1, 0, 0));
        let queued = |stats: &RuleStats| {
            stats.actions.iter().filter(|action| action.kind == "http").cloned().collect::<Vec<_>>()
        };
        for action in queued(&refused) {
            let received = action.delivery.as_ref().map_or(0, |delivery| delivery.received);
            assert_eq!((action.requests, received), (0, 0), "{}", action.name);
        }

        message.run(&pipeline);
        pipeline.shutdown(Duration::from_secs(30)).await;
        let admitted = stats(&pipeline, "r");
        assert_eq!((admitted.passed, admitted.error_actions, admitted.error_actions_failed), (2, 1, 0));
        let sent: Vec<(u64, u64)> = queued(&admitted)
            .iter()
            .map(|action| (action.requests, action.delivery.as_ref().unwrap().delivered))
            .collect();
        assert_eq!(sent, [(1, 1)]);
        assert!(bodies.recv().await.is_some());
        assert!(bodies.try_recv().is_err(), "what was refused is not among what was sent");
        assert!(published.try_recv().is_err());
    }
}

// ---- queued actions, on a store

/// A pipeline with its outboxes on a store, inside a broker on the same store.
async fn on_store(text: &str, store: &Arc<DurableStore>) -> (RulePipeline, Broker) {
    let settings = PipelineSettings { store: Some(Arc::clone(store)), ..settings() };
    let pipeline = RulePipeline::new(&rules(text), &settings).unwrap();
    let broker = Broker::new(
        BrokerConfig::default(),
        Arc::<DurableStore>::clone(store),
        Some(Arc::new(pipeline.clone())),
    );
    pipeline.attach(Arc::new(broker.clone()));
    (pipeline, broker)
}

/// The life of a process on the store of a disk, which ends with a power cut once everything so far is on the disk. Returns
/// what the disk holds then.
fn process<F: Future<Output = ()>>(
    disk: &FaultDisk,
    text: &str,
    life: impl FnOnce(Process) -> F,
) -> FaultDisk {
    let options = StoreOptions { segment_bytes: 128 * 1024, ..StoreOptions::default() };
    let store = Arc::new(DurableStore::open_on(Arc::new(disk.clone()), options).unwrap().0);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (pipeline, broker) = on_store(text, &store).await;
        life(Process { pipeline, broker, store: Arc::clone(&store) }).await;
        let queue = QueueKey::Outbox { namespace: 0, name: "barrier" };
        let token = store.append(&[Record::Queued { queue, id: None, body: &[] }]).unwrap();
        until(|| store.committed() >= token).await;
    });
    disk.power_cut(7)
}

struct Process {
    pipeline: RulePipeline,
    broker: Broker,
    store: Arc<DurableStore>,
}

fn outbox(store: &DurableStore, name: &str) -> u64 {
    store.queue_len(QueueKey::Outbox { namespace: 0, name })
}

fn delivery(pipeline: &RulePipeline, action: usize) -> actions::Snapshot {
    let snapshot = stats(pipeline, "r").actions[action].delivery.clone().unwrap();
    assert!(snapshot.is_conserved(), "{snapshot:?}");
    snapshot
}

/// An address at which nobody listens, until somebody does.
fn unused_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

async fn serve_at(address: SocketAddr, status: &'static str) -> mpsc::Receiver<String> {
    serve(TcpListener::bind(address).await.unwrap(), status)
}

/// Waits for something that is on its way.
async fn until(mut is_so: impl FnMut() -> bool) {
    while !is_so() {
        tokio::task::yield_now().await;
    }
}

#[test]
fn what_an_action_is_owed_outlives_the_process() {
    let (disk, closed) = (FaultDisk::default(), unused_address());
    let text = http_rule(closed, "");
    let disk = process(&disk, &text, async |process| {
        for n in 0..20 {
            process.broker.publish(publish("in/x", &format!("{{\"v\":{n}}}"))).await.unwrap();
        }
        let before = delivery(&process.pipeline, 0);
        assert_eq!((before.received, before.queued + before.in_flight), (20, 20));
        assert_eq!(outbox(&process.store, "r/ops"), 20);
    });
    process(&disk, &text, async |process| {
        // The far side is there now, at the address that the requests were rendered with.
        let mut bodies = serve_at(closed, "200 OK").await;
        process.broker.publish(publish("in/x", "{\"v\":20}")).await.unwrap();
        for n in 0..=20 {
            assert_eq!(bodies.recv().await.unwrap(), format!("{{\"v\":{n}}}"), "in order, old ones first");
        }
        until(|| delivery(&process.pipeline, 0).delivered == 21).await;
        assert_eq!(delivery(&process.pipeline, 0).received, 21, "those that were found count");
        assert_eq!(outbox(&process.store, "r/ops"), 0);
        assert!(bodies.try_recv().is_err());
    });
}

#[test]
fn an_error_action_with_a_queue_has_an_outbox_too() {
    let (disk, closed, failing) = (FaultDisk::default(), unused_address(), unused_address());
    let text = format!(
        "[rules.r]\nsql = \"SELECT v FROM 'in/#'\"\n[[rules.r.actions]]\nname = 'ops'\ntype = 'http'\nurl = 'http://{failing}/'\n[[rules.r.actions]]\nname = 'bad'\ntype = 'republish'\ntopic = 'out/${{v}}'\n[rules.r.error_action]\ntype = 'http'\nurl = 'http://{closed}/'\n"
    );
    let disk = process(&disk, &text, async |process| {
        let _bodies = serve_at(failing, "400 Bad Request").await;
        process.broker.publish(publish("in/x", "{\"v\":\"+\"}")).await.unwrap();
        assert!(
            outbox(&process.store, "r/error_action") > 0,
            "what failed at once, with the message's own debts"
        );
        until(|| outbox(&process.store, "r/error_action") == 2).await;
    });
    process(&disk, &text, async |_process| {
        let mut documents = serve_at(closed, "200 OK").await;
        for expected in ["bad", "ops"] {
            let document: Value = serde_json::from_str(&documents.recv().await.unwrap()).unwrap();
            assert_eq!(document["failures"][0]["failedAction"], expected);
        }
    });
}

fn dead_letters(store: &DurableStore, name: &str) -> u64 {
    store.queue_len(QueueKey::DeadLetters { namespace: 0, name })
}

/// A rule with an action whose far side isn't there, and a queue of two.
fn full_rule(address: SocketAddr, overflow: &str) -> String {
    http_rule(address, &format!("queue = {{ max_items = 2, overflow = '{overflow}' }}"))
        .replace("topic = \"errors/r\"", "topic = \"errors/${output().failures[0].errorMessage}\"")
}

#[test]
fn a_full_outbox_with_backpressure_refuses_the_message() {
    let (disk, closed) = (FaultDisk::default(), unused_address());
    let copy = "[[rules.r.actions]]\nname = 'copy'\ntype = 'http'\nurl = 'http://127.0.0.1:1/'\n";
    let text = format!("{}\n{copy}", full_rule(closed, "backpressure"));
    process(&disk, &text, async |process| {
        for _ in 0..2 {
            process.broker.publish(publish("in/x", "{}")).await.unwrap();
        }
        let refused = process.broker.publish(publish("in/x", "{}")).await;
        assert!(matches!(refused, Err(broker::PublishError::Refused(_))), "{refused:?}");
        assert_eq!((outbox(&process.store, "r/ops"), outbox(&process.store, "r/copy")), (2, 2));
        let stats = stats(&process.pipeline, "r");
        assert_eq!((stats.actions[0].backpressure, stats.error_actions), (1, 0));
        assert_eq!(
            (delivery(&process.pipeline, 0).received, delivery(&process.pipeline, 1).received),
            (2, 2)
        );
    });
}

#[test]
fn what_a_full_outbox_has_no_room_for_is_a_dead_letter_or_gone() {
    for (overflow, letters) in [("dead_letter", 1), ("drop_newest", 0)] {
        let (disk, closed) = (FaultDisk::default(), unused_address());
        let disk = process(&disk, &full_rule(closed, overflow), async |process| {
            for _ in 0..3 {
                process.broker.publish(publish("in/x", "{\"v\":1}")).await.unwrap();
            }
            assert_eq!(outbox(&process.store, "r/ops"), 2);
            assert_eq!(dead_letters(&process.store, "r/ops"), letters);
            let snapshot = delivery(&process.pipeline, 0);
            assert_eq!(snapshot.received, 3);
            assert_eq!(snapshot.dead_lettered_for(DropReason::QueueFull), letters);
            assert_eq!(snapshot.dropped_for(DropReason::QueueFull), 1 - letters);
            let stats = stats(&process.pipeline, "r");
            assert_eq!((stats.error_actions, stats.error_actions_failed), (1, 0), "it failed at once");
        });
        process(&disk, &full_rule(closed, overflow), async |process| {
            assert_eq!(delivery(&process.pipeline, 0).received, 2);
            let mut reader = process.store.reader(QueueKey::DeadLetters { namespace: 0, name: "r/ops" });
            for debt in reader.read(store::Position::NOWHERE, 10, 1 << 20).unwrap() {
                let message = debt.message.unwrap();
                assert_eq!((message.topic.as_str(), message.payload.as_slice()), ("in/x", &b"{\"v\":1}"[..]));
            }
        });
    }
}

#[test]
fn a_policy_that_needs_a_store_is_refused_without_one() {
    for overflow in ["dead_letter", "backpressure"] {
        let settings = PipelineSettings::default();
        let error = RulePipeline::new(&rules(&full_rule(unused_address(), overflow)), &settings).unwrap_err();
        let text = std::error::Error::source(&error).unwrap().to_string();
        assert!(text.contains(&format!("queue.overflow: \"{overflow}\" needs a queue on disk")), "{text}");
        let log = format!(
            "[rules.r]\nsql = \"SELECT v FROM 'in/#'\"\n[[rules.r.actions]]\nname = 'note'\ntype = 'log'\nqueue = {{ overflow = '{overflow}' }}"
        );
        let faults =
            RuleSet::from_texts([(Path::new("r.toml"), log.as_str())], &Limits::default()).unwrap_err();
        assert!(faults[0].to_string().contains("needs a queue on disk"), "{}", faults[0]);
    }
    let log = "[rules.r]\nsql = \"SELECT v FROM 'in/#'\"\n[[rules.r.actions]]\nname = 'note'\ntype = 'log'\nqueue = { drain = 'live_first' }";
    let faults = RuleSet::from_texts([(Path::new("r.toml"), log)], &Limits::default()).unwrap_err();
    assert!(
        faults[0].to_string().contains("queue.drain: \"live_first\" needs a queue on disk"),
        "{}",
        faults[0]
    );
}

#[test]
fn an_error_action_sees_after_a_restart_what_it_would_have_seen_before() {
    let (disk, closed) = (FaultDisk::default(), unused_address());
    let text = http_rule(closed, "").replace(
        "topic = \"errors/r\"",
        "topic = \"errors/${clientid()}/${username()}/${sourceip()}/${topic(2)}\"",
    );
    let payload = br#"{"v":1}"#;
    let trace = parking_lot::Mutex::new(String::new());
    let disk = process(&disk, &text, async |process| {
        let message = Message::new("in/x", payload);
        let owed = message.effects(&process.pipeline).owed.into_iter().next().unwrap();
        let origin = actions::delivery::outbox::Body::decode(&owed.body).unwrap().origin;
        *trace.lock() = format!("{:032x}", origin::Origin::decode(origin).unwrap().trace_id);
        // Received long ago, as far as the wall clock is concerned.
        let publication = message.publication();
        let record = store::MessageRecord {
            id: publication.id,
            topic: publication.topic,
            payload,
            received_at_ms: publication.received_at_ms,
            publisher: Some("dev-1"),
            ..store::MessageRecord::default()
        };
        let queue = QueueKey::Outbox { namespace: 0, name: "r/ops" };
        let queued = Record::Queued { queue, id: Some(record.id), body: &owed.body };
        process.store.append(&[Record::Message(record), queued]).unwrap();
    });
    process(&disk, &text, async |process| {
        let (sender, mut published) = mpsc::channel(10);
        process.pipeline.attach(Arc::new(Published(sender)));
        let message = published.recv().await.unwrap();
        assert_eq!(message.topic, "errors/dev-1/user/192.0.2.7/x");
        let document: Value = serde_json::from_slice(&message.payload).unwrap();
        assert_eq!(document["traceId"], *trace.lock());
        assert_eq!(document["failures"][0]["failedAction"], "ops");
        assert_eq!(document["base64OriginalPayload"], STANDARD.encode(payload));
        until(|| dead_letters(&process.store, "r/ops") == 1).await;
        until(|| delivery(&process.pipeline, 0).dead_lettered_for(DropReason::Expired) == 1).await;
    });
}

#[test]
fn what_owes_something_does_not_go_without_a_word() {
    let (disk, closed) = (FaultDisk::default(), unused_address());
    let keep =
        "[rules.other]\nsql = \"SELECT * FROM 'x'\"\n[[rules.other.actions]]\nname = 'a'\ntype = 'log'\n";
    process(&disk, &http_rule(closed, ""), async |process| {
        for _ in 0..3 {
            process.broker.publish(publish("in/x", "{}")).await.unwrap();
        }
        let renamed = http_rule(closed, "").replace("name = \"ops\"", "name = \"dev\"");
        let other_kind = http_rule(closed, "")
            .replace("retry =", "#")
            .replace("type = \"http\"\n        url", "type = \"log\"\n        message");
        for text in [keep, &renamed, &other_kind] {
            let error = process.pipeline.replace(&rules(text)).unwrap_err();
            assert!(
                error.to_string().starts_with("action \"r/ops\" is gone, and 3 requests wait in its outbox"),
                "{error}"
            );
        }
        assert_eq!(stats(&process.pipeline, "r").actions[0].name, "ops", "the rules that ran go on");
        // A rule that is switched off and on again has its outbox still.
        let off = http_rule(closed, "").replace("[rules.r]", "[rules.r]\nenabled = false");
        process.pipeline.replace(&rules(&off)).unwrap();
        let error = process.pipeline.replace(&rules(keep)).unwrap_err();
        assert!(error.to_string().contains("\"r/ops\""), "{error}");
        process.pipeline.replace(&rules(&http_rule(closed, ""))).unwrap();
        assert_eq!(outbox(&process.store, "r/ops"), 3);
        let mut bodies = serve_at(closed, "200 OK").await;
        for _ in 0..3 {
            bodies.recv().await.unwrap();
        }
        until(|| outbox(&process.store, "r/ops") == 0).await;
        process.pipeline.replace(&rules(keep)).unwrap();
    });
}

#[test]
fn on_remove_says_what_becomes_of_an_outbox() {
    for (on_remove, letters, in_action) in [
        ("drain", 0, true),
        ("drain", 0, false),
        ("dead_letter", 3, true),
        ("dead_letter", 3, false),
        ("purge", 0, true),
        ("purge", 0, false),
    ] {
        let (disk, closed) = (FaultDisk::default(), unused_address());
        let key = format!("on_remove = \"{on_remove}\"");
        let text = if in_action {
            http_rule(closed, &key)
        } else {
            http_rule(closed, "").replace("[rules.r]", &format!("[rules.r]\n{key}"))
        };
        process(&disk, &text, async |process| {
            for n in 0..3 {
                process.broker.publish(publish("in/x", &format!("{{\"v\":{n}}}"))).await.unwrap();
            }
            process.pipeline.replace(&rules("")).unwrap();
            assert!(process.pipeline.stats().is_empty());
            if on_remove == "drain" {
                assert_eq!(outbox(&process.store, "r/ops"), 3);
                let mut bodies = serve_at(closed, "200 OK").await;
                for n in 0..3 {
                    assert_eq!(bodies.recv().await.unwrap(), format!("{{\"v\":{n}}}"));
                }
            }
            until(|| outbox(&process.store, "r/ops") == 0).await;
            assert_eq!(dead_letters(&process.store, "r/ops"), letters, "{on_remove}");
            // The name is free again.
            until(|| process.pipeline.replace(&rules(&text)).is_ok()).await;
        });
    }
}

#[test]
fn a_start_keeps_what_belongs_to_nobody_unless_a_rule_says_otherwise() {
    let (disk, closed) = (FaultDisk::default(), unused_address());
    let disk = process(&disk, &http_rule(closed, ""), async |process| {
        process.broker.publish(publish("in/x", "{}")).await.unwrap();
    });
    let renamed = http_rule(closed, "").replace("name = \"ops\"", "name = \"dev\"");
    let disk = process(&disk, &renamed, async |process| {
        assert_eq!(outbox(&process.store, "r/ops"), 1);
        let orphans = process.pipeline.orphans();
        assert!(orphans.contains(&("r/ops".to_owned(), 1)), "{orphans:?}");
        process.pipeline.replace(&rules(&renamed)).unwrap();
    });
    let purged = renamed.replace("[rules.r]", "[rules.r]\non_remove = \"dead_letter\"");
    process(&disk, &purged, async |process| {
        until(|| outbox(&process.store, "r/ops") == 0).await;
        assert_eq!(dead_letters(&process.store, "r/ops"), 1);
        until(|| !process.pipeline.orphans().iter().any(|(name, _)| name == "r/ops")).await;
    });
}

#[test]
fn a_rule_that_is_switched_off_pays_what_it_owes() {
    let (disk, closed) = (FaultDisk::default(), unused_address());
    let disk = process(&disk, &http_rule(closed, ""), async |process| {
        process.broker.publish(publish("in/x", "{\"v\":1}")).await.unwrap();
    });
    let off = http_rule(closed, "").replace("[rules.r]", "[rules.r]\nenabled = false");
    process(&disk, &off, async |process| {
        let mut bodies = serve_at(closed, "200 OK").await;
        assert_eq!(bodies.recv().await.unwrap(), "{\"v\":1}");
        until(|| outbox(&process.store, "r/ops") == 0).await;
    });
}

// ---- inside a broker

async fn broker(pipeline: &RulePipeline) -> Broker {
    broker_with(pipeline, BrokerConfig::default()).await
}

async fn broker_with(pipeline: &RulePipeline, config: BrokerConfig) -> Broker {
    let store = Arc::new(store::MemoryStore::new(1));
    let broker = Broker::new(config, store, Some(Arc::new(pipeline.clone())));
    pipeline.attach(Arc::new(broker.clone()));
    broker
}

fn publish(topic: &str, payload: &str) -> InternalPublish {
    InternalPublish {
        topic: topic.to_owned(),
        payload: payload.as_bytes().to_vec(),
        qos: QoS::AtMostOnce,
        retain: false,
        properties: vec![],
        message_expiry_interval_s: None,
        trail: broker::Trail::default(),
    }
}

#[tokio::test]
async fn rules_that_feed_each_other_stop() {
    let rule = |name: &str, from: &str, to: &str| {
        format!(
            "[rules.{name}]\nsql = \"SELECT * FROM '{from}'\"\n[[rules.{name}.actions]]\nname = 'a'\ntype = 'republish'\ntopic = '{to}'\n"
        )
    };
    let text =
        [rule("own", "own/#", "own/x"), rule("ping", "ping", "pong"), rule("pong", "pong", "ping")].concat();
    let pipeline = pipeline(&text);
    let broker = broker(&pipeline).await;
    broker.publish(publish("own/x", "{}")).await.unwrap();
    broker.publish(publish("ping", "{}")).await.unwrap();
    let counts = |rule: &str| {
        let stats = stats(&pipeline, rule);
        (stats.passed, stats.looped)
    };
    assert_eq!(counts("own"), (1, 1));
    assert_eq!(counts("ping"), (1, 1));
    assert_eq!(counts("pong"), (1, 0));
}

#[tokio::test]
async fn a_rule_on_its_own_error_topic_stops() {
    // Fails for every message, with the error action within the admission, and after the fact.
    for queued in [false, true] {
        let (address, _bodies) = server("400 Bad Request").await;
        let action = if queued {
            format!("type = 'http'\nurl = 'http://{address}/'")
        } else {
            "type = 'republish'\ntopic = 'out/${nothing}+'".to_owned()
        };
        let pipeline = pipeline(&format!(
            "[rules.r]\nsql = \"SELECT * FROM '#'\"\n[[rules.r.actions]]\nname = 'a'\n{action}\n[rules.r.error_action]\ntype = 'republish'\ntopic = 'errors/r'\n"
        ));
        let broker = broker(&pipeline).await;
        broker.publish(publish("in", "{}")).await.unwrap();
        let came_round = || {
            let stats = stats(&pipeline, "r");
            stats.looped > 0 || stats.passed > 1
        };
        while !came_round() {
            tokio::task::yield_now().await;
        }
        let stats = stats(&pipeline, "r");
        assert_eq!((stats.passed, stats.looped, stats.error_actions), (1, 1, 1), "queued: {queued}");
    }
}

#[tokio::test]
async fn a_ring_through_error_actions_ends_where_it_would_come_round() {
    let (address, _bodies) = server("400 Bad Request").await;
    let fails = |name: &str, from: &str, errors_to: &str| {
        format!(
            "[rules.{name}]\nsql = \"SELECT * FROM '{from}'\"\n[[rules.{name}.actions]]\nname = 'a'\ntype = 'http'\nurl = 'http://{address}/'\n[rules.{name}.error_action]\ntype = 'republish'\ntopic = '{errors_to}'\n"
        )
    };
    let republishes = |name: &str, from: &str, to: &str| {
        format!(
            "[rules.{name}]\nsql = \"SELECT * FROM '{from}'\"\n[[rules.{name}.actions]]\nname = 'a'\ntype = 'republish'\ntopic = '{to}'\n"
        )
    };
    for second in [republishes("second", "b", "a"), fails("second", "b", "a")] {
        let pipeline = pipeline(&[fails("first", "a", "b"), second].concat());
        let broker = broker(&pipeline).await;
        broker.publish(publish("a", "{}")).await.unwrap();
        let came_round = || {
            let stats = stats(&pipeline, "first");
            stats.looped > 0 || stats.passed > 1
        };
        while !came_round() {
            tokio::task::yield_now().await;
        }
        // Nothing is on its way any more: whatever the rules still held has run when this returns.
        pipeline.shutdown(Duration::from_secs(30)).await;
        let (first, second) = (stats(&pipeline, "first"), stats(&pipeline, "second"));
        assert_eq!((first.passed, first.looped, first.error_actions), (1, 1, 1));
        assert_eq!((second.passed, second.looped), (1, 0));
        assert_eq!((first.actions[1].requests, first.actions[1].refused), (1, 0));
        assert_eq!((first.error_actions_failed, second.error_actions_failed), (0, 0));
    }
}

#[tokio::test]
async fn an_error_action_after_the_fact_counts_among_the_hops() {
    let (address, _bodies) = server("400 Bad Request").await;
    let pipeline = pipeline(&http_rule(address, ""));
    let (sender, mut published) = mpsc::channel(10);
    pipeline.attach(Arc::new(Published(sender)));
    let mut message = Message::new("in/x", b"{}");
    message.trail = (100..107).fold(Trail::default(), |trail, rule| trail.with(rule));
    message.run(&pipeline);
    let document = published.recv().await.unwrap();
    assert_eq!(document.trail.rules().len(), 8);
    assert_eq!(document.trail.rules().get(..7), Some(message.trail.rules()), "the way that led to it");

    message.trail = message.trail.with(107);
    message.run(&pipeline);
    pipeline.shutdown(Duration::from_secs(30)).await;
    assert!(published.try_recv().is_err(), "eight rules are the limit");
    let stats = stats(&pipeline, "r");
    assert_eq!((stats.error_actions, stats.error_actions_failed), (2, 1));
    assert_eq!((stats.actions[1].requests, stats.actions[1].hop_limited), (1, 1));
}

#[tokio::test]
async fn a_publish_that_the_broker_refuses_sends_no_request() {
    // With a republish the message takes its way through admission in turns, without one in one go.
    for more in ["", "[[rules.r.actions]]\nname = 'copy'\ntype = 'republish'\ntopic = 'copy'\n"] {
        let (address, mut bodies) = server("200 OK").await;
        let pipeline = pipeline(&http_rule(address, more));
        let limits = broker::Limits { max_retained_messages: 1, ..broker::Limits::default() };
        let broker = broker_with(&pipeline, BrokerConfig { limits, ..BrokerConfig::default() }).await;
        let retained =
            |topic: &str, payload: &str| InternalPublish { retain: true, ..publish(topic, payload) };
        broker.publish(retained("in/first", "{\"v\":1}")).await.unwrap();
        let refused = broker.publish(retained("in/second", "{\"v\":2}")).await;
        assert!(matches!(refused, Err(broker::PublishError::Refused(_))), "{refused:?}");
        broker.publish(publish("in/second", "{\"v\":3}")).await.unwrap();
        pipeline.shutdown(Duration::from_secs(30)).await;
        assert_eq!(bodies.recv().await.unwrap(), "{\"v\":1}");
        assert_eq!(bodies.recv().await.unwrap(), "{\"v\":3}");
        assert!(bodies.try_recv().is_err());
        let stats = stats(&pipeline, "r");
        let delivery = stats.actions[0].delivery.as_ref().unwrap();
        assert_eq!((stats.passed, stats.actions[0].requests, delivery.received), (3, 2, 2));
        assert_eq!(stats.error_actions, 0);
    }
}

#[test]
fn the_document_is_what_the_manual_says() {
    let failures = [error_action::FailedAction {
        failed_action: "ops".to_owned(),
        failed_resource: "https://ops.example".to_owned(),
        error_message: "no".to_owned(),
    }];
    assert_eq!(
        serde_json::to_value(&failures).unwrap(),
        json!([{ "failedAction": "ops", "failedResource": "https://ops.example", "errorMessage": "no" }])
    );
}

#[tokio::test]
async fn undefined_in_an_action_is_blank_omitted_or_a_failure() {
    let rule = "[rules.r]\nsql = \"SELECT * FROM 'in'\"\n[[rules.r.actions]]\nname = 'a'\ntype = 'republish'\n\
                topic = 'out'\npayload = '{\"t\": ${t}, \"x\": ${x}}'\n";
    for (keys, expected) in [
        ("", Some(r#"{"t": 1, "x": null}"#)),
        ("undefined = 'null'", Some(r#"{"t": 1, "x": null}"#)),
        ("undefined = 'omit'", Some(r#"{"t":1}"#)),
        ("strict = false", Some(r#"{"t": 1, "x": null}"#)),
        ("strict = true", None),
    ] {
        let pipeline = pipeline(&format!("{rule}{keys}"));
        let made = Message::new("in", br#"{"t": 1}"#).run(&pipeline);
        let payloads: Vec<&[u8]> = made.iter().map(|republish| &*republish.payload).collect();
        assert_eq!(payloads, expected.iter().map(|text| text.as_bytes()).collect::<Vec<_>>(), "{keys}");
        let failed = stats(&pipeline, "r").actions[0].failed_render;
        assert_eq!(failed, u64::from(expected.is_none()), "{keys}");
    }
}

#[tokio::test]
async fn an_empty_output_fires_unless_the_rule_says_otherwise() {
    let rule = |sql: &str, keys: &str| {
        format!(
            "[rules.r]\nsql = \"{sql}\"\n{keys}\n[[rules.r.actions]]\nname = 'a'\ntype = 'republish'\ntopic = 'out'\n"
        )
    };
    for (sql, keys, payload, fires) in [
        ("SELECT x FROM 'in'", "", "{}", 1),
        ("SELECT x FROM 'in'", "skip_empty = false", "{}", 1),
        ("SELECT x FROM 'in'", "skip_empty = true", "{}", 0),
        ("SELECT x FROM 'in'", "skip_empty = true", r#"{"x":null}"#, 1),
        ("SELECT * FROM 'in'", "skip_empty = true", " { } ", 0),
        ("SELECT * FROM 'in'", "skip_empty = true", "{}x", 1),
        ("SELECT VALUE [] FROM 'in'", "skip_empty = true", "{}", 1),
    ] {
        let pipeline = pipeline(&rule(sql, keys));
        assert_eq!(
            Message::new("in", payload.as_bytes()).run(&pipeline).len(),
            fires,
            "{sql} {keys} {payload}"
        );
        let stats = stats(&pipeline, "r");
        assert_eq!((stats.matched, stats.passed, stats.no_output), (1, fires as u64, 1 - fires as u64));
    }
}

// ---- connectors

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
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
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
