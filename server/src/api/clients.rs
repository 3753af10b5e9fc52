//! Clients and their Subscriptions.

use std::sync::Arc;

use axum::extract::State;
use broker::{ClientFilter, ClientInfo, SubscriptionInfo};
use hyper::StatusCode;
use mqtt_protocol::topic::validate_topic_name;
use mqtt_protocol::{ProtocolVersion, RetainHandling};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::audit::Change;
use super::extract::{Json, Path, Query};
use super::gateway::refused;
use super::paging::{cursor, limit, place};
use super::problem::{Kind, Problem};

/// Which clients are wanted.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ClientsQuery {
    /// Part of the Client Identifier.
    search: Option<String>,
    /// Those that are connected, or those that aren't.
    connected: Option<bool>,
    /// User name of whoever is connected.
    username: Option<String>,
    /// Most entries, 1 to 1,000; 100 where nothing is said.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// `next` of the page before.
    after: Option<String>,
}

/// A page of clients, by Client Identifier.
#[derive(Serialize, ToSchema)]
pub(super) struct ClientPage {
    clients: Vec<Client>,
    /// Where the next page begins; null: there is none.
    next: Option<String>,
}

/// A session, and who is connected to it.
#[derive(Serialize, ToSchema)]
pub(super) struct Client {
    client_id: String,
    /// Who is connected; null: nobody is.
    connection: Option<Connection>,
    /// Seconds that the session outlives its connection; null: for ever.
    session_expiry_s: Option<u32>,
    /// Whether the session outlives the process.
    is_durable: bool,
    subscriptions: usize,
    /// Messages that wait in memory.
    queued_messages: usize,
    queued_bytes: u64,
    /// Bytes of those that wait on disk alone, about.
    queued_disk_bytes: u64,
    /// Messages sent and unacknowledged.
    inflight: usize,
    has_will: bool,
}

/// A connection.
#[derive(Serialize, ToSchema)]
pub(super) struct Connection {
    username: Option<String>,
    /// The method that told who it is; null: nobody was asked.
    authenticator: Option<String>,
    groups: Vec<String>,
    /// IP address and port, or `unix`.
    address: String,
    listener: String,
    /// `3.1`, `3.1.1` or `5.0`.
    protocol: &'static str,
    /// Milliseconds since 1970.
    last_heard_at_ms: i64,
}

/// Which Subscriptions are wanted.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct SubscriptionsQuery {
    /// Of this client alone.
    client_id: Option<String>,
    /// Those that messages of this Topic Name go to.
    topic: Option<String>,
    /// Most entries, 1 to 1,000; 100 where nothing is said.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// `next` of the page before.
    after: Option<String>,
}

/// A page of Subscriptions, by client and filter.
#[derive(Serialize, ToSchema)]
pub(super) struct SubscriptionPage {
    subscriptions: Vec<Subscription>,
    /// Where the next page begins; null: there is none.
    next: Option<String>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct Subscription {
    client_id: String,
    /// As the client wrote it, `$share` included.
    filter: String,
    qos: u8,
    no_local: bool,
    retain_as_published: bool,
    /// `send`, `send_if_new` or `do_not_send`.
    retain_handling: &'static str,
    /// Subscription Identifier; null: none.
    identifier: Option<u32>,
}

impl From<ClientInfo> for Client {
    fn from(info: ClientInfo) -> Self {
        let connection = info.connection.map(|connection| Connection {
            username: connection.who.username().map(str::to_owned),
            authenticator: connection.who.identity.authenticator.as_deref().map(str::to_owned),
            groups: connection.who.identity.groups.iter().map(ToString::to_string).collect(),
            address: connection.who.address.to_string(),
            listener: connection.who.listener.to_string(),
            protocol: match connection.version {
                ProtocolVersion::V3_1 => "3.1",
                ProtocolVersion::V3_1_1 => "3.1.1",
                ProtocolVersion::V5 => "5.0",
            },
            last_heard_at_ms: connection.last_heard_at_ms,
        });
        Self {
            client_id: info.client_id,
            connection,
            session_expiry_s: Some(info.session_expiry_s).filter(|seconds| *seconds != u32::MAX),
            is_durable: info.is_durable,
            subscriptions: info.subscriptions,
            queued_messages: info.queued_messages,
            queued_bytes: info.queued_bytes,
            queued_disk_bytes: info.queued_disk_bytes,
            inflight: info.inflight,
            has_will: info.has_will,
        }
    }
}

impl From<SubscriptionInfo> for Subscription {
    fn from(info: SubscriptionInfo) -> Self {
        Self {
            client_id: info.client_id,
            filter: info.filter,
            qos: info.options.qos.level(),
            no_local: info.options.no_local,
            retain_as_published: info.options.retain_as_published,
            retain_handling: match info.options.retain_handling {
                RetainHandling::SendAtSubscribe => "send",
                RetainHandling::SendAtNewSubscribe => "send_if_new",
                RetainHandling::DoNotSend => "do_not_send",
            },
            identifier: Some(info.identifier).filter(|identifier| *identifier != 0),
        }
    }
}

/// Lists clients.
#[utoipa::path(get, path = "/api/v1/clients", operation_id = "listClients", tag = "clients", params(ClientsQuery),
    responses((status = 200, description = "A page of clients", body = ClientPage)))]
pub(super) async fn list_clients(
    State(api): State<Arc<Api>>,
    Query(query): Query<ClientsQuery>,
) -> Result<Json<ClientPage>, Problem> {
    let limit = limit(query.limit)?;
    let after: Option<String> = place(query.after.as_deref())?;
    let filter =
        ClientFilter { contains: query.search, connected: query.connected, username: query.username };
    api.blocking(move |api| {
        let (clients, has_more) = api.gateway.broker.clients(&filter, after.as_deref(), limit);
        let next = clients.last().filter(|_| has_more).map(|last| cursor(&last.client_id));
        let clients = clients.into_iter().map(Client::from).collect();
        Ok::<_, Problem>(Json(ClientPage { clients, next }))
    })
    .await
}

fn no_client(client_id: &str) -> Problem {
    Problem::new(Kind::Missing, format!("there is no client {client_id:?}"))
}

/// Shows a client.
#[utoipa::path(get, path = "/api/v1/clients/{client_id}", operation_id = "getClient", tag = "clients",
    params(("client_id" = String, Path, description = "Client Identifier")),
    responses((status = 200, description = "The client", body = Client)))]
pub(super) async fn get_client(
    State(api): State<Arc<Api>>,
    Path(client_id): Path<String>,
) -> Result<Json<Client>, Problem> {
    let info = api.gateway.broker.client(&client_id);
    info.map(|info| Json(info.into())).ok_or_else(|| no_client(&client_id))
}

/// Closes a client's connection. Its session stays, as long as it is to; its will is published.
#[utoipa::path(post, path = "/api/v1/clients/{client_id}/disconnect", operation_id = "disconnectClient", tag = "clients",
    params(("client_id" = String, Path, description = "Client Identifier")),
    responses((status = 204, description = "It is told to go")))]
pub(super) async fn disconnect_client(
    State(api): State<Arc<Api>>,
    Path(client_id): Path<String>,
) -> Result<(Change, StatusCode), Problem> {
    if api.gateway.broker.disconnect(&client_id) {
        return Ok((Change::of(client_id), StatusCode::NO_CONTENT));
    }
    match api.gateway.broker.client(&client_id) {
        Some(_) => Err(Problem::new(Kind::Conflict, format!("the client {client_id:?} isn't connected"))),
        None => Err(no_client(&client_id)),
    }
}

/// Ends a client's session, its connection too: what it was owed is given up, its will is published.
#[utoipa::path(delete, path = "/api/v1/clients/{client_id}", operation_id = "endSession", tag = "clients",
    params(("client_id" = String, Path, description = "Client Identifier")),
    responses((status = 204, description = "The session is over")))]
pub(super) async fn end_session(
    State(api): State<Arc<Api>>,
    Path(client_id): Path<String>,
) -> Result<(Change, StatusCode), Problem> {
    let before = api.gateway.broker.client(&client_id).map(Client::from);
    if !api.gateway.broker.end_session(&client_id).await.map_err(refused)? {
        return Err(no_client(&client_id));
    }
    let before = before.map(|before| {
        json!({ "subscriptions": before.subscriptions, "queued_messages": before.queued_messages,
                "queued_disk_bytes": before.queued_disk_bytes, "connected": before.connection.is_some() })
    });
    Ok((Change::of(client_id).before(before.unwrap_or_default()), StatusCode::NO_CONTENT))
}

/// Lists Subscriptions.
#[utoipa::path(get, path = "/api/v1/subscriptions", operation_id = "listSubscriptions", tag = "clients",
    params(SubscriptionsQuery), responses((status = 200, description = "A page of Subscriptions", body = SubscriptionPage)))]
pub(super) async fn list_subscriptions(
    State(api): State<Arc<Api>>,
    Query(query): Query<SubscriptionsQuery>,
) -> Result<Json<SubscriptionPage>, Problem> {
    let limit = limit(query.limit)?;
    let after: Option<(String, String)> = place(query.after.as_deref())?;
    if let Some(error) = query.topic.as_deref().and_then(|topic| validate_topic_name(topic).err()) {
        return Err(Problem::new(Kind::Invalid, format!("topic: {error}")));
    }
    api.blocking(move |api| {
        let behind = after.as_ref().map(|(client_id, filter)| (client_id.as_str(), filter.as_str()));
        let (found, has_more) = api.gateway.broker.subscriptions(
            query.client_id.as_deref(),
            query.topic.as_deref(),
            behind,
            limit,
        );
        let next = found.last().filter(|_| has_more).map(|last| cursor(&(&last.client_id, &last.filter)));
        let subscriptions = found.into_iter().map(Subscription::from).collect();
        Ok::<_, Problem>(Json(SubscriptionPage { subscriptions, next }))
    })
    .await
}
