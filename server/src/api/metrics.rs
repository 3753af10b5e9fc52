//! `/metrics`: every number at once, for Prometheus and what speaks like it.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use hyper::HeaderMap;
use hyper::header::{ACCEPT, CONTENT_TYPE};

use super::Api;
use super::problem::Problem;
use crate::metrics::Format;

/// Shows every number of the gateway, in the text format of Prometheus 0.0.4 or, where the Accept header asks for
/// `application/openmetrics-text`, in OpenMetrics 1.0.
#[utoipa::path(get, path = "/metrics", operation_id = "getMetrics", tag = "metrics",
    responses((status = 200, description = "The numbers", content(
        (String = "text/plain"), (String = "application/openmetrics-text")))))]
pub(super) async fn get_metrics(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let accept: Vec<_> = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    let format = Format::wanted(&accept.join(","));
    let text =
        api.blocking(move |api| Ok::<_, Problem>(api.gateway.sources().collect().text(format))).await?;
    Ok(([(CONTENT_TYPE, format.content_type())], text).into_response())
}
