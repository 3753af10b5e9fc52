//! Every kind of listener, with foreign clients and with bytes of our own.
#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "helpers of tests: a failure is a failed test, at the caller's line"
)]

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Instant;

use integration_tests::tools::{self, Program};
use integration_tests::{Authority, Broker, BrokerBuilder, Client, Identity, PATIENCE, Version, new_folder};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// A folder that goes with the test.
struct Folder(std::path::PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

fn folder() -> Folder {
    Folder(new_folder())
}

/// A listener of this kind.
fn listener(kind: &str, more: &str) -> String {
    format!(
        "[[listeners]]\nname = \"{kind}\"\nkind = \"{kind}\"\naddress = \"127.0.0.1:0\"\nallow_anonymous = true\n{more}\n"
    )
}

fn tls(server: &Identity, more: &str) -> String {
    format!(
        "[listeners.tls]\ncertificate = {:?}\nkey = {:?}\n{more}\n",
        server.certificate.display().to_string(),
        server.key.display().to_string()
    )
}

/// What asks clients for certificates of this authority.
fn mutual(authority: &Authority, how: &str) -> String {
    let ca = authority.certificate().display().to_string();
    format!("client_certificates = \"{how}\"\nclient_ca = {ca:?}")
}

#[track_caller]
fn assert_alive(broker: &Broker) {
    for version in Version::BOTH {
        assert_is_served(Client::connect(broker, version, "bystander"));
    }
}

#[track_caller]
fn assert_is_served(mut client: Client) {
    client.subscribe("alive/#", 1);
    client.publish("alive/x", "yes");
    assert_eq!(client.delivery().text(), "yes");
    client.leave();
}

#[track_caller]
fn paho(library: &str, protocol: &str, port: u16, environment: &[(&str, &Path)]) {
    let mut command = tools::python("paho_checks.py", library);
    command.arg(port.to_string()).arg(protocol).envs(environment.iter().copied());
    let output = Program::start(command).succeed();
    assert!(output.ends_with("all passed"), "{output}");
}

#[track_caller]
fn mqttjs(version: &str, port: u16, environment: &[(&str, &Path)]) {
    let mut command = tools::node("mqttjs_checks.cjs");
    command.arg(port.to_string()).arg(version).envs(environment.iter().copied());
    let output = Program::start(command).succeed();
    assert!(output.ends_with("all passed"), "{output}");
}

/// Runs every client that speaks it over one transport.
#[track_caller]
fn every_client(port: u16, scheme: &str, authority: Option<&Authority>, shows: Option<&Identity>) {
    let ca = authority.map(Authority::certificate);
    let mut shown: Vec<(&str, &Path)> = Vec::new();
    shown.extend(ca.iter().map(|ca| ("CA", ca.as_path())));
    shown.extend(
        shows.iter().flat_map(|identity| [("CERT", &*identity.certificate), ("KEY", &*identity.key)]),
    );
    let is_websocket = scheme.starts_with("ws");
    let transport = Path::new(if is_websocket { "websockets" } else { "tcp" });
    let python = [&shown[..], &[("TRANSPORT", transport)]].concat();
    paho("paho-1", "3.1.1", port, &python);
    paho("paho-2", "5", port, &python);
    let node = [&shown[..], &[("SCHEME", Path::new(scheme))]].concat();
    mqttjs("4", port, &node);
    mqttjs("5", port, &node);
    if !is_websocket {
        let mut flags: Vec<String> = Vec::new();
        if let Some(ca) = &ca {
            flags.extend(["--cafile".to_owned(), ca.display().to_string()]);
        }
        if let Some(identity) = shows {
            let (certificate, key) = (identity.certificate.display(), identity.key.display());
            flags.extend(["--cert".to_owned(), certificate.to_string(), "--key".to_owned(), key.to_string()]);
        }
        let flags: Vec<&str> =
            flags.iter().map(String::as_str).chain(["-h", "localhost", "-q", "1"]).collect();
        let mut subscriber = tools::mosquitto_sub_at(port, &[&flags[..], &["-t", "m/#", "-C", "1"]].concat());
        tools::mosquitto_pub_at(port, &[&flags[..], &["-t", "m/x", "-m", "hello"]].concat());
        assert_eq!(subscriber.message(), "m/x 1 0 hello");
        subscriber.succeed();
    }
}

#[test]
fn every_client_over_tls() {
    let folder = folder();
    let authority = Authority::new(&folder.0);
    let server = authority.issue("server", "localhost", 1);
    let broker = Broker::builder().section(&listener("tls", &tls(&server, ""))).start();
    every_client(broker.listener("tls").port(), "mqtts", Some(&authority), None);
}

#[test]
fn every_client_over_mutual_tls() {
    let folder = folder();
    let authority = Authority::new(&folder.0);
    let server = authority.issue("server", "localhost", 1);
    let device = authority.issue("device", "device-1", 2);
    let section = listener("tls", &tls(&server, &mutual(&authority, "required")));
    let broker = Broker::builder().section(&section).start();
    every_client(broker.listener("tls").port(), "mqtts", Some(&authority), Some(&device));
}

#[test]
fn every_client_over_websocket() {
    let broker = Broker::builder().section(&listener("ws", "")).start();
    every_client(broker.listener("ws").port(), "ws", None, None);
}

#[test]
fn every_client_over_secure_websocket() {
    let folder = folder();
    let authority = Authority::new(&folder.0);
    let server = authority.issue("server", "localhost", 1);
    let broker = Broker::builder().section(&listener("wss", &tls(&server, ""))).start();
    every_client(broker.listener("wss").port(), "wss", Some(&authority), None);
}

#[test]
fn every_transport_on_one_port() {
    let folder = folder();
    let authority = Authority::new(&folder.0);
    let server = authority.issue("server", "localhost", 1);
    let broker = Broker::builder().section(&listener("auto", &tls(&server, ""))).start();
    let port = broker.listener("auto").port();
    for scheme in ["mqtt", "ws"] {
        mqttjs("5", port, &[("SCHEME", Path::new(scheme))]);
    }
    for scheme in ["mqtts", "wss"] {
        mqttjs("5", port, &[("SCHEME", Path::new(scheme)), ("CA", &authority.certificate())]);
    }
    let mut stranger = TcpStream::connect(broker.listener("auto")).unwrap();
    stranger.write_all(b"SSH-2.0-x\r\n").unwrap();
    assert_closed(&mut stranger);
    assert_alive(&broker);
}

/// Asserts that the broker closes the connection; returns what it said before.
#[track_caller]
fn assert_closed(stream: &mut TcpStream) -> Vec<u8> {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut said = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => return said,
            Ok(count) => said.extend_from_slice(&chunk[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return said,
            Err(error) => panic!("the connection stays open: {error}"),
        }
    }
}

type Stream = StreamOwned<ClientConnection, TcpStream>;

fn tls_client(authority: &Authority, shows: Option<&Identity>) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority.certificate()).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    Arc::new(match shows {
        Some(identity) => {
            let chain = vec![CertificateDer::from_pem_file(&identity.certificate).unwrap()];
            let key = rustls::pki_types::PrivateKeyDer::from_pem_file(&identity.key).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
        None => builder.with_no_client_auth(),
    })
}

/// A CONNECT over TLS for this name; the CONNACK's code, or why there is none.
fn connect(address: SocketAddr, config: &Arc<ClientConfig>, name: &str) -> std::io::Result<Stream> {
    let socket = TcpStream::connect(address)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let session =
        ClientConnection::new(Arc::clone(config), ServerName::try_from(name.to_owned()).unwrap()).unwrap();
    let mut stream = StreamOwned::new(session, socket);
    // Without a Client Identifier: no connection takes over from another.
    stream.write_all(b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x00\x00\x00")?;
    let mut connack = [0; 4];
    stream.read_exact(&mut connack)?;
    assert_eq!(connack, [0x20, 2, 0, 0]);
    Ok(stream)
}

fn shown(stream: &Stream) -> Vec<u8> {
    stream.conn.peer_certificates().unwrap()[0].to_vec()
}

#[test]
fn a_client_without_a_good_certificate_stays_outside() {
    let (folder, elsewhere) = (folder(), folder());
    let authority = Authority::new(&folder.0);
    let server = authority.issue("server", "localhost", 1);
    let good = authority.issue("good", "good", 2);
    let revoked = authority.issue("revoked", "revoked", 3);
    let foreign = Authority::new(&elsewhere.0).issue("foreign", "good", 2);
    let crl = format!("crl = [{:?}]", authority.revoke(&[3]).display().to_string());
    let section = listener("tls", &tls(&server, &format!("{}\n{crl}", mutual(&authority, "required"))));
    let broker = Broker::builder().section(&section).start();
    let at = broker.listener("tls");
    connect(at, &tls_client(&authority, Some(&good)), "localhost").unwrap();
    for shows in [None, Some(&revoked), Some(&foreign)] {
        let error = connect(at, &tls_client(&authority, shows), "localhost").expect_err("refused");
        assert!(error.to_string().contains("alert"), "{shows:?}: {error}");
    }
    // Who was good may be revoked while the broker runs.
    let _list = authority.revoke(&[2, 3]);
    broker.logged("certificates reloaded");
    let error = connect(at, &tls_client(&authority, Some(&good)), "localhost").expect_err("refused");
    assert!(error.to_string().contains("alert"), "{error}");
    assert_alive(&broker);
}

#[test]
fn a_certificate_is_optional_where_it_is_said_so() {
    let (folder, elsewhere) = (folder(), folder());
    let authority = Authority::new(&folder.0);
    let server = authority.issue("server", "localhost", 1);
    let good = authority.issue("good", "good", 2);
    let foreign = Authority::new(&elsewhere.0).issue("foreign", "good", 2);
    let broker =
        Broker::builder().section(&listener("tls", &tls(&server, &mutual(&authority, "optional")))).start();
    let at = broker.listener("tls");
    connect(at, &tls_client(&authority, None), "localhost").unwrap();
    connect(at, &tls_client(&authority, Some(&good)), "localhost").unwrap();
    connect(at, &tls_client(&authority, Some(&foreign)), "localhost").expect_err("refused");
}

#[test]
fn a_name_has_its_certificate() {
    let folder = folder();
    let authority = Authority::new(&folder.0);
    let server = authority.issue("server", "localhost", 1);
    let other = authority.issue("other", "*.b.example", 2);
    let (certificate, key) = (other.certificate.display().to_string(), other.key.display().to_string());
    let sni = format!("sni = [{{ name = \"*.b.example\", certificate = {certificate:?}, key = {key:?} }}]");
    let broker = Broker::builder().section(&listener("tls", &tls(&server, &sni))).start();
    let at = broker.listener("tls");
    let client = tls_client(&authority, None);
    connect(at, &client, "localhost").unwrap();
    connect(at, &client, "x.b.example").unwrap();
    connect(at, &client, "X.B.Example").unwrap();
    // One level only, and nothing else.
    connect(at, &client, "x.y.b.example").expect_err("the default certificate is not for it");
    connect(at, &client, "c.example").expect_err("the default certificate is not for it");
}

#[test]
fn a_certificate_is_changed_under_load_without_a_lost_connection() {
    let folder = folder();
    let authority = Authority::new(&folder.0);
    let server = authority.issue("server", "localhost", 1);
    let broker =
        Broker::builder().section(&listener("tls", &tls(&server, ""))).expect_error("refused").start();
    let at = broker.listener("tls");
    let client = tls_client(&authority, None);
    let first = connect(at, &client, "localhost").unwrap();
    let before = shown(&first);
    let is_over = Arc::new(AtomicBool::new(false));
    let pings = Arc::new((Mutex::new([0_u64; 20]), Condvar::new()));
    // Waits until each of them has had so many more.
    let wait_for_pings = |more: u64| {
        let counts = pings.0.lock().unwrap();
        let before = *counts;
        let are_few =
            |counts: &mut [u64; 20]| counts.iter().zip(before).any(|(now, before)| *now < before + more);
        let (counts, waited) = pings.1.wait_timeout_while(counts, PATIENCE, are_few).unwrap();
        assert!(!waited.timed_out(), "answered pings of each connection: {counts:?}, {before:?} before");
    };
    // Twenty connections ping all the time; any end of one is a failure.
    let pinging: Vec<_> = (0..20u8)
        .map(|number| {
            let (client, is_over, pings) = (Arc::clone(&client), Arc::clone(&is_over), Arc::clone(&pings));
            thread::spawn(move || {
                let mut stream = TcpStream::connect(at).map(|socket| {
                    socket.set_read_timeout(Some(PATIENCE)).unwrap();
                    let name = ServerName::try_from("localhost").unwrap();
                    StreamOwned::new(ClientConnection::new(client, name).unwrap(), socket)
                })?;
                stream.write_all(b"\x10\x0e\x00\x04MQTT\x04\x02\x00\x00\x00\x02p")?;
                stream.write_all(&[b'a' + number])?;
                let mut answer = [0; 4];
                stream.read_exact(&mut answer)?;
                while !is_over.load(Ordering::Relaxed) {
                    stream.write_all(&[0xc0, 0])?;
                    let mut answer = [0; 2];
                    stream.read_exact(&mut answer)?;
                    assert_eq!(answer, [0xd0, 0]);
                    pings.0.lock().unwrap()[usize::from(number)] += 1;
                    pings.1.notify_all();
                }
                std::io::Result::Ok(())
            })
        })
        .collect();
    wait_for_pings(1);
    let mut last = before;
    for serial in 2..6 {
        let _changed = authority.issue("server", "localhost", serial);
        broker.reload();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let stream = connect(at, &client, "localhost").expect("connections are accepted meanwhile");
            if shown(&stream) != last {
                last = shown(&stream);
                break;
            }
            assert!(Instant::now() < deadline, "certificate {serial} is never shown");
        }
    }
    // What doesn't hold together changes nothing.
    fs::write(&server.key, "no key").unwrap();
    broker.reload();
    // Said of this alone: with the certificate of before, a key that is one is refused for another reason.
    broker.logged("it holds no private key");
    let after = connect(at, &client, "localhost").unwrap();
    assert_eq!(shown(&after), last);
    // One may have been answered already when the last change came.
    wait_for_pings(2);
    is_over.store(true, Ordering::Relaxed);
    for thread in pinging {
        thread.join().unwrap().expect("no connection is lost");
    }
    // The one from before the change still works.
    let mut first = first;
    first.write_all(&[0xc0, 0]).unwrap();
    let mut answer = [0; 2];
    first.read_exact(&mut answer).unwrap();
    assert_eq!(answer, [0xd0, 0]);
}

#[test]
fn junk_before_mqtt_harms_nobody() {
    let folder = folder();
    let authority = Authority::new(&folder.0);
    let server = authority.issue("server", "localhost", 1);
    let builder: BrokerBuilder =
        ["ws", "auto"].iter().fold(Broker::builder(), |builder, kind| builder.section(&listener(kind, "")));
    let broker = builder
        .section(&listener("tls", &tls(&server, "")))
        .section(&listener("wss", &tls(&server, "")))
        .start();
    let hello = [&[0x16, 3, 1, 0, 5, 1, 0, 0, 1, 0][..], &[0; 40]].concat();
    let connect = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01t".to_vec();
    let get = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec();
    let http_2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    let long = [b"GET /".to_vec(), vec![b'a'; 20_000]].concat();
    for junk in [&hello, &get, &http_2, &long, &vec![0; 100], &vec![0xff; 100], &connect] {
        for name in ["tcp", "ws", "auto", "tls", "wss"] {
            let is_mqtt = *junk == connect && ["tcp", "auto"].contains(&name);
            if is_mqtt {
                continue;
            }
            let mut stream = TcpStream::connect(broker.listener(name)).unwrap();
            // It may close before it has read all.
            drop(stream.write_all(junk));
            drop(stream.shutdown(std::net::Shutdown::Write));
            assert_closed(&mut stream);
        }
        assert_alive(&broker);
    }
}

#[test]
fn a_request_that_is_no_websocket_is_told_what_is_wanted() {
    let broker = Broker::builder().section(&listener("ws", "")).start();
    let at = broker.listener("ws");
    let ask = |request: &str| {
        let mut stream = TcpStream::connect(at).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        String::from_utf8(assert_closed(&mut stream)).unwrap()
    };
    let browser = ask("GET /mqtt HTTP/1.1\r\nHost: x\r\nAccept: text/html\r\n\r\n");
    assert!(
        browser.starts_with("HTTP/1.1 426 ") && browser.contains("\r\nUpgrade: websocket\r\n"),
        "{browser}"
    );
    assert!(ask("GET / HTTP/1.1\r\nHost: x\r\n\r\n").starts_with("HTTP/1.1 404 "));
    let upgrade = "GET /mqtt HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n";
    let without = ask(&format!("{upgrade}\r\n"));
    assert!(without.starts_with("HTTP/1.1 400 ") && without.contains("Sec-WebSocket-Protocol"), "{without}");
    // A text frame is refused with its status, and the connection ends.
    let mut stream = TcpStream::connect(at).unwrap();
    stream.write_all(format!("{upgrade}Sec-WebSocket-Protocol: mqtt\r\n\r\n").as_bytes()).unwrap();
    stream.write_all(&[0x81, 0x81, 0, 0, 0, 0, b'x']).unwrap();
    let said = assert_closed(&mut stream);
    assert!(said.starts_with(b"HTTP/1.1 101 ") && said.ends_with(&[0x88, 2, 0x03, 0xeb]), "{said:02x?}");
    assert_alive(&broker);
}

#[test]
fn what_takes_too_long_before_mqtt_is_closed() {
    let folder = folder();
    let authority = Authority::new(&folder.0);
    let server = authority.issue("server", "localhost", 1);
    let broker = Broker::builder()
        .limit("connect_timeout", "\"1s\"")
        .section(&listener("tls", &tls(&server, "")))
        .section(&listener("ws", ""))
        .section(&listener("auto", ""))
        .start();
    for (name, begin) in
        [("tls", &b"\x16\x03\x01"[..]), ("ws", b"GET /mqtt HTTP/1.1\r\n"), ("auto", b""), ("auto", b"GET")]
    {
        let mut stream = TcpStream::connect(broker.listener(name)).unwrap();
        stream.write_all(begin).unwrap();
        assert_closed(&mut stream);
    }
    for version in Version::BOTH {
        assert_is_served(Client::connect_in_time(&broker, version, "bystander"));
    }
}

/// Says the CONNECT of a client without a name over a WebSocket whose 101 is being read, and waits for its CONNACK.
#[track_caller]
fn connect_in_frames(stream: &mut TcpStream) {
    // Under a mask of zeros it stands as it is.
    stream.write_all(b"\x82\x8e\0\0\0\0\x10\x0c\x00\x04MQTT\x04\x02\x00\x00\x00\x00").unwrap();
    let mut said = Vec::new();
    while !said.ends_with(b"\r\n\r\n\x82\x04\x20\x02\x00\x00") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        said.extend(byte);
    }
}

#[test]
fn no_more_handshakes_than_allowed_are_under_way() {
    // Nothing but the limit closes anything here: there is more time than a test waits.
    let broker = Broker::builder()
        .limit("max_handshakes", "2")
        .limit("connect_timeout", "\"60s\"")
        .variable("TIDEGATE_LOG", "info,broker=debug")
        .section(&listener("ws", ""))
        .start();
    let at = broker.listener("ws");
    let mut sockets: Vec<_> = (0..3)
        .map(|_| {
            let mut stream = TcpStream::connect(at).unwrap();
            stream.write_all(b"GET /mqtt HTTP/1.1\r\n").unwrap();
            stream
        })
        .collect();
    broker.logged("as many handshakes as allowed are under way");
    // Which of the three it was is the scheduler's choice; the other two come in.
    let rest = b"Host: b\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n";
    let came_in = |stream: &mut TcpStream| {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut answer = [0; 12];
        stream.write_all(rest).and_then(|()| stream.read_exact(&mut answer)).is_ok_and(|()| {
            assert_eq!(&answer, b"HTTP/1.1 101");
            // It gives its place back before it begins to speak MQTT.
            connect_in_frames(stream);
            true
        })
    };
    let count = sockets.iter_mut().filter_map(|stream| came_in(stream).then_some(())).count();
    assert_eq!(count, 2);
    // They are through, so there is room again, for two.
    let mut again: Vec<_> = (0..2)
        .map(|_| {
            let mut stream = TcpStream::connect(at).unwrap();
            stream.write_all(b"GET /mqtt HTTP/1.1\r\n").unwrap();
            stream
        })
        .collect();
    assert!(again.iter_mut().all(came_in));
    assert_alive(&broker);
}

#[test]
fn a_unix_socket_is_a_listener() {
    let folder = folder();
    let path = folder.0.join("mqtt.sock");
    let section = format!(
        "[[listeners]]\nname = \"local\"\nkind = \"unix\"\npath = {:?}\nmode = \"0600\"\nallow_anonymous = true\n",
        path.display().to_string()
    );
    let broker = Broker::builder().section(&section).start();
    broker.logged("\"local\"");
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let mut stream = UnixStream::connect(&path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01t").unwrap();
    let mut connack = [0; 4];
    stream.read_exact(&mut connack).unwrap();
    assert_eq!(connack, [0x20, 2, 0, 0]);
    broker.stop();
    assert!(!path.exists());
}

/// A header of the PROXY protocol for a client of this address.
fn proxy_header(client: [u8; 4]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c".to_vec();
    header.extend(client);
    header.extend([127, 0, 0, 1, 0x30, 0x39, 0x07, 0x5b]);
    header
}

#[test]
fn a_proxy_says_whose_connection_it_is() {
    let rule = "[rules.who]\nsql = '''SELECT sourceip() AS ip FROM 'from/#' '''\n\
                [[rules.who.actions]]\nname = 'tell'\ntype = 'republish'\ntopic = 'told'\n";
    let broker = Broker::builder()
        .rule_file("who", rule)
        .section(
            &listener("tcp", "proxy_protocol = [\"127.0.0.1\"]")
                .replace("name = \"tcp\"", "name = \"proxied\""),
        )
        .start();
    let mut watcher = Client::connect(&broker, Version::V311, "watcher");
    watcher.subscribe("told", 0);
    let mut client = Client::open_at(broker.listener("proxied"), Version::V311);
    // In the same write: what follows the header belongs to the client.
    let connect = integration_tests::wire::bytes(&Version::V311.connect("behind"));
    client.send_bytes(&[proxy_header([203, 0, 113, 7]), connect].concat());
    assert_eq!(client.connack().code, 0);
    client.publish("from/x", "1");
    assert!(watcher.delivery().text().contains("203.0.113.7"));

    // Without a header, or with one of the first version, nobody comes in.
    for begin in
        [&b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01t"[..], b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n"]
    {
        let mut stream = TcpStream::connect(broker.listener("proxied")).unwrap();
        stream.write_all(begin).unwrap();
        assert_eq!(assert_closed(&mut stream), b"");
    }
    broker.logged("a connection is refused");
    assert_alive(&broker);
}

#[test]
fn behind_a_proxy_it_is_the_client_whose_connections_are_counted() {
    let broker = Broker::builder()
        .limit("max_connections_per_address", "2")
        .section(
            &listener("tcp", "proxy_protocol = [\"127.0.0.1\"]")
                .replace("name = \"tcp\"", "name = \"proxied\""),
        )
        .start();
    let connect = |address: [u8; 4], version: Version, id: &str| {
        let mut client = Client::open_at(broker.listener("proxied"), version);
        let connect = integration_tests::wire::bytes(&version.connect(id));
        client.send_bytes(&[proxy_header(address), connect].concat());
        let code = client.connack().code;
        (client, code)
    };
    let (here, elsewhere) = ([203, 0, 113, 7], [203, 0, 113, 8]);
    let (first, code) = connect(here, Version::V5, "one");
    assert_eq!(code, 0);
    let (_second, code) = connect(here, Version::V311, "two");
    assert_eq!(code, 0);
    // One past the limit, in both versions: 0x97 (Quota exceeded), and what 3.1.1 has for it.
    for (version, expected) in [(Version::V5, 0x97), (Version::V311, 3)] {
        let (mut refused, code) = connect(here, version, "three");
        assert_eq!(code, expected);
        refused.expect_closed();
    }
    // Others aren't counted with it: neither other clients of the proxy, nor the proxy's own address.
    let (_third, code) = connect(elsewhere, Version::V5, "four");
    assert_eq!(code, 0);
    let _own = Client::connect(&broker, Version::V5, "five");
    // And a place is given back.
    first.leave();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (_again, code) = connect(here, Version::V5, "six");
        if code == 0 {
            break;
        }
        assert!(Instant::now() < deadline, "the place is never given back");
    }
}

#[test]
fn who_is_no_proxy_may_not_speak_for_others() {
    let section =
        listener("tcp", "proxy_protocol = [\"10.0.0.1\"]").replace("name = \"tcp\"", "name = \"proxied\"");
    let broker = Broker::builder().section(&section).start();
    let mut stream = TcpStream::connect(broker.listener("proxied")).unwrap();
    drop(stream.write_all(&proxy_header([203, 0, 113, 7])));
    assert_eq!(assert_closed(&mut stream), b"");
    broker.logged("it comes from no proxy of this listener");
}

#[test]
fn a_broker_with_a_bad_certificate_does_not_start() {
    let folder = folder();
    let authority = Authority::new(&folder.0);
    let server = authority.issue("server", "localhost", 1);
    let other = authority.issue("other", "localhost", 2);
    let mixed = Identity { certificate: server.certificate, key: other.key };
    let text = Broker::builder().section(&listener("tls", &tls(&mixed, ""))).fails_to_start();
    assert!(text.contains("tls.key") && text.contains("it is not the key of the certificate"), "{text}");
}
