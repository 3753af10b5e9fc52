//! Connectors: where they lead, who uses them, how their actions fare, and a test of the way there.
//!
//! A connector's health is that of the actions that use it: they are the ones who talk to the far side. Neither paths nor
//! credentials are shown.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::action_queues::{ActionError, ago, millis};
use super::audit::Change;
use super::extract::{Json, Path, Query};
use super::paging::{cursor, limit, place};
use super::problem::{Kind, Problem};
use crate::rules::{ActionEntry, ActionState};
use actions::Connector;
use actions::connectors::ConnectorTest;

/// Which connectors are wanted.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ConnectorsQuery {
    /// Most entries, 1 to 1,000; 100 where nothing is said.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// `next` of the page before.
    after: Option<String>,
}

/// A page of connectors, by name.
#[derive(Serialize, ToSchema)]
pub(super) struct ConnectorPage {
    connectors: Vec<ConnectorInfo>,
    /// Where the next page begins; null: there is none.
    next: Option<String>,
}

/// How the actions of a connector fare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum ConnectorHealth {
    /// The far side takes what they send.
    Ok,
    /// One of them waits because an attempt failed.
    Failing,
    /// None of them has sent anything since it began.
    Unknown,
}

/// A connector of the configuration.
#[derive(Serialize, ToSchema)]
#[schema(as = Connector)]
pub(super) struct ConnectorInfo {
    name: String,
    /// Its `type`.
    kind: &'static str,
    /// Origins or servers, or the hosts that its actions may name: no paths, no credentials.
    addresses: Vec<String>,
    /// The actions that name it, as `rule/action`; the first 100.
    used_by: Vec<String>,
    /// How many actions name it.
    uses: usize,
    health: ConnectorHealth,
    /// Why an action waits, in words; null: none does.
    cause: Option<String>,
    /// When the far side confirmed something last, milliseconds since 1970; null: it hasn't since the actions began.
    last_delivered_at_ms: Option<i64>,
    /// The last attempt that failed since the actions began; null: none has.
    last_error: Option<ActionError>,
}

/// Actions that one entry names at most.
const USED_BY_SHOWN_MAX: usize = 100;

/// What came of a connection test.
#[derive(Serialize, ToSchema)]
#[schema(as = ConnectorTest)]
pub(super) struct ConnectorTested {
    /// Whether the far side took us.
    passed: bool,
    /// Why nothing could be tried; null: something was.
    note: Option<&'static str>,
    /// What was tried, in order. What follows a stage that failed isn't.
    steps: Vec<TestedStep>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct TestedStep {
    /// As `host:port`.
    server: String,
    /// `name`, `address`, `connect`, `tls` or `authentication`.
    stage: &'static str,
    passed: bool,
    /// What was found, or why it failed.
    detail: String,
    took_ms: u64,
}

/// How the actions of one connector fare, taken together.
#[derive(Default)]
struct Uses {
    count: usize,
    names: Vec<String>,
    cause: Option<String>,
    is_failing: bool,
    /// How long ago.
    delivered: Option<std::time::Duration>,
    error: Option<actions::LastError>,
}

impl Uses {
    fn add(&mut self, entry: &ActionEntry) {
        self.count += 1;
        if self.names.len() < USED_BY_SHOWN_MAX {
            self.names.push(entry.full_name());
        }
        let Some(delivery) = &entry.delivery else { return };
        if matches!(entry.state, ActionState::Waiting | ActionState::Refused) {
            self.is_failing = true;
            self.cause = self.cause.take().or_else(|| delivery.health.cause.clone());
        }
        // The shorter of the two times since.
        self.delivered = match (self.delivered, delivery.last_delivered) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        if let Some(error) = &delivery.last_error
            && self.error.as_ref().is_none_or(|last| error.age < last.age)
        {
            self.error = Some(error.clone());
        }
    }
}

/// The uses of every connector, by name.
fn uses(api: &Api) -> BTreeMap<String, Uses> {
    let mut uses: BTreeMap<String, Uses> = BTreeMap::new();
    // Nothing is kept of an entry but what is taken from it here.
    let _nothing = api.gateway.book.actions(None, 0, |entry| {
        if let Some(connector) = &entry.connector {
            uses.entry(connector.clone()).or_default().add(entry);
        }
        false
    });
    uses
}

impl ConnectorInfo {
    fn of(name: &str, connector: &Connector, uses: Option<Uses>) -> Self {
        let Uses { count, names, cause, is_failing, delivered, error } = uses.unwrap_or_default();
        let health = match (is_failing, delivered) {
            (true, _) => ConnectorHealth::Failing,
            (false, Some(_)) => ConnectorHealth::Ok,
            (false, None) => ConnectorHealth::Unknown,
        };
        Self {
            name: name.to_owned(),
            kind: connector.kind(),
            addresses: connector.addresses(),
            used_by: names,
            uses: count,
            health,
            cause,
            last_delivered_at_ms: delivered.map(ago),
            last_error: error.map(|last| ActionError { at_ms: ago(last.age), error: last.error }),
        }
    }
}

impl From<ConnectorTest> for ConnectorTested {
    fn from(test: ConnectorTest) -> Self {
        let steps = test.steps.into_iter().map(|step| TestedStep {
            server: step.server,
            stage: step.stage.as_str(),
            passed: step.passed,
            detail: step.detail,
            took_ms: millis(step.took),
        });
        Self { passed: test.passed, note: test.note, steps: steps.collect() }
    }
}

fn missing(name: &str) -> Problem {
    Problem::new(Kind::Missing, format!("there is no connector {name:?}"))
}

/// Lists connectors.
#[utoipa::path(get, path = "/api/v1/connectors", operation_id = "listConnectors", tag = "connectors", params(ConnectorsQuery),
    responses((status = 200, description = "A page of connectors", body = ConnectorPage)))]
pub(super) async fn list_connectors(
    State(api): State<Arc<Api>>,
    Query(query): Query<ConnectorsQuery>,
) -> Result<Json<ConnectorPage>, Problem> {
    let limit = limit(query.limit)?;
    let after: Option<String> = place(query.after.as_deref())?;
    api.blocking(move |api| {
        let connectors = api.gateway.rules().connectors();
        let mut uses = uses(api);
        let behind = |name: &&str| after.as_deref().is_none_or(|after| *name > after);
        let mut names: Vec<&str> = connectors.names().filter(behind).take(limit + 1).collect();
        let has_more = names.len() > limit;
        names.truncate(limit);
        let next = names.last().filter(|_| has_more).map(cursor);
        let shown = names.into_iter().filter_map(|name| {
            connectors.get(name).map(|connector| ConnectorInfo::of(name, connector, uses.remove(name)))
        });
        Ok::<_, Problem>(Json(ConnectorPage { connectors: shown.collect(), next }))
    })
    .await
}

/// Shows a connector.
#[utoipa::path(get, path = "/api/v1/connectors/{name}", operation_id = "getConnector", tag = "connectors",
    params(("name" = String, Path, description = "Name of the connector")),
    responses((status = 200, description = "The connector", body = ConnectorInfo)))]
pub(super) async fn get_connector(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
) -> Result<Json<ConnectorInfo>, Problem> {
    api.blocking(move |api| {
        let connectors = api.gateway.rules().connectors();
        let connector = connectors.get(&name).ok_or_else(|| missing(&name))?;
        Ok::<_, Problem>(Json(ConnectorInfo::of(&name, connector, uses(api).remove(&name))))
    })
    .await
}

/// Tries the way to a connector's far side: name, address, connection, TLS, and who we are, by a request that changes nothing.
#[utoipa::path(post, path = "/api/v1/connectors/{name}/test", operation_id = "testConnector", tag = "connectors",
    params(("name" = String, Path, description = "Name of the connector")),
    responses((status = 200, description = "What came of it", body = ConnectorTested)))]
pub(super) async fn test_connector(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
) -> Result<(Change, Json<ConnectorTested>), Problem> {
    let connector = api.gateway.rules().connectors().get(&name).cloned().ok_or_else(|| missing(&name))?;
    let tested = ConnectorTested::from(connector.test().await);
    Ok((Change::of(name).after(json!({ "passed": tested.passed })), Json(tested)))
}
