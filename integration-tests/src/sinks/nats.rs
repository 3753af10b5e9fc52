//! NATS: a stream that takes no large messages.

use std::net::SocketAddr;

use serde_json::json;

use super::FarSide;
use super::ledger::Arrived;
use crate::servers::Nats;

/// The stream.
const STREAM: &str = "FAR";
/// Most bytes of a message in it, headers included.
const MESSAGE_BYTES_MAX: usize = 2_000;

impl FarSide for Nats {
    const KIND: &'static str = "nats";

    fn start() -> Self {
        Self::start()
    }

    fn address(&self) -> SocketAddr {
        self.address()
    }

    fn clear(&self) {
        // There is none the first time.
        drop(self.try_ask(&format!("STREAM.DELETE.{STREAM}"), &json!({})));
        let config = json!({
            "name": STREAM,
            "subjects": ["from.>"],
            "storage": "file",
            "max_msg_size": MESSAGE_BYTES_MAX,
        });
        self.ask(&format!("STREAM.CREATE.{STREAM}"), &config);
    }

    fn connector(&self, address: SocketAddr) -> String {
        format!(
            "type = \"nats\"\nservers = [\"{address}\"]\nconnect_timeout = \"1s\"\nusername = \"{}\"\npassword = \"{}\"",
            Self::USER,
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
        "type = \"nats\"\nsubject = \"from.${topic(2)}\"\ntimeout = \"1s\"".to_owned()
    }

    fn poison_padding(&self) -> usize {
        MESSAGE_BYTES_MAX
    }

    fn huge_answer(&self) -> Vec<u8> {
        b"MSG a 1 500000000\r\n".to_vec()
    }

    fn arrived(&self) -> Vec<Arrived> {
        let stored = self.stored(STREAM);
        stored
            .iter()
            .map(|message| Arrived::read(&message.payload, message.header("Idempotency-Key")))
            .collect()
    }
}
