//! What access rules decide about a request, in words: the decision, and what it is for.
//!
//! The same rules are asked in the same order as when a client asks. Of a client that isn't connected only the configuration's rules are
//! known: those that it would bring along, or that a server has for it, it gets when it comes in.

use std::sync::Arc;

use access::acl::{Request, Rules, Subject};
use broker::Publisher;
use mqtt_protocol::QoS;
use mqtt_protocol::topic::{ParsedFilter, parse_filter, validate_topic_name};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::Access;
use super::acl::{self, Found, OPEN, OWN_TOPICS};

/// A decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Ruling {
    /// Yes.
    Allow,
    /// To a Subscription, yes; but an earlier rule denies some of its topics, so that each message is asked about.
    AllowInPart,
    /// No.
    Deny,
}

/// A decision, and what it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Explained {
    pub(crate) ruling: Ruling,
    /// The rule with its place, or that there is none.
    pub(crate) by: String,
}

impl Explained {
    fn new(ruling: Ruling, by: impl Into<String>) -> Self {
        Self { ruling, by: by.into() }
    }

    pub(super) fn of(found: &Found<'_>, otherwise: &str) -> Self {
        match found {
            Found::Allow { by, in_part: false } => Self::new(Ruling::Allow, by.to_string()),
            Found::Allow { by, in_part: true } => Self::new(Ruling::AllowInPart, by.to_string()),
            Found::Deny { by: Some(by) } => Self::new(Ruling::Deny, by.to_string()),
            Found::Deny { by: None } => Self::new(Ruling::Deny, otherwise),
        }
    }

    /// Reads it back from an answer of the interface.
    pub(crate) fn from_answer(answer: &Value) -> Option<Self> {
        let ruling = Ruling::deserialize(answer.get("decision")?).ok()?;
        Some(Self::new(ruling, answer.get("by")?.as_str()?))
    }

    /// For people, in one line.
    pub(crate) fn line(&self) -> String {
        let by = &self.by;
        match self.ruling {
            Ruling::Allow => format!("allow: {by}"),
            Ruling::AllowInPart => format!(
                "allow in part: {by} (an earlier rule denies some of its topics: each message is asked about)"
            ),
            Ruling::Deny => format!("deny: {by}"),
        }
    }
}

/// What a client may want, as text.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Wanted<'a> {
    /// Topic Name of a publish.
    pub(crate) publish: Option<&'a str>,
    /// Topic Filter of a Subscription.
    pub(crate) subscribe: Option<&'a str>,
    /// Topic Name of a message that comes through a Subscription.
    pub(crate) receive: Option<&'a str>,
    /// Of the publish or the Subscription.
    pub(crate) qos: u8,
    /// Whether the publish is to be retained.
    pub(crate) retain: bool,
}

impl<'a> Wanted<'a> {
    /// The same as a request.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub(crate) fn request(self) -> Result<Request<'a>, String> {
        let qos = QoS::try_from(self.qos).map_err(|_| format!("qos: {} is none of 0, 1 and 2", self.qos))?;
        let name = |topic: &'a str| match validate_topic_name(topic) {
            Ok(()) => Ok(topic),
            Err(error) => Err(format!("the topic \"{topic}\" {error}")),
        };
        if self.retain && self.publish.is_none() {
            return Err("retain: a publish alone is retained".to_owned());
        }
        match (self.publish, self.subscribe, self.receive) {
            (Some(topic), None, None) => {
                Ok(Request::Publish { topic: name(topic)?, qos, retain: self.retain })
            }
            (None, None, Some(topic)) => Ok(Request::Receive { topic: name(topic)? }),
            (None, Some(filter), None) => match parse_filter(filter) {
                Ok(ParsedFilter::Plain(filter)) => Ok(Request::Subscribe { filter, qos }),
                // The rules speak of the filter inside.
                Ok(ParsedFilter::Shared(shared)) => Ok(Request::Subscribe { filter: shared.filter, qos }),
                Err(error) => Err(format!("the filter \"{filter}\" {error}")),
            },
            _ => Err("expected one of publish, subscribe and receive".to_owned()),
        }
    }
}

/// What no rule is asked about.
fn without_rules(request: Request<'_>) -> Option<Explained> {
    match request {
        Request::Publish { topic, .. } if topic.starts_with('$') => {
            Some(Explained::new(Ruling::Deny, OWN_TOPICS))
        }
        _ => None,
    }
}

/// What the rules of a configuration decide; `None` where it has none.
pub(crate) fn explain(rules: Option<&Rules>, subject: &Subject<'_>, request: Request<'_>) -> Explained {
    without_rules(request).unwrap_or_else(|| match rules {
        Some(rules) => Explained::of(&acl::ask([Some(rules)], subject, request), acl::NO_RULE),
        None => Explained::new(Ruling::Allow, OPEN),
    })
}

impl Access {
    /// What the rules that hold decide about somebody who isn't connected.
    pub(crate) fn explain(&self, subject: &Subject<'_>, request: Request<'_>) -> Explained {
        explain(self.rules().as_deref(), subject, request)
    }

    /// What is decided about a client that is connected, by its own rules too.
    pub(crate) fn explain_client(&self, who: &Publisher, request: Request<'_>) -> Explained {
        without_rules(request).unwrap_or_else(|| acl::explain(self.current.load().acl.as_ref(), who, request))
    }

    /// The configuration's rules that hold; `None`: everything is allowed.
    pub(crate) fn rules(&self) -> Option<Arc<Rules>> {
        self.current.load().acl.as_ref().map(|acl| Arc::clone(&acl.rules))
    }

    /// Whether a server has rules for single clients.
    pub(crate) fn asks_server(&self) -> bool {
        self.current.load().http.is_some()
    }
}
