//! Which command is whose.

use std::sync::Arc;

use serde_json::Value;

use super::Services;
use super::counters::CountersParams;
use super::dead_letters::{ListParams, ShowParams, Verb};
use super::protocol::{Code, Refusal, Request};
use super::reload::ReloadParams;

impl Services {
    pub(super) async fn carry_out(self: &Arc<Self>, request: Request) -> Result<Value, Refusal> {
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
            "config.reload" => {
                let params: ReloadParams = request.params()?;
                self.blocking(move |services| services.reload(&params)).await
            }
            _ => Err(Refusal::new(
                Code::UnknownCommand,
                "expected config.reload, dead_letters.list, dead_letters.show, dead_letters.redrive, dead_letters.drop or rules.counters",
            )),
        }
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
