//! The life of outboxes through starts and changes of the rules: who sends from them, and what becomes of those whose
//! action is gone.
//!
//! An outbox goes by the name `rule/action` and outlives both. At a change it is taken over by the action of its name; one
//! that has lost its action is sent, put away or left alone, as `on_remove` says, and a change that would strand what
//! is owed without a word is refused. Nothing that is owed goes away by itself.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use actions::config::OnRemove;
use actions::{ActionConfigError, Fate, Outbox, Outlet, OutletSettings};
use store::{QueueKey, StoredQueue};
use tokio::task::JoinHandle;

use super::file::{LoadedAction, LoadedRule, RuleSet};
use super::pipeline::{Active, PipelineError, Registry, Shared};
use super::rule::RunningAction;

/// How long the queue of an action that was removed may go on.
const RETIRE_GRACE: Duration = Duration::from_secs(30);

/// An outbox of an action that doesn't run.
#[derive(Debug)]
pub(super) enum Retired {
    /// What it holds is sent.
    Draining(Arc<Outlet>),
    /// It is put away.
    PuttingAway(JoinHandle<()>),
}

impl Retired {
    pub(super) fn is_finished(&self) -> bool {
        match self {
            Self::Draining(outlet) => outlet.is_finished(),
            Self::PuttingAway(task) => task.is_finished(),
        }
    }

    /// What still sends.
    pub(super) fn draining(&self) -> Option<Arc<Outlet>> {
        match self {
            Self::Draining(outlet) if !outlet.is_finished() => Some(Arc::clone(outlet)),
            Self::Draining(_) | Self::PuttingAway(_) => None,
        }
    }
}

impl Shared {
    /// Outboxes that hold something and belong to no action of the rules, with how many requests they hold.
    pub(super) fn strays(&self) -> Vec<(String, u64)> {
        let Some(store) = &self.store else { return Vec::new() };
        let registry = self.registry.lock();
        let mut wanted: HashSet<String> =
            registry.loaded.iter().flat_map(|rule| rule.outboxes().map(|(name, _)| name)).collect();
        wanted.extend(registry.retired.keys().cloned());
        drop(registry);
        let mut strays = Vec::new();
        store.for_each_queue(|queue, items| {
            if let StoredQueue::Outbox { name, .. } = queue
                && items > 0
                && !wanted.contains(&name)
            {
                strays.push((name, items));
            }
        });
        strays.sort();
        strays
    }

    /// What is to become of the outboxes whose actions are gone and that hold something. Those that were there at the start
    /// and belong to nobody stay, unless a rule of that name says otherwise.
    pub(super) fn gone(
        &self,
        registry: &Registry,
        rules: &RuleSet,
        wanted: &HashSet<String>,
    ) -> Result<Vec<(String, OnRemove)>, PipelineError> {
        let Some(store) = &self.store else { return Ok(Vec::new()) };
        if let Some(outbox) =
            wanted.iter().find(|name| matches!(registry.retired.get(*name), Some(Retired::PuttingAway(_))))
        {
            return Err(PipelineError::PuttingAway { outbox: outbox.clone() });
        }
        let had: HashSet<String> =
            registry.loaded.iter().flat_map(|rule| rule.outboxes().map(|(name, _)| name)).collect();
        let mut held = Vec::new();
        store.for_each_queue(|queue, items| {
            // What is retired was decided about before, unless its rule was only switched off.
            if let StoredQueue::Outbox { name, .. } = queue
                && items > 0
                && !wanted.contains(&name)
                && (had.contains(&name) || !registry.retired.contains_key(&name))
            {
                held.push((name, items));
            }
        });
        let of_rule = |rules: &[Arc<LoadedRule>], name: &str| {
            let rule = name.split_once('/').map_or(name, |(rule, _)| rule);
            rules.iter().find(|loaded| loaded.name == rule).cloned()
        };
        let mut gone = Vec::new();
        for (outbox, items) in held {
            let before = of_rule(&registry.loaded, &outbox);
            let action = before.as_ref().and_then(|rule| {
                rule.outboxes().find(|(name, _)| *name == outbox).map(|(_, action)| action.on_remove)
            });
            let of_rules = || {
                let now = of_rule(&rules.rules, &outbox);
                before.iter().chain(&now).find_map(|rule| rule.on_remove)
            };
            match (action, action.flatten().or_else(of_rules)) {
                // Nobody knows any more how it was sent.
                (None, None | Some(OnRemove::Drain)) => {
                    tracing::warn!(outbox, items, "an outbox belongs to no action; what it holds is kept");
                }
                (_, Some(on_remove)) => gone.push((outbox, on_remove)),
                (Some(_), None) => return Err(PipelineError::Owes { outbox, items }),
            }
        }
        Ok(gone)
    }

    /// Lets go of the outlets of `old` that are not among those kept, and has `gone` done.
    pub(super) fn let_go(
        &self,
        old: &Active,
        kept: &HashSet<*const Outlet>,
        gone: Vec<(String, OnRemove)>,
        registry: &mut Registry,
    ) {
        let gone: HashMap<String, OnRemove> = gone.into_iter().collect();
        for (name, outlet) in old.named_outlets() {
            if kept.contains(&Arc::as_ptr(outlet)) {
                continue;
            }
            let outlet = Arc::clone(outlet);
            if !outlet.is_durable() {
                tokio::spawn(async move { outlet.shutdown(RETIRE_GRACE).await });
                continue;
            }
            let retired = match gone.get(&name) {
                Some(OnRemove::DeadLetter) => {
                    self.put_away(&registry.outlet_settings, &name, Some(outlet), Fate::DeadLetter)
                }
                Some(OnRemove::Purge) => {
                    self.put_away(&registry.outlet_settings, &name, Some(outlet), Fate::Drop)
                }
                // Nothing that is owed goes away by itself.
                _ => {
                    outlet.retire();
                    Some(Retired::Draining(outlet))
                }
            };
            registry.retired.extend(retired.map(|retired| (name, retired)));
        }
        for (name, on_remove) in gone {
            let fate = match on_remove {
                OnRemove::DeadLetter => Fate::DeadLetter,
                OnRemove::Purge => Fate::Drop,
                _ => continue,
            };
            let outlet = match registry.retired.remove(&name) {
                Some(putting_away @ Retired::PuttingAway(_)) => {
                    registry.retired.insert(name, putting_away);
                    continue;
                }
                Some(Retired::Draining(outlet)) => Some(outlet),
                None => None,
            };
            let retired = self.put_away(&registry.outlet_settings, &name, outlet, fate);
            registry.retired.extend(retired.map(|retired| (name, retired)));
        }
    }

    /// Puts away what an outbox holds, once nobody sends from it any more.
    fn put_away(
        &self,
        settings: &OutletSettings,
        name: &str,
        outlet: Option<Arc<Outlet>>,
        fate: Fate,
    ) -> Option<Retired> {
        let outbox = Outbox::new(Arc::clone(self.store.as_ref()?), name, settings.hasher.clone())
            .heard_by(settings.endings.clone());
        Some(Retired::PuttingAway(tokio::spawn(async move {
            if let Some(outlet) = outlet {
                outlet.shutdown(Duration::ZERO).await;
            }
            let name = Arc::clone(outbox.name());
            let done = tokio::task::spawn_blocking(move || outbox.put_all_away(fate)).await;
            match done.map_err(std::io::Error::other).flatten() {
                Ok(items) => tracing::info!(outbox = &*name, items, ?fate, "an outbox was put away"),
                Err(error) => {
                    tracing::error!(outbox = &*name, %error, "an outbox can't be put away; it stays")
                }
            }
        })))
    }

    /// Starts sending what actions of rules that aren't enabled owe, where nothing does yet. What can't be sent stays: a
    /// rule that doesn't run keeps no other from running.
    pub(super) fn drain_disabled(&self, rules: &RuleSet, registry: &mut Registry, before: &OutletSettings) {
        let Some(store) = &self.store else { return };
        for rule in rules.rules.iter().filter(|rule| !rules.runs(rule)) {
            for (name, action) in rule.outboxes() {
                let queue = QueueKey::Outbox { namespace: 0, name: &name };
                let settings = &registry.outlet_settings;
                let outcome = match registry.retired.get(&name) {
                    Some(Retired::Draining(outlet)) if settings.changes(before, &action.config) => {
                        outlet.reconfigure(&rule.name, &action.config, settings).map(|_| None)
                    }
                    Some(_) => Ok(None),
                    None if store.queue_len(queue) == 0 => Ok(None),
                    None => Outlet::spawn(&rule.name, &action.config, settings),
                };
                match outcome {
                    Ok(None) => {}
                    Ok(Some(outlet)) => {
                        outlet.retire();
                        registry.retired.insert(name, Retired::Draining(Arc::new(outlet)));
                    }
                    Err(error) => {
                        tracing::error!(outbox = name, %error, "what a rule that isn't enabled owes can't be sent");
                    }
                }
            }
        }
    }
}

pub(super) fn start_action(
    rule: &str,
    action: &LoadedAction,
    old: Option<(&LoadedAction, &RunningAction)>,
    retired: &mut HashMap<String, Retired>,
    settings: &OutletSettings,
    before: &OutletSettings,
) -> Result<RunningAction, ActionConfigError> {
    if let Some((old, running)) = old {
        if old.config == action.config && !settings.changes(before, &action.config) {
            return Ok(running.clone());
        }
        if let Some(outlet) = &running.outlet
            && outlet.reconfigure(rule, &action.config, settings)?
        {
            return Ok(running.clone());
        }
    }
    // One that still sends what an earlier action of this name owes goes on as this one's.
    let name = format!("{rule}/{}", action.config.name());
    if let Some(Retired::Draining(outlet)) = retired.get(&name)
        && action.config.has_outbox()
        && outlet.revive()
    {
        let outlet = Arc::clone(outlet);
        outlet.reconfigure(rule, &action.config, settings)?;
        retired.remove(&name);
        return Ok(RunningAction { outlet: Some(outlet), counters: Arc::default() });
    }
    let outlet = Outlet::spawn(rule, &action.config, settings)?.map(Arc::new);
    Ok(RunningAction { outlet, counters: Arc::default() })
}
