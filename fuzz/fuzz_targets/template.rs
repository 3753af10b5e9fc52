//! Templates of every kind against a message: nothing panics, and what is rendered fits its kind.
//!
//! The input is a byte that picks the kind, the template, a zero byte, the payload.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mqtt_protocol::topic::validate_topic_name;
use rules_sql::{Dialect, Evaluation, Event, Limits, Template, TemplateKind};

fuzz_target!(|data: &[u8]| {
    let Some((&pick, data)) = data.split_first() else { return };
    let mut parts = data.splitn(2, |byte| *byte == 0);
    let (Some(text), payload) = (parts.next(), parts.next().unwrap_or_default()) else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    let kind = match pick % 7 {
        0 => TemplateKind::Text,
        1 => TemplateKind::PlainText,
        2 => TemplateKind::Topic,
        3 => TemplateKind::UrlPart,
        4 => TemplateKind::HeaderValue,
        5 => TemplateKind::Integer { min: 0, max: 2 },
        _ => TemplateKind::Boolean,
    };
    let limits = Limits { steps: 100_000, array_steps: 1_000, output_bytes: 64 << 10, ..Limits::default() };
    let template = match Template::compile(text, kind, Dialect::Aws, &limits) {
        Ok(template) => template,
        Err(error) => {
            assert!(text.get(error.span.clone()).is_some(), "{error:?}");
            return;
        }
    };
    let event = Event::new("sensors/room-1/temp", payload);
    let mut out = b"kept".to_vec();
    let result = template.render(&mut Evaluation::new(&event, 1), None, &mut out);
    let rendered = out.strip_prefix(b"kept").expect("what was there stays");
    if result.is_err() {
        assert!(rendered.is_empty());
        return;
    }
    let as_text = || std::str::from_utf8(rendered).expect("this kind is text");
    match kind {
        TemplateKind::Topic => assert!(validate_topic_name(as_text()).is_ok()),
        TemplateKind::HeaderValue => assert!(!rendered.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0))),
        TemplateKind::Integer { .. } => assert!(matches!(rendered, b"0" | b"1" | b"2")),
        TemplateKind::Boolean => assert!(matches!(rendered, b"true" | b"false")),
        _ => {}
    }
});
