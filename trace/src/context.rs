//! What a message carries of its trace: W3C Trace Context, level 1 (<https://www.w3.org/TR/trace-context-1/>).

use std::fmt;

/// Name of the user property or header that carries a [`Context`].
pub const TRACEPARENT: &str = "traceparent";

/// A trace, and the span in it that what follows belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Context {
    /// Which trace; never 0.
    pub trace_id: u128,
    /// The span that is the parent of what follows; never 0.
    pub span_id: u64,
}

impl Context {
    /// Bytes of [`Context::to_bytes`].
    pub const BYTES: usize = 24;

    /// Reads a `traceparent`, with whether its sender sampled the trace. `None` for anything that is none (§3.2.2).
    #[must_use]
    pub fn parse(traceparent: &str) -> Option<(Self, bool)> {
        let mut parts = traceparent.split('-');
        let (version, trace_id) = (parts.next()?, parts.next()?);
        let (span_id, flags) = (parts.next()?, parts.next()?);
        let is_future = version != "00";
        if version == "ff" || (parts.next().is_some() && !is_future) {
            return None;
        }
        hex(version, 2)?;
        let trace_id = hex(trace_id, 32)?;
        let span_id = u64::try_from(hex(span_id, 16)?).ok()?;
        let flags = hex(flags, 2)?;
        (trace_id != 0 && span_id != 0).then_some((Self { trace_id, span_id }, flags & 1 == 1))
    }

    /// The text for a header or a user property. What carries a context is sampled.
    #[must_use]
    pub fn traceparent(&self) -> String {
        format!("00-{:032x}-{:016x}-01", self.trace_id, self.span_id)
    }

    /// As it is kept on disk.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        let (trace_id, span_id) = bytes.split_at_mut(16);
        trace_id.copy_from_slice(&self.trace_id.to_le_bytes());
        span_id.copy_from_slice(&self.span_id.to_le_bytes());
        bytes
    }

    /// What [`Context::to_bytes`] has made.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (trace_id, span_id) = bytes.split_at_checked(16)?;
        let trace_id = u128::from_le_bytes(trace_id.try_into().ok()?);
        let span_id = u64::from_le_bytes(span_id.try_into().ok()?);
        (trace_id != 0 && span_id != 0).then_some(Self { trace_id, span_id })
    }
}

/// Shows the trace's identifier.
impl fmt::Display for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.trace_id)
    }
}

/// So many lower-case hexadecimal digits.
fn hex(text: &str, digits: usize) -> Option<u128> {
    let is_hex = text.len() == digits && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    is_hex.then(|| u128::from_str_radix(text, 16).ok())?
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_specifications_example_is_read() {
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let (context, is_sampled) = Context::parse(text).unwrap();
        assert_eq!(context.trace_id, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
        assert_eq!(context.span_id, 0x00f0_67aa_0ba9_02b7);
        assert!(is_sampled);
        assert_eq!(context.traceparent(), text);
    }

    #[test]
    fn what_is_no_context_is_refused() {
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        for text in [
            "",
            "00",
            &format!("00-{trace}-00f067aa0ba902b7"),
            &format!("00-{trace}-00f067aa0ba902b7-01-more"),
            &format!("ff-{trace}-00f067aa0ba902b7-01"),
            &format!("00-{trace}-0000000000000000-01"),
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            &format!("00-{}-00f067aa0ba902b7-01", trace.to_uppercase()),
            &format!("00-{trace}-00f067aa0ba902b-01"),
            &format!("00-{trace}-00f067aa0ba902b7-1"),
            &format!("00-{trace}-+0f067aa0ba902b7-01"),
            &format!("0x-{trace}-00f067aa0ba902b7-01"),
        ] {
            assert_eq!(Context::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_later_version_may_say_more() {
        let text = "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00-what-comes";
        assert!(Context::parse(text).is_some_and(|(_, is_sampled)| !is_sampled));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(trace_id in 1..=u128::MAX, span_id in 1..=u64::MAX) {
            let context = Context { trace_id, span_id };
            prop_assert_eq!(Context::parse(&context.traceparent()), Some((context, true)));
            prop_assert_eq!(Context::from_bytes(&context.to_bytes()), Some(context));
        }

        #[test]
        fn no_text_makes_it_panic(text in ".{0,80}") {
            if let Some((context, _)) = Context::parse(&text) {
                prop_assert!(context.trace_id != 0 && context.span_id != 0);
            }
        }

        #[test]
        fn bytes_that_are_none_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            prop_assert_eq!(Context::from_bytes(&bytes).is_some(), bytes.len() == Context::BYTES
                && bytes[..16] != [0; 16] && bytes[16..] != [0; 8]);
        }
    }
}
