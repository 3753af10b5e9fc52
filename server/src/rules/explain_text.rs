//! An explanation for people: one rule a paragraph, trees by indentation.

use std::fmt::Write as _;

use rules_sql::{NamedStep, Outcome, Step, StepResult};

use super::explain::{ActionExplanation, RuleExplanation};

/// Characters of a value that are shown.
const VALUE_CHARS_MAX: usize = 160;

/// Everything about one rule.
pub(crate) fn explanation_page(explanation: &RuleExplanation<'_>) -> String {
    let mut page = Page::default();
    page.rule(explanation);
    page.text
}

#[derive(Default)]
struct Page<'e> {
    text: String,
    /// Variables whose value was told with its steps; where they are used, the value alone is.
    told: Vec<&'e str>,
}

impl<'e> Page<'e> {
    fn line(&mut self, depth: usize, text: &str) {
        let _infallible = writeln!(self.text, "{}{text}", "  ".repeat(depth));
    }

    fn rule(&mut self, explanation: &'e RuleExplanation<'_>) {
        let file = explanation.file.map(|file| format!(" ({})", file.display())).unwrap_or_default();
        let disabled = if explanation.is_enabled { "" } else { ", not enabled" };
        self.line(0, &format!("{}{file}{disabled}: {}", explanation.name, verdict(explanation)));
        for step in &explanation.sql.filters {
            let matches = if step.is_match { "matches" } else { "does not match" };
            self.line(1, &format!("FROM '{}' {matches}", step.filter));
        }
        for variable in &explanation.sql.variables {
            self.step(1, &format!("SET {} = ", variable.name), &variable.step);
            if variable.step.result != StepResult::NotEvaluated {
                self.told.push(&variable.name);
            }
        }
        if let Some(condition) = &explanation.sql.condition {
            self.step(1, "WHERE ", condition);
        }
        let evaluated = |item: &&NamedStep| item.step.result != StepResult::NotEvaluated;
        for item in explanation.sql.items.iter().filter(evaluated) {
            let name = if item.name.is_empty() {
                "SELECT VALUE ".to_owned()
            } else {
                format!("SELECT {} = ", item.name)
            };
            self.step(1, &name, &item.step);
        }
        if let Outcome::Output(output) = &explanation.sql.outcome {
            let text = shortened(&String::from_utf8_lossy(output.bytes()));
            let raw = if output.is_json() { "" } else { " (raw bytes)" };
            self.line(1, &format!("output{raw} {text}"));
        }
        explanation.actions.iter().for_each(|action| self.action(action));
        self.text.push('\n');
    }

    fn step(&mut self, depth: usize, prefix: &str, step: &Step) {
        let decides = if step.decides { "   <-- decides" } else { "" };
        let result = match &step.result {
            StepResult::Value { json, is_cut, .. } => {
                let dots = if *is_cut { "…" } else { "" };
                format!("{}{dots}", shortened(json))
            }
            StepResult::Undefined => match &step.because {
                Some(because) => format!("Undefined: {because}"),
                None => "Undefined".to_owned(),
            },
            StepResult::NotEvaluated => "not evaluated".to_owned(),
            other => format!("{other:?}"),
        };
        let because = match (&step.result, &step.because) {
            (StepResult::Value { .. }, Some(because)) => format!(": {because}"),
            _ => String::new(),
        };
        self.line(depth, &format!("{prefix}{}  =>  {result}{because}{decides}", step.sql));
        if self.told.contains(&step.sql.as_str()) {
            return;
        }
        step.steps.iter().for_each(|inner| self.step(depth + 1, "", inner));
    }

    fn action(&mut self, action: &ActionExplanation<'_>) {
        let verdict = match &action.request {
            Ok(_) => "would send".to_owned(),
            Err(problem) => format!("would fail: {problem}"),
        };
        self.line(1, &format!("action {} ({}) {verdict}", action.name, action.kind));
        for parameter in action.parameters.iter().filter(|parameter| !parameter.steps.is_empty()) {
            let rendered = match &parameter.rendered {
                Ok(bytes) => shortened(&String::from_utf8_lossy(bytes)),
                Err(problem) => problem.clone(),
            };
            self.line(2, &format!("{} = {}  =>  {rendered}", parameter.field, shortened(parameter.template)));
            parameter.steps.iter().for_each(|step| self.step(3, "", step));
        }
        if let Ok(request) = &action.request {
            let known = |name: &str| {
                action
                    .parameters
                    .iter()
                    .any(|parameter| parameter.field == name && !parameter.steps.is_empty())
            };
            for (name, value) in action.sent(request).iter().filter(|(name, _)| !known(name)) {
                self.line(2, &format!("{name} = {}", shortened(&String::from_utf8_lossy(value))));
            }
        }
    }
}

fn verdict(explanation: &RuleExplanation<'_>) -> String {
    let count = |number: usize| if number == 1 { "1 action".to_owned() } else { format!("{number} actions") };
    match &explanation.sql.outcome {
        _ if explanation.sql.filters.iter().all(|filter| !filter.is_match) => {
            "no filter matches the topic".to_owned()
        }
        Outcome::NoMatch => "WHERE does not let the message pass".to_owned(),
        Outcome::NoOutput => "passes, but SELECT VALUE is Undefined: no action runs".to_owned(),
        Outcome::Failed(error) => format!("fails: {error}"),
        Outcome::Output(_) if explanation.is_skipped => {
            "passes, but the output is {} and skip_empty is set".to_owned()
        }
        Outcome::Output(_) if explanation.actions.is_empty() => "passes".to_owned(),
        Outcome::Output(_) => format!("fires {}", count(explanation.actions.len())),
    }
}

/// One line, not too long, without what a terminal would obey.
fn shortened(text: &str) -> String {
    let mut chars = text.chars().map(|char| match char {
        '\n' => ' ',
        char if char.is_control() => char::REPLACEMENT_CHARACTER,
        char => char,
    });
    let mut short: String = chars.by_ref().take(VALUE_CHARS_MAX).collect();
    if chars.next().is_some() {
        short.push('…');
    }
    short
}
