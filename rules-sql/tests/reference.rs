//! Pages of the manual that are made from the library's own tables, and compared with what is checked in.
//!
//! `RULES_SQL_REWRITE=1 cargo test -p rules-sql --test reference` writes them; read the difference.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends at the first fault"
)]

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use rules_sql::reference::{Severity, codes};

/// How a page says that it is not written by hand.
const GENERATED: &str =
    "<!-- Made by `RULES_SQL_REWRITE=1 cargo test -p rules-sql --test reference`; a test compares. -->";

#[track_caller]
fn check(name: &str, page: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
    if std::env::var_os("RULES_SQL_REWRITE").is_some() {
        fs::write(&path, page).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    let differing = written.lines().zip(page.lines()).find(|(written, made)| written != made);
    assert!(written == page, "docs/{name} is out of date: {differing:?}");
}

#[test]
fn page_of_codes() {
    let mut page = format!(
        "# Error codes of rules SQL\n\n{GENERATED}\n\n\
         Codes are stable and never reused. An error refuses the statement or the template; a warning, from R0900 on, \
         lets it pass.\nEach comes with line, column, a caret under the place and, where it is known, a remedy.\n\n\
         | Code | |\n| --- | --- |\n"
    );
    for code in codes() {
        let anchor = code.code.to_lowercase();
        writeln!(page, "| [{}](#{anchor}) | {} |", code.code, code.title).unwrap();
    }
    for code in codes() {
        let condition = code.condition.map(|words| format!(", {words}")).unwrap_or_default();
        let word = match code.severity {
            Severity::Error => "Error",
            Severity::Warning => "Warning",
        };
        write!(
            page,
            "\n## {}\n\n{word}: {}. {}\n\nExample{condition}:\n\n```text\n{}```\n\n{}\n",
            code.code, code.title, code.meaning, code.rendered, code.remedy
        )
        .unwrap();
    }
    check("rules-sql-errors.md", &page);
}
