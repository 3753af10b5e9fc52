//! Redis: a stream for all clients but one, whose key is no stream.

use std::net::SocketAddr;

use super::ledger::Arrived;
use super::{FarSide, POISON};
use crate::servers::Redis;

impl FarSide for Redis {
    const KIND: &'static str = "redis";

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
        format!(
            "type = \"redis\"\nservers = [\"{address}\"]\nconnect_timeout = \"1s\"\npassword = \"{}\"",
            Self::PASSWORD
        )
    }

    fn wrong_connector(&self, address: SocketAddr) -> String {
        self.connector(address).replace(Self::PASSWORD, "not the one")
    }

    fn tls_connector(&self, address: SocketAddr) -> String {
        self.connector(address) + "\ntls = {}"
    }

    fn action(&self) -> String {
        "type = \"redis\"\nkey = \"from:${topic(2)}\"\ntimeout = \"1s\"".to_owned()
    }

    fn huge_answer(&self) -> Vec<u8> {
        b"$500000000\r\n".to_vec()
    }

    fn arrived(&self) -> Vec<Arrived> {
        let keys = self.ask(&["KEYS", "from:*"]).into_iter().filter(|key| !key.ends_with(POISON));
        keys.flat_map(|key| {
            let lines = self.ask(&["XRANGE", &key, "-", "+"]);
            // An entry is its identifier and its fields, a name and a value each.
            let named = |name: &str| {
                let at =
                    lines.iter().enumerate().filter(move |(_, line)| *line == name).map(|(at, _)| at + 1);
                at.map(|at| lines[at].clone()).collect::<Vec<_>>()
            };
            let (values, keys) = (named("value"), named("Idempotency-Key"));
            assert_eq!(values.len(), keys.len());
            let arrived = |(value, key): (&String, &String)| Arrived::read(value.as_bytes(), Some(key));
            values.iter().zip(&keys).map(arrived).collect::<Vec<_>>()
        })
        .collect()
    }
}
