//! One message's way from admission to its receivers.
//!
//! ```text
//! rules (and what they republish) → every budget reserved → debts in one frame → [QoS 2: committed] → fan-out
//! ```
//!
//! Messages of one publisher are admitted, and fanned out, in their order. A message that is to be retained holds the turn
//! of its topic's shard from its admission on, so that the store, the Retained Messages and the receivers see such
//! messages in one order.
//!
//! Nobody receives anything before all debts of the message, and of the messages that rules made of it, are in the
//! store's hands; a refusal at admission means that nobody got it. [`publish`] does all of it in one go, borrowing the
//! message from the read buffer, when nothing stands in the way: few receivers, nothing to wait for, nor for what rules
//! made of it, which no further rule sees. Otherwise it hands back a [`Dispatch`], which goes on in turns: chunks of [`CHUNK`]
//! receivers, rules within their step budget, the wait for a commit.

mod admit;
mod fanout;
mod made;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use mqtt_protocol::{PacketId, QoS, ReasonCode};
use smallvec::SmallVec;
use store::{CommitToken, Position};

use crate::broker::Shared;
use crate::clock::Now;
use crate::config::QueuePolicy;
use crate::hook::{Admitted, HookEffects, OwedToAction, Placed, Progress};
use crate::message::{Message, Publication};
use crate::session::state::Received as FirstCopy;
use crate::session::{Session, wake_after_this_turn};
use crate::subscriptions::retained::TurnGuard;
use crate::subscriptions::route::Route;
use crate::traced::{Traced, tell_refused, tell_route};

use admit::Places;
use fanout::fan_out;
use made::Made;

pub(crate) use admit::{adopt, message_record};
pub(crate) use fanout::{CHUNK, Fanout, Frames, forward};

/// What a publish came to.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// When it is safe to say yes.
    pub(crate) token: CommitToken,
    /// Whether any Subscription matched.
    pub(crate) matched: bool,
    /// A receiver that is behind: the publisher had better pause.
    pub(crate) slow: Option<Arc<Session>>,
}

/// How far [`publish`] came.
#[derive(Debug)]
pub(crate) enum Admission {
    /// All the way.
    Done(Outcome),
    /// Not all the way: to be polled.
    Suspended(Box<Dispatch>),
    /// Nobody received it.
    Refused(ReasonCode),
}

/// An inbound QoS 2 publish: its receive record joins the message's frame.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) session: Arc<Session>,
    pub(crate) id: PacketId,
}

/// Admits a publish and hands it to everybody it concerns.
pub(crate) fn publish(
    shared: &Shared,
    publication: &Publication<'_>,
    received: Option<&Received>,
    now: Now,
    traced: &mut Option<Box<Traced>>,
) -> Admission {
    // The turn first: whoever subscribes before it is in the route, whoever does after it finds the message retained.
    let turn = publication.retain.then(|| shared.retained.try_turn(publication.topic));
    let route = shared.route(publication.topic);
    let mut effects = HookEffects::default();
    let mut cursor = 0;
    let mut progress = Progress::Done;
    if let Some(handler) = &route.handler {
        progress = handler.handle(publication, &mut cursor, &mut effects);
        if let Some(context) = effects.trace
            && progress == Progress::Done
            && traced.is_none()
        {
            *traced = Some(Traced::of_rule(shared, context, publication));
        }
    }
    if effects.refused && progress == Progress::Done {
        return Admission::Refused(ReasonCode::QuotaExceeded);
    }
    let mut made: SmallVec<[Made; 1]> = SmallVec::new();
    if progress == Progress::Done {
        for republish in effects.republish.drain(..) {
            made.extend(Made::new(shared, publication, republish, made.len(), now));
        }
    }
    let is_straight = progress == Progress::Done
        && effects.owed.is_empty()
        && goes_straight(shared, publication, received, &route)
        // Should there be no room to retain it, what rules made of it is refused with it.
        && (made.is_empty() || !publication.retain)
        && made.iter().all(|made| {
            let publication = made.publication();
            !publication.retain
                && made.route.handler.is_none()
                && goes_straight(shared, &publication, None, &made.route)
        })
        && receivers(&route) + made.iter().map(|made| receivers(&made.route)).sum::<usize>() <= CHUNK;
    if is_straight && !matches!(turn, Some(None)) {
        let mut fanout = Fanout::new(*publication, None, receivers(&route), now.mono_ms);
        if publication.retain
            && let Err(reason) = shared.retain(&mut fanout)
        {
            return Admission::Refused(reason);
        }
        effects.admitted.drain(..).for_each(|admitted| admitted());
        if let Some(received) = received {
            received.session.lock().state.admit_received(received.id, CommitToken::NOTHING_OWED);
        }
        let mut slow = None;
        if let Some(traced) = traced {
            tell_route(shared, traced.context(), &route);
        }
        fan_out(shared, &mut fanout, &route, &Places::default(), 0, &mut slow);
        drop(fanout);
        for made in &made {
            let publication = made.publication();
            if let Some(context) = publication.trace {
                tell_route(shared, context, &made.route);
            }
            let mut fanout = Fanout::new(publication, None, receivers(&made.route), now.mono_ms);
            fan_out(shared, &mut fanout, &made.route, &Places::default(), 0, &mut slow);
        }
        return Admission::Done(Outcome {
            token: CommitToken::NOTHING_OWED,
            matched: is_matched(&route),
            slow,
        });
    }
    drop(turn);
    let mut steps = Vec::with_capacity(1 + made.len());
    steps.push(Step::new(publication.to_message(), route));
    steps.extend(made.into_iter().map(Step::from));
    Admission::Suspended(Box::new(Dispatch {
        steps,
        stage: match progress {
            Progress::Done => Stage::Rules { at: 0, cursor: usize::MAX, effects },
            Progress::Yield => Stage::Rules { at: 0, cursor, effects },
        },
        admitted: Vec::new(),
        placed: Vec::new(),
        turns: Vec::new(),
        received: received.cloned(),
        will: 0,
        token: CommitToken::NOTHING_OWED,
        slow: None,
        traced: traced.take(),
    }))
}

/// How many a route leads to.
fn receivers(route: &Route) -> usize {
    route.receivers.len() + route.groups.len()
}

/// Whether a message can be handed out at once: it owes nothing that has to be on disk first, and no place in a queue has
/// to be reserved for it.
fn goes_straight(
    shared: &Shared,
    publication: &Publication<'_>,
    received: Option<&Received>,
    route: &Route,
) -> bool {
    receivers(route) <= CHUNK
        && !(shared.store.keeps_records() && owes(publication, received, route))
        && (shared.config.limits.max_queued_policy == QueuePolicy::DropOldest
            || publication.qos == QoS::AtMostOnce)
}

/// Whether a Retained Message of this topic outlives the broker. What the broker says of itself doesn't.
pub(crate) fn is_kept(topic: &str) -> bool {
    !topic.starts_with("$SYS/")
}

/// Whether anything about the message has to go on record.
fn owes(publication: &Publication<'_>, received: Option<&Received>, route: &Route) -> bool {
    (publication.retain && is_kept(publication.topic))
        || received.is_some_and(|received| received.session.is_on_record())
        || (publication.qos > QoS::AtMostOnce
            && (route.receivers.iter().any(|receiver| receiver.session.is_on_record())
                || route.groups.iter().any(|group| group.is_on_record())))
}

fn is_matched(route: &Route) -> bool {
    !route.receivers.is_empty() || !route.groups.is_empty()
}

/// A message on its way, over several turns.
pub(crate) struct Dispatch {
    /// The message that was published, then what rules made of it, in order.
    steps: Vec<Step>,
    stage: Stage,
    /// What rules want done once all of it is admitted.
    admitted: Vec<Admitted>,
    /// Who wants to know the places of debts to actions.
    placed: Vec<(Placed, Position)>,
    /// The turns of the shards in which it changes Retained Messages.
    turns: Vec<TurnGuard>,
    received: Option<Received>,
    /// It is a will, with this place in the store's queue of wills; 0: none.
    will: u64,
    token: CommitToken,
    slow: Option<Arc<Session>>,
    /// The first span of the message that was published, if it is traced.
    traced: Option<Box<Traced>>,
}

impl std::fmt::Debug for Dispatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dispatch")
            .field("steps", &self.steps)
            .field("stage", &self.stage)
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Step {
    message: Arc<Message>,
    route: Arc<Route>,
    /// What actions are owed because of it.
    owed: Vec<OwedToAction>,
    /// Made by a rule, and there is no room to retain it: nobody receives it, and only what actions are owed remains.
    is_dropped: bool,
    places: Places,
}

impl Step {
    fn new(message: Arc<Message>, route: Arc<Route>) -> Self {
        Self { message, route, owed: Vec::new(), is_dropped: false, places: Places::default() }
    }

    /// Its trace; `first`: the first span of the message that was published, if this is it.
    fn trace<'s>(&'s self, first: Option<&'s Traced>) -> Option<&'s trace::Context> {
        self.message.publication().trace.or_else(|| first.map(Traced::context))
    }

    /// Whether it changes a Retained Message.
    fn retains(&self) -> bool {
        self.message.publication().retain && !self.is_dropped
    }
}

impl From<Made> for Step {
    fn from(made: Made) -> Self {
        let message = made.publication().to_message();
        Self::new(message, made.route)
    }
}

enum Stage {
    /// Rules see the message at `at`. A cursor of `usize::MAX`: its handler is through, its effects are to be used.
    Rules { at: usize, cursor: usize, effects: HookEffects },
    /// Rules are through. The turns of these shards are still to be had, the last one first; then all is admitted.
    Admit { shards: Vec<usize>, waiting: Option<WaitForTurn> },
    /// The frame is with the store; an inbound QoS 2 message goes on when it is safe.
    Commit,
    /// Receivers of the message at `at` are served, from `next` on.
    FanOut { at: usize, next: usize },
}

type WaitForTurn = Pin<Box<dyn Future<Output = TurnGuard> + Send>>;

impl std::fmt::Debug for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Rules { at, .. } => write!(f, "Rules {{ at: {at} }}"),
            Self::Admit { shards, .. } => write!(f, "Admit {{ shards: {shards:?} }}"),
            Self::Commit => f.write_str("Commit"),
            Self::FanOut { at, next } => write!(f, "FanOut {{ at: {at}, next: {next} }}"),
        }
    }
}

/// How far one turn came.
pub(crate) enum Turn {
    /// To the end.
    Done(Result<Outcome, ReasonCode>),
    /// The turn's budget is used up: others first, then go on.
    Again,
    /// Something else has to happen; the waker is registered there.
    Waiting,
    /// It is admitted and can't become safe: the store has failed. Whether it is on disk nobody knows.
    Failed,
}

impl Dispatch {
    /// A message that the broker itself publishes.
    pub(crate) fn internal(shared: &Shared, message: Arc<Message>) -> Self {
        let traced = Traced::of(shared, &message.publication());
        Self::begun(shared, message, traced)
    }

    fn begun(shared: &Shared, message: Arc<Message>, traced: Option<Box<Traced>>) -> Self {
        let route = shared.route(message.topic());
        Self {
            traced,
            steps: vec![Step::new(message, route)],
            stage: Stage::Rules { at: 0, cursor: 0, effects: HookEffects::default() },
            admitted: Vec::new(),
            placed: Vec::new(),
            turns: Vec::new(),
            received: None,
            will: 0,
            token: CommitToken::NOTHING_OWED,
            slow: None,
        }
    }

    /// A will, with its place in the store's queue of wills: what it owes replaces it there.
    pub(crate) fn will(shared: &Shared, message: Arc<Message>, place: u64) -> Self {
        Self { will: place, ..Self::internal(shared, message) }
    }

    /// A client's publish that came while an earlier one of the same client is on its way.
    pub(crate) fn behind(
        shared: &Shared,
        publication: &Publication<'_>,
        received: Option<Received>,
        traced: Option<Box<Traced>>,
    ) -> Self {
        Self { received, ..Self::begun(shared, publication.to_message(), traced) }
    }

    /// Whether it is admitted and waits for nothing but the store, or for those before it.
    pub(crate) fn is_admitted(&self) -> bool {
        matches!(self.stage, Stage::Commit | Stage::FanOut { .. })
    }

    /// Goes on for one turn. Unless it is the `first` of its publisher's, it isn't fanned out yet: order is kept.
    pub(crate) fn turn(&mut self, shared: &Shared, cx: &mut Context<'_>, now: Now, first: bool) -> Turn {
        let turn = self.advance(shared, cx, now, first);
        if let Turn::Done(result) = &turn
            && let Some(traced) = self.traced.take()
        {
            match result {
                Ok(outcome) => traced.done(outcome.matched),
                Err(reason) => traced.refused(*reason),
            }
        }
        turn
    }

    fn advance(&mut self, shared: &Shared, cx: &mut Context<'_>, now: Now, first: bool) -> Turn {
        loop {
            match &mut self.stage {
                Stage::Rules { .. } => match self.run_rules(shared, now) {
                    Ok(Progress::Yield) => return Turn::Again,
                    Err(reason) => return self.refused(shared, reason),
                    Ok(Progress::Done) => {
                        // Everybody takes turns in the same order, so nobody waits in a circle.
                        let mut shards: Vec<_> = self
                            .steps
                            .iter()
                            .filter(|step| step.retains())
                            .map(|step| shared.retained.number(step.message.topic()))
                            .collect();
                        shards.sort_unstable_by(|a, b| b.cmp(a));
                        shards.dedup();
                        self.stage = Stage::Admit { shards, waiting: None };
                    }
                },
                Stage::Admit { shards, waiting } => {
                    // Who holds a turn waits for the store alone, and not for a message before it.
                    if !first && !shards.is_empty() {
                        return Turn::Waiting;
                    }
                    while let Some(shard) = shards.last() {
                        let turn = waiting.get_or_insert_with(|| Box::pin(shared.retained.turn(*shard)));
                        match turn.as_mut().poll(cx) {
                            Poll::Pending => return Turn::Waiting,
                            Poll::Ready(guard) => self.turns.push(guard),
                        }
                        *waiting = None;
                        shards.pop();
                    }
                    if !self.turns.is_empty() {
                        // Whoever subscribed before the turn is a receiver; whoever does after it finds it retained.
                        for step in self.steps.iter_mut().filter(|step| step.retains()) {
                            step.route = shared.route(step.message.topic());
                        }
                    }
                    match self.admit(shared) {
                        Ok(Some(token)) => {
                            if let Some(received) = &self.received {
                                received.session.lock().state.admit_received(received.id, token);
                            }
                            self.admitted.drain(..).for_each(|admitted| admitted());
                            self.token = token;
                            self.stage = Stage::Commit;
                        }
                        Ok(None) => {
                            // The disk doesn't keep up: again after the next commit.
                            let next = CommitToken(shared.store.committed().0.saturating_add(1));
                            shared.store.wake_when_committed(next, cx.waker());
                            if shared.store.has_failed() {
                                continue;
                            }
                            return Turn::Waiting;
                        }
                        Err(reason) => return self.refused(shared, reason),
                    }
                }
                Stage::Commit => {
                    if !first {
                        return Turn::Waiting;
                    }
                    // What came at QoS 2 goes nowhere before its receive record is safe.
                    let is_received = self.received.as_ref().is_some_and(|it| it.session.is_on_record());
                    if is_received && shared.store.committed() < self.token {
                        shared.store.wake_when_committed(self.token, cx.waker());
                        if shared.store.committed() < self.token {
                            return if shared.store.has_failed() { Turn::Failed } else { Turn::Waiting };
                        }
                    }
                    self.placed.drain(..).for_each(|(placed, position)| placed(position));
                    for step in self.steps.iter().filter(|step| step.retains()) {
                        let receivers = step.route.receivers.len() + step.route.groups.len();
                        let mut fanout = Fanout::of_message(&step.message, receivers, now.mono_ms);
                        if let Err(reason) = shared.retain(&mut fanout) {
                            // Room was checked at admission; other shards took it since. The publish stands.
                            tracing::debug!(?reason, "message not retained: the limit was reached meanwhile");
                        }
                    }
                    self.stage = Stage::FanOut { at: 0, next: 0 };
                }
                Stage::FanOut { at, next } => {
                    let Some(step) = self.steps.get_mut(*at) else {
                        let matched = self.steps.first().is_some_and(|step| is_matched(&step.route));
                        self.turns.clear();
                        return Turn::Done(Ok(Outcome {
                            token: self.token,
                            matched,
                            slow: self.slow.take(),
                        }));
                    };
                    if step.is_dropped {
                        *at += 1;
                        continue;
                    }
                    if *next == 0
                        && let Some(context) = step.trace(self.traced.as_deref().filter(|_| *at == 0))
                    {
                        tell_route(shared, context, &step.route);
                    }
                    let receivers = step.route.receivers.len() + step.route.groups.len();
                    let mut fanout = Fanout::of_message(&step.message, receivers, now.mono_ms);
                    let reached =
                        fan_out(shared, &mut fanout, &step.route, &step.places, *next, &mut self.slow);
                    if reached < step.route.receivers.len() {
                        *next = reached;
                        return Turn::Again;
                    }
                    (*at, *next) = (*at + 1, 0);
                }
            }
        }
    }

    /// It ends here: nobody receives the message, nor what rules made of it.
    fn refused(&self, shared: &Shared, reason: ReasonCode) -> Turn {
        let lost = self.steps.iter().filter(|step| !step.is_dropped).count();
        shared.metrics.messages_refused.add(lost as u64);
        let first = self.steps.first().map(|step| step.message.publication());
        if let Some((publication, publisher)) = first.and_then(|first| Some((first, first.publisher?)))
            && self.traced.is_none()
        {
            tell_refused(shared, None, publication.topic, publisher, reason);
        }
        Turn::Done(Err(reason))
    }

    /// Goes on to the end, with nobody before it.
    pub(crate) async fn finish(mut self, shared: &Shared) -> Result<Outcome, ReasonCode> {
        std::future::poll_fn(|cx| {
            let turn = self.turn(shared, cx, shared.clock.now(), true);
            shared.metrics.end_turn();
            match turn {
                Turn::Done(result) => Poll::Ready(result),
                Turn::Again => {
                    wake_after_this_turn(cx.waker());
                    Poll::Pending
                }
                Turn::Waiting => Poll::Pending,
                Turn::Failed => Poll::Ready(Err(ReasonCode::ImplementationSpecificError)),
            }
        })
        .await
    }

    /// Shows every message to its handler; what that makes becomes further messages.
    fn run_rules(&mut self, shared: &Shared, now: Now) -> Result<Progress, ReasonCode> {
        let Stage::Rules { at, cursor, effects } = &mut self.stage else { return Ok(Progress::Done) };
        while let Some(step) = self.steps.get_mut(*at) {
            if *cursor != usize::MAX
                && let Some(handler) = &step.route.handler
                && handler.handle(&step.message.publication(), cursor, effects) == Progress::Yield
            {
                return Ok(Progress::Yield);
            }
            if let Some(context) = effects.trace.take()
                && *at == 0
                && self.traced.is_none()
            {
                self.traced = Some(Traced::of_rule(shared, context, &step.message.publication()));
            }
            if effects.refused {
                return Err(ReasonCode::QuotaExceeded);
            }
            self.admitted.append(&mut effects.admitted);
            step.owed.append(&mut effects.owed);
            let source = Arc::clone(&step.message);
            for republish in effects.republish.drain(..) {
                let before = self.steps.len() - 1;
                self.steps
                    .extend(Made::new(shared, &source.publication(), republish, before, now).map(Step::from));
            }
            *at += 1;
            *cursor = 0;
        }
        Ok(Progress::Done)
    }
}

/// Finishes messages whose publisher is gone, in their order.
pub(crate) async fn finish(shared: Arc<Shared>, dispatches: Vec<Dispatch>) {
    for dispatch in dispatches {
        let received = dispatch.received.clone();
        let result = dispatch.finish(&shared).await;
        if let Some(received) = received {
            let mut session = received.session.lock();
            if result.is_err() && session.state.received_token(received.id) == FirstCopy::NotAdmitted {
                // When it comes again it is a new one.
                session.state.release_received(received.id);
            }
            // A copy that came on another connection may wait to know.
            session.nudge();
        }
        if let Err(reason) = result {
            tracing::debug!(?reason, "a publish was refused after its publisher had gone");
        }
    }
}
