//! The messages of SCRAM (RFC 5802 §7), as far as a server without channel binding reads them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Longest message that is read, in bytes.
const MESSAGE_BYTES_MAX: usize = 4096;
/// Longest nonce of a client, in bytes.
const NONCE_BYTES_MAX: usize = 256;

/// What is wrong with a message. For the log: the client hears that it is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    #[error("the message is not text of at most {MESSAGE_BYTES_MAX} bytes")]
    Text,
    #[error("the message is not of the form that SCRAM gives it")]
    Form,
    #[error("channel binding is not offered")]
    ChannelBinding,
    #[error("nobody acts for somebody else here")]
    Authorization,
    #[error("the user name is written in a way that can't be read")]
    Name,
    #[error("an extension has to be understood and isn't")]
    Extension,
}

/// The first message of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClientFirst {
    pub(crate) username: String,
    pub(crate) nonce: String,
    /// What goes into the signed text.
    pub(crate) bare: String,
    /// What the last message has to repeat.
    pub(crate) header: String,
}

/// The last message of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClientFinal {
    pub(crate) nonce: String,
    pub(crate) header: Vec<u8>,
    pub(crate) proof: Vec<u8>,
    /// What goes into the signed text.
    pub(crate) without_proof: String,
}

fn text(data: &[u8]) -> Result<&str, Malformed> {
    if data.len() > MESSAGE_BYTES_MAX {
        return Err(Malformed::Text);
    }
    std::str::from_utf8(data).map_err(|_| Malformed::Text)
}

impl ClientFirst {
    pub(crate) fn parse(data: &[u8]) -> Result<Self, Malformed> {
        let text = text(data)?;
        let (binding, rest) = text.split_once(',').ok_or(Malformed::Form)?;
        let (authorization, bare) = rest.split_once(',').ok_or(Malformed::Form)?;
        match binding {
            "n" | "y" => {}
            _ if binding.starts_with("p=") => return Err(Malformed::ChannelBinding),
            _ => return Err(Malformed::Form),
        }
        let header = format!("{binding},{authorization},");
        let mut attributes = bare.split(',');
        let first = attributes.next().unwrap_or_default();
        if first.starts_with("m=") {
            return Err(Malformed::Extension);
        }
        let username = unescaped(first.strip_prefix("n=").ok_or(Malformed::Form)?)?;
        let nonce = attributes.next().and_then(|part| part.strip_prefix("r=")).ok_or(Malformed::Form)?;
        if nonce.is_empty() || nonce.len() > NONCE_BYTES_MAX || !is_printable(nonce) {
            return Err(Malformed::Form);
        }
        if attributes.any(|extension| !is_extension(extension)) {
            return Err(Malformed::Form);
        }
        let for_whom = match authorization {
            "" => None,
            other => Some(unescaped(other.strip_prefix("a=").ok_or(Malformed::Form)?)?),
        };
        if for_whom.is_some_and(|for_whom| for_whom != username) {
            return Err(Malformed::Authorization);
        }
        Ok(Self { username, nonce: nonce.to_owned(), bare: bare.to_owned(), header })
    }
}

impl ClientFinal {
    pub(crate) fn parse(data: &[u8]) -> Result<Self, Malformed> {
        let text = text(data)?;
        let (without_proof, proof) = text.rsplit_once(",p=").ok_or(Malformed::Form)?;
        let mut attributes = without_proof.split(',');
        let header = attributes.next().and_then(|part| part.strip_prefix("c=")).ok_or(Malformed::Form)?;
        let nonce = attributes.next().and_then(|part| part.strip_prefix("r=")).ok_or(Malformed::Form)?;
        if attributes.any(|extension| !is_extension(extension)) {
            return Err(Malformed::Form);
        }
        let decoded = |text: &str| STANDARD.decode(text).map_err(|_| Malformed::Form);
        Ok(Self {
            nonce: nonce.to_owned(),
            header: decoded(header)?,
            proof: decoded(proof)?,
            without_proof: without_proof.to_owned(),
        })
    }
}

/// A user name as it is meant: `=2C` is a comma, `=3D` an equals sign, and no other `=` may be there.
fn unescaped(name: &str) -> Result<String, Malformed> {
    let mut parts = name.split('=');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (character, rest) = match (part.strip_prefix("2C"), part.strip_prefix("3D")) {
            (Some(rest), _) => (',', rest),
            (_, Some(rest)) => ('=', rest),
            (None, None) => return Err(Malformed::Name),
        };
        plain.push(character);
        plain.push_str(rest);
    }
    if plain.is_empty() || plain.contains(char::is_control) {
        return Err(Malformed::Name);
    }
    Ok(plain)
}

fn is_printable(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, 0x21..=0x7e))
}

/// An attribute that may be there and be left alone.
fn is_extension(part: &str) -> bool {
    part.split_once('=').is_some_and(|(name, value)| {
        name.len() == 1
            && name.bytes().all(|byte| byte.is_ascii_alphabetic())
            && !value.is_empty()
            && name != "m"
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(text: &str) -> Result<ClientFirst, Malformed> {
        ClientFirst::parse(text.as_bytes())
    }

    fn last(text: &str) -> Result<ClientFinal, Malformed> {
        ClientFinal::parse(text.as_bytes())
    }

    #[test]
    fn a_first_message_is_read() {
        let message = first("n,,n=user,r=rOprNGfwEbeRWgbNEkqO").unwrap();
        assert_eq!((&*message.username, &*message.nonce), ("user", "rOprNGfwEbeRWgbNEkqO"));
        assert_eq!((&*message.bare, &*message.header), ("n=user,r=rOprNGfwEbeRWgbNEkqO", "n,,"));
        assert_eq!(first("y,a=a=2Cb=3D,n=a=2Cb=3D,r=x,z=1").unwrap().username, "a,b=");
        assert_eq!(first("n,,n=é,r=x").unwrap().username, "é");
    }

    #[test]
    fn a_first_message_that_isn_t_one_is_refused() {
        for (text, why) in [
            ("", Malformed::Form),
            ("n", Malformed::Form),
            ("n,,", Malformed::Form),
            ("n,,n=user", Malformed::Form),
            ("n,,r=x,n=user", Malformed::Form),
            ("n,,n=user,r=", Malformed::Form),
            ("n,,n=user,r=a b", Malformed::Form),
            ("n,,n=user,r=é", Malformed::Form),
            ("x,,n=user,r=x", Malformed::Form),
            ("n,b=,n=user,r=x", Malformed::Form),
            ("n,,n=user,r=x,", Malformed::Form),
            ("n,,n=user,r=x,zz=1", Malformed::Form),
            ("p=tls-unique,,n=user,r=x", Malformed::ChannelBinding),
            ("n,a=admin,n=user,r=x", Malformed::Authorization),
            ("n,,m=1,n=user,r=x", Malformed::Extension),
            ("n,,n=,r=x", Malformed::Name),
            ("n,,n=a=b,r=x", Malformed::Name),
            ("n,,n=a=2c,r=x", Malformed::Name),
            ("n,,n=a=,r=x", Malformed::Name),
            ("n,,n=a\u{0}b,r=x", Malformed::Name),
        ] {
            assert_eq!(first(text), Err(why), "{text:?}");
        }
        assert_eq!(ClientFirst::parse(b"n,,n=\xff,r=x"), Err(Malformed::Text));
        let with_nonce = |bytes: usize| first(&format!("n,,n=user,r={}", "x".repeat(bytes)));
        assert!(with_nonce(NONCE_BYTES_MAX).is_ok());
        assert_eq!(with_nonce(NONCE_BYTES_MAX + 1), Err(Malformed::Form));
        let of_size = |bytes: usize| first(&format!("n,,n={},r=x", "x".repeat(bytes - 9)));
        assert_eq!(of_size(MESSAGE_BYTES_MAX).unwrap().bare.len() + 3, MESSAGE_BYTES_MAX);
        assert_eq!(of_size(MESSAGE_BYTES_MAX + 1), Err(Malformed::Text));
    }

    #[test]
    fn a_last_message_is_read() {
        let message = last("c=biws,r=abc,p=AAAA").unwrap();
        assert_eq!((message.header, message.proof), (b"n,,".to_vec(), vec![0; 3]));
        assert_eq!((&*message.nonce, &*message.without_proof), ("abc", "c=biws,r=abc"));
        assert_eq!(last("c=biws,r=abc,z=1,p=AAAA").unwrap().without_proof, "c=biws,r=abc,z=1");
    }

    #[test]
    fn a_last_message_that_isn_t_one_is_refused() {
        for text in [
            "",
            "c=biws",
            "c=biws,r=abc",
            "c=biws,p=AAAA",
            "r=abc,c=biws,p=AAAA",
            "c=*,r=abc,p=AAAA",
            "c=biws,r=abc,p=*",
            "c=biws,r=abc,m=1,p=AAAA",
            "c=biws,r=abc,p=AAAA,z=1",
        ] {
            assert_eq!(last(text), Err(Malformed::Form), "{text:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_message_brings_the_reader_down(data in proptest::collection::vec(0u8.., 0..200), text in "[npyac=,mrz2CD3]{0,40}") {
            for message in [&data[..], text.as_bytes()] {
                drop(ClientFirst::parse(message));
                drop(ClientFinal::parse(message));
            }
        }
    }
}
