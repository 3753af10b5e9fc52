//! Looks at the gateway from time to time: for the history, and for clients that are slow.
//!
//! A look at all sessions is worth its while only when something waits in memory, which one counter tells.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use tokio::task::JoinHandle;

use super::collect::Sources;
use super::history::{History, Resolution, STEP_S, Sample};
use super::kept::HistoryFile;
use super::slow::SlowSubscribers;
use crate::config;

/// What was seen.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) history: Mutex<History>,
    pub(crate) slow: Mutex<SlowSubscribers>,
}

/// Ends the looking when it is dropped.
#[derive(Debug)]
pub(crate) struct Observer(JoinHandle<()>);

impl Drop for Observer {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Observer {
    /// Begins to look, on the current tokio runtime. `None`: nothing is to be looked at.
    /// The history is kept in `data_dir`, if there is one.
    pub(crate) fn start(
        sources: Sources,
        config: &config::Metrics,
        seen: Arc<Seen>,
        data_dir: Option<PathBuf>,
    ) -> Option<Self> {
        if !config.history && config.slow_subscribers == 0 {
            return None;
        }
        let data_dir = data_dir.filter(|_| config.history);
        Some(Self(tokio::spawn(run(sources, config.clone(), seen, data_dir))))
    }
}

async fn run(sources: Sources, config: config::Metrics, seen: Arc<Seen>, data_dir: Option<PathBuf>) {
    let kept = data_dir.map(|data_dir| take_up(data_dir, Arc::clone(&seen)));
    let kept = match kept {
        Some(task) => task.await.inspect_err(|error| tracing::error!(%error, "the history isn't kept")).ok(),
        None => None,
    };
    let kept = Arc::new(Mutex::new(kept));
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut second = 0_u64;
    loop {
        ticks.tick().await;
        let is_due = config.history && second.is_multiple_of(STEP_S);
        second += 1;
        let (sources, config, seen) = (sources.clone(), config.clone(), Arc::clone(&seen));
        let kept = Arc::clone(&kept);
        let looked = tokio::task::spawn_blocking(move || {
            if is_due {
                let sample = sources.sample(now_ms());
                let is_of_a_minute = seen.history.lock().push(sample);
                if is_of_a_minute && let Some(kept) = &mut *kept.lock() {
                    let samples = seen.history.lock().since(i64::MIN, Resolution::Minute);
                    kept.add(&samples);
                }
            }
            if config.slow_subscribers > 0 {
                look(&sources, &config, &seen);
            }
        });
        if let Err(error) = looked.await {
            tracing::error!(%error, "a look at the gateway's figures broke off");
        }
    }
}

/// Reads what the run before has left.
fn take_up(data_dir: PathBuf, seen: Arc<Seen>) -> JoinHandle<HistoryFile> {
    tokio::task::spawn_blocking(move || {
        let (file, samples) = HistoryFile::open(&data_dir, now_ms());
        *seen.history.lock() = History::after(samples);
        file
    })
}

fn look(sources: &Sources, config: &config::Metrics, seen: &Seen) {
    let shown = usize::from(config.slow_subscribers);
    let something_waits = sources.broker.stats().queued_memory_bytes > 0;
    let waiting = if something_waits { sources.broker.session_queues(shown).slowest } else { Vec::new() };
    let slow_after_ms = u64::try_from(config.slow_after.as_duration().as_millis()).unwrap_or(u64::MAX);
    seen.slow.lock().look(&waiting, slow_after_ms, shown, now_ms());
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

impl Sources {
    /// The figures of this moment for the history.
    fn sample(&self, at_ms: i64) -> Sample {
        let store_bytes = self.store.as_ref().map_or(0, |store| store.log_bytes().0);
        Sample::new(at_ms, &self.broker.stats(), &self.book.pipeline().totals(), store_bytes)
    }
}
