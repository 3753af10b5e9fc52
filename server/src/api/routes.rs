//! The table of what there is, and for whom.
//!
//! A route is added with its access or not at all. Its path, method and description come from the handler's own, so that
//! router, OpenAPI document and docs/api-routes.md never differ.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use utoipa::openapi::OpenApi;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};
use utoipa_axum::routes;

use super::auth::{self, Role, Scope, account};
use super::problem::{Kind, Problem};
use super::{Api, document, guard, health};

/// Who may ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Everybody who can reach the address. Nothing is changed by it but by what stands in its body.
    Open,
    /// Whoever proves who it is.
    SignedIn,
    /// Whoever has the role, and the scope.
    Needs(Role, Scope),
}

impl Access {
    /// Who may, and the scope that a token needs, as they are shown.
    fn shown(self) -> (&'static str, String) {
        match self {
            Self::Open => ("open", String::new()),
            Self::SignedIn => ("signed in", String::new()),
            Self::Needs(role, scope) => {
                (role.name(), format!("{}:{}", scope.area, if scope.writes { "write" } else { "read" }))
            }
        }
    }
}

/// A route that shows.
const fn reads(role: Role, area: &'static str) -> Access {
    Access::Needs(role, Scope { area, writes: false })
}

/// A route that changes.
const fn writes(role: Role, area: &'static str) -> Access {
    Access::Needs(role, Scope { area, writes: true })
}

/// Lets a request through to its handler, or not. Puts the [`Caller`] beside it.
async fn gate(State((api, access)): State<(Arc<Api>, Access)>, mut request: Request, next: Next) -> Response {
    let (role, scope) = match access {
        Access::Open => return next.run(request).await,
        Access::SignedIn => (Role::Viewer, None),
        Access::Needs(role, scope) => (role, Some(scope)),
    };
    let caller = match api.auth.caller(request.headers()) {
        Ok(Some(caller)) => caller,
        Ok(None) => return auth::unauthenticated(),
        Err(problem) => return problem.into_response(),
    };
    let is_change = !request.method().is_safe();
    let may = scope.map_or(Ok(()), |scope| caller.may(role, scope));
    let may = may.and_then(|()| if is_change { caller.check_csrf(request.headers()) } else { Ok(()) });
    if let Err(problem) = may {
        return problem.into_response();
    }
    if is_change && scope.is_some() && api.is_read_only {
        return Problem::read_only().into_response();
    }
    request.extensions_mut().insert(caller);
    next.run(request).await
}

/// A line of docs/api-routes.md.
struct Line {
    method: &'static str,
    path: String,
    operation: String,
    access: Access,
}

/// Routes being collected.
pub(super) struct Table {
    router: OpenApiRouter<Arc<Api>>,
    /// `None`: only the descriptions are of interest.
    api: Option<Arc<Api>>,
    lines: Vec<Line>,
}

impl Table {
    fn add(mut self, access: Access, mut routes: UtoipaMethodRouter<Arc<Api>>) -> Self {
        if let Some(api) = &self.api {
            // Where the path is there but not the method, nobody is asked who it is.
            routes.2 = routes.2.route_layer(from_fn_with_state((Arc::clone(api), access), gate));
        }
        for (path, item) in &mut routes.1.paths {
            for (method, operation) in operations(item) {
                document::add_problems(operation);
                document::add_security(operation, access != Access::Open);
                debug_assert!(
                    method == "GET" || !matches!(access, Access::Needs(_, scope) if !scope.writes),
                    "{path}"
                );
                let operation = operation.operation_id.clone().unwrap_or_default();
                self.lines.push(Line { method, path: path.clone(), operation, access });
            }
        }
        self.router = self.router.routes(routes);
        self
    }

    pub(super) fn split(self) -> (Router<Arc<Api>>, OpenApi) {
        self.router.split_for_parts()
    }
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = (&'static str, &mut Operation)> {
    let PathItem { get, put, post, delete, patch, .. } = item;
    [("GET", get), ("PUT", put), ("POST", post), ("DELETE", delete), ("PATCH", patch)]
        .into_iter()
        .filter_map(|(method, operation)| operation.as_mut().map(|operation| (method, operation)))
}

/// The table.
#[rustfmt::skip]
pub(super) fn table(api: Option<&Arc<Api>>) -> Table {
    use Role::Admin;
    let router = OpenApiRouter::with_openapi(document::frame());
    Table { router, api: api.cloned(), lines: Vec::new() }
        .add(Access::Open, routes!(health::health))
        .add(Access::Open, routes!(health::readiness))
        .add(Access::Open, routes!(document::openapi))
        .add(Access::Open, routes!(account::set_up))
        .add(Access::Open, routes!(account::sign_in))
        .add(Access::SignedIn, routes!(account::who_am_i))
        .add(Access::SignedIn, routes!(account::sign_out))
        .add(reads(Admin, "users"), routes!(account::list_users))
        .add(writes(Admin, "users"), routes!(account::create_user))
        .add(writes(Admin, "users"), routes!(account::change_user, account::delete_user))
        .add(reads(Admin, "users"), routes!(account::list_tokens))
        .add(writes(Admin, "users"), routes!(account::create_token))
        .add(writes(Admin, "users"), routes!(account::delete_token))
}

/// The router, guarded.
pub(super) fn router(api: &Arc<Api>) -> Router {
    let (router, _) = table(Some(api)).split();
    router
        .fallback(async || Problem::new(Kind::NoPath, "GET /api/v1/openapi.json describes what there is"))
        .method_not_allowed_fallback(async || {
            Problem::new(Kind::Method, "the Allow header says what the path takes")
        })
        .layer(from_fn_with_state(Arc::clone(api), guard::guard))
        .with_state(Arc::clone(api))
}

/// docs/api-routes.md.
#[must_use]
pub fn route_page() -> String {
    let mut page = String::from(
        "# Routes of the API\n\nWho may ask for what; made from the table of routes, compared by a test. An administrator may do what an operator may, an operator what a \
         viewer may. A token that is held to scopes needs the scope, too; `write` includes `read`.\n\n\
         | method | path | operation | role | scope |\n| --- | --- | --- | --- | --- |\n",
    );
    for Line { method, path, operation, access } in table(None).lines {
        let (role, scope) = access.shown();
        let line = writeln!(page, "| {method} | `{path}` | {operation} | {role} | {scope} |");
        debug_assert!(line.is_ok(), "a String takes everything");
    }
    page
}
