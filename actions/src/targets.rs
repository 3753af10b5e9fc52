//! Which addresses an action may connect to.
//!
//! A rule's author chooses where requests go, and a name may resolve to anything, so every address is judged when it
//! is about to be connected to, not when the rule is made: there is nothing to rebind in between. Never allowed:
//! unspecified, link-local, multicast and broadcast addresses, the metadata services of cloud providers, and this
//! process's own admin addresses. Loopback, private and reserved ranges are allowed only by an entry of the operator's
//! ([`TargetPolicy::allow_private`]). An IPv4 address inside an IPv6 one (mapped, compatible, 6to4, NAT64) is judged as
//! the IPv4 address that it stands for.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Addresses outside the link-local ranges under which cloud providers answer for credentials or machine control.
const METADATA_V4: [Ipv4Addr; 3] = [
    Ipv4Addr::new(100, 100, 100, 200), // Alibaba Cloud
    Ipv4Addr::new(168, 63, 129, 16),   // Azure's host agent
    Ipv4Addr::new(192, 0, 0, 192),     // Oracle Cloud
];
const METADATA_V6: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), // AWS
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),  // Google Cloud
];

/// Addresses that begin with the same bits, written as `10.0.0.0/8`, or as `192.168.1.20` for a single one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressRange {
    first: IpAddr,
    bits: u8,
}

/// A text that is no range of addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{text}\" is no range of addresses; expected an address, or its first bits as in \"10.0.0.0/8\" or \"fd00::/8\""
)]
pub struct AddressRangeError {
    /// What was given.
    pub text: String,
}

impl AddressRange {
    /// Every address of the same kind.
    #[must_use]
    pub fn all_like(address: IpAddr) -> Self {
        Self { first: address, bits: 0 }
    }

    /// Whether the address is one of them. An IPv4 address is in no IPv6 range.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.first, address) {
            (IpAddr::V4(first), IpAddr::V4(address)) => {
                let host_bits = 32 - u32::from(self.bits);
                (first.to_bits() ^ address.to_bits()).checked_shr(host_bits).unwrap_or(0) == 0
            }
            (IpAddr::V6(first), IpAddr::V6(address)) => {
                let host_bits = 128 - u32::from(self.bits);
                (first.to_bits() ^ address.to_bits()).checked_shr(host_bits).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

/// The range of one address.
impl From<IpAddr> for AddressRange {
    fn from(first: IpAddr) -> Self {
        Self { first, bits: if first.is_ipv4() { 32 } else { 128 } }
    }
}

impl FromStr for AddressRange {
    type Err = AddressRangeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fault = || AddressRangeError { text: text.to_owned() };
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let first: IpAddr = address.parse().map_err(|_| fault())?;
        let most = if first.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => most,
            Some(bits) if bits.bytes().all(|b| b.is_ascii_digit()) => bits.parse().map_err(|_| fault())?,
            Some(_) => return Err(fault()),
        };
        // Bits behind the prefix would suggest that a single address was meant.
        let has_rest = match first {
            IpAddr::V4(v4) => v4.to_bits().checked_shl(u32::from(bits)).unwrap_or(0) != 0,
            IpAddr::V6(v6) => v6.to_bits().checked_shl(u32::from(bits)).unwrap_or(0) != 0,
        };
        if bits > most || has_rest { Err(fault()) } else { Ok(Self { first, bits }) }
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.bits)
    }
}

impl<'de> Deserialize<'de> for AddressRange {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for AddressRange {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "AddressRange".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[0-9A-Fa-f:.]+(/[0-9]{1,3})?$" })
    }
}

impl Serialize for AddressRange {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Which addresses actions may connect to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TargetPolicy {
    /// Loopback, private and reserved addresses that are allowed. None by default.
    pub allow_private: Vec<AddressRange>,
    /// Addresses of this process's own admin interface. An unspecified address stands for each of the machine's.
    pub admin: Vec<SocketAddr>,
}

/// An address that an action may not connect to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{host}\" is at {address}, {reason}; {}", self.remedy())]
pub struct TargetError {
    /// Host as written in the URL.
    pub host: String,
    /// The address.
    pub address: IpAddr,
    /// What the address is.
    pub reason: &'static str,
    /// Whether an entry of [`TargetPolicy::allow_private`] would allow it.
    pub is_allowable: bool,
}

impl TargetError {
    fn remedy(&self) -> String {
        if self.is_allowable {
            format!("the configuration allows it with [actions] allow_private = [\"{}\"]", self.address)
        } else {
            "actions may not connect there".to_owned()
        }
    }
}

impl TargetPolicy {
    /// Judges one address.
    ///
    /// # Errors
    /// [`TargetError`] naming what kind of address it is.
    pub fn check(&self, host: &str, target: SocketAddr) -> Result<(), TargetError> {
        let address = target.ip().to_canonical();
        let embedded = match address {
            IpAddr::V4(_) => None,
            IpAddr::V6(v6) => embedded_v4(v6),
        };
        for address in [Some(address), embedded.map(IpAddr::V4)].into_iter().flatten() {
            let refused = |reason, is_allowable| {
                Err(TargetError { host: host.to_owned(), address, reason, is_allowable })
            };
            let never = match address {
                IpAddr::V4(v4) => never_v4(v4),
                IpAddr::V6(v6) => never_v6(v6),
            };
            if let Some(reason) = never {
                return refused(reason, false);
            }
            if self.is_admin(SocketAddr::new(address, target.port())) {
                return refused("this broker's own admin interface", false);
            }
            if let Some(reason) = private(address)
                && !self.allow_private.iter().any(|range| range.contains(address))
            {
                return refused(reason, true);
            }
        }
        Ok(())
    }

    fn is_admin(&self, target: SocketAddr) -> bool {
        self.admin.iter().filter(|admin| admin.port() == target.port()).any(|admin| {
            let ip = admin.ip().to_canonical();
            if ip.is_unspecified() {
                is_own(target.ip())
            } else if ip.is_loopback() {
                target.ip().is_loopback()
            } else {
                ip == target.ip()
            }
        })
    }
}

fn never_v4(v4: Ipv4Addr) -> Option<&'static str> {
    if v4.octets().first() == Some(&0) {
        Some("an unspecified address")
    } else if v4.is_link_local() {
        Some("a link-local address, where metadata services live")
    } else if v4.is_multicast() || v4.is_broadcast() {
        Some("a multicast or broadcast address")
    } else if METADATA_V4.contains(&v4) {
        Some("a metadata service")
    } else {
        None
    }
}

fn never_v6(v6: Ipv6Addr) -> Option<&'static str> {
    if v6.is_unspecified() {
        Some("an unspecified address")
    } else if v6.is_unicast_link_local() {
        Some("a link-local address, where metadata services live")
    } else if v6.is_multicast() {
        Some("a multicast address")
    } else if METADATA_V6.contains(&v6) {
        Some("a metadata service")
    } else {
        None
    }
}

/// What keeps an address from being a public one.
fn private(address: IpAddr) -> Option<&'static str> {
    if address.is_loopback() {
        return Some("a loopback address");
    }
    let is_private = match address {
        // 100.64.0.0/10: shared address space behind carrier-grade NAT (RFC 6598).
        IpAddr::V4(v4) => v4.is_private() || matches!(v4.octets(), [100, 64..=127, ..]),
        // fec0::/10 was site-local before unique local addresses replaced it.
        IpAddr::V6(v6) => v6.is_unique_local() || matches!(v6.segments(), [0xfec0..=0xfeff, ..]),
    };
    if is_private {
        return Some("a private address");
    }
    let is_reserved = match address {
        // Protocol assignments, documentation, benchmarks between networks, and class E.
        IpAddr::V4(v4) => {
            v4.is_documentation()
                || matches!(v4.octets(), [192, 0, 0, _] | [198, 18..=19, ..] | [240..=255, ..])
        }
        // Discard, documentation, benchmarks, and segment routing within one network.
        IpAddr::V6(v6) => matches!(
            v6.segments(),
            [0x100, 0, 0, 0, ..]
                | [0x2001, 0xdb8, ..]
                | [0x2001, 2, 0, ..]
                | [0x3fff, 0..=0xfff, ..]
                | [0x5f00, ..]
        ),
    };
    is_reserved.then_some("a reserved address")
}

/// The IPv4 address that an IPv6 address stands for, in the forms that a kernel or a gateway translates. Mapped
/// addresses (`::ffff:a.b.c.d`) are already canonical here.
fn embedded_v4(v6: Ipv6Addr) -> Option<Ipv4Addr> {
    let from = |high: u16, low: u16| Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low));
    match v6.segments() {
        // Compatible (RFC 4291, deprecated); `::` and `::1` are IPv6's own.
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 || low > 1 => Some(from(high, low)),
        // NAT64 (RFC 6052, RFC 8215).
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x64, 0xff9b, 1, _, _, _, high, low] => {
            Some(from(high, low))
        }
        // 6to4 (RFC 3056).
        [0x2002, high, low, ..] => Some(from(high, low)),
        _ => None,
    }
}

/// Whether the address is one of this machine's: only those can be bound.
fn is_own(address: IpAddr) -> bool {
    address.is_loopback() || UdpSocket::bind((address, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(policy: &TargetPolicy, address: &str) -> Result<(), &'static str> {
        policy.check("host", address.parse().expect("test address")).map_err(|error| error.reason)
    }

    #[test]
    fn refuses_what_no_action_needs() {
        let policy = TargetPolicy::default();
        for address in [
            "0.0.0.0:80",
            "0.1.2.3:80",
            "169.254.169.254:80",
            "169.254.0.1:80",
            "100.100.100.200:80",
            "168.63.129.16:80",
            "192.0.0.192:80",
            "224.0.0.1:80",
            "255.255.255.255:80",
            "[::]:80",
            "[fe80::1]:80",
            "[febf::1]:80",
            "[ff02::1]:80",
            "[fd00:ec2::254]:80",
            "[fd20:ce::254]:80",
            "[::ffff:169.254.169.254]:80",
            "[::ffff:0.0.0.0]:80",
            "[::a9fe:a9fe]:80",
            "[64:ff9b::a9fe:a9fe]:80",
            "[64:ff9b:1::a9fe:a9fe]:80",
            "[2002:a9fe:a9fe::1]:80",
        ] {
            assert!(judge(&policy, address).is_err(), "{address}");
        }
    }

    #[test]
    fn allows_neighbours_only_by_an_entry() {
        let nowhere = TargetPolicy::default();
        for (address, entry, reason) in [
            ("127.0.0.1:80", "127.0.0.1", "a loopback address"),
            ("127.8.8.8:80", "127.0.0.0/8", "a loopback address"),
            ("[::1]:80", "::1", "a loopback address"),
            ("[::ffff:127.0.0.1]:80", "127.0.0.0/8", "a loopback address"),
            ("10.0.0.1:80", "10.0.0.0/8", "a private address"),
            ("192.168.1.1:80", "192.168.1.0/24", "a private address"),
            ("172.16.3.4:80", "172.16.0.0/12", "a private address"),
            ("100.64.0.1:80", "100.64.0.0/10", "a private address"),
            ("[fd12::1]:80", "fd00::/8", "a private address"),
            ("[fec0::1]:80", "fec0::/10", "a private address"),
            ("[2002:c0a8:101::1]:80", "192.168.0.0/16", "a private address"),
            ("[64:ff9b::a00:1]:80", "10.0.0.1/32", "a private address"),
            ("198.18.0.1:80", "198.18.0.0/15", "a reserved address"),
            ("192.0.2.1:80", "192.0.2.0/24", "a reserved address"),
            ("240.0.0.1:80", "240.0.0.0/4", "a reserved address"),
            ("[2001:db8::1]:80", "2001:db8::/32", "a reserved address"),
        ] {
            assert_eq!(judge(&nowhere, address), Err(reason), "{address}");
            let policy =
                TargetPolicy { allow_private: vec![entry.parse().unwrap()], ..TargetPolicy::default() };
            assert_eq!(judge(&policy, address), Ok(()), "{address} by {entry}");
        }
        for address in ["93.184.216.34:443", "[2606:2800:220:1::1]:443", "[64:ff9b::5db8:d822]:443"] {
            assert_eq!(judge(&nowhere, address), Ok(()), "{address}");
        }
    }

    #[test]
    fn an_entry_allows_its_own_range_and_nothing_that_is_never_allowed() {
        let policy = |entries: &[&str]| TargetPolicy {
            allow_private: entries.iter().map(|entry| entry.parse().unwrap()).collect(),
            admin: vec!["127.0.0.1:7080".parse().unwrap()],
        };
        let some = policy(&["10.1.0.0/16", "fd00::/8"]);
        for (address, is_allowed) in [
            ("10.1.255.255:80", true),
            ("10.0.255.255:80", false),
            ("10.2.0.0:80", false),
            ("127.0.0.1:80", false),
            ("[::1]:80", false),
            ("[fd00::1]:80", true),
        ] {
            assert_eq!(judge(&some, address).is_ok(), is_allowed, "{address}");
        }
        let all = policy(&["0.0.0.0/0", "::/0"]);
        for address in
            ["169.254.169.254:80", "[fe80::1]:80", "0.0.0.0:80", "127.0.0.1:7080", "[fd00:ec2::254]:80"]
        {
            assert!(judge(&all, address).is_err(), "{address}");
        }
        assert_eq!(judge(&all, "127.0.0.1:7081"), Ok(()));
    }

    #[test]
    fn an_error_says_which_entry_would_help() {
        let text = |address: &str| {
            TargetPolicy::default().check("plc", address.parse().unwrap()).unwrap_err().to_string()
        };
        assert_eq!(
            text("10.0.0.7:80"),
            "\"plc\" is at 10.0.0.7, a private address; the configuration allows it with [actions] allow_private = [\"10.0.0.7\"]"
        );
        assert!(text("169.254.0.1:80").ends_with("; actions may not connect there"));
    }

    #[test]
    fn reads_ranges_and_refuses_what_is_none() {
        for text in ["10.0.0.0/8", "0.0.0.0/0", "::/0", "fd00::/8", "1.2.3.4/32", "::1/128"] {
            assert_eq!(text.parse::<AddressRange>().unwrap().to_string(), text);
        }
        assert_eq!("1.2.3.4".parse::<AddressRange>().unwrap().to_string(), "1.2.3.4/32");
        for text in [
            "",
            "10.0.0.0/33",
            "10.0.0.1/8",
            "::1/64",
            "::/129",
            "10/8",
            "localhost",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "/8",
        ] {
            assert!(text.parse::<AddressRange>().is_err(), "{text}");
        }
    }

    #[test]
    fn refuses_the_admin_interface_under_each_of_its_addresses() {
        let admin = |text: &str| TargetPolicy {
            allow_private: vec![
                "127.0.0.0/8".parse().unwrap(),
                "::1".parse().unwrap(),
                "10.0.0.0/8".parse().unwrap(),
            ],
            admin: vec![text.parse().expect("test address")],
        };
        let loopback = admin("127.0.0.1:7080");
        for address in ["127.0.0.1:7080", "127.0.0.2:7080", "[::1]:7080", "[::ffff:127.0.0.1]:7080"] {
            assert!(judge(&loopback, address).is_err(), "{address}");
        }
        assert_eq!(judge(&loopback, "127.0.0.1:7081"), Ok(()));
        assert_eq!(judge(&loopback, "10.0.0.1:7080"), Ok(()));

        let any = admin("0.0.0.0:7080");
        assert!(judge(&any, "127.0.0.1:7080").is_err());
        assert_eq!(judge(&any, "93.184.216.34:7080"), Ok(()));

        let one = admin("10.0.0.1:7080");
        assert!(judge(&one, "10.0.0.1:7080").is_err());
        assert_eq!(judge(&one, "10.0.0.2:7080"), Ok(()));
    }
}
