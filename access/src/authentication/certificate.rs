//! The user name from a client's certificate.
//!
//! TLS has proven that the certificate is of a CA that the listener trusts and that the client holds its key; here it is only
//! read. Whoever can choose how a certificate is written must not be able to choose who it is: a part that is there twice, a
//! name part made of several attributes, or text in a type whose meaning programs disagree about gives no name at all.

use ring::digest;
use x509_parser::asn1_rs::Tag;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

use super::{Attempt, Denial, Identity, Outcome};

/// Longest user name, in bytes.
const NAME_BYTES_MAX: usize = 1024;

/// Where the user name stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CertificateName {
    /// The Common Name of the subject.
    SubjectCn,
    /// The whole subject, as RFC 4514 writes it: `CN=pump-7,OU=plant,O=Example`.
    SubjectDn,
    /// The one DNS name among the alternative names, in lower case.
    SanDns,
    /// The one e-mail address among the alternative names.
    SanEmail,
    /// The one URI among the alternative names.
    SanUri,
    /// SHA-256 of the certificate, in hexadecimal.
    Fingerprint,
}

/// Why a certificate gives no name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoName {
    #[error("the certificate is not understood")]
    NotUnderstood,
    #[error("the certificate has no such name")]
    Missing,
    #[error("the certificate has several such names")]
    Several,
    #[error("the certificate's subject has a part of several attributes")]
    SeveralInOne,
    #[error("the name is in a type of text that is not accepted")]
    Text,
    #[error("the name is empty, too long or has control characters")]
    Unusable,
}

/// See the module.
#[derive(Debug)]
pub struct Certificate {
    username: CertificateName,
}

impl Certificate {
    /// Takes user names from there.
    #[must_use]
    pub fn new(username: CertificateName) -> Self {
        Self { username }
    }

    pub(crate) fn authenticate(&self, attempt: &Attempt) -> Outcome {
        let Some(der) = &attempt.certificate else { return Outcome::Ignore };
        let deny = |why: &str| Outcome::Deny(Denial::NotAuthorized, why.into());
        match name_of(der, self.username) {
            Err(why) => deny(&why.to_string()),
            Ok(name) if attempt.username.as_deref().is_some_and(|given| given != &*name) => {
                deny("the user name is another one than the certificate's")
            }
            Ok(name) => Outcome::Allow(Identity { username: Some(name), ..Identity::default() }, None),
        }
    }
}

fn name_of(der: &[u8], from: CertificateName) -> Result<Box<str>, NoName> {
    let name = match X509Certificate::from_der(der) {
        Ok((&[], certificate)) => match from {
            CertificateName::SubjectCn => common_name(certificate.subject())?,
            CertificateName::SubjectDn => distinguished_name(certificate.subject())?,
            CertificateName::SanDns => the_one(&certificate, |name| match name {
                GeneralName::DNSName(text) => Some(text.to_ascii_lowercase()),
                _ => None,
            })?,
            CertificateName::SanEmail => the_one(&certificate, |name| match name {
                GeneralName::RFC822Name(text) => Some((*text).to_owned()),
                _ => None,
            })?,
            CertificateName::SanUri => the_one(&certificate, |name| match name {
                GeneralName::URI(text) => Some((*text).to_owned()),
                _ => None,
            })?,
            CertificateName::Fingerprint => hex(digest::digest(&digest::SHA256, der).as_ref()),
        },
        _ => return Err(NoName::NotUnderstood),
    };
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.contains(char::is_control) {
        return Err(NoName::Unusable);
    }
    Ok(name.into())
}

fn common_name(subject: &X509Name<'_>) -> Result<String, NoName> {
    let mut found = None;
    for part in subject.iter_rdn() {
        let mut attributes = part.iter();
        let (Some(attribute), None) = (attributes.next(), attributes.next()) else {
            return Err(NoName::SeveralInOne);
        };
        if short_name(attribute) == Some("CN") && found.replace(text(attribute)?).is_some() {
            return Err(NoName::Several);
        }
    }
    found.map(str::to_owned).ok_or(NoName::Missing)
}

/// The subject from its last part to its first, with what could be taken for structure escaped (RFC 4514 §2).
pub(super) fn distinguished_name(subject: &X509Name<'_>) -> Result<String, NoName> {
    let mut parts = Vec::new();
    for part in subject.iter_rdn() {
        let mut attributes = part.iter();
        let (Some(attribute), None) = (attributes.next(), attributes.next()) else {
            return Err(NoName::SeveralInOne);
        };
        let kind = short_name(attribute).map_or_else(|| attribute.attr_type().to_id_string(), str::to_owned);
        parts.push(format!("{kind}={}", escaped(text(attribute)?)));
    }
    parts.reverse();
    Ok(parts.join(","))
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    let last = text.chars().count().saturating_sub(1);
    for (at, character) in text.chars().enumerate() {
        let is_special = matches!(character, '"' | '+' | ',' | ';' | '<' | '>' | '\\' | '=')
            || (at == 0 && matches!(character, ' ' | '#'))
            || (at == last && character == ' ');
        if is_special {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}

/// The one alternative name of a kind.
fn the_one(
    certificate: &X509Certificate<'_>,
    kind: impl Fn(&GeneralName<'_>) -> Option<String>,
) -> Result<String, NoName> {
    let extension = certificate.subject_alternative_name().map_err(|_| NoName::NotUnderstood)?;
    let names = extension.map(|extension| &extension.value.general_names).ok_or(NoName::Missing)?;
    if names.iter().any(|name| matches!(name, GeneralName::Invalid(..))) {
        return Err(NoName::NotUnderstood);
    }
    let mut of_kind = names.iter().filter_map(kind);
    match (of_kind.next(), of_kind.next()) {
        (None, _) => Err(NoName::Missing),
        (Some(name), None) => Ok(name),
        (Some(_), Some(_)) => Err(NoName::Several),
    }
}

/// Text in the types that every program reads alike.
fn text<'c>(attribute: &'c AttributeTypeAndValue<'_>) -> Result<&'c str, NoName> {
    let is_plain = [Tag::Utf8String, Tag::PrintableString, Tag::Ia5String, Tag::NumericString]
        .contains(&attribute.attr_value().tag());
    if !is_plain {
        return Err(NoName::Text);
    }
    attribute.as_str().map_err(|_| NoName::Text)
}

/// The names of RFC 4514 §3.
fn short_name(attribute: &AttributeTypeAndValue<'_>) -> Option<&'static str> {
    Some(match attribute.attr_type().to_id_string().as_str() {
        "2.5.4.3" => "CN",
        "2.5.4.6" => "C",
        "2.5.4.7" => "L",
        "2.5.4.8" => "ST",
        "2.5.4.9" => "STREET",
        "2.5.4.10" => "O",
        "2.5.4.11" => "OU",
        "0.9.2342.19200300.100.1.1" => "UID",
        "0.9.2342.19200300.100.1.25" => "DC",
        _ => return None,
    })
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use mqtt_protocol::ProtocolVersion;
    use rcgen::{CertificateParams, DnType, DnValue, KeyPair, SanType};

    use super::*;

    fn certificate(subject: &[(DnType, DnValue)], names: Vec<SanType>) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, value) in subject {
            params.distinguished_name.push(kind.clone(), value.clone());
        }
        params.subject_alt_names = names;
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    fn utf8(text: &str) -> DnValue {
        DnValue::Utf8String(text.to_owned())
    }

    fn dns(name: &str) -> SanType {
        SanType::DnsName(name.try_into().unwrap())
    }

    fn name(der: &[u8], from: CertificateName) -> Result<String, NoName> {
        name_of(der, from).map(Into::into)
    }

    #[test]
    fn each_place_gives_its_name() {
        use CertificateName::{Fingerprint, SanDns, SanEmail, SanUri, SubjectCn, SubjectDn};
        let der = certificate(
            &[(DnType::OrganizationName, utf8("Example, Inc.")), (DnType::CommonName, utf8("pump 7"))],
            vec![
                dns("Pump7.Example"),
                SanType::Rfc822Name("pump7@example.org".try_into().unwrap()),
                SanType::URI("urn:example:pump7".try_into().unwrap()),
                SanType::IpAddress([192, 0, 2, 1].into()),
            ],
        );
        assert_eq!(name(&der, SubjectCn).unwrap(), "pump 7");
        assert_eq!(name(&der, SubjectDn).unwrap(), "CN=pump 7,O=Example\\, Inc.");
        assert_eq!(name(&der, SanDns).unwrap(), "pump7.example");
        assert_eq!(name(&der, SanEmail).unwrap(), "pump7@example.org");
        assert_eq!(name(&der, SanUri).unwrap(), "urn:example:pump7");
        let fingerprint = name(&der, Fingerprint).unwrap();
        assert!(fingerprint.len() == 64 && fingerprint.bytes().all(|byte| byte.is_ascii_hexdigit()));
    }

    #[test]
    fn what_isn_t_there_gives_no_name() {
        use CertificateName::{SanDns, SanEmail, SanUri, SubjectCn, SubjectDn};
        let bare = certificate(&[], Vec::new());
        for from in [SubjectCn, SanDns, SanEmail, SanUri] {
            assert_eq!(name(&bare, from), Err(NoName::Missing), "{from:?}");
        }
        assert_eq!(name(&bare, SubjectDn), Err(NoName::Unusable));
        let other = certificate(&[(DnType::OrganizationName, utf8("Example"))], vec![dns("a.example")]);
        assert_eq!(name(&other, SubjectCn), Err(NoName::Missing));
        assert_eq!(name(&other, SanEmail), Err(NoName::Missing));
    }

    #[test]
    fn what_is_there_twice_gives_no_name() {
        let der = certificate(&[], vec![dns("a.example"), dns("b.example")]);
        assert_eq!(name(&der, CertificateName::SanDns), Err(NoName::Several));
        // rcgen writes no attribute twice, so one of another kind is made one of this kind: 2.5.4.11 becomes 2.5.4.3.
        // Tag and length come along: the three bytes alone may be anywhere in a random key.
        let subject = [(DnType::CommonName, utf8("admin")), (DnType::OrganizationalUnitName, utf8("pump"))];
        let two = patched(&certificate(&subject, Vec::new()), &[6, 3, 0x55, 4, 11], &[6, 3, 0x55, 4, 3]);
        assert_eq!(name(&two, CertificateName::SubjectCn), Err(NoName::Several));
        assert_eq!(name(&two, CertificateName::SubjectDn).unwrap(), "CN=pump,CN=admin");
    }

    /// The certificate with bytes replaced wherever they are; the signature isn't looked at here.
    fn patched(der: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
        let mut der = der.to_vec();
        let places: Vec<usize> =
            der.windows(from.len()).enumerate().filter(|(_, part)| part == &from).map(|(at, _)| at).collect();
        assert!(!places.is_empty());
        for at in places {
            der[at..at + to.len()].copy_from_slice(to);
        }
        der
    }

    #[test]
    fn a_part_of_several_attributes_gives_no_name() {
        // SET { SEQUENCE { CN, "ab" } } SET { SEQUENCE { O, "cd" } } becomes SET { SEQUENCE { CN }, SEQUENCE { O } }: the second
        // SET's header goes, the first grows, and two bytes more of the last text keep the length.
        let subject = [(DnType::CommonName, utf8("ab")), (DnType::OrganizationName, utf8("cd"))];
        let der = certificate(&subject, Vec::new());
        let cn = [0x31, 0x0b, 0x30, 0x09, 0x06, 3, 0x55, 4, 3, 0x0c, 2, b'a', b'b'];
        let o = [0x31, 0x0b, 0x30, 0x09, 0x06, 3, 0x55, 4, 10, 0x0c, 2, b'c', b'd'];
        let mut one = vec![0x31, 0x18, 0x30, 0x09, 0x06, 3, 0x55, 4, 3, 0x0c, 2, b'a', b'b'];
        one.extend([0x30, 0x0b, 0x06, 3, 0x55, 4, 10, 0x0c, 4, b'c', b'd', b'e', b'f']);
        let multi = patched(&der, &[cn, o].concat(), &one);
        assert_eq!(name(&multi, CertificateName::SubjectCn), Err(NoName::SeveralInOne));
        assert_eq!(name(&multi, CertificateName::SubjectDn), Err(NoName::SeveralInOne));
    }

    #[test]
    fn text_that_programs_read_differently_gives_no_name() {
        let teletex = DnValue::TeletexString("admin".try_into().unwrap());
        let bmp = DnValue::BmpString("admin".try_into().unwrap());
        for value in [teletex, bmp] {
            let der = certificate(&[(DnType::CommonName, value)], Vec::new());
            assert_eq!(name(&der, CertificateName::SubjectCn), Err(NoName::Text));
        }
        for text in ["", "ad\0min", "admin\n", &"x".repeat(NAME_BYTES_MAX + 1)] {
            let der = certificate(&[(DnType::CommonName, utf8(text))], Vec::new());
            assert_eq!(name(&der, CertificateName::SubjectCn), Err(NoName::Unusable), "{text:?}");
        }
        let longest = "x".repeat(NAME_BYTES_MAX);
        let der = certificate(&[(DnType::CommonName, utf8(&longest))], Vec::new());
        assert_eq!(name(&der, CertificateName::SubjectCn).unwrap(), longest);
    }

    #[test]
    fn text_can_t_be_taken_for_structure() {
        for (value, written) in [
            ("a,CN=admin", "CN=a\\,CN\\=admin"),
            ("a+b", "CN=a\\+b"),
            (" a ", "CN=\\ a\\ "),
            ("#a", "CN=\\#a"),
            ("a\\", "CN=a\\\\"),
            (" ", "CN=\\ "),
            ("é", "CN=é"),
        ] {
            let der = certificate(&[(DnType::CommonName, utf8(value))], Vec::new());
            assert_eq!(name(&der, CertificateName::SubjectDn).unwrap(), written);
        }
    }

    #[test]
    fn what_is_no_certificate_gives_no_name() {
        let der = certificate(&[(DnType::CommonName, utf8("a"))], Vec::new());
        let longer = [&der[..], b"x"].concat();
        for bytes in [&b""[..], b"x", &der[..der.len() - 1], &longer] {
            assert_eq!(name(bytes, CertificateName::SubjectCn), Err(NoName::NotUnderstood));
            assert_eq!(name(bytes, CertificateName::Fingerprint), Err(NoName::NotUnderstood));
        }
    }

    #[test]
    fn the_client_is_who_its_certificate_says_and_claims_to_be_nobody_else() {
        let method = Certificate::new(CertificateName::SubjectCn);
        let der: Arc<[u8]> = certificate(&[(DnType::CommonName, utf8("pump"))], Vec::new()).into();
        let attempt = |username: Option<&str>, certificate: Option<Arc<[u8]>>| Attempt {
            client_id: "c".into(),
            username: username.map(Into::into),
            password: None,
            enhanced: None,
            certificate,
            address: None,
            listener: "tls".into(),
            version: ProtocolVersion::V5,
        };
        for username in [None, Some("pump")] {
            let outcome = method.authenticate(&attempt(username, Some(Arc::clone(&der))));
            assert!(
                matches!(&outcome, Outcome::Allow(identity, None) if identity.username.as_deref() == Some("pump"))
            );
        }
        let other = method.authenticate(&attempt(Some("admin"), Some(der)));
        assert!(matches!(other, Outcome::Deny(Denial::NotAuthorized, _)), "{other:?}");
        assert!(matches!(method.authenticate(&attempt(Some("pump"), None)), Outcome::Ignore));
    }
}
