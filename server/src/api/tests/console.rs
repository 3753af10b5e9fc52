//! The console's page, and what it needs before anybody has signed in.

use serde_json::json;

use super::security::set_up;
use super::*;

/// The nonce that the policy of a page lets in.
fn nonce(page: &Answer) -> String {
    // Heads are kept in lower case, pages aren't.
    let (_, rest) = page.head.split_once("'nonce-").expect("a nonce");
    rest.split('\'').next().unwrap().to_owned()
}

#[tokio::test]
async fn the_page_is_open_and_has_a_policy_and_a_nonce_of_its_own() {
    let api = open().await;
    let page = get(api.address().unwrap(), "/").await;
    assert_eq!(page.status, 200, "{page:?}");
    let first = nonce(&page);
    let policy = format!(
        "\ncontent-security-policy: default-src 'none'; script-src 'self'; style-src 'self' 'nonce-{first}'; \
         img-src 'self' data:; font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'\r\n"
    );
    assert_eq!(page.head.matches("content-security-policy").count(), 1, "{page:?}");
    for header in [
        policy.as_str(),
        "\ncontent-type: text/html; charset=utf-8\r\n",
        "\ncache-control: no-store\r\n",
        "\nx-frame-options: deny\r\n",
    ] {
        assert!(page.head.contains(header), "{header} is missing in {page:?}");
    }
    assert!(page.body.to_lowercase().contains(&format!("\"{first}\"")), "{page:?}");
    assert!(!page.body.contains("__CSP_NONCE__"), "{page:?}");
    let again = nonce(&get(api.address().unwrap(), "/").await);
    assert!(again != first && again.len() == 43, "{first} and {again}");
    let head = "HEAD / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let head = send(api.address().unwrap(), head).await;
    assert_eq!((head.status, &*head.body), (200, ""), "{head:?}");
    let rebound = "GET / HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n";
    assert_eq!(send(api.address().unwrap(), rebound).await.problem().0, 421);
    api.close().await;
}

#[tokio::test]
async fn it_is_told_whether_the_first_administrator_is_still_to_be_made() {
    let api = open().await;
    let needed = async || get(api.address().unwrap(), "/api/v1/setup").await.json();
    assert_eq!(needed().await, json!({ "needed": true }));
    set_up(&api).await;
    assert_eq!(needed().await, json!({ "needed": false }));
    api.close().await;
    let nothing_changes = listening(&Admin { read_only: true, ..anywhere() }, None).await;
    let told = get(nothing_changes.address().unwrap(), "/api/v1/setup").await.json();
    assert_eq!(told, json!({ "needed": false }), "a setup token would be refused");
    nothing_changes.close().await;
}
