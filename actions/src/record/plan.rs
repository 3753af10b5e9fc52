//! From the settings of an action to the record for one message.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{FIELD_NAME_BYTES_MAX, FIELDS_MAX, Record, RecordKind};
use crate::config::BodyFormat;
use crate::error::{ActionConfigError, RenderError};
use crate::plan::{Renderer, Slot, TemplateHandle, Templates, is_literal};
use crate::text::excerpt;

/// Longest rendered value of a field in bytes.
const FIELD_VALUE_BYTES_MAX: usize = 64 << 10;

/// What may stand in a part of an address.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PartRule {
    /// Most bytes.
    pub(crate) bytes_max: usize,
    /// Says what was expected of a text that doesn't fit.
    pub(crate) check: fn(&str) -> Result<(), &'static str>,
}

/// A checked action that makes records.
#[derive(Debug)]
pub(crate) struct RecordPlan {
    kind: RecordKind,
    address: Vec<Part>,
    key: Option<TemplateHandle>,
    fields: Vec<(String, TemplateHandle)>,
    payload: Payload,
}

#[derive(Debug)]
enum Part {
    Fixed(String),
    Template(TemplateHandle, PartRule),
}

#[derive(Debug)]
enum Payload {
    Output,
    Template(TemplateHandle),
    /// Everything is said by the fields.
    Empty,
}

/// Makes a plan, key by key.
pub(crate) struct RecordPlanBuilder<'t> {
    action: String,
    templates: &'t mut Templates,
    plan: RecordPlan,
}

impl<'t> RecordPlanBuilder<'t> {
    pub(crate) fn new(kind: RecordKind, action: &str, templates: &'t mut Templates) -> Self {
        let plan =
            RecordPlan { kind, address: Vec::new(), key: None, fields: Vec::new(), payload: Payload::Output };
        Self { action: action.to_owned(), templates, plan }
    }

    fn fault(&self, field: &str, problem: impl Into<String>) -> ActionConfigError {
        ActionConfigError::field_error(&self.action, field, problem)
    }

    /// The next part of the address, that no message changes.
    pub(crate) fn fixed(mut self, text: &str) -> Self {
        self.plan.address.push(Part::Fixed(text.to_owned()));
        self
    }

    /// The next part of the address, a template.
    pub(crate) fn part(mut self, text: &str, rule: PartRule) -> Result<Self, ActionConfigError> {
        let field = self.plan.kind.parts().get(self.plan.address.len()).copied().unwrap_or("address");
        if is_literal(text) {
            if text.len() > rule.bytes_max {
                let (given, max) = (text.len(), rule.bytes_max);
                return Err(self.fault(field, format!("{given} bytes, more than the limit of {max}")));
            }
            (rule.check)(text).map_err(|expected| self.fault(field, expected))?;
        }
        let handle = self.templates.add(field, text, Slot::PlainText);
        self.plan.address.push(Part::Template(handle, rule));
        Ok(self)
    }

    /// Named values. `slot`: what each is rendered into; `check_name` says what was expected of a name that doesn't fit.
    pub(crate) fn fields(
        mut self,
        fields: &BTreeMap<String, String>,
        slot: Slot,
        check_name: fn(&str) -> Result<(), &'static str>,
    ) -> Result<Self, ActionConfigError> {
        let what = self.plan.kind.fields();
        if fields.len() > FIELDS_MAX {
            let given = fields.len();
            return Err(self.fault(what, format!("{given} given, more than the limit of {FIELDS_MAX}")));
        }
        for (name, text) in fields {
            let field = format!("{what}.{}", excerpt(name.as_bytes(), 64));
            if !(1..=FIELD_NAME_BYTES_MAX).contains(&name.len()) {
                return Err(
                    self.fault(&field, format!("expected a name of 1 to {FIELD_NAME_BYTES_MAX} bytes"))
                );
            }
            check_name(name).map_err(|expected| self.fault(&field, expected))?;
            self.plan.fields.push((name.clone(), self.templates.add(field, text, slot)));
        }
        Ok(self)
    }

    /// The payload; without a template the rule's output.
    pub(crate) fn payload(mut self, text: Option<&String>, format: BodyFormat) -> Self {
        let slot = match format {
            BodyFormat::Auto => Slot::Text,
            BodyFormat::Text => Slot::PlainText,
        };
        if let Some(text) = text {
            let field = self.plan.kind.payload();
            self.plan.payload = Payload::Template(self.templates.add(field, text, slot));
        }
        self
    }

    /// No payload: the fields say everything.
    pub(crate) fn no_payload(mut self) -> Self {
        self.plan.payload = Payload::Empty;
        self
    }

    pub(crate) fn build(self) -> RecordPlan {
        self.plan
    }
}

impl RecordPlan {
    pub(crate) fn render(&self, renderer: &mut dyn Renderer) -> Result<Record, RenderError> {
        let mut address = Vec::with_capacity(self.address.len());
        for part in &self.address {
            address.push(match part {
                Part::Fixed(text) => text.clone(),
                Part::Template(handle, rule) => {
                    let text = handle.text(renderer)?;
                    limit(handle, text.len(), rule.bytes_max)?;
                    (rule.check)(&text).map_err(|expected| handle.misfit(expected))?;
                    text
                }
            });
        }
        let key = self.key.as_ref().map(|handle| handle.bytes(renderer)).transpose()?;
        if let (Some(handle), Some(key)) = (&self.key, &key) {
            limit(handle, key.len(), FIELD_VALUE_BYTES_MAX)?;
        }
        let mut fields = Vec::with_capacity(self.fields.len());
        for (name, handle) in &self.fields {
            let value = handle.bytes(renderer)?;
            limit(handle, value.len(), FIELD_VALUE_BYTES_MAX)?;
            fields.push((name.clone(), Bytes::from(value)));
        }
        let payload = match &self.payload {
            Payload::Output => Bytes::copy_from_slice(renderer.output().bytes),
            Payload::Template(handle) => Bytes::from(handle.bytes(renderer)?),
            Payload::Empty => Bytes::new(),
        };
        Ok(Record { kind: self.kind, address, key: key.map(Bytes::from), fields, payload })
    }
}

fn limit(handle: &TemplateHandle, bytes: usize, limit: usize) -> Result<(), RenderError> {
    if bytes <= limit {
        return Ok(());
    }
    Err(RenderError::TooLarge { field: handle.field().to_owned(), bytes, limit })
}
