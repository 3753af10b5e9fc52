//! The language of rules, for editors: made from the tables that the checker reads, so that nothing is offered that it refuses.

use std::sync::LazyLock;

use axum::response::{IntoResponse as _, Response};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use rules_sql::reference::{self, Function, Severity};
use serde::Serialize;
use utoipa::ToSchema;

/// The language.
#[derive(Serialize, ToSchema)]
pub(super) struct Language {
    /// Words that aren't names, in capitals; they are found in any case.
    keywords: Vec<&'static str>,
    /// By group, and by name in each.
    functions: Vec<FunctionInfo>,
    /// Codes of errors and warnings.
    errors: Vec<CodeInfo>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct FunctionInfo {
    /// It is found in any case.
    name: &'static str,
    /// Other names of it.
    aliases: &'static [&'static str],
    /// Functions that belong together have the same.
    group: &'static str,
    /// How it is called.
    signature: String,
    /// What it gives, and what else is to be said, in a line.
    summary: String,
    /// An expression that calls it.
    example: &'static str,
    /// What that comes to, as JSON; null: Undefined.
    result: Option<&'static str>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct CodeInfo {
    /// `R` and four digits.
    code: &'static str,
    /// `error` or `warning`.
    severity: &'static str,
    title: &'static str,
    meaning: &'static str,
    /// What to do about it.
    remedy: &'static str,
}

impl FunctionInfo {
    fn of(group: &'static str, function: Function) -> Self {
        let mut summary = format!("Gives {}.", function.result);
        if !function.note.is_empty() {
            summary.push(' ');
            summary.push_str(function.note);
        }
        let example = function.examples.first();
        Self {
            name: function.name,
            aliases: function.aliases,
            group,
            signature: function.signature,
            summary,
            example: example.map_or("", |example| example.expression),
            result: example.and_then(|example| example.result),
        }
    }
}

impl Language {
    fn of_rules() -> Self {
        let functions = reference::functions().into_iter().flat_map(|group| {
            group.functions.into_iter().map(move |function| FunctionInfo::of(group.title, function))
        });
        let errors = reference::codes().into_iter().map(|code| CodeInfo {
            code: code.code,
            severity: match code.severity {
                Severity::Warning => "warning",
                _ => "error",
            },
            title: code.title,
            meaning: code.meaning,
            remedy: code.remedy,
        });
        Self {
            keywords: reference::keywords().into_iter().map(|keyword| keyword.word).collect(),
            functions: functions.collect(),
            errors: errors.collect(),
        }
    }
}

/// Describes the language of rules, for an editor.
#[utoipa::path(get, path = "/api/v1/language", operation_id = "getLanguage", tag = "rules",
    responses((status = 200, description = "The language", body = Language, content_type = "application/json")))]
pub(super) async fn get_language() -> Response {
    static JSON: LazyLock<String> =
        LazyLock::new(|| serde_json::to_string(&Language::of_rules()).unwrap_or_default());
    ([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], JSON.as_str()).into_response()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn it_has_what_an_editor_asks_for_and_every_function_of_the_manual() {
        let language: Value = serde_json::to_value(Language::of_rules()).unwrap();
        let keywords = language["keywords"].as_array().unwrap();
        assert!(
            ["SELECT", "FROM", "WHERE"].iter().all(|word| keywords.contains(&(*word).into())),
            "{keywords:?}"
        );
        let functions = language["functions"].as_array().unwrap();
        let abs = functions.iter().find(|function| function["name"] == "abs").unwrap();
        let expected = serde_json::json!({
            "name": "abs", "aliases": [], "group": "Numbers", "signature": "abs(number)",
            "summary": "Gives Int or Decimal.", "example": "abs(-5)", "result": "5",
        });
        assert_eq!(*abs, expected);
        let page = include_str!("../../../docs/rules-functions.md");
        assert_eq!(functions.len(), page.matches("\n### ").count());
        for function in functions {
            let name = function["name"].as_str().unwrap();
            assert!(page.contains(&format!("\n### {name}\n")), "{name}");
            assert!(function["example"].as_str().unwrap().contains(&format!("{name}(")), "{function}");
        }
        let errors = language["errors"].as_array().unwrap();
        let warnings = errors.iter().filter(|code| code["severity"] == "warning").count();
        assert!(warnings > 0 && warnings < errors.len(), "{warnings} of {}", errors.len());
    }
}
