//! The signals that end the program in good order.

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Exit, Failure};

/// SIGINT and SIGTERM.
pub(crate) struct StopSignal {
    interrupt: Signal,
    terminate: Signal,
}

impl StopSignal {
    /// Waits for either; returns its name. Cancel-safe.
    pub(crate) async fn received(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}

/// Starts to listen for the signals; from now on they don't end the process by themselves.
pub(crate) fn stop_signal() -> Result<StopSignal, Failure> {
    Ok(StopSignal {
        interrupt: listen(SignalKind::interrupt())?,
        terminate: listen(SignalKind::terminate())?,
    })
}

/// SIGHUP: read the rules again.
pub(crate) fn reload_signal() -> Result<Signal, Failure> {
    listen(SignalKind::hangup())
}

fn listen(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|error| Failure::new(Exit::Failed, format!("signals can't be awaited: {error}")))
}
