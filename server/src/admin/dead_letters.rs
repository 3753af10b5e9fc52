//! The commands about dead letters.
//!
//! A command that concerns many letters does a bounded step and says behind which letter to go on (`next`, given back as
//! `after`), so that no answer is long, no connection is held for long, and a client can be interrupted at any time. What it
//! answers is safe on disk.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use actions::DropReason;
use actions::dead_letters::{Filter, LetterName, Outlets, RedriveError, Step};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use store::{CommitToken, Store as _};
use tokio::time::timeout;

use super::protocol::{Code, Refusal, from_object};
use super::{Services, now_ms, view};

/// Letters in an answer where the request doesn't say how many.
const LIMIT_DEFAULT: usize = 100;
/// Most letters in an answer.
const LIMIT_MAX: usize = 1_000;
/// Bytes of what is listed past which an answer has no more.
pub(super) const LIST_BYTES_MAX: usize = 1 << 20;
/// How long an answer waits for the disk.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(30);

/// Which letters are meant.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct FilterParams {
    rule: Option<String>,
    action: Option<String>,
    cause: Option<String>,
    since_ms: Option<i64>,
    until_ms: Option<i64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListParams {
    #[serde(default)]
    pub(crate) filter: Map<String, Value>,
    #[serde(default)]
    pub(crate) after: Option<String>,
    #[serde(default)]
    pub(crate) limit: Option<usize>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ShowParams {
    pub(crate) name: String,
}

/// One letter by its name, or those of a filter. An empty filter means all, and has to be there to say so.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChangeParams {
    #[serde(default)]
    pub(crate) name: Option<String>,
    #[serde(default)]
    pub(crate) filter: Option<Map<String, Value>>,
    #[serde(default)]
    pub(crate) after: Option<String>,
}

enum Change {
    One(LetterName),
    Many(Filter, Option<LetterName>),
}

#[derive(Clone, Copy)]
pub(crate) enum Verb {
    Redrive,
    Drop,
}

impl Services {
    pub(crate) async fn list(self: &Arc<Self>, params: ListParams) -> Result<Value, Refusal> {
        self.blocking(move |services| services.list_letters(params)).await
    }

    pub(crate) async fn show(self: &Arc<Self>, params: ShowParams) -> Result<Value, Refusal> {
        self.blocking(move |services| services.show_letter(&params)).await
    }

    fn list_letters(&self, params: ListParams) -> Result<Value, Refusal> {
        let filter = read_filter(params.filter)?;
        let after = params.after.as_deref().map(name).transpose()?;
        let limit = params.limit.unwrap_or(LIMIT_DEFAULT);
        if !(1..=LIMIT_MAX).contains(&limit) {
            return Err(Refusal::new(
                Code::Params,
                format!("limit: expected 1 to {LIMIT_MAX}, given {limit}"),
            ));
        }
        let mut letters = Vec::new();
        let mut bytes = 0;
        let next = self
            .letters
            .scan(&filter, after.as_ref(), |found| {
                let letter = view::summary(&found);
                bytes += letter.to_string().len();
                letters.push(letter);
                if letters.len() < limit && bytes < LIST_BYTES_MAX {
                    ControlFlow::Continue(())
                } else {
                    ControlFlow::Break(())
                }
            })
            .map_err(|error| refusal(&RedriveError::Read(error)))?;
        Ok(json!({ "letters": letters, "next": next.map(|name| name.to_string()) }))
    }

    fn show_letter(&self, params: &ShowParams) -> Result<Value, Refusal> {
        let name = name(&params.name)?;
        let found = self.letters.find(&name).map_err(|error| refusal(&RedriveError::Read(error)))?;
        let missing = || refusal(&RedriveError::Missing { name: name.clone() });
        found.as_ref().map(view::whole).ok_or_else(missing)
    }

    pub(crate) async fn change_letters(
        self: &Arc<Self>,
        verb: Verb,
        params: ChangeParams,
    ) -> Result<Value, Refusal> {
        let change = params.read()?;
        let step = self.blocking(move |services| services.step(verb, &change)).await?;
        self.safe(step.token).await?;
        let refused: Vec<_> = step
            .refused
            .iter()
            .map(|(name, why)| json!({ "name": name.to_string(), "message": why }))
            .collect();
        Ok(json!({
            "done": step.done,
            "refused": refused,
            "next": step.next.map(|name| name.to_string()),
        }))
    }

    fn step(&self, verb: Verb, change: &Change) -> Result<Step, Refusal> {
        let outlets: &dyn Outlets = &*self.rules;
        let one = |token: CommitToken| Step { done: 1, token, ..Step::default() };
        let step = match (verb, change) {
            (Verb::Redrive, Change::One(name)) => self.letters.redrive(name, outlets, now_ms()).map(one),
            (Verb::Drop, Change::One(name)) => self.letters.drop_letter(name).map(one),
            (Verb::Redrive, Change::Many(filter, after)) => {
                self.letters.redrive_step(filter, after.as_ref(), outlets, now_ms())
            }
            (Verb::Drop, Change::Many(filter, after)) => self.letters.drop_step(filter, after.as_ref()),
        };
        step.map_err(|error| refusal(&error))
    }

    /// Waits until what was appended is on disk.
    async fn safe(&self, token: CommitToken) -> Result<(), Refusal> {
        let committed = std::future::poll_fn(|context| {
            if self.store.committed() >= token {
                return std::task::Poll::Ready(());
            }
            self.store.wake_when_committed(token, context.waker());
            std::task::Poll::Pending
        });
        timeout(COMMIT_TIMEOUT, committed).await.map_err(|_| {
            let seconds = COMMIT_TIMEOUT.as_secs();
            Refusal::new(Code::Store, format!("the store has not confirmed it within {seconds} seconds"))
        })
    }
}

fn read_filter(object: Map<String, Value>) -> Result<Filter, Refusal> {
    let read = from_object(object);
    let FilterParams { rule, action, cause, since_ms, until_ms } =
        read.map_err(|error| Refusal::new(Code::Params, format!("filter: {error}")))?;
    let cause = cause.map(|cause| read_cause(&cause)).transpose()?;
    Ok(Filter { rule, action, cause, since_ms, until_ms })
}

impl ChangeParams {
    fn read(self) -> Result<Change, Refusal> {
        match (self.name, self.filter, self.after) {
            (Some(text), None, None) => Ok(Change::One(name(&text)?)),
            (None, Some(filter), after) => {
                Ok(Change::Many(read_filter(filter)?, after.as_deref().map(name).transpose()?))
            }
            _ => Err(Refusal::new(Code::Params, "expected a name, or a filter and where to go on after")),
        }
    }
}

fn name(text: &str) -> Result<LetterName, Refusal> {
    text.parse().map_err(|error| Refusal::new(Code::Params, format!("{error}")))
}

fn read_cause(text: &str) -> Result<DropReason, Refusal> {
    DropReason::ALL.into_iter().find(|reason| reason.as_str() == text).ok_or_else(|| {
        let all: Vec<_> = DropReason::ALL.iter().map(|reason| reason.as_str()).collect();
        Refusal::new(Code::Params, format!("cause: expected one of {}", all.join(", ")))
    })
}

fn refusal(error: &RedriveError) -> Refusal {
    let code = match error {
        RedriveError::Missing { .. } => Code::Missing,
        RedriveError::Store(_) => Code::Store,
        RedriveError::Read(_) => Code::Read,
        _ => Code::Refused,
    };
    Refusal::new(code, crate::cli::chain(error))
}
