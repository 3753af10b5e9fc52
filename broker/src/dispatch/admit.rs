//! Admission: every budget is reserved, then every debt of a message, and of what rules made of it, goes into one frame.

use std::sync::Arc;

use mqtt_protocol::{QoS, ReasonCode};
use store::{CommitToken, MessageRecord, Position, Record, StoreError};

use super::{Dispatch, Step, is_kept};
use crate::author;
use crate::broker::Shared;
use crate::config::{Limits, QueuePolicy};
use crate::hook::OwedToAction;
use crate::message::Publication;
use crate::session::{Grant, Session, WILLS};
use crate::subscriptions::route::Granted;

/// The places of a message's debts in the queues of its receivers.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// By the receiver's number in the route, ascending.
    pub(super) receivers: Vec<(usize, u64)>,
    /// By the group's number in the route, ascending.
    pub(super) groups: Vec<(usize, u64)>,
}

impl Places {
    pub(super) fn find(places: &[(usize, u64)], number: usize) -> u64 {
        let found = places.binary_search_by_key(&number, |(number, _)| *number).ok();
        found.and_then(|found| places.get(found)).map_or(0, |(_, place)| *place)
    }
}

impl Dispatch {
    /// Reserves every budget, then puts every debt into one frame. An error means that nothing happened, `None` that it has
    /// to be tried again after the next commit.
    pub(super) fn admit(&mut self, shared: &Shared) -> Result<Option<CommitToken>, ReasonCode> {
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
                || shared.may_retain(publication.topic, step.message.size());
            if !fits && place == 0 {
                return Err(ReasonCode::QuotaExceeded);
            }
            if !fits && !std::mem::replace(&mut step.is_dropped, true) {
                shared.metrics.dropped_rule_output.add(1);
                shared.metrics.messages_refused.add(1);
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
                let mut session = receiver.session.lock();
                // Nobody is kept waiting for somebody who doesn't get it.
                if !session.state.permits(step.message.topic()) {
                    continue;
                }
                if !session.state.reserve(size, limits) {
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
        let authors: Vec<_> = self.steps.iter().map(author_of_retained).collect();
        let mut records = Vec::new();
        for ((step, debts), author) in self.steps.iter().zip(&debts).zip(&authors) {
            let publication = step.message.publication();
            let before = records.len();
            let message = MessageRecord { author, ..message_record(&publication, now_ms) };
            records.push(Record::Message(message));
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
        if self.will != 0 {
            records.push(Record::Settled { queue: WILLS, position: Position(self.will) });
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

/// Who left a Retained Message, as it is kept with it; nothing for other messages.
fn author_of_retained(step: &Step) -> Vec<u8> {
    let publication = step.message.publication();
    let author = publication.publisher.filter(|_| step.retains() && !publication.payload.is_empty());
    author.map(|author| author::encode(author)).unwrap_or_default()
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
        .filter_map(|(number, receiver)| Some((number, (receiver, receiver.granted(publisher)?))))
        .filter(|(_, (receiver, granted))| {
            // Who may not have it is owed nothing. Who is away is asked about when it comes.
            granted.qos > QoS::AtMostOnce && receiver.session.lock().state.permits(publication.topic)
        })
        .map(|(number, (_, granted))| (number, granted))
        .collect();
    let groups = step.route.groups.iter().enumerate();
    let groups = groups.filter(|(_, group)| group.is_on_record()).map(|(number, _)| number).collect();
    RecordedDebts { receivers, groups }
}

/// The message as the store keeps it, without its author.
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
        author: &[],
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

fn give_up(reserved: &[(Arc<Session>, usize)]) {
    for (session, size) in reserved {
        session.lock().state.release(*size);
    }
}
