//! Access rules of clients: which there are, and what they decide.

use std::net::IpAddr;
use std::sync::Arc;

use access::acl::Subject;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::extract::{Json, Query};
use super::paging::{cursor, limit, place};
use super::problem::{Kind, Problem};
use crate::access::{Explained, OPEN, Ruling, Wanted};

/// Which rules are wanted.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct AclQuery {
    /// Most entries, 1 to 1,000; 100 where nothing is said.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// `next` of the page before.
    after: Option<String>,
}

/// A page of the configuration's access rules, in the order in which they are asked.
#[derive(Serialize, ToSchema)]
pub(super) struct AclPage {
    /// What holds where no rule applies: `allow` where there are no access rules at all, else `deny`.
    default: Ruling,
    /// Whether a server has rules for single clients, which are asked before these (`[acl.http]`).
    asks_server: bool,
    rules: Vec<AclRule>,
    /// Where the next page begins; null: there is none.
    next: Option<String>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct AclRule {
    /// The file, or `acl.rules`.
    origin: String,
    /// Line of the file, or number in the list, from 1.
    line: u32,
    /// As it is written.
    rule: String,
}

/// Who wants what: one of `publish`, `subscribe` and `receive`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ExplainAccess {
    /// Client Identifier. When nothing else is said about the client and it is connected, it is asked for as what it is, with the rules that
    /// it brought along.
    client_id: Option<String>,
    /// User name, taken for proven.
    username: Option<String>,
    /// Groups that the client belongs to.
    groups: Option<Vec<String>>,
    /// IP address that it comes from.
    #[schema(value_type = Option<String>)]
    address: Option<IpAddr>,
    /// Listener that it comes by.
    listener: Option<String>,
    /// Topic Name: may it publish there?
    #[schema(pattern = r"^[^+#\x00]+$")]
    publish: Option<String>,
    /// Topic Filter: may it subscribe to that?
    subscribe: Option<String>,
    /// Topic Name: may it have a message of it, through a Subscription?
    #[schema(pattern = r"^[^+#\x00]+$")]
    receive: Option<String>,
    /// Of the publish or the Subscription; 0 where nothing is said.
    #[serde(default)]
    #[schema(minimum = 0, maximum = 2)]
    qos: u8,
    /// Whether the publish is to be retained.
    #[serde(default)]
    retain: bool,
}

/// What is decided, and about whom.
#[derive(Serialize, ToSchema)]
pub(super) struct AccessExplained {
    decision: Ruling,
    /// The rule that decides, with its place; or that there is none.
    by: String,
    /// Whether it is about a client that is connected, as what it is.
    is_connected: bool,
    client: ExplainedClient,
    /// What the answer doesn't take into account.
    warnings: Vec<String>,
}

/// Whom the rules were asked about.
#[derive(Serialize, ToSchema)]
pub(super) struct ExplainedClient {
    client_id: Option<String>,
    /// Null: none was proven.
    username: Option<String>,
    groups: Vec<String>,
    address: Option<String>,
    listener: Option<String>,
}

impl ExplainAccess {
    fn wanted(&self) -> Wanted<'_> {
        Wanted {
            publish: self.publish.as_deref(),
            subscribe: self.subscribe.as_deref(),
            receive: self.receive.as_deref(),
            qos: self.qos,
            retain: self.retain,
        }
    }

    /// The Client Identifier, where nothing else is said about the client.
    fn client_alone(&self) -> Option<&str> {
        let is_alone = self.username.is_none()
            && self.groups.is_none()
            && self.address.is_none()
            && self.listener.is_none();
        self.client_id.as_deref().filter(|_| is_alone)
    }
}

impl From<&Subject<'_>> for ExplainedClient {
    fn from(subject: &Subject<'_>) -> Self {
        Self {
            client_id: subject.client_id.map(str::to_owned),
            username: subject.username.map(str::to_owned),
            groups: subject.groups.iter().map(ToString::to_string).collect(),
            address: subject.address.map(|address| address.to_string()),
            listener: subject.listener.map(str::to_owned),
        }
    }
}

/// Lists the configuration's access rules.
#[utoipa::path(get, path = "/api/v1/acl", operation_id = "listAcl", tag = "clients", params(AclQuery),
    responses((status = 200, description = "A page of rules", body = AclPage)))]
pub(super) async fn list_acl(
    State(api): State<Arc<Api>>,
    Query(query): Query<AclQuery>,
) -> Result<Json<AclPage>, Problem> {
    let limit = limit(query.limit)?;
    let after: usize = place(query.after.as_deref())?.unwrap_or(0);
    let access = api.gateway.access.as_ref();
    let all = access.and_then(|access| access.rules());
    let mut behind = all.iter().flat_map(|rules| rules.iter()).skip(after);
    let rules: Vec<AclRule> = behind
        .by_ref()
        .take(limit)
        .map(|rule| AclRule {
            origin: rule.source().to_owned(),
            line: rule.line(),
            rule: rule.text().to_owned(),
        })
        .collect();
    let next = behind.next().map(|_| cursor(&(after + rules.len())));
    Ok(Json(AclPage {
        default: if all.is_some() { Ruling::Deny } else { Ruling::Allow },
        asks_server: access.is_some_and(|access| access.asks_server()),
        rules,
        next,
    }))
}

/// Says what the access rules decide about a client and what it wants, and which rule it is.
#[utoipa::path(post, path = "/api/v1/acl/explain", operation_id = "explainAccess", tag = "clients",
    request_body = ExplainAccess, responses((status = 200, description = "The decision", body = AccessExplained)))]
pub(super) async fn explain_access(
    State(api): State<Arc<Api>>,
    Json(body): Json<ExplainAccess>,
) -> Result<Json<AccessExplained>, Problem> {
    let request = body.wanted().request().map_err(|error| Problem::new(Kind::Invalid, error))?;
    let access = api.gateway.access.as_ref();
    let mut warnings = Vec::new();
    if let Some(client_id) = body.client_alone() {
        let connection = api.gateway.broker.client(client_id).and_then(|client| client.connection);
        if let Some(connection) = connection {
            let explained = match access {
                Some(access) => access.explain_client(&connection.who, request),
                None => Explained { ruling: Ruling::Allow, by: OPEN.to_owned() },
            };
            let client = ExplainedClient::from(&crate::access::subject(&connection.who));
            return Ok(Json(AccessExplained {
                decision: explained.ruling,
                by: explained.by,
                is_connected: true,
                client,
                warnings,
            }));
        }
        warnings.push(format!(
            "no client {client_id:?} is connected: nothing is known of its user name, groups, address and listener"
        ));
    }
    if access.is_some_and(|access| access.asks_server()) {
        warnings.push(
            "the server of [acl.http] isn't asked: its rules are known while their client is connected"
                .to_owned(),
        );
    }
    let groups: Vec<Arc<str>> = body.groups.iter().flatten().map(|group| group.as_str().into()).collect();
    let subject = Subject {
        client_id: body.client_id.as_deref(),
        username: body.username.as_deref(),
        groups: &groups,
        address: body.address,
        listener: body.listener.as_deref(),
    };
    let explained = match access {
        Some(access) => access.explain(&subject, request),
        None => Explained { ruling: Ruling::Allow, by: OPEN.to_owned() },
    };
    Ok(Json(AccessExplained {
        decision: explained.ruling,
        by: explained.by,
        is_connected: false,
        client: ExplainedClient::from(&subject),
        warnings,
    }))
}
