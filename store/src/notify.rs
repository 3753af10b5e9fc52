//! Wakes those who wait for a commit, beside the commits.
//!
//! To wake somebody costs microseconds, and with a hundred publishers there are a hundred to wake after each commit, while
//! the next batch waits already. So many are handed to a thread of their own; a few are woken on the spot, where a hand-over
//! would only add to what they wait.

use std::sync::mpsc::{Sender, channel};
use std::task::Waker;
use std::thread::JoinHandle;

/// So many are woken on the spot.
const FEW: usize = 8;

/// See the module. Dropping it waits until everybody is woken.
pub(crate) struct Notifier {
    many: Option<Sender<Vec<Waker>>>,
    thread: Option<JoinHandle<()>>,
}

impl Notifier {
    pub(crate) fn start() -> std::io::Result<Self> {
        let (many, handed) = channel::<Vec<Waker>>();
        let thread = std::thread::Builder::new()
            .name("store-notify".to_owned())
            .spawn(move || handed.into_iter().flatten().for_each(Waker::wake))?;
        Ok(Self { many: Some(many), thread: Some(thread) })
    }

    pub(crate) fn wake(&self, wakers: Vec<Waker>) {
        let wakers = match &self.many {
            // It comes back if the thread is gone: a waker has panicked there.
            Some(many) if wakers.len() > FEW => match many.send(wakers) {
                Ok(()) => return,
                Err(unsent) => unsent.0,
            },
            _ => wakers,
        };
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl Drop for Notifier {
    fn drop(&mut self) {
        drop(self.many.take());
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("waking those who wait for a commit has panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn few_are_woken_at_once_and_many_before_it_is_gone() {
        let count = Arc::new(Count(AtomicUsize::new(0)));
        let wakers = |count: &Arc<Count>, number| vec![Waker::from(Arc::clone(count)); number];
        let notifier = Notifier::start().unwrap();
        notifier.wake(wakers(&count, FEW));
        assert_eq!(count.0.load(Ordering::SeqCst), FEW);
        notifier.wake(wakers(&count, FEW + 1));
        drop(notifier);
        assert_eq!(count.0.load(Ordering::SeqCst), 2 * FEW + 1);
    }
}
