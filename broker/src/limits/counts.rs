//! Who is here how often: connections by address, clients by user.
//!
//! Kept only while there is a limit: without one nobody pays for it. A place is given back when it is dropped.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::broker::Shared;

/// Connections of each address.
#[derive(Debug, Default)]
pub(crate) struct Addresses(Mutex<HashMap<IpAddr, u32>>);

/// One connection's place among those of its address.
#[derive(Debug)]
pub(super) struct AddressPlace {
    shared: Arc<Shared>,
    address: IpAddr,
}

/// What is counted as one address: of IPv6 a network of 64 bits, all of which one device may use.
fn counted_as(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let network = u128::from(address) & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from(network))
        }
    }
}

impl AddressPlace {
    /// Takes a place; `Err`: the address has all that it may have. `None`: addresses aren't counted.
    pub(super) fn take(shared: &Arc<Shared>, address: Option<IpAddr>) -> Result<Option<Self>, ()> {
        let limit = shared.config.limits.max_connections_per_address;
        let (Some(address), true) = (address, limit > 0) else { return Ok(None) };
        let address = counted_as(address);
        let mut counts = shared.addresses.0.lock();
        let count = counts.entry(address).or_default();
        if *count >= limit {
            return Err(());
        }
        *count += 1;
        Ok(Some(Self { shared: Arc::clone(shared), address }))
    }
}

impl Drop for AddressPlace {
    fn drop(&mut self) {
        let mut counts = self.shared.addresses.0.lock();
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

/// Connected clients of each user: how many connections each Client Identifier has.
///
/// It is Client Identifiers that are counted: while one connection takes over from another there are two of them for a moment,
/// and a client that comes again must not be kept out by its own past.
#[derive(Debug, Default)]
pub(crate) struct Users(Mutex<HashMap<Box<str>, Clients>>);

/// Connections of each Client Identifier.
type Clients = HashMap<Box<str>, u32>;

/// One client's place among those of its user.
#[derive(Debug)]
pub(crate) struct UserPlace {
    shared: Arc<Shared>,
    username: Box<str>,
    client_id: Box<str>,
}

impl UserPlace {
    /// Takes a place; `Err`: the user has all that it may have. `None`: users aren't counted, or it has no name.
    pub(crate) fn take(
        shared: &Arc<Shared>,
        username: Option<&str>,
        client_id: &str,
    ) -> Result<Option<Self>, ()> {
        let limit = shared.config.limits.max_connections_per_user as usize;
        let (Some(username), true) = (username, limit > 0) else { return Ok(None) };
        let mut users = shared.users.0.lock();
        let clients = users.entry(username.into()).or_default();
        if !clients.contains_key(client_id) && clients.len() >= limit {
            return Err(());
        }
        *clients.entry(client_id.into()).or_default() += 1;
        Ok(Some(Self { shared: Arc::clone(shared), username: username.into(), client_id: client_id.into() }))
    }
}

impl Drop for UserPlace {
    fn drop(&mut self) {
        let mut users = self.shared.users.0.lock();
        let Some(clients) = users.get_mut(&self.username) else { return };
        if let Some(count) = clients.get_mut(&self.client_id) {
            *count -= 1;
            if *count == 0 {
                clients.remove(&self.client_id);
            }
        }
        if clients.is_empty() {
            users.remove(&self.username);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_of_64_bits_is_one_address() {
        let counted = |text: &str| counted_as(text.parse().unwrap());
        assert_eq!(counted("2001:db8:1:2::1"), counted("2001:db8:1:2:ffff:ffff:ffff:ffff"));
        assert_ne!(counted("2001:db8:1:2::1"), counted("2001:db8:1:3::1"));
        assert_eq!(counted("::ffff:10.0.0.1"), counted("10.0.0.1"));
        assert_ne!(counted("10.0.0.1"), counted("10.0.0.2"));
    }
}
