//! Rules that a client brings with it, in the claims of its token: EMQX's two forms.
//!
//! ```json
//! [{"permission": "allow", "action": "publish", "topic": "a/${clientid}", "qos": [0, 1], "retain": false}]
//! {"pub": ["a/b"], "sub": ["a/#"], "all": ["c"]}
//! ```
//!
//! The second form only allows. What isn't understood is a fault and not passed over: what was left out might have denied.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::parse::RULES_MAX;
use super::pattern::Pattern;
use super::rules::{ANY_QOS, Effect, Rule, Rules, Who};

/// What is wrong with the rules in a token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{at}: {message}")]
pub struct ClaimsError {
    /// The place, as in `acl[2].topic`.
    pub at: String,
    /// What is wrong, without the value.
    pub message: String,
}

/// Reads the value of a token's claim `acl`. The rules are for the client that shows the token, whoever that is.
///
/// # Errors
/// The first fault.
pub fn from_claims(claim: &Value) -> Result<Rules, ClaimsError> {
    rules_of(claim, "acl claim")
}

/// Reads rules of that form; `source` names where they come from.
pub(super) fn rules_of(claim: &Value, source: &str) -> Result<Rules, ClaimsError> {
    let source = Arc::from(source);
    let mut rules = Vec::new();
    match claim {
        Value::Array(entries) => {
            for (place, entry) in entries.iter().enumerate() {
                let at = format!("acl[{place}]");
                let entry = entry.as_object().ok_or_else(|| fault(&at, "expected an object"))?;
                rules.push(rule(&at, entry, &source, number(place))?);
            }
        }
        Value::Object(lists) => {
            for (name, topics) in lists {
                let at = format!("acl.{name}");
                let (publish, subscribe) = match name.as_str() {
                    "pub" => (true, false),
                    "sub" => (false, true),
                    "all" => (true, true),
                    _ => return Err(fault("acl", "expected `pub`, `sub` and `all` only")),
                };
                let topics = topics.as_array().ok_or_else(|| fault(&at, "expected a list of filters"))?;
                for topic in topics {
                    let line = number(rules.len());
                    rules.push(Rule { publish, subscribe, ..allowed(&at, topic, &source, line)? });
                }
            }
        }
        _ => return Err(fault("acl", "expected a list of rules, or an object of lists")),
    }
    if rules.len() > RULES_MAX {
        return Err(fault("acl", &format!("has {} rules, more than the limit of {RULES_MAX}", rules.len())));
    }
    Ok(Rules::new(rules))
}

fn fault(at: &str, message: &str) -> ClaimsError {
    ClaimsError { at: at.to_owned(), message: message.to_owned() }
}

fn number(place: usize) -> u32 {
    u32::try_from(place + 1).unwrap_or(u32::MAX)
}

fn allowed(at: &str, topic: &Value, source: &Arc<str>, line: u32) -> Result<Rule, ClaimsError> {
    let topic = topic.as_str().ok_or_else(|| fault(at, "expected a filter"))?;
    if topic.starts_with("eq ") {
        return Err(fault(
            at,
            "`eq` has no equal here: a filter is compared as the set of topics that it matches",
        ));
    }
    let pattern = Pattern::parse(topic).map_err(|error| fault(at, &error.to_string()))?;
    Ok(Rule {
        effect: Effect::Allow,
        publish: false,
        subscribe: false,
        qos: ANY_QOS,
        retain: None,
        who: Who::default(),
        pattern,
        text: topic.into(),
        source: Arc::clone(source),
        line,
    })
}

fn rule(at: &str, entry: &Map<String, Value>, source: &Arc<str>, line: u32) -> Result<Rule, ClaimsError> {
    let known = ["permission", "action", "topic", "qos", "retain"];
    if entry.keys().any(|key| !known.contains(&key.as_str())) {
        return Err(fault(at, "expected `permission`, `action`, `topic`, `qos` and `retain` only"));
    }
    let place = |key: &str| format!("{at}.{key}");
    let text = |key: &str| entry.get(key).and_then(Value::as_str);
    let effect = match text("permission") {
        Some("allow") => Effect::Allow,
        Some("deny") => Effect::Deny,
        _ => return Err(fault(&place("permission"), "expected \"allow\" or \"deny\"")),
    };
    let action = text("action");
    let (publish, subscribe) = match action {
        Some("publish") => (true, false),
        Some("subscribe") => (false, true),
        Some("all") => (true, true),
        _ => return Err(fault(&place("action"), "expected \"publish\", \"subscribe\" or \"all\"")),
    };
    let qos = match entry.get("qos") {
        None => ANY_QOS,
        Some(Value::Array(list)) if !list.is_empty() => {
            list.iter().try_fold(0, |bits, qos| Ok(bits | qos_bit(&place("qos"), qos)?))?
        }
        Some(one) => qos_bit(&place("qos"), one)?,
    };
    let retain = match entry.get("retain") {
        None => None,
        Some(Value::Bool(retain)) => Some(*retain),
        Some(Value::String(all)) if all == "all" => None,
        Some(_) => return Err(fault(&place("retain"), "expected true, false or \"all\"")),
    };
    let topic = entry.get("topic").ok_or_else(|| fault(at, "has no `topic`"))?;
    let rule = allowed(&place("topic"), topic, source, line)?;
    let permission = if effect == Effect::Allow { "allow" } else { "deny" };
    let text = format!("{permission} {} \"{}\"", action.unwrap_or_default(), rule.text).into();
    Ok(Rule { effect, publish, subscribe, qos, retain, text, ..rule })
}

fn qos_bit(at: &str, qos: &Value) -> Result<u8, ClaimsError> {
    match qos.as_u64() {
        Some(qos @ 0..=2) => Ok(1 << qos),
        _ => Err(fault(at, "expected 0, 1 or 2, or a list of them")),
    }
}

#[cfg(test)]
mod tests {
    use mqtt_protocol::QoS;
    use serde_json::json;

    use super::super::{Request, Subject, Verdict};
    use super::*;

    const CLIENT: Subject<'_> =
        Subject { client_id: Some("c"), username: Some("u"), groups: &[], address: None, listener: None };

    fn told(rules: &Rules, request: Request<'_>) -> Option<bool> {
        match rules.decide(&CLIENT, request) {
            Verdict::Allow { .. } => Some(true),
            Verdict::Deny { .. } => Some(false),
            Verdict::Unmatched { .. } => None,
        }
    }

    #[test]
    fn a_list_of_rules_is_read_in_its_order() {
        let rules = from_claims(&json!([
            { "permission": "deny", "action": "publish", "topic": "s/x" },
            { "permission": "allow", "action": "publish", "topic": "s/${clientid}", "qos": [0, 1], "retain": false },
            { "permission": "allow", "action": "all", "topic": "s/#", "qos": 2, "retain": "all" },
        ]))
        .unwrap();
        let publish = |topic, qos, retain| told(&rules, Request::Publish { topic, qos, retain });
        assert_eq!(publish("s/x", QoS::ExactlyOnce, false), Some(false));
        assert_eq!(publish("s/c", QoS::AtLeastOnce, false), Some(true));
        assert_eq!(publish("s/c", QoS::AtLeastOnce, true), None);
        assert_eq!(publish("s/c", QoS::ExactlyOnce, true), Some(true));
        assert_eq!(publish("s/d", QoS::AtMostOnce, false), None);
        assert_eq!(told(&rules, Request::Subscribe { filter: "s/+", qos: QoS::ExactlyOnce }), Some(true));
        let Verdict::Deny { by } =
            rules.decide(&CLIENT, Request::Publish { topic: "s/x", qos: QoS::AtMostOnce, retain: false })
        else {
            panic!("denied")
        };
        assert_eq!(by.to_string(), "acl claim:1: deny publish \"s/x\"");
    }

    #[test]
    fn an_object_of_lists_allows() {
        let rules = from_claims(&json!({ "pub": ["p/${username}"], "sub": ["s/#"], "all": ["a"] })).unwrap();
        let publish = |topic| told(&rules, Request::Publish { topic, qos: QoS::AtMostOnce, retain: true });
        let subscribe = |filter| told(&rules, Request::Subscribe { filter, qos: QoS::AtMostOnce });
        assert_eq!((publish("p/u"), subscribe("p/u")), (Some(true), None));
        assert_eq!((publish("s/x"), subscribe("s/x")), (None, Some(true)));
        assert_eq!((publish("a"), subscribe("a")), (Some(true), Some(true)));
        assert!(from_claims(&json!({})).unwrap().is_empty());
        assert!(from_claims(&json!([])).unwrap().is_empty());
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for (claim, expected) in [
            (json!("all"), "acl: expected a list of rules"),
            (json!(null), "acl: expected a list of rules"),
            (json!({ "publish": [] }), "acl: expected `pub`"),
            (json!({ "pub": "a" }), "acl.pub: expected a list"),
            (json!({ "pub": [1] }), "acl.pub: expected a filter"),
            (json!({ "pub": ["a/#/b"] }), "acl.pub: the filter has"),
            (json!(["a"]), "acl[0]: expected an object"),
            (json!([{ "action": "all", "topic": "a" }]), "acl[0].permission"),
            (json!([{ "permission": "allow", "topic": "a" }]), "acl[0].action"),
            (json!([{ "permission": "allow", "action": "all" }]), "has no `topic`"),
            (json!([{ "permission": "allow", "action": "all", "topic": "eq a" }]), "`eq`"),
            (json!([{ "permission": "allow", "action": "all", "topic": "a", "qos": 3 }]), "acl[0].qos"),
            (json!([{ "permission": "allow", "action": "all", "topic": "a", "qos": [] }]), "acl[0].qos"),
            (json!([{ "permission": "allow", "action": "all", "topic": "a", "retain": 1 }]), "acl[0].retain"),
            (json!([{ "permission": "allow", "action": "all", "topic": "a", "who": "u" }]), "only"),
            (json!([{ "permission": "allow", "action": "all", "topic": "${ip}" }]), "acl[0].topic"),
        ] {
            let error = from_claims(&claim).unwrap_err().to_string();
            assert!(error.contains(expected), "{claim}: {error}");
        }
        let entry = json!({ "permission": "allow", "action": "all", "topic": "a" });
        assert!(from_claims(&Value::Array(vec![entry.clone(); RULES_MAX])).is_ok());
        let error = from_claims(&Value::Array(vec![entry; RULES_MAX + 1])).unwrap_err().to_string();
        assert!(error.contains("limit of 10000"), "{error}");
    }
}
