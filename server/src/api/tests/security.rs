//! Who may ask: over the socket, every route and every role.

use serde_json::json;

use super::*;
use crate::config::{AdminToken, HiddenText};

const PASSWORD: &str = "correct horse battery";

/// A request with a body of JSON.
pub(super) async fn ask(
    api: &ApiServer,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n{headers}\r\n{body}"
    );
    send(api.address().unwrap(), &request).await
}

pub(super) fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

fn token(name: &str, role: Role, scopes: Option<&[&str]>) -> AdminToken {
    let hidden: HiddenText = serde_json::from_value(json!(auth::Digest::of(name).to_hex())).unwrap();
    let scopes = scopes.map(|scopes| scopes.iter().map(ToString::to_string).collect());
    AdminToken { name: name.to_owned(), role, scopes, sha256: hidden }
}

/// An interface with one token for each role, whose secret is its name.
pub(super) fn with_tokens() -> Admin {
    let tokens = vec![
        token("viewer", Role::Viewer, None),
        token("operator", Role::Operator, None),
        token("admin", Role::Admin, None),
        token("narrow", Role::Admin, Some(&["users:read"])),
        token("scraper", Role::Viewer, Some(&["metrics:read"])),
    ];
    Admin { tokens, ..anywhere() }
}

async fn open_with(config: &Admin) -> ApiServer {
    listening(config, None).await
}

/// Makes an administrator and signs it in: its cookie and its CSRF token.
pub(super) async fn set_up(api: &ApiServer) -> (String, String) {
    let setup_token = api.make_setup_token().unwrap();
    let body = json!({ "setup_token": setup_token, "name": "ada", "password": PASSWORD }).to_string();
    assert_eq!(ask(api, "POST", "/api/v1/setup", &[], &body).await.status, 204);
    assert_eq!(
        ask(api, "POST", "/api/v1/setup", &[], &body).await.problem(),
        (401, "unauthenticated".to_owned()),
        "a setup token is good once"
    );
    sign_in(api, "ada", PASSWORD).await
}

async fn sign_in(api: &ApiServer, name: &str, password: &str) -> (String, String) {
    let body = json!({ "name": name, "password": password }).to_string();
    let answer = ask(api, "POST", "/api/v1/session", &[], &body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let cookie = answer.cookie.clone().expect("a cookie");
    for attribute in ["HttpOnly", "SameSite=Strict", "Path=/"] {
        assert!(cookie.contains(attribute), "{cookie}");
    }
    let cookie = cookie.split(';').next().unwrap().to_owned();
    (cookie, answer.json()["csrf_token"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn each_route_is_closed_to_whoever_has_too_small_a_role_or_none() {
    let api = open_with(&with_tokens()).await;
    let roles = ["viewer", "operator", "admin"];
    let page = route_page();
    let mut closed = 0;
    for line in page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| method")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [method, path, _, role, scope] = cells[..] else { panic!("{line}") };
        let path = path
            .trim_matches('`')
            .replace("{name}", "x")
            .replace("{client_id}", "x")
            .replace("{topic}", "x")
            .replace("{rule}/{action}/{position}", "x/x/1");
        // A stream has no end; one that is refused for something else has.
        let path = if path.contains("/live/") { format!("{path}?nonsense=1") } else { path };
        if role == "---" || role == "open" {
            continue;
        }
        closed += 1;
        let nobody = ask(&api, method, &path, &[], "").await;
        assert_eq!(nobody.problem(), (401, "unauthenticated".to_owned()), "{line}");
        assert!(nobody.head.contains("www-authenticate: bearer"), "{nobody:?}");
        let wrong = ask(&api, method, &path, &[("Authorization", "Bearer wrong")], "").await;
        assert_eq!(wrong.problem().0, 401, "{line}");
        let needed = roles.iter().position(|name| *name == role).unwrap_or(0);
        for (rank, name) in roles.iter().enumerate() {
            let answer = ask(&api, method, &path, &[("Authorization", &bearer(name))], "").await;
            if rank < needed {
                assert_eq!(answer.problem(), (403, "forbidden".to_owned()), "{name}: {line}");
            } else {
                assert!(![401, 403].contains(&answer.status), "{name}: {line}: {answer:?}");
            }
        }
        let narrow = ask(&api, method, &path, &[("Authorization", &bearer("narrow"))], "").await;
        let is_open = scope.is_empty() || scope == "users:read";
        assert_eq!(narrow.status == 403, !is_open, "{line}: {narrow:?}");
    }
    assert!(closed >= 30, "{closed} routes are closed");
}

#[tokio::test]
async fn a_setup_token_makes_an_administrator_who_signs_in_and_out() {
    let api = open().await;
    assert!(api.needs_setup());
    let (cookie, csrf) = set_up(&api).await;
    assert!(!api.needs_setup());
    let session = [("Cookie", cookie.as_str())];
    let me = ask(&api, "GET", "/api/v1/session", &session, "").await.json();
    assert_eq!(me, json!({ "name": "ada", "role": "admin", "scopes": null, "csrf_token": csrf }));
    let bye = [("Cookie", cookie.as_str()), ("X-CSRF-Token", csrf.as_str())];
    assert_eq!(ask(&api, "DELETE", "/api/v1/session", &bye, "").await.status, 204);
    assert_eq!(ask(&api, "GET", "/api/v1/session", &session, "").await.problem().0, 401);
}

#[tokio::test]
async fn a_change_by_a_session_needs_its_csrf_token() {
    let api = open().await;
    let (cookie, csrf) = set_up(&api).await;
    let body = json!({ "name": "ci", "role": "viewer" }).to_string();
    let cookie = ("Cookie", cookie.as_str());
    for wrong in [vec![], vec![("X-CSRF-Token", "")], vec![("X-CSRF-Token", "x")]] {
        let headers = [vec![cookie], wrong].concat();
        let answer = ask(&api, "POST", "/api/v1/tokens", &headers, &body).await;
        assert_eq!(answer.problem(), (403, "csrf".to_owned()));
    }
    let headers = [cookie, ("X-CSRF-Token", &csrf)];
    let made = ask(&api, "POST", "/api/v1/tokens", &headers, &body).await;
    assert_eq!(made.status, 201, "{made:?}");
    let secret = made.json()["token"].as_str().unwrap().to_owned();
    let bearer = bearer(&secret);
    let me = ask(&api, "GET", "/api/v1/session", &[("Authorization", &bearer)], "").await.json();
    assert_eq!((&me["name"], &me["role"]), (&json!("token ci"), &json!("viewer")));
    let listed = ask(&api, "GET", "/api/v1/tokens", &[cookie], "").await;
    assert!(listed.body.contains("\"ci\"") && !listed.body.contains(&secret), "{listed:?}");
    assert_eq!(ask(&api, "DELETE", "/api/v1/tokens/ci", &headers, "").await.status, 204);
    assert_eq!(ask(&api, "GET", "/api/v1/session", &[("Authorization", &bearer)], "").await.status, 401);
}

#[tokio::test]
async fn wrong_passwords_are_answered_alike_and_then_locked_out() {
    let api = open().await;
    set_up(&api).await;
    let attempt = async |name: &str| {
        let body = json!({ "name": name, "password": "wrong" }).to_string();
        ask(&api, "POST", "/api/v1/session", &[], &body).await
    };
    let (known, unknown) = (attempt("ada").await, attempt("nobody").await);
    assert_eq!(known.problem().0, 401);
    assert_eq!(known.body, unknown.body, "nothing tells who exists");
    for name in ["bob", "eve"] {
        for _ in 0..5 {
            assert_eq!(attempt(name).await.problem().0, 401);
        }
        let locked = attempt(name).await;
        assert_eq!(locked.problem(), (429, "locked_out".to_owned()));
        assert!(locked.head.contains("retry-after: "), "{locked:?}");
    }
}

#[tokio::test]
async fn another_password_or_role_ends_the_sessions_of_a_user() {
    let api = open_with(&with_tokens()).await;
    let admin = bearer("admin");
    let admin = [("Authorization", admin.as_str())];
    let body = json!({ "name": "bob", "role": "operator", "password": PASSWORD }).to_string();
    assert_eq!(ask(&api, "POST", "/api/v1/users", &admin, &body).await.status, 204);
    assert_eq!(ask(&api, "POST", "/api/v1/users", &admin, &body).await.problem().0, 409);
    for change in [json!({ "role": "viewer" }), json!({ "password": PASSWORD })] {
        let (cookie, _) = sign_in(&api, "bob", PASSWORD).await;
        let session = [("Cookie", cookie.as_str())];
        assert_eq!(ask(&api, "GET", "/api/v1/session", &session, "").await.status, 200);
        let changed = ask(&api, "PATCH", "/api/v1/users/bob", &admin, &change.to_string()).await;
        assert_eq!(changed.status, 204, "{changed:?}");
        assert_eq!(ask(&api, "GET", "/api/v1/session", &session, "").await.status, 401);
    }
    let listed = ask(&api, "GET", "/api/v1/users", &admin, "").await;
    assert!(!listed.body.contains("argon2"), "hashes aren't shown: {listed:?}");
    let declared = ask(&api, "DELETE", "/api/v1/tokens/viewer", &admin, "").await;
    assert_eq!(declared.problem(), (409, "conflict".to_owned()));
}

#[tokio::test]
async fn bodies_that_do_not_fit_are_problems() {
    let api = open_with(&with_tokens()).await;
    let admin = bearer("admin");
    let admin = [("Authorization", admin.as_str())];
    let user = |name: &str, password: &str| {
        json!({ "name": name, "role": "viewer", "password": password }).to_string()
    };
    for (body, expected) in [
        (String::new(), 400),
        ("{".to_owned(), 400),
        ("[]".to_owned(), 422),
        ("{}".to_owned(), 422),
        (user("", PASSWORD), 422),
        (user("a b", PASSWORD), 422),
        (user("..", PASSWORD), 422),
        (user(&"x".repeat(65), PASSWORD), 422),
        (user("x", &"x".repeat(11)), 422),
        (user("x", &"x".repeat(1025)), 422),
        (json!({ "name": "x", "role": "root", "password": PASSWORD }).to_string(), 422),
        (json!({ "name": "x", "role": "viewer", "password": PASSWORD, "x": 1 }).to_string(), 422),
        (user("x", &"x".repeat(BODY_BYTES_MAX)), 413),
    ] {
        let answer = ask(&api, "POST", "/api/v1/users", &admin, &body).await;
        assert_eq!(answer.problem().0, expected, "{answer:?}");
    }
    for (name, password) in [("a".repeat(64), "x".repeat(12)), ("b".to_owned(), "x".repeat(1024))] {
        assert_eq!(ask(&api, "POST", "/api/v1/users", &admin, &user(&name, &password)).await.status, 204);
    }
    let text = "POST /api/v1/users HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 2\r\n\
                Authorization: Bearer admin\r\n\r\n{}";
    assert_eq!(send(api.address().unwrap(), text).await.problem(), (415, "media_type".to_owned()));
}

#[tokio::test]
async fn nothing_is_changed_where_the_configuration_says_so() {
    let api = open_with(&Admin { read_only: true, ..with_tokens() }).await;
    let admin = bearer("admin");
    let admin = [("Authorization", admin.as_str())];
    let body = json!({ "name": "x", "role": "viewer" }).to_string();
    let refused = ask(&api, "POST", "/api/v1/tokens", &admin, &body).await;
    assert_eq!(refused.problem(), (403, "read_only".to_owned()));
    assert_eq!(ask(&api, "GET", "/api/v1/tokens", &admin, "").await.status, 200);
    let setup_token = api.make_setup_token().unwrap();
    let body = json!({ "setup_token": setup_token, "name": "ada", "password": PASSWORD }).to_string();
    let refused = ask(&api, "POST", "/api/v1/setup", &[], &body).await;
    assert_eq!(refused.problem(), (403, "read_only".to_owned()));
    // Whatever the route: restores and reloads as well.
    let page = route_page();
    let mut refused = Vec::new();
    for line in page.lines().filter(|line| line.starts_with("| ") && line.contains(":write |")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [method, path, operation, ..] = cells[..] else { panic!("{line}") };
        let path = path.trim_matches('`').replace(['{', '}'], "");
        let answer = ask(&api, method, &path, &admin, "{}").await;
        assert_eq!(answer.problem(), (403, "read_only".to_owned()), "{line}");
        refused.push(operation);
    }
    assert!(refused.len() >= 25, "{refused:?}");
    assert!(
        ["reload", "restoreBackup", "testConnector"].iter().all(|one| refused.contains(one)),
        "{refused:?}"
    );
    api.close().await;
    let nobody = open_with(&Admin { read_only: true, ..anywhere() }).await;
    assert!(!nobody.needs_setup(), "there is nothing to print a token for");
}

#[tokio::test]
async fn a_token_that_is_held_to_scopes_gives_no_more_than_it_has() {
    let scopes = ["users:write", "clients:read"];
    let config = Admin { tokens: vec![token("narrow", Role::Admin, Some(&scopes))], ..anywhere() };
    let api = open_with(&config).await;
    let narrow = bearer("narrow");
    let narrow = [("Authorization", narrow.as_str())];
    let make = async |name: &str, scopes: serde_json::Value| {
        let body = json!({ "name": name, "role": "admin", "scopes": scopes }).to_string();
        ask(&api, "POST", "/api/v1/tokens", &narrow, &body).await
    };
    for more in [json!(null), json!(["clients:write"]), json!(["clients:read", "rules:read"])] {
        assert_eq!(make("x", more.clone()).await.problem(), (403, "forbidden".to_owned()), "{more}");
    }
    for (name, same) in
        [("a", json!([])), ("b", json!(["clients:read"])), ("c", json!(["users:read", "users:write"]))]
    {
        assert_eq!(make(name, same).await.status, 201);
    }
    let user = json!({ "name": "x", "role": "viewer", "password": PASSWORD }).to_string();
    assert_eq!(ask(&api, "POST", "/api/v1/users", &narrow, &user).await.problem().0, 403);
    let user = json!({ "role": "admin" }).to_string();
    assert_eq!(ask(&api, "PATCH", "/api/v1/users/x", &narrow, &user).await.problem().0, 403);
}

#[tokio::test]
async fn one_name_has_one_owner() {
    let folder = tempfile::tempdir().unwrap();
    let api = listening(&anywhere(), Some(folder.path())).await;
    let (cookie, csrf) = set_up(&api).await;
    let headers = [("Cookie", cookie.as_str()), ("X-CSRF-Token", csrf.as_str())];
    let body = json!({ "name": "viewer", "role": "viewer" }).to_string();
    assert_eq!(ask(&api, "POST", "/api/v1/tokens", &headers, &body).await.status, 201);
    api.close().await;
    let error = opened(&with_tokens(), Some(folder.path())).unwrap_err();
    let text = crate::cli::chain(&error);
    assert!(
        text.contains("token \"viewer\" is declared in the configuration ([[admin.tokens]]) and kept in"),
        "{text}"
    );
    assert!(opened(&anywhere(), Some(folder.path())).is_ok());
}
