//! The first span of a message that is traced: from its receipt until every receiver has it in its queue, or it is refused.
//!
//! A [`Traced`] is made before anything else is done with the message, and told whatever becomes of it. What isn't traced has
//! none. A refusal of a message that isn't traced makes a trace of its own.

use std::sync::Arc;

use mqtt_protocol::{ProtocolVersion, PublishProperties, ReasonCode, UserProperties};
use trace::{Context, Kind, Span, TRACEPARENT, Tracer};

use crate::broker::Shared;
use crate::listeners::PeerAddress;
use crate::message::{Publication, Publisher};
use crate::subscriptions::route::Route;

/// Receivers that are named.
const RECEIVERS_TOLD_MAX: usize = 16;

/// What sampling found: the context of the first span, and its parent.
pub(crate) type Sampled = (Context, Option<u64>);

/// The first span of a message.
pub(crate) struct Traced {
    tracer: Arc<Tracer>,
    span: Span,
}

impl Traced {
    /// Whether a client's publish is traced.
    pub(crate) fn sample(
        shared: &Shared,
        topic: &str,
        publisher: &Publisher,
        properties: &UserProperties<'_>,
    ) -> Option<Sampled> {
        shared.tracer.sample(topic, Some(&publisher.client_id), || traceparent(properties))
    }

    /// Whether a message that no client's packet brought just now is traced, and the trace if it is.
    pub(crate) fn of(shared: &Shared, publication: &Publication<'_>) -> Option<Box<Self>> {
        if !shared.tracer.is_on() || publication.topic.starts_with('$') {
            return None;
        }
        let properties = PublishProperties::from_encoded(publication.properties).unwrap_or_default();
        let client_id = publication.publisher.map(|publisher| &*publisher.client_id);
        let sampled = shared
            .tracer
            .sample(publication.topic, client_id, || traceparent(&properties.user_properties))?;
        let mut traced =
            Self::begin(shared, sampled, publication.topic, publication.publisher.map(|it| &**it));
        traced.describe(publication);
        Some(traced)
    }

    /// The span of a message whose trace a rule has begun.
    pub(crate) fn of_rule(shared: &Shared, context: Context, publication: &Publication<'_>) -> Box<Self> {
        let publisher = publication.publisher.map(|publisher| &**publisher);
        let mut traced = Self::begin(shared, (context, None), publication.topic, publisher);
        traced.describe(publication);
        traced
    }

    /// The span of a message that was chosen.
    pub(crate) fn begin(
        shared: &Shared,
        (context, parent): Sampled,
        topic: &str,
        publisher: Option<&Publisher>,
    ) -> Box<Self> {
        let mut span = Span::of(context, parent, Kind::Publish, "receive")
            .with("messaging.system", "mqtt")
            .with("messaging.operation.name", "receive")
            .with("messaging.operation.type", "receive")
            .with("messaging.destination.name", topic);
        if let Some(publisher) = publisher {
            span.set("messaging.client.id", &*publisher.client_id);
            match publisher.address {
                PeerAddress::Ip(address) => {
                    span.set("network.peer.address", address.ip().to_canonical().to_string());
                    span.set("network.peer.port", u32::from(address.port()));
                }
                PeerAddress::Unix => span.set("network.transport", "unix"),
            }
            span.set("tidegate.listener", &*publisher.listener);
            if let Some(username) = publisher.username() {
                span.set("user.name", username);
            }
        }
        Box::new(Self { tracer: Arc::clone(&shared.tracer), span })
    }

    /// Says which version of MQTT the client speaks that it came from.
    pub(crate) fn spoken(mut self: Box<Self>, version: ProtocolVersion) -> Box<Self> {
        self.span.set("network.protocol.name", "mqtt");
        self.span.set(
            "network.protocol.version",
            match version {
                ProtocolVersion::V3_1 => "3.1",
                ProtocolVersion::V3_1_1 => "3.1.1",
                ProtocolVersion::V5 => "5",
            },
        );
        self
    }

    /// Says what is known once the message is made up.
    pub(crate) fn describe(&mut self, publication: &Publication<'_>) {
        let id = publication.id;
        self.span.set("messaging.message.id", format!("{:016x}.{}-{}", id.store, id.epoch, id.sequence));
        self.span.set("messaging.message.body.size", publication.payload.len());
        self.span.set("tidegate.qos", publication.qos as u8);
        self.span.set("tidegate.retain", publication.retain);
    }

    /// What those who do something with the message take as their parent.
    pub(crate) fn context(&self) -> &Context {
        &self.span.context
    }

    /// The message got nowhere.
    pub(crate) fn refused(mut self: Box<Self>, reason: ReasonCode) {
        self.span.set("tidegate.reason_code", reason as u8);
        self.span.set("error.type", reason.to_string());
        self.span.fail(&format!("refused: {reason}"));
        self.tracer.finish(self.span);
    }

    /// Every receiver has it in its queue.
    pub(crate) fn done(mut self: Box<Self>, matched: bool) {
        self.span.set("tidegate.matched", matched);
        self.tracer.finish(self.span);
    }
}

/// Tells of a publish that was refused, whether or not it was to be traced.
pub(crate) fn tell_refused(
    shared: &Shared,
    sampled: Option<Sampled>,
    topic: &str,
    publisher: &Publisher,
    reason: ReasonCode,
) {
    let sampled = sampled.or_else(|| Some((shared.tracer.begin_for_error()?, None)));
    if let Some(sampled) = sampled {
        Traced::begin(shared, sampled, topic, Some(publisher)).refused(reason);
    }
}

/// Tells to whom a message goes.
pub(crate) fn tell_route(shared: &Shared, context: &Context, route: &Route) {
    let (receivers, groups) = (route.receivers.len(), route.groups.len());
    let mut span = Span::child(*context, Kind::Route, "route")
        .with("tidegate.receivers", receivers)
        .with("tidegate.shared_groups", groups);
    let mut names = String::new();
    for receiver in route.receivers.iter().take(RECEIVERS_TOLD_MAX) {
        if !names.is_empty() {
            names.push_str(", ");
        }
        names.push_str(receiver.session.key().client_id);
    }
    if receivers > RECEIVERS_TOLD_MAX {
        names.push_str(", …");
    }
    if !names.is_empty() {
        span.set("tidegate.receivers.client_ids", names);
    }
    shared.tracer.finish(span);
}

fn traceparent<'a>(properties: &UserProperties<'a>) -> Option<&'a str> {
    properties.iter().find(|(name, _)| *name == TRACEPARENT).map(|(_, value)| value)
}
