//! `tidegate pub` and `tidegate sub` over every transport, against our own listeners, and what they say when it fails.

#![allow(clippy::unwrap_used, reason = "a helper of tests panics where it can't go on")]

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::thread;

use integration_tests::tools::{self, Program};
use integration_tests::{Authority, Broker, Identity, new_folder};

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        Self(new_folder())
    }

    fn file(&self, name: &str, contents: &[u8]) -> String {
        let path = self.0.join(name);
        fs::write(&path, contents).unwrap();
        text(&path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn listener(kind: &str, more: &str) -> String {
    format!(
        "[[listeners]]\nname = \"{kind}\"\nkind = \"{kind}\"\naddress = \"127.0.0.1:0\"\nallow_anonymous = true\n{more}\n"
    )
}

fn tls(server: &Identity, more: &str) -> String {
    let (certificate, key) = (text(&server.certificate), text(&server.key));
    format!("[listeners.tls]\ncertificate = {certificate:?}\nkey = {key:?}\n{more}\n")
}

/// Runs a command that has to end by itself; returns its exit code and what it printed.
#[track_caller]
fn run(arguments: &[&str], environment: &[(&str, &str)]) -> (i32, String) {
    let mut command = tools::tidegate();
    let output = command.args(arguments).envs(environment.iter().copied()).output().unwrap();
    let printed =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(!printed.contains("panicked"), "{printed}");
    (output.status.code().unwrap(), printed)
}

/// Asserts that a publish to there fails with this exit code, and says this.
#[track_caller]
fn assert_refused(to: &[&str], code: i32, why: &str) {
    let (got, printed) = run(&[&["pub", "-t", "m/x", "-m", "x", "-q", "1"], to].concat(), &[]);
    assert_eq!(got, code, "{printed}");
    assert!(printed.contains(why), "{printed}");
}

/// Sends a small and a large message through a subscription, both over the same transport.
#[track_caller]
fn assert_carries(to: &[&str], large: &str) {
    let mut command = tools::tidegate();
    command.args(["sub", "-d", "-q", "2", "-t", "m/#", "-C", "3", "-F", "got %t %l"]).args(to);
    let mut subscriber = Program::start(command);
    subscriber.wait_for("subscribed to");
    for (topic, qos, payload) in
        [("m/0", "0", ["-m", "hello"]), ("m/1", "1", ["-f", large]), ("m/2", "2", ["-f", large])]
    {
        let (code, printed) = run(&[&["pub", "-t", topic, "-q", qos], &payload[..], to].concat(), &[]);
        assert_eq!(code, 0, "{to:?}: {printed}");
    }
    let printed = subscriber.succeed();
    for line in ["got m/0 5", "got m/1 300000", "got m/2 300000"] {
        assert!(printed.contains(line), "{to:?}: {printed}");
    }
}

#[test]
fn both_commands_speak_every_transport() {
    let folder = Folder::new();
    let authority = Authority::new(&folder.0);
    let server = authority.issue("server", "localhost", 1);
    let socket = folder.0.join("mqtt.sock");
    let unix = format!(
        "[[listeners]]\nname = \"local\"\nkind = \"unix\"\npath = {:?}\nallow_anonymous = true\n",
        text(&socket)
    );
    let broker = Broker::builder()
        .section(&listener("tls", &tls(&server, "")))
        .section(&listener("ws", ""))
        .section(&listener("wss", &tls(&server, "")))
        .section(&listener("auto", &tls(&server, "")))
        .section(&unix)
        .start();
    broker.logged("\"local\"");
    let port = |name: &str| broker.listener(name).port();
    let large = folder.file("large", &vec![7; 300_000]);
    let ca = text(&authority.certificate());
    for url in [
        format!("mqtt://{}", broker.address()),
        format!("ws://localhost:{}", port("ws")),
        format!("ws://localhost:{}/mqtt", port("auto")),
        format!("mqtt://localhost:{}", port("auto")),
        format!("unix://{}", text(&socket)),
    ] {
        assert_carries(&["--url", &url], &large);
    }
    for url in [
        format!("mqtts://localhost:{}", port("tls")),
        format!("wss://localhost:{}", port("wss")),
        format!("wss://localhost:{}/mqtt", port("auto")),
        format!("mqtts://localhost:{}", port("auto")),
    ] {
        assert_carries(&["--url", &url, "--cafile", &ca], &large);
    }
    // As with mosquitto_pub: a file of authorities is enough to ask for TLS.
    let at = port("tls").to_string();
    assert_carries(&["-h", "localhost", "-p", &at, "--cafile", &ca, "--alpn", "mqtt"], &large);
}

#[test]
fn a_topic_may_stand_in_the_url() {
    let broker = Broker::start();
    let url = |topic: &str| format!("mqtt://{}/{topic}", broker.address());
    let mut command = tools::tidegate();
    command.args(["sub", "-d", "-v", "-C", "1", "-L", &url("a/+/#")]);
    let mut subscriber = Program::start(command);
    subscriber.wait_for("subscribed to \"a/+/#\"");
    let (code, printed) = run(&["pub", "-L", &url("a/b/c"), "-m", "x", "-q", "1"], &[]);
    assert_eq!(code, 0, "{printed}");
    assert!(subscriber.succeed().contains("a/b/c x"));
    for (arguments, why) in [
        (vec!["pub", "-m", "x", "-L"], "there is no topic"),
        (vec!["sub", "-L"], "there is nothing to subscribe to"),
        (vec!["pub", "-m", "x", "--cafile", "ca.pem", "-t", "t", "-L"], "need mqtts:// or wss://"),
    ] {
        let (code, printed) = run(&[&arguments[..], &[url("").as_str()]].concat(), &[]);
        assert_eq!(code, 2, "{printed}");
        assert!(printed.contains(why), "{printed}");
    }
    let (code, printed) = run(&["pub", "-m", "x", "-t", "t", "-L", &url("t")], &[]);
    assert!(code == 2 && printed.contains("the topic stands in the URL already"), "{printed}");
}

#[test]
fn certificates_of_clients_are_shown_and_their_refusal_is_told() {
    let (folder, elsewhere) = (Folder::new(), Folder::new());
    let authority = Authority::new(&folder.0);
    let server = authority.issue("server", "localhost", 1);
    let good = authority.issue("good", "device-1", 2);
    let revoked = authority.issue("revoked", "device-2", 3);
    let foreign = Authority::named(&elsewhere.0, "another").issue("foreign", "device-1", 2);
    let ca = text(&authority.certificate());
    let asks = format!(
        "client_certificates = \"required\"\nclient_ca = {ca:?}\ncrl = [{:?}]",
        text(&authority.revoke(&[3]))
    );
    let broker = Broker::builder()
        .section(&listener("tls", &tls(&server, &asks)))
        .section(&listener("wss", &tls(&server, &asks)))
        .start();
    let large = folder.file("large", &vec![7; 300_000]);
    let files = |identity: &Identity| [text(&identity.certificate), text(&identity.key)];
    let (shown, revoked, foreign) = (files(&good), files(&revoked), files(&foreign));
    for (scheme, name) in [("mqtts", "tls"), ("wss", "wss")] {
        let url = format!("{scheme}://localhost:{}", broker.listener(name).port());
        let to = ["--url", &url, "--cafile", &ca];
        assert_carries(&[&to[..], &["--cert", &shown[0], "--key", &shown[1]]].concat(), &large);
        assert_refused(&to, 4, "the server wants a certificate from its clients");
        for ([certificate, key], why) in [
            (&revoked, "our certificate is revoked"),
            (&foreign, "doesn't trust the issuer of our certificate"),
        ] {
            assert_refused(&[&to[..], &["--cert", certificate, "--key", key]].concat(), 4, why);
        }
    }
    // A certificate and a key go together, and have to be some.
    let url = format!("mqtts://localhost:{}", broker.listener("tls").port());
    let [certificate, key] = &shown;
    assert_refused(&["--url", &url, "--cert", certificate], 2, "--key");
    for (certificate, key, why) in [
        (key, key, "it holds no certificate in PEM"),
        (certificate, certificate, "it holds no private key in PEM"),
        (certificate, &revoked[1], certificate.as_str()),
        (&"/no/such/file".to_owned(), key, "/no/such/file: it can't be read"),
    ] {
        assert_refused(&["--url", &url, "--cafile", &ca, "--cert", certificate, "--key", key], 1, why);
    }
}

#[test]
fn a_server_that_is_not_who_it_should_be_is_refused_and_why_is_said() {
    let (folder, elsewhere) = (Folder::new(), Folder::new());
    let authority = Authority::new(&folder.0);
    let server = authority.issue("server", "broker.example", 1);
    let broker = Broker::builder().section(&listener("tls", &tls(&server, ""))).start();
    let url = format!("mqtts://localhost:{}", broker.listener("tls").port());
    let ca = text(&authority.certificate());
    for (name, why) in [
        ("another", "the server's certificate is issued by an authority that isn't trusted"),
        ("authority of a test", "is issued by another authority of the trusted one's name"),
    ] {
        let other = text(&Authority::named(&elsewhere.0, name).certificate());
        assert_refused(&["--url", &url, "--cafile", &other, "--sni", "broker.example"], 4, why);
    }
    assert_refused(
        &["--url", &url, "--cafile", &ca],
        4,
        "the server's certificate is not for \"localhost\", but for",
    );
    assert_refused(
        &["--url", &url, "--cafile", &ca, "--sni", "b c"],
        1,
        "neither a host name nor an IP address",
    );
    let (code, printed) = run(
        &["pub", "-t", "t", "-m", "x", "-q", "1", "--url", &url, "--cafile", &ca, "--sni", "broker.example"],
        &[],
    );
    assert_eq!(code, 0, "{printed}");

    // Unchecked, it is told every time, however quiet the rest has to be.
    let (code, printed) =
        run(&["pub", "--quiet", "-t", "t", "-m", "x", "-q", "1", "--url", &url, "--insecure"], &[]);
    assert_eq!(code, 0, "{printed}");
    assert!(printed.contains("WARNING: --insecure: the server's certificate is not checked"), "{printed}");
    assert_refused(&["--url", &url, "--insecure", "--cafile", &ca], 2, "--insecure");

    assert_refused(
        &["--url", &url, "--insecure", "--alpn", "h2"],
        4,
        "none of the protocols offered by ALPN",
    );
    let plain = format!("mqtts://{}", broker.address());
    assert_refused(&["--url", &plain, "--insecure"], 4, "");
}

#[test]
fn a_request_for_websocket_that_is_refused_is_told() {
    let broker = Broker::builder().section(&listener("ws", "")).start();
    let at = broker.listener("ws").port();
    assert_refused(&["--url", &format!("ws://localhost:{at}/other")], 5, "404 Not Found");

    // What proxies in front of a broker say.
    for (answer, code, why) in [
        ("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n", 5, "401 Unauthorized"),
        ("HTTP/1.1 503 Service Unavailable\r\n\r\n", 5, "503 Service Unavailable"),
        ("HTTP/1.1 200 OK\r\n\r\nhello", 5, "200 OK"),
        ("SSH-2.0-x\r\n", 4, "it doesn't speak HTTP there"),
        ("", 4, "the connection was closed"),
    ] {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("ws://{}", server.local_addr().unwrap());
        let answering = thread::spawn(move || {
            let (mut stream, _) = server.accept().unwrap();
            let mut request = Vec::new();
            let mut piece = [0; 1024];
            while !request.ends_with(b"\r\n\r\n") {
                let count = stream.read(&mut piece).unwrap();
                request.extend_from_slice(piece.get(..count).unwrap());
            }
            stream.write_all(answer.as_bytes()).unwrap();
        });
        assert_refused(&["--url", &url], code, why);
        answering.join().unwrap();
    }
}

#[test]
fn a_password_need_not_stand_on_the_command_line() {
    let folder = Folder::new();
    let right = folder.file("right", b"wonder%land\n");
    let wrong = folder.file("wrong", b"mirror\n");
    let users = text(&folder.0.join("users"));
    let (code, printed) = run(&["passwd", &users, "ada", "--password-file", &right], &[]);
    assert_eq!(code, 0, "{printed}");
    let broker = Broker::builder()
        .variable("TIDEGATE_LISTENERS__TCP__ALLOW_ANONYMOUS", "false")
        .section(&format!("[authentication.users]\ntype = \"password_file\"\nfile = {users:?}\n"))
        .start();
    let plain = format!("mqtt://{}", broker.address());
    let named = format!("mqtt://ada@{}", broker.address());
    let both = format!("mqtt://ada:wonder%25land@{}", broker.address());
    let variable = [("TIDEGATE_MQTT_PASSWORD", "wonder%land")];
    let denied = [("TIDEGATE_MQTT_PASSWORD", "mirror")];
    for (arguments, environment, comes_in) in [
        (vec!["--url", &plain, "-u", "ada", "--pw-file", &right], &[][..], true),
        (vec!["--url", &plain, "-u", "ada", "--pw-file", &wrong], &variable, false),
        (vec!["--url", &named, "--pw-file", &right], &denied, true),
        (vec!["--url", &named], &variable, true),
        (vec!["--url", &named], &denied, false),
        (vec!["--url", &named], &[], false),
        (vec!["--url", &both], &denied, true),
        (vec!["--url", &both, "-P", "mirror"], &variable, false),
        // Whoever isn't named has no password either.
        (vec!["--url", &plain], &variable, false),
    ] {
        let (code, printed) =
            run(&[&["pub", "-t", "t", "-m", "x", "-q", "1", "-d"], &arguments[..]].concat(), environment);
        assert_eq!(code, if comes_in { 0 } else { 5 }, "{arguments:?} {environment:?}: {printed}");
        assert!(!printed.contains("wonder") && !printed.contains("mirror"), "{printed}");
    }
    let long = folder.file("long", &vec![b'x'; 65_536]);
    assert_refused(&["--url", &named, "--pw-file", &long], 1, "longer than 65535 bytes");
    assert_refused(&["--url", &named, "--pw-file", "/no/such/file"], 1, "/no/such/file: it can't be read");
    assert_refused(&["--url", &named, "--pw-file", &right, "-P", "x"], 2, "--pw-file");
    broker.stop();
}
