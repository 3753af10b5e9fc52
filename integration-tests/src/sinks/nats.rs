//! NATS: a stream that takes no large messages, and a server without one that takes none either.

use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use serde_json::json;

use super::ledger::Arrived;
use super::{FarSide, Secure};
use crate::PATIENCE;
use crate::servers::{Nats, Stored};

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
            "type = \"nats\"\nservers = [\"{address}\"]\nusername = \"{}\"\npassword = \"{}\"",
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

    fn secure(&self, address: SocketAddr) -> Option<Secure> {
        let connector = |tls: &str| self.connector(address) + tls;
        let certificates = self.certificates();
        let mut refused: Vec<_> = certificates
            .refused("received fatal alert: BadCertificate")
            .into_iter()
            .map(|(tls, why)| (connector(&tls), why))
            .collect();
        // Behind another cause than its own, so that it is known for new.
        refused
            .insert(1, (connector(&certificates.without_client()), "received fatal alert: BadCertificate"));
        Some(Secure { address: self.address(), refused, taken: vec![connector(&certificates.mutual())] })
    }

    fn kill(&self) {
        self.kill();
    }

    fn start_again(&self) {
        self.start_again();
    }

    fn action(&self) -> String {
        "type = \"nats\"\nsubject = \"from.${topic(2)}\"".to_owned()
    }

    fn poison_padding(&self) -> usize {
        MESSAGE_BYTES_MAX
    }

    fn huge_answer(&self) -> Vec<u8> {
        b"MSG a 1 500000000\r\n".to_vec()
    }

    fn arrived(&self) -> Vec<Arrived> {
        self.stored(STREAM).iter().map(arrived).collect()
    }
}

/// What the one who looks publishes behind everything else: no client's name.
const MARKER: &str = "from.marker";

/// A server without a stream: what was published is what a subscriber has heard.
#[derive(Debug)]
pub struct NatsCore {
    server: Nats,
    heard: Arc<(Mutex<Heard>, Condvar)>,
}

#[derive(Debug, Default)]
struct Heard {
    messages: Vec<Arrived>,
    markers: u64,
}

impl NatsCore {
    /// All that was published before. That the server has answered a publisher says that its messages are on their way to the
    /// subscriber; once a marker that was published afterwards is there, they are.
    #[track_caller]
    fn heard(&self) -> MutexGuard<'_, Heard> {
        let (heard, grown) = &*self.heard;
        let before = heard.lock().unwrap().markers;
        self.server.publish(MARKER, &json!({}));
        let heard = heard.lock().unwrap();
        let (heard, waited) =
            grown.wait_timeout_while(heard, PATIENCE, |heard| heard.markers == before).unwrap();
        assert!(!waited.timed_out(), "the subscriber hears nothing");
        heard
    }
}

impl FarSide for NatsCore {
    const KIND: &'static str = "nats_core";

    fn start() -> Self {
        let server = Nats::with(&format!("max_payload: {MESSAGE_BYTES_MAX}"));
        let heard = Arc::<(Mutex<Heard>, Condvar)>::default();
        let hearing = Arc::clone(&heard);
        server.listen("from.>", move |message| {
            let mut heard = hearing.0.lock().unwrap();
            if message.subject == MARKER {
                heard.markers += 1;
                hearing.1.notify_all();
            } else {
                heard.messages.push(arrived(&message));
            }
        });
        Self { server, heard }
    }

    fn address(&self) -> SocketAddr {
        self.server.address()
    }

    fn clear(&self) {
        self.heard().messages.clear();
    }

    fn connector(&self, address: SocketAddr) -> String {
        self.server.connector(address)
    }

    fn wrong_connector(&self, address: SocketAddr) -> String {
        self.server.wrong_connector(address)
    }

    fn tls_connector(&self, address: SocketAddr) -> String {
        self.server.tls_connector(address)
    }

    fn secure(&self, address: SocketAddr) -> Option<Secure> {
        self.server.secure(address)
    }

    fn action(&self) -> String {
        self.server.action() + "\njetstream = false"
    }

    fn poison_padding(&self) -> usize {
        self.server.poison_padding()
    }

    fn huge_answer(&self) -> Vec<u8> {
        self.server.huge_answer()
    }

    fn arrived(&self) -> Vec<Arrived> {
        self.heard().messages.clone()
    }
}

#[track_caller]
fn arrived(message: &Stored) -> Arrived {
    Arrived::read(&message.payload, message.header("Idempotency-Key"))
}
