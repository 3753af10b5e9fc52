//! Plan, request and driver of the log action.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::config::{LogConfig, LogLevel};
use crate::config::Kept;
use crate::delivery::{BatchPolicy, DeliveryError, Envelope, Sink};
use crate::error::{ActionConfigError, RenderError};
use crate::outlet::QueuedRequest;
use crate::plan::{Renderer, Slot, TemplateHandle, Templates};
use crate::text::excerpt;

/// One line to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// Rule that asked for it.
    pub rule: Arc<str>,
    /// Action that asked for it.
    pub action: Arc<str>,
    /// Its level.
    pub level: LogLevel,
    /// The text: one line, escaped, cut to the configured length.
    pub message: String,
}

impl QueuedRequest for LogLine {
    fn bytes(&self) -> usize {
        size_of::<Self>() + self.message.len()
    }

    /// Lines are never kept: there is no far side to confirm them.
    fn encode(&self, _: &mut Vec<u8>) {}

    fn decode(_: &[u8]) -> Option<Self> {
        None
    }
}

#[derive(Debug)]
pub(crate) struct LogPlan {
    rule: Arc<str>,
    action: Arc<str>,
    level: LogLevel,
    max_chars: usize,
    message: Option<TemplateHandle>,
}

impl LogPlan {
    pub(crate) fn new(
        rule: &str,
        config: &LogConfig,
        templates: &mut Templates,
    ) -> Result<Self, ActionConfigError> {
        let fault =
            |field: &str, problem: String| ActionConfigError::field_error(&config.name, field, problem);
        config.delivery().check(&config.name)?;
        config.queue.check_kept(&config.name, Kept::InMemory)?;
        if !(16..=262_144).contains(&config.max_chars) {
            return Err(fault("max_chars", format!("expected 16 to 262144, given {}", config.max_chars)));
        }
        if !(1..=100_000).contains(&config.max_per_second) {
            return Err(fault(
                "max_per_second",
                format!("expected 1 to 100000, given {}", config.max_per_second),
            ));
        }
        Ok(Self {
            rule: rule.into(),
            action: config.name.as_str().into(),
            level: config.level,
            max_chars: config.max_chars,
            message: config.message.as_ref().map(|text| templates.add("message", text, Slot::Text)),
        })
    }

    pub(crate) fn render(&self, renderer: &mut dyn Renderer) -> Result<LogLine, RenderError> {
        let message = match &self.message {
            Some(template) => excerpt(&template.bytes(renderer)?, self.max_chars),
            None => excerpt(renderer.output().bytes, self.max_chars),
        };
        Ok(LogLine {
            rule: Arc::clone(&self.rule),
            action: Arc::clone(&self.action),
            level: self.level,
            message,
        })
    }
}

/// Where log lines go.
pub trait LineWriter: Send + Sync + 'static {
    /// Writes one line.
    fn write(&self, line: &LogLine);
}

/// Writes lines as events of this process's own log, under the target `tidegate::rule`.
#[derive(Debug, Clone, Copy)]
pub struct TracingWriter;

impl LineWriter for TracingWriter {
    fn write(&self, line: &LogLine) {
        let LogLine { rule, action, level, message } = line;
        match level {
            LogLevel::Error => tracing::error!(target: "tidegate::rule", %rule, %action, "{message}"),
            LogLevel::Warn => tracing::warn!(target: "tidegate::rule", %rule, %action, "{message}"),
            LogLevel::Info => tracing::info!(target: "tidegate::rule", %rule, %action, "{message}"),
            LogLevel::Debug => tracing::debug!(target: "tidegate::rule", %rule, %action, "{message}"),
        }
    }
}

/// The driver: writes lines, at most so many per second.
#[derive(Debug)]
pub struct LogSink<W> {
    writer: W,
    max_per_second: u32,
    window: Mutex<Option<Window>>,
}

/// Lines written since the second began.
#[derive(Debug)]
struct Window {
    began: Instant,
    lines: u32,
}

impl<W: LineWriter> LogSink<W> {
    /// Makes a driver that writes to `writer`.
    pub const fn new(writer: W, max_per_second: u32) -> Self {
        Self { writer, max_per_second, window: Mutex::new(None) }
    }

    fn admit(&self, now: Instant) -> bool {
        let mut window = self.window.lock();
        match window.as_mut() {
            Some(current) if now.duration_since(current.began) < Duration::from_secs(1) => {
                current.lines = current.lines.saturating_add(1);
                current.lines <= self.max_per_second
            }
            _ => {
                *window = Some(Window { began: now, lines: 1 });
                true
            }
        }
    }
}

impl<W: LineWriter> Sink for LogSink<W> {
    type Request = LogLine;

    fn batch_policy(&self) -> BatchPolicy {
        BatchPolicy { max_items: 64, max_bytes: 1 << 20, linger: Duration::ZERO, is_whole: false }
    }

    async fn deliver(&self, batch: &[Arc<Envelope<LogLine>>]) -> Vec<Result<(), DeliveryError>> {
        batch
            .iter()
            .map(|item| {
                if !self.admit(Instant::now()) {
                    return Err(DeliveryError::RateLimited { per_second: self.max_per_second });
                }
                self.writer.write(&item.request);
                Ok(())
            })
            .collect()
    }
}
