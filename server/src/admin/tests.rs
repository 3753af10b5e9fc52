//! The socket with a whole interface behind it: who is let in, how many, and how it bears bad guests.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener as StdUnixListener;

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use super::*;
use crate::api::{ApiServer, HEAD_TIMEOUT};

struct Gateway {
    folder: TempDir,
    socket: AdminSocket,
    api: ApiServer,
}

impl Gateway {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = crate::config::Admin::default();
        let api = ApiServer::open(&config, None, crate::api::tests::gateway()).unwrap();
        let socket = AdminSocket::open(folder.path(), api.owners_door()).unwrap();
        Self { folder, socket, api }
    }

    async fn connect(&self) -> Guest {
        Guest(UnixStream::connect(self.socket.path()).await.unwrap())
    }
}

/// Somebody at the socket.
struct Guest(UnixStream);

impl Guest {
    async fn send(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.unwrap();
    }

    /// The next answer: its status and what it says.
    async fn answer(&mut self) -> (u16, Value) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.0.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap().to_lowercase();
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length.unwrap().parse().unwrap()];
        self.0.read_exact(&mut body).await.unwrap();
        (status, serde_json::from_slice(&body).unwrap())
    }

    /// What comes until the other end closes.
    async fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        self.0.read_to_end(&mut rest).await.unwrap();
        rest
    }

    async fn ask(&mut self, path: &str) -> (u16, Value) {
        self.send(&get(path)).await;
        self.answer().await
    }

    /// Asks who it is, which has an answer.
    async fn knock(&mut self) {
        let (status, me) = self.ask("/api/v1/session").await;
        assert_eq!((status, me["role"].as_str()), (200, Some("admin")), "{me}");
    }
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

/// docs/admin-socket.md: what it has `curl` ask for is there, and it has every limit.
#[tokio::test]
async fn the_documentation_is_right() {
    let page = include_str!("../../../docs/admin-socket.md");
    let gateway = Gateway::start();
    let mut guest = gateway.connect().await;
    let examples: Vec<&str> =
        page.lines().filter_map(|line| line.split_once("http://localhost")).map(|(_, path)| path).collect();
    assert!(!examples.is_empty());
    for path in examples {
        let (status, answer) = guest.ask(path.trim_matches('\'')).await;
        assert_eq!(status, 200, "{path}: {answer}");
    }
    for part in [
        format!("| connections | {CONNECTIONS_MAX} |"),
        format!("| length of its path | {SOCKET_PATH_BYTES_MAX} bytes"),
    ] {
        assert!(page.contains(&part), "{part}");
    }
}

#[tokio::test]
async fn several_requests_at_once_are_answered_in_order_also_after_one_that_is_refused() {
    let gateway = Gateway::start();
    let mut guest = gateway.connect().await;
    guest.send(&[get("/api/v1/session"), get("/api/v1/nothing"), get("/api/v1/rules")].concat()).await;
    assert_eq!(guest.answer().await.1["role"], "admin");
    let (status, problem) = guest.answer().await;
    assert_eq!((status, problem["code"].as_str()), (404, Some("no_path")));
    assert_eq!(guest.answer().await.1["rules"], Value::Array(Vec::new()));
}

#[tokio::test]
async fn what_is_no_http_is_refused_and_harms_nobody() {
    let gateway = Gateway::start();
    let mut other = gateway.connect().await;
    other.knock().await;
    for text in [
        "\n\n\n\n\r\n\r\n",
        "garbage\r\n\r\n",
        "\u{0}\u{1}\r\n\r\n",
        "{\"version\":1,\"command\":\"rules.list\"}\n",
    ] {
        let mut guest = gateway.connect().await;
        guest.send(text).await;
        guest.0.shutdown().await.unwrap();
        let rest = guest.rest().await;
        assert!(
            rest.is_empty() || rest.starts_with(b"HTTP/1.1 400 "),
            "{text:?}: {}",
            String::from_utf8_lossy(&rest)
        );
    }
    other.knock().await;
}

#[tokio::test]
async fn one_connection_too_many_is_told_so() {
    let gateway = Gateway::start();
    let mut guests = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        let mut guest = gateway.connect().await;
        guest.knock().await;
        guests.push(guest);
    }
    let mut late = gateway.connect().await;
    let (status, problem) = late.ask("/api/v1/session").await;
    assert_eq!((status, problem["code"].as_str()), (503, Some("unavailable")));
    assert!(problem["detail"].as_str().unwrap().contains("which is the limit"), "{problem}");
    assert_eq!(late.rest().await, b"");
    // Those that are told so have the same limit: what comes beyond is closed without a word.
    let mut silent = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        silent.push(gateway.connect().await);
    }
    assert_eq!(gateway.connect().await.rest().await, b"");
    drop(silent);
    // Its place is free as soon as its end was seen, which is when the next one is let in.
    guests.pop();
    loop {
        let mut next = gateway.connect().await;
        next.0.write_all(get("/api/v1/session").as_bytes()).await.ok();
        let mut first = [0; 12];
        if next.0.read_exact(&mut first).await.is_ok() && &first == b"HTTP/1.1 200" {
            break;
        }
    }
    for guest in &mut guests {
        guest.knock().await;
    }
}

#[tokio::test(start_paused = true)]
async fn who_says_nothing_is_sent_away() {
    let gateway = Gateway::start();
    for said in ["", "GET /api/v1/session HTTP/1.1\r\n"] {
        let mut guest = gateway.connect().await;
        guest.send(said).await;
        let begin = tokio::time::Instant::now();
        let rest = guest.rest().await;
        assert!(rest.is_empty() || rest.starts_with(b"HTTP/1.1 408 "), "{}", String::from_utf8_lossy(&rest));
        assert!(begin.elapsed() >= HEAD_TIMEOUT, "{:?}", begin.elapsed());
    }
}

#[tokio::test]
async fn the_socket_is_its_owners_and_takes_the_place_of_one_left_over() {
    let gateway = Gateway::start();
    let path = gateway.socket.path().to_owned();
    assert_eq!(path, gateway.folder.path().join("admin.sock"));
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let mut guest = gateway.connect().await;
    guest.knock().await;
    gateway.socket.close().await;
    assert!(!path.exists());
    assert_eq!(guest.0.read_u8().await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    // One that a crash has left over.
    drop(StdUnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let socket = AdminSocket::open(gateway.folder.path(), gateway.api.owners_door()).unwrap();
    Guest(UnixStream::connect(socket.path()).await.unwrap()).knock().await;
    socket.close().await;
    // Anything else of that name is somebody's.
    std::fs::write(&path, "mine").unwrap();
    let error = AdminSocket::open(gateway.folder.path(), gateway.api.owners_door()).unwrap_err();
    assert!(matches!(error, AdminError::Occupied { path: named } if named == path));
    assert_eq!(std::fs::read(&path).unwrap(), b"mine");
}

#[tokio::test]
async fn a_path_that_the_system_cannot_take_is_refused_in_words() {
    let gateway = Gateway::start();
    let base = gateway.folder.path().as_os_str().len();
    let at = |bytes: usize| {
        let name = "d".repeat(bytes - base - "//admin.sock".len());
        let folder = gateway.folder.path().join(name);
        std::fs::create_dir(&folder).unwrap();
        assert_eq!(socket_path(&folder).as_os_str().len(), bytes);
        folder
    };
    let connect = |data_dir: &Path| {
        let data_dir = data_dir.to_owned();
        tokio::task::spawn_blocking(move || ApiClient::connect(&data_dir).map(drop))
    };
    let longest = at(SOCKET_PATH_BYTES_MAX);
    let socket = AdminSocket::open(&longest, gateway.api.owners_door()).unwrap();
    assert!(connect(&longest).await.unwrap().is_ok());
    socket.close().await;
    let longer = at(SOCKET_PATH_BYTES_MAX + 1);
    let error = AdminSocket::open(&longer, gateway.api.owners_door()).unwrap_err();
    assert!(matches!(error, AdminError::PathTooLong { bytes, .. } if bytes == SOCKET_PATH_BYTES_MAX + 1));
    assert!(error.to_string().contains("choose a shorter data_dir"), "{error}");
    assert!(matches!(connect(&longer).await.unwrap(), Err(AdminClientError::Connect { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_tells_a_refusal_from_an_answer_and_from_nobody() {
    let gateway = Gateway::start();
    let data_dir = gateway.folder.path().to_owned();
    let client = tokio::task::spawn_blocking(move || {
        let mut client = ApiClient::connect(&data_dir).unwrap();
        let me = client.get("/api/v1/session").unwrap();
        assert_eq!(me["role"], "admin");
        let error = client.get("/api/v1/nothing").unwrap_err();
        assert!(matches!(error, AdminClientError::Refused { code, .. } if code == "no_path"));
        // One connection serves many requests.
        let token = client.post("/api/v1/setup-tokens", &Value::Null).unwrap();
        assert!(token["setup_token"].as_str().unwrap().starts_with("tds_"));
        assert_eq!(client.get_text("/api/v1/export/rules").unwrap().trim(), "[rules]");
        let error = client.get_text("/api/v1/nothing").unwrap_err();
        assert!(matches!(error, AdminClientError::Refused { code, .. } if code == "no_path"));
        (client, data_dir)
    });
    let (mut client, data_dir) = client.await.unwrap();
    gateway.socket.close().await;
    let gone = tokio::task::spawn_blocking(move || {
        assert!(matches!(client.get("/api/v1/session"), Err(AdminClientError::Broken(_))));
        assert!(matches!(ApiClient::connect(&data_dir), Err(AdminClientError::NoGateway { .. })));
        // A server of something else.
        for (answer, problem) in [
            ("hello\n", "broke"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "can't be read"),
            ("HTTP/1.1 500 Oh\r\nContent-Length: 2\r\n\r\n{}", "no problem of ours"),
            ("HTTP/1.1 404 Oh\r\nContent-Length: 2\r\n\r\n[]", "no problem of ours"),
        ] {
            let path = socket_path(&data_dir);
            drop(std::fs::remove_file(&path));
            let other = StdUnixListener::bind(path).unwrap();
            let server = std::thread::spawn(move || {
                let mut guest = other.accept().unwrap().0;
                // After the request, as servers do.
                io::Read::read(&mut guest, &mut [0; 1024]).unwrap();
                guest.write_all(answer.as_bytes()).unwrap();
            });
            let error = ApiClient::connect(&data_dir).unwrap().get("/api/v1/session").unwrap_err();
            assert!(error.to_string().contains(problem), "{answer}: {error}");
            server.join().unwrap();
        }
    });
    gone.await.unwrap();
}
