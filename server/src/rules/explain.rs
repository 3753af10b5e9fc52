//! Why a rule did, or would do, what it does with one message: the engine's explanation, and what each action would send.
//!
//! Nothing is sent and nothing is counted. The rule is evaluated and its templates are rendered by the code that live
//! messages go through.

use std::path::Path;

use actions::{ActionPlan, OutputRef, RenderError, Renderer, Request};
use rules_sql::{Evaluation, Explanation, Outcome, Output, Step, Template};

use super::file::{LoadedAction, LoadedRule};

/// A rule and a message, taken apart.
#[derive(Debug)]
pub(crate) struct RuleExplanation<'r> {
    /// Name of the rule.
    pub(crate) name: &'r str,
    /// The file that it stands in.
    pub(crate) file: &'r Path,
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
    pub(crate) parameters: Vec<ParameterExplanation<'r>>,
    /// What would be sent, or why nothing would be.
    pub(crate) request: Result<Request, String>,
}

/// A parameter that is a template.
#[derive(Debug)]
pub(crate) struct ParameterExplanation<'r> {
    /// The key: `url`, `headers.X-Site`.
    pub(crate) field: &'r str,
    /// The template as written.
    pub(crate) template: &'r str,
    /// Each `${…}`, in order.
    pub(crate) steps: Vec<Step>,
    /// What it was rendered to, or why it wasn't.
    pub(crate) rendered: Result<Vec<u8>, String>,
}

impl LoadedRule {
    /// Explains the rule for one message.
    pub(crate) fn explain(&self, evaluation: &mut Evaluation<'_>) -> RuleExplanation<'_> {
        let sql = self.compiled.explain(evaluation);
        let mut actions = Vec::new();
        let mut is_skipped = false;
        if let Outcome::Output(output) = &sql.outcome {
            is_skipped = self.skip_empty && output.is_empty_object();
            if !is_skipped {
                actions.extend(self.actions.iter().map(|action| action.explain(evaluation, output)));
            }
        }
        RuleExplanation {
            name: &self.name,
            file: &self.file,
            is_enabled: self.enabled,
            sql,
            is_skipped,
            actions,
        }
    }
}

impl LoadedAction {
    fn explain(&self, evaluation: &mut Evaluation<'_>, output: &Output) -> ActionExplanation<'_> {
        let mut renderer = ExplainingRenderer {
            plan: &self.plan,
            templates: &self.templates,
            evaluation,
            output,
            parameters: Vec::new(),
        };
        let request = self.plan.render(&mut renderer).map_err(|error| error.to_string());
        let parameters = renderer.parameters;
        ActionExplanation { name: self.config.name(), kind: self.config.kind(), parameters, request }
    }
}

/// Renders templates and keeps how.
struct ExplainingRenderer<'r, 'm, 'e> {
    plan: &'r ActionPlan,
    templates: &'r [Template],
    evaluation: &'m mut Evaluation<'e>,
    output: &'m Output,
    parameters: Vec<ParameterExplanation<'r>>,
}

impl Renderer for ExplainingRenderer<'_, '_, '_> {
    fn render(&mut self, index: usize, out: &mut Vec<u8>) -> Result<(), RenderError> {
        let (Some(spec), Some(template)) = (self.plan.templates().get(index), self.templates.get(index)) else {
            let problem = "was not compiled".to_owned();
            return Err(RenderError::Template { field: index.to_string(), problem });
        };
        let explanation = template.explain(self.evaluation, Some(self.output));
        let rendered = explanation.rendered.map_err(|error| crate::cli::chain(&error));
        let result = match &rendered {
            Ok(bytes) => {
                out.extend_from_slice(bytes);
                Ok(())
            }
            Err(problem) => {
                Err(RenderError::Template { field: spec.field.clone(), problem: problem.clone() })
            }
        };
        let (field, template, steps) = (spec.field.as_str(), spec.text.as_str(), explanation.steps);
        self.parameters.push(ParameterExplanation { field, template, steps, rendered });
        result
    }

    fn output(&mut self) -> OutputRef<'_> {
        OutputRef { bytes: self.output.bytes(), is_json: self.output.is_json() }
    }
}
