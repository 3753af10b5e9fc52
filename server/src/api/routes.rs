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

use super::audit::{self, Asked, Change};
use super::auth::{self, Role, Scope, account};
use super::problem::{Kind, Problem};
use super::serve::Peer;
use super::{
    Api, acl, action_queues, alarms, backup, clients, config, connectors, console, dead_letters, document,
    examples, guard, health, language, live, measures, messages, metrics, mqtt, overview, restore,
    rule_cases, rule_changes, rule_tests, rules, server_info, traces,
};

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
    /// Whether nothing is changed by it but to what the gateway's own files say.
    fn takes_files_alone(self) -> bool {
        matches!(self, Self::Needs(_, Scope { area: "config", writes: true }))
    }

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

/// What a route is called, and who may ask.
#[derive(Debug, Clone)]
struct Door {
    api: Arc<Api>,
    access: Access,
    /// Operation ids by their methods.
    operations: Arc<[(&'static str, String)]>,
}

impl Door {
    /// Whether requests by this route may change something.
    fn changes(&self, request: &Request) -> bool {
        match self.access {
            Access::Open | Access::SignedIn => !request.method().is_safe(),
            // One of them begins with GET: what comes through it may change something.
            Access::Needs(_, scope) => scope.writes,
        }
    }
}

/// Lets a request through to its handler, or not, and notes it if it may change something. Puts the [`Caller`](auth::Caller)
/// beside it.
async fn gate(State(door): State<Door>, mut request: Request, next: Next) -> Response {
    let Door { api, access, operations } = &door;
    let caller = match caller(api, *access, &request) {
        Ok(caller) => caller,
        Err(problem) => return problem.into_response(),
    };
    let changes = door.changes(&request);
    let method = request.method().as_str();
    let operation = operations.iter().find(|(of, _)| *of == method);
    let asked = changes.then(|| Asked {
        who: caller.as_ref().map(|caller| caller.name.clone()),
        from: request.extensions().get::<Peer>().map(Peer::place).unwrap_or_default(),
        operation: operation.map(|(_, id)| id.clone()).unwrap_or_default(),
        target: request.uri().path().to_owned(),
    });
    let refused = caller.as_ref().and_then(|caller| refusal(api, *access, caller, &request, changes));
    let mut response = match refused {
        Some(problem) => problem.into_response(),
        None => {
            if let Some(caller) = caller {
                request.extensions_mut().insert(caller);
            }
            next.run(request).await
        }
    };
    if let Some(asked) = asked {
        let change = response.extensions_mut().remove::<Change>().unwrap_or_default();
        let status = response.status().as_u16();
        let api = Arc::clone(api);
        let noted = tokio::task::spawn_blocking(move || api.audit.note(asked, change, status)).await;
        if let Err(error) = noted {
            tracing::error!(%error, "a change can't be put on record");
        }
    }
    response
}

/// Who asks; `None` where everybody may.
fn caller(api: &Api, access: Access, request: &Request) -> Result<Option<auth::Caller>, Problem> {
    if access == Access::Open {
        return Ok(None);
    }
    let peer = request.extensions().get::<Peer>().copied();
    api.auth.caller(request.headers(), peer)?.map(Some).ok_or_else(auth::unauthenticated)
}

/// Why somebody known may not.
fn refusal(
    api: &Api,
    access: Access,
    caller: &auth::Caller,
    request: &Request,
    changes: bool,
) -> Option<Problem> {
    let scoped = match access {
        Access::Open | Access::SignedIn => None,
        Access::Needs(role, scope) => Some((role, scope)),
    };
    let may = scoped.map_or(Ok(()), |(role, scope)| caller.may(role, scope));
    let is_safe = request.method().is_safe();
    // The owner has a signal for the same.
    let by_owner = matches!(request.extensions().get(), Some(Peer::Owner(_)));
    let is_read_only = api.is_read_only && !(by_owner && access.takes_files_alone());
    let may = may.and_then(|()| if is_safe { Ok(()) } else { caller.check_csrf(request.headers()) });
    match may {
        Err(problem) => Some(problem),
        Ok(()) => (changes && scoped.is_some() && is_read_only).then(Problem::read_only),
    }
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
        let mut ids = Vec::new();
        for (path, item) in &mut routes.1.paths {
            for (method, operation) in operations(item) {
                document::add_problems(operation);
                document::add_security(operation, access != Access::Open);
                examples::add(operation);
                let operation = operation.operation_id.clone().unwrap_or_default();
                ids.push((method, operation.clone()));
                self.lines.push(Line { method, path: path.clone(), operation, access });
            }
        }
        if let Some(api) = &self.api {
            let door = Door { api: Arc::clone(api), access, operations: ids.into() };
            // Where the path is there but not the method, nobody is asked who it is.
            routes.2 = routes.2.route_layer(from_fn_with_state(door, gate));
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
    use Role::{Admin, Operator, Viewer};
    let router = OpenApiRouter::with_openapi(document::frame());
    Table { router, api: api.cloned(), lines: Vec::new() }
        .add(Access::Open, routes!(console::page))
        .add(Access::Open, routes!(console::file))
        .add(Access::Open, routes!(health::health))
        .add(Access::Open, routes!(health::readiness))
        .add(Access::Open, routes!(document::openapi))
        .add(Access::Open, routes!(account::needs_set_up))
        .add(Access::Open, routes!(account::set_up))
        .add(writes(Admin, "users"), routes!(account::make_setup_token))
        .add(Access::Open, routes!(account::sign_in))
        .add(Access::SignedIn, routes!(account::who_am_i))
        .add(Access::SignedIn, routes!(account::sign_out))
        .add(reads(Admin, "users"), routes!(account::list_users))
        .add(writes(Admin, "users"), routes!(account::create_user))
        .add(writes(Admin, "users"), routes!(account::change_user, account::delete_user))
        .add(reads(Admin, "users"), routes!(account::list_tokens))
        .add(writes(Admin, "users"), routes!(account::create_token))
        .add(writes(Admin, "users"), routes!(account::delete_token))
        .add(reads(Admin, "audit"), routes!(audit::list_audit))
        .add(reads(Viewer, "server"), routes!(server_info::get_server))
        .add(reads(Viewer, "server"), routes!(server_info::get_stats))
        .add(reads(Viewer, "server"), routes!(overview::get_overview))
        .add(reads(Viewer, "metrics"), routes!(metrics::get_metrics))
        .add(reads(Viewer, "metrics"), routes!(measures::history))
        .add(reads(Viewer, "messages"), routes!(measures::list_topics))
        .add(writes(Operator, "messages"), routes!(measures::add_topic))
        .add(writes(Operator, "messages"), routes!(measures::remove_topic))
        .add(reads(Viewer, "messages"), routes!(measures::heavy_hitters))
        .add(reads(Viewer, "clients"), routes!(measures::slow_subscribers))
        .add(reads(Admin, "backup"), routes!(backup::make_backup))
        .add(writes(Admin, "backup"), routes!(restore::restore))
        .add(reads(Admin, "config"), routes!(config::get_config))
        .add(writes(Admin, "config"), routes!(config::reload))
        .add(reads(Viewer, "clients"), routes!(clients::list_clients))
        .add(reads(Viewer, "clients"), routes!(clients::get_client))
        .add(writes(Operator, "clients"), routes!(clients::end_session))
        .add(writes(Operator, "clients"), routes!(clients::disconnect_client))
        .add(reads(Viewer, "clients"), routes!(clients::list_subscriptions))
        .add(reads(Operator, "acl"), routes!(acl::list_acl))
        .add(reads(Operator, "acl"), routes!(acl::explain_access))
        .add(writes(Operator, "messages"), routes!(messages::publish))
        .add(writes(Operator, "messages"), routes!(mqtt::open_mqtt))
        .add(reads(Viewer, "messages"), routes!(messages::list_retained))
        .add(reads(Operator, "messages"), routes!(messages::get_retained))
        .add(writes(Operator, "messages"), routes!(messages::clear_retained))
        .add(reads(Viewer, "dead_letters"), routes!(dead_letters::list_letters))
        .add(reads(Operator, "dead_letters"), routes!(dead_letters::get_letter))
        .add(writes(Operator, "dead_letters"), routes!(dead_letters::redrive_letter))
        .add(writes(Operator, "dead_letters"), routes!(dead_letters::drop_letter))
        .add(writes(Operator, "dead_letters"), routes!(dead_letters::redrive_letters))
        .add(writes(Operator, "dead_letters"), routes!(dead_letters::drop_letters))
        .add(reads(Viewer, "actions"), routes!(action_queues::list_actions))
        .add(reads(Viewer, "actions"), routes!(action_queues::get_action))
        .add(writes(Operator, "actions"), routes!(action_queues::pause_action))
        .add(writes(Operator, "actions"), routes!(action_queues::resume_action))
        .add(writes(Operator, "actions"), routes!(action_queues::drain_action))
        .add(writes(Operator, "actions"), routes!(action_queues::purge_action))
        .add(reads(Viewer, "connectors"), routes!(connectors::list_connectors))
        .add(reads(Viewer, "connectors"), routes!(connectors::get_connector))
        .add(writes(Operator, "connectors"), routes!(connectors::test_connector))
        .add(reads(Operator, "messages"), routes!(live::watch_messages))
        .add(reads(Viewer, "rules"), routes!(live::watch_rules))
        .add(reads(Viewer, "server"), routes!(live::watch_overview))
        .add(reads(Viewer, "server"), routes!(alarms::list_alarms))
        .add(reads(Operator, "messages"), routes!(traces::list_traces))
        .add(reads(Operator, "messages"), routes!(traces::get_trace))
        .add(reads(Viewer, "messages"), routes!(traces::list_captures))
        .add(writes(Operator, "messages"), routes!(traces::start_capture))
        .add(writes(Operator, "messages"), routes!(traces::end_capture))
        .add(reads(Viewer, "rules"), routes!(rules::list_rules))
        .add(reads(Viewer, "rules"), routes!(rules::get_rule))
        .add(reads(Viewer, "rules"), routes!(language::get_language))
        .add(reads(Operator, "rules"), routes!(rules::validate))
        .add(reads(Operator, "rules"), routes!(rules::explain))
        .add(reads(Operator, "rules"), routes!(rule_tests::test_rules))
        .add(reads(Operator, "rules"), routes!(rule_cases::get_cases))
        .add(writes(Operator, "rules"), routes!(rule_cases::put_cases, rule_cases::delete_cases))
        .add(writes(Operator, "rules"), routes!(rule_changes::put_rule, rule_changes::remove_rule))
        .add(writes(Operator, "rules"), routes!(rule_changes::suspend_rule))
        .add(writes(Operator, "rules"), routes!(rule_changes::resume_rule))
        .add(writes(Operator, "rules"), routes!(rule_changes::enable_rule))
        .add(writes(Operator, "rules"), routes!(rule_changes::disable_rule))
        .add(reads(Operator, "rules"), routes!(rule_changes::list_versions))
        .add(writes(Operator, "rules"), routes!(rule_changes::roll_back_rule))
        .add(writes(Operator, "rules"), routes!(rule_changes::apply_rules))
        .add(reads(Operator, "rules"), routes!(rule_changes::export_rules))
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
