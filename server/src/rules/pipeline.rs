//! The broker's hook: which rules a message concerns, and what they make of it.
//!
//! A message's topic is looked up once per topic and generation ([`broker::MessageHook::candidates`]); the handler that
//! comes back holds the groups of rules of that topic. Topics with the same groups share one handler. For each message the
//! handler asks the groups which rules may want it ([`Candidates`] alone decides that) and walks them in the order of
//! all rules: evaluate, render every action, hand republishes to the broker and to the outboxes what they are owed, and keep
//! the rest ready, to be queued once the message is admitted. After [`STEP_BUDGET`] it yields and goes on at the place of the next rule.
//!
//! Loops: a rule is not evaluated for a message that it had a part in making, and a message that as many rules
//! have made in turn as [`PipelineSettings::hops`] says is not republished again.
//!
//! Changing rules ([`RulePipeline::replace`]) checks everything first, then swaps one pointer. Rules keep their number
//! and counters by name, actions their queue.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use actions::config::{OnRemove, OrderBy};
use actions::dead_letters::Outlets;
use actions::{
    ActionConfigError, Connectors, Early, Enqueued, Fate, ItemId, Outbox, Outlet, OutletItem, OutletSettings,
    Owing, RenderError, RepublishRequest, Request, TargetPolicy,
};
use arc_swap::ArcSwap;
use broker::{
    ActionQueue, HookEffects, MessageHandler, MessageHook, OwedToAction, Progress, Publication, Republish,
    Trail,
};
use mqtt_protocol::{PublishProperties, UserPropertiesBuf};
use parking_lot::{Mutex, RwLock};
use rules_sql::{CompiledRule, Evaluation, Outcome, Output};
use store::{DurableStore, Position, QueueKey, StoredQueue};
use tokio::task::{JoinHandle, JoinSet};

use super::counters::{ActionCounters, ActionStats, Counter, RuleCounters, RuleStats};
use super::error_action::{self, ErrorJobs, FailedAction, Hearing, Publisher};
use super::file::{LoadedAction, LoadedRule, RuleSet};
use super::groups::{self, Candidates, Group, Line};
use super::message::{Facts, KeptMessage, Secret};
use super::topic_index::TopicIndex;

/// How long rules may work on one message before other connections have their turn.
const STEP_BUDGET: Duration = Duration::from_micros(50);
/// Rules that only say no cost little; the clock is read once for so many.
const RULES_PER_CLOCK_READING: usize = 8;
/// How long the queue of an action that was removed may go on.
const RETIRE_GRACE: Duration = Duration::from_secs(30);

/// What the pipeline needs besides rules.
#[derive(Debug, Clone)]
pub struct PipelineSettings {
    /// Which addresses actions may connect to.
    pub targets: TargetPolicy,
    /// What actions take addresses and credentials from.
    pub connectors: Connectors,
    /// Most rules that may have made a message, one from the other. Default 8; the broker's own limit is to be the same.
    pub hops: u8,
    /// The store that the broker keeps its debts in, where queues are kept too; `None`: they are in memory.
    pub store: Option<Arc<DurableStore>>,
}

impl Default for PipelineSettings {
    fn default() -> Self {
        Self { targets: TargetPolicy::default(), connectors: Connectors::default(), hops: 8, store: None }
    }
}

/// Rules that can't be run, though their files are fine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PipelineError {
    /// The driver of an action can't be made.
    #[error("rule \"{rule}\"")]
    Action {
        /// Name of the rule.
        rule: String,
        /// The action and its fault.
        source: ActionConfigError,
    },
    /// An action is gone or has another name, and its outbox isn't empty.
    #[error(
        "action \"{outbox}\" is gone, and {items} requests wait in its outbox: put it back, or say on_remove = \"drain\", \"dead_letter\" or \"purge\" in the action or its rule before it goes"
    )]
    Owes {
        /// `rule/action`.
        outbox: String,
        /// How many requests wait.
        items: u64,
    },
    /// An action is back while its outbox is still being put away.
    #[error("action \"{outbox}\" was removed, and its outbox is still being put away: try again")]
    PuttingAway {
        /// `rule/action`.
        outbox: String,
    },
}

/// The rules that run. Cheap to clone; every clone is the same.
#[derive(Debug, Clone)]
pub struct RulePipeline {
    shared: Arc<Shared>,
}

#[derive(Debug)]
pub(super) struct Shared {
    active: ArcSwap<Active>,
    /// Held while rules change.
    registry: Mutex<Registry>,
    /// Names of rules by their numbers.
    names: RwLock<Vec<Arc<str>>>,
    store: Option<Arc<DurableStore>>,
    hops_max: usize,
    pub(super) secret: Secret,
    pub(super) error_jobs: ErrorJobs,
}

#[derive(Debug)]
struct Registry {
    outlet_settings: OutletSettings,
    /// Numbers and counters of every rule that was ever loaded: they outlive a removal, so that trails stay unambiguous.
    by_name: HashMap<String, (u32, Arc<RuleCounters>)>,
    /// Counters of the groups that are there, by their filters.
    groups: HashMap<groups::Filters, Arc<Counter>>,
    /// The rules of the last change, those that aren't enabled among them.
    loaded: Vec<Arc<LoadedRule>>,
    /// What goes on in outboxes of actions that don't run.
    retired: HashMap<String, Retired>,
}

/// An outbox of an action that doesn't run.
#[derive(Debug)]
enum Retired {
    /// What it holds is sent.
    Draining(Arc<Outlet>),
    /// It is put away.
    PuttingAway(JoinHandle<()>),
}

/// One version of the rules.
#[derive(Debug, Default)]
struct Active {
    generation: u64,
    rules: Vec<Arc<Rule>>,
    /// Places of the rules by name.
    by_name: HashMap<String, usize>,
    groups: Vec<Arc<Group>>,
    /// From topics to places of groups.
    index: TopicIndex,
    /// Handlers by the places of their groups, while any route holds them.
    handlers: Mutex<HashMap<Box<[u32]>, Weak<RuleHandler>>>,
}

/// A rule that runs.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) id: u32,
    loaded: Arc<LoadedRule>,
    /// As many as the loaded rule has actions.
    actions: Vec<RunningAction>,
    error_action: Option<RunningAction>,
    pub(super) counters: Arc<RuleCounters>,
}

#[derive(Debug, Clone)]
pub(super) struct RunningAction {
    outlet: Option<Arc<Outlet>>,
    pub(super) counters: Arc<ActionCounters>,
}

impl RulePipeline {
    /// Starts the queues of all actions on the current tokio runtime.
    ///
    /// # Errors
    /// [`PipelineError`] when the driver of an action can't be made; nothing runs then.
    pub fn new(rules: &RuleSet, settings: &PipelineSettings) -> Result<Self, PipelineError> {
        let (error_jobs, jobs) = ErrorJobs::new();
        let secret = Secret::default();
        let shared = Arc::new_cyclic(|shared: &Weak<Shared>| Shared {
            active: ArcSwap::from_pointee(Active::default()),
            registry: Mutex::new(Registry {
                outlet_settings: OutletSettings {
                    targets: Arc::new(settings.targets.clone()),
                    connectors: Arc::new(settings.connectors.clone()),
                    seed: secret.key("jitter of retries"),
                    store: settings.store.clone(),
                    hasher: secret.hasher(),
                    endings: Some(Arc::new(Hearing(Weak::clone(shared)))),
                },
                by_name: HashMap::new(),
                groups: HashMap::new(),
                loaded: Vec::new(),
                retired: HashMap::new(),
            }),
            names: RwLock::default(),
            store: settings.store.clone(),
            hops_max: usize::from(settings.hops),
            secret,
            error_jobs,
        });
        let pipeline = Self { shared };
        pipeline.replace(rules)?;
        tokio::spawn(error_action::run(Arc::downgrade(&pipeline.shared), jobs));
        Ok(pipeline)
    }

    /// Says who publishes what error actions say after the fact. Until then such a republish fails and is counted.
    pub fn attach(&self, publisher: Arc<dyn Publisher>) {
        self.shared.error_jobs.set_publisher(Some(publisher));
    }

    /// Puts other rules in place of those that run, all or none. Queues of actions that stay, or only changed their
    /// settings, go on with what they hold. What becomes of an outbox whose action is gone is up to its `on_remove`; queues
    /// in memory have half a minute to send what they hold. A rule that isn't enabled still pays what it owes.
    ///
    /// # Errors
    /// [`PipelineError`] when the driver of an action can't be made, or an action that is gone owes something; the rules
    /// that ran go on.
    pub fn replace(&self, rules: &RuleSet) -> Result<(), PipelineError> {
        let mut registry = self.shared.registry.lock();
        let settings = registry.outlet_settings.clone();
        self.swap(rules, &mut registry, settings)
    }

    /// The same with other connectors, and other addresses allowed. Actions that this concerns send what they hold by the
    /// new ones.
    ///
    /// # Errors
    /// As [`RulePipeline::replace`].
    pub fn replace_all(
        &self,
        rules: &RuleSet,
        targets: &TargetPolicy,
        connectors: &Connectors,
    ) -> Result<(), PipelineError> {
        let mut registry = self.shared.registry.lock();
        let mut settings = registry.outlet_settings.clone();
        if *settings.targets != *targets {
            settings.targets = Arc::new(targets.clone());
        }
        settings.connectors = Arc::new(connectors.clone());
        let before = registry.outlet_settings.clone();
        let outcome = self.swap(rules, &mut registry, settings);
        if outcome.is_err() {
            registry.outlet_settings = before;
        }
        outcome
    }

    fn swap(
        &self,
        rules: &RuleSet,
        registry: &mut Registry,
        settings: OutletSettings,
    ) -> Result<(), PipelineError> {
        let shared = &self.shared;
        let old = shared.active.load_full();
        let old_rules: HashMap<&str, &Arc<Rule>> = old.rules.iter().map(|rule| (rule.name(), rule)).collect();
        // First everything that can fail, without touching what runs.
        for rule in rules.rules.iter().filter(|rule| rule.enabled) {
            for action in rule.actions.iter().chain(&rule.error_action) {
                Outlet::check(&action.config, &settings.connectors)
                    .and_then(|()| Outlet::check_store(&action.config, settings.store.as_ref()))
                    .map_err(|source| PipelineError::Action { rule: rule.name.clone(), source })?;
            }
        }
        registry.retired.retain(|_, retired| match retired {
            Retired::Draining(outlet) => !outlet.is_finished(),
            Retired::PuttingAway(task) => !task.is_finished(),
        });
        let wanted: HashSet<String> =
            rules.rules.iter().flat_map(|rule| rule.outboxes().map(|(name, _)| name)).collect();
        let gone = shared.gone(registry, rules, &wanted)?;
        let before = std::mem::replace(&mut registry.outlet_settings, settings);
        let mut running = Vec::new();
        for loaded in rules.rules.iter().filter(|rule| rule.enabled) {
            running.push(Arc::new(shared.start(
                loaded,
                old_rules.get(loaded.name.as_str()).copied(),
                registry,
                &before,
            )?));
        }
        let groups = Group::all(&running, &mut registry.groups);
        registry.count_with(&groups);
        let filters = groups
            .iter()
            .zip(0..)
            .flat_map(|((filters, _), place)| filters.iter().map(move |filter| (filter.as_str(), place)));
        let new = Active {
            generation: old.generation + 1,
            index: TopicIndex::new(filters),
            by_name: running.iter().zip(0..).map(|(rule, place)| (rule.name().to_owned(), place)).collect(),
            rules: running,
            groups: groups.into_iter().map(|(_, group)| group).collect(),
            handlers: Mutex::default(),
        };
        let kept: HashSet<*const Outlet> = new.outlets().map(Arc::as_ptr).collect();
        shared.active.store(Arc::new(new));
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
                    shared.put_away(&registry.outlet_settings, &name, Some(outlet), Fate::DeadLetter)
                }
                Some(OnRemove::Purge) => {
                    shared.put_away(&registry.outlet_settings, &name, Some(outlet), Fate::Drop)
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
            let retired = shared.put_away(&registry.outlet_settings, &name, outlet, fate);
            registry.retired.extend(retired.map(|retired| (name, retired)));
        }
        shared.drain_disabled(rules, registry, &before);
        registry.loaded.clone_from(&rules.rules);
        Ok(())
    }

    /// Outboxes that hold something and belong to no action of the rules, with how many requests they hold.
    #[must_use]
    pub fn orphans(&self) -> Vec<(String, u64)> {
        let Some(store) = &self.shared.store else { return Vec::new() };
        let registry = self.shared.registry.lock();
        let mut wanted: HashSet<String> =
            registry.loaded.iter().flat_map(|rule| rule.outboxes().map(|(name, _)| name)).collect();
        wanted.extend(registry.retired.keys().cloned());
        drop(registry);
        let mut orphans = Vec::new();
        store.for_each_queue(|queue, items| {
            if let StoredQueue::Outbox { name, .. } = queue
                && items > 0
                && !wanted.contains(&name)
            {
                orphans.push((name, items));
            }
        });
        orphans.sort();
        orphans
    }

    /// The connectors that actions use now.
    #[must_use]
    pub fn connectors(&self) -> Arc<Connectors> {
        Arc::clone(&self.shared.registry.lock().outlet_settings.connectors)
    }

    /// Takes nothing more, gives every queue at most `grace` to send what it holds, and counts the rest as dropped. Error
    /// actions that this sets off still run, so the broker had better be there until this returns; they have `grace`
    /// once more. The pipeline lets go of the broker in the end.
    pub async fn shutdown(&self, grace: Duration) {
        let active = self.shared.active.load_full();
        let regular: Vec<Arc<Outlet>> = active
            .rules
            .iter()
            .flat_map(|rule| &rule.actions)
            .filter_map(|action| action.outlet.clone())
            .collect();
        let retired: Vec<Arc<Outlet>> = self
            .shared
            .registry
            .lock()
            .retired
            .values()
            .filter_map(|retired| match retired {
                Retired::Draining(outlet) => Some(Arc::clone(outlet)),
                Retired::PuttingAway(_) => None,
            })
            .collect();
        stop_all(regular.into_iter().chain(retired).collect(), grace).await;
        let deadline = tokio::time::Instant::now() + grace;
        if tokio::time::timeout_at(deadline, self.shared.error_jobs.flush()).await.is_err() {
            tracing::warn!("error actions were still waiting to run at shutdown");
        }
        let last: Vec<Arc<Outlet>> =
            active.rules.iter().filter_map(|rule| rule.error_action.as_ref()?.outlet.clone()).collect();
        stop_all(last, deadline.saturating_duration_since(tokio::time::Instant::now())).await;
        self.shared.error_jobs.set_publisher(None);
    }

    /// The outlet that has this outbox.
    fn outlet(&self, outbox: &str) -> Option<Arc<Outlet>> {
        let (rule, action) = outbox.split_once('/')?;
        let active = self.shared.active.load();
        let rule = active.rules.iter().find(|running| running.name() == rule)?;
        let (_, running) = rule.running(action)?;
        running.outlet.clone().filter(|outlet| outlet.is_durable())
    }

    /// Returns the counters of every rule that runs, in order.
    #[must_use]
    pub fn stats(&self) -> Vec<RuleStats> {
        self.shared.active.load().rules.iter().map(|rule| rule.stats()).collect()
    }
}

async fn stop_all(outlets: Vec<Arc<Outlet>>, grace: Duration) {
    let mut tasks = JoinSet::new();
    for outlet in outlets {
        tasks.spawn(async move { outlet.shutdown(grace).await });
    }
    while tasks.join_next().await.is_some() {}
}

impl Outlets for RulePipeline {
    fn has(&self, outbox: &str) -> bool {
        self.outlet(outbox).is_some()
    }

    fn arrived(&self, outbox: &str, position: Position) {
        // An action that was removed this moment finds it when it comes back.
        if let Some(outlet) = self.outlet(outbox) {
            outlet.arrived(position);
        }
    }
}

impl MessageHook for RulePipeline {
    fn generation(&self) -> u64 {
        self.shared.active.load().generation
    }

    fn candidates(&self, topic: &str) -> Option<Arc<dyn MessageHandler>> {
        let active = self.shared.active.load_full();
        let places = active.index.matches(topic);
        if places.is_empty() {
            return None;
        }
        Some(active.handler(&self.shared, places.into_boxed_slice()))
    }
}

impl Active {
    fn handler(&self, shared: &Arc<Shared>, places: Box<[u32]>) -> Arc<RuleHandler> {
        let mut handlers = self.handlers.lock();
        if let Some(handler) = handlers.get(&places).and_then(Weak::upgrade) {
            return handler;
        }
        // Entries of handlers that are gone are swept when they would make the map grow.
        if handlers.len() == handlers.capacity() {
            handlers.retain(|_, handler| handler.strong_count() > 0);
        }
        let groups = places
            .iter()
            .filter_map(|place| self.groups.get(usize::try_from(*place).ok()?).cloned())
            .collect();
        let candidates = Candidates::new(groups);
        let handler = Arc::new(RuleHandler { shared: Arc::clone(shared), candidates });
        handlers.insert(places, Arc::downgrade(&handler));
        handler
    }

    fn named_outlets(&self) -> impl Iterator<Item = (String, &Arc<Outlet>)> {
        self.rules.iter().flat_map(|rule| {
            let loaded = rule.loaded.actions.iter().chain(&rule.loaded.error_action);
            let running = rule.actions.iter().chain(&rule.error_action);
            loaded.zip(running).filter_map(|(loaded, running)| {
                let name = format!("{}/{}", rule.name(), loaded.config.name());
                Some((name, running.outlet.as_ref()?))
            })
        })
    }

    fn outlets(&self) -> impl Iterator<Item = &Arc<Outlet>> {
        self.rules
            .iter()
            .flat_map(|rule| rule.actions.iter().chain(&rule.error_action))
            .filter_map(|action| action.outlet.as_ref())
    }
}

/// The name of an outbox, and what it is owed.
pub(super) type OutboxDebt = (Arc<str>, Vec<u8>);

/// What [`HookEffects`] lacks.
trait EndEarly {
    /// Has a dead letter written in the message's own frame, if there is one, and something counted once it is admitted.
    fn end_early(&mut self, letter: Option<OutboxDebt>, counted: impl FnOnce() + Send + 'static);
}

impl EndEarly for HookEffects {
    fn end_early(&mut self, letter: Option<OutboxDebt>, counted: impl FnOnce() + Send + 'static) {
        if let Some((name, body)) = letter {
            let queue = ActionQueue::DeadLetters(name);
            self.owed.push(OwedToAction { queue, body, placed: Box::new(|_| {}) });
        }
        self.admitted.push(Box::new(counted));
    }
}

impl Shared {
    /// What is to become of the outboxes whose actions are gone and that hold something. Those that were there at the start
    /// and belong to nobody stay, unless a rule of that name says otherwise.
    fn gone(
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
    fn drain_disabled(&self, rules: &RuleSet, registry: &mut Registry, before: &OutletSettings) {
        let Some(store) = &self.store else { return };
        for rule in rules.rules.iter().filter(|rule| !rule.enabled) {
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

    /// The rule of a name, if it runs.
    pub(super) fn rule(&self, name: &str) -> Option<Arc<Rule>> {
        let active = self.active.load();
        active.rules.get(*active.by_name.get(name)?).cloned()
    }

    /// What an outbox is to keep of a message.
    fn origin(&self, facts: &Facts<'_>) -> Vec<u8> {
        let trail = facts.trail;
        let trail = if trail.rules().is_empty() {
            Vec::new()
        } else {
            let names = self.names.read();
            let name = |rule: &u32| names.get(usize::try_from(*rule).ok()?).map(|name| name.to_string());
            trail.rules().iter().map(|rule| name(rule).unwrap_or_default()).collect()
        };
        facts.origin(&self.secret, trail).encode()
    }

    /// The numbers that rules of these names have. A rule that isn't there any more counts among the hops all the same.
    pub(super) fn trail(&self, names: &[String]) -> Trail {
        let registry = self.registry.lock();
        let number = |name: &String| registry.by_name.get(name).map_or(u32::MAX, |(number, _)| *number);
        names.iter().fold(Trail::default(), |trail, name| trail.with(number(name)))
    }

    /// Makes a rule that runs, with the queues and counters of `old` where they fit.
    fn start(
        &self,
        loaded: &Arc<LoadedRule>,
        old: Option<&Arc<Rule>>,
        registry: &mut Registry,
        before: &OutletSettings,
    ) -> Result<Rule, PipelineError> {
        let next = u32::try_from(registry.by_name.len()).unwrap_or(u32::MAX);
        let (id, counters) = registry
            .by_name
            .entry(loaded.name.clone())
            .or_insert_with(|| {
                self.names.write().push(loaded.name.as_str().into());
                (next, Arc::default())
            })
            .clone();
        let (settings, retired) = (registry.outlet_settings.clone(), &mut registry.retired);
        let mut start = |action: &LoadedAction| {
            let old = old.and_then(|old| old.running(action.config.name()));
            start_action(&loaded.name, action, old, retired, &settings, before)
                .map_err(|source| PipelineError::Action { rule: loaded.name.clone(), source })
        };
        let actions = loaded.actions.iter().map(&mut start).collect::<Result<Vec<_>, _>>()?;
        let error_action = loaded.error_action.as_ref().map(&mut start).transpose()?;
        Ok(Rule { id, loaded: Arc::clone(loaded), actions, error_action, counters })
    }
}

fn start_action(
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

impl Registry {
    /// Lets every rule count with its group, and those that don't run with none. Around the moment of the change a message
    /// may be counted for a rule that it never came to, or the other way round.
    fn count_with(&self, groups: &[(groups::Filters, Arc<Group>)]) {
        let mut counted: HashSet<u32> = HashSet::new();
        for (_, group) in groups {
            for rule in group.rules() {
                counted.insert(rule.id);
                rule.counters.matched.join(Some(group.matched()));
            }
        }
        for (id, counters) in self.by_name.values() {
            if !counted.contains(id) {
                counters.matched.join(None);
            }
        }
    }
}

/// Runs the rules of one topic.
#[derive(Debug)]
struct RuleHandler {
    shared: Arc<Shared>,
    candidates: Candidates,
}

thread_local! {
    /// Buffers for the message at hand.
    static LINE: Cell<Line> = Cell::default();
}

impl MessageHandler for RuleHandler {
    fn handle(&self, message: &Publication<'_>, cursor: &mut usize, effects: &mut HookEffects) -> Progress {
        let facts = Facts::of(message);
        let event = facts.event(&self.shared.secret);
        let mut evaluation = Evaluation::new(&event, self.shared.secret.seed(facts.id));
        if *cursor == 0 {
            self.candidates.count();
        }
        let mut line = LINE.take();
        let progress = self.run(&facts, &mut evaluation, &mut line, cursor, effects);
        line.trim();
        LINE.set(line);
        progress
    }
}

impl RuleHandler {
    /// Shows a message to the rules that may want it, from the place at `cursor` on.
    fn run(
        &self,
        facts: &Facts<'_>,
        evaluation: &mut Evaluation<'_>,
        line: &mut Line,
        cursor: &mut usize,
        effects: &mut HookEffects,
    ) -> Progress {
        let started = Instant::now();
        let mut since_clock = 0;
        loop {
            let Ok(from) = u32::try_from(*cursor) else { return Progress::Done };
            self.candidates.line_up(from, evaluation, line);
            let mut left = line.len();
            for (place, rule) in self.candidates.rules(line) {
                *cursor = usize::try_from(place).map_or(usize::MAX, |place| place + 1);
                let acted = rule.handle(&self.shared, facts, evaluation, effects);
                left -= 1;
                since_clock += 1;
                if acted || since_clock == RULES_PER_CLOCK_READING {
                    since_clock = 0;
                    if started.elapsed() >= STEP_BUDGET && (left > 0 || line.is_cut()) {
                        return Progress::Yield;
                    }
                }
            }
            if !line.is_cut() {
                return Progress::Done;
            }
        }
    }
}

impl Rule {
    pub(super) fn name(&self) -> &str {
        &self.loaded.name
    }

    pub(super) fn filters(&self) -> &[String] {
        self.loaded.filters()
    }

    pub(super) fn compiled(&self) -> &CompiledRule {
        &self.loaded.compiled
    }

    fn running(&self, action: &str) -> Option<(&LoadedAction, &RunningAction)> {
        self.loaded
            .actions
            .iter()
            .chain(&self.loaded.error_action)
            .zip(self.actions.iter().chain(&self.error_action))
            .find(|(loaded, _)| loaded.config.name() == action)
    }

    /// Evaluates the rule for one message and runs its actions. Returns whether there was anything to run.
    fn handle(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        facts: &Facts<'_>,
        evaluation: &mut Evaluation<'_>,
        effects: &mut HookEffects,
    ) -> bool {
        if facts.trail.rules().contains(&self.id) {
            self.counters.looped.raise();
            return false;
        }
        evaluation.begin_rule(self.id);
        let output = match self.loaded.compiled.evaluate(evaluation) {
            Outcome::NoMatch => return false,
            Outcome::NoOutput => {
                self.counters.no_output.raise();
                return false;
            }
            Outcome::Failed(error) => {
                self.counters.failed.raise(&error);
                if self.counters.log.opens(facts.received_at_ms) {
                    tracing::warn!(rule = self.name(), %error, "rule could not be evaluated for a message");
                }
                return true;
            }
            Outcome::Output(output) if self.loaded.skip_empty && output.is_empty_object() => {
                self.counters.no_output.raise();
                return false;
            }
            Outcome::Output(output) => output,
        };
        self.counters.passed.raise();
        self.act(shared, facts, evaluation, &output, effects);
        true
    }

    fn act(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        facts: &Facts<'_>,
        evaluation: &mut Evaluation<'_>,
        output: &Output,
        effects: &mut HookEffects,
    ) {
        let mut message = None;
        let mut failures = Vec::new();
        for (place, (loaded, running)) in self.loaded.actions.iter().zip(&self.actions).enumerate() {
            let failure = match loaded.render(evaluation, output) {
                Ok(Request::Republish(request)) => {
                    self.republish(shared, facts.trail, running, request, effects)
                }
                Ok(request) => self.owe_or_queue(shared, facts, place, &mut message, request, effects),
                Err(error) => {
                    running.counters.failed_render.raise();
                    Some(error.to_string())
                }
            };
            let Some(error_message) = failure else { continue };
            if self.counters.log.opens(facts.received_at_ms) {
                let action = loaded.config.name();
                tracing::warn!(
                    rule = self.name(),
                    action,
                    error = error_message,
                    "action failed for a message"
                );
            }
            if self.error_action.is_some() {
                let failed_action = loaded.config.name().to_owned();
                let failed_resource = loaded.config.resource();
                failures.push(FailedAction { failed_action, failed_resource, error_message });
            }
        }
        if !failures.is_empty() {
            self.run_error_action(shared, facts, &failures, effects);
        }
    }

    /// Has a request put into its action's queue with the message's admission: into the outbox with the message's own
    /// debts, or into memory once it is admitted. Where the message is refused, it leaves no trace. Returns why there is no
    /// room for it, if there is none. `message` is the copy that actions share, if one was made.
    fn owe_or_queue(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        facts: &Facts<'_>,
        place: usize,
        message: &mut Option<Arc<KeptMessage>>,
        request: Request,
        effects: &mut HookEffects,
    ) -> Option<String> {
        let (loaded, running) = self.loaded.actions.get(place).zip(self.actions.get(place))?;
        let key = order_key(shared, facts, loaded);
        let (rule, id) = (Arc::clone(self), facts.id);
        match running.owe(shared, facts, loaded, &request) {
            Owing::Outbox { name, body } => {
                let placed = move |position| {
                    if let Some(running) = rule.actions.get(place) {
                        // What becomes of it is heard of through the outbox.
                        let item = OutletItem { id, key, request, on_failure: None, extra_bytes: 0 };
                        running.placed(position, item);
                    }
                };
                let queue = ActionQueue::Outbox(name);
                effects.owed.push(OwedToAction { queue, body, placed: Box::new(placed) });
                None
            }
            Owing::Nowhere { early, error, letter } => {
                let counted = move || {
                    if let Some(running) = rule.actions.get(place) {
                        running.ended_early(early);
                    }
                };
                effects.end_early(letter, counted);
                Some(error)
            }
            Owing::Refused { error } => {
                running.counters.backpressure.raise();
                if self.counters.log.opens(facts.received_at_ms) {
                    let action = loaded.config.name();
                    tracing::warn!(rule = self.name(), action, error, "message refused");
                }
                effects.refused = true;
                None
            }
            _ => {
                // Only an error action wants to hear of what fails later.
                let message = self
                    .error_action
                    .as_ref()
                    .map(|_| Arc::clone(message.get_or_insert_with(|| Arc::new(facts.to_kept()))));
                let (shared, rendered) = (Arc::clone(shared), Rendered { place, key, message, request });
                effects.admitted.push(Box::new(move || {
                    if let Some((running, item)) = rule.item(&shared, id, rendered) {
                        // A drop is told through the item; a request of another kind is counted.
                        running.enqueue(item);
                    }
                }));
                None
            }
        }
    }

    /// The action of a rendered request, and the request as its queue takes it.
    fn item(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        id: ItemId,
        rendered: Rendered,
    ) -> Option<(&RunningAction, OutletItem)> {
        let Rendered { place, key, message, request } = rendered;
        let (loaded, running) = self.loaded.actions.get(place).zip(self.actions.get(place))?;
        let extra_bytes = message.as_ref().map_or(0, |message| message.bytes());
        let on_failure = message.map(|message| {
            error_action::teller(shared, self, &message, loaded.config.name(), loaded.config.resource())
        });
        Some((running, OutletItem { id, key, request, on_failure, extra_bytes }))
    }

    /// Runs the error action within the source message's admission: should the message be refused, it never ran.
    fn run_error_action(
        self: &Arc<Self>,
        shared: &Shared,
        facts: &Facts<'_>,
        failures: &[FailedAction],
        effects: &mut HookEffects,
    ) {
        let Some((loaded, running)) = self.loaded.error_action.as_ref().zip(self.error_action.as_ref())
        else {
            return;
        };
        let outcome = match error_action::request(shared, self, facts, failures) {
            Ok(Some(Request::Republish(request))) => {
                self.republish(shared, facts.trail, running, request, effects).map_or(Ok(None), Err)
            }
            other => other,
        };
        let (rule, id, now_ms) = (Arc::clone(self), facts.id, facts.received_at_ms);
        let key = order_key(shared, facts, loaded);
        let item = move |request| OutletItem { id, key, request, on_failure: None, extra_bytes: 0 };
        let outcome = match outcome {
            Ok(Some(request)) => match running.owe(shared, facts, loaded, &request) {
                Owing::Outbox { name, body } => {
                    let rule = Arc::clone(self);
                    let placed = move |position| rule.error_placed(position, Some(item(request)));
                    let queue = ActionQueue::Outbox(name);
                    effects.owed.push(OwedToAction { queue, body, placed: Box::new(placed) });
                    Ok(None)
                }
                Owing::Nowhere { early, error, letter } => {
                    let rule = Arc::clone(self);
                    effects.end_early(letter, move || {
                        if let Some(running) = &rule.error_action {
                            running.ended_early(early);
                        }
                    });
                    Err(error)
                }
                Owing::Refused { error } => {
                    running.counters.backpressure.raise();
                    effects.refused = true;
                    Err(error)
                }
                _ => Ok(Some(request)),
            },
            other => other,
        };
        effects.admitted.push(Box::new(move || {
            rule.counters.error_actions.raise();
            let outcome = match outcome {
                Ok(Some(request)) => rule.enqueue_error(item(request)),
                Ok(None) => Ok(()),
                Err(error) => Err(error),
            };
            if let Err(error) = outcome {
                rule.error_action_failed(&error, now_ms);
            }
        }));
    }

    /// Counts an error action that failed, and logs it now and then.
    pub(super) fn error_action_failed(&self, error: &str, now_ms: i64) {
        self.counters.error_actions_failed.raise();
        if self.counters.log.opens(now_ms) {
            tracing::warn!(rule = self.name(), error, "error action failed");
        }
    }

    /// Hands a republish to the broker. Returns why not, if not.
    fn republish(
        &self,
        shared: &Shared,
        trail: &Trail,
        running: &RunningAction,
        request: RepublishRequest,
        effects: &mut HookEffects,
    ) -> Option<String> {
        let properties = match running.check_republish(shared, trail, &request) {
            Ok(properties) => properties,
            Err(error) => return Some(error),
        };
        running.counters.requests.raise();
        effects.republish.push(Republish {
            rule: self.id,
            topic: request.topic,
            payload: request.payload,
            qos: request.qos,
            retain: request.retain,
            properties,
            message_expiry_interval_s: request.message_expiry_interval_s,
        });
        None
    }

    /// Renders the error action with the document as its output.
    pub(super) fn render_error(
        &self,
        shared: &Shared,
        facts: &Facts<'_>,
        document: &Output,
    ) -> Result<Option<Request>, RenderError> {
        let (Some(loaded), Some(running)) = (&self.loaded.error_action, &self.error_action) else {
            return Ok(None);
        };
        let event = facts.event(&shared.secret);
        let mut evaluation = Evaluation::new(&event, shared.secret.seed(facts.id));
        evaluation.begin_rule_again(self.id);
        let request = loaded.render(&mut evaluation, document);
        request.map(Some).inspect_err(|_| running.counters.failed_render.raise())
    }

    /// Puts the error action's request into its queue in memory.
    fn enqueue_error(&self, item: OutletItem) -> Result<(), String> {
        let Some(running) = &self.error_action else { return Ok(()) };
        match running.enqueue(item) {
            Some(Enqueued::Queued) => Ok(()),
            Some(Enqueued::Dropped(reason)) => Err(format!("dropped: {}", reason.as_str())),
            None => Err("the request is of another kind than its queue".to_owned()),
        }
    }

    /// Puts the error action's request into its queue after the fact: into the outbox in a frame of its own.
    pub(super) fn keep_error(
        &self,
        shared: &Shared,
        message: &KeptMessage,
        request: Request,
    ) -> Result<(), String> {
        let Some((loaded, running)) = self.loaded.error_action.as_ref().zip(self.error_action.as_ref())
        else {
            return Ok(());
        };
        let facts = message.facts();
        let key = order_key(shared, &facts, loaded);
        let item = OutletItem { id: facts.id, key, request, on_failure: None, extra_bytes: 0 };
        match &running.outlet {
            Some(outlet) if outlet.is_durable() => {
                running.counters.requests.raise();
                let origin = shared.origin(&facts);
                let kept = outlet.keep(&message.record(), loaded.plan.order_by(), &origin, item);
                kept.map_err(|error| error.to_string())
            }
            _ => self.enqueue_error(item),
        }
    }

    /// What the error action's outbox is owed for a request after the fact, and the request as its queue takes it.
    pub(super) fn owe_error(
        &self,
        shared: &Shared,
        message: &KeptMessage,
        request: Request,
    ) -> Result<(OutboxDebt, OutletItem), String> {
        let Some((loaded, running)) = self.loaded.error_action.as_ref().zip(self.error_action.as_ref())
        else {
            return Err("the rule has no error action any more".to_owned());
        };
        let facts = message.facts();
        match running.owe(shared, &facts, loaded, &request) {
            Owing::Outbox { name, body } => {
                let key = order_key(shared, &facts, loaded);
                let item = OutletItem { id: facts.id, key, request, on_failure: None, extra_bytes: 0 };
                Ok(((name, body), item))
            }
            Owing::Nowhere { error, .. } | Owing::Refused { error } => Err(error),
            _ => Err("the request is of another kind than its queue".to_owned()),
        }
    }

    /// Tells the error action's queue of a request that is in the outbox.
    pub(super) fn error_placed(&self, position: Position, item: Option<OutletItem>) {
        if let (Some(running), Some(item)) = (&self.error_action, item) {
            running.placed(position, item);
        }
    }

    /// What an action acts upon.
    pub(super) fn resource(&self, action: &str) -> Option<String> {
        self.running(action).map(|(loaded, _)| loaded.config.resource())
    }

    /// The error action as it runs.
    pub(super) fn running_error_action(&self) -> Option<&RunningAction> {
        self.error_action.as_ref()
    }

    fn stats(&self) -> RuleStats {
        let counters = &self.counters;
        // A message is counted before its rules run, so this order of reading finds no more decided than counted.
        let (passed, no_output) = (counters.passed.value(), counters.no_output.value());
        let (looped, failed_evaluation) = (counters.looped.value(), counters.failed.all.value());
        let decided = passed + no_output + looped + failed_evaluation;
        // A message that was on its way while FROM changed may have been decided and not counted.
        let matched = counters.matched.value().max(decided);
        let loaded = self.loaded.actions.iter().chain(&self.loaded.error_action);
        let running = self.actions.iter().chain(&self.error_action);
        RuleStats {
            name: self.name().to_owned(),
            matched,
            passed,
            no_match: matched - decided,
            no_output,
            failed_evaluation,
            looped,
            failed_steps: counters.failed.steps.value(),
            failed_array_steps: counters.failed.array_steps.value(),
            failed_output_bytes: counters.failed.output_bytes.value(),
            error_actions: counters.error_actions.value(),
            error_actions_failed: counters.error_actions_failed.value(),
            actions: loaded.zip(running).map(|(loaded, running)| running.stats(loaded)).collect(),
        }
    }
}

impl RunningAction {
    /// Where a request of the action is to go.
    fn owe(&self, shared: &Shared, facts: &Facts<'_>, loaded: &LoadedAction, request: &Request) -> Owing {
        match &self.outlet {
            Some(outlet) if outlet.is_durable() => {
                let origin = shared.origin(facts);
                outlet.owe(facts.id, facts.received_at_ms, loaded.plan.order_by(), &origin, request)
            }
            _ => Owing::InMemory,
        }
    }

    pub(super) fn is_durable(&self) -> bool {
        self.outlet.as_ref().is_some_and(|outlet| outlet.is_durable())
    }

    /// Counts a request that never got a place.
    fn ended_early(&self, early: Early) {
        self.counters.requests.raise();
        if let Some(outlet) = &self.outlet {
            outlet.ended_early(early);
        }
    }

    /// Tells the action's queue of a request that is in the outbox.
    fn placed(&self, position: Position, item: OutletItem) {
        if let Some(outlet) = &self.outlet {
            self.counters.requests.raise();
            outlet.placed(position, item);
        }
    }

    /// Puts a request into the action's queue, which counts what it drops; `None`: it takes none of this kind.
    fn enqueue(&self, item: OutletItem) -> Option<Enqueued> {
        let enqueued = self.outlet.as_ref().and_then(|outlet| outlet.enqueue(item).ok());
        // The queue was started for this very action, so kinds agree; should they ever not, it is seen here.
        let counter = if enqueued.is_some() { &self.counters.requests } else { &self.counters.refused };
        counter.raise();
        enqueued
    }

    /// Whether a republish may be made of a message with this trail. Returns its encoded properties, or why not.
    pub(super) fn check_republish(
        &self,
        shared: &Shared,
        trail: &Trail,
        request: &RepublishRequest,
    ) -> Result<Vec<u8>, String> {
        let hops_max = shared.hops_max;
        if trail.rules().len() >= hops_max {
            self.counters.hop_limited.raise();
            return Err(format!("the message has been through {hops_max} rules, which is the limit"));
        }
        encoded_properties(request).inspect_err(|_| self.counters.failed_render.raise())
    }

    fn stats(&self, loaded: &LoadedAction) -> ActionStats {
        ActionStats {
            name: loaded.config.name().to_owned(),
            kind: loaded.config.kind(),
            requests: self.counters.requests.value(),
            failed_render: self.counters.failed_render.value(),
            hop_limited: self.counters.hop_limited.value(),
            refused: self.counters.refused.value(),
            backpressure: self.counters.backpressure.value(),
            delivery: self.outlet.as_ref().map(|outlet| outlet.snapshot()),
        }
    }
}

/// A request for the action at `place` of its rule.
struct Rendered {
    place: usize,
    /// What it keeps its order with.
    key: Option<u64>,
    /// For the error action, if there is one.
    message: Option<Arc<KeptMessage>>,
    request: Request,
}

/// What the requests that an action makes of a message keep their order with.
fn order_key(shared: &Shared, facts: &Facts<'_>, loaded: &LoadedAction) -> Option<u64> {
    match loaded.plan.order_by() {
        OrderBy::Publisher => Some(shared.secret.key(facts.client_id().unwrap_or_default())),
        OrderBy::Topic => Some(shared.secret.key(facts.topic)),
        _ => None,
    }
}

/// Encodes the properties that a republish asks for.
fn encoded_properties(request: &RepublishRequest) -> Result<Vec<u8>, String> {
    let mut user_properties = UserPropertiesBuf::default();
    for (name, value) in &request.user_properties {
        user_properties.push(name, value).map_err(|error| format!("user property: {error}"))?;
    }
    let properties = PublishProperties {
        payload_format_indicator: request.payload_format_indicator,
        response_topic: request.response_topic.as_deref(),
        correlation_data: request.correlation_data.as_deref(),
        content_type: request.content_type.as_deref(),
        user_properties: user_properties.as_properties(),
        ..PublishProperties::default()
    };
    let mut out = Vec::new();
    properties.append_forward(&mut out).map_err(|error| error.to_string())?;
    Ok(out)
}
