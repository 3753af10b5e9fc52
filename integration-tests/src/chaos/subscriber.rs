//! A durable subscriber that comes and goes, and forgets nothing that it has said.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::Duration;

use super::history::{Event, Label, Wrong};
use super::link::{Link, Packet, put_ack};
use super::message::label;
use super::stage::{Phase, Stage};
use crate::{PATIENCE, Version};

/// Messages that it stays for, at most.
const STAY_MAX: u32 = 150;

/// How long it stays away, at most.
const AWAY_MAX: Duration = Duration::from_millis(60);

/// How often it looks whether the run is over while nothing comes.
const LOOK: Duration = Duration::from_millis(50);

/// After a connection that failed.
const RECONNECT: Duration = Duration::from_millis(2);

/// What a subscriber is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Role {
    /// Client Identifier.
    pub(super) name: &'static str,
    /// Whom its messages reach: itself, or the group that it is in.
    pub(super) receiver: &'static str,
    pub(super) version: Version,
    pub(super) filter: &'static str,
    pub(super) qos: u8,
}

pub(super) struct Subscriber<'a> {
    stage: &'a Stage,
    role: Role,
    random: fastrand::Rng,
    /// Messages of QoS 2 that aren't released, by Packet Identifier.
    held: BTreeMap<u16, Label>,
    /// Packet Identifiers whose last message is released.
    released: BTreeSet<u16>,
    has_session: bool,
    is_subscribed: bool,
    /// Acknowledgements that aren't sent yet.
    out: Vec<u8>,
}

impl<'a> Subscriber<'a> {
    pub(super) fn new(stage: &'a Stage, role: Role, seed: u64) -> Self {
        Self {
            stage,
            role,
            random: fastrand::Rng::with_seed(seed),
            held: BTreeMap::new(),
            released: BTreeSet::new(),
            has_session: false,
            is_subscribed: false,
            out: Vec::new(),
        }
    }

    /// Receives until the run is over.
    pub(super) fn run(mut self) {
        while let Some(address) = self.stage.broker() {
            let done = Link::resume(address, self.role.version, self.role.name)
                .and_then(|(link, present)| self.connection(link, present));
            match done {
                Ok(()) => {
                    let away = AWAY_MAX.mul_f64(self.random.f64());
                    self.stage.pause(away, Phase::Draining);
                }
                // The broker is gone.
                Err(_) => self.stage.pause(RECONNECT, Phase::Over),
            }
        }
    }

    fn wrong(&self, wrong: Wrong) {
        self.stage.note(Event::Wrong(self.role.name, wrong));
    }

    fn connection(&mut self, mut link: Link, present: bool) -> io::Result<()> {
        self.stage.note(Event::Connected(self.role.name, present));
        self.out.clear();
        if !present {
            if self.has_session {
                self.wrong(Wrong::SessionLost);
                self.is_subscribed = false;
            }
            self.held.clear();
            self.released.clear();
        }
        self.has_session = true;
        if !self.is_subscribed {
            self.subscribe(&mut link)?;
        }
        let mut stay = self.random.u32(..STAY_MAX);
        loop {
            match link.next(LOOK)? {
                Some(packet) => {
                    let is_message = matches!(packet, Packet::Publish { .. });
                    self.handle(packet)?;
                    stay = stay.saturating_sub(is_message.into());
                }
                None if self.stage.lock().phase == Phase::Over => {
                    link.leave(true);
                    return Ok(());
                }
                None => {}
            }
            let goes = stay == 0 && self.stage.lock().phase == Phase::Running;
            // Acknowledgements go out together, and at times not at all.
            let keeps_silent = goes && self.random.bool();
            if !link.has_more() && !keeps_silent {
                link.send(&std::mem::take(&mut self.out))?;
            }
            if goes {
                let is_orderly = self.random.bool();
                self.stage.note(Event::Left(self.role.name, is_orderly));
                link.leave(is_orderly);
                return Ok(());
            }
        }
    }

    fn subscribe(&mut self, link: &mut Link) -> io::Result<()> {
        let Role { filter, qos, version, .. } = self.role;
        let properties = version.no_properties();
        link.send(&crate::wire::bytes(&format!("82 [7001 {properties} '{filter}' {qos:02x}]")))?;
        loop {
            match link.next(PATIENCE)? {
                Some(Packet::Suback(codes)) if codes == [qos] => {
                    self.is_subscribed = true;
                    self.stage.change(|state| state.subscribed += 1);
                    return Ok(());
                }
                // The Subscription may be there already, from a SUBSCRIBE whose answer was lost.
                Some(packet @ (Packet::Publish { .. } | Packet::Pubrel(_))) => self.handle(packet)?,
                Some(packet) => {
                    self.wrong(packet.unexpected());
                    return Err(io::ErrorKind::InvalidData.into());
                }
                None => return Err(io::ErrorKind::TimedOut.into()),
            }
        }
    }

    fn handle(&mut self, packet: Packet) -> io::Result<()> {
        match packet {
            Packet::Publish { dup, qos, packet_id, topic, payload } => {
                match label(&topic, &payload) {
                    Some(label) => self.receive(label, dup, qos, packet_id),
                    None => self.wrong(Wrong::Garbled),
                }
                match qos {
                    0 => {}
                    1 => put_ack(0x40, packet_id, &mut self.out),
                    _ => put_ack(0x50, packet_id, &mut self.out),
                }
            }
            Packet::Pubrel(packet_id) => {
                // It may be released already: then its PUBCOMP was lost.
                if self.held.remove(&packet_id).is_none() && !self.released.contains(&packet_id) {
                    self.wrong(Wrong::Unasked(0x62, packet_id));
                }
                self.released.insert(packet_id);
                put_ack(0x70, packet_id, &mut self.out);
            }
            Packet::Disconnect(code) => {
                self.wrong(Wrong::Disconnected(code));
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            other => self.wrong(other.unexpected()),
        }
        Ok(())
    }

    fn receive(&mut self, label: Label, dup: bool, qos: u8, packet_id: u16) {
        if qos == 2 {
            match self.held.get(&packet_id).copied() {
                Some(held) if held == label => {
                    if !dup {
                        self.wrong(Wrong::WithoutDup(label));
                    }
                    return;
                }
                Some(held) => self.wrong(Wrong::Collision(held, label)),
                None => {}
            }
            self.held.insert(packet_id, label);
            self.released.remove(&packet_id);
        }
        self.stage.note(Event::Delivered(self.role.receiver, label, qos));
    }
}
