//! Reads the gateway's figures for a look.

use std::time::Duration;

use actions::delivery::CircuitState;
use store::Health;

use super::judge::{QueueReading, Reading, RuleReading, StoreReading};
use crate::metrics::Sources;
use crate::rules::ActionEntry;

/// The figures of this moment. Asks the disk, so it belongs where blocking is allowed. `at`: on a clock that never goes back.
pub(super) fn read(sources: &Sources, at: Duration, now_s: i64) -> Reading {
    let (entries, _) = sources.book.actions(None, usize::MAX, |entry| entry.delivery.is_some());
    let store = sources.store.as_ref().map_or(StoreReading::Sound, |store| match store.health() {
        Health::Sound => StoreReading::Sound,
        Health::Full { used, limit } => StoreReading::Full { used, limit },
        Health::Failed => StoreReading::Failed,
    });
    let certificates = sources.broker.certificates();
    Reading {
        at,
        queues: entries.iter().filter_map(queue).collect(),
        rules: sources.book.pipeline().stats().into_iter().map(rule).collect(),
        certificates: certificates
            .into_iter()
            .map(|(listener, expires_at_s)| (listener.to_string(), expires_at_s.saturating_sub(now_s)))
            .collect(),
        free_bytes: sources.store.as_ref().and_then(|store| store.free_bytes().ok()),
        store,
    }
}

fn queue(entry: &ActionEntry) -> Option<QueueReading> {
    let delivery = entry.delivery.as_ref()?;
    let health = &delivery.health;
    let is_down = health.circuit == CircuitState::Open && !delivery.is_paused;
    Some(QueueReading {
        name: entry.full_name(),
        items: delivery.queued,
        items_max: delivery.max_items,
        bytes: entry.disk_bytes.unwrap_or(0).max(delivery.bytes),
        bytes_max: delivery.max_bytes,
        oldest_age: delivery.oldest_age.unwrap_or_default(),
        is_paused: delivery.is_paused,
        down: is_down.then(|| health.cause.clone().unwrap_or_else(|| "it takes nothing".to_owned())),
    })
}

fn rule(stats: crate::rules::RuleStats) -> RuleReading {
    let of_actions: u64 = stats
        .actions
        .iter()
        .map(|action| action.failed_render + action.hop_limited + action.refused + action.backpressure)
        .sum();
    RuleReading {
        name: stats.name,
        matched: stats.matched,
        passed: stats.passed,
        failed: stats.failed_evaluation + of_actions,
        last_error: stats.last_error.map(|sample| sample.error),
    }
}
