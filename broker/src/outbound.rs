//! What waits for one client's socket.
//!
//! Packets are appended to one byte buffer and leave in one write per turn. Small payloads are copied in (11 ns for a
//! hundred bytes, less than counting references); large ones, and those of a wide fan-out, are shared and written from
//! where they are. Buffers come from a small per-thread pool and go back when they are written, so that an idle
//! connection holds none.

use std::cell::RefCell;
use std::io::IoSlice;
use std::sync::Arc;

use crate::message::Message;

/// A payload of at least this many bytes is shared by its receivers, however few.
pub(crate) const SHARE_ALWAYS_BYTES: usize = 2048;
/// A payload of at least this many bytes is shared when it goes to more than [`SHARE_RECEIVERS`].
pub(crate) const SHARE_WIDE_BYTES: usize = 256;
/// See [`SHARE_WIDE_BYTES`].
pub(crate) const SHARE_RECEIVERS: usize = 64;

/// Slices handed to one vectored write.
const SLICES_MAX: usize = 64;
/// Buffers that a thread keeps: how many, how large one may be, and how large all may be together, in bytes.
const POOLED_BUFFERS: usize = 128;
const POOLED_BUFFER_BYTES: usize = 256 * 1024;
const POOLED_BYTES: usize = 4 * 1024 * 1024;
/// Capacity of a buffer that isn't from the pool.
const FIRST_BUFFER_BYTES: usize = 512;

/// Buffers to use again.
#[derive(Debug, Default)]
struct Pool {
    buffers: Vec<Vec<u8>>,
    bytes: usize,
}

thread_local! {
    static POOL: RefCell<Pool> = const { RefCell::new(Pool { buffers: Vec::new(), bytes: 0 }) };
}

fn pooled() -> Vec<u8> {
    let pooled = POOL.with_borrow_mut(|pool| {
        let buffer = pool.buffers.pop()?;
        pool.bytes -= buffer.capacity();
        Some(buffer)
    });
    pooled.unwrap_or_else(|| Vec::with_capacity(FIRST_BUFFER_BYTES))
}

fn give_back(mut buffer: Vec<u8>) {
    if buffer.capacity() == 0 || buffer.capacity() > POOLED_BUFFER_BYTES {
        return;
    }
    buffer.clear();
    POOL.with_borrow_mut(|pool| {
        if pool.buffers.len() < POOLED_BUFFERS && pool.bytes + buffer.capacity() <= POOLED_BYTES {
            pool.bytes += buffer.capacity();
            pool.buffers.push(buffer);
        }
    });
}

/// Packets to write, in order.
#[derive(Debug, Default)]
pub(crate) struct Outbound {
    bytes: Vec<u8>,
    shared: Vec<SharedPayload>,
    shared_bytes: usize,
}

/// A payload that belongs after the first `at` bytes of the buffer.
#[derive(Debug)]
struct SharedPayload {
    at: usize,
    message: Arc<Message>,
}

impl Outbound {
    /// Bytes waiting.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() + self.shared_bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where to append packets.
    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
        if self.bytes.capacity() == 0 {
            self.bytes = pooled();
        }
        &mut self.bytes
    }

    /// Appends a message's payload without copying it.
    pub(crate) fn share_payload(&mut self, message: &Arc<Message>) {
        if !message.payload().is_empty() {
            self.shared_bytes += message.payload().len();
            self.shared.push(SharedPayload { at: self.bytes.len(), message: Arc::clone(message) });
        }
    }

    /// Appends whole packets and leaves `packets` empty.
    pub(crate) fn append(&mut self, packets: &mut Vec<u8>) {
        if packets.is_empty() {
            return;
        }
        if self.bytes.capacity() == 0 {
            std::mem::swap(&mut self.bytes, packets);
        } else {
            self.bytes.extend_from_slice(packets);
            give_back(std::mem::take(packets));
        }
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Takes everything, to be written.
    pub(crate) fn take(&mut self) -> Writing {
        Writing { batch: std::mem::take(self), bytes_written: 0, shared_done: 0, shared_written: 0 }
    }
}

/// A batch on its way out.
#[derive(Debug, Default)]
pub(crate) struct Writing {
    batch: Outbound,
    bytes_written: usize,
    shared_done: usize,
    shared_written: usize,
}

impl Writing {
    /// Where to append packets that are to leave after everything else.
    pub(crate) fn tail(&mut self) -> &mut Vec<u8> {
        self.batch.buffer()
    }

    #[cfg(test)]
    fn remaining(&self) -> usize {
        let done: usize = self
            .batch
            .shared
            .iter()
            .take(self.shared_done)
            .map(|shared| shared.message.payload().len())
            .sum();
        self.batch.len() - self.bytes_written - done - self.shared_written
    }

    pub(crate) fn is_done(&self) -> bool {
        self.bytes_written >= self.batch.bytes.len() && self.shared_done >= self.batch.shared.len()
    }

    /// The rest as one slice, when nothing is shared.
    pub(crate) fn plain(&self) -> Option<&[u8]> {
        self.batch.shared.is_empty().then(|| self.batch.bytes.get(self.bytes_written..).unwrap_or_default())
    }

    /// The next slices to write, in order.
    pub(crate) fn slices(&self) -> smallvec::SmallVec<[IoSlice<'_>; SLICES_MAX]> {
        let mut slices = smallvec::SmallVec::new();
        let mut position = self.bytes_written;
        let mut skip = self.shared_written;
        for shared in self.batch.shared.iter().skip(self.shared_done) {
            if slices.len() + 2 > SLICES_MAX {
                return slices;
            }
            if shared.at > position {
                slices.push(IoSlice::new(self.batch.bytes.get(position..shared.at).unwrap_or_default()));
                position = shared.at;
            }
            slices.push(IoSlice::new(shared.message.payload().get(skip..).unwrap_or_default()));
            skip = 0;
        }
        if position < self.batch.bytes.len() && slices.len() < SLICES_MAX {
            slices.push(IoSlice::new(self.batch.bytes.get(position..).unwrap_or_default()));
        }
        slices
    }

    /// Notes that the first `written` bytes of [`Writing::slices`] are out.
    pub(crate) fn advance(&mut self, mut written: usize) {
        while written > 0 {
            let next = self.batch.shared.get(self.shared_done);
            let until = next.map_or(self.batch.bytes.len(), |shared| shared.at);
            let plain = until.saturating_sub(self.bytes_written).min(written);
            self.bytes_written += plain;
            written -= plain;
            if self.bytes_written < until {
                break;
            }
            let Some(shared) = next else { break };
            let rest = shared.message.payload().len() - self.shared_written;
            let part = rest.min(written);
            written -= part;
            self.shared_written += part;
            if part == rest {
                self.shared_done += 1;
                self.shared_written = 0;
            }
        }
        if self.is_done() {
            give_back(std::mem::take(&mut self.batch.bytes));
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use mqtt_protocol::QoS;
    use proptest::prelude::*;

    use super::Outbound;
    use crate::message::{Message, Publication, Trail};

    fn message(payload: &[u8]) -> Arc<Message> {
        Publication {
            id: store::MessageId::default(),
            namespace: 0,
            topic: "t",
            payload,
            qos: QoS::AtMostOnce,
            retain: false,
            properties: &[],
            expires_at_ms: None,
            received_at_ms: 0,
            publisher: None,
            trail: &Trail::default(),
            trace: None,
        }
        .to_message()
    }

    proptest! {
        #[test]
        fn everything_leaves_once_and_in_order_however_it_is_cut(
            parts in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..9)), 0..80),
            cuts in prop::collection::vec(1usize..20, 1..50),
        ) {
            let mut outbound = Outbound::default();
            let mut expected = Vec::new();
            for (shared, bytes) in &parts {
                expected.extend_from_slice(bytes);
                if *shared { outbound.share_payload(&message(bytes)) } else { outbound.buffer().extend_from_slice(bytes) }
            }
            prop_assert_eq!(outbound.len(), expected.len());
            let mut writing = outbound.take();
            let mut got = Vec::new();
            let mut cuts = cuts.into_iter().cycle();
            while !writing.is_done() {
                prop_assert_eq!(writing.remaining(), expected.len() - got.len());
                let all: Vec<u8> = match writing.plain() {
                    Some(rest) => rest.to_vec(),
                    None => writing.slices().iter().flat_map(|slice| slice.to_vec()).collect(),
                };
                prop_assert!(!all.is_empty());
                let cut = cuts.next().unwrap_or(1).min(all.len());
                got.extend_from_slice(&all[..cut]);
                writing.advance(cut);
            }
            prop_assert_eq!(got, expected);
        }
    }
}
