//! What an outbox keeps of a message beside what the store keeps of it anyway, so that an error action sees after a restart
//! what it would have seen before.
//!
//! ```text
//! u8     version, 1
//! u8     flags: 1 retain, 2 a client published it, 4 with a user name
//! u128   trace identifier
//! text   user name        if there is one
//! text   remote address   ┐ if a client published it
//! text   listener         ┘
//! u8     how many rules made it, one from the other
//! text   the name of each
//! ```
//!
//! Numbers are big-endian; a text has a `u16` length before it.

/// Format of the bytes.
const VERSION: u8 = 1;
const RETAIN: u8 = 1;
const CLIENT: u8 = 2;
const USERNAME: u8 = 4;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) retain: bool,
    pub(super) trace_id: u128,
    pub(super) client: Option<OriginClient>,
    /// Names of the rules that made the message, oldest first.
    pub(super) trail: Vec<String>,
}

/// What is known of a client beside its Client Identifier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OriginClient {
    pub(super) username: Option<String>,
    pub(super) address: String,
    pub(super) listener: String,
}

impl Origin {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        let username = self.client.as_ref().and_then(|client| client.username.as_ref());
        let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
        out.push(VERSION);
        out.push(
            flag(self.retain, RETAIN)
                | flag(self.client.is_some(), CLIENT)
                | flag(username.is_some(), USERNAME),
        );
        out.extend_from_slice(&self.trace_id.to_be_bytes());
        if let Some(username) = username {
            put_text(&mut out, username);
        }
        if let Some(client) = &self.client {
            put_text(&mut out, &client.address);
            put_text(&mut out, &client.listener);
        }
        let trail = self.trail.get(..usize::from(u8::MAX)).unwrap_or(&self.trail);
        out.push(u8::try_from(trail.len()).unwrap_or(u8::MAX));
        trail.iter().for_each(|name| put_text(&mut out, name));
        out
    }

    /// Reads the bytes; `None` if they are something else.
    pub(super) fn decode(mut bytes: &[u8]) -> Option<Self> {
        let from = &mut bytes;
        let [version, flags] = take(from)?;
        if version != VERSION || flags > (RETAIN | CLIENT | USERNAME) {
            return None;
        }
        let trace_id = u128::from_be_bytes(take(from)?);
        let username = if flags & USERNAME == 0 { None } else { Some(take_text(from)?) };
        let client = if flags & CLIENT == 0 {
            None
        } else {
            Some(OriginClient { username, address: take_text(from)?, listener: take_text(from)? })
        };
        let [count] = take(from)?;
        let trail = (0..count).map(|_| take_text(from)).collect::<Option<_>>()?;
        from.is_empty().then_some(Self { retain: flags & RETAIN != 0, trace_id, client, trail })
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    // Names of users and rules are shorter by far; one that weren't would be cut.
    let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
    let text = text.get(..text.floor_char_boundary(usize::from(length))).unwrap_or_default();
    out.extend_from_slice(&u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn take<const N: usize>(from: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = from.split_first_chunk::<N>()?;
    *from = rest;
    Some(*taken)
}

fn take_text(from: &mut &[u8]) -> Option<String> {
    let length = usize::from(u16::from_be_bytes(take(from)?));
    let (text, rest) = from.split_at_checked(length)?;
    *from = rest;
    std::str::from_utf8(text).ok().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn comes_back(
            retain: bool,
            trace_id: u128,
            client in prop::option::of((prop::option::of(".{0,20}"), ".{0,20}", ".{0,20}")),
            trail in prop::collection::vec("[a-z]{0,8}", 0..9),
        ) {
            let client = client.map(|(username, address, listener)| OriginClient { username, address, listener });
            let origin = Origin { retain, trace_id, client, trail };
            prop_assert_eq!(Origin::decode(&origin.encode()), Some(origin));
        }

        #[test]
        fn other_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..60), version in 0..2_u8) {
            let bytes = [&[version][..], &bytes].concat();
            if let Some(origin) = Origin::decode(&bytes) {
                prop_assert_eq!(Origin::decode(&origin.encode()), Some(origin));
            }
        }
    }

    #[test]
    fn a_text_that_is_too_long_is_cut_between_characters() {
        let name = "\u{e9}".repeat(40_000);
        let origin = Origin { retain: false, trace_id: 0, client: None, trail: vec![name.clone()] };
        let back = Origin::decode(&origin.encode()).unwrap();
        assert_eq!(back.trail[0].len(), 65_534);
        assert!(name.starts_with(&back.trail[0]));
    }
}
