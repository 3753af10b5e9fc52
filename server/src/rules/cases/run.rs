//! A case through the code that live messages go through: compile, FROM, evaluate, render.
//!
//! Random numbers begin from one seed and identifiers from one number, so that two runs of a case give the same.

use rules_sql::{
    CompileError, CompiledRule, Evaluation, Limits, Outcome, Output, Template, TemplateKind, Warning,
};

use super::super::file::{LoadedAction, LoadedRule};
use super::super::parameters::{Sent, parameters};
use super::book::{Book, Missing};
use super::json::Json;
use super::model::{Case, Expected, RuleOf, Stage, Test, Timed};
use super::verdict;
use crate::config::suggest;

/// Seed of `rand()` and `newuuid()` for the first message of a case; any number does.
const SEED: u64 = 0x5469_6465_6761_7465;
/// What `traceid()` gives for the first message of a case, as a number; each later message has the next.
const TRACE_ID: u128 = 0x7469_6465_6761_4e65_8000_0000_0000_0001;

/// Runs cases.
#[derive(Debug)]
pub(crate) struct Runner<'r> {
    /// What a rule may use.
    pub(crate) limits: &'r Limits,
    /// The time of cases that say none, in milliseconds since 1970.
    pub(crate) now_ms: i64,
    /// Whether a warning about its rule makes a case fail.
    pub(crate) deny_warnings: bool,
}

/// What came of a case.
#[derive(Debug)]
pub(crate) struct Verdict {
    /// The case's name.
    pub(crate) id: String,
    /// What it is about.
    pub(crate) group: Option<String>,
    /// Whether everything held; `None`: nothing was expected.
    pub(crate) pass: Option<bool>,
    /// Why not, when it did not pass; one line.
    pub(crate) why: Option<String>,
    /// What the rule's author may not have meant.
    pub(crate) warnings: Vec<String>,
    pub(super) ran: Ran,
}

/// What a case did.
#[derive(Debug, Default)]
pub(super) struct Ran {
    /// Whether the case has `messages`.
    pub(super) is_sequence: bool,
    /// One for each message that was evaluated.
    pub(super) answers: Vec<Answer>,
    /// What the template was rendered to, for the last message that had an output.
    pub(super) rendered: Option<Vec<u8>>,
    /// By name, what the actions would send for that message.
    pub(super) actions: Vec<(String, Vec<Sent>)>,
    /// The first error.
    pub(super) error: Option<Fault>,
    warnings: Vec<String>,
}

/// What came of one message.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) outcome: &'static str,
    pub(super) row: Option<Row>,
}

/// An output.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) bytes: Vec<u8>,
    /// `None`: raw bytes.
    pub(super) json: Option<Json>,
}

/// An error of a rule, or of the case itself.
#[derive(Debug)]
pub(super) struct Fault {
    /// `None`: the case is wrong, not the rule.
    pub(super) stage: Option<Stage>,
    pub(super) code: Option<&'static str>,
    pub(super) message: String,
    pub(super) line: Option<usize>,
    pub(super) column: Option<usize>,
    /// Whether a rule that says this is refused when it is created.
    pub(super) at_creation: bool,
}

impl Fault {
    fn of_case(message: impl Into<String>) -> Self {
        let message = message.into();
        Self { stage: None, code: None, message, line: None, column: None, at_creation: false }
    }

    fn at(stage: Stage, message: impl Into<String>) -> Self {
        Self { stage: Some(stage), ..Self::of_case(message) }
    }

    fn refused(stage: Stage, error: &CompileError) -> Self {
        let hint = error.hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default();
        Self {
            code: Some(error.code),
            line: Some(error.line),
            column: Some(error.column),
            at_creation: true,
            ..Self::at(stage, format!("{}{hint}", error.message))
        }
    }

    /// The stage, in a word.
    pub(super) fn stage(&self) -> &'static str {
        self.stage.map_or("case", Stage::word)
    }
}

/// A rule that is ready to run.
enum Ready<'b> {
    Compiled(CompiledRule),
    Loaded(&'b LoadedRule),
}

impl Ready<'_> {
    fn compiled(&self) -> &CompiledRule {
        match self {
            Self::Compiled(rule) => rule,
            Self::Loaded(rule) => &rule.compiled,
        }
    }

    /// The actions that a case looks at.
    fn actions(&self, expected: &Expected) -> Result<Vec<&LoadedAction>, Fault> {
        let Self::Loaded(rule) = self else { return Ok(Vec::new()) };
        if let Some(wanted) = &expected.actions {
            let find = |(name, _): &(String, _)| {
                let found = rule.actions.iter().find(|action| action.config.name() == name.as_str());
                found.ok_or_else(|| {
                    let hint = suggest(name, rule.action_names()).unwrap_or_default();
                    Fault::of_case(format!("expect_actions: the rule has no action \"{name}\": {hint}"))
                })
            };
            return wanted.iter().map(find).collect();
        }
        // Whether one of them fails can only be seen by rendering them all.
        let all = expected.error_stage == Some(Stage::Template);
        Ok(if all { rule.actions.iter().collect() } else { Vec::new() })
    }
}

impl Runner<'_> {
    /// Runs a case and judges it.
    pub(crate) fn run(&self, case: &Case, book: Book<'_>) -> Verdict {
        let mut ran = Ran::default();
        let (mut pass, mut why) = (None, None);
        match &case.test {
            Err(fault) => ran.error = Some(Fault::of_case(fault.as_str())),
            Ok(test) => {
                ran.is_sequence = test.is_sequence;
                if let Err(fault) = self.execute(test, book, &mut ran) {
                    ran.error = Some(fault);
                }
                if test.expected.is_some() {
                    why = verdict::fault_of(&test.expected, &ran);
                    pass = Some(why.is_none());
                }
            }
        }
        if let Some(Fault { stage: None, message, .. }) = &ran.error {
            (pass, why) = (Some(false), Some(message.clone()));
        }
        if self.deny_warnings
            && pass != Some(false)
            && let Some(warning) = ran.warnings.first()
        {
            (pass, why) = (Some(false), Some(format!("warnings are denied: {warning}")));
        }
        let warnings = std::mem::take(&mut ran.warnings);
        Verdict { id: case.id.clone(), group: case.group.clone(), pass, why, warnings, ran }
    }

    fn execute(&self, test: &Test, book: Book<'_>, ran: &mut Ran) -> Result<(), Fault> {
        let rule = self.rule(&test.rule, book)?;
        warn(rule.compiled().warnings(), ran);
        let template = match &test.template {
            None => None,
            Some((text, kind)) => Some(self.template(&rule, text, *kind)?),
        };
        warn(template.as_ref().map(Template::warnings).unwrap_or_default(), ran);
        let actions = rule.actions(&test.expected)?;
        for template in actions.iter().flat_map(|action| &action.templates) {
            warn(template.warnings(), ran);
        }
        if test.messages.iter().any(|timed| timed.message.topic.is_empty()) {
            return Err(Fault::of_case("has no topic"));
        }
        for (place, timed) in test.messages.iter().enumerate() {
            if let Err(fault) = self.message(place, timed, &rule, template.as_ref(), &actions, ran) {
                ran.error.get_or_insert(fault);
            }
        }
        Ok(())
    }

    fn rule<'b>(&self, rule: &RuleOf, book: Book<'b>) -> Result<Ready<'b>, Fault> {
        match rule {
            RuleOf::Sql(sql, dialect) => match rules_sql::compile(sql, *dialect, self.limits) {
                Ok(rule) => Ok(Ready::Compiled(rule)),
                Err(error) => Err(Fault::refused(Stage::Create, &error)),
            },
            RuleOf::Name(name) => match book.find(name) {
                Ok(rule) => Ok(Ready::Loaded(rule)),
                Err(Missing::Unknown(why)) => Err(Fault::of_case(why)),
                Err(Missing::Refused(fault)) => Err(Fault {
                    line: fault.line,
                    column: fault.column,
                    at_creation: true,
                    ..Fault::at(Stage::Create, fault.message)
                }),
            },
        }
    }

    fn template(&self, rule: &Ready<'_>, text: &str, kind: TemplateKind) -> Result<Template, Fault> {
        let compiled = rule.compiled().template(text, kind, self.limits);
        compiled.map_err(|error| Fault::refused(Stage::Template, &error))
    }

    /// Evaluates one message and renders what there is to render.
    fn message(
        &self,
        place: usize,
        timed: &Timed,
        rule: &Ready<'_>,
        template: Option<&Template>,
        actions: &[&LoadedAction],
        ran: &mut Ran,
    ) -> Result<(), Fault> {
        let message = &timed.message;
        let properties = message.properties();
        let now_ms = timed.now_ms.unwrap_or(self.now_ms);
        let event = message.event(&properties, now_ms, TRACE_ID.wrapping_add(place as u128));
        let mut evaluation = Evaluation::new(&event, SEED.wrapping_add(place as u64));
        let compiled = rule.compiled();
        let is_selected =
            compiled.filters().iter().any(|filter| mqtt_protocol::matches(filter, &message.topic));
        let outcome = if is_selected { compiled.evaluate(&mut evaluation) } else { Outcome::NoMatch };
        let mut answer = |outcome, row| ran.answers.push(Answer { outcome, row });
        let output = match outcome {
            Outcome::NoMatch => {
                answer("no_match", None);
                return Ok(());
            }
            Outcome::NoOutput => {
                answer("no_output", None);
                return Ok(());
            }
            Outcome::Failed(error) => {
                answer("error", None);
                return Err(Fault::at(Stage::Run, error.to_string()));
            }
            Outcome::Output(output) => {
                answer("output", Some(Row::of(&output)));
                output
            }
        };
        if let Some(template) = template {
            let mut rendered = Vec::new();
            template.render(&mut evaluation, Some(&output), &mut rendered).map_err(|error| {
                let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
                Fault::at(Stage::Template, format!("{error}{}", cause.unwrap_or_default()))
            })?;
            ran.rendered = Some(rendered);
        }
        ran.actions.clear();
        for action in actions {
            let name = action.config.name();
            let request = action
                .render(&mut evaluation, &output)
                .map_err(|error| Fault::at(Stage::Template, format!("action \"{name}\": {error}")))?;
            ran.actions.push((name.to_owned(), parameters(&request)));
        }
        Ok(())
    }
}

impl Row {
    fn of(output: &Output) -> Self {
        let text = std::str::from_utf8(output.bytes()).ok().filter(|_| output.is_json());
        Self { bytes: output.bytes().to_vec(), json: text.and_then(|text| Json::parse(text).ok()) }
    }
}

fn warn(warnings: &[Warning], ran: &mut Ran) {
    ran.warnings.extend(warnings.iter().map(Warning::to_string));
}
