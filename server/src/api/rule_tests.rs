//! Cases of rules, run over HTTP as `tidegate rules test` runs them from files. Nothing is sent or counted.

use std::sync::Arc;

use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::Api;
use super::auth::now_ms;
use super::extract::Json;
use super::problem::{Kind, Problem};
use super::rules::{read, refused};
use crate::rules::cases::{self, Book, Runner, Shelf};

/// Most cases that are run in one request.
pub const TESTED_MAX: usize = 1_000;

/// What to test.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TestRules {
    /// Cases as a case file has them: a JSON array, or one object a line.
    cases: String,
    /// A rule file, TOML, with the rules that cases name. Those that are there come behind it.
    #[serde(default)]
    text: Option<String>,
    /// Whether a warning about its rule makes a case fail.
    #[serde(default)]
    deny_warnings: bool,
}

/// What came of the cases.
#[derive(Serialize, ToSchema)]
pub(super) struct TestedRules {
    /// How many did what was expected of them.
    passed: usize,
    /// How many did not.
    failed: usize,
    /// How many nothing was expected of.
    open: usize,
    /// One verdict for each case, in order, as `tidegate rules test --json` prints them.
    #[schema(value_type = Vec<Object>)]
    verdicts: Vec<Box<RawValue>>,
}

/// Runs cases against rules of the request and those that are there.
#[utoipa::path(post, path = "/api/v1/rules/test", operation_id = "testRules", tag = "rules", request_body = TestRules,
    responses((status = 200, description = "What came of them, failed or not", body = TestedRules)))]
pub(super) async fn test_rules(
    State(api): State<Arc<Api>>,
    Json(body): Json<TestRules>,
) -> Result<Json<TestedRules>, Problem> {
    api.blocking(move |api| {
        let cases = cases::parse_cases(&body.cases)
            .map_err(|why| Problem::new(Kind::Invalid, format!("cases: {why}")))?;
        if cases.len() > TESTED_MAX {
            let detail = format!("cases: {} given, more than the limit of {TESTED_MAX}", cases.len());
            return Err(Problem::new(Kind::Invalid, detail));
        }
        let own = match &body.text {
            Some(text) => Shelf::of(read(&api.gateway, text).map_err(|faults| refused(&faults))?),
            None => Shelf::default(),
        };
        let running = Shelf::running(api.gateway.rules().loaded());
        let shelves = [&own, &running];
        let runner =
            Runner { limits: &api.gateway.rule_limits, now_ms: now_ms(), deny_warnings: body.deny_warnings };
        let mut tested = TestedRules { passed: 0, failed: 0, open: 0, verdicts: Vec::new() };
        for case in &cases {
            let verdict = runner.run(case, Book(&shelves));
            match verdict.pass {
                Some(true) => tested.passed += 1,
                Some(false) => tested.failed += 1,
                None => tested.open += 1,
            }
            let line = cases::line(&verdict).and_then(RawValue::from_string);
            tested.verdicts.push(line.map_err(|error| {
                tracing::error!(%error, "a verdict can't be written");
                Problem::new(Kind::Internal, "a verdict can't be written")
            })?);
        }
        Ok(Json(tested))
    })
    .await
}
