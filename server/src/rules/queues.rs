//! The actions that there are, how each does, and what an operator does to their queues.
//!
//! An action is listed as long as its rule is there, whether that runs or not, and beyond that as long as its outbox is still
//! being sent.

use std::collections::BTreeMap;
use std::sync::Arc;

use actions::delivery::CircuitState;
use actions::{Outlet, Purge, Snapshot};
use serde::{Deserialize, Serialize};

use super::counters::ActionStats;
use super::file::LoadedRule;
use super::pipeline::{Registry, RulePipeline};
use super::rulebook::Suspension;

/// How an action does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ActionState {
    /// It sends what comes.
    Running,
    /// The last attempt failed in a way that may pass: it tries again by itself.
    Waiting,
    /// The far side refuses everything from it as it is configured: somebody has to act.
    Refused,
    /// An operator has stopped it.
    Paused,
    /// Its rule doesn't run, or it is gone: what it owes is still being sent.
    Draining,
    /// Its rule doesn't run, and it owes nothing.
    Stopped,
}

/// One action as it is.
#[derive(Debug, Clone, PartialEq)]
pub struct ActionEntry {
    /// Name of its rule.
    pub rule: String,
    /// Its own.
    pub name: String,
    /// Its `type`; `None`: the action is gone, and what it owes is still being sent.
    pub kind: Option<&'static str>,
    /// What it acts upon; without path and query, which may hold a secret.
    pub resource: Option<String>,
    /// The connector that it names.
    pub connector: Option<String>,
    /// How it does.
    pub state: ActionState,
    /// Who paused it.
    pub paused: Option<Suspension>,
    /// Whether it sends from a queue at all. A republish doesn't.
    pub has_queue: bool,
    /// Its counters, while its rule runs.
    pub stats: Option<ActionStats>,
    /// Its queue, while something sends from it.
    pub delivery: Option<Snapshot>,
    /// Bytes that its queue takes on disk, where that is kept there.
    pub disk_bytes: Option<u64>,
}

impl ActionEntry {
    /// As `rule/action`.
    #[must_use]
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.rule, self.name)
    }
}

/// A place in the list, with the rule that is loaded there.
type Places = BTreeMap<(String, String), Option<Arc<LoadedRule>>>;

impl RulePipeline {
    /// Shows actions in the order of their rules' and their own names, from behind `after` on, as long as `visit` wants more.
    pub(super) fn each_action(
        &self,
        after: Option<(&str, &str)>,
        mut visit: impl FnMut(ActionEntry) -> bool,
    ) {
        let places = places(&self.shared.registry.lock(), after);
        for ((rule, action), loaded) in places {
            if let Some(entry) = self.entry(&rule, &action, loaded.as_deref())
                && !visit(entry)
            {
                break;
            }
        }
    }

    /// One action.
    pub(super) fn action(&self, rule: &str, action: &str) -> Option<ActionEntry> {
        let loaded = self.shared.registry.lock().loaded.iter().find(|loaded| loaded.name == rule).cloned();
        let has_it = |loaded: &LoadedRule| loaded.all_actions().any(|found| found.config.name() == action);
        self.entry(rule, action, loaded.as_deref().filter(|loaded| has_it(loaded)))
    }

    /// `None`: there is no such action any more.
    fn entry(&self, rule: &str, action: &str, loaded: Option<&LoadedRule>) -> Option<ActionEntry> {
        let config = loaded
            .and_then(|loaded| loaded.all_actions().find(|found| found.config.name() == action))
            .map(|found| &found.config);
        let running = self.shared.rule(rule);
        let stats = running.as_ref().and_then(|running| running.action_stats(action));
        let outlet = self.outlet_named(rule, action);
        if config.is_none() && outlet.is_none() {
            return None;
        }
        let delivery = outlet.as_ref().map(|outlet| outlet.snapshot());
        let runs = stats.is_some();
        Some(ActionEntry {
            rule: rule.to_owned(),
            name: action.to_owned(),
            kind: config.map(actions::ActionConfig::kind),
            resource: config.map(actions::ActionConfig::resource),
            connector: config.and_then(actions::ActionConfig::connector).map(str::to_owned),
            state: state(runs, delivery.as_ref()),
            paused: None,
            has_queue: outlet.is_some() || config.is_some_and(actions::ActionConfig::has_queue),
            stats,
            delivery,
            disk_bytes: outlet.and_then(|outlet| outlet.control().disk_bytes()),
        })
    }

    /// What sends for an action, whether its rule runs or not.
    pub(super) fn outlet_named(&self, rule: &str, action: &str) -> Option<Arc<Outlet>> {
        self.outlet_of(&self.shared.registry.lock(), &format!("{rule}/{action}"))
    }

    /// Has the queue of an action send nothing, now and whenever it is started.
    pub(super) fn pause(&self, outbox: &str) {
        let mut registry = self.shared.registry.lock();
        Arc::make_mut(&mut registry.outlet_settings.paused).insert(outbox.to_owned());
        if let Some(outlet) = self.outlet_of(&registry, outbox) {
            outlet.control().pause();
        }
    }

    /// Takes back [`RulePipeline::pause`].
    pub(super) fn resume(&self, outbox: &str) {
        let mut registry = self.shared.registry.lock();
        Arc::make_mut(&mut registry.outlet_settings.paused).remove(outbox);
        if let Some(outlet) = self.outlet_of(&registry, outbox) {
            outlet.control().resume();
        }
    }

    fn outlet_of(&self, registry: &Registry, outbox: &str) -> Option<Arc<Outlet>> {
        let (rule, action) = outbox.split_once('/')?;
        let running = self.shared.rule(rule);
        let running = running.as_ref().and_then(|running| running.running(action)?.1.outlet.clone());
        running.or_else(|| registry.retired.get(outbox)?.draining())
    }

    /// Tries at once what an action has waiting. Returns how many requests that are; `None`: nothing sends for it.
    #[must_use]
    pub fn send_now(&self, rule: &str, action: &str) -> Option<u64> {
        let outlet = self.outlet_named(rule, action)?;
        let waiting = outlet.control().waiting();
        outlet.control().send_now();
        Some(waiting)
    }

    /// How many requests a purge would drop; `None`: nothing sends for the action.
    #[must_use]
    pub fn waiting(&self, rule: &str, action: &str) -> Option<u64> {
        Some(self.outlet_named(rule, action)?.control().waiting())
    }

    /// Drops what an action has waiting; `None`: nothing sends for it.
    #[must_use]
    pub fn purge(&self, rule: &str, action: &str) -> Option<Purge> {
        Some(self.outlet_named(rule, action)?.control().purge())
    }
}

fn places(registry: &Registry, after: Option<(&str, &str)>) -> Places {
    let mut places = Places::new();
    let is_behind = |rule: &str, action: &str| after.is_none_or(|after| (rule, action) > after);
    for loaded in &registry.loaded {
        for action in loaded.all_actions().filter(|action| is_behind(&loaded.name, action.config.name())) {
            let place = (loaded.name.clone(), action.config.name().to_owned());
            places.insert(place, Some(Arc::clone(loaded)));
        }
    }
    for (outbox, retired) in &registry.retired {
        if let Some((rule, action)) = outbox.split_once('/')
            && retired.draining().is_some()
            && is_behind(rule, action)
        {
            places.entry((rule.to_owned(), action.to_owned())).or_default();
        }
    }
    places
}

fn state(runs: bool, delivery: Option<&Snapshot>) -> ActionState {
    let Some(delivery) = delivery else {
        return if runs { ActionState::Running } else { ActionState::Stopped };
    };
    let health = &delivery.health;
    let retries = delivery.in_flight == 0 && delivery.next_attempt.is_some();
    if delivery.is_paused {
        ActionState::Paused
    } else if health.circuit != CircuitState::Closed && health.is_disabled {
        ActionState::Refused
    } else if health.circuit != CircuitState::Closed || retries {
        ActionState::Waiting
    } else if runs {
        ActionState::Running
    } else if delivery.queued + delivery.in_flight > 0 {
        ActionState::Draining
    } else {
        ActionState::Stopped
    }
}
