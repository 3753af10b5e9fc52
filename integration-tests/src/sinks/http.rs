//! HTTP: a server of the test's own that keeps what it confirms, since no system of its own stands behind HTTP.

use std::io::{BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use super::ledger::Arrived;
use super::{FarSide, POISON};
use crate::http::read_request;

/// What it wants to see of whoever sends.
const TOKEN: &str = "only for tests: http";

/// The server.
#[derive(Debug)]
pub struct HttpFarSide {
    address: SocketAddr,
    arrived: Arc<Mutex<Vec<Arrived>>>,
}

impl HttpFarSide {
    fn serve(connection: &TcpStream, arrived: &Mutex<Vec<Arrived>>) {
        let mut input = BufReader::new(connection);
        let mut output = connection;
        while let Some((_, target, headers, body)) = read_request(&mut input) {
            let header =
                |name: &str| headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
            let status = if header("authorization") != Some(&format!("Bearer {TOKEN}")) {
                "401 Unauthorized"
            } else if target.contains(POISON) {
                "422 Unprocessable Content"
            } else {
                arrived.lock().unwrap().push(Arrived::read(&body, header("idempotency-key")));
                "204 No Content"
            };
            if output.write_all(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").as_bytes()).is_err()
            {
                return;
            }
        }
    }
}

impl FarSide for HttpFarSide {
    const KIND: &'static str = "http";
    const ACTION_CONNECTS: bool = true;

    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let arrived = Arc::default();
        let serving = Arc::clone(&arrived);
        thread::spawn(move || {
            for connection in listener.incoming().map_while(Result::ok) {
                let arrived = Arc::clone(&serving);
                thread::spawn(move || Self::serve(&connection, &arrived));
            }
        });
        Self { address, arrived }
    }

    fn address(&self) -> SocketAddr {
        self.address
    }

    fn clear(&self) {
        self.arrived.lock().unwrap().clear();
    }

    fn connector(&self, address: SocketAddr) -> String {
        format!(
            "type = \"http\"\nurl = \"http://{address}\"\nauth = {{ type = \"bearer\", token = \"{TOKEN}\" }}"
        )
    }

    fn wrong_connector(&self, address: SocketAddr) -> String {
        self.connector(address).replace(TOKEN, "not the one")
    }

    fn tls_connector(&self, address: SocketAddr) -> String {
        self.connector(address).replace("http://", "https://")
    }

    fn action(&self) -> String {
        "type = \"http\"\nurl = \"/${topic(2)}\"".to_owned()
    }

    fn huge_answer(&self) -> Vec<u8> {
        b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 99999999999\r\n\r\n".to_vec()
    }

    fn arrived(&self) -> Vec<Arrived> {
        self.arrived.lock().unwrap().clone()
    }
}
