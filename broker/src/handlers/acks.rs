//! PUBACK, PUBREC and PUBCOMP from a client that receives.

use mqtt_protocol::{Ack, ReasonCode};

use super::{Client, Flow};
use crate::clock::Now;
use crate::connection::Close;
use crate::session::state::AckError;

impl Client {
    pub(super) fn puback(&mut self, ack: &Ack<'_>, now: Now) -> Result<Flow, Close> {
        let result = self.mine()?.state.puback(ack.packet_id);
        self.acknowledged(result, now)
    }

    pub(super) fn pubrec(&mut self, ack: &Ack<'_>, now: Now) -> Result<Flow, Close> {
        let mut inner = self.mine()?;
        let result = inner.state.pubrec(ack.packet_id, ack.reason_code.is_error());
        let waiting = inner.state.out.len();
        drop(inner);
        self.output_is_full = waiting > self.shared.config.limits.max_outbound_bytes as usize;
        let flow = self.acknowledged(result, now)?;
        Ok(if self.output_is_full { Flow::Wait } else { flow })
    }

    pub(super) fn pubcomp(&mut self, ack: &Ack<'_>, now: Now) -> Result<Flow, Close> {
        let result = self.mine()?.state.pubcomp(ack.packet_id);
        self.acknowledged(result, now)
    }

    /// There may be room in the window now. What the session itself has queued is sent with this turn's write; its
    /// groups are asked here.
    fn acknowledged(&mut self, result: Result<(), AckError>, now: Now) -> Result<Flow, Close> {
        match result {
            Ok(()) => {
                self.pump_groups(now);
                Ok(Flow::GoOn)
            }
            // An identifier that isn't in use may be left from before the session was lost: not an error.
            Err(AckError::Unknown) => Ok(Flow::GoOn),
            Err(AckError::Unexpected) => Err(self.violation(
                ReasonCode::ProtocolError,
                "an acknowledgement that doesn't fit the message's QoS",
            )),
        }
    }
}
