//! When the service manager's watchdog is fed: only while the gateway is seen to do its work.
//!
//! A ping that a timer sends proves that there is a timer. This one is sent by the main loop, the one that takes signals, and
//! only after both of these were seen:
//!
//! - **The store** has made safe what was appended before the question, or says that its disk is full. A disk that hangs, a thread
//!   that died and a sync that failed for good are no answer; a new start reads what is on the disk and goes on from there.
//! - **A listener** has taken a connection and ended it: one is opened from here and closed without a word, and the broker
//!   closes it too. That goes through the system, the loop that accepts and a task of the connection, as every client's does.
//!   Where so many come that ours has to wait, those that were taken meanwhile are as good.
//!
//! Three questions fit in the time that the manager waits, so that one that is answered late costs nothing. A full disk and a
//! far side of an action that is away are no reason to start again: neither is mended by it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use broker::{BoundListener, Broker, Endpoint};
use store::DurableStore;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinHandle;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, timeout};
use tracing::error;

use super::watchdog_interval;
use crate::config::Environment;
use crate::listeners::Listeners;
use crate::server::Server;
use crate::storage::Storage;

/// Questions in the time that the manager waits for a ping.
const QUESTIONS: u32 = 3;

/// Who doesn't answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum Silence {
    #[error("the store doesn't answer")]
    Store,
    #[error("no listener answers")]
    Listeners,
    #[error("the question itself was lost")]
    Question,
}

/// What is asked.
#[derive(Debug, Clone)]
struct Gateway {
    broker: Broker,
    listeners: Arc<Listeners>,
    store: Option<Arc<DurableStore>>,
}

/// Tells the main loop when a ping is earned.
#[derive(Debug)]
pub(crate) struct Watchdog {
    gateway: Gateway,
    /// None: nobody wants to hear it.
    ticks: Option<Interval>,
    question: Option<JoinHandle<Result<(), Silence>>>,
}

impl Watchdog {
    /// For a server that runs, inside a tokio runtime.
    pub(crate) fn new(environment: &Environment, server: &Server, storage: &Storage) -> Self {
        let ticks = watchdog_interval(environment).map(|interval| {
            let period = (interval / QUESTIONS).max(Duration::from_millis(1));
            let mut ticks = interval_at(Instant::now() + period, period);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        });
        let gateway = Gateway {
            broker: server.broker().clone(),
            listeners: Arc::clone(server.listeners()),
            store: storage.durable().cloned(),
        };
        Self { gateway, ticks, question: None }
    }

    /// Waits until a ping is earned; never comes back where none is wanted. Cancel-safe. Who doesn't answer is logged.
    pub(crate) async fn earned(&mut self) {
        let Some(ticks) = &mut self.ticks else { return std::future::pending().await };
        loop {
            let question = match &mut self.question {
                Some(question) => question,
                None => {
                    ticks.tick().await;
                    let (gateway, patience) = (self.gateway.clone(), ticks.period());
                    self.question.insert(tokio::spawn(gateway.answers_within(patience)))
                }
            };
            let answer = question.await.unwrap_or(Err(Silence::Question));
            self.question = None;
            match answer {
                Ok(()) => return,
                Err(silence) => error!("{silence}: the service manager's watchdog isn't fed"),
            }
        }
    }
}

impl Gateway {
    async fn answers_within(self, patience: Duration) -> Result<(), Silence> {
        let (store, listener) = tokio::join!(self.store(patience), self.a_listener(patience));
        store?;
        listener
    }

    async fn store(&self, patience: Duration) -> Result<(), Silence> {
        let Some(store) = self.store.clone() else { return Ok(()) };
        let answer = tokio::task::spawn_blocking(move || store.answers_within(patience)).await;
        answer.unwrap_or(false).then_some(()).ok_or(Silence::Store)
    }

    async fn a_listener(&self, patience: Duration) -> Result<(), Silence> {
        let bound = self.listeners.bound();
        let taken_before = self.taken();
        let share = patience / u32::try_from(bound.len()).unwrap_or(u32::MAX).max(1);
        for listener in &bound {
            if matches!(timeout(share, knock(listener)).await, Ok(true)) {
                return Ok(());
            }
        }
        let is_alive = bound.is_empty() || self.taken() != taken_before;
        is_alive.then_some(()).ok_or(Silence::Listeners)
    }

    /// Connections that were taken so far, those that were refused included.
    fn taken(&self) -> u64 {
        let stats = self.broker.stats();
        stats.connections_opened + stats.connections_refused
    }
}

/// Opens a connection, says nothing, and waits until the other side ends it.
async fn knock(listener: &BoundListener) -> bool {
    match &listener.endpoint {
        Endpoint::Ip(address) => match TcpStream::connect(from_here(*address)).await {
            Ok(stream) => is_ended(stream).await,
            Err(_) => false,
        },
        Endpoint::Unix { path, .. } => match UnixStream::connect(path).await {
            Ok(stream) => is_ended(stream).await,
            Err(_) => false,
        },
    }
}

async fn is_ended(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> bool {
    // Whether it is the end that is read or an error: it was the broker who ended it.
    let mut buffer = [0; 64];
    if stream.shutdown().await.is_ok() {
        while matches!(stream.read(&mut buffer).await, Ok(1..)) {}
    }
    true
}

/// The address of a listener as this machine reaches it.
fn from_here(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests;
