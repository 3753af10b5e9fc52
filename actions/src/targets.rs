//! Which addresses an action may connect to.
//!
//! A rule's author chooses where requests go, and a name may resolve to anything, so every address is judged when it
//! is about to be connected to, not when the rule is made: there is nothing to rebind in between. Never allowed:
//! unspecified, link-local, multicast and broadcast addresses, the metadata services of cloud providers, and this
//! process's own admin addresses. Loopback and private ranges are allowed unless the policy says otherwise, because a
//! gateway's neighbours live there. An IPv4 address inside an IPv6 one (mapped, compatible, 6to4, NAT64) is judged as
//! the IPv4 address that it stands for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

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

/// How far actions may reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Reach {
    /// Public, private and loopback addresses.
    #[default]
    Everywhere,
    /// Public and private addresses, not this machine's loopback.
    NotLoopback,
    /// Public addresses only.
    PublicOnly,
}

/// Which addresses actions may connect to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TargetPolicy {
    /// How far actions may reach.
    pub reach: Reach,
    /// Addresses of this process's own admin interface. An unspecified address stands for each of the machine's.
    pub admin: Vec<SocketAddr>,
}

/// An address that an action may not connect to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{host}\" is at {address}, {reason}; actions may not connect there")]
pub struct TargetError {
    /// Host as written in the URL.
    pub host: String,
    /// The address.
    pub address: IpAddr,
    /// What the address is.
    pub reason: &'static str,
}

impl TargetPolicy {
    /// Judges one address.
    ///
    /// # Errors
    /// [`TargetError`] naming what kind of address it is.
    pub fn check(&self, host: &str, target: SocketAddr) -> Result<(), TargetError> {
        let address = target.ip().to_canonical();
        let refused = |reason| Err(TargetError { host: host.to_owned(), address, reason });
        let embedded = match address {
            IpAddr::V4(_) => None,
            IpAddr::V6(v6) => embedded_v4(v6),
        };
        for address in [Some(address), embedded.map(IpAddr::V4)].into_iter().flatten() {
            if let Some(reason) = self.fault(address) {
                return refused(reason);
            }
            if self.is_admin(SocketAddr::new(address, target.port())) {
                return refused("this broker's own admin interface");
            }
        }
        Ok(())
    }

    fn fault(&self, address: IpAddr) -> Option<&'static str> {
        let reason = match address {
            IpAddr::V4(v4) => never_v4(v4),
            IpAddr::V6(v6) => never_v6(v6),
        };
        let is_loopback = address.is_loopback();
        match self.reach {
            _ if reason.is_some() => reason,
            Reach::NotLoopback | Reach::PublicOnly if is_loopback => Some("a loopback address"),
            Reach::PublicOnly if is_private(address) => Some("a private address"),
            _ => None,
        }
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

fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            // 100.64.0.0/10: shared address space behind carrier-grade NAT (RFC 6598).
            v4.is_private() || matches!(v4.octets(), [100, 64..=127, ..])
        }
        // fec0::/10 was site-local before unique local addresses replaced it.
        IpAddr::V6(v6) => v6.is_unique_local() || matches!(v6.segments(), [0xfec0..=0xfeff, ..]),
    }
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
    fn allows_neighbours_unless_told_otherwise() {
        let everywhere = TargetPolicy::default();
        let not_loopback = TargetPolicy { reach: Reach::NotLoopback, ..TargetPolicy::default() };
        let public = TargetPolicy { reach: Reach::PublicOnly, ..TargetPolicy::default() };
        for (address, loopback) in [
            ("127.0.0.1:80", true),
            ("127.8.8.8:80", true),
            ("[::1]:80", true),
            ("[::ffff:127.0.0.1]:80", true),
            ("10.0.0.1:80", false),
            ("192.168.1.1:80", false),
            ("172.16.3.4:80", false),
            ("100.64.0.1:80", false),
            ("[fd12::1]:80", false),
            ("[fec0::1]:80", false),
            ("[2002:c0a8:101::1]:80", false),
        ] {
            assert_eq!(judge(&everywhere, address), Ok(()), "{address}");
            assert_eq!(judge(&not_loopback, address).is_err(), loopback, "{address}");
            assert!(judge(&public, address).is_err(), "{address}");
        }
        for address in ["93.184.216.34:443", "[2606:2800:220:1::1]:443", "[64:ff9b::5db8:d822]:443"] {
            assert_eq!(judge(&public, address), Ok(()), "{address}");
        }
    }

    #[test]
    fn refuses_the_admin_interface_under_each_of_its_addresses() {
        let admin = |text: &str| TargetPolicy {
            admin: vec![text.parse().expect("test address")],
            ..TargetPolicy::default()
        };
        let loopback = admin("127.0.0.1:7080");
        for address in ["127.0.0.1:7080", "127.0.0.2:7080", "[::1]:7080", "[::ffff:127.0.0.1]:7080"] {
            assert!(judge(&loopback, address).is_err(), "{address}");
        }
        assert_eq!(judge(&loopback, "127.0.0.1:7081"), Ok(()));
        assert_eq!(judge(&loopback, "10.0.0.1:7080"), Ok(()));

        let any = admin("0.0.0.0:7080");
        assert!(judge(&any, "127.0.0.1:7080").is_err());
        // TEST-NET-1: no machine has it.
        assert_eq!(judge(&any, "192.0.2.1:7080"), Ok(()));

        let one = admin("10.0.0.1:7080");
        assert!(judge(&one, "10.0.0.1:7080").is_err());
        assert_eq!(judge(&one, "10.0.0.2:7080"), Ok(()));
    }
}
