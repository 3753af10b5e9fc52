//! A rule against a message: nothing panics; a failure is a budget; JSON output is JSON; printed SQL means the same; the
//! index leaves out no rule that matches.
//!
//! The input is the statement, a zero byte, the payload.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rules_sql::{Dialect, Evaluation, Event, Limits, Outcome, PredicateIndex, compile};

fuzz_target!(|data: &[u8]| {
    let mut parts = data.splitn(2, |byte| *byte == 0);
    let (Some(sql), payload) = (parts.next(), parts.next().unwrap_or_default()) else { return };
    let Ok(sql) = std::str::from_utf8(sql) else { return };
    // A tenth of the usual budgets keeps each run short.
    let limits = Limits { steps: 100_000, array_steps: 1_000, output_bytes: 64 << 10, ..Limits::default() };
    let rule = match compile(sql, Dialect::Aws, &limits) {
        Ok(rule) => rule,
        Err(error) => {
            assert!(sql.get(error.span.clone()).is_some(), "{error:?}");
            assert!(error.render(sql).contains(error.code));
            return;
        }
    };
    let event = Event::new("sensors/room-1/temp", payload);
    let first = rule.evaluate(&mut Evaluation::new(&event, 1));
    if let Outcome::Output(output) = &first {
        assert!(output.bytes().len() <= limits.output_bytes);
        if output.is_json() {
            let text = std::str::from_utf8(output.bytes()).expect("JSON is UTF-8");
            // A number out of serde_json's range is JSON all the same.
            if let Err(error) = serde_json::from_str::<serde_json::Value>(text) {
                let error = error.to_string();
                assert!(error.contains("out of range") || error.contains("recursion"), "{error}: {text}");
            }
        }
    }
    if matches!(first, Outcome::Output(_) | Outcome::NoOutput) {
        let mut found = Vec::new();
        PredicateIndex::new([&rule]).candidates(&mut Evaluation::new(&event, 1), 0, &mut found);
        assert_eq!(found, [0], "{sql}");
    }
    let printed = rule.to_sql();
    match compile(printed, Dialect::Aws, &limits) {
        Ok(again) => {
            assert_eq!(again.to_sql(), printed);
            assert_eq!(again.evaluate(&mut Evaluation::new(&event, 1)), first);
        }
        // Canonical parentheses may take a statement past a limit, never past the grammar.
        Err(error) => assert!(error.code.starts_with("R000"), "{}", error.render(printed)),
    }
});
