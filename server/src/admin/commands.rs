//! Which command is whose.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use super::Services;
use super::counters::CountersParams;
use super::dead_letters::{ListParams, ShowParams, Verb};
use super::protocol::{Code, Refusal, Request};
use super::rules::{ApplyParams, Deed, ListParams as ListRulesParams, NameParams, RollbackParams};
use super::socket::Peer;

/// Of a command that takes none.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NoParams {}

impl Services {
    pub(super) async fn carry_out(self: &Arc<Self>, request: Request, peer: Peer) -> Result<Value, Refusal> {
        match request.command.as_str() {
            "dead_letters.list" => {
                let params: ListParams = request.params()?;
                self.list(params).await
            }
            "dead_letters.show" => {
                let params: ShowParams = request.params()?;
                self.show(params).await
            }
            "dead_letters.redrive" => self.change_letters(Verb::Redrive, request.params()?).await,
            "dead_letters.drop" => self.change_letters(Verb::Drop, request.params()?).await,
            "rules.counters" => {
                let params: CountersParams = request.params()?;
                self.blocking(move |services| services.counters(&params)).await
            }
            "rules.list" => {
                let params: ListRulesParams = request.params()?;
                self.blocking(move |services| services.list_rules(&params)).await
            }
            "rules.show" => {
                let params: NameParams = request.params()?;
                self.blocking(move |services| services.show_rule(&params)).await
            }
            "rules.apply" => {
                let params: ApplyParams = request.params()?;
                self.blocking(move |services| services.apply_rules(&params, peer)).await
            }
            "rules.suspend" => self.do_to_rule(Deed::Suspend, request, peer).await,
            "rules.resume" => self.do_to_rule(Deed::Resume, request, peer).await,
            "rules.enable" => self.do_to_rule(Deed::Enable, request, peer).await,
            "rules.disable" => self.do_to_rule(Deed::Disable, request, peer).await,
            "rules.remove" => self.do_to_rule(Deed::Remove, request, peer).await,
            "rules.versions" => {
                let params: NameParams = request.params()?;
                self.blocking(move |services| services.rule_versions(&params)).await
            }
            "rules.rollback" => {
                let params: RollbackParams = request.params()?;
                self.blocking(move |services| services.roll_rule_back(&params, peer)).await
            }
            "rules.export" => {
                let NoParams {} = request.params()?;
                self.blocking(Self::export_rules).await
            }
            _ => Err(Refusal::new(
                Code::UnknownCommand,
                "expected one of dead_letters.list, .show, .redrive and .drop, or one of rules.apply, .counters, .disable, .enable, .export, .list, .remove, .resume, .rollback, .show, .suspend and .versions",
            )),
        }
    }

    async fn do_to_rule(
        self: &Arc<Self>,
        deed: Deed,
        request: Request,
        peer: Peer,
    ) -> Result<Value, Refusal> {
        let params: NameParams = request.params()?;
        self.blocking(move |services| services.change_rule(params, deed, peer)).await
    }

    /// Runs what waits for the disk where that is allowed.
    pub(super) async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let services = Arc::clone(self);
        let done = tokio::task::spawn_blocking(move || work(&services)).await;
        done.unwrap_or_else(|error| {
            tracing::error!(%error, "a command of the administration broke off");
            Err(Refusal::new(Code::Internal, "the command broke off; the gateway's log says more"))
        })
    }
}
