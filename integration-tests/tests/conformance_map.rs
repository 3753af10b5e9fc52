//! docs/conformance.md against the tests: nothing is claimed that no test shows, and nothing shown is left out.

#![expect(clippy::expect_used, clippy::unwrap_used, reason = "all of this file is tests")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The tests of this package, as `file::name`.
fn tests() -> BTreeSet<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let (Some(file), Ok(text)) = (path.file_stem(), fs::read_to_string(&path)) else { continue };
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            if !matches!(line, "#[test]" | "#[tokio::test]") {
                continue;
            }
            let signature = lines.find(|line| line.contains("fn ")).expect("a function after #[test]");
            let name = signature.split("fn ").nth(1).and_then(|rest| rest.split('(').next()).unwrap();
            names.insert(format!("{}::{name}", file.to_string_lossy()));
        }
    }
    names
}

/// What docs/conformance.md names as tests: text between backticks with `::` in it.
fn claims() -> BTreeSet<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/conformance.md");
    let text = fs::read_to_string(path).unwrap();
    text.split('`').skip(1).step_by(2).filter(|code| code.contains("::")).map(str::to_owned).collect()
}

#[test]
fn every_test_that_is_claimed_exists() {
    let (claims, tests) = (claims(), tests());
    assert!(claims.len() > 50, "{claims:?}");
    let missing: Vec<_> = claims.difference(&tests).collect();
    assert!(missing.is_empty(), "docs/conformance.md names tests that do not exist: {missing:#?}");
}

#[test]
fn every_test_of_a_statement_is_listed() {
    let claims = claims();
    let of_statements = |name: &String| name.contains("_v311_") || name.contains("_v5_");
    let unlisted: Vec<_> =
        tests().into_iter().filter(of_statements).filter(|name| !claims.contains(name)).collect();
    assert!(unlisted.is_empty(), "docs/conformance.md does not list {unlisted:#?}");
}
