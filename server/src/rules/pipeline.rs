//! The broker's hook: which rules a message concerns, and what they make of it.
//!
//! A message's topic is looked up once per topic and generation ([`broker::MessageHook::candidates`]); the handler that
//! comes back holds the groups of rules of that topic. Topics with the same groups share one handler. For each message the
//! handler asks the groups which rules may want it ([`Candidates`] alone decides that) and walks them in the order of
//! all rules ([`Rule::handle`]). After [`STEP_BUDGET`] it yields and goes on at the place of the next rule.
//!
//! Loops: a rule is not evaluated for a message that it had a part in making, and a message that as many rules
//! have made in turn as [`PipelineSettings::hops`] says is not republished again.
//!
//! Changing rules ([`RulePipeline::replace`]) checks everything first, then swaps one pointer. Rules keep their number
//! and counters by name, actions their queue.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use actions::config::OnRemove;
use actions::dead_letters::Outlets;
use actions::{ActionConfigError, Connectors, Outlet, OutletSettings, TargetPolicy};
use arc_swap::ArcSwap;
use broker::{HookEffects, MessageHandler, MessageHook, Progress, Publication, Trail};
use parking_lot::{Mutex, RwLock};
use rules_sql::Evaluation;
use store::{DurableStore, Position};
use tokio::task::JoinSet;
use trace::Tracer;

use super::counters::{Counter, RuleCounters, RuleStats, RuleTotals};
use super::difference::RuleDifference;
use super::error_action::{self, ErrorJobs, Hearing, Publisher};
use super::file::{LoadedAction, LoadedRule, RuleSet};
use super::groups::{self, Candidates, Group, Line};
use super::message::{Facts, Secret};
use super::outboxes::{Retired, start_action};
use super::rule::Rule;
use super::told;
use super::topic_index::TopicIndex;

/// How long rules may work on one message before other connections have their turn.
const STEP_BUDGET: Duration = Duration::from_micros(50);
/// Rules that only say no cost little; the clock is read once for so many.
const RULES_PER_CLOCK_READING: usize = 8;

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
    /// One evaluation in so many is timed; 0: none. Default 64.
    pub timed_every: u32,
    /// Who is told the way of single messages; the broker's own is to be the same.
    pub tracer: Arc<Tracer>,
}

impl Default for PipelineSettings {
    fn default() -> Self {
        Self {
            targets: TargetPolicy::default(),
            connectors: Connectors::default(),
            hops: 8,
            store: None,
            timed_every: 64,
            tracer: Arc::default(),
        }
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
    pub(super) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) active: ArcSwap<Active>,
    /// Held while rules change.
    pub(super) registry: Mutex<Registry>,
    /// Names of rules by their numbers.
    names: RwLock<Vec<Arc<str>>>,
    pub(super) store: Option<Arc<DurableStore>>,
    pub(super) hops_max: usize,
    pub(super) timed_every: u32,
    pub(super) secret: Secret,
    pub(super) tracer: Arc<Tracer>,
    pub(super) error_jobs: ErrorJobs,
}

#[derive(Debug)]
pub(super) struct Registry {
    pub(super) outlet_settings: OutletSettings,
    /// Numbers and counters of every rule that was ever loaded: they outlive a removal, so that trails stay unambiguous.
    by_name: HashMap<String, (u32, Arc<RuleCounters>)>,
    /// Counters of the groups that are there, by their filters.
    groups: HashMap<groups::Filters, Arc<Counter>>,
    /// The rules of the last change, those that aren't enabled among them.
    pub(super) loaded: Vec<Arc<LoadedRule>>,
    /// What goes on in outboxes of actions that don't run.
    pub(super) retired: HashMap<String, Retired>,
}

/// One version of the rules.
#[derive(Debug, Default)]
pub(super) struct Active {
    generation: u64,
    pub(super) rules: Vec<Arc<Rule>>,
    /// Places of the rules by name.
    by_name: HashMap<String, usize>,
    groups: Vec<Arc<Group>>,
    /// From topics to places of groups.
    index: TopicIndex,
    /// Handlers by the places of their groups, while any route holds them.
    handlers: Mutex<HashMap<Box<[u32]>, Weak<RuleHandler>>>,
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
                    paused: Arc::default(),
                    tracer: Arc::clone(&settings.tracer),
                },
                by_name: HashMap::new(),
                groups: HashMap::new(),
                loaded: Vec::new(),
                retired: HashMap::new(),
            }),
            names: RwLock::default(),
            store: settings.store.clone(),
            hops_max: usize::from(settings.hops),
            timed_every: settings.timed_every,
            secret,
            tracer: Arc::clone(&settings.tracer),
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

    /// Takes back [`Self::attach`].
    #[cfg(test)]
    pub(super) fn detach(&self) {
        self.shared.error_jobs.set_publisher(None);
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

    /// Finds out whether [`RulePipeline::replace_all`] would do it, without doing it.
    ///
    /// # Errors
    /// As [`RulePipeline::replace`].
    pub fn check(
        &self,
        rules: &RuleSet,
        targets: &TargetPolicy,
        connectors: &Connectors,
    ) -> Result<(), PipelineError> {
        let mut registry = self.shared.registry.lock();
        let mut settings = registry.outlet_settings.clone();
        settings.targets = Arc::new(targets.clone());
        settings.connectors = Arc::new(connectors.clone());
        self.verify(rules, &mut registry, &settings).map(drop)
    }

    /// The same with the connectors and addresses that there are.
    ///
    /// # Errors
    /// As [`RulePipeline::replace`].
    pub fn check_rules(&self, rules: &RuleSet) -> Result<(), PipelineError> {
        let mut registry = self.shared.registry.lock();
        let settings = registry.outlet_settings.clone();
        self.verify(rules, &mut registry, &settings).map(drop)
    }

    /// What other rules would change, by their names.
    #[must_use]
    pub fn difference(&self, rules: &RuleSet) -> RuleDifference {
        RuleDifference::between(&self.shared.registry.lock().loaded, &rules.rules)
    }

    /// Checks everything that can be told without touching what runs. Returns what is to become of outboxes whose actions
    /// are gone.
    fn verify(
        &self,
        rules: &RuleSet,
        registry: &mut Registry,
        settings: &OutletSettings,
    ) -> Result<Vec<(String, OnRemove)>, PipelineError> {
        for rule in rules.rules.iter().filter(|rule| rules.runs(rule)) {
            for action in rule.actions.iter().chain(&rule.error_action) {
                Outlet::check(&action.config, &settings.connectors)
                    .and_then(|()| Outlet::check_store(&action.config, settings.store.as_ref()))
                    .map_err(|source| PipelineError::Action { rule: rule.name.clone(), source })?;
            }
        }
        registry.retired.retain(|_, retired| !retired.is_finished());
        let wanted: HashSet<String> =
            rules.rules.iter().flat_map(|rule| rule.outboxes().map(|(name, _)| name)).collect();
        self.shared.gone(registry, rules, &wanted)
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
        let gone = self.verify(rules, registry, &settings)?;
        let settings = OutletSettings { paused: Arc::clone(&rules.paused), ..settings };
        let before = std::mem::replace(&mut registry.outlet_settings, settings);
        let mut running = Vec::new();
        for loaded in rules.rules.iter().filter(|rule| rules.runs(rule)) {
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
        shared.let_go(&old, &kept, gone, registry);
        shared.drain_disabled(rules, registry, &before);
        registry.loaded.clone_from(&rules.rules);
        Ok(())
    }

    /// The rules of the last change, those that aren't enabled among them.
    #[must_use]
    pub fn loaded(&self) -> Vec<Arc<LoadedRule>> {
        self.shared.registry.lock().loaded.clone()
    }

    /// The counters of a rule, if it runs.
    #[must_use]
    pub fn stats_of(&self, name: &str) -> Option<RuleStats> {
        self.shared.rule(name).map(|rule| rule.stats())
    }

    /// Outboxes that hold something and belong to no action of the rules, with how many requests they hold.
    #[must_use]
    pub fn orphans(&self) -> Vec<(String, u64)> {
        self.shared.strays()
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
        let retired: Vec<Arc<Outlet>> =
            self.shared.registry.lock().retired.values().filter_map(Retired::draining).collect();
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

    /// Shows the counters of the rules that run, by name, from behind `after` on, until `visit` has enough. Returns the name
    /// of the last one, where there are more.
    pub fn stats_after(
        &self,
        after: Option<&str>,
        mut visit: impl FnMut(RuleStats) -> ControlFlow<()>,
    ) -> Option<String> {
        let active = self.shared.active.load_full();
        let mut rules: Vec<&Arc<Rule>> =
            active.rules.iter().filter(|rule| after.is_none_or(|after| rule.name() > after)).collect();
        rules.sort_unstable_by_key(|rule| rule.name());
        let mut rules = rules.into_iter().peekable();
        while let Some(rule) = rules.next() {
            if visit(rule.stats()).is_break() {
                return rules.peek().map(|_| rule.name().to_owned());
            }
        }
        None
    }

    /// The counters of every rule that runs, added up.
    #[must_use]
    pub fn totals(&self) -> RuleTotals {
        let active = self.shared.active.load();
        let mut totals = RuleTotals::default();
        active.rules.iter().for_each(|rule| totals.add(&rule.stats()));
        totals
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

    pub(super) fn named_outlets(&self) -> impl Iterator<Item = (String, &Arc<Outlet>)> {
        self.rules.iter().flat_map(|rule| rule.named_outlets())
    }

    fn outlets(&self) -> impl Iterator<Item = &Arc<Outlet>> {
        self.rules.iter().flat_map(|rule| rule.outlets())
    }
}

impl Shared {
    /// The rule of a name, if it runs.
    pub(super) fn rule(&self, name: &str) -> Option<Arc<Rule>> {
        let active = self.active.load();
        active.rules.get(*active.by_name.get(name)?).cloned()
    }

    /// What an outbox is to keep of a message.
    pub(super) fn origin(&self, facts: &Facts<'_>) -> Vec<u8> {
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
        let mut facts = Facts::of(message);
        if facts.trace.is_none() {
            if effects.trace.is_none() && *cursor == 0 {
                effects.trace = told::begin_for_rules(&self.shared, &self.candidates);
            }
            facts.trace = effects.trace;
        }
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
        let mut started = None;
        let mut since_clock = 0;
        loop {
            let Ok(from) = u32::try_from(*cursor) else { return Progress::Done };
            self.candidates.line_up(from, evaluation, line);
            if *cursor == 0 && facts.trace.is_some() && !line.is_cut() {
                let places: Vec<u32> = self.candidates.rules(line).map(|(place, _)| place).collect();
                told::kept_out(&self.shared, &self.candidates, facts, &places);
            }
            let mut left = line.len();
            // The clock is for many rules: reading it costs as much as a small one.
            if left > 1 || line.is_cut() {
                started.get_or_insert_with(Instant::now);
            }
            for (place, rule) in self.candidates.rules(line) {
                *cursor = usize::try_from(place).map_or(usize::MAX, |place| place + 1);
                let acted = rule.handle(&self.shared, facts, evaluation, effects);
                left -= 1;
                since_clock += 1;
                if acted || since_clock == RULES_PER_CLOCK_READING {
                    since_clock = 0;
                    let is_more = left > 0 || line.is_cut();
                    if is_more && started.is_some_and(|started| started.elapsed() >= STEP_BUDGET) {
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
