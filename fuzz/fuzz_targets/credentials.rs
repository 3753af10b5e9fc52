//! Everything of authentication that reads what strangers write, and the file of users: the first byte says which.
//!
//! - a file of users: taken or refused, and whoever has an empty password isn't in;
//! - a token: nobody has the key, so none of them is right;
//! - SCRAM: the first message, then the last, parted by a newline; nobody knows the password, so none of them is right;
//! - a certificate, which must not be unreadable in a way that stops us.
#![no_main]

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use access::authentication::{
    Algorithm, Attempt, Certificate, CertificateName, Chain, Counters, Hashing, HashingLimits, Jwt, JwtSettings,
    KeySource, Lockout, LockoutLimits, Method, Scram, TokenPlace, Verdict, users_in,
};
use libfuzzer_sys::fuzz_target;
use mqtt_protocol::ProtocolVersion;

const USER: &str = "user:$scram-sha-256$4096$W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=$wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=\n";

static CHAIN: LazyLock<Chain> = LazyLock::new(|| {
    let path = std::env::temp_dir().join(format!("tidegate-fuzz-users-{}", std::process::id()));
    std::fs::write(&path, USER).unwrap();
    let scram = Scram::open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let jwt = Jwt::new(JwtSettings {
        algorithms: vec![Algorithm::Hs256],
        keys: KeySource::Secret([7; 32].into()),
        place: TokenPlace::Password,
        issuer: None,
        audience: Vec::new(),
        needs_expiry: false,
        leeway: Duration::ZERO,
        username_claim: "sub".to_owned(),
        client_id_claim: None,
        groups_claim: "groups".to_owned(),
        acl_claim: "acl".to_owned(),
    });
    let methods = vec![
        ("jwt".into(), Arc::new(Method::Jwt(Box::new(jwt.unwrap())))),
        ("scram".into(), Arc::new(Method::Scram(scram))),
        ("certificate".into(), Arc::new(Method::Certificate(Certificate::new(CertificateName::SubjectDn)))),
    ];
    let lockout = LockoutLimits { failures_per_address: 0, failures_per_user: 0, ..LockoutLimits::default() };
    let hashing = Hashing::new(HashingLimits::default()).unwrap();
    Chain::new(methods, Arc::new(Lockout::new(lockout)), Arc::new(hashing), Arc::new(Counters::default()))
});

static RUNTIME: LazyLock<tokio::runtime::Runtime> =
    LazyLock::new(|| tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap());

fuzz_target!(|data: &[u8]| {
    let Some((kind, data)) = data.split_first() else { return };
    let mut attempt = Attempt {
        client_id: "c".into(),
        username: None,
        password: None,
        enhanced: None,
        certificate: None,
        address: None,
        listener: "tcp".into(),
        version: ProtocolVersion::V5,
    };
    match kind % 4 {
        0 => {
            if let Ok(text) = std::str::from_utf8(data)
                && let Ok(users) = users_in(text)
            {
                assert!(users > 0 && users <= text.lines().count());
            }
            return;
        }
        1 => attempt.password = Some(data.into()),
        2 => {
            let first = data.split(|byte| *byte == b'\n').next().unwrap_or_default();
            attempt.enhanced = Some(("SCRAM-SHA-256".into(), first.into()));
        }
        _ => attempt.certificate = Some(data.into()),
    }
    let is_certificate = attempt.certificate.is_some();
    match RUNTIME.block_on(CHAIN.decide(&attempt)) {
        Verdict::Refuse(..) => {}
        // What TLS lets through is right.
        Verdict::Accept(..) if is_certificate => {}
        Verdict::Continue(exchange, challenge) => {
            assert!(challenge.starts_with(b"r="));
            let last = data.splitn(2, |byte| *byte == b'\n').nth(1).unwrap_or_default();
            assert!(matches!(exchange.answer(last), Verdict::Refuse(..)));
        }
        Verdict::Accept(..) => panic!("somebody came in"),
    }
});
