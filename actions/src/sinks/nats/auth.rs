//! What a client shows to a NATS server: a name and password, a token, or a signature of what the server asks to be signed
//! (an nkey), with the JWT that says whose key it is.
//!
//! An nkey's seed is 32 bytes of Ed25519 in base32, between two bytes that say what it is for and a checksum. Ed25519 is
//! ring's, which is here anyway; the envelope is twenty lines.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{Ed25519KeyPair, KeyPair as _};

use super::connector::NatsConnectorConfig;
use crate::connectors::Fault;
use crate::secret::Secret;

const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
/// What the first byte of a seed begins with: `S`.
const PREFIX_SEED: u8 = 18 << 3;
/// What the first byte of a user's public key is: `U`.
const PREFIX_USER: u8 = 20 << 3;
/// Bytes of a decoded seed: two of the prefix, 32 of the key, two of the checksum.
const SEED_BYTES: usize = 36;

/// What is shown. It has no `Debug`.
pub(super) enum Credentials {
    None,
    User {
        name: String,
        password: Secret,
    },
    Token(Secret),
    /// A key, and the JWT that it belongs to, if there is one.
    Key {
        key: UserKey,
        jwt: Option<String>,
    },
}

impl Credentials {
    /// `file`: what the credentials file holds.
    pub(super) fn new(config: &NatsConnectorConfig, file: Option<&[u8]>) -> Result<Self, Fault> {
        if let (Some(name), Some(password)) = (&config.username, &config.password) {
            return Ok(Self::User { name: name.clone(), password: password.clone() });
        }
        if let Some(token) = &config.token {
            return Ok(Self::Token(token.clone()));
        }
        // What was wrong with a seed is not repeated: it may quote it.
        if let Some(seed) = &config.nkey_seed {
            let key = UserKey::parse(seed.expose());
            let key = key.ok_or_else(|| Fault::new("nkey_seed", "expected the seed of a user's nkey"))?;
            return Ok(Self::Key { key, jwt: None });
        }
        let Some(file) = file else { return Ok(Self::None) };
        let fault = |missing: &str| Fault::new("credentials_file", format!("holds no {missing}"));
        let text = std::str::from_utf8(file).map_err(|_| fault("text"))?;
        let jwt = section(text, "NATS USER JWT").ok_or_else(|| fault("JWT of a user"))?;
        let key = section(text, "USER NKEY SEED").and_then(UserKey::parse);
        let key = key.ok_or_else(|| fault("seed of a user's nkey"))?;
        Ok(Self::Key { key, jwt: Some(jwt.to_owned()) })
    }
}

/// The line behind `-----BEGIN <name>-----`.
fn section<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let mut lines = text.lines().map(str::trim);
    lines.by_ref().find(|line| {
        let line = line.trim_matches('-');
        line.strip_prefix("BEGIN ").is_some_and(|found| found == name)
    })?;
    lines.find(|line| !line.is_empty()).filter(|line| line.bytes().all(|b| b.is_ascii_graphic()))
}

/// A user's key.
pub(super) struct UserKey {
    pair: Ed25519KeyPair,
    /// As the server knows it: `U…`.
    public: String,
}

impl UserKey {
    fn parse(seed: &str) -> Option<Self> {
        let bytes = base32_decode(seed.trim())?;
        let (content, checksum) = bytes.split_last_chunk::<2>()?;
        if bytes.len() != SEED_BYTES || crc16(content) != u16::from_le_bytes(*checksum) {
            return None;
        }
        let ([first, second], key) = content.split_first_chunk::<2>()?;
        let kind = (first & 0x07) << 5 | second >> 3;
        if first & 0xf8 != PREFIX_SEED || kind != PREFIX_USER {
            return None;
        }
        let pair = Ed25519KeyPair::from_seed_unchecked(key).ok()?;
        let mut public = vec![PREFIX_USER];
        public.extend_from_slice(pair.public_key().as_ref());
        let checksum = crc16(&public);
        public.extend_from_slice(&checksum.to_le_bytes());
        Some(Self { pair, public: base32_encode(&public) })
    }

    pub(super) fn public(&self) -> &str {
        &self.public
    }

    /// Signs what the server asks to be signed.
    pub(super) fn sign(&self, nonce: &str) -> String {
        URL_SAFE_NO_PAD.encode(self.pair.sign(nonce.as_bytes()))
    }
}

/// Base32 without padding (RFC 4648 section 6). Longer than any seed is none.
fn base32_decode(text: &str) -> Option<Vec<u8>> {
    if text.len() > SEED_BYTES * 2 {
        return None;
    }
    let mut bytes = Vec::with_capacity(SEED_BYTES);
    let (mut bits, mut held) = (0_u32, 0_u32);
    for c in text.bytes() {
        let value = BASE32.iter().position(|known| *known == c)?;
        bits = bits << 5 | u32::try_from(value).ok()?;
        held += 5;
        if held >= 8 {
            held -= 8;
            bytes.push(u8::try_from(bits >> held & 0xff).ok()?);
            bits &= (1 << held) - 1;
        }
    }
    Some(bytes)
}

fn base32_encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(5) * 8);
    let (mut bits, mut held) = (0_u32, 0_u32);
    let mut put = |value: u32| text.extend(BASE32.get(value as usize & 0x1f).map(|c| char::from(*c)));
    for byte in bytes {
        bits = bits << 8 | u32::from(*byte);
        held += 8;
        while held >= 5 {
            held -= 5;
            put(bits >> held);
        }
        bits &= (1 << held) - 1;
    }
    if held > 0 {
        put(bits << (5 - held));
    }
    text
}

/// CRC-16 of XMODEM: polynomial 0x1021, nothing reflected.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(
            crc ^ u16::from(*byte) << 8,
            |crc, _| {
                if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 }
            },
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pair in the manual of NATS, made by its own tool.
    const SEED: &str = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY";
    const PUBLIC: &str = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4";

    #[test]
    fn a_seed_gives_the_public_key_that_others_derive() {
        assert_eq!(UserKey::parse(SEED).unwrap().public(), PUBLIC);
    }

    #[test]
    fn what_is_no_seed_of_a_user_is_refused() {
        let changed = SEED.replace("SSL3", "SSL4");
        for text in [
            "",
            "SU",
            PUBLIC,
            SEED.strip_suffix('Y').unwrap(),
            &changed,
            &SEED.to_lowercase(),
            &"A".repeat(100),
        ] {
            assert!(UserKey::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn base32_is_what_it_was() {
        for length in 0..=SEED_BYTES {
            let bytes: Vec<u8> = (0..length).map(|n| u8::try_from(n * 37 % 256).unwrap()).collect();
            assert_eq!(base32_decode(&base32_encode(&bytes)), Some(bytes));
        }
        assert_eq!(base32_encode(b"foobar"), "MZXW6YTBOI");
    }
}
