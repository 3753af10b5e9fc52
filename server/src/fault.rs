//! Panics on demand, for tests of what a panic harms. Only builds with the feature `power-cut` have it, and only the variable
//! `TIDEGATE_PANIC` turns it on: a text that says `panic in PLACE` then has that place panic.

use std::sync::OnceLock;

/// Panics if the text asks this place to.
#[expect(clippy::panic, reason = "it is what this is for")]
pub(crate) fn point(place: &str, text: &[u8]) {
    static IS_ON: OnceLock<bool> = OnceLock::new();
    let asked = text.strip_prefix(b"panic in ").is_some_and(|asked| asked == place.as_bytes());
    if asked && *IS_ON.get_or_init(|| std::env::var_os("TIDEGATE_PANIC").is_some()) {
        panic!("a test asked for it");
    }
}
