//! From the files of one place to what rustls takes.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys, RootCertStore, ServerConfig, SupportedProtocolVersion, version};

use super::TlsError;
use super::validity::Validity;
use crate::config::{ClientCertificates, ListenerKind, ListenerTls, TlsVersion};

/// Largest file of certificates, keys or revocations, in bytes.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Versions of TLS by the oldest that is spoken.
const FROM_1_2: &[&SupportedProtocolVersion] = &[&version::TLS13, &version::TLS12];
const FROM_1_3: &[&SupportedProtocolVersion] = &[&version::TLS13];

/// What was made of a place's files.
pub(super) struct Made {
    pub(super) config: Arc<ServerConfig>,
    /// When the first of its own certificates expires, in seconds since the epoch.
    pub(super) expires_at_s: i64,
}

/// Reads the files and makes what a place shows and trusts.
pub(super) fn make(
    place: &str,
    kind: ListenerKind,
    config: &ListenerTls,
    now_s: i64,
) -> Result<Made, TlsError> {
    let maker = Maker { place, now_s, provider: Arc::new(ring::default_provider()) };
    let (default, mut expires_at_s) =
        maker.identity(("tls.certificate", &config.certificate), ("tls.key", &config.key))?;
    let mut names = HashMap::new();
    for named in &config.sni {
        let (identity, end_s) =
            maker.identity(("tls.sni.certificate", &named.certificate), ("tls.sni.key", &named.key))?;
        expires_at_s = expires_at_s.min(end_s);
        names.insert(named.name.to_ascii_lowercase(), identity);
    }
    let versions = match config.min_version {
        TlsVersion::V1_2 => FROM_1_2,
        TlsVersion::V1_3 => FROM_1_3,
    };
    let failed =
        |error: &dyn fmt::Display| maker.fault("tls.certificate", &config.certificate, error.to_string());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&maker.provider))
        .with_protocol_versions(versions)
        .map_err(|error| failed(&error))?;
    let builder = match maker.client_verifier(config)? {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut made = builder.with_cert_resolver(Arc::new(ByName { default, names }));
    made.alpn_protocols = match kind {
        ListenerKind::Wss => vec![b"http/1.1".to_vec()],
        ListenerKind::Auto => vec![b"mqtt".to_vec(), b"http/1.1".to_vec()],
        _ => vec![b"mqtt".to_vec()],
    };
    made.session_storage = Arc::new(NoServerSessionStorage {});
    if config.client_certificates == ClientCertificates::None {
        // Tickets spare devices that come back half the work, and us the memory.
        made.ticketer = ring::Ticketer::new().map_err(|error| failed(&error))?;
        made.send_tls13_tickets = 1;
    } else {
        // A session that is resumed isn't judged again: a certificate that was revoked meanwhile would do.
        made.send_tls13_tickets = 0;
    }
    Ok(Made { config: Arc::new(made), expires_at_s })
}

struct Maker<'l> {
    place: &'l str,
    now_s: i64,
    provider: Arc<CryptoProvider>,
}

type Keyed<'p> = (&'static str, &'p Path);

impl Maker<'_> {
    fn fault(&self, key: &'static str, path: &Path, problem: impl Into<String>) -> TlsError {
        TlsError { place: self.place.to_owned(), key, path: path.to_owned(), problem: problem.into() }
    }

    fn read(&self, (key, path): Keyed<'_>) -> Result<Vec<u8>, TlsError> {
        let fail = |error: std::io::Error| self.fault(key, path, format!("it can't be read: {error}"));
        let mut bytes = Vec::new();
        File::open(path).map_err(fail)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(fail)?;
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Err(self.fault(
                key,
                path,
                format!("it is larger than the limit of {FILE_BYTES_MAX} bytes"),
            ));
        }
        Ok(bytes)
    }

    fn certificates(&self, file: Keyed<'_>) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let bytes = self.read(file)?;
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
        match found {
            Ok(found) if !found.is_empty() => Ok(found),
            Ok(_) => Err(self.fault(file.0, file.1, "it holds no certificate in PEM")),
            Err(error) => Err(self.fault(file.0, file.1, format!("it is no PEM: {error}"))),
        }
    }

    /// A certificate with its key, and when it expires.
    fn identity(
        &self,
        certificate: (&'static str, &std::path::PathBuf),
        key: (&'static str, &std::path::PathBuf),
    ) -> Result<(Arc<CertifiedKey>, i64), TlsError> {
        let (certificate, key) = ((certificate.0, certificate.1.as_path()), (key.0, key.1.as_path()));
        let chain = self.certificates(certificate)?;
        let validity = chain.first().and_then(|own| Validity::of(own));
        let Some(validity) = validity else {
            return Err(self.fault(certificate.0, certificate.1, "it is no certificate of X.509"));
        };
        if validity.not_after_s < self.now_s {
            let days = (self.now_s - validity.not_after_s) / super::DAY_S;
            return Err(self.fault(certificate.0, certificate.1, format!("it has expired, {days} days ago")));
        }
        if validity.not_before_s > self.now_s {
            // No reason to refuse: machines without a battery for their clock wake up in the past.
            tracing::warn!(
                place = self.place,
                path = %certificate.1.display(),
                "the certificate isn't valid yet, if this machine's clock is right"
            );
        }
        // What was wrong with a key is not repeated: it may quote it.
        let private = PrivateKeyDer::from_pem_slice(&self.read(key)?)
            .map_err(|_| self.fault(key.0, key.1, "it holds no private key in PEM"))?;
        match CertifiedKey::from_der(chain, private, &self.provider) {
            Ok(identity) => Ok((Arc::new(identity), validity.not_after_s)),
            Err(Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
                let of = certificate.1.display();
                Err(self.fault(key.0, key.1, format!("it is not the key of the certificate \"{of}\"")))
            }
            Err(Error::InvalidCertificate(error)) => {
                Err(self.fault(certificate.0, certificate.1, format!("it is refused: {error:?}")))
            }
            Err(_) => Err(self.fault(key.0, key.1, "it is no key that can be used")),
        }
    }

    fn client_verifier(
        &self,
        config: &ListenerTls,
    ) -> Result<Option<Arc<dyn rustls::server::danger::ClientCertVerifier>>, TlsError> {
        let Some(ca) = config.client_ca.as_deref() else { return Ok(None) };
        let mut roots = RootCertStore::empty();
        for authority in self.certificates(("tls.client_ca", ca))? {
            roots.add(authority).map_err(|error| {
                self.fault("tls.client_ca", ca, format!("a certificate is refused: {error}"))
            })?;
        }
        let mut lists = Vec::new();
        for path in &config.crl {
            let bytes = self.read(("tls.crl", path))?;
            let found: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(&bytes).collect();
            match found {
                Ok(found) if !found.is_empty() => lists.extend(found),
                Ok(_) => return Err(self.fault("tls.crl", path, "it holds no list of revocations in PEM")),
                Err(error) => return Err(self.fault("tls.crl", path, format!("it is no PEM: {error}"))),
            }
        }
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider))
                .with_crls(lists)
                // A list that nobody renews any more would let in whoever was revoked since.
                .enforce_revocation_expiration();
        let verifier = match config.client_certificates {
            ClientCertificates::Required => verifier,
            ClientCertificates::Optional => verifier.allow_unauthenticated(),
            ClientCertificates::None => return Ok(None),
        };
        let crl = config.crl.first().map_or(ca, |path| path.as_path());
        verifier.build().map(Some).map_err(|error| self.fault("tls.crl", crl, error.to_string()))
    }
}

/// Chooses a certificate by the name that the client asks for.
#[derive(Debug)]
struct ByName {
    default: Arc<CertifiedKey>,
    names: HashMap<String, Arc<CertifiedKey>>,
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(hello.server_name().and_then(|name| self.find(name)).unwrap_or(&self.default)))
    }
}

impl ByName {
    fn find(&self, name: &str) -> Option<&Arc<CertifiedKey>> {
        if self.names.is_empty() {
            return None;
        }
        let name = name.to_ascii_lowercase();
        let above = || name.split_once('.').and_then(|(_, above)| self.names.get(&format!("*.{above}")));
        self.names.get(&name).or_else(above)
    }
}
