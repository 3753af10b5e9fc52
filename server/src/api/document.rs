//! The OpenAPI document: made from the table of routes, with what holds for all of them added here.

use std::sync::{Arc, LazyLock};

use axum::response::{IntoResponse as _, Response};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use utoipa::OpenApi as _;
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{ContentBuilder, Ref, RefOr, ResponseBuilder};

use super::Api;
use super::problem::ProblemBody;
use super::routes;

#[derive(utoipa::OpenApi)]
#[openapi(
    info(title = "Tidegate", description = "Administration of a Tidegate gateway."),
    components(schemas(ProblemBody))
)]
struct Frame;

/// What the document holds before the routes come to it.
pub(super) fn frame() -> utoipa::openapi::OpenApi {
    let mut frame = Frame::openapi();
    let components = frame.components.get_or_insert_default();
    let bearer = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
    components.security_schemes.insert("bearer".to_owned(), bearer);
    let session = SecurityScheme::ApiKey(ApiKey::Cookie(ApiKeyValue::with_description(
        "tidegate_session",
        "Set by signIn; changes need its csrf_token in the header X-CSRF-Token, too",
    )));
    components.security_schemes.insert("session".to_owned(), session);
    frame
}

/// Every operation may end with a problem.
pub(super) fn add_problems(operation: &mut Operation) {
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
    let problem = ResponseBuilder::new()
        .description("It isn't carried out: `code` and `detail` say why")
        .content("application/problem+json", content)
        .build();
    operation.responses.responses.insert("default".to_owned(), RefOr::T(problem));
}

/// Says how the caller proves who it is, where it has to.
pub(super) fn add_security(operation: &mut Operation, is_needed: bool) {
    let none: [&str; 0] = [];
    operation.security = is_needed
        .then(|| vec![SecurityRequirement::new("bearer", none), SecurityRequirement::new("session", none)]);
}

/// The document as JSON.
pub fn document() -> &'static str {
    static DOCUMENT: LazyLock<String> = LazyLock::new(|| {
        let (_, document) = routes::table(None).split();
        document.to_pretty_json().unwrap_or_default()
    });
    &DOCUMENT
}

/// This document.
#[utoipa::path(get, path = "/api/v1/openapi.json", operation_id = "openapi", tag = "health",
    responses((status = 200, description = "The OpenAPI document", content_type = "application/json", body = Object)))]
pub(super) async fn openapi(_: axum::extract::State<Arc<Api>>) -> Response {
    ([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], document()).into_response()
}
