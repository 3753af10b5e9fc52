//! What a case did against what it expects: everything that is given must hold.
//!
//! With several messages the outcome fields look at all their outputs, one after the other.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::super::parameters::Sent;
use super::compare::{Comparison, shortened};
use super::json::Json;
use super::model::{Expected, Stage};
use super::run::{Answer, Fault, Ran, Row};
use crate::config::suggest;

/// Says in one line what does not hold; `None`: everything does.
pub(super) fn fault_of(expected: &Expected, ran: &Ran) -> Option<String> {
    Judge { expected, ran }.judge().err()
}

struct Judge<'j> {
    expected: &'j Expected,
    ran: &'j Ran,
}

impl Judge<'_> {
    fn judge(&self) -> Result<(), String> {
        self.error()?;
        self.no_match()?;
        self.outputs()?;
        self.sequence()?;
        self.keys()?;
        self.bytes()?;
        self.rendered()?;
        self.actions()
    }

    fn error(&self) -> Result<(), String> {
        match (self.expected.error, &self.ran.error) {
            (false, None) => Ok(()),
            (false, Some(fault)) => {
                Err(format!("expected no error, one of stage {} came: {}", fault.stage(), fault.message))
            }
            (true, None) => {
                let stage = self.expected.error_stage.map(|stage| format!(" of stage {}", stage.word()));
                Err(format!("expected an error{}, {} came", stage.unwrap_or_default(), self.what_came()))
            }
            (true, Some(fault)) => self.error_of(fault),
        }
    }

    /// Whether an error that was expected is the right one.
    fn error_of(&self, fault: &Fault) -> Result<(), String> {
        if let Some(stage) = self.expected.error_stage
            && !is_of(fault, stage)
        {
            let (wanted, came) = (stage.word(), fault.stage());
            return Err(format!(
                "expected an error of stage {wanted}, one of stage {came} came: {}",
                fault.message
            ));
        }
        match (&self.expected.error_code, fault.code.unwrap_or("no code")) {
            (Some(wanted), came) if wanted != came => {
                Err(format!("expected the error {wanted}, {came} came: {}", fault.message))
            }
            _ => Ok(()),
        }
    }

    fn no_match(&self) -> Result<(), String> {
        let other = self.ran.answers.iter().any(|answer| answer.outcome != "no_match");
        if self.expected.no_match && (other || self.ran.answers.is_empty()) {
            return Err(format!("expected no match, {} came", self.what_came()));
        }
        Ok(())
    }

    fn outputs(&self) -> Result<(), String> {
        if let Some(wanted) = &self.expected.output {
            let row = self.one_row(|| shortened(&wanted.text()))?;
            self.same(wanted, row)?;
        }
        let Some(wanted) = &self.expected.rows else { return Ok(()) };
        let rows = self.rows();
        if wanted.len() != rows.len() {
            return Err(format!("expected {} outputs, {} came", wanted.len(), self.what_came()));
        }
        for (place, (wanted, row)) in wanted.iter().zip(rows).enumerate() {
            self.same(wanted, row).map_err(|why| format!("output {}: {why}", place + 1))?;
        }
        Ok(())
    }

    fn sequence(&self) -> Result<(), String> {
        let Some(wanted) = &self.expected.sequence else { return Ok(()) };
        if wanted.len() != self.ran.answers.len() {
            let (wanted, came) = (wanted.len(), self.ran.answers.len());
            return Err(format!("expect_seq has {wanted} entries, there are {came} messages"));
        }
        for (place, (wanted, answer)) in wanted.iter().zip(&self.ran.answers).enumerate() {
            self.entry(wanted, answer).map_err(|why| format!("message {}: {why}", place + 1))?;
        }
        Ok(())
    }

    fn entry(&self, wanted: &Json, answer: &Answer) -> Result<(), String> {
        let is_empty = |row: &&Row| matches!(&row.json, Some(Json::Object(members)) if members.is_empty());
        let row = answer.row.as_ref().filter(|row| !(self.expected.omit_empty && is_empty(row)));
        match (wanted, row) {
            (Json::Null, None) => Ok(()),
            (Json::Null, Some(row)) => Err(format!("expected no output, {} came", shown(row))),
            (wanted, Some(row)) => self.same(wanted, row),
            (wanted, None) => {
                Err(format!("expected {}, {} came", shortened(&wanted.text()), outcome_words(answer)))
            }
        }
    }

    fn keys(&self) -> Result<(), String> {
        if let Some(keys) = &self.expected.absent {
            let rows = self.rows();
            if rows.is_empty() {
                return Err(format!("expected an object without some keys, {} came", self.what_came()));
            }
            for row in rows {
                let Some(object @ Json::Object(_)) = &row.json else {
                    return Err(format!("expected an object without some keys, {} came", shown(row)));
                };
                if let Some(key) = keys.iter().find(|key| object.member(key).is_some()) {
                    return Err(format!("expected no `{key}`, {} came", shown(row)));
                }
            }
        }
        let Some(patterns) = &self.expected.patterns else { return Ok(()) };
        let row = self.one_row(|| "an object".to_owned())?;
        for (key, pattern) in patterns {
            let Some(value) = row.json.as_ref().and_then(|json| json.member(key)) else {
                return Err(format!("`{key}`: expected to match {pattern}, it is missing"));
            };
            let text = match value {
                Json::String(text) => text.clone(),
                other => other.text(),
            };
            if !pattern.is_match(&text) {
                return Err(format!("`{key}`: expected to match {pattern}, {} came", shortened(&text)));
            }
        }
        Ok(())
    }

    fn bytes(&self) -> Result<(), String> {
        if let Some(wanted) = &self.expected.payload_text {
            let row = self.one_row(|| format!("the text {wanted:?}"))?;
            same_text(wanted, &row.bytes)?;
        }
        let Some(wanted) = &self.expected.raw else { return Ok(()) };
        let row = self.one_row(|| format!("the bytes {}", STANDARD.encode(wanted)))?;
        if row.bytes != *wanted {
            let (wanted, came) = (STANDARD.encode(wanted), STANDARD.encode(&row.bytes));
            return Err(format!("expected the bytes {}, {} came", shortened(&wanted), shortened(&came)));
        }
        Ok(())
    }

    fn rendered(&self) -> Result<(), String> {
        let (wanted, pattern) = (&self.expected.text, &self.expected.text_pattern);
        if wanted.is_none() && pattern.is_none() {
            return Ok(());
        }
        let Some(rendered) = &self.ran.rendered else {
            return Err(format!("the template was not rendered: {} came", self.what_came()));
        };
        if let Some(wanted) = wanted {
            same_text(wanted, rendered).map_err(|why| format!("template: {why}"))?;
        }
        let text = String::from_utf8_lossy(rendered);
        match pattern {
            Some(pattern) if !pattern.is_match(&text) => {
                Err(format!("template: expected to match {pattern}, {:?} came", shortened(&text)))
            }
            _ => Ok(()),
        }
    }

    fn actions(&self) -> Result<(), String> {
        for (name, wanted) in self.expected.actions.iter().flatten() {
            let Some((_, came)) = self.ran.actions.iter().find(|(action, _)| action == name) else {
                return Err(format!("action \"{name}\" sends nothing: {} came", self.what_came()));
            };
            for (parameter, value) in wanted {
                self.parameter(parameter, value, came)
                    .map_err(|why| format!("action \"{name}\", {parameter}: {why}"))?;
            }
        }
        Ok(())
    }

    fn parameter(&self, name: &str, wanted: &Json, came: &[Sent]) -> Result<(), String> {
        let is_same = |(other, _): &&Sent| match name.strip_prefix("headers.") {
            Some(_) => other.eq_ignore_ascii_case(name),
            None => other == name,
        };
        let Some((_, value)) = came.iter().find(is_same) else {
            let hint = suggest(name, came.iter().map(|(name, _)| name.as_str())).unwrap_or_default();
            return Err(format!("there is no such parameter: {hint}"));
        };
        if let Json::String(text) = wanted {
            return same_text(text, value);
        }
        let text = String::from_utf8_lossy(value);
        match Json::parse(&text) {
            Ok(json) => self.compare(wanted, &json),
            Err(_) => Err(format!("expected {}, {:?} came", shortened(&wanted.text()), shortened(&text))),
        }
    }

    fn compare(&self, wanted: &Json, came: &Json) -> Result<(), String> {
        let how = Comparison { subset: self.expected.subset, tolerance: self.expected.tolerance };
        how.difference(wanted, came).map_or(Ok(()), Err)
    }

    fn same(&self, wanted: &Json, row: &Row) -> Result<(), String> {
        match &row.json {
            Some(json) => self.compare(wanted, json),
            None => Err(format!("expected {}, {} came", shortened(&wanted.text()), shown(row))),
        }
    }

    fn rows(&self) -> Vec<&Row> {
        self.ran.answers.iter().filter_map(|answer| answer.row.as_ref()).collect()
    }

    fn one_row(&self, wanted: impl Fn() -> String) -> Result<&Row, String> {
        match self.rows().as_slice() {
            [row] => Ok(row),
            _ => Err(format!("expected {}, {} came", wanted(), self.what_came())),
        }
    }

    /// What came, in words.
    fn what_came(&self) -> String {
        match (self.rows().as_slice(), self.ran.answers.as_slice()) {
            ([row], [_]) => shown(row),
            ([], [answer]) => outcome_words(answer).to_owned(),
            ([], []) => match &self.ran.error {
                Some(fault) => format!("an error of stage {}: {}", fault.stage(), fault.message),
                None => "nothing".to_owned(),
            },
            (rows, messages) => format!("{} outputs of {} messages", rows.len(), messages.len()),
        }
    }
}

/// Whether an error is one of that stage. A template that does not compile makes its rule be refused.
fn is_of(fault: &Fault, stage: Stage) -> bool {
    fault.stage == Some(stage) || (stage == Stage::Create && fault.at_creation)
}

fn outcome_words(answer: &Answer) -> &'static str {
    match answer.outcome {
        "no_match" => "no match",
        "no_output" => "no output",
        _ => "an error",
    }
}

fn shown(row: &Row) -> String {
    match &row.json {
        Some(json) => shortened(&json.text()),
        None => shortened(&format!("the bytes {}", STANDARD.encode(&row.bytes))),
    }
}

fn same_text(wanted: &str, came: &[u8]) -> Result<(), String> {
    if wanted.as_bytes() == came {
        return Ok(());
    }
    let came = String::from_utf8_lossy(came);
    Err(format!("expected the text {:?}, {:?} came", shortened(wanted), shortened(&came)))
}
