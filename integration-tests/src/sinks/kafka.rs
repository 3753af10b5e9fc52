//! Kafka: one partition for all clients, so that the records of the one that is refused stand among the others'.

use std::net::SocketAddr;

use super::ledger::Arrived;
use super::{FarSide, POISON};
use crate::servers::Kafka;

impl FarSide for Kafka {
    const KIND: &'static str = "kafka";
    const WRITES_ONCE: bool = true;

    fn start() -> Self {
        assert_eq!(Self::REFUSED_KEY, POISON);
        Self::start()
    }

    fn address(&self) -> SocketAddr {
        self.address()
    }

    fn clear(&self) {
        self.clear();
    }

    fn connector(&self, address: SocketAddr) -> String {
        format!(
            "type = \"kafka\"\nservers = [\"{address}\"]\nclient_id = \"at-{}\"\n\
             sasl = {{ mechanism = \"plain\", username = \"{}\", password = \"{}\" }}",
            address.port(),
            Self::USERNAME,
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
        format!("type = \"kafka\"\ntopic = \"{}\"\nkey = \"${{topic(2)}}\"", Self::TOPIC)
    }

    fn huge_answer(&self) -> Vec<u8> {
        2_000_000_000_i32.to_be_bytes().to_vec()
    }

    fn arrived(&self) -> Vec<Arrived> {
        let written = self.written();
        let arrived = written.iter().map(|record| {
            let key = record.headers.iter().find(|(name, _)| name == "Idempotency-Key");
            Arrived::read(&record.value, key.map(|(_, value)| std::str::from_utf8(value).unwrap()))
        });
        arrived.collect()
    }
}
