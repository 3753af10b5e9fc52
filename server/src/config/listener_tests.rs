//! What listeners of every kind need, and have no use for.

use std::path::Path;

use super::{Config, Environment, load_text};

fn load(text: &str) -> Result<Config, String> {
    load_text(text, Some(Path::new("/etc/tidegate/tidegate.toml")), &Environment::default())
        .map(|loaded| loaded.config)
        .map_err(|errors| errors.render())
}

#[track_caller]
fn accepted(text: &str) -> Config {
    load(text).unwrap_or_else(|errors| panic!("{text}\n{errors}"))
}

#[track_caller]
fn refused(text: &str) -> String {
    load(text).expect_err(text)
}

/// A listener of this kind with these lines.
fn listener(kind: &str, lines: &str) -> String {
    format!("[[listeners]]\nname = 'x'\nkind = '{kind}'\nallow_anonymous = true\n{lines}\n")
}

const ADDRESS: &str = "address = '127.0.0.1:1'\n";
const TLS: &str = "address = '127.0.0.1:1'\n[listeners.tls]\ncertificate = 'c.pem'\nkey = 'k.pem'\n";

#[test]
fn every_kind_of_listener_is_read() {
    for (kind, before, lines) in [
        ("tcp", ADDRESS, ""),
        ("tcp", ADDRESS, "proxy_protocol = ['10.0.0.1', 'fd00::/8']"),
        ("ws", ADDRESS, ""),
        (
            "ws",
            ADDRESS,
            "[listeners.websocket]\npath = '/m'\norigins = ['https://a']\nmax_frame_size = '1KiB'",
        ),
        ("ws", ADDRESS, "[listeners.websocket]\nmax_frame_size = '512MiB'"),
        ("auto", ADDRESS, ""),
        ("auto", TLS, ""),
        ("tls", TLS, ""),
        ("wss", TLS, "[listeners.websocket]\n"),
        (
            "tls",
            TLS,
            "min_version = '1.3'\nclient_certificates = 'optional'\nclient_ca = 'ca.pem'\ncrl = ['l.pem']",
        ),
        ("tls", TLS, "sni = [{ name = '*.b.example', certificate = 'b.pem', key = 'b.key' }]"),
        ("unix", "", "path = 'mqtt.sock'\nmode = '0600'"),
    ] {
        let config = accepted(&listener(kind, &format!("{before}{lines}")));
        let [read] = &config.listeners[..] else { panic!("{kind}") };
        assert_eq!(read.kind.name(), kind);
        // Files are meant from the folder of the configuration.
        let mut files = read.tls.iter().flat_map(|tls| tls.files()).chain(&read.path);
        assert!(files.all(|file| file.starts_with("/etc/tidegate")), "{kind}");
        let printed = toml::to_string(&config).unwrap();
        assert_eq!(accepted(&printed), config, "{printed}");
    }
    for (mode, expected) in [("", Some(0o660)), ("mode = '0600'", Some(0o600)), ("mode = '777'", Some(0o777))]
    {
        let config = accepted(&listener("unix", &format!("path = 's'\n{mode}")));
        assert_eq!(config.listeners[0].socket_mode(), expected);
    }
}

#[test]
fn what_a_kind_of_listener_needs_or_has_no_use_for_is_said() {
    for (kind, before, lines, expected) in [
        ("tcp", "", "", "listener \"x\" of kind \"tcp\" needs an `address`"),
        ("unix", "", "", "needs a `path`"),
        ("tls", ADDRESS, "", "needs certificates, [listeners.tls]"),
        ("wss", ADDRESS, "", "needs certificates, [listeners.tls]"),
        ("unix", ADDRESS, "path = 's'", "has no use for `address`"),
        ("tcp", ADDRESS, "path = 's'", "has no use for `path`"),
        ("ws", ADDRESS, "mode = '0600'", "has no use for `mode`"),
        ("unix", "", "path = 's'\nproxy_protocol = ['10.0.0.1']", "has no use for `proxy_protocol`"),
        ("tcp", TLS, "", "has no use for `tls`"),
        ("ws", TLS, "", "has no use for `tls`"),
        ("tls", TLS, "[listeners.websocket]", "has no use for `websocket`"),
        ("unix", "", "path = 's'\nmode = '0888'", "mode \"0888\" means no permissions"),
        ("unix", "", "path = 's'\nmode = '1777'", "mode \"1777\" means no permissions"),
        ("tls", TLS, "client_certificates = 'required'", "need tls.client_ca"),
        ("tls", TLS, "client_ca = 'ca.pem'", "tls.client_ca has no use"),
        ("tls", TLS, "crl = ['l.pem']", "tls.crl has no use"),
        (
            "tls",
            TLS,
            "sni = [{ name = 'a b', certificate = 'b', key = 'b' }]",
            "\"a b\" is no name of a host",
        ),
        ("tls", TLS, "min_version = '1.1'", "unknown value \"1.1\""),
        ("ws", ADDRESS, "[listeners.websocket]\npath = 'mqtt'", "\"mqtt\" is no path"),
        ("ws", ADDRESS, "[listeners.websocket]\npath = '/a?b'", "\"/a?b\" is no path"),
        ("ws", ADDRESS, "[listeners.websocket]\nmax_frame_size = 1023", "must be between 1KiB and 512MiB"),
        (
            "ws",
            ADDRESS,
            "[listeners.websocket]\nmax_frame_size = 536870913",
            "must be between 1KiB and 512MiB",
        ),
        ("tcp", ADDRESS, "proxy_protocol = ['10.0.0.0/33']", "is no range of addresses"),
    ] {
        let text = refused(&listener(kind, &format!("{before}{lines}")));
        assert!(text.contains(expected), "{kind} {lines}: {text}");
    }
    let twice = "sni = [{ name = 'b.example', certificate = 'b', key = 'b' }, { name = 'B.example', certificate = 'b', key = 'b' }]";
    assert!(refused(&listener("tls", &format!("{TLS}{twice}"))).contains("\"B.example\" is named twice"));
    let one = listener("unix", "path = 's'");
    let same = format!("{one}{}", one.replace("'x'", "'y'"));
    assert!(refused(&same).contains("have the same path"), "{same}");
}
