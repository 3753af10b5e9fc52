//! Who left a Retained Message or a will, as the store keeps it: so that after a restart, too, it can be asked whether that
//! client still may.
//!
//! Kept is what rules can name: user name and whether it was proven, groups, address, listener. Not kept is what only the running
//! process knows, the rules that a client brought with it. Of an author who had some nobody can tell any more what it may, and
//! what it left stands as it was admitted ([`LostGrants`]).
//!
//! The bytes are those of docs/store-format.md. What doesn't read as them has no author.

use std::any::Any;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::access::{Grants, Identity};
use crate::listeners::PeerAddress;
use crate::message::Publisher;

const HAS_USERNAME: u8 = 1;
const IS_PROVEN: u8 = 1 << 1;
const HAD_GRANTS: u8 = 1 << 2;
const HAS_ADDRESS: u8 = 1 << 3;

/// What stands for the authenticator of a client that was known before the broker was started.
const STORED: &str = "stored";

/// Grants that went with the process that knew them.
#[derive(Debug)]
struct LostGrants;

impl Grants for LostGrants {}

/// Whether nobody can tell any more what this author may.
pub(crate) fn is_forgotten(author: &Publisher) -> bool {
    let grants: Option<&dyn Any> = author.identity.grants.as_deref().map(|grants| grants as &dyn Any);
    grants.is_some_and(|grants| grants.is::<LostGrants>())
}

/// The author as the store keeps it.
pub(crate) fn encode(author: &Publisher) -> Vec<u8> {
    let Publisher { client_id: _, identity, address, listener } = author;
    let flag = |flag: u8, is_there: bool| if is_there { flag } else { 0 };
    let mut out = vec![
        flag(HAS_USERNAME, identity.username.is_some())
            | flag(IS_PROVEN, identity.authenticator.is_some())
            | flag(HAD_GRANTS, identity.grants.is_some())
            | flag(HAS_ADDRESS, address.ip().is_some()),
    ];
    if let Some(username) = &identity.username {
        put(&mut out, username.as_bytes());
    }
    match address.ip() {
        Some(IpAddr::V4(address)) => put(&mut out, &address.octets()),
        Some(IpAddr::V6(address)) => put(&mut out, &address.octets()),
        None => {}
    }
    put(&mut out, listener.as_bytes());
    put_number(&mut out, identity.groups.len());
    for group in &identity.groups {
        put(&mut out, group.as_bytes());
    }
    out
}

/// The author of this Client Identifier.
pub(crate) fn decode(client_id: &str, bytes: &[u8]) -> Option<Publisher> {
    let (flags, mut rest) = bytes.split_first()?;
    let has = |flag: u8| flags & flag != 0;
    let username = if has(HAS_USERNAME) { Some(text(&mut rest)?.into()) } else { None };
    let address = if has(HAS_ADDRESS) {
        let bytes = take(&mut rest)?;
        let address = match (<[u8; 4]>::try_from(bytes), <[u8; 16]>::try_from(bytes)) {
            (Ok(v4), _) => IpAddr::from(v4),
            (_, Ok(v6)) => IpAddr::from(v6),
            _ => return None,
        };
        // Rules know no ports.
        PeerAddress::Ip(SocketAddr::new(address, 0))
    } else {
        PeerAddress::Unix
    };
    let listener = Arc::from(text(&mut rest)?);
    let mut groups = Vec::new();
    for _ in 0..number(&mut rest)? {
        groups.push(Arc::from(text(&mut rest)?));
    }
    let identity = Identity {
        username,
        authenticator: has(IS_PROVEN).then(|| Arc::from(STORED)),
        groups: groups.into(),
        expires_at_ms: None,
        grants: has(HAD_GRANTS).then(|| Arc::new(LostGrants) as Arc<dyn Grants>),
    };
    rest.is_empty().then(|| Publisher {
        client_id: client_id.into(),
        identity: Arc::new(identity),
        address,
        listener,
    })
}

/// LEB128, as everywhere in the store.
fn put_number(out: &mut Vec<u8>, mut number: usize) {
    while number >= 0x80 {
        out.push(u8::try_from(number & 0x7f).unwrap_or(0) | 0x80);
        number >>= 7;
    }
    out.push(u8::try_from(number).unwrap_or(0));
}

fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    put_number(out, bytes.len());
    out.extend_from_slice(bytes);
}

fn number(rest: &mut &[u8]) -> Option<usize> {
    let mut number = 0usize;
    for shift in (0..usize::BITS).step_by(7) {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        let bits = usize::from(byte & 0x7f);
        number |= bits.checked_shl(shift).filter(|shifted| shifted >> shift == bits)?;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

fn take<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = number(rest)?;
    let (bytes, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(bytes)
}

fn text<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    std::str::from_utf8(take(rest)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn author(username: Option<&str>, is_proven: bool, groups: &[&str], address: PeerAddress) -> Publisher {
        Publisher {
            client_id: "c".into(),
            identity: Arc::new(Identity {
                username: username.map(Into::into),
                authenticator: is_proven.then(|| "users".into()),
                groups: groups.iter().map(|group| Arc::from(*group)).collect(),
                ..Identity::default()
            }),
            address,
            listener: "tls".into(),
        }
    }

    #[test]
    fn what_rules_can_name_comes_back_and_no_part_of_it_is_taken_for_it() {
        let long = "g".repeat(300);
        let address = |text: &str| PeerAddress::Ip(text.parse().unwrap());
        for author in [
            author(Some("ada"), true, &["ops", &long, ""], address("10.0.0.1:5")),
            author(Some("ada"), false, &[], address("[2001:db8::1]:5")),
            author(None, true, &[], PeerAddress::Unix),
        ] {
            let bytes = encode(&author);
            let found = decode("c", &bytes).unwrap();
            assert_eq!(*found.client_id, *author.client_id);
            assert_eq!(found.username(), author.username());
            assert_eq!(found.identity.authenticator.is_some(), author.identity.authenticator.is_some());
            assert_eq!(found.identity.groups, author.identity.groups);
            assert_eq!((found.address.ip(), &found.listener), (author.address.ip(), &author.listener));
            assert!(!is_forgotten(&found));
            assert_eq!(encode(&found), bytes);
            for length in 0..bytes.len() {
                assert!(decode("c", &bytes[..length]).is_none(), "{length}");
            }
            assert!(decode("c", &[&bytes[..], &[0]].concat()).is_none());
        }
    }

    #[test]
    fn what_is_no_author_is_none() {
        for bytes in [&[][..], &[1, 1, 0xff, 0, 0], &[8, 3, 1, 2, 3, 0, 0], &[0, 0xff, 0xff], &[0]] {
            assert!(decode("c", bytes).is_none(), "{bytes:?}");
        }
        // A number of more bits than there are, and groups without end.
        assert!(decode("c", &[&[0][..], &[0xff; 11]].concat()).is_none());
        assert!(decode("c", &[&[0, 0][..], &[0xff; 8], &[0x01]].concat()).is_none());
    }

    #[test]
    fn rules_that_a_client_brought_are_known_to_have_been_there() {
        let brought = author(Some("ada"), true, &[], PeerAddress::Unix);
        let identity = Identity { grants: Some(Arc::new(LostGrants)), ..Identity::clone(&brought.identity) };
        let brought = Publisher { identity: Arc::new(identity), ..brought };
        let found = decode("c", &encode(&brought)).unwrap();
        assert!(is_forgotten(&found));
        // After a second restart, too.
        assert!(is_forgotten(&decode("c", &encode(&found)).unwrap()));
    }
}
