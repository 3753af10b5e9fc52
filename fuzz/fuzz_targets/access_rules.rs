//! Access rules in every notation, and what they decide: the first byte says which, then come the rules, a zero byte and what is
//! asked, a line for each: Client Identifier, user name, Topic Name, Topic Filter.
//!
//! - rules line by line, as in a file and in the configuration;
//! - an acl_file of Mosquitto's: what is imported is read as rules again;
//! - rules in JSON, as tokens and servers bring them.
//!
//! Nothing panics, what is imported is read as rules, and a Subscription that is allowed whole receives what it matches.
#![no_main]

use access::acl::{Request, Rules, Subject, Verdict, from_claims, from_mosquitto, parse_text};
use libfuzzer_sys::fuzz_target;
use mqtt_protocol::QoS;
use mqtt_protocol::topic::{matches, validate_topic_filter, validate_topic_name};

fn rules(kind: u8, text: &str) -> Option<Rules> {
    match kind % 3 {
        0 => parse_text(text, "fuzz").ok().map(Rules::new),
        1 => {
            let imported = from_mosquitto(text, "fuzz").ok()?;
            let read = parse_text(&imported.text, "imported").expect("what was written is read");
            Some(Rules::new(read))
        }
        _ => from_claims(&serde_json::from_str(text).ok()?).ok(),
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((kind, data)) = data.split_first() else { return };
    let mut parts = data.splitn(2, |byte| *byte == 0);
    let text = |part: Option<&[u8]>| part.and_then(|part| String::from_utf8(part.to_vec()).ok());
    let (Some(given), Some(asked)) = (text(parts.next()), text(parts.next())) else { return };
    let Some(rules) = rules(*kind, &given) else { return };
    for rule in rules.iter() {
        assert!(!rule.to_string().is_empty());
    }
    let mut lines = asked.split('\n');
    let mut line = || lines.next().unwrap_or_default();
    let (client_id, username, topic, filter) = (line(), line(), line(), line());
    let subject = Subject {
        client_id: Some(client_id).filter(|name| !name.is_empty()),
        username: Some(username).filter(|name| !name.is_empty()),
        groups: &[],
        address: None,
        listener: Some("tcp"),
    };
    let qos = QoS::AtMostOnce;
    let has_topic = validate_topic_name(topic).is_ok();
    if has_topic {
        let publish = |retain| rules.decide(&subject, Request::Publish { topic, qos, retain });
        assert_eq!(publish(true), publish(true));
        publish(false);
    }
    if validate_topic_filter(filter).is_err() {
        return;
    }
    let subscribe = rules.decide(&subject, Request::Subscribe { filter, qos });
    let whole = matches!(subscribe, Verdict::Allow { in_part: false, .. });
    if has_topic && whole && matches(filter, topic) {
        let receive = rules.decide(&subject, Request::Receive { topic });
        assert!(matches!(receive, Verdict::Allow { .. }), "{filter} is allowed whole, and {topic} is not: {receive:?}");
    }
});
