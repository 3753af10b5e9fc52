//! A session that stays away for long: millions of messages queued for it, a restart, and the way back.
//!
//! The broker runs as it is configured by default, real syncs and segments included, but for the limits that would stop the
//! queue. What is looked at is that nothing is lost and the order is kept, and what it costs: memory, time, disk.

use std::fmt;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::link::{Link, Packet, Publish, put_ack};
use crate::broker::new_folder;
use crate::{Broker, PATIENCE, Version};

/// Messages on their way from each publisher.
const WINDOW: u64 = 1000;

/// Publishers that fill the queue.
pub(super) const PUBLISHERS: u64 = 4;

/// Between two looks at the broker's memory.
const LOOK: Duration = Duration::from_millis(200);

/// What a run found.
#[derive(Debug, Clone, Copy, Default)]
pub struct QueueSummary {
    /// Messages queued.
    pub messages: u64,
    /// Messages a second on the way in, acknowledged.
    pub filled_per_s: f64,
    /// Bytes of the store's folder with the queue full.
    pub disk_bytes: u64,
    /// Resident bytes before the first message, at most while the queue was filled, and at most while it was drained.
    pub resident_bytes: [u64; 3],
    /// From the start after a kill -9 with the queue full to an open listener.
    pub restart: Duration,
    /// Messages a second on the way out.
    pub drained_per_s: f64,
    /// Messages that others exchanged meanwhile, and the longest time that one of them took.
    pub live: (u64, Duration),
}

impl fmt::Display for QueueSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes / (1024 * 1024);
        let [idle, filling, draining] = self.resident_bytes.map(mib);
        write!(
            f,
            "{} messages queued at {:.0} /s, {} MiB on disk; resident {idle} MiB idle, at most {filling} MiB filling and \
             {draining} MiB draining; restart after kill -9 {:?}; drained in order at {:.0} /s; meanwhile {} live \
             messages, the slowest {:?}",
            self.messages,
            self.filled_per_s,
            mib(self.disk_bytes),
            self.restart,
            self.drained_per_s,
            self.live.0,
            self.live.1,
        )
    }
}

/// Queues `messages` of `payload` bytes for a session that is away, kills the broker, and fetches them.
///
/// # Errors
/// What went wrong, in words.
pub fn run_queue(messages: u64, payload: usize) -> Result<QueueSummary, String> {
    let folder = new_folder();
    let done = Run { folder: &folder, messages: messages / PUBLISHERS * PUBLISHERS, payload }.run();
    drop(fs::remove_dir_all(&folder));
    done
}

struct Run<'a> {
    folder: &'a Path,
    messages: u64,
    payload: usize,
}

impl Run<'_> {
    fn start(&self) -> Result<(Broker, Duration), String> {
        let start = Instant::now();
        let mut broker = Broker::builder()
            .in_folder(self.folder)
            .section("max_queued_bytes = \"1TiB\"\n[store]\ndurability = \"commit\"\nreserve = 0\n")
            .spawn();
        broker.wait_until_it_listens()?;
        Ok((broker, start.elapsed()))
    }

    fn run(&self) -> Result<QueueSummary, String> {
        let mut summary = QueueSummary { messages: self.messages, ..QueueSummary::default() };
        let (broker, _) = self.start()?;
        let link = self.subscriber(&broker)?;
        link.leave(true);
        summary.resident_bytes[0] = broker.resident_bytes();
        let start = Instant::now();
        summary.resident_bytes[1] = watched(&broker, || {
            thread::scope(|scope| {
                let (address, part) = (broker.address(), self.messages / PUBLISHERS);
                let threads: Vec<_> = (0..PUBLISHERS)
                    .map(|number| scope.spawn(move || fill(address, number, part, |sent| self.payload(sent))))
                    .collect();
                threads.into_iter().try_for_each(|thread| thread.join().expect("a publisher doesn't panic"))
            })
        })?;
        summary.filled_per_s = per_second(self.messages, start.elapsed());
        summary.disk_bytes = size_of(&self.folder.join("data/store"));
        broker.kill_9()?;
        let (broker, took) = self.start()?;
        summary.restart = took;
        let start = Instant::now();
        summary.resident_bytes[2] = watched(&broker, || {
            let is_drained = AtomicBool::new(false);
            thread::scope(|scope| {
                let live = scope.spawn(|| live(&broker, &is_drained));
                let drained = self.drain(&broker);
                summary.drained_per_s = per_second(self.messages, start.elapsed());
                is_drained.store(true, Ordering::Release);
                summary.live = live.join().expect("it doesn't panic")?;
                drained
            })
        })?;
        broker.stop();
        Ok(summary)
    }

    fn payload(&self, number: u64) -> Vec<u8> {
        let mut payload = number.to_be_bytes().to_vec();
        payload.resize(self.payload.max(8), b'.');
        payload
    }

    /// The session whose queue it is.
    fn subscriber(&self, broker: &Broker) -> Result<Link, String> {
        let (mut link, present) = Link::resume(broker.address(), Version::V5, "away").map_err(in_words)?;
        if !present {
            link.send(&crate::wire::bytes("82 [7001 [] 'queue/#' 01]")).map_err(in_words)?;
            match link.next(PATIENCE).map_err(in_words)? {
                Some(Packet::Suback(codes)) if codes == [1] => {}
                other => return Err(format!("{other:?} came, not a SUBACK")),
            }
        }
        Ok(link)
    }

    /// Fetches everything, in order.
    fn drain(&self, broker: &Broker) -> Result<(), String> {
        let mut link = self.subscriber(broker)?;
        let mut next = vec![0; usize::try_from(PUBLISHERS).expect("there are few")];
        let mut out = Vec::new();
        let mut received = 0;
        while received < self.messages {
            let packet = link.next(PATIENCE).map_err(in_words)?;
            let Some(Packet::Publish { packet_id, topic, payload, .. }) = packet else {
                return Err(format!("{packet:?} came after {received} of {}", self.messages));
            };
            let publisher: usize = topic.trim_start_matches("queue/").parse().map_err(|_| topic.clone())?;
            let number = payload.first_chunk().map(|bytes| u64::from_be_bytes(*bytes));
            if number != Some(next[publisher]) {
                return Err(format!("{number:?} came of {topic}, and {} was next", next[publisher]));
            }
            next[publisher] += 1;
            received += 1;
            put_ack(0x40, packet_id, &mut out);
            if !link.has_more() {
                link.send(&out).map_err(in_words)?;
                out.clear();
            }
        }
        link.leave(true);
        Ok(())
    }
}

/// Publishes one publisher's part.
pub(super) fn fill(
    address: SocketAddr,
    number: u64,
    messages: u64,
    payload: impl Fn(u64) -> Vec<u8>,
) -> Result<(), String> {
    let (mut link, _) = Link::resume(address, Version::V5, &format!("filler-{number}")).map_err(in_words)?;
    let topic = format!("queue/{number}");
    let (mut sent, mut answered) = (0, 0);
    let mut out = Vec::new();
    while answered < messages {
        // Half a window at a time, so that writes are large.
        if sent < messages && sent - answered <= WINDOW / 2 {
            out.clear();
            while sent < messages && sent - answered < WINDOW {
                let payload = payload(sent);
                let packet_id = u16::try_from(sent % WINDOW).expect("a window fits") + 1;
                let publish = Publish {
                    dup: false,
                    qos: 1,
                    retain: false,
                    topic: &topic,
                    packet_id,
                    payload: &payload,
                };
                publish.put(Version::V5, &mut out);
                sent += 1;
            }
            link.send(&out).map_err(in_words)?;
        }
        match link.next(PATIENCE).map_err(in_words)? {
            Some(Packet::Puback(_, code)) if code < 0x80 => answered += 1,
            other => return Err(format!("{other:?} came, not a PUBACK, after {answered}")),
        }
    }
    link.leave(true);
    Ok(())
}

/// Two others who exchange messages at QoS 1, one after the other: how many, and the longest time that one took.
pub(super) fn live(broker: &Broker, is_over: &AtomicBool) -> Result<(u64, Duration), String> {
    let mut link = Link::clean(broker.address(), "live").map_err(in_words)?;
    link.send(&crate::wire::bytes("82 [7001 [] 'live' 01]")).map_err(in_words)?;
    let (mut count, mut longest) = (0, Duration::ZERO);
    while !is_over.load(Ordering::Acquire) {
        let start = Instant::now();
        let mut out = Vec::new();
        let publish =
            Publish { dup: false, qos: 1, retain: false, topic: "live", packet_id: 1, payload: b"live" };
        publish.put(Version::V5, &mut out);
        link.send(&out).map_err(in_words)?;
        let (mut is_answered, mut is_there) = (false, false);
        while !(is_answered && is_there) {
            match link.next(PATIENCE).map_err(in_words)? {
                Some(Packet::Puback(..)) => is_answered = true,
                Some(Packet::Publish { packet_id, .. }) => {
                    is_there = true;
                    let mut ack = Vec::new();
                    put_ack(0x40, packet_id, &mut ack);
                    link.send(&ack).map_err(in_words)?;
                }
                Some(Packet::Suback(_)) => {}
                other => return Err(format!("{other:?} came to a live client")),
            }
        }
        count += 1;
        longest = longest.max(start.elapsed());
    }
    Ok((count, longest))
}

/// Does something and looks at the broker's memory meanwhile: the most that it was.
pub(super) fn watched(broker: &Broker, work: impl FnOnce() -> Result<(), String>) -> Result<u64, String> {
    let most = AtomicU64::new(0);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            while !is_over.load(Ordering::Acquire) {
                most.fetch_max(broker.resident_bytes(), Ordering::Relaxed);
                thread::park_timeout(LOOK);
            }
        });
        let done = work();
        is_over.store(true, Ordering::Release);
        watcher.thread().unpark();
        done
    })?;
    Ok(most.into_inner())
}

pub(super) fn size_of(folder: &Path) -> u64 {
    let files = fs::read_dir(folder).into_iter().flatten().flatten();
    files.filter_map(|file| file.metadata().ok()).map(|file| file.len()).sum()
}

pub(super) fn per_second(messages: u64, took: Duration) -> f64 {
    // Precise enough for what is printed.
    f64::from(u32::try_from(messages).unwrap_or(u32::MAX)) / took.as_secs_f64()
}

pub(super) fn in_words(error: io::Error) -> String {
    error.to_string()
}
