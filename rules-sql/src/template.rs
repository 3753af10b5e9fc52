//! `${…}` templates of action parameters, compiled at rule creation.
//!
//! An expression sees the original message, not the aliases of SELECT; `output()` is the SELECT's result. The closing
//! brace is found by a lexer that knows strings and nested braces. `$${` writes `${`. What a value turns into depends
//! on the parameter's kind, so that text from a payload cannot break out of a URL, a header, a topic or a JSON string.

use std::sync::Arc;

use crate::check;
use crate::codes;
use crate::doubts;
use crate::error::{CompileError, Fault, TemplateError, Warning};
use crate::eval::{Random, Scope, Variables};
use crate::evaluation::{Evaluation, Output};
use crate::explain;
use crate::json::{Document, write_escaped};
use crate::limits::{Dialect, Limits};
use crate::meter::{Budget, Meter};
use crate::plan::{Expr, Op};
use crate::reach;
use crate::rule::{Program, refuse_emqx, template_scope};
use crate::syntax::ast::Span;
use crate::syntax::parse_expression;
use crate::trace::{Step, Trace, text};
use crate::value::Value;
use crate::value::number::Num;

/// Nesting of a JSON template: beyond any limit on payloads, for this is the rule's own text.
const TEMPLATE_DEPTH: usize = 512;
/// Nesting of what a JSON template is rendered to: values of payloads stand in it.
const RENDERED_DEPTH: usize = TEMPLATE_DEPTH + 128;

/// What a parameter's text is for, and so how a value is escaped and what the result must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TemplateKind {
    /// A body or payload: a JSON template when it is JSON with its `${…}` as placeholders, else text.
    ///
    /// In a JSON template a value inside a string is escaped, one at a value's place is written as JSON, and
    /// Undefined is `null` there.
    Text,
    /// Text as it comes.
    PlainText,
    /// A Topic Name: not empty, no wildcard, no U+0000, at most 65,535 bytes. A leading `$$` stands for `$`.
    Topic,
    /// A URL: values are percent-encoded, the template's own text is not.
    UrlPart,
    /// A header value: CR, LF and NUL are refused.
    HeaderValue,
    /// A whole number within bounds, both included.
    Integer {
        /// Smallest value.
        min: i64,
        /// Largest value.
        max: i64,
    },
    /// `true` or `false`.
    Boolean,
}

impl TemplateKind {
    fn word(self) -> &'static str {
        match self {
            TemplateKind::Text | TemplateKind::PlainText => "text",
            TemplateKind::Topic => "topic",
            TemplateKind::UrlPart => "url",
            TemplateKind::HeaderValue => "header value",
            TemplateKind::Integer { .. } => "whole number",
            TemplateKind::Boolean => "boolean",
        }
    }
}

/// What becomes of a `${…}` that is Undefined for a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Undefined {
    /// Nothing in text; `null` at a value's place of a JSON template.
    #[default]
    Blank,
    /// Nothing in text; at a value's place of a JSON template the member or element is left out.
    Omit,
    /// The rendering fails.
    Fail,
}

/// A compiled template. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Template {
    constant: Option<Vec<u8>>,
    undefined: Undefined,
    inner: Arc<Inner>,
}

/// How a template was rendered for one message.
#[derive(Clone, Debug)]
pub struct TemplateExplanation {
    /// Each `${…}` in order, without its brackets.
    pub steps: Vec<Step>,
    /// What came of the whole.
    pub rendered: Result<Vec<u8>, TemplateError>,
}

#[derive(Debug)]
struct Inner {
    /// The template as written, which places are places in.
    source: Box<str>,
    kind: TemplateKind,
    parts: Vec<Part>,
    reads_payload: bool,
    budget: Budget,
    warnings: Vec<Warning>,
    program: Option<Arc<Program>>,
}

/// A piece of a compiled template.
#[derive(Debug)]
pub(crate) enum Part {
    Literal(String),
    Value { expr: Expr, form: Form },
}

/// How a value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Plain,
    Percent,
    /// Inside a JSON string.
    JsonString,
    /// Where a JSON value stands.
    JsonValue,
}

/// A template cut into text and expressions.
enum Piece {
    Literal(String),
    /// The expression and where it begins.
    Source {
        text: String,
        offset: usize,
    },
}

impl Template {
    /// Compiles a template's text for one kind of parameter.
    ///
    /// # Errors
    /// The first fault: an unclosed `${`, an expression that does not compile, a constant that does not fit the kind.
    pub fn compile(
        text: &str,
        kind: TemplateKind,
        dialect: Dialect,
        limits: &Limits,
    ) -> Result<Template, CompileError> {
        refuse_emqx(dialect).map_err(|fault| CompileError::new(fault, text))?;
        Self::with_program(text, kind, limits, None)
    }

    pub(crate) fn with_program(
        text: &str,
        kind: TemplateKind,
        limits: &Limits,
        program: Option<&Arc<Program>>,
    ) -> Result<Template, CompileError> {
        Self::build(text, kind, limits, program).map_err(|fault| CompileError::new(fault, text))
    }

    fn build(
        text: &str,
        kind: TemplateKind,
        limits: &Limits,
        program: Option<&Arc<Program>>,
    ) -> Result<Template, Fault> {
        if text.len() > limits.template_bytes {
            let message =
                format!("template of {} bytes exceeds the limit of {}", text.len(), limits.template_bytes);
            return Err(Fault::new(codes::TEMPLATE_BYTES, Span::default(), message));
        }
        let pieces = cut(text, kind)?;
        let forms = forms(&pieces, kind);
        let variables = program.map(|program| program.variables.as_slice()).unwrap_or_default();
        let aliases = program.map(|program| program.aliases.as_slice()).unwrap_or_default();
        let mut parts = Vec::new();
        let mut reads_payload = false;
        let mut warnings = Vec::new();
        for (piece, form) in pieces.into_iter().zip(forms) {
            parts.push(match piece {
                Piece::Literal(text) => Part::Literal(text),
                Piece::Source { text, offset } => {
                    // Blanks in front give every place in the expression its place in the template.
                    let text = " ".repeat(offset) + &text;
                    let expr = parse_expression(&text, limits)?;
                    let compiled = check::template_expression(&expr, variables, limits)?;
                    reads_payload |= compiled.reads_payload;
                    warnings
                        .extend(doubts::beside(doubts::template(&expr, &text, aliases), compiled.warnings));
                    Part::Value { expr: compiled.expr, form }
                }
            });
        }
        let constant = match parts.as_slice() {
            [] => Some(Vec::new()),
            [Part::Literal(text)] => Some(text.clone().into_bytes()),
            _ => None,
        };
        let constant = match constant.map(|bytes| finish(kind, bytes)).transpose() {
            Ok(constant) => constant,
            Err(reason) => {
                let message = format!("{} is not valid: {reason}", kind.word());
                return Err(Fault::new(
                    codes::CONSTANT_TEMPLATE,
                    Span { start: 0, end: text.len() },
                    message,
                ));
            }
        };
        let budget = Budget::new(limits);
        let warnings = warnings.into_iter().map(|fault| Warning::new(fault, text)).collect();
        let inner = Inner {
            source: text.into(),
            kind,
            parts,
            reads_payload,
            budget,
            warnings,
            program: program.cloned(),
        };
        Ok(Template { constant, undefined: Undefined::default(), inner: Arc::new(inner) })
    }

    /// The same template with another answer to Undefined.
    #[must_use]
    pub fn with_undefined(self, undefined: Undefined) -> Template {
        Template { undefined, ..self }
    }

    /// Appends the rendered text to `out`; on an error `out` is as before.
    ///
    /// # Errors
    /// A budget, or a result that does not fit the kind.
    pub fn render(
        &self,
        ev: &mut Evaluation<'_>,
        output: Option<&Output>,
        out: &mut Vec<u8>,
    ) -> Result<(), TemplateError> {
        if let Some(constant) = &self.constant {
            out.extend_from_slice(constant);
            return Ok(());
        }
        out.extend_from_slice(&self.run(ev, output, None)?);
        Ok(())
    }

    /// As [`Self::render`], with what became of each `${…}`.
    #[must_use]
    pub fn explain(&self, ev: &mut Evaluation<'_>, output: Option<&Output>) -> TemplateExplanation {
        if let Some(constant) = &self.constant {
            return TemplateExplanation { steps: Vec::new(), rendered: Ok(constant.clone()) };
        }
        let mut steps = Vec::new();
        let rendered = self.run(ev, output, Some(&mut steps));
        TemplateExplanation { steps, rendered }
    }

    fn run(
        &self,
        ev: &mut Evaluation<'_>,
        output: Option<&Output>,
        steps: Option<&mut Vec<Step>>,
    ) -> Result<Vec<u8>, TemplateError> {
        let inner = &*self.inner;
        if inner.reads_payload {
            ev.read_payload(inner.budget.json_depth);
        }
        let random = Random::new(ev.random);
        let rendered = {
            let meter = Meter::new(&inner.budget);
            let exprs = inner.program.as_ref().map(|program| program.variable_exprs()).unwrap_or_default();
            let variables = Variables::new(exprs, ev.rule_seed);
            let trace = Trace::default();
            let scope = Scope {
                trace: steps.is_some().then_some(&trace),
                ..template_scope(ev, &meter, &random, &variables, output)
            };
            let rendered = inner.write(&scope, self.undefined);
            if let Some(steps) = steps {
                let statement = inner.program.as_ref().map(|program| &*program.source).unwrap_or_default();
                *steps = trace.steps(&explain::tree(&inner.source, statement, ev));
            }
            rendered
        };
        ev.random = random.state();
        finish(inner.kind, rendered?)
            .map_err(|reason| TemplateError::Invalid { kind: inner.kind.word(), reason })
    }

    /// What the template's author may not have meant.
    #[must_use]
    pub fn warnings(&self) -> &[Warning] {
        &self.inner.warnings
    }

    /// The template as written.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.inner.source
    }

    /// Whether the template, taken as a topic, may turn out as one that a Topic Filter matches. True when in doubt: a
    /// `${…}` may be any text, unless it is `topic(n)`, which is one level.
    #[must_use]
    pub fn may_match(&self, filter: &str) -> bool {
        reach::reaches(&self.inner.parts, filter)
    }

    /// True when the text holds no `${…}`.
    #[must_use]
    pub fn is_constant(&self) -> bool {
        self.constant.is_some()
    }

    /// The rendered text of a constant template.
    #[must_use]
    pub fn constant(&self) -> Option<&[u8]> {
        self.constant.as_deref()
    }
}

impl Inner {
    fn write<'v>(&'v self, scope: &Scope<'_, 'v>, undefined: Undefined) -> Result<Vec<u8>, TemplateError> {
        if let ([Part::Value { expr: Expr { op: Op::Output, .. }, .. }], Some(output)) =
            (self.parts.as_slice(), scope.output)
        {
            // The output alone is handed on as it is, raw bytes included.
            if matches!(self.kind, TemplateKind::Text) {
                return Ok(output.bytes().to_vec());
            }
        }
        let mut out = Vec::with_capacity(64);
        // Where values stand that are to be left out.
        let mut omitted = Vec::new();
        for part in &self.parts {
            match part {
                Part::Literal(text) => out.extend_from_slice(text.as_bytes()),
                Part::Value { expr, form } => {
                    let value = scope.eval(expr);
                    if value.is_undefined() && !scope.meter.has_failed() {
                        match undefined {
                            Undefined::Fail => {
                                let expression = text(&self.source, expr.span);
                                return Err(TemplateError::Undefined { expression });
                            }
                            Undefined::Omit if *form == Form::JsonValue => omitted.push(out.len()),
                            Undefined::Omit | Undefined::Blank => {}
                        }
                    }
                    write_value(&value, *form, scope, &mut out);
                }
            }
            scope.meter.build(out.len());
        }
        match scope.meter.take_error() {
            Some(error) => Err(TemplateError::Evaluation(error)),
            None if omitted.is_empty() => Ok(out),
            None => Ok(without(&out, &omitted)),
        }
    }
}

/// A JSON text without the members and elements whose values begin at these places, as compact JSON.
///
/// The text is what a JSON template was rendered to, so it is JSON; should it ever not be, it stays as it is. When the
/// whole text is one value to be left out, nothing stays.
fn without(text: &[u8], omitted: &[usize]) -> Vec<u8> {
    let document = std::str::from_utf8(text).ok().and_then(|text| Document::scan_text(text, RENDERED_DEPTH));
    let Some(document) = document else { return text.to_vec() };
    let mut out = Vec::with_capacity(text.len());
    if let Some(root) = document.root() {
        root.write_if(&|node| omitted.binary_search(&node.start()).is_err(), &mut out);
    }
    out
}

fn write_value(value: &Value<'_>, form: Form, scope: &Scope<'_, '_>, out: &mut Vec<u8>) {
    match (form, value) {
        (Form::JsonValue, value) => {
            value.write_json(out, scope.meter);
        }
        (Form::Plain, Value::Bytes(bytes)) => out.extend_from_slice(bytes),
        (form, value) => {
            let Some(text) = value.to_text(scope.meter) else { return };
            match form {
                Form::Percent => percent(text.as_bytes(), out),
                Form::JsonString => write_escaped(&text, out),
                Form::Plain | Form::JsonValue => out.extend_from_slice(text.as_bytes()),
            }
        }
    }
}

/// Unreserved characters stay [RFC 3986 §2.3].
fn percent(bytes: &[u8], out: &mut Vec<u8>) {
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(byte);
        } else {
            out.extend_from_slice(format!("%{byte:02X}").as_bytes());
        }
    }
}

/// Checks a rendered text against its kind and puts it into its final form.
fn finish(kind: TemplateKind, bytes: Vec<u8>) -> Result<Vec<u8>, String> {
    match kind {
        TemplateKind::Text | TemplateKind::PlainText | TemplateKind::UrlPart => Ok(bytes),
        TemplateKind::Topic => {
            let topic = String::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())?;
            mqtt_protocol::validate_topic_name(&topic).map_err(|error| error.to_string())?;
            Ok(topic.into_bytes())
        }
        TemplateKind::HeaderValue => match bytes.iter().find(|b| matches!(b, b'\r' | b'\n' | 0)) {
            Some(byte) => Err(format!("it holds the byte 0x{byte:02x}")),
            None => Ok(bytes),
        },
        TemplateKind::Integer { min, max } => {
            let text = String::from_utf8_lossy(&bytes);
            match Num::parse_text(text.trim()) {
                Some(Num::Int(value)) if (min..=max).contains(&value) => Ok(value.to_string().into_bytes()),
                _ => Err(format!("{text:.40?} is not a whole number from {min} to {max}")),
            }
        }
        TemplateKind::Boolean => {
            let text = String::from_utf8_lossy(&bytes);
            match text.trim().to_ascii_lowercase().as_str() {
                value @ ("true" | "false") => Ok(value.as_bytes().to_vec()),
                _ => Err(format!("{text:.40?} is neither true nor false")),
            }
        }
    }
}

/// Cuts a template at its `${…}`; neighbouring text is one piece.
fn cut(text: &str, kind: TemplateKind) -> Result<Vec<Piece>, Fault> {
    let mut pieces = Vec::new();
    let mut literal = String::new();
    let mut at = 0;
    if kind == TemplateKind::Topic && text.starts_with("$$") && !text.starts_with("$${") {
        at = 1;
    }
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        let Some(dollar) = rest.find('$') else {
            literal.push_str(rest);
            break;
        };
        let (before, from) = rest.split_at_checked(dollar).unwrap_or((rest, ""));
        literal.push_str(before);
        at += dollar;
        if from.starts_with("$${") {
            literal.push_str("${");
            at += 3;
        } else if from.starts_with("${") {
            let open = Span { start: at, end: at + 2 };
            let length = closing(from.get(2..).unwrap_or("")).ok_or_else(|| {
                Fault::new(codes::UNCLOSED, open, "${ is not closed").with_hint("a literal ${ is written $${")
            })?;
            let source = from.get(2..2 + length).unwrap_or("");
            if source.trim().is_empty() {
                return Err(Fault::new(codes::EMPTY_EXPRESSION, open, "${} holds no expression"));
            }
            if !literal.is_empty() {
                pieces.push(Piece::Literal(std::mem::take(&mut literal)));
            }
            pieces.push(Piece::Source { text: source.to_owned(), offset: at + 2 });
            at += 2 + length + 1;
        } else {
            literal.push('$');
            at += 1;
        }
    }
    if !literal.is_empty() {
        pieces.push(Piece::Literal(literal));
    }
    Ok(pieces)
}

/// Bytes up to the brace that closes an expression: strings are passed over, inner braces counted.
fn closing(text: &str) -> Option<usize> {
    let mut quote = None;
    let mut depth = 0_usize;
    for (at, byte) in text.bytes().enumerate() {
        match (quote, byte) {
            // A doubled quote closes and opens again, which comes to the same.
            (Some(open), byte) if byte == open => quote = None,
            (Some(_), _) => {}
            (None, b'\'' | b'"' | b'`') => quote = Some(byte),
            (None, b'{') => depth += 1,
            (None, b'}') if depth == 0 => return Some(at),
            (None, b'}') => depth -= 1,
            _ => {}
        }
    }
    None
}

/// How each piece's value is written; for a body this decides whether the template is JSON.
fn forms(pieces: &[Piece], kind: TemplateKind) -> Vec<Form> {
    let all = |form| pieces.iter().map(|_| form).collect();
    match kind {
        TemplateKind::UrlPart => return all(Form::Percent),
        TemplateKind::Text => {}
        _ => return all(Form::Plain),
    }
    let mut forms = Vec::with_capacity(pieces.len());
    let mut sample = String::new();
    let mut in_string = false;
    for piece in pieces {
        match piece {
            Piece::Literal(text) => {
                let mut escaped = false;
                for char in text.chars() {
                    match char {
                        '"' if !escaped => in_string = !in_string,
                        _ => {}
                    }
                    escaped = in_string && char == '\\' && !escaped;
                }
                sample.push_str(text);
                forms.push(Form::Plain);
            }
            Piece::Source { .. } if in_string => forms.push(Form::JsonString),
            Piece::Source { .. } => {
                sample.push_str("null");
                forms.push(Form::JsonValue);
            }
        }
    }
    if Document::scan_text(&sample, TEMPLATE_DEPTH).is_some() { forms } else { all(Form::Plain) }
}
