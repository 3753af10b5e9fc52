//! TLS of a client: whom it trusts, what it shows, and what went wrong in words.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use rustls_platform_verifier::BuilderVerifierExt as _;

use super::ClientError;

/// Largest file of certificates or keys, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Whom a client trusts and what it shows. Files are PEM; they are read at each connection, so that a renewed certificate
/// is taken when a client connects again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsOptions {
    /// Certificates of the authorities that are trusted, instead of the platform's.
    pub ca_file: Option<PathBuf>,
    /// The client's own certificate, with those of its issuers behind it, and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Whether any certificate is taken for the Server's. Whoever is in between can then read and change everything.
    pub trust_anybody: bool,
    /// Protocols offered by ALPN; empty: none over TCP, `http/1.1` below WebSocket.
    pub alpn: Vec<String>,
    /// The name that is asked for and that the Server's certificate has to be for, instead of the host.
    pub server_name: Option<String>,
}

impl TlsOptions {
    /// What a connection is made with.
    pub(super) fn config(&self, is_websocket: bool) -> Result<Arc<ClientConfig>, ClientError> {
        let unusable = |error: rustls::Error| ClientError::TlsSetup(format!("TLS can't be set up: {error}"));
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(unusable)?;
        let builder = match &self.ca_file {
            _ if self.trust_anybody => {
                builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider)))
            }
            Some(path) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates(path)? {
                    roots.add(certificate).map_err(|error| refused(path, &error))?;
                }
                builder.with_root_certificates(roots)
            }
            None => builder.with_platform_verifier().map_err(unusable)?,
        };
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = certificates(certificate)?;
                // What is wrong with a key isn't repeated: it may quote it.
                let key = PrivateKeyDer::from_pem_slice(&read(key)?)
                    .map_err(|_| refused(key, &"it holds no private key in PEM"))?;
                builder.with_client_auth_cert(chain, key).map_err(|error| refused(certificate, &error))?
            }
        };
        config.alpn_protocols = self.alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        if config.alpn_protocols.is_empty() && is_websocket {
            config.alpn_protocols.push(b"http/1.1".to_vec());
        }
        Ok(Arc::new(config))
    }
}

fn refused(path: &Path, why: &dyn std::fmt::Display) -> ClientError {
    ClientError::TlsSetup(format!("{}: {why}", path.display()))
}

fn read(path: &Path) -> Result<Vec<u8>, ClientError> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(|error| refused(path, &format!("it can't be read: {error}")))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(refused(path, &format!("it is larger than {FILE_BYTES_MAX} bytes")));
    }
    Ok(bytes)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, ClientError> {
    let pem = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(refused(path, &"it holds no certificate in PEM")),
        Err(error) => Err(refused(path, &format!("it holds no certificate in PEM: {error}"))),
    }
}

/// What a fault of TLS means to whoever wants to connect.
pub(super) fn explain(error: &rustls::Error) -> String {
    use rustls::Error;
    match error {
        Error::InvalidCertificate(fault) => explain_certificate(fault),
        Error::InvalidMessage(_) => "the server doesn't speak TLS there".to_owned(),
        Error::AlertReceived(alert) => match alert {
            AlertDescription::CertificateRequired => {
                "the server wants a certificate from its clients".to_owned()
            }
            AlertDescription::UnknownCA => {
                "the server doesn't trust the issuer of our certificate".to_owned()
            }
            AlertDescription::CertificateExpired => {
                "the server says that our certificate has expired".to_owned()
            }
            AlertDescription::CertificateRevoked => {
                "the server says that our certificate is revoked".to_owned()
            }
            AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::AccessDenied => "the server refuses our certificate".to_owned(),
            AlertDescription::NoApplicationProtocol => {
                "the server speaks none of the protocols offered by ALPN".to_owned()
            }
            AlertDescription::UnrecognisedName => "the server has no certificate for this name".to_owned(),
            other => format!("the server ended the handshake: {other:?}"),
        },
        other => other.to_string(),
    }
}

fn explain_certificate(fault: &CertificateError) -> String {
    match fault {
        CertificateError::UnknownIssuer => {
            "the server's certificate is issued by an authority that isn't trusted".to_owned()
        }
        // Made anew under the same name, as by `certs dev --force`.
        CertificateError::BadSignature => {
            "the server's certificate is issued by another authority of the trusted one's name".to_owned()
        }
        CertificateError::NotValidForNameContext { expected, presented } => {
            let presented = if presented.is_empty() { "no name".to_owned() } else { presented.join(", ") };
            format!("the server's certificate is not for \"{}\", but for {presented}", expected.to_str())
        }
        CertificateError::NotValidForName => "the server's certificate is for another name".to_owned(),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "the server's certificate has expired".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the server's certificate isn't valid yet: is the clock right?".to_owned()
        }
        CertificateError::Revoked => "the server's certificate is revoked".to_owned(),
        other => format!("the server's certificate is refused: {other}"),
    }
}

/// Takes every certificate for the Server's. That the other side has its key is still checked.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
