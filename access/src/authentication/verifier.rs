//! What is kept of a password: enough to tell whether one is right, not enough to know it.
//!
//! Four notations are read: our own `$argon2id$…` (the PHC string format, as Mosquitto 2.1 writes it too), `$7$` (PBKDF2 with
//! HMAC-SHA-512) and `$6$` (SHA-512 with salt) of Mosquitto's older files, and `$scram-sha-256$…`, which serves SCRAM and plain
//! passwords alike. Costs are bounded where a notation is read: a line can't ask for more memory or time than that.

use std::num::NonZeroU32;

use argon2::{Algorithm, Argon2, Params, Version};
use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::{digest, hmac, pbkdf2};
use subtle::ConstantTimeEq as _;

use super::users::LineFault;

/// Base64 without padding; read with padding too, as Mosquitto writes it.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Most memory that a line may ask for, in KiB.
const MEMORY_KIB_MAX: u32 = 256 * 1024;
/// Most passes over it.
const PASSES_MAX: u32 = 64;
/// Most lanes.
const LANES_MAX: u32 = 16;
/// Most iterations of PBKDF2.
const ITERATIONS_MAX: u32 = 10_000_000;
/// Fewest iterations of SCRAM (RFC 7677 §4): clients refuse fewer.
pub(crate) const SCRAM_ITERATIONS_MIN: u32 = 4096;
/// Iterations of the SCRAM lines that we make.
pub(crate) const SCRAM_ITERATIONS: u32 = 15_000;
/// Bytes of the salts that we make.
const SALT_BYTES: usize = 16;
/// Fewest and most bytes of a salt.
const SALT_RANGE: std::ops::RangeInclusive<usize> = 8..=64;
const SHA256_BYTES: usize = digest::SHA256_OUTPUT_LEN;
const SHA512_BYTES: usize = digest::SHA512_OUTPUT_LEN;

/// A password can't be hashed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HashError {
    /// The system gives no random numbers.
    #[error("the system gives no random numbers")]
    NoRandomness,
    /// The hash function refused.
    #[error("the password can't be hashed")]
    Refused,
}

/// See the module. Has no `Debug`: nothing here belongs into a log.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Verifier {
    Argon2id { memory_kib: u32, passes: u32, lanes: u32, salt: Box<[u8]>, hash: Box<[u8]> },
    Pbkdf2Sha512 { iterations: NonZeroU32, salt: Box<[u8]>, hash: Box<[u8]> },
    Sha512 { salt: Box<[u8]>, hash: Box<[u8]> },
    ScramSha256(ScramVerifier),
}

/// What a server keeps for SCRAM (RFC 5802 §3).
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct ScramVerifier {
    pub(crate) iterations: NonZeroU32,
    pub(crate) salt: Box<[u8]>,
    pub(crate) stored_key: [u8; SHA256_BYTES],
    pub(crate) server_key: [u8; SHA256_BYTES],
}

/// The line's part behind the user name for a password, by Argon2id with the costs that OWASP recommends (19 MiB, 2 passes).
///
/// # Errors
/// [`HashError`].
pub fn argon2id(password: &[u8]) -> Result<String, HashError> {
    let salt = random::<SALT_BYTES>()?;
    let (memory_kib, passes, lanes) =
        (Params::DEFAULT_M_COST, Params::DEFAULT_T_COST, Params::DEFAULT_P_COST);
    let mut hash = [0; Params::DEFAULT_OUTPUT_LEN];
    hash_argon2id((memory_kib, passes, lanes), &salt, password, &mut hash)?;
    let (salt, hash) = (BASE64.encode(salt), BASE64.encode(hash));
    Ok(format!("$argon2id$v=19$m={memory_kib},t={passes},p={lanes}${salt}${hash}"))
}

/// Whether the text is what [`argon2id`] makes, with costs that are accepted.
#[must_use]
pub fn is_argon2id(text: &str) -> bool {
    matches!(Verifier::parse(text), Ok(Verifier::Argon2id { .. }))
}

/// The same for SCRAM-SHA-256.
///
/// # Errors
/// [`HashError`].
pub fn scram_sha_256(password: &[u8]) -> Result<String, HashError> {
    let iterations = NonZeroU32::new(SCRAM_ITERATIONS).ok_or(HashError::Refused)?;
    let verifier = ScramVerifier::of(password, &random::<SALT_BYTES>()?, iterations);
    let [salt, stored, server] =
        [&verifier.salt[..], &verifier.stored_key, &verifier.server_key].map(|bytes| BASE64.encode(bytes));
    Ok(format!("$scram-sha-256${iterations}${salt}${stored}${server}"))
}

/// Random bytes.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], HashError> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| HashError::NoRandomness)?;
    Ok(bytes)
}

fn hash_argon2id(
    (memory_kib, passes, lanes): (u32, u32, u32),
    salt: &[u8],
    password: &[u8],
    out: &mut [u8],
) -> Result<(), HashError> {
    let params = Params::new(memory_kib, passes, lanes, Some(out.len())).map_err(|_| HashError::Refused)?;
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(password, salt, out)
        .map_err(|_| HashError::Refused)
}

impl ScramVerifier {
    pub(crate) fn of(password: &[u8], salt: &[u8], iterations: NonZeroU32) -> Self {
        let mut salted = [0; SHA256_BYTES];
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, salt, password, &mut salted);
        let key = hmac::Key::new(hmac::HMAC_SHA256, &salted);
        let client_key = hmac::sign(&key, b"Client Key");
        let mut verifier = Self {
            iterations,
            salt: salt.into(),
            stored_key: [0; SHA256_BYTES],
            server_key: [0; SHA256_BYTES],
        };
        copy(&mut verifier.stored_key, digest::digest(&digest::SHA256, client_key.as_ref()).as_ref());
        copy(&mut verifier.server_key, hmac::sign(&key, b"Server Key").as_ref());
        verifier
    }
}

/// Copies as many bytes as both have.
pub(crate) fn copy(to: &mut [u8], from: &[u8]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = *from;
    }
}

impl Verifier {
    /// Reads the part of a line behind the user name.
    pub(crate) fn parse(text: &str) -> Result<Self, LineFault> {
        let fields: Vec<&str> = text.split('$').collect();
        match fields.as_slice() {
            ["", "argon2id", "v=19", costs, salt, hash] => {
                let (memory_kib, passes, lanes) = costs_of(costs)?;
                let salt = salt_of(salt)?;
                let hash = decoded(hash, 16..=SHA512_BYTES)?;
                // What the function itself would refuse: memory that is too little for the lanes.
                Params::new(memory_kib, passes, lanes, Some(hash.len())).map_err(|_| LineFault::Cost)?;
                Ok(Self::Argon2id { memory_kib, passes, lanes, salt, hash })
            }
            ["", "7", iterations, salt, hash] => Ok(Self::Pbkdf2Sha512 {
                iterations: iterations_of(iterations, 1)?,
                salt: salt_of(salt)?,
                hash: decoded(hash, SHA512_BYTES..=SHA512_BYTES)?,
            }),
            ["", "6", salt, hash] => {
                Ok(Self::Sha512 { salt: salt_of(salt)?, hash: decoded(hash, SHA512_BYTES..=SHA512_BYTES)? })
            }
            ["", "scram-sha-256", iterations, salt, stored_key, server_key] => {
                let mut verifier = ScramVerifier {
                    iterations: iterations_of(iterations, SCRAM_ITERATIONS_MIN)?,
                    salt: salt_of(salt)?,
                    stored_key: [0; SHA256_BYTES],
                    server_key: [0; SHA256_BYTES],
                };
                copy(&mut verifier.stored_key, &decoded(stored_key, SHA256_BYTES..=SHA256_BYTES)?);
                copy(&mut verifier.server_key, &decoded(server_key, SHA256_BYTES..=SHA256_BYTES)?);
                Ok(Self::ScramSha256(verifier))
            }
            _ => Err(LineFault::Notation),
        }
    }

    /// Whether the password is right. Takes as long for a wrong one as for the right one.
    pub(crate) fn verify(&self, password: &[u8]) -> bool {
        match self {
            Self::Argon2id { memory_kib, passes, lanes, salt, hash } => {
                let mut computed = vec![0; hash.len()];
                hash_argon2id((*memory_kib, *passes, *lanes), salt, password, &mut computed).is_ok()
                    && computed.ct_eq(hash).into()
            }
            Self::Pbkdf2Sha512 { iterations, salt, hash } => {
                pbkdf2::verify(pbkdf2::PBKDF2_HMAC_SHA512, *iterations, salt, password, hash).is_ok()
                    && is_itself_under_hmac(password)
            }
            Self::Sha512 { salt, hash } => {
                let mut context = digest::Context::new(&digest::SHA512);
                context.update(password);
                context.update(salt);
                context.finish().as_ref().ct_eq(hash).into()
            }
            Self::ScramSha256(kept) => {
                let given = ScramVerifier::of(password, &kept.salt, kept.iterations);
                bool::from(given.stored_key.ct_eq(&kept.stored_key)) && is_itself_under_hmac(password)
            }
        }
    }

    /// What one check costs, very roughly in microseconds: good enough to find the costliest of a file.
    pub(crate) fn cost(&self) -> u64 {
        match self {
            Self::Argon2id { memory_kib, passes, .. } => u64::from(*memory_kib) * u64::from(*passes),
            Self::Pbkdf2Sha512 { iterations, .. } => u64::from(iterations.get()),
            Self::Sha512 { .. } => 1,
            Self::ScramSha256(verifier) => u64::from(verifier.iterations.get() / 2),
        }
    }

    /// Bytes that tell it from every other, to mix into a key.
    pub(crate) fn fingerprint(&self) -> &[u8] {
        match self {
            Self::Argon2id { hash, .. } | Self::Pbkdf2Sha512 { hash, .. } | Self::Sha512 { hash, .. } => hash,
            Self::ScramSha256(verifier) => &verifier.stored_key,
        }
    }
}

/// HMAC fills a short key with zeros, so a password with zeros behind it would be as good as the one without.
fn is_itself_under_hmac(password: &[u8]) -> bool {
    password.last() != Some(&0)
}

fn decoded(text: &str, range: std::ops::RangeInclusive<usize>) -> Result<Box<[u8]>, LineFault> {
    let bytes = BASE64.decode(text).map_err(|_| LineFault::Base64)?;
    if range.contains(&bytes.len()) { Ok(bytes.into()) } else { Err(LineFault::Length) }
}

fn salt_of(text: &str) -> Result<Box<[u8]>, LineFault> {
    decoded(text, SALT_RANGE)
}

fn number(text: &str) -> Result<u32, LineFault> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        text.parse().map_err(|_| LineFault::Cost)
    } else {
        Err(LineFault::Notation)
    }
}

fn iterations_of(text: &str, min: u32) -> Result<NonZeroU32, LineFault> {
    let iterations = number(text)?;
    if !(min..=ITERATIONS_MAX).contains(&iterations) {
        return Err(LineFault::Cost);
    }
    NonZeroU32::new(iterations).ok_or(LineFault::Cost)
}

/// `m=19456,t=2,p=1`
fn costs_of(text: &str) -> Result<(u32, u32, u32), LineFault> {
    let mut parts = text.split(',');
    let mut part = |key: &str| {
        let value = parts.next().and_then(|part| part.strip_prefix(key)).ok_or(LineFault::Notation)?;
        number(value)
    };
    let costs = (part("m=")?, part("t=")?, part("p=")?);
    let (memory_kib, passes, lanes) = costs;
    if parts.next().is_some() {
        return Err(LineFault::Notation);
    }
    let fits = memory_kib <= MEMORY_KIB_MAX
        && (1..=PASSES_MAX).contains(&passes)
        && (1..=LANES_MAX).contains(&lanes);
    if fits { Ok(costs) } else { Err(LineFault::Cost) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by mosquitto_passwd 2.0.11, `-b FILE ada wonderland` with `-H sha512` and `-H sha512-pbkdf2`.
    const SHA512: &str = "$6$8plttfgSvF30CeX9$oOmsCsOL8/1sCA7GvisajZD8ctMgPx5B4eOLf8NiGDv85plLtJHRmSBc7TVgGvSasXnLY6OipyQOpAVId4n4lA==";
    const PBKDF2: &str = "$7$101$UsXfrsPcVjpjTi+n$QyxYvJkC/35ogZI3b/2wPSd3if6wmKgK8gPHD7LuPrKbZ3chVNbcv2+GT06vZfwadP1fct4lS6kAHUC1QN1F8Q==";

    fn fault(text: &str) -> LineFault {
        Verifier::parse(text).err().unwrap()
    }

    #[test]
    fn the_right_password_is_right_in_every_notation_and_any_other_is_wrong() {
        let argon2id = argon2id(b"wonderland").unwrap();
        let scram = scram_sha_256(b"wonderland").unwrap();
        for line in [&argon2id, &scram, SHA512, PBKDF2] {
            let verifier = Verifier::parse(line).unwrap_or_else(|fault| panic!("{line}: {fault}"));
            assert!(verifier.verify(b"wonderland"), "{line}");
            for wrong in [&b""[..], b"wonderlan", b"Wonderland", b"wonderland\0", b"wonderland "] {
                assert!(!verifier.verify(wrong), "{line}");
            }
        }
    }

    #[test]
    fn two_hashes_of_one_password_differ() {
        assert_ne!(argon2id(b"x").unwrap(), argon2id(b"x").unwrap());
        assert_ne!(scram_sha_256(b"x").unwrap(), scram_sha_256(b"x").unwrap());
    }

    #[test]
    fn a_hash_of_the_reference_implementation_is_understood() {
        // Its own test suite (phc-winner-argon2, test.c): password "password", salt "somesalt", 64 MiB, two passes.
        let line = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";
        let verifier = Verifier::parse(line).ok().unwrap();
        assert!(verifier.verify(b"password"));
        assert!(!verifier.verify(b"passwore"));
    }

    #[test]
    fn the_scram_keys_are_those_of_the_rfc() {
        // RFC 7677 §3: user "user", password "pencil".
        let salt = BASE64.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let verifier = ScramVerifier::of(b"pencil", &salt, NonZeroU32::new(4096).unwrap());
        assert_eq!(BASE64.encode(verifier.stored_key), "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY");
        assert_eq!(BASE64.encode(verifier.server_key), "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU");
    }

    #[test]
    fn what_isn_t_a_hash_is_refused() {
        for text in [
            "",
            "wonderland",
            "$",
            "$argon2id$",
            "$argon2i$v=19$m=19456,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
            "$argon2id$v=16$m=19456,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
            "$argon2id$m=19456,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
            "$argon2id$v=19$t=2,m=19456,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
            "$argon2id$v=19$m=19456,t=2,p=1,x=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
            "$argon2id$v=19$m=+19456,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
            "$2b$10$abcdefghijklmnopqrstuv",
            "$7$101$c29tZXNhbHQ",
            "x$6$c29tZXNhbHQ$",
        ] {
            assert_eq!(fault(text), LineFault::Notation, "{text}");
        }
        assert_eq!(fault("$6$c29tZXNhbHQ$*"), LineFault::Base64);
        // A hash without bytes must not be right for everybody.
        assert_eq!(fault("$6$c29tZXNhbHQ$"), LineFault::Length);
        assert_eq!(fault("$7$101$c29tZXNhbHQ$"), LineFault::Length);
        assert_eq!(fault("$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHQ$"), LineFault::Length);
        assert_eq!(fault("$6$c2FsdA$AAAA"), LineFault::Length);
    }

    #[test]
    fn costs_have_limits() {
        let argon2id = |m: u32, t: u32, p: u32| {
            Verifier::parse(&format!(
                "$argon2id$v=19$m={m},t={t},p={p}$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc"
            ))
            .err()
        };
        assert_eq!(argon2id(MEMORY_KIB_MAX, PASSES_MAX, LANES_MAX), None);
        assert_eq!(argon2id(MEMORY_KIB_MAX + 1, 2, 1), Some(LineFault::Cost));
        assert_eq!(argon2id(19_456, PASSES_MAX + 1, 1), Some(LineFault::Cost));
        assert_eq!(argon2id(19_456, 0, 1), Some(LineFault::Cost));
        assert_eq!(argon2id(19_456, 2, LANES_MAX + 1), Some(LineFault::Cost));
        assert_eq!(argon2id(8, 2, 1), None);
        assert_eq!(argon2id(7, 2, 1), Some(LineFault::Cost));
        let hash = BASE64.encode([7; SHA512_BYTES]);
        let pbkdf2 = |n: u64| Verifier::parse(&format!("$7${n}$c29tZXNhbHQ${hash}")).err();
        assert_eq!(pbkdf2(1), None);
        assert_eq!(pbkdf2(ITERATIONS_MAX.into()), None);
        for n in [0, u64::from(ITERATIONS_MAX) + 1, u64::MAX] {
            assert_eq!(pbkdf2(n), Some(LineFault::Cost));
        }
        let key = BASE64.encode([7; SHA256_BYTES]);
        let scram = |n: u32| Verifier::parse(&format!("$scram-sha-256${n}$c29tZXNhbHQ${key}${key}")).err();
        assert_eq!(scram(SCRAM_ITERATIONS_MIN), None);
        assert_eq!(scram(SCRAM_ITERATIONS_MIN - 1), Some(LineFault::Cost));
    }
}
