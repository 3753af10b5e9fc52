use std::fs;
use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, IsCa, KeyIdMethod,
    KeyPair, KeyUsagePurpose, SerialNumber, date_time_ymd,
};

use super::*;
use crate::config::{ClientCertificates, Listener, NamedCertificate, TlsVersion};

fn write_identity(folder: &Path, name: &str, change: impl FnOnce(&mut CertificateParams)) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new([format!("{name}.example")]).unwrap();
    change(&mut params);
    let certificate = params.self_signed(&key).unwrap();
    fs::write(folder.join(format!("{name}.pem")), certificate.pem()).unwrap();
    fs::write(folder.join(format!("{name}.key")), key.serialize_pem()).unwrap();
}

fn tls(folder: &Path) -> ListenerTls {
    ListenerTls {
        certificate: folder.join("a.pem"),
        key: folder.join("a.key"),
        client_certificates: ClientCertificates::None,
        client_ca: None,
        crl: Vec::new(),
        min_version: TlsVersion::V1_2,
        sni: Vec::new(),
    }
}

fn listener(tls: ListenerTls) -> Config {
    let listener = Listener { kind: ListenerKind::Tls, tls: Some(tls), ..Listener::local_default() };
    Config { listeners: vec![listener], ..Config::default() }
}

#[track_caller]
fn refused(config: ListenerTls) -> String {
    let faults = Certificates::load(&listener(config)).expect_err("faults");
    assert_eq!(faults.len(), 1, "{faults:?}");
    faults[0].to_string()
}

#[test]
fn what_is_wrong_with_a_file_is_said_with_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write_identity(folder, "a", |_| {});
    write_identity(folder, "b", |_| {});
    Certificates::load(&listener(tls(folder))).unwrap();

    let missing = refused(ListenerTls { certificate: folder.join("no.pem"), ..tls(folder) });
    assert!(
        missing.starts_with("listener \"tcp\": tls.certificate \"")
            && missing.contains("no.pem\": it can't be read"),
        "{missing}"
    );
    let mismatch = refused(ListenerTls { key: folder.join("b.key"), ..tls(folder) });
    assert!(
        mismatch.contains("tls.key") && mismatch.contains("it is not the key of the certificate"),
        "{mismatch}"
    );
    let swapped = refused(ListenerTls { key: folder.join("a.pem"), ..tls(folder) });
    assert!(swapped.contains("it holds no private key"), "{swapped}");
    let swapped = refused(ListenerTls { certificate: folder.join("a.key"), ..tls(folder) });
    assert!(swapped.contains("it holds no certificate"), "{swapped}");
    let key = fs::read(folder.join("a.key")).unwrap();
    fs::write(folder.join("cut.key"), &key[..key.len() / 2]).unwrap();
    let cut = refused(ListenerTls { key: folder.join("cut.key"), ..tls(folder) });
    assert!(cut.contains("it holds no private key"), "{cut}");
    // Nothing of a key is ever said.
    assert!(!cut.contains(std::str::from_utf8(&key[40..60]).unwrap()));
    fs::write(folder.join("junk.pem"), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        .unwrap();
    let junk = refused(ListenerTls { certificate: folder.join("junk.pem"), ..tls(folder) });
    assert!(junk.contains("it is no certificate of X.509"), "{junk}");
    let asks = ListenerTls { client_certificates: ClientCertificates::Required, ..tls(folder) };
    let ca = refused(ListenerTls { client_ca: Some(folder.join("a.key")), ..asks.clone() });
    assert!(ca.contains("tls.client_ca") && ca.contains("no certificate"), "{ca}");
    let crl = refused(ListenerTls {
        client_ca: Some(folder.join("a.pem")),
        crl: vec![folder.join("a.pem")],
        ..asks
    });
    assert!(crl.contains("tls.crl") && crl.contains("no list of revocations"), "{crl}");
    let sni =
        NamedCertificate { name: "b".into(), certificate: folder.join("b.pem"), key: folder.join("a.key") };
    let named = refused(ListenerTls { sni: vec![sni], ..tls(folder) });
    assert!(named.contains("tls.sni.key"), "{named}");
}

#[test]
fn a_certificate_that_has_expired_is_refused_and_one_to_come_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write_identity(folder, "a", |params| params.not_after = date_time_ymd(2020, 1, 1));
    let expired = refused(tls(folder));
    assert!(expired.contains("a.pem\": it has expired"), "{expired}");
    write_identity(folder, "a", |params| params.not_before = date_time_ymd(2190, 1, 1));
    Certificates::load(&listener(tls(folder))).unwrap();
}

#[test]
fn the_first_certificate_to_expire_counts() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write_identity(folder, "a", |params| params.not_after = date_time_ymd(2100, 1, 1));
    write_identity(folder, "b", |params| params.not_after = date_time_ymd(2099, 1, 1));
    let sni =
        NamedCertificate { name: "b".into(), certificate: folder.join("b.pem"), key: folder.join("b.key") };
    let loaded = Certificates::load(&listener(ListenerTls { sni: vec![sni], ..tls(folder) })).unwrap();
    assert_eq!(loaded.setup("tcp").unwrap().expires_at_s(), Some(4_070_908_800));
    assert!(loaded.setup("other").is_none());
}

#[test]
fn warnings_are_due_once_at_each_limit() {
    for (left_s, due) in [
        (31 * DAY_S, 0),
        (30 * DAY_S + 1, 0),
        (30 * DAY_S, 1),
        (7 * DAY_S + 1, 1),
        (7 * DAY_S, 2),
        (DAY_S, 3),
        (1, 3),
        (0, 4),
        (-DAY_S, 4),
    ] {
        assert_eq!(due_warnings(left_s), due, "{left_s}");
    }
}

#[test]
fn files_that_changed_are_taken_when_they_have_settled_and_refused_when_they_do_not_match() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write_identity(folder, "a", |params| params.not_after = date_time_ymd(2100, 1, 1));
    let certificates = Certificates::load(&listener(tls(folder))).unwrap();
    let end = || certificates.setup("tcp").unwrap().expires_at_s();
    let first = end();
    certificates.look();
    assert_eq!(end(), first);

    // A certificate whose key hasn't come yet: refused, the old one stays.
    write_identity(folder, "b", |params| params.not_after = date_time_ymd(2101, 1, 1));
    fs::rename(folder.join("b.pem"), folder.join("a.pem")).unwrap();
    certificates.look();
    certificates.look();
    certificates.look();
    assert_eq!(end(), first);

    // With the key it is whole. One look sees the change, the next that it stays.
    fs::rename(folder.join("b.key"), folder.join("a.key")).unwrap();
    certificates.look();
    assert_eq!(end(), first);
    certificates.look();
    assert_eq!(end(), Some(4_133_980_800));

    // What is gone is refused, too; and a reload by signal waits for nothing.
    fs::remove_file(folder.join("a.pem")).unwrap();
    certificates.look();
    certificates.look();
    assert_eq!(end(), Some(4_133_980_800));
    write_identity(folder, "a", |params| params.not_after = date_time_ymd(2102, 1, 1));
    certificates.apply(certificates.prepare(&listener(tls(folder))).unwrap());
    assert_eq!(end(), Some(4_165_516_800));
}

#[test]
fn a_symbolic_link_that_is_turned_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for (name, year) in [("one", 2100), ("two", 2101)] {
        fs::create_dir(folder.join(name)).unwrap();
        write_identity(&folder.join(name), "a", |params| params.not_after = date_time_ymd(year, 1, 1));
    }
    let link = folder.join("current");
    std::os::unix::fs::symlink("one", &link).unwrap();
    let certificates = Certificates::load(&listener(tls(&link))).unwrap();
    std::os::unix::fs::symlink("two", folder.join("next")).unwrap();
    fs::rename(folder.join("next"), &link).unwrap();
    certificates.look();
    certificates.look();
    assert_eq!(certificates.setup("tcp").unwrap().expires_at_s(), Some(4_133_980_800));
}

#[test]
fn lists_of_revocations_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write_identity(folder, "a", |_| {});
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    fs::write(folder.join("ca.pem"), authority.pem()).unwrap();
    let list = CertificateRevocationListParams {
        this_update: date_time_ymd(2024, 1, 1),
        next_update: date_time_ymd(2100, 1, 1),
        crl_number: SerialNumber::from(1u64),
        issuing_distribution_point: None,
        revoked_certs: Vec::new(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    fs::write(folder.join("ca.crl"), list.signed_by(&authority).unwrap().pem().unwrap()).unwrap();
    let config = ListenerTls {
        client_certificates: ClientCertificates::Required,
        client_ca: Some(folder.join("ca.pem")),
        crl: vec![folder.join("ca.crl")],
        ..tls(folder)
    };
    Certificates::load(&listener(config)).unwrap();
}

#[test]
fn a_reload_reads_what_has_changed_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write_identity(folder, "a", |params| params.not_after = date_time_ymd(2100, 1, 1));
    write_identity(folder, "b", |params| params.not_after = date_time_ymd(2101, 1, 1));
    let certificates = Certificates::load(&listener(tls(folder))).unwrap();
    let setup = certificates.setup("tcp").unwrap();
    // Other files: what is shown changes when it is applied, and not before.
    let other = ListenerTls { certificate: folder.join("b.pem"), key: folder.join("b.key"), ..tls(folder) };
    let prepared = certificates.prepare(&listener(other.clone())).unwrap();
    assert_eq!(setup.expires_at_s(), Some(4_102_444_800));
    certificates.apply(prepared);
    assert_eq!(setup.expires_at_s(), Some(4_133_980_800));
    // The same files again aren't judged again, though by now they might be refused.
    let kept = Arc::clone(&certificates.places.lock()[&place_of("tcp")]);
    certificates.apply(certificates.prepare(&listener(other.clone())).unwrap());
    assert!(Arc::ptr_eq(&kept, &certificates.places.lock()[&place_of("tcp")]));
    // What is broken is refused, and stays so though nothing changes.
    fs::write(folder.join("b.key"), "no key").unwrap();
    for _ in 0..2 {
        assert_eq!(certificates.prepare(&listener(other.clone())).unwrap_err().len(), 1);
    }
    // A listener that comes, and one that goes.
    let mut new = listener(tls(folder));
    new.listeners[0].name = "new".to_owned();
    let prepared = certificates.prepare(&new).unwrap();
    assert!(prepared.setup("new").is_some() && prepared.setup("tcp").is_none());
    certificates.apply(prepared);
    assert!(certificates.setup("new").is_some() && certificates.setup("tcp").is_none());
}
