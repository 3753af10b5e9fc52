use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::sink::LineWriter;
use super::{LogLevel, LogLine, LogSink};
use crate::delivery::{DeliveryError, Envelope, ItemId, Sink as _};
use crate::plan::{ActionPlan, Request};
use crate::testing::{FakeRenderer, plan, refusal, render};

#[derive(Debug, Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

impl LineWriter for Lines {
    fn write(&self, line: &LogLine) {
        self.0.lock().push(line.message.clone());
    }
}

fn line(plan: &ActionPlan, message: &[u8]) -> LogLine {
    match render(plan, &[("message", message)]) {
        Ok(Request::Log(line)) => line,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_line_is_one_line_with_rule_action_and_level() {
    let plan = plan("type = 'log'\nname = 'a'\nlevel = 'warn'\nmessage = '${x}'\nmax_chars = 20");
    let line = line(&plan, b"t=61\r\n2026 FORGED\x1b[31m line");
    assert_eq!((&*line.rule, &*line.action, line.level), ("rule", "a", LogLevel::Warn));
    assert_eq!(line.message, "t=61\\r\\n2026 FORGED\\u{1b}[3…");
}

#[test]
fn writes_the_output_by_default() {
    let plan = plan("type = 'log'\nname = 'a'");
    let mut renderer = FakeRenderer::new(&plan, &[]).with_output(b"\xff\x00raw");
    let Ok(Request::Log(line)) = plan.render(&mut renderer) else { panic!() };
    assert_eq!(line.message, "\u{fffd}\\u{0}raw");
}

#[tokio::test(start_paused = true)]
async fn writes_at_most_so_many_lines_per_second() {
    let lines = Lines::default();
    let sink = LogSink::new(lines.clone(), 3);
    let plan = plan("type = 'log'\nname = 'a'\nmessage = '${x}'");
    let batch: Vec<_> = (0..5_u64)
        .map(|n| {
            let id = ItemId { store: 0, epoch: 0, sequence: n };
            Arc::new(Envelope::new(id, line(&plan, n.to_string().as_bytes()), None))
        })
        .collect();
    let limited = Err(DeliveryError::RateLimited { per_second: 3 });
    assert_eq!(sink.deliver(&batch).await, [Ok(()), Ok(()), Ok(()), limited.clone(), limited.clone()]);
    tokio::time::advance(Duration::from_millis(999)).await;
    assert_eq!(sink.deliver(&batch[..1]).await, [limited]);
    tokio::time::advance(Duration::from_millis(1)).await;
    assert_eq!(sink.deliver(&batch[..1]).await, [Ok(())]);
    assert_eq!(*lines.0.lock(), ["0", "1", "2", "0"]);
}

#[test]
fn refuses_settings_that_cannot_work() {
    for (text, expected) in [
        ("level = 'loud'", "unknown variant `loud`"),
        ("max_chars = 0", "max_chars: expected 16 to 262144"),
        ("max_per_second = 0", "max_per_second: expected 1 to 100000"),
        ("queue = { max_items = 0 }", "queue.max_items: expected 1 to 10000000"),
        ("queue = { size = 1 }", "unknown field `size`"),
        ("retry = {}", "unknown field `retry`"),
    ] {
        let refusal = refusal(&format!("type = 'log'\nname = 'a'\n{text}"));
        assert!(refusal.contains(expected), "{text}: {refusal}");
    }
}
