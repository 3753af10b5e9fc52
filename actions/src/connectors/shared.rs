//! One connection for all actions of a connector, made when it is first needed and made anew after it broke.

use std::future::Future;

use tokio::sync::Mutex;

use crate::delivery::DeliveryError;

/// A connection that many use at a time. While one of them connects, the others wait for what it gets.
pub(crate) struct Shared<C>(Mutex<Slot<C>>);

struct Slot<C> {
    connection: Option<C>,
    /// How many there have been.
    generation: u64,
}

impl<C> Default for Shared<C> {
    fn default() -> Self {
        Self(Mutex::new(Slot { connection: None, generation: 0 }))
    }
}

impl<C: Clone> Shared<C> {
    /// The connection, made by `connect` if there is none, with a number that tells it from others. `connect` must end in
    /// bounded time.
    pub(crate) async fn get<F>(&self, connect: impl FnOnce() -> F) -> Result<(C, u64), DeliveryError>
    where
        F: Future<Output = Result<C, DeliveryError>>,
    {
        let mut slot = self.0.lock().await;
        if let Some(connection) = &slot.connection {
            return Ok((connection.clone(), slot.generation));
        }
        let connection = connect().await?;
        slot.connection = Some(connection.clone());
        slot.generation += 1;
        Ok((connection, slot.generation))
    }

    /// Gives up the connection of this number, unless it is another one by now.
    pub(crate) async fn discard(&self, generation: u64) {
        let mut slot = self.0.lock().await;
        if slot.generation == generation {
            slot.connection = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_is_kept_until_it_is_discarded() {
        let shared = Shared::default();
        let (one, first) = shared.get(async || Ok(1)).await.unwrap();
        assert_eq!(one, 1);
        assert_eq!(shared.get(async || Ok(2)).await.unwrap(), (1, first));
        shared.discard(first).await;
        let failed = shared.get(async || Err(DeliveryError::NotAttempted)).await;
        assert_eq!(failed, Err(DeliveryError::NotAttempted));
        let (two, second) = shared.get(async || Ok(2)).await.unwrap();
        assert_eq!(two, 2);
        // Whoever finds the first one broken only now doesn't harm the second.
        shared.discard(first).await;
        assert_eq!(shared.get(async || Ok(3)).await.unwrap(), (2, second));
    }
}
