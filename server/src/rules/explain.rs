//! Why a rule did, or would do, what it does with one message: the engine's explanation, and what each action would send.
//!
//! Nothing is sent and nothing is counted. The rule is evaluated and its templates are rendered by the code that live
//! messages go through.

use std::path::Path;

use actions::Request;
use rules_sql::{CompiledRule, Evaluation, Explanation, Outcome};

use super::file::LoadedRule;
use super::parameters::{Sent, parameters};
use super::render::Parameter;

/// A rule and a message, taken apart.
#[derive(Debug)]
pub(crate) struct RuleExplanation<'r> {
    /// Name of the rule.
    pub(crate) name: &'r str,
    /// The file that it stands in; `None` for a statement that stands in none.
    pub(crate) file: Option<&'r Path>,
    /// Whether it runs for live messages.
    pub(crate) is_enabled: bool,
    /// FROM, SET, WHERE and SELECT.
    pub(crate) sql: Explanation,
    /// Whether there is an output that the rule says to pass over, because it has no member.
    pub(crate) is_skipped: bool,
    /// What each action makes of the output; empty when there is none.
    pub(crate) actions: Vec<ActionExplanation<'r>>,
}

/// What an action makes of a message.
#[derive(Debug)]
pub(crate) struct ActionExplanation<'r> {
    /// Name of the action.
    pub(crate) name: &'r str,
    /// Its `type`.
    pub(crate) kind: &'static str,
    /// Its parameters that are templates, in the order in which they were rendered.
    pub(crate) parameters: Vec<Parameter<'r>>,
    /// What would be sent, or why nothing would be.
    pub(crate) request: Result<Request, String>,
}

/// Parts of a name that say that its value is a secret.
const SECRET_PARTS: [&str; 6] = ["auth", "cookie", "key", "password", "secret", "token"];

/// What stands for a secret.
pub(crate) const HIDDEN: &str = "***";

/// Whether a parameter is a header that usually holds a secret.
fn is_secret(field: &str) -> bool {
    field.strip_prefix("headers.").is_some_and(is_secret_name)
}

/// Whether something of this name, a header or the like, usually holds a secret.
pub(crate) fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    // The key of a repeated request is no secret, though it is called a key.
    name != "idempotency-key" && SECRET_PARTS.iter().any(|part| name.contains(part))
}

impl ActionExplanation<'_> {
    /// What would be sent, parameter by parameter, without secrets.
    pub(crate) fn sent(&self, request: &Request) -> Vec<Sent> {
        let mut sent = parameters(request);
        for (_, value) in sent.iter_mut().filter(|(name, _)| is_secret(name)) {
            *value = HIDDEN.into();
        }
        sent
    }
}

impl LoadedRule {
    /// Explains the rule for one message.
    pub(crate) fn explain(&self, evaluation: &mut Evaluation<'_>) -> RuleExplanation<'_> {
        let sql = self.compiled.explain(evaluation);
        let mut actions = Vec::new();
        let mut is_skipped = false;
        if let Outcome::Output(output) = &sql.outcome {
            is_skipped = self.skip_empty && output.is_empty_object();
            for action in self.actions.iter().filter(|_| !is_skipped) {
                let (request, mut parameters) = action.explain_rendering(evaluation, output);
                for parameter in parameters.iter_mut().filter(|parameter| is_secret(parameter.field)) {
                    parameter.template = HIDDEN;
                    parameter.steps.clear();
                    parameter.rendered = Ok(HIDDEN.into());
                }
                actions.push(ActionExplanation {
                    name: action.config.name(),
                    kind: action.config.kind(),
                    parameters,
                    request: request.map_err(|error| crate::cli::chain(&error)),
                });
            }
        }
        let (name, file, is_enabled) = (self.name.as_str(), Some(self.file.as_path()), self.enabled);
        RuleExplanation { name, file, is_enabled, sql, is_skipped, actions }
    }
}

impl RuleExplanation<'_> {
    /// Explains a statement that belongs to no rule.
    pub(crate) fn of_statement(statement: &CompiledRule, evaluation: &mut Evaluation<'_>) -> Self {
        let sql = statement.explain(evaluation);
        Self { name: "statement", file: None, is_enabled: true, sql, is_skipped: false, actions: Vec::new() }
    }
}
