//! `/healthz` and `/readyz`: for whoever starts, stops and restarts the process. They say nothing else and are open.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::Api;
use super::extract::Json;
use super::problem::{Kind, Problem};

#[derive(Serialize, ToSchema)]
pub(super) struct Health {
    /// `ok`.
    status: &'static str,
}

/// Says that the process is alive.
#[utoipa::path(get, path = "/healthz", operation_id = "health", tag = "health",
    responses((status = 200, description = "It is alive", body = Health)))]
pub(super) async fn health() -> Json<Health> {
    Json(Health { status: "ok" })
}

/// Says whether clients are let in: the store is read, the listeners are open, and it isn't stopping.
#[utoipa::path(get, path = "/readyz", operation_id = "readiness", tag = "health",
    responses((status = 200, description = "Clients are let in", body = Health)))]
pub(super) async fn readiness(State(api): State<Arc<Api>>) -> Result<Json<Health>, Problem> {
    if api.is_ready.load(Ordering::Acquire) {
        Ok(Json(Health { status: "ok" }))
    } else {
        Err(Problem::new(Kind::Unavailable, "clients aren't let in: the gateway starts or stops"))
    }
}
