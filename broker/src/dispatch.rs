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
//! message from the read buffer, when nothing stands in the way: few receivers, no rule that republishes, nothing to
//! wait for. Otherwise it hands back a [`Dispatch`], which goes on in turns: chunks of [`CHUNK`] receivers, rules within
//! their step budget, the wait for a commit.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use mqtt_protocol::{
    FrameStatus, Outgoing, PacketId, ProtocolVersion, Publish, PublishLayout, QoS, ReasonCode,
};
use store::{CommitToken, MessageRecord, Position, Record, StoreError};

use crate::broker::Shared;
use crate::clock::Now;
use crate::config::{Limits, QueuePolicy};
use crate::hook::{Admitted, HookEffects, OwedToAction, Placed, Progress, Republish};
use crate::message::{Message, Publication, Publisher, Trail};
use crate::metrics::tally;
use crate::outbound::{SHARE_ALWAYS_BYTES, SHARE_RECEIVERS, SHARE_WIDE_BYTES};
use crate::session::state::remaining_s;
use crate::session::{Delivered, Grant, Session, wake_after_this_turn};
use crate::subscriptions::retained::TurnGuard;
use crate::subscriptions::route::{Granted, Route};

/// Receivers served in one turn.
pub(crate) const CHUNK: usize = 512;

/// Messages that rules may make of one publish, chains included.
const REPUBLISHED_MAX: usize = 10_000;

/// One message being handed to many: what they share is made once, when first needed.
#[derive(Debug)]
pub(crate) struct Fanout<'a> {
    publication: Publication<'a>,
    owned: Option<Arc<Message>>,
    shares_payload: bool,
    /// One receiver: nothing is worth preparing.
    is_single: bool,
    now_ms: u64,
    remaining_s: Option<u32>,
    /// By version (3.x, 5) and presence of a Packet Identifier.
    layouts: [Option<PublishLayout>; 4],
}

thread_local! {
    /// Memory of layouts to use again.
    static SCRATCH: std::cell::RefCell<Vec<Vec<u8>>> = const { std::cell::RefCell::new(Vec::new()) };
}

impl<'a> Fanout<'a> {
    fn new(publication: Publication<'a>, owned: Option<Arc<Message>>, receivers: usize, now_ms: u64) -> Self {
        let size = publication.payload.len();
        Self {
            owned,
            shares_payload: receivers > 1
                && (size >= SHARE_ALWAYS_BYTES || (size >= SHARE_WIDE_BYTES && receivers > SHARE_RECEIVERS)),
            is_single: receivers <= 1,
            now_ms,
            remaining_s: remaining_s(publication.expires_at_ms, now_ms),
            publication,
            layouts: [None, None, None, None],
        }
    }

    pub(crate) fn of_message(message: &'a Arc<Message>, receivers: usize, now_ms: u64) -> Self {
        Self::new(message.publication(), Some(Arc::clone(message)), receivers, now_ms)
    }

    /// QoS of the publish.
    pub(crate) fn qos(&self) -> QoS {
        self.publication.qos
    }

    /// RETAIN flag of the publish.
    pub(crate) fn retain(&self) -> bool {
        self.publication.retain
    }

    pub(crate) fn payload(&self) -> &'a [u8] {
        self.publication.payload
    }

    /// Whether receivers point at one copy of the payload instead of copying it.
    pub(crate) fn shares_payload(&self) -> bool {
        self.shares_payload
    }

    /// When the fan-out began, on the broker's clock.
    pub(crate) fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// Whether there is one receiver only: its packet is encoded in place, without a layout to copy.
    pub(crate) fn is_single(&self) -> bool {
        self.is_single
    }

    /// The message as something that can be kept.
    pub(crate) fn message(&mut self) -> &Arc<Message> {
        self.owned.get_or_insert_with(|| self.publication.to_message())
    }

    pub(crate) fn outgoing(&self) -> Outgoing<'a> {
        Outgoing {
            topic: self.publication.topic,
            payload: self.publication.payload,
            forward: self.publication.properties,
            message_expiry_interval_s: self.remaining_s,
        }
    }

    /// The encoded header for receivers of this kind; `None` if the message can't be encoded for them.
    pub(crate) fn layout(&mut self, version: ProtocolVersion, has_id: bool) -> Option<&PublishLayout> {
        let outgoing = self.outgoing();
        let place = usize::from(version.has_properties()) * 2 + usize::from(has_id);
        let slot = self.layouts.get_mut(place)?;
        if slot.is_none() {
            let scratch = SCRATCH.with_borrow_mut(Vec::pop).unwrap_or_default();
            *slot = PublishLayout::new(version, has_id, &outgoing, scratch).ok();
        }
        slot.as_ref()
    }
}

impl Drop for Fanout<'_> {
    fn drop(&mut self) {
        for layout in self.layouts.iter_mut().filter_map(Option::take) {
            SCRATCH.with_borrow_mut(|scratch| {
                if scratch.len() < 8 {
                    scratch.push(layout.into_scratch());
                }
            });
        }
    }
}

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
) -> Admission {
    // The turn first: whoever subscribes before it is in the route, whoever does after it finds the message retained.
    let turn = publication.retain.then(|| shared.retained.try_turn(publication.topic));
    let route = shared.route(publication.topic);
    let mut effects = HookEffects::default();
    let mut cursor = 0;
    let mut progress = Progress::Done;
    if let Some(handler) = &route.handler {
        progress = handler.handle(publication, &mut cursor, &mut effects);
    }
    if effects.refused && progress == Progress::Done {
        return Admission::Refused(ReasonCode::QuotaExceeded);
    }
    let plain = progress == Progress::Done
        && effects.republish.is_empty()
        && effects.owed.is_empty()
        && route.receivers.len() + route.groups.len() <= CHUNK
        && !(shared.store.keeps_records() && owes(publication, received, &route))
        && (shared.config.limits.max_queued_policy == QueuePolicy::DropOldest
            || publication.qos == QoS::AtMostOnce);
    if plain && !matches!(turn, Some(None)) {
        let mut fanout =
            Fanout::new(*publication, None, route.receivers.len() + route.groups.len(), now.mono_ms);
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
        fan_out(shared, &mut fanout, &route, &Places::default(), 0, &mut slow);
        return Admission::Done(Outcome {
            token: CommitToken::NOTHING_OWED,
            matched: is_matched(&route),
            slow,
        });
    }
    drop(turn);
    let step = Step::new(publication.to_message(), route);
    Admission::Suspended(Box::new(Dispatch {
        steps: vec![step],
        stage: match progress {
            Progress::Done => Stage::Rules { at: 0, cursor: usize::MAX, effects },
            Progress::Yield => Stage::Rules { at: 0, cursor, effects },
        },
        admitted: Vec::new(),
        placed: Vec::new(),
        turns: Vec::new(),
        received: received.cloned(),
        will_of: None,
        token: CommitToken::NOTHING_OWED,
        slow: None,
    }))
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
    /// It is the will of this session, which has none any more once it is admitted.
    will_of: Option<Arc<Session>>,
    token: CommitToken,
    slow: Option<Arc<Session>>,
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

/// The places of a message's debts in the queues of its receivers.
#[derive(Debug, Default)]
struct Places {
    /// By the receiver's number in the route, ascending.
    receivers: Vec<(usize, u64)>,
    /// By the group's number in the route, ascending.
    groups: Vec<(usize, u64)>,
}

impl Places {
    fn find(places: &[(usize, u64)], number: usize) -> u64 {
        let found = places.binary_search_by_key(&number, |(number, _)| *number).ok();
        found.and_then(|found| places.get(found)).map_or(0, |(_, place)| *place)
    }
}

impl Step {
    fn new(message: Arc<Message>, route: Arc<Route>) -> Self {
        Self { message, route, owed: Vec::new(), is_dropped: false, places: Places::default() }
    }

    /// Whether it changes a Retained Message.
    fn retains(&self) -> bool {
        self.message.publication().retain && !self.is_dropped
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
}

impl Dispatch {
    /// A message that the broker itself publishes.
    pub(crate) fn internal(shared: &Shared, message: Arc<Message>) -> Self {
        let route = shared.route(message.topic());
        Self {
            steps: vec![Step::new(message, route)],
            stage: Stage::Rules { at: 0, cursor: 0, effects: HookEffects::default() },
            admitted: Vec::new(),
            placed: Vec::new(),
            turns: Vec::new(),
            received: None,
            will_of: None,
            token: CommitToken::NOTHING_OWED,
            slow: None,
        }
    }

    /// A session's will.
    pub(crate) fn will(shared: &Shared, message: Arc<Message>, session: Arc<Session>) -> Self {
        Self { will_of: Some(session), ..Self::internal(shared, message) }
    }

    /// A client's publish that came while an earlier one of the same client is on its way.
    pub(crate) fn behind(shared: &Shared, publication: &Publication<'_>, received: Option<Received>) -> Self {
        Self { received, ..Self::internal(shared, publication.to_message()) }
    }

    /// Whether it is admitted and waits for nothing but the store, or for those before it.
    pub(crate) fn is_admitted(&self) -> bool {
        matches!(self.stage, Stage::Commit | Stage::FanOut { .. })
    }

    /// Goes on for one turn. Unless it is the `first` of its publisher's, it isn't fanned out yet: order is kept.
    pub(crate) fn turn(&mut self, shared: &Shared, cx: &mut Context<'_>, now: Now, first: bool) -> Turn {
        loop {
            match &mut self.stage {
                Stage::Rules { .. } => match self.run_rules(shared, now) {
                    Ok(Progress::Yield) => return Turn::Again,
                    Err(reason) => return Turn::Done(Err(reason)),
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
                            return Turn::Waiting;
                        }
                        Err(reason) => return Turn::Done(Err(reason)),
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
                            return Turn::Waiting;
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
            if effects.refused {
                return Err(ReasonCode::QuotaExceeded);
            }
            self.admitted.append(&mut effects.admitted);
            step.owed.append(&mut effects.owed);
            let source = Arc::clone(&step.message);
            for republish in effects.republish.drain(..) {
                if self.steps.len() > REPUBLISHED_MAX {
                    shared.metrics.dropped_rule_output.add(1);
                    continue;
                }
                match made_by_rule(shared, &source, republish, now) {
                    Some(message) => {
                        shared.metrics.messages_republished.add(1);
                        let route = shared.route(message.topic());
                        self.steps.push(Step::new(message, route));
                    }
                    None => shared.metrics.dropped_rule_output.add(1),
                }
            }
            *at += 1;
            *cursor = 0;
        }
        Ok(Progress::Done)
    }

    /// Reserves every budget, then puts every debt into one frame. An error means that nothing happened, `None` that it has
    /// to be tried again after the next commit.
    fn admit(&mut self, shared: &Shared) -> Result<Option<CommitToken>, ReasonCode> {
        let limits = &shared.config.limits;
        self.check_retained(shared)?;
        let mut reserved = Vec::new();
        if limits.max_queued_policy == QueuePolicy::Refuse
            && let Err(reason) = self.reserve(limits, &mut reserved)
        {
            give_up(&reserved);
            return Err(reason);
        }
        let token = if shared.store.keeps_records() {
            self.append_debts(shared)
        } else {
            self.place(&[]);
            Ok(Some(CommitToken::NOTHING_OWED))
        };
        // A reservation is needed only until the message is in the queue, which nothing can keep it from any more; the
        // room between here and there is covered by the few messages that a queue may exceed its limit by.
        give_up(&reserved);
        token
    }

    fn check_retained(&mut self, shared: &Shared) -> Result<(), ReasonCode> {
        for (place, step) in self.steps.iter_mut().enumerate() {
            let publication = step.message.publication();
            let fits = !publication.retain
                || publication.payload.is_empty()
                || shared
                    .retained
                    .has_room(publication.topic, step.message.size(), &shared.config.limits)
                    .is_ok();
            if !fits && place == 0 {
                return Err(ReasonCode::QuotaExceeded);
            }
            if !fits && !std::mem::replace(&mut step.is_dropped, true) {
                shared.metrics.dropped_rule_output.add(1);
            }
        }
        Ok(())
    }

    /// Notes the places of what actions are owed: the last of these, or nowhere.
    fn place(&mut self, positions: &[Position]) {
        let owed: Vec<OwedToAction> = self.steps.iter_mut().flat_map(|step| step.owed.drain(..)).collect();
        let theirs = positions.len().checked_sub(owed.len()).and_then(|others| positions.get(others..));
        let mut places = theirs.unwrap_or_default().iter().copied();
        for debt in owed {
            self.placed.push((debt.placed, places.next().unwrap_or(Position::NOWHERE)));
        }
    }

    fn reserve(&self, limits: &Limits, reserved: &mut Vec<(Arc<Session>, usize)>) -> Result<(), ReasonCode> {
        for step in self.steps.iter().filter(|step| step.message.qos() > QoS::AtMostOnce && !step.is_dropped)
        {
            for receiver in step.route.receivers.iter().filter(|receiver| receiver.may_owe()) {
                let size = step.message.size();
                if !receiver.session.lock().state.reserve(size, limits) {
                    return Err(ReasonCode::QuotaExceeded);
                }
                reserved.push((Arc::clone(&receiver.session), size));
            }
        }
        Ok(())
    }

    fn append_debts(&mut self, shared: &Shared) -> Result<Option<CommitToken>, ReasonCode> {
        let now_ms = shared.clock.now().mono_ms;
        let debts: Vec<_> = self.steps.iter().map(recorded_debts).collect();
        let mut records = Vec::new();
        for (step, debts) in self.steps.iter().zip(&debts) {
            let publication = step.message.publication();
            let before = records.len();
            records.push(Record::Message(message_record(&publication, now_ms)));
            if step.retains() && is_kept(publication.topic) {
                records.push(if publication.payload.is_empty() {
                    Record::RetainedCleared { topic: publication.topic }
                } else {
                    Record::Retained { id: publication.id }
                });
            }
            for (receiver, granted) in &debts.receivers {
                let Some(receiver) = step.route.receivers.get(*receiver) else { continue };
                records.push(Record::Owed {
                    id: publication.id,
                    session: receiver.session.key(),
                    qos: granted.qos.min(publication.qos) as u8,
                    retain: publication.retain && granted.retain_as_published,
                    identifiers: &granted.identifiers,
                });
            }
            for group in &debts.groups {
                let Some(group) = step.route.groups.get(*group) else { continue };
                records.push(Record::OwedToGroup {
                    id: publication.id,
                    share_name: &group.share_name,
                    filter: &group.filter,
                    retain: publication.retain,
                });
            }
            if records.len() == before + 1 && step.owed.is_empty() {
                records.pop();
            }
        }
        if let Some(received) = self.received.as_ref().filter(|received| received.session.is_on_record()) {
            records.push(Record::Received { session: received.session.key(), packet_id: received.id.get() });
        }
        if let Some(session) = self.will_of.as_ref().filter(|session| session.is_on_record()) {
            records.push(Record::WillGone { session: session.key() });
        }
        // Last, so that theirs are the last places.
        for step in &self.steps {
            let publication = step.message.publication();
            records.extend(step.owed.iter().map(|debt| Record::Queued {
                queue: debt.queue.key(publication.namespace),
                id: Some(publication.id),
                body: &debt.body,
            }));
        }
        if records.is_empty() {
            return Ok(Some(CommitToken::NOTHING_OWED));
        }
        let mut positions = Vec::new();
        let token = match shared.store.append_debts(&records, &mut positions) {
            Ok(token) => token,
            Err(StoreError::Busy { .. }) => return Ok(None),
            Err(error) => return Err(shared.store_refused(&error)),
        };
        let mut places = positions.iter().map(|position| position.0);
        for (step, debts) in self.steps.iter_mut().zip(debts) {
            let receivers = debts.receivers.into_iter().map(|(receiver, _)| receiver);
            step.places.receivers = receivers.zip(places.by_ref()).collect();
            step.places.groups = debts.groups.into_iter().zip(places.by_ref()).collect();
        }
        self.place(&positions);
        Ok(Some(token))
    }
}

/// Who is owed a message on record, by number in the route.
struct RecordedDebts {
    /// With what their Subscriptions grant.
    receivers: Vec<(usize, Granted)>,
    groups: Vec<usize>,
}

fn recorded_debts(step: &Step) -> RecordedDebts {
    let publication = step.message.publication();
    if publication.qos == QoS::AtMostOnce || step.is_dropped {
        return RecordedDebts { receivers: Vec::new(), groups: Vec::new() };
    }
    let publisher = publication.publisher.map(|publisher| &*publisher.client_id);
    let receivers = step.route.receivers.iter().enumerate();
    let receivers = receivers
        .filter(|(_, receiver)| receiver.session.is_on_record())
        .filter_map(|(number, receiver)| Some((number, receiver.granted(publisher)?)))
        .filter(|(_, granted)| granted.qos > QoS::AtMostOnce)
        .collect();
    let groups = step.route.groups.iter().enumerate();
    let groups = groups.filter(|(_, group)| group.is_on_record()).map(|(number, _)| number).collect();
    RecordedDebts { receivers, groups }
}

/// The message as the store keeps it.
pub(crate) fn message_record<'a>(publication: &Publication<'a>, now_ms: u64) -> MessageRecord<'a> {
    MessageRecord {
        id: publication.id,
        topic: publication.topic,
        properties: publication.properties,
        payload: publication.payload,
        qos: publication.qos as u8,
        received_at_ms: publication.received_at_ms,
        expires_after_ms: publication.expires_at_ms.map(|at_ms| at_ms.saturating_sub(now_ms)),
        publisher: publication.publisher.map(|publisher| &*publisher.client_id),
    }
}

/// Puts a message that reaches a session otherwise than by its admission on record as owed to it. Returns its place in the
/// session's queue; 0 when the store doesn't take it.
pub(crate) fn adopt(
    shared: &Shared,
    publication: &Publication<'_>,
    session: &Session,
    grant: &Grant<'_>,
) -> u64 {
    let records = [
        Record::Message(message_record(publication, shared.clock.now().mono_ms)),
        Record::Owed {
            id: publication.id,
            session: session.key(),
            qos: grant.qos as u8,
            retain: grant.retain,
            identifiers: grant.identifiers,
        },
    ];
    let mut positions = Vec::new();
    if let Err(error) = shared.store.append_debts(&records, &mut positions) {
        shared.store_refused(&error);
    }
    positions.first().map_or(0, |position| position.0)
}

/// Finishes messages whose publisher is gone, in their order.
pub(crate) async fn finish(shared: Arc<Shared>, dispatches: Vec<Dispatch>) {
    for dispatch in dispatches {
        let received = dispatch.received.clone();
        let result = dispatch.finish(&shared).await;
        if let Some(received) = received {
            let mut session = received.session.lock();
            if result.is_err() {
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

fn give_up(reserved: &[(Arc<Session>, usize)]) {
    for (session, size) in reserved {
        session.lock().state.release(*size);
    }
}

/// The message that a rule makes of another; `None` when it may not.
fn made_by_rule(shared: &Shared, source: &Message, republish: Republish, now: Now) -> Option<Arc<Message>> {
    let limits = &shared.config.limits;
    let source = source.publication();
    let hops = source.trail.rules();
    if hops.len() >= usize::from(limits.max_rule_hops) || hops.contains(&republish.rule) {
        return None;
    }
    shared.check_topic_name(&republish.topic).ok()?;
    let trail = source.trail.with(republish.rule);
    let publication = Publication {
        id: shared.next_message_id(),
        namespace: source.namespace,
        topic: &republish.topic,
        payload: &republish.payload,
        qos: republish.qos,
        retain: republish.retain,
        properties: &republish.properties,
        expires_at_ms: now.expiry(republish.message_expiry_interval_s),
        received_at_ms: now.wall_ms,
        publisher: None,
        trail: &trail,
    };
    Some(publication.to_message())
}

/// Whole PUBLISH frames of one topic as a client sent them: QoS 0, not retained, without properties.
pub(crate) struct Frames<'a> {
    pub(crate) bytes: &'a [u8],
    /// Version that they are encoded in.
    pub(crate) version: ProtocolVersion,
    /// Length of the longest.
    pub(crate) longest: usize,
    pub(crate) count: u64,
    pub(crate) payload_bytes: u64,
    /// Has no handler and at most [`CHUNK`] receivers.
    pub(crate) route: Arc<Route>,
}

/// Hands frames on as they are; returns a receiver that is behind.
pub(crate) fn forward(
    shared: &Shared,
    frames: &Frames<'_>,
    publisher: &Arc<Publisher>,
    now: Now,
) -> Option<Arc<Session>> {
    let limits = &shared.config.limits;
    let route = &frames.route;
    let mut slow = None;
    let mut delivered = 0;
    let mut payload_bytes = 0;
    let one_by_one = |fanout: &mut Fanout<'_>, result| match result {
        Delivered::Dropped(reason) => shared.metrics.dropped(reason),
        Delivered::Sent
        | Delivered::Queued
        | Delivered::QueuedDroppingOldest
        | Delivered::OnDisk
        | Delivered::Known => {
            tally(|tally| {
                tally.delivered += 1;
                tally.payload_bytes_delivered += fanout.payload().len() as u64;
            });
        }
    };
    for receiver in &route.receivers {
        let Some(granted) = receiver.granted(Some(&publisher.client_id)) else { continue };
        let mut session = receiver.session.lock();
        if session.ended || !session.state.is_online() {
            continue;
        }
        if !granted.identifiers.is_empty() || !session.state.takes_frames(frames.version, frames.longest) {
            let grant = Grant {
                qos: QoS::AtMostOnce,
                retain: false,
                identifiers: &granted.identifiers,
                group: None,
                place: 0,
            };
            each_message(shared, frames, publisher, now, |fanout| {
                let result = session.state.deliver(fanout, grant, limits);
                one_by_one(fanout, result);
            });
        } else if session.state.out.len() > limits.max_outbound_bytes as usize {
            shared.metrics.dropped_slow_consumer.add(frames.count);
        } else {
            session.state.out.buffer().extend_from_slice(frames.bytes);
            delivered += frames.count;
            payload_bytes += frames.payload_bytes;
        }
        session.wake_to_write();
        if slow.is_none() && session.state.is_backlogged(limits) {
            slow = Some(Arc::clone(&receiver.session));
        }
    }
    for group in &route.groups {
        each_message(shared, frames, publisher, now, |fanout| {
            let result = group.deliver(shared, fanout, 0);
            one_by_one(fanout, result);
        });
    }
    if !is_matched(route) {
        shared.metrics.messages_unmatched.add(frames.count);
    }
    tally(|tally| {
        tally.delivered += delivered;
        tally.payload_bytes_delivered += payload_bytes;
    });
    slow
}

/// Decodes frames that were checked already.
fn each_message(
    shared: &Shared,
    frames: &Frames<'_>,
    publisher: &Arc<Publisher>,
    now: Now,
    mut deliver: impl FnMut(&mut Fanout<'_>),
) {
    let mut rest = frames.bytes;
    while let Ok(FrameStatus::Complete(frame)) = mqtt_protocol::frame(rest, u32::MAX)
        && let Ok(publish) = Publish::decode(&frame, frames.version)
    {
        let publication = Publication {
            id: shared.next_message_id(),
            namespace: 0,
            topic: publish.topic,
            payload: publish.payload,
            qos: QoS::AtMostOnce,
            retain: false,
            properties: &[],
            expires_at_ms: None,
            received_at_ms: now.wall_ms,
            publisher: Some(publisher),
            trail: &Trail::default(),
        };
        deliver(&mut Fanout::new(publication, None, 1, now.mono_ms));
        rest = rest.get(frame.len..).unwrap_or_default();
        if rest.is_empty() {
            return;
        }
    }
}

/// Serves up to [`CHUNK`] receivers from `next` on, and the groups after the last; returns where to go on.
fn fan_out(
    shared: &Shared,
    fanout: &mut Fanout<'_>,
    route: &Route,
    places: &Places,
    next: usize,
    slow: &mut Option<Arc<Session>>,
) -> usize {
    let limits = &shared.config.limits;
    let publisher = fanout.publication.publisher.map(|publisher| &*publisher.client_id);
    let published = fanout.publication.qos;
    let published_retain = fanout.publication.retain;
    let mut delivered = 0;
    let mut count = |result| match result {
        Delivered::Sent | Delivered::Queued | Delivered::OnDisk | Delivered::Known => delivered += 1,
        Delivered::QueuedDroppingOldest => {
            delivered += 1;
            shared.metrics.dropped_queue_full.add(1);
        }
        Delivered::Dropped(reason) => shared.metrics.dropped(reason),
    };
    let reached = route.receivers.len().min(next + CHUNK);
    for (number, receiver) in route.receivers.iter().enumerate().take(reached).skip(next) {
        let Some(granted) = receiver.granted(publisher) else { continue };
        let mut grant = Grant {
            qos: granted.qos.min(published),
            retain: published_retain && granted.retain_as_published,
            identifiers: &granted.identifiers,
            group: None,
            place: Places::find(&places.receivers, number),
        };
        let mut session = receiver.session.lock();
        if session.ended
            || (grant.qos > QoS::AtMostOnce && !session.state.is_online() && !session.is_durable())
        {
            continue;
        }
        if grant.qos > QoS::AtMostOnce && grant.place == 0 && session.is_recorded {
            // It was put on record after the message was admitted.
            grant.place = adopt(shared, &fanout.publication, &receiver.session, &grant);
        }
        let result = session.state.deliver(fanout, grant, limits);
        count(result);
        if session.state.has_notes() && !session.state.is_online() {
            // No connection does it.
            shared.record(&receiver.session, &mut session);
        }
        if result == Delivered::OnDisk {
            shared.read_backlog(&receiver.session, &mut session);
        }
        session.wake_to_write();
        if slow.is_none() && session.state.is_backlogged(limits) {
            *slow = Some(Arc::clone(&receiver.session));
        }
    }
    if reached == route.receivers.len() {
        for (number, group) in route.groups.iter().enumerate() {
            count(group.deliver(shared, fanout, Places::find(&places.groups, number)));
        }
        if !is_matched(route) {
            shared.metrics.messages_unmatched.add(1);
        }
    }
    tally(|tally| {
        tally.delivered += delivered;
        tally.payload_bytes_delivered += delivered * fanout.payload().len() as u64;
    });
    reached
}
