//! What limits have in common, beyond the values in [`Limits`]: rates, counts of who is here, and the places that
//! connections take.
//!
//! What is over a rate waits: a connection in the accept queue of the system, a publish in the socket's buffer. Nothing is
//! dropped for it, and whoever waits sleeps. What is over a count is refused, and is told so where the protocol has a word for it.

mod bucket;
mod counts;
mod flow;
mod place;

use mqtt_protocol::UserProperties;

use crate::config::Limits;

pub(crate) use self::bucket::SharedBucket;
pub(crate) use self::counts::{Addresses, UserPlace, Users};
pub(crate) use self::flow::Flow;
pub(crate) use self::place::Place;

/// What one listener allows where it isn't what the broker allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ListenerLimits {
    /// Instead of [`Limits::max_packet_size`].
    pub max_packet_size: Option<u32>,
    /// Connections accepted in a second here, beside [`Limits::max_connect_rate`], which counts all listeners together;
    /// zero: any number.
    pub max_connect_rate: u32,
    /// Instead of [`Limits::max_publish_rate`].
    pub max_publish_rate: Option<u32>,
    /// Instead of [`Limits::max_publish_bytes_rate`].
    pub max_publish_bytes_rate: Option<u64>,
}

impl Limits {
    /// Whether one packet may have these User Properties.
    pub(crate) fn allow(&self, properties: &UserProperties<'_>) -> bool {
        properties.count() <= usize::from(self.max_user_properties)
            && properties.encoded_len() <= self.max_user_properties_bytes as usize
    }
}
