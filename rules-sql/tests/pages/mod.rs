//! Pages under `docs` that tests make and compare.

use std::fs;
use std::path::Path;

/// How a page says that it is not written by hand.
pub(crate) const GENERATED: &str = "<!-- Made by `RULES_SQL_REWRITE=1 cargo test -p rules-sql --test reference --test coverage`; a test compares. -->";

/// Compares a page with what it should be, or writes it when `RULES_SQL_REWRITE` is set.
#[track_caller]
pub(crate) fn check(name: &str, page: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
    if std::env::var_os("RULES_SQL_REWRITE").is_some() {
        fs::write(&path, page).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    let differing = written.lines().zip(page.lines()).find(|(written, made)| written != made);
    assert!(written == page, "docs/{name} is out of date: {differing:?}");
}
