//! Random records, power cuts and restarts, against a plain model: what was committed is there, and nothing is there by half.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test may fail where it stands, in its helpers too"
)]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use common::{Model, ModelSession, message, options, session};
use proptest::prelude::*;
use store::{
    CommitToken, DurableStore, FaultDisk, MessageId, Position, QueueKey, Record, Store, StoreOptions,
    StoredQueue,
};

/// One step. Names and places are chosen by number among those that there are.
#[derive(Debug, Clone)]
enum Step {
    Start {
        client: u8,
        expiry_interval_s: u32,
        will: bool,
    },
    Detach {
        client: u8,
    },
    End {
        client: u8,
    },
    Subscribe {
        client: u8,
        filter: u8,
        options: u8,
    },
    Unsubscribe {
        client: u8,
        filter: u8,
    },
    Publish {
        to: Vec<u8>,
        group: bool,
        outbox: bool,
        retain: Option<u8>,
        received: Option<(u8, u16)>,
        size: u16,
    },
    ClearRetained {
        topic: u8,
    },
    Release {
        client: u8,
        packet_id: u16,
    },
    Send {
        client: u8,
        from_group: bool,
        choice: u16,
        packet_id: u16,
    },
    AwaitCompletion {
        client: u8,
        packet_id: u16,
    },
    Complete {
        client: u8,
        packet_id: u16,
    },
    Settle {
        queue: u8,
        choice: u16,
    },
    Drop {
        outbox: bool,
    },
    Commit,
    PowerCut {
        seed: u64,
    },
    Restart,
}

const CLIENTS: u8 = 4;

fn step() -> impl Strategy<Value = Step> {
    let client = 0..CLIENTS;
    let packet_id = 1..6u16;
    let publish = (
        prop::collection::vec(0..CLIENTS, 0..4),
        any::<bool>(),
        any::<bool>(),
        prop::option::weighted(0.2, 0..4u8),
        prop::option::weighted(0.2, (0..CLIENTS, 1..6u16)),
        prop_oneof![9 => 0..300u16, 1 => 3000..12_000u16],
    )
        .prop_map(|(to, group, outbox, retain, received, size)| {
            let mut to = to;
            to.sort_unstable();
            to.dedup();
            Step::Publish { to, group, outbox, retain, received, size }
        });
    prop_oneof![
        3 => (client.clone(), 0..100u32, any::<bool>())
            .prop_map(|(client, expiry_interval_s, will)| Step::Start { client, expiry_interval_s, will }),
        1 => client.clone().prop_map(|client| Step::Detach { client }),
        1 => client.clone().prop_map(|client| Step::End { client }),
        1 => (client.clone(), 0..3u8, 0..3u8)
            .prop_map(|(client, filter, options)| Step::Subscribe { client, filter, options }),
        1 => (client.clone(), 0..3u8).prop_map(|(client, filter)| Step::Unsubscribe { client, filter }),
        12 => publish,
        1 => (0..4u8).prop_map(|topic| Step::ClearRetained { topic }),
        1 => (client.clone(), packet_id.clone())
            .prop_map(|(client, packet_id)| Step::Release { client, packet_id }),
        2 => (client.clone(), any::<bool>(), any::<u16>(), packet_id.clone()).prop_map(
            |(client, from_group, choice, packet_id)| Step::Send { client, from_group, choice, packet_id }
        ),
        1 => (client.clone(), packet_id.clone())
            .prop_map(|(client, packet_id)| Step::AwaitCompletion { client, packet_id }),
        2 => (client, packet_id).prop_map(|(client, packet_id)| Step::Complete { client, packet_id }),
        9 => (0..CLIENTS + 2, any::<u16>()).prop_map(|(queue, choice)| Step::Settle { queue, choice }),
        1 => any::<bool>().prop_map(|outbox| Step::Drop { outbox }),
        4 => Just(Step::Commit),
        1 => any::<u64>().prop_map(|seed| Step::PowerCut { seed }),
        1 => Just(Step::Restart),
    ]
}

fn client(number: u8) -> String {
    format!("client {number}")
}

fn group() -> QueueKey<'static> {
    QueueKey::Group { namespace: 0, share_name: "g", filter: "f/#" }
}

fn outbox() -> QueueKey<'static> {
    QueueKey::Outbox { namespace: 0, name: "rule/action" }
}

struct Run {
    disk: FaultDisk,
    options: StoreOptions,
    store: DurableStore,
    model: Model,
    /// The model after each frame since the last state that is certain, with the frame's token.
    history: Vec<(CommitToken, Model)>,
    next: u64,
}

impl Run {
    fn new(options: StoreOptions) -> Self {
        let disk = FaultDisk::default();
        let (store, report) = common::open_with(&disk, options);
        assert_eq!(report, store::RecoveryReport::default());
        let model = Model::default();
        let history = vec![(CommitToken::NOTHING_OWED, model.clone())];
        Self { disk, options, store, model, history, next: 1 }
    }

    fn append(&mut self, records: &[Record<'_>]) -> Vec<Position> {
        let mut positions = Vec::new();
        let token = self.store.append_debts(records, &mut positions).unwrap();
        let token = token.max(self.history.last().unwrap().0);
        self.history.push((token, Model::default()));
        positions
    }

    /// The model has had the frame that was appended last.
    fn applied(&mut self) {
        self.history.last_mut().unwrap().1 = self.model.clone();
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Commit => common::wait_for(&self.store, self.history.last().unwrap().0),
            Step::Restart => {
                let (disk, options) = (self.disk.clone(), self.options);
                // The old one lets go of the disk before the new one opens it.
                let placeholder = common::open(&FaultDisk::default()).0;
                drop(std::mem::replace(&mut self.store, placeholder));
                let (store, report) = DurableStore::open_on(Arc::new(disk), options).unwrap();
                assert!(!report.has_losses() && report.bytes_cut == 0, "{report:?}");
                assert_eq!(report.frames_replayed, 0, "a closed store leaves nothing to replay");
                self.store = store;
                assert_eq!(Model::of(&self.store), self.model);
                self.history = vec![(CommitToken::NOTHING_OWED, self.model.clone())];
            }
            Step::PowerCut { seed } => self.power_cut(*seed),
            _ => {
                self.change(step);
                self.applied();
            }
        }
    }

    fn power_cut(&mut self, seed: u64) {
        let committed = self.store.committed();
        self.disk = self.disk.power_cut(seed);
        let (store, report) = common::open_with(&self.disk, self.options);
        assert!(!report.has_losses(), "{report:?}");
        self.store = store;
        let found = Model::of(&self.store);
        let first = self.history.iter().rposition(|(token, _)| *token <= committed).unwrap_or(0);
        let possible = self.history.get(first..).unwrap();
        // Debts that were paid soon after are allowed to be missing: they were never written.
        let matching = possible.iter().position(|(_, model)| is_same_but_for_paid(&found, model, possible));
        assert!(
            matching.is_some(),
            "after a power cut with {committed:?} committed:\nfound {found:#?}\nof {possible:#?}"
        );
        self.model = found;
        self.history = vec![(CommitToken::NOTHING_OWED, self.model.clone())];
    }

    fn change(&mut self, step: &Step) {
        match step {
            Step::Start { client, expiry_interval_s, will } => {
                self.start(&self::client(*client), *expiry_interval_s, *will);
            }
            Step::Publish { to, group, outbox, retain, received, size } => {
                self.publish(to, *group, *outbox, *retain, *received, *size);
            }
            Step::ClearRetained { topic } => {
                let topic = format!("topic {topic}");
                self.append(&[Record::RetainedCleared { topic: &topic }]);
                self.model.retained.remove(&topic);
            }
            Step::Settle { queue, choice } => self.settle(*queue, *choice),
            Step::Drop { outbox: is_outbox } => {
                let queue = if *is_outbox { outbox() } else { group() };
                self.append(&[Record::QueueDropped { queue }]);
                self.model.queues.remove(&queue.into());
                let dropped = StoredQueue::from(queue);
                for session in self.model.sessions.values_mut() {
                    for (owner, ..) in session.inflight.values_mut() {
                        if owner.as_ref() == Some(&dropped) {
                            *owner = None;
                        }
                    }
                }
            }
            Step::Send { client, from_group, choice, packet_id } => {
                self.send(&self::client(*client), *from_group, *choice, *packet_id);
            }
            _ => self.change_session(step),
        }
    }

    fn start(&mut self, name: &str, expiry_interval_s: u32, will: bool) {
        let number = self.next;
        self.next += 1;
        // Every second time it is somebody's.
        let owner = if number % 2 == 0 { format!("user {number}") } else { String::new() };
        let mut records = vec![
            Record::SessionStarted { session: session(name), expiry_interval_s },
            Record::SessionOwner { session: session(name), owner: &owner },
        ];
        if will {
            let message = message(number, b"will");
            records.push(Record::Will { session: session(name), delay_s: 1, retain: false, message });
        }
        self.append(&records);
        let model = self.model.sessions.entry(name.to_owned()).or_default();
        model.expiry_interval_s = expiry_interval_s;
        model.detached_at_ms = None;
        model.owner.clone_from(&owner);
        model.will = will.then_some(number);
        self.model.queues.entry(common::queue(name).into()).or_default();
    }

    #[allow(clippy::too_many_arguments, reason = "they are the fields of the step")]
    fn publish(
        &mut self,
        to: &[u8],
        to_group: bool,
        to_outbox: bool,
        retain: Option<u8>,
        received: Option<(u8, u16)>,
        size: u16,
    ) {
        let number = self.next;
        self.next += 1;
        let payload = vec![7; size.into()];
        let topic = format!("topic {}", retain.unwrap_or(9));
        let mut kept = message(number, &payload);
        kept.topic = &topic;
        let id = kept.id;
        let names: Vec<_> = to.iter().map(|number| client(*number)).collect();
        let mut records = vec![Record::Message(kept)];
        records.extend(names.iter().map(|name| common::owed(number, name)));
        let mut queues: Vec<QueueKey<'_>> = names.iter().map(|name| common::queue(name)).collect();
        if to_group {
            records.push(Record::OwedToGroup { id, share_name: "g", filter: "f/#", retain: false });
            queues.push(group());
        }
        let body = number.to_le_bytes();
        if to_outbox {
            records.push(Record::Queued { queue: outbox(), id: None, body: &body });
            queues.push(outbox());
        }
        if retain.is_some() {
            records.push(Record::Retained { id });
        }
        let from = received.map(|(number, packet_id)| (client(number), packet_id));
        if let Some((name, packet_id)) = &from {
            records.push(Record::Received { session: session(name), packet_id: *packet_id });
        }
        let positions = self.append(&records);
        assert_eq!(positions.len(), queues.len());
        for (queue, position) in queues.into_iter().zip(positions) {
            let is_session = matches!(queue, QueueKey::Session(_));
            let queue = StoredQueue::from(queue);
            if is_session && !self.model.queues.contains_key(&queue) {
                assert_eq!(position, Position::NOWHERE);
                continue;
            }
            let debts = self.model.queues.entry(queue).or_default();
            assert!(debts.last_key_value().is_none_or(|(last, _)| *last < position.0));
            debts.insert(position.0, number);
        }
        if retain.is_some() {
            self.model.retained.insert(topic, number);
        }
        if let Some((name, packet_id)) = from
            && let Some(session) = self.model.sessions.get_mut(&name)
        {
            session.received.insert(packet_id);
        }
    }

    fn settle(&mut self, queue: u8, choice: u16) {
        let name = client(queue);
        let queue = match queue {
            CLIENTS => group(),
            queue if queue > CLIENTS => outbox(),
            _ => common::queue(&name),
        };
        let Some(debts) = self.model.queues.get_mut(&queue.into()) else {
            self.append(&[Record::Settled { queue, position: Position(1) }]);
            return;
        };
        // Mostly one of the oldest; at times one that was never given.
        let position =
            debts.keys().nth(usize::from(choice) % 4).copied().unwrap_or(u64::from(choice) + (1 << 40));
        debts.remove(&position);
        self.append(&[Record::Settled { queue, position: Position(position) }]);
    }

    fn send(&mut self, name: &str, from_group: bool, choice: u16, packet_id: u16) {
        let queue = if from_group { group() } else { common::queue(name) };
        let debts = self.model.queues.get(&queue.into());
        let position = debts.and_then(|debts| debts.keys().nth(usize::from(choice) % 4)).copied();
        let Some(position) = position else { return self.append_nothing() };
        let record = Record::Sent { session: session(name), queue, position: Position(position), packet_id };
        self.append(&[record]);
        if let Some(session) = self.model.sessions.get_mut(name) {
            session.inflight.insert(packet_id, (Some(queue.into()), position, false));
        }
    }

    fn append_nothing(&mut self) {
        assert!(self.append(&[]).is_empty());
    }

    fn pay(&mut self, owner: Option<&StoredQueue>, position: u64) {
        if let Some(debts) = owner.and_then(|owner| self.model.queues.get_mut(owner)) {
            debts.remove(&position);
        }
    }

    fn change_session(&mut self, step: &Step) {
        let (Step::Detach { client }
        | Step::End { client }
        | Step::Subscribe { client, .. }
        | Step::Unsubscribe { client, .. }
        | Step::Release { client, .. }
        | Step::AwaitCompletion { client, .. }
        | Step::Complete { client, .. }) = step
        else {
            unreachable!("{step:?}")
        };
        let name = self::client(*client);
        let session = common::session(&name);
        let filter = |number: &u8| format!("filter {number}");
        let mut gone = ModelSession::default();
        let model = self.model.sessions.get_mut(&name).unwrap_or(&mut gone);
        match step {
            Step::Detach { .. } => {
                model.detached_at_ms = Some(5);
                self.append(&[Record::SessionDetached { session, at_ms: 5 }]);
            }
            Step::End { .. } => {
                self.model.sessions.remove(&name);
                self.model.queues.remove(&common::queue(&name).into());
                self.append(&[Record::SessionEnded { session }]);
            }
            Step::Subscribe { filter: number, options, .. } => {
                let (filter, options) = (filter(number), *options);
                model.subscriptions.insert(filter.clone(), (options, 3));
                self.append(&[Record::Subscribed { session, filter: &filter, options, identifier: 3 }]);
            }
            Step::Unsubscribe { filter: number, .. } => {
                let filter = filter(number);
                model.subscriptions.remove(&filter);
                self.append(&[Record::Unsubscribed { session, filter: &filter }]);
            }
            Step::Release { packet_id, .. } => {
                model.received.remove(packet_id);
                self.append(&[Record::Released { session, packet_id: *packet_id }]);
            }
            Step::AwaitCompletion { packet_id, .. } => {
                let sent = model.inflight.get_mut(packet_id).map(|sent| {
                    sent.2 = true;
                    sent.clone()
                });
                if let Some((owner, position, _)) = sent {
                    self.pay(owner.as_ref(), position);
                }
                self.append(&[Record::AwaitsCompletion { session, packet_id: *packet_id }]);
            }
            Step::Complete { packet_id, .. } => {
                if let Some((owner, position, false)) = model.inflight.remove(packet_id) {
                    self.pay(owner.as_ref(), position);
                }
                self.append(&[Record::Completed { session, packet_id: *packet_id }]);
            }
            _ => unreachable!("{step:?}"),
        }
    }
}

/// Whether `found` is `model`, except that debts are missing that one of the later states hasn't either.
fn is_same_but_for_paid(found: &Model, model: &Model, later: &[(CommitToken, Model)]) -> bool {
    if found.without_debts() != model.without_debts() {
        return false;
    }
    let none = BTreeMap::new();
    model.queues.iter().all(|(queue, debts)| {
        let there = found.queues.get(queue).unwrap_or(&none);
        let is_paid = |position: &u64| {
            later
                .iter()
                .any(|(_, later)| later.queues.get(queue).is_none_or(|later| !later.contains_key(position)))
        };
        there.iter().all(|debt| debts.get(debt.0) == Some(debt.1))
            && debts.keys().all(|position| there.contains_key(position) || is_paid(position))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, max_shrink_iters: 2000, ..ProptestConfig::default() })]

    #[test]
    fn what_was_committed_is_there_and_nothing_by_half(steps in prop::collection::vec(step(), 1..250)) {
        let mut run = Run::new(options());
        for step in &steps {
            run.step(step);
        }
        run.step(&Step::Commit);
        prop_assert_eq!(&Model::of(&run.store), &run.model);
        run.step(&Step::Restart);
    }
}

#[test]
fn a_message_id_is_not_mistaken_for_another() {
    let (store, _) = common::open(&FaultDisk::default());
    common::start(&store, "c");
    let stranger = MessageId { store: 9, epoch: 9, sequence: 9 };
    let record =
        Record::Owed { id: stranger, session: session("c"), qos: 1, retain: false, identifiers: &[] };
    let refused = store.append(&[Record::Message(message(1, b"m")), record]).unwrap_err();
    assert!(matches!(refused, store::StoreError::Dangling), "{refused}");
    assert_eq!(store.queue_len(common::queue("c")), 0);
}
