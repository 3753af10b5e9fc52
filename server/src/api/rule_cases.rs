//! The cases of rules that the gateway keeps: samples that somebody has saved with what the rule is to make of them.
//!
//! They are written as case files have them, and run by `rules/test`; nothing is run here. Each rule has one file in the folder
//! `rule-cases` of the data directory, a checksum in front:
//!
//! ```text
//! 5d2c11f0 [{"id":"warm","rule":"overheat","topic":"hall/temp","payload":{"temperature":61}}]
//! ```
//!
//! A file takes the place of the one before as a whole. One that is damaged is told as such until somebody replaces or removes it,
//! and nothing is guessed about what it said. Without a data directory cases are kept in memory.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::Api;
use super::audit::Change;
use super::auth::write_file;
use super::extract::{Json, Path};
use super::problem::{Kind, Problem};
use crate::rules::cases::parse_cases;

/// Most cases of a rule.
pub const RULE_CASES_MAX: usize = 200;
/// Most bytes of the cases of a rule, as JSON without spaces.
pub const RULE_CASES_BYTES_MAX: usize = 1 << 20;
/// Most rules that have cases.
pub const RULES_WITH_CASES_MAX: usize = 1_000;
/// The folder in the data directory.
const FOLDER: &str = "rule-cases";
/// Bytes of a file before its cases: a checksum and a space.
const PREFIX_BYTES: usize = 9;

/// Where cases are kept.
#[derive(Debug)]
pub(super) struct KeptCases {
    folder: Option<PathBuf>,
    /// Held while files are read and changed; those of a gateway without a data directory, by the names of their rules.
    memory: Mutex<BTreeMap<String, String>>,
}

/// Why cases can't be had, or kept.
#[derive(Debug, thiserror::Error)]
pub(super) enum CasesError {
    #[error("the cases of the rule \"{rule}\" in {} are damaged: {why}; put them anew, or delete them", path.display())]
    Damaged { rule: String, path: PathBuf, why: &'static str },
    #[error("the cases of the rule \"{rule}\" can't be read or written")]
    File { rule: String, source: io::Error },
    #[error("{RULES_WITH_CASES_MAX} rules have cases, which is the limit")]
    TooMany,
}

impl From<CasesError> for Problem {
    fn from(error: CasesError) -> Self {
        let kind = match error {
            CasesError::Damaged { .. } | CasesError::TooMany => Kind::Conflict,
            CasesError::File { .. } => Kind::Internal,
        };
        Self::new(kind, crate::cli::chain(&error))
    }
}

impl KeptCases {
    pub(super) fn new(data_dir: Option<&FilePath>) -> Self {
        Self { folder: data_dir.map(|folder| folder.join(FOLDER)), memory: Mutex::default() }
    }

    fn path(&self, rule: &str) -> Option<PathBuf> {
        self.folder.as_ref().map(|folder| folder.join(format!("{rule}.json")))
    }

    /// The cases of a rule as a JSON array; `None`: it has none.
    pub(super) fn get(&self, rule: &str) -> Result<Option<String>, CasesError> {
        let memory = self.memory.lock();
        let Some(path) = self.path(rule) else { return Ok(memory.get(rule).cloned()) };
        let failed = |source| CasesError::File { rule: rule.to_owned(), source };
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(failed)?,
        };
        let most = (PREFIX_BYTES + RULE_CASES_BYTES_MAX + 1) as u64;
        let mut bytes = Vec::new();
        file.take(most + 1).read_to_end(&mut bytes).map_err(failed)?;
        match read(&bytes) {
            Ok(cases) => Ok(Some(cases.to_owned())),
            Err(why) => Err(CasesError::Damaged { rule: rule.to_owned(), path, why }),
        }
    }

    /// Keeps the cases of a rule in place of those that it had.
    pub(super) fn put(&self, rule: &str, cases: String) -> Result<(), CasesError> {
        let mut memory = self.memory.lock();
        let failed = |source| CasesError::File { rule: rule.to_owned(), source };
        let Some((folder, path)) = self.folder.as_ref().zip(self.path(rule)) else {
            if memory.len() >= RULES_WITH_CASES_MAX && !memory.contains_key(rule) {
                return Err(CasesError::TooMany);
            }
            memory.insert(rule.to_owned(), cases);
            return Ok(());
        };
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
        if !path.exists() && fs::read_dir(folder).map_err(failed)?.count() >= RULES_WITH_CASES_MAX {
            return Err(CasesError::TooMany);
        }
        let line = format!("{:08x} {cases}\n", crc32c::crc32c(cases.as_bytes()));
        write_file(&path, line.as_bytes()).map_err(|error| failed(io::Error::other(error)))?;
        // The folder itself may be new.
        folder.parent().map_or(Ok(()), |above| File::open(above)?.sync_all()).map_err(failed)
    }

    /// Gives the cases of a rule up; there may be none.
    pub(super) fn delete(&self, rule: &str) -> Result<(), CasesError> {
        let mut memory = self.memory.lock();
        memory.remove(rule);
        let Some((folder, path)) = self.folder.as_ref().zip(self.path(rule)) else { return Ok(()) };
        let removed = match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            removed => removed.and_then(|()| File::open(folder)?.sync_all()),
        };
        removed.map_err(|source| CasesError::File { rule: rule.to_owned(), source })
    }

    /// The rules that cases are kept of, by name.
    pub(super) fn rules(&self) -> io::Result<BTreeSet<String>> {
        let memory = self.memory.lock();
        let Some(folder) = &self.folder else { return Ok(memory.keys().cloned().collect()) };
        let files = match fs::read_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
            files => files?,
        };
        let mut rules = BTreeSet::new();
        for file in files {
            let name = file?.file_name();
            let rule = name.to_str().and_then(|name| name.strip_suffix(".json"));
            rules.extend(rule.filter(|rule| is_rule_name(rule)).map(str::to_owned));
        }
        Ok(rules)
    }

    /// Gives the cases of a rule up that is gone.
    pub(super) fn rule_is_gone(&self, rule: &str) {
        if let Err(error) = self.delete(rule) {
            tracing::error!(
                rule,
                error = crate::cli::chain(&error),
                "the cases of a rule that was removed stay"
            );
        }
    }
}

/// Takes a file apart.
fn read(bytes: &[u8]) -> Result<&str, &'static str> {
    if bytes.len() > PREFIX_BYTES + RULE_CASES_BYTES_MAX + 1 {
        return Err("they are longer than cases may be");
    }
    let text = std::str::from_utf8(bytes).map_err(|_| "they are no text")?;
    let cases = text.split_once(' ').and_then(|(sum, rest)| Some((sum, rest.strip_suffix('\n')?)));
    let (sum, cases) = cases.ok_or("they end early")?;
    match u32::from_str_radix(sum, 16) {
        Ok(sum) if sum == crc32c::crc32c(cases.as_bytes()) => Ok(cases),
        _ => Err("they don't agree with their checksum"),
    }
}

/// Cases of a rule.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PutCases {
    /// At most 200, as a case file has them, each with an `id` of its own and the rule's name in `rule`.
    #[schema(value_type = Vec<Object>, max_items = 200)]
    cases: Vec<Value>,
}

/// Cases of a rule.
#[derive(Serialize, ToSchema)]
pub(super) struct RuleCases {
    /// As they were put.
    #[schema(value_type = Vec<Object>)]
    cases: Box<RawValue>,
}

/// Whether a rule can have this name, which is part of the name of a file.
pub(super) fn is_rule_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

/// Checks that a rule of this name is there.
fn known(api: &Api, name: &str) -> Result<(), Problem> {
    if is_rule_name(name) && api.gateway.book.rule(name).is_some() {
        return Ok(());
    }
    Err(Problem::new(Kind::Missing, format!("there is no rule \"{name}\"")))
}

/// Shows the cases that the gateway keeps of a rule.
#[utoipa::path(get, path = "/api/v1/rules/{name}/cases", operation_id = "getRuleCases", tag = "rules",
    params(("name" = String, Path, description = "Name of the rule", pattern = "^[A-Za-z0-9_-]{1,64}$")),
    responses((status = 200, description = "Its cases, in order; none, where none were put", body = RuleCases)))]
pub(super) async fn get_cases(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
) -> Result<Json<RuleCases>, Problem> {
    api.blocking(move |api| {
        known(api, &name)?;
        let cases = api.cases.get(&name)?.unwrap_or_else(|| "[]".to_owned());
        let cases = RawValue::from_string(cases).map_err(|error| {
            tracing::error!(%error, rule = name, "the cases of a rule are no JSON");
            Problem::new(Kind::Internal, "the cases can't be shown")
        })?;
        Ok::<_, Problem>(Json(RuleCases { cases }))
    })
    .await
}

/// Keeps cases of a rule, in place of those that it had. They aren't run.
#[utoipa::path(put, path = "/api/v1/rules/{name}/cases", operation_id = "putRuleCases", tag = "rules", request_body = PutCases,
    params(("name" = String, Path, description = "Name of the rule", pattern = "^[A-Za-z0-9_-]{1,64}$")),
    responses((status = 204, description = "They are on disk")))]
pub(super) async fn put_cases(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    Json(body): Json<PutCases>,
) -> Result<(Change, StatusCode), Problem> {
    let record = Change::of(name.clone()).after(json!({ "cases": body.cases.len() }));
    api.blocking(move |api| {
        known(api, &name)?;
        Ok::<_, Problem>(api.cases.put(&name, checked(&name, &body.cases)?)?)
    })
    .await?;
    Ok((record, StatusCode::NO_CONTENT))
}

/// Gives the cases of a rule up.
#[utoipa::path(delete, path = "/api/v1/rules/{name}/cases", operation_id = "deleteRuleCases", tag = "rules",
    params(("name" = String, Path, description = "Name of the rule", pattern = "^[A-Za-z0-9_-]{1,64}$")),
    responses((status = 204, description = "It has none")))]
pub(super) async fn delete_cases(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
) -> Result<(Change, StatusCode), Problem> {
    let record = Change::of(name.clone());
    api.blocking(move |api| {
        known(api, &name)?;
        Ok::<_, Problem>(api.cases.delete(&name)?)
    })
    .await?;
    Ok((record, StatusCode::NO_CONTENT))
}

/// The cases as they are kept, if each is one of this rule.
pub(super) fn checked(rule: &str, cases: &[Value]) -> Result<String, Problem> {
    let invalid = |detail: String| Problem::new(Kind::Invalid, detail);
    if cases.len() > RULE_CASES_MAX {
        return Err(invalid(format!(
            "cases: {} given, more than the limit of {RULE_CASES_MAX}",
            cases.len()
        )));
    }
    let mut ids = HashSet::new();
    for (place, case) in cases.iter().enumerate() {
        let member = |name: &str| case.get(name).and_then(Value::as_str);
        match member("id") {
            Some(id) if !id.is_empty() && ids.insert(id) => {}
            Some(id) => {
                return Err(invalid(format!("cases[{place}].id: \"{id}\" is empty or stands there twice")));
            }
            None => return Err(invalid(format!("cases[{place}].id: expected a text"))),
        }
        if member("rule") != Some(rule) {
            return Err(invalid(format!("cases[{place}].rule: expected \"{rule}\"")));
        }
    }
    let text = serde_json::to_string(cases).map_err(|error| invalid(format!("cases: {error}")))?;
    if text.len() > RULE_CASES_BYTES_MAX {
        let detail = format!("cases: {} bytes, more than the limit of {RULE_CASES_BYTES_MAX}", text.len());
        return Err(Problem::new(Kind::TooLarge, detail));
    }
    let parsed = parse_cases(&text).map_err(|why| invalid(format!("cases: {why}")))?;
    for (place, case) in parsed.iter().enumerate() {
        if let Some(fault) = case.fault() {
            return Err(invalid(format!("cases[{place}]: {fault}")));
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_whole_or_it_is_damaged() {
        let cases = r#"[{"id":"a","rule":"r"}]"#;
        let line = format!("{:08x} {cases}\n", crc32c::crc32c(cases.as_bytes()));
        assert_eq!(read(line.as_bytes()), Ok(cases));
        for end in 0..line.len() {
            assert!(read(&line.as_bytes()[..end]).is_err(), "cut after {end} bytes");
        }
        for place in 0..line.len() {
            let mut bytes = line.clone().into_bytes();
            bytes[place] ^= 0x01;
            assert!(read(&bytes).is_err(), "byte {place} is another");
        }
        let long = |length: usize| {
            let cases = "x".repeat(length);
            format!("{:08x} {cases}\n", crc32c::crc32c(cases.as_bytes())).into_bytes()
        };
        assert!(read(&long(RULE_CASES_BYTES_MAX)).is_ok() && read(&long(RULE_CASES_BYTES_MAX + 1)).is_err());
    }

    #[test]
    fn so_many_rules_have_cases_and_those_that_have_may_have_others() {
        let folder = tempfile::tempdir().unwrap();
        let (memory, disk) = (KeptCases::new(None), KeptCases::new(Some(folder.path())));
        for kept in [&memory, &disk] {
            kept.put("r0", "[]".to_owned()).unwrap();
            for number in 1..RULES_WITH_CASES_MAX {
                match kept.path(&format!("r{number}")) {
                    Some(path) => fs::write(path, "").unwrap(),
                    None => kept.put(&format!("r{number}"), "[]".to_owned()).unwrap(),
                }
            }
            assert!(matches!(kept.put("one_more", "[]".to_owned()), Err(CasesError::TooMany)));
            kept.put("r0", "[1]".to_owned()).unwrap();
            assert_eq!(kept.get("r0").unwrap().as_deref(), Some("[1]"));
            kept.delete("r0").unwrap();
            kept.delete("r0").unwrap();
            kept.put("one_more", "[]".to_owned()).unwrap();
            assert_eq!(kept.get("r0").unwrap(), None);
        }
    }

    #[test]
    fn names_of_rules_lead_nowhere_else() {
        assert!(is_rule_name("over-heat_7") && is_rule_name(&"x".repeat(64)));
        for name in ["", "..", "a/b", "a.json", "\u{e4}", "a b", &"x".repeat(65)] {
            assert!(!is_rule_name(name), "{name}");
        }
    }
}
