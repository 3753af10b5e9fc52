//! Redis: a stream for all clients but one, whose key is no stream.

use std::net::SocketAddr;

use super::ledger::Arrived;
use super::{FarSide, POISON, Secure};
use crate::servers::Redis;

impl FarSide for Redis {
    const KIND: &'static str = "redis";
    // Each client has a stream.
    const TELLS_ORDER: bool = false;

    fn start() -> Self {
        let server = Self::start();
        server.clear();
        server
    }

    fn address(&self) -> SocketAddr {
        self.address()
    }

    fn clear(&self) {
        assert_eq!(self.ask(&["FLUSHALL"]), ["OK"]);
        assert_eq!(self.ask(&["SET", &format!("from:{POISON}"), "no stream"]), ["OK"]);
    }

    fn connector(&self, address: SocketAddr) -> String {
        format!("type = \"redis\"\nservers = [\"{address}\"]\npassword = \"{}\"", Self::PASSWORD)
    }

    fn wrong_connector(&self, address: SocketAddr) -> String {
        self.connector(address).replace(Self::PASSWORD, "not the one")
    }

    fn tls_connector(&self, address: SocketAddr) -> String {
        self.connector(address) + "\ntls = {}"
    }

    fn secure(&self, address: SocketAddr) -> Option<Secure> {
        let connector = |tls: &str| self.connector(address) + tls;
        let certificates = self.certificates();
        Some(Secure {
            address: self.secure_address(),
            refused: certificates
                .refused("received fatal alert: UnknownCA")
                .map(|(tls, why)| (connector(&tls), why))
                .into(),
            taken: [certificates.without_client(), certificates.mutual()].map(|tls| connector(&tls)).into(),
        })
    }

    fn kill(&self) {
        self.kill();
    }

    fn start_again(&self) {
        self.start_again();
    }

    fn action(&self) -> String {
        "type = \"redis\"\nkey = \"from:${topic(2)}\"".to_owned()
    }

    fn huge_answer(&self) -> Vec<u8> {
        b"$500000000\r\n".to_vec()
    }

    fn arrived(&self) -> Vec<Arrived> {
        let keys = self.ask(&["KEYS", "from:*"]).into_iter().filter(|key| !key.ends_with(POISON));
        keys.flat_map(|key| self.entries(&key)).collect()
    }
}

/// Entries that are asked for at a time.
const PAGE: usize = 20_000;

impl Redis {
    /// All entries of a stream.
    fn entries(&self, key: &str) -> Vec<Arrived> {
        let mut entries = Vec::new();
        let mut from = "-".to_owned();
        loop {
            let lines = self.ask(&["XRANGE", key, &from, "+", "COUNT", &PAGE.to_string()]);
            // An empty list is printed as an empty line.
            if lines.iter().all(String::is_empty) {
                return entries;
            }
            let mut lines = lines.into_iter().peekable();
            while let Some(identifier) = lines.next() {
                // An entry is its identifier and its fields, a name and a value each; identifiers look like no name of ours.
                let (mut value, mut idempotency_key) = (None, None);
                while let Some(name) = lines.next_if(|line| !is_identifier(line)) {
                    match name.as_str() {
                        "value" => value = lines.next(),
                        "Idempotency-Key" => idempotency_key = lines.next(),
                        _ => drop(lines.next()),
                    }
                }
                entries.push(Arrived::read(value.unwrap().as_bytes(), idempotency_key.as_deref()));
                from = format!("({identifier}");
            }
        }
    }
}

fn is_identifier(line: &str) -> bool {
    line.split_once('-').is_some_and(|(time, number)| {
        [time, number].iter().all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
    })
}
