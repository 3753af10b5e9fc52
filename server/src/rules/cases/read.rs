//! Case files: JSON arrays or JSON lines, and the arguments that stand for them.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::value::RawValue;

use super::json::Json;
use super::model::Case;

/// Largest case file in bytes.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// Most cases of one file.
const CASES_MAX: usize = 100_000;
/// How the names of case files end.
const ENDINGS: [&str; 2] = [".cases.json", ".cases.jsonl"];

/// The cases of one file.
#[derive(Debug)]
pub(crate) struct CaseFile {
    /// The file.
    pub(crate) path: PathBuf,
    /// Its cases, in order.
    pub(crate) cases: Vec<Case>,
}

/// Returns the case files that an argument stands for: those of a folder, in the order of their names; those beside a rule
/// file; the file itself otherwise. An argument that stands for none is an error.
pub(crate) fn case_files(argument: &Path) -> Result<Vec<PathBuf>, String> {
    let shown = argument.display();
    if argument.is_dir() {
        let mut files = Vec::new();
        for entry in fs::read_dir(argument).map_err(|error| format!("{shown} can't be read: {error}"))? {
            let path = entry.map_err(|error| format!("{shown} can't be read: {error}"))?.path();
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let is_case_file = ENDINGS.iter().any(|ending| name.ends_with(ending));
            if is_case_file && !name.starts_with('.') && path.is_file() {
                files.push(path);
            }
        }
        files.sort();
        return if files.is_empty() {
            Err(format!("{shown} has no case file: expected names that end with {}", ENDINGS.join(" or ")))
        } else {
            Ok(files)
        };
    }
    if is_rule_file(argument) {
        fs::metadata(argument).map_err(|error| format!("{shown} can't be read: {error}"))?;
        let stem = argument.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        let beside = ENDINGS.map(|ending| argument.with_file_name(format!("{stem}{ending}")));
        let files: Vec<PathBuf> = beside.iter().filter(|path| path.is_file()).cloned().collect();
        return if files.is_empty() {
            let names = beside.map(|path| path.display().to_string());
            Err(format!("{shown} has no cases: expected {}", names.join(" or ")))
        } else {
            Ok(files)
        };
    }
    Ok(vec![argument.to_owned()])
}

/// Whether an argument names a rule file.
pub(super) fn is_rule_file(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "toml")
}

/// Reads a case file. A case that is wrong in itself is among its cases; an error is about the whole file.
pub(crate) fn read_cases(path: &Path) -> Result<CaseFile, String> {
    let shown = path.display();
    let unreadable = |error: std::io::Error| format!("{shown} can't be read: {error}");
    let size = fs::metadata(path).map_err(unreadable)?.len();
    if size > FILE_BYTES_MAX {
        return Err(format!("{shown} has {size} bytes, more than the limit of {FILE_BYTES_MAX}"));
    }
    let text = fs::read_to_string(path).map_err(unreadable)?;
    let cases = parse(&text).map_err(|why| format!("{shown} can't be read: {why}"))?;
    Ok(CaseFile { path: path.to_owned(), cases })
}

/// Reads the text of a case file.
pub(crate) fn parse(text: &str) -> Result<Vec<Case>, String> {
    let words = |error: serde_json::Error| error.to_string();
    let values: Vec<&RawValue> = if text.trim_start().starts_with('[') {
        serde_json::from_str(text).map_err(words)?
    } else {
        let values = serde_json::Deserializer::from_str(text).into_iter();
        values.take(CASES_MAX + 1).collect::<Result<_, _>>().map_err(words)?
    };
    if values.len() > CASES_MAX {
        return Err(format!("more than {CASES_MAX} cases"));
    }
    if values.is_empty() {
        return Err("it holds no case".to_owned());
    }
    let mut seen = HashSet::new();
    let read = |(place, value): (usize, &RawValue)| {
        let mut case = match Json::parse(value.get()) {
            Ok(json) => Case::new(json, place + 1),
            Err(why) => Case::unreadable(place + 1, why),
        };
        if !seen.insert(case.id.clone()) {
            case.test = Err(format!("another case of the file has the id \"{}\" too", case.id));
        }
        case
    };
    Ok(values.into_iter().enumerate().map(read).collect())
}
