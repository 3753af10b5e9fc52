//! An action's templates, rendered for one message: for live traffic, for tests and for explanations alike.

use actions::config::OrderBy;
use actions::{ActionPlan, OutputRef, RenderError, Renderer, Request};
use rules_sql::{Evaluation, Output, Step, Template};

use super::file::LoadedAction;
use crate::cli::chain;

/// How a parameter that is a template was rendered.
#[derive(Debug)]
pub(crate) struct Parameter<'r> {
    /// The key: `url`, `headers.X-Site`.
    pub(crate) field: &'r str,
    /// The template as written.
    pub(crate) template: &'r str,
    /// Each `${…}`, in order.
    pub(crate) steps: Vec<Step>,
    /// What it was rendered to, or why it wasn't.
    pub(crate) rendered: Result<Vec<u8>, String>,
}

impl LoadedAction {
    /// Returns what the action asks for, given what the rule made of the message.
    pub(super) fn render(
        &self,
        evaluation: &mut Evaluation<'_>,
        output: &Output,
    ) -> Result<Request, RenderError> {
        self.plan.render(&mut self.rendering(evaluation, output, None))
    }

    /// As [`Self::render`], with every template that was rendered on the way, in order.
    pub(super) fn explain_rendering(
        &self,
        evaluation: &mut Evaluation<'_>,
        output: &Output,
    ) -> (Result<Request, RenderError>, Vec<Parameter<'_>>) {
        let mut parameters = Vec::new();
        let request = self.plan.render(&mut self.rendering(evaluation, output, Some(&mut parameters)));
        (request, parameters)
    }

    fn rendering<'r, 'm, 'e>(
        &'r self,
        evaluation: &'m mut Evaluation<'e>,
        output: &'m Output,
        notes: Option<&'m mut Vec<Parameter<'r>>>,
    ) -> Rendering<'r, 'm, 'e> {
        Rendering { plan: &self.plan, templates: &self.templates, evaluation, output, notes }
    }
}

/// Renders templates when a plan asks for them.
struct Rendering<'r, 'm, 'e> {
    plan: &'r ActionPlan,
    templates: &'r [Template],
    evaluation: &'m mut Evaluation<'e>,
    output: &'m Output,
    notes: Option<&'m mut Vec<Parameter<'r>>>,
}

impl Renderer for Rendering<'_, '_, '_> {
    fn render(&mut self, index: usize, out: &mut Vec<u8>) -> Result<(), RenderError> {
        let (Some(spec), Some(template)) = (self.plan.templates().get(index), self.templates.get(index))
        else {
            let problem = "was not compiled".to_owned();
            return Err(RenderError::Template { field: index.to_string(), problem });
        };
        let result = match &mut self.notes {
            None => template.render(self.evaluation, Some(self.output), out).map_err(|error| chain(&error)),
            Some(notes) => {
                let explanation = template.explain(self.evaluation, Some(self.output));
                let rendered = explanation.rendered.map_err(|error| chain(&error));
                let result =
                    rendered.as_ref().map(|bytes| out.extend_from_slice(bytes)).map_err(String::clone);
                let (field, text) = (spec.field.as_str(), spec.text.as_str());
                notes.push(Parameter { field, template: text, steps: explanation.steps, rendered });
                result
            }
        };
        result.map_err(|problem| RenderError::Template { field: spec.field.clone(), problem })
    }

    fn output(&mut self) -> OutputRef<'_> {
        OutputRef { bytes: self.output.bytes(), is_json: self.output.is_json() }
    }

    fn line(&self, order_by: OrderBy) -> &str {
        let event = self.evaluation.event();
        match order_by {
            OrderBy::Publisher => event.client_id.unwrap_or_default(),
            OrderBy::Topic => event.topic,
            _ => "",
        }
    }
}
