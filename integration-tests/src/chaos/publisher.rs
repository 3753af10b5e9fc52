//! A publisher that never gives up: it sends again what the broker hasn't answered for, as the specification wants it.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use super::history::{Event, Label, Lane, Wrong};
use super::link::{Link, Packet, Publish, put_ack};
use super::message::{RETAINED_TOPICS, payload, topic};
use super::stage::{Phase, Stage};
use crate::{PATIENCE, Version};

/// Messages that are on their way at once, at most.
const WINDOW_MAX: usize = 20;

/// Packet Identifiers in use, from 1: few, so that each is used again soon.
const PACKET_IDS: u16 = 24;

/// One message in so many is followed by the end of the connection.
const MESSAGES_PER_CONNECTION: u32 = 80;

/// After a connection that failed.
const RECONNECT: Duration = Duration::from_millis(2);

pub(super) struct Publisher<'a> {
    pub(super) stage: &'a Stage,
    pub(super) name: &'static str,
    number: u8,
    version: Version,
    random: fastrand::Rng,
    /// Messages sent so far.
    sent: u32,
    numbers: BTreeMap<Lane, u32>,
    /// What waits for an answer, in the order of sending.
    inflight: Vec<Flight>,
    last_packet_id: u16,
    has_session: bool,
}

struct Flight {
    packet_id: u16,
    label: Label,
    payload: Vec<u8>,
    /// PUBREC has come: PUBCOMP is awaited.
    is_released: bool,
}

impl Flight {
    fn qos(&self) -> u8 {
        if self.label.lane == Lane::ExactlyOnce { 2 } else { 1 }
    }

    fn put(&self, version: Version, dup: bool, out: &mut Vec<u8>) {
        if self.is_released {
            return put_ack(0x62, self.packet_id, out);
        }
        let publish = Publish {
            dup,
            qos: self.qos(),
            retain: matches!(self.label.lane, Lane::Retained(_)),
            topic: &topic(self.label),
            packet_id: self.packet_id,
            payload: &self.payload,
        };
        publish.put(version, out);
    }
}

impl<'a> Publisher<'a> {
    pub(super) fn new(stage: &'a Stage, name: &'static str, number: u8, seed: u64) -> Self {
        Self {
            stage,
            name,
            number,
            version: if number.is_multiple_of(2) { Version::V5 } else { Version::V311 },
            random: fastrand::Rng::with_seed(seed),
            sent: 0,
            numbers: BTreeMap::new(),
            inflight: Vec::new(),
            last_packet_id: 0,
            has_session: false,
        }
    }

    /// Publishes until everything is answered for.
    pub(super) fn run(mut self) {
        while let Some(address) = self.stage.broker() {
            let done = Link::resume(address, self.version, self.name)
                .and_then(|(link, present)| self.connection(link, present));
            match done {
                Ok(true) => break,
                Ok(false) => {}
                // The broker is gone.
                Err(_) => self.stage.pause(RECONNECT, Phase::Over),
            }
        }
        self.stage.change(|state| state.finished += 1);
    }

    fn wrong(&self, wrong: Wrong) {
        self.stage.note(Event::Wrong(self.name, wrong));
    }

    /// One connection; `true` when there is nothing left to do.
    fn connection(&mut self, mut link: Link, present: bool) -> io::Result<bool> {
        self.stage.note(Event::Connected(self.name, present));
        if self.has_session && !present {
            self.wrong(Wrong::SessionLost);
            self.inflight.retain(|flight| !flight.is_released);
        }
        self.has_session = true;
        let mut out = Vec::new();
        for flight in &self.inflight {
            if !flight.is_released {
                self.stage.note(Event::Sent(flight.label, true));
            }
            flight.put(self.version, present, &mut out);
        }
        link.send(&out)?;
        let window = self.random.usize(1..=WINDOW_MAX);
        loop {
            self.fill(&mut link, window)?;
            if self.inflight.is_empty() {
                if self.wait_for_work() {
                    link.leave(true);
                    return Ok(true);
                }
                continue;
            }
            let Some(packet) = link.next(PATIENCE)? else { return Err(io::ErrorKind::TimedOut.into()) };
            self.handle(&mut link, &packet)?;
            if self.random.u32(..MESSAGES_PER_CONNECTION) == 0 {
                let is_orderly = self.random.bool();
                self.stage.note(Event::Left(self.name, is_orderly));
                link.leave(is_orderly);
                return Ok(false);
            }
        }
    }

    /// Waits until there is something to send; `true` when there will be nothing more.
    fn wait_for_work(&self) -> bool {
        let sent = self.sent;
        self.stage.wait(PATIENCE, |state| state.allowed > sent || state.phase > Phase::Running);
        let state = self.stage.lock();
        state.phase > Phase::Running && state.allowed <= sent
    }

    /// Sends as many new messages as may be on their way, in one write.
    fn fill(&mut self, link: &mut Link, window: usize) -> io::Result<()> {
        let allowed = self.stage.lock().allowed;
        let mut out = Vec::new();
        while self.inflight.len() < window && self.sent < allowed {
            let flight = self.next_message();
            self.stage.note(Event::Sent(flight.label, false));
            flight.put(self.version, false, &mut out);
            self.inflight.push(flight);
        }
        link.send(&out)
    }

    fn next_message(&mut self) -> Flight {
        self.sent += 1;
        let lane = match self.random.u8(..10) {
            0..4 => Lane::AtLeastOnce,
            4..8 => Lane::ExactlyOnce,
            _ => Lane::Retained(self.random.u8(..RETAINED_TOPICS)),
        };
        let number = self.numbers.entry(lane).or_insert(0);
        *number += 1;
        let label = Label { publisher: self.number, lane, number: *number };
        let padding = match self.random.u8(..40) {
            0 => self.random.usize(4_000..20_000),
            _ => self.random.usize(..400),
        };
        let is_used = |packet_id| self.inflight.iter().any(|flight| flight.packet_id == packet_id);
        loop {
            self.last_packet_id = self.last_packet_id % PACKET_IDS + 1;
            if !is_used(self.last_packet_id) {
                break;
            }
        }
        Flight { packet_id: self.last_packet_id, label, payload: payload(label, padding), is_released: false }
    }

    fn handle(&mut self, link: &mut Link, packet: &Packet) -> io::Result<()> {
        match *packet {
            Packet::Puback(packet_id, code) => self.answered(0x40, packet_id, code, 1),
            Packet::Pubrec(packet_id, code) => {
                self.answered(0x50, packet_id, code, 2);
                let mut out = Vec::new();
                put_ack(0x62, packet_id, &mut out);
                link.send(&out)?;
            }
            Packet::Pubcomp(packet_id) => {
                match self
                    .inflight
                    .iter()
                    .position(|flight| flight.packet_id == packet_id && flight.is_released)
                {
                    Some(index) => drop(self.inflight.remove(index)),
                    None => self.wrong(Wrong::Unasked(0x70, packet_id)),
                }
            }
            Packet::Disconnect(code) => {
                self.wrong(Wrong::Disconnected(code));
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            ref other => self.wrong(other.unexpected()),
        }
        Ok(())
    }

    /// A PUBACK or PUBREC has come.
    fn answered(&mut self, first: u8, packet_id: u16, code: u8, qos: u8) {
        let Some(index) =
            self.inflight.iter().position(|flight| flight.packet_id == packet_id && flight.qos() == qos)
        else {
            return self.wrong(Wrong::Unasked(first, packet_id));
        };
        let is_turn = |flight: &Flight| flight.qos() == qos && !flight.is_released;
        let label = self.inflight[index].label;
        if !self.inflight[index].is_released && self.inflight[..index].iter().any(is_turn) {
            self.wrong(Wrong::OutOfTurn(label));
        }
        if code >= 0x80 {
            self.wrong(Wrong::Refused(label, code));
            self.inflight.remove(index);
            return;
        }
        if !self.inflight[index].is_released {
            self.stage.note(Event::Acknowledged(label));
        }
        if qos == 2 {
            self.inflight[index].is_released = true;
        } else {
            self.inflight.remove(index);
        }
    }
}
