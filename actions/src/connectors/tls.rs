//! TLS of a connector: what it trusts and what it shows.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_platform_verifier::{BuilderVerifierExt as _, Verifier};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Fault;

/// Largest file of certificates or keys in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// `tls = { … }` of a connector. Files are PEM.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// Certificates of the authorities that are trusted, instead of the platform's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// Our own certificate, with those of its issuers behind it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_cert_file: Option<PathBuf>,
    /// The key of our own certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_key_file: Option<PathBuf>,
    /// The name that the server's certificate must be for. Default: the URL's host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
}

impl TlsConfig {
    /// The files that it names.
    pub fn files_mut(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        [&mut self.ca_file, &mut self.client_cert_file, &mut self.client_key_file].into_iter().flatten()
    }

    pub(crate) fn check(&self) -> Result<(), Fault> {
        if self.client_cert_file.is_some() && self.client_key_file.is_none() {
            return Err(Fault::new("tls.client_cert_file", "a certificate needs client_key_file too"));
        }
        if self.client_key_file.is_some() && self.client_cert_file.is_none() {
            return Err(Fault::new("tls.client_key_file", "a key needs client_cert_file too"));
        }
        match &self.server_name {
            Some(name) if ServerName::try_from(name.as_str()).is_err() => {
                Err(Fault::new("tls.server_name", "expected a host name or an IP address"))
            }
            _ => Ok(()),
        }
    }
}

/// What the files of a [`TlsConfig`] hold.
#[derive(PartialEq, Eq, Default)]
pub(crate) struct TlsFiles {
    ca: Option<Vec<u8>>,
    cert: Option<Vec<u8>>,
    key: Option<Vec<u8>>,
}

impl TlsFiles {
    pub(crate) fn read(config: Option<&TlsConfig>) -> Result<Self, Fault> {
        let Some(config) = config else { return Ok(Self::default()) };
        let file = |field: &str, path: &Option<PathBuf>| {
            let bytes = path.as_deref().map(read).transpose();
            bytes.map_err(|why| {
                let path = path.as_deref().unwrap_or(Path::new(""));
                Fault::new(field, format!("\"{}\" can't be read: {why}", path.display()))
            })
        };
        Ok(Self {
            ca: file("tls.ca_file", &config.ca_file)?,
            cert: file("tls.client_cert_file", &config.client_cert_file)?,
            key: file("tls.client_key_file", &config.client_key_file)?,
        })
    }

    /// What a client is made with. `server_name`: the name that the server's certificate must be for, whatever the URL says.
    pub(crate) fn client_config(&self, server_name: Option<&str>) -> Result<ClientConfig, Fault> {
        let fault = |field: &str, error: &dyn std::fmt::Display| {
            Fault::new(field, format!("TLS can't be set up: {error}"))
        };
        let provider = Arc::new(ring::default_provider());
        let verifier = self.verifier(&provider)?;
        let verifier = match server_name {
            Some(name) => {
                let name = ServerName::try_from(name.to_owned())
                    .map_err(|error| fault("tls.server_name", &error))?;
                Arc::new(OtherName { verifier, name })
            }
            None => verifier,
        };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| fault("tls", &error))?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let (Some(cert), Some(key)) = (&self.cert, &self.key) else {
            return Ok(builder.with_no_client_auth());
        };
        let chain = certificates("tls.client_cert_file", cert)?;
        // What was wrong with a key is not repeated: it may quote it.
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|_| Fault::new("tls.client_key_file", "holds no private key in PEM"))?;
        builder.with_client_auth_cert(chain, key).map_err(|error| fault("tls.client_cert_file", &error))
    }

    /// What links of a connector speak TLS with; `None` where it has no `tls`.
    pub(crate) fn for_links(&self, config: Option<&TlsConfig>) -> Result<Option<Arc<ClientConfig>>, Fault> {
        let tls = config.map(|config| self.client_config(config.server_name.as_deref()));
        Ok(tls.transpose()?.map(Arc::new))
    }

    fn verifier(&self, provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ServerCertVerifier>, Fault> {
        let Some(ca) = &self.ca else {
            let verifier = Verifier::new(Arc::clone(provider));
            return Ok(Arc::new(verifier.map_err(|error| Fault::new("tls", error.to_string()))?));
        };
        let mut roots = RootCertStore::empty();
        for certificate in certificates("tls.ca_file", ca)? {
            roots.add(certificate).map_err(|error| Fault::new("tls.ca_file", error.to_string()))?;
        }
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
        Ok(verifier.build().map_err(|error| Fault::new("tls.ca_file", error.to_string()))?)
    }
}

/// Reads a file of certificates or keys, up to a limit.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if u64::try_from(bytes.len()).is_ok_and(|size| size <= FILE_BYTES_MAX) {
        return Ok(bytes);
    }
    Err(format!("it is larger than the limit of {FILE_BYTES_MAX} bytes"))
}

fn certificates(field: &str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Fault> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(Fault::new(field, "holds no certificate in PEM")),
        Err(error) => Err(Fault::new(field, format!("holds no certificate in PEM: {error}"))),
    }
}

/// Judges a server's certificate by another name than the URL's.
#[derive(Debug)]
struct OtherName {
    verifier: Arc<dyn ServerCertVerifier>,
    name: ServerName<'static>,
}

impl ServerCertVerifier for OtherName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.verifier.verify_server_cert(end_entity, intermediates, &self.name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls12_signature(message, cert, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls13_signature(message, cert, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

/// The platform's trust, loaded when the first `https` action is made and shared by all: parsing some hundred
/// certificates for each of many actions would cost seconds and memory.
static PLATFORM_TLS: OnceLock<ClientConfig> = OnceLock::new();

/// TLS without a connector, for URLs of a scheme.
pub(crate) fn platform(scheme: &str) -> Result<ClientConfig, rustls::Error> {
    if let Some(shared) = PLATFORM_TLS.get() {
        return Ok(shared.clone());
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?;
    if scheme == "https" {
        let config = builder.with_platform_verifier()?.with_no_client_auth();
        return Ok(PLATFORM_TLS.get_or_init(|| config).clone());
    }
    // Nothing is trusted and nothing is loaded: redirects stay within the origin, so TLS is never spoken.
    Ok(builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
}
