//! RabbitMQ: a queue for all clients but one, whose routing key leads nowhere.

use std::net::SocketAddr;
use std::sync::Mutex;

use super::ledger::Arrived;
use super::{FarSide, Secure};
use crate::servers::RabbitMq;

const QUEUE: &str = "far";
/// More clients than any cell has.
const CLIENTS_MAX: usize = 64;

/// A node, and what was taken out of its queue.
#[derive(Debug)]
pub struct AmqpFarSide {
    server: RabbitMq,
    taken: Mutex<Vec<Arrived>>,
}

impl FarSide for AmqpFarSide {
    const KIND: &'static str = "amqp";

    fn start() -> Self {
        let server = RabbitMq::start();
        let keys: Vec<String> = (0..CLIENTS_MAX).map(|client| format!("c{client}")).collect();
        server.make_queue(QUEUE, &keys);
        Self { server, taken: Mutex::default() }
    }

    fn address(&self) -> SocketAddr {
        self.server.address()
    }

    fn clear(&self) {
        self.server.make_queue(QUEUE, &[]);
        self.taken.lock().unwrap().clear();
    }

    fn connector(&self, address: SocketAddr) -> String {
        format!(
            "type = \"amqp\"\nservers = [\"{address}\"]\nusername = \"{}\"\npassword = \"{}\"",
            RabbitMq::USERNAME,
            RabbitMq::PASSWORD
        )
    }

    fn wrong_connector(&self, address: SocketAddr) -> String {
        self.connector(address).replace(RabbitMq::PASSWORD, "not the one")
    }

    fn tls_connector(&self, address: SocketAddr) -> String {
        self.connector(address) + "\ntls = {}"
    }

    fn secure(&self, address: SocketAddr) -> Option<Secure> {
        let connector = |tls: &str| self.connector(address) + tls;
        let certificates = self.server.certificates();
        let by_certificate = format!(
            "type = \"amqp\"\nservers = [\"{address}\"]\nauth_mechanism = \"external\"{}",
            certificates.mutual()
        );
        Some(Secure {
            address: self.server.secure_address(),
            refused: certificates
                .refused("received fatal alert: UnknownCA")
                .map(|(tls, why)| (connector(&tls), why))
                .into(),
            taken: vec![connector(&certificates.without_client()), by_certificate],
        })
    }

    fn kill(&self) {
        self.server.kill();
    }

    fn start_again(&self) {
        self.server.start_again();
    }

    fn action(&self) -> String {
        "type = \"amqp\"\nexchange = \"amq.direct\"\nrouting_key = \"${topic(2)}\"".to_owned()
    }

    fn huge_answer(&self) -> Vec<u8> {
        b"\x01\0\0\x7f\xff\xff\xff\0\x0a\0\x0a".to_vec()
    }

    fn arrived(&self) -> Vec<Arrived> {
        let mut taken = self.taken.lock().unwrap();
        taken.extend(self.server.take(QUEUE).iter().map(|message| {
            let payload = message["payload"].as_str().unwrap();
            assert_eq!(message["payload_encoding"], "string");
            let properties = &message["properties"];
            let key = properties["headers"]["Idempotency-Key"].as_str();
            assert_eq!(key, properties["message_id"].as_str());
            Arrived::read(payload.as_bytes(), key)
        }));
        taken.clone()
    }
}
