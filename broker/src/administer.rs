//! What an administrator does to a running broker: closes connections, ends sessions, forgets Retained Messages.

use mqtt_protocol::ReasonCode;
use store::{CommitToken, Record};

use crate::broker::{Broker, Shared};
use crate::dispatch::is_kept;

impl Broker {
    /// Closes a client's connection: an MQTT 5 client is told 0x98 (Administrative action). Its session stays as its expiry
    /// says, and its will is published. Returns whether the client was connected.
    #[must_use]
    pub fn disconnect(&self, client_id: &str) -> bool {
        let Some(session) = self.shared.sessions.find(client_id) else { return false };
        let mut inner = session.lock();
        let is_connected = inner.link.is_some();
        inner.close(ReasonCode::AdministrativeAction);
        is_connected
    }

    /// Ends a session, its connection too, and gives up what it was owed. Its will is published, as at every end of a session.
    /// Returns whether there was one, when that is safe.
    ///
    /// # Errors
    /// The store doesn't take it, or doesn't say that it has: the session is over, but may be back after a start.
    pub async fn end_session(&self, client_id: &str) -> Result<bool, ReasonCode> {
        let Some(session) = self.shared.sessions.find(client_id) else { return Ok(false) };
        let token = self.shared.take_out(&session, |inner| {
            // The connection that is told to close finds nothing left to keep.
            inner.expiry_interval_s = 0;
            inner.close(ReasonCode::AdministrativeAction);
            true
        });
        // Somebody else has ended it, or begun another one, this moment.
        let Some(token) = token else { return Ok(false) };
        self.shared.retire(&session);
        self.shared.safe(token?).await?;
        Ok(true)
    }

    /// Forgets the Retained Message of a topic; nobody is sent anything. Returns whether there was one, when that is safe.
    ///
    /// # Errors
    /// The store doesn't take it; then the message stays.
    pub async fn clear_retained(&self, topic: &str) -> Result<bool, ReasonCode> {
        let retained = &self.shared.retained;
        let token = {
            let _turn = retained.turn(retained.number(topic)).await;
            if retained.find(topic).is_none() {
                return Ok(false);
            }
            let token = match is_kept(topic) {
                true => self.shared.append(&[Record::RetainedCleared { topic }])?,
                false => CommitToken::NOTHING_OWED,
            };
            retained.clear(topic);
            token
        };
        self.shared.safe(token).await?;
        Ok(true)
    }
}

impl Shared {
    /// Returns when what the token stands for is safe.
    pub(crate) async fn safe(&self, token: CommitToken) -> Result<(), ReasonCode> {
        std::future::poll_fn(|cx| {
            if self.store.committed() >= token {
                return std::task::Poll::Ready(Ok(()));
            }
            self.store.wake_when_committed(token, cx.waker());
            if self.store.committed() < token && self.store.has_failed() {
                return std::task::Poll::Ready(Err(ReasonCode::ImplementationSpecificError));
            }
            std::task::Poll::Pending
        })
        .await
    }
}
