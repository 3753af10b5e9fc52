//! `tidegate certs show` from outside.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a helper of tests panics where it can't go on"
)]

mod common;

use std::fs;
use std::path::Path;
use std::process::Output;

use common::tidegate;
use rcgen::{CertificateParams, DnType, KeyPair, date_time_ymd};
use serde_json::Value;

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[track_caller]
fn shown(code: i32, arguments: &[&str]) -> String {
    let output = tidegate(&[&["certs", "show"], arguments].concat());
    assert_eq!(output.status.code(), Some(code), "{}{}", out(&output), err(&output));
    out(&output) + &err(&output)
}

/// Writes a certificate that signs itself, `NAME.pem`, and its key, `NAME.key`.
fn write(folder: &Path, name: &str, change: impl FnOnce(&mut CertificateParams)) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(["device.example".to_owned()]).unwrap();
    params.not_after = date_time_ymd(2100, 1, 1);
    change(&mut params);
    let certificate = params.self_signed(&key).unwrap();
    fs::write(folder.join(format!("{name}.pem")), certificate.pem()).unwrap();
    fs::write(folder.join(format!("{name}.key")), key.serialize_pem()).unwrap();
}

#[test]
fn certificates_for_development_are_shown() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let made = tidegate(&["certs", "dev", "--out", &at(""), "--client", "pump-7"]);
    assert_eq!(made.status.code(), Some(0), "{}", err(&made));
    let text = shown(0, &[&at("server.pem"), &at("ca.pem"), "--key", &at("server.key")]);
    for part in [
        "server.pem\n  subject      CN=localhost\n  names        dns:localhost, ip:127.0.0.1, ip:::1\n",
        "issuer       CN=Tidegate authority for development\n",
        "authority    no\n",
        // A whole year, and a second later less.
        if text.contains(", 365 days left\n") { ", 365 days left\n" } else { ", 364 days left\n" },
        "server.key is its key\n",
        "ca.pem\n  subject      CN=Tidegate authority for development\n  names        none\n",
        "authority    yes\n",
    ] {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
    let text = shown(0, &["--json", &at("client.pem")]);
    let client: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(client["subject"], "CN=pump-7");
    assert!([364, 365].map(Value::from).contains(&client["days_left"]), "{client}");
    assert_eq!(client["key_matches"], Value::Null);
    let fingerprint = client["fingerprint"].as_str().unwrap();
    assert!(
        fingerprint.len() == 64 && fingerprint.bytes().all(|byte| byte.is_ascii_hexdigit()),
        "{fingerprint}"
    );
}

#[test]
fn what_is_amiss_is_said_and_is_no_success() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    write(folder.path(), "good", |_| {});
    write(folder.path(), "over", |params| params.not_after = date_time_ymd(2020, 1, 1));
    write(folder.path(), "early", |params| params.not_before = date_time_ymd(2099, 1, 1));
    let key = fs::read_to_string(at("good.key")).unwrap();
    let secret = key.lines().nth(1).unwrap();
    for (arguments, why) in [
        (vec![at("good.pem"), "--key".into(), at("over.key")], "it is NOT its key"),
        (vec![at("good.pem"), "--key".into(), at("good.pem")], "it holds no private key in PEM"),
        (vec![at("good.pem"), "--key".into(), at("none")], "it can't be read"),
        (vec![at("over.pem")], "not after    2020-01-01T00:00:00Z, EXPIRED "),
        (vec![at("early.pem")], "NOT VALID YET"),
        (vec![at("good.key")], "it holds no certificate in PEM"),
        (vec![at("none"), at("good.pem")], "none: it can't be read"),
    ] {
        let text = shown(1, &arguments.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(text.contains(why), "{arguments:?}:\n{text}");
        assert!(!text.contains(secret), "{text}");
    }
    // A file that can't be read doesn't keep the others from being shown.
    assert!(shown(1, &[&at("none"), &at("good.pem")]).contains("names        dns:device.example"));
    assert!(shown(2, &[]).contains("FILE"));
}

#[test]
fn every_certificate_of_a_chain_is_shown_and_none_commands_the_terminal() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "a", |params| {
        params.distinguished_name.push(DnType::CommonName, "a\u{1b}[2J\n  key          x is its key");
    });
    write(folder.path(), "b", |_| {});
    let chain = ["a.pem", "b.pem"].map(|name| fs::read_to_string(folder.path().join(name)).unwrap()).concat();
    let path = folder.path().join("chain.pem");
    fs::write(&path, chain).unwrap();
    let text = shown(0, &[path.to_str().unwrap()]);
    assert!(text.contains("chain.pem (1 of 2)\n") && text.contains("chain.pem (2 of 2)\n"), "{text}");
    assert!(!text.contains('\u{1b}') && !text.contains("\n  key "), "{text}");
}

#[test]
fn the_certificates_of_listeners_are_shown_with_their_keys() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["a", "b", "ca"] {
        write(folder.path(), name, |_| {});
    }
    let config = folder.path().join("tidegate.toml");
    fs::write(
        &config,
        "[[listeners]]\nname = 'devices'\nkind = 'tls'\naddress = '127.0.0.1:1'\n[listeners.tls]\n\
         certificate = 'a.pem'\nkey = 'a.key'\nclient_certificates = 'required'\nclient_ca = 'ca.pem'\n\
         sni = [{ name = 'b.example', certificate = 'b.pem', key = 'a.key' }]\n\
         [[listeners]]\nname = 'plain'\nkind = 'tcp'\naddress = '127.0.0.1:2'\n\
         [authentication.cert]\ntype = 'certificate'\nusername = 'subject_cn'\n",
    )
    .unwrap();
    let config = config.to_str().unwrap();
    let text = shown(1, &["--listener", "devices", "--config", config]);
    for part in [
        "a.pem: listener \"devices\", tls.certificate\n",
        "b.pem: listener \"devices\", tls.sni \"b.example\"\n",
        "ca.pem: listener \"devices\", tls.client_ca\n",
        "a.key is its key\n",
        "a.key: it is NOT its key\n",
    ] {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
    assert_eq!(shown(1, &["--config", config, "--listener"]), text);
    let none = shown(1, &["--config", config, "--listener", "plain"]);
    assert!(none.contains("there is no listener \"plain\" that has certificates"), "{none}");
}
