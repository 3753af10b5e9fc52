//! A connection's place: in the broker, on its listener, among those of its address.
//!
//! Whoever comes when there is none left is told so, in the CONNACK to its CONNECT: closing without a word leaves a client to
//! guess. That costs a socket and a task for a moment, so no more than [`REFUSED_MAX`] are told at a time; those beyond are
//! closed at once.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use mqtt_protocol::ReasonCode;

use super::counts::AddressPlace;
use crate::broker::Shared;
use crate::listeners::Listener;

/// Connections at a time that wait to be told that there is no place for them.
const REFUSED_MAX: u32 = 64;

/// See the module. Given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    shared: Arc<Shared>,
    pub(crate) listener: Arc<Listener>,
    _address: Option<AddressPlace>,
    /// There is no place: what to say to the CONNECT.
    pub(crate) refusal: Option<(ReasonCode, &'static str)>,
}

impl Place {
    /// Takes a place. `None`: the connection is to be closed at once.
    pub(crate) fn take(
        shared: &Arc<Shared>,
        listener: &Arc<Listener>,
        address: Option<IpAddr>,
    ) -> Option<Self> {
        listener.connections.fetch_add(1, Ordering::AcqRel);
        shared.connections.fetch_add(1, Ordering::AcqRel);
        let place = Self {
            shared: Arc::clone(shared),
            listener: Arc::clone(listener),
            _address: None,
            refusal: None,
        };
        let fits = listener.connections.load(Ordering::Acquire) <= listener.max_connections
            && shared.connections.load(Ordering::Acquire) <= shared.config.limits.max_connections;
        if !fits {
            shared.metrics.limit_connections.add(1);
            return place.refused(ReasonCode::ServerBusy, "no more connections are allowed");
        }
        place.count_for(address)
    }

    /// Counts the connection for its address, once that is known. `None`: it is to be closed at once.
    pub(crate) fn count_for(mut self, address: Option<IpAddr>) -> Option<Self> {
        if self.refusal.is_some() {
            return Some(self);
        }
        match AddressPlace::take(&self.shared, address) {
            Ok(address) => {
                self._address = address;
                Some(self)
            }
            Err(()) => {
                self.shared.metrics.limit_connections_per_address.add(1);
                self.refused(ReasonCode::QuotaExceeded, "no more connections are allowed from this address")
            }
        }
    }

    /// Changes a place for one of those that are told, which doesn't count as a connection.
    fn refused(mut self, reason: ReasonCode, why: &'static str) -> Option<Self> {
        self.give_back();
        self.refusal = Some((reason, why));
        let before = self.shared.refused.fetch_add(1, Ordering::AcqRel);
        (before < REFUSED_MAX).then_some(self)
    }

    fn give_back(&self) {
        self.listener.connections.fetch_sub(1, Ordering::AcqRel);
        if self.shared.connections.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.shared.all_closed.notify_waiters();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.refusal.is_some() {
            self.shared.refused.fetch_sub(1, Ordering::AcqRel);
        } else {
            self.give_back();
        }
    }
}
