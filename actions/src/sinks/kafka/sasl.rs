//! What is said to sign in: PLAIN (RFC 4616) and SCRAM (RFC 5802, RFC 7677) without channel binding.
//!
//! It is written here because a broker says how often a password is hashed: the library does it as often as it is told,
//! up to four thousand million times, in the middle of a task.
//!
//! Names and passwords are used as their bytes, without normalisation (`SASLprep`), as Kafka's own client does.

use std::fmt;
use std::num::NonZeroU32;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::{digest, hmac, pbkdf2};

use super::connector::{SaslConfig, SaslMechanism};
use crate::text::excerpt;

/// How often a password may be hashed. Fewer than RFC 7677 asks for would make it easy to guess from what we answer;
/// Kafka allows brokers no more than 16,384.
const ITERATIONS: std::ops::RangeInclusive<u32> = 4_096..=100_000;
/// Longest message of a broker in bytes.
const MESSAGE_BYTES_MAX: usize = 4 << 10;
/// Bytes of chance in a nonce.
const NONCE_BYTES: usize = 24;

impl SaslMechanism {
    /// The registered name.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

/// The one message of PLAIN.
pub(super) fn plain(config: &SaslConfig) -> Vec<u8> {
    format!("\0{}\0{}", config.username, config.password.expose()).into_bytes()
}

/// The hashes of a mechanism.
#[derive(Clone, Copy)]
struct Hashes {
    digest: &'static digest::Algorithm,
    hmac: hmac::Algorithm,
    pbkdf2: pbkdf2::Algorithm,
}

/// A SCRAM exchange whose first message is said.
pub(super) struct Scram {
    password: String,
    hashes: Hashes,
    nonce: String,
    bare: String,
}

impl fmt::Debug for Scram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scram").finish_non_exhaustive()
    }
}

/// What the broker has to answer at last, which shows that it knows the password too.
pub(super) struct Proof(Vec<u8>);

impl Scram {
    /// Begins; `None` for a mechanism that is none of SCRAM.
    pub(super) fn new(config: &SaslConfig, chance: &[u8; NONCE_BYTES]) -> Option<Self> {
        let hashes = match config.mechanism {
            SaslMechanism::Plain => return None,
            SaslMechanism::ScramSha256 => Hashes {
                digest: &digest::SHA256,
                hmac: hmac::HMAC_SHA256,
                pbkdf2: pbkdf2::PBKDF2_HMAC_SHA256,
            },
            SaslMechanism::ScramSha512 => Hashes {
                digest: &digest::SHA512,
                hmac: hmac::HMAC_SHA512,
                pbkdf2: pbkdf2::PBKDF2_HMAC_SHA512,
            },
        };
        let nonce = STANDARD.encode(chance);
        let name = config.username.replace('=', "=3D").replace(',', "=2C");
        let bare = format!("n={name},r={nonce}");
        Some(Self { password: config.password.expose().to_owned(), hashes, nonce, bare })
    }

    /// The first message.
    pub(super) fn first(&self) -> Vec<u8> {
        format!("n,,{}", self.bare).into_bytes()
    }

    /// The second message, upon the broker's first, and what the broker's second has to be. Takes as long as hashing
    /// takes, a tenth of a second at worst.
    pub(super) fn second(&self, server: &[u8]) -> Result<(Vec<u8>, Proof), String> {
        let server = text(server)?;
        let mut fields = server.split(',');
        let mut field = |name: &str| {
            fields
                .next()
                .and_then(|field| field.strip_prefix(name)?.strip_prefix('='))
                .ok_or_else(|| format!("the broker's first message has no \"{name}\" where it belongs"))
        };
        let (nonce, salt, iterations) = (field("r")?, field("s")?, field("i")?);
        if nonce.len() <= self.nonce.len() || !nonce.starts_with(&self.nonce) {
            return Err("the broker's nonce doesn't continue ours".to_owned());
        }
        let salt = STANDARD.decode(salt).map_err(|_| "the broker's salt is no base64".to_owned())?;
        let iterations = iterations
            .parse()
            .ok()
            .filter(|iterations| ITERATIONS.contains(iterations))
            .and_then(NonZeroU32::new)
            .ok_or_else(|| {
                let (min, max) = (ITERATIONS.start(), ITERATIONS.end());
                format!(
                    "the broker wants the password hashed {} times, not {min} to {max}",
                    excerpt(iterations.as_bytes(), 20)
                )
            })?;
        let Hashes { digest: algorithm, hmac: mac, pbkdf2: derive } = self.hashes;
        let mut salted = vec![0; algorithm.output_len()];
        pbkdf2::derive(derive, iterations, &salt, self.password.as_bytes(), &mut salted);
        let salted = hmac::Key::new(mac, &salted);
        let client_key = hmac::sign(&salted, b"Client Key");
        let stored_key = digest::digest(algorithm, client_key.as_ref());
        let unproven = format!("c=biws,r={nonce}");
        let all = format!("{},{server},{unproven}", self.bare);
        let signature = hmac::sign(&hmac::Key::new(mac, stored_key.as_ref()), all.as_bytes());
        let proof: Vec<u8> =
            client_key.as_ref().iter().zip(signature.as_ref()).map(|(key, by)| key ^ by).collect();
        let server_key = hmac::sign(&salted, b"Server Key");
        let expected = hmac::sign(&hmac::Key::new(mac, server_key.as_ref()), all.as_bytes());
        let message = format!("{unproven},p={}", STANDARD.encode(proof));
        Ok((message.into_bytes(), Proof(expected.as_ref().to_vec())))
    }
}

impl Proof {
    /// Whether the broker's second message shows that it knows the password.
    pub(super) fn check(&self, server: &[u8]) -> Result<(), String> {
        let server = text(server)?;
        if let Some(error) = server.strip_prefix("e=") {
            return Err(format!("the broker says \"{}\"", excerpt(error.as_bytes(), 80)));
        }
        let shown = server.split(',').next().and_then(|field| field.strip_prefix("v="));
        let shown = shown.and_then(|shown| STANDARD.decode(shown).ok());
        // What is compared isn't secret from whoever has sent it: it is tried once per connection.
        if shown.as_deref() == Some(&self.0) {
            Ok(())
        } else {
            Err("the broker doesn't know the password".to_owned())
        }
    }
}

fn text(message: &[u8]) -> Result<&str, String> {
    if message.len() > MESSAGE_BYTES_MAX {
        return Err(format!(
            "the broker's message has {} bytes, more than {MESSAGE_BYTES_MAX}",
            message.len()
        ));
    }
    std::str::from_utf8(message).map_err(|_| "the broker's message is no text".to_owned())
}

/// Chance for a nonce.
pub(super) fn chance() -> Result<[u8; NONCE_BYTES], String> {
    let chance: ring::rand::Random<[u8; NONCE_BYTES]> =
        ring::rand::generate(&ring::rand::SystemRandom::new())
            .map_err(|_| "the system has no randomness".to_owned())?;
    Ok(chance.expose())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(mechanism: SaslMechanism, username: &str) -> SaslConfig {
        SaslConfig { mechanism, username: username.to_owned(), password: "pencil".into() }
    }

    /// The exchange of RFC 7677 section 3, with its nonce.
    fn of_the_rfc() -> Scram {
        let nonce = "rOprNGfwEbeRWgbNEkqO".to_owned();
        let scram = Scram::new(&config(SaslMechanism::ScramSha256, "user"), &[0; NONCE_BYTES]).unwrap();
        Scram { bare: format!("n=user,r={nonce}"), nonce, ..scram }
    }

    const FIRST: &str =
        "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";

    #[test]
    fn scram_says_what_rfc_7677_says() {
        let scram = of_the_rfc();
        assert_eq!(scram.first(), b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        let (second, proof) = scram.second(FIRST.as_bytes()).unwrap();
        let expected = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                        p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        assert_eq!(String::from_utf8(second).unwrap(), expected);
        assert_eq!(proof.check(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="), Ok(()));
    }

    #[test]
    fn scram_believes_no_broker_that_does_not_know_the_password() {
        let (_, proof) = of_the_rfc().second(FIRST.as_bytes()).unwrap();
        for (message, expected) in [
            (&b"v=7rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="[..], "doesn't know the password"),
            (b"v=", "doesn't know the password"),
            (b"", "doesn't know the password"),
            (b"e=invalid-proof", "the broker says \"invalid-proof\""),
            (b"\xff", "is no text"),
            (&[b'v'; MESSAGE_BYTES_MAX + 1], "4097 bytes, more than 4096"),
        ] {
            let error = proof.check(message).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn scram_hashes_no_more_than_is_reasonable_and_no_less_than_is_safe() {
        let scram = of_the_rfc();
        let first = |iterations: &str| FIRST.replace("i=4096", &format!("i={iterations}"));
        for iterations in ["0", "1", "4095", "100001", "4294967295", "99999999999999999999", "-1", "x", ""] {
            let error = scram.second(first(iterations).as_bytes()).err().unwrap();
            assert!(error.contains("times, not 4096 to 100000"), "{error}");
        }
        for iterations in ["4096", "100000"] {
            assert!(scram.second(first(iterations).as_bytes()).is_ok(), "{iterations}");
        }
    }

    #[test]
    fn scram_refuses_a_first_message_that_is_none() {
        let scram = of_the_rfc();
        for (message, expected) in [
            ("", "no \"r\""),
            ("r=rOprNGfwEbeRWgbNEkqO,s=QQ==,i=4096", "doesn't continue ours"),
            ("r=other,s=QQ==,i=4096", "doesn't continue ours"),
            ("r=rOprNGfwEbeRWgbNEkqOx,i=4096", "no \"s\""),
            ("r=rOprNGfwEbeRWgbNEkqOx,s=?,i=4096", "no base64"),
            ("r=rOprNGfwEbeRWgbNEkqOx,s=QQ==", "no \"i\""),
            ("m=must,r=rOprNGfwEbeRWgbNEkqOx,s=QQ==,i=4096", "no \"r\""),
        ] {
            let error = scram.second(message.as_bytes()).err().unwrap();
            assert!(error.contains(expected), "{message}: {error}");
        }
    }

    #[test]
    fn names_are_escaped_and_nonces_differ() {
        let of = |chance| Scram::new(&config(SaslMechanism::ScramSha512, "a=b,c"), &chance).unwrap().first();
        let first = String::from_utf8(of(chance().unwrap())).unwrap();
        assert!(first.starts_with("n,,n=a=3Db=2Cc,r="), "{first}");
        assert_ne!(of(chance().unwrap()), of(chance().unwrap()));
        assert!(Scram::new(&config(SaslMechanism::Plain, "u"), &[0; NONCE_BYTES]).is_none());
        assert_eq!(plain(&config(SaslMechanism::Plain, "u")), b"\0u\0pencil");
    }
}
