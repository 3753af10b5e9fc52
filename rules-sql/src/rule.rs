//! A compiled rule: FROM, WHERE, SELECT and SET with every name, arity, constant and path settled.

use crate::error::CompileError;
use crate::evaluation::{Evaluation, Outcome};
use crate::limits::{Dialect, Limits};
use crate::template::{Template, TemplateKind};

/// Compiles one statement.
///
/// # Errors
/// The first fault found, with its place: syntax, an unknown function, a wrong number of arguments, a Topic Filter
/// that breaks the rules of MQTT, a limit.
pub fn compile(sql: &str, dialect: Dialect, limits: &Limits) -> Result<CompiledRule, CompileError> {
    let _ = (sql, dialect, limits);
    Err(CompileError {
        code: "R0001",
        message: "not supported yet".to_owned(),
        line: 1,
        column: 1,
        span: 0..0,
        hint: None,
    })
}

/// A statement ready to run against any number of messages, from any number of threads.
#[derive(Clone, Debug)]
pub struct CompiledRule {
    filters: Vec<String>,
    needs_payload: bool,
}

impl CompiledRule {
    /// The Topic Filters of FROM, in order; valid by MQTT's rules.
    #[must_use]
    pub fn filters(&self) -> &[String] {
        &self.filters
    }

    /// Whether any evaluation can look into the payload.
    #[must_use]
    pub fn needs_payload(&self) -> bool {
        self.needs_payload
    }

    /// Evaluates WHERE and then SELECT. FROM is the caller's business: it matched the filters already.
    #[must_use]
    pub fn evaluate(&self, ev: &mut Evaluation<'_>) -> Outcome {
        let _ = ev;
        Outcome::NoMatch
    }

    /// Compiles a template that may also use this rule's SET variables.
    ///
    /// # Errors
    /// As [`Template::compile`].
    pub fn template(
        &self,
        text: &str,
        kind: TemplateKind,
        limits: &Limits,
    ) -> Result<Template, CompileError> {
        Template::compile(text, kind, Dialect::Aws, limits)
    }
}
