//! `[acl.http]`: rules of single clients, from a server that is asked when they come in and again while they are there.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Weak};
use std::time::Duration;

use access::acl::HttpRules;
use access::authentication::Guard;
use actions::TargetPolicy;

use super::{Access, AccessError};
use crate::config::Config;

/// How often rules are looked at for their age.
const LOOK: Duration = Duration::from_secs(1);

/// Keeps requests from where none is needed, whatever the operator's names resolve to: metadata services, link-local and
/// multicast addresses, and this process's own administration. Private addresses are fine: the operator has chosen the URL.
pub(super) fn guard(config: &Config) -> Guard {
    let anywhere = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    let targets = TargetPolicy {
        allow_private: anywhere.map(actions::AddressRange::all_like).into(),
        admin: vec![config.admin.address],
    };
    Guard::new(move |host: &str, target: SocketAddr| {
        targets.check(host, target).map_err(|error| format!("{} is {}", error.address, error.reason))
    })
}

/// Makes what asks, where the configuration has somebody to ask.
pub(super) fn http_rules(config: &Config) -> Result<Option<Arc<HttpRules>>, AccessError> {
    let Some(http) = &config.acl.http else { return Ok(None) };
    let rules = HttpRules::new(&http.settings(guard(config))).map_err(AccessError::AclHttp)?;
    Ok(Some(Arc::new(rules)))
}

/// Asks again for rules that are due, for as long as somebody uses this.
pub(super) async fn keep_fresh(access: Weak<Access>) {
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut running: Option<tokio::task::JoinHandle<bool>> = None;
    loop {
        ticks.tick().await;
        let Some(access) = access.upgrade() else { return };
        let http = access.current.load().http.clone();
        // A round may take long: what is too old meanwhile is let go of all the same.
        let mut is_changed = http.as_ref().is_some_and(|http| http.expire());
        if let Some(ended) = running.take_if(|running| running.is_finished()) {
            is_changed |= ended.await.unwrap_or(false);
        }
        if is_changed {
            // Every session is looked at, which may take a while.
            let access = Arc::clone(&access);
            if let Err(error) = tokio::task::spawn_blocking(move || access.changed()).await {
                tracing::error!(%error, "clients could not be looked at again");
            }
        }
        if let Some(http) = http.filter(|_| running.is_none()) {
            running = Some(tokio::spawn(async move { http.refresh().await }));
        }
    }
}
