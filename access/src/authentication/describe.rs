//! A certificate in words: for people, in the forms that the configuration takes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ring::digest;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};
use x509_parser::x509::X509Name;

use super::certificate::{distinguished_name, hex};

/// What a certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateSummary {
    /// The subject, as `username = "subject_dn"` takes it.
    pub subject: String,
    /// The issuer, in the same form.
    pub issuer: String,
    /// Serial number, in hexadecimal.
    pub serial: String,
    /// Alternative names, each with its kind in front: `dns:`, `ip:`, `email:`, `uri:`, `other:`.
    pub names: Vec<String>,
    /// SHA-256, as `username = "fingerprint"` takes it.
    pub fingerprint: String,
    /// First second in which it is valid, since the epoch.
    pub not_before_s: i64,
    /// Last second in which it is valid, since the epoch.
    pub not_after_s: i64,
    /// Whether it may issue others.
    pub is_authority: bool,
}

impl CertificateSummary {
    /// Reads a certificate, DER; `None` if that is none.
    #[must_use]
    pub fn of(der: &[u8]) -> Option<Self> {
        let Ok((&[], certificate)) = X509Certificate::from_der(der) else { return None };
        let names = match certificate.subject_alternative_name() {
            Ok(Some(extension)) => extension.value.general_names.iter().map(name).collect(),
            Ok(None) => Vec::new(),
            Err(_) => vec!["other:not understood".to_owned()],
        };
        Some(Self {
            subject: whole(certificate.subject()),
            issuer: whole(certificate.issuer()),
            serial: hex(certificate.raw_serial()),
            names,
            fingerprint: hex(digest::digest(&digest::SHA256, der).as_ref()),
            not_before_s: certificate.validity().not_before.timestamp(),
            not_after_s: certificate.validity().not_after.timestamp(),
            is_authority: certificate.is_ca(),
        })
    }
}

/// A name that gives no user name is shown as well as it can be.
fn whole(name: &X509Name<'_>) -> String {
    distinguished_name(name).unwrap_or_else(|_| name.to_string())
}

fn name(name: &GeneralName<'_>) -> String {
    match name {
        GeneralName::DNSName(text) => format!("dns:{text}"),
        GeneralName::RFC822Name(text) => format!("email:{text}"),
        GeneralName::URI(text) => format!("uri:{text}"),
        GeneralName::IPAddress(bytes) => match address(bytes) {
            Some(address) => format!("ip:{address}"),
            None => "other:an address of a wrong length".to_owned(),
        },
        GeneralName::DirectoryName(name) => format!("other:{}", whole(name)),
        GeneralName::OtherName(..)
        | GeneralName::X400Address(_)
        | GeneralName::EDIPartyName(_)
        | GeneralName::RegisteredID(_) => "other:of a kind that isn't shown".to_owned(),
        GeneralName::Invalid(..) => "other:not understood".to_owned(),
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(|bytes| IpAddr::V4(Ipv4Addr::from(bytes)));
    let v6 = <[u8; 16]>::try_from(bytes).map(|bytes| IpAddr::V6(Ipv6Addr::from(bytes)));
    v4.or(v6).ok()
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType, SerialNumber, date_time_ymd};

    use super::*;

    fn params() -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "Plant, North");
        params.distinguished_name.push(DnType::CommonName, "pump-7");
        params.serial_number = Some(SerialNumber::from(0x1234u64));
        params.not_before = date_time_ymd(2024, 3, 1);
        params.not_after = date_time_ymd(2100, 1, 1);
        params.subject_alt_names = vec![
            SanType::DnsName("pump-7.example".try_into().unwrap()),
            SanType::IpAddress([192, 0, 2, 7].into()),
            SanType::IpAddress("2001:db8::7".parse().unwrap()),
            SanType::Rfc822Name("ops@example.org".try_into().unwrap()),
            SanType::URI("urn:device:7".try_into().unwrap()),
        ];
        params
    }

    #[test]
    fn everything_is_told() {
        let certificate = params().self_signed(&KeyPair::generate().unwrap()).unwrap();
        let summary = CertificateSummary::of(certificate.der()).unwrap();
        assert_eq!(summary.subject, "CN=pump-7,O=Plant\\, North");
        assert_eq!(summary.issuer, summary.subject);
        assert_eq!(summary.serial, "1234");
        assert_eq!(
            summary.names,
            [
                "dns:pump-7.example",
                "ip:192.0.2.7",
                "ip:2001:db8::7",
                "email:ops@example.org",
                "uri:urn:device:7"
            ]
        );
        let of_file = digest::digest(&digest::SHA256, certificate.der());
        assert_eq!(summary.fingerprint, hex(of_file.as_ref()));
        assert_eq!((summary.not_before_s, summary.not_after_s), (1_709_251_200, 4_102_444_800));
        assert!(!summary.is_authority);
    }

    #[test]
    fn what_is_cut_short_or_altered_never_panics() {
        let der = params().self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec();
        for end in 0..der.len() {
            assert_eq!(CertificateSummary::of(&der[..end]), None);
        }
        assert_eq!(CertificateSummary::of(&[&der[..], &[0]].concat()), None);
        for at in 0..der.len() {
            let mut altered = der.clone();
            altered[at] ^= 0x81;
            let _whatever = CertificateSummary::of(&altered);
        }
    }
}
