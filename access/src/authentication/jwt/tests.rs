use mqtt_protocol::ProtocolVersion;
use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
    KeyPair as _,
};
use serde_json::json;

use super::*;
use crate::authentication::EndpointSettings;
use crate::authentication::test_server::Server;

const SECRET: &[u8] = &[7; 64];
const NOW: Duration = Duration::from_secs(1_700_000_000);

fn settings(algorithms: &[Algorithm], keys: KeySource) -> JwtSettings {
    JwtSettings {
        algorithms: algorithms.to_vec(),
        keys,
        place: TokenPlace::Password,
        issuer: None,
        audience: Vec::new(),
        needs_expiry: true,
        leeway: Duration::ZERO,
        username_claim: "sub".to_owned(),
        client_id_claim: None,
        groups_claim: "groups".to_owned(),
        acl_claim: "acl".to_owned(),
    }
}

fn with_secret() -> JwtSettings {
    settings(&[Algorithm::Hs256], KeySource::Secret(SECRET.into()))
}

fn unsigned(header: &Value, claims: &Value) -> String {
    [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string())).join(".")
}

fn signed(header: &Value, claims: &Value, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let text = unsigned(header, claims);
    let signature = URL_SAFE_NO_PAD.encode(sign(text.as_bytes()));
    format!("{text}.{signature}")
}

fn hs256(claims: &Value) -> String {
    signed(&json!({ "alg": "HS256" }), claims, by_secret(hmac::HMAC_SHA256))
}

fn by_secret(algorithm: hmac::Algorithm) -> impl FnOnce(&[u8]) -> Vec<u8> {
    move |text| hmac::sign(&hmac::Key::new(algorithm, SECRET), text).as_ref().to_vec()
}

async fn check(settings: JwtSettings, token: &str) -> Result<Identity, String> {
    let jwt = Jwt::new(settings).unwrap();
    let token = Token::split(token).unwrap();
    jwt.check(&token, "client-1", NOW).await.map_err(|(_, why)| why.to_owned())
}

fn claims_with(key: &str, value: Value) -> Value {
    let mut claims = json!({ "sub": "ada", "exp": 1_700_000_060 });
    claims[key] = value;
    claims
}

#[tokio::test]
async fn a_token_says_who_the_client_is_until_when_and_what_it_may() {
    let claims = json!({
        "sub": "ada", "exp": 1_700_000_060.5, "nbf": 1_700_000_000, "groups": ["ops", "plant"], "acl": [{ "x": 1 }],
    });
    let identity = check(with_secret(), &hs256(&claims)).await.unwrap();
    assert_eq!(identity.username.as_deref(), Some("ada"));
    assert_eq!(identity.expires_at_ms, Some(1_700_000_060_500));
    assert_eq!(*identity.groups, [Arc::from("ops"), Arc::from("plant")]);
    assert_eq!(identity.acl, Some(json!([{ "x": 1 }])));
}

#[tokio::test]
async fn the_time_of_a_token_has_a_beginning_and_an_end() {
    let refusal = async |key, value: Value, change: fn(&mut JwtSettings)| {
        let mut settings = with_secret();
        change(&mut settings);
        check(settings, &hs256(&claims_with(key, value))).await.err()
    };
    let leeway = |settings: &mut JwtSettings| settings.leeway = Duration::from_secs(30);
    let as_it_is = |_: &mut JwtSettings| {};
    let (over, early) =
        (Some("the token has ended".to_owned()), Some("the token's time hasn't come".to_owned()));
    assert_eq!(refusal("exp", json!(1_700_000_001), as_it_is).await, None);
    assert_eq!(refusal("exp", json!(1_700_000_000), as_it_is).await, over);
    assert_eq!(refusal("exp", json!(1_699_999_971), leeway).await, None);
    assert_eq!(refusal("exp", json!(1_699_999_970), leeway).await, over);
    assert_eq!(refusal("exp", json!(-1), as_it_is).await, over);
    assert_eq!(refusal("exp", json!(1e300), as_it_is).await, None);
    assert_eq!(refusal("nbf", json!(1_700_000_000), as_it_is).await, None);
    assert_eq!(refusal("nbf", json!(1_700_000_001), as_it_is).await, early);
    assert_eq!(refusal("nbf", json!(1_700_000_030), leeway).await, None);
    assert_eq!(refusal("nbf", json!(1_700_000_031), leeway).await, early);
    for no_time in [json!("1800000000"), json!(null), json!([1])] {
        assert!(refusal("exp", no_time.clone(), as_it_is).await.is_some());
        assert!(refusal("nbf", no_time, as_it_is).await.is_some());
    }
    let endless = hs256(&json!({ "sub": "ada" }));
    assert_eq!(check(with_secret(), &endless).await.unwrap_err(), "the token doesn't say when it ends");
    let lenient = JwtSettings { needs_expiry: false, ..with_secret() };
    assert_eq!(check(lenient, &endless).await.unwrap().expires_at_ms, None);
}

#[tokio::test]
async fn a_token_is_of_its_issuer_for_its_audience_and_client() {
    type Change = fn(&mut JwtSettings);
    let issuer: Change = |settings| settings.issuer = Some("https://id.example".to_owned());
    let audience: Change = |settings| settings.audience = vec!["gateway".to_owned(), "plant".to_owned()];
    let client: Change = |settings| settings.client_id_claim = Some("device".to_owned());
    let nothing: Change = |_| {};
    for (change, key, value, fits) in [
        (issuer, "iss", json!("https://id.example"), true),
        (issuer, "iss", json!("https://id.example/"), false),
        (issuer, "iss", json!(["https://id.example"]), false),
        (issuer, "x", json!(1), false),
        (audience, "aud", json!("plant"), true),
        (audience, "aud", json!(["other", "gateway"]), true),
        (audience, "aud", json!("other"), false),
        (audience, "aud", json!([]), false),
        (audience, "x", json!(1), false),
        // For somebody, and nobody says that it is us (RFC 7519 §4.1.3).
        (nothing, "aud", json!("gateway"), false),
        (client, "device", json!("client-1"), true),
        (client, "device", json!("client-2"), false),
        (client, "x", json!(1), false),
        (nothing, "groups", json!("ops"), false),
        (nothing, "groups", json!(["ops", 1]), false),
        (nothing, "groups", json!([""]), false),
        (nothing, "groups", json!(vec!["g"; GROUPS_MAX]), true),
        (nothing, "groups", json!(vec!["g"; GROUPS_MAX + 1]), false),
        (nothing, "sub", json!(""), false),
        (nothing, "sub", json!(7), false),
        (nothing, "sub", json!("a\u{0}b"), false),
        (nothing, "sub", json!("x".repeat(NAME_BYTES_MAX)), true),
        (nothing, "sub", json!("x".repeat(NAME_BYTES_MAX + 1)), false),
    ] {
        let mut settings = with_secret();
        change(&mut settings);
        let outcome = check(settings, &hs256(&claims_with(key, value.clone()))).await;
        assert_eq!(outcome.is_ok(), fits, "{key} {value}: {outcome:?}");
    }
    let named = JwtSettings { username_claim: "name".to_owned(), ..with_secret() };
    let identity = check(named, &hs256(&claims_with("name", json!("bob")))).await.unwrap();
    assert_eq!(identity.username.as_deref(), Some("bob"));
}

#[tokio::test]
async fn only_algorithms_that_are_allowed_count_and_never_none() {
    let claims = claims_with("x", json!(1));
    for alg in ["none", "None", "NONE", "", "hs256", "HS384", "RS256"] {
        let token = signed(&json!({ "alg": alg }), &claims, by_secret(hmac::HMAC_SHA256));
        assert!(check(with_secret(), &token).await.is_err(), "{alg}");
        let bare = format!("{}.", unsigned(&json!({ "alg": alg }), &claims));
        assert!(check(with_secret(), &bare).await.is_err(), "{alg}");
    }
    let bare = format!("{}.", unsigned(&json!({ "alg": "HS256" }), &claims));
    assert!(check(with_secret(), &bare).await.is_err());
    for header in
        [json!({}), json!({ "alg": ["HS256"] }), json!({ "alg": "HS256", "crit": ["b64"], "b64": false })]
    {
        let token = signed(&header, &claims, by_secret(hmac::HMAC_SHA256));
        assert!(check(with_secret(), &token).await.is_err(), "{header}");
    }
    for (algorithm, of_ring) in [(Algorithm::Hs384, hmac::HMAC_SHA384), (Algorithm::Hs512, hmac::HMAC_SHA512)]
    {
        let token = signed(&json!({ "alg": algorithm.name() }), &claims, by_secret(of_ring));
        let settings = settings(&[algorithm], KeySource::Secret(SECRET.into()));
        assert!(check(settings, &token).await.is_ok());
        assert!(check(with_secret(), &token).await.is_err());
    }
}

#[tokio::test]
async fn a_changed_token_is_refused() {
    let token = hs256(&claims_with("x", json!(1)));
    assert!(check(with_secret(), &token).await.is_ok());
    let (rest, signature) = token.rsplit_once('.').unwrap();
    let other = hs256(&claims_with("sub", json!("eve")));
    let (other_rest, _) = other.rsplit_once('.').unwrap();
    for changed in [format!("{other_rest}.{signature}"), format!("{rest}."), format!("{rest}.AAAA")] {
        assert!(check(with_secret(), &changed).await.is_err());
    }
    let other_key = settings(&[Algorithm::Hs256], KeySource::Secret([8; 64].into()));
    assert!(check(other_key, &token).await.is_err());
}

fn pem(label: &str, der: &[u8]) -> Vec<u8> {
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n").into_bytes()
}

/// SubjectPublicKeyInfo of a P-256 or Ed25519 key: what stands before the key is always the same.
fn info(before: &[u8], key: &[u8]) -> Vec<u8> {
    pem("PUBLIC KEY", &[before, key].concat())
}

const P256_INFO: &[u8] =
    b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00";
const P384_INFO: &[u8] =
    b"\x30\x76\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x22\x03\x62\x00";
const ED25519_INFO: &[u8] = b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";

#[tokio::test]
async fn elliptic_signatures_are_checked_with_their_public_keys() {
    let random = SystemRandom::new();
    let claims = claims_with("x", json!(1));
    for (algorithm, of_ring, before) in [
        (Algorithm::Es256, &ECDSA_P256_SHA256_FIXED_SIGNING, P256_INFO),
        (Algorithm::Es384, &ECDSA_P384_SHA384_FIXED_SIGNING, P384_INFO),
    ] {
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(of_ring, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(of_ring, pkcs8.as_ref(), &random).unwrap();
        let sign = |text: &[u8]| pair.sign(&random, text).unwrap().as_ref().to_vec();
        let token = signed(&json!({ "alg": algorithm.name() }), &claims, sign);
        let public = KeySource::Public(info(before, pair.public_key().as_ref()));
        assert!(check(settings(&[algorithm], public), &token).await.is_ok(), "{algorithm:?}");
    }
    let pair = Ed25519KeyPair::from_pkcs8(Ed25519KeyPair::generate_pkcs8(&random).unwrap().as_ref()).unwrap();
    let token = signed(&json!({ "alg": "EdDSA" }), &claims, |text| pair.sign(text).as_ref().to_vec());
    let public = info(ED25519_INFO, pair.public_key().as_ref());
    let of = |public: &[u8]| settings(&[Algorithm::EdDsa], KeySource::Public(public.to_vec()));
    assert!(check(of(&public), &token).await.is_ok());
    let other =
        Ed25519KeyPair::from_pkcs8(Ed25519KeyPair::generate_pkcs8(&random).unwrap().as_ref()).unwrap();
    let other = info(ED25519_INFO, other.public_key().as_ref());
    assert!(check(of(&other), &token).await.is_err());
    // The public key as the secret of an HMAC: everybody has it.
    let forged = signed(&json!({ "alg": "HS256" }), &claims, |text| {
        hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &public), text).as_ref().to_vec()
    });
    assert!(check(of(&public), &forged).await.is_err());
    // One that is configured so is refused from the start.
    let mixed = settings(&[Algorithm::EdDsa, Algorithm::Hs256], KeySource::Public(public));
    assert!(matches!(Jwt::new(mixed), Err(JwtError::Key(KeyError::Unfit))));
}

/// RFC 7515, appendix A.2.
const RFC_TOKEN: &str = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";
const RFC_MODULUS: &str = "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ";

/// SubjectPublicKeyInfo of the RFC's key.
fn rfc_info() -> Vec<u8> {
    let n = URL_SAFE_NO_PAD.decode(RFC_MODULUS).unwrap();
    let mut rsa = b"\x30\x82\x01\x0a\x02\x82\x01\x01\x00".to_vec();
    rsa.extend(&n);
    rsa.extend(b"\x02\x03\x01\x00\x01");
    let mut der =
        b"\x30\x82\x01\x22\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00\x03\x82\x01\x0f\x00"
            .to_vec();
    der.extend(rsa);
    pem("PUBLIC KEY", &der)
}

#[tokio::test]
async fn the_rsa_signature_of_the_rfc_is_right() {
    let settings = JwtSettings {
        username_claim: "iss".to_owned(),
        ..settings(&[Algorithm::Rs256, Algorithm::Rs384, Algorithm::Ps256], KeySource::Public(rfc_info()))
    };
    let at = Duration::from_secs(1_300_819_379);
    let jwt = Jwt::new(settings).unwrap();
    let identity = jwt.check(&Token::split(RFC_TOKEN).unwrap(), "c", at).await.unwrap();
    assert_eq!(identity.username.as_deref(), Some("joe"));
    let changed = RFC_TOKEN.replace("cC4hi", "cC4hj");
    assert!(jwt.check(&Token::split(&changed).unwrap(), "c", at).await.is_err());
}

#[test]
fn keys_that_don_t_fit_are_refused_from_the_start() {
    let refusal = |algorithms: &[Algorithm], keys: KeySource| match Jwt::new(settings(algorithms, keys)) {
        Err(JwtError::Key(error)) => Some(error),
        Err(other) => panic!("{other}"),
        Ok(_) => None,
    };
    let secret = |bytes: usize| KeySource::Secret(vec![7; bytes].into());
    assert_eq!(refusal(&[Algorithm::Hs256], secret(32)), None);
    assert_eq!(refusal(&[Algorithm::Hs256], secret(31)), Some(KeyError::ShortSecret("HS256", 32)));
    assert_eq!(
        refusal(&[Algorithm::Hs256, Algorithm::Hs512], secret(63)),
        Some(KeyError::ShortSecret("HS512", 64))
    );
    assert_eq!(refusal(&[Algorithm::Rs256], secret(64)), Some(KeyError::Unfit));
    assert_eq!(refusal(&[Algorithm::Es256], KeySource::Public(rfc_info())), Some(KeyError::Unfit));
    for nothing in [&b""[..], b"x", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"] {
        assert_eq!(refusal(&[Algorithm::Rs256], KeySource::Public(nothing.to_vec())), Some(KeyError::NotPem));
    }
    for (bytes, fits) in [(255, false), (256, true), (1024, true), (1025, false)] {
        let jwk = json!({ "kty": "RSA", "n": URL_SAFE_NO_PAD.encode(vec![0x80; bytes]), "e": "AQAB" });
        let jwk: super::key::Jwk = serde_json::from_value(jwk).unwrap();
        assert_eq!(jwk.key().is_some(), fits, "{bytes}");
    }
}

#[test]
fn what_is_no_token_is_not_taken_for_one() {
    let header = URL_SAFE_NO_PAD.encode("{}");
    for text in [
        "",
        "wonderland",
        "a.b.c",
        "..",
        &format!("{header}.x"),
        &format!("{header}.a.b.c"),
        &format!("{header}.a.*"),
    ] {
        assert!(Token::split(text).is_none(), "{text}");
    }
    assert!(Token::split(&format!("{}.a.b", URL_SAFE_NO_PAD.encode("[1]"))).is_none());
    assert!(Token::split(&format!("{header}.a.")).is_some());
}

fn attempt(username: Option<&str>, password: Option<&str>) -> Attempt {
    Attempt {
        client_id: "client-1".into(),
        username: username.map(Into::into),
        password: password.map(|password| password.as_bytes().into()),
        enhanced: None,
        certificate: None,
        address: None,
        listener: "tcp".into(),
        version: ProtocolVersion::V5,
    }
}

#[tokio::test]
async fn the_token_is_taken_from_where_it_is_said_to_be() {
    let endless = JwtSettings { needs_expiry: false, ..with_secret() };
    let token = hs256(&json!({ "sub": "ada" }));
    let in_password = Jwt::new(endless.clone()).unwrap();
    let in_username = Jwt::new(JwtSettings { place: TokenPlace::Username, ..endless }).unwrap();
    let is_ada = |outcome: &Outcome| matches!(outcome, Outcome::Allow(identity, None) if identity.username.as_deref() == Some("ada"));
    let in_its_place = in_password.authenticate(&attempt(Some("any"), Some(&token))).await;
    assert!(is_ada(&in_its_place), "{in_its_place:?}");
    assert!(is_ada(&in_username.authenticate(&attempt(Some(&token), None)).await));
    for (jwt, username, password) in [
        (&in_password, Some(&*token), None),
        (&in_password, Some("ada"), Some("wonderland")),
        (&in_password, None, None),
        (&in_username, Some("ada"), Some(&*token)),
    ] {
        assert!(matches!(jwt.authenticate(&attempt(username, password)).await, Outcome::Ignore));
    }
    let over = hs256(&json!({ "sub": "ada", "exp": 1 }));
    let outcome = in_password.authenticate(&attempt(None, Some(&over))).await;
    assert!(matches!(outcome, Outcome::Deny(Denial::BadCredentials, _)), "{outcome:?}");
    let padding = "x".repeat(TOKEN_BYTES_MAX);
    let long = hs256(&json!({ "sub": "ada", "x": padding }));
    assert!(matches!(in_password.authenticate(&attempt(None, Some(&long))).await, Outcome::Ignore));
}

// ---- a set of keys

struct Signer(Ed25519KeyPair, &'static str);

impl Signer {
    fn new(id: &'static str) -> Self {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Self(Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap(), id)
    }

    fn jwk(&self) -> Value {
        json!({ "kty": "OKP", "crv": "Ed25519", "kid": self.1, "x": URL_SAFE_NO_PAD.encode(self.0.public_key()) })
    }

    fn token(&self) -> String {
        let header = json!({ "alg": "EdDSA", "kid": self.1 });
        signed(&header, &claims_with("x", json!(1)), |text| self.0.sign(text).as_ref().to_vec())
    }
}

fn set_at(url: &str) -> Jwt {
    let set = KeySetSettings {
        endpoint: EndpointSettings {
            url: url.to_owned(),
            ca: None,
            insecure_http: false,
            timeout: Duration::from_secs(5),
            guard: None,
        },
        refresh_after: Duration::from_secs(3600),
        max_age: Duration::from_secs(24 * 3600),
    };
    Jwt::new(settings(&[Algorithm::EdDsa, Algorithm::Rs256], KeySource::Set(set))).unwrap()
}

async fn refusal(jwt: &Jwt, token: &str) -> Option<Denial> {
    jwt.check(&Token::split(token).unwrap(), "c", NOW).await.err().map(|(denial, _)| denial)
}

#[tokio::test]
async fn keys_are_fetched_once_and_again_for_a_new_name_but_not_all_the_time() {
    let (old, new, unknown) = (Signer::new("old"), Signer::new("new"), Signer::new("unknown"));
    let server = Server::start().await;
    server.answer(200, &json!({ "keys": [old.jwk(), { "kty": "other" }, 7] }).to_string());
    let jwt = set_at(&server.url());
    assert_eq!(refusal(&jwt, &old.token()).await, None);
    assert_eq!(refusal(&jwt, &old.token()).await, None);
    assert_eq!(server.requests(), 1);
    assert!(server.last().starts_with("GET /x HTTP/1.1"));
    server.answer(200, &json!({ "keys": [old.jwk(), new.jwk()] }).to_string());
    for _ in 0..10 {
        assert_eq!(refusal(&jwt, &unknown.token()).await, Some(Denial::BadCredentials));
    }
    assert_eq!(server.requests(), 1, "the last answer is younger than a minute");
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(61)).await;
    tokio::time::resume();
    assert_eq!(refusal(&jwt, &new.token()).await, None);
    assert_eq!(refusal(&jwt, &unknown.token()).await, Some(Denial::BadCredentials));
    assert_eq!(server.requests(), 2);
}

#[tokio::test]
async fn without_keys_nobody_comes_in_and_old_ones_serve_for_a_while() {
    let signer = Signer::new("k");
    let server = Server::start().await;
    let jwt = set_at(&server.url());
    for (status, body) in [(500, "{}"), (200, "no JSON"), (200, "{\"keys\":[]}"), (302, "")] {
        server.answer(status, body);
        assert_eq!(refusal(&jwt, &signer.token()).await, Some(Denial::Unavailable), "{status} {body}");
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(6)).await;
        tokio::time::resume();
    }
    server.answer(200, &format!("{{\"keys\":[],\"x\":\"{}\"}}", "x".repeat(256 * 1024)));
    assert_eq!(refusal(&jwt, &signer.token()).await, Some(Denial::Unavailable));
    server.answer(200, &json!({ "keys": [signer.jwk()] }).to_string());
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(6)).await;
    tokio::time::resume();
    assert_eq!(refusal(&jwt, &signer.token()).await, None);
    server.answer(500, "");
    for (hours, expected) in [(2, None), (23, Some(Denial::Unavailable))] {
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(hours * 3600)).await;
        tokio::time::resume();
        assert_eq!(refusal(&jwt, &signer.token()).await, expected, "{hours}");
    }
}

#[tokio::test]
async fn a_key_of_a_set_is_for_what_it_says() {
    let signer = Signer::new("k");
    let server = Server::start().await;
    for (key, value, fits) in [
        ("use", json!("sig"), true),
        ("use", json!("enc"), false),
        ("key_ops", json!(["verify"]), true),
        ("key_ops", json!(["sign"]), false),
        ("alg", json!("EdDSA"), true),
        ("alg", json!("ES256"), false),
        ("kid", json!("other"), false),
        ("kid", json!(null), false),
        ("crv", json!("X25519"), false),
        ("x", json!("AAAA"), false),
    ] {
        let mut jwk = signer.jwk();
        jwk[key] = value.clone();
        // Beside a key that is fine and another's.
        server.answer(200, &json!({ "keys": [Signer::new("z").jwk(), jwk] }).to_string());
        let refusal = refusal(&set_at(&server.url()), &signer.token()).await;
        assert_eq!(refusal.is_none(), fits, "{key} {value}");
    }
    // A token that names no key may be of any.
    let header = json!({ "alg": "EdDSA" });
    let token = signed(&header, &claims_with("x", json!(1)), |text| signer.0.sign(text).as_ref().to_vec());
    server.answer(200, &json!({ "keys": [Signer::new("z").jwk(), signer.jwk()] }).to_string());
    assert_eq!(refusal(&set_at(&server.url()), &token).await, None);
    let rsa = json!({ "kty": "RSA", "n": RFC_MODULUS, "e": "AQAB" });
    server.answer(200, &json!({ "keys": [rsa] }).to_string());
    let jwt = set_at(&server.url());
    let at = Duration::from_secs(1_300_819_379);
    let outcome = jwt.check(&Token::split(RFC_TOKEN).unwrap(), "c", at).await;
    assert_eq!(outcome.unwrap_err().1, "the token names no user");
}
