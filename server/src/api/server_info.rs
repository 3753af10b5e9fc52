//! The gateway itself: what it is, where it listens, what it counts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::Api;
use super::auth::now_ms;
use super::extract::Json;

/// What the gateway is.
#[derive(Serialize, ToSchema)]
pub(super) struct ServerInfo {
    version: &'static str,
    /// Milliseconds since 1970.
    started_at_ms: i64,
    /// The gateway's clock, milliseconds since 1970.
    now_ms: i64,
    /// Whether clients are let in.
    is_ready: bool,
    /// Whether nothing may be changed through this interface.
    is_read_only: bool,
    /// Whether sessions, messages and dead letters outlive the process.
    is_durable: bool,
    listeners: Vec<ListenerInfo>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct ListenerInfo {
    name: String,
    /// IP address and port, or the file of a Unix socket.
    address: String,
}

/// Counters since the start, and how many there are of what there is.
#[derive(Serialize, ToSchema)]
pub(super) struct ServerStats {
    /// By name.
    stats: BTreeMap<&'static str, u64>,
}

/// Says what the gateway is.
#[utoipa::path(get, path = "/api/v1/server", operation_id = "getServer", tag = "server",
    responses((status = 200, description = "The gateway", body = ServerInfo)))]
pub(super) async fn get_server(State(api): State<Arc<Api>>) -> Json<ServerInfo> {
    let gateway = &api.gateway;
    let open = gateway.listeners.read();
    let listeners = open.iter().map(|listener| ListenerInfo {
        name: listener.name.to_string(),
        address: listener.endpoint.to_string(),
    });
    Json(ServerInfo {
        version: env!("CARGO_PKG_VERSION"),
        started_at_ms: gateway.started_at_ms,
        now_ms: now_ms(),
        is_ready: api.is_ready.load(Ordering::Acquire),
        is_read_only: api.is_read_only,
        is_durable: gateway.letters.is_some(),
        listeners: listeners.collect(),
    })
}

/// Shows the broker's counters.
#[utoipa::path(get, path = "/api/v1/stats", operation_id = "getStats", tag = "server",
    responses((status = 200, description = "The counters", body = ServerStats)))]
pub(super) async fn get_stats(State(api): State<Arc<Api>>) -> Json<ServerStats> {
    Json(ServerStats { stats: api.gateway.broker.stats().named().into_iter().collect() })
}
