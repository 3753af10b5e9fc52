//! Setup, sign-in, users and tokens.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use hyper::StatusCode;
use hyper::header::{HeaderValue, SET_COOKIE};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::super::Api;
use super::super::audit::Change;
use super::super::extract::{Json, Path};
use super::super::problem::{Kind, Problem};
use super::super::serve::Peer;
use super::directory::{ChangeError, NewToken, Token, User};
use super::sessions::AGE_MAX;
use super::{By, COOKIE_NAME, Caller, Role, is_scope, now_ms};

/// Bytes that a password may have.
pub(in super::super) const PASSWORD_BYTES: std::ops::RangeInclusive<usize> = 12..=1024;
/// Most bytes of the name of a user or a token.
pub(crate) const NAME_BYTES_MAX: usize = 64;

/// Makes the first administrator.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct SetUp {
    /// The setup token.
    setup_token: String,
    /// Name of the administrator.
    #[schema(pattern = "^[A-Za-z0-9._@-]{1,64}$")]
    name: String,
    /// 12 to 1,024 bytes.
    #[schema(max_length = 1024)]
    password: String,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct SignIn {
    name: String,
    password: String,
}

/// A session that began.
#[derive(Serialize, ToSchema)]
pub(in super::super) struct SignedIn {
    name: String,
    role: Role,
    /// To be sent in the header X-CSRF-Token with every change.
    csrf_token: String,
}

/// Who asks.
#[derive(Serialize, ToSchema)]
pub(in super::super) struct WhoAmI {
    /// Name of the user, or `token` and the token's name, or `uid:` and a number: the gateway's owner.
    name: String,
    role: Role,
    /// What the token is held to; null: whatever the role may.
    scopes: Option<Vec<String>>,
    /// Of a session: to be sent in the header X-CSRF-Token with every change.
    csrf_token: Option<String>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct NewUser {
    /// Letters, digits, `.`, `_`, `-` and `@`, at most 64.
    #[schema(pattern = "^[A-Za-z0-9._@-]{1,64}$")]
    name: String,
    role: Role,
    /// 12 to 1,024 bytes.
    #[schema(max_length = 1024)]
    password: String,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct UserChange {
    #[serde(default)]
    role: Option<Role>,
    /// 12 to 1,024 bytes.
    #[serde(default)]
    #[schema(max_length = 1024)]
    password: Option<String>,
}

/// A token to be made.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewToken)]
pub(in super::super) struct TokenRequest {
    /// Letters, digits, `.`, `_`, `-` and `@`, at most 64.
    #[schema(pattern = "^[A-Za-z0-9._@-]{1,64}$")]
    name: String,
    role: Role,
    /// What it is held to, as in `clients:read`; absent: whatever the role may.
    #[serde(default)]
    scopes: Option<Vec<String>>,
    /// Seconds until its end; absent: never.
    #[serde(default)]
    #[schema(value_type = Option<i64>, minimum = 1, maximum = 4294967295_i64)]
    expires_in_s: Option<std::num::NonZeroU32>,
}

/// A token that was made.
#[derive(Serialize, ToSchema)]
pub(in super::super) struct NewSecret {
    name: String,
    /// What to send as `Authorization: Bearer …`; nobody can ask for it again.
    token: String,
}

#[derive(Serialize, ToSchema)]
pub(in super::super) struct Users {
    users: Vec<User>,
}

#[derive(Serialize, ToSchema)]
pub(in super::super) struct Tokens {
    tokens: Vec<Token>,
}

/// Whether anybody can administer the gateway.
#[derive(Serialize, ToSchema)]
pub(in super::super) struct SetUpNeed {
    /// Nobody can sign in or send a token, and a setup token would change that.
    needed: bool,
}

/// Says whether the first administrator is still to be made.
#[utoipa::path(get, path = "/api/v1/setup", operation_id = "needsSetUp", tag = "account",
    responses((status = 200, description = "Whether it is", body = SetUpNeed)))]
pub(in super::super) async fn needs_set_up(State(api): State<Arc<Api>>) -> Json<SetUpNeed> {
    Json(SetUpNeed { needed: api.needs_setup() })
}

/// Makes an administrator, with a setup token, which is used up.
#[utoipa::path(post, path = "/api/v1/setup", operation_id = "setUp", tag = "account", request_body = SetUp,
    responses((status = 204, description = "The administrator can sign in")))]
pub(in super::super) async fn set_up(
    State(api): State<Arc<Api>>,
    Json(body): Json<SetUp>,
) -> Result<(Change, StatusCode), Problem> {
    let wrong = || Problem::new(Kind::Unauthenticated, "the setup token is wrong, used up or too old");
    if api.is_read_only {
        return Err(Problem::read_only());
    }
    if !api.auth.setup.is_good(&body.setup_token) {
        return Err(wrong());
    }
    check_name(&body.name)?;
    check_password(&body.password)?;
    if api.auth.directory.user(&body.name).is_some() {
        return Err(ChangeError::Taken("user", body.name).into());
    }
    let hash = api.auth.hash(&body.password).await?;
    if !api.auth.setup.take(&body.setup_token) {
        return Err(wrong());
    }
    let name = body.name.clone();
    api.blocking(move |api| api.auth.directory.create_user(&body.name, Role::Admin, hash, now_ms())).await?;
    tracing::info!(name, "an administrator was made with a setup token");
    let change = Change::of(name).by("setup token").after(json!({ "role": Role::Admin }));
    Ok((change, StatusCode::NO_CONTENT))
}

/// A setup token that was made.
#[derive(Serialize, ToSchema)]
pub(in super::super) struct NewSetupToken {
    /// It makes one administrator, within an hour.
    setup_token: String,
}

/// Makes a setup token, with which an administrator can be made; the one before is void.
#[utoipa::path(post, path = "/api/v1/setup-tokens", operation_id = "makeSetupToken", tag = "account",
    responses((status = 201, description = "The token, this once", body = NewSetupToken)))]
pub(in super::super) async fn make_setup_token(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
) -> Result<(StatusCode, Change, Json<NewSetupToken>), Problem> {
    caller.must_be_unscoped()?;
    let setup_token = api.blocking(|api| api.auth.make_setup_token().map_err(ChangeError::from)).await?;
    Ok((StatusCode::CREATED, Change::of("setup token"), Json(NewSetupToken { setup_token })))
}

/// Begins a session: sets a cookie.
#[utoipa::path(post, path = "/api/v1/session", operation_id = "signIn", tag = "account", request_body = SignIn,
    responses((status = 200, description = "The session began", body = SignedIn)))]
pub(in super::super) async fn sign_in(
    State(api): State<Arc<Api>>,
    Extension(peer): Extension<Peer>,
    Json(body): Json<SignIn>,
) -> Result<Response, Problem> {
    if body.name.len() > NAME_BYTES_MAX || body.password.len() > *PASSWORD_BYTES.end() {
        return Err(Problem::new(Kind::Unauthenticated, "the name or the password is wrong"));
    }
    let user = api.auth.sign_in(&body.name, &body.password, peer.ip()).await?;
    let begun = api.auth.sessions.begin(&body.name, user.stamp);
    let (secret, csrf_token) =
        begun.ok_or_else(|| Problem::new(Kind::Internal, "the system gives no random numbers"))?;
    let cookie = cookie(&api, &secret, AGE_MAX.as_secs());
    let change = Change::of(body.name.clone()).by(&body.name);
    let mut response =
        (change, Json(SignedIn { name: body.name, role: user.role, csrf_token })).into_response();
    set_cookie(&mut response, &cookie);
    Ok(response)
}

/// Ends the session.
#[utoipa::path(delete, path = "/api/v1/session", operation_id = "signOut", tag = "account",
    responses((status = 204, description = "The session is over")))]
pub(in super::super) async fn sign_out(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
) -> Response {
    if let By::Session(digest, _) = &caller.by {
        api.auth.sessions.end(digest);
    }
    let mut response = StatusCode::NO_CONTENT.into_response();
    set_cookie(&mut response, &cookie(&api, "", 0));
    response
}

/// The session's cookie, for no script and no other site to see. With TLS it is sent over nothing else.
fn cookie(api: &Api, secret: &str, age_s: u64) -> String {
    let secure = if api.has_tls { "; Secure" } else { "" };
    format!("{COOKIE_NAME}={secret}; Path=/; HttpOnly; SameSite=Strict; Max-Age={age_s}{secure}")
}

fn set_cookie(response: &mut Response, cookie: &str) {
    if let Ok(cookie) = HeaderValue::from_str(cookie) {
        response.headers_mut().insert(SET_COOKIE, cookie);
    }
}

/// Says who asks.
#[utoipa::path(get, path = "/api/v1/session", operation_id = "whoAmI", tag = "account",
    responses((status = 200, description = "Who asks", body = WhoAmI)))]
pub(in super::super) async fn who_am_i(Extension(caller): Extension<Caller>) -> Json<WhoAmI> {
    let csrf_token = match caller.by {
        By::Session(_, csrf) => Some(csrf),
        By::Token | By::Socket => None,
    };
    Json(WhoAmI { name: caller.name, role: caller.role, scopes: caller.scopes, csrf_token })
}

/// Lists users.
#[utoipa::path(get, path = "/api/v1/users", operation_id = "listUsers", tag = "account",
    responses((status = 200, description = "All users", body = Users)))]
pub(in super::super) async fn list_users(State(api): State<Arc<Api>>) -> Json<Users> {
    Json(Users { users: api.auth.directory.users() })
}

/// Makes a user.
#[utoipa::path(post, path = "/api/v1/users", operation_id = "createUser", tag = "account", request_body = NewUser,
    responses((status = 204, description = "The user can sign in")))]
pub(in super::super) async fn create_user(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Json(body): Json<NewUser>,
) -> Result<(Change, StatusCode), Problem> {
    caller.must_be_unscoped()?;
    check_name(&body.name)?;
    check_password(&body.password)?;
    let hash = api.auth.hash(&body.password).await?;
    let change = Change::of(body.name.clone()).after(json!({ "role": body.role }));
    api.blocking(move |api| api.auth.directory.create_user(&body.name, body.role, hash, now_ms())).await?;
    Ok((change, StatusCode::NO_CONTENT))
}

/// Gives a user another role or password; its sessions end.
#[utoipa::path(patch, path = "/api/v1/users/{name}", operation_id = "changeUser", tag = "account",
    params(("name" = String, Path, description = "Name of the user", pattern = "^[A-Za-z0-9._@-]{1,64}$")), request_body = UserChange,
    responses((status = 204, description = "It is so")))]
pub(in super::super) async fn change_user(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    Json(body): Json<UserChange>,
) -> Result<(Change, StatusCode), Problem> {
    caller.must_be_unscoped()?;
    let hash = match &body.password {
        Some(password) => {
            check_password(password)?;
            Some(api.auth.hash(password).await?)
        }
        None => None,
    };
    let role = api.auth.directory.user(&name).map(|user| user.role);
    let change = Change::of(name.clone())
        .before(json!({ "role": role }))
        .after(json!({ "role": body.role.or(role), "is_password_new": hash.is_some() }));
    api.blocking(move |api| api.auth.directory.change_user(&name, body.role, hash)).await?;
    Ok((change, StatusCode::NO_CONTENT))
}

/// Deletes a user; its sessions end.
#[utoipa::path(delete, path = "/api/v1/users/{name}", operation_id = "deleteUser", tag = "account",
    params(("name" = String, Path, description = "Name of the user", pattern = "^[A-Za-z0-9._@-]{1,64}$")),
    responses((status = 204, description = "The user is gone")))]
pub(in super::super) async fn delete_user(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
) -> Result<(Change, StatusCode), Problem> {
    let role = api.auth.directory.user(&name).map(|user| user.role);
    let change = Change::of(name.clone()).before(json!({ "role": role }));
    api.blocking(move |api| api.auth.directory.delete_user(&name)).await?;
    Ok((change, StatusCode::NO_CONTENT))
}

/// Lists tokens, without their secrets.
#[utoipa::path(get, path = "/api/v1/tokens", operation_id = "listTokens", tag = "account",
    responses((status = 200, description = "All tokens", body = Tokens)))]
pub(in super::super) async fn list_tokens(State(api): State<Arc<Api>>) -> Json<Tokens> {
    Json(Tokens { tokens: api.auth.directory.tokens() })
}

/// Makes a token.
#[utoipa::path(post, path = "/api/v1/tokens", operation_id = "createToken", tag = "account",
    request_body = TokenRequest, responses((status = 201, description = "The token, this once", body = NewSecret)))]
pub(in super::super) async fn create_token(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Json(body): Json<TokenRequest>,
) -> Result<(StatusCode, Change, Json<NewSecret>), Problem> {
    check_name(&body.name)?;
    if let Some(scope) = body.scopes.iter().flatten().find(|scope| !is_scope(scope)) {
        return Err(Problem::new(Kind::Invalid, format!("scopes: {scope:?} is no scope")));
    }
    caller.may_grant(body.scopes.as_deref())?;
    let now_ms = now_ms();
    let name = body.name.clone();
    let change = Change::of(name.clone()).after(json!({
        "role": body.role, "scopes": body.scopes, "expires_in_s": body.expires_in_s,
    }));
    let token = api
        .blocking(move |api| {
            let new = NewToken {
                name: &body.name,
                role: body.role,
                scopes: body.scopes,
                expires_at_ms: body.expires_in_s.map(|seconds| now_ms + i64::from(seconds.get()) * 1_000),
                created_by: &caller.name,
            };
            api.auth.directory.create_token(new, now_ms)
        })
        .await?;
    Ok((StatusCode::CREATED, change, Json(NewSecret { name, token })))
}

/// Deletes a token.
#[utoipa::path(delete, path = "/api/v1/tokens/{name}", operation_id = "deleteToken", tag = "account",
    params(("name" = String, Path, description = "Name of the token", pattern = "^[A-Za-z0-9._@-]{1,64}$")),
    responses((status = 204, description = "The token is gone")))]
pub(in super::super) async fn delete_token(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
) -> Result<(Change, StatusCode), Problem> {
    let before = api.auth.directory.tokens().into_iter().find(|token| token.is_called(&name));
    let change = Change::of(name.clone()).before(json!(before));
    api.blocking(move |api| api.auth.directory.delete_token(&name)).await?;
    Ok((change, StatusCode::NO_CONTENT))
}

/// Whether the text may be the name of a user or a token.
pub(crate) fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-@".contains(&byte);
    (1..=NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(allowed)
        && !name.trim_matches('.').is_empty()
}

fn check_name(name: &str) -> Result<(), Problem> {
    if is_name(name) {
        return Ok(());
    }
    let detail = format!("name: expected letters, digits, `.`, `_`, `-` and `@`, at most {NAME_BYTES_MAX}");
    Err(Problem::new(Kind::Invalid, detail))
}

fn check_password(password: &str) -> Result<(), Problem> {
    if PASSWORD_BYTES.contains(&password.len()) {
        return Ok(());
    }
    let (fewest, most) = (PASSWORD_BYTES.start(), PASSWORD_BYTES.end());
    let detail = format!("password: expected {fewest} to {most} bytes, given {}", password.len());
    Err(Problem::new(Kind::Invalid, detail))
}

impl From<ChangeError> for Problem {
    fn from(error: ChangeError) -> Self {
        let kind = match &error {
            ChangeError::Missing(..) => Kind::Missing,
            ChangeError::Taken(..)
            | ChangeError::Declared(..)
            | ChangeError::LastAdmin(_)
            | ChangeError::NoAdmin
            | ChangeError::Full(_) => Kind::Conflict,
            ChangeError::Invalid(..) => Kind::Invalid,
            ChangeError::Directory(cause) => {
                tracing::error!(error = crate::cli::chain(cause), "users and tokens can't be kept");
                Kind::Internal
            }
        };
        Self::new(kind, error.to_string())
    }
}
