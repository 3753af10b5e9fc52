//! Runs: many QoS 0 publishes to one topic, one after the other in a read buffer.
//!
//! A QoS 0 PUBLISH without properties leaves the broker as it came: the bytes that a publisher of one version sent are
//! the bytes that receivers of that version get. So what stands together in the read buffer is handed on together: a
//! frame whose beginning is that of the frame before needs no decoding, and each receiver is locked once and gets one
//! copy of the whole run. Receivers that need something of their own (the other version, an alias, Subscription
//! Identifiers, a smaller Maximum Packet Size, a Shared Subscription) get their messages one by one.

use std::ops::Range;
use std::sync::Arc;

use mqtt_protocol::{Frame, Publish, QoS, UserProperties};

use super::Client;
use crate::broker::Shared;
use crate::clock::Now;
use crate::dispatch::{self, CHUNK};
use crate::message::Publisher;
use crate::metrics::tally;
use crate::outbound::{SHARE_ALWAYS_BYTES, SHARE_RECEIVERS, SHARE_WIDE_BYTES};
use crate::subscriptions::route::Route;
use crate::traced::{Sampled, Traced};

/// First byte of a PUBLISH at QoS 0 without DUP and RETAIN.
const PLAIN_PUBLISH: u8 = 0x30;

/// Where a frame stands in the buffer that is being handled.
#[derive(Debug, Clone, Default)]
pub(crate) struct Position {
    pub(crate) frame: Range<usize>,
    pub(crate) body_bytes: usize,
}

/// See the module. Offsets count from the beginning of the buffer that is being handled.
#[derive(Debug)]
pub(super) struct Run {
    route: Arc<Route>,
    frames: Range<usize>,
    /// What the body of every frame begins with: the topic, and in MQTT 5 the empty properties.
    head: Range<usize>,
    /// Largest frame that may join.
    frame_bytes_max: usize,
    longest: usize,
    count: u64,
    payload_bytes: u64,
}

/// Whether a fixed header of this length is as short as its body's length allows: others can't be handed on as they
/// are [MQTT-1.5.5-1, v5].
fn is_minimal(header_bytes: usize, body_bytes: usize) -> bool {
    let length_bytes = match body_bytes {
        0..128 => 1,
        128..16_384 => 2,
        16_384..2_097_152 => 3,
        _ => 4,
    };
    header_bytes == 1 + length_bytes
}

/// Whether the next message of a run is traced. `sampled` is what was found then.
fn is_sampled(
    shared: &Shared,
    publisher: &Publisher,
    input: &[u8],
    run: &Run,
    sampled: &mut Option<Box<Sampled>>,
) -> bool {
    let head = input.get(run.head.clone()).and_then(|head| head.split_first_chunk());
    let topic = head.and_then(|(length, rest)| rest.get(..usize::from(u16::from_be_bytes(*length))));
    let Some(topic) = topic.and_then(|topic| std::str::from_utf8(topic).ok()) else { return false };
    *sampled = Traced::sample(shared, topic, publisher, &UserProperties::NONE).map(Box::new);
    sampled.is_some()
}

impl Client {
    /// Begins a run with this publish, if it can be one. The route has no handler then, and nothing else to wait for.
    pub(super) fn begin_run(&mut self, publish: &Publish<'_>, position: &Position) -> bool {
        let is_plain = publish.qos == QoS::AtMostOnce
            && !publish.retain
            && publish.properties.topic_alias.is_none()
            && publish.properties.message_expiry_interval_s.is_none()
            && self.owed.is_empty();
        if !is_plain {
            return false;
        }
        if !is_minimal(position.frame.len() - position.body_bytes, position.body_bytes) {
            return false;
        }
        let head_bytes = 2 + publish.topic.len() + usize::from(self.version.has_properties());
        if head_bytes + publish.payload.len() != position.body_bytes {
            return false;
        }
        let route = self.shared.route(publish.topic);
        let receivers = route.receivers.len();
        // Payloads that receivers share instead of copying are not for runs.
        let payload_bytes_max = match receivers {
            0 | 1 => usize::MAX,
            2..=SHARE_RECEIVERS => SHARE_ALWAYS_BYTES - 1,
            _ => SHARE_WIDE_BYTES - 1,
        };
        if route.handler.is_some() || receivers > CHUNK || publish.payload.len() > payload_bytes_max {
            return false;
        }
        let body_at = position.frame.end - position.body_bytes;
        self.run = Some(Run {
            route,
            frames: position.frame.clone(),
            head: body_at..body_at + head_bytes,
            frame_bytes_max: payload_bytes_max.saturating_add(head_bytes),
            longest: position.frame.len(),
            count: 1,
            payload_bytes: publish.payload.len() as u64,
        });
        true
    }

    /// Takes a frame into the run that ends where it begins, if it is more of the same.
    pub(crate) fn extend_run(&mut self, input: &[u8], frame: &Frame<'_>, at: usize) -> bool {
        if self.is_throttled() {
            return false;
        }
        let Some(run) = &mut self.run else { return false };
        let joins = frame.first_byte == PLAIN_PUBLISH
            && run.frames.end == at
            && frame.len <= run.frame_bytes_max
            && is_minimal(frame.len - frame.body.len(), frame.body.len())
            && input.get(run.head.clone()).is_some_and(|head| frame.body.starts_with(head));
        if joins
            && self.shared.tracer.is_on()
            && is_sampled(&self.shared, &self.publisher, input, run, &mut self.sampled)
        {
            // It is handled by itself, so that its way can be told.
            return false;
        }
        if joins {
            run.frames.end += frame.len;
            run.longest = run.longest.max(frame.len);
            run.count += 1;
            let payload_bytes = (frame.body.len() - run.head.len()) as u64;
            run.payload_bytes += payload_bytes;
            tally(|tally| tally.received(QoS::AtMostOnce, payload_bytes));
        }
        joins
    }

    /// Hands the run on. Whatever comes after it in the buffer is handled after this.
    pub(crate) fn end_run(&mut self, input: &[u8], now: Now) {
        let Some(run) = self.run.take() else { return };
        let Some(frames) = input.get(run.frames) else { return };
        // The length of the topic, and the topic.
        let topic = run.head.start + 2..run.head.end - usize::from(self.version.has_properties());
        let run = dispatch::Frames {
            bytes: frames,
            topic: input.get(topic).unwrap_or_default(),
            version: self.version,
            longest: run.longest,
            count: run.count,
            payload_bytes: run.payload_bytes,
            route: run.route,
        };
        let slow = dispatch::forward(&self.shared, &run, &self.publisher, now);
        if let Some(slow) = slow {
            self.pause_for(slow);
        }
    }
}
