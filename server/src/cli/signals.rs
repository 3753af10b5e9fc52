//! The signals that end the program in good order.

use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

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

/// Says to a command that doesn't run inside tokio that it is to end.
pub(crate) struct StopFlag(Receiver<()>);

impl StopFlag {
    /// Waits for so long at most; returns whether it is to end.
    pub(crate) fn wait(&self, time: Duration) -> bool {
        // Without the thread that would tell, nobody ever does: then it ends too.
        !matches!(self.0.recv_timeout(time), Err(RecvTimeoutError::Timeout))
    }
}

/// Starts to listen for SIGINT and SIGTERM on a thread of its own.
pub(crate) fn stop_flag() -> Result<StopFlag, Failure> {
    let failed = |error| Failure::new(Exit::Failed, format!("signals can't be awaited: {error}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let mut signals = runtime.block_on(async { stop_signal() })?;
    let (tell, told) = sync_channel(1);
    std::thread::spawn(move || {
        runtime.block_on(signals.received());
        // Who doesn't wait any more has ended by itself.
        let _nobody_waits = tell.send(());
    });
    Ok(StopFlag(told))
}
