//! A small HTTP/1.1 server: the far side of an HTTP action.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use rustix::net;

use crate::{PATIENCE, port};

/// Listens on a free port of loopback and hands on every request.
#[derive(Debug)]
pub struct HttpReceiver {
    address: SocketAddr,
    requests: Receiver<ReceivedRequest>,
}

/// A port of loopback that is taken and where nobody listens as yet: whoever connects is refused.
#[derive(Debug)]
pub struct ClosedPort(OwnedFd);

impl ClosedPort {
    /// Takes a free one.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "it takes something of the system's")]
    pub fn new() -> Self {
        let socket = port::socket();
        net::bind(&socket, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        Self(socket)
    }

    /// Which one.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        port::local_address(&self.0)
    }

    /// Listens from now on.
    #[must_use]
    pub fn open(self) -> HttpReceiver {
        net::listen(&self.0, 16).unwrap();
        HttpReceiver::on(self.0.into())
    }
}

/// A request as it arrived, together with the means to answer it.
#[derive(Debug)]
pub struct ReceivedRequest {
    /// `GET`, `POST` …
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// As long as Content-Length said.
    pub body: Vec<u8>,
    answer: Sender<String>,
}

impl HttpReceiver {
    /// Starts to listen.
    #[must_use]
    pub fn start() -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").unwrap())
    }

    fn on(listener: TcpListener) -> Self {
        let address = listener.local_addr().unwrap();
        let (sender, requests) = mpsc::channel();
        thread::spawn(move || {
            for connection in listener.incoming().map_while(Result::ok) {
                let sender = sender.clone();
                thread::spawn(move || serve(&connection, &sender));
            }
        });
        Self { address, requests }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits for the next request. It stays unanswered until [`ReceivedRequest::answer`].
    #[track_caller]
    #[must_use]
    pub fn next_request(&self) -> ReceivedRequest {
        match self.requests.recv_timeout(PATIENCE) {
            Ok(request) => request,
            Err(error) => panic!("no HTTP request within {PATIENCE:?}: {error}"),
        }
    }
}

impl HttpReceiver {
    /// Answers every request from here on with the status and the body that `answer` gives.
    pub fn answer_all(
        self,
        mut answer: impl FnMut(&ReceivedRequest) -> (&'static str, String) + Send + 'static,
    ) {
        thread::spawn(move || {
            for request in self.requests {
                let (status, body) = answer(&request);
                request.answer_with(status, &body);
            }
        });
    }
}

impl ReceivedRequest {
    /// The value of a header; `name` in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    #[track_caller]
    #[must_use]
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// Answers with a status, such as `200 OK`, and a body.
    pub fn answer_with(self, status: &str, body: &str) {
        let length = body.len();
        drop(self.answer.send(format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{body}")));
    }

    /// Answers with a status, such as `204 No Content`, and further header lines.
    pub fn answer(self, status: &str, headers: &[&str]) {
        let lines: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
        drop(self.answer.send(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n{lines}\r\n")));
    }
}

/// Serves one connection until it ends. A client that goes away is no concern of ours.
fn serve(connection: &TcpStream, requests: &Sender<ReceivedRequest>) {
    let mut input = BufReader::new(connection);
    let mut output = connection;
    while let Some((method, target, headers, body)) = read_request(&mut input) {
        let (answer, answered) = mpsc::channel();
        if requests.send(ReceivedRequest { method, target, headers, body, answer }).is_err() {
            return;
        }
        // An answer that is dropped resets the connection in the middle of the exchange.
        let Ok(text) = answered.recv() else { return };
        if output.write_all(text.as_bytes()).is_err() {
            return;
        }
    }
}

pub(crate) type Request = (String, String, Vec<(String, String)>, Vec<u8>);

pub(crate) fn read_request(input: &mut impl BufRead) -> Option<Request> {
    let mut line = String::new();
    input.read_line(&mut line).ok()?;
    let (method, rest) = line.trim_end().split_once(' ')?;
    let (target, _) = rest.split_once(' ')?;
    let (method, target) = (method.to_owned(), target.to_owned());
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        input.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let mut body = vec![0; length.map_or(0, |(_, value)| value.parse().unwrap_or(0))];
    input.read_exact(&mut body).ok()?;
    Some((method, target, headers, body))
}
