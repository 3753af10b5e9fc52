//! SCRAM-SHA-256 (RFC 5802, RFC 7677) as an authentication method of MQTT 5: the password never leaves the client, and the server
//! proves that it knows the user, too.
//!
//! A user who doesn't exist gets a salt like everybody else, always the same one, and fails at the end: nothing tells it from a wrong
//! password. The secret that such salts are made of is one of the file's own keys, so that a restart doesn't change them.

mod message;

use std::num::NonZeroU32;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::{digest, hmac};
use subtle::ConstantTimeEq as _;

use super::users::{Kind, Users, UsersError, UsersFile};
use super::verifier::{SCRAM_ITERATIONS, ScramVerifier, Verifier, copy, random};
pub(crate) use message::{ClientFinal, ClientFirst};

/// The name of the method in MQTT.
pub(crate) const METHOD: &str = "SCRAM-SHA-256";
/// Random bytes of our nonce.
const NONCE_BYTES: usize = 18;

/// See the module.
#[derive(Debug)]
pub struct Scram {
    file: UsersFile,
}

/// An exchange in which the client has to prove that it knows the password.
pub(crate) struct Challenge {
    pub(crate) username: Box<str>,
    verifier: ScramVerifier,
    is_known: bool,
    header: String,
    nonce: String,
    /// The first messages of both sides, which are signed.
    so_far: String,
}

impl Scram {
    /// Reads the file of users, each line of which has to be for SCRAM.
    ///
    /// # Errors
    /// [`UsersError`].
    pub fn open(path: &Path) -> Result<Self, UsersError> {
        Ok(Self { file: UsersFile::open(path, Kind::Scram)? })
    }

    /// The file.
    #[must_use]
    pub fn file(&self) -> &UsersFile {
        &self.file
    }

    /// Whether the file has the user.
    pub(crate) fn knows(&self, username: &str) -> bool {
        self.file.users().find(username).is_some()
    }

    /// Answers a client's first message with the challenge; `None`: there are no random numbers.
    pub(crate) fn challenge(&self, first: &ClientFirst) -> Option<(Challenge, Vec<u8>)> {
        let nonce = URL_SAFE_NO_PAD.encode(random::<NONCE_BYTES>().ok()?);
        Some(Challenge::new(first, &self.file.users(), &nonce))
    }
}

impl Challenge {
    fn new(first: &ClientFirst, users: &Users, nonce: &str) -> (Self, Vec<u8>) {
        let known = match users.find(&first.username).map(|verifier| &**verifier) {
            Some(Verifier::ScramSha256(verifier)) => Some(verifier.clone()),
            _ => None,
        };
        let is_known = known.is_some();
        let verifier = known.unwrap_or_else(|| pretended(&first.username, users));
        let nonce = format!("{}{nonce}", first.nonce);
        let salt = STANDARD.encode(&verifier.salt);
        let server_first = format!("r={nonce},s={salt},i={}", verifier.iterations);
        let challenge = Self {
            username: first.username.as_str().into(),
            verifier,
            is_known,
            header: first.header.clone(),
            nonce,
            so_far: format!("{},{server_first}", first.bare),
        };
        (challenge, server_first.into_bytes())
    }

    /// Checks the proof in a client's last message; gives the proof of ours.
    pub(crate) fn answer(&self, data: &[u8]) -> Result<Vec<u8>, &'static str> {
        let last = ClientFinal::parse(data).map_err(|_| "the last message of SCRAM is malformed")?;
        if last.header != self.header.as_bytes() {
            return Err("the first message was changed on its way");
        }
        if last.nonce != self.nonce {
            return Err("the nonce is another one");
        }
        let signed = format!("{},{}", self.so_far, last.without_proof);
        let sign = |key: &[u8]| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), signed.as_bytes());
        // The proof is the client's key hidden under the signature.
        let signature = sign(&self.verifier.stored_key);
        let mut client_key = [0; digest::SHA256_OUTPUT_LEN];
        copy(&mut client_key, &last.proof);
        for (byte, mask) in client_key.iter_mut().zip(signature.as_ref()) {
            *byte ^= mask;
        }
        let stored_key = digest::digest(&digest::SHA256, &client_key);
        let is_right: bool = stored_key.as_ref().ct_eq(&self.verifier.stored_key).into();
        if !is_right || last.proof.len() != client_key.len() || !self.is_known {
            return Err("the proof is wrong");
        }
        Ok(format!("v={}", STANDARD.encode(sign(&self.verifier.server_key))).into_bytes())
    }
}

/// What a user who doesn't exist is answered with: what a real one could have, the same each time.
fn pretended(username: &str, users: &Users) -> ScramVerifier {
    let (secret, iterations, salt_bytes) = match &**users.costliest() {
        Verifier::ScramSha256(verifier) => {
            (&verifier.server_key[..], verifier.iterations, verifier.salt.len())
        }
        _ => (&[][..], NonZeroU32::new(SCRAM_ITERATIONS).unwrap_or(NonZeroU32::MIN), NONCE_BYTES),
    };
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let of = |what: &str| hmac::sign(&key, format!("{what} {username}").as_bytes());
    let salt: Vec<u8> = of("salt").as_ref().iter().copied().cycle().take(salt_bytes).collect();
    let mut verifier = ScramVerifier {
        iterations,
        salt: salt.into(),
        stored_key: [0; digest::SHA256_OUTPUT_LEN],
        server_key: [0; digest::SHA256_OUTPUT_LEN],
    };
    copy(&mut verifier.stored_key, of("key").as_ref());
    verifier
}

#[cfg(test)]
mod tests {
    use super::super::verifier::scram_sha_256;
    use super::*;

    /// RFC 7677 §3.
    const FIRST: &[u8] = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
    const SERVER_NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    const SERVER_FIRST: &str =
        "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
    const LAST: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
    const SERVER_LAST: &str = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";
    const LINE: &str = "user:$scram-sha-256$4096$W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=$wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";

    fn users(lines: &[&str]) -> (tempfile::TempDir, Scram) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        std::fs::write(&path, lines.join("\n")).unwrap();
        let scram = Scram::open(&path).unwrap();
        (folder, scram)
    }

    fn challenge(scram: &Scram, first: &[u8]) -> (Challenge, String) {
        let first = ClientFirst::parse(first).unwrap();
        let (challenge, data) = Challenge::new(&first, &scram.file.users(), SERVER_NONCE);
        (challenge, String::from_utf8(data).unwrap())
    }

    /// The client's side, written from the RFC.
    fn proof(password: &[u8], bare: &str, server_first: &str, without_proof: &str) -> String {
        let part = |name: &str| server_first.split(',').find_map(|part| part.strip_prefix(name)).unwrap();
        let (salt, iterations) = (STANDARD.decode(part("s=")).unwrap(), part("i=").parse().unwrap());
        let mut salted = [0; 32];
        ring::pbkdf2::derive(ring::pbkdf2::PBKDF2_HMAC_SHA256, iterations, &salt, password, &mut salted);
        let sign = |key: &[u8], text: &[u8]| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text);
        let client_key = sign(&salted, b"Client Key");
        let stored_key = digest::digest(&digest::SHA256, client_key.as_ref());
        let signature =
            sign(stored_key.as_ref(), format!("{bare},{server_first},{without_proof}").as_bytes());
        let proof: Vec<u8> =
            client_key.as_ref().iter().zip(signature.as_ref()).map(|(key, mask)| key ^ mask).collect();
        format!("{without_proof},p={}", STANDARD.encode(proof))
    }

    #[test]
    fn the_exchange_of_the_rfc_comes_out_as_there() {
        let (_folder, scram) = users(&[LINE]);
        let (challenge, server_first) = challenge(&scram, FIRST);
        assert_eq!(server_first, SERVER_FIRST);
        assert_eq!(challenge.answer(LAST.as_bytes()).unwrap(), SERVER_LAST.as_bytes());
        assert_eq!(
            proof(
                b"pencil",
                "n=user,r=rOprNGfwEbeRWgbNEkqO",
                SERVER_FIRST,
                LAST.rsplit_once(",p=").unwrap().0
            ),
            LAST
        );
    }

    #[test]
    fn any_other_proof_is_refused() {
        let (_folder, scram) = users(&[LINE]);
        let (challenge, server_first) = challenge(&scram, FIRST);
        let (without_proof, rfc_proof) = LAST.rsplit_once(",p=").unwrap();
        let wrong = proof(b"pencils", "n=user,r=rOprNGfwEbeRWgbNEkqO", &server_first, without_proof);
        assert_eq!(challenge.answer(wrong.as_bytes()), Err("the proof is wrong"));
        for bytes in [0, 31, 33, 64] {
            let short = format!("{without_proof},p={}", STANDARD.encode(vec![0; bytes]));
            assert_eq!(challenge.answer(short.as_bytes()), Err("the proof is wrong"), "{bytes}");
        }
        // The right one with something behind it.
        let mut longer = STANDARD.decode(rfc_proof).unwrap();
        longer.push(0);
        let longer = format!("{without_proof},p={}", STANDARD.encode(longer));
        assert_eq!(challenge.answer(longer.as_bytes()), Err("the proof is wrong"));
        let other_nonce = LAST.replace("k0,p=", "k1,p=");
        assert_eq!(challenge.answer(other_nonce.as_bytes()), Err("the nonce is another one"));
        let own_nonce = LAST.replace(SERVER_NONCE, "");
        assert_eq!(challenge.answer(own_nonce.as_bytes()), Err("the nonce is another one"));
        // "y,,": somebody on the way took the offer of channel binding out.
        let other_header = LAST.replace("c=biws", "c=eSws");
        assert_eq!(
            challenge.answer(other_header.as_bytes()),
            Err("the first message was changed on its way")
        );
        assert!(challenge.answer(b"x").is_err());
    }

    #[test]
    fn a_user_who_isn_t_there_looks_like_one_who_is_until_the_end() {
        let bob = format!("bob:{}", scram_sha_256(b"x").unwrap());
        let (_folder, scram) = users(&[&bob]);
        let (_, of_eve) = challenge(&scram, b"n,,n=eve,r=x");
        let (_, again) = challenge(&scram, b"n,,n=eve,r=x");
        let (_, of_mallory) = challenge(&scram, b"n,,n=mallory,r=x");
        let (_, of_bob) = challenge(&scram, b"n,,n=bob,r=x");
        assert_eq!(of_eve, again);
        assert_ne!(of_eve, of_mallory);
        assert_eq!(of_eve.len(), of_bob.len());
        assert!(of_eve.ends_with(",i=15000") && of_bob.ends_with(",i=15000"));
        // After a restart, and when users were added, too.
        let added: Vec<String> =
            (0..9).map(|number| format!("u{number}:{}", scram_sha_256(b"x").unwrap())).collect();
        let lines: Vec<&str> = std::iter::once(&*bob).chain(added.iter().map(|line| &**line)).collect();
        let (_folder, restarted) = users(&lines);
        assert_eq!(challenge(&restarted, b"n,,n=eve,r=x").1, of_eve);
        // Whatever the password.
        let (challenge, server_first) = challenge(&scram, b"n,,n=eve,r=x");
        let without_proof = format!("c=biws,r=x{SERVER_NONCE}");
        let last = proof(b"x", "n=eve,r=x", &server_first, &without_proof);
        assert_eq!(challenge.answer(last.as_bytes()), Err("the proof is wrong"));
    }

    #[test]
    fn our_part_of_the_nonce_is_new_each_time() {
        let (_folder, scram) = users(&[LINE]);
        let first = ClientFirst::parse(FIRST).unwrap();
        let (one, _) = scram.challenge(&first).unwrap();
        let (other, _) = scram.challenge(&first).unwrap();
        assert_ne!(one.nonce, other.nonce);
        assert!(one.nonce.starts_with("rOprNGfwEbeRWgbNEkqO") && one.nonce.len() == 20 + 24);
    }
}
