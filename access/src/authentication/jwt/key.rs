//! Algorithms of signatures and the keys that fit them.
//!
//! A key knows what it is a key of, and checks signatures of that kind only: a public key is never the secret of an HMAC, whatever
//! a token's header says. There is no `none`.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{self, RsaPublicKeyComponents, UnparsedPublicKey};
use ring::{digest, hmac};
use serde::Deserialize;
use x509_parser::pem::Pem;
use x509_parser::prelude::FromDer as _;
use x509_parser::x509::SubjectPublicKeyInfo;

/// Largest modulus of RSA that is checked, in bytes, and the smallest.
const RSA_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;

/// An algorithm of RFC 7518 or RFC 8037.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// HMAC with SHA-256.
    Hs256,
    /// HMAC with SHA-384.
    Hs384,
    /// HMAC with SHA-512.
    Hs512,
    /// RSA PKCS #1 v1.5 with SHA-256.
    Rs256,
    /// RSA PKCS #1 v1.5 with SHA-384.
    Rs384,
    /// RSA PKCS #1 v1.5 with SHA-512.
    Rs512,
    /// RSA PSS with SHA-256.
    Ps256,
    /// RSA PSS with SHA-384.
    Ps384,
    /// RSA PSS with SHA-512.
    Ps512,
    /// ECDSA with P-256 and SHA-256.
    Es256,
    /// ECDSA with P-384 and SHA-384.
    Es384,
    /// Ed25519.
    EdDsa,
}

impl Algorithm {
    const ALL: [(&'static str, Self); 12] = [
        ("HS256", Self::Hs256),
        ("HS384", Self::Hs384),
        ("HS512", Self::Hs512),
        ("RS256", Self::Rs256),
        ("RS384", Self::Rs384),
        ("RS512", Self::Rs512),
        ("PS256", Self::Ps256),
        ("PS384", Self::Ps384),
        ("PS512", Self::Ps512),
        ("ES256", Self::Es256),
        ("ES384", Self::Es384),
        ("EdDSA", Self::EdDsa),
    ];

    /// The algorithm of this name.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, algorithm)| *algorithm)
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, known)| *known == self).map_or("", |(name, _)| name)
    }

    /// Whether its key is a secret that both sides have.
    #[must_use]
    pub fn is_symmetric(self) -> bool {
        self.hmac().is_some()
    }

    fn hmac(self) -> Option<hmac::Algorithm> {
        match self {
            Self::Hs256 => Some(hmac::HMAC_SHA256),
            Self::Hs384 => Some(hmac::HMAC_SHA384),
            Self::Hs512 => Some(hmac::HMAC_SHA512),
            _ => None,
        }
    }

    fn rsa(self) -> Option<&'static signature::RsaParameters> {
        match self {
            Self::Rs256 => Some(&signature::RSA_PKCS1_2048_8192_SHA256),
            Self::Rs384 => Some(&signature::RSA_PKCS1_2048_8192_SHA384),
            Self::Rs512 => Some(&signature::RSA_PKCS1_2048_8192_SHA512),
            Self::Ps256 => Some(&signature::RSA_PSS_2048_8192_SHA256),
            Self::Ps384 => Some(&signature::RSA_PSS_2048_8192_SHA384),
            Self::Ps512 => Some(&signature::RSA_PSS_2048_8192_SHA512),
            _ => None,
        }
    }

    /// Fewest bytes of its secret (RFC 7518 §3.2).
    fn secret_bytes_min(self) -> Option<usize> {
        self.hmac().map(|algorithm| digest::Algorithm::output_len(algorithm.digest_algorithm()))
    }
}

/// Why a key can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// No public key is there.
    #[error("expected a public key or a certificate in PEM")]
    NotPem,
    /// The kind of key isn't known.
    #[error("the kind of key is not known: expected RSA, P-256, P-384 or Ed25519")]
    Kind,
    /// An RSA key is too short or too long.
    #[error("an RSA key has 2048 to 8192 bits")]
    RsaLength,
    /// A secret is too short.
    #[error("the secret is shorter than {0} needs: {1} bytes")]
    ShortSecret(&'static str, usize),
    /// A key fits none of the algorithms.
    #[error("the key fits none of the algorithms")]
    Unfit,
}

/// A key that signatures are checked with.
#[derive(Clone)]
pub(crate) enum Key {
    Secret(Box<[u8]>),
    /// Modulus and exponent.
    Rsa(Box<[u8]>, Box<[u8]>),
    P256(Box<[u8]>),
    P384(Box<[u8]>),
    Ed25519(Box<[u8]>),
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Secret(_) => "Secret",
            Self::Rsa(..) => "Rsa",
            Self::P256(_) => "P256",
            Self::P384(_) => "P384",
            Self::Ed25519(_) => "Ed25519",
        })
    }
}

impl Key {
    /// The secret of HMAC algorithms; long enough for each of them.
    pub(crate) fn secret(secret: &[u8], algorithms: &[Algorithm]) -> Result<Self, KeyError> {
        for algorithm in algorithms {
            let needed = algorithm.secret_bytes_min().ok_or(KeyError::Unfit)?;
            if secret.len() < needed {
                return Err(KeyError::ShortSecret(algorithm.name(), needed));
            }
        }
        Ok(Self::Secret(secret.into()))
    }

    /// The first public key in a PEM text, bare or in a certificate; it has to fit every algorithm.
    pub(crate) fn public(pem: &[u8], algorithms: &[Algorithm]) -> Result<Self, KeyError> {
        for block in Pem::iter_from_buffer(pem) {
            let block = block.map_err(|_| KeyError::NotPem)?;
            let key = match block.label.as_str() {
                "PUBLIC KEY" => match SubjectPublicKeyInfo::from_der(&block.contents) {
                    Ok((&[], info)) => Self::of_info(&info)?,
                    _ => return Err(KeyError::NotPem),
                },
                "CERTIFICATE" => {
                    let certificate = block.parse_x509().map_err(|_| KeyError::NotPem)?;
                    Self::of_info(certificate.public_key())?
                }
                _ => continue,
            };
            let fits = algorithms.iter().all(|algorithm| key.fits(*algorithm));
            return if fits { Ok(key) } else { Err(KeyError::Unfit) };
        }
        Err(KeyError::NotPem)
    }

    fn of_info(info: &SubjectPublicKeyInfo<'_>) -> Result<Self, KeyError> {
        let bits = &*info.subject_public_key.data;
        match info.algorithm.algorithm.to_id_string().as_str() {
            "1.2.840.113549.1.1.1" => match info.parsed() {
                Ok(x509_parser::public_key::PublicKey::RSA(rsa)) => Self::rsa(rsa.modulus, rsa.exponent),
                _ => Err(KeyError::Kind),
            },
            "1.2.840.10045.2.1" => {
                let curve = info.algorithm.parameters.as_ref().and_then(|any| any.as_oid().ok());
                match curve.map(|curve| curve.to_id_string()).as_deref() {
                    Some("1.2.840.10045.3.1.7") => Self::point(bits, 32).map(Self::P256),
                    Some("1.3.132.0.34") => Self::point(bits, 48).map(Self::P384),
                    _ => Err(KeyError::Kind),
                }
            }
            "1.3.101.112" if bits.len() == 32 => Ok(Self::Ed25519(bits.into())),
            _ => Err(KeyError::Kind),
        }
    }

    fn rsa(modulus: &[u8], exponent: &[u8]) -> Result<Self, KeyError> {
        let unsigned = |bytes: &[u8]| -> Box<[u8]> {
            let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
            bytes.get(zeros..).unwrap_or_default().into()
        };
        let modulus = unsigned(modulus);
        if RSA_BYTES.contains(&modulus.len()) {
            Ok(Self::Rsa(modulus, unsigned(exponent)))
        } else {
            Err(KeyError::RsaLength)
        }
    }

    /// An uncompressed point.
    fn point(bits: &[u8], coordinate_bytes: usize) -> Result<Box<[u8]>, KeyError> {
        if bits.first() == Some(&4) && bits.len() == 1 + 2 * coordinate_bytes {
            Ok(bits.into())
        } else {
            Err(KeyError::Kind)
        }
    }

    /// Whether it is a key of the algorithm.
    pub(crate) fn fits(&self, algorithm: Algorithm) -> bool {
        match self {
            Self::Secret(_) => algorithm.hmac().is_some(),
            Self::Rsa(..) => algorithm.rsa().is_some(),
            Self::P256(_) => algorithm == Algorithm::Es256,
            Self::P384(_) => algorithm == Algorithm::Es384,
            Self::Ed25519(_) => algorithm == Algorithm::EdDsa,
        }
    }

    /// Whether the signature is the key's, by this algorithm.
    pub(crate) fn verify(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        if !self.fits(algorithm) {
            return false;
        }
        match self {
            Self::Secret(secret) => algorithm.hmac().is_some_and(|algorithm| {
                hmac::verify(&hmac::Key::new(algorithm, secret), message, signature).is_ok()
            }),
            Self::Rsa(n, e) => algorithm.rsa().is_some_and(|parameters| {
                RsaPublicKeyComponents { n, e }.verify(parameters, message, signature).is_ok()
            }),
            Self::P256(point) => UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, point)
                .verify(message, signature)
                .is_ok(),
            Self::P384(point) => UnparsedPublicKey::new(&signature::ECDSA_P384_SHA384_FIXED, point)
                .verify(message, signature)
                .is_ok(),
            Self::Ed25519(key) => {
                UnparsedPublicKey::new(&signature::ED25519, key).verify(message, signature).is_ok()
            }
        }
    }
}

/// A key of a set (RFC 7517), as far as it is looked at.
#[derive(Deserialize)]
pub(super) struct Jwk {
    kty: String,
    #[serde(default)]
    pub(super) kid: Option<String>,
    #[serde(default, rename = "use")]
    used_for: Option<String>,
    #[serde(default)]
    key_ops: Option<Vec<String>>,
    #[serde(default)]
    alg: Option<String>,
    #[serde(default)]
    crv: Option<String>,
    #[serde(default)]
    n: Option<String>,
    #[serde(default)]
    e: Option<String>,
    #[serde(default)]
    x: Option<String>,
    #[serde(default)]
    y: Option<String>,
}

impl Jwk {
    /// The public key, with the one algorithm that it is for if it says so; `None` if it isn't for checking signatures or of a
    /// kind that isn't known. Secrets are not taken from a set: it is public.
    pub(super) fn key(&self) -> Option<(Key, Option<Algorithm>)> {
        let is_for_signatures = self.used_for.as_deref().is_none_or(|used_for| used_for == "sig")
            && self.key_ops.as_ref().is_none_or(|ops| ops.iter().any(|op| op == "verify"));
        if !is_for_signatures {
            return None;
        }
        let decoded = |text: &Option<String>| URL_SAFE_NO_PAD.decode(text.as_deref()?).ok();
        let key = match (self.kty.as_str(), self.crv.as_deref()) {
            ("RSA", _) => Key::rsa(&decoded(&self.n)?, &decoded(&self.e)?).ok()?,
            ("EC", Some(curve @ ("P-256" | "P-384"))) => {
                let point = [vec![4], decoded(&self.x)?, decoded(&self.y)?].concat();
                match curve {
                    "P-256" => Key::P256(Key::point(&point, 32).ok()?),
                    _ => Key::P384(Key::point(&point, 48).ok()?),
                }
            }
            ("OKP", Some("Ed25519")) => Key::Ed25519(decoded(&self.x).filter(|key| key.len() == 32)?.into()),
            _ => return None,
        };
        let algorithm = match &self.alg {
            Some(name) => Some(Algorithm::of_name(name).filter(|algorithm| key.fits(*algorithm))?),
            None => None,
        };
        Some((key, algorithm))
    }
}
