//! What an action would be asked for a message that somebody has mended, by the rule as it is now.
//!
//! It goes through the code that live messages go through; nothing is counted, and nothing is sent.

use actions::dead_letters::DeadLetter;
use actions::delivery::outbox::Body;
use actions::{Owing, Request};
use rules_sql::{Evaluation, Outcome};
use store::StoredMessage;

use super::message::KeptMessage;
use super::origin::Origin;
use super::pipeline::RulePipeline;

impl RulePipeline {
    /// The body of an outbox's item for this message, its age counting from `now_ms`. `letter` is what became of the message as
    /// it was: whose it was is taken from there.
    ///
    /// # Errors
    /// In words, why the action is asked for nothing.
    pub(crate) fn owed_for(
        &self,
        outbox: &str,
        message: &StoredMessage,
        letter: &DeadLetter,
        now_ms: i64,
    ) -> Result<Vec<u8>, String> {
        let (name, action) = outbox.split_once('/').unwrap_or((outbox, ""));
        let active = self.shared.active.load();
        let rule = active.rules.iter().find(|rule| rule.name() == name);
        let rule = rule.ok_or_else(|| format!("the rule \"{name}\" doesn't run"))?;
        let place = rule.loaded.actions.iter().position(|loaded| loaded.config.name() == action);
        let Some((place, (loaded, running))) = place.zip(rule.running(action)) else {
            return Err(format!("the rule \"{name}\" has no action \"{action}\" that a message goes to"));
        };
        let outlet = running.outlet.as_ref().filter(|outlet| outlet.is_durable());
        let outlet = outlet.ok_or_else(|| format!("\"{outbox}\" has no queue on disk"))?;

        let origin = Body::decode(&letter.request).and_then(|body| Origin::decode(body.origin));
        let trail = origin.as_ref().map(|origin| self.shared.trail(&origin.trail)).unwrap_or_default();
        let message = KeptMessage::of_stored(message, origin.as_ref(), trail);
        let facts = message.facts();
        let event = facts.event(&self.shared.secret);
        let mut evaluation = Evaluation::new(&event, self.shared.secret.seed(facts.id));
        evaluation.begin_rule_again(rule.id);
        let explained = rule.loaded.explain(&mut evaluation);
        let request = match &explained.sql.outcome {
            Outcome::NoMatch => return Err(format!("the rule \"{name}\" doesn't match the message")),
            Outcome::NoOutput => return Err(format!("the rule \"{name}\" has no output for the message")),
            Outcome::Failed(error) => {
                return Err(format!("the rule \"{name}\" fails for the message: {error}"));
            }
            Outcome::Output(_) if explained.is_skipped => {
                return Err(format!("the rule \"{name}\" passes over the message: its output is empty"));
            }
            Outcome::Output(_) => explained.actions.into_iter().nth(place).map(|action| action.request),
        };
        let request: Request = match request {
            Some(Ok(request)) => request,
            Some(Err(error)) => return Err(format!("no request can be made of the message: {error}")),
            None => {
                return Err(format!("the rule \"{name}\" has no action \"{action}\" that a message goes to"));
            }
        };
        let (origin, order) = (self.shared.origin(&facts), loaded.plan.order_by());
        let body = match outlet.owe(facts.id, facts.received_at_ms, order, &origin, &request, None) {
            Owing::Outbox { body, .. } => body,
            Owing::Nowhere { error, .. } | Owing::Refused { error } => return Err(error),
            _ => return Err(format!("\"{outbox}\" has no queue on disk")),
        };
        let owed = Body::decode(&body).map(|owed| Body { redriven_at_ms: Some(now_ms), ..owed }.encode());
        owed.ok_or_else(|| "the request can't be kept".to_owned())
    }
}
