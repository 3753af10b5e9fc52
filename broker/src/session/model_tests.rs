//! A session against a model of its client, over a link that breaks.
//!
//! Random deliveries, acknowledgements in any order, cuts that lose whatever is on its way, reconnects with another
//! Receive Maximum. Whatever happens: QoS 2 arrives exactly once, QoS 1 at least once, QoS 0 at most once; first
//! arrivals come in the order of delivery; no connection sees more unacknowledged messages than it allows; DUP says
//! the truth. proptest prints the failing run, shrunk, with its seed.

use std::collections::{HashMap, HashSet, VecDeque};

use mqtt_protocol::{FrameStatus, Packet, PacketId, ProtocolVersion, QoS};
use proptest::prelude::*;

use super::memory::QueuedMemory;
use super::state::{AckError, SessionState};
use super::{ClientLimits, Delivered, DropReason, Grant};
use crate::config::Limits;
use crate::dispatch::Fanout;
use crate::message::{Publication, Trail};

#[derive(Debug, Clone)]
enum Step {
    /// A message is delivered to the session.
    Deliver(u8),
    /// The client reads this much of what was sent, and answers later.
    Read(u8),
    /// The client sends one of the answers it owes.
    Answer(prop::sample::Index),
    /// The link breaks; what is on its way is lost.
    Cut,
    /// The client comes back with this Receive Maximum.
    Connect(u16),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0u8..3).prop_map(Step::Deliver),
        4 => any::<u8>().prop_map(Step::Read),
        6 => any::<prop::sample::Index>().prop_map(Step::Answer),
        1 => Just(Step::Cut),
        1 => (1u16..6).prop_map(Step::Connect),
    ]
}

/// Answers that the client owes, in no particular order.
#[derive(Debug, Clone, Copy)]
enum Owed {
    Puback(PacketId),
    Pubrec(PacketId),
    Pubcomp(PacketId),
}

#[derive(Debug)]
struct Model {
    session: SessionState,
    limits: Limits,
    online: bool,
    window: u16,
    /// Sent and not yet read.
    link: VecDeque<u8>,
    unread: Vec<u8>,
    owed: Vec<Owed>,
    /// Unacknowledged on this connection, as the client counts.
    open: HashSet<PacketId>,
    /// QoS 2 messages that the client has and that aren't released.
    held: HashSet<PacketId>,
    /// What came under an identifier that isn't acknowledged yet: the same must come again.
    content: HashMap<PacketId, u32>,
    /// Messages accepted by the session at QoS 1 and 2, in order, and their QoS.
    accepted: Vec<(u32, QoS)>,
    arrived: Vec<(u32, QoS)>,
    next: u32,
}

impl Model {
    fn new(limits: Limits) -> Self {
        Self {
            session: SessionState::new(&QueuedMemory::new(u64::MAX)),
            limits,
            online: false,
            window: 0,
            link: VecDeque::new(),
            unread: Vec::new(),
            owed: Vec::new(),
            open: HashSet::new(),
            held: HashSet::new(),
            content: HashMap::new(),
            accepted: Vec::new(),
            arrived: Vec::new(),
            next: 0,
        }
    }

    fn deliver(&mut self, qos: QoS) {
        let number = self.next;
        self.next += 1;
        let trail = Trail::default();
        let payload = number.to_be_bytes();
        let publication = Publication {
            id: store::MessageId::default(),
            namespace: 0,
            topic: "t",
            payload: &payload,
            qos,
            retain: false,
            properties: &[],
            expires_at_ms: None,
            received_at_ms: 0,
            publisher: None,
            trail: &trail,
            trace: None,
        };
        let message = publication.to_message();
        let mut fanout = Fanout::of_message(&message, 1, 0);
        let grant = Grant { qos, retain: false, identifiers: &[], group: None, place: 0 };
        let delivered = self.session.deliver(&mut fanout, grant, &self.limits);
        match (qos, delivered) {
            (QoS::AtMostOnce, Delivered::Sent) => {}
            (QoS::AtMostOnce, other) => assert_eq!(other, Delivered::Dropped(DropReason::Offline)),
            (_, Delivered::Sent | Delivered::Queued) => self.accepted.push((number, qos)),
            (_, other) => panic!("the queue is large enough, yet {other:?}"),
        }
        self.flush();
    }

    /// What the connection does at the end of each turn.
    fn flush(&mut self) {
        if !self.online {
            assert!(self.session.out.is_empty());
            return;
        }
        assert_eq!(self.session.pump(0, store::CommitToken(u64::MAX)), 0);
        let mut writing = self.session.out.take();
        while !writing.is_done() {
            let bytes: Vec<u8> = writing.slices().iter().flat_map(|slice| slice.to_vec()).collect();
            self.link.extend(&bytes);
            writing.advance(bytes.len());
        }
    }

    fn cut(&mut self) {
        if std::mem::take(&mut self.online) {
            self.session.disconnect();
        }
        self.link.clear();
        self.unread.clear();
        self.owed.clear();
        self.open.clear();
    }

    fn connect(&mut self, window: u16) {
        self.cut();
        (self.online, self.window) = (true, window);
        let client = ClientLimits {
            version: ProtocolVersion::V5,
            receive_maximum: window,
            maximum_packet_size: u32::MAX,
            topic_alias_maximum: 0,
        };
        self.session.connect(client, &self.limits);
        self.flush();
    }

    fn read(&mut self, count: usize) {
        let count = count.min(self.link.len());
        self.unread.extend(self.link.drain(..count));
        let unread = std::mem::take(&mut self.unread);
        let mut rest = &unread[..];
        while let FrameStatus::Complete(frame) = mqtt_protocol::frame(rest, u32::MAX).unwrap() {
            self.packet(Packet::decode(&frame, ProtocolVersion::V5).unwrap());
            rest = &rest[frame.len..];
            if rest.is_empty() {
                break;
            }
        }
        self.unread = rest.to_vec();
    }

    fn packet(&mut self, packet: Packet<'_>) {
        match packet {
            Packet::Publish(publish) => {
                let number = u32::from_be_bytes(publish.payload.try_into().unwrap());
                let Some(id) = publish.packet_id else {
                    self.arrived.push((number, QoS::AtMostOnce));
                    return;
                };
                assert!(self.open.insert(id), "{id} is sent twice on one connection");
                assert!(self.open.len() <= usize::from(self.window), "more than the Receive Maximum");
                if let Some(before) = self.content.insert(id, number) {
                    assert_eq!(before, number, "another message under an identifier in use");
                    assert!(publish.dup, "sent again without DUP");
                }
                match publish.qos {
                    QoS::AtLeastOnce => {
                        self.arrived.push((number, QoS::AtLeastOnce));
                        self.owed.push(Owed::Puback(id));
                    }
                    _ => {
                        if self.held.insert(id) {
                            self.arrived.push((number, QoS::ExactlyOnce));
                        }
                        self.owed.push(Owed::Pubrec(id));
                    }
                }
            }
            Packet::PubRel(ack) => {
                self.held.remove(&ack.packet_id);
                self.open.insert(ack.packet_id);
                assert!(self.open.len() <= usize::from(self.window).max(self.session.inflight()));
                self.owed.push(Owed::Pubcomp(ack.packet_id));
            }
            other => panic!("a session sends no {other:?}"),
        }
    }

    fn answer(&mut self, which: &prop::sample::Index) {
        if !self.owed.is_empty() {
            self.answer_nth(which.index(self.owed.len()));
        }
    }

    fn answer_nth(&mut self, place: usize) {
        let owed = self.owed.remove(place);
        let result: Result<(), AckError> = match owed {
            Owed::Puback(id) => {
                self.content.remove(&id);
                self.open.remove(&id);
                self.session.puback(id)
            }
            Owed::Pubrec(id) => {
                self.content.remove(&id);
                self.session.pubrec(id, false)
            }
            Owed::Pubcomp(id) => {
                self.open.remove(&id);
                self.session.pubcomp(id)
            }
        };
        assert_eq!(result, Ok(()), "{owed:?}");
        self.flush();
    }

    /// Connects for good and answers everything.
    fn finish(&mut self) {
        self.connect(3);
        while !self.link.is_empty() || !self.owed.is_empty() {
            self.read(usize::MAX);
            while !self.owed.is_empty() {
                self.answer_nth(0);
            }
        }
        assert_eq!(self.session.queued(), (0, 0));
        assert_eq!(self.session.inflight(), 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn every_message_arrives_as_often_as_its_qos_says(steps in prop::collection::vec(step(), 1..120)) {
        let mut model = Model::new(Limits::default());
        for step in &steps {
            match step {
                Step::Deliver(qos) => model.deliver(QoS::try_from(*qos).unwrap()),
                Step::Read(count) => model.read(usize::from(*count)),
                Step::Answer(which) => model.answer(which),
                Step::Cut => model.cut(),
                Step::Connect(window) => model.connect(*window),
            }
        }
        model.finish();
        let mut first_arrivals = Vec::new();
        let mut seen: HashMap<u32, usize> = HashMap::new();
        for (number, qos) in &model.arrived {
            let times = seen.entry(*number).or_default();
            *times += 1;
            prop_assert!(*qos == QoS::AtLeastOnce || *times == 1, "message {} at {:?} came {} times", number, qos, times);
            if *qos > QoS::AtMostOnce && *times == 1 {
                first_arrivals.push((*number, *qos));
            }
        }
        prop_assert_eq!(first_arrivals, model.accepted);
    }

    #[test]
    fn a_full_queue_drops_the_oldest_and_keeps_to_its_limits(
        limit in 1u32..10,
        sizes in prop::collection::vec(0usize..50, 1..60),
    ) {
        let limits = Limits { max_queued_messages: limit, max_queued_bytes: 100, ..Limits::default() };
        let mut session = SessionState::new(&QueuedMemory::new(u64::MAX));
        let mut model: VecDeque<u64> = VecDeque::new();
        for size in sizes {
            let trail = Trail::default();
            let payload = vec![0; size];
            let message = Publication {
                id: store::MessageId::default(), namespace: 0, topic: "t", payload: &payload, qos: QoS::AtLeastOnce,
                retain: false, properties: &[], expires_at_ms: None, received_at_ms: 0, publisher: None, trail: &trail, trace: None,
            }.to_message();
            let bytes = message.size() as u64;
            let mut expected = Delivered::Queued;
            while model.len() >= limit as usize || model.iter().sum::<u64>() + bytes > 100 {
                model.pop_front();
                expected = Delivered::QueuedDroppingOldest;
            }
            model.push_back(bytes);
            let grant =
                Grant { qos: QoS::AtLeastOnce, retain: false, identifiers: &[], group: None, place: 0 };
            prop_assert_eq!(session.deliver(&mut Fanout::of_message(&message, 1, 0), grant, &limits), expected);
            prop_assert_eq!(session.queued(), (model.len(), model.iter().sum()));
        }
    }
}

#[test]
fn a_slow_client_gets_nothing_more_at_qos_0_once_memory_is_full() {
    let limits = Limits::default();
    let memory = QueuedMemory::new(1000);
    let mut others = super::memory::QueuedBytes::new(&memory);
    let mut session = SessionState::new(&memory);
    let client = ClientLimits {
        version: ProtocolVersion::V5,
        receive_maximum: 10,
        maximum_packet_size: u32::MAX,
        topic_alias_maximum: 0,
    };
    session.connect(client, &limits);
    let trail = Trail::default();
    let message = Publication {
        id: store::MessageId::default(),
        namespace: 0,
        topic: "t",
        payload: &[0; 100_000],
        qos: QoS::AtMostOnce,
        retain: false,
        properties: &[],
        expires_at_ms: None,
        received_at_ms: 0,
        publisher: None,
        trail: &trail,
        trace: None,
    }
    .to_message();
    let grant = Grant { qos: QoS::AtMostOnce, retain: false, identifiers: &[], group: None, place: 0 };
    let mut deliver = || session.deliver(&mut Fanout::of_message(&message, 1, 0), grant, &limits);
    others.add(1001);
    for _ in 0..3 {
        assert_eq!(deliver(), Delivered::Sent, "one that keeps up gets everything");
    }
    assert_eq!(deliver(), Delivered::Dropped(DropReason::MemoryFull));
    others.sub(1);
    assert_eq!(deliver(), Delivered::Sent, "at the limit");
}
